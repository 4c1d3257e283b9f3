//! Brokers with a store, and clients whose sessions are kept.
#![allow(dead_code)]

use crate::broker::{Broker, free_port, hikyaku};
use crate::dir::Dir;
use crate::peer::{Peer, packet, string};
use hikyaku::config::{Endpoint, ListenerSettings, PersistenceSettings};
use hikyaku::{Options, Server};
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

impl Dir {
    pub fn store(&self) -> PathBuf {
        self.0.join("hikyaku.store")
    }
}

pub fn options(dir: &Path, workers: u16) -> Options {
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners = vec![ListenerSettings { endpoint, ..Default::default() }];
    let location = Some(dir.into());
    let persistence = PersistenceSettings { enabled: true, location, ..Default::default() };
    let config = hikyaku_proto::broker::Config { max_queued_messages: 1_000_000, ..Default::default() };
    Options { listeners, workers, persistence, config, ..Options::default() }
}

pub fn start(dir: &Path, workers: u16) -> (Server, SocketAddr) {
    let server = Server::start(options(dir, workers)).unwrap();
    let address = server.local_addrs()[0];
    (server, address)
}

/// Connects without Clean Session; says whether there was one.
pub fn resume(to: SocketAddr, id: &str) -> (Peer, bool) {
    resume_with(to, &packet(0x10, &[b"\0\x04MQTT\x04\0\0\0", &string(id)[..]].concat()))
}

pub fn resume_with(to: SocketAddr, connect: &[u8]) -> (Peer, bool) {
    let mut peer = Peer::open(to);
    peer.send(connect);
    let connack = peer.packet();
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:?}");
    (peer, connack[2] == 1)
}

pub fn subscribe(peer: &mut Peer, filter: &str, qos: u8) {
    peer.send(&packet(0x82, &[&[0, 9][..], &string(filter), &[qos]].concat()));
    peer.expect(&[0x90, 3, 0, 9, qos]);
}

pub fn publish(topic: &str, qos: u8, retain: bool, id: u16, payload: &[u8]) -> Vec<u8> {
    packet(0x30 | qos << 1 | u8::from(retain), &[&string(topic)[..], &id.to_be_bytes(), payload].concat())
}

/// Publishes with QoS 1, and it is acknowledged.
pub fn publish1(peer: &mut Peer, topic: &str, retain: bool, payload: &[u8]) {
    peer.send(&publish(topic, 1, retain, 7, payload));
    peer.expect(&[0x40, 2, 0, 7]);
}

/// The next packet is a PUBLISH with QoS above 0: its first byte, its packet id and its payload.
pub fn next(peer: &mut Peer) -> (u8, u16, Vec<u8>) {
    let packet = peer.packet();
    assert_eq!(packet[0] >> 4, 3, "{packet:x?}");
    let at = 1 + packet[1..].iter().position(|b| b & 128 == 0).unwrap() + 1;
    let topic = usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let id = u16::from_be_bytes([packet[at + 2 + topic], packet[at + 3 + topic]]);
    (packet[0], id, packet[at + 4 + topic..].to_vec())
}

/// The broker's binary with a store.
pub struct Killable(pub Broker);

impl Killable {
    pub fn start(dir: &Dir, workers: u16) -> Killable {
        Killable::start_with(dir, workers, "")
    }

    pub fn start_with(dir: &Dir, workers: u16, more: &str) -> Killable {
        let port = free_port();
        let file = dir.0.join("hikyaku.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}\n\
             max_queued_messages 0\n{more}",
            dir.0.display()
        );
        fs::write(&file, text).unwrap();
        let mut command = hikyaku();
        command.arg("-c").arg(&file).args(["--workers", &workers.to_string()]);
        Killable(Broker::spawn(&mut command, port))
    }

    /// Killed, and started again.
    pub fn again(mut self, dir: &Dir, workers: u16) -> Killable {
        self.0.signal(Signal::KILL);
        self.0.exit_code();
        Killable::start(dir, workers)
    }
}
