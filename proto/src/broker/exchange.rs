//! Enhanced authentication (5.0): what a client and the driver say to each other in CONNECT, AUTH and CONNACK.
//!
//! The core carries a method and data, both opaque to it, and sees to the order: client and driver speak in turn,
//! under one method, in no more than [`AUTH_ROUNDS_MAX`] rounds and no longer than a CONNECT may take. Before the CONNACK
//! nothing else is read meanwhile. A re-authentication runs beside everything else the client does, under the rights
//! it has already; they stay the same, as it has to end with the same user.

use super::Shard;
use super::conn::{Flow, Pause, Phase};
use super::connect::why_not;
use super::denial::Denial;
use super::io::{AUTH_ROUNDS_MAX, AuthStep, Authenticate, ConnId, Output, Verdict};
use crate::codec::{Auth, Packet, PacketType, PropertiesBuf, Property, ReasonCode};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// The enhanced authentication of a connection.
#[derive(Debug)]
pub(super) struct Exchange {
    method: Box<str>,
    turn: Turn,
    rounds: u8,
    /// When the last re-authentication began.
    since: Instant,
}

/// Who is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// All is said; the client may begin anew.
    Nobody,
    Driver,
    Client,
}

impl Exchange {
    /// The driver has been asked.
    pub fn new(method: &str) -> Exchange {
        Exchange { method: method.into(), turn: Turn::Driver, rounds: 0, since: Instant::NEVER }
    }

    /// The method in CONNECT.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// When the re-authentication began that has not ended.
    pub fn underway_since(&self) -> Option<Instant> {
        (self.turn != Turn::Nobody).then_some(self.since)
    }
}

impl Shard {
    pub(super) fn on_auth(&mut self, id: ConnId, auth: &Auth<'_>) -> Flow {
        let now = self.now;
        let Some(conn) = self.conn(id) else { return Flow::Closed };
        let running = conn.phase == Phase::Running;
        let Some(exchange) = &mut conn.exchange else {
            return self.fail(id, ReasonCode::ProtocolError, "AUTH where nothing was asked");
        };
        match auth.properties.authentication_method() {
            Some(method) if *method == *exchange.method => {}
            Some(_) => {
                // [MQTT-4.12.0-5] [MQTT-4.12.1-1]
                let what = "another authentication method than in CONNECT";
                return self.fail(id, ReasonCode::BadAuthenticationMethod, what);
            }
            None => return self.fail(id, ReasonCode::ProtocolError, "AUTH without an authentication method"),
        }
        let step = match (auth.reason, exchange.turn) {
            (ReasonCode::ContinueAuthentication, Turn::Client) => AuthStep::Continue, // [MQTT-4.12.0-3]
            (ReasonCode::ReAuthenticate, Turn::Nobody) if running => AuthStep::Reauthenticate,
            _ => return self.fail(id, ReasonCode::ProtocolError, "an AUTH out of turn"),
        };
        exchange.turn = Turn::Driver;
        if step == AuthStep::Reauthenticate {
            (exchange.rounds, exchange.since) = (0, now);
        }
        self.ask_again(id, step, auth);
        match step {
            AuthStep::Reauthenticate => self.arm_alive(id.index),
            _ if !running => {
                self.pause(id, Pause::Authentication);
                return Flow::Pause;
            }
            _ => {}
        }
        self.after_answer(id)
    }

    /// Asks the driver what it says to an AUTH.
    fn ask_again(&mut self, id: ConnId, step: AuthStep, auth: &Auth<'_>) {
        let Shard { conns, sessions, outputs, .. } = self;
        let Some(conn) = super::conn_at(conns, id) else { return };
        let session = sessions.get(conn.session);
        let (client_id, username) = match &conn.request {
            Some(request) => (request.client_id(), request.username()),
            None => session.map_or(("", None), |s| (&*s.client_id, s.username.as_deref())),
        };
        outputs.push_back(Output::Authenticate(Box::new(Authenticate {
            conn: id,
            step,
            listener: conn.listener,
            version: conn.link.version,
            peer: conn.peer,
            client_id: client_id.into(),
            username: username.map(String::from),
            password: None,
            method: auth.properties.authentication_method().map(String::from),
            data: auth.properties.authentication_data().map(Vec::from),
        })));
    }

