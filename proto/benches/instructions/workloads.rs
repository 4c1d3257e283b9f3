//! What is counted: each workload does the same thing in rounds, and says how many messages these were.

use crate::clients::{Broker, connect, subscribe, unsubscribe};
use crate::codec;
use crate::core::Core;
use hikyaku_proto::codec::{Connect, Properties, PropertiesBuf, Property, Publish, QoS, Version};

/// Something a broker does, or the codec alone.
pub struct Workload {
    pub name: &'static str,
    /// How many rounds are enough for a figure.
    pub rounds: usize,
    pub kind: Kind,
}

pub enum Kind {
    /// In a process that is counted itself.
    Core(fn(usize) -> usize),
    /// With a broker that is counted, by a client that is not.
    Server(fn(&mut dyn Broker, usize) -> usize),
}

use Kind::{Core as InCore, Server};
use QoS::{AtLeastOnce as Q1, AtMostOnce as Q0, ExactlyOnce as Q2};
use Version::{V3_1_1, V5};

const fn core(name: &'static str, rounds: usize, work: fn(usize) -> usize) -> Workload {
    Workload { name, rounds, kind: InCore(work) }
}

const fn server(name: &'static str, rounds: usize, work: fn(&mut dyn Broker, usize) -> usize) -> Workload {
    Workload { name, rounds, kind: Server(work) }
}

/// All of them. `w1`: a publisher waits for each message to arrive; `deep`: 80 of QoS 0 or 20 of QoS 1 and 2 come at
/// once.
pub const WORKLOADS: &[Workload] = &[
    core("p2p 3.1.1 QoS 0 w1", 200, |n| p2p(&mut Core::new(1), V3_1_1, Q0, 1, n)),
    core("p2p 3.1.1 QoS 0 deep", 10, |n| p2p(&mut Core::new(1), V3_1_1, Q0, 80, n)),
    core("p2p 3.1.1 QoS 1 w1", 200, |n| p2p(&mut Core::new(1), V3_1_1, Q1, 1, n)),
    core("p2p 3.1.1 QoS 1 deep", 20, |n| p2p(&mut Core::new(1), V3_1_1, Q1, 20, n)),
    core("p2p 3.1.1 QoS 2 w1", 200, |n| p2p(&mut Core::new(1), V3_1_1, Q2, 1, n)),
    core("p2p 3.1.1 QoS 2 deep", 20, |n| p2p(&mut Core::new(1), V3_1_1, Q2, 20, n)),
    core("p2p 5.0 QoS 0 w1", 200, |n| p2p(&mut Core::new(1), V5, Q0, 1, n)),
    core("p2p 5.0 QoS 0 deep", 10, |n| p2p(&mut Core::new(1), V5, Q0, 80, n)),
    core("p2p 5.0 QoS 1 w1", 200, |n| p2p(&mut Core::new(1), V5, Q1, 1, n)),
    core("p2p 5.0 QoS 1 deep", 20, |n| p2p(&mut Core::new(1), V5, Q1, 20, n)),
    core("p2p 5.0 QoS 2 deep", 20, |n| p2p(&mut Core::new(1), V5, Q2, 20, n)),
    core("p2p 5.0 QoS 0 deep, properties", 10, with_properties),
    core("p2p 3.1.1 QoS 0 deep, 4 KiB", 10, four_kib),
    core("2 shards, p2p QoS 0 w1", 200, |n| p2p(&mut Core::new(2), V3_1_1, Q0, 1, n)),
    core("2 shards, p2p QoS 0 deep", 10, |n| p2p(&mut Core::new(2), V3_1_1, Q0, 80, n)),
    core("2 shards, p2p QoS 1 w1", 200, |n| p2p(&mut Core::new(2), V3_1_1, Q1, 1, n)),
    core("2 shards, p2p QoS 1 deep", 20, |n| p2p(&mut Core::new(2), V3_1_1, Q1, 20, n)),
    core("2 shards, fan-out 1,000 QoS 0", 10, |n| fan_out(&mut Core::new(2), Q0, 1000, n)),
    core("fan-out 1,000 QoS 0", 10, |n| fan_out(&mut Core::new(1), Q0, 1000, n)),
    core("fan-out 1,000 QoS 1", 5, |n| fan_out(&mut Core::new(1), Q1, 1000, n)),
    core("fan-in 100 QoS 0", 20, |n| fan_in(Q0, n)),
    core("fan-in 100 QoS 1", 20, |n| fan_in(Q1, n)),
    core("nobody is interested", 1000, unheard),
    core("10,000 wildcard filters, 3 match", 500, wildcards),
    core("10,000 exact filters, 1 matches", 500, exact),
    core("1,000 retained, replay", 3, replay),
    core("retain", 1000, retain),
    core("shared 10 x 4, 5.0 QoS 1", 20, shared),
    core("kept p2p QoS 1 w1", 200, |n| p2p_kept(1, n)),
    core("kept p2p QoS 1 deep", 20, |n| p2p_kept(20, n)),
    core("kept queue of one who is away", 3, away),
    core("connect, subscribe, hang up", 200, come_and_go),
    core("decode PUBLISH 3.1.1", 1000, codec::decode_publish),
    core("decode PUBLISH 5.0", 1000, codec::decode_publish_v5),
    core("decode PUBLISH 5.0, properties", 1000, codec::decode_publish_properties),
    core("decode CONNECT 3.1.1", 1000, codec::decode_connect),
    core("decode SUBSCRIBE 3.1.1", 1000, codec::decode_subscribe),
    core("decode PUBACK", 1000, codec::decode_puback),
    core("encode PUBLISH 3.1.1", 1000, codec::encode_publish),
    core("encode PUBLISH 5.0", 1000, codec::encode_publish_v5),
    core("encode PUBLISH 5.0, properties", 1000, codec::encode_publish_properties),
    core("encode CONNECT 3.1.1", 1000, codec::encode_connect),
    core("encode SUBSCRIBE 3.1.1", 1000, codec::encode_subscribe),
    core("encode PUBACK", 1000, codec::encode_puback),
    server("server, p2p QoS 0 w1", 1000, |broker, n| pairs(broker, V3_1_1, Q0, 1, 1, n)),
    server("server, p2p QoS 0 deep", 100, |broker, n| pairs(broker, V3_1_1, Q0, 80, 1, n)),
    server("server, fan-out 100 QoS 0", 30, |broker, n| fan_out(broker, Q0, 100, n)),
];

