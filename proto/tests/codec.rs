//! The codec through its public door: what is encoded is decoded again, what is bad is refused with the right
//! reason, and nothing panics.

use hikyaku_proto::codec::check::check_decode;
use hikyaku_proto::codec::*;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];
const ACKS: [PacketType; 4] =
    [PacketType::PubAck, PacketType::PubRec, PacketType::PubRel, PacketType::PubComp];

fn every_property() -> Vec<Property<'static>> {
    use Property::*;
    vec![
        PayloadFormatIndicator(1),
        MessageExpiryInterval(3600),
        ContentType("text/plain"),
        ResponseTopic("answers/here"),
        CorrelationData(&[0, 1, 2, 255]),
        SubscriptionIdentifier(VARINT_MAX),
        SessionExpiryInterval(u32::MAX),
        AssignedClientIdentifier("chosen"),
        ServerKeepAlive(60),
        AuthenticationMethod("SCRAM-SHA-256"),
        AuthenticationData(b"n,,n=user"),
        RequestProblemInformation(0),
        WillDelayInterval(5),
        RequestResponseInformation(1),
        ResponseInformation("answers/"),
        ServerReference("other:1883"),
        ReasonString("because — you know"),
        ReceiveMaximum(20),
        TopicAliasMaximum(10),
        TopicAlias(7),
        MaximumQoS(1),
        RetainAvailable(0),
        UserProperty("name", "value"),
        MaximumPacketSize(1 << 20),
        WildcardSubscriptionAvailable(1),
        SubscriptionIdentifierAvailable(1),
        SharedSubscriptionAvailable(0),
    ]
}

/// The standard's table 2-4, written down a second time.
fn allowed(property: Property<'_>, context: PropertyContext) -> bool {
    use PacketType::*;
    use PropertyContext::Will;
    let packet = |list: &[PacketType]| list.iter().any(|&p| context == PropertyContext::Packet(p));
    match property.id() {
        0x01 | 0x02 | 0x03 | 0x08 | 0x09 => context == Will || packet(&[Publish]),
        0x0b => packet(&[Publish, Subscribe]),
        0x11 => packet(&[Connect, ConnAck, Disconnect]),
        0x12 | 0x13 | 0x1a | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => packet(&[ConnAck]),
        0x15 | 0x16 => packet(&[Connect, ConnAck, Auth]),
        0x17 | 0x19 => packet(&[Connect]),
        0x18 => context == Will,
        0x1c => packet(&[ConnAck, Disconnect]),
        0x1f => packet(&[ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth]),
        0x21 | 0x22 | 0x27 => packet(&[Connect, ConnAck]),
        0x23 => packet(&[Publish]),
        0x26 => !packet(&[PingReq, PingResp]),
        _ => false,
    }
}

fn contexts() -> impl Iterator<Item = PropertyContext> {
    (1..=15).filter_map(PacketType::from_u8).map(PropertyContext::Packet).chain([PropertyContext::Will])
}

/// All the properties that a context may have.
fn properties_of(context: PropertyContext) -> PropertiesBuf {
    let mut buf = PropertiesBuf::default();
    buf.extend(every_property().into_iter().filter(|&property| allowed(property, context)));
    buf.push(Property::UserProperty("name", "again"));
    buf
}

