//! `hikyaku-bench` against a broker of this test, and one that loses, doubles and swaps messages.

#![cfg(feature = "tools")]

mod broker;

use broker::Broker;
use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use hikyaku_proto::broker::{Config, Listener};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

const BENCH: &str = env!("CARGO_BIN_EXE_hikyaku-bench");

fn command(addr: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(BENCH);
    // Nobody's own options.
    command.env_clear().env("XDG_CONFIG_HOME", "/nonexistent");
    command.args(args).args(["-h", "127.0.0.1", "-p", &addr.port().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(addr: SocketAddr, args: &[&str]) -> Output {
    command(addr, args).output().unwrap()
}

/// What a run says of itself with `--json`, and its exit code.
struct Result {
    text: String,
    code: i32,
}

impl Result {
    fn of(addr: SocketAddr, args: &[&str]) -> Result {
        Result::from(run(addr, &[args, &["--json", "--quiet"]].concat()))
    }

    fn from(output: Output) -> Result {
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("{\"mode\":") && text.ends_with("}\n"), "{text} {:?}", output.stderr);
        Result { text, code: output.status.code().unwrap() }
    }

    fn number(&self, name: &str) -> f64 {
        let (_, rest) = self.text.split_once(&format!("\"{name}\":")).expect(name);
        rest[..rest.find([',', '}']).unwrap()].parse().unwrap_or_else(|_| panic!("{name}: {}", self.text))
    }

    fn numbers<const N: usize>(&self, names: [&str; N]) -> [u64; N] {
        names.map(|name| self.number(name) as u64)
    }
}

const BOOK: [&str; 5] = ["sent", "received", "lost", "duplicated", "out_of_order"];

#[derive(Clone, Copy, Debug)]
enum Fault {
    Drop,
    Double,
    Swap,
    Cut,
}

/// Stands between clients and a broker, and does something to each tenth message that the broker sends.
fn damage(broker: &Broker, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, target) = (listener.local_addr().unwrap(), broker.addr);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(std::io::Result::ok) {
            let server = TcpStream::connect(target).unwrap();
            let (mut to_server, from_server) = (server.try_clone().unwrap(), server);
            let mut from_client = client.try_clone().unwrap();
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = carry(from_server, &client, fault);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    addr
}

fn carry(from: TcpStream, mut to: &TcpStream, fault: Fault) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let mut held = Vec::new();
    for messages in 1.. {
        let packet = packet(&mut from)?;
        let is_message = packet[0] >> 4 == 3;
        match fault {
            _ if !is_message || messages % 10 != 5 => {
                to.write_all(&packet)?;
                to.write_all(&std::mem::take(&mut held))?;
            }
            Fault::Drop => {}
            Fault::Double => to.write_all(&[&packet[..], &packet].concat())?,
            Fault::Swap => held = packet,
            Fault::Cut => return Ok(()),
        }
    }
    Ok(())
}

fn packet(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 2];
    from.read_exact(&mut packet)?;
    let (mut length, mut shift) = (usize::from(packet[1] & 127), 7);
    while packet.last().is_some_and(|byte| byte & 128 != 0) {
        packet.push(0);
        let last = packet.len() - 1;
        from.read_exact(&mut packet[last..])?;
        length |= usize::from(packet[last] & 127) << shift;
        shift += 7;
    }
    let head = packet.len();
    packet.resize(head + length, 0);
    from.read_exact(&mut packet[head..])?;
    Ok(packet)
}

