//! From the options to a connection, and how it ends.

use super::config::Config;
use super::{Failure, Tool, say};
use crate::packets::TARGET;
use crate::transport::Route;
use crate::trust::{NoTls, Why};
use crate::{
    Acknowledge, Address, Behavior, By, Client, Connector, Error, Options, Properties, Property, ReasonCode,
    Reconnect, Scheme, Tls, TlsVersion, Verify, Version, Will,
};
use hikyaku_proto::codec::VARINT_MAX;
use log::{Level, LevelFilter, Log, Metadata, Record};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the last packets may take.
pub(super) const GOODBYE: Duration = Duration::from_secs(5);
/// What waits without a limit waits this long at a time.
pub(super) const LONG: Duration = Duration::from_secs(3600);

/// What fits into no packet is not read to its end.
pub(super) const PAYLOAD_MAX: usize = VARINT_MAX as usize;

/// The exit code of `-W`.
pub(super) const TIMED_OUT: u8 = 27;
const CONNECTION_LOST: u8 = 7;
const PROTOCOL: u8 = 2;

/// What the signal handler and the program share.
#[derive(Debug, Default)]
pub(super) struct Ending {
    client: OnceLock<Arc<Client>>,
    stopped: AtomicBool,
}

impl Ending {
    /// A signal came: the client is being closed.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub fn set(&self, client: &Arc<Client>) {
        let _ = self.client.set(client.clone());
    }
}

/// Says goodbye when the user or the system ends the program. Before there is a connection it just ends.
pub(super) fn on_signals(config: &Config) -> Result<Arc<Ending>, Failure> {
    let failed = |error| Failure::run(1, format!("Error: {error}"));
    let ending = Arc::new(Ending::default());
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (given, tool) = (ending.clone(), config.tool);
    let (version, properties) = (config.version, config.disconnect_properties.clone());
    let watch = move || {
        for signal in signals.forever() {
            let Some(client) = given.client.get() else { std::process::exit(255) };
            if given.stopped.swap(true, Ordering::AcqRel) {
                std::process::exit(128 + signal);
            }
            let client = client.clone();
            let (given, properties) = (given.clone(), properties.clone());
            std::thread::spawn(move || {
                // Before 5.0 nothing but a plain goodbye can be said.
                let reason = match version {
                    Version::V5 => ReasonCode::DisconnectWithWillMessage,
                    _ => ReasonCode::NormalDisconnection,
                };
                let _ = client.disconnect_with(reason, properties.as_properties(), GOODBYE);
                // A subscriber sees that the messages end; the others may wait for something else.
                if tool != Tool::Sub {
                    std::process::exit(128 + signal);
                }
                drop(given);
            });
        }
    };
    std::thread::Builder::new().name(String::from("signals")).spawn(watch).map_err(failed)?;
    Ok(ending)
}

/// The lines of `-d` are those of the packets, on standard output.
struct PacketLines;

impl Log for PacketLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && metadata.level() <= Level::Trace
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let _ = writeln!(io::stdout(), "{}", record.args());
        }
    }

    fn flush(&self) {}
}

