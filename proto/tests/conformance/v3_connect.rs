//! MQTT 3.1.1, chapters 1 and 2, and 3.1 to 3.2: strings, packet identifiers, CONNECT and CONNACK.

use crate::common::script::{Script, options};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::{Authentication, Config, Listener, Verdict};
use hikyaku_proto::client::{By, Options, OptionsError, Will};
use hikyaku_proto::codec::{QoS, ReasonCode, Version};

/// As a line of a script.
fn raw(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("RAW {}", hex.join(" "))
}

/// A CONNECT of 3.1.1 with these flags, a keep alive of 0, and what follows.
fn connect(flags: u8, payload: &[u8]) -> String {
    let mut bytes = vec![0x10, 10 + payload.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
    bytes.extend(payload);
    raw(&bytes)
}

/// This first packet is not answered: the connection is closed without a word [MQTT-3.1.4-1].
fn not_a_connect(packet: &str) {
    one().run(&format!("a> {packet}\n a< CLOSED"));
}

/// This packet of a connected client ends its connection, and no other's.
fn closes(packet: &str) {
    one().run(&format!(
        "b> CONNECT b clean\n b< CONNACK 0\n a> CONNECT a clean; {packet}; PINGREQ\n a< CONNACK 0; CLOSED
         b> PINGREQ\n b< PINGRESP"
    ));
}

#[test]
fn mqtt3_1_5_3_1_ill_formed_utf8_closes() {
    for text in ["ed a0 80", "c1 81 61", "61 80 61", "61 61 c3", "f4 90 80"] {
        closes(&format!("RAW 30 05 00 03 {text}"));
        closes(&format!("RAW 82 08 00 01 00 03 {text} 00"));
    }
    not_a_connect(&connect(2, b"\0\x03\xed\xa0\x80"));
    let mut script = Script::v4();
    script.receive(b"\x30\x05\0\x03\xed\xa0\x80");
    script.assert_failed(ReasonCode::MalformedPacket);
}

#[test]
fn mqtt3_1_5_3_2_the_null_character_closes() {
    closes("RAW 30 05 00 03 61 00 61");
    closes("RAW 82 08 00 01 00 03 61 00 61 00");
    closes("RAW a2 07 00 01 00 03 61 00 61");
    not_a_connect(&connect(2, b"\0\x03a\0a"));
    let mut script = Script::v4();
    script.receive(b"\x30\x05\0\x03a\0a");
    script.assert_failed(ReasonCode::MalformedPacket);
}

#[test]
fn mqtt3_1_5_3_3_a_byte_order_mark_is_a_character_of_the_topic() {
    one().run(
        "a> CONNECT a clean; SUBSCRIBE id=1 \u{feff}t; SUBSCRIBE id=2 u
         a< CONNACK 0; SUBACK 1 0; SUBACK 2 0
         a> PUBLISH \u{feff}t x; PUBLISH t y; PUBLISH \u{feff}u z
         a< PUBLISH \u{feff}t x",
    );
}

#[test]
fn mqtt3_2_2_2_1_reserved_flags_are_sent_as_listed() {
    let mut script = Script::v4();
    script.publish(2, "t").unwrap();
    script.client.subscribe(script.now, &[("t", Default::default())], Default::default()).unwrap();
    script.client.unsubscribe(script.now, &["t"], Default::default()).unwrap();
    script.sent();
    script.receive(b"\x50\x02\0\x01");
    assert_eq!(script.sent()[0], 0x62, "PUBREL");
    let mut rig = one();
    rig.run("a> CONNECT a clean; SUBSCRIBE id=1 t:2; PUBLISH t x q2 id=7\n a< CONNACK 0; SUBACK 1 2; PUBREC 7; PUBLISH t x q2 id=1");
    rig.run(
        "a> PUBREC 1; PUBREL 7; UNSUBSCRIBE id=2 t; PINGREQ\n a< PUBREL 1; PUBCOMP 7; UNSUBACK 2; PINGRESP",
    );
    let first = [0x20, 2, 0, 0, 0x90, 3, 0, 1, 2];
    assert_eq!(rig.pipe("a").down[..9], first);
    assert!(rig.pipe("a").down.ends_with(&[0x62, 2, 0, 1, 0x70, 2, 0, 7, 0xb0, 2, 0, 2, 0xd0, 0]));
}

#[test]
fn mqtt3_2_2_2_2_invalid_flags_close() {
    for packet in [
        "41 02 00 01",
        "52 02 00 01",
        "60 02 00 01",
        "72 02 00 01",
        "80 06 00 01 00 01 61 00",
        "a0 05 00 01 00 01 61",
        "c1 00",
        "e1 00",
    ] {
        closes(&format!("RAW {packet}"));
    }
    for packet in [&b"\x21\x02\0\0"[..], b"\x41\x02\0\x01", b"\x91\x03\0\x01\0", b"\xb1\x02\0\x01", b"\xd1\0"]
    {
        let mut script = Script::v4();
        script.receive(packet);
        script.assert_failed(ReasonCode::MalformedPacket);
    }
}

#[test]
fn mqtt3_2_3_1_1_packet_identifier_zero_closes() {
    for packet in
        ["32 05 00 01 61 00 00", "34 05 00 01 61 00 00", "82 06 00 00 00 01 61 00", "a2 05 00 00 00 01 61"]
    {
        closes(&format!("RAW {packet}"));
    }
    let mut script = Script::v4();
    script.receive(b"\x32\x05\0\x01t\0\0");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn mqtt3_2_3_1_2_the_client_uses_identifiers_that_nothing_else_uses() {
    let mut script = Script::v4();
    script.publish(1, "t").unwrap();
    script.client.subscribe(script.now, &[("t", Default::default())], Default::default()).unwrap();
    script.publish(2, "t").unwrap();
    assert_eq!(script.sent(), b"\x32\x06\0\x01t\0\x01x\x82\x06\0\x02\0\x01t\0\x34\x06\0\x01t\0\x03x");
}

#[test]
fn mqtt3_2_3_1_3_a_packet_is_sent_again_with_its_identifier() {
    let mut script = Script::v4();
    script.publish(1, "t").unwrap();
    script.publish(2, "u").unwrap();
    script.sent();
    script.receive(b"\x50\x02\0\x02");
    script.reconnect(b"\x20\x02\x01\0");
    assert_eq!(script.sent(), b"\x3a\x06\0\x01t\0\x01x\x62\x02\0\x02");
}

#[test]
fn mqtt3_2_3_1_4_the_server_gives_each_message_an_unused_identifier() {
    one().run(
        "s> CONNECT s; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         s> PUBLISH t a q1 id=1; PUBLISH t b q2 id=2; PUBLISH t c q1 id=3
         s< PUBLISH t a q1 id=1; PUBACK 1; PUBREC 2; PUBLISH t b q2 id=2; PUBLISH t c q1 id=3; PUBACK 3
         s> PUBACK 1
         s!
         s> CONNECT s
         s< CONNACK 0 present; PUBLISH t b q2 id=2 dup; PUBLISH t c q1 id=3 dup",
    );
}

#[test]
fn mqtt3_2_3_1_4_an_identifier_in_use_is_not_given_again_when_they_come_round() {
    let mut rig = Rig::new(1, 0, Config { max_inflight_messages: 3, ..quiet() });
    rig.run("s> CONNECT s clean; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1\n p> CONNECT p clean\n p< CONNACK 0");
    rig.run("p> PUBLISH t a q1 id=1\n p< PUBACK 1\n s< PUBLISH t a q1 id=1");
    for id in 2..=65_535 {
        rig.run(&format!(
            "p> PUBLISH t b q1 id=1\n p< PUBACK 1\n s< PUBLISH t b q1 id={id}\n s> PUBACK {id}"
        ));
        rig.pipe("s").log.clear();
        rig.pipe("p").log.clear();
        rig.pipe("s").down.clear();
    }
    rig.run("p> PUBLISH t c q1 id=1\n p< PUBACK 1\n s> PUBACK 1\n s< PUBLISH t c q1 id=1");
}

#[test]
fn mqtt3_2_3_1_5_qos_0_has_no_identifier() {
    let mut script = Script::v4();
    script.publish(0, "t").unwrap();
    assert_eq!(script.sent(), b"\x30\x04\0\x01tx");
    let mut rig = one();
    rig.run("a> CONNECT a clean; SUBSCRIBE id=1 t:1; RAW 30 05 00 01 74 00 07\n a< CONNACK 0; SUBACK 1 1; PUBLISH t \0\u{7}");
    assert!(rig.pipe("a").down.ends_with(b"\x30\x05\0\x01t\0\x07"), "all that follows the topic is payload");
}

#[test]
fn mqtt3_2_3_1_6_acknowledgements_carry_the_identifier_of_their_publish() {
    one().run(
        "a> CONNECT a clean; PUBLISH t x q1 id=0x1234; PUBLISH t x q2 id=0xfffe
         a< CONNACK 0; PUBACK 4660; PUBREC 65534
         a> PUBREL 0xfffe
         a< PUBCOMP 65534",
    );
    let mut script = Script::v4();
    script.receive(b"\x32\x05\0\x01t\x12\x34\x34\x05\0\x01t\xff\xfe\x62\x02\xff\xfe");
    assert_eq!(script.sent(), b"\x40\x02\x12\x34\x50\x02\xff\xfe\x70\x02\xff\xfe");
}

#[test]
fn mqtt3_2_3_1_7_suback_and_unsuback_carry_the_identifier_of_their_request() {
    one().run("a> CONNECT a clean; SUBSCRIBE id=300 t; UNSUBSCRIBE id=65535 t\n a< CONNACK 0; SUBACK 300 0; UNSUBACK 65535");
}

#[test]
fn mqtt3_3_1_0_1_a_first_packet_other_than_connect_closes() {
    for packet in ["PINGREQ", "PUBLISH t x", "SUBSCRIBE id=1 t", "DISCONNECT", "PUBREL 1"] {
        not_a_connect(packet);
    }
    let mut script = Script::new(options(Version::V3_1_1));
    assert_eq!(script.publish(0, "t"), Err(hikyaku_proto::client::SendError::NotConnected));
    script.publish(1, "t").unwrap();
    let sent = script.sent();
    assert!(sent[0] == 0x10 && sent.len() == sent[1] as usize + 2, "a CONNECT and nothing after it");
}

#[test]
fn mqtt3_3_1_0_2_a_second_connect_closes() {
    closes("CONNECT a clean");
    let mut script = Script::v4();
    script.wait(30);
    script.publish(0, "t").unwrap();
    assert!(!script.sent().starts_with(b"\x10"));
}

#[test]
fn mqtt3_3_1_2_1_a_wrong_protocol_name_closes() {
    for name in ["4d 51 54 58", "6d 71 74 74"] {
        not_a_connect(&format!("RAW 10 0d 00 04 {name} 04 02 00 00 00 01 61"));
    }
    not_a_connect("RAW 10 0c 00 03 4d 51 54 04 02 00 00 00 01 61");
}

#[test]
fn mqtt3_3_1_2_2_an_unsupported_protocol_level_is_told_by_code_1() {
    // Levels above 5 are answered in the form of 5.0; level 0 is none.
    let old: &[u8] = b"\x20\x02\0\x01";
    for (level, answer) in [("02", old), ("03", old), ("82", old), ("06", b"\x20\x03\0\x84\0"), ("00", b"")] {
        let mut rig = one();
        rig.send("a", &format!("RAW 10 0d 00 04 4d 51 54 54 {level} 02 00 00 00 01 61"));
        rig.pipe("a").version = if level == "06" { Version::V5 } else { Version::V3_1_1 };
        rig.settle();
        assert!(!rig.pipe("a").open);
        assert_eq!(rig.pipe("a").down, answer, "level {level}");
    }
}

#[test]
fn mqtt3_3_1_2_3_the_reserved_connect_flag_closes() {
    not_a_connect(&connect(3, b"\0\x01a"));
}

#[test]
fn mqtt3_3_1_2_4_clean_session_0_resumes_or_creates_a_session() {
    one().run(
        "a> CONNECT a; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         a> DISCONNECT
         a< CLOSED
         p> CONNECT p clean; PUBLISH t x q1 id=1
         p< CONNACK 0; PUBACK 1
         a> CONNECT a
         a< CONNACK 0 present; PUBLISH t x q1 id=1",
    );
}

#[test]
fn mqtt3_3_1_2_5_qos_1_and_2_messages_are_stored_for_a_session_that_is_away() {
    one().run(
        "a> CONNECT a; SUBSCRIBE id=1 t/#:2
         a< CONNACK 0; SUBACK 1 2
         a!
         p> CONNECT p clean; PUBLISH t/1 x q1 id=1; PUBLISH t/2 y q2 id=2; PUBLISH u z q1 id=3
         p< CONNACK 0; PUBACK 1; PUBREC 2; PUBACK 3
         a> CONNECT a
         a< CONNACK 0 present; PUBLISH t/1 x q1 id=1; PUBLISH t/2 y q2 id=2",
    );
}

#[test]
fn mqtt3_3_1_2_6_clean_session_1_discards_the_session() {
    one().run(
        "a> CONNECT a; SUBSCRIBE id=1 t:1; PUBLISH t x q2 id=9
         a< CONNACK 0; SUBACK 1 1; PUBREC 9; PUBLISH t x q1 id=1
         a!
         a> CONNECT a clean
         a< CONNACK 0
         a> PUBLISH t y q2 id=9
         a< PUBREC 9
         a!
         a> CONNECT a
         a< CONNACK 0",
    );
    let mut script =
        Script::connected(Options { clean_start: true, ..options(Version::V3_1_1) }, b"\x20\x02\0\0");
    script.receive(b"\x34\x05\0\x01t\0\x07");
    script.reconnect(b"\x20\x02\0\0");
    script.events();
    script.receive(b"\x34\x05\0\x01t\0\x07");
    assert_eq!(crate::common::script::messages(script.events()).len(), 1, "not a repetition");
}

#[test]
fn mqtt3_3_1_2_7_retained_messages_outlive_the_session() {
    one().run(
        "a> CONNECT a clean; PUBLISH t x r q1 id=1
         a< CONNACK 0; PUBACK 1
         a!
         a> CONNECT a clean; SUBSCRIBE id=1 t
         a< CONNACK 0; SUBACK 1 0; PUBLISH t x r",
    );
}

#[test]
fn mqtt3_3_1_2_8_the_will_is_published_unless_disconnect_came() {
    let mut rig = one();
    rig.run(
        "w> CONNECT w clean; SUBSCRIBE id=1 will/#:2\n w< CONNACK 0; SUBACK 1 2
         a> CONNECT a clean will=will/a,gone,q1
         a< CONNACK 0
         a!
         w< PUBLISH will/a gone q1 id=1
         b> CONNECT b clean will=will/b,gone
         b< CONNACK 0
         b> RAW 30 00
         b< CLOSED
         w< PUBLISH will/b gone
         c> CONNECT c clean ka=10 will=will/c,gone
         c< CONNACK 0
         +15s
         c< CLOSED
         w< PUBLISH will/c gone
         d> CONNECT d clean will=will/d,gone; DISCONNECT
         d< CONNACK 0; CLOSED",
    );
}

#[test]
fn mqtt3_3_1_2_9_a_will_needs_topic_and_message() {
    not_a_connect(&connect(6, b"\0\x01a"));
    not_a_connect(&connect(6, b"\0\x01a\0\x01w"));
    one().run(&format!("a> {}\n a< CONNACK 0", connect(6, b"\0\x01a\0\x01w\0\0")));
    let will = Will {
        topic: "w".into(),
        payload: b"m".to_vec(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Default::default(),
    };
    let mut script = Script::new(Options { will: Some(will), clean_start: true, ..options(Version::V3_1_1) });
    assert_eq!(script.sent(), b"\x10\x13\0\x04MQTT\x04\x06\0\x3c\0\x01c\0\x01w\0\x01m");
}

#[test]
fn mqtt3_3_1_2_10_a_will_is_published_once() {
    one().run(
        "w> CONNECT w clean; SUBSCRIBE id=1 w\n w< CONNACK 0; SUBACK 1 0
         a> CONNECT a will=w,gone\n a< CONNACK 0
         a!
         w< PUBLISH w gone
         a> CONNECT a\n a< CONNACK 0 present
         a!
         a> CONNECT a will=w,gone; DISCONNECT\n a< CONNACK 0 present; CLOSED
         a> CONNECT a\n a< CONNACK 0 present
         a!",
    );
}

#[test]
fn mqtt3_3_1_2_11_without_the_will_flag_nothing_of_a_will() {
    not_a_connect(&connect(0x0a, b"\0\x01a"));
    not_a_connect(&connect(0x22, b"\0\x01a"));
    not_a_connect(&connect(0x02, b"\0\x01a\0\x01w\0\x01m"));
    let mut script = Script::new(options(Version::V3_1_1));
    assert_eq!(script.sent()[9], 0, "no flags");
}

#[test]
fn mqtt3_3_1_2_12_without_the_will_flag_nothing_is_published() {
    one().run(
        "w> CONNECT w clean; SUBSCRIBE id=1 #\n w< CONNACK 0; SUBACK 1 0
         a> CONNECT a clean\n a< CONNACK 0
         a!",
    );
}

#[test]
fn mqtt3_3_1_2_13_will_qos_without_a_will_closes() {
    for flags in [0x0a, 0x12, 0x1a] {
        not_a_connect(&connect(flags, b"\0\x01a"));
    }
}

#[test]
fn mqtt3_3_1_2_14_will_qos_0_to_2_and_not_3() {
    for (flags, qos) in [(0x06, ""), (0x0e, " q1 id=1"), (0x16, " q2 id=1")] {
        one().run(&format!(
            "w> CONNECT w clean; SUBSCRIBE id=1 w:2\n w< CONNACK 0; SUBACK 1 2
             a> {}\n a< CONNACK 0
             a!
             w< PUBLISH w m{qos}",
            connect(flags, b"\0\x01a\0\x01w\0\x01m")
        ));
    }
    not_a_connect(&connect(0x1e, b"\0\x01a\0\x01w\0\x01m"));
}

#[test]
fn mqtt3_3_1_2_15_will_retain_without_a_will_closes() {
    not_a_connect(&connect(0x22, b"\0\x01a"));
}

/// What one who subscribes before, and one after, sees of a will.
fn will_seen(flags: &str, later: &str) {
    one().run(&format!(
        "w> CONNECT w clean; SUBSCRIBE id=1 w\n w< CONNACK 0; SUBACK 1 0
         a> CONNECT a clean will=w,m{flags}\n a< CONNACK 0
         a!
         w< PUBLISH w m
         l> CONNECT l clean; SUBSCRIBE id=1 w\n l< CONNACK 0; SUBACK 1 0{later}"
    ));
}

#[test]
fn mqtt3_3_1_2_16_a_will_without_retain_is_not_retained() {
    will_seen("", "");
}

#[test]
fn mqtt3_3_1_2_17_a_will_with_retain_is_retained() {
    will_seen(",r", "; PUBLISH w m r");
}

#[test]
fn mqtt3_3_1_2_18_a_user_name_without_its_flag_closes() {
    not_a_connect(&connect(0x02, b"\0\x01a\0\x01u"));
}

#[test]
fn mqtt3_3_1_2_19_the_user_name_flag_needs_a_user_name() {
    not_a_connect(&connect(0x82, b"\0\x01a"));
    let mut script =
        Script::new(Options { username: Some("u".into()), clean_start: true, ..options(Version::V3_1_1) });
    assert_eq!(script.sent(), b"\x10\x10\0\x04MQTT\x04\x82\0\x3c\0\x01c\0\x01u");
}

#[test]
fn mqtt3_3_1_2_20_a_password_without_its_flag_closes() {
    not_a_connect(&connect(0x82, b"\0\x01a\0\x01u\0\x01p"));
}

#[test]
fn mqtt3_3_1_2_21_the_password_flag_needs_a_password() {
    not_a_connect(&connect(0xc2, b"\0\x01a\0\x01u"));
    one().run(&format!("a> {}\n a< CONNACK 0", connect(0xc2, b"\0\x01a\0\x01u\0\0")));
}

#[test]
fn mqtt3_3_1_2_22_a_password_without_a_user_name_closes() {
    not_a_connect(&connect(0x42, b"\0\x01a\0\x01p"));
    let mut script = Script::new(Options { password: Some(b"p".to_vec()), ..options(Version::V3_1_1) });
    assert_eq!(script.disconnected(), By::Options(OptionsError::PasswordWithoutUsername));
}

#[test]
fn mqtt3_3_1_2_23_the_client_pings_when_it_sends_nothing_else() {
    let mut script =
        Script::connected(Options { keep_alive_s: 20, ..options(Version::V3_1_1) }, b"\x20\x02\0\0");
    script.wait(15);
    script.publish(0, "t").unwrap();
    script.receive(b"\x30\x03\0\x01t");
    script.sent();
    script.wait(19);
    assert!(script.sent().is_empty());
    script.wait(1);
    assert_eq!(script.sent(), b"\xc0\0");
}

#[test]
fn mqtt3_3_1_2_24_one_and_a_half_keep_alives_of_silence_close() {
    one().run(
        "w> CONNECT w clean; SUBSCRIBE id=1 w\n w< CONNACK 0; SUBACK 1 0
         a> CONNECT a clean ka=10 will=w,gone\n a< CONNACK 0
         z> CONNECT z clean ka=0\n z< CONNACK 0
         +14s
         a> PINGREQ
         a< PINGRESP
         +14999ms
         a<
         +1ms
         a< CLOSED
         w< PUBLISH w gone
         +99999s
         z<",
    );
}

#[test]
fn mqtt3_3_1_3_1_payload_fields_stand_in_their_order() {
    one().run(&format!(
        "w> CONNECT w clean; SUBSCRIBE id=1 topic\n w< CONNACK 0; SUBACK 1 0
         a> {}\n a< CONNACK 0
         a!
         w< PUBLISH topic msg",
        connect(0xc6, b"\0\x01a\0\x05topic\0\x03msg\0\x04user\0\x04pass")
    ));
    let will = Will {
        topic: "w".into(),
        payload: b"m".to_vec(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Default::default(),
    };
    let mut script = Script::new(Options {
        will: Some(will),
        username: Some("u".into()),
        password: Some(b"p".to_vec()),
        clean_start: true,
        ..options(Version::V3_1_1)
    });
    assert_eq!(script.sent(), b"\x10\x19\0\x04MQTT\x04\xc6\0\x3c\0\x01c\0\x01w\0\x01m\0\x01u\0\x01p");
}

#[test]
fn mqtt3_3_1_3_2_the_session_belongs_to_the_client_identifier() {
    one().run(
        "a> CONNECT a; SUBSCRIBE id=1 t:1\n a< CONNACK 0; SUBACK 1 1
         a!
         b> CONNECT b\n b< CONNACK 0
         b> PUBLISH t x q1 id=1\n b< PUBACK 1
         c> CONNECT a\n c< CONNACK 0 present; PUBLISH t x q1 id=1
         d> CONNECT A\n d< CONNACK 0",
    );
}

#[test]
fn mqtt3_3_1_3_3_the_client_identifier_must_be_present() {
    not_a_connect(&connect(2, b""));
    not_a_connect(&connect(2, b"\0"));
    not_a_connect(&connect(2, b"\0\x02a"));
}

#[test]
fn mqtt3_3_1_3_4_a_client_identifier_that_is_not_utf8_closes() {
    not_a_connect(&connect(2, b"\0\x02\xc3\x28"));
}

#[test]
fn mqtt3_3_1_3_5_identifiers_of_1_to_23_letters_and_digits_are_allowed() {
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for len in 1..=23 {
        for start in 0..all.len() {
            let id: String = all.chars().cycle().skip(start).take(len).collect();
            one().run(&format!("a> CONNECT {id} clean\n a< CONNACK 0"));
        }
    }
}

#[test]
fn mqtt3_3_1_3_6_an_empty_identifier_gets_a_unique_one() {
    let mut rig = one();
    rig.run(
        "a> CONNECT clean; SUBSCRIBE id=1 t\n a< CONNACK 0; SUBACK 1 0
         b> CONNECT clean\n b< CONNACK 0
         b> PUBLISH t x
         a< PUBLISH t x",
    );
    assert_eq!(rig.sum(|c| c.clients_connected), 2);
}

#[test]
fn mqtt3_3_1_3_7_the_client_wants_clean_session_with_an_empty_identifier() {
    let mut script = Script::new(Options { clean_start: false, ..Options::new(Version::V3_1_1, "") });
    assert!(matches!(script.disconnected(), By::Options(_)));
    assert!(script.sent().is_empty());
    let mut script = Script::new(Options { clean_start: true, ..Options::new(Version::V3_1_1, "") });
    assert_eq!(script.sent(), b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0");
}

#[test]
fn mqtt3_3_1_3_8_an_empty_identifier_with_clean_session_0_gets_code_2() {
    let mut rig = one();
    rig.run("a> CONNECT\n a< CONNACK 2; CLOSED");
    assert_eq!(rig.pipe("a").down, b"\x20\x02\0\x02");
}

#[test]
fn mqtt3_3_1_3_9_a_rejected_identifier_gets_code_2() {
    let listener = Listener { clientid_prefixes: Some("ok-".into()), ..Listener::default() };
    let mut rig = Rig::new(1, 0, Config { listeners: vec![listener], ..quiet() });
    rig.run("a> CONNECT ok-a clean\n a< CONNACK 0\n b> CONNECT b clean\n b< CONNACK 2; CLOSED");
}

#[test]
fn mqtt3_3_1_3_10_a_will_topic_that_is_not_utf8_closes() {
    not_a_connect(&connect(6, b"\0\x01a\0\x02\xc3\x28\0\x01m"));
}

#[test]
fn mqtt3_3_1_3_11_a_user_name_that_is_not_utf8_closes() {
    not_a_connect(&connect(0x82, b"\0\x01a\0\x02\xc3\x28"));
}

#[test]
fn mqtt3_3_1_4_1_a_malformed_connect_closes_without_connack() {
    not_a_connect("RAW 10 00");
    not_a_connect("RAW 11 0d 00 04 4d 51 54 54 04 02 00 00 00 01 61");
    not_a_connect(&connect(2, b"\0\x01a\0"));
    not_a_connect(&connect(6, b"\0\x01a\0\x01#\0\x01m"));
}

#[test]
fn mqtt3_3_1_4_2_a_second_connection_of_an_identifier_ends_the_first() {
    one().run(
        "a> CONNECT x\n a< CONNACK 0
         b> CONNECT x\n b< CONNACK 0 present
         a< CLOSED
         b> PINGREQ\n b< PINGRESP",
    );
}

#[test]
fn mqtt3_3_1_4_3_clean_session_of_the_second_connection_counts() {
    one().run(
        "a> CONNECT x; SUBSCRIBE id=1 t\n a< CONNACK 0; SUBACK 1 0
         b> CONNECT x clean\n b< CONNACK 0
         a< CLOSED
         b> PUBLISH t x; PINGREQ\n b< PINGRESP",
    );
}

#[test]
fn mqtt3_3_1_4_4_an_accepted_connect_is_answered_with_code_0() {
    let mut rig = one();
    rig.send("a", "CONNECT a clean");
    rig.settle();
    assert_eq!(rig.pipe("a").down, b"\x20\x02\0\0");
}

#[test]
fn mqtt3_3_1_4_5_what_follows_a_rejected_connect_is_not_processed() {
    let listener = Listener { authentication: Authentication::Ask, ..Listener::default() };
    let mut rig = Rig::new(1, 0, Config { listeners: vec![listener, Listener::default()], ..quiet() });
    rig.send("a", "CONNECT a clean user=u pass=p; PUBLISH t x r; SUBSCRIBE id=1 #");
    rig.settle();
    assert_eq!(rig.asked.len(), 1);
    rig.authenticated("a", Verdict::Failure(ReasonCode::NotAuthorized));
    assert_eq!(rig.news("a"), "CONNACK 5; CLOSED");
    assert_eq!(rig.sum(|c| c.retained), 0);
}

#[test]
fn mqtt3_3_2_0_1_nothing_is_sent_before_connack() {
    let mut rig = one();
    rig.run("a> CONNECT a; SUBSCRIBE id=1 t:1\n a< CONNACK 0; SUBACK 1 1\n a!\n p> CONNECT p clean; PUBLISH t x q1 id=1\n p< CONNACK 0; PUBACK 1");
    rig.run("a> CONNECT a\n a< CONNACK 0 present; PUBLISH t x q1 id=1");
    let mut script = Script::new(options(Version::V3_1_1));
    script.receive(b"\x30\x03\0\x01t");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn mqtt3_3_2_2_1_session_present_is_0_with_clean_session_1() {
    one().run("a> CONNECT a\n a< CONNACK 0\n a!\n a> CONNECT a clean\n a< CONNACK 0");
}

#[test]
fn mqtt3_3_2_2_2_session_present_is_1_when_there_is_one() {
    let mut rig = one();
    rig.run("a> CONNECT a\n a< CONNACK 0\n a!\n a> CONNECT a\n a< CONNACK 0 present");
    assert_eq!(rig.pipe("a").down, b"\x20\x02\x01\0");
}

#[test]
fn mqtt3_3_2_2_3_session_present_is_0_when_there_is_none() {
    one().run("a> CONNECT a clean\n a< CONNACK 0\n a!\n a> CONNECT a\n a< CONNACK 0");
}

#[test]
fn mqtt3_3_2_2_4_session_present_is_0_in_a_refusal() {
    let mut rig = one();
    rig.run("a> CONNECT a\n a< CONNACK 0\n a!");
    let listener = Listener { authentication: Authentication::Ask, ..Listener::default() };
    rig.configure(Config { listeners: vec![listener], ..quiet() });
    rig.send("a", "CONNECT a user=u");
    rig.settle();
    rig.authenticated("a", Verdict::Failure(ReasonCode::NotAuthorized));
    assert_eq!(rig.pipe("a").down, b"\x20\x02\0\x05");
}

#[test]
fn mqtt3_3_2_2_5_a_refused_connection_is_closed() {
    one().run("a> CONNECT\n a< CONNACK 2; CLOSED");
    let mut script = Script::new(options(Version::V3_1_1));
    script.receive(b"\x20\x02\0\x03");
    assert!(script.client.wants_close());
}

#[test]
fn mqtt3_3_2_2_6_no_connack_where_no_code_applies() {
    let mut rig = one();
    rig.send("a", &connect(3, b"\0\x01a"));
    rig.settle();
    assert!(rig.pipe("a").down.is_empty() && !rig.pipe("a").open);
}
