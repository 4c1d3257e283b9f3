//! What a shard holds in memory, about, and how much it may.
//!
//! Counted is what clients can make grow: the bodies of messages that wait, each once however many sessions of the shard
//! wait for it; an amount for each place in a queue, session, subscription, retained message and connection; and what is
//! held for a connection: a packet that is not complete, output that its transport has refused, topic aliases. A message
//! that leaves at once is not counted, and so costs nothing here. Not known to a shard are the buffers of TLS and
//! WebSocket, and those of a store.
//!
//! The driver adds up what all shards hold ([`Shard::memory`]) and says how much this one may ([`Input::Memory`](super::Input::Memory)). Beyond
//! that, what is new is refused: messages of QoS 1 and 2, subscriptions, sessions, messages to be retained, large
//! packets; QoS 0 messages to clients that do not keep up are dropped. What was taken in before is delivered.

use super::Shard;
use super::conn::Conn;
use super::io::Holdings;
use crate::message::Message;
use crate::session::{Delivery, Incoming};
use crate::table::Slab;

/// A message's place in a queue, and later in flight.
const DELIVERY: u64 = 144;
/// What a body costs beside its bytes: the counts of its block, its place here.
const BODY: u64 = 48;
const SESSION: u64 = 768;
const SUBSCRIPTION: u64 = 160;
const SHARED_SUBSCRIPTION: u64 = 512;
/// A topic with a retained message: its place in the tree, its levels, the message's block.
const RETAINED: u64 = 192;
const CONNECTION: u64 = 1024;
/// Ids of QoS 2 messages are counted by so many.
const ID_STEP: usize = 64;
/// What may be incomplete of a packet though memory is short.
pub(super) const PARTIAL_MAX: usize = 64 << 10;

/// The account of a shard.
#[derive(Debug)]
pub(super) struct Memory {
    /// What was counted one by one.
    bytes: u64,
    /// What the shard may hold.
    most: u64,
    /// Whether it held as much when that was last looked at.
    short: bool,
    /// The bodies that wait in queues.
    bodies: Slab<Body>,
    /// The one that was counted last, and where its message is: the next receiver most likely gets the same.
    last: Option<(usize, u32)>,
}

#[derive(Debug)]
struct Body {
    /// How many deliveries have it.
    waiting: u32,
    bytes: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { bytes: 0, most: u64::MAX, short: false, bodies: Slab::new(), last: None }
    }
}

impl Memory {
    /// Counts a message that waits from now on.
    pub fn hold(&mut self, delivery: &mut Delivery) {
        let body = match self.last {
            Some((at, body)) if at == delivery.message.address() => body,
            _ => self.hold_body(&delivery.message),
        };
        self.bodies[body].waiting += 1;
        self.bytes += cost(delivery);
        delivery.body = body + 1;
    }

    fn hold_body(&mut self, message: &Message) -> u32 {
        let bytes = u32::try_from(message.size()).unwrap_or(u32::MAX);
        self.bytes += BODY + u64::from(bytes);
        let body = self.bodies.insert(Body { waiting: 0, bytes });
        // As long as it is counted here nothing else can be at its address.
        self.last = Some((message.address(), body));
        body
    }

    /// Counts a message no longer that was [held](Memory::hold).
    pub fn release(&mut self, delivery: &Delivery) {
        let Some(at) = delivery.body.checked_sub(1) else { return };
        let Some(body) = self.bodies.get_mut(at) else { return };
        body.waiting -= 1;
        self.bytes -= cost(delivery);
        if body.waiting == 0 {
            self.bytes -= BODY + u64::from(body.bytes);
            self.bodies.remove(at);
            self.last = self.last.filter(|&(_, last)| last != at);
        }
    }

    /// Changes an amount that was counted as `before`.
    pub fn change(&mut self, before: &mut u64, now: u64) {
        self.bytes = self.bytes - *before + now;
        *before = now;
    }

    /// Whether the shard held as much as it may when that was last looked at: once a turn, and where something new comes.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// What must be nothing when there are no sessions and connections.
    pub fn idle(&self) -> (u64, usize) {
        (self.bytes, self.bodies.len())
    }
}

fn cost(delivery: &Delivery) -> u64 {
    DELIVERY + 4 * delivery.ids.as_slice().len() as u64
}

impl Conn {
    /// What is held for the connection.
    fn cost(&self) -> u64 {
        let link = &self.link;
        let refused = if self.blocked { link.outbox.len() } else { 0 };
        let route = self.route.as_ref().map_or(0, |route| route.size());
        let held = link.framer.buffered() + self.unread + refused + link.alias_bytes() + route;
        CONNECTION + held as u64
    }

    /// Counts what is held for the connection by now.
    pub fn count(&mut self, memory: &mut Memory) {
        let cost = self.cost();
        if cost != self.counted {
            memory.change(&mut self.counted, cost);
        }
    }
}

impl Shard {
    /// How many bytes of memory the shard holds for clients, about. Costs next to nothing to ask.
    pub fn memory(&self) -> u64 {
        self.memory.bytes
            + self.subscriptions.len() as u64 * SUBSCRIPTION
            + self.counters.shared_subscriptions * SHARED_SUBSCRIPTION
            + self.retained.of_clients().1
            + self.retained.len() as u64 * RETAINED
    }

    /// What the shard has of what is limited for all together.
    pub fn holdings(&self) -> Holdings {
        let (retained, retained_bytes) = self.retained.of_clients();
        Holdings { sessions: self.sessions.len() as u64, retained, retained_bytes }
    }

    pub(super) fn on_memory(&mut self, most: u64) {
        self.memory.most = most;
        self.is_short_of_memory();
    }

    /// Whether nothing new is to be taken in.
    pub(super) fn is_short_of_memory(&mut self) -> bool {
        self.memory.short = self.memory() >= self.memory.most;
        self.memory.short
    }

    /// Counts what a session takes up without its queue and subscriptions.
    pub(super) fn count_session(&mut self, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        let names = session.client_id.len() + session.username.as_ref().map_or(0, |name| name.len());
        let will = session.will.as_ref().map_or(0, |will| will.message.size());
        let ids = session.incoming.len() / ID_STEP * ID_STEP * size_of::<u16>();
        self.memory.change(&mut session.counted, SESSION + (names + will + ids) as u64);
    }

    /// Changes the ids of QoS 2 messages that a session has not released, and counts them, now and then.
    pub(super) fn change_ids<T>(&mut self, index: u32, change: impl FnOnce(&mut Incoming) -> T) -> T {
        let incoming = &mut self.sessions[index].incoming;
        let before = incoming.len();
        let result = change(incoming);
        if incoming.len() / ID_STEP != before / ID_STEP {
            self.count_session(index);
        }
        result
    }
}
