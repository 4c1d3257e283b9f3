//! QoS 1 and 2, both ways: which packet ids are in use, what is to be sent again, what still waits.
//!
//! Messages in flight are kept in the order they were first sent, so their ids ascend (modulo 2^16) from
//! the front, and an id is found by binary search. An id that is done leaves a mark until the
//! front reaches it. If the oldest message is not acknowledged while 65,534 later ones are, sending stops:
//! the next id would be in use.

use crate::codec::{QoS, ReasonCode};
use crate::message::Message;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The subscription identifiers a delivered message carries (5.0). Most carry none or one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::box_collection, reason = "there is one of these in every message that waits")]
pub enum SubscriptionIds {
    /// No matching subscription has one.
    #[default]
    None,
    /// One has.
    One(u32),
    /// Several overlapping ones have.
    Many(Box<Vec<u32>>),
}

impl SubscriptionIds {
    /// The identifiers.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            SubscriptionIds::None => &[],
            SubscriptionIds::One(id) => core::slice::from_ref(id),
            SubscriptionIds::Many(ids) => ids,
        }
    }

    /// Adds one; 0 stands for none.
    pub fn push(&mut self, id: u32) {
        if id == 0 {
            return;
        }
        *self = match core::mem::take(self) {
            SubscriptionIds::None => SubscriptionIds::One(id),
            SubscriptionIds::One(first) => SubscriptionIds::Many(Box::new(alloc::vec![first, id])),
            SubscriptionIds::Many(mut ids) => {
                ids.push(id);
                SubscriptionIds::Many(ids)
            }
        };
    }
}

/// A message for one receiver, with what was decided for that receiver.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The quality of service to deliver it with. At 0 it waits in the queue and is never in flight.
    pub qos: QoS,
    /// The RETAIN flag to send.
    pub retain: bool,
    /// The subscription identifiers to send.
    pub ids: SubscriptionIds,
    /// The shared subscription that chose this receiver, 0 for none: a number of the owner's.
    pub share: u32,
    /// Its place in the store, 0 if it is in none.
    pub seq: u64,
    /// Where its owner counts the memory it takes up, 0 if it does not.
    pub body: u32,
}

impl Delivery {
    /// How many bytes it takes up.
    pub fn size(&self) -> u64 {
        (self.message.size() + 4 * self.ids.as_slice().len()) as u64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// PUBLISH sent, waiting for PUBACK or PUBREC.
    Published,
    /// PUBREL sent, waiting for PUBCOMP.
    Released,
    /// Finished; the entry waits for those before it.
    Done,
}

#[derive(Clone, Debug)]
struct InFlight {
    packet_id: u16,
    stage: Stage,
    qos: QoS,
    /// Whether its PUBLISH may have reached a transport.
    sent: bool,
    /// Its place in the store, 0 if it is in none.
    seq: u64,
    /// `None` from PUBREC on: the receiver has the message.
    delivery: Option<Delivery>,
}

/// How much may be on its way to the peer at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many messages: the peer's Receive Maximum, or less.
    pub messages: u16,
    /// As long as fewer bytes of payload are on their way, one more message may leave, however large.
    pub bytes: u64,
}

/// What to put on the wire next.
#[derive(Debug)]
pub enum ToSend<'a> {
    /// A PUBLISH.
    Publish {
        /// Its packet id; 0 at QoS 0: it is to be [discarded](Outgoing::discard) when it was sent.
        packet_id: u16,
        /// Whether it was sent on an earlier connection.
        dup: bool,
        /// Whether it has just got its packet id.
        first: bool,
        /// What to send.
        delivery: &'a Delivery,
    },
    /// A PUBREL, again.
    PubRel {
        /// Its packet id.
        packet_id: u16,
    },
}

/// What an acknowledgement did.
#[derive(Debug)]
pub enum Acked {
    /// The message is done.
    Done {
        /// Its place in the store, 0 if it is in none.
        seq: u64,
        /// The message, if it was still kept.
        delivery: Option<Delivery>,
    },
    /// The receiver has the message: send PUBREL.
    Release {
        /// The message, unless its receiver had it before.
        delivery: Option<Delivery>,
    },
    /// A message in flight has this id, and this is not the acknowledgement it waits for.
    Wrong,
    /// No message in flight has this id.
    Unknown,
}

