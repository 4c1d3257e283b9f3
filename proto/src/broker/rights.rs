//! Who may publish and subscribe to what: a compiled value, evaluated where the question arises.
//!
//! As in mosquitto a client's own rules are asked first, those of its user or of anonymous clients, and the
//! patterns after them. Among the rules of either kind a [`Access::Deny`] goes before all others, and
//! what no rule allows is denied. Rules are found by user; none is copied or expanded to match a topic.

use crate::topic::{filter_covers, filters_intersect};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The client id.
    pub client_id: &'a str,
    /// The user name, if there is one.
    pub username: Option<&'a str>,
}

/// The rights of everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rights {
    /// Everyone may do everything.
    #[default]
    Open,
    /// What no rule allows is denied.
    Rules(Rules),
}

/// Rules in the form they are evaluated in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    source: Option<Box<str>>,
    anonymous: Vec<Rule>,
    users: BTreeMap<Box<str>, Vec<Rule>>,
    patterns: Vec<Rule>,
}

/// To whom a rule applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Clients without a user name.
    Anonymous,
    /// One user.
    User(Box<str>),
    /// Everyone; `%u` and `%c` in the filter stand for user name and client id.
    Pattern,
}

/// What a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To receive.
    Read,
    /// To publish.
    Write,
    /// Both.
    ReadWrite,
    /// Neither.
    Deny,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// To whom it applies.
    pub who: Who,
    /// What it allows.
    pub access: Access,
    /// On which topics: a valid filter. `$share` means nothing special in it.
    pub filter: Box<str>,
    /// The line of the source it was read from; 0 for none.
    pub line: u32,
}

/// Why something is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied<'a> {
    /// The rule that denies it; `None` if no rule allows it.
    pub rule: Option<&'a Rule>,
    /// What the rules were read from.
    pub source: Option<&'a str>,
}

/// Whether a rule is about a topic or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    /// The client's name would widen the pattern. It then grants nothing and denies everything.
    Unsafe,
}

impl Rules {
    /// Compiles rules; `source` names what they were read from.
    pub fn new(source: Option<&str>, rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut all = Rules { source: source.map(Box::from), ..Rules::default() };
        for rule in rules {
            match &rule.who {
                Who::Anonymous => all.anonymous.push(rule),
                Who::User(name) => all.users.entry(name.clone()).or_default().push(rule),
                Who::Pattern => all.patterns.push(rule),
            }
        }
        for set in all.users.values_mut().chain([&mut all.anonymous, &mut all.patterns]) {
            set.sort_by_key(|rule| rule.access != Access::Deny);
        }
        all
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.anonymous.len() + self.patterns.len() + self.users.values().map(Vec::len).sum::<usize>()
    }

    /// Whether there are none: nobody may do anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The users that some rule is about, in no order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(|name| &**name)
    }

    /// Whether some rule is about a user.
    pub fn name_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// The rules for a subject, in the order they are asked in.
    fn of(&self, subject: Subject<'_>) -> impl Iterator<Item = &Rule> {
        let own = match subject.username {
            None => Some(&self.anonymous),
            Some(name) => self.users.get(name),
        };
        own.into_iter().flatten().chain(&self.patterns)
    }

    fn decide(
        &self,
        subject: Subject<'_>,
        wanted: Access,
        fit: impl Fn(&Rule) -> Fit,
    ) -> Result<(), Denied<'_>> {
        let source = self.source.as_deref();
        for rule in self.of(subject) {
            let denies = rule.access == Access::Deny;
            if !denies && rule.access != wanted && rule.access != Access::ReadWrite {
                continue;
            }
            match fit(rule) {
                Fit::Yes | Fit::Unsafe if denies => return Err(Denied { rule: Some(rule), source }),
                Fit::Yes => return Ok(()),
                Fit::No | Fit::Unsafe => {}
            }
        }
        Err(Denied { rule: None, source })
    }
}

impl Rights {
    /// Nobody may do anything.
    pub const NONE: Rights = Rights::Rules(Rules {
        source: None,
        anonymous: Vec::new(),
        users: BTreeMap::new(),
        patterns: Vec::new(),
    });

    /// Whether everyone may do everything.
    pub fn is_open(&self) -> bool {
        matches!(self, Rights::Open)
    }

