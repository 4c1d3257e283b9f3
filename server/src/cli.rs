//! The command line, with mosquitto's options.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start the broker.
    Run(Run),
    /// Say what is wrong with a configuration file.
    Test(Run),
    /// Take over what mosquitto kept in this file.
    Import(Run, PathBuf),
    /// Save what can be read of a damaged store: that in the directory, or of the configuration.
    Salvage(Run, Option<PathBuf>),
    /// Print how to call it.
    Help,
    /// Print the version.
    Version,
}

/// How to start the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The configuration file, if given.
    pub config: Option<PathBuf>,
    /// The ports given, in order.
    pub ports: Vec<u16>,
    /// How much to log, whatever the configuration says.
    pub verbosity: Option<Verbosity>,
    /// How many workers, if given.
    pub workers: Option<u16>,
    /// Where to write the secrets of TLS connections.
    pub tls_keylog: Option<PathBuf>,
}

/// How much to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Nothing.
    Quiet,
    /// Everything there is a `log_type` for.
    Verbose,
}

/// What `-h` prints. `PROGRAM` stands for the name it was called by.
const HELP: &str = "\
hikyaku is an MQTT broker.

Usage: PROGRAM [-c config_file] [-d] [-h] [-p port] [-v] [-q] [--workers n]
       PROGRAM --test-config [-c] config_file
       PROGRAM [-c config_file] --import-mosquitto-db file
       PROGRAM --salvage [-c config_file | directory]

 -c, --config-file FILE    read the configuration from FILE (in mosquitto.conf's syntax);
                           without it only this machine may connect
 -d, --daemon              run in the background (not supported: use a service manager)
 -h, --help                show this
 -p, --port PORT           listen on PORT, for this machine only; may be given several times;
                           without '-c': instead of 1883
 -q, --quiet               log nothing, whatever the configuration says
     --salvage [DIRECTORY] while no broker runs: save what can be read of the data kept in DIRECTORY,
                           or in 'persistence_location', and keep the damaged files
 -t, --test-config [FILE]  say what is wrong with the configuration, and end
 -v, --verbose             log everything, whatever the configuration says
     --import-mosquitto-db FILE
                           put the sessions, queues and retained messages of mosquitto's database
                           into the empty store of the configuration, and end
     --tls-keylog FILE     write the secrets of TLS connections to FILE, for debugging:
                           whoever has them reads along
     --version             show the version
     --workers N           use N threads, 1 to 64; default: one for two cores
";

/// How to call it, for one who called it `program`.
pub fn help(program: Option<&OsStr>) -> String {
    let name = program.and_then(|p| Path::new(p).file_name()).map(|name| name.to_string_lossy());
    HELP.replace("PROGRAM", name.as_deref().unwrap_or("hikyaku"))
}

const HINT: &str = "'hikyaku -h' shows the options.";

/// Reads the arguments, without the program's name. An error is the lines to print.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut run = Run::default();
    let mut test = false;
    let mut import = None;
    let mut salvage = None;
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let arg = arg.to_string_lossy().into_owned();
        let is_option = |arg: &OsString| arg.as_encoded_bytes().starts_with(b"-");
        if matches!(arg.as_str(), "-t" | "--test-config") {
            test = true;
            if let Some(file) = args.next_if(|next| !is_option(next)) {
                run.config = Some(file.into());
            }
            continue;
        }
        if arg == "--salvage" {
            salvage = Some(args.next_if(|next| !is_option(next)).map(PathBuf::from));
            continue;
        }
        let mut value = |what: &str| {
            args.next()
                .ok_or_else(|| format!("Error: {arg} argument given, but no {what} specified.\n{HINT}"))
        };
        match arg.as_str() {
            "-h" | "--help" => return Ok(Command::Help),
            "--version" => return Ok(Command::Version),
            "-v" | "--verbose" => run.verbosity = run.verbosity.or(Some(Verbosity::Verbose)),
            "-q" | "--quiet" => run.verbosity = Some(Verbosity::Quiet),
            "-p" | "--port" => run.ports.push(port(&value("port")?)?),
            "--workers" => run.workers = Some(workers(&value("number")?)?),
            "-c" | "--config-file" => run.config = Some(value("config file")?.into()),
            "--import-mosquitto-db" => import = Some(PathBuf::from(value("file")?)),
            "--tls-keylog" => run.tls_keylog = Some(value("file")?.into()),
            "-d" | "--daemon" => {
                return Err(format!(
                    "Error: {arg} is not supported: start hikyaku from a service manager, or with '&'."
                ));
            }
            _ if !arg.starts_with('-') => {
                let file = arg.escape_debug();
                return Err(format!(
                    "Error: '{file}' stands alone. If it is a configuration file: hikyaku -c {file}\n{HINT}"
                ));
            }
            _ => return Err(format!("Error: Unknown option '{}'.\n{HINT}", arg.escape_debug())),
        }
    }
    if let Some(directory) = salvage {
        return Ok(Command::Salvage(run, directory));
    }
    match (test, &run.config, import) {
        (true, None, _) => {
            Err(format!("Error: --test-config argument given, but no config file specified.\n{HINT}"))
        }
        (true, ..) => Ok(Command::Test(run)),
        (false, _, Some(file)) => Ok(Command::Import(run, file)),
        (false, _, None) => Ok(Command::Run(run)),
    }
}

