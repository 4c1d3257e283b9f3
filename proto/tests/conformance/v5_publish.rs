//! MQTT 5.0, sections 3.3.1 and 3.3.4: the flags of PUBLISH, and what is done about one.

use super::v5_packets::{client_refuses, refused};
use crate::common::script::{Script, messages, options};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::Config;
use hikyaku_proto::client::{Acknowledge, Event, Options, PublishRequest, SendError};
use hikyaku_proto::codec::*;

#[test]
fn mqtt5_3_3_1_1_what_is_delivered_again_has_dup() {
    one().run(
        "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean v5; PUBLISH t a q1 id=1; PUBLISH t b q2 id=2
         p< CONNACK 0; PUBACK 1; PUBREC 2
         s< PUBLISH t a q1 id=1; PUBLISH t b q2 id=2
         s!
         p> PUBLISH t c q1 id=3
         p< PUBACK 3
         s> CONNECT s v5 expiry=100
         s< CONNACK 0 present; PUBLISH t a q1 id=1 dup; PUBLISH t b q2 id=2 dup; PUBLISH t c q1 id=3
         s!
         s> CONNECT s v5 expiry=100
         s< CONNACK 0 present; PUBLISH t a q1 id=1 dup; PUBLISH t b q2 id=2 dup; PUBLISH t c q1 id=3 dup",
    );
    let mut script = Script::v5();
    script.publish(1, "a").unwrap();
    script.publish(2, "b").unwrap();
    assert_eq!(script.sent(), b"\x32\x07\0\x01a\0\x01\0x\x34\x07\0\x01b\0\x02\0x");
    script.client.transport_down(script.now);
    script.publish(1, "c").unwrap();
    script.reconnect(b"\x20\x03\x01\0\0");
    assert_eq!(script.sent(), b"\x3a\x07\0\x01a\0\x01\0x\x3c\x07\0\x01b\0\x02\0x\x32\x07\0\x01c\0\x03\0x");
}

#[test]
fn mqtt5_3_3_1_2_dup_at_qos_0_is_malformed_and_never_sent() {
    refused("38 05 00 01 74 00 78", "0x81");
    refused("39 05 00 01 74 00 78", "0x81");
    client_refuses(b"\x38\x05\0\x01t\0x", ReasonCode::MalformedPacket);
    // A message that came again is no duplicate for who gets it at QoS 0.
    one().run(
        "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t:0
         s< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean v5; PUBLISH t a q1 id=1 dup; PUBLISH t b q2 id=2 dup
         p< CONNACK 0; PUBACK 1; PUBREC 2
         s< PUBLISH t a; PUBLISH t b",
    );
}

#[test]
fn mqtt5_3_3_1_3_dup_is_not_passed_on() {
    one().run(
        "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean v5; PUBLISH t a q1 id=1 dup; PUBLISH t b q2 id=2 dup
         p< CONNACK 0; PUBACK 1; PUBREC 2
         s< PUBLISH t a q1 id=1; PUBLISH t b q2 id=2
         p> PUBREL 2; PUBLISH t c q1 id=3
         p< PUBCOMP 2; PUBACK 3
         s< PUBLISH t c q1 id=3
         s!
         s> CONNECT s v5
         s< CONNACK 0 present; PUBLISH t a q1 id=1 dup; PUBLISH t b q2 id=2 dup; PUBLISH t c q1 id=3 dup",
    );
}

#[test]
fn mqtt5_3_3_1_4_qos_3_is_malformed() {
    refused("36 07 00 01 74 00 01 00 78", "0x81");
    refused("3f 07 00 01 74 00 01 00 78", "0x81");
    client_refuses(b"\x36\x07\0\x01t\0\x01\0x", ReasonCode::MalformedPacket);
}

