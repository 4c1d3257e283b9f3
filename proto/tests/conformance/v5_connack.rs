//! MQTT 5.0, section 3.2: CONNACK.

use super::v5_connect::{asking, assigned, connack, connect, open, properties};
use crate::common::script::{Script, messages, options, published};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::{Config, Listener, ListenerLimits, Verdict};
use hikyaku_proto::client::{Dropped, Event, Options, PublishRequest, SendError};
use hikyaku_proto::codec::*;
use std::collections::BTreeSet;

/// A broker that takes no higher QoS.
fn at_most(max_qos: QoS) -> Rig {
    let limits = ListenerLimits { max_qos, ..ListenerLimits::default() };
    Rig::new(1, 0, Config { listeners: vec![Listener { limits, ..Listener::default() }], ..quiet() })
}

fn accepted() -> Verdict {
    Verdict::Success { username: None, data: None }
}

/// Whether some event says that this was given up.
fn is_dropped(events: &[Event], why: Dropped) -> bool {
    events.iter().any(|e| matches!(e, Event::Dropped { why: w, .. } if *w == why))
}

#[test]
fn mqtt5_3_2_0_1_connack_comes_before_everything_else() {
    // Messages wait for it, those of a session that is there and those that come meanwhile.
    let mut rig = asking();
    rig.run("p> CONNECT p clean v5\n p<\n s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t:1\n s<");
    rig.authenticated("p", accepted());
    rig.authenticated("s", accepted());
    rig.run("p< CONNACK 0\n s< CONNACK 0; SUBACK 1 1\n s!\n p> PUBLISH t 1 q1 id=1\n p< PUBACK 1");
    rig.run("s> CONNECT s v5 expiry=100; PINGREQ\n s<\n p> PUBLISH t 2 q1 id=1\n p< PUBACK 1\n s<");
    rig.authenticated("s", accepted());
    rig.run("s< CONNACK 0 present; PUBLISH t 1 q1 id=1; PUBLISH t 2 q1 id=2; PINGRESP");
    // A client that is not let in gets nothing else at all, whatever the reason.
    let mut rig = one();
    for bytes in [&b"\xc0\0"[..], b"\x10\x02\0\0", b"\x30\x04\0\x01t\0", b"\xe0\0"] {
        assert_eq!(open(&mut rig, "a", bytes), "CLOSED");
        assert!(rig.pipe("a").down.is_empty());
    }
    rig.run(
        "b> CONNECT b clean v5 mps=10\n b< CONNACK 0x95; CLOSED\n c> CONNECT c clean v5 mps=4\n c< CLOSED",
    );
    rig.run("d> RAW 10\n +11s\n d< CLOSED");
    // The client takes nothing else from a server.
    for bytes in [&b"\x30\x04\0\x01t\0"[..], b"\xd0\0", b"\x90\x04\0\x01\0\0", b"\x40\x02\0\x01", b"\xe0\0"] {
        let mut script = Script::new(options(Version::V5));
        script.receive(bytes);
        script.assert_failed(ReasonCode::ProtocolError);
    }
}

