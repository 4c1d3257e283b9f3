//! The broker is killed again and again under load: what it acknowledged is there, once, and in order.
//!
//! `ROUNDS=200 SEED=7 cargo test -p hikyaku --test crash`
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod peer;

use broker::{Broker, free_port, hikyaku};
use peer::{packet, string};
use rustix::process::Signal;
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const PUBLISHERS: usize = 6;
const SUBSCRIBERS: usize = 4;
const RETAINED: usize = 4;
const WINDOW: usize = 12;
/// How far subscribers may be behind.
const FAR: u64 = 1000;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap())
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What all threads see.
struct World {
    address: SocketAddr,
    round: AtomicU64,
    /// Publishers send nothing new.
    finish: AtomicBool,
    /// Nothing is retained, so that what a subscriber gets was.
    pause: AtomicBool,
    /// Everyone ends.
    stop: AtomicBool,
    /// How many messages each publisher has sent for the first time.
    sent: [AtomicU64; PUBLISHERS],
    /// The last one of each that each subscriber has got.
    got: Mutex<[[u64; PUBLISHERS]; SUBSCRIBERS]>,
    /// The last acknowledged value of each retained topic.
    retained: [AtomicU64; RETAINED],
    wrong: Mutex<Vec<String>>,
}

impl World {
    fn wrong(&self, what: String) {
        let round = self.round.load(SeqCst);
        self.wrong.lock().unwrap().push(format!("round {round}: {what}"));
    }
}

