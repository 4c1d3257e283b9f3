//! TLS, WebSocket or both around a socket.
//!
//! A read takes ciphertext into the worker's buffer, decrypts it towards the front, and unwraps frames
//! there, in place: no layer has a buffer of its own beyond what is cut. What layers have to say
//! themselves (answers to HTTP, pongs, frame headers) waits in `out`, in front of the outbox.

use super::detect::{Detected, Gate};
use super::http::{Answer, Head, answer};
use super::plain::Socket;
use super::tls::{HEADROOM, Tls};
use super::websocket::{CLOSE_NORMAL, WebSocket};
use super::{Received, SLICES, Sent, certificate};
use crate::admission::Ticket;
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// A socket and the layers around it.
pub(crate) struct Layered {
    socket: Socket,
    /// Held until it is dropped, after the socket.
    _ticket: Ticket,
    gate: Arc<Gate>,
    /// Read before the layers were there: it goes first.
    unread: Vec<u8>,
    tls: Option<Box<Tls>>,
    inside: Inside,
    /// To be written, inside TLS, before anything else.
    out: Vec<u8>,
    goodbye: Goodbye,
    /// Nothing else is read: the next read says so.
    ended: bool,
    /// Why the peer was turned away, until that is logged.
    refusal: Option<Box<str>>,
}

/// How far the end of what is said has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    No,
    /// Nothing is said once `out` is written.
    Wanted,
    /// TLS has said so.
    Said,
    /// The socket has.
    Done,
}

/// What is spoken, inside TLS if there is TLS.
enum Inside {
    /// Nothing has come yet.
    Unknown,
    Mqtt,
    Http(Head),
    WebSocket(Box<WebSocket>),
    /// All is said; whatever comes is ignored until the peer closes or its time is over. To close at
    /// once could take the answer from the peer's buffer before it is read.
    Done,
}

impl Layered {
    pub(super) fn new(
        socket: Socket,
        ticket: Ticket,
        gate: Arc<Gate>,
        detected: Detected,
        unread: Vec<u8>,
    ) -> io::Result<Self> {
        let mut tls = None;
        let inside = match detected {
            Detected::Tls => {
                let acceptor = gate.acceptor.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
                tls = Some(Box::new(Tls::new(acceptor.config())?));
                Inside::Unknown
            }
            Detected::Http => Inside::Http(Head::new(false)),
            Detected::HttpWithoutTls => Inside::Http(Head::new(true)),
            Detected::Mqtt => Inside::Mqtt,
            Detected::Refused(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
        };
        let out = Vec::new();
        Ok(Layered {
            socket,
            _ticket: ticket,
            gate,
            unread,
            tls,
            inside,
            out,
            goodbye: Goodbye::No,
            ended: false,
            refusal: None,
        })
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        if self.ended {
            return Ok(Received::End);
        }
        let start = if self.tls.is_some() { HEADROOM } else { 0 };
        let Received::Bytes { bytes, more } = self.fill(&mut buffer[start..])? else {
            self.flush()?;
            return self.fill_nothing();
        };
        let bytes = match self.unwrap(buffer, bytes) {
            Ok(bytes) => bytes,
            Err(e) => {
                // TLS has something to say to that.
                self.shutdown(buffer);
                return Err(e);
            }
        };
        if self.ended {
            self.shutdown(&mut buffer[bytes..]);
        } else {
            self.flush()?;
        }
        Ok(Received::Bytes { bytes, more: more || self.ended })
    }

    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let wanted = slices.iter().map(|s| s.len()).sum();
        if !self.flush()? {
            return Ok(Sent { bytes: 0, full: true });
        }
        if matches!(self.inside, Inside::Http(_) | Inside::Done) || self.ended {
            return Ok(Sent { bytes: wanted, full: false });
        }
        // A frame that was begun has to be filled first.
        let allowed = match &mut self.inside {
            Inside::WebSocket(ws) => ws.begin_frame(wanted, &mut self.out),
            _ => wanted,
        };
        let header = self.out.len();
        let mut all = [IoSlice::new(&[]); SLICES + 1];
        all[0] = IoSlice::new(&self.out);
        let used = 1 + cut(slices, allowed, &mut all[1..]);
        let all = if header == 0 { &all[1..used] } else { &all[..used] };
        let sent = match &mut self.tls {
            Some(tls) => {
                let bytes = tls.encrypt(all)?;
                let full = !tls.flush(&mut self.socket)?;
                Sent { bytes, full }
            }
            None => self.socket.write_vectored(all)?,
        };
        let bytes = sent.bytes.saturating_sub(header);
        self.forget_out(sent.bytes.min(header));
        if let Inside::WebSocket(ws) = &mut self.inside {
            ws.on_payload_written(bytes);
        }
        // A pong may have waited for the end of the frame.
        let full = sent.full || (self.has_pending() && !self.flush()?);
        Ok(Sent { bytes, full })
    }

