//! A broker that dies at any moment, with any part of what it had not synced, and starts with any number of shards: what was
//! acknowledged is delivered, QoS 2 messages once, in order; by a shared subscription to one member; and what was retained last
//! is retained.

mod common;

use common::{Random, Rig, quiet};
use hikyaku_proto::broker::Config;
use std::collections::{BTreeMap, BTreeSet};

/// How a message of a publisher stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    Published,
    Released,
}

/// A client that publishes numbers to `t/NAME`, one at a time, and keeps its session.
struct Publisher {
    name: String,
    qos: u8,
    retain: bool,
    stage: Stage,
    number: u32,
    most: u32,
}

/// A client that keeps its session and the ids of QoS 2 messages it has.
struct Subscriber {
    name: String,
    shared: bool,
    held: BTreeSet<u16>,
    got: Vec<String>,
}

struct World {
    rig: Rig,
    random: Random,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
}

fn field(packet: &str, key: &str) -> Option<u16> {
    packet.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok())
}

impl Publisher {
    fn packet(&self, dup: &str) -> String {
        let retain = if self.retain { " r" } else { "" };
        format!("PUBLISH t/{0} {0}.{1} q{2} id=1{dup}{retain}", self.name, self.number, self.qos)
    }

    fn on_packet(&mut self, packet: &str, out: &mut Vec<String>) {
        match (packet.split(' ').next().unwrap(), self.stage) {
            ("CONNACK", Stage::Published) => out.push(self.packet(" dup")),
            ("CONNACK", Stage::Released) => out.push("PUBREL 1".into()),
            ("PUBACK", Stage::Published) if self.qos == 1 => self.next(out),
            ("PUBREC", Stage::Published) if self.qos == 2 => {
                self.stage = Stage::Released;
                out.push("PUBREL 1".into());
            }
            ("PUBCOMP", Stage::Released) => self.next(out),
            ("CONNACK", Stage::Idle) => {
                self.stage = Stage::Published;
                out.push(self.packet(""));
            }
            _ => {}
        }
    }

    fn next(&mut self, out: &mut Vec<String>) {
        self.number += 1;
        self.stage = Stage::Idle;
        if self.number < self.most {
            self.stage = Stage::Published;
            out.push(self.packet(""));
        }
    }

    fn is_done(&self) -> bool {
        self.number == self.most
    }
}

impl Subscriber {
    fn on_packet(&mut self, packet: &str, out: &mut Vec<String>) {
        let id = field(packet, "id=").unwrap_or(0);
        let mut words = packet.split(' ');
        match words.next().unwrap() {
            "PUBLISH" => {
                let payload = words.nth(1).unwrap().to_owned();
                if packet.contains(" q2 ") {
                    if self.held.insert(id) {
                        self.got.push(payload);
                    }
                    out.push(format!("PUBREC {id}"));
                } else {
                    self.got.push(payload);
                    out.push(format!("PUBACK {id}"));
                }
            }
            "PUBREL" => {
                let id = words.next().unwrap().parse().unwrap();
                self.held.remove(&id);
                out.push(format!("PUBCOMP {id}"));
            }
            _ => {}
        }
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let config = Config { max_inflight_messages: 1 + random.below(5) as u16, ..quiet() };
        let shards = 1 + random.below(3) as u16;
        let publisher = |n: usize, qos| Publisher {
            name: format!("p{n}"),
            retain: n != 1,
            qos,
            stage: Stage::Idle,
            number: 0,
            most: 0,
        };
        let mut world = World {
            rig: Rig::kept(shards, seed, config),
            publishers: (0..3).map(|n| publisher(n, 1 + (random.below(3) > 0) as u8)).collect(),
            subscribers: (0..4)
                .map(|n| Subscriber {
                    name: format!("s{n}"),
                    shared: n > 1,
                    held: BTreeSet::new(),
                    got: Vec::new(),
                })
                .collect(),
            random,
        };
        world.publishers.iter_mut().for_each(|p| p.most = 1 + world.random.below(40) as u32);
        for at in 0..4 {
            let name = world.subscribers[at].name.clone();
            let filter = if world.subscribers[at].shared { "$share/g/t/#" } else { "t/#" };
            world.rig.send(&name, &format!("CONNECT {name}; SUBSCRIBE id=1 {filter}:2"));
            world.rig.settle();
            world.rig.pipe(&name).news.clear();
        }
        world
    }

