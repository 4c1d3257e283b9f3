//! MQTT 5.0, section 3.1: CONNECT, but for keep alive, limits and what is asked for in its properties.

use crate::common::script::{Script, options, published};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::{AcceptedVersions, rights::Rights};
use hikyaku_proto::broker::{Authentication, Config, Listener, ListenerLimits, Verdict};
use hikyaku_proto::client::{By, Dropped, Event, Options, OptionsError, SendError, Will};
use hikyaku_proto::codec::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const WATCHER: &str = "w> CONNECT w clean v5; SUBSCRIBE id=1 will/#:2:rap\n w< CONNACK 0; SUBACK 1 2\n";

/// A CONNECT without properties, keep alive 0; `payload` begins with the client id.
pub fn connect(flags: u8, payload: &[u8]) -> Vec<u8> {
    let body = [b"\0\x04MQTT\x05", &[flags, 0, 0, 0][..], payload].concat();
    [&[0x10, body.len() as u8], &body[..]].concat()
}

/// Opens connection `name` with these bytes of a 5.0 client; what it gets.
pub fn open(rig: &mut Rig, name: &str, bytes: &[u8]) -> String {
    let at = rig.open(bytes, Version::V5);
    rig.names.insert(name.into(), at);
    rig.news(name)
}

/// The first connection of a broker gets this for these bytes.
fn answer(bytes: &[u8]) -> String {
    open(&mut one(), "a", bytes)
}

/// The bytes of the CONNACK of a connection.
pub fn connack(rig: &mut Rig, name: &str) -> Vec<u8> {
    rig.settle();
    let frame = Frame::parse(&rig.pipe(name).down, u32::MAX).unwrap().unwrap();
    assert_eq!(frame.first, 0x20);
    frame.raw.to_vec()
}

/// The properties of a CONNACK.
pub fn properties(connack: &[u8]) -> Properties<'_> {
    let frame = Frame::parse(connack, u32::MAX).unwrap().unwrap();
    ConnAck::decode(Version::V5, frame).unwrap().properties
}

/// The client identifier that a CONNACK assigns.
pub fn assigned(connack: &[u8]) -> String {
    properties(connack).assigned_client_identifier().unwrap().to_owned()
}

const MALFORMED: &str = "CONNACK 0x81; CLOSED";
/// What is wrong with credentials is not told, nor with the QoS of a will.
const CLOSED: &str = "CLOSED";

/// A broker that asks who its clients are.
pub fn asking() -> Rig {
    let listener = Listener { authentication: Authentication::Ask, ..Listener::default() };
    Rig::new(1, 0, Config { listeners: vec![listener], ..quiet() })
}

#[test]
fn mqtt5_3_1_0_1_the_first_packet_is_a_connect() {
    for first in [
        "PINGREQ",
        "PUBLISH t x",
        "SUBSCRIBE id=1 t",
        "UNSUBSCRIBE id=1 t",
        "DISCONNECT",
        "RAW f0 00",
        "RAW 20 03 00 00 00",
        "RAW 16 03 01 02 00",
        "RAW 00 00",
    ] {
        let mut rig = one();
        rig.run(&format!("a> {first}; RAW 10 0e 00 04 4d 51 54 54 05 02 00 00 00 00 01 61\n a< CLOSED"));
        assert!(rig.pipe("a").down.is_empty(), "{first}");
    }
    // The client sends nothing before it.
    let mut script = Script::new(options(Version::V5));
    script.publish(1, "t").unwrap();
    assert_eq!(script.publish(0, "t"), Err(SendError::NotConnected));
    let filter = [("t", SubscribeOptions::default())];
    let result = script.client.subscribe(script.now, &filter, Properties::EMPTY);
    assert_eq!(result, Err(SendError::NotConnected));
    let sent = script.sent();
    assert_eq!((sent[0], sent.len()), (0x10, 2 + usize::from(sent[1])));
}

#[test]
fn mqtt5_3_1_0_2_a_second_connect_is_a_protocol_error() {
    one().run(
        "a> CONNECT a v5 expiry=100
         a< CONNACK 0
         a> CONNECT a clean v5; PINGREQ
         a< DISCONNECT 0x82; CLOSED
         b> CONNECT b clean v5; CONNECT c v5 expiry=100
         b< CONNACK 0; DISCONNECT 0x82; CLOSED
         a> CONNECT a v5
         a< CONNACK 0 present
         c> CONNECT c v5
         c< CONNACK 0",
    );
}

