//! What the log says of those who are kept out.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod peer;

use broker::{Broker, free_port, hikyaku};
use dir::Dir;
use hikyaku::auth::{Hash, Scheme};
use peer::{Peer, connect, packet, string};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use std::net::SocketAddr;

/// A CONNECT of protocol `level`.
fn login(level: u8, id: &str, user: &str, password: &str) -> Vec<u8> {
    let names = [string(id), string(user), string(password)].concat();
    packet(0x10, &[&b"\0\x04MQTT"[..], &[level, 0xC2, 0, 0], &names].concat())
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn who_is_not_let_in_is_named_with_the_cause() {
    let dir = Dir::new("named");
    let port = free_port();
    let users = dir.write("users", &format!("ann:{}\n", Hash::create(Scheme::Sha512, b"a").unwrap()));
    let text = format!(
        "listener {port}\nsocket_domain ipv4\npassword_file {users}\nconnection_messages false\nclientid_prefixes c\n"
    );
    let file = dir.write("x.conf", &text);
    for (request, line) in [
        (
            login(4, "c\u{200b}", "ann", "b"),
            r"Client c\u{200b} (u'ann') from PEER refused at PORT: the user name or the password is wrong",
        ),
        (
            login(4, "c1", "eve", "b"),
            "Client c1 (u'eve') from PEER refused at PORT: the user name or the password is wrong",
        ),
        (connect("c1"), "Client c1 from PEER refused at PORT: it gives no user name, and has to"),
        (
            connect("d"),
            "Client d from PEER refused at PORT: the client id does not begin as clientid_prefixes wants",
        ),
        (login(9, "c1", "ann", "a"), "A client from PEER refused at PORT: "),
        (b"\x30\0".to_vec(), "A client from PEER refused at PORT: the first packet is not a CONNECT"),
    ] {
        // For each a broker: of one kind one line a second is said.
        let mut broker = Broker::spawn(hikyaku().args(["-c", &file]), port);
        let mut peer = Peer::open(broker.address);
        let address = peer.0.local_addr().unwrap().to_string();
        peer.send(&request);
        broker.await_line(&line.replace("PEER", &address).replace("PORT", &format!("port {port}")));
    }
}

#[test]
fn a_flood_of_failures_is_a_line_and_a_number() {
    let dir = Dir::new("flood");
    let port = free_port();
    let file = dir.write("x.conf", &format!("listener {port} 127.0.0.1\n"));
    let mut broker = Broker::spawn(hikyaku().args(["--workers", "1", "-c", &file]), port);
    for _ in 0..50 {
        let mut peer = Peer::open(broker.address);
        peer.send(&connect("c"));
        peer.expect(&[0x20, 2, 0, 5]);
    }
    broker.await_line("Failed logins that were not logged: ");
    let said = broker.logged.matches("Client c from").count();
    assert!(said < 5, "{}", broker.logged);
}

#[test]
fn who_speaks_something_else_is_told_apart() {
    let dir = Dir::new("speaks");
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let (certificate, key) = (dir.write("crt", &certificate.pem()), dir.write("key", &key.serialize_pem()));
    let text = format!(
        "allow_anonymous true\nlistener {} 127.0.0.1\nlistener {} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n\
         listener {} 127.0.0.1\nprotocol mqtt\nlistener {} 127.0.0.1\nprotocol websockets\n\
         websockets_origin https://a.example\n",
        ports[0], ports[1], ports[2], ports[3]
    );
    let file = dir.write("x.conf", &text);
    let hello = b"\x16\x03\x01\0\x05\x01\0\0\x01\x03";
    let upgrade =
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://b\x7f\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let long = [&b"GET / HTTP/1.1\r\nCookie: "[..], &[b'x'; 9000]].concat();
    for (listener, bytes, line) in [
        (0, &long[..], "the head of its HTTP request is longer than 'websockets_headers_size' allows"),
        (0, &hello[..], "it begins TLS, and this listener has no certificate; let it connect without TLS"),
        (
            1,
            &connect("c"),
            "it speaks MQTT without TLS, and this listener has a certificate; let it connect with TLS",
        ),
        (1, b"\0\0", "what it sends is no TLS, which this listener wants as it has a certificate"),
        (
            1,
            b"GET / HTTP/1.1\r\n\r\n",
            "it speaks HTTP or WebSocket without TLS, and this listener has a certificate",
        ),
        (1, hello, "TLS: "),
        (2, b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP or WebSocket, and this listener has 'protocol mqtt'"),
        (3, &connect("c"), "it speaks MQTT as it is, and this listener has 'protocol websockets'"),
        (
            3,
            &upgrade.map(|b| if b == 0x7f { b'\'' } else { b }),
            r"its page's origin 'http://b\'' is not among websockets_origin",
        ),
    ] {
        let mut broker = Broker::spawn(hikyaku().args(["--workers", "1", "-c", &file]), ports[0]);
        let mut peer = Peer::open(at(ports[listener]));
        let address = peer.0.local_addr().unwrap();
        peer.send(bytes);
        broker.await_line(&format!("A client from {address} refused at {}: {line}", at(ports[listener])));
    }
}

#[test]
fn each_line_of_advice_begins_with_the_time() {
    let dir = Dir::new("advice");
    let port = free_port();
    let file = dir.write("x.conf", &format!("listener {port} # TLS\nlog_timestamp_format %Y\n"));
    let mut broker = Broker::spawn(hikyaku().args(["-c", &file]), port);
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
    assert!(
        broker.logged.contains(": Warning:     certfile /etc/hikyaku/certs/server.crt\n"),
        "{}",
        broker.logged
    );
    for line in broker.logged.lines() {
        assert!(line.starts_with("20") && line[4..].starts_with(": "), "{line}");
    }
}