    pub(super) fn has_pending(&self) -> bool {
        let pong = matches!(&self.inside, Inside::WebSocket(ws) if ws.has_pong_to_write());
        pong || !self.out.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.has_pending())
    }

    pub(super) fn flush(&mut self) -> io::Result<bool> {
        loop {
            if let Inside::WebSocket(ws) = &mut self.inside {
                ws.write_pong(&mut self.out);
            }
            if self.out.is_empty() {
                break;
            }
            let out = [IoSlice::new(&self.out)];
            let sent = match &mut self.tls {
                Some(tls) => Sent { bytes: tls.encrypt(&out)?, full: !tls.flush(&mut self.socket)? },
                None => self.socket.write_vectored(&out)?,
            };
            self.forget_out(sent.bytes);
            if sent.full {
                return Ok(false);
            }
        }
        if let Some(tls) = &mut self.tls {
            if self.goodbye == Goodbye::Wanted {
                self.goodbye = Goodbye::Said;
                tls.say_goodbye();
            }
            if !tls.flush(&mut self.socket)? {
                return Ok(false);
            }
        }
        if matches!(self.goodbye, Goodbye::Wanted | Goodbye::Said) {
            self.goodbye = Goodbye::Done;
            self.socket.shutdown_write();
        }
        Ok(true)
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    pub(super) fn held(&self) -> usize {
        let handshake = self.tls.as_ref().map_or(0, |tls| tls.handshake_bytes());
        let head = if let Inside::Http(head) = &self.inside { head.len() } else { 0 };
        self.unread.len() + handshake + head
    }

    pub(super) fn identity(&self) -> Result<Option<Box<str>>, &'static str> {
        let (Some(tls), Some(acceptor)) = (&self.tls, &self.gate.acceptor) else { return Ok(None) };
        let Some(naming) = acceptor.naming() else { return Ok(None) };
        // Who is to be named by one, and shows none, is refused at the CONNECT.
        let Some(certificate) = tls.peer_certificate() else { return Ok(None) };
        let name = certificate::name(certificate, naming)
            .ok_or("its certificate has no name to be the user name")?;
        Ok(Some(name.into()))
    }

    pub(super) fn shutdown(&mut self, scratch: &mut [u8]) {
        if let Inside::WebSocket(ws) = &mut self.inside {
            ws.close(CLOSE_NORMAL, &mut self.out);
        }
        self.say_no_more();
        self.ended = true;
        let _ = self.flush();
        self.socket.shutdown(scratch);
    }

    pub(super) fn take_refusal(&mut self) -> Option<Box<str>> {
        self.refusal.take()
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Takes what is unread, or else what the socket has.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        if self.unread.is_empty() {
            return self.socket.read(buffer).inspect(|r| {
                if matches!(r, Received::End) {
                    self.ended = true;
                }
            });
        }
        let bytes = self.unread.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&self.unread[..bytes]);
        if bytes == self.unread.len() {
            self.unread = Vec::new();
        } else {
            self.unread.drain(..bytes);
        }
        Ok(Received::Bytes { bytes, more: true })
    }

    fn fill_nothing(&self) -> io::Result<Received> {
        Ok(if self.ended { Received::End } else { Received::Nothing })
    }

    /// Turns `bytes` that came into MQTT's, at the front of `buffer`.
    fn unwrap(&mut self, buffer: &mut [u8], bytes: usize) -> io::Result<usize> {
        let mut bytes = bytes;
        if matches!(self.goodbye, Goodbye::Said | Goodbye::Done) {
            return Ok(0);
        }
        if let Some(tls) = &mut self.tls {
            let decrypted = tls.decrypt(buffer, bytes)?;
            bytes = decrypted.bytes;
            self.ended = decrypted.ended;
        }
        if let (Inside::Unknown, true) = (&self.inside, bytes > 0) {
            self.inside = match self.gate.detect_inside(&buffer[..bytes]) {
                Detected::Http => Inside::Http(Head::new(false)),
                Detected::Refused(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
                _ => Inside::Mqtt,
            };
        }
        if let Inside::Http(_) = self.inside {
            bytes = self.on_http(buffer, bytes);
        }
        match &mut self.inside {
            Inside::Unknown | Inside::Mqtt => Ok(bytes),
            Inside::Http(_) | Inside::Done => Ok(0),
            Inside::WebSocket(ws) => {
                let unwrapped = ws.unwrap(&mut buffer[..bytes], &mut self.out);
                self.ended |= unwrapped.ended;
                Ok(unwrapped.bytes)
            }
        }
    }

    /// Reads the head of a request. What follows it moves to the front.
    fn on_http(&mut self, buffer: &mut [u8], bytes: usize) -> usize {
        let Inside::Http(head) = &mut self.inside else { return bytes };
        let Some(used) = head.take(&buffer[..bytes], self.gate.head_bytes_max) else { return 0 };
        match answer(head, &self.gate) {
            Answer::Upgrade(response) => {
                self.out = response;
                self.inside = Inside::WebSocket(Box::default());
                buffer.copy_within(used..bytes, 0);
                bytes - used
            }
            Answer::Page(response, refusal) => {
                self.refusal = refusal;
                self.out = response;
                self.inside = Inside::Done;
                self.say_no_more();
                0
            }
        }
    }

    fn say_no_more(&mut self) {
        if self.goodbye == Goodbye::No {
            self.goodbye = Goodbye::Wanted;
        }
    }

    fn forget_out(&mut self, bytes: usize) {
        if bytes == self.out.len() {
            self.out = Vec::new();
        } else {
            self.out.drain(..bytes);
        }
    }
}

/// The first `bytes` of `slices`, as slices in `to`. Returns how many.
fn cut<'a>(slices: &'a [IoSlice<'_>], mut bytes: usize, to: &mut [IoSlice<'a>]) -> usize {
    let mut used = 0;
    for (slice, to) in slices.iter().zip(to) {
        if bytes == 0 {
            break;
        }
        let slice = &slice[..slice.len().min(bytes)];
        bytes -= slice.len();
        *to = IoSlice::new(slice);
        used += 1;
    }
    used
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").field("socket", &self.socket).finish_non_exhaustive()
    }
}
