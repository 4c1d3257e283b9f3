//! One thread, one poll, one shard: reads what arrives, drives the shard, writes what it says.
//!
//! A turn hands in everything the poll brought, and drains the shard's outputs at its end and after every few events,
//! so that a burst of messages to one connection is one write. Where each brings little, for another one than the last,
//! there is no such burst, and outputs are drained at once. What a turn does for one connection is bounded by the read
//! buffer; who has more to read goes on in the next turn, which then does not wait.

mod chance;
mod reception;

use self::chance::Chance;
use self::reception::{guests_max, is_guest};
use crate::auth::{Exchanges, Hasher, Security};
use crate::budget::{Budget, Share};
use crate::census::Census;
use crate::clock::Clock;
use crate::connection::{Connection, Places};
use crate::hold::Hold;
use crate::letter::Letter;
use crate::listener::{Bound, Doors};
use crate::lobby::Lobby;
use crate::refusal::{Refusal, Refusals};
use crate::store::Batch;
use crate::transport::{Gates, Received};
use crate::wake::{Letterbox, Mailbox};
use crossbeam_channel::Sender;
use hikyaku_proto::broker::peer::PeerMessage;
use hikyaku_proto::broker::{
    Authenticate, Config, ConnId, Input, Output, Placement, Revoked, Shard, ShardId, Verdict,
};
use hikyaku_proto::codec::ReasonCode;
use hikyaku_proto::outbox::Outbox;
use hikyaku_proto::time::Instant;
use mio::{Events, Poll, Token};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What a worker is made of that can fail to be made.
pub(crate) struct Seat {
    pub(crate) shard: Shard,
    pub(crate) poll: Poll,
    pub(crate) mailbox: Mailbox<Letter>,
}

/// What all workers of a server have in common.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) gates: Arc<Gates>,
    pub(crate) config: Arc<Config>,
    pub(crate) security: Arc<Security>,
    pub(crate) hasher: Arc<Hasher>,
    pub(crate) placement: Arc<Placement>,
    pub(crate) letterboxes: Arc<[Letterbox<Letter>]>,
    pub(crate) census: Census,
    pub(crate) budget: Budget,
    /// How many connections without CONNECT there may be.
    pub(crate) pending_connections: Option<u32>,
    pub(crate) hold: Hold,
    pub(crate) clock: Clock,
    /// Where what must be kept goes, if anything is kept.
    pub(crate) store: Option<Sender<Batch>>,
}

/// The token of the mailbox's bell. Connections have their index, doors count down from here.
pub(crate) const MAILBOX: Token = Token(usize::MAX);

