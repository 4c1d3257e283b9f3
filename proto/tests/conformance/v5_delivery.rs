//! MQTT 5.0, 4.4 to 4.6 and 4.9: delivery again, receipt, order, flow control.

use crate::common::script::{Script, messages, options, published};
use crate::common::{Rig, one, quiet};
use crate::v5_acks::AWAY;
use crate::v5_qos::RESUMED;
use hikyaku_proto::broker::Config;
use hikyaku_proto::client::{Acknowledge, Options};
use hikyaku_proto::codec::{Properties, ReasonCode, SubscribeOptions, Version};

/// The client, its messages acknowledged by hand.
fn manual() -> Script {
    let options = Options { acknowledge: Acknowledge::Manually, ..options(Version::V5) };
    Script::connected(options, b"\x20\x03\0\0\0")
}

/// Receives messages and acknowledges them in the opposite order.
fn acknowledge_backwards(script: &mut Script, bytes: &[u8]) {
    script.receive(bytes);
    for message in messages(script.events()).iter().rev() {
        script.client.acknowledge(script.now, message.token.unwrap());
    }
}

#[test]
fn mqtt5_4_4_0_1_what_is_unacknowledged_is_sent_again_on_resume_and_at_no_other_time() {
    one().run(
        "a> CONNECT a v5 expiry=10000000; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=1; PUBLISH t 2 q1 id=2; PUBLISH t 3 q2 id=3; PUBLISH t 4 q1 id=4; PUBLISH t 5
         p< CONNACK 0; PUBREC 1; PUBACK 2; PUBREC 3; PUBACK 4
         a< PUBLISH t 1 q2 id=1; PUBLISH t 2 q1 id=2; PUBLISH t 3 q2 id=3; PUBLISH t 4 q1 id=4; PUBLISH t 5
         a> PUBREC 1; PUBACK 4; SUBSCRIBE id=2 t:2; PINGREQ
         a< PUBREL 1; SUBACK 2 2; PINGRESP
         +1000000s
         a<
         a!
         a> CONNECT a v5 expiry=10000000
         a< CONNACK 0 present; PUBREL 1; PUBLISH t 2 q1 id=2 dup; PUBLISH t 3 q2 id=3 dup
         b> CONNECT a v5 expiry=10000000
         a< DISCONNECT 0x8e; CLOSED
         b< CONNACK 0 present; PUBREL 1; PUBLISH t 2 q1 id=2 dup; PUBLISH t 3 q2 id=3 dup
         b!
         a> CONNECT a clean v5
         a< CONNACK 0",
    );
    let mut script = Script::v5();
    script.publish(1, "a").unwrap();
    script.publish(2, "b").unwrap();
    script.publish(2, "c").unwrap();
    script.receive(b"\x50\x02\0\x02");
    script.sent();
    script.wait(55);
    script.receive(b"\xd0\0\x32\x06\0\x01a\0\x07\0");
    assert_eq!(script.sent(), b"\x40\x02\0\x07");
    script.reconnect(RESUMED);
    assert_eq!(script.sent(), b"\x3a\x07\0\x01a\0\x01\0x\x62\x02\0\x02\x3c\x07\0\x01c\0\x03\0x");
}