/// The end of a queue, which is in the store alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// The place of its first message.
    pub from: u64,
    /// How many messages it has.
    pub count: u64,
    /// The sum of their sizes.
    pub bytes: u64,
    /// Whether some have been asked for.
    pub asked: bool,
}

/// Messages on their way out: in flight, then queued, then the rest that is in the store alone.
#[derive(Debug, Default)]
#[allow(clippy::box_collection, reason = "there is one of these in every session")]
pub struct Outgoing {
    last_id: u16,
    /// How many entries in flight, from the front, have been sent on this connection.
    sent: usize,
    /// How many of those are not done.
    on_wire: u32,
    /// How many bytes of payload those hold that the peer has not confirmed to have.
    on_wire_bytes: u64,
    /// How many in flight are not done.
    live: u32,
    in_flight: VecDeque<InFlight>,
    queue: VecDeque<Delivery>,
    queue_bytes: u64,
    /// How many of them are of QoS 0.
    queue_qos0: u32,
    /// The one of QoS 0 that is being sent.
    passing: Option<Box<Delivery>>,
    /// What follows in the store.
    rest: Option<Box<Rest>>,
    /// Ids in use by SUBSCRIBE and UNSUBSCRIBE (clients only).
    reserved: Option<Box<Vec<u16>>>,
}

impl Outgoing {
    /// Whether nothing is in flight or queued.
    pub fn is_empty(&self) -> bool {
        self.live == 0 && self.queue.is_empty() && self.rest.is_none()
    }

    /// How many messages are in flight.
    pub fn in_flight(&self) -> usize {
        self.live as usize
    }

    /// How many messages are queued behind those in flight.
    pub fn queued(&self) -> usize {
        self.queue.len() + self.rest.as_ref().map_or(0, |r| r.count as usize)
    }

    /// How many bytes the queued messages take up, wherever they are.
    pub fn queued_bytes(&self) -> u64 {
        self.queue_bytes + self.rest.as_ref().map_or(0, |r| r.bytes)
    }

