//! A connection that never blocks: TCP, with TLS and WebSocket over it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// As much may wait for the network before [`Line::write`] takes no more.
const OUT_MAX: usize = 1 << 20;

/// Which layers a connection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// TLS.
    pub tls: bool,
    /// WebSocket.
    pub websocket: bool,
}

/// A connection to a broker.
pub struct Line {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    websocket: Option<WebSocket>,
    /// What waits for the network, or for TLS.
    out: Vec<u8>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Line {
    /// Begins to connect; nothing is waited for.
    pub fn open(to: SocketAddr, layers: Layers, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        let tcp = TcpStream::connect(to)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let secured = |()| ClientConnection::new(Arc::clone(tls), name).map(Box::new);
        let tls = layers.tls.then_some(()).map(secured).transpose().map_err(io::Error::other)?;
        let websocket = layers.websocket.then(WebSocket::default);
        let out = if layers.websocket { UPGRADE.to_vec() } else { Vec::new() };
        Ok(Self { tcp, tls, websocket, out })
    }

    /// For the poll.
    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// Reads all MQTT bytes that are there. An error is the end, `UnexpectedEof` if the broker closed.
    pub fn read(&mut self, to: &mut Vec<u8>) -> io::Result<()> {
        let Some(websocket) = &mut self.websocket else { return read_raw(&mut self.tcp, &mut self.tls, to) };
        let result = read_raw(&mut self.tcp, &mut self.tls, &mut websocket.received);
        websocket.take(to, &mut self.out)?;
        result
    }

    /// Takes MQTT bytes: all of them, or none as there is no way for them yet.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        match &self.websocket {
            _ if self.out.len() > OUT_MAX => return false,
            None => self.out.extend_from_slice(bytes),
            Some(websocket) if websocket.open => frame(BINARY, bytes, &mut self.out),
            Some(_) => return false,
        }
        true
    }

    /// Writes as far as that goes now.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let taken = match &mut self.tls {
                Some(tls) => tls.writer().write(&self.out)?,
                None => match self.tcp.write(&self.out) {
                    Err(e) if is_later(&e) => return Ok(()),
                    result => result?,
                },
            };
            self.out.drain(..taken);
            if taken == 0 {
                // TLS has enough.
                break;
            }
            if let Some(tls) = &mut self.tls
                && !write_tls(&mut self.tcp, tls)?
            {
                return Ok(());
            }
        }
        if let Some(tls) = &mut self.tls {
            write_tls(&mut self.tcp, tls)?;
        }
        Ok(())
    }
}

/// A certificate for localhost as PEM, its key as PEM, and the settings of a client that trusts it.
pub fn certificate() -> (String, String, Arc<ClientConfig>) {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).expect("a certificate that was just made");
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (made.cert.pem(), made.signing_key.serialize_pem(), Arc::new(config))
}

/// There is nothing now, or no connection yet.
fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

fn read_raw(
    tcp: &mut TcpStream,
    tls: &mut Option<Box<ClientConnection>>,
    to: &mut Vec<u8>,
) -> io::Result<()> {
    let Some(tls) = tls else {
        let mut buffer = [0; 16 << 10];
        loop {
            match tcp.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => to.extend_from_slice(&buffer[..n]),
                Err(e) if is_later(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    };
    loop {
        let read = match tls.read_tls(tcp) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Err(e) if is_later(&e) => return Ok(()),
            other => other,
        };
        tls.process_new_packets().map_err(io::Error::other)?;
        match tls.reader().read_to_end(to) {
            Err(e) if e.kind() != ErrorKind::WouldBlock && read.is_ok() => return Err(e),
            _ => {}
        }
        read?;
        write_tls(tcp, tls)?;
    }
}

/// Whether all went.
fn write_tls(tcp: &mut TcpStream, tls: &mut ClientConnection) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(tcp) {
            Ok(_) => {}
            Err(e) if is_later(&e) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

const UPGRADE: &[u8] =
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[derive(Debug, Default)]
struct WebSocket {
    open: bool,
    received: Vec<u8>,
}

impl WebSocket {
    /// Takes the frames that are complete, and answers pings.
    fn take(&mut self, to: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.open {
            let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                return Ok(());
            };
            if !self.received.starts_with(b"HTTP/1.1 101 ") {
                return Err(io::Error::other("the upgrade to WebSocket was refused"));
            }
            self.received.drain(..end + 4);
            self.open = true;
        }
        let mut at = 0;
        while let Some((opcode, payload)) = next_frame(&self.received[at..]) {
            at += payload.end;
            let payload = &self.received[at - payload.len()..at];
            match opcode {
                0 | BINARY => to.extend_from_slice(payload),
                PING => frame(PONG, payload, out),
                CLOSE => return Err(ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
        self.received.drain(..at);
        Ok(())
    }
}

/// The opcode of a frame of a server, and where its payload is; `None` if it is not complete.
fn next_frame(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let (opcode, short) = (bytes.first()? & 15, usize::from(bytes.get(1)? & 127));
    let (head, len) = match short {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        len => (2, len),
    };
    (bytes.len() >= head + len).then_some((opcode, head..head + len))
}

/// Appends a frame of a client: masked, with zeros.
fn frame(opcode: u8, payload: &[u8], to: &mut Vec<u8>) {
    to.push(0x80 | opcode);
    match payload.len() {
        len @ 0..126 => to.push(0x80 | len as u8),
        len @ 126..0x10000 => {
            to.push(0x80 | 126);
            to.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            to.push(0x80 | 127);
            to.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    to.extend_from_slice(&[0; 4]);
    to.extend_from_slice(payload);
}
