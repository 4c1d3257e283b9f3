//! Clients without a mind of their own: they answer what has to be answered, and count what they read.

use hikyaku_proto::codec::{
    Ack, Connect, Framer, Packet, PacketType, Properties, QoS, ReasonCode, SubscribeOptions, Version,
    encode_subscribe, encode_unsubscribe,
};

/// A broker with clients that a workload can use.
pub trait Broker {
    /// How many shards there are that it matters to know of: 1 or 2.
    fn shards(&self) -> usize;
    /// A client id that lives on the given shard.
    fn name(&self, prefix: &str, shard: usize) -> String;
    /// Connects a client, which is then known by the number returned.
    fn connect(&mut self, connect: &Connect<'_>) -> usize;
    /// Sends what a client says. It may wait for `settle`.
    fn send(&mut self, client: usize, bytes: &[u8]);
    /// Goes on until clients have read so many packets, which have to be all there are.
    fn settle(&mut self, packets: usize);
    /// A client hangs up.
    fn hang_up(&mut self, client: usize);
}

/// A CONNECT with which nothing outlives the connection.
pub fn connect(version: Version, id: &str) -> Connect<'_> {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive_s: 0,
        properties: Properties::EMPTY,
        client_id: id,
        will: None,
        username: None,
        password: None,
    }
}

/// A SUBSCRIBE for these filters.
pub fn subscribe(version: Version, qos: QoS, filters: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let filters: Vec<_> = filters.iter().map(|filter| (*filter, SubscribeOptions::new(qos))).collect();
    encode_subscribe(version, 1, Properties::EMPTY, &filters, &mut bytes).unwrap();
    bytes
}

/// An UNSUBSCRIBE for one filter.
pub fn unsubscribe(version: Version, filter: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_unsubscribe(version, 1, Properties::EMPTY, &[filter], &mut bytes).unwrap();
    bytes
}

/// What a client reads.
#[derive(Default)]
pub struct Reading {
    framer: Framer,
    /// How many packets it has read.
    pub packets: usize,
}

impl Reading {
    /// Takes bytes of the broker, and appends what the client answers.
    pub fn take(&mut self, version: Version, mut bytes: &[u8], answers: &mut Vec<u8>) {
        loop {
            let step = self.framer.next(bytes, u32::MAX).expect("a broker sends packets");
            bytes = &bytes[step.used..];
            let Some(frame) = step.frame else { return };
            self.packets += 1;
            let packet = Packet::decode(version, frame).expect("a broker sends good packets");
            if let Some((packet_type, packet_id)) = answer(&packet) {
                let ack = Ack::new(packet_id, ReasonCode::Success);
                ack.encode(version, packet_type, answers).expect("the identifier came from a packet");
            }
        }
    }
}

fn answer(packet: &Packet<'_>) -> Option<(PacketType, u16)> {
    match packet {
        Packet::Publish(publish) => match publish.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some((PacketType::PubAck, publish.packet_id)),
            QoS::ExactlyOnce => Some((PacketType::PubRec, publish.packet_id)),
        },
        Packet::PubRec(ack) => Some((PacketType::PubRel, ack.packet_id)),
        Packet::PubRel(ack) => Some((PacketType::PubComp, ack.packet_id)),
        _ => None,
    }
}
