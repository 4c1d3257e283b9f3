//! DISCONNECT and AUTH.

use alloc::vec::Vec;

use super::publish::put_reason;
use super::wire::{Reader, put_packet, put_properties};
use super::{DecodeError, EncodeError, Frame, PacketType, Properties, PropertyContext, ReasonCode, Version};

/// DISCONNECT: the last packet of a connection. A server sends it in 5.0 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why. Always `NormalDisconnection` in 3.1 and 3.1.1.
    pub reason: ReasonCode,
    /// Properties of 5.0.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Reads and checks a DISCONNECT.
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        // [MQTT-3.14.1-1]
        frame.check_flags(version, 0)?;
        let mut packet =
            Disconnect { reason: ReasonCode::NormalDisconnection, properties: Properties::EMPTY };
        let mut r = Reader::new(frame.body);
        // The reason code may be left out when it is 0, then the property length when it is 0.
        if version.is_v5() && !r.is_empty() {
            // [MQTT-3.14.2-1]
            packet.reason = ReasonCode::read(r.u8()?, PacketType::Disconnect, "MQTT-3.14.2-1")
                .map_err(DecodeError::quietly)?;
            if !r.is_empty() {
                let context = PropertyContext::Packet(PacketType::Disconnect);
                packet.properties = Properties::read(&mut r, version, context)?;
            }
        }
        r.finish()?;
        Ok(packet)
    }

    /// Appends the packet, in its shortest form.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(PacketType::Disconnect.first_byte(), out, |out| {
            put_reason(version, self.reason, self.properties, out)
        })
    }
}

/// AUTH: a step of an authentication exchange in 5.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// `Success`, `ContinueAuthentication` or `ReAuthenticate`.
    pub reason: ReasonCode,
    /// Properties: the authentication method and its data.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    /// Reads and checks an AUTH. Earlier versions than 5.0 have none.
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        if !version.is_v5() {
            return Err(DecodeError::malformed("packet type 15 is reserved before 5.0", "MQTT 2.2.1"));
        }
        // [MQTT-3.15.1-1]
        frame.check_flags(version, 0)?;
        let mut packet = Auth { reason: ReasonCode::Success, properties: Properties::EMPTY };
        let mut r = Reader::new(frame.body);
        // Both may be left out together only.
        if !r.is_empty() {
            // [MQTT-3.15.2-1]
            packet.reason = ReasonCode::read(r.u8()?, PacketType::Auth, "MQTT-3.15.2-1")?;
            let context = PropertyContext::Packet(PacketType::Auth);
            packet.properties = Properties::read(&mut r, version, context)?;
        }
        r.finish()?;
        Ok(packet)
    }

    /// Appends the packet, in its shortest form.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.is_v5() {
            return Err(EncodeError::NotInVersion);
        }
        put_packet(PacketType::Auth.first_byte(), out, |out| {
            if self.reason == ReasonCode::Success && self.properties.is_empty() {
                return Ok(());
            }
            out.push(self.reason as u8);
            put_properties(version, self.properties, out)
        })
    }
}
