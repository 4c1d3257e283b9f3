//! What outlives the broker: stopped, started again, damaged, without space.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod kept;
mod peer;

use dir::Dir;
use hikyaku::{Server, StartError, StoreError};
use kept::{Killable, next, options, publish, publish1, resume, resume_with, start, subscribe};
use peer::{Peer, packet, string};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::fs;
use std::time::{Duration, Instant};

fn ids(name: &str) -> impl Iterator<Item = String> {
    (0..9).map(move |i| format!("{name}-{i}"))
}

#[test]
fn a_restart_keeps_sessions_queues_and_retained_messages_with_any_number_of_workers() {
    let dir = Dir::new("restart");
    let mut number = 0u32;
    for (run, workers) in [1, 3, 2, 2, 1].into_iter().enumerate() {
        let (server, address) = start(&dir.0, workers);
        for id in ids("subscriber") {
            let (mut subscriber, present) = resume(address, &id);
            assert_eq!(present, run > 0, "{id} in run {run}");
            if run == 0 {
                subscribe(&mut subscriber, "t/#", 1);
            } else {
                // What was published in the last run, after it had gone.
                for i in 0..5 {
                    let (first, packet_id, payload) = next(&mut subscriber);
                    assert_eq!(
                        (first, payload),
                        (0x32, (number - 5 + i).to_be_bytes().to_vec()),
                        "{id} {run}"
                    );
                    subscriber.send(&[0x40, 2, (packet_id >> 8) as u8, packet_id as u8]);
                }
            }
            subscriber.ping();
        }
        let mut publisher = Peer::connect(address, "publisher");
        for _ in 0..5 {
            publish1(&mut publisher, &format!("t/{}", number % 3), false, &number.to_be_bytes());
            number += 1;
        }
        for topic in ids("state") {
            publish1(&mut publisher, &topic, true, format!("{topic} {run}").as_bytes());
        }
        publish1(&mut publisher, "gone", true, b"x");
        publish1(&mut publisher, "gone", true, b"");
        server.shutdown().unwrap();
        let (server, address) = start(&dir.0, workers);
        let mut watcher = Peer::connect(address, "watcher");
        for topic in ids("state") {
            subscribe(&mut watcher, &topic, 1);
            let (first, packet_id, payload) = next(&mut watcher);
            assert_eq!((first, payload), (0x33, format!("{topic} {run}").into_bytes()));
            watcher.send(&[0x40, 2, (packet_id >> 8) as u8, packet_id as u8]);
        }
        watcher.send(&packet(0x82, &[&[0, 9][..], &string("gone"), &[1]].concat()));
        watcher.expect(&[0x90, 3, 0, 9, 1]);
        watcher.ping();
        server.shutdown().unwrap();
    }
}

#[test]
fn who_published_what_is_retained_is_known_after_a_restart() {
    let dir = Dir::new("source");
    let acl = dir.0.join("acl");
    for (access, workers, sent) in [("readwrite", 2, true), ("read", 3, false), ("readwrite", 1, true)] {
        fs::write(&acl, format!("topic {access} state/#\n")).unwrap();
        let rights = format!("acl_file {}\n", acl.display());
        let mut broker = Killable::start_with(&dir, workers, &rights);
        let mut publisher = Peer::connect(broker.0.address, "publisher");
        if workers == 2 {
            publish1(&mut publisher, "state/1", true, b"on");
        }
        subscribe(&mut publisher, "state/+", 1);
        if sent {
            assert_eq!(next(&mut publisher).2, b"on");
        }
        publisher.ping();
        broker.0.signal(Signal::TERM);
        assert_eq!(broker.0.exit_code(), Some(0));
    }
}

