//! What the application decides before it connects.

use crate::codec::{
    EncodeError, Properties, PropertiesBuf, Property, PropertyContext, QoS, VARINT_MAX, Version,
};
use crate::topic::TopicName;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// The longest packet MQTT allows, fixed header included.
pub const PACKET_SIZE_MAX: u32 = VARINT_MAX + 5;

/// Who acknowledges received QoS 1 and 2 messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// The client, as soon as the message has come.
    #[default]
    Automatically,
    /// The application, with [`Client::acknowledge`](super::Client::acknowledge).
    Manually,
}

/// The message the server publishes when the connection is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Will {
    /// The topic name.
    pub topic: String,
    /// The message itself.
    pub payload: Vec<u8>,
    /// The quality of service to publish it with.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Will properties (5.0), Will Delay Interval among them.
    pub properties: PropertiesBuf,
}

/// Enhanced authentication (5.0).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Authentication {
    /// The name of the method.
    pub method: String,
    /// The data for CONNECT, if the method begins with the client.
    pub data: Option<Vec<u8>>,
}

impl fmt::Debug for Authentication {
    /// Leaves the data out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Everything a [`Client`](super::Client) needs to know beforehand.
#[derive(Clone)]
pub struct Options {
    /// The protocol version.
    pub version: Version,
    /// The client identifier, up to the caller: the client draws no random one. When it is empty a server of 3.1.1
    /// (with `clean_start`) or 5.0 chooses one, which the client keeps using.
    pub client_id: String,
    /// Whether to begin without a session the server may still have.
    ///
    /// In 3.1 and 3.1.1 this is Clean Session: the session also ends with each connection. In 5.0 it concerns the
    /// first connection; the following ones resume the session as long as `session_expiry_s` is not 0. A client
    /// made with `false` counts as having a session, an empty one as after a restart of the program.
    pub clean_start: bool,
    /// How long the server keeps the session without a connection (5.0), in seconds; `u32::MAX` is for ever.
    pub session_expiry_s: u32,
    /// After how many seconds of silence a PINGREQ is sent; 0 is never. A 5.0 server may impose another value.
    pub keep_alive_s: u16,
    /// The user name.
    pub username: Option<String>,
    /// The password. Without a user name only in 5.0.
    pub password: Option<Vec<u8>>,
    /// The will.
    pub will: Option<Will>,
    /// Enhanced authentication (5.0).
    pub authentication: Option<Authentication>,
    /// How many QoS 1 and 2 messages the server may have on the wire to us (5.0); not 0. A server that sends more
    /// is disconnected.
    pub receive_maximum: u16,
    /// The longest packet taken, in bytes. A 5.0 server is told; one that sends a longer one is disconnected.
    pub max_packet_size: u32,
    /// How many topic aliases the server may use (5.0).
    pub topic_alias_maximum: u16,
    /// Whether the server may send reason strings and user properties with any packet (5.0).
    pub request_problem_information: bool,
    /// Whether to ask for Response Information (5.0).
    pub request_response_information: bool,
    /// User properties of the CONNECT (5.0).
    pub user_properties: Vec<(String, String)>,
    /// Who acknowledges received messages.
    pub acknowledge: Acknowledge,
    /// How many QoS 1 and 2 messages to have on the wire at once; a 5.0 server may want fewer.
    pub max_inflight: u16,
    /// How many topic aliases to use at the most (5.0); the server may take fewer.
    pub max_topic_aliases: u16,
    /// How many QoS 1 and 2 messages may be queued behind those in flight.
    pub max_queued_messages: usize,
    /// How many bytes of messages may be queued.
    pub max_queued_bytes: u64,
    /// How many bytes of output may wait for the transport before QoS 0 messages are refused and
    /// [`Client::wants_read`](super::Client::wants_read) says no.
    pub max_output_bytes: usize,
    /// How long the server may take to answer CONNECT or AUTH.
    pub connect_timeout: Duration,
    /// How long nothing may come after a PINGREQ.
    pub ping_timeout: Duration,
    /// How long the transport may take for the last bytes when we close.
    pub close_timeout: Duration,
}

impl Options {
    /// The defaults: a clean session that ends with the connection, keep alive of a minute, no credentials.
    pub fn new(version: Version, client_id: &str) -> Options {
        Options {
            version,
            client_id: String::from(client_id),
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 60,
            username: None,
            password: None,
            will: None,
            authentication: None,
            receive_maximum: u16::MAX,
            max_packet_size: PACKET_SIZE_MAX,
            topic_alias_maximum: 10,
            request_problem_information: true,
            request_response_information: false,
            user_properties: Vec::new(),
            acknowledge: Acknowledge::Automatically,
            max_inflight: 100,
            max_topic_aliases: 10,
            max_queued_messages: 10_000,
            max_queued_bytes: 64 << 20,
            max_output_bytes: 4 << 20,
            connect_timeout: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
        }
    }

