//! MQTT 3.1.1, 3.3 to 3.14: PUBLISH, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT.

use crate::common::script::{Script, messages};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use hikyaku_proto::broker::{Config, Listener};
use hikyaku_proto::client::{PublishRequest, SendError};
use hikyaku_proto::codec::ReasonCode;
use std::sync::Arc;

/// This packet of a connected client ends its connection, and no other's.
fn closes(packet: &str) {
    one().run(&format!(
        "b> CONNECT b clean\n b< CONNACK 0\n a> CONNECT a clean; {packet}; PINGREQ\n a< CONNACK 0; CLOSED
         b> PINGREQ\n b< PINGRESP"
    ));
}

#[test]
fn mqtt3_3_3_1_1_what_is_delivered_again_has_dup() {
    one().run(
        "s> CONNECT s; SUBSCRIBE id=1 t:2\n s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean; PUBLISH t x q1 id=1; PUBLISH t y q2 id=2\n p< CONNACK 0; PUBACK 1; PUBREC 2
         s< PUBLISH t x q1 id=1; PUBLISH t y q2 id=2
         s!
         s> CONNECT s\n s< CONNACK 0 present; PUBLISH t x q1 id=1 dup; PUBLISH t y q2 id=2 dup",
    );
    let mut script = Script::v4();
    script.publish(1, "t").unwrap();
    assert_eq!(script.sent()[0], 0x32);
    script.reconnect(b"\x20\x02\x01\0");
    assert_eq!(script.sent()[0], 0x3a);
}

#[test]
fn mqtt3_3_3_1_2_qos_0_never_has_dup() {
    closes("RAW 38 03 00 01 74");
    let mut script = Script::v4();
    script.receive(b"\x38\x03\0\x01t");
    script.assert_failed(ReasonCode::MalformedPacket);
    let mut script = Script::v4();
    script.publish(0, "t").unwrap();
    assert_eq!(script.sent()[0], 0x30);
}

#[test]
fn mqtt3_3_3_1_3_dup_of_what_came_in_is_not_passed_on() {
    one().run(
        "s> CONNECT s clean; SUBSCRIBE id=1 t:2\n s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean; PUBLISH t x q1 id=1 dup; PUBLISH t y q2 id=2 dup\n p< CONNACK 0; PUBACK 1; PUBREC 2
         s< PUBLISH t x q1 id=1; PUBLISH t y q2 id=2",
    );
}

#[test]
fn mqtt3_3_3_1_4_qos_3_closes() {
    closes("RAW 36 05 00 01 74 00 01");
    let mut script = Script::v4();
    script.receive(b"\x36\x05\0\x01t\0\x01");
    script.assert_failed(ReasonCode::MalformedPacket);
}

#[test]
fn mqtt3_3_3_1_5_a_retained_message_is_stored_with_its_qos() {
    one().run(
        "p> CONNECT p clean; PUBLISH t/0 a r; PUBLISH t/1 b q1 id=1 r; PUBLISH t/2 c q2 id=2 r
         p< CONNACK 0; PUBACK 1; PUBREC 2
         s> CONNECT s clean; SUBSCRIBE id=1 t/0:2; SUBSCRIBE id=2 t/1:2; SUBSCRIBE id=3 t/2:2
         s< CONNACK 0; SUBACK 1 2; PUBLISH t/0 a r; SUBACK 2 2; PUBLISH t/1 b q1 id=1 r; SUBACK 3 2; PUBLISH t/2 c q2 id=2 r",
    );
}

#[test]
fn mqtt3_3_3_1_6_a_new_subscription_gets_the_last_retained_messages() {
    one().run(
        "p> CONNECT p clean; PUBLISH t/a old r; PUBLISH t/a new r; PUBLISH t/b other r; PUBLISH u no r\n p< CONNACK 0
         s> CONNECT s clean; SUBSCRIBE id=1 t/a; SUBSCRIBE id=2 t/+; SUBSCRIBE id=3 none
         s< CONNACK 0; SUBACK 1 0; PUBLISH t/a new r; SUBACK 2 0; PUBLISH t/a new r; PUBLISH t/b other r; SUBACK 3 0",
    );
}

#[test]
fn mqtt3_3_3_1_7_a_retained_qos_0_message_takes_the_place_of_the_last() {
    one().run(
        "p> CONNECT p clean; PUBLISH t old q2 id=1 r; PUBLISH t new r\n p< CONNACK 0; PUBREC 1
         s> CONNECT s clean; SUBSCRIBE id=1 t:2\n s< CONNACK 0; SUBACK 1 2; PUBLISH t new r",
    );
}

