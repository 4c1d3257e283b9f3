//! What one connection does, and what it must not do to the others: malformed packets, silence, too many.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hikyaku_tests::PATIENCE;
use hikyaku_tests::matrix::{V5, V311};
use hikyaku_tests::process::Broker;
use hikyaku_tests::wire::{Packet, Wire, connect, hex, packet, puback, publish_1, subscribe};

/// Malformed for both versions: what it is and the bytes that follow an accepted CONNECT.
const MALFORMED: &[(&str, &str)] = &[
    ("PUBLISH of QoS 3", "36 06 0001 61 0001 00"), // [MQTT-3.3.1-4]
    ("SUBSCRIBE with the flags of its type wrong", "80 07 0001 00 0001 61 00"), // [MQTT-3.8.1-1]
    ("PUBREL with the flags of its type wrong", "60 02 0001"), // [MQTT-3.6.1-1]
    ("PINGREQ with flags", "c1 00"),
    ("Remaining Length of five bytes", "30 ff ff ff ff 01"),
    ("topic longer than the packet", "30 05 0064 61 62 63"),
    ("topic that is no UTF-8", "30 06 0002 c3 28 00 78"), // [MQTT-1.5.4-1]
    ("topic with a surrogate", "30 07 0003 eda080 00 78"), // [MQTT-1.5.4-1]
    ("topic with U+0000", "30 06 0002 61 00 00 78"),      // [MQTT-1.5.4-2]
    ("SUBSCRIBE, cut short", "82 02 0001"),
];

/// Malformed for 5.0 alone.
const MALFORMED_5: &[(&str, &str)] = &[
    ("unknown property", "30 06 0001 61 02 7f 00"),
    ("properties longer than the packet", "30 05 0001 61 7f 00"),
    ("reserved subscription options", "82 07 0001 00 0001 61 c0"), // [MQTT-3.8.3-5]
];

#[test]
fn malformed_packets_close_their_connection_only() {
    for workers in ["1", "2"] {
        let broker = Broker::start(["--workers", workers]);
        let stop = AtomicBool::new(false);
        let exchanged = AtomicU16::new(0);
        thread::scope(|scope| {
            let bystanders = scope.spawn(|| exchange_until(broker.port, &stop, &exchanged));
            // The flag is set even if an assertion fails here: the scope waits for the bystanders.
            let stop = StopOnDrop(&stop);
            let mut rounds = 0;
            while (rounds < 10 || exchanged.load(Ordering::Relaxed) < 50) && !bystanders.is_finished() {
                malformed_round(broker.port);
                rounds += 1;
            }
            drop(stop);
            bystanders.join().expect("the bystanders lose nothing");
        });
    }
}

/// Each malformed packet once in each version, each on its own connection.
fn malformed_round(port: u16) {
    for (what, bytes) in MALFORMED.iter().chain(MALFORMED_5) {
        let mut bad = Wire::connected(port, V5, "bad");
        bad.try_send(hex(bytes));
        // What is not even framed is closed without a word, as mosquitto does.
        let told: &[_] = if what.starts_with("Remaining Length") { &[] } else { &[(0xe0, Some(0x81))] };
        assert_eq!(reasons(&bad.until_closed()), told, "{what}");
    }
    for (what, bytes) in MALFORMED {
        let mut bad = Wire::connected(port, V311, "bad");
        bad.try_send(hex(bytes));
        assert_eq!(bad.until_closed(), [], "{what}");
    }
}

#[test]
fn packet_type_0_closes() {
    let broker = Broker::start(["--workers", "2"]);
    let mut bad = Wire::connected(broker.port, V5, "bad");
    bad.try_send(hex("00 00"));
    // The specification forbids it without a word whether it is malformed (0x81) or against the protocol (0x82).
    let reasons = reasons(&bad.until_closed());
    assert!(matches!(reasons[..], [(0xe0, Some(0x81 | 0x82))]), "{reasons:02x?}");
    let mut bad = Wire::connected(broker.port, V311, "bad");
    bad.try_send(hex("00 00"));
    assert_eq!(bad.until_closed(), []);
}

