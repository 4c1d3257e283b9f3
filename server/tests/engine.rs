//! Files over which the database engine ends the process: it panics in a destructor while another panic unwinds.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod kept;
mod peer;

use broker::{free_port, hikyaku, output};
use dir::Dir;
use hikyaku::check::{damaged_base, retained_in_pages};
use kept::{Killable, publish1, start};
use peer::Peer;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr};

/// What the fuzzer found, by name.
fn known() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/known/base");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut known: Vec<_> = files
        .map(|file| (file.file_name().unwrap().to_string_lossy().into(), fs::read(&file).unwrap()))
        .collect();
    known.sort();
    known
}

/// A store with a base that is damaged so.
fn damaged(test: &str, damage: &[u8]) -> (Dir, PathBuf) {
    let dir = Dir::new(test);
    fs::create_dir(dir.store()).unwrap();
    let base = dir.store().join("base.redb");
    fs::write(&base, damaged_base(damage)).unwrap();
    (dir, base)
}

/// A start of the broker, which may die.
struct Started {
    child: Child,
    address: SocketAddr,
    log: BufReader<ChildStderr>,
    logged: String,
}

impl Started {
    fn new(dir: &Dir) -> Started {
        let port = free_port();
        let file = dir.0.join("hikyaku.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}\n",
            dir.0.display()
        );
        fs::write(&file, text).unwrap();
        let mut child = hikyaku().arg("-c").arg(&file).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Started { child, address: ([127, 0, 0, 1], port).into(), log, logged: String::new() }
    }

    /// Whether it comes to serve.
    fn serves(&mut self) -> bool {
        self.comes_to(" running")
    }

    /// Whether it logs this before it ends.
    fn comes_to(&mut self, words: &str) -> bool {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            self.logged += &line;
            if line.contains(words) {
                return true;
            }
            line.clear();
        }
        false
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended: its code, or the signal it died of; and its log.
    fn ended(mut self) -> (Option<i32>, Option<i32>, String) {
        while self.log.read_line(&mut self.logged).unwrap() > 0 {}
        let status = self.child.wait().unwrap();
        (status.code(), status.signal(), self.logged)
    }
}

/// Reads all retained messages with a topic of one level: so many, or more than one looks for.
fn retained(to: SocketAddr, count: usize) -> BTreeSet<String> {
    let mut watcher = Peer::connect(to, "w");
    watcher.subscribe("+");
    let mut all = BTreeSet::new();
    while all.len() < count {
        let packet = watcher.packet();
        // Topic and payload are the same.
        assert_eq!((packet.len(), &packet[4..10]), (16, &packet[10..]), "{packet:x?}");
        assert!(all.insert(String::from_utf8(packet[10..].to_vec()).unwrap()));
    }
    watcher.ping();
    all
}

/// A broker that serves after others died of its base.
struct Survivor {
    started: Started,
    deaths: u64,
    /// The base that the last one died of, and what can be read in its pages.
    base: Vec<u8>,
    found: BTreeSet<String>,
    /// What the first one logged that did not die.
    logged: String,
}

/// Starts the broker until it does not die any more, and then once more.
fn start_until_it_serves(name: &str, dir: &Dir, base: &Path, mut deaths: u64) -> Survivor {
    loop {
        let (before, found) = (fs::read(base).unwrap(), retained_in_pages(base));
        let mut started = Started::new(dir);
        let serves = started.serves();
        if serves {
            started.signal(Signal::TERM);
        }
        let (code, signal, logged) = started.ended();
        if signal.is_none() {
            assert!(serves && code == Some(0), "{name}: {logged}");
            let mut started = Started::new(dir);
            assert!(started.serves(), "{name}: {}", started.logged);
            println!("{name}: {deaths} deaths");
            return Survivor { started, deaths, base: before, found, logged };
        }
        assert_eq!(signal, Some(Signal::ABORT.as_raw()), "{name}: {logged}");
        deaths += 1;
        assert!(deaths <= 3, "{name}: {logged}");
    }
}

impl Survivor {
    /// It has done without the engine, said so, and not lost the old file.
    fn has_told(&self, base: &Path) {
        let told = [
            "has ended the broker 3 times in a row over ",
            "were found in single pages",
            "base.redb.damaged-1",
        ];
        assert!(told.iter().all(|words| self.logged.contains(words)), "{}", self.logged);
        assert!(fs::read(base.with_extension("redb.damaged-1")).unwrap() == self.base);
    }

    /// That was all.
    fn ends_well(self) {
        self.started.signal(Signal::TERM);
        let (code, _, logged) = self.started.ended();
        assert!(code == Some(0) && !logged.contains("damaged"), "{logged}");
    }
}

