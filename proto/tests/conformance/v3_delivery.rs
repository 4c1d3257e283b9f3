//! MQTT 3.1.1, chapter 4: sessions, delivery, order, topics, errors.

use crate::common::script::{Script, messages, options, published};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::Config;
use hikyaku_proto::client::{Options, SendError};
use hikyaku_proto::codec::{ReasonCode, Version};

/// This packet of a connected client ends its connection, and no other's.
fn closes(packet: &str) {
    one().run(&format!(
        "b> CONNECT b clean\n b< CONNACK 0\n a> CONNECT a clean; {packet}; PINGREQ\n a< CONNACK 0; CLOSED
         b> PINGREQ\n b< PINGRESP"
    ));
}

#[test]
fn mqtt3_4_1_0_1_session_state_is_kept_for_the_whole_session() {
    one().run(
        "a> CONNECT a; SUBSCRIBE id=1 t:2; PUBLISH u x q2 id=5\n a< CONNACK 0; SUBACK 1 2; PUBREC 5
         p> CONNECT p clean; PUBLISH t 1 q2 id=1; PUBLISH t 2 q1 id=2\n p< CONNACK 0; PUBREC 1; PUBACK 2
         a< PUBLISH t 1 q2 id=1; PUBLISH t 2 q1 id=2
         a> PUBREC 1\n a< PUBREL 1
         a!
         p> PUBLISH t 3 q1 id=3\n p< PUBACK 3
         +9999999s
         a> CONNECT a; PUBLISH u x q2 id=5 dup
         a< CONNACK 0 present; PUBREL 1; PUBLISH t 2 q1 id=2 dup; PUBLISH t 3 q1 id=3; PUBREC 5",
    );
    let mut script = Script::v4();
    script.publish(1, "t").unwrap();
    script.receive(b"\x34\x05\0\x01t\0\x07");
    script.events();
    script.reconnect(b"\x20\x02\x01\0");
    assert!(script.sent().ends_with(b"\x3a\x06\0\x01t\0\x01x"));
    script.events();
    script.receive(b"\x3c\x05\0\x01t\0\x07");
    assert!(messages(script.events()).is_empty(), "handed out before");
}

#[test]
fn mqtt3_4_1_0_2_a_session_lasts_as_long_as_its_connection() {
    one().run(
        "a> CONNECT a clean; SUBSCRIBE id=1 t\n a< CONNACK 0; SUBACK 1 0
         +9999999s
         a> PUBLISH t x\n a< PUBLISH t x",
    );
}

#[test]
fn mqtt3_4_3_1_1_qos_0_is_sent_without_dup() {
    let mut script = Script::v4();
    script.publish(0, "t").unwrap();
    assert_eq!(script.sent(), b"\x30\x04\0\x01tx");
    let mut rig = one();
    rig.run("a> CONNECT a clean; SUBSCRIBE id=1 t; PUBLISH t x q1 id=1 dup\n a< CONNACK 0; SUBACK 1 0; PUBLISH t x; PUBACK 1");
    assert!(rig.pipe("a").down.ends_with(b"\x30\x04\0\x01tx\x40\x02\0\x01"));
}

#[test]
fn mqtt3_4_3_2_1_a_sender_of_qos_1_uses_new_identifiers_and_waits_for_puback() {
    one().run(
        "s> CONNECT s; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean; PUBLISH t a q1 id=1; PUBLISH t b q1 id=2\n p< CONNACK 0; PUBACK 1; PUBACK 2
         s< PUBLISH t a q1 id=1; PUBLISH t b q1 id=2
         s> PUBACK 2
         s!
         s> CONNECT s\n s< CONNACK 0 present; PUBLISH t a q1 id=1 dup
         s> PUBACK 1
         s!
         s> CONNECT s\n s< CONNACK 0 present",
    );
    let mut script = Script::v4();
    let one = script.publish(1, "t").unwrap();
    let two = script.publish(1, "t").unwrap();
    assert_eq!(script.sent(), b"\x32\x06\0\x01t\0\x01x\x32\x06\0\x01t\0\x02x");
    script.receive(b"\x40\x02\0\x02");
    assert_eq!(published(&script.events()), [(two, ReasonCode::Success)]);
    script.receive(b"\x40\x02\0\x01");
    assert_eq!(published(&script.events()), [(one, ReasonCode::Success)]);
}

