//! Bytes from the server, and the messages among them.

use super::{AckToken, Acknowledge, By, Client, Event, Phase, Received, kept};
use crate::codec::{Ack, DecodeError, Frame, Packet, PacketType, Property, Publish, QoS, ReasonCode};
use crate::message::{MessageId, Publication};
use crate::session::SubscriptionIds;
use crate::time::Instant;
use alloc::vec::Vec;
use core::time::Duration;

const BEFORE_CONNACK: DecodeError = DecodeError::protocol("a packet before CONNACK", "MQTT-3.2.0-1");

/// A message whose acknowledgement waits for the application.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    token: AckToken,
    acknowledged: bool,
}

impl Client {
    /// Takes what was read from the transport. Bytes that come when the end is decided are dropped.
    pub fn handle_bytes(&mut self, now: Instant, mut bytes: &[u8]) {
        if !matches!(self.phase, Phase::Connecting | Phase::Connected) {
            return;
        }
        self.heard_at = now;
        // The partial packet is moved out while its packet is handled; whole packets borrow from `bytes`.
        let mut framer = core::mem::take(&mut self.link.framer);
        loop {
            // What is not MQTT would promise a long packet: not waited for [MQTT-3.2.0-1].
            if self.phase == Phase::Connecting
                && framer.is_empty()
                && bytes.first().is_some_and(|first| !matches!(first >> 4, 2 | 15))
            {
                return self.fail(now, BEFORE_CONNACK);
            }
            let handled = match framer.next(bytes, self.options.max_packet_size) {
                Ok(step) => {
                    bytes = &bytes[step.used..];
                    let Some(frame) = step.frame else { break };
                    self.link.received_at = now;
                    self.on_frame(now, frame)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                self.fail(now, error);
            }
            if self.wants_close() {
                return;
            }
        }
        self.link.framer = framer;
        self.pump(now);
    }

    /// Acknowledges a message that came with [`Acknowledge::Manually`]. Acknowledgements leave in the order of
    /// the messages [MQTT-4.6.0-2], in whichever order they are given.
    ///
    /// When the connection is lost before it left, the server sends the message again: a QoS 1 message gets a new
    /// token, a QoS 2 message keeps its token and is not handed out again. Unknown tokens are ignored.
    pub fn acknowledge(&mut self, now: Instant, token: AckToken) {
        if let Some(at) = self.held.iter().position(|&(_, held)| held == token) {
            self.held.remove(at);
        }
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.token == token) {
            slot.acknowledged = true;
            self.release_acks(now);
        }
    }

    fn release_acks(&mut self, now: Instant) {
        while self.slots.front().is_some_and(|slot| slot.acknowledged) {
            self.slots.pop_front();
            self.opened += 1;
        }
        // After our DISCONNECT nothing follows [MQTT-3.14.4-1].
        if self.phase == Phase::Connected && self.link.release_acks(&mut self.pool, self.opened) {
            self.link.sent_at = now;
        }
    }

    fn on_frame(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), DecodeError> {
        let connected = self.phase == Phase::Connected;
        if connected && frame.packet_type() == Some(PacketType::Publish) {
            return self.on_publish(now, frame);
        }
        let packet = Packet::decode(self.options.version, frame)?;
        if !self.options.request_problem_information {
            check_unasked(&packet)?;
        }
        match packet {
            Packet::ConnAck(connack) if !connected => self.on_connack(now, &connack)?,
            Packet::Auth(auth) => self.on_auth(now, &auth)?,
            // [MQTT-3.2.0-1]
            _ if !connected => {
                return Err(BEFORE_CONNACK);
            }
            Packet::PubAck(ack) => self.on_puback(&ack),
            Packet::PubRec(ack) => self.on_pubrec(now, &ack),
            Packet::PubRel(ack) => self.on_pubrel(now, &ack),
            Packet::PubComp(ack) => self.on_pubcomp(&ack),
            Packet::SubAck(suback) => self.on_suback(&suback)?,
            Packet::UnsubAck(unsuback) => self.on_unsuback(&unsuback)?,
            Packet::PingResp => self.pinged_at = None,
            Packet::Disconnect(disconnect) if self.options.version.is_v5() => {
                // [MQTT-3.14.2-2]
                if disconnect.properties.session_expiry_interval().is_some() {
                    return Err(DecodeError::protocol(
                        "a server's DISCONNECT with a session expiry",
                        "MQTT-3.14.2-2",
                    ));
                }
                self.close(now, By::Peer(disconnect.reason), kept(disconnect.properties));
            }
            // [MQTT-3.2.0-2]
            Packet::ConnAck(_) => return Err(DecodeError::protocol("a second CONNACK", "MQTT-3.2.0-2")),
            _ => return Err(DecodeError::protocol("a packet that only a client sends", "MQTT 2.1.2")),
        }
        Ok(())
    }