#[test]
fn qos_2_goes_on_where_it_was() {
    let dir = Dir::new("qos2");
    let (server, address) = start(&dir.0, 2);
    let (mut subscriber, _) = resume(address, "s");
    subscribe(&mut subscriber, "a", 2);
    let (mut publisher, _) = resume(address, "p");
    publisher.send(&publish("a", 2, false, 1, b"one"));
    publisher.expect(&[0x50, 2, 0, 1]);
    let (first, id, payload) = next(&mut subscriber);
    assert_eq!((first, &payload[..]), (0x34, &b"one"[..]));
    subscriber.send(&[0x50, 2, (id >> 8) as u8, id as u8]);
    subscriber.expect(&[0x62, 2, (id >> 8) as u8, id as u8]);
    publisher.send(&publish("a", 2, false, 2, b"two"));
    publisher.expect(&[0x50, 2, 0, 2]);
    let (_, second, payload) = next(&mut subscriber);
    assert_eq!(payload, b"two");
    server.shutdown().unwrap();

    let (server, address) = start(&dir.0, 1);
    let (mut publisher, present) = resume(address, "p");
    assert!(present);
    // It comes again, and is not delivered again.
    publisher.send(
        &publish("a", 2, false, 1, b"one")
            .iter()
            .enumerate()
            .map(|(i, b)| b | u8::from(i == 0) << 3)
            .collect::<Vec<_>>(),
    );
    publisher.expect(&[0x50, 2, 0, 1]);
    for id in [1, 2] {
        publisher.send(&[0x62, 2, 0, id]);
        publisher.expect(&[0x70, 2, 0, id]);
    }
    let (mut subscriber, present) = resume(address, "s");
    assert!(present);
    let mut came = vec![subscriber.packet(), subscriber.packet()];
    came.sort();
    assert_eq!(came[0][0], 0x3C, "the second again, with DUP: {came:x?}");
    assert_eq!(came[0][came[0].len() - 5..], [(second >> 8) as u8, second as u8, b't', b'w', b'o']);
    assert_eq!(came[1], [0x62, 2, (id >> 8) as u8, id as u8]);
    subscriber.send(&[0x70, 2, (id >> 8) as u8, id as u8]);
    subscriber.send(&[0x50, 2, (second >> 8) as u8, second as u8]);
    subscriber.expect(&[0x62, 2, (second >> 8) as u8, second as u8]);
    subscriber.send(&[0x70, 2, (second >> 8) as u8, second as u8]);
    subscriber.ping();
    server.shutdown().unwrap();
    let (_server, address) = start(&dir.0, 2);
    let (mut subscriber, present) = resume(address, "s");
    assert!(present);
    subscriber.ping();
}

#[test]
fn a_will_is_published_after_the_broker_was_killed() {
    let dir = Dir::new("will");
    let mut broker = Killable::start(&dir, 2);
    let (mut watcher, _) = resume(broker.0.address, "watcher");
    subscribe(&mut watcher, "will/#", 1);
    let will =
        [b"\0\x04MQTT\x04\x0c\0\0", &string("dying")[..], &string("will/dying"), &string("dead")].concat();
    let (_dying, _) = resume_with(broker.0.address, &packet(0x10, &will));
    let clean =
        [b"\0\x04MQTT\x04\x0e\0\0", &string("clean")[..], &string("will/clean"), &string("dead")].concat();
    let (_clean, _) = resume_with(broker.0.address, &packet(0x10, &clean));
    watcher.ping();
    broker = broker.again(&dir, 1);
    let (mut watcher, present) = resume(broker.0.address, "watcher");
    assert!(present);
    for _ in 0..2 {
        let (_, id, payload) = next(&mut watcher);
        assert_eq!(payload, b"dead");
        watcher.send(&[0x40, 2, (id >> 8) as u8, id as u8]);
    }
    watcher.ping();
}