    /// Clients answer what they read, and come back when they are cut off.
    fn clients(&mut self, comes_back: bool) {
        let names = self.publishers.iter().map(|p| p.name.clone());
        let names: Vec<String> = names.chain(self.subscribers.iter().map(|s| s.name.clone())).collect();
        for (at, name) in names.iter().enumerate() {
            let open = self.rig.names.get(name).is_some_and(|&at| self.rig.pipes[at].open);
            let mut out = Vec::new();
            if open {
                for packet in std::mem::take(&mut self.rig.pipe(name).news) {
                    match self.publishers.get_mut(at) {
                        Some(publisher) => publisher.on_packet(&packet, &mut out),
                        None => self.subscribers[at - 3].on_packet(&packet, &mut out),
                    }
                }
            } else if comes_back && self.publishers.get(at).is_none_or(|p| !p.is_done()) {
                out.push(format!("CONNECT {name}"));
            }
            self.rig.send(name, &out.join("; "));
        }
    }

    fn run(&mut self, seed: u64) {
        for _ in 0..3000 {
            match self.random.below(400) {
                0 => {
                    let survive = self.random.below(self.rig.disk.unsynced() + 1);
                    let shards = 1 + self.random.below(3) as u16;
                    self.rig.crash(survive, shards);
                }
                1..4 => {
                    let at = self.random.below(self.rig.pipes.len());
                    self.rig.cut_pipe(at);
                }
                4..8 => self.rig.syncs = !self.rig.syncs,
                8..120 => {
                    let comes_back = self.random.one_in(4);
                    self.clients(comes_back);
                }
                _ => drop(self.rig.step()),
            }
        }
        self.rig.syncs = true;
        for _ in 0..10_000 {
            self.rig.settle();
            self.clients(true);
            if !self.rig.step() && self.publishers.iter().all(Publisher::is_done) {
                break;
            }
        }
        self.rig.settle();
        self.clients(true);
        self.rig.settle();
        self.check(seed);
        self.rig.send("new", "CONNECT new clean; SUBSCRIBE id=1 t/#");
        let mut news = self.rig.news("new");
        for publisher in self.publishers.iter().filter(|p| p.retain) {
            let last = format!("PUBLISH t/{0} {0}.{1} r", publisher.name, publisher.most - 1);
            assert!(news.contains(&last), "seed {seed}: {last} is not retained: {news}");
            news = news.replace(&last, "");
        }
        assert!(!news.contains("PUBLISH"), "seed {seed}: {news}");
    }

    fn check(&self, seed: u64) {
        for publisher in &self.publishers {
            assert!(publisher.is_done(), "seed {seed}: {} hangs at {}", publisher.name, publisher.number);
            let alone = self.subscribers.iter().filter(|s| !s.shared).map(|s| s.got.clone());
            let shared = self.subscribers.iter().filter(|s| s.shared).flat_map(|s| s.got.clone());
            for (at, got) in alone.chain([shared.collect()]).enumerate() {
                let mut counts = BTreeMap::new();
                let mut first = Vec::new();
                for payload in got.iter().filter_map(|p| p.strip_prefix(&publisher.name)) {
                    let number: u32 = payload[1..].parse().unwrap();
                    let count = counts.entry(number).or_insert(0);
                    *count += 1;
                    if *count == 1 {
                        first.push(number);
                    }
                }
                let whom = format!("seed {seed}: {at} of {}", publisher.name);
                let all: Vec<u32> = (0..publisher.most).collect();
                if at == 2 {
                    first.sort_unstable();
                }
                assert_eq!(first, all, "{whom}: lost or out of order");
                if publisher.qos == 2 {
                    let twice: Vec<_> = counts.iter().filter(|(_, n)| **n > 1).collect();
                    assert!(twice.is_empty(), "{whom}: twice {twice:?}");
                }
            }
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap()..seed.parse::<u64>().unwrap() + 1,
        Err(_) => 1..1 + std::env::var("SEEDS").map_or(300, |n| n.parse().unwrap()),
    };
    for seed in seeds {
        World::new(seed).run(seed);
    }
}