#[test]
fn mqtt5_3_1_2_1_another_protocol_name_is_refused() {
    for name in ["MQTX", "mqtt", "MQT", "MQTTT", "MQIsdp", "HTTP/1.1", ""] {
        let head = [&[0, name.len() as u8], name.as_bytes(), b"\x05\x02\0\0\0\0\x01a"].concat();
        let mut rig = one();
        rig.open(&[&[0x10, head.len() as u8], &head[..]].concat(), Version::V5);
        rig.settle();
        let pipe = &rig.pipes[0];
        assert!(!pipe.open, "{name}");
        // The name of MQTT 3.1 is known, and told that this is no version of it.
        let told = name == "MQIsdp";
        assert_eq!(pipe.down, if told { &b"\x20\x03\0\x84\0"[..] } else { b"" }, "{name}");
        assert_eq!(rig.sum(|c| c.clients_total), 0);
    }
    assert_eq!(&Script::new(options(Version::V5)).sent()[2..9], b"\0\x04MQTT\x05");
}

#[test]
fn mqtt5_3_1_2_2_another_protocol_version_is_refused() {
    let mut other = connect(2, b"\0\x01a");
    for version in [6, 7, 127] {
        other[8] = version;
        assert_eq!(answer(&other), "CONNACK 0x84; CLOSED");
    }
    let versions = AcceptedVersions { v3_1: true, v3_1_1: true, v5: false };
    let limits = ListenerLimits { versions, ..ListenerLimits::default() };
    let config = Config { listeners: vec![Listener { limits, ..Listener::default() }], ..quiet() };
    Rig::new(1, 0, config)
        .run("a> CONNECT a clean v5\n a< CONNACK 0x84; CLOSED\n b> CONNECT b clean\n b< CONNACK 0");
}

#[test]
fn mqtt5_3_1_2_3_the_reserved_flag_is_zero() {
    assert_eq!(answer(&connect(0x02, b"\0\x01a")), "CONNACK 0");
    assert_eq!(answer(&connect(0x03, b"\0\x01a")), MALFORMED);
    assert_eq!(answer(&connect(0x01, b"\0\x01a")), MALFORMED);
    let will = Some(Will { topic: "w".into(), retain: true, qos: QoS::ExactlyOnce, ..Will::default() });
    let all = Options { will, username: Some("u".into()), password: Some(vec![1]), ..options(Version::V5) };
    assert_eq!(Script::new(all).sent()[9] & 1, 0);
}

#[test]
fn mqtt5_3_1_2_4_clean_start_discards_the_session() {
    one().run(
        "o> CONNECT o clean v5; SUBSCRIBE id=1 x
         o< CONNACK 0; SUBACK 1 0
         a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:2; PUBLISH x y q2 id=9
         a< CONNACK 0; SUBACK 1 2; PUBREC 9
         o< PUBLISH x y
         p> CONNECT p clean v5; PUBLISH t sent q1 id=1
         p< CONNACK 0; PUBACK 1
         a< PUBLISH t sent q1 id=1
         a!
         p> PUBLISH t queued q1 id=1
         p< PUBACK 1
         a> CONNECT a v5 clean expiry=100
         a< CONNACK 0
         p> PUBLISH t x q1 id=1
         p< PUBACK 1 0x10
         a> PUBLISH x new q2 id=9
         a< PUBREC 9
         o< PUBLISH x new
         a!
         a> CONNECT a v5
         a< CONNACK 0 present",
    );
    // A client that asks for it discards its own: what is in flight at QoS 2 is given back.
    let with = Options { clean_start: true, session_expiry_s: 0, ..options(Version::V5) };
    let mut script = Script::connected(with, b"\x20\x03\0\0\0");
    let ticket = script.publish(2, "t").unwrap();
    script.client.transport_down(script.now);
    script.client.transport_up(script.now);
    assert!(script.sent().ends_with(b"MQTT\x05\x02\0\x3c\x03\x22\0\x0a\0\x01c"));
    script.receive(b"\x20\x03\0\0\0");
    let why = Dropped::SessionLost;
    let dropped = |e: &Event| matches!(e, Event::Dropped { ticket: t, why: w } if (*t, *w) == (ticket, why));
    assert!(script.events().iter().any(dropped));
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_3_1_2_5_without_clean_start_the_session_is_resumed() {
    one().run(
        "o> CONNECT o clean v5; SUBSCRIBE id=1 x
         o< CONNACK 0; SUBACK 1 0
         a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t:2; PUBLISH x y q2 id=9
         a< CONNACK 0; SUBACK 1 2; PUBREC 9
         o< PUBLISH x y
         p> CONNECT p clean v5; PUBLISH t sent q1 id=1; PUBLISH t half q2 id=2
         p< CONNACK 0; PUBACK 1; PUBREC 2
         a< PUBLISH t sent q1 id=1; PUBLISH t half q2 id=2
         a> PUBREC 2
         a< PUBREL 2
         a!
         p> PUBLISH t queued q1 id=1
         p< PUBACK 1
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present; PUBLISH t sent q1 id=1 dup; PUBREL 2; PUBLISH t queued q1 id=3
         a> PUBLISH x y q2 id=9 dup; PUBREL 9
         a< PUBREC 9; PUBCOMP 9
         p> PUBLISH t new
         a< PUBLISH t new",
    );
}

#[test]
fn mqtt5_3_1_2_6_where_there_is_no_session_one_is_created() {
    one().run(
        "a> CONNECT a v5 expiry=100
         a< CONNACK 0
         a!
         b> CONNECT b v5 expiry=100; SUBSCRIBE id=1 t
         b< CONNACK 0; SUBACK 1 0
         b!
         b> CONNECT b v5 expiry=100; PUBLISH t x
         b< CONNACK 0 present; PUBLISH t x",
    );
}

#[test]
fn mqtt5_3_1_2_7_the_will_is_stored_with_its_session() {
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 expiry=100 will=will/a,one,delay5
         a< CONNACK 0
         b> CONNECT b v5 expiry=100 will=will/b,two,delay5
         b< CONNACK 0
         b!
         +6s
         w< PUBLISH will/b two
         a!
         a> CONNECT a v5 expiry=100 will=will/a,other
         a< CONNACK 0 present
         a!
         w< PUBLISH will/a other
         a> CONNECT a v5 expiry=100
         a< CONNACK 0 present
         a!
         +200s
         w<"
    ));
}

