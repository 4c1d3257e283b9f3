//! What a connection knows that dies with it: version, aliases, limits of the peer, the order in which
//! acknowledgements leave, the partial packet that came in and the bytes to go out.

use super::window::SubscriptionIds;
use crate::codec::{EncodeError, Framer, Packet, PacketType, Property, QoS, ReasonCode, Version};
use crate::codec::{put_varint, varint_len};
use crate::message::Message;
use crate::outbox::{Outbox, Pool, SHARE_FROM};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What an acknowledgement waits for: it may leave when the owner's gate count has reached this. 0 is open.
pub type AckGate = u64;

#[derive(Debug)]
struct PendingAck {
    gate: AckGate,
    kind: PacketType,
    packet_id: u16,
    reason: ReasonCode,
}

impl PendingAck {
    fn is_final(&self) -> bool {
        self.kind == PacketType::PubAck || self.reason.is_error()
    }
}

/// The payload of an outgoing PUBLISH: borrowed, or kept and so fit to be shared.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Copy it.
    Bytes(&'a [u8]),
    /// Copy it if it is small, share it if not.
    Kept(&'a Message),
}

impl Payload<'_> {
    fn len(&self) -> usize {
        match self {
            Payload::Bytes(b) => b.len(),
            Payload::Kept(m) => m.size() - m.payload_at(),
        }
    }
}

/// A PUBLISH on its way out.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPublish<'a> {
    /// The topic name.
    pub topic: &'a [u8],
    /// The properties that travel with the message.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: Payload<'a>,
    /// When the message expires; what is left is sent as Message Expiry Interval [MQTT-3.3.2-6].
    pub expires_at: Instant,
    /// The quality of service.
    pub qos: QoS,
    /// Whether it was sent on an earlier connection [MQTT-3.3.1-1].
    pub dup: bool,
    /// The RETAIN flag.
    pub retain: bool,
    /// The packet id, 0 at QoS 0.
    pub packet_id: u16,
    /// The subscription identifiers.
    pub ids: &'a SubscriptionIds,
}

/// Whether a packet was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the outbox.
    Yes,
    /// It is larger than the peer takes.
    TooLarge,
}

/// Topic aliases. Few connections use them.
#[derive(Debug, Default)]
struct Aliases {
    /// Those the peer has told, by number.
    incoming: Vec<Box<str>>,
    /// Those this side has told the peer: the first topics sent get one each.
    outgoing: Vec<Box<[u8]>>,
    /// How many bytes the topics of all of them have.
    bytes: usize,
}

/// The volatile part of one end of a connection.
#[derive(Debug)]
pub struct Link {
    /// The protocol version.
    pub version: Version,
    /// Whether the peer wants reason strings and user properties on all packets [MQTT-3.1.2-29].
    pub problem_information: bool,
    /// The effective keep alive, in seconds; 0 is off.
    pub keep_alive_s: u16,
    /// How many QoS 1 and 2 messages may be on the wire to the peer at once.
    pub send_window: u16,
    /// The largest packet the peer takes.
    pub peer_max_packet: u32,
    /// When the last complete packet came.
    pub received_at: Instant,
    /// When the last packet was put into the outbox (clients only).
    pub sent_at: Instant,
    /// The partial packet.
    pub framer: Framer,
    /// What is to be written.
    pub outbox: Outbox,
    /// QoS 2 messages that came on this connection and are not released.
    pub unreleased: u16,
    acks: VecDeque<PendingAck>,
    /// How many of those end their message: PUBACK, and PUBREC with an error.
    final_acks: u32,
    /// How many aliases may be used towards the peer.
    aliases_out_max: u16,
    aliases: Option<Box<Aliases>>,
}

impl Link {
    /// The state before CONNECT.
    pub fn new(now: Instant) -> Self {
        Link {
            version: Version::V3_1_1,
            problem_information: true,
            keep_alive_s: 0,
            send_window: u16::MAX,
            peer_max_packet: u32::MAX,
            received_at: now,
            sent_at: now,
            framer: Framer::default(),
            outbox: Outbox::default(),
            unreleased: 0,
            acks: VecDeque::new(),
            final_acks: 0,
            aliases_out_max: 0,
            aliases: None,
        }
    }

    /// Sets how many topic aliases may be used towards the peer [MQTT-3.3.2-9] [MQTT-3.3.2-11]; a new link has none
    /// [MQTT-3.3.2-7].
    pub fn allow_aliases_out(&mut self, max: u16) {
        self.aliases_out_max = max;
        if let Some(aliases) = &mut self.aliases {
            aliases.bytes -= aliases.outgoing.iter().map(|topic| topic.len()).sum::<usize>();
            aliases.outgoing = Vec::new();
        }
    }

