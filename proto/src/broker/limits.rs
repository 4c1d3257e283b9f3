//! What clients may do where they came in, whoever they are.

use super::Shard;
use super::config::Config;
use super::session::Will;
use crate::codec::{Connect, Packet, Properties, QoS, ReasonCode, Version};
use crate::topic::separators;

/// The limits of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// The highest QoS that clients may publish with, and that their subscriptions are granted.
    pub max_qos: QoS,
    /// Which versions of the protocol are spoken.
    pub versions: AcceptedVersions,
    /// Whether clients may leave their id to the broker.
    pub allow_zero_length_clientid: bool,
    /// How many topic aliases a client may use, if not [`Config::max_topic_alias`].
    pub max_topic_alias: Option<u16>,
    /// How many topic aliases the broker uses, if not [`Config::max_topic_alias_broker`].
    pub max_topic_alias_broker: Option<u16>,
}

impl ListenerLimits {
    /// No limits but those of the broker.
    const NONE: ListenerLimits = ListenerLimits {
        max_qos: QoS::ExactlyOnce,
        versions: AcceptedVersions { v3_1: true, v3_1_1: true, v5: true },
        allow_zero_length_clientid: true,
        max_topic_alias: None,
        max_topic_alias_broker: None,
    };
}

impl Default for ListenerLimits {
    fn default() -> Self {
        ListenerLimits::NONE
    }
}

/// Which versions of the protocol a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedVersions {
    /// 3.1
    pub v3_1: bool,
    /// 3.1.1
    pub v3_1_1: bool,
    /// 5.0
    pub v5: bool,
}

impl AcceptedVersions {
    /// Whether `version` is one of them.
    pub fn contains(self, version: Version) -> bool {
        match version {
            Version::V3_1 => self.v3_1,
            Version::V3_1_1 => self.v3_1_1,
            Version::V5 => self.v5,
        }
    }
}

/// What a user property takes at least: its identifier and the lengths of two texts.
const USER_PROPERTY_BYTES: usize = 5;
/// What is said of a packet that [is crowded](Config::is_crowded).
pub(super) const CROWDED: &str = "it has more user properties than 'max_user_properties' allows";

/// The properties of a packet that a client sends when it is connected, but for a PUBLISH.
pub(super) fn properties_of<'a>(packet: &Packet<'a>) -> &'a [u8] {
    let properties = match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.properties
        }
        Packet::Subscribe(subscribe) => subscribe.properties,
        Packet::Unsubscribe(unsubscribe) => unsubscribe.properties,
        Packet::Disconnect(disconnect) => disconnect.properties,
        Packet::Auth(auth) => auth.properties,
        _ => Properties::EMPTY,
    };
    properties.raw()
}

impl Config {
    /// Whether properties that were checked have more user properties than may be.
    pub(super) fn is_crowded(&self, properties: &[u8]) -> bool {
        let most = self.max_user_properties as usize;
        properties.len() / USER_PROPERTY_BYTES > most
            && Properties::known(properties).user_properties().count() > most
    }

    /// The limits of a listener; one that is not there has none of its own.
    pub(super) fn limits(&self, listener: u16) -> &ListenerLimits {
        self.listeners.get(usize::from(listener)).map_or(&ListenerLimits::NONE, |l| &l.limits)
    }

    /// How many topic aliases a client of a listener may use.
    pub(super) fn topic_aliases(&self, listener: u16) -> u16 {
        self.limits(listener).max_topic_alias.unwrap_or(self.max_topic_alias)
    }

    /// How many topic aliases the broker uses towards clients of a listener.
    pub(super) fn topic_aliases_out(&self, listener: u16) -> u16 {
        self.limits(listener).max_topic_alias_broker.unwrap_or(self.max_topic_alias_broker)
    }

    /// The QoS of a message for a subscription [MQTT-3.8.4-8].
    pub(super) fn delivered_qos(&self, message: QoS, subscription: QoS) -> QoS {
        if self.upgrade_outgoing_qos { subscription } else { message.min(subscription) }
    }
}

impl Shard {
    /// Why a CONNECT is refused whoever sent it.
    pub(super) fn beyond_limits(
        &self,
        listener: u16,
        connect: &Connect<'_>,
        will: Option<&Will>,
    ) -> Option<(ReasonCode, &'static str)> {
        let v5 = connect.version.is_v5();
        let limits = self.config.limits(listener);
        if !limits.versions.contains(connect.version) {
            // [MQTT-3.1.2-2]
            return Some((ReasonCode::UnsupportedProtocolVersion, "a version the listener does not take"));
        }
        if connect.client_id.is_empty() && !limits.allow_zero_length_clientid {
            // [MQTT-3.1.3-6]: a server may let clients in without an id, and need not.
            return Some((ReasonCode::ClientIdentifierNotValid, "the client identifier is empty"));
        }
        let of_will = connect.will.map_or(Properties::EMPTY, |will| will.properties);
        if [connect.properties, of_will].iter().any(|properties| self.config.is_crowded(properties.raw())) {
            return Some((ReasonCode::QuotaExceeded, CROWDED));
        }
        if let Some(Will { message, .. }) = will {
            if separators(message.topic()) > usize::from(self.config.max_topic_separators) {
                let what = "the will's topic has more levels than 'max_topic_separators' allows";
                return Some((ReasonCode::TopicNameInvalid, what));
            }
            if message.payload().len() > self.config.message_size_limit as usize {
                let reason = if v5 { ReasonCode::PacketTooLarge } else { ReasonCode::NotAuthorized };
                return Some((reason, "the will is larger than 'message_size_limit' allows"));
            }
        }
        if connect.will.is_some_and(|will| will.qos > limits.max_qos) {
            // [MQTT-3.2.2-12]
            return Some((ReasonCode::QoSNotSupported, "the will's QoS is above the highest allowed"));
        }
        let most = self.config.max_keepalive_s;
        if !v5 && most > 0 && connect.keep_alive_s > most {
            // Only 5.0 can be told a shorter one [MQTT-3.2.2-21]. Who has none is let in: too many devices have.
            return Some((ReasonCode::ClientIdentifierNotValid, "the keep alive is longer than allowed"));
        }
        None
    }
}
