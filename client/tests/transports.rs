//! The blocking client over TLS, WebSocket and Unix sockets, which a thread takes off before the broker.

mod broker;

use broker::{Broker, SECONDS_10};
use hikyaku_client::{
    Address, Connector, Error, Options, Proxy, QoS, Scheme, Tls, TlsVersion, Verify, Version,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket};

const STEP: Duration = Duration::from_millis(2);

/// A certificate authority, and a certificate for `localhost` from it, in a folder of this test.
struct Certificates {
    folder: PathBuf,
    server: Arc<ServerConfig>,
}

impl Certificates {
    fn new(name: &str) -> Certificates {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec![String::from("localhost")]).unwrap().signed_by(&key, &ca).unwrap();
        std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
        let chain = vec![CertificateDer::from(leaf.der().to_vec())];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Certificates { folder, server: Arc::new(server) }
    }

    fn trust(&self) -> Tls {
        Tls { ca_file: Some(self.folder.join("ca.pem")), ..Tls::default() }
    }
}

/// Bytes of MQTT in WebSocket messages, cut into small ones.
struct Framed<S>(WebSocket<S>, Vec<u8>);

impl<S: Read + Write> Framed<S> {
    #[expect(clippy::result_large_err, reason = "the error is tungstenite's")]
    fn accept(stream: S) -> Framed<S> {
        let answer = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/mqtt");
            let protocol = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
            Ok(response)
        };
        let socket = tungstenite::accept_hdr(stream, answer).unwrap_or_else(|error| panic!("{error}"));
        Framed(socket, Vec::new())
    }
}

impl<S: Read + Write> Read for Framed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.1.is_empty() {
            match self.0.read() {
                Ok(Message::Binary(bytes)) => self.1.extend_from_slice(&bytes),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) => return Err(error),
                Err(_) => return Ok(0),
            }
        }
        let n = self.1.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.1[..n]);
        self.1.drain(..n);
        Ok(n)
    }
}

impl<S: Read + Write> Write for Framed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.chunks(700) {
            // Pings in between are the client's to answer.
            self.0.write(Message::Ping(Vec::new().into())).map_err(io::Error::other)?;
            self.0.write(Message::Binary(part.to_vec().into())).map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(io::Error::other)
    }
}

/// Carries bytes both ways until one side ends. Both sides' reads time out.
fn relay(mut outside: impl Read + Write, broker: SocketAddr) {
    let mut inside = TcpStream::connect(broker).unwrap();
    inside.set_read_timeout(Some(STEP)).unwrap();
    let mut buffer = vec![0; 50_000];
    let mut carry = |from: &mut dyn Read, to: &mut dyn Write| match from.read(&mut buffer) {
        Ok(0) => false,
        Ok(n) => to.write_all(&buffer[..n]).and_then(|()| to.flush()).is_ok(),
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    while carry(&mut outside, &mut inside) && carry(&mut inside, &mut outside) {}
}

/// Accepts connections and carries them to the broker when `wrap` has taken off what they come in.
fn serve<S: Read + Write>(
    broker: &Broker,
    wrap: impl Fn(TcpStream) -> S + Send + Clone + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, target) = (listener.local_addr().unwrap(), broker.addr);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let wrap = wrap.clone();
            std::thread::spawn(move || {
                let timeouts = stream.try_clone().unwrap();
                let outside = wrap(stream);
                timeouts.set_read_timeout(Some(STEP)).unwrap();
                relay(outside, target);
            });
        }
    });
    addr
}

fn options() -> Options {
    Options { connect_timeout: Duration::from_secs(10), ..Options::new(Version::V5, "transports") }
}

/// Small messages and one that fills all buffers go there and back.
fn round_trip(connector: Connector) {
    let client = connector.connect().unwrap();
    let all = client.subscribe("t", QoS::AtLeastOnce).unwrap();
    let large = vec![7; 1_000_000];
    for payload in [&b"one"[..], &large, b""] {
        client.publish("t", payload, QoS::AtLeastOnce).unwrap();
        let message = all.recv(SECONDS_10).unwrap().expect("it arrives");
        assert!(message.payload() == payload);
    }
    client.disconnect(SECONDS_10).unwrap();
}

