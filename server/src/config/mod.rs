//! The configuration, in the syntax of mosquitto.conf.
//!
//! One table ([`options`]) knows all options: where each may stand, what it takes, what becomes of it. A file
//! is read whole into a draft, its problems are collected, and only what has no error becomes [`Settings`].
//! `docs/mosquitto-compat.md` and `docs/configuration.md` are written from the table.

mod advice;
mod build;
#[doc(hidden)]
pub mod check;
mod ciphers;
mod describe;
#[cfg(test)]
mod docs;
mod draft;
mod lines;
mod options;
mod parse;
mod reload;
mod settings;
mod suggest;
mod tally;
#[cfg(test)]
mod tests;

pub use settings::{
    Durability, Endpoint, Limits, ListenerSettings, LogDestination, LogSettings, LogTypes,
    PersistenceSettings, Place, Problem, Protocol, SecuritySettings, Settings, Severity, TlsSettings,
    TlsVersion,
};

pub(crate) use tally::Tally;

use draft::Draft;
use std::path::Path;

/// Reads a configuration file and all that it includes. `ports` are those of the command line: they name the
/// ports of the default listener, or are opened for this machine beside the listeners of the file.
///
/// What it returns beside the settings are warnings and notes.
///
/// # Errors
/// All problems, in the order they were found, at least one of which is an error.
pub fn read(file: &Path, ports: &[u16]) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let mut draft = Draft::new(Place { file: file.into(), line: 0, column: 0 });
    parse::read_file(&mut draft, file);
    finish(draft, ports)
}

impl Settings {
    /// What a broker without a configuration does: it lets everyone on this machine in, on `ports` or 1883.
    pub fn without_file(ports: &[u16]) -> Settings {
        let draft = Draft::new(Place { file: Path::new("").into(), line: 0, column: 0 });
        build::build(draft, ports).0
    }
}

impl Settings {
    /// What a broker without a configuration does that was given sockets, which listen at `endpoints`: as
    /// [`Settings::without_file`], but that nobody is let in where other machines can connect.
    pub fn without_file_at(endpoints: impl IntoIterator<Item = Endpoint>) -> (Settings, Vec<Problem>) {
        let mut settings = Settings::without_file(&[]);
        let problems = build::move_to(&mut settings, endpoints);
        (settings, problems)
    }
}

fn finish(mut draft: Draft, ports: &[u16]) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    advice::check(&mut draft);
    let (settings, problems) = build::build(draft, ports);
    match problems.iter().any(|p| p.severity == Severity::Error) {
        true => Err(problems),
        false => Ok((settings, problems)),
    }
}

/// A number as C reads it: decimal, `0x` hexadecimal, `0` octal.
fn number(name: &str, word: &Option<String>) -> Result<i64, String> {
    let word = word.as_deref().ok_or_else(|| format!("Empty '{name}' value in configuration."))?;
    let (negative, digits) = match word.as_bytes().first() {
        Some(b'-') => (true, &word[1..]),
        Some(b'+') => (false, &word[1..]),
        _ => (false, word),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (&digits[2..], 16),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(format!("'{name}' value not a number."));
    }
    match i64::from_str_radix(digits, radix) {
        Ok(n) => Ok(if negative { -n } else { n }),
        Err(_) => Err(format!("'{name}' value out of range.")),
    }
}
