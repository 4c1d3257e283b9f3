//! A broker without IO at the other end of what you fuzz.
//!
//! Give [`Peer::receive`] the bytes that your client sends, and your client the bytes that come back. There are no sockets, no threads and no
//! clock: the same bytes give the same answers. In a fuzz target your fuzzer's bytes would choose the steps; here they are in `main`.

use hikyaku_proto::broker::{Config, ConnId, Input, Output, Placement, Shard};
use hikyaku_proto::time::Instant;
use std::sync::Arc;
use std::time::Duration;

/// A broker with one connection.
struct Peer {
    broker: Shard,
    now: Instant,
    conn: ConnId,
    /// The broker wants no more bytes for now: keep them.
    paused: bool,
    open: bool,
    unread: Vec<u8>,
}

impl Peer {
    fn new() -> Peer {
        let config = Arc::new(Config { sys_interval_s: 0, ..Config::default() });
        let placement = Arc::new(Placement::new(1, 1));
        let now = Instant::from_secs(1);
        let mut broker = Shard::new(0, 1, 1, config, placement, now);
        let conn = ConnId { index: 0, generation: 0 };
        broker.handle(now, Input::Opened { conn, listener: 0, peer: None, identity: None, entropy: [7; 16] });
        Peer { broker, now, conn, paused: false, open: true, unread: Vec::new() }
    }

    /// Takes bytes of your client, cut wherever you like. Returns what the broker says to them.
    fn receive(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(bytes);
        self.turn()
    }

    /// Lets time pass: keep alives, expiries, delayed wills.
    fn wait(&mut self, time: Duration) -> Vec<u8> {
        self.now = self.now + time;
        self.broker.handle(self.now, Input::Timeout);
        self.turn()
    }

    /// A turn as a driver makes it: hand in, poll all outputs, write.
    fn turn(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        loop {
            let mut used = 0;
            if self.open && !self.paused && !self.unread.is_empty() {
                let input = Input::Received { conn: self.conn, bytes: &self.unread };
                used = self.broker.handle(self.now, input);
                self.unread.drain(..used);
            }
            loop {
                match self.broker.poll_output(self.now) {
                    Output::Transmit(conn) => {
                        let Some(outbox) = self.broker.outbox(conn) else { continue };
                        let bytes = outbox.chunks().flatten().copied().collect::<Vec<u8>>();
                        self.broker.handle(self.now, Input::Written { conn, bytes: bytes.len() });
                        said.extend(bytes);
                    }
                    Output::Close { last, .. } => {
                        said.extend(last.chunks().flatten());
                        self.open = false;
                    }
                    Output::PauseReads(_) => self.paused = true,
                    Output::ResumeReads(_) => self.paused = false,
                    Output::Timeout(Some(at)) if at <= self.now => {
                        self.broker.handle(self.now, Input::Timeout);
                    }
                    Output::Timeout(_) => break,
                    // Other shards, a store and users are not configured.
                    _ => {}
                }
            }
            if used == 0 {
                return said;
            }
        }
    }
}

fn main() {
    let mut peer = Peer::new();
    // What your client would have sent.
    let connack = peer.receive(b"\x10\x0d\0\x04MQTT\x04\x02\0\x0a\0\x01c");
    assert_eq!(connack, b"\x20\x02\0\0");
    let suback = peer.receive(b"\x82\x06\0\x01\0\x01t\x01");
    assert_eq!(suback, b"\x90\x03\0\x01\x01");
    // Cut in the middle.
    assert_eq!(peer.receive(b"\x30\x04\0"), b"");
    assert_eq!(peer.receive(b"\x01tx"), b"\x30\x04\0\x01tx");
    // Your client would have to send PINGREQ by now.
    peer.wait(Duration::from_secs(16));
    assert!(!peer.open);
    println!("connected, subscribed, heard itself, and was closed for its silence");
}
