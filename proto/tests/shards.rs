//! Several shards under a scheduler that draws: every interleaving must come to the same.

mod common;

use common::{Random, Rig, quiet};
use hikyaku_proto::broker::Config;
use std::collections::BTreeMap;
use std::time::Duration;

/// A client id that lives on `shard`.
fn name_on(rig: &Rig, shard: usize, prefix: &str) -> String {
    let on = |n: &String| usize::from(rig.placement.shard(n.as_bytes())) == shard % rig.shards.len();
    (0..).map(|i| format!("{prefix}{i}")).find(on).unwrap()
}

/// A topic whose retained message lives on `shard`.
fn topic_on(rig: &Rig, shard: usize) -> String {
    name_on(rig, shard, "t/")
}

/// `topic payload` of the messages a connection read.
fn messages(log: &[String]) -> Vec<(String, String)> {
    log.iter()
        .filter_map(|l| {
            let mut words = l.strip_prefix("PUBLISH ")?.split(' ');
            Some((words.next()?.to_string(), words.next().unwrap_or("").to_string()))
        })
        .collect()
}

/// Lets the scheduler run for a random while.
fn some_steps(rig: &mut Rig, most: usize) {
    for _ in 0..rig.random.below(most) {
        if !rig.step() {
            return;
        }
    }
}

const SHARDS: [u16; 4] = [1, 2, 3, 5];

#[test]
fn every_message_reaches_every_subscriber_once_and_in_order() {
    for seed in 1..300 {
        let shards = SHARDS[seed as usize % 4];
        let mut rig = Rig::new(shards, seed, quiet());
        for s in 0..6usize {
            let id = name_on(&rig, s, &format!("s{s}."));
            let v = ["v5", ""][s % 2];
            let name = format!("s{s}");
            rig.send(&name, &format!("CONNECT {id} {v} clean; SUBSCRIBE id=1 t/+:{} a/#:2", s % 3));
            rig.pipe(&name).answers = true;
            rig.pipe(&name).cuts = true;
        }
        rig.settle();
        for p in 0..3usize {
            let id = name_on(&rig, p, &format!("p{p}."));
            let name = format!("p{p}");
            rig.send(&name, &format!("CONNECT {id} clean v5"));
            rig.pipe(&name).answers = true;
            rig.pipe(&name).cuts = true;
            for n in 0..15 {
                let (qos, topic) = (n % 3, ["t/x", "t/y", "a/b/c"][n / 3 % 3]);
                rig.send(&name, &format!("PUBLISH {topic} {p}.{qos}.{n} q{qos} id={}", n + 1));
                some_steps(&mut rig, 5);
            }
        }
        rig.settle();
        for s in 0..6usize {
            let got = messages(&rig.pipe(&format!("s{s}")).log);
            assert_eq!(got.len(), 45, "seed {seed}");
            let mut last: BTreeMap<(String, String, u32), u32> = BTreeMap::new();
            for (topic, payload) in got {
                let parts: Vec<&str> = payload.split('.').collect();
                let (qos, n) = (parts[1].parse::<u32>().unwrap(), parts[2].parse().unwrap());
                let key = (topic, parts[0].to_string(), qos);
                assert!(last.insert(key, n).is_none_or(|before| before < n), "order, seed {seed}");
            }
        }
        for p in 0..3usize {
            let log = rig.pipe(&format!("p{p}")).log.clone();
            let acks = |name: &str| log.iter().filter(|l| l.starts_with(name)).count();
            assert_eq!((acks("PUBACK"), acks("PUBREC"), acks("PUBCOMP")), (5, 5, 5));
            let order: Vec<&String> =
                log.iter().filter(|l| l.starts_with("PUBACK") || l.starts_with("PUBREC")).collect();
            let ids: Vec<u32> = order.iter().map(|l| l.split(' ').nth(1).unwrap().parse().unwrap()).collect();
            assert!(ids.is_sorted(), "acknowledgements leave in order [MQTT-4.6.0-2]");
        }
    }
}