#[test]
fn what_is_no_connect_is_closed_at_once() {
    let broker = Broker::start(["--workers", "2"]);
    for bytes in ["c0 00", "30 03 0001 61", "00", "ff", "16 03 01 02 00 01 00 01 fc 03 03", "20 02 00 00"] {
        let mut stranger = Wire::open(broker.port);
        stranger.try_send(hex(bytes));
        assert_eq!(stranger.until_closed(), [], "after {bytes}");
    }
    Wire::connected(broker.port, V5, "guest");
}

#[test]
fn a_packet_may_come_byte_by_byte() {
    for (version, workers) in [(V311, "1"), (V311, "2"), (V5, "1"), (V5, "2")] {
        let broker = Broker::start(["--workers", workers]);
        let mut client = Wire::open(broker.port);
        for byte in connect(version, "slow", 0) {
            client.send([byte]);
        }
        client.expect_accepted();
        for byte in subscribe(version, 1, "x", 1) {
            client.send([byte]);
        }
        assert_eq!(client.packet().map(|p| p.first), Some(0x90));
        for byte in publish_1(version, 2, "x", b"slow") {
            client.send([byte]);
        }
        // A message that returns to its publisher leaves before the PUBACK.
        client.expect(publish_1(version, 1, "x", b"slow"));
        client.expect(puback(2));
    }
}

#[test]
fn everything_may_come_in_one_segment() {
    for (version, workers) in [(V311, "1"), (V311, "2"), (V5, "1"), (V5, "2")] {
        let broker = Broker::start(["--workers", workers]);
        let mut client = Wire::open(broker.port);
        let mut bytes = connect(version, "eager", 0);
        bytes.extend(subscribe(version, 1, "x", 1));
        bytes.extend(publish_1(version, 2, "x", b"eager"));
        bytes.extend(hex("c0 00"));
        client.send(bytes);
        client.expect_accepted();
        // The message may come before the SUBACK, but not after its own PUBACK.
        let firsts: Vec<_> = (0..4).map(|_| client.packet().map_or(0, |got| got.first)).collect();
        let place = |first| firsts.iter().position(|other| *other == first);
        assert!(place(0x32) < place(0x40), "{firsts:02x?}");
        for first in [0x90, 0x32, 0x40, 0xd0] {
            assert!(place(first).is_some(), "{first:02x} is missing in {firsts:02x?}");
        }
    }
}

#[test]
fn as_many_as_the_receive_maximum_may_be_in_flight() {
    const RECEIVE_MAXIMUM: u16 = 20; // what the broker announces without a configuration
    let broker = Broker::start(["--workers", "2"]);
    // Several pairs: some have their subscriber at the other worker, where acknowledgements take longer.
    for (qos, ack) in [(1, 0x40), (2, 0x50)] {
        for pair in 0..8 {
            let topic = format!("full/{pair}");
            let mut subscriber = Wire::connected(broker.port, V5, &format!("subscriber-{pair}"));
            subscriber.send(subscribe(V5, 1, &topic, qos));
            subscriber.expect([0x90, 4, 0, 1, 0, qos]);
            let mut publisher = Wire::connected(broker.port, V5, &format!("publisher-{pair}"));
            let all = (1..=RECEIVE_MAXIMUM).flat_map(|id| {
                let mut publish = publish_1(V5, id, &topic, b"x");
                publish[0] = 0x30 | qos << 1;
                publish
            });
            publisher.send(all.collect::<Vec<_>>());
            for id in 1..=RECEIVE_MAXIMUM {
                publisher.expect(packet(ack, &id.to_be_bytes()));
            }
        }
    }
}

#[test]
fn silence_longer_than_the_keep_alive_ends_the_connection() {
    let broker = Broker::start(["--workers", "2"]);
    let mut new = Wire::open(broker.port);
    let mut old = Wire::open(broker.port);
    let start = Instant::now();
    new.send(connect(V5, "new", 1));
    old.send(connect(V311, "old", 1));
    new.expect_accepted();
    old.expect_accepted();
    let packets = new.until_closed();
    assert!(start.elapsed() >= Duration::from_millis(1500), "after {:?}", start.elapsed()); // [MQTT-3.1.2-22]
    assert_eq!(reasons(&packets), [(0xe0, Some(0x8d))]);
    assert_eq!(old.until_closed(), []);
    assert!(start.elapsed() >= Duration::from_millis(1500), "after {:?}", start.elapsed());
}

