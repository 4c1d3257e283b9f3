//! Where log lines go: what `log_dest`, `log_type` and their like say.

use hikyaku::config::{LogDestination, LogSettings};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fs::File;
use std::io::{self, Write};
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
    Syslog { socket: UnixDatagram, facility: u8 },
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
        let is_shown = |sink: &Sink| matches!(sink, Sink::Stderr | Sink::Stdout);
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
            LogDestination::Stderr => Sink::Stderr,
            LogDestination::Stdout => Sink::Stdout,
            LogDestination::File(path) => {
                Sink::File(File::options().append(true).create(true).open(path).map_err(|e| {
                    let why = hikyaku::unwritable(path, &e);
                    format!("Unable to open log file {} for writing. {why}.", path.display())
                })?)
            }
            LogDestination::Syslog { facility } => Sink::Syslog { socket: syslog()?, facility: *facility },
            // Said by the configuration.
            _ => continue,
        });
    }
    Ok(sinks)
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
        let message = shorten(record.args().to_string());
        // A message of several lines, of a panic or of advice, is several lines of the log, none without its time.
        let texts: Vec<String> = message.lines().map(|line| format!("{kind}{line}")).collect();
        let lines: String = texts.iter().map(|text| format!("{time}{text}\n")).collect();
        for sink in &state.sinks {
            sink.write(record.level(), &lines, &texts);
        }
    }

    fn flush(&self) {}
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
    fn write(&self, level: Level, lines: &str, texts: &[String]) {
        let _ = match self {
            Sink::Stderr => io::stderr().write_all(lines.as_bytes()),
            Sink::Stdout => io::stdout().write_all(lines.as_bytes()),
            Sink::File(file) => { file }.write_all(lines.as_bytes()),
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
    fn long_lines_are_cut() {
        assert_eq!(shorten("short".into()), "short");
        let fits = "x".repeat(LINE_BYTES_MAX);
        assert_eq!(shorten(fits.clone()), fits);
        assert_eq!(shorten(fits + "y"), "x".repeat(LINE_BYTES_MAX) + "…");
        assert_eq!(shorten("ü".repeat(65_000) + "y").chars().count(), LINE_BYTES_MAX / 2 + 1);
    }
}