#[test]
fn what_is_published_after_a_suback_arrives() {
    for seed in 1..600 {
        let shards = SHARDS[seed as usize % 4];
        let mut rig = Rig::new(shards, seed, quiet());
        let (s, p) = (name_on(&rig, 0, "s"), name_on(&rig, 1, "p"));
        rig.send("p", &format!("CONNECT {p} clean"));
        rig.send("s", &format!("CONNECT {s} clean"));
        for (n, filter) in ["t", "+", "#", "$share/g/t", "$share/h/#"].iter().enumerate() {
            rig.send("s", &format!("SUBSCRIBE id={} {filter}:1", n + 1));
            let suback = format!("SUBACK {} 1", n + 1);
            while !rig.pipe("s").log.contains(&suback) {
                assert!(rig.step(), "a SUBACK comes");
            }
            rig.send("p", &format!("PUBLISH t {n} q1 id={}", n + 1));
            let ack = format!("PUBACK {}", n + 1);
            if rig.random.one_in(2) {
                while !rig.pipe("p").log.contains(&ack) {
                    assert!(rig.step(), "a PUBACK comes");
                }
            }
        }
        rig.pipe("s").answers = true;
        rig.settle();
        let got = messages(&rig.pipe("s").log);
        for n in 0..5 {
            let copies = got.iter().filter(|(_, p)| *p == n.to_string()).count();
            // One for all ordinary filters, one for each group that had been joined.
            let least = if n < 3 { 1 } else { n - 1 };
            assert!(copies >= least, "seed {seed}: message {n} came {copies} times");
        }
    }
}

#[test]
fn two_groups_of_different_owners_are_joined_before_their_subacks() {
    for seed in 1..400 {
        let mut rig = Rig::new(3, seed, quiet());
        let (s, p) = (name_on(&rig, 0, "s"), name_on(&rig, 0, "p"));
        let group = |rig: &Rig, shard: usize| {
            let owner = |f: &String| usize::from(rig.placement.shard(f.as_bytes())) == shard;
            (0..).map(|i| format!("$share/g{i}/t")).find(owner).unwrap()
        };
        let (first, second) = (group(&rig, 1), group(&rig, 2));
        rig.send("p", &format!("CONNECT {p} clean"));
        rig.send("s", &format!("CONNECT {s} clean; SUBSCRIBE id=1 {first}:1; SUBSCRIBE id=2 {second}:0"));
        while !rig.pipe("s").log.iter().any(|l| l.starts_with("SUBACK 1")) {
            assert!(rig.step());
        }
        rig.send("p", "PUBLISH t x q1 id=1");
        rig.settle();
        let log = &rig.pipe("s").log;
        assert!(log.iter().any(|l| l.starts_with("PUBLISH t x q1")), "seed {seed}: {log:?}");
    }
}

#[test]
fn a_shared_message_goes_to_one_member_while_members_come_and_go() {
    for seed in 1..400 {
        let shards = SHARDS[seed as usize % 4];
        let mut rig = Rig::new(shards, seed, quiet());
        let mut random = Random::new(seed + 77);
        // One stays, so that there always is a member.
        for m in 0..4usize {
            let id = name_on(&rig, m, &format!("m{m}."));
            let name = format!("m{m}");
            rig.send(&name, &format!("CONNECT {id} clean v5; SUBSCRIBE id=1 $share/g/t:1"));
            rig.pipe(&name).answers = m == 0;
        }
        rig.settle();
        let p = name_on(&rig, 1, "p");
        rig.send("p", &format!("CONNECT {p} clean"));
        for n in 0..30 {
            rig.send("p", &format!("PUBLISH t {n} q1 id={}", n + 1));
            some_steps(&mut rig, 12);
            let m = 1 + random.below(3);
            let name = format!("m{m}");
            let id = name_on(&rig, m, &format!("m{m}."));
            match random.below(6) {
                // A client that leaves the group and then is cut off takes what was on its way with it.
                0 if rig.pipe(&name).open && seed % 2 == 0 => rig.send(&name, "UNSUBSCRIBE id=3 $share/g/t"),
                1 if rig.pipe(&name).open && seed % 2 == 1 => rig.cut(&name),
                _ if !rig.pipe(&name).open => {
                    rig.send(&name, &format!("CONNECT {id} clean v5; SUBSCRIBE id=1 $share/g/t:1"));
                }
                _ => {}
            }
        }
        rig.settle();
        // All that end give back what they did not acknowledge.
        for m in 1..4 {
            rig.cut(&format!("m{m}"));
            some_steps(&mut rig, 9);
        }
        rig.settle();
        let all: Vec<String> = rig.pipes.iter().flat_map(|p| messages(&p.log)).map(|(_, p)| p).collect();
        let mine = messages(&rig.pipe("m0").log);
        for n in 0..30 {
            assert!(all.contains(&n.to_string()), "seed {seed}: {n} is lost");
            assert!(mine.iter().filter(|(_, p)| *p == n.to_string()).count() <= 1, "seed {seed}: {n} twice");
        }
    }
}

