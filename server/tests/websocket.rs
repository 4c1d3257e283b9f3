//! A server in this process, and peers that speak WebSocket to it in raw bytes.
#![allow(missing_docs)]

mod peer;

use hikyaku::config::{Endpoint, ListenerSettings, Protocol};
use hikyaku::{Options, Server};
use hikyaku_proto::broker::Config;
use peer::{Peer, connect, publish, subscribe};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

const MASK: [u8; 4] = [1, 2, 3, 4];

fn start(workers: u16, settings: ListenerSettings) -> (Server, SocketAddr) {
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners = vec![ListenerSettings { endpoint, ..settings }];
    let config = Config::default();
    let server = Server::start(Options { listeners, workers, config, ..Options::default() }).unwrap();
    let address = server.local_addrs()[0];
    (server, address)
}

fn start_open(workers: u16) -> (Server, SocketAddr) {
    start(workers, ListenerSettings::default())
}

fn request(headers: &str) -> String {
    format!(
        "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// The head of the answer to `request`.
fn ask(to: SocketAddr, request: &str) -> (Peer, String) {
    let mut peer = Peer::open(to);
    peer.send(request.as_bytes());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.0.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (peer, String::from_utf8(head).unwrap())
}

/// A WebSocket that is open.
fn open(to: SocketAddr) -> Peer {
    let (peer, head) = ask(to, &request("Sec-WebSocket-Protocol: mqtt\r\n"));
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    assert!(head.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{head}");
    peer
}

/// A frame as a client sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        n @ ..=125 => bytes.push(0x80 | n as u8),
        n @ ..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ MASK[i % 4]));
    bytes
}

fn binary(payload: &[u8]) -> Vec<u8> {
    frame(0x82, payload)
}

/// The next frame of the server: its first byte and its payload.
fn next_frame(peer: &mut Peer) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    peer.0.read_exact(&mut head).unwrap();
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            peer.0.read_exact(&mut length).unwrap();
            u64::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            peer.0.read_exact(&mut length).unwrap();
            u64::from_be_bytes(length)
        }
        n => {
            assert!(n < 126, "servers do not mask");
            n.into()
        }
    };
    let mut payload = vec![0; length as usize];
    peer.0.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

/// The next bytes of MQTT have to be these, in whatever frames.
fn expect(peer: &mut Peer, bytes: &[u8]) {
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        let (first, payload) = next_frame(peer);
        assert_eq!(first, 0x82, "{payload:02x?}");
        got.extend_from_slice(&payload);
    }
    assert!(got == bytes, "got {:02x?}", &got[..got.len().min(64)]);
}

fn connected(to: SocketAddr, id: &str) -> Peer {
    let mut peer = open(to);
    peer.send(&binary(&connect(id)));
    expect(&mut peer, &[0x20, 2, 0, 0]);
    peer
}

#[test]
fn mqtt5_6_0_0_1_the_broker_closes_at_a_text_frame_and_sends_binary_ones() {
    let (_server, address) = start_open(2);
    let mut watcher = connected(address, "watcher");
    watcher.send(&binary(&subscribe("t")));
    expect(&mut watcher, &[0x90, 3, 0, 1, 0]);
    let message = publish("t", b"x");
    // A text frame, and one that others follow. They hold MQTT, which counts for nothing.
    for first in [0x81, 0x01] {
        let mut peer = connected(address, "texts");
        peer.send(&[frame(first, &message), binary(&message)].concat());
        // 1003: data of a kind that is not taken.
        peer.expect_end(&[0x88, 2, 3, 0xEB]);
        let mut peer = open(address);
        peer.send(&frame(first, &connect("texts")));
        peer.expect_end(&[0x88, 2, 3, 0xEB]);
    }
    let mut peer = connected(address, "binary");
    peer.send(&binary(&message));
    assert_eq!(next_frame(&mut watcher), (0x82, message));
}

#[test]
fn mqtt5_6_0_0_2_the_broker_takes_packets_cut_and_joined_across_frames() {
    let (_server, address) = start_open(2);
    for id in ["a", "b", "c", "d", "e", "f"] {
        let mut peer = open(address);
        let all = [connect(id), subscribe("t/#"), publish("other", &[7; 300])].concat();
        let mut bytes = Vec::new();
        for piece in all.chunks(3) {
            bytes.extend(binary(piece));
            bytes.extend(binary(b""));
            // And one message of two frames.
            bytes.extend(frame(0x02, b""));
            bytes.extend(frame(0x80, b""));
        }
        peer.send(&bytes);
        expect(&mut peer, &[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0]);
        peer.send(&binary(&[0xC0, 0, 0xC0, 0, 0xC0]));
        peer.send(&binary(&[0]));
        expect(&mut peer, &[0xD0, 0, 0xD0, 0, 0xD0, 0]);
    }
}