    /// How many bytes those in flight take up, as far as they may have to be sent again.
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight.iter().filter_map(|entry| entry.delivery.as_ref()).map(Delivery::size).sum()
    }

    /// Queues a message; [`Outgoing::next`] tells when to send it. The caller holds the limits.
    pub fn push(&mut self, delivery: Delivery) {
        self.queue_bytes += delivery.size();
        self.queue_qos0 += u32::from(delivery.qos == QoS::AtMostOnce);
        self.queue.push_back(delivery);
    }

    /// Whether a message of QoS 0 may be queued: later ones must not overtake it.
    pub fn queues_qos0(&self) -> bool {
        self.queue_qos0 > 0 || self.rest.is_some()
    }

    /// Counts a message that is in the store, if `most` or more are queued already or some before it are there
    /// alone. False if it is to be [pushed](Outgoing::push).
    pub fn leave(&mut self, delivery: &Delivery, most: usize) -> bool {
        if self.rest.is_none() && self.queue.len() < most {
            return false;
        }
        let rest = self.rest.get_or_insert_with(|| Box::new(Rest { from: delivery.seq, ..Rest::default() }));
        rest.count += 1;
        rest.bytes += delivery.size();
        true
    }

    /// Whether some messages are in the store alone.
    pub fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// What follows in the store: to be asked for when few are left here.
    pub fn rest(&mut self) -> Option<&mut Rest> {
        self.rest.as_deref_mut()
    }

    /// Sets what follows in the store, after a restart.
    pub fn restore_rest(&mut self, rest: Rest) {
        self.rest = (rest.count > 0).then(|| Box::new(rest));
    }

    /// Takes in what was asked for of the rest. Nothing means that the store has no more.
    pub fn load(&mut self, deliveries: Vec<Delivery>) {
        let Some(rest) = &mut self.rest else { return };
        rest.asked = false;
        rest.count = rest.count.saturating_sub(deliveries.len() as u64);
        match deliveries.last() {
            Some(last) if rest.count > 0 => rest.from = last.seq + 1,
            _ => self.rest = None,
        }
        for delivery in deliveries {
            if let Some(rest) = &mut self.rest {
                rest.bytes = rest.bytes.saturating_sub(delivery.size());
            }
            self.push(delivery);
        }
    }

    /// What to ask of the store, when less than half of `head` messages are queued here.
    pub fn wants(&mut self, head: usize) -> Option<(u64, u32)> {
        let room = head.saturating_sub(self.queue.len());
        let rest = self.rest.as_mut().filter(|r| !r.asked && room > head / 2)?;
        rest.asked = true;
        Some((rest.from, room as u32))
    }

    /// Puts the message that was queued last in flight, after a restart.
    pub fn restore_sent(&mut self, packet_id: u16) {
        if let Some(delivery) = self.queue.pop_back() {
            self.queue_bytes -= delivery.size();
            self.queue_qos0 -= u32::from(delivery.qos == QoS::AtMostOnce);
            self.restore(packet_id, delivery.seq, Some(delivery));
        }
    }

    /// Puts a message in flight that its receiver has, after a restart.
    pub fn restore_released(&mut self, packet_id: u16, seq: u64) {
        self.restore(packet_id, seq, None);
    }

    fn restore(&mut self, packet_id: u16, seq: u64, delivery: Option<Delivery>) {
        let stage = if delivery.is_some() { Stage::Published } else { Stage::Released };
        let qos = delivery.as_ref().map_or(QoS::ExactlyOnce, |d| d.qos);
        let at = self.in_flight.partition_point(|e| e.seq < seq);
        self.in_flight.insert(at, InFlight { packet_id, stage, qos, sent: true, seq, delivery });
        self.live += 1;
        self.last_id = self.in_flight.back().map_or(0, |e| e.packet_id);
    }

    /// A message taken from [`Outgoing::next`] did not go to the transport after all.
    pub fn not_sent(&mut self, packet_id: u16) {
        if let Some(entry) = self.in_flight.iter_mut().find(|e| e.packet_id == packet_id) {
            entry.sent = false;
        }
    }

    /// The connection is gone: what is in flight will be sent again [MQTT-4.4.0-1].
    pub fn interrupt(&mut self) {
        self.sent = 0;
        self.on_wire = 0;
        self.on_wire_bytes = 0;
    }

    /// What to send next, if `window` allows more. A queued message that expired is dropped instead; `expired` is
    /// called for it. One that was sent before never expires [MQTT-4.3.3-7].
    pub fn next(
        &mut self,
        window: Window,
        now: Instant,
        mut expired: impl FnMut(Delivery),
    ) -> Option<ToSend<'_>> {
        while let Some(entry) = self.in_flight.get(self.sent) {
            if entry.stage != Stage::Done {
                // [MQTT-3.3.4-9] [MQTT-4.9.0-2]
                if self.is_full(window) {
                    return None;
                }
                // [MQTT-3.3.2-5]: it has its packet id and was held back.
                let ends_at = entry.delivery.as_ref().map(|d| d.message.expires_at());
                if !entry.sent && ends_at.is_some_and(|at| at <= now) {
                    self.finish(self.sent).1.into_iter().for_each(&mut expired);
                    continue;
                }
                self.on_wire_bytes += payload_bytes(entry.delivery.as_ref());
                self.sent += 1;
                self.on_wire += 1;
                let entry = &mut self.in_flight[self.sent - 1];
                let packet_id = entry.packet_id;
                let dup = core::mem::replace(&mut entry.sent, true); // [MQTT-3.3.1-1]
                return Some(match &entry.delivery {
                    Some(delivery) => ToSend::Publish { packet_id, dup, first: false, delivery },
                    None => ToSend::PubRel { packet_id },
                });
            }
            self.sent += 1;
        }
        loop {
            if self.queue.is_empty() || self.is_full(window) {
                return None;
            }
            let passes = self.queue.front().is_some_and(|d| d.qos == QoS::AtMostOnce);
            let packet_id = if passes { self.last_id } else { self.free_id()? };
            let delivery = self.queue.pop_front()?;
            self.queue_bytes -= delivery.size();
            self.queue_qos0 -= u32::from(passes);
            if self.queue.is_empty() && self.queue.capacity() > 64 {
                self.queue = VecDeque::new();
            }
            self.last_id = packet_id;
            // [MQTT-3.3.2-5]; the id it would have had goes with it.
            if delivery.message.expires_at() <= now {
                expired(delivery);
                continue;
            }
            if passes {
                let delivery = self.passing.insert(Box::new(delivery));
                return Some(ToSend::Publish { packet_id: 0, dup: false, first: true, delivery });
            }
            self.sent += 1;
            self.on_wire += 1;
            self.on_wire_bytes += payload_bytes(Some(&delivery));
            self.live += 1;
            self.in_flight.push_back(InFlight {
                packet_id,
                stage: Stage::Published,
                qos: delivery.qos,
                sent: true,
                seq: delivery.seq,
                delivery: Some(delivery),
            });
            let delivery = self.in_flight.back()?.delivery.as_ref()?;
            return Some(ToSend::Publish { packet_id, dup: false, first: true, delivery });
        }
    }

    fn is_full(&self, window: Window) -> bool {
        self.on_wire >= u32::from(window.messages) || self.on_wire_bytes >= window.bytes
    }

    /// The next packet id, unless the oldest message in flight still has it [MQTT-2.2.1-4].
    fn free_id(&self) -> Option<u16> {
        let front = self.in_flight.front().map_or(0, |e| e.packet_id);
        let mut id = self.last_id;
        // With all reserved ones skipped, one more is free.
        let reserved = self.reserved.as_ref().map_or(&[][..], |ids| ids);
        for _ in 0..=reserved.len() {
            id = if id == u16::MAX { 1 } else { id + 1 };
            if id == front {
                return None;
            }
            if !reserved.contains(&id) {
                return Some(id);
            }
        }
        None
    }

    /// Takes a packet id for a SUBSCRIBE or UNSUBSCRIBE; no message gets it until it is given back
    /// [MQTT-2.2.1-3]. `None` when the next one is in use. The caller bounds how many are taken at once.
    pub fn reserve(&mut self) -> Option<u16> {
        let id = self.free_id()?;
        self.last_id = id;
        self.reserved.get_or_insert_default().push(id);
        Some(id)
    }

    /// Gives a packet id of [`Outgoing::reserve`] back; whether it was one.
    pub fn unreserve(&mut self, packet_id: u16) -> bool {
        let Some(reserved) = &mut self.reserved else { return false };
        let at = reserved.iter().position(|&id| id == packet_id);
        at.map(|at| reserved.swap_remove(at)).is_some()
    }

    /// The message in flight with this id, as long as the receiver has not confirmed that it has it.
    pub fn delivery(&self, packet_id: u16) -> Option<&Delivery> {
        self.in_flight[self.find(packet_id)?].delivery.as_ref()
    }

    /// The last message taken from [`Outgoing::next`] could not be sent (it is larger than the peer
    /// takes): behave as if it had been [MQTT-3.1.2-25].
    pub fn discard(&mut self, packet_id: u16) -> Option<Delivery> {
        if packet_id == 0 {
            return self.passing.take().map(|delivery| *delivery);
        }
        let at = self.find(packet_id)?;
        self.finish(at).1
    }

    fn find(&self, packet_id: u16) -> Option<usize> {
        let first = self.in_flight.front()?.packet_id;
        if packet_id == first {
            return (self.sent > 0 && self.in_flight[0].stage != Stage::Done).then_some(0);
        }
        let at = self
            .in_flight
            .binary_search_by_key(&packet_id.wrapping_sub(first), |e| e.packet_id.wrapping_sub(first))
            .ok()?;
        // What was not sent on this connection cannot be acknowledged on it.
        (at < self.sent && self.in_flight[at].stage != Stage::Done).then_some(at)
    }

    /// Marks an entry done and drops the marks that are no longer in anyone's way.
    fn finish(&mut self, at: usize) -> (u64, Option<Delivery>) {
        let entry = &mut self.in_flight[at];
        entry.stage = Stage::Done;
        let (seq, delivery) = (entry.seq, entry.delivery.take());
        self.live -= 1;
        if at < self.sent {
            self.on_wire -= 1;
            self.on_wire_bytes -= payload_bytes(delivery.as_ref());
        }
        while self.in_flight.front().is_some_and(|e| e.stage == Stage::Done) {
            self.in_flight.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        if self.in_flight.len() > 2 * self.live as usize + 16 && self.sent == self.in_flight.len() {
            self.in_flight.retain(|e| e.stage != Stage::Done);
            self.sent = self.in_flight.len();
        }
        if self.in_flight.is_empty() && self.in_flight.capacity() > 32 {
            self.in_flight = VecDeque::new();
        }
        (seq, delivery)
    }

    fn done(&mut self, at: usize) -> Acked {
        let (seq, delivery) = self.finish(at);
        Acked::Done { seq, delivery }
    }

    /// A PUBACK came: the message is done, whatever it says [MQTT-4.3.2-3] [MQTT-4.4.0-2].
    pub fn on_puback(&mut self, packet_id: u16) -> Acked {
        match self.find(packet_id) {
            Some(at) if self.in_flight[at].qos == QoS::AtLeastOnce => self.done(at),
            Some(_) => Acked::Wrong,
            None => Acked::Unknown,
        }
    }

    /// A PUBREC came. With an error the message is done [MQTT-4.4.0-2] [MQTT-4.8.2-6].
    pub fn on_pubrec(&mut self, packet_id: u16, reason: ReasonCode) -> Acked {
        match self.find(packet_id) {
            Some(at) if self.in_flight[at].qos == QoS::ExactlyOnce => {
                if reason.is_error() {
                    return self.done(at);
                }
                let entry = &mut self.in_flight[at];
                entry.stage = Stage::Released;
                let had = entry.delivery.take(); // [MQTT-4.3.3-6]
                self.on_wire_bytes -= payload_bytes(had.as_ref());
                Acked::Release { delivery: had }
            }
            Some(_) => Acked::Wrong,
            None => Acked::Unknown,
        }
    }

    /// A PUBCOMP came: until then it is PUBREL that is sent again [MQTT-4.3.3-5].
    pub fn on_pubcomp(&mut self, packet_id: u16) -> Acked {
        match self.find(packet_id) {
            Some(at) if self.in_flight[at].stage == Stage::Released => self.done(at),
            Some(_) => Acked::Wrong,
            None => Acked::Unknown,
        }
    }

    /// Every message that is kept here, in order.
    pub fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        self.in_flight.iter().filter_map(|e| e.delivery.as_ref()).chain(&self.queue)
    }

    /// Takes every message that its receiver has not confirmed to have, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Delivery> {
        let this = core::mem::take(self);
        this.in_flight.into_iter().filter_map(|e| e.delivery).chain(this.queue)
    }

    /// Takes everything that another receiver may have instead, in order: what is queued, and QoS 1 messages
    /// that are not acknowledged. A QoS 2 message that was sent belongs to its receiver [MQTT-4.8.2-5].
    pub fn drain_for_others(&mut self) -> impl Iterator<Item = Delivery> {
        self.in_flight.retain(|e| e.qos != QoS::ExactlyOnce || !e.sent);
        self.drain()
    }
}

