//! A broker of any number of shards in virtual time: connections are byte pipes, messages between shards wait
//! in one queue per receiver, and a seed decides who goes next.
//!
//! Most tests are scripts ([`Rig::run`]):
//!
//! ```text
//! a> CONNECT a v5 clean      connection `a` is opened by its first packet
//! a< CONNACK 0               exactly what came since the last look
//! a!                         its transport breaks
//! +90s                       time passes
//! ```
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod disk;
pub mod logged;
pub mod packets;
pub mod script;

use hikyaku_proto::broker::peer::PeerMessage;
use hikyaku_proto::broker::{
    Authenticate, Config, ConnId, Counters, Home, Input, Output, Placement, Shard, Verdict,
};
use hikyaku_proto::codec::{Framer, Version};
use hikyaku_proto::time::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A small generator: the only randomness of a test.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One connection, seen from the client.
pub struct Pipe {
    pub id: ConnId,
    pub shard: usize,
    pub version: Version,
    pub open: bool,
    /// Bytes the client wrote that the shard has not used.
    pub up: VecDeque<u8>,
    cut: bool,
    pub paused: bool,
    /// What the transport was told to watch for, or 0.
    pub watched_s: u16,
    /// Everything the client read.
    pub down: Vec<u8>,
    framer: Framer,
    /// What was read and not looked at.
    pub news: Vec<String>,
    /// All packets ever read.
    pub log: Vec<String>,
    /// How many bytes the transport still takes; `None` for any number.
    pub takes: Option<usize>,
    refused: bool,
    /// Whether PUBLISH and the like are answered.
    pub answers: bool,
    /// Whether bytes come in pieces of random size.
    pub cuts: bool,
}

pub struct Rig {
    pub config: Arc<Config>,
    pub placement: Arc<Placement>,
    pub shards: Vec<Shard>,
    pub now: Instant,
    pub random: Random,
    /// Whether the scheduler draws, or goes round.
    pub shuffled: bool,
    peers: Vec<VecDeque<(u16, PeerMessage)>>,
    wake: Vec<Option<Instant>>,
    /// Whether a shard took something in and has not been polled since.
    unpolled: Vec<bool>,
    /// Whether a shard has outputs left.
    polling: Vec<bool>,
    pub pipes: Vec<Pipe>,
    pub names: BTreeMap<String, usize>,
    pub asked: Vec<Authenticate>,
    free: Vec<ConnId>,
    last_index: u32,
    pub steps: u64,
    /// Everything that came out, for comparison.
    pub trace: Vec<String>,
    pub traced: bool,
    turn: usize,
    /// The pipe that last used an index.
    by_index: Vec<usize>,
    pub disk: disk::Disk,
    /// Whether what is written is synced when nothing else is to be done.
    pub syncs: bool,
    /// The number of starts, when anything is kept.
    run: u32,
}

/// The default configuration without `$SYS`.
pub fn quiet() -> Config {
    Config { sys_interval_s: 0, ..Config::default() }
}

/// One shard with the default configuration.
pub fn one() -> Rig {
    Rig::new(1, 0, quiet())
}

impl Rig {
    pub fn new(shards: u16, seed: u64, config: Config) -> Rig {
        let config = Arc::new(config);
        let placement = Arc::new(Placement::new(7, shards));
        let now = Instant::from_secs(1000);
        let make = |id| Shard::new(id, shards, 11 + u64::from(id), config.clone(), placement.clone(), now);
        let mut rig = Rig {
            shards: (0..shards).map(make).collect(),
            now,
            random: Random::new(seed),
            shuffled: seed != 0,
            peers: (0..shards).map(|_| VecDeque::new()).collect(),
            wake: vec![None; usize::from(shards)],
            unpolled: vec![false; usize::from(shards)],
            polling: vec![false; usize::from(shards)],
            pipes: Vec::new(),
            names: BTreeMap::new(),
            asked: Vec::new(),
            free: Vec::new(),
            last_index: 0,
            steps: 0,
            trace: Vec::new(),
            traced: false,
            turn: 0,
            by_index: Vec::new(),
            disk: disk::Disk::default(),
            syncs: true,
            run: 0,
            config,
            placement,
        };
        (0..usize::from(shards)).for_each(|s| rig.drain(s));
        rig
    }

    /// As [`Rig::new`], with a store.
    pub fn kept(shards: u16, seed: u64, config: Config) -> Rig {
        let mut rig = Rig::new(shards, seed, config);
        rig.start_keeping(shards);
        rig
    }

