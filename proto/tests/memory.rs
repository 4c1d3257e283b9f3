//! How much memory a shard says it holds, and what it refuses when that is as much as it may.

mod common;

use common::{Rig, one, quiet};
use hikyaku_proto::broker::{Config, Input, Refused};

/// Says how much shard 0 may hold beyond what it does.
fn leave(rig: &mut Rig, bytes: u64) {
    let most = rig.shards[0].memory() + bytes;
    rig.shards[0].handle(rig.now, Input::Memory(most));
}

fn held(rig: &mut Rig) -> u64 {
    rig.settle();
    rig.shards[0].memory()
}

#[test]
fn a_message_is_counted_once_however_many_wait_for_it() {
    let mut rig = one();
    let before = rig.shards[0].memory();
    for i in 0..100 {
        rig.run(&format!("s{i}> CONNECT s{i}; SUBSCRIBE id=1 t:1\n s{i}< CONNACK 0; SUBACK 1 1\n s{i}!"));
    }
    let sessions = held(&mut rig);
    rig.run("p> CONNECT p clean\n p< CONNACK 0");
    let idle = held(&mut rig);
    rig.run(&format!("p> PUBLISH t {} q1 id=1\n p< PUBACK 1", "x".repeat(100_000)));
    let queued = held(&mut rig) - idle;
    assert!((100_000..130_000).contains(&queued), "{queued}");
    // One after the other gets it: as long as one has not, it is there.
    for i in 0..100 {
        assert!(held(&mut rig) - idle > 100_000);
        rig.run(&format!("s{i}> CONNECT s{i}\n s{i}< CONNACK 0 present; PUBLISH t size=100000 q1 id=1"));
        rig.run(&format!("s{i}> PUBACK 1; DISCONNECT\n s{i}< CLOSED"));
    }
    // What the publisher's topic matches is remembered.
    assert!(held(&mut rig).abs_diff(idle) < 10_000, "{} {idle}", held(&mut rig));
    rig.run("p> DISCONNECT\n p< CLOSED");
    assert_eq!(held(&mut rig), sessions);
    for i in 0..100 {
        rig.run(&format!("s{i}> CONNECT s{i} clean; DISCONNECT\n s{i}< CONNACK 0; CLOSED"));
    }
    assert_eq!(held(&mut rig), before);
}

#[test]
fn when_memory_is_short_what_is_new_is_refused_and_the_rest_goes_on() {
    let mut rig = one();
    rig.run(
        "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1
         f> CONNECT f clean; SUBSCRIBE id=1 t\n f< CONNACK 0; SUBACK 1 0
         p> CONNECT p v5 clean; PUBLISH t 1 q1 id=1; PUBLISH r/1 1 r\n p< CONNACK 0; PUBACK 1
         s< PUBLISH t 1 q1 id=1\n f< PUBLISH t 1
         o> CONNECT o clean\n o< CONNACK 0",
    );
    rig.shards[0].handle(rig.now, Input::Memory(0));
    rig.run(
        "p> PUBLISH t 2 q1 id=2; PUBLISH t 3 q2 id=3; PUBLISH u 4 q1 id=4; PUBLISH r/2 5 q1 id=5 r
         p< PUBACK 2 0x97; PUBREC 3 0x97; PUBACK 4 0x10; PUBACK 5 0x97
         p> PUBLISH t 6; PUBLISH r/3 7 r; PUBLISH r/1 r q1 id=6
         p< PUBACK 6 0x10\n f< PUBLISH t 6\n s< PUBLISH t 6
         s> SUBSCRIBE id=2 t:1; SUBSCRIBE id=3 u:1; SUBSCRIBE id=4 $share/g/u\n s< SUBACK 2 1; SUBACK 3 0x97; SUBACK 4 0x97
         f> SUBSCRIBE id=5 u\n f< SUBACK 5 0x80
         o> PUBLISH u 0 q1 id=1; PUBLISH t 0 q1 id=2\n o< PUBACK 1; CLOSED
         n> CONNECT n v5 clean\n n< CONNACK 0x97; CLOSED\n m> CONNECT m clean\n m< CONNACK 3; CLOSED
         s!
         s> CONNECT s v5 expiry=100\n s< CONNACK 0 present; PUBLISH t 1 q1 id=1 dup\n s> PUBACK 1",
    );
    let refused = |rig: &Rig, what: Refused| rig.sum(|c| c.refused[what as usize]);
    assert_eq!(refused(&rig, Refused::Publish), 4);
    assert_eq!((refused(&rig, Refused::Subscription), refused(&rig, Refused::Session)), (3, 2));
    assert_eq!(refused(&rig, Refused::Retain), 1);
    leave(&mut rig, 10_000);
    rig.run(
        "p> PUBLISH t 8 q1 id=8\n p< PUBACK 8\n s< PUBLISH t 8 q1 id=2\n f< PUBLISH t 8
         n> CONNECT n clean; SUBSCRIBE id=1 r/#\n n< CONNACK 0; SUBACK 1 0",
    );
}

