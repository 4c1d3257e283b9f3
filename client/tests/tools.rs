//! The programs against a broker of this test: their output, byte by byte, and their exit codes.

#![cfg(feature = "tools")]

mod broker;

use broker::{Broker, SECONDS_10};
use hikyaku_client::{Client, Options, QoS, Version};
use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use hikyaku_proto::broker::{Config, Listener};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Instant;

fn command(program: &str, broker: &Broker, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    // Nobody's own options, and a time zone that shows.
    command.env_clear().env("XDG_CONFIG_HOME", "/nonexistent").env("TZ", "UTC");
    command.arg("-p").arg(broker.addr.port().to_string()).args(["-h", "127.0.0.1"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(program: &str, broker: &Broker, args: &[&str]) -> Output {
    command(program, broker, args).output().unwrap()
}

fn publish(broker: &Broker, args: &[&str]) {
    let output = run(PUB, broker, args);
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
}

const PUB: &str = env!("CARGO_BIN_EXE_hikyaku-pub");
const SUB: &str = env!("CARGO_BIN_EXE_hikyaku-sub");
const RR: &str = env!("CARGO_BIN_EXE_hikyaku-rr");

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A subscriber whose subscription the broker has.
struct Subscriber {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Subscriber {
    fn start(broker: &Broker, args: &[&str]) -> Subscriber {
        let mut child = command(SUB, broker, args).arg("-d").spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("Subscribed") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "it ended");
        }
        Subscriber { child, stdout }
    }

    /// What it shows but for the packets, and how it ends.
    fn end(mut self) -> (Vec<u8>, i32) {
        let mut shown = Vec::new();
        self.stdout.read_to_end(&mut shown).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        let lines = shown.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"Client "));
        (lines.flatten().copied().collect(), code)
    }
}