/// What one read may bring.
const BUFFER_BYTES: usize = 128 << 10;
/// What is handed in at most before outputs are drained, so that outboxes are tried before they grow.
const FLUSH_BYTES: usize = 1 << 20;
const EVENTS_PER_TURN: usize = 1024;
/// After so many of them outputs are drained as well: what the first of many brought does not wait for the last.
const EVENTS_PER_FLUSH: usize = 32;
/// Up to so many bytes since outputs were drained are little: a few small messages.
const LITTLE: usize = 1 << 10;
/// After so many turns timers are looked at though not all events have been.
const UNSEEN_TURNS: u32 = 64;
/// How long a connection stays that the shard has closed with a word, so that its client can read it: what a
/// client goes on sending to a closed socket resets the connection, and a reset overtakes the word.
const LINGER: Duration = Duration::from_secs(2);
const LEAVING_MAX: usize = 1024;
const LETTERS_PER_TURN: usize = 4096;
const MESSAGES_PER_LETTER: usize = 256;
const WRITES_PER_TURN: usize = 16;
/// How long TLS handshakes may take in a turn: the others wait for the next, and clients that are
/// connected are served in between.
const HANDSHAKES_PER_TURN: Duration = Duration::from_millis(4);
/// How long a shutdown may take.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A shard and all that connects it to the world.
pub(crate) struct Worker {
    id: ShardId,
    shard: Shard,
    config: Arc<Config>,
    security: Arc<Security>,
    hasher: Arc<Hasher>,
    exchanges: Exchanges,
    placement: Arc<Placement>,
    clock: Clock,
    poll: Poll,
    mailbox: Mailbox<Letter>,
    letterboxes: Arc<[Letterbox<Letter>]>,
    census: Census,
    memory: Share,
    store: Option<Sender<Batch>>,
    /// What is to be posted to each worker.
    said: Vec<Vec<PeerMessage>>,
    /// For whom there is something of it, as bits.
    to_post: u64,
    /// For whom there are retained messages in it.
    retains: u64,
    /// The workers that were posted to and not rung since, as bits.
    to_ring: u64,
    doors: Doors,
    /// What each listener lets in.
    gates: Arc<Gates>,
    lobby: Lobby,
    refusals: Refusals,
    chance: Chance,
    /// Whose turn it is to do a TLS handshake.
    next_handshake: ShardId,
    connections: Places<Connection>,
    /// Those that the shard has closed, with the moment they go.
    leaving: VecDeque<(Instant, ConnId)>,
    /// Those that have more to do without an event.
    ready: Vec<ConnId>,
    spare: Vec<ConnId>,
    buffer: Box<[u8]>,
    /// What was handed in since outputs were drained: bytes, and how many connections it came from that have an answer to it.
    unflushed: usize,
    answers: usize,
    /// Who was written first when outputs were last drained.
    receiver: Option<ConnId>,
    /// When the shard wants a [`Input::Timeout`].
    deadline: Option<Instant>,
    /// Set by [`Letter::Shutdown`]: when to end whatever is left.
    ending: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(seat: Seat, bound: Vec<Bound>, common: Common) -> io::Result<Self> {
        let Seat { shard, poll, mailbox } = seat;
        let Common { gates, config, security, hasher, placement, letterboxes, .. } = common;
        let Common { census, budget, pending_connections, hold, clock, store, .. } = common;
        let (id, workers) = (shard.id(), letterboxes.len());
        let doors = Doors::open(bound, hold, poll.registry(), |i| Token(MAILBOX.0 - 1 - i))?;
        let connect_timeout = Duration::from_secs(config.connect_timeout_s.into());
        Ok(Worker {
            id,
            shard,
            config,
            security,
            hasher,
            exchanges: Exchanges::default(),
            placement,
            clock,
            poll,
            mailbox,
            letterboxes,
            census,
            memory: budget.share(),
            store,
            said: (0..workers).map(|_| Vec::new()).collect(),
            to_post: 0,
            retains: 0,
            to_ring: 0,
            doors,
            gates,
            next_handshake: id,
            refusals: Refusals::default(),
            chance: Chance::default(),
            lobby: Lobby::new(guests_max(pending_connections), connect_timeout),
            connections: Places::new(),
            leaving: VecDeque::new(),
            ready: Vec::new(),
            spare: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into(),
            unflushed: 0,
            answers: 0,
            receiver: None,
            deadline: None,
            ending: None,
        })
    }

