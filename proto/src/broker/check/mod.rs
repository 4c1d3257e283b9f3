//! What must hold for a shard whatever happens to it: the bodies of fuzz targets.

mod restore;
mod stream;

pub use restore::check_restore;
pub use stream::check_stream;

use super::store::{Loaded, SessionId, StoreOp};
use super::{AuthStep, Authentication, Config, ConnId, Input, Listener, Output, Placement, Shard, Verdict};
use crate::broker::peer::PeerMessage;
use crate::codec::{Framer, Packet, ReasonCode, Version};
use crate::time::Instant;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

impl Shard {
    /// What this shard has not finished, if anything: for tests that wait until all is done. Connections,
    /// subscriptions and what waits for clients that are away are none of it.
    #[doc(hidden)]
    pub fn unfinished(&self) -> Option<&'static str> {
        let waits =
            |index: u32| self.sessions.get(index).is_some_and(|s| s.conn.is_some() && !s.outgoing.is_empty());
        let left = [
            (self.gate_used || !self.barriers.is_empty(), "gates"),
            (!self.gated.is_empty(), "acknowledgements behind gates"),
            (!self.waiting.is_empty() || !self.waiting_gates.is_empty(), "SUBACKs"),
            (!self.work.is_empty(), "work"),
            (!self.outputs.is_empty() || !self.dirty.is_empty(), "outputs"),
            (!self.replays.is_empty() || self.retained.idle() != (0, 0, 0), "replays"),
            (self.keeper.pending(), "changes to be kept"),
            (self.keeper.unfinished(), "messages or connections behind records"),
            (self.sessions.iter().any(|(index, _)| waits(index)), "messages to clients"),
        ];
        left.into_iter().find(|(is_left, _)| *is_left).map(|(_, what)| what)
    }
}

const CONNS: usize = 6;
const FILTERS: [&str; 8] = ["a", "a/+", "#", "+/b", "$share/g/a", "$share/h/#", "$SYS/#", "a/b/c"];
/// The properties of an authentication.
const METHOD: &[u8] = b"\x15\0\x01M\x16\0\x01d";
const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "", "d", "$x"];

struct Pipe {
    id: ConnId,
    shard: usize,
    open: bool,
    paused: bool,
    v5: bool,
    up: VecDeque<u8>,
    framer: Framer,
    /// How many bytes the transport takes at once.
    takes: usize,
    /// Who it is was asked and not answered.
    asked: Option<AuthStep>,
    /// All that was said to it, if that is wanted.
    said: Option<Vec<u8>>,
}

struct Rig {
    now: Instant,
    config: Arc<Config>,
    placement: Arc<Placement>,
    shards: Vec<Shard>,
    peers: Vec<VecDeque<(u16, PeerMessage)>>,
    wake: Vec<Option<Instant>>,
    pipes: Vec<Pipe>,
    /// What was said to the store and not confirmed, by shard; `None` if nothing is kept.
    unsynced: Option<Vec<Unsynced>>,
    kept: Kept,
}

/// The changes of turns, with the number of the last of each.
type Unsynced = VecDeque<(u64, Vec<StoreOp>)>;

/// What a store would have.
#[derive(Default)]
struct Kept {
    sessions: BTreeSet<SessionId>,
    queues: BTreeMap<(SessionId, u64), crate::session::Delivery>,
    in_flight: BTreeSet<(SessionId, u64)>,
    forwards: BTreeSet<((u16, u16), u64)>,
    /// What a restart has given back.
    packet_ids: BTreeSet<(SessionId, u16)>,
    clients: BTreeSet<u8>,
}

/// Interprets `data` as operations on one or two shards: connections with good and bad packets, cuts, partial
/// writes, time jumps. Panics when something that must hold does not.
pub fn check_shard(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let mut rig = Rig::with(1 + u16::from(first & 1), tuning(first), first & 32 != 0);
    run(&mut rig, data);
    rig.end();
}