fn tls_stream(config: &Arc<ServerConfig>, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream)
}

#[test]
fn unix_sockets() {
    let broker = Broker::start();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("client-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let target = broker.addr;
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(STEP)).unwrap();
        relay(stream, target);
    });
    round_trip(Connector::new(&format!("unix://{}", path.display()), options()).unwrap());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn websocket() {
    let broker = Broker::start();
    let addr = serve(&broker, Framed::accept);
    round_trip(Connector::new(&format!("ws://{addr}"), options()).unwrap());
}

#[test]
fn tls_and_websocket_in_tls() {
    let broker = Broker::start();
    let certificates = Certificates::new("both");
    let config = certificates.server.clone();
    let plain = serve(&broker, move |stream| tls_stream(&config, stream));
    let config = certificates.server.clone();
    let framed = serve(&broker, move |stream| Framed::accept(tls_stream(&config, stream)));
    for (scheme, addr) in [(Scheme::Mqtts, plain), (Scheme::Wss, framed)] {
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let tls = Tls { version, ..certificates.trust() };
            let address = Address::new(scheme, "localhost", addr.port());
            round_trip(Connector::new(address, options()).unwrap().tls(&tls).unwrap());
        }
    }
}

#[test]
fn certificates_are_checked_as_far_as_asked() {
    let broker = Broker::start();
    let (certificates, others) = (Certificates::new("checked"), Certificates::new("others"));
    let config = certificates.server.clone();
    let addr = serve(&broker, move |stream| tls_stream(&config, stream));
    let connect = |host: &str, tls: &Tls| {
        Connector::new(Address::new(Scheme::Mqtts, host, addr.port()), options())?.tls(tls)?.connect()
    };
    let with = |verify, tls: Tls| Tls { verify, ..tls };
    let trusted = || certificates.trust();
    assert!(connect("localhost", &with(Verify::Full, trusted())).is_ok());
    assert!(connect("127.0.0.1", &with(Verify::AnyName, trusted())).is_ok());
    assert!(connect("127.0.0.1", &with(Verify::Nothing, others.trust())).is_ok());
    let folder = Tls { ca_path: Some(certificates.folder.clone()), ..Tls::default() };
    assert!(connect("localhost", &folder).is_ok());
    for (host, tls, wanted) in [
        ("127.0.0.1", with(Verify::Full, trusted()), "is for localhost, not for 127.0.0.1"),
        ("localhost", with(Verify::Full, others.trust()), "is not known here"),
        ("localhost", with(Verify::AnyName, others.trust()), "is not known here"),
        ("localhost", Tls::default(), "is not known here"),
    ] {
        match connect(host, &tls) {
            Err(Error::Io(error)) => assert!(error.to_string().contains(wanted), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    let missing = Tls { ca_file: Some("no/such/file".into()), ..Tls::default() };
    let error = connect("localhost", &missing).unwrap_err().to_string();
    assert!(error.starts_with("cannot read no/such/file: "), "{error}");
}

/// A server that shows one certificate, whatever its key.
fn showing(certificate: &CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let key = CertifiedKey::new(vec![certificate.clone()], key);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    Arc::new(config)
}

#[test]
fn a_server_that_wants_a_certificate_says_so() {
    let broker = Broker::start();
    let certificates = Certificates::new("wanted");
    let mut roots = rustls::RootCertStore::empty();
    let ca = std::fs::read(certificates.folder.join("ca.pem")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(clients.build().unwrap());
    let config = Arc::new(config.with_cert_resolver(certificates.server.cert_resolver.clone()));
    let addr = serve(&broker, move |stream| tls_stream(&config, stream));
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let tls = Tls { version, ..certificates.trust() };
        let address = Address::new(Scheme::Mqtts, "localhost", addr.port());
        match Connector::new(address, options()).unwrap().tls(&tls).unwrap().connect() {
            Err(Error::Io(error)) => {
                assert!(error.to_string().contains("certificate"), "{version:?} {error}");
            }
            other => panic!("{version:?} {other:?}"),
        }
    }
}

/// A proxy that lets `me` with `secret` through, to `target` only, and by the name `broker.invalid` only.
fn socks(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let read = |stream: &mut TcpStream, expected: &[u8]| {
        let mut got = vec![0; expected.len()];
        stream.read_exact(&mut got).is_ok_and(|()| got == expected)
    };
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            assert!(read(&mut stream, b"\x05\x02\x00\x02"));
            stream.write_all(b"\x05\x02").unwrap();
            if !read(&mut stream, b"\x01\x02me\x06secret") {
                stream.write_all(b"\x01\x01").unwrap();
                continue;
            }
            stream.write_all(b"\x01\x00").unwrap();
            let request = [b"\x05\x01\x00\x03\x0Ebroker.invalid", &1883u16.to_be_bytes()[..]].concat();
            assert!(read(&mut stream, &request));
            stream.write_all(b"\x05\x00\x00\x01\x7F\x00\x00\x01\x00\x01").unwrap();
            stream.set_read_timeout(Some(STEP)).unwrap();
            std::thread::spawn(move || relay(stream, target));
        }
    });
    addr
}

