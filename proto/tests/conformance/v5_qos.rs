//! MQTT 5.0, 4.1 and 4.3: session state, QoS.

use crate::common::script::{Script, messages, options, published};
use crate::common::{Rig, one, quiet};
use crate::v5_acks::{AWAY, guarded};
use hikyaku_proto::broker::Config;
use hikyaku_proto::client::{Acknowledge, Options, PublishRequest};
use hikyaku_proto::codec::{PropertiesBuf, Property, QoS, ReasonCode, Version};

/// A CONNACK with Session Present.
pub const RESUMED: &[u8] = b"\x20\x03\x01\0\0";

#[test]
fn mqtt5_4_1_0_1_session_state_is_kept_while_connected() {
    // However long that is, and although the session is to end with the connection.
    one().run(AWAY).run(
        "a> CONNECT a v5; SUBSCRIBE id=1 t:2; PUBLISH x x q2 id=7
         a< CONNACK 0; SUBACK 1 2; PUBREC 7
         b> CONNECT b v5 expiry=5; SUBSCRIBE id=1 t:1
         b< CONNACK 0; SUBACK 1 1
         p> CONNECT p v5; PUBLISH t 1 q2 id=1
         p< CONNACK 0; PUBREC 1
         a< PUBLISH t 1 q2 id=1
         b< PUBLISH t 1 q1 id=1
         +1000000s
         p> PUBLISH t 2 q1 id=2; PUBREL 1
         p< PUBACK 2; PUBCOMP 1
         a< PUBLISH t 2 q1 id=2
         b< PUBLISH t 2 q1 id=2
         a> PUBLISH x x q2 id=7 dup; PUBREL 7; PUBREC 1
         a< PUBREC 7; PUBCOMP 7; PUBREL 1",
    );
    let mut script = Script::connected(Options { keep_alive_s: 0, ..Options::new(Version::V5, "c") }, {
        b"\x20\x03\0\0\0"
    });
    let ticket = script.publish(2, "t").unwrap();
    script.receive(b"\x34\x07\0\x01a\0\x09\0x");
    script.sent();
    script.wait(1_000_000);
    assert_eq!(script.client.unfinished(), 1);
    script.receive(b"\x3c\x07\0\x01a\0\x09\0x\x62\x02\0\x09\x50\x02\0\x01\x70\x02\0\x01");
    assert_eq!(script.sent(), b"\x50\x02\0\x09\x70\x02\0\x09\x62\x02\0\x01");
    let events = script.events();
    assert_eq!(published(&events), [(ticket, ReasonCode::Success)]);
    assert_eq!(messages(events).len(), 1);
}

#[test]
fn mqtt5_4_1_0_2_session_state_ends_when_its_expiry_has_passed_after_the_connection() {
    let mut rig = one();
    rig.run(
        "a> CONNECT a v5 expiry=30; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         +100s
         a!
         +29s
         p> CONNECT p v5; PUBLISH t 1 q1 id=1
         p< CONNACK 0; PUBACK 1
         +2s
         p> PUBLISH t 2 q1 id=2
         p< PUBACK 2 0x10
         a> CONNECT a v5 expiry=30
         a< CONNACK 0
         b> CONNECT b v5; SUBSCRIBE id=1 t:1
         b< CONNACK 0; SUBACK 1 1
         b!
         p> PUBLISH t 3 q1 id=3
         p< PUBACK 3 0x10
         b> CONNECT b v5
         b< CONNACK 0",
    );
    assert_eq!(rig.sum(|c| c.subscriptions), 0);
}

#[test]
fn mqtt5_4_3_1_1_qos_0_is_sent_with_qos_0_and_dup_0() {
    let mut rig = one();
    rig.run(
        "a> CONNECT a v5; SUBSCRIBE id=1 t:0
         a< CONNACK 0; SUBACK 1 0
         p> CONNECT p v5; PUBLISH t x; PUBLISH t x q1 id=1 dup; PUBLISH t x q2 id=2 dup
         p< CONNACK 0; PUBACK 1; PUBREC 2
         a< PUBLISH t x; PUBLISH t x; PUBLISH t x",
    );
    assert!(rig.pipe("a").down.ends_with(&b"\x30\x05\0\x01t\0x".repeat(3)));
    let mut script = Script::v5();
    script.publish(0, "t").unwrap();
    assert_eq!(script.sent(), b"\x30\x05\0\x01t\0x");
}

