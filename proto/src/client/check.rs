//! What must hold between clients and a broker over a transport that loses connections: the body of a fuzz
//! target. The bytes choose everything: versions, limits, what is published, how far each byte travels, when
//! connections break, when acknowledgements are given.

use super::{Acknowledge, By, Client, Dropped, Event, Options, PublishRequest, Received, Ticket};
use crate::broker::peer::PeerMessage;
use crate::broker::{Config, ConnId, Input, Output, Placement, Shard, ShardId};
use crate::codec::{Properties, PropertiesBuf, Property, QoS, ReasonCode, SubscribeOptions, Version};
use crate::time::Instant;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// How many bytes a transport holds each way.
const PIPE: usize = 2000;

/// Panics when two clients and a broker do not keep what QoS promises: 1 at least once, 2 exactly once, both in
/// order, every ticket answered once, and everything drained when the faults end.
pub fn check_pair(data: &[u8]) {
    let mut entropy = data.iter().copied();
    let mut world = World::new(&mut entropy);
    world.begin();
    while let Some(byte) = entropy.next() {
        world.act(usize::from(byte & 1), byte >> 1, &mut entropy);
        world.settle();
    }
    world.heal();
}

struct Conn {
    id: ConnId,
    to_shard: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// The shard wants no more bytes for now.
    paused: bool,
    /// The shard has let go.
    closed: bool,
}

struct End {
    home: usize,
    client: Client,
    conn: Option<Conn>,
    /// Connections the shard does not know to be gone.
    half_open: Vec<ConnId>,
    connections: u32,
    subscribed: bool,
    published: [u32; 3],
    /// Per QoS, the next number not received.
    received: [u32; 3],
    tickets: BTreeMap<Ticket, u8>,
    unacknowledged: Vec<Received>,
}

struct World {
    now: Instant,
    shards: Vec<Shard>,
    peers: VecDeque<(ShardId, ShardId, PeerMessage)>,
    ends: [End; 2],
}

impl World {
    fn new(entropy: &mut impl Iterator<Item = u8>) -> World {
        let mut draw = || entropy.next().unwrap_or(0);
        let now = Instant::from_secs(1);
        let shards = 1 + u16::from(draw() & 1);
        let placement = Arc::new(Placement::new(7, shards));
        let config = Arc::new(Config {
            max_inflight_messages: 1 + u16::from(draw() & 7),
            max_queued_messages: u32::MAX,
            max_queued_bytes: u64::MAX,
            max_topic_alias: u16::from(draw() & 3),
            sys_interval_s: 0,
            ..Config::default()
        });
        let mut end = |number: usize| {
            let version = [Version::V5, Version::V3_1_1, Version::V5, Version::V3_1][usize::from(draw() & 3)];
            // On the other shard, where there is one.
            let id = (0..).map(|i| format!("end{number}-{i}"));
            let id =
                id.filter(|id| usize::from(placement.shard(id.as_bytes())) == number % usize::from(shards));
            let id = id.take(1).next().unwrap_or_default();
            let acknowledge =
                if draw() & 1 == 0 { Acknowledge::Automatically } else { Acknowledge::Manually };
            let options = Options {
                clean_start: false,
                session_expiry_s: u32::MAX,
                receive_maximum: 1 + u16::from(draw() & 7),
                topic_alias_maximum: u16::from(draw() & 3),
                max_inflight: 1 + u16::from(draw() & 7),
                acknowledge,
                ..Options::new(version, &id)
            };
            End {
                home: number % usize::from(shards),
                client: Client::new(options),
                conn: None,
                half_open: Vec::new(),
                connections: 0,
                subscribed: false,
                published: [0; 3],
                received: [0; 3],
                tickets: BTreeMap::new(),
                unacknowledged: Vec::new(),
            }
        };
        let ends = [end(0), end(1)];
        let shards = (0..shards)
            .map(|id| Shard::new(id, shards, u64::from(id), config.clone(), placement.clone(), now))
            .collect();
        World { now, shards, peers: VecDeque::new(), ends }
    }

