//! A line of log for each packet, at level trace and target [`TARGET`], as people know them from mosquitto.

use hikyaku_proto::client::{Options, PACKET_SIZE_MAX};
use hikyaku_proto::codec::{Frame, Framer, Packet, Version};
use log::{Level, log_enabled, trace};
use std::io::IoSlice;

/// The target of the lines.
pub(crate) const TARGET: &str = "hikyaku_client::packets";

#[derive(Debug)]
pub(crate) struct Packets {
    version: Version,
    client_id: String,
    sent: Framer,
    received: Framer,
}

impl Packets {
    /// Something only while somebody wants the lines.
    pub fn if_wanted(options: &Options) -> Option<Packets> {
        log_enabled!(target: TARGET, Level::Trace).then(|| Packets {
            version: options.version,
            client_id: match options.client_id.as_str() {
                "" => String::from("null"),
                id => id.escape_debug().to_string(),
            },
            sent: Framer::default(),
            received: Framer::default(),
        })
    }

    /// The transport took the first `n` bytes of these.
    pub fn sent(&mut self, mut n: usize, slices: &[IoSlice<'_>]) {
        for slice in slices {
            let part = &slice[..n.min(slice.len())];
            n -= part.len();
            let mut framer = std::mem::take(&mut self.sent);
            self.each(&mut framer, part, Packets::on_sent);
            self.sent = framer;
        }
    }

    pub fn received(&mut self, bytes: &[u8]) {
        let mut framer = std::mem::take(&mut self.received);
        self.each(&mut framer, bytes, Packets::on_received);
        self.received = framer;
    }

    fn each(&mut self, framer: &mut Framer, mut bytes: &[u8], then: fn(&mut Packets, &Packet<'_>)) {
        // What does not parse is the state machine's to report.
        while let Ok(step) = framer.next(bytes, PACKET_SIZE_MAX) {
            bytes = &bytes[step.used..];
            let Some(frame) = step.frame else { return };
            self.decoded(frame, then);
        }
    }

    fn decoded(&mut self, frame: Frame<'_>, then: fn(&mut Packets, &Packet<'_>)) {
        if let Ok(packet) = Packet::decode(self.version, frame) {
            then(self, &packet);
        }
    }

    fn on_sent(&mut self, packet: &Packet<'_>) {
        let id = &self.client_id;
        let line = match packet {
            Packet::Connect(_) => String::from("CONNECT"),
            Packet::Publish(p) => publish(p),
            Packet::PubAck(a) => format!("PUBACK (m{}, rc{})", a.packet_id, a.reason as u8),
            Packet::PubRec(a) => format!("PUBREC (m{}, rc{})", a.packet_id, a.reason as u8),
            Packet::PubRel(a) => format!("PUBREL (m{})", a.packet_id),
            Packet::PubComp(a) => format!("PUBCOMP (m{})", a.packet_id),
            Packet::Subscribe(s) => {
                for (filter, options) in s.filters() {
                    let (filter, qos) = (filter.escape_debug(), options.qos as u8);
                    let rest = options.to_byte() & 0xfc;
                    let mid = s.packet_id;
                    trace!(target: TARGET, "Client {id} sending SUBSCRIBE (Mid: {mid}, Topic: {filter}, QoS: {qos}, Options: 0x{rest:02x})");
                }
                return;
            }
            Packet::Unsubscribe(u) => {
                for filter in u.filters() {
                    let (filter, mid) = (filter.escape_debug(), u.packet_id);
                    trace!(target: TARGET, "Client {id} sending UNSUBSCRIBE (Mid: {mid}, Topic: {filter})");
                }
                return;
            }
            Packet::PingReq => String::from("PINGREQ"),
            Packet::Disconnect(_) => String::from("DISCONNECT"),
            Packet::Auth(_) => String::from("AUTH"),
            _ => return,
        };
        trace!(target: TARGET, "Client {id} sending {line}");
    }

    fn on_received(&mut self, packet: &Packet<'_>) {
        let line = match packet {
            Packet::ConnAck(a) => {
                if let Some(assigned) = a.properties.assigned_client_identifier() {
                    self.client_id = assigned.escape_debug().to_string();
                }
                format!("CONNACK ({})", a.reason as u8)
            }
            Packet::Publish(p) => publish(p),
            Packet::PubAck(a) => format!("PUBACK (Mid: {}, RC:{})", a.packet_id, a.reason as u8),
            Packet::PubRec(a) => format!("PUBREC (Mid: {})", a.packet_id),
            Packet::PubRel(a) => format!("PUBREL (Mid: {})", a.packet_id),
            Packet::PubComp(a) => format!("PUBCOMP (Mid: {}, RC:{})", a.packet_id, a.reason as u8),
            Packet::SubAck(_) => String::from("SUBACK"),
            Packet::UnsubAck(_) => String::from("UNSUBACK"),
            Packet::PingResp => String::from("PINGRESP"),
            Packet::Disconnect(d) => format!("DISCONNECT ({})", d.reason as u8),
            Packet::Auth(_) => String::from("AUTH"),
            _ => return,
        };
        trace!(target: TARGET, "Client {} received {line}", self.client_id);
    }
}

fn publish(p: &hikyaku_proto::codec::Publish<'_>) -> String {
    format!(
        "PUBLISH (d{}, q{}, r{}, m{}, '{}', ... ({} bytes))",
        u8::from(p.dup),
        p.qos as u8,
        u8::from(p.retain),
        p.packet_id,
        p.topic.escape_debug(),
        p.payload.len()
    )
}