#[test]
fn a_shared_message_is_taken_once() {
    for seed in 1..200 {
        let mut rig = Rig::new(SHARDS[seed as usize % 4], seed, quiet());
        for m in 0..5usize {
            let id = name_on(&rig, m, &format!("m{m}."));
            let name = format!("m{m}");
            rig.send(&name, &format!("CONNECT {id} v5 clean; SUBSCRIBE id=1 $share/g/t:{}", m % 3));
            rig.pipe(&name).answers = true;
        }
        rig.settle();
        for p in 0..2usize {
            let (id, name) = (name_on(&rig, p, &format!("p{p}.")), format!("p{p}"));
            rig.send(&name, &format!("CONNECT {id} clean"));
            for n in 0..20 {
                rig.send(&name, &format!("PUBLISH t {p}.{n} q1 id={}", n + 1));
                some_steps(&mut rig, 4);
            }
        }
        rig.settle();
        let mut all: Vec<String> = rig.pipes.iter().flat_map(|p| messages(&p.log)).map(|(_, p)| p).collect();
        all.sort();
        let before = all.len();
        all.dedup();
        assert_eq!((before, all.len()), (40, 40), "seed {seed}");
    }
}

/// The exploration: a publisher of retained values on one shard, a subscriber that comes at any moment on
/// another, the owner of the topic on a third.
fn explore(seed: u64) {
    let mut random = Random::new(seed);
    let shards = [2, 3, 3, 5][random.below(4)];
    let mut rig = Rig::new(shards, seed, quiet());
    let n = usize::from(shards);
    let topic = topic_on(&rig, random.below(n));
    let (p, s) = (name_on(&rig, random.below(n), "p"), name_on(&rig, random.below(n), "s"));
    let filter = [topic.as_str(), "t/+", "#"][random.below(3)];
    let qos = random.below(2);
    rig.send("p", &format!("CONNECT {p} clean"));
    rig.send("s", &format!("CONNECT {s} clean"));
    rig.pipe("s").answers = true;
    if random.one_in(2) {
        // Others who are interested already, so that live messages are on their way as well.
        let o = name_on(&rig, random.below(n), "o");
        rig.send("o", &format!("CONNECT {o} clean; SUBSCRIBE id=1 {topic}"));
    }
    let when = random.below(6);
    let most = 2 + random.below(12);
    for value in 0..5 {
        if value == when {
            rig.send("s", &format!("SUBSCRIBE id=1 {filter}:{qos}"));
        }
        rig.send("p", &format!("PUBLISH {topic} {value} r q{qos} id={}", value + 1));
        some_steps(&mut rig, most);
    }
    if when == 5 {
        rig.send("s", &format!("SUBSCRIBE id=1 {filter}:{qos}"));
    }
    rig.settle();
    let log = rig.pipe("s").log.clone();
    let got: Vec<(bool, u32)> = log
        .iter()
        .filter_map(|l| {
            let words: Vec<&str> = l.split(' ').collect();
            (words[0] == "PUBLISH").then(|| (words.contains(&"r"), words[2].parse().unwrap()))
        })
        .collect();
    assert_eq!(got.last().map(|g| g.1), Some(4), "seed {seed}: the last value is lost: {log:?}");
    let mut newest_live = None;
    for (retained, value) in got {
        if retained {
            assert!(newest_live.is_none_or(|n| value >= n), "seed {seed}: an older value after {log:?}");
        } else {
            newest_live = newest_live.max(Some(value));
        }
    }
}