/// Calls `f` with packets of all types, without and with all the properties the version has.
fn each_packet(version: Version, f: &mut dyn FnMut(Packet<'_>)) {
    for full in [false, true] {
        let of = |context| if full && version.is_v5() { properties_of(context) } else { <_>::default() };
        let buf = |packet_type| of(PropertyContext::Packet(packet_type));
        each_connect(version, &buf(PacketType::Connect), &of(PropertyContext::Will), f);
        each_publish(version, &buf(PacketType::Publish), f);
        let properties = buf(PacketType::ConnAck);
        for code in 0..=255 {
            let reason = match version {
                Version::V5 => ReasonCode::from_u8(code).filter(|code| code.allowed_in(PacketType::ConnAck)),
                _ => ReasonCode::from_v3_connack(code),
            };
            let Some(reason) = reason else { continue };
            let session_present = reason == ReasonCode::Success && version != Version::V3_1;
            f(Packet::ConnAck(ConnAck { session_present, reason, properties: properties.as_properties() }));
        }
        for packet_type in ACKS {
            let properties = buf(packet_type);
            for reason in reasons(version, packet_type) {
                let ack = Ack { packet_id: 0x1234, reason, properties: properties.as_properties() };
                f(match packet_type {
                    PacketType::PubAck => Packet::PubAck(ack),
                    PacketType::PubRec => Packet::PubRec(ack),
                    PacketType::PubRel => Packet::PubRel(ack),
                    _ => Packet::PubComp(ack),
                });
            }
        }
        each_subscription_packet(version, &buf, f);
        f(Packet::PingReq);
        f(Packet::PingResp);
        let properties = buf(PacketType::Disconnect);
        for reason in reasons(version, PacketType::Disconnect) {
            f(Packet::Disconnect(Disconnect { reason, properties: properties.as_properties() }));
        }
        if version.is_v5() {
            let properties = buf(PacketType::Auth);
            for reason in reasons(version, PacketType::Auth) {
                f(Packet::Auth(Auth { reason, properties: properties.as_properties() }));
            }
        }
    }
}

fn reasons(version: Version, packet_type: PacketType) -> Vec<ReasonCode> {
    let all = (0..=255).filter_map(ReasonCode::from_u8).filter(|code| code.allowed_in(packet_type));
    if version.is_v5() { all.collect() } else { vec![ReasonCode::Success] }
}

fn each_connect(version: Version, buf: &PropertiesBuf, will: &PropertiesBuf, f: &mut dyn FnMut(Packet<'_>)) {
    let will = Will {
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: will.as_properties(),
        topic: "wills/ü",
        payload: &[0, 255],
    };
    let plain = Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive_s: 0x0102,
        properties: buf.as_properties(),
        client_id: "client",
        will: None,
        username: None,
        password: None,
    };
    f(Packet::Connect(plain));
    f(Packet::Connect(Connect { will: Some(will), clean_start: false, ..plain }));
    f(Packet::Connect(Connect { bridge: !version.is_v5(), username: Some("user"), ..plain }));
    f(Packet::Connect(Connect {
        will: Some(will),
        username: Some("user"),
        password: Some(b"\0pw"),
        ..plain
    }));
    if version != Version::V3_1 {
        f(Packet::Connect(Connect { client_id: "", username: Some(""), password: Some(b""), ..plain }));
    }
    if version.is_v5() {
        f(Packet::Connect(Connect { client_id: "", clean_start: false, password: Some(b"token"), ..plain }));
    }
}

fn each_publish(version: Version, buf: &PropertiesBuf, f: &mut dyn FnMut(Packet<'_>)) {
    let long = [0x55; 20_000];
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for payload in [&b""[..], b"payload", &long[..100], &long[..]] {
            let at_most_once = qos == QoS::AtMostOnce;
            let publish = Publish {
                dup: !at_most_once,
                qos,
                retain: payload.is_empty(),
                topic: "tøpic/of/some length",
                packet_id: if at_most_once { 0 } else { 0xffff },
                properties: buf.as_properties(),
                payload,
            };
            f(Packet::Publish(publish));
            if version.is_v5() && !buf.is_empty() {
                f(Packet::Publish(Publish { topic: "", ..publish }));
            }
        }
    }
}

fn each_subscription_packet(
    version: Version,
    buf: &dyn Fn(PacketType) -> PropertiesBuf,
    f: &mut dyn FnMut(Packet<'_>),
) {
    let filters = filters(version);
    for count in [1, filters.len()] {
        let mut bytes = Vec::new();
        let properties = buf(PacketType::Subscribe);
        encode_subscribe(version, 1, properties.as_properties(), &filters[..count], &mut bytes).unwrap();
        f(decode(version, &bytes).unwrap());
        bytes.clear();
        let names: Vec<&str> = filters[..count].iter().map(|&(name, _)| name).collect();
        let properties = buf(PacketType::Unsubscribe);
        encode_unsubscribe(version, 2, properties.as_properties(), &names, &mut bytes).unwrap();
        f(decode(version, &bytes).unwrap());
    }
    let codes: &[u8] = if version.is_v5() { &[0, 1, 2, 0x87, 0xa2] } else { &[0, 1, 2, 0x80] };
    let properties = buf(PacketType::SubAck);
    f(Packet::SubAck(SubAck { packet_id: 3, properties: properties.as_properties(), codes }));
    let codes: &[u8] = if version.is_v5() { &[0, 0x11, 0x8f] } else { &[] };
    let properties = buf(PacketType::UnsubAck);
    f(Packet::UnsubAck(UnsubAck { packet_id: 4, properties: properties.as_properties(), codes }));
}

fn filters(version: Version) -> Vec<(&'static str, SubscribeOptions)> {
    let mut filters =
        vec![("a/+/ü", SubscribeOptions::default()), ("#", SubscribeOptions::new(QoS::ExactlyOnce))];
    if version.is_v5() {
        let options = SubscribeOptions {
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        };
        filters.push(("$share/g/t", options));
    }
    filters
}

fn encode(version: Version, packet: Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).unwrap();
    bytes
}

fn samples(version: Version) -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    each_packet(version, &mut |packet| samples.push(encode(version, packet)));
    samples
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    let frame = Frame::parse(bytes, u32::MAX).unwrap().expect("a whole packet");
    assert_eq!(frame.raw, bytes);
    frame
}