/// Interprets `data` as operations.
fn run(rig: &mut Rig, mut data: &[u8]) {
    let mut next = |n: usize| -> &[u8] {
        let (now, rest) = data.split_at(n.min(data.len()));
        data = rest;
        now
    };
    for _ in 0..2000 {
        let &[op, a, b] = next(3) else { break };
        let at = usize::from(op >> 5) % CONNS;
        match op & 31 {
            0..3 => rig.open(at, &connect(a, b)),
            3 => rig.cut(at),
            4 => {
                let bytes = next(usize::from(a)).to_vec();
                rig.send(at, &bytes);
            }
            5 => {
                rig.pipes[at].takes = [0, 1, 50, usize::MAX][usize::from(a) % 4];
                rig.write(at);
                rig.poll(rig.pipes[at].shard);
            }
            6 => rig.advance(Duration::from_millis(u64::from(a) * 100)),
            7 => rig.advance(Duration::from_secs(u64::from(a) * u64::from(b))),
            8 => rig.step(usize::from(a) % 2),
            9 if a == 255 => {
                for shard in 0..rig.shards.len() {
                    rig.input(shard, Input::Shutdown);
                }
            }
            28 => rig.answer(at, a, b),
            30 if a < 8 => {
                for shard in 0..rig.shards.len() {
                    rig.input(shard, Input::StoreFailed(a & 1 == 1));
                }
            }
            30 => drop(rig.sync(usize::from(a) % 2)),
            31 if b == 255 => {
                let most = [0, 20_000, u64::MAX][usize::from(a) % 3];
                for shard in 0..rig.shards.len() {
                    rig.input(shard, Input::Memory(most));
                }
            }
            op => {
                let bytes = packet(op, a, b, rig.pipes[at].v5);
                rig.send(at, &bytes);
            }
        }
        rig.step(usize::from(op) % 2);
    }
}

/// A configuration with narrow limits.
fn tuning(first: u8) -> Config {
    Config {
        max_queued_messages: 5,
        max_inflight_messages: 1 + u16::from(first >> 1 & 3),
        max_inflight_bytes: if first & 32 == 0 { u64::MAX } else { 20 },
        output_soft_bytes: 500,
        output_hard_bytes: 1000,
        max_packet_size: 4000,
        max_subscriptions: 6,
        queue_qos0_messages: first & 4 != 0,
        slow_publishers: first & 2 != 0,
        max_publish_rate: if first & 6 == 6 { 10 } else { 0 },
        max_retained_messages: if first & 8 == 0 { u64::MAX } else { 2 },
        sys_interval_s: if first & 8 == 0 { 0 } else { 5 },
        listeners: Vec::from([Listener {
            authentication: if first & 16 == 0 { Authentication::None } else { Authentication::Ask },
            ..Listener::default()
        }]),
        ..Config::default()
    }
}

fn connect(a: u8, b: u8) -> Vec<u8> {
    let v5 = a & 1 == 1;
    let will = a & 2 != 0;
    let mut body = Vec::from(&b"\0\x04MQTT"[..]);
    body.push(if v5 { 5 } else { 4 });
    body.push((a >> 1 & 2) | if will { 4 | (b & 0x20) | (b & 8) } else { 0 });
    body.extend_from_slice(&[0, a >> 4]);
    if v5 {
        let method = if a & 8 != 0 { METHOD } else { &[] };
        body.push(11 + method.len() as u8);
        // Session expiry, receive maximum and topic aliases.
        body.extend_from_slice(&[0x11, 0, 0, 0, b & 15, 0x21, 0, 1 + (a & 3), 0x22, 0, b & 3]);
        body.extend_from_slice(method);
    }
    body.extend_from_slice(&[0, 1, b'0' + (b >> 6)]);
    if will {
        if v5 {
            body.extend_from_slice(&[5, 0x18, 0, 0, 0, b & 7]);
        }
        body.extend_from_slice(b"\0\x01a\0\x01w");
    }
    whole(0x10, &body)
}

fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::from([first]);
    crate::codec::put_varint(body.len() as u32, &mut out);
    out.extend_from_slice(body);
    out
}

fn packet(op: u8, a: u8, b: u8, v5: bool) -> Vec<u8> {
    let id = [0, 1 + (b & 7)];
    let mut body = Vec::new();
    match op {
        10..16 => {
            let topic = TOPICS[usize::from(a >> 4) % TOPICS.len()];
            body.extend_from_slice(&[0, topic.len() as u8]);
            body.extend_from_slice(topic.as_bytes());
            let qos = a & 3;
            if qos != 0 {
                body.extend_from_slice(&id);
            }
            if v5 {
                match b >> 6 {
                    0 => body.extend_from_slice(&[3, 0x23, 0, b >> 3 & 7]),
                    1 => body.extend_from_slice(&[5, 0x02, 0, 0, 0, b >> 3 & 7]),
                    _ => body.push(0),
                }
            }
            body.resize(body.len() + [0, 1, 100, 1500][usize::from(b >> 4 & 3)], b'p');
            whole(0x30 | qos << 1 | (a >> 2 & 1) | (a & 8), &body)
        }
        16..20 => {
            let filter = FILTERS[usize::from(a >> 4) % FILTERS.len()];
            body.extend_from_slice(&id);
            if v5 {
                body.extend_from_slice(if b & 0x10 != 0 { &[2, 0x0b, 1] } else { &[0] });
            }
            body.extend_from_slice(&[0, filter.len() as u8]);
            body.extend_from_slice(filter.as_bytes());
            let v5_only = if v5 { a & 12 | b & 0x20 } else { 0 };
            body.push((a & 15) % 3 + v5_only);
            whole(0x82, &body)
        }
        20 => {
            let filter = FILTERS[usize::from(a >> 4) % FILTERS.len()];
            body.extend_from_slice(&id);
            body.extend_from_slice(if v5 { &[0] } else { &[] });
            body.extend_from_slice(&[0, filter.len() as u8]);
            body.extend_from_slice(filter.as_bytes());
            whole(0xa2, &body)
        }
        21..24 => whole(0x40, &id),
        24 => whole(0x50, &id),
        25 => whole(0x62, &id),
        26 => whole(0x70, &id),
        27 => whole(0xe0, if v5 && a & 1 == 1 { &[4] } else { &[] }),
        29 if v5 => {
            body.push(0x18 + (a & 1));
            body.push(METHOD.len() as u8);
            body.extend_from_slice(METHOD);
            if b & 0xf0 == 0xf0 {
                body[5] = b;
            }
            whole(0xf0, &body)
        }
        _ => whole(0xc0, &[]),
    }
}

impl Rig {
    fn with(shards: u16, config: Config, keeps: bool) -> Rig {
        let config = Arc::new(config);
        let placement = Arc::new(Placement::new(7, shards));
        let now = Instant::from_secs(100);
        let make = |id| Shard::new(id, shards, 1, config.clone(), placement.clone(), now);
        let pipe = |i| Pipe {
            id: ConnId { index: i, generation: 0 },
            shard: 0,
            open: false,
            paused: false,
            v5: false,
            up: VecDeque::new(),
            framer: Framer::default(),
            takes: usize::MAX,
            asked: None,
            said: None,
        };
        let mut all: Vec<Shard> = (0..shards).map(make).collect();
        if keeps {
            all.iter_mut().for_each(|s| s.keep_from(1));
        }
        Rig {
            now,
            unsynced: keeps.then(|| (0..shards).map(|_| VecDeque::new()).collect()),
            kept: Kept::default(),
            shards: all,
            peers: (0..shards).map(|_| VecDeque::new()).collect(),
            wake: (0..shards).map(|_| None).collect(),
            pipes: (0..CONNS as u32).map(pipe).collect(),
            config,
            placement,
        }
    }