    /// Both clients connect and subscribe to what the other one publishes.
    fn begin(&mut self) {
        for end in 0..2 {
            self.connect(end);
        }
        self.exchange();
        for end in 0..2 {
            let filter = format!("t/{}/+", 1 - end);
            let options = SubscribeOptions::new(QoS::ExactlyOnce);
            let sent = self.ends[end].client.subscribe(self.now, &[(&filter, options)], Properties::EMPTY);
            assert!(sent.is_ok(), "connected without faults: {sent:?}");
        }
        self.exchange();
        assert!(self.ends.iter().all(|end| end.subscribed));
    }

    fn act(&mut self, end: usize, choice: u8, entropy: &mut impl Iterator<Item = u8>) {
        let mut draw = || entropy.next().unwrap_or(0);
        match choice & 15 {
            0..=3 => self.publish(end, draw()),
            4 | 5 => self.client_writes(end, draw().into()),
            6 | 7 => self.shard_reads(end, draw().into()),
            8 | 9 => self.client_reads(end, draw().into()),
            10 => match draw() {
                fault if fault & 2 == 0 => self.cut(end, fault & 1 == 1),
                _ => self.connect(end),
            },
            11 => self.connect(end),
            12 => self.advance(Duration::from_millis(u64::from(draw()) * 4)),
            13 => self.hand_over(usize::from(draw() & 3)),
            14 => self.acknowledge(end, draw().into()),
            _ => {
                self.client_writes(end, PIPE);
                self.shard_reads(end, PIPE);
                self.settle();
                self.client_reads(end, PIPE);
            }
        }
    }

    fn publish(&mut self, number: usize, choice: u8) {
        let end = &mut self.ends[number];
        let qos = QoS::from_u8(choice & 3).unwrap_or(QoS::ExactlyOnce);
        let count = end.published[qos as usize];
        let mut payload = Vec::from(count.to_be_bytes());
        payload.resize(4 + usize::from(choice >> 2) * if choice & 64 == 0 { 1 } else { 25 }, choice);
        let mut properties = PropertiesBuf::default();
        if choice & 16 != 0 {
            properties.push(Property::UserProperty("name", "value"));
        }
        let topic = format!("t/{number}/{}", qos as u8);
        let request = PublishRequest {
            topic: &topic,
            payload: &payload,
            qos,
            retain: false,
            properties: properties.as_properties(),
        };
        if let Ok(ticket) = end.client.publish(self.now, &request) {
            end.published[qos as usize] += 1;
            if qos != QoS::AtMostOnce {
                assert!(end.tickets.insert(ticket, qos as u8).is_none(), "a ticket was given out twice");
            }
        }
    }

    fn client_writes(&mut self, end: usize, most: usize) {
        let End { client, conn: Some(conn), .. } = &mut self.ends[end] else { return };
        let n = most.min(client.outbox().len()).min(PIPE - conn.to_shard.len().min(PIPE));
        let bytes: Vec<u8> = client.outbox().chunks().flatten().copied().take(n).collect();
        conn.to_shard.extend(bytes);
        client.written(n);
    }

    fn shard_reads(&mut self, end: usize, most: usize) {
        let End { conn: Some(conn), home, .. } = &mut self.ends[end] else { return };
        if conn.paused || conn.closed || most == 0 {
            return;
        }
        let bytes: Vec<u8> = conn.to_shard.iter().copied().take(most).collect();
        let used = self.shards[*home].handle(self.now, Input::Received { conn: conn.id, bytes: &bytes });
        conn.to_shard.drain(..used);
    }

    fn client_reads(&mut self, end: usize, most: usize) {
        let now = self.now;
        let End { client, conn: Some(conn), .. } = &mut self.ends[end] else { return };
        let n = most.min(conn.to_client.len());
        let bytes: Vec<u8> = conn.to_client.drain(..n).collect();
        client.handle_bytes(now, &bytes);
        let gone = conn.closed && conn.to_client.is_empty();
        if gone || client.wants_close() {
            self.cut(end, gone);
        } else {
            self.shard_writes(end);
        }
        self.take_events(end);
    }

