//! The clients and the broker, driven by one thread.

mod events;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time;

use hikyaku_proto::client::PublishRequest;
use hikyaku_proto::codec::{Properties, QoS, ReasonCode};
use hikyaku_proto::time::Instant;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;

use super::house::{House, Vitals};
use super::member::{Member, Role};
use super::oracle::{Kind, Oracle, Will};
use super::{Outcome, Plan};
use crate::line::{Line, certificate};
use crate::process::free_port;
use crate::random::Random;

/// How long anything may take that has to come, in milliseconds.
const PATIENCE_MS: u64 = 120_000;
/// How many messages of a publisher may be without acknowledgement.
const OPEN_MAX: usize = 40;

/// After so long all caches of the broker are warm.
const WARM_MS: u64 = 300_000;

/// A connection whose client is done with it, and that the broker has to close.
struct Ghost {
    line: Line,
    since_ms: u64,
    life: u32,
    who: String,
    /// The will that is deleted when it is closed.
    will: Option<(usize, usize)>,
}

/// What the broker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broker {
    Up { until_ms: u64 },
    Ending { since_ms: u64 },
    Away { until_ms: u64 },
    Starting { since_ms: u64 },
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All connect and subscribe.
    Gather {
        since_ms: u64,
    },
    Load {
        until_ms: u64,
    },
    /// Everything comes to its end.
    Quiet {
        since_ms: u64,
        whole_ms: Option<u64>,
    },
}

/// A look in a quiet phase.
struct Sample {
    life: u32,
    /// How long the broker has lived.
    age_ms: u64,
    at_ms: u64,
    vitals: Vitals,
    connected: usize,
}

