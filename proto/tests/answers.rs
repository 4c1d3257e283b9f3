//! What is said to a client that sends what it must not: DISCONNECT and CONNACK byte for byte, or nothing.
//!
//! Where a numbered statement fixes the answer it stands beside the case. Elsewhere the standard leaves the choice
//! between Malformed Packet, Protocol Error and silence; the answers are mosquitto's then.

mod common;

use common::{Rig, both, one, quiet};
use hikyaku_proto::broker::{Config, Listener, ListenerLimits};
use hikyaku_proto::codec::{QoS, Version};

/// What a client of 5.0 reads after `raw`; one of 3.1.1 is closed without a word.
fn answers(raw: &str, answer: &str) {
    one().run(&format!("a> CONNECT a clean v5; RAW {raw}\n a< CONNACK 0; {answer}CLOSED"));
}

/// The same for bytes that mean the same in 3.1.1.
fn both_answer(raw: &str, answer: &str) {
    answers(raw, answer);
    one().run(&format!("a> CONNECT a clean; RAW {raw}\n a< CONNACK 0; CLOSED"));
}

const MALFORMED: &str = "DISCONNECT 0x81; ";
const PROTOCOL: &str = "DISCONNECT 0x82; ";
const SILENCE: &str = "";

#[test]
fn fixed_headers() {
    for (raw, answer) in [
        ("00 00", PROTOCOL),            // type 0
        ("0f c0", PROTOCOL),            // at its first byte
        ("30 ff ff ff ff 01", SILENCE), // a length of five bytes
        ("c0 80 80 80 80 01", SILENCE),
        ("30 80 00", SILENCE), // [MQTT-1.5.5-1]
        ("c0 01 00", SILENCE),
        ("c1 00", MALFORMED),                // [MQTT-2.1.3-1]
        ("83 05 00 01 00 01 74", MALFORMED), // [MQTT-3.8.1-1]
        ("a0 05 00 01 00 01 74", MALFORMED), // [MQTT-3.10.1-1]
        ("63 02 00 01", MALFORMED),          // [MQTT-3.6.1-1]
        ("6a 02 00 01", MALFORMED),
        ("e1 00", MALFORMED), // [MQTT-3.14.1-1]
        ("e8 00", MALFORMED),
        ("36 05 00 01 74 00 01", MALFORMED), // [MQTT-3.3.1-4]
    ] {
        both_answer(raw, answer);
    }
}

#[test]
fn packets_of_a_server() {
    for (raw, answer) in [
        ("20 02 00 00", PROTOCOL),
        ("29 02 00 01", PROTOCOL),
        ("90 03 00 01 00", PROTOCOL),
        ("90 00", PROTOCOL),
        ("91 03 00 01 00", MALFORMED), // [MQTT-2.1.3-1]
        ("b0 02 00 01", PROTOCOL),
        ("b8 02 00 01", MALFORMED),
        ("d0 00", PROTOCOL),
        ("d4 00", MALFORMED),
        ("d0 01 00", SILENCE),
        // AUTH without a method in CONNECT, whatever is in it.
        ("f0 00", PROTOCOL),
        ("f0 02 18 00", PROTOCOL),
        ("f8 00", PROTOCOL),
    ] {
        both_answer(raw, answer);
    }
}

#[test]
fn properties_in_the_wrong_place() {
    for (raw, answer) in [
        ("30 09 00 01 74 05 11 00 00 00 01", PROTOCOL), // PUBLISH with a session expiry
        ("30 06 00 01 74 02 7f 00", MALFORMED),         // one nobody knows
        ("30 06 00 01 74 02 01 02", PROTOCOL),          // neither 0 nor 1
        ("30 08 00 01 74 04 01 01 01 01", PROTOCOL),    // twice
        ("40 06 00 01 00 02 01 00", PROTOCOL),          // PUBACK with a payload format
        ("e0 04 00 02 01 00", PROTOCOL),                // DISCONNECT with one
        ("82 09 00 01 02 01 00 00 01 74 00", MALFORMED),
        ("a2 08 00 01 02 01 00 00 01 74", MALFORMED),
        ("82 09 00 01 02 0b 00 00 01 74 00", PROTOCOL), // subscription identifier 0
    ] {
        answers(raw, answer);
    }
}

#[test]
fn reason_codes_that_do_not_exist() {
    for raw in ["40 03 00 01 ff", "50 04 00 01 ff 00", "62 03 00 01 20", "70 03 00 01 20"] {
        answers(raw, PROTOCOL); // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
    }
    // Who says goodbye is not answered [MQTT-3.14.2-1].
    for raw in ["e0 01 01", "e0 01 05", "e0 01 8c"] {
        answers(raw, SILENCE);
    }
}

