//! MQTT 5.0, 3.8 to 3.11: SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK.

use crate::common::script::Script;
use crate::common::{Rig, one, quiet};
use crate::v5_acks::{answers, assert_closed, assert_left, guarded};
use crate::v5_packets::refused;
use hikyaku_proto::broker::{Config, Listener, ListenerLimits};
use hikyaku_proto::client::{Event, SendError};
use hikyaku_proto::codec::{EncodeError, Properties, QoS, ReasonCode, SubscribeOptions};

/// What the client says to these filters; the answer gets the packet identifier 1.
fn subscribe(script: &mut Script, filters: &[&str]) -> Result<(), SendError> {
    let filters: Vec<_> = filters.iter().map(|&f| (f, SubscribeOptions::default())).collect();
    script.client.subscribe(script.now, &filters, Properties::EMPTY).map(|_| ())
}

fn unsubscribe(script: &mut Script, filters: &[&str]) -> Result<(), SendError> {
    script.client.unsubscribe(script.now, filters, Properties::EMPTY).map(|_| ())
}

/// The codes of the answers that the client got.
fn codes(script: &mut Script) -> Vec<Vec<ReasonCode>> {
    let codes = |event| match event {
        Event::Subscribed { codes, .. } | Event::Unsubscribed { codes, .. } => Some(codes),
        _ => None,
    };
    script.events().into_iter().filter_map(codes).collect()
}

/// The client takes an answer to one filter with one of these codes and no other.
fn client_takes_only(first: u8, allowed: &[u8]) {
    for code in 0..=255 {
        let mut script = Script::v5();
        match first {
            0x90 => subscribe(&mut script, &["t"]).unwrap(),
            _ => unsubscribe(&mut script, &["t"]).unwrap(),
        }
        script.sent();
        script.receive(&[first, 4, 0, 1, 0, code]);
        match allowed.contains(&code) {
            true => assert_eq!(codes(&mut script), [[ReasonCode::from_u8(code).unwrap()]]),
            false => assert_left(&mut script),
        }
    }
}

/// The broker closes when it gets this.
fn closes(packet: &str) {
    let mut rig = one();
    rig.run("a> CONNECT a v5\n a< CONNACK 0");
    rig.send("a", &format!("RAW {packet}; PINGREQ"));
    assert_closed(&rig.news("a"));
}

#[test]
fn mqtt5_3_8_1_1_subscribe_with_other_flags_is_malformed() {
    for flags in (0..16).filter(|&flags| flags != 2) {
        refused(&format!("8{flags:x} 07 00 01 00 00 01 74 00"), "0x81");
    }
    one().run("a> CONNECT a clean v5; RAW 82 07 00 01 00 00 01 74 00\n a< CONNACK 0; SUBACK 1 0");
    let mut script = Script::v5();
    subscribe(&mut script, &["t"]).unwrap();
    assert_eq!(script.sent(), b"\x82\x07\0\x01\0\0\x01t\0");
}

#[test]
fn mqtt5_3_8_3_1_topic_filters_that_are_not_utf_8_are_malformed() {
    for text in ["ed a0 80", "c1 81 61", "61 80 61", "61 61 c3", "61 00 61"] {
        refused(&format!("82 09 00 01 00 00 03 {text} 00"), "0x81");
    }
    // A length beyond the end of the packet.
    refused("82 07 00 01 00 00 05 74 00", "0x81");
    one().run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 日本/飛脚; PUBLISH 日本/飛脚 x
         a< CONNACK 0; SUBACK 1 0; PUBLISH 日本/飛脚 x",
    );
}

