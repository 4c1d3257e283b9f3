//! What is common to all packets, and the enum of them.

use alloc::vec::Vec;

use super::wire::put_packet;
use super::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, EncodeError, Frame, Publish, SubAck, Subscribe,
    UnsubAck, Unsubscribe,
};

/// A version of the protocol. The numbers are the protocol levels of CONNECT.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1.
    V3_1 = 3,
    /// MQTT 3.1.1.
    V3_1_1 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

impl Version {
    /// Whether this is MQTT 5.0.
    #[inline]
    pub const fn is_v5(self) -> bool {
        matches!(self, Version::V5)
    }
}

/// Quality of service: how hard a message is delivered.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// QoS 0: sent once, not acknowledged.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: sent until acknowledged.
    AtLeastOnce = 1,
    /// QoS 2: delivered exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of a number, `None` above 2.
    #[inline]
    pub const fn from_u8(value: u8) -> Option<QoS> {
        match value {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// The type of a packet: the high four bits of its first byte.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketType {
    /// A client asks for a connection.
    Connect = 1,
    /// The server's answer to CONNECT.
    ConnAck = 2,
    /// A message.
    Publish = 3,
    /// QoS 1: the message is taken over.
    PubAck = 4,
    /// QoS 2, first answer: the message is received.
    PubRec = 5,
    /// QoS 2, second step: the identifier may be released.
    PubRel = 6,
    /// QoS 2, last answer: done.
    PubComp = 7,
    /// A client asks for messages.
    Subscribe = 8,
    /// The server's answer to SUBSCRIBE.
    SubAck = 9,
    /// A client wants no more messages.
    Unsubscribe = 10,
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck = 11,
    /// A client shows that it is there.
    PingReq = 12,
    /// The server's answer to PINGREQ.
    PingResp = 13,
    /// The connection ends.
    Disconnect = 14,
    /// A step of an authentication exchange; 5.0 only.
    Auth = 15,
}

impl PacketType {
    /// The packet type of a number, `None` for 0 and above 15.
    #[inline]
    pub const fn from_u8(value: u8) -> Option<PacketType> {
        use PacketType::*;
        Some(match value {
            1 => Connect,
            2 => ConnAck,
            3 => Publish,
            4 => PubAck,
            5 => PubRec,
            6 => PubRel,
            7 => PubComp,
            8 => Subscribe,
            9 => SubAck,
            10 => Unsubscribe,
            11 => UnsubAck,
            12 => PingReq,
            13 => PingResp,
            14 => Disconnect,
            15 => Auth,
            _ => return None,
        })
    }

    /// The flags of the fixed header, which every packet but PUBLISH has fixed.
    #[inline]
    pub(super) const fn flags(self) -> u8 {
        match self {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0x02,
            _ => 0,
        }
    }

    /// The first byte of a packet of this type, without the flags of a PUBLISH.
    #[inline]
    pub(super) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }
}

/// Any packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT.
    Connect(Connect<'a>),
    /// CONNACK.
    ConnAck(ConnAck<'a>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK.
    PubAck(Ack<'a>),
    /// PUBREC.
    PubRec(Ack<'a>),
    /// PUBREL.
    PubRel(Ack<'a>),
    /// PUBCOMP.
    PubComp(Ack<'a>),
    /// SUBSCRIBE.
    Subscribe(Subscribe<'a>),
    /// SUBACK.
    SubAck(SubAck<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe<'a>),
    /// UNSUBACK.
    UnsubAck(UnsubAck<'a>),
    /// PINGREQ.
    PingReq,
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH.
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Reads and checks a whole packet. A CONNECT says its version itself; `version` is not used for it.
    // Always inlined: what it gives is large, and would be copied twice.
    #[inline(always)]
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        let Some(packet_type) = frame.packet_type() else {
            return Err(DecodeError::protocol("packet type 0 is reserved", "MQTT 2.1.2"));
        };
        match packet_type {
            PacketType::Publish => Ok(Packet::Publish(Publish::decode(version, frame)?)),
            PacketType::PubAck => Ok(Packet::PubAck(Ack::decode(version, packet_type, frame)?)),
            _ => Packet::decode_control(version, packet_type, frame),
        }
    }

    // Apart, or the short way of a PUBLISH or PUBACK carries what all the others need.
    #[inline(never)]
    fn decode_control(
        version: Version,
        packet_type: PacketType,
        frame: Frame<'a>,
    ) -> Result<Self, DecodeError> {
        let ack = |packet_type| Ack::decode(version, packet_type, frame);
        Ok(match packet_type {
            PacketType::Connect => Packet::Connect(Connect::decode(frame)?),
            PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(version, frame)?),
            PacketType::Publish => Packet::Publish(Publish::decode(version, frame)?),
            PacketType::PubAck => Packet::PubAck(ack(packet_type)?),
            PacketType::PubRec => Packet::PubRec(ack(packet_type)?),
            PacketType::PubRel => Packet::PubRel(ack(packet_type)?),
            PacketType::PubComp => Packet::PubComp(ack(packet_type)?),
            PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(version, frame)?),
            PacketType::SubAck => Packet::SubAck(SubAck::decode(version, frame)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(version, frame)?),
            PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::decode(version, frame)?),
            PacketType::PingReq => decode_ping(version, frame).map(|()| Packet::PingReq)?,
            PacketType::PingResp => decode_ping(version, frame).map(|()| Packet::PingResp)?,
            PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(version, frame)?),
            PacketType::Auth => Packet::Auth(Auth::decode(version, frame)?),
        })
    }

    /// Appends the packet to `out`, which stays as it was on error. What the version cannot say (properties,
    /// reason codes) is left out. A CONNECT is written in its own version.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Packet::Publish(packet) => packet.encode(version, out),
            Packet::PubAck(packet) => packet.encode(version, PacketType::PubAck, out),
            _ => self.encode_control(version, out),
        }
    }

    #[inline(never)]
    fn encode_control(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Packet::Connect(packet) => packet.encode(out),
            Packet::ConnAck(packet) => packet.encode(version, out),
            Packet::Publish(packet) => packet.encode(version, out),
            Packet::PubAck(packet)
            | Packet::PubRec(packet)
            | Packet::PubRel(packet)
            | Packet::PubComp(packet) => packet.encode(version, self.packet_type(), out),
            Packet::Subscribe(packet) => packet.encode(version, out),
            Packet::SubAck(packet) => packet.encode(version, out),
            Packet::Unsubscribe(packet) => packet.encode(version, out),
            Packet::UnsubAck(packet) => packet.encode(version, out),
            Packet::PingReq | Packet::PingResp => {
                put_packet(self.packet_type().first_byte(), out, |_| Ok(()))
            }
            Packet::Disconnect(packet) => packet.encode(version, out),
            Packet::Auth(packet) => packet.encode(version, out),
        }
    }

    /// Which packet this is.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}

fn decode_ping(version: Version, frame: Frame<'_>) -> Result<(), DecodeError> {
    frame.check_flags(version, 0)?;
    if !frame.body.is_empty() {
        // Its length is wrong: what follows may be anything.
        return Err(DecodeError::malformed("PINGREQ and PINGRESP have no content", "MQTT 3.12.1").quietly());
    }
    Ok(())
}
