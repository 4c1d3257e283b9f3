//! A configuration while it is read: what the options have said so far.

use super::lines::is_malformed;
use super::settings::{
    Limits, ListenerSettings, LogSettings, PersistenceSettings, Place, Problem, Protocol, SecuritySettings,
    Severity, TlsVersion,
};
use super::tally::Tally;
use hikyaku_proto::broker::{Config, Listener};
use rustls::CipherSuite;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// The port of MQTT.
pub(super) const PORT: u16 = 1883;

#[derive(Debug)]
pub(super) struct Draft {
    pub(super) core: Config,
    pub(super) doors: Vec<Door>,
    /// The door that listener options are about.
    current: Option<usize>,
    /// The door that stands though no `listener` made it.
    pub(super) default: Option<usize>,
    /// Whether `port` or `bind_address` opened the default door to others.
    pub(super) default_is_open: bool,
    pub(super) per_listener: bool,
    /// Whether a security option has been read.
    pub(super) has_security: bool,
    pub(super) security: Security,
    pub(super) log: LogSettings,
    pub(super) has_log_dest: bool,
    pub(super) has_log_type: bool,
    pub(super) log_facility: u8,
    pub(super) user: Option<String>,
    pub(super) reload_interval_s: u16,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) persistence: PersistenceSettings,
    pub(super) max_connections: Option<u32>,
    pub(super) limits: Limits,
    pub(super) workers: Option<u16>,
    pub(super) tcp_nodelay: bool,
    pub(super) websockets_headers_size: usize,
    pub(super) output_hard_bytes: Option<usize>,
    pub(super) max_queued_bytes: Option<u64>,
    pub(super) bridges: Vec<Bridge>,
    pub(super) has_plugin: bool,
    /// Directories to be read in place of the line.
    pub(super) include: Option<String>,
    pub(super) problems: Vec<Problem>,
    /// Of the file that is being read; later of all of them together.
    pub(super) tally: Tally,
    /// Where the option is that is being read.
    pub(super) at: Place,
    /// Where each option was last given, by door (0 is none).
    seen: HashMap<(usize, &'static str), Place>,
}

/// A listener while it is read.
#[derive(Debug, Default)]
pub(super) struct Door {
    pub(super) at: Option<Place>,
    /// What the comment at its line calls it.
    pub(super) comment: String,
    pub(super) port: u16,
    pub(super) host: Option<String>,
    pub(super) unix: Option<PathBuf>,
    pub(super) domain: Option<Domain>,
    pub(super) certfile: Option<(PathBuf, Place)>,
    pub(super) keyfile: Option<(PathBuf, Place)>,
    pub(super) cafile: Option<(PathBuf, Place)>,
    pub(super) capath: Option<(PathBuf, Place)>,
    pub(super) crlfile: Option<(PathBuf, Place)>,
    pub(super) require_certificate: Option<Place>,
    pub(super) disable_client_cert_date_checks: bool,
    pub(super) use_identity_as_username: Option<Place>,
    pub(super) use_subject_as_username: Option<Place>,
    pub(super) tls_version: Option<TlsVersion>,
    /// Those to offer; all if there are none.
    pub(super) ciphers: Vec<CipherSuite>,
    pub(super) ciphers_tls13: Vec<CipherSuite>,
    pub(super) security: Security,
    pub(super) protocol_at: Option<Place>,
    pub(super) settings: ListenerSettings,
    pub(super) core: Listener,
}

/// Which addresses a listener without one takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    Ipv4,
    Ipv6,
}

/// Security options, of all listeners or of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Security {
    pub(super) settings: SecuritySettings,
    pub(super) allow_zero_length_clientid: Option<bool>,
}

/// What is known of a bridge: enough to say what is missing.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) at: Place,
    pub(super) addresses: usize,
    pub(super) topics: usize,
    pub(super) has_identity: bool,
    pub(super) has_psk: bool,
}

impl Draft {
    pub(super) fn new(at: Place) -> Self {
        Draft {
            core: Config::default(),
            doors: Vec::new(),
            current: None,
            default: None,
            default_is_open: false,
            per_listener: false,
            has_security: false,
            security: Security::default(),
            log: LogSettings::default(),
            has_log_dest: false,
            has_log_type: false,
            log_facility: 3,
            user: None,
            reload_interval_s: 5,
            pid_file: None,
            persistence: PersistenceSettings::default(),
            max_connections: None,
            limits: Limits::default(),
            workers: None,
            tcp_nodelay: true,
            websockets_headers_size: 8192,
            output_hard_bytes: None,
            max_queued_bytes: None,
            bridges: Vec::new(),
            has_plugin: false,
            include: None,
            problems: Vec::new(),
            tally: Tally::default(),
            at,
            seen: HashMap::new(),
        }
    }