#[test]
fn mqtt3_4_3_2_2_after_puback_the_same_identifier_is_a_new_message() {
    one().run(
        "s> CONNECT s clean; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean; PUBLISH t a q1 id=7; PUBLISH t b q1 id=7 dup\n p< CONNACK 0; PUBACK 7; PUBACK 7
         s< PUBLISH t a; PUBLISH t b",
    );
    let mut script = Script::v4();
    script.receive(b"\x32\x05\0\x01t\0\x07\x3a\x05\0\x01t\0\x07");
    assert_eq!(script.sent(), b"\x40\x02\0\x07\x40\x02\0\x07");
    assert_eq!(messages(script.events()).len(), 2);
}

#[test]
fn mqtt3_4_3_3_1_a_sender_of_qos_2_waits_for_pubrec_and_pubcomp() {
    one().run(
        "s> CONNECT s; SUBSCRIBE id=1 t:2\n s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean; PUBLISH t a q2 id=1; PUBLISH t b q2 id=2\n p< CONNACK 0; PUBREC 1; PUBREC 2
         s< PUBLISH t a q2 id=1; PUBLISH t b q2 id=2
         s> PUBREC 2\n s< PUBREL 2
         s!
         s> CONNECT s\n s< CONNACK 0 present; PUBLISH t a q2 id=1 dup; PUBREL 2
         s> PUBCOMP 2
         s!
         s> CONNECT s\n s< CONNACK 0 present; PUBLISH t a q2 id=1 dup",
    );
    let mut script = Script::v4();
    let ticket = script.publish(2, "t").unwrap();
    assert_eq!(script.sent(), b"\x34\x06\0\x01t\0\x01x");
    script.receive(b"\x50\x02\0\x01");
    assert_eq!(script.sent(), b"\x62\x02\0\x01");
    script.reconnect(b"\x20\x02\x01\0");
    assert_eq!(script.sent(), b"\x62\x02\0\x01", "PUBLISH is not sent again once PUBREL was");
    assert!(published(&script.events()).is_empty());
    script.receive(b"\x70\x02\0\x01");
    assert_eq!(published(&script.events()), [(ticket, ReasonCode::Success)]);
}

#[test]
fn mqtt3_4_3_3_2_a_receiver_of_qos_2_delivers_once_until_pubrel() {
    one().run(
        "s> CONNECT s clean; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0
         p> CONNECT p; PUBLISH t a q2 id=7; PUBLISH t a q2 id=7 dup\n p< CONNACK 0; PUBREC 7; PUBREC 7
         s< PUBLISH t a
         p!
         p> CONNECT p; PUBLISH t a q2 id=7 dup; PUBREL 7; PUBREL 7; PUBLISH t b q2 id=7
         p< CONNACK 0 present; PUBREC 7; PUBCOMP 7; PUBCOMP 7; PUBREC 7
         s< PUBLISH t b",
    );
    let mut script = Script::v4();
    script.receive(b"\x34\x05\0\x01t\0\x07\x3c\x05\0\x01t\0\x07\x62\x02\0\x07\x34\x05\0\x01t\0\x07");
    assert_eq!(script.sent(), b"\x50\x02\0\x07\x50\x02\0\x07\x70\x02\0\x07\x50\x02\0\x07");
    assert_eq!(messages(script.events()).len(), 2);
}

#[test]
fn mqtt3_4_4_0_1_what_is_unacknowledged_is_sent_again_on_resume_and_at_no_other_time() {
    one().run(
        "s> CONNECT s; SUBSCRIBE id=1 t:2\n s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean; PUBLISH t a q1 id=1; PUBLISH t b q2 id=2; PUBLISH t c q2 id=3\n p< CONNACK 0; PUBACK 1; PUBREC 2; PUBREC 3
         s< PUBLISH t a q1 id=1; PUBLISH t b q2 id=2; PUBLISH t c q2 id=3
         s> PUBREC 2\n s< PUBREL 2
         +3600s
         s<
         s!
         s> CONNECT s\n s< CONNACK 0 present; PUBLISH t a q1 id=1 dup; PUBREL 2; PUBLISH t c q2 id=3 dup",
    );
    let mut script = Script::v4();
    script.publish(1, "a").unwrap();
    script.publish(2, "b").unwrap();
    script.publish(2, "c").unwrap();
    script.sent();
    script.receive(b"\x50\x02\0\x02");
    assert_eq!(script.sent(), b"\x62\x02\0\x02");
    script.wait(50);
    assert!(script.sent().is_empty());
    script.reconnect(b"\x20\x02\x01\0");
    assert_eq!(script.sent(), b"\x3a\x06\0\x01a\0\x01x\x62\x02\0\x02\x3c\x06\0\x01c\0\x03x");
}

