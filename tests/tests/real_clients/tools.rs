//! `hikyaku-pub`, `hikyaku-sub` and `hikyaku-rr` in the place of mosquitto's: the same script with both, at
//! hikyaku's broker and at mosquitto's, shows the same. And `hikyaku-bench`, which measures either.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use hikyaku_tests::process::{Broker, Finished, Process, free_port, tool_binary};

/// Debian has it outside of the usual path.
const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// A broker of either make.
enum Server {
    Hikyaku(Broker),
    Mosquitto { port: u16, _process: Process },
}

impl Server {
    fn hikyaku() -> Server {
        Server::Hikyaku(Broker::start(Vec::<String>::new()))
    }

    fn mosquitto() -> Server {
        let port = free_port();
        let process = Process::spawn(Command::new(MOSQUITTO).args(["-p", &port.to_string()]));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        while std::net::TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        Server::Mosquitto { port, _process: process }
    }

    fn port(&self) -> u16 {
        match self {
            Server::Hikyaku(broker) => broker.port,
            Server::Mosquitto { port, .. } => *port,
        }
    }
}

#[derive(Clone, Copy)]
enum Make {
    Ours,
    Debians,
}

fn command(make: Make, tool: &str, server: &Server, args: &[&str]) -> Command {
    let mut command = match make {
        Make::Ours => Command::new(tool_binary(&format!("hikyaku-{tool}"))),
        Make::Debians => {
            // Its lines are to come when they are written, not when there are many.
            let mut command = Command::new("stdbuf");
            command.args(["-oL", &format!("mosquitto_{tool}")]);
            command
        }
    };
    // Nobody's own options.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command.args(["-h", "127.0.0.1", "-p", &server.port().to_string()]).args(args);
    command
}

fn run(make: Make, tool: &str, server: &Server, args: &[&str]) -> Finished {
    Process::spawn(&mut command(make, tool, server, args)).wait()
}

/// Runs a script in all four ways; all show the same.
fn same(script: impl Fn(Make, &Server) -> String) {
    let mut shown = Vec::new();
    for server in [Server::hikyaku(), Server::mosquitto()] {
        for make in [Make::Debians, Make::Ours] {
            shown.push(script(make, &server));
        }
    }
    assert!(!shown[0].is_empty());
    for other in &shown[1..] {
        assert_eq!(other, &shown[0]);
    }
}

/// What a subscriber shows of what a publisher sends, without the lines of its own packets.
fn shown(make: Make, server: &Server, subscriber: &[&str], publishers: &[&[&str]]) -> String {
    let mut command = command(make, "sub", server, subscriber);
    let process = Process::spawn(command.args(["-d", "-i", "the-subscriber"]));
    process.wait_stdout("Subscribed (mid: 1)");
    for args in publishers {
        let end = run(make, "pub", server, args);
        assert_eq!((end.code, end.stderr.as_str()), (0, ""), "{args:?}");
    }
    let end = process.wait();
    let lines =
        end.stdout.lines().filter(|line| !line.starts_with("Client ") && !line.starts_with("Subscribed"));
    format!("{}\n{}exit code {}\n", lines.collect::<Vec<_>>().join("\n"), end.stderr, end.code)
}

#[test]
fn payloads_and_topics() {
    same(|make, server| {
        let publishers: &[&[&str]] = &[
            &["-t", "a/b", "-m", "one", "-q", "2"],
            &["-t", "a", "-n", "-q", "1"],
            &["-t", "a/c", "-m", "äöü \u{98db}脚", "-q", "1", "--repeat", "2"],
        ];
        shown(make, server, &["-t", "a/#", "-v", "-q", "1", "-C", "4"], publishers)
    });
}

#[test]
fn formats() {
    for format in ["%t %p", "%l %q %r %m", "%x %X", "%%@@\\t\\\\.", "@%", "[%C|%F|%E|%R|%D|%P|%S]"] {
        same(|make, server| {
            let send = "-t f/x -q 1 -V 5 -D publish content-type text -D publish payload-format-indicator 1 \
                -D publish message-expiry-interval 100 -D publish response-topic r -D publish correlation-data c \
                -D publish user-property a b -D publish user-property c d -m payload";
            let send: Vec<&str> = send.split_whitespace().collect();
            let receive = [
                "-t",
                "f/#",
                "-q",
                "1",
                "-V",
                "5",
                "-C",
                "1",
                "-F",
                format,
                "-D",
                "subscribe",
                "subscription-identifier",
                "9",
            ];
            shown(make, server, &receive, &[&send])
        });
    }
}