#[test]
fn mqtt5_3_2_0_2_there_is_one_connack_per_connection() {
    let mut rig = one();
    rig.run("a> CONNECT a clean v5; CONNECT a clean v5; CONNECT a clean v5\n a< CONNACK 0; DISCONNECT 0x82; CLOSED");
    rig.run("b> CONNECT b v5 method=M; CONNECT b v5\n b< CONNACK 0x8c; CLOSED");
    let mut script = Script::v5();
    script.receive(b"\x20\x03\0\0\0");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn mqtt5_3_2_2_1_reserved_bits_of_the_acknowledge_flags_are_zero() {
    let mut rig = one();
    for (script, flags) in [("clean", 0), ("expiry=100", 0), ("expiry=100", 1), ("method=M", 0)] {
        rig.send("a", &format!("CONNECT a v5 {script}"));
        rig.settle();
        assert_eq!(rig.pipe("a").down[2], flags);
        rig.cut("a");
    }
    for flags in [0x02, 0x03, 0x40, 0x80, 0xff] {
        let mut script = Script::new(options(Version::V5));
        script.receive(&[0x20, 3, flags, 0, 0]);
        script.assert_failed(ReasonCode::MalformedPacket);
    }
}

#[test]
fn mqtt5_3_2_2_2_after_clean_start_no_session_is_present() {
    // Without a session, with one that waits, with one in use.
    let mut rig = one();
    rig.run(
        "a> CONNECT x v5 clean expiry=100
         a< CONNACK 0
         a!
         b> CONNECT x v5 clean expiry=100
         b< CONNACK 0
         c> CONNECT x v5 clean expiry=100
         c< CONNACK 0
         b< DISCONNECT 0x8e; CLOSED",
    );
    for name in ["a", "b", "c"] {
        assert_eq!(connack(&mut rig, name)[2..4], [0, 0]);
    }
}

#[test]
fn mqtt5_3_2_2_3_session_present_says_whether_there_is_one() {
    let mut rig = one();
    rig.run("a> CONNECT a v5 expiry=100\n a< CONNACK 0");
    assert_eq!(connack(&mut rig, "a")[2..4], [0, 0]);
    rig.run("a!\n +99s\n a> CONNECT a v5 expiry=100\n a< CONNACK 0 present");
    assert_eq!(connack(&mut rig, "a")[2..4], [1, 0]);
    // With a connection, one that has expired, one that ended with its connection.
    rig.run("b> CONNECT a v5 expiry=100\n b< CONNACK 0 present\n a< DISCONNECT 0x8e; CLOSED");
    rig.run("b!\n +101s\n b> CONNECT a v5\n b< CONNACK 0\n b!\n b> CONNECT a v5\n b< CONNACK 0");
    rig.run("c> CONNECT a v5\n c< CONNACK 0\n b< DISCONNECT 0x8e; CLOSED");
}

#[test]
fn mqtt5_3_2_2_4_a_client_without_a_session_leaves_a_server_that_has_one() {
    let mut script = Script::new(Options { clean_start: true, ..options(Version::V5) });
    script.receive(b"\x20\x03\x01\0\0");
    script.assert_failed(ReasonCode::ProtocolError);
    // One that has a session goes on.
    let mut script = Script::new(options(Version::V5));
    script.receive(b"\x20\x03\x01\0\0");
    assert!(script.client.is_connected());
    // The session of a client that ends with its connection is none.
    let with = Options { clean_start: true, session_expiry_s: 0, ..options(Version::V5) };
    let mut script = Script::connected(with, b"\x20\x03\0\0\0");
    script.reconnect(b"\x20\x03\x01\0\0");
    script.events();
    assert!(script.client.wants_close());
}

#[test]
fn mqtt5_3_2_2_5_a_client_whose_session_is_lost_discards_its_own() {
    let mut script = Script::v5();
    script.publish(1, "a").unwrap();
    let two = script.publish(2, "b").unwrap();
    script.publish(2, "c").unwrap();
    script.sent();
    script.receive(b"\x50\x02\0\x02\x34\x06\0\x01r\0\x07\0");
    script.events();
    script.reconnect(b"\x20\x03\0\0\0");
    assert_eq!(script.sent(), b"\x32\x07\0\x01a\0\x01\0x", "a new message without DUP, and no PUBREL");
    let events = script.events();
    assert_eq!(published(&events), [(two, ReasonCode::Success)]);
    assert!(is_dropped(&events, Dropped::SessionLost));
    assert!(events.iter().any(|e| matches!(e, Event::SessionLost)));
    script.receive(b"\x34\x06\0\x01r\0\x07\0");
    assert_eq!(messages(script.events()).len(), 1, "an identifier of the lost session is new");
}

#[test]
fn mqtt5_3_2_2_6_a_refusal_has_no_session_present() {
    // There is a session that would be.
    let mut rig = one();
    rig.run("a> CONNECT a v5 expiry=100 user=ann\n a< CONNACK 0");
    rig.send("b", "CONNECT a v5 user=bob");
    rig.settle();
    assert_eq!(rig.pipe("b").down, b"\x20\x03\0\x87\0");
    rig.send("c", "CONNECT a v5 user=ann mps=5");
    rig.settle();
    assert_eq!(rig.pipe("c").down, b"\x20\x03\0\x95\0");
    let mut script = Script::new(options(Version::V5));
    script.receive(b"\x20\x03\x01\x87\0");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn mqtt5_3_2_2_7_a_refusal_closes_the_connection() {
    one().run(
        "a> CONNECT a v5 will=$SYS/x,x; PINGREQ
         a< CONNACK 0x87; CLOSED
         b> CONNECT b v5 method=M; PINGREQ
         b< CONNACK 0x8c; CLOSED",
    );
    let errors = (0x80..=0xff).filter_map(ReasonCode::from_u8);
    for reason in errors.filter(|reason| reason.allowed_in(PacketType::ConnAck)) {
        let mut rig = asking();
        rig.run("a> CONNECT a clean v5; PINGREQ\n a<");
        rig.authenticated("a", Verdict::Failure(reason));
        rig.run(&format!("a< CONNACK 0x{:02x}; CLOSED", reason as u8));
        let mut script = Script::new(options(Version::V5));
        script.receive(&[0x20, 3, 0, reason as u8, 0]);
        assert!(matches!(script.events()[..], [Event::Refused { reason: r, .. }] if r == reason));
        assert!(script.client.wants_close());
    }
}

#[test]
fn mqtt5_3_2_2_8_connack_has_a_reason_code_of_its_own() {
    // Whatever is said to the broker about a client.
    for value in 0..=255 {
        let Some(reason) = ReasonCode::from_u8(value) else { continue };
        let mut rig = asking();
        rig.run("a> CONNECT a clean v5\n a<");
        rig.authenticated("a", Verdict::Failure(reason));
        let good = reason.is_error() && reason.allowed_in(PacketType::ConnAck);
        let told = if good { value } else { ReasonCode::NotAuthorized as u8 };
        rig.run(&format!("a< CONNACK 0x{told:02x}; CLOSED"));
    }
    // The client takes no other.
    for (value, reason) in [
        (0x03, ReasonCode::ProtocolError),
        (0xff, ReasonCode::ProtocolError),
        (0x01, ReasonCode::ProtocolError),
        (0x10, ReasonCode::ProtocolError),
        (0x8d, ReasonCode::ProtocolError),
        (0x9e, ReasonCode::ProtocolError),
    ] {
        let mut script = Script::new(options(Version::V5));
        script.receive(&[0x20, 3, 0, value, 0]);
        script.assert_failed(reason);
    }
}

#[test]
fn mqtt5_3_2_2_9_the_highest_qos_is_told_where_it_is_not_2() {
    for (qos, told) in [(QoS::AtMostOnce, Some(0)), (QoS::AtLeastOnce, Some(1)), (QoS::ExactlyOnce, None)] {
        let mut rig = at_most(qos);
        rig.run("a> CONNECT a clean v5\n a< CONNACK 0");
        assert_eq!(properties(&connack(&mut rig, "a")).maximum_qos(), told);
    }
}

#[test]
fn mqtt5_3_2_2_10_subscriptions_of_any_qos_are_accepted() {
    at_most(QoS::AtMostOnce).run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 a:0 b:1 c:2; PUBLISH c x
         a< CONNACK 0; SUBACK 1 0 0 0; PUBLISH c x",
    );
    at_most(QoS::AtLeastOnce).run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 a:0 b:1 c:2; PUBLISH c x q1 id=1
         a< CONNACK 0; SUBACK 1 0 1 1; PUBLISH c x q1 id=1; PUBACK 1",
    );
}

