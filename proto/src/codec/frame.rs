//! Cutting a byte stream into packets.
//!
//! Whole packets are borrowed from the input. Only the cut tail of one packet is ever copied; its buffer grows
//! with the bytes that arrive, never with the length a peer promises, and is freed with the packet.

use crate::unseen::Unseen;
use alloc::vec::Vec;
use core::fmt;

use super::wire::read_varint;
use super::{DecodeError, PacketType, ReasonCode, Version};

/// One packet, not looked into yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The first byte: packet type and flags.
    pub first: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// The whole packet, with the fixed header.
    pub raw: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The packet at the start of `input`, or `None` when it is cut off; `max_packet` as in [`Framer::next`].
    #[inline]
    pub fn parse(input: &'a [u8], max_packet: u32) -> Result<Option<Frame<'a>>, DecodeError> {
        let Some(header) = Header::parse(input, max_packet)? else { return Ok(None) };
        Ok(header.cut(input))
    }

    /// The packet type, `None` for the reserved type 0, which a [`Framer`] never gives.
    #[inline]
    pub fn packet_type(&self) -> Option<PacketType> {
        PacketType::from_u8(self.first >> 4)
    }

    /// The four flag bits of the first byte.
    #[inline]
    pub fn flags(&self) -> u8 {
        self.first & 0x0f
    }

    /// Checks the flags of every packet but PUBLISH.
    #[inline]
    pub(super) fn check_flags(&self, version: Version, expected: u8) -> Result<(), DecodeError> {
        // MQTT 3.1 lets PUBREL, SUBSCRIBE and UNSUBSCRIBE be sent again with DUP, as it does PUBLISH.
        let ignored = if version == Version::V3_1 && expected != 0 { 0x08 } else { 0 };
        // [MQTT-2.1.3-1], 3.1.1: [MQTT-2.2.2-2]
        if self.flags() & !ignored != expected {
            return Err(DecodeError::malformed("the flags of the fixed header are wrong", "MQTT-2.1.3-1"));
        }
        Ok(())
    }
}

impl fmt::Debug for Frame<'_> {
    /// Leaves the bytes out, which may be those of a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:02x}, {:?})", self.first, Unseen(self.raw))
    }
}

/// What a [`Framer`] made of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// How many bytes of the input were consumed. All of them when there is no frame.
    pub used: usize,
    /// The next packet, or `None` when the input ends before it does.
    pub frame: Option<Frame<'a>>,
}

/// Finds the packets of a byte stream that arrives in pieces of any size.
///
/// Call [`Framer::next`] with what was read, then again with what the step left over, until it gives no frame.
/// After an error the stream has lost its packet boundaries and must be closed.
#[derive(Default)]
pub struct Framer {
    tail: Vec<u8>,
    // The packet in `tail` was complete and has been given out.
    given: bool,
}

impl fmt::Debug for Framer {
    /// Leaves the bytes out, which may be those of a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Framer({:?})", Unseen(&self.tail))
    }
}

impl Framer {
    /// The next packet of the stream.
    ///
    /// `max_packet` bounds the whole packet, fixed header included; a longer one is refused as soon as its
    /// length is known. The frame borrows from `input`, or from the framer when the packet began in an earlier
    /// call.
    #[inline]
    pub fn next<'a>(&'a mut self, input: &'a [u8], max_packet: u32) -> Result<Step<'a>, DecodeError> {
        if self.tail.is_empty()
            && let Some(frame) = Frame::parse(input, max_packet)?
        {
            return Ok(Step { used: frame.raw.len(), frame: Some(frame) });
        }
        self.next_cut(input, max_packet)
    }

