//! Databases that mosquitto of several versions wrote (`data/README.md`), taken over by `--import-mosquitto-db`.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod peer;

use broker::{Broker, output};
use dir::Dir;
use hikyaku::config::{Endpoint, ListenerSettings, PersistenceSettings};
use hikyaku::{Options, Server};
use peer::{Peer, packet, string};
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const VERSIONS: [&str; 5] = ["1.4", "1.5", "1.6", "2.0", "2.1"];

/// A directory with the configuration of a broker that keeps its store there.
fn configured(name: &str) -> Dir {
    let dir = Dir::new(name);
    let location = dir.0.display();
    let conf = format!("persistence true\npersistence_location {location}\nallow_anonymous true\n");
    dir.write("hikyaku.conf", &conf);
    dir
}

impl Dir {
    fn conf(&self) -> String {
        self.path("hikyaku.conf")
    }

    fn import(&self, file: &Path) -> (Option<i32>, String, String) {
        output(&["-c", &self.conf(), "--import-mosquitto-db", &file.display().to_string()])
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn start(&self, workers: u16) -> (Server, SocketAddr) {
        let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
        let listeners = vec![ListenerSettings { endpoint, ..Default::default() }];
        let location = Some(self.0.clone());
        let persistence = PersistenceSettings { enabled: true, location, ..Default::default() };
        let server =
            Server::start(Options { listeners, workers, persistence, ..Options::default() }).unwrap();
        let address = server.local_addrs()[0];
        (server, address)
    }
}

fn data(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/mosquitto-{version}.db"))
}

/// Connects without Clean Session: the code of the answer, and whether there was a session.
fn resume(to: SocketAddr, id: &str, user: Option<&str>) -> (Peer, u8, bool) {
    let mut peer = Peer::open(to);
    let user = user.map(string);
    let flags = if user.is_some() { 0x80 } else { 0 };
    let head = [&b"\0\x04MQTT\x04"[..], &[flags, 0, 0], &string(id)].concat();
    peer.send(&packet(0x10, &[head, user.unwrap_or_default()].concat()));
    let connack = peer.packet();
    assert_eq!(connack[0], 0x20);
    (peer, connack[3], connack[2] == 1)
}

fn resumed(to: SocketAddr, id: &str, user: Option<&str>) -> Peer {
    let (peer, code, present) = resume(to, id, user);
    assert_eq!((code, present), (0, true), "{id}");
    peer
}

/// A PUBLISH with QoS 1 or 2 of MQTT 3.1.1.
#[derive(Debug, PartialEq, Eq)]
struct Publish {
    qos: u8,
    dup: bool,
    id: u16,
    topic: String,
    payload: String,
}

impl Publish {
    fn parse(packet: &[u8]) -> Publish {
        let at = 2 + packet[1..].iter().position(|b| b & 128 == 0).unwrap();
        let len = usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        let (topic, rest) = packet[at + 2..].split_at(len);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (qos, dup, id) = (packet[0] >> 1 & 3, packet[0] & 8 != 0, u16::from_be_bytes([rest[0], rest[1]]));
        Publish { qos, dup, id, topic: text(topic), payload: text(&rest[2..]) }
    }
}

/// Takes what comes, and does with it what a client does, until `count` messages are there and everything is done.
/// The packet ids of PUBRELs that no message came before.
fn take(peer: &mut Peer, count: usize) -> (Vec<Publish>, Vec<u16>) {
    let (mut messages, mut open, mut released) = (Vec::new(), Vec::new(), Vec::new());
    while messages.len() < count || !open.is_empty() {
        let packet = peer.packet();
        match packet[0] {
            0x62 => {
                let id = u16::from_be_bytes([packet[2], packet[3]]);
                match open.iter().position(|known| *known == id) {
                    Some(at) => drop(open.remove(at)),
                    None => released.push(id),
                }
                peer.send(&[0x70, 2, packet[2], packet[3]]);
            }
            _ if packet[0] >> 4 == 3 => {
                let message = Publish::parse(&packet);
                let [high, low] = message.id.to_be_bytes();
                if message.qos == 2 {
                    open.push(message.id);
                }
                peer.send(&[if message.qos == 2 { 0x50 } else { 0x40 }, 2, high, low]);
                messages.push(message);
            }
            _ => panic!("{packet:02x?}"),
        }
    }
    peer.ping();
    (messages, released)
}

fn topics(messages: &[Publish]) -> Vec<(&str, &str)> {
    let mut topics: Vec<_> = messages.iter().map(|m| (&*m.topic, &*m.payload)).collect();
    topics.sort_unstable();
    topics
}

#[test]
fn sessions_go_on_where_mosquitto_left_them() {
    for (version, workers) in VERSIONS.into_iter().zip([1, 3, 1, 2, 3]) {
        let dir = configured(&format!("goes-on-{version}"));
        let (code, out, err) = dir.import(&data(version));
        assert_eq!((code, &*err), (Some(0), ""), "{version}: {out}");
        let v5 = version >= "1.6";
        let named = version >= "2.0";
        let start = if v5 {
            "Imported:\n  5 sessions\n  5 subscriptions\n  103 queued messages\n  3 messages in flight\n"
        } else {
            "Imported:\n  4 sessions\n  5 subscriptions\n  100 queued messages\n  3 messages in flight\n"
        };
        assert!(out.starts_with(start), "{version}: {out}");
        assert_eq!(out.contains("  1 session: expired\n"), v5, "{version}: {out}");
        let (server, address) = dir.start(workers);

        // In flight: of the first message PUBCOMP is missing, of the second PUBREC, of the third PUBACK.
        if named {
            assert_eq!(resume(address, "meter", Some("eve")).1, 5, "another user's session");
        }
        let mut meter = resumed(address, "meter", Some("ann"));
        let (messages, released) = take(&mut meter, 102);
        assert_eq!(released, [1], "{version}");
        let known = |qos, id, topic: &str, payload: &str| Publish {
            qos,
            dup: true,
            id,
            topic: topic.into(),
            payload: payload.into(),
        };
        assert_eq!(messages[0], known(2, 2, "alarm/2", "unreceived"), "{version}");
        assert_eq!(messages[1], known(1, 3, "note/3", "unacknowledged"), "{version}");
        for (n, message) in (4..104).zip(&messages[2..]) {
            let (topic, qos) = if n % 2 == 1 { ("alarm", 2) } else { ("note", 1) };
            assert_eq!((&message.topic, &message.payload), (&format!("{topic}/{n}"), &n.to_string()));
            assert_eq!((message.qos, message.dup), (qos, false));
        }
        assert!(meter.hears_nothing());

        // What mosquitto had received and not passed on arrives once, whether its publisher sends it again or releases it.
        let mut watch = resumed(address, "watch", None);
        let (messages, _) = take(&mut watch, 2);
        assert_eq!(topics(&messages), [("tank/level", "42"), ("tank/state", "full")], "{version}");
        let mut pump = resumed(address, "pump", None);
        pump.send(&[0x62, 2, 0, 7]);
        pump.expect(&[0x70, 2, 0, 7]);
        pump.send(&packet(0x3d, &[&string("tank/state")[..], &[0, 8], b"full"].concat()));
        pump.expect(&[0x50, 2, 0, 8]);
        pump.send(&[0x62, 2, 0, 8]);
        pump.expect(&[0x70, 2, 0, 8]);
        watch.ping();
        assert!(watch.hears_nothing(), "{version}");

        let mut fresh = Peer::connect(address, "fresh");
        fresh.send(&packet(0x82, &[&[0, 1][..], &string("home/#"), &[1], &string("tank/+"), &[1]].concat()));
        let mut retained = Vec::new();
        while retained.len() < 3 {
            let packet = fresh.packet();
            if packet[0] >> 4 == 3 {
                assert!(packet[0] & 1 == 1);
                retained.push(Publish::parse(&packet));
            }
        }
        let expected = [("home/hall", "19"), ("home/kitchen", "21.5"), ("tank/state", "full")];
        assert_eq!(topics(&retained), expected, "{version}");

        // Later mosquittos know shared subscriptions, but do not write them.
        let mut worker = resumed(address, "worker", None);
        if !v5 {
            fresh.send(&packet(0x30, &[&string("job/2")[..], b"dig"].concat()));
            fresh.send(&packet(0x32, &[&string("job/1")[..], &[0, 9], b"dig"].concat()));
            let got = worker.packet();
            assert_eq!(&got[2..], [&string("job/2")[..], b"dig"].concat(), "{version}");
        }
        assert_eq!(topics(&take(&mut worker, 1).0), [("job/1", "dig")]);
        if v5 {
            five(address);
        }
        server.shutdown().unwrap();

        // It is the store's now: a second import is refused, and a restart has what is left.
        let (code, out, err) = dir.import(&data(version));
        assert_eq!((code, &*out), (Some(1), ""));
        assert!(err.contains("hikyaku.store holds sessions or messages already"), "{err}");
        let (server, address) = dir.start(1);
        let mut meter = resumed(address, "meter", Some("ann"));
        meter.ping();
        assert!(meter.hears_nothing());
        server.shutdown().unwrap();
    }
}

/// Properties, subscription identifiers and options, Session Expiry Interval.
fn five(to: SocketAddr) {
    let connect = |id: &str, user: &[u8]| {
        let flags = if user.is_empty() { 0 } else { 0x80 };
        let properties = [5, 0x11, 0xff, 0xff, 0xff, 0xff];
        packet(0x10, &[&b"\0\x04MQTT\x05"[..], &[flags, 0, 0], &properties, &string(id), user].concat())
    };
    let mut five = Peer::open(to);
    five.send(&connect("five", &string("bob")));
    assert_eq!(five.packet()[2..4], [1, 0]);
    let first = five.packet();
    // As it was published, to be retained.
    assert_eq!(first[0], 0x33, "{first:02x?}");
    let properties = [
        &[1, 1, 3][..],
        &string("text/plain"),
        &[8],
        &string("answer/here"),
        &[9, 0, 2, 0, 0xff, 0x26],
        &string("key"),
        &string("värde"),
        &[0x0b, 0xac, 2],
    ]
    .concat();
    assert!(first.ends_with(b"everything"));
    let head = [&string("v5/all")[..], &[0, 1], &[properties.len() as u8]].concat();
    assert_eq!(first[2..2 + head.len()], head);
    let rest = &first[2 + head.len()..first.len() - b"everything".len()];
    let sorted = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.sort_unstable();
        bytes
    };
    assert_eq!(sorted(rest), sorted(&properties), "{rest:02x?}");
    five.send(&[0x40, 2, 0, 1]);
    let second = five.packet();
    assert!(second[0] == 0x34 && second.ends_with(b"for 136 years"), "{second:02x?}");
    assert!(second.contains(&2), "an expiry interval");
    five.send(&[0x50, 2, 0, 2]);
    five.expect(&[0x62, 2, 0, 2]);
    five.send(&[0x70, 2, 0, 2]);
    five.send(&[0xc0, 0]);
    five.expect(&[0xd0, 0]);
    let mut brief = Peer::open(to);
    brief.send(&connect("brief", &[]));
    assert_eq!(brief.packet()[2..4], [0, 0], "a session that has expired");
}

