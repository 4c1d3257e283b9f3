//! One connection of many: a client, its transport, and what it is there for.

use super::super::session::plain;
use super::limits;
use super::meter::Meter;
use super::payload::Head;
use super::run::Run;
use super::track::{Arrival, Track};
use super::wanted::Mode;
use crate::link::Link;
use crate::transport::{Opening, Progress};
use crate::{By, Error, Options, Properties, PublishRequest, QoS, ReasonCode, Received, SubscribeOptions};
use hikyaku_proto::client::{Client, Event, SendError};
use hikyaku_proto::time::Instant;
use mio::{Interest, Registry, Token};
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;

/// How many bytes the client gets at a time: few enough for what comes of them to stay in the cache.
const PIECE: usize = 4096;
/// How many reads, and how many bytes of messages, a connection has before it is another one's turn.
const READS: usize = 4;
const BYTES: usize = 256 << 10;
/// How many bytes of messages go into one write.
const BATCH: usize = 64 << 10;

/// Those of a worker's publishers that may have room, each once.
#[derive(Debug, Default)]
pub(super) struct Ready {
    list: Vec<usize>,
    marked: Vec<bool>,
}

impl Ready {
    pub fn of(publishers: usize) -> Ready {
        Ready { list: Vec::new(), marked: vec![false; publishers] }
    }

    pub fn push(&mut self, publisher: usize) {
        if !std::mem::replace(&mut self.marked[publisher], true) {
            self.list.push(publisher);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes all into `list`, which is empty.
    pub fn take(&mut self, list: &mut Vec<usize>) {
        std::mem::swap(&mut self.list, list);
        list.iter().for_each(|&publisher| self.marked[publisher] = false);
    }
}

/// What the connections of a worker have in common.
#[derive(Debug)]
pub(super) struct Hub {
    pub worker: usize,
    /// Connections that were begun, and are not where their phase wants them.
    pub pending: usize,
    /// Connections that are there.
    pub live: usize,
    /// Publishers that have not sent all.
    pub sending: usize,
    pub ready: Ready,
    /// Workers with publishers that may have room.
    pub wake: u64,
    /// A payload, whose head is another one each time.
    pub payload: Vec<u8>,
}

/// A moment of a worker, for its connections.
pub(super) struct At<'a> {
    pub run: &'a Run,
    pub hub: &'a mut Hub,
    pub meter: &'a mut Meter,
    pub now: u64,
    pub measured_from: u64,
}

impl At<'_> {
    fn moment(&self) -> Instant {
        Instant::from_micros(self.now / 1000)
    }
}

#[derive(Debug)]
enum Way {
    Closed,
    Opening(Opening),
    Up(Link),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    Pending,
    Up,
    Gone,
}

#[derive(Debug)]
pub(super) enum Role {
    Idle,
    Subscriber(Subscriber),
    Publisher(Publisher),
}

#[derive(Debug)]
pub(super) struct Subscriber {
    pub filter: String,
    /// The first of the publishers it hears, and what came of each.
    pub first: usize,
    pub tracks: Vec<Track>,
    /// Publishers of other programs, by run and number.
    pub others: HashMap<(u16, u32), Track>,
    /// Whether it has ever been subscribed.
    pub took_part: bool,
}

#[derive(Debug)]
pub(super) struct Publisher {
    pub number: usize,
    pub topic: String,
    /// The number of the next message, and the first that is not sent.
    pub next: u64,
    pub limit: u64,
    /// Whether it is to send, and has not sent all.
    pub sending: bool,
    /// How many messages are due, with a rate.
    pub owed: u64,
    /// How many subscribers take each message; 0 if nobody here does.
    pub takers: u64,
    window: u64,
    /// Arrivals that are waited for no more.
    written_off: u64,
    arrived_before: u64,
    /// Tickets without acknowledgement, and when they were due, where latency is about that.
    underway: VecDeque<(u64, u64)>,
}

