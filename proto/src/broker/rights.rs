//! Who may publish and subscribe to what: a compiled value, evaluated where the question arises.

use crate::topic::{TopicFilter, filter_covers, filters_intersect};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The client id.
    pub client_id: &'a str,
    /// The user name, if there is one.
    pub username: Option<&'a str>,
}

/// The rights of everyone.
#[derive(Clone, Debug, Default)]
pub enum Rights {
    /// Everyone may do everything.
    #[default]
    Open,
    /// What no rule allows is denied; a matching [`Access::Deny`] goes before all others.
    Rules(Vec<Rule>),
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
#[derive(Clone, Debug)]
pub struct Rule {
    /// To whom it applies.
    pub who: Who,
    /// What it allows.
    pub access: Access,
    /// On which topics.
    pub filter: Box<str>,
}

impl Rule {
    /// The filter of this rule for a subject, if it applies to it. A user name or client id that would
    /// widen a pattern makes the rule not apply.
    fn filter_for(&self, subject: Subject<'_>) -> Option<String> {
        match &self.who {
            Who::Anonymous => subject.username.is_none().then(|| String::from(&*self.filter)),
            Who::User(name) => (subject.username == Some(name)).then(|| String::from(&*self.filter)),
            Who::Pattern => {
                let mut filter = String::from(&*self.filter);
                for (mark, value) in [("%c", Some(subject.client_id)), ("%u", subject.username)] {
                    if filter.contains(mark) {
                        let value = value
                            .filter(|v| !v.contains(['+', '#', '/']) && !v.contains(char::is_control))?;
                        filter = filter.replace(mark, value);
                    }
                }
                Some(filter)
            }
        }
    }
}

impl Rights {
    /// Whether everyone may do everything.
    pub fn is_open(&self) -> bool {
        matches!(self, Rights::Open)
    }

    fn allow(&self, subject: Subject<'_>, access: Access, topic: &str) -> bool {
        let Rights::Rules(rules) = self else { return true };
        let mut allowed = false;
        for rule in rules {
            let applies = || {
                rule.filter_for(subject)
                    .is_some_and(|f| TopicFilter::parse(&f).is_ok_and(|f| f.matches(topic)))
            };
            if rule.access == Access::Deny {
                if applies() {
                    return false;
                }
            } else if !allowed && (rule.access == access || rule.access == Access::ReadWrite) {
                allowed = applies();
            }
        }
        allowed
    }

    /// Whether `subject` may publish to `topic`.
    pub fn may_publish(&self, subject: Subject<'_>, topic: &str) -> bool {
        self.allow(subject, Access::Write, topic)
    }

    /// Whether `subject` may receive from `topic`.
    pub fn may_receive(&self, subject: Subject<'_>, topic: &str) -> bool {
        self.allow(subject, Access::Read, topic)
    }

    /// Whether `subject` may subscribe to `filter`: something permitted can match it, and no denial
    /// covers all of it. What it then receives is still filtered by topic.
    pub fn may_subscribe(&self, subject: Subject<'_>, filter: &str) -> bool {
        let Rights::Rules(rules) = self else { return true };
        let mut allowed = false;
        for rule in rules {
            let Some(own) = rule.filter_for(subject) else { continue };
            match rule.access {
                Access::Deny if filter_covers(&own, filter) => return false,
                Access::Read | Access::ReadWrite => allowed |= filters_intersect(&own, filter),
                _ => {}
            }
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn rule(who: Who, access: Access, filter: &str) -> Rule {
        Rule { who, access, filter: filter.into() }
    }

    #[test]
    fn rules_allow_deny_and_are_not_widened_by_names() {
        let rights = Rights::Rules(vec![
            rule(Who::Anonymous, Access::Read, "public/#"),
            rule(Who::User("ann".into()), Access::ReadWrite, "ann/#"),
            rule(Who::User("ann".into()), Access::Deny, "ann/secret/#"),
            rule(Who::Pattern, Access::Write, "up/%c/%u"),
        ]);
        let ann = Subject { client_id: "c1", username: Some("ann") };
        let nobody = Subject { client_id: "+", username: None };
        assert!(rights.may_publish(ann, "ann/x") && rights.may_receive(ann, "ann/x"));
        assert!(!rights.may_publish(ann, "ann/secret/x") && !rights.may_receive(ann, "public/x"));
        assert!(rights.may_publish(ann, "up/c1/ann") && !rights.may_publish(ann, "up/c2/ann"));
        assert!(rights.may_receive(nobody, "public/x") && !rights.may_publish(nobody, "public/x"));
        assert!(!rights.may_publish(Subject { client_id: "+", username: Some("bob") }, "up/c1/bob"));
        assert!(rights.may_subscribe(nobody, "#") && !rights.may_subscribe(nobody, "ann/#"));
        assert!(!rights.may_subscribe(ann, "ann/secret/+") && rights.may_subscribe(ann, "ann/#"));
    }
}