#[test]
fn mqtt3_3_3_1_8_retain_is_set_on_what_a_new_subscription_brings() {
    one().run(
        "p> CONNECT p clean; PUBLISH t x r\n p< CONNACK 0
         s> CONNECT s clean; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0; PUBLISH t x r",
    );
}

#[test]
fn mqtt3_3_3_1_9_retain_is_0_on_what_an_established_subscription_brings() {
    one().run(
        "s> CONNECT s clean; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean; PUBLISH t x r; PUBLISH t y q1 id=1 r\n p< CONNACK 0; PUBACK 1
         s< PUBLISH t x; PUBLISH t y q1 id=1",
    );
}

#[test]
fn mqtt3_3_3_1_10_an_empty_retained_message_removes_the_stored_one() {
    one().run(
        "p> CONNECT p clean; PUBLISH t x r; PUBLISH u x r; PUBLISH t r\n p< CONNACK 0
         s> CONNECT s clean; SUBSCRIBE id=1 #\n s< CONNACK 0; SUBACK 1 0; PUBLISH u x r",
    );
}

#[test]
fn mqtt3_3_3_1_11_an_empty_retained_message_is_delivered_and_not_stored() {
    let mut rig = one();
    rig.run(
        "s> CONNECT s clean; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean; PUBLISH t r\n p< CONNACK 0
         s< PUBLISH t
         l> CONNECT l clean; SUBSCRIBE id=1 t\n l< CONNACK 0; SUBACK 1 0",
    );
    assert_eq!(rig.sum(|c| c.retained), 0);
}

#[test]
fn mqtt3_3_3_1_12_without_retain_nothing_is_stored_or_replaced() {
    one().run(
        "p> CONNECT p clean; PUBLISH t kept r; PUBLISH t passing; PUBLISH t; PUBLISH u passing q1 id=1
         p< CONNACK 0; PUBACK 1
         s> CONNECT s clean; SUBSCRIBE id=1 #\n s< CONNACK 0; SUBACK 1 0; PUBLISH t kept r",
    );
}

#[test]
fn mqtt3_3_3_2_1_the_topic_comes_first_and_is_utf8() {
    closes("RAW 30 00");
    closes("RAW 30 01 00");
    closes("RAW 30 03 00 02 74");
    closes("RAW 30 04 00 02 c3 28");
    let mut script = Script::v4();
    script.receive(b"\x30\x04\0\x02\xc3\x28");
    script.assert_failed(ReasonCode::MalformedPacket);
}

#[test]
fn mqtt3_3_3_2_2_a_topic_with_wildcards_closes() {
    for topic in ["#", "a/+", "a/#", "a+b", "a#"] {
        closes(&format!("PUBLISH {topic} x"));
        let mut script = Script::v4();
        let refused = script.publish(0, topic);
        assert!(matches!(refused, Err(SendError::InvalidTopic(_))), "{topic}: {refused:?}");
    }
}

