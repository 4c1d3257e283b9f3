//! A broker as shards: pure state machines with one door in and one door out.
//!
//! A [`Shard`] owns the sessions whose client ids hash to it, the retained messages whose topics do, and the
//! shared subscriptions whose filters do ([`Placement`]). Client ids live on one shard only, so takeover, wills,
//! expiry and everything in flight of a client are decided by one single-threaded machine. What concerns
//! others goes out as [`Output::Peer`] and comes in as [`Input::Peer`].
//!
//! # Driving a shard
//!
//! Hand in as many [`Input`]s as there are ([`Shard::handle`]), then poll [`Shard::poll_output`] until it says
//! [`Output::Timeout`], then wait for the next input or that moment. A burst of publishes to one
//! subscriber is then one write: bytes pile up in its [`Outbox`], and [`Output::Transmit`] comes once.
//!
//! # Order of what leaves for peers
//!
//! When the driver polls, first all retained messages of the turn leave, to whichever shard, then the other peer
//! messages, then acknowledgements ([`peer`]). A subscriber's shard asks for retained messages only
//! after every peer has acknowledged its interest. So it either sees a new value live or finds it stored:
//! the last value is never lost.

mod ack;
mod blocks;
mod brake;
#[doc(hidden)]
pub mod check;
mod config;
mod conn;
mod connect;
mod denial;
mod exchange;
mod fan;
mod interest;
mod io;
mod limits;
mod memory;
mod mount;
pub mod peer;
mod publish;
mod rate;
mod replay;
pub mod rights;
mod session;
mod share;
pub mod store;
mod subscribe;
mod sweep;
mod sys;
mod timer;

pub use config::{Authentication, Config, Home, Listener, Placement, SLOTS};
pub use io::{
    AUTH_ROUNDS_MAX, AuthStep, Authenticate, ConnId, Holdings, Input, Output, Revoked, SHARDS_MAX, ShardId,
    Verdict,
};
pub use limits::{AcceptedVersions, ListenerLimits};
pub use sys::{Counters, Dropped, Refused};

use crate::message::{Message, MessageId};
use crate::outbox::{Outbox, Pool};
use crate::table::{HashKey, Index, Slab};
use crate::time::Instant;
use crate::topic::trie::{Scratch, Trie};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use blocks::Blocks;
use conn::{Conn, Pause, conn_at};
use fan::Fan;
use interest::Interest;
use peer::{Peer, PeerMessage};
use publish::{Route, Subscription};
use session::Session;
use timer::{Timer, Timers};

/// One shard of a broker.
pub struct Shard {
    id: ShardId,
    shards: u16,
    config: Arc<Config>,
    placement: Arc<Placement>,
    hash: HashKey,
    now: Instant,
    started: Instant,

    conns: Vec<Option<Conn>>,
    sessions: Slab<Session>,
    session_index: Index,
    last_serial: u32,
    brake: brake::Brake,
    elsewhere: Holdings,
    memory: memory::Memory,

    subscriptions: Trie<Subscription>,
    groups: share::Groups,
    interest: Interest,
    retained: replay::Retained,
    replays: Slab<replay::Replay>,
    waiting: Slab<subscribe::Waiting>,
    /// Those that wait for a gate, in the order of gates.
    waiting_gates: VecDeque<(u64, u32)>,
    /// Those that wait for their own records, in the order of these.
    waiting_records: VecDeque<(u64, u32)>,
    /// How much matching and delivering the input at hand has caused.
    effort: usize,

    peers: Vec<Peer>,
    barriers: VecDeque<peer::Barrier>,
    /// The last gate given out, and the last one that opened.
    gate: u64,
    opened: u64,
    /// Whether `gate` was given out this turn and still collects.
    gate_used: bool,
    /// The last gate before which all peers have handled what was sent to them, kept or not.
    heard: u64,
    /// The gate behind the last interest told.
    interest_gate: u64,
    credit_wait: bool,
    /// Connections with acknowledgements that wait for a gate.
    gated: Vec<ConnId>,

    timers: Timers,
    work: VecDeque<Work>,
    outputs: VecDeque<Output>,
    dirty: VecDeque<ConnId>,
    pool: Pool,

    keeper: store::Keeper,
    counters: Counters,
    reports: sys::Reports,
    /// When [`Timer::Sys`] fires.
    sys_at: Instant,
    message_count: u64,

    scratch: Scratch,
    blocks: Blocks,
    /// Room for the properties that travel with one.
    properties: Vec<u8>,
    marks: publish::Marks,
    route: Option<Arc<Route>>,
    /// Counts configurations: what was queued under an earlier one is looked at again.
    epoch: u32,
    denials: denial::Denials,
}

