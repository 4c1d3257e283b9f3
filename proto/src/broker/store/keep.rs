//! What a shard does to keep things: changes out, confirmations and, after a restart, everything back in.

use super::{HEAD, Held, Keeper, Loaded, SessionId, SessionState, StoreOp, StoredSubscription, StoredWill};
use crate::broker::Shard;
use crate::broker::conn::{Flow, NO_SESSION, Pause, conn_at};
use crate::broker::denial::Denial;
use crate::broker::io::ConnId;
use crate::broker::peer::SessionKey;
use crate::broker::publish::Subscription;
use crate::broker::replay::is_of_broker;
use crate::broker::session::{Session, Will};
use crate::broker::sys::{Dropped, Refused};
use crate::broker::timer::Timer;
use crate::codec::QoS;
use crate::message::Message;
use crate::session::{Delivery, Rest};
use crate::time::Instant;
use crate::topic::TopicFilter;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// What a session needs to be kept.
#[derive(Debug)]
pub(in crate::broker) struct Kept {
    pub id: SessionId,
    /// The place of its last message.
    pub last_seq: u64,
    /// What is in flight and may not leave before its records are kept.
    pub held: VecDeque<Held>,
}

/// A session that ended while messages of shared subscriptions, which are other members' now, were in the store alone.
#[derive(Debug)]
pub(in crate::broker) struct Ending {
    id: SessionId,
    /// The shared subscriptions by their numbers.
    filters: BTreeMap<u32, Box<str>>,
}

/// The serial number that stands for an [`Ending`] in the key of a [`StoreOp::Load`]; no session has it.
const ENDING: u32 = u32::MAX;

impl Session {
    /// Keeps a message for the session, if it is one that is kept. `None` if the message is left in the store.
    pub fn keep_delivery(&mut self, keeper: &mut Keeper, mut delivery: Delivery) -> Option<Delivery> {
        if !self.is_stored() {
            return Some(delivery);
        }
        let Some(kept) = &mut self.kept else { return Some(delivery) };
        kept.last_seq += 1;
        delivery.seq = kept.last_seq;
        keeper.put(StoreOp::Enqueue { id: kept.id, delivery: delivery.clone() });
        (!self.outgoing.leave(&delivery, HEAD)).then_some(delivery)
    }

    /// Whether what is queued for it goes to the store.
    pub fn is_stored(&self) -> bool {
        self.kept.is_some() && (self.expiry_s > 0 || self.outgoing.has_rest())
    }

    /// Whether a restart has to find more of it than a will.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some() && self.expiry_s > 0
    }

    fn state(&self) -> Box<SessionState> {
        let will = self.will.as_ref().map(|w| StoredWill { message: w.message.clone(), delay_s: w.delay_s });
        Box::new(SessionState {
            client_id: self.client_id.clone(),
            username: self.username.clone(),
            listener: self.listener,
            expiry_s: self.expiry_s,
            expires_at: self.expires_at,
            will,
            will_at: self.will_at,
        })
    }
}

impl Shard {
    /// Makes the shard say what a restart must not lose, from now on. To be called once, before any input; `run` must be
    /// larger than in every run before that used the same store.
    pub fn keep_from(&mut self, run: u32) {
        self.keeper.on = true;
        // Messages and sessions are named by this count: it goes on from run to run.
        self.message_count = u64::from(run) << 40;
    }

    /// The gate behind everything that is to be kept by now; 0 if all of it is.
    pub(in crate::broker) fn store_gate(&mut self) -> u64 {
        if self.keeper.on { self.gate() } else { 0 }
    }

    /// Keeps a change of a session, if it is one that is kept. `seq` 0 stands for what is not.
    pub(in crate::broker) fn keep_of(&mut self, index: u32, seq: u64, op: impl FnOnce(SessionId) -> StoreOp) {
        if seq > 0
            && let Some(kept) = self.sessions.get(index).and_then(|s| s.kept.as_ref())
        {
            self.keeper.put(op(kept.id));
        }
    }

    /// Keeps what is to be said of a session: one that outlives its connection, or has a will.
    pub(in crate::broker) fn keep_session(&mut self, index: u32) {
        let Some(session) = self.sessions.get(index).filter(|_| self.keeper.on) else { return };
        if session.kept.is_none() {
            if session.expiry_s == 0 && session.will.is_none() {
                return;
            }
            let slot = self.placement.slot(session.client_id.as_bytes()) as u16;
            let name = self.next_message_id();
            let id = SessionId { slot, origin: name.origin, count: name.count };
            self.sessions[index].kept = Some(Box::new(Kept { id, last_seq: 0, held: VecDeque::new() }));
        }
        let session = &self.sessions[index];
        if let Some(kept) = &session.kept {
            self.keeper.put(StoreOp::Session { id: kept.id, state: session.state() });
        }
    }

