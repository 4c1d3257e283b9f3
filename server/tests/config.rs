//! The binary and its configuration file.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod peer;

use broker::{Broker, free_port, hikyaku, output};
use dir::Dir;
use peer::Peer;
use rustix::process::Signal;
use std::fs;
use std::io::Read;

fn start(file: &str, port: u16) -> Broker {
    Broker::spawn(hikyaku().args(["-c", file]), port)
}

#[test]
fn mistakes_are_told_with_their_place_and_exit_with_3() {
    let dir = Dir::new("mistakes");
    let file = dir.write("x.conf", "listener 1884\nmax_conections 3\nallow_anonymous\n");
    let expected = format!(
        "{file}:2:1: Error: Unknown configuration variable 'max_conections'. Did you mean 'max_connections'?\n\
         {file}:3:16: Error: Empty 'allow_anonymous' value in configuration.\n"
    );
    for args in [&["-c", &file][..], &["--test-config", "-c", &file], &["-t", &file]] {
        let (code, out, err) = output(args);
        assert_eq!((code, out.as_str()), (Some(3), ""));
        assert!(err.starts_with(&expected), "{err}");
    }
    let (code, _, err) = output(&["-c", &dir.path("none.conf")]);
    let message = format!("Error: Unable to open config file '{}'.\nNo such file", dir.path("none.conf"));
    assert!(code == Some(3) && err.starts_with(&message), "{err}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_mistake_of_the_configuration() {
    let dir = Dir::new("certificate");
    let certificate = dir.write("x.pem", "no certificate\n");
    let file = dir
        .write("x.conf", &format!("listener 1 127.0.0.1\ncertfile {certificate}\nkeyfile {certificate}\n"));
    for args in [["-c", &file], ["-t", &file]] {
        let (code, _, err) = output(&args);
        assert_eq!(code, Some(3));
        assert!(err.contains(&format!("{file}:2:1: Error: certfile")), "{err}");
    }
}

#[test]
fn a_test_says_who_may_connect_and_touches_nothing() {
    let dir = Dir::new("test");
    let (log, pid) = (dir.path("log"), dir.path("pid"));
    let text = format!("log_dest file {log}\npid_file {pid}\nlistener 1884\nallow_anonymous true # open\n");
    let file = dir.write("x.conf", &text);
    let (code, out, err) = output(&["-t", &file]);
    assert_eq!(code, Some(0));
    assert_eq!(
        out,
        "0.0.0.0:1884, [::]:1884: MQTT and WebSocket; everyone may connect from anywhere.\nConfiguration file is OK.\n"
    );
    assert!(err.starts_with(&format!("{file}:3:1: Warning: Anyone who reaches this listener")), "{err}");
    assert!(!fs::exists(log).unwrap() && !fs::exists(pid).unwrap());
}

#[test]
fn a_test_says_what_a_start_would_fail_of() {
    let dir = Dir::new("foresight");
    let text = format!(
        "pid_file /nowhere/pid\nlog_dest file {0}\nlistener 0 /nowhere/else/socket\nlistener 1884 203.0.113.1\n\
         listener 1884 127.0.0.1\nbind_interface nosuch0\n",
        dir.path("")
    );
    let file = dir.write("x.conf", &text);
    let (code, out, err) = output(&["-t", &file]);
    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    for expected in [
        "Error: pid_file '/nowhere/pid' cannot be made. No such file or directory (os error 2): there is no directory \
         '/nowhere'."
            .to_owned(),
        format!("Error: log_dest file '{}' cannot be made. It is a directory.", dir.path("")),
        format!("{file}:3:1: Error: listener '/nowhere/else/socket' cannot be made. No such file"),
        format!("{file}:4:1: Error: Cannot listen on 203.0.113.1: Cannot assign requested address"),
        format!("{file}:5:1: Error: Cannot listen on 127.0.0.1: bind_interface 'nosuch0': No such device"),
    ] {
        assert!(err.contains(&expected), "{expected}\n{err}");
    }
    // What the service manager makes when it starts the service.
    let (code, _, err) = output(&["-t", &dir.write("y.conf", "pid_file /run/no-such-service/pid\n")]);
    assert!(code == Some(0) && err.starts_with("Warning: pid_file '/run/no-such-service/pid'"), "{err}");
}

#[test]
fn a_beginners_file_starts_as_it_stands() {
    let dir = Dir::new("beginner");
    let ports = [free_port(), free_port(), free_port()];
    let text = format!(
        "listener {}               # MQTT\u{306e}\u{30dd}\u{30fc}\u{30c8}\n\
         listener {}               # WebSocket (optional)\n\
         listener {}               # for TLS (optional)\n\
         protocol websockets\n\n\
         allow_anonymous true \t\t# needed without passwords",
        ports[0], ports[1], ports[2]
    );
    let file = dir.write("x.conf", &text);
    let mut broker = start(&file, ports[0]);
    Peer::connect(broker.address, "one").ping();
    Peer::connect(([127, 0, 0, 1], ports[1]).into(), "two").ping();
    assert!(broker.logged.contains(&format!("Warning: {file}:3:1: Port {} is meant for TLS", ports[2])));
    assert!(broker.logged.contains("MQTT and WebSocket; everyone may connect from anywhere."));
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}

#[test]
fn the_usual_file_of_a_distribution_starts() {
    let dir = Dir::new("distribution");
    ["conf.d", "lib"].iter().for_each(|name| fs::create_dir(dir.0.join(name)).unwrap());
    dir.write("conf.d/README", "no configuration");
    let (pid, log) = (dir.path("hikyaku.pid"), dir.path("hikyaku.log"));
    let text = format!(
        "pid_file {pid}\n\npersistence true\npersistence_location {}\n\nlog_dest file {log}\nlog_dest stderr\n\n\
         include_dir {}\n",
        dir.path("lib/"),
        dir.path("conf.d")
    );
    let file = dir.write("x.conf", &text);
    let mut broker = Broker::start(hikyaku().args(["-c", &file]));
    Peer::connect(broker.address, "one").ping();
    assert_eq!(fs::read_to_string(&pid).unwrap(), format!("{}\n", broker.id()));
    broker.await_line("New client connected");
    // The log file is opened again, for those who rotate it.
    fs::rename(&log, dir.path("old.log")).unwrap();
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
    assert!(!fs::exists(&pid).unwrap());
    let (old, new) = (fs::read_to_string(dir.path("old.log")).unwrap(), fs::read_to_string(&log).unwrap());
    assert!(old.contains("Starting in local only mode.") && old.contains("New client connected"), "{old}");
    assert!(new.ends_with("terminating\n"), "{new}");
}

#[test]
fn a_reload_applies_whole_or_not_at_all() {
    let dir = Dir::new("reload");
    let port = free_port();
    let head = format!("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let file = dir.write("x.conf", &head);
    let mut broker = start(&file, port);
    let mut early = Peer::connect(broker.address, "early");
    dir.write("x.conf", &format!("{head}max_qos 0\nmax_keepalive x\n"));
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was not reloaded: it has errors. The old one stays.");
    assert!(broker.logged.contains(&format!("Error: {file}:4:15: 'max_keepalive' value not a number.")));
    early.ping();
    dir.write("x.conf", &format!("{head}listener_allow_anonymous false\nlistener 1 127.0.0.1\nmax_qos 1\n"));
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    assert!(broker.logged.contains("Warning: 127.0.0.1:1 is opened at the next start."));
    // Who would not be let in any more has to go.
    assert_eq!(early.0.read(&mut [0]).unwrap(), 0);
    let mut late = Peer::open(broker.address);
    late.send(&peer::connect("late"));
    late.expect(&[0x20, 2, 0, 5]);
    assert_eq!(late.0.read(&mut [0]).unwrap(), 0);
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}

/// What the system says of the broker's threads.
fn threads(broker: &Broker) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", broker.id())).unwrap();
    threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap()).collect()
}

