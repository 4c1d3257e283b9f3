//! Messages both ways: QoS 0, 1 and 2, windows, queues, resends, expiry, limits.

mod common;

use common::{Rig, both, one, quiet};
use hikyaku_proto::broker::Config;

#[test]
fn every_qos_both_ways() {
    both(
        &quiet(),
        "s> CONNECT s clean {5}; SUBSCRIBE id=1 t/0:0 t/1:1 t/2:2
         s< CONNACK 0; SUBACK 1 0 1 2
         p> CONNECT p clean {5}; PUBLISH t/0 a; PUBLISH t/1 b; PUBLISH t/2 c
         p< CONNACK 0
         s< PUBLISH t/0 a; PUBLISH t/1 b; PUBLISH t/2 c
         p> PUBLISH t/0 a q1 id=1; PUBLISH t/1 b q1 id=2; PUBLISH t/2 c q1 id=3
         p< PUBACK 1; PUBACK 2; PUBACK 3
         s< PUBLISH t/0 a; PUBLISH t/1 b q1 id=1; PUBLISH t/2 c q1 id=2
         s> PUBACK 1; PUBACK 2
         p> PUBLISH t/0 a q2 id=1; PUBLISH t/1 b q2 id=2; PUBLISH t/2 c q2 id=3
         p< PUBREC 1; PUBREC 2; PUBREC 3
         s< PUBLISH t/0 a; PUBLISH t/1 b q1 id=3; PUBLISH t/2 c q2 id=4
         p> PUBREL 1; PUBREL 2; PUBREL 3
         p< PUBCOMP 1; PUBCOMP 2; PUBCOMP 3
         s> PUBACK 3; PUBREC 4
         s< PUBREL 4
         s> PUBCOMP 4",
    );
}

#[test]
fn nobody_matches() {
    both(
        &quiet(),
        "p> CONNECT p clean {5}; PUBLISH x a q1 id=7; PUBLISH x a q2 id=8
         p< CONNACK 0; PUBACK 7{5: 0x10}; PUBREC 8
         p> PUBREL 8; PUBREL 9
         p< PUBCOMP 8; PUBCOMP 9",
    );
}

#[test]
fn a_message_to_its_publisher_leaves_before_the_puback_and_after_the_pubrec() {
    both(
        &quiet(),
        "a> CONNECT a clean {5}; SUBSCRIBE id=1 t:1; PUBLISH t x q1 id=5; PUBLISH t y q2 id=6
         a< CONNACK 0; SUBACK 1 1; PUBLISH t x q1 id=1; PUBACK 5; PUBREC 6; PUBLISH t y q1 id=2",
    );
}

#[test]
fn receivers_are_served_in_the_order_their_messages_came() {
    let mut rig = one();
    rig.run(
        "a> CONNECT a clean; SUBSCRIBE id=1 t/a:0
         a< CONNACK 0; SUBACK 1 0
         b> CONNECT b clean; SUBSCRIBE id=1 t/b:0
         b< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean
         p< CONNACK 0",
    );
    rig.traced = true;
    rig.run(
        "p> PUBLISH t/b 1; PUBLISH t/a 2; PUBLISH t/b 3
         b< PUBLISH t/b 1; PUBLISH t/b 3
         a< PUBLISH t/a 2",
    );
    let sent: Vec<_> = rig.trace.iter().filter(|output| output.contains("Transmit")).collect();
    assert!(matches!(&sent[..], [b, a] if b.contains("index: 1") && a.contains("index: 0")), "{sent:?}");
}

#[test]
fn qos_2_is_routed_once() {
    both(
        &quiet(),
        "s> CONNECT s clean {5}; SUBSCRIBE id=1 t:0
         s< CONNACK 0; SUBACK 1 0
         p> CONNECT p {5} {5:expiry=100}; PUBLISH t x q2 id=5; PUBLISH t x q2 id=5 dup
         p< CONNACK 0; PUBREC 5; PUBREC 5
         s< PUBLISH t x
         p!
         p> CONNECT p {5} {5:expiry=100}; PUBLISH t x q2 id=5 dup
         p< CONNACK 0 present; PUBREC 5
         p> PUBREL 5; PUBREL 5; PUBLISH t y q2 id=5
         p< PUBCOMP 5; PUBCOMP 5; PUBREC 5
         s< PUBLISH t y",
    );
}

