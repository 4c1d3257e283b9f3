//! The one table of options: names, arguments, programs, help.

use super::Tool;

/// What an option means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Id {
    Bind,
    BenchTime,
    CaFile,
    CaPath,
    Cert,
    Ciphers,
    ConnectRate,
    Connections,
    Count,
    CleanOff,
    Debug,
    Property,
    ResponseTopic,
    ExitAfterSub,
    File,
    Format,
    Help,
    Host,
    Client,
    Prefix,
    Insecure,
    Json,
    KeepAlive,
    Key,
    KeyForm,
    Url,
    StdinLine,
    Latency,
    Message,
    MaxInflight,
    MessageRate,
    NoEol,
    NoDelay,
    NoTls,
    Null,
    OptionsFile,
    Port,
    Password,
    Pretty,
    Proxy,
    Psk,
    PskIdentity,
    Qos,
    Quiet,
    Rate,
    NoRetained,
    RandomFilter,
    RemoveRetained,
    Repeat,
    RepeatDelay,
    Retain,
    Scram,
    RetainAsPublished,
    RetainHandling,
    RetainedOnly,
    Size,
    Srv,
    StdinFile,
    Threads,
    Topic,
    FilterOut,
    TlsAlpn,
    TlsEngine,
    TlsEngineKpass,
    TlsKeylog,
    TlsUseOsCerts,
    TlsVersion,
    Unix,
    Unsubscribe,
    Username,
    Verbose,
    Version,
    ProtocolVersion,
    Timeout,
    Warmup,
    Watch,
    WillPayload,
    WillQos,
    WillRetain,
    WillTopic,
    WebSocket,
    Window,
    SessionExpiry,
}

