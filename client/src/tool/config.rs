//! What the options say, from the options file and then the command line.

use super::bench::Wanted;
use super::format::Format;
use super::options::{self, Id, Opt};
use super::property::{self, Command};
use super::{Failure, Tool};
use crate::{
    Address, AddressError, PropertiesBuf, Proxy, QoS, RetainHandling, Scheme, SubscribeOptions, Version,
};
use hikyaku_proto::topic::{TopicFilter, TopicName};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Text(Vec<u8>),
    File(PathBuf),
    Stdin,
    Lines,
    Empty,
}

/// A password, which nobody reads in a printout.
pub(super) struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[derive(Debug)]
pub(super) struct Config {
    pub tool: Tool,
    pub host: String,
    pub port: Option<u16>,
    pub unix: bool,
    pub websocket: bool,
    pub bind: Option<String>,
    pub topics: Vec<String>,
    pub response_topic: Option<String>,
    pub payload: Option<Payload>,
    pub qos: QoS,
    pub retain: bool,
    pub repeat: u32,
    pub repeat_delay: Duration,
    pub filter_out: Vec<String>,
    pub unsubscribe: Vec<String>,
    pub count: Option<u32>,
    pub exit_after_sub: bool,
    pub timeout: Option<Duration>,
    pub no_retained: bool,
    pub retained_only: bool,
    pub remove_retained: bool,
    pub subscribe_options: SubscribeOptions,
    pub format: Option<Format>,
    pub pretty: bool,
    pub verbose: bool,
    pub eol: bool,
    pub watch: bool,
    /// In tenths of a percent.
    pub random_filter: Option<u32>,
    pub message_rate: bool,
    pub latency: bool,
    pub debug: bool,
    pub quiet: bool,
    pub client_id: Option<String>,
    pub id_prefix: Option<String>,
    pub clean: bool,
    pub session_expiry_s: Option<u32>,
    pub keep_alive_s: u16,
    pub max_inflight: u16,
    pub version: Version,
    pub connect_properties: PropertiesBuf,
    pub publish_properties: PropertiesBuf,
    pub subscribe_properties: PropertiesBuf,
    pub unsubscribe_properties: PropertiesBuf,
    pub disconnect_properties: PropertiesBuf,
    pub will_properties: PropertiesBuf,
    pub will_topic: Option<String>,
    pub will_payload: Option<Vec<u8>>,
    pub will_qos: QoS,
    pub will_retain: bool,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub scram: bool,
    pub ca_file: Option<PathBuf>,
    pub ca_path: Option<PathBuf>,
    pub os_certs: bool,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub insecure: bool,
    pub tls_version: Option<String>,
    pub alpn: Option<String>,
    pub key_log: Option<PathBuf>,
    pub no_tls: bool,
    key_form: Option<String>,
    kpass: bool,
    engine: bool,
    ciphers: bool,
    srv: bool,
    psk: bool,
    psk_identity: bool,
    pub proxy: Option<Proxy>,
    pub bench: Wanted,
    options_file: Option<PathBuf>,
}

impl Config {
    /// Reads all there is. `--help` and `--version` show what they are asked for and end.
    pub fn read(tool: Tool, args: Vec<OsString>) -> Result<Config, Failure> {
        let mut config = Config::new(tool);
        config.options_file = find_options_file(&args)?;
        config.read_file()?;
        config.take(&mut args.into())?;
        config.check()?;
        Ok(config)
    }