fn port(value: &OsStr) -> Result<u16, String> {
    let value = value.to_string_lossy();
    match value.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("Error: Invalid port specified ({}).", value.escape_debug())),
    }
}

fn workers(value: &OsStr) -> Result<u16, String> {
    let value = value.to_string_lossy();
    match value.parse() {
        Ok(n) if (1..=hikyaku_proto::broker::SHARDS_MAX).contains(&n) => Ok(n),
        _ => Err(format!(
            "Error: Invalid number of workers specified ({}): it is 1 to 64.",
            value.escape_debug()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_are_those_of_mosquitto() {
        let run = Run {
            config: Some("x.conf".into()),
            ports: vec![1884, 1885],
            verbosity: Some(Verbosity::Verbose),
            workers: Some(3),
            tls_keylog: Some("k".into()),
        };
        let line = "-c x.conf -p 1884 -v --port 1885 --workers 3 --tls-keylog k";
        assert_eq!(parsed(line), Ok(Command::Run(run.clone())));
        assert_eq!(parsed(&format!("{line} --test-config")), Ok(Command::Test(run.clone())));
        assert_eq!(parsed(&format!("--test-config {line}")), Ok(Command::Test(run)));
        assert_eq!(parsed(""), Ok(Command::Run(Run::default())));
        let named = Run { config: Some("y".into()), verbosity: Some(Verbosity::Quiet), ..Run::default() };
        assert_eq!(parsed("-t y -q -v"), Ok(Command::Test(named)));
        let salvage = Run { config: Some("y".into()), ..Run::default() };
        assert_eq!(parsed("--salvage -c y"), Ok(Command::Salvage(salvage, None)));
        assert_eq!(parsed("--salvage d"), Ok(Command::Salvage(Run::default(), Some("d".into()))));
        let named = Run { config: Some("y".into()), ..Run::default() };
        assert_eq!(parsed("--import-mosquitto-db f -c y"), Ok(Command::Import(named, "f".into())));
        assert_eq!(parsed("-v --help"), Ok(Command::Help));
        assert_eq!(parsed("--version"), Ok(Command::Version));
    }

    #[test]
    fn mistakes_are_told_in_one_line_and_a_hint() {
        for (line, message) in [
            ("-p 0", "Error: Invalid port specified (0)."),
            ("-p 65536", "Error: Invalid port specified (65536)."),
            ("-p x", "Error: Invalid port specified (x)."),
            ("-v -p", "Error: -p argument given, but no port specified.\n'hikyaku -h' shows the options."),
            (
                "-c",
                "Error: -c argument given, but no config file specified.\n'hikyaku -h' shows the options.",
            ),
            (
                "-t",
                "Error: --test-config argument given, but no config file specified.\n'hikyaku -h' shows the options.",
            ),
            (
                "--tls-keylog",
                "Error: --tls-keylog argument given, but no file specified.\n'hikyaku -h' shows the options.",
            ),
            ("--x", "Error: Unknown option '--x'.\n'hikyaku -h' shows the options."),
            (
                "-v my.conf",
                "Error: 'my.conf' stands alone. If it is a configuration file: hikyaku -c my.conf\n\
                 'hikyaku -h' shows the options.",
            ),
            ("--workers 0", "Error: Invalid number of workers specified (0): it is 1 to 64."),
            ("-d", "Error: -d is not supported: start hikyaku from a service manager, or with '&'."),
        ] {
            assert_eq!(parsed(line), Err(message.to_owned()));
        }
    }
}
