//! What is denied is said, not more often than someone reads; who is let in no longer goes.
//!
//! Of each kind one line a second is said, and then how many were not.

use super::Shard;
use super::conn::{Cause, Phase};
use super::io::{ConnId, Revoked};
use super::rights::Subject;
use super::timer::Timer;
use crate::codec::ReasonCode;
use crate::time::Instant;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::SocketAddr;
use core::time::Duration;
use log::{Level, info, log};

/// What is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    Publish,
    Will,
    Subscribe,
    Receive,
    /// To be heard by those who subscribe now, with what it published to be retained.
    Source,
    /// A CONNECT, for who the client is.
    Login,
    /// A CONNECT, for what it asks.
    Connect,
    /// What is no CONNECT.
    Stranger,
    /// Messages, for a full queue.
    Queue,
    /// Messages, for a client that does not read.
    Slow,
    /// Anything, while memory is short.
    Memory,
    /// To retain a message.
    Retain,
    /// To read on, for the rate of messages.
    Rate,
    /// A packet, for a limit that it exceeds.
    Limit,
    /// To read on, for what is not read in turn.
    Output,
}

const KINDS: usize = Denial::Output as usize + 1;
/// What one may not, of the kinds that are about topics.
const ACTIONS: [&str; 5] = [
    "publish to",
    "publish its will to",
    "subscribe to",
    "receive from",
    "publish any more what is retained for",
];
/// Many of each kind.
const MANY: [&str; KINDS] = [
    "Denials to publish",
    "Denials of wills",
    "Denials to subscribe",
    "Denials to receive",
    "Retained messages of clients that may not publish any more",
    "Failed logins",
    "Refused clients",
    "Connections without CONNECT",
    "Messages dropped from full queues",
    "Messages dropped for slow clients",
    "Refusals while memory is short",
    "Messages not retained",
    "Pauses of clients that publish too fast",
    "Packets beyond limits",
    "Pauses of clients that do not read",
];
const EVERY: Duration = Duration::from_secs(1);

/// When each kind may be said again, and how often it was not.
#[derive(Debug)]
pub(super) struct Denials {
    kinds: [(Instant, u64); KINDS],
    /// When [`Timer::Denials`] fires.
    armed: Instant,
}

impl Default for Denials {
    fn default() -> Self {
        Denials { kinds: [(Instant::ZERO, 0); KINDS], armed: Instant::NEVER }
    }
}

impl Shard {
    /// Whether a line of this kind may be said; if not, it is counted.
    fn may_say(&mut self, kind: Denial) -> bool {
        let Shard { denials: Denials { kinds, armed }, timers, now, .. } = self;
        let (again, kept_quiet) = &mut kinds[kind as usize];
        if *again > *now {
            *kept_quiet += 1;
            timers.arm(armed, *again, Timer::Denials);
            return false;
        }
        *again = *now + EVERY;
        true
    }

    /// Says how many lines of a kind were not said, if there are some.
    fn say_quiet(&mut self, kind: usize) {
        let (again, kept_quiet) = &mut self.denials.kinds[kind];
        let others = core::mem::take(kept_quiet);
        if others > 0 {
            *again = self.now + EVERY;
            log!(level_of(kind), "{} that were not logged: {others}.", MANY[kind]);
        }
    }

    pub(super) fn on_denials_timer(&mut self, at: Instant) {
        if self.denials.armed != at {
            return;
        }
        self.denials.armed = Instant::NEVER;
        for kind in 0..KINDS {
            let (again, kept_quiet) = self.denials.kinds[kind];
            if again <= self.now {
                self.say_quiet(kind);
            } else if kept_quiet > 0 {
                self.timers.arm(&mut self.denials.armed, again, Timer::Denials);
            }
        }
    }

    /// A connection is not let in; `who` as far as its CONNECT could be read.
    pub(super) fn log_refusal(
        &mut self,
        id: ConnId,
        kind: Denial,
        who: Option<Subject<'_>>,
        (reason, what): (ReasonCode, &str),
    ) {
        if !self.may_say(kind) {
            return;
        }
        let (peer, listener) = self.conn(id).map_or((None, 0), |c| (c.peer, c.listener));
        let door = self.config.listener(listener).map_or("", |l| &l.name);
        let (at, door) = if door.is_empty() { ("", "") } else { (" at ", door) };
        let from = PeerText(peer);
        match who {
            Some(Subject { client_id, username }) => {
                let (name, user) = (Name(client_id), UserText(" (", username, ")"));
                info!("Client {name}{user}{from} refused{at}{door}: {what} ({reason}).");
            }
            None => info!("A client{from} refused{at}{door}: {what} ({reason})."),
        }
        self.say_quiet(kind as usize);
    }

