//! A broker of one shard behind a TCP listener, in a thread of the test.

#![allow(dead_code, reason = "no test needs all of it")]

use hikyaku_proto::broker::{Config, ConnId, Input, Output, Placement, Shard};
use hikyaku_proto::time::Instant as Moment;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST: usize = 2;
pub const SECONDS_10: Duration = Duration::from_secs(10);

const NOTHING: usize = 0;
const CUT: usize = 1;
const STOP: usize = 2;

/// A broker of one shard, in a thread.
pub struct Broker {
    pub addr: SocketAddr,
    order: Arc<AtomicUsize>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    pub fn start() -> Broker {
        Broker::start_with(Config::default())
    }

    pub fn start_with(config: Config) -> Broker {
        let poll = Poll::new().unwrap();
        let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let order = Arc::new(AtomicUsize::new(NOTHING));
        let given = order.clone();
        let thread = std::thread::spawn(move || Served::new(poll, listener, config).run(&given));
        Broker { addr, order, waker, thread: Some(thread) }
    }

    /// Breaks all connections.
    pub fn cut(&self) {
        self.order.store(CUT, Ordering::SeqCst);
        self.waker.wake().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.order.store(STOP, Ordering::SeqCst);
        self.waker.wake().unwrap();
        self.thread.take().map(JoinHandle::join);
    }
}

struct Served {
    poll: Poll,
    listener: TcpListener,
    shard: Shard,
    streams: BTreeMap<u32, (TcpStream, Vec<u8>)>,
    connections: u32,
    started: Instant,
}

impl Served {
    fn new(poll: Poll, listener: TcpListener, config: Config) -> Served {
        let config = Arc::new(Config { sys_interval_s: 0, ..config });
        let placement = Arc::new(Placement::new(1, 1));
        let shard = Shard::new(0, 1, 1, config, placement, Moment::ZERO);
        Served { poll, listener, shard, streams: BTreeMap::new(), connections: 0, started: Instant::now() }
    }

    fn now(&self) -> Moment {
        Moment::from_micros(self.started.elapsed().as_micros() as u64)
    }

    fn run(mut self, order: &AtomicUsize) {
        let mut events = Events::with_capacity(64);
        loop {
            self.poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
            match order.swap(NOTHING, Ordering::SeqCst) {
                CUT => {
                    self.streams.keys().copied().collect::<Vec<_>>().into_iter().for_each(|i| self.gone(i))
                }
                STOP => return,
                _ => {}
            }
            while let Ok((mut stream, _)) = self.listener.accept() {
                let index = self.connections;
                self.connections += 1;
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, Token(FIRST + index as usize), interest).unwrap();
                self.streams.insert(index, (stream, Vec::new()));
                let conn = ConnId { index, generation: 1 };
                // Chosen client identifiers come from it.
                let entropy = u128::from(index).to_be_bytes();
                let opened = Input::Opened { conn, listener: 0, peer: None, identity: None, entropy };
                self.shard.handle(self.now(), opened);
            }
            let all: Vec<u32> = self.streams.keys().copied().collect();
            for index in all {
                self.read(index);
                self.write(index);
            }
            self.settle();
        }
    }

    fn gone(&mut self, index: u32) {
        self.streams.remove(&index);
        self.shard.handle(self.now(), Input::Closed { conn: ConnId { index, generation: 1 } });
    }

    fn read(&mut self, index: u32) {
        let now = self.now();
        let Some((stream, kept)) = self.streams.get_mut(&index) else { return };
        let mut buffer = [0; 4096];
        let mut ended = false;
        while !ended {
            match stream.read(&mut buffer) {
                Ok(0) => ended = true,
                Ok(n) => kept.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => ended = true,
            }
        }
        let conn = ConnId { index, generation: 1 };
        let used = self.shard.handle(now, Input::Received { conn, bytes: kept });
        kept.drain(..used);
        // What came before the end counts.
        if ended {
            self.gone(index);
        }
    }

    fn write(&mut self, index: u32) {
        let now = self.now();
        let conn = ConnId { index, generation: 1 };
        let Some((stream, _)) = self.streams.get_mut(&index) else { return };
        let Some(outbox) = self.shard.outbox(conn) else { return };
        let mut bytes = 0;
        for chunk in outbox.chunks() {
            let n = stream.write(chunk).unwrap_or(0);
            bytes += n;
            if n < chunk.len() {
                break;
            }
        }
        self.shard.handle(now, Input::Written { conn, bytes });
    }

    fn settle(&mut self) {
        loop {
            match self.shard.poll_output(self.now()) {
                Output::Transmit(conn) => self.write(conn.index),
                Output::Close { conn, last } => {
                    if let Some((mut stream, _)) = self.streams.remove(&conn.index) {
                        last.chunks().for_each(|chunk| drop(stream.write(chunk)));
                    }
                }
                Output::Timeout(at) => {
                    if at.is_none_or(|at| at > self.now()) {
                        return;
                    }
                    self.shard.handle(self.now(), Input::Timeout);
                }
                _ => {}
            }
        }
    }
}