#[test]
fn the_last_retained_value_is_never_lost() {
    (1..20_000).for_each(explore);
}

/// The narrow part of it: one value, published while the interest is on its way.
fn explore_one(seed: u64) {
    let mut random = Random::new(seed);
    let mut rig = Rig::new(3, seed, quiet());
    let topic = topic_on(&rig, random.below(3));
    let (p, s) = (name_on(&rig, 0, "p"), name_on(&rig, 1, "s"));
    rig.send("p", &format!("CONNECT {p} clean; PUBLISH {topic} old r"));
    rig.send("s", &format!("CONNECT {s} clean"));
    rig.settle();
    rig.send("s", &format!("SUBSCRIBE id=1 {topic}"));
    some_steps(&mut rig, 10);
    rig.send("p", &format!("PUBLISH {topic} new r"));
    rig.settle();
    let got = messages(&rig.pipe("s").log);
    assert_eq!(got.last().unwrap().1, "new", "seed {seed}: {got:?}");
}

#[test]
fn a_value_published_while_interest_travels_is_not_lost() {
    (1..30_000).for_each(explore_one);
}

#[test]
fn several_publishers_leave_one_of_their_last_values() {
    for seed in 1..1000 {
        let mut random = Random::new(seed);
        let mut rig = Rig::new(3, seed, quiet());
        let topic = topic_on(&rig, random.below(3));
        let s = name_on(&rig, random.below(3), "s");
        for p in 0..3usize {
            let id = name_on(&rig, p, &format!("p{p}."));
            rig.send(&format!("p{p}"), &format!("CONNECT {id} clean"));
        }
        rig.send("s", &format!("CONNECT {s} clean"));
        let when = random.below(4);
        for value in 0..4 {
            if value == when {
                rig.send("s", &format!("SUBSCRIBE id=1 {topic}"));
            }
            for p in 0..3 {
                rig.send(&format!("p{p}"), &format!("PUBLISH {topic} {p}.{value} r"));
                some_steps(&mut rig, 5);
            }
        }
        rig.settle();
        rig.send("late", &format!("CONNECT late clean; SUBSCRIBE id=1 {topic}"));
        rig.settle();
        let kept = messages(&rig.pipe("late").log);
        assert_eq!(kept.len(), 1);
        assert!(kept[0].1.ends_with(".3"), "seed {seed}: {kept:?}");
        let seen = messages(&rig.pipe("s").log);
        assert!(
            seen.iter().any(|m| m.1 == kept[0].1) || seen.last().unwrap().1.ends_with(".3"),
            "seed {seed}"
        );
    }
}

#[test]
fn cleared_values_stay_cleared() {
    for seed in 1..1000 {
        let mut random = Random::new(seed);
        let mut rig = Rig::new(3, seed, quiet());
        let topic = topic_on(&rig, random.below(3));
        let (p, s) = (name_on(&rig, random.below(3), "p"), name_on(&rig, random.below(3), "s"));
        rig.send("p", &format!("CONNECT {p} clean; PUBLISH {topic} 1 r"));
        rig.send("s", &format!("CONNECT {s} clean"));
        some_steps(&mut rig, 9);
        rig.send("s", &format!("SUBSCRIBE id=1 {topic}"));
        some_steps(&mut rig, 9);
        rig.send("p", &format!("PUBLISH {topic} r"));
        rig.settle();
        let seen = messages(&rig.pipe("s").log);
        assert!(seen.last().is_none_or(|m| m.1.is_empty() || m.1 == "r"), "seed {seed}: {seen:?}");
        assert_eq!(rig.sum(|c| c.retained), 0);
    }
}