#[test]
fn mqtt5_3_1_2_8_the_will_is_published_after_its_delay_or_with_the_end_of_the_session() {
    // However the connection ends; and not before it does.
    for (end, told) in [
        ("a!", "a<"),
        ("+16s", "a< DISCONNECT 0x8d; CLOSED"),
        ("a> RAW c1 00", "a< DISCONNECT 0x81; CLOSED"),
        ("a> DISCONNECT 0x04", "a< CLOSED"),
        ("a> DISCONNECT 0x80", "a< CLOSED"),
        ("b> CONNECT a v5 clean", "a< DISCONNECT 0x8e; CLOSED\n b< CONNACK 0"),
    ] {
        let told = if told == "a<" { "" } else { told };
        one().run(&format!(
            "{WATCHER}
             a> CONNECT a v5 expiry=100 ka=10 will=will/a,bye,q1
             a< CONNACK 0
             +14s
             w<
             a> PINGREQ
             a< PINGRESP
             {end}
             {told}
             w< PUBLISH will/a bye q1 id=1
             +500s
             w<"
        ));
    }
    // After the delay, with the end of the session if that is earlier, and not when the client is back in time.
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 expiry=100 will=will/a,late,delay10
         a< CONNACK 0
         a!
         +9s
         w<
         +2s
         w< PUBLISH will/a late
         b> CONNECT b v5 expiry=5 will=will/b,end,delay10
         b< CONNACK 0
         b!
         +4s
         w<
         +2s
         w< PUBLISH will/b end
         c> CONNECT c v5 expiry=100 will=will/c,never,delay10
         c< CONNACK 0
         c!
         +9s
         c> CONNECT c v5 expiry=100
         c< CONNACK 0 present
         +100s
         d> CONNECT d v5 expiry=5 will=will/d,never; DISCONNECT
         d< CONNACK 0; CLOSED
         +100s
         w<"
    ));
}

#[test]
fn mqtt5_3_1_2_9_a_will_has_properties_topic_and_payload() {
    let payload = b"\0\x01a\0\0\x01w\0\x01x";
    assert_eq!(answer(&connect(0x06, payload)), "CONNACK 0");
    for length in 3..payload.len() {
        assert_eq!(answer(&connect(0x06, &payload[..length])), MALFORMED, "{length}");
    }
    let will = Some(Will { topic: "w".into(), payload: b"x".to_vec(), ..Will::default() });
    assert!(
        Script::new(Options { will, ..options(Version::V5) }).sent().ends_with(b"\0\x01c\0\0\x01w\0\x01x")
    );
}

