//! What carries a connection's bytes.

use mio::Interest;
use std::io::{self, IoSlice, Read, Write};

/// A connected, non-blocking transport. It owns its socket; dropping it closes.
#[derive(Debug)]
pub(crate) enum Transport {
    /// TCP as it is.
    Plain(mio::net::TcpStream),
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes, at least one. `more` says whether reading again may bring others without a new event.
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
    /// Reads once.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        match self {
            Transport::Plain(stream) => match retry(|| stream.read(buffer)) {
                Ok(0) => Ok(Received::End),
                // On Linux a short read has emptied the socket: what comes later is a new edge. Other
                // systems' queues say less.
                Ok(n) => {
                    Ok(Received::Bytes { bytes: n, more: n == buffer.len() || !cfg!(target_os = "linux") })
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
                Err(e) => Err(e),
            },
        }
    }

    /// Writes once, as much of `slices` as fits.
    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let wanted: usize = slices.iter().map(|s| s.len()).sum();
        match self {
            Transport::Plain(stream) => match retry(|| match slices {
                // The usual case, and the cheaper call.
                [one] => stream.write(one),
                all => stream.write_vectored(all),
            }) {
                Ok(n) => Ok(Sent { bytes: n, full: n < wanted }),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Sent { bytes: 0, full: true }),
                Err(e) => Err(e),
            },
        }
    }

    /// Says goodbye on the transport's own terms: what was written still arrives, nothing else will.
    /// `scratch` is overwritten.
    pub(crate) fn shutdown(&mut self, scratch: &mut [u8]) {
        match self {
            Transport::Plain(stream) => {
                let _ = stream.shutdown(std::net::Shutdown::Write);
                // Closing a socket with unread bytes resets the connection, and a reset overtakes
                // the goodbye in the peer's buffer.
                let _ = stream.read(scratch);
            }
        }
    }

    /// Watches the transport, for reading and writing, edge-triggered and once for all its life.
    pub(crate) fn register(&mut self, registry: &mio::Registry, token: mio::Token) -> io::Result<()> {
        match self {
            Transport::Plain(s) => registry.register(s, token, Interest::READABLE | Interest::WRITABLE),
        }
    }

    /// Ends the watch: another poll takes the transport over.
    pub(crate) fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => registry.deregister(stream),
        }
    }
}

fn retry(mut f: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match f() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
