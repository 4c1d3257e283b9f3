//! MQTT 5.0, chapters 1 and 2: data, fixed headers, packet identifiers, properties.

use crate::common::one;
use crate::common::script::Script;
use hikyaku_proto::codec::ReasonCode;

/// A 5.0 connection that sends these bytes must be told this reason and closed.
pub fn refused(packet: &str, reason: &str) {
    one().run(&format!(
        "a> CONNECT a clean v5\n a< CONNACK 0\n a> RAW {packet}\n a< DISCONNECT {reason}; CLOSED"
    ));
}

#[test]
fn mqtt5_1_5_4_1_ill_formed_utf8_is_malformed() {
    // A surrogate (U+D800), an overlong form, a lone continuation, a cut sequence: as topic of a PUBLISH.
    for text in ["ed a0 80", "c1 81 61", "61 80 61", "61 61 c3", "f4 90 80"] {
        refused(&format!("30 06 00 03 {text} 00"), "0x81");
    }
    // And the client does not take it from a server.
    let mut script = Script::v5();
    script.receive(b"\x30\x06\0\x03\xed\xa0\x80\0");
    script.assert_failed(ReasonCode::MalformedPacket);
}