#[test]
fn long_queues_are_read_from_the_store_in_order() {
    const MESSAGES: u32 = 5_000;
    let dir = Dir::new("queue");
    for workers in [1, 2] {
        let (server, address) = start(&dir.0, workers);
        let (mut subscriber, _) = resume(address, "slow");
        subscribe(&mut subscriber, "q", 1);
        drop(subscriber);
        let mut publisher = Peer::connect(address, "publisher");
        for batch in (0..MESSAGES).step_by(50) {
            let all: Vec<u8> = (batch..batch + 50)
                .flat_map(|n| publish("q", 1, false, 1 + n as u16 % 50, &n.to_be_bytes()))
                .collect();
            publisher.send(&all);
            for n in batch..batch + 50 {
                publisher.expect(&[0x40, 2, 0, 1 + (n % 50) as u8]);
            }
        }
        let read = |subscriber: &mut Peer, from: u32, to: u32| {
            for n in from..to {
                let (_, id, payload) = next(subscriber);
                assert_eq!(payload, n.to_be_bytes(), "{n}");
                subscriber.send(&[0x40, 2, (id >> 8) as u8, id as u8]);
            }
            subscriber.ping_among();
        };
        read(&mut resume(address, "slow").0, 0, 1_500);
        server.shutdown().unwrap();
        let (server, address) = start(&dir.0, workers);
        let (mut subscriber, present) = resume(address, "slow");
        assert!(present);
        // What was sent and not acknowledged comes first; what is acknowledged does not come.
        read(&mut subscriber, 1_500, MESSAGES);
        subscriber.ping();
        server.shutdown().unwrap();
    }
}

trait PingAmong {
    fn ping_among(&mut self);
}

impl PingAmong for Peer {
    /// A round trip, whatever comes meanwhile.
    fn ping_among(&mut self) {
        self.send(&[0xC0, 0]);
        while self.packet() != [0xD0, 0] {}
    }
}

#[test]
fn one_directory_serves_one_broker() {
    let dir = Dir::new("lock");
    let (_server, _) = start(&dir.0, 1);
    let error = Server::start(options(&dir.0, 1)).unwrap_err();
    assert!(matches!(&error, StartError::Store(StoreError::Locked(path)) if *path == dir.store()));
    assert!(error.to_string().contains(&dir.store().display().to_string()));
}

#[test]
fn a_directory_that_is_not_there_is_told() {
    let dir = Dir::new("absent");
    let error = Server::start(options(&dir.0.join("absent"), 1)).unwrap_err().to_string();
    assert!(error.starts_with("Cannot keep data in ") && error.contains("absent"), "{error}");
}

#[test]
fn what_a_later_version_wrote_is_left_alone() {
    const META: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("meta");
    let dir = Dir::new("newer");
    start(&dir.0, 1).0.shutdown().unwrap();
    let base = redb::Database::create(dir.store().join("base.redb")).unwrap();
    let change = base.begin_write().unwrap();
    change.open_table(META).unwrap().insert("format", 2).unwrap();
    change.commit().unwrap();
    drop(base);
    let error = Server::start(options(&dir.0, 1)).unwrap_err();
    assert!(matches!(&error, StartError::Store(StoreError::Newer { .. })), "{error}");
    assert!(
        error.to_string().contains("is of a later version of hikyaku: its format is 2, not 1"),
        "{error}"
    );
}

#[test]
fn where_nothing_can_be_written_nothing_starts() {
    let dir = Dir::new("unwritable");
    fs::write(dir.store(), "a file").unwrap();
    let error = Server::start(options(&dir.0, 1)).unwrap_err().to_string();
    assert!(error.starts_with("Cannot keep data in ") && error.contains("hikyaku.store"), "{error}");
    fs::remove_file(dir.store()).unwrap();
    start(&dir.0, 1).0.shutdown().unwrap();
    fs::write(dir.store().join("base.redb"), [7; 8192]).unwrap();
    let error = Server::start(options(&dir.0, 1)).unwrap_err().to_string();
    assert!(error.contains("hikyaku.store"), "{error}");
}

