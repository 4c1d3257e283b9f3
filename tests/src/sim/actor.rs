//! A client and its application: the product's client, and what somebody does with it.

use super::broker::In;
use super::conn::{Conn, Door};
use super::oracle::message::Draft;
use super::plan::{MS, Plan, SECOND};
use super::random::Random;
use super::world::{Event, World};
use hikyaku_proto::client::{
    AckToken, Acknowledge, By, Client, Dropped, Event as Happening, Options, PublishRequest, Ticket, Will,
};
use hikyaku_proto::codec::{
    Properties, PropertiesBuf, Property, QoS, ReasonCode, RetainHandling, SubscribeOptions, Version,
};
use hikyaku_proto::time::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What stands in a will until its message has a number.
const NO_NUMBER: u32 = 99_999_999;

pub(crate) struct Actor {
    pub client_id: String,
    pub client: Client,
    pub conn: Option<usize>,
    pub v5: bool,
    /// The group of its shared subscriptions, if it has only such.
    pub group: Option<char>,
    tickets: BTreeMap<Ticket, u32>,
    timer: Option<u64>,
    pub tokens: VecDeque<AckToken>,
    connecting: bool,
    /// The will of the next connection is patched into its CONNECT.
    will: Option<Draft>,
    /// How many more times it comes back at once.
    pub hurry: u32,
    /// Whether nothing of an earlier life of its session is unfinished.
    whole: bool,
    /// What it subscribed to, to name it again.
    filters: Vec<String>,
}

impl Actor {
    pub fn new(at: usize, plan: &Plan, random: &mut Random) -> Actor {
        let worker = at >= plan.clients - plan.workers;
        let group = worker.then(|| *random.pick(&['g', 'h']));
        let v5 = random.chance(600);
        let client_id = format!("{}{at}", if worker { 'w' } else { 'c' });
        let options = options(&client_id, v5, worker, None, plan, random);
        Actor {
            client_id,
            will: draft_of(&options),
            client: Client::new(options),
            conn: None,
            v5,
            group,
            tickets: BTreeMap::new(),
            timer: None,
            tokens: VecDeque::new(),
            connecting: false,
            hurry: 0,
            whole: true,
            filters: Vec::new(),
        }
    }

    /// From now on there is no will.
    pub fn forget_will(&mut self) {
        self.will = None;
    }
}

fn draft_of(options: &Options) -> Option<Draft> {
    let will = options.will.as_ref()?;
    Some(Draft {
        topic: will.topic.clone(),
        qos: will.qos as u8,
        retain: will.retain,
        size: will.payload.len(),
    })
}

/// What a client is made with; `clean` decides where it may not be drawn.
fn options(
    client_id: &str,
    v5: bool,
    worker: bool,
    clean: Option<bool>,
    plan: &Plan,
    random: &mut Random,
) -> Options {
    let version = if v5 { Version::V5 } else { Version::V3_1_1 };
    let will = random.chance(plan.wills).then(|| {
        let mut properties = PropertiesBuf::default();
        if v5 {
            if random.chance(600) {
                properties.push(Property::WillDelayInterval(random.below(12) as u32));
            }
            if random.chance(plan.expiry) {
                properties.push(Property::MessageExpiryInterval(random.within(1, 30) as u32));
            }
        }
        Will {
            topic: random.pick(&plan.topics).clone(),
            payload: payload(NO_NUMBER, random.within(10, 40) as usize),
            qos: *random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
            retain: random.chance(plan.retain),
            properties,
        }
    });
    let session_expiry_s = match random.below(5) {
        0 => 0,
        1 | 2 => random.within(1, 20) as u32,
        3 => random.within(100, 1000) as u32,
        _ => u32::MAX,
    };
    // Only 5.0 can say so.
    let small = v5 && !worker && random.chance(100);
    let keep_alive_max = match plan.config.max_keepalive_s {
        0 => 15,
        most if v5 => 2 * most,
        most => most,
    };
    Options {
        clean_start: clean.unwrap_or(random.chance(if v5 { 500 } else { 250 })),
        session_expiry_s,
        keep_alive_s: if plan.keep_alive { random.within(2, keep_alive_max.into()) as u16 } else { 0 },
        will,
        receive_maximum: *random.pick(&[1, 2, 3, 10, 65_535]),
        max_packet_size: if small { 200 } else { 1 << 20 },
        topic_alias_maximum: *random.pick(&[0, 1, 2, 10]),
        acknowledge: if plan.acknowledge > 0 { Acknowledge::Manually } else { Acknowledge::Automatically },
        max_inflight: *random.pick(&[1, 2, 5, 100]),
        max_topic_aliases: *random.pick(&[0, 1, 10]),
        connect_timeout: Duration::from_secs(5),
        ping_timeout: Duration::from_secs(5),
        ..Options::new(version, client_id)
    }
}

