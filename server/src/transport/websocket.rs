//! The frames of a WebSocket (RFC 6455), of the server's side.
//!
//! MQTT is a stream in binary frames, cut anywhere, so nothing is put together here: payloads are
//! unmasked and moved together in the buffer they arrived in. Only a cut header and a control frame
//! (at most 125 bytes) are held.

use std::io::Cursor;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// All is done.
pub(super) const CLOSE_NORMAL: u16 = 1000;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_UNSUPPORTED: u16 = 1003;

const HEADER_MAX: usize = 14;
const CONTROL_MAX: usize = 125;

/// One connection's state.
#[derive(Debug, Default)]
pub(super) struct WebSocket {
    /// A header that is cut.
    header: Vec<u8>,
    frame: Option<Frame>,
    /// A message has begun and not ended.
    in_message: bool,
    /// The payload of a control frame, as far as it has come.
    control: Vec<u8>,
    /// The answer to the last ping that has none.
    pong: Option<Vec<u8>>,
    close_sent: bool,
    /// How much of the frame that was begun is still to be written.
    unwritten: usize,
}

/// A frame that is arriving.
#[derive(Clone, Copy, Debug)]
struct Frame {
    control: Option<Control>,
    mask: [u8; 4],
    left: u64,
}

/// What became of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unwrapped {
    /// How many bytes of MQTT are at the front of the buffer.
    pub(super) bytes: usize,
    /// Nothing that comes after them counts.
    pub(super) ended: bool,
}

impl WebSocket {
    /// Moves the payloads in `buffer` together at its front. The last words, if there are any, go to `out`.
    pub(super) fn unwrap(&mut self, buffer: &mut [u8], out: &mut Vec<u8>) -> Unwrapped {
        let (mut at, mut to) = (0, 0);
        loop {
            let Some(frame) = &mut self.frame else {
                if at == buffer.len() || self.close_sent {
                    return Unwrapped { bytes: to, ended: self.close_sent };
                }
                match self.next_frame(&buffer[at..]) {
                    Ok(used) => at += used,
                    Err(code) => {
                        self.close(code, out);
                        return Unwrapped { bytes: to, ended: true };
                    }
                }
                continue;
            };
            let n = usize::try_from(frame.left).unwrap_or(usize::MAX).min(buffer.len() - at);
            unmask(&mut buffer[at..at + n], &mut frame.mask);
            frame.left -= n as u64;
            let done = frame.left == 0;
            match frame.control {
                None => {
                    buffer.copy_within(at..at + n, to);
                    to += n;
                }
                Some(_) => self.control.extend_from_slice(&buffer[at..at + n]),
            }
            at += n;
            if !done {
                return Unwrapped { bytes: to, ended: false };
            }
            let control = frame.control;
            self.frame = None;
            if let Some(control) = control
                && let Some(code) = self.on_control(control)
            {
                self.close(code, out);
                return Unwrapped { bytes: to, ended: true };
            }
        }
    }

    /// Begins a frame of `wanted` bytes, its header at the end of `out`, if none is begun. Returns how
    /// many bytes may be written now.
    pub(super) fn begin_frame(&mut self, wanted: usize, out: &mut Vec<u8>) -> usize {
        if self.unwritten == 0 && wanted > 0 {
            write_header(OpCode::Data(Data::Binary), wanted, out);
            self.unwritten = wanted;
        }
        self.unwritten.min(wanted)
    }

    /// So much of the frame is written.
    pub(super) fn on_payload_written(&mut self, bytes: usize) {
        self.unwritten = self.unwritten.saturating_sub(bytes);
    }

    pub(super) fn has_pong_to_write(&self) -> bool {
        self.unwritten == 0 && self.pong.is_some()
    }

    /// Adds the pong to `out`, if one is due and no frame is begun.
    pub(super) fn write_pong(&mut self, out: &mut Vec<u8>) {
        if self.unwritten == 0
            && let Some(pong) = self.pong.take()
        {
            write_header(OpCode::Control(Control::Pong), pong.len(), out);
            out.extend_from_slice(&pong);
        }
    }

    /// Adds a close frame to `out`, once. Inside a frame that is cut there is nothing to be said.
    pub(super) fn close(&mut self, code: u16, out: &mut Vec<u8>) {
        if !self.close_sent && self.unwritten == 0 {
            write_header(OpCode::Control(Control::Close), 2, out);
            out.extend_from_slice(&code.to_be_bytes());
        }
        self.close_sent = true;
        self.pong = None;
    }

