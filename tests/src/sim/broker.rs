//! The broker: its shards, what waits for each of them, and its disk.

use super::disk::Disk;
use super::plan::SECOND;
use hikyaku_proto::broker::peer::PeerMessage;
use hikyaku_proto::broker::store::Loaded;
use hikyaku_proto::broker::store::record::Clock;
use hikyaku_proto::broker::{Config, Holdings, Input, Output, Placement, Shard, ShardId};
use hikyaku_proto::time::Instant;
use std::collections::VecDeque;
use std::sync::Arc;

/// Something that waits for a shard's next turn.
pub(crate) enum In {
    /// A connection has bytes.
    Read(usize),
    /// A connection's transport takes more.
    Writable(usize),
    /// A connection's transport is gone.
    Closed(usize),
    Peer(ShardId, PeerMessage),
    Stored(u64),
    Loaded(Loaded),
    StoreFailed(bool),
}

/// A shard and its worker.
pub(crate) struct Node {
    pub shard: Shard,
    pub inbox: VecDeque<In>,
    /// What other shards have posted, with the moment it arrives, and who did.
    pub letters: VecDeque<(u64, ShardId, PeerMessage)>,
    /// When the shard wants to be woken.
    pub wake: Option<Instant>,
    /// When its next turn is.
    pub turn_at: Option<u64>,
    /// Whether it believes that the store fails.
    pub failing: bool,
}

pub(crate) struct Broker {
    pub config: Arc<Config>,
    pub placement: Arc<Placement>,
    /// Empty while the broker is down.
    pub nodes: Vec<Node>,
    pub persistent: bool,
    pub disk: Disk,
    /// Which run of the broker this is.
    pub run: u32,
    /// How many shards the run before had.
    before: u16,
    /// The moment at which the clock of this run stood at [`ORIGIN`].
    started: u64,
    /// How far the wall clock is from where it should be.
    pub wall_offset: i64,
    pub failing: bool,
    /// How many bytes of memory all shards together may hold, if that is limited.
    pub memory: Option<u64>,
    /// Whether any of them has held as much.
    pub was_short: bool,
}

/// How many bytes may be held in the middle of a turn that are not at its end.
const MOMENT: u64 = 4_000;
const ORIGIN: u64 = 1000 * SECOND;
const WALL: i64 = 1_700_000_000_000_000;

impl Broker {
    pub fn new(config: Config, persistent: bool, memory: Option<u64>) -> Broker {
        Broker {
            config: Arc::new(config),
            placement: Arc::new(Placement::new(7, 1)),
            nodes: Vec::new(),
            persistent,
            disk: Disk::default(),
            run: 0,
            before: 0,
            started: 0,
            wall_offset: 0,
            failing: false,
            memory,
            was_short: false,
        }
    }

