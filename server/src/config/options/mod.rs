//! The one table of all options: their names, what they take, what becomes of them.

mod bridge;
mod general;
mod limits;
mod listener;
mod security;

use super::draft::Draft;
use super::lines::Value;

/// An option.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// Another name it is known by.
    pub(super) alias: Option<&'static str>,
    pub(super) scope: Scope,
    pub(super) takes: Takes,
    pub(super) repeat: Repeat,
    pub(super) status: Status,
    /// Its default, as one would write it.
    pub(super) default: &'static str,
    /// What it is good for.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is written by a test"))]
    pub(super) meaning: &'static str,
}

/// Where an option may stand, and what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Anywhere; about the broker.
    Global,
    /// About all listeners, or with `per_listener_settings` about the one before it.
    Security,
    /// After a `listener`, about it.
    Listener,
    /// As `Listener`; before any, about the default listener.
    ListenerOrDefault,
    /// After `connection`.
    Bridge,
    /// After `plugin` and its like.
    Plugin,
}

/// What follows the name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// `true`, `false`, `1` or `0`.
    Bool(fn(&mut Draft, bool)),
    /// A number between two; if not, the message says so, `{}` standing for what was given.
    Number { least: i64, most: i64, message: &'static str, set: fn(&mut Draft, i64) },
    /// The rest of the line.
    Text(fn(&mut Draft, String) -> Result<(), String>),
    /// Words; a `#` begins a comment.
    Words(fn(&mut Draft, &mut Value) -> Result<(), String>),
}

/// What it means to give an option a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The last one counts; that is remarked.
    Last,
    /// A mistake.
    Never,
    /// One more of them.
    Adds,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It works as in mosquitto.
    Supported,
    /// It works, and mosquitto has no such option.
    Own,
    /// It is read and warned about: this is why it does nothing.
    NoEffect(&'static str),
    /// It is refused for now.
    Planned(&'static str),
    /// It is refused.
    Refused(&'static str),
}

impl Spec {
    const fn new(name: &'static str, scope: Scope, takes: Takes, status: Status) -> Spec {
        Spec { name, alias: None, scope, takes, repeat: Repeat::Last, status, default: "", meaning: "" }
    }

    const fn supported(
        name: &'static str,
        scope: Scope,
        takes: Takes,
        default: &'static str,
        meaning: &'static str,
    ) -> Spec {
        Spec { default, meaning, ..Spec::new(name, scope, takes, Status::Supported) }
    }

    const fn own(
        name: &'static str,
        scope: Scope,
        takes: Takes,
        default: &'static str,
        meaning: &'static str,
    ) -> Spec {
        Spec { default, meaning, ..Spec::new(name, scope, takes, Status::Own) }
    }

    const fn without_effect(
        name: &'static str,
        scope: Scope,
        takes: Takes,
        default: &'static str,
        why: &'static str,
    ) -> Spec {
        Spec { default, ..Spec::new(name, scope, takes, Status::NoEffect(why)) }
    }

    const fn planned(name: &'static str, scope: Scope, takes: Takes, instead: &'static str) -> Spec {
        Spec::new(name, scope, takes, Status::Planned(instead))
    }

    const fn refused(name: &'static str, scope: Scope, takes: Takes, instead: &'static str) -> Spec {
        Spec::new(name, scope, takes, Status::Refused(instead))
    }

    const fn also(self, alias: &'static str) -> Spec {
        Spec { alias: Some(alias), ..self }
    }

    const fn once(self) -> Spec {
        Spec { repeat: Repeat::Never, ..self }
    }

    const fn adds(self) -> Spec {
        Spec { repeat: Repeat::Adds, ..self }
    }

    /// Whether the option is known by this name.
    fn is(&self, name: &str) -> bool {
        // `plugin_opt_*` stands for a family.
        let fits = |own: &str| match own.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => own == name,
        };
        fits(self.name) || self.alias.is_some_and(fits)
    }
}

/// A switch that is not looked at.
const ANY_BOOL: Takes = Takes::Bool(|_, _| ());
/// A number that is not looked at.
const ANY_NUMBER: Takes =
    Takes::Number { least: i64::MIN, most: i64::MAX, message: "'{}' is out of range.", set: |_, _| () };
/// A text that is not looked at.
const ANY_TEXT: Takes = Takes::Text(|_, _| Ok(()));

/// All options, in the order of the documentation.
pub(super) fn all() -> impl Iterator<Item = &'static Spec> {
    TABLES.iter().flat_map(|(_, specs)| specs.iter())
}

/// The options by chapter.
pub(super) const TABLES: [(&str, &[Spec]); 5] = [
    ("General", general::OPTIONS),
    ("Limits", limits::OPTIONS),
    ("Listeners", listener::OPTIONS),
    ("Security", security::OPTIONS),
    ("Bridges and plugins", bridge::OPTIONS),
];

/// The option of this name.
pub(super) fn find(name: &str) -> Option<&'static Spec> {
    all().find(|spec| spec.is(name))
}

/// All names, for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    all().flat_map(|spec| [Some(spec.name), spec.alias]).flatten()
}
