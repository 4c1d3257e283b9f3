//! Memory for all clients together, and what one address may.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod peer;

use broker::{Broker, free_port, hikyaku};
use peer::{Peer, packet, string};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A broker with these lines, and the file they are in.
fn start(name: &str, lines: &str) -> (Broker, PathBuf) {
    let port = free_port();
    let file = std::env::temp_dir().join(format!("hikyaku-{name}-{}.conf", std::process::id()));
    let head = format!("listener {port} 127.0.0.1\nallow_anonymous true");
    std::fs::write(&file, format!("{head}\n{lines}\n")).unwrap();
    let broker = Broker::spawn(hikyaku().arg("-c").arg(&file), port);
    (broker, file)
}

/// CONNECT of 5.0 with a session that stays, and whether there was one.
fn connect_v5(peer: &mut Peer, id: &str) -> bool {
    let body = [b"\0\x04MQTT\x05\0\0\0\x05\x11\0\0\x10\0", &string(id)[..]].concat();
    peer.send(&packet(0x10, &body));
    let connack = peer.packet();
    assert_eq!(connack[3], 0, "{connack:02x?}");
    connack[2] == 1
}

/// Publishes with QoS 1, and says the reason code of the PUBACK.
fn publish(peer: &mut Peer, topic: &str, payload: &[u8]) -> u8 {
    peer.send(&packet(0x32, &[&string(topic)[..], &[0, 1, 0], payload].concat()));
    let puback = peer.packet();
    assert_eq!(puback[0], 0x40);
    puback.get(4).copied().unwrap_or(0)
}

