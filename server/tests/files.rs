//! The files a configuration names: noticed when they change, and read by whom the broker becomes.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod peer;

use broker::{Broker, free_port, hikyaku, output};
use dir::Dir;
use hikyaku::auth::{Hash, Scheme};
use peer::{Peer, packet, string};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

impl Dir {
    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A certificate of its own for localhost: NAME.crt and NAME.key.
    fn certify(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        self.write(&format!("{name}.crt"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }
}

fn start(file: &str, port: u16) -> Broker {
    Broker::spawn(hikyaku().args(["-c", file]), port)
}

fn user(name: &str, password: &str) -> String {
    format!("{name}:{}\n", Hash::create(Scheme::Sha512, password.as_bytes()).unwrap())
}

/// The return code of the CONNACK, and the connection.
fn enter(at: SocketAddr, id: &str, password: &str) -> (u8, Peer) {
    let mut peer = Peer::open(at);
    let body = [&b"\0\x04MQTT\x04\xC2\0\0"[..], &string(id), &string(id), &string(password)].concat();
    peer.send(&packet(0x10, &body));
    (peer.packet()[3], peer)
}

/// A client that trusts the certificate in `ca`, and shows one of its own.
fn tls(at: SocketAddr, ca: &str, own: Option<(&str, &str)>) -> std::io::Result<[u8; 4]> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_file(certificate).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_file(key).unwrap())
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(at).unwrap());
    stream.write_all(&peer::connect("tls"))?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn changed_passwords_and_rights_need_no_signal() {
    let dir = Dir::new("changed");
    let port = free_port();
    let (ann, bob) = (user("ann", "a"), user("bob", "b"));
    let users = dir.write("users", &[&ann[..], &bob].concat());
    let acl = dir.write("acl", "pattern readwrite t/#\n");
    let file = dir.write(
        "x.conf",
        &format!("reload_interval 1\nlistener {port} 127.0.0.1\npassword_file {users}\nacl_file {acl}\n"),
    );
    let mut broker = start(&file, port);
    let (_, mut stays) = enter(broker.address, "ann", "a");
    let (_, mut goes) = enter(broker.address, "bob", "b");
    stays.subscribe("t/#");
    // A bad file changes nothing.
    dir.write("users", "ann:");
    broker.await_line(
        "Files of passwords or rights have changed and cannot be used. What was read before stays.",
    );
    assert!(broker.logged.contains(&format!(
        "Error: {users}:1:5: Unable to decode line in password file: the password of 'ann' is not hashed"
    )));
    goes.ping();
    assert_eq!(enter(broker.address, "bob", "b").0, 0);
    // Two changes of another file later it has been said once still.
    let errors = broker.logged.matches("Error: ").count();
    dir.write("users", &[&ann[..], &user("bob", "new")].concat());
    dir.write("acl", "pattern read t/#\n");
    broker.await_line(&format!(
        "Files of passwords or rights have changed and were read again: {acl}, {users}."
    ));
    assert_eq!(broker.logged.matches("Error: ").count(), errors);
    let (code, mut bob) = enter(broker.address, "bob", "new");
    assert_eq!(code, 0);
    bob.send(&peer::publish("t/1", b"denied"));
    bob.ping();
    stays.ping();
    broker.await_line("may not publish to t/1");
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}

