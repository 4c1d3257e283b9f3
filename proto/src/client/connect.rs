//! Connecting: CONNECT, CONNACK, enhanced authentication, and what becomes of the session.

use super::publish::ticket_of;
use super::{By, Connected};
use super::{Client, Dropped, Event, Phase, SendError, ServerLimits, kept};
use crate::codec::{
    Auth, ConnAck, Connect, DecodeError, Packet, Properties, PropertiesBuf, Property, QoS, ReasonCode,
    Version, Will,
};
use crate::session::Link;
use crate::time::Instant;
use alloc::string::String;
use alloc::vec::Vec;

/// Where an exchange of AUTH packets stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// There is none.
    None,
    /// The server is to answer.
    Server,
    /// The application is to answer.
    Application,
}

impl Client {
    /// A transport is connected: CONNECT goes into the outbox.
    pub fn transport_up(&mut self, now: Instant) {
        if self.phase != Phase::Offline {
            self.transport_down(now);
        }
        self.link = Link::new(now);
        self.link.version = self.options.version;
        self.heard_at = now;
        self.pinged_at = None;
        self.server = ServerLimits::default();
        self.connect_by = now + self.options.connect_timeout;
        self.auth_by = Instant::NEVER;
        // A resumable session of 5.0 is begun clean only once.
        let resume = self.established && self.options.version.is_v5() && self.expiry_s > 0;
        self.clean_start = self.options.clean_start && !resume;
        self.exchange = match self.options.authentication {
            Some(_) => Exchange::Server,
            None => Exchange::None,
        };
        self.phase = Phase::Connecting;
        if let Err(error) = self.put_connect() {
            self.close(now, By::Options(error), PropertiesBuf::default());
        }
    }

