//! Retained messages, and what SUBSCRIBE asks about them.

mod common;

use common::{Rig, both, one, quiet};
use hikyaku_proto::broker::Config;

#[test]
fn set_replaced_and_cleared() {
    both(
        &quiet(),
        "p> CONNECT p clean {5}; PUBLISH t/a 1 r; PUBLISH t/a 2 r q1 id=1; PUBLISH t/b 3 r q2 id=2; PUBLISH t/c 4
         p< CONNACK 0; PUBACK 1{5: 0x10}; PUBREC 2
         s> CONNECT s clean {5}; SUBSCRIBE id=1 t/+:1; PINGREQ
         s< CONNACK 0; SUBACK 1 1; PUBLISH t/a 2 q1 id=1 r; PUBLISH t/b 3 q1 id=2 r; PINGRESP
         p> PUBLISH t/a 5 r
         s< PUBLISH t/a 5
         p> PUBLISH t/a r
         s< PUBLISH t/a
         q> CONNECT q clean {5}; SUBSCRIBE id=1 t/a; SUBSCRIBE id=2 t/b; SUBSCRIBE id=3 #:2
         q< CONNACK 0; SUBACK 1 0; SUBACK 2 0; PUBLISH t/b 3 r; SUBACK 3 2; PUBLISH t/b 3 q2 id=1 r",
    );
}

#[test]
fn retain_handling() {
    one().run(
        "p> CONNECT p clean; PUBLISH t 1 r
         p< CONNACK 0
         s> CONNECT s clean v5; SUBSCRIBE id=1 t:rh2; SUBSCRIBE id=2 t:rh1; SUBSCRIBE id=3 t sid=5
         s< CONNACK 0; SUBACK 1 0; SUBACK 2 0; SUBACK 3 0; PUBLISH t 1 r sid=5
         s> UNSUBSCRIBE id=4 t; SUBSCRIBE id=5 t:rh1
         s< UNSUBACK 4 0; SUBACK 5 0; PUBLISH t 1 r
         o> CONNECT o clean; SUBSCRIBE id=1 t; SUBSCRIBE id=2 t
         o< CONNACK 0; SUBACK 1 0; PUBLISH t 1 r; SUBACK 2 0; PUBLISH t 1 r",
    );
}

#[test]
fn retain_as_published() {
    one().run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 t:rap:1
         a< CONNACK 0; SUBACK 1 1
         b> CONNECT b clean v5; SUBSCRIBE id=1 t:1
         b< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean; PUBLISH t 1 r q1 id=1; PUBLISH t 2 q1 id=1; PUBLISH t 3 r
         p< CONNACK 0; PUBACK 1; PUBACK 1
         a< PUBLISH t 1 q1 id=1 r; PUBLISH t 2 q1 id=2; PUBLISH t 3 r
         b< PUBLISH t 1 q1 id=1; PUBLISH t 2 q1 id=2; PUBLISH t 3",
    );
}

#[test]
fn expired_ones_are_not_sent() {
    one().run(
        "p> CONNECT p clean v5; PUBLISH t 1 r exp=10
         p< CONNACK 0
         +4s
         s> CONNECT s clean v5; SUBSCRIBE id=1 t
         s< CONNACK 0; SUBACK 1 0; PUBLISH t 1 r exp=6
         +7s
         s> SUBSCRIBE id=1 t
         s< SUBACK 1 0",
    );
}

#[test]
fn switched_off() {
    let config = Config { retain_available: false, ..quiet() };
    Rig::new(1, 0, config).run(
        "p> CONNECT p clean v5; PUBLISH t 1; PUBLISH t 1 r
         p< CONNACK 0; DISCONNECT 0x9a; CLOSED
         p> CONNECT p clean v5 will=a,b,r
         p< CONNACK 0x9a; CLOSED",
    );
}

#[test]
fn shared_subscriptions_get_none() {
    one().run("p> CONNECT p clean; PUBLISH t 1 r\n p< CONNACK 0\n s> CONNECT s clean v5; SUBSCRIBE id=1 $share/g/t\n s< CONNACK 0; SUBACK 1 0");
}

