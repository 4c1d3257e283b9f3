//! The blocking client and a server of WebSocket that the test plays.

use hikyaku_client::{Behavior, Connector, Error, Options, QoS, Reconnect, Version};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

const SECONDS_10: Duration = Duration::from_secs(10);
const CONNACK: &[u8] = b"\x20\x03\0\0\0";

type Socket = WebSocket<TcpStream>;

/// Plays a server for one connection, which selects a subprotocol, or none.
fn serve<T: Send + 'static>(
    selected: Option<&'static str>,
    play: impl FnOnce(Option<Socket>) -> T + Send + 'static,
) -> (Connector, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SECONDS_10)).unwrap();
        #[expect(clippy::result_large_err, reason = "the error is tungstenite's")]
        let answer = |request: &Request, mut response: Response| {
            let offered: Vec<_> = request.headers().get_all("Sec-WebSocket-Protocol").iter().collect();
            assert_eq!(offered, ["mqtt"]);
            if let Some(selected) = selected {
                response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(selected));
            }
            Ok(response)
        };
        play(tungstenite::accept_hdr(stream, answer).ok())
    });
    let behavior = Behavior { reconnect: Reconnect::Never, subscription_ids: false, ..Behavior::default() };
    let options = Options { connect_timeout: SECONDS_10, ..Options::new(Version::V5, "c") };
    (Connector::new(&*address, options).unwrap().behavior(behavior), thread)
}

/// The next packet of the client, which has to be in one binary message.
fn packet(socket: &mut Socket) -> Vec<u8> {
    match socket.read().unwrap() {
        Message::Binary(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn send(socket: &mut Socket, bytes: &[u8]) {
    socket.send(Message::Binary(bytes.to_vec().into())).unwrap();
}

#[test]
fn mqtt5_6_0_0_1_the_client_sends_binary_frames_and_leaves_at_a_text_one() {
    let (connector, server) = serve(Some("mqtt"), |socket| {
        let mut socket = socket.unwrap();
        assert_eq!(packet(&mut socket)[0], 0x10);
        send(&mut socket, CONNACK);
        assert_eq!(packet(&mut socket), b"\x82\x07\0\x01\0\0\x01t\0");
        send(&mut socket, b"\x90\x04\0\x01\0\0");
        // What would be a PUBLISH.
        socket.send(Message::Text("0\u{6}\0\u{1}t\0no".into())).unwrap();
        while socket.read().is_ok() {}
    });
    let client = connector.connect().unwrap();
    let all = client.subscribe("t", QoS::AtMostOnce).unwrap();
    assert!(matches!(all.recv(SECONDS_10), Err(Error::Closed)));
    server.join().unwrap();
}

#[test]
fn mqtt5_6_0_0_2_the_client_takes_packets_cut_and_joined_across_frames() {
    let (connector, server) = serve(Some("mqtt"), |socket| {
        let mut socket = socket.unwrap();
        packet(&mut socket);
        for byte in CONNACK {
            send(&mut socket, &[*byte]);
            send(&mut socket, b"");
        }
        packet(&mut socket);
        send(&mut socket, b"\x90\x04\0\x01\0\0\x30\x05\0\x01t\x001\x30\x05\0\x01t\x002\x30\x05\0");
        send(&mut socket, b"\x01t\x003\x30\x05\0\x01t\x004");
        // Until the client is done.
        while socket.read().is_ok() {}
    });
    let client = connector.connect().unwrap();
    let all = client.subscribe("t", QoS::AtMostOnce).unwrap();
    for payload in [b"1", b"2", b"3", b"4"] {
        assert_eq!(all.recv(SECONDS_10).unwrap().unwrap().payload(), payload);
    }
    client.disconnect(SECONDS_10).unwrap();
    server.join().unwrap();
}

#[test]
fn mqtt5_6_0_0_3_the_client_offers_mqtt() {
    let (connector, server) = serve(Some("mqtt"), |socket| {
        let mut socket = socket.unwrap();
        packet(&mut socket);
        send(&mut socket, CONNACK);
        packet(&mut socket)
    });
    connector.connect().unwrap().disconnect(SECONDS_10).unwrap();
    assert_eq!(server.join().unwrap(), b"\xe0\0");
}

#[test]
fn mqtt5_6_0_0_4_the_client_leaves_a_server_that_does_not_select_mqtt() {
    for selected in [None, Some("chat"), Some("mqttv3.1")] {
        let (connector, server) = serve(selected, |socket| socket.and_then(|mut socket| socket.read().ok()));
        assert!(matches!(connector.connect(), Err(Error::Io(_))), "{selected:?}");
        assert_eq!(server.join().unwrap(), None, "it sent nothing");
    }
}