fn decode(version: Version, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    Packet::decode(version, frame(bytes))
}

/// A packet from its first byte and its body.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    put_varint(body.len() as u32, &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

#[test]
fn every_packet_survives_in_every_version() {
    for version in VERSIONS {
        each_packet(version, &mut |packet| {
            let bytes = encode(version, packet);
            assert_eq!(decode(version, &bytes), Ok(packet));
            assert_eq!(frame(&bytes).packet_type(), Some(packet.packet_type()));
        });
    }
}

#[test]
fn encoding_appends() {
    let mut bytes = b"before".to_vec();
    Packet::PingReq.encode(Version::V5, &mut bytes).unwrap();
    Packet::PubRel(Ack::new(10, ReasonCode::Success)).encode(Version::V5, &mut bytes).unwrap();
    assert_eq!(bytes, b"before\xc0\x00\x62\x02\x00\x0a");
}

#[test]
fn known_bytes() {
    let publish = packet(0x30, b"\0\x03a/bhello");
    let expected = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: 0,
        properties: Properties::EMPTY,
        payload: b"hello",
    };
    assert_eq!(decode(Version::V3_1_1, &publish), Ok(Packet::Publish(expected)));
    let connect = packet(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x05\x11\0\0\0\x0a\0\0");
    let Ok(Packet::Connect(connect)) = decode(Version::V3_1, &connect) else { panic!() };
    assert_eq!((connect.version, connect.clean_start, connect.keep_alive_s), (Version::V5, true, 60));
    assert_eq!(connect.properties.session_expiry_interval(), Some(10));
    assert_eq!(connect.properties.receive_maximum(), None);
}

#[test]
fn filters_come_out_as_they_went_in() {
    for version in VERSIONS {
        let expected = filters(version);
        let mut bytes = Vec::new();
        encode_subscribe(version, 9, Properties::EMPTY, &expected, &mut bytes).unwrap();
        let Ok(Packet::Subscribe(subscribe)) = decode(version, &bytes) else { panic!() };
        assert_eq!((subscribe.packet_id, subscribe.len(), subscribe.is_empty()), (9, expected.len(), false));
        assert_eq!(subscribe.filters().collect::<Vec<_>>(), expected);
        bytes.clear();
        let names: Vec<&str> = expected.iter().map(|&(name, _)| name).collect();
        encode_unsubscribe(version, 9, Properties::EMPTY, &names, &mut bytes).unwrap();
        let Ok(Packet::Unsubscribe(unsubscribe)) = decode(version, &bytes) else { panic!() };
        assert_eq!(unsubscribe.filters().len(), expected.len());
        assert_eq!(unsubscribe.filters().collect::<Vec<_>>(), names);
    }
}

#[test]
fn subscribe_options_are_one_byte() {
    for byte in 0..=255u8 {
        let valid = byte & 0xc0 == 0 && byte & 0x03 != 3 && byte & 0x30 != 0x30;
        assert_eq!(SubscribeOptions::from_byte(byte).map(SubscribeOptions::to_byte), valid.then_some(byte));
    }
}

#[test]
fn earlier_versions_leave_out_what_they_cannot_say() {
    let buf = properties_of(PropertyContext::Packet(PacketType::PubAck));
    let ack = Packet::PubAck(Ack {
        packet_id: 1,
        reason: ReasonCode::QuotaExceeded,
        properties: buf.as_properties(),
    });
    assert_eq!(encode(Version::V3_1_1, ack), b"\x40\x02\x00\x01");
    let refused =
        ConnAck { session_present: true, reason: ReasonCode::Banned, properties: Properties::EMPTY };
    assert_eq!(encode(Version::V3_1_1, Packet::ConnAck(refused)), b"\x20\x02\x00\x05");
    let codes = SubAck { packet_id: 1, properties: Properties::EMPTY, codes: &[1, 0x87] };
    assert_eq!(encode(Version::V3_1_1, Packet::SubAck(codes)), b"\x90\x04\x00\x01\x01\x80");
    let auth = Auth { reason: ReasonCode::Success, properties: Properties::EMPTY };
    let mut out = vec![1];
    assert_eq!(Packet::Auth(auth).encode(Version::V3_1_1, &mut out), Err(EncodeError::NotInVersion));
    assert_eq!(out, [1]);
}