#[test]
fn all_arrives_in_all_modes() {
    let broker = Broker::start();
    for (mode, qos, version, receivers, connections) in [
        ("p2p", "0", "311", 1, 14),
        ("p2p", "2", "5", 1, 14),
        ("p2p", "1", "31", 1, 14),
        ("fan-in", "1", "5", 1, 8),
        ("fan-in", "0", "5", 1, 8),
        ("fan-out", "0", "311", 7, 8),
        ("fan-out", "2", "31", 7, 8),
    ] {
        for threads in ["1", "3"] {
            let args = [mode, "-n", "7", "-C", "500", "-q", qos, "-V", version, "--threads", threads];
            let result = Result::of(broker.addr, &args);
            let text = &result.text;
            assert_eq!(result.numbers(BOOK), [500, 500 * receivers, 0, 0, 0], "{args:?} {text}");
            assert_eq!(
                result.numbers(["connections_opened", "foreign", "stalls"]),
                [connections, 0, 0],
                "{text}"
            );
            assert!(result.number("latency_p50_us") > 0.0 && result.number("latency_max_us") < 6e7, "{text}");
            assert_eq!(result.code, 0, "{args:?} {text}");
        }
    }
}

#[test]
fn losses_doubles_and_swaps_are_seen() {
    let broker = Broker::start();
    for (fault, wanted) in [
        (Fault::Drop, [1000, 900, 100, 0, 0]),
        (Fault::Double, [1000, 1000, 0, 100, 0]),
        (Fault::Swap, [1000, 1000, 0, 0, 100]),
    ] {
        let addr = damage(&broker, fault);
        let result = Result::of(addr, &["p2p", "-n", "2", "-C", "1000"]);
        assert_eq!((result.numbers(BOOK), result.code), (wanted, 1), "{fault:?} {}", result.text);
    }
    let addr = damage(&broker, Fault::Cut);
    let result = Result::of(addr, &["p2p", "-n", "2", "-C", "1000", "-q", "1", "--duration", "2"]);
    assert_eq!((result.numbers(["connections_opened", "connections_broken"]), result.code), ([4, 2], 1));
    assert!(
        result.number("lost") > 0.0 && result.text.contains("{\"the connection was lost\":2}"),
        "{}",
        result.text
    );
}

#[test]
fn the_rate_is_kept() {
    let broker = Broker::start();
    let args = ["p2p", "-n", "5", "--rate", "2000", "--duration", "2", "--warmup", "0.5"];
    let result = Result::of(broker.addr, &args);
    let due = result.number("sent") + result.number("unsent");
    // The time in which messages are due ends with a thread's turn, which may come late.
    let wanted = 2000.0 * (result.number("duration_s") + 0.5);
    assert!((due - wanted).abs() < 0.02 * wanted, "{due} of {wanted}: {}", result.text);
    assert!(result.number("duration_s") >= 2.0);
    assert_eq!((result.number("lost"), result.code), (0.0, 0), "{}", result.text);
}

#[test]
fn connections_are_opened_at_a_rate_and_held() {
    let broker = Broker::start();
    let result = Result::of(broker.addr, &["conn", "-n", "40", "--connect-rate", "50", "--duration", "0.2"]);
    assert_eq!((result.numbers(["connections_opened", "connections_failed"]), result.code), ([40, 0], 0));
    assert!(result.number("connects_per_s") < 55.0, "{}", result.text);
    let output = run(broker.addr, &["conn", "-n", "2", "--duration", "1.5"]);
    let (table, progress) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(table.starts_with("hikyaku-bench conn: MQTT 3.1.1\n\nconnections   2 opened in "), "{table}");
    assert!(progress.contains(" s  2 connections held\n"), "{progress}");
}

/// One that subscribes in one program what the other one publishes.
#[test]
fn two_programs_measure_together() {
    let broker = Broker::start();
    let args = ["sub", "-n", "3", "-C", "300", "-q", "1", "--json"];
    let mut subscriber = command(broker.addr, &args).spawn().unwrap();
    let mut progress = BufReader::new(subscriber.stderr.take().unwrap());
    wait_for(&mut progress, "0/s received");
    let published = Result::of(broker.addr, &["pub", "-n", "3", "-C", "300", "-q", "1"]);
    assert_eq!(published.numbers(["sent", "acknowledged", "lost"]), [300, 300, 0], "{}", published.text);
    assert!(published.number("latency_p99_us") > 0.0);
    let result = Result::from(subscriber.wait_with_output().unwrap());
    assert_eq!((result.numbers(["received", "lost", "duplicated"]), result.code), ([300, 0, 0], 0));
    assert!(
        result.number("latency_p50_us") > 0.0 && result.number("latency_max_us") < 6e7,
        "{}",
        result.text
    );
    assert_eq!(published.code, 0);
}

