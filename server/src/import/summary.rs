//! What an import has done, for its operator to read.

use std::collections::BTreeMap;
use std::fmt;

/// What was taken over, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The version of the file's format.
    pub version: u32,
    /// Whether mosquitto wrote the file at its end.
    pub at_end: bool,
    /// Sessions.
    pub sessions: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Messages that wait for their receivers.
    pub queued: u64,
    /// Messages whose receivers have a packet id of them.
    pub in_flight: u64,
    /// QoS 2 messages that mosquitto had received and not passed on.
    pub received: u64,
    /// Retained messages.
    pub retained: u64,
    /// Sessions of which the file does not say for certain whether they belong to a user.
    pub unsure_owners: u64,
    /// Sessions with client ids as mosquitto's bridges have them.
    pub local: u64,
    /// What was left out, and why.
    pub skipped: BTreeMap<(&'static str, &'static str), u64>,
}

impl Summary {
    pub(super) fn new(version: u32, at_end: bool) -> Summary {
        Summary { version, at_end, ..Summary::default() }
    }

    pub(super) fn skip(&mut self, what: &'static str, why: &'static str) {
        self.skip_many(1, what, why);
    }

    pub(super) fn skip_many(&mut self, count: u64, what: &'static str, why: &'static str) {
        if count > 0 {
            *self.skipped.entry((what, why)).or_default() += count;
        }
    }
}

/// A number of things.
struct Count<'a>(u64, &'a str);

impl fmt::Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(n, what) = self;
        let s = if *n == 1 { "" } else { "s" };
        write!(f, "{n} {what}{s}")
    }
}

impl fmt::Display for Summary {
    /// Lines, each with its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Imported:")?;
        writeln!(f, "  {}", Count(self.sessions, "session"))?;
        writeln!(f, "  {}", Count(self.subscriptions, "subscription"))?;
        writeln!(f, "  {}", Count(self.queued, "queued message"))?;
        writeln!(f, "  {} in flight", Count(self.in_flight, "message"))?;
        writeln!(f, "  {} that mosquitto had not passed on", Count(self.received, "received QoS 2 message"))?;
        writeln!(f, "  {}", Count(self.retained, "retained message"))?;
        if !self.skipped.is_empty() {
            writeln!(f, "Not imported:")?;
        }
        for (&(what, why), &n) in &self.skipped {
            writeln!(f, "  {}: {why}", Count(n, what))?;
        }
        if !self.at_end {
            writeln!(
                f,
                "Note: mosquitto wrote this file while it ran. What came later is not in it: end mosquitto first."
            )?;
        }
        if self.version < 6 && self.sessions > 0 {
            writeln!(
                f,
                "Note: a file of mosquitto 1.6.10 or before does not name users: a session is for the first client of its id."
            )?;
        }
        if self.unsure_owners > 0 {
            writeln!(
                f,
                "Note: a fault of mosquitto before 2.0.16 hides whose {} may be: each is for the first client of its id.",
                Count(self.unsure_owners, "session")
            )?;
        }
        if self.local > 0 {
            writeln!(
                f,
                "Note: {} may be of mosquitto's bridges (local.…): nobody fetches what waits there.",
                Count(self.local, "session")
            )?;
        }
        Ok(())
    }
}
