//! Connections: bytes in, bytes out, and how they end.

use super::connect::Request;
use super::denial::{Denial, Name};
use super::exchange::Exchange;
use super::fan::SHARED_BYTES;
use super::io::{ConnId, Output};
use super::limits::{CROWDED, properties_of};
use super::memory::PARTIAL_MAX;
use super::mount::Mount;
use super::publish::Route;
use super::sys::Refused;
use super::timer::Timer;
use super::{EFFORT, Shard, Work};
use crate::codec::{DecodeError, Disconnect, Frame, Packet, PacketType, Properties, ReasonCode, Version};
use crate::outbox::{Outbox, Pool};
use crate::session::{Delivery, Link, OutgoingPublish, Payload, Sent};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::net::SocketAddr;
use core::time::Duration;
use log::{debug, info};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its CONNECT has not been seen.
    New,
    /// It has, and the answer to who the client is has not.
    Authenticating,
    /// The client has its CONNACK.
    Running,
}

/// Why reads are paused; several reasons may hold at once.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub(super) enum Pause {
    /// Until [`Input::Authenticated`](super::Input::Authenticated).
    Authentication = 1,
    /// Until its message has gone to all receivers.
    Fan = 2,
    /// Until peers have caught up.
    Credit = 4,
    /// Until it takes what it was sent.
    Output = 8,
    /// Until the gates its acknowledgements wait for have opened.
    Gates = 16,
    /// Until its turn comes again: what it sent has caused much work.
    Turn = 32,
    /// Until its SUBACKs have left.
    Subscribes = 64,
    /// Until it has taken the retained messages it asked for.
    Replays = 128,
    /// Until it has not published more than it may.
    Rate = 256,
    /// Until clients that are slow have caught up with what it published.
    Slow = 512,
}

/// Why a connection ends: it decides the goodbye, the will and the log level.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cause {
    /// The client said DISCONNECT.
    Disconnect { with_will: bool },
    /// The client broke the protocol, or a limit.
    Peer(ReasonCode, &'static str),
    /// The CONNECT was refused; CONNACK has been written.
    Refused(&'static str),
    /// Not MQTT, or too late: nothing is said.
    Silent(&'static str),
    /// Nothing was heard in time.
    KeepAlive,
    /// Another connection took the session.
    TakenOver,
    /// The transport broke.
    Transport,
    /// Its user is not let in any more.
    Revoked,
    /// The broker stops.
    Operator,
}

/// What `on_frame` leaves to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Go on with the next packet.
    Continue,
    /// Leave what follows for later.
    Pause,
    /// The connection is gone.
    Closed,
}

pub(super) const NO_SESSION: u32 = u32::MAX;

/// The limits that a client of 5.0 was told: they hold for its connection, whatever is configured later [MQTT-3.2.2.3].
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub receive_maximum: u16,
    pub topic_alias_maximum: u16,
    pub max_packet_size: u32,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub generation: u32,
    /// Its session's place, or [`NO_SESSION`].
    pub session: u32,
    pub listener: u16,
    pub phase: Phase,
    /// Bits of [`Pause`].
    pub paused: u16,
    /// Whether it is on the list of those to transmit.
    pub dirty: bool,
    /// Whether the transport refused bytes at the last attempt.
    pub blocked: bool,
    /// The gate before which nothing is written.
    pub held: u64,
    /// How many SUBACKs wait.
    pub waiting: u16,
    /// When the timers of the connection fire.
    pub alive_armed: Instant,
    pub stalled_armed: Instant,
    /// When output last moved.
    pub progress_at: Instant,
    /// When its messages would have come, had they come at the rate that is allowed.
    pub even: Instant,
    /// When the timer for that fires.
    pub rate_armed: Instant,
    /// How many bytes the driver keeps that were read and not used.
    pub unread: usize,
    /// What is counted for it in the shard's memory.
    pub counted: u64,
    pub peer: Option<SocketAddr>,
    pub identity: Option<Box<str>>,
    pub entropy: [u8; 16],
    pub mount: Mount,
    /// What its CONNACK said.
    pub told: Option<Told>,
    pub link: Link,
    /// The CONNECT, while authentication is underway.
    pub request: Option<Box<Request>>,
    /// Enhanced authentication, of a client that gave a method.
    pub exchange: Option<Box<Exchange>>,
    /// Where the last PUBLISH went.
    pub route: Option<Arc<Route>>,
}

