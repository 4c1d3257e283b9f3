//! What a connection's bytes come to does not depend on how they are cut.

use super::{Rig, connect};
use crate::broker::Config;
use crate::codec::{Frame, Packet, Version};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Takes `data` as the bytes of one connection, behind a CONNECT if its first byte says so. Panics when the answers are others
/// where they come in pieces.
pub fn check_stream(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if first & 1 != 0 {
        bytes.splice(..0, connect(first >> 1, first));
    }
    let whole = answers(&bytes, bytes.len());
    for piece in [1, 2, 7, 61] {
        assert_eq!(answers(&bytes, piece), whole, "in pieces of {piece}");
    }
}

/// What is said, by kinds of packets: what is not acknowledged in the order of its coming may leave in another order.
fn answers(bytes: &[u8], piece: usize) -> (BTreeMap<u8, Vec<Vec<u8>>>, bool) {
    let mut rig = Rig::with(1, Config::default(), false);
    rig.pipes[0].said = Some(Vec::new());
    rig.open(0, &[]);
    rig.pipes[0].v5 = speaks_v5(bytes);
    for piece in bytes.chunks(piece.max(1)) {
        rig.send(0, piece);
        rig.settle();
    }
    let said = rig.pipes[0].said.take().unwrap_or_default();
    let mut kinds: BTreeMap<u8, Vec<Vec<u8>>> = BTreeMap::new();
    let mut rest = &said[..];
    while let Ok(Some(frame)) = Frame::parse(rest, u32::MAX) {
        kinds.entry(frame.first & 0xf6).or_default().push(frame.raw.to_vec());
        rest = &rest[frame.raw.len()..];
    }
    (kinds, rig.pipes[0].open)
}

fn speaks_v5(bytes: &[u8]) -> bool {
    let Ok(Some(frame)) = Frame::parse(bytes, u32::MAX) else { return false };
    matches!(Packet::decode(Version::V5, frame), Ok(Packet::Connect(c)) if c.version == Version::V5)
}