    /// Takes a header, or what is there of one, from the front of `input`. Returns how long that was,
    /// or the code to close with.
    fn next_frame(&mut self, input: &[u8]) -> Result<usize, u16> {
        let held = self.header.len();
        if held == 0 {
            if let Some(used) = self.parse_header(input)? {
                return Ok(used);
            }
            self.header = input.to_vec();
            return Ok(input.len());
        }
        let mut header = std::mem::take(&mut self.header);
        header.extend_from_slice(&input[..input.len().min(HEADER_MAX - held)]);
        if let Some(used) = self.parse_header(&header)? {
            return Ok(used - held);
        }
        self.header = header;
        Ok(input.len())
    }

    fn parse_header(&mut self, input: &[u8]) -> Result<Option<usize>, u16> {
        let mut cursor = Cursor::new(&input[..input.len().min(HEADER_MAX)]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CLOSE_PROTOCOL)?;
        let Some((header, length)) = parsed else { return Ok(None) };
        // "the minimal number of bytes MUST be used to encode the length" (5.2)
        if cursor.position() != header.len(length) as u64 {
            return Err(CLOSE_PROTOCOL);
        }
        self.frame = Some(self.check(&header, length)?);
        Ok(Some(cursor.position() as usize))
    }

    fn check(&mut self, header: &FrameHeader, length: u64) -> Result<Frame, u16> {
        // No extension is ever agreed on; clients mask; the length is a signed number.
        if header.rsv1 || header.rsv2 || header.rsv3 || length > i64::MAX as u64 {
            return Err(CLOSE_PROTOCOL);
        }
        let mask = header.mask.ok_or(CLOSE_PROTOCOL)?;
        let control = match header.opcode {
            OpCode::Control(control) => {
                if !header.is_final || length > CONTROL_MAX as u64 {
                    return Err(CLOSE_PROTOCOL);
                }
                self.control.clear();
                return Ok(Frame { control: Some(control), mask, left: length });
            }
            OpCode::Data(Data::Binary) if !self.in_message => None,
            OpCode::Data(Data::Continue) if self.in_message => None,
            // [MQTT-6.0.0-1]
            OpCode::Data(Data::Text) if !self.in_message => return Err(CLOSE_UNSUPPORTED),
            OpCode::Data(_) => return Err(CLOSE_PROTOCOL),
        };
        self.in_message = !header.is_final;
        Ok(Frame { control, mask, left: length })
    }

    /// A control frame is there. Returns the code to close with, if it says so.
    fn on_control(&mut self, control: Control) -> Option<u16> {
        let payload = std::mem::take(&mut self.control);
        match control {
            Control::Ping => {
                // Of several pings that wait, the last is to be answered.
                self.pong = Some(payload);
                None
            }
            Control::Close => Some(close_code(&payload)),
            Control::Pong | Control::Reserved(_) => None,
        }
    }
}

/// The code that answers a close frame.
fn close_code(payload: &[u8]) -> u16 {
    match *payload {
        [] => CLOSE_NORMAL,
        [a, b, ref reason @ ..] => {
            let code = u16::from_be_bytes([a, b]);
            let legal = CloseCode::from(code).is_allowed() && std::str::from_utf8(reason).is_ok();
            if legal { code } else { CLOSE_PROTOCOL }
        }
        [_] => CLOSE_PROTOCOL,
    }
}

fn write_header(opcode: OpCode, length: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // A vector takes everything.
    let _ = header.format(length as u64, out);
}

