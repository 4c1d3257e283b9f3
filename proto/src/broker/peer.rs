//! What shards tell each other, and the account each keeps of what the others have handled.
//!
//! Messages between two shards are numbered by weight: both sides add up the weight of all they sent or
//! handled, and an [`PeerMessage::Ack`] names that sum. A [`Barrier`](super::Shard) waits until every
//! peer has handled all that was sent to it before; credit is what may be underway.

use super::conn::{Pause, conn_at};
use super::interest::{Change, Pattern};
use super::io::{ConnId, Output, ShardId};
use super::publish::{PENDING_ACKS_MAX, Source};
use super::{SLICE, Shard, Work};
use crate::message::{Message, MessageId};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A session anywhere in the broker: its place in its home shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKey {
    /// The place in the home shard's list.
    pub index: u32,
    /// Tells the users of one place apart.
    pub serial: u32,
}

/// A retained message on its way to someone who subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayKey {
    /// The session that subscribed.
    pub session: SessionKey,
    /// Which of the home shard's replays: its place.
    pub replay: u32,
    /// Tells the users of one place apart.
    pub number: u32,
}

/// What one shard tells another. Plain values: they could cross a network as well.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// Store (or, with an empty payload, remove) a retained message: its topic lives with you.
    Retain(Message),
    /// Deliver this to your subscribers.
    Publish(Message),
    /// A message that the sender keeps until it knows that it was taken in, and that is never taken in twice: a
    /// [`Retain`](PeerMessage::Retain), [`Publish`](PeerMessage::Publish),
    /// [`ShareDeliver`](PeerMessage::ShareDeliver) or [`ShareReturn`](PeerMessage::ShareReturn).
    Once {
        /// Counts those between the two shards, retained messages apart from others.
        number: u64,
        /// The message.
        message: Box<PeerMessage>,
    },
    /// I have, or no longer have, subscribers with this shape and key.
    Interest {
        /// Whether it is new or gone.
        add: bool,
        /// The pattern of literal levels and wildcards.
        shape: u64,
        /// The hash of the literal levels.
        key: u64,
    },
    /// I have more kinds of subscription than a table is worth: send me everything, or no longer.
    InterestInAll(bool),
    /// Send the retained messages that match this filter.
    ReplayBegin {
        /// For whom.
        key: ReplayKey,
        /// The topic filter.
        filter: Box<str>,
    },
    /// A retained message that was asked for.
    ReplayItem {
        /// For whom.
        key: ReplayKey,
        /// The message.
        message: Message,
    },
    /// That was a portion: ask for more when there is room.
    ReplayPortion {
        /// For whom.
        key: ReplayKey,
        /// What the sender knows this replay by.
        serve: u32,
    },
    /// Go on.
    ReplayMore {
        /// For whom.
        key: ReplayKey,
        /// What you know this replay by.
        serve: u32,
    },
    /// The rest is not wanted.
    ReplayCancel {
        /// For whom.
        key: ReplayKey,
        /// What you know this replay by.
        serve: u32,
    },
    /// There are no more.
    ReplayEnd {
        /// For whom.
        key: ReplayKey,
    },
    /// A session of mine joins a shared subscription that lives with you, or changes its options.
    ShareJoin {
        /// The whole filter, `$share/…`.
        filter: Box<str>,
        /// The member.
        member: SessionKey,
        /// Whether the member is connected.
        connected: bool,
        /// Whether the member's session is kept in the store.
        kept: bool,
        /// What to answer with.
        ticket: u32,
    },
    /// All shards know of the group now: the SUBACK may go.
    ShareJoined {
        /// What the join was given.
        ticket: u32,
    },
    /// A session of mine leaves a shared subscription.
    ShareLeave {
        /// The whole filter.
        filter: Box<str>,
        /// The member.
        member: SessionKey,
    },
    /// A member was connected or lost its connection.
    ShareMember {
        /// The whole filter.
        filter: Box<str>,
        /// The member.
        member: SessionKey,
        /// Whether it is connected.
        connected: bool,
    },
    /// Deliver this to one session of yours.
    ShareDeliver {
        /// The whole filter, to give the message back by.
        filter: Box<str>,
        /// The member chosen.
        member: SessionKey,
        /// The message.
        message: Message,
    },
    /// A member ended before it acknowledged this: choose another.
    ShareReturn {
        /// The whole filter.
        filter: Box<str>,
        /// The message.
        message: Message,
    },
    /// I have clients that are too slow for this message of yours: its publisher should wait.
    Slow(MessageId),
    /// My clients have caught up.
    Eased,
    /// My counters, for `$SYS`.
    Counters(Box<super::sys::Counters>),
    /// Tell me when you have handled all up to here.
    Sync,
    /// I have handled this much of what you sent.
    Ack {
        /// The sum of the weights.
        handled: u64,
        /// How much of it I need not be told again after a restart: what came of it is kept, here and wherever it went.
        settled: u64,
    },
}