#[test]
fn json() {
    for format in ["%j", "%J"] {
        same(|make, server| {
            let send = ["-t", "j", "-q", "1", "-m", "{\"a\": [1, 2.5, \"x\\n\"], \"b\": {}}"];
            let text = shown(make, server, &["-t", "j", "-q", "1", "-C", "1", "-F", format], &[&send]);
            // The time is another. Before 2.1 mosquitto writes a number for the retain flag.
            let rest = text.split_once(",\"topic\"").map_or(text.as_str(), |(_, rest)| rest);
            rest.replace("\"retain\":0", "\"retain\":false")
        });
    }
}

#[test]
fn packets_of_a_publisher() {
    // At QoS 0 mosquitto shows a packet identifier that is not sent.
    for qos in ["1", "2"] {
        same(|make, server| {
            run(make, "pub", server, &["-t", "p", "-m", "x", "-q", qos, "-d", "-i", "me"]).stdout
        });
    }
}

#[test]
fn exit_codes_and_errors() {
    same(|make, server| {
        let mut text = String::new();
        for (tool, args) in [
            ("sub", &["-t", "nothing", "-W", "1"][..]),
            ("sub", &["-t", "x", "-E"]),
            ("sub", &["-t", "a/#/b"]),
            ("pub", &["-t", "a/+", "-m", "x"]),
            ("pub", &["-t", "x", "-m", "x", "-q", "3"]),
            ("pub", &["-t", "x", "-m", "x", "-p", "1"]),
            ("pub", &["--unknown"]),
            ("rr", &["-t", "x", "-m", "x", "-e", "y", "-W", "1"]),
            ("rr", &["-t", "x"]),
        ] {
            let end = run(make, tool, server, args);
            let first = end.stderr.lines().next().unwrap_or_default();
            text.push_str(&format!("{tool} {args:?}: {} {first}\n", end.code));
        }
        text
    });
}

#[test]
fn retained_messages() {
    same(|make, server| {
        for (topic, payload) in [("r/1", "one"), ("r/2", "two")] {
            assert_eq!(run(make, "pub", server, &["-t", topic, "-m", payload, "-r", "-q", "1"]).code, 0);
        }
        let args = ["-t", "r/1", "-t", "r/2", "-C", "2", "-F", "%t %p %r"];
        let mut text = run(make, "sub", server, &args).stdout;
        let args = ["-t", "r/#", "-T", "r/2", "-C", "1", "-v", "-W", "5"];
        text.push_str(&run(make, "sub", server, &args).stdout);
        text
    });
}

#[test]
fn either_broker_is_measured() {
    for server in [Server::hikyaku(), Server::mosquitto()] {
        for mode in ["p2p", "fan-in", "fan-out"] {
            for (qos, version) in [("0", "311"), ("1", "5"), ("2", "31")] {
                let args = [mode, "-n", "10", "-C", "1000", "-q", qos, "-V", version, "--threads", "2"];
                let end = run(Make::Ours, "bench", &server, &args);
                let received = if mode == "fan-out" { "10,000" } else { "1,000" };
                let book = format!("1,000 sent, {received} received, 0 lost, 0 duplicated, 0 out of order\n");
                assert!(end.stdout.contains(&book) && end.code == 0, "{args:?} {end:?}");
            }
        }
        let args = ["p2p", "-n", "5", "--rate", "500", "--duration", "2", "--threads", "1"];
        let end = run(Make::Ours, "bench", &server, &args);
        assert!(
            end.stdout.contains(" 0 lost, 0 duplicated") && end.stderr.contains("/s received  p50 "),
            "{end:?}"
        );
        let end = run(Make::Ours, "bench", &server, &["conn", "-n", "500", "--duration", "0.1"]);
        assert!(end.stdout.contains("500 opened in ") && end.code == 0, "{end:?}");
    }
}