/// Unmasks `bytes`, and turns the mask to where the next bytes need it.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    const WIDE: usize = 16;
    let wide: [u8; WIDE] = std::array::from_fn(|i| mask[i % 4]);
    let mut chunks = bytes.chunks_exact_mut(WIDE);
    for chunk in &mut chunks {
        for (byte, mask) in chunk.iter_mut().zip(wide) {
            *byte ^= mask;
        }
    }
    let rest = chunks.into_remainder();
    for (byte, mask) in rest.iter_mut().zip(wide) {
        *byte ^= mask;
    }
    mask.rotate_left(rest.len() % 4);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINARY: u8 = 0x82;
    const MASK: [u8; 4] = [0xA1, 0x02, 0xF3, 0x44];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            n @ ..=125 => bytes.push(0x80 | n as u8),
            n => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(n as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&MASK);
        bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ MASK[i % 4]));
        bytes
    }

    /// Feeds `input` in pieces of `cut`. Returns the payload, what is said, and whether it has ended.
    fn feed(input: &[u8], cut: usize) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut ws, mut payload, mut out) = (WebSocket::default(), vec![], vec![]);
        for piece in input.chunks(cut) {
            let mut piece = piece.to_vec();
            let unwrapped = ws.unwrap(&mut piece, &mut out);
            payload.extend_from_slice(&piece[..unwrapped.bytes]);
            if unwrapped.ended {
                return (payload, out, true);
            }
        }
        ws.write_pong(&mut out);
        (payload, out, false)
    }

    #[test]
    fn payloads_come_together_however_they_are_cut() {
        let long: Vec<u8> = (0..1000).map(|i| i as u8).collect();
        let input = [
            frame(BINARY, b"abc"),
            frame(BINARY, b""),
            frame(0x02, b"de"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x8A, b"unasked"),
            frame(0x80, b"f"),
            frame(BINARY, &long),
        ]
        .concat();
        let expected = [b"abcdef", &long[..]].concat();
        for cut in 1..input.len() + 1 {
            let (payload, out, ended) = feed(&input, cut);
            assert_eq!((payload == expected, &out[..], ended), (true, &b"\x8a\x04ping"[..], false), "{cut}");
        }
    }

    #[test]
    fn any_bytes_mean_the_same_whole_and_cut() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..5_000 {
            let mut input = Vec::new();
            for _ in 0..random(6) {
                let first =
                    [BINARY, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, random(256) as u8][random(8) as usize];
                let payload: Vec<u8> = (0..random(200)).map(|_| random(256) as u8).collect();
                input.extend(frame(first, &payload));
            }
            input.truncate(random(input.len() as u64 + 1) as usize);
            let whole = feed(&input, input.len().max(1));
            for cut in [1, 3, 100] {
                assert_eq!(feed(&input, cut), whole, "{input:02x?}");
            }
        }
    }

    #[test]
    fn rules_are_enforced() {
        let close = |code: u16| [&[0x88, 2][..], &code.to_be_bytes()].concat();
        let unmasked = vec![BINARY, 1, b'x'];
        let huge = [&[BINARY, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &MASK].concat();
        let long = |length: &[u8], n: usize| [&[BINARY], length, &MASK, &vec![0; n]].concat();
        let cases = [
            (long(&[0x80 | 126, 0, 125], 125), 1002),
            (long(&[0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 1], 1), 1002),
            (long(&[0x80 | 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], 65_535), 1002),
            (frame(0x81, b"text"), 1003),
            (frame(0xC2, b"rsv"), 1002),
            (frame(0x83, b"reserved opcode"), 1002),
            (frame(0x8B, b"reserved opcode"), 1002),
            (frame(0x80, b"continues nothing"), 1002),
            ([frame(0x02, b""), frame(BINARY, b"")].concat(), 1002),
            (frame(0x09, b"control frames are whole"), 1002),
            (frame(0x89, &[0; 126]), 1002),
            (unmasked, 1002),
            (huge, 1002),
            (frame(0x88, b""), 1000),
            (frame(0x88, &1001u16.to_be_bytes()), 1001),
            (frame(0x88, &4000u16.to_be_bytes()), 4000),
            (frame(0x88, &1005u16.to_be_bytes()), 1002),
            (frame(0x88, b"\x03"), 1002),
            (frame(0x88, b"\x03\xe8\xff"), 1002),
        ];
        for (bytes, code) in cases {
            let input = [frame(BINARY, b"before"), bytes.clone(), frame(BINARY, b"after")].concat();
            for cut in [1, 7, 1000] {
                let got = feed(&input, cut);
                let before = if code == 1002 && bytes[0] == 0x02 { &got.0[..6] } else { &got.0[..] };
                assert_eq!((before, &got.1, got.2), (&b"before"[..], &close(code), true), "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn a_pong_waits_for_the_end_of_a_frame() {
        let (mut ws, mut out) = (WebSocket::default(), vec![]);
        assert_eq!(ws.begin_frame(300, &mut out), 300);
        assert_eq!(out, [BINARY, 126, 1, 44]);
        ws.on_payload_written(100);
        out.clear();
        for ping in [b"1", b"2"] {
            ws.unwrap(&mut frame(0x89, ping), &mut out);
        }
        ws.write_pong(&mut out);
        assert!(out.is_empty() && !ws.has_pong_to_write());
        assert_eq!(ws.begin_frame(250, &mut out), 200, "what was begun comes first");
        ws.on_payload_written(200);
        assert!(ws.has_pong_to_write());
        ws.write_pong(&mut out);
        assert_eq!(out, b"\x8a\x012");
    }
}