    fn start_keeping(&mut self, shards_before: u16) {
        self.run += 1;
        let run = self.run;
        let syncs = std::mem::replace(&mut self.syncs, true);
        self.shards.iter_mut().for_each(|s| s.keep_from(run));
        for (shard, op) in self.disk.restore(&self.placement, self.now) {
            self.handle(usize::from(shard), Input::Restore(op));
        }
        self.settle();
        for (to, message, share) in self.disk.take_forwards(self.now) {
            let all = 0..self.shards.len();
            let owner = share.as_ref().map(|filter| usize::from(self.placement.shard(filter.as_bytes())));
            for shard in all.filter(|shard| owner.is_none_or(|owner| owner == *shard)) {
                let (message, share) = (message.clone(), share.clone());
                self.handle(shard, Input::Redeliver { message, share, to, shards: shards_before });
            }
        }
        self.settle();
        self.syncs = syncs;
    }

    /// Tells the shards what a sync of the first batches did.
    pub fn sync(&mut self, batches: usize) {
        for told in self.disk.sync(batches) {
            match told {
                disk::Told::Stored(shard, upto) => self.handle(usize::from(shard), Input::Stored { upto }),
                disk::Told::Loaded(shard, loaded) => self.handle(usize::from(shard), Input::Loaded(loaded)),
            }
        }
    }

    /// The broker dies; the first batches of what it wrote survive. It starts again with so many shards.
    pub fn crash(&mut self, batches: usize, shards: u16) {
        self.disk.crash(batches);
        for at in 0..self.pipes.len() {
            if self.pipes[at].open {
                self.forget(at);
                self.pipes[at].news.push("CLOSED".into());
                self.pipes[at].log.push("CLOSED".into());
            }
            self.pipes[at].shard = 0;
        }
        let before = self.shards.len() as u16;
        let mut fresh = Rig::new(shards, 0, Config::clone(&self.config));
        self.shards = std::mem::take(&mut fresh.shards);
        self.placement = fresh.placement;
        self.peers = (0..shards).map(|_| VecDeque::new()).collect();
        self.wake = vec![None; usize::from(shards)];
        self.unpolled = vec![false; usize::from(shards)];
        self.polling = vec![false; usize::from(shards)];
        self.asked.clear();
        self.start_keeping(before);
    }

    /// Opens a connection whose first bytes decide its shard; returns its place in `pipes`.
    pub fn open(&mut self, first: &[u8], version: Version) -> usize {
        let at = self.pipes.len();
        let mut entropy = [0u8; 16];
        entropy[..8].copy_from_slice(&(at as u64 + 1).to_le_bytes());
        let shard = match self.config.home(&self.placement, 0, None, &entropy, first) {
            Home::At(shard) => usize::from(shard),
            Home::Any | Home::Incomplete => 0,
        };
        let id = match self.free.iter().position(|_| true) {
            Some(at) => self.free.swap_remove(at),
            None => {
                self.last_index += 1;
                ConnId { index: self.last_index - 1, generation: 0 }
            }
        };
        if self.by_index.len() <= id.index as usize {
            self.by_index.resize(id.index as usize + 1, 0);
        }
        self.by_index[id.index as usize] = at;
        self.pipes.push(Pipe {
            id,
            shard,
            version,
            open: true,
            up: first.iter().copied().collect(),
            cut: false,
            paused: false,
            watched_s: 0,
            down: Vec::new(),
            framer: Framer::default(),
            news: Vec::new(),
            log: Vec::new(),
            takes: None,
            refused: false,
            answers: false,
            cuts: false,
        });
        let input = Input::Opened { conn: id, listener: 0, peer: None, identity: None, entropy };
        self.handle(shard, input);
        at
    }

    /// The connection of a name; its latest one.
    pub fn pipe(&mut self, name: &str) -> &mut Pipe {
        let at = *self.names.get(name).unwrap_or_else(|| panic!("no connection {name}"));
        &mut self.pipes[at]
    }

    /// Sends packets, separated by `;`, and does not wait.
    pub fn send(&mut self, name: &str, text: &str) {
        for text in text.split(';').map(str::trim).filter(|t| !t.is_empty()) {
            let open = self.names.get(name).is_some_and(|&at| self.pipes[at].open);
            let mut version = if open { self.pipe(name).version } else { Version::V3_1_1 };
            let bytes = packets::encode(text, &mut version);
            if open {
                let pipe = self.pipe(name);
                pipe.version = version;
                pipe.up.extend(bytes);
            } else {
                let at = self.open(&bytes, version);
                self.names.insert(name.into(), at);
            }
        }
    }

    /// Breaks the transport of a connection.
    pub fn cut(&mut self, name: &str) {
        let at = self.names[name];
        self.cut_pipe(at);
    }