#[test]
fn changed_certificates_need_no_signal_and_bad_ones_are_told_once() {
    let dir = Dir::new("certificates");
    let (port, other) = (free_port(), free_port());
    dir.certify("one");
    dir.certify("two");
    let pair = |name: &str| format!("certfile {0}.crt\nkeyfile {0}.key\n", dir.path(name));
    let text = format!(
        "reload_interval 1\nallow_anonymous true\nlistener {port} 127.0.0.1\n{}listener {other} 127.0.0.1\n{}",
        pair("one"),
        pair("two")
    );
    let mut broker = start(&dir.write("x.conf", &text), port);
    let other = SocketAddr::from(([127, 0, 0, 1], other));
    fs::copy(dir.path("one.crt"), dir.path("old.crt")).unwrap();
    dir.write("one.key", "half writ");
    broker.await_line("Files of certificates have changed and cannot be used. What was read before stays.");
    assert!(broker.logged.contains(&format!("keyfile '{}'", dir.path("one.key"))), "{}", broker.logged);
    assert_eq!(tls(broker.address, &dir.path("old.crt"), None).unwrap(), [0x20, 2, 0, 0]);
    let read_again = |name: &str| {
        let pair = dir.path(name);
        format!("Files of certificates have changed and were read again: {pair}.crt, {pair}.key.")
    };
    // While another listener's is renewed, twice, the bad one is not told again.
    for _ in 0..2 {
        dir.certify("two");
        broker.await_line(&read_again("two"));
        assert_eq!(tls(other, &dir.path("two.crt"), None).unwrap(), [0x20, 2, 0, 0]);
    }
    assert_eq!(broker.logged.matches("cannot be used").count(), 1, "{}", broker.logged);
    dir.certify("one");
    broker.await_line(&read_again("one"));
    assert_eq!(tls(broker.address, &dir.path("one.crt"), None).unwrap(), [0x20, 2, 0, 0]);
}

#[test]
fn a_reload_changes_what_listeners_speak_and_closes_those_that_are_gone() {
    let dir = Dir::new("doors");
    let (port, other) = (free_port(), free_port());
    dir.certify("one");
    dir.certify("two");
    let pair = |name: &str| format!("certfile {0}.crt\nkeyfile {0}.key\n", dir.path(name));
    let head = format!("reload_interval 0\nallow_anonymous true\nlistener {port} 127.0.0.1\n");
    let second = format!("listener {other} 127.0.0.1\n");
    let file = dir.write("x.conf", &[&head[..], &pair("one"), &second].concat());
    let mut broker = start(&file, port);
    let other = SocketAddr::from(([127, 0, 0, 1], other));
    let mut inside = Peer::connect(other, "inside");
    // Another certificate, and the second listener is gone.
    dir.write("x.conf", &[&head[..], &pair("two")].concat());
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    assert!(broker.logged.contains(&format!("Warning: {other} is not configured any more")));
    assert_eq!(tls(broker.address, &dir.path("two.crt"), None).unwrap(), [0x20, 2, 0, 0]);
    inside.expect_end(&[]);
    // A worker says so, perhaps before the line above.
    if !broker.logged.contains("Client inside is not let in any more.") {
        broker.await_line("Client inside is not let in any more.");
    }
    let mut late = Peer::open(other);
    late.send(&peer::connect("late"));
    late.expect_end(&[]);
    broker.await_line(&format!("refused at {other}: this listener is not configured any more"));
    // It comes back, and the first one speaks without TLS.
    dir.write("x.conf", &[&head[..], &second].concat());
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    Peer::connect(other, "again").ping();
    Peer::connect(broker.address, "plain").ping();
    // A certificate that cannot be used keeps all as it is.
    dir.write("x.conf", &format!("{head}certfile {0}\nkeyfile {0}\n", dir.path("one.key")));
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was not reloaded: it has errors. The old one stays.");
    Peer::connect(other, "again").ping();
    Peer::connect(broker.address, "plain").ping();
}

#[test]
fn a_reload_that_would_lock_everyone_out_keeps_the_port_or_is_refused() {
    let dir = Dir::new("locked");
    let port = free_port();
    let file = dir.write("x.conf", &format!("listener {port} 127.0.0.1\nallow_anonymous true\n"));
    let mut broker = start(&file, port);
    let mut inside = Peer::connect(broker.address, "inside");
    dir.write("x.conf", &format!("listener {port}\nallow_anonymous true\nmax_qos 1\n"));
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    let warning = format!("Warning: 127.0.0.1:{port} stays open in place of 0.0.0.0:{port}, [::]:{port}");
    assert!(broker.logged.contains(&warning), "{}", broker.logged);
    inside.ping();
    Peer::connect(broker.address, "late").ping();
    dir.write("x.conf", "listener 1 127.0.0.1\nallow_anonymous true\n");
    broker.signal(Signal::HUP);
    broker.await_line("Error: Nobody could connect any more");
    broker.await_line("The configuration was not reloaded: it has errors. The old one stays.");
    inside.ping();
    Peer::connect(broker.address, "later").ping();
}