#[test]
fn mqtt5_3_2_2_11_no_publish_exceeds_the_maximum_qos() {
    for (qos, connack) in [(0, b"\x20\x05\0\0\x02\x24\0"), (1, b"\x20\x05\0\0\x02\x24\x01")] {
        // What waited for the connection is given back, what is asked for refused.
        let mut script = Script::v5();
        script.client.transport_down(script.now);
        script.publish(2, "t").unwrap();
        script.reconnect(connack);
        assert!(is_dropped(&script.events(), Dropped::Refused(SendError::QoSNotSupported)));
        assert!(script.sent().is_empty());
        for higher in qos + 1..=2 {
            assert_eq!(script.publish(higher, "t"), Err(SendError::QoSNotSupported));
        }
        assert!(script.sent().is_empty());
        assert!(script.publish(qos, "t").is_ok());
        assert_eq!(script.sent()[0], 0x30 | qos << 1);
    }
    let bad = "a< CONNACK 0; DISCONNECT 0x9b; CLOSED";
    at_most(QoS::AtMostOnce).run(&format!("a> CONNECT a clean v5; PUBLISH t x q1 id=1\n {bad}"));
    at_most(QoS::AtMostOnce).run(&format!("a> CONNECT a clean v5; PUBLISH t x q2 id=1\n {bad}"));
    at_most(QoS::AtLeastOnce).run(&format!("a> CONNECT a clean v5; PUBLISH t x q2 id=1\n {bad}"));
}

#[test]
fn mqtt5_3_2_2_12_a_will_of_a_qos_not_supported_is_refused() {
    at_most(QoS::AtLeastOnce).run(
        "a> CONNECT a v5 will=w,x,q2; PINGREQ
         a< CONNACK 0x9b; CLOSED
         b> CONNECT b v5 will=w,x,q1
         b< CONNACK 0",
    );
    at_most(QoS::AtMostOnce).run("a> CONNECT a v5 will=w,x,q1; PINGREQ\n a< CONNACK 0x9b; CLOSED");
}

