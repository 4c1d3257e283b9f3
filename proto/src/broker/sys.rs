//! `$SYS`: every shard counts for itself, shard 0 adds up and publishes. The topics are mosquitto's, and so is the way loads
//! are averaged: a rate a minute, in which what is older than one, five or fifteen minutes has lost most of its weight.

use super::Shard;
use super::peer::PeerMessage;
use super::timer::Timer;
use crate::codec::QoS;
use crate::message::Message;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

/// Why a message did not get through to someone who subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The queue of its session is full.
    QueueFull,
    /// Its client does not read what it is sent.
    Slow,
    /// Memory is short, and its client does not keep up.
    Memory,
    /// It expired in its queue.
    Expired,
    /// It is larger than its client takes, or outside its mount point.
    TooLarge,
    /// Its client may not have it any more.
    Denied,
}

/// What was refused because of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A message: of QoS 1 or 2 while memory is short, or one that is larger than it may be, or has more user properties.
    Publish,
    /// To retain a message that was delivered.
    Retain,
    /// A subscription.
    Subscription,
    /// A session.
    Session,
    /// A connection, for what it asked for, sent or did not read, or for how long that took.
    Connection,
    /// To read on at once from a client that publishes more than it may.
    Rate,
    /// To read on from a client that does not read what it is answered.
    Output,
}

/// The topics of [`Counters::dropped`], below `publish/messages/dropped/`.
const DROPPED: [&str; Dropped::Denied as usize + 1] =
    ["queue_full", "slow", "memory", "expired", "too_large", "denied"];
/// The topics of [`Counters::refused`], below `limits/`.
const REFUSED: [&str; Refused::Output as usize + 1] =
    ["publish", "retain", "subscription", "session", "connection", "rate", "output"];

/// What a shard counts. Sums since its start, but for the first eight, which say how many there are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connected clients.
    pub clients_connected: u64,
    /// Sessions, connected or not.
    pub clients_total: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Members of shared subscriptions.
    pub shared_subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Messages queued or in flight.
    pub stored: u64,
    /// The bytes these take up.
    pub stored_bytes: u64,
    /// Memory that is held for clients, in bytes, about.
    pub memory: u64,
    /// Sessions that expired.
    pub clients_expired: u64,
    /// Packets received.
    pub messages_received: u64,
    /// Packets sent.
    pub messages_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// PUBLISH packets received.
    pub publish_received: u64,
    /// PUBLISH packets sent.
    pub publish_sent: u64,
    /// Bytes of payload of those received.
    pub publish_bytes_received: u64,
    /// Bytes of payload of those sent.
    pub publish_bytes_sent: u64,
    /// Messages dropped: a full queue, an expired message, a client that does not read.
    pub publish_dropped: u64,
    /// The same by [`Dropped`].
    pub dropped: [u64; DROPPED.len()],
    /// What was refused because of a limit, by [`Refused`].
    pub refused: [u64; REFUSED.len()],
    /// Connections opened.
    pub connections: u64,
    /// CONNECT packets received.
    pub connects: u64,
}

impl Counters {
    /// A message did not get through.
    pub(super) fn drop_for(&mut self, why: Dropped) {
        self.publish_dropped += 1;
        self.dropped[why as usize] += 1;
    }

    /// Something was refused.
    pub(super) fn refuse(&mut self, what: Refused) {
        self.refused[what as usize] += 1;
    }