    pub(super) fn on_authenticated(&mut self, id: ConnId, verdict: Verdict) {
        let Some(conn) = self.conn(id) else { return };
        match &mut conn.exchange {
            Some(exchange) if exchange.turn == Turn::Driver => exchange.turn = Turn::Nobody,
            None if conn.phase == Phase::Authenticating => {}
            // Nothing was asked.
            _ => return,
        }
        match conn.phase {
            Phase::Running => self.on_reauthenticated(id, verdict),
            _ => self.on_connect_authenticated(id, verdict),
        }
    }

    fn on_connect_authenticated(&mut self, id: ConnId, verdict: Verdict) {
        match verdict {
            // [MQTT-4.12.0-4]
            Verdict::Failure(reason) => {
                let Some(conn) = self.conn(id) else { return };
                let in_steps = conn.exchange.is_some();
                let Some(request) = conn.request.take() else { return };
                let refusal = (reason, why_not(reason, in_steps || request.username().is_some()));
                self.log_refusal(id, Denial::Login, Some(request.who()), refusal);
                self.say_no(id, refusal);
            }
            Verdict::Continue { data } => {
                if self.continue_exchange(id, &data) {
                    self.resume(id, Pause::Authentication);
                }
            }
            Verdict::Success { username, data } => {
                let Some(mut request) = self.conn(id).and_then(|c| c.request.take()) else { return };
                request.set_username(username);
                if self.accept(id, *request, data) != Flow::Closed {
                    self.resume(id, Pause::Authentication);
                }
            }
        }
    }

    fn on_reauthenticated(&mut self, id: ConnId, verdict: Verdict) {
        match verdict {
            Verdict::Failure(reason) => {
                let known = reason.allowed_in(PacketType::Disconnect);
                let reason = if known { reason } else { ReasonCode::NotAuthorized };
                self.fail(id, reason, "not authenticated anew"); // [MQTT-4.12.1-2]
            }
            Verdict::Continue { data } => {
                self.continue_exchange(id, &data);
            }
            Verdict::Success { username, data } => {
                let session = self.conn(id).map(|c| c.session);
                let session = session.and_then(|session| self.sessions.get(session));
                if username.is_some() && session.is_none_or(|s| s.username != username) {
                    self.fail(id, ReasonCode::NotAuthorized, "authenticated anew as another user");
                    return;
                }
                self.put_auth(id, ReasonCode::Success, data.as_deref());
            }
        }
    }

    /// Hands the word to the client. False if there is no client any more.
    fn continue_exchange(&mut self, id: ConnId, data: &[u8]) -> bool {
        let Some(conn) = self.conn(id) else { return false };
        let rounds = match &mut conn.exchange {
            Some(exchange) => {
                exchange.turn = Turn::Client;
                exchange.rounds += 1;
                exchange.rounds
            }
            None => {
                // [MQTT-4.12.0-6]
                self.fail(id, ReasonCode::NotAuthorized, "several steps without an authentication method");
                return false;
            }
        };
        if rounds > AUTH_ROUNDS_MAX {
            self.fail(id, ReasonCode::NotAuthorized, "too many steps of authentication");
            return false;
        }
        self.put_auth(id, ReasonCode::ContinueAuthentication, Some(data)) // [MQTT-4.12.0-2]
    }

    /// Sends an AUTH. False if there is no client any more.
    fn put_auth(&mut self, id: ConnId, reason: ReasonCode, data: Option<&[u8]>) -> bool {
        let mut properties = PropertiesBuf::default();
        let Some(exchange) = self.conn(id).and_then(|c| c.exchange.as_ref()) else { return false };
        properties.push(Property::AuthenticationMethod(&exchange.method)); // [MQTT-4.12.0-5]
        if let Some(data) = data {
            properties.push(Property::AuthenticationData(data));
        }
        let sent = self.put(id, &Packet::Auth(Auth { reason, properties: properties.as_properties() }));
        if !sent {
            self.fail(id, ReasonCode::PacketTooLarge, "the AUTH is larger than the client takes");
        }
        sent
    }
}