/// Which of its threads runs first, and when, is up to the system.
#[test]
fn who_connects_after_sighup_meets_the_new_configuration() {
    let dir = Dir::new("hold");
    let port = free_port();
    let head = format!("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let file = dir.write("x.conf", &head);
    let mut broker = start(&file, port);
    for round in 0..100 {
        let refused = round % 2 == 0;
        dir.write("x.conf", &format!("{head}listener_allow_anonymous {}\n", !refused));
        // The signal and the connection are there before any thread of it runs.
        broker.signal(Signal::STOP);
        while !threads(&broker).iter().all(|thread| thread.contains("State:\tT")) {
            std::thread::yield_now();
        }
        broker.signal(Signal::HUP);
        let mut peer = Peer::open(broker.address);
        peer.send(&peer::connect("one"));
        broker.signal(Signal::CONT);
        peer.expect(&[0x20, 2, 0, if refused { 5 } else { 0 }]);
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}

#[test]
fn log_lines_are_as_configured() {
    let dir = Dir::new("log");
    let port = free_port();
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nlog_timestamp_format %Y-%m-%dT%H:%M:%S\n\
         connection_messages false\n"
    );
    let file = dir.write("x.conf", &text);
    let mut broker = start(&file, port);
    Peer::connect(broker.address, "one").ping();
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
    assert!(!broker.logged.contains("New client connected"), "{}", broker.logged);
    for line in broker.logged.lines() {
        let (time, _) = line.split_once(": ").unwrap();
        assert!(time.len() == 19 && time.as_bytes()[10] == b'T' && time.starts_with("20"), "{line}");
    }
    let fails = dir.write("y.conf", "pid_file /nowhere/x\nlog_dest none");
    let port = free_port().to_string();
    let (code, out, err) = output(&["-q", "-c", &fails, "-p", &port]);
    assert_eq!((code, out, err), (Some(1), String::new(), String::new()));
    // Nobody looks into a log that is not there.
    let (code, _, err) = output(&["-c", &fails, "-p", &port]);
    let expected = "Error: Unable to write pid file /nowhere/x. No such file or directory (os error 2): there is no \
                    directory '/nowhere'.\n";
    assert_eq!((code, err.as_str()), (Some(1), expected));
}

#[test]
fn root_is_given_up() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = Dir::new("user");
    let (pid, log) = (dir.path("pid"), dir.path("log"));
    let text = format!("user nobody\npid_file {pid}\nlog_dest stderr\nlog_dest file {log}\n");
    let file = dir.write("x.conf", &text);
    let mut broker = Broker::start(hikyaku().args(["--workers", "2", "-c", &file]));
    for status in threads(&broker) {
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(|id| id.parse().unwrap()).collect::<Vec<u32>>()
        };
        for id in [of("Uid:"), of("Gid:"), of("Groups:")].concat() {
            assert_ne!(id, 0, "{status}");
        }
    }
    Peer::connect(broker.address, "one").ping();
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}