    /// The transport is gone, for whatever reason. The session stays: messages in flight are sent again when the
    /// server still knows the session too. SUBSCRIBEs without answer are dropped.
    pub fn transport_down(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Connecting | Phase::Connected) {
            self.close(now, By::Transport, PropertiesBuf::default());
        }
        self.phase = Phase::Offline;
        self.outgoing.interrupt();
        for (packet_id, request) in core::mem::take(&mut self.requests) {
            self.outgoing.unreserve(packet_id);
            self.events.push_back(Event::Dropped { ticket: request.ticket, why: Dropped::ConnectionLost });
        }
        self.slots.clear();
        self.opened = 0;
        self.exchange = Exchange::None;
        self.server = ServerLimits::default();
        self.link = Link::new(now);
    }

    /// What the next CONNECT carries as authentication data: for methods in which it is another each time. Nothing
    /// changes where the options have no authentication method.
    pub fn set_authentication_data(&mut self, data: &[u8]) {
        if let Some(authentication) = &mut self.options.authentication {
            authentication.data = Some(data.into());
        }
    }

    /// Answers [`Event::Auth`] with reason `ContinueAuthentication` (5.0) [MQTT-4.12.0-3].
    pub fn authenticate(&mut self, now: Instant, data: &[u8]) -> Result<(), SendError> {
        if self.exchange != Exchange::Application {
            return Err(SendError::NotAuthenticating);
        }
        self.put_auth(now, ReasonCode::ContinueAuthentication, data)
    }

    /// Begins to authenticate anew on a connection that was made with an authentication method
    /// [MQTT-4.12.1-1].
    pub fn reauthenticate(&mut self, now: Instant, data: &[u8]) -> Result<(), SendError> {
        if self.phase != Phase::Connected {
            return Err(SendError::NotConnected);
        }
        if self.exchange != Exchange::None {
            return Err(SendError::NotAuthenticating);
        }
        self.put_auth(now, ReasonCode::ReAuthenticate, data)
    }

    fn put_auth(&mut self, now: Instant, reason: ReasonCode, data: &[u8]) -> Result<(), SendError> {
        // [MQTT-4.12.0-7]
        let Some(authentication) =
            self.options.authentication.as_ref().filter(|_| self.options.version.is_v5())
        else {
            return Err(SendError::NotAuthenticating);
        };
        let mut properties = PropertiesBuf::default();
        properties.try_push(Property::AuthenticationMethod(&authentication.method))?;
        if !data.is_empty() {
            properties.try_push(Property::AuthenticationData(data))?;
        }
        self.put(now, &Packet::Auth(Auth { reason, properties: properties.as_properties() }))?;
        self.exchange = Exchange::Server;
        if self.phase == Phase::Connected {
            self.auth_by = now + self.options.connect_timeout;
        }
        Ok(())
    }

    fn put_connect(&mut self) -> Result<(), super::OptionsError> {
        self.options.check()?;
        let options = &self.options;
        let properties = options.properties()?;
        let will = options.will.as_ref().map(|will| Will {
            qos: will.qos,
            retain: will.retain,
            properties: will.properties.as_properties(),
            topic: &will.topic,
            payload: &will.payload,
        });
        let connect = Connect {
            version: options.version,
            bridge: false,
            clean_start: self.clean_start,
            keep_alive_s: options.keep_alive_s,
            properties: properties.as_properties(),
            client_id: self.assigned_id.as_deref().unwrap_or(&options.client_id),
            will,
            username: options.username.as_deref(),
            password: options.password.as_deref(),
        };
        self.link.put(&mut self.pool, &Packet::Connect(connect))?;
        Ok(())
    }

    pub(super) fn on_connack(&mut self, now: Instant, connack: &ConnAck<'_>) -> Result<(), DecodeError> {
        let properties = connack.properties;
        if connack.reason != ReasonCode::Success {
            self.begin_close(now);
            self.events.push_back(Event::Refused { reason: connack.reason, properties: kept(properties) });
            return Ok(());
        }
        self.check_method(properties)?;
        // 3.1 cannot say: who asked for the session assumes that it is there.
        let session_present =
            connack.session_present || self.options.version == Version::V3_1 && !self.clean_start;
        // [MQTT-3.2.2-4]
        if session_present && self.clean_start {
            return Err(DecodeError::protocol(
                "the server has a session where a new one was asked for",
                "MQTT-3.2.2-4",
            ));
        }
        if !session_present {
            self.lose_session();
        }
        let server = ServerLimits::of(properties);
        self.server = server;
        // [MQTT-3.1.2-21]
        self.link.keep_alive_s = properties.server_keep_alive().unwrap_or(self.options.keep_alive_s);
        // [MQTT-4.9.0-1]
        self.link.send_window = server.receive_maximum.min(self.options.max_inflight);
        self.link.peer_max_packet = server.max_packet_size;
        // [MQTT-3.2.2-17], [MQTT-3.2.2-18]
        self.link.allow_aliases_out(server.topic_alias_maximum.min(self.options.max_topic_aliases));
        self.expiry_s = properties.session_expiry_interval().unwrap_or(self.options.session_expiry_s);
        // What was received on earlier connections does not count on this one [MQTT-4.9.0-1].
        self.receive_limit = usize::from(self.options.receive_maximum) + self.incoming.len();
        let assigned = properties.assigned_client_identifier().map(String::from);
        if self.options.client_id.is_empty() && assigned.is_some() {
            self.assigned_id = assigned.clone();
        }
        self.phase = Phase::Connected;
        self.established = true;
        self.exchange = Exchange::None;
        self.events.push_back(Event::Connected(Connected {
            session_present,
            assigned_client_id: assigned,
            keep_alive_s: self.link.keep_alive_s,
            server,
            properties: kept(properties),
        }));
        Ok(())
    }

    pub(super) fn on_auth(&mut self, now: Instant, auth: &Auth<'_>) -> Result<(), DecodeError> {
        let wanted = match auth.reason {
            ReasonCode::ContinueAuthentication => true,
            ReasonCode::Success => self.phase == Phase::Connected,
            _ => false,
        };
        // [MQTT-4.12.0-6]
        if !wanted || self.exchange != Exchange::Server {
            return Err(DecodeError::protocol("an AUTH that nobody waits for", "MQTT-4.12.0-6"));
        }
        self.check_method(auth.properties)?;
        self.exchange = match auth.reason {
            ReasonCode::Success => Exchange::None,
            _ => Exchange::Application,
        };
        self.connect_by = now + self.options.connect_timeout;
        self.auth_by = Instant::NEVER;
        self.events.push_back(Event::Auth { reason: auth.reason, properties: kept(auth.properties) });
        Ok(())
    }

    /// The method is the one of CONNECT [MQTT-4.12.0-5] [MQTT-4.12.0-6].
    fn check_method(&self, properties: Properties<'_>) -> Result<(), DecodeError> {
        let ours = self.options.authentication.as_ref().map(|a| a.method.as_str());
        if self.options.version.is_v5() && properties.authentication_method() != ours {
            return Err(DecodeError::protocol(
                "the authentication method is not that of CONNECT",
                "MQTT-4.12.0-5",
            ));
        }
        Ok(())
    }

    /// The server has no session: ours is void too [MQTT-3.2.2-5]. What was only queued is not part of it.
    fn lose_session(&mut self) {
        let unconfirmed = self.outgoing.in_flight() - self.released.len().min(self.outgoing.in_flight());
        let waiting: Vec<_> = self.outgoing.drain().collect();
        for (ticket, reason) in core::mem::take(&mut self.released).into_values() {
            self.events.push_back(Event::Published { ticket, reason });
        }
        for (at, delivery) in waiting.into_iter().enumerate() {
            if at < unconfirmed && delivery.qos == QoS::ExactlyOnce {
                let ticket = ticket_of(&delivery);
                self.events.push_back(Event::Dropped { ticket, why: Dropped::SessionLost });
            } else {
                self.outgoing.push(delivery);
            }
        }
        self.incoming = Default::default();
        self.held.clear();
        if self.established {
            self.events.push_back(Event::SessionLost);
        }
    }
}