    /// What a shard has to say goes as far as the transport takes it.
    fn shard_writes(&mut self, end: usize) {
        let End { conn: Some(conn), home, .. } = &mut self.ends[end] else { return };
        let shard = &mut self.shards[*home];
        let Some(outbox) = shard.outbox(conn.id).filter(|outbox| !outbox.is_empty()) else { return };
        let n = outbox.len().min(PIPE - conn.to_client.len().min(PIPE));
        conn.to_client.extend(outbox.chunks().flatten().take(n));
        shard.handle(self.now, Input::Written { conn: conn.id, bytes: n });
    }

    fn connect(&mut self, number: usize) {
        if self.ends[number].conn.is_some() {
            return;
        }
        while self.ends[number].half_open.len() > 2 {
            let conn = self.ends[number].half_open.remove(0);
            self.shards[self.ends[number].home].handle(self.now, Input::Closed { conn });
        }
        let end = &mut self.ends[number];
        end.connections += 1;
        let mut indexes = number as u32 * 4..;
        let free = indexes.find(|&index| end.half_open.iter().all(|old| old.index != index));
        let id = ConnId { index: free.unwrap_or_default(), generation: end.connections };
        let entropy = [0; 16];
        let opened = Input::Opened { conn: id, listener: 0, peer: None, identity: None, entropy };
        self.shards[end.home].handle(self.now, opened);
        end.conn = Some(Conn {
            id,
            to_shard: VecDeque::new(),
            to_client: VecDeque::new(),
            paused: false,
            closed: false,
        });
        end.client.transport_up(self.now);
        self.take_events(number);
    }

    /// All that is underway is lost; the shard may not notice.
    fn cut(&mut self, number: usize, noticed: bool) {
        let end = &mut self.ends[number];
        let Some(conn) = end.conn.take() else { return };
        end.client.transport_down(self.now);
        if noticed || conn.closed {
            self.shards[end.home].handle(self.now, Input::Closed { conn: conn.id });
        } else {
            end.half_open.push(conn.id);
        }
        self.take_events(number);
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        for number in 0..2 {
            let client = &mut self.ends[number].client;
            if client.poll_timeout().is_some_and(|at| at <= self.now) {
                client.handle_timeout(self.now);
                let left = client.poll_timeout();
                assert!(left.is_none_or(|at| at > self.now), "a timeout is handled once");
            }
            if client.wants_close() {
                self.cut(number, false);
            }
        }
        self.shards.iter_mut().for_each(|shard| {
            shard.handle(self.now, Input::Timeout);
        });
    }

    fn hand_over(&mut self, most: usize) {
        for _ in 0..most {
            let Some((from, to, message)) = self.peers.pop_front() else { return };
            self.shards[usize::from(to)].handle(self.now, Input::Peer { from, message });
        }
    }

    fn acknowledge(&mut self, number: usize, which: usize) {
        let end = &mut self.ends[number];
        if !end.unacknowledged.is_empty() {
            let received = end.unacknowledged.remove(which % end.unacknowledged.len());
            received.token.into_iter().for_each(|token| end.client.acknowledge(self.now, token));
        }
    }

    /// Does what the shards want done.
    fn settle(&mut self) {
        for shard in 0..self.shards.len() {
            loop {
                match self.shards[shard].poll_output(self.now) {
                    Output::Transmit(id) => {
                        if let Some(end) = self.end_of(id) {
                            self.shard_writes(end);
                        } else {
                            self.shards[shard].handle(self.now, Input::Written { conn: id, bytes: 0 });
                        }
                    }
                    Output::PauseReads(id) => self.set_paused(id, true),
                    Output::ResumeReads(id) => self.set_paused(id, false),
                    Output::Watch { .. } => {}
                    Output::Close { conn: id, last } => {
                        if let Some(End { conn: Some(conn), .. }) = self.end_of(id).map(|e| &mut self.ends[e])
                        {
                            conn.to_client.extend(last.chunks().flatten());
                            conn.closed = true;
                        }
                        self.ends.iter_mut().for_each(|end| end.half_open.retain(|&old| old != id));
                    }
                    Output::Authenticate(_) => panic!("nobody is to be asked"),
                    Output::Peer { to, message } => self.peers.push_back((shard as ShardId, to, message)),
                    Output::Store { .. } => unreachable!("nothing is kept"),
                    Output::Timeout(Some(at)) if at <= self.now => {
                        self.shards[shard].handle(self.now, Input::Timeout);
                    }
                    Output::Timeout(_) => break,
                }
            }
        }
    }

