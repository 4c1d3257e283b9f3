//! Where log lines go: what `log_dest`, `log_type` and their like say.

use crate::outlet::Outlet;
use hikyaku::config::{LogDestination, LogSettings};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// The process's logger. A reload changes what is in it.
pub struct Logger {
    /// `RUST_LOG`, which goes before `log_type` where it is set.
    filter: Option<env_logger::Logger>,
    state: RwLock<State>,
}

struct State {
    settings: LogSettings,
    sinks: Vec<Sink>,
}

enum Sink {
    Stderr,
    Stdout,
    File(File),
    /// A terminal, or the like.
    Device(File),
    /// A pipe or socket, which others read, or not.
    Piped(Piped, Outlet),
    Syslog {
        socket: UnixDatagram,
        facility: u8,
    },
}

enum Piped {
    Stderr,
    Stdout,
    Fifo(File),
}

/// Why a destination cannot be used.
pub type Unusable = String;

impl Logger {
    /// Opens the destinations and becomes the logger of the process.
    pub fn start(settings: &LogSettings) -> Result<&'static Logger, Unusable> {
        let filter = std::env::var_os("RUST_LOG").map(|_| env_logger::Builder::from_default_env().build());
        let logger: &'static Logger = Box::leak(Box::new(Logger {
            filter,
            state: RwLock::new(State { settings: settings.clone(), sinks: open(settings)? }),
        }));
        logger.set_level(settings);
        // Fails only if there is one already: this is called once.
        let _ = log::set_logger(logger);
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
        Ok(logger)
    }

    /// Changes to new settings, opening files again. If that fails, all stays as it is.
    pub fn change(&self, settings: &LogSettings) -> Result<(), Unusable> {
        let sinks = open(settings)?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) =
            State { settings: settings.clone(), sinks };
        self.set_level(settings);
        Ok(())
    }

    fn set_level(&self, settings: &LogSettings) {
        let types = settings.types;
        let by_type = match () {
            () if types.debug => LevelFilter::Debug,
            () if types.notice || types.information => LevelFilter::Info,
            () if types.warning => LevelFilter::Warn,
            () if types.error => LevelFilter::Error,
            () => LevelFilter::Off,
        };
        log::set_max_level(self.filter.as_ref().map_or(by_type, |f| f.filter()));
    }

    /// Whether errors are shown where the broker was started.
    pub fn shows_errors(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let is_shown = |sink: &Sink| {
            matches!(sink, Sink::Stderr | Sink::Stdout | Sink::Piped(Piped::Stderr | Piped::Stdout, _))
        };
        log::log_enabled!(Level::Error) && state.settings.types.error && state.sinks.iter().any(is_shown)
    }

    /// Gives the log files to a user, so that they can be written when opened again.
    pub fn give_files_to(&self, uid: u32, gid: u32) {
        for sink in &self.state.read().unwrap_or_else(PoisonError::into_inner).sinks {
            if let Sink::File(file) = sink {
                let _ = std::os::unix::fs::fchown(file, Some(uid), Some(gid));
            }
        }
    }
}

fn open(settings: &LogSettings) -> Result<Vec<Sink>, Unusable> {
    let mut sinks = Vec::new();
    for destination in &settings.destinations {
        sinks.push(match destination {
            LogDestination::Stderr if is_piped(io::stderr()) => Sink::Piped(Piped::Stderr, Outlet::default()),
            LogDestination::Stdout if is_piped(io::stdout()) => Sink::Piped(Piped::Stdout, Outlet::default()),
            LogDestination::Stderr => Sink::Stderr,
            LogDestination::Stdout => Sink::Stdout,
            LogDestination::File(path) => open_file(path).map_err(|e| {
                let why = hikyaku::unwritable(path, &e);
                format!("Unable to open log file {} for writing. {why}.", path.display())
            })?,
            LogDestination::Syslog { facility } => Sink::Syslog { socket: syslog()?, facility: *facility },
            // Said by the configuration.
            _ => continue,
        });
    }
    Ok(sinks)
}

fn is_piped(stream: impl AsFd) -> bool {
    let kind = fstat(stream).map(|found| FileType::from_raw_mode(found.st_mode));
    matches!(kind, Ok(FileType::Fifo | FileType::Socket))
}

/// Opens what is named as a file: one, or a terminal, or a pipe that is read, such as /dev/stderr may be.
fn open_file(path: &Path) -> io::Result<Sink> {
    let mut options = File::options();
    // Opening a pipe would otherwise wait for who reads it.
    options.append(true).create(true).custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
    let file = options.open(path).map_err(|e| match rustix::io::Errno::from_io_error(&e) {
        Some(rustix::io::Errno::NXIO) => io::Error::other("It is a pipe that nobody reads, or a socket"),
        _ => e,
    })?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(Sink::File(file)),
        FileType::CharacterDevice => {
            fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
            Ok(Sink::Device(file))
        }
        FileType::Fifo => Ok(Sink::Piped(Piped::Fifo(file), Outlet::default())),
        _ => Err(io::Error::other("It is neither a file nor a terminal nor a pipe")),
    }
}