#[test]
fn mqtt5_4_4_0_2_what_was_refused_is_not_sent_again() {
    one().run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q1 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q1 id=3
         p< CONNACK 0; PUBACK 1; PUBREC 2; PUBACK 3
         a< PUBLISH t 1 q1 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q1 id=3
         a> PUBACK 1 0x83; PUBREC 2 0x97
         a!
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBLISH t 3 q1 id=3 dup",
    );
    let mut script = Script::v5();
    let one = script.publish(1, "t").unwrap();
    let two = script.publish(2, "t").unwrap();
    script.receive(b"\x40\x03\0\x01\x87\x50\x03\0\x02\x97");
    let expected = [(one, ReasonCode::NotAuthorized), (two, ReasonCode::QuotaExceeded)];
    assert_eq!(published(&script.events()), expected);
    script.reconnect(RESUMED);
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_4_5_0_1_a_message_is_kept_for_each_session_with_a_matching_subscription() {
    for shards in [1, 3] {
        Rig::new(shards, 0, quiet()).run(
            "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t/1:2 t/+:1
             a< CONNACK 0; SUBACK 1 2 1
             b> CONNECT b v5 expiry=100; SUBSCRIBE id=1 #:1
             b< CONNACK 0; SUBACK 1 1
             c> CONNECT c v5 expiry=100; SUBSCRIBE id=1 $share/g/t/#:2
             c< CONNACK 0; SUBACK 1 2
             d> CONNECT d v5 expiry=100; SUBSCRIBE id=1 t/2:2
             d< CONNACK 0; SUBACK 1 2
             a!
             b!
             c!
             d!
             p> CONNECT p v5; PUBLISH t/1 x q2 id=1
             p< CONNACK 0; PUBREC 1
             p!
             +99s
             a> CONNECT a v5 expiry=100
             a< CONNACK 0 present; PUBLISH t/1 x q2 id=1
             b> CONNECT b v5 expiry=100
             b< CONNACK 0 present; PUBLISH t/1 x q1 id=1
             c> CONNECT c v5 expiry=100
             c< CONNACK 0 present; PUBLISH t/1 x q2 id=1
             d> CONNECT d v5 expiry=100
             d< CONNACK 0 present",
        );
    }
}

#[test]
fn mqtt5_4_5_0_2_the_client_acknowledges_whatever_comes() {
    // Messages that it never asked for and the application never looks at.
    let mut script = Script::v5();
    for _ in 0..3000 {
        script.receive(b"\x32\x06\0\x01a\0\x07\0\x34\x06\0\x01b\0\x08\0\x62\x02\0\x08");
        assert_eq!(script.sent(), b"\x40\x02\0\x07\x50\x02\0\x08\x70\x02\0\x08");
    }
    // And so after messages of a lost session.
    script.receive(b"\x34\x06\0\x01b\0\x09\0");
    script.reconnect(b"\x20\x03\0\0\0");
    script.receive(b"\x34\x06\0\x01b\0\x09\0\x32\x06\0\x01a\0\x07\0");
    assert_eq!(script.sent(), b"\x50\x02\0\x09\x40\x02\0\x07");
}

#[test]
fn mqtt5_4_6_0_1_messages_are_sent_again_in_their_first_order() {
    let mut script = Script::v5();
    for topic in ["a", "b", "c", "d"] {
        script.publish(1, topic).unwrap();
        script.publish(2, topic).unwrap();
    }
    script.receive(b"\x40\x02\0\x05\x50\x02\0\x02\x70\x02\0\x02\x40\x02\0\x03\x50\x02\0\x04");
    let rest = b"\x3a\x07\0\x01a\0\x01\0x\x62\x02\0\x04\x3c\x07\0\x01c\0\x06\0x\x3a\x07\0\x01d\0\x07\0x\x3c\x07\0\x01d\0\x08\0x";
    for _ in 0..2 {
        script.reconnect(RESUMED);
        assert_eq!(script.sent(), rest);
    }
    // A smaller Receive Maximum changes when they are sent, not the order.
    script.reconnect(b"\x20\x06\x01\0\x03\x21\0\x01");
    for answer in [&b"\x40\x02\0\x01"[..], b"\x70\x02\0\x04", b"\x50\x03\0\x06\x80", b"\x40\x02\0\x07"] {
        script.receive(answer);
    }
    assert_eq!(script.sent(), rest);
    // The broker does the same.
    one().run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 #:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH b 1 q1 id=1; PUBLISH a 2 q2 id=2; PUBLISH b 3 q2 id=3; PUBLISH a 4 q1 id=4
         p< CONNACK 0; PUBACK 1; PUBREC 2; PUBREC 3; PUBACK 4
         a< PUBLISH b 1 q1 id=1; PUBLISH a 2 q2 id=2; PUBLISH b 3 q2 id=3; PUBLISH a 4 q1 id=4
         a!
         p> PUBLISH a 5 q1 id=5
         p< PUBACK 5
         a> CONNECT a v5 expiry=100 rm=3
         a< CONNACK 0 present; PUBLISH b 1 q1 id=1 dup; PUBLISH a 2 q2 id=2 dup; PUBLISH b 3 q2 id=3 dup
         a> PUBREC 3 0x80; PUBACK 1
         a< PUBLISH a 4 q1 id=4 dup; PUBLISH a 5 q1 id=5",
    );
}