pub(super) fn show_packets(config: &Config) {
    static LINES: PacketLines = PacketLines;
    if config.debug && log::set_logger(&LINES).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

/// The connection that was asked for, for who makes many of it.
pub(super) fn route(config: &Config) -> Result<(Route, Options), Failure> {
    Ok(connector(config, Reconnect::Never)?.into_parts())
}

/// Everything about the connection but what is done with it.
pub(super) fn connector(config: &Config, reconnect: Reconnect) -> Result<Connector, Failure> {
    let tls = has_tls(config);
    // mosquitto takes port 0 for a path.
    let unix = config.unix || config.port == Some(0);
    let scheme = match (unix, config.websocket, tls) {
        (true, _, _) => Scheme::Unix,
        (_, true, true) => Scheme::Wss,
        (_, true, false) => Scheme::Ws,
        (_, false, true) => Scheme::Mqtts,
        (_, false, false) => Scheme::Mqtt,
    };
    let port = if unix { 0 } else { config.port.unwrap_or(scheme.default_port()) };
    let address = Address::new(scheme, &config.host, port);
    let behavior = Behavior { reconnect, subscription_ids: false, ..Behavior::default() };
    // The time limit of the user is the one that counts.
    let request_timeout = config.timeout.unwrap_or_default().max(behavior.request_timeout);
    let behavior = Behavior { request_timeout, ..behavior };
    let mut connector = Connector::new(address, options(config)?)
        .map_err(|e| failure(&e, config.version))?
        .behavior(behavior);
    if let (true, Some(username), Some(password)) = (config.scram, &config.username, &config.password) {
        connector = connector.scram(username, &password.0).map_err(|e| failure(&e, config.version))?;
    }
    if let Some(bind) = &config.bind {
        connector = connector.bind(local_address(bind)?);
    }
    if let Some(proxy) = &config.proxy {
        connector = connector.proxy(proxy.clone());
    }
    if scheme.is_tls() {
        connector = connector.tls(&trust(config)?).map_err(|error| {
            let files = [&config.ca_file, &config.ca_path, &config.cert, &config.key];
            let only_one = files.iter().filter(|file| file.is_some()).count() == 1;
            let what = match &error {
                Error::Tls(crate::TlsError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                    "File not found"
                }
                _ => return Failure::run(1, format!("Error: Problem setting TLS options: {error}.")),
            };
            let mut text = format!("Error: Problem setting TLS options: {what}.");
            if !only_one {
                text.push_str(&format!("\n{error}"));
            }
            Failure::run(1, text)
        })?;
    }
    Ok(connector)
}

fn has_tls(config: &Config) -> bool {
    let given = config.ca_file.is_some() || config.ca_path.is_some() || config.cert.is_some();
    !config.no_tls && (given || config.os_certs || config.port == Some(8883))
}

pub(super) fn local_address(bind: &str) -> Result<IpAddr, Failure> {
    let wrong =
        |error: io::Error| Failure::run(1, format!("Error: Cannot come from {bind}: {}", plain(&error)));
    let found = (bind, 0).to_socket_addrs().map_err(wrong)?.next();
    found.map(|addr| addr.ip()).ok_or_else(|| wrong(io::ErrorKind::NotFound.into()))
}

fn trust(config: &Config) -> Result<Tls, Failure> {
    let version = match config.tls_version.as_deref() {
        None => TlsVersion::Any,
        Some("tlsv1.2") => TlsVersion::V1_2,
        Some("tlsv1.3") => TlsVersion::V1_3,
        Some(other) => {
            let text = "Error: Problem setting TLS options, check the options are valid.";
            return Err(Failure::run(
                1,
                format!("{text}\nTLS version '{other}' is none of tlsv1.2 and tlsv1.3."),
            ));
        }
    };
    Ok(Tls {
        ca_file: config.ca_file.clone(),
        ca_path: config.ca_path.clone(),
        system: config.os_certs,
        cert_file: config.cert.clone(),
        key_file: config.key.clone(),
        verify: if config.insecure { Verify::AnyName } else { Verify::Full },
        version,
        alpn: config.alpn.iter().map(|alpn| alpn.clone().into_bytes()).collect(),
        key_log: config.key_log.clone(),
    })
}

fn options(config: &Config) -> Result<Options, Failure> {
    let id = match (&config.client_id, &config.id_prefix) {
        (Some(id), _) => id.clone(),
        (None, Some(prefix)) => format!("{prefix}{}", std::process::id()),
        // 3.1 has no ids of the server's choice.
        (None, None) if config.version == Version::V3_1 => {
            let random = RandomState::new().build_hasher().finish();
            format!("hikyaku-{:015x}", random >> 4)
        }
        (None, None) => String::new(),
    };
    let will = config.will_topic.as_ref().map(|topic| Will {
        topic: topic.clone(),
        payload: config.will_payload.clone().unwrap_or_default(),
        qos: config.will_qos,
        retain: config.will_retain,
        properties: config.will_properties.clone(),
    });
    let few = config.count.and_then(|count| u16::try_from(count).ok()).filter(|count| *count < 20);
    let mut options = Options {
        clean_start: config.clean,
        session_expiry_s: config.session_expiry_s.unwrap_or(0),
        keep_alive_s: config.keep_alive_s,
        username: config.username.clone(),
        password: config.password.as_ref().map(|secret| secret.0.clone()),
        will,
        // So that not more come than are shown.
        receive_maximum: few.unwrap_or(20),
        topic_alias_maximum: 0,
        // Whoever gives an alias wants them used; the numbers are the client's.
        max_topic_aliases: if config.publish_properties.as_properties().topic_alias().is_some() {
            10
        } else {
            0
        },
        acknowledge: if config.tool == Tool::Pub {
            Acknowledge::Automatically
        } else {
            Acknowledge::Manually
        },
        max_inflight: config.max_inflight,
        ..Options::new(config.version, &id)
    };
    let mut authentication = crate::Authentication::default();
    for property in config.connect_properties.as_properties() {
        match property {
            Property::SessionExpiryInterval(seconds) => options.session_expiry_s = seconds,
            Property::ReceiveMaximum(most) => options.receive_maximum = most,
            Property::MaximumPacketSize(most) => options.max_packet_size = most,
            Property::TopicAliasMaximum(most) => options.topic_alias_maximum = most,
            Property::RequestProblemInformation(asked) => options.request_problem_information = asked != 0,
            Property::RequestResponseInformation(asked) => options.request_response_information = asked != 0,
            Property::AuthenticationMethod(method) => authentication.method = String::from(method),
            Property::AuthenticationData(data) => authentication.data = Some(data.to_vec()),
            Property::UserProperty(name, value) => {
                options.user_properties.push((String::from(name), String::from(value)));
            }
            _ => {}
        }
    }
    options.authentication = (!authentication.method.is_empty()).then_some(authentication);
    options.check().map_err(|error| Failure::run(3, format!("Error: {error}.")))?;
    Ok(options)
}

/// The properties of a PUBLISH without those that the client sees to itself.
pub(super) fn publish_properties(config: &Config) -> crate::PropertiesBuf {
    let given = config.publish_properties.as_properties();
    let mut properties = crate::PropertiesBuf::default();
    properties.extend(given.iter().filter(|property| !matches!(property, Property::TopicAlias(_))));
    properties
}

/// Ends the connection properly.
pub(super) fn goodbye(client: &Client, config: &Config) {
    let properties = match config.version {
        Version::V5 => config.disconnect_properties.as_properties(),
        _ => Properties::EMPTY,
    };
    if let Err(error) = client.disconnect_with(ReasonCode::NormalDisconnection, properties, GOODBYE) {
        log::debug!("{error}");
    }
}

/// As [`failure`], of who does not get as far as an answer: perhaps one side speaks TLS, and the other does not.
pub(super) fn no_answer(error: &Error, config: &Config) -> Failure {
    let mut failure = failure(error, config.version);
    if let Failure::Run { text, .. } = &mut failure {
        match error {
            Error::Disconnected(By::Transport) | Error::Closed if !has_tls(config) && !config.unix => {
                text.push_str(
                    "\nIt ended before the server had answered. If the server wants TLS here, give --cafile FILE, or \
                     --tls-use-os-certs.",
                );
            }
            Error::Io(io) if has_tls(config) && is_unexpected(io) => {
                text.push_str(
                    "\nPerhaps the server does not speak TLS at this port; without it is usually 1883.",
                );
            }
            _ => {}
        }
    }
    failure
}

/// The server has sent something else than we expect in TLS, or nothing.
fn is_unexpected(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, TimedOut, UnexpectedEof};
    matches!(error.kind(), InvalidData | TimedOut | UnexpectedEof)
        && error.raw_os_error().is_none()
        && NoTls::of(error).is_none()
}

