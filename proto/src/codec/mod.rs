//! The packets of MQTT 3.1, 3.1.1 and 5.0, as borrowed views over the bytes that carried them.
//!
//! A [`Framer`] cuts a byte stream into [`Frame`]s; [`Packet::decode`] checks a frame completely and gives a
//! view of it; [`Packet::encode`] appends a packet to a buffer. There is one struct per packet for all
//! versions: what a version does not have (properties, most reason codes) decodes to its default and is left
//! out when encoding.
//!
//! What is checked here is what one packet can tell by itself: lengths, flags, reserved bits, UTF-8, packet
//! identifiers, properties, reason codes, topic names. Which side may send a packet, and when, is the business
//! of the state machines; the syntax of topic filters that of [`crate::topic`].
//!
//! Decoding allocates nothing, and iterating over what was decoded cannot fail.

mod connect;
mod disconnect;
mod error;
mod frame;
mod packet;
mod property;
mod publish;
mod reason;
mod subscribe;
mod wire;

#[doc(hidden)]
pub mod check;

pub use connect::{ConnAck, Connect, Will};
pub use disconnect::{Auth, Disconnect};
pub use error::{DecodeError, EncodeError, ErrorKind};
pub use frame::{Frame, Framer, Step};
pub use packet::{Packet, PacketType, QoS, Version};
pub use property::{Properties, PropertiesBuf, PropertiesIter, Property, PropertyContext};
pub use publish::{Ack, Publish};
pub use reason::ReasonCode;
pub use subscribe::{
    RetainHandling, SubAck, Subscribe, SubscribeFilters, SubscribeOptions, UnsubAck, Unsubscribe,
    UnsubscribeFilters, encode_subscribe, encode_unsubscribe,
};
pub(crate) use wire::is_character;
pub use wire::{VARINT_MAX, put_binary, put_string, put_varint, read_varint, varint_len};
