//! MQTT 5.0, 3.4 to 3.7: PUBACK, PUBREC, PUBREL, PUBCOMP.
//!
//! Neither side ever sends a Reason String or User Property with them: then none makes a packet too large.

use crate::common::script::{Script, options};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use hikyaku_proto::broker::{Config, Listener};
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

/// How a code that does not belong to a packet is refused: one that no packet has is malformed.
pub fn refusal(code: u8) -> ReasonCode {
    ReasonCode::from_u8(code).map_or(ReasonCode::MalformedPacket, |_| ReasonCode::ProtocolError)
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
            script.assert_failed(refusal(code));
            assert_eq!(rig.news("a"), format!("DISCONNECT 0x{:02x}; CLOSED", refusal(code) as u8));
        }
    }
}

/// The bytes the broker sends for these packets, whatever the Maximum Packet Size of the client, which
/// would like to know of problems.
pub fn answers(config: &Config, packets: &str, expected: &[u8]) {
    for size in ["", "mps=30", "mps=31", "mps=100", "mps=100000", "mps=4294967295"] {
        let mut rig = Rig::new(1, 0, config.clone());
        rig.run(&format!("a> CONNECT a clean v5 {size}\n a< CONNACK 0"));
        let before = rig.pipe("a").down.len();
        rig.send("a", packets);
        rig.settle();
        assert_eq!(rig.pipe("a").down[before..], *expected, "{packets} {size}");
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
    answers(&guarded(), "PUBLISH t x q1 id=3", b"\x40\x03\0\x03\x10");
    client_answers(b"\x32\x07\0\x01t\0\x01\0x", b"\x40\x02\0\x01");
}

#[test]
fn mqtt5_3_4_2_3_puback_never_carries_user_properties() {
    // Not even those of its PUBLISH.
    answers(&quiet(), "PUBLISH t x q1 id=1 up=k", b"\x40\x03\0\x01\x10");
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
         a> CONNECT a clean v5; PUBLISH t x q2 id=1; PUBLISH nobody x q2 id=2
         a< CONNACK 0; PUBREC 1; PUBREC 2 0x10
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
    answers(&guarded(), "PUBLISH t x q2 id=3", b"\x50\x03\0\x03\x10");
    client_answers(b"\x34\x07\0\x01t\0\x01\0x", b"\x50\x02\0\x01");
}

#[test]
fn mqtt5_3_5_2_3_pubrec_never_carries_user_properties() {
    answers(&quiet(), "PUBLISH t x q2 id=1 up=k", b"\x50\x03\0\x01\x10");
    answers(&quiet(), "PUBLISH t x q2 id=1 up=k; PUBLISH t x q2 id=1 up=k dup", {
        b"\x50\x03\0\x01\x10\x50\x02\0\x01"
    });
    client_answers(b"\x34\x0e\0\x01t\0\x01\x07\x26\0\x01k\0\x01kx", b"\x50\x02\0\x01");
}

#[test]
fn mqtt5_3_6_1_1_pubrel_with_other_flags_is_malformed() {
    for flags in (0..16).filter(|&flags| flags != 2) {
        let mut rig = one();
        rig.run("a> CONNECT a clean v5; PUBLISH t x q2 id=1\n a< CONNACK 0; PUBREC 1 0x10");
        rig.run(&format!("a> RAW 6{flags:x} 02 00 01\n a< DISCONNECT 0x81; CLOSED"));
        let mut script = Script::v5();
        script.receive(&[0x60 | flags, 2, 0, 1]);
        script.assert_failed(ReasonCode::MalformedPacket);
    }
    one().run("a> CONNECT a clean v5; PUBLISH t x q2 id=1; RAW 62 02 00 01\n a< CONNACK 0; PUBREC 1 0x10; PUBCOMP 1");
    client_answers(b"\x50\x02\0\x01", b"\x62\x02\0\x01");
}

#[test]
fn mqtt5_3_6_2_1_pubrel_has_a_code_of_its_own_and_others_are_refused() {
    one().run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         a> CONNECT a clean v5; PUBLISH t x q2 id=1
         a< CONNACK 0; PUBREC 1
         s< PUBLISH t x q2 id=1
         s> PUBREC 1; PUBREC 9
         s< PUBREL 1; PUBREL 9 0x92",
    );
    client_answers(b"\x50\x02\0\x01", b"\x62\x02\0\x01");
    client_answers(b"\x50\x02\0\x09", b"\x62\x03\0\x09\x92");
    takes_only(0x62, &RELEASED);
}