#[test]
fn mqtt5_3_8_3_2_a_subscribe_without_topic_filters_is_an_error() {
    closes("82 03 00 01 00");
    // A filter without options.
    closes("82 06 00 01 00 00 01 74");
    let mut script = Script::v5();
    assert_eq!(subscribe(&mut script, &[]), Err(SendError::Encode(EncodeError::Empty)));
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_3_8_3_3_no_local_keeps_what_a_client_sends_from_itself_alone() {
    one().run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:2:nl u:2
         a< CONNACK 0; SUBACK 1 2 2
         b> CONNECT b clean v5; SUBSCRIBE id=1 t:1:nl
         b< CONNACK 0; SUBACK 1 1
         a> PUBLISH t 1 q1 id=1; PUBLISH u 2 q1 id=2
         b< PUBLISH t 1 q1 id=1
         a< PUBACK 1; PUBLISH u 2 q1 id=1; PUBACK 2
         b> PUBLISH t 3 q1 id=1
         a< PUBLISH t 3 q1 id=2
         b< PUBACK 1",
    );
}

#[test]
fn mqtt5_3_8_3_3_no_local_holds_for_the_will_of_the_client_too() {
    let mut rig = Rig::new(2, 0, quiet());
    rig.run(
        "a> CONNECT a v5 expiry=100 will=t,bye,q1; SUBSCRIBE id=1 t:1:nl
         a< CONNACK 0; SUBACK 1 1
         b> CONNECT b clean v5; SUBSCRIBE id=1 t
         b< CONNACK 0; SUBACK 1 0
         a!
         b< PUBLISH t bye
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present",
    );
    // Where the will went says nothing of where the messages of others go, on whichever shard they are.
    for (name, id) in ["c", "d", "e", "f", "g", "h"].into_iter().zip(1..) {
        rig.run(&format!(
            "{name}> CONNECT {name} clean v5; PUBLISH t x q1 id=1
             {name}< CONNACK 0; PUBACK 1
             a< PUBLISH t x q1 id={id}
             b< PUBLISH t x"
        ));
    }
}

#[test]
fn mqtt5_3_8_3_4_no_local_on_a_shared_subscription_is_a_protocol_error() {
    one()
        .run("a> CONNECT a clean v5; SUBSCRIBE id=1 t $share/g/t:nl\n a< CONNACK 0; DISCONNECT 0x82; CLOSED");
    let mut script = Script::v5();
    let options = SubscribeOptions { no_local: true, ..SubscribeOptions::default() };
    let result = script.client.subscribe(script.now, &[("$share/g/t", options)], Properties::EMPTY);
    assert_eq!(result, Err(SendError::NoLocalOnShared));
}

#[test]
fn mqtt5_3_8_3_5_reserved_bits_of_subscription_options_are_malformed() {
    for options in ["40", "80", "c0", "6d"] {
        refused(&format!("82 07 00 01 00 00 01 74 {options}"), "0x81");
        // In the second pair as well.
        refused(&format!("82 0b 00 01 00 00 01 74 00 00 01 75 {options}"), "0x81");
    }
    // All others set: QoS 2, No Local, Retain As Published, Retain Handling 2.
    one().run("a> CONNECT a clean v5; RAW 82 07 00 01 00 00 01 74 2e\n a< CONNACK 0; SUBACK 1 2");
}

#[test]
fn mqtt5_3_8_4_1_each_subscribe_is_answered_by_one_suback() {
    let mut rig = Rig::new(1, 0, guarded());
    rig.run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 t; SUBSCRIBE id=2 t; SUBSCRIBE id=3 closed/t; SUBSCRIBE id=4 a b c
         a< CONNACK 0; SUBACK 1 0; SUBACK 2 0; SUBACK 3 0x87; SUBACK 4 0 0 0",
    );
    // With several shards it comes when all of them know of it.
    for seed in 0..20 {
        let mut rig = Rig::new(3, seed, quiet());
        rig.send("a", "CONNECT a clean v5; SUBSCRIBE id=1 t; SUBSCRIBE id=2 $share/g/t");
        let news = rig.news("a");
        assert_eq!(news.matches("SUBACK").count(), 2, "{news}");
    }
}

