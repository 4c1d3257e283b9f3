//! How many connections and sessions there may be.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod peer;

use broker::{Broker, free_port, hikyaku};
use hikyaku::config::{Endpoint, ListenerSettings};
use hikyaku::{Options, Server};
use hikyaku_proto::broker::{Config, Listener};
use peer::{Peer, connect, packet, string};
use rustix::process::Signal;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;

/// A server whose listeners may have so many connections.
fn start(
    workers: u16,
    all: Option<u32>,
    each: &[Option<u32>],
    max_sessions: u32,
) -> (Server, Vec<SocketAddr>) {
    let listener = |&max_connections: &Option<u32>| {
        let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
        ListenerSettings { endpoint, max_connections, ..Default::default() }
    };
    let listeners = each.iter().map(listener).collect();
    let core = vec![Listener::default(); each.len()];
    let config = Config { max_sessions, listeners: core, ..Config::default() };
    let options = Options { listeners, workers, max_connections: all, config, ..Options::default() };
    let server = Server::start(options).unwrap();
    let addresses = server.local_addrs().to_vec();
    (server, addresses)
}

/// Connects if there is room: what the broker says to a CONNECT, nothing if it closes.
fn try_connect(to: SocketAddr, connect: &[u8]) -> (Peer, Vec<u8>) {
    use std::io::Write;
    let mut peer = Peer::open(to);
    let mut answer = vec![0; 4];
    // Who is refused may find the connection closed, or reset.
    let told = peer.0.write_all(connect).and_then(|()| peer.0.read_exact(&mut answer));
    match told {
        Ok(()) => (peer, answer),
        Err(e) => {
            let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(kinds.contains(&e.kind()), "{e}");
            (peer, Vec::new())
        }
    }
}

/// Connects as soon as there is room.
fn connect_at_last(to: SocketAddr, id: &str) -> Peer {
    let begin = std::time::Instant::now();
    loop {
        let (peer, answer) = try_connect(to, &connect(id));
        if answer == [0x20, 2, 0, 0] {
            return peer;
        }
        assert!(begin.elapsed().as_secs() < 10, "there is no room: {answer:02x?}");
    }
}

#[test]
fn a_listener_has_as_many_connections_as_it_may() {
    for workers in [1, 3] {
        let (_server, to) = start(workers, None, &[Some(5), None], u32::MAX);
        let mut peers: Vec<Peer> = (0..4).map(|i| Peer::connect(to[0], &format!("peer-{i}"))).collect();
        // One that says nothing counts, too.
        let silent = Peer::open(to[0]);
        for _ in 0..3 {
            assert_eq!(try_connect(to[0], &connect("late")).1, []);
        }
        let mut elsewhere = Peer::connect(to[1], "elsewhere");
        peers.iter_mut().for_each(Peer::ping);
        // Whoever goes makes room, however it goes: by itself, by DISCONNECT, as the loser of a takeover.
        drop(silent);
        let mut last = connect_at_last(to[0], "last");
        peers.pop().unwrap().send(&[0xE0, 0]);
        let mut more = connect_at_last(to[0], "more");
        elsewhere.send(&[0xE0, 0]);
        let mut taken = Peer::connect(to[1], "more");
        let mut again = connect_at_last(to[0], "again");
        for peer in [&mut last, &mut taken, &mut again] {
            peer.ping();
        }
        more.expect_end(&[]);
        assert_eq!(try_connect(to[0], &connect("late")).1, []);
    }
}

#[test]
fn all_listeners_together_have_as_many_connections_as_they_may() {
    let (_server, to) = start(2, Some(3), &[None, Some(2)], u32::MAX);
    let first = Peer::connect(to[0], "first");
    let _second = Peer::connect(to[1], "second");
    let _third = Peer::connect(to[1], "third");
    assert_eq!(try_connect(to[0], &connect("late")).1, []);
    drop(first);
    // That was no place of this listener.
    assert_eq!(try_connect(to[1], &connect("late")).1, []);
    connect_at_last(to[0], "fourth");
}

#[test]
fn a_websocket_counts_as_one_and_until_its_end() {
    let (_server, to) = start(2, None, &[Some(2)], u32::MAX);
    let upgrade = || {
        let mut peer = Peer::open(to[0]);
        peer.send(
            b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
              Sec-WebSocket-Protocol: mqtt\r\n\r\n",
        );
        let mut answer = [0; 12];
        peer.0.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        peer
    };
    let sockets = [upgrade(), upgrade()];
    assert_eq!(try_connect(to[0], &connect("late")).1, []);
    drop(sockets);
    let _both = (connect_at_last(to[0], "a"), connect_at_last(to[0], "b"));
    assert_eq!(try_connect(to[0], &connect("late")).1, []);
}

#[test]
fn refusals_are_logged_once_a_second_and_limits_are_reloaded() {
    let port = free_port();
    let file = std::env::temp_dir().join(format!("hikyaku-limits-{}.conf", std::process::id()));
    let write = |limit| {
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\n{limit}\n");
        std::fs::write(&file, text).unwrap();
    };
    write("max_connections 1");
    let mut broker = Broker::spawn(hikyaku().arg("-c").arg(&file), port);
    let _one = Peer::connect(broker.address, "one");
    for _ in 0..20 {
        assert_eq!(try_connect(broker.address, &connect("late")).1, []);
    }
    broker.await_line("Connections beyond the limits that were not logged: ");
    let why = "'max_connections' allows 1 connections, and there are as many.";
    assert!(broker.logged.contains(why), "{}", broker.logged);
    write("max_connections -1\nglobal_max_connections 2");
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    let _two = Peer::connect(broker.address, "two");
    assert_eq!(try_connect(broker.address, &connect("late")).1, []);
    write("global_max_connections 0\nglobal_max_clients 2");
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    assert_eq!(try_connect(broker.address, &connect("third")).1, [0x20, 2, 0, 3]);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn there_are_as_many_sessions_as_may_be() {
    for workers in [1, 3] {
        let (_server, to) = start(workers, None, &[None], 4);
        let kept = |id: &str| packet(0x10, &[b"\0\x04MQTT\x04\0\0\0", &string(id)[..]].concat());
        let mut clients = Vec::new();
        for id in ["a", "b", "c", "d"] {
            let (mut peer, answer) = try_connect(to[0], &kept(id));
            assert_eq!(answer, [0x20, 2, 0, 0]);
            // What another worker knows of it, it knows a turn later.
            peer.ping();
            clients.push(peer);
        }
        drop(clients);
        // 3.1.1: the service is unavailable. 5.0: the server is busy.
        for id in ["e", "f", "g"] {
            assert_eq!(try_connect(to[0], &connect(id)).1, [0x20, 2, 0, 3]);
        }
        let v5 = packet(0x10, &[b"\0\x04MQTT\x05\x02\0\0\0", &string("e")[..]].concat());
        assert_eq!(try_connect(to[0], &v5).1, [0x20, 3, 0, 0x89]);
        // Those there are come back, and one that ends its session makes room.
        assert_eq!(try_connect(to[0], &kept("b")).1, [0x20, 2, 1, 0]);
        drop(Peer::connect(to[0], "c"));
        connect_at_last(to[0], "e").ping();
    }
}