#[test]
fn messages_of_all_kinds_are_sent_and_shown() {
    let broker = Broker::start();
    for version in ["31", "311", "5"] {
        let subscriber =
            Subscriber::start(&broker, &["-t", "k/#", "-q", "2", "-v", "-C", "8", "-V", version]);
        publish(&broker, &["-t", "k/m", "-m", "text", "-q", "1", "-V", version]);
        publish(&broker, &["-t", "k/n", "-n", "-q", "2"]);
        publish(&broker, &["-t", "k/r", "-m", "again", "--repeat", "2", "-q", "1"]);
        publish(
            &broker,
            &["-t", "k/f", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lines"), "-q", "1"],
        );
        for (flag, wanted) in [("-l", 3), ("-s", 1)] {
            let args = ["-t", "k/l", flag, "-q", "1", "-d"];
            let mut child = command(PUB, &broker, &args).stdin(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(b"a\n\xffb\nc").unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            assert_eq!(text(&output.stdout).matches("sending PUBLISH").count(), wanted);
        }
        let (shown, code) = subscriber.end();
        let wanted = b"k/m text\nk/n (null)\nk/r again\nk/r again\nk/f 1\n2\n\nk/l a\nk/l \xffb\nk/l c\n";
        assert_eq!((text(&shown), code), (text(wanted), 0), "version {version}");
    }
}

#[test]
fn lines_may_come_slowly() {
    let broker = Broker::start();
    let subscriber = Subscriber::start(&broker, &["-t", "slow", "-C", "3", "-q", "1"]);
    let args = ["-t", "slow", "-l", "-q", "1", "-d"];
    let mut publisher = command(PUB, &broker, &args).stdin(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(publisher.stdout.take().unwrap());
    let mut stdin = publisher.stdin.take().unwrap();
    for line in ["one", "two", "three"] {
        writeln!(stdin, "{line}").unwrap();
        // The answer is there before the next line is.
        let mut packet = String::new();
        while !packet.contains("PUBACK") {
            packet.clear();
            assert!(shown.read_line(&mut packet).unwrap() > 0, "it ended before {line} was acknowledged");
        }
    }
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
    assert_eq!(text(&subscriber.end().0), "one\ntwo\nthree\n");
}

#[test]
fn formats_show_all_there_is() {
    let broker = Broker::start();
    for (format, wanted) in [
        ("%t|%p|%l|%q|%r", "a/b|{\"n\":[1,2.50]}|14|1|0"),
        ("%8t|%-8t|%.2t|%5.1t|%-5.1t|", "     a/b|a/b     |a/|    a|a    |"),
        ("%4l|%-4l|%04l|%20p|%-16p|%3p|", "  14|14  |0014|      {\"n\":[1,2.50]}|{\"n\":[1,2.50]}  |{\"n|"),
        ("%2x|%2X|%.2:x|%06.2x", "7b22|7B22|7b:22:6e:22:3a:5b:31:2c:32:2e:35:30:5d:7d|7b 22 6e 22 3a 5b"),
        ("%C|%D|%E|%F|%P|%R|%S|%3A|", "json|cd|100|1|a:b c:d|r/t|7|   |"),
        ("\\t\\\\%%@@\\0\\e", "\t\\%@\0\x1b"),
    ] {
        let subscriber = Subscriber::start(
            &broker,
            &[
                "-t",
                "a/b",
                "-q",
                "1",
                "-C",
                "1",
                "-F",
                format,
                "-D",
                "subscribe",
                "subscription-identifier",
                "7",
            ],
        );
        let properties = "content-type json correlation-data cd message-expiry-interval 100 \
            payload-format-indicator 1 response-topic r/t";
        let mut args = vec!["-t", "a/b", "-q", "1", "-m", "{\"n\":[1,2.50]}"];
        let words: Vec<&str> = properties.split_whitespace().collect();
        words.chunks(2).for_each(|pair| args.extend(["-D", "publish", pair[0], pair[1]]));
        args.extend("-D publish user-property a b -D publish user-property c d".split(' '));
        publish(&broker, &args);
        let (shown, code) = subscriber.end();
        assert_eq!((text(&shown), code), (format!("{wanted}\n"), 0), "{format}");
    }
}

#[test]
fn json_and_time_are_shown() {
    let broker = Broker::start();
    let show = |format: &str, payload: &str| {
        let subscriber = Subscriber::start(&broker, &["-t", "j", "-q", "1", "-C", "1", "-F", format]);
        publish(&broker, &["-t", "j", "-q", "1", "-m", payload]);
        text(&subscriber.end().0)
    };
    let shown = show("%J", "{\"a\": [true, \"\\u00e9\"]}");
    let (before, after) = shown.split_once(",\"topic\"").unwrap();
    assert_eq!(before.len(), "{\"tst\":\"2020-05-06T21:48:00.000000+0000\"".len(), "{before}");
    let wanted =
        ":\"j\",\"qos\":1,\"retain\":false,\"payloadlen\":23,\"mid\":1,\"payload\":{\"a\":[true,\"é\"]}}\n";
    assert_eq!(after, wanted);
    assert!(show("%j", "a\"b\n").ends_with("\"payload\":\"a\\\"b\\n\"}\n"));
    assert_eq!(show("%J.", "not json"), ".\n");
    let shown = show("%U %I @Y-@m-@d @H:@M:@S.@N", "x");
    let parts: Vec<&str> = shown.trim_end().split([' ', '+']).collect();
    assert_eq!(parts.len(), 5, "{shown}");
    assert_eq!(parts[1], format!("{}T{}", parts[3], parts[4].split('.').next().unwrap()));
}

#[test]
fn subscribers_filter_count_and_end() {
    let broker = Broker::start();
    publish(&broker, &["-t", "old/1", "-m", "kept", "-r", "-q", "1"]);
    publish(&broker, &["-t", "old/2", "-m", "kept too", "-r", "-q", "1"]);
    let output = run(SUB, &broker, &["-t", "old/#", "-C", "1", "-T", "old/1", "-F", "%t %r", "-W", "10"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("old/2 1\n", Some(0)));
    let output = run(SUB, &broker, &["-t", "old/#", "-R", "-W", "1"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("", Some(27)));
    assert_eq!(text(&output.stderr), "Timed out\n");
    let output = run(SUB, &broker, &["-t", "old/#", "--remove-retained", "-C", "2", "-N", "-W", "10"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("keptkept too", Some(0)));
    let output = run(SUB, &broker, &["-t", "old/#", "--quiet", "-W", "1"]);
    assert_eq!((output.stdout.len() + output.stderr.len(), output.status.code()), (0, Some(27)));
    let output = run(SUB, &broker, &["-t", "a", "-t", "b", "-q", "2", "-E", "-d", "-i", "me"]);
    let wanted = "Client me sending CONNECT\nClient me received CONNACK (0)\n\
        Client me sending SUBSCRIBE (Mid: 1, Topic: a, QoS: 2, Options: 0x00)\n\
        Client me sending SUBSCRIBE (Mid: 1, Topic: b, QoS: 2, Options: 0x00)\n\
        Client me received SUBACK\nSubscribed (mid: 1): 2, 2\nClient me sending DISCONNECT\n";
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), (wanted, Some(0)));
    let subscriber = Subscriber::start(&broker, &["-t", "only/#", "--retained-only"]);
    publish(&broker, &["-t", "only/new", "-m", "x"]);
    assert_eq!(subscriber.end(), (Vec::new(), 0));
}

#[test]
fn a_session_goes_on_with_what_was_not_shown() {
    let broker = Broker::start();
    let session = ["-t", "s", "-q", "1", "-c", "-i", "kept", "-C", "1", "-W", "10"];
    let subscriber = Subscriber::start(&broker, &session);
    for payload in ["1", "2", "3"] {
        publish(&broker, &["-t", "s", "-q", "1", "-m", payload]);
    }
    assert_eq!(text(&subscriber.end().0), "1\n");
    assert_eq!(text(&run(SUB, &broker, &session).stdout), "2\n");
    let output = run(SUB, &broker, &["-U", "s", "-c", "-i", "kept", "-C", "1", "-q", "1", "-W", "10"]);
    assert_eq!(text(&output.stdout), "3\n");
}

#[test]
fn signals_and_closed_pipes_end_quietly() {
    let broker = Broker::start();
    for signal in ["INT", "TERM"] {
        let subscriber = Subscriber::start(&broker, &["-t", "x"]);
        let pid = subscriber.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert_eq!(subscriber.end(), (Vec::new(), 0), "{signal}");
    }
    let mut subscriber = Subscriber::start(&broker, &["-t", "x"]);
    drop(subscriber.stdout);
    let deadline = Instant::now() + SECONDS_10;
    while subscriber.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline);
        publish(&broker, &["-t", "x", "-m", "y", "-q", "1"]);
    }
    assert_eq!(subscriber.child.wait_with_output().unwrap().stderr, b"");
}

#[test]
fn requests_get_their_response() {
    let broker = Broker::start();
    let server = Client::connect(broker.addr, Options::new(Version::V5, "server")).unwrap();
    let requests = server.subscribe("ask", QoS::AtLeastOnce).unwrap();
    let thread = std::thread::spawn(move || {
        for request in (&requests).into_iter().take(2) {
            let topic = request.properties().response_topic().unwrap_or("answer").to_owned();
            let payload = [request.payload(), b"!"].concat();
            server.publish(&topic, &payload, QoS::AtLeastOnce).unwrap().wait(SECONDS_10).unwrap();
        }
    });
    let ask = ["-t", "ask", "-e", "answer", "-q", "1", "-W", "10", "-m"];
    let output = run(RR, &broker, &[&ask[..], &["one", "-v"]].concat());
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("answer one!\n", Some(0)));
    let output = run(RR, &broker, &[&ask[..], &["two", "-V", "311", "--latency"]].concat());
    assert!(text(&output.stdout).starts_with("two!\nLatency: "), "{output:?}");
    thread.join().unwrap();
    let output = run(RR, &broker, &["-t", "ask", "-e", "answer", "-m", "x", "-W", "1"]);
    assert_eq!(output.status.code(), Some(27));
}

#[test]
fn mistakes_are_told_with_exit_code_1() {
    let broker = Broker::start();
    for (program, args, wanted) in [
        (PUB, &["--hots", "x"][..], "Error: Unknown option '--hots'.\nDid you mean '--host'?\n"),
        (PUB, &["-t", "x"], "Error: Both topic and message must be supplied.\n"),
        (
            PUB,
            &["-n"],
            "Error: Both topic and message must be supplied.\nUse 'hikyaku-pub --help' to see usage.\n",
        ),
        (
            PUB,
            &["-t", "a", "-n", "--cafile", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lines")],
            "Error: Problem setting TLS options: no certificate in ",
        ),
        (
            PUB,
            &["-t", "a", "-n", "--tls-use-os-certs"],
            "Unable to connect (the server closed the connection during the TLS handshake).\nPerhaps the server does \
             not speak TLS at this port; without it is usually 1883.\n",
        ),
        (PUB, &["-t", "a/+", "-m", "x"], "Error: Invalid publish topic 'a/+', does it contain '+' or '#'?\n"),
        (
            PUB,
            &["-t", "a", "-f", "no/file"],
            "Error: Unable to read file \"no/file\": No such file or directory.\n",
        ),
        (PUB, &["-t", "a", "-m", "x", "--ciphers", "y"], "Error: --ciphers is not supported. "),
        (
            PUB,
            &["-t", "a", "-m", "x", "--cafile", "no"],
            "Error: Problem setting TLS options: File not found.\n",
        ),
        (PUB, &["-t", "a", "-m", "x", "-p", "1"], "Error: Connection refused\n"),
        (
            PUB,
            &["-t", "a", "-m", "x", "--proxy", "http://h"],
            "Error: Unsupported proxy protocol: http://h\n",
        ),
        (PUB, &["-t", "a", "-m", "x", "--proxy", "socks5h://127.0.0.1:1"], "Error: Connection refused\n"),
        (SUB, &["-t", "x", "-F", "%Z"], "Error: Invalid format specifier 'Z'.\n"),
        (RR, &["-t", "x", "-m", "y"], "Error: All of topic, message, and response topic must be supplied.\n"),
    ] {
        let output = run(program, &broker, args);
        assert!(text(&output.stderr).starts_with(wanted), "{output:?}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
    // A link with the name of the program it takes the place of says that name.
    let link = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("mosquitto_sub");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(SUB, &link).unwrap();
    let output = run(link.to_str().unwrap(), &broker, &[]);
    assert!(text(&output.stderr).ends_with("Use 'mosquitto_sub --help' to see usage.\n"), "{output:?}");
    let output = run(SUB, &broker, &["--help"]);
    assert!(text(&output.stdout).contains("--remove-retained") && output.status.code() == Some(1));
}

#[test]
fn options_come_from_files() {
    let broker = Broker::start();
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("options");
    std::fs::create_dir_all(&folder).unwrap();
    let subscriber = Subscriber::start(&broker, &["-t", "o/#", "-v", "-C", "3", "-q", "1"]);
    let with = |args: &[&str]| {
        let output = command(PUB, &broker, args).env("XDG_CONFIG_HOME", &folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    std::fs::write(folder.join("mosquitto_pub"), "# theirs\n-t o/theirs\r\n-m two words\n-q 1\n").unwrap();
    let ours = folder.join("hikyaku-pub");
    let _ = std::fs::remove_file(&ours);
    with(&[]);
    std::fs::write(&ours, "-t o/ours\n\n-q 1").unwrap();
    with(&["-m", "x"]);
    let named = folder.join("named");
    std::fs::write(&named, "-D publish user-property a b c\n-t o/named\n-m x\n-q 1").unwrap();
    with(&["-o", named.to_str().unwrap()]);
    assert_eq!(text(&subscriber.end().0), "o/theirs two words\no/ours x\no/named x\n");
    std::fs::write(&named, "-t o\n--nmae x\n").unwrap();
    let output = run(PUB, &broker, &["-o", named.to_str().unwrap()]);
    assert!(text(&output.stderr).contains("named:2\n"), "{output:?}");
}

#[test]
fn who_may_not_subscribe_takes_leave() {
    let rule = |access, filter: &str| Rule { who: Who::Pattern, access, filter: filter.into(), line: 0 };
    let rules = vec![rule(Access::ReadWrite, "#"), rule(Access::Deny, "closed/#")];
    let listener =
        Listener { rights: Arc::new(Rights::Rules(Rules::new(None, rules))), ..Listener::default() };
    let broker = Broker::start_with(Config { listeners: vec![listener], ..Config::default() });
    let watcher = Subscriber::start(&broker, &["-t", "seen/#", "-C", "1", "-v"]);
    for version in ["311", "5"] {
        let will = ["-t", "closed/a", "--will-topic", "seen/will", "--will-payload", "x", "-V", version];
        let output = run(SUB, &broker, &will);
        assert_eq!(text(&output.stderr), "All subscription requests were denied.\n");
        assert_eq!(output.status.code(), Some(0));
    }
    let request = [
        "-t",
        "a",
        "-m",
        "x",
        "-e",
        "closed/a",
        "--will-topic",
        "seen/will",
        "--will-payload",
        "x",
        "-V",
        "5",
    ];
    assert_eq!(run(RR, &broker, &request).status.code(), Some(0));
    publish(&broker, &["-t", "seen/end", "-m", "x"]);
    assert_eq!(text(&watcher.end().0), "seen/end x\n");
}
