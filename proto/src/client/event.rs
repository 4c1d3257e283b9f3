//! What comes out of a client: events, and the errors of its commands.

use super::OptionsError;
use crate::codec::PacketType;
use crate::codec::{DecodeError, EncodeError, Properties, PropertiesBuf, PropertyContext, QoS, ReasonCode};
use crate::message::Message;
use crate::session::SubscriptionIds;
use crate::time::Instant;
use crate::topic::TopicError;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The name of something begun by a command. Tickets of one client ascend and are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

impl Ticket {
    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// The name of a received message that the application is to acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AckToken(pub(super) u64);

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The server let us in.
    Connected(Connected),
    /// The server did not let us in; close and call
    /// [`transport_down`](super::Client::transport_down). No [`Event::Disconnected`] follows.
    Refused {
        /// Why.
        reason: ReasonCode,
        /// Properties of the CONNACK (5.0): reason string, server reference, …
        properties: PropertiesBuf,
    },
    /// A message came.
    Message(Received),
    /// A QoS 1 or 2 message has reached the server: the last event of its ticket. An error code says that the
    /// server did not take it.
    Published {
        /// What [`publish`](super::Client::publish) gave.
        ticket: Ticket,
        /// What the server said; always success before 5.0.
        reason: ReasonCode,
    },
    /// Something was given up: the last event of its ticket.
    Dropped {
        /// What the command gave.
        ticket: Ticket,
        /// Why.
        why: Dropped,
    },
    /// The answer to a SUBSCRIBE.
    Subscribed {
        /// What [`subscribe`](super::Client::subscribe) gave.
        ticket: Ticket,
        /// One code per filter, in order: the granted QoS or an error.
        codes: Vec<ReasonCode>,
        /// Properties (5.0).
        properties: PropertiesBuf,
    },
    /// The answer to an UNSUBSCRIBE.
    Unsubscribed {
        /// What [`unsubscribe`](super::Client::unsubscribe) gave.
        ticket: Ticket,
        /// One code per filter, in order; before 5.0 all success.
        codes: Vec<ReasonCode>,
        /// Properties (5.0).
        properties: PropertiesBuf,
    },
    /// A step of enhanced authentication (5.0). `ContinueAuthentication` wants
    /// [`authenticate`](super::Client::authenticate); `Success` ends a re-authentication.
    Auth {
        /// Which step.
        reason: ReasonCode,
        /// The authentication data and all else.
        properties: PropertiesBuf,
    },
    /// The server no longer has the session of the connection before: subscriptions are gone. Comes right before
    /// [`Event::Connected`]. QoS 1 messages in flight are sent as new ones, QoS 2 messages in flight dropped.
    SessionLost,
    /// The connection ended, or its end was decided: see [`Client::wants_close`](super::Client::wants_close).
    /// Comes once per connection that was not refused.
    Disconnected {
        /// Who ended it, and why.
        by: By,
        /// Properties of the server's DISCONNECT (5.0).
        properties: PropertiesBuf,
    },
}

/// What the server said when it let us in.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Whether the server goes on with an earlier session.
    pub session_present: bool,
    /// The client identifier the server chose, when we gave none.
    pub assigned_client_id: Option<String>,
    /// The keep alive in force, in seconds; 0 is off.
    pub keep_alive_s: u16,
    /// What the server takes.
    pub server: ServerLimits,
    /// All properties of the CONNACK (5.0).
    pub properties: PropertiesBuf,
}

/// What a server takes. Before 5.0 it cannot say, and the defaults hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// The highest QoS of a PUBLISH.
    pub maximum_qos: QoS,
    /// Whether messages can be retained.
    pub retain_available: bool,
    /// The longest packet in bytes, fixed header included.
    pub max_packet_size: u32,
    /// How many QoS 1 and 2 messages it takes at once.
    pub receive_maximum: u16,
    /// How many topic aliases it takes.
    pub topic_alias_maximum: u16,
    /// Whether topic filters may have wildcards.
    pub wildcards_available: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_ids_available: bool,
    /// Whether subscriptions may be shared.
    pub shared_available: bool,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            max_packet_size: super::PACKET_SIZE_MAX,
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
            wildcards_available: true,
            subscription_ids_available: true,
            shared_available: true,
        }
    }
}

impl ServerLimits {
    pub(super) fn of(properties: Properties<'_>) -> Self {
        let available = |value: Option<u8>| value != Some(0);
        ServerLimits {
            maximum_qos: properties.maximum_qos().and_then(QoS::from_u8).unwrap_or(QoS::ExactlyOnce),
            retain_available: available(properties.retain_available()),
            max_packet_size: properties.maximum_packet_size().unwrap_or(u32::MAX).min(super::PACKET_SIZE_MAX),
            receive_maximum: properties.receive_maximum().unwrap_or(u16::MAX),
            topic_alias_maximum: properties.topic_alias_maximum().unwrap_or(0),
            wildcards_available: available(properties.wildcard_subscription_available()),
            subscription_ids_available: available(properties.subscription_identifier_available()),
            shared_available: available(properties.shared_subscription_available()),
        }
    }
}

