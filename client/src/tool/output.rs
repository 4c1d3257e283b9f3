//! Showing messages on standard output.

use super::config::Config;
use super::say;
use crate::Message;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};

#[derive(Debug, Default)]
pub(super) struct Output {
    buffer: Vec<u8>,
    /// The line of each topic, with `--watch`.
    lines: HashMap<String, usize>,
}

impl Output {
    /// Clears the screen where the messages have places on it.
    pub fn begin(config: &Config) -> io::Result<Output> {
        let mut output = Output::default();
        if config.watch && !config.message_rate {
            writeln!(output.buffer, "\x1b[2J\x1b[1;1HBroker: {}", config.host)?;
            output.flush()?;
        }
        Ok(output)
    }

    /// Shows a message, in one write.
    pub fn show(&mut self, config: &Config, message: &Message) -> io::Result<()> {
        if let Some(part) = config.random_filter {
            let random = RandomState::new().build_hasher().finish();
            if random % 1000 >= u64::from(part) {
                return Ok(());
            }
        }
        if config.watch {
            let next = self.lines.len() + 2;
            let line = *self.lines.entry(message.topic().to_owned()).or_insert(next);
            write!(self.buffer, "\x1b[{line};1H")?;
        }
        self.put(config, message);
        if config.watch {
            writeln!(self.buffer, "\x1b[{};1H", self.lines.len() + 1)?;
        }
        self.flush()
    }

    fn put(&mut self, config: &Config, message: &Message) {
        let payload = message.payload();
        if let Some(format) = &config.format {
            if let Some(wrong) = format.write(message, config.pretty, &mut self.buffer)
                && !config.quiet
            {
                say(&wrong);
            }
        } else if config.verbose {
            if payload.is_empty() && !config.eol {
                return;
            }
            self.buffer.extend_from_slice(message.topic().as_bytes());
            self.buffer.push(b' ');
            self.buffer.extend_from_slice(if payload.is_empty() { b"(null)" } else { payload });
        } else if payload.is_empty() {
            return;
        } else {
            self.buffer.extend_from_slice(payload);
        }
        if config.eol {
            self.buffer.push(b'\n');
        }
    }

    /// Shows a line.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&self.buffer).and_then(|()| stdout.flush());
        self.buffer.clear();
        written
    }
}