#[test]
fn mqtt5_3_2_2_13_a_retained_will_where_nothing_is_retained_is_refused() {
    Rig::new(1, 0, Config { retain_available: false, ..quiet() }).run(
        "a> CONNECT a v5 will=w,x,r; PINGREQ
         a< CONNACK 0x9a; CLOSED
         b> CONNECT b v5 will=w,x
         b< CONNACK 0",
    );
}

#[test]
fn mqtt5_3_2_2_14_nothing_is_published_with_retain_where_it_is_not_available() {
    let mut script = Script::v5();
    script.client.transport_down(script.now);
    let request = PublishRequest { topic: "t", retain: true, ..Default::default() };
    let waits = PublishRequest { qos: QoS::AtLeastOnce, ..request };
    script.client.publish(script.now, &waits).unwrap();
    script.reconnect(b"\x20\x05\0\0\x02\x25\0");
    assert!(is_dropped(&script.events(), Dropped::Refused(SendError::RetainNotSupported)));
    assert_eq!(script.client.publish(script.now, &request), Err(SendError::RetainNotSupported));
    assert_eq!(script.client.publish(script.now, &waits), Err(SendError::RetainNotSupported));
    assert!(script.sent().is_empty());
    let mut rig = Rig::new(1, 0, Config { retain_available: false, ..quiet() });
    rig.run("a> CONNECT a v5\n a< CONNACK 0");
    assert_eq!(properties(&connack(&mut rig, "a")).retain_available(), Some(0));
    rig.run("a> PUBLISH t x r\n a< DISCONNECT 0x9a; CLOSED");
}

#[test]
fn mqtt5_3_2_2_15_the_client_sends_no_packet_larger_than_the_server_takes() {
    let connack = b"\x20\x08\0\0\x05\x27\0\0\0\x14";
    let mut script = Script::v5();
    script.client.transport_down(script.now);
    script.publish(1, &"t".repeat(13)).unwrap();
    script.publish(1, &"t".repeat(12)).unwrap();
    script.reconnect(connack);
    assert!(is_dropped(&script.events(), Dropped::Refused(SendError::TooLarge)));
    assert_eq!(script.sent().len(), 20);
    assert!(script.publish(0, &"t".repeat(14)).is_ok());
    assert_eq!(script.sent().len(), 20);
    let now = script.now;
    assert_eq!(script.publish(0, &"t".repeat(15)), Err(SendError::TooLarge));
    assert_eq!(script.publish(1, &"t".repeat(13)), Err(SendError::TooLarge));
    let none = Properties::EMPTY;
    let filter = "t".repeat(13);
    let result = script.client.subscribe(now, &[(&filter, SubscribeOptions::default())], none);
    assert_eq!(result, Err(SendError::TooLarge));
    assert_eq!(script.client.unsubscribe(now, &[&"t".repeat(14)], none), Err(SendError::TooLarge));
    let mut reason = PropertiesBuf::default();
    reason.push(Property::ReasonString("more than it takes"));
    let result = script.client.disconnect(now, ReasonCode::UnspecifiedError, reason.as_properties());
    assert_eq!(result, Err(SendError::TooLarge));
    assert!(script.sent().is_empty() && script.client.is_connected());
    // The broker tells what it takes, and refuses more.
    let mut rig = Rig::new(1, 0, Config { max_packet_size: 100, ..quiet() });
    rig.run("a> CONNECT a v5\n a< CONNACK 0");
    assert_eq!(properties(&self::connack(&mut rig, "a")).maximum_packet_size(), Some(100));
    rig.run("a> PUBLISH t size=94; PUBLISH t size=95\n a< DISCONNECT 0x95; CLOSED");
    assert_eq!(rig.sum(|c| c.publish_received), 1);
}

#[test]
fn mqtt5_3_2_2_16_an_assigned_identifier_is_new() {
    let mut rig = one();
    let mut seen = BTreeSet::new();
    for n in 0..60 {
        // Of some the session is in use, of others it waits, of others it is gone.
        let name = format!("a{n}");
        let expiry = if n % 3 == 0 { "" } else { "expiry=1000" };
        rig.run(&format!("{name}> CONNECT v5 {expiry}\n {name}< CONNACK 0 assigned=41"));
        let bytes = connack(&mut rig, &name);
        assert_eq!(bytes[2..4], [0, 0]);
        assert!(seen.insert(assigned(&bytes)), "twice the same");
        if n % 3 != 1 {
            rig.cut(&name);
        }
    }
    // A name is assigned to those only who gave none.
    rig.run("b> CONNECT b v5\n b< CONNACK 0");
    assert_eq!(properties(&connack(&mut rig, "b")).assigned_client_identifier(), None);
    assert_eq!(open(&mut rig, "c", &connect(2, b"\0\0")), "CONNACK 0 assigned=41");
}