#[test]
fn mqtt5_3_1_2_10_the_will_is_removed_once_published_or_by_disconnect() {
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 expiry=100 will=will/a,once
         a< CONNACK 0
         a!
         w< PUBLISH will/a once
         +50s
         a> CONNECT a v5 expiry=10
         a< CONNACK 0 present
         a!
         +100s
         b> CONNECT b v5 expiry=10 will=will/b,once,delay5
         b< CONNACK 0
         b!
         +6s
         w< PUBLISH will/b once
         +100s
         c> CONNECT c v5 expiry=10 will=will/c,never,delay5; DISCONNECT
         c< CONNACK 0; CLOSED
         +100s
         d> CONNECT d v5 expiry=100 will=will/d,never; DISCONNECT
         d< CONNACK 0; CLOSED
         d> CONNECT d v5 clean expiry=100
         d< CONNACK 0
         d!
         w<"
    ));
}

#[test]
fn mqtt5_3_1_2_11_a_will_qos_without_a_will_is_malformed() {
    for flags in [0x0a, 0x12, 0x1a] {
        assert_eq!(answer(&connect(flags, b"\0\x01a")), MALFORMED, "{flags:#x}");
    }
    assert_eq!(Script::new(options(Version::V5)).sent()[9] & 0x18, 0);
}

#[test]
fn mqtt5_3_1_2_12_a_will_has_qos_0_1_or_2() {
    for (qos, text) in [("q0", ""), ("q1", " q1 id=1"), ("q2", " q2 id=1")] {
        one().run(&format!(
            "{WATCHER} a> CONNECT a v5 will=will/a,x,{qos}\n a< CONNACK 0\n a!\n w< PUBLISH will/a x{text}"
        ));
    }
    assert_eq!(answer(&connect(0x1e, b"\0\x01a\0\0\x01w\0\x01x")), CLOSED);
    for (qos, flags) in [(QoS::AtMostOnce, 0x04), (QoS::AtLeastOnce, 0x0c), (QoS::ExactlyOnce, 0x14)] {
        let will = Some(Will { topic: "w".into(), qos, ..Will::default() });
        assert_eq!(Script::new(Options { will, ..options(Version::V5) }).sent()[9], flags);
    }
}

#[test]
fn mqtt5_3_1_2_13_a_will_retain_without_a_will_is_malformed() {
    assert_eq!(answer(&connect(0x22, b"\0\x01a")), MALFORMED);
    assert_eq!(Script::new(options(Version::V5)).sent()[9] & 0x20, 0);
}

#[test]
fn mqtt5_3_1_2_14_a_will_without_retain_is_not_retained() {
    one().run(&format!(
        "{WATCHER}
         p> CONNECT p clean v5; PUBLISH will/a kept r
         p< CONNACK 0
         w< PUBLISH will/a kept r
         a> CONNECT a v5 will=will/a,bye
         a< CONNACK 0
         a!
         w< PUBLISH will/a bye
         s> CONNECT s clean v5; SUBSCRIBE id=1 will/#
         s< CONNACK 0; SUBACK 1 0; PUBLISH will/a kept r"
    ));
}

#[test]
fn mqtt5_3_1_2_15_a_will_with_retain_is_retained() {
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 will=will/a,bye,r
         a< CONNACK 0
         s> CONNECT s clean v5; SUBSCRIBE id=1 will/#
         s< CONNACK 0; SUBACK 1 0
         a!
         w< PUBLISH will/a bye r
         s< PUBLISH will/a bye
         s> SUBSCRIBE id=2 will/#
         s< SUBACK 2 0; PUBLISH will/a bye r"
    ));
}

#[test]
fn mqtt5_3_1_2_16_a_user_name_without_its_flag_is_malformed() {
    assert_eq!(answer(&connect(0x02, b"\0\x01a\0\x01u")), MALFORMED);
    // With the flag of the password alone the first field is the password, and one is left.
    assert_eq!(answer(&connect(0x42, b"\0\x01a\0\x01u\0\x01p")), MALFORMED);
    let sent = Script::new(options(Version::V5)).sent();
    assert_eq!((sent[9], sent.ends_with(b"\0\x01c")), (0, true));
}

#[test]
fn mqtt5_3_1_2_17_the_flag_of_the_user_name_without_one_is_malformed() {
    assert_eq!(answer(&connect(0x82, b"\0\x01a")), CLOSED);
    assert_eq!(answer(&connect(0x82, b"\0\x01a\0\x02u")), CLOSED);
    assert_eq!(answer(&connect(0xc2, b"\0\x01a\0\x01u")), CLOSED);
    let mut rig = asking();
    assert_eq!(open(&mut rig, "a", &connect(0x82, b"\0\x01a\0\x01u")), "");
    assert_eq!((rig.asked[0].username.as_deref(), &rig.asked[0].password), (Some("u"), &None));
    let sent = Script::new(Options { username: Some("u".into()), ..options(Version::V5) }).sent();
    assert_eq!((sent[9], sent.ends_with(b"\0\x01c\0\x01u")), (0x80, true));
}