    pub fn cut_pipe(&mut self, at: usize) {
        if !self.pipes[at].open {
            return;
        }
        let (shard, conn) = (self.pipes[at].shard, self.pipes[at].id);
        self.finish(shard);
        if self.pipes[at].open {
            self.forget(at);
            self.handle(shard, Input::Closed { conn });
        }
    }

    fn forget(&mut self, at: usize) {
        let pipe = &mut self.pipes[at];
        pipe.open = false;
        self.free.push(ConnId { index: pipe.id.index, generation: pipe.id.generation + 1 });
    }

    /// Lets a transport that took no more take `bytes` more (`None`: all from now on).
    pub fn take_more(&mut self, name: &str, bytes: Option<usize>) {
        let at = self.names[name];
        self.pipes[at].takes = bytes;
        let shard = self.pipes[at].shard;
        self.finish(shard);
        if self.pipes[at].open {
            self.write(at);
            self.drain(shard);
        }
    }

    pub fn authenticated(&mut self, name: &str, verdict: Verdict) {
        let (shard, conn) = (self.pipe(name).shard, self.pipe(name).id);
        self.handle(shard, Input::Authenticated { conn, verdict });
        self.settle();
    }

    pub fn configure(&mut self, config: Config) {
        self.config = Arc::new(config);
        for shard in 0..self.shards.len() {
            self.handle(shard, Input::Configured(self.config.clone()));
        }
    }

    pub fn store_failed(&mut self, failed: bool) {
        (0..self.shards.len()).for_each(|shard| self.handle(shard, Input::StoreFailed(failed)));
    }

    pub fn shut_down(&mut self) {
        for shard in 0..self.shards.len() {
            self.handle(shard, Input::Shutdown);
        }
    }

    /// What is counted, over all shards.
    pub fn sum(&self, what: impl Fn(&Counters) -> u64) -> u64 {
        self.shards.iter().map(|s| what(&s.counters())).sum()
    }

    /// Handles one thing that is ready, chosen by the seed or in turn; false if there is none.
    pub fn step(&mut self) -> bool {
        if self.shuffled && self.syncs && self.disk.unsynced() > 0 && self.random.one_in(8) {
            let batches = 1 + self.random.below(self.disk.unsynced());
            self.sync(batches);
            self.steps += 1;
            return true;
        }
        if self.step_without_store() {
            return true;
        }
        let any = self.syncs && self.disk.unsynced() > 0;
        if any {
            self.sync(self.disk.unsynced());
            self.steps += 1;
        }
        any
    }

    fn step_without_store(&mut self) -> bool {
        let count_of_shards = self.shards.len();
        let count = count_of_shards + self.pipes.len();
        let start = if self.shuffled { self.random.below(2 * count) } else { self.turn };
        self.turn = (self.turn + 1) % count;
        for i in 0..count {
            let at = (start + i) % count;
            let shard = if at < count_of_shards { at } else { self.pipes[at - count_of_shards].shard };
            if self.polling[shard] {
                self.poll(shard);
                self.steps += 1;
                return true;
            }
            if at < count_of_shards
                && self.unpolled[at]
                && (self.peers[at].is_empty() || self.random.one_in(2))
            {
                self.drain(at);
                self.steps += 1;
                return true;
            }
            // Twice the chance for the queues between shards, of which there are few.
            if at < self.shards.len() {
                let timeout_first = self.shuffled && self.random.one_in(2);
                if timeout_first && self.time_out(at) || self.hand_over(at) || self.time_out(at) {
                    self.steps += 1;
                    return true;
                }
            } else if self.feed(at - self.shards.len()) {
                self.steps += 1;
                return true;
            }
        }
        false
    }

    /// Hands in what one connection sent.
    pub fn step_pipe(&mut self, name: &str) -> bool {
        let at = self.names[name];
        self.feed(at)
    }

    /// As `step_pipe`, by place.
    pub fn feed_pipe(&mut self, at: usize) -> bool {
        self.feed(at)
    }

    /// Lets the scheduler draw from now on.
    pub fn shuffle(&mut self, seed: u64) {
        self.random = Random::new(seed);
        self.shuffled = true;
    }

    /// Hands in one message of other shards.
    pub fn step_peer(&mut self, shard: usize) -> bool {
        let Some((from, message)) = self.peers[shard].pop_front() else { return false };
        self.handle(shard, Input::Peer { from, message });
        self.unpolled[shard] = false;
        self.polling[shard] = true;
        self.finish(shard);
        true
    }