    fn input(&mut self, shard: usize, input: Input<'_>) -> usize {
        let used = self.shards[shard].handle(self.now, input);
        self.poll(shard);
        used
    }

    fn open(&mut self, at: usize, bytes: &[u8]) {
        self.cut(at);
        let entropy = [at as u8; 16];
        let home = self.config.home(&self.placement, 0, None, &entropy, bytes);
        let pipe = &mut self.pipes[at];
        pipe.id.generation += 1;
        pipe.shard = if let super::Home::At(shard) = home { usize::from(shard) } else { 0 };
        (pipe.open, pipe.paused, pipe.framer) = (true, false, Framer::default());
        pipe.v5 = bytes.get(8) == Some(&5);
        (pipe.takes, pipe.asked) = (usize::MAX, None);
        pipe.up.clear();
        pipe.up.extend(bytes);
        let (shard, conn) = (pipe.shard, pipe.id);
        self.input(shard, Input::Opened { conn, listener: 0, peer: None, identity: None, entropy });
        self.feed(at);
    }

    fn cut(&mut self, at: usize) {
        if core::mem::take(&mut self.pipes[at].open) {
            let conn = self.pipes[at].id;
            self.input(self.pipes[at].shard, Input::Closed { conn });
        }
    }

    fn send(&mut self, at: usize, bytes: &[u8]) {
        if self.pipes[at].open && self.pipes[at].up.len() < 100_000 {
            self.pipes[at].up.extend(bytes);
            self.feed(at);
        }
    }

    fn feed(&mut self, at: usize) {
        let pipe = &mut self.pipes[at];
        if !pipe.open || pipe.paused || pipe.up.is_empty() {
            return;
        }
        let (shard, conn, bytes) = (pipe.shard, pipe.id, pipe.up.make_contiguous().to_vec());
        let used = self.input(shard, Input::Received { conn, bytes: &bytes });
        let pipe = &mut self.pipes[at];
        pipe.up.drain(..used);
        assert!(pipe.up.is_empty() || pipe.paused || !pipe.open, "bytes are left without a pause");
    }

    fn poll(&mut self, shard: usize) {
        for _ in 0..100_000 {
            match self.shards[shard].poll_output(self.now) {
                Output::Store { upto, ops } => {
                    let Some(unsynced) = &mut self.unsynced else { panic!("nothing is to be kept") };
                    unsynced[shard].push_back((upto, ops));
                }
                Output::Timeout(at) => {
                    self.wake[shard] = at;
                    return;
                }
                Output::Peer { to, message } => {
                    assert!(usize::from(to) != shard, "a message to itself");
                    self.peers[usize::from(to)].push_back((shard as u16, message));
                }
                Output::Transmit(id) => {
                    assert!(self.pipes[id.index as usize].id == id, "a stale connection transmits");
                    self.write(id.index as usize);
                }
                Output::PauseReads(id) => self.pipes[id.index as usize].paused = true,
                Output::ResumeReads(id) => self.pipes[id.index as usize].paused = false,
                Output::Watch { conn, unreachable_s } => {
                    assert!(self.pipes[conn.index as usize].id == conn && unreachable_s > 0);
                }
                Output::Close { conn, last } => {
                    let bytes: Vec<u8> = last.chunks().flatten().copied().collect();
                    self.read(conn.index as usize, &bytes);
                    self.pipes[conn.index as usize].open = false;
                }
                Output::Authenticate(question) => {
                    let pipe = &mut self.pipes[question.conn.index as usize];
                    assert!(pipe.id == question.conn && pipe.asked.is_none(), "asked twice");
                    assert!(question.method.is_some() || question.step == AuthStep::Connect);
                    pipe.asked = Some(question.step);
                }
            }
        }
        panic!("a poll never ends");
    }

