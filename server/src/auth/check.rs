//! What must hold for any file of users or rights: the body of a fuzz target.

use super::acl;
use super::password::{PasswordFile, Scheme};
use super::scram::{Exchange, Nonce, Secret};
use crate::config::{Problem, Severity};
use hikyaku_proto::broker::Verdict;
use hikyaku_proto::broker::rights::{Rights, Subject};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::OnceLock;

/// Reads `data` as a file of rights if it begins with `a`, as the two messages of a client that authenticates by SCRAM if with `s`,
/// and as a file of passwords otherwise. Panics when reading does, when rights come out that contradict themselves, or when
/// somebody gets in without the password.
pub fn check_users(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, mut problems) = (Path::new("fuzz"), Vec::new());
    if *first == b's' {
        let (first, last) = text.split_once('\n').unwrap_or((text, ""));
        check_scram(first.as_bytes(), last);
    } else if *first == b'a' {
        let rules = acl::parse(text, file, &mut problems);
        check_problems(&problems, rules.is_some());
        if let Some(rules) = rules {
            check_rights(&Rights::Rules(rules));
        }
    } else {
        let users = PasswordFile::parse(text, file, &mut problems);
        check_problems(&problems, users.is_some());
        assert!(users.is_none_or(|users| users.len() <= text.lines().count()));
    }
}

fn check_scram(first: &[u8], last: &str) {
    static USERS: OnceLock<(PasswordFile, Secret)> = OnceLock::new();
    let (users, secret) = USERS.get_or_init(|| {
        let iterations = NonZeroU32::new(4096).unwrap_or(NonZeroU32::MIN);
        let hash = super::Hash::create(Scheme::ScramSha256 { iterations }, b"password");
        let line = hash.map(|hash| format!("u:{hash}\n")).unwrap_or_default();
        let users = PasswordFile::parse(&line, Path::new("fuzz"), &mut Vec::new());
        users.zip(Secret::draw().ok()).unwrap_or_else(|| panic!("no random numbers"))
    });
    for claimed in [None, Some("u")] {
        let Some((exchange, answer)) = Exchange::begin(first, claimed, users, secret, &Nonce::fixed("ours"))
        else {
            continue;
        };
        assert!(claimed.is_none_or(|name| name == exchange.username()));
        assert!(answer.starts_with(b"r="));
        // Messages that begin as they should, too.
        let right = format!("{},p={last}", exchange.prefix());
        let again = Exchange::begin(first, claimed, users, secret, &Nonce::fixed("ours"));
        for (exchange, last) in [(Some(exchange), last), (again.map(|(again, _)| again), &right)] {
            let verdict = exchange.map(|exchange| exchange.finish(last.as_bytes()));
            assert!(!matches!(verdict, Some(Verdict::Success { .. })), "let in without the password");
        }
    }
}

fn check_problems(problems: &[Problem], accepted: bool) {
    let refused = problems.iter().any(|p| p.severity == Severity::Error);
    assert!(accepted != refused, "errors in what is accepted, or none in what is not");
}

fn check_rights(rights: &Rights) {
    // Names that would be more than one level, or a wildcard, in the place of %u or %c.
    for name in ["+", "#", "a/b", "a\u{7}"] {
        let whole = Subject { client_id: "c", username: Some(name) };
        let _ = (rights.may_publish(whole, "a"), rights.may_receive(whole, "a"));
    }
    for username in [None, Some("a"), Some("+")] {
        for topic in ["a", "a/b", "$x/y", ""] {
            let subject = Subject { client_id: "a", username };
            assert_eq!(rights.may_publish(subject, topic), rights.check_publish(subject, topic).is_ok());
        }
    }
}
