//! The properties of MQTT 5.0.
//!
//! One table says for each property its identifier, its data type, the values it may have and the packets that
//! may carry it. [`Properties::validate`] goes once through the bytes; from then on iterating cannot fail.

use alloc::vec::Vec;
use core::fmt;
use core::iter::FusedIterator;

use super::wire::Reader;
use super::{DecodeError, EncodeError, PacketType, ReasonCode, VARINT_MAX, Version};

/// What properties belong to: a packet, or the will in a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyContext {
    /// The properties in the variable header of a packet.
    Packet(PacketType),
    /// The will properties in the payload of a CONNECT.
    Will,
}

impl PropertyContext {
    /// One bit per packet type; the will takes the bit of the reserved type 0.
    #[inline]
    const fn bit(self) -> u16 {
        match self {
            PropertyContext::Packet(packet_type) => 1 << packet_type as u16,
            PropertyContext::Will => 1,
        }
    }
}

/// The rules of one property, as the table has them.
struct Rules {
    packets: u16,
    value: ValueRule,
}

/// Which values of its data type a property may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueRule {
    Any,
    ZeroOrOne,
    NotZero,
    TopicAlias,
    TopicName,
}

/// The data types: how each is read, skipped and written.
mod read {
    use super::{DecodeError, Reader};

    pub fn byte(r: &mut Reader<'_>) -> Result<u8, DecodeError> {
        r.u8()
    }
    pub fn two(r: &mut Reader<'_>) -> Result<u16, DecodeError> {
        r.u16()
    }
    pub fn four(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
        r.u32()
    }
    pub fn varint(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
        r.varint()
    }
    pub fn text<'a>(r: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
        r.string()
    }
    pub fn data<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
        r.binary()
    }
}

mod skip {
    use super::{DecodeError, Reader};

    pub fn byte(r: &mut Reader<'_>) -> Result<(), DecodeError> {
        r.bytes(1).map(drop)
    }
    pub fn two(r: &mut Reader<'_>) -> Result<(), DecodeError> {
        r.bytes(2).map(drop)
    }
    pub fn four(r: &mut Reader<'_>) -> Result<(), DecodeError> {
        r.bytes(4).map(drop)
    }
    pub fn varint(r: &mut Reader<'_>) -> Result<(), DecodeError> {
        r.varint().map(drop)
    }
    pub fn text(r: &mut Reader<'_>) -> Result<(), DecodeError> {
        r.binary().map(drop)
    }
    pub fn data(r: &mut Reader<'_>) -> Result<(), DecodeError> {
        r.binary().map(drop)
    }
}

mod put {
    use super::{EncodeError, VARINT_MAX, Vec};
    use crate::codec::{put_binary, put_string, put_varint};

    pub fn byte(value: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(value);
        Ok(())
    }
    pub fn two(value: u16, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }
    pub fn four(value: u32, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }
    pub fn varint(value: u32, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if value > VARINT_MAX {
            return Err(EncodeError::ValueOutOfRange);
        }
        put_varint(value, out);
        Ok(())
    }
    pub fn text(value: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_string(value, out)
    }
    pub fn data(value: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_binary(value, out)
    }
}

mod len {
    pub fn byte(_: u8) -> usize {
        1
    }
    pub fn two(_: u16) -> usize {
        2
    }
    pub fn four(_: u32) -> usize {
        4
    }
    pub fn varint(value: u32) -> usize {
        crate::codec::varint_len(value)
    }
    pub fn text(value: &str) -> usize {
        2 + value.len()
    }
    pub fn data(value: &[u8]) -> usize {
        2 + value.len()
    }
}

macro_rules! packets {
    (Will) => {
        PropertyContext::Will.bit()
    };
    ($packet:ident) => {
        PropertyContext::Packet(PacketType::$packet).bit()
    };
}