#[test]
fn mqtt5_3_8_4_2_suback_has_the_packet_identifier_of_its_subscribe() {
    one().run(
        "a> CONNECT a clean v5; SUBSCRIBE id=65535 a; SUBSCRIBE id=1 b; SUBSCRIBE id=258 c; SUBSCRIBE id=1 d
         a< CONNACK 0; SUBACK 65535 0; SUBACK 1 0; SUBACK 258 0; SUBACK 1 0",
    );
    // The client finds its request by it.
    let mut script = Script::v5();
    subscribe(&mut script, &["a"]).unwrap();
    subscribe(&mut script, &["b"]).unwrap();
    script.receive(b"\x90\x04\0\x09\0\0");
    assert_eq!(codes(&mut script), [] as [Vec<ReasonCode>; 0]);
    script.receive(b"\x90\x04\0\x02\0\x02\x90\x04\0\x01\0\x01");
    assert_eq!(codes(&mut script), [[ReasonCode::GrantedQoS2], [ReasonCode::GrantedQoS1]]);
}

#[test]
fn mqtt5_3_8_4_3_the_same_topic_filter_replaces_the_subscription() {
    let mut rig = one();
    rig.run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 sid=1 t/+:2; SUBSCRIBE id=2 sid=2 t/+:1:rap
         a< CONNACK 0; SUBACK 1 2; SUBACK 2 1
         p> CONNECT p clean v5; PUBLISH t/x 1 q2 id=1 r
         p< CONNACK 0; PUBREC 1
         a< PUBLISH t/x 1 q1 id=1 r sid=2
         a!
         a> CONNECT a v5 expiry=100; SUBSCRIBE id=3 t/+:0:rh2
         a< CONNACK 0 present; PUBLISH t/x 1 q1 id=1 r dup sid=2; SUBACK 3 0
         p> PUBLISH t/x 2 q1 id=2
         p< PUBACK 2
         a< PUBLISH t/x 2",
    );
    assert_eq!(rig.sum(|c| c.subscriptions), 1);
    rig.run("a> UNSUBSCRIBE id=4 t/+; UNSUBSCRIBE id=5 t/+\n a< UNSUBACK 4 0; UNSUBACK 5 0x11");
}

#[test]
fn mqtt5_3_8_4_4_to_replace_a_subscription_sends_retained_messages_again_and_loses_nothing() {
    one().run(
        "p> CONNECT p clean v5; PUBLISH t kept q1 id=1 r
         p< CONNACK 0; PUBACK 1 0x10
         a> CONNECT a v5 clean rm=2; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1; PUBLISH t kept q1 id=1 r
         p> PUBLISH t 1 q1 id=1; PUBLISH t 2 q1 id=1; PUBLISH t 3 q1 id=1
         p< PUBACK 1; PUBACK 1; PUBACK 1
         a< PUBLISH t 1 q1 id=2
         a> SUBSCRIBE id=2 t:1
         a< SUBACK 2 1
         p> PUBLISH t 4 q1 id=1
         p< PUBACK 1
         a> PUBACK 1; PUBACK 2
         a< PUBLISH t 2 q1 id=3; PUBLISH t 3 q1 id=4
         a> PUBACK 3; PUBACK 4
         a< PUBLISH t 4 q1 id=5; PUBLISH t kept q1 id=6 r",
    );
}

#[test]
fn mqtt5_3_8_4_5_several_topic_filters_are_like_several_subscribes() {
    let mut rig = Rig::new(1, 0, guarded());
    rig.run(
        "p> CONNECT p clean v5; PUBLISH t kept r; PUBLISH u kept r
         p< CONNACK 0
         a> CONNECT a v5 clean; SUBSCRIBE id=1 sid=7 t:2 closed/t t:1:rh1 u
         a< CONNACK 0; SUBACK 1 2 0x87 1 0; PUBLISH t kept r sid=7; PUBLISH u kept r sid=7
         p> PUBLISH t 1 q2 id=1
         p< PUBREC 1
         a< PUBLISH t 1 q1 id=1 sid=7",
    );
    assert_eq!(rig.sum(|c| c.subscriptions), 2);
}

