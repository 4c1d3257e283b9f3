//! The form in which the store keeps things: keys and values as bytes, of format [`FORMAT`].
//!
//! | key | value |
//! |---|---|
//! | `b` origin count | a message, once, whoever waits for it |
//! | `r` slot topic | which message is retained there |
//! | `f` from to number | a message that one shard of this run sends to another, and the shared subscription it is for |
//! | `m` from to | the number of the last one that was taken in |
//! | `s` slot origin count `0` | what is said of a session |
//! | `s` slot origin count `1` filter | a subscription of it |
//! | `s` slot origin count `2` packet id | a QoS 2 message from its client that is not released |
//! | `s` slot origin count `3` place | the packet id of a message that is being sent to it |
//! | `s` slot origin count `4` place | a message that waits for it; gone when its receiver has it |
//!
//! Numbers are big-endian, so that keys sort as what they name: all of one session stands together, and its queue in order.
//! Moments are written as what was left of them and the wall time of writing. A wall clock that goes back costs nothing but time:
//! what was left then is left now.
//!
//! Reading checks every length; what does not fit is [`Damaged`], never a panic. Checksums are the store's own.

use super::{BodyId, SessionId, SessionState, StoredSubscription, StoredWill};
use crate::codec::{QoS, SubscribeOptions};
use crate::message::Message;
use crate::session::{Delivery, SubscriptionIds};
use crate::time::Instant;
use crate::topic::{TopicFilter, TopicName};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// The number of this format. A store of another one is not read.
pub const FORMAT: u32 = 1;

/// What time it is, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The driver's monotonic clock.
    pub now: Instant,
    /// Microseconds of wall time since 1970.
    pub wall_us: u64,
}

/// A message in a session's queue, as its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Which message.
    pub body: BodyId,
    /// The quality of service to deliver it with, 1 or 2.
    pub qos: QoS,
    /// The RETAIN flag to send.
    pub retain: bool,
    /// The shared subscription that chose the receiver, 0 for none.
    pub share: u32,
    /// [`Delivery::size`].
    pub size: u32,
    /// The subscription identifiers to send.
    pub ids: SubscriptionIds,
}

/// One record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A message.
    Body(BodyId, Message),
    /// What is retained for a topic.
    Retained {
        /// The slot of the topic.
        slot: u16,
        /// The topic.
        topic: Box<str>,
        /// Which message.
        body: BodyId,
    },
    /// A message on its way from shard to shard: the two, its number, which message, and the shared subscription it is for.
    Forward((u16, u16), u64, BodyId, Option<Box<str>>),
    /// The number of the last message from shard to shard that was taken in.
    Mark((u16, u16), u64),
    /// A session.
    Session(SessionId, Box<SessionState>),
    /// A subscription of a session, with its whole filter.
    Subscription(SessionId, Box<str>, StoredSubscription),
    /// A packet id of a QoS 2 message that is not released.
    Received(SessionId, u16),
    /// A message that is being sent to a session, by its place: its packet id. Without a [`Record::Queued`] of that
    /// place its receiver has it, and only PUBCOMP is missing.
    InFlight(SessionId, u64, u16),
    /// A message in a session's queue, and its place.
    Queued(SessionId, u64, Queued),
}

/// A record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(&'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Damaged {}

impl Clock {
    fn put(self, at: Instant, out: &mut Vec<u8>) {
        let left = match at {
            Instant::NEVER => u64::MAX,
            at => at.micros().saturating_sub(self.now.micros()),
        };
        out.extend_from_slice(&left.to_be_bytes());
    }

    fn take(self, left: u64, written_us: u64) -> Instant {
        if left == u64::MAX {
            return Instant::NEVER;
        }
        let elapsed = self.wall_us.saturating_sub(written_us);
        self.now + Duration::from_micros(left.saturating_sub(elapsed))
    }
}

/// The key of a message.
pub fn body_key(id: BodyId) -> [u8; 11] {
    let mut key = [b'b'; 11];
    key[1..3].copy_from_slice(&id.origin.to_be_bytes());
    key[3..].copy_from_slice(&id.count.to_be_bytes());
    key
}

