//! What an attacker might hope for, and no other test is about.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod peer;

use broker::{Broker, free_port, hikyaku};
use dir::Dir;
use hikyaku::auth::{Hash, SCRAM_ITERATIONS_MIN, Scheme};
use hikyaku::config::Settings;
use peer::{Peer, packet, publish, string};
use rustix::process::Signal;
use std::process::Command;

fn login(id: &str, user: &str, password: &str) -> Vec<u8> {
    let names = [string(id), string(user), string(password)].concat();
    packet(0x10, &[&b"\0\x04MQTT\x04\xC2\0\0"[..], &names].concat())
}

/// What the log, the test of a configuration and the reports of a broker say while these secrets are about.
#[test]
fn no_password_hash_or_payload_is_logged_or_printed() {
    let dir = Dir::new("secrets");
    let scheme = Scheme::ScramSha256 { iterations: SCRAM_ITERATIONS_MIN };
    let hashes = [
        Hash::create(Scheme::Sha512, b"right-password").unwrap().to_string(),
        Hash::create(scheme, b"other-password").unwrap().to_string(),
    ];
    let users = dir.write("users", &format!("ann:{}\nbob:{}\nplain:plain-password\n", hashes[0], hashes[1]));
    let wrong = dir.write("wrong.conf", &format!("listener 1 127.0.0.1\npassword_file {users}\n"));
    let (code, _, said) = broker::output(&["--test-config", "-c", &wrong]);
    assert_eq!(code, Some(3), "{said}");
    let port = free_port();
    let good = dir.write("good", &format!("ann:{}\nbob:{}\n", hashes[0], hashes[1]));
    let text = format!("listener {port} 127.0.0.1\npassword_file {good}\nsys_interval 1\nlog_type all\n");
    let file = dir.write("x.conf", &text);
    let (code, _, tested) = broker::output(&["--test-config", "-c", &file]);
    assert_eq!(code, Some(0), "{tested}");
    let mut broker = Broker::spawn(hikyaku().env("RUST_LOG", "trace").args(["-v", "-c", &file]), port);
    let mut peer = Peer::open(broker.address);
    peer.send(&login("c1", "ann", "right-password"));
    peer.expect(&[0x20, 2, 0, 0]);
    peer.subscribe("#");
    peer.send(&publish("t", b"a-secret-payload"));
    peer.expect(&publish("t", b"a-secret-payload"));
    let mut refused = Peer::open(broker.address);
    refused.send(&login("c2", "ann", "wrong-password"));
    refused.expect(&[0x20, 2, 0, 5]);
    broker.await_line("Client c2 (u'ann') from ");
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
    let all = format!("{said}{tested}{}", broker.logged);
    assert!(all.contains("c1"), "{all}");
    let secrets =
        ["right-password", "other-password", "plain-password", "wrong-password", "a-secret-payload"];
    for secret in secrets {
        let bytes = format!("{:?}", secret.as_bytes());
        assert!(!all.contains(secret) && !all.contains(bytes.trim_matches(['[', ']'])), "{secret}: {all}");
    }
    for part in hashes.iter().flat_map(|hash| hash.split('$').filter(|part| part.len() > 16)) {
        assert!(!all.contains(part), "{part}: {all}");
    }
}

/// Settings name files of secrets, and hold none.
#[test]
fn settings_that_are_printed_hold_no_secrets() {
    let dir = Dir::new("settings");
    let hash = Hash::create(Scheme::Sha512, b"x").unwrap().to_string();
    let users = dir.write("users", &format!("ann:{hash}\n"));
    let file = dir.write("x.conf", &format!("listener 1 127.0.0.1\npassword_file {users}\n"));
    let (settings, _): (Settings, _) = hikyaku::config::read(file.as_ref(), &[]).unwrap();
    let mut core = settings.core.clone();
    let (security, _) = hikyaku::auth::Security::load(&settings.listeners, &mut core).unwrap();
    let printed = format!("{settings:?} {security:?} {core:?}");
    assert!(printed.contains("ann") && printed.contains(&users));
    for part in hash.split('$').filter(|part| part.len() > 8) {
        assert!(!printed.contains(part), "{printed}");
    }
}

/// What an assigned client id is made of nobody can foresee: version 4 UUIDs, each of whose 122 bits is drawn.
#[test]
fn assigned_client_ids_are_random_uuids() {
    let mut broker = Broker::start(&mut hikyaku());
    let mut seen = std::collections::BTreeSet::new();
    let (mut ones, mut zeros) = (0u128, 0u128);
    for _ in 0..100 {
        let mut peer = Peer::open(broker.address);
        peer.send(&packet(0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\0"));
        let connack = peer.packet();
        let at = connack.windows(5).position(|bytes| bytes == b"auto-").unwrap();
        assert_eq!(connack[at - 3..at], [0x12, 0, 41]);
        let id = std::str::from_utf8(&connack[at + 5..at + 41]).unwrap();
        let parts: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
        assert!(id[14..].starts_with('4') && "89AB".contains(&id[19..20]), "{id}");
        let bits = u128::from_str_radix(&id.replace('-', ""), 16).unwrap();
        (ones, zeros) = (ones | bits, zeros | !bits);
        assert!(seen.insert(bits), "{id} came twice");
    }
    let fixed = !(ones & zeros);
    assert_eq!(fixed, 0xf << 76 | 0b11 << 62, "bits that are always the same: {fixed:032x}");
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}

/// Each connection is an open file.
#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_goes() {
    let port = free_port();
    let hikyaku = env!("CARGO_BIN_EXE_hikyaku");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -Sn 64; exec {hikyaku} -p {port}")]);
    shell
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    let broker = Broker::spawn(&mut shell, port);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
}