#[test]
fn mqtt3_4_5_0_1_a_message_is_added_to_the_session_of_each_who_matches() {
    one().run(
        "a> CONNECT a; SUBSCRIBE id=1 t:1\n a< CONNACK 0; SUBACK 1 1
         b> CONNECT b; SUBSCRIBE id=1 t:2\n b< CONNACK 0; SUBACK 1 2
         c> CONNECT c; SUBSCRIBE id=1 u:1\n c< CONNACK 0; SUBACK 1 1
         a!
         b!
         c!
         p> CONNECT p clean; PUBLISH t x q2 id=1\n p< CONNACK 0; PUBREC 1
         a> CONNECT a\n a< CONNACK 0 present; PUBLISH t x q1 id=1
         b> CONNECT b\n b< CONNACK 0 present; PUBLISH t x q2 id=1
         c> CONNECT c\n c< CONNACK 0 present",
    );
}

#[test]
fn mqtt3_4_5_0_2_the_client_acknowledges_what_nobody_subscribed_to() {
    let mut script = Script::v4();
    script.receive(b"\x32\x05\0\x01t\0\x01\x34\x05\0\x01u\0\x02");
    assert_eq!(script.sent(), b"\x40\x02\0\x01\x50\x02\0\x02");
}

#[test]
fn mqtt3_4_6_0_1_the_client_sends_again_in_the_first_order() {
    let mut script = Script::v4();
    for (qos, topic) in [(2, "a"), (1, "b"), (2, "c"), (1, "d")] {
        script.publish(qos, topic).unwrap();
    }
    script.sent();
    script.receive(b"\x40\x02\0\x02");
    script.reconnect(b"\x20\x02\x01\0");
    assert_eq!(script.sent(), b"\x3c\x06\0\x01a\0\x01x\x3c\x06\0\x01c\0\x03x\x3a\x06\0\x01d\0\x04x");
}

#[test]
fn mqtt3_4_6_0_2_pubacks_leave_in_the_order_of_the_messages() {
    let mut script = Script::v4();
    script.receive(b"\x32\x05\0\x01t\0\x09\x32\x05\0\x01t\0\x03\x32\x05\0\x01t\0\x07");
    assert_eq!(script.sent(), b"\x40\x02\0\x09\x40\x02\0\x03\x40\x02\0\x07");
    one().run(
        "a> CONNECT a clean; PUBLISH t x q1 id=9; PUBLISH t x q1 id=3\n a< CONNACK 0; PUBACK 9; PUBACK 3",
    );
    // Whatever the order in which the application acknowledges.
    let manual = hikyaku_proto::client::Acknowledge::Manually;
    let mut script =
        Script::connected(Options { acknowledge: manual, ..options(Version::V3_1_1) }, b"\x20\x02\0\0");
    script.receive(b"\x32\x05\0\x01t\0\x09\x32\x05\0\x01t\0\x03");
    let tokens: Vec<_> = messages(script.events()).into_iter().map(|m| m.token.unwrap()).collect();
    let now = script.now;
    script.client.acknowledge(now, tokens[1]);
    assert!(script.sent().is_empty());
    script.client.acknowledge(now, tokens[0]);
    assert_eq!(script.sent(), b"\x40\x02\0\x09\x40\x02\0\x03");
}

#[test]
fn mqtt3_4_6_0_3_pubrecs_leave_in_the_order_of_the_messages() {
    let mut script = Script::v4();
    script.receive(b"\x34\x05\0\x01t\0\x09\x34\x05\0\x01t\0\x03\x34\x05\0\x01t\0\x07");
    assert_eq!(script.sent(), b"\x50\x02\0\x09\x50\x02\0\x03\x50\x02\0\x07");
    one().run(
        "a> CONNECT a clean; PUBLISH t x q2 id=9; PUBLISH t x q2 id=3\n a< CONNACK 0; PUBREC 9; PUBREC 3",
    );
}