#[test]
fn resend_keeps_order_and_flow() {
    both(
        &quiet(),
        "s> CONNECT s {5} {5:expiry=100}; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean {5}; PUBLISH t a q2 id=1; PUBLISH t b q1 id=2; PUBLISH t c q2 id=3; PUBLISH t d q1 id=4
         p< CONNACK 0; PUBREC 1; PUBACK 2; PUBREC 3; PUBACK 4
         s< PUBLISH t a q2 id=1; PUBLISH t b q1 id=2; PUBLISH t c q2 id=3; PUBLISH t d q1 id=4
         s> PUBREC 1; PUBACK 4
         s< PUBREL 1
         s!
         p> PUBLISH t e q1 id=5
         p< PUBACK 5
         s> CONNECT s {5} {5:expiry=100}
         s< CONNACK 0 present; PUBREL 1; PUBLISH t b q1 id=2 dup; PUBLISH t c q2 id=3 dup; PUBLISH t e q1 id=5
         s> PUBCOMP 1; PUBACK 2; PUBREC 3; PUBACK 5
         s< PUBREL 3
         s> PUBREC 3; PUBCOMP 3; PUBCOMP 3; PUBACK 99
         s< PUBREL 3",
    );
}

#[test]
fn the_clients_receive_maximum_holds() {
    one().run(
        "s> CONNECT s v5 expiry=100 rm=2; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean v5; PUBLISH t a q1 id=1; PUBLISH t b q2 id=2; PUBLISH t c q1 id=3; PUBLISH t d q1 id=4
         p< CONNACK 0; PUBACK 1; PUBREC 2; PUBACK 3; PUBACK 4
         s< PUBLISH t a q1 id=1; PUBLISH t b q2 id=2
         s> PUBREC 2
         s< PUBREL 2
         s> PUBCOMP 2
         s< PUBLISH t c q1 id=3
         s!
         s> CONNECT s v5 expiry=100 rm=1
         s< CONNACK 0 present; PUBLISH t a q1 id=1 dup
         s> PUBACK 3
         s> PUBACK 1
         s< PUBLISH t c q1 id=3 dup
         s> PUBREC 9; PUBACK 3
         s< PUBREL 9; PUBLISH t d q1 id=4",
    );
}

#[test]
fn the_brokers_receive_maximum_is_enforced() {
    let config = Config { max_inflight_messages: 2, ..quiet() };
    Rig::new(1, 0, config).run(
        "p> CONNECT p v5 expiry=100; PUBLISH t a q2 id=1; PUBLISH t b q2 id=2; PUBLISH t b q2 id=2 dup
         p< CONNACK 0; PUBREC 1; PUBREC 2; PUBREC 2
         p> PUBREL 1; PUBLISH t c q1 id=3; PUBLISH t c q1 id=3
         p< PUBCOMP 1; PUBACK 3 0x10; PUBACK 3 0x10
         p> PUBLISH t c q2 id=5; PUBLISH t d q1 id=6
         p< PUBREC 5; DISCONNECT 0x93; CLOSED
         p> CONNECT p v5 expiry=100; PUBLISH t a q1 id=7; PUBREL 2; PUBREL 5; PUBLISH t a q2 id=7
         p< CONNACK 0 present; PUBACK 7 0x10; PUBCOMP 2; PUBCOMP 5; PUBREC 7
         q> CONNECT q clean; PUBLISH t a q2 id=1; PUBLISH t b q2 id=2; PUBLISH t c q2 id=3
         q< CONNACK 0; PUBREC 1; PUBREC 2; PUBREC 3",
    );
}

#[test]
fn a_full_queue_drops_the_newest() {
    let config = Config { max_inflight_messages: 1, max_queued_messages: 2, ..quiet() };
    let mut rig = Rig::new(1, 0, config);
    rig.run(
        "s> CONNECT s; SUBSCRIBE id=1 t:1
         s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean; PUBLISH t 1 q1 id=1; PUBLISH t 2 q1 id=1; PUBLISH t 3 q1 id=1; PUBLISH t 4 q1 id=1
         p< CONNACK 0; PUBACK 1; PUBACK 1; PUBACK 1; PUBACK 1
         s< PUBLISH t 1 q1 id=1
         s> PUBACK 1
         s< PUBLISH t 2 q1 id=2
         s!
         s> CONNECT s
         s< CONNACK 0 present; PUBLISH t 2 q1 id=2 dup
         s> PUBACK 2
         s< PUBLISH t 3 q1 id=3
         s> PUBACK 3",
    );
    assert_eq!(rig.sum(|c| c.publish_dropped), 1);
}

