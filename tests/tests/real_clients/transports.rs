//! TLS, WebSocket and unix sockets, as MQTT.js and Debian's mosquitto clients speak them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use hikyaku::config::{Endpoint, ListenerSettings, TlsSettings};
use hikyaku::{Options, Server};
use hikyaku_proto::broker::Config;
use hikyaku_tests::matrix::{Setup, V5, V311};
use hikyaku_tests::process::{Finished, Process};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::{mqttjs, script};

/// What runs differently over WebSocket: sizes, speed, ends, and empty frames (MQTT.js writes the empty
/// topic of an aliased PUBLISH as one).
const CASES: [(u8, &str); 14] = [
    (V311, "qos_0"),
    (V311, "qos_2"),
    (V311, "payload_of_1_mib"),
    (V311, "will_when_killed"),
    (V311, "no_will_after_disconnect"),
    (V311, "ten_thousand_in_order"),
    (V5, "qos_1"),
    (V5, "payload_of_1_mib"),
    (V5, "ten_thousand_in_order"),
    (V5, "takeover_disconnects_the_first"),
    (V5, "keep_alive_pings"),
    (V5, "session_resumes_with_queued_messages"),
    (V5, "topic_alias_to_the_broker"),
    (V5, "topic_alias_assigned_by_the_client"),
];

/// The port that takes MQTT takes WebSocket too.
#[test]
fn mqttjs_over_ws() {
    for (version, case) in CASES {
        let mut client = mqttjs::client();
        client.env("MQTT_PROTOCOL", "ws");
        script::run(client, case, Setup { version, workers: 2 });
    }
}

#[test]
fn mqttjs_over_wss_and_mqtts() {
    let files = Files::new();
    for protocol in ["wss", "mqtts"] {
        for (version, case) in CASES {
            let server = start(files.settings());
            let mut client = mqttjs::client();
            client.env("MQTT_PROTOCOL", protocol).env("MQTT_CA", files.path("ca.crt"));
            script::run_at(port(&server), client, case, version, || protocol.to_owned());
        }
    }
}

#[test]
fn mosquitto_over_tls() {
    let (files, stranger) = (Files::new(), Files::new());
    let server = start(files.settings());
    let round_trip = |files: &Files, more: &str| {
        let mut subscriber = files.command("stdbuf -oL mosquitto_sub", &server, more);
        let subscriber = subscriber.args(["-t", "t", "-C", "1", "-W", "10", "-d"]);
        let subscriber = Process::spawn(subscriber);
        subscriber.wait_stdout("Subscribed");
        let mut publisher = files.command("mosquitto_pub", &server, more);
        let publisher = Process::spawn(publisher.args(["-t", "t", "-m", "in TLS", "-q", "1"])).wait();
        assert_eq!(publisher.code, 0, "{publisher:?}");
        assert!(subscriber.wait().stdout.contains("in TLS"));
    };
    for more in ["", "--tls-version tlsv1.2", "--tls-version tlsv1.3", "--tls-alpn mqtt", "-V 5"] {
        round_trip(&files, more);
    }
    let refused = publish(&stranger, &server, "");
    assert_ne!(refused.code, 0, "a client that does not know the CA goes: {refused:?}");
}

#[test]
fn mosquitto_with_a_client_certificate() {
    let (files, stranger) = (Files::new(), Files::new());
    for files in [&files, &stranger] {
        files.sign("client");
    }
    let cafile = Some(files.path("ca.crt"));
    let server = start(TlsSettings { cafile, require_certificate: true, ..files.settings() });
    let shown = |files: &Files| {
        let (certificate, key) = (files.path("client.crt"), files.path("client.key"));
        format!("--cert {} --key {}", certificate.display(), key.display())
    };
    let welcome = publish(&files, &server, &shown(&files));
    assert_eq!(welcome.code, 0, "{welcome:?}");
    for refused in [publish(&files, &server, ""), publish(&files, &server, &shown(&stranger))] {
        assert_ne!(refused.code, 0, "{refused:?}");
    }
}

#[test]
fn mosquitto_over_a_unix_socket() {
    let files = Files::new();
    let path = files.path("socket");
    let endpoint = Endpoint::Unix(path.clone());
    let _server = start_listener(ListenerSettings { endpoint, ..Default::default() });
    let mut publisher = Command::new("mosquitto_pub");
    let publisher = publisher.arg("--unix").arg(&path).args(["-t", "t", "-m", "local", "-q", "1"]);
    let end = Process::spawn(publisher).wait();
    assert_eq!(end.code, 0, "{end:?}");
}

fn publish(files: &Files, server: &Server, more: &str) -> Finished {
    let mut publisher = files.command("mosquitto_pub", server, more);
    Process::spawn(publisher.args(["-t", "t", "-m", "in TLS", "-q", "1"])).wait()
}

fn start(tls: TlsSettings) -> Server {
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    start_listener(ListenerSettings { endpoint, tls: Some(tls), ..Default::default() })
}

fn start_listener(listener: ListenerSettings) -> Server {
    let config = Config::default();
    Server::start(Options { listeners: vec![listener], workers: 2, config, ..Options::default() }).unwrap()
}

fn port(server: &Server) -> u16 {
    server.local_addrs()[0].port()
}

/// A folder with a CA and what it signed.
struct Files {
    folder: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hikyaku-clients-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Files { folder, ca };
        fs::write(files.path("ca.crt"), files.ca.pem()).unwrap();
        files.sign("server");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes NAME.crt and NAME.key.
    fn sign(&self, name: &str) {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn settings(&self) -> TlsSettings {
        TlsSettings::new(self.path("server.crt"), self.path("server.key"))
    }

    /// One of mosquitto's clients, which trusts this CA.
    fn command(&self, program: &str, server: &Server, more: &str) -> Command {
        let mut words = program.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["-h", "127.0.0.1", "-p", &port(server).to_string(), "--cafile"]);
        command.arg(self.path("ca.crt")).args(more.split_whitespace());
        command
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