#[test]
fn a_killed_broker_has_lost_nothing_that_was_acknowledged() {
    let dir = Dir::new("killed");
    for more in ["persistence_durability disk", "persistence_durability os"] {
        let mut broker = Killable::start_with(&dir, 2, more);
        let (mut subscriber, _) = resume(broker.0.address, "s");
        subscribe(&mut subscriber, "k", 1);
        drop(subscriber);
        let mut publisher = Peer::connect(broker.0.address, "p");
        (0..100u8).for_each(|n| publish1(&mut publisher, "k", false, &[n]));
        broker = broker.again(&dir, 2);
        let (mut subscriber, present) = resume(broker.0.address, "s");
        assert!(present);
        for n in 0..100 {
            let (_, id, payload) = next(&mut subscriber);
            assert_eq!(payload, [n]);
            subscriber.send(&[0x40, 2, (id >> 8) as u8, id as u8]);
        }
        subscriber.ping();
        broker.0.signal(Signal::TERM);
        assert_eq!(broker.0.exit_code(), Some(0), "{}", broker.0.logged);
    }
}

/// How much of what was acknowledged a killed broker has lost that could not write the last of it.
fn lost_when_killed(durability: &str) -> usize {
    let dir = Dir::new(&format!("killed-{durability}"));
    let mut broker = Killable::start_with(&dir, 1, &format!("persistence_durability {durability}"));
    let (mut subscriber, _) = resume(broker.0.address, "s");
    subscribe(&mut subscriber, "k", 1);
    drop(subscriber);
    let mut publisher = Peer::connect(broker.0.address, "p");
    (0..10).for_each(|n| publish1(&mut publisher, "k", false, &[n]));
    let limit = Rlimit { current: Some(1), maximum: None };
    prlimit(Pid::from_raw(broker.0.id().try_into().unwrap()), Resource::Fsize, limit).unwrap();
    publisher.send(&publish("k", 1, false, 7, &[10]));
    broker.0.await_line("QoS 1 and 2 are refused until it can");
    // An answer, if there is one, has come when the second of these has.
    let mut acknowledged = 10;
    for _ in 0..2 {
        publisher.send(&[0xC0, 0]);
        while publisher.packet()[0] == 0x40 {
            acknowledged += 1;
        }
    }
    let broker = broker.again(&dir, 1);
    let (mut subscriber, present) = resume(broker.0.address, "s");
    assert!(present);
    subscriber.send(&[0xC0, 0]);
    let mut came = 0;
    while subscriber.packet()[0] >> 4 == 3 {
        came += 1;
    }
    acknowledged - came
}

#[test]
fn what_is_acknowledged_is_with_the_system_but_for_durability_memory() {
    assert_eq!(["disk", "os"].map(lost_when_killed), [0, 0]);
    // Or nothing is tested here.
    assert!(lost_when_killed("memory") > 0);
}

#[test]
fn damage_costs_what_is_damaged() {
    damage("damage", false);
}

#[test]
fn damage_after_a_crash_costs_what_is_damaged() {
    damage("crashed", true);
}

fn damage(name: &str, crash: bool) {
    let dir = Dir::new(name);
    let (server, address) = start(&dir.0, 1);
    let (mut subscriber, _) = resume(address, "s");
    subscribe(&mut subscriber, "t", 1);
    drop(subscriber);
    let mut publisher = Peer::connect(address, "p");
    for payload in [&b"first ______"[..], b"second _____", b"third ______"] {
        publish1(&mut publisher, "t", false, payload);
    }
    publish1(&mut publisher, "r/1", true, b"retained one");
    publish1(&mut publisher, "r/2", true, b"retained two");
    server.shutdown().unwrap();
    if crash {
        // The base is open for changes then, and what has come is in it.
        drop(Killable::start(&dir, 1).again(&dir, 1));
    }
    let file = dir.store().join("base.redb");
    let mut bytes = fs::read(&file).unwrap();
    for payload in [&b"second _____"[..], b"retained one"] {
        let places: Vec<_> =
            bytes.windows(payload.len()).enumerate().filter(|(_, w)| *w == payload).map(|(i, _)| i).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|&i| bytes[i] ^= 1);
    }
    fs::write(&file, bytes).unwrap();
    for run in 0..2 {
        let mut broker = Killable::start(&dir, 1);
        assert_eq!(
            broker.0.logged.contains("A message (to t?) is damaged and put aside"),
            run == 0,
            "{}",
            broker.0.logged
        );
        assert_eq!(
            broker.0.logged.contains("The retained message of r/1 is lost"),
            run == 0,
            "{}",
            broker.0.logged
        );
        let (mut subscriber, present) = resume(broker.0.address, "s");
        assert!(present);
        assert_eq!(next(&mut subscriber).2, b"first ______");
        assert_eq!(next(&mut subscriber).2, b"third ______");
        let mut watcher = Peer::connect(broker.0.address, "w");
        watcher.send(&packet(0x82, &[&[0, 9][..], &string("r/#"), &[0]].concat()));
        watcher.expect(&[0x90, 3, 0, 9, 0]);
        watcher.expect(&packet(0x31, &[&string("r/2")[..], b"retained two"].concat()));
        watcher.ping();
        broker.0.signal(Signal::TERM);
        assert_eq!(broker.0.exit_code(), Some(0));
    }
}