#[test]
fn a_user_that_does_not_exist_is_a_mistake_of_the_configuration() {
    let dir = Dir::new("user");
    let file = dir.write("x.conf", "max_qos 1\nuser no-such-user\n");
    let place = format!("{file}:2:1: ");
    let (code, _, err) = output(&["-t", &file]);
    if rustix::process::geteuid().is_root() {
        let expected = format!("{place}Error: Invalid user 'no-such-user': it is not in /etc/passwd.\n");
        assert_eq!((code, &err), (Some(3), &expected));
        assert_eq!(output(&["-c", &file]).0, Some(3));
    } else {
        assert!(code == Some(0) && err.starts_with(&format!("{place}Warning: Invalid user")), "{err}");
    }
}

#[test]
fn files_that_the_user_could_not_read_again_are_warned_of() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = Dir::new("unreadable");
    dir.set_mode(".", 0o755);
    dir.certify("server");
    dir.set_mode("server.crt", 0o644);
    dir.set_mode("server.key", 0o600);
    fs::create_dir(dir.0.join("closed")).unwrap();
    let (users, acl) = (dir.write("closed/users", &user("ann", "a")), dir.write("acl", "topic a\n"));
    dir.set_mode("closed", 0o700);
    dir.set_mode("acl", 0o644);
    let port = free_port();
    let text = format!(
        "user nobody\nlistener {port} 127.0.0.1\npassword_file {users}\nacl_file {acl}\ncertfile {0}.crt\n\
         keyfile {0}.key\n",
        dir.path("server")
    );
    let file = dir.write("x.conf", &text);
    dir.set_mode("x.conf", 0o644);
    let expected = [
        (format!("password_file '{users}'"), format!("{0} && chmod g+x {0}", dir.path("closed"))),
        (
            format!("keyfile '{}'", dir.path("server.key")),
            format!("{0} && chmod g+r {0}", dir.path("server.key")),
        ),
    ];
    let is_told = |text: &str| {
        let lines = text
            .lines()
            .filter(|l| l.contains("x.conf:1:1: ") && l.contains("at SIGHUP"))
            .collect::<Vec<_>>();
        assert_eq!(lines.len(), 2, "{text}");
        for (line, (file, cure)) in lines.into_iter().zip(&expected) {
            assert!(line.contains(&**file) && line.contains("'chgrp ") && line.contains(&**cure), "{line}");
        }
    };
    let (code, _, err) = output(&["-t", &file]);
    assert_eq!(code, Some(0), "{err}");
    is_told(&err);
    let mut broker = start(&file, port);
    is_told(&broker.logged);
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was not reloaded: it has errors. The old one stays.");
    // What helps, as the warning says it.
    for (line, _) in broker.logged.clone().lines().filter_map(|line| line.split_once("' ends that.")) {
        let Some((_, cure)) = line.rsplit_once(": '").or_else(|| line.rsplit_once(". '")) else {
            panic!("{line}")
        };
        if cure.starts_with("chgrp") {
            assert!(Command::new("sh").args(["-c", cure]).status().unwrap().success(), "{cure}");
        }
    }
    dir.set_mode("closed/users", 0o644);
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    assert!(!output(&["-t", &file]).2.contains("at SIGHUP"));
}