#[test]
fn mqtt5_3_1_2_18_a_password_without_its_flag_is_malformed() {
    assert_eq!(answer(&connect(0x82, b"\0\x01a\0\x01u\0\x01p")), MALFORMED);
    let sent = Script::new(Options { username: Some("u".into()), ..options(Version::V5) }).sent();
    assert_eq!((sent[9] & 0x40, sent.ends_with(b"\0\x01u")), (0, true));
}

#[test]
fn mqtt5_3_1_2_19_the_flag_of_the_password_without_one_is_malformed() {
    assert_eq!(answer(&connect(0x42, b"\0\x01a")), CLOSED);
    assert_eq!(answer(&connect(0x42, b"\0\x01a\0\x02p")), CLOSED);
    // 5.0 has passwords without a user name, and any bytes in them.
    let mut rig = asking();
    assert_eq!(open(&mut rig, "a", &connect(0x42, b"\0\x01a\0\x02\0\xff")), "");
    assert_eq!((&rig.asked[0].username, rig.asked[0].password.as_deref()), (&None, Some(&b"\0\xff"[..])));
    let sent = Script::new(Options { password: Some(vec![0, 255]), ..options(Version::V5) }).sent();
    assert_eq!((sent[9], sent.ends_with(b"\0\x01c\0\x02\0\xff")), (0x40, true));
}

#[test]
fn mqtt5_3_1_3_1_the_fields_of_the_payload_have_their_order() {
    let fields = b"\0\x01c\x05\x18\0\0\0\x07\0\x06will/c\0\x01x\0\x01u\0\x01p";
    let mut rig = asking();
    rig.run("w> CONNECT w clean v5; SUBSCRIBE id=1 will/#\n w<");
    rig.authenticated("w", Verdict::Success { username: None, data: None });
    rig.run("w< CONNACK 0; SUBACK 1 0");
    assert_eq!(open(&mut rig, "c", &connect(0xc6, fields)), "");
    let asked = rig.asked.pop().unwrap();
    assert_eq!((&*asked.client_id, asked.username.as_deref()), ("c", Some("u")));
    assert_eq!(asked.password.as_deref(), Some(&b"p"[..]));
    rig.authenticated("c", Verdict::Success { username: None, data: None });
    rig.run("c< CONNACK 0\n c!\n w< PUBLISH will/c x");
    let mut properties = PropertiesBuf::default();
    properties.push(Property::WillDelayInterval(7));
    let will = Will { topic: "will/c".into(), payload: b"x".to_vec(), properties, ..Will::default() };
    let (username, password) = (Some("u".into()), Some(b"p".to_vec()));
    let sent = Script::new(Options { will: Some(will), username, password, ..options(Version::V5) }).sent();
    assert!(sent.ends_with(fields));
}

#[test]
fn mqtt5_3_1_3_2_the_client_identifier_names_the_session() {
    one().run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 t/a
         a< CONNACK 0; SUBACK 1 0
         b> CONNECT A v5 expiry=100
         b< CONNACK 0
         a> DISCONNECT
         a< CLOSED
         b> DISCONNECT
         b< CLOSED
         c> CONNECT a v5; PUBLISH t/a x
         c< CONNACK 0 present; PUBLISH t/a x
         d> CONNECT A v5; PUBLISH t/a y
         d< CONNACK 0 present
         c< PUBLISH t/a y
         e> CONNECT aa v5
         e< CONNACK 0",
    );
    // The client goes on with the name it has, and with one that it was given.
    let mut script = Script::v5();
    script.reconnect(b"\x20\x03\x01\0\0");
    script.client.transport_down(script.now);
    script.client.transport_up(script.now);
    assert!(script.sent().ends_with(b"\0\x01c"));
    let with = Options { client_id: String::new(), ..options(Version::V5) };
    let mut script = Script::connected(with, b"\x20\x09\0\0\x06\x12\0\x03srv");
    script.client.transport_down(script.now);
    script.client.transport_up(script.now);
    assert!(script.sent().ends_with(b"\0\x03srv"));
}

