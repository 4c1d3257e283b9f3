//! The blocking client against a shard of the broker behind a TCP listener.

use hikyaku_client::{Behavior, By, Client, Connector, Error, Options, QoS, ReasonCode, Reconnect, Version};
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
const SECONDS_10: Duration = Duration::from_secs(10);

const NOTHING: usize = 0;
const CUT: usize = 1;
const STOP: usize = 2;

/// A broker of one shard, in a thread.
struct Broker {
    addr: SocketAddr,
    order: Arc<AtomicUsize>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    fn start() -> Broker {
        let poll = Poll::new().unwrap();
        let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let order = Arc::new(AtomicUsize::new(NOTHING));
        let given = order.clone();
        let thread = std::thread::spawn(move || Served::new(poll, listener).run(&given));
        Broker { addr, order, waker, thread: Some(thread) }
    }

    /// Breaks all connections.
    fn cut(&self) {
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
    fn new(poll: Poll, listener: TcpListener) -> Served {
        let config = Arc::new(Config { sys_interval_s: 0, ..Config::default() });
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
                let opened =
                    Input::Opened { conn, listener: 0, peer: None, identity: None, entropy: [0; 16] };
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
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return self.gone(index),
                Ok(n) => kept.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.gone(index),
            }
        }
        let conn = ConnId { index, generation: 1 };
        let used = self.shard.handle(now, Input::Received { conn, bytes: kept });
        kept.drain(..used);
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

fn options(version: Version, id: &str) -> Options {
    Options { clean_start: false, session_expiry_s: 100, ..Options::new(version, id) }
}

fn fast() -> Behavior {
    let first = Duration::from_millis(1);
    Behavior { reconnect: Reconnect::After { first, most: first * 10 }, ..Behavior::default() }
}

fn connect_with(addr: SocketAddr, options: Options, behavior: Behavior) -> Result<Client, Error> {
    Connector::new(addr, options)?.behavior(behavior).connect()
}

#[test]
fn messages_go_both_ways_in_all_versions() {
    let broker = Broker::start();
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let client = Client::connect(broker.addr, options(version, "both")).unwrap();
        let all = client.subscribe("a/+", QoS::ExactlyOnce).unwrap();
        for (topic, qos) in [("a/0", QoS::AtMostOnce), ("a/1", QoS::AtLeastOnce), ("a/2", QoS::ExactlyOnce)] {
            let delivery = client.publish(topic, topic.as_bytes(), qos).unwrap();
            assert_eq!(delivery.wait(SECONDS_10).unwrap(), ReasonCode::Success);
            let message = all.recv(SECONDS_10).unwrap().expect("it arrives");
            assert_eq!((message.topic(), message.payload(), message.qos()), (topic, topic.as_bytes(), qos));
        }
        assert!(all.try_recv().unwrap().is_none());
        drop(all);
        client.disconnect(SECONDS_10).unwrap();
    }
}

#[test]
fn large_messages_and_many_small_ones_arrive_in_order() {
    let broker = Broker::start();
    let client = Client::connect(broker.addr, options(Version::V5, "large")).unwrap();
    let all = client.subscribe("#", QoS::AtLeastOnce).unwrap();
    let large = vec![7; 1_000_000];
    client.publish("large", &large, QoS::AtLeastOnce).unwrap();
    for i in 0..3000u32 {
        client.publish("small", &i.to_be_bytes(), QoS::AtLeastOnce).unwrap();
    }
    assert_eq!(all.recv(SECONDS_10).unwrap().unwrap().payload(), large);
    for (i, message) in (0..3000u32).zip(&all) {
        assert_eq!(message.payload(), i.to_be_bytes());
    }
    client.disconnect(SECONDS_10).unwrap();
    assert!(matches!(all.recv(SECONDS_10), Err(Error::Closed)));
}

