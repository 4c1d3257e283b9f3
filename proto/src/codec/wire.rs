//! The data types all packets are made of: integers, variable byte integers, strings, binary data.

use alloc::vec::Vec;

use super::{DecodeError, EncodeError, Properties, Version};

/// The largest value of a variable byte integer, and so of a Remaining Length.
pub const VARINT_MAX: u32 = 268_435_455;

/// How many bytes the variable byte integer `value` takes: 1 to 4.
#[inline]
pub const fn varint_len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends `value` as a variable byte integer. A value above [`VARINT_MAX`] loses its high bits; callers check.
#[inline]
pub fn put_varint(value: u32, out: &mut Vec<u8>) {
    let mut rest = value & VARINT_MAX;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads a variable byte integer at the start of `input`: its value and length, or `None` when it is cut off.
#[inline]
pub fn read_varint(input: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (i, &byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]
            if byte == 0 && i > 0 {
                return Err(DecodeError::malformed(
                    "a variable byte integer is not in its shortest form",
                    "MQTT-1.5.5-1",
                ));
            }
            return Ok(Some((value, i + 1)));
        }
    }
    if input.len() < 4 {
        return Ok(None);
    }
    Err(DecodeError::malformed("a variable byte integer is longer than four bytes", "MQTT-1.5.5-1"))
}

/// Appends `text` with its length before it.
#[inline]
pub fn put_string(text: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if !is_plain::<ANY>(text.as_bytes()) && !all_characters(text) {
        let nul = text.as_bytes().contains(&0);
        return Err(if nul { EncodeError::StringHasNul } else { EncodeError::StringHasControl });
    }
    put_binary(text.as_bytes(), out)
}

/// Appends `data` with its length before it.
#[inline]
pub fn put_binary(data: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let len = u16::try_from(data.len()).map_err(|_| EncodeError::StringTooLong)?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(data);
    Ok(())
}

/// Appends a fixed header: the first byte of a packet and its Remaining Length.
#[inline]
pub(super) fn put_header(first: u8, remaining: u32, out: &mut Vec<u8>) {
    // All at once: each piece looks for room.
    match remaining {
        0..0x80 => out.extend_from_slice(&[first, remaining as u8]),
        0x80..0x4000 => out.extend_from_slice(&[first, remaining as u8 | 0x80, (remaining >> 7) as u8]),
        _ => {
            out.push(first);
            put_varint(remaining, out);
        }
    }
}

/// Appends a packet: its first byte, the Remaining Length and what `body` appends. On error `out` is as before.
pub(super) fn put_packet(
    first: u8,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[first, 0]);
    let result = body(out).and_then(|()| set_length(start, out));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Writes the Remaining Length over the one byte kept for it, and makes room where it needs more.
fn set_length(start: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let body = start + 2;
    let len = out.len() - body;
    if len < 0x80 {
        out[start + 1] = len as u8;
        return Ok(());
    }
    let len = u32::try_from(len).ok().filter(|&len| len <= VARINT_MAX).ok_or(EncodeError::PacketTooLarge)?;
    let more = varint_len(len) - 1;
    let end = out.len();
    out.resize(end + more, 0);
    out.copy_within(body..end, body + more);
    let mut rest = len;
    for byte in &mut out[start + 1..=start + more] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[start + 1 + more] = rest as u8;
    Ok(())
}

/// Appends the property length, 0 for none [MQTT-2.2.2-1], and the properties, where the version has them.
#[inline(always)]
pub(super) fn put_properties(
    version: Version,
    properties: Properties<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if !version.is_v5() {
        return Ok(());
    }
    if properties.is_empty() {
        out.push(0);
        return Ok(());
    }
    put_some_properties(properties.raw(), out)
}

#[inline(never)]
fn put_some_properties(raw: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let len = u32::try_from(raw.len()).ok().filter(|&len| len <= VARINT_MAX);
    put_varint(len.ok_or(EncodeError::PacketTooLarge)?, out);
    out.extend_from_slice(raw);
    Ok(())
}