#[test]
fn mqtt5_3_1_3_3_the_client_identifier_is_the_first_field() {
    assert_eq!(answer(&connect(0x02, b"")), MALFORMED);
    assert_eq!(answer(&connect(0x02, b"\0")), MALFORMED);
    let mut rig = one();
    assert_eq!(open(&mut rig, "a", &connect(0x86, b"\0\x01a\0\0\x01w\0\x01x\0\x01u")), "CONNACK 0");
    rig.run("b> CONNECT a v5 user=u\n b< CONNACK 0\n a< DISCONNECT 0x8e; CLOSED");
    let sent = Script::new(Options { username: Some("u".into()), ..options(Version::V5) }).sent();
    let properties = usize::from(sent[12]);
    assert_eq!(&sent[13 + properties..], b"\0\x01c\0\x01u");
}

#[test]
fn mqtt5_3_1_3_4_a_client_identifier_that_is_no_utf8_is_malformed() {
    for id in [&b"\0\x01\xff"[..], b"\0\x03\xed\xa0\x80", b"\0\x02\xc3\x28", b"\0\x03a\0b"] {
        assert_eq!(answer(&connect(0x02, id)), "CONNACK 0x85; CLOSED", "{id:?}");
    }
    assert_eq!(answer(&connect(0x02, "\0\u{5}日é".as_bytes())), "CONNACK 0");
}

#[test]
fn mqtt5_3_1_3_5_identifiers_of_1_to_23_letters_and_digits_are_taken() {
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut rig = one();
    for length in 1..=23 {
        rig.run(&format!("a{length}> CONNECT {} clean v5\n a{length}< CONNACK 0", &letters[..length]));
    }
    for start in 0..letters.len() - 23 {
        let id = &letters[start + 1..start + 24];
        rig.run(&format!("b{start}> CONNECT {id} clean v5\n b{start}< CONNACK 0"));
    }
}

#[test]
fn mqtt5_3_1_3_6_an_empty_identifier_gets_a_unique_one() {
    let mut rig = one();
    let mut seen = BTreeSet::new();
    for n in 0..50 {
        let name = format!("a{n}");
        rig.run(&format!("{name}> CONNECT v5 expiry=100\n {name}< CONNACK 0 assigned=41"));
        let connack = connack(&mut rig, &name);
        assert!(seen.insert(assigned(&connack)), "twice the same");
    }
    // Nobody was taken over.
    assert_eq!(rig.sum(|c| c.clients_connected), 50);
}

#[test]
fn mqtt5_3_1_3_7_the_assigned_identifier_is_told_and_names_the_session() {
    let mut rig = one();
    rig.run("a> CONNECT v5 expiry=100; SUBSCRIBE id=1 t:1\n a< CONNACK 0 assigned=41; SUBACK 1 1\n a!");
    let id = assigned(&connack(&mut rig, "a"));
    rig.run(&format!(
        "p> CONNECT p clean v5; PUBLISH t x q1 id=1
         p< CONNACK 0; PUBACK 1
         b> CONNECT {id} v5 expiry=100
         b< CONNACK 0 present; PUBLISH t x q1 id=1
         c> CONNECT clean v5
         c< CONNACK 0 assigned=41
         b> PINGREQ
         b< PINGRESP"
    ));
}

#[test]
fn mqtt5_3_1_3_8_a_client_identifier_that_is_refused_closes() {
    let limits = ListenerLimits { allow_zero_length_clientid: false, ..ListenerLimits::default() };
    let listener = Listener { limits, clientid_prefixes: Some("dev-".into()), ..Listener::default() };
    let mut rig = Rig::new(1, 0, Config { listeners: vec![listener], ..quiet() });
    rig.run(
        "a> CONNECT other clean v5; PINGREQ
         a< CONNACK 0x85; CLOSED
         b> CONNECT clean v5; PINGREQ
         b< CONNACK 0x85; CLOSED
         c> CONNECT dev-1 clean v5; PINGREQ
         c< CONNACK 0; PINGRESP",
    );
}

#[test]
fn mqtt5_3_1_3_9_a_client_that_is_back_in_time_deletes_its_delayed_will() {
    for back in ["CONNECT a v5 expiry=100", "CONNECT a v5 expiry=0"] {
        one().run(&format!(
            "{WATCHER}
             a> CONNECT a v5 expiry=100 will=will/a,x,delay10
             a< CONNACK 0
             a!
             +9s
             a> {back}
             a< CONNACK 0 present
             +2s
             w<
             a!
             +100s
             w<"
        ));
    }
    // And so does one that takes the connection over.
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 expiry=100 will=will/a,x,delay10
         a< CONNACK 0
         b> CONNECT a v5 expiry=100
         b< CONNACK 0 present
         a< DISCONNECT 0x8e; CLOSED
         +50s
         w<"
    ));
}

