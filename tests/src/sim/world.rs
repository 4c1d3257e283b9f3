//! One clock, one heap of events, and everything that happens in order.

use super::actor::Actor;
use super::broker::{Broker, In};
use super::conn::Conn;
use super::oracle::Oracle;
use super::plan::{Fault, MS, Plan, SECOND};
use super::random::{Hash, Random};
use super::tally::Tally;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A shard's worker wakes up.
    Turn {
        run: u32,
        shard: usize,
    },
    /// Bytes arrive at the broker.
    Up(usize),
    /// Bytes arrive at the client.
    Down(usize),
    /// The end of a connection arrives at the broker.
    UpEnd(usize),
    /// The end of a connection arrives at the client.
    DownEnd(usize),
    /// A client reads again.
    Read(usize),
    /// A message between shards arrives.
    Peer {
        run: u32,
        to: usize,
    },
    /// The store writes what it has.
    Sync {
        run: u32,
    },
    ClientTimer(usize),
    /// A client does something.
    Act(usize),
    /// An application acknowledges what it got first.
    Acknowledge(usize),
    Connect(usize),
    /// A client gives a connection up without a word.
    Vanish(usize),
    Fault(Fault),
    Restart,
    StoreRecovers {
        run: u32,
    },
    /// The oracle looks at what should have happened by now.
    Tick,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(crate) struct World {
    pub now: u64,
    scheduled: u64,
    heap: BinaryHeap<Reverse<Entry>>,
    pub random: Random,
    pub plan: Plan,
    pub broker: Broker,
    pub conns: Vec<Conn>,
    pub actors: Vec<Actor>,
    pub oracle: Oracle,
    /// Which connection uses an index.
    pub indexes: Vec<Option<usize>>,
    pub hash: Hash,
    pub tally: Tally,
    /// No more faults.
    pub healed: bool,
    /// The event log, if it is wanted.
    pub lines: Option<Vec<String>>,
    /// Who goes does not come back.
    pub leaving: bool,
    pub sync_due: bool,
    /// The oracle's step before the turn at hand.
    pub turn_step: u64,
    length: Length,
}

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    /// How long the faults last at least, in microseconds.
    span: u64,
    /// How many operations there are at least.
    operations: u64,
}

impl Length {
    /// A seed.
    pub const WHOLE: Length = Length { span: 60 * SECOND, operations: 500 };
    /// As much as a fuzzer has time for.
    pub const SHORT: Length = Length { span: 4 * SECOND, operations: 20 };
}

/// How long everything may take to come to rest after the last fault.
const PATIENCE: u64 = 400 * SECOND;

impl World {
    pub fn new(mut random: Random, length: Length, verbose: bool) -> World {
        let mut plan = Plan::new(&mut random);
        plan.hurry(Length::WHOLE.span / length.span);
        let memory = Some(plan.memory).filter(|limit| *limit != u64::MAX);
        let broker = Broker::new(plan.config.clone(), plan.persistent, memory);
        let oracle = Oracle::new(&plan);
        let mut world = World {
            now: 0,
            scheduled: 0,
            heap: BinaryHeap::new(),
            random,
            plan,
            broker,
            conns: Vec::new(),
            actors: Vec::new(),
            oracle,
            indexes: Vec::new(),
            hash: Hash::default(),
            tally: Tally::default(),
            healed: false,
            lines: verbose.then(Vec::new),
            leaving: false,
            sync_due: false,
            turn_step: 0,
            length,
        };
        world.note(|w| format!("{:?}", w.plan));
        world.actors =
            (0..world.plan.clients).map(|at| Actor::new(at, &world.plan, &mut world.random)).collect();
        world
    }

    /// Lets everything happen. Panics when something is not as it should be.
    pub fn run(&mut self) {
        let shards = self.plan.shards;
        self.broker.start(0, shards, 0);
        for actor in 0..self.actors.len() {
            let (connect, act) = (self.random.below(SECOND), self.random.below(2 * SECOND));
            self.schedule(connect, Event::Connect(actor));
            self.schedule(SECOND + act, Event::Act(actor));
        }
        for (fault, mean) in self.plan.faults.clone() {
            let at = self.random.around(mean);
            self.schedule(at, Event::Fault(fault));
        }
        self.schedule(SECOND, Event::Tick);
        while self.now < self.length.span || self.tally.operations < self.length.operations {
            self.step();
        }
        self.heal();
        let patience = self.now + PATIENCE;
        let earliest = self.now + 45 * SECOND;
        while self.now < earliest || self.unrest().is_some() {
            let look = self.now + SECOND / 2;
            while self.now < look {
                self.step();
            }
            if self.now > patience {
                let why = self.unrest().unwrap_or_default();
                panic!("it does not come to rest after the last fault: {why}");
            }
        }
        self.note(|_| "all is quiet".into());
        self.oracle.quiet(self.now);
        self.audit();
        self.farewell();
        self.tally.seeds = 1;
        self.tally.simulated_s = self.now / SECOND;
    }