    fn add(&mut self, other: &Counters) {
        let Counters {
            clients_connected,
            clients_total,
            subscriptions,
            shared_subscriptions,
            retained,
            stored,
            stored_bytes,
            memory,
            clients_expired,
            messages_received,
            messages_sent,
            bytes_received,
            bytes_sent,
            publish_received,
            publish_sent,
            publish_bytes_received,
            publish_bytes_sent,
            publish_dropped,
            dropped,
            refused,
            connections,
            connects,
        } = other;
        self.clients_connected += clients_connected;
        self.clients_total += clients_total;
        self.subscriptions += subscriptions;
        self.shared_subscriptions += shared_subscriptions;
        self.retained += retained;
        self.stored += stored;
        self.stored_bytes += stored_bytes;
        self.memory += memory;
        self.clients_expired += clients_expired;
        self.messages_received += messages_received;
        self.messages_sent += messages_sent;
        self.bytes_received += bytes_received;
        self.bytes_sent += bytes_sent;
        self.publish_received += publish_received;
        self.publish_sent += publish_sent;
        self.publish_bytes_received += publish_bytes_received;
        self.publish_bytes_sent += publish_bytes_sent;
        self.publish_dropped += publish_dropped;
        self.dropped.iter_mut().zip(dropped).for_each(|(sum, n)| *sum += n);
        self.refused.iter_mut().zip(refused).for_each(|(sum, n)| *sum += n);
        self.connections += connections;
        self.connects += connects;
    }
}

/// What shard 0 keeps to report.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The last report of each shard.
    of_shard: Vec<Counters>,
    /// The values published last, in the order of the topics: only changes are published.
    last: Vec<String>,
    clients_maximum: u64,
    memory_maximum: u64,
    loads: Loads,
}

/// Rates a minute of what is counted, for each of [`LOADS`] over each of [`MINUTES`].
#[derive(Debug, Default)]
struct Loads {
    at: Instant,
    /// What had been counted then.
    counted: [u64; LOADS.len()],
    rates: [[f64; MINUTES.len()]; LOADS.len()],
}

/// One of the counters.
type Counted = fn(&Counters) -> u64;

/// What there are averages of.
const LOADS: [(&str, Counted); 9] = [
    ("messages/received", |c| c.messages_received),
    ("messages/sent", |c| c.messages_sent),
    ("publish/dropped", |c| c.publish_dropped),
    ("publish/received", |c| c.publish_received),
    ("publish/sent", |c| c.publish_sent),
    ("bytes/received", |c| c.bytes_received),
    ("bytes/sent", |c| c.bytes_sent),
    ("sockets", |c| c.connections),
    ("connections", |c| c.connects),
];
/// Over how many minutes.
const MINUTES: [u16; 3] = [1, 5, 15];

impl Loads {
    fn on_counted(&mut self, now: Instant, sum: &Counters) {
        let minutes = now.since(self.at).as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        self.at = now;
        for (i, (_, counter)) in LOADS.iter().enumerate() {
            let count = counter(sum);
            let rate = count.saturating_sub(self.counted[i]) as f64 / minutes;
            self.counted[i] = count;
            for (average, over) in self.rates[i].iter_mut().zip(MINUTES) {
                *average = rate + decay(minutes / f64::from(over)) * (*average - rate);
            }
        }
    }
}

/// `exp(-x)`, which `core` does not have: the limit's 65,536th step is right to four digits for what matters here.
fn decay(x: f64) -> f64 {
    let mut power = (1.0 - x / 65_536.0).max(0.0);
    for _ in 0..16 {
        power *= power;
    }
    power
}

impl Shard {
    /// This shard's counters now.
    pub fn counters(&self) -> Counters {
        Counters {
            clients_total: self.sessions.len() as u64,
            subscriptions: self.subscriptions.len() as u64,
            retained: self.retained.len() as u64,
            memory: self.memory(),
            messages_sent: self.pool.packets,
            ..self.counters
        }
    }

    pub(super) fn on_sys_timer(&mut self, at: Instant) {
        if at != self.sys_at {
            return; // It was switched off and on.
        }
        self.sys_at = Instant::NEVER;
        let interval = u64::from(self.config.sys_interval_s);
        if interval == 0 {
            return;
        }
        self.timers.arm(&mut self.sys_at, self.now + Duration::from_secs(interval), Timer::Sys);
        let mut counters = self.counters();
        counters.stored =
            self.sessions.iter().map(|(_, s)| (s.outgoing.in_flight() + s.outgoing.queued()) as u64).sum();
        counters.stored_bytes =
            self.sessions.iter().map(|(_, s)| s.outgoing.in_flight_bytes() + s.outgoing.queued_bytes()).sum();
        if self.id == 0 {
            self.on_counters(0, counters);
            self.publish_sys();
        } else {
            self.send_to_peer(0, PeerMessage::Counters(Box::new(counters)));
        }
    }