#[test]
fn mqtt5_4_6_0_2_pubacks_leave_in_the_order_of_their_messages() {
    let mut script = manual();
    acknowledge_backwards(
        &mut script,
        b"\x32\x06\0\x01a\0\x09\0\x32\x06\0\x01b\0\x03\0\x32\x06\0\x01a\0\x05\0",
    );
    assert_eq!(script.sent(), b"\x40\x02\0\x09\x40\x02\0\x03\x40\x02\0\x05");
    in_order_from_the_broker(|n| format!("q1 id={n}"), |n| format!("PUBACK {n}"));
}

#[test]
fn mqtt5_4_6_0_3_pubrecs_leave_in_the_order_of_their_messages() {
    let mut script = manual();
    acknowledge_backwards(
        &mut script,
        b"\x34\x06\0\x01a\0\x09\0\x34\x06\0\x01b\0\x03\0\x34\x06\0\x01a\0\x05\0",
    );
    assert_eq!(script.sent(), b"\x50\x02\0\x09\x50\x02\0\x03\x50\x02\0\x05");
    in_order_from_the_broker(|n| format!("q2 id={n}"), |n| format!("PUBREC {n}"));
}

/// Several shards confirm messages at different times; the acknowledgements keep their order.
fn in_order_from_the_broker(publish: fn(u16) -> String, answer: fn(u16) -> String) {
    for seed in 1..100 {
        let mut rig = Rig::new(4, seed, quiet());
        rig.run("a> CONNECT a clean; SUBSCRIBE id=1 x/+\n a< CONNACK 0; SUBACK 1 0");
        rig.run("b> CONNECT b clean; SUBSCRIBE id=1 y/+\n b< CONNACK 0; SUBACK 1 0\n p> CONNECT p v5\n p< CONNACK 0");
        let ids = || (1..20).rev();
        let topic = |n| ["x/1 -", "y/1 -", "z/1 -", "z/2 - r"][usize::from(n) % 4];
        for n in ids() {
            rig.send("p", &format!("PUBLISH {} {}", topic(n), publish(n)));
            for _ in 0..rig.random.below(3) {
                rig.step();
            }
        }
        let expected: Vec<_> = ids().map(answer).collect();
        let news = rig.news("p").replace(" 0x10", "");
        assert_eq!(news, expected.join("; "), "seed {seed}");
    }
}

#[test]
fn mqtt5_4_6_0_4_pubrels_leave_in_the_order_of_the_pubrecs() {
    let mut script = Script::v5();
    (0..3).for_each(|_| assert!(script.publish(2, "t").is_ok()));
    script.sent();
    script.receive(b"\x50\x02\0\x02\x50\x02\0\x03\x50\x02\0\x01");
    assert_eq!(script.sent(), b"\x62\x02\0\x02\x62\x02\0\x03\x62\x02\0\x01");
    one().run(
        "a> CONNECT a v5; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q2 id=3
         p< CONNACK 0; PUBREC 1; PUBREC 2; PUBREC 3
         a< PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q2 id=3
         a> PUBREC 3; PUBREC 1; PUBREC 2
         a< PUBREL 3; PUBREL 1; PUBREL 2",
    );
}

/// What `name` got with this topic and QoS, in order.
fn got(rig: &mut Rig, name: &str, topic: &str, qos: &str) -> Vec<u32> {
    let log = &rig.pipe(name).log;
    let of = |line: &String| {
        let words: Vec<_> = line.split(' ').collect();
        let level = words.iter().copied().find(|w| w.starts_with('q')).unwrap_or_default();
        (words[0] == "PUBLISH" && words[1] == topic && level == qos).then(|| words[2].parse().unwrap())
    };
    log.iter().filter_map(of).collect()
}