#[test]
fn mqtt5_3_8_4_6_suback_has_one_code_per_topic_filter() {
    let mut rig = Rig::new(1, 0, Config { max_subscriptions: 3, ..guarded() });
    rig.run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 a a a; SUBSCRIBE id=2 b closed/t closed/u c d
         a< CONNACK 0; SUBACK 1 0 0 0; SUBACK 2 0 0x87 0x87 0 0x97",
    );
    // The client takes no other number.
    for codes in [&[0][..], &[0, 0, 0], &[]] {
        let mut script = Script::v5();
        subscribe(&mut script, &["a", "b"]).unwrap();
        script.sent();
        script.receive(&[&[0x90, 3 + codes.len() as u8, 0, 1, 0][..], codes].concat());
        script.assert_failed(ReasonCode::ProtocolError);
    }
}

#[test]
fn mqtt5_3_8_4_7_the_code_is_the_granted_maximum_qos_or_a_failure() {
    for (qos, granted) in
        [(QoS::AtMostOnce, [0, 0, 0]), (QoS::AtLeastOnce, [0, 1, 1]), (QoS::ExactlyOnce, [0, 1, 2])]
    {
        let mut config = guarded();
        let limits = ListenerLimits { max_qos: qos, ..ListenerLimits::default() };
        config.listeners = vec![Listener { limits, ..config.listeners.remove(0) }];
        let mut rig = Rig::new(1, 0, config);
        let [a, b, c] = granted;
        rig.run(&format!(
            "a> CONNECT a clean v5; SUBSCRIBE id=1 a:0 b:1 c:2 closed/t:2
             a< CONNACK 0; SUBACK 1 {a} {b} {c} 0x87
             p> CONNECT p clean v5; PUBLISH closed/t x; PUBLISH a x
             p< CONNACK 0
             a< PUBLISH a x"
        ));
    }
}

#[test]
fn mqtt5_3_8_4_8_messages_come_with_the_lower_of_both_qos() {
    for granted in 0..3u8 {
        for published in 0..3u8 {
            let mut rig = one();
            rig.run(&format!(
                "a> CONNECT a clean v5; SUBSCRIBE id=1 t:{granted}\n a< CONNACK 0; SUBACK 1 {granted}"
            ));
            rig.send("p", &format!("CONNECT p clean v5; PUBLISH t x r q{published} id={}", published.min(1)));
            let flags = |id: u8| match granted.min(published) {
                0 => String::new(),
                qos => format!(" q{qos} id={id}"),
            };
            rig.news("p");
            rig.run(&format!(
                "a< PUBLISH t x{}
                 a> SUBSCRIBE id=2 t:{granted}
                 a< SUBACK 2 {granted}; PUBLISH t x{} r",
                flags(1),
                flags(2),
            ));
        }
    }
}

#[test]
fn mqtt5_3_9_2_1_suback_never_carries_a_reason_string() {
    answers(&guarded(), "SUBSCRIBE id=1 closed/t", b"\x90\x04\0\x01\0\x87");
    let few = Config { max_subscriptions: 0, ..quiet() };
    answers(&few, "SUBSCRIBE id=1 a b", b"\x90\x05\0\x01\0\x97\x97");
}

#[test]
fn mqtt5_3_9_2_2_suback_never_carries_user_properties() {
    // Not even those of the SUBSCRIBE.
    answers(&quiet(), "RAW 82 0e 00 01 07 26 00 01 6b 00 01 76 00 01 74 00", b"\x90\x04\0\x01\0\0");
}

#[test]
fn mqtt5_3_9_3_1_the_codes_of_suback_are_in_the_order_of_the_topic_filters() {
    Rig::new(1, 0, guarded()).run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 z:2 closed/t:1 b:0 $share/g/y:2 a:1
         a< CONNACK 0; SUBACK 1 2 0x87 0 2 1",
    );
    let mut script = Script::v5();
    subscribe(&mut script, &["z", "a", "b"]).unwrap();
    script.receive(b"\x90\x06\0\x01\0\x02\x87\x01");
    let expected = [ReasonCode::GrantedQoS2, ReasonCode::NotAuthorized, ReasonCode::GrantedQoS1];
    assert_eq!(codes(&mut script), [expected]);
}

