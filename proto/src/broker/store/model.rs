//! A store that keeps its records in memory, for tests and simulations: the plainest reading of what the operations mean.
//!
//! It panics where a shard says what cannot be: that is what it is for.

use super::record::{self, Clock, Queued, Record};
use super::{HEAD, Loaded, SessionId, StoreOp};
use crate::broker::{Placement, ShardId};
use crate::message::{Message, MessageId};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// All records, by their keys.
#[derive(Debug, Default)]
pub struct Records {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How many records refer to each body.
    bodies: BTreeMap<(u16, u64), u32>,
}

impl Records {
    /// Each key with its value, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().map(|(key, value)| (&key[..], &value[..]))
    }

    /// How many records there are, bodies among them, and how many of them are bodies.
    pub fn len(&self) -> (usize, usize) {
        (self.records.len(), self.bodies.len())
    }

    fn put(&mut self, key: impl Into<Vec<u8>>, put: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        put(&mut value);
        self.records.insert(key.into(), value);
    }

    fn refer(&mut self, message: &Message, clock: Clock) {
        let id = message.id();
        let count = self.bodies.entry((id.origin, id.count)).or_default();
        *count += 1;
        if *count == 1 {
            self.put(record::body_key(id), |out| record::put_body(message, clock, out));
        }
    }

    fn drop_body(&mut self, id: MessageId) {
        let key = (id.origin, id.count);
        let count = self.bodies.get_mut(&key).expect("a body that is referred to");
        *count -= 1;
        if *count == 0 {
            self.bodies.remove(&key);
            self.records.remove(&record::body_key(id)[..]).expect("a body");
        }
    }

    fn read(&self, key: &[u8], clock: Clock) -> Option<Record> {
        self.records.get(key).map(|value| record::read(key, value, clock).unwrap())
    }

    /// Makes a change; for a [`StoreOp::Load`] what it asks for.
    pub fn apply(&mut self, op: StoreOp, clock: Clock) -> Option<Loaded> {
        match op {
            StoreOp::Session { id, state } => {
                self.put(record::state_key(id), |out| record::put_state(&state, clock, out));
            }
            StoreOp::SessionEnd { id } => {
                for key in self.keys_of(id) {
                    if let Some(Record::Queued(.., queued)) = self.read(&key, clock) {
                        self.drop_body(queued.body);
                    }
                    self.records.remove(&key);
                }
            }
            StoreOp::Subscribe { id, filter, subscription } => {
                self.put(record::subscription_key(id, &filter), |out| {
                    record::put_subscription(&subscription, out);
                });
            }
            StoreOp::Unsubscribe { id, filter } => {
                self.records.remove(&record::subscription_key(id, &filter));
            }
            StoreOp::Enqueue { id, delivery } => {
                assert!(delivery.seq > 0);
                self.refer(&delivery.message, clock);
                let key = record::queued_key(id, delivery.seq);
                self.put(key, |out| record::put_queued(&Queued::new(&delivery), out));
            }
            StoreOp::Sent { id, seq, packet_id } => {
                self.put(record::in_flight_key(id, seq), |out| record::put_in_flight(packet_id, out));
            }
            StoreOp::Released { id, seq, packet_id, body } => {
                self.records.remove(&record::queued_key(id, seq)).expect("a message that waited");
                self.put(record::in_flight_key(id, seq), |out| record::put_in_flight(packet_id, out));
                self.drop_body(body);
            }
            StoreOp::Done { id, seq, body } => {
                self.records.remove(&record::in_flight_key(id, seq));
                let waited = self.records.remove(&record::queued_key(id, seq)).is_some();
                assert_eq!(waited, body.is_some());
                body.into_iter().for_each(|body| self.drop_body(body));
            }
            StoreOp::Received { id, packet_id } => self.put(record::received_key(id, packet_id), |_| {}),
            StoreOp::Completed { id, packet_id } => {
                self.records.remove(&record::received_key(id, packet_id));
            }
            StoreOp::Retain { slot, message } => {
                let key = record::retained_key(slot, message.topic());
                let before = self.read(&key, clock);
                self.refer(&message, clock);
                self.put(key, |out| record::put_retained(message.id(), out));
                if let Some(Record::Retained { body, .. }) = before {
                    self.drop_body(body);
                }
            }
            StoreOp::Forget { slot, topic } => {
                let key = record::retained_key(slot, &topic);
                if let Some(Record::Retained { body, .. }) = self.read(&key, clock) {
                    self.drop_body(body);
                }
                self.records.remove(&key);
            }
            StoreOp::Forward { link, number, message, share } => {
                self.refer(&message, clock);
                self.put(record::forward_key(link, number), |out| {
                    record::put_forward(message.id(), share.as_deref(), out);
                });
            }
            StoreOp::Forwarded { link, number, body } => {
                self.records.remove(&record::forward_key(link, number)[..]).expect("a forward");
                self.drop_body(body);
            }
            StoreOp::Mark { link, number } => {
                self.put(record::mark_key(link), |out| record::put_mark(number, out));
            }
            StoreOp::Load { id, key, from, count } => {
                let deliveries = self
                    .records
                    .range(record::queued_key(id, from)..=record::queued_key(id, u64::MAX))
                    .take(count as usize)
                    .map(|(key, value)| match record::read(key, value, clock) {
                        Ok(Record::Queued(_, seq, queued)) => {
                            queued.delivery(seq, self.body(queued.body, clock))
                        }
                        other => panic!("{other:?}"),
                    })
                    .collect();
                return Some(Loaded { key, deliveries });
            }
            StoreOp::Rest { .. } => panic!("only said at a restart"),
        }
        None
    }

    fn body(&self, id: MessageId, clock: Clock) -> Message {
        match self.read(&record::body_key(id), clock) {
            Some(Record::Body(_, message)) => message,
            other => panic!("{other:?}"),
        }
    }

    /// What was on its way between shards and is not known to have arrived: for whom, and of which shared
    /// subscription. Forgets all of it.
    pub fn take_forwards(&mut self, clock: Clock) -> Vec<(ShardId, Message, Option<Box<str>>)> {
        let mut marks = BTreeMap::new();
        let mut all = Vec::new();
        for (key, value) in &self.records {
            match record::read(key, value, clock).unwrap() {
                Record::Mark(link, number) => drop(marks.insert(link, number)),
                Record::Forward(link, number, body, share) => all.push((link, number, body, share)),
                _ => {}
            }
        }
        self.records.retain(|key, _| !matches!(key[0], b'f' | b'm'));
        let mut lost = Vec::new();
        for (link, number, body, share) in all {
            if marks.get(&link).is_none_or(|mark| *mark < number) {
                lost.push((link.1, self.body(body, clock), share));
            }
            self.drop_body(body);
        }
        lost
    }

    fn keys_of(&self, id: SessionId) -> Vec<Vec<u8>> {
        let prefix = record::session_prefix(id);
        let all = self.records.range(prefix.to_vec()..).map(|(key, _)| key);
        all.take_while(|key| key.starts_with(&prefix)).cloned().collect()
    }

    /// Everything, as a restart hands it in: the shard each is for, and what.
    pub fn restore(&self, placement: &Placement, clock: Clock) -> Vec<(ShardId, StoreOp)> {
        let mut all = Vec::new();
        let (mut home, mut in_flight) = (0, BTreeMap::new());
        let mut rest: Option<StoreOp> = None;
        let mut unsent = 0;
        for (key, value) in &self.records {
            let record = record::read(key, value, clock).unwrap();
            if !matches!(record, Record::Queued(..)) {
                all.extend(rest.take().map(|rest| (home, rest)));
            }
            match record {
                Record::Body(..) | Record::Forward(..) | Record::Mark(..) => {}
                Record::Retained { slot, topic, body } => {
                    let message = self.body(body, clock);
                    assert_eq!(message.topic(), &*topic);
                    all.push((placement.shard(topic.as_bytes()), StoreOp::Retain { slot, message }));
                }
                Record::Session(id, state) => {
                    home = placement.shard(state.client_id.as_bytes());
                    in_flight.clear();
                    unsent = 0;
                    all.push((home, StoreOp::Session { id, state }));
                }
                Record::Subscription(id, filter, subscription) => {
                    all.push((home, StoreOp::Subscribe { id, filter, subscription }));
                }
                Record::Received(id, packet_id) => all.push((home, StoreOp::Received { id, packet_id })),
                Record::InFlight(id, seq, packet_id) => {
                    if self.records.contains_key(&record::queued_key(id, seq)) {
                        in_flight.insert(seq, packet_id);
                    } else {
                        let body = MessageId::default();
                        all.push((home, StoreOp::Released { id, seq, packet_id, body }));
                    }
                }
                Record::Queued(id, seq, queued) => {
                    let sent = in_flight.get(&seq);
                    unsent += usize::from(sent.is_none());
                    if unsent > HEAD {
                        match &mut rest {
                            Some(StoreOp::Rest { last, count, bytes, .. }) => {
                                *last = seq;
                                *count += 1;
                                *bytes += u64::from(queued.size);
                            }
                            _ => {
                                let bytes = queued.size.into();
                                rest = Some(StoreOp::Rest { id, from: seq, last: seq, count: 1, bytes });
                            }
                        }
                        continue;
                    }
                    let delivery = queued.delivery(seq, self.body(queued.body, clock));
                    all.push((home, StoreOp::Enqueue { id, delivery }));
                    all.extend(sent.map(|&packet_id| (home, StoreOp::Sent { id, seq, packet_id })));
                }
            }
        }
        all.extend(rest.map(|rest| (home, rest)));
        all
    }
}