#[test]
fn bytes_in_flight_are_limited() {
    let config = Config { max_inflight_bytes: 16, ..quiet() };
    Rig::new(1, 0, config).run(
        "s> CONNECT s v5; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean; PUBLISH t 12345678 q2 id=1; PUBLISH t 12345678 q2 id=2; PUBLISH t 12345678 q1 id=3
         p> PUBLISH t 4 q0; PUBLISH t 5 q1 id=5
         p< CONNACK 0; PUBREC 1; PUBREC 2; PUBACK 3; PUBACK 5
         s< PUBLISH t 12345678 q2 id=1; PUBLISH t 12345678 q2 id=2; PUBLISH t 4
         s> PUBREC 1
         s< PUBREL 1
         s> PUBCOMP 1
         s< PUBLISH t 12345678 q1 id=3
         s> PUBACK 3
         s< PUBLISH t 5 q1 id=4",
    );
}

#[test]
fn queued_bytes_are_limited() {
    let config = Config { max_queued_bytes: 2500, ..quiet() };
    let mut rig = Rig::new(1, 0, config);
    rig.run(
        "s> CONNECT s; SUBSCRIBE id=1 t:1
         s< CONNACK 0; SUBACK 1 1
         s!
         p> CONNECT p clean; PUBLISH t size=1000 q1 id=1; PUBLISH t size=1000 q1 id=1; PUBLISH t size=1000 q1 id=1
         p< CONNACK 0; PUBACK 1; PUBACK 1; PUBACK 1
         s> CONNECT s
         s< CONNACK 0 present; PUBLISH t size=1000 q1 id=1; PUBLISH t size=1000 q1 id=2",
    );
}

#[test]
fn expiry_counts_down_in_the_queue() {
    one().run(
        "s> CONNECT s v5 expiry=1000; SUBSCRIBE id=1 t:1
         s< CONNACK 0; SUBACK 1 1
         s!
         o> CONNECT o; SUBSCRIBE id=1 t:1
         o< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t a q1 id=1 exp=10; PUBLISH t b q1 id=2 exp=100; PUBLISH t c q1 id=3
         p< CONNACK 0; PUBACK 1; PUBACK 2; PUBACK 3
         o< PUBLISH t a q1 id=1; PUBLISH t b q1 id=2; PUBLISH t c q1 id=3
         +30s
         s> CONNECT s v5 expiry=1000
         s< CONNACK 0 present; PUBLISH t b q1 id=2 exp=70; PUBLISH t c q1 id=3
         p> PUBLISH t d exp=5; PUBLISH t e exp=0
         s< PUBLISH t d exp=5; PUBLISH t e exp=0
         o< PUBLISH t d; PUBLISH t e",
    );
}

#[test]
fn properties_travel() {
    one().run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 sid=7 t:1
         s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t a q1 id=1 up=x
         p< CONNACK 0; PUBACK 1
         s< PUBLISH t a q1 id=1 up=x sid=7",
    );
}

#[test]
fn a_publish_with_a_subscription_identifier_is_an_error() {
    // topic t, no packet id, properties 0b 01
    one().run("p> CONNECT p clean v5; RAW 30 06 00 01 74 02 0b 01\n p< CONNACK 0; DISCONNECT 0x82; CLOSED");
}

#[test]
fn aliases_of_a_client() {
    one().run(
        "s> CONNECT s clean; SUBSCRIBE id=1 #
         s< CONNACK 0; SUBACK 1 0
         p> CONNECT p v5 expiry=100; PUBLISH t/a 1 alias=3; PUBLISH - 2 alias=3; PUBLISH t/b 3 alias=3; PUBLISH - 4 alias=3
         p< CONNACK 0
         s< PUBLISH t/a 1; PUBLISH t/a 2; PUBLISH t/b 3; PUBLISH t/b 4
         p!
         p> CONNECT p v5 expiry=100; PUBLISH - 5 alias=3
         p< CONNACK 0 present; DISCONNECT 0x82; CLOSED
         p> CONNECT p v5; PUBLISH t/a 1 alias=11
         p< CONNACK 0 present; DISCONNECT 0x94; CLOSED
         p> CONNECT p v5; RAW 30 07 00 01 74 03 23 00 00
         p< CONNACK 0; DISCONNECT 0x94; CLOSED",
    );
}

