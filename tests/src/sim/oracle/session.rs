//! A session as a naive broker has it: lists.

use super::topic::{matches, plain};
use std::collections::{BTreeMap, BTreeSet};

/// A subscription. From `from` to `until` it may be in force; it is for certain from `certain_from` to `certain_until`.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub filter: String,
    pub qos: u8,
    pub no_local: bool,
    pub as_published: bool,
    pub handling: u8,
    pub id: u32,
    pub from: u64,
    pub certain_from: u64,
    /// The moment of `certain_from`.
    pub certain_at: u64,
    pub certain_until: u64,
    pub until: u64,
}

/// Never.
pub(crate) const NEVER: u64 = u64::MAX;

impl Subscription {
    pub fn new(filter: &str, options: u8, id: u32, step: u64) -> Subscription {
        Subscription {
            filter: filter.into(),
            qos: options & 3,
            no_local: options & 4 != 0,
            as_published: options & 8 != 0,
            handling: options >> 4,
            id,
            from: step,
            certain_from: NEVER,
            certain_at: NEVER,
            certain_until: NEVER,
            until: NEVER,
        }
    }

    pub fn is_shared(&self) -> bool {
        self.filter.starts_with("$share/")
    }

    pub fn means(&self, topic: &str) -> bool {
        matches(plain(&self.filter), topic)
    }

    /// Whether it was certainly in force all the time from a step on.
    pub fn certain_since(&self, step: u64) -> bool {
        self.certain_from <= step && self.certain_until == NEVER
    }

    /// Whether it may have been in force at some time from a step on.
    pub fn possible_since(&self, step: u64) -> bool {
        self.until >= step
    }
}

/// A message that was sent with a packet id and is not done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub number: u32,
    pub qos: u8,
    /// The order in which messages were sent first.
    pub serial: u64,
    /// Whether the receiver has said that it has it.
    pub released: bool,
    /// Whether the broker may have forgotten about it in a crash.
    pub loose: bool,
}

/// A message that came, with the moment and the step of its first time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Came {
    pub number: u32,
    pub at: u64,
    pub step: u64,
}

/// A will that is not published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Will {
    pub number: u32,
    pub delay_s: u32,
    /// When it is due: not before, and not after.
    pub due: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub client: usize,
    pub conn: Option<usize>,
    /// `u32::MAX` for ever.
    pub expiry_s: u32,
    /// When it ends while nobody is connected: not before, and not after.
    pub expires: (u64, u64),
    pub subscriptions: Vec<Subscription>,
    pub will: Option<Will>,
    /// Wills that were cancelled, with the step.
    pub cancelled: Vec<(u32, u64)>,
    /// QoS 2 messages from the client that are not released, by packet id.
    pub incoming: BTreeMap<u16, u32>,
    pub sent: BTreeMap<u16, Sent>,
    pub serial: u64,
    /// How often each message was sent, at QoS 2 or below, without those that were sent again.
    pub copies: BTreeMap<(u32, bool), u32>,
    /// How often the application got each message.
    pub got: BTreeMap<(u32, bool), u32>,
    /// How often more it may get one, as its memory was lost.
    pub spare: BTreeMap<u32, u32>,
    /// What it has to get, and on which connection, if on one only.
    pub owed: BTreeMap<u32, Option<usize>>,
    /// Topics it has to get something of on its connection.
    pub owed_topics: BTreeSet<String>,
    /// By topic: messages of which it has to get each, or one that may have replaced it, on its connection.
    pub owed_last: BTreeMap<String, BTreeSet<u32>>,
    /// By topic: the messages that it got, with the step of the last time.
    pub seen: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Of what was to be retained and came live: the last, by publisher, topic and whether it came with QoS 0.
    pub live: BTreeMap<(usize, String, bool), u32>,
    /// By publisher, topic, QoS published and delivered: the last message.
    pub last: BTreeMap<(usize, String, u8, u8), Came>,
    pub connections: u32,
    /// Whether its client takes it for an earlier one, as it never heard of that one's end: packet ids mean different things to
    /// both, and nothing can be owed.
    pub mistaken: bool,
    /// Whether nobody can say if it is there.
    pub uncertain: bool,
    pub crashed: bool,
    pub created_step: u64,
    pub accepted_step: u64,
    pub detached_step: u64,
    pub ended_step: Option<u64>,
    pub before: Option<usize>,
    /// What was said of its end before the client came last.
    pub expires_before: (u64, u64),
    pub expiry_before_s: u32,
    /// Whether its goodbye has changed that.
    pub changed: bool,
    /// What its client takes, or took when it was connected last.
    pub max_packet: u32,
    /// Of the connections that are over: when that was, and what their clients took.
    pub packets_before: Vec<(u64, u32)>,
    pub was_connected: bool,
}