impl PeerMessage {
    /// What the message counts for: one, and one more for each KiB. An Ack is not counted.
    pub fn weight(&self) -> u64 {
        match self {
            PeerMessage::Ack { .. } => 0,
            PeerMessage::Once { message, .. } => message.weight(),
            PeerMessage::Retain(m)
            | PeerMessage::Publish(m)
            | PeerMessage::ReplayItem { message: m, .. }
            | PeerMessage::ShareDeliver { message: m, .. }
            | PeerMessage::ShareReturn { message: m, .. } => 1 + (m.size() / 1024) as u64,
            _ => 1,
        }
    }

    /// Whether this is a retained message: such are to be handed over before whatever came after them to any shard, so that
    /// nobody hears of the next message of a topic before all know its retained one.
    pub fn is_retain(&self) -> bool {
        match self {
            PeerMessage::Retain(_) => true,
            PeerMessage::Once { message, .. } => message.is_retain(),
            _ => false,
        }
    }

    /// The message itself, and its number if it is one that is taken in once, 0 otherwise.
    fn numbered(self) -> (u64, PeerMessage) {
        match self {
            PeerMessage::Once { number, message } => (number, *message),
            message => (0, message),
        }
    }
}

/// What may be underway to one peer before connections that publish are asked to wait.
pub(super) const CREDIT: u64 = 65_536;

/// The account with one other shard.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The weight of all that was sent.
    sent: u64,
    /// How much of it the peer says it has handled.
    acked: u64,
    /// How much of it the peer says is kept.
    acked_settled: u64,
    /// The weight of all that was handled of the peer's.
    handled: u64,
    /// How much of that is kept.
    settled: u64,
    /// What will be when the store has so many changes: their number, and what was handled before.
    settling: VecDeque<(u64, u64)>,
    /// How much of what was handled and is kept the peer has been told.
    told: (u64, u64),
    /// Whether the peer waits to be told.
    asked: bool,
    /// Retained messages, to be sent before anything else to anyone.
    pub retain: Vec<PeerMessage>,
    /// All others, in order.
    pub others: Vec<PeerMessage>,
    /// Whether something left in this flush.
    more_underway: bool,
    /// What came while a message of this peer was still on its way to many receivers.
    backlog: VecDeque<Late>,
    /// Whether that is so.
    busy: bool,
    /// The weight of that message.
    unfinished: u64,
    /// Its number, if it is one that is taken in once; 0 otherwise.
    unfinished_once: u64,
}

/// What came while its sender was busy here.
#[derive(Debug)]
enum Late {
    /// With its number, if it is one that is taken in once; 0 otherwise.
    Message(u64, PeerMessage),
    /// A retained message, stored as it came, with its weight: to be counted in its turn.
    Stored(u64),
}

/// A gate, and what every peer must have handled for it to open.
#[derive(Debug)]
pub(super) struct Barrier {
    gate: u64,
    sent: Vec<u64>,
    /// What this shard's own store must have.
    emitted: u64,
}

impl Shard {
    /// The gate that opens when all peers have handled what was sent to them up to the end of this turn, and all that
    /// came of it until then is kept, here and there. What only needs the former waits until it is heard.
    pub(super) fn gate(&mut self) -> u64 {
        if self.shards == 1 && !self.keeper.pending() {
            return 0;
        }
        if !self.gate_used {
            self.gate_used = true;
            self.gate += 1;
        }
        self.gate
    }

    /// The first of some acknowledgements on this connection waits for a gate.
    pub(super) fn wait_for_gate(&mut self, id: ConnId) {
        self.gated.push(id);
    }

    /// Whether so much is underway to some peer that publishers should wait.
    pub(super) fn credit_spent(&self) -> bool {
        self.peers.iter().any(|p| p.sent - p.acked > CREDIT)
    }

    /// Moves what this turn has for the store and for peers to the outputs. False if there was nothing.
    pub(super) fn flush_turn(&mut self) -> bool {
        let ops = self.keeper.take();
        let any = ops.is_some();
        self.outputs.extend(ops);
        if self.shards > 1 {
            return self.flush_peers() || any;
        }
        if core::mem::take(&mut self.gate_used) {
            let emitted = self.keeper.emitted();
            self.barriers.push_back(Barrier { gate: self.gate, sent: Vec::new(), emitted });
            // It may be kept by now.
            self.open_gates();
            return true;
        }
        any
    }