/// The key of the retained message of a topic.
pub fn retained_key(slot: u16, topic: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + topic.len());
    key.push(b'r');
    key.extend_from_slice(&slot.to_be_bytes());
    key.extend_from_slice(topic.as_bytes());
    key
}

/// The key of a message on its way from shard to shard.
pub fn forward_key((from, to): (u16, u16), number: u64) -> [u8; 13] {
    let mut key = [b'f'; 13];
    key[1..3].copy_from_slice(&from.to_be_bytes());
    key[3..5].copy_from_slice(&to.to_be_bytes());
    key[5..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The key of the number of the last one that was taken in.
pub fn mark_key((from, to): (u16, u16)) -> [u8; 5] {
    let mut key = [b'm'; 5];
    key[1..3].copy_from_slice(&from.to_be_bytes());
    key[3..].copy_from_slice(&to.to_be_bytes());
    key
}

/// What the keys of everything of one session begin with.
pub fn session_prefix(id: SessionId) -> [u8; 13] {
    let mut key = [b's'; 13];
    key[1..3].copy_from_slice(&id.slot.to_be_bytes());
    key[3..5].copy_from_slice(&id.origin.to_be_bytes());
    key[5..].copy_from_slice(&id.count.to_be_bytes());
    key
}

fn session_part(id: SessionId, part: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(14 + rest.len());
    key.extend_from_slice(&session_prefix(id));
    key.push(part);
    key.extend_from_slice(rest);
    key
}

/// The key of what is said of a session.
pub fn state_key(id: SessionId) -> Vec<u8> {
    session_part(id, 0, &[])
}

/// The key of a subscription.
pub fn subscription_key(id: SessionId, filter: &str) -> Vec<u8> {
    session_part(id, 1, filter.as_bytes())
}

/// The key of a QoS 2 message that is not released.
pub fn received_key(id: SessionId, packet_id: u16) -> Vec<u8> {
    session_part(id, 2, &packet_id.to_be_bytes())
}

/// The key of the packet id of a message in a queue.
pub fn in_flight_key(id: SessionId, seq: u64) -> Vec<u8> {
    session_part(id, 3, &seq.to_be_bytes())
}

/// The key of a message in a queue. `seq` 0 is before all of them.
pub fn queued_key(id: SessionId, seq: u64) -> Vec<u8> {
    session_part(id, 4, &seq.to_be_bytes())
}

/// Appends the value of a message.
pub fn put_body(message: &Message, clock: Clock, out: &mut Vec<u8>) {
    clock.put(message.expires_at(), out);
    out.extend_from_slice(&clock.wall_us.to_be_bytes());
    out.extend_from_slice(message.bytes_after_expiry());
}

/// Appends the value of a retained message's record.
pub fn put_retained(body: BodyId, out: &mut Vec<u8>) {
    put_body_id(body, out);
}

/// Appends the value of a message on its way from shard to shard.
pub fn put_forward(body: BodyId, share: Option<&str>, out: &mut Vec<u8>) {
    put_body_id(body, out);
    out.extend_from_slice(share.unwrap_or_default().as_bytes());
}

/// Appends the value of the number of the last one that was taken in.
pub fn put_mark(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_body_id(body: BodyId, out: &mut Vec<u8>) {
    out.extend_from_slice(&body.origin.to_be_bytes());
    out.extend_from_slice(&body.count.to_be_bytes());
}

/// Appends the value of a session's state.
pub fn put_state(state: &SessionState, clock: Clock, out: &mut Vec<u8>) {
    clock.put(state.expires_at, out);
    clock.put(state.will_at, out);
    out.extend_from_slice(&clock.wall_us.to_be_bytes());
    out.extend_from_slice(&state.expiry_s.to_be_bytes());
    out.extend_from_slice(&state.listener.to_be_bytes());
    put_text(&state.client_id, out);
    match &state.username {
        Some(username) => {
            out.push(1);
            put_text(username, out);
        }
        None => out.push(0),
    }
    match &state.will {
        Some(will) => {
            out.push(1);
            out.extend_from_slice(&will.delay_s.to_be_bytes());
            // A span from the origin, not a moment: it is written as it is.
            out.extend_from_slice(&will.message.expires_at().micros().to_be_bytes());
            out.extend_from_slice(will.message.bytes_after_expiry());
        }
        None => out.push(0),
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends the value of a subscription.
pub fn put_subscription(subscription: &StoredSubscription, out: &mut Vec<u8>) {
    let options = subscription.options;
    out.push(
        options.qos as u8 | u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3,
    );
    out.extend_from_slice(&subscription.id.to_be_bytes());
    out.extend_from_slice(&subscription.share.to_be_bytes());
}

/// Appends the value of a packet id.
pub fn put_in_flight(packet_id: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&packet_id.to_be_bytes());
}

/// Appends the value of a message in a queue.
pub fn put_queued(queued: &Queued, out: &mut Vec<u8>) {
    put_body_id(queued.body, out);
    out.push(queued.qos as u8 | u8::from(queued.retain) << 2);
    out.extend_from_slice(&queued.share.to_be_bytes());
    out.extend_from_slice(&queued.size.to_be_bytes());
    for id in queued.ids.as_slice() {
        out.extend_from_slice(&id.to_be_bytes());
    }
}

impl Queued {
    /// The record of a delivery that was not sent yet.
    pub fn new(delivery: &Delivery) -> Queued {
        Queued {
            body: delivery.message.id(),
            qos: delivery.qos,
            retain: delivery.retain,
            share: delivery.share,
            size: u32::try_from(delivery.size()).unwrap_or(u32::MAX),
            ids: delivery.ids.clone(),
        }
    }

    /// The delivery, with its place and its message.
    pub fn delivery(&self, seq: u64, message: Message) -> Delivery {
        Delivery {
            message,
            qos: self.qos,
            retain: self.retain,
            ids: self.ids.clone(),
            share: self.share,
            seq,
            body: 0,
        }
    }
}

/// Reads one record.
pub fn read(key: &[u8], value: &[u8], clock: Clock) -> Result<Record, Damaged> {
    let mut key = Reader(key);
    let mut value = Reader(value);
    let record = match key.u8()? {
        b'b' => {
            let id = BodyId { origin: key.u16()?, count: key.u64()? };
            key.end()?;
            let (left, written) = (value.u64()?, value.u64()?);
            let message = value.message(clock.take(left, written))?;
            if message.id() != id {
                return Err(Damaged("a message lies under another one's key"));
            }
            Record::Body(id, message)
        }
        b'r' => {
            let (slot, topic) = (key.u16()?, key.rest_text()?);
            TopicName::parse(topic).map_err(|_| Damaged("not a topic name"))?;
            let record = Record::Retained { slot, topic: topic.into(), body: value.body_id()? };
            value.end()?;
            record
        }
        b'f' => {
            let (link, number) = ((key.u16()?, key.u16()?), key.u64()?);
            let (body, share) = (value.body_id()?, value.rest_text()?);
            if !share.is_empty() {
                TopicFilter::parse(share).map_err(|_| Damaged("not a topic filter"))?;
            }
            key.end()?;
            Record::Forward(link, number, body, (!share.is_empty()).then(|| share.into()))
        }
        b'm' => {
            let record = Record::Mark((key.u16()?, key.u16()?), value.u64()?);
            key.end()?;
            value.end()?;
            record
        }
        b's' => {
            let id = SessionId { slot: key.u16()?, origin: key.u16()?, count: key.u64()? };
            let record = match key.u8()? {
                0 => Record::Session(id, Box::new(value.state(clock)?)),
                1 => {
                    let filter = key.rest_text()?;
                    TopicFilter::parse(filter).map_err(|_| Damaged("not a topic filter"))?;
                    Record::Subscription(id, filter.into(), value.subscription()?)
                }
                2 => Record::Received(id, key.u16()?),
                3 => Record::InFlight(id, key.u64()?, value.u16()?),
                4 => Record::Queued(id, key.u64()?, value.queued()?),
                _ => return Err(Damaged("there is no such part of a session")),
            };
            key.end()?;
            value.end()?;
            record
        }
        _ => return Err(Damaged("there is no such kind of record")),
    };
    Ok(record)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Damaged("the record is cut"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.bytes(N)?.try_into().map_err(|_| Damaged("the record is cut"))
    }

    fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, Damaged> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn flag(&mut self) -> Result<bool, Damaged> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged("neither yes nor no")),
        }
    }

    fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged("the record is longer than it should be")) }
    }

    fn rest_text(&mut self) -> Result<&'a str, Damaged> {
        let bytes = core::mem::take(&mut self.0);
        core::str::from_utf8(bytes).map_err(|_| Damaged("not UTF-8"))
    }

    fn text(&mut self) -> Result<&'a str, Damaged> {
        let len = self.u32()? as usize;
        core::str::from_utf8(self.bytes(len)?).map_err(|_| Damaged("not UTF-8"))
    }

    fn body_id(&mut self) -> Result<BodyId, Damaged> {
        Ok(BodyId { origin: self.u16()?, count: self.u64()? })
    }

    fn qos(bits: u8) -> Result<QoS, Damaged> {
        QoS::from_u8(bits & 3).ok_or(Damaged("there is no QoS 3"))
    }

    fn message(&mut self, expires_at: Instant) -> Result<Message, Damaged> {
        let bytes = core::mem::take(&mut self.0);
        Message::from_bytes_after_expiry(expires_at, bytes).ok_or(Damaged("not a message"))
    }

    fn state(&mut self, clock: Clock) -> Result<SessionState, Damaged> {
        let (expires, will, written) = (self.u64()?, self.u64()?, self.u64()?);
        let expiry_s = self.u32()?;
        let listener = self.u16()?;
        let client_id = self.text()?.into();
        let username = if self.flag()? { Some(self.text()?.into()) } else { None };
        let stored_will = if self.flag()? {
            let delay_s = self.u32()?;
            let span = Instant::from_micros(self.u64()?);
            Some(StoredWill { message: self.message(span)?, delay_s })
        } else {
            None
        };
        Ok(SessionState {
            client_id,
            username,
            listener,
            expiry_s,
            expires_at: clock.take(expires, written),
            will: stored_will,
            will_at: clock.take(will, written),
        })
    }

    fn subscription(&mut self) -> Result<StoredSubscription, Damaged> {
        let bits = self.u8()?;
        let options = SubscribeOptions {
            no_local: bits & 4 != 0,
            retain_as_published: bits & 8 != 0,
            ..SubscribeOptions::new(Self::qos(bits)?)
        };
        Ok(StoredSubscription { options, id: self.u32()?, share: self.u32()? })
    }

    fn queued(&mut self) -> Result<Queued, Damaged> {
        let body = self.body_id()?;
        let bits = self.u8()?;
        let (share, size) = (self.u32()?, self.u32()?);
        let mut ids = SubscriptionIds::None;
        while !self.0.is_empty() {
            ids.push(self.u32()?);
        }
        Ok(Queued { body, qos: Self::qos(bits)?, retain: bits & 4 != 0, share, size, ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageId, Publication};
    use alloc::vec;

    const ID: SessionId = SessionId { slot: 513, origin: 3, count: 1 << 41 };
    const CLOCK: Clock = Clock { now: Instant::from_secs(100), wall_us: 1_000_000_000 };

    fn message(expires_at: Instant) -> Message {
        Publication {
            topic: "a/b",
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: &[1, 1],
            payload: b"payload",
            expires_at,
            id: MessageId { origin: 3, count: 77 },
        }
        .to_message(&mut Vec::new())
    }

    /// One of each, as written at [`CLOCK`].
    fn all() -> Vec<(Vec<u8>, Vec<u8>, Record)> {
        let mut all = Vec::new();
        let mut add = |key: Vec<u8>, put: &dyn Fn(&mut Vec<u8>), record| {
            let mut value = Vec::new();
            put(&mut value);
            all.push((key, value, record));
        };
        let body = message(Instant::from_secs(160));
        add(
            body_key(body.id()).into(),
            &|o| put_body(&body, CLOCK, o),
            Record::Body(body.id(), body.clone()),
        );
        let retained = Record::Retained { slot: 9, topic: "t/é".into(), body: body.id() };
        add(retained_key(9, "t/é"), &|o| put_retained(body.id(), o), retained);
        for share in [None, Some("$share/g/a")] {
            let record = Record::Forward((1, 2), 3, body.id(), share.map(Box::from));
            add(forward_key((1, 2), 3).into(), &|o| put_forward(body.id(), share, o), record);
        }
        add(mark_key((1, 2)).into(), &|o| put_mark(9, o), Record::Mark((1, 2), 9));
        let state = SessionState {
            client_id: "client".into(),
            username: Some("".into()),
            listener: 2,
            expiry_s: 300,
            expires_at: Instant::from_secs(400),
            will: Some(StoredWill { message: message(Instant::from_secs(5)), delay_s: 7 }),
            will_at: Instant::NEVER,
        };
        let plain = SessionState { username: None, will: None, ..state.clone() };
        for state in [state, plain] {
            let record = Record::Session(ID, Box::new(state.clone()));
            add(state_key(ID), &|o| put_state(&state, CLOCK, o), record);
        }
        let options = SubscribeOptions {
            no_local: true,
            retain_as_published: true,
            ..SubscribeOptions::new(QoS::AtLeastOnce)
        };
        let subscription = StoredSubscription { options, id: 268_435_455, share: 4 };
        let record = Record::Subscription(ID, "$share/g/a/+".into(), subscription);
        add(subscription_key(ID, "$share/g/a/+"), &|o| put_subscription(&subscription, o), record);
        add(received_key(ID, 65_535), &|_| {}, Record::Received(ID, 65_535));
        add(in_flight_key(ID, 5), &|o| put_in_flight(9, o), Record::InFlight(ID, 5, 9));
        let mut ids = SubscriptionIds::None;
        for count in 0..3 {
            let queued = Queued {
                body: body.id(),
                qos: QoS::ExactlyOnce,
                retain: true,
                share: 1,
                size: 40,
                ids: ids.clone(),
            };
            add(queued_key(ID, 5), &|o| put_queued(&queued, o), Record::Queued(ID, 5, queued.clone()));
            ids.push(count + 1);
        }
        all
    }

    #[test]
    fn what_is_written_is_read() {
        for (key, value, record) in all() {
            assert_eq!(read(&key, &value, CLOCK), Ok(record));
        }
    }

    #[test]
    fn damage_is_told_and_does_no_harm() {
        for (key, value, _) in all() {
            for cut in 0..value.len() {
                // A message may end anywhere in its payload; that is for the checksum to see.
                let _ = read(&key, &value[..cut], CLOCK);
            }
            for at in 0..value.len() {
                for bit in 0..8 {
                    let mut value = value.clone();
                    value[at] ^= 1 << bit;
                    let _ = read(&key, &value, CLOCK);
                }
            }
            let fixed = if key[0] == b'r' { 3 } else { 14 };
            for cut in 0..key.len().min(fixed) {
                assert!(read(&key[..cut], &value, CLOCK).is_err());
            }
        }
        assert!(read(&[], &[], CLOCK).is_err());
        assert!(read(b"x", &[], CLOCK).is_err());
    }

    #[test]
    fn time_passes_while_the_broker_is_down() {
        let body = message(Instant::from_secs(160));
        let mut value = Vec::new();
        put_body(&body, CLOCK, &mut value);
        let after = |secs: i64| {
            let wall_us = CLOCK.wall_us.checked_add_signed(secs * 1_000_000).unwrap();
            match read(&body_key(body.id()), &value, Clock { now: Instant::from_secs(7), wall_us }) {
                Ok(Record::Body(_, message)) => message.expires_at(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(after(20), Instant::from_secs(7 + 40));
        assert_eq!(after(60), Instant::from_secs(7));
        assert_eq!(after(1_000_000), Instant::from_secs(7));
        assert_eq!(after(-900), Instant::from_secs(7 + 60), "a clock that went back");
    }

    #[test]
    fn keys_sort_by_session_and_place() {
        let next = SessionId { count: ID.count + 1, ..ID };
        let keys = vec![
            state_key(ID),
            subscription_key(ID, "a"),
            subscription_key(ID, "b"),
            received_key(ID, 255),
            received_key(ID, 256),
            in_flight_key(ID, 7),
            queued_key(ID, 255),
            queued_key(ID, 256),
            state_key(next),
        ];
        assert!(keys.is_sorted());
        assert!(keys[..8].iter().all(|k| k.starts_with(&session_prefix(ID))));
    }
}