#[test]
fn mqtt3_3_3_2_3_only_what_matches_is_delivered() {
    let cases = [
        ("a/b", "a/b", true),
        ("a/b", "a/B", false),
        ("a/b", "a/b/c", false),
        ("a/+", "a/b", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("a/+", "a/b/c", false),
        ("+/b", "/b", true),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("#", "a/b/c", true),
        ("/a", "a", false),
    ];
    for (filter, topic, matches) in cases {
        let seen = if matches { format!("PUBLISH {topic} x; ") } else { String::new() };
        one().run(&format!(
            "a> CONNECT a clean; SUBSCRIBE id=1 {filter}; PUBLISH {topic} x; PINGREQ
             a< CONNACK 0; SUBACK 1 0; {seen}PINGRESP"
        ));
    }
}

#[test]
fn mqtt3_3_3_4_1_a_publish_is_answered_by_its_qos() {
    one().run(
        "a> CONNECT a clean; PUBLISH t x; PUBLISH t x q1 id=1; PUBLISH t x q2 id=2
         a< CONNACK 0; PUBACK 1; PUBREC 2
         a> PUBREL 2
         a< PUBCOMP 2",
    );
    let mut script = Script::v4();
    script.receive(b"\x30\x03\0\x01t\x32\x05\0\x01t\0\x01\x34\x05\0\x01t\0\x02");
    assert_eq!(script.sent(), b"\x40\x02\0\x01\x50\x02\0\x02");
    script.receive(b"\x62\x02\0\x02");
    assert_eq!(script.sent(), b"\x70\x02\0\x02");
}

#[test]
fn mqtt3_3_3_5_1_overlapping_subscriptions_deliver_at_the_highest_qos() {
    one().run(
        "s> CONNECT s clean; SUBSCRIBE id=1 t/#:0 t/+:2 t/a:1\n s< CONNACK 0; SUBACK 1 0 2 1
         p> CONNECT p clean; PUBLISH t/a x q2 id=1; PUBLISH t/a/b y q2 id=2\n p< CONNACK 0; PUBREC 1; PUBREC 2
         s< PUBLISH t/a x q2 id=1; PUBLISH t/a/b y",
    );
}

/// Nobody may publish to or read `secret`.
fn guarded() -> Config {
    let rule = |access, filter: &str| Rule { who: Who::Anonymous, access, filter: filter.into(), line: 1 };
    let rules = [rule(Access::Deny, "secret/#"), rule(Access::ReadWrite, "#")];
    let rights = Arc::new(Rights::Rules(Rules::new(None, rules)));
    Config { listeners: vec![Listener { rights, ..Listener::default() }], ..quiet() }
}

#[test]
fn mqtt3_3_3_5_2_a_publish_without_right_is_acknowledged_and_dropped() {
    Rig::new(1, 0, guarded()).run(
        "s> CONNECT s clean; SUBSCRIBE id=1 #:2\n s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean; PUBLISH secret/a x q1 id=1; PUBLISH secret/a x q2 id=2; PUBLISH open y\n p< CONNACK 0; PUBACK 1; PUBREC 2
         s< PUBLISH open y",
    );
}

#[test]
fn mqtt3_3_6_1_1_pubrel_with_other_flags_closes() {
    for first in ["60", "61", "63", "64", "6a"] {
        closes(&format!("RAW {first} 02 00 01"));
    }
    let mut script = Script::v4();
    script.receive(b"\x60\x02\0\x01");
    script.assert_failed(ReasonCode::MalformedPacket);
}

#[test]
fn mqtt3_3_8_1_1_subscribe_with_other_flags_closes() {
    for first in ["80", "81", "83", "8a"] {
        closes(&format!("RAW {first} 06 00 01 00 01 74 00"));
    }
}

#[test]
fn mqtt3_3_8_3_1_a_filter_that_is_not_utf8_closes() {
    closes("RAW 82 07 00 01 00 02 c3 28 00");
}

#[test]
fn mqtt3_3_8_3_2_wildcards_are_supported() {
    one().run(
        "a> CONNECT a clean; SUBSCRIBE id=1 +/b #\n a< CONNACK 0; SUBACK 1 0 0
         a> PUBLISH a/b x\n a< PUBLISH a/b x",
    );
}

#[test]
fn mqtt3_3_8_3_3_subscribe_without_a_filter_closes() {
    closes("RAW 82 02 00 01");
    closes("RAW 82 05 00 01 00 01 74");
    let mut script = Script::v4();
    let now = script.now;
    assert!(script.client.subscribe(now, &[], Default::default()).is_err());
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt3_3_8_3_4_reserved_bits_or_qos_3_in_subscribe_close() {
    for options in ["03", "04", "08", "10", "40", "80", "fd"] {
        closes(&format!("RAW 82 06 00 01 00 01 74 {options}"));
        closes(&format!("RAW 82 0a 00 01 00 01 75 00 00 01 74 {options}"));
    }
}

#[test]
fn mqtt3_3_8_4_1_subscribe_is_answered_by_suback() {
    Rig::new(1, 0, guarded()).run(
        "a> CONNECT a clean; SUBSCRIBE id=1 t:1; SUBSCRIBE id=2 secret/a; SUBSCRIBE id=3 a/#/b\n a< CONNACK 0; SUBACK 1 1; SUBACK 2 0x80; CLOSED",
    );
}

#[test]
fn mqtt3_3_8_4_2_suback_has_the_identifier_of_subscribe() {
    one().run("a> CONNECT a clean; SUBSCRIBE id=0xabcd t\n a< CONNACK 0; SUBACK 43981 0");
}

#[test]
fn mqtt3_3_8_4_3_the_same_filter_replaces_the_subscription() {
    one().run(
        "p> CONNECT p clean; PUBLISH t kept q1 id=1 r\n p< CONNACK 0; PUBACK 1
         s> CONNECT s clean; SUBSCRIBE id=1 t:0\n s< CONNACK 0; SUBACK 1 0; PUBLISH t kept r
         p> PUBLISH t a q1 id=2\n p< PUBACK 2
         s< PUBLISH t a
         s> SUBSCRIBE id=2 t:1\n s< SUBACK 2 1; PUBLISH t kept q1 id=1 r
         p> PUBLISH t b q1 id=3\n p< PUBACK 3
         s< PUBLISH t b q1 id=2
         s> UNSUBSCRIBE id=3 t\n s< UNSUBACK 3
         p> PUBLISH t c q1 id=4\n p< PUBACK 4",
    );
}

#[test]
fn mqtt3_3_8_4_4_many_filters_count_as_one_subscribe_each() {
    one().run(
        "p> CONNECT p clean; PUBLISH a 1 r; PUBLISH b 2 r\n p< CONNACK 0
         s> CONNECT s clean; SUBSCRIBE id=1 a:0 b:1 a:1\n s< CONNACK 0; SUBACK 1 0 1 1; PUBLISH a 1 r; PUBLISH b 2 r; PUBLISH a 1 r
         p> PUBLISH a 3 q1 id=1\n p< PUBACK 1
         s< PUBLISH a 3 q1 id=1",
    );
}

#[test]
fn mqtt3_3_8_4_5_suback_has_a_code_for_each_filter() {
    Rig::new(1, 0, guarded())
        .run("a> CONNECT a clean; SUBSCRIBE id=1 a:2 secret/x:1 b:0\n a< CONNACK 0; SUBACK 1 2 0x80 0");
}

#[test]
fn mqtt3_3_8_4_6_a_message_has_the_lower_qos_of_publisher_and_subscription() {
    for published in 0..3 {
        for granted in 0..3 {
            let (p, ack) = match published {
                0 => ("", ""),
                1 => (" q1 id=9", "; PUBACK 9"),
                _ => (" q2 id=9", "; PUBREC 9"),
            };
            let s = match published.min(granted) {
                0 => String::new(),
                qos => format!(" q{qos} id=1"),
            };
            one().run(&format!(
                "s> CONNECT s clean; SUBSCRIBE id=1 t:{granted}\n s< CONNACK 0; SUBACK 1 {granted}
                 p> CONNECT p clean; PUBLISH t x{p}\n p< CONNACK 0{ack}
                 s< PUBLISH t x{s}"
            ));
        }
    }
}

#[test]
fn mqtt3_3_9_3_1_codes_stand_in_the_order_of_the_filters() {
    one().run("a> CONNECT a clean; SUBSCRIBE id=1 z:2 a:0 m:1 b:2\n a< CONNACK 0; SUBACK 1 2 0 1 2");
}

#[test]
fn mqtt3_3_9_3_2_only_codes_0_1_2_and_0x80_are_sent() {
    let config = Config { max_subscriptions: 3, ..guarded() };
    Rig::new(1, 0, config).run(
        "a> CONNECT a clean; SUBSCRIBE id=1 a:0 b:1 c:2 d:0 secret/x:0 $share/g/x:1
         a< CONNACK 0; SUBACK 1 0 1 2 0x80 0x80 0x80",
    );
    let mut script = Script::v4();
    let now = script.now;
    script.client.subscribe(now, &[("t", Default::default())], Default::default()).unwrap();
    script.receive(b"\x90\x03\0\x01\x03");
    script.assert_failed(ReasonCode::MalformedPacket);
}

#[test]
fn mqtt3_3_10_1_1_unsubscribe_with_other_flags_closes() {
    for first in ["a0", "a1", "a3", "aa"] {
        closes(&format!("RAW {first} 05 00 01 00 01 74"));
    }
}

#[test]
fn mqtt3_3_10_3_1_a_filter_of_unsubscribe_that_is_not_utf8_closes() {
    closes("RAW a2 06 00 01 00 02 c3 28");
}

#[test]
fn mqtt3_3_10_3_2_unsubscribe_without_a_filter_closes() {
    closes("RAW a2 02 00 01");
    let mut script = Script::v4();
    let now = script.now;
    assert!(script.client.unsubscribe(now, &[], Default::default()).is_err());
}

#[test]
fn mqtt3_3_10_4_1_filters_are_compared_character_by_character() {
    one().run(
        "a> CONNECT a clean; SUBSCRIBE id=1 t/a T/a t/+; UNSUBSCRIBE id=2 t/A t/# #; UNSUBSCRIBE id=3 t/+
         a< CONNACK 0; SUBACK 1 0 0 0; UNSUBACK 2; UNSUBACK 3
         a> PUBLISH t/a x; PUBLISH T/a y; PUBLISH t/b z\n a< PUBLISH t/a x; PUBLISH T/a y",
    );
}

#[test]
fn mqtt3_3_10_4_2_nothing_new_comes_after_unsubscribe() {
    one().run(
        "p> CONNECT p clean\n p< CONNACK 0
         a> CONNECT a clean; SUBSCRIBE id=1 t:1; UNSUBSCRIBE id=2 t\n a< CONNACK 0; SUBACK 1 1; UNSUBACK 2
         p> PUBLISH t x q1 id=1; PUBLISH t y\n p< PUBACK 1",
    );
}

#[test]
fn mqtt3_3_10_4_3_what_is_under_way_is_completed_after_unsubscribe() {
    one().run(
        "p> CONNECT p clean\n p< CONNACK 0
         a> CONNECT a; SUBSCRIBE id=1 t:2\n a< CONNACK 0; SUBACK 1 2
         p> PUBLISH t x q1 id=1; PUBLISH t y q2 id=2\n p< PUBACK 1; PUBREC 2
         a< PUBLISH t x q1 id=1; PUBLISH t y q2 id=2
         a> UNSUBSCRIBE id=2 t\n a< UNSUBACK 2
         a!
         a> CONNECT a\n a< CONNACK 0 present; PUBLISH t x q1 id=1 dup; PUBLISH t y q2 id=2 dup
         a> PUBACK 1; PUBREC 2\n a< PUBREL 2
         a> PUBCOMP 2",
    );
}

#[test]
fn mqtt3_3_10_4_4_unsuback_has_the_identifier_of_unsubscribe() {
    let mut rig = one();
    rig.run("a> CONNECT a clean; SUBSCRIBE id=1 t; UNSUBSCRIBE id=0xabcd t\n a< CONNACK 0; SUBACK 1 0; UNSUBACK 43981");
    assert!(rig.pipe("a").down.ends_with(&[0xb0, 2, 0xab, 0xcd]), "without a payload");
}

#[test]
fn mqtt3_3_10_4_5_unsuback_comes_also_when_nothing_matched() {
    one().run("a> CONNECT a clean; UNSUBSCRIBE id=7 never\n a< CONNACK 0; UNSUBACK 7");
}

#[test]
fn mqtt3_3_10_4_6_many_filters_get_one_unsuback() {
    one().run(
        "a> CONNECT a clean; SUBSCRIBE id=1 a b c; UNSUBSCRIBE id=2 a x c\n a< CONNACK 0; SUBACK 1 0 0 0; UNSUBACK 2
         a> PUBLISH a 1; PUBLISH b 2; PUBLISH c 3\n a< PUBLISH b 2",
    );
}

#[test]
fn mqtt3_3_12_4_1_pingreq_is_answered_by_pingresp() {
    let mut rig = one();
    rig.run("a> CONNECT a clean; PINGREQ; PINGREQ\n a< CONNACK 0; PINGRESP; PINGRESP");
    assert!(rig.pipe("a").down.ends_with(&[0xd0, 0, 0xd0, 0]));
}

#[test]
fn mqtt3_3_14_1_1_disconnect_with_reserved_bits_closes_and_the_will_is_published() {
    one().run(
        "w> CONNECT w clean; SUBSCRIBE id=1 w\n w< CONNACK 0; SUBACK 1 0
         a> CONNECT a clean will=w,gone; RAW e1 00\n a< CONNACK 0; CLOSED
         w< PUBLISH w gone",
    );
}

#[test]
fn mqtt3_3_14_4_1_the_client_closes_after_disconnect() {
    let mut script = Script::v4();
    let now = script.now;
    script.client.disconnect(now, ReasonCode::Success, Default::default()).unwrap();
    assert_eq!(script.sent(), b"\xe0\0");
    assert!(script.client.wants_close());
}

#[test]
fn mqtt3_3_14_4_2_nothing_follows_disconnect() {
    let mut script = Script::v4();
    let now = script.now;
    script.client.disconnect(now, ReasonCode::Success, Default::default()).unwrap();
    let request = PublishRequest { topic: "t", ..Default::default() };
    assert_eq!(script.client.publish(now, &request), Err(SendError::NotConnected));
    script.receive(b"\x32\x05\0\x01t\0\x01");
    assert_eq!(script.sent(), b"\xe0\0");
    assert!(messages(script.events()).is_empty());
    one().run("a> CONNECT a clean; DISCONNECT; PUBLISH t x q1 id=1\n a< CONNACK 0; CLOSED");
}

#[test]
fn mqtt3_3_14_4_3_disconnect_discards_the_will() {
    one().run(
        "w> CONNECT w clean; SUBSCRIBE id=1 w\n w< CONNACK 0; SUBACK 1 0
         a> CONNECT a will=w,gone; DISCONNECT\n a< CONNACK 0; CLOSED
         a> CONNECT a\n a< CONNACK 0 present
         a!",
    );
}
