//! TCP and Unix sockets, first blocking with a deadline, then for the poll.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net;
use std::os::unix::net as unix;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) enum Socket {
    /// While the connection is being made: reads and writes block until a moment.
    Blocking(Blocking, Instant),
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

#[derive(Debug)]
pub(crate) enum Blocking {
    Tcp(net::TcpStream),
    Unix(unix::UnixStream),
}

impl Socket {
    /// Nothing blocks from here on.
    pub fn make_nonblocking(&mut self) -> io::Result<()> {
        let Socket::Blocking(stream, _) = self else { return Ok(()) };
        *self = match stream {
            Blocking::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Socket::Tcp(mio::net::TcpStream::from_std(stream.try_clone()?))
            }
            Blocking::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Socket::Unix(mio::net::UnixStream::from_std(stream.try_clone()?))
            }
        };
        Ok(())
    }

    pub fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Socket::Tcp(stream) => stream,
            Socket::Unix(stream) => stream,
            Socket::Blocking(..) => unreachable!("a transport is handed over when it no longer blocks"),
        }
    }

    /// Whether a connection that was begun without blocking is there; an error if it never will be.
    #[cfg(feature = "tools")]
    pub fn is_connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Socket::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Socket::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Socket::Blocking(..) => (None, Ok(())),
        };
        match (error, peer) {
            (Some(error), _) => Err(error),
            (None, Err(error)) if error.kind() == ErrorKind::NotConnected => Ok(false),
            (None, peer) => peer.map(|()| true),
        }
    }

    pub fn shutdown(&mut self) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(net::Shutdown::Both),
            Socket::Unix(stream) => stream.shutdown(net::Shutdown::Both),
            Socket::Blocking(..) => Ok(()),
        };
    }
}

impl Blocking {
    /// What is left until the deadline becomes the timeout of the next call.
    fn limit(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"));
        }
        let left = Some(left.max(Duration::from_millis(1)));
        match self {
            Blocking::Tcp(stream) => stream.set_read_timeout(left).and(stream.set_write_timeout(left)),
            Blocking::Unix(stream) => stream.set_read_timeout(left).and(stream.set_write_timeout(left)),
        }
    }
}

/// A blocking socket says `WouldBlock` when its timeout has passed.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "no answer in time"),
        _ => error,
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
            Socket::Blocking(stream, deadline) => {
                stream.limit(*deadline)?;
                let read = match stream {
                    Blocking::Tcp(stream) => stream.read(buffer),
                    Blocking::Unix(stream) => stream.read(buffer),
                };
                read.map_err(timed_out)
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write_vectored(slices),
            Socket::Unix(stream) => stream.write_vectored(slices),
            Socket::Blocking(stream, deadline) => {
                stream.limit(*deadline)?;
                let written = match stream {
                    Blocking::Tcp(stream) => stream.write_vectored(slices),
                    Blocking::Unix(stream) => stream.write_vectored(slices),
                };
                written.map_err(timed_out)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