/// A message from the server.
#[derive(Clone, Debug)]
pub struct Received {
    /// The message. Its topic is never an alias.
    pub message: Message,
    /// Whether the server sent it before; it may have been handed out before, at QoS 1.
    pub dup: bool,
    /// The identifiers of the subscriptions it came for (5.0).
    pub subscription_ids: SubscriptionIds,
    /// What to give [`acknowledge`](super::Client::acknowledge); `None` when there is nothing to do.
    pub token: Option<AckToken>,
    /// The packet identifier it came with; 0 at QoS 0. For people to look at.
    pub packet_id: u16,
    /// The topic alias it came with (5.0), which is resolved.
    pub topic_alias: Option<u16>,
    /// The Message Expiry Interval it came with (5.0), in seconds.
    pub message_expiry_s: Option<u32>,
}

impl Received {
    /// The topic name.
    pub fn topic(&self) -> &str {
        self.message.topic()
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.message.payload()
    }

    /// The quality of service it came with.
    pub fn qos(&self) -> QoS {
        self.message.qos()
    }

    /// The RETAIN flag.
    pub fn retain(&self) -> bool {
        self.message.retain()
    }

    /// When it expires; [`Instant::NEVER`] without Message Expiry Interval.
    pub fn expires_at(&self) -> Instant {
        self.message.expires_at()
    }

    /// The properties (5.0) but for the topic alias, subscription identifiers and expiry.
    pub fn properties(&self) -> Properties<'_> {
        let context = PropertyContext::Packet(PacketType::Publish);
        Properties::validate(self.message.properties(), context).unwrap_or_default()
    }
}

/// Why something was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its Message Expiry Interval passed before it could be sent.
    Expired,
    /// The connection ended before the SUBSCRIBE or UNSUBSCRIBE was answered.
    ConnectionLost,
    /// The server lost the session while a QoS 2 message was in flight: it may or may not have got it.
    SessionLost,
    /// The server that was reached does not take it.
    Refused(SendError),
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The server, with this reason (5.0).
    Peer(ReasonCode),
    /// The application.
    Us,
    /// The transport broke, or the server closed it without a word.
    Transport,
    /// The server did not answer in time; what was waited for.
    Timeout(&'static str),
    /// The server broke the protocol.
    Protocol(DecodeError),
    /// The options do not make a CONNECT.
    Options(OptionsError),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Peer(reason) => write!(f, "the server disconnected: {reason}"),
            By::Us => f.write_str("disconnected"),
            By::Transport => f.write_str("the connection was lost"),
            By::Timeout(what) => write!(f, "no {what} in time"),
            By::Protocol(error) => write!(f, "the server broke the protocol: {error}"),
            By::Options(error) => write!(f, "cannot connect: {error}"),
        }
    }
}

/// Why a command was not carried out. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// There is no connection, and this cannot wait for one.
    NotConnected,
    /// Too much waits already, or all packet identifiers are in use.
    QueueFull,
    /// The packet is longer than the server, or MQTT, allows.
    TooLarge,
    /// The topic name or filter is not one.
    InvalidTopic(TopicError),
    /// A property does not belong to the packet, or has a wrong value.
    InvalidProperties(DecodeError),
    /// No Local on a shared subscription [MQTT-3.8.3-4].
    NoLocalOnShared,
    /// The server takes no messages of this QoS.
    QoSNotSupported,
    /// The server retains no messages.
    RetainNotSupported,
    /// The server takes no wildcards in topic filters.
    WildcardsNotSupported,
    /// The server takes no shared subscriptions.
    SharedNotSupported,
    /// The server takes no subscription identifiers.
    SubscriptionIdsNotSupported,
    /// No authentication exchange is underway that this could be a step of.
    NotAuthenticating,
    /// The packet cannot be encoded.
    Encode(EncodeError),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::NotConnected => "there is no connection",
            SendError::QueueFull => "too much waits to be sent already",
            SendError::TooLarge => "the packet is longer than the server takes",
            SendError::InvalidTopic(error) => return write!(f, "invalid topic: {error}"),
            SendError::InvalidProperties(error) => return write!(f, "invalid properties: {error}"),
            SendError::NoLocalOnShared => "a shared subscription cannot have No Local",
            SendError::QoSNotSupported => "the server does not support this QoS",
            SendError::RetainNotSupported => "the server does not retain messages",
            SendError::WildcardsNotSupported => "the server does not support wildcards",
            SendError::SharedNotSupported => "the server does not support shared subscriptions",
            SendError::SubscriptionIdsNotSupported => "the server does not support subscription identifiers",
            SendError::NotAuthenticating => "no authentication exchange is underway",
            SendError::Encode(error) => return error.fmt(f),
        })
    }
}

impl core::error::Error for SendError {}

impl From<EncodeError> for SendError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::PacketTooLarge => SendError::TooLarge,
            other => SendError::Encode(other),
        }
    }
}

impl From<TopicError> for SendError {
    fn from(error: TopicError) -> Self {
        SendError::InvalidTopic(error)
    }
}
