//! Sessions: what outlives a connection, wills, and how a session ends.

use super::Shard;
use super::conn::{Cause, conn_at};
use super::denial::Denial;
use super::io::ConnId;
use super::peer::SessionKey;
use super::publish::{may_publish, session_subscriber};
use super::rights::Subject;
use super::store::keep::{Kept, must_wait};
use super::store::{HEAD, Held, Keeper, StoreOp};
use super::sys::Dropped;
use super::timer::Timer;
use crate::codec::PacketType;
use crate::message::{Message, Publisher};
use crate::session::{Delivery, Incoming, Link, Outgoing, Rest, ToSend, Window};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use log::info;

/// A will, from CONNECT until it is published or deleted.
#[derive(Debug)]
pub(super) struct Will {
    pub message: Message,
    pub delay_s: u32,
}

#[derive(Debug)]
pub(super) struct Session {
    /// Tells the users of one place apart.
    pub serial: u32,
    pub client_id: Box<str>,
    /// The user it belongs to.
    pub username: Option<Box<str>>,
    /// Where its client is, or was last: its rights are that listener's.
    pub listener: u16,
    /// The configuration under which all that is queued was allowed.
    pub epoch: u32,
    pub conn: Option<ConnId>,
    /// Session Expiry Interval: 0 ends with the connection, `u32::MAX` never.
    pub expiry_s: u32,
    /// When it ends, while there is no connection.
    pub expires_at: Instant,
    pub will: Option<Box<Will>>,
    /// When the will is published, while there is no connection.
    pub will_at: Instant,
    /// When the session's timer fires.
    pub armed: Instant,
    pub outgoing: Outgoing,
    pub incoming: Incoming,
    /// Shared subscriptions.
    pub shares: BTreeMap<Box<str>, super::share::Membership>,
    /// The number of the last one.
    pub last_share: u32,
    /// Its places in the list of replays.
    pub replays: VecDeque<u32>,
    /// What the store knows of it, if it is kept.
    pub kept: Option<Box<Kept>>,
    /// What is counted for it in the shard's memory.
    pub counted: u64,
}

impl Session {
    pub fn subject(&self) -> Subject<'_> {
        Subject { client_id: &self.client_id, username: self.username.as_deref() }
    }

    pub fn as_publisher(&self) -> Publisher<'_> {
        let Subject { client_id, username } = self.subject();
        Publisher { listener: self.listener, client_id, username }
    }

    pub fn key(&self, index: u32) -> SessionKey {
        SessionKey { index, serial: self.serial }
    }
}

/// When to look at a session again that is to expire later. What it leaves in the heap of timers when it is ended outlives it by no
/// more: a client that makes sessions for months, and wipes them, would fill it.
const LOOK_AGAIN: Duration = Duration::from_secs(240);

impl Shard {
    pub(super) fn find_session(&self, client_id: &str) -> Option<u32> {
        self.session_index.find(self.hash.hash(client_id.as_bytes()), |i| {
            self.sessions.get(i).is_some_and(|s| *s.client_id == *client_id)
        })
    }

    pub(super) fn create_session(&mut self, client_id: String, username: Option<Box<str>>) -> u32 {
        // The last number is nobody's: see `store::keep`.
        self.last_serial = if self.last_serial >= u32::MAX - 1 { 1 } else { self.last_serial + 1 };
        let key = self.hash.hash(client_id.as_bytes());
        let index = self.sessions.insert(Session {
            serial: self.last_serial,
            client_id: client_id.into_boxed_str(),
            username,
            listener: 0,
            epoch: self.epoch,
            conn: None,
            expiry_s: 0,
            expires_at: Instant::NEVER,
            will: None,
            will_at: Instant::NEVER,
            armed: Instant::NEVER,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            shares: BTreeMap::new(),
            last_share: 0,
            replays: VecDeque::new(),
            kept: None,
            counted: 0,
        });
        self.count_session(index);
        let Shard { sessions, session_index, hash, .. } = self;
        session_index
            .insert(key, index, |i| sessions.get(i).map_or(0, |s| hash.hash(s.client_id.as_bytes())));
        index
    }

    /// The session a key of some time ago means, if it is still that one.
    pub(super) fn session_of(&self, key: SessionKey) -> Option<u32> {
        self.sessions.get(key.index).filter(|s| s.serial == key.serial).map(|_| key.index)
    }