    /// The next thing happens.
    pub fn step(&mut self) {
        let Some(Reverse(Entry { at, event, .. })) = self.heap.pop() else {
            panic!("nothing will ever happen")
        };
        self.now = self.now.max(at);
        self.hash.add(self.now);
        self.tally.events += 1;
        match event {
            Event::Turn { run, shard } => {
                if run == self.broker.run
                    && self.broker.nodes.get(shard).is_some_and(|n| n.turn_at == Some(at))
                {
                    self.turn(shard);
                }
            }
            Event::Up(conn) => self.bytes_arrive_up(conn),
            Event::Down(conn) => self.bytes_arrive_down(conn),
            Event::UpEnd(conn) => self.end_arrives_up(conn),
            Event::DownEnd(conn) => self.end_arrives_down(conn),
            Event::Read(conn) => self.client_reads(conn),
            Event::Peer { run, to } => {
                if run == self.broker.run
                    && let Some(node) = self.broker.nodes.get_mut(to)
                    && let Some((_, from, message)) = node.letters.pop_front()
                {
                    self.hand_in(to, In::Peer(from, message));
                }
            }
            Event::Sync { run } => {
                self.sync_due = false;
                if run == self.broker.run && self.broker.is_up() {
                    self.sync();
                }
            }
            Event::ClientTimer(actor) => self.client_timer(actor, at),
            Event::Act(actor) => {
                if !self.healed {
                    let pause = self.random.around(self.plan.pace);
                    self.schedule(pause, Event::Act(actor));
                    self.act(actor);
                }
            }
            Event::Acknowledge(actor) => self.acknowledge(actor),
            Event::Connect(actor) => self.connect(actor),
            Event::Vanish(conn) => self.vanish(conn),
            Event::Fault(fault) => {
                if !self.healed {
                    let mean = self.plan.mean(fault).unwrap_or(SECOND);
                    let pause = self.random.around(mean).max(100 * MS);
                    self.schedule(pause, Event::Fault(fault));
                    self.fault(fault);
                }
            }
            Event::Restart => self.restart(),
            Event::StoreRecovers { run } => {
                if run == self.broker.run {
                    self.store_recovers();
                }
            }
            Event::Tick => {
                self.schedule(SECOND, Event::Tick);
                self.oracle.tick(self.now, &self.broker, &self.conns);
            }
        }
    }

    /// Something will happen after a pause.
    pub fn schedule(&mut self, pause: u64, event: Event) {
        self.schedule_at(self.now + pause, event);
    }

    pub fn schedule_at(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.heap.push(Reverse(Entry { at, number: self.scheduled, event }));
    }

    /// Adds a line to the event log, if there is one.
    pub fn note(&mut self, line: impl FnOnce(&World) -> String) {
        if self.lines.is_some() {
            let text = format!("{:>11.6} {}", self.now as f64 / 1e6, line(self));
            if let Some(lines) = &mut self.lines {
                lines.push(text);
            }
        }
    }

    /// Why not all is quiet; `None` if nothing moves any more.
    fn unrest(&self) -> Option<String> {
        if !self.broker.is_up() {
            return Some("the broker is down".into());
        }
        if self.broker.disk.unsynced() > 0 {
            return Some("the disk has writes to sync".into());
        }
        if self.broker.nodes.iter().any(|node| !node.letters.is_empty()) {
            return Some("messages are underway between shards".into());
        }
        let now = self.broker.instant(self.now);
        for node in &self.broker.nodes {
            if node.inbox.len() > 1
                || node.wake.is_some_and(|at| at + std::time::Duration::from_secs(1) < now)
            {
                return Some(format!("shard {} has something to do", node.shard.id()));
            }
            if let Some(what) = node.shard.unfinished() {
                return Some(format!("shard {} is not idle: {what}", node.shard.id()));
            }
        }
        for actor in &self.actors {
            let Some(conn) = actor.conn.map(|at| &self.conns[at]).filter(|_| actor.client.is_connected())
            else {
                return Some(format!("{} is not connected", actor.client_id));
            };
            if actor.client.unfinished() > 0 || !actor.client.outbox().is_empty() || !actor.tokens.is_empty()
            {
                return Some(format!(
                    "{} has {} messages to send",
                    actor.client_id,
                    actor.client.unfinished()
                ));
            }
            // A PINGREQ may be underway.
            if conn.up.held > 2 || conn.down.held > 2 {
                let (inbox, unread) = (conn.inbox.len(), conn.unread.len());
                let (up, down) = (conn.up.held, conn.down.held);
                return Some(format!(
                    "bytes are underway on the connection of {}: up {up} down {down} inbox {inbox} unread {unread} paused {} full {}",
                    actor.client_id, conn.paused, conn.full
                ));
            }
        }
        None
    }
}

impl World {
    /// What was exercised, the oracle's share of it too.
    pub fn whole_tally(&self) -> Tally {
        Tally { wills: self.oracle.wills, owed: self.oracle.owed, ..self.tally.clone() }
    }
}
