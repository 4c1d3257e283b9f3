//! A client as a state machine, for MQTT 3.1, 3.1.1 and 5.0.
//!
//! A [`Client`] is one session: messages in flight and queued outlive its connections. Whoever owns it owns a
//! transport, a clock and the decision when to connect again.
//!
//! # Driving a client
//!
//! * When a transport is connected, call [`Client::transport_up`]; when it is gone, [`Client::transport_down`].
//! * Write [`Client::outbox`] to the transport as long as it has bytes, and say how many it took with
//!   [`Client::written`]. Hand what was read to [`Client::handle_bytes`], while [`Client::wants_read`].
//! * At [`Client::poll_timeout`] call [`Client::handle_timeout`].
//! * After each of these, and after commands, poll [`Client::poll_event`] until it gives nothing, then
//!   look at the outbox and the timeout again.
//! * When [`Client::wants_close`], write what is left in the outbox, close the transport and call
//!   [`Client::transport_down`].
//!
//! Nothing here fails because of what the server sends: what is wrong ends the connection, and an event says so.
//!
//! # Sessions and tickets
//!
//! A QoS 1 or 2 message that was accepted by [`Client::publish`] ends in exactly one [`Event::Published`] or
//! [`Event::Dropped`] with its [`Ticket`], across any number of connections. It is queued while there is no
//! connection. QoS 0 messages have no event: they are in the outbox when `publish` returns.

#[doc(hidden)]
pub mod check;
mod connect;
mod event;
mod options;
mod publish;
mod receive;
mod subscribe;

pub use event::{AckToken, By, Connected, Dropped, Event, Received, SendError, ServerLimits, Ticket};
pub use options::{Acknowledge, Authentication, Options, OptionsError, PACKET_SIZE_MAX, Will};
pub use publish::PublishRequest;

use crate::codec::{
    DecodeError, Disconnect, Packet, PacketType, Properties, PropertiesBuf, PropertyContext, ReasonCode,
};
use crate::outbox::{Outbox, Pool};
use crate::session::{Incoming, Link, Outgoing, Sent};
use crate::time::Instant;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use connect::Exchange;
use core::time::Duration;
use receive::Slot;
use subscribe::Request;

/// How many events may wait before [`Client::wants_read`] says no.
const EVENTS_SOFT: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no transport.
    Offline,
    /// CONNECT is sent, CONNACK has not come.
    Connecting,
    /// The server let us in.
    Connected,
    /// The end is decided; the last bytes may leave until then.
    Closing(Instant),
}

/// One MQTT session and its connection, if there is one.
///
/// Getters: [`is_connected`](Client::is_connected), [`wants_close`](Client::wants_close),
/// [`wants_read`](Client::wants_read), [`server`](Client::server), [`outbox`](Client::outbox). The transport:
/// [`transport_up`](Client::transport_up), [`transport_down`](Client::transport_down),
/// [`written`](Client::written), `handle_*`. Commands: [`publish`](Client::publish),
/// [`subscribe`](Client::subscribe), [`unsubscribe`](Client::unsubscribe),
/// [`acknowledge`](Client::acknowledge), [`authenticate`](Client::authenticate),
/// [`reauthenticate`](Client::reauthenticate), [`disconnect`](Client::disconnect). What comes of it: `poll_*`.
/// No call blocks; `now` never goes back.
#[derive(Debug)]
pub struct Client {
    options: Options,
    phase: Phase,
    events: VecDeque<Event>,
    pool: Pool,
    scratch: Vec<u8>,
    last_ticket: u64,
    last_token: u64,

    // The session.
    outgoing: Outgoing,
    /// QoS 2 messages the server has, by packet id: what to say at PUBCOMP.
    released: BTreeMap<u16, (Ticket, ReasonCode)>,
    incoming: Incoming,
    /// QoS 2 messages the application has not acknowledged, by packet id.
    held: Vec<(u16, AckToken)>,
    /// The client identifier the server chose.
    assigned_id: Option<String>,
    /// Whether there has been a connection.
    established: bool,
    /// The Session Expiry Interval in force.
    expiry_s: u32,