    /// Whether `subject` may publish to `topic`.
    ///
    /// # Errors
    /// If it may not, with what denies it.
    pub fn check_publish(&self, subject: Subject<'_>, topic: &str) -> Result<(), Denied<'_>> {
        self.check(subject, Access::Write, topic)
    }

    /// Whether `subject` may receive from `topic`.
    ///
    /// # Errors
    /// If it may not, with what denies it.
    pub fn check_receive(&self, subject: Subject<'_>, topic: &str) -> Result<(), Denied<'_>> {
        self.check(subject, Access::Read, topic)
    }

    /// Whether `subject` may subscribe to `filter`: something permitted can match it, and no denial
    /// covers all of it. What it then receives is still filtered by topic.
    ///
    /// # Errors
    /// If it may not, with what denies it.
    pub fn check_subscribe(&self, subject: Subject<'_>, filter: &str) -> Result<(), Denied<'_>> {
        let Rights::Rules(rules) = self else { return Ok(()) };
        rules.decide(subject, Access::Read, |rule| {
            let own = match rule.expand(subject) {
                Ok(own) => own,
                Err(fit) => return fit,
            };
            let fits = match rule.access {
                Access::Deny => filter_covers(&own, filter),
                _ => filters_intersect(&own, filter),
            };
            if fits { Fit::Yes } else { Fit::No }
        })
    }

    /// [`Rights::check_publish`] without the reason.
    pub fn may_publish(&self, subject: Subject<'_>, topic: &str) -> bool {
        self.check_publish(subject, topic).is_ok()
    }

    /// [`Rights::check_receive`] without the reason.
    pub fn may_receive(&self, subject: Subject<'_>, topic: &str) -> bool {
        self.check_receive(subject, topic).is_ok()
    }

    /// [`Rights::check_subscribe`] without the reason.
    pub fn may_subscribe(&self, subject: Subject<'_>, filter: &str) -> bool {
        self.check_subscribe(subject, filter).is_ok()
    }

    fn check(&self, subject: Subject<'_>, wanted: Access, topic: &str) -> Result<(), Denied<'_>> {
        match self {
            Rights::Open => Ok(()),
            Rights::Rules(rules) => rules.decide(subject, wanted, |rule| rule.fit(subject, topic)),
        }
    }
}

impl Rule {
    /// Whether the subject's names may stand in the filter.
    fn names_fit(&self, subject: Subject<'_>) -> Fit {
        if self.who != Who::Pattern {
            return Fit::Yes;
        }
        let mut rest = &*self.filter;
        let mut fit = Fit::Yes;
        while let Some((at, mark)) = next_mark(rest) {
            let Some(value) = mark.value(subject) else { return Fit::No };
            // At the start a `$` would open what wildcards do not see.
            let first = at == 0 && rest.len() == self.filter.len();
            if value.contains(['+', '#', '/'])
                || value.contains(char::is_control)
                || first && value.starts_with('$')
            {
                fit = Fit::Unsafe;
            }
            rest = &rest[at + 2..];
        }
        fit
    }

    fn fit(&self, subject: Subject<'_>, topic: &str) -> Fit {
        // [MQTT-4.7.2-1]
        if topic.starts_with('$') && self.filter.starts_with(['+', '#']) {
            return Fit::No;
        }
        match self.names_fit(subject) {
            Fit::Yes if self.matches(subject, topic) => Fit::Yes,
            Fit::Yes => Fit::No,
            other => other,
        }
    }

    fn matches(&self, subject: Subject<'_>, topic: &str) -> bool {
        let mut levels = topic.split('/');
        for wanted in self.filter.split('/') {
            if wanted == "#" {
                return true;
            }
            let Some(level) = levels.next() else { return false };
            let same = match self.who {
                Who::Pattern => level_matches(wanted, level, subject).is_some(),
                _ => wanted == level,
            };
            if wanted != "+" && !same {
                return false;
            }
        }
        levels.next().is_none()
    }

    /// The filter with the subject's names in it, in one pass: what a name brings is not read again.
    fn expand(&self, subject: Subject<'_>) -> Result<String, Fit> {
        let fit = self.names_fit(subject);
        if fit != Fit::Yes {
            return Err(fit);
        }
        let mut filter = String::new();
        let mut rest = &*self.filter;
        if self.who == Who::Pattern {
            while let Some((at, mark)) = next_mark(rest) {
                filter.push_str(&rest[..at]);
                filter.push_str(mark.value(subject).unwrap_or_default());
                rest = &rest[at + 2..];
            }
        }
        filter.push_str(rest);
        Ok(filter)
    }
}

/// What stands for a name in a pattern.
#[derive(Clone, Copy)]
enum Mark {
    ClientId,
    Username,
}

impl Mark {
    fn value<'a>(self, subject: Subject<'a>) -> Option<&'a str> {
        match self {
            Mark::ClientId => Some(subject.client_id),
            Mark::Username => subject.username,
        }
    }
}

/// The first `%c` or `%u`, and where it is.
fn next_mark(pattern: &str) -> Option<(usize, Mark)> {
    pattern.match_indices('%').find_map(|(at, _)| match pattern.as_bytes().get(at + 1) {
        Some(b'c') => Some((at, Mark::ClientId)),
        Some(b'u') => Some((at, Mark::Username)),
        _ => None,
    })
}

/// Whether a level of a topic is that of a pattern, with names in place of marks.
fn level_matches(mut pattern: &str, mut level: &str, subject: Subject<'_>) -> Option<()> {
    while let Some((at, mark)) = next_mark(pattern) {
        level = level.strip_prefix(&pattern[..at])?.strip_prefix(mark.value(subject)?)?;
        pattern = &pattern[at + 2..];
    }
    (pattern == level).then_some(())
}

/// As in mosquitto's file.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::ReadWrite => "readwrite",
            Access::Deny => "deny",
        })
    }
}

