//! Where connections come in.

use crate::admission::Count;
use crate::config::{Endpoint, ListenerSettings};
use crate::hold::Hold;
use crate::inherited::Inherited;
use crate::refusal::{Refusal, Refusals};
use crate::transport::{self, Transport};
use crate::user::unwritable;
use hikyaku_proto::time::Instant;
use mio::net::TcpListener;
#[cfg(unix)]
use mio::net::UnixListener;
#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A bound socket, not yet watched.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: Listening,
    /// Where that is, as people say it.
    pub(crate) name: String,
    pub(crate) address: Option<SocketAddr>,
    /// The index into [`Config::listeners`](hikyaku_proto::broker::Config::listeners).
    listener: u16,
    count: Arc<Count>,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    /// It listened before it was ours, and who came in then inherits nothing: whether what is written leaves at once.
    Inherited(TcpListener, bool),
    #[cfg(unix)]
    Unix(UnixListener, #[expect(dead_code, reason = "held until it is dropped")] Option<SocketFile>),
}

/// The file of a unix socket, which goes when nobody listens any more.
#[cfg(unix)]
#[derive(Debug)]
struct SocketFile(PathBuf);

/// How many connections may wait to be accepted; the system has its own bound too.
const BACKLOG: i32 = 4096;

/// After this much silence the system asks whether a peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// Binds and listens where `settings` say. Addresses beyond the first may be absent. What was inherited takes the
/// place of what has its address, or of all if none has.
pub(crate) fn bind(
    settings: &ListenerSettings,
    listener: u16,
    count: &Arc<Count>,
    inherited: Vec<Inherited>,
) -> Result<Vec<Bound>, (String, io::Error)> {
    let new = |socket, name, address| {
        let count = Arc::clone(count);
        Bound { socket, name, address, listener, count }
    };
    let mut bound = Vec::new();
    match &settings.endpoint {
        // Inherited: by its path, or by its name in the place of all.
        _ if inherited.iter().any(|socket| !socket.is_at(&settings.endpoint)) => {}
        Endpoint::Tcp { addresses } => {
            let own = |address: &&SocketAddr| !inherited.iter().any(|socket| socket.covers(**address));
            for (i, &address) in addresses.iter().filter(own).enumerate() {
                match listen(address, settings) {
                    Ok(socket) => {
                        let address = socket.local_addr().map_err(|e| (address.to_string(), e))?;
                        let family = if address.is_ipv6() { "ipv6" } else { "ipv4" };
                        log::info!("Opening {family} listen socket on {address}.");
                        bound.push(new(Listening::Tcp(socket), address.to_string(), Some(address)));
                    }
                    Err(e) if i > 0 && is_absent(&e) => log::warn!("Not listening on {address}: {e}."),
                    Err(e) => return Err((address.to_string(), e)),
                }
            }
        }
        Endpoint::Unix(_) if !inherited.is_empty() => {}
        #[cfg(unix)]
        Endpoint::Unix(path) => {
            let name = path.display().to_string();
            let named = |e: io::Error| io::Error::new(e.kind(), unwritable(path, &e));
            let socket = listen_unix(path).map_err(|e| (name.clone(), named(e)))?;
            log::info!("Opening unix listen socket on path {name}.");
            let socket = Listening::Unix(socket, Some(SocketFile(path.clone())));
            bound.push(new(socket, name, None));
        }
        #[cfg(not(unix))]
        Endpoint::Unix(path) => {
            return Err((path.display().to_string(), io::ErrorKind::Unsupported.into()));
        }
    }
    for socket in inherited {
        let name = socket.endpoint().to_string();
        log::info!("Listening on inherited socket {socket}.");
        let (socket, address) = adopt(socket, settings.tcp_nodelay).map_err(|e| (name.clone(), e))?;
        bound.push(new(socket, name, address));
    }
    Ok(bound)
}

/// Makes a socket that was inherited one of ours.
fn adopt(inherited: Inherited, nodelay: bool) -> io::Result<(Listening, Option<SocketAddr>)> {
    let is_tcp = matches!(inherited.endpoint(), Endpoint::Tcp { .. });
    let socket = inherited.socket;
    socket.set_nonblocking(true)?;
    if !is_tcp {
        let socket = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket));
        // The file stays: whoever made it goes on listening.
        return Ok((Listening::Unix(UnixListener::from_std(socket), None), None));
    }
    pass_on(&socket, nodelay);
    let socket = TcpListener::from_std(socket.into());
    let address = socket.local_addr()?;
    Ok((Listening::Inherited(socket, nodelay), Some(address)))
}