#[test]
fn mqtt5_3_3_1_5_a_retained_message_replaces_the_one_before() {
    for shards in [1, 3] {
        Rig::new(shards, 0, quiet()).run(
            "p> CONNECT p clean v5; PUBLISH t/a 1 r up=k:v; PUBLISH t/b 2 r; PUBLISH t/a 3 r q1 id=1
             p< CONNACK 0; PUBACK 1 0x10
             s> CONNECT s clean v5; SUBSCRIBE id=1 t/a:2
             s< CONNACK 0; SUBACK 1 2; PUBLISH t/a 3 q1 id=1 r
             s> SUBSCRIBE id=2 t/b:2
             s< SUBACK 2 2; PUBLISH t/b 2 r
             p> PUBLISH t/a 4 r q2 id=2
             p< PUBREC 2
             s< PUBLISH t/a 4 q2 id=2
             q> CONNECT q clean v5; SUBSCRIBE id=1 t/a:2
             q< CONNACK 0; SUBACK 1 2; PUBLISH t/a 4 q2 id=1 r",
        );
    }
}

#[test]
fn mqtt5_3_3_1_6_an_empty_retained_message_is_delivered_and_removes_the_one_before() {
    for shards in [1, 3] {
        let mut rig = Rig::new(shards, 0, quiet());
        rig.run(
            "p> CONNECT p clean v5; PUBLISH t/a 1 r; PUBLISH t/b 2 r
             p< CONNACK 0
             s> CONNECT s clean v5; SUBSCRIBE id=1 t/a:1
             s< CONNACK 0; SUBACK 1 1; PUBLISH t/a 1 r
             p> PUBLISH t/a r q1 id=1
             p< PUBACK 1
             s< PUBLISH t/a q1 id=1
             q> CONNECT q clean v5; SUBSCRIBE id=1 t/+
             q< CONNACK 0; SUBACK 1 0; PUBLISH t/b 2 r",
        );
        assert_eq!(rig.sum(|c| c.retained), 1);
    }
}

#[test]
fn mqtt5_3_3_1_7_an_empty_message_is_not_retained() {
    let mut rig = one();
    rig.run(
        "p> CONNECT p clean v5; PUBLISH t/a r; PUBLISH t/b r q1 id=1; PUBLISH t/c r q1 id=2 up=k:v
         p< CONNACK 0; PUBACK 1 0x10; PUBACK 2 0x10
         w> CONNECT w v5 will=t/d,,r
         w< CONNACK 0
         w!
         s> CONNECT s clean v5; SUBSCRIBE id=1 #:2
         s< CONNACK 0; SUBACK 1 2",
    );
    assert_eq!(rig.sum(|c| c.retained), 0);
}

#[test]
fn mqtt5_3_3_1_8_without_retain_nothing_is_stored_replaced_or_removed() {
    let mut rig = one();
    rig.run(
        "p> CONNECT p clean v5; PUBLISH t/a 1 r; PUBLISH t/a 2; PUBLISH t/a; PUBLISH t/b 3 q1 id=1
         p< CONNACK 0; PUBACK 1 0x10
         s> CONNECT s clean v5; SUBSCRIBE id=1 t/+
         s< CONNACK 0; SUBACK 1 0; PUBLISH t/a 1 r",
    );
    assert_eq!(rig.sum(|c| c.retained), 1);
}

const RETAINED: &str =
    "p> CONNECT p clean v5; PUBLISH t/a 1 r; PUBLISH t/b 2 r; PUBLISH u 3 r\n p< CONNACK 0\n";

#[test]
fn mqtt5_3_3_1_9_retain_handling_0_sends_retained_messages_at_each_subscribe() {
    one().run(&format!(
        "{RETAINED}
         s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t/+:1
         s< CONNACK 0; SUBACK 1 1; PUBLISH t/a 1 r; PUBLISH t/b 2 r
         s> SUBSCRIBE id=2 t/+:2 u; SUBSCRIBE id=3 t/b
         s< SUBACK 2 2 0; PUBLISH t/a 1 r; PUBLISH t/b 2 r; PUBLISH u 3 r; SUBACK 3 0; PUBLISH t/b 2 r
         s!
         s> CONNECT s v5
         s< CONNACK 0 present
         s> SUBSCRIBE id=1 u
         s< SUBACK 1 0; PUBLISH u 3 r"
    ));
}