/// Five thousand subscribers of `many` on one shard: more than a slice.
fn many_on(shard: u16, seed: u64) -> Rig {
    let mut rig = Rig::new(3, 0, quiet());
    for i in 0.. {
        if rig.placement.shard(format!("m{i}").as_bytes()) == shard {
            let at = rig.open(&connect_and_subscribe(i), hikyaku_proto::codec::Version::V3_1_1);
            rig.feed_pipe(at);
            if at == 5000 {
                break;
            }
        }
    }
    rig.settle();
    rig.shuffle(seed);
    rig
}

#[test]
fn a_retained_value_is_not_held_up_by_a_fan_out_of_its_publisher() {
    for seed in 1..5 {
        let mut rig = many_on(2, seed);
        let topic = topic_on(&rig, 2);
        let (p, s) = (name_on(&rig, 0, "p"), name_on(&rig, 1, "s"));
        rig.send("p", &format!("CONNECT {p} clean; PUBLISH {topic} old r"));
        rig.send("s", &format!("CONNECT {s} clean"));
        rig.settle();
        rig.send("p", "PUBLISH many x");
        while rig.pipes[0].log.last().unwrap() != "PUBLISH many x" {
            assert!(rig.step_pipe("p") || rig.step_peer(2) || rig.step());
        }
        // The fan-out has begun; its second slice waits.
        rig.send("p", &format!("PUBLISH {topic} new r q1 id=1; PUBLISH many y q1 id=2"));
        rig.step_pipe("p");
        rig.send("s", &format!("SUBSCRIBE id=1 {topic}"));
        for _ in 0..20 {
            rig.step_peers_first("s");
        }
        rig.settle();
        let seen = messages(&rig.pipe("s").log);
        assert_eq!(seen.last().unwrap().1, "new", "seed {seed}: {seen:?}");
        assert_eq!(rig.pipe("p").log[1..], ["PUBACK 1", "PUBACK 2"]);
        for pipe in &rig.pipes[..5000] {
            assert_eq!(pipe.log[2..], ["PUBLISH many x", "PUBLISH many y"]);
        }
    }
}

/// Subscribers of `many` on the only shard, more than a slice; and a publisher.
fn many_of_one(config: Config) -> (Rig, usize) {
    let (mut rig, many) = (Rig::new(1, 0, config), 5001);
    for i in 0..many {
        let at = rig.open(&connect_and_subscribe(i), hikyaku_proto::codec::Version::V3_1_1);
        rig.feed_pipe(at);
    }
    rig.send("p", "CONNECT p clean");
    rig.settle();
    (rig, many as usize)
}

#[test]
fn what_is_refused_while_messages_go_to_many_is_answered_in_order() {
    let (mut rig, many) = many_of_one(Config { message_size_limit: 3, ..quiet() });
    rig.send("p", "PUBLISH many one q1 id=1; PUBLISH many three q1 id=2; PUBLISH many two q1 id=3");
    rig.send("p", "PUBLISH many a q2 id=4; PUBLISH many a q2 id=4 dup; PUBLISH many b q2 id=5");
    rig.settle();
    let answers = ["PUBACK 1", "PUBACK 2", "PUBACK 3", "PUBREC 4", "PUBREC 4", "PUBREC 5"];
    assert_eq!(rig.pipe("p").log[1..], answers);
    for pipe in &rig.pipes[..many] {
        assert_eq!(pipe.log[2..], ["one", "two", "a", "b"].map(|m| format!("PUBLISH many {m}")));
    }
}

#[test]
fn messages_to_many_that_follow_each_other_share_their_writes() {
    let (mut rig, many) = many_of_one(quiet());
    rig.traced = true;
    // What differs in topic or QoS waits, and so what follows it.
    rig.send("p", "PUBLISH many 1; PUBLISH many 2; PUBLISH many 3 q1 id=1; PUBLISH many 4 q1 id=2");
    rig.send("p", "PUBLISH many 5 q2 id=3; PUBLISH many 6 q2 id=4; PUBLISH other 7 q2 id=5; PUBLISH many 8");
    rig.settle();
    for pipe in &rig.pipes[..many] {
        let expected = [1, 2, 3, 4, 5, 6, 8].map(|n| format!("PUBLISH many {n}"));
        assert_eq!(pipe.log[2..], expected);
    }
    let answers = ["PUBACK 1", "PUBACK 2", "PUBREC 3", "PUBREC 4", "PUBREC 5"];
    assert_eq!(rig.pipe("p").log[1..], answers);
    let writes = rig.trace.iter().filter(|output| output.contains("Transmit")).count();
    let of_subscribers = 4 * many;
    assert!((of_subscribers..of_subscribers + 10).contains(&writes), "{writes}");
}