    /// Says something about the place that is being read.
    pub(super) fn say(&mut self, severity: Severity, message: impl Into<String>) {
        self.say_at(Some(self.at.clone()), severity, message);
    }

    pub(super) fn say_at(&mut self, at: Option<Place>, severity: Severity, message: impl Into<String>) {
        let problem = Problem { at, severity, message: message.into() };
        self.tally.tell(problem, &mut self.problems);
    }

    /// All problems there are, when nothing more is said.
    pub(super) fn finish(&mut self) -> Vec<Problem> {
        self.problems.extend(self.tally.rest(&self.at.file));
        std::mem::take(&mut self.problems)
    }

    /// Looks at a value that is the rest of its line.
    pub(super) fn check_text(&mut self, at: Place, name: &str, text: &str) -> Result<(), String> {
        if is_malformed(text) {
            return Err("Malformed UTF-8 in configuration.".to_owned());
        }
        if text.contains(" #") || text.contains("\t#") {
            let message = format!(
                "The value of '{name}' is '{text}', '#' included: it may hold one. A comment needs a line of its own."
            );
            self.say_at(Some(at), Severity::Warning, message);
        }
        Ok(())
    }

    /// A new door, which listener options are about from here on.
    pub(super) fn add_door(&mut self, at: Place) -> &mut Door {
        let i = self.doors.len();
        self.current = Some(i);
        self.doors.push(Door { at: Some(at), ..Door::default() });
        &mut self.doors[i]
    }

    pub(super) fn has_door(&self) -> bool {
        self.current.is_some()
    }

    pub(super) fn is_at_default_door(&self) -> bool {
        self.current == self.default
    }

    /// The door that listener options are about; the default one if no `listener` was read.
    pub(super) fn door(&mut self) -> &mut Door {
        let i = match self.current {
            Some(i) => i,
            None => self.make_default_door(),
        };
        &mut self.doors[i]
    }

    /// The door of `port` and `bind_address`, open to others from now on.
    pub(super) fn open_default_door(&mut self) -> &mut Door {
        self.default_is_open = true;
        let i = self.make_default_door();
        &mut self.doors[i]
    }

    fn make_default_door(&mut self) -> usize {
        if self.default.is_none() {
            self.default = Some(self.doors.len());
            self.doors.push(Door { at: Some(self.at.clone()), port: PORT, ..Door::default() });
        }
        self.current = self.default;
        self.current.unwrap_or(0)
    }

    /// Where security options are kept: with the door under `per_listener_settings`.
    pub(super) fn security(&mut self) -> &mut Security {
        self.has_security = true;
        if self.per_listener { &mut self.door().security } else { &mut self.security }
    }

    /// Notes that an option was given here; returns where it was given before for the same listener.
    pub(super) fn see(&mut self, name: &'static str, of_door: bool) -> Option<Place> {
        let door = if of_door { self.current.map_or(0, |i| i + 1) } else { 0 };
        self.seen.insert((door, name), self.at.clone())
    }
}

impl Draft {
    /// Where an option was last given, for all listeners (0) or one (its index + 1).
    pub(super) fn seen_at(&self, name: &'static str, door: usize) -> Option<Place> {
        self.seen.get(&(door, name)).cloned()
    }
}

impl Door {
    /// Whether others than this machine can reach it.
    pub(super) fn is_open_to_others(&self) -> bool {
        let host = self.host.as_deref().unwrap_or("");
        let is_loopback = |h: &str| h.parse::<IpAddr>().is_ok_and(|a| a.is_loopback());
        self.unix.is_none() && host != "localhost" && !is_loopback(host.trim_matches(['[', ']']))
    }

    /// Whether something about it says that TLS is meant.
    pub(super) fn sounds_like_tls(&self) -> bool {
        let comment = self.comment.to_lowercase();
        let words: Vec<_> = comment.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        matches!(self.port, 8883 | 8884)
            || words.iter().any(|w| matches!(*w, "tls" | "ssl" | "mqtts" | "wss" | "https"))
    }

    pub(super) fn is_websockets(&self) -> bool {
        self.settings.protocol == Some(Protocol::Websockets)
    }
}
