//! MQTT 5.0, 3.12 to 3.14: PINGREQ, PINGRESP, DISCONNECT.

use crate::common::script::{Script, messages, options};
use crate::common::{Rig, one, quiet};
use crate::v5_acks::{AWAY, answers, assert_closed, assert_left};
use hikyaku_proto::broker::{Authentication, Config, Listener, Verdict};
use hikyaku_proto::client::{Acknowledge, By, Options, SendError};
use hikyaku_proto::codec::{Properties, PropertiesBuf, Property, ReasonCode, Version};

/// The DISCONNECT Reason Codes; 0x8c is listed in 2.4 only.
const CODES: [u8; 30] = [
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95,
    0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];

const WATCHER: &str = "w> CONNECT w clean v5; SUBSCRIBE id=1 will\n w< CONNACK 0; SUBACK 1 0\n";

/// The client disconnects from a server that takes packets of at most 20 bytes.
fn disconnect(property: Property<'_>) -> (Result<(), SendError>, Vec<u8>) {
    let mut script = Script::connected(options(Version::V5), b"\x20\x08\0\0\x05\x27\0\0\0\x14");
    let mut properties = PropertiesBuf::default();
    properties.push(property);
    let result = script.client.disconnect(script.now, ReasonCode::Success, properties.as_properties());
    assert_eq!(script.client.wants_close(), result.is_ok());
    (result, script.sent())
}

#[test]
fn mqtt5_3_12_4_1_each_pingreq_is_answered_by_a_pingresp() {
    let mut rig = one();
    rig.run(
        "a> CONNECT a clean v5 rm=1; SUBSCRIBE id=1 t:1; PUBLISH t x q1 id=1; PUBLISH t y q1 id=2
         a< CONNACK 0; SUBACK 1 1; PUBLISH t x q1 id=1; PUBACK 1; PUBACK 2
         a> PINGREQ; PINGREQ; PINGREQ
         a< PINGRESP; PINGRESP; PINGRESP",
    );
    assert!(rig.pipe("a").down.ends_with(b"\xd0\0\xd0\0\xd0\0"));
    for wrong in ["c1 00", "c0 01 00"] {
        let mut rig = one();
        rig.run("a> CONNECT a v5\n a< CONNACK 0");
        rig.send("a", &format!("RAW {wrong}; PINGREQ"));
        assert_closed(&rig.news("a"));
    }
}

#[test]
fn mqtt5_3_14_0_1_before_connack_no_disconnect_is_sent() {
    let listener = Listener { authentication: Authentication::Ask, ..Listener::default() };
    let asking = Config { listeners: vec![listener], ..quiet() };
    let mut rig = Rig::new(1, 0, asking);
    rig.run(
        "a> CONNECT a v5
         a<
         b> CONNECT b v5
         b<
         c> CONNECT c v5
         c<
         d> RAW 10
         d<",
    );
    rig.authenticated("a", Verdict::Failure(ReasonCode::ServerBusy));
    rig.run("a< CONNACK 0x89; CLOSED\n +11s\n b< CLOSED\n c< CLOSED\n d< CLOSED\n a> CONNECT a v5\n a<");
    rig.shut_down();
    rig.run("a< CLOSED");
    // Malformed and wrong CONNECTs, and what is none.
    for first in [
        "10 0e 00 04 4d 51 54 54 05 01 00 00 00 00 01 61",
        "10 10 00 04 4d 51 54 54 05 02 00 00 03 21 00 00 00 00",
        "e0 00",
        "c0 00",
        "30 04 00 01 74 00",
    ] {
        let mut rig = one();
        rig.send("a", &format!("RAW {first}"));
        rig.pipe("a").version = Version::V5;
        let news = rig.news("a");
        assert!(!news.contains("DISCONNECT") && news.ends_with("CLOSED"), "{news}");
    }
    // Neither when the CONNACK is larger than the client takes, though a DISCONNECT is not.
    one().run(
        "w> CONNECT w clean v5; SUBSCRIBE id=1 will
         w< CONNACK 0; SUBACK 1 0
         a> CONNECT a v5 mps=6 will=will,never; PINGREQ
         a< CONNACK 0x95; CLOSED
         b> CONNECT b v5 mps=4; PINGREQ
         b< CLOSED",
    );
}