impl Conn {
    pub fn id(&self, index: u32) -> ConnId {
        ConnId { index, generation: self.generation }
    }

    /// Writes a message in flight; false if it is none for this client: outside its mount point, or too large for it.
    pub fn write(
        &mut self,
        pool: &mut Pool,
        now: Instant,
        packet_id: u16,
        dup: bool,
        delivery: &Delivery,
    ) -> bool {
        let message = &delivery.message;
        let Some(topic) = self.mount.strip(message.topic_bytes()) else { return false };
        let publish = OutgoingPublish {
            topic,
            properties: message.properties(),
            payload: Payload::Kept(message),
            expires_at: message.expires_at(),
            qos: delivery.qos,
            dup,
            retain: delivery.retain,
            packet_id,
            ids: &delivery.ids,
        };
        self.link.put_publish(pool, now, &publish) == Sent::Yes
    }

    /// Puts the connection, whose name is `id`, on the list of those to transmit.
    pub fn mark_dirty(&mut self, id: ConnId, dirty: &mut VecDeque<ConnId>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push_back(id);
        }
    }
}

/// The connection of this name, if it is still there. For where a shard's other parts are in use as well.
pub(super) fn conn_at(conns: &mut [Option<Conn>], id: ConnId) -> Option<&mut Conn> {
    conns.get_mut(id.index as usize)?.as_mut().filter(|c| c.generation == id.generation)
}

impl Shard {
    pub(super) fn on_opened(
        &mut self,
        id: ConnId,
        listener: u16,
        peer: Option<SocketAddr>,
        identity: Option<&str>,
        entropy: [u8; 16],
    ) {
        let at = id.index as usize;
        if self.conns.len() <= at {
            self.conns.resize_with(at + 1, || None);
        }
        let mut conn = Conn {
            generation: id.generation,
            session: NO_SESSION,
            listener,
            phase: Phase::New,
            paused: 0,
            dirty: false,
            blocked: false,
            held: 0,
            waiting: 0,
            alive_armed: Instant::NEVER,
            stalled_armed: Instant::NEVER,
            progress_at: self.now,
            even: self.now,
            rate_armed: Instant::NEVER,
            unread: 0,
            counted: 0,
            peer,
            identity: identity.map(Box::from),
            entropy,
            told: None,
            mount: Mount::new(self.config.listener(listener).and_then(|l| l.mount_point.clone())),
            link: Link::new(self.now),
            request: None,
            exchange: None,
            route: None,
        };
        conn.count(&mut self.memory);
        self.conns[at] = Some(conn);
        self.counters.connections += 1;
        self.arm_alive(id.index);
    }

