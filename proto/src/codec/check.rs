//! What must hold for any bytes: the body of the fuzz target.

use alloc::vec::Vec;

use super::{
    Frame, Framer, Packet, PacketType, Properties, PropertiesBuf, Property, PropertyContext, Version,
    is_character, read_varint,
};

const MAX_PACKET: u32 = 1 << 20;

/// Panics when `data` shows a fault of the codec: a packet that does not survive encoding, or a framer that
/// depends on how its input is cut.
pub fn check_decode(data: &[u8]) {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        check_packets(version, data);
    }
    let whole = frames(data, data.len().max(1));
    for piece in [1, 2, 7] {
        assert_eq!(whole, frames(data, piece), "the framer depends on the cuts in its input");
    }
}

/// Panics when `data`, taken as properties of the packet its first byte names, is judged otherwise than by a naive reading of
/// the standard's table, or when what was accepted cannot be read back.
pub fn check_properties(data: &[u8]) {
    let Some((&first, raw)) = data.split_first() else { return };
    let context = PacketType::from_u8(first & 15).map_or(PropertyContext::Will, PropertyContext::Packet);
    // Half of the inputs are values for properties that are well formed.
    let built = if first & 16 == 0 { raw.to_vec() } else { build(raw) };
    let validated = Properties::validate(&built, context);
    let expected = naive(&built, first & 15);
    assert_eq!(validated.is_ok(), expected.is_some(), "{validated:?} of {built:02x?} in {context:?}");
    let (Ok(properties), Some(expected)) = (validated, expected) else { return };
    let ids: Vec<u8> = properties.iter().map(|property| property.id()).collect();
    assert_eq!(ids, expected);
    let mut again = PropertiesBuf::default();
    for property in properties {
        let before = again.as_properties().raw().len();
        again.try_push(property).expect("what was read can be written");
        assert_eq!(again.as_properties().raw().len(), before + property.encoded_len());
    }
    assert_eq!(again.as_properties().raw(), built, "the properties survive");
    let find = |id| properties.iter().find(|property| property.id() == id);
    assert_eq!(properties.message_expiry_interval().map(Property::MessageExpiryInterval), find(0x02));
    assert_eq!(properties.response_topic().map(Property::ResponseTopic), find(0x08));
    assert_eq!(properties.receive_maximum().map(Property::ReceiveMaximum), find(0x21));
    assert_eq!(properties.reason_string().map(Property::ReasonString), find(0x1f));
    assert_eq!(properties.user_properties().count(), ids.iter().filter(|id| **id == 0x26).count());
    assert_eq!(properties.subscription_identifiers().count(), ids.iter().filter(|id| **id == 0x0b).count());
}

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A byte that is 0 or 1.
    Flag,
    Two,
    TwoNotZero,
    Four,
    FourNotZero,
    VarintNotZero,
    Text,
    Topic,
    Data,
    Pair,
}

/// Table 2-4 of MQTT 5.0: identifier, type, and the packets it may be in, by their numbers; 0 stands for the will.
const TABLE: [(u8, Kind, &[u8]); 27] = [
    (0x01, Kind::Flag, &[3, 0]),
    (0x02, Kind::Four, &[3, 0]),
    (0x03, Kind::Text, &[3, 0]),
    (0x08, Kind::Topic, &[3, 0]),
    (0x09, Kind::Data, &[3, 0]),
    (0x0b, Kind::VarintNotZero, &[3, 8]),
    (0x11, Kind::Four, &[1, 2, 14]),
    (0x12, Kind::Text, &[2]),
    (0x13, Kind::Two, &[2]),
    (0x15, Kind::Text, &[1, 2, 15]),
    (0x16, Kind::Data, &[1, 2, 15]),
    (0x17, Kind::Flag, &[1]),
    (0x18, Kind::Four, &[0]),
    (0x19, Kind::Flag, &[1]),
    (0x1a, Kind::Text, &[2]),
    (0x1c, Kind::Text, &[2, 14]),
    (0x1f, Kind::Text, &[2, 4, 5, 6, 7, 9, 11, 14, 15]),
    (0x21, Kind::TwoNotZero, &[1, 2]),
    (0x22, Kind::Two, &[1, 2]),
    (0x23, Kind::TwoNotZero, &[3]),
    (0x24, Kind::Flag, &[2]),
    (0x25, Kind::Flag, &[2]),
    (0x26, Kind::Pair, &[1, 2, 3, 0, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15]),
    (0x27, Kind::FourNotZero, &[1, 2]),
    (0x28, Kind::Flag, &[2]),
    (0x29, Kind::Flag, &[2]),
    (0x2a, Kind::Flag, &[2]),
];