/// Appends a packet identifier, which is never zero.
#[inline]
pub(super) fn put_packet_id(packet_id: u16, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if packet_id == 0 {
        return Err(EncodeError::PacketIdZero);
    }
    out.extend_from_slice(&packet_id.to_be_bytes());
    Ok(())
}

/// A cursor over the body of a packet.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl core::fmt::Debug for Reader<'_> {
    /// Leaves the bytes out, which may be those of a password.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Reader({:?})", crate::unseen::Unseen(self.rest))
    }
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(rest: &'a [u8]) -> Self {
        Reader { rest }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Moves over a zero byte, if that is next.
    #[inline]
    pub fn skip_zero(&mut self) -> bool {
        let [0, rest @ ..] = self.rest else { return false };
        self.rest = rest;
        true
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&value, rest) = self.rest.split_first().ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(value)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*value))
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*value))
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, used) = read_varint(self.rest)?.ok_or(TOO_SHORT)?;
        self.rest = &self.rest[used..];
        Ok(value)
    }

    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (value, rest) = self.rest.split_at_checked(len).ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(value)
    }

    #[inline]
    pub fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    #[inline]
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        text(self.binary()?)
    }

    /// A string of at least one character.
    #[inline]
    pub fn filter(&mut self) -> Result<&'a str, DecodeError> {
        match self.string()? {
            // [MQTT-4.7.3-1]
            "" => Err(DecodeError::malformed("a topic filter is empty", "MQTT-4.7.3-1")),
            filter => Ok(filter),
        }
    }

    /// A packet identifier where one is required.
    #[inline]
    pub fn packet_id(&mut self, clause: &'static str) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::protocol("the packet identifier is zero", clause)),
            id => Ok(id),
        }
    }

    /// The packet identifier of a SUBSCRIBE or UNSUBSCRIBE.
    #[inline]
    pub fn request_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::malformed("the packet identifier is zero", "MQTT-2.2.1-3")),
            id => Ok(id),
        }
    }

    /// Nothing may be left.
    #[inline]
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::malformed("the packet is longer than its content", "MQTT 2.1.4"))
    }
}

const TOO_SHORT: DecodeError =
    DecodeError::malformed("the packet ends before its content does", "MQTT 2.1.4");

/// Well-formed UTF-8 without control characters and code points that are no characters.
#[inline]
pub(super) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    match core::str::from_utf8(bytes) {
        Ok(text) if is_plain::<ANY>(bytes) || all_characters(text) => Ok(text),
        _ => Err(wrong_text(bytes)),
    }
}

/// A string that may be a topic name: without wildcards. It may be empty.
#[inline(always)]
pub(super) fn topic_name<'a>(bytes: &'a [u8], clause: &'static str) -> Result<&'a str, DecodeError> {
    match core::str::from_utf8(bytes) {
        Ok(text) if is_plain::<TOPIC_NAME>(bytes) || no_wildcards(text) && all_characters(text) => Ok(text),
        Ok(text) if all_characters(text) => {
            Err(DecodeError::malformed("a topic name contains a wildcard character", clause))
        }
        _ => Err(wrong_text(bytes)),
    }
}

#[cold]
fn wrong_text(bytes: &[u8]) -> DecodeError {
    // [MQTT-1.5.4-2], 3.1.1: [MQTT-1.5.3-2]
    if bytes.contains(&0) {
        return HAS_NUL;
    }
    // [MQTT-1.5.4-1], 3.1.1: [MQTT-1.5.3-1]
    let control = bytes.iter().any(u8::is_ascii_control) || core::str::from_utf8(bytes).is_ok();
    if control { HAS_CONTROL } else { ILL_FORMED }
}

