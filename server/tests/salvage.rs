//! `hikyaku --salvage` on stores that are really damaged.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod kept;
mod peer;

use broker::output;
use dir::Dir;
use hikyaku::Server;
use kept::{Killable, options, publish, publish1, resume, start, subscribe};
use peer::Peer;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SESSIONS: usize = 12;
const MESSAGES: usize = 60;
const RETAINED: usize = 100;

/// Sessions with queues, and retained messages.
fn fill(to: SocketAddr) {
    for session in 0..SESSIONS {
        let (mut subscriber, _) = resume(to, &format!("s{session}"));
        subscribe(&mut subscriber, &format!("q/{session}"), 1);
    }
    publish_all(to, 0..MESSAGES);
}

fn publish_all(to: SocketAddr, messages: Range<usize>) {
    let (mut publisher, _) = resume(to, "p");
    for n in messages {
        let payload = format!("{n:05} {}", "x".repeat(200));
        let all: Vec<u8> = (0..SESSIONS)
            .flat_map(|s| publish(&format!("q/{s}"), 1, false, 1 + s as u16, payload.as_bytes()))
            .collect();
        publisher.send(&all);
        (0..SESSIONS).for_each(|s| publisher.expect(&[0x40, 2, 0, 1 + s as u8]));
    }
    for n in 0..RETAINED {
        publish1(&mut publisher, &format!("r/{n}"), true, format!("retained {n}").as_bytes());
    }
}

/// What was filled in, in the base alone.
fn filled(name: &str) -> (Dir, PathBuf) {
    let dir = Dir::new(name);
    let (server, address) = start(&dir.0, 2);
    fill(address);
    server.shutdown().unwrap();
    let base = dir.store().join("base.redb");
    (dir, base)
}

/// In the base is what came first, in the journal what came then.
fn filled_and_killed(
    name: &str,
    first: impl FnOnce(SocketAddr),
    then: impl FnOnce(SocketAddr),
) -> (Dir, PathBuf) {
    let dir = Dir::new(name);
    let (server, address) = start(&dir.0, 2);
    first(address);
    server.shutdown().unwrap();
    let mut broker = Killable::start(&dir, 2);
    then(broker.0.address);
    broker.0.signal(Signal::KILL);
    broker.0.exit_code();
    let journals = fs::read_dir(dir.store()).unwrap().map(|f| f.unwrap().path());
    let journal = journals.filter(|f| f.to_string_lossy().contains("journal-")).max().unwrap();
    (dir, journal)
}

fn salvage(dir: &Dir) -> (Option<i32>, String) {
    let (code, out, err) = output(&["--salvage", dir.0.to_str().unwrap()]);
    assert_eq!(err, "", "{out}");
    (code, out)
}

/// The packet id and the payload of a PUBLISH.
fn message(packet: &[u8]) -> ([u8; 2], &[u8]) {
    assert_eq!(packet[0] >> 4, 3, "{packet:x?}");
    let topic = 1 + packet[1..].iter().position(|b| b & 128 == 0).unwrap() + 1;
    let end = topic + 2 + usize::from(u16::from_be_bytes([packet[topic], packet[topic + 1]]));
    ([packet[end], packet[end + 1]], &packet[end + 2..])
}