#[test]
fn a_proxy_finds_the_server() {
    let broker = Broker::start();
    let addr = socks(broker.addr);
    let through = |user: &str| {
        let proxy: Proxy = format!("socks5h://{user}@{addr}").parse().unwrap();
        Connector::new("mqtt://broker.invalid", options()).unwrap().proxy(proxy)
    };
    round_trip(through("me:secret"));
    match through("me:secreT").connect() {
        Err(Error::Io(error)) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_of_version_1_is_named_as_the_reason() {
    let broker = Broker::start();
    let certificates = Certificates::new("version-1");
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![String::from("localhost")]).unwrap();
    let made = params.self_signed(&key).unwrap();
    // [0] INTEGER 2 says version 3; 0 is version 1. The signature is wrong, but nobody gets that far.
    let mut der = made.der().to_vec();
    let at = der.windows(5).position(|bytes| bytes == [0xA0, 3, 2, 1, 2]).unwrap();
    der[at + 4] = 0;
    let config = showing(&CertificateDer::from(der), &key);
    let addr = serve(&broker, move |stream| tls_stream(&config, stream));
    let address = Address::new(Scheme::Mqtts, "localhost", addr.port());
    let connector = Connector::new(address, options()).unwrap().tls(&certificates.trust()).unwrap();
    match connector.connect() {
        Err(Error::Io(error)) => assert!(error.to_string().contains("X.509 version 1"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_that_was_given_is_trusted_as_it_stands() {
    let broker = Broker::start();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("given");
    std::fs::create_dir_all(&folder).unwrap();
    let (key, other_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let made = |name: &str, change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(vec![String::from("localhost")]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let made = params.self_signed(&key).unwrap();
        std::fs::write(folder.join(name), made.pem()).unwrap();
        CertificateDer::from(made.der().to_vec())
    };
    let authority = made("authority", |_| {});
    let plain = made("plain", |params| params.is_ca = IsCa::NoCa);
    let expired = made("expired", |params| params.not_after = rcgen::date_time_ymd(2020, 2, 29));
    let early = made("early", |params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
    let nameless = made("nameless", |params| params.subject_alt_names.clear());
    // Signed by somebody whom nobody knows.
    let issuer = {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let issued = CertificateParams::new(vec![String::from("localhost")]).unwrap();
    let issued = issued.signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("issued"), issued.pem()).unwrap();
    let issued = CertificateDer::from(issued.der().to_vec());

    // Whom the plain one has issued, who is no authority.
    let params = CertificateParams::new(vec![String::from("localhost")]).unwrap();
    let mut plain_params = params.clone();
    plain_params.is_ca = IsCa::NoCa;
    let by_plain = params.signed_by(&other_key, &rcgen::Issuer::new(plain_params, &key)).unwrap();
    let by_plain = CertificateDer::from(by_plain.der().to_vec());

    let expired_text = "was valid until 2020-02-29; the clock here says 2";
    for (shown, key, given, host, verify, wanted) in [
        (&authority, &key, "authority", "localhost", Verify::Full, Ok(())),
        (&plain, &key, "plain", "localhost", Verify::Full, Ok(())),
        (&issued, &key, "issued", "localhost", Verify::Full, Ok(())),
        (&authority, &key, "authority", "127.0.0.1", Verify::AnyName, Ok(())),
        (&nameless, &key, "nameless", "localhost", Verify::AnyName, Ok(())),
        (
            &authority,
            &key,
            "authority",
            "127.0.0.1",
            Verify::Full,
            Err("is for localhost, not for 127.0.0.1"),
        ),
        (&issued, &key, "issued", "127.0.0.1", Verify::Full, Err("is for localhost, not for 127.0.0.1")),
        (&nameless, &key, "nameless", "localhost", Verify::Full, Err("names no host")),
        (&authority, &key, "plain", "localhost", Verify::Full, Err("shows an authority's certificate")),
        (
            &by_plain,
            &other_key,
            "plain",
            "localhost",
            Verify::Full,
            Err("who issued the server's certificate"),
        ),
        (&issued, &key, "plain", "localhost", Verify::Full, Err("who issued the server's certificate")),
        (&expired, &key, "expired", "localhost", Verify::Full, Err(expired_text)),
        (&expired, &key, "expired", "localhost", Verify::AnyName, Err(expired_text)),
        (&early, &key, "early", "localhost", Verify::AnyName, Err("is valid from 3000-01-01 on")),
        // Whoever knows the certificate does not have its key.
        (&authority, &other_key, "authority", "localhost", Verify::AnyName, Err("")),
    ] {
        let config = showing(shown, key);
        let addr = serve(&broker, move |stream| tls_stream(&config, stream));
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let tls = Tls { ca_file: Some(folder.join(given)), verify, version, ..Tls::default() };
            let address = Address::new(Scheme::Mqtts, host, addr.port());
            let connected = Connector::new(address, options()).unwrap().tls(&tls).unwrap().connect();
            match (connected, wanted) {
                (Ok(_), Ok(())) => {}
                (Err(Error::Io(error)), Err(text)) => {
                    assert!(error.to_string().contains(text), "{given} {error}");
                }
                (other, _) => panic!("{given} as {host}: {other:?}"),
            }
        }
    }
}

/// Very many connections are made on a poll, which is another way to each of these.
#[test]
#[cfg(feature = "tools")]
fn hikyaku_bench_takes_all_of_them() {
    let broker = Broker::start();
    let (certificates, others) = (Certificates::new("bench"), Certificates::new("bench-others"));
    let [first, second] = [certificates.server.clone(), certificates.server.clone()];
    let framed = serve(&broker, Framed::accept).port().to_string();
    let secured = serve(&broker, move |stream| tls_stream(&first, stream)).port().to_string();
    let both = serve(&broker, move |stream| Framed::accept(tls_stream(&second, stream))).port().to_string();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let target = broker.addr;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(STEP)).unwrap();
            std::thread::spawn(move || relay(stream, target));
        }
    });
    let bench = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hikyaku-bench"));
        command.env_clear().env("XDG_CONFIG_HOME", "/nonexistent");
        command.args(["p2p", "-n", "3", "-C", "60", "-q", "1", "-s", "3000", "--quiet"]).args(args);
        command.output().unwrap()
    };
    let (ca, other) = (certificates.folder.join("ca.pem"), others.folder.join("ca.pem"));
    let (ca, other) = (ca.to_str().unwrap(), other.to_str().unwrap());
    for args in [
        &["--ws", "-p", &framed][..],
        &["--cafile", ca, "-p", &secured],
        &["--cafile", ca, "-p", &secured, "--tls-version", "tlsv1.2"],
        &["--cafile", ca, "-p", &both, "--ws"],
        &["--unix", path.to_str().unwrap()],
    ] {
        let output = bench(args);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("60 sent, 60 received, 0 lost, 0 duplicated, 0 out of order\n"),
            "{args:?} {output:?}"
        );
        assert!(output.status.success(), "{args:?} {output:?}");
    }
    std::fs::remove_file(path).unwrap();
    let output = bench(&["--cafile", other, "-p", &secured]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("is not known here") && text.contains("--cafile"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}
