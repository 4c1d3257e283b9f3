//! A long mixed load on a broker that is restarted, killed and reloaded under it, and what must hold meanwhile.
//!
//! One thread drives all clients, which are the product's sans-IO clients: what their sessions are to keep, they keep
//! over all lives of the broker. It checks
//! * that each durable subscriber gets each message of its streams, those of QoS 2 once, in order; and that so do those
//!   who stay connected; and that a group that shares a stream gets all of it;
//! * that a retained message is never older than what was acknowledged before it was asked for;
//! * that a will comes when a connection breaks, and does not when its client said goodbye;
//! * that the broker ends no connection by itself, but the old one at a takeover;
//! * that a session that was there is there;
//! * in quiet phases, in which all are connected and nothing is published: that everything has come, and that memory
//!   and descriptors are what they were.

mod crowd;
mod house;
mod member;
mod oracle;

use std::path::PathBuf;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long the load lasts, without what it takes to end.
    pub seconds: u64,
    /// What chance follows.
    pub seed: u64,
    /// How many clients; at least 20.
    pub clients: usize,
    /// Messages published a second, about.
    pub rate: u64,
    /// Clients come and go so many times faster.
    pub pace: u64,
    /// Seconds between quiet phases.
    pub quiet_every: u64,
    /// How long the broker lives at the most, in seconds; 0: to the end.
    pub life_max: u64,
    /// The broker.
    pub broker: PathBuf,
    /// Its configuration, store and log; emptied before, removed after a run in which all went well.
    pub folder: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was wrong; nothing, if all went well.
    pub wrong: Vec<String>,
    /// Messages of QoS 1 and 2 that were acknowledged.
    pub acknowledged: u64,
    /// Messages of QoS 1 and 2 that came to subscribers.
    pub delivered: u64,
    /// How often the broker was stopped.
    pub stops: u64,
    /// How often the broker was killed.
    pub kills: u64,
    /// Connections that were let in.
    pub connections: u64,
    /// Of these: that took over from another.
    pub takeovers: u64,
    /// Wills that came.
    pub wills: u64,
    /// Quiet phases.
    pub quiet_phases: u64,
}

/// Holds the load; prints a line every ten seconds.
///
/// # Panics
/// When files cannot be written, or the broker cannot be started.
pub fn run(plan: &Plan) -> Outcome {
    crowd::Crowd::new(plan).run()
}