    /// Looks for what no server would accept. A [`Client`](super::Client) with such options is
    /// disconnected with this error as soon as its transport is up.
    pub fn check(&self) -> Result<(), OptionsError> {
        let v5 = self.version.is_v5();
        // 3.1.1: [MQTT-3.1.3-7]
        if self.client_id.is_empty()
            && (self.version == Version::V3_1 || self.version == Version::V3_1_1 && !self.clean_start)
        {
            return Err(OptionsError::ClientIdEmpty);
        }
        // 3.1.1: [MQTT-3.1.2-22]
        if self.password.is_some() && self.username.is_none() && !v5 {
            return Err(OptionsError::PasswordWithoutUsername);
        }
        if let Some(will) = &self.will {
            if TopicName::parse(&will.topic).is_err() {
                return Err(OptionsError::WillTopicInvalid);
            }
            let properties = will.properties.as_properties();
            if v5 && Properties::validate(properties.raw(), PropertyContext::Will).is_err() {
                return Err(OptionsError::WillPropertiesInvalid);
            }
        }
        if self.receive_maximum == 0 || self.max_inflight == 0 || self.max_packet_size < 2 {
            return Err(OptionsError::LimitZero);
        }
        Ok(())
    }

    /// The properties of the CONNECT; what has its default value is left out.
    pub(super) fn properties(&self) -> Result<PropertiesBuf, EncodeError> {
        let mut properties = PropertiesBuf::default();
        if !self.version.is_v5() {
            return Ok(properties);
        }
        if self.session_expiry_s != 0 {
            properties.try_push(Property::SessionExpiryInterval(self.session_expiry_s))?;
        }
        if self.receive_maximum != u16::MAX {
            properties.try_push(Property::ReceiveMaximum(self.receive_maximum))?;
        }
        if self.max_packet_size < PACKET_SIZE_MAX {
            properties.try_push(Property::MaximumPacketSize(self.max_packet_size))?;
        }
        if self.topic_alias_maximum != 0 {
            properties.try_push(Property::TopicAliasMaximum(self.topic_alias_maximum))?;
        }
        if !self.request_problem_information {
            properties.try_push(Property::RequestProblemInformation(0))?;
        }
        if self.request_response_information {
            properties.try_push(Property::RequestResponseInformation(1))?;
        }
        for (name, value) in &self.user_properties {
            properties.try_push(Property::UserProperty(name, value))?;
        }
        if let Some(authentication) = &self.authentication {
            properties.try_push(Property::AuthenticationMethod(&authentication.method))?;
            if let Some(data) = &authentication.data {
                properties.try_push(Property::AuthenticationData(data))?;
            }
        }
        Ok(properties)
    }
}

impl fmt::Debug for Options {
    /// Leaves the password and payloads out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("session_expiry_s", &self.session_expiry_s)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Why no server would accept a CONNECT with these [`Options`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// The version, or resuming a session, needs a client identifier.
    ClientIdEmpty,
    /// Before 5.0 a password needs a user name.
    PasswordWithoutUsername,
    /// The topic of the will is not a topic name.
    WillTopicInvalid,
    /// The will has properties that a will cannot have.
    WillPropertiesInvalid,
    /// A limit is 0 that must not be.
    LimitZero,
    /// A string or the packet is too long.
    Encode(EncodeError),
}

impl From<EncodeError> for OptionsError {
    fn from(error: EncodeError) -> Self {
        OptionsError::Encode(error)
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OptionsError::ClientIdEmpty => "this version, or resuming a session, needs a client identifier",
            OptionsError::PasswordWithoutUsername => "before MQTT 5.0 a password needs a user name",
            OptionsError::WillTopicInvalid => "the topic of the will is empty, too long or has wildcards",
            OptionsError::WillPropertiesInvalid => "the will has properties that a will cannot have",
            OptionsError::LimitZero => "receive maximum, in-flight limit and packet size must not be zero",
            OptionsError::Encode(error) => return write!(f, "the CONNECT cannot be encoded: {error}"),
        })
    }
}

impl core::error::Error for OptionsError {}
