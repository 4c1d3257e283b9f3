//! What one seed is about: each enables some faults and operations and not others, with its own intensities.

use super::random::Random;
use hikyaku_proto::broker::Config;

/// Microseconds.
pub(crate) const MS: u64 = 1_000;
/// Microseconds.
pub(crate) const SECOND: u64 = 1_000_000;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A connection breaks; any prefix of what is underway arrives.
    Cut,
    /// A client vanishes without a word, and comes back while the broker believes it is still there.
    Vanish,
    /// As before, several times in a row.
    Storm,
    /// Nothing moves on a connection for a while, then all of it does.
    Freeze,
    /// A client reads nothing for a while.
    Stall,
    /// The broker dies, and what was not durable with it, in part.
    Crash,
    /// The store takes nothing for a while.
    StoreFails,
    /// The wall clock jumps.
    WallJumps,
    /// A client's program starts anew, with a session of another kind.
    Reborn,
}

const FAULTS: [Fault; 9] = [
    Fault::Cut,
    Fault::Vanish,
    Fault::Storm,
    Fault::Freeze,
    Fault::Stall,
    Fault::Crash,
    Fault::StoreFails,
    Fault::WallJumps,
    Fault::Reborn,
];

/// Everything that is drawn before the first event.
#[derive(Debug)]
pub(crate) struct Plan {
    pub shards: u16,
    pub clients: usize,
    /// How many of them only take part in shared subscriptions.
    pub workers: usize,
    pub persistent: bool,
    /// With the mean time between two, of those that are enabled.
    pub faults: Vec<(Fault, u64)>,
    /// How long bytes travel, at most.
    pub latency: u64,
    /// How long a shard sleeps before a turn, at most.
    pub turn: u64,
    /// How long messages between shards travel, at most.
    pub peer: u64,
    /// How long until a sync, at most.
    pub sync: u64,
    /// Whether bytes are cut into small pieces.
    pub fragments: bool,
    /// What a transport holds, each way.
    pub capacity: usize,
    /// Whether queues are so short that messages are dropped.
    pub bounded: bool,
    pub topics: Vec<String>,
    pub filters: Vec<String>,
    /// Per mille.
    pub retain: u64,
    pub expiry: u64,
    pub wills: u64,
    pub empty: u64,
    /// Weights of QoS 0, 1 and 2.
    pub qos: [u64; 3],
    /// Weights of publish, subscribe, unsubscribe, disconnect.
    pub acts: [u64; 4],
    /// The mean time between two acts of a client.
    pub pace: u64,
    /// How long a client stays away, at most.
    pub away: u64,
    /// How long the application takes to acknowledge, at most; 0: the client does it.
    pub acknowledge: u64,
    pub keep_alive: bool,
    pub large: bool,
    /// How many bytes of memory all shards together may hold; `u64::MAX` for any.
    pub memory: u64,
    pub config: Config,
}

