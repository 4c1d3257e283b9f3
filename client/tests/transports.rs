//! The blocking client over TLS, WebSocket and Unix sockets, which a thread takes off before the broker.

mod broker;

use broker::{Broker, SECONDS_10};
use hikyaku_client::{Address, Connector, Error, Options, QoS, Scheme, Tls, TlsVersion, Verify, Version};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
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
        ("127.0.0.1", with(Verify::Full, trusted()), "not valid for name"),
        ("localhost", with(Verify::Full, others.trust()), "invalid peer certificate"),
        ("localhost", with(Verify::AnyName, others.trust()), "invalid peer certificate"),
        ("localhost", Tls::default(), "invalid peer certificate"),
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