/// The bytes of a message: its number, and something to fill it up.
pub(crate) fn payload(number: u32, size: usize) -> Vec<u8> {
    let mut bytes = format!("m{number:08};").into_bytes();
    bytes.resize_with(size.max(10), Default::default);
    for (at, byte) in bytes.iter_mut().enumerate().skip(10) {
        *byte = (at * 7 + size) as u8;
    }
    bytes
}

/// The number in a payload.
pub(crate) fn number_of(payload: &[u8]) -> Option<u32> {
    let text = payload.strip_prefix(b"m")?.get(..9)?.strip_suffix(b";")?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl World {
    fn instant(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    pub fn connect(&mut self, at: usize) {
        self.actors[at].connecting = false;
        if self.actors[at].conn.is_some() {
            return;
        }
        if !self.broker.is_up() {
            return self.connect_later(at, SECOND);
        }
        let conn = self.conns.len();
        self.conns.push(Conn::new(at, self.broker.run, u32::MAX, self.actors[at].v5));
        let now = self.instant();
        self.tally.connections += 1;
        self.actors[at].conn = Some(conn);
        self.actors[at].client.transport_up(now);
        self.note(|w| format!("{} connects as {conn}", w.actors[at].client_id));
        if let Some(draft) = self.actors[at].will.clone() {
            let number = self.oracle.messages.announce(at, draft, true);
            self.put_will_number(at, conn, number);
        }
        self.after_client(at);
        if self.actors[at].hurry > 0 {
            // It gives up before it knows whether it was let in.
            self.actors[at].hurry -= 1;
            let patience = 1 + self.random.below(2 * self.plan.latency);
            self.vanish_later(at, patience);
        }
    }

    /// Writes the CONNECT by hand: each connection's will has a number of its own.
    fn put_will_number(&mut self, at: usize, conn: usize, number: u32) {
        let client = &mut self.actors[at].client;
        let mut bytes: Vec<u8> = client.outbox().chunks().flatten().copied().collect();
        client.written(bytes.len());
        let old = format!("m{NO_NUMBER:08};").into_bytes();
        let place = bytes.windows(old.len()).position(|w| w == old);
        if let Some(place) = place {
            bytes[place..place + old.len()].copy_from_slice(format!("m{number:08};").as_bytes());
        }
        self.send_up(conn, &bytes);
    }

    fn send_up(&mut self, conn: usize, bytes: &[u8]) {
        let (latency, fragments) = (self.plan.latency, self.plan.fragments);
        let arrivals = self.conns[conn].up.send(self.now, bytes, latency, fragments, &mut self.random);
        for at in arrivals {
            self.schedule_at(at, Event::Up(conn));
        }
    }

    pub fn connect_later(&mut self, at: usize, most: u64) {
        if !self.actors[at].connecting && !self.leaving {
            self.actors[at].connecting = true;
            let pause = MS + self.random.below(most);
            self.schedule(pause, Event::Connect(at));
        }
    }

    /// Writes what the client has to say, as far as the transport takes it.
    pub fn flush_client(&mut self, at: usize) {
        let Some(conn) = self.actors[at].conn else { return };
        let client = &mut self.actors[at].client;
        let room = self.conns[conn].up.room(self.plan.capacity);
        let bytes: Vec<u8> = client.outbox().chunks().flatten().take(room).copied().collect();
        client.written(bytes.len());
        if !bytes.is_empty() {
            self.send_up(conn, &bytes);
        }
        let client = &self.actors[at].client;
        if client.wants_close() && client.outbox().is_empty() {
            self.hang_up(at);
        }
    }

    /// The client closes its connection in order.
    fn hang_up(&mut self, at: usize) {
        let Some(conn) = self.actors[at].conn else { return };
        let latency = self.random.below(self.plan.latency);
        let when = self.conns[conn].up.arrival(self.now, latency);
        self.schedule_at(when, Event::UpEnd(conn));
        self.let_go(at);
    }

    /// The client's side of a connection is over.
    pub fn let_go(&mut self, at: usize) {
        let Some(conn) = self.actors[at].conn.take() else { return };
        self.conns[conn].client_has_it = false;
        self.conns[conn].unread.clear();
        self.conns[conn].down.kill();
        let now = self.instant();
        self.actors[at].client.transport_down(now);
        let away = if self.healed { SECOND } else { self.plan.away };
        self.connect_later(at, away);
        self.after_client(at);
    }

    /// After anything was done with a client.
    pub fn after_client(&mut self, at: usize) {
        while let Some(event) = self.actors[at].client.poll_event() {
            self.on_event(at, event);
        }
        self.flush_client(at);
        if let Some(due) = self.actors[at].client.poll_timeout() {
            let due = due.micros().max(self.now);
            let actor = &mut self.actors[at];
            if actor.timer.is_none_or(|known| known > due || known < self.now) {
                actor.timer = Some(due);
                self.schedule_at(due, Event::ClientTimer(at));
            }
        }
    }

    pub fn client_timer(&mut self, at: usize, due: u64) {
        if self.actors[at].timer != Some(due) {
            return;
        }
        self.actors[at].timer = None;
        let now = self.instant();
        self.actors[at].client.handle_timeout(now);
        self.after_client(at);
    }

    /// Bytes of the broker arrive.
    pub fn bytes_arrive_down(&mut self, conn: usize) {
        let until = self.conns[conn].frozen_until;
        if until > self.now {
            return self.schedule_at(until, Event::Down(conn));
        }
        let Some(bytes) = self.conns[conn].down.receive(self.now) else { return };
        self.conns[conn].unread.extend_from_slice(&bytes);
        let until = self.conns[conn].stalled_until;
        if until > self.now {
            self.schedule_at(until, Event::Read(conn));
        } else {
            self.client_reads(conn);
        }
    }

    pub fn client_reads(&mut self, conn: usize) {
        let at = self.conns[conn].actor;
        if self.conns[conn].stalled_until > self.now || !self.conns[conn].client_has_it {
            return;
        }
        if !self.actors[at].client.wants_read() && !self.actors[at].client.wants_close() {
            return self.schedule(10 * MS, Event::Read(conn));
        }
        let bytes = std::mem::take(&mut self.conns[conn].unread);
        let it = &mut self.conns[conn];
        it.down.held = it.down.held.saturating_sub(bytes.len());
        let ends = it.ends;
        if it.full && it.door == Door::Open && it.run == self.broker.run && self.broker.is_up() {
            let shard = it.shard;
            self.hand_in(shard, In::Writable(conn));
        }
        let now = self.instant();
        self.actors[at].client.handle_bytes(now, &bytes);
        self.after_client(at);
        if ends && self.actors[at].conn == Some(conn) {
            self.let_go(at);
        }
    }

    pub fn end_arrives_down(&mut self, conn: usize) {
        let it = &mut self.conns[conn];
        if !it.client_has_it {
            return;
        }
        it.ends = true;
        let until = it.frozen_until.max(it.stalled_until);
        if until > self.now {
            it.ends = false;
            return self.schedule_at(until, Event::DownEnd(conn));
        }
        let at = it.actor;
        if it.unread.is_empty() {
            self.let_go(at);
        } else {
            self.client_reads(conn);
        }
    }

    fn on_event(&mut self, at: usize, event: Happening) {
        match event {
            Happening::Connected(connected) => {
                self.actors[at].whole |= !connected.session_present;
                self.tally.sessions_resumed += u64::from(connected.session_present);
                self.oracle.client_connected(self.actors[at].conn, connected.session_present);
                // What an application without a session does first.
                if !connected.session_present && !self.healed {
                    self.subscribe(at);
                }
            }
            Happening::Message(received) => {
                self.tally.received += 1;
                if let Some(token) = received.token {
                    self.actors[at].tokens.push_back(token);
                    let pause = self.random.below(if self.healed { 10 * MS } else { self.plan.acknowledge });
                    self.schedule(pause, Event::Acknowledge(at));
                }
                let Some(conn) = self.actors[at].conn else { panic!("a message without a connection") };
                let now = self.now;
                self.oracle.received(conn, &received, now);
            }
            Happening::Published { ticket, reason } => {
                let number = self.actors[at].tickets.remove(&ticket);
                let Some(number) = number else { panic!("{at}: a ticket is answered that nobody has") };
                self.oracle.messages.published(number, reason);
            }
            Happening::Dropped { ticket, why } => {
                self.actors[at].tickets.remove(&ticket);
                assert!(!matches!(why, Dropped::Refused(_)) || self.plan.large, "{at}: dropped: {why:?}");
            }
            Happening::Disconnected { by, .. } => {
                self.note(|w| format!("{}: {by}", w.actors[at].client_id));
                match by {
                    By::Protocol(error) => panic!("{at}: the broker broke the protocol: {error}"),
                    By::Options(error) => panic!("{at}: {error}"),
                    By::Us | By::Transport | By::Timeout(_) | By::Peer(_) => {}
                }
            }
            Happening::Refused { reason, .. } => {
                self.note(|w| format!("{} is refused: {reason}", w.actors[at].client_id));
                let failing = matches!(reason, ReasonCode::ServerUnavailable);
                let short = matches!(reason, ReasonCode::QuotaExceeded) && self.broker.was_short;
                assert!(failing || short, "{at} is refused: {reason}");
            }
            Happening::Subscribed { .. } | Happening::Unsubscribed { .. } | Happening::SessionLost => {}
            Happening::Auth { .. } => panic!("{at}: an AUTH that nobody asked for"),
        }
    }

    pub fn acknowledge(&mut self, at: usize) {
        let count = self.actors[at].tokens.len();
        if count == 0 {
            return;
        }
        // Not always the first.
        let which = if self.random.chance(300) { self.random.index(count) } else { 0 };
        if let Some(token) = self.actors[at].tokens.remove(which) {
            let now = self.instant();
            self.actors[at].client.acknowledge(now, token);
            self.after_client(at);
        }
    }

    pub fn act(&mut self, at: usize) {
        let weights = self.plan.acts;
        let mut drawn = self.random.below(weights.iter().sum());
        let kind = weights.iter().position(|&weight| {
            let here = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            here
        });
        let connected = self.actors[at].client.is_connected();
        match kind {
            Some(0) | None => self.publish(at),
            Some(1) if connected => self.subscribe(at),
            Some(2) if connected => self.unsubscribe(at),
            Some(3) if connected => self.disconnect(at),
            _ => return,
        }
        self.after_client(at);
    }

    fn publish(&mut self, at: usize) {
        let mut drawn = self.random.below(self.plan.qos.iter().sum());
        let mut qos = QoS::ExactlyOnce;
        for (weight, kind) in self.plan.qos.iter().zip([QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
        {
            if drawn < *weight {
                qos = kind;
                break;
            }
            drawn -= weight;
        }
        let topic = self.random.pick(&self.plan.topics).clone();
        let retain = self.random.chance(self.plan.retain);
        let empty = retain && self.random.chance(self.plan.empty);
        let mut size = self.random.within(10, 60) as usize;
        if self.plan.large && self.random.chance(60) {
            size = self.random.within(900, 9_000) as usize;
        }
        let mut properties = PropertiesBuf::default();
        if self.actors[at].v5 && self.random.chance(self.plan.expiry) {
            // Many of them soon.
            let seconds = self.random.within(1, 20).pow(2).div_ceil(20);
            properties.push(Property::MessageExpiryInterval(seconds as u32));
        }
        let draft = Draft { topic: topic.clone(), qos: qos as u8, retain, size };
        let number = if empty { 0 } else { self.oracle.messages.announce(at, draft, false) };
        let user = number.to_string();
        if !empty {
            properties.push(Property::UserProperty("n", &user));
        }
        let payload = if empty { Vec::new() } else { payload(number, size) };
        let request = PublishRequest {
            topic: &topic,
            payload: &payload,
            qos,
            retain,
            properties: properties.as_properties(),
        };
        let now = self.instant();
        match self.actors[at].client.publish(now, &request) {
            Ok(ticket) => {
                self.tally.operations += 1;
                self.tally.published[qos as usize] += 1;
                if qos != QoS::AtMostOnce {
                    self.actors[at].tickets.insert(ticket, number);
                }
            }
            Err(_) => self.note(|w| format!("{} cannot publish", w.actors[at].client_id)),
        }
    }

    /// Publishes a small message that is to be retained.
    pub fn retain(&mut self, at: usize, topic: &str) {
        let draft = Draft { topic: topic.into(), qos: 1, retain: true, size: 20 };
        let number = self.oracle.messages.announce(at, draft, false);
        let (payload, qos, properties) = (payload(number, 20), QoS::AtLeastOnce, Properties::EMPTY);
        let request = PublishRequest { topic, payload: &payload, qos, retain: true, properties };
        let now = self.instant();
        match self.actors[at].client.publish(now, &request) {
            Ok(ticket) => drop(self.actors[at].tickets.insert(ticket, number)),
            Err(error) => panic!("{at} cannot publish: {error}"),
        }
        self.after_client(at);
    }

    pub fn subscribe(&mut self, at: usize) {
        let group = self.actors[at].group;
        let count = if self.random.chance(250) { self.random.within(2, 3) } else { 1 };
        let mut filters = Vec::new();
        for _ in 0..count {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
            let (filter, qos) = match group {
                // No two of one group have a topic in common.
                Some(group) => {
                    let filter = *self.random.pick(&["t/#", "u/+", "+"]);
                    (format!("$share/{group}/{filter}"), qos[1 + self.random.index(2)])
                }
                None => (self.random.pick(&self.plan.filters).clone(), qos[self.random.index(3)]),
            };
            let mut options = SubscribeOptions::new(qos);
            if self.actors[at].v5 {
                options.no_local = group.is_none() && self.random.chance(250);
                options.retain_as_published = self.random.chance(400);
                options.retain_handling = *self.random.pick(&[
                    RetainHandling::SendAtSubscribe,
                    RetainHandling::SendIfNew,
                    RetainHandling::DoNotSend,
                ]);
            }
            if !filters.iter().any(|(known, _)| *known == filter) {
                filters.push((filter, options));
            }
        }
        let mut properties = PropertiesBuf::default();
        if self.actors[at].v5 && self.random.chance(500) {
            properties.push(Property::SubscriptionIdentifier(self.random.within(1, 400) as u32));
        }
        let now = self.instant();
        let asked: Vec<(&str, SubscribeOptions)> = filters.iter().map(|(f, o)| (f.as_str(), *o)).collect();
        if self.actors[at].client.subscribe(now, &asked, properties.as_properties()).is_ok() {
            self.tally.operations += 1;
            self.actors[at].filters.extend(filters.into_iter().map(|(filter, _)| filter));
        }
    }

    fn unsubscribe(&mut self, at: usize) {
        let known = &self.actors[at].filters;
        let filter =
            if known.is_empty() { "t/+".into() } else { known[self.random.index(known.len())].clone() };
        let now = self.instant();
        if self.actors[at].client.unsubscribe(now, &[&filter], Properties::EMPTY).is_ok() {
            self.tally.operations += 1;
            self.actors[at].filters.retain(|f| *f != filter);
        }
    }

    fn disconnect(&mut self, at: usize) {
        let mut properties = PropertiesBuf::default();
        let mut reason = ReasonCode::Success;
        if self.actors[at].v5 {
            if self.random.chance(400) {
                reason = ReasonCode::DisconnectWithWillMessage;
            }
            if self.actors[at].client.options().session_expiry_s > 0 && self.random.chance(200) {
                properties.push(Property::SessionExpiryInterval(*self.random.pick(&[0, 2, 500])));
            }
        }
        let now = self.instant();
        self.tally.operations += 1;
        let done = self.actors[at].client.disconnect(now, reason, properties.as_properties());
        assert!(done.is_ok(), "{at} cannot disconnect: {done:?}");
    }

    /// The program starts anew: nothing is left of the client but its name.
    pub fn reborn(&mut self, at: usize) {
        // What was begun must be finished by whoever began it, or the session be given up.
        self.actors[at].whole &= self.actors[at].client.unfinished() == 0;
        let whole = self.actors[at].whole;
        self.drop_transport(at);
        let clean = !(whole && self.random.chance(600));
        let (v5, worker) = (self.actors[at].v5, self.actors[at].group.is_some());
        let client_id = self.actors[at].client_id.clone();
        let options = options(&client_id, v5, worker, Some(clean), &self.plan, &mut self.random);
        self.note(|_| {
            format!("{client_id} is born again, clean: {clean}, expiry {}", options.session_expiry_s)
        });
        let actor = &mut self.actors[at];
        actor.will = draft_of(&options);
        actor.client = Client::new(options);
        actor.tickets.clear();
        actor.tokens.clear();
        actor.timer = None;
        self.tally.operations += 1;
        self.oracle.forgets(at);
    }

    /// The connection of a client is nobody's any more; the broker is not told.
    pub fn drop_transport(&mut self, at: usize) {
        if let Some(conn) = self.actors[at].conn {
            let random = &mut self.random;
            // What it had said may arrive yet, in part.
            if random.chance(500) {
                self.conns[conn].up.cut(random);
            }
        }
        self.let_go(at);
    }
}
