//! Wills of clients that were connected when the broker died.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod peer;

use broker::{Broker, free_port, hikyaku};
use peer::{Peer, packet, string};
use rustix::process::Signal;
use std::collections::BTreeSet;

/// A CONNECT that keeps its session, with a will of QoS 1 where there is a topic.
fn lasting(id: &str, will: Option<&str>) -> Vec<u8> {
    let flags = if will.is_some() { 0b1100 } else { 0 };
    let mut body = [b"\0\x04MQTT\x04", &[flags, 0, 0][..], &string(id)].concat();
    if let Some(topic) = will {
        body.extend([string(topic), string("gone")].concat());
    }
    packet(0x10, &body)
}

#[test]
fn wills_reach_everyone_after_a_kill_whatever_worker_they_are_on() {
    let port = free_port();
    let dir = std::env::temp_dir().join(format!("hikyaku-wills-{port}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("hikyaku.conf");
    let options = format!("persistence true\npersistence_location {}", dir.display());
    std::fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\n{options}\n")).unwrap();
    let mut command = hikyaku();
    command.arg("-c").arg(&file).args(["--workers", "3"]);
    let mut broker = Broker::spawn(&mut command, port);
    let mut mourners: Vec<Peer> = Vec::new();
    for id in ["mourner-a", "mourner-b", "mourner-c", "mourner-d"] {
        let mut mourner = Peer::open(broker.address);
        mourner.send(&lasting(id, None));
        mourner.expect(&[0x20, 2, 0, 0]);
        mourner.send(&packet(0x82, &[&[0, 1][..], &string("v/#"), &[1]].concat()));
        mourner.expect(&[0x90, 3, 0, 1, 1]);
        mourners.push(mourner);
    }
    let ids: BTreeSet<String> = (0..24).map(|i| format!("v/{i}")).collect();
    let mut mortals = Vec::new();
    for topic in &ids {
        let mut mortal = Peer::open(broker.address);
        mortal.send(&lasting(&format!("mortal-{topic}"), Some(topic)));
        mortal.expect(&[0x20, 2, 0, 0]);
        mortals.push(mortal);
    }
    broker.signal(Signal::KILL);
    broker.exit_code();
    broker = Broker::spawn(&mut command, port);
    for id in ["mourner-a", "mourner-b", "mourner-c", "mourner-d"] {
        let mut mourner = Peer::open(broker.address);
        mourner.send(&lasting(id, None));
        mourner.expect(&[0x20, 2, 1, 0]);
        let mut got = BTreeSet::new();
        while got != ids {
            let publish = mourner.packet();
            let (topic, rest) = publish[4..].split_at(usize::from(publish[3]));
            assert_eq!((publish[0], &rest[2..]), (0x32, &b"gone"[..]));
            assert!(got.insert(String::from_utf8(topic.to_vec()).unwrap()), "{topic:?} came twice");
            mourner.send(&[0x40, 2, rest[0], rest[1]]);
        }
    }
    drop(broker);
    let _ = std::fs::remove_dir_all(&dir);
}