    /// Says who a client is, whether or not that was asked.
    fn answer(&mut self, at: usize, a: u8, b: u8) {
        let pipe = &mut self.pipes[at];
        let was_asked = pipe.open && pipe.asked.take().is_some();
        let (shard, conn) = (pipe.shard, pipe.id);
        let data = b"v".repeat(usize::from(b));
        let verdict = match a % 8 {
            0..3 => Verdict::Success { username: None, data: None },
            3 => Verdict::Success { username: Some("a".into()), data: Some(data) },
            4 => Verdict::Failure(ReasonCode::BadUserNameOrPassword),
            _ => Verdict::Continue { data },
        };
        let before = self.pipes[at].paused;
        self.input(shard, Input::Authenticated { conn, verdict });
        assert!(was_asked || self.pipes[at].paused == before, "an answer to nothing counts");
        self.feed(at);
    }

    fn write(&mut self, at: usize) {
        let pipe = &self.pipes[at];
        if !pipe.open {
            return;
        }
        let (shard, conn, takes) = (pipe.shard, pipe.id, pipe.takes);
        let Some(outbox) = self.shards[shard].outbox(conn) else { panic!("open, but no outbox") };
        assert!(outbox.len() < 1 << 20, "output without bound");
        let bytes: Vec<u8> = outbox.chunks().flatten().copied().take(takes).collect();
        self.shards[shard].handle(self.now, Input::Written { conn, bytes: bytes.len() });
        self.read(at, &bytes);
    }

    /// What is written are packets.
    fn read(&mut self, at: usize, mut bytes: &[u8]) {
        let pipe = &mut self.pipes[at];
        if let Some(said) = &mut pipe.said {
            said.extend_from_slice(bytes);
        }
        let version = if pipe.v5 { Version::V5 } else { Version::V3_1_1 };
        loop {
            let Ok(step) = pipe.framer.next(bytes, u32::MAX) else { panic!("not a packet") };
            bytes = &bytes[step.used..];
            let Some(frame) = step.frame else { return };
            // A refusal speaks the version that was asked for, which may be none.
            let decoded = Packet::decode(version, frame);
            assert!(
                frame.first == 0x20 || decoded.is_ok(),
                "a wrong packet in {version:?}: {decoded:?} {:02x?}",
                frame.raw
            );
        }
    }

    /// The store takes one turn of a shard. False if there is none.
    fn sync(&mut self, shard: usize) -> bool {
        let shard = shard % self.shards.len();
        let Some((upto, ops)) = self.unsynced.as_mut().and_then(|u| u[shard].pop_front()) else {
            return false;
        };
        for op in ops {
            if let Some(loaded) = self.kept.apply(op) {
                self.input(shard, Input::Loaded(loaded));
            }
        }
        self.input(shard, Input::Stored { upto });
        true
    }

