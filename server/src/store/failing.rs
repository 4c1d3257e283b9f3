//! A whole broker whose disk fails, in tests: errors of the system, not a lack of space.

use super::power::{FAULTS, Op};
use super::{BASE, DIRECTORY};
use crate::config::{Endpoint, ListenerSettings, PersistenceSettings};
use crate::{Options, Server};
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LOGGED.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn capture() {
    let _ = log::set_logger(&Capture);
    log::set_max_level(log::LevelFilter::Warn);
}

/// How often this was logged of a store.
fn told(store: &Path, words: &str) -> usize {
    let lines = LOGGED.lock().unwrap();
    lines.iter().filter(|l| l.contains(&*store.to_string_lossy()) && l.contains(words)).count()
}

fn fresh(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("hikyaku-failing-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn start(dir: &Path) -> (Server, SocketAddr) {
    let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
    let listeners = vec![ListenerSettings { endpoint, ..Default::default() }];
    let persistence =
        PersistenceSettings { enabled: true, location: Some(dir.into()), ..PersistenceSettings::default() };
    let server = Server::start(Options { listeners, persistence, ..Options::default() }).unwrap();
    let address = server.local_addrs()[0];
    (server, address)
}

/// A client of 5.0, or of 3.1.1.
struct Client(TcpStream, u8);

impl Client {
    fn connect(to: SocketAddr, id: u8, version: u8) -> Client {
        Client::connect_with(to, id, version, 2)
    }

    /// A session of 3.1.1 that stays.
    fn resume(to: SocketAddr, id: u8) -> Client {
        Client::connect_with(to, id, 4, 0)
    }

    fn connect_with(to: SocketAddr, id: u8, version: u8, flags: u8) -> Client {
        let mut client = Client(TcpStream::connect(to).unwrap(), version);
        client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head = [0, 4, b'M', b'Q', b'T', b'T', version, flags, 0, 60];
        client.send(0x10, &[&head[..], client.no_properties(), &[0, 1, id]].concat());
        let (first, body) = client.packet().unwrap();
        assert_eq!((first, body[1]), (0x20, 0), "{body:?}");
        client
    }

    fn no_properties(&self) -> &'static [u8] {
        if self.1 == 5 { &[0] } else { &[] }
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        let (low, high) = (body.len() as u8 & 127, (body.len() >> 7) as u8);
        let length = if high > 0 { vec![low | 128, high] } else { vec![low] };
        self.0.write_all(&[&[first][..], &length, body].concat()).unwrap();
    }

    /// The next packet, if there is one in time.
    fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.0.read_exact(&mut head) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            other => other.unwrap(),
        }
        let mut length = usize::from(head[1] & 127);
        if head[1] > 127 {
            let mut high = [0];
            self.0.read_exact(&mut high).unwrap();
            length |= usize::from(high[0]) << 7;
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Some((head[0], body))
    }

    fn within(&mut self, time: Duration) -> Option<(u8, Vec<u8>)> {
        self.0.set_read_timeout(Some(time)).unwrap();
        let packet = self.packet();
        self.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        packet
    }

    /// What is published is retained; the payload is the topic.
    fn publish(&mut self, topic: u8, qos: u8) {
        self.publish_payload(topic, qos, &[topic]);
    }

    fn publish_payload(&mut self, topic: u8, qos: u8, payload: &[u8]) {
        let id: &[u8] = if qos > 0 { &[0, topic] } else { &[] };
        let body = [&[0, 1, topic], id, self.no_properties(), payload].concat();
        self.send(0x31 | qos << 1, &body);
    }

    /// Publishes with QoS 1, and whether it is taken; `None` if that is not said soon.
    fn offer(&mut self, topic: u8, payload: &[u8]) -> Option<bool> {
        self.publish_payload(topic, 1, payload);
        let (first, body) = self.within(SOON)?;
        assert_eq!((first, body[1]), (0x40, topic));
        Some(body.get(2).is_none_or(|reason| *reason < 0x80))
    }

    /// Whether the answer to a PUBLISH, which comes now, says that it was taken.
    fn is_acknowledged(&mut self, topic: u8) -> bool {
        let (first, body) = self.packet().unwrap();
        assert_eq!((first, body[1]), (0x40, topic));
        body.get(2).is_none_or(|reason| *reason < 0x80)
    }

    fn subscribe(&mut self) {
        self.subscribe_with(0);
    }

    fn subscribe_with(&mut self, qos: u8) {
        self.send(0x82, &[&[0, 9], self.no_properties(), &[0, 1, b'#', qos]].concat());
        assert_eq!(self.packet().unwrap().0, 0x90);
    }
}

/// Publishes until it is taken.
fn publish_at_last(publisher: &mut Client) {
    loop {
        publisher.publish(b'd', 1);
        if publisher.is_acknowledged(b'd') {
            return;
        }
    }
}

const SOON: Duration = Duration::from_millis(200);

