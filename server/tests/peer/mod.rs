//! A peer that speaks MQTT 3.1.1 in plain bytes, so that nothing of ours checks itself.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection to a broker.
pub struct Peer(pub TcpStream);

impl Peer {
    /// Connects the socket, nothing more.
    pub fn open(to: SocketAddr) -> Peer {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer(stream)
    }

    /// Connects with this client id, and has been accepted.
    pub fn connect(to: SocketAddr, id: &str) -> Peer {
        let mut peer = Peer::open(to);
        peer.send(&connect(id));
        peer.expect(&[0x20, 2, 0, 0]);
        peer
    }

    /// Subscribes with QoS 0, and has been granted it.
    pub fn subscribe(&mut self, filter: &str) {
        self.send(&subscribe(filter));
        self.expect(&[0x90, 3, 0, 1, 0]);
    }

    /// A round trip: what was sent before has been handled.
    pub fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        self.expect(&[0xD0, 0]);
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next bytes have to be these.
    pub fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.0.read_exact(&mut got).unwrap();
        assert!(got == bytes, "got {:02x?}", &got[..got.len().min(64)]);
    }

    /// The next packet, whatever it is.
    pub fn packet(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet).unwrap();
        while packet[packet.len() - 1] > 127 {
            packet.push(0);
            let last = packet.len() - 1;
            self.0.read_exact(&mut packet[last..]).unwrap();
        }
        let head = packet.len();
        let body = packet[1..].iter().rev().fold(0, |n, b| n << 7 | usize::from(b & 127));
        packet.resize(head + body, 0);
        self.0.read_exact(&mut packet[head..]).unwrap();
        packet
    }

    /// Whether nothing has come that is not read yet.
    pub fn hears_nothing(&mut self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        peeked.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }

    /// The broker has to close, after these bytes.
    pub fn expect_end(&mut self, bytes: &[u8]) {
        let mut got = Vec::new();
        match self.0.read_to_end(&mut got) {
            Ok(_) => assert_eq!(got, bytes),
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
        }
    }
}

pub fn connect(id: &str) -> Vec<u8> {
    packet(0x10, &[b"\0\x04MQTT\x04\x02\0\0", &string(id)[..]].concat())
}

pub fn subscribe(filter: &str) -> Vec<u8> {
    packet(0x82, &[&[0, 1][..], &string(filter), &[0]].concat())
}

pub fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&string(topic)[..], payload].concat())
}

pub fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u16).to_be_bytes(), s.as_bytes()].concat()
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut n = body.len();
    while n > 127 {
        bytes.push(n as u8 | 128);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes.extend_from_slice(body);
    bytes
}