    /// Whether no packet has begun that is not complete.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.buffered() == 0
    }

    /// How many bytes of an incomplete packet are held.
    #[inline]
    pub fn buffered(&self) -> usize {
        if self.given { 0 } else { self.tail.len() }
    }

    /// A packet that began earlier, or ends later.
    #[cold]
    fn next_cut<'a>(&'a mut self, input: &'a [u8], max_packet: u32) -> Result<Step<'a>, DecodeError> {
        if self.given {
            *self = Framer::default();
            if let Some(frame) = Frame::parse(input, max_packet)? {
                return Ok(Step { used: frame.raw.len(), frame: Some(frame) });
            }
        }
        let mut used = 0;
        let header = loop {
            if let Some(header) = Header::parse(&self.tail, max_packet)? {
                break header;
            }
            let Some(&byte) = input.get(used) else { return Ok(Step { used, frame: None }) };
            self.tail.push(byte);
            used += 1;
        };
        let missing = header.total.saturating_sub(self.tail.len());
        let arrived = &input[used..][..missing.min(input.len() - used)];
        self.append(arrived, header.total);
        used += arrived.len();
        let frame = header.cut(&self.tail);
        self.given = frame.is_some();
        Ok(Step { used, frame })
    }

    /// Doubles the buffer as it fills, but does not go beyond the packet.
    fn append(&mut self, bytes: &[u8], total: usize) {
        let need = self.tail.len() + bytes.len();
        if need > self.tail.capacity() {
            let target = need.max(self.tail.capacity() * 2).min(total);
            self.tail.reserve_exact(target - self.tail.len());
        }
        self.tail.extend_from_slice(bytes);
    }
}

/// A fixed header.
#[derive(Clone, Copy)]
struct Header {
    first: u8,
    len: usize,
    total: usize,
}

impl Header {
    #[inline]
    fn parse(input: &[u8], max_packet: u32) -> Result<Option<Header>, DecodeError> {
        let Some((&first, rest)) = input.split_first() else { return Ok(None) };
        if first < 0x10 {
            return Err(DecodeError::protocol("packet type 0 is reserved", "MQTT 2.1.2"));
        }
        let (remaining, len) = match rest.first() {
            Some(&byte) if byte < 0x80 => (u32::from(byte), 2),
            _ => match read_varint(rest).map_err(DecodeError::quietly)? {
                Some((remaining, used)) => (remaining, 1 + used),
                None => return Ok(None),
            },
        };
        // A Remaining Length has 28 bits: no overflow.
        let total = remaining + len as u32;
        if total > max_packet {
            return Err(too_large());
        }
        Ok(Some(Header { first, len, total: total as usize }))
    }

    #[inline]
    fn cut<'a>(&self, input: &'a [u8]) -> Option<Frame<'a>> {
        let raw = input.get(..self.total)?;
        Some(Frame { first: self.first, body: raw.get(self.len..)?, raw })
    }
}

#[cold]
fn too_large() -> DecodeError {
    DecodeError::protocol("the packet is larger than the maximum packet size", "MQTT 3.1.2.11.4")
        .with_reason(ReasonCode::PacketTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_the_bytes_that_arrive() {
        let mut framer = Framer::default();
        // A promise of 256 MB.
        framer.next(b"\x30\xff\xff\xff\x7f", u32::MAX).unwrap();
        for arrived in 6..5000 {
            assert_eq!(framer.next(b"x", u32::MAX).unwrap(), Step { used: 1, frame: None });
            assert_eq!(framer.buffered(), arrived);
            assert!(framer.tail.capacity() <= (2 * arrived).max(16));
        }
    }

    #[test]
    fn idle_means_no_heap() {
        let mut framer = Framer::default();
        framer.next(b"\x30\x05\0\x01t", 100).unwrap();
        let step = framer.next(b"xy\xc0\0", 100).unwrap();
        assert_eq!((step.used, step.frame.unwrap().raw), (2, &b"\x30\x05\0\x01txy"[..]));
        // No packet is buffered beyond its end, and the buffer goes with the next call.
        assert_eq!((framer.tail.capacity(), framer.buffered()), (8, 0));
        assert!(framer.next(b"\xc0\0", 100).unwrap().frame.is_some());
        assert_eq!(framer.tail.capacity(), 0);
    }
}