/// What to say, and which code to end with.
pub(super) fn failure(error: &Error, version: Version) -> Failure {
    match error {
        Error::Io(error) if error.raw_os_error().is_some() => {
            Failure::run(1, format!("Error: {}", plain(error)))
        }
        Error::Io(error) if error.to_string().contains("lookup") => {
            Failure::run(1, format!("Unable to connect (Lookup error.).\n{error}"))
        }
        Error::Io(error) => Failure::run(1, format!("Unable to connect ({error}).{}", advice(error))),
        Error::Refused(reason) => refused(*reason, version),
        Error::Disconnected(By::Transport) | Error::Closed => {
            Failure::run(CONNECTION_LOST, "Error: The connection was lost.")
        }
        Error::Disconnected(By::Peer(reason)) => {
            Failure::run(*reason as u8, format!("Error: The server ended the connection: {reason}."))
        }
        Error::Disconnected(by) => Failure::run(PROTOCOL, format!("Error: {by}.")),
        Error::Send(error) => Failure::run(3, format!("Error: {error}.")),
        other => Failure::run(1, format!("Error: {other}.")),
    }
}

/// Which option may help.
fn advice(error: &io::Error) -> &'static str {
    match NoTls::of(error).map(|error| error.why) {
        Some(Why::Issuer) => {
            "\nIf you trust it, give its issuer's certificate, or its own, with --cafile; or --tls-use-os-certs for \
             those that this system trusts."
        }
        Some(Why::Name) => {
            "\nName the host with -h as the certificate does; or --insecure, which leaves the name unchecked."
        }
        Some(Why::Version1) => {
            "\nIt has to be made again with extensions, for example: openssl x509 -req … -extfile FILE, with \
             'subjectAltName=DNS:' and the host's name in FILE."
        }
        Some(Why::OurCertificate) => {
            "\nGive a certificate that it takes with --cert, and its key with --key."
        }
        Some(Why::Other) | None => "",
    }
}

