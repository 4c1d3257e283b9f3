//! Clients that have nothing to do with an attack: pairs that play ping-pong, and keep-alives, all the time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::packets::{self, PINGREQ, Session, connect, length};

/// On several workers, whichever they are.
const PAIRS: usize = 4;
/// Who waits longer than that is not served.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that is read and written blocking.
#[derive(Debug)]
pub(super) struct Plain {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Plain {
    /// Connects, and is let in.
    pub(super) fn connect(to: SocketAddr, id: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut plain = Self { stream, rest: Vec::new() };
        plain.send(&connect(id, Session::Clean, None))?;
        match plain.packet()?[..] {
            [0x20, 2, _, 0] => Ok(plain),
            _ => Err(io::Error::other("not let in")),
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(super) fn subscribe(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        self.send(&packets::subscribe(1, [filter], qos))?;
        while self.packet()?[0] != 0x90 {}
        Ok(())
    }

    pub(super) fn packet(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = length(&self.rest).filter(|length| *length <= self.rest.len()) {
                return Ok(self.rest.drain(..length).collect());
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.rest.extend_from_slice(&buffer[..n]),
            }
        }
    }

    /// A packet that comes within this time.
    pub(super) fn packet_within(&mut self, time: Duration) -> Option<Vec<u8>> {
        self.stream.set_read_timeout(Some(time)).ok()?;
        self.packet().ok()
    }
}

/// Round trips of a time, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trips {
    pub(super) p50: u32,
    pub(super) p99: u32,
    pub(super) max: u32,
}

impl Trips {
    fn of(mut all: Vec<u32>) -> Self {
        all.sort_unstable();
        let at = |part: usize| all.get(all.len() * part / 100).copied().unwrap_or(0);
        Self { p50: at(50), p99: at(99), max: all.last().copied().unwrap_or(0) }
    }
}

impl std::fmt::Display for Trips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |micros: u32| f64::from(micros) / 1000.0;
        write!(f, "{:.2}/{:.2}/{:.1} ms", ms(self.p50), ms(self.p99), ms(self.max))
    }
}

/// The pairs, at work in a thread of their own.
pub(super) struct Bystanders {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    trips: Mutex<Vec<u32>>,
    /// When the trip began that is not over.
    begun: Mutex<Option<Instant>>,
    failed: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl Bystanders {
    pub(super) fn start(to: SocketAddr) -> io::Result<Self> {
        let mut pairs = Vec::new();
        for at in 0..PAIRS {
            let publisher = Plain::connect(to, &format!("bystander-a{at}"))?;
            let mut subscriber = Plain::connect(to, &format!("bystander-b{at}"))?;
            subscriber.subscribe(&format!("bystander/{at}"), 0)?;
            pairs.push((publisher, subscriber));
        }
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            if let Err(e) = play(&mut pairs, &theirs) {
                *theirs.failed.lock().expect("no panic") = Some(e.to_string());
            }
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What was measured since the last time; a trip that is not over counts as far as it got.
    pub(super) fn trips(&self) -> Trips {
        let mut trips = std::mem::take(&mut *self.shared.trips.lock().expect("no panic"));
        trips.extend(
            self.shared.begun.lock().expect("no panic").map(|begin| begin.elapsed().as_micros() as u32),
        );
        Trips::of(trips)
    }

    /// Ends them; what went wrong, if anything did.
    pub(super) fn stop(&mut self) -> Option<String> {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.failed.lock().expect("no panic").clone()
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        self.stop();
    }
}

fn play(pairs: &mut [(Plain, Plain)], shared: &Shared) -> io::Result<()> {
    loop {
        for (at, (publisher, subscriber)) in pairs.iter_mut().enumerate() {
            if shared.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            let begin = Instant::now();
            *shared.begun.lock().expect("no panic") = Some(begin);
            publisher.send(&packets::publish(&format!("bystander/{at}"), b"ping"))?;
            while subscriber.packet()?[0] >> 4 != 3 {}
            let trip = begin.elapsed();
            publisher.send(&PINGREQ)?;
            while publisher.packet()?[0] != 0xD0 {}
            *shared.begun.lock().expect("no panic") = None;
            let longest = trip.max(begin.elapsed() - trip);
            shared.trips.lock().expect("no panic").push(longest.as_micros() as u32);
            thread::sleep(Duration::from_millis(1));
        }
    }
}
