//! What is set on the sockets of connections, and on what a machine has no addresses for.
#![allow(missing_docs)]
#![cfg(target_os = "linux")]

mod broker;
mod peer;

use broker::hikyaku;
use hikyaku::config::{Endpoint, ListenerSettings};
use hikyaku::{Options, Server};
use hikyaku_proto::broker::Config;
use peer::{Peer, connect, packet, string};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::Socket;
use std::io::{Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::Command;
use std::time::{Duration, Instant};

fn start(workers: u16, tcp_nodelay: bool, config: Config) -> (Server, SocketAddr) {
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners = vec![ListenerSettings { endpoint, tcp_nodelay, ..Default::default() }];
    let server = Server::start(Options { listeners, workers, config, ..Options::default() }).unwrap();
    let address = server.local_addrs()[0];
    (server, address)
}

/// The other end of a connection: the broker's, which is in this process.
fn other_end(peer: &Peer) -> Socket {
    let wanted = peer.0.local_addr().unwrap();
    let begin = Instant::now();
    loop {
        if let Some(socket) = connected_to(wanted) {
            return socket;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "nobody has accepted {wanted}");
    }
}

fn connected_to(wanted: SocketAddr) -> Option<Socket> {
    let me = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let number = entry.unwrap().file_name().to_string_lossy().parse().unwrap();
        // Some are gone by now.
        let Ok(file) = pidfd_getfd(&me, number, PidfdGetfdFlags::empty()) else { continue };
        let socket = Socket::from(file);
        let is_it = |address: socket2::SockAddr| address.as_socket() == Some(wanted);
        if socket.peer_addr().is_ok_and(is_it) {
            return Some(socket);
        }
    }
    None
}

fn connect_with(level: u8, id: &str, keep_alive: u8) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(0x10, &[b"\0\x04MQTT", &[level, 2, 0, keep_alive][..], properties, &string(id)].concat())
}

/// Connects, and has been let in.
fn enter(to: SocketAddr, connect: &[u8]) -> Peer {
    let mut peer = Peer::open(to);
    peer.send(connect);
    let connack = peer.packet();
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    peer.ping();
    peer
}

/// How long the system waits for a peer: in all, until it asks, between two questions.
fn waits(socket: &Socket) -> (Option<Duration>, Duration, Duration) {
    assert!(socket.keepalive().unwrap());
    let asks = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
    (socket.tcp_user_timeout().unwrap().filter(|d| !d.is_zero()), asks.0, asks.1)
}

#[test]
fn who_has_no_keep_alive_is_watched_by_the_system() {
    let seconds = Duration::from_secs;
    for workers in [1, 3] {
        let (server, to) = start(workers, true, Config::default());
        let alone = (None, seconds(300), seconds(30));
        assert_eq!(waits(&other_end(&Peer::open(to))), alone);
        let watched = (Some(seconds(300)), seconds(150), seconds(30));
        for i in 0..4 {
            let id = format!("c{i}");
            for level in [4, 5] {
                assert_eq!(waits(&other_end(&enter(to, &connect_with(level, &id, 0)))), watched);
                assert_eq!(waits(&other_end(&enter(to, &connect_with(level, &id, 60)))), alone);
            }
        }
        // A reload counts for those who come from then on.
        let before = enter(to, &connect_with(4, "before", 0));
        let config = Config { unreachable_s: 4, ..Config::default() };
        server.remote().configure(config, Default::default());
        let begin = Instant::now();
        while waits(&other_end(&enter(to, &connect_with(4, "after", 0)))) == watched {
            assert!(begin.elapsed() < seconds(10), "the configuration does not count");
        }
        let after = enter(to, &connect_with(4, "after", 0));
        assert_eq!(waits(&other_end(&after)), (Some(seconds(4)), seconds(2), seconds(1)));
        assert_eq!(waits(&other_end(&before)), watched);
    }
}

#[test]
fn who_comes_by_websocket_is_watched_too() {
    let (_server, to) = start(2, true, Config { unreachable_s: 20, ..Config::default() });
    let mut peer = Peer::open(to);
    peer.send(
        b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
          Sec-WebSocket-Protocol: mqtt\r\n\r\n",
    );
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.0.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    // A mask of zeros changes nothing.
    let connect = connect("w");
    let frame = [&[0x82, 0x80 | connect.len() as u8, 0, 0, 0, 0], &connect[..]].concat();
    peer.0.write_all(&frame).unwrap();
    peer.expect(&[0x82, 4, 0x20, 2, 0, 0]);
    // It was written in the turn that tells what to watch.
    peer.0.write_all(&[0x82, 0x82, 0, 0, 0, 0, 0xC0, 0]).unwrap();
    peer.expect(&[0x82, 2, 0xD0, 0]);
    let (whole, first, next) = waits(&other_end(&peer));
    assert_eq!((whole, first.as_secs(), next.as_secs()), (Some(Duration::from_secs(20)), 10, 2));
}

#[test]
fn small_packets_leave_at_once_unless_that_is_switched_off() {
    for tcp_nodelay in [true, false] {
        let (_server, to) = start(2, tcp_nodelay, Config::default());
        for id in ["a", "b", "c"] {
            let peer = Peer::connect(to, id);
            assert_eq!(other_end(&peer).tcp_nodelay().unwrap(), tcp_nodelay);
        }
    }
    assert!(ListenerSettings::default().tcp_nodelay);
}

/// In a network of its own, without IPv6: where the system lets us have one.
#[test]
fn a_machine_without_ipv6_is_no_error() {
    let without = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && ip link set lo up 2> /dev/null; ";
    let shell = |then: &str| {
        let mut shell = Command::new("unshare");
        shell.args(["-rn", "sh", "-c", &format!("{without}{then}")]);
        shell
    };
    let may = shell("cat /proc/sys/net/ipv6/conf/all/disable_ipv6").output();
    if !may.is_ok_and(|out| out.stdout.starts_with(b"1")) {
        return; // `an_address_the_machine_lacks_is_an_error_only_if_it_is_asked_for` is the same from within.
    }
    let file = std::env::temp_dir().join(format!("hikyaku-sockets-{}.conf", std::process::id()));
    let told = |listener: &str| {
        std::fs::write(&file, format!("{listener}\nallow_anonymous true\n")).unwrap();
        let path = hikyaku().get_program().to_string_lossy().into_owned();
        let mut child = shell(&format!("exec {path} -c {}", file.display()))
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut lines = String::new();
        while std::io::BufRead::read_line(&mut log, &mut lines).unwrap() > 0 {
            if lines.contains(" running") {
                break;
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        lines
    };
    // Both by /etc/hosts, nearly everywhere.
    let addresses: Vec<_> = ("localhost", 1883).to_socket_addrs().unwrap().collect();
    let both = told("listener 1883 localhost");
    assert!(both.contains("Opening ipv4 listen socket on 127.0.0.1:1883."), "{both}");
    let warned = both.contains("Warning: Not listening on [::1]:1883: ");
    assert_eq!(warned, addresses.iter().any(SocketAddr::is_ipv6), "{both}");
    assert!(both.contains(" running"), "{both}");
    // Whoever asks for it by name is told.
    let asked = told("listener 1883 ::1");
    assert!(asked.contains("[::1]:1883") && !asked.contains(" running"), "{asked}");
    std::fs::remove_file(&file).unwrap();
}