    fn new(tool: Tool) -> Config {
        Config {
            tool,
            host: String::from("localhost"),
            port: None,
            unix: false,
            websocket: false,
            bind: None,
            topics: Vec::new(),
            response_topic: None,
            payload: None,
            qos: QoS::AtMostOnce,
            retain: false,
            repeat: 1,
            repeat_delay: Duration::ZERO,
            filter_out: Vec::new(),
            unsubscribe: Vec::new(),
            count: (tool == Tool::Rr).then_some(1),
            exit_after_sub: false,
            timeout: None,
            no_retained: false,
            retained_only: false,
            remove_retained: false,
            subscribe_options: SubscribeOptions::default(),
            format: None,
            pretty: false,
            verbose: false,
            eol: true,
            watch: false,
            random_filter: None,
            message_rate: false,
            latency: false,
            debug: false,
            quiet: false,
            client_id: None,
            id_prefix: None,
            clean: true,
            session_expiry_s: None,
            keep_alive_s: 60,
            max_inflight: 20,
            version: if tool == Tool::Rr { Version::V5 } else { Version::V3_1_1 },
            connect_properties: PropertiesBuf::default(),
            publish_properties: PropertiesBuf::default(),
            subscribe_properties: PropertiesBuf::default(),
            unsubscribe_properties: PropertiesBuf::default(),
            disconnect_properties: PropertiesBuf::default(),
            will_properties: PropertiesBuf::default(),
            will_topic: None,
            will_payload: None,
            will_qos: QoS::AtMostOnce,
            will_retain: false,
            username: None,
            password: None,
            scram: false,
            ca_file: None,
            ca_path: None,
            os_certs: false,
            cert: None,
            key: None,
            insecure: false,
            tls_version: None,
            alpn: None,
            key_log: None,
            no_tls: false,
            key_form: None,
            kpass: false,
            engine: false,
            ciphers: false,
            srv: false,
            psk: false,
            psk_identity: false,
            proxy: None,
            bench: Wanted::default(),
            options_file: None,
        }
    }

