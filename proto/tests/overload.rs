//! Clients that send more than they may, and clients that do not read.

mod common;

use common::{Rig, quiet};
use hikyaku_proto::broker::{Config, Dropped, Refused};
use std::time::Duration;

fn refused(rig: &Rig, what: Refused) -> u64 {
    rig.sum(|c| c.refused[what as usize])
}

fn dropped(rig: &Rig, why: Dropped) -> u64 {
    rig.sum(|c| c.dropped[why as usize])
}

#[test]
fn who_publishes_too_fast_is_read_more_slowly() {
    let config = Config { max_publish_rate: 10, ..quiet() };
    let mut rig = Rig::new(1, 0, config);
    rig.run(
        "s> CONNECT s clean; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0\n p> CONNECT p clean\n p< CONNACK 0",
    );
    for _ in 0..30 {
        rig.send("p", "PUBLISH t x");
    }
    rig.send("q", "CONNECT q clean; PUBLISH t y; PINGREQ");
    rig.settle();
    let count = |rig: &mut Rig| {
        let news = rig.news("s");
        news.matches("PUBLISH t x").count()
    };
    // The one that is too much is handled, and others are not held up.
    assert_eq!(count(&mut rig), 11);
    rig.run("q< CONNACK 0; PINGRESP");
    rig.advance(Duration::from_millis(50));
    assert_eq!(count(&mut rig), 0);
    for _ in 0..19 {
        rig.advance(Duration::from_millis(100));
        assert_eq!(count(&mut rig), 1);
    }
    assert!(refused(&rig, Refused::Rate) >= 19);
    rig.advance(Duration::from_secs(10));
    for _ in 0..10 {
        rig.send("p", "PUBLISH t x");
    }
    assert_eq!(count(&mut rig), 10);
    assert_eq!(rig.sum(|c| c.publish_dropped), 0);
}

#[test]
fn a_rate_that_is_taken_away_holds_nobody_up() {
    let mut rig = Rig::new(1, 0, Config { max_publish_rate: 1, ..quiet() });
    rig.run("p> CONNECT p clean; PUBLISH t 1; PUBLISH t 2; PINGREQ\n p< CONNACK 0");
    rig.configure(quiet());
    rig.run("+1s\n p< PINGRESP\n p> PUBLISH t 3; PUBLISH t 4; PINGREQ\n p< PINGRESP");
}

#[test]
fn drops_are_counted_by_reason() {
    let config =
        Config { max_queued_messages: 1, max_inflight_messages: 1, output_soft_bytes: 10_000, ..quiet() };
    let mut rig = Rig::new(1, 0, config);
    rig.run(
        "s> CONNECT s; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1
         f> CONNECT f v5 mps=100; SUBSCRIBE id=1 f\n f< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean; PUBLISH t 1 q1 id=1; PUBLISH t 2 q1 id=2; PUBLISH t 3 q1 id=3
         p< CONNACK 0; PUBACK 1; PUBACK 2; PUBACK 3
         s< PUBLISH t 1 q1 id=1",
    );
    assert_eq!(dropped(&rig, Dropped::QueueFull), 1);
    let large = "x".repeat(3000);
    rig.run(&format!("p> PUBLISH f {large}"));
    assert_eq!(dropped(&rig, Dropped::TooLarge), 1);
    rig.run("s> SUBSCRIBE id=2 u\n s< SUBACK 2 0");
    rig.pipe("s").takes = Some(0);
    for _ in 0..10 {
        rig.run(&format!("p> PUBLISH u {large}"));
    }
    assert_eq!(dropped(&rig, Dropped::Slow), 6);
    rig.advance(Duration::from_secs(31));
    assert_eq!(refused(&rig, Refused::Connection), 1);
    assert_eq!(rig.sum(|c| c.publish_dropped), 8);
}

#[test]
fn a_long_queue_is_on_disk_and_not_in_memory() {
    let config = Config { max_queued_messages: u32::MAX, max_queued_bytes: 100_000, ..quiet() };
    let mut rig = Rig::kept(1, 0, config);
    rig.run("s> CONNECT s; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1\n s!\n p> CONNECT p clean\n p< CONNACK 0");
    let before = rig.shards[0].memory();
    let payload = "x".repeat(1000);
    for _ in 0..2000 {
        rig.send("p", &format!("PUBLISH t {payload} q1 id=1"));
    }
    rig.settle();
    rig.pipe("p").news.clear();
    assert_eq!(rig.sum(|c| c.publish_dropped), 0);
    let held = rig.shards[0].memory() - before;
    assert!((64_000..100_000).contains(&held), "{held}");
    // All of it comes, and nothing stays.
    let at = rig.open(
        &common::packets::encode("CONNECT s", &mut hikyaku_proto::codec::Version::V3_1_1),
        hikyaku_proto::codec::Version::V3_1_1,
    );
    rig.pipes[at].answers = true;
    rig.settle();
    assert_eq!(rig.pipes[at].log.len(), 1 + 2000);
    assert!(rig.shards[0].memory() < before + 3000);
}

#[test]
fn a_queue_in_memory_is_limited_in_bytes() {
    // A clean session is kept by no store.
    for (shards, keep) in [(1, false), (1, true), (3, true)] {
        let config = Config { max_inflight_messages: 1, max_queued_bytes: 5_000, ..quiet() };
        let mut rig = if keep { Rig::kept(shards, 0, config) } else { Rig::new(shards, 0, config) };
        rig.run("s> CONNECT s clean; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1\n p> CONNECT p clean\n p< CONNACK 0");
        let payload = "x".repeat(1000);
        for _ in 0..10 {
            rig.send("p", &format!("PUBLISH t {payload} q1 id=1"));
        }
        rig.settle();
        assert_eq!(dropped(&rig, Dropped::QueueFull), 5);
    }
}

