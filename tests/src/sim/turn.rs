//! A shard's worker at work: what waits goes in, what the shard says is done.

use super::broker::In;
use super::conn::Door;
use super::disk::Told;
use super::plan::MS;
use super::world::{Event, World};
use hikyaku_proto::broker::{ConnId, Home, Input, Output};
use hikyaku_proto::outbox::Outbox;

impl World {
    /// Leaves something for a shard's next turn.
    pub fn hand_in(&mut self, shard: usize, what: In) {
        self.broker.nodes[shard].inbox.push_back(what);
        let pause = self.random.below(self.plan.turn.max(1));
        self.turn_within(shard, self.now + pause);
    }

    fn turn_within(&mut self, shard: usize, at: u64) {
        let run = self.broker.run;
        let node = &mut self.broker.nodes[shard];
        if node.turn_at.is_none_or(|known| known > at) {
            node.turn_at = Some(at);
            self.schedule_at(at, Event::Turn { run, shard });
        }
    }

    pub fn turn(&mut self, shard: usize) {
        let now = self.broker.instant(self.now);
        self.turn_step = self.oracle.step;
        self.broker.nodes[shard].turn_at = None;
        self.hash.add(shard as u64);
        self.broker.tell_limits(shard, now);
        // What comes in during the turn waits for the next one.
        for _ in 0..self.broker.nodes[shard].inbox.len() {
            let Some(what) = self.broker.nodes[shard].inbox.pop_front() else { break };
            let node = &mut self.broker.nodes[shard];
            match what {
                In::Read(conn) => self.hand_bytes_in(conn),
                In::Writable(conn) => {
                    self.conns[conn].full = false;
                    self.write(conn);
                }
                In::Closed(conn) => self.close_at_broker(conn),
                In::Peer(from, message) => {
                    node.shard.handle(now, Input::Peer { from, message });
                }
                In::Stored(upto) => drop(node.shard.handle(now, Input::Stored { upto })),
                In::Loaded(loaded) => drop(node.shard.handle(now, Input::Loaded(loaded))),
                In::StoreFailed(failed) => {
                    node.failing = failed;
                    node.shard.handle(now, Input::StoreFailed(failed));
                }
            }
        }
        let node = &mut self.broker.nodes[shard];
        if node.wake.is_some_and(|at| at <= now) {
            node.shard.handle(now, Input::Timeout);
        }
        self.broker.look_at_memory();
        self.oracle.was_short = self.broker.was_short;
        self.flush(shard);
        self.tap_all(shard);
        self.wake_later(shard);
    }

    fn tap_all(&mut self, shard: usize) {
        for at in 0..self.indexes.len() {
            if let Some(conn) = self.indexes[at].filter(|&conn| self.conns[conn].shard == shard) {
                self.tap(conn);
            }
        }
    }

    fn wake_later(&mut self, shard: usize) {
        let node = &self.broker.nodes[shard];
        let due = match node.wake {
            _ if !node.inbox.is_empty() => self.now,
            Some(at) => self.broker.moment(at).max(self.now),
            None => return,
        };
        let pause = self.random.below(self.plan.turn.max(1));
        self.turn_within(shard, due + 1 + pause);
    }