    fn read_file(&mut self) -> Result<(), Failure> {
        let path = match &self.options_file {
            Some(path) => path.clone(),
            None => {
                let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
                let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
                let Some(folder) = folder.or_else(home) else { return Ok(()) };
                let of = |name| folder.join(name);
                let candidates = [of(self.tool.name()), of(self.tool.model())];
                match candidates.into_iter().find(|path| path.is_file()) {
                    Some(path) => path,
                    None => return Ok(()),
                }
            }
        };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let text = format!("Cannot read the options file {}: {error}.", path.display());
                return Err(Failure::usage(text));
            }
        };
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii_end();
            if line.starts_with(b"#") || line.trim_ascii().is_empty() {
                continue;
            }
            self.take(&mut words(line.trim_ascii_start())).map_err(|failure| match failure {
                Failure::Usage(text) => {
                    let text = text.trim_end();
                    Failure::Usage(format!("{text}\n  at {}:{}", path.display(), number + 1))
                }
                other => other,
            })?;
        }
        Ok(())
    }

    fn take(&mut self, args: &mut VecDeque<OsString>) -> Result<(), Failure> {
        while let Some(arg) = args.pop_front() {
            let name = arg.to_string_lossy();
            if self.tool == Tool::Bench && !name.starts_with('-') {
                self.bench.set_mode(&name)?;
                continue;
            }
            let Some(opt) = options::find(self.tool, &name) else {
                let mut text = format!("Unknown option '{name}'.");
                if let Some(similar) = options::similar(self.tool, &name) {
                    text.push_str(&format!("\nDid you mean '{similar}'?"));
                }
                return Err(Failure::usage(text));
            };
            match opt.id {
                Id::Property => self.take_property(args)?,
                _ if opt.arg[1].is_empty() => self.set_flag(opt)?,
                _ => match args.pop_front() {
                    Some(value) => self.set(opt, value)?,
                    None => {
                        let name = if opt.id == Id::ProtocolVersion { opt.names[1] } else { opt.names[0] };
                        return Err(Failure::usage(format!("{name} argument given but {}.", opt.arg[1])));
                    }
                },
            }
        }
        Ok(())
    }

    fn take_property(&mut self, args: &mut VecDeque<OsString>) -> Result<(), Failure> {
        let few = || Failure::usage("--property argument given but not enough arguments specified.");
        let mut next = || args.pop_front().ok_or_else(few).and_then(|arg| text(arg, "-D"));
        let (packet, name, value) = (next()?, next()?, next()?);
        let mut values = vec![value];
        if property::values(&name) == 2 {
            values.push(next()?);
        }
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        self.version = Version::V5;
        property::add([&packet, &name], &values, |command| match command {
            Command::Connect => &mut self.connect_properties,
            Command::Publish => &mut self.publish_properties,
            Command::Subscribe => &mut self.subscribe_properties,
            Command::Unsubscribe => &mut self.unsubscribe_properties,
            Command::Disconnect => &mut self.disconnect_properties,
            Command::Will => &mut self.will_properties,
        })?;
        Ok(())
    }

    fn set_flag(&mut self, opt: &Opt) -> Result<(), Failure> {
        match opt.id {
            Id::Help => {
                let _ = io::stdout().write_all(options::help(self.tool).as_bytes());
                return Err(Failure::Exit(self.tool.explained()));
            }
            Id::Version => {
                let line = format!("{} version {}.\n", self.tool.name(), env!("CARGO_PKG_VERSION"));
                let _ = io::stdout().write_all(line.as_bytes());
                return Err(Failure::Exit(self.tool.explained()));
            }
            Id::WebSocket => self.websocket = true,
            Id::Srv => self.srv = true,
            Id::StdinLine => self.set_payload(Payload::Lines)?,
            Id::StdinFile => self.set_payload(Payload::Stdin)?,
            Id::Null => self.set_payload(Payload::Empty)?,
            Id::Retain => self.retain = true,
            Id::ExitAfterSub => self.exit_after_sub = true,
            Id::NoRetained => {
                self.no_retained = true;
                self.subscribe_options.retain_handling = RetainHandling::DoNotSend;
            }
            Id::RetainedOnly => self.retained_only = true,
            Id::RemoveRetained => self.remove_retained = true,
            Id::RetainAsPublished => self.subscribe_options.retain_as_published = true,
            Id::Pretty => self.pretty = true,
            Id::Verbose => self.verbose = true,
            Id::NoEol => self.eol = false,
            Id::Watch => self.watch = true,
            Id::MessageRate => self.message_rate = true,
            Id::Latency => self.latency = true,
            Id::Debug => self.debug = true,
            Id::Quiet => self.quiet = true,
            Id::CleanOff => self.clean = false,
            Id::WillRetain => self.will_retain = true,
            Id::TlsUseOsCerts => self.os_certs = true,
            Id::Insecure => self.insecure = true,
            Id::Scram => (self.scram, self.version) = (true, Version::V5),
            Id::NoTls => self.no_tls = true,
            Id::Json => self.bench.json = true,
            // Small packets are never held back.
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, opt: &Opt, value: OsString) -> Result<(), Failure> {
        let name = opt.names[0];
        match opt.id {
            Id::Host => self.host = text(value, name)?,
            Id::Port => {
                let value = text(value, name)?;
                let port =
                    value.parse().map_err(|_| Failure::usage(format!("Invalid port given: {value}")))?;
                self.port = Some(port);
            }
            Id::Url => self.set_url(&text(value, name)?)?,
            Id::Unix => (self.host, self.unix) = (text(value, name)?, true),
            Id::Bind if self.tool == Tool::Bench => self.bench.bind.push(text(value, name)?),
            Id::Bind => self.bind = Some(text(value, name)?),
            Id::Proxy => {
                let url = text(value, name)?;
                self.proxy = Some(url.parse().map_err(|error| match error {
                    AddressError::ProxyScheme => Failure::usage(format!("Unsupported proxy protocol: {url}")),
                    AddressError::Port => Failure::usage(format!("Invalid proxy port: {error}.")),
                    error => Failure::usage(format!("Invalid proxy: {error}.")),
                })?);
            }
            Id::Topic => self.add_topic(text(value, name)?)?,
            Id::ResponseTopic => {
                self.response_topic = Some(topic_name(text(value, name)?, "response")?);
            }
            Id::Message => self.set_payload(Payload::Text(value.into_vec()))?,
            Id::File => self.set_payload(Payload::File(value.into()))?,
            Id::Qos => {
                self.qos =
                    qos(&text(value, name)?, |qos| Failure::usage(format!("Invalid QoS given: {qos}")))?
            }
            Id::Repeat => {
                self.repeat = number(&text(value, name)?, 1, "--repeat argument must be >0.")?;
            }
            Id::RepeatDelay => {
                let seconds = text(value, name)?.parse::<f64>().ok();
                let delay = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
                let wrong = || Failure::usage("--repeat-delay argument must be >=0.0.");
                self.repeat_delay = delay.ok_or_else(wrong)?;
            }
            Id::FilterOut => self.filter_out.push(topic_filter(text(value, name)?, "filter")?),
            Id::Unsubscribe => self.unsubscribe.push(topic_filter(text(value, name)?, "unsubscribe")?),
            Id::Count => {
                let value = text(value, name)?;
                self.count = Some(number(&value, 1, &format!("Invalid message count \"{value}\"."))?);
            }
            Id::Timeout => {
                let value = text(value, name)?;
                let seconds = number(&value, 1, &format!("Invalid timeout \"{value}\"."))?;
                self.timeout = Some(Duration::from_secs(seconds.into()));
            }
            Id::RetainHandling => {
                self.subscribe_options.retain_handling = match text(value, name)?.as_str() {
                    "always" => RetainHandling::SendAtSubscribe,
                    "new" => RetainHandling::SendIfNew,
                    "never" => RetainHandling::DoNotSend,
                    other => {
                        let wrong = format!("Unknown value '{other}' for --retain-handling.");
                        return Err(Failure::usage(wrong));
                    }
                };
            }
            Id::Format => self.format = Some(Format::parse(value.as_bytes()).map_err(Failure::usage)?),
            Id::RandomFilter => {
                let percent = text(value, name)?.parse::<f64>().ok();
                let part = percent.map(|p| (p * 10.0) as i64).filter(|p| (1..=1000).contains(p));
                let wrong = || Failure::usage("--random-filter chance must be between 0.1-100.0");
                self.random_filter = Some(part.ok_or_else(wrong)? as u32);
            }
            Id::KeepAlive => {
                let wrong = "Invalid keepalive given, it must be between 5 and 65535 inclusive.";
                let seconds = number(&text(value, name)?, 5, wrong)?;
                self.keep_alive_s = seconds.try_into().map_err(|_| Failure::usage(wrong))?;
            }
            Id::MaxInflight => {
                let wrong = "Maximum inflight messages must be greater than 0.";
                let most = number(&text(value, name)?, 1, wrong)?;
                self.max_inflight = most.try_into().unwrap_or(u16::MAX);
            }
            Id::ProtocolVersion => {
                self.version = match text(value, name)?.as_str() {
                    "mqttv31" | "31" => Version::V3_1,
                    "mqttv311" | "311" => Version::V3_1_1,
                    "mqttv5" | "5" => Version::V5,
                    _ => return Err(Failure::usage("Invalid protocol version argument given.")),
                };
            }
            Id::SessionExpiry => {
                self.session_expiry_s = Some(session_expiry(&text(value, name)?)?);
                self.version = Version::V5;
            }
            Id::WillTopic => self.will_topic = Some(topic_name(text(value, name)?, "will")?),
            Id::WillPayload => self.will_payload = Some(value.into_vec()),
            Id::WillQos => {
                self.will_qos =
                    qos(&text(value, name)?, |qos| Failure::usage(format!("Invalid will QoS {qos}.")))?
            }
            _ => return self.set_identity(opt, value),
        }
        Ok(())
    }

    /// Who we are, and whom to trust.
    fn set_identity(&mut self, opt: &Opt, value: OsString) -> Result<(), Failure> {
        let name = opt.names[0];
        match opt.id {
            Id::Client => self.client_id = Some(text(value, name)?),
            Id::Prefix => self.id_prefix = Some(text(value, name)?),
            Id::Username => self.username = Some(text(value, name)?),
            Id::Password => self.password = Some(Secret(value.into_vec())),
            Id::CaFile => self.ca_file = Some(value.into()),
            Id::CaPath => self.ca_path = Some(value.into()),
            Id::Cert => self.cert = Some(value.into()),
            Id::Key => self.key = Some(value.into()),
            Id::TlsVersion => self.tls_version = Some(text(value, name)?),
            Id::TlsAlpn => self.alpn = Some(text(value, name)?),
            Id::TlsKeylog => self.key_log = Some(value.into()),
            Id::KeyForm => self.key_form = Some(text(value, name)?),
            Id::Ciphers => self.ciphers = true,
            Id::TlsEngine => self.engine = true,
            Id::TlsEngineKpass => self.kpass = true,
            Id::Psk => self.psk = true,
            Id::PskIdentity => self.psk_identity = true,
            // It has been read.
            Id::OptionsFile => {}
            _ => self.bench.set(opt, &text(value, name)?)?,
        }
        if self.client_id.is_some() && self.id_prefix.is_some() {
            return Err(Failure::usage("-i and -I argument cannot be used together."));
        }
        Ok(())
    }

    fn set_payload(&mut self, payload: Payload) -> Result<(), Failure> {
        if self.payload.replace(payload).is_some() {
            return Err(Failure::usage("Only one type of message can be sent at once."));
        }
        Ok(())
    }

    fn add_topic(&mut self, topic: String) -> Result<(), Failure> {
        if self.tool == Tool::Bench {
            topic_name(topic.replace("%i", "0"), "publish")?;
            self.topics = vec![topic];
        } else if self.tool == Tool::Sub {
            self.topics.push(topic_filter(topic, "subscription")?);
        } else {
            self.topics = vec![topic_name(topic, "publish")?];
        }
        Ok(())
    }

    fn set_url(&mut self, url: &str) -> Result<(), Failure> {
        let scheme = url.split("://").next().unwrap_or_default().to_ascii_lowercase();
        if !url.contains("://") || !["mqtt", "mqtts", "ws", "wss"].contains(&scheme.as_str()) {
            return Err(Failure::usage("Unsupported URL scheme."));
        }
        if !url[scheme.len() + 3..].contains('/') {
            return Err(Failure::usage("Invalid URL for -L argument specified - topic missing."));
        }
        let address: Address = url
            .parse()
            .map_err(|error| Failure::usage(format!("Invalid URL for -L argument specified - {error}.")))?;
        (self.host, self.port, self.unix) = (address.host, Some(address.port), false);
        self.websocket |= address.scheme.is_websocket();
        self.os_certs |= matches!(address.scheme, Scheme::Mqtts | Scheme::Wss);
        if address.username.is_some() {
            self.username = address.username;
        }
        if let Some(password) = address.password {
            self.password = Some(Secret(password.into_bytes()));
        }
        self.add_topic(address.topic.unwrap_or_default())
    }

    /// What only shows when all is known.
    fn check(&mut self) -> Result<(), Failure> {
        let given = [
            (self.will_payload.is_some(), "Will payload given, but no will topic given."),
            (self.will_retain, "Will retain given, but no will topic given."),
        ];
        for (given, wrong) in given {
            if given && self.will_topic.is_none() {
                return Err(Failure::usage(wrong));
            }
        }
        if self.scram && !self.version.is_v5() {
            return Err(Failure::usage("--scram needs MQTT 5.0."));
        }
        if self.scram && (self.username.is_none() || self.password.is_none()) {
            return Err(Failure::usage("--scram needs a user name (-u) and a password (-P)."));
        }
        self.check_tls()?;
        let no_id = self.client_id.is_none() && (self.tool != Tool::Bench || self.id_prefix.is_none());
        if self.version.is_v5() {
            let default = if self.clean { 0 } else { u32::MAX };
            let expiry_s = *self.session_expiry_s.get_or_insert(default);
            if expiry_s == u32::MAX && no_id {
                return Err(Failure::usage(
                    "You must provide a client id if you are using an infinite session expiry interval.",
                ));
            }
        } else if !self.clean && no_id {
            return Err(Failure::usage("You must provide a client id if you are using the -c option."));
        }
        self.check_tool()?;
        self.refuse_unsupported()
    }

    fn check_tls(&self) -> Result<(), Failure> {
        let ca = self.ca_file.is_some() || self.ca_path.is_some();
        let wrong = if self.cert.is_some() != self.key.is_some() {
            "Both certfile and keyfile must be provided if one of them is set."
        } else if self.key_form.is_some() && self.key.is_none() {
            "If keyform is set, keyfile must be also specified."
        } else if self.kpass && (self.key_form.is_none() || !self.engine) {
            "when using tls-engine-kpass-sha1, both tls-engine and keyform must also be provided."
        } else if ca && self.psk {
            "Only one of --psk or --cafile/--capath may be used at once."
        } else if self.psk && !self.psk_identity {
            "--psk-identity required if --psk used."
        } else {
            return Ok(());
        };
        Err(Failure::usage(wrong))
    }

    fn check_tool(&self) -> Result<(), Failure> {
        match self.tool {
            Tool::Pub => Ok(()),
            Tool::Sub if self.topics.is_empty() && self.unsubscribe.is_empty() => {
                Err(Failure::usage("You must specify a topic to subscribe to (-t) or unsubscribe from (-U)."))
            }
            Tool::Sub if self.no_retained && self.retained_only => {
                Err(Failure::usage("Combining '-R' and '--retained-only' makes no sense."))
            }
            Tool::Sub | Tool::Rr => Ok(()),
            Tool::Bench => self.bench.check(self.topics.first().map(String::as_str), self.count),
        }
    }

    fn refuse_unsupported(&self) -> Result<(), Failure> {
        let key_form = self.key_form.as_deref().is_some_and(|form| form != "pem");
        for (given, option, instead) in [
            (self.psk, "--psk", "Use certificates: --cafile, --cert and --key."),
            (self.engine, "--tls-engine", "Give the key as a PEM file with --key."),
            (key_form, "--keyform", "Keys are PEM files."),
            (self.ciphers, "--ciphers", "Leave it out: only ciphers that are known to be good are offered."),
            (self.srv, "-S", "Name the host and the port with -h and -p."),
        ] {
            if given {
                return Err(Failure::usage(format!("{option} is not supported. {instead}")));
            }
        }
        Ok(())
    }
}