    pub(super) fn on_counters(&mut self, from: u16, counters: Counters) {
        let all = &mut self.reports.of_shard;
        all.resize(usize::from(self.shards), Counters::default());
        if let Some(place) = all.get_mut(usize::from(from)) {
            *place = counters;
        }
    }

    fn publish_sys(&mut self) {
        let mut sum = Counters::default();
        self.reports.of_shard.iter().for_each(|c| sum.add(c));
        let now = self.now;
        let reports = &mut self.reports;
        reports.clients_maximum = reports.clients_maximum.max(sum.clients_connected);
        reports.memory_maximum = reports.memory_maximum.max(sum.memory);
        reports.loads.on_counted(now, &sum);
        let away = sum.clients_total.saturating_sub(sum.clients_connected).to_string();
        let values: [(&str, String); 28] = [
            ("version", self.config.version.clone()),
            ("uptime", format!("{} seconds", now.since(self.started).as_secs())),
            ("clients/total", sum.clients_total.to_string()),
            ("clients/connected", sum.clients_connected.to_string()),
            ("clients/active", sum.clients_connected.to_string()),
            ("clients/disconnected", away.clone()),
            ("clients/inactive", away),
            ("clients/maximum", reports.clients_maximum.to_string()),
            ("clients/expired", sum.clients_expired.to_string()),
            ("messages/received", sum.messages_received.to_string()),
            ("messages/sent", sum.messages_sent.to_string()),
            ("messages/stored", sum.stored.to_string()),
            ("store/messages/count", sum.stored.to_string()),
            ("store/messages/bytes", sum.stored_bytes.to_string()),
            ("retained messages/count", sum.retained.to_string()),
            ("subscriptions/count", sum.subscriptions.to_string()),
            ("shared_subscriptions/count", sum.shared_subscriptions.to_string()),
            ("bytes/received", sum.bytes_received.to_string()),
            ("bytes/sent", sum.bytes_sent.to_string()),
            ("publish/messages/received", sum.publish_received.to_string()),
            ("publish/messages/sent", sum.publish_sent.to_string()),
            ("publish/messages/dropped", sum.publish_dropped.to_string()),
            ("publish/bytes/received", sum.publish_bytes_received.to_string()),
            ("publish/bytes/sent", sum.publish_bytes_sent.to_string()),
            ("connections/socket/count", sum.connections.to_string()),
            ("heap/current", sum.memory.to_string()),
            ("heap/maximum", reports.memory_maximum.to_string()),
            ("workers", self.shards.to_string()),
        ];
        let mut values: Vec<(String, String)> =
            values.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let dropped = DROPPED.iter().map(|why| format!("publish/messages/dropped/{why}")).zip(sum.dropped);
        let refused = REFUSED.iter().map(|what| format!("limits/{what}")).zip(sum.refused);
        values.extend(dropped.chain(refused).map(|(name, count)| (name, count.to_string())));
        for ((name, _), rates) in LOADS.iter().zip(&reports.loads.rates) {
            let named =
                |(minutes, rate): (u16, &f64)| (format!("load/{name}/{minutes}min"), format!("{rate:.2}"));
            values.extend(MINUTES.into_iter().zip(rates).map(named));
        }
        self.reports.last.resize(values.len(), String::new());
        for (i, (name, value)) in values.into_iter().enumerate() {
            if self.reports.last[i] != value {
                let message =
                    Message::new(&format!("$SYS/broker/{name}"), value.as_bytes(), QoS::ExactlyOnce, true);
                self.reports.last[i] = value;
                self.publish_from_within(&message);
            }
        }
    }
}