#[test]
fn too_many_open_files_keep_the_connected_served() {
    const FILES_MAX: u32 = 40;
    for workers in ["1", "2"] {
        let broker = Broker::start_with_files_max(FILES_MAX, ["--workers", workers]);
        let mut pair = Pair::start(broker.port);
        pair.exchange();
        // What the broker says at its start about its limit is no complaint.
        let said = complaints(&broker.log());

        // Fill it: each is accepted, or is the first that is not.
        let mut crowd = Vec::new();
        let refused = |broker: &Broker| complaints(&broker.log()) > said;
        let deadline = Instant::now() + PATIENCE;
        while !refused(&broker) {
            assert!(crowd.len() < 2 * FILES_MAX as usize, "no complaint in:\n{}", broker.log());
            let mut client = Wire::open(broker.port);
            client.try_send(connect(V5, &format!("crowd-{}", crowd.len()), 0));
            while client.packet_within(Duration::from_millis(20)).is_none() && !refused(&broker) {
                assert!(
                    Instant::now() < deadline,
                    "{} are in, and no complaint:\n{}",
                    crowd.len(),
                    broker.log()
                );
            }
            crowd.push(client);
        }
        assert!(crowd.len() > FILES_MAX as usize / 4, "full with {} clients", crowd.len());
        // More stand before the door: the broker must neither spin nor talk about each.
        for number in 0..30 {
            let mut client = Wire::open(broker.port);
            client.try_send(connect(V5, &format!("outside-{number}"), 0));
            crowd.push(client);
        }
        for _ in 0..20 {
            pair.exchange();
        }

        drop(crowd);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut late = Wire::open(broker.port);
            late.try_send(connect(V5, "late", 0));
            if late.packet_within(PATIENCE).is_some_and(|packet| packet.first == 0x20) {
                break;
            }
            assert!(Instant::now() < deadline, "nobody gets in any more:\n{}", broker.log());
        }
        pair.exchange();
        assert_eq!(complaints(&broker.log()) - said, 1, "{}", broker.log());
    }
}

/// The first byte and the reason of each packet, which for DISCONNECT is the first byte after the length.
fn reasons(packets: &[Packet]) -> Vec<(u8, Option<u8>)> {
    packets.iter().map(|packet| (packet.first, packet.body.first().copied())).collect()
}

/// How many lines say that there are too many open files.
fn complaints(log: &str) -> usize {
    let complains = |line: &&str| {
        let line = line.to_lowercase();
        ["open files", "descriptor", "ulimit"].iter().any(|words| line.contains(words))
    };
    log.lines().filter(complains).count()
}

/// A publisher and a subscriber, of different versions, that exchange numbered messages of QoS 1.
struct Pair {
    publisher: Wire,
    subscriber: Wire,
    count: u16,
}

impl Pair {
    fn start(port: u16) -> Self {
        let mut subscriber = Wire::connected(port, V5, "bystander-subscriber");
        subscriber.send(subscribe(V5, 1, "bystander/+", 1));
        subscriber.expect(hex("90 04 0001 00 01"));
        Self { publisher: Wire::connected(port, V311, "bystander-publisher"), subscriber, count: 0 }
    }

    /// Sends one message and takes it, byte for byte, with both acknowledgements.
    fn exchange(&mut self) {
        self.count = self.count.checked_add(1).expect("fewer than 65,536 messages");
        let payload = self.count.to_string();
        self.publisher.send(publish_1(V311, self.count, "bystander/x", payload.as_bytes()));
        let got = self.subscriber.packet().expect("the subscriber stays connected");
        let id = u16::from_be_bytes([got.body[13], got.body[14]]);
        let expected = publish_1(V5, id, "bystander/x", payload.as_bytes());
        assert_eq!((got.first, &got.body[..]), (0x32, &expected[2..]));
        self.subscriber.send(puback(id));
        self.publisher.expect(puback(self.count));
    }
}

fn exchange_until(port: u16, stop: &AtomicBool, exchanged: &AtomicU16) {
    let mut pair = Pair::start(port);
    while !stop.load(Ordering::Relaxed) && pair.count < u16::MAX {
        pair.exchange();
        exchanged.store(pair.count, Ordering::Relaxed);
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
