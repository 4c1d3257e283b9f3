//! Passwords, rights and what becomes of connections when they change, over TCP in this process.
#![allow(missing_docs)]

mod peer;

use hikyaku::auth::{Hash, Scheme, Security};
use hikyaku::config::{Endpoint, ListenerSettings, Problem, SecuritySettings};
use hikyaku::{Options, Server};
use hikyaku_proto::broker::Config;
use peer::{Peer, packet, publish, string};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of files, which goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hikyaku-auth-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn user(name: &str, password: &str) -> String {
    format!("{name}:{}\n", Hash::create(Scheme::Sha512, password.as_bytes()).unwrap())
}

fn listener(security: SecuritySettings) -> ListenerSettings {
    ListenerSettings { security, ..ListenerSettings::default() }
}

fn load(listeners: &[ListenerSettings]) -> Result<(Config, Security, Vec<String>), Vec<String>> {
    let text = |problems: Vec<Problem>| problems.into_iter().map(|p| p.message).collect();
    let mut config = Config { sys_interval_s: 0, ..Config::default() };
    match Security::load(listeners, &mut config) {
        Ok((security, problems)) => Ok((config, security, text(problems))),
        Err(problems) => Err(text(problems)),
    }
}

/// A server with two workers, and one address for each of the listeners.
fn start(listeners: &[ListenerSettings]) -> (Server, Vec<SocketAddr>) {
    let (config, security, _) = load(listeners).unwrap();
    let endpoint = || Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners =
        listeners.iter().map(|l| ListenerSettings { endpoint: endpoint(), ..l.clone() }).collect();
    let server =
        Server::start(Options { listeners, workers: 2, config, security, ..Options::default() }).unwrap();
    let addresses = server.local_addrs().to_vec();
    (server, addresses)
}

fn connect(level: u8, id: &str, username: Option<&str>, password: Option<&str>) -> Vec<u8> {
    let flags = 2 | username.map_or(0, |_| 0x80) | password.map_or(0, |_| 0x40);
    let mut body = [&b"\0\x04MQTT"[..], &[level, flags, 0, 0]].concat();
    body.extend((level == 5).then_some(0));
    body.extend(string(id));
    body.extend(username.into_iter().chain(password).flat_map(string));
    packet(0x10, &body)
}

/// The reason in the CONNACK, and the connection.
fn try_in(at: SocketAddr, level: u8, id: &str, username: Option<&str>, password: Option<&str>) -> (u8, Peer) {
    let mut peer = Peer::open(at);
    peer.send(&connect(level, id, username, password));
    (peer.packet()[3], peer)
}

fn enter(at: SocketAddr, id: &str, username: Option<&str>, password: Option<&str>) -> Peer {
    let (code, peer) = try_in(at, 4, id, username, password);
    assert_eq!(code, 0, "{id}");
    peer
}

#[test]
fn who_gets_in_depends_on_name_password_and_listener() {
    let folder = Folder::new();
    let file = folder.write("users", &[user("ann", "secret"), user("bob", "other")].concat());
    let open = SecuritySettings { allow_anonymous: Some(true), ..SecuritySettings::default() };
    let closed = SecuritySettings::default();
    let users = SecuritySettings { password_file: Some(file), ..SecuritySettings::default() };
    let both = SecuritySettings { allow_anonymous: Some(true), ..users.clone() };
    let (_server, at) = start(&[open, closed, users, both].map(listener));
    // No name, right, wrong password, no password, unknown user.
    for (listener, expected) in [
        [true, true, true, true, true],
        [false, false, false, false, false],
        [false, true, false, false, false],
        [true, true, false, false, false],
    ]
    .into_iter()
    .enumerate()
    {
        let cases = [
            (None, None),
            (Some("ann"), Some("secret")),
            (Some("ann"), Some("other")),
            (Some("ann"), None),
            (Some("eve"), Some("secret")),
        ];
        for ((username, password), welcome) in cases.into_iter().zip(expected) {
            for (level, refused) in [(4, 5), (5, 0x87)] {
                let (code, _) = try_in(at[listener], level, "c", username, password);
                assert_eq!(code, if welcome { 0 } else { refused }, "{listener} {username:?} {password:?}");
            }
        }
        // Keeps the address from being slowed down.
        try_in(at[3], 4, "reset", Some("ann"), Some("secret"));
    }
}

/// Not text: any bytes, none of which ends it.
#[test]
fn passwords_are_bytes() {
    let folder = Folder::new();
    let password = b"\xff\0\xc3 any: $bytes\n";
    let line = format!("ann:{}\n", Hash::create(Scheme::Sha512, password).unwrap());
    let users = SecuritySettings { password_file: Some(folder.write("users", &line)), ..Default::default() };
    let (_server, at) = start(&[listener(users)]);
    let entered = |password: &[u8]| {
        let length = (password.len() as u16).to_be_bytes();
        let body = [&b"\0\x04MQTT\x04\xC2\0\0"[..], &string("c"), &string("ann"), &length, password].concat();
        let mut peer = Peer::open(at[0]);
        peer.send(&packet(0x10, &body));
        peer.packet()[3]
    };
    for wrong in [&password[..1], &password[..2], b"", b"\xef\xbf\xbd\0\xc3 any: $bytes\n"] {
        assert_eq!(entered(wrong), 5, "{wrong:02x?}");
    }
    assert_eq!(entered(password), 0);
}

