//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK.

use alloc::vec::Vec;
use core::iter::FusedIterator;

use super::wire::{Reader, put_packet, put_packet_id, put_properties, put_string};
use super::{
    DecodeError, EncodeError, Frame, PacketType, Properties, PropertyContext, QoS, ReasonCode, Version,
};

/// When a new subscription is sent the retained messages.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// With every SUBSCRIBE, as before 5.0.
    #[default]
    SendAtSubscribe = 0,
    /// With a SUBSCRIBE for a subscription that did not exist.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// What a SUBSCRIBE asks for with each topic filter. Before 5.0 there is only `qos`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// The maximum QoS to send messages with.
    pub qos: QoS,
    /// Do not send messages back to the client that published them.
    pub no_local: bool,
    /// Keep the RETAIN flag as the publisher set it.
    pub retain_as_published: bool,
    /// When to send the retained messages.
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// Options with a QoS and the defaults of 3.1.1.
    #[inline]
    pub const fn new(qos: QoS) -> Self {
        SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    /// The options byte of 5.0.
    #[inline]
    pub const fn to_byte(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }

    /// The options of an options byte of 5.0, `None` when it is not valid.
    #[inline]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        if byte & 0xc0 != 0 {
            return None;
        }
        let Some(qos) = QoS::from_u8(byte & 0x03) else { return None };
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        };
        Some(SubscribeOptions {
            qos,
            no_local: byte & 0x04 != 0,
            retain_as_published: byte & 0x08 != 0,
            retain_handling,
        })
    }

    fn read(version: Version, byte: u8) -> Result<Self, DecodeError> {
        let reserved = if version.is_v5() { 0xc0 } else { 0xfc };
        // [MQTT-3.8.3-5], 3.1.1: [MQTT-3.8.3-4]
        if byte & reserved != 0 {
            return Err(DecodeError::malformed("reserved bits of the options are set", "MQTT-3.8.3-5"));
        }
        match SubscribeOptions::from_byte(byte) {
            Some(options) => Ok(options),
            None if version.is_v5() => {
                Err(DecodeError::malformed("a QoS or Retain Handling is 3", "MQTT 3.8.3.1"))
            }
            None => Err(DecodeError::malformed("a requested QoS is 3", "MQTT-3.8.3-4")),
        }
    }
}

/// SUBSCRIBE: topic filters a client wants messages for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The packet identifier, for the SUBACK.
    pub packet_id: u16,
    /// Properties of 5.0.
    pub properties: Properties<'a>,
    // Checked by `decode`.
    filters: SubscribeFilters<'a>,
}

impl<'a> Subscribe<'a> {
    /// Reads and checks a SUBSCRIBE. Of the topic filters' syntax only that they are not empty is checked.
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        // [MQTT-3.8.1-1]
        frame.check_flags(version, PacketType::Subscribe.flags())?;
        let mut r = Reader::new(frame.body);
        // [MQTT-2.2.1-3], 3.1.1: [MQTT-2.3.1-1]
        let packet_id = r.request_id()?;
        let properties = Properties::read(&mut r, version, PropertyContext::Packet(PacketType::Subscribe))?;
        let payload = r;
        let mut len = 0;
        while !r.is_empty() {
            // [MQTT-3.8.3-1]
            r.filter()?;
            SubscribeOptions::read(version, r.u8()?)?;
            len += 1;
        }
        // [MQTT-3.8.3-2], 3.1.1: [MQTT-3.8.3-3]
        if len == 0 {
            return Err(DecodeError::malformed("a SUBSCRIBE has no topic filter", "MQTT-3.8.3-2"));
        }
        Ok(Subscribe { packet_id, properties, filters: SubscribeFilters { rest: payload, len, version } })
    }

    /// The topic filters with their options, in order.
    #[inline]
    pub fn filters(&self) -> SubscribeFilters<'a> {
        self.filters
    }

    /// How many topic filters there are; at least one.
    #[inline]
    pub fn len(&self) -> usize {
        self.filters.len
    }

    /// Always false: a SUBSCRIBE has a topic filter.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.filters.len == 0
    }

    /// Appends the packet. See also [`encode_subscribe`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_subscribe(version, self.packet_id, self.properties, self.filters(), out)
    }
}

