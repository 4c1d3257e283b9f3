//! The broker's binary in a process of its own.
#![allow(dead_code)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub fn hikyaku() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hikyaku"));
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn output(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = hikyaku().args(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A port nobody listens on, below those the system gives to clients: one that connects while its broker is down could
/// get the very port it connects to, meet itself, and keep the broker from it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run side by side start at different places.
    let start = (std::process::id() % 100) as u16 * 100;
    let ports = std::iter::repeat_with(|| 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000);
    let mut free = ports.take(1000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}

/// A broker in a process of its own, killed with the value.
pub struct Broker {
    child: Child,
    pub address: SocketAddr,
    log: BufReader<ChildStderr>,
    /// What it has logged so far.
    pub logged: String,
}

impl Broker {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn start(through: &mut Command) -> Broker {
        let port = free_port();
        Broker::spawn(through.args(["-p", &port.to_string()]), port)
    }

    /// Starts a command that will listen on `port`.
    pub fn spawn(command: &mut Command, port: u16) -> Broker {
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let address = ([127, 0, 0, 1], port).into();
        let mut broker = Broker { child, address, log, logged: String::new() };
        broker.await_line("running");
        broker
    }

    /// Reads the log up to a line with `text`.
    pub fn await_line(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "{text:?} is not in:\n{}", self.logged);
            self.logged += &line;
            if line.contains(text) {
                return;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.log.read_to_string(&mut self.logged).unwrap();
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