    /// Does what the shard says, until it has nothing to say.
    fn flush(&mut self, shard: usize) {
        let now = self.broker.instant(self.now);
        loop {
            match self.broker.nodes[shard].shard.poll_output(now) {
                Output::Transmit(id) => {
                    if let Some(conn) = self.conn_of(id) {
                        self.write(conn);
                    }
                }
                Output::PauseReads(id) => {
                    if let Some(conn) = self.conn_of(id) {
                        self.conns[conn].paused = true;
                    }
                }
                Output::ResumeReads(id) => {
                    if let Some(conn) = self.conn_of(id) {
                        self.conns[conn].paused = false;
                        self.oracle.heard(conn, self.now);
                        self.list(conn);
                    }
                }
                // Here the transport always tells.
                Output::Watch { .. } => {}
                Output::Close { conn, last } => {
                    if let Some(conn) = self.conn_of(conn) {
                        self.close_by_broker(conn, &last);
                    }
                }
                Output::Authenticate(_) => panic!("nobody is to be asked who they are"),
                Output::Peer { to, message } => {
                    assert_ne!(usize::from(to), shard, "a message of a shard to itself");
                    let (run, to) = (self.broker.run, usize::from(to));
                    let pause = self.random.below(self.plan.peer);
                    let earliest = self.now + pause;
                    // Each worker has one letterbox: it takes what was posted first, first, whoever posted it.
                    let letterbox = &mut self.broker.nodes[to].letters;
                    let at = letterbox.back().map_or(earliest, |(at, ..)| earliest.max(*at));
                    letterbox.push_back((at, shard as u16, message));
                    self.tally.peer_messages += 1;
                    self.schedule_at(at, Event::Peer { run, to });
                }
                Output::Store { upto, ops } => {
                    self.tally.records += ops.len() as u64;
                    self.note(|_| format!("shard {shard} stores up to {upto}: {ops:?}"));
                    let clock = self.broker.clock(self.now);
                    self.broker.disk.take(shard as u16, upto, ops, clock, self.turn_step);
                    self.sync_later();
                }
                Output::Timeout(wake) => {
                    self.broker.nodes[shard].wake = wake;
                    return;
                }
            }
        }
    }

    fn sync_later(&mut self) {
        if !self.sync_due && !self.broker.failing {
            self.sync_due = true;
            let (run, pause) = (self.broker.run, self.random.below(self.plan.sync));
            self.schedule(pause, Event::Sync { run });
        }
    }

    /// The store has written some of what it was given, and says so.
    pub fn sync(&mut self) {
        if self.broker.failing {
            return;
        }
        let all = self.broker.disk.unsynced();
        let count = if self.random.chance(500) { all } else { self.random.within(0, all as u64) as usize };
        for told in self.broker.disk.sync(count) {
            match told {
                Told::Stored(shard, upto) => self.hand_in(shard.into(), In::Stored(upto)),
                Told::Loaded(shard, loaded) => self.hand_in(shard.into(), In::Loaded(loaded)),
            }
        }
        if self.broker.disk.unsynced() > 0 {
            self.sync_later();
        }
    }

    pub fn store_recovers(&mut self) {
        if self.broker.failing && self.broker.is_up() {
            self.note(|_| "the store works again".into());
            self.broker.failing = false;
            for shard in 0..self.broker.nodes.len() {
                self.hand_in(shard, In::StoreFailed(false));
            }
            self.sync_later();
        }
    }

    fn conn_of(&self, id: ConnId) -> Option<usize> {
        let conn = (*self.indexes.get(id.index as usize)?)?;
        (self.conns[conn].id == id && self.conns[conn].door == Door::Open).then_some(conn)
    }

    /// Bytes of a client arrive.
    pub fn bytes_arrive_up(&mut self, conn: usize) {
        let until = self.conns[conn].frozen_until;
        if until > self.now {
            return self.schedule_at(until, Event::Up(conn));
        }
        let Some(bytes) = self.conns[conn].up.receive(self.now) else { return };
        if self.conns[conn].run != self.broker.run || !self.broker.is_up() {
            return;
        }
        self.conns[conn].inbox.extend_from_slice(&bytes);
        match self.conns[conn].door {
            Door::Waiting => self.find_home(conn),
            Door::Open => self.list(conn),
            Door::Gone => self.conns[conn].inbox.clear(),
        }
    }

