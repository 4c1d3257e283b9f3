//! ACL files in mosquitto's grammar: `user NAME`, `topic [ACCESS] FILTER`, `pattern [ACCESS] FILTER`.
//!
//! A `topic` belongs to the `user` above it, or, above all of them, to clients without a user name. A `pattern`
//! is for everyone, wherever it stands. ACCESS is `read`, `write`, `readwrite` (if it is left out) or `deny`.
//! A line that begins with `#` is a comment.

use crate::config::{Place, Problem, Severity, Tally};
use hikyaku_proto::broker::rights::{Access, Rule, Rules, Who};
use hikyaku_proto::topic::TopicFilter;
use std::path::Path;
use std::sync::Arc;

/// Reads a file. What is remarkable in it is added to `problems`; `None` if there is an error among that: the
/// file cannot be read, or a line is not one.
pub fn read(path: &Path, problems: &mut Vec<Problem>) -> Option<Rules> {
    let text = super::read_text("acl_file", path, problems)?;
    parse(&text, path, problems)
}

pub(super) fn parse(text: &str, path: &Path, problems: &mut Vec<Problem>) -> Option<Rules> {
    let file: Arc<Path> = path.into();
    let mut rules = Vec::new();
    let mut who = Who::Anonymous;
    let mut tally = Tally::default();
    for (line, content) in (1..).zip(text.lines()) {
        if tally.is_full() {
            break;
        }
        let mut say = |severity, rest: &str, message: String| {
            // `rest` is a part of `content`: where it begins is where the problem is.
            let bytes = (rest.as_ptr() as usize).saturating_sub(content.as_ptr() as usize);
            let column = content.get(..bytes).map_or(0, |before| before.chars().count()) as u32 + 1;
            let at = Place { file: Arc::clone(&file), line, column };
            tally.tell(Problem { at: Some(at), severity, message }, problems);
        };
        match Line::parse(content) {
            Ok(Line::Nothing) => {}
            Ok(Line::User(name)) => who = Who::User(name.into()),
            Ok(Line::Rule { pattern, access, filter }) => {
                if pattern && !filter.contains("%c") && !filter.contains("%u") {
                    let message = "this pattern is the same for everyone, it has neither %c nor %u";
                    say(Severity::Warning, filter, message.into());
                } else if !pattern && (filter.contains("%c") || filter.contains("%u")) {
                    let message = "%c and %u stand for names in 'pattern' lines only, here they are text";
                    say(Severity::Warning, filter, message.into());
                }
                if filter.starts_with("$share/") {
                    let message = "rules are about topics: write the filter without $share/NAME/";
                    say(Severity::Warning, filter, message.into());
                }
                let who = if pattern { Who::Pattern } else { who.clone() };
                rules.push(Rule { who, access, filter: filter.into(), line });
            }
            Err((rest, message)) => say(Severity::Error, rest, message),
        }
    }
    problems.extend(tally.rest(path));
    let ok = !tally.has_errors();
    if ok && rules.is_empty() {
        let message = format!("{} has no rules: nobody may publish or subscribe to anything", path.display());
        problems.push(Problem { at: None, severity: Severity::Warning, message });
    }
    ok.then(|| Rules::new(Some(&path.to_string_lossy()), rules))
}

/// What a line says.
enum Line<'a> {
    Nothing,
    User(&'a str),
    Rule { pattern: bool, access: Access, filter: &'a str },
}

impl<'a> Line<'a> {
    /// An error is the part of the line that is wrong, and why.
    fn parse(line: &'a str) -> Result<Self, (&'a str, String)> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Line::Nothing);
        }
        let (word, rest) = next_word(line);
        match word {
            "user" if rest.is_empty() => Err((rest, "the user name is missing".into())),
            "user" => Ok(Line::User(rest)),
            "topic" | "pattern" => {
                let (access, filter) = parse_access(rest)?;
                if let Err(e) = TopicFilter::parse(filter) {
                    let filter_text = filter.escape_debug();
                    return Err((filter, format!("'{filter_text}' is not a topic filter: {e}")));
                }
                Ok(Line::Rule { pattern: word == "pattern", access, filter })
            }
            _ => {
                let word_text = word.escape_debug();
                Err((line, format!("'{word_text}' is none of 'user', 'topic' and 'pattern'")))
            }
        }
    }
}