/// What the system says the broker has in memory.
fn resident(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn what_is_held_stays_within_memory_limit() {
    const LIMIT: u64 = 20_000_000;
    for workers in [1, 3] {
        let lines = format!(
            "workers {workers}\nmemory_limit {LIMIT}\nmax_queued_messages 0\nmax_queued_bytes 0\nsys_interval 1"
        );
        let (mut broker, file) = start("memory", &lines);
        let mut away = Peer::open(broker.address);
        connect_v5(&mut away, "away");
        away.send(&packet(0x82, &[&[0, 1, 0][..], &string("t/#"), &[1]].concat()));
        assert_eq!(away.packet()[0], 0x90);
        drop(away);
        let before = resident(&broker);
        let mut publishers: Vec<Peer> = (0..4)
            .map(|i| {
                let mut peer = Peer::open(broker.address);
                connect_v5(&mut peer, &format!("p{i}"));
                peer
            })
            .collect();
        let payload = vec![b'x'; 10_000];
        let mut sent = 0;
        'all: loop {
            for (i, peer) in publishers.iter_mut().enumerate() {
                match publish(peer, &format!("t/{i}"), &payload) {
                    0 => sent += 1,
                    reason => {
                        assert_eq!(reason, 0x97);
                        break 'all;
                    }
                }
            }
        }
        let bytes = sent * payload.len() as u64;
        assert!((LIMIT / 10 * 8..LIMIT / 10 * 13).contains(&bytes), "{bytes}");
        let grown = resident(&broker) - before;
        assert!(grown < LIMIT * 2, "{grown}");
        broker.await_line("a message is refused, memory is short ('memory_limit')");
        // QoS 0 goes on, and so do those who take what waits for them, which makes room.
        let mut watcher = Peer::open(broker.address);
        watcher.send(&packet(0x10, &[b"\0\x04MQTT\x05\x02\0\0\0", &string("p0")[..]].concat()));
        let connack = watcher.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "the id is known: no new session");
        watcher.ping();
        let mut away = Peer::open(broker.address);
        assert!(connect_v5(&mut away, "away"));
        for _ in 0..sent {
            let publish = away.packet();
            assert_eq!(publish[0] & 0xf0, 0x30);
            let head = publish.len() - payload.len() - 3;
            away.send(&[0x40, 2, publish[head], publish[head + 1]]);
        }
        away.ping();
        drop(away);
        let begin = Instant::now();
        while publish(&mut publishers[1], "t/1", &payload) != 0 {
            assert!(begin.elapsed() < Duration::from_secs(10), "it is still short");
        }
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn an_address_has_as_many_connections_as_it_may() {
    let (mut broker, file) = start("address", "max_connections_per_address 2");
    let one = Peer::connect(broker.address, "one");
    let _two = Peer::connect(broker.address, "two");
    Peer::open(broker.address).expect_end(&[]);
    broker.await_line(
        "'max_connections_per_address' allows 2 connections from one address, and there are as many.",
    );
    drop(one);
    let begin = Instant::now();
    loop {
        let mut third = Peer::open(broker.address);
        // Who is refused may find the connection reset already.
        let sent = third.0.write_all(&peer::connect("third"));
        if sent.is_ok() && third.0.read(&mut [0; 4]).is_ok_and(|n| n == 4) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "there is no room");
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn an_address_has_as_many_connections_a_second_as_it_may() {
    let (mut broker, file) = start("arrivals", "max_connection_rate 3");
    let _many: Vec<_> = (0..20).map(|_| Peer::open(broker.address)).collect();
    broker.await_line("'max_connection_rate' allows 3 connections a second from one address.");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn of_too_many_without_connect_the_oldest_goes() {
    let (mut broker, file) = start("pending", "max_pending_connections 2\nconnect_timeout 600");
    let mut oldest = Peer::open(broker.address);
    let others = [Peer::open(broker.address), Peer::open(broker.address)];
    oldest.expect_end(&[]);
    broker.await_line("it is the oldest of those without CONNECT");
    Peer::connect(broker.address, "quick").ping();
    drop(others);
    std::fs::remove_file(file).unwrap();
}

/// A limit of connections: the line that sets it, how often what is too much for it, and what is logged.
type Case = (&'static str, &'static [u8], u64, &'static str);

#[test]
fn connections_that_are_turned_away_are_counted_and_logged_and_others_stay() {
    let late = "there is no CONNECT in time ('connect_timeout').";
    let cases: [Case; 7] = [
        ("max_connections 1", b"", 3, "'max_connections' allows 1 connections, and there are as many."),
        ("global_max_connections 1", b"", 3, "'global_max_connections' allows 1 connections"),
        ("max_connections_per_address 1", b"", 3, "'max_connections_per_address' allows 1 connections"),
        ("max_connection_rate 1", b"", 10, "'max_connection_rate' allows 1 connections a second"),
        ("max_pending_connections 1", b"", 3, "it is the oldest of those without CONNECT"),
        ("connect_timeout 1", b"\x10", 3, late),
        ("max_connect_size 1000", b"\x10\xE8\x07", 3, "the packet is larger than the maximum packet size"),
    ];
    for (option, sent, times, logged) in cases {
        let lines = format!("workers 2\nsys_interval 1\n{option}");
        let (mut broker, file) = start("turned-away", &lines);
        let mut observer = Peer::connect(broker.address, "observer");
        observer.subscribe("$SYS/broker/limits/connection");
        let mut others: Vec<_> = (0..=times).map(|_| Peer::open(broker.address)).collect();
        // Some are closed by then.
        others.iter_mut().for_each(|other| drop(other.0.write_all(sent)));
        // Of one connection a second, and of those without CONNECT, one stays.
        let begin = Instant::now();
        loop {
            let publish = observer.packet();
            let payload = publish.rsplit(|byte| !byte.is_ascii_digit()).next().unwrap();
            let count: u64 = std::str::from_utf8(payload).unwrap().parse().unwrap();
            if count >= times {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(15), "{option}: {count}");
        }
        broker.await_line(logged);
        let lines = broker.logged.lines().filter(|line| line.contains(logged)).count() as u64;
        assert!(lines <= 1 + begin.elapsed().as_secs(), "{option}: {}", broker.logged);
        drop(others);
        observer.send(&[0xC0, 0]);
        while observer.packet() != [0xD0, 0] {}
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn who_publishes_too_fast_is_slowed_down() {
    let (mut broker, file) = start("rate", "max_publish_rate 100");
    let mut subscriber = Peer::connect(broker.address, "s");
    subscriber.subscribe("t");
    let mut publisher = Peer::connect(broker.address, "p");
    let begin = Instant::now();
    let message = peer::publish("t", b"x");
    publisher.send(&message.repeat(200));
    publisher.ping();
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    subscriber.expect(&message.repeat(200));
    broker.await_line("it publishes more than 'max_publish_rate' allows");
    std::fs::remove_file(file).unwrap();
}