#[test]
fn what_cannot_be_imported_changes_nothing() {
    let dir = configured("refusals");
    let whole = fs::read(data("2.1")).unwrap();
    let file = dir.0.join("copy.db");
    let before = ["copy.db", "hikyaku.conf"];
    let mut unknown = whole.clone();
    unknown[47 + 3] = 9;
    let mut later = whole.clone();
    later[22] = 7;
    for (bytes, at, what) in [
        (&whole[..whole.len() - 1], whole.len() - 16, "the file ends within this chunk"),
        (&[], 0, "the file is empty"),
        (&whole[1..], 0, "this is not a database of mosquitto"),
        (&later, 19, "the version of the format is not one of 2 to 6"),
        (&unknown, 47, "there is no such kind of chunk"),
    ] {
        fs::write(&file, bytes).unwrap();
        let (code, out, err) = dir.import(&file);
        let line = format!("Error: {} is not imported: at byte {at}: {what}.\n", file.display());
        assert_eq!((code, &*out, &*err), (Some(1), "", &*line));
        assert_eq!(dir.names(), before);
    }
    let (code, _, err) = dir.import(&dir.0.join("none.db"));
    assert!(code == Some(1) && err.contains("none.db cannot be read: No such file"), "{err}");
    let (code, _, err) = dir.import(&dir.0);
    assert!(code == Some(1) && err.contains("it is not a regular file"), "{err}");
    assert_eq!(dir.names(), before);

    fs::write(dir.0.join("hikyaku.conf"), "persistence false\n").unwrap();
    let (code, _, err) = dir.import(&data("2.1"));
    assert!(code == Some(1) && err.contains("hikyaku.conf does not say 'persistence true'"), "{err}");
    fs::write(dir.0.join("hikyaku.conf"), "persistence true\npersistence_location /nowhere/at/all\n")
        .unwrap();
    let (code, _, err) = dir.import(&data("2.1"));
    assert!(code == Some(1) && err.contains("Cannot keep data in /nowhere/at/all"), "{err}");
    assert_eq!(dir.names(), before);
}

#[test]
fn a_start_tells_of_the_database_and_a_running_broker_keeps_its_store() {
    let dir = configured("hint");
    let file = dir.0.join("mosquitto.db");
    fs::copy(data("2.0"), &file).unwrap();
    let conf = dir.conf();
    let mut broker = Broker::start(broker::hikyaku().args(["-c", &conf, "-v"]));
    let hint = format!("--import-mosquitto-db {}\n", file.display());
    assert!(broker.logged.contains(&hint), "{}", broker.logged);
    let (code, out, err) = dir.import(&file);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.starts_with("Error: A broker runs with ") && err.ends_with("End it first.\n"), "{err}");
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));

    // Nothing has been kept: the broker's store is still as good as none.
    let (code, _, err) = dir.import(&file);
    assert_eq!((code, &*err), (Some(0), ""));
    let mut broker = Broker::start(broker::hikyaku().args(["-c", &conf, "-v"]));
    drop(resumed(broker.address, "watch", None));
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
    assert!(!broker.logged.contains("--import-mosquitto-db"), "{}", broker.logged);
}