    /// Moves what this turn has for peers to the outputs: retained messages, then all others, then
    /// acknowledgements. False if there was nothing.
    fn flush_peers(&mut self) -> bool {
        let count = self.peers.len();
        let ids = || (0..).zip(0..count);
        for (to, at) in ids() {
            let peer = &mut self.peers[at];
            peer.more_underway = !peer.retain.is_empty() || !peer.others.is_empty();
            for message in peer.retain.drain(..) {
                peer.sent += message.weight();
                self.outputs.push_back(Output::Peer { to, message });
            }
        }
        for (to, at) in ids() {
            let peer = &mut self.peers[at];
            for message in peer.others.drain(..) {
                peer.sent += message.weight();
                self.outputs.push_back(Output::Peer { to, message });
            }
            // Whoever gates or is far ahead wants to hear.
            if peer.sent > peer.acked
                && (self.gate_used || peer.more_underway && peer.sent - peer.acked > CREDIT / 2)
            {
                peer.sent += 1;
                self.outputs.push_back(Output::Peer { to, message: PeerMessage::Sync });
            }
        }
        if self.gate_used {
            self.gate_used = false;
            let sent = self.peers.iter().map(|p| p.sent).collect();
            let emitted = self.keeper.emitted();
            self.barriers.push_back(Barrier { gate: self.gate, sent, emitted });
            self.open_gates();
        }
        for (to, at) in ids() {
            let peer = &mut self.peers[at];
            let (handled, settled) = (peer.handled, peer.settled);
            if peer.asked && (handled, settled) != peer.told {
                // Whoever asked waits for both.
                peer.asked = settled < handled;
                peer.told = (handled, settled);
                self.outputs.push_back(Output::Peer { to, message: PeerMessage::Ack { handled, settled } });
            }
        }
        // A gate that opened at once may have left more to say.
        !self.outputs.is_empty() || self.peers.iter().any(|p| !p.retain.is_empty() || !p.others.is_empty())
    }

    pub(super) fn open_gates(&mut self) {
        self.hear();
        let before = self.opened;
        while let Some(barrier) = self.barriers.front()
            && self.keeper.stored() >= barrier.emitted
            && self.peers.iter().zip(&barrier.sent).all(|(p, sent)| p.acked_settled >= *sent)
        {
            self.opened = barrier.gate;
            self.barriers.pop_front();
        }
        if self.opened == before {
            return;
        }
        for id in core::mem::take(&mut self.gated) {
            let Shard { conns, pool, opened, .. } = self;
            let Some(conn) = conn_at(conns, id) else { continue };
            let any = conn.link.release_acks(pool, *opened);
            if conn.link.pending_acks() > 0 {
                self.gated.push(id);
            }
            let room = conn.link.pending_acks() < PENDING_ACKS_MAX / 2;
            if any {
                self.mark_dirty(id);
            }
            if room {
                self.resume(id, Pause::Gates);
            }
        }
        self.release_held();
        self.forget_forwarded();
    }

    /// Lets go what needs all peers to know something, whether or not anything is kept.
    fn hear(&mut self) {
        let before = self.heard;
        let at = self.barriers.partition_point(|b| b.gate <= before);
        for barrier in self.barriers.range(at..) {
            if self.peers.iter().zip(&barrier.sent).any(|(p, sent)| p.acked < *sent) {
                break;
            }
            self.heard = barrier.gate;
        }
        if self.heard > before {
            self.release_joins();
            self.release_subscribes();
        }
    }

    /// The store has more: what was handled before may be settled.
    pub(super) fn settle(&mut self) {
        let stored = self.keeper.stored();
        for peer in &mut self.peers {
            while let Some(&(emitted, handled)) = peer.settling.front()
                && emitted <= stored
            {
                peer.settled = handled;
                peer.settling.pop_front();
            }
            if peer.settling.is_empty() {
                peer.settled = peer.handled;
            }
        }
    }

    pub(super) fn on_peer(&mut self, from: ShardId, message: PeerMessage) {
        let Some(peer) = self.peers.get_mut(usize::from(from)) else { return };
        if let PeerMessage::Ack { handled, settled } = message {
            peer.acked = peer.acked.max(handled);
            peer.acked_settled = peer.acked_settled.max(settled);
            self.open_gates();
            if self.credit_wait && !self.credit_spent() {
                self.credit_wait = false;
                self.conn_ids().into_iter().for_each(|id| self.resume(id, Pause::Credit));
            }
        } else if peer.busy {
            // A retained message must not wait: another shard may know that it was sent, and ask for it.
            let weight = message.weight();
            let late = match message.numbered() {
                (once, PeerMessage::Retain(kept)) => {
                    self.store_retained(kept);
                    self.keep_mark(from, once, true);
                    Late::Stored(weight)
                }
                (once, message) => Late::Message(once, message),
            };
            self.peers[usize::from(from)].backlog.push_back(late);
        } else {
            let (once, message) = message.numbered();
            self.handle_peer(from, once, message);
        }
    }