fn refused(reason: ReasonCode, version: Version) -> Failure {
    if version == Version::V5 {
        let hint = match reason {
            ReasonCode::UnsupportedProtocolVersion => {
                ". Try connecting to an MQTT v5 broker, or use MQTT v3.x mode."
            }
            _ => "",
        };
        return Failure::run(reason as u8, format!("Connection error: {reason}{hint}"));
    }
    let (code, text) = match reason {
        ReasonCode::UnsupportedProtocolVersion => (1, "unacceptable protocol version."),
        ReasonCode::ClientIdentifierNotValid => (2, "identifier rejected."),
        ReasonCode::ServerUnavailable => (3, "broker unavailable."),
        ReasonCode::BadUserNameOrPassword => (4, "bad user name or password."),
        ReasonCode::NotAuthorized => (5, "not authorised."),
        other => (other as u8, "unknown reason."),
    };
    Failure::run(code, format!("Connection error: Connection Refused: {text}"))
}

/// An error of the system without its number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => String::from(&text[..at]),
        None => text,
    }
}

/// The message of `-m`, `-f`, `-s` or `-n`; nothing for `-l`.
pub(super) fn payload(config: &Config) -> Result<Option<Vec<u8>>, Failure> {
    use super::config::Payload;
    Ok(match &config.payload {
        None | Some(Payload::Lines) => None,
        Some(Payload::Empty) => Some(Vec::new()),
        Some(Payload::Text(text)) => Some(text.clone()),
        Some(Payload::File(path)) => {
            let name = path.display();
            Some(std::fs::File::open(path).and_then(read_all).map_err(|error| {
                let text = format!("Error: Unable to read file \"{name}\": {}.", plain(&error));
                Failure::run(1, format!("{text}\nError loading input file \"{name}\"."))
            })?)
        }
        Some(Payload::Stdin) => {
            let wrong = match read_all(io::stdin().lock()) {
                Err(error) => format!("Error: {}.", plain(&error)),
                Ok(bytes) if bytes.is_empty() => String::from("Error: Zero length input."),
                Ok(bytes) => return Ok(Some(bytes)),
            };
            return Err(Failure::run(1, format!("{wrong}\nError loading input from stdin.")));
        }
    })
}

fn read_all(input: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(PAYLOAD_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > PAYLOAD_MAX {
        return Err(io::Error::other(format!("It is longer than {PAYLOAD_MAX} bytes")));
    }
    Ok(bytes)
}

/// A warning that `--quiet` hides.
pub(super) fn warn(config: &Config, text: &str) {
    if !config.quiet {
        say(text);
    }
}