#[test]
fn mqtt3_4_6_0_4_pubrels_leave_in_the_order_of_the_pubrecs() {
    let mut script = Script::v4();
    for topic in ["a", "b", "c"] {
        script.publish(2, topic).unwrap();
    }
    script.sent();
    script.receive(b"\x50\x02\0\x02\x50\x02\0\x03\x50\x02\0\x01");
    assert_eq!(script.sent(), b"\x62\x02\0\x02\x62\x02\0\x03\x62\x02\0\x01");
    script.receive(b"\x70\x02\0\x01\x70\x02\0\x02\x70\x02\0\x03");
    assert_eq!(published(&script.events()).len(), 3);
}

#[test]
fn mqtt3_4_6_0_5_every_topic_is_ordered() {
    for qos in ["", " q1 id=1", " q2 id=1"] {
        let mut rig = one();
        rig.run("s> CONNECT s clean; SUBSCRIBE id=1 #:0\n s< CONNACK 0; SUBACK 1 0\n p> CONNECT p clean\n p< CONNACK 0");
        let sent: Vec<String> = (0..50).map(|n| format!("PUBLISH t/{} {n}{}", n % 3, qos)).collect();
        let release = if qos.contains("q2") { "; PUBREL 1;" } else { ";" };
        rig.send("p", &sent.join(release));
        let came: Vec<String> = (0..50).map(|n| format!("PUBLISH t/{} {n}", n % 3)).collect();
        assert_eq!(rig.news("s"), came.join("; "));
    }
}

