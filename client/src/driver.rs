//! The network thread: one transport, one poll, no code of the caller.

use crate::state::{Inner, State, Status};
use crate::{Behavior, Error, Reconnect};
use hikyaku_proto::client::Options;
use log::{debug, info};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WAKE: Token = Token(0);
const TRANSPORT: Token = Token(1);
/// How many reads a turn does before others get the lock.
const READS: usize = 16;

struct Transport {
    stream: TcpStream,
    /// What the poll said and a call has not yet denied.
    readable: bool,
    writable: bool,
}

pub(crate) struct Driver {
    inner: Arc<Inner>,
    poll: Poll,
    addrs: Vec<SocketAddr>,
    connect_timeout: Duration,
    transport: Option<Transport>,
    buffer: Box<[u8]>,
    /// When to connect, while there is no transport.
    connect_at: Instant,
    pause: Duration,
}

impl Driver {
    pub fn start(
        addrs: Vec<SocketAddr>,
        options: Options,
        behavior: Behavior,
    ) -> Result<(Arc<Inner>, Driver), Error> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let connect_timeout = options.connect_timeout.max(Duration::from_millis(1));
        let inner = Arc::new(Inner::new(options, behavior, waker));
        let driver = Driver {
            inner: inner.clone(),
            poll,
            addrs,
            connect_timeout,
            transport: None,
            buffer: vec![0; 64 << 10].into_boxed_slice(),
            connect_at: Instant::now(),
            pause: Duration::ZERO,
        };
        Ok((inner, driver))
    }

    /// Works until the client is closed.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(8);
        loop {
            let inner = self.inner.clone();
            if self.transport.is_none() {
                let state = inner.lock();
                if !state.is_alive() || state.stopping {
                    break;
                }
                drop(state);
                if self.connect_at <= Instant::now() {
                    self.connect();
                }
            }
            let timeout = self.turn(&mut inner.lock());
            inner.notify();
            let Some(timeout) = timeout else { continue };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                inner.lock().finish(Error::Io(error));
                break;
            }
            for event in events.iter().filter(|event| event.token() == TRANSPORT) {
                if let Some(transport) = &mut self.transport {
                    transport.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                    transport.writable |= event.is_writable() || event.is_write_closed();
                }
            }
        }
        self.inner.lock().finish(Error::Closed);
        self.inner.notify();
    }

    /// Tries all addresses. Nothing is locked meanwhile.
    fn connect(&mut self) {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for addr in &self.addrs {
            match self.open(*addr) {
                Ok(stream) => {
                    debug!("Connected to {addr}.");
                    self.transport = Some(Transport { stream, readable: true, writable: true });
                    let mut state = self.inner.lock();
                    // Who stopped it meanwhile wants no CONNECT.
                    if !state.stopping {
                        state.client.transport_up(self.inner.now());
                    }
                    return;
                }
                Err(error) => last = error,
            }
        }
        info!("Cannot connect: {last}.");
        let inner = self.inner.clone();
        let mut state = inner.lock();
        if matches!(state.status, Status::Starting) {
            state.finish(Error::Io(last));
        }
        self.connect_later(&mut state);
    }

    fn open(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = std::net::TcpStream::connect_timeout(&addr, self.connect_timeout)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, TRANSPORT, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    fn connect_later(&mut self, state: &mut State) {
        match self.inner.behavior.reconnect {
            Reconnect::Never => state.finish(Error::Closed),
            Reconnect::After { first, most } => {
                self.pause = (self.pause * 2).clamp(first, most.max(first));
                self.connect_at = Instant::now() + self.pause;
            }
        }
    }

    /// Does everything there is to do; how long to wait for more (`None` within: until woken). Without an answer:
    /// not at all.
    fn turn(&mut self, state: &mut State) -> Option<Option<Duration>> {
        let Some(transport) = &mut self.transport else {
            if !state.is_alive() || state.stopping {
                return None;
            }
            return Some(Some(self.connect_at.saturating_duration_since(Instant::now())));
        };
        let now = self.inner.now();
        if state.paused {
            state.client.not_reading(now);
        }
        state.client.handle_timeout(now);
        let result =
            transport.read(&self.inner, state, &mut self.buffer).and_then(|()| transport.write(state));
        state.take_events(now);
        let result = result.and_then(|()| transport.write(state));
        if matches!(state.status, Status::Connected) {
            self.pause = Duration::ZERO;
        }
        let done = state.client.wants_close() && state.client.outbox().is_empty();
        let stopped = state.stopping && !state.client.is_connected() && !state.client.wants_close();
        if let Err(error) = &result {
            debug!("The transport failed: {error}.");
        }
        if result.is_err() || done || stopped {
            self.close(state);
            return None;
        }
        if transport.readable && state.client.wants_read() && !state.paused {
            return Some(Some(Duration::ZERO));
        }
        let left = |at: hikyaku_proto::time::Instant| {
            // Rounded up: the poll counts in milliseconds.
            at.since(self.inner.now()) + Duration::from_millis(1)
        };
        Some(state.client.poll_timeout().map(left))
    }

    fn close(&mut self, state: &mut State) {
        if let Some(mut transport) = self.transport.take() {
            let _ = self.poll.registry().deregister(&mut transport.stream);
            let _ = transport.stream.shutdown(std::net::Shutdown::Both);
        }
        let now = self.inner.now();
        state.client.transport_down(now);
        state.take_events(now);
        state.paused = false;
        self.connect_later(state);
    }
}

impl Transport {
    fn read(&mut self, inner: &Inner, state: &mut State, buffer: &mut [u8]) -> io::Result<()> {
        if state.paused && state.may_resume() {
            state.paused = false;
        }
        for _ in 0..READS {
            if !self.readable || state.paused || !state.client.wants_read() {
                break;
            }
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
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

    fn write(&mut self, state: &mut State) -> io::Result<()> {
        while self.writable && !state.client.outbox().is_empty() {
            let mut slices = [IoSlice::new(&[]); 64];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(state.client.outbox().chunks()) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            match self.stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => state.client.written(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