#[test]
fn mqtt5_6_0_0_4_the_broker_selects_mqtt_and_nothing_that_was_not_offered() {
    let (_server, address) = start_open(1);
    for offered in ["mqtt", "mqttv3.1, mqtt", "chat,mqtt,mqttv3.1", "chat\r\nSec-WebSocket-Protocol: mqtt"] {
        let (_peer, head) = ask(address, &request(&format!("Sec-WebSocket-Protocol: {offered}\r\n")));
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(head.matches("Sec-WebSocket-Protocol").count(), 1, "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{head}");
    }
    for offered in ["", "Sec-WebSocket-Protocol: chat\r\n"] {
        let (_peer, head) = ask(address, &request(offered));
        assert!(!head.contains("Sec-WebSocket-Protocol"), "{head}");
    }
}

#[test]
fn the_upgrade_and_what_follows_may_come_at_once_or_byte_by_byte() {
    let (_server, address) = start_open(2);
    let all = [request("").into_bytes(), binary(&connect("at-once")), binary(&[0xC0, 0])].concat();
    for cut in [all.len(), 1, 100] {
        let mut peer = Peer::open(address);
        for piece in all.chunks(cut) {
            peer.send(piece);
        }
        let mut head = vec![0; 129];
        peer.0.read_exact(&mut head).unwrap();
        assert!(head.starts_with(b"HTTP/1.1 101 ") && head.ends_with(b"\r\n\r\n"), "{head:?}");
        expect(&mut peer, &[0x20, 2, 0, 0, 0xD0, 0]);
    }
}

#[test]
fn websockets_and_plain_clients_hear_each_other() {
    let (_server, address) = start_open(2);
    let (mut ws, mut plain) = (connected(address, "ws"), Peer::connect(address, "plain"));
    ws.send(&binary(&subscribe("t")));
    expect(&mut ws, &[0x90, 3, 0, 1, 0]);
    plain.subscribe("t");
    for size in [0, 1, 100, 200, 70_000, 1_500_000] {
        let message = publish("t", &vec![b'x'; size]);
        plain.send(&message);
        plain.expect(&message);
        expect(&mut ws, &message);
        ws.send(&binary(&message));
        expect(&mut ws, &message);
        plain.expect(&message);
    }
}

#[test]
fn a_slow_reader_gets_whole_frames() {
    let (_server, address) = start_open(2);
    let mut ws = connected(address, "slow");
    ws.send(&binary(&subscribe("t")));
    expect(&mut ws, &[0x90, 3, 0, 1, 0]);
    let mut publisher = Peer::connect(address, "publisher");
    let messages: Vec<_> = (0..3u8).map(|i| publish("t", &vec![i; 300_000])).collect();
    for message in &messages {
        publisher.send(message);
    }
    publisher.ping();
    // Sent while a frame is stuck in the middle: answered after it.
    ws.send(&frame(0x89, b"now"));
    std::thread::sleep(std::time::Duration::from_millis(50));
    let (mut got, mut pongs) = (Vec::new(), 0);
    while got.len() < messages.iter().map(Vec::len).sum() || pongs == 0 {
        match next_frame(&mut ws) {
            (0x82, payload) => got.extend(payload),
            (first, payload) => {
                assert_eq!((first, &payload[..]), (0x8A, &b"now"[..]));
                pongs += 1;
            }
        }
    }
    assert!(got == messages.concat());
}

#[test]
fn pings_are_answered_and_close_is() {
    let (_server, address) = start_open(2);
    let mut watcher = Peer::connect(address, "watcher");
    watcher.subscribe("will");
    let mut peer = open(address);
    let mut with_will = b"\x10\x1e\0\x04MQTT\x04\x06\0\0\0\x04dies\0\x04will\0\x04gone".to_vec();
    with_will[1] = (with_will.len() - 2) as u8;
    peer.send(&[frame(0x89, b"before CONNECT"), binary(&with_will)].concat());
    assert_eq!(next_frame(&mut peer), (0x8A, b"before CONNECT".to_vec()));
    expect(&mut peer, &[0x20, 2, 0, 0]);
    peer.send(&frame(0x89, b"after"));
    assert_eq!(next_frame(&mut peer), (0x8A, b"after".to_vec()));
    peer.send(&frame(0x88, &1001u16.to_be_bytes()));
    peer.expect_end(&[0x88, 2, 3, 0xE9]);
    // To close the WebSocket is not to disconnect.
    watcher.expect(&publish("will", b"gone"));
}

#[test]
fn a_disconnect_ends_the_websocket_too() {
    let (_server, address) = start_open(1);
    let mut peer = connected(address, "leaves");
    peer.send(&binary(&[0xE0, 0]));
    peer.expect_end(&[0x88, 2, 3, 0xE8]);
}