const HAS_NUL: DecodeError = DecodeError::malformed("a string contains the null character", "MQTT-1.5.4-2");
const ILL_FORMED: DecodeError = DecodeError::malformed("a string is not well-formed UTF-8", "MQTT-1.5.4-1");
// A receiver may refuse these.
const HAS_CONTROL: DecodeError =
    DecodeError::malformed("a string contains a control character or what is no character", "MQTT 1.5.4");

/// Whether strings may have this code point: neither a control character (U+0000 to U+001F, U+007F to U+009F) nor one
/// that is no character (U+FDD0 to U+FDEF, and the last two of every plane).
pub(crate) fn is_character(c: char) -> bool {
    let code = u32::from(c);
    !c.is_control() && !matches!(code, 0xfdd0..=0xfdef) && code & 0xfffe != 0xfffe
}

#[inline(never)]
fn no_wildcards(text: &str) -> bool {
    !text.bytes().any(|byte| byte == b'+' || byte == b'#')
}

/// Whether a string has nothing but characters.
#[inline(never)]
fn all_characters(text: &str) -> bool {
    // Their first bytes, which most strings have none of.
    let suspicious = text
        .bytes()
        .fold(false, |found, byte| found | byte.is_ascii_control() | (byte == 0xc2) | (byte >= 0xef));
    !suspicious || text.chars().all(is_character)
}

/// For [`is_plain`]: strings that may have wildcards, and those that may not.
const ANY: bool = true;
const TOPIC_NAME: bool = false;

/// Whether there is nothing but ASCII without control characters, and, where they may not be, without wildcards.
/// Most strings are that.
#[inline(always)]
fn is_plain<const WILDCARDS: bool>(bytes: &[u8]) -> bool {
    // The last sixteen overlap those before them, so that there is no tail.
    let Some(last) = bytes.last_chunk() else { return all_plain::<WILDCARDS>(&padded(bytes)) };
    all_plain::<WILDCARDS>(last) && bytes.as_chunks().0.iter().all(all_plain::<WILDCARDS>)
}

/// Without a branch for a byte: the compiler makes vector instructions of it.
#[inline(always)]
fn all_plain<const WILDCARDS: bool>(bytes: &[u8; 16]) -> bool {
    bytes.iter().fold(true, |plain, &byte| {
        // As a signed number what is beyond ASCII is negative.
        let ascii = (byte as i8 >= 0x20) & (byte != 0x7f);
        // One bit tells `+` from `#`.
        let wildcard = byte | 0x08 == b'+';
        plain & ascii & (WILDCARDS | !wildcard)
    })
}

/// Fewer than sixteen bytes as sixteen: some stand twice, or spaces fill up.
#[inline(always)]
fn padded(bytes: &[u8]) -> [u8; 16] {
    let mut padded = [b' '; 16];
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        padded[..8].copy_from_slice(first);
        padded[8..].copy_from_slice(last);
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        padded[..4].copy_from_slice(first);
        padded[4..8].copy_from_slice(last);
    } else if let (Some(&first), Some(&middle), Some(&last)) =
        (bytes.first(), bytes.get(bytes.len() / 2), bytes.last())
    {
        padded[..3].copy_from_slice(&[first, middle, last]);
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn every_byte_is_looked_at_in_strings_of_all_lengths() {
        for len in 0..70 {
            let mut bytes = vec![b'a'; len];
            assert!(text(&bytes).is_ok() && topic_name(&bytes, "").is_ok());
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    bytes[at] = byte;
                    let printable = (0x20..0x7f).contains(&byte);
                    assert_eq!(text(&bytes).is_ok(), printable, "{byte:#x} at {at} of {len}");
                    let good = printable && byte != b'+' && byte != b'#';
                    assert_eq!(topic_name(&bytes, "").is_ok(), good, "{byte:#x} at {at} of {len}");
                    if let Ok(text) = core::str::from_utf8(&bytes) {
                        assert_eq!(put_string(text, &mut Vec::new()).is_ok(), printable);
                    }
                }
                bytes[at] = b'a';
            }
        }
    }
}