#[test]
fn subscribe_and_unsubscribe() {
    for raw in [
        "82 07 00 00 00 00 01 74 00", // [MQTT-2.2.1-3]
        "82 03 00 01 00",             // [MQTT-3.8.3-2]
        "82 06 00 01 00 00 00 00",    // [MQTT-4.7.3-1]
        "82 07 00 01 00 00 01 74 03",
        "82 07 00 01 00 00 01 74 30",
        "82 07 00 01 00 00 01 74 40", // [MQTT-3.8.3-5]
        "82 06 00 01 00 00 01 74",
        "a2 06 00 00 00 00 01 74",
        "a2 03 00 01 00",       // [MQTT-3.10.3-2]
        "a2 05 00 01 00 00 00", // [MQTT-4.7.3-1]
        "a2 04 00 01 00 01",
        "a2 00",
    ] {
        answers(raw, MALFORMED);
    }
    for raw in [
        "82 06 00 00 00 01 74 00",
        "82 02 00 01",
        "82 05 00 01 00 00 00",
        "a2 05 00 00 00 01 74",
        "a2 02 00 01",
        "a2 04 00 01 00 00",
    ] {
        one().run(&format!("a> CONNECT a clean; RAW {raw}\n a< CONNACK 0; CLOSED"));
    }
}

#[test]
fn topics_of_publish() {
    answers("30 03 00 00 00", MALFORMED); // [MQTT-4.7.3-1]
    answers("30 04 00 01 23 00", MALFORMED); // [MQTT-3.3.2-2]
    answers("30 04 00 01 2b 00", MALFORMED);
    both(
        &Config { max_topic_separators: 2, ..quiet() },
        "a> CONNECT a clean {5}; PUBLISH 1/2/3 x; PUBLISH 1/2/3/4 x
         a< CONNACK 0; {5:DISCONNECT 0x81; }CLOSED
         b> CONNECT b clean {5}; SUBSCRIBE id=1 1/2/+; SUBSCRIBE id=2 1/2/3/+
         b< CONNACK 0; SUBACK 1 0; {5:DISCONNECT 0x81; }CLOSED",
    );
}

/// Strings in UTF-8, as hex: what is let through and what is not.
const GOOD: [&str; 8] = ["20", "7e", "c2 a0", "ef b7 8f", "ef b7 b0", "ef bf bd", "ef bb bf", "f0 9f bf bd"];
const BAD: [&str; 13] = [
    "00", // [MQTT-1.5.4-2]
    "01",
    "0a",
    "1f",
    "7f",
    "c2 80",
    "c2 9f",
    "ef b7 90",
    "ef b7 af",
    "ef bf be",
    "f0 9f bf bf",
    "ed a0 80", // [MQTT-1.5.4-1]
    "ed bf bf",
];

/// `text` with something around it, as a string with its length.
fn string(text: &str) -> (usize, String) {
    let len = text.split(' ').count() + 12;
    (len + 2, format!("00 {len:02x} 61 62 63 64 65 66 67 68 {text} 69 6a 6b 6c"))
}

#[test]
fn characters_that_are_none() {
    for (text, good) in GOOD.iter().map(|t| (t, true)).chain(BAD.iter().map(|t| (t, false))) {
        let (len, string) = string(text);
        for (v5, bytes, answer) in [
            (true, format!("30 {:02x} {string} 00", len + 1), ""),
            (false, format!("30 {len:02x} {string}"), ""),
            (true, format!("82 {:02x} 00 01 00 {string} 00", len + 4), "SUBACK 1 0"),
            (false, format!("82 {:02x} 00 01 {string} 00", len + 3), "SUBACK 1 0"),
            (true, format!("a2 {:02x} 00 01 00 {string}", len + 3), "UNSUBACK 1 0x11"),
            (false, format!("a2 {:02x} 00 01 {string}", len + 2), "UNSUBACK 1"),
            // The value of a user property.
            (true, format!("30 {:02x} 00 01 74 {:02x} 26 00 01 6e {string}", len + 8, len + 4), ""),
        ] {
            let answer = match (good, v5) {
                (true, _) => answer,
                (false, true) => "DISCONNECT 0x81; CLOSED",
                (false, false) => "CLOSED",
            };
            let version = if v5 { "v5" } else { "" };
            let script =
                format!("a> CONNECT a clean {version}\n a< CONNACK 0\n a> RAW {bytes}\n a< {answer}");
            one().run(&script);
        }
    }
}

/// The bytes a client reads after a first packet; whether it was let in.
fn after_connect(rig: &mut Rig, name: &str, body: &str, first: u8, v5: bool) -> Vec<u8> {
    let len = body.split_whitespace().count();
    rig.send(name, &format!("RAW {first:02x} {len:02x} {body}"));
    // A CONNACK of 5.0 is read as such.
    rig.pipe(name).version = if v5 { Version::V5 } else { Version::V3_1_1 };
    rig.settle();
    rig.pipe(name).down.clone()
}

