//! What both sides of one connection may say, and in which order.

use crate::sim::wire::{ConnAck, Connect, Publish};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A PUBLISH of the client without answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub qos: u8,
    pub id: u16,
    pub number: u32,
    /// The step at which it was handed in, if it was to be routed.
    pub routed: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub v5: bool,
    pub client: usize,
    /// The CONNECT, until it is answered.
    pub connect: Option<Connect>,
    pub running: bool,
    pub ended: bool,
    /// Why the broker may close it.
    pub may_close: Option<&'static str>,
    pub session: usize,
    pub keep_alive_s: u16,
    pub heard_at: u64,
    pub blocked_since: Option<u64>,
    receive_maximum: u16,
    pub max_packet: u32,
    alias_maximum: u16,
    aliases: BTreeMap<u16, String>,
    pub in_flight: BTreeSet<u16>,
    pub last_serial: u64,
    server_receive_maximum: u16,
    server_max_packet: u32,
    server_alias_maximum: u16,
    server_aliases: BTreeMap<u16, String>,
    pub waiting: VecDeque<Waiting>,
    pub from_client: BTreeSet<u16>,
    /// SUBSCRIBEs without answer: places in the session's list, and what each replaces.
    pub subscribes: BTreeMap<u16, Vec<usize>>,
    /// UNSUBSCRIBEs without answer: when, and the filters.
    pub unsubscribes: BTreeMap<u16, (u64, Vec<String>)>,
    pub pings: u32,
    /// When each PUBLISH came.
    published: Vec<u64>,
}

impl Link {
    pub fn new(now: u64) -> Link {
        Link {
            v5: false,
            client: 0,
            connect: None,
            running: false,
            ended: false,
            may_close: None,
            session: usize::MAX,
            keep_alive_s: 0,
            heard_at: now,
            blocked_since: None,
            receive_maximum: u16::MAX,
            max_packet: u32::MAX,
            alias_maximum: 0,
            aliases: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            last_serial: 0,
            server_receive_maximum: u16::MAX,
            server_max_packet: u32::MAX,
            server_alias_maximum: 0,
            server_aliases: BTreeMap::new(),
            waiting: VecDeque::new(),
            from_client: BTreeSet::new(),
            subscribes: BTreeMap::new(),
            unsubscribes: BTreeMap::new(),
            pings: 0,
            published: Vec::new(),
        }
    }

    pub fn accepted(&mut self, connect: &Connect, connack: &ConnAck) {
        self.running = true;
        self.v5 = connect.v5;
        self.receive_maximum = connect.receive_maximum;
        self.max_packet = connect.max_packet;
        self.alias_maximum = connect.alias_maximum;
        self.server_receive_maximum = connack.receive_maximum;
        self.server_max_packet = connack.max_packet;
        self.server_alias_maximum = connack.alias_maximum;
        self.keep_alive_s = connack.keep_alive_s.unwrap_or(connect.keep_alive_s);
    }

    /// Checks a PUBLISH of the client, and gives the topic it means.
    pub fn check_up(&mut self, publish: &Publish) -> String {
        assert!(
            publish.size <= self.server_max_packet as usize,
            "the client sends more than the broker takes"
        );
        if publish.qos > 0 {
            assert_ne!(publish.id, 0, "packet id 0");
            self.from_client.insert(publish.id);
            let most = usize::from(self.server_receive_maximum);
            assert!(self.from_client.len() <= most, "the client has more than {most} messages in flight");
        }
        topic(publish, self.server_alias_maximum, &mut self.server_aliases)
    }

    /// Checks that the client is read no faster than it may publish: at any time, a second's worth is taken at once.
    pub fn check_rate(&mut self, rate: u32, now: u64) {
        self.published.push(now);
        for (at, since) in self.published.iter().enumerate() {
            let count = (self.published.len() - at) as u64;
            let most = u64::from(rate) * (now - since) / 1_000_000 + u64::from(rate) + 2;
            assert!(count <= most, "{count} messages are read in {} us, {rate} a second may be", now - since);
        }
    }

    /// Checks a PUBLISH of the broker, and gives the topic it means.
    pub fn check_down(&mut self, publish: &Publish) -> String {
        // [MQTT-3.1.2-24]
        assert!(publish.size <= self.max_packet as usize, "a packet larger than Maximum Packet Size");
        // [MQTT-3.3.1-2]
        assert!(publish.qos > 0 || !publish.dup, "DUP at QoS 0");
        if publish.qos > 0 {
            // [MQTT-2.2.1-3]
            assert_ne!(publish.id, 0, "packet id 0");
            // [MQTT-2.2.1-4]
            assert!(self.in_flight.insert(publish.id), "packet id {} is in use", publish.id);
            // [MQTT-3.3.4-9]
            let most = usize::from(self.receive_maximum);
            let count = self.in_flight.len();
            assert!(count <= most, "{count} messages in flight, Receive Maximum is {most}");
        }
        topic(publish, self.alias_maximum, &mut self.aliases)
    }

    /// The client's PUBLISH that is answered now: answers leave in order [MQTT-4.6.0-2] [MQTT-4.6.0-3].
    pub fn answered(&mut self, qos: u8, id: u16) -> Waiting {
        let first = self.waiting.iter().position(|w| w.qos == qos);
        match first.and_then(|at| self.waiting.remove(at)) {
            Some(waiting) if waiting.id == id => waiting,
            Some(waiting) => panic!("packet {id} is acknowledged before packet {}", waiting.id),
            None => panic!("packet {id} is acknowledged and nothing waits for that"),
        }
    }
}

/// The topic of a PUBLISH, its alias resolved.
fn topic(publish: &Publish, maximum: u16, aliases: &mut BTreeMap<u16, String>) -> String {
    match publish.alias {
        None => {
            assert!(!publish.topic.is_empty(), "neither a topic nor an alias");
            publish.topic.clone()
        }
        // [MQTT-3.3.2-8] [MQTT-3.3.2-9]
        Some(alias) => {
            assert!(alias > 0 && alias <= maximum, "topic alias {alias}, at most {maximum} are allowed");
            if !publish.topic.is_empty() {
                aliases.insert(alias, publish.topic.clone());
            }
            match aliases.get(&alias) {
                Some(topic) => topic.clone(),
                None => panic!("topic alias {alias} means nothing on this connection"),
            }
        }
    }
}