#[test]
fn mqtt5_4_6_0_5_messages_of_a_client_with_one_topic_and_qos_keep_their_order() {
    for seed in 1..60 {
        let mut rig = Rig::new(3, seed, quiet());
        for name in ["a", "b", "c"] {
            rig.run(&format!(
                "{name}> CONNECT {name} v5 rm=3; SUBSCRIBE id=1 t:2\n {name}< CONNACK 0; SUBACK 1 2"
            ));
            rig.pipe(name).answers = true;
            rig.pipe(name).cuts = true;
        }
        for name in ["p", "q"] {
            rig.run(&format!("{name}> CONNECT {name} v5\n {name}< CONNACK 0"));
            rig.pipe(name).answers = true;
        }
        for n in 0..15 {
            for (at, name) in ["p", "q"].into_iter().enumerate() {
                for qos in ["q0", "q1", "q2"] {
                    let id = if qos == "q0" { 0 } else { 1 + n % 5 + 5 * u32::from(qos == "q2") };
                    // A new message with this id only after the last one is done.
                    while rig.step_pipe(name) {}
                    rig.send(name, &format!("PUBLISH t {} {qos} id={id}", 100 * at as u32 + n));
                    for _ in 0..rig.random.below(8) {
                        rig.step();
                    }
                }
                rig.settle();
            }
        }
        for name in ["a", "b", "c"] {
            rig.news(name);
            for qos in ["", "q1", "q2"] {
                for of in [0, 100] {
                    let mut all = got(&mut rig, name, "t", qos);
                    all.retain(|n| n / 100 * 100 == of);
                    assert_eq!(all, (of..of + 15).collect::<Vec<_>>(), "{name} {qos} seed {seed}");
                }
            }
        }
    }
}

#[test]
fn mqtt5_4_6_0_6_every_topic_is_an_ordered_one() {
    // With whatever subscription that is not shared, and a session that is away now and then.
    for filter in ["t/1", "t/+", "#", "+/1"] {
        for seed in 0..20 {
            let mut rig = Rig::new(2, seed, quiet());
            rig.run(&format!(
                "a> CONNECT a v5 expiry=100 rm=2; SUBSCRIBE id=1 {filter}:1\n a< CONNACK 0; SUBACK 1 1"
            ));
            rig.run("p> CONNECT p v5\n p< CONNACK 0");
            rig.pipe("a").answers = true;
            let mut all = Vec::new();
            for n in 0..30 {
                rig.send("p", &format!("PUBLISH t/1 {n} q1 id=1"));
                if n % 7 == 3 {
                    rig.settle();
                    all.extend(got(&mut rig, "a", "t/1", "q1"));
                    rig.news("a");
                    rig.cut("a");
                } else if n % 7 == 5 {
                    rig.send("a", "CONNECT a v5 expiry=100 rm=2");
                    rig.pipe("a").answers = true;
                }
            }
            rig.settle();
            all.extend(got(&mut rig, "a", "t/1", "q1"));
            assert_eq!(all, (0..30).collect::<Vec<_>>(), "{filter} seed {seed}");
        }
    }
}