/// How many messages and retained messages a broker still has. They are true, in order and there once.
fn what_is_left(dir: &Dir, said: &str) -> (usize, usize) {
    let number = |before: &str| {
        let rest = said.split_once(before).unwrap().1;
        rest[..rest.find(' ').unwrap()].parse::<usize>().unwrap()
    };
    let said = (number("sessions with "), number("messages, and "));
    let mut broker = Killable::start(dir, 3);
    assert!(!broker.0.logged.contains("amaged"), "{}", broker.0.logged);
    let mut messages = 0;
    for session in 0..SESSIONS {
        let (mut subscriber, present) = resume(broker.0.address, &format!("s{session}"));
        if !present {
            continue;
        }
        let mut came = Vec::new();
        let mut before = usize::MAX;
        while before != came.len() {
            before = came.len();
            subscriber.send(&[0xC0, 0]);
            loop {
                let packet = subscriber.packet();
                if packet == [0xD0, 0] {
                    break;
                }
                let (id, payload) = message(&packet);
                let text = std::str::from_utf8(payload).unwrap();
                assert_eq!(text.len(), 206);
                came.push(text[..5].parse::<usize>().unwrap());
                subscriber.send(&[0x40, 2, id[0], id[1]]);
            }
        }
        assert!(came.windows(2).all(|w| w[0] < w[1]), "{came:?}");
        messages += came.len();
    }
    let mut watcher = Peer::connect(broker.0.address, "w");
    watcher.subscribe("r/#");
    let mut retained = BTreeSet::new();
    while retained.len() < said.1 {
        let packet = watcher.packet();
        let text = String::from_utf8(packet[4..].to_vec()).unwrap();
        let (topic, value) = text.strip_prefix("r/").unwrap().split_once("retained ").unwrap();
        assert_eq!(topic, value);
        assert!(retained.insert(text.clone()), "{text}");
    }
    watcher.ping();
    broker.0.signal(Signal::TERM);
    assert_eq!(broker.0.exit_code(), Some(0));
    assert_eq!(said.0, messages);
    said
}

/// Writes over some of the pages of a file.
fn overwrite(path: &Path, pages: impl Fn(u64, &[u8]) -> bool) -> usize {
    let bytes = fs::read(path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut count = 0;
    for (n, page) in bytes.chunks(4096).enumerate() {
        if pages(n as u64, page) {
            file.write_all_at(&vec![0xA5; page.len()], n as u64 * 4096).unwrap();
            count += 1;
        }
    }
    count
}

#[test]
fn what_is_whole_is_left_as_it_is() {
    let (dir, _) = filled("whole");
    let (code, said) = salvage(&dir);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("Nothing is damaged. It was left as it is.\n"), "{said}");
    assert!(
        said.contains(&format!(
            "{} sessions with {} messages, and {RETAINED} retained",
            SESSIONS + 1,
            SESSIONS * MESSAGES
        )),
        "{said}"
    );
    assert!(!dir.store().join("base.redb.new").exists());
    assert_eq!(what_is_left(&dir, &said), (SESSIONS * MESSAGES, RETAINED));
}

#[test]
fn a_lost_header_loses_nothing() {
    let (dir, base) = filled("header");
    overwrite(&base, |n, _| n == 0);
    let refused = Server::start(options(&dir.0, 1)).unwrap_err().to_string();
    assert!(refused.contains("'hikyaku --salvage' saves what can be read"), "{refused}");
    let damaged = fs::read(&base).unwrap();
    let (code, said) = salvage(&dir);
    println!("{said}");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("base.redb.damaged-1"), "{said}");
    assert!(fs::read(base.with_extension("redb.damaged-1")).unwrap() == damaged);
    assert_eq!(what_is_left(&dir, &said), (SESSIONS * MESSAGES, RETAINED));
    let (code, said) = salvage(&dir);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn names_are_hashed_anew_if_nobody_knows_how_they_were() {
    let (dir, base) = filled("placement");
    overwrite(&base, |n, page| n == 0 || page.windows(9).any(|w| w == b"placement"));
    let (code, said) = salvage(&dir);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("does not say how names are hashed"), "{said}");
    assert_eq!(what_is_left(&dir, &said), (SESSIONS * MESSAGES, RETAINED));
    // A retained message takes the place of the one that was saved.
    let (server, address) = start(&dir.0, 2);
    for n in 0..RETAINED {
        publish1(&mut Peer::connect(address, "p"), &format!("r/{n}"), true, b"");
    }
    server.shutdown().unwrap();
    let (code, said) = salvage(&dir);
    assert!(code == Some(0) && said.contains(" and 0 retained messages."), "{said}");
}

#[test]
fn pages_that_are_overwritten_cost_what_was_in_them() {
    let mut least = (usize::MAX, usize::MAX);
    for part in 0..8 {
        let (dir, base) = filled("pages");
        let count = overwrite(&base, |n, page| n > 0 && n % 8 == part && matches!(page[0], 1 | 2));
        let (code, said) = salvage(&dir);
        println!("{count} pages: {said}");
        assert_eq!(code, Some(2), "{said}");
        let left = what_is_left(&dir, &said);
        least = (least.0.min(left.0), least.1.min(left.1));
    }
    println!("at least {least:?} are left");
    assert!(least.0 > SESSIONS * MESSAGES / 2);
}

