//! From what shards say to what changes in the store.

use super::base::BaseError;
use super::layer::Key;
use super::view::{View, read, seal};
use hikyaku_proto::broker::store::record::{self, Clock, Queued, Record};
use hikyaku_proto::broker::store::{BodyId, Loaded, SessionId, StoreOp};
use hikyaku_proto::message::Message;
use hikyaku_proto::session::Delivery;
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;

/// How much of an ended session is removed at a time.
const SLICE: usize = 1000;

/// The records, and what is known of them beside.
#[derive(Debug)]
pub(super) struct Fold {
    pub view: View,
    /// How many records name a message, where more than one does.
    references: HashMap<(u16, u64), u32>,
    /// For each shard, up to which count messages were seen in this run: those beyond are new.
    newest: HashMap<u16, u64>,
    /// The first count of this run.
    first: u64,
    /// Sessions that ended, with records left.
    ended: VecDeque<SessionId>,
    /// Whether retained messages are kept.
    retained: bool,
}

impl Fold {
    pub fn new(view: View, run: u32, retained: bool) -> Fold {
        Fold {
            view,
            references: HashMap::new(),
            newest: HashMap::new(),
            first: u64::from(run) << 40,
            ended: VecDeque::new(),
            retained,
        }
    }

    /// What a recovery has counted: messages that more than one record names.
    pub fn count(&mut self, id: (u16, u64), references: u32) {
        if references > 1 {
            self.references.insert(id, references);
        }
    }

    /// Takes a change in. The answer to a [`StoreOp::Load`] is returned.
    pub fn apply(&mut self, op: &StoreOp, clock: Clock) -> Result<Option<Loaded>, BaseError> {
        match *op {
            StoreOp::Session { id, ref state } => {
                self.put(record::state_key(id), false, |out| record::put_state(state, clock, out));
            }
            StoreOp::SessionEnd { id } => {
                // Without this one the others say nothing, to a restart as well.
                self.remove(record::state_key(id));
                self.ended(id);
            }
            StoreOp::Subscribe { id, ref filter, ref subscription } => {
                let key = record::subscription_key(id, filter);
                self.put(key, false, |out| record::put_subscription(subscription, out));
            }
            StoreOp::Unsubscribe { id, ref filter } => self.remove(record::subscription_key(id, filter)),
            StoreOp::Enqueue { id, ref delivery } => {
                self.refer(&delivery.message, clock)?;
                let key = record::queued_key(id, delivery.seq);
                self.put(key, true, |out| record::put_queued(&Queued::new(delivery), out));
            }
            StoreOp::Sent { id, seq, packet_id } => self.put_in_flight(id, seq, packet_id),
            StoreOp::Released { id, seq, packet_id, body } => {
                self.put_in_flight(id, seq, packet_id);
                self.remove(record::queued_key(id, seq));
                self.drop_body(body);
            }
            StoreOp::Done { id, seq, body } => {
                self.remove(record::in_flight_key(id, seq));
                if let Some(body) = body {
                    self.remove(record::queued_key(id, seq));
                    self.drop_body(body);
                }
            }
            StoreOp::Received { id, packet_id } => {
                self.put(record::received_key(id, packet_id), false, |_| {})
            }
            StoreOp::Completed { id, packet_id } => self.remove(record::received_key(id, packet_id)),
            StoreOp::Retain { slot, ref message } if self.retained => {
                let key = record::retained_key(slot, message.topic());
                let before = self.retained_body(&key, clock)?;
                self.refer(message, clock)?;
                self.put(key, false, |out| record::put_retained(message.id(), out));
                before.into_iter().for_each(|body| self.drop_body(body));
            }
            StoreOp::Forget { slot, ref topic } if self.retained => {
                let key = record::retained_key(slot, topic);
                let before = self.retained_body(&key, clock)?;
                self.remove(key);
                before.into_iter().for_each(|body| self.drop_body(body));
            }
            StoreOp::Forward { link, number, ref message, ref share } => {
                self.refer(message, clock)?;
                let put = |out: &mut Vec<u8>| record::put_forward(message.id(), share.as_deref(), out);
                self.put(record::forward_key(link, number), true, put);
            }
            StoreOp::Forwarded { link, number, body } => {
                self.remove(record::forward_key(link, number));
                self.drop_body(body);
            }
            StoreOp::Mark { link, number } => {
                self.put(record::mark_key(link), false, |out| record::put_mark(number, out));
            }
            StoreOp::Load { id, key, from, count } => {
                let deliveries = self.load(id, from, count as usize, clock)?;
                return Ok(Some(Loaded { key, deliveries }));
            }
            StoreOp::Retain { .. } | StoreOp::Forget { .. } | StoreOp::Rest { .. } => {}
        }
        Ok(None)
    }