pub(super) struct Crowd<'a> {
    plan: &'a Plan,
    random: Random,
    start: time::Instant,
    poll: Poll,
    tls: Arc<ClientConfig>,
    house: House,
    broker: Broker,
    phase: Phase,
    members: Vec<Member>,
    /// Members by publisher's number.
    publishers: Vec<usize>,
    ghosts: Vec<Ghost>,
    oracle: Oracle,
    outcome: Outcome,
    samples: Vec<Sample>,
    /// When the broker came up.
    born_ms: u64,
    published: u64,
    reload_ms: u64,
    /// Connections that ended before they were let in, though the broker was up.
    early: u64,
    buffer: Vec<u8>,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let _ = fs::remove_dir_all(&plan.folder);
        fs::create_dir_all(&plan.folder).expect("the folder can be made");
        let (cert, key, tls) = certificate();
        fs::write(plan.folder.join("server.crt"), cert).expect("the folder can be written");
        fs::write(plan.folder.join("server.key"), key).expect("the folder can be written");
        let house = House::new(&plan.broker, &plan.folder, [free_port(), free_port()]);
        let is_publisher = |index: &usize| matches!(Role::of(*index), Role::Publisher(_));
        let publishers: Vec<_> = (0..plan.clients).filter(is_publisher).collect();
        let members: Vec<_> = (0..plan.clients)
            .map(|index| Member::new(index, publishers.len(), plan.pace, &mut random))
            .collect();
        let mut oracle = Oracle::new(publishers.len());
        for member in &members {
            match member.role {
                Role::Mortal => drop(oracle.wills.insert(member.index, Vec::new())),
                Role::Mourner => drop(oracle.watched.insert(member.index, BTreeMap::new())),
                _ => {}
            }
        }
        Self {
            plan,
            random,
            start: time::Instant::now(),
            poll: Poll::new().expect("there is a poll"),
            tls,
            house,
            broker: Broker::Away { until_ms: 0 },
            phase: Phase::Gather { since_ms: 0 },
            members,
            publishers,
            ghosts: Vec::new(),
            oracle,
            outcome: Outcome::default(),
            samples: Vec::new(),
            born_ms: 0,
            published: 0,
            reload_ms: 5_000,
            early: 0,
            buffer: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        let mut events = Events::with_capacity(1024);
        let (mut round_ms, mut tell_ms) = (0, 0);
        loop {
            let patience = Some(time::Duration::from_millis(5));
            if let Err(e) = self.poll.poll(&mut events, patience)
                && e.kind() != ErrorKind::Interrupted
            {
                panic!("cannot poll: {e}");
            }
            for event in &events {
                self.pump(event.token().0);
            }
            let now_ms = self.now_ms();
            if round_ms + 20 <= now_ms {
                let passed = now_ms - round_ms;
                round_ms = now_ms;
                self.round(now_ms);
                self.publish(passed);
            }
            if tell_ms + 10_000 <= now_ms {
                tell_ms = now_ms;
                self.tell(now_ms);
            }
            let end_ms = self.plan.seconds * 1000;
            if let Phase::Load { until_ms } = &mut self.phase {
                *until_ms = (*until_ms).min(end_ms);
            }
            // The last quiet phase is over.
            let over = self.samples.last().is_some_and(|sample| sample.at_ms >= end_ms);
            if over || self.oracle.wrong.len() > 100 {
                break;
            }
        }
        self.finish()
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.start.elapsed().as_micros() as u64)
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// What has to be done now and then: for the broker, the phase, and each member.
    fn round(&mut self, now_ms: u64) {
        self.drive_broker(now_ms);
        self.drive_phase(now_ms);
        self.look_at_ghosts(now_ms);
        let now = self.now();
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if member.client.poll_timeout().is_some_and(|at| at <= now) {
                member.client.handle_timeout(now);
                self.pump(index);
            }
            if self.members[index].at_ms <= now_ms {
                self.act(index, now_ms);
            }
        }
    }

    fn drive_broker(&mut self, now_ms: u64) {
        self.broker = match self.broker {
            Broker::Up { until_ms } if until_ms <= now_ms && matches!(self.phase, Phase::Load { .. }) => {
                let killed = self.random.below(2) == 0;
                self.oracle.broker_ends(self.now().micros(), killed);
                if killed {
                    self.outcome.kills += 1;
                    self.house.kill();
                    Broker::Away { until_ms: now_ms + self.random.below(2_000) }
                } else {
                    self.outcome.stops += 1;
                    self.house.terminate();
                    Broker::Ending { since_ms: now_ms }
                }
            }
            Broker::Up { .. } => {
                if self.reload_ms <= now_ms {
                    self.reload_ms = now_ms + self.random.between(5_000, 30_000);
                    self.house.reload();
                }
                self.look_at_house();
                self.broker
            }
            Broker::Ending { since_ms } => match self.house.ended() {
                Some(code) => {
                    if code != Some(0) {
                        self.oracle.wrong(format!("the broker ended with {code:?} at SIGTERM"));
                    }
                    Broker::Away { until_ms: now_ms + self.random.below(1_000) }
                }
                None => {
                    if since_ms + PATIENCE_MS < now_ms {
                        self.oracle.wrong("the broker does not end at SIGTERM".to_owned());
                        self.house.kill();
                        self.house.life -= 1;
                        Broker::Away { until_ms: now_ms }
                    } else {
                        self.broker
                    }
                }
            },
            Broker::Away { until_ms } if until_ms <= now_ms => {
                let workers = self.random.between(1, 4);
                self.house.start(workers).expect("the broker can be started");
                Broker::Starting { since_ms: now_ms }
            }
            Broker::Away { .. } => self.broker,
            Broker::Starting { since_ms } => {
                if self.look_at_house() {
                    self.born_ms = now_ms;
                    Broker::Up { until_ms: now_ms + self.life_ms() }
                } else {
                    if since_ms + PATIENCE_MS < now_ms {
                        panic!("the broker does not start");
                    }
                    self.broker
                }
            }
        };
    }

    /// Short lives, and long ones, in which memory can grow.
    fn life_ms(&mut self) -> u64 {
        let max = self.plan.life_max * 1000;
        match self.random.below(4) {
            _ if max == 0 => u64::MAX / 2,
            0 => max / 4 + self.random.below(max),
            1 => self.random.between(max / 20, max / 4),
            _ => self.random.between(max / 100, max / 10),
        }
    }

    fn look_at_house(&mut self) -> bool {
        match self.house.look() {
            Ok(up) => up,
            Err(what) => panic!("seed {}: {what}", self.plan.seed),
        }
    }

    fn drive_phase(&mut self, now_ms: u64) {
        match self.phase {
            Phase::Gather { since_ms } => {
                if self.members.iter().all(Member::idle) {
                    println!("all are there after {:.1} s", (now_ms - since_ms) as f64 / 1000.0);
                    self.spread(now_ms);
                } else if since_ms + PATIENCE_MS < now_ms {
                    let who: Vec<_> = self.members.iter().filter(|m| !m.idle()).map(Member::state).collect();
                    panic!("seed {}: these did not get in: {who:?}", self.plan.seed);
                }
            }
            Phase::Load { until_ms } if until_ms <= now_ms && matches!(self.broker, Broker::Up { .. }) => {
                self.phase = Phase::Quiet { since_ms: now_ms, whole_ms: None };
                for member in &mut self.members {
                    member.at_ms = if member.line.is_some() { u64::MAX } else { now_ms };
                }
            }
            Phase::Load { .. } => {}
            Phase::Quiet { since_ms, whole_ms } => {
                let missing =
                    if self.members.iter().all(Member::idle) { self.missing() } else { Some(String::new()) };
                match (missing, whole_ms) {
                    (None, None) => self.phase = Phase::Quiet { since_ms, whole_ms: Some(now_ms) },
                    (None, Some(at)) if at + 1_000 <= now_ms => {
                        self.sample(now_ms);
                        self.spread(now_ms);
                    }
                    (Some(what), _) if since_ms + PATIENCE_MS < now_ms => {
                        let late: Vec<_> =
                            self.members.iter().filter(|m| !m.idle()).map(Member::state).collect();
                        self.oracle.wrong(format!("lost: {what}, not done: {late:?}"));
                        self.sample(now_ms);
                        self.spread(now_ms);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The load begins.
    fn spread(&mut self, now_ms: u64) {
        self.phase = Phase::Load { until_ms: now_ms + self.plan.quiet_every * 1000 };
        for member in &mut self.members {
            member.at_ms = now_ms + self.random.below(2 * member.stay);
        }
    }

    /// What has not come to where it has to.
    fn missing(&self) -> Option<String> {
        for member in self.members.iter().filter(|m| matches!(m.role, Role::Subscriber | Role::Collector)) {
            for &stream in &member.streams {
                let sent = self.oracle.sent[stream.1][stream.0 as usize];
                let got = member.last.get(&stream).copied().unwrap_or(0);
                if got != sent {
                    return Some(format!("{} has {got} of {stream:?}'s {sent}", member.name()));
                }
            }
        }
        self.oracle.missing()
    }

    fn look_at_ghosts(&mut self, now_ms: u64) {
        let (oracle, buffer, now) = (&mut self.oracle, &mut self.buffer, self.start.elapsed());
        let life = self.house.life;
        self.ghosts.retain_mut(|ghost| {
            buffer.clear();
            let open = ghost.line.read(buffer).is_ok() && ghost.line.flush().is_ok();
            if open && ghost.since_ms + PATIENCE_MS < now_ms && ghost.life == life {
                oracle.wrong(format!("the broker does not close a connection of {}", ghost.who));
            }
            let gone = !open || ghost.since_ms + PATIENCE_MS < now_ms || ghost.life != life;
            if let (true, Some((member, at))) = (gone, ghost.will)
                && let Some(will) = oracle.wills.get_mut(&member).and_then(|wills| wills.get_mut(at))
                && matches!(will, Will::Deleted(_))
            {
                *will = Will::Deleted(now.as_micros() as u64);
            }
            !gone
        });
    }

    /// A member does what it has planned: comes, or goes in one of several ways.
    fn act(&mut self, index: usize, now_ms: u64) {
        let member = &mut self.members[index];
        let stay = self.random.between(member.stay / 2, member.stay * 3 / 2);
        if member.line.is_none() {
            let offline = matches!(self.phase, Phase::Load { .. });
            member.at_ms = if offline { now_ms + stay } else { u64::MAX };
            self.open(index, now_ms);
            return;
        }
        if !member.let_in {
            member.at_ms = now_ms + 1_000;
            return;
        }
        let pause = self.random.below(member.stay / 3 + 100);
        member.at_ms = now_ms + pause;
        match self.random.below(3) {
            0 => {
                let now = self.now();
                let member = &mut self.members[index];
                let _ = member.client.disconnect(now, ReasonCode::Success, Properties::EMPTY);
                self.pump(index);
            }
            1 => self.leave(index, now_ms, false),
            _ => {
                self.leave(index, now_ms, true);
                self.outcome.takeovers += 1;
                self.members[index].at_ms = now_ms + stay;
                self.open(index, now_ms);
            }
        }
    }

    fn open(&mut self, index: usize, now_ms: u64) {
        let now = self.now();
        let member = &mut self.members[index];
        let to = if member.layers.tls { self.house.secure } else { self.house.plain };
        member.life = self.house.life;
        let opened = Line::open(to, member.layers, &self.tls).and_then(|mut line| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(line.source(), Token(index), interest)?;
            Ok(line)
        });
        let line = match opened {
            Ok(line) => line,
            Err(e) => {
                self.early += 1;
                member.at_ms = now_ms + 500;
                assert!(self.early < 1_000_000, "cannot connect: {e}");
                return;
            }
        };
        member.renew();
        if member.role == Role::Mortal {
            self.oracle.wills.entry(index).or_default().push(Will::Connecting);
        }
        member.line = Some(line);
        member.client.transport_up(now);
        self.pump(index);
    }

    /// The connection of a member ends without a word: broken, or left for the broker to close.
    fn leave(&mut self, index: usize, now_ms: u64, taken_over: bool) {
        let now = self.now();
        let member = &mut self.members[index];
        let Some(mut line) = member.line.take() else { return };
        let _ = self.poll.registry().deregister(line.source());
        if taken_over {
            let (life, who) = (member.life, member.name());
            self.ghosts.push(Ghost { line, since_ms: now_ms, life, who, will: None });
        }
        self.mortal_ends(index, Will::Comes);
        self.members[index].client.transport_down(now);
        // What it says of its end is known.
        while self.members[index].client.poll_event().is_some() {}
    }

    fn mortal_ends(&mut self, index: usize, then: Will) {
        let member = &self.members[index];
        if member.role == Role::Mortal
            && let Some(will) = self.oracle.wills.get_mut(&index).and_then(|wills| wills.last_mut())
        {
            *will = match *will {
                Will::Standing => then,
                Will::Connecting => Will::Either,
                other => other,
            };
        }
    }

    /// Moves bytes and events until nothing moves.
    fn pump(&mut self, index: usize) {
        let Some(member) = self.members.get_mut(index) else { return };
        if member.line.is_none() {
            return;
        }
        let now = Instant::from_micros(self.start.elapsed().as_micros() as u64);
        let mut end = None;
        if let Some(line) = &mut member.line {
            self.buffer.clear();
            if let Err(e) = line.read(&mut self.buffer) {
                end = Some(e);
            }
            member.client.handle_bytes(now, &self.buffer);
        }
        self.take_events(index);
        let member = &mut self.members[index];
        if let Some(line) = &mut member.line {
            let outbox: Vec<u8> = member.client.outbox().chunks().flatten().copied().collect();
            if !outbox.is_empty() && line.write(&outbox) {
                member.client.written(outbox.len());
            }
            if let Err(e) = line.flush() {
                end = end.or(Some(e));
            }
            if end.is_none() && member.client.wants_close() && member.client.outbox().is_empty() {
                self.say_goodbye(index);
                return;
            }
        }
        if let Some(e) = end {
            self.broken(index, &e.to_string());
        }
    }

    /// The client is done, and its last bytes have left: the broker closes.
    fn say_goodbye(&mut self, index: usize) {
        let (now, now_ms) = (self.now(), self.now_ms());
        let member = &mut self.members[index];
        let Some(mut line) = member.line.take() else { return };
        let _ = self.poll.registry().deregister(line.source());
        let will = (member.role == Role::Mortal).then(|| (index, member.connections - 1));
        self.ghosts.push(Ghost { line, since_ms: now_ms, life: member.life, who: member.name(), will });
        member.client.transport_down(now);
        let let_in = std::mem::take(&mut member.let_in);
        self.mortal_ends(index, if let_in { Will::Deleted(u64::MAX) } else { Will::Either });
        self.take_events(index);
    }

    /// The transport ended, and nobody here wanted that.
    fn broken(&mut self, index: usize, why: &str) {
        let now = self.now();
        let now_ms = self.now_ms();
        let again_ms = now_ms + self.random.between(50, 500);
        let life = self.house.life;
        let member = &mut self.members[index];
        if let Some(mut line) = member.line.take() {
            let _ = self.poll.registry().deregister(line.source());
        }
        member.at_ms = again_ms;
        let let_in = std::mem::take(&mut member.let_in);
        if member.life == life && life.is_multiple_of(2) {
            if let_in {
                let name = member.name();
                self.oracle.wrong(format!("the broker closed a connection of {name}: {why}"));
            } else {
                self.early += 1;
            }
        }
        self.members[index].client.transport_down(now);
        self.mortal_ends(index, Will::Either);
        self.take_events(index);
    }

    /// Publishes what is due after so many milliseconds.
    fn publish(&mut self, passed_ms: u64) {
        if !matches!(self.phase, Phase::Load { .. }) {
            return;
        }
        let now = self.now();
        for _ in 0..(self.plan.rate * passed_ms.min(200) / 1000).max(1) {
            let at = self.random.below(self.publishers.len() as u64) as usize;
            let index = self.publishers[at];
            let kind = match self.random.below(20) {
                0..10 => Kind::Durable,
                10..13 => Kind::Shared,
                13..15 => Kind::Retained,
                _ => Kind::Fast,
            };
            let member = &mut self.members[index];
            let ready = if kind == Kind::Fast {
                member.client.is_connected()
            } else {
                member.client.unfinished() < OPEN_MAX
            };
            if !ready {
                continue;
            }
            let n = self.oracle.sent[at][kind as usize] + 1;
            let filling = if self.random.one_in(50) { 6000 } else { 200 };
            let filling = self.random.below(filling) as usize;
            let mut payload = n.to_be_bytes().to_vec();
            payload.resize(8 + filling, n as u8);
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(kind.qos(at))];
            let (topic, retain) = (kind.topic(at), kind == Kind::Retained);
            let request =
                PublishRequest { topic: &topic, payload: &payload, qos, retain, ..PublishRequest::default() };
            match member.client.publish(now, &request) {
                Ok(ticket) => {
                    self.oracle.sent[at][kind as usize] = n;
                    self.published += 1;
                    if kind != Kind::Fast {
                        member.open.insert(ticket.number(), (kind, n));
                    }
                }
                Err(_) if kind == Kind::Fast => continue,
                Err(e) => panic!("a publisher cannot publish: {e:?}"),
            }
            self.pump(index);
        }
    }

    fn tell(&self, now_ms: u64) {
        let vitals = self.house.vitals();
        let connected = self.members.iter().filter(|member| member.client.is_connected()).count();
        println!(
            "{:5} s: {connected} connected, {} let in, {} takeovers, {} published, {} acknowledged, {} + {} delivered, \
             {} wills, {} stops, {} kills, RSS {} KiB, {} descriptors, store {} KiB, {} early ends, {} wrong ({:?})",
            now_ms / 1000,
            self.outcome.connections,
            self.outcome.takeovers,
            self.published,
            self.oracle.acknowledged,
            self.oracle.delivered,
            self.oracle.fast_delivered,
            self.oracle.wills_came,
            self.outcome.stops,
            self.outcome.kills,
            vitals.resident_kb,
            vitals.descriptors,
            vitals.store_kb,
            self.early,
            self.oracle.wrong.len(),
            self.phase,
        );
        if matches!(self.phase, Phase::Quiet { whole_ms: None, .. }) {
            let late = self.members.iter().filter(|member| !member.idle()).map(Member::state);
            println!(
                "         waiting: {:?}, not done: {:?}",
                self.missing(),
                late.take(5).collect::<Vec<_>>()
            );
        }
    }

    fn sample(&mut self, now_ms: u64) {
        let vitals = self.house.vitals();
        let connected = self.members.iter().filter(|member| member.client.is_connected()).count();
        let age_ms = now_ms - self.born_ms;
        let sample = Sample { life: self.house.life, age_ms, at_ms: now_ms, vitals, connected };
        self.outcome.quiet_phases += 1;
        // What a broker has open beside its connections: sockets, files of the store, polls.
        let others = vitals.descriptors as i64 - connected as i64 - self.ghosts.len() as i64;
        if !(0..64).contains(&others) {
            self.oracle.wrong(format!("{others} descriptors beside those of {connected} connections"));
        }
        self.samples.push(sample);
        let now = self.now().micros();
        for member in &mut self.members {
            if let Some((due, since)) = member.due
                && member.subscribed
                && since + PATIENCE_MS * 1000 < now
            {
                member.due = None;
                let name = member.name();
                self.oracle.wrong(format!("{name} sees nothing retained, though {due} was acknowledged"));
            }
        }
    }

    fn finish(mut self) -> Outcome {
        self.tell(self.now_ms());
        println!("quiet phases: seconds, life, its age, connected, RSS in KiB, descriptors, store in KiB");
        for Sample { life, age_ms, at_ms, vitals, connected } in &self.samples {
            let Vitals { resident_kb, descriptors, store_kb } = vitals;
            let (at, age) = (at_ms / 1000, age_ms / 1000);
            println!("  {at:6} {life:4} {age:6} {connected:6} {resident_kb:8} {descriptors:6} {store_kb:8}");
        }
        let lines = self.house.complaints();
        for line in lines.iter().rev().take(10) {
            println!("log: {line}");
        }
        if lines.iter().any(|line| line.contains("panicked")) {
            self.oracle.wrong("the broker panicked".to_owned());
        }
        self.grown();
        self.outcome.acknowledged = self.oracle.acknowledged;
        self.outcome.delivered = self.oracle.delivered;
        self.outcome.wills = self.oracle.wills_came;
        self.outcome.wrong = std::mem::take(&mut self.oracle.wrong);
        self.house.kill();
        if self.outcome.wrong.is_empty() {
            let _ = fs::remove_dir_all(&self.plan.folder);
        }
        self.outcome
    }

    /// The caches of the store and its journal, of which up to 32 MiB are in memory, fill in the first minutes of a life.
    /// From then on memory has to be flat.
    fn grown(&mut self) {
        let mut lives: BTreeMap<u32, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.samples {
            lives.entry(sample.life).or_default().push(sample);
        }
        let mut grown = Vec::new();
        for (life, samples) in lives {
            let resident = |sample: &&Sample| sample.vitals.resident_kb;
            let most = samples.iter().map(resident).max().unwrap_or(0);
            let first = samples.first().map_or(0, resident);
            if most > first + first / 4 + (32 << 10) {
                grown.push(format!("life {life}: RSS grew from {first} to {most} KiB"));
            }
            let warm = samples.iter().find(|sample| sample.age_ms >= WARM_MS).map_or(most, resident);
            let last = samples.last().map_or(0, resident);
            if last > warm + warm / 10 + (4 << 10) {
                grown.push(format!("life {life}: RSS grew from {warm} to {last} KiB after five minutes"));
            }
        }
        grown.into_iter().for_each(|what| self.oracle.wrong(what));
    }
}