#[test]
fn mqtt5_3_14_1_1_disconnect_with_reserved_bits_is_malformed() {
    for flags in 1..16u8 {
        // What is no DISCONNECT deletes no will.
        one().run(&format!(
            "{WATCHER}
             a> CONNECT a clean v5 will=will,bye; RAW e{flags:x} 00
             a< CONNACK 0; DISCONNECT 0x81; CLOSED
             w< PUBLISH will bye"
        ));
        let mut script = Script::v5();
        script.receive(&[0xe0 | flags, 0]);
        script.assert_failed(ReasonCode::MalformedPacket);
    }
}

#[test]
fn mqtt5_3_14_2_1_disconnect_has_a_code_of_its_own_and_others_are_refused() {
    for code in 0..=255 {
        let mut script = Script::v5();
        script.receive(&[0xe0, 1, code]);
        let mut rig = one();
        rig.run("a> CONNECT a clean v5\n a< CONNACK 0");
        rig.send("a", &format!("RAW e0 01 {code:02x}"));
        if CODES.contains(&code) {
            let reason = ReasonCode::from_u8(code).unwrap();
            assert_eq!(script.disconnected(), By::Peer(reason));
            assert_eq!(rig.news("a"), "CLOSED");
        } else {
            assert_left(&mut script);
            assert_closed(&rig.news("a"));
        }
        // The client's program cannot send others.
        let Some(reason) = ReasonCode::from_u8(code) else { continue };
        let mut script = Script::v5();
        let result = script.client.disconnect(script.now, reason, Properties::EMPTY);
        assert_eq!(result.is_ok(), CODES.contains(&code), "{code:#04x}");
        let sent = if result.is_err() { vec![] } else { vec![0xe0, 1, code] };
        assert_eq!(script.sent(), if code == 0 { vec![0xe0, 0] } else { sent });
    }
}

