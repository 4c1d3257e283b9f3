//! Where connections come in.

use crate::transport::Transport;
use hikyaku_proto::time::Instant;
use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// The index into [`Config::listeners`](hikyaku_proto::broker::Config::listeners) that says how
    /// clients are treated here.
    pub listener: u16,
    /// Whether a machine that lacks the address (no IPv6, say) gets by with a warning.
    pub optional: bool,
}

/// A bound socket, not yet watched.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) socket: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) listener: u16,
}

/// How many connections may wait to be accepted; the system has its own bound too.
const BACKLOG: i32 = 4096;

/// After this much silence the system asks whether a peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// Binds and listens. `None` if the address is optional and there is none of its kind.
pub(crate) fn bind(endpoint: &Endpoint) -> io::Result<Option<Bound>> {
    match listen(endpoint.address) {
        Ok(socket) => {
            let address = socket.local_addr()?;
            let family = if address.is_ipv6() { "ipv6" } else { "ipv4" };
            log::info!("Opening {family} listen socket on {address}.");
            Ok(Some(Bound { socket, address, listener: endpoint.listener }))
        }
        Err(e) if endpoint.optional && is_absent(&e) => {
            log::warn!("Not listening on {}: {e}.", endpoint.address);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // For clients without keep alive: accepted sockets inherit it (on Linux), which costs nothing each.
    let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 10);
    if let Err(e) = socket.set_tcp_keepalive(&probes) {
        log::debug!("{address}: no TCP keepalive: {e}.");
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// The system knows no such family of addresses, or has no such address.
fn is_absent(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = e.raw_os_error();
    errno == Some(Errno::AFNOSUPPORT.raw_os_error()) || errno == Some(Errno::ADDRNOTAVAIL.raw_os_error())
}

/// The doors one worker watches.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    doors: Vec<Door>,
    /// Where to go on, so that no door waits for another.
    next: usize,
    /// Nothing can be accepted before this moment, or before someone leaves.
    starved_until: Option<Instant>,
    /// That has been said.
    complained: bool,
}

#[derive(Debug)]
struct Door {
    bound: Bound,
    /// Someone may be waiting: no new event will say so.
    pending: bool,
}

/// Someone who came in.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) transport: Transport,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: u16,
}

/// How long to wait for descriptors or memory to be freed by someone else.
const RETRY: Duration = Duration::from_millis(100);

/// Connections given up by their peers that are skipped at once.
const ABORTED_MAX: usize = 64;

impl Doors {
    /// Watches `bound`; events come for `token` of their places.
    pub(crate) fn open(
        bound: Vec<Bound>,
        registry: &mio::Registry,
        token: impl Fn(usize) -> mio::Token,
    ) -> io::Result<Self> {
        let mut doors: Vec<Door> = bound.into_iter().map(|bound| Door { bound, pending: true }).collect();
        for (i, door) in doors.iter_mut().enumerate() {
            registry.register(&mut door.bound.socket, token(i), mio::Interest::READABLE)?;
        }
        Ok(Doors { doors, next: 0, starved_until: None, complained: false })
    }

    /// Someone knocked.
    pub(crate) fn on_event(&mut self, door: usize) {
        if let Some(door) = self.doors.get_mut(door) {
            door.pending = true;
        }
    }

    /// A descriptor is free.
    pub(crate) fn on_close(&mut self) {
        self.starved_until = None;
    }

    /// When to call [`Doors::accept`] again, unasked.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let pending = self.doors.iter().any(|d| d.pending);
        pending.then(|| self.starved_until.unwrap_or(Instant::ZERO))
    }

    /// Lets the next one in, if someone waits and there is room.
    pub(crate) fn accept(&mut self, now: Instant) -> Option<Accepted> {
        if self.starved_until.is_some_and(|until| now < until) {
            return None;
        }
        for _ in 0..self.doors.len() + ABORTED_MAX {
            let place = self.pending()?;
            self.next = place + 1;
            let door = &mut self.doors[place];
            match door.bound.socket.accept() {
                Ok((stream, peer)) => {
                    if let Err(e) = stream.set_nodelay(true) {
                        log::debug!("{peer}: {e}.");
                    }
                    log::debug!("New connection from {peer} on {}.", door.bound.address);
                    let transport = Transport::Plain(stream);
                    return Some(Accepted { transport, peer, listener: door.bound.listener });
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    door.pending = false;
                    self.on_all_in();
                }
                Err(e) if is_of_one_connection(&e) => log::debug!("A connection was not accepted: {e}."),
                Err(e) => {
                    self.on_starved(now, &e);
                    return None;
                }
            }
        }
        None
    }

    fn pending(&self) -> Option<usize> {
        let n = self.doors.len();
        (0..n).map(|i| (self.next + i) % n).find(|&i| self.doors[i].pending)
    }

    fn on_starved(&mut self, now: Instant, e: &io::Error) {
        self.starved_until = Some(now + RETRY);
        if !self.complained {
            self.complained = true;
            log::warn!(
                "No connection can be accepted: {e}. Those connected stay. \
                 If files are short, raise the limit (ulimit -n; LimitNOFILE= of a unit)."
            );
        }
    }

    fn on_all_in(&mut self) {
        if self.complained && self.doors.iter().all(|d| !d.pending) {
            self.complained = false;
            self.starved_until = None;
            log::info!("Connections are accepted again.");
        }
    }
}

/// The error is the connection's own, and the next may have more luck.
fn is_of_one_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied, TimedOut};
    matches!(e.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied | TimedOut)
}