/// 64 bytes, as in the other figures.
const PAYLOAD: &[u8] = &[b'x'; 64];

/// `count` messages in a row.
fn messages(version: Version, qos: QoS, topic: &str, count: usize) -> Vec<u8> {
    let message = Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: 0,
        properties: Properties::EMPTY,
        payload: PAYLOAD,
    };
    repeated(version, &message, count)
}

fn repeated(version: Version, message: &Publish<'_>, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..count {
        let packet_id = if message.qos == Q0 { 0 } else { n as u16 + 1 };
        Publish { packet_id, ..*message }.encode(version, &mut bytes).unwrap();
    }
    bytes
}

/// How many packets clients read for one message with one receiver.
fn packets(qos: QoS) -> usize {
    match qos {
        Q0 => 1,
        Q1 => 2,
        Q2 => 4,
    }
}

/// Ten pairs, on different shards where there are two.
fn p2p(broker: &mut Core, version: Version, qos: QoS, window: usize, rounds: usize) -> usize {
    pairs(broker, version, qos, window, 10, rounds)
}

fn pairs(
    broker: &mut dyn Broker,
    version: Version,
    qos: QoS,
    window: usize,
    count: usize,
    rounds: usize,
) -> usize {
    let shards = broker.shards();
    let mut publishers = Vec::new();
    for pair in 0..count {
        let topic = format!("bench/pairs/{pair:03}/data");
        let (here, there) = (pair % shards, (pair + 1) % shards);
        let id = broker.name(&format!("s{pair}."), there);
        let subscriber = broker.connect(&connect(version, &id));
        broker.send(subscriber, &subscribe(version, qos, &[&topic]));
        broker.settle(1);
        let id = broker.name(&format!("p{pair}."), here);
        publishers.push((broker.connect(&connect(version, &id)), messages(version, qos, &topic, window)));
    }
    publish(broker, &publishers, window * packets(qos) * count, rounds);
    rounds * window * count
}

/// All publishers send what is theirs, in each round, and clients read so many packets.
fn publish(broker: &mut dyn Broker, publishers: &[(usize, Vec<u8>)], packets: usize, rounds: usize) {
    for _ in 0..rounds {
        publishers.iter().for_each(|(publisher, bytes)| broker.send(*publisher, bytes));
        broker.settle(packets);
    }
}

fn with_properties(rounds: usize) -> usize {
    let mut properties = PropertiesBuf::default();
    properties.push(Property::PayloadFormatIndicator(1));
    properties.push(Property::ContentType("application/json"));
    properties.push(Property::UserProperty("source", "sensor-17"));
    let message = Publish {
        dup: false,
        qos: Q0,
        retain: false,
        topic: "bench/pairs/000/data",
        packet_id: 0,
        properties: properties.as_properties(),
        payload: PAYLOAD,
    };
    one_pair(V5, &message, rounds)
}

