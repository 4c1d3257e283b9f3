//! MQTT 5.0, chapters 1 and 2: data, fixed headers, packet identifiers, properties.

use crate::common::script::{Script, messages, options};
use crate::common::{Rig, one};
use hikyaku_proto::client::{By, Event, Options, OptionsError, SendError};
use hikyaku_proto::codec::*;

/// A 5.0 connection that sends these bytes must be told this reason and closed.
pub fn refused(packet: &str, reason: &str) {
    one().run(&format!(
        "a> CONNECT a clean v5\n a< CONNACK 0\n a> RAW {packet}\n a< DISCONNECT {reason}; CLOSED"
    ));
}

/// A connected client that receives these bytes must tell this reason and close.
pub fn client_refuses(packet: &[u8], reason: ReasonCode) {
    let mut script = Script::v5();
    script.receive(packet);
    script.assert_failed(reason);
}

/// All bytes that a connection received since this was last asked.
fn bytes(rig: &mut Rig, name: &str) -> Vec<u8> {
    rig.settle();
    rig.pipe(name).news.clear();
    std::mem::take(&mut rig.pipe(name).down)
}

#[test]
fn mqtt5_1_5_4_1_ill_formed_utf8_is_malformed() {
    // A surrogate (U+D800), an overlong form, a lone continuation, a cut sequence, one above U+10FFFF: in a topic name.
    for text in ["ed a0 80", "c1 81 61", "61 80 61", "61 61 c3", "f4 90 80"] {
        refused(&format!("30 06 00 03 {text} 00"), "0x81");
        refused(&format!("82 09 00 01 00 00 03 {text} 00"), "0x81");
    }
    // And the client does not take it from a server.
    client_refuses(b"\x30\x06\0\x03\xed\xa0\x80\0", ReasonCode::MalformedPacket);
}

#[test]
fn mqtt5_1_5_4_2_the_null_character_in_a_string_is_malformed_and_never_sent() {
    refused("30 06 00 03 61 00 62 00", "0x81");
    refused("82 09 00 01 00 00 03 61 00 62 00", "0x81");
    refused("a2 08 00 01 00 00 03 61 00 62", "0x81");
    client_refuses(b"\x30\x06\0\x03a\0b\0", ReasonCode::MalformedPacket);
    let mut script = Script::v5();
    assert!(matches!(script.publish(0, "a\0b"), Err(SendError::InvalidTopic(_))));
    let filter = [("a\0b", SubscribeOptions::default())];
    let result = script.client.subscribe(script.now, &filter, Properties::EMPTY);
    assert!(matches!(result, Err(SendError::InvalidTopic(_))));
    assert!(script.sent().is_empty());
    let mut script = Script::new(Options { username: Some("a\0b".into()), ..options(Version::V5) });
    assert_eq!(script.disconnected(), By::Options(OptionsError::Encode(EncodeError::StringHasNul)));
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_1_5_4_3_a_zero_width_no_break_space_is_kept() {
    one().run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 \u{feff}t; SUBSCRIBE id=2 u/+
         s< CONNACK 0; SUBACK 1 0; SUBACK 2 0
         p> CONNECT p clean v5; PUBLISH t no; PUBLISH \u{feff}t \u{feff}x; PUBLISH u/\u{feff} y up=\u{feff}:\u{feff}v
         p< CONNACK 0
         s< PUBLISH \u{feff}t \u{feff}x; PUBLISH u/\u{feff} y up=\u{feff}:\u{feff}v",
    );
    let mut script = Script::v5();
    script.receive(b"\x30\x07\0\x04\xef\xbb\xbft\0");
    assert_eq!(messages(script.events())[0].topic(), "\u{feff}t");
    script.publish(0, "\u{feff}t").unwrap();
    assert_eq!(script.sent(), b"\x30\x08\0\x04\xef\xbb\xbft\0x");
}

