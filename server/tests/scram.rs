//! SCRAM-SHA-256 over TCP in this process: with our own client, and in bytes that nothing of ours has made.
#![allow(missing_docs)]

mod peer;

use base64ct::{Base64, Encoding};
use hikyaku::auth::{Hash, SCRAM_ITERATIONS_MIN, Scheme, Security};
use hikyaku::config::{Endpoint, ListenerSettings, SecuritySettings};
use hikyaku::{Options, Server};
use hikyaku_client::{
    Behavior, By, Client, Connector, Error, QoS, ReasonCode, Reconnect, ScramError, SendError, Version,
};
use hikyaku_proto::broker::Config;
use hikyaku_proto::codec::{Auth, Connect, Frame, Packet, PropertiesBuf, Property};
use peer::Peer;
use ring::{digest, hmac, pbkdf2};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SECONDS_10: Duration = Duration::from_secs(10);

/// A broker with users, and one where users are not asked.
struct Broker {
    server: Server,
    file: PathBuf,
    listeners: Vec<ListenerSettings>,
    at: SocketAddr,
    open: SocketAddr,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

fn users(ann: &str) -> String {
    let iterations = SCRAM_ITERATIONS_MIN;
    let line = |name: &str, password: &str, scheme| {
        format!("{name}:{}\n", Hash::create(scheme, password.as_bytes()).unwrap())
    };
    [
        line("ann", ann, Scheme::ScramSha256 { iterations }),
        line("bob", "other", Scheme::ScramSha256 { iterations }),
        line("ö,=", "ü", Scheme::ScramSha256 { iterations }),
        line("old", "secret", Scheme::Sha512),
    ]
    .concat()
}

impl Broker {
    fn start() -> Broker {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hikyaku-scram-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, users("secret")).unwrap();
        let endpoint = || Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
        let listener = |security| ListenerSettings { endpoint: endpoint(), security, ..Default::default() };
        let listeners = vec![
            listener(SecuritySettings { password_file: Some(file.clone()), ..Default::default() }),
            listener(SecuritySettings { allow_anonymous: Some(true), ..Default::default() }),
        ];
        let (config, security) = load(&listeners);
        let options =
            Options { listeners: listeners.clone(), workers: 2, config, security, ..Options::default() };
        let server = Server::start(options).unwrap();
        let (at, open) = (server.local_addrs()[0], server.local_addrs()[1]);
        Broker { server, file, listeners, at, open }
    }

    fn connector(&self, id: &str) -> Connector {
        Connector::new(self.at, hikyaku_client::Options::new(Version::V5, id)).unwrap()
    }

    fn connect(&self, user: &str, password: &str) -> Result<Client, Error> {
        self.connector("c").scram(user, password.as_bytes()).unwrap().connect()
    }
}

fn load(listeners: &[ListenerSettings]) -> (Config, Security) {
    let mut config = Config { sys_interval_s: 0, ..Config::default() };
    let (security, _) = Security::load(listeners, &mut config).unwrap();
    (config, security)
}

#[test]
fn our_client_gets_in_and_authenticates_anew() {
    let broker = Broker::start();
    for (user, password) in [("ann", "secret"), ("ö,=", "ü")] {
        let client = broker.connect(user, password).unwrap();
        let all = client.subscribe("t", QoS::AtLeastOnce).unwrap();
        for _ in 0..3 {
            client.publish("t", b"x", QoS::AtLeastOnce).unwrap();
            client.reauthenticate(SECONDS_10).unwrap();
            assert!(all.recv(SECONDS_10).unwrap().is_some());
        }
        client.disconnect(SECONDS_10).unwrap();
    }
    // A password will do as well.
    let named = |user: &str, password: &str| hikyaku_client::Options {
        username: Some(user.into()),
        password: Some(password.into()),
        ..hikyaku_client::Options::new(Version::V3_1_1, "plain")
    };
    let plain = Client::connect(broker.at, named("ann", "secret")).unwrap();
    assert!(matches!(plain.reauthenticate(SECONDS_10), Err(Error::Send(SendError::NotAuthenticating))));
    assert!(matches!(
        Client::connect(broker.at, named("ann", "wrong")),
        Err(Error::Refused(ReasonCode::NotAuthorized))
    ));
}

#[test]
fn who_is_not_the_user_does_not_get_in() {
    let broker = Broker::start();
    for (user, password) in [("ann", "other"), ("nobody", "secret"), ("old", "secret"), ("ann", "")] {
        let refused = broker.connect(user, password);
        assert!(matches!(refused, Err(Error::Refused(ReasonCode::NotAuthorized))), "{user} {password}");
    }
    let options = hikyaku_client::Options {
        username: Some("bob".into()),
        ..hikyaku_client::Options::new(Version::V5, "c")
    };
    let other = Connector::new(broker.at, options).unwrap().scram("ann", b"secret").unwrap().connect();
    assert!(matches!(other, Err(Error::Refused(ReasonCode::NotAuthorized))), "another name in CONNECT");
    let open = Connector::new(broker.open, hikyaku_client::Options::new(Version::V5, "c")).unwrap();
    let no_method = open.scram("ann", b"secret").unwrap().connect();
    assert!(matches!(no_method, Err(Error::Refused(ReasonCode::BadAuthenticationMethod))));
    let old = Connector::new(broker.at, hikyaku_client::Options::new(Version::V3_1_1, "c")).unwrap();
    assert!(matches!(old.scram("ann", b"secret"), Err(Error::Scram(ScramError::Version))));
    assert!(matches!(broker.connector("c").scram("", b"x"), Err(Error::Scram(ScramError::Username))));
}