#[derive(Debug)]
pub(super) struct Opt {
    pub id: Id,
    /// The short name, or the long one where there is no short one; then the long one, or nothing.
    pub names: [&'static str; 2],
    /// What the argument is called, and what to say when it is missing. Empty for a flag.
    pub arg: [&'static str; 2],
    tools: u8,
    help: &'static str,
}

const P: u8 = Tool::Pub as u8;
const S: u8 = Tool::Sub as u8;
const R: u8 = Tool::Rr as u8;
const B: u8 = Tool::Bench as u8;
/// Those that are mosquitto's.
const M: u8 = P | S | R;
const ALL: u8 = M | B;

const fn flag(id: Id, short: &'static str, long: &'static str, tools: u8, help: &'static str) -> Opt {
    Opt { id, names: [short, long], arg: ["", ""], tools, help }
}

const fn value(
    id: Id,
    names: [&'static str; 2],
    arg: [&'static str; 2],
    tools: u8,
    help: &'static str,
) -> Opt {
    Opt { id, names, arg, tools, help }
}

#[rustfmt::skip]
const TABLE: &[Opt] = &[
    // Where to.
    value(Id::Host, ["-h", "--host"], ["HOST", "no host specified"], ALL, "Connect to this host. Defaults to localhost."),
    value(Id::Port, ["-p", "--port"], ["PORT", "no port specified"], ALL, "Connect to this port. Defaults to 1883, with TLS to 8883. Port 8883 switches TLS on; --no-tls switches it off again."),
    value(Id::Url, ["-L", "--url"], ["URL", "no URL specified"], M,
        "User, password, host, port and topic as mqtt[s]://[user[:password]@]host[:port]/topic, or ws[s]://… for WebSocket."),
    value(Id::Unix, ["--unix", ""], ["PATH", "no socket path specified"], ALL, "Connect through this Unix socket."),
    flag(Id::WebSocket, "--ws", "", ALL, "Connect with WebSocket."),
    value(Id::Bind, ["-A", ""], ["ADDRESS", "no address specified"], M, "Come from this address of this machine."),
    flag(Id::NoDelay, "--nodelay", "", M, "Accepted: small packets are never held back."),
    value(Id::Proxy, ["--proxy", ""], ["URL", "no proxy url specified"], M,
        "Go through a SOCKS 5 proxy: socks5h://[user[:password]@]host[:port]. It looks the host up."),
    flag(Id::Srv, "-S", "", M, "Not supported."),
    value(Id::Bind, ["-A", ""], ["ADDRESS", "no address specified"], B,
        "Come from this address of this machine. May be repeated: connections take turns. One address has some 28,000 ports for one server."),
    // How much.
    value(Id::Connections, ["-n", "--connections"], ["N", "no number specified"], B,
        "How many: connections (conn), publishers (pub, fan-in), subscribers (sub, fan-out) or pairs (p2p). Defaults to 100."),
    value(Id::ConnectRate, ["--connect-rate", ""], ["N", "no rate specified"], B,
        "Open N connections a second. Otherwise as fast as they are let in, with 128 underway."),
    value(Id::Rate, ["--rate", ""], ["N", "no rate specified"], B,
        "Send N messages a second in all, each when it is due, whatever becomes of those before. Latency counts from the moment a message was due, so \
         that waiting behind slow ones counts (no coordinated omission)."),
    value(Id::Window, ["-w", "--window"], ["N", "no number specified"], B,
        "Outstanding messages of a publisher: not received by all subscribers here, or at QoS 1 and 2 not acknowledged. Without --rate 20, and a message is sent \
         as soon as there is room; with --rate 1000."),
    value(Id::Size, ["-s", "--size"], ["BYTES", "no size specified"], B, "Payload, 24 bytes or more; with pub alone less. Defaults to 64."),
    value(Id::BenchTime, ["--duration", ""], ["SECONDS", "no time specified"], B, "How long to send, to listen (sub) or to hold the connections (conn). Defaults to 10, with -C to no limit."),
    value(Id::Count, ["-C", "--count"], ["N", "no count specified"], B, "End after N messages in all."),
    value(Id::Warmup, ["--warmup", ""], ["SECONDS", "no time specified"], B, "Leave the first seconds out of throughput and latency. Defaults to 0."),
    value(Id::Threads, ["--threads", ""], ["N", "no number specified"], B, "How many threads drive the connections, 1 to 64. Defaults to 1."),
    // What.
    value(Id::Topic, ["-t", "--topic"], ["TOPIC", "no topic specified"], B,
        "Topic; %i is the number of the publisher or subscriber. Defaults to bench/%i. fan-in subscribes to it with + for %i."),
    value(Id::Topic, ["-t", "--topic"], ["TOPIC", "no topic specified"], P | R, "Publish to this topic."),
    value(Id::Topic, ["-t", "--topic"], ["FILTER", "no topic specified"], S, "Subscribe to this topic filter. May be repeated."),
    value(Id::ResponseTopic, ["-e", ""], ["TOPIC", "no response topic specified"], R, "Subscribe to this topic and wait for the response there."),
    value(Id::Message, ["-m", "--message"], ["TEXT", "no message specified"], P | R, "Send this text."),
    value(Id::File, ["-f", "--file"], ["FILE", "no file specified"], P | R, "Send the content of this file."),
    flag(Id::StdinLine, "-l", "--stdin-line", P, "Read from standard input and send a message for each line."),
    flag(Id::Null, "-n", "--null-message", P | R, "Send an empty message."),
    flag(Id::StdinFile, "-s", "--stdin-file", P | R, "Read all of standard input and send it as one message."),
    value(Id::Qos, ["-q", "--qos"], ["QOS", "no QoS specified"], ALL, "Quality of service: 0, 1 or 2. Defaults to 0."),
    flag(Id::Retain, "-r", "--retain", P | B, "Have the server keep the message for later subscribers."),
    value(Id::Repeat, ["--repeat", ""], ["N", "no count specified"], P, "Send the message N times."),
    value(Id::RepeatDelay, ["--repeat-delay", ""], ["SECONDS", "no time specified"], P, "Wait between repeated messages. Defaults to 0."),
    value(Id::FilterOut, ["-T", "--filter-out"], ["FILTER", "no topic filter specified"], S, "Do not show messages that match. May be repeated."),
    value(Id::Unsubscribe, ["-U", "--unsubscribe"], ["FILTER", "no unsubscribe topic specified"], S, "Unsubscribe from this topic filter. May be repeated."),
    value(Id::Count, ["-C", ""], ["N", "no count specified"], S, "End after N messages."),
    flag(Id::ExitAfterSub, "-E", "", S, "End when the server has answered the subscriptions."),
    value(Id::Timeout, ["-W", ""], ["SECONDS", "no timeout specified"], S | R, "End after this time, with exit code 27."),
    flag(Id::NoRetained, "-R", "", S | R, "Do not show messages that are sent because they were retained."),
    flag(Id::RetainedOnly, "--retained-only", "", S, "Show retained messages only; end at the first that is not."),
    flag(Id::RemoveRetained, "--remove-retained", "", S, "Have the server forget the retained messages that come. Mind the filters!"),
    flag(Id::RetainAsPublished, "--retain-as-published", "", S | R, "Have the server leave the retain flag as the publisher set it (5.0)."),
    value(Id::RetainHandling, ["--retain-handling", ""], ["WHEN", "no option specified"], S | R,
        "When to send retained messages (5.0): always, new (for a new subscription) or never."),
    // How it looks.
    value(Id::Format, ["-F", ""], ["FORMAT", "no format specified"], S | R, "How to show a message; see below."),
    flag(Id::Pretty, "--pretty", "", S | R, "Show JSON on several lines (%j and %J)."),
    flag(Id::Verbose, "-v", "--verbose", S | R, "Show the topic before each message."),
    flag(Id::NoEol, "-N", "", S | R, "No line end after a message."),
    flag(Id::Watch, "-w", "--watch", S, "Show each topic on a line of its own on the screen."),
    value(Id::RandomFilter, ["--random-filter", ""], ["PERCENT", "no chance specified"], S, "Show only that part of the messages, at random."),
    flag(Id::MessageRate, "--message-rate", "", S, "Show how many messages come each second, not the messages."),
    flag(Id::Latency, "--latency", "", R, "Show the time from request to response."),
    flag(Id::Debug, "-d", "--debug", M, "Show each packet."),
    flag(Id::Quiet, "--quiet", "", M, "Do not show errors."),
    // The session.
    flag(Id::Json, "--json", "", B, "Show the result as a JSON object, on standard output."),
    flag(Id::Quiet, "--quiet", "", B, "Do not show progress on standard error."),
    value(Id::Client, ["-i", "--id"], ["ID", "no id specified"], M, "Client identifier. Otherwise the server chooses one."),
    value(Id::Prefix, ["-I", "--id-prefix"], ["PREFIX", "no id prefix specified"], M, "Client identifier: this and the process id."),
    flag(Id::CleanOff, "-c", "--disable-clean-session", M, "Go on with the session of this client identifier, and keep it."),
    value(Id::Prefix, ["-I", "--id-prefix"], ["PREFIX", "no id prefix specified"], B,
        "Client identifiers: this, a letter for the role, and a number. Otherwise it begins with bench- and is another one each time."),
    flag(Id::CleanOff, "-c", "--disable-clean-session", B, "Go on with the sessions of these client identifiers, and leave them there. Needs -I."),
    value(Id::SessionExpiry, ["-x", ""], ["SECONDS", "no session expiry interval specified"], ALL,
        "How long the server keeps the session (5.0); -1 is for ever. Defaults to -1 with -c, otherwise to 0."),
    value(Id::KeepAlive, ["-k", "--keepalive"], ["SECONDS", "no keepalive specified"], ALL, "Keep alive, 5 to 65535. Defaults to 60."),
    value(Id::MaxInflight, ["-M", ""], ["N", "max_inflight not specified"], M, "How many messages of QoS 1 and 2 to have underway. Defaults to 20."),
    value(Id::ProtocolVersion, ["-V", "--protocol-version"], ["VERSION", "no version specified"], ALL, "mqttv31, mqttv311 or mqttv5, also 31, 311 or 5."),
    value(Id::Property, ["-D", "--property"], ["COMMAND NAME VALUE", ""], M,
        "A property of 5.0 for connect, publish, subscribe, unsubscribe, disconnect or will; user-property takes a name and a value."),
    value(Id::WillTopic, ["--will-topic", ""], ["TOPIC", "no will topic specified"], M, "Topic of the will."),
    value(Id::WillPayload, ["--will-payload", ""], ["TEXT", "no will payload specified"], M, "Payload of the will. Otherwise it is empty."),
    value(Id::WillQos, ["--will-qos", ""], ["QOS", "no will QoS specified"], M, "Quality of service of the will. Defaults to 0."),
    flag(Id::WillRetain, "--will-retain", "", M, "Have the server keep the will for later subscribers."),
    // Who.
    value(Id::Username, ["-u", "--username"], ["NAME", "no username specified"], ALL, "User name."),
    value(Id::Password, ["-P", "--pw"], ["PASSWORD", "no password specified"], ALL, "Password. Other users of this machine may see it; see -o."),
    flag(Id::Scram, "--scram", "", M,
        "Prove to know the password by SCRAM-SHA-256 (5.0, which this implies) instead of sending it; the server has to \
         prove the same. Its users' keys come from hikyaku-passwd --scram."),
    value(Id::CaFile, ["--cafile", ""], ["FILE", "no file specified"], ALL, "Use TLS and trust the certificates in this file."),
    value(Id::CaPath, ["--capath", ""], ["DIR", "no directory specified"], ALL, "Use TLS and trust the certificates in this folder."),
    flag(Id::TlsUseOsCerts, "--tls-use-os-certs", "", ALL, "Use TLS and trust the certificates that this system trusts."),
    value(Id::Cert, ["--cert", ""], ["FILE", "no file specified"], ALL, "Use TLS and show this certificate."),
    value(Id::Key, ["--key", ""], ["FILE", "no file specified"], ALL, "The key of --cert."),
    flag(Id::Insecure, "--insecure", "", ALL, "Do not check that the certificate is for the host. Anyone may be in between: for tests only."),
    value(Id::TlsVersion, ["--tls-version", ""], ["VERSION", "no version specified"], ALL, "tlsv1.3 or tlsv1.2. Otherwise both are possible."),
    value(Id::TlsAlpn, ["--tls-alpn", ""], ["PROTOCOL", "no protocol specified"], ALL, "Application protocol to offer."),
    value(Id::TlsKeylog, ["--tls-keylog", ""], ["FILE", "no file specified"], ALL, "Write the keys of TLS to this file, for debugging."),
    flag(Id::NoTls, "--no-tls", "", ALL, "No TLS, whatever else is said."),
    value(Id::Ciphers, ["--ciphers", ""], ["LIST", "no ciphers specified"], M, "Not supported: the ciphers are good ones."),
    value(Id::KeyForm, ["--keyform", ""], ["FORM", "no keyform specified"], M, "pem."),
    value(Id::TlsEngine, ["--tls-engine", ""], ["ENGINE", "no engine_id specified"], M, "Not supported."),
    value(Id::TlsEngineKpass, ["--tls-engine-kpass-sha1", ""], ["SHA1", "no kpass sha1 specified"], M, "Not supported."),
    value(Id::Psk, ["--psk", ""], ["KEY", "no key specified"], M, "Not supported."),
    value(Id::PskIdentity, ["--psk-identity", ""], ["NAME", "no identity specified"], M, "Not supported."),
    value(Id::OptionsFile, ["-o", ""], ["FILE", "no options file specified"], ALL,
        "Read options from this file, one in a line. Otherwise from a file with the program's name in $XDG_CONFIG_HOME or ~/.config; \
         where that is missing, from mosquitto_pub, _sub or _rr there."),
    flag(Id::Version, "--version", "", ALL, "Show the version."),
    flag(Id::Help, "--help", "", ALL, "Show this."),
];

const FORMATS: &str = "
In a format:
  %t topic        %p payload      %l its length   %q QoS        %r retain flag  %m packet identifier
  %x %X payload in hexadecimal    %f %d payload as a float of 4 or 8 bytes
  %j %J all of it as JSON; with %J the payload is JSON itself
  %I %U time, as ISO 8601 or in seconds; @Y @m @d … parts of it, as of strftime; @N nanoseconds
  %A topic alias  %C content type %D correlation data %E message expiry %F payload format
  %P user properties  %R response topic  %S subscription identifier
  %% @@ \\\\ themselves             \\n \\r \\t \\0 \\a \\e \\v
Widths as of printf: %10t, %-10t, %010l, %.3t. Between bytes: %.2:x.
";

const MODES: &str = "  conn      opens N connections and holds them
  pub       N publishers; latency is the time to the acknowledgement, at QoS 1 and 2
  sub       N subscribers, of messages that another hikyaku-bench publishes
  p2p       N publishers with one subscriber each
  fan-in    N publishers, one subscriber to all of them
  fan-out   one publisher, N subscribers to it

";

const RESULT: &str = "
A message carries its publisher, its number and when it was due, so that lost, doubled and disordered ones
are seen. Between two machines latencies are as right as their clocks. --rate is the way to measure latencies:
without it a slow broker is sent less, and what would have waited is not there to be counted.

Exit codes: 0 if all went well; 1 if connections failed or messages were lost, refused, out of order or, but
at QoS 1, doubled; 2 for wrong arguments.
";

/// The option with a name.
pub(super) fn find(tool: Tool, name: &str) -> Option<&'static Opt> {
    of(tool).find(|opt| !name.is_empty() && opt.names.contains(&name))
}

fn of(tool: Tool) -> impl Iterator<Item = &'static Opt> {
    TABLE.iter().filter(move |opt| opt.tools & tool as u8 != 0)
}

/// A name that one may have meant.
pub(super) fn similar(tool: Tool, name: &str) -> Option<&'static str> {
    if !name.starts_with("--") {
        return None;
    }
    let names = of(tool).flat_map(|opt| opt.names).filter(|known| known.starts_with("--"));
    let (far, best) = names.map(|known| (distance(name, known), known)).min()?;
    (far <= 1 + name.len() / 5).then_some(best)
}

/// How many letters to change, insert or remove.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The text of `--help`.
pub(super) fn help(tool: Tool) -> String {
    let (name, what, usage) = match tool {
        Tool::Pub => (
            "hikyaku-pub",
            "publishes a message and ends.",
            "{-t TOPIC | -L URL} {-m TEXT | -f FILE | -l | -n | -s}",
        ),
        Tool::Sub => (
            "hikyaku-sub",
            "subscribes and shows the messages that come.",
            "{-t FILTER… | -U FILTER… | -L URL}",
        ),
        Tool::Rr => (
            "hikyaku-rr",
            "publishes a request and shows the response.",
            "{-t TOPIC | -L URL} -e TOPIC {-m TEXT | -f FILE | -n | -s}",
        ),
        Tool::Bench => (
            "hikyaku-bench",
            "puts a broker under load and measures it.",
            "{conn | pub | sub | p2p | fan-in | fan-out}",
        ),
    };
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("{name} {what}\n{name} version {version}\n\nUsage: {name} {usage} [OPTION…]\n\n");
    if tool == Tool::Bench {
        text.push_str(MODES);
    }
    for opt in of(tool) {
        let names = opt.names.iter().filter(|name| !name.is_empty()).copied().collect::<Vec<_>>().join(", ");
        text.push_str(format!("  {names} {}", opt.arg[0]).trim_end());
        text.push('\n');
        for line in wrapped(opt.help, 90) {
            text.push_str(&format!("        {line}\n"));
        }
    }
    match tool {
        Tool::Pub => {}
        Tool::Sub | Tool::Rr => text.push_str(FORMATS),
        Tool::Bench => text.push_str(RESULT),
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if lines[last].is_empty() {
            lines[last].push_str(word);
        } else if lines[last].chars().count() + word.chars().count() < width {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(String::from(word));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_mistakes_get_a_suggestion() {
        for tool in [Tool::Pub, Tool::Sub, Tool::Rr, Tool::Bench] {
            let mut names: Vec<_> = of(tool).flat_map(|opt| opt.names).filter(|n| !n.is_empty()).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{tool:?}");
            assert!(help(tool).lines().all(|line| line.chars().count() <= 110));
        }
        assert_eq!(similar(Tool::Pub, "--hots"), Some("--host"));
        assert_eq!(similar(Tool::Sub, "--retianed-only"), Some("--retained-only"));
        assert_eq!(similar(Tool::Pub, "--something-else"), None);
        assert_eq!(similar(Tool::Pub, "-y"), None);
    }
}
