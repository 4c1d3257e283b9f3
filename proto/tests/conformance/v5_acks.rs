//! MQTT 5.0, 3.4 to 3.7: PUBACK, PUBREC, PUBREL, PUBCOMP.
//!
//! Neither side ever sends a Reason String or User Property with them: then none makes a packet too large.

use crate::common::script::{Script, options};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use hikyaku_proto::broker::{Config, Listener};
use hikyaku_proto::client::By;
use hikyaku_proto::codec::{ReasonCode, Version};
use std::sync::Arc;

/// The PUBACK Reason Codes, which are those of PUBREC too.
const RECEIVED: [u8; 9] = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// The PUBREL Reason Codes, which are those of PUBCOMP too.
const RELEASED: [u8; 2] = [0x00, 0x92];

/// Everyone may do everything but with `closed/#`; payloads have at most 50 bytes.
pub fn guarded() -> Config {
    let rule = |access, filter: &str| Rule { who: Who::Anonymous, access, filter: filter.into(), line: 0 };
    let rules = [rule(Access::ReadWrite, "#"), rule(Access::Deny, "closed/#")];
    let rights = Arc::new(Rights::Rules(Rules::new(None, rules)));
    let listeners = vec![Listener { rights, ..Listener::default() }];
    Config { listeners, message_size_limit: 50, ..quiet() }
}

/// A session that is away and gets everything: so no message is for nobody.
pub const AWAY: &str =
    "s> CONNECT s v5 expiry=10000000; SUBSCRIBE id=1 #:2\n s< CONNACK 0; SUBACK 1 2\n s!\n";

/// The broker closed, and may have said that a packet was malformed or an error of the protocol.
pub fn assert_closed(news: &str) {
    let all = ["DISCONNECT 0x81; CLOSED", "DISCONNECT 0x82; CLOSED", "CLOSED"];
    assert!(all.contains(&news), "{news}");
}

/// The client left because of a packet that is malformed or an error of the protocol.
pub fn assert_left(script: &mut Script) {
    let by = script.disconnected();
    let wrong = |reason| matches!(reason, ReasonCode::MalformedPacket | ReasonCode::ProtocolError);
    assert!(matches!(by, By::Protocol(error) if wrong(error.reason)), "{by:?}");
    assert!(script.client.wants_close());
}

/// Both sides take an acknowledgement with these reason codes and no other.
fn takes_only(first: u8, codes: &[u8]) {
    for code in 0..=255 {
        let mut script = Script::v5();
        script.receive(&[first, 3, 0, 1, code]);
        let mut rig = one();
        rig.run("a> CONNECT a clean v5\n a< CONNACK 0");
        rig.send("a", &format!("RAW {first:02x} 03 00 01 {code:02x}; PINGREQ"));
        if codes.contains(&code) {
            assert!(script.client.is_connected(), "{code:#04x}");
            assert!(rig.news("a").ends_with("PINGRESP"), "{code:#04x}");
        } else {
            assert_left(&mut script);
            assert_closed(&rig.news("a"));
        }
    }
}

/// The last bytes the broker sends for these packets, whatever the Maximum Packet Size of the client, which
/// would like to know of problems.
pub fn answers(config: &Config, packets: &str, expected: &[u8]) {
    for size in ["", "mps=30", "mps=31", "mps=100", "mps=100000", "mps=4294967295"] {
        let mut rig = Rig::new(1, 0, config.clone());
        rig.send("s", "CONNECT s v5 expiry=9; SUBSCRIBE id=1 #:2");
        rig.news("s");
        rig.cut("s");
        rig.send("a", &format!("CONNECT a clean v5 {size}; {packets}"));
        rig.settle();
        let down = &rig.pipe("a").down;
        assert!(down.ends_with(expected), "{packets} {size}: {down:02x?}");
    }
}

/// The bytes the client sends for these of the server, whose Maximum Packet Size is this.
fn client_answers(bytes: &[u8], expected: &[u8]) {
    for size in [20u32, 21, 100, 100_000] {
        let connack = [b"\x20\x08\0\0\x05\x27".as_slice(), &size.to_be_bytes()].concat();
        let mut script = Script::connected(options(Version::V5), &connack);
        script.publish(2, "t").unwrap();
        script.sent();
        script.receive(bytes);
        assert_eq!(script.sent(), expected, "{size}");
    }
}