#[test]
fn mqtt5_4_9_0_1_the_send_quota_begins_at_no_more_than_receive_maximum_and_not_at_zero() {
    let publish = |n: u16| (1..=n).map(|id| format!("PUBLISH t x q1 id={id}; ")).collect::<String>();
    for (receive_maximum, own, sent) in
        [("rm=1", 20, 1), ("rm=3", 20, 3), ("rm=65535", 20, 20), ("", 20, 20), ("rm=9", 0, 1)]
    {
        let mut rig = Rig::new(1, 0, Config { max_inflight_messages: own, ..quiet() });
        rig.run(&format!("a> CONNECT a v5 {receive_maximum}; SUBSCRIBE id=1 t:2\n a< CONNACK 0; SUBACK 1 2"));
        rig.send("p", &format!("CONNECT p v5; {}", publish(30)));
        let news = rig.news("a");
        assert_eq!(news.matches("PUBLISH").count(), sent, "{receive_maximum}");
    }
    one().run("a> CONNECT a v5 rm=0\n a< CONNACK 0x82; CLOSED");
    for (connack, sent) in [
        (&b"\x20\x06\0\0\x03\x21\0\x02"[..], 2),
        (b"\x20\x03\0\0\0", 100),
        (b"\x20\x06\0\0\x03\x21\xff\xff", 100),
    ] {
        let mut script = Script::connected(options(Version::V5), connack);
        (0..200).for_each(|_| assert!(script.publish(1, "t").is_ok()));
        assert_eq!(script.sent().len(), sent * 9);
    }
    let mut script = Script::new(options(Version::V5));
    script.receive(b"\x20\x06\0\0\x03\x21\0\0");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn mqtt5_4_9_0_2_each_publish_with_qos_takes_from_the_quota_and_none_is_sent_beyond() {
    one().run(
        "a> CONNECT a v5 expiry=100 rm=2; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=1; PUBLISH t 2 q1 id=2; PUBLISH t 3 q2 id=3; PUBLISH t 4 q1 id=4; PUBLISH t 5
         p< CONNACK 0; PUBREC 1; PUBACK 2; PUBREC 3; PUBACK 4
         a< PUBLISH t 1 q2 id=1; PUBLISH t 2 q1 id=2; PUBLISH t 5
         a> PUBREC 1; PUBACK 9; PUBCOMP 9
         a< PUBREL 1
         a> PUBCOMP 1; PUBCOMP 1
         a< PUBLISH t 3 q2 id=3
         a> PUBREC 3 0x80
         a< PUBLISH t 4 q1 id=4",
    );
    let mut script = Script::connected(options(Version::V5), b"\x20\x06\0\0\x03\x21\0\x01");
    for topic in ["a", "b", "c"] {
        script.publish(2, topic).unwrap();
    }
    script.publish(0, "d").unwrap();
    assert_eq!(script.sent(), b"\x34\x07\0\x01a\0\x01\0x\x30\x05\0\x01d\0x");
    script.receive(b"\x50\x02\0\x01\x40\x02\0\x01\x70\x02\0\x09");
    assert_eq!(script.sent(), b"\x62\x02\0\x01");
    script.receive(b"\x70\x02\0\x01");
    assert_eq!(script.sent(), b"\x34\x07\0\x01b\0\x02\0x");
    script.receive(b"\x50\x03\0\x02\x97");
    assert_eq!(script.sent(), b"\x34\x07\0\x01c\0\x03\0x");
}

#[test]
fn mqtt5_4_9_0_3_with_a_quota_of_zero_all_other_packets_go_on() {
    one().run(AWAY).run(
        "a> CONNECT a v5 rm=1; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=1; PUBLISH t 2 q1 id=2
         p< CONNACK 0; PUBREC 1; PUBACK 2
         a< PUBLISH t 1 q2 id=1
         a> PINGREQ; SUBSCRIBE id=2 u; PUBLISH v x q1 id=1; PUBLISH v x q2 id=2; PUBREL 2; UNSUBSCRIBE id=3 u; PUBREC 1
         a< PINGRESP; SUBACK 2 0; PUBACK 1; PUBREC 2; PUBCOMP 2; UNSUBACK 3 0; PUBREL 1
         p> PUBLISH t 3
         a< PUBLISH t 3
         a> DISCONNECT
         a< CLOSED",
    );
    let mut script = Script::connected(options(Version::V5), b"\x20\x06\0\0\x03\x21\0\x01");
    script.publish(2, "a").unwrap();
    script.publish(2, "b").unwrap();
    script.sent();
    script.receive(b"\x32\x06\0\x01a\0\x01\0\x34\x06\0\x01a\0\x02\0\x62\x02\0\x02\x50\x02\0\x01");
    assert_eq!(script.sent(), b"\x40\x02\0\x01\x50\x02\0\x02\x70\x02\0\x02\x62\x02\0\x01");
    script.client.subscribe(script.now, &[("t", SubscribeOptions::default())], Properties::EMPTY).unwrap();
    script.client.unsubscribe(script.now, &["t"], Properties::EMPTY).unwrap();
    assert_eq!(script.sent(), b"\x82\x07\0\x02\0\0\x01t\0\xa2\x06\0\x03\0\0\x01t");
    script.wait(60);
    assert_eq!(script.sent(), b"\xc0\0");
    script.client.disconnect(script.now, ReasonCode::Success, Properties::EMPTY).unwrap();
    assert_eq!(script.sent(), b"\xe0\0");
}
