//! Which topics a filter means, by recursion over its levels.

/// Whether a filter without `$share/…` matches a topic name.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    // [MQTT-4.7.2-1]
    if topic[0].starts_with('$') && matches!(filter[0], "#" | "+") {
        return false;
    }
    levels_match(&filter, &topic)
}

fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([], []) => true,
        (["#"], _) => true,
        (["+", filter @ ..], [_, topic @ ..]) => levels_match(filter, topic),
        ([a, filter @ ..], [b, topic @ ..]) => a == b && levels_match(filter, topic),
        _ => false,
    }
}

/// The filter of a shared subscription without its beginning, or the filter itself.
pub(crate) fn plain(filter: &str) -> &str {
    match filter.strip_prefix("$share/") {
        Some(rest) => rest.split_once('/').map_or("", |(_, filter)| filter),
        None => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_mean_what_the_standard_says() {
        for (filter, topic) in
            [("#", "a/b"), ("a/#", "a"), ("+/b", "/b"), ("a/+/c", "a//c"), ("$x/#", "$x/y")]
        {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [("+", "a/b"), ("#", "$x"), ("+/y", "$x/y"), ("a/+", "a"), ("a", "a/b")] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
        assert_eq!(plain("$share/g/a/#"), "a/#");
    }
}