impl Publisher {
    pub fn new(number: usize, topic: String, limit: u64) -> Publisher {
        Publisher {
            number,
            topic,
            next: 0,
            limit,
            sending: false,
            owed: 0,
            takers: 0,
            window: 0,
            written_off: 0,
            arrived_before: 0,
            underway: VecDeque::new(),
        }
    }

    /// How many arrivals are waited for.
    fn awaited(&self, run: &Run) -> u64 {
        let arrived = run.flows[self.number].arrived.load(Relaxed) + self.written_off;
        (self.next * self.takers).saturating_sub(arrived)
    }

    /// How many messages the subscribers leave room for, where there are any.
    fn room_there(&self, run: &Run) -> Option<u64> {
        (self.window * self.takers).saturating_sub(self.awaited(run)).checked_div(self.takers)
    }

    /// How many messages may be sent now.
    fn room(&self, run: &Run, client: &Client) -> u64 {
        let mut room = if self.sending { self.limit.saturating_sub(self.next) } else { 0 };
        if run.wanted.rate.is_some() {
            room = room.min(self.owed);
        }
        room = room.min(self.room_there(run).unwrap_or(u64::MAX));
        if run.qos != QoS::AtMostOnce {
            room = room.min(self.window.saturating_sub(client.unfinished() as u64));
        }
        room
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    way: Way,
    pub role: Role,
    pub stage: Stage,
    /// From when on connecting takes time.
    begun: u64,
}

impl Connection {
    pub fn new(options: Options, role: Role) -> Connection {
        Connection { client: Client::new(options), way: Way::Closed, role, stage: Stage::Waiting, begun: 0 }
    }