#[test]
fn mqtt5_3_4_2_1_puback_has_a_code_of_its_own_and_others_are_refused() {
    let mut rig = Rig::new(1, 0, guarded());
    rig.run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 t
         s< CONNACK 0; SUBACK 1 0
         a> CONNECT a clean v5; PUBLISH t x q1 id=1; PUBLISH nobody x q1 id=2
         a< CONNACK 0; PUBACK 1; PUBACK 2 0x10
         s< PUBLISH t x
         a> PUBLISH closed/t x q1 id=3; PUBLISH t size=51 q1 id=4; PINGREQ
         a< PUBACK 3 0x87; PUBACK 4 0x83; PINGRESP",
    );
    client_answers(b"\x32\x06\0\x01t\0\x07\0", b"\x40\x02\0\x07");
    takes_only(0x40, &RECEIVED);
}

#[test]
fn mqtt5_3_4_2_2_puback_never_carries_a_reason_string() {
    // Of an error there would be most to say.
    answers(&guarded(), "PUBLISH closed/t x q1 id=1", b"\x40\x03\0\x01\x87");
    answers(&guarded(), "PUBLISH t size=51 q1 id=2", b"\x40\x03\0\x02\x83");
    answers(&guarded(), "PUBLISH t x q1 id=3", b"\x40\x02\0\x03");
    client_answers(b"\x32\x07\0\x01t\0\x01\0x", b"\x40\x02\0\x01");
}

#[test]
fn mqtt5_3_4_2_3_puback_never_carries_user_properties() {
    // Not even those of its PUBLISH.
    answers(&guarded(), "PUBLISH closed/t x q1 id=1 up=k", b"\x40\x03\0\x01\x87");
    answers(&quiet(), "SUBSCRIBE id=1 o; PUBLISH o x q1 id=1 up=k", {
        b"\x90\x04\0\x01\0\0\x30\x0c\0\x01o\x07\x26\0\x01k\0\x01kx\x40\x02\0\x01"
    });
    client_answers(b"\x32\x0e\0\x01t\0\x01\x07\x26\0\x01k\0\x01kx", b"\x40\x02\0\x01");
}

#[test]
fn mqtt5_3_5_2_1_pubrec_has_a_code_of_its_own_and_others_are_refused() {
    let mut rig = Rig::new(1, 0, guarded());
    rig.run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 t
         s< CONNACK 0; SUBACK 1 0
         a> CONNECT a clean v5; PUBLISH t x q2 id=1
         a< CONNACK 0; PUBREC 1
         s< PUBLISH t x
         a> PUBLISH closed/t x q2 id=3; PUBLISH t size=51 q2 id=4; PINGREQ
         a< PUBREC 3 0x87; PUBREC 4 0x83; PINGRESP",
    );
    client_answers(b"\x34\x06\0\x01t\0\x07\0", b"\x50\x02\0\x07");
    takes_only(0x50, &RECEIVED);
}

#[test]
fn mqtt5_3_5_2_2_pubrec_never_carries_a_reason_string() {
    answers(&guarded(), "PUBLISH closed/t x q2 id=1", b"\x50\x03\0\x01\x87");
    answers(&guarded(), "PUBLISH t size=51 q2 id=2", b"\x50\x03\0\x02\x83");
    answers(&guarded(), "PUBLISH t x q2 id=3", b"\x50\x02\0\x03");
    client_answers(b"\x34\x07\0\x01t\0\x01\0x", b"\x50\x02\0\x01");
}

#[test]
fn mqtt5_3_5_2_3_pubrec_never_carries_user_properties() {
    // Not even those of its PUBLISH.
    answers(&guarded(), "PUBLISH closed/t x q2 id=1 up=k", b"\x50\x03\0\x01\x87");
    answers(&quiet(), "PUBLISH t x q2 id=1 up=k; PUBLISH t x q2 id=1 up=k dup", {
        b"\x50\x02\0\x01\x50\x02\0\x01"
    });
    client_answers(b"\x34\x0e\0\x01t\0\x01\x07\x26\0\x01k\0\x01kx", b"\x50\x02\0\x01");
}

