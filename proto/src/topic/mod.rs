//! Topic names and topic filters: what is valid, what matches, and the two trees that find matches.
//!
//! [`TopicName`] and [`TopicFilter`] are parsed once and then trusted; [`Trie`] finds the subscriptions
//! for a topic, [`Tree`] the topics for a filter.

#[doc(hidden)]
pub mod check;
pub mod levels;
pub mod tree;
pub mod trie;

use crate::codec::is_character;
use core::fmt;

pub use tree::{CursorId, Step, Tree};
pub use trie::{Scratch, Trie};

/// The longest topic name or filter in bytes: what a length of two bytes can say.
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// How many levels a name or filter may have unless the caller is configured otherwise.
///
/// Parsing does not enforce it; compare with [`separators`] + 1.
pub const LEVELS_MAX: usize = 200;

/// A valid topic name: not empty, without wildcards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks a topic name.
    pub fn parse(name: &'a str) -> Result<Self, TopicError> {
        check_text(name)?;
        // [MQTT-3.3.2-2]
        match name.bytes().position(|b| matches!(b, b'+' | b'#')) {
            Some(at) => Err(TopicError::WildcardInName { at }),
            None => Ok(TopicName(name)),
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// Whether the name starts with `$`, out of sight for filters that start with a wildcard.
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }

    /// The levels between the separators; any may be empty.
    pub fn levels(&self) -> core::str::Split<'a, char> {
        self.0.split('/')
    }
}

/// A valid topic filter, perhaps of a shared subscription: `$share/{group}/{filter}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicFilter<'a> {
    whole: &'a str,
    share: Option<&'a str>,
    filter: &'a str,
}

