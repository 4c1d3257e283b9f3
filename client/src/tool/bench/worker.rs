//! One thread: a poll, its share of the connections, and when what is due.

use super::connection::{At, Connection, Hub, Publisher, Ready, Role, Stage, Subscriber};
use super::meter::Meter;
use super::run::{Done, Phase, Run};
use super::track::Track;
use super::wanted::Mode;
use mio::{Events, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// The token of the waker; connections have those from 0 on.
pub(super) const WAKE: Token = Token(usize::MAX);
const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// How many connections are underway at once where no rate is asked for, of all threads.
const UNDERWAY_MAX: usize = 128;
/// How long nothing may come before what has not come is given up.
const PATIENCE: u64 = 5 * SECOND;
/// Pauses from here on are left to the poll, which counts in milliseconds.
const LONG: u64 = 20 * MILLISECOND;

/// What a worker knows in the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// Messages that have not arrived.
    pub lost: u64,
    /// Messages that were due and are not sent.
    pub unsent: u64,
}

pub(super) struct Worker<'r> {
    run: &'r Run,
    poll: Poll,
    done: Sender<Done>,
    hub: Hub,
    connections: Vec<Connection>,
    /// Where subscribers and publishers are among them.
    subscribers: Range<usize>,
    publishers: Range<usize>,
    phase: Phase,
    /// Whether the phase's work is done, and said.
    said: bool,
    /// Connections of this phase that were not begun, and how many were.
    waiting: VecDeque<usize>,
    begun: usize,
    /// Connections that have more to read.
    more: Vec<usize>,
    /// With a rate: the publisher to send next, and its message's number.
    next: (usize, u64),
    /// When something last came.
    active: u64,
    ticked: u64,
    buffer: Box<[u8]>,
}

