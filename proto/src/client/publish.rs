//! Messages to the server.

use super::{Client, Dropped, Event, PACKET_SIZE_MAX, Phase, SendError, ServerLimits, Ticket};
use crate::codec::{
    Ack, DecodeError, PacketType, Properties, Property, PropertyContext, QoS, ReasonCode, varint_len,
};
use crate::message::{MessageId, Publication};
use crate::session::{Acked, Delivery, OutgoingPublish, Payload, Sent, SubscriptionIds, ToSend, Window};
use crate::time::Instant;
use crate::topic::TopicName;
use alloc::vec::Vec;
use core::time::Duration;

/// A message to publish.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublishRequest<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// The message itself.
    pub payload: &'a [u8],
    /// The quality of service.
    pub qos: QoS,
    /// Whether the server is to keep it for later subscribers.
    pub retain: bool,
    /// Properties (5.0), without topic alias: the client uses aliases by itself. Before 5.0 only Message
    /// Expiry Interval means something: how long the message may wait to be sent.
    pub properties: Properties<'a>,
}

/// The ticket of a message on its way out.
pub(super) fn ticket_of(delivery: &Delivery) -> Ticket {
    Ticket(delivery.message.id().count)
}

impl Client {
    /// Sends a message, or queues it at QoS 1 and 2: while there is no connection, or the server takes no more.
    pub fn publish(&mut self, now: Instant, request: &PublishRequest<'_>) -> Result<Ticket, SendError> {
        TopicName::parse(request.topic)?;
        let mut properties = core::mem::take(&mut self.scratch);
        properties.clear();
        let result = forwardable(now, request.properties, &mut properties).and_then(|expires_at| {
            let ticket = Ticket(self.last_ticket + 1);
            self.publish_checked(
                now,
                &Publication {
                    topic: request.topic,
                    qos: request.qos,
                    retain: request.retain,
                    properties: if self.options.version.is_v5() { &properties } else { &[] },
                    payload: request.payload,
                    expires_at,
                    id: MessageId { origin: 0, count: ticket.0 },
                },
            )?;
            self.last_ticket = ticket.0;
            Ok(ticket)
        });
        self.scratch = properties;
        result
    }

    fn publish_checked(&mut self, now: Instant, publication: &Publication<'_>) -> Result<(), SendError> {
        let connected = self.phase == Phase::Connected;
        if connected && let Some(error) = refusal(&self.server, publication.qos, publication.retain) {
            return Err(error);
        }
        let most = if connected { self.server.max_packet_size } else { PACKET_SIZE_MAX };
        // [MQTT-3.2.2-15]
        if packet_len(publication, self.options.version.is_v5()) > most as usize {
            return Err(SendError::TooLarge);
        }
        if publication.qos == QoS::AtMostOnce {
            return self.publish_now(now, publication);
        }
        let size = (publication.topic.len() + publication.payload.len()) as u64;
        let queued = self.outgoing.queued();
        if queued >= self.options.max_queued_messages
            || queued > 0 && self.outgoing.queued_bytes() + size > self.options.max_queued_bytes
        {
            return Err(SendError::QueueFull);
        }
        self.outgoing.push(Delivery {
            message: publication.to_message(&mut Vec::new()),
            qos: publication.qos,
            retain: publication.retain,
            ids: SubscriptionIds::None,
            share: 0,
            seq: 0,
            body: 0,
        });
        self.pump(now);
        Ok(())
    }

    fn publish_now(&mut self, now: Instant, publication: &Publication<'_>) -> Result<(), SendError> {
        if self.phase != Phase::Connected {
            return Err(SendError::NotConnected);
        }
        if self.link.outbox.len() > self.options.max_output_bytes {
            return Err(SendError::QueueFull);
        }
        let publish = OutgoingPublish {
            topic: publication.topic.as_bytes(),
            properties: publication.properties,
            payload: Payload::Bytes(publication.payload),
            expires_at: publication.expires_at,
            qos: QoS::AtMostOnce,
            dup: false,
            retain: publication.retain,
            packet_id: 0,
            ids: &SubscriptionIds::None,
        };
        if self.link.put_publish(&mut self.pool, now, &publish) == Sent::TooLarge {
            return Err(SendError::TooLarge);
        }
        self.link.sent_at = now;
        Ok(())
    }