#[test]
fn mqtt5_1_5_5_1_variable_byte_integers_have_their_shortest_form() {
    // A Remaining Length, a Property Length and a Subscription Identifier with a needless byte.
    one().run("a> CONNECT a clean v5; RAW c0 80 00; PINGREQ\n a< CONNACK 0; CLOSED");
    refused("30 06 00 01 74 80 00 78", "0x81");
    refused("82 0a 00 01 03 0b 81 00 00 01 74 00", "0x81");
    client_refuses(b"\xd0\x80\0", ReasonCode::MalformedPacket);
    // What is sent, around each length that needs one byte more: 4 bytes of header, the payload.
    let mut rig = one();
    rig.run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0\n p> CONNECT p clean v5\n p< CONNACK 0",
    );
    bytes(&mut rig, "s");
    let sizes = [(127, 1), (128, 2), (16_383, 2), (16_384, 3), (1_900_000, 3)];
    for (length, expected) in sizes {
        rig.send("p", &format!("PUBLISH t size={}", length - 4));
        let sent = bytes(&mut rig, "s");
        assert_eq!(sent.len(), 1 + expected + length);
        assert_eq!(read_varint(&sent[1..]).unwrap(), Some((length as u32, expected)));
    }
    for (value, expected) in [(2_097_151, 3), (2_097_152, 4), (VARINT_MAX, 4), (0, 1)] {
        let mut out = Vec::new();
        put_varint(value, &mut out);
        assert_eq!((read_varint(&out).unwrap(), out.len()), (Some((value, expected)), expected));
    }
}

#[test]
fn mqtt5_1_5_7_1_both_strings_of_a_user_property_are_checked() {
    for pair in ["00 01 ff 00 01 76", "00 01 6b 00 01 ff", "00 01 00 00 01 76", "00 01 6b 00 01 00"] {
        refused(&format!("30 0b 00 01 74 07 26 {pair}"), "0x81");
    }
    client_refuses(b"\x30\x0b\0\x01t\x07\x26\0\x01\xff\0\x01v", ReasonCode::MalformedPacket);
    client_refuses(b"\x30\x0b\0\x01t\x07\x26\0\x01k\0\x01\xff", ReasonCode::MalformedPacket);
    for (name, value) in [("\0", "v"), ("k", "\0")] {
        let mut properties = PropertiesBuf::default();
        let result = properties.try_push(Property::UserProperty(name, value));
        assert_eq!((result, properties.is_empty()), (Err(EncodeError::StringHasNul), true));
    }
}

#[test]
fn mqtt5_2_1_3_1_reserved_flags_of_the_fixed_header_are_checked() {
    // PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT, AUTH.
    for packet in [
        "41 02 00 01",
        "52 02 00 01",
        "60 02 00 01",
        "6a 02 00 01",
        "78 02 00 01",
        "80 07 00 01 00 00 01 74 00",
        "8a 07 00 01 00 00 01 74 00",
        "a3 06 00 01 00 00 01 74",
        "c1 00",
        "e1 00",
    ] {
        refused(packet, "0x81");
    }
    refused("f1 00", "0x82");
    one().run("a> RAW 11 0e 00 04 4d 51 54 54 05 02 00 00 00 00 01 61\n a< CLOSED");
    for packet in [
        &b"\x41\x02\0\x01"[..],
        b"\x60\x02\0\x01",
        b"\x91\x04\0\x01\0\0",
        b"\xb2\x04\0\x01\0\0",
        b"\xd1\0",
        b"\xe1\0",
    ] {
        client_refuses(packet, ReasonCode::MalformedPacket);
    }
    // What the broker sends: a first byte per packet.
    let mut rig = one();
    rig.send("a", "CONNECT a clean v5; SUBSCRIBE id=1 t; UNSUBSCRIBE id=1 t; PINGREQ; PUBREC 9");
    rig.send("a", "PUBLISH t q1 id=1; PUBLISH t q2 id=2; PUBREL 2; AUTH");
    rig.settle();
    rig.pipe("a").news.clear();
    let mut sent = &bytes(&mut rig, "a")[..];
    let mut first = Vec::new();
    while let Some(frame) = Frame::parse(sent, u32::MAX).unwrap() {
        first.push(frame.first);
        sent = &sent[frame.raw.len()..];
    }
    assert_eq!(first, [0x20, 0x90, 0xb0, 0xd0, 0x62, 0x40, 0x50, 0x70, 0xe0]);
    // And what the client does.
    let mut script = Script::v5();
    let filter = [("t", SubscribeOptions::default())];
    script.client.subscribe(script.now, &filter, Properties::EMPTY).unwrap();
    assert_eq!(script.sent()[0], 0x82);
    script.client.unsubscribe(script.now, &["t"], Properties::EMPTY).unwrap();
    assert_eq!(script.sent()[0], 0xa2);
    script.receive(b"\x50\x02\0\x07");
    assert_eq!(script.sent()[0], 0x62);
}

