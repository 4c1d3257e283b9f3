//! The binary: arguments, exit codes, signals, log lines.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod peer;

use broker::{Broker, hikyaku, output};
use peer::Peer;
use rustix::process::Signal;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};

#[test]
fn wrong_arguments_exit_with_3() {
    for (args, message) in [
        (&["-p", "0"][..], "Error: Invalid port specified (0).\n"),
        (&["--x"], "Error: Unknown option '--x'.\n'hikyaku -h' shows the options.\n"),
    ] {
        assert_eq!(output(args), (Some(3), String::new(), message.to_owned()));
    }
    let (code, out, err) = output(&["-h"]);
    assert!(code == Some(0) && out.contains("Usage: hikyaku") && err.is_empty());
    let (code, out, _) = output(&["--version"]);
    assert_eq!((code, out), (Some(0), concat!("hikyaku version ", env!("CARGO_PKG_VERSION"), "\n").into()));
}

#[test]
fn a_port_in_use_exits_with_1_and_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, _, err) = output(&["-p", &address.port().to_string()]);
    assert_eq!(code, Some(1));
    let errors: Vec<_> = err.lines().filter(|l| l.contains("Error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(&format!("Cannot listen on {address}: ")), "{err}");
}

#[test]
fn sigterm_says_goodbye_and_exits_with_0() {
    for (signal, workers) in [(Signal::TERM, "1"), (Signal::TERM, "2"), (Signal::INT, "2")] {
        let mut broker = Broker::start(hikyaku().args(["--workers", workers]));
        let mut peers: Vec<Peer> =
            (0..8).map(|i| Peer::connect(broker.address, &format!("peer-{i}"))).collect();
        let mut silent = Peer::open(broker.address);
        broker.signal(signal);
        for peer in &mut peers {
            let mut rest = Vec::new();
            peer.0.read_to_end(&mut rest).unwrap();
        }
        assert_eq!(silent.0.read(&mut [0]).unwrap_or(0), 0);
        assert_eq!(broker.exit_code(), Some(0), "{}", broker.logged);
        assert!(broker.logged.ends_with("terminating\n"), "{}", broker.logged);
        let goodbye = "Client peer-0 disconnected: the broker is shutting down.";
        assert!(broker.logged.contains(goodbye), "{}", broker.logged);
    }
}

#[test]
fn lines_begin_with_the_time() {
    let mut broker = Broker::start(&mut hikyaku());
    broker.signal(Signal::HUP);
    broker.await_line("There is no configuration to reload.");
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
    for line in broker.logged.lines() {
        let (time, _) = line.split_once(": ").unwrap();
        assert!(time.parse::<u64>().is_ok_and(|t| t > 1_700_000_000), "{line}");
    }
}

#[test]
fn too_many_open_files_disturb_nobody_and_pass() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 60; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_hikyaku"), "--workers", "2"]);
    shell.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
    let mut broker = Broker::start(&mut shell);
    let mut early = Peer::connect(broker.address, "early");
    let mut crowd: Vec<Peer> = Vec::new();
    for i in 0..80 {
        let mut peer = Peer::open(broker.address);
        peer.send(&peer::connect(&format!("crowd-{i}")));
        crowd.push(peer);
    }
    broker.await_line("No connection can be accepted");
    early.ping();
    // Those at the end of the line get in as others go.
    let last = crowd.split_off(60);
    drop(crowd);
    for mut peer in last {
        peer.expect(&[0x20, 2, 0, 0]);
    }
    broker.await_line("Connections are accepted again");
    early.ping();
    assert_eq!(broker.logged.matches("No connection can be accepted").count(), 1, "{}", broker.logged);
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}
