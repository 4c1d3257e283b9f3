//! Which topics a filter means, by recursion over its bytes.

/// Whether a valid filter without `$share/…` matches a topic name.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    match (filter.as_bytes(), topic.as_bytes()) {
        // [MQTT-4.7.2-1]
        ([b'#' | b'+', ..], [b'$', ..]) => false,
        (filter, topic) => rest_matches(filter, topic),
    }
}

fn rest_matches(filter: &[u8], topic: &[u8]) -> bool {
    match (filter, topic) {
        ([], []) => true,
        ([b'#'], _) => true,
        // [MQTT-4.7.1-2]: the level above it, too.
        ([b'/', b'#'], []) => true,
        ([b'+', filter @ ..], [] | [b'/', ..]) => rest_matches(filter, topic),
        ([b'+', ..], [_, topic @ ..]) => rest_matches(filter, topic),
        ([a, filter @ ..], [b, topic @ ..]) => a == b && rest_matches(filter, topic),
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
        for (filter, topic) in [
            ("#", "a/b"),
            ("a/#", "a"),
            ("+/#", "a"),
            ("a/#", "a/"),
            ("+/b", "/b"),
            ("a/+/c", "a//c"),
            ("$x/#", "$x/y"),
        ] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("+", "a/b"),
            ("#", "$x"),
            ("+/y", "$x/y"),
            ("a/+", "a"),
            ("a", "a/b"),
            ("a/#", "ab"),
            ("+", "/a"),
        ] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
        assert_eq!(plain("$share/g/a/#"), "a/#");
    }
}