#[test]
fn short_forms() {
    let success = Ok(Packet::PubAck(Ack::new(1, ReasonCode::Success)));
    for body in [&b"\0\x01"[..], b"\0\x01\0", b"\0\x01\0\0"] {
        assert_eq!(decode(Version::V5, &packet(0x40, body)), success);
    }
    let normal = Ok(Packet::Disconnect(Disconnect {
        reason: ReasonCode::NormalDisconnection,
        properties: <_>::default(),
    }));
    for body in [&b""[..], b"\0", b"\0\0"] {
        assert_eq!(decode(Version::V5, &packet(0xe0, body)), normal);
    }
    for body in [&b""[..], b"\0\0"] {
        assert!(matches!(decode(Version::V5, &packet(0xf0, body)), Ok(Packet::Auth(_))));
    }
    let failed = Packet::PubRec(Ack::new(1, ReasonCode::NotAuthorized));
    assert_eq!(encode(Version::V5, failed), b"\x50\x03\x00\x01\x87");
}

#[test]
fn callers_mistakes_leave_the_buffer_alone() {
    let long = "x".repeat(65_536);
    let connect = Connect {
        version: Version::V3_1_1,
        bridge: false,
        clean_start: true,
        keep_alive_s: 0,
        properties: Properties::EMPTY,
        client_id: &long,
        will: None,
        username: None,
        password: None,
    };
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "t",
        packet_id: 0,
        properties: Properties::EMPTY,
        payload: b"",
    };
    let mut out = vec![7];
    let mut fails = |packet: Packet<'_>, error| {
        assert_eq!(packet.encode(Version::V3_1_1, &mut out), Err(error));
        assert_eq!(out, [7]);
    };
    fails(Packet::Connect(connect), EncodeError::StringTooLong);
    fails(Packet::Connect(Connect { client_id: "a\0", ..connect }), EncodeError::StringHasNul);
    fails(
        Packet::Connect(Connect { client_id: "", password: Some(b""), ..connect }),
        EncodeError::NotInVersion,
    );
    fails(Packet::Publish(publish), EncodeError::PacketIdZero);
    fails(Packet::Publish(Publish { packet_id: 1, topic: &long, ..publish }), EncodeError::StringTooLong);
    fails(Packet::PubAck(Ack::new(0, ReasonCode::Success)), EncodeError::PacketIdZero);
    fails(
        Packet::SubAck(SubAck { packet_id: 1, properties: <_>::default(), codes: &[] }),
        EncodeError::Empty,
    );
    assert_eq!(encode_subscribe(Version::V5, 1, <_>::default(), &[], &mut out), Err(EncodeError::Empty));
    assert_eq!(
        encode_unsubscribe(Version::V5, 1, <_>::default(), &["a\0"], &mut out),
        Err(EncodeError::StringHasNul)
    );
    assert_eq!(out, [7]);
    let mut buf = PropertiesBuf::default();
    assert_eq!(buf.try_push(Property::ReasonString(&long)), Err(EncodeError::StringTooLong));
    assert_eq!(
        buf.try_push(Property::SubscriptionIdentifier(VARINT_MAX + 1)),
        Err(EncodeError::ValueOutOfRange)
    );
    assert!(buf.is_empty());
}

#[test]
fn properties_belong_to_their_packets() {
    for context in contexts() {
        for property in every_property() {
            // Authentication Data needs the method beside it.
            let method = (property.id() == 0x16).then_some(Property::AuthenticationMethod("m"));
            let mut buf = PropertiesBuf::default();
            buf.extend([property].into_iter().chain(method));
            let result = Properties::validate(buf.as_properties().raw(), context);
            if !allowed(property, context) {
                let reason = match context {
                    PropertyContext::Packet(PacketType::Subscribe | PacketType::Unsubscribe) => {
                        ReasonCode::MalformedPacket
                    }
                    _ => ReasonCode::ProtocolError,
                };
                assert_eq!(result.unwrap_err().reason, reason, "{property:?} {context:?}");
                continue;
            }
            assert_eq!(result.unwrap().iter().next(), Some(property));
            buf.push(property);
            let twice = Properties::validate(buf.as_properties().raw(), context);
            let publish = context == PropertyContext::Packet(PacketType::Publish);
            if property.id() == 0x26 || property.id() == 0x0b && publish {
                assert_eq!(twice.unwrap().iter().count(), 2);
            } else {
                assert_eq!(twice.unwrap_err().reason, ReasonCode::ProtocolError, "{property:?} {context:?}");
            }
        }
    }
}