impl<'a> TopicFilter<'a> {
    /// Checks a topic filter and takes the share name off.
    pub fn parse(whole: &'a str) -> Result<Self, TopicError> {
        check_text(whole)?;
        let Some(rest) = whole.strip_prefix(SHARE_PREFIX) else {
            check_wildcards(whole, 0)?;
            return Ok(TopicFilter { whole, share: None, filter: whole });
        };
        let start = SHARE_PREFIX.len();
        let (share, filter) = rest.split_once('/').unwrap_or((rest, ""));
        // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        if share.is_empty() {
            return Err(TopicError::ShareNameEmpty { at: start });
        }
        if let Some(at) = share.bytes().position(|b| matches!(b, b'+' | b'#')) {
            return Err(TopicError::ShareNameWildcard { at: start + at });
        }
        if filter.is_empty() {
            return Err(TopicError::ShareFilterEmpty { at: whole.len() });
        }
        check_wildcards(filter, whole.len() - filter.len())?;
        Ok(TopicFilter { whole, share: Some(share), filter })
    }

    /// The name of the group that shares the subscription.
    pub fn share(&self) -> Option<&'a str> {
        self.share
    }

    /// The part that matches topics, without `$share/{group}/`.
    pub fn filter(&self) -> &'a str {
        self.filter
    }

    /// The filter as it was given, with `$share/{group}/`.
    pub fn as_str(&self) -> &'a str {
        self.whole
    }

    /// Whether the filter matches this valid topic name.
    pub fn matches(&self, topic: &str) -> bool {
        // [MQTT-4.7.2-1]
        if topic.starts_with('$') && self.filter.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in self.filter.split('/') {
            // It matches the level above too: `sport/#` matches `sport`.
            if wanted == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

/// Why a topic name or filter is not valid; `at` is a byte offset in the whole string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopicError {
    /// Names and filters have at least one character. [MQTT-4.7.3-1]
    Empty,
    /// More bytes than a length of two bytes can say. [MQTT-4.7.3-3]
    TooLong {
        /// The number of bytes.
        bytes: usize,
    },
    /// The character U+0000. [MQTT-4.7.3-2]
    Nul {
        /// Where it is.
        at: usize,
    },
    /// Another control character or a code point that is no character, for which receivers close. MQTT 1.5.4
    Control {
        /// Where it is.
        at: usize,
    },
    /// `+` or `#` in a topic name. [MQTT-4.7.0-1]
    WildcardInName {
        /// Where it is.
        at: usize,
    },
    /// `#` shares its level with other characters. [MQTT-4.7.1-1]
    HashNotAlone {
        /// Where it is.
        at: usize,
    },
    /// `#` in a level that is not the last. [MQTT-4.7.1-1]
    HashNotLast {
        /// Where it is.
        at: usize,
    },
    /// `+` shares its level with other characters. [MQTT-4.7.1-2]
    PlusNotAlone {
        /// Where it is.
        at: usize,
    },
    /// Nothing between `$share/` and the next separator. [MQTT-4.8.2-1]
    ShareNameEmpty {
        /// Where the name should be.
        at: usize,
    },
    /// `+` or `#` in the name of a share group. [MQTT-4.8.2-2]
    ShareNameWildcard {
        /// Where it is.
        at: usize,
    },
    /// No filter behind the name of a share group. [MQTT-4.8.2-2]
    ShareFilterEmpty {
        /// Where it should be.
        at: usize,
    },
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TopicError::Empty => f.write_str("a topic has at least one character"),
            TopicError::TooLong { bytes } => {
                write!(f, "a topic has at most {TOPIC_BYTES_MAX} bytes, this one has {bytes}")
            }
            TopicError::Nul { at } => write!(f, "the character U+0000 at byte {at}"),
            TopicError::Control { at } => {
                write!(f, "a control character, or what is no character, at byte {at}")
            }
            TopicError::WildcardInName { at } => {
                write!(f, "a wildcard at byte {at}, where only filters may have one")
            }
            TopicError::HashNotAlone { at } => write!(f, "'#' at byte {at} is not alone in its level"),
            TopicError::HashNotLast { at } => write!(f, "'#' at byte {at} is not in the last level"),
            TopicError::PlusNotAlone { at } => write!(f, "'+' at byte {at} is not alone in its level"),
            TopicError::ShareNameEmpty { at } => write!(f, "the share name at byte {at} is empty"),
            TopicError::ShareNameWildcard { at } => write!(f, "a wildcard in the share name at byte {at}"),
            TopicError::ShareFilterEmpty { at } => {
                write!(f, "no filter behind the share name at byte {at}; write $share/NAME/FILTER")
            }
        }
    }
}

impl core::error::Error for TopicError {}

/// How many separators a name or filter has: one less than its levels.
pub fn separators(s: &str) -> usize {
    s.bytes().filter(|b| *b == b'/').count()
}

/// Whether every topic matched by `b` is matched by `a`, both valid filters without `$share/{group}/`.
pub fn filter_covers(a: &str, b: &str) -> bool {
    if hidden_from(b, a) {
        return false;
    }
    let mut theirs = spell_out(b).split('/');
    for ours in a.split('/') {
        if ours == "#" {
            return true;
        }
        match theirs.next() {
            None | Some("#") => return false,
            Some(level) if ours == "+" || ours == level => {}
            Some(_) => return false,
        }
    }
    theirs.next().is_none()
}

/// Whether some topic can match both of two valid filters without `$share/{group}/`.
pub fn filters_intersect(a: &str, b: &str) -> bool {
    if hidden_from(a, b) || hidden_from(b, a) {
        return false;
    }
    let (mut ours, mut theirs) = (spell_out(a).split('/'), spell_out(b).split('/'));
    loop {
        match (ours.next(), theirs.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(x), Some(y)) if x == "+" || y == "+" || x == y => {}
            _ => return false,
        }
    }
}

const SHARE_PREFIX: &str = "$share/";

/// Whether `topics` are all system topics, which a `filter` that starts with a wildcard does not see.
fn hidden_from(topics: &str, filter: &str) -> bool {
    topics.starts_with('$') && filter.starts_with(['+', '#'])
}