/// What accepted sockets inherit (on Linux), which costs nothing each: keepalive, for clients without one of their own,
/// and whether what is written leaves at once.
fn pass_on(socket: &Socket, nodelay: bool) {
    let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 10);
    for set in [socket.set_tcp_keepalive(&probes), socket.set_tcp_nodelay(nodelay)] {
        if let Err(e) = set {
            log::debug!("A listening socket: {e}.");
        }
    }
}

/// Whether there are the addresses and the device to listen on, at some port.
///
/// # Errors
/// The first address that is not there, without its port.
pub(crate) fn try_addresses(settings: &ListenerSettings) -> Result<(), (String, io::Error)> {
    let Endpoint::Tcp { addresses } = &settings.endpoint else { return Ok(()) };
    for (i, &address) in addresses.iter().enumerate() {
        match open(SocketAddr::new(address.ip(), 0), settings.bind_interface.as_deref()) {
            Err(e) if i == 0 || !is_absent(&e) => return Err((address.ip().to_string(), e)),
            _ => {}
        }
    }
    Ok(())
}

/// What to do about an address that cannot be listened on: nothing, or a sentence after a blank.
pub(crate) fn explain(address: &str, cause: &io::Error) -> String {
    let port = address.parse().map(|address: SocketAddr| address.port());
    match (cause.kind(), port) {
        (io::ErrorKind::AddrInUse, Ok(port)) => format!(
            " Is another broker running? 'ss -ltnp sport = :{port}' shows, to root, who has the port; \
             'systemctl disable --now mosquitto' ends Debian's mosquitto."
        ),
        (io::ErrorKind::AddrInUse, Err(_)) => {
            " Is another broker running? A file that is no socket is left alone, too.".to_owned()
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            " This machine has no such address; 'ip address' shows those it has.".to_owned()
        }
        (io::ErrorKind::PermissionDenied, Ok(port)) if port < 1024 => {
            " Ports below 1024 take root, or the capability CAP_NET_BIND_SERVICE.".to_owned()
        }
        _ => String::new(),
    }
}

fn listen(address: SocketAddr, settings: &ListenerSettings) -> io::Result<TcpListener> {
    let socket = open(address, settings.bind_interface.as_deref())?;
    pass_on(&socket, settings.tcp_nodelay);
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A socket that is bound.
fn open(address: SocketAddr, interface: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(target_os = "linux")]
    socket.bind_device(interface.map(str::as_bytes)).map_err(|e| {
        let device = interface.unwrap_or_default().escape_debug();
        io::Error::new(e.kind(), format!("bind_interface '{device}': {e}"))
    })?;
    #[cfg(not(target_os = "linux"))]
    if interface.is_some() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(unix)]
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;
    // A broker that was killed leaves its file. One that runs answers, and keeps it; so does a file
    // that is no socket.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    let socket = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket));
    Ok(UnixListener::from_std(socket))
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.0) {
            log::debug!("{} stays: {e}.", self.0.display());
        }
    }
}

impl Listening {
    fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Listening::Tcp(socket) | Listening::Inherited(socket, _) => socket,
            #[cfg(unix)]
            Listening::Unix(socket, _) => socket,
        }
    }

    fn accept(&self) -> io::Result<(transport::Socket, Option<SocketAddr>)> {
        match self {
            Listening::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                Ok((transport::Socket::Tcp(stream), Some(peer)))
            }
            Listening::Inherited(socket, nodelay) => {
                let (stream, peer) = socket.accept()?;
                pass_on(&SockRef::from(&stream), *nodelay);
                Ok((transport::Socket::Tcp(stream), Some(peer)))
            }
            #[cfg(unix)]
            Listening::Unix(socket, _) => Ok((transport::Socket::Unix(socket.accept()?.0), None)),
        }
    }
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
    hold: Hold,
    held_since: Option<Instant>,
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
    /// Who was accepted, and waits for a reload.
    held: Option<(transport::Socket, Option<SocketAddr>)>,
}

impl Door {
    /// The next one, who may have been accepted before.
    fn accept(&mut self) -> io::Result<(transport::Socket, Option<SocketAddr>)> {
        let Door { bound, held, .. } = self;
        held.take().map_or_else(|| bound.socket.accept(), Ok)
    }
}

/// Someone who came in.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) transport: Transport,
    /// `None` for a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) listener: u16,
}

/// How long to wait for descriptors or memory to be freed by someone else.
const RETRY: Duration = Duration::from_millis(100);

/// How often to look whether newcomers still have to wait, and how long that may take: files that cannot be read
/// must not close the doors.
const HOLD_LOOK: Duration = Duration::from_millis(1);
const HOLD_MAX: Duration = Duration::from_secs(1);

/// Connections given up by their peers that are skipped at once.
const ABORTED_MAX: usize = 64;