#[test]
fn a_flood_of_retained_messages_nobody_wants_does_not_stop_its_publisher() {
    let mut rig = Rig::new(2, 0, quiet());
    let p = name_on(&rig, 0, "p");
    rig.send("p", &format!("CONNECT {p} clean"));
    for n in 0..70_000 {
        rig.send("p", &format!("PUBLISH t/{} {n} r", n % 7));
        if n % 100 == 0 {
            rig.settle();
        }
    }
    rig.send("p", "PINGREQ");
    rig.settle();
    assert_eq!(rig.pipe("p").log.last().unwrap(), "PINGRESP");
    assert_eq!(rig.sum(|c| c.retained), 7);
}

#[test]
fn receive_maximum_counts_once_while_acknowledgements_wait() {
    for seed in 0..50 {
        let mut rig = Rig::new(3, seed, quiet());
        let (p, s) = (name_on(&rig, 0, "p"), name_on(&rig, 1, "s"));
        rig.send("s", &format!("CONNECT {s} clean; SUBSCRIBE id=1 t"));
        rig.settle();
        rig.send("p", &format!("CONNECT {p} clean v5"));
        for n in 1..=20 {
            rig.send("p", &format!("PUBLISH t {n} q2 id={n}"));
        }
        rig.settle();
        assert_eq!(rig.pipe("p").log.iter().filter(|l| l.starts_with("PUBREC")).count(), 20);
    }
}

#[test]
fn chaos_drains_and_counts_to_zero() {
    for seed in 1..400 {
        let config = Config { max_queued_messages: 50, ..quiet() };
        let mut rig = Rig::new(SHARDS[seed as usize % 4], seed, config);
        chaos(&mut rig, seed);
        let connected = rig.pipes.iter().filter(|p| p.open && !p.log.is_empty()).count() as u64;
        assert_eq!(rig.sum(|c| c.clients_connected), connected, "seed {seed}");
        for at in 0..rig.pipes.len() {
            rig.cut_pipe(at);
        }
        rig.settle();
        rig.advance(Duration::from_secs(1000));
        let left =
            rig.sum(|c| c.clients_connected + c.clients_total + c.subscriptions + c.shared_subscriptions);
        assert_eq!(left, 0, "seed {seed}");
    }
}

