//! Many clients on one poll, that count what comes to them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hikyaku_proto::codec::{Frame, PacketType};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const PACKET_MAX: u32 = 1 << 20;

pub(super) struct Crowd {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    buffer: Vec<u8>,
    members: Vec<Member>,
    /// How many packets have come, by type.
    came: [usize; 16],
}

struct Member {
    /// None once it is closed.
    stream: Option<TcpStream>,
    /// The begin of a packet that is not complete.
    rest: Vec<u8>,
}

impl Crowd {
    pub(super) fn new(address: SocketAddr) -> Self {
        let (poll, events) = (Poll::new().expect("there is a poll"), Events::with_capacity(4096));
        Self { poll, events, address, buffer: vec![0; 1 << 20], members: Vec::new(), came: [0; 16] }
    }

    /// Opens a connection and sends these bytes.
    pub(super) fn open(&mut self, bytes: &[u8]) -> usize {
        let index = self.members.len();
        let opened = std::net::TcpStream::connect(self.address).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            Ok(stream)
        });
        let stream = opened.unwrap_or_else(|e| panic!("connection {index}: {e}"));
        self.members.push(Member { stream: Some(stream), rest: Vec::new() });
        self.send(index, bytes);
        index
    }

    pub(super) fn send(&mut self, index: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(stream) = &mut self.members[index].stream else { return };
            match stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.turn(Duration::from_millis(1)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("connection {index} is gone: {e}"),
            }
        }
    }

    pub(super) fn close(&mut self, index: usize) {
        self.members[index].stream = None;
    }

    pub(super) fn count(&self, of: PacketType) -> usize {
        self.came[of as usize]
    }

    /// Reads until so many packets of this type have come in all.
    pub(super) fn wait(&mut self, of: PacketType, count: usize) {
        let mut last = (self.count(of), Instant::now());
        while self.count(of) < count {
            self.turn(LOOK_EVERY);
            if self.count(of) > last.0 {
                last = (self.count(of), Instant::now());
            }
            assert!(last.1.elapsed() < PATIENCE, "{} of {count} {of:?} came", last.0);
        }
    }

    fn turn(&mut self, patience: Duration) {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(e) if e.kind() != ErrorKind::Interrupted => panic!("cannot poll: {e}"),
            _ => {}
        }
        let Self { events, members, buffer, came, .. } = self;
        for event in events.iter() {
            let index = event.token().0;
            members[index].read(buffer, came).unwrap_or_else(|e| panic!("connection {index} is gone: {e}"));
        }
    }
}

impl Member {
    fn read(&mut self, buffer: &mut [u8], came: &mut [usize; 16]) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        loop {
            let n = match stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if self.rest.is_empty() {
                let used = count(&buffer[..n], came);
                self.rest.extend_from_slice(&buffer[used..n]);
            } else {
                self.rest.extend_from_slice(&buffer[..n]);
                let used = count(&self.rest, came);
                self.rest.drain(..used);
            }
            if n < buffer.len() {
                return Ok(());
            }
        }
    }
}

/// Counts whole packets; how many bytes they have.
fn count(bytes: &[u8], came: &mut [usize; 16]) -> usize {
    let mut at = 0;
    while let Some(frame) = Frame::parse(&bytes[at..], PACKET_MAX).expect("the broker sends packets") {
        came[usize::from(frame.first >> 4)] += 1;
        at += frame.raw.len();
    }
    at
}