#[test]
fn what_breaks_the_rules_is_closed_with_its_code_and_disturbs_nobody() {
    let (_server, address) = start_open(2);
    let mut other = connected(address, "other");
    let cases: [(Vec<u8>, u16); 6] = [
        (frame(0x81, b"text"), 1003),
        (frame(0xC2, b"compressed"), 1002),
        (vec![0x82, 2, 0xC0, 0], 1002),
        (frame(0x09, b"cut ping"), 1002),
        (frame(0x89, &[0; 126]), 1002),
        (frame(0x83, b""), 1002),
    ];
    for (bytes, code) in cases {
        for connected_first in [false, true] {
            let mut peer = if connected_first { connected(address, "bad") } else { open(address) };
            peer.send(&bytes);
            peer.expect_end(&[&[0x88, 2][..], &code.to_be_bytes()].concat());
        }
    }
    other.send(&binary(&[0xC0, 0]));
    expect(&mut other, &[0xD0, 0]);
}

#[test]
fn a_request_that_is_no_upgrade_gets_a_page() {
    let (_server, address) = start_open(1);
    let oversize = format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(100_000));
    let cases = [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "426 "),
        ("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 "),
        ("GET\r\n\r\n", "400 "),
        (&oversize, "431 "),
    ];
    for (request, status) in cases {
        let (mut peer, head) = ask(address, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        let mut text = String::new();
        peer.0.read_to_string(&mut text).unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", text.len())), "{head}{text}");
    }
}

#[test]
fn the_origin_is_held_against_the_list() {
    let origins = vec!["https://a.example".to_owned()];
    let listed = start(1, ListenerSettings { websockets_origins: origins, ..Default::default() });
    let local = start(1, ListenerSettings { local_only_default: true, ..Default::default() });
    let status = |to, origin: &str| ask(to, &request(&format!("Origin: {origin}\r\n"))).1[9..12].to_owned();
    assert_eq!(status(listed.1, "https://a.example"), "101");
    assert_eq!(status(listed.1, "https://b.example"), "403");
    assert_eq!(status(local.1, "http://localhost:8080"), "101");
    assert_eq!(status(local.1, "https://a.example"), "403");
    assert_eq!(&ask(local.1, &request("")).1[9..12], "101", "no browser");
}

#[test]
fn a_protocol_restricts() {
    let mqtt = start(1, ListenerSettings { protocol: Some(Protocol::Mqtt), ..Default::default() });
    let mut peer = Peer::open(mqtt.1);
    peer.send(request("").as_bytes());
    peer.expect_end(&[]);
    Peer::connect(mqtt.1, "mqtt").ping();
    let ws = start(1, ListenerSettings { protocol: Some(Protocol::Websockets), ..Default::default() });
    let mut peer = Peer::open(ws.1);
    peer.send(&connect("mqtt"));
    peer.expect_end(&[]);
    connected(ws.1, "ws");
}

#[test]
fn an_upgrade_that_does_not_end_is_cut_off() {
    let config = Config { connect_timeout_s: 1, ..Config::default() };
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners = vec![ListenerSettings { endpoint, ..Default::default() }];
    let server = Server::start(Options { listeners, workers: 1, config, ..Options::default() }).unwrap();
    for sent in ["G", "GET / HTTP/1.1\r\nHost: localhost\r\n", &request("")] {
        let mut peer = Peer::open(server.local_addrs()[0]);
        peer.send(sent.as_bytes());
        let mut answer = Vec::new();
        peer.0.read_to_end(&mut answer).unwrap();
    }
}

#[test]
fn tiny_frames_cost_little() {
    let (_server, address) = start_open(2);
    let mut peer = connected(address, "tiny");
    // 5.6 MB: PINGREQs in frames of a byte, and empty frames and pings between them.
    let some = [binary(&[0xC0]), binary(b""), binary(&[0]), frame(0x89, b""), frame(0x8A, b"")].concat();
    let count = 5_600_000 / some.len();
    let bytes = some.repeat(count);
    let mut writer = peer.0.try_clone().unwrap();
    let begin = Instant::now();
    let writer = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut answers = 0;
    while answers < count {
        let (first, payload) = next_frame(&mut peer);
        if first == 0x82 {
            answers += payload.len() / 2;
        }
    }
    writer.join().unwrap();
    assert!(begin.elapsed().as_secs_f32() < 3.0, "{:?}", begin.elapsed());
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_made_and_goes() {
    use std::os::unix::net::{UnixListener, UnixStream};
    let folder = std::env::temp_dir().join(format!("hikyaku-unix-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    // Who was killed leaves its file behind.
    drop(UnixListener::bind(&path).unwrap());
    let options = || {
        let listeners =
            vec![ListenerSettings { endpoint: Endpoint::Unix(path.clone()), ..Default::default() }];
        Options { listeners, workers: 2, ..Options::default() }
    };
    let server = Server::start(options()).unwrap();
    assert!(Server::start(options()).is_err(), "someone listens there");
    for id in ["a", "b", "c", "d"] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&connect(id)).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0]);
    }
    server.shutdown().unwrap();
    assert!(!path.exists());
    std::fs::write(&path, "no socket").unwrap();
    assert!(Server::start(options()).is_err(), "the file is someone's");
    std::fs::remove_dir_all(&folder).unwrap();
}
