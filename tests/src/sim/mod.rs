//! A whole broker in one thread, with everything that can go wrong, from one seed.
//!
//! Shards of the product, clients of the product, and between them a network, a disk and a clock that do what the seed
//! says. An [`oracle`] looks on. What is drawn is in [`plan`], what happens in [`world`].
//!
//! The same seed does the same, byte for byte: [`Report::hash`] is taken over all that happened.

mod actor;
mod broker;
mod conn;
mod disk;
mod faults;
mod oracle;
mod pipe;
mod plan;
mod random;
mod tally;
mod turn;
mod wire;
mod world;

pub use tally::{FAULT_NAMES, Tally};

use random::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Length, World};

/// What came of a run that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of all events and all bytes.
    pub hash: u64,
    /// What was exercised.
    pub tally: Tally,
}

/// What came of a run that did not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was wrong.
    pub what: String,
    /// The event log up to there.
    pub lines: Vec<String>,
}

/// Runs one seed. `log` says whether events are written down, which takes time.
pub fn run(seed: u64, log: bool) -> (Result<Report, Failure>, Vec<String>) {
    run_world(World::new(Random::new(seed), Length::WHOLE, log))
}

/// Runs what a fuzzer's bytes say, with the event log.
#[doc(hidden)]
pub fn run_bytes(data: &[u8]) -> (Result<Report, Failure>, Vec<String>) {
    run_world(World::new(Random::from_bytes(data), Length::SHORT, true))
}

fn run_world(mut world: World) -> (Result<Report, Failure>, Vec<String>) {
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let lines = world.lines.take().unwrap_or_default();
    match result {
        Ok(()) => (Ok(Report { hash: world.hash.0, tally: world.whole_tally() }), lines),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let what = text.or(panic.downcast_ref::<&str>().map(|s| (*s).into())).unwrap_or_default();
            (Err(Failure { what, lines: lines.clone() }), lines)
        }
    }
}

/// Runs one seed, and once more with the event log when something is wrong.
pub fn check(seed: u64) -> Result<Report, Failure> {
    match run(seed, false).0 {
        Ok(report) => Ok(report),
        Err(first) => match run(seed, true).0 {
            Err(second) => Err(second),
            Ok(_) => {
                Err(Failure { what: format!("only the first time: {}", first.what), lines: first.lines })
            }
        },
    }
}

/// A short run in which a fuzzer's bytes decide what happens. Panics when something is not as it should be.
#[doc(hidden)]
pub fn check_simulation(data: &[u8]) {
    World::new(Random::from_bytes(data), Length::SHORT, false).run();
}

/// A packet in one line.
fn show(packet: &wire::Packet) -> String {
    match packet {
        wire::Packet::Publish(p) => {
            let number = actor::number_of(&p.payload).unwrap_or(0);
            let flags =
                format!("{}{}", if p.dup { " dup" } else { "" }, if p.retain { " retain" } else { "" });
            let (alias, expiry) = (p.alias.unwrap_or(0), p.expiry.unwrap_or(0));
            format!(
                "PUBLISH {number} to {:?} q{} id={}{flags} alias={alias} expiry={expiry} {:?} of {}",
                p.topic, p.qos, p.id, p.ids, p.size
            )
        }
        wire::Packet::Connect(c) => {
            let will = c.will.as_ref().map(|w| {
                let number = actor::number_of(&w.payload).unwrap_or(0);
                format!(" will {number} to {} q{} delay={} {}", w.topic, w.qos, w.delay_s, w.retain)
            });
            format!(
                "CONNECT {} v5={} clean={} expiry={} keep_alive={} receive={} packet={}{}",
                c.client_id,
                c.v5,
                c.clean,
                c.expiry_s,
                c.keep_alive_s,
                c.receive_maximum,
                c.max_packet,
                will.unwrap_or_default()
            )
        }
        other => format!("{other:?}"),
    }
}

/// The end of the event log of a failure.
pub fn last_lines(failure: &Failure) -> &[String] {
    &failure.lines[failure.lines.len().saturating_sub(40)..]
}

/// Which commit this is, as far as git knows.
pub fn commit() -> String {
    let git = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let text = git.ok().filter(|out| out.status.success()).and_then(|out| String::from_utf8(out.stdout).ok());
    text.map_or("unknown".into(), |text| text.trim().into())
}