impl Session {
    pub fn new(client: usize, conn: usize, step: u64) -> Session {
        Session {
            client,
            conn: Some(conn),
            expiry_s: 0,
            expires: (NEVER, NEVER),
            subscriptions: Vec::new(),
            will: None,
            cancelled: Vec::new(),
            incoming: BTreeMap::new(),
            sent: BTreeMap::new(),
            serial: 0,
            copies: BTreeMap::new(),
            got: BTreeMap::new(),
            spare: BTreeMap::new(),
            owed: BTreeMap::new(),
            owed_topics: BTreeSet::new(),
            owed_last: BTreeMap::new(),
            seen: BTreeMap::new(),
            live: BTreeMap::new(),
            last: BTreeMap::new(),
            connections: 0,
            mistaken: false,
            uncertain: false,
            crashed: false,
            created_step: step,
            accepted_step: step,
            detached_step: 0,
            ended_step: None,
            before: None,
            expires_before: (NEVER, NEVER),
            expiry_before_s: 0,
            changed: false,
            max_packet: u32::MAX,
            packets_before: Vec::new(),
            was_connected: false,
        }
    }

    /// Nothing is owed on its connection any more.
    pub fn forgive(&mut self, conn: Option<usize>) {
        self.owed.retain(|_, on| on.is_none() || *on != conn);
        self.owed_topics.clear();
        self.owed_last.clear();
    }

    /// No retained message of a topic is owed any more.
    pub fn forgive_topic(&mut self, topic: &str) {
        self.owed_topics.remove(topic);
        self.owed_last.remove(topic);
    }

    pub fn has_got(&self, number: u32) -> bool {
        [false, true].into_iter().any(|twice| self.got.contains_key(&(number, twice)))
    }

    /// How often a message was sent.
    pub fn copies_of(&self, number: u32) -> u32 {
        [false, true].into_iter().filter_map(|twice| self.copies.get(&(number, twice))).sum()
    }

    /// Whether it may have ended by now.
    pub fn may_be_over(&self, now: u64) -> bool {
        self.conn.is_none() && self.expires.0 <= now
    }

    /// Whether a packet so large was not too large for a connection that there was at some time since a step.
    pub fn takes_since(&self, since: u64, size: usize) -> bool {
        let before = self.packets_before.iter().filter(|(until, _)| *until >= since).map(|(_, most)| *most);
        before.chain(self.conn.map(|_| self.max_packet)).all(|most| size <= most as usize)
    }

    /// The highest QoS of certain subscriptions of its own to a topic, all the time since a step; not those that leave its
    /// own messages out, if it is one.
    pub fn certain_qos(&self, topic: &str, since: u64, own: bool) -> Option<u8> {
        let all = self.subscriptions.iter().filter(|s| !s.is_shared() && s.means(topic));
        all.filter(|s| s.certain_since(since) && !(own && s.no_local)).map(|s| s.qos).max()
    }

    /// How many filters it may have had when it asked for one of its subscriptions, without that one.
    pub fn filters_beside(&self, place: usize) -> usize {
        let asked = &self.subscriptions[place];
        self.filters(|s| s.from <= asked.from && s.until > asked.from && s.filter != asked.filter)
    }

    /// How many filters it certainly has.
    pub fn filters_certain(&self) -> usize {
        self.filters(|s| s.until == NEVER && s.certain_from != NEVER && s.certain_until == NEVER)
    }

    fn filters(&self, so: impl Fn(&Subscription) -> bool) -> usize {
        let all = self.subscriptions.iter().filter(|s| so(s)).map(|s| &s.filter);
        all.collect::<BTreeSet<_>>().len()
    }

    /// Whether what it was given was in no store: a goodbye that ends it at once came after that.
    pub fn keeps_nothing(&self) -> bool {
        let expiry_s = if self.changed { self.expiry_before_s } else { self.expiry_s };
        expiry_s == 0
    }

    /// Takes over what may be left of another one.
    pub fn absorb(&mut self, other: &Session) {
        for subscription in &other.subscriptions {
            let certain = (NEVER, NEVER);
            self.subscriptions.push(Subscription {
                certain_from: certain.0,
                certain_at: certain.1,
                until: NEVER,
                ..subscription.clone()
            });
        }
        for (&number, &count) in &other.copies {
            *self.copies.entry(number).or_default() += count;
        }
        for (&id, &sent) in &other.sent {
            self.sent.entry(id).or_insert(Sent { loose: true, ..sent });
        }
        for (&(number, _), &count) in &other.got {
            *self.spare.entry(number).or_default() += count;
        }
        for (&id, &number) in &other.incoming {
            self.incoming.entry(id).or_insert(number);
        }
        self.cancelled.extend(&other.cancelled);
        self.uncertain = true;
        self.crashed = true;
    }
}