#[test]
fn what_ends_the_broker_is_read_without_the_engine() {
    let mut all = 0;
    for (name, damage) in known() {
        let (dir, base) = damaged("engine-start", &damage);
        let survivor = start_until_it_serves(&name, &dir, &base, 0);
        all += survivor.deaths;
        let found = &survivor.found;
        assert_eq!(retained(survivor.started.address, found.len()), *found, "{name}: {}", survivor.logged);
        if survivor.deaths > 0 {
            survivor.has_told(&base);
        }
        survivor.ends_well();
    }
    // If none does, the engine is mended, or what is damaged has changed: then others are to be found.
    assert!(all > 0, "nothing ends the broker");
}

/// The file goes bad below a broker that runs. The engine reads it again when a commit has failed and it is opened anew.
#[test]
fn what_ends_the_broker_while_it_serves_costs_nothing_that_was_acknowledged() {
    let mut died = false;
    for (name, damage) in known() {
        let (dir, base) = damaged("engine-serving", &[]);
        let mut started = Started::new(&dir);
        assert!(started.serves(), "{name}: {}", started.logged);
        let mut publisher = Peer::connect(started.address, "p");
        let acknowledged: BTreeSet<_> = (0..9).map(|n| format!("u{n:05}")).collect();
        for topic in &acknowledged {
            publish1(&mut publisher, topic, true, topic.as_bytes());
        }
        // More than the base may grow by.
        let len = fs::metadata(&base).unwrap().len();
        for n in 0..=len >> 16 {
            publish1(&mut publisher, &format!("large/{n}"), true, &[7; 64 << 10]);
        }
        fs::write(&base, damaged_base(&damage)).unwrap();
        let limit = Rlimit { current: Some(len + (256 << 10)), maximum: None };
        prlimit(Some(Pid::from_child(&started.child)), Resource::Fsize, limit).unwrap();
        // When nothing has come for some seconds.
        if started.comes_to("cannot be brought up to date") {
            started.child.kill().unwrap();
            started.child.wait().unwrap();
            continue;
        }
        let (_, signal, logged) = started.ended();
        assert_eq!(signal, Some(Signal::ABORT.as_raw()), "{name}: {logged}");
        assert_eq!(fs::metadata(dir.store().join("attempts")).unwrap().len(), 1, "{name}");
        let survivor = start_until_it_serves(&name, &dir, &base, 1);
        let mut expected = acknowledged;
        expected.extend(survivor.found.iter().filter(|topic| !topic.contains('/')).cloned());
        let logged = &survivor.logged;
        assert_eq!(retained(survivor.started.address, expected.len()), expected, "{name}: {logged}");
        survivor.has_told(&base);
        survivor.ends_well();
        died = true;
        break;
    }
    assert!(died, "nothing ends a broker that serves");
}

#[test]
fn salvaging_by_hand_does_without_the_engine_when_it_has_died_of_it() {
    for (name, damage) in known() {
        let (dir, base) = damaged("engine-hand", &damage);
        let expected = retained_in_pages(&base).len();
        let mut said = String::new();
        // It reads a copy: nothing gets worse by that.
        let ended = (0..3).any(|_| {
            let (code, out, _) = output(&["--salvage", dir.0.to_str().unwrap()]);
            said = out;
            code == Some(2)
        });
        assert!(ended && said.contains(&format!("and {expected} retained messages.")), "{name}: {said}");
        let (server, address) = start(&dir.0, 1);
        assert_eq!(retained(address, expected).len(), expected, "{name}");
        server.shutdown().unwrap();
    }
}

#[test]
fn brokers_that_are_killed_while_they_start_lose_nothing_by_that() {
    let dir = Dir::new("engine-killed");
    let mut kept = Killable::start(&dir, 2);
    publish1(&mut Peer::connect(kept.0.address, "p"), "t", true, b"kept");
    // As three that were killed while the engine wrote.
    for deaths in [1, 2, 3] {
        kept.0.signal(Signal::KILL);
        kept.0.exit_code();
        fs::write(dir.store().join("attempts"), vec![0; deaths]).unwrap();
        kept = Killable::start(&dir, 2);
        assert_eq!(kept.0.logged.contains("read without the engine"), deaths == 3, "{}", kept.0.logged);
        assert_eq!(fs::metadata(dir.store().join("attempts")).unwrap().len(), 0);
        let mut watcher = Peer::connect(kept.0.address, "w");
        watcher.subscribe("t");
        assert_eq!(watcher.packet()[5..], *b"kept");
    }
}