/// Something begun whose rest waits for its turn, so that others get theirs.
#[derive(Debug)]
enum Work {
    /// A message on its way to many receivers.
    Fan(Fan),
    /// Retained messages for one of this shard's subscribers.
    Replay(u32),
    /// Retained messages for a subscriber of another shard.
    Serve(u32),
    /// Retained messages that have expired, to be removed.
    Sweep,
    /// Messages of a peer that came during a fan-out for it.
    Backlog(ShardId),
    /// The rest of what a connection sent, which has caused much work already.
    Resume(ConnId),
}

/// How many receivers or retained messages one step of [`Work`] handles.
const SLICE: usize = 4096;
/// How many of more receivers one slice serves: most take a write each, before others are read.
const FAN_SLICE: usize = 256;
/// How many subscriptions matched and receivers served one call of [`Input::Received`] may cause, about.
const EFFORT: usize = 32_768;
/// How much of it a filter costs that is subscribed to or not any more: other shards hear of it, and maybe the store.
const FILTER_EFFORT: usize = 256;
/// How many steps of work one [`Input::Timeout`] does.
const STEPS: usize = 4;

impl Shard {
    /// A shard without connections. All shards of a broker are made with the same `shards` and
    /// `placement`; `seed` keys the hash tables and nothing else.
    pub fn new(
        id: ShardId,
        shards: u16,
        seed: u64,
        config: Arc<Config>,
        placement: Arc<Placement>,
        now: Instant,
    ) -> Shard {
        let hash = HashKey::new(seed);
        let shards = shards.clamp(1, SHARDS_MAX);
        let mut timers = Timers::default();
        let mut sys_at = Instant::NEVER;
        if config.sys_interval_s > 0 {
            timers.arm(&mut sys_at, now, Timer::Sys);
        }
        Shard {
            id,
            shards,
            hash,
            now,
            started: now,
            conns: Vec::new(),
            sessions: Slab::new(),
            session_index: Index::new(),
            last_serial: 0,
            brake: brake::Brake::default(),
            elsewhere: Holdings::default(),
            memory: memory::Memory::default(),
            subscriptions: Trie::new(hash),
            groups: share::Groups::default(),
            interest: Interest::new(placement.key()),
            retained: replay::Retained::new(hash),
            replays: Slab::new(),
            waiting: Slab::new(),
            waiting_gates: VecDeque::new(),
            waiting_records: VecDeque::new(),
            effort: 0,
            peers: (0..shards).map(|_| Peer::default()).collect(),
            barriers: VecDeque::new(),
            gate: 0,
            opened: 0,
            gate_used: false,
            heard: 0,
            interest_gate: 0,
            credit_wait: false,
            gated: Vec::new(),
            timers,
            work: VecDeque::new(),
            outputs: VecDeque::new(),
            dirty: VecDeque::new(),
            pool: Pool::default(),
            keeper: store::Keeper::default(),
            counters: Counters::default(),
            reports: sys::Reports::default(),
            sys_at,
            message_count: 0,
            scratch: Scratch::default(),
            blocks: Blocks::default(),
            properties: Vec::new(),
            marks: publish::Marks::default(),
            route: None,
            epoch: 0,
            denials: denial::Denials::default(),
            config,
            placement,
        }
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Takes one thing that happened. Returns how many bytes of [`Input::Received`] were used, 0 otherwise.
    /// `now` never goes back; a smaller value counts as the last one.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> usize {
        self.now = self.now.max(now);
        self.effort = 0;
        match input {
            Input::Received { conn, bytes } => return self.on_received(conn, bytes),
            Input::Written { conn, bytes } => self.on_written(conn, bytes),
            Input::Opened { conn, listener, peer, identity, entropy } => {
                self.on_opened(conn, listener, peer, identity, entropy);
            }
            Input::Closed { conn } => self.close(conn, conn::Cause::Transport),
            Input::Authenticated { conn, verdict } => self.on_authenticated(conn, verdict),
            Input::Publish { message } => self.publish_from_within(&message),
            Input::Peer { from, message } => self.on_peer(from, message),
            Input::Elsewhere(others) => self.elsewhere = others,
            Input::Memory(most) => self.on_memory(most),
            Input::TurnedAway(connections) => {
                self.counters.refused[Refused::Connection as usize] += connections;
            }
            Input::Stored { upto } => self.on_stored(upto),
            Input::StoreFailed(failed) => self.on_store_failed(failed),
            Input::Loaded(loaded) => self.on_loaded(loaded),
            Input::Restore(op) => self.restore(op),
            Input::Redeliver { message, share, to, shards } => {
                self.redeliver(&message, share.as_deref(), to, shards);
            }
            Input::Configured(config) => self.on_configured(config),
            Input::Revoked(revoked) => self.on_revoked(&revoked),
            Input::Shutdown => self.on_shutdown(),
            Input::Timeout => {
                self.on_timeout();
                self.do_work();
            }
        }
        0
    }

