//! SUBSCRIBE and UNSUBSCRIBE, and their answers.

use super::{Client, Event, Phase, SendError, Ticket, check_properties, kept};
use crate::codec::{
    DecodeError, EncodeError, PacketType, Properties, ReasonCode, SubAck, SubscribeOptions, UnsubAck,
    Version, encode_subscribe, encode_unsubscribe,
};
use crate::session::Sent;
use crate::time::Instant;
use crate::topic::TopicFilter;
use alloc::vec;
use alloc::vec::Vec;

/// How many SUBSCRIBEs and UNSUBSCRIBEs may be without answer.
const REQUESTS_MAX: usize = 1024;

/// A SUBSCRIBE or UNSUBSCRIBE without answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub ticket: Ticket,
    packet: PacketType,
    filters: usize,
}

impl Client {
    /// Asks for messages. [`Event::Subscribed`] has the answer; a connection that ends before drops the request.
    pub fn subscribe(
        &mut self,
        now: Instant,
        filters: &[(&str, SubscribeOptions)],
        properties: Properties<'_>,
    ) -> Result<Ticket, SendError> {
        for (filter, options) in filters {
            let filter = TopicFilter::parse(filter)?;
            // [MQTT-3.8.3-4]
            if options.no_local && filter.share().is_some() {
                return Err(SendError::NoLocalOnShared);
            }
            if !self.server.shared_available && filter.share().is_some() {
                return Err(SendError::SharedNotSupported);
            }
            if !self.server.wildcards_available && filter.filter().contains(['+', '#']) {
                return Err(SendError::WildcardsNotSupported);
            }
        }
        if self.options.version.is_v5() {
            check_properties(properties, PacketType::Subscribe)?;
            if !self.server.subscription_ids_available
                && properties.subscription_identifiers().next().is_some()
            {
                return Err(SendError::SubscriptionIdsNotSupported);
            }
        }
        self.request(now, PacketType::Subscribe, filters.len(), |version, packet_id, out| {
            encode_subscribe(version, packet_id, properties, filters, out)
        })
    }

    /// Asks for no more messages. [`Event::Unsubscribed`] has the answer; a connection that ends before drops the
    /// request.
    pub fn unsubscribe(
        &mut self,
        now: Instant,
        filters: &[&str],
        properties: Properties<'_>,
    ) -> Result<Ticket, SendError> {
        for filter in filters {
            TopicFilter::parse(filter)?;
        }
        if self.options.version.is_v5() {
            check_properties(properties, PacketType::Unsubscribe)?;
        }
        self.request(now, PacketType::Unsubscribe, filters.len(), |version, packet_id, out| {
            encode_unsubscribe(version, packet_id, properties, filters, out)
        })
    }

    fn request(
        &mut self,
        now: Instant,
        packet: PacketType,
        filters: usize,
        encode: impl FnOnce(Version, u16, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<Ticket, SendError> {
        if self.phase != Phase::Connected {
            return Err(SendError::NotConnected);
        }
        if self.requests.len() >= REQUESTS_MAX || self.link.outbox.len() > self.options.max_output_bytes {
            return Err(SendError::QueueFull);
        }
        let packet_id = self.outgoing.reserve().ok_or(SendError::QueueFull)?;
        let sent = self.link.put_with(&mut self.pool, |version, out| encode(version, packet_id, out));
        match sent {
            Ok(Sent::Yes) => {}
            Ok(Sent::TooLarge) => {
                self.outgoing.unreserve(packet_id);
                return Err(SendError::TooLarge);
            }
            Err(error) => {
                self.outgoing.unreserve(packet_id);
                return Err(error.into());
            }
        }
        self.link.sent_at = now;
        let ticket = self.next_ticket();
        self.requests.insert(packet_id, Request { ticket, packet, filters });
        Ok(ticket)
    }

    pub(super) fn on_suback(&mut self, suback: &SubAck<'_>) -> Result<(), DecodeError> {
        let codes = suback.codes.iter().map(|&code| ReasonCode::from_u8(code));
        let codes = codes.map(|code| code.unwrap_or(ReasonCode::UnspecifiedError)).collect();
        let Some((ticket, codes)) = self.answered(suback.packet_id, PacketType::Subscribe, codes)? else {
            return Ok(());
        };
        self.events.push_back(Event::Subscribed { ticket, codes, properties: kept(suback.properties) });
        Ok(())
    }

    pub(super) fn on_unsuback(&mut self, unsuback: &UnsubAck<'_>) -> Result<(), DecodeError> {
        let codes = if self.options.version.is_v5() {
            let codes = unsuback.codes.iter().map(|&code| ReasonCode::from_u8(code));
            codes.map(|code| code.unwrap_or(ReasonCode::UnspecifiedError)).collect()
        } else {
            let filters = self.requests.get(&unsuback.packet_id).map_or(0, |r| r.filters);
            vec![ReasonCode::Success; filters]
        };
        let Some((ticket, codes)) = self.answered(unsuback.packet_id, PacketType::Unsubscribe, codes)? else {
            return Ok(());
        };
        self.events.push_back(Event::Unsubscribed { ticket, codes, properties: kept(unsuback.properties) });
        Ok(())
    }

    /// Finds what an answer belongs to. One to nothing is let pass.
    fn answered(
        &mut self,
        packet_id: u16,
        packet: PacketType,
        codes: Vec<ReasonCode>,
    ) -> Result<Option<(Ticket, Vec<ReasonCode>)>, DecodeError> {
        let Some(&request) = self.requests.get(&packet_id).filter(|r| r.packet == packet) else {
            log::debug!("The server answers a request that was not made.");
            return Ok(None);
        };
        // [MQTT-3.8.4-6] [MQTT-3.11.3-1]
        if codes.len() != request.filters {
            return Err(DecodeError::protocol("an answer has not one code per topic filter", "MQTT-3.8.4-6"));
        }
        self.requests.remove(&packet_id);
        self.outgoing.unreserve(packet_id);
        Ok(Some((request.ticket, codes)))
    }
}
