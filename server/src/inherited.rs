//! Listening sockets that someone else has opened: a service manager, which keeps them while the broker restarts.

use crate::config::{Endpoint, ListenerSettings};
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A socket to listen on that came with the start.
#[derive(Debug)]
pub struct Inherited {
    pub(crate) socket: Socket,
    number: i32,
    name: String,
    at: At,
}

#[derive(Debug)]
enum At {
    /// TCP; `both` if a socket of IPv6 takes IPv4 too.
    Tcp {
        address: SocketAddr,
        both: bool,
    },
    Unix(PathBuf),
}

impl Inherited {
    /// Looks at what was passed as descriptor `number`. `name` is what it was called: where no listener has
    /// its address, the one whose port that is gets it.
    ///
    /// # Errors
    /// If it is not a socket that listens for TCP or unix streams: a sentence that says so, and what to do.
    pub fn new(socket: OwnedFd, number: i32, name: &str) -> Result<Inherited, String> {
        let socket = Socket::from(socket);
        let at = examine(&socket).map_err(|what| {
            format!(
                "Inherited socket {number} ('{}') cannot be used: {what}. \
                 A .socket unit for hikyaku has ListenStream= and Accept=no.",
                name.escape_debug()
            )
        })?;
        Ok(Inherited { socket, number, name: name.to_owned(), at })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> Endpoint {
        match &self.at {
            At::Tcp { address, .. } => Endpoint::Tcp { addresses: vec![*address] },
            At::Unix(path) => Endpoint::Unix(path.clone()),
        }
    }

    /// Whether who connects to this address comes to this socket.
    pub(crate) fn covers(&self, wanted: SocketAddr) -> bool {
        let At::Tcp { address, both } = &self.at else { return false };
        let any_v6 = address.ip() == Ipv6Addr::UNSPECIFIED;
        let any_v4 = wanted.is_ipv4() && wanted.ip().is_unspecified();
        *address == wanted || *both && any_v6 && any_v4 && address.port() == wanted.port()
    }

    /// Whether it is where a listener is to be, or at one of its addresses.
    pub(crate) fn is_at(&self, endpoint: &Endpoint) -> bool {
        match endpoint {
            Endpoint::Tcp { addresses } => addresses.iter().any(|&wanted| self.covers(wanted)),
            Endpoint::Unix(wanted) => matches!(&self.at, At::Unix(path) if path == wanted),
        }
    }

    /// Whether it was named by the listener's port.
    fn is_named_after(&self, listener: &ListenerSettings) -> bool {
        let Endpoint::Tcp { addresses } = &listener.endpoint else { return false };
        addresses.iter().any(|address| self.name == address.port().to_string())
    }
}

/// What listens at `socket`; or what is wrong with it.
fn examine(socket: &Socket) -> Result<At, String> {
    let failed = |e: io::Error| format!("it is no socket ({e})");
    if socket.r#type().map_err(failed)? != Type::STREAM {
        return Err("it is not a stream socket".to_owned());
    }
    if !socket.is_listener().map_err(failed)? {
        return Err("it does not listen".to_owned());
    }
    let address = socket.local_addr().map_err(failed)?;
    if let Some(path) = address.as_pathname() {
        return Ok(At::Unix(path.into()));
    }
    match address.as_socket() {
        Some(address) => {
            let both = socket.domain().is_ok_and(|d| d == Domain::IPV6) && !socket.only_v6().unwrap_or(true);
            Ok(At::Tcp { address, both })
        }
        None => Err("it has neither an IP address nor a path".to_owned()),
    }
}

/// Deals sockets out to listeners, in their order.
///
/// # Errors
/// For a socket that belongs to no listener: what it is, and what to do.
pub(crate) fn deal(
    sockets: Vec<Inherited>,
    listeners: &[ListenerSettings],
) -> Result<Vec<Vec<Inherited>>, String> {
    let mut dealt: Vec<Vec<Inherited>> = listeners.iter().map(|_| Vec::new()).collect();
    for socket in sockets {
        let place = listeners
            .iter()
            .position(|l| socket.is_at(&l.endpoint))
            .or_else(|| listeners.iter().position(|l| socket.is_named_after(l)));
        match place {
            Some(place) => dealt[place].push(socket),
            None => return Err(socket.stray()),
        }
    }
    Ok(dealt)
}

impl Inherited {
    fn stray(&self) -> String {
        let line = match &self.at {
            At::Tcp { address, .. } if address.ip().is_unspecified() => {
                format!("listener {}", address.port())
            }
            At::Tcp { address, .. } => format!("listener {} {}", address.port(), address.ip()),
            At::Unix(path) => format!("listener 0 {}", path.display()),
        };
        format!(
            "Inherited socket {self} is none that the configuration listens on. \
             Add '{line}' to it, or take the socket out of the .socket unit."
        )
    }
}

impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ('{}') at {}", self.number, self.name.escape_debug(), self.endpoint())
    }
}