    /// Hands in what a connection sent, and what shards tell each other; work in slices waits.
    pub fn step_peers_first(&mut self, name: &str) {
        self.step_pipe(name);
        for shard in 0..self.shards.len() {
            self.polling[shard] |= std::mem::take(&mut self.unpolled[shard]);
            self.finish(shard);
            self.step_peer(shard);
        }
    }

    /// One timeout of a shard, if it is due.
    pub fn step_shard(&mut self, shard: usize) -> bool {
        self.time_out(shard)
    }

    fn time_out(&mut self, shard: usize) -> bool {
        let due = !self.polling[shard] && self.wake[shard].is_some_and(|at| at <= self.now);
        if due {
            self.handle(shard, Input::Timeout);
        }
        due
    }

    /// Hands peer messages to a shard: one, or as many as the seed says, before it is polled.
    fn hand_over(&mut self, shard: usize) -> bool {
        if self.peers[shard].is_empty() {
            return false;
        }
        self.finish(shard);
        let most = if self.shuffled { 1 + self.random.below(4) } else { usize::MAX };
        for _ in 0..most {
            let Some((from, message)) = self.peers[shard].pop_front() else { break };
            self.shards[shard].handle(self.now, Input::Peer { from, message });
        }
        self.drain(shard);
        true
    }

    fn feed(&mut self, at: usize) -> bool {
        self.finish(self.pipes[at].shard);
        let pipe = &mut self.pipes[at];
        if !pipe.open || pipe.paused || pipe.up.is_empty() {
            return false;
        }
        let all = pipe.up.make_contiguous();
        let len = if pipe.cuts { 1 + self.random.below(all.len().min(40)) } else { all.len() };
        let bytes = all[..len].to_vec();
        let (shard, conn) = (pipe.shard, pipe.id);
        let used = self.shards[shard].handle(self.now, Input::Received { conn, bytes: &bytes });
        assert!(used <= bytes.len());
        self.pipes[at].up.drain(..used);
        self.drain(shard);
        let pipe = &self.pipes[at];
        let paused = pipe.paused || self.polling[shard] || self.unpolled[shard];
        assert!(used == len || paused || !pipe.open, "bytes are left only when reads are paused");
        true
    }

    /// Polls a shard until it waits, or, when shuffled, lets the scheduler do so in pieces.
    fn drain(&mut self, shard: usize) {
        if self.shuffled && self.random.one_in(2) {
            // More may come in before it is polled.
            self.unpolled[shard] = true;
            return;
        }
        self.unpolled[shard] = false;
        self.polling[shard] = true;
        if !self.shuffled {
            self.finish(shard);
        }
    }

    /// A shard takes nothing in until all of its outputs are out.
    fn finish(&mut self, shard: usize) {
        while self.polling[shard] {
            self.poll(shard);
        }
    }

    /// Takes one input and begins to poll.
    fn handle(&mut self, shard: usize, input: Input<'_>) {
        self.finish(shard);
        self.shards[shard].handle(self.now, input);
        self.drain(shard);
    }

    /// Takes one output.
    fn poll(&mut self, shard: usize) {
        let output = self.shards[shard].poll_output(self.now);
        if self.traced {
            self.trace.push(format!("{shard} {output:?}"));
        }
        match output {
            Output::Timeout(at) => {
                self.wake[shard] = at;
                self.polling[shard] = false;
            }
            Output::Peer { to, message } => {
                assert_ne!(usize::from(to), shard);
                self.peers[usize::from(to)].push_back((shard as u16, message));
            }
            Output::Transmit(id) => {
                if let Some(at) = self.find(shard, id) {
                    self.write(at);
                }
            }
            Output::PauseReads(id) => self.with(shard, id, |p| p.paused = true),
            Output::ResumeReads(id) => self.with(shard, id, |p| p.paused = false),
            Output::Watch { conn, unreachable_s } => self.with(shard, conn, |p| p.watched_s = unreachable_s),
            Output::Authenticate(ask) => self.asked.push(*ask),
            Output::Store { upto, ops } => self.disk.take(shard as u16, upto, ops, self.now),
            Output::Close { conn, last } => {
                if let Some(at) = self.find(shard, conn) {
                    let bytes: Vec<u8> = last.chunks().flatten().copied().collect();
                    let most = self.pipes[at].takes.unwrap_or(usize::MAX).min(bytes.len());
                    self.read(at, &bytes[..most]);
                    self.forget(at);
                    self.pipes[at].news.push("CLOSED".into());
                    self.pipes[at].log.push("CLOSED".into());
                }
            }
        }
    }

    fn find(&self, shard: usize, id: ConnId) -> Option<usize> {
        let at = *self.by_index.get(id.index as usize)?;
        self.pipes.get(at).filter(|p| p.open && p.id == id && p.shard == shard).map(|_| at)
    }

