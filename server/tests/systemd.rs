//! The binary under a service manager, for which the tests stand in: what it is told, and the sockets it
//! passes on.
#![allow(missing_docs)]
#![cfg(target_os = "linux")]

mod broker;
mod peer;

use broker::{Broker, free_port, hikyaku};
use peer::Peer;
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where the service manager hears.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn at_path(name: &str) -> Manager {
        let path = temporary(&format!("{name}.notify"));
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager::new(socket, path.display().to_string())
    }

    fn abstract_name(name: &str) -> Manager {
        let name = format!("hikyaku-{name}-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
        Manager::new(socket, format!("@{name}"))
    }

    fn new(socket: UnixDatagram, name: String) -> Manager {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Manager { socket, name }
    }

    /// The next message.
    fn hear(&self) -> String {
        let mut message = [0; 4096];
        let n = self.socket.recv(&mut message).unwrap();
        String::from_utf8(message[..n].to_vec()).unwrap()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.name);
    }
}

/// A path where nothing is.
fn temporary(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("hikyaku-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn write(name: &str, content: &str) -> PathBuf {
    let path = temporary(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// The broker, started with one or two sockets by these names.
fn activated(names: &str, one: OwnedFd, two: Option<OwnedFd>) -> Command {
    let count = if two.is_some() { 2 } else { 1 };
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "LISTEN_PID=$$ LISTEN_FDS={count} exec \"$0\" \"$@\" 3<&0 {} </dev/null >/dev/null",
        if count == 2 { "4<&1" } else { "" }
    ));
    shell.arg(env!("CARGO_BIN_EXE_hikyaku")).env("LISTEN_FDNAMES", names).env_remove("RUST_LOG");
    shell.stdin(one).stdout(two.map_or_else(Stdio::null, Stdio::from)).stderr(Stdio::piped());
    shell
}

fn listening() -> (OwnedFd, u16) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket.into(), port)
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_end() {
    for (manager, port) in
        [Manager::at_path("told"), Manager::abstract_name("told")].into_iter().zip([free_port(), free_port()])
    {
        let file = write(&format!("told-{port}.conf"), &format!("listener {port} 127.0.0.1\n"));
        let mut broker =
            Broker::spawn(hikyaku().arg("-c").arg(&file).env("NOTIFY_SOCKET", &manager.name), port);
        let ready = format!("READY=1\nSTATUS=Listening on 127.0.0.1:{port}.");
        assert_eq!(manager.hear(), ready);
        Peer::open(broker.address);
        for _ in 0..2 {
            let uptime = || -> u128 {
                let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
                (uptime.split(' ').next().unwrap().parse::<f64>().unwrap() * 1e6) as u128
            };
            broker.signal(Signal::HUP);
            let told = manager.hear();
            let lines: Vec<_> = told.lines().collect();
            assert_eq!((lines[0], lines[2]), ("RELOADING=1", "STATUS=Reloading."));
            let at: u128 = lines[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
            // The clock that stands still while the machine sleeps: not later than the one that does not.
            assert!(at > 0 && at <= uptime() + 100_000, "{at}");
            assert_eq!(manager.hear(), ready);
            // One that fails ends the reload, too.
            std::fs::write(&file, "nonsense\n").unwrap();
        }
        broker.signal(Signal::TERM);
        assert_eq!(manager.hear(), "STOPPING=1\nSTATUS=Stopping.");
        assert_eq!(broker.exit_code(), Some(0));
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_service_manager_that_is_not_there_disturbs_nobody() {
    for name in ["/nonexistent/notify", "@hikyaku-nobody", "vsock:2:1", ""] {
        let mut broker = Broker::start(hikyaku().env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "50000"));
        Peer::connect(broker.address, "a").ping();
        broker.signal(Signal::TERM);
        assert_eq!(broker.exit_code(), Some(0));
    }
}

#[test]
fn the_watchdog_is_fed_while_the_workers_turn() {
    let manager = Manager::abstract_name("watchdog");
    let watched = |pid: Option<&str>| {
        let mut command = hikyaku();
        command.env("NOTIFY_SOCKET", &manager.name).env("WATCHDOG_USEC", "100000");
        pid.map(|pid| command.env("WATCHDOG_PID", pid));
        Broker::start(command.args(["--workers", "2"]))
    };
    let mut broker = watched(None);
    assert!(manager.hear().starts_with("READY=1\n"));
    for _ in 0..4 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    broker.signal(Signal::TERM);
    while manager.hear() != "STOPPING=1\nSTATUS=Stopping." {}
    assert_eq!(broker.exit_code(), Some(0));
    // One that cannot be meant is fed now and then.
    let mut command = hikyaku();
    let mut broker = Broker::start(command.env("NOTIFY_SOCKET", &manager.name).env("WATCHDOG_USEC", "1"));
    while !manager.hear().starts_with("READY=1\n") {}
    let begin = std::time::Instant::now();
    for _ in 0..6 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    assert!(begin.elapsed() >= Duration::from_millis(200), "{:?}", begin.elapsed());
    broker.signal(Signal::TERM);
    while manager.hear() != "STOPPING=1\nSTATUS=Stopping." {}
    assert_eq!(broker.exit_code(), Some(0));
    // A watchdog that is another process's.
    let broker = watched(Some("1"));
    while !manager.hear().starts_with("READY=1\n") {}
    broker.signal(Signal::TERM);
    assert_eq!(manager.hear(), "STOPPING=1\nSTATUS=Stopping.");
}

#[test]
fn a_socket_takes_the_place_of_the_listener_at_its_address() {
    let ((one, port), (two, other)) = (listening(), listening());
    let text = format!(
        "listener {other} 127.0.0.1\nallow_anonymous true\nlistener {port} 127.0.0.1\nmount_point m\n"
    );
    let file = write("place.conf", &text);
    let mut broker = Broker::spawn(activated("", one, Some(two)).arg("-c").arg(&file), port);
    for number in [3, 4] {
        let line = format!("Listening on inherited socket {number} ('') at 127.0.0.1:");
        assert!(broker.logged.contains(&line), "{}", broker.logged);
    }
    Peer::connect(broker.address, "a").ping();
    Peer::connect(([127, 0, 0, 1], other).into(), "b").ping();
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_socket_of_both_families_takes_the_place_of_both() {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    if socket.set_only_v6(false).is_err() || socket.bind(&any_v6(0).into()).is_err() {
        return; // A machine without IPv6.
    }
    socket.listen(8).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let file = write("both.conf", &format!("listener {port}\nallow_anonymous true\n"));
    let broker = Broker::spawn(activated("mqtt", socket.into(), None).arg("-c").arg(&file), port);
    assert!(!broker.logged.contains("Opening"), "{}", broker.logged);
    Peer::connect(broker.address, "a").ping();
    std::fs::remove_file(file).unwrap();
}

fn any_v6(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

#[test]
fn a_socket_is_found_by_its_name() {
    let (socket, port) = listening();
    let named = free_port();
    let file = write("named.conf", &format!("listener {named}\nallow_anonymous true\n"));
    let broker = Broker::spawn(activated(&named.to_string(), socket, None).arg("-c").arg(&file), port);
    assert!(!broker.logged.contains("Opening"), "{}", broker.logged);
    Peer::connect(broker.address, "a").ping();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_unix_socket_stays_when_the_broker_goes() {
    let path = temporary("passed.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let text = format!("listener 0 {}\nallow_anonymous true\n", path.display());
    let file = write("unix.conf", &text);
    let mut broker = Broker::spawn(activated("hikyaku.socket", socket.into(), None).arg("-c").arg(&file), 1);
    UnixStream::connect(&path).unwrap();
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
    assert!(path.exists());
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn without_a_configuration_a_socket_is_the_default_listener() {
    let (socket, port) = listening();
    let broker = Broker::spawn(&mut activated("", socket, None), port);
    assert!(broker.logged.contains("local only mode"), "{}", broker.logged);
    Peer::connect(broker.address, "a").ping();
    // Where others can connect, nobody may.
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let broker = Broker::spawn(&mut activated("", socket.into(), None), port);
    assert!(broker.logged.contains("Warning: Other machines can reach"), "{}", broker.logged);
    let mut peer = Peer::open(broker.address);
    peer.send(&peer::connect("a"));
    peer.expect_end(&[0x20, 2, 0, 5]);
}

#[test]
fn sockets_that_fit_nothing_are_mistakes() {
    let file = write("stray.conf", &format!("listener {} 127.0.0.1\n", free_port()));
    let failed = |mut command: Command| {
        let output = command.arg("-c").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8(output.stderr).unwrap()
    };
    let (socket, port) = listening();
    let said = failed(activated("mqtt.socket", socket, None));
    let expected = format!(
        "Error: Inherited socket 3 ('mqtt.socket') at 127.0.0.1:{port} is none that the configuration listens on. \
         Add 'listener {port} 127.0.0.1' to it, or take the socket out of the .socket unit.\n"
    );
    assert!(said.ends_with(&expected), "{said}");
    let path = temporary("stray.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let said = failed(activated("", socket.into(), None));
    assert!(said.contains(&format!("Add 'listener 0 {}' to it", path.display())), "{said}");
    std::fs::remove_file(path).unwrap();
    let said = failed(activated("x", UnixDatagram::unbound().unwrap().into(), None));
    assert!(said.contains("Inherited socket 3 ('x') cannot be used: it is not a stream socket."), "{said}");
    let said = failed(activated("x", UnixStream::pair().unwrap().0.into(), None));
    assert!(said.contains("it does not listen"), "{said}");
    let said = failed(activated("x", std::fs::File::open("/dev/null").unwrap().into(), None));
    assert!(said.contains("it is no socket"), "{said}");
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&-", env!("CARGO_BIN_EXE_hikyaku")]);
    assert!(failed(command).contains("LISTEN_FDS counts descriptor 3, which is not open"));
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn what_is_meant_for_another_process_is_left_alone() {
    let broker = Broker::start(hikyaku().env("LISTEN_FDS", "1").env("LISTEN_PID", "1"));
    Peer::connect(broker.address, "a").ping();
}