fn four_kib(rounds: usize) -> usize {
    let message = Publish {
        dup: false,
        qos: Q0,
        retain: false,
        topic: "bench/pairs/000/data",
        packet_id: 0,
        properties: Properties::EMPTY,
        payload: &[b'x'; 4096],
    };
    one_pair(V3_1_1, &message, rounds)
}

fn one_pair(version: Version, message: &Publish<'_>, rounds: usize) -> usize {
    let mut broker = Core::new(1);
    let subscriber = broker.connect(&connect(version, "s"));
    broker.send(subscriber, &subscribe(version, Q0, &[message.topic]));
    broker.settle(1);
    let publisher = broker.connect(&connect(version, "p"));
    publish(&mut broker, &[(publisher, repeated(version, message, 80))], 80, rounds);
    rounds * 80
}

fn fan_out(broker: &mut dyn Broker, qos: QoS, receivers: usize, rounds: usize) -> usize {
    for n in 0..receivers {
        let id = broker.name(&format!("s{n}."), n % broker.shards());
        let subscriber = broker.connect(&connect(V3_1_1, &id));
        broker.send(subscriber, &subscribe(V3_1_1, qos, &["bench/fanout/000/one"]));
        broker.settle(1);
    }
    let id = broker.name("p", 0);
    let publisher = broker.connect(&connect(V3_1_1, &id));
    let bytes = messages(V3_1_1, qos, "bench/fanout/000/one", 1);
    publish(broker, &[(publisher, bytes)], receivers + packets(qos) - 1, rounds);
    rounds * receivers
}

fn fan_in(qos: QoS, rounds: usize) -> usize {
    let mut broker = Core::new(1);
    let subscriber = broker.connect(&connect(V3_1_1, "s"));
    broker.send(subscriber, &subscribe(V3_1_1, qos, &["bench/fanin/+/data"]));
    broker.settle(1);
    let publishers: Vec<_> = (0..100)
        .map(|n| {
            let bytes = messages(V3_1_1, qos, &format!("bench/fanin/{n:03}/data"), 1);
            (broker.connect(&connect(V3_1_1, &format!("p{n}"))), bytes)
        })
        .collect();
    publish(&mut broker, &publishers, 100 * packets(qos), rounds);
    rounds * 100
}

fn unheard(rounds: usize) -> usize {
    let mut broker = Core::new(1);
    let publisher = broker.connect(&connect(V3_1_1, "p"));
    let bytes = messages(V3_1_1, Q0, "bench/pairs/000/data", 1);
    publish(&mut broker, &[(publisher, bytes)], 0, rounds);
    rounds
}

/// Subscribes to many filters, fifty at a time.
fn subscribe_many(broker: &mut Core, subscriber: usize, filters: &[String]) {
    for some in filters.chunks(50) {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        broker.send(subscriber, &subscribe(V3_1_1, Q0, &some));
        broker.settle(1);
    }
}

/// Three subscribers with filters of three shapes, one of each for every topic; ten topics in turn.
fn wildcards(rounds: usize) -> usize {
    let mut broker = Core::new(1);
    let shapes: [fn(usize) -> String; 3] = [
        |n| format!("bench/+/{n:04}/data"),
        |n| format!("+/wild/{n:04}/#"),
        |n| format!("bench/wild/{n:04}/+"),
    ];
    for (name, shape) in ["a", "b", "c"].iter().zip(shapes) {
        let subscriber = broker.connect(&connect(V3_1_1, name));
        let filters: Vec<String> = (0..3334).map(shape).collect();
        subscribe_many(&mut broker, subscriber, &filters);
    }
    let publisher = broker.connect(&connect(V3_1_1, "p"));
    one_after_the_other(&mut broker, publisher, 3, rounds, |n| format!("bench/wild/{:04}/data", n * 300))
}

fn exact(rounds: usize) -> usize {
    let mut broker = Core::new(1);
    let subscriber = broker.connect(&connect(V3_1_1, "s"));
    let filters: Vec<String> = (0..10_000).map(|n| format!("bench/some/{n:04}/data")).collect();
    subscribe_many(&mut broker, subscriber, &filters);
    let publisher = broker.connect(&connect(V3_1_1, "p"));
    one_after_the_other(&mut broker, publisher, 1, rounds, |n| format!("bench/some/{:04}/data", n * 900))
}

