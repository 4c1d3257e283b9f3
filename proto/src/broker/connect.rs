//! CONNECT: who the client is, which session it gets, and what both may expect of each other.

use super::conn::{Cause, Flow, Pause, Phase, Told, conn_at};
use super::denial::{Denial, Name, PeerText, UserText};
use super::exchange::Exchange;
use super::io::{AuthStep, Authenticate, ConnId, Output};
use super::mount::Mount;
use super::publish::may_publish;
use super::rights::Subject;
use super::session::Will;
use super::sys::Refused;
use super::{Authentication, Shard};
use crate::codec::{
    ConnAck, Connect, DecodeError, ErrorKind, Frame, Packet, Properties, PropertiesBuf, Property, QoS,
    ReasonCode, Version,
};
use crate::message::{MessageId, Publication};
use crate::time::Instant;
use crate::topic::TopicName;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use log::info;

/// What a CONNECT asks for, kept while authentication is underway.
#[derive(Debug)]
pub(super) struct Request {
    client_id: String,
    /// Whether the id was made by us.
    assigned: bool,
    username: Option<Box<str>>,
    clean_start: bool,
    keep_alive_s: u16,
    expiry_s: u32,
    receive_maximum: u16,
    topic_alias_maximum: u16,
    will: Option<Box<Will>>,
}

impl Request {
    /// The effective client id.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The user name to be checked.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The user who was found out, where that is not the one in CONNECT.
    pub fn set_username(&mut self, username: Option<Box<str>>) {
        self.username = username.or(self.username.take());
    }
}

/// Why a CONNECT is not accepted: what the client is told, and what the log says.
pub(super) type Refusal = (ReasonCode, &'static str);

impl Request {
    pub fn who(&self) -> Subject<'_> {
        Subject { client_id: &self.client_id, username: self.username.as_deref() }
    }
}

impl Shard {
    /// Answers a CONNECT that could not be decoded, as far as the standard lets a server answer.
    pub(super) fn refuse_malformed(&mut self, id: ConnId, frame: Option<Frame<'_>>, error: &DecodeError) {
        let body = frame.map_or(&[][..], |f| f.body);
        let name_len = body.get(..2).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
        let level = body.get(2 + name_len).map_or(0, |l| l & 0x7f);
        let v5 = level >= 5 && matches!(body.get(2..2 + name_len), Some(b"MQTT" | b"MQIsdp"));
        if let Some(conn) = self.conn(id) {
            conn.link.version = if v5 { Version::V5 } else { Version::V3_1_1 };
        }
        let told = match error.reason {
            _ if error.quiet => false,
            // [MQTT-3.1.2-2]; to levels that never were as well.
            ReasonCode::UnsupportedProtocolVersion => level > 0,
            // 3.x knows it for an id that may be read, not for one that is no string.
            ReasonCode::ClientIdentifierNotValid => v5 || error.kind == ErrorKind::Protocol,
            reason => v5 && reason.allowed_in(crate::codec::PacketType::ConnAck),
        };
        if told {
            self.refuse(id, None, (error.reason, error.what));
        } else {
            self.log_refusal(id, Denial::Stranger, None, (error.reason, error.what));
            self.close(id, Cause::Silent(error.what));
        }
    }

    /// Says no in a CONNACK and closes [MQTT-3.2.2-7].
    pub(super) fn refuse(&mut self, id: ConnId, who: Option<Subject<'_>>, refusal: Refusal) -> Flow {
        self.log_refusal(id, Denial::Connect, who, refusal);
        self.say_no(id, refusal)
    }

    pub(super) fn say_no(&mut self, id: ConnId, (reason, what): Refusal) -> Flow {
        // [MQTT-3.2.2-8]: whoever authenticates may have any in mind.
        let fits = reason.is_error() && reason.allowed_in(crate::codec::PacketType::ConnAck);
        let reason = if fits { reason } else { ReasonCode::NotAuthorized };
        let connack = ConnAck { session_present: false, reason, properties: Properties::default() };
        self.put(id, &Packet::ConnAck(connack));
        self.close(id, Cause::Refused(what));
        Flow::Closed
    }