/// A client of 3.x is told of no receive maximum: what it does not release is as much as there are ids.
#[test]
fn ids_of_qos_2_messages_that_are_not_released_are_bounded_and_counted() {
    let mut rig = Rig::kept(1, 0, quiet());
    rig.run("p> CONNECT p\n p< CONNACK 0");
    let idle = held(&mut rig);
    for id in (1..=u16::MAX).rev() {
        rig.pipe("p").up.extend([0x34, 5, 0, 1, b't', (id >> 8) as u8, id as u8]);
    }
    rig.settle();
    let all = held(&mut rig) - idle;
    assert!((130_000..135_000).contains(&all), "{all}");
    assert_eq!(rig.pipe("p").news.len(), 65_535);
    rig.pipe("p").news.clear();
    // No message more: all of them are known.
    rig.run("p> PUBLISH t x q2 id=7\n p< PUBREC 7");
    assert_eq!(held(&mut rig) - idle, all);
    rig.crash(0, 1);
    rig.run("p< CLOSED\n p> CONNECT p\n p< CONNACK 0 present");
    assert!(held(&mut rig).abs_diff(idle + all) < 5000, "{} {idle} {all}", held(&mut rig));
    for id in 1..=u16::MAX {
        rig.pipe("p").up.extend([0x62, 2, (id >> 8) as u8, id as u8]);
    }
    rig.settle();
    rig.pipe("p").news.clear();
    assert!(held(&mut rig) < idle + 1000, "{} {idle}", held(&mut rig));
}

#[test]
fn a_large_packet_that_is_not_complete_goes_when_memory_is_short() {
    let mut rig = one();
    rig.run("a> CONNECT a v5\n a< CONNACK 0\n b> CONNECT b\n b< CONNACK 0");
    let idle = held(&mut rig);
    let begin = |rig: &mut Rig, name: &str, bytes: usize| {
        rig.pipe(name).up.extend([0x30, 0x80, 0x80, 0x40]); // A MiB.
        rig.pipe(name).up.extend(vec![0; bytes]);
    };
    begin(&mut rig, "a", 500_000);
    begin(&mut rig, "b", 30_000);
    let now = held(&mut rig) - idle;
    assert!((530_000..540_000).contains(&now), "{now}");
    rig.shards[0].handle(rig.now, Input::Memory(idle));
    rig.pipe("a").up.extend([0]);
    rig.pipe("b").up.extend([0]);
    rig.run("a< DISCONNECT 0x97; CLOSED\n b<");
    assert_eq!(rig.sum(|c| c.refused[Refused::Connection as usize]), 1);
}