fn find_options_file(args: &[OsString]) -> Result<Option<PathBuf>, Failure> {
    let mut found = None;
    for (at, arg) in args.iter().enumerate() {
        if arg == "-o" {
            let Some(path) = args.get(at + 1) else {
                return Err(Failure::usage("-o argument given but no options file specified."));
            };
            if found.replace(PathBuf::from(path)).is_some() {
                return Err(Failure::usage("Duplicate -o argument given."));
            }
        }
    }
    Ok(found)
}

/// An option and its value, which may have spaces; a property's parts have none but for the last one's.
fn words(line: &[u8]) -> VecDeque<OsString> {
    let mut parts = line.splitn(2, |byte| *byte == b' ').map(<[u8]>::to_vec);
    let Some(name) = parts.next() else { return VecDeque::new() };
    let rest = parts.next();
    let mut words = VecDeque::from([OsString::from_vec(name)]);
    let Some(rest) = rest else { return words };
    if words[0] == "-D" || words[0] == "--property" {
        let pair = rest.split(|byte| *byte == b' ').nth(1) == Some(b"user-property");
        let parts = rest.splitn(if pair { 4 } else { 3 }, |byte| *byte == b' ');
        words.extend(parts.map(|part| OsString::from_vec(part.to_vec())));
    } else {
        words.push_back(OsString::from_vec(rest));
    }
    words
}