#[test]
fn mqtt5_2_2_1_2_a_publish_at_qos_0_has_no_packet_identifier() {
    let mut rig = one();
    rig.run("s> CONNECT s clean v5; SUBSCRIBE id=1 t:0\n s< CONNACK 0; SUBACK 1 0");
    bytes(&mut rig, "s");
    rig.run("p> CONNECT p clean v5; PUBLISH t x q1 id=7\n p< CONNACK 0; PUBACK 7\n s< PUBLISH t x");
    assert_eq!(bytes(&mut rig, "s"), b"\x30\x05\0\x01t\0x");
    // Two bytes where the identifier would be are properties and payload.
    rig.run("p> RAW 30 06 00 01 74 00 07 00\n s< PUBLISH t \u{7}\0");
    refused("30 06 00 01 74 07 00 00", "0x81");
    let mut script = Script::v5();
    script.publish(0, "t").unwrap();
    assert_eq!(script.sent(), b"\x30\x05\0\x01t\0x");
}

#[test]
fn mqtt5_2_2_1_3_packet_identifiers_of_a_client_are_not_zero_and_not_in_use() {
    refused("32 06 00 01 74 00 00 00", "0x82");
    refused("34 06 00 01 74 00 00 00", "0x82");
    refused("82 07 00 00 00 00 01 74 00", "0x81");
    refused("a2 06 00 00 00 00 01 74", "0x81");
    let mut script = Script::v5();
    script.publish(1, "t").unwrap();
    let filter = [("t", SubscribeOptions::default())];
    script.client.subscribe(script.now, &filter, Properties::EMPTY).unwrap();
    script.client.unsubscribe(script.now, &["t"], Properties::EMPTY).unwrap();
    script.publish(2, "t").unwrap();
    assert_eq!(
        script.sent(),
        b"\x32\x07\0\x01t\0\x01\0x\x82\x07\0\x02\0\0\x01t\0\xa2\x06\0\x03\0\0\x01t\x34\x07\0\x01t\0\x04\0x"
    );
    // SUBSCRIBE and UNSUBSCRIBE stay without answer: their identifiers are skipped next time round, and so is zero.
    script.receive(b"\x40\x02\0\x01\x50\x03\0\x04\x87");
    let mut last = 4;
    for _ in 0..66_000 {
        script.publish(1, "t").unwrap();
        let sent = script.sent();
        let id = u16::from_be_bytes([sent[5], sent[6]]);
        assert_eq!(id, if last == 1 { 4 } else { last % 65_535 + 1 });
        script.receive(&[0x40, 2, sent[5], sent[6]]);
        script.events();
        last = id;
    }
}

#[test]
fn mqtt5_2_2_1_4_packet_identifiers_of_the_broker_are_not_zero_and_not_in_use() {
    let mut rig = one();
    rig.run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 t:1
         s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t held q1 id=1
         p< CONNACK 0; PUBACK 1
         s< PUBLISH t held q1 id=1",
    );
    let mut last = 1;
    for _ in 0..70_000 {
        rig.send("p", "PUBLISH t x q1 id=1");
        rig.settle();
        let news = std::mem::take(&mut rig.pipe("s").news);
        let Some(text) = news.first() else { break };
        last = text.rsplit_once("id=").unwrap().1.parse::<u32>().unwrap();
        rig.send("s", &format!("PUBACK {last}"));
        rig.settle();
    }
    assert_eq!(last, 65_535, "it stops before an id that is in use");
    rig.news("p");
    rig.send("s", "PUBACK 1");
    let news = rig.news("s");
    assert!(news.starts_with("PUBLISH t x q1 id=1"), "{news}");
    // The client does not take zero.
    client_refuses(b"\x32\x06\0\x01t\0\0\0", ReasonCode::ProtocolError);
}

