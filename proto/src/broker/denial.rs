//! What is denied is said, not more often than someone reads; who is let in no longer goes.

use super::Shard;
use super::conn::{Cause, Phase};
use super::io::{ConnId, Revoked};
use crate::time::Instant;
use alloc::vec::Vec;
use core::time::Duration;
use log::{Level, log};

/// What is denied.
#[derive(Clone, Copy, Debug)]
pub(super) enum Denial {
    Publish,
    Will,
    Subscribe,
    Receive,
}

const KINDS: [&str; 4] = ["publish to", "publish its will to", "subscribe to", "receive from"];
const EVERY: Duration = Duration::from_secs(1);

/// When each kind may be said again, and how often it was not.
#[derive(Debug, Default)]
pub(super) struct Denials([(Instant, u64); KINDS.len()]);

impl Shard {
    /// A client of a listener was denied a topic or filter.
    pub(super) fn log_denial(
        &mut self,
        kind: Denial,
        listener: u16,
        subject: super::rights::Subject<'_>,
        topic: &str,
    ) {
        let (again, kept_quiet) = &mut self.denials.0[kind as usize];
        if *again > self.now {
            *kept_quiet += 1;
            return;
        }
        *again = self.now + EVERY;
        let others = core::mem::take(kept_quiet);
        let rights = self.config.rights(listener);
        let result = match kind {
            Denial::Publish | Denial::Will => rights.check_publish(subject, topic),
            Denial::Receive => rights.check_receive(subject, topic),
            Denial::Subscribe => rights.check_subscribe(subject, topic),
        };
        let (client, topic, what) =
            (subject.client_id.escape_debug(), topic.escape_debug(), KINDS[kind as usize]);
        // That a wide subscription gets what its client may have, and no more, is nothing to act on.
        let level = if matches!(kind, Denial::Receive) { Level::Debug } else { Level::Info };
        match result {
            Err(denied) => log!(level, "Client {client} may not {what} {topic}: {denied}."),
            Ok(()) => log!(level, "Client {client} may not {what} {topic}: it is the broker's own."),
        }
        if others > 0 {
            log!(level, "{others} more like this were denied since the last time.");
        }
    }

    /// [`Shard::log_denial`] of a session's client.
    pub(super) fn log_session_denial(&mut self, kind: Denial, index: u32, topic: &str) {
        let Some(session) = self.sessions.get(index) else { return };
        let (client_id, username) = (session.client_id.clone(), session.username.clone());
        let subject = super::rights::Subject { client_id: &client_id, username: username.as_deref() };
        self.log_denial(kind, session.listener, subject, topic);
    }

    /// Closes those who were let in by what no longer holds.
    pub(super) fn on_revoked(&mut self, revoked: &Revoked) {
        let gone = |(index, conn): (u32, &Option<super::conn::Conn>)| -> Option<ConnId> {
            let conn = conn.as_ref()?;
            // Certificates are no business of passwords.
            if conn.phase != Phase::Running || conn.listener != revoked.listener || conn.identity.is_some() {
                return None;
            }
            let session = self.sessions.get(conn.session)?;
            let gone = match &session.username {
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
