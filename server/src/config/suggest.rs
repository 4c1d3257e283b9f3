//! What a misspelled name may have meant.

/// The name closest to `given`, if one is close enough to be meant.
pub(super) fn closest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = match given.chars().count() {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    names
        .map(|name| (distance(given, name), name))
        .filter(|&(d, _)| d <= most)
        .min_by_key(|&(d, _)| d)
        .map(|(_, name)| name)
}

/// How many letters have to be changed, left out, added or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_is_suggested() {
        let names = ["max_connections", "max_keepalive", "port", "listener", "log_dest"];
        for (given, meant) in [
            ("max_conections", Some("max_connections")),
            ("MAX_KEEPALIVE", Some("max_keepalive")),
            ("lsitener", Some("listener")),
            ("listner", Some("listener")),
            ("log-dest", Some("log_dest")),
            ("prot", Some("port")),
            ("something_else", None),
            ("", None),
        ] {
            assert_eq!(closest(given, names.into_iter()), meant, "{given}");
        }
        assert_eq!(closest(&"x".repeat(100_000), names.into_iter()), None);
    }
}