fn payload_bytes(delivery: Option<&Delivery>) -> u64 {
    delivery.map_or(0, |d| d.message.payload().len() as u64)
}

/// The ids of QoS 2 messages that were received and not yet released [MQTT-4.3.3-10].
#[derive(Debug, Default)]
pub struct Incoming {
    /// Ascending.
    ids: Vec<u16>,
}

impl Incoming {
    /// A QoS 2 PUBLISH came: whether it is a new one.
    pub fn begin(&mut self, packet_id: u16) -> bool {
        match self.ids.last() {
            Some(&last) if last >= packet_id => match self.ids.binary_search(&packet_id) {
                Ok(_) => false,
                Err(at) => {
                    self.ids.insert(at, packet_id);
                    true
                }
            },
            _ => {
                self.ids.push(packet_id);
                true
            }
        }
    }

    /// Whether the id of a QoS 2 PUBLISH is known.
    pub fn contains(&self, packet_id: u16) -> bool {
        self.ids.binary_search(&packet_id).is_ok()
    }

    /// A PUBREL came: whether its id was known.
    pub fn release(&mut self, packet_id: u16) -> bool {
        match self.ids.binary_search(&packet_id) {
            Ok(at) => {
                self.ids.remove(at);
                if self.ids.is_empty() {
                    self.ids = Vec::new();
                }
                true
            }
            Err(_) => false,
        }
    }

