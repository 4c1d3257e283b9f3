//! A broker that begins with what a store has kept, whatever that is.

use super::{FILTERS, Rig, TOPICS, run, tuning};
use crate::broker::store::{SessionId, SessionState, StoreOp, StoredSubscription, StoredWill};
use crate::broker::{Input, ShardId};
use crate::codec::{QoS, SubscribeOptions};
use crate::message::{Message, MessageId, Publication};
use crate::session::{Delivery, SubscriptionIds};
use crate::time::Instant;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// Gives sessions, retained messages and messages between shards, of which `data` says what they are, back to one or two shards,
/// and goes on with the rest of it as [`check_shard`](super::check_shard) does.
pub fn check_restore(data: &[u8]) {
    let Some((&first, mut data)) = data.split_first() else { return };
    let first = first | 32;
    let shards = 1 + u16::from(first & 1);
    let mut rig = Rig::with(shards, tuning(first), true);
    let named = first & 16 != 0;
    let subscribed = Default::default();
    let mut restored =
        Restored { rig: &mut rig, count: 0, seq: 0, named, session: None, subscribed, redelivers: false };
    while let [op, a, b, rest @ ..] = data {
        data = rest;
        if op & 7 == 7 {
            break;
        }
        restored.step(op & 7, *a, *b, op >> 3);
    }
    rig.settle();
    run(&mut rig, data);
    rig.end();
}

struct Restored<'a> {
    rig: &'a mut Rig,
    /// Of messages and sessions.
    count: u64,
    seq: u64,
    /// Sessions may have a user.
    named: bool,
    /// The session whose records come.
    session: Option<(SessionId, ShardId)>,
    /// To which filters that session has subscribed.
    subscribed: [bool; FILTERS.len()],
    /// Nothing else is restored.
    redelivers: bool,
}