    /// Works until [`Letter::Shutdown`].
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut now = self.clock.now();
        // Turns in a row whose events were not all there is.
        let mut unseen = 0;
        self.doors.attend()?;
        self.flush(now);
        while !self.has_ended(now) {
            let timeout = self.timeout(now);
            let all_seen = match self.poll.poll(&mut events, timeout) {
                Ok(()) => events.iter().count() < EVENTS_PER_TURN,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    events.clear();
                    false
                }
                Err(e) => return Err(e),
            };
            unseen = if all_seen { 0 } else { unseen + 1 };
            now = self.clock.now();
            self.mailbox.wake_up();
            if Census::is_needed(&self.config) {
                self.census.hear(now, &mut self.shard);
            }
            for (i, event) in events.iter().enumerate() {
                if i % EVENTS_PER_FLUSH == EVENTS_PER_FLUSH - 1 {
                    self.flush(now);
                }
                self.on_event(now, event);
            }
            // Before letters are taken: who need not wait any more for a reload meets what it has posted.
            self.accept(now);
            self.take_letters(now);
            self.go_on(now);
            self.show_out(now);
            // After a stop of the process the PINGREQs that came meanwhile lie in the sockets: who sent one
            // is not to be closed for silence before it has been read.
            if self.deadline.is_some_and(|deadline| deadline <= now) && unseen % UNSEEN_TURNS == 0 {
                self.shard.handle(now, Input::Timeout);
            }
            self.flush(now);
            if Census::is_needed(&self.config) {
                self.census.tell(&self.shard);
            }
        }
        Ok(())
    }

    fn has_ended(&self, now: Instant) -> bool {
        self.ending.is_some_and(|latest| latest <= now || self.connections.len() == 0)
    }

    /// How long to wait for events. Unless it is zero, letters ring from here on.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let leaving = self.leaving.front().map(|&(deadline, _)| deadline);
        let doors = [self.doors.deadline(), self.lobby.deadline(), self.refusals.deadline()];
        let deadlines = [leaving, self.deadline, self.ending];
        let next = deadlines.into_iter().chain(doors).flatten().min();
        let wait = next.map(|at| at.since(now));
        if !self.ready.is_empty() || wait == Some(Duration::ZERO) || !self.mailbox.fall_asleep() {
            return Some(Duration::ZERO);
        }
        wait
    }

    fn on_event(&mut self, now: Instant, event: &mio::event::Event) {
        let token = event.token();
        if token == MAILBOX {
            return;
        }
        let Some(conn) = self.connections.at(token.0) else {
            // A connection that is gone has a small token, which no door answers to.
            return self.doors.on_event((MAILBOX.0 - 1).wrapping_sub(token.0));
        };
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let gone = event.is_read_closed() || event.is_error();
        connection.until_empty |= gone;
        connection.readable |= gone || event.is_readable();
        let readable = connection.readable;
        let handshaking = connection.transport.is_handshaking();
        if event.is_writable() && (connection.full || connection.transport.has_pending()) {
            connection.full = false;
            self.write(now, conn);
        }
        if readable && handshaking {
            // It waits its turn among the others.
            self.list(conn);
        } else if readable {
            self.read(now, conn);
        }
    }

    fn take_letters(&mut self, now: Instant) {
        let mut taken = 0;
        while taken < LETTERS_PER_TURN {
            taken += 1;
            match self.mailbox.take() {
                Some(Letter::Peer { from, messages }) => {
                    taken += messages.len();
                    for message in messages {
                        self.shard.handle(now, Input::Peer { from, message });
                    }
                }
                Some(Letter::Arrival { transport, guest }) => self.take_in(now, transport, guest),
                Some(Letter::Authenticated { conn, mut verdict, by }) => {
                    // Whom the files that were read meanwhile would not let in has to ask again.
                    if !Arc::ptr_eq(&by, &self.security) && matches!(verdict, Verdict::Success { .. }) {
                        verdict = Verdict::Failure(ReasonCode::ServerBusy);
                    }
                    self.shard.handle(now, Input::Authenticated { conn, verdict });
                }
                Some(Letter::Configured { config, security, revoked }) => {
                    self.configure(now, config, security, &revoked);
                }
                Some(Letter::Guest { transport, guest }) => self.take_guest(transport, guest),
                Some(Letter::Roll(answer)) => drop(answer.try_send(())),
                Some(Letter::Stored { upto }) => drop(self.shard.handle(now, Input::Stored { upto })),
                Some(Letter::StoreFailed(failed)) => drop(self.shard.handle(now, Input::StoreFailed(failed))),
                Some(Letter::Loaded(loaded)) => drop(self.shard.handle(now, Input::Loaded(*loaded))),
                Some(Letter::Shutdown) => self.begin_to_end(now),
                None => return,
            }
        }
    }

    /// Serves those that are listed since the last time.
    fn go_on(&mut self, now: Instant) {
        let mut ready = std::mem::replace(&mut self.ready, std::mem::take(&mut self.spare));
        let mut handshakes_time = Duration::ZERO;
        for conn in ready.drain(..) {
            let Some(connection) = self.connections.get_mut(conn) else { continue };
            connection.listed = false;
            if connection.unwritten {
                connection.unwritten = false;
                self.write(now, conn);
            }
            self.hand_in_kept(now, conn);
            let Some(connection) = self.connections.get(conn).filter(|c| c.readable) else { continue };
            if !connection.transport.is_handshaking() {
                self.read(now, conn);
            } else if handshakes_time < HANDSHAKES_PER_TURN {
                let before = self.clock.now();
                self.read(now, conn);
                handshakes_time += self.clock.now().since(before);
            } else {
                self.list(conn);
            }
        }
        self.spare = ready;
    }

    fn list(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(conn)
            && !connection.listed
        {
            connection.listed = true;
            self.ready.push(conn);
        }
    }

    /// Reads one buffer. What it brings not, comes with an event or in the next turn.
    fn read(&mut self, now: Instant, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.leaving {
            return self.read_leaving(conn);
        }
        if connection.paused || !connection.kept.is_empty() {
            // The events that come meanwhile are spent. What is kept goes first, from the list.
            connection.until_empty = true;
            return;
        }
        let received = connection.transport.read(&mut self.buffer);
        if let Some(guest) = &mut connection.guest {
            let held = guest.received.len() + connection.transport.held();
            self.lobby.hold(held, std::mem::replace(&mut guest.held, held));
            if let Some(why) = connection.transport.take_refusal() {
                self.refuse(now, conn, Refusal::Web, &why);
            }
        }
        let Some(connection) = self.connections.get_mut(conn) else { return };
        match received {
            Ok(Received::Bytes { bytes, more }) => {
                connection.readable = more || connection.until_empty;
                if connection.readable {
                    self.list(conn);
                }
                if bytes > 0 {
                    self.on_bytes(now, conn, bytes);
                }
            }
            Ok(Received::Nothing) => {
                connection.readable = false;
                connection.until_empty = false;
            }
            Ok(Received::End) => self.on_transport_closed(now, conn),
            Err(e) => {
                // What an operator who sets TLS up has to see.
                if connection.guest.is_some() && e.kind() == io::ErrorKind::InvalidData {
                    self.refuse(now, conn, Refusal::Tls, &e);
                } else {
                    log::debug!("A connection broke: {e}.");
                }
                self.on_transport_closed(now, conn);
            }
        }
    }

    /// The first `bytes` of the buffer are the connection's.
    fn on_bytes(&mut self, now: Instant, conn: ConnId, bytes: usize) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.guest.is_some() {
            return self.on_guest_bytes(now, conn, bytes);
        }
        let bytes = &self.buffer[..bytes];
        let used = self.shard.handle(now, Input::Received { conn, bytes });
        if used < bytes.len() {
            connection.kept = bytes[used..].into();
            connection.paused = true;
        }
        self.on_handed_in(now, conn, used);
    }

    fn hand_in_kept(&mut self, now: Instant, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.paused || connection.kept.is_empty() {
            return;
        }
        let kept = std::mem::take(&mut connection.kept);
        let used = self.shard.handle(now, Input::Received { conn, bytes: &kept });
        if used < kept.len() {
            connection.kept = if used == 0 { kept } else { kept[used..].into() };
            connection.paused = true;
        }
        self.on_handed_in(now, conn, used);
    }

    fn on_handed_in(&mut self, now: Instant, conn: ConnId, bytes: usize) {
        self.unflushed += bytes;
        let mut has_post = |conn| self.shard.outbox(conn).is_some_and(|outbox| !outbox.is_empty());
        self.answers += usize::from(has_post(conn));
        let more_for_one = self.receiver.is_some_and(has_post);
        let for_others = self.shard.unsent() > self.answers;
        if self.unflushed >= FLUSH_BYTES || self.unflushed <= LITTLE && for_others && !more_for_one {
            self.flush(now);
        }
    }

    fn on_transport_closed(&mut self, now: Instant, conn: ConnId) {
        let Some(connection) = self.remove(conn) else { return };
        if connection.guest.is_none() {
            self.shard.handle(now, Input::Closed { conn });
        }
    }

    /// Takes a connection out of all books but the shard's.
    fn remove(&mut self, conn: ConnId) -> Option<Connection> {
        let connection = self.connections.remove(conn)?;
        self.exchanges.forget(conn);
        if let Some(guest) = &connection.guest {
            self.lobby.leave(guest.held);
        }
        self.doors.on_close();
        Some(connection)
    }

    /// Does what the shard says, until it has nothing to say, and wakes those who have post.
    fn flush(&mut self, now: Instant) {
        self.unflushed = 0;
        self.answers = 0;
        let mut receiver = None;
        self.memory.settle(now, &mut self.shard);
        loop {
            match self.shard.poll_output(now) {
                Output::Transmit(conn) => {
                    receiver = receiver.or(Some(conn));
                    self.write(now, conn);
                }
                Output::PauseReads(conn) => {
                    if let Some(connection) = self.connections.get_mut(conn) {
                        connection.paused = true;
                    }
                }
                Output::ResumeReads(conn) => {
                    if let Some(connection) = self.connections.get_mut(conn) {
                        connection.paused = false;
                        if connection.readable || !connection.kept.is_empty() {
                            self.list(conn);
                        }
                    }
                }
                Output::Watch { conn, unreachable_s } => {
                    if let Some(connection) = self.connections.get_mut(conn) {
                        connection.transport.watch_peer(Duration::from_secs(unreachable_s.into()));
                    }
                }
                Output::Close { conn, last } => self.close(now, conn, &last),
                Output::Authenticate(question) => self.authenticate(*question),
                Output::Peer { to, message } => self.say(to, message),
                Output::Store { upto, ops } => {
                    if let Some(store) = &self.store {
                        // It lives longer than any worker.
                        let _ = store.send(Batch { shard: self.id, upto, ops });
                    }
                }
                Output::Timeout(deadline) => {
                    self.deadline = deadline;
                    break;
                }
            }
        }
        self.receiver = receiver.or(self.receiver);
        self.retains = 0;
        for to in bits(std::mem::take(&mut self.to_post)) {
            self.post_said(to);
        }
        for to in bits(std::mem::take(&mut self.to_ring)) {
            self.letterboxes[usize::from(to)].ring();
        }
    }

    /// Keeps what the shard says to another, so that it goes in few letters: each costs both workers cache lines.
    /// Retained messages are to be there, wherever they go, before anything else is anywhere that the shard says after them:
    /// they are posted first.
    fn say(&mut self, to: ShardId, message: PeerMessage) {
        if message.is_retain() {
            self.retains |= 1 << to;
        } else {
            for home in bits(std::mem::take(&mut self.retains)) {
                self.post_said(home);
            }
        }
        let Some(said) = self.said.get_mut(usize::from(to)) else { return };
        said.push(message);
        self.to_post |= 1 << to;
        if said.len() >= MESSAGES_PER_LETTER {
            self.post_said(to);
        }
    }

    fn post_said(&mut self, to: ShardId) {
        let messages = std::mem::take(&mut self.said[usize::from(to)]);
        if !messages.is_empty() {
            self.post(to, Letter::Peer { from: self.id, messages });
        }
    }

    /// Finds out who a client is. The answer comes as a letter.
    fn authenticate(&mut self, question: Authenticate) {
        let conn = question.conn;
        let Some(_) = self.connections.get(conn) else { return };
        let Some(letterbox) = self.letterboxes.get(usize::from(self.id)).cloned() else { return };
        self.hasher.authenticate(&self.security, &mut self.exchanges, question, move |verdict, by| {
            // A worker that has ended has no client to let in.
            let _ = letterbox.post(Letter::Authenticated { conn, verdict, by });
            letterbox.ring();
        });
    }

    fn configure(
        &mut self,
        now: Instant,
        config: Arc<Config>,
        security: Arc<Security>,
        revoked: &[Arc<Revoked>],
    ) {
        self.config = Arc::clone(&config);
        self.security = security;
        self.shard.handle(now, Input::Configured(config));
        for revoked in revoked {
            self.shard.handle(now, Input::Revoked(Arc::clone(revoked)));
        }
    }

    fn post(&mut self, to: ShardId, letter: Letter) {
        // A worker that has ended does not read its post: the broker is closing.
        if let Some(letterbox) = self.letterboxes.get(usize::from(to))
            && letterbox.post(letter).is_ok()
        {
            self.to_ring |= 1 << to;
        }
    }

    /// Writes as much of the outbox as the transport takes, within this turn's bound.
    fn write(&mut self, now: Instant, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if !connection.full {
            match connection.transport.flush() {
                Ok(done) => connection.full = !done,
                Err(e) => {
                    log::debug!("A connection broke: {e}.");
                    return self.on_transport_closed(now, conn);
                }
            }
        }
        if connection.full {
            self.shard.handle(now, Input::Written { conn, bytes: 0 });
            return;
        }
        for _ in 0..WRITES_PER_TURN {
            let Some(outbox) = self.shard.outbox(conn) else { return };
            if outbox.is_empty() {
                return;
            }
            let result = connection.transport.write(&mut outbox.chunks());
            match result {
                Ok(sent) => {
                    connection.full = sent.full;
                    self.shard.handle(now, Input::Written { conn, bytes: sent.bytes });
                    if sent.full {
                        return;
                    }
                }
                Err(e) => {
                    log::debug!("A connection broke: {e}.");
                    return self.on_transport_closed(now, conn);
                }
            }
        }
        connection.unwritten = true;
        self.list(conn);
    }

    fn close(&mut self, now: Instant, conn: ConnId, last: &Outbox) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        connection.transport.write_all(last);
        connection.transport.shutdown(&mut self.buffer);
        if last.is_empty() || self.ending.is_some() || self.leaving.len() >= LEAVING_MAX {
            self.remove(conn);
            return;
        }
        connection.leaving = true;
        connection.paused = false;
        connection.kept = Box::default();
        self.leaving.push_back((now + LINGER, conn));
    }

    /// Reads what a connection that is closed still sends, and forgets it.
    fn read_leaving(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        match connection.transport.read(&mut self.buffer) {
            Ok(Received::Bytes { more, .. }) => {
                connection.readable = more || connection.until_empty;
                if connection.readable {
                    self.list(conn);
                }
            }
            Ok(Received::Nothing) => {
                connection.readable = false;
                connection.until_empty = false;
            }
            Ok(Received::End) | Err(_) => {
                self.remove(conn);
            }
        }
    }

    /// Closes guests that are late, or too many.
    fn show_out(&mut self, now: Instant) {
        self.refusals.on_time(now);
        let turned_away = self.refusals.take_turned_away();
        if turned_away > 0 {
            self.shard.handle(now, Input::TurnedAway(turned_away));
        }
        while let Some(&(deadline, conn)) = self.leaving.front()
            && (deadline <= now || self.connections.get(conn).is_none())
        {
            self.leaving.pop_front();
            self.remove(conn);
        }
        loop {
            let connections = &self.connections;
            let Some((conn, late)) = self.lobby.overdue(now, |conn| is_guest(connections, conn)) else {
                return;
            };
            let (kind, why) = match late {
                true => (Refusal::Late, "there is no CONNECT in time ('connect_timeout')"),
                false => (Refusal::Full, "it is the oldest of those without CONNECT, and there are too many"),
            };
            self.refuse(now, conn, kind, &why);
            self.remove(conn);
        }
    }

    fn begin_to_end(&mut self, now: Instant) {
        if self.ending.is_none() {
            self.ending = Some(now + SHUTDOWN);
            self.doors = Doors::default();
            for (_, conn) in std::mem::take(&mut self.leaving) {
                self.remove(conn);
            }
            let guests: Vec<_> = self.connections.all().filter(|&c| is_guest(&self.connections, c)).collect();
            for guest in guests {
                self.remove(guest);
            }
            self.shard.handle(now, Input::Shutdown);
        }
    }
}

/// The places of the bits that are set.
fn bits(mut set: u64) -> impl Iterator<Item = ShardId> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as ShardId);
        set &= set.wrapping_sub(1);
        lowest
    })
}
