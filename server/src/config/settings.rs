//! What an operator has decided: a configuration that was read and checked whole.

use hikyaku_proto::broker::Config;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// Everything a broker is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; the index of a listener is also its index in [`Config::listeners`].
    pub listeners: Vec<ListenerSettings>,
    /// What the core needs to know, its limits filled in.
    pub core: Config,
    /// Whether each listener has security settings of its own.
    pub per_listener_settings: bool,
    /// The security settings of all listeners that have none of their own.
    pub security: SecuritySettings,
    /// What is logged, and where to.
    pub log: LogSettings,
    /// Whom to become after the start, if started as root.
    pub user: Option<String>,
    /// Where that is configured.
    pub user_at: Option<Place>,
    /// How often files of certificates, passwords and rights are looked at for changes, in seconds; 0 is never.
    pub reload_interval_s: u16,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// What is kept on disk.
    pub persistence: PersistenceSettings,
    /// How many clients may be connected at once, to all listeners together.
    pub max_connections: Option<u32>,
    /// What else is limited for all clients together.
    pub limits: Limits,
    /// How many threads work; `None` is one for two cores.
    pub workers: Option<u16>,
}

/// What is limited for all clients together, and is the business of the server rather than of its core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes of memory may be held for clients; `None` is three quarters of what the process may have, and
    /// `u64::MAX` is any.
    pub memory: Option<u64>,
    /// How many connections there may be from one address.
    pub connections_per_address: Option<u32>,
    /// How many may come from it within a second.
    pub connection_rate: Option<u32>,
    /// How many connections each worker has whose CONNECT is not there yet; `None` for a quarter of the descriptors there
    /// may be, 16 to 16384.
    pub pending_connections: Option<u32>,
}

/// One door.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Where it is configured; `None` for one that stands without a configuration.
    pub at: Option<Place>,
    /// What is spoken here; `None` is MQTT and WebSocket, told apart by the first bytes.
    pub protocol: Option<Protocol>,
    /// The certificate and what belongs to it, if there is one.
    pub tls: Option<TlsSettings>,
    /// Whether a listener with a certificate also takes connections without TLS.
    pub allow_plaintext: bool,
    /// The origins a WebSocket upgrade may name; empty allows all.
    pub websockets_origins: Vec<String>,
    /// The longest head of an HTTP request, in bytes.
    pub websockets_headers_size: usize,
    /// Whether this is the listener that stands without a configuration: WebSocket upgrades from pages
    /// that are not this machine's are refused.
    pub local_only_default: bool,
    /// How many clients may be connected here at once.
    pub max_connections: Option<u32>,
    /// The network device to bind to.
    pub bind_interface: Option<String>,
    /// Whether TCP_NODELAY is set on connections.
    pub tcp_nodelay: bool,
    /// Who may come in and do what.
    pub security: SecuritySettings,
    /// What is put before all topics of clients here.
    pub mount_point: Option<String>,
    /// Whether the user name replaces the client id.
    pub use_username_as_clientid: bool,
    /// Whether it is configured no more, though its socket is open: nobody is let in.
    pub closed: bool,
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Tcp {
        /// The addresses to bind; those beyond the first get by with a warning if the machine lacks them.
        addresses: Vec<SocketAddr>,
    },
    /// A unix domain socket.
    Unix(PathBuf),
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT as it is.
    Mqtt,
    /// MQTT over WebSocket.
    Websockets,
}

/// A listener's certificate and what belongs to it. Paths are as configured: not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate with its chain, PEM.
    pub certfile: PathBuf,
    /// Its private key, PEM.
    pub keyfile: PathBuf,
    /// Whose client certificates are taken, PEM.
    pub cafile: Option<PathBuf>,
    /// A directory of files like `cafile`.
    pub capath: Option<PathBuf>,
    /// Revoked client certificates, PEM.
    pub crlfile: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub require_certificate: bool,
    /// Whether clients' certificates are taken that are not valid yet or no more.
    pub disable_client_cert_date_checks: bool,
    /// Whether the certificate's common name is the user name.
    pub use_identity_as_username: bool,
    /// Whether the certificate's whole subject is the user name.
    pub use_subject_as_username: bool,
    /// The oldest version spoken; `None` is 1.2.
    pub tls_version: Option<TlsVersion>,
    /// The ciphers of TLS 1.2 to offer; empty is all.
    pub ciphers: Vec<rustls::CipherSuite>,
    /// The ciphers of TLS 1.3 to offer; empty is all.
    pub ciphers_tls13: Vec<rustls::CipherSuite>,
    /// Where the certificate is configured.
    pub at: Place,
}