/// Where the engine's own pages are hit it may have to give up; it must say so then, and what is served must be true.
#[test]
fn a_flipped_bit_anywhere_invents_nothing() {
    const MESSAGES: u32 = 40;
    let flips = std::env::var("FLIPS").map_or(40, |n| n.parse().unwrap());
    let dir = Dir::new("flips");
    let (server, address) = start(&dir.0, 1);
    let (mut subscriber, _) = resume(address, "s");
    subscribe(&mut subscriber, "t", 1);
    drop(subscriber);
    let mut publisher = Peer::connect(address, "p");
    (0..MESSAGES)
        .for_each(|n| publish1(&mut publisher, "t", n % 8 == 0, format!("message {n:08}").as_bytes()));
    server.shutdown().unwrap();
    let files: Vec<_> = ["base.redb", "lock"].map(|f| (f, fs::read(dir.store().join(f)).unwrap())).into();
    let used: Vec<_> = files[0].1.iter().enumerate().filter(|(_, b)| **b != 0).map(|(i, _)| i).collect();
    let (mut random, mut whole, mut refused, mut less) = (88_172_645_463_325_252u64, 0, 0, 0);
    for _ in 0..flips {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let damaged = Dir::new("flipped");
        fs::create_dir(damaged.store()).unwrap();
        for (name, bytes) in &files {
            let mut bytes = bytes.clone();
            if *name == "base.redb" {
                bytes[used[random as usize % used.len()]] ^= 1 << (random >> 60 & 7);
            }
            fs::write(damaged.store().join(name), bytes).unwrap();
        }
        let server = match Server::start(options(&damaged.0, 1)) {
            Ok(server) => server,
            Err(StartError::Store(_)) => {
                refused += 1;
                continue;
            }
            Err(e) => panic!("{e}"),
        };
        let (mut subscriber, present) = resume(server.local_addrs()[0], "s");
        let mut came = Vec::new();
        if present {
            // The others come when the first are acknowledged.
            let mut before = usize::MAX;
            while before != came.len() {
                before = came.len();
                subscriber.send(&[0xC0, 0]);
                loop {
                    let packet = subscriber.packet();
                    if packet == [0xD0, 0] {
                        break;
                    }
                    let text = std::str::from_utf8(&packet[7..]).unwrap();
                    came.push(text.strip_prefix("message ").unwrap().parse::<u32>().unwrap());
                    subscriber.send(&[0x40, 2, packet[5], packet[6]]);
                }
            }
            assert!(came.is_sorted() && came.windows(2).all(|w| w[0] < w[1]), "{came:?}");
        }
        if came.len() == MESSAGES as usize {
            whole += 1
        } else {
            less += 1
        }
        server.shutdown().unwrap();
    }
    println!("all there: {whole}, some missing: {less}, refused: {refused}");
    assert!(whole > flips / 2 && refused <= flips / 10);
}