    /// Which shard a connection belongs to, says its CONNECT.
    fn find_home(&mut self, conn: usize) {
        let entropy = [conn as u8; 16];
        let config = self.broker.config.clone();
        let home = config.home(&self.broker.placement, 0, None, &entropy, &self.conns[conn].inbox);
        let shard = match home {
            Home::Incomplete => return,
            Home::Any => panic!("a client's CONNECT is not one"),
            Home::At(shard) => usize::from(shard),
        };
        let index = match self.indexes.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.indexes.push(None);
                self.indexes.len() - 1
            }
        };
        self.indexes[index] = Some(conn);
        let id = ConnId { index: index as u32, generation: conn as u32 };
        let it = &mut self.conns[conn];
        (it.shard, it.id, it.door) = (shard, id, Door::Open);
        let now = self.broker.instant(self.now);
        let opened = Input::Opened { conn: id, listener: 0, peer: None, identity: None, entropy };
        self.broker.nodes[shard].shard.handle(now, opened);
        self.oracle.opened(conn, self.now);
        self.list(conn);
    }

    /// A connection is read in the next turn.
    fn list(&mut self, conn: usize) {
        let it = &mut self.conns[conn];
        if !it.listed && !it.inbox.is_empty() && !it.paused {
            it.listed = true;
            let shard = it.shard;
            self.hand_in(shard, In::Read(conn));
        }
    }

    fn hand_bytes_in(&mut self, conn: usize) {
        let it = &mut self.conns[conn];
        it.listed = false;
        if it.paused || it.door != Door::Open {
            return;
        }
        let (id, shard) = (it.id, it.shard);
        // The oracle has to know at once what session a CONNECT gets, and who loses it.
        let comes = !std::mem::replace(&mut it.greeted, true);
        if comes {
            self.flush(shard);
            self.tap_all(shard);
        }
        let mut bytes = std::mem::take(&mut self.conns[conn].inbox);
        let mut rest = Vec::new();
        if self.broker.memory.is_some() {
            // One packet at a time: the last one is then the one that was too much.
            rest = bytes.split_off(self.conns[conn].from_client.first_packet(&bytes));
        }
        let now = self.broker.instant(self.now);
        let used = self.broker.nodes[shard].shard.handle(now, Input::Received { conn: id, bytes: &bytes });
        assert!(used <= bytes.len(), "more bytes used than there were");
        let it = &mut self.conns[conn];
        it.inbox = [&bytes[used..], &rest].concat();
        it.up.held = it.up.held.saturating_sub(used);
        it.paused |= used < bytes.len();
        self.hash.add_bytes(&bytes[..used]);
        let closed = self.broker.nodes[shard].shard.outbox(id).is_none();
        let mut packets = match self.conns[conn].from_client.feed(&bytes[..used]) {
            Ok(packets) => packets,
            Err(error) => panic!("client {}: {error}", self.conns[conn].actor),
        };
        self.broker.look_at_memory();
        self.oracle.was_short = self.broker.was_short;
        let refuses = closed && (self.broker.nodes[shard].failing || self.broker.was_short);
        if refuses && let Some(last) = packets.iter().position(|packet| self.oracle.ends_link(conn, packet)) {
            // It has not looked at what follows.
            packets.truncate(last);
        }
        for packet in packets {
            self.note(|w| format!("{} {conn}> {}", w.name_of(conn), super::show(&packet)));
            self.oracle.up(conn, &packet, self.now);
        }
        if comes {
            self.tap(conn);
        }
        // Or why it was closed, before what comes of that is seen elsewhere.
        if comes || closed {
            self.flush(shard);
        }
        if !rest.is_empty() {
            self.list(conn);
        }
        let actor = self.conns[conn].actor;
        if self.actors[actor].conn == Some(conn) {
            self.flush_client(actor);
        }
    }

    /// Shows the oracle what was put into an outbox.
    fn tap(&mut self, conn: usize) {
        let it = &self.conns[conn];
        if it.door != Door::Open {
            return;
        }
        let (shard, id, tapped) = (it.shard, it.id, it.tapped);
        let Some(outbox) = self.broker.nodes[shard].shard.outbox(id) else { return };
        if outbox.len() == tapped {
            return;
        }
        let bytes: Vec<u8> = outbox.chunks().flatten().skip(tapped).copied().collect();
        self.conns[conn].tapped += bytes.len();
        self.show_oracle(conn, &bytes);
    }

    fn show_oracle(&mut self, conn: usize, bytes: &[u8]) {
        self.hash.add_bytes(bytes);
        let packets = match self.conns[conn].from_broker.feed(bytes) {
            Ok(packets) => packets,
            Err(error) => panic!("the broker to {}: {error}", self.name_of(conn)),
        };
        for packet in packets {
            self.note(|w| format!("{} {conn}< {}", w.name_of(conn), super::show(&packet)));
            self.tally.down(&packet);
            self.oracle.down(conn, &packet, self.now);
        }
    }

    pub fn name_of(&self, conn: usize) -> &str {
        &self.actors[self.conns[conn].actor].client_id
    }

    /// The transport takes what it can.
    fn write(&mut self, conn: usize) {
        self.tap(conn);
        let it = &mut self.conns[conn];
        if it.door != Door::Open {
            return;
        }
        let (shard, id) = (it.shard, it.id);
        let room = if it.full { 0 } else { it.down.room(self.plan.capacity) };
        let Some(outbox) = self.broker.nodes[shard].shard.outbox(id) else { return };
        let all = outbox.len();
        let bytes: Vec<u8> = outbox.chunks().flatten().take(room).copied().collect();
        let now = self.broker.instant(self.now);
        self.broker.nodes[shard].shard.handle(now, Input::Written { conn: id, bytes: bytes.len() });
        self.conns[conn].tapped -= bytes.len();
        self.conns[conn].full = bytes.len() < all;
        if self.conns[conn].full {
            self.oracle.blocked(conn);
        }
        self.send_down(conn, &bytes);
    }

    fn send_down(&mut self, conn: usize, bytes: &[u8]) {
        let (latency, fragments) = (self.plan.latency, self.plan.fragments);
        let arrivals = self.conns[conn].down.send(self.now, bytes, latency, fragments, &mut self.random);
        for at in arrivals {
            self.schedule_at(at, Event::Down(conn));
        }
    }

    fn close_by_broker(&mut self, conn: usize, last: &Outbox) {
        let bytes: Vec<u8> = last.chunks().flatten().copied().collect();
        let tapped = self.conns[conn].tapped.min(bytes.len());
        self.show_oracle(conn, &bytes[tapped..]);
        let dropped = bytes.len() < self.conns[conn].tapped;
        self.note(|w| format!("{} {conn} is closed by the broker", w.name_of(conn)));
        self.oracle.closed_by_broker(conn, self.now, dropped);
        let room = self.conns[conn].down.room(self.plan.capacity);
        self.send_down(conn, &bytes[..room.min(bytes.len())]);
        self.gone(conn);
        let latency = self.random.below(self.plan.latency);
        let at = self.conns[conn].down.arrival(self.now, latency);
        if !self.conns[conn].down.dead {
            self.schedule_at(at, Event::DownEnd(conn));
        }
    }

    fn gone(&mut self, conn: usize) {
        let it = &mut self.conns[conn];
        if it.door == Door::Open {
            self.indexes[it.id.index as usize] = None;
        }
        it.door = Door::Gone;
        it.inbox.clear();
    }

    /// The transport of a connection is gone, as the broker sees it.
    fn close_at_broker(&mut self, conn: usize) {
        if self.conns[conn].door == Door::Open {
            let (shard, id) = (self.conns[conn].shard, self.conns[conn].id);
            if self.broker.nodes[shard].shard.outbox(id).is_none() {
                // The broker has closed it before, and is about to say so.
                return;
            }
            self.note(|w| format!("{} {conn} is gone", w.name_of(conn)));
            self.tap(conn);
            let now = self.broker.instant(self.now);
            self.broker.nodes[shard].shard.handle(now, Input::Closed { conn: id });
            self.oracle.lost(conn, self.now);
        }
        self.gone(conn);
    }

    pub fn end_arrives_up(&mut self, conn: usize) {
        let until = self.conns[conn].frozen_until;
        if until > self.now {
            return self.schedule_at(until, Event::UpEnd(conn));
        }
        if self.conns[conn].run != self.broker.run || !self.broker.is_up() {
            return;
        }
        match self.conns[conn].door {
            Door::Waiting => self.conns[conn].door = Door::Gone,
            Door::Open if !self.conns[conn].inbox.is_empty() && self.conns[conn].paused => {
                // A transport's end is seen when all before it was read.
                self.schedule(50 * MS, Event::UpEnd(conn));
            }
            Door::Open => {
                let shard = self.conns[conn].shard;
                self.hand_in(shard, In::Closed(conn));
            }
            Door::Gone => {}
        }
    }
}