    fn handle_peer(&mut self, from: ShardId, once: u64, message: PeerMessage) {
        let weight = message.weight();
        match message {
            PeerMessage::Publish(message) => {
                if !self.publish_from_peer(from, message) {
                    // Counted as handled when the last receiver has it.
                    let peer = &mut self.peers[usize::from(from)];
                    peer.busy = true;
                    peer.unfinished = weight;
                    peer.unfinished_once = once;
                    return;
                }
            }
            PeerMessage::Retain(message) => {
                self.store_retained(message);
                self.keep_mark(from, once, true);
                return self.handled(from, weight, 0);
            }
            PeerMessage::Interest { add, shape, key } => {
                self.interest.on_change(from, Change::Pattern { add, pattern: Pattern { shape, key } });
            }
            PeerMessage::InterestInAll(all) => self.interest.on_change(from, Change::All(all)),
            PeerMessage::ReplayBegin { key, filter } => self.on_replay_begin(from, key, &filter),
            PeerMessage::ReplayItem { key, message } => self.on_replay_item(key, &message),
            PeerMessage::ReplayPortion { key, serve } => self.on_replay_pause(from, key, Some(serve)),
            PeerMessage::ReplayEnd { key } => self.on_replay_pause(from, key, None),
            PeerMessage::ReplayMore { key, serve } => self.on_replay_more(from, key, serve, true),
            PeerMessage::ReplayCancel { key, serve } => self.on_replay_more(from, key, serve, false),
            PeerMessage::ShareJoined { ticket } => self.on_share_joined(ticket),
            PeerMessage::ShareDeliver { filter, member, message } => {
                self.on_share_deliver(&filter, member, &message);
                self.after_delivery(Source::Peer(from), message.id());
            }
            PeerMessage::ShareJoin { .. }
            | PeerMessage::ShareLeave { .. }
            | PeerMessage::ShareMember { .. }
            | PeerMessage::ShareReturn { .. } => self.on_share_message(from, message),
            PeerMessage::Slow(message) => self.on_slow(message),
            PeerMessage::Eased => self.on_eased(),
            PeerMessage::Counters(counters) => self.on_counters(from, *counters),
            PeerMessage::Sync => self.peers[usize::from(from)].asked = true,
            PeerMessage::Once { .. } | PeerMessage::Ack { .. } => {}
        }
        self.handled(from, weight, once);
    }

    /// Counts what was handled of a peer's. It is settled when what came of it is kept: here, as what went on to other
    /// shards is kept here until they have it.
    fn handled(&mut self, from: ShardId, weight: u64, once: u64) {
        self.keep_mark(from, once, false);
        let (emitted, pending) = (self.keeper.emitted(), self.keeper.pending());
        let peer = &mut self.peers[usize::from(from)];
        peer.handled += weight;
        if pending {
            match peer.settling.back_mut() {
                Some((last, handled)) if *last == emitted => *handled = peer.handled,
                _ => peer.settling.push_back((emitted, peer.handled)),
            }
        } else if peer.settling.is_empty() {
            peer.settled = peer.handled;
        }
    }

    /// The last receiver of a peer's message has it: what came after it is next.
    pub(super) fn peer_goes_on(&mut self, from: ShardId) {
        let peer = &mut self.peers[usize::from(from)];
        let weight = core::mem::take(&mut peer.unfinished);
        let once = core::mem::take(&mut peer.unfinished_once);
        self.handled(from, weight, once);
        let peer = &mut self.peers[usize::from(from)];
        if peer.backlog.is_empty() {
            peer.busy = false;
        } else {
            self.work.push_back(Work::Backlog(from));
        }
    }

    pub(super) fn continue_backlog(&mut self, from: ShardId) {
        let at = usize::from(from);
        self.peers[at].busy = false;
        for _ in 0..SLICE {
            let peer = &mut self.peers[at];
            match peer.backlog.pop_front() {
                Some(Late::Message(once, message)) => self.handle_peer(from, once, message),
                Some(Late::Stored(weight)) => self.handled(from, weight, 0),
                None => return,
            }
            if self.peers[at].busy {
                return;
            }
        }
        if !self.peers[at].backlog.is_empty() {
            self.peers[at].busy = true;
            self.work.push_back(Work::Backlog(from));
        }
    }
}
