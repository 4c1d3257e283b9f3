//! Packets as text and back, for scripts that read well.
//!
//! `PUBLISH t/a hello q1 id=7 r` is a packet; what came back is shown in the same way.

use hikyaku_proto::codec::{
    Ack, Auth, Connect, Disconnect, Frame, Packet, PacketType, Properties, PropertiesBuf, Property, Publish,
    QoS, ReasonCode, RetainHandling, SubscribeOptions, Version, Will, encode_subscribe, encode_unsubscribe,
};

/// One packet in bytes; `version` is what the connection speaks (a CONNECT says its own and changes it).
pub fn encode(text: &str, version: &mut Version) -> Vec<u8> {
    let mut out = Vec::new();
    let mut words = text.split_whitespace();
    let name = words.next().expect("a packet has a name");
    let words: Vec<&str> = words.collect();
    let positional: Vec<&str> = words.iter().copied().filter(|w| !w.contains('=') && !is_flag(w)).collect();
    let value = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
    let number = |key: &str| value(key).map(number);
    let flag = |name: &str| words.contains(&name);
    let qos = || if flag("q2") { 2 } else { u8::from(flag("q1")) };
    let id = number("id").unwrap_or(0) as u16;
    let mut properties = PropertiesBuf::default();
    match name {
        "RAW" => return words.iter().map(|w| u8::from_str_radix(w, 16).expect("hex")).collect(),
        "CONNECT" => {
            *version = match () {
                () if flag("v5") => Version::V5,
                () if flag("v31") => Version::V3_1,
                () => Version::V3_1_1,
            };
            let p = &mut properties;
            if let Some(n) = number("expiry") {
                p.push(Property::SessionExpiryInterval(n));
            }
            if let Some(n) = number("rm") {
                p.push(Property::ReceiveMaximum(n as u16));
            }
            if let Some(n) = number("mps") {
                p.push(Property::MaximumPacketSize(n));
            }
            if let Some(n) = number("tam") {
                p.push(Property::TopicAliasMaximum(n as u16));
            }
            if let Some(m) = value("method") {
                p.push(Property::AuthenticationMethod(m));
            }
            let mut will_properties = PropertiesBuf::default();
            let parts: Vec<&str> = value("will").map(|w| w.split(',').collect()).unwrap_or_default();
            let mut will = Will {
                qos: QoS::AtMostOnce,
                retain: false,
                properties: Default::default(),
                topic: parts.first().unwrap_or(&""),
                payload: parts.get(1).unwrap_or(&"").as_bytes(),
            };
            for part in parts.iter().skip(2) {
                match *part {
                    "q1" => will.qos = QoS::AtLeastOnce,
                    "q2" => will.qos = QoS::ExactlyOnce,
                    "r" => will.retain = true,
                    _ if part.starts_with("delay") => {
                        will_properties.push(Property::WillDelayInterval(self::number(&part[5..])));
                    }
                    "q0" => {}
                    _ => will_properties.push(Property::MessageExpiryInterval(self::number(&part[3..]))),
                }
            }
            will.properties = will_properties.as_properties();
            Packet::Connect(Connect {
                version: *version,
                bridge: false,
                clean_start: flag("clean"),
                keep_alive_s: number("ka").unwrap_or(0) as u16,
                properties: properties.as_properties(),
                client_id: positional.first().unwrap_or(&""),
                will: (!parts.is_empty()).then_some(will),
                username: value("user"),
                password: value("pass").map(str::as_bytes),
            })
            .encode(*version, &mut out)
        }
        "PUBLISH" => {
            if let Some(n) = number("alias") {
                properties.push(Property::TopicAlias(n as u16));
            }
            if let Some(n) = number("exp") {
                properties.push(Property::MessageExpiryInterval(n));
            }
            if let Some(n) = value("up") {
                properties.push(Property::UserProperty(n, n));
            }
            let payload = match number("size") {
                Some(n) => vec![b'x'; n as usize],
                None => positional.get(1).unwrap_or(&"").as_bytes().to_vec(),
            };
            Packet::Publish(Publish {
                dup: flag("dup"),
                qos: QoS::from_u8(qos()).unwrap(),
                retain: flag("r"),
                topic: positional.first().filter(|t| **t != "-").unwrap_or(&""),
                packet_id: id,
                properties: properties.as_properties(),
                payload: &payload,
            })
            .encode(*version, &mut out)
        }
        "SUBSCRIBE" => {
            if let Some(n) = number("sid") {
                properties.push(Property::SubscriptionIdentifier(n));
            }
            let filters: Vec<_> = positional.iter().map(|w| filter(w)).collect();
            encode_subscribe(*version, id, properties.as_properties(), &filters, &mut out)
        }
        "UNSUBSCRIBE" => encode_unsubscribe(*version, id, properties.as_properties(), &positional, &mut out),
        "PUBACK" | "PUBREC" | "PUBREL" | "PUBCOMP" => {
            let reason = reason(positional.get(1));
            let ack = Ack::new(number_of(positional[0]) as u16, reason);
            match name {
                "PUBACK" => Packet::PubAck(ack),
                "PUBREC" => Packet::PubRec(ack),
                "PUBREL" => Packet::PubRel(ack),
                _ => Packet::PubComp(ack),
            }
            .encode(*version, &mut out)
        }
        "DISCONNECT" => {
            if let Some(n) = number("expiry") {
                properties.push(Property::SessionExpiryInterval(n));
            }
            let reason = reason(positional.first());
            Packet::Disconnect(Disconnect { reason, properties: properties.as_properties() })
                .encode(*version, &mut out)
        }
        "AUTH" => Packet::Auth(Auth { reason: reason(positional.first()), properties: Default::default() })
            .encode(*version, &mut out),
        "PINGREQ" => Packet::PingReq.encode(*version, &mut out),
        other => panic!("no such packet: {other}"),
    }
    .expect(text);
    out
}