#[test]
fn mqtt3_4_6_0_6_messages_reach_a_subscriber_in_the_order_of_their_publisher() {
    // With the subscriber away, on another shard, and one that takes few at a time.
    for seed in 1..20 {
        let mut rig = Rig::new(3, seed, Config { max_inflight_messages: 2, ..quiet() });
        for script in ["s> CONNECT s; SUBSCRIBE id=1 t:1", "p> CONNECT p clean"] {
            let (name, packets) = script.split_once("> ").unwrap();
            rig.send(name, packets);
            rig.news(name);
        }
        rig.cut("s");
        for n in 0..30 {
            rig.send("p", &format!("PUBLISH t {n} q1 id=1"));
            if n == 15 {
                rig.send("s", "CONNECT s");
                rig.pipe("s").answers = true;
            }
            rig.settle();
        }
        rig.advance(std::time::Duration::from_secs(1));
        rig.pipe("p").news.clear();
        let came: Vec<u32> = std::mem::take(&mut rig.pipe("s").news)
            .iter()
            .filter_map(|packet| packet.strip_prefix("PUBLISH t ")?.split(' ').next()?.parse().ok())
            .collect();
        assert_eq!(came, (0..30).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn mqtt3_4_7_0_1_empty_topics_and_filters_close() {
    closes("RAW 30 02 00 00");
    closes("RAW 82 05 00 01 00 00 00");
    closes("RAW a2 04 00 01 00 00");
    let mut script = Script::v4();
    assert!(matches!(script.publish(0, ""), Err(SendError::InvalidTopic(_))));
}

#[test]
fn mqtt3_4_7_1_1_the_multi_level_wildcard_stands_alone_and_last() {
    for filter in ["a#", "a/b#", "#/a", "a/#/b", "##", "a/#/"] {
        closes(&format!("SUBSCRIBE id=1 {filter}"));
        closes(&format!("UNSUBSCRIBE id=1 {filter}"));
    }
    one().run("a> CONNECT a clean; SUBSCRIBE id=1 a/# /# #\n a< CONNACK 0; SUBACK 1 0 0 0");
}

#[test]
fn mqtt3_4_7_1_2_the_multi_level_wildcard_matches_its_parent_and_all_below() {
    one().run(
        "a> CONNECT a clean; SUBSCRIBE id=1 s/p/#\n a< CONNACK 0; SUBACK 1 0
         a> PUBLISH s/p 1; PUBLISH s/p/r 2; PUBLISH s/p/r/w 3; PUBLISH s 4; PUBLISH s/px 5
         a< PUBLISH s/p 1; PUBLISH s/p/r 2; PUBLISH s/p/r/w 3",
    );
}

#[test]
fn mqtt3_4_7_1_3_the_single_level_wildcard_fills_its_level() {
    for filter in ["a+", "+a", "a/b+/c", "++", "a/+#"] {
        closes(&format!("SUBSCRIBE id=1 {filter}"));
    }
    one().run(
        "a> CONNECT a clean; SUBSCRIBE id=1 + +/t/# s/+/p\n a< CONNACK 0; SUBACK 1 0 0 0
         a> PUBLISH x 1; PUBLISH a/t/b 2; PUBLISH s/q/p 3; PUBLISH s/q/q/p 4; PUBLISH /x 5
         a< PUBLISH x 1; PUBLISH a/t/b 2; PUBLISH s/q/p 3",
    );
}

#[test]
fn mqtt3_4_7_2_1_wildcards_at_the_start_do_not_match_dollar_topics() {
    one().run(
        "p> CONNECT p clean; PUBLISH $own/a kept r\n p< CONNACK 0
         a> CONNECT a clean; SUBSCRIBE id=1 +/a +/# #\n a< CONNACK 0; SUBACK 1 0 0 0
         b> CONNECT b clean; SUBSCRIBE id=1 $own/#\n b< CONNACK 0; SUBACK 1 0; PUBLISH $own/a kept r
         p> PUBLISH $own/a live\n b< PUBLISH $own/a live",
    );
}

#[test]
fn mqtt3_4_7_3_1_topics_have_at_least_one_character() {
    closes("RAW 30 02 00 00");
    one().run(
        "a> CONNECT a clean; SUBSCRIBE id=1 / + ; PUBLISH / x\n a< CONNACK 0; SUBACK 1 0 0; PUBLISH / x",
    );
}

#[test]
fn mqtt3_4_7_3_2_the_null_character_in_a_topic_closes() {
    closes("RAW 30 05 00 03 61 00 61");
    closes("RAW 82 08 00 01 00 03 61 00 61 00");
    closes("PUBLISH a/+ x");
}

#[test]
fn mqtt3_4_7_3_3_topics_of_65535_bytes_pass() {
    let topic = "t".repeat(65_535);
    let mut rig = one();
    rig.run(&format!("a> CONNECT a clean; SUBSCRIBE id=1 {topic}; PUBLISH {topic} x\n a< CONNACK 0; SUBACK 1 0; PUBLISH {topic} x"));
    let mut script = Script::v4();
    assert!(script.publish(0, &topic).is_ok());
    assert!(script.publish(0, &format!("{topic}t")).is_err());
}

#[test]
fn mqtt3_4_7_3_4_topics_are_not_normalised() {
    // "é" as one and as two characters, case, slashes, a word joiner.
    for (filter, topic) in
        [("caf\u{e9}", "cafe\u{301}"), ("A", "a"), ("a/b", "a//b"), ("a", "a/"), ("a\u{2060}", "a")]
    {
        one().run(&format!(
            "a> CONNECT a clean; SUBSCRIBE id=1 {filter}; PUBLISH {topic} no; PUBLISH {filter} yes
             a< CONNACK 0; SUBACK 1 0; PUBLISH {filter} yes"
        ));
    }
}

#[test]
fn mqtt3_4_8_0_1_a_protocol_violation_closes_that_connection() {
    for packet in
        ["RAW 00 00", "RAW f0 00", "RAW 30 80 80 80 80 01", "RAW d0 00", "RAW 20 02 00 00", "RAW 40 01 00"]
    {
        closes(packet);
    }
    for packet in [&b"\0\0"[..], b"\x30\x80\x80\x80\x80\x01", b"\xc0\0"] {
        let mut script = Script::v4();
        script.receive(packet);
        assert!(script.client.wants_close(), "{packet:x?}");
    }
}

#[test]
fn mqtt3_4_8_0_2_a_packet_that_cannot_be_processed_now_closes() {
    let mut rig = Rig::new(1, 0, Config { max_packet_size: 100, ..quiet() });
    rig.run("a> CONNECT a clean; PUBLISH t size=200\n a< CONNACK 0; CLOSED");
}
