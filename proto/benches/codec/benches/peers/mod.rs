//! The same packets through each codec. One iteration is a batch of [`BATCH`] packets that come behind each other, so that
//! one packet takes a hundredth of the time shown. What is decoded is looked at where
//! it is, without another copy, and dropped within that time; buffers are made, and packets to encode decoded, before.

mod bytes_crates;
mod floor;
mod hikyaku;
mod mqtt_protocol_core;
mod mqttrs;
mod ntex;

use hikyaku_proto::codec::{
    Ack, Connect, Packet, Properties, PropertiesBuf, Property, Publish, QoS, ReasonCode, SubscribeOptions,
    Version, encode_subscribe,
};
use std::fmt;

/// How many packets one iteration handles.
pub const BATCH: usize = 100;

/// What is decoded and encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With a topic of 20 bytes and a payload of 64, QoS 0.
    Publish,
    /// With a payload format, an expiry, a content type and a user property.
    PublishProperties,
    Connect,
    Subscribe,
    PubAck,
}

/// One kind of packet of one version.
#[derive(Clone, Copy)]
pub struct Case {
    pub kind: Kind,
    pub version: Version,
}

const fn case(kind: Kind, version: Version) -> Case {
    Case { kind, version }
}

use Kind::{Connect as C, PubAck, Publish as P, PublishProperties as Properties5, Subscribe as S};
use Version::{V3_1_1, V5};

pub const PUBLISHES: &[Case] = &[case(P, V3_1_1), case(P, V5)];
pub const ALL: &[Case] = &[
    case(P, V3_1_1),
    case(P, V5),
    case(Properties5, V5),
    case(C, V3_1_1),
    case(C, V5),
    case(S, V3_1_1),
    case(S, V5),
    case(PubAck, V3_1_1),
    case(PubAck, V5),
];
pub const ALL_3_1_1: &[Case] = &[case(P, V3_1_1), case(C, V3_1_1), case(S, V3_1_1), case(PubAck, V3_1_1)];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.version.is_v5() { "5.0" } else { "3.1.1" };
        match self.kind {
            Kind::Publish => write!(f, "PUBLISH {version}"),
            Kind::PublishProperties => write!(f, "PUBLISH {version} with properties"),
            Kind::Connect => write!(f, "CONNECT {version}"),
            Kind::Subscribe => write!(f, "SUBSCRIBE {version}"),
            Kind::PubAck => write!(f, "PUBACK {version}"),
        }
    }
}

pub const TOPIC: &str = "bench/pairs/000/data";
pub const PAYLOAD: &[u8] = &[b'x'; 64];

impl Case {
    /// One packet.
    pub fn packet(self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut properties = PropertiesBuf::default();
        if self.kind == Kind::PublishProperties {
            properties.push(Property::PayloadFormatIndicator(1));
            properties.push(Property::MessageExpiryInterval(3600));
            properties.push(Property::ContentType("application/json"));
            properties.push(Property::UserProperty("source", "sensor-17"));
        }
        let packet = match self.kind {
            Kind::Publish | Kind::PublishProperties => Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: TOPIC,
                packet_id: 0,
                properties: properties.as_properties(),
                payload: PAYLOAD,
            }),
            Kind::Connect => Packet::Connect(Connect {
                version: self.version,
                bridge: false,
                clean_start: true,
                keep_alive_s: 60,
                properties: Properties::EMPTY,
                client_id: "a-client-id-of-23-bytes",
                will: None,
                username: None,
                password: None,
            }),
            Kind::Subscribe => {
                let filter = ("bench/pairs/+/data", SubscribeOptions::new(QoS::AtLeastOnce));
                encode_subscribe(self.version, 7, Properties::EMPTY, &[filter], &mut out).unwrap();
                return out;
            }
            Kind::PubAck => Packet::PubAck(Ack::new(7, ReasonCode::Success)),
        };
        packet.encode(self.version, &mut out).unwrap();
        out
    }

    /// A batch of packets behind each other.
    pub fn batch(self) -> Vec<u8> {
        self.packet().repeat(BATCH)
    }
}