fn text(value: OsString, option: &str) -> Result<String, Failure> {
    let malformed = |_| Failure::usage(format!("Malformed UTF-8 in {option} argument."));
    value.into_string().map_err(malformed)
}

fn topic_name(topic: String, what: &str) -> Result<String, Failure> {
    match TopicName::parse(&topic) {
        Ok(_) => Ok(topic),
        Err(_) => Err(Failure::usage(format!("Invalid {what} topic '{topic}', does it contain '+' or '#'?"))),
    }
}

fn topic_filter(filter: String, what: &str) -> Result<String, Failure> {
    match TopicFilter::parse(&filter) {
        Ok(_) => Ok(filter),
        Err(_) => Err(Failure::usage(format!(
            "Invalid {what} topic '{filter}', are all '+' and '#' wildcards correct?"
        ))),
    }
}

fn number(value: &str, least: u32, wrong: &str) -> Result<u32, Failure> {
    value.parse().ok().filter(|n| *n >= least).ok_or_else(|| Failure::usage(wrong))
}

fn qos(value: &str, wrong: impl Fn(&str) -> Failure) -> Result<QoS, Failure> {
    value.parse().ok().and_then(QoS::from_u8).ok_or_else(|| wrong(value))
}

fn session_expiry(value: &str) -> Result<u32, Failure> {
    if value == "∞" {
        return Ok(u32::MAX);
    }
    let hex = value.strip_prefix("0x").and_then(|hex| i128::from_str_radix(hex, 16).ok());
    match hex.or_else(|| value.parse::<i128>().ok()) {
        None => Err(Failure::usage("session-expiry-interval not a number.")),
        Some(-1) => Ok(u32::MAX),
        Some(n) => n.try_into().map_err(|_| Failure::usage("session-expiry-interval out of range.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tool: Tool, line: &str) -> Result<Config, String> {
        let mut config = Config::new(tool);
        let mut args = line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect();
        let result = config.take(&mut args).and_then(|()| config.check());
        match result {
            Ok(()) => Ok(config),
            Err(Failure::Usage(text)) => Err(text),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_config_that_is_printed_holds_no_password() {
        for line in ["-L mqtts://me:secret@host/a -m x", "-h host -t a -m x -u me -P secret"] {
            let config = read(Tool::Pub, line).unwrap();
            assert_eq!(config.password.as_ref().unwrap().0, b"secret");
            let printed = format!("{config:?} {config:#?}");
            let bytes = format!("{:?}", b"secret");
            assert!(printed.contains("\"me\"") && printed.contains("***"), "{printed}");
            assert!(!printed.contains("secret") && !printed.contains(&bytes), "{printed}");
        }
    }

    #[test]
    fn options_are_read() {
        let config =
            read(Tool::Pub, "-L mqtts://me:pw@host/a/b -q 1 -m x -D publish user-property a b").unwrap();
        assert_eq!((config.host.as_str(), config.port, config.os_certs), ("host", Some(8883), true));
        assert_eq!((config.topics.as_slice(), config.qos), (&[String::from("a/b")][..], QoS::AtLeastOnce));
        assert_eq!(config.version, Version::V5);
        let config = read(Tool::Sub, "-t a -t b/# -c -i me -x ∞ -T b/c --retain-handling new").unwrap();
        assert_eq!((config.topics.len(), config.session_expiry_s), (2, Some(u32::MAX)));
        assert_eq!(read(Tool::Rr, "").unwrap().version, Version::V5);
        let config = read(Tool::Pub, "-t a -m x -u me -P pw --scram").unwrap();
        assert_eq!((config.scram, config.version), (true, Version::V5));
    }

    #[test]
    fn mistakes_are_told() {
        for (tool, line, wanted) in [
            (Tool::Pub, "--hots x", "Error: Unknown option '--hots'.\nDid you mean '--host'?"),
            (Tool::Bench, "", "Error: Say what to do: conn, pub, sub, p2p, fan-in or fan-out."),
            (Tool::Bench, "p2p pub", "Error: One of p2p and pub at a time."),
            (Tool::Bench, "fan", "Error: 'fan' is none of conn, pub, sub, p2p, fan-in or fan-out."),
            (Tool::Bench, "pub -n 0", "Error: --connections has to be a number from 1 to 10000000, not '0'."),
            (Tool::Bench, "p2p -c", "Error: You must provide a client id if you are using the -c option."),
            (
                Tool::Bench,
                "conn --rate 5",
                "Error: conn sends no messages, so there is no --rate; --connect-rate is how fast connections are opened.",
            ),
            (Tool::Pub, "--scram -u me", "Error: --scram needs a user name (-u) and a password (-P)."),
            (Tool::Pub, "--scram -u a -P b -V 311", "Error: --scram needs MQTT 5.0."),
            (Tool::Pub, "-C 1", "Error: Unknown option '-C'."),
            (Tool::Sub, "-h", "Error: -h argument given but no host specified."),
            (
                Tool::Sub,
                "--protocol-version",
                "Error: --protocol-version argument given but no version specified.",
            ),
            (Tool::Sub, "", "Error: You must specify a topic to subscribe to (-t) or unsubscribe from (-U)."),
            (Tool::Sub, "-t x -c", "Error: You must provide a client id if you are using the -c option."),
            (Tool::Pub, "-m x -n", "Error: Only one type of message can be sent at once."),
            (Tool::Pub, "-p x", "Error: Invalid port given: x"),
            (Tool::Pub, "-D publish", "Error: --property argument given but not enough arguments specified."),
            (
                Tool::Pub,
                "--ciphers x",
                "Error: --ciphers is not supported. Leave it out: only ciphers that are known to be good are offered.",
            ),
        ] {
            assert_eq!(read(tool, line).map(drop).unwrap_err(), wanted, "{line}");
        }
    }

    #[test]
    fn lines_of_an_options_file_keep_the_spaces_of_a_value() {
        let words = |line: &str| {
            words(line.as_bytes()).iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(words("-m some words"), ["-m", "some words"]);
        assert_eq!(words("-r"), ["-r"]);
        assert_eq!(words("-D publish user-property a b c"), ["-D", "publish", "user-property", "a", "b c"]);
        assert_eq!(words("-D publish content-type a b"), ["-D", "publish", "content-type", "a b"]);
    }
}