    pub(super) fn on_connect(&mut self, id: ConnId, connect: &Connect<'_>) -> Flow {
        self.counters.connects += 1;
        let Some(conn) = self.conn(id) else { return Flow::Closed };
        let v5 = connect.version.is_v5();
        conn.link.version = connect.version;
        let properties = connect.properties;
        conn.link.problem_information = properties.request_problem_information() != Some(0);
        conn.link.peer_max_packet = properties.maximum_packet_size().unwrap_or(u32::MAX);
        let (listener, identity, entropy) = (conn.listener, conn.identity.clone(), conn.entropy);
        let (peer, mount) = (conn.peer, conn.mount.clone());
        let username = identity.clone().or_else(|| connect.username.map(Box::from));
        let client_id = self.config.effective_client_id(listener, identity.as_deref(), &entropy, connect);
        let method = properties.authentication_method();
        let settings = self.config.listener(listener);
        let who = Subject { client_id: &client_id, username: username.as_deref() };
        let ask = settings.is_none_or(|l| l.authentication == Authentication::Ask) && identity.is_none();
        if settings.is_some_and(|l| l.closed) {
            let what = "this listener is not configured any more";
            return self.refuse(id, Some(who), (ReasonCode::NotAuthorized, what));
        }
        if settings.is_some_and(|l| l.identity_required) && identity.is_none() {
            // As mosquitto: the certificate stands for a user name that is not there.
            let what = "no certificate that names the client";
            return self.refuse(id, Some(who), (ReasonCode::BadUserNameOrPassword, what));
        }
        if settings.is_some_and(|l| l.use_username_as_clientid)
            && username.as_deref().is_none_or(str::is_empty)
        {
            let what = "no user name to take for the client id";
            return self.refuse(id, Some(who), (ReasonCode::NotAuthorized, what));
        }
        let prefix = settings.and_then(|l| l.clientid_prefixes.as_deref());
        if !client_id.starts_with(prefix.unwrap_or_default()) {
            let what = "the client id does not begin as clientid_prefixes wants";
            return self.refuse(id, Some(who), (ReasonCode::ClientIdentifierNotValid, what));
        }
        if method.is_some() && !ask {
            let what = "no authentication method is offered";
            return self.refuse(id, Some(who), (ReasonCode::BadAuthenticationMethod, what));
        }
        // Who tries this is no client of ours: mosquitto's control topics take requests, not wills.
        if connect.will.is_some_and(|will| will.topic.starts_with("$CONTROL/")) {
            let what = "a will to $CONTROL";
            self.log_refusal(id, Denial::Stranger, Some(who), (ReasonCode::NotAuthorized, what));
            self.close(id, Cause::Silent(what));
            return Flow::Closed;
        }
        let will = match self.will_of(connect, &mount) {
            Ok(will) => will,
            Err(refusal) => return self.refuse(id, Some(who), refusal),
        };
        if let Some(refusal) = self.beyond_limits(listener, connect, will.as_deref()) {
            self.counters.refuse(Refused::Connection);
            return self.refuse(id, Some(who), refusal);
        }
        // In 3.x a clean session ends with its connection, any other never does.
        let expiry = match (v5, connect.clean_start) {
            (true, _) => properties.session_expiry_interval().unwrap_or(0),
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        let request = Box::new(Request {
            client_id,
            assigned: connect.client_id.is_empty(),
            username,
            clean_start: connect.clean_start,
            keep_alive_s: connect.keep_alive_s,
            expiry_s: expiry,
            receive_maximum: properties.receive_maximum().unwrap_or(u16::MAX),
            topic_alias_maximum: properties.topic_alias_maximum().unwrap_or(0),
            will,
        });
        if !ask {
            return self.accept(id, *request, None);
        }
        self.outputs.push_back(Output::Authenticate(Box::new(Authenticate {
            conn: id,
            step: AuthStep::Connect,
            listener,
            version: connect.version,
            peer,
            client_id: request.client_id.clone(),
            username: connect.username.map(String::from),
            password: connect.password.map(Vec::from),
            method: method.map(String::from),
            data: properties.authentication_data().map(Vec::from),
        })));
        if let Some(conn) = self.conn(id) {
            conn.phase = Phase::Authenticating;
            conn.request = Some(request);
            conn.exchange = method.map(|method| Box::new(Exchange::new(method)));
        }
        self.pause(id, Pause::Authentication);
        Flow::Pause
    }

    /// The will in a CONNECT, checked against everything a PUBLISH would be.
    fn will_of(&self, connect: &Connect<'_>, mount: &Mount) -> Result<Option<Box<Will>>, Refusal> {
        let Some(will) = &connect.will else { return Ok(None) };
        let mounted = if mount.is_none() { String::new() } else { mount.topic(will.topic) };
        let topic = TopicName::parse(if mount.is_none() { will.topic } else { &mounted })
            .map_err(|_| (ReasonCode::TopicNameInvalid, "the will's topic is not a topic name"))?;
        if will.retain && !self.config.retain_available {
            return Err((ReasonCode::RetainNotSupported, "retained messages are switched off")); // [MQTT-3.2.2-13]
        }
        let mut properties = Vec::new();
        let mut expiry = None;
        for property in will.properties.iter() {
            match property {
                Property::WillDelayInterval(_) => {}
                Property::MessageExpiryInterval(seconds) => expiry = Some(seconds),
                other => {
                    let _ = other.encode(&mut properties);
                }
            }
        }
        // The expiry counts from when the will is published: kept as a span until then.
        let message = Publication {
            topic: topic.as_str(),
            qos: will.qos,
            retain: will.retain,
            properties: &properties,
            payload: will.payload,
            expires_at: expiry.map_or(Instant::NEVER, |s| Instant::from_secs(s.into())),
            id: MessageId::default(),
        }
        .to_message(&mut Vec::new());
        Ok(Some(Box::new(Will { message, delay_s: will.properties.will_delay_interval().unwrap_or(0) })))
    }

    /// Lets a client in: takes its session over, or makes one, and says so.
    pub(super) fn accept(&mut self, id: ConnId, request: Request, data: Option<Vec<u8>>) -> Flow {
        let Some(listener) = self.conn(id).map(|c| c.listener) else { return Flow::Closed };
        let subject = request.who();
        if let Some(will) = &request.will
            && !may_publish(self.config.rights(listener), subject, will.message.topic())
        {
            self.log_denial(Denial::Will, listener, subject, will.message.topic());
            let refusal = (ReasonCode::NotAuthorized, "no right to publish the will");
            return self.refuse(id, Some(subject), refusal);
        }
        let mut emitted = self.keeper.emitted();
        let found = self.find_session(&request.client_id);
        let was_kept = found.is_some_and(|index| self.sessions[index].is_kept());
        if (request.expiry_s > 0 || was_kept) && self.keeper.failed {
            let refusal =
                (ReasonCode::ServerUnavailable, "the store fails, and its session would have to be kept");
            return self.refuse(id, Some(subject), refusal);
        }
        if let Some(index) = found {
            // A session belongs to the user who made it; one made without a user to the first who comes.
            let owner = self.sessions[index].username.as_deref();
            if owner.is_some() && owner != request.username.as_deref() {
                let refusal = (ReasonCode::NotAuthorized, "the session belongs to another user");
                return self.refuse(id, Some(subject), refusal);
            }
            if let Some(old) = self.sessions[index].conn {
                self.close(old, Cause::TakenOver); // [MQTT-3.1.4-3]
            }
        }
        // [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-3.1.4-4]
        let keep = found.filter(|&i| !request.clean_start && self.survives(i));
        if let Some(index) = found
            && keep.is_none()
        {
            self.end_session(index);
            if !was_kept {
                // A restart would not go on with it either: nobody is promised its end.
                emitted = self.keeper.emitted();
            }
        }
        if keep.is_none() && !self.has_room_for_session() {
            self.counters.refuse(Refused::Session);
            let refusal = (ReasonCode::ServerBusy, "there are as many sessions as may be");
            return self.refuse(id, Some(subject), refusal);
        }
        if found.is_none() && self.is_short_of_memory() {
            self.counters.refuse(Refused::Session);
            let refusal = (ReasonCode::QuotaExceeded, "its session would be new, and memory is short");
            return self.refuse(id, Some(subject), refusal);
        }
        let index = match keep {
            Some(index) => {
                // A will whose delay has not passed is not sent any more [MQTT-3.1.3-9]; one without delay is due.
                if self.sessions[index].will.as_ref().is_some_and(|w| w.delay_s == 0) {
                    self.publish_will(index);
                }
                index
            }
            // [MQTT-3.1.2-6]
            None => self.create_session(request.client_id.clone(), request.username.clone()),
        };
        let session = &mut self.sessions[index];
        if session.username != request.username || session.listener != listener {
            // Other rights: for what is queued, too.
            session.epoch = self.epoch.wrapping_sub(1);
            self.forget_routes();
        }
        let config = self.config.clone();
        let session = &mut self.sessions[index];
        session.username = request.username;
        session.listener = listener;
        session.conn = Some(id);
        session.expiry_s = request.expiry_s.min(config.max_session_expiry_s);
        let expiry_s = session.expiry_s;
        session.expires_at = Instant::NEVER;
        session.will_at = Instant::NEVER;
        session.will = request.will; // [MQTT-3.1.2-7]
        self.count_session(index);
        let is_kept_for_will = expiry_s == 0 && keep.is_none() && self.keeper.emitted() == emitted;
        self.keep_session(index);
        let session = &mut self.sessions[index];
        let Some(conn) = conn_at(&mut self.conns, id) else {
            return Flow::Closed;
        };
        let too_long = config.max_keepalive_s > 0
            && (request.keep_alive_s == 0 || request.keep_alive_s > config.max_keepalive_s);
        // Only 5.0 can be told a shorter keep alive [MQTT-3.2.2-21].
        let v5 = conn.link.version.is_v5();
        let server_keep_alive = (too_long && v5).then_some(config.max_keepalive_s);
        conn.session = index;
        conn.phase = Phase::Running;
        conn.link.keep_alive_s = server_keep_alive.unwrap_or(request.keep_alive_s); // [MQTT-3.2.2-22]
        // [MQTT-4.9.0-1]
        conn.link.send_window = request.receive_maximum.min(config.max_inflight_messages.max(1));
        // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
        conn.link.allow_aliases_out(request.topic_alias_maximum.min(config.topic_aliases_out(conn.listener)));
        conn.link.received_at = self.now;
        let told = Told {
            receive_maximum: config.max_inflight_messages.max(1),
            topic_alias_maximum: config.topic_aliases(conn.listener),
            max_packet_size: config.max_packet_size,
        };
        conn.told = v5.then_some(told);
        let (link, peer) = (&conn.link, conn.peer);
        let max_qos = config.limits(conn.listener).max_qos;
        info!(
            "New client connected{} as {} (p{}, c{}, k{}{}).",
            PeerText(peer),
            Name(&session.client_id),
            match link.version {
                Version::V3_1 => 1,
                Version::V3_1_1 => 2,
                Version::V5 => 5,
            },
            u8::from(request.clean_start),
            link.keep_alive_s,
            UserText(", ", session.username.as_deref(), ""),
        );
        if link.keep_alive_s == 0 && config.unreachable_s > 0 {
            self.outputs.push_back(Output::Watch { conn: id, unreachable_s: config.unreachable_s });
        }
        self.arm_alive(id.index);
        self.counters.clients_connected += 1;
        let mut properties = PropertiesBuf::default();
        if v5 {
            // In mosquitto's order: its tests compare bytes.
            if let Some(seconds) = server_keep_alive {
                properties.push(Property::ServerKeepAlive(seconds));
            }
            properties.push(Property::TopicAliasMaximum(told.topic_alias_maximum));
            if request.assigned {
                properties.push(Property::AssignedClientIdentifier(&request.client_id));
            }
            let exchange = self.conn(id).and_then(|c| c.exchange.as_ref());
            if let Some(exchange) = exchange {
                properties.push(Property::AuthenticationMethod(exchange.method())); // [MQTT-4.12.0-5]
                if let Some(data) = &data {
                    properties.push(Property::AuthenticationData(data));
                }
            }
            if expiry_s != request.expiry_s {
                properties.push(Property::SessionExpiryInterval(expiry_s));
            }
            if !config.retain_available {
                properties.push(Property::RetainAvailable(0));
            }
            properties.push(Property::MaximumPacketSize(told.max_packet_size));
            properties.push(Property::ReceiveMaximum(told.receive_maximum));
            if max_qos < QoS::ExactlyOnce {
                properties.push(Property::MaximumQoS(max_qos as u8)); // [MQTT-3.2.2-9]
            }
        }
        let connack = ConnAck {
            session_present: keep.is_some(), // [MQTT-3.2.2-2], [MQTT-3.2.2-3]
            reason: ReasonCode::Success,
            properties: properties.as_properties(),
        };
        if !self.put(id, &Packet::ConnAck(connack)) {
            // It was not let in: there is no DISCONNECT [MQTT-3.14.0-1], and no will.
            self.sessions[index].will = None;
            self.count_session(index);
            let username = self.sessions[index].username.clone();
            let who = Subject { client_id: &request.client_id, username: username.as_deref() };
            let what = "the CONNACK is larger than the client takes";
            return self.refuse(id, Some(who), (ReasonCode::PacketTooLarge, what));
        }
        self.tell_share_owners(index, true);
        self.pump(index);
        if keep.is_some() {
            self.wake_replays(index);
        }
        if is_kept_for_will { self.hold_for_will(id, emitted) } else { self.hold(id, emitted) }
    }

    fn has_room_for_session(&self) -> bool {
        let there_are = self.sessions.len() as u64 + self.elsewhere.sessions;
        there_are < u64::from(self.config.max_sessions) || self.config.max_sessions == u32::MAX
    }

    /// Whether a session is still there for one who wants it back.
    fn survives(&self, index: u32) -> bool {
        let session = &self.sessions[index];
        session.expiry_s > 0 && session.expires_at > self.now
    }
}

/// Why a client was not authenticated. An unknown user and a wrong password are not told apart.
/// What the log says of a client that did not prove who it is. `named` is whether it gave a name at all.
pub(super) fn why_not(reason: ReasonCode, named: bool) -> &'static str {
    match reason {
        ReasonCode::ServerBusy => "its password could not be checked now, it may try again",
        ReasonCode::BadAuthenticationMethod => "this authentication method is not offered",
        _ if !named => "it gives no user name, and has to",
        _ => "the user name or the password is wrong",
    }
}