    fn end_of(&self, id: ConnId) -> Option<usize> {
        self.ends.iter().position(|end| end.conn.as_ref().is_some_and(|conn| conn.id == id))
    }

    fn set_paused(&mut self, id: ConnId, paused: bool) {
        if let Some(End { conn: Some(conn), .. }) = self.end_of(id).map(|end| &mut self.ends[end]) {
            conn.paused = paused;
        }
    }

    fn take_events(&mut self, number: usize) {
        let end = &mut self.ends[number];
        while let Some(event) = end.client.poll_event() {
            match event {
                Event::Connected(connected) => {
                    let v3_1 = end.client.options().version == Version::V3_1;
                    assert!(connected.session_present == end.subscribed || v3_1, "the session is there");
                }
                Event::Message(received) => end.on_message(received),
                Event::Published { ticket, reason } => {
                    assert!(end.tickets.remove(&ticket).is_some(), "a ticket is answered once");
                    assert!(!reason.is_error(), "{reason}");
                }
                Event::Subscribed { codes, .. } => {
                    assert!(codes.iter().all(|code| !code.is_error()));
                    end.subscribed = true;
                }
                Event::Disconnected { by, .. } => match by {
                    By::Transport | By::Timeout(_) => {}
                    By::Peer(ReasonCode::SessionTakenOver | ReasonCode::KeepAliveTimeout) => {}
                    By::Peer(ReasonCode::QuotaExceeded) => {}
                    other => panic!("end {number}: {other}"),
                },
                Event::Dropped { why: Dropped::ConnectionLost, .. } if !end.subscribed => {}
                other => panic!("end {number}: {other:?}"),
            }
        }
    }

    /// One round without faults; true when something was left to do.
    fn round(&mut self) -> bool {
        let mut busy = !self.peers.is_empty();
        self.hand_over(usize::MAX);
        for number in 0..2 {
            self.connect(number);
            self.client_writes(number, usize::MAX);
            let end = &self.ends[number];
            busy |= !end.client.is_connected() || !end.client.outbox().is_empty();
            busy |= end.conn.as_ref().is_some_and(|c| !c.to_shard.is_empty() || !c.to_client.is_empty());
            self.shard_reads(number, usize::MAX);
            self.settle();
            self.client_reads(number, usize::MAX);
            while !self.ends[number].unacknowledged.is_empty() {
                busy = true;
                self.acknowledge(number, 0);
            }
        }
        self.settle();
        busy || !self.peers.is_empty()
    }

    fn exchange(&mut self) {
        let mut rounds = 0;
        while self.round() {
            rounds += 1;
            assert!(rounds < 100_000, "it does not come to rest");
        }
    }

    /// The faults end: everything must arrive.
    fn heal(&mut self) {
        self.exchange();
        self.exchange();
        for number in 0..2 {
            let (sender, receiver) = (&self.ends[number], &self.ends[1 - number]);
            assert!(sender.tickets.is_empty(), "end {number} waits for {:?}", sender.tickets);
            assert_eq!(sender.client.unfinished(), 0);
            assert_eq!(receiver.received[1], sender.published[1], "QoS 1 from end {number}");
            assert_eq!(receiver.received[2], sender.published[2], "QoS 2 from end {number}");
        }
    }
}

impl End {
    fn on_message(&mut self, received: Received) {
        let qos = received.qos();
        let count = received.payload().first_chunk().map(|b| u32::from_be_bytes(*b));
        let count = count.expect("every payload begins with its number");
        let next = &mut self.received[qos as usize];
        match qos {
            QoS::AtMostOnce => assert!(count >= *next, "QoS 0 overtakes"),
            QoS::AtLeastOnce => assert!(count <= *next, "QoS 1: {count} comes before {next}"),
            QoS::ExactlyOnce => assert_eq!(count, *next, "QoS 2"),
        }
        assert!(received.topic().ends_with(['0', '1', '2'][qos as usize]));
        *next = (*next).max(count + 1);
        if received.token.is_some() {
            self.unacknowledged.push(received);
        }
    }
}