fn wait_for(progress: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        assert!(progress.read_line(&mut line).unwrap() > 0, "it ended");
    }
}

/// Runs until it shows that messages arrive.
fn underway(broker: &Broker, args: &[&str]) -> Child {
    let mut bench = command(broker.addr, &[args, &["--json", "--duration", "600"]].concat()).spawn().unwrap();
    let mut progress = BufReader::new(bench.stderr.take().unwrap());
    wait_for(&mut progress, "received  p50");
    // Nobody else writes there.
    std::thread::spawn(move || progress.read_to_string(&mut String::new()));
    bench
}

#[test]
fn a_signal_ends_it_early_with_its_result() {
    let broker = Broker::start();
    let bench = underway(&broker, &["p2p", "-n", "2", "--rate", "100"]);
    let signal = Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let result = Result::from(bench.wait_with_output().unwrap());
    assert!(result.number("received") > 0.0, "{}", result.text);
    assert_eq!((result.numbers(["connections_broken", "lost"]), result.code), ([0, 0], 0), "{}", result.text);
}

#[test]
fn connections_that_break_are_counted_and_end_it() {
    let broker = Broker::start();
    let bench = underway(&broker, &["fan-out", "-n", "5", "-q", "1"]);
    broker.cut();
    let result = Result::from(bench.wait_with_output().unwrap());
    assert_eq!((result.numbers(["connections_opened", "connections_broken"]), result.code), ([6, 6], 1));
}

#[test]
fn who_is_not_let_in_is_told_once() {
    let broker = Broker::start();
    let deny = Rule { who: Who::Pattern, access: Access::Deny, filter: "closed/#".into(), line: 0 };
    let read = Rule { who: Who::Pattern, access: Access::ReadWrite, filter: "#".into(), line: 0 };
    let rights = Arc::new(Rights::Rules(Rules::new(None, vec![read, deny])));
    let listeners = vec![Listener { rights, ..Listener::default() }];
    let closed = Broker::start_with(Config { listeners, ..Config::default() });
    let result = Result::of(closed.addr, &["sub", "-n", "9", "-t", "closed/%i", "--duration", "1"]);
    assert_eq!((result.number("connections_failed"), result.code), (9.0, 1), "{}", result.text);
    assert!(result.text.contains(":9}}"), "one reason: {}", result.text);
    for (args, code, wanted) in [
        (&["p2p", "-p", "1"][..], 1, "Error: Connection refused\n"),
        (
            &["p2p", "--tls-use-os-certs"],
            1,
            "Unable to connect (the server closed the connection during the TLS handshake).\nPerhaps the server does \
             not speak TLS at this port; without it is usually 1883.\n",
        ),
        (&["conn", "-h", "no.such.host.invalid"], 1, "Unable to connect (Lookup error.).\n"),
        (&["conn", "-n", "9999999"], 1, "Error: 9999999 connections need 10000019 open files, and "),
        (&["--conections", "5"], 2, "Error: Unknown option '--conections'.\nDid you mean '--connections'?\n"),
        (&[], 2, "Error: Say what to do: conn, pub, sub, p2p, fan-in or fan-out.\n"),
        (
            &["p2p", "-s", "23"],
            2,
            "Error: p2p needs payloads of 24 bytes or more: they carry number and time.\n",
        ),
    ] {
        let mut command = command(broker.addr, &[]);
        let output = command.args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.starts_with(wanted) && output.status.code() == Some(code), "{args:?}: {output:?}");
    }
    let help = run(broker.addr, &["--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"hikyaku-bench puts a broker under load"));
}
