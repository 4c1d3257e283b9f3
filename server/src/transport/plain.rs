//! A socket: TCP, or a unix stream.

use super::{Received, Sent};
use mio::Interest;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A connected, non-blocking socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(mio::net::TcpStream),
    /// A unix domain socket.
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
}

impl Socket {
    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let result = match self {
            Socket::Tcp(stream) => retry(|| stream.read(buffer)),
            #[cfg(unix)]
            Socket::Unix(stream) => retry(|| stream.read(buffer)),
        };
        match result {
            Ok(0) => Ok(Received::End),
            // On Linux a short read has emptied the socket: what comes later is a new edge. Other
            // systems' queues say less, and a unix stream may stop at the end of a sender's write.
            Ok(n) => {
                let more = n == buffer.len() || !cfg!(target_os = "linux") || !matches!(self, Socket::Tcp(_));
                Ok(Received::Bytes { bytes: n, more })
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(e) => Err(e),
        }
    }

    /// Writes once, as much of `slices` as fits.
    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let wanted: usize = slices.iter().map(|s| s.len()).sum();
        let result = match self {
            Socket::Tcp(stream) => retry(|| write(stream, slices)),
            #[cfg(unix)]
            Socket::Unix(stream) => retry(|| write(stream, slices)),
        };
        match result {
            Ok(n) => Ok(Sent { bytes: n, full: n < wanted }),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Sent { bytes: 0, full: true }),
            Err(e) => Err(e),
        }
    }

    /// What was written still arrives, nothing else will. `scratch` is overwritten.
    pub(super) fn shutdown(&mut self, scratch: &mut [u8]) {
        self.shutdown_write();
        // Closing a socket with unread bytes resets the connection, and a reset overtakes the goodbye
        // in the peer's buffer.
        let _ = self.read(scratch);
    }

    /// Tells the peer that nothing else comes.
    pub(super) fn shutdown_write(&mut self) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Ends the connection when the peer has not answered for `unreachable`, whether or not it was sent something: halfway
    /// through the system begins to ask, five times in all.
    pub(super) fn watch_peer(&self, unreachable: Duration) -> io::Result<()> {
        let socket = match self {
            Socket::Tcp(stream) => SockRef::from(stream),
            // Its peer is on this machine: that it is gone is known at once.
            #[cfg(unix)]
            Socket::Unix(_) => return Ok(()),
        };
        let (first, next) = ((unreachable / 2).max(SECOND), (unreachable / 10).max(SECOND));
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(first).with_interval(next))?;
        // What was sent and not acknowledged is otherwise sent again for a quarter of an hour. With it the number of
        // probes does not count: the time does.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket.set_tcp_user_timeout(Some(unreachable))?;
        Ok(())
    }

    pub(super) fn register(&mut self, registry: &mio::Registry, token: mio::Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Socket::Tcp(stream) => registry.register(stream, token, both),
            #[cfg(unix)]
            Socket::Unix(stream) => registry.register(stream, token, both),
        }
    }

    pub(super) fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => registry.deregister(stream),
            #[cfg(unix)]
            Socket::Unix(stream) => registry.deregister(stream),
        }
    }
}

/// TLS writes its records through this.
impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write_vectored(slices),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(stream: &mut impl Write, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    match slices {
        // The usual case, and the cheaper call.
        [one] => stream.write(one),
        all => stream.write_vectored(all),
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