fn syslog() -> Result<UnixDatagram, Unusable> {
    let connected = || {
        let socket = UnixDatagram::unbound()?;
        socket.connect(Path::new("/dev/log"))?;
        // A log that is slow does not make the broker slow.
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    connected().map_err(|e: io::Error| format!("The system's log (/dev/log) cannot be reached. {e}."))
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if !state.takes(record) || self.filter.as_ref().is_some_and(|f| !f.matches(record)) {
            return;
        }
        let kind = match record.level() {
            Level::Error => "Error: ",
            Level::Warn => "Warning: ",
            _ => "",
        };
        let time = state.time();
        let message = shorten(visible(&record.args().to_string()).into_owned());
        // A message of several lines, of a panic or of advice, is several lines of the log, none without its time.
        let texts: Vec<String> = message.lines().map(|line| format!("{kind}{line}")).collect();
        let lines: String = texts.iter().map(|text| format!("{time}{text}\n")).collect();
        for sink in &state.sinks {
            sink.write(record.level(), &lines, &texts, &time);
        }
    }

    fn flush(&self) {}
}

/// The text without control characters other than ends of lines: they may be of a configuration, and a terminal obeys.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| c.is_control() && c != '\n';
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut shown = String::new();
    for c in text.chars() {
        if is_hidden(c) { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    shown.into()
}

/// What is longer is cut: a client identifier may have 64 KiB, and whoever reads the log may be slow.
const LINE_BYTES_MAX: usize = 2000;

fn shorten(mut text: String) -> String {
    if text.len() > LINE_BYTES_MAX {
        let fits = (0..=LINE_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(fits.unwrap_or(0));
        text.push('…');
    }
    text
}

impl State {
    fn takes(&self, record: &Record<'_>) -> bool {
        let types = self.settings.types;
        let of_connections = record.target().starts_with("hikyaku_proto::broker::conn");
        if of_connections && !self.settings.connection_messages && record.level() == Level::Info {
            return false;
        }
        match record.level() {
            Level::Error => types.error,
            Level::Warn => types.warning,
            Level::Info => types.notice || types.information,
            // As far as `RUST_LOG` asks for them.
            Level::Debug | Level::Trace => true,
        }
    }

    fn time(&self) -> String {
        if !self.settings.timestamp {
            return String::new();
        }
        match &self.settings.timestamp_format {
            Some(format) => {
                let time = jiff::fmt::strtime::format(format, &jiff::ZonedDateTime::now());
                time.map_or(String::new(), |time| time + ": ")
            }
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
                format!("{now}: ")
            }
        }
    }
}

impl Sink {
    /// Writes the lines of a message, `texts` with the time and ends of lines. Nobody is left to be told if that
    /// fails.
    fn write(&self, level: Level, lines: &str, texts: &[String], time: &str) {
        let _ = match self {
            Sink::Piped(to, outlet) => {
                match to {
                    Piped::Stderr => outlet.write(io::stderr(), lines, time),
                    Piped::Stdout => outlet.write(io::stdout(), lines, time),
                    Piped::Fifo(file) => outlet.write(file, lines, time),
                }
                Ok(())
            }
            Sink::Stderr => io::stderr().write_all(lines.as_bytes()),
            Sink::Stdout => io::stdout().write_all(lines.as_bytes()),
            Sink::File(file) | Sink::Device(file) => { file }.write_all(lines.as_bytes()),
            Sink::Syslog { socket, facility } => {
                let severity = match level {
                    Level::Error => 3,
                    Level::Warn => 4,
                    Level::Info => 6,
                    Level::Debug | Level::Trace => 7,
                };
                let time = jiff::fmt::strtime::format("%b %e %H:%M:%S", &jiff::ZonedDateTime::now());
                let time = time.unwrap_or_default();
                let priority = u16::from(*facility) * 8 + severity;
                let head = format!("<{priority}>{time} hikyaku[{}]: ", std::process::id());
                texts.iter().try_for_each(|text| socket.send(format!("{head}{text}").as_bytes()).map(|_| ()))
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(visible("a\n  ü"), "a\n  ü");
        assert_eq!(visible("a\u{1b}[2J\tb\r\n\0\u{85}"), "a\\u{1b}[2J\\tb\\r\n\\0\\u{85}");
    }

    #[test]
    fn long_lines_are_cut() {
        assert_eq!(shorten("short".into()), "short");
        let fits = "x".repeat(LINE_BYTES_MAX);
        assert_eq!(shorten(fits.clone()), fits);
        assert_eq!(shorten(fits + "y"), "x".repeat(LINE_BYTES_MAX) + "…");
        assert_eq!(shorten("ü".repeat(65_000) + "y").chars().count(), LINE_BYTES_MAX / 2 + 1);
    }
}