#[test]
fn a_full_queue_stops_reading_and_loses_nothing() {
    let broker = Broker::start();
    let behavior = Behavior { queue_messages: 4, ..fast() };
    let slow = connect_with(broker.addr, options(Version::V3_1_1, "slow"), behavior).unwrap();
    let all = slow.subscribe("t", QoS::AtLeastOnce).unwrap();
    let client = Client::connect(broker.addr, options(Version::V5, "quick")).unwrap();
    let payload = vec![0; 50_000];
    let sent: Vec<_> = (0..50).map(|_| client.publish("t", &payload, QoS::AtLeastOnce).unwrap()).collect();
    for delivery in sent {
        delivery.wait(SECONDS_10).unwrap();
    }
    assert!(all.len() < 40, "{} wait", all.len());
    assert_eq!(all.into_iter().take(50).count(), 50);
}

#[test]
fn qos_2_survives_broken_connections() {
    let broker = Broker::start();
    let client = connect_with(broker.addr, options(Version::V5, "broken"), fast()).unwrap();
    let all = client.subscribe("t", QoS::ExactlyOnce).unwrap();
    for round in 0..20u32 {
        let sent: Vec<_> = (0..20u32)
            .map(|i| client.publish("t", &(round * 20 + i).to_be_bytes(), QoS::ExactlyOnce).unwrap())
            .collect();
        broker.cut();
        for delivery in sent {
            delivery.wait(SECONDS_10).unwrap();
        }
    }
    for i in 0..400u32 {
        let message = all.recv(SECONDS_10).unwrap().unwrap_or_else(|| panic!("{i} is lost"));
        assert_eq!(message.payload(), i.to_be_bytes());
    }
    assert!(all.try_recv().unwrap().is_none());
}

#[test]
fn subscriptions_are_made_again_when_the_session_is_lost() {
    let broker = Broker::start();
    let clean = Options::new(Version::V3_1_1, "clean");
    let client = connect_with(broker.addr, clean, fast()).unwrap();
    let all = client.subscribe("t", QoS::AtLeastOnce).unwrap();
    broker.cut();
    // Behind the CONNECT, and so behind the new SUBSCRIBE, whenever that is.
    client.publish("t", b"", QoS::AtLeastOnce).unwrap().wait(SECONDS_10).unwrap();
    let deadline = Instant::now() + SECONDS_10;
    while all.recv(Duration::from_millis(50)).unwrap().is_none() {
        assert!(Instant::now() < deadline);
        client.publish("t", b"", QoS::AtLeastOnce).unwrap();
    }
}

#[test]
fn errors_are_told() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = nobody.local_addr().unwrap();
    drop(nobody);
    let refused = Client::connect(addr, options(Version::V5, "x"));
    assert!(matches!(refused, Err(Error::Io(_))), "{refused:?}");

    let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = peer.local_addr().unwrap();
    let answers = [&b"\x20\x02\0\x05"[..], b"HTTP/1.1 400 Bad Request\r\n"];
    let thread = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = peer.accept().unwrap();
            stream.read_exact(&mut [0; 15]).unwrap();
            stream.write_all(answer).unwrap();
        }
        peer
    });
    let connect = || Client::connect(addr, options(Version::V3_1_1, "x"));
    assert!(matches!(connect(), Err(Error::Refused(ReasonCode::NotAuthorized))));
    assert!(matches!(connect(), Err(Error::Disconnected(By::Protocol(_)))));
    let _silent = thread.join();
    let hasty = Options { connect_timeout: Duration::from_millis(50), ..options(Version::V3_1_1, "x") };
    assert!(matches!(Client::connect(addr, hasty), Err(Error::Disconnected(By::Timeout(_)))));
}

#[test]
fn a_client_that_shall_not_reconnect_says_why_it_ended() {
    let broker = Broker::start();
    let behavior = Behavior { reconnect: Reconnect::Never, ..Behavior::default() };
    let client = connect_with(broker.addr, options(Version::V5, "once"), behavior).unwrap();
    let all = client.subscribe("t", QoS::AtMostOnce).unwrap();
    broker.cut();
    assert!(matches!(all.recv(SECONDS_10), Err(Error::Closed)));
    let result = client.publish("t", b"", QoS::AtLeastOnce);
    assert!(matches!(result, Err(Error::Disconnected(By::Transport))), "{result:?}");
}
