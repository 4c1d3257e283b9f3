//! TLS on a socket. Reading never waits for writing, nor the other way round.

use super::socket::Socket;
use crate::trust::NoTls;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{self, ErrorKind, IoSlice, Read, Write};

/// How many encrypted bytes may wait for the socket: enough for it to be busy.
const BUFFER_LIMIT: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct TlsStream {
    connection: ClientConnection,
    socket: Socket,
    /// Whom we are talking to: for errors.
    host: String,
}

impl TlsStream {
    /// Does the handshake, blocking.
    pub fn handshake(
        mut connection: ClientConnection,
        mut socket: Socket,
        host: &ServerName<'_>,
    ) -> io::Result<TlsStream> {
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(|error| explain(error, &host.to_str()))?;
        }
        Ok(TlsStream::begin(connection, socket, host))
    }

    /// Leaves the handshake to reading and writing: what is written before it is over waits.
    pub fn begin(mut connection: ClientConnection, socket: Socket, host: &ServerName<'_>) -> TlsStream {
        connection.set_buffer_limit(Some(BUFFER_LIMIT));
        TlsStream { connection, socket, host: host.to_str().into_owned() }
    }

    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub fn goodbye(&mut self) {
        self.connection.send_close_notify();
        let _ = self.flush();
    }
}

fn explain(error: io::Error, host: &str) -> io::Error {
    match error.downcast::<rustls::Error>() {
        Ok(error) => NoTls::error(&error, host),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => io::Error::new(
            ErrorKind::UnexpectedEof,
            "the server closed the connection during the TLS handshake",
        ),
        Err(error) => error,
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error)
                    if error.kind() == ErrorKind::UnexpectedEof && self.connection.is_handshaking() =>
                {
                    return Err(explain(error, &self.host));
                }
                // Many close without saying so; for MQTT an end is an end.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            self.connection.read_tls(&mut self.socket)?;
            let processed = self.connection.process_new_packets();
            // Alerts, answers to key updates.
            match self.flush() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            processed.map_err(|error| NoTls::error(&error, &self.host))?;
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // What was taken before leaves first: then there is room.
        self.flush()?;
        let taken = self.connection.writer().write_vectored(slices)?;
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut self.socket)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}