#[test]
fn connect() {
    let mut rig = one();
    let strings: Vec<String> = BAD.iter().map(|bad| string(bad).1).collect();
    let mqtt = |level: u8, flags: u8| format!("00 04 4d 51 54 54 {level:02x} {flags:02x} 00 0a");
    let quiet = Vec::new();
    let code = |code: u8| vec![0x20, 3, 0, code, 0];
    let mut cases = vec![
        // [MQTT-3.1.2-1]
        ("00 04 4d 51 54 55 04 02 00 0a 00 01 70".to_string(), quiet.clone()),
        ("00 03 4d 51 54 04 02 00 0a 00 01 70".to_string(), quiet.clone()),
        // [MQTT-3.1.2-2], in the form of the version that is nearest.
        (mqtt(2, 0) + " 00 01 70", vec![0x20, 2, 0, 1]),
        (mqtt(6, 0) + " 00 01 70", code(0x84)),
        ("00 06 4d 51 49 73 64 70 04 02 00 0a 00 01 70".to_string(), vec![0x20, 2, 0, 1]),
        ("00 06 4d 51 49 73 64 70 06 02 00 0a 00 01 70".to_string(), code(0x84)),
        // Cut in the keep alive, in the client id, after it.
        ("00 04 4d 51 54 54 05 02".to_string(), quiet.clone()),
        (mqtt(5, 2) + " 00 00 02 70", code(0x81)),
        (mqtt(5, 6) + " 00 00 01 70", code(0x81)),
        // [MQTT-3.1.2-12]
        (mqtt(5, 0x1e) + " 00 00 01 70 00 00 01 70 00 01 70", quiet.clone()),
        // [MQTT-3.1.2-17] [MQTT-3.1.2-19]
        (mqtt(5, 0x82) + " 00 00 01 70", quiet.clone()),
        (mqtt(5, 0xc2) + " 00 00 01 70 00 01 70", quiet.clone()),
        // [MQTT-3.1.2-16] [MQTT-3.1.2-18]
        (mqtt(5, 2) + " 00 00 01 70 00 01 70", code(0x81)),
        (mqtt(5, 0x82) + " 00 00 01 70 00 01 70 00 01 70", code(0x81)),
        // A payload format, in the CONNECT and in the will: a server keep alive.
        (mqtt(5, 2) + " 02 01 01 00 01 70", code(0x82)),
        (mqtt(5, 6) + " 00 00 01 70 03 13 00 01 00 01 70 00 01 70", code(0x82)),
        (mqtt(5, 2) + " 02 04 01 00 01 70", code(0x81)),
    ];
    for string in &strings {
        cases.push((mqtt(5, 2) + " 00 " + string, code(0x85)));
        cases.push((mqtt(4, 2) + " " + string, quiet.clone()));
        cases.push((mqtt(5, 6) + " 00 00 01 70 00 " + string + " 00 01 70", code(0x81)));
        cases.push((mqtt(4, 6) + " 00 01 70 " + string + " 00 01 70", quiet.clone()));
        cases.push((mqtt(5, 0x82) + " 00 00 01 70 " + string, quiet.clone()));
        cases.push((mqtt(4, 0x82) + " 00 01 70 " + string, quiet.clone()));
    }
    for (i, (body, expected)) in cases.iter().enumerate() {
        let name = format!("c{i}");
        let v5 = expected.len() == 5;
        assert_eq!(after_connect(&mut rig, &name, body, 0x10, v5), *expected, "{body}");
        assert!(!rig.pipe(&name).open, "{body}");
    }
}

#[test]
fn the_flags_of_connect_count_from_3_1_1_on() {
    let mut rig = one();
    for (i, first) in [0x11, 0x12, 0x14, 0x18, 0x1f].into_iter().enumerate() {
        let bodies = [
            ("00 06 4d 51 49 73 64 70 03 02 00 0a 00 01 70", &b"\x20\x02\0\0"[..]),
            // 3.1.1: [MQTT-2.2.2-2]; [MQTT-2.1.3-1]
            ("00 04 4d 51 54 54 04 02 00 0a 00 01 70", b""),
            ("00 04 4d 51 54 54 05 02 00 0a 00 00 01 70", b""),
        ];
        for (j, (body, expected)) in bodies.into_iter().enumerate() {
            assert_eq!(after_connect(&mut rig, &format!("{i}{j}"), body, first, false), expected);
        }
    }
}

#[test]
fn the_first_packet_is_a_connect() {
    // [MQTT-3.1.0-1]
    for raw in ["50 02 00 01", "c0 00", "00 00", "30 03 00 01 74", "f0 00", "e0 00"] {
        one().run(&format!("a> RAW {raw}\n a< CLOSED"));
    }
}