/// Well-formed properties: each two bytes say which one, and what it holds.
fn build(choices: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for choice in choices.chunks_exact(2) {
        let (id, kind, _) = TABLE[usize::from(choice[0]) % TABLE.len()];
        let value = choice[1];
        let length = [0, value & 15];
        let letters = &b"a/+#\0b\xc3\xa9$c/de fg"[..usize::from(value & 15)];
        out.push(id);
        match kind {
            Kind::Flag => out.push(value >> 6),
            Kind::Two | Kind::TwoNotZero => out.extend_from_slice(&[value & 1, value >> 4]),
            Kind::Four | Kind::FourNotZero => out.extend_from_slice(&[value & 1, 0, 0, value >> 4]),
            Kind::VarintNotZero => {
                out.extend_from_slice(&[value | 128, value & 127][usize::from(value >> 7)..])
            }
            Kind::Text | Kind::Topic | Kind::Data => {
                out.extend_from_slice(&length);
                out.extend_from_slice(letters);
            }
            Kind::Pair => {
                out.extend_from_slice(&length);
                out.extend_from_slice(letters);
                out.extend_from_slice(&[0, 1, b'v']);
            }
        }
    }
    out
}

/// The identifiers of properties that may stand in a packet; `None` if they may not.
fn naive(mut rest: &[u8], packet: u8) -> Option<Vec<u8>> {
    fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
        let (head, tail) = rest.split_at_checked(n)?;
        *rest = tail;
        Some(head)
    }
    fn data<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let len = take(rest, 2)?;
        take(rest, usize::from(len[0]) << 8 | usize::from(len[1]))
    }
    fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
        let text = core::str::from_utf8(data(rest)?).ok()?;
        text.chars().all(is_character).then_some(text)
    }
    // No property there is has these numbers.
    if matches!(packet, 12 | 13) && !rest.is_empty() {
        return None;
    }
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let id = take(&mut rest, 1)?[0];
        let &(_, kind, packets) = TABLE.iter().find(|(known, ..)| *known == id)?;
        let fits = match kind {
            Kind::Flag => take(&mut rest, 1)?[0] <= 1,
            Kind::Two => take(&mut rest, 2).is_some(),
            Kind::TwoNotZero => take(&mut rest, 2)? != [0; 2],
            Kind::Four => take(&mut rest, 4).is_some(),
            Kind::FourNotZero => take(&mut rest, 4)? != [0; 4],
            Kind::VarintNotZero => {
                let (value, used) = read_varint(rest).ok()??;
                rest = &rest[used..];
                value != 0
            }
            Kind::Text => text(&mut rest).is_some(),
            Kind::Topic => {
                text(&mut rest).is_some_and(|topic| !topic.is_empty() && !topic.contains(['+', '#']))
            }
            Kind::Data => data(&mut rest).is_some(),
            Kind::Pair => text(&mut rest).and_then(|_| text(&mut rest)).is_some(),
        };
        let repeats = id == 0x26 || id == 0x0b && packet == 3;
        if !fits || !packets.contains(&packet) || ids.contains(&id) && !repeats {
            return None;
        }
        ids.push(id);
    }
    (!ids.contains(&0x16) || ids.contains(&0x15)).then_some(ids)
}

fn check_packets(version: Version, data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(frame)) = Frame::parse(rest, MAX_PACKET) {
        rest = &rest[frame.raw.len()..];
        if let Ok(packet) = Packet::decode(version, frame) {
            check_again(version, &packet);
        }
    }
}

/// Encoding and decoding gives the packet again, and encoding that the same bytes.
fn check_again(version: Version, packet: &Packet<'_>) {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).expect("what was decoded can be encoded");
    let frame = Frame::parse(&bytes, u32::MAX).ok().flatten().expect("what was encoded is a frame");
    assert_eq!(frame.raw.len(), bytes.len(), "the length is right");
    let again = Packet::decode(version, frame).expect("what was encoded can be decoded");
    assert_eq!(*packet, again, "the packet survives");
    match again {
        Packet::Subscribe(subscribe) => assert_eq!(subscribe.filters().count(), subscribe.len()),
        Packet::Unsubscribe(unsubscribe) => assert_eq!(unsubscribe.filters().count(), unsubscribe.len()),
        _ => {}
    }
}

/// What a framer makes of `data` when it arrives in pieces of at most `size` bytes.
fn frames(data: &[u8], size: usize) -> (Vec<Vec<u8>>, bool, usize) {
    let mut framer = Framer::default();
    let mut found = Vec::new();
    for piece in data.chunks(size) {
        let mut rest = piece;
        loop {
            let Ok(step) = framer.next(rest, MAX_PACKET) else { return (found, true, 0) };
            rest = &rest[step.used..];
            match step.frame {
                Some(frame) => found.push(frame.raw.to_vec()),
                None => break,
            }
        }
        assert!(rest.is_empty(), "without a frame all input is used");
        assert!(framer.buffered() <= data.len(), "the framer keeps what arrived");
    }
    (found, false, framer.buffered())
}
