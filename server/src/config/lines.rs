//! The lines of a file: a name, and what follows it.

use super::settings::Place;
use std::path::Path;
use std::sync::Arc;

/// A line that is neither empty nor a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where the name is.
    pub(super) at: Place,
    pub(super) name: String,
    pub(super) value: Value,
}

/// What follows the name of an option, to be read from the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    rest: String,
    /// Where the rest begins.
    at: Place,
}

/// What stands for bytes that are not UTF-8.
const MALFORMED: char = char::REPLACEMENT_CHARACTER;

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t' || c == '\r'
}

/// Takes a file apart. Lines end with `\n` or `\r\n`, the last one also without.
pub(super) fn lines(file: &Path, content: &[u8]) -> impl Iterator<Item = Line> {
    let file: Arc<Path> = file.into();
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    content.split(|&b| b == b'\n').enumerate().filter_map(move |(i, bytes)| {
        let text = String::from_utf8_lossy(bytes);
        let trimmed = text.trim_start_matches(is_blank);
        if trimmed.trim_end_matches(is_blank).is_empty() || trimmed.starts_with('#') {
            return None;
        }
        let column = 1 + (text.chars().count() - trimmed.chars().count()) as u32;
        let end = trimmed.find(is_blank).unwrap_or(trimmed.len());
        let (name, rest) = trimmed.split_at(end);
        let at = Place { file: file.clone(), line: i as u32 + 1, column };
        let mut value =
            Value { rest: rest.trim_end_matches(is_blank).to_owned(), at: at.right_of(name.chars().count()) };
        value.skip_blanks();
        Some(Line { at, name: name.to_owned(), value })
    })
}

impl Place {
    fn right_of(&self, characters: usize) -> Place {
        Place { column: self.column + characters as u32, ..self.clone() }
    }
}

impl Value {
    /// Where the next word begins.
    pub(super) fn at(&self) -> &Place {
        &self.at
    }

    /// The next word. A `#` begins a comment: what is read by words cannot hold one.
    pub(super) fn word(&mut self) -> Option<String> {
        let end = self.rest.find(|c| is_blank(c) || c == '#').unwrap_or(self.rest.len());
        self.take(end)
    }

    /// The next word, which may hold a `#`, but not begin with one.
    pub(super) fn path_word(&mut self) -> Option<String> {
        if self.rest.starts_with('#') {
            return None;
        }
        let end = self.rest.find(is_blank).unwrap_or(self.rest.len());
        self.take(end)
    }

    /// All that is left, blanks and `#` included.
    pub(super) fn text(&mut self) -> Option<String> {
        self.take(self.rest.len())
    }

    /// What is left, without a comment.
    pub(super) fn left_over(&self) -> Option<&str> {
        let rest = self.rest.split('#').next().unwrap_or("").trim_end_matches(is_blank);
        (!rest.is_empty()).then_some(rest)
    }

    /// The comment at the end of the line.
    pub(super) fn comment(&self) -> &str {
        self.rest.split_once('#').map_or("", |(_, comment)| comment)
    }

    fn take(&mut self, end: usize) -> Option<String> {
        if end == 0 {
            return None;
        }
        let rest = self.rest.split_off(end);
        let word = std::mem::replace(&mut self.rest, rest);
        self.at = self.at.right_of(word.chars().count());
        self.skip_blanks();
        Some(word)
    }

    fn skip_blanks(&mut self) {
        let trimmed = self.rest.trim_start_matches(is_blank);
        let blanks = self.rest.len() - trimmed.len();
        self.at = self.at.right_of(blanks);
        self.rest.drain(..blanks);
    }
}

/// Whether a word or text was not UTF-8.
pub(super) fn is_malformed(text: &str) -> bool {
    text.contains(MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let content = b"\xef\xbb\xbf# comment\r\n\r\n  # another\nlistener 1883\t0.0.0.0 # here\r\n\
            \tpassword_file  /a b#c \nuser";
        let mut lines: Vec<_> = lines(Path::new("x.conf"), content).collect();
        assert_eq!(lines.len(), 3);
        let value = &mut lines[0].value;
        assert_eq!(value.comment(), " here");
        assert_eq!((value.word().as_deref(), value.left_over()), (Some("1883"), Some("0.0.0.0")));
        assert_eq!(value.at().to_string(), "x.conf:4:15");
        assert_eq!((value.word().as_deref(), value.word(), value.left_over()), (Some("0.0.0.0"), None, None));
        assert_eq!(
            (lines[1].at.to_string().as_str(), lines[1].name.as_str()),
            ("x.conf:5:2", "password_file")
        );
        assert_eq!(lines[1].value.at().column, 17);
        assert_eq!(lines[1].value.text().as_deref(), Some("/a b#c"));
        assert_eq!(lines[2].name, "user");
        assert_eq!(lines[2].value.text(), None);
    }

    #[test]
    fn a_value_ends_where_its_kind_says() {
        let first = |s: &[u8]| lines(Path::new(""), s).next().unwrap().value;
        let value = |s: &str| first(format!("x {s}").as_bytes());
        assert_eq!(value("true#comment").word().as_deref(), Some("true"));
        assert_eq!(value("#true").word(), None);
        assert_eq!(value("/tmp/#1 # a").path_word().as_deref(), Some("/tmp/#1"));
        assert_eq!(value("# /tmp").path_word(), None);
        assert!(is_malformed(&first(b"user \xff").text().unwrap()));
    }
}
