//! What must come, and what came.

use std::collections::{BTreeMap, BTreeSet};

/// What a message belongs to: the messages of one stream are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// For durable subscribers, QoS 1 or 2.
    Durable,
    /// For groups of a shared subscription, QoS 1 or 2.
    Shared,
    /// Retained, QoS 1.
    Retained,
    /// QoS 0.
    Fast,
}

/// How many groups share what is published.
pub(super) const GROUPS: usize = 10;

impl Kind {
    pub(super) fn topic(self, publisher: usize) -> String {
        match self {
            Kind::Durable => format!("d/{publisher}"),
            Kind::Shared => format!("w/{}/{publisher}", publisher % GROUPS),
            Kind::Retained => format!("r/{publisher}"),
            Kind::Fast => format!("z/{publisher}"),
        }
    }

    pub(super) fn qos(self, publisher: usize) -> u8 {
        match self {
            Kind::Durable | Kind::Shared => 1 + (publisher / GROUPS % 2) as u8,
            Kind::Retained => 1,
            Kind::Fast => 0,
        }
    }

    /// The stream a topic belongs to.
    pub(super) fn of(topic: &str) -> Option<(Kind, usize)> {
        let kind = match topic.split('/').next()? {
            "d" => Kind::Durable,
            "w" => Kind::Shared,
            "r" => Kind::Retained,
            "z" => Kind::Fast,
            _ => return None,
        };
        Some((kind, topic.rsplit('/').next()?.parse().ok()?))
    }
}

/// Numbers of which all up to some are there, and few above.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) all_to: u64,
    above: BTreeSet<u64>,
}

impl Seen {
    /// False if it was there.
    pub(super) fn insert(&mut self, n: u64) -> bool {
        if n <= self.all_to || !self.above.insert(n) {
            return false;
        }
        while self.above.remove(&(self.all_to + 1)) {
            self.all_to += 1;
        }
        true
    }
}

/// What is to become of the will of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Will {
    /// CONNACK has not come.
    Connecting,
    /// It stands.
    Standing,
    /// The connection broke: it comes.
    Comes,
    /// The client said goodbye, and the broker closed at this time (µs).
    Deleted(u64),
    /// The broker went away meanwhile: both is right.
    Either,
}

/// The state of all streams.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// By publisher, then by kind: the last number.
    pub(super) sent: Vec<[u64; 4]>,
    /// Of retained messages: the last number that was acknowledged.
    pub(super) retained: Vec<u64>,
    /// What came to anyone in a group, by publisher.
    pub(super) shared: Vec<Seen>,
    /// By member and connection.
    pub(super) wills: BTreeMap<usize, Vec<Will>>,
    /// What watchers of wills have got: watcher, member, connection, how often.
    pub(super) watched: BTreeMap<usize, BTreeMap<(usize, usize), u32>>,
    pub(super) acknowledged: u64,
    pub(super) delivered: u64,
    pub(super) fast_delivered: u64,
    pub(super) wills_came: u64,
    pub(super) wrong: Vec<String>,
    started: Option<std::time::Instant>,
}

impl Oracle {
    pub(super) fn new(publishers: usize) -> Self {
        Self {
            sent: vec![[0; 4]; publishers],
            retained: vec![0; publishers],
            shared: vec![Seen::default(); publishers],
            started: Some(std::time::Instant::now()),
            ..Self::default()
        }
    }

    /// Notes, and says at once, what is wrong.
    pub(super) fn wrong(&mut self, what: String) {
        let at = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        if self.wrong.len() < 50 {
            println!("WRONG at {at:.3} s: {what}");
        }
        self.wrong.push(what);
    }

    /// A message that a durable subscriber, or one that stayed connected, got with QoS 1 or 2 after number `last`.
    pub(super) fn in_order(&mut self, who: &str, stream: (Kind, usize), last: u64, n: u64) {
        let once = stream.0.qos(stream.1) == 2;
        if n > last + 1 {
            self.wrong(format!("lost or out of order: {who} got {n} of {stream:?} after {last}"));
        } else if once && n <= last {
            self.wrong(format!("twice: {who} got {n} of {stream:?} after {last}"));
        }
    }

    pub(super) fn shared_came(&mut self, who: &str, publisher: usize, n: u64) {
        if !self.shared[publisher].insert(n) && Kind::Shared.qos(publisher) == 2 {
            self.wrong(format!("twice: {who} got {n} of {publisher}, which its group had"));
        }
    }

    pub(super) fn will_came(&mut self, watcher: usize, member: usize, connection: usize, qos: u8) {
        self.wills_came += 1;
        let count = self.watched.entry(watcher).or_default().entry((member, connection)).or_default();
        *count += 1;
        let twice = *count > 1 && qos == 2;
        let state = self.wills.get(&member).and_then(|wills| wills.get(connection)).copied();
        if twice || !matches!(state, Some(Will::Comes | Will::Either)) {
            let often = if twice { "twice " } else { "" };
            self.wrong(format!("the will {connection} of {member}, {state:?}, came {often}to {watcher}"));
        }
    }

    /// The broker was ended at `now` (µs): what was on its way may have got through.
    pub(super) fn broker_ends(&mut self, now: u64, killed: bool) {
        for will in self.wills.values_mut().flatten() {
            *will = match *will {
                Will::Connecting => Will::Either,
                Will::Standing if killed => Will::Comes,
                Will::Standing => Will::Either,
                Will::Deleted(at) if at.saturating_add(2_000_000) > now => Will::Either,
                other => other,
            };
        }
    }

    /// What has not come of all that has to; `None` if all is there.
    pub(super) fn missing(&self) -> Option<String> {
        for (publisher, seen) in self.shared.iter().enumerate() {
            let sent = self.sent[publisher][Kind::Shared as usize];
            if seen.all_to != sent {
                let (to, above) = (seen.all_to, &seen.above);
                return Some(format!("a group has {to} and {above:?} of {publisher}'s {sent}"));
            }
        }
        for (watcher, got) in &self.watched {
            for (member, wills) in &self.wills {
                let comes = |(at, will): (usize, &Will)| (*will == Will::Comes).then_some(at);
                let due = wills.iter().enumerate().filter_map(comes);
                if let Some(at) = due.into_iter().find(|at| !got.contains_key(&(*member, *at))) {
                    return Some(format!("watcher {watcher} has not got the will {at} of {member}"));
                }
            }
        }
        None
    }
}
