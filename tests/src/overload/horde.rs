//! Very many raw connections, driven by one poll.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::packets::length;

/// So many are looked at each time.
const WAVE_MAX: usize = 1500;
/// How often more are.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One connection of a [`Horde`], and what has come to it.
#[derive(Debug, Default)]
pub(super) struct Member {
    stream: Option<TcpStream>,
    out: Vec<u8>,
    rest: Vec<u8>,
    /// How many packets came, by type.
    pub(super) came: [u32; 16],
    /// The code of the CONNACK.
    pub(super) connack: Option<u8>,
    /// It ended, or never began.
    pub(super) closed: bool,
    /// Nothing is read.
    pub(super) deaf: bool,
    /// QoS 1 messages are not acknowledged.
    pub(super) rude: bool,
}

impl Member {
    pub(super) fn publishes(&self) -> u32 {
        self.came[3]
    }

    pub(super) fn is_in(&self) -> bool {
        self.connack == Some(0) && !self.closed
    }

    fn drive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while !self.deaf {
            match stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.rest.extend_from_slice(&buffer[..n]),
                Err(e) if is_later(&e) => break,
                Err(e) => return Err(e),
            }
            let mut at = 0;
            while let Some(length) = length(&self.rest[at..]).filter(|length| at + length <= self.rest.len())
            {
                let packet = &self.rest[at..at + length];
                let kind = usize::from(packet[0] >> 4);
                self.came[kind] += 1;
                if kind == 2 {
                    self.connack = packet.get(3).copied();
                }
                if kind == 3 && packet[0] & 6 == 2 && !self.rude {
                    self.out.extend_from_slice(&[0x40, 2]);
                    self.out.extend_from_slice(packet_id(packet));
                }
                at += length;
            }
            self.rest.drain(..at);
        }
        while !self.out.is_empty() {
            match stream.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(e) if is_later(&e) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The packet id of a PUBLISH.
fn packet_id(packet: &[u8]) -> &[u8] {
    let head = 2 + packet[1..].iter().take_while(|byte| **byte >= 128).count();
    let at = head + 2 + usize::from(u16::from_be_bytes([packet[head], packet[head + 1]]));
    &packet[at..at + 2]
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

pub(super) struct Horde {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    buffer: Vec<u8>,
    pub(super) members: Vec<Member>,
}

impl Horde {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            poll: Poll::new().expect("there is a poll"),
            events: Events::with_capacity(4096),
            address,
            buffer: vec![0; 64 << 10],
            members: Vec::new(),
        }
    }

    /// Begins a connection, and sends these bytes as soon as that goes; nothing is waited for.
    pub(super) fn open(&mut self, bytes: &[u8]) -> usize {
        let token = Token(self.members.len());
        let opened = TcpStream::connect(self.address).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        let member = match opened {
            Ok(stream) => Member { stream: Some(stream), out: bytes.to_vec(), ..Member::default() },
            Err(_) => Member { closed: true, ..Member::default() },
        };
        self.members.push(member);
        self.drive(token.0);
        token.0
    }

    pub(super) fn send(&mut self, index: usize, bytes: &[u8]) {
        self.members[index].out.extend_from_slice(bytes);
        self.drive(index);
    }

    /// Waits until the condition holds; false when the time is over before.
    pub(super) fn wait(&mut self, patience: Duration, until: impl Fn(&[Member]) -> bool) -> bool {
        let begin = Instant::now();
        let mut looked = begin;
        loop {
            // A look at very many of them costs, too.
            if self.members.len() < WAVE_MAX || looked.elapsed() > LOOK_EVERY || looked == begin {
                looked = Instant::now();
                if until(&self.members) {
                    return true;
                }
            }
            if begin.elapsed() > patience {
                return until(&self.members);
            }
            if let Err(e) = self.poll.poll(&mut self.events, Some(LOOK_EVERY))
                && e.kind() != ErrorKind::Interrupted
            {
                panic!("cannot poll: {e}");
            }
            let ready: Vec<_> = self.events.iter().map(|event| event.token().0).collect();
            for index in ready {
                self.drive(index);
            }
        }
    }

    /// What waits is read, where that was put off.
    pub(super) fn drive(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.stream.is_some() && member.drive(&mut self.buffer).is_err() {
            member.stream = None;
            member.closed = true;
        }
    }

    /// Closes one, without a word.
    pub(super) fn close(&mut self, index: usize) {
        self.members[index].stream = None;
        self.members[index].closed = true;
    }

    pub(super) fn count(&self, which: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|member| which(member)).count()
    }
}
