//! What must outlive the broker, as values.
//!
//! A shard that was told to ([`Shard::keep`](super::Shard::keep_from)) puts everything a restart must not lose into
//! [`Output::Store`](super::Output::Store): numbered operations, upserts and deletes by key, which may be applied again
//! without harm. The driver's store applies them in order and confirms a prefix ([`Input::Stored`](super::Input::Stored));
//! what promises something to a client leaves when the record behind it is confirmed. After a restart the driver hands the
//! same type back, session by session ([`Input::Restore`](super::Input::Restore)).
//!
//! Kept are sessions that outlive their connection, wills, and retained messages. The queue of a session is kept whole in the
//! store and only its head in memory: [`StoreOp::Load`] asks for what follows.
//!
//! [`record`] has the form in which all of it is written.

#[doc(hidden)]
pub mod check;
pub(super) mod forward;
pub(super) mod keep;
#[doc(hidden)]
pub mod model;
pub mod record;

pub use forward::RETAINED;

use super::io::{ConnId, Output, ShardId};
use super::peer::SessionKey;
use crate::codec::SubscribeOptions;
use crate::message::{Message, MessageId};
use crate::session::Delivery;
use crate::table::Slab;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A session in the store. No other session ever gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The slot its client id hashes to ([`Placement::slot`](super::Placement::slot)).
    pub slot: u16,
    /// The shard that made it.
    pub origin: u16,
    /// Which one of that shard's messages and sessions.
    pub count: u64,
}

/// What is kept of a session besides what it subscribed to and what waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// The client id.
    pub client_id: Box<str>,
    /// The user it belongs to.
    pub username: Option<Box<str>>,
    /// The index of the listener its client was last seen on: its rights are that listener's.
    pub listener: u16,
    /// Session Expiry Interval in seconds; `u32::MAX` is never, 0 with the connection (kept for its will alone).
    pub expiry_s: u32,
    /// When it ends; [`Instant::NEVER`] while its client is connected.
    pub expires_at: Instant,
    /// The will, until it is published or deleted.
    pub will: Option<StoredWill>,
    /// When the will is published; [`Instant::NEVER`] while its client is connected.
    pub will_at: Instant,
}

/// A will in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWill {
    /// The message; its expiry is a span from [`Instant::ZERO`] that begins when it is published.
    pub message: Message,
    /// Will Delay Interval, in seconds.
    pub delay_s: u32,
}

/// What a session subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSubscription {
    /// What was chosen in SUBSCRIBE; Retain Handling says nothing any more.
    pub options: SubscribeOptions,
    /// The subscription identifier, 0 for none.
    pub id: u32,
    /// For shared subscriptions: the number its deliveries are marked with, 0 otherwise.
    pub share: u32,
}

/// One change of what is kept, or a question about it.
#[derive(Clone, Debug)]
pub enum StoreOp {
    /// A session begins, or what it says changes.
    Session {
        /// Which one.
        id: SessionId,
        /// All that is said of it.
        state: Box<SessionState>,
    },
    /// A session ends, with everything under its id.
    SessionEnd {
        /// Which one.
        id: SessionId,
    },
    /// A subscription begins or changes.
    Subscribe {
        /// Whose.
        id: SessionId,
        /// The whole filter, mount point and `$share/…` in it.
        filter: Box<str>,
        /// What was chosen.
        subscription: StoredSubscription,
    },
    /// A subscription ends.
    Unsubscribe {
        /// Whose.
        id: SessionId,
        /// The whole filter.
        filter: Box<str>,
    },
    /// A message waits for a session, at the place [`Delivery::seq`]. Places of a session ascend.
    Enqueue {
        /// Whose.
        id: SessionId,
        /// The message and what was decided for this receiver.
        delivery: Delivery,
    },
    /// A message that waits is being sent with this packet id.
    Sent {
        /// Whose.
        id: SessionId,
        /// Its place.
        seq: u64,
        /// Its packet id.
        packet_id: u16,
    },
    /// The receiver of a QoS 2 message has it: only the packet id is left, until PUBCOMP.
    Released {
        /// Whose.
        id: SessionId,
        /// Its place.
        seq: u64,
        /// Its packet id.
        packet_id: u16,
        /// The message, which does not wait any more.
        body: BodyId,
    },
    /// A message does not wait any more.
    Done {
        /// Whose.
        id: SessionId,
        /// Its place.
        seq: u64,
        /// The message, unless [`StoreOp::Released`] has said it.
        body: Option<BodyId>,
    },
    /// A QoS 2 message came from a session's client and is not released.
    Received {
        /// Whose.
        id: SessionId,
        /// Its packet id.
        packet_id: u16,
    },
    /// It was released.
    Completed {
        /// Whose.
        id: SessionId,
        /// Its packet id.
        packet_id: u16,
    },
    /// A retained message takes the place of the last one with its topic.
    Retain {
        /// The slot its topic hashes to.
        slot: u16,
        /// The message.
        message: Message,
    },
    /// The retained message of a topic is removed.
    Forget {
        /// The slot the topic hashes to.
        slot: u16,
        /// The topic.
        topic: Box<str>,
    },
    /// A message is on its way to another shard, until [`StoreOp::Forwarded`].
    Forward {
        /// The shard that sends it, and the one it is for, with [`RETAINED`] if it is to be retained there.
        link: (ShardId, ShardId),
        /// Counts those between the two, from 1 in each run.
        number: u64,
        /// The message.
        message: Message,
        /// The shared subscription that it is for; `None` for all who subscribe.
        share: Option<Box<str>>,
    },
    /// The other shard has taken it in, and kept that.
    Forwarded {
        /// The two shards.
        link: (ShardId, ShardId),
        /// Which.
        number: u64,
        /// The message.
        body: BodyId,
    },
    /// Messages between two shards up to this number were taken in.
    Mark {
        /// The shard that sent them, and this one.
        link: (ShardId, ShardId),
        /// The last one.
        number: u64,
    },
    /// Hand me the messages of this session that wait, from this place on ([`Input::Loaded`](super::Input::Loaded)).
    Load {
        /// Whose.
        id: SessionId,
        /// What to answer with.
        key: SessionKey,
        /// The first place that is wanted.
        from: u64,
        /// How many are wanted at most.
        count: u32,
    },
    /// Only said at a restart, of a session: this many more messages wait from this place on, and stay in the store.
    Rest {
        /// Whose.
        id: SessionId,
        /// The first place.
        from: u64,
        /// The last one.
        last: u64,
        /// How many there are.
        count: u64,
        /// The sum of their sizes ([`Delivery::size`]).
        bytes: u64,
    },
}