    /// How many bytes the topics that have an alias take up.
    pub fn alias_bytes(&self) -> usize {
        self.aliases.as_ref().map_or(0, |aliases| aliases.bytes)
    }

    /// Encodes any packet into the outbox.
    pub fn put(&mut self, pool: &mut Pool, packet: &Packet<'_>) -> Result<Sent, EncodeError> {
        self.put_with(pool, |version, out| packet.encode(version, out))
    }

    /// Encodes one packet with a function of its own into the outbox.
    pub fn put_with(
        &mut self,
        pool: &mut Pool,
        encode: impl FnOnce(Version, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<Sent, EncodeError> {
        let out = self.outbox.writer(pool);
        let before = out.len();
        encode(self.version, out)?;
        if out.len() - before > self.peer_max_packet as usize {
            out.truncate(before);
            return Ok(Sent::TooLarge);
        }
        pool.packets += 1;
        Ok(Sent::Yes)
    }

    /// Encodes a PUBACK, PUBREC, PUBREL or PUBCOMP, without the properties that could make it too large
    /// [MQTT-3.4.2-2] [MQTT-3.4.2-3].
    pub fn put_ack(&mut self, pool: &mut Pool, kind: PacketType, packet_id: u16, reason: ReasonCode) {
        let first = match kind {
            PacketType::PubRel => 0x62,
            _ => (kind as u8) << 4,
        };
        let [high, low] = packet_id.to_be_bytes();
        let out = self.outbox.writer(pool);
        if self.version.is_v5() && reason != ReasonCode::Success {
            out.extend_from_slice(&[first, 3, high, low, reason as u8]);
        } else {
            out.extend_from_slice(&[first, 2, high, low]);
        }
        pool.packets += 1;
    }

    /// Queues the acknowledgement of a PUBLISH: it leaves when `gate` opens, after all earlier ones
    /// [MQTT-4.6.0-2] [MQTT-4.6.0-3]. Tells whether it was written at once.
    pub fn acknowledge(
        &mut self,
        pool: &mut Pool,
        gate: AckGate,
        opened: AckGate,
        kind: PacketType,
        packet_id: u16,
        reason: ReasonCode,
    ) -> bool {
        if self.acks.is_empty() && gate <= opened {
            self.put_ack(pool, kind, packet_id, reason);
            return true;
        }
        let ack = PendingAck { gate, kind, packet_id, reason };
        self.final_acks += u32::from(ack.is_final());
        self.acks.push_back(ack);
        false
    }

    /// Writes the acknowledgements whose gates are open; tells whether there were any.
    pub fn release_acks(&mut self, pool: &mut Pool, opened: AckGate) -> bool {
        let mut any = false;
        while self.acks.front().is_some_and(|a| a.gate <= opened) {
            if let Some(ack) = self.acks.pop_front() {
                self.final_acks -= u32::from(ack.is_final());
                self.put_ack(pool, ack.kind, ack.packet_id, ack.reason);
                any = true;
            }
        }
        if self.acks.is_empty() && self.acks.capacity() > 0 {
            self.acks = VecDeque::new();
        }
        any
    }

    /// How many acknowledgements wait for a gate.
    pub fn pending_acks(&self) -> usize {
        self.acks.len()
    }

    /// How many waiting acknowledgements end their message: PUBACK, and PUBREC with an error. A waiting PUBREC
    /// without one is not among them: its id is in [`Incoming`](super::Incoming).
    pub fn pending_final_acks(&self) -> usize {
        self.final_acks as usize
    }

    /// The topic a received PUBLISH means: its own, which an alias may then stand for, or the one its
    /// alias stands for. Errors: alias 0 or above `max` [MQTT-3.3.2-8] [MQTT-3.3.2-9], or not yet told. All from 1
    /// to `max` are taken [MQTT-3.3.2-10] [MQTT-3.3.2-12].
    pub fn resolve_alias<'a>(
        &'a mut self,
        topic: &'a str,
        alias: u16,
        max: u16,
    ) -> Result<&'a str, ReasonCode> {
        if alias == 0 || alias > max {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let at = usize::from(alias) - 1;
        if topic.is_empty() {
            return match self.aliases.as_ref().and_then(|aliases| aliases.incoming.get(at)) {
                Some(known) if !known.is_empty() => Ok(known),
                _ => Err(ReasonCode::ProtocolError),
            };
        }
        let aliases = self.aliases.get_or_insert_default();
        if aliases.incoming.len() <= at {
            aliases.incoming.resize(at + 1, Box::default());
        }
        if *aliases.incoming[at] != *topic {
            aliases.bytes = aliases.bytes - aliases.incoming[at].len() + topic.len();
            aliases.incoming[at] = topic.into();
        }
        Ok(topic)
    }

    /// The alias for a topic, if it has or can have one, and whether the peer knows it.
    fn alias_for(&mut self, topic: &[u8]) -> Option<(u16, bool)> {
        if self.aliases_out_max == 0 || topic.len() < 3 {
            return None;
        }
        let aliases = self.aliases.get_or_insert_default();
        if let Some(at) = aliases.outgoing.iter().position(|t| **t == *topic) {
            return Some((at as u16 + 1, true));
        }
        if aliases.outgoing.len() < usize::from(self.aliases_out_max) {
            aliases.outgoing.push(topic.into());
            aliases.bytes += topic.len();
            return Some((aliases.outgoing.len() as u16, false));
        }
        None
    }

    /// Encodes a PUBLISH into the outbox, in the form of the link's version.
    pub fn put_publish(&mut self, pool: &mut Pool, now: Instant, p: &OutgoingPublish<'_>) -> Sent {
        let first = 0x30 | u8::from(p.dup) << 3 | (p.qos as u8) << 1 | u8::from(p.retain);
        let id_len = if p.qos == QoS::AtMostOnce { 0 } else { 2 };
        let payload_len = p.payload.len();
        if !self.version.is_v5() {
            let remaining = 2 + p.topic.len() + id_len + payload_len;
            if remaining + 5 > self.peer_max_packet as usize {
                return Sent::TooLarge;
            }
            let out = self.outbox.writer(pool);
            out.push(first);
            put_varint(remaining as u32, out);
            out.extend_from_slice(&(p.topic.len() as u16).to_be_bytes());
            out.extend_from_slice(p.topic);
            if id_len > 0 {
                out.extend_from_slice(&p.packet_id.to_be_bytes());
            }
        } else {
            let expiry = (p.expires_at != Instant::NEVER).then(|| {
                p.expires_at.since(now).as_micros().div_ceil(1_000_000).min(u128::from(u32::MAX)) as u32
            });
            let ids_len: usize = p.ids.as_slice().iter().map(|&id| 1 + varint_len(id)).sum();
            let total = |topic_len: usize, alias_len: usize| {
                let properties = p.properties.len() + expiry.map_or(0, |_| 5) + alias_len + ids_len;
                let remaining =
                    2 + topic_len + id_len + varint_len(properties as u32) + properties + payload_len;
                1 + varint_len(remaining as u32) + remaining
            };
            // [MQTT-3.1.2-24]
            let most = self.peer_max_packet as usize;
            if total(p.topic.len(), 0) > most {
                return Sent::TooLarge;
            }
            let alias = if total(p.topic.len(), 3) > most { None } else { self.alias_for(p.topic) };
            let topic = if alias.is_some_and(|(_, known)| known) { &[][..] } else { p.topic };
            let properties_len =
                p.properties.len() + expiry.map_or(0, |_| 5) + alias.map_or(0, |_| 3) + ids_len;
            let remaining =
                2 + topic.len() + id_len + varint_len(properties_len as u32) + properties_len + payload_len;
            let out = self.outbox.writer(pool);
            out.push(first);
            put_varint(remaining as u32, out);
            out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
            out.extend_from_slice(topic);
            if id_len > 0 {
                out.extend_from_slice(&p.packet_id.to_be_bytes());
            }
            put_varint(properties_len as u32, out);
            out.extend_from_slice(p.properties);
            if let Some((alias, _)) = alias {
                let _ = Property::TopicAlias(alias).encode(out);
            }
            if let Some(expiry) = expiry {
                let _ = Property::MessageExpiryInterval(expiry).encode(out);
            }
            for &id in p.ids.as_slice() {
                let _ = Property::SubscriptionIdentifier(id).encode(out);
            }
        }
        match p.payload {
            Payload::Kept(message) if payload_len >= SHARE_FROM => self.outbox.share_payload(message),
            Payload::Kept(message) => self.outbox.writer(pool).extend_from_slice(message.payload()),
            Payload::Bytes(bytes) => self.outbox.writer(pool).extend_from_slice(bytes),
        }
        pool.packets += 1;
        Sent::Yes
    }
}