fn is_flag(word: &str) -> bool {
    matches!(word, "q0" | "q1" | "q2" | "r" | "dup" | "v5" | "v31" | "clean")
}

fn number(text: &str) -> u32 {
    text.strip_prefix("0x")
        .map_or_else(|| text.parse(), |hex| u32::from_str_radix(hex, 16))
        .unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn number_of(text: &str) -> u32 {
    number(text)
}

fn reason(text: Option<&&str>) -> ReasonCode {
    text.map_or(ReasonCode::Success, |t| ReasonCode::from_u8(number(t) as u8).unwrap())
}

/// `a/b:1:nl:rap:rh2`
fn filter(word: &str) -> (&str, SubscribeOptions) {
    let mut parts = word.split(':');
    let filter = parts.next().unwrap();
    let mut options = SubscribeOptions::new(QoS::AtMostOnce);
    for part in parts {
        match part {
            "nl" => options.no_local = true,
            "rap" => options.retain_as_published = true,
            "rh1" => options.retain_handling = RetainHandling::SendIfNew,
            "rh2" => options.retain_handling = RetainHandling::DoNotSend,
            qos => options.qos = QoS::from_u8(qos.parse().unwrap()).unwrap(),
        }
    }
    (filter, options)
}

/// A packet of a server as text. Of a CONNACK's properties only those are shown that a test cares for.
pub fn show(version: Version, frame: Frame<'_>) -> String {
    match Packet::decode(version, frame).expect("a server sends what can be decoded") {
        Packet::ConnAck(p) => {
            let mut text = format!("CONNACK {}", code(version, p.reason));
            if p.session_present {
                text += " present";
            }
            for property in p.properties {
                match property {
                    Property::AssignedClientIdentifier(id) => text += &format!(" assigned={}", id.len()),
                    Property::ServerKeepAlive(s) => text += &format!(" ka={s}"),
                    Property::SessionExpiryInterval(s) => text += &format!(" expiry={s}"),
                    Property::AuthenticationMethod(m) => text += &format!(" method={m}"),
                    _ => {}
                }
            }
            text
        }
        Packet::Publish(p) => publish(&p),
        Packet::PubAck(p) => ack("PUBACK", &p),
        Packet::PubRec(p) => ack("PUBREC", &p),
        Packet::PubRel(p) => ack("PUBREL", &p),
        Packet::PubComp(p) => ack("PUBCOMP", &p),
        Packet::SubAck(p) => codes(format!("SUBACK {}", p.packet_id), p.codes) + &all(p.properties),
        Packet::UnsubAck(p) => codes(format!("UNSUBACK {}", p.packet_id), p.codes) + &all(p.properties),
        Packet::PingResp => "PINGRESP".into(),
        Packet::Disconnect(p) => format!("DISCONNECT 0x{:02x}", p.reason as u8) + &all(p.properties),
        other => format!("{:?}", other.packet_type()),
    }
}

fn code(version: Version, reason: ReasonCode) -> String {
    let code = if version.is_v5() { reason as u8 } else { reason.to_v3_connack() };
    if code < 16 { code.to_string() } else { format!("0x{code:02x}") }
}

fn publish(p: &Publish<'_>) -> String {
    let topic = if p.topic.is_empty() { "-" } else { p.topic };
    let mut text = format!("PUBLISH {topic}");
    match p.payload {
        [] => {}
        long if long.len() > 40 => text += &format!(" size={}", long.len()),
        short => text += &format!(" {}", String::from_utf8_lossy(short)),
    }
    if p.qos != QoS::AtMostOnce {
        text += &format!(" q{} id={}", p.qos as u8, p.packet_id);
    }
    for (flag, name) in [(p.retain, " r"), (p.dup, " dup")] {
        text += if flag { name } else { "" };
    }
    for property in p.properties {
        match property {
            Property::TopicAlias(n) => text += &format!(" alias={n}"),
            Property::MessageExpiryInterval(n) => text += &format!(" exp={n}"),
            Property::SubscriptionIdentifier(n) => text += &format!(" sid={n}"),
            Property::UserProperty(n, _) => text += &format!(" up={n}"),
            other => text += &format!(" {other:?}"),
        }
    }
    text
}

fn ack(name: &str, ack: &Ack<'_>) -> String {
    let reason = match ack.reason {
        ReasonCode::Success => String::new(),
        reason => format!(" 0x{:02x}", reason as u8),
    };
    format!("{name} {}{reason}{}", ack.packet_id, all(ack.properties))
}

/// Properties that no test expects.
fn all(properties: Properties<'_>) -> String {
    properties.into_iter().map(|property| format!(" {property:?}")).collect()
}

fn codes(mut text: String, codes: &[u8]) -> String {
    for &code in codes {
        text += &if code < 3 { format!(" {code}") } else { format!(" 0x{code:02x}") };
    }
    text
}

/// What a client would answer to a packet: acknowledgements.
pub fn answer(version: Version, frame: Frame<'_>) -> Option<Vec<u8>> {
    let packet = Packet::decode(version, frame).ok()?;
    let ok = |id| Ack::new(id, ReasonCode::Success);
    let answer = match packet {
        Packet::Publish(p) if p.qos == QoS::AtLeastOnce => Packet::PubAck(ok(p.packet_id)),
        Packet::Publish(p) if p.qos == QoS::ExactlyOnce => Packet::PubRec(ok(p.packet_id)),
        Packet::PubRec(p) if !p.reason.is_error() => Packet::PubRel(ok(p.packet_id)),
        Packet::PubRel(p) => Packet::PubComp(ok(p.packet_id)),
        _ => return None,
    };
    let mut out = Vec::new();
    answer.encode(version, &mut out).ok()?;
    Some(out)
}

/// Whether a frame is of this type.
pub fn is(frame: Frame<'_>, packet_type: PacketType) -> bool {
    frame.packet_type() == Some(packet_type)
}
