//! What carries a connection's bytes: a socket as it is, or TLS, WebSocket or both around it.
//!
//! The first byte decides which ([`Gate::detect`]). The worker reads it as it reads everything; if it
//! is not MQTT's, [`Transport::wrap`] puts the layers around the socket and they are fed what was read.

mod acceptor;
mod authority;
mod certificate;
#[cfg(unix)]
#[doc(hidden)]
pub mod check;
mod clients;
mod detect;
mod gates;
mod http;
mod layered;
mod plain;
mod tls;
mod websocket;

pub(crate) use detect::{Detected, Gate};
pub use gates::Certificates;
pub(crate) use gates::Gates;
pub(crate) use plain::Socket;

use crate::admission::Ticket;
use hikyaku_proto::outbox::Outbox;
use layered::Layered;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How many slices one write takes.
const SLICES: usize = 64;

/// A connected, non-blocking transport. It owns its socket and its place in the count of connections;
/// dropping it closes the one and gives the other back.
#[derive(Debug)]
pub(crate) enum Transport {
    /// TCP or a unix stream as it is.
    Plain(Socket, Ticket),
    /// In a box: most connections are plain, and idle, and there are many.
    Layered(Box<Layered>),
}

const _: () = assert!(size_of::<Transport>() <= 16 || cfg!(debug_assertions));

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes: none, if a layer kept what came. `more` says whether reading again may bring
    /// others without a new event.
    Bytes { bytes: usize, more: bool },
    /// Nothing is there; an event will come.
    Nothing,
    /// The peer has closed its side.
    End,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// How many bytes were taken.
    pub(crate) bytes: usize,
    /// Whether the transport takes no more for now; an event will come when it does.
    pub(crate) full: bool,
}

impl Transport {
    /// Puts what `detected` names around a plain socket, from which `read` was already read.
    pub(crate) fn wrap(self, gate: Arc<Gate>, detected: Detected, read: &[u8]) -> io::Result<Transport> {
        match self {
            Transport::Plain(socket, ticket) => {
                let layers = Layered::new(socket, ticket, gate, detected, read.to_vec())?;
                Ok(Transport::Layered(Box::new(layers)))
            }
            layered @ Transport::Layered(_) => Ok(layered),
        }
    }

    /// Reads once, into the front of `buffer`; all of it may be overwritten.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        match self {
            Transport::Plain(socket, _) => socket.read(buffer),
            Transport::Layered(layers) => guard(|| layers.read(buffer)),
        }
    }

    /// Writes once, as much of `slices` (at most [`SLICES`]) as fits.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        match self {
            Transport::Plain(socket, _) => socket.write_vectored(slices),
            Transport::Layered(layers) => guard(|| layers.write_vectored(slices)),
        }
    }

    /// Writes once, as many of `chunks` as one call takes.
    pub(crate) fn write<'a>(&mut self, chunks: &mut impl Iterator<Item = &'a [u8]>) -> io::Result<Sent> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = IoSlice::new(chunk);
            used += 1;
        }
        self.write_vectored(&slices[..used])
    }

    /// Writes what the transport takes at once; what it does not take is lost.
    pub(crate) fn write_all(&mut self, last: &Outbox) {
        let mut chunks = last.chunks().peekable();
        while chunks.peek().is_some() {
            if !self.write(&mut chunks).is_ok_and(|sent| !sent.full) {
                return;
            }
        }
    }

    /// Why the layers turned the peer away with an answer of their own, if it is to be logged; told once.
    pub(crate) fn take_refusal(&mut self) -> Option<Box<str>> {
        match self {
            Transport::Plain(..) => None,
            Transport::Layered(layers) => layers.take_refusal(),
        }
    }

    /// Whether the layers have something to write that is not in any outbox.
    pub(crate) fn has_pending(&self) -> bool {
        match self {
            Transport::Plain(..) => false,
            Transport::Layered(layers) => layers.has_pending(),
        }
    }

    /// Writes what the layers have to write. False if the socket takes no more for now.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Transport::Plain(..) => Ok(true),
            Transport::Layered(layers) => guard(|| layers.flush()),
        }
    }

    /// Whether the next read may cost as much as a signature.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self, Transport::Layered(layers) if layers.is_handshaking())
    }

    /// How many bytes the layers hold of a peer that has not got through to MQTT.
    pub(crate) fn held(&self) -> usize {
        match self {
            Transport::Plain(..) => 0,
            Transport::Layered(layers) => layers.held(),
        }
    }

    /// The name that the peer's certificate gives it: `Ok(None)` where nobody asks for one.
    ///
    /// # Errors
    /// If the listener takes the user name from the certificate, and there is no such name in it.
    pub(crate) fn identity(&self) -> Result<Option<Box<str>>, &'static str> {
        match self {
            Transport::Plain(..) => Ok(None),
            Transport::Layered(layers) => layers.identity(),
        }
    }

    /// Says goodbye on the transport's own terms: what was written still arrives, nothing else will.
    /// `scratch` is overwritten.
    pub(crate) fn shutdown(&mut self, scratch: &mut [u8]) {
        match self {
            Transport::Plain(socket, _) => socket.shutdown(scratch),
            Transport::Layered(layers) => {
                let _ = guard(|| {
                    layers.shutdown(scratch);
                    Ok(())
                });
            }
        }
    }

    /// Watches the transport, for reading and writing, edge-triggered and once for all its life.
    pub(crate) fn register(&mut self, registry: &mio::Registry, token: mio::Token) -> io::Result<()> {
        self.socket().register(registry, token)
    }

    /// Ends the watch: another poll takes the transport over.
    pub(crate) fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        self.socket().deregister(registry)
    }

    /// Lets the system break the connection when nothing of the peer, nor of its system, was heard for so long.
    pub(crate) fn watch_peer(&mut self, unreachable: Duration) {
        if let Err(e) = self.socket().watch_peer(unreachable) {
            log::debug!("A client without keep alive is not watched: {e}.");
        }
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Transport::Plain(socket, _) => socket,
            Transport::Layered(layers) => layers.socket(),
        }
    }
}

/// A panic in a layer is the end of its connection, not of the broker's.
fn guard<T>(f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err(io::Error::other("a panic, which is a bug")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_layer_ends_its_connection_alone() {
        let failed = guard::<()>(|| panic!("as a layer might"));
        assert_eq!(failed.unwrap_err().to_string(), "a panic, which is a bug");
        assert_eq!(guard(|| Ok(1)).unwrap(), 1);
    }
}