#[test]
fn mqtt5_4_3_2_1_each_qos_1_message_gets_an_unused_packet_identifier() {
    one().run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         p> CONNECT p v5; PUBLISH t 1 q1 id=7; PUBLISH t 2 q1 id=7; PUBLISH t 3 q1 id=7
         p< CONNACK 0; PUBACK 7; PUBACK 7; PUBACK 7
         a< PUBLISH t 1 q1 id=1; PUBLISH t 2 q1 id=2; PUBLISH t 3 q1 id=3
         a> PUBACK 2
         p> PUBLISH t 4 q1 id=7
         p< PUBACK 7
         a< PUBLISH t 4 q1 id=4
         a!
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBLISH t 1 q1 id=1 dup; PUBLISH t 3 q1 id=3 dup; PUBLISH t 4 q1 id=4 dup
         p> PUBLISH t 5 q1 id=7
         p< PUBACK 7
         a< PUBLISH t 5 q1 id=5",
    );
    let mut script = Script::v5();
    script.publish(1, "t").unwrap();
    script.client.subscribe(script.now, &[("t", Default::default())], Default::default()).unwrap();
    script.publish(1, "t").unwrap();
    script.receive(b"\x40\x02\0\x03");
    script.publish(1, "t").unwrap();
    assert_eq!(
        script.sent(),
        b"\x32\x07\0\x01t\0\x01\0x\x82\x07\0\x02\0\0\x01t\0\x32\x07\0\x01t\0\x03\0x\x32\x07\0\x01t\0\x04\0x"
    );
}

#[test]
fn mqtt5_4_3_2_2_qos_1_is_first_sent_with_dup_0() {
    // Whatever it came with, and when it waited for a connection or for its turn.
    one().run(
        "a> CONNECT a v5 expiry=100 rm=1; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         p> CONNECT p v5; PUBLISH t 1 q1 id=7 dup; PUBLISH t 2 q1 id=7 dup
         p< CONNACK 0; PUBACK 7; PUBACK 7
         a< PUBLISH t 1 q1 id=1
         a> PUBACK 1
         a< PUBLISH t 2 q1 id=2
         a> PUBACK 2
         a!
         p> PUBLISH t 3 q1 id=7 dup
         p< PUBACK 7
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBLISH t 3 q1 id=3",
    );
    let mut script = Script::v5();
    script.publish(1, "t").unwrap();
    assert_eq!(script.sent(), b"\x32\x07\0\x01t\0\x01\0x");
    script.receive(b"\x40\x02\0\x01");
    script.client.transport_down(script.now);
    script.publish(1, "t").unwrap();
    script.reconnect(RESUMED);
    assert_eq!(script.sent(), b"\x32\x07\0\x01t\0\x02\0x");
}

