//! Attacks with too much of everything, and what bystanders feel of them.
//!
//! Each scenario starts a broker of its own, lets bystanders play ping-pong before and during the attack, and prints one
//! line: what was done, round trips of the bystanders (the longer of a message's and a PINGREQ's; p50/p99/maximum), the
//! most memory there was, and what the broker counted.

mod bystander;
mod horde;
pub(crate) mod packets;
mod scenarios;
pub(crate) mod target;

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use bystander::{Bystanders, Trips};
use target::Target;

/// How to attack.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command that starts the broker; `{conf}` stands for its configuration.
    pub command: String,
    /// Whether it is hikyaku: others are measured, and held to nothing.
    pub ours: bool,
    /// All counts are divided by this, and the time of an attack.
    pub scale: usize,
    /// The longest p99 of bystanders during an attack.
    pub p99_max: Duration,
}

/// The names of all scenarios, and what they are.
pub const SCENARIOS: [(&str, &str); 11] = [
    ("flood", "a publisher of QoS 0 is faster than its subscriber"),
    ("queue", "a publisher of QoS 1 is faster than its subscriber"),
    ("stalled", "ten subscribers read nothing, one does"),
    ("fanout", "messages to 100,000 sessions, 18,000 of them connected"),
    ("replay", "1,000,000 retained messages to one subscriber"),
    ("silent", "19,000 connections at once that say nothing"),
    ("storm", "19,000 clients connect at once"),
    ("takeover", "one client id: 1,000 connections in turn, and at once"),
    ("subscribe", "1,000 clients subscribe to 1,000 filters each"),
    ("wills", "10,000 clients with wills are lost at once"),
    ("files", "more connections than there may be open files"),
];

/// Runs one scenario; its line, and what was wrong with it.
///
/// # Panics
/// When there is no such scenario, or the broker cannot be started.
pub fn run(name: &str, plan: &Plan) -> (String, Vec<String>) {
    match name {
        "flood" => scenarios::flood(plan),
        "queue" => scenarios::queue(plan),
        "stalled" => scenarios::stalled(plan),
        "fanout" => scenarios::fanout(plan),
        "replay" => scenarios::replay(plan),
        "silent" => scenarios::silent(plan),
        "storm" => scenarios::storm(plan),
        "takeover" => scenarios::takeover(plan),
        "subscribe" => scenarios::subscribe_storm(plan),
        "wills" => scenarios::wills(plan),
        "files" => scenarios::files(plan),
        other => panic!("there is no scenario {other}"),
    }
}

/// An attack: the broker, the bystanders, and what is said of it.
struct Attack<'a> {
    plan: &'a Plan,
    name: &'static str,
    target: Target,
    bystanders: Bystanders,
    before: Trips,
    line: String,
    wrong: Vec<String>,
}

impl<'a> Attack<'a> {
    fn new(plan: &'a Plan, name: &'static str, options: &str, files: Option<u32>) -> Self {
        let target = Target::start(&plan.command, options, files);
        let bystanders = Bystanders::start(target.address).expect("bystanders are let in");
        let (line, wrong) = (String::new(), Vec::new());
        Self { plan, name, target, bystanders, before: Trips::default(), line, wrong }
    }

    /// What was until now is before, what comes is during.
    fn begin(&mut self) {
        self.bystanders.trips();
        thread::sleep(Duration::from_millis(if self.plan.scale > 1 { 100 } else { 1500 }));
        self.before = self.bystanders.trips();
    }

    fn say(&mut self, what: &str) {
        let separator = if self.line.is_empty() { "" } else { ", " };
        let _ = write!(self.line, "{separator}{what}");
    }

    /// What has to be.
    fn check(&mut self, holds: bool, what: &str) {
        if !holds {
            self.wrong.push(format!("{}: {what}", self.name));
        }
    }

    /// The attack is over: the line, and what was wrong.
    fn end(mut self, resident_max_kb: u64) -> (String, Vec<String>) {
        let during = self.bystanders.trips();
        let failed = self.bystanders.stop();
        let lives = self.target.lives();
        self.check(lives, "the broker is gone");
        self.check(failed.is_none(), &format!("bystanders were not served: {failed:?}"));
        let p99 = Duration::from_micros(during.p99.into());
        self.check(p99 <= self.plan.p99_max, &format!("the p99 of bystanders was {p99:?}"));
        let peak = self.target.peak();
        self.check(peak <= resident_max_kb, &format!("{peak} KiB resident, {resident_max_kb} may be"));
        let report = if lives { self.target.report() } else { Default::default() };
        let told = |name: &&String| name.contains("dropped") || name.starts_with("limits/");
        let counts = report.iter().filter(|(name, value)| told(name) && **value > 0);
        let counts: Vec<_> = counts.map(|(name, value)| format!("{name} {value}")).collect();
        let (name, before, line, cpu) = (self.name, self.before, &self.line, self.target.cpu());
        let line = format!(
            "{name}: {line}; bystanders {before} before, {during} during{}; at most {:.1} MiB resident; {cpu:.1} s CPU; {}",
            if failed.is_some() { " (CUT OFF)" } else { "" },
            peak as f64 / 1024.0,
            if counts.is_empty() { "nothing counted".to_owned() } else { counts.join(", ") },
        );
        let wrong = if self.plan.ours { self.wrong } else { Vec::new() };
        (line, wrong)
    }
}