#[test]
fn mqtt5_3_3_1_10_retain_handling_1_sends_retained_messages_to_new_subscriptions() {
    one().run(&format!(
        "{RETAINED}
         s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t/+:1:rh1
         s< CONNACK 0; SUBACK 1 1; PUBLISH t/a 1 r; PUBLISH t/b 2 r
         s> SUBSCRIBE id=2 t/+:2:rh1 u:rh1
         s< SUBACK 2 2 0; PUBLISH u 3 r
         s!
         s> CONNECT s v5 expiry=100; SUBSCRIBE id=3 t/+:rh1
         s< CONNACK 0 present; SUBACK 3 0
         s> UNSUBSCRIBE id=4 t/+; SUBSCRIBE id=5 t/+:rh1
         s< UNSUBACK 4 0; SUBACK 5 0; PUBLISH t/a 1 r; PUBLISH t/b 2 r"
    ));
}

#[test]
fn mqtt5_3_3_1_11_retain_handling_2_sends_no_retained_messages() {
    one().run(&format!(
        "{RETAINED}
         s> CONNECT s v5; SUBSCRIBE id=1 t/+:1:rh2 #:rh2; SUBSCRIBE id=2 t/+:rh2
         s< CONNACK 0; SUBACK 1 1 0; SUBACK 2 0
         p> PUBLISH t/a 4 r
         s< PUBLISH t/a 4"
    ));
}

#[test]
fn mqtt5_3_3_1_12_without_retain_as_published_the_flag_is_cleared() {
    one().run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 t:1
         s< CONNACK 0; SUBACK 1 1
         g> CONNECT g clean v5; SUBSCRIBE id=1 $share/g/t
         g< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean v5; PUBLISH t 1 r; PUBLISH t 2; PUBLISH t 3 r q1 id=1; PUBLISH t r
         p< CONNACK 0; PUBACK 1
         s< PUBLISH t 1; PUBLISH t 2; PUBLISH t 3 q1 id=1; PUBLISH t
         g< PUBLISH t 1; PUBLISH t 2; PUBLISH t 3; PUBLISH t",
    );
}

#[test]
fn mqtt5_3_3_1_13_with_retain_as_published_the_flag_is_that_of_the_publisher() {
    one().run(
        "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t:1:rap
         s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t 1 r; PUBLISH t 2; PUBLISH t 3 r q1 id=1; PUBLISH t r; PUBLISH t 4 q1 id=2
         p< CONNACK 0; PUBACK 1; PUBACK 2
         s< PUBLISH t 1 r; PUBLISH t 2; PUBLISH t 3 q1 id=1 r; PUBLISH t r; PUBLISH t 4 q1 id=2
         s!
         p> PUBLISH t 5 r q1 id=3
         p< PUBACK 3
         s> CONNECT s v5
         s< CONNACK 0 present; PUBLISH t 3 q1 id=1 r dup; PUBLISH t 4 q1 id=2 dup; PUBLISH t 5 q1 id=3 r",
    );
}

#[test]
fn mqtt5_3_3_4_1_a_publish_is_answered_as_its_qos_asks() {
    one().run(
        "p> CONNECT p clean v5; PUBLISH t x; PUBLISH t x q1 id=1; PINGREQ
         p< CONNACK 0; PUBACK 1 0x10; PINGRESP
         s> CONNECT s clean v5; SUBSCRIBE id=1 t
         s< CONNACK 0; SUBACK 1 0
         p> PUBLISH t x; PUBLISH t x q1 id=1; PUBLISH t x q2 id=2; PUBREL 2
         p< PUBACK 1; PUBREC 2; PUBCOMP 2
         s< PUBLISH t x; PUBLISH t x; PUBLISH t x",
    );
    let mut script = Script::v5();
    script.receive(b"\x30\x05\0\x01t\0x");
    assert!(script.sent().is_empty());
    script.receive(b"\x32\x07\0\x01t\0\x05\0x");
    assert_eq!(script.sent(), b"\x40\x02\0\x05");
    script.receive(b"\x34\x07\0\x01t\0\x06\0x");
    assert_eq!(script.sent(), b"\x50\x02\0\x06");
    assert_eq!(messages(script.events()).len(), 3);
}

