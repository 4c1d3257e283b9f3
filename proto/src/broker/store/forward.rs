//! Messages that go to another shard and must arrive there once, though the broker may end in between.
//!
//! Who sends one keeps it first, in one step with what else came of the message, and sends it when that is stored. Who takes it
//! in keeps its number, in one step with what comes of it there. So after a restart the records say of each whether it has
//! to be delivered again. This is for QoS 2 messages of publishers that are kept, for wills, and for what goes on to members
//! of shared subscriptions; for QoS 1 messages the publisher itself is who keeps them until all shards have them.
//!
//! A message to be retained is sent at once, so that nobody who subscribes misses the last value: to store it twice in one run
//! does no harm. It is counted apart ([`RETAINED`]), as it overtakes others.

use super::{BodyId, StoreOp};
use crate::broker::conn::NO_SESSION;
use crate::broker::io::ShardId;
use crate::broker::peer::PeerMessage;
use crate::broker::publish::Source;
use crate::broker::{Placement, Shard};
use crate::codec::QoS;
use crate::message::Message;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Said of the shard that a message is for: its home is that of its topic, where it is to be retained.
pub const RETAINED: ShardId = 0x8000;

/// What is on its way to others.
#[derive(Debug, Default)]
pub(in crate::broker) struct Forwards {
    /// How many there were, by the shard they are for: those to be retained, and others.
    numbers: Vec<[u64; 2]>,
    /// Those that wait for their records.
    waiting: VecDeque<Forward>,
    /// Those that were sent, with the gate behind which they have arrived.
    sent: VecDeque<(u64, ShardId, u64, BodyId)>,
}

impl Forwards {
    /// Whether none is on its way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }
}

#[derive(Debug)]
struct Forward {
    /// The number of the record.
    emitted: u64,
    to: ShardId,
    number: u64,
    body: BodyId,
    message: PeerMessage,
}

impl Shard {
    /// Sends a message to another shard, where it arrives once.
    pub(in crate::broker) fn send_once(
        &mut self,
        to: ShardId,
        sent: PeerMessage,
        message: &Message,
        share: Option<&str>,
    ) {
        if !self.keeper.on || message.qos() == QoS::AtMostOnce {
            return self.send_to_peer(to, sent);
        }
        let number = self.next_forward(to, false);
        let (link, share) = ((self.id, to), share.map(Box::from));
        self.keeper.put(StoreOp::Forward { link, number, message: message.clone(), share });
        let (emitted, body) = (self.keeper.emitted(), message.id());
        self.keeper.forwards.waiting.push_back(Forward { emitted, to, number, body, message: sent });
    }

    /// Whether a message of QoS 2 has to be kept until it has arrived: that of a session that is kept; and behind others that wait
    /// for their records any, as they may be of the same client's last session [MQTT-4.6.0-6].
    pub(in crate::broker) fn sends_once(&self, session: u32) -> bool {
        self.sessions[session].kept.is_some() || !self.keeper.forwards.waiting.is_empty()
    }

    /// Sends a message to the home of its topic, to be retained there, also if this shard ends before it has arrived.
    pub(in crate::broker) fn send_retained(&mut self, to: ShardId, message: Message) {
        let number = self.next_forward(to, true);
        let (link, body) = ((self.id, to | RETAINED), message.id());
        self.keeper.put(StoreOp::Forward { link, number, message: message.clone(), share: None });
        self.send_to_peer(to, PeerMessage::Once { number, message: Box::new(PeerMessage::Retain(message)) });
        let gate = self.gate();
        self.keeper.forwards.sent.push_back((gate, to | RETAINED, number, body));
    }

    fn next_forward(&mut self, to: ShardId, retained: bool) -> u64 {
        let numbers = &mut self.keeper.forwards.numbers;
        numbers.resize(usize::from(self.shards), [0; 2]);
        let number = &mut numbers[usize::from(to)][usize::from(retained)];
        *number += 1;
        *number
    }

    /// The store has more: what waited for that leaves.
    pub(super) fn send_forwards(&mut self) {
        let stored = self.keeper.stored();
        let mut gate = 0;
        while self.keeper.forwards.waiting.front().is_some_and(|f| f.emitted <= stored)
            && let Some(forward) = self.keeper.forwards.waiting.pop_front()
        {
            let Forward { to, number, body, message, .. } = forward;
            self.send_to_peer(to, PeerMessage::Once { number, message: Box::new(message) });
            if gate == 0 {
                gate = self.gate();
            }
            self.keeper.forwards.sent.push_back((gate, to, number, body));
        }
    }

    /// Gates opened: what has arrived need not be kept here.
    pub(in crate::broker) fn forget_forwarded(&mut self) {
        let opened = self.opened;
        while let Some(&(gate, to, number, body)) = self.keeper.forwards.sent.front()
            && gate <= opened
        {
            self.keeper.forwards.sent.pop_front();
            self.keeper.put(StoreOp::Forwarded { link: (self.id, to), number, body });
        }
    }

    /// Keeps that a message of another shard was taken in, if it has a number.
    pub(in crate::broker) fn keep_mark(&mut self, from: ShardId, number: u64, retained: bool) {
        if number > 0 {
            let to = if retained { self.id | RETAINED } else { self.id };
            self.keeper.put(StoreOp::Mark { link: (from, to), number });
        }
    }

    /// Delivers what was on its way to shard `to` of so many when the broker ended, to those who lived there.
    pub(in crate::broker) fn redeliver(
        &mut self,
        message: &Message,
        share: Option<&str>,
        to: ShardId,
        shards: u16,
    ) {
        if to & RETAINED != 0 {
            if self.placement.shard(message.topic_bytes()) == self.id {
                self.store_retained(message.clone());
            }
            return;
        }
        if let Some(filter) = share {
            let returned = PeerMessage::ShareReturn { filter: filter.into(), message: message.clone() };
            return self.on_share_message(self.id, returned);
        }
        let before = Placement::new(0, shards);
        let mut route = self.route.take().unwrap_or_default();
        self.build_route(Arc::make_mut(&mut route), message.topic(), NO_SESSION);
        let Shard { sessions, groups, placement, .. } = self;
        Arc::make_mut(&mut route).keep_where(
            |session| {
                let kept = sessions.get(session).and_then(|s| s.kept.as_ref());
                kept.is_some_and(|k| before.of_slot(k.id.slot) == to)
            },
            |group| {
                let slot = groups.filter(group).map(|filter| placement.slot(filter.as_bytes()) as u16);
                slot.is_some_and(|slot| before.of_slot(slot) == to)
            },
        );
        self.deliver_or_queue(Source::Within, &message.as_publication(), route, Some(message.clone()));
        self.forget_routes();
    }
}