impl Plan {
    pub fn new(random: &mut Random) -> Plan {
        let mut faults: Vec<(Fault, u64)> = FAULTS
            .into_iter()
            .filter_map(|fault| {
                let mean = match fault {
                    Fault::Cut => 3,
                    Fault::Vanish | Fault::Freeze | Fault::Stall | Fault::Reborn => 6,
                    Fault::Storm | Fault::StoreFails | Fault::WallJumps => 15,
                    Fault::Crash => 12,
                };
                let mean = mean * SECOND * random.within(5, 30) / 10;
                random.chance(400).then_some((fault, mean))
            })
            .collect();
        let clients = random.within(3, 8) as usize;
        let workers = if random.chance(400) { random.within(1, 3) as usize } else { 0 };
        let (topics, filters) = names(random);
        let bounded = random.chance(120);
        let shards = random.within(1, 4) as u16;
        let span = |random: &mut Random, all: &[u64]| *random.pick(all);
        // Limits that are reached now and then.
        let limited = random.chance(400);
        let limit = |random: &mut Random| limited && random.chance(350);
        let memory = if limit(random) { random.within(15_000, 60_000) } else { u64::MAX };
        let max_publish_rate = if limit(random) { random.within(2, 12) as u32 } else { 0 };
        let max_subscriptions = if limit(random) { random.within(2, 8) as u32 } else { 100_000 };
        let max_retained_messages = if limit(random) { random.below(6) } else { u64::MAX };
        let slow = limit(random);
        let soft = if slow { random.within(100, 1_500) as usize } else { 1 << 20 };
        let config = Config {
            max_publish_rate,
            max_subscriptions,
            max_retained_messages,
            output_soft_bytes: soft,
            output_hard_bytes: 4 * soft,
            slow_publishers: random.chance(500),
            max_inflight_messages: *random.pick(&[1, 2, 3, 5, 20]),
            max_inflight_bytes: if random.chance(200) { random.within(1, 500) } else { u64::MAX },
            max_queued_messages: if bounded { random.within(1, 20) as u32 } else { 1_000_000 },
            max_queued_bytes: u64::MAX,
            max_topic_alias: *random.pick(&[0, 1, 2, 10]),
            max_topic_alias_broker: *random.pick(&[0, 1, 2, 10]),
            max_keepalive_s: if random.chance(200) { random.within(5, 20) as u16 } else { 0 },
            max_packet_size: if random.chance(300) { 10_000 } else { 2_000_000 },
            sys_interval_s: 0,
            ..Config::default()
        };
        // Who waits for slow clients does so until nothing but their reading on can end it.
        let calm = slow && config.slow_publishers;
        if calm {
            faults = vec![(Fault::Stall, 2 * SECOND)];
        }
        Plan {
            shards,
            clients: clients + workers,
            workers,
            persistent: random.chance(750),
            faults,
            latency: span(random, &[MS, 20 * MS, 300 * MS]),
            turn: span(random, &[50, MS, 20 * MS]),
            peer: span(random, &[50, 2 * MS, 50 * MS, 800 * MS]),
            sync: span(random, &[100, 5 * MS, 100 * MS, 1500 * MS]),
            fragments: random.chance(300),
            capacity: if slow { 600 } else { *random.pick(&[600, 4_000, 64 << 10]) },
            bounded,
            topics,
            filters,
            retain: span(random, &[0, 100, 400]),
            expiry: span(random, &[0, 100, 300]),
            wills: span(random, &[0, 300, 900]),
            empty: span(random, &[0, 30, 150]),
            qos: [if slow { 3 } else { random.below(3) }, random.within(1, 3), random.within(1, 3)],
            acts: [
                random.within(6, 30),
                random.within(1, 5),
                random.below(4),
                if random.chance(500) { 1 } else { 0 },
            ],
            pace: 60 * SECOND * clients as u64 / 700,
            away: span(random, &[200 * MS, 2 * SECOND, 12 * SECOND]),
            acknowledge: if random.chance(300) { random.within(MS, 2 * SECOND) } else { 0 },
            keep_alive: random.chance(600) && !calm,
            large: random.chance(300),
            memory,
            config,
        }
    }

    /// Whether messages of QoS 0 are dropped for clients that do not take all output.
    pub fn drops(&self) -> bool {
        self.memory != u64::MAX || self.config.output_soft_bytes < 1 << 20
    }

    /// Makes faults so many times as frequent.
    pub fn hurry(&mut self, times: u64) {
        self.faults.iter_mut().for_each(|(_, mean)| *mean /= times);
    }

    pub fn mean(&self, wanted: Fault) -> Option<u64> {
        self.faults.iter().find(|(fault, _)| *fault == wanted).map(|(_, mean)| *mean)
    }
}

fn names(random: &mut Random) -> (Vec<String>, Vec<String>) {
    let topics: Vec<String> =
        ["t/a", "t/b", "t/a/x", "t/b/y", "u", "u/a", "/t", "t//z"].map(String::from).into();
    let filters = [
        "t/a", "t/b", "t/+", "t/#", "#", "+/a", "u/#", "u", "+", "t/+/x", "t/a/#", "+/+/+", "/+", "t//z",
        "/t", "t/b/y",
    ];
    let mut filters: Vec<String> = filters.map(String::from).into();
    for _ in 0..random.below(10) {
        let at = random.index(filters.len());
        filters.swap_remove(at);
    }
    let count = random.within(2, topics.len() as u64) as usize;
    (topics.into_iter().take(count).collect(), filters)
}
