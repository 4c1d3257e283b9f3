//! PUBACK, PUBREC, PUBREL and PUBCOMP: what they say of messages in flight, and what they are answered.

use super::Shard;
use super::conn::{Flow, conn_at};
use super::io::ConnId;
use super::store::StoreOp;
use crate::codec::{Ack, PacketType, ReasonCode};
use crate::session::{Acked, Delivery};
use log::debug;

impl Shard {
    pub(super) fn on_puback(&mut self, id: ConnId, ack: &Ack<'_>) -> Flow {
        let Some(index) = self.session_index_of(id) else { return Flow::Closed };
        match self.sessions[index].outgoing.on_puback(ack.packet_id) {
            Acked::Unknown => self.unknown_ack(id),
            Acked::Wrong => self.wrong_ack(id),
            Acked::Done { seq, delivery } => self.on_done(index, seq, delivery),
            Acked::Release { .. } => Flow::Continue,
        }
    }

    pub(super) fn on_pubrec(&mut self, id: ConnId, ack: &Ack<'_>) -> Flow {
        let Some(index) = self.session_index_of(id) else { return Flow::Closed };
        match self.sessions[index].outgoing.on_pubrec(ack.packet_id, ack.reason) {
            Acked::Done { seq, delivery } => self.on_done(index, seq, delivery),
            Acked::Wrong => self.wrong_ack(id),
            Acked::Unknown if ack.reason.is_error() => Flow::Continue,
            // [MQTT-4.3.3-4]: a PUBREL answers every PUBREC, and clients know how to go on from one without error.
            Acked::Unknown => self.put_ack(id, PacketType::PubRel, ack.packet_id),
            Acked::Release { delivery } => {
                if let Some(delivery) = delivery {
                    self.memory.release(&delivery);
                    let Delivery { message, seq, .. } = delivery;
                    let (packet_id, body) = (ack.packet_id, message.id());
                    self.keep_of(index, seq, |id| StoreOp::Released { id, seq, packet_id, body });
                    self.blocks.give_back(message);
                }
                self.put_ack(id, PacketType::PubRel, ack.packet_id)
            }
        }
    }

    pub(super) fn on_pubrel(&mut self, id: ConnId, ack: &Ack<'_>) -> Flow {
        let Some(index) = self.session_index_of(id) else { return Flow::Closed };
        // [MQTT-4.3.3-11] [MQTT-4.3.3-12]
        let packet_id = ack.packet_id;
        if self.change_ids(index, |incoming| incoming.release(packet_id)) {
            self.keep_of(index, 1, |id| StoreOp::Completed { id, packet_id });
            if let Some(conn) = self.conn(id) {
                conn.link.unreleased = conn.link.unreleased.saturating_sub(1);
            }
        }
        // [MQTT-4.3.3-11]; a PUBREL that is sent again after its PUBCOMP was lost is no error.
        self.put_ack(id, PacketType::PubComp, packet_id)
    }

    pub(super) fn on_pubcomp(&mut self, id: ConnId, ack: &Ack<'_>) -> Flow {
        let Some(index) = self.session_index_of(id) else { return Flow::Closed };
        match self.sessions[index].outgoing.on_pubcomp(ack.packet_id) {
            Acked::Unknown => self.unknown_ack(id),
            Acked::Wrong => self.wrong_ack(id),
            Acked::Done { seq, delivery } => self.on_done(index, seq, delivery),
            Acked::Release { .. } => Flow::Continue,
        }
    }

    /// A message of a session is done, which makes room for others.
    fn on_done(&mut self, index: u32, seq: u64, delivery: Option<Delivery>) -> Flow {
        delivery.iter().for_each(|delivery| self.memory.release(delivery));
        let body = delivery.map(|delivery| {
            let body = delivery.message.id();
            self.blocks.give_back(delivery.message);
            body
        });
        self.keep_of(index, seq, |id| StoreOp::Done { id, seq, body });
        self.pump(index);
        Flow::Continue
    }

    fn session_index_of(&mut self, id: ConnId) -> Option<u32> {
        self.conn(id).map(|c| c.session)
    }

    /// Answers a packet of a QoS 2 message. The answer promises that the state behind it is kept.
    fn put_ack(&mut self, id: ConnId, kind: PacketType, packet_id: u16) -> Flow {
        if self.keeper.on {
            let gate = self.store_gate();
            return self.acknowledge(id, gate, kind, packet_id, ReasonCode::Success);
        }
        let Shard { conns, pool, .. } = self;
        if let Some(conn) = conn_at(conns, id) {
            conn.link.put_ack(pool, kind, packet_id, ReasonCode::Success);
            self.mark_dirty(id);
        }
        self.after_answer(id)
    }

    /// An acknowledgement that the message does not wait for: of another QoS, or before its time.
    fn wrong_ack(&mut self, id: ConnId) -> Flow {
        self.fail(id, ReasonCode::ProtocolError, "an acknowledgement its message does not wait for")
    }

    /// An acknowledgement of nothing: harmless after a session was lost, so it is let pass.
    fn unknown_ack(&mut self, id: ConnId) -> Flow {
        debug!("An acknowledgement of no message in flight on connection {}.", id.index);
        Flow::Continue
    }
}
