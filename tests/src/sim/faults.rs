//! What goes wrong, and how it ends.

use super::actor::Actor;
use super::broker::In;
use super::plan::{Fault, MS, SECOND};
use super::world::{Event, World};
use hikyaku_proto::client::{Client, Options};
use hikyaku_proto::codec::{Properties, QoS, ReasonCode, SubscribeOptions};
use hikyaku_proto::time::Instant;

impl World {
    pub fn fault(&mut self, fault: Fault) {
        self.note(|_| format!("fault: {fault:?}"));
        let at = self.random.index(self.actors.len());
        let conn = self.actors[at].conn;
        self.tally.faults[fault as usize] += 1;
        match fault {
            Fault::Cut => self.cut(at),
            Fault::Vanish => {
                self.drop_transport(at);
            }
            Fault::Storm => {
                self.actors[at].hurry = self.random.within(2, 12) as u32;
                self.drop_transport(at);
            }
            Fault::Freeze => {
                if let Some(conn) = conn {
                    let pause = self.random.around(4 * SECOND);
                    self.conns[conn].frozen_until = self.now + pause;
                }
            }
            Fault::Stall => {
                if let Some(conn) = conn {
                    let pause = self.random.around(8 * SECOND);
                    self.conns[conn].stalled_until = self.now + pause;
                    self.schedule(pause, Event::Read(conn));
                }
            }
            Fault::Crash => self.crash(),
            Fault::StoreFails => {
                if self.broker.is_up() && self.broker.persistent && !self.broker.failing {
                    self.broker.failing = true;
                    for shard in 0..self.broker.nodes.len() {
                        self.hand_in(shard, In::StoreFailed(true));
                    }
                    self.oracle.store_failed = true;
                    let (run, pause) = (self.broker.run, self.random.around(4 * SECOND));
                    self.schedule(pause, Event::StoreRecovers { run });
                }
            }
            Fault::WallJumps => {
                let far = self.random.chance(200);
                let span = self.random.below(if far { 100_000 * SECOND } else { 30 * SECOND }) as i64;
                let jump = if self.random.chance(500) { span } else { -span };
                self.broker.wall_offset += jump;
                let now = self.now;
                self.oracle.wall_jumps(now, jump);
            }
            Fault::Reborn => self.reborn(at),
        }
    }

    /// A connection breaks. Either side hears of it at its own time.
    fn cut(&mut self, at: usize) {
        let Some(conn) = self.actors[at].conn else { return };
        let it = &mut self.conns[conn];
        it.up.cut(&mut self.random);
        it.down.cut(&mut self.random);
        let latency = self.plan.latency;
        let up = self.random.below(5 * latency);
        let down = self.random.below(5 * latency);
        let up = self.conns[conn].up.arrival(self.now, up);
        let down = self.conns[conn].down.arrival(self.now, down);
        self.schedule_at(up, Event::UpEnd(conn));
        self.schedule_at(down, Event::DownEnd(conn));
        // What either side sends from now on is lost.
        self.conns[conn].up.dead = true;
        self.conns[conn].down.dead = true;
    }

    pub fn vanish_later(&mut self, at: usize, pause: u64) {
        if let Some(conn) = self.actors[at].conn {
            self.schedule(pause, Event::Vanish(conn));
        }
    }

    pub fn vanish(&mut self, conn: usize) {
        let at = self.conns[conn].actor;
        if self.actors[at].conn == Some(conn) && !self.healed {
            self.drop_transport(at);
        }
    }

    fn crash(&mut self) {
        if !self.broker.is_up() {
            return;
        }
        let durable = if self.broker.persistent { self.broker.disk.durable_step() } else { 0 };
        let survives = *self.random.pick(&[0, 1000, 500]);
        let survives = if survives == 500 { self.random.below(1001) } else { survives };
        let written = self.broker.disk.unsynced();
        let whole = self.broker.crash(survives);
        self.note(|_| format!("the broker dies; {whole} of {written} turns survive"));
        self.oracle.crashed(self.now, self.broker.persistent, durable);
        self.indexes.clear();
        self.sync_due = false;
        let run = self.broker.run;
        for conn in 0..self.conns.len() {
            let it = &mut self.conns[conn];
            if it.run == run {
                it.door = super::conn::Door::Gone;
                it.up.kill();
                if it.client_has_it {
                    it.down.cut(&mut self.random);
                    let pause = self.random.below(3 * SECOND);
                    let at = self.conns[conn].down.arrival(self.now, pause);
                    self.schedule_at(at, Event::DownEnd(conn));
                }
            }
        }
        let pause = if self.random.chance(700) { 2 * SECOND } else { 15 * SECOND };
        let pause = MS + self.random.below(pause);
        self.schedule(pause, Event::Restart);
    }

    pub fn restart(&mut self) {
        let shards = if self.random.chance(500) { self.plan.shards } else { self.random.within(1, 4) as u16 };
        self.note(|_| format!("the broker starts with {shards} shards"));
        self.broker.start(self.now, shards, self.oracle.step);
        self.oracle.restarted(self.now);
        for shard in 0..self.broker.nodes.len() {
            // It looks at its timers.
            self.hand_in(shard, In::Stored(0));
        }
    }