/// `FILE:LINE: topic deny FILTER`, or that nothing allows it.
impl fmt::Display for Denied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rule, self.source) {
            (None, None) => f.write_str("no rule allows it"),
            (None, Some(source)) => write!(f, "no rule in {source} allows it"),
            (Some(rule), source) => {
                if let Some(source) = source {
                    write!(f, "{source}:{}: ", rule.line)?;
                }
                let kind = if rule.who == Who::Pattern { "pattern" } else { "topic" };
                write!(f, "{kind} {} {}", rule.access, rule.filter)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicFilter;
    use alloc::string::ToString;

    fn rule(who: Who, access: Access, filter: &str) -> Rule {
        Rule { who, access, filter: filter.into(), line: 7 }
    }

    fn rights<const N: usize>(rules: [Rule; N]) -> Rights {
        Rights::Rules(Rules::new(Some("acl"), rules))
    }

    const fn ann(client_id: &str) -> Subject<'_> {
        Subject { client_id, username: Some("ann") }
    }

    const fn nobody(client_id: &str) -> Subject<'_> {
        Subject { client_id, username: None }
    }

    #[test]
    fn rules_allow_and_deny() {
        let rights = rights([
            rule(Who::Anonymous, Access::Read, "public/#"),
            rule(Who::User("ann".into()), Access::ReadWrite, "ann/#"),
            rule(Who::User("ann".into()), Access::Deny, "ann/secret/#"),
            rule(Who::Pattern, Access::Write, "up/%c/%u"),
        ]);
        let (ann, nobody) = (ann("c1"), nobody("+"));
        assert!(rights.may_publish(ann, "ann/x") && rights.may_receive(ann, "ann/x"));
        assert!(!rights.may_publish(ann, "ann/secret/x") && !rights.may_receive(ann, "public/x"));
        assert!(rights.may_publish(ann, "up/c1/ann") && !rights.may_publish(ann, "up/c2/ann"));
        assert!(!rights.may_receive(ann, "up/c1/ann"));
        assert!(rights.may_receive(nobody, "public/x") && !rights.may_publish(nobody, "public/x"));
        assert!(rights.may_subscribe(nobody, "#") && !rights.may_subscribe(nobody, "ann/#"));
        assert!(!rights.may_subscribe(ann, "ann/secret/+") && rights.may_subscribe(ann, "ann/#"));
        let denied = rights.check_publish(ann, "ann/secret/x").unwrap_err();
        assert_eq!(denied.to_string(), "acl:7: topic deny ann/secret/#");
        assert_eq!(rights.check_publish(ann, "x").unwrap_err().to_string(), "no rule in acl allows it");
        assert!(!Rights::NONE.may_publish(ann, "x") && Rights::Open.may_publish(ann, "x"));
    }

    #[test]
    fn names_never_widen_a_pattern() {
        let rights = rights([
            rule(Who::Pattern, Access::ReadWrite, "%c/#"),
            rule(Who::Pattern, Access::ReadWrite, "u/%u-%c/x"),
        ]);
        for id in ["+", "#", "a/b", "$SYS", "$share", "a\u{1}"] {
            for topic in ["a/x", "a/b/x", "$SYS/x", "g/x", "$share/x", "a\u{1}/x"] {
                assert!(!rights.may_publish(nobody(id), topic), "{id} {topic}");
            }
            for filter in ["#", "+/x", "a/b/#", "$SYS/#"] {
                assert!(!rights.may_subscribe(nobody(id), filter), "{id} {filter}");
            }
        }
        assert!(rights.may_publish(ann("c"), "u/ann-c/x") && !rights.may_publish(ann("c"), "u/ann-d/x"));
        assert!(rights.may_publish(ann("%u"), "%u/x") && !rights.may_publish(ann("%u"), "ann/x"));
        assert!(rights.may_subscribe(ann("%u"), "%u/x") && !rights.may_subscribe(ann("%u"), "ann/x"));
        assert!(!rights.may_publish(nobody("c"), "u/-c/x"), "%u needs a user");
    }

    #[test]
    fn an_unsafe_name_does_not_escape_a_denial() {
        let rights = rights([
            rule(Who::Pattern, Access::ReadWrite, "#"),
            rule(Who::Pattern, Access::Deny, "secret/%c"),
        ]);
        assert!(rights.may_publish(nobody("a"), "secret/b") && !rights.may_publish(nobody("b"), "secret/b"));
        assert!(!rights.may_publish(nobody("a/b"), "secret/a/b") && !rights.may_publish(nobody("+"), "x"));
    }

    /// What is matched in place has to be what the filter with the names in it matches.
    #[test]
    fn a_pattern_matches_as_its_expansion_does() {
        let mut state = 1u32;
        let mut draw = |parts: &[&str], most: u32| -> String {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 16
            };
            (0..1 + next() % most).map(|_| parts[next() as usize % parts.len()]).collect()
        };
        let mut matched = 0;
        for _ in 0..20_000 {
            let filter = draw(&["%c", "%u", "a", "b", "/", "/", "%", "+", "#"], 6);
            if TopicFilter::parse(&filter).is_err() || filter.starts_with("$share") {
                continue;
            }
            let rule = rule(Who::Pattern, Access::Read, &filter);
            let (id, name) = (draw(&["a", "b", "%u", "$", "/", "+"], 2), draw(&["a", "b", "%c"], 2));
            let subject = Subject { client_id: &id, username: Some(&name) };
            let topic = draw(&["a", "b", "/", "%c", "%u", "$", "%"], 6);
            let fit = rule.fit(subject, &topic);
            match rule.expand(subject) {
                Ok(own) => {
                    let wanted = TopicFilter::parse(&own).unwrap().matches(&topic);
                    assert_eq!(fit == Fit::Yes, wanted, "{filter} {subject:?} {topic}");
                    matched += u32::from(wanted);
                }
                Err(_) => assert_ne!(fit, Fit::Yes, "{filter} {subject:?} {topic}"),
            }
        }
        assert!(matched > 100, "{matched}");
    }

    #[test]
    fn own_rules_go_before_patterns() {
        let rights = rights([
            rule(Who::Pattern, Access::Deny, "%u/#"),
            rule(Who::User("ann".into()), Access::Read, "ann/x"),
        ]);
        assert!(rights.may_receive(ann("c"), "ann/x") && !rights.may_receive(ann("c"), "ann/y"));
        assert!(rights.may_subscribe(ann("c"), "ann/#") && !rights.may_subscribe(ann("c"), "ann/y"));
    }

    #[test]
    fn wildcards_do_not_see_system_topics() {
        let rights = rights([rule(Who::Anonymous, Access::ReadWrite, "#")]);
        assert!(!rights.may_receive(nobody("c"), "$SYS/x") && !rights.may_subscribe(nobody("c"), "$SYS/#"));
    }
}