#[test]
fn aliases_of_the_broker() {
    one().run(
        "s> CONNECT s v5 expiry=100 tam=2; SUBSCRIBE id=1 #:1
         s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean; PUBLISH t/a 1; PUBLISH t/a 2; PUBLISH t/b 3; PUBLISH t/c 4; PUBLISH t/b 5 q1 id=1
         p< CONNACK 0; PUBACK 1
         s< PUBLISH t/a 1 alias=1; PUBLISH - 2 alias=1; PUBLISH t/b 3 alias=2; PUBLISH t/c 4; PUBLISH - 5 q1 id=1 alias=2
         s!
         s> CONNECT s v5 expiry=100 tam=1
         s< CONNACK 0 present; PUBLISH t/b 5 q1 id=1 dup alias=1
         p> PUBLISH t/b 6
         s< PUBLISH - 6 alias=1",
    );
}

#[test]
fn the_largest_packet_holds_both_ways() {
    let config = Config { max_packet_size: 100, ..quiet() };
    Rig::new(1, 0, config).run(
        "s> CONNECT s v5 clean mps=40; SUBSCRIBE id=1 t:1
         s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t size=60 q1 id=1; PUBLISH t size=60; PUBLISH t small q1 id=2
         p< CONNACK 0; PUBACK 1; PUBACK 2
         s< PUBLISH t small q1 id=2
         p> PUBLISH t size=100
         p< DISCONNECT 0x95; CLOSED
         q> CONNECT q clean; PUBLISH t size=100
         q< CONNACK 0; CLOSED",
    );
}

#[test]
fn a_message_too_large_does_not_stop_the_window() {
    let mut rig = one();
    rig.run("s> CONNECT s v5 clean mps=40 rm=1; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1");
    rig.run(
        "p> CONNECT p clean; PUBLISH t 1 q1 id=1; PUBLISH t size=50 q1 id=1; PUBLISH t 2 q1 id=1
         p< CONNACK 0; PUBACK 1; PUBACK 1; PUBACK 1
         s< PUBLISH t 1 q1 id=1
         s> PUBACK 1
         s< PUBLISH t 2 q1 id=3",
    );
    assert_eq!(rig.sum(|c| c.publish_dropped), 1);
}

#[test]
fn malformed_packets_end_their_connection_only() {
    for bad in ["RAW 30 02 00 05", "RAW c1 00", "RAW 30 04 00 02 c3 28"] {
        both(
            &quiet(),
            &format!(
                "z> CONNECT z clean {{5}}; SUBSCRIBE id=1 t
                 z< CONNACK 0; SUBACK 1 0
                 a> CONNECT a clean {{5}}; PUBLISH t x; {bad}; PUBLISH t never
                 a< CONNACK 0; {{5:DISCONNECT 0x81; }}CLOSED
                 z< PUBLISH t x
                 z> PINGREQ
                 z< PINGRESP"
            ),
        );
    }
}

#[test]
fn packets_cut_anywhere() {
    for seed in 1..200 {
        let mut rig = Rig::new(1, seed, quiet());
        rig.run("s> CONNECT s clean; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1");
        rig.run("p> CONNECT p clean v5\n p< CONNACK 0");
        rig.pipe("p").cuts = true;
        rig.run(
            "p> PUBLISH t abc q1 id=1; PINGREQ; PUBLISH t size=200; PUBLISH t d up=yyyyyyyyyyyyyyyyyyyyy q2 id=3; PUBREL 3
             s< PUBLISH t abc q1 id=1; PUBLISH t size=200; PUBLISH t d q1 id=2
             p< PUBACK 1; PINGRESP; PUBREC 3; PUBCOMP 3",
        );
    }
}