impl Doors {
    /// Watches `bound`; events come for `token` of their places.
    pub(crate) fn open(
        bound: Vec<Bound>,
        hold: Hold,
        registry: &mio::Registry,
        token: impl Fn(usize) -> mio::Token,
    ) -> io::Result<Self> {
        let mut doors: Vec<Door> =
            bound.into_iter().map(|bound| Door { bound, pending: true, held: None }).collect();
        for (i, door) in doors.iter_mut().enumerate() {
            registry.register(door.bound.socket.source(), token(i), mio::Interest::READABLE)?;
        }
        Ok(Doors { doors, hold, ..Doors::default() })
    }

    /// The calling thread is the one that accepts from now on.
    pub(crate) fn attend(&self) -> io::Result<()> {
        if self.doors.is_empty() { Ok(()) } else { self.hold.take_signal_here() }
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
    pub(crate) fn accept(&mut self, now: Instant, refusals: &mut Refusals) -> Option<Accepted> {
        if !self.hold.is_on() {
            self.held_since = None;
        }
        if self.starved_until.is_some_and(|until| now < until) {
            return None;
        }
        for _ in 0..self.doors.len() + ABORTED_MAX {
            let place = self.pending()?;
            self.next = place + 1;
            let came = self.doors[place].accept();
            let held = came.is_ok() && self.is_held(now);
            let door = &mut self.doors[place];
            match came {
                Ok(came) if held => {
                    door.held = Some(came);
                    self.starved_until = Some(now + HOLD_LOOK);
                    return None;
                }
                Ok((socket, peer)) => {
                    let ticket = match door.bound.count.enter(now, peer) {
                        Ok(ticket) => ticket,
                        Err(full) => {
                            // Dropping the socket closes it.
                            refusals.say(now, Refusal::Full, peer, Some(&door.bound.name), &full);
                            continue;
                        }
                    };
                    match peer {
                        Some(peer) => log::debug!("New connection from {peer} on {}.", door.bound.name),
                        None => log::debug!("New connection on {}.", door.bound.name),
                    }
                    let transport = Transport::Plain(socket, ticket);
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

    fn is_held(&mut self, now: Instant) -> bool {
        self.hold.is_on() && now < *self.held_since.get_or_insert(now) + HOLD_MAX
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Counts;
    use rustix::io::Errno;

    #[test]
    fn who_comes_during_a_reload_waits_but_not_for_ever() {
        let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
        let settings = ListenerSettings { endpoint, ..ListenerSettings::default() };
        let bound = bind(&settings, 0, &Counts::new(1).of(0), Vec::new()).unwrap();
        let address = bound[0].address.unwrap();
        let (poll, hold) = (mio::Poll::new().unwrap(), Hold::default());
        let mut doors = Doors::open(bound, hold.clone(), poll.registry(), mio::Token).unwrap();
        let mut now = Instant::from_secs(9);
        let comes_in = |doors: &mut Doors, now| doors.accept(now, &mut Refusals::default()).is_some();
        for reload in 0..2 {
            // A connection is in the system's queue as soon as its client has it.
            let clients = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
            doors.on_event(0);
            hold.begin();
            assert!(!comes_in(&mut doors, now), "{reload}");
            now = now + HOLD_MAX - HOLD_LOOK;
            assert!(!comes_in(&mut doors, now), "{reload}");
            now = now + HOLD_LOOK;
            assert!(comes_in(&mut doors, now), "a second is enough");
            hold.end();
            assert!(comes_in(&mut doors, now) && !comes_in(&mut doors, now));
            drop(clients);
        }
    }

    #[test]
    fn who_came_before_an_inherited_socket_was_ours_is_no_exception() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _early = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let inherited = Inherited::new(socket.into(), 3, "mqtt").unwrap();
        let (listening, _) = adopt(inherited, true).unwrap();
        let (transport::Socket::Tcp(stream), _) = listening.accept().unwrap() else { panic!("not TCP") };
        assert!(stream.nodelay().unwrap() && SockRef::from(&stream).keepalive().unwrap());
    }

    #[test]
    fn a_family_of_addresses_that_is_not_there_is_absent() {
        let error = |errno: Errno| io::Error::from(errno);
        assert!(is_absent(&error(Errno::AFNOSUPPORT)) && is_absent(&error(Errno::ADDRNOTAVAIL)));
        assert!(!is_absent(&error(Errno::ADDRINUSE)) && !is_absent(&error(Errno::ACCESS)));
        // One that is there stays, whatever the others are.
        let addresses = vec![([127, 0, 0, 1], 0).into(), ([192, 0, 2, 1], 0).into()];
        let settings = ListenerSettings { endpoint: Endpoint::Tcp { addresses }, ..Default::default() };
        let bound = bind(&settings, 0, &Counts::new(1).of(0), Vec::new()).unwrap();
        assert!(bound.len() == 1 && bound[0].name.starts_with("127.0.0.1:"));
        assert!(try_addresses(&settings).is_ok());
    }
}