impl TlsSettings {
    /// A certificate and its key, with nothing else asked for. What is wrong with them is said to be at the beginning of
    /// `certfile`.
    pub fn new(certfile: impl Into<PathBuf>, keyfile: impl Into<PathBuf>) -> TlsSettings {
        let certfile = certfile.into();
        let at = Place { file: certfile.as_path().into(), line: 1, column: 1 };
        TlsSettings {
            certfile,
            keyfile: keyfile.into(),
            cafile: None,
            capath: None,
            crlfile: None,
            require_certificate: false,
            disable_client_cert_date_checks: false,
            use_identity_as_username: false,
            use_subject_as_username: false,
            tls_version: None,
            ciphers: Vec::new(),
            ciphers_tls13: Vec::new(),
            at,
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2
    V1_2,
    /// 1.3
    V1_3,
}

/// Who may come in and do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecuritySettings {
    /// Whether clients without a user name are let in; `None`: only on the listener that stands without
    /// a configuration.
    pub allow_anonymous: Option<bool>,
    /// The users and their hashed passwords.
    pub password_file: Option<PathBuf>,
    /// The rights.
    pub acl_file: Option<PathBuf>,
    /// What each client id has to begin with.
    pub clientid_prefixes: Option<String>,
    /// What an assigned client id begins with.
    pub auto_id_prefix: Option<String>,
}

impl SecuritySettings {
    /// The files of passwords and rights.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        [&self.password_file, &self.acl_file].into_iter().flatten().cloned()
    }
}

/// What is logged, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Where to; empty is nowhere.
    pub destinations: Vec<LogDestination>,
    /// What is logged.
    pub types: LogTypes,
    /// Whether a line begins with the time.
    pub timestamp: bool,
    /// How the time is written, in `strftime`'s language; `None` is seconds since 1970.
    pub timestamp_format: Option<String>,
    /// Whether clients that come and go are logged.
    pub connection_messages: bool,
}

/// Where a log line goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDestination {
    /// The standard error output.
    Stderr,
    /// The standard output.
    Stdout,
    /// A file, which is opened again at each reload.
    File(PathBuf),
    /// The system's log, with this facility (3 is daemon).
    Syslog {
        /// The facility's number.
        facility: u8,
    },
    /// Topics below `$SYS/broker/log`.
    Topic,
}

/// Which kinds of lines are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTypes {
    /// What an operator has to act on.
    pub error: bool,
    /// What an operator should look at.
    pub warning: bool,
    /// What the service does.
    pub notice: bool,
    /// More of that.
    pub information: bool,
    /// What each client does.
    pub debug: bool,
}

/// What is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistenceSettings {
    /// Whether anything is.
    pub enabled: bool,
    /// Where the directory `hikyaku.store` is, or is made; `None` is the working directory.
    pub location: Option<PathBuf>,
    /// When something counts as kept.
    pub durability: Durability,
    /// Whether retained messages are kept.
    pub retained: bool,
    /// The name that mosquitto's database would have in `location`.
    pub mosquitto_file: PathBuf,
}

/// When something counts as kept, so that it may be acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk: nothing is lost when the power fails.
    #[default]
    Disk,
    /// When the operating system has it: nothing is lost when the broker is killed.
    Os,
    /// At once; it is written soon after.
    Memory,
}

/// A place in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<std::path::Path>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

/// Something wrong, or remarkable, in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it is at one place.
    pub at: Option<Place>,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, and what to do. May have several lines.
    pub message: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing can be started with it.
    Error,
    /// Legal, and perhaps not meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Default for ListenerSettings {
    /// A listener without an address, with all options at their defaults.
    fn default() -> Self {
        ListenerSettings {
            endpoint: Endpoint::Tcp { addresses: Vec::new() },
            at: None,
            protocol: None,
            tls: None,
            allow_plaintext: false,
            websockets_origins: Vec::new(),
            websockets_headers_size: 8192,
            local_only_default: false,
            max_connections: None,
            bind_interface: None,
            tcp_nodelay: true,
            security: SecuritySettings::default(),
            mount_point: None,
            use_username_as_clientid: false,
            closed: false,
        }
    }
}

impl ListenerSettings {
    /// Whether clients without a user name are let in here.
    pub fn allows_anonymous(&self) -> bool {
        self.security.allow_anonymous.unwrap_or(self.local_only_default)
    }

    /// What log lines call it: its port, or its address if it does not listen on all, or its path.
    pub fn name(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp { addresses } => match addresses.first() {
                Some(first) if first.ip().is_unspecified() => format!("port {}", first.port()),
                Some(first) => first.to_string(),
                None => String::new(),
            },
            Endpoint::Unix(path) => path.display().to_string(),
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match &self.endpoint {
            Endpoint::Tcp { addresses } => addresses.iter().all(|a| is_loopback(a.ip())),
            Endpoint::Unix(_) => true,
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl Default for PersistenceSettings {
    fn default() -> Self {
        PersistenceSettings {
            enabled: false,
            location: None,
            durability: Durability::Disk,
            retained: true,
            mosquitto_file: "mosquitto.db".into(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            destinations: vec![LogDestination::Stderr],
            types: LogTypes::default(),
            timestamp: true,
            timestamp_format: None,
            connection_messages: true,
        }
    }
}

impl Default for LogTypes {
    fn default() -> Self {
        LogTypes { error: true, warning: true, notice: true, information: true, debug: false }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { addresses } => {
                for (i, address) in addresses.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{address}")?;
                }
                Ok(())
            }
            Endpoint::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        let severity = match self.severity {
            Severity::Error => "Error",
            Severity::Warning => "Warning",
            Severity::Note => "Note",
        };
        write!(f, "{severity}: {}", self.message)
    }
}