fn filled(shards: u16, seed: u64, topics: usize) -> Rig {
    let mut rig = Rig::new(shards, seed, quiet());
    rig.run("p> CONNECT p clean\n p< CONNACK 0");
    for i in 0..topics {
        rig.send("p", &format!("PUBLISH t/{i} x r"));
    }
    rig.settle();
    assert_eq!(rig.sum(|c| c.retained), topics as u64);
    rig
}

#[test]
fn a_long_replay_lets_others_in() {
    let mut rig = filled(1, 0, 20_000);
    rig.send("s", "CONNECT s clean; SUBSCRIBE id=1 #");
    while rig.names.get("s").is_none_or(|&s| rig.pipes[s].log.len() < 3) {
        assert!(rig.step());
    }
    rig.send("s", "PINGREQ");
    rig.settle();
    let news = std::mem::take(&mut rig.pipe("s").news);
    let ping = news.iter().position(|n| n == "PINGRESP").unwrap();
    assert!(ping < 15_000, "answered after {ping}");
    assert_eq!(news.iter().filter(|n| n.starts_with("PUBLISH")).count(), 20_000);
}

#[test]
fn a_replay_goes_no_faster_than_its_reader() {
    let mut rig = filled(1, 0, 20_000);
    rig.run("s> CONNECT s clean\n s< CONNACK 0");
    rig.pipe("s").takes = Some(0);
    rig.send("s", "SUBSCRIBE id=1 #");
    rig.settle();
    let (shard, id) = (rig.pipe("s").shard, rig.pipe("s").id);
    assert!(rig.shards[shard].outbox(id).unwrap().len() < 100_000);
    for _ in 0..1000 {
        rig.take_more("s", Some(1000));
        rig.settle();
    }
    assert_eq!(rig.pipe("s").news.len(), 20_001);
    rig.pipe("s").news.clear();
}

#[test]
fn a_replay_through_a_window_loses_nothing() {
    for shards in [1, 5] {
        let mut rig = filled(shards, 0, 3_000);
        rig.send("s", "CONNECT s clean v5 rm=3");
        rig.pipe("s").answers = true;
        rig.send("s", "SUBSCRIBE id=1 #:1; SUBSCRIBE id=2 t/+:2");
        rig.settle();
        // QoS 0 messages stay QoS 0.
        assert_eq!(rig.pipe("s").news.len(), 3 + 6_000);
    }
    for shards in [1, 5] {
        let mut rig = Rig::new(shards, 0, quiet());
        rig.run("p> CONNECT p clean\n p< CONNACK 0");
        rig.pipe("p").answers = true;
        for i in 0..3000 {
            rig.send("p", &format!("PUBLISH t/{i} x r q1 id=1"));
        }
        rig.settle();
        rig.send(
            "s",
            "CONNECT s clean v5 rm=3; SUBSCRIBE id=1 #:1; SUBSCRIBE id=2 t/+:2; SUBSCRIBE id=3 t/#:2",
        );
        rig.pipe("s").answers = true;
        rig.settle();
        assert_eq!(rig.pipe("s").news.len(), 4 + 9_000, "{shards} shards");
        assert_eq!(rig.sum(|c| c.publish_dropped), 0);
    }
}

#[test]
fn large_ones_reach_a_slow_reader_of_several_shards() {
    let config = Config { output_soft_bytes: 100_000, ..quiet() };
    let mut rig = Rig::new(3, 0, config);
    rig.run("p> CONNECT p clean\n p< CONNACK 0");
    for i in 0..300 {
        rig.send("p", &format!("PUBLISH t/{i} r size=5000"));
    }
    rig.settle();
    rig.run("s> CONNECT s clean\n s< CONNACK 0");
    rig.pipe("s").takes = Some(0);
    rig.send("s", "SUBSCRIBE id=1 #");
    rig.settle();
    for _ in 0..400 {
        rig.take_more("s", Some(5000));
        rig.settle();
    }
    assert_eq!(rig.pipe("s").news.len(), 301);
}

#[test]
fn an_unsubscribe_ends_the_replay() {
    for shards in [1, 3] {
        for resubscribe in [false, true] {
            let mut rig = filled(shards, 0, 20_000);
            rig.run("s> CONNECT s clean v5\n s< CONNACK 0");
            rig.pipe("s").takes = Some(1000);
            rig.send("s", "SUBSCRIBE id=1 t/+");
            rig.settle();
            rig.send("s", "UNSUBSCRIBE id=2 t/+");
            if resubscribe {
                rig.send("s", "SUBSCRIBE id=3 t/+");
            }
            rig.settle();
            rig.take_more("s", None);
            rig.settle();
            let news = std::mem::take(&mut rig.pipe("s").news);
            let end = news.iter().position(|n| n.starts_with("UNSUBACK")).unwrap();
            let after = news[end..].iter().filter(|n| n.starts_with("PUBLISH")).count();
            assert_eq!(after, if resubscribe { 20_000 } else { 0 }, "{shards}");
        }
    }
}