    // The connection.
    link: Link,
    server: ServerLimits,
    /// Clean Start as it was sent.
    clean_start: bool,
    /// When something last came.
    heard_at: Instant,
    pinged_at: Option<Instant>,
    connect_by: Instant,
    /// When the answer to an AUTH has to be there, of a client that is connected.
    auth_by: Instant,
    exchange: Exchange,
    requests: BTreeMap<u16, Request>,
    /// Messages whose acknowledgement waits for the application, in order.
    slots: VecDeque<Slot>,
    /// How many slots have been taken out: the gate up to which acknowledgements may leave.
    opened: u64,
    /// How many QoS 1 and 2 messages the server may have on the wire.
    receive_limit: usize,
}

impl Client {
    /// A client without a transport. What is wrong with the options shows when it connects;
    /// [`Options::check`] tells beforehand.
    pub fn new(options: Options) -> Client {
        Client {
            options,
            phase: Phase::Offline,
            events: VecDeque::new(),
            pool: Pool::default(),
            scratch: Vec::new(),
            last_ticket: 0,
            last_token: 0,
            outgoing: Outgoing::default(),
            released: BTreeMap::new(),
            incoming: Incoming::default(),
            held: Vec::new(),
            assigned_id: None,
            established: false,
            expiry_s: 0,
            link: Link::new(Instant::ZERO),
            server: ServerLimits::default(),
            clean_start: true,
            heard_at: Instant::ZERO,
            pinged_at: None,
            connect_by: Instant::NEVER,
            auth_by: Instant::NEVER,
            exchange: Exchange::None,
            requests: BTreeMap::new(),
            slots: VecDeque::new(),
            opened: 0,
            receive_limit: 0,
        }
    }

    /// What the client was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether the server has let us in and the end of the connection is not decided.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// Whether the transport is to be closed as soon as the outbox is empty.
    pub fn wants_close(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// Whether more bytes should be read. Not when the transport takes no output or events pile up.
    pub fn wants_read(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Connected)
            && self.events.len() < EVENTS_SOFT
            && self.link.outbox.len() < self.options.max_output_bytes
    }

    /// What the server takes; the defaults before a CONNACK.
    pub fn server(&self) -> &ServerLimits {
        &self.server
    }

    /// How many QoS 1 and 2 messages are in flight or queued.
    pub fn unfinished(&self) -> usize {
        self.outgoing.in_flight() + self.outgoing.queued()
    }

    /// The bytes to write.
    pub fn outbox(&self) -> &Outbox {
        &self.link.outbox
    }

    /// The transport took the first `bytes` bytes of the outbox.
    pub fn written(&mut self, bytes: usize) {
        self.link.outbox.advance(bytes);
        self.link.outbox.recycle(&mut self.pool);
    }