#[test]
fn mqtt5_3_14_2_2_a_server_sends_no_session_expiry_interval_with_disconnect() {
    let mut rig = one();
    rig.run(
        "a> CONNECT a v5 expiry=100
         a< CONNACK 0
         b> CONNECT a v5 expiry=200
         b< CONNACK 0 present
         a< DISCONNECT 0x8e; CLOSED",
    );
    rig.shut_down();
    rig.run("b< DISCONNECT 0x8b; CLOSED");
    assert!(rig.pipe("a").down.ends_with(b"\xe0\x01\x8e") && rig.pipe("b").down.ends_with(b"\xe0\x01\x8b"));
    // Not even when the client's own DISCONNECT was wrong because of it.
    one().run("a> CONNECT a v5; DISCONNECT expiry=9\n a< CONNACK 0; DISCONNECT 0x82; CLOSED");
    // The client refuses it.
    let mut script = Script::v5();
    script.receive(b"\xe0\x07\x8e\x05\x11\0\0\0\x09");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn mqtt5_3_14_2_3_disconnect_has_a_reason_string_only_where_it_fits() {
    for (packets, reason) in [("RAW c1 00", 0x81), ("PUBLISH t x alias=99", 0x94), ("RAW d0 00", 0x82)] {
        answers(&quiet(), packets, &[0xe0, 1, reason]);
    }
    let small = disconnect(Property::ReasonString("thirteen byte"));
    assert_eq!(small.1, b"\xe0\x12\0\x10\x1f\0\x0dthirteen byte");
    let large = disconnect(Property::ReasonString("fourteen bytes"));
    assert_eq!(large, (Err(SendError::TooLarge), vec![]));
}

#[test]
fn mqtt5_3_14_2_4_disconnect_has_user_properties_only_where_they_fit() {
    // The broker has none: not even those of the packet that was wrong.
    answers(&quiet(), "PUBLISH t x alias=99 up=k", b"\xe0\x01\x94");
    let small = disconnect(Property::UserProperty("name", "7 bytes"));
    assert_eq!(small.1.len(), 20);
    let large = disconnect(Property::UserProperty("name", "8 bytes."));
    assert_eq!(large, (Err(SendError::TooLarge), vec![]));
}

#[test]
fn mqtt5_3_14_4_1_after_disconnect_nothing_is_sent() {
    // What the broker had to say to a client that it leaves is not said, nor is the rest of its bytes handled.
    one().run(
        "w> CONNECT w clean v5; SUBSCRIBE id=1 t
         w< CONNACK 0; SUBACK 1 0
         a> CONNECT a v5 clean expiry=100 rm=1; SUBSCRIBE id=1 t:1; PUBLISH t 1 q1 id=1; PUBLISH t 2 q1 id=2
         a< CONNACK 0; SUBACK 1 1; PUBLISH t 1 q1 id=1; PUBACK 1; PUBACK 2
         w< PUBLISH t 1; PUBLISH t 2
         a> RAW c1 00; PUBACK 1; PUBLISH t 3 q1 id=3; PINGREQ
         a< DISCONNECT 0x81; CLOSED
         b> CONNECT b clean v5; DISCONNECT 0x04; PUBLISH t 4; PINGREQ
         b< CONNACK 0; CLOSED",
    );
    let options = Options { acknowledge: Acknowledge::Manually, ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x03\0\0\0");
    script.receive(b"\x32\x06\0\x01a\0\x09\0");
    let token = messages(script.events())[0].token.unwrap();
    script.publish(1, "t").unwrap();
    script.sent();
    script.client.disconnect(script.now, ReasonCode::Success, Properties::EMPTY).unwrap();
    assert_eq!(script.publish(0, "t"), Err(SendError::NotConnected));
    script.publish(1, "t").unwrap();
    script.client.acknowledge(script.now, token);
    script.receive(b"\x40\x02\0\x01\x32\x07\0\x01a\0\x01\0x\x62\x02\0\x01");
    script.client.disconnect(script.now, ReasonCode::Success, Properties::EMPTY).unwrap();
    script.wait(1);
    assert_eq!(script.sent(), b"\xe0\0");
    script.wait(1000);
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_3_14_4_2_after_disconnect_the_connection_is_closed() {
    let mut rig = Rig::new(1, 0, Config { max_inflight_messages: 1, ..quiet() });
    rig.run(AWAY).run(
        "a> CONNECT a v5 ka=10; PUBLISH t x q2 id=1; PUBLISH t x q2 id=2
         a< CONNACK 0; PUBREC 1; DISCONNECT 0x93; CLOSED
         b> CONNECT b v5 ka=10
         b< CONNACK 0
         +16s
         b< DISCONNECT 0x8d; CLOSED",
    );
    let mut script = Script::v5();
    script.client.disconnect(script.now, ReasonCode::Success, Properties::EMPTY).unwrap();
    assert!(script.client.wants_close());
    // A transport that takes nothing is not waited for.
    let at = script.client.poll_timeout().unwrap();
    script.client.handle_timeout(at);
    assert!(script.client.wants_close() && script.sent().is_empty());
    // So too where the server is wrong.
    let mut script = Script::new(Options { clean_start: true, ..options(Version::V5) });
    script.receive(b"\x20\x03\x01\0\0");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn mqtt5_3_14_4_3_only_a_normal_disconnect_deletes_the_will() {
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 expiry=100 will=will,1; DISCONNECT
         a< CONNACK 0; CLOSED
         b> CONNECT b v5 will=will,2,delay5; DISCONNECT 0x00
         b< CONNACK 0; CLOSED
         +200s
         w<
         c> CONNECT c v5 will=will,3; DISCONNECT 0x04
         c< CONNACK 0; CLOSED
         w< PUBLISH will 3
         d> CONNECT d v5 will=will,4; DISCONNECT 0x80
         d< CONNACK 0; CLOSED
         w< PUBLISH will 4"
    ));
}