    fn step(&mut self, shard: usize) {
        let shard = shard % self.shards.len();
        if let Some((from, message)) = self.peers[shard].pop_front() {
            self.input(shard, Input::Peer { from, message });
        } else if self.wake[shard].is_some_and(|at| at <= self.now) {
            self.input(shard, Input::Timeout);
        }
        for at in 0..CONNS {
            self.feed(at);
        }
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            let synced = (0..self.shards.len()).filter(|&s| self.sync(s)).count();
            let idle = synced == 0
                && self.peers.iter().all(VecDeque::is_empty)
                && self.wake.iter().flatten().all(|at| *at > self.now);
            if idle {
                return;
            }
            (0..self.shards.len()).for_each(|s| self.step(s));
        }
        panic!("it never comes to rest");
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        for _ in 0..100 {
            self.settle();
            match self.wake.iter().flatten().min() {
                Some(at) if *at <= end => self.now = *at,
                _ => break,
            }
        }
        self.now = end;
        self.settle();
    }

    fn end(&mut self) {
        for shard in 0..self.shards.len() {
            self.input(shard, Input::StoreFailed(false));
            self.input(shard, Input::Memory(u64::MAX));
        }
        self.settle();
        let running: u64 = self.shards.iter().map(|s| s.counters().clients_connected).sum();
        assert!(running <= self.pipes.iter().filter(|p| p.open).count() as u64, "clients without connection");
        for at in 0..CONNS {
            self.cut(at);
        }
        // Sessions of 3.x stay for ever: a clean one takes their place, and goes.
        for id in b'0'..=b'3' {
            self.open(0, &whole(0x10, &[0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, id]));
            self.settle();
            // Its session may be of the only user there is.
            self.answer(0, 3, 0);
            self.settle();
            self.cut(0);
        }
        self.advance(Duration::from_secs(1000));
        let kept = &self.kept;
        assert!(kept.sessions.is_empty() && kept.queues.is_empty(), "the store keeps what is gone");
        assert!(kept.in_flight.is_empty() && kept.forwards.is_empty(), "the store keeps what is done");
        for shard in &mut self.shards {
            let counters = shard.counters();
            assert_eq!((counters.clients_connected, counters.clients_total), (0, 0));
            assert_eq!((counters.subscriptions, counters.shared_subscriptions), (0, 0));
            assert!(shard.conns.iter().all(Option::is_none) && shard.replays.is_empty());
            assert!(shard.waiting.is_empty() && shard.gated.is_empty() && shard.barriers.is_empty());
            assert!(shard.work.is_empty() && shard.outputs.is_empty());
            assert_eq!(shard.memory.idle(), (0, 0), "memory is counted that is not held");
            assert_eq!(shard.retained.idle(), (0, 0, 0), "replays left something behind");
        }
    }
}

impl Kept {
    fn apply(&mut self, op: StoreOp) -> Option<Loaded> {
        match op {
            StoreOp::Session { id, .. } => drop(self.sessions.insert(id)),
            StoreOp::SessionEnd { id } => {
                assert!(self.sessions.remove(&id), "a session ends twice");
                self.queues.retain(|(of, _), _| *of != id);
                self.in_flight.retain(|(of, _)| *of != id);
            }
            StoreOp::Subscribe { id, .. }
            | StoreOp::Unsubscribe { id, .. }
            | StoreOp::Received { id, .. }
            | StoreOp::Completed { id, .. } => assert!(self.sessions.contains(&id), "of no session"),
            StoreOp::Enqueue { id, delivery } => {
                assert!(self.sessions.contains(&id), "a message of no session");
                let before = self.queues.insert((id, delivery.seq), delivery);
                assert!(before.is_none(), "two messages in one place");
            }
            StoreOp::Sent { id, seq, .. } => {
                assert!(self.queues.contains_key(&(id, seq)) && self.in_flight.insert((id, seq)));
            }
            StoreOp::Released { id, seq, body, .. } => {
                let delivery = self.queues.remove(&(id, seq));
                assert!(
                    delivery.is_some_and(|d| d.message.id() == body) && self.in_flight.contains(&(id, seq))
                );
            }
            StoreOp::Done { id, seq, body } => {
                self.in_flight.remove(&(id, seq));
                let delivery = self.queues.remove(&(id, seq));
                assert_eq!(delivery.map(|d| d.message.id()), body, "another message than waited");
            }
            StoreOp::Forward { link, number, .. } => assert!(self.forwards.insert((link, number))),
            StoreOp::Forwarded { link, number, .. } => assert!(self.forwards.remove(&(link, number))),
            StoreOp::Retain { .. } | StoreOp::Forget { .. } | StoreOp::Mark { .. } => {}
            StoreOp::Load { id, key, from, count } => {
                let all = self.queues.range((id, from)..=(id, u64::MAX)).map(|(_, d)| d.clone());
                return Some(Loaded { key, deliveries: all.take(count as usize).collect() });
            }
            StoreOp::Rest { .. } => panic!("only said at a restart"),
        }
        None
    }
}