    /// The driver has not read what may have come until now, for reasons of its own: silence is no sign of a dead
    /// server. To be called before [`Client::handle_timeout`].
    pub fn not_reading(&mut self, now: Instant) {
        self.heard_at = now;
        if self.auth_by != Instant::NEVER {
            self.auth_by = now + self.options.connect_timeout;
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Client::handle_timeout`] at the latest. The answer may change with every other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let at = match self.phase {
            Phase::Offline => Instant::NEVER,
            Phase::Connecting => self.connect_by,
            Phase::Connected => self.ping_due().min(self.pong_due()).min(self.auth_by),
            Phase::Closing(_) if self.link.outbox.is_empty() => Instant::NEVER,
            Phase::Closing(by) => by,
        };
        (at != Instant::NEVER).then_some(at)
    }

    /// Does what is due. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Connecting if self.connect_by <= now => self.give_up(now, "answer to CONNECT"),
            Phase::Connected if self.auth_by <= now => self.give_up(now, "answer to AUTH"),
            Phase::Connected if self.pong_due() <= now => self.give_up(now, "PINGRESP"),
            // [MQTT-3.1.2-20]
            Phase::Connected if self.ping_due() <= now => {
                // Where even this is too large for the server, the missing answer ends the connection.
                let _ = self.put(now, &Packet::PingReq);
                self.link.sent_at = now;
                self.pinged_at.get_or_insert(now);
            }
            Phase::Closing(by) if by <= now => self.link.outbox = Outbox::default(),
            _ => {}
        }
    }

    /// Ends the connection. With reason success the server forgets the will. The session stays as its expiry says;
    /// a Session Expiry Interval in `properties` (5.0) changes that, unless CONNECT had none.
    ///
    /// Without a connection there is nothing to do. Messages that are not finished stay with the client.
    pub fn disconnect(
        &mut self,
        now: Instant,
        reason: ReasonCode,
        properties: Properties<'_>,
    ) -> Result<(), SendError> {
        if !matches!(self.phase, Phase::Connecting | Phase::Connected) {
            return Ok(());
        }
        if self.options.version.is_v5() {
            // [MQTT-3.14.2-1]
            if !reason.allowed_in(PacketType::Disconnect) {
                let error =
                    DecodeError::protocol("the reason code does not belong to DISCONNECT", "MQTT-3.14.2-1");
                return Err(SendError::InvalidProperties(error));
            }
            check_properties(properties, PacketType::Disconnect)?;
            if let Some(expiry_s) = properties.session_expiry_interval() {
                if self.options.session_expiry_s == 0 && expiry_s != 0 {
                    let what = "DISCONNECT sets an expiry where CONNECT set none";
                    return Err(SendError::InvalidProperties(DecodeError::protocol(what, "MQTT 3.14.2.2.2")));
                }
                self.expiry_s = expiry_s;
            }
        }
        self.put(now, &Packet::Disconnect(Disconnect { reason, properties }))?;
        self.close(now, By::Us, PropertiesBuf::default());
        Ok(())
    }

    /// Puts a packet into the outbox.
    fn put(&mut self, now: Instant, packet: &Packet<'_>) -> Result<(), SendError> {
        match self.link.put(&mut self.pool, packet)? {
            Sent::Yes => {
                self.link.sent_at = now;
                Ok(())
            }
            Sent::TooLarge => Err(SendError::TooLarge),
        }
    }

    /// The server broke the protocol: it is told, where it can be, and left.
    fn fail(&mut self, now: Instant, error: DecodeError) {
        log::debug!("The server broke the protocol: {error}.");
        // Before 5.0 a DISCONNECT has no reason and would delete the will.
        if self.options.version.is_v5() {
            let reason = match error.reason {
                reason if reason.allowed_in(PacketType::Disconnect) => reason,
                _ => ReasonCode::ProtocolError,
            };
            let _ = self.put(now, &Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY }));
        }
        self.close(now, By::Protocol(error), PropertiesBuf::default());
    }

    /// The server is gone without a word: nothing is left to be written to it.
    fn give_up(&mut self, now: Instant, what: &'static str) {
        self.link.outbox = Outbox::default();
        self.close(now, By::Timeout(what), PropertiesBuf::default());
    }

    fn close(&mut self, now: Instant, by: By, properties: PropertiesBuf) {
        self.begin_close(now);
        self.events.push_back(Event::Disconnected { by, properties });
    }

    fn begin_close(&mut self, now: Instant) {
        self.phase = Phase::Closing(now + self.options.close_timeout);
    }

    fn keep_alive(&self) -> Option<Duration> {
        (self.link.keep_alive_s > 0).then(|| Duration::from_secs(self.link.keep_alive_s.into()))
    }

    /// When nothing has been sent, or heard, for a keep alive: a server that only listens must answer as well.
    fn ping_due(&self) -> Instant {
        let Some(keep_alive) = self.keep_alive() else { return Instant::NEVER };
        let since = match self.pinged_at {
            Some(_) => self.link.sent_at,
            None => self.link.sent_at.min(self.heard_at),
        };
        since + keep_alive
    }

    /// When a PINGREQ has been without answer for too long. Bytes of a large packet count as life.
    fn pong_due(&self) -> Instant {
        self.pinged_at.map_or(Instant::NEVER, |at| at.max(self.heard_at) + self.options.ping_timeout)
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }
}

/// Checks properties the application made for a packet.
fn check_properties(properties: Properties<'_>, packet: PacketType) -> Result<(), SendError> {
    match Properties::validate(properties.raw(), PropertyContext::Packet(packet)) {
        Ok(_) => Ok(()),
        Err(error) => Err(SendError::InvalidProperties(error)),
    }
}

/// Properties that outlive their packet.
fn kept(properties: Properties<'_>) -> PropertiesBuf {
    let mut buf = PropertiesBuf::default();
    buf.extend(properties);
    buf
}
