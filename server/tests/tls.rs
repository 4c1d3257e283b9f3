//! A server in this process, and rustls clients that speak to it.
#![allow(missing_docs)]

mod peer;

use hikyaku::config::{Endpoint, ListenerSettings, Place, TlsSettings, TlsVersion};
use hikyaku::{Certificates, Options, Server, StartError};
use hikyaku_proto::broker::Config;
use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use peer::{Peer, connect, publish, subscribe};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SigningKey,
};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, KeyUsagePurpose, RevokedCertParams, SerialNumber};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A folder with a CA and what it signed.
struct Files {
    folder: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hikyaku-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Files { folder, ca };
        files.write("ca.crt", files.ca.pem().as_bytes());
        files.sign("server", ExtendedKeyUsagePurpose::ServerAuth, |_| {});
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Writes NAME.crt and NAME.key.
    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "Test");
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        self.write(&format!("{name}.crt"), certificate.pem().as_bytes());
        self.write(&format!("{name}.key"), key.serialize_pem().as_bytes());
    }

    fn sign_client(&self, name: &str, serial: u64) {
        self.sign(name, ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.serial_number = Some(SerialNumber::from(serial));
        });
    }

    /// Makes NAME.crt one of version 1: without extensions, signed by `issuer`.
    fn make_version_1(&self, name: &str, issuer: &KeyPair) {
        let der = CertificateDer::from_pem_file(self.path(&format!("{name}.crt"))).unwrap();
        let content = |der: &[u8]| der[header(der)..].to_vec();
        // The version stands before the other fields, the extensions behind them.
        let (mut rest, mut fields) = (&content(&content(&der))[5..].to_vec()[..], Vec::new());
        for _ in 0..6 {
            let (field, behind) = rest.split_at(whole(rest));
            fields.extend(field);
            rest = behind;
        }
        let algorithm = {
            let content = content(&der);
            let behind = &content[whole(&content)..];
            behind[..whole(behind)].to_vec()
        };
        let signed = tagged(0x30, &fields);
        let signature = tagged(3, &[&[0][..], &issuer.sign(&signed).unwrap()].concat());
        let der = tagged(0x30, &[signed, algorithm, signature].concat());
        let file = fs::File::create(self.path(&format!("{name}.crt"))).unwrap();
        write_pem(file, "CERTIFICATE", &der);
    }

    fn revoke(&self, serial: u64) {
        let day = Duration::from_secs(24 * 3600);
        let now = std::time::SystemTime::now();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: (now - day).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (now - day).into(),
            next_update: (now + day).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write("ca.crl", list.signed_by(&self.ca).unwrap().pem().unwrap().as_bytes());
    }

    fn settings(&self) -> TlsSettings {
        let at = Place { file: Path::new("test.conf").into(), line: 7, column: 1 };
        TlsSettings { at, ..TlsSettings::new(self.path("server.crt"), self.path("server.key")) }
    }

    fn settings_with_clients(&self) -> TlsSettings {
        TlsSettings { cafile: Some(self.path("ca.crt")), require_certificate: true, ..self.settings() }
    }

    /// What a client is, which trusts the CA and shows the certificate NAME.
    fn client(&self, name: Option<&str>) -> ClientConfig {
        self.client_of(rustls::ALL_VERSIONS, name)
    }

    fn client_of(&self, versions: &[&'static SupportedProtocolVersion], name: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.unwrap().with_root_certificates(roots);
        let Some(name) = name else { return builder.with_no_client_auth() };
        let chain = CertificateDer::pem_file_iter(self.path(&format!("{name}.crt"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        // Not compared with the certificate, which may be one that rustls cannot read.
        let key = CertifiedKey::new(chain.map(Result::unwrap).collect(), key);
        builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
    }
}

/// How long a DER value's tag and length are.
fn header(der: &[u8]) -> usize {
    if der[1] < 0x80 { 2 } else { 2 + usize::from(der[1] & 0x7F) }
}

/// How long a DER value is.
fn whole(der: &[u8]) -> usize {
    let length = if der[1] < 0x80 { &der[1..2] } else { &der[2..header(der)] };
    header(der) + length.iter().fold(0, |n, &byte| n << 8 | usize::from(byte))
}

/// A DER value.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u16;
    let mut der = vec![tag];
    match length {
        0..0x80 => der.push(length as u8),
        _ => der.extend([[0x82].as_slice(), &length.to_be_bytes()].concat()),
    }
    der.extend(content);
    der
}

fn write_pem(mut file: fs::File, label: &str, der: &[u8]) {
    use base64ct::{Base64, Encoding};
    writeln!(file, "-----BEGIN {label}-----\n{}\n-----END {label}-----", Base64::encode_string(der)).unwrap();
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn try_start(workers: u16, tls: TlsSettings, allow_plaintext: bool) -> Result<Server, StartError> {
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners =
        vec![ListenerSettings { endpoint, tls: Some(tls), allow_plaintext, ..Default::default() }];
    Server::start(Options { listeners, workers, ..Options::default() })
}

fn start(workers: u16, tls: TlsSettings) -> (Server, SocketAddr) {
    let server = try_start(workers, tls, false).unwrap();
    let address = server.local_addrs()[0];
    (server, address)
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn open(to: SocketAddr, config: &Arc<ClientConfig>) -> Tls {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, stream)
}

/// Connects; an error if the broker closes instead.
fn try_connect(to: SocketAddr, config: &Arc<ClientConfig>, id: &str) -> std::io::Result<Tls> {
    let mut tls = open(to, config);
    tls.write_all(&connect(id))?;
    let mut answer = [0; 4];
    tls.read_exact(&mut answer)?;
    assert_eq!(answer, [0x20, 2, 0, 0]);
    Ok(tls)
}

fn connected(to: SocketAddr, config: &Arc<ClientConfig>, id: &str) -> Tls {
    try_connect(to, config, id).unwrap()
}

fn expect(tls: &mut Tls, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    tls.read_exact(&mut got).unwrap();
    assert!(got == bytes, "got {:02x?}", &got[..got.len().min(64)]);
}

#[test]
fn messages_of_all_sizes_pass() {
    let files = Files::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (_server, address) = start(2, files.settings());
        let client = Arc::new(files.client_of(&[version], None));
        for id in ["a", "b", "c", "d"] {
            let mut tls = connected(address, &client, id);
            tls.write_all(&subscribe(id)).unwrap();
            expect(&mut tls, &[0x90, 3, 0, 1, 0]);
            for size in [0, 1, 1_000, 16_384, 70_000, 1_900_000] {
                let message = publish(id, &vec![b'x'; size]);
                tls.write_all(&message).unwrap();
                expect(&mut tls, &message);
            }
            tls.write_all(&[0xE0, 0]).unwrap();
            let mut rest = Vec::new();
            tls.read_to_end(&mut rest).expect("the end is told by TLS");
            assert!(rest.is_empty());
        }
    }
}

#[test]
fn the_handshake_may_come_byte_by_byte() {
    struct Slow(TcpStream);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            std::thread::sleep(Duration::from_micros(50));
            self.0.write(&bytes[..1])
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl Read for Slow {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(bytes)
        }
    }
    let files = Files::new();
    let (_server, address) = start(2, files.settings());
    for id in ["a", "b", "c", "d"] {
        let Tls { conn, sock, .. } = open(address, &Arc::new(files.client(None)));
        let mut tls = StreamOwned::new(conn, Slow(sock));
        tls.write_all(&[connect(id), vec![0xC0, 0]].concat()).unwrap();
        let mut answer = [0; 6];
        tls.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0, 0xD0, 0]);
    }
}