/// A connection, read without waiting long.
struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    /// Connects with this session; says whether there was one.
    fn open(world: &World, id: &str, clean: bool) -> io::Result<(Line, bool)> {
        let stream = TcpStream::connect(world.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut line = Line { stream, buffer: Vec::new() };
        let flags = if clean { 2 } else { 0 };
        line.send(&packet(0x10, &[b"\0\x04MQTT\x04", &[flags, 0, 0][..], &string(id)].concat()))?;
        let connack = line.await_packet()?;
        if connack[0] != 0x20 || connack[3] != 0 {
            return Err(io::Error::other("refused"));
        }
        Ok((line, connack[2] == 1))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn await_packet(&mut self) -> io::Result<Vec<u8>> {
        let begin = Instant::now();
        loop {
            if let Some(packet) = self.poll()? {
                return Ok(packet);
            }
            if begin.elapsed() > Duration::from_secs(30) {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }

    /// A packet, if one comes soon.
    fn poll(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(packet) = self.take() {
            return Ok(Some(packet));
        }
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                self.buffer.extend_from_slice(&bytes[..n]);
                Ok(self.take())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All packets here are short.
    fn take(&mut self) -> Option<Vec<u8>> {
        let len = 2 + usize::from(*self.buffer.get(1)?);
        assert!(len < 130);
        (self.buffer.len() >= len).then(|| self.buffer.drain(..len).collect())
    }
}

fn ack(first: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [first, 2, high, low]
}

fn id_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

fn publish(topic: &str, first: u8, id: u16, n: u64) -> Vec<u8> {
    packet(first, &[&string(topic)[..], &id.to_be_bytes(), &n.to_be_bytes()].concat())
}

/// Tries until there is a connection, or it is over.
fn connect(world: &World, id: &str) -> Option<(Line, bool)> {
    while !world.stop.load(SeqCst) {
        match Line::open(world, id, false) {
            Ok(line) => return Some(line),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    None
}

/// Publishes numbers in order: those with an even index with QoS 1, others with QoS 2.
fn publisher(world: &World, index: usize) {
    let (id, topic) = (format!("publisher-{index}"), format!("p/{index}"));
    let qos = 1 + (index % 2) as u8;
    // Not acknowledged: packet id, number, whether PUBREC has come.
    let mut window: VecDeque<(u16, u64, bool)> = VecDeque::new();
    let (mut next, mut known) = (0u64, false);
    while let Some((mut line, present)) = connect(world, &id) {
        if known && !present {
            world.wrong(format!("the session of {id} is gone"));
        }
        known = true;
        let mut again: Vec<u8> = Vec::new();
        for &(packet_id, n, received) in &window {
            match received {
                true => again.extend(ack(0x62, packet_id)),
                false => again.extend(publish(&topic, 0x38 | qos << 1, packet_id, n)),
            }
        }
        let mut work = || -> io::Result<bool> {
            line.send(&again)?;
            loop {
                if world.finish.load(SeqCst) && window.is_empty() {
                    return Ok(true);
                }
                let behind = world.got.lock().unwrap().iter().map(|got| got[index]).min().unwrap_or(0);
                let far = next - behind > FAR;
                if window.len() < WINDOW && !far && !world.finish.load(SeqCst) {
                    next += 1;
                    let packet_id = 1 + (next % 1000) as u16;
                    window.push_back((packet_id, next, false));
                    world.sent[index].store(next, SeqCst);
                    line.send(&publish(&topic, 0x30 | qos << 1, packet_id, next))?;
                    continue;
                }
                let Some(packet) = line.poll()? else { continue };
                let at = window.iter().position(|(id, ..)| *id == id_of(&packet));
                match (packet[0], at) {
                    (0x40 | 0x70, Some(at)) => drop(window.remove(at)),
                    (0x50, Some(at)) => {
                        window[at].2 = true;
                        line.send(&ack(0x62, id_of(&packet)))?;
                    }
                    _ => world.wrong(format!("{id} got {packet:x?}")),
                }
            }
        };
        if work().unwrap_or(false) {
            return;
        }
    }
}

fn subscriber(world: &World, index: usize, seed: u64) {
    let id = format!("subscriber-{index}");
    let mut random = Random(seed);
    let (mut subscribed, mut known) = (false, false);
    // QoS 2 messages whose PUBREL has not come.
    let mut received = BTreeSet::new();
    while let Some((mut line, present)) = connect(world, &id) {
        if known && !present {
            world.wrong(format!("the session of {id} is gone"));
        }
        known = true;
        let leave = Instant::now() + Duration::from_millis(50 + random.below(600));
        let mut work = || -> io::Result<()> {
            if !subscribed {
                line.send(&packet(0x82, &[&[0, 1][..], &string("p/#"), &[2]].concat()))?;
            }
            while !world.stop.load(SeqCst) {
                if subscribed && index > 1 && leave < Instant::now() {
                    return Ok(());
                }
                let Some(packet) = line.poll()? else { continue };
                match packet[0] {
                    0x90 => subscribed = true,
                    0x62 => {
                        received.remove(&id_of(&packet));
                        line.send(&ack(0x70, id_of(&packet)))?;
                    }
                    first if first >> 4 == 3 => {
                        let topic = 4 + usize::from(packet[3]);
                        let packet_id = u16::from_be_bytes([packet[topic], packet[topic + 1]]);
                        let from = usize::from(packet[topic - 1] - b'0');
                        let n = u64::from_be_bytes(packet[topic + 2..].try_into().unwrap());
                        let qos = first >> 1 & 3;
                        if qos == 1 || received.insert(packet_id) {
                            take(world, index, from, n, qos, first);
                        }
                        line.send(&ack(if qos == 1 { 0x40 } else { 0x50 }, packet_id))?;
                    }
                    _ => world.wrong(format!("{id} got {packet:x?}")),
                }
            }
            Ok(())
        };
        let _ = work();
        drop(line);
        if index > 1 {
            thread::sleep(Duration::from_millis(random.below(200)));
        }
    }
}

/// A message came that is not one which came before, as far as the protocol tells.
fn take(world: &World, subscriber: usize, from: usize, n: u64, qos: u8, first: u8) {
    let last = &mut world.got.lock().unwrap()[subscriber][from];
    let fits = if qos == 2 { n == *last + 1 } else { n <= *last + 1 };
    if !fits {
        let what = if n > *last { "lost or out of order" } else { "twice" };
        world.wrong(format!(
            "{what}: subscriber {subscriber} got {n} of {from} after {last} (QoS {qos}, {first:x})"
        ));
    }
    *last = n.max(*last);
}

fn retainer(world: &World) {
    let mut values = [0u64; RETAINED];
    let mut at = 0;
    while let Some((mut line, _)) = connect(world, "retainer") {
        let mut work = || -> io::Result<()> {
            while !world.stop.load(SeqCst) {
                if world.pause.load(SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                at = (at + 1) % RETAINED;
                values[at] += 1;
                line.send(&publish(&format!("r/{at}"), 0x33, 1 + at as u16, values[at]))?;
                while line.await_packet()? != ack(0x40, 1 + at as u16) {}
                world.retained[at].store(values[at], SeqCst);
            }
            Ok(())
        };
        let _ = work();
    }
}

fn look_at_retained(world: &World) {
    let acknowledged: Vec<_> = world.retained.iter().map(|n| n.load(SeqCst)).collect();
    let look = || -> io::Result<[u64; RETAINED]> {
        let (mut line, _) = Line::open(world, "", true)?;
        line.send(&packet(0x82, &[&[0, 1][..], &string("r/#"), &[0]].concat()))?;
        let mut values = [0; RETAINED];
        let begin = Instant::now();
        loop {
            // They come from several workers.
            let complete = values.iter().zip(&acknowledged).all(|(value, known)| value >= known);
            if complete || begin.elapsed() > Duration::from_secs(5) {
                return Ok(values);
            }
            let Some(packet) = line.poll()? else { continue };
            if packet[0] == 0x31 {
                let value = packet[7..].try_into().unwrap();
                values[usize::from(packet[6] - b'0')] = u64::from_be_bytes(value);
            }
        }
    };
    let values = look().unwrap();
    for (topic, (value, acknowledged)) in values.into_iter().zip(acknowledged).enumerate() {
        if value < acknowledged {
            world.wrong(format!("r/{topic} is {value}, and {acknowledged} was acknowledged"));
        }
    }
}

fn start(dir: &Path, port: u16, workers: u16) -> Broker {
    let file = dir.join("hikyaku.conf");
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}\n\
         max_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 20\nlog_type error\nlog_type warning\nlog_type notice\nconnection_messages false\n",
        dir.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = hikyaku();
    command.arg("-c").arg(&file).args(["--workers", &workers.to_string()]);
    Broker::spawn(&mut command, port)
}

fn run(workers: &[u16], seed: u64) {
    let port = free_port();
    // With `SEED` given all tests have the same; the port is each one's own.
    let dir = std::env::temp_dir().join(format!("hikyaku-crash-{}-{port}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let world = Arc::new(World {
        address: ([127, 0, 0, 1], port).into(),
        round: AtomicU64::new(0),
        finish: AtomicBool::new(false),
        pause: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        sent: Default::default(),
        got: Mutex::default(),
        retained: Default::default(),
        wrong: Mutex::default(),
    });
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut broker = start(&dir, port, workers[0]);
    let mut readers = Vec::new();
    for index in 0..SUBSCRIBERS {
        let (world, seed) = (Arc::clone(&world), 1 + random.below(u64::MAX - 1));
        readers.push(thread::spawn(move || subscriber(&world, index, seed)));
    }
    // All are there before the first message.
    thread::sleep(Duration::from_millis(300));
    let mut writers = Vec::new();
    for index in 0..PUBLISHERS {
        let world = Arc::clone(&world);
        writers.push(thread::spawn(move || publisher(&world, index)));
    }
    let other = Arc::clone(&world);
    readers.push(thread::spawn(move || retainer(&other)));
    for round in 1..=env("ROUNDS").unwrap_or(5) {
        thread::sleep(Duration::from_millis(20 + random.below(500)));
        broker.signal(Signal::KILL);
        broker.exit_code();
        world.pause.store(true, SeqCst);
        let workers = workers[round as usize % workers.len()];
        broker = start(&dir, port, workers);
        world.round.store(round, SeqCst);
        look_at_retained(&world);
        world.pause.store(false, SeqCst);
        if !world.wrong.lock().unwrap().is_empty() {
            break;
        }
    }
    world.finish.store(true, SeqCst);
    let sent = || world.sent.each_ref().map(|n| n.load(SeqCst));
    let begin = Instant::now();
    let all = |world: &World| world.got.lock().unwrap().iter().all(|got| *got == sent());
    while !(all(&world) && writers.iter().all(|w| w.is_finished()))
        && begin.elapsed() < Duration::from_secs(60)
    {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(300));
    world.stop.store(true, SeqCst);
    let complete = writers.iter().all(|w| w.is_finished());
    writers.into_iter().chain(readers).for_each(|t| t.join().unwrap());
    let mut wrong = std::mem::take(&mut *world.wrong.lock().unwrap());
    let got = world.got.lock().unwrap();
    if !complete || got.iter().any(|got| *got != sent()) {
        wrong.push(format!("not everything came: sent {:?}, got {got:?}, acknowledged: {complete}", sent()));
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0), "{}", broker.logged);
    println!(
        "workers {workers:?}: {} messages in {} rounds",
        sent().iter().sum::<u64>(),
        world.round.load(SeqCst)
    );
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}\n{}", broker.logged);
    let _ = fs::remove_dir_all(&dir);
}

#[test]
fn nothing_is_lost_with_one_worker() {
    run(&[1], env("SEED").unwrap_or(1));
}

#[test]
fn nothing_is_lost_with_three_workers() {
    run(&[3], env("SEED").unwrap_or(2));
}

#[test]
fn nothing_is_lost_when_the_number_of_workers_changes() {
    run(&[1, 3, 2], env("SEED").unwrap_or(3));
}