/// What a shard has to keep, and how much of it is kept.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// Whether anything is.
    pub on: bool,
    /// Whether the store fails.
    pub failed: bool,
    /// Whether messages were retained, or removed, that the store does not know of, because it failed.
    pub skipped: bool,
    ops: Vec<StoreOp>,
    emitted: u64,
    stored: u64,
    /// The session that is being restored.
    restoring: Option<(SessionId, u32)>,
    /// Sessions with QoS 2 messages that wait for their records to leave, by gate.
    held: VecDeque<(u64, SessionKey)>,
    /// Connections whose output waits for a gate.
    held_conns: Vec<ConnId>,
    /// Those of them that wait for a will alone.
    held_for_wills: Vec<ConnId>,
    forwards: forward::Forwards,
    endings: Slab<keep::Ending>,
}

impl Keeper {
    /// Adds a change.
    pub fn put(&mut self, op: StoreOp) {
        self.emitted += 1;
        self.ops.push(op);
    }

    /// A message of a session does not wait any more; nothing if it is in no store.
    pub fn done(&mut self, id: SessionId, delivery: &Delivery) {
        let (seq, body) = (delivery.seq, Some(delivery.message.id()));
        if seq > 0 {
            self.put(StoreOp::Done { id, seq, body });
        }
    }

    /// The number of the last change.
    pub fn emitted(&self) -> u64 {
        self.emitted
    }

    /// The number up to which changes are confirmed.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Whether some changes are not confirmed.
    pub fn pending(&self) -> bool {
        self.emitted > self.stored
    }

    /// Whether something waits for records, or for their way to other shards.
    pub fn unfinished(&self) -> bool {
        !self.held.is_empty()
            || !self.held_conns.is_empty()
            || !self.forwards.is_empty()
            || !self.endings.is_empty()
    }

    /// The changes of this turn.
    pub fn take(&mut self) -> Option<Output> {
        let ops = core::mem::take(&mut self.ops);
        (!ops.is_empty()).then_some(Output::Store { upto: self.emitted, ops })
    }
}

/// A message of [`Outgoing::next`](crate::session::Outgoing::next) that may not leave yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub gate: u64,
    pub packet_id: u16,
    pub dup: bool,
}

/// How many messages of a session's queue are held in memory before the rest is left in the store.
pub const HEAD: usize = 64;

/// Messages that were asked for by [`StoreOp::Load`].
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Whose, as in the question.
    pub key: SessionKey,
    /// They, in order. Fewer than were wanted: there are no more.
    pub deliveries: Vec<Delivery>,
}

impl StoreOp {
    /// The message an operation refers to: stored once, whoever waits for it.
    pub fn body(&self) -> Option<&Message> {
        match self {
            StoreOp::Enqueue { delivery, .. } => Some(&delivery.message),
            StoreOp::Retain { message, .. } | StoreOp::Forward { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// The name of a body in the store: that of its message.
pub type BodyId = MessageId;