/// Ten clients do what comes to mind.
fn chaos(rig: &mut Rig, seed: u64) {
    let mut random = Random::new(seed ^ 0xc4a05);
    let filters = ["a", "a/+", "#", "+/b", "$share/g/a", "$share/g/#", "$share/h/+/b"];
    let topics = ["a", "a/b", "c/b", "d"];
    for _ in 0..150 {
        let c = random.below(10);
        let name = format!("c{c}");
        let open = rig.names.get(&name).is_some_and(|&at| rig.pipes[at].open);
        let id = 1 + random.below(9);
        let qos = random.below(3);
        let filter = filters[random.below(filters.len())];
        let topic = topics[random.below(topics.len())];
        if !open || random.one_in(12) {
            let clean = ["clean", ""][random.below(2)];
            if open {
                rig.cut(&name);
            }
            rig.send(
                &name,
                &format!(
                    "CONNECT {name} v5 {clean} expiry={} will=a,w,q{qos},delay{}",
                    random.below(60),
                    random.below(9)
                ),
            );
            rig.pipe(&name).answers = random.one_in(2);
            rig.pipe(&name).cuts = true;
            rig.pipe(&name).takes = random.one_in(6).then_some(200);
        }
        match random.below(10) {
            0..3 => rig.send(&name, &format!("SUBSCRIBE id={id} {filter}:{qos}")),
            3 => rig.send(&name, &format!("UNSUBSCRIBE id={id} {filter}")),
            4 if random.one_in(3) => rig.send(&name, "DISCONNECT 0x04"),
            5 => {
                rig.cut(&name);
            }
            6 => rig.send(&name, &format!("PUBLISH {topic} r")),
            _ => {
                let r = ["", "r"][random.below(2)];
                rig.send(&name, &format!("PUBLISH {topic} {c} q{qos} id={id} {r}; PUBREL {id}"));
            }
        }
        some_steps(rig, 20);
        if random.one_in(20) {
            rig.advance(Duration::from_secs(random.below(30) as u64));
        }
    }
    rig.settle();
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 1..20 {
        let run = || {
            let mut rig = Rig::new(3, seed, quiet());
            rig.traced = true;
            chaos(&mut rig, seed);
            let bytes: Vec<Vec<u8>> = rig.pipes.iter().map(|p| p.down.clone()).collect();
            (rig.trace, bytes)
        };
        let (first, second) = (run(), run());
        assert!(first.0.len() > 300);
        assert!(first == second, "seed {seed}");
    }
}

#[test]
fn sys_is_summed() {
    let mut rig = Rig::new(3, 0, Config { sys_interval_s: 10, ..quiet() });
    for i in 0..9 {
        rig.send(&format!("c{i}"), &format!("CONNECT c{i} clean; SUBSCRIBE id=1 x"));
    }
    rig.settle();
    rig.advance(Duration::from_secs(25));
    rig.send("s", "CONNECT s clean; SUBSCRIBE id=1 $SYS/broker/clients/connected $SYS/broker/subscriptions/count $SYS/broker/workers");
    let news = rig.news("s");
    for expected in ["clients/connected 9 r", "subscriptions/count 9 r", "workers 3 r"] {
        assert!(news.contains(expected), "{news}");
    }
}

#[test]
fn sys_has_averages_and_bytes() {
    let mut rig = Rig::new(1, 0, Config { sys_interval_s: 10, ..quiet() });
    rig.send("p", "CONNECT p clean");
    rig.send("s", "CONNECT s clean; SUBSCRIBE id=1 a");
    rig.settle();
    for _ in 0..10 {
        rig.send("p", "PUBLISH a 12345");
    }
    // Ten before the first report: 60 a minute, of which 1 - exp(-1/6) counts; then nothing for a minute.
    rig.advance(Duration::from_secs(15));
    let topics = "$SYS/broker/load/publish/received/1min $SYS/broker/publish/bytes/received \
                  $SYS/broker/publish/bytes/sent $SYS/broker/load/connections/15min";
    rig.send("t", &format!("CONNECT t clean; SUBSCRIBE id=1 {topics}"));
    let news = rig.news("t");
    for expected in [
        "load/publish/received/1min 9.21 r",
        "publish/bytes/received 50 r",
        "publish/bytes/sent 50 r",
        "load/connections/15min 0.13 r",
    ] {
        assert!(news.contains(expected), "{news}");
    }
    rig.advance(Duration::from_secs(60));
    let news = rig.news("t");
    assert!(news.contains("load/publish/received/1min 3.39"), "{news}");
}

#[test]
fn sys_switched_off_and_on_reports_once() {
    let sys = |s| Config { sys_interval_s: s, ..quiet() };
    let mut rig = Rig::new(1, 0, sys(10));
    rig.send("s", "CONNECT s clean; SUBSCRIBE id=1 $SYS/broker/uptime");
    rig.advance(Duration::from_secs(5));
    rig.configure(sys(0));
    rig.configure(sys(10));
    rig.advance(Duration::from_secs(100));
    let news = rig.news("s");
    assert_eq!(news.matches("PUBLISH").count(), 12, "{news}");
}