macro_rules! properties {
    ($(
        $id:literal $name:ident($($field:ident: $type:ty as $wire:ident),+) $rule:ident
        in $($packet:ident)+ $(=> $getter:ident: $got:ty, $doc:literal)?;
    )+) => {
        /// One property.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Property<'a> {
            $(#[doc = concat!("Identifier ", stringify!($id), ".")] $name($($type),+),)+
        }

        impl<'a> Property<'a> {
            /// The identifier.
            pub const fn id(&self) -> u8 {
                match self {
                    $(Property::$name(..) => $id,)+
                }
            }

            /// Appends identifier and value. On error `out` is as before.
            pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                let start = out.len();
                out.push(self.id());
                let result = match *self {
                    $(Property::$name($($field),+) => Ok(())$(.and_then(|()| put::$wire($field, out)))+,)+
                };
                if result.is_err() {
                    out.truncate(start);
                }
                result
            }

            /// How many bytes [`Property::encode`] appends.
            pub fn encoded_len(&self) -> usize {
                match *self {
                    $(Property::$name($($field),+) => 1 $(+ len::$wire($field))+,)+
                }
            }

            fn read(r: &mut Reader<'a>) -> Result<Property<'a>, DecodeError> {
                Ok(match r.u8()? {
                    $($id => Property::$name($(read::$wire(r)?),+),)+
                    _ => return Err(UNKNOWN),
                })
            }
        }

        /// Moves over the value of the property `id`.
        fn skip_value(id: u8, r: &mut Reader<'_>) -> Result<(), DecodeError> {
            match id {
                $($id => { $(skip::$wire(r)?;)+ })+
                _ => return Err(UNKNOWN),
            }
            Ok(())
        }

        const fn rules(id: u8) -> Option<Rules> {
            Some(match id {
                $($id => Rules { packets: $(packets!($packet))|+, value: ValueRule::$rule },)+
                _ => return None,
            })
        }

        impl<'a> Properties<'a> {
            $($(
                #[doc = $doc]
                pub fn $getter(&self) -> Option<$got> {
                    match self.find($id) {
                        Some(Property::$name(value)) => Some(value),
                        _ => None,
                    }
                }
            )?)+
        }
    };
}