#[test]
fn properties_are_iterated_and_found() {
    let mut buf = PropertiesBuf::default();
    for property in every_property() {
        let before = buf.as_properties().raw().len();
        buf.push(property);
        assert_eq!(buf.as_properties().raw().len() - before, property.encoded_len());
    }
    buf.push(Property::UserProperty("name", "second"));
    buf.push(Property::SubscriptionIdentifier(1));
    let properties = buf.as_properties();
    assert_eq!(properties.iter().take(27).collect::<Vec<_>>(), every_property());
    assert_eq!(properties.user_properties().collect::<Vec<_>>(), [("name", "value"), ("name", "second")]);
    assert_eq!(properties.subscription_identifiers().collect::<Vec<_>>(), [VARINT_MAX, 1]);
    assert_eq!(properties.payload_format_indicator(), Some(1));
    assert_eq!(properties.shared_subscription_available(), Some(0));
    assert_eq!(properties.authentication_data(), Some(&b"n,,n=user"[..]));
    assert_eq!(properties.response_topic(), Some("answers/here"));
    assert_eq!(Properties::EMPTY.response_topic(), None);
    buf.clear();
    assert!(buf.as_properties().is_empty());
}

#[test]
fn a_shortened_packet_is_an_error_or_a_shorter_packet() {
    for version in VERSIONS {
        for bytes in samples(version) {
            if bytes.len() > 2000 {
                continue;
            }
            let whole = frame(&bytes);
            let header = bytes.len() - whole.body.len();
            for len in 0..bytes.len() {
                assert_eq!(Frame::parse(&bytes[..len], u32::MAX), Ok(None), "a cut frame is no frame");
            }
            for len in 0..whole.body.len() {
                let cut = packet(bytes[0], &bytes[header..header + len]);
                let Ok(packet) = decode(version, &cut) else { continue };
                check_decode(&cut);
                let may = match packet {
                    Packet::Publish(_)
                    | Packet::SubAck(_)
                    | Packet::Subscribe(_)
                    | Packet::Unsubscribe(_) => true,
                    Packet::Connect(connect) => connect.version == Version::V3_1,
                    Packet::ConnAck(_) | Packet::PingReq | Packet::PingResp => false,
                    _ => version.is_v5(),
                };
                assert!(may, "{version:?}: {packet:?}");
            }
        }
    }
}

#[test]
fn no_changed_byte_panics() {
    for version in VERSIONS {
        for mut bytes in samples(version) {
            if bytes.len() > 2000 {
                continue;
            }
            for at in 0..bytes.len() {
                let kept = bytes[at];
                for changed in (0..8).map(|bit| kept ^ 1 << bit).chain([0, 0xff]) {
                    bytes[at] = changed;
                    check_decode(&bytes);
                }
                bytes[at] = kept;
            }
        }
    }
}

#[test]
fn no_random_bytes_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..random.below(60)).map(|_| random.below(256) as u8).collect();
        if bytes.len() > 2 {
            bytes[1] = bytes.len() as u8 - 2;
        }
        check_decode(&bytes);
    }
}

/// The packets of a stream that arrives in pieces of random size below `most`.
fn cut_into(stream: &[u8], most: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let mut framer = Framer::default();
    let mut frames = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (mut piece, next) = rest.split_at((1 + random.below(most)).min(rest.len()));
        rest = next;
        loop {
            let step = framer.next(piece, u32::MAX).unwrap();
            piece = &piece[step.used..];
            let Some(frame) = step.frame else { break };
            assert_eq!(frame.first, frame.raw[0]);
            assert!(frame.raw.ends_with(frame.body));
            frames.push(frame.raw.to_vec());
        }
        assert!(piece.is_empty());
    }
    assert!(framer.is_empty());
    frames
}

#[test]
fn the_framer_does_not_depend_on_the_cuts() {
    let packets: Vec<Vec<u8>> = VERSIONS.iter().flat_map(|&version| samples(version)).collect();
    let stream = packets.concat();
    let mut random = Random(42);
    for most in [1, 2, 3, 10, 100, 1000, 100_000, stream.len()] {
        assert_eq!(cut_into(&stream, most, &mut random), packets);
    }
}