#[test]
fn a_disk_that_fails_is_promised_nothing_and_serves_again_when_it_is_mended() {
    capture();
    for (op, name) in [(Op::Write, "write"), (Op::Sync, "sync")] {
        let dir = fresh(name);
        let (server, address) = start(&dir);
        let mut publisher = Client::connect(address, b'p', 5);
        publisher.publish(b'a', 1);
        assert!(publisher.is_acknowledged(b'a'));
        let store = dir.join(DIRECTORY);
        FAULTS.lock().unwrap().insert(store.clone(), (op, "journal-", u32::MAX));
        // What nobody knew to fail is not acknowledged.
        publisher.publish(b'b', 1);
        assert_eq!(publisher.within(SOON), None);
        // From when it is known: the code says so, of QoS 1 and 2; what was taken before that waits.
        for qos in [1, 2] {
            let refused = std::iter::repeat_with(|| {
                let mut client = Client::connect(address, b'c', 5);
                client.publish(b'c', qos);
                client.within(SOON)
            });
            let (first, body) = refused.flatten().next().unwrap();
            assert_eq!((first, &body[..3]), ([0, 0x40, 0x50][usize::from(qos)], &[0, b'c', 0x83][..]));
        }
        let mut old = Client::connect(address, b'o', 4);
        old.publish(b'c', 1);
        assert_eq!(old.0.read(&mut [0]).unwrap(), 0, "3.1.1 has no code: the connection ends");
        // QoS 0 lives.
        let mut watcher = Client::connect(address, b'w', 5);
        watcher.subscribe();
        Client::connect(address, b'z', 5).publish(b'z', 0);
        while watcher.packet().unwrap().1.last() != Some(&b'z') {}
        assert_eq!(publisher.within(SOON), None);
        FAULTS.lock().unwrap().remove(&store);
        assert!(publisher.is_acknowledged(b'b'));
        publish_at_last(&mut publisher);
        server.shutdown().unwrap();
        assert_eq!(
            (told(&store, "QoS 1 and 2 are refused until it can"), told(&store, "takes changes again")),
            (1, 1)
        );
        // What was acknowledged is there.
        let (server, address) = start(&dir);
        let mut watcher = Client::connect(address, b'w', 5);
        watcher.subscribe();
        let mut missing = b"abd".to_vec();
        while !missing.is_empty() {
            let (_, body) = watcher.packet().unwrap();
            missing.retain(|topic| Some(topic) != body.last());
        }
        server.shutdown().unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// Who writes faster than a base that fails is told so; who does not, notices nothing.
#[test]
fn a_base_that_fails_is_waited_for_until_memory_is_short_and_has_all_when_it_is_mended() {
    capture();
    for (op, name) in [(Op::Write, "base-write"), (Op::Sync, "base-sync")] {
        let dir = fresh(name);
        let (server, address) = start(&dir);
        let store = dir.join(DIRECTORY);
        FAULTS.lock().unwrap().insert(store.clone(), (op, BASE, u32::MAX));
        let mut publisher = Client::connect(address, b'p', 5);
        // By topic: the last value that was acknowledged.
        let mut values = BTreeMap::new();
        let mut waiting = None;
        for (value, topic) in (0..).zip((b'A'..=b'Z').cycle()) {
            match publisher.offer(topic, &[value; 2000]) {
                Some(true) => drop(values.insert(topic, value)),
                Some(false) => break,
                // It was taken before that was known.
                None => {
                    waiting = Some((topic, value));
                    break;
                }
            }
        }
        assert!(values.len() >= 10, "so much is held in memory: {values:?}");
        while Client::connect(address, b'c', 5).offer(b'c', b"c") != Some(false) {}
        FAULTS.lock().unwrap().remove(&store);
        if let Some((topic, value)) = waiting
            && publisher.is_acknowledged(topic)
        {
            values.insert(topic, value);
        }
        publish_at_last(&mut publisher);
        server.shutdown().unwrap();
        // A commit that had begun may fail once more.
        assert!(told(&store, "QoS 1 and 2 are refused until it can") > 0);
        assert!(told(&store, "takes changes again") > 0);
        let (server, address) = start(&dir);
        let mut watcher = Client::connect(address, b'w', 5);
        watcher.subscribe();
        while !values.is_empty() {
            let (_, body) = watcher.packet().unwrap();
            if let Some(value) = values.remove(&body[2]) {
                assert!(body[4..] == [value; 2000], "{name}: {}", body[2]);
            }
        }
        server.shutdown().unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn a_queue_that_cannot_be_read_comes_whole_when_it_can() {
    capture();
    let dir = fresh("base-read");
    let (server, address) = start(&dir);
    let store = dir.join(DIRECTORY);
    Client::resume(address, b'q').subscribe_with(1);
    let mut publisher = Client::connect(address, b'p', 5);
    let mut count = 0;
    // Most of it is in the base then.
    while count < 150 {
        publisher.publish_payload(b't', 1, &[count; 1000]);
        assert!(publisher.is_acknowledged(b't'));
        count += 1;
    }
    // Where a commit fails, the base is opened anew: of what it has, nothing is in memory then.
    FAULTS.lock().unwrap().insert(store.clone(), (Op::Write, BASE, u32::MAX));
    let mut waiting = false;
    while told(&store, "cannot be brought up to date") == 0 && !waiting {
        match publisher.offer(b't', &[count; 1000]) {
            Some(taken) => count += u8::from(taken),
            None => waiting = true,
        }
    }
    FAULTS.lock().unwrap().insert(store.clone(), (Op::Read, BASE, u32::MAX));
    let mut owner = Client::resume(address, b'q');
    let mut came = Vec::new();
    while waiting || came.len() < usize::from(count) {
        if told(&store, "cannot be read") > 0 {
            FAULTS.lock().unwrap().remove(&store);
            count += u8::from(std::mem::take(&mut waiting) && publisher.is_acknowledged(b't'));
        }
        let Some((_, body)) = owner.within(SOON) else { continue };
        owner.send(0x40, &body[3..5]);
        assert_eq!(body.len(), 1005);
        came.push(body[5]);
    }
    assert!(told(&store, "cannot be read") > 0, "nothing was tested");
    assert_eq!(came, (0..count).collect::<Vec<_>>());
    publish_at_last(&mut publisher);
    assert!(told(&store, "takes changes again") > 0);
    server.shutdown().unwrap();
    fs::remove_dir_all(&dir).unwrap();
}