#[test]
fn a_slow_reader_loses_qos_0_only_and_is_closed_when_it_stalls() {
    let config = Config { output_soft_bytes: 3000, output_hard_bytes: 10_000, ..quiet() };
    let mut rig = Rig::new(1, 0, config);
    rig.run("s> CONNECT s clean; SUBSCRIBE id=1 t:1 o\n s< CONNACK 0; SUBACK 1 1 0\n p> CONNECT p clean\n p< CONNACK 0");
    rig.pipe("s").takes = Some(100);
    for _ in 0..10 {
        rig.run("p> PUBLISH t size=1000");
    }
    rig.run("p> PUBLISH t kept q1 id=1\n p< PUBACK 1");
    assert!(rig.sum(|c| c.publish_dropped) >= 6);
    rig.run("+20s");
    rig.take_more("s", Some(10));
    rig.run("+29s");
    assert!(rig.pipe("s").open);
    rig.take_more("s", None);
    let news = rig.news("s");
    assert!(news.ends_with("PUBLISH t kept q1 id=1"), "{news}");
    rig.pipe("s").takes = Some(0);
    rig.run("p> PUBLISH t x\n +29s");
    assert!(rig.pipe("s").open);
    rig.run("+2s\n s< CLOSED");
    rig.run("p> PINGREQ\n p< PINGRESP");
}

#[test]
fn a_client_that_does_not_read_answers_is_not_read() {
    let config = Config { output_soft_bytes: 100, output_hard_bytes: 200, max_packet_size: 100, ..quiet() };
    let mut rig = Rig::new(1, 0, config);
    rig.run("a> CONNECT a clean\n a< CONNACK 0");
    rig.pipe("a").takes = Some(0);
    rig.run("a> PINGREQ");
    rig.send("a", &"PINGREQ; ".repeat(1000));
    rig.settle();
    assert!(rig.pipe("a").paused && rig.pipe("a").up.len() > 1000);
    rig.take_more("a", None);
    rig.settle();
    assert_eq!(rig.pipe("a").news.len(), 1001);
    rig.pipe("a").news.clear();
}

#[test]
fn what_the_program_around_it_publishes_is_delivered() {
    use hikyaku_proto::broker::Input;
    use hikyaku_proto::codec::QoS;
    use hikyaku_proto::message::Message;
    let mut rig = one();
    rig.run("s> CONNECT s clean; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1");
    let message = Message::new("t", b"hello", QoS::ExactlyOnce, true);
    rig.shards[0].handle(rig.now, Input::Publish { message });
    rig.run("s> SUBSCRIBE id=2 t\n s< PUBLISH t hello q1 id=1; SUBACK 2 0; PUBLISH t hello r");
}

#[test]
fn a_takeover_in_the_middle_of_things() {
    for seed in 1..100 {
        let mut rig = Rig::new(1, seed, quiet());
        rig.run("s> CONNECT s v5 expiry=50 rm=1; SUBSCRIBE id=1 t:2\n s< CONNACK 0; SUBACK 1 2\n p> CONNECT p clean\n p< CONNACK 0");
        rig.pipe("s").cuts = true;
        rig.pipe("s").answers = true;
        for n in 0..20 {
            rig.send("p", &format!("PUBLISH t {n} q2 id={}", n + 1));
            for _ in 0..rig.random.below(6) {
                rig.step();
            }
            if n % 5 == 4 {
                let name = if n % 2 == 0 { "s" } else { "r" };
                // The other name takes the session over.
                if rig.names.get(name).is_none_or(|&at| !rig.pipes[at].open) {
                    rig.send(name, "CONNECT s v5 expiry=50 rm=2");
                    rig.pipe(name).answers = true;
                }
            }
        }
        rig.settle();
        let mut seen: Vec<(usize, u32)> = Vec::new();
        for (at, pipe) in rig.pipes.iter().enumerate().filter(|(_, p)| p.answers) {
            for line in pipe.log.iter().filter(|l| l.starts_with("PUBLISH") && !l.contains(" dup")) {
                seen.push((at, line.split(' ').nth(2).unwrap().parse().unwrap()));
            }
        }
        seen.sort_by_key(|s| s.1);
        let values: Vec<u32> = seen.iter().map(|s| s.1).collect();
        assert_eq!(values, (0..20).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_session_that_is_wiped_leaves_no_moment_far_away() {
    let mut rig = one();
    for _ in 0..3 {
        rig.run(
            "a> CONNECT a v5 expiry=8640000
             a< CONNACK 0
             a!
             a> CONNECT a v5 clean
             a< CONNACK 0
             a!",
        );
    }
    assert!(rig.awaits_time());
    rig.run("+300s");
    assert!(!rig.awaits_time());
}
