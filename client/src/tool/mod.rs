//! The programs `hikyaku-pub`, `hikyaku-sub` and `hikyaku-rr`: mosquitto_pub, mosquitto_sub and mosquitto_rr on
//! this crate. Options, defaults, output and exit codes are theirs. `hikyaku-bench` has its options for the connection in
//! common with them. Nothing here is API.

mod bench;
mod config;
mod format;
mod json;
mod options;
mod output;
mod property;
mod publish;
mod request;
mod session;
mod subscribe;

use config::Config;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Which program this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `hikyaku-pub`
    Pub = 1,
    /// `hikyaku-sub`
    Sub = 2,
    /// `hikyaku-rr`
    Rr = 4,
    /// `hikyaku-bench`
    Bench = 8,
}

impl Tool {
    const fn name(self) -> &'static str {
        match self {
            Tool::Pub => "hikyaku-pub",
            Tool::Sub => "hikyaku-sub",
            Tool::Rr => "hikyaku-rr",
            Tool::Bench => "hikyaku-bench",
        }
    }

    /// The program this one takes the place of, if there is one.
    const fn model(self) -> &'static str {
        match self {
            Tool::Pub => "mosquitto_pub",
            Tool::Sub => "mosquitto_sub",
            Tool::Rr => "mosquitto_rr",
            Tool::Bench => "hikyaku-bench",
        }
    }

    /// The exit code for a wrong command line.
    const fn misused(self) -> u8 {
        if matches!(self, Tool::Bench) { 2 } else { 1 }
    }

    /// The exit code of those who were only asked for words. mosquitto's tools end with an error.
    const fn explained(self) -> u8 {
        if matches!(self, Tool::Bench) { 0 } else { 1 }
    }
}

/// Why a program ends without having done what it was asked.
#[derive(Debug)]
enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// Something went wrong later; `--quiet` hides it.
    Run { code: u8, text: String },
    /// All has been said.
    Exit(u8),
}

impl Failure {
    fn usage(text: impl fmt::Display) -> Failure {
        Failure::Usage(format!("Error: {text}"))
    }

    fn run(code: u8, text: impl fmt::Display) -> Failure {
        Failure::Run { code, text: text.to_string() }
    }
}

/// Does what the command line says.
pub fn main(tool: Tool) -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let mut quiet = false;
    let result = Config::read(tool, args).and_then(|config| {
        quiet = config.quiet && tool != Tool::Bench;
        match tool {
            Tool::Pub => publish::run(config),
            Tool::Sub => subscribe::run(config),
            Tool::Rr => request::run(config),
            Tool::Bench => bench::run(config),
        }
    });
    let code = match result {
        Ok(code) => code,
        Err(Failure::Usage(text)) => {
            say(&format!("{text}\nUse '{} --help' to see usage.", called(tool)));
            tool.misused()
        }
        Err(Failure::Run { code, text }) => {
            if !quiet {
                say(&text);
            }
            code
        }
        Err(Failure::Exit(code)) => code,
    };
    let _ = io::stdout().flush();
    ExitCode::from(code)
}

/// The name to call this program by again: a link may have the name of mosquitto's.
fn called(tool: Tool) -> &'static str {
    let name = env::args_os().next().map(PathBuf::from);
    match name.as_deref().and_then(Path::file_name) {
        Some(name) if name == tool.model() => tool.model(),
        _ => tool.name(),
    }
}

/// A line for people. Where nobody reads it there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