#[test]
fn mqtt5_3_6_1_1_pubrel_with_other_flags_is_malformed() {
    for flags in (0..16).filter(|&flags| flags != 2) {
        let mut rig = one();
        rig.run(AWAY).run("a> CONNECT a clean v5; PUBLISH t x q2 id=1\n a< CONNACK 0; PUBREC 1");
        rig.run(&format!("a> RAW 6{flags:x} 02 00 01\n a< DISCONNECT 0x81; CLOSED"));
        let mut script = Script::v5();
        script.receive(&[0x60 | flags, 2, 0, 1]);
        script.assert_failed(ReasonCode::MalformedPacket);
    }
    answers(&quiet(), "PUBLISH t x q2 id=1; RAW 62 02 00 01", b"\x70\x02\0\x01");
    client_answers(b"\x50\x02\0\x01", b"\x62\x02\0\x01");
}

/// A QoS 2 message to the client itself.
const TO_ITSELF: &str = "SUBSCRIBE id=1 t:2; PUBLISH t x q2 id=9 up=k";

#[test]
fn mqtt5_3_6_2_1_pubrel_has_a_code_of_its_own_and_others_are_refused() {
    answers(&quiet(), &format!("{TO_ITSELF}; PUBREC 1; PUBREC 1 0x10"), b"\x62\x02\0\x01\x62\x02\0\x01");
    client_answers(b"\x50\x02\0\x01", b"\x62\x02\0\x01");
    takes_only(0x62, &RELEASED);
}

#[test]
fn mqtt5_3_6_2_2_pubrel_never_carries_a_reason_string() {
    // Not even that of the PUBREC: "no".
    answers(&quiet(), &format!("{TO_ITSELF}; RAW 50 09 00 01 00 05 1f 00 02 6e 6f"), b"\x62\x02\0\x01");
    client_answers(b"\x50\x09\0\x01\0\x05\x1f\0\x02no", b"\x62\x02\0\x01");
}

#[test]
fn mqtt5_3_6_2_3_pubrel_never_carries_user_properties() {
    // Not even those of the PUBLISH, or of the PUBREC.
    let pubrec = "RAW 50 0b 00 01 00 07 26 00 01 6b 00 01 76";
    answers(&quiet(), &format!("{TO_ITSELF}; {pubrec}"), b"\x62\x02\0\x01");
    client_answers(b"\x50\x0b\0\x01\0\x07\x26\0\x01k\0\x01v", b"\x62\x02\0\x01");
}

#[test]
fn mqtt5_3_7_2_1_pubcomp_has_a_code_of_its_own_and_others_are_refused() {
    answers(&quiet(), "PUBLISH t x q2 id=1; PUBREL 1", b"\x50\x02\0\x01\x70\x02\0\x01");
    client_answers(b"\x34\x06\0\x01t\0\x07\0\x62\x02\0\x07", b"\x50\x02\0\x07\x70\x02\0\x07");
    takes_only(0x70, &RELEASED);
}

#[test]
fn mqtt5_3_7_2_2_pubcomp_never_carries_a_reason_string() {
    // Not even that of the PUBREL: "no".
    answers(&quiet(), "PUBLISH t x q2 id=1; RAW 62 09 00 01 00 05 1f 00 02 6e 6f", b"\x70\x02\0\x01");
    client_answers(b"\x34\x06\0\x01t\0\x07\0\x62\x09\0\x07\0\x05\x1f\0\x02no", {
        b"\x50\x02\0\x07\x70\x02\0\x07"
    });
}

#[test]
fn mqtt5_3_7_2_3_pubcomp_never_carries_user_properties() {
    // Not even those of the PUBREL.
    answers(&quiet(), "PUBLISH t x q2 id=1; RAW 62 0b 00 01 00 07 26 00 01 6b 00 01 76", {
        b"\x50\x02\0\x01\x70\x02\0\x01"
    });
    client_answers(b"\x34\x06\0\x01t\0\x07\0\x62\x0b\0\x07\0\x07\x26\0\x01k\0\x01v", {
        b"\x50\x02\0\x07\x70\x02\0\x07"
    });
}