#[test]
fn mqtt5_3_9_3_2_suback_has_codes_of_its_own_and_the_client_refuses_others() {
    let config = Config { max_subscriptions: 4, ..guarded() };
    Rig::new(1, 0, config).run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 a:0 b:1 c:2 $share/g/d:1 e closed/t
         a< CONNACK 0; SUBACK 1 0 1 2 1 0x97 0x87",
    );
    client_takes_only(0x90, &[0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2]);
}

#[test]
fn mqtt5_3_10_1_1_unsubscribe_with_other_flags_is_malformed() {
    for flags in (0..16).filter(|&flags| flags != 2) {
        refused(&format!("a{flags:x} 06 00 01 00 00 01 74"), "0x81");
    }
    one().run("a> CONNECT a clean v5; RAW a2 06 00 01 00 00 01 74\n a< CONNACK 0; UNSUBACK 1 0x11");
    let mut script = Script::v5();
    unsubscribe(&mut script, &["t"]).unwrap();
    assert_eq!(script.sent(), b"\xa2\x06\0\x01\0\0\x01t");
}

#[test]
fn mqtt5_3_10_3_1_topic_filters_to_unsubscribe_that_are_not_utf_8_are_malformed() {
    for text in ["ed a0 80", "c1 81 61", "61 80 61", "61 61 c3", "61 00 61"] {
        refused(&format!("a2 08 00 01 00 00 03 {text}"), "0x81");
    }
    refused("a2 06 00 01 00 00 05 74", "0x81");
    one().run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 日本/飛脚; UNSUBSCRIBE id=2 日本/飛脚
         a< CONNACK 0; SUBACK 1 0; UNSUBACK 2 0",
    );
}

#[test]
fn mqtt5_3_10_3_2_an_unsubscribe_without_topic_filters_is_an_error() {
    closes("a2 03 00 01 00");
    let mut script = Script::v5();
    assert_eq!(unsubscribe(&mut script, &[]), Err(SendError::Encode(EncodeError::Empty)));
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_3_10_4_1_only_the_very_same_topic_filter_ends_a_subscription() {
    let mut rig = one();
    rig.run(
        "b> CONNECT b clean v5; SUBSCRIBE id=1 a/+
         b< CONNACK 0; SUBACK 1 0
         a> CONNECT a clean v5; SUBSCRIBE id=1 a/+ A/b $share/g/a/+ #
         a< CONNACK 0; SUBACK 1 0 0 0 0
         a> UNSUBSCRIBE id=2 a/b a/# A/+ a/+/ a/B + $share/h/a/+ $share/G/a/+
         a< UNSUBACK 2 0x11 0x11 0x11 0x11 0x11 0x11 0x11 0x11",
    );
    assert_eq!(rig.sum(|c| c.shared_subscriptions), 1);
    rig.run(
        "a> UNSUBSCRIBE id=3 #; PUBLISH a/x 1; UNSUBSCRIBE id=4 $share/g/a/+; PUBLISH a/x 2; UNSUBSCRIBE id=5 a/+; PUBLISH a/x 3
         a< UNSUBACK 3 0; PUBLISH a/x 1; PUBLISH a/x 1; UNSUBACK 4 0; PUBLISH a/x 2; UNSUBACK 5 0
         b< PUBLISH a/x 1; PUBLISH a/x 2; PUBLISH a/x 3",
    );
}

#[test]
fn mqtt5_3_10_4_2_after_unsubscribe_no_more_messages_are_added() {
    one().run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:1 u:1; UNSUBSCRIBE id=2 t
         a< CONNACK 0; SUBACK 1 1 1; UNSUBACK 2 0
         p> CONNECT p clean v5; PUBLISH t 1 q1 id=1
         p< CONNACK 0; PUBACK 1 0x10
         a!
         p> PUBLISH t 2 q1 id=2; PUBLISH u 3 q1 id=3
         p< PUBACK 2 0x10; PUBACK 3
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBLISH u 3 q1 id=1",
    );
}