/// The same filter with every level that its topics must have: none is empty, so none has no level,
/// and none that starts with a separator has one level.
fn spell_out(filter: &str) -> &str {
    match filter {
        "#" => "+/#",
        "/#" => "/+/#",
        _ => filter,
    }
}

fn check_text(s: &str) -> Result<(), TopicError> {
    // [MQTT-4.7.3-1]
    if s.is_empty() {
        return Err(TopicError::Empty);
    }
    // [MQTT-4.7.3-3]
    if s.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { bytes: s.len() });
    }
    // [MQTT-4.7.3-2]
    match s.char_indices().find(|&(_, c)| !is_character(c)) {
        Some((at, '\0')) => Err(TopicError::Nul { at }),
        Some((at, _)) => Err(TopicError::Control { at }),
        None => Ok(()),
    }
}

/// Checks the wildcards of a filter that stands at `offset` of the whole string.
fn check_wildcards(filter: &str, offset: usize) -> Result<(), TopicError> {
    let bytes = filter.as_bytes();
    for (i, wildcard) in bytes.iter().enumerate().filter(|(_, b)| matches!(b, b'+' | b'#')) {
        let at = offset + i;
        let alone = (i == 0 || bytes[i - 1] == b'/') && bytes.get(i + 1).is_none_or(|b| *b == b'/');
        match (wildcard, alone) {
            // [MQTT-4.7.1-1]
            (b'#', false) => return Err(TopicError::HashNotAlone { at }),
            (b'#', true) if i + 1 != bytes.len() => return Err(TopicError::HashNotLast { at }),
            // [MQTT-4.7.1-2]
            (b'+', false) => return Err(TopicError::PlusNotAlone { at }),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn names_are_checked() {
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        for good in ["a", "/", "//", "a/b", " ", "a b", "$SYS/x", "$share/g/x", "日本", "\u{a0}", &long[1..]]
        {
            assert_eq!(TopicName::parse(good).map(|name| name.as_str()), Ok(good));
        }
        for (bad, error) in [
            ("", TopicError::Empty),
            ("a\0b", TopicError::Nul { at: 1 }),
            ("ä\nb", TopicError::Control { at: 2 }),
            ("a\u{85}", TopicError::Control { at: 1 }),
            ("\u{fffe}", TopicError::Control { at: 0 }),
            ("a/+", TopicError::WildcardInName { at: 2 }),
            ("a#", TopicError::WildcardInName { at: 1 }),
            (&long, TopicError::TooLong { bytes: 65_536 }),
        ] {
            assert_eq!(TopicName::parse(bad), Err(error));
        }
        assert!(TopicName("$SYS").is_system() && !TopicName("a/$SYS").is_system());
        assert_eq!(TopicName("/a/").levels().collect::<Vec<_>>(), ["", "a", ""]);
        assert_eq!((separators("a"), separators("/a/")), (0, 2));
    }

    #[test]
    fn filters_are_checked() {
        for good in
            ["#", "+", "/", "+/+", "/#", "a/#", "+/#", "a/+/b", "$SYS/#", "$share", "$shared/a", "$/+"]
        {
            let filter = TopicFilter::parse(good).unwrap();
            assert_eq!((filter.as_str(), filter.filter(), filter.share()), (good, good, None));
        }
        for (bad, error) in [
            ("", TopicError::Empty),
            ("\0", TopicError::Nul { at: 0 }),
            ("a#", TopicError::HashNotAlone { at: 1 }),
            ("a/#b", TopicError::HashNotAlone { at: 2 }),
            ("##", TopicError::HashNotAlone { at: 0 }),
            ("#/", TopicError::HashNotLast { at: 0 }),
            ("a/#/b", TopicError::HashNotLast { at: 2 }),
            ("a+", TopicError::PlusNotAlone { at: 1 }),
            ("a/+b/c", TopicError::PlusNotAlone { at: 2 }),
            ("++", TopicError::PlusNotAlone { at: 0 }),
            ("+#", TopicError::PlusNotAlone { at: 0 }),
            ("$share/", TopicError::ShareNameEmpty { at: 7 }),
            ("$share//a", TopicError::ShareNameEmpty { at: 7 }),
            ("$share/g", TopicError::ShareFilterEmpty { at: 8 }),
            ("$share/g/", TopicError::ShareFilterEmpty { at: 9 }),
            ("$share/g+/a", TopicError::ShareNameWildcard { at: 8 }),
            ("$share/#/a", TopicError::ShareNameWildcard { at: 7 }),
            ("$share/g/a+", TopicError::PlusNotAlone { at: 10 }),
        ] {
            assert_eq!(TopicFilter::parse(bad), Err(error), "{bad:?}");
        }
        assert_eq!(
            TopicError::PlusNotAlone { at: 10 }.to_string(),
            "'+' at byte 10 is not alone in its level"
        );
    }

    #[test]
    fn share_name_is_taken_off() {
        for (whole, share, filter) in [
            ("$share/g/a/#", "g", "a/#"),
            ("$share/g//", "g", "/"),
            ("$share/$x/$share/y/z", "$x", "$share/y/z"),
        ] {
            let parsed = TopicFilter::parse(whole).unwrap();
            assert_eq!((parsed.as_str(), parsed.share(), parsed.filter()), (whole, Some(share), filter));
        }
        assert!(TopicFilter::parse("$share/g/+/x").unwrap().matches("a/x"));
    }

    #[test]
    fn filters_match_as_the_specification_shows() {
        for (filter, topic, matches) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/tennis/player1/#", "sport/tennis/player10", false),
            ("sport/#", "sport", true),
            ("#", "a/b/c", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/#", "$SYS", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/+", "a/$x", true),
            ("a/#", "a/$x/y", true),
            ("ACCOUNTS", "Accounts", false),
            ("a", "a/", false),
            ("a//b", "a/b", false),
            ("a/+/#", "a", false),
            ("a/+/#", "a/b", true),
        ] {
            assert_eq!(TopicFilter::parse(filter).unwrap().matches(topic), matches, "{filter} {topic}");
        }
    }

    /// Every name out of these levels with up to three of them.
    fn all_names(levels: &[&str], depth: usize) -> Vec<String> {
        let mut all: Vec<String> = levels.iter().map(|level| level.to_string()).collect();
        let mut last = all.clone();
        for _ in 1..depth {
            last = last.iter().flat_map(|a| levels.iter().map(move |b| alloc::format!("{a}/{b}"))).collect();
            all.extend_from_slice(&last);
        }
        all
    }

    #[test]
    fn cover_and_intersection_are_exact() {
        // `z` stands for all that no filter names, and a level more for all that are deeper.
        let topics = all_names(&["", "a", "$x", "z"], 4);
        let topics: Vec<&str> = topics.iter().map(|t| &**t).filter(|t| TopicName::parse(t).is_ok()).collect();
        let filters = all_names(&["", "a", "$x", "+", "#"], 3);
        let filters: Vec<(&str, Vec<bool>)> = filters
            .iter()
            .filter_map(|text| {
                let filter = TopicFilter::parse(text).ok()?;
                Some((&**text, topics.iter().map(|topic| filter.matches(topic)).collect()))
            })
            .collect();
        for (a, in_a) in &filters {
            for (b, in_b) in &filters {
                let covers = in_a.iter().zip(in_b).all(|(a, b)| *a || !b);
                let intersect = in_a.iter().zip(in_b).any(|(a, b)| *a && *b);
                assert_eq!(filter_covers(a, b), covers, "{a} covers {b}");
                assert_eq!(filters_intersect(a, b), intersect, "{a} meets {b}");
            }
        }
    }
}