    /// Keeps a subscription of a session.
    pub(in crate::broker) fn keep_subscription(
        &mut self,
        index: u32,
        filter: &str,
        subscription: StoredSubscription,
    ) {
        if self.sessions.get(index).is_some_and(|s| s.expiry_s > 0) {
            self.keep_of(index, 1, |id| StoreOp::Subscribe { id, filter: filter.into(), subscription });
        }
    }

    /// Keeps that a session has unsubscribed.
    pub(in crate::broker) fn keep_unsubscription(&mut self, index: u32, filter: &str) {
        if self.sessions.get(index).is_some_and(|s| s.expiry_s > 0) {
            self.keep_of(index, 1, |id| StoreOp::Unsubscribe { id, filter: filter.into() });
        }
    }

    /// Retains a message, or removes the one of its topic if it is empty, or beyond a limit [MQTT-3.3.1-7].
    pub(in crate::broker) fn store_retained(&mut self, mut message: Message) {
        let is_of_broker = is_of_broker(&message);
        if !is_of_broker
            && !message.payload().is_empty()
            && let Some(why) = self.why_not_retain(&message)
        {
            self.counters.refuse(Refused::Retain);
            self.log_limit(Denial::Retain, NO_SESSION, &format!("a message is not retained, {why}"));
            // An older one is no longer what was said last.
            message = Message::new(message.topic(), &[], message.qos(), true);
        }
        // While the store fails, what nobody was promised does not pile up.
        let skips = self.keeper.failed && message.qos() == QoS::AtMostOnce;
        self.keeper.skipped |= skips;
        if self.keeper.on && !skips && !is_of_broker {
            let slot = self.placement.slot(message.topic_bytes()) as u16;
            if !message.payload().is_empty() {
                self.keeper.put(StoreOp::Retain { slot, message: message.clone() });
            } else if self.retained.get(message.topic()).is_some() || self.keeper.skipped {
                self.keeper.put(StoreOp::Forget { slot, topic: message.topic().into() });
            }
        }
        self.retained.store(message);
        self.arm_sweep();
    }

    /// If anything is to be kept since `emitted`, the client hears nothing before it is.
    pub(in crate::broker) fn hold(&mut self, id: ConnId, emitted: u64) -> Flow {
        if self.keeper.emitted() == emitted {
            return Flow::Continue;
        }
        let gate = self.gate();
        let Some(conn) = self.conn(id) else { return Flow::Closed };
        conn.held = gate;
        self.keeper.held_conns.push(id);
        self.pause(id, Pause::Gates);
        Flow::Pause
    }

    /// [`Shard::hold`] for a client of whose session its will alone is kept. A store that fails does not keep it waiting: the will is
    /// then kept as soon as that is possible.
    pub(in crate::broker) fn hold_for_will(&mut self, id: ConnId, emitted: u64) -> Flow {
        if self.keeper.failed {
            return Flow::Continue;
        }
        let flow = self.hold(id, emitted);
        if matches!(flow, Flow::Pause) {
            self.keeper.held_for_wills.push(id);
        }
        flow
    }

    pub(in crate::broker) fn on_store_failed(&mut self, failed: bool) {
        self.keeper.failed = failed;
        if failed && !self.keeper.held_for_wills.is_empty() {
            for id in core::mem::take(&mut self.keeper.held_for_wills) {
                self.conn(id).into_iter().for_each(|conn| conn.held = 0);
            }
            self.release_held();
        }
    }

    /// Messages that were given their packet ids wait for the record of that.
    pub(in crate::broker) fn wait_for_records(&mut self, index: u32) {
        let gate = self.gate();
        let Some(session) = self.sessions.get_mut(index) else { return };
        let key = session.key(index);
        if let Some(kept) = &mut session.kept {
            kept.held.iter_mut().filter(|h| h.gate == 0).for_each(|h| h.gate = gate);
            self.keeper.held.push_back((gate, key));
        }
    }