#[test]
fn mqtt5_3_10_4_3_unsubscribe_lets_begun_deliveries_end() {
    one().run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean v5; PUBLISH t 1 q1 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q2 id=3
         p< CONNACK 0; PUBACK 1; PUBREC 2; PUBREC 3
         a< PUBLISH t 1 q1 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q2 id=3
         a> PUBREC 3; UNSUBSCRIBE id=2 t; PUBREC 2
         a< PUBREL 3; UNSUBACK 2 0; PUBREL 2
         a> PUBCOMP 2
         a!
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBLISH t 1 q1 id=1 dup; PUBREL 3
         a> PUBACK 1; PUBCOMP 3
         a!
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present",
    );
}

#[test]
fn mqtt5_3_10_4_4_each_unsubscribe_is_answered_by_one_unsuback() {
    one().run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 t; UNSUBSCRIBE id=2 t; UNSUBSCRIBE id=3 t u
         a< CONNACK 0; SUBACK 1 0; UNSUBACK 2 0; UNSUBACK 3 0x11 0x11",
    );
}

#[test]
fn mqtt5_3_10_4_5_unsuback_has_the_packet_identifier_even_when_nothing_was_deleted() {
    one().run(
        "a> CONNECT a clean v5; UNSUBSCRIBE id=65535 t; UNSUBSCRIBE id=1 $share/g/t; UNSUBSCRIBE id=258 #
         a< CONNACK 0; UNSUBACK 65535 0x11; UNSUBACK 1 0x11; UNSUBACK 258 0x11",
    );
    // The client finds its request by it.
    let mut script = Script::v5();
    unsubscribe(&mut script, &["a"]).unwrap();
    unsubscribe(&mut script, &["b"]).unwrap();
    script.receive(b"\xb0\x04\0\x09\0\0");
    assert_eq!(codes(&mut script), [] as [Vec<ReasonCode>; 0]);
    script.receive(b"\xb0\x04\0\x02\0\x11\xb0\x04\0\x01\0\0");
    assert_eq!(codes(&mut script), [[ReasonCode::NoSubscriptionExisted], [ReasonCode::Success]]);
}

#[test]
fn mqtt5_3_10_4_6_several_topic_filters_are_like_several_unsubscribes_with_one_unsuback() {
    let mut rig = one();
    rig.run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 t u; UNSUBSCRIBE id=2 t x t $share/g/t u
         a< CONNACK 0; SUBACK 1 0 0; UNSUBACK 2 0 0x11 0x11 0x11 0",
    );
    assert_eq!(rig.sum(|c| c.subscriptions), 0);
}

#[test]
fn mqtt5_3_11_2_1_unsuback_never_carries_a_reason_string() {
    answers(&quiet(), "UNSUBSCRIBE id=1 t", b"\xb0\x04\0\x01\0\x11");
}

#[test]
fn mqtt5_3_11_2_2_unsuback_never_carries_user_properties() {
    // Not even those of the UNSUBSCRIBE.
    answers(&quiet(), "RAW a2 0d 00 01 07 26 00 01 6b 00 01 76 00 01 74", b"\xb0\x04\0\x01\0\x11");
}

#[test]
fn mqtt5_3_11_3_1_the_codes_of_unsuback_are_in_the_order_of_the_topic_filters() {
    one().run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 b d; UNSUBSCRIBE id=2 e d c b a
         a< CONNACK 0; SUBACK 1 0 0; UNSUBACK 2 0x11 0 0x11 0 0x11",
    );
    let mut script = Script::v5();
    unsubscribe(&mut script, &["z", "a", "b"]).unwrap();
    script.receive(b"\xb0\x06\0\x01\0\x11\0\x87");
    let expected = [ReasonCode::NoSubscriptionExisted, ReasonCode::Success, ReasonCode::NotAuthorized];
    assert_eq!(codes(&mut script), [expected]);
}

#[test]
fn mqtt5_3_11_3_2_unsuback_has_codes_of_its_own_and_the_client_refuses_others() {
    one().run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 a; UNSUBSCRIBE id=2 a b
         a< CONNACK 0; SUBACK 1 0; UNSUBACK 2 0 0x11",
    );
    client_takes_only(0xb0, &[0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91]);
}
