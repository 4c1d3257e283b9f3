//! What must hold for any bytes: the body of the fuzz target.

use alloc::vec::Vec;

use super::{Frame, Framer, Packet, Version};

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