#[test]
fn mqtt5_3_1_3_10_the_user_properties_of_a_will_keep_their_order() {
    let will = "will/a,x,r,up=b:1,up=a:2,ct=text,up=b:0,up=a:2";
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 will={will}
         a< CONNACK 0
         a!
         w< PUBLISH will/a x r up=b:1 up=a:2 ct=text up=b:0 up=a:2
         w> SUBSCRIBE id=2 will/a
         w< SUBACK 2 0; PUBLISH will/a x r up=b:1 up=a:2 ct=text up=b:0 up=a:2"
    ));
}

#[test]
fn mqtt5_3_1_3_11_a_will_topic_that_is_no_utf8_is_malformed() {
    for topic in [&b"\0\x01\xff"[..], b"\0\x03\xed\xa0\x80", b"\0\x03a\0b"] {
        assert_eq!(answer(&connect(0x06, &[b"\0\x01a\0", topic, b"\0\x01x"].concat())), MALFORMED);
    }
    assert_eq!(answer(&connect(0x06, "\0\u{1}a\0\0\u{3}日\0\u{1}x".as_bytes())), "CONNACK 0");
    let will = Some(Will { topic: "a\0b".into(), ..Will::default() });
    let mut script = Script::new(Options { will, ..options(Version::V5) });
    assert_eq!(script.disconnected(), By::Options(OptionsError::WillTopicInvalid));
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_3_1_3_12_the_user_name_is_the_next_field_and_utf8() {
    for name in [&b"\0\x01\xff"[..], b"\0\x03\xed\xa0\x80", b"\0\x03a\0b"] {
        assert_eq!(answer(&connect(0x82, &[b"\0\x01a", name].concat())), CLOSED);
        assert_eq!(answer(&connect(0xc2, &[b"\0\x01a", name, b"\0\x01p"].concat())), CLOSED);
    }
    for (flags, fields) in
        [(0xc2, &b"\0\x01a\0\x03\xc3\xa9u\0\x01p"[..]), (0xc6, b"\0\x01a\0\0\x01w\0\0\0\x03\xc3\xa9u\0\x01p")]
    {
        let mut rig = asking();
        open(&mut rig, "a", &connect(flags, fields));
        assert_eq!(rig.asked[0].username.as_deref(), Some("éu"));
    }
}

#[test]
fn mqtt5_3_1_4_1_a_connect_of_another_format_closes() {
    // Whatever is cut off, or put behind it.
    let good = connect(0xc6, b"\0\x01a\x05\x18\0\0\0\x07\0\x01w\0\x01x\0\x01u\0\x01p");
    assert_eq!(answer(&good), "CONNACK 0");
    for length in 2..good.len() {
        let mut cut = good[..length].to_vec();
        cut[1] = length as u8 - 2;
        let mut rig = one();
        rig.open(&cut, if length > 8 { Version::V5 } else { Version::V3_1_1 });
        rig.settle();
        let pipe = &rig.pipes[0];
        assert!(!pipe.open && !pipe.log.iter().any(|l| l == "CONNACK 0"), "{length}: {:?}", pipe.log);
    }
    let mut longer = [&good[..], &[0]].concat();
    longer[1] += 1;
    assert_eq!(answer(&longer), MALFORMED);
    // Properties that are none, occur twice, or have a value that they must not.
    for (properties, reason) in [
        (&b"\x02\x7f\0"[..], "0x81"),
        (b"\x03\x23\0\x01", "0x82"),
        (b"\x02\x11\0", "0x81"),
        (b"\x0a\x11\0\0\0\x01\x11\0\0\0\x01", "0x82"),
        (b"\x03\x21\0\0", "0x82"),
        (b"\x05\x27\0\0\0\0", "0x82"),
        (b"\x02\x17\x02", "0x82"),
        (b"\x02\x19\x02", "0x82"),
        (b"\x04\x16\0\x01x", "0x82"),
    ] {
        let body = [b"\0\x04MQTT\x05\x02\0\0", properties, b"\0\x01a"].concat();
        let answer = answer(&[&[0x10, body.len() as u8], &body[..]].concat());
        assert_eq!(answer, format!("CONNACK {reason}; CLOSED"), "{properties:x?}");
    }
}

#[test]
fn mqtt5_3_1_4_2_a_client_that_fails_a_check_is_closed() {
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 user=u pass=x; PINGREQ\n a<\n b> CONNECT b clean v5; PINGREQ\n b<");
    rig.authenticated("a", Verdict::Failure(ReasonCode::BadUserNameOrPassword));
    rig.authenticated("b", Verdict::Failure(ReasonCode::NotAuthorized));
    rig.run("a< CONNACK 0x86; CLOSED\n b< CONNACK 0x87; CLOSED");
    // Authorization: a will where nothing may be published; a session of another user.
    let listener = Listener { rights: Arc::new(Rights::NONE), ..Listener::default() };
    Rig::new(1, 0, Config { listeners: vec![listener], ..quiet() }).run(
        "a> CONNECT a v5 will=w,x; PINGREQ
         a< CONNACK 0x87; CLOSED
         b> CONNECT b v5 expiry=100 user=ann; PINGREQ
         b< CONNACK 0; PINGRESP
         c> CONNECT b v5 user=bob; PINGREQ
         c< CONNACK 0x87; CLOSED
         b> PINGREQ
         b< PINGRESP",
    );
}

#[test]
fn mqtt5_3_1_4_3_the_client_already_connected_is_told_and_closed() {
    one().run(
        "a> CONNECT x v5
         a< CONNACK 0
         b> CONNECT x v5 clean
         b< CONNACK 0
         a< DISCONNECT 0x8e; CLOSED
         c> CONNECT x v5 expiry=100
         c< CONNACK 0
         b< DISCONNECT 0x8e; CLOSED
         d> CONNECT x v5 expiry=100; PINGREQ
         d< CONNACK 0 present; PINGRESP
         c< DISCONNECT 0x8e; CLOSED",
    );
}

#[test]
fn mqtt5_3_1_4_4_clean_start_counts_for_a_session_in_use_too() {
    one().run(
        "a> CONNECT x v5 expiry=100; SUBSCRIBE id=1 t
         a< CONNACK 0; SUBACK 1 0
         b> CONNECT x v5 expiry=100; PUBLISH t one
         b< CONNACK 0 present; PUBLISH t one
         a< DISCONNECT 0x8e; CLOSED
         c> CONNECT x v5 clean expiry=100; PUBLISH t two
         c< CONNACK 0
         b< DISCONNECT 0x8e; CLOSED
         d> CONNECT x v5 expiry=100; PUBLISH t three q1 id=1
         d< CONNACK 0 present; PUBACK 1 0x10
         c< DISCONNECT 0x8e; CLOSED",
    );
}

#[test]
fn mqtt5_3_1_4_5_a_connect_that_is_accepted_is_acknowledged() {
    for connect in
        ["CONNECT a v5", "CONNECT a clean v5", "CONNECT a v5 expiry=9 rm=1 tam=3 mps=100 rri=1 rpi=0 up=k:v"]
    {
        let mut rig = one();
        rig.run(&format!("a> {connect}\n a< CONNACK 0"));
        assert_eq!(rig.pipe("a").down[3], 0);
    }
    // Not before the checks are done.
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5; PINGREQ\n a<");
    rig.authenticated("a", Verdict::Success { username: None, data: None });
    rig.run("a< CONNACK 0; PINGRESP");
}

#[test]
fn mqtt5_3_1_4_6_nothing_behind_a_rejected_connect_is_processed() {
    let more = "PUBLISH t x r; PUBLISH t y q1 id=1; SUBSCRIBE id=1 t; PINGREQ; DISCONNECT";
    let mut rig = asking();
    rig.run("s> CONNECT s clean v5; SUBSCRIBE id=1 t\n s<");
    rig.authenticated("s", Verdict::Success { username: None, data: None });
    rig.run(&format!("s< CONNACK 0; SUBACK 1 0\n a> CONNECT a clean v5; {more}\n a<\n s<"));
    rig.authenticated("a", Verdict::Failure(ReasonCode::NotAuthorized));
    rig.run("a< CONNACK 0x87; CLOSED\n s< ");
    rig.run("s> SUBSCRIBE id=2 t\n s< SUBACK 2 0");
    assert_eq!(rig.sum(|c| c.publish_received), 0);
    assert_eq!(rig.sum(|c| c.retained), 0);
    let mut rig = one();
    rig.run(&format!("b> CONNECT b v5 expiry=100 method=M; {more}\n b< CONNACK 0x8c; CLOSED"));
    assert_eq!((rig.sum(|c| c.publish_received), rig.sum(|c| c.retained)), (0, 0));
    rig.run("b> CONNECT b v5\n b< CONNACK 0");
    let mut script = Script::new(options(Version::V5));
    script.publish(1, "t").unwrap();
    script.sent();
    script.receive(b"\x20\x03\0\x87\0");
    assert!(published(&script.events()).is_empty() && script.sent().is_empty());
}