#[test]
fn mqtt5_4_3_2_3_qos_1_is_unacknowledged_until_its_puback() {
    one().run(
        "a> CONNECT a v5 expiry=100 rm=1; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         p> CONNECT p v5; PUBLISH t 1 q1 id=7; PUBLISH t 2 q1 id=8
         p< CONNACK 0; PUBACK 7; PUBACK 8
         a< PUBLISH t 1 q1 id=1
         a> PUBACK 2; PUBCOMP 1; PUBREC 1 0x80
         a!
         a> CONNECT a v5 expiry=100 rm=1
         a< CONNACK 0 present; PUBLISH t 1 q1 id=1 dup
         a> PUBACK 1
         a< PUBLISH t 2 q1 id=2
         a> PUBACK 2
         a!
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present",
    );
    let mut script = Script::v5();
    let ticket = script.publish(1, "t").unwrap();
    script.receive(b"\x40\x02\0\x02\x70\x02\0\x01\x50\x03\0\x01\x80");
    assert_eq!((published(&script.events()), script.client.unfinished()), (vec![], 1));
    script.reconnect(RESUMED);
    assert_eq!(script.sent(), b"\x3a\x07\0\x01t\0\x01\0x");
    script.receive(b"\x40\x02\0\x01");
    assert_eq!(published(&script.events()), [(ticket, ReasonCode::Success)]);
    script.reconnect(RESUMED);
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_4_3_2_4_qos_1_is_answered_by_a_puback_with_its_packet_identifier() {
    // With several shards it leaves when all of them have the message.
    for shards in [1, 3] {
        Rig::new(shards, 0, quiet()).run(
            "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:1
             a< CONNACK 0; SUBACK 1 1
             a!
             p> CONNECT p v5; PUBLISH t 1 q1 id=65535; PUBLISH t 2 q1 id=1 dup; PUBLISH t 3 q1 id=258
             p< CONNACK 0; PUBACK 65535; PUBACK 1; PUBACK 258
             a> CONNECT a v5 expiry=100
             a< CONNACK 0 present; PUBLISH t 1 q1 id=1; PUBLISH t 2 q1 id=2; PUBLISH t 3 q1 id=3",
        );
    }
    let options = Options { acknowledge: Acknowledge::Manually, ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x03\0\0\0");
    script.receive(b"\x32\x06\0\x01a\xff\xff\0");
    assert!(script.sent().is_empty(), "the application has not taken it");
    let token = messages(script.events())[0].token.unwrap();
    script.client.acknowledge(script.now, token);
    assert_eq!(script.sent(), b"\x40\x02\xff\xff");
}

#[test]
fn mqtt5_4_3_2_5_after_puback_the_packet_identifier_names_a_new_message_dup_or_not() {
    one().run(
        "a> CONNECT a v5; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         p> CONNECT p v5; PUBLISH t x q1 id=7; PUBLISH t x q1 id=7; PUBLISH t x q1 id=7 dup
         p< CONNACK 0; PUBACK 7; PUBACK 7; PUBACK 7
         a< PUBLISH t x q1 id=1; PUBLISH t x q1 id=2; PUBLISH t x q1 id=3",
    );
    let mut script = Script::v5();
    script.receive(b"\x32\x06\0\x01a\0\x07\0\x32\x06\0\x01a\0\x07\0\x3a\x06\0\x01a\0\x07\0");
    assert_eq!(messages(script.events()).len(), 3);
    assert_eq!(script.sent(), b"\x40\x02\0\x07".repeat(3));
}

#[test]
fn mqtt5_4_3_3_1_each_qos_2_message_gets_an_unused_packet_identifier() {
    one().run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=7; PUBREL 7; PUBLISH t 2 q2 id=7; PUBREL 7; PUBLISH t 3 q1 id=7
         p< CONNACK 0; PUBREC 7; PUBCOMP 7; PUBREC 7; PUBCOMP 7; PUBACK 7
         a< PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q1 id=3
         a> PUBREC 1; PUBREC 2
         a< PUBREL 1; PUBREL 2
         a> PUBCOMP 2
         a!
         p> PUBLISH t 4 q2 id=7
         p< PUBREC 7
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBREL 1; PUBLISH t 3 q1 id=3 dup; PUBLISH t 4 q2 id=4",
    );
    let mut script = Script::v5();
    script.publish(2, "t").unwrap();
    script.publish(2, "t").unwrap();
    script.receive(b"\x50\x02\0\x01\x50\x02\0\x02\x70\x02\0\x02");
    script.publish(2, "t").unwrap();
    assert_eq!(script.sent(), {
        b"\x34\x07\0\x01t\0\x01\0x\x34\x07\0\x01t\0\x02\0x\x62\x02\0\x01\x62\x02\0\x02\x34\x07\0\x01t\0\x03\0x"
    });
}

#[test]
fn mqtt5_4_3_3_2_qos_2_is_first_sent_with_dup_0() {
    one().run(
        "a> CONNECT a v5 expiry=100 rm=1; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=7 dup; PUBLISH t 2 q2 id=8 dup
         p< CONNACK 0; PUBREC 7; PUBREC 8
         a< PUBLISH t 1 q2 id=1
         a> PUBREC 1; PUBCOMP 1
         a< PUBREL 1; PUBLISH t 2 q2 id=2
         a> PUBREC 2; PUBCOMP 2
         a< PUBREL 2
         a!
         p> PUBLISH t 3 q2 id=9 dup
         p< PUBREC 9
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBLISH t 3 q2 id=3",
    );
    let mut script = Script::v5();
    script.publish(2, "t").unwrap();
    assert_eq!(script.sent(), b"\x34\x07\0\x01t\0\x01\0x");
    script.client.transport_down(script.now);
    script.publish(2, "t").unwrap();
    script.reconnect(RESUMED);
    assert_eq!(script.sent(), b"\x3c\x07\0\x01t\0\x01\0x\x34\x07\0\x01t\0\x02\0x");
}

#[test]
fn mqtt5_4_3_3_3_qos_2_is_unacknowledged_until_its_pubrec() {
    one().run(
        "a> CONNECT a v5 expiry=100 rm=1; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=7; PUBLISH t 2 q2 id=8
         p< CONNACK 0; PUBREC 7; PUBREC 8
         a< PUBLISH t 1 q2 id=1
         a> PUBACK 1; PUBCOMP 1; PUBREC 2 0x80
         a!
         a> CONNECT a v5 expiry=100 rm=1
         a< CONNACK 0 present; PUBLISH t 1 q2 id=1 dup
         a> PUBREC 1
         a< PUBREL 1
         a!
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBREL 1; PUBLISH t 2 q2 id=2",
    );
    let mut script = Script::v5();
    script.publish(2, "t").unwrap();
    script.receive(b"\x40\x02\0\x01\x70\x02\0\x01\x50\x03\0\x02\x80");
    assert_eq!((published(&script.events()), script.client.unfinished()), (vec![], 1));
    script.reconnect(RESUMED);
    assert_eq!(script.sent(), b"\x3c\x07\0\x01t\0\x01\0x");
    script.receive(b"\x50\x02\0\x01");
    script.reconnect(RESUMED);
    assert_eq!(script.sent(), b"\x62\x02\0\x01");
}

#[test]
fn mqtt5_4_3_3_4_each_pubrec_without_an_error_is_answered_by_a_pubrel_with_its_packet_identifier() {
    one().run(
        "a> CONNECT a v5; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=7; PUBLISH t 2 q2 id=8; PUBLISH t 3 q2 id=9
         p< CONNACK 0; PUBREC 7; PUBREC 8; PUBREC 9
         a< PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q2 id=3
         a> PUBREC 2; PUBREC 1 0x10; PUBREC 3 0x80; PUBREC 9 0x80; PUBREC 1
         a< PUBREL 2; PUBREL 1; PUBREL 1",
    );
    let mut script = Script::v5();
    let tickets = [0; 3].map(|_| script.publish(2, "t").unwrap());
    script.sent();
    script.receive(b"\x50\x02\0\x02\x50\x03\0\x01\x10\x50\x03\0\x03\x80\x50\x03\0\x09\x80");
    assert_eq!(script.sent(), b"\x62\x02\0\x02\x62\x02\0\x01");
    assert_eq!(published(&script.events()), [(tickets[2], ReasonCode::UnspecifiedError)]);
}

#[test]
fn mqtt5_4_3_3_5_pubrel_is_unacknowledged_until_its_pubcomp() {
    let script = "a> CONNECT a v5 expiry=100 rm=1; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=7; PUBLISH t 2 q2 id=8
         p< CONNACK 0; PUBREC 7; PUBREC 8
         a< PUBLISH t 1 q2 id=1
         a> PUBREC 1
         a< PUBREL 1
         a> PUBACK 1; PUBCOMP 2
         a!
         a> CONNECT a v5 expiry=100 rm=1
         a< CONNACK 0 present; PUBREL 1
         a!
         a> CONNECT a v5 expiry=100 rm=1
         a< CONNACK 0 present; PUBREL 1
         a> PUBCOMP 1
         a< PUBLISH t 2 q2 id=2";
    one().run(script);
    let mut script = Script::v5();
    let ticket = script.publish(2, "t").unwrap();
    script.receive(b"\x50\x02\0\x01\x40\x02\0\x01\x70\x02\0\x02");
    for _ in 0..2 {
        assert_eq!((published(&script.events()), script.client.unfinished()), (vec![], 1));
        script.reconnect(RESUMED);
        assert_eq!(script.sent(), b"\x62\x02\0\x01");
    }
    script.receive(b"\x70\x02\0\x01");
    assert_eq!(published(&script.events()), [(ticket, ReasonCode::Success)]);
    script.reconnect(RESUMED);
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_4_3_3_6_after_pubrel_the_publish_is_not_sent_again() {
    one().run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=7
         p< CONNACK 0; PUBREC 7
         a< PUBLISH t 1 q2 id=1
         a> PUBREC 1
         a< PUBREL 1
         a> PUBREC 1
         a< PUBREL 1
         a!
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBREL 1
         a> PUBREC 1; PUBCOMP 1
         a< PUBREL 1
         a!
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present",
    );
    let mut script = Script::v5();
    script.publish(2, "t").unwrap();
    script.sent();
    script.receive(b"\x50\x02\0\x01\x50\x02\0\x01");
    assert_eq!(script.sent(), b"\x62\x02\0\x01".repeat(2));
    script.reconnect(RESUMED);
    assert_eq!(script.sent(), b"\x62\x02\0\x01");
    script.receive(b"\x70\x02\0\x01");
    script.reconnect(RESUMED);
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_4_3_3_7_what_was_sent_does_not_expire() {
    one().run(
        "a> CONNECT a v5 expiry=1000 rm=1; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=7 exp=10; PUBLISH t 2 q2 id=8 exp=10
         p< CONNACK 0; PUBREC 7; PUBREC 8
         a< PUBLISH t 1 q2 id=1 exp=10
         a!
         +100s
         a> CONNECT a v5 expiry=1000 rm=1
         a< CONNACK 0 present; PUBLISH t 1 q2 id=1 dup exp=0
         a> PUBREC 1
         a< PUBREL 1
         +100s
         a> PUBCOMP 1",
    );
    let mut script = Script::v5();
    let mut expiry = PropertiesBuf::default();
    expiry.push(Property::MessageExpiryInterval(5));
    let (qos, properties) = (QoS::ExactlyOnce, expiry.as_properties());
    let request = PublishRequest { topic: "t", qos, properties, ..Default::default() };
    let ticket = script.client.publish(script.now, &request).unwrap();
    script.client.transport_down(script.now);
    script.wait(50);
    script.reconnect(RESUMED);
    assert_eq!(script.sent(), b"\x3c\x0b\0\x01t\0\x01\x05\x02\0\0\0\0");
    script.receive(b"\x50\x02\0\x01\x70\x02\0\x01");
    assert_eq!(published(&script.events()), [(ticket, ReasonCode::Success)]);
}

#[test]
fn mqtt5_4_3_3_8_qos_2_is_answered_by_a_pubrec_with_its_packet_identifier() {
    for shards in [1, 3] {
        Rig::new(shards, 0, quiet()).run(
            "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:2
             a< CONNACK 0; SUBACK 1 2
             a!
             p> CONNECT p v5; PUBLISH t 1 q2 id=65535; PUBLISH t 2 q2 id=1 dup; PUBLISH t 3 q2 id=258
             p< CONNACK 0; PUBREC 65535; PUBREC 1; PUBREC 258
             a> CONNECT a v5 expiry=100
             a< CONNACK 0 present; PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q2 id=3",
        );
    }
    let options = Options { acknowledge: Acknowledge::Manually, ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x03\0\0\0");
    script.receive(b"\x34\x06\0\x01a\xff\xff\0");
    assert!(script.sent().is_empty(), "the application has not taken it");
    let token = messages(script.events())[0].token.unwrap();
    script.client.acknowledge(script.now, token);
    assert_eq!(script.sent(), b"\x50\x02\xff\xff");
}

#[test]
fn mqtt5_4_3_3_9_after_a_pubrec_with_an_error_the_packet_identifier_names_a_new_message() {
    // The client sends no PUBREC with an error.
    let mut rig = Rig::new(1, 0, Config { max_inflight_messages: 1, ..guarded() });
    rig.run(
        "a> CONNECT a v5; SUBSCRIBE id=1 t
         a< CONNACK 0; SUBACK 1 0
         p> CONNECT p v5; PUBLISH closed/t 1 q2 id=7; PUBLISH closed/t 2 q2 id=7 dup; PUBLISH t size=51 q2 id=7
         p< CONNACK 0; PUBREC 7 0x87; PUBREC 7 0x87; PUBREC 7 0x83
         p> PUBLISH t 3 q2 id=7 dup; PUBLISH t 3 q2 id=7 dup; PUBREL 7
         p< PUBREC 7; PUBREC 7; PUBCOMP 7
         a< PUBLISH t 3",
    );
}

#[test]
fn mqtt5_4_3_3_10_until_its_pubrel_a_packet_identifier_names_one_message_that_goes_on_once() {
    one().run(
        "a> CONNECT a v5; SUBSCRIBE id=1 t:2 #:1 $share/g/t:2
         a< CONNACK 0; SUBACK 1 2 1 2
         p> CONNECT p v5 expiry=100; PUBLISH t x q2 id=7; PUBLISH t x q2 id=7 dup; PUBLISH t other q2 id=7
         p< CONNACK 0; PUBREC 7; PUBREC 7; PUBREC 7
         a< PUBLISH t x q2 id=1; PUBLISH t x q2 id=2
         p!
         p> CONNECT p v5 expiry=100; PUBLISH t x q2 id=7 dup; PUBLISH t y q2 id=8
         p< CONNACK 0 present; PUBREC 7; PUBREC 8
         a< PUBLISH t y q2 id=3; PUBLISH t y q2 id=4
         q> CONNECT p v5 expiry=100; PUBLISH t x q2 id=7 dup; PUBLISH t y q2 id=8 dup
         q< CONNACK 0 present; PUBREC 7; PUBREC 8
         p< DISCONNECT 0x8e; CLOSED",
    );
    let mut script = Script::v5();
    script.receive(b"\x34\x07\0\x01a\0\x07\0x\x3c\x07\0\x01a\0\x07\0x\x34\x07\0\x01a\0\x07\0y");
    assert_eq!(script.sent(), b"\x50\x02\0\x07".repeat(3));
    assert_eq!(messages(script.events()).len(), 1);
    script.reconnect(RESUMED);
    script.receive(b"\x3c\x07\0\x01a\0\x07\0x");
    assert_eq!(script.sent(), b"\x50\x02\0\x07");
    assert!(messages(script.events()).is_empty());
}

#[test]
fn mqtt5_4_3_3_11_each_pubrel_is_answered_by_a_pubcomp_with_its_packet_identifier() {
    one().run(AWAY).run(
        "p> CONNECT p v5 expiry=100; PUBLISH t x q2 id=7; PUBLISH t x q2 id=65535; PUBREL 65535
         p< CONNACK 0; PUBREC 7; PUBREC 65535; PUBCOMP 65535
         p!
         p> CONNECT p v5 expiry=100; PUBREL 7
         p< CONNACK 0 present; PUBCOMP 7",
    );
    // Of a message that is not known, too.
    let mut rig = one();
    rig.send("p", "CONNECT p v5; PUBREL 9");
    assert!(rig.news("p").starts_with("CONNACK 0; PUBCOMP 9"));
    let mut script = Script::v5();
    script.receive(b"\x34\x07\0\x01a\0\x07\0x\x34\x07\0\x01a\xff\xff\0x");
    script.sent();
    script.receive(b"\x62\x02\xff\xff\x62\x02\0\x07\x62\x02\0\x07");
    assert_eq!(script.sent(), b"\x70\x02\xff\xff\x70\x02\0\x07\x70\x03\0\x07\x92");
}

#[test]
fn mqtt5_4_3_3_12_after_pubcomp_the_packet_identifier_names_a_new_message_dup_or_not() {
    one().run(
        "a> CONNECT a v5; SUBSCRIBE id=1 t
         a< CONNACK 0; SUBACK 1 0
         p> CONNECT p v5; PUBLISH t x q2 id=7; PUBREL 7; PUBLISH t x q2 id=7; PUBREL 7; PUBLISH t x q2 id=7 dup
         p< CONNACK 0; PUBREC 7; PUBCOMP 7; PUBREC 7; PUBCOMP 7; PUBREC 7
         a< PUBLISH t x; PUBLISH t x; PUBLISH t x",
    );
    let mut script = Script::v5();
    script.receive(b"\x34\x07\0\x01a\0\x07\0x\x62\x02\0\x07\x3c\x07\0\x01a\0\x07\0x");
    assert_eq!(messages(script.events()).len(), 2);
}

#[test]
fn mqtt5_4_3_3_13_expiry_does_not_end_the_exchange_of_acknowledgements() {
    // Of a message that nobody got in time, too.
    one().run(
        "a> CONNECT a v5 expiry=1000; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         a!
         p> CONNECT p v5; PUBLISH t x q2 id=7 exp=1; PUBLISH t y q2 id=8 exp=0
         p< CONNACK 0; PUBREC 7; PUBREC 8
         +100s
         p> PUBLISH t x q2 id=7 exp=1 dup; PUBREL 7; PUBREL 8
         p< PUBREC 7; PUBCOMP 7; PUBCOMP 8
         a> CONNECT a v5 expiry=1000
         a< CONNACK 0 present",
    );
    let options = Options { keep_alive_s: 0, ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x03\0\0\0");
    // Message Expiry Interval 1.
    script.receive(b"\x34\x0b\0\x01a\0\x07\x05\x02\0\0\0\x01");
    script.wait(100);
    script.receive(b"\x3c\x0b\0\x01a\0\x07\x05\x02\0\0\0\0\x62\x02\0\x07");
    assert_eq!(script.sent(), b"\x50\x02\0\x07\x50\x02\0\x07\x70\x02\0\x07");
}