    /// Gates opened: what waited for records leaves.
    pub(in crate::broker) fn release_held(&mut self) {
        let opened = self.opened;
        for id in core::mem::take(&mut self.keeper.held_conns) {
            match self.conn(id).map(|c| c.held <= opened) {
                Some(true) => {
                    self.mark_dirty(id);
                    self.resume(id, Pause::Gates);
                }
                Some(false) => self.keeper.held_conns.push(id),
                None => {}
            }
        }
        let Shard { keeper, conns, .. } = self;
        keeper.held_for_wills.retain(|id| conn_at(conns, *id).is_some_and(|c| c.held > opened));
        while let Some(&(gate, key)) = self.keeper.held.front()
            && gate <= opened
        {
            self.keeper.held.pop_front();
            if let Some(index) = self.session_of(key) {
                self.send_held(index);
                self.pump(index);
            }
        }
    }

    pub(in crate::broker) fn on_stored(&mut self, upto: u64) {
        self.keeper.stored = self.keeper.stored.max(upto);
        self.send_forwards();
        self.settle();
        self.release_subscribes();
        self.open_gates();
    }

    pub(in crate::broker) fn on_loaded(&mut self, mut loaded: Loaded) {
        if loaded.key.serial == ENDING {
            return self.hand_on_loaded(loaded);
        }
        let Some(index) = self.session_of(loaded.key) else { return };
        let outgoing = &mut self.sessions[index].outgoing;
        if !outgoing.has_rest() {
            return;
        }
        loaded.deliveries.iter_mut().for_each(|delivery| self.memory.hold(delivery));
        outgoing.load(loaded.deliveries);
        if self.sessions[index].conn.is_some() {
            self.pump(index);
        }
    }

    /// Gives what an ended session left in the store to other members of its shared subscriptions.
    pub(in crate::broker) fn hand_on(&mut self, id: SessionId, from: u64, filters: BTreeMap<u32, Box<str>>) {
        // Until that is done it is a session of nobody, with a name no client can have; a restart goes on with it.
        self.keeper.put(StoreOp::Session {
            id,
            state: Box::new(SessionState {
                client_id: format!("\0{}.{}", id.origin, id.count).into(),
                username: None,
                listener: 0,
                expiry_s: 0,
                expires_at: Instant::NEVER,
                will: None,
                will_at: Instant::NEVER,
            }),
        });
        let index = self.keeper.endings.insert(Ending { id, filters });
        let key = SessionKey { index, serial: ENDING };
        self.keeper.put(StoreOp::Load { id, key, from, count: HEAD as u32 });
    }

    fn hand_on_loaded(&mut self, loaded: Loaded) {
        let Loaded { key, deliveries } = loaded;
        let Some(Ending { id, filters }) = self.keeper.endings.get(key.index) else { return };
        let (id, filters) = (*id, filters.clone());
        let next = deliveries.last().filter(|_| deliveries.len() >= HEAD).map(|d| d.seq + 1);
        for delivery in deliveries {
            self.keeper.done(id, &delivery);
            if let Some(filter) = filters.get(&delivery.share) {
                self.return_share(filter, delivery.message);
            }
        }
        match next {
            Some(from) => self.keeper.put(StoreOp::Load { id, key, from, count: HEAD as u32 }),
            None => {
                self.keeper.endings.remove(key.index);
                self.keeper.put(StoreOp::SessionEnd { id });
            }
        }
    }

    /// Takes back what was kept.
    pub(in crate::broker) fn restore(&mut self, op: StoreOp) {
        let id = match &op {
            StoreOp::Session { id, .. }
            | StoreOp::Subscribe { id, .. }
            | StoreOp::Enqueue { id, .. }
            | StoreOp::Sent { id, .. }
            | StoreOp::Released { id, .. }
            | StoreOp::Received { id, .. }
            | StoreOp::Rest { id, .. } => *id,
            StoreOp::Retain { message, .. } => {
                self.retained.store(message.clone());
                return self.arm_sweep();
            }
            _ => return,
        };
        if let StoreOp::Session { state, .. } = op {
            return self.restore_session(id, *state);
        }
        let Some((_, index)) = self.keeper.restoring.filter(|(known, _)| *known == id) else { return };
        let Some(session) = self.sessions.get_mut(index) else { return };
        let Some(kept) = &mut session.kept else { return };
        match op {
            StoreOp::Subscribe { filter, subscription, .. } => {
                self.restore_subscription(index, &filter, subscription);
            }
            StoreOp::Received { packet_id, .. } => {
                self.change_ids(index, |incoming| incoming.begin(packet_id));
            }
            StoreOp::Enqueue { mut delivery, .. } => {
                kept.last_seq = kept.last_seq.max(delivery.seq);
                self.memory.hold(&mut delivery);
                session.outgoing.push(delivery);
            }
            StoreOp::Sent { packet_id, .. } => session.outgoing.restore_sent(packet_id),
            StoreOp::Released { seq, packet_id, .. } => {
                kept.last_seq = kept.last_seq.max(seq);
                session.outgoing.restore_released(packet_id, seq);
            }
            StoreOp::Rest { from, last, count, bytes, .. } => {
                kept.last_seq = kept.last_seq.max(last);
                session.outgoing.restore_rest(Rest { from, count, bytes, asked: false });
            }
            _ => {}
        }
    }