    pub(super) fn on_received(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let now = self.now;
        let limit = self.config.max_packet_size;
        let connect_limit = self.config.connect_bytes_max;
        let Some(conn) = self.conn(id) else { return bytes.len() };
        let limit = conn.told.map_or(limit, |told| told.max_packet_size);
        if conn.paused != 0 {
            return 0;
        }
        // The partial packet is moved out while its packet is handled; whole packets borrow from `bytes`.
        let mut framer = core::mem::take(&mut conn.link.framer);
        let mut phase = conn.phase;
        let mut used = 0;
        let mut packets = 0;
        let flow = loop {
            if phase == Phase::New && framer.is_empty() && bytes.get(used).is_some_and(|&b| b >> 4 != 1) {
                let what = "the first packet is not a CONNECT"; // [MQTT-3.1.0-1]
                self.log_refusal(id, Denial::Stranger, None, (ReasonCode::ProtocolError, what));
                self.close(id, Cause::Silent(what));
                break Flow::Closed;
            }
            let limit = if phase == Phase::Running { limit } else { connect_limit.min(limit) };
            match framer.next(&bytes[used..], limit) {
                Ok(step) => {
                    used += step.used;
                    let Some(frame) = step.frame else { break Flow::Continue };
                    packets += 1;
                    match self.on_frame(id, phase, frame) {
                        Flow::Continue if self.effort > EFFORT => {
                            self.pause(id, Pause::Turn);
                            self.work.push_back(Work::Resume(id));
                            break Flow::Pause;
                        }
                        Flow::Continue => phase = Phase::Running,
                        Flow::Pause if used < SHARED_BYTES && self.shares_fan(id, frame, &bytes[used..]) => {}
                        other => break other,
                    }
                }
                Err(error) => {
                    if error.reason == ReasonCode::PacketTooLarge {
                        self.counters.refuse(Refused::Connection);
                    }
                    self.close_for(id, None, &error);
                    break Flow::Closed;
                }
            }
        };
        self.counters.messages_received += packets;
        self.counters.bytes_received += used as u64;
        if flow == Flow::Closed {
            return bytes.len();
        }
        let Shard { conns, memory, .. } = self;
        if let Some(conn) = conn_at(conns, id) {
            conn.link.framer = framer;
            conn.unread = bytes.len() - used;
            conn.count(memory);
            if packets > 0 {
                conn.link.received_at = now;
            }
            if memory.is_short() && conn.link.framer.buffered() > PARTIAL_MAX {
                let session = conn.session;
                self.counters.refuse(Refused::Connection);
                self.log_limit(Denial::Memory, session, "its packet is large, and memory is short");
                self.fail(id, ReasonCode::QuotaExceeded, "its packet is large, and memory is short");
                return bytes.len();
            }
        }
        used
    }