    /// What is to be done next; [`Output::Timeout`] when nothing is.
    pub fn poll_output(&mut self, now: Instant) -> Output {
        self.now = self.now.max(now);
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            if self.flush_turn() {
                continue;
            }
            let opened = self.opened;
            while let Some(id) = self.dirty.pop_front() {
                let Shard { conns, memory, .. } = self;
                if let Some(conn) = conn_at(conns, id) {
                    conn.dirty = false;
                    if conn.blocked {
                        conn.count(memory);
                    } else if !conn.link.outbox.is_empty() && conn.held <= opened {
                        return Output::Transmit(id);
                    }
                }
            }
            let at = if self.work.is_empty() { self.timers.next() } else { Some(self.now) };
            return Output::Timeout(at);
        }
    }

    /// How many connections wait for an [`Output::Transmit`].
    pub fn unsent(&self) -> usize {
        self.dirty.len()
    }

    /// What is to be written to a connection, after [`Output::Transmit`]. The shard takes out what
    /// [`Input::Written`] says was written.
    pub fn outbox(&mut self, conn: ConnId) -> Option<&Outbox> {
        self.conn(conn).map(|c| &c.link.outbox)
    }

    fn on_configured(&mut self, config: Arc<Config>) {
        if self.config.sys_interval_s == 0 && config.sys_interval_s > 0 {
            self.timers.arm(&mut self.sys_at, self.now, Timer::Sys);
        }
        self.config = config;
        self.ease();
        // What was decided under the old rights is decided anew.
        self.epoch = self.epoch.wrapping_add(1);
        self.forget_routes();
    }

    /// Everyone's rights are asked again.
    fn forget_routes(&mut self) {
        self.conns.iter_mut().flatten().for_each(|c| c.route = None);
        self.route = None;
    }

    fn on_shutdown(&mut self) {
        for id in self.conn_ids() {
            self.close(id, conn::Cause::Operator);
        }
    }

    fn on_timeout(&mut self) {
        while let Some((at, timer)) = self.timers.due(self.now) {
            match timer {
                Timer::Alive(conn) => self.on_alive_timer(at, conn),
                Timer::Stalled(conn) => self.on_stalled_timer(at, conn),
                Timer::Session(session) => self.on_session_timer(at, session),
                Timer::Sys => self.on_sys_timer(at),
                Timer::Denials => self.on_denials_timer(at),
                Timer::Sweep => self.on_sweep_timer(at),
                Timer::Rate(conn) => self.on_rate_timer(at, conn),
            }
        }
    }

    fn do_work(&mut self) {
        for _ in 0..STEPS {
            let Some(work) = self.work.pop_front() else { return };
            match work {
                // Its receivers are written to now, before others are served.
                Work::Fan(fan) => return self.continue_fan(fan),
                Work::Replay(replay) => self.run_replay(replay),
                Work::Serve(serve) => self.continue_serve(serve),
                Work::Sweep => self.continue_sweep(),
                Work::Backlog(from) => self.continue_backlog(from),
                Work::Resume(conn) => self.resume(conn, Pause::Turn),
            }
        }
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        conn_at(&mut self.conns, id)
    }

    /// Everyone connected, in the order of places.
    fn conn_ids(&self) -> Vec<ConnId> {
        (0..).zip(&self.conns).filter_map(|(i, c)| Some(c.as_ref()?.id(i))).collect()
    }

    fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = conn_at(&mut self.conns, id) {
            conn.mark_dirty(id, &mut self.dirty);
        }
    }

    /// A new name for a message that enters here.
    fn next_message_id(&mut self) -> MessageId {
        self.message_count += 1;
        MessageId { origin: self.id, count: self.message_count }
    }

    fn pause(&mut self, id: ConnId, why: Pause) {
        if let Some(conn) = self.conn(id) {
            let before = conn.paused;
            conn.paused |= why as u16;
            if before == 0 {
                self.outputs.push_back(Output::PauseReads(id));
            }
        }
    }

    fn resume(&mut self, id: ConnId, why: Pause) {
        let now = self.now;
        if let Some(conn) = self.conn(id)
            && conn.paused & why as u16 != 0
        {
            conn.paused &= !(why as u16);
            if conn.paused == 0 {
                // The keep alive stands still while we do not read.
                conn.link.received_at = now;
                self.outputs.push_back(Output::ResumeReads(id));
            }
        }
    }

    fn send_to_peer(&mut self, to: ShardId, message: PeerMessage) {
        if let Some(peer) = self.peers.get_mut(usize::from(to)) {
            let queue = if message.is_retain() { &mut peer.retain } else { &mut peer.others };
            queue.push(message);
        }
    }

    fn send_to_all_peers(&mut self, message: &PeerMessage) {
        for to in 0..self.shards {
            if to != self.id {
                self.send_to_peer(to, message.clone());
            }
        }
    }

    /// A message in the form it is kept in.
    fn keep(&mut self, publication: &crate::message::Publication<'_>) -> Message {
        self.blocks.keep(publication, None)
    }
}