#[test]
fn mqtt5_3_3_4_2_overlapping_subscriptions_get_one_copy_with_the_highest_qos() {
    for filters in ["a/b:0 a/+:1 #:2", "#:2 a/+:1 a/b:0", "a/+:1 a/#:2 a/b:1", "$share/g/other:0 a/b:2 a/#:0"]
    {
        let mut rig = one();
        rig.send("s", &format!("CONNECT s clean v5; SUBSCRIBE id=1 {filters}"));
        rig.news("s");
        rig.run(
            "p> CONNECT p clean v5; PUBLISH a/b x q2 id=1; PUBLISH a/b y q1 id=2; PUBLISH a/b z
             p< CONNACK 0; PUBREC 1; PUBACK 2
             s< PUBLISH a/b x q2 id=1; PUBLISH a/b y q1 id=2; PUBLISH a/b z",
        );
    }
}

#[test]
fn mqtt5_3_3_4_3_the_identifier_of_an_overlapping_subscription_is_sent() {
    one().run(
        "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 a/b:1; SUBSCRIBE id=2 a/+:0 sid=7; SUBSCRIBE id=3 a/#:2
         s< CONNACK 0; SUBACK 1 1; SUBACK 2 0; SUBACK 3 2
         p> CONNECT p clean v5; PUBLISH a/b x q2 id=1; PUBLISH a/b/c y; PUBLISH a/c z
         p< CONNACK 0; PUBREC 1
         s< PUBLISH a/b x q2 id=1 sid=7; PUBLISH a/b/c y; PUBLISH a/c z sid=7
         s!
         s> CONNECT s v5 expiry=100
         s< CONNACK 0 present; PUBLISH a/b x q2 id=1 dup sid=7
         p> PUBLISH a/b later
         s< PUBLISH a/b later sid=7
         s> SUBSCRIBE id=4 a/+ sid=268435455
         s< SUBACK 4 0
         p> PUBLISH a/b new
         s< PUBLISH a/b new sid=268435455",
    );
    let mut script = Script::v5();
    script.receive(b"\x30\x09\0\x01t\x04\x0b\x03\x0b\x07x");
    assert_eq!(messages(script.events())[0].subscription_ids.as_slice(), [3, 7]);
}

#[test]
fn mqtt5_3_3_4_4_a_single_copy_has_the_identifiers_of_all_matching_subscriptions() {
    for shards in [1, 3] {
        let mut rig = Rig::new(shards, 0, quiet());
        rig.run(
            "s> CONNECT s clean v5; SUBSCRIBE id=1 a/b:1 sid=1; SUBSCRIBE id=2 a/+:0 sid=300; SUBSCRIBE id=3 #:0 sid=5
             s< CONNACK 0; SUBACK 1 1; SUBACK 2 0; SUBACK 3 0
             s> SUBSCRIBE id=4 other sid=9; SUBSCRIBE id=5 +/b
             s< SUBACK 4 0; SUBACK 5 0",
        );
        rig.send("p", "CONNECT p clean v5; PUBLISH a/b x q1 id=1");
        let news = rig.news("s");
        let mut ids: Vec<_> = news.split(' ').filter(|word| word.starts_with("sid=")).collect();
        ids.sort();
        assert!(news.starts_with("PUBLISH a/b x q1 id=1 sid=") && !news.contains(';'), "{news}");
        assert_eq!(ids, ["sid=1", "sid=300", "sid=5"]);
    }
}

#[test]
fn mqtt5_3_3_4_5_several_copies_have_the_identifier_of_their_own_subscription() {
    // Copies are made for shared subscriptions, and of retained messages for each SUBSCRIBE.
    let mut rig = one();
    rig.run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 $share/g/t sid=1; SUBSCRIBE id=2 $share/h/# sid=2; SUBSCRIBE id=3 t sid=3
         s< CONNACK 0; SUBACK 1 0; SUBACK 2 0; SUBACK 3 0
         s> SUBSCRIBE id=4 $share/i/t
         s< SUBACK 4 0",
    );
    rig.send("p", "CONNECT p clean v5; PUBLISH t x r");
    let news = rig.news("s");
    let mut copies: Vec<_> = news.split("; ").collect();
    copies.sort();
    assert_eq!(copies, ["PUBLISH t x", "PUBLISH t x sid=1", "PUBLISH t x sid=2", "PUBLISH t x sid=3"]);
    rig.run(
        "p< CONNACK 0
         q> CONNECT q clean v5; SUBSCRIBE id=1 t sid=7; SUBSCRIBE id=2 #:0 sid=8; SUBSCRIBE id=3 +
         q< CONNACK 0; SUBACK 1 0; PUBLISH t x r sid=7; SUBACK 2 0; PUBLISH t x r sid=8; SUBACK 3 0; PUBLISH t x r",
    );
}