#[test]
fn the_middle_of_the_tree_is_not_needed() {
    let (dir, base) = filled("branches");
    // What says where the leaves are.
    assert!(overwrite(&base, |n, page| n > 0 && page[0] == 2) > 0);
    let (code, said) = salvage(&dir);
    println!("{said}");
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(what_is_left(&dir, &said), (SESSIONS * MESSAGES, RETAINED));
}

#[test]
fn half_a_file_is_read() {
    let (dir, base) = filled("half");
    let len = fs::metadata(&base).unwrap().len();
    fs::OpenOptions::new().write(true).open(&base).unwrap().set_len(len / 2).unwrap();
    let (code, said) = salvage(&dir);
    println!("{said}");
    assert_eq!(code, Some(2), "{said}");
    println!("{:?}", what_is_left(&dir, &said));
    for content in [&b""[..], b"x", &[7; 8192]] {
        fs::write(&base, content).unwrap();
        let (code, said) = salvage(&dir);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("Saved: 0 sessions with 0 messages, and 0 retained messages."), "{said}");
        assert_eq!(what_is_left(&dir, &said), (0, 0));
    }
}

#[test]
fn broken_frames_and_a_broken_base_leave_the_other() {
    // The journal alone is broken.
    let (dir, journal) = filled_and_killed("frames", |_| {}, fill);
    let len = fs::metadata(&journal).unwrap().len();
    let mut bytes = fs::read(&journal).unwrap();
    (len as usize / 2..len as usize / 2 + 50).for_each(|at| bytes[at] ^= 0xFF);
    fs::write(&journal, &bytes).unwrap();
    let (code, said) = salvage(&dir);
    println!("{said}");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("are damaged: what they said is lost") && said.contains(".damaged-1"), "{said}");
    let left = what_is_left(&dir, &said);
    assert!(left.0 > SESSIONS * MESSAGES / 2 && left.0 < SESSIONS * MESSAGES, "{left:?}");

    // The base is gone, the journal is whole.
    let (dir, _) = filled_and_killed("gone", |to| drop(resume(to, "other")), fill);
    fs::remove_file(dir.store().join("base.redb")).unwrap();
    let (code, said) = salvage(&dir);
    println!("{said}");
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(what_is_left(&dir, &said), (SESSIONS * MESSAGES, RETAINED));

    // Both are broken.
    let (dir, journal) = filled_and_killed("both", fill, |to| publish_all(to, MESSAGES..MESSAGES + 4));
    let mut bytes = fs::read(&journal).unwrap();
    (5_000..6_000).for_each(|at| bytes[at] = 0);
    fs::write(&journal, bytes).unwrap();
    overwrite(&dir.store().join("base.redb"), |n, _| n % 5 == 0);
    let (code, said) = salvage(&dir);
    println!("{said}");
    assert_eq!(code, Some(2), "{said}");
    let journals = fs::read_dir(dir.store()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    assert!(journals.filter(|f| f.starts_with("journal-")).all(|f| f.ends_with(".damaged-1")));
    println!("{:?}", what_is_left(&dir, &said));
}

#[test]
fn what_it_is_called_with_is_told() {
    let dir = Dir::new("salvage-arguments");
    let (code, _, err) = output(&["--salvage", dir.0.to_str().unwrap()]);
    assert!(code == Some(1) && err.contains("hikyaku.store: No such file"), "{err}");
    let mut broker = Killable::start(&dir, 1);
    let conf = dir.0.join("hikyaku.conf");
    for args in [
        ["--salvage", dir.store().to_str().unwrap()].as_slice(),
        &["--salvage", "-c", conf.to_str().unwrap()],
    ] {
        let (code, out, err) = output(args);
        assert!(code == Some(1) && out.is_empty(), "{out}");
        assert!(err.starts_with("Error: Another broker keeps its data in "), "{err}");
    }
    broker.0.signal(Signal::TERM);
    assert_eq!(broker.0.exit_code(), Some(0));
    let (code, out, _) = output(&["--salvage", "-c", conf.to_str().unwrap()]);
    assert!(code == Some(0) && out.contains("0 sessions"), "{out}");
}