    /// A client of a listener was denied a topic or filter.
    pub(super) fn log_denial(&mut self, kind: Denial, listener: u16, subject: Subject<'_>, topic: &str) {
        if !self.may_say(kind) {
            return;
        }
        let rights = self.config.rights(listener);
        let result = match kind {
            Denial::Receive => rights.check_receive(subject, topic),
            Denial::Subscribe => rights.check_subscribe(subject, topic),
            _ => rights.check_publish(subject, topic),
        };
        let (client, topic) = (Name(subject.client_id), Name(topic));
        let user = UserText(" (", subject.username, ")");
        let what = ACTIONS.get(kind as usize).unwrap_or(&"use");
        let level = level_of(kind as usize);
        match result {
            Err(denied) => log!(level, "Client {client}{user} may not {what} {topic}: {denied}."),
            Ok(()) => log!(level, "Client {client}{user} may not {what} {topic}: it is the broker's own."),
        }
        self.say_quiet(kind as usize);
    }

    /// A limit was met, by a session's client if it is known.
    #[cold]
    pub(super) fn log_limit(&mut self, kind: Denial, session: u32, what: &str) {
        if !self.may_say(kind) {
            return;
        }
        let level = level_of(kind as usize);
        match self.sessions.get(session) {
            Some(session) => log!(level, "Client {}: {what}.", Name(&session.client_id)),
            None => log!(level, "A limit is met: {what}."),
        }
        self.say_quiet(kind as usize);
    }

    /// [`Shard::log_denial`] of a session's client.
    pub(super) fn log_session_denial(&mut self, kind: Denial, index: u32, topic: &str) {
        let Some(session) = self.sessions.get(index) else { return };
        let (client_id, username) = (session.client_id.clone(), session.username.clone());
        let subject = Subject { client_id: &client_id, username: username.as_deref() };
        self.log_denial(kind, session.listener, subject, topic);
    }

    /// Closes those who were let in by what no longer holds.
    pub(super) fn on_revoked(&mut self, revoked: &Revoked) {
        let gone = |(index, conn): (u32, &Option<super::conn::Conn>)| -> Option<ConnId> {
            let conn = conn.as_ref()?;
            if conn.phase != Phase::Running || conn.listener != revoked.listener {
                return None;
            }
            let session = self.sessions.get(conn.session)?;
            let gone = match &session.username {
                // Certificates are no business of passwords.
                _ if conn.identity.is_some() => revoked.certified,
                None => revoked.anonymous,
                Some(name) => revoked.users.as_ref().is_none_or(|users| users.contains(name)),
            };
            gone.then(|| conn.id(index))
        };
        let gone: Vec<ConnId> = (0..).zip(&self.conns).filter_map(gone).collect();
        for id in gone {
            self.close(id, Cause::Revoked);
        }
    }
}

/// How much a kind is to be acted on.
fn level_of(kind: usize) -> Level {
    const RECEIVE: usize = Denial::Receive as usize;
    const MEMORY: usize = Denial::Memory as usize;
    match kind {
        // That a wide subscription gets what its client may have, and no more, is nothing to act on.
        RECEIVE => Level::Debug,
        MEMORY => Level::Warn,
        _ => Level::Info,
    }
}

/// A name that a client gave, as a log shows it: escaped, and not longer than one reads.
pub(super) struct Name<'a>(pub &'a str);

/// How many characters of a name are logged.
const NAME_MAX: usize = 256;

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(NAME_MAX) {
            fmt::Display::fmt(&c.escape_debug(), f)?;
        }
        if chars.next().is_some() { f.write_char('…') } else { Ok(()) }
    }
}

/// ` from ADDRESS`, where there is one.
pub(super) struct PeerText(pub Option<SocketAddr>);

impl fmt::Display for PeerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |peer| write!(f, " from {}:{}", peer.ip(), peer.port()))
    }
}

/// `u'NAME'` between two texts, where there is a name.
pub(super) struct UserText<'a>(pub &'static str, pub Option<&'a str>, pub &'static str);

impl fmt::Display for UserText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UserText(before, name, after) = self;
        name.map_or(Ok(()), |name| write!(f, "{before}u'{}'{after}", Name(name)))
    }
}