#[test]
fn a_replay_goes_on_after_a_reconnect() {
    for shards in [1, 3] {
        let mut rig = filled(shards, 0, 8_000);
        rig.run("s> CONNECT s v5 expiry=100\n s< CONNACK 0");
        rig.pipe("s").takes = Some(1000);
        rig.send("s", "SUBSCRIBE id=1 t/+");
        rig.settle();
        rig.cut("s");
        rig.settle();
        rig.send("s", "CONNECT s v5 expiry=100");
        rig.settle();
        let news = std::mem::take(&mut rig.pipe("s").news);
        assert!(news.len() > 2_000, "{} of {shards} shards", news.len());
    }
}

#[test]
fn a_subscribe_with_very_many_filters_is_soon_done() {
    for shards in [1, 2] {
        let mut rig = Rig::new(shards, 0, quiet());
        rig.run("p> CONNECT p clean; PUBLISH a x r\n p< CONNACK 0");
        rig.run("s> CONNECT s clean v5\n s< CONNACK 0");
        rig.send("s", &format!("SUBSCRIBE id=1{}; PINGREQ", " a".repeat(200_000)));
        let start = std::time::Instant::now();
        rig.settle();
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
        assert_eq!(std::mem::take(&mut rig.pipe("s").news).len(), 200_002);
    }
}

#[test]
fn an_unsubscribe_with_very_many_filters_is_soon_done() {
    let mut rig = filled(1, 0, 20_000);
    rig.run("s> CONNECT s clean v5\n s< CONNACK 0");
    rig.pipe("s").takes = Some(0);
    let filters: String = (0..60_000).map(|i| format!(" a/{i}")).collect();
    rig.send(
        "s",
        &format!("SUBSCRIBE id=1 #{filters}; SUBSCRIBE id=2 a/1; UNSUBSCRIBE id=3 #{filters}; PINGREQ"),
    );
    let start = std::time::Instant::now();
    rig.settle();
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
    rig.take_more("s", None);
    rig.settle();
    let news = std::mem::take(&mut rig.pipe("s").news);
    assert_eq!(news.last().unwrap(), "PINGRESP");
}

#[test]
fn what_is_still_to_come_comes_by_the_subscription_there_is() {
    for between in ["", "UNSUBSCRIBE id=9 t/+; "] {
        let mut rig = one();
        rig.run(
            "p> CONNECT p clean; PUBLISH t/a 1 r q1 id=1; PUBLISH t/b 2 r q1 id=2; PUBLISH t/c 3 r q1 id=3; PUBLISH u 4 r q1 id=4
             p< CONNACK 0; PUBACK 1; PUBACK 2; PUBACK 3; PUBACK 4
             s> CONNECT s clean v5 rm=1; SUBSCRIBE id=1 u:1; SUBSCRIBE id=2 t/+:1 sid=1
             s< CONNACK 0; SUBACK 1 1; PUBLISH u 4 q1 id=1 r; SUBACK 2 1",
        );
        // One is queued, the others wait for that. An unsubscribe ends the replay, but not what is queued.
        rig.send("s", &format!("{between}SUBSCRIBE id=3 t/+ sid=2"));
        rig.settle();
        rig.pipe("s").news.clear();
        rig.send("s", "PUBACK 1");
        let first = rig.news("s");
        assert!(first.starts_with("PUBLISH t/a 1 q1 id=2 r sid=1"), "{first}");
        rig.pipe("s").answers = true;
        rig.send("s", "PUBACK 2");
        let all = format!("{first}; {}", rig.news("s"));
        for rest in ["PUBLISH t/b 2 r sid=2", "PUBLISH t/c 3 r sid=2"] {
            assert!(all.contains(rest), "{between}: {rest} is not in {all}");
        }
        assert_eq!(all.matches("sid=1").count(), 1, "{between}: {all}");
    }
}
