//! What the options of `hikyaku-bench` alone say.

use super::super::Failure;
use super::super::options::{Id, Opt};
use super::payload;
use hikyaku_proto::topic::TopicFilter;
use std::time::Duration;

/// What is done to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Mode {
    Conn,
    Pub,
    Sub,
    P2p,
    FanIn,
    FanOut,
}

const MODES: [Mode; 6] = [Mode::Conn, Mode::Pub, Mode::Sub, Mode::P2p, Mode::FanIn, Mode::FanOut];

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Conn => "conn",
            Mode::Pub => "pub",
            Mode::Sub => "sub",
            Mode::P2p => "p2p",
            Mode::FanIn => "fan-in",
            Mode::FanOut => "fan-out",
        }
    }

    pub const fn publishes(self) -> bool {
        !matches!(self, Mode::Conn | Mode::Sub)
    }

    /// Whether what is published is received here.
    pub const fn receives_its_own(self) -> bool {
        matches!(self, Mode::P2p | Mode::FanIn | Mode::FanOut)
    }
}

#[derive(Clone, Debug)]
pub(in super::super) struct Wanted {
    mode: Option<Mode>,
    pub connections: usize,
    pub threads: usize,
    /// Messages a second in all.
    pub rate: Option<f64>,
    /// Connections a second in all.
    pub connect_rate: Option<f64>,
    window: Option<u32>,
    pub size: usize,
    duration: Option<Duration>,
    pub warmup: Duration,
    pub bind: Vec<String>,
    pub json: bool,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            mode: None,
            connections: 100,
            threads: 1,
            rate: None,
            connect_rate: None,
            window: None,
            size: 64,
            duration: None,
            warmup: Duration::ZERO,
            bind: Vec::new(),
            json: false,
        }
    }
}

impl Wanted {
    pub fn set_mode(&mut self, name: &str) -> Result<(), Failure> {
        let Some(mode) = MODES.into_iter().find(|mode| mode.name() == name) else {
            return Err(Failure::usage(format!("'{name}' is none of {}.", names())));
        };
        match self.mode.replace(mode) {
            Some(other) if other != mode => {
                Err(Failure::usage(format!("One of {} and {name} at a time.", other.name())))
            }
            _ => Ok(()),
        }
    }

    pub fn set(&mut self, opt: &Opt, value: &str) -> Result<(), Failure> {
        let name = opt.names.into_iter().find(|name| name.starts_with("--")).unwrap_or(opt.names[0]);
        let wrong = |what: &str| Failure::usage(format!("{name} has to be {what}, not '{value}'."));
        let number = |least: usize, most: usize| {
            let number = value.parse().ok().filter(|n| (least..=most).contains(n));
            number.ok_or_else(|| wrong(&format!("a number from {least} to {most}")))
        };
        let rate = || {
            let rate = value.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= 1e9);
            rate.map(Some).ok_or_else(|| wrong("a number above 0"))
        };
        let time = |least: f64| {
            let seconds = value.parse::<f64>().ok().filter(|s| *s >= least && *s <= 1e7);
            seconds.map(Duration::from_secs_f64).ok_or_else(|| wrong("a number of seconds"))
        };
        match opt.id {
            Id::Connections => self.connections = number(1, 10_000_000)?,
            Id::Threads => self.threads = number(1, 64)?,
            Id::Window => self.window = Some(number(1, 1_000_000)? as u32),
            Id::Size => self.size = number(0, 268_000_000)?,
            Id::Rate => self.rate = rate()?,
            Id::ConnectRate => self.connect_rate = rate()?,
            Id::BenchTime => self.duration = Some(time(0.001)?),
            Id::Warmup => self.warmup = time(0.0)?,
            _ => {}
        }
        Ok(())
    }

    /// What only shows when all is known.
    pub fn check(&self, topic: Option<&str>, count: Option<u32>) -> Result<(), Failure> {
        let Some(mode) = self.mode else {
            return Err(Failure::usage(format!("Say what to do: {}.", names())));
        };
        let wrong = match mode {
            Mode::Conn | Mode::Sub if self.rate.is_some() => {
                "sends no messages, so there is no --rate; --connect-rate is how fast connections are opened."
            }
            Mode::Conn | Mode::Sub if self.window.is_some() => "sends no messages, so there is no --window.",
            Mode::Conn if count.is_some() => {
                "has no messages to count (-C); -n is how many connections there are."
            }
            Mode::Conn if topic.is_some() => "has no topic.",
            Mode::P2p | Mode::FanIn | Mode::FanOut if self.size < payload::HEAD => {
                "needs payloads of 24 bytes or more: they carry number and time."
            }
            Mode::FanIn if TopicFilter::parse(&self.filter(topic, 0)).is_err() => {
                "subscribes with + in the place of %i, which has to be a whole level of the topic."
            }
            Mode::P2p if topic.is_some_and(|topic| !topic.contains("%i")) => {
                "needs a topic for each pair: one with %i."
            }
            _ => return Ok(()),
        };
        Err(Failure::usage(format!("{} {wrong}", mode.name())))
    }

    /// Of these, one connection and nothing else.
    pub fn only_connect(&self) -> Wanted {
        let (mode, duration) = (Some(Mode::Conn), Some(Duration::ZERO));
        Wanted { mode, duration, connections: 1, ..Wanted::default() }
    }

    pub fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::Conn)
    }

    pub fn publishers(&self) -> usize {
        match self.mode() {
            Mode::Conn | Mode::Sub => 0,
            Mode::FanOut => 1,
            Mode::Pub | Mode::P2p | Mode::FanIn => self.connections,
        }
    }

    pub fn subscribers(&self) -> usize {
        match self.mode() {
            Mode::Conn | Mode::Pub => 0,
            Mode::FanIn => 1,
            Mode::Sub | Mode::P2p | Mode::FanOut => self.connections,
        }
    }

    /// Connections that do nothing.
    pub fn idle(&self) -> usize {
        if self.mode() == Mode::Conn { self.connections } else { 0 }
    }

    /// How many connections there will be.
    pub fn total(&self) -> usize {
        self.publishers() + self.subscribers() + self.idle()
    }

    /// How many messages of a publisher may be outstanding.
    pub fn window(&self) -> u32 {
        self.window.unwrap_or(if self.rate.is_some() { 1000 } else { 20 })
    }

    /// How long it goes on; without a number of messages it has to end some time.
    pub fn duration(&self, count: Option<u32>) -> Option<Duration> {
        match count {
            None => Some(self.duration.unwrap_or(Duration::from_secs(10))),
            Some(_) => self.duration,
        }
    }

    pub fn topic(&self, topic: Option<&str>, number: usize) -> String {
        topic.unwrap_or("bench/%i").replace("%i", &number.to_string())
    }

    /// What a subscriber subscribes to.
    pub fn filter(&self, topic: Option<&str>, number: usize) -> String {
        match self.mode() {
            Mode::FanIn => topic.unwrap_or("bench/%i").replace("%i", "+"),
            Mode::FanOut => self.topic(topic, 0),
            _ => self.topic(topic, number),
        }
    }
}

fn names() -> String {
    let names = MODES.map(Mode::name);
    format!("{} or {}", names[..5].join(", "), names[5])
}