    fn with(&mut self, shard: usize, id: ConnId, f: impl FnOnce(&mut Pipe)) {
        if let Some(at) = self.find(shard, id) {
            f(&mut self.pipes[at]);
        }
    }

    /// The transport takes what it will.
    fn write(&mut self, at: usize) {
        let (shard, id) = (self.pipes[at].shard, self.pipes[at].id);
        let Some(outbox) = self.shards[shard].outbox(id) else { return };
        let bytes: Vec<u8> = outbox.chunks().flatten().copied().collect();
        assert_eq!(bytes.len(), outbox.len());
        let pipe = &mut self.pipes[at];
        let n = bytes.len().min(pipe.takes.unwrap_or(usize::MAX));
        if let Some(left) = &mut pipe.takes {
            *left -= n;
        }
        self.shards[shard].handle(self.now, Input::Written { conn: id, bytes: n });
        self.read(at, &bytes[..n]);
    }

    fn read(&mut self, at: usize, mut bytes: &[u8]) {
        let pipe = &mut self.pipes[at];
        pipe.down.extend_from_slice(bytes);
        loop {
            let step = pipe.framer.next(bytes, u32::MAX).expect("a server sends packets");
            bytes = &bytes[step.used..];
            let Some(frame) = step.frame else { return };
            let text = packets::show(pipe.version, frame);
            if pipe.answers
                && let Some(answer) = packets::answer(pipe.version, frame)
            {
                pipe.up.extend(answer);
            }
            pipe.news.push(text.clone());
            pipe.log.push(text);
        }
    }

    /// Runs until nothing is left to do at this moment.
    pub fn settle(&mut self) {
        let limit = self.steps + 2_000_000;
        while self.step() {
            assert!(self.steps < limit, "it never comes to rest");
        }
    }

    /// Whether there is a moment to which anything is left.
    pub fn awaits_time(&mut self) -> bool {
        self.settle();
        self.wake.iter().any(Option::is_some)
    }

    /// Lets time pass, with everything that falls due.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            self.settle();
            let next = self.wake.iter().flatten().min().copied().filter(|at| *at <= end);
            match next {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
        }
        self.now = end;
        self.settle();
    }

    /// What a connection has read since the last look.
    pub fn news(&mut self, name: &str) -> String {
        self.settle();
        std::mem::take(&mut self.pipe(name).news).join("; ")
    }

    /// Plays a script; see the head of this module.
    pub fn run(&mut self, script: &str) -> &mut Self {
        let mut here = String::new();
        for line in script.lines() {
            let line = line.split(" # ").next().unwrap_or("").trim();
            here.push_str(line);
            here.push('\n');
            if line.is_empty() {
                continue;
            }
            if let Some(time) = line.strip_prefix('+') {
                let time = match time.strip_suffix("ms") {
                    Some(ms) => Duration::from_millis(ms.parse().unwrap()),
                    None => Duration::from_secs(time.strip_suffix('s').unwrap().parse().unwrap()),
                };
                self.advance(time);
            } else if let Some((name, text)) = line.split_once('>') {
                self.send(name.trim(), text);
                self.settle();
            } else if let Some((name, text)) = line.split_once('<') {
                let news = self.news(name.trim());
                assert_eq!(news, text.trim(), "{here}");
            } else if let Some(name) = line.strip_suffix('!') {
                self.cut(name);
                self.settle();
            } else {
                panic!("not a line of a script: {line}");
            }
        }
        for (name, &at) in &self.names {
            let news = &self.pipes[at].news;
            assert!(news.is_empty(), "{name} read more: {:?}\n{here}", &news[..news.len().min(9)]);
        }
        self
    }
}

/// Plays a script for 3.1.1 and for 5.0: `{5}` becomes nothing or `v5`, `{3:x}` stays in 3.1.1 only and
/// `{5:x}` in 5.0 only.
pub fn both(config: &Config, script: &str) {
    for v5 in [false, true] {
        let mut text = script.replace("{5}", if v5 { "v5" } else { "" });
        for (mark, keep) in [("{3:", !v5), ("{5:", v5)] {
            while let Some(at) = text.find(mark) {
                let end = at + text[at..].find('}').expect("a closing brace");
                let inside = if keep { text[at + 3..end].to_string() } else { String::new() };
                text.replace_range(at..=end, &inside);
            }
        }
        let text: Vec<String> = text.lines().map(tidy).collect();
        Rig::new(1, 0, config.clone()).run(&text.join("\n"));
    }
}

/// Single spaces, and none before `;`.
fn tidy(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ;", ";")
}
