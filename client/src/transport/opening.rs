//! Making a connection on a poll: nothing blocks.

use super::open::tls_connection;
use super::socket::Socket;
use super::tls::TlsStream;
use super::websocket::Handshake;
use super::{Route, Stream, Transport};
use crate::Scheme;
use socket2::{Domain, Protocol, SockAddr, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

/// A connection on its way. Its source wants to be registered for reading and writing.
#[derive(Debug)]
pub(crate) struct Opening(State);

#[derive(Debug)]
enum State {
    Connecting(Stream),
    /// TLS shakes hands while bytes are written and read; WebSocket has to be done with that before.
    Shaking(Handshake),
}

/// What became of an [`Opening`].
#[derive(Debug)]
pub(crate) enum Progress {
    /// Bytes of MQTT may be written, though TLS may keep them until it has shaken hands.
    Open(Transport),
    /// To be asked again when the poll says something.
    Waiting(Opening),
}

impl Opening {
    /// Begins: `addr` is the server's, but where the route leads to a unix socket. `WouldBlock` is told of a unix socket
    /// whose server has too many to accept at the moment.
    pub fn begin(route: &Route, addr: Option<SocketAddr>, bind: Option<IpAddr>) -> io::Result<Opening> {
        let socket = match addr {
            Some(addr) => Socket::Tcp(tcp(addr, bind)?),
            None => Socket::Unix(mio::net::UnixStream::connect(&route.address.host)?),
        };
        let stream = match route.address.scheme {
            Scheme::Mqtts | Scheme::Wss => {
                let (connection, name) = tls_connection(route)?;
                Stream::Tls(Box::new(TlsStream::begin(connection, socket, &name)))
            }
            Scheme::Mqtt | Scheme::Ws | Scheme::Unix => Stream::Plain(socket),
        };
        Ok(Opening(State::Connecting(stream)))
    }

    /// What the poll watches.
    pub fn source(&mut self) -> &mut dyn mio::event::Source {
        match &mut self.0 {
            State::Connecting(stream) => stream.socket().source(),
            State::Shaking(handshake) => handshake.stream().socket().source(),
        }
    }

    /// Goes as far as it goes without waiting.
    pub fn proceed(self, route: &Route) -> io::Result<Progress> {
        let handshake = match self.0 {
            State::Connecting(mut stream) => {
                if !stream.socket().is_connected()? {
                    return Ok(Progress::Waiting(Opening(State::Connecting(stream))));
                }
                if !route.address.scheme.is_websocket() {
                    return Ok(Progress::Open(Transport::Bytes(stream)));
                }
                Handshake::begin(&route.address, &route.websocket_path, stream)?
            }
            State::Shaking(handshake) => handshake,
        };
        Ok(match handshake.proceed()? {
            Ok(stream) => Progress::Open(Transport::WebSocket(Box::new(stream))),
            Err(handshake) => Progress::Waiting(Opening(State::Shaking(handshake))),
        })
    }
}

fn tcp(addr: SocketAddr, bind: Option<IpAddr>) -> io::Result<mio::net::TcpStream> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(bind) = bind {
        socket.bind(&SockAddr::from(SocketAddr::new(bind, 0)))?;
    }
    match socket.connect(&SockAddr::from(addr)) {
        Err(error) if !is_underway(&error) => return Err(error),
        _ => {}
    }
    socket.set_tcp_nodelay(true)?;
    Ok(mio::net::TcpStream::from_std(socket.into()))
}

fn is_underway(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}