    /// Handles one packet.
    fn on_frame(&mut self, id: ConnId, phase: Phase, frame: Frame<'_>) -> Flow {
        if phase == Phase::Running && frame.first >> 4 == PacketType::Publish as u8 {
            return self.on_publish(id, frame);
        }
        let Some(version) = self.conn(id).map(|c| c.link.version) else { return Flow::Closed };
        // Whatever these contain.
        match frame.packet_type() {
            Some(PacketType::SubAck | PacketType::UnsubAck) if frame.flags() != 0 => {
                return self.fail(id, ReasonCode::MalformedPacket, "the flags of the fixed header are wrong");
            }
            Some(PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck) => {
                return self.fail(id, ReasonCode::ProtocolError, "a packet that only a server sends");
            }
            _ => {}
        }
        if phase == Phase::Running
            && frame.packet_type() == Some(PacketType::Auth)
            && self.conn(id).is_some_and(|c| c.exchange.is_none())
        {
            // [MQTT-4.12.0-7], whatever it contains.
            let what = "AUTH without an authentication method in CONNECT";
            return self.fail(id, ReasonCode::ProtocolError, what);
        }
        if phase == Phase::Running && frame.packet_type() == Some(PacketType::Connect) {
            return self.fail(id, ReasonCode::ProtocolError, "a second CONNECT"); // [MQTT-3.1.0-2]
        }
        let packet = match Packet::decode(version, frame) {
            Ok(packet) => packet,
            Err(error) => {
                self.close_for(id, Some(frame), &error);
                return Flow::Closed;
            }
        };
        if self.config.is_crowded(properties_of(&packet)) {
            return self.fail_for_limit(id, ReasonCode::QuotaExceeded, CROWDED);
        }
        if phase != Phase::Running {
            return match packet {
                Packet::Connect(connect) if phase == Phase::New => self.on_connect(id, &connect),
                Packet::Auth(auth) if phase == Phase::Authenticating => self.on_auth(id, &auth),
                Packet::Disconnect(_) if phase == Phase::Authenticating => {
                    self.close(id, Cause::Disconnect { with_will: false });
                    Flow::Closed
                }
                _ => self.fail(id, ReasonCode::ProtocolError, "a packet before the connection was accepted"),
            };
        }
        match packet {
            Packet::PubAck(ack) => self.on_puback(id, &ack),
            Packet::PubRec(ack) => self.on_pubrec(id, &ack),
            Packet::PubRel(ack) => self.on_pubrel(id, &ack),
            Packet::PubComp(ack) => self.on_pubcomp(id, &ack),
            Packet::PingReq => {
                self.put(id, &Packet::PingResp); // [MQTT-3.12.4-1]
                self.after_answer(id)
            }
            Packet::Subscribe(subscribe) => self.on_subscribe(id, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(id, &unsubscribe),
            Packet::Disconnect(disconnect) => self.on_disconnect(id, &disconnect),
            Packet::Auth(auth) => self.on_auth(id, &auth),
            _ => self.fail(id, ReasonCode::ProtocolError, "a packet that only a server sends"),
        }
    }

    /// Puts a packet into the outbox, unless it is larger than the client takes.
    pub(super) fn put(&mut self, id: ConnId, packet: &Packet<'_>) -> bool {
        let Shard { conns, pool, .. } = self;
        let Some(conn) = conn_at(conns, id) else { return false };
        let sent = conn.link.put(pool, packet) == Ok(Sent::Yes);
        if sent {
            self.mark_dirty(id);
        }
        sent
    }

    /// After something was answered: a client that does not read its answers is not read either.
    pub(super) fn after_answer(&mut self, id: ConnId) -> Flow {
        let hard = self.config.output_hard_bytes.max(2 * self.config.max_packet_size as usize);
        match self.conn(id) {
            Some(conn) if conn.blocked && conn.link.outbox.len() > hard => {
                let (session, known) = (conn.session, conn.paused & Pause::Output as u16 != 0);
                self.pause(id, Pause::Output);
                if !known {
                    self.counters.refuse(Refused::Output);
                    let what = "it is not read, as it does not read what it is sent ('output_hard_limit')";
                    self.log_limit(Denial::Output, session, what);
                }
                Flow::Pause
            }
            _ => Flow::Continue,
        }
    }

    pub(super) fn on_written(&mut self, id: ConnId, bytes: usize) {
        let now = self.now;
        let soft = self.config.output_soft_bytes;
        let stall = Duration::from_secs(self.config.output_stall_s.into());
        let Shard { conns, pool, timers, counters, memory, .. } = self;
        let Some(conn) = conn_at(conns, id) else { return };
        counters.bytes_sent += bytes as u64;
        conn.link.outbox.advance(bytes);
        let was_blocked = conn.blocked;
        conn.blocked = !conn.link.outbox.is_empty();
        if bytes > 0 || !was_blocked {
            conn.progress_at = now;
        }
        if conn.blocked {
            if !was_blocked {
                timers.arm(&mut conn.stalled_armed, now + stall, Timer::Stalled(id.index));
            }
        } else {
            conn.link.outbox.recycle(pool);
        }
        if was_blocked || conn.blocked {
            conn.count(memory);
        }
        let (session, left) = (conn.session, conn.link.outbox.len());
        if left < soft {
            self.resume(id, Pause::Output);
        }
        if session == NO_SESSION {
            return;
        }
        if was_blocked && left < soft {
            if self.is_braked() {
                self.ease();
            }
            self.pump(session);
        }
        if left < super::replay::PACE_BYTES {
            self.wake_replays(session);
        }
    }

    /// What a client that sent something wrong is told, and the end of it.
    pub(super) fn fail(&mut self, id: ConnId, reason: ReasonCode, what: &'static str) -> Flow {
        // [MQTT-3.14.0-1]: before the CONNACK there is no DISCONNECT.
        if self.conn(id).is_some_and(|c| c.phase == Phase::Authenticating) {
            let told =
                if reason.allowed_in(PacketType::ConnAck) { reason } else { ReasonCode::ProtocolError };
            let request = self.conn(id).and_then(|c| c.request.take());
            return self.refuse(id, request.as_deref().map(Request::who), (told, what));
        }
        self.close(id, Cause::Peer(reason, what));
        Flow::Closed
    }

    /// As [`Shard::fail`], of a client that exceeds a limit.
    #[cold]
    pub(super) fn fail_for_limit(&mut self, id: ConnId, reason: ReasonCode, what: &'static str) -> Flow {
        self.counters.refuse(Refused::Connection);
        self.fail(id, reason, what)
    }

    pub(super) fn close_for(&mut self, id: ConnId, frame: Option<Frame<'_>>, error: &DecodeError) {
        let Some(conn) = self.conn(id) else { return };
        if conn.phase == Phase::New {
            self.refuse_malformed(id, frame, error);
        } else if error.quiet {
            self.close(id, Cause::Silent(error.what));
        } else {
            self.fail(id, error.reason, error.what);
        }
    }

    fn on_disconnect(&mut self, id: ConnId, disconnect: &Disconnect<'_>) -> Flow {
        let session = self.conn(id).map_or(NO_SESSION, |c| c.session);
        if let Some(expiry) = disconnect.properties.session_expiry_interval()
            && let Some(session) = self.sessions.get_mut(session)
        {
            if session.expiry_s == 0 && expiry != 0 {
                return self.fail(
                    id,
                    ReasonCode::ProtocolError,
                    "DISCONNECT sets an expiry where CONNECT set none",
                );
            }
            session.expiry_s = expiry.min(self.config.max_session_expiry_s);
        }
        // [MQTT-3.14.4-3]: only reason 0 deletes the will.
        self.close(id, Cause::Disconnect { with_will: disconnect.reason != ReasonCode::Success });
        Flow::Closed
    }

    /// Ends a connection, from whichever side.
    pub(super) fn close(&mut self, id: ConnId, cause: Cause) {
        let Some(conn) = self.conn(id) else { return };
        let (reason, text) = match cause {
            Cause::Disconnect { .. } => (None, "disconnected"),
            Cause::Peer(reason, what) => (Some(reason), what),
            Cause::Refused(what) | Cause::Silent(what) => (None, what),
            Cause::KeepAlive => (Some(ReasonCode::KeepAliveTimeout), "exceeded timeout"),
            Cause::TakenOver => (Some(ReasonCode::SessionTakenOver), "disconnected: session taken over"),
            Cause::Transport => (None, "closed its connection"),
            Cause::Revoked => (Some(ReasonCode::AdministrativeAction), "is not let in any more"),
            Cause::Operator => {
                (Some(ReasonCode::ServerShuttingDown), "disconnected: the broker is shutting down")
            }
        };
        // [MQTT-3.14.0-1]
        if let Some(reason) = reason
            && conn.phase == Phase::Running
            && conn.link.version == Version::V5
        {
            self.put(id, &Packet::Disconnect(Disconnect { reason, properties: Properties::default() }));
        }
        let Some(mut conn) = self.conns.get_mut(id.index as usize).and_then(Option::take) else { return };
        self.memory.change(&mut conn.counted, 0);
        if conn.held > self.opened {
            conn.link.outbox = Outbox::default(); // It promises what is not kept yet.
        }
        // With these bytes it ends, whether or not they can be sent [MQTT-3.14.4-2] [MQTT-4.13.2-1].
        if !matches!(cause, Cause::Transport) {
            self.outputs.push_back(Output::Close { conn: id, last: conn.link.outbox });
        }
        let name = self.sessions.get(conn.session).map(|s| Name(&s.client_id));
        match (name, cause, conn.peer) {
            (Some(name), Cause::Peer(reason, _), _) => info!("Client {name} closed: {text} ({reason})."),
            (Some(name), _, _) => info!("Client {name} {text}."),
            (None, _, Some(peer)) => debug!("Connection from {peer} closed: {text}."),
            (None, _, None) => debug!("Connection closed: {text}."),
        }
        if self.is_braked() {
            self.ease();
        }
        if conn.session != NO_SESSION {
            self.counters.clients_connected -= 1;
            self.on_connection_lost(conn.session, cause);
        }
    }

    /// When a connection is to be closed if nothing is heard from it, and why.
    fn alive_deadline(&self, conn: &Conn) -> (Instant, Cause) {
        if conn.phase != Phase::Running {
            let limit = Duration::from_secs(self.config.connect_timeout_s.into());
            return (conn.link.sent_at + limit, Cause::Silent("no CONNECT in time"));
        }
        // One and a half times the keep alive [MQTT-3.1.2-22], from the last complete packet; it stands still
        // while it is we who do not read.
        let limit = Duration::from_millis(u64::from(conn.link.keep_alive_s) * 1500);
        let silent = match conn.link.keep_alive_s {
            0 => Instant::NEVER,
            _ if conn.paused != 0 => self.now + limit,
            _ => conn.link.received_at + limit,
        };
        let limit = Duration::from_secs(self.config.connect_timeout_s.into());
        match conn.exchange.as_ref().and_then(|e| e.underway_since()) {
            Some(since) if since + limit < silent => {
                (since + limit, Cause::Peer(ReasonCode::NotAuthorized, "no end of re-authentication in time"))
            }
            _ => (silent, Cause::KeepAlive),
        }
    }

    /// Makes sure that [`Shard::on_alive_timer`] comes in time.
    pub(super) fn arm_alive(&mut self, index: u32) {
        let Some(conn) = self.conns.get(index as usize).and_then(Option::as_ref) else { return };
        let (deadline, _) = self.alive_deadline(conn);
        let Shard { conns, timers, .. } = self;
        if let Some(conn) = &mut conns[index as usize] {
            timers.arm(&mut conn.alive_armed, deadline, Timer::Alive(index));
        }
    }

    pub(super) fn on_alive_timer(&mut self, at: Instant, index: u32) {
        let Some(conn) = self.conns.get_mut(index as usize).and_then(Option::as_mut) else { return };
        if conn.alive_armed != at {
            return;
        }
        conn.alive_armed = Instant::NEVER;
        let id = conn.id(index);
        let Some(conn) = self.conns[index as usize].as_ref() else { return };
        let (deadline, cause) = self.alive_deadline(conn);
        if deadline <= self.now {
            if matches!(cause, Cause::Silent(_)) {
                self.counters.refuse(Refused::Connection);
                let what = "there is no CONNECT in time ('connect_timeout')";
                self.log_refusal(id, Denial::Stranger, None, (ReasonCode::MaximumConnectTime, what));
            }
            self.close(id, cause);
        } else {
            self.arm_alive(index);
        }
    }

    pub(super) fn on_stalled_timer(&mut self, at: Instant, index: u32) {
        let stall = Duration::from_secs(self.config.output_stall_s.into());
        let Shard { conns, timers, now, .. } = self;
        let Some(conn) = conns.get_mut(index as usize).and_then(Option::as_mut) else { return };
        if conn.stalled_armed != at {
            return;
        }
        conn.stalled_armed = Instant::NEVER;
        if !conn.blocked {
            return;
        }
        let (id, deadline) = (conn.id(index), conn.progress_at + stall);
        if deadline <= *now {
            self.counters.refuse(Refused::Connection);
            self.close(
                id,
                Cause::Peer(
                    ReasonCode::QuotaExceeded,
                    "the client took nothing for as long as 'output_stall_timeout'",
                ),
            );
        } else {
            timers.arm(&mut conn.stalled_armed, deadline, Timer::Stalled(index));
        }
    }
}