#[test]
fn websockets_inside_tls() {
    let files = Files::new();
    let (_server, address) = start(2, files.settings());
    let mut client = files.client(None);
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let client = Arc::new(client);
    for id in ["a", "b", "c", "d"] {
        let mut tls = open(address, &client);
        let head = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let payload = [connect(id), vec![0xC0, 0]].concat();
        let mut frame = vec![0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend(payload);
        tls.write_all(&[head.as_bytes(), &frame].concat()).unwrap();
        let mut answer = vec![0; 129];
        tls.read_exact(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
        expect(&mut tls, &[0x82, 6, 0x20, 2, 0, 0, 0xD0, 0]);
        assert_eq!(tls.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        // DISCONNECT: a close frame, and TLS's own goodbye.
        tls.write_all(&[0x82, 0x82, 0, 0, 0, 0, 0xE0, 0]).unwrap();
        let mut rest = Vec::new();
        tls.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [0x88, 2, 3, 0xE8]);
    }
    let mut tls = open(address, &client);
    tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut page = String::new();
    tls.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 426 "), "{page}");
}

#[test]
fn plaintext_is_refused_unless_it_is_allowed() {
    let files = Files::new();
    let (_server, address) = start(2, files.settings());
    let mut peer = Peer::open(address);
    peer.send(&connect("plain"));
    peer.expect_end(&[]);
    let mut peer = Peer::open(address);
    peer.send(b"GET / HTTP/1.1\r\n\r\n");
    let mut page = String::new();
    peer.0.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 400 ") && page.contains("TLS"), "{page}");
    let both = try_start(2, files.settings(), true).unwrap();
    Peer::connect(both.local_addrs()[0], "plain").ping();
    connected(both.local_addrs()[0], &Arc::new(files.client(None)), "tls");
    // But not where a certificate is to be shown.
    let neither = try_start(2, files.settings_with_clients(), true).unwrap();
    let mut peer = Peer::open(neither.local_addrs()[0]);
    peer.send(&connect("plain"));
    peer.expect_end(&[]);
}

#[test]
fn a_client_certificate_lets_in_and_its_lack_keeps_out() {
    let (files, stranger) = (Files::new(), Files::new());
    files.sign_client("alice", 1);
    files.sign_client("mallory", 2);
    stranger.sign_client("alice", 1);
    files.revoke(2);
    let without_list = start(2, files.settings_with_clients());
    let crlfile = Some(files.path("ca.crl"));
    let with_list = start(2, TlsSettings { crlfile, ..files.settings_with_clients() });
    let folder = files.path("authorities");
    fs::create_dir(&folder).unwrap();
    fs::copy(files.path("ca.crt"), folder.join("0123abcd.0")).unwrap();
    fs::write(folder.join("README"), "no certificate").unwrap();
    let capath = TlsSettings { cafile: None, capath: Some(folder), ..files.settings_with_clients() };
    let with_path = start(2, capath);
    let client = |name| Arc::new(files.client(name));
    for server in [&without_list, &with_list, &with_path] {
        connected(server.1, &client(Some("alice")), "alice");
        assert!(try_connect(server.1, &client(None), "nobody").is_err());
        let mut strange = files.client(None);
        let other = stranger.client(Some("alice"));
        strange.client_auth_cert_resolver = other.client_auth_cert_resolver;
        assert!(try_connect(server.1, &Arc::new(strange), "stranger").is_err());
    }
    connected(without_list.1, &client(Some("mallory")), "mallory");
    assert!(try_connect(with_list.1, &client(Some("mallory")), "mallory").is_err());
}

#[test]
fn a_client_certificate_may_be_of_version_1() {
    let (files, stranger) = (Files::new(), Files::new());
    for (name, serial) in [("alice", 1), ("mallory", 2), ("changed", 3), ("middle", 4)] {
        files.sign_client(name, serial);
        files.make_version_1(name, files.ca.key());
    }
    files.revoke(2);
    files.sign_client("strange", 5);
    files.make_version_1("strange", stranger.ca.key());
    // The organization is written in it.
    let changed = fs::read(files.path("changed.crt")).unwrap();
    let mut der = CertificateDer::from_pem_slice(&changed).unwrap().to_vec();
    let at = der.windows(4).rposition(|w| w == b"Test").unwrap();
    der[at] = b'B';
    write_pem(fs::File::create(files.path("changed.crt")).unwrap(), "CERTIFICATE", &der);
    // What a certificate of version 1 has signed.
    let key = KeyPair::from_pem(&fs::read_to_string(files.path("middle.key")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "middle");
    params.distinguished_name.push(DnType::OrganizationName, "Test");
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let below = CertificateParams::new(vec!["below".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let middle = fs::read_to_string(files.path("middle.crt")).unwrap();
    files.write("below.crt", [below.pem(), middle].concat().as_bytes());
    files.write("below.key", key.serialize_pem().as_bytes());

    let without_list = start(1, files.settings_with_clients());
    let crlfile = Some(files.path("ca.crl"));
    let with_list = start(1, TlsSettings { crlfile, ..files.settings_with_clients() });
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = |name| Arc::new(files.client_of(&[version], Some(name)));
        connected(without_list.1, &client("alice"), "alice");
        connected(without_list.1, &client("mallory"), "mallory");
        connected(with_list.1, &client("alice"), "alice");
        assert!(try_connect(with_list.1, &client("mallory"), "mallory").is_err(), "she is on the list");
        for name in ["changed", "strange", "below"] {
            assert!(try_connect(without_list.1, &client(name), name).is_err(), "{name}");
        }
    }
}

#[test]
fn a_client_certificate_that_was_given_is_taken_as_it_is() {
    let files = Files::new();
    for (name, until) in [("own", 4000), ("old", 2001), ("unknown", 4000)] {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap().pem();
        files.write(&format!("{name}.crt"), made.as_bytes());
        files.write(&format!("{name}.key"), key.serialize_pem().as_bytes());
    }
    let read = |name| fs::read_to_string(files.path(name)).unwrap();
    files.write("all.crt", [read("ca.crt"), read("own.crt"), read("old.crt")].concat().as_bytes());
    let settings = TlsSettings { cafile: Some(files.path("all.crt")), ..files.settings_with_clients() };
    let (_server, address) = start(1, settings);
    let client = |name| Arc::new(files.client(Some(name)));
    connected(address, &client("own"), "own");
    assert!(try_connect(address, &client("old"), "old").is_err());
    assert!(try_connect(address, &client("unknown"), "unknown").is_err());
}

#[test]
fn authorities_that_are_none_are_told_at_the_start() {
    let files = Files::new();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Old");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let old = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    files.write("old.crt", old.pem().as_bytes());
    let told = |cafile| {
        let tls = Some(TlsSettings { cafile: Some(files.path(cafile)), ..files.settings_with_clients() });
        let (_, problems) =
            Certificates::load(&[ListenerSettings { tls, ..Default::default() }], None).unwrap();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let said = told("old.crt");
    assert!(said[0].contains("Warning: cafile") && said[0].contains("of CN=Old has expired"), "{said:?}");
    let said = told("server.crt");
    assert!(said[0].contains("Note: cafile") && said[0].contains("no authority's certificate"), "{said:?}");
    assert!(told("ca.crt").is_empty());
}

#[test]
fn dates_of_client_certificates_may_be_left_unchecked() {
    let files = Files::new();
    let sign = |name, serial: u64, from, until| {
        files.sign(name, ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.serial_number = Some(SerialNumber::from(serial));
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
        });
    };
    sign("old", 1, 2000, 2001);
    sign("new", 2, 3000, 3001);
    sign("revoked", 3, 2000, 2001);
    files.revoke(3);
    let checked = files.settings_with_clients();
    let crlfile = Some(files.path("ca.crl"));
    let unchecked = TlsSettings { disable_client_cert_date_checks: true, crlfile, ..checked.clone() };
    let (checked, unchecked) = (start(1, checked), start(1, unchecked));
    let client = |name| Arc::new(files.client(Some(name)));
    for name in ["old", "revoked"] {
        assert!(try_connect(checked.1, &client(name), name).is_err());
    }
    connected(unchecked.1, &client("old"), "old");
    assert!(try_connect(unchecked.1, &client("revoked"), "revoked").is_err());
    // Before its time, and the list of the revoked ones is too old by then.
    assert!(try_connect(checked.1, &client("new"), "new").is_err());
}

#[test]
fn the_chain_is_completed_from_cafile() {
    let files = Files::new();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Between");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let between = params.signed_by(&key, &files.ca).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    files.write("leaf.crt", leaf.pem().as_bytes());
    files.write("leaf.key", key.serialize_pem().as_bytes());
    files.write("both.crt", [files.ca.pem(), between.pem()].concat().as_bytes());
    let alone =
        TlsSettings { certfile: files.path("leaf.crt"), keyfile: files.path("leaf.key"), ..files.settings() };
    let completed = TlsSettings { cafile: Some(files.path("both.crt")), ..alone.clone() };
    let (alone, completed) = (start(1, alone), start(1, completed));
    let client = Arc::new(files.client(None));
    connected(completed.1, &client, "c");
    assert!(try_connect(alone.1, &client, "c").is_err());
}

#[test]
fn a_certificate_names_the_user() {
    let files = Files::new();
    files.sign_client("alice", 1);
    files.sign_client("bob", 2);
    files.sign("nameless", ExtendedKeyUsagePurpose::ClientAuth, |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    });
    let by_name = TlsSettings { use_identity_as_username: true, ..files.settings_with_clients() };
    let by_subject = TlsSettings { use_subject_as_username: true, ..files.settings_with_clients() };
    for (tls, username) in [(by_name, "alice"), (by_subject, "O=Test,CN=alice")] {
        let who = Who::User(username.into());
        let rule = Rule { who, access: Access::ReadWrite, filter: "t".into(), line: 0 };
        let rights = Arc::new(Rights::Rules(Rules::new(None, [rule])));
        let listener = hikyaku_proto::broker::Listener { rights, ..Default::default() };
        let config = Config { listeners: vec![listener], ..Config::default() };
        let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
        let listeners = vec![ListenerSettings { endpoint, tls: Some(tls), ..Default::default() }];
        let server = Server::start(Options { listeners, workers: 3, config, ..Options::default() }).unwrap();
        let address = server.local_addrs()[0];
        for id in ["1", "2", "3", "4", "5"] {
            let mut alice = connected(address, &Arc::new(files.client(Some("alice"))), id);
            alice.write_all(&[subscribe("t"), publish("t", b"mine")].concat()).unwrap();
            let mut got = vec![0; 5 + publish("t", b"mine").len()];
            alice.read_exact(&mut got).unwrap();
            assert!(got.ends_with(b"mine") || got.starts_with(&publish("t", b"mine")), "{got:02x?}");
            let mut bob = connected(address, &Arc::new(files.client(Some("bob"))), &format!("bob-{id}"));
            bob.write_all(&[subscribe("t"), publish("t", b"no"), vec![0xC0, 0]].concat()).unwrap();
            let mut got = vec![0; 7];
            bob.read_exact(&mut got).unwrap();
            got.sort_unstable();
            let mut expected = vec![0x90, 3, 0, 1, 0x80, 0xD0, 0];
            expected.sort_unstable();
            assert_eq!(got, expected, "he has no rights");
        }
        assert!(try_connect(address, &Arc::new(files.client(Some("nameless"))), "nameless").is_err());
    }
}

#[test]
fn who_shows_no_name_is_refused_in_words() {
    let files = Files::new();
    files.sign_client("alice", 1);
    let tls = TlsSettings {
        use_identity_as_username: true,
        require_certificate: false,
        ..files.settings_with_clients()
    };
    let listener = hikyaku_proto::broker::Listener { identity_required: true, ..Default::default() };
    let config = Config { listeners: vec![listener], ..Config::default() };
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners = vec![ListenerSettings { endpoint, tls: Some(tls), ..Default::default() }];
    let server = Server::start(Options { listeners, workers: 1, config, ..Options::default() }).unwrap();
    let address = server.local_addrs()[0];
    connected(address, &Arc::new(files.client(Some("alice"))), "alice");
    let mut nobody = open(address, &Arc::new(files.client(None)));
    nobody.write_all(&connect("nobody")).unwrap();
    let mut answer = [0; 4];
    nobody.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 4]);
}

#[test]
fn a_session_is_resumed_by_any_worker() {
    let files = Files::new();
    files.sign_client("alice", 1);
    let (server, address) = start(3, files.settings_with_clients());
    let client = Arc::new(files.client(Some("alice")));
    let kinds = |client: &Arc<ClientConfig>| -> Vec<_> {
        let ids = ["a", "b", "c", "d", "e", "f", "g"];
        ids.map(|id| connected(address, client, id).conn.handshake_kind().unwrap()).to_vec()
    };
    let all = kinds(&client);
    assert_ne!(all[0], HandshakeKind::Resumed);
    assert!(all[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{all:?}");
    // What was let in by the old files may not be by the new.
    assert!(server.remote().reload_certificates().is_empty());
    assert_ne!(kinds(&client)[0], HandshakeKind::Resumed);
}

#[test]
fn an_older_version_is_refused() {
    let files = Files::new();
    let settings = TlsSettings { tls_version: Some(TlsVersion::V1_3), ..files.settings() };
    let (_server, address) = start(1, settings);
    connected(address, &Arc::new(files.client(None)), "new");
    let old = files.client_of(&[&rustls::version::TLS12], None);
    assert!(try_connect(address, &Arc::new(old), "old").is_err());
}

#[test]
fn ciphers_are_those_of_the_list() {
    use rustls::CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        TLS13_AES_128_GCM_SHA256,
    };
    let files = Files::new();
    let settings = TlsSettings {
        ciphers: vec![TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256],
        ciphers_tls13: vec![TLS13_AES_128_GCM_SHA256],
        ..files.settings()
    };
    let (_server, address) = start(1, settings);
    let newer = Arc::new(files.client_of(&[&rustls::version::TLS13], None));
    let suite = connected(address, &newer, "newer").conn.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, TLS13_AES_128_GCM_SHA256);
    let older = Arc::new(files.client_of(&[&rustls::version::TLS12], None));
    let suite = connected(address, &older, "older").conn.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
}

#[test]
fn bad_files_are_named_with_their_cause() {
    let (files, other) = (Files::new(), Files::new());
    files.write("empty", b"");
    files.write("broken.crt", b"-----BEGIN CERTIFICATE-----\nMIIB\n");
    files.write("no.crt", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    files.write(
        "secret.key",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    files.sign("old", ExtendedKeyUsagePurpose::ServerAuth, |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let good = files.settings();
    let clients = files.settings_with_clients();
    let p = |name| files.path(name);
    let cases = [
        (TlsSettings { certfile: p("none.crt"), ..good.clone() }, "cannot be read: No such file", "none.crt"),
        (TlsSettings { certfile: p(""), ..good.clone() }, "cannot be read: Is a directory", "hikyaku-tls"),
        (TlsSettings { certfile: p("empty"), ..good.clone() }, "no certificate", "empty"),
        (TlsSettings { certfile: p("broken.crt"), ..good.clone() }, "malformed", "broken.crt"),
        (TlsSettings { certfile: p("no.crt"), ..good.clone() }, "malformed", "no.crt"),
        (TlsSettings { certfile: p("old.crt"), keyfile: p("old.key"), ..good.clone() }, "expired", "old.crt"),
        (TlsSettings { keyfile: p("none.key"), ..good.clone() }, "cannot be read", "none.key"),
        (TlsSettings { keyfile: p("server.crt"), ..good.clone() }, "no private key", "server.crt"),
        (TlsSettings { keyfile: p("secret.key"), ..good.clone() }, "encrypted", "secret.key"),
        (
            TlsSettings { keyfile: other.path("server.key"), ..good.clone() },
            "is not the key of",
            "server.key",
        ),
        (TlsSettings { cafile: None, ..clients.clone() }, "neither cafile nor capath", "cafile"),
        (TlsSettings { cafile: Some(p("none")), ..clients.clone() }, "cannot be read", "none"),
        (TlsSettings { cafile: Some(p("no.crt")), ..clients.clone() }, "malformed", "no.crt"),
        (TlsSettings { capath: Some(p("none")), ..clients.clone() }, "cannot be read", "none"),
        (TlsSettings { crlfile: Some(p("none")), ..clients.clone() }, "cannot be read", "none"),
        (TlsSettings { crlfile: Some(p("ca.crt")), ..clients }, "no revocation list", "ca.crt"),
    ];
    for (settings, cause, file) in cases {
        let error = match try_start(1, settings.clone(), false) {
            Err(error @ StartError::Settings(_)) => error.to_string(),
            other => panic!("{settings:?}: {other:?}"),
        };
        assert!(error.starts_with("test.conf:7:1: ") && error.contains(cause), "{error}");
        assert!(error.contains(file), "{error}");
    }
}

#[test]
fn a_reload_takes_the_new_certificate_and_keeps_the_old_if_the_new_is_bad() {
    let files = Files::new();
    let (server, address) = start(2, files.settings());
    let client = Arc::new(files.client(None));
    let certificate = || {
        let client = Arc::new(files.client(None));
        connected(address, &client, "looks").conn.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let first = certificate();
    let mut stays = connected(address, &client, "stays");
    let remote = server.remote();
    assert!(remote.reload_changed_certificates().is_none());
    files.write("server.key", b"half writ");
    assert!(remote.reload_changed_certificates().is_none(), "it may be written still");
    let (changed, problems) = remote.reload_changed_certificates().unwrap();
    assert_eq!(changed, [files.path("server.key")]);
    assert!(problems[0].to_string().contains("server.key"), "{problems:?}");
    assert_eq!(certificate(), first);
    assert!(remote.reload_changed_certificates().is_none(), "told once");
    files.sign("server", ExtendedKeyUsagePurpose::ServerAuth, |_| {});
    let pair = vec![files.path("server.crt"), files.path("server.key")];
    assert!(remote.reload_changed_certificates().is_none());
    assert_eq!(remote.reload_changed_certificates(), Some((pair, vec![])));
    assert_ne!(certificate(), first);
    stays.write_all(&[0xC0, 0]).unwrap();
    expect(&mut stays, &[0xD0, 0]);
}

#[test]
fn secrets_are_logged_where_that_is_asked_for() {
    let files = Files::new();
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners = vec![ListenerSettings { endpoint, tls: Some(files.settings()), ..Default::default() }];
    let tls_keylog = Some(files.path("keys"));
    let server = Server::start(Options { listeners, workers: 1, tls_keylog, ..Options::default() });
    connected(server.unwrap().local_addrs()[0], &Arc::new(files.client(None)), "logged");
    let keys = fs::read_to_string(files.path("keys")).unwrap();
    assert!(keys.contains("CLIENT_TRAFFIC_SECRET_0 "), "{keys}");
}

#[test]
fn what_is_no_handshake_disturbs_nobody() {
    let files = Files::new();
    let (_server, address) = start(2, files.settings());
    let client = Arc::new(files.client(None));
    let mut other = connected(address, &client, "other");
    for bytes in [&[0x16; 100][..], &[0x16, 3, 1, 0xFF, 0xFF, 1], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0], &[0x16]] {
        let mut peer = Peer::open(address);
        peer.send(bytes);
        peer.0.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = peer.0.read_to_end(&mut rest);
        assert!(rest.len() <= 7, "an alert at most: {rest:02x?}");
    }
    other.write_all(&[0xC0, 0]).unwrap();
    expect(&mut other, &[0xD0, 0]);
}

/// The time for CONNECT is absolute: it covers the handshake, and what comes bit by bit gives no more of it.
#[test]
fn a_handshake_that_does_not_end_is_cut_off() {
    let files = Files::new();
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners = vec![ListenerSettings { endpoint, tls: Some(files.settings()), ..Default::default() }];
    let config = Config { connect_timeout_s: 1, ..Config::default() };
    let server = Server::start(Options { listeners, workers: 2, config, ..Options::default() }).unwrap();
    let to = server.local_addrs()[0];
    let client = Arc::new(files.client(None));
    let mut hello = Vec::new();
    open(to, &client).conn.write_tls(&mut hello).unwrap();
    let mut slow = Peer::open(to);
    slow.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let is_there = |read: std::io::Result<usize>| read.is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
    let sent = hello
        .iter()
        .take_while(|&&byte| slow.0.write_all(&[byte]).is_ok() && is_there(slow.0.read(&mut [0])));
    assert!(sent.count() < hello.len(), "it has as much time as it wants");
    // One that ends it and says nothing more.
    let mut silent = open(to, &client);
    silent.conn.complete_io(&mut silent.sock).unwrap();
    assert!(!is_there(silent.read(&mut [0])), "it is still there");
}

#[test]
fn many_handshakes_at_once_do_not_delay_who_is_connected() {
    let files = Files::new();
    let (_server, address) = start(2, files.settings());
    let client = Arc::new(files.client(None));
    let mut other = connected(address, &client, "other");
    // Greetings made beforehand: this process has to be quick where the broker is slow.
    let mut hellos: Vec<_> = (0..300)
        .map(|_| {
            let mut hello = Vec::new();
            let name = "localhost".try_into().unwrap();
            let mut connection = ClientConnection::new(Arc::clone(&client), name).unwrap();
            connection.write_tls(&mut hello).unwrap();
            (TcpStream::connect(address).unwrap(), hello)
        })
        .collect();
    for (stream, hello) in &mut hellos {
        stream.write_all(hello).unwrap();
    }
    let mut worst = Duration::ZERO;
    for _ in 0..20 {
        let begin = Instant::now();
        other.write_all(&[0xC0, 0]).unwrap();
        expect(&mut other, &[0xD0, 0]);
        worst = worst.max(begin.elapsed());
    }
    assert!(worst < Duration::from_millis(200), "{worst:?}");
    for (stream, _) in &mut hellos {
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x16]);
    }
}