#[test]
fn an_authentication_method_is_none_of_ours() {
    let (_server, at) = start(&[listener(SecuritySettings::default())]);
    let mut peer = Peer::open(at[0]);
    let body = [&b"\0\x04MQTT\x05\x02\0\0\x06\x15\0\x03abc\0\x01c"[..]].concat();
    peer.send(&packet(0x10, &body));
    assert_eq!(peer.packet()[3], 0x8C);
}

#[test]
fn rights_hold_over_the_wire() {
    let folder = Folder::new();
    let acl = folder.write("acl", "topic read news/#\nuser ann\ntopic news/#\npattern own/%c\n");
    let users = folder.write("users", &user("ann", "x"));
    let (_server, at) = start(&[listener(SecuritySettings {
        allow_anonymous: Some(true),
        password_file: Some(users),
        acl_file: Some(acl),
        ..SecuritySettings::default()
    })]);
    let mut reader = enter(at[0], "reader", None, None);
    reader.subscribe("#");
    let mut ann = enter(at[0], "ann", Some("ann"), Some("x"));
    ann.send(&publish("news/1", b"by ann"));
    reader.expect(&publish("news/1", b"by ann"));
    ann.subscribe("#");
    reader.send(&publish("news/2", b"denied"));
    reader.send(&publish("own/ann", b"denied"));
    reader.send(&publish("own/reader", b"own"));
    reader.expect(&publish("own/reader", b"own"));
    reader.ping();
    ann.send(&publish("own/ann", b"own"));
    ann.expect(&publish("own/ann", b"own"));
    reader.ping();
}

#[test]
fn a_reload_closes_those_it_would_not_let_in() {
    let folder = Folder::new();
    let (ann, bob, cid) = (user("ann", "a"), user("bob", "b"), user("cid", "c"));
    let file = folder.write("users", &[&ann[..], &bob, &cid].concat());
    let acl = folder.write("acl", "pattern readwrite t/#\n");
    let settings = |anonymous| {
        [listener(SecuritySettings {
            allow_anonymous: Some(anonymous),
            password_file: Some(file.clone()),
            acl_file: Some(acl.clone()),
            ..SecuritySettings::default()
        })]
    };
    let (server, at) = start(&settings(true));
    let mut stays = enter(at[0], "1", Some("ann"), Some("a"));
    let mut changed = enter(at[0], "2", Some("bob"), Some("b"));
    let mut removed = enter(at[0], "3", Some("cid"), Some("c"));
    let mut nameless = enter(at[0], "4", None, None);
    stays.subscribe("t/#");
    changed.send(&publish("t/1", b"x"));
    stays.expect(&publish("t/1", b"x"));

    folder.write("users", &[&ann[..], &user("bob", "new")].concat());
    folder.write("acl", "pattern readwrite t/1\n");
    let (config, security, _) = load(&settings(false)).unwrap();
    server.remote().configure(config, security);
    for gone in [&mut changed, &mut removed, &mut nameless] {
        gone.expect_end(&[]);
    }
    stays.ping();
    assert_eq!(try_in(at[0], 4, "2", Some("bob"), Some("b")).0, 5);
    let mut bob = enter(at[0], "2", Some("bob"), Some("new"));
    bob.send(&publish("t/2", b"denied"));
    bob.send(&publish("t/1", b"allowed"));
    stays.expect(&publish("t/1", b"allowed"));
}

#[test]
fn bad_files_are_named_and_change_nothing() {
    let folder = Folder::new();
    let users = folder.write("users", "ann:plain\n");
    let acl = folder.write("acl", "topics a\n");
    let missing = folder.0.join("missing");
    let binary = folder.0.join("binary");
    std::fs::write(&binary, b"a\nb\xff").unwrap();
    let settings = |password_file: &PathBuf, acl_file: &PathBuf| {
        listener(SecuritySettings {
            password_file: Some(password_file.clone()),
            acl_file: Some(acl_file.clone()),
            ..SecuritySettings::default()
        })
    };
    // Each file is read once, and all that is wrong is said.
    let problems =
        load(&[settings(&users, &acl), settings(&users, &missing), settings(&binary, &acl)]).unwrap_err();
    let problems: Vec<_> = problems.iter().filter(|p| !p.contains("chmod")).collect();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(problems[0].contains("the password of 'ann' is not hashed"));
    assert!(problems[1].starts_with("'topics' is none of"));
    let expected = format!("Unable to open acl_file \"{}\": No such file or directory", missing.display());
    assert!(problems[2].starts_with(&expected), "{problems:?}");
    let expected = format!("Unable to open password_file \"{}\": line 2 is not UTF-8.", binary.display());
    assert_eq!(*problems[3], expected);
}