    pub fn is_up(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// A moment by the clock of this run.
    pub fn instant(&self, now: u64) -> Instant {
        Instant::from_micros(ORIGIN + now - self.started)
    }

    /// The moment of an instant of this run.
    pub fn moment(&self, at: Instant) -> u64 {
        (at.micros() + self.started).saturating_sub(ORIGIN)
    }

    pub fn clock(&self, now: u64) -> Clock {
        let wall_us = (WALL + now as i64 + self.wall_offset) as u64;
        Clock { now: self.instant(now), wall_us }
    }

    /// Makes the shards of a new run and gives them what is on the disk. What they change by that is durable at once.
    pub fn start(&mut self, now: u64, shards: u16, step: u64) {
        self.run += 1;
        self.started = now;
        self.failing = false;
        self.placement = Arc::new(Placement::new(7, shards));
        let at = self.instant(now);
        let make = |id| {
            let seed = 11 + u64::from(id);
            let shard = Shard::new(id, shards, seed, self.config.clone(), self.placement.clone(), at);
            let (inbox, letters) = (VecDeque::new(), VecDeque::new());
            Node { shard, inbox, letters, wake: None, turn_at: None, failing: false }
        };
        self.nodes = (0..shards).map(make).collect();
        if self.persistent {
            let run = self.run;
            self.nodes.iter_mut().for_each(|node| node.shard.keep_from(run));
            let clock = self.clock(now);
            for (home, op) in self.disk.restore(&self.placement, clock) {
                self.nodes[usize::from(home)].shard.handle(at, Input::Restore(op));
            }
            self.settle(now, step);
            for (to, message, share) in self.disk.take_forwards(clock) {
                let owner = share.as_ref().map(|filter| self.placement.shard(filter.as_bytes()));
                let before = self.before;
                for node in &mut self.nodes {
                    if owner.is_none_or(|owner| owner == node.shard.id()) {
                        let (message, share) = (message.clone(), share.clone());
                        node.shard.handle(at, Input::Redeliver { message, share, to, shards: before });
                    }
                }
            }
        }
        self.settle(now, step);
        self.before = shards;
    }

    /// Tells a shard how much of what is limited for all together the others leave it, as its worker does in each turn.
    pub fn tell_limits(&mut self, shard: usize, now: Instant) {
        if self.config.max_retained_messages != u64::MAX {
            let retained = self.retained() - self.nodes[shard].shard.holdings().retained;
            let elsewhere = Holdings { retained, ..Holdings::default() };
            self.nodes[shard].shard.handle(now, Input::Elsewhere(elsewhere));
        }
        if let Some(limit) = self.memory {
            let own = self.nodes[shard].shard.memory();
            let most = limit.saturating_sub(self.held() - own);
            self.nodes[shard].shard.handle(now, Input::Memory(most));
        }
        self.look_at_memory();
    }

    fn held(&self) -> u64 {
        self.nodes.iter().map(|node| node.shard.memory()).sum()
    }

    /// Looks whether all is held that may be, or was for a moment.
    pub fn look_at_memory(&mut self) {
        self.was_short |= self.memory.is_some_and(|limit| self.held().saturating_add(MOMENT) >= limit);
    }

    /// How many messages are retained, as the shards say.
    pub fn retained(&self) -> u64 {
        self.nodes.iter().map(|node| node.shard.holdings().retained).sum()
    }

    /// Carries messages between the shards, and their changes to the disk, until there are no more.
    fn settle(&mut self, now: u64, step: u64) {
        let (at, clock) = (self.instant(now), self.clock(now));
        let mut post = VecDeque::new();
        for _ in 0..10_000 {
            let mut quiet = true;
            for node in &mut self.nodes {
                loop {
                    match node.shard.poll_output(at) {
                        Output::Peer { to, message } => post.push_back((node.shard.id(), to, message)),
                        Output::Store { upto, ops } => {
                            quiet = false;
                            self.disk.take(node.shard.id(), upto, ops, clock, step);
                            for told in self.disk.sync(self.disk.unsynced()) {
                                match told {
                                    super::disk::Told::Stored(_, upto) => {
                                        node.shard.handle(at, Input::Stored { upto });
                                    }
                                    super::disk::Told::Loaded(_, loaded) => {
                                        node.shard.handle(at, Input::Loaded(loaded));
                                    }
                                }
                            }
                        }
                        Output::Timeout(Some(due)) if due <= at => {
                            quiet = false;
                            node.shard.handle(at, Input::Timeout);
                        }
                        Output::Timeout(wake) => {
                            node.wake = wake;
                            break;
                        }
                        _ => {}
                    }
                }
            }
            for (from, to, message) in post.drain(..) {
                quiet = false;
                self.nodes[usize::from(to)].shard.handle(at, Input::Peer { from, message });
            }
            if quiet {
                return;
            }
        }
        panic!("the broker does not come to rest when it starts");
    }

    /// The process dies; so much of a thousand of what was not durable survives.
    pub fn crash(&mut self, per_mille: u64) -> usize {
        self.nodes.clear();
        self.disk.crash(per_mille)
    }
}
