//! What stands in the way of a broker: pipes where files should be, and logs that nobody reads.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod peer;

use broker::{Broker, free_port, hikyaku, output};
use dir::Dir;
use peer::Peer;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

impl Dir {
    /// Puts a pipe in the place of a file.
    fn pipe(&self, name: &str) -> String {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_a_mistake_and_stops_nothing() {
    let dir = Dir::new("pipes");
    let port = free_port();
    let acl = dir.write("acl", "topic readwrite #\n");
    let text =
        format!("reload_interval 1\nlistener {port} 127.0.0.1\nallow_anonymous true\nacl_file {acl}\n");
    let file = dir.write("x.conf", &text);
    let mut broker = Broker::spawn(hikyaku().args(["-c", &file]), port);
    dir.pipe("acl");
    broker.await_line("Files of passwords or rights have changed and cannot be used.");
    assert!(broker.logged.contains("not a regular file"), "{}", broker.logged);
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was not reloaded: it has errors.");
    dir.pipe("x.conf");
    broker.signal(Signal::HUP);
    broker.await_line("not a regular file");
    broker.await_line("The configuration was not reloaded: it has errors.");
    Peer::connect(broker.address, "a").ping();
    let log = dir.pipe("log");
    ["acl", "x.conf"].iter().for_each(|name| fs::remove_file(dir.path(name)).unwrap());
    dir.write("acl", "topic readwrite #\n");
    dir.write("x.conf", &format!("{text}log_dest file {log}\nlog_dest stderr\n"));
    broker.signal(Signal::HUP);
    broker.await_line("a pipe that nobody reads");
    dir.write("x.conf", &text);
    broker.signal(Signal::HUP);
    broker.await_line("The configuration was reloaded.");
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}

#[test]
fn a_test_of_the_configuration_waits_for_no_pipe() {
    let dir = Dir::new("test");
    let pipe = dir.pipe("pipe");
    let (code, _, err) = output(&["-t", &pipe]);
    assert!(code == Some(3) && err.contains("not a regular file"), "{err}");
    for option in ["password_file", "acl_file", "certfile", "log_dest file"] {
        let file = dir.write("x.conf", &format!("listener 1 127.0.0.1\n{option} {pipe}\n"));
        let (code, _, err) = output(&["-t", &file]);
        let is_log = option.starts_with("log_dest");
        assert!(is_log || code == Some(3) && err.contains("not a regular file"), "{option}: {err}");
        assert_ne!(output(&["-c", &file]).0, Some(0));
    }
    // 64 MiB and more, though they take no room on the disk.
    let long = dir.path("long");
    fs::File::create(&long).unwrap().set_len((64 << 20) + 1).unwrap();
    let file = dir.write("x.conf", &format!("listener 1 127.0.0.1\npassword_file {long}\n"));
    let (code, _, err) = output(&["-t", &file]);
    assert!(code == Some(3) && err.contains("longer than 64 MiB"), "{err}");
}

#[test]
fn a_test_of_the_configuration_shows_control_characters() {
    let dir = Dir::new("control");
    let file = dir.write("x.conf", "listener 1 127.0.0.1\nacl_file /no\x1b[2J\x07\nallow_anonymous\x08 x\n");
    let (code, out, err) = output(&["-t", &file]);
    assert_eq!(code, Some(3));
    assert!(err.contains("/no\\u{1b}[2J\\u{7}"), "{err}");
    assert!(!format!("{out}{err}").contains(|c: char| c.is_control() && c != '\n'), "{err:?}");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (dir, port) = (Dir::new("unread"), free_port());
    let text = format!("log_type all\nlistener {port} 127.0.0.1\nallow_anonymous true\n");
    let mut broker = Broker::spawn(hikyaku().args(["-c", &dir.write("x.conf", &text)]), port);
    let begin = Instant::now();
    for i in 0..600 {
        Peer::connect(broker.address, &format!("{i}-{}", "x".repeat(200))).ping();
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    // Read again, it goes on, and says what is missing.
    broker.await_line("30-x");
    Peer::connect(broker.address, "late").ping();
    broker.await_line("lines of the log were lost.");
    for i in 0..600 {
        Peer::connect(broker.address, &format!("{i}-{}", "x".repeat(200))).ping();
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}

#[test]
fn a_terminal_or_pipe_may_be_named_as_a_file_of_the_log() {
    let (dir, port) = (Dir::new("named"), free_port());
    let text = format!("log_dest file /dev/stderr\nlistener {port} 127.0.0.1\nallow_anonymous true\n");
    // Its standard error is a pipe, which is read here.
    let mut broker = Broker::spawn(hikyaku().args(["-c", &dir.write("x.conf", &text)]), port);
    Peer::connect(broker.address, "a").ping();
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
    assert!(broker.logged.contains("terminating"), "{}", broker.logged);
    let text = text.replace("/dev/stderr", "/dev/null");
    let mut quiet = Quiet(
        Command::new(env!("CARGO_BIN_EXE_hikyaku"))
            .args(["-c", &dir.write("x.conf", &text)])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let begin = Instant::now();
    while std::net::TcpStream::connect(broker.address).is_err() {
        assert!(quiet.0.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that ends with the test.
struct Quiet(Child);

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