/// One publisher and ten topics, a message to each of them by turns: what a topic matches is looked up anew.
fn one_after_the_other(
    broker: &mut Core,
    publisher: usize,
    receivers: usize,
    rounds: usize,
    topic: impl Fn(usize) -> String,
) -> usize {
    let bytes: Vec<u8> = (0..10).flat_map(|n| messages(V3_1_1, Q0, &topic(n), 1)).collect();
    publish(broker, &[(publisher, bytes)], 10 * receivers, rounds);
    rounds * 10 * receivers
}

fn replay(rounds: usize) -> usize {
    let mut broker = Core::new(1);
    let publisher = broker.connect(&connect(V3_1_1, "p"));
    for n in 0..1000 {
        broker.send(publisher, &retained(&format!("bench/retain/{n:03}/v")));
        broker.settle(0);
    }
    let subscriber = broker.connect(&connect(V3_1_1, "s"));
    for _ in 0..rounds {
        broker.send(subscriber, &subscribe(V3_1_1, Q0, &["bench/retain/+/v"]));
        broker.settle(1001);
        broker.send(subscriber, &unsubscribe(V3_1_1, "bench/retain/+/v"));
        broker.settle(1);
    }
    rounds * 1000
}

/// New values of ten topics.
fn retain(rounds: usize) -> usize {
    let mut broker = Core::new(1);
    let publisher = broker.connect(&connect(V3_1_1, "p"));
    let bytes: Vec<u8> = (0..10).flat_map(|n| retained(&format!("bench/retain/{n:03}/v"))).collect();
    publish(&mut broker, &[(publisher, bytes)], 0, rounds);
    rounds * 10
}

fn retained(topic: &str) -> Vec<u8> {
    let mut bytes = messages(V3_1_1, Q0, topic, 1);
    bytes[0] |= 1;
    bytes
}

/// Ten publishers, four members of one shared subscription.
fn shared(rounds: usize) -> usize {
    let mut broker = Core::new(1);
    for n in 0..4 {
        let member = broker.connect(&connect(V5, &format!("m{n}")));
        broker.send(member, &subscribe(V5, Q1, &["$share/group/bench/shared/+"]));
        broker.settle(1);
    }
    let publishers: Vec<_> = (0..10)
        .map(|n| {
            let bytes = messages(V5, Q1, &format!("bench/shared/{n:07}"), 5);
            (broker.connect(&connect(V5, &format!("p{n}"))), bytes)
        })
        .collect();
    publish(&mut broker, &publishers, 100, rounds);
    rounds * 50
}

/// As `p2p`, and the subscribers' sessions are kept in a store.
fn p2p_kept(window: usize, rounds: usize) -> usize {
    let mut broker = Core::kept();
    let publishers: Vec<_> = (0..10)
        .map(|pair| {
            let topic = format!("bench/pairs/{pair:03}/data");
            durable(&mut broker, &format!("s{pair}"), &topic);
            let publisher = broker.connect(&connect(V3_1_1, &format!("p{pair}")));
            (publisher, messages(V3_1_1, Q1, &topic, window))
        })
        .collect();
    publish(&mut broker, &publishers, 20 * window, rounds);
    rounds * 10 * window
}

fn durable(broker: &mut Core, id: &str, topic: &str) -> usize {
    let subscriber = broker.connect(&Connect { clean_start: false, ..connect(V3_1_1, id) });
    broker.send(subscriber, &subscribe(V3_1_1, Q1, &[topic]));
    broker.settle(1);
    subscriber
}

/// Fifty messages wait for one who is away, and are delivered when it comes back.
fn away(rounds: usize) -> usize {
    let mut broker = Core::kept();
    let topic = "bench/pairs/000/data";
    let mut subscriber = durable(&mut broker, "s", topic);
    let publisher = broker.connect(&connect(V3_1_1, "p"));
    for _ in 0..rounds * 10 {
        broker.hang_up(subscriber);
        broker.send(publisher, &messages(V3_1_1, Q1, topic, 50));
        broker.settle(50);
        subscriber = broker.connect_and_read(&Connect { clean_start: false, ..connect(V3_1_1, "s") }, 51);
    }
    rounds * 500
}

fn come_and_go(rounds: usize) -> usize {
    let mut broker = Core::new(1);
    for _ in 0..rounds {
        let client = broker.connect(&connect(V3_1_1, "c"));
        broker.send(client, &subscribe(V3_1_1, Q0, &["bench/pairs/000/data"]));
        broker.settle(1);
        broker.hang_up(client);
    }
    rounds
}