#[test]
fn mqtt5_2_2_1_5_acknowledgements_carry_the_identifier_of_their_publish() {
    one().run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean v5; PUBLISH t a q1 id=0x1234; PUBLISH t b q2 id=0xfffe; PUBREL 0xfffe
         p< CONNACK 0; PUBACK 4660; PUBREC 65534; PUBCOMP 65534
         s< PUBLISH t a q1 id=1; PUBLISH t b q2 id=2
         s> PUBREC 2; PUBCOMP 2
         s< PUBREL 2
         p> PUBLISH t c q2 id=77; PUBREL 77
         p< PUBREC 77; PUBCOMP 77
         s< PUBLISH t c q2 id=3",
    );
    refused("40 02 00 00", "0x82");
    refused("62 02 00 00", "0x82");
    let mut script = Script::v5();
    script.receive(b"\x32\x06\0\x01t\x12\x34\0\x34\x06\0\x01t\xff\xfe\0\x62\x02\xff\xfe");
    assert_eq!(script.sent(), b"\x40\x02\x12\x34\x50\x02\xff\xfe\x70\x02\xff\xfe");
    script.publish(2, "t").unwrap();
    script.sent();
    script.receive(b"\x50\x02\0\x01");
    assert_eq!(script.sent(), b"\x62\x02\0\x01");
}

#[test]
fn mqtt5_2_2_1_6_suback_and_unsuback_carry_the_identifier_of_the_request() {
    one().run(
        "s> CONNECT s clean v5; SUBSCRIBE id=0x1234 t; SUBSCRIBE id=0xffff u; UNSUBSCRIBE id=0xfedc t; UNSUBSCRIBE id=7 x
         s< CONNACK 0; SUBACK 4660 0; SUBACK 65535 0; UNSUBACK 65244 0; UNSUBACK 7 0x11",
    );
    // The client takes an answer for the request of its identifier, and of its kind, only.
    let mut script = Script::v5();
    let filter = [("t", SubscribeOptions::default())];
    let ticket = script.client.subscribe(script.now, &filter, Properties::EMPTY).unwrap();
    script.receive(b"\x90\x04\0\x09\0\0\xb0\x04\0\x01\0\0");
    assert!(script.events().is_empty());
    script.receive(b"\x90\x04\0\x01\0\0");
    assert!(matches!(script.events()[..], [Event::Subscribed { ticket: t, .. }] if t == ticket));
}

#[test]
fn mqtt5_2_2_2_1_no_properties_are_a_property_length_of_zero() {
    let mut rig = one();
    rig.run("a> CONNECT a clean v5\n a< CONNACK 0");
    bytes(&mut rig, "a");
    rig.send("a", "SUBSCRIBE id=1 t; PUBLISH t x; UNSUBSCRIBE id=2 t");
    assert_eq!(bytes(&mut rig, "a"), b"\x90\x04\0\x01\0\0\x30\x05\0\x01t\0x\xb0\x04\0\x02\0\0");
    rig.send("b", "CONNECT b clean v5 method=none");
    assert_eq!(bytes(&mut rig, "b"), b"\x20\x03\0\x8c\0");
    // Without the length: a PUBLISH that ends, and packets whose next byte is taken for it.
    refused("30 03 00 01 74", "0x81");
    refused("82 06 00 01 00 01 74 00", "0x81");
    refused("a2 05 00 01 00 01 74", "0x81");
    client_refuses(b"\x30\x03\0\x01t", ReasonCode::MalformedPacket);
    let with = Options { session_expiry_s: 0, topic_alias_maximum: 0, ..options(Version::V5) };
    assert_eq!(Script::new(with).sent(), b"\x10\x0e\0\x04MQTT\x05\0\0\x3c\0\0\x01c");
    let mut script = Script::v5();
    script.publish(1, "t").unwrap();
    let filter = [("t", SubscribeOptions::default())];
    script.client.subscribe(script.now, &filter, Properties::EMPTY).unwrap();
    script.client.unsubscribe(script.now, &["t"], Properties::EMPTY).unwrap();
    assert_eq!(script.sent(), b"\x32\x07\0\x01t\0\x01\0x\x82\x07\0\x02\0\0\x01t\0\xa2\x06\0\x03\0\0\x01t");
}