    /// Sends what the window allows: first again what was in flight, then what is queued [MQTT-4.4.0-1].
    pub(super) fn pump(&mut self, now: Instant) {
        if self.phase != Phase::Connected {
            return;
        }
        let Client { outgoing, link, pool, events, server, .. } = self;
        let window = Window { messages: link.send_window, bytes: u64::MAX };
        loop {
            let expired = |delivery: Delivery| {
                events.push_back(Event::Dropped { ticket: ticket_of(&delivery), why: Dropped::Expired });
            };
            let Some(send) = outgoing.next(window, now, expired) else { return };
            let (packet_id, dup, delivery) = match send {
                ToSend::PubRel { packet_id } => {
                    link.put_ack(pool, PacketType::PubRel, packet_id, ReasonCode::Success);
                    link.sent_at = now;
                    continue;
                }
                ToSend::Publish { packet_id, dup, delivery, .. } => (packet_id, dup, delivery),
            };
            let message = &delivery.message;
            let publish = OutgoingPublish {
                topic: message.topic_bytes(),
                properties: message.properties(),
                payload: Payload::Kept(message),
                expires_at: message.expires_at(),
                qos: delivery.qos,
                dup,
                retain: delivery.retain,
                packet_id,
                ids: &delivery.ids,
            };
            let refused = match refusal(server, delivery.qos, delivery.retain) {
                Some(error) => Some(error),
                None if link.put_publish(pool, now, &publish) == Sent::TooLarge => Some(SendError::TooLarge),
                None => None,
            };
            match refused {
                None => link.sent_at = now,
                Some(error) => {
                    let (ticket, why) = (ticket_of(delivery), Dropped::Refused(error));
                    outgoing.discard(packet_id);
                    events.push_back(Event::Dropped { ticket, why });
                }
            }
        }
    }

    pub(super) fn on_puback(&mut self, ack: &Ack<'_>) {
        if let Acked::Done { delivery: Some(delivery), .. } = self.outgoing.on_puback(ack.packet_id) {
            self.events.push_back(Event::Published { ticket: ticket_of(&delivery), reason: ack.reason });
        }
    }

    pub(super) fn on_pubrec(&mut self, now: Instant, ack: &Ack<'_>) {
        let ticket = self.outgoing.delivery(ack.packet_id).map(ticket_of);
        let reason = match self.outgoing.on_pubrec(ack.packet_id, ack.reason) {
            Acked::Release { .. } => {
                if let Some(ticket) = ticket {
                    self.released.insert(ack.packet_id, (ticket, ack.reason));
                }
                ReasonCode::Success
            }
            // [MQTT-4.3.3-4]
            Acked::Done { .. } => {
                let ticket = ticket.or(self.released.remove(&ack.packet_id).map(|r| r.0));
                if let Some(ticket) = ticket {
                    self.events.push_back(Event::Published { ticket, reason: ack.reason });
                }
                return;
            }
            Acked::Unknown | Acked::Wrong if ack.reason.is_error() => return,
            Acked::Unknown | Acked::Wrong => ReasonCode::PacketIdentifierNotFound,
        };
        self.link.put_ack(&mut self.pool, PacketType::PubRel, ack.packet_id, reason);
        self.link.sent_at = now;
    }

    pub(super) fn on_pubcomp(&mut self, ack: &Ack<'_>) {
        if let Acked::Done { .. } = self.outgoing.on_pubcomp(ack.packet_id)
            && let Some((ticket, reason)) = self.released.remove(&ack.packet_id)
        {
            self.events.push_back(Event::Published { ticket, reason });
        }
    }
}

/// Why a server does not take a message, if so.
fn refusal(server: &ServerLimits, qos: QoS, retain: bool) -> Option<SendError> {
    // [MQTT-3.2.2-11]
    if qos > server.maximum_qos {
        return Some(SendError::QoSNotSupported);
    }
    // [MQTT-3.2.2-14]
    (retain && !server.retain_available).then_some(SendError::RetainNotSupported)
}

/// Checks the properties of a message and copies what is kept with it; gives when it expires.
fn forwardable(now: Instant, properties: Properties<'_>, out: &mut Vec<u8>) -> Result<Instant, SendError> {
    let mut expires_at = Instant::NEVER;
    if properties.is_empty() {
        return Ok(expires_at);
    }
    let context = PropertyContext::Packet(PacketType::Publish);
    let properties = Properties::validate(properties.raw(), context).map_err(SendError::InvalidProperties)?;
    for property in properties {
        let wrong = match property {
            Property::MessageExpiryInterval(seconds) => {
                expires_at = now + Duration::from_secs(seconds.into());
                continue;
            }
            Property::TopicAlias(_) => ("the client chooses topic aliases by itself", "MQTT 3.3.2.3.4"),
            // [MQTT-3.3.4-6]
            Property::SubscriptionIdentifier(_) => {
                ("a client's PUBLISH has no subscription identifier", "MQTT-3.3.4-6")
            }
            other => {
                other.encode(out)?;
                continue;
            }
        };
        return Err(SendError::InvalidProperties(DecodeError::protocol(wrong.0, wrong.1)));
    }
    Ok(expires_at)
}

/// How long the PUBLISH will be, fixed header included and without an alias.
fn packet_len(publication: &Publication<'_>, v5: bool) -> usize {
    let mut len = 2 + publication.topic.len() + publication.payload.len();
    if publication.qos != QoS::AtMostOnce {
        len += 2;
    }
    if v5 {
        let expiry = if publication.expires_at == Instant::NEVER { 0 } else { 5 };
        let properties = publication.properties.len() + expiry;
        len += varint_len(properties as u32) + properties;
    }
    1 + varint_len(u32::try_from(len).unwrap_or(u32::MAX)) + len
}
