//! CONNECT and CONNACK.

use alloc::vec::Vec;
use core::fmt;

use super::wire::{Reader, put_binary, put_packet, put_properties, put_string, text, topic_name};
use super::{
    DecodeError, EncodeError, Frame, PacketType, Properties, PropertyContext, QoS, ReasonCode, Version,
};

const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

/// The bit bridges set in the protocol level of 3.1 and 3.1.1.
const BRIDGE: u8 = 0x80;

/// CONNECT: the first packet of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version the connection will speak.
    pub version: Version,
    /// Whether a 3.1 or 3.1.1 client says it is a bridge, as mosquitto does with bit 0x80 of the protocol level.
    pub bridge: bool,
    /// Clean Start; Clean Session in 3.1 and 3.1.1.
    pub clean_start: bool,
    /// The keep alive in seconds, 0 for none.
    pub keep_alive_s: u16,
    /// Properties of 5.0.
    pub properties: Properties<'a>,
    /// The client identifier. Empty when the server is to choose one.
    pub client_id: &'a str,
    /// The message to publish when the connection is lost.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password. Without a user name only in 5.0.
    pub password: Option<&'a [u8]>,
}

/// The will of a CONNECT.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// QoS to publish it with.
    pub qos: QoS,
    /// Whether to retain it.
    pub retain: bool,
    /// Properties of 5.0.
    pub properties: Properties<'a>,
    /// The topic name.
    pub topic: &'a str,
    /// The message itself.
    pub payload: &'a [u8],
}

impl<'a> Connect<'a> {
    /// Reads and checks a CONNECT.
    pub fn decode(frame: Frame<'a>) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame.body);
        let (version, bridge) = read_version(&mut r)?;
        // 3.1 calls the flags of the fixed header unused.
        if version != Version::V3_1 {
            frame.check_flags(version, 0).map_err(DecodeError::quietly)?;
        }
        let flags = r.u8()?;
        check_flags(version, flags)?;
        let keep_alive_s = r.u16().map_err(DecodeError::quietly)?;
        let properties = Properties::read(&mut r, version, PropertyContext::Packet(PacketType::Connect))?;
        // [MQTT-3.1.3-3], [MQTT-3.1.3-4]
        let client_id = text(r.binary()?).map_err(|e| e.with_reason(ReasonCode::ClientIdentifierNotValid))?;
        let will = if flags & WILL != 0 { Some(Will::read(&mut r, version, flags)?) } else { None };
        // In 3.1 the Remaining Length takes precedence over these two flags.
        let present = |flag, r: &Reader<'_>| flags & flag != 0 && !(version == Version::V3_1 && r.is_empty());
        let (username, password) = read_credentials(&mut r, present).map_err(DecodeError::quietly)?;
        r.finish()?;
        let clean_start = flags & CLEAN_START != 0;
        // 3.1.1: [MQTT-3.1.3-8]; 3.1 wants 1 to 23 characters.
        let needs_id = version == Version::V3_1 || version == Version::V3_1_1 && !clean_start;
        if client_id.is_empty() && needs_id {
            return Err(DecodeError::protocol("the client identifier is empty", "MQTT-3.1.3-8")
                .with_reason(ReasonCode::ClientIdentifierNotValid));
        }
        Ok(Connect {
            version,
            bridge,
            clean_start,
            keep_alive_s,
            properties,
            client_id,
            will,
            username,
            password,
        })
    }