#[test]
fn mqtt5_3_2_2_17_the_client_uses_no_alias_above_the_maximum_of_the_server() {
    let mut script = Script::connected(options(Version::V5), b"\x20\x06\0\0\x03\x22\0\x01");
    for topic in ["abc", "def", "abc"] {
        script.publish(0, topic).unwrap();
    }
    let sent = script.sent();
    assert_eq!(sent, b"\x30\x0a\0\x03abc\x03\x23\0\x01x\x30\x07\0\x03def\0x\x30\x07\0\0\x03\x23\0\x01x");
}

#[test]
fn mqtt5_3_2_2_18_the_client_uses_no_alias_where_no_maximum_is_told() {
    for connack in [&b"\x20\x03\0\0\0"[..], b"\x20\x06\0\0\x03\x22\0\0"] {
        let mut script = Script::connected(options(Version::V5), connack);
        script.publish(0, "abc").unwrap();
        script.publish(0, "abc").unwrap();
        assert_eq!(script.sent(), b"\x30\x07\0\x03abc\0x".repeat(2));
    }
    // What an earlier connection allowed does not count.
    let mut script = Script::connected(options(Version::V5), b"\x20\x06\0\0\x03\x22\0\x09");
    script.publish(0, "abc").unwrap();
    script.reconnect(b"\x20\x03\x01\0\0");
    script.publish(0, "abc").unwrap();
    assert_eq!(script.sent(), b"\x30\x07\0\x03abc\0x");
}

#[test]
fn mqtt5_3_2_2_19_no_reason_string_makes_a_connack_too_large() {
    // There is none, whether there is room or not: a refusal has five bytes.
    for most in ["", "mps=1000", "mps=6", "mps=5"] {
        let mut rig = one();
        rig.send("a", &format!("CONNECT a v5 {most} method=M rpi=1"));
        rig.settle();
        assert_eq!(rig.pipe("a").down, b"\x20\x03\0\x8c\0");
    }
    for most in ["", "mps=1000", "mps=16"] {
        let mut rig = one();
        rig.run(&format!("a> CONNECT a v5 {most}\n a< CONNACK 0"));
        assert_eq!(properties(&connack(&mut rig, "a")).reason_string(), None);
    }
}

#[test]
fn mqtt5_3_2_2_20_no_user_property_makes_a_connack_too_large() {
    for most in ["", "mps=1000", "mps=16"] {
        let mut rig = one();
        rig.run(&format!("a> CONNECT a v5 {most} up=k:v rpi=1\n a< CONNACK 0"));
        let connack = connack(&mut rig, "a");
        assert_eq!((properties(&connack).user_properties().count(), connack.len()), (0, 16));
    }
    one().run("a> CONNECT a v5 mps=5 up=k:v\n a< CONNACK 0x95; CLOSED");
}

#[test]
fn mqtt5_3_2_2_21_a_server_keep_alive_holds_on_both_sides() {
    let config = Config { max_keepalive_s: 60, ..quiet() };
    Rig::new(1, 0, config).run(
        "a> CONNECT a clean v5 ka=120
         a< CONNACK 0 ka=60
         b> CONNECT b clean v5 ka=0
         b< CONNACK 0 ka=60
         +89s
         b> PINGREQ
         b< PINGRESP
         +2s
         a< DISCONNECT 0x8d; CLOSED
         +88s
         b< DISCONNECT 0x8d; CLOSED",
    );
    let mut script = Script::new(options(Version::V5));
    script.sent();
    script.receive(b"\x20\x06\0\0\x03\x13\0\x05");
    let events = script.events();
    assert!(events.iter().any(|e| matches!(e, Event::Connected(c) if c.keep_alive_s == 5)));
    script.wait(5);
    assert_eq!(script.sent(), b"\xc0\0");
}

#[test]
fn mqtt5_3_2_2_22_without_a_server_keep_alive_that_of_the_client_holds() {
    let config = Config { max_keepalive_s: 60, ..quiet() };
    Rig::new(1, 0, config).run(
        "a> CONNECT a clean v5 ka=60
         a< CONNACK 0
         b> CONNECT b clean v5 ka=20
         b< CONNACK 0
         +29s
         b<
         +2s
         b< DISCONNECT 0x8d; CLOSED
         +58s
         a<
         +2s
         a< DISCONNECT 0x8d; CLOSED",
    );
    one().run("a> CONNECT a clean v5 ka=0\n a< CONNACK 0\n +999999s\n a> PINGREQ\n a< PINGRESP");
}