impl<'r> Worker<'r> {
    pub fn new(run: &'r Run, number: usize, poll: Poll, done: Sender<Done>) -> Worker<'r> {
        let wanted = &run.wanted;
        let mine = |count: usize| (number..count).step_by(wanted.threads);
        let topic = run.topic.as_deref();
        let options = |letter: char, number: usize| {
            let mut options = run.options.clone();
            options.client_id = format!("{}{letter}{number}", run.prefix);
            options
        };
        let mut connections = Vec::new();
        for number in mine(wanted.subscribers()) {
            let heard = match wanted.mode() {
                Mode::P2p => number..number + 1,
                Mode::FanIn | Mode::FanOut => 0..wanted.publishers(),
                _ => 0..0,
            };
            let subscriber = Subscriber {
                filter: wanted.filter(topic, number),
                first: heard.start,
                tracks: vec![Track::default(); heard.len()],
                others: HashMap::new(),
                took_part: false,
            };
            connections.push(Connection::new(options('s', number), Role::Subscriber(subscriber)));
        }
        let subscribers = 0..connections.len();
        for number in mine(wanted.publishers()) {
            let publisher = Publisher::new(number, wanted.topic(topic, number), run.share(number));
            connections.push(Connection::new(options('p', number), Role::Publisher(publisher)));
        }
        let publishers = subscribers.end..connections.len();
        connections
            .extend(mine(wanted.idle()).map(|number| Connection::new(options('c', number), Role::Idle)));
        let letters = b"abcdefghijklmnopqrstuvwxyz".iter().cycle();
        Worker {
            run,
            poll,
            done,
            hub: Hub {
                worker: number,
                pending: 0,
                live: 0,
                sending: 0,
                ready: Ready::of(publishers.len()),
                wake: 0,
                payload: letters.take(wanted.size).copied().collect(),
            },
            waiting: subscribers.clone().collect(),
            connections,
            subscribers,
            publishers,
            phase: Phase::Subscribe,
            said: false,
            begun: 0,
            more: Vec::new(),
            next: (0, 0),
            active: 0,
            ticked: 0,
            buffer: vec![0; 64 << 10].into_boxed_slice(),
        }
    }

    /// Works until all is over.
    pub fn work(mut self) -> io::Result<Outcome> {
        if self.run.wanted.rate.is_some() {
            precise_sleep();
        }
        let mut events = Events::with_capacity(1024);
        loop {
            let pause = self.turn(&mut events);
            if self.phase == Phase::Close {
                return Ok(self.outcome());
            }
            self.sleep(&mut events, pause)?;
        }
    }

    /// Does everything there is to do, and says how long nothing more will be due.
    fn turn(&mut self, events: &mut Events) -> u64 {
        let mut meter = lock(self.run, self.hub.worker);
        let now = self.run.clock.now();
        let mut at = At {
            run: self.run,
            hub: &mut self.hub,
            meter: &mut meter,
            now,
            measured_from: self.run.measured_from.load(Relaxed),
        };
        let mut more = std::mem::take(&mut self.more);
        for event in events.iter().filter(|event| event.token() != WAKE) {
            let connection = &mut self.connections[event.token().0];
            connection.note(event);
            at.now = now;
            if connection.turn(&mut at, &mut self.buffer) {
                more.push(event.token().0);
            }
        }
        // Those that had too much for their turn before.
        let again = more.len();
        for index in 0..again {
            at.now = now;
            if self.connections[more[index]].turn(&mut at, &mut self.buffer) {
                more.push(more[index]);
            }
        }
        more.drain(..again);
        more.sort_unstable();
        more.dedup();
        self.more = more;
        if events.iter().any(|event| event.token() != WAKE) {
            self.active = now;
        }
        if events.iter().any(|event| event.token() == WAKE) {
            // Another worker may have received what one of these waited for.
            (0..self.publishers.len()).for_each(|local| at.hub.ready.push(local));
        }
        events.clear();
        if now >= self.ticked + SECOND {
            self.ticked = now;
            for connection in &mut self.connections {
                at.now = now;
                connection.tick(&mut at);
            }
        }
        self.follow(&mut meter, now);
        self.begin(&mut meter, now);
        self.publish(&mut meter);
        self.report(now);
        let woken = std::mem::take(&mut self.hub.wake);
        (0..self.run.wanted.threads).filter(|worker| woken >> worker & 1 == 1).for_each(|w| self.run.wake(w));
        self.pause()
    }

    /// Enters the phase that the others are in.
    fn follow(&mut self, meter: &mut Meter, now: u64) {
        let phase = self.run.phase();
        if phase == self.phase {
            return;
        }
        (self.phase, self.said, self.active) = (phase, false, now);
        let mut at = At { run: self.run, hub: &mut self.hub, meter, now, measured_from: u64::MAX };
        match phase {
            Phase::Subscribe => {}
            Phase::Connect => {
                self.waiting = (self.subscribers.end..self.connections.len()).collect();
                self.begun = 0;
            }
            Phase::Send => {
                for (local, index) in self.publishers.clone().enumerate() {
                    let has_own = self.subscribers.clone().nth(local);
                    let takers = match self.run.wanted.mode() {
                        Mode::P2p => {
                            u64::from(has_own.is_some_and(|index| self.connections[index].stage == Stage::Up))
                        }
                        Mode::FanIn | Mode::FanOut => self.run.subscribers.load(Relaxed) as u64,
                        _ => 0,
                    };
                    let connection = &mut self.connections[index];
                    let useful = takers > 0 || self.run.wanted.mode() == Mode::Pub;
                    if let (Role::Publisher(publisher), true, Stage::Up) =
                        (&mut connection.role, useful, connection.stage)
                    {
                        (publisher.takers, publisher.sending) = (takers, publisher.limit > 0);
                        at.hub.sending += usize::from(publisher.sending);
                        at.hub.ready.push(local);
                    }
                }
            }
            Phase::Stop => {
                for connection in &mut self.connections[self.publishers.clone()] {
                    if let Role::Publisher(publisher) = &mut connection.role {
                        publisher.sending = false;
                    }
                }
                at.hub.sending = 0;
            }
            Phase::Drain => {}
            Phase::Close => self.connections.iter_mut().for_each(|connection| connection.close(&mut at)),
        }
    }

    /// Begins the connections whose time has come.
    fn begin(&mut self, meter: &mut Meter, now: u64) {
        let began = self.run.began.load(Relaxed);
        let threads = self.run.wanted.threads;
        let most = (UNDERWAY_MAX / threads).max(1);
        while let Some(&index) = self.waiting.front() {
            let due = match self.run.wanted.connect_rate {
                Some(rate) => began + self.connect_due(rate),
                None if self.hub.pending >= most => return,
                None => self.run.clock.now(),
            };
            if due > now.max(self.run.clock.now()) {
                return;
            }
            let mut at =
                At { run: self.run, hub: &mut self.hub, meter: &mut *meter, now, measured_from: u64::MAX };
            if !self.connections[index].begin(&mut at, self.poll.registry(), Token(index), due) {
                return;
            }
            self.waiting.pop_front();
            self.begun += 1;
        }
    }

    /// When the next connection is due, after the beginning of the phase.
    fn connect_due(&self, rate: f64) -> u64 {
        let number = self.begun * self.run.wanted.threads + self.hub.worker;
        (number as f64 * 1e9 / rate) as u64
    }

    /// Sends what is due, or what there is room for.
    fn publish(&mut self, meter: &mut Meter) {
        if self.phase != Phase::Send {
            return;
        }
        let now = self.run.clock.now();
        if let Some(rate) = self.run.wanted.rate {
            while self.next_due(rate).is_some_and(|due| due <= now) {
                let (local, number) = self.next;
                let connection = &mut self.connections[self.publishers.start + local];
                if let Role::Publisher(publisher) = &mut connection.role
                    && publisher.sending
                    && number < publisher.limit
                {
                    publisher.owed += 1;
                    self.hub.ready.push(local);
                }
                self.next =
                    if local + 1 < self.publishers.len() { (local + 1, number) } else { (0, number + 1) };
            }
        }
        let mut list = Vec::new();
        self.hub.ready.take(&mut list);
        let measured_from = self.run.measured_from.load(Relaxed);
        let mut at = At { run: self.run, hub: &mut self.hub, meter, now, measured_from };
        for local in list {
            self.connections[self.publishers.start + local].publish(&mut at);
        }
    }

    /// When the next message is due, with a rate.
    fn next_due(&self, rate: f64) -> Option<u64> {
        let (local, number) = self.next;
        let publisher = local * self.run.wanted.threads + self.hub.worker;
        (local < self.publishers.len()).then(|| self.run.due(rate, publisher, number))
    }

    /// Says when the phase's work is done.
    fn report(&mut self, now: u64) {
        let done = match self.phase {
            Phase::Subscribe | Phase::Connect => self.waiting.is_empty() && self.hub.pending == 0,
            Phase::Send if self.run.wanted.mode().publishes() => self.hub.sending == 0,
            Phase::Send => self.hub.live == 0,
            Phase::Stop | Phase::Close => true,
            Phase::Drain => self.is_drained() || now > self.active + PATIENCE,
        };
        if done && !self.said {
            self.said = true;
            // Nobody hears it when all is over.
            let _ = self.done.send(Done(self.phase));
        }
    }

    fn is_drained(&self) -> bool {
        if self.run.wanted.mode() == Mode::Sub {
            // What others send has no end.
            return true;
        }
        let mut live = self.connections.iter().filter(|connection| connection.stage == Stage::Up);
        live.all(|connection| connection.unfinished() == 0 && connection.missing(self.run) == 0)
    }

    fn pause(&self) -> u64 {
        let now = self.run.clock.now();
        if !self.more.is_empty() || !self.hub.ready.is_empty() && self.phase == Phase::Send {
            return 0;
        }
        let mut until = self.ticked + SECOND;
        if self.phase == Phase::Drain && !self.said {
            until = until.min(now + 10 * MILLISECOND);
        }
        if let (false, Some(rate)) = (self.waiting.is_empty(), self.run.wanted.connect_rate) {
            until = until.min(self.run.began.load(Relaxed) + self.connect_due(rate));
        } else if !self.waiting.is_empty() {
            // Nothing is underway that could tell when there is room.
            until = until.min(now + MILLISECOND);
        }
        if self.phase == Phase::Send
            && self.hub.sending > 0
            && let Some(due) = self.run.wanted.rate.and_then(|rate| self.next_due(rate))
        {
            until = until.min(due);
        }
        until.saturating_sub(now)
    }

    fn sleep(&mut self, events: &mut Events, pause: u64) -> io::Result<()> {
        let mut left = Duration::from_nanos(pause);
        if pause > 0 && pause < LONG {
            // The poll rounds up to milliseconds, which is too much for what is due.
            let mut files = [PollFd::from_borrowed_fd(self.poll.registry().as_fd(), PollFlags::IN)];
            let pause = Timespec { tv_sec: 0, tv_nsec: pause as _ };
            match rustix::event::poll(&mut files, Some(&pause)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => left = Duration::ZERO,
                Err(error) => return Err(error.into()),
            }
        }
        match self.poll.poll(events, Some(left)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn outcome(&self) -> Outcome {
        let owed = |connection: &Connection| match &connection.role {
            Role::Publisher(publisher) => publisher.owed,
            _ => 0,
        };
        Outcome {
            lost: self.connections.iter().map(|connection| connection.missing(self.run)).sum(),
            unsent: self.connections.iter().map(owed).sum(),
        }
    }
}

/// The meter of a worker.
pub(super) fn lock(run: &Run, worker: usize) -> MutexGuard<'_, Meter> {
    run.meters[worker].lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes when it is due, and not up to 50 µs later, for the system to save wake-ups.
fn precise_sleep() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)) {
        log::debug!("The timer cannot be made more precise: {error}.");
    }
}
