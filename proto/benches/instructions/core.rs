//! Shards without IO: a driver that counts nothing but what it calls.

use crate::clients::{Broker, Reading};
use hikyaku_proto::broker::peer::PeerMessage;
use hikyaku_proto::broker::{Config, ConnId, Input, Output, Placement, Shard, ShardId};
use hikyaku_proto::codec::{Connect, Version};
use hikyaku_proto::time::Instant;
use std::collections::VecDeque;
use std::sync::Arc;

const NOW: Instant = Instant::from_secs(1);
/// The hash tables' keys: the same in each run.
const SEED: u64 = 7;

/// Shards, and clients that are connected to them.
pub struct Core {
    shards: Vec<Shard>,
    placement: Placement,
    /// Messages between shards, by receiver.
    mail: Vec<VecDeque<(ShardId, PeerMessage)>>,
    clients: Vec<Client>,
    /// Numbers of clients that have hung up.
    free: Vec<usize>,
    /// Clients that have sent something.
    busy: VecDeque<usize>,
    packets: usize,
}

struct Client {
    conn: ConnId,
    shard: usize,
    version: Version,
    sent: Vec<u8>,
    paused: bool,
    reading: Reading,
}

impl Core {
    pub fn new(shards: u16) -> Core {
        let config = Config { sys_interval_s: 0, ..Config::default() };
        let (config, placement) = (Arc::new(config), Placement::new(SEED, shards));
        let shared = Arc::new(placement.clone());
        let make = |id| Shard::new(id, shards, SEED, config.clone(), shared.clone(), NOW);
        Core {
            shards: (0..shards).map(make).collect(),
            placement,
            mail: (0..shards).map(|_| VecDeque::new()).collect(),
            clients: Vec::new(),
            free: Vec::new(),
            busy: VecDeque::new(),
            packets: 0,
        }
    }

    /// As `new`, with a store that keeps everything at once.
    pub fn kept() -> Core {
        let mut core = Core::new(1);
        core.shards[0].keep_from(1);
        core
    }

    /// Connects a client that reads so many packets, the CONNACK among them.
    pub fn connect_and_read(&mut self, connect: &Connect<'_>, packets: usize) -> usize {
        let at = self.free.pop().unwrap_or(self.clients.len());
        let generation = self.clients.get(at).map_or(0, |client| client.conn.generation + 1);
        let conn = ConnId { index: at as u32, generation };
        let shard = usize::from(self.placement.shard(connect.client_id.as_bytes()));
        let (version, reading) = (connect.version, Reading::default());
        let client = Client { conn, shard, version, sent: Vec::new(), paused: false, reading };
        match self.clients.get_mut(at) {
            Some(place) => *place = client,
            None => self.clients.push(client),
        }
        let input = Input::Opened { conn, listener: 0, peer: None, identity: None, entropy: [0; 16] };
        counted_handle(&mut self.shards[shard], input);
        let mut bytes = Vec::new();
        connect.encode(&mut bytes).unwrap();
        self.send(at, &bytes);
        self.settle(packets);
        at
    }

    /// A shard takes what has come and is polled until it has no more to say. False if nothing had come.
    fn turn(&mut self, shard: usize, woken: bool) -> bool {
        let mut any = woken;
        while let Some((from, message)) = self.mail[shard].pop_front() {
            counted_handle(&mut self.shards[shard], Input::Peer { from, message });
            any = true;
        }
        for _ in 0..self.busy.len() {
            let Some(client) = self.busy.pop_front() else { break };
            if self.clients[client].shard == shard {
                any |= self.hand_in(client);
            } else {
                self.busy.push_back(client);
            }
        }
        if any {
            self.poll(shard);
        }
        any
    }

    fn hand_in(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        if client.paused || client.sent.is_empty() {
            return false;
        }
        let input = Input::Received { conn: client.conn, bytes: &client.sent };
        let used = counted_handle(&mut self.shards[client.shard], input);
        client.sent.drain(..used);
        if !client.sent.is_empty() {
            self.busy.push_back(at);
        }
        true
    }

    fn poll(&mut self, at: usize) {
        loop {
            match counted_poll(&mut self.shards[at]) {
                Output::Transmit(conn) => self.write(at, conn),
                Output::Peer { to, message } => {
                    self.mail[usize::from(to)].push_back((at as ShardId, message))
                }
                Output::Store { upto, ops } => {
                    drop(ops);
                    counted_handle(&mut self.shards[at], Input::Stored { upto });
                }
                Output::PauseReads(conn) => self.clients[conn.index as usize].paused = true,
                Output::ResumeReads(conn) => {
                    self.clients[conn.index as usize].paused = false;
                    self.busy.push_back(conn.index as usize);
                }
                Output::Timeout(Some(due)) if due <= NOW => {
                    counted_handle(&mut self.shards[at], Input::Timeout);
                }
                Output::Timeout(_) => return,
                // A client has said goodbye.
                Output::Close { .. } | Output::Watch { .. } => {}
                output @ Output::Authenticate(_) => panic!("{output:?}"),
            }
        }
    }

    fn write(&mut self, shard: usize, conn: ConnId) {
        let Some(outbox) = self.shards[shard].outbox(conn) else { return };
        let client = &mut self.clients[conn.index as usize];
        let before = (client.reading.packets, client.sent.len());
        for chunk in outbox.chunks() {
            client.reading.take(client.version, chunk, &mut client.sent);
        }
        self.packets += client.reading.packets - before.0;
        if before.1 < client.sent.len() {
            self.busy.push_back(conn.index as usize);
        }
        let bytes = outbox.len();
        counted_handle(&mut self.shards[shard], Input::Written { conn, bytes });
    }
}

impl Broker for Core {
    fn shards(&self) -> usize {
        self.shards.len()
    }

    fn name(&self, prefix: &str, shard: usize) -> String {
        let lives_there = |name: &String| usize::from(self.placement.shard(name.as_bytes())) == shard;
        (0..).map(|n| format!("{prefix}{n}")).find(lives_there).expect("one of many names lives there")
    }

    fn connect(&mut self, connect: &Connect<'_>) -> usize {
        self.connect_and_read(connect, 1)
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].sent.extend_from_slice(bytes);
        self.busy.push_back(client);
    }

    fn settle(&mut self, packets: usize) {
        loop {
            let mut any = false;
            for shard in 0..self.shards.len() {
                any |= self.turn(shard, false);
            }
            if !any {
                break;
            }
        }
        assert_eq!(std::mem::take(&mut self.packets), packets, "clients read another number of packets");
    }

    fn hang_up(&mut self, client: usize) {
        let Client { conn, shard, .. } = self.clients[client];
        counted_handle(&mut self.shards[shard], Input::Closed { conn });
        self.turn(shard, true);
        self.settle(0);
        self.free.push(client);
    }
}

// What is counted is what happens within functions whose names begin with `counted_`.

#[inline(never)]
fn counted_handle(shard: &mut Shard, input: Input<'_>) -> usize {
    shard.handle(NOW, input)
}

#[inline(never)]
fn counted_poll(shard: &mut Shard) -> Output {
    shard.poll_output(NOW)
}