properties! {
    0x01 PayloadFormatIndicator(value: u8 as byte) ZeroOrOne in Publish Will
        => payload_format_indicator: u8, "1 when the payload is UTF-8 text.";
    0x02 MessageExpiryInterval(value: u32 as four) Any in Publish Will
        => message_expiry_interval: u32, "The lifetime of the message in seconds.";
    0x03 ContentType(value: &'a str as text) Any in Publish Will
        => content_type: &'a str, "What the payload is, in the application's words.";
    0x08 ResponseTopic(value: &'a str as text) TopicName in Publish Will
        => response_topic: &'a str, "The topic to answer to.";
    0x09 CorrelationData(value: &'a [u8] as data) Any in Publish Will
        => correlation_data: &'a [u8], "What tells the requester which request an answer is for.";
    0x0b SubscriptionIdentifier(value: u32 as varint) NotZero in Publish Subscribe;
    0x11 SessionExpiryInterval(value: u32 as four) Any in Connect ConnAck Disconnect
        => session_expiry_interval: u32, "How long the session outlives its connection, in seconds; `u32::MAX` is for ever.";
    0x12 AssignedClientIdentifier(value: &'a str as text) Any in ConnAck
        => assigned_client_identifier: &'a str, "The client identifier the server chose.";
    0x13 ServerKeepAlive(value: u16 as two) Any in ConnAck
        => server_keep_alive: u16, "The keep alive to use instead of the client's, in seconds.";
    0x15 AuthenticationMethod(value: &'a str as text) Any in Connect ConnAck Auth
        => authentication_method: &'a str, "The name of the authentication method.";
    0x16 AuthenticationData(value: &'a [u8] as data) Any in Connect ConnAck Auth
        => authentication_data: &'a [u8], "The data of the authentication method.";
    0x17 RequestProblemInformation(value: u8 as byte) ZeroOrOne in Connect
        => request_problem_information: u8, "0 when the client wants no reason strings and user properties on errors.";
    0x18 WillDelayInterval(value: u32 as four) Any in Will
        => will_delay_interval: u32, "How long after the connection the will is published, in seconds.";
    0x19 RequestResponseInformation(value: u8 as byte) ZeroOrOne in Connect
        => request_response_information: u8, "1 when the client asks for Response Information.";
    0x1a ResponseInformation(value: &'a str as text) Any in ConnAck
        => response_information: &'a str, "The basis for response topics.";
    0x1c ServerReference(value: &'a str as text) Any in ConnAck Disconnect
        => server_reference: &'a str, "Another server to use.";
    0x1f ReasonString(value: &'a str as text) Any
        in ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth
        => reason_string: &'a str, "The reason in words, for people.";
    0x21 ReceiveMaximum(value: u16 as two) NotZero in Connect ConnAck
        => receive_maximum: u16, "How many QoS 1 and 2 messages may be in flight; 65,535 when absent.";
    0x22 TopicAliasMaximum(value: u16 as two) Any in Connect ConnAck
        => topic_alias_maximum: u16, "The highest topic alias accepted; 0 when absent.";
    0x23 TopicAlias(value: u16 as two) TopicAlias in Publish
        => topic_alias: u16, "A number for the topic.";
    0x24 MaximumQoS(value: u8 as byte) ZeroOrOne in ConnAck
        => maximum_qos: u8, "The highest QoS the server takes; 2 when absent.";
    0x25 RetainAvailable(value: u8 as byte) ZeroOrOne in ConnAck
        => retain_available: u8, "0 when the server has no retained messages.";
    0x26 UserProperty(name: &'a str as text, value: &'a str as text) Any
        in Connect ConnAck Publish Will PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck
           Disconnect Auth;
    0x27 MaximumPacketSize(value: u32 as four) NotZero in Connect ConnAck
        => maximum_packet_size: u32, "The longest packet accepted, fixed header included; unlimited when absent.";
    0x28 WildcardSubscriptionAvailable(value: u8 as byte) ZeroOrOne in ConnAck
        => wildcard_subscription_available: u8, "0 when the server takes no wildcards.";
    0x29 SubscriptionIdentifierAvailable(value: u8 as byte) ZeroOrOne in ConnAck
        => subscription_identifier_available: u8, "0 when the server takes no subscription identifiers.";
    0x2a SharedSubscriptionAvailable(value: u8 as byte) ZeroOrOne in ConnAck
        => shared_subscription_available: u8, "0 when the server takes no shared subscriptions.";
}

const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
const AUTHENTICATION_METHOD: u8 = 0x15;
const AUTHENTICATION_DATA: u8 = 0x16;
const USER_PROPERTY: u8 = 0x26;

const UNKNOWN: DecodeError = DecodeError::malformed("a property has an unknown identifier", "MQTT 2.2.2.2");

/// The properties of a packet: their bytes, checked.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    raw: &'a [u8],
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { raw: &[] };

    /// Checks properties: their bytes without the property length before them.
    pub fn validate(raw: &'a [u8], context: PropertyContext) -> Result<Self, DecodeError> {
        let mut r = Reader::new(raw);
        let mut seen = 0u64;
        while !r.is_empty() {
            // Strings are checked here, both of a user property [MQTT-1.5.7-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19].
            let property = Property::read(&mut r)?;
            let id = property.id();
            property.check(context)?;
            let repeats = id == USER_PROPERTY
                || id == SUBSCRIPTION_IDENTIFIER && context == PropertyContext::Packet(PacketType::Publish);
            if seen & 1 << id != 0 && !repeats {
                return Err(DecodeError::protocol(
                    "a property that may occur once occurs twice",
                    "MQTT 2.2.2.2",
                ));
            }
            seen |= 1 << id;
        }
        if seen & 1 << AUTHENTICATION_DATA != 0 && seen & 1 << AUTHENTICATION_METHOD == 0 {
            return Err(DecodeError::protocol(
                "there is Authentication Data without an Authentication Method",
                "MQTT 3.1.2.11.10",
            ));
        }
        Ok(Properties { raw })
    }

    /// What was checked before, or put together here.
    pub(crate) const fn known(raw: &'a [u8]) -> Self {
        Properties { raw }
    }

    /// The bytes, without the property length before them.
    #[inline]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// All properties, in the order of the packet.
    pub fn iter(&self) -> PropertiesIter<'a> {
        PropertiesIter { rest: Reader::new(self.raw) }
    }

    /// The subscription identifiers; a PUBLISH may have several.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + 'a {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }

    /// The user properties, in order, name and value; names may repeat.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// The first property with this identifier.
    fn find(&self, id: u8) -> Option<Property<'a>> {
        let mut r = Reader::new(self.raw);
        loop {
            let mut here = r;
            let found = r.u8().ok()?;
            if found == id {
                return Property::read(&mut here).ok();
            }
            skip_value(found, &mut r).ok()?;
        }
    }

    /// Reads the property length and the properties, where the version has them.
    #[inline(always)]
    pub(super) fn read(
        r: &mut Reader<'a>,
        version: Version,
        context: PropertyContext,
    ) -> Result<Self, DecodeError> {
        if !version.is_v5() || r.skip_zero() {
            return Ok(Properties::EMPTY);
        }
        let (properties, rest) = Properties::read_some(*r, context)?;
        *r = rest;
        Ok(properties)
    }

    // Takes and gives the reader by value, so that the callers' one can stay in registers.
    #[inline(never)]
    fn read_some(mut r: Reader<'a>, context: PropertyContext) -> Result<(Self, Reader<'a>), DecodeError> {
        let len = r.varint()?;
        let properties = Properties::validate(r.bytes(len as usize)?, context)?;
        Ok((properties, r))
    }
}

impl fmt::Debug for Properties<'_> {
    /// Leaves the authentication data out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().filter(|property| property.id() != AUTHENTICATION_DATA);
        f.debug_list().entries(shown).finish()
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertiesIter<'a>;

    fn into_iter(self) -> PropertiesIter<'a> {
        self.iter()
    }
}

/// Iterator over [`Properties`].
#[derive(Clone, Debug)]
pub struct PropertiesIter<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for PropertiesIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        // Only checked bytes get here; the end is the one error left.
        Property::read(&mut self.rest).ok()
    }
}

impl FusedIterator for PropertiesIter<'_> {}

impl Property<'_> {
    /// Whether the packet may have the property, with this value.
    fn check(&self, context: PropertyContext) -> Result<(), DecodeError> {
        let Some(rules) = rules(self.id()) else { return Err(UNKNOWN) };
        if rules.packets & context.bit() == 0 {
            let (what, clause) = ("a property does not belong to its packet", "MQTT 2.2.2.2");
            // The standard calls it malformed in some places and a protocol error in others; mosquitto answers so.
            return Err(match context {
                PropertyContext::Packet(PacketType::Subscribe | PacketType::Unsubscribe) => {
                    DecodeError::malformed(what, clause)
                }
                _ => DecodeError::protocol(what, clause),
            });
        }
        match rules.value {
            ValueRule::Any => Ok(()),
            ValueRule::ZeroOrOne if self.number() <= 1 => Ok(()),
            ValueRule::ZeroOrOne => {
                Err(DecodeError::protocol("a property is neither 0 nor 1", "MQTT 2.2.2.2"))
            }
            ValueRule::NotZero if self.number() != 0 => Ok(()),
            ValueRule::NotZero => {
                Err(DecodeError::protocol("a property that must not be zero is", "MQTT 2.2.2.2"))
            }
            ValueRule::TopicAlias if self.number() != 0 => Ok(()),
            // [MQTT-3.3.2-8]
            ValueRule::TopicAlias => Err(DecodeError::protocol("the Topic Alias is zero", "MQTT-3.3.2-8")
                .with_reason(ReasonCode::TopicAliasInvalid)),
            // [MQTT-3.3.2-14]
            ValueRule::TopicName => match *self {
                Property::ResponseTopic("") => {
                    Err(DecodeError::protocol("the Response Topic is empty", "MQTT-4.7.3-1"))
                }
                Property::ResponseTopic(topic) if topic.contains(['+', '#']) => Err(DecodeError::protocol(
                    "the Response Topic contains a wildcard character",
                    "MQTT-3.3.2-14",
                )),
                _ => Ok(()),
            },
        }
    }

    /// The value, for the rules about numbers.
    fn number(&self) -> u32 {
        match *self {
            Property::PayloadFormatIndicator(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::MaximumQoS(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value) => u32::from(value),
            Property::ReceiveMaximum(value) | Property::TopicAlias(value) => u32::from(value),
            Property::SubscriptionIdentifier(value) | Property::MaximumPacketSize(value) => value,
            _ => 1,
        }
    }
}

/// Properties being put together.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PropertiesBuf(Vec<u8>);

impl fmt::Debug for PropertiesBuf {
    /// As [`Properties`]: leaves the authentication data out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_properties().fmt(f)
    }
}

impl PropertiesBuf {
    /// Appends a property, or leaves it out when it cannot be encoded: a string that is too long or has a null
    /// character. [`PropertiesBuf::try_push`] is for values that nobody has checked.
    pub fn push(&mut self, property: Property<'_>) {
        let _ = self.try_push(property);
    }

    /// Appends a property.
    pub fn try_push(&mut self, property: Property<'_>) -> Result<(), EncodeError> {
        property.encode(&mut self.0)
    }

    /// A view to put into a packet. Whether the packet may carry these properties is up to the caller.
    #[inline]
    pub fn as_properties(&self) -> Properties<'_> {
        Properties { raw: &self.0 }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all properties and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<'a> Extend<Property<'a>> for PropertiesBuf {
    fn extend<I: IntoIterator<Item = Property<'a>>>(&mut self, properties: I) {
        properties.into_iter().for_each(|property| self.push(property));
    }
}
