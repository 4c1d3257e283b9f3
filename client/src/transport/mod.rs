//! The way to the server and back: a socket, perhaps TLS on it, perhaps WebSocket on that.
//!
//! A [`Transport`] is made by [`open`], which blocks, on a thread of its own; from then on nothing blocks. Who has
//! very many makes them on a poll, with `Opening`. Each layer reads until it says `WouldBlock`, as an edge-triggered poll wants it, and keeps what it could not yet write
//! until [`Transport::flush`].

mod open;
#[cfg(feature = "tools")]
mod opening;
mod socket;
mod socks;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
mod websocket;

pub(crate) use open::{Route, open};
#[cfg(feature = "tools")]
pub(crate) use opening::{Opening, Progress};

use socket::Socket;
use std::io::{self, IoSlice, Read, Write};

/// A socket with or without TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Tls(Box<tls::TlsStream>),
}

impl Stream {
    fn socket(&mut self) -> &mut Socket {
        match self {
            Stream::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.socket(),
        }
    }

    fn goodbye(&mut self) {
        match self {
            Stream::Plain(_) => {}
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.goodbye(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write_vectored(slices),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Transport {
    Bytes(Stream),
    #[cfg(feature = "websocket")]
    WebSocket(Box<websocket::WebSocketStream>),
}

impl Transport {
    /// What the poll watches.
    pub fn source(&mut self) -> &mut dyn mio::event::Source {
        self.stream().socket().source()
    }

    /// Whether there is no layer on the socket: a read that does not fill the buffer has emptied it.
    #[cfg(feature = "tools")]
    pub fn is_plain(&self) -> bool {
        matches!(self, Transport::Bytes(Stream::Plain(_)))
    }

    /// Bytes of MQTT; 0 is the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Bytes(stream) => stream.read(buffer),
            #[cfg(feature = "websocket")]
            Transport::WebSocket(stream) => stream.read(buffer),
        }
    }

    /// Takes bytes of MQTT; they may wait for [`Transport::flush`].
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Bytes(stream) => stream.write_vectored(slices),
            #[cfg(feature = "websocket")]
            Transport::WebSocket(stream) => stream.write_vectored(slices),
        }
    }

    /// Writes what the layers keep. `WouldBlock` when something is left.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Bytes(stream) => stream.flush(),
            #[cfg(feature = "websocket")]
            Transport::WebSocket(stream) => stream.flush(),
        }
    }

    /// Says goodbye where the layers have words for it, as far as that goes without waiting.
    pub fn shutdown(&mut self) {
        #[cfg(feature = "websocket")]
        if let Transport::WebSocket(stream) = self {
            stream.goodbye();
        }
        self.stream().goodbye();
        self.stream().socket().shutdown();
    }

    fn stream(&mut self) -> &mut Stream {
        match self {
            Transport::Bytes(stream) => stream,
            #[cfg(feature = "websocket")]
            Transport::WebSocket(stream) => stream.stream(),
        }
    }
}
