//! What was exercised.

use super::wire::Packet;

/// Counts of what happened in one run or in several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs.
    pub seeds: u64,
    /// Seconds by the simulated clock.
    pub simulated_s: u64,
    /// Events handled.
    pub events: u64,
    /// What applications did: publish, subscribe, unsubscribe, disconnect, start anew.
    pub operations: u64,
    /// Connections made.
    pub connections: u64,
    /// Messages that applications published, by QoS.
    pub published: [u64; 3],
    /// Messages that applications got.
    pub received: u64,
    /// Messages that the broker sent again.
    pub redelivered: u64,
    /// Retained messages, or such that were to be retained, that the broker sent with the flag.
    pub retained: u64,
    /// Sessions that clients came back to.
    pub sessions_resumed: u64,
    /// Wills that were published.
    pub wills: u64,
    /// Messages owed to somebody, all of which came.
    pub owed: u64,
    /// Messages between shards.
    pub peer_messages: u64,
    /// Changes given to the store.
    pub records: u64,
    /// Faults, in the order of [`FAULT_NAMES`].
    pub faults: [u64; 9],
}

/// The names of [`Tally::faults`].
pub const FAULT_NAMES: [&str; 9] = [
    "cuts",
    "half-open connections",
    "takeover storms",
    "frozen connections",
    "slow readers",
    "crashes",
    "failures of the store",
    "jumps of the wall clock",
    "clients born again",
];

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.seeds += other.seeds;
        self.simulated_s += other.simulated_s;
        self.events += other.events;
        self.operations += other.operations;
        self.connections += other.connections;
        self.received += other.received;
        self.redelivered += other.redelivered;
        self.retained += other.retained;
        self.sessions_resumed += other.sessions_resumed;
        self.wills += other.wills;
        self.owed += other.owed;
        self.peer_messages += other.peer_messages;
        self.records += other.records;
        self.published.iter_mut().zip(other.published).for_each(|(sum, n)| *sum += n);
        self.faults.iter_mut().zip(other.faults).for_each(|(sum, n)| *sum += n);
    }

    pub(crate) fn down(&mut self, packet: &Packet) {
        if let Packet::Publish(publish) = packet {
            self.redelivered += u64::from(publish.dup);
            self.retained += u64::from(publish.retain);
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hours = self.simulated_s as f64 / 3600.0;
        writeln!(f, "{} seeds, {hours:.1} simulated hours, {} events", self.seeds, self.events)?;
        writeln!(f, "{} operations on {} connections", self.operations, self.connections)?;
        let [zero, one, two] = self.published;
        writeln!(f, "published: {zero} at QoS 0, {one} at QoS 1, {two} at QoS 2; {} wills", self.wills)?;
        writeln!(
            f,
            "received: {}; sent again: {}; with RETAIN: {}; owed and delivered: {}",
            self.received, self.redelivered, self.retained, self.owed
        )?;
        writeln!(
            f,
            "sessions resumed: {}; messages between shards: {}; records stored: {}",
            self.sessions_resumed, self.peer_messages, self.records
        )?;
        let faults: Vec<String> =
            FAULT_NAMES.iter().zip(self.faults).map(|(name, n)| format!("{n} {name}")).collect();
        write!(f, "faults: {}", faults.join(", "))
    }
}
