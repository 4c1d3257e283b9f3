//! What the codec refuses, and with which reason.

use hikyaku_proto::codec::*;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

/// A packet from its first byte and its body.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    put_varint(body.len() as u32, &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

fn decode(version: Version, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    Packet::decode(version, Frame::parse(bytes, u32::MAX).unwrap().expect("a whole packet"))
}

#[test]
fn property_values_have_rules() {
    use PacketType::*;
    use ReasonCode::*;
    let cases: &[(PacketType, Property<'_>, ReasonCode)] = &[
        (Publish, Property::PayloadFormatIndicator(2), ProtocolError),
        (Publish, Property::TopicAlias(0), TopicAliasInvalid),
        (Publish, Property::SubscriptionIdentifier(0), ProtocolError),
        (Publish, Property::ResponseTopic("a/+"), ProtocolError),
        (Publish, Property::ResponseTopic("#"), ProtocolError),
        (Publish, Property::ResponseTopic(""), ProtocolError),
        (Connect, Property::ReceiveMaximum(0), ProtocolError),
        (Connect, Property::MaximumPacketSize(0), ProtocolError),
        (Connect, Property::RequestProblemInformation(2), ProtocolError),
        (Connect, Property::RequestResponseInformation(2), ProtocolError),
        (Connect, Property::AuthenticationData(b"x"), ProtocolError),
        (ConnAck, Property::MaximumQoS(2), ProtocolError),
        (ConnAck, Property::RetainAvailable(2), ProtocolError),
        (ConnAck, Property::WildcardSubscriptionAvailable(2), ProtocolError),
        (ConnAck, Property::SubscriptionIdentifierAvailable(2), ProtocolError),
        (ConnAck, Property::SharedSubscriptionAvailable(255), ProtocolError),
    ];
    for &(packet_type, property, reason) in cases {
        let mut buf = PropertiesBuf::default();
        buf.push(property);
        let context = PropertyContext::Packet(packet_type);
        let error = Properties::validate(buf.as_properties().raw(), context).unwrap_err();
        assert_eq!(error.reason, reason, "{property:?}");
        assert_eq!(error.kind == ErrorKind::Malformed, reason == MalformedPacket, "{property:?}");
    }
}

#[test]
fn bad_packets_are_refused_with_the_right_reason() {
    use ReasonCode::*;
    use Version::*;
    let all: &[Version] = &VERSIONS;
    let v3: &[Version] = &[V3_1, V3_1_1];
    let (v31, v311, v5, since311): (&[_], &[_], &[_], &[_]) = (&[V3_1], &[V3_1_1], &[V5], &[V3_1_1, V5]);
    let cases: &[(&[Version], u8, &[u8], ReasonCode)] = &[
        // CONNECT says its version itself.
        (all, 0x11, b"\0\x04MQTT\x04\x02\0\0\0\x01c", MalformedPacket),
        (all, 0x10, b"\0\x04MQTX\x04\x02\0\0\0\x01c", UnsupportedProtocolVersion),
        (all, 0x10, b"\0\x00\x04\x02\0\0\0\x01c", UnsupportedProtocolVersion),
        (all, 0x10, b"\0\x04MQTT\x03\x02\0\0\0\x01c", UnsupportedProtocolVersion),
        (all, 0x10, b"\0\x04MQTT\x06\x02\0\0\0\x01c", UnsupportedProtocolVersion),
        (all, 0x10, b"\0\x04MQTT\x85\x02\0\0\0\0\x01c", UnsupportedProtocolVersion),
        (all, 0x10, b"\0\x06MQIsdp\x04\x02\0\0\0\x01c", UnsupportedProtocolVersion),
        (all, 0x10, b"\0\x04MQTT\x04\x03\0\0\0\x01c", MalformedPacket),
        (all, 0x10, b"\0\x04MQTT\x04\x0a\0\0\0\x01c", MalformedPacket),
        (all, 0x10, b"\0\x04MQTT\x04\x22\0\0\0\x01c", MalformedPacket),
        (all, 0x10, b"\0\x04MQTT\x04\x1e\0\0\0\x01c\0\x01w\0\0", MalformedPacket),
        (all, 0x10, b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\0\0\0", ProtocolError),
        (all, 0x10, b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01#\0\0", MalformedPacket),
        (all, 0x10, b"\0\x04MQTT\x04\x42\0\0\0\x01c\0\x01p", MalformedPacket),
        (all, 0x10, b"\0\x04MQTT\x04\x82\0\0\0\x01c", MalformedPacket),
        (all, 0x10, b"\0\x04MQTT\x04\x02\0\0\0\x01cx", MalformedPacket),
        (all, 0x10, b"\0\x04MQTT\x04\x00\0\0\0\0", ClientIdentifierNotValid),
        (all, 0x10, b"\0\x06MQIsdp\x03\x02\0\0\0\0", ClientIdentifierNotValid),
        (all, 0x10, b"\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\0", ProtocolError),
        // CONNACK
        (since311, 0x20, b"\x02\0\0", MalformedPacket),
        (v311, 0x20, b"\0\x06", MalformedPacket),
        (v311, 0x20, b"\x01\x01", ProtocolError),
        (v5, 0x20, b"\x01\x87\0", ProtocolError),
        (v5, 0x20, b"\0\x10\0", ProtocolError),
        (v5, 0x20, b"\0\x03\0", ProtocolError),
        (v3, 0x20, b"\0\0\0", MalformedPacket),
        // PUBLISH
        (all, 0x36, b"\0\x01t\0\x01\0", MalformedPacket),
        (all, 0x38, b"\0\x01t\0", MalformedPacket),
        (all, 0x32, b"\0\x01t\0\0\0", ProtocolError),
        (all, 0x30, b"\0\x01#\0", MalformedPacket),
        (all, 0x30, b"\0\x13a/very/long/topic/+\0", MalformedPacket),
        (all, 0x30, b"\0\x01\0\0", MalformedPacket),
        (all, 0x30, b"\0\x03\xed\xa0\x80\0", MalformedPacket),
        (all, 0x30, b"\0\x02\xc0\x80\0", MalformedPacket),
        (all, 0x30, b"\0\0\0", MalformedPacket),
        (all, 0x30, b"\0\x05t", MalformedPacket),
        (v5, 0x30, b"\0\x01t\x03\x23\0\0", TopicAliasInvalid),
        (v5, 0x30, b"\0\x01t\x7f", MalformedPacket),
        (v5, 0x30, b"\0\x01t\x80\0", MalformedPacket),
        (v5, 0x30, b"\0\x01t\x02\x7f\0", MalformedPacket),
        (v5, 0x30, b"\0\x01t", MalformedPacket),
        // Acknowledgements
        (all, 0x41, b"\0\x01", MalformedPacket),
        (all, 0x60, b"\0\x01", MalformedPacket),
        (since311, 0x6a, b"\0\x01", MalformedPacket),
        (all, 0x40, b"\0\0", ProtocolError),
        (all, 0x40, b"\0", MalformedPacket),
        (v3, 0x40, b"\0\x01\0", MalformedPacket),
        (v5, 0x40, b"\0\x01\x92", ProtocolError),
        (v5, 0x40, b"\0\x01\x03", ProtocolError),
        (v5, 0x40, b"\0\x01\0\0\0", MalformedPacket),
        // SUBSCRIBE and UNSUBSCRIBE
        (all, 0x80, b"\0\x01\0\0\x01t\0", MalformedPacket),
        (since311, 0x8a, b"\0\x01\0\0\x01t\0", MalformedPacket),
        (v311, 0x82, b"\0\x01", MalformedPacket),
        (v5, 0x82, b"\0\x01\0", MalformedPacket),
        (v311, 0x82, b"\0\0\0\x01t\0", MalformedPacket),
        (v3, 0x82, b"\0\x01\0\x01t\x03", MalformedPacket),
        (v3, 0x82, b"\0\x01\0\x01t\x04", MalformedPacket),
        (v3, 0x82, b"\0\x01\0\x01t", MalformedPacket),
        (v5, 0x82, b"\0\x01\0\0\x01t\x03", MalformedPacket),
        (v5, 0x82, b"\0\x01\0\0\x01t\x30", MalformedPacket),
        (v5, 0x82, b"\0\x01\0\0\x01t\x40", MalformedPacket),
        (v3, 0xa2, b"\0\x01", MalformedPacket),
        (v5, 0xa2, b"\0\x01\0", MalformedPacket),
        (all, 0xa0, b"\0\x01\0\x01t", MalformedPacket),
        (v3, 0xa2, b"\0\x01\0\x02t", MalformedPacket),
        // SUBACK and UNSUBACK
        (v3, 0x90, b"\0\x01\x03", MalformedPacket),
        (v3, 0x90, b"\0\x01\x87", MalformedPacket),
        (v3, 0x90, b"\0\x01", ProtocolError),
        (v5, 0x90, b"\0\x01\0\x11", ProtocolError),
        (v5, 0x90, b"\0\x01\0\x03", ProtocolError),
        (v3, 0xb0, b"\0\x01\0", MalformedPacket),
        (v5, 0xb0, b"\0\x01\0\x01", ProtocolError),
        (v5, 0xb0, b"\0\x01\0", ProtocolError),
        // The rest
        (all, 0xc0, b"\0", MalformedPacket),
        (all, 0xc1, b"", MalformedPacket),
        (all, 0xd2, b"", MalformedPacket),
        (all, 0xe1, b"", MalformedPacket),
        (v3, 0xe0, b"\0", MalformedPacket),
        (v5, 0xe0, b"\x01", ProtocolError),
        (v5, 0xe0, b"\0\0\0", MalformedPacket),
        (v31, 0xf0, b"", MalformedPacket),
        (v311, 0xf0, b"\x18\0", MalformedPacket),
        (v5, 0xf0, b"\x18", MalformedPacket),
        (v5, 0xf0, b"\x04\0", ProtocolError),
        (v5, 0xf1, b"\x18\0", MalformedPacket),
    ];
    for &(versions, first, body, reason) in cases {
        for &version in versions {
            let bytes = packet(first, body);
            let error = decode(version, &bytes).expect_err("a bad packet");
            assert_eq!(error.reason, reason, "{version:?} {first:#04x} {body:?}: {error}");
            assert_eq!(error.kind == ErrorKind::Malformed, reason == MalformedPacket, "{error}");
        }
    }
}

#[test]
fn version_3_1_is_taken_as_it_is_spoken() {
    for first in [0x6a, 0x8a, 0xaa] {
        let body = if first == 0x6a { &b"\0\x01"[..] } else { b"\0\x01\0\x01t\0" };
        let body = if first == 0xaa { &body[..5] } else { body };
        assert!(decode(Version::V3_1, &packet(first, body)).is_ok());
    }
    // The user name flag without a user name.
    let bytes = packet(0x10, b"\0\x06MQIsdp\x03\xc2\0\0\0\x01c");
    let Ok(Packet::Connect(connect)) = decode(Version::V3_1, &bytes) else { panic!() };
    assert_eq!((connect.username, connect.password), (None, None));
    let bytes = packet(0x10, b"\0\x06MQIsdp\x83\x02\0\0\0\x01c");
    assert!(matches!(decode(Version::V5, &bytes), Ok(Packet::Connect(Connect { bridge: true, .. }))));
}

#[test]
fn strings_are_checked_at_every_length_and_place() {
    for len in 1..70 {
        for at in 0..len {
            for bad in [0, 1, 0x1f, 0x7f, b'+', b'#', 0x80, 0xff] {
                let mut body = vec![0, len as u8];
                body.resize(2 + len, b'a');
                assert!(decode(Version::V3_1_1, &packet(0x30, &body)).is_ok());
                body[2 + at] = bad;
                let bytes = packet(0x30, &body);
                assert_eq!(decode(Version::V3_1_1, &bytes).map_err(|e| e.reason as u8), Err(0x81));
                // Neighbours of the bytes looked for.
                body[2 + at] = [b' ', b'*', b',', b'"', b'$', b'~'][at % 6];
                assert!(decode(Version::V3_1_1, &packet(0x30, &body)).is_ok());
            }
        }
    }
}
