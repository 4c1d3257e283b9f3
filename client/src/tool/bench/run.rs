//! What the threads of a run share.

use super::super::config::Config;
use super::meter::Meter;
use super::payload::Clock;
use super::wanted::Wanted;
use crate::transport::Route;
use crate::{Options, QoS, Version};
use mio::Waker;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Where a run stands. The main thread decides, and the workers say when they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Subscribers connect and subscribe.
    Subscribe,
    /// All others connect.
    Connect,
    /// Messages are sent.
    Send,
    /// No more are sent.
    Stop,
    /// Those underway arrive.
    Drain,
    /// Everybody says goodbye.
    Close,
}

impl Phase {
    fn of(number: u8) -> Phase {
        use Phase::{Close, Connect, Drain, Send, Stop, Subscribe};
        [Subscribe, Connect, Send, Stop, Drain, Close][usize::from(number).min(5)]
    }
}

/// Says that a worker has done what a phase asks of it.
pub(super) struct Done(pub Phase);

/// One publisher, as those see it who receive from it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Flow {
    /// How many messages it has sent.
    pub sent: AtomicU64,
    /// How many of them the broker did not take.
    pub rejected: AtomicU64,
    /// How far the subscribers' rows of it go, all together.
    pub arrived: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Run {
    pub wanted: Wanted,
    pub topic: Option<String>,
    pub count: Option<u32>,
    pub qos: QoS,
    pub retain: bool,
    pub route: Route,
    /// The server's address, but for a unix socket.
    pub addr: Option<SocketAddr>,
    /// Where connections come from, in turns.
    pub bind: Vec<IpAddr>,
    pub options: Options,
    /// What client identifiers begin with.
    pub prefix: String,
    pub tag: u16,
    pub clock: Clock,
    phase: AtomicU8,
    /// When the phase began, and when to measure from; nanoseconds.
    pub began: AtomicU64,
    pub measured_from: AtomicU64,
    pub flows: Vec<Flow>,
    /// How many subscribers are there, and so receive each message, but for p2p.
    pub subscribers: AtomicUsize,
    pub meters: Vec<Mutex<Meter>>,
    pub wakers: Vec<Waker>,
}

impl Run {
    pub fn new(config: &Config, (route, options): (Route, Options), bind: Vec<IpAddr>, tag: u16) -> Run {
        let wanted = config.bench.clone();
        let prefix = config.id_prefix.clone().unwrap_or_else(|| format!("bench-{tag:04x}-"));
        Run {
            topic: config.topics.first().cloned(),
            count: config.count,
            qos: config.qos,
            retain: config.retain,
            route,
            addr: None,
            bind,
            options,
            prefix,
            tag,
            clock: Clock::start(),
            phase: AtomicU8::new(Phase::Subscribe as u8),
            began: AtomicU64::new(0),
            measured_from: AtomicU64::new(u64::MAX),
            flows: (0..wanted.publishers()).map(|_| Flow::default()).collect(),
            subscribers: AtomicUsize::new(0),
            meters: (0..wanted.threads).map(|_| Mutex::default()).collect(),
            wakers: Vec::new(),
            wanted,
        }
    }

    /// One that only sees whether it is let in there, without leaving anything behind.
    pub fn with_one_connection(&self, addr: Option<SocketAddr>) -> Run {
        let wanted = self.wanted.only_connect();
        Run {
            topic: None,
            count: None,
            addr,
            route: self.route.clone(),
            bind: self.bind.clone(),
            options: Options { clean_start: true, session_expiry_s: 0, ..self.options.clone() },
            prefix: format!("{}probe-", self.prefix),
            phase: AtomicU8::new(Phase::Subscribe as u8),
            began: AtomicU64::new(0),
            measured_from: AtomicU64::new(u64::MAX),
            flows: Vec::new(),
            subscribers: AtomicUsize::new(0),
            meters: vec![Mutex::default()],
            wakers: Vec::new(),
            wanted,
            ..*self
        }
    }

    pub fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Relaxed))
    }

    pub fn enter(&self, phase: Phase) {
        self.began.store(self.clock.now(), Relaxed);
        self.phase.store(phase as u8, Relaxed);
        (0..self.wakers.len()).for_each(|worker| self.wake(worker));
    }

    pub fn wake(&self, worker: usize) {
        if let Err(error) = self.wakers[worker].wake() {
            log::debug!("Cannot wake a thread: {error}.");
        }
    }

    pub fn version(&self) -> Version {
        self.options.version
    }

    /// How many messages a publisher is to send.
    pub fn share(&self, publisher: usize) -> u64 {
        let all = self.wanted.publishers() as u64;
        match self.count.map(u64::from) {
            Some(count) => count / all + u64::from((publisher as u64) < count % all),
            None => u64::MAX,
        }
    }

    /// When the message of a publisher with that number is due.
    pub fn due(&self, rate: f64, publisher: usize, number: u64) -> u64 {
        let index = number as f64 * self.wanted.publishers() as f64 + publisher as f64;
        self.began.load(Relaxed) + (index * 1e9 / rate) as u64
    }
}
