//! Debian's mosquitto ends, hikyaku takes its database over and goes on: nobody notices.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs, process, thread};

use hikyaku_tests::PATIENCE;
use hikyaku_tests::matrix::V311;
use hikyaku_tests::process::{Broker, Finished, Process, free_port, run_broker, tool_binary};
use hikyaku_tests::wire::{Wire, packet, subscribe};

/// Debian has it outside of the usual path.
const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// A directory that goes with the value.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let dir = env::temp_dir().join(format!("hikyaku-takeover-{}", process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One of the small clients, until it ends.
fn run(program: impl AsRef<Path>, port: u16, args: &str) -> String {
    let mut command = Command::new(program.as_ref());
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(args.split_whitespace());
    let Finished { code, stdout, stderr } = Process::spawn(&mut command).wait();
    assert_eq!(code, 0, "{args}: {stdout}{stderr}");
    stdout
}

/// Connects to a session that stays; the bytes of the answer have to be these.
fn resume(port: u16, client_id: &str, connack: [u8; 4]) -> Wire {
    let mut wire = Wire::open(port);
    let id = [&(client_id.len() as u16).to_be_bytes()[..], client_id.as_bytes()].concat();
    wire.send(packet(0x10, &[&b"\0\x04MQTT\x04\0\0\0"[..], &id].concat()));
    wire.expect(connack);
    wire
}

#[test]
fn a_switch_from_mosquitto_loses_nothing() {
    let dir = Dir::new();
    let (port, conf) = (free_port(), dir.0.join("mosquitto.conf"));
    let settings = "allow_anonymous true\npersistence true\npersistence_location";
    // Root would become the user mosquitto, who may not write there.
    let own = format!("listener {port} 127.0.0.1\nuser root\n{settings} {}/\n", dir.0.display());
    fs::write(&conf, own).unwrap();
    let mosquitto = Process::spawn(Command::new(MOSQUITTO).arg("-c").arg(&conf));
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
        assert!(Instant::now() < deadline, "mosquitto does not accept");
        thread::yield_now();
    }

    run("mosquitto_pub", port, "-t home/kitchen -r -q 1 -m 21.5");
    run("mosquitto_sub", port, "-i keeper -c -q 1 -t queue/# -E");
    for n in 1..=3 {
        run("mosquitto_pub", port, &format!("-t queue/{n} -q 1 -m {n}"));
    }
    // PUBCOMP is missing of one message, PUBREC of the other.
    let mut reader = resume(port, "reader", [0x20, 2, 0, 0]);
    reader.send(subscribe(V311, 1, "two/+", 2));
    reader.expect([0x90, 3, 0, 1, 2]);
    run("mosquitto_pub", port, "-t two/1 -q 2 -m one");
    run("mosquitto_pub", port, "-t two/2 -q 2 -m two");
    reader.expect([&[0x34, 12, 0, 5][..], b"two/1", &[0, 1], b"one"].concat());
    reader.expect([&[0x34, 12, 0, 5][..], b"two/2", &[0, 2], b"two"].concat());
    reader.send([0x50, 2, 0, 1]);
    reader.expect([0x62, 2, 0, 1]);
    drop(reader);
    // PUBREL is missing.
    let mut writer = resume(port, "writer", [0x20, 2, 0, 0]);
    writer.send([&[0x34, 15, 0, 7][..], b"queue/4", &[0, 9], b"four"].concat());
    writer.expect([0x50, 2, 0, 9]);
    drop(writer);
    mosquitto.signal("TERM");
    assert_eq!(mosquitto.wait().code, 0);

    let (conf, database) = (dir.0.join("hikyaku.conf"), dir.0.join("mosquitto.db"));
    fs::write(&conf, format!("{settings} {}\n", dir.0.display())).unwrap();
    let conf = conf.to_str().unwrap();
    let import = run_broker(["-c", conf, "--import-mosquitto-db", database.to_str().unwrap()]);
    assert_eq!((import.code, &*import.stderr), (0, ""));
    for line in
        ["3 sessions", "2 subscriptions", "3 queued messages", "2 messages in flight", "1 retained message"]
    {
        assert!(import.stdout.contains(&format!("  {line}\n")), "{}", import.stdout);
    }

    let broker = Broker::start(["-c", conf]);
    let retained = run(tool_binary("hikyaku-sub"), broker.port, "-t home/# -C 1 -v");
    assert_eq!(retained, "home/kitchen 21.5\n");
    let mut queued: Vec<_> = run("mosquitto_sub", broker.port, "-i keeper -c -q 1 -t queue/# -C 4 -F %t|%p")
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(queued[..3], ["queue/1|1", "queue/2|2", "queue/3|3"]);
    assert_eq!(queued.pop().unwrap(), "queue/4|four");
    let mut writer = resume(broker.port, "writer", [0x20, 2, 1, 0]);
    writer.send([0x62, 2, 0, 9]);
    writer.expect([0x70, 2, 0, 9]);
    let mut reader = resume(broker.port, "reader", [0x20, 2, 1, 0]);
    reader.expect([0x62, 2, 0, 1]);
    reader.send([0x70, 2, 0, 1]);
    reader.expect([&[0x3c, 12, 0, 5][..], b"two/2", &[0, 2], b"two"].concat());
    reader.send([0x50, 2, 0, 2]);
    reader.expect([0x62, 2, 0, 2]);
    reader.send([0x70, 2, 0, 2]);
    reader.send([0xc0, 0]);
    reader.expect([0xd0, 0]);
}