#[test]
fn a_fan_out_keeps_order_and_lets_others_in() {
    let mut rig = Rig::new(1, 0, quiet());
    rig.run("p> CONNECT p clean\n p< CONNACK 0\n q> CONNECT q clean; SUBSCRIBE id=1 other\n q< CONNACK 0; SUBACK 1 0");
    for i in 0..20_000 {
        rig.open(&connect_and_subscribe(i), hikyaku_proto::codec::Version::V3_1_1);
        if i % 64 == 0 {
            feed_all(&mut rig);
        }
    }
    feed_all(&mut rig);
    assert_eq!(rig.sum(|c| c.subscriptions), 20_001);
    rig.send("p", "PUBLISH many 1 q1 id=1; PUBLISH many 2 q1 id=2; PUBLISH other 3");
    assert!(rig.step_pipe("p"));
    assert!(rig.pipe("p").paused);
    rig.send("q", "PUBLISH other x");
    assert!(rig.step_pipe("q"));
    assert_eq!(rig.pipe("q").log.last().unwrap(), "PUBLISH other x", "before the fan-out is done");
    while rig.pipe("p").log.len() < 3 {
        assert!(rig.step_shard(0) || rig.step_pipe("p"));
    }
    assert_eq!(rig.pipe("p").log[1..], ["PUBACK 1", "PUBACK 2"]);
    for pipe in &rig.pipes[2..] {
        assert_eq!(pipe.log[2..], ["PUBLISH many 1", "PUBLISH many 2"]);
    }
}

fn connect_and_subscribe(i: u32) -> Vec<u8> {
    let mut version = hikyaku_proto::codec::Version::V3_1_1;
    let mut bytes = common::packets::encode(&format!("CONNECT m{i} clean"), &mut version);
    bytes.extend(common::packets::encode("SUBSCRIBE id=1 many", &mut version));
    bytes
}

fn feed_all(rig: &mut Rig) {
    let count = rig.pipes.len();
    for at in count.saturating_sub(70)..count {
        rig.feed_pipe(at);
    }
}

#[test]
fn a_message_expires_between_shards() {
    let mut rig = Rig::new(2, 0, quiet());
    let (p, s, w) = (name_on(&rig, 0, "p"), name_on(&rig, 1, "s"), name_on(&rig, 1, "w"));
    // The group lives with its publisher: its member is told to deliver.
    let filter = (0..).map(|n| format!("$share/g{n}/t"));
    let filter = filter.into_iter().find(|f| rig.placement.shard(f.as_bytes()) == 0).unwrap();
    rig.run(&format!(
        "p> CONNECT {p} clean v5\n p< CONNACK 0
         s> CONNECT {s} clean v5; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0
         w> CONNECT {w} clean v5; SUBSCRIBE id=1 {filter}\n w< CONNACK 0; SUBACK 1 0"
    ));
    rig.send("p", "PUBLISH t a exp=2; PUBLISH t b");
    rig.step_pipe("p");
    rig.now = rig.now + Duration::from_secs(3);
    rig.run("s< PUBLISH t b\n w< PUBLISH t b");
}

#[test]
fn a_message_sent_again_is_acknowledged_when_all_shards_have_the_first() {
    let mut rig = Rig::new(2, 0, quiet());
    rig.run("p> CONNECT p v5 expiry=100\n p< CONNACK 0");
    let home = rig.pipe("p").shard;
    let elsewhere = |topic: &String| usize::from(rig.placement.shard(topic.as_bytes())) != home;
    let topic = (0..).map(|i| format!("t{i}")).find(elsewhere).unwrap();
    // It is to be retained by the other shard, which has not heard of it when its connection is lost.
    rig.send("p", &format!("PUBLISH {topic} x q2 id=1 r"));
    while rig.step_pipe("p") {}
    rig.cut("p");
    rig.send("p", &format!("CONNECT p v5 expiry=100; PUBLISH {topic} x q2 id=1 r dup"));
    while rig.step_pipe("p") {}
    let told = rig.pipe("p").news.join("; ");
    assert!(!told.contains("PUBREC"), "{told}");
    assert_eq!(rig.news("p"), "CONNACK 0 present; PUBREC 1");
}
