//! What must hold for any bytes at a listener: the body of a fuzz target.

use super::detect::{Detected, Gate};
use super::layered::Layered;
use super::plain::Socket;
use super::{Received, SLICES};
use crate::admission::Counts;
use crate::config::{ListenerSettings, Protocol, TlsSettings};
use hikyaku_proto::time::Instant;
use mio::net::UnixStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// What a listener with TLS needs.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// The worker's read buffer.
const BUFFER: usize = 64 << 10;
const HEAD_MAX: usize = 512;

/// Lets a connection send `data` but for its first three bytes, which say what listener that is and how the bytes are cut. Panics
/// when a layer does, when what it says is not HTTP, WebSocket or TLS, or when what comes through depends on the cuts.
///
/// `tls` are the files of the listeners with TLS, which are the same for the whole process.
pub fn check_transport(data: &[u8], tls: Option<&TlsFiles>) {
    let [first, cuts, writes, stream @ ..] = data else { return };
    let gates = gates(tls);
    let gate = &gates.plain[usize::from(first & 3)];
    let whole = converse(gate, &[stream], 0);
    let pieces = cut(stream, *cuts);
    let in_pieces = converse(gate, &pieces, 0);
    if !is_ambiguous(stream) {
        assert_eq!(in_pieces, whole, "it depends on the cuts");
    }
    converse(gate, &pieces, *writes);
    let Some(gate) = gates.tls.get(usize::from(first & 3)) else { return };
    match first >> 2 & 7 {
        0 => drop(converse(gate, &[stream], 0)),
        1 => drop(converse(gate, &pieces, *writes)),
        2..4 => {
            let tamper = (first & 4 != 0).then_some(usize::from(*writes) * 7);
            let inside = converse_inside_tls(gate, stream, *cuts, tamper);
            let Some(inside) = inside else { return };
            let expected = match gates.plain[usize::from(first & 3)].detect_inside(stream) {
                _ if is_ambiguous(stream) => return,
                Detected::Mqtt => stream,
                _ => &whole.payload,
            };
            match tamper {
                None => assert_eq!(inside, expected, "TLS changes what comes through"),
                Some(_) => assert!(expected.starts_with(&inside), "what was changed comes through"),
            }
        }
        _ => {}
    }
}

/// Whether the first byte alone looks like the beginning of a method, and both do not: no CONNECT begins like that.
fn is_ambiguous(stream: &[u8]) -> bool {
    matches!(stream, [a, b, ..] if a.is_ascii_uppercase() && !b.is_ascii_uppercase())
}

struct Gates {
    plain: Vec<Arc<Gate>>,
    tls: Vec<Arc<Gate>>,
}

fn gates(tls: Option<&TlsFiles>) -> &'static Gates {
    static GATES: OnceLock<Gates> = OnceLock::new();
    let make = |settings: ListenerSettings| {
        let mut problems = Vec::new();
        let gate = Gate::new(&settings, None, &mut problems);
        Arc::new(gate.unwrap_or_else(|| panic!("{problems:?}")))
    };
    GATES.get_or_init(|| {
        let base = ListenerSettings { websockets_headers_size: HEAD_MAX, ..ListenerSettings::default() };
        let all = [
            base.clone(),
            ListenerSettings { local_only_default: true, ..base.clone() },
            ListenerSettings { websockets_origins: vec!["http://a".into()], ..base.clone() },
            ListenerSettings { protocol: Some(Protocol::Websockets), ..base },
        ];
        let with_tls = |settings: &ListenerSettings, files: &TlsFiles| {
            let tls = TlsSettings::new(&files.certificate, &files.key);
            ListenerSettings { tls: Some(tls), ..settings.clone() }
        };
        Gates {
            plain: all.iter().cloned().map(make).collect(),
            tls: tls.iter().flat_map(|files| all.iter().map(|s| make(with_tls(s, files)))).collect(),
        }
    })
}