#[test]
fn mqtt5_3_6_2_2_pubrel_never_carries_a_reason_string() {
    answers(&quiet(), "PUBREC 9", b"\x62\x03\0\x09\x92");
    client_answers(b"\x50\x02\0\x09", b"\x62\x03\0\x09\x92");
    // A PUBREC with the Reason String "no".
    answers(&quiet(), "RAW 50 09 00 09 00 05 1f 00 02 6e 6f", b"\x62\x03\0\x09\x92");
    client_answers(b"\x50\x09\0\x01\0\x05\x1f\0\x02no", b"\x62\x02\0\x01");
}

#[test]
fn mqtt5_3_6_2_3_pubrel_never_carries_user_properties() {
    // Not even those of the PUBREC.
    answers(&quiet(), "RAW 50 0b 00 09 00 07 26 00 01 6b 00 01 76", b"\x62\x03\0\x09\x92");
    client_answers(b"\x50\x0b\0\x01\0\x07\x26\0\x01k\0\x01v", b"\x62\x02\0\x01");
    let mut rig = one();
    rig.run(
        "a> CONNECT a clean v5; SUBSCRIBE id=1 t:2; PUBLISH t x q2 id=1 up=k
         a< CONNACK 0; SUBACK 1 2; PUBLISH t x q2 id=1 up=k; PUBREC 1",
    );
    let before = rig.pipe("a").down.len();
    rig.run("a> RAW 50 0b 00 01 00 07 26 00 01 6b 00 01 76\n a< PUBREL 1");
    assert_eq!(rig.pipe("a").down[before..], *b"\x62\x02\0\x01");
}

#[test]
fn mqtt5_3_7_2_1_pubcomp_has_a_code_of_its_own_and_others_are_refused() {
    one().run(
        "a> CONNECT a clean v5; PUBLISH t x q2 id=1; PUBREL 1; PUBREL 1
         a< CONNACK 0; PUBREC 1 0x10; PUBCOMP 1; PUBCOMP 1 0x92",
    );
    client_answers(b"\x34\x06\0\x01t\0\x07\0\x62\x02\0\x07", b"\x50\x02\0\x07\x70\x02\0\x07");
    client_answers(b"\x62\x02\0\x07", b"\x70\x03\0\x07\x92");
    takes_only(0x70, &RELEASED);
}

#[test]
fn mqtt5_3_7_2_2_pubcomp_never_carries_a_reason_string() {
    answers(&quiet(), "PUBREL 9", b"\x70\x03\0\x09\x92");
    client_answers(b"\x62\x02\0\x09", b"\x70\x03\0\x09\x92");
    // A PUBREL with the Reason String "no".
    answers(&quiet(), "RAW 62 09 00 09 92 05 1f 00 02 6e 6f", b"\x70\x03\0\x09\x92");
    client_answers(b"\x62\x09\0\x09\x92\x05\x1f\0\x02no", b"\x70\x03\0\x09\x92");
}

#[test]
fn mqtt5_3_7_2_3_pubcomp_never_carries_user_properties() {
    // Not even those of the PUBREL.
    answers(&quiet(), "PUBLISH t x q2 id=1; RAW 62 0b 00 01 00 07 26 00 01 6b 00 01 76", {
        b"\x50\x03\0\x01\x10\x70\x02\0\x01"
    });
    client_answers(b"\x62\x0b\0\x09\0\x07\x26\0\x01k\0\x01v", b"\x70\x03\0\x09\x92");
}