#[test]
fn without_space_nothing_is_promised_until_there_is_some() {
    let dir = Dir::new("space");
    let mut broker = Killable::start(&dir, 2);
    let (mut subscriber, _) = resume(broker.0.address, "s");
    subscribe(&mut subscriber, "t", 1);
    drop(subscriber);
    let mut live = Peer::connect(broker.0.address, "live");
    live.subscribe("t/0");
    let mut publisher = Peer::connect(broker.0.address, "p");
    publish1(&mut publisher, "t", false, b"before");
    let id = Pid::from_raw(broker.0.id().try_into().unwrap());
    let limit = |bytes| {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(id, Resource::Fsize, limit).unwrap();
    };
    limit(Some(1));
    publisher.send(&publish("t", 1, false, 8, b"during"));
    broker.0.await_line("QoS 1 and 2 are refused until it can");
    // QoS 0 lives.
    live.send(&peer::publish("t/0", b"now"));
    live.expect(&peer::publish("t/0", b"now"));
    let mut refused = Peer::connect(broker.0.address, "refused");
    refused.send(&publish("t", 1, false, 9, b"refused"));
    refused.expect_end(b"");
    limit(None);
    broker.0.await_line("takes changes again");
    let mut publisher = Peer::connect(broker.0.address, "p2");
    publish1(&mut publisher, "t", false, b"after");
    let broker = broker.again(&dir, 1);
    let (mut subscriber, present) = resume(broker.0.address, "s");
    assert!(present);
    let mut came = Vec::new();
    while came.last().is_none_or(|p| p != b"after") {
        let (_, id, payload) = next(&mut subscriber);
        subscriber.send(&[0x40, 2, (id >> 8) as u8, id as u8]);
        came.push(payload);
    }
    assert_eq!(came[0], b"before");
    assert!(!came.contains(&b"refused".to_vec()));
}

#[test]
fn memory_does_not_grow_with_a_queue() {
    const MESSAGES: u32 = 60_000;
    let dir = Dir::new("memory");
    let broker = Killable::start_with(&dir, 1, "persistence_durability os");
    let rss = || {
        let status = fs::read_to_string(format!("/proc/{}/status", broker.0.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    let (mut subscriber, _) = resume(broker.0.address, "s");
    subscribe(&mut subscriber, "t", 1);
    drop(subscriber);
    let before = rss();
    let mut publisher = Peer::connect(broker.0.address, "p");
    let payload = [7; 1024];
    for _ in (0..MESSAGES).step_by(50) {
        let all: Vec<u8> = (1..51).flat_map(|id| publish("t", 1, false, id, &payload)).collect();
        publisher.send(&all);
        (1..51).for_each(|id| publisher.expect(&[0x40, 2, 0, id]));
    }
    let grown = rss() - before;
    assert!(grown <= 56, "{grown} MiB for {} MiB of messages", (u64::from(MESSAGES) * 1024) >> 20);
}

#[test]
fn what_is_drained_is_given_back() {
    let dir = Dir::new("drained");
    let (server, address) = start(&dir.0, 1);
    let (mut subscriber, _) = resume(address, "s");
    subscribe(&mut subscriber, "t", 1);
    drop(subscriber);
    let mut publisher = Peer::connect(address, "p");
    for _ in 0..600 {
        let all: Vec<u8> = (1..51).flat_map(|id| publish("t", 1, false, id, &[7; 1024])).collect();
        publisher.send(&all);
        (1..51).for_each(|id| publisher.expect(&[0x40, 2, 0, id]));
    }
    let size = || {
        let files = fs::read_dir(dir.store()).unwrap();
        files.map(|f| f.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    let most = size();
    // The session ends, with all that waits.
    drop(Peer::connect(address, "s"));
    let begin = Instant::now();
    while size() > most / 8 {
        assert!(begin.elapsed() < Duration::from_secs(40), "{} of {most} bytes are left", size());
        std::thread::sleep(Duration::from_millis(100));
    }
    server.shutdown().unwrap();
}
