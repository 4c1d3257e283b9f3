//! The codec alone: bytes to packets and back.

use crate::clients::{connect, subscribe};
use hikyaku_proto::codec::{
    Ack, Frame, Packet, PacketType, Properties, PropertiesBuf, Property, Publish, QoS, ReasonCode, Version,
};
use std::hint::black_box;

use Version::{V3_1_1, V5};

pub fn decode_publish(rounds: usize) -> usize {
    decode(V3_1_1, &bytes_of(V3_1_1, &publish(Properties::EMPTY)), rounds)
}

pub fn decode_publish_v5(rounds: usize) -> usize {
    decode(V5, &bytes_of(V5, &publish(Properties::EMPTY)), rounds)
}

pub fn decode_publish_properties(rounds: usize) -> usize {
    decode(V5, &bytes_of(V5, &publish(properties().as_properties())), rounds)
}

pub fn decode_connect(rounds: usize) -> usize {
    decode(V3_1_1, &bytes_of(V3_1_1, &Packet::Connect(connect(V3_1_1, "a-client-id-of-23-bytes"))), rounds)
}

pub fn decode_subscribe(rounds: usize) -> usize {
    decode(V3_1_1, &subscribe(V3_1_1, QoS::AtLeastOnce, &["bench/pairs/+/data"]), rounds)
}

pub fn decode_puback(rounds: usize) -> usize {
    decode(V3_1_1, &bytes_of(V3_1_1, &PUBACK), rounds)
}

pub fn encode_publish(rounds: usize) -> usize {
    encode(V3_1_1, &publish(Properties::EMPTY), rounds)
}

pub fn encode_publish_v5(rounds: usize) -> usize {
    encode(V5, &publish(Properties::EMPTY), rounds)
}

pub fn encode_publish_properties(rounds: usize) -> usize {
    encode(V5, &publish(properties().as_properties()), rounds)
}

pub fn encode_connect(rounds: usize) -> usize {
    encode(V3_1_1, &Packet::Connect(connect(V3_1_1, "a-client-id-of-23-bytes")), rounds)
}

pub fn encode_subscribe(rounds: usize) -> usize {
    let bytes = subscribe(V3_1_1, QoS::AtLeastOnce, &["bench/pairs/+/data"]);
    let frame = Frame::parse(&bytes, u32::MAX).unwrap().unwrap();
    encode(V3_1_1, &Packet::decode(V3_1_1, frame).unwrap(), rounds)
}

pub fn encode_puback(rounds: usize) -> usize {
    encode(V3_1_1, &PUBACK, rounds)
}

const PUBACK: Packet<'_> = Packet::PubAck(Ack::new(7, ReasonCode::Success));

/// A topic of 20 bytes and a payload of 64.
fn publish(properties: Properties<'_>) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "bench/pairs/000/data",
        packet_id: 0,
        properties,
        payload: &[b'x'; 64],
    })
}

fn properties() -> PropertiesBuf {
    let mut properties = PropertiesBuf::default();
    properties.push(Property::PayloadFormatIndicator(1));
    properties.push(Property::MessageExpiryInterval(3600));
    properties.push(Property::ContentType("application/json"));
    properties.push(Property::UserProperty("source", "sensor-17"));
    properties
}

fn bytes_of(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).unwrap();
    bytes
}

fn decode(version: Version, bytes: &[u8], rounds: usize) -> usize {
    for _ in 0..rounds {
        counted_decode(black_box(version), black_box(bytes));
    }
    rounds
}

fn encode(version: Version, packet: &Packet<'_>, rounds: usize) -> usize {
    let mut out = Vec::with_capacity(1024);
    for _ in 0..rounds {
        out.clear();
        counted_encode(black_box(version), black_box(packet), &mut out);
        black_box(&out);
    }
    assert_eq!(PacketType::from_u8(out[0] >> 4), Some(packet.packet_type()));
    rounds
}

#[inline(never)]
fn counted_decode(version: Version, bytes: &[u8]) {
    let frame = Frame::parse(bytes, u32::MAX).unwrap().unwrap();
    black_box(Packet::decode(version, frame).unwrap());
}

#[inline(never)]
fn counted_encode(version: Version, packet: &Packet<'_>, out: &mut Vec<u8>) {
    packet.encode(version, out).unwrap();
}
