//! A whole broker whose disk fails, in tests: errors of the system, not a lack of space.

use super::DIRECTORY;
use super::power::{FAULTS, Op};
use crate::config::{Endpoint, ListenerSettings, PersistenceSettings};
use crate::{Options, Server};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
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
        let mut client = Client(TcpStream::connect(to).unwrap(), version);
        client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head = [0, 4, b'M', b'Q', b'T', b'T', version, 2, 0, 60];
        client.send(0x10, &[&head[..], client.no_properties(), &[0, 1, id]].concat());
        let (first, body) = client.packet().unwrap();
        assert_eq!((first, body[1]), (0x20, 0), "{body:?}");
        client
    }

    fn no_properties(&self) -> &'static [u8] {
        if self.1 == 5 { &[0] } else { &[] }
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        self.0.write_all(&[&[first, body.len() as u8][..], body].concat()).unwrap();
    }

    /// The next packet, if there is one in time.
    fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.0.read_exact(&mut head) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            other => other.unwrap(),
        }
        let mut body = vec![0; head[1].into()];
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
        let id: &[u8] = if qos > 0 { &[0, topic] } else { &[] };
        let body = [&[0, 1, topic], id, self.no_properties(), &[topic]].concat();
        self.send(0x31 | qos << 1, &body);
    }

    /// Whether the answer to a PUBLISH, which comes now, says that it was taken.
    fn is_acknowledged(&mut self, topic: u8) -> bool {
        let (first, body) = self.packet().unwrap();
        assert_eq!((first, body[1]), (0x40, topic));
        body.get(2).is_none_or(|reason| *reason < 0x80)
    }

    fn subscribe(&mut self) {
        self.send(0x82, &[&[0, 9], self.no_properties(), &[0, 1, b'#', 0]].concat());
        assert_eq!(self.packet().unwrap().0, 0x90);
    }
}

const SOON: Duration = Duration::from_millis(200);

#[test]
fn a_disk_that_fails_is_promised_nothing_and_serves_again_when_it_is_mended() {
    let _ = log::set_logger(&Capture);
    log::set_max_level(log::LevelFilter::Warn);
    for (op, name) in [(Op::Write, "write"), (Op::Sync, "sync")] {
        let dir = std::env::temp_dir().join(format!("hikyaku-failing-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
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
        loop {
            publisher.publish(b'd', 1);
            if publisher.is_acknowledged(b'd') {
                break;
            }
        }
        server.shutdown().unwrap();
        let lines = LOGGED.lock().unwrap().clone();
        let of = |words: &str| {
            lines.iter().filter(|l| l.contains(&*store.to_string_lossy()) && l.contains(words)).count()
        };
        assert_eq!(
            (of("QoS 1 and 2 are refused until it can"), of("takes changes again")),
            (1, 1),
            "{lines:#?}"
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