    /// The connection of a session is gone, for the reason given.
    pub(super) fn on_connection_lost(&mut self, index: u32, cause: Cause) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(index) else { return };
        session.conn = None;
        session.outgoing.interrupt();
        for held in session.kept.iter_mut().flat_map(|k| k.held.drain(..)).filter(|h| !h.dup) {
            session.outgoing.not_sent(held.packet_id);
        }
        // [MQTT-3.1.2-10]; nobody is left to read the wills of a broker that stops.
        if matches!(cause, Cause::Disconnect { with_will: false } | Cause::Operator) {
            session.will = None;
        }
        self.count_session(index);
        self.tell_share_owners(index, false);
        let Some(session) = self.sessions.get_mut(index) else { return };
        if matches!(cause, Cause::TakenOver) {
            return;
        }
        if session.expiry_s == 0 {
            return self.end_session(index);
        }
        // [MQTT-3.1.2-23]
        if session.expiry_s != u32::MAX {
            session.expires_at = now + Duration::from_secs(session.expiry_s.into());
        }
        if let Some(will) = &session.will {
            session.will_at = now + Duration::from_secs(will.delay_s.into());
        }
        self.keep_session(index);
        self.check_session(index);
    }

    /// Does what is due for a session without a connection, and comes back for the rest.
    fn check_session(&mut self, index: u32) {
        let now = self.now;
        let Some(session) = self.sessions.get(index) else { return };
        if session.will_at <= now {
            self.publish_will(index);
        }
        let Shard { sessions, timers, .. } = self;
        let Some(session) = sessions.get_mut(index) else { return };
        if session.expires_at > now {
            let at = session.expires_at.min(session.will_at);
            if at != Instant::NEVER {
                timers.arm(&mut session.armed, at.min(now + LOOK_AGAIN), Timer::Session(index));
            }
            return;
        }
        // [MQTT-4.1.0-2]
        info!("Session of client {} expired.", session.client_id.escape_debug());
        self.counters.clients_expired += 1;
        self.end_session(index);
    }

    pub(super) fn on_session_timer(&mut self, at: Instant, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        if session.armed == at {
            session.armed = Instant::NEVER;
            if session.conn.is_none() {
                self.check_session(index);
            }
        }
    }

    /// Publishes the will of a session, once.
    pub(super) fn publish_will(&mut self, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        session.will_at = Instant::NEVER;
        let Some(will) = session.will.take() else { return };
        self.count_session(index);
        self.keep_session(index);
        let session = &self.sessions[index];
        // Rights may have changed since CONNECT.
        if !may_publish(self.config.rights(session.listener), session.subject(), will.message.topic()) {
            self.log_session_denial(Denial::Will, index, will.message.topic());
        } else {
            let mut publication = will.message.as_publication();
            if publication.expires_at != Instant::NEVER {
                // Until now it was a span: it counts from here.
                publication.expires_at = self.now + publication.expires_at.since(Instant::ZERO);
            }
            self.publish_within(publication, index);
        }
    }

    /// Ends a session: its will is due now [MQTT-3.1.2-8], everything else is forgotten.
    pub(super) fn end_session(&mut self, index: u32) {
        self.publish_will(index);
        let left = self.clear_session(index);
        let Shard { sessions, session_index, hash, .. } = self;
        let Some(session) = sessions.get(index) else { return };
        let key = hash.hash(session.client_id.as_bytes());
        let stored = session.kept.as_ref().map(|k| k.id);
        session_index.remove(
            key,
            |i| i == index,
            |i| sessions.get(i).map_or(0, |s| hash.hash(s.client_id.as_bytes())),
        );
        if let Some(mut session) = self.sessions.remove(index) {
            self.memory.change(&mut session.counted, 0);
        }
        match (stored, left) {
            (Some(id), Some((rest, filters))) => self.hand_on(id, rest.from, filters),
            (Some(id), None) => self.keeper.put(StoreOp::SessionEnd { id }),
            (None, _) => {}
        }
    }

    /// Forgets what a session subscribed to and what waits for it; un-acknowledged messages of shared
    /// subscriptions go to other members [MQTT-4.8.2-5]. Those that are in the store alone are left to the caller, with
    /// the filters by number.
    fn clear_session(&mut self, index: u32) -> Option<(Rest, BTreeMap<u32, Box<str>>)> {
        let Shard { subscriptions, interest, .. } = self;
        let mut changes = Vec::new();
        subscriptions.remove_subscriber(session_subscriber(index), |filter, _| {
            changes.extend(interest.count(filter, false).into_iter().flatten());
        });
        changes.into_iter().for_each(|c| self.announce(c));
        let Shard { sessions, memory, .. } = self;
        let session = sessions.get_mut(index)?;
        session.outgoing.deliveries().for_each(|delivery| memory.release(delivery));
        let rest = session.outgoing.rest().copied();
        let replays = core::mem::take(&mut session.replays);
        let shares = core::mem::take(&mut session.shares);
        let waiting: Vec<_> = session.outgoing.drain_for_others().collect();
        session.incoming = Incoming::default();
        replays.into_iter().for_each(|r| self.end_replay(r));
        let key = self.sessions[index].key(index);
        for filter in shares.keys() {
            self.leave_share(filter, key);
        }
        let filters: BTreeMap<u32, Box<str>> = shares.into_iter().map(|(f, s)| (s.number, f)).collect();
        let kept = self.sessions[index].kept.as_ref().map(|k| k.id).filter(|_| rest.is_some());
        for delivery in waiting {
            if let Some(id) = kept {
                // The session's records stay for a while: each step of its end is one of its own.
                self.keeper.done(id, &delivery);
            }
            if let Some(filter) = filters.get(&delivery.share) {
                self.return_share(&filter.clone(), delivery.message);
            }
        }
        rest.filter(|_| !filters.is_empty()).map(|rest| (rest, filters))
    }

    /// Sends what a session's window allows.
    pub(super) fn pump(&mut self, index: u32) {
        let now = self.now;
        let Shard { sessions, conns, pool, counters, config, epoch, keeper, memory, .. } = self;
        let Some(session) = sessions.get_mut(index) else { return };
        let key = session.key(index);
        let Some(id) = session.conn else { return };
        let Some(conn) = conn_at(conns, id) else { return };
        let Session { outgoing, kept, client_id, username, .. } = session;
        let stored = kept.as_ref().map(|k| k.id);
        let mut done = |keeper: &mut Keeper, delivery: Option<Delivery>, why: Option<Dropped>| {
            why.into_iter().for_each(|why| counters.drop_for(why));
            let Some(delivery) = delivery else { return };
            memory.release(&delivery);
            if let Some(id) = stored {
                keeper.done(id, &delivery);
            }
        };
        let (mut any, mut waits) = (false, false);
        let subject = Subject { client_id, username: username.as_deref() };
        let rights = (session.epoch != *epoch).then(|| config.rights(session.listener));
        let (mut sent, mut sent_bytes) = (0, 0);
        // Who takes no output gets no more, whatever it acknowledges: `on_written` goes on.
        let soft = config.output_soft_bytes;
        let window = Window { messages: conn.link.send_window, bytes: config.max_inflight_bytes };
        let has_room = |link: &Link, blocked: bool| !blocked || link.outbox.len() < soft;
        while has_room(&conn.link, conn.blocked)
            && let Some(send) =
                outgoing.next(window, now, |expired| done(keeper, Some(expired), Some(Dropped::Expired)))
        {
            any = true;
            let (packet_id, dup, first, delivery) = match send {
                ToSend::PubRel { packet_id } => {
                    conn.link.put_ack(pool, PacketType::PubRel, packet_id, crate::codec::ReasonCode::Success);
                    continue;
                }
                ToSend::Publish { packet_id, dup, first, delivery } => (packet_id, dup, first, delivery),
            };
            if rights.is_some_and(|r| !dup && !r.may_receive(subject, delivery.message.topic())) {
                done(keeper, outgoing.discard(packet_id), Some(Dropped::Denied));
                continue;
            }
            if let Some(kept) = kept.as_mut().filter(|_| packet_id > 0) {
                // What is in no store goes behind what is and waits: its session outlives this connection no more.
                let recorded = first && delivery.seq > 0;
                if recorded {
                    keeper.put(StoreOp::Sent { id: kept.id, seq: delivery.seq, packet_id });
                }
                if must_wait(kept, recorded, delivery.qos) {
                    kept.held.push_back(Held { gate: 0, packet_id, dup });
                    waits = true;
                    continue;
                }
            }
            if conn.write(pool, now, packet_id, dup, delivery) {
                sent += 1;
                sent_bytes += delivery.message.payload().len() as u64;
                if packet_id == 0 {
                    done(keeper, outgoing.discard(packet_id), None);
                }
            } else {
                done(keeper, outgoing.discard(packet_id), Some(Dropped::TooLarge));
            }
        }
        counters.publish_sent += sent;
        counters.publish_bytes_sent += sent_bytes;
        if let Some(id) = stored
            && let Some((from, count)) = outgoing.wants(HEAD)
        {
            keeper.put(StoreOp::Load { id, key, from, count });
        }
        if outgoing.queued() == 0 {
            session.epoch = *epoch;
        }
        if waits {
            self.wait_for_records(index);
        }
        if any {
            self.mark_dirty(id);
        }
        if self.sessions.get(index).is_some_and(|s| !s.replays.is_empty() && s.outgoing.queued() == 0) {
            self.wake_replays(index);
        }
    }
}