fn parse_access(rest: &str) -> Result<(Access, &str), (&str, String)> {
    let (word, filter) = next_word(rest);
    if word.is_empty() {
        return Err((rest, "the topic filter is missing".into()));
    }
    // A single word is a filter, also if it is called `read`.
    if filter.is_empty() {
        return Ok((Access::ReadWrite, word));
    }
    let access = match word {
        "read" => Access::Read,
        "write" => Access::Write,
        "readwrite" => Access::ReadWrite,
        "deny" => Access::Deny,
        _ => {
            let word_text = word.escape_debug();
            return Err((rest, format!("'{word_text}' is none of 'read', 'write', 'readwrite' and 'deny'")));
        }
    };
    Ok((access, filter))
}

/// The first word, and what follows the blanks behind it.
fn next_word(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hikyaku_proto::broker::rights::{Rights, Subject};

    fn read(text: &str) -> (Option<Rights>, Vec<String>) {
        let mut problems = Vec::new();
        let rules = parse(text, Path::new("acl"), &mut problems);
        (rules.map(Rights::Rules), problems.iter().map(crate::auth::text).collect())
    }

    #[test]
    fn the_grammar_is_mosquittos() {
        let (rights, problems) = read(
            "# comment\r\n\
             topic read public/#\r\n\
             \r\n\
             user ann smith\r\n\
             topic all/a\r\n\
             topic readwrite all/b c\n\
             topic\twrite\tout/#  \n\
             pattern read in/%u\n\
             topic deny out/no\n\
             user bob\n\
             topic read\n\
             user ann smith\n\
             topic late",
        );
        let rights = rights.unwrap();
        assert_eq!(problems, Vec::<String>::new());
        let ann = Subject { client_id: "a", username: Some("ann smith") };
        let bob = Subject { client_id: "b", username: Some("bob") };
        let nobody = Subject { client_id: "c", username: None };
        assert!(rights.may_receive(nobody, "public/x") && !rights.may_receive(ann, "public/x"));
        assert!(rights.may_publish(ann, "all/b c") && rights.may_receive(ann, "all/a"));
        assert!(rights.may_publish(ann, "out/x") && !rights.may_publish(ann, "out/no"));
        assert!(rights.may_receive(bob, "in/bob") && rights.may_publish(bob, "read"));
        assert!(rights.may_publish(ann, "late"));
        let denied = rights.check_publish(ann, "out/no").unwrap_err().to_string();
        assert_eq!(denied, "acl:9: topic deny out/no");
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, problem) in [
            ("\nuser", "acl:2:5: the user name is missing"),
            ("topic", "acl:1:6: the topic filter is missing"),
            ("topic raed a/b", "acl:1:7: 'raed' is none of 'read', 'write', 'readwrite' and 'deny'"),
            ("  topics a", "acl:1:3: 'topics' is none of 'user', 'topic' and 'pattern'"),
            (
                "pattern read a/%c#",
                "acl:1:14: 'a/%c#' is not a topic filter: '#' at byte 4 is not alone in its level",
            ),
        ] {
            let (rights, problems) = read(text);
            assert!(rights.is_none());
            assert_eq!(problems, [problem]);
        }
    }

    #[test]
    fn what_is_surely_not_meant_is_said() {
        for (text, problem) in [
            ("pattern read a", "acl:1:14: this pattern is the same for everyone, it has neither %c nor %u"),
            ("topic %u/a", "acl:1:7: %c and %u stand for names in 'pattern' lines only, here they are text"),
            (
                "topic read $share/g/a",
                "acl:1:12: rules are about topics: write the filter without $share/NAME/",
            ),
            ("# nothing", "acl has no rules: nobody may publish or subscribe to anything"),
        ] {
            let (rights, problems) = read(text);
            assert_eq!((rights.is_some(), &problems[..]), (true, &[problem.to_string()][..]));
        }
    }
}
