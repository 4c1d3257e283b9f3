//! The network thread: one transport, one poll, no code of the caller.
//!
//! Looking up the host, connecting and shaking hands block, so each try has a thread of its own. It hands over a
//! transport and wakes this one; when the client has been closed meanwhile, nobody takes it.

use crate::authentication::Method;
use crate::link::Link;
use crate::packets::Packets;
use crate::state::{Inner, State, Status};
use crate::transport::{Route, Transport, open};
use crate::{Behavior, Error, Reconnect};
use hikyaku_proto::client::Options;
use log::{debug, info};
use mio::{Events, Interest, Poll, Token, Waker};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

const WAKE: Token = Token(0);
const TRANSPORT: Token = Token(1);
/// How many reads a turn does before others get the lock.
const READS: usize = 16;

enum Way {
    /// The next try comes later.
    Down,
    /// A thread is at it.
    Opening(Receiver<io::Result<Transport>>),
    Up(Box<Link>),
}

pub(crate) struct Driver {
    inner: Arc<Inner>,
    poll: Poll,
    route: Route,
    way: Way,
    buffer: Box<[u8]>,
    /// When to connect, while the way is down.
    connect_at: Instant,
    pause: Duration,
    random: u64,
}

impl Driver {
    pub fn start(
        route: Route,
        options: Options,
        behavior: Behavior,
        method: Option<Method>,
    ) -> Result<(Arc<Inner>, Driver), Error> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let inner = Arc::new(Inner::new(options, behavior, waker));
        inner.state.lock_for_turn().authenticator.method = method;
        let driver = Driver {
            inner: inner.clone(),
            poll,
            route,
            way: Way::Down,
            buffer: vec![0; 64 << 10].into_boxed_slice(),
            connect_at: Instant::now(),
            pause: Duration::ZERO,
            // Its keys are random; the xorshift below needs something but 0.
            random: RandomState::new().build_hasher().finish() | 1,
        };
        Ok((inner, driver))
    }

    /// Works until the client is closed.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(8);
        loop {
            let inner = self.inner.clone();
            if !matches!(self.way, Way::Up(_)) {
                let state = inner.state.lock_for_turn();
                if !state.is_alive() || state.stopping {
                    break;
                }
                drop(state);
                self.connect();
            }
            let timeout = self.turn(&mut inner.state.lock_for_turn());
            inner.state.notify();
            let Some(timeout) = timeout else { continue };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                inner.state.lock_for_turn().finish(Error::Io(error));
                break;
            }
            for event in events.iter().filter(|event| event.token() == TRANSPORT) {
                if let Way::Up(link) = &mut self.way {
                    link.note(event);
                }
            }
        }
        self.inner.state.lock_for_turn().finish(Error::Closed);
        self.inner.state.notify();
    }

    /// Begins a try when it is time, and looks for the outcome of the one underway.
    fn connect(&mut self) {
        if matches!(self.way, Way::Down) && self.connect_at <= Instant::now() {
            let (sender, receiver) = channel();
            let (route, inner) = (self.route.clone(), self.inner.clone());
            let work = move || {
                // Without a receiver the client has been closed.
                let _ = sender.send(open(&route));
                inner.wake();
            };
            match std::thread::Builder::new().name(String::from("hikyaku-connect")).spawn(work) {
                Ok(_) => self.way = Way::Opening(receiver),
                Err(error) => return self.on_failed(error),
            }
        }
        let Way::Opening(receiver) = &self.way else { return };
        let opened = match receiver.try_recv() {
            Ok(opened) => opened,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the connecting thread ended")),
        };
        match opened.and_then(|transport| self.register(transport)) {
            Ok(link) => {
                self.way = Way::Up(link);
                let mut state = self.inner.state.lock_for_turn();
                // Who stopped it meanwhile wants no CONNECT.
                if !state.stopping {
                    match state.prepare_authentication() {
                        Ok(()) => state.client.transport_up(self.inner.now()),
                        Err(error) => {
                            state.finish(error);
                            state.stopping = true;
                        }
                    }
                }
            }
            Err(error) => self.on_failed(error),
        }
    }

    fn register(&mut self, mut transport: Transport) -> io::Result<Box<Link>> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(transport.source(), TRANSPORT, interest)?;
        let packets = Packets::if_wanted(self.inner.state.lock_for_turn().client.options());
        Ok(Box::new(Link::new(transport, packets)))
    }

    fn on_failed(&mut self, error: io::Error) {
        info!("Cannot connect to {}: {error}.", self.route.address);
        let inner = self.inner.clone();
        let mut state = inner.state.lock_for_turn();
        if matches!(state.status, Status::Starting) {
            state.finish(Error::Io(error));
        }
        self.connect_later(&mut state);
    }

    fn connect_later(&mut self, state: &mut State) {
        self.way = Way::Down;
        match self.inner.behavior.reconnect {
            Reconnect::Never => state.finish(Error::Closed),
            Reconnect::After { first, most } => {
                self.pause = (self.pause * 2).clamp(first, most.max(first));
                self.connect_at = Instant::now() + self.with_jitter(self.pause);
            }
        }
    }

    /// Between half of a pause and all of it, so that clients that lost a server together come back one by one.
    fn with_jitter(&mut self, pause: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let thousandth = u32::try_from(self.random >> 32).unwrap_or_default() % 1000;
        pause / 2 + pause / 2000 * thousandth
    }

    /// Does everything there is to do; how long to wait for more (`None` within: until woken). Without an answer:
    /// not at all.
    fn turn(&mut self, state: &mut State) -> Option<Option<Duration>> {
        let link = match &mut self.way {
            Way::Down | Way::Opening(_) if state.stopping || !state.is_alive() => return None,
            Way::Down => return Some(Some(self.connect_at.saturating_duration_since(Instant::now()))),
            Way::Opening(_) => return Some(None),
            Way::Up(link) => link,
        };
        let now = self.inner.now();
        if state.paused {
            state.client.not_reading(now);
        }
        state.client.handle_timeout(now);
        let result =
            link.read(&self.inner, state, &mut self.buffer).and_then(|()| link.write(&mut state.client));
        state.take_events(now);
        let result = result.and_then(|()| link.write(&mut state.client));
        if matches!(state.status, Status::Connected) {
            self.pause = Duration::ZERO;
        }
        let written = state.client.outbox().is_empty() && !link.unflushed;
        let done = state.client.wants_close() && (written || state.close_is_due(now));
        let never_up = !state.client.is_connected() && !state.client.wants_close();
        let stopped = state.stopping && (state.abrupt || never_up);
        let failed = result.is_err();
        if let Err(error) = result {
            debug!("The transport failed: {error}.");
            // With TLS 1.3 a server that does not take our certificate says so when we think that we are in.
            if matches!(state.status, Status::Starting) && error.kind() == ErrorKind::InvalidData {
                state.finish(Error::Io(error));
            }
        }
        if failed || done || stopped {
            self.close(state);
            return None;
        }
        if link.readable && state.client.wants_read() && !state.paused {
            return Some(Some(Duration::ZERO));
        }
        let left = |at: hikyaku_proto::time::Instant| {
            // Rounded up: the poll counts in milliseconds.
            at.since(self.inner.now()) + Duration::from_millis(1)
        };
        Some(state.client.poll_timeout().or(state.close_by).map(left))
    }

    fn close(&mut self, state: &mut State) {
        if let Way::Up(link) = &mut self.way {
            link.transport.shutdown();
            let _ = self.poll.registry().deregister(link.transport.source());
        }
        let now = self.inner.now();
        state.client.transport_down(now);
        state.take_events(now);
        state.paused = false;
        state.close_by = None;
        self.connect_later(state);
    }
}

impl Link {
    /// Reads while there is something and the client takes it.
    fn read(&mut self, inner: &Inner, state: &mut State, buffer: &mut [u8]) -> io::Result<()> {
        if state.paused && state.may_resume() {
            state.paused = false;
        }
        for _ in 0..READS {
            if !self.readable || state.paused || !state.client.wants_read() {
                break;
            }
            match self.transport.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    if let Some(packets) = &mut self.packets {
                        packets.received(&buffer[..n]);
                    }
                    let now = inner.now();
                    state.client.handle_bytes(now, &buffer[..n]);
                    state.take_events(now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