#[test]
fn acknowledgements_a_message_does_not_wait_for() {
    for (qos, acks) in [
        (1, "PUBREC 1"),
        (1, "PUBCOMP 1"),
        (2, "PUBACK 1"),
        (2, "PUBCOMP 1"),
        (2, "PUBREC 1; PUBREL! PUBACK 1"),
    ] {
        let (first, last) = acks.split_once("; PUBREL! ").unwrap_or(("", acks));
        let middle = if first.is_empty() { String::new() } else { format!("s> {first}\n s< PUBREL 1\n") };
        both(
            &quiet(),
            &format!(
                "s> CONNECT s clean {{5}}; SUBSCRIBE id=1 t:{qos}
                 s< CONNACK 0; SUBACK 1 {qos}
                 p> CONNECT p clean {{5}}; PUBLISH t x q2 id=1
                 p< CONNACK 0; PUBREC 1
                 s< PUBLISH t x q{qos} id=1
                 {middle}
                 s> {last}
                 s< {{5:DISCONNECT 0x82; }}CLOSED"
            ),
        );
    }
}

#[test]
fn acknowledgements_of_nothing_are_answered_and_let_pass() {
    // [MQTT-4.3.3-4] [MQTT-4.3.3-11]: what was lost may be a session, or an answer.
    both(
        &quiet(),
        "a> CONNECT a clean {5}; PUBACK 7; PUBCOMP 7; PUBREC 7; PUBREL 7; PINGREQ
         a< CONNACK 0; PUBREL 7; PUBCOMP 7; PINGRESP",
    );
    one().run(
        "a> CONNECT a clean v5; PUBREC 7 0x80; PUBREL 7 0x92; PINGREQ
         a< CONNACK 0; PUBCOMP 7; PINGRESP",
    );
}

#[test]
fn a_qos_2_message_sent_again_is_acknowledged_each_time() {
    // [MQTT-4.3.3-10], 3.1.1: [MQTT-4.3.3-2]; mosquitto closes at the third.
    both(
        &quiet(),
        "a> CONNECT a clean {5}; PUBLISH t x q2 id=5; PUBLISH t x q2 id=5; PUBLISH t x q2 id=5; PUBREL 5
         a< CONNACK 0; PUBREC 5; PUBREC 5; PUBREC 5; PUBCOMP 5",
    );
}

#[test]
fn a_subscription_without_local_messages_is_a_match() {
    one().run(
        "a> CONNECT a clean v5; RAW 82 07 00 01 00 00 01 74 05; PUBLISH t x q1 id=2; PUBLISH u x q1 id=3
         a< CONNACK 0; SUBACK 1 1; PUBACK 2; PUBACK 3 0x10",
    );
}

#[test]
fn topics_nobody_publishes_to() {
    both(
        &quiet(),
        "a> CONNECT a clean {5}; SUBSCRIBE id=1 $SYS/#
         a< CONNACK 0; SUBACK 1 0
         a> PUBLISH $SYS/broker/x 1 q1 id=2; PUBLISH $share/g/t 2 q1 id=3; PUBLISH $share/g/t 3 q2 id=4
         a< PUBACK 2{5: 0x87}; PUBACK 3{5: 0x87}; PUBREC 4{5: 0x87}
         a> PUBLISH $SYS/broker/connection/me/state 1 q1 id=5; PUBLISH $SYS/broker/connection/a/b/state 1 q1 id=6
         a< PUBLISH $SYS/broker/connection/me/state 1; PUBACK 5; PUBACK 6{5: 0x87}
         c> CONNECT c clean {5} will=$CONTROL/x,1
         c< CLOSED",
    );
}

#[test]
fn a_will_is_no_larger_than_a_message() {
    both(
        &Config { message_size_limit: 1, ..quiet() },
        "a> CONNECT a clean {5} will=t,1
         a< CONNACK 0
         b> CONNECT b clean {5} will=t,12
         b< CONNACK {3:5}{5:0x95}; CLOSED",
    );
}

#[test]
fn connack_has_its_properties_in_order() {
    let limits = ListenerLimits { max_qos: QoS::AtLeastOnce, ..ListenerLimits::default() };
    let config = Config {
        max_keepalive_s: 60,
        max_session_expiry_s: 7,
        retain_available: false,
        listeners: vec![Listener { limits, ..Listener::default() }],
        ..quiet()
    };
    let mut rig = Rig::new(1, 0, config);
    rig.send("a", "CONNECT a clean v5 ka=61 expiry=8");
    rig.settle();
    let expected =
        b"\x20\x1a\0\0\x17\x13\0\x3c\x22\0\x0a\x11\0\0\0\x07\x25\0\x27\0\x1e\x84\x80\x21\0\x14\x24\x01";
    assert_eq!(rig.pipe("a").down, expected);
}