    /// How many messages are not released.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether all are released.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn delivery(name: &str, qos: QoS) -> Delivery {
        let message = Message::new(name, b"12345678", qos, false);
        Delivery { message, qos, retain: false, ids: SubscriptionIds::None, share: 0, seq: 0, body: 0 }
    }

    fn sends(out: &mut Outgoing, messages: u16) -> Vec<(u16, bool)> {
        sends_within(out, Window { messages, bytes: u64::MAX })
    }

    fn sends_within(out: &mut Outgoing, window: Window) -> Vec<(u16, bool)> {
        let mut all = vec![];
        while let Some(send) = out.next(window, Instant::ZERO, |_| {}) {
            all.push(match send {
                ToSend::Publish { packet_id, dup, .. } => (packet_id, dup),
                ToSend::PubRel { packet_id } => (packet_id + 10_000, false),
            });
        }
        all
    }

    #[test]
    fn the_window_holds_and_opens_with_each_acknowledgement() {
        let mut out = Outgoing::default();
        (0..5).for_each(|_| out.push(delivery("t", QoS::AtLeastOnce)));
        assert_eq!(sends(&mut out, 2), [(1, false), (2, false)]);
        assert!(matches!(out.on_puback(3), Acked::Unknown));
        assert!(matches!(out.on_puback(2), Acked::Done { delivery: Some(_), .. }));
        assert!(matches!(out.on_puback(2), Acked::Unknown));
        assert_eq!(sends(&mut out, 2), [(3, false)]);
        assert!(matches!(out.on_puback(1), Acked::Done { .. }));
        assert!(matches!(out.on_puback(3), Acked::Done { .. }));
        assert_eq!(sends(&mut out, 2), [(4, false), (5, false)]);
        assert_eq!((out.in_flight(), out.queued()), (2, 0));
    }

    #[test]
    fn the_window_holds_bytes_too() {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut out = Outgoing::default();
            (0..6).for_each(|_| out.push(delivery("t", qos)));
            let window = Window { messages: 10, bytes: 16 };
            let confirm = |out: &mut Outgoing, packet_id| match qos {
                QoS::ExactlyOnce => {
                    assert!(matches!(out.on_pubrec(packet_id, ReasonCode::Success), Acked::Release { .. }))
                }
                _ => assert!(matches!(out.on_puback(packet_id), Acked::Done { delivery: Some(_), .. })),
            };
            assert_eq!(sends_within(&mut out, window), [(1, false), (2, false)], "eight bytes each");
            confirm(&mut out, 1);
            assert_eq!(sends_within(&mut out, window), [(3, false)]);
            out.interrupt();
            assert_eq!(sends_within(&mut out, Window { bytes: 0, ..window }), []);
            let again = sends_within(&mut out, window);
            let published: Vec<_> = again.into_iter().filter(|&(id, _)| id < 10_000).collect();
            assert_eq!(published, [(2, true), (3, true)]);
            confirm(&mut out, 3);
            confirm(&mut out, 2);
            assert_eq!(sends_within(&mut out, Window { bytes: 1, ..window }), [(4, false)], "always one");
            assert_eq!(out.on_wire_bytes, 8);
        }
    }

    #[test]
    fn resend_keeps_the_original_order_and_stage() {
        let mut out = Outgoing::default();
        (0..4).for_each(|_| out.push(delivery("t", QoS::ExactlyOnce)));
        sends(&mut out, 10);
        assert!(matches!(out.on_pubrec(2, ReasonCode::Success), Acked::Release { .. }));
        assert!(
            matches!(out.on_pubrec(2, ReasonCode::Success), Acked::Release { .. }),
            "a second PUBREC too"
        );
        assert!(matches!(out.on_puback(1), Acked::Wrong), "PUBACK does not end a QoS 2 message");
        out.interrupt();
        out.push(delivery("t", QoS::AtLeastOnce));
        assert!(matches!(out.on_pubrec(3, ReasonCode::Success), Acked::Unknown), "not sent on this link");
        assert_eq!(sends(&mut out, 3), [(1, true), (10_002, false), (3, true)], "a smaller window holds too");
        assert!(matches!(out.on_pubcomp(2), Acked::Done { delivery: None, .. }));
        assert_eq!(sends(&mut out, 3), [(4, true)]);
        assert!(matches!(out.on_pubrec(1, ReasonCode::QuotaExceeded), Acked::Done { delivery: Some(_), .. }));
        assert_eq!(sends(&mut out, 3), [(5, false)]);
    }

    #[test]
    fn ids_wrap_around_and_never_name_two_messages() {
        let mut out = Outgoing::default();
        out.push(delivery("oldest", QoS::AtLeastOnce));
        assert_eq!(sends(&mut out, 2), [(1, false)]);
        for expected in 2..=u16::MAX {
            out.push(delivery("t", QoS::AtLeastOnce));
            assert_eq!(sends(&mut out, 2), [(expected, false)]);
            assert!(matches!(out.on_puback(expected), Acked::Done { .. }));
            assert!(out.in_flight.len() < 32, "marks are dropped");
        }
        out.push(delivery("t", QoS::AtLeastOnce));
        assert_eq!(sends(&mut out, 2), [], "id 1 is still in use");
        assert!(matches!(out.on_puback(1), Acked::Done { .. }));
        assert_eq!(sends(&mut out, 2), [(1, false)]);
    }

    #[test]
    fn what_was_not_sent_on_this_connection_cannot_be_acknowledged_on_it() {
        let mut out = Outgoing::default();
        out.push(delivery("t", QoS::AtLeastOnce));
        sends(&mut out, 10);
        out.interrupt();
        assert!(matches!(out.on_puback(1), Acked::Unknown));
        assert_eq!(sends(&mut out, 10), [(1, true)]);
        assert!(matches!(out.on_puback(1), Acked::Done { delivery: Some(_), .. }));
    }

    #[test]
    fn a_reserved_id_names_no_message() {
        let mut out = Outgoing::default();
        assert_eq!(out.reserve(), Some(1));
        for expected in 2..=u16::MAX {
            out.push(delivery("t", QoS::AtLeastOnce));
            assert_eq!(sends(&mut out, 2), [(expected, false)]);
            assert!(matches!(out.on_puback(expected), Acked::Done { .. }));
        }
        out.push(delivery("t", QoS::AtLeastOnce));
        assert_eq!(sends(&mut out, 2), [(2, false)], "1 is skipped");
        assert_eq!((out.reserve(), out.unreserve(1), out.unreserve(1)), (Some(3), true, false));
        assert_eq!(out.delivery(2).unwrap().qos, QoS::AtLeastOnce);
        assert!(out.delivery(3).is_none());
    }

    #[test]
    fn qos_2_ids_are_new_once() {
        let mut incoming = Incoming::default();
        for id in [5, 3, 9, 4] {
            assert!(incoming.begin(id));
            assert!(!incoming.begin(id));
        }
        assert!(incoming.release(3));
        assert!(!incoming.release(3));
        assert!(incoming.begin(3));
        assert_eq!(incoming.len(), 4);
    }
}