    fn on_publish(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), DecodeError> {
        let v5 = self.options.version.is_v5();
        let publish = Publish::decode(self.options.version, frame)?;
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        let known = qos == QoS::ExactlyOnce && self.incoming.contains(packet_id);
        let counted = self.link.pending_final_acks() + self.incoming.len();
        // [MQTT-3.3.4-9]; 3.x has no such limit to break.
        if v5 && qos != QoS::AtMostOnce && !known && counted >= self.receive_limit {
            return Err(DecodeError::protocol(
                "more messages in flight than Receive Maximum",
                "MQTT-3.3.4-9",
            )
            .with_reason(ReasonCode::ReceiveMaximumExceeded));
        }
        let mut received = self.receive(now, &publish)?;
        let token = self.acknowledge_publish(now, qos, packet_id, known);
        // [MQTT-4.3.3-10]: it was handed out when it came first.
        if !known {
            received.token = token;
            self.events.push_back(Event::Message(received));
        }
        Ok(())
    }

    /// A message in the form it is handed out in, its alias resolved.
    fn receive(&mut self, now: Instant, publish: &Publish<'_>) -> Result<Received, DecodeError> {
        let mut alias = None;
        let mut message_expiry_s = None;
        let mut subscription_ids = SubscriptionIds::None;
        let mut properties = Vec::new();
        for property in publish.properties {
            match property {
                Property::TopicAlias(number) => alias = Some(number),
                Property::MessageExpiryInterval(s) => message_expiry_s = Some(s),
                Property::SubscriptionIdentifier(id) => subscription_ids.push(id),
                other => {
                    let _ = other.encode(&mut properties);
                }
            }
        }
        let Client { link, options, scratch, .. } = self;
        let topic = match alias {
            None => publish.topic,
            // [MQTT-3.1.2-26]
            Some(alias) => {
                link.resolve_alias(publish.topic, alias, options.topic_alias_maximum).map_err(|reason| {
                    DecodeError::protocol("a topic alias that is not one", "MQTT-3.1.2-26")
                        .with_reason(reason)
                })?
            }
        };
        let message = Publication {
            topic,
            qos: publish.qos,
            retain: publish.retain,
            properties: &properties,
            payload: publish.payload,
            expires_at: message_expiry_s.map_or(Instant::NEVER, |s: u32| now + Duration::from_secs(s.into())),
            id: MessageId::default(),
        }
        .to_message(scratch);
        // A large message must not stay behind in the scratch buffer.
        if scratch.capacity() > 64 << 10 {
            *scratch = Vec::new();
        }
        Ok(Received {
            message,
            dup: publish.dup,
            subscription_ids,
            token: None,
            packet_id: publish.packet_id,
            topic_alias: alias,
            message_expiry_s,
        })
    }

    /// Sends PUBACK or PUBREC [MQTT-4.5.0-2], or lets it wait for the application: then there is a token.
    fn acknowledge_publish(
        &mut self,
        now: Instant,
        qos: QoS,
        packet_id: u16,
        known: bool,
    ) -> Option<AckToken> {
        let kind = match qos {
            QoS::AtMostOnce => return None,
            QoS::AtLeastOnce => PacketType::PubAck,
            QoS::ExactlyOnce => PacketType::PubRec,
        };
        if qos == QoS::ExactlyOnce {
            self.incoming.begin(packet_id);
        }
        if self.options.acknowledge == Acknowledge::Automatically {
            self.link.acknowledge(&mut self.pool, 0, 0, kind, packet_id, ReasonCode::Success);
            self.link.sent_at = now;
            return None;
        }
        let held = self.held.iter().find(|&&(id, _)| known && id == packet_id).map(|&(_, token)| token);
        let token = held.unwrap_or_else(|| {
            self.last_token += 1;
            AckToken(self.last_token)
        });
        if qos == QoS::ExactlyOnce && !known {
            self.held.push((packet_id, token));
        }
        self.slots.push_back(Slot { token, acknowledged: known && held.is_none() });
        let gate = self.opened + self.slots.len() as u64;
        self.link.acknowledge(&mut self.pool, gate, self.opened, kind, packet_id, ReasonCode::Success);
        self.release_acks(now);
        Some(token)
    }

    fn on_pubrel(&mut self, now: Instant, ack: &Ack<'_>) {
        // [MQTT-4.3.3-11]
        let known = self.incoming.release(ack.packet_id);
        self.held.retain(|&(id, _)| id != ack.packet_id);
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.link.put_ack(&mut self.pool, PacketType::PubComp, ack.packet_id, reason);
        self.link.sent_at = now;
    }
}

/// No reason string and no user property but in PUBLISH, CONNACK and DISCONNECT [MQTT-3.1.2-29].
fn check_unasked(packet: &Packet<'_>) -> Result<(), DecodeError> {
    let properties = match packet {
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => p.properties,
        Packet::SubAck(p) => p.properties,
        Packet::UnsubAck(p) => p.properties,
        Packet::Auth(p) => p.properties,
        _ => return Ok(()),
    };
    if properties.iter().any(|p| matches!(p, Property::ReasonString(_) | Property::UserProperty(..))) {
        return Err(DecodeError::protocol("problem information that was not asked for", "MQTT-3.1.2-29"));
    }
    Ok(())
}