#[test]
fn output_that_is_refused_counts() {
    let mut rig = one();
    rig.run(
        "s> CONNECT s clean; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0\n p> CONNECT p clean\n p< CONNACK 0",
    );
    let idle = held(&mut rig);
    rig.pipe("s").takes = Some(0);
    let payload = "x".repeat(50_000);
    for _ in 0..10 {
        rig.run(&format!("p> PUBLISH t {payload}"));
    }
    let now = held(&mut rig) - idle;
    assert!((500_000..510_000).contains(&now), "{now}");
    // What is small enough to be taken otherwise is dropped now.
    leave(&mut rig, 0);
    rig.run(&format!("p> PUBLISH t {payload}; PINGREQ\n p< PINGRESP"));
    let dropped = |rig: &Rig| rig.sum(|c| c.dropped[hikyaku_proto::broker::Dropped::Memory as usize]);
    assert_eq!((held(&mut rig) - idle, dropped(&rig)), (now, 1));
    rig.take_more("s", None);
    assert!(held(&mut rig).abs_diff(idle) < 1000, "{} {idle}", held(&mut rig));
}

#[test]
fn retained_messages_are_limited_in_number_and_bytes() {
    for shards in [1, 3] {
        let config =
            Config { max_retained_messages: 2, max_retained_bytes: 1000, sys_interval_s: 10, ..quiet() };
        let mut rig = Rig::new(shards, 0, config);
        let large = "x".repeat(900);
        rig.run(&format!(
            "p> CONNECT p clean; PUBLISH a 1 r; PUBLISH a 2 r q1 id=1\n p< CONNACK 0; PUBACK 1
             p> PUBLISH b {large} r q1 id=1\n p< PUBACK 1"
        ));
        let holdings: Vec<_> = rig.shards.iter().map(|s| s.holdings()).collect();
        let sum = |what: fn(&hikyaku_proto::broker::Holdings) -> u64| holdings.iter().map(what).sum::<u64>();
        for (shard, &own) in holdings.iter().enumerate() {
            let mut others = own;
            others.retained = sum(|h| h.retained) - own.retained;
            others.retained_bytes = sum(|h| h.retained_bytes) - own.retained_bytes;
            rig.shards[shard].handle(rig.now, Input::Elsewhere(others));
        }
        assert_eq!(sum(|h| h.retained), 2);
        rig.run(&format!("p> PUBLISH c 1 r q1 id=3; PUBLISH a {large} q1 id=4 r\n p< PUBACK 3; PUBACK 4"));
        // What replaces another and does not fit takes it away: it is not what was said last.
        rig.run("s> CONNECT s clean; SUBSCRIBE id=1 #\n s< CONNACK 0; SUBACK 1 0; PUBLISH b size=900 r");
    }
}

#[test]
fn retained_messages_that_expire_are_removed_though_nobody_asks() {
    let mut rig = Rig::kept(1, 0, quiet());
    rig.run("p> CONNECT p v5 clean\n p< CONNACK 0");
    for i in 0..20 {
        let seconds = 10 + i % 4 * 10;
        rig.run(&format!(
            "p> PUBLISH t/{i} x r exp={seconds}; PUBLISH $u/{i} x r exp={seconds}; PUBLISH k/{i} x r"
        ));
    }
    let retained = |rig: &Rig| rig.sum(|c| c.retained);
    assert_eq!(retained(&rig), 60);
    rig.run("p> PUBLISH t/0 x r exp=1000; PUBLISH t/4 r\n +9s\n");
    assert_eq!(retained(&rig), 59);
    for (seconds, left) in [(3, 59 - 8), (10, 59 - 18), (10, 59 - 28), (10, 21)] {
        rig.advance(std::time::Duration::from_secs(seconds));
        assert_eq!(retained(&rig), left);
    }
    rig.crash(0, 1);
    assert_eq!(retained(&rig), 21);
    rig.advance(std::time::Duration::from_secs(1000));
    assert_eq!(retained(&rig), 20);
}