#[test]
fn mqtt5_3_3_4_6_a_publish_to_the_broker_has_no_subscription_identifier() {
    refused("30 07 00 01 74 02 0b 01 78", "0x82");
    refused("32 09 00 01 74 00 01 02 0b 01 78", "0x82");
    let mut script = Script::v5();
    let mut properties = PropertiesBuf::default();
    properties.push(Property::SubscriptionIdentifier(1));
    let request = PublishRequest { topic: "t", properties: properties.as_properties(), ..Default::default() };
    let result = script.client.publish(script.now, &request);
    assert!(matches!(result, Err(SendError::InvalidProperties(_))));
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_3_3_4_7_the_client_keeps_to_the_receive_maximum_of_the_server() {
    let mut script = Script::connected(options(Version::V5), b"\x20\x06\0\0\x03\x21\0\x02");
    for (qos, topic) in [(1, "a"), (2, "b"), (1, "c"), (2, "d"), (1, "e")] {
        script.publish(qos, topic).unwrap();
    }
    assert_eq!(script.sent(), b"\x32\x07\0\x01a\0\x01\0x\x34\x07\0\x01b\0\x02\0x");
    script.receive(b"\x50\x02\0\x02");
    assert_eq!(script.sent(), b"\x62\x02\0\x02", "a PUBREC alone is no room");
    script.receive(b"\x70\x02\0\x02");
    assert_eq!(script.sent(), b"\x32\x07\0\x01c\0\x03\0x");
    script.receive(b"\x40\x02\0\x01");
    assert_eq!(script.sent(), b"\x34\x07\0\x01d\0\x04\0x");
    script.receive(b"\x50\x03\0\x04\x87");
    assert_eq!(script.sent(), b"\x32\x07\0\x01e\0\x05\0x");
    // Nor is more sent again than a new connection allows.
    script.reconnect(b"\x20\x06\x01\0\x03\x21\0\x01");
    assert_eq!(script.sent(), b"\x3a\x07\0\x01c\0\x03\0x");
    // A client that does not is closed.
    Rig::new(1, 0, Config { max_inflight_messages: 2, ..quiet() }).run(
        "o> CONNECT o v5; SUBSCRIBE id=1 t
         o< CONNACK 0; SUBACK 1 0
         p> CONNECT p v5; PUBLISH t a q2 id=1; PUBLISH t b q1 id=2; PUBLISH t c q2 id=3
         p< CONNACK 0; PUBREC 1; PUBACK 2; PUBREC 3
         o< PUBLISH t a; PUBLISH t b; PUBLISH t c
         p> PUBREL 1; PUBLISH $SYS/no d q2 id=4; PUBLISH t e q2 id=5; PUBLISH t e q2 id=5 dup
         p< PUBCOMP 1; PUBREC 4 0x87; PUBREC 5; PUBREC 5
         o< PUBLISH t e
         p> PUBLISH t f q1 id=6
         p< DISCONNECT 0x93; CLOSED",
    );
}

#[test]
fn mqtt5_3_3_4_8_the_client_delays_nothing_but_publish() {
    let with = Options { acknowledge: Acknowledge::Automatically, ..options(Version::V5) };
    let mut script = Script::connected(with, b"\x20\x06\0\0\x03\x21\0\x01");
    script.publish(2, "a").unwrap();
    script.publish(1, "b").unwrap();
    assert_eq!(script.sent(), b"\x34\x07\0\x01a\0\x01\0x");
    let filter = [("t", SubscribeOptions::default())];
    script.client.subscribe(script.now, &filter, Properties::EMPTY).unwrap();
    assert_eq!(script.sent()[0], 0x82);
    script.client.unsubscribe(script.now, &["t"], Properties::EMPTY).unwrap();
    assert_eq!(script.sent()[0], 0xa2);
    script.receive(b"\x32\x06\0\x01t\0\x05\0\x34\x06\0\x01t\0\x06\0\x62\x02\0\x06\x50\x02\0\x01");
    assert_eq!(script.sent(), b"\x40\x02\0\x05\x50\x02\0\x06\x70\x02\0\x06\x62\x02\0\x01");
    script.publish(0, "c").unwrap();
    assert_eq!(script.sent(), b"\x30\x05\0\x01c\0x");
    script.wait(60);
    assert_eq!(script.sent(), b"\xc0\0");
    script.client.disconnect(script.now, ReasonCode::Success, Properties::EMPTY).unwrap();
    assert_eq!(script.sent(), b"\xe0\0");
    assert!(!script.events().iter().any(|e| matches!(e, Event::Published { .. })));
}

#[test]
fn mqtt5_3_3_4_9_the_broker_keeps_to_the_receive_maximum_of_the_client() {
    one().run(
        "s> CONNECT s v5 expiry=100 rm=2; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean v5; PUBLISH t a q1 id=1; PUBLISH t b q2 id=2; PUBLISH t c q1 id=3; PUBLISH t d q2 id=4
         p< CONNACK 0; PUBACK 1; PUBREC 2; PUBACK 3; PUBREC 4
         s< PUBLISH t a q1 id=1; PUBLISH t b q2 id=2
         p> PUBLISH t e q1 id=5; PUBLISH t f q1 id=6
         p< PUBACK 5; PUBACK 6
         s> PUBREC 2
         s< PUBREL 2
         s> PUBCOMP 2
         s< PUBLISH t c q1 id=3
         s> PUBACK 1
         s< PUBLISH t d q2 id=4
         s> PUBREC 4 0x87
         s< PUBLISH t e q1 id=5
         s> PUBACK 99; PUBCOMP 99
         s!
         s> CONNECT s v5 expiry=100 rm=1
         s< CONNACK 0 present; PUBLISH t c q1 id=3 dup
         s> PUBACK 3
         s< PUBLISH t e q1 id=5 dup
         s> PUBACK 5
         s< PUBLISH t f q1 id=6",
    );
    // Retained messages count as well, and so do shared subscriptions.
    one().run(
        "p> CONNECT p clean v5; PUBLISH t/a 1 r q1 id=1; PUBLISH t/b 2 r q1 id=2
         p< CONNACK 0; PUBACK 1 0x10; PUBACK 2 0x10
         s> CONNECT s clean v5 rm=1; SUBSCRIBE id=1 t/+:1; SUBSCRIBE id=2 $share/g/u:1
         s< CONNACK 0; SUBACK 1 1; PUBLISH t/a 1 q1 id=1 r; SUBACK 2 1
         p> PUBLISH u 3 q1 id=3
         p< PUBACK 3
         s> PUBACK 1
         s< PUBLISH t/b 2 q1 id=2 r
         s> PUBACK 2
         s< PUBLISH u 3 q1 id=3",
    );
    // A server that does not is left.
    let with = Options { acknowledge: Acknowledge::Manually, receive_maximum: 1, ..options(Version::V5) };
    let mut script = Script::connected(with, b"\x20\x03\0\0\0");
    script.receive(b"\x32\x06\0\x01a\0\x01\0\x30\x04\0\x01a\0");
    assert_eq!(messages(script.events()).len(), 2);
    script.receive(b"\x34\x06\0\x01a\0\x02\0");
    script.assert_failed(ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn mqtt5_3_3_4_10_the_broker_delays_nothing_but_publish() {
    one().run(
        "s> CONNECT s clean v5 rm=1; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean v5; PUBLISH t a q2 id=1; PUBLISH t b q1 id=2
         p< CONNACK 0; PUBREC 1; PUBACK 2
         s< PUBLISH t a q2 id=1
         s> PINGREQ; SUBSCRIBE id=2 u; UNSUBSCRIBE id=3 u; PUBLISH x y q1 id=4; PUBLISH t d q2 id=5; PUBREL 5
         s< PINGRESP; SUBACK 2 0; UNSUBACK 3 0; PUBACK 4 0x10; PUBREC 5; PUBCOMP 5
         s> PUBREC 1
         s< PUBREL 1
         p> PUBLISH t c
         s< PUBLISH t c
         s> RAW c1 00
         s< DISCONNECT 0x81; CLOSED",
    );
}
