//! `$SYS`: every shard counts for itself, shard 0 adds up and publishes.

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

/// What a shard counts. Sums since its start, but for the first six, which say how many there are now.
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
    /// Sessions that expired.
    pub clients_expired: u64,
    /// Packets received.
    pub messages_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// PUBLISH packets received.
    pub publish_received: u64,
    /// PUBLISH packets sent.
    pub publish_sent: u64,
    /// Messages dropped: a full queue, an expired message, a client that does not read.
    pub publish_dropped: u64,
    /// Connections opened.
    pub connections: u64,
}

impl Counters {
    fn add(&mut self, other: &Counters) {
        let Counters {
            clients_connected,
            clients_total,
            subscriptions,
            shared_subscriptions,
            retained,
            stored,
            clients_expired,
            messages_received,
            bytes_received,
            bytes_sent,
            publish_received,
            publish_sent,
            publish_dropped,
            connections,
        } = other;
        self.clients_connected += clients_connected;
        self.clients_total += clients_total;
        self.subscriptions += subscriptions;
        self.shared_subscriptions += shared_subscriptions;
        self.retained += retained;
        self.stored += stored;
        self.clients_expired += clients_expired;
        self.messages_received += messages_received;
        self.bytes_received += bytes_received;
        self.bytes_sent += bytes_sent;
        self.publish_received += publish_received;
        self.publish_sent += publish_sent;
        self.publish_dropped += publish_dropped;
        self.connections += connections;
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
}

impl Shard {
    /// This shard's counters now.
    pub fn counters(&self) -> Counters {
        Counters {
            clients_total: self.sessions.len() as u64,
            subscriptions: self.subscriptions.len() as u64,
            retained: self.retained.len() as u64,
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
        self.reports.clients_maximum = self.reports.clients_maximum.max(sum.clients_connected);
        let values: [(&str, String); 20] = [
            ("version", self.config.version.clone()),
            ("uptime", format!("{} seconds", self.now.since(self.started).as_secs())),
            ("clients/total", sum.clients_total.to_string()),
            ("clients/connected", sum.clients_connected.to_string()),
            ("clients/disconnected", sum.clients_total.saturating_sub(sum.clients_connected).to_string()),
            ("clients/maximum", self.reports.clients_maximum.to_string()),
            ("clients/expired", sum.clients_expired.to_string()),
            ("messages/received", sum.messages_received.to_string()),
            ("messages/stored", sum.stored.to_string()),
            ("store/messages/count", sum.stored.to_string()),
            ("retained messages/count", sum.retained.to_string()),
            ("subscriptions/count", sum.subscriptions.to_string()),
            ("shared_subscriptions/count", sum.shared_subscriptions.to_string()),
            ("bytes/received", sum.bytes_received.to_string()),
            ("bytes/sent", sum.bytes_sent.to_string()),
            ("publish/messages/received", sum.publish_received.to_string()),
            ("publish/messages/sent", sum.publish_sent.to_string()),
            ("publish/messages/dropped", sum.publish_dropped.to_string()),
            ("connections/socket/count", sum.connections.to_string()),
            ("workers", self.shards.to_string()),
        ];
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