/// A file that was emptied, by accident or a full disk, opens nothing.
#[test]
fn an_empty_file_of_users_lets_nobody_in() {
    let folder = Folder::new();
    for content in ["", "# nobody\n\n"] {
        let file = folder.write("users", content);
        let users = SecuritySettings { password_file: Some(file), ..SecuritySettings::default() };
        let (_, _, problems) = load(&[listener(users.clone())]).unwrap();
        let told = problems.iter().any(|p| p.ends_with("has no users: nobody gets in by a password"));
        assert!(told, "{problems:?}");
        let (_server, at) = start(&[listener(users)]);
        for (username, password) in
            [(None, None), (Some(""), Some("")), (Some("ann"), None), (Some("ann"), Some(""))]
        {
            for (level, refused) in [(4, 5), (5, 0x87)] {
                assert_eq!(try_in(at[0], level, "c", username, password).0, refused, "{username:?}");
            }
        }
    }
}

#[test]
fn an_empty_file_of_rights_allows_nothing() {
    let folder = Folder::new();
    let users = folder.write("users", &user("ann", "x"));
    for content in ["", "# nothing\n\n"] {
        let acl = folder.write("acl", content);
        let security = SecuritySettings {
            allow_anonymous: Some(true),
            password_file: Some(users.clone()),
            acl_file: Some(acl),
            ..SecuritySettings::default()
        };
        let open = SecuritySettings { acl_file: None, ..security.clone() };
        let (_server, at) = start(&[security, open].map(listener));
        // One who may everything is there to hear and to be heard.
        let mut free = enter(at[1], "free", None, None);
        free.subscribe("#");
        for (id, username) in [("nameless", None), ("named", Some("ann"))] {
            let mut peer = enter(at[0], id, username, username.map(|_| "x"));
            for filter in ["#", "t", "$SYS/#", "$share/g/t"] {
                peer.send(&peer::subscribe(filter));
                peer.expect(&[0x90, 3, 0, 1, 0x80]);
            }
            peer.send(&publish("t", b"denied"));
            free.send(&publish("t", b"heard"));
            free.expect(&publish("t", b"heard"));
            free.ping();
            peer.ping();
            // A will is asked for at once.
            let will = [&b"\0\x04MQTT\x04\x06\0\0"[..], &string("w"), &string("t"), &string("x")].concat();
            let mut dying = Peer::open(at[0]);
            dying.send(&packet(0x10, &will));
            dying.expect_end(&[0x20, 2, 0, 5]);
        }
    }
}

/// What is missing is no permission: the broker does not start, and one that runs goes on as before.
#[test]
fn a_missing_file_of_users_or_rights_is_an_error() {
    let folder = Folder::new();
    let missing = || Some(folder.0.join("missing"));
    let users = SecuritySettings { password_file: missing(), ..SecuritySettings::default() };
    let rights = SecuritySettings { acl_file: missing(), ..SecuritySettings::default() };
    for (security, name) in [(users, "password_file"), (rights, "acl_file")] {
        for anonymous in [None, Some(true), Some(false)] {
            let security = SecuritySettings { allow_anonymous: anonymous, ..security.clone() };
            let problems = load(&[listener(security)]).unwrap_err();
            assert!(problems[0].starts_with(&format!("Unable to open {name} ")), "{problems:?}");
        }
    }
}

#[test]
fn rules_for_names_nobody_checks_are_said() {
    let folder = Folder::new();
    let acl = folder.write("acl", "user ann\ntopic a\n");
    let security =
        SecuritySettings { allow_anonymous: Some(true), acl_file: Some(acl), ..SecuritySettings::default() };
    let (_, _, problems) = load(&[listener(security)]).unwrap();
    assert!(problems[0].contains("any client may claim any name"), "{problems:?}");
}

/// Wrong passwords cost a hash each; a worker that computed it would serve nobody meanwhile.
#[test]
fn clients_that_are_in_do_not_wait_for_those_at_the_door() {
    let folder = Folder::new();
    let hash = Hash::create(Scheme::Argon2id, b"x").unwrap();
    let file = folder.write("users", &format!("ann:{hash}\n"));
    let security = SecuritySettings {
        allow_anonymous: Some(true),
        password_file: Some(file),
        ..SecuritySettings::default()
    };
    let (_server, at) = start(&[listener(security)]);
    let mut inside = enter(at[0], "inside", None, None);
    let mut knocking: Vec<Peer> = (0..300).map(|_| Peer::open(at[0])).collect();
    for (i, peer) in knocking.iter_mut().enumerate() {
        peer.send(&connect(4, &i.to_string(), Some(if i % 2 == 0 { "ann" } else { "eve" }), Some("no")));
    }
    for _ in 0..50 {
        inside.ping();
    }
    assert!(knocking.iter_mut().any(Peer::hears_nothing), "who is in has waited for all of them");
    // Each is answered: refused, or told that the server is busy.
    for peer in &mut knocking {
        assert!(matches!(peer.packet()[3], 3 | 5));
    }
}