impl Restored<'_> {
    fn step(&mut self, op: u8, a: u8, b: u8, c: u8) {
        match op {
            0 if !self.redelivers => return self.session(a, b, c),
            1 if !self.redelivers => return self.retain(a),
            2 if c & 1 == 0 => return self.redeliver(a, b),
            _ => {}
        }
        let Some((id, home)) = self.session else { return };
        match op {
            2 | 3 => {
                let filter = FILTERS[usize::from(a) % FILTERS.len()];
                // Its key is the filter.
                if core::mem::replace(&mut self.subscribed[usize::from(a) % FILTERS.len()], true) {
                    return;
                }
                let options = SubscribeOptions {
                    no_local: a & 32 != 0 && !filter.starts_with("$share"),
                    retain_as_published: a & 64 != 0,
                    ..SubscribeOptions::new(qos(b))
                };
                let share = if filter.starts_with("$share") { u32::from(b >> 4) } else { 0 };
                let subscription = StoredSubscription { options, id: u32::from(b >> 2 & 3), share };
                self.give(home, StoreOp::Subscribe { id, filter: filter.into(), subscription });
            }
            4 => self.give(home, StoreOp::Received { id, packet_id: 1 + u16::from(a & 7) }),
            // What is in flight comes before the rest, and the rest is in the store alone.
            5 => {
                let packet_id = u16::from(a).max(1);
                let taken = self.rig.kept.packet_ids.insert((id, packet_id));
                self.seq += 1;
                let seq = self.seq;
                self.rig.kept.in_flight.insert((id, seq));
                if taken && b & 3 == 3 {
                    self.give(home, StoreOp::Released { id, seq, packet_id, body: MessageId::default() });
                } else if taken {
                    self.enqueue(id, home, seq, b);
                    self.give(home, StoreOp::Sent { id, seq, packet_id });
                } else {
                    self.rig.kept.in_flight.remove(&(id, seq));
                }
            }
            _ => {
                for _ in 0..1 + a % 8 {
                    self.seq += 1;
                    self.enqueue(id, home, self.seq, b);
                }
                if c & 1 == 1 {
                    self.rest(id, home, b);
                    self.session = None;
                }
            }
        }
    }

    fn session(&mut self, a: u8, b: u8, c: u8) {
        let client = [b"0123", b"\x00123"][usize::from(c & 16 != 0)][usize::from(a & 3)];
        let client_id = String::from(char::from(client));
        let slot = self.rig.placement.slot(client_id.as_bytes()) as u16;
        let home = self.rig.placement.shard(client_id.as_bytes());
        self.count += 1;
        let id = SessionId { slot, origin: u16::from(a >> 7), count: self.count };
        self.session = None;
        if !self.rig.kept.clients.insert(client) {
            return;
        }
        (self.seq, self.subscribed) = (0, Default::default());
        let moment = |n: u8, now: Instant| match n {
            0..8 => Instant::NEVER,
            _ => now + Duration::from_secs(u64::from(n & 7)),
        };
        let will = (a & 4 != 0)
            .then(|| StoredWill { message: self.message(b, Instant::NEVER), delay_s: u32::from(b >> 4 & 3) });
        let mut state = SessionState {
            client_id: client_id.into(),
            username: (self.named && a & 8 != 0).then(|| "a".into()),
            listener: 0,
            expiry_s: [0, 5, u32::MAX, u32::from(b)][usize::from(a >> 4 & 3)],
            expires_at: moment(c & 15, self.rig.now),
            will_at: moment(b & 15, self.rig.now),
            will,
        };
        if client == 0 {
            // What an ended session has left for other members of its shared subscriptions.
            (state.username, state.will, state.expiry_s) = (None, None, 0);
            state.expires_at = Instant::NEVER;
        }
        self.rig.kept.sessions.insert(id);
        self.session = Some((id, home));
        self.give(home, StoreOp::Session { id, state: state.into() });
    }

    fn retain(&mut self, a: u8) {
        let message = self.message(a, Instant::NEVER);
        let slot = self.rig.placement.slot(message.topic_bytes()) as u16;
        let home = self.rig.placement.shard(message.topic_bytes());
        self.give(home, StoreOp::Retain { slot, message });
    }

    fn redeliver(&mut self, a: u8, b: u8) {
        // That comes when all sessions are there.
        (self.session, self.redelivers) = (None, true);
        let message = self.message(a, Instant::NEVER);
        let (to, shards) = (u16::from(b & 1), 1 + u16::from(b >> 1 & 3));
        let to = if b & 8 != 0 { to | crate::broker::store::RETAINED } else { to };
        let share = (b & 16 != 0).then_some("$share/g/a");
        let owner = share.map(|filter| self.rig.placement.shard(filter.as_bytes()));
        for shard in 0..self.rig.shards.len() {
            if owner.is_none_or(|owner| usize::from(owner) == shard) {
                let (message, share) = (message.clone(), share.map(Into::into));
                self.rig.input(shard, Input::Redeliver { message, share, to, shards });
            }
        }
    }

    fn enqueue(&mut self, id: SessionId, home: ShardId, seq: u64, b: u8) {
        let delivery = self.delivery(seq, b);
        self.rig.kept.queues.insert((id, seq), delivery.clone());
        self.give(home, StoreOp::Enqueue { id, delivery });
    }

    /// Leaves some messages in the store.
    fn rest(&mut self, id: SessionId, home: ShardId, b: u8) {
        let from = self.seq + 1;
        let mut bytes = 0;
        for _ in 0..1 + b % 100 {
            self.seq += 1;
            let delivery = self.delivery(self.seq, b);
            bytes += delivery.size();
            self.rig.kept.queues.insert((id, self.seq), delivery);
        }
        let count = self.seq + 1 - from;
        self.give(home, StoreOp::Rest { id, from, last: self.seq, count, bytes });
    }

    fn delivery(&mut self, seq: u64, b: u8) -> Delivery {
        let expires_at = match b >> 5 {
            0..5 => Instant::NEVER,
            n => self.rig.now + Duration::from_secs(u64::from(n - 5)),
        };
        let mut ids = SubscriptionIds::None;
        (0..b >> 3 & 3).for_each(|n| ids.push(1 + u32::from(n)));
        let qos = if b & 4 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let message = self.message(b, expires_at);
        Delivery { message, qos, retain: b & 16 != 0, ids, share: u32::from(b >> 6), seq, body: 0 }
    }

    fn message(&mut self, a: u8, expires_at: Instant) -> Message {
        self.count += 1;
        let topic = TOPICS[usize::from(a) % 3];
        let id = MessageId { origin: 0, count: self.count };
        let (retain, properties) = (a & 8 != 0, &[1, 1][..usize::from(a >> 6 & 2)]);
        Publication { topic, qos: qos(a >> 4), retain, properties, payload: b"kept", expires_at, id }
            .to_message(&mut Vec::new())
    }

    fn give(&mut self, home: ShardId, op: StoreOp) {
        self.rig.input(usize::from(home), Input::Restore(op));
    }
}

fn qos(bits: u8) -> QoS {
    QoS::from_u8(bits & 3).unwrap_or(QoS::AtMostOnce)
}
