//! Making a connection, blocking, with a deadline.

use super::socket::{Blocking, Socket};
use super::{Stream, Transport, socks};
use crate::{Address, Proxy, Scheme};
#[cfg(feature = "tls")]
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, SockAddr, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Everything one needs to get to the server.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub address: Address,
    /// The local address to come from.
    pub bind: Option<IpAddr>,
    /// What to go through.
    pub proxy: Option<Proxy>,
    /// Where WebSocket is on the server.
    #[cfg_attr(not(feature = "websocket"), allow(dead_code, reason = "there is no WebSocket"))]
    pub websocket_path: String,
    #[cfg(feature = "tls")]
    pub tls: Option<std::sync::Arc<rustls::ClientConfig>>,
    /// How long each address of the host may take.
    pub timeout: Duration,
}

/// Looks the host up and tries its addresses one after the other.
pub(crate) fn open(route: &Route) -> io::Result<Transport> {
    let address = &route.address;
    if address.scheme == Scheme::Unix {
        let stream = UnixStream::connect(&address.host)?;
        return layers(route, Blocking::Unix(stream), Instant::now() + route.timeout);
    }
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    let (host, port) = match &route.proxy {
        Some(proxy) => (proxy.host.as_str(), proxy.port),
        None => (address.host.as_str(), address.port),
    };
    for addr in (host, port).to_socket_addrs()? {
        if route.bind.is_some_and(|bind| bind.is_ipv4() != addr.is_ipv4()) {
            continue;
        }
        let deadline = Instant::now() + route.timeout;
        let opened = tcp(addr, route).and_then(|stream| layers(route, Blocking::Tcp(stream), deadline));
        match opened {
            Ok(transport) => {
                log::debug!("Connected to {addr}.");
                return Ok(transport);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn tcp(addr: SocketAddr, route: &Route) -> io::Result<std::net::TcpStream> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(bind) = route.bind {
        socket.bind(&SockAddr::from(SocketAddr::new(bind, 0)))?;
    }
    socket.connect_timeout(&SockAddr::from(addr), route.timeout)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn layers(route: &Route, socket: Blocking, deadline: Instant) -> io::Result<Transport> {
    let mut socket = Socket::Blocking(socket, deadline);
    if let (Socket::Blocking(Blocking::Tcp(_), _), Some(proxy)) = (&socket, &route.proxy) {
        socks::connect(&mut socket, proxy, &route.address)?;
    }
    let scheme = route.address.scheme;
    let stream = if scheme.is_tls() { secured(route, socket)? } else { Stream::Plain(socket) };
    let mut transport =
        if scheme.is_websocket() { websocket(route, stream)? } else { Transport::Bytes(stream) };
    transport.stream().socket().make_nonblocking()?;
    Ok(transport)
}

#[cfg(feature = "tls")]
fn secured(route: &Route, socket: Socket) -> io::Result<Stream> {
    let (connection, name) = tls_connection(route)?;
    Ok(Stream::Tls(Box::new(super::tls::TlsStream::handshake(connection, socket, &name)?)))
}

#[cfg(feature = "tls")]
pub(super) fn tls_connection(route: &Route) -> io::Result<(rustls::ClientConnection, ServerName<'static>)> {
    let config = match &route.tls {
        Some(config) => config.clone(),
        None => crate::Tls::default().config().map_err(io::Error::other)?,
    };
    let name = ServerName::try_from(route.address.host.clone()).map_err(io::Error::other)?;
    let connection = rustls::ClientConnection::new(config, name.clone()).map_err(io::Error::other)?;
    Ok((connection, name))
}

#[cfg(not(feature = "tls"))]
fn secured(_: &Route, _: Socket) -> io::Result<Stream> {
    Err(io::Error::new(ErrorKind::Unsupported, "hikyaku-client was built without its feature tls"))
}

#[cfg(feature = "websocket")]
fn websocket(route: &Route, stream: Stream) -> io::Result<Transport> {
    use super::websocket::WebSocketStream;
    let socket = WebSocketStream::handshake(&route.address, &route.websocket_path, stream)?;
    Ok(Transport::WebSocket(Box::new(socket)))
}

#[cfg(not(feature = "websocket"))]
fn websocket(_: &Route, _: Stream) -> io::Result<Transport> {
    Err(io::Error::new(ErrorKind::Unsupported, "hikyaku-client was built without its feature websocket"))
}
