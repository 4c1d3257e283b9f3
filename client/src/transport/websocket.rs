//! WebSocket on a stream: MQTT in binary messages, cut anyhow [MQTT-6.0.0-1].

use super::Stream;
use crate::Address;
use std::io::{self, ErrorKind, IoSlice};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode};
use tungstenite::{Bytes, Error, Message, WebSocket};

/// How many bytes go into one message.
const MESSAGE: usize = 64 << 10;
/// The longest message taken: a packet of MQTT at its longest, and another one's tail.
const MESSAGE_MAX: usize = 257 << 20;

#[derive(Debug)]
pub(crate) struct WebSocketStream {
    socket: WebSocket<Stream>,
    /// What of a message has not been read.
    unread: Bytes,
}

/// The way to a [`WebSocketStream`].
#[derive(Debug)]
pub(crate) struct Handshake(MidHandshake<ClientHandshake<Stream>>);

impl Handshake {
    /// Nothing is written yet.
    pub fn begin(address: &Address, path: &str, stream: Stream) -> io::Result<Handshake> {
        let scheme = if address.scheme.is_tls() { "wss" } else { "ws" };
        let uri = format!("{scheme}://{}/{}", address.authority(), path.trim_start_matches('/'));
        let mut request = uri.into_client_request().map_err(io_error)?;
        // [MQTT-6.0.0-3]
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        let config = WebSocketConfig::default()
            .read_buffer_size(16 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        ClientHandshake::start(stream, request, Some(config)).map(Handshake).map_err(io_error)
    }

    #[cfg(feature = "tools")]
    pub fn stream(&mut self) -> &mut Stream {
        self.0.get_mut().get_mut()
    }

    /// Goes on until the end, or until the stream would block.
    pub fn proceed(self) -> io::Result<Result<WebSocketStream, Handshake>> {
        match self.0.handshake() {
            Ok((socket, _)) => Ok(Ok(WebSocketStream { socket, unread: Bytes::new() })),
            Err(HandshakeError::Failure(error)) => Err(io_error(error)),
            Err(HandshakeError::Interrupted(handshake)) => Ok(Err(Handshake(handshake))),
        }
    }
}

impl WebSocketStream {
    /// Does the handshake, blocking.
    pub fn handshake(address: &Address, path: &str, stream: Stream) -> io::Result<WebSocketStream> {
        match Handshake::begin(address, path, stream)?.proceed()? {
            Ok(stream) => Ok(stream),
            Err(_) => Err(io::Error::new(ErrorKind::TimedOut, "no WebSocket answer in time")),
        }
    }

    pub fn stream(&mut self) -> &mut Stream {
        self.socket.get_mut()
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.unread = bytes,
                // [MQTT-6.0.0-1]
                Ok(Message::Text(_)) => {
                    return Err(io::Error::new(ErrorKind::InvalidData, "a WebSocket text message"));
                }
                // Pings are answered while reading.
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(0),
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return Ok(0),
                Err(error) => return Err(io_error(error)),
            }
        }
        let n = self.unread.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.unread.split_to(n));
        Ok(n)
    }

    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // One message waits at the most.
        self.flush()?;
        let mut message = Vec::new();
        for slice in slices {
            let room = MESSAGE - message.len();
            message.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let n = message.len();
        match self.socket.write(Message::Binary(message.into())) {
            Ok(()) => {}
            // The message is kept all the same.
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(io_error(error)),
        }
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(n),
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map_err(io_error)
    }

    pub fn goodbye(&mut self) {
        let _ = self.socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }));
        let _ = self.socket.flush();
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::Http(response) => io::Error::other(format!(
            "the server answers with HTTP status {} where WebSocket was asked for",
            response.status().as_u16()
        )),
        error => io::Error::new(ErrorKind::InvalidData, error),
    }
}