#[test]
fn whole_packets_are_borrowed_from_the_input() {
    let stream = [&packet(0x30, b"\0\x01tx")[..], b"\xc0\0\xc0"].concat();
    let mut framer = Framer::default();
    let step = framer.next(&stream, 100).unwrap();
    assert_eq!(step.frame.unwrap().raw.as_ptr(), stream.as_ptr());
    let used = step.used;
    let step = framer.next(&stream[used..], 100).unwrap();
    assert_eq!((step.used, step.frame.unwrap().raw), (2, &b"\xc0\0"[..]));
    let step = framer.next(b"\xc0", 100).unwrap();
    assert_eq!((step.used, step.frame), (1, None));
    assert_eq!(framer.buffered(), 1);
    let step = framer.next(b"\0\xd0", 100).unwrap();
    assert_eq!((step.used, step.frame.unwrap().raw), (1, &b"\xc0\0"[..]));
    assert!(framer.is_empty());
    assert_eq!(framer.next(b"", 100).unwrap(), Step { used: 0, frame: None });
    assert!(framer.is_empty());
}

#[test]
fn the_framer_refuses_bad_headers_at_once() {
    let error = |bytes: &[u8]| {
        let whole = Framer::default().next(bytes, 1000).unwrap_err();
        let mut framer = Framer::default();
        let slow = bytes.iter().find_map(|byte| framer.next(&[*byte], 1000).err());
        assert_eq!(slow, Some(whole));
        whole.reason
    };
    assert_eq!(error(b"\x00"), ReasonCode::ProtocolError);
    assert_eq!(error(b"\x30\xff\xff\xff\xff"), ReasonCode::MalformedPacket);
    assert_eq!(error(b"\x30\x80\x00"), ReasonCode::MalformedPacket);
    assert_eq!(error(b"\x30\xff\xff\xff\x7f"), ReasonCode::PacketTooLarge);
    // 1,000 bytes with the fixed header are allowed, 1,001 are not.
    assert_eq!(error(b"\x30\xe6\x07"), ReasonCode::PacketTooLarge);
    assert_eq!(Framer::default().next(b"\x30\xe5\x07", 1000), Ok(Step { used: 3, frame: None }));
}

#[test]
fn varints_have_one_form() {
    for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, VARINT_MAX] {
        let mut bytes = Vec::new();
        put_varint(value, &mut bytes);
        assert_eq!(bytes.len(), varint_len(value));
        assert_eq!(read_varint(&bytes), Ok(Some((value, bytes.len()))));
        for len in 0..bytes.len() {
            assert_eq!(read_varint(&bytes[..len]), Ok(None));
        }
    }
    for bad in
        [&b"\x80\0"[..], b"\xff\x80\0", b"\x80\x80\x80\0", b"\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff"]
    {
        assert_eq!(read_varint(bad).unwrap_err().kind, ErrorKind::Malformed);
    }
}

#[test]
fn reason_codes() {
    let all: Vec<ReasonCode> = (0..=255).filter_map(ReasonCode::from_u8).collect();
    assert_eq!(all.len(), 43);
    let count = |packet_type| all.iter().filter(|code| code.allowed_in(packet_type)).count();
    use PacketType::*;
    // As in table 2-6; 0x8C is a DISCONNECT's there though section 3.14 does not repeat it.
    let expected = [(ConnAck, 22), (PubAck, 9), (PubRec, 9), (PubRel, 2), (PubComp, 2), (SubAck, 12)];
    for (packet_type, codes) in expected.into_iter().chain([(UnsubAck, 7), (Disconnect, 30), (Auth, 3)]) {
        assert_eq!(count(packet_type), codes, "{packet_type:?}");
    }
    for code in 0..=5 {
        assert_eq!(ReasonCode::from_v3_connack(code).unwrap().to_v3_connack(), code);
    }
    assert_eq!(ReasonCode::from_v3_connack(6), None);
    assert_eq!(ReasonCode::NotAuthorized.to_string(), "Not authorized");
    assert!(ReasonCode::UnspecifiedError.is_error() && !ReasonCode::ReAuthenticate.is_error());
    let error = decode(Version::V5, b"\x38\x04\0\x01t\0").unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed packet: a PUBLISH with QoS 0 has the DUP flag [MQTT-3.3.1-2] (0x81)"
    );
}