#[test]
fn who_may_not_read_a_file_is_told_with_what_helps() {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = Dir::new("denied");
    dir.set_mode(".", 0o755);
    // Where it was built others may have no way to.
    let broker = dir.path("hikyaku");
    fs::copy(env!("CARGO_BIN_EXE_hikyaku"), &broker).unwrap();
    let (users, acl) = (dir.write("users", &user("ann", "a")), dir.write("acl", "topic a\n"));
    dir.set_mode("users", 0o600);
    dir.set_mode("acl", 0o600);
    dir.certify("server");
    dir.set_mode("server.key", 0o600);
    let text = format!(
        "listener 1 127.0.0.1\npassword_file {users}\nacl_file {acl}\ncertfile {0}.crt\nkeyfile {0}.key\n",
        dir.path("server")
    );
    let file = dir.write("x.conf", &text);
    let ended = Command::new(broker).args(["-t", &file]).uid(65_534).gid(65_534).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(3), "{told}");
    for file in [users, acl, dir.path("server.key")] {
        let line = told.lines().find(|line| line.contains(&file)).unwrap_or_else(|| panic!("{file}: {told}"));
        let cure = format!(
            "who asks, may not read it ({file}). 'chgrp nogroup {file} && chmod g+r {file}' ends that"
        );
        assert!(line.contains(&cure) && line.contains("user 'nobody'"), "{line}");
    }
}

#[test]
fn a_user_without_keys_for_scram_is_told_to_the_operator() {
    let dir = Dir::new("keyless");
    let port = free_port();
    let users = dir.write("users", &user("ann", "a"));
    let file = dir.write("x.conf", &format!("listener {port} 127.0.0.1\npassword_file {users}\n"));
    let mut broker = start(&file, port);
    let options = hikyaku_client::Options::new(hikyaku_client::Version::V5, "c");
    let connector = hikyaku_client::Connector::new(broker.address, options).unwrap();
    assert!(connector.scram("ann", b"a").unwrap().connect().is_err());
    broker.await_line(&format!("User 'ann' has no keys for SCRAM-SHA-256 in {users}"));
    assert!(broker.logged.contains("'hikyaku-passwd --scram' makes them"), "{}", broker.logged);
}

/// The code of this language in docs/configuration.md.
fn example(language: &str) -> String {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(document).unwrap();
    let (_, code) = text.split_once(&format!("```{language}\n")).unwrap();
    code.split_once("```").unwrap().0.to_owned()
}

#[test]
fn certificates_made_as_the_document_says_let_in() {
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let dir = Dir::new("document");
    let made = Command::new("sh").args(["-ec", &example("sh")]).current_dir(&dir.0).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = free_port();
    let text = example("conf").replace("listener 8883", &format!("listener {port} 127.0.0.1"));
    assert!(text.contains(&port.to_string()));
    let file = dir.write("x.conf", &text.replace("/etc/hikyaku/certs", dir.0.to_str().unwrap()));
    let mut broker = start(&file, port);
    let (ca, own) = (dir.path("ca.crt"), (dir.path("ann.crt"), dir.path("ann.key")));
    assert_eq!(tls(broker.address, &ca, Some((&own.0, &own.1))).unwrap(), [0x20, 2, 0, 0]);
    broker.await_line("u'ann'");
    assert!(tls(broker.address, &ca, None).is_err());
    broker.await_line(&format!("refused at 127.0.0.1:{port}: TLS: "));
}

#[test]
fn rights_as_in_the_document_are_read() {
    let dir = Dir::new("rights");
    let (acl, users) = (dir.write("acl", &example("acl")), dir.write("users", &user("ann", "a")));
    let half =
        dir.write("half.conf", &format!("listener 1 127.0.0.1\npassword_file {users}\nacl_file {acl}\n"));
    let warning = format!("Warning: {acl} has rules for user 'door 1', who is not in {users}.");
    assert!(output(&["-t", &half]).2.contains(&warning));
    dir.write("users", &(user("ann", "a") + &user("door 1", "b")));
    dir.set_mode("users", 0o600);
    let text = format!("listener 1 127.0.0.1\npassword_file {users}\nacl_file {acl}\n");
    let (code, _, err) = output(&["-t", &dir.write("x.conf", &text)]);
    assert_eq!((code, err), (Some(0), String::new()));
}