/// The topic filters of a [`Subscribe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilters<'a> {
    rest: Reader<'a>,
    len: usize,
    version: Version,
}

impl<'a> Iterator for SubscribeFilters<'a> {
    type Item = (&'a str, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        let filter = self.rest.string().ok()?;
        let options = SubscribeOptions::read(self.version, self.rest.u8().ok()?).ok()?;
        self.len = self.len.saturating_sub(1);
        Some((filter, options))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for SubscribeFilters<'_> {}
impl FusedIterator for SubscribeFilters<'_> {}

/// Appends a SUBSCRIBE for the given topic filters. Their syntax is up to the caller.
pub fn encode_subscribe(
    version: Version,
    packet_id: u16,
    properties: Properties<'_>,
    filters: &[(&str, SubscribeOptions)],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    put_subscribe(version, packet_id, properties, filters.iter().copied(), out)
}

fn put_subscribe<'f>(
    version: Version,
    packet_id: u16,
    properties: Properties<'_>,
    filters: impl ExactSizeIterator<Item = (&'f str, SubscribeOptions)>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if filters.len() == 0 {
        return Err(EncodeError::Empty);
    }
    put_packet(PacketType::Subscribe.first_byte(), out, |out| {
        put_packet_id(packet_id, out)?;
        put_properties(version, properties, out)?;
        for (filter, options) in filters {
            put_string(filter, out)?;
            out.push(if version.is_v5() { options.to_byte() } else { options.qos as u8 });
        }
        Ok(())
    })
}

/// SUBACK: the answer to SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The packet identifier of the SUBSCRIBE.
    pub packet_id: u16,
    /// Properties of 5.0.
    pub properties: Properties<'a>,
    /// One code per topic filter: the granted QoS, or 0x80 and above. Before 5.0 every error is 0x80.
    pub codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    /// Reads and checks a SUBACK.
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        frame.check_flags(version, 0)?;
        let mut r = Reader::new(frame.body);
        let packet_id = r.packet_id("MQTT-2.2.1-6")?;
        let properties = Properties::read(&mut r, version, PropertyContext::Packet(PacketType::SubAck))?;
        let codes = r.rest();
        if codes.is_empty() {
            return Err(DecodeError::protocol("a SUBACK has no code", "MQTT-3.8.4-6"));
        }
        for &code in codes {
            // [MQTT-3.9.3-2]
            if version.is_v5() {
                ReasonCode::read(code, PacketType::SubAck, "MQTT-3.9.3-2")?;
            } else if !matches!(code, 0..=2 | 0x80) {
                return Err(DecodeError::malformed("a return code of SUBACK does not exist", "MQTT-3.9.3-2"));
            }
        }
        Ok(SubAck { packet_id, properties, codes })
    }

    /// Appends the packet. Before 5.0 every error is written as 0x80.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.codes.is_empty() {
            return Err(EncodeError::Empty);
        }
        put_packet(PacketType::SubAck.first_byte(), out, |out| {
            put_packet_id(self.packet_id, out)?;
            put_properties(version, self.properties, out)?;
            let v5 = version.is_v5();
            out.extend(self.codes.iter().map(|&code| if v5 { code } else { code.min(0x80) }));
            Ok(())
        })
    }
}

/// UNSUBSCRIBE: topic filters a client wants no more messages for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The packet identifier, for the UNSUBACK.
    pub packet_id: u16,
    /// Properties of 5.0.
    pub properties: Properties<'a>,
    // Checked by `decode`.
    filters: UnsubscribeFilters<'a>,
}