#[test]
fn a_lost_connection_is_authenticated_again() {
    let broker = Broker::start();
    let first = Duration::from_millis(1);
    let behavior = Behavior { reconnect: Reconnect::After { first, most: first }, ..Behavior::default() };
    let client = broker.connector("c").behavior(behavior).scram("ann", b"secret").unwrap().connect().unwrap();
    // With new files users have to come in again whose line is another one, be it of the same password.
    std::fs::write(&broker.file, users("secret")).unwrap();
    let (config, security) = load(&broker.listeners);
    broker.server.remote().configure(config, security);
    let deadline = Instant::now() + SECONDS_10;
    while client.publish("t", b"x", QoS::AtLeastOnce).unwrap().wait(Duration::from_millis(50)).is_err()
        || client.reauthenticate(SECONDS_10).is_err()
    {
        assert!(Instant::now() < deadline, "it does not come back");
    }
    std::fs::write(&broker.file, users("changed")).unwrap();
    let (config, security) = load(&broker.listeners);
    broker.server.remote().configure(config, security);
    while client.publish("t", b"x", QoS::AtLeastOnce).is_ok() {
        assert!(Instant::now() < deadline, "it gets in by the old password");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client made of the RFC and of nothing else.
struct Raw {
    peer: Peer,
    challenge: String,
}

fn encode(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(Version::V5, &mut bytes).unwrap();
    bytes
}

fn properties(method: &str, data: &[u8]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::default();
    properties.push(Property::AuthenticationMethod(method));
    properties.push(Property::AuthenticationData(data));
    properties
}

impl Raw {
    fn open(at: SocketAddr, first: &str) -> Raw {
        let mut peer = Peer::open(at);
        peer.send(&encode(&Packet::Connect(Connect {
            version: Version::V5,
            bridge: false,
            clean_start: true,
            keep_alive_s: 0,
            properties: properties("SCRAM-SHA-256", first.as_bytes()).as_properties(),
            client_id: "raw",
            will: None,
            username: None,
            password: None,
        })));
        Raw { peer, challenge: String::new() }
    }

    /// Begins as a user, and has got a challenge.
    fn begin(at: SocketAddr, user: &str) -> Raw {
        let mut raw = Raw::open(at, &format!("n,,n={user},r=mine"));
        let (reason, data) = raw.answer();
        assert_eq!(reason, ReasonCode::ContinueAuthentication);
        raw.challenge = data;
        raw
    }

    /// Reason and authentication data of what comes.
    fn answer(&mut self) -> (ReasonCode, String) {
        let bytes = self.peer.packet();
        let frame = Frame::parse(&bytes, u32::MAX).unwrap().unwrap();
        let (reason, properties) = match Packet::decode(Version::V5, frame).unwrap() {
            Packet::ConnAck(p) => (p.reason, p.properties),
            Packet::Auth(p) => (p.reason, p.properties),
            Packet::Disconnect(p) => (p.reason, p.properties),
            other => panic!("{other:?}"),
        };
        let data = properties.authentication_data().unwrap_or_default();
        (reason, String::from_utf8(data.to_vec()).unwrap())
    }

    fn auth(&mut self, reason: ReasonCode, data: &str) {
        let properties = properties("SCRAM-SHA-256", data.as_bytes());
        self.peer.send(&encode(&Packet::Auth(Auth { reason, properties: properties.as_properties() })));
    }

    fn last(&self, user: &str, password: &str) -> String {
        let parts: Vec<&str> = self.challenge.split(',').collect();
        let [nonce, salt, iterations] = parts[..] else { panic!("{}", self.challenge) };
        let salt = Base64::decode_vec(salt.strip_prefix("s=").unwrap()).unwrap();
        let iterations = iterations.strip_prefix("i=").unwrap().parse().unwrap();
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let sign = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
        let client = sign(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, client.as_ref());
        let signed = format!("n={user},r=mine,{},c=biws,{nonce}", self.challenge);
        let mask = sign(stored.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client.as_ref().iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect();
        format!("c=biws,{nonce},p={}", Base64::encode_string(&proof))
    }

    fn finish(&mut self, last: &str) -> (ReasonCode, String) {
        self.auth(ReasonCode::ContinueAuthentication, last);
        self.answer()
    }
}

#[test]
fn a_recorded_exchange_is_worth_nothing() {
    let broker = Broker::start();
    let mut raw = Raw::begin(broker.at, "ann");
    let recorded = raw.last("ann", "secret");
    let (reason, data) = raw.finish(&recorded);
    assert!(reason == ReasonCode::Success && data.starts_with("v="));
    let mut replayed = Raw::begin(broker.at, "ann");
    assert_ne!(replayed.challenge, raw.challenge);
    assert_eq!(replayed.finish(&recorded), (ReasonCode::NotAuthorized, String::new()));
    replayed.peer.expect_end(&[]);
}

#[test]
fn the_unknown_are_asked_like_the_known() {
    let broker = Broker::start();
    let salt = |user: &str| {
        let raw = Raw::begin(broker.at, user);
        let (_, rest) = raw.challenge.split_once(",s=").unwrap();
        rest.to_string()
    };
    for user in ["nobody", "old"] {
        assert_eq!(salt(user), salt(user));
        assert_ne!(salt(user), salt("somebody"));
        assert_eq!(salt(user).len(), salt("ann").len());
        assert!(salt(user).ends_with(",i=4096"));
        let mut raw = Raw::begin(broker.at, user);
        let last = raw.last(user, "secret");
        assert_eq!(raw.finish(&last), (ReasonCode::NotAuthorized, String::new()));
    }
    for first in ["", "p=tls-unique,,n=ann,r=mine", "n,,n=ann", "\0"] {
        assert_eq!(Raw::open(broker.at, first).answer().0, ReasonCode::NotAuthorized, "{first}");
    }
}

#[test]
fn a_reauthentication_that_fails_ends_the_connection() {
    let broker = Broker::start();
    for (user, password) in [("ann", "wrong"), ("bob", "other")] {
        let mut raw = Raw::begin(broker.at, "ann");
        let last = raw.last("ann", "secret");
        assert_eq!(raw.finish(&last).0, ReasonCode::Success);
        raw.auth(ReasonCode::ReAuthenticate, &format!("n,,n={user},r=mine"));
        let (reason, data) = raw.answer();
        raw.challenge = data;
        let reason = match reason {
            ReasonCode::ContinueAuthentication => {
                // What it may it still may.
                raw.peer.ping();
                let last = raw.last(user, password);
                raw.finish(&last).0
            }
            reason => reason,
        };
        assert_eq!(reason, ReasonCode::NotAuthorized, "{user}");
        raw.peer.expect_end(&[]);
    }
}

#[test]
fn files_that_change_meanwhile_count() {
    let broker = Broker::start();
    let mut raw = Raw::begin(broker.at, "ann");
    let last = raw.last("ann", "secret");
    std::fs::write(&broker.file, users("changed")).unwrap();
    let (config, security) = load(&broker.listeners);
    broker.server.remote().configure(config, security);
    // The word of it is on its way to the workers before the proof is.
    assert_eq!(raw.finish(&last).0, ReasonCode::ServerBusy);
    assert!(broker.connect("ann", "secret").is_err());
    assert!(broker.connect("ann", "changed").is_ok());
}

#[test]
fn a_server_that_does_not_know_the_password_is_left() {
    // It lets everyone in, without having shown anything.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for signature in [None, Some("v=AAAA")] {
            let mut peer = Peer(listener.accept().unwrap().0);
            peer.packet();
            let mut properties = PropertiesBuf::default();
            properties.push(Property::AuthenticationMethod("SCRAM-SHA-256"));
            if let Some(signature) = signature {
                properties.push(Property::AuthenticationData(signature.as_bytes()));
            }
            let connack = hikyaku_proto::codec::ConnAck {
                session_present: false,
                reason: ReasonCode::Success,
                properties: properties.as_properties(),
            };
            peer.send(&encode(&Packet::ConnAck(connack)));
            peer.expect_end(&[0xE0, 1, 0x80]);
        }
    });
    for _ in 0..2 {
        let connector = Connector::new(at, hikyaku_client::Options::new(Version::V5, "c")).unwrap();
        let result = connector.scram("ann", b"secret").unwrap().connect();
        assert!(matches!(result, Err(Error::Scram(ScramError::Signature))), "{result:?}");
    }
    server.join().unwrap();
}

#[test]
fn a_failed_reauthentication_is_told_to_who_waits() {
    let broker = Broker::start();
    let behavior = Behavior { reconnect: Reconnect::Never, ..Behavior::default() };
    let connector = broker.connector("c").behavior(behavior).scram("ann", b"secret").unwrap();
    assert!(!format!("{connector:?}").contains("115, 101"), "no password in a log");
    let client = connector.connect().unwrap();
    std::fs::write(&broker.file, users("changed")).unwrap();
    let (config, security) = load(&broker.listeners);
    broker.server.remote().configure(config, security);
    // The new file has closed it already, or does so now.
    match client.reauthenticate(SECONDS_10) {
        Err(
            Error::Disconnected(By::Peer(_) | By::Transport)
            | Error::Send(SendError::NotConnected)
            | Error::Closed,
        ) => {}
        other => panic!("{other:?}"),
    }
}