/// Pieces of one to 255 bytes; 0 is one of them.
fn cut(stream: &[u8], cuts: u8) -> Vec<&[u8]> {
    let mut state = u32::from(cuts);
    let mut rest = stream;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wanted = match cuts {
            0 => rest.len(),
            1 => 1,
            _ => 1 + (state >> 24) as usize % usize::from(cuts),
        };
        let (piece, tail) = rest.split_at(wanted.min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

/// What a conversation came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Talk {
    /// `None` if nothing was sent.
    detected: Option<Detected>,
    /// What came through to MQTT.
    payload: Vec<u8>,
    /// What was said, without pongs.
    answer: Vec<u8>,
    ended: bool,
    failed: Option<ErrorKind>,
}

/// A socket with layers, and its other end.
struct Line {
    layers: Layered,
    peer: UnixStream,
    buffer: Vec<u8>,
    written: Vec<u8>,
}

fn converse(gate: &Arc<Gate>, pieces: &[&[u8]], writes: u8) -> Talk {
    let mut talk = Talk::default();
    let Some((first, rest)) = pieces.split_first().filter(|(first, _)| !first.is_empty()) else {
        return talk;
    };
    let detected = gate.detect(first);
    talk.detected = Some(detected);
    if matches!(detected, Detected::Mqtt | Detected::Refused(_)) {
        return talk;
    }
    let mut line = Line::new(gate, detected, first);
    line.read(&mut talk);
    for piece in rest {
        if talk.ended || talk.failed.is_some() {
            break;
        }
        // A peer that has been told goodbye is no longer read.
        if line.peer.write(piece).is_err() {
            break;
        }
        line.read(&mut talk);
        line.say(usize::from(writes), &talk);
    }
    line.layers.shutdown(&mut line.buffer);
    let answer = line.heard();
    if detected == Detected::Tls {
        return talk;
    }
    talk.answer = check_answer(&answer, &line.written);
    talk
}

impl Line {
    fn new(gate: &Arc<Gate>, detected: Detected, first: &[u8]) -> Line {
        let ticket = Counts::new(1).of(0).enter(Instant::ZERO, None);
        let (Ok((ours, peer)), Ok(ticket)) = (UnixStream::pair(), ticket) else { panic!("no socket") };
        let layers = Layered::new(Socket::Unix(ours), ticket, Arc::clone(gate), detected, first.to_vec());
        let layers = layers.unwrap_or_else(|e| panic!("{e}"));
        Line { layers, peer, buffer: vec![0; BUFFER], written: Vec::new() }
    }

    /// Reads what there is.
    fn read(&mut self, talk: &mut Talk) {
        for _ in 0..1000 {
            assert!(self.layers.held() <= HEAD_MAX + BUFFER, "it holds more than it may");
            match self.layers.read(&mut self.buffer) {
                Ok(Received::Bytes { bytes, .. }) => talk.payload.extend_from_slice(&self.buffer[..bytes]),
                Ok(Received::Nothing) => return,
                Ok(Received::End) => return talk.ended = true,
                Err(e) => return talk.failed = Some(e.kind()),
            }
        }
        panic!("it reads for ever");
    }

    /// Writes some bytes, as a broker does to who has sent it something.
    fn say(&mut self, bytes: usize, talk: &Talk) {
        if talk.payload.is_empty() || talk.ended || talk.failed.is_some() || bytes == 0 {
            return;
        }
        let text: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
        let (a, b) = text.split_at(bytes / 3);
        let Ok(sent) = self.layers.write_vectored(&[IoSlice::new(a), IoSlice::new(b)]) else { return };
        assert!(sent.bytes <= bytes && SLICES > 2);
        self.written.extend_from_slice(&text[..sent.bytes]);
    }

    fn heard(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let _ = self.peer.read_to_end(&mut heard);
        heard
    }
}

/// Whether `answer` is HTTP, and then WebSocket with `written` in it; returns it without pongs, which answer the last ping alone.
fn check_answer(answer: &[u8], written: &[u8]) -> Vec<u8> {
    if answer.is_empty() {
        return Vec::new();
    }
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { panic!("no head of an answer") };
    let (head, mut frames) = answer.split_at(end + 4);
    assert!(head.starts_with(b"HTTP/1.1 "), "not HTTP");
    if !head.starts_with(b"HTTP/1.1 101 ") {
        return answer.to_vec();
    }
    let (mut heard, mut rest, mut closed) = (Vec::new(), head.to_vec(), false);
    while let [first, length, tail @ ..] = frames {
        assert!(!closed, "something follows the goodbye");
        let (length, tail) = match (length, tail) {
            (126, [a, b, tail @ ..]) => (usize::from(*a) << 8 | usize::from(*b), tail),
            (n @ ..126, tail) => (usize::from(*n), tail),
            _ => panic!("a frame that nobody writes"),
        };
        let (payload, after) = tail.split_at(length.min(tail.len()));
        match first {
            0x82 => heard.extend_from_slice(payload),
            0x8a => assert!(length <= 125 && payload.len() == length, "a pong that is cut"),
            0x88 => closed = true,
            _ => panic!("a frame of a kind that nobody writes"),
        }
        if *first != 0x8a {
            rest.extend_from_slice(&frames[..frames.len() - after.len()]);
        }
        frames = after;
    }
    assert!(frames.is_empty(), "half a header");
    assert_eq!(heard, written, "what was written is not what comes");
    rest
}

/// Sends `stream` through TLS, one byte of the records changed if `tamper` says so. Returns what came through to MQTT, if the handshake
/// was done.
fn converse_inside_tls(gate: &Arc<Gate>, stream: &[u8], cuts: u8, tamper: Option<usize>) -> Option<Vec<u8>> {
    static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CLIENT.get_or_init(|| {
        let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Trusting));
        Arc::new(config.with_no_client_auth())
    });
    let name = ServerName::try_from("localhost").ok()?;
    let mut client = ClientConnection::new(Arc::clone(config), name).ok()?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello).ok()?;
    let mut line = Line::new(gate, Detected::Tls, &hello);
    let mut talk = Talk::default();
    line.read(&mut talk);
    while client.is_handshaking() {
        assert!(talk.failed.is_none(), "a handshake fails: {:?}", talk.failed);
        client.read_tls(&mut line.peer).ok()?;
        client.process_new_packets().unwrap_or_else(|e| panic!("{e}"));
        let mut answer = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut answer).ok()?;
        }
        line.peer.write_all(&answer).ok()?;
        line.read(&mut talk);
    }
    let mut records = Vec::new();
    for piece in cut(stream, cuts.wrapping_mul(3)) {
        client.writer().write_all(piece).ok()?;
        while client.wants_write() {
            client.write_tls(&mut records).ok()?;
        }
    }
    if let Some(byte) = tamper.and_then(|at| records.get_mut(at)) {
        *byte ^= 0x40;
    }
    for piece in cut(&records, cuts) {
        if talk.ended || talk.failed.is_some() || line.peer.write(piece).is_err() {
            break;
        }
        line.read(&mut talk);
    }
    Some(talk.payload)
}

/// Takes any certificate.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
