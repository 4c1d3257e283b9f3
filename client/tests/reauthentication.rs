//! What comes of a re-authentication that the server, which the test plays, does not accept.

#![cfg(feature = "scram")]

use base64ct::{Base64, Encoding};
use hikyaku_client::{
    Behavior, By, Connector, Error, Options, Property, ReasonCode, Reconnect, ScramError, Version,
};
use ring::{hmac, pbkdf2};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

const SECONDS_10: Duration = Duration::from_secs(10);
const METHOD: &str = "SCRAM-SHA-256";
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
const SALT: &[u8] = b"salt";
const PASSWORD: &[u8] = b"secret";

/// The server's end of a connection.
struct Server(TcpStream);

impl Server {
    /// The next packet; they are short here.
    fn packet(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet).unwrap();
        let mut length = usize::from(packet[1] & 0x7F);
        if packet[1] >= 0x80 {
            packet.push(0);
            self.0.read_exact(&mut packet[2..]).unwrap();
            length |= usize::from(packet[2]) << 7;
        }
        let begin = packet.len();
        packet.resize(begin + length, 0);
        self.0.read_exact(&mut packet[begin..]).unwrap();
        packet
    }

    /// A packet of this type, with the method and data behind `head`.
    fn say(&mut self, first: u8, head: &[u8], data: &str) {
        let mut properties = Vec::new();
        Property::AuthenticationMethod(METHOD).encode(&mut properties).unwrap();
        Property::AuthenticationData(data.as_bytes()).encode(&mut properties).unwrap();
        assert!(head.len() + properties.len() < 126);
        let length = properties.len() as u8;
        let packet = [&[first, length + head.len() as u8 + 1], head, &[length], &properties].concat();
        self.0.write_all(&packet).unwrap();
    }

    fn challenge(&mut self, nonce: &str) -> String {
        let challenge = format!("r={nonce}server,s={},i={ITERATIONS}", Base64::encode_string(SALT));
        self.say(0xF0, &[ReasonCode::ContinueAuthentication as u8], &challenge);
        challenge
    }

    /// Lets the client in, as who knows its keys.
    fn accept(&mut self) {
        let nonce = nonce(&self.packet());
        let challenge = self.challenge(&nonce);
        let proof = text_behind(&self.packet(), "c=");
        let unproved = proof.split(",p=").next().unwrap();
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, SALT, PASSWORD, &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let key = sign(&salted, b"Server Key");
        let signed = format!("n=ann,r={nonce},{challenge},{unproved}");
        let signature = Base64::encode_string(sign(key.as_ref(), signed.as_bytes()).as_ref());
        self.say(0x20, &[0, 0], &format!("v={signature}"));
    }
}

/// The rest of a packet from a word on: the data are the last property of AUTH.
fn text_behind(packet: &[u8], word: &str) -> String {
    let at = packet.windows(word.len()).position(|w| w == word.as_bytes()).unwrap();
    String::from_utf8_lossy(&packet[at..]).into_owned()
}

/// The nonce of the client's first message, which ends where it is no base64.
fn nonce(packet: &[u8]) -> String {
    let rest = text_behind(packet, "n=ann,r=").split_off("n=ann,r=".len());
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "+/=".contains(*c)).collect()
}

/// How a re-authentication ends whose AUTH gets this answer.
fn refused(reconnect: Reconnect, timeout: Duration, answer: fn(&mut Server)) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut server = Server(listener.accept().unwrap().0);
        server.0.set_read_timeout(Some(SECONDS_10)).unwrap();
        server.accept();
        let auth = server.packet();
        assert_eq!((auth[0], auth[2]), (0xF0, ReasonCode::ReAuthenticate as u8));
        answer(&mut server);
    });
    let behavior = Behavior { reconnect, ..Behavior::default() };
    let connector = Connector::new(at, Options::new(Version::V5, "c")).unwrap().behavior(behavior);
    let client = connector.scram("ann", PASSWORD).unwrap().connect().unwrap();
    let begun = Instant::now();
    let error = client.reauthenticate(timeout).unwrap_err();
    assert!(begun.elapsed() < SECONDS_10, "{error:?}");
    drop(client);
    server.join().unwrap();
    error
}

/// The server waits until the client leaves.
fn left(server: &mut Server) {
    let _ = server.0.read_to_end(&mut Vec::new());
}

#[test]
fn a_refused_reauthentication_ends_the_wait() {
    let later = Reconnect::After { first: SECONDS_10, most: SECONDS_10 };
    for reconnect in [Reconnect::Never, later] {
        let wait = SECONDS_10 * 2;
        let error = refused(reconnect, wait, |server| server.0.write_all(b"\xE0\x01\x87").unwrap());
        let told = matches!(error, Error::Disconnected(By::Peer(ReasonCode::NotAuthorized)));
        assert!(told, "{error:?}");
        let error = refused(reconnect, wait, |_| {});
        assert!(matches!(error, Error::Disconnected(By::Transport)), "{error:?}");
        // In the middle of it.
        let error = refused(reconnect, wait, |server| {
            server.challenge("another");
            left(server);
        });
        assert!(matches!(error, Error::Scram(ScramError::Message)), "{error:?}");
        // A success that proves nothing.
        let error = refused(reconnect, wait, |server| {
            server.say(0xF0, &[0], "v=AAAA");
            left(server);
        });
        assert!(matches!(error, Error::Scram(_)), "{error:?}");
    }
}

#[test]
fn a_reauthentication_without_an_answer_ends_with_the_timeout() {
    let error = refused(Reconnect::Never, Duration::from_millis(200), left);
    assert!(matches!(error, Error::Timeout), "{error:?}");
}