impl<'a> Unsubscribe<'a> {
    /// Reads and checks an UNSUBSCRIBE. Of the topic filters' syntax only that they are not empty is checked.
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        // [MQTT-3.10.1-1]
        frame.check_flags(version, PacketType::Unsubscribe.flags())?;
        let mut r = Reader::new(frame.body);
        // [MQTT-2.2.1-3], 3.1.1: [MQTT-2.3.1-1]
        let packet_id = r.request_id()?;
        let properties = Properties::read(&mut r, version, PropertyContext::Packet(PacketType::Unsubscribe))?;
        let payload = r;
        let mut len = 0;
        while !r.is_empty() {
            // [MQTT-3.10.3-1]
            r.filter()?;
            len += 1;
        }
        // [MQTT-3.10.3-2]
        if len == 0 {
            return Err(DecodeError::malformed("an UNSUBSCRIBE has no topic filter", "MQTT-3.10.3-2"));
        }
        Ok(Unsubscribe { packet_id, properties, filters: UnsubscribeFilters { rest: payload, len } })
    }

    /// The topic filters, in order.
    #[inline]
    pub fn filters(&self) -> UnsubscribeFilters<'a> {
        self.filters
    }

    /// How many topic filters there are; at least one.
    #[inline]
    pub fn len(&self) -> usize {
        self.filters.len
    }

    /// Always false: an UNSUBSCRIBE has a topic filter.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.filters.len == 0
    }

    /// Appends the packet. See also [`encode_unsubscribe`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_unsubscribe(version, self.packet_id, self.properties, self.filters(), out)
    }
}

/// The topic filters of an [`Unsubscribe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    rest: Reader<'a>,
    len: usize,
}

impl<'a> Iterator for UnsubscribeFilters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let filter = self.rest.string().ok()?;
        self.len = self.len.saturating_sub(1);
        Some(filter)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for UnsubscribeFilters<'_> {}
impl FusedIterator for UnsubscribeFilters<'_> {}

/// Appends an UNSUBSCRIBE for the given topic filters. Their syntax is up to the caller.
pub fn encode_unsubscribe(
    version: Version,
    packet_id: u16,
    properties: Properties<'_>,
    filters: &[&str],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    put_unsubscribe(version, packet_id, properties, filters.iter().copied(), out)
}

fn put_unsubscribe<'f>(
    version: Version,
    packet_id: u16,
    properties: Properties<'_>,
    filters: impl ExactSizeIterator<Item = &'f str>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if filters.len() == 0 {
        return Err(EncodeError::Empty);
    }
    put_packet(PacketType::Unsubscribe.first_byte(), out, |out| {
        put_packet_id(packet_id, out)?;
        put_properties(version, properties, out)?;
        for filter in filters {
            put_string(filter, out)?;
        }
        Ok(())
    })
}

/// UNSUBACK: the answer to UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The packet identifier of the UNSUBSCRIBE.
    pub packet_id: u16,
    /// Properties of 5.0.
    pub properties: Properties<'a>,
    /// One reason code per topic filter; none before 5.0.
    pub codes: &'a [u8],
}

impl<'a> UnsubAck<'a> {
    /// Reads and checks an UNSUBACK.
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        frame.check_flags(version, 0)?;
        let mut r = Reader::new(frame.body);
        let packet_id = r.packet_id("MQTT-2.2.1-6")?;
        if !version.is_v5() {
            r.finish()?;
            return Ok(UnsubAck { packet_id, properties: Properties::EMPTY, codes: &[] });
        }
        let properties = Properties::read(&mut r, version, PropertyContext::Packet(PacketType::UnsubAck))?;
        let codes = r.rest();
        if codes.is_empty() {
            return Err(DecodeError::protocol("an UNSUBACK has no code", "MQTT-3.11.3-2"));
        }
        for &code in codes {
            // [MQTT-3.11.3-2]
            ReasonCode::read(code, PacketType::UnsubAck, "MQTT-3.11.3-2")?;
        }
        Ok(UnsubAck { packet_id, properties, codes })
    }

    /// Appends the packet. Before 5.0 the codes are left out.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version.is_v5() && self.codes.is_empty() {
            return Err(EncodeError::Empty);
        }
        put_packet(PacketType::UnsubAck.first_byte(), out, |out| {
            put_packet_id(self.packet_id, out)?;
            put_properties(version, self.properties, out)?;
            if version.is_v5() {
                out.extend_from_slice(self.codes);
            }
            Ok(())
        })
    }
}