    /// Appends the packet, in its own version.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        // 3.1.1: [MQTT-3.1.2-22]
        if self.password.is_some() && self.username.is_none() && !self.version.is_v5() {
            return Err(EncodeError::NotInVersion);
        }
        put_packet(PacketType::Connect.first_byte(), out, |out| {
            put_string(if self.version == Version::V3_1 { "MQIsdp" } else { "MQTT" }, out)?;
            let bridge = self.bridge && !self.version.is_v5();
            out.push(self.version as u8 | if bridge { BRIDGE } else { 0 });
            out.push(self.flags());
            out.extend_from_slice(&self.keep_alive_s.to_be_bytes());
            put_properties(self.version, self.properties, out)?;
            put_string(self.client_id, out)?;
            if let Some(will) = &self.will {
                put_properties(self.version, will.properties, out)?;
                put_string(will.topic, out)?;
                put_binary(will.payload, out)?;
            }
            self.username.map_or(Ok(()), |username| put_string(username, out))?;
            self.password.map_or(Ok(()), |password| put_binary(password, out))
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        let mut set = |flag, on| flags |= if on { flag } else { 0 };
        set(CLEAN_START, self.clean_start);
        set(USERNAME, self.username.is_some());
        set(PASSWORD, self.password.is_some());
        if let Some(will) = &self.will {
            set(WILL | (will.qos as u8) << 3, true);
            set(WILL_RETAIN, will.retain);
        }
        flags
    }
}

impl<'a> Will<'a> {
    fn read(r: &mut Reader<'a>, version: Version, flags: u8) -> Result<Self, DecodeError> {
        // [MQTT-3.1.2-12], 3.1.1: [MQTT-3.1.2-14]
        let Some(qos) = QoS::from_u8((flags & WILL_QOS) >> 3) else {
            return Err(DecodeError::malformed("the will has QoS 3", "MQTT-3.1.2-12").quietly());
        };
        let properties = Properties::read(r, version, PropertyContext::Will)?;
        // [MQTT-3.1.3-11], [MQTT-4.7.0-1]
        let topic = topic_name(r.binary()?, "MQTT-4.7.0-1")?;
        if topic.is_empty() {
            return Err(DecodeError::protocol("the will has an empty topic", "MQTT-4.7.3-1"));
        }
        Ok(Will { qos, retain: flags & WILL_RETAIN != 0, properties, topic, payload: r.binary()? })
    }
}

fn read_version(r: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    let name = r.binary()?;
    let level = r.u8()?;
    match (name, level & !BRIDGE, level & BRIDGE != 0) {
        (b"MQIsdp", 3, bridge) => Ok((Version::V3_1, bridge)),
        (b"MQTT", 4, bridge) => Ok((Version::V3_1_1, bridge)),
        (b"MQTT", 5, false) => Ok((Version::V5, false)),
        // [MQTT-3.1.2-1], [MQTT-3.1.2-2]
        (b"MQTT" | b"MQIsdp", _, _) => {
            Err(unsupported("the protocol level is not supported", "MQTT-3.1.2-2"))
        }
        _ => Err(unsupported("the protocol name is not MQTT", "MQTT-3.1.2-1").quietly()),
    }
}

/// User name and password, where they are `present`.
fn read_credentials<'a>(
    r: &mut Reader<'a>,
    present: impl Fn(u8, &Reader<'a>) -> bool,
) -> Result<(Option<&'a str>, Option<&'a [u8]>), DecodeError> {
    // [MQTT-3.1.2-17], [MQTT-3.1.3-12]
    let username = if present(USERNAME, r) { Some(r.string()?) } else { None };
    // [MQTT-3.1.2-19]
    let password = if present(PASSWORD, r) { Some(r.binary()?) } else { None };
    Ok((username, password))
}

fn unsupported(what: &'static str, clause: &'static str) -> DecodeError {
    DecodeError::protocol(what, clause).with_reason(ReasonCode::UnsupportedProtocolVersion)
}

fn check_flags(version: Version, flags: u8) -> Result<(), DecodeError> {
    // [MQTT-3.1.2-3]. 3.1 calls the bit unused.
    if flags & 0x01 != 0 && version != Version::V3_1 {
        return Err(DecodeError::malformed("the reserved flag of CONNECT is set", "MQTT-3.1.2-3"));
    }
    // [MQTT-3.1.2-11], [MQTT-3.1.2-13], 3.1.1: [MQTT-3.1.2-13], [MQTT-3.1.2-15]
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::malformed(
            "CONNECT has a will QoS or retain without a will",
            "MQTT-3.1.2-11",
        ));
    }
    // 3.1.1: [MQTT-3.1.2-22]
    if flags & PASSWORD != 0 && flags & USERNAME == 0 && !version.is_v5() {
        return Err(DecodeError::malformed("CONNECT has a password without a user name", "MQTT-3.1.2-22"));
    }
    Ok(())
}

impl fmt::Debug for Connect<'_> {
    /// Leaves the password out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("bridge", &self.bridge)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("properties", &self.properties)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("has_password", &self.password.is_some())
            .finish()
    }
}

impl fmt::Debug for Will<'_> {
    /// Leaves the payload out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("properties", &self.properties)
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// CONNACK: the answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server has a session to go on with. 3.1 cannot say.
    pub session_present: bool,
    /// How it went. 3.1 and 3.1.1 have six values; [`ReasonCode::to_v3_connack`] says which.
    pub reason: ReasonCode,
    /// Properties of 5.0.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    /// Reads and checks a CONNACK.
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        frame.check_flags(version, 0)?;
        let mut r = Reader::new(frame.body);
        let flags = r.u8()?;
        // [MQTT-3.2.2-1]. In 3.1 the byte is unused.
        if flags > 1 && version != Version::V3_1 {
            return Err(DecodeError::malformed("a reserved flag of CONNACK is set", "MQTT-3.2.2-1"));
        }
        let session_present = flags == 1 && version != Version::V3_1;
        let reason = read_connack_reason(version, r.u8()?)?;
        // [MQTT-3.2.2-6], 3.1.1: [MQTT-3.2.2-4]
        if session_present && reason != ReasonCode::Success {
            return Err(DecodeError::protocol("a refusing CONNACK has Session Present", "MQTT-3.2.2-6"));
        }
        let properties = Properties::read(&mut r, version, PropertyContext::Packet(PacketType::ConnAck))?;
        r.finish()?;
        Ok(ConnAck { session_present, reason, properties })
    }

    /// Appends the packet. Session Present is not written beside an error.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(PacketType::ConnAck.first_byte(), out, |out| {
            // [MQTT-3.2.2-6]
            let present =
                self.session_present && self.reason == ReasonCode::Success && version != Version::V3_1;
            let reason = if version.is_v5() { self.reason as u8 } else { self.reason.to_v3_connack() };
            out.extend_from_slice(&[u8::from(present), reason]);
            put_properties(version, self.properties, out)
        })
    }
}

fn read_connack_reason(version: Version, value: u8) -> Result<ReasonCode, DecodeError> {
    // [MQTT-3.2.2-8]
    if version.is_v5() {
        return ReasonCode::read(value, PacketType::ConnAck, "MQTT-3.2.2-8");
    }
    ReasonCode::from_v3_connack(value)
        .ok_or(DecodeError::malformed("the return code of CONNACK does not exist", "MQTT-3.2.2-6"))
}