    fn put(&mut self, key: impl Into<Key> + AsRef<[u8]>, fresh: bool, put: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::with_capacity(64);
        put(&mut value);
        let value = seal(key.as_ref(), value);
        self.view.group.put(key.into(), value, fresh);
    }

    pub fn remove(&mut self, key: impl Into<Key>) {
        self.view.group.remove(key.into());
    }

    fn put_in_flight(&mut self, id: SessionId, seq: u64, packet_id: u16) {
        // If its message is of this very group, so is all that is said of it.
        let fresh = self.view.group.get(&record::queued_key(id, seq)).is_some_and(|c| c.fresh);
        let key = record::in_flight_key(id, seq);
        self.put(key, fresh, |out| record::put_in_flight(packet_id, out));
    }

    fn refer(&mut self, message: &Message, clock: Clock) -> Result<(), BaseError> {
        let id = message.id();
        let newest = self.newest.entry(id.origin).or_insert(self.first.saturating_sub(1));
        let is_new = id.count > *newest;
        *newest = id.count.max(*newest);
        let key = record::body_key(id);
        if !is_new && self.view.contains(&key)? {
            *self.references.entry((id.origin, id.count)).or_insert(1) += 1;
            return Ok(());
        }
        self.put(key, true, |out| record::put_body(message, clock, out));
        Ok(())
    }

    /// One record less names a message.
    pub fn drop_body(&mut self, id: BodyId) {
        let name = (id.origin, id.count);
        match self.references.get_mut(&name) {
            Some(2) => drop(self.references.remove(&name)),
            Some(n) => *n -= 1,
            None => self.remove(record::body_key(id)),
        }
    }

    fn retained_body(&self, key: &[u8], clock: Clock) -> Result<Option<BodyId>, BaseError> {
        let value = self.view.get(key)?;
        Ok(value.and_then(|value| match read(key, &value, clock) {
            Ok(Record::Retained { body, .. }) => Some(body),
            _ => None,
        }))
    }

    fn load(&self, id: SessionId, from: u64, count: usize, clock: Clock) -> Result<Vec<Delivery>, BaseError> {
        let mut deliveries = Vec::new();
        let mut error = None;
        let keys = record::queued_key(id, from).into()..=record::queued_key(id, u64::MAX).into();
        if count == 0 {
            return Ok(deliveries);
        }
        self.view.visit(keys, |key, value| {
            match read(key, value, clock) {
                Ok(Record::Queued(_, seq, queued)) => match self.view.body(queued.body, clock) {
                    Ok(Some(message)) => deliveries.push(queued.delivery(seq, message)),
                    Ok(None) => log::error!("A message in a queue cannot be read; it is left out."),
                    Err(e) => {
                        error = Some(e);
                        return ControlFlow::Break(());
                    }
                },
                Ok(_) => {}
                Err(e) => log::error!("A message in a queue is left out: {e}."),
            }
            if deliveries.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        error.map_or(Ok(deliveries), Err)
    }

    /// A session has ended and records of it are left.
    pub fn ended(&mut self, id: SessionId) {
        self.ended.push_back(id);
    }

    /// How many sessions that ended have records left.
    pub fn remains(&self) -> usize {
        self.ended.len()
    }

    /// Whether sessions that ended have records left.
    pub fn has_remains(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Removes some of the records of sessions that ended.
    pub fn clear_remains(&mut self, clock: Clock) -> Result<(), BaseError> {
        let Some(&id) = self.ended.front() else { return Ok(()) };
        let mut bodies = Vec::new();
        let mut found: Vec<Key> = Vec::new();
        let prefix = record::session_prefix(id);
        let end = [&prefix[..], &[u8::MAX]].concat();
        self.view.visit(prefix.as_slice().into()..=end.into(), |key, value| {
            if let Ok(Record::Queued(.., queued)) = read(key, value, clock) {
                bodies.push(queued.body);
            }
            found.push(key.into());
            if found.len() < SLICE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if found.len() < SLICE {
            self.ended.pop_front();
        }
        found.into_iter().for_each(|key| self.remove(key));
        bodies.into_iter().for_each(|body| self.drop_body(body));
        Ok(())
    }
}