    fn restore_session(&mut self, id: SessionId, state: SessionState) {
        let now = self.now;
        if let Some(index) = self.find_session(&state.client_id) {
            // Two of one client id: no crash leaves that behind. The first stays.
            self.keeper.restoring = None;
            log::warn!("A second session of {} in the store.", self.sessions[index].client_id.escape_debug());
            return;
        }
        let index = self.create_session(String::from(state.client_id), state.username);
        let run = (self.message_count >> 40) as u32;
        let session = &mut self.sessions[index];
        // What waits is marked with numbers of shared subscriptions that may be gone: new ones get others.
        session.last_share = run << 16;
        session.listener = state.listener;
        session.epoch = self.epoch.wrapping_sub(1);
        session.expiry_s = state.expiry_s;
        session.expires_at = state.expires_at;
        session.will_at = state.will_at;
        session.will = state.will.map(|w| Box::new(Will { message: w.message, delay_s: w.delay_s }));
        session.kept = Some(Box::new(Kept { id, last_seq: 0, held: VecDeque::new() }));
        self.count_session(index);
        let session = &mut self.sessions[index];
        let mut changed = false;
        // Its client was connected when the broker ended: that is when it was lost.
        if session.expires_at == Instant::NEVER && session.expiry_s != u32::MAX {
            session.expires_at = now + Duration::from_secs(session.expiry_s.into());
            changed = true;
        }
        if session.will_at == Instant::NEVER
            && let Some(will) = &session.will
        {
            session.will_at = now + Duration::from_secs(will.delay_s.into());
            changed = true;
        }
        // Not before all shards know who subscribed: a will that is due would miss some.
        let at = session.expires_at.min(session.will_at).max(now + Duration::from_millis(1));
        self.timers.arm(&mut session.armed, at, Timer::Session(index));
        self.keeper.restoring = Some((id, index));
        if changed {
            self.keep_session(index);
        }
    }

    fn restore_subscription(&mut self, index: u32, filter: &str, stored: StoredSubscription) {
        let Ok(parsed) = TopicFilter::parse(filter) else { return };
        let options = stored.options;
        if parsed.share().is_some() {
            return self.rejoin_share(index, filter, options.qos, stored.id, stored.share);
        }
        self.insert_subscription(index, parsed.filter(), Subscription::new(options, stored.id));
    }

    /// Writes what waited for its records.
    fn send_held(&mut self, index: u32) {
        let Shard { sessions, conns, pool, counters, keeper, opened, now, memory, .. } = self;
        let Some(session) = sessions.get_mut(index) else { return };
        let (Some(id), Some(kept)) = (session.conn, &mut session.kept) else { return };
        let Some(conn) = conn_at(conns, id) else { return };
        let mut done = Vec::new();
        while let Some(&Held { gate, packet_id, dup }) = kept.held.front()
            && gate <= *opened
        {
            kept.held.pop_front();
            let Some(delivery) = session.outgoing.delivery(packet_id) else { continue };
            // [MQTT-3.3.2-5]
            let expired = !dup && delivery.message.expires_at() <= *now;
            if !expired && conn.write(pool, *now, packet_id, dup, delivery) {
                counters.publish_sent += 1;
                counters.publish_bytes_sent += delivery.message.payload().len() as u64;
            } else {
                counters.drop_for(Dropped::TooLarge);
                done.extend(session.outgoing.discard(packet_id));
            }
        }
        for delivery in done {
            memory.release(&delivery);
            keeper.done(kept.id, &delivery);
        }
        self.mark_dirty(id);
    }
}

/// Whether a message must not leave before the record of its packet id is kept: if that were lost, another message could
/// get the id, and a client that knows the id would take it for the first one.
pub(in crate::broker) fn must_wait(kept: &Kept, first: bool, qos: QoS) -> bool {
    !kept.held.is_empty() || first && qos == QoS::ExactlyOnce
}
