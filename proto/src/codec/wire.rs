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
    let found = scan(text.as_bytes());
    if found.control {
        let nul = text.as_bytes().contains(&0);
        return Err(if nul { EncodeError::StringHasNul } else { EncodeError::StringHasControl });
    }
    if found.high && !all_characters(text) {
        return Err(EncodeError::StringHasControl);
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
#[inline]
pub(super) fn put_properties(
    version: Version,
    properties: Properties<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if version.is_v5() {
        let len = u32::try_from(properties.raw().len()).ok().filter(|&len| len <= VARINT_MAX);
        put_varint(len.ok_or(EncodeError::PacketTooLarge)?, out);
        out.extend_from_slice(properties.raw());
    }
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
    read_text(bytes, &scan(bytes))
}

/// A string that may be a topic name: without wildcards. It may be empty.
#[inline]
pub(super) fn topic_name<'a>(bytes: &'a [u8], clause: &'static str) -> Result<&'a str, DecodeError> {
    let found = scan(bytes);
    let text = read_text(bytes, &found)?;
    if found.wildcard {
        return Err(DecodeError::malformed("a topic name contains a wildcard character", clause));
    }
    Ok(text)
}

#[inline]
fn read_text<'a>(bytes: &'a [u8], found: &Found) -> Result<&'a str, DecodeError> {
    if found.control {
        return Err(has_control(bytes));
    }
    // [MQTT-1.5.4-1], 3.1.1: [MQTT-1.5.3-1]
    let Ok(text) = core::str::from_utf8(bytes) else { return Err(ILL_FORMED) };
    if found.high && !all_characters(text) {
        return Err(HAS_CONTROL);
    }
    Ok(text)
}

const ILL_FORMED: DecodeError = DecodeError::malformed("a string is not well-formed UTF-8", "MQTT-1.5.4-1");
// A receiver may refuse these.
const HAS_CONTROL: DecodeError =
    DecodeError::malformed("a string contains a control character or what is no character", "MQTT 1.5.4");

#[cold]
fn has_control(bytes: &[u8]) -> DecodeError {
    // [MQTT-1.5.4-2], 3.1.1: [MQTT-1.5.3-2]
    if bytes.contains(&0) {
        return DecodeError::malformed("a string contains the null character", "MQTT-1.5.4-2");
    }
    HAS_CONTROL
}

/// Whether strings may have this code point: neither a control character (U+0000 to U+001F, U+007F to U+009F) nor one
/// that is no character (U+FDD0 to U+FDEF, and the last two of every plane).
pub(crate) fn is_character(c: char) -> bool {
    let code = u32::from(c);
    !c.is_control() && !matches!(code, 0xfdd0..=0xfdef) && code & 0xfffe != 0xfffe
}

/// Whether a string beyond ASCII has nothing but characters.
fn all_characters(text: &str) -> bool {
    // Their first bytes, which most strings have none of.
    let suspicious = text.bytes().fold(false, |found, byte| found | (byte == 0xc2) | (byte >= 0xef));
    !suspicious || text.chars().all(is_character)
}

struct Found {
    /// U+0000 to U+001F, or U+007F.
    control: bool,
    wildcard: bool,
    /// Something beyond ASCII.
    high: bool,
}

/// Looks for control characters, `+` and `#`, eight bytes at a time. In UTF-8 their bytes stand for nothing else.
#[inline]
fn scan(bytes: &[u8]) -> Found {
    let Some(last) = bytes.last_chunk::<8>() else { return look(u64::from_le_bytes(padded(bytes))) };
    // The last word overlaps the one before it, so that there is no tail.
    let mut found = look(u64::from_le_bytes(*last));
    for chunk in bytes.as_chunks::<8>().0 {
        let here = look(u64::from_le_bytes(*chunk));
        found.control |= here.control;
        found.wildcard |= here.wildcard;
        found.high |= here.high;
    }
    found
}

#[inline]
fn look(word: u64) -> Found {
    let wildcard = zero_byte(word ^ repeat(b'+')) | zero_byte(word ^ repeat(b'#'));
    // Below 0x20 the one borrows, at 0x7f the other carries; only beside 0xff, which UTF-8 has nowhere, does
    // that spread to a neighbour.
    let control = (word.wrapping_sub(repeat(0x20)) | word.wrapping_add(repeat(1))) & !word & repeat(0x80);
    Found { control: control != 0, wildcard: wildcard != 0, high: word & repeat(0x80) != 0 }
}

/// Fewer than eight bytes as eight: some stand twice, or spaces fill up.
#[inline]
fn padded(bytes: &[u8]) -> [u8; 8] {
    if let (Some(&[a, b, c, d]), Some(&[e, f, g, h])) = (bytes.first_chunk(), bytes.last_chunk()) {
        return [a, b, c, d, e, f, g, h];
    }
    let mut padded = [b' '; 8];
    if let (Some(&first), Some(&middle), Some(&last)) =
        (bytes.first(), bytes.get(bytes.len() / 2), bytes.last())
    {
        padded[..3].copy_from_slice(&[first, middle, last]);
    }
    padded
}

const fn repeat(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// Not zero when one of the bytes of `word` is.
#[inline]
const fn zero_byte(word: u64) -> u64 {
    word.wrapping_sub(repeat(0x01)) & !word & repeat(0x80)
}