    /// All faults end.
    pub fn heal(&mut self) {
        self.note(|_| "all faults end".into());
        self.healed = true;
        let plan = &mut self.plan;
        for span in [&mut plan.sync, &mut plan.latency, &mut plan.peer] {
            *span = (*span).min(10 * MS);
        }
        self.store_recovers();
        // Enough memory for all.
        self.broker.memory = self.broker.memory.map(|_| u64::MAX);
        for actor in &mut self.actors {
            actor.hurry = 0;
        }
        for at in 0..self.actors.len() {
            if self.actors[at].conn.is_none() {
                self.connect_later(at, SECOND);
            }
        }
    }

    /// Somebody new looks at all that is retained.
    pub fn audit(&mut self) {
        let mut actor = Actor::new(0, &self.plan, &mut self.random);
        let version = hikyaku_proto::codec::Version::V5;
        actor.client_id = "audit".into();
        actor.v5 = true;
        actor.forget_will();
        actor.client = Client::new(Options { keep_alive_s: 0, ..Options::new(version, "audit") });
        let at = self.actors.len();
        self.actors.push(actor);
        self.schedule(0, Event::Connect(at));
        self.until("the auditor is let in", |w| w.actors[at].client.is_connected());
        let now = Instant::from_micros(self.now);
        let options = SubscribeOptions::new(QoS::AtMostOnce);
        let sent = self.actors[at].client.subscribe(now, &[("#", options)], Properties::EMPTY);
        assert!(sent.is_ok());
        self.after_client(at);
        let end = self.now + 5 * SECOND;
        self.until("the auditor has seen all", |w| w.now >= end);
        self.oracle.audited(self.now, self.broker.retained());
        self.fill_up(at);
    }

    /// Retains as much as may be: exactly that is there then.
    fn fill_up(&mut self, auditor: usize) {
        let most = self.plan.config.max_retained_messages;
        let there_are = self.broker.retained();
        if most == u64::MAX {
            return;
        }
        let room = most.saturating_sub(there_are);
        for number in 0..room + 2 {
            self.retain(auditor, &format!("audit/{number}"));
            let end = self.now + SECOND;
            self.until("a message is retained", |w| w.now >= end);
        }
        let now_there_are = self.broker.retained();
        assert_eq!(now_there_are, there_are + room, "{there_are} were retained, {most} may be");
    }

    /// Everyone ends their session; nothing but what is retained may be left.
    pub fn farewell(&mut self) {
        self.leaving = true;
        for at in 0..self.actors.len() {
            self.end_session(at);
        }
        self.until("all have left", |w| (0..w.actors.len()).all(|at| w.actors[at].conn.is_none()));
        // No message is retained for more than 30 s that is to expire at all; what that leaves to be written needs a moment.
        let end = self.now + 35 * SECOND;
        self.until("all is over", |w| w.now >= end);
        let counters = |of: fn(&hikyaku_proto::broker::Counters) -> u64, w: &World| {
            w.broker.nodes.iter().map(|node| of(&node.shard.counters())).sum::<u64>()
        };
        assert_eq!(counters(|c| c.clients_total, self), 0, "sessions are left");
        assert_eq!(counters(|c| c.clients_connected, self), 0, "clients are left");
        assert_eq!(counters(|c| c.subscriptions, self), 0, "subscriptions are left");
        assert_eq!(counters(|c| c.shared_subscriptions, self), 0, "shared subscriptions are left");
        for node in &self.broker.nodes {
            let left = node.shard.unfinished();
            assert!(left.is_none(), "shard {} has left: {left:?}", node.shard.id());
        }
        assert_eq!(self.broker.disk.unsynced(), 0, "the disk has writes to sync");
        let left = self.broker.disk.leftovers(self.broker.clock(self.now));
        assert!(left.is_none(), "the disk keeps what is over: {left:?}");
    }

    fn end_session(&mut self, at: usize) {
        self.let_go(at);
        self.oracle.forgets(at);
        let version = self.actors[at].client.options().version;
        let client_id = self.actors[at].client_id.clone();
        self.actors[at].client =
            Client::new(Options { keep_alive_s: 0, ..Options::new(version, &client_id) });
        self.actors[at].forget_will();
        self.schedule(0, Event::Connect(at));
        self.until("a client comes to end its session", |w| w.actors[at].client.is_connected());
        let now = Instant::from_micros(self.now);
        let done = self.actors[at].client.disconnect(now, ReasonCode::Success, Properties::EMPTY);
        assert!(done.is_ok());
        self.after_client(at);
    }

    /// Goes on until something is so.
    fn until(&mut self, what: &str, so: impl Fn(&World) -> bool) {
        let patience = self.now + 100 * SECOND;
        while !so(self) {
            assert!(self.now < patience, "it takes too long until {what}");
            self.step();
        }
    }
}