    /// Begins to connect, `due` since then; `false` if the system wants that tried again later.
    pub fn begin(&mut self, at: &mut At<'_>, registry: &Registry, token: Token, due: u64) -> bool {
        let bind = &at.run.bind;
        let from = (!bind.is_empty()).then(|| bind[token.0 % bind.len()]);
        if self.begun == 0 {
            self.begun = due;
        }
        let late = at.now.saturating_sub(self.begun) > at.run.route.timeout.as_nanos() as u64;
        let opening = Opening::begin(&at.run.route, at.run.addr, from).and_then(|mut opening| {
            registry.register(opening.source(), token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(opening)
        });
        match opening {
            Err(error) if error.kind() == ErrorKind::WouldBlock && !late => return false,
            Ok(opening) => {
                self.stage = Stage::Pending;
                at.hub.pending += 1;
                at.hub.live += 1;
                self.way = Way::Opening(opening);
            }
            Err(error) => {
                let error = Error::Io(error);
                self.stage = Stage::Gone;
                at.meter.counts.failed += 1;
                at.meter.fail(reason(&error), Some(error));
            }
        }
        true
    }

    pub fn note(&mut self, event: &mio::event::Event) {
        if let Way::Up(link) = &mut self.way {
            link.note(event);
        }
    }

    /// Does all there is to do but publish; whether there is more to be read at once.
    pub fn turn(&mut self, at: &mut At<'_>, buffer: &mut [u8]) -> bool {
        let more = self.open(at).and_then(|()| self.exchange(at, buffer));
        more.unwrap_or_else(|error| {
            self.end(at, error);
            false
        })
    }

    fn open(&mut self, at: &mut At<'_>) -> Result<(), Error> {
        if !matches!(self.way, Way::Opening(_)) {
            return Ok(());
        }
        let Way::Opening(opening) = std::mem::replace(&mut self.way, Way::Closed) else { return Ok(()) };
        match opening.proceed(&at.run.route)? {
            Progress::Waiting(opening) => self.way = Way::Opening(opening),
            Progress::Open(transport) => {
                self.way = Way::Up(Link::new(transport, None));
                self.client.transport_up(at.moment());
            }
        }
        Ok(())
    }

    fn exchange(&mut self, at: &mut At<'_>, buffer: &mut [u8]) -> Result<bool, Error> {
        if let Way::Up(link) = &mut self.way {
            link.write(&mut self.client)?;
        }
        for _ in 0..READS {
            let Way::Up(link) = &mut self.way else { return Ok(false) };
            if !link.readable || !self.client.wants_read() {
                break;
            }
            match link.transport.read(buffer) {
                Ok(0) => return Err(Error::Disconnected(By::Transport)),
                Ok(n) => {
                    // The poll tells when more comes, or the end.
                    link.readable = n == buffer.len() || link.ended || !link.transport.is_plain();
                    at.now = at.run.clock.now();
                    for piece in buffer[..n].chunks(PIECE) {
                        self.client.handle_bytes(at.moment(), piece);
                        self.take_events(at)?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => link.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.take_events(at)?;
        let Way::Up(link) = &mut self.way else { return Ok(false) };
        link.write(&mut self.client)?;
        if link.writable
            && let Role::Publisher(publisher) = &self.role
        {
            at.hub.ready.push(publisher.number / at.run.wanted.threads);
        }
        Ok(link.readable && self.client.wants_read())
    }

    fn take_events(&mut self, at: &mut At<'_>) -> Result<(), Error> {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Message(received) => match &mut self.role {
                    Role::Subscriber(subscriber) => subscriber.receive(at, &received),
                    _ => at.meter.counts.foreign += 1,
                },
                Event::Published { ticket, reason } => self.on_published(at, ticket.number(), reason),
                Event::Connected(connected) => {
                    at.meter.counts.opened += 1;
                    at.meter.connecting.record(at.now.saturating_sub(self.begun));
                    match &mut self.role {
                        Role::Subscriber(subscriber) => {
                            let filters = [(subscriber.filter.as_str(), SubscribeOptions::new(at.run.qos))];
                            self.client.subscribe(at.moment(), &filters, Properties::EMPTY)?;
                        }
                        Role::Publisher(publisher) => {
                            let window = at.run.wanted.window();
                            publisher.window = match at.run.qos {
                                QoS::AtMostOnce => window.into(),
                                _ => window.min(connected.server.receive_maximum.into()).into(),
                            };
                            self.settle(at, Stage::Up);
                        }
                        Role::Idle => self.settle(at, Stage::Up),
                    }
                }
                Event::Subscribed { codes, .. } => match codes.first() {
                    Some(code) if code.is_error() => return Err(Error::Rejected(*code)),
                    _ => {
                        if let Role::Subscriber(subscriber) = &mut self.role {
                            subscriber.took_part = true;
                        }
                        at.run.subscribers.fetch_add(1, Relaxed);
                        self.settle(at, Stage::Up);
                    }
                },
                Event::Refused { reason, .. } => return Err(Error::Refused(reason)),
                Event::Disconnected { by, .. } => return Err(Error::Disconnected(by)),
                Event::Auth { .. } => return Err(Error::Refused(ReasonCode::BadAuthenticationMethod)),
                Event::Dropped { .. } | Event::Unsubscribed { .. } | Event::SessionLost => {}
            }
        }
        Ok(())
    }

    fn on_published(&mut self, at: &mut At<'_>, ticket: u64, reason: ReasonCode) {
        let Role::Publisher(publisher) = &mut self.role else { return };
        let counts = &mut at.meter.counts;
        if reason.is_error() {
            counts.rejected += 1;
            let flow = &at.run.flows[publisher.number];
            flow.rejected.fetch_add(1, Relaxed);
            flow.arrived.fetch_add(publisher.takers, Relaxed);
        } else {
            counts.acknowledged += 1;
        }
        if at.run.wanted.mode() == Mode::Pub {
            counts.last = at.now;
            let found = publisher.underway.iter().position(|(number, _)| *number == ticket);
            if let Some((_, due)) = found.and_then(|index| publisher.underway.remove(index))
                && at.now >= at.measured_from
            {
                counts.measured += 1;
                at.meter.latency.record(at.now.saturating_sub(due));
            }
        }
        at.hub.ready.push(publisher.number / at.run.wanted.threads);
    }

    /// Sends what there is room for.
    pub fn publish(&mut self, at: &mut At<'_>) {
        if self.stage != Stage::Up {
            return;
        }
        if let Err(error) = self.pump(at) {
            self.end(at, error);
        }
    }

    fn pump(&mut self, at: &mut At<'_>) -> Result<(), Error> {
        let Connection { client, way: Way::Up(link), role: Role::Publisher(publisher), .. } = self else {
            return Ok(());
        };
        let run = at.run;
        let local = publisher.number / run.wanted.threads;
        let length = (publisher.topic.len() + at.hub.payload.len() + 8) as u64;
        let mut left = BYTES as u64;
        while link.writable && client.outbox().is_empty() {
            let count = publisher.room(run, client).min((BATCH as u64 / length).max(1));
            if count == 0 {
                break;
            }
            if left == 0 {
                at.hub.ready.push(local);
                break;
            }
            left = left.saturating_sub(count * length);
            at.now = run.clock.now();
            let moment = at.moment();
            for _ in 0..count {
                let due = match run.wanted.rate {
                    Some(rate) => run.due(rate, publisher.number, publisher.next),
                    None => at.now,
                };
                let head = Head {
                    run: run.tag,
                    publisher: publisher.number as u32,
                    number: publisher.next,
                    due: run.clock.to_wall(due),
                };
                head.put(&mut at.hub.payload);
                let request = PublishRequest {
                    topic: &publisher.topic,
                    payload: &at.hub.payload,
                    qos: run.qos,
                    retain: run.retain,
                    properties: Properties::EMPTY,
                };
                match client.publish(moment, &request) {
                    Ok(ticket) if run.qos != QoS::AtMostOnce && publisher.takers == 0 => {
                        publisher.underway.push_back((ticket.number(), due));
                    }
                    Ok(_) => {}
                    Err(SendError::QueueFull) => break,
                    Err(error) => return Err(error.into()),
                }
                publisher.next += 1;
                publisher.owed = publisher.owed.saturating_sub(1);
                at.meter.counts.sent += 1;
                at.meter.counts.measured_sent += u64::from(at.now >= at.measured_from);
            }
            at.meter.counts.last_sent = at.now;
            run.flows[publisher.number].sent.store(publisher.next, Relaxed);
            link.write(client)?;
        }
        if publisher.sending && publisher.next >= publisher.limit {
            publisher.sending = false;
            at.hub.sending -= 1;
        }
        Ok(())
    }

    /// Once a second: what is due in the protocol, and messages that are not waited for any more.
    pub fn tick(&mut self, at: &mut At<'_>) {
        if !matches!(self.stage, Stage::Pending | Stage::Up) {
            return;
        }
        if matches!(self.way, Way::Opening(_))
            && at.now.saturating_sub(self.begun) > at.run.route.timeout.as_nanos() as u64
        {
            return self.end(at, Error::Timeout);
        }
        if self.client.poll_timeout().is_some_and(|due| due <= at.moment()) {
            self.client.handle_timeout(at.moment());
            if let Err(error) = self.take_events(at) {
                return self.end(at, error);
            }
            if let Way::Up(link) = &mut self.way
                && let Err(error) = link.write(&mut self.client)
            {
                return self.end(at, error.into());
            }
        }
        if let (Role::Publisher(publisher), Way::Up(link)) = (&mut self.role, &self.way) {
            let arrived = at.run.flows[publisher.number].arrived.load(Relaxed);
            let stalled = publisher.sending && arrived == publisher.arrived_before && link.writable;
            publisher.arrived_before = arrived;
            if stalled && publisher.room_there(at.run) == Some(0) {
                publisher.written_off += publisher.awaited(at.run);
                at.meter.counts.stalls += 1;
                at.hub.ready.push(publisher.number / at.run.wanted.threads);
            }
        }
    }

    /// How many messages have not arrived that should have: at the end.
    pub fn missing(&self, run: &Run) -> u64 {
        match &self.role {
            Role::Idle => 0,
            Role::Publisher(_) if run.wanted.mode() == Mode::Pub => self.unfinished(),
            Role::Publisher(_) => 0,
            Role::Subscriber(subscriber) if !subscriber.took_part => 0,
            Role::Subscriber(subscriber) => {
                let of_others: u64 = subscriber.others.values().map(Track::missing).sum();
                let tracks = subscriber.tracks.iter().zip(&run.flows[subscriber.first..]);
                let ours = tracks.map(|(track, flow)| {
                    let due = flow.sent.load(Relaxed) - flow.rejected.load(Relaxed);
                    due.saturating_sub(track.received)
                });
                of_others + ours.sum::<u64>()
            }
        }
    }

    /// Messages without acknowledgement.
    pub fn unfinished(&self) -> u64 {
        self.client.unfinished() as u64
    }

    /// Says goodbye.
    pub fn close(&mut self, at: &mut At<'_>) {
        if let Way::Up(link) = &mut self.way {
            let _ = self.client.disconnect(at.moment(), ReasonCode::NormalDisconnection, Properties::EMPTY);
            let _ = link.write(&mut self.client);
            link.transport.shutdown();
        }
        self.way = Way::Closed;
    }

    fn settle(&mut self, at: &mut At<'_>, stage: Stage) {
        if self.stage == Stage::Pending {
            at.hub.pending -= 1;
        }
        self.stage = stage;
    }

    fn end(&mut self, at: &mut At<'_>, error: Error) {
        match self.stage {
            Stage::Up => at.meter.counts.broken += 1,
            Stage::Pending => at.meter.counts.failed += 1,
            Stage::Waiting | Stage::Gone => return,
        }
        self.settle(at, Stage::Gone);
        at.hub.live -= 1;
        if let Role::Publisher(publisher) = &mut self.role
            && std::mem::take(&mut publisher.sending)
        {
            at.hub.sending -= 1;
        }
        at.meter.fail(reason(&error), Some(error));
        // Where we end it the server is told, if there is still a way.
        if let Way::Up(link) = &mut self.way {
            let _ = link.write(&mut self.client);
            link.transport.shutdown();
        }
        self.way = Way::Closed;
    }
}

impl Subscriber {
    fn receive(&mut self, at: &mut At<'_>, received: &Received) {
        let counts = &mut at.meter.counts;
        let head = Head::of(received.payload()).filter(|_| !received.retain());
        let Some(head) = head else {
            counts.foreign += 1;
            return;
        };
        let publisher = head.publisher as usize;
        let ours = at.run.wanted.mode().receives_its_own();
        let track = match ours {
            true => {
                self.tracks.get_mut(publisher.wrapping_sub(self.first)).filter(|_| head.run == at.run.tag)
            }
            false => {
                let track = self.others.entry((head.run, head.publisher));
                Some(track.or_insert_with(|| Track::starting_at(head.number)))
            }
        };
        let Some(track) = track else {
            counts.foreign += 1;
            return;
        };
        let arrival = track.arrive(head.number);
        if let (true, Arrival::Next(by)) = (ours, arrival) {
            at.run.flows[publisher].arrived.fetch_add(by, Relaxed);
            let threads = at.run.wanted.threads;
            match publisher % threads {
                here if here == at.hub.worker => at.hub.ready.push(publisher / threads),
                there => at.hub.wake |= 1 << there,
            }
        }
        counts.last = at.now;
        match arrival {
            Arrival::Again => {
                counts.duplicated += 1;
                return;
            }
            Arrival::Late => counts.out_of_order += 1,
            Arrival::Next(_) => {}
        }
        counts.received += 1;
        if at.now >= at.measured_from {
            counts.measured += 1;
            at.meter.latency.record(at.run.clock.since(head.due, at.now));
        }
    }
}

/// An error in a few words, the same for all connections.
fn reason(error: &Error) -> String {
    match error {
        Error::Io(error) => format!("{}{}", plain(error), limits::advice(error)),
        error => error.to_string(),
    }
}