#[test]
fn messages_of_qos_0_wait_where_that_is_configured() {
    for keep in [false, true] {
        let config = Config { queue_qos0_messages: true, max_queued_messages: 100, ..quiet() };
        let mut rig = if keep { Rig::kept(1, 0, config) } else { Rig::new(1, 0, config) };
        rig.run(
            "s> CONNECT s; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1\n s!
             c> CONNECT c clean; SUBSCRIBE id=1 t\n c< CONNACK 0; SUBACK 1 0\n c!
             p> CONNECT p v5 clean; PUBLISH t 1; PUBLISH t 2 q1 id=1; PUBLISH t 3 exp=5; PUBLISH t 4 exp=500
             p< CONNACK 0; PUBACK 1
             +10s",
        );
        let before = rig.shards[0].memory();
        for _ in 0..120 {
            rig.send("p", "PUBLISH t 5");
        }
        rig.settle();
        assert!(rig.shards[0].memory() > before + 1000);
        assert_eq!(dropped(&rig, Dropped::QueueFull), 24);
        if keep {
            rig.crash(0, 1);
            rig.run("p< CLOSED\n p> CONNECT p v5 clean\n p< CONNACK 0");
        }
        rig.send("s", "CONNECT s");
        rig.settle();
        let log = rig.pipe("s").log.clone();
        let of = |text: &str| log.iter().filter(|line| line.starts_with(text)).count();
        assert_eq!(log[..4], ["CONNACK 0 present", "PUBLISH t 1", "PUBLISH t 2 q1 id=1", "PUBLISH t 4"]);
        assert_eq!((of("PUBLISH t 5"), dropped(&rig, Dropped::Expired)), (96, 1));
        // Then they come as they are published, and nothing is left of them.
        rig.pipe("s").news.clear();
        rig.run("p> PUBLISH t 6\n s< PUBLISH t 6\n s> PUBACK 1; DISCONNECT\n s< CLOSED");
        rig.run("s> CONNECT s clean; DISCONNECT\n s< CONNACK 0; CLOSED\n p> DISCONNECT\n p< CLOSED");
        assert_eq!(rig.shards[0].memory(), 0);
        if keep {
            assert_eq!(rig.disk.len(), (0, 0), "nothing is left behind");
        }
    }
}

#[test]
fn messages_of_qos_0_that_wait_are_not_overtaken() {
    let config = Config { queue_qos0_messages: true, max_inflight_messages: 1, ..quiet() };
    Rig::new(1, 0, config).run(
        "s> CONNECT s; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1\n s!
         p> CONNECT p clean; PUBLISH t 1 q1 id=1; PUBLISH t 2; PUBLISH t 3 q1 id=2\n p< CONNACK 0; PUBACK 1; PUBACK 2
         s> CONNECT s\n s< CONNACK 0 present; PUBLISH t 1 q1 id=1
         p> PUBLISH t 4\n s<
         s> PUBACK 1\n s< PUBLISH t 2; PUBLISH t 3 q1 id=2
         s> PUBACK 2\n s< PUBLISH t 4
         p> PUBLISH t 5\n s< PUBLISH t 5",
    );
}

#[test]
fn publishers_wait_for_slow_clients_where_that_is_configured() {
    for shards in [1, 3] {
        // Between shards what one read brings gets through before the publisher is told to wait.
        let config =
            Config { slow_publishers: true, output_soft_bytes: 5_000, output_hard_bytes: 200_000, ..quiet() };
        let mut rig = Rig::new(shards, 0, config);
        rig.run(
            "s> CONNECT s clean; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0
             f> CONNECT f clean; SUBSCRIBE id=1 u\n f< CONNACK 0; SUBACK 1 0
             p> CONNECT p1 clean\n p< CONNACK 0\n q> CONNECT q clean\n q< CONNACK 0",
        );
        rig.pipe("s").takes = Some(0);
        let payload = "x".repeat(1000);
        for i in 0..100 {
            rig.send("p", &format!("PUBLISH t {i}{payload}"));
            // One after the other, as a network brings them.
            rig.settle();
        }
        assert!(rig.pipe("p").paused && !rig.pipe("p").up.is_empty());
        rig.run("q> PUBLISH u 1; PINGREQ\n q< PINGRESP\n f< PUBLISH u 1");
        for _ in 0..200 {
            rig.take_more("s", Some(700));
            rig.settle();
        }
        let log = rig.pipe("s").log.clone();
        assert_eq!(log.iter().filter(|line| line.starts_with("PUBLISH t")).count(), 100);
        assert_eq!((rig.sum(|c| c.publish_dropped), rig.pipe("p").paused), (0, false));
        // One that takes nothing is closed, and then all go on.
        rig.pipe("s").takes = Some(0);
        for i in 0..100 {
            rig.send("p", &format!("PUBLISH t {i}{payload}"));
            rig.settle();
        }
        assert!(rig.pipe("p").paused);
        rig.advance(Duration::from_secs(31));
        assert!(!rig.pipe("p").paused && rig.pipe("p").up.is_empty() && !rig.pipe("s").open);
    }
}
