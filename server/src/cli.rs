//! The command line, with mosquitto's options.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start the broker.
    Run(Run),
    /// Print how to call it.
    Help,
    /// Print the version.
    Version,
}

/// How to start the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The ports given, in order.
    pub ports: Vec<u16>,
    /// Whether to log more.
    pub verbose: bool,
    /// How many workers, if given.
    pub workers: Option<u16>,
}

/// What `-h` prints.
pub const HELP: &str = "\
hikyaku is an MQTT broker.

Usage: hikyaku [-p PORT]... [-v] [--workers N]

 -c, --config-file FILE  read the configuration from FILE (comes with the next release)
 -d, --daemon            run in the background (not supported: use a service manager)
 -h, --help              show this
 -p, --port PORT         listen on PORT instead of 1883, for this machine only;
                         may be given several times
 -v, --verbose           log each connection
     --version           show the version
     --workers N         use N threads, 1 to 64; default: one per core
";

const HINT: &str = "'hikyaku -h' shows the options.";

const PORT: u16 = 1883;

/// Reads the arguments, without the program's name. An error is the lines to print.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut run = Run::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let arg = arg.to_string_lossy().into_owned();
        let mut value = |what: &str| {
            let value = args.next().map(|v| v.to_string_lossy().into_owned());
            value.ok_or_else(|| format!("Error: {arg} argument given but no {what} specified.\n{HINT}"))
        };
        match arg.as_str() {
            "-h" | "--help" => return Ok(Command::Help),
            "--version" => return Ok(Command::Version),
            "-v" | "--verbose" => run.verbose = true,
            "-p" | "--port" => run.ports.push(port(&value("port")?)?),
            "--workers" => run.workers = Some(workers(&value("number")?)?),
            "-c" | "--config-file" => {
                let file = value("config file")?;
                return Err(match std::fs::File::open(&file) {
                    Err(e) => format!("Error: Unable to open config file '{file}'.\n{e}."),
                    Ok(_) => format!(
                        "Error: '{file}' is not read: configuration files come with the next release."
                    ),
                });
            }
            "-d" | "--daemon" => {
                return Err(format!(
                    "Error: {arg} is not supported: start hikyaku from a service manager, or with '&'."
                ));
            }
            _ => return Err(format!("Error: Unknown option '{}'.\n{HINT}", arg.escape_debug())),
        }
    }
    Ok(Command::Run(run))
}

impl Run {
    /// Where to listen: on this machine's own addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let ports = if self.ports.is_empty() { &[PORT][..] } else { &self.ports };
        let hosts = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        ports.iter().flat_map(|&port| hosts.map(|host| SocketAddr::new(host, port))).collect()
    }
}

fn port(value: &str) -> Result<u16, String> {
    match value.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("Error: Invalid port specified ({}).", value.escape_debug())),
    }
}

fn workers(value: &str) -> Result<u16, String> {
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
        let run = Run { ports: vec![1884, 1885], verbose: true, workers: Some(3) };
        assert_eq!(parsed("-p 1884 -v --port 1885 --workers 3"), Ok(Command::Run(run)));
        assert_eq!(parsed(""), Ok(Command::Run(Run::default())));
        assert_eq!(parsed("-v --help"), Ok(Command::Help));
        assert_eq!(parsed("--version"), Ok(Command::Version));
    }

    #[test]
    fn mistakes_are_told_in_one_line_and_a_hint() {
        for (line, message) in [
            ("-p 0", "Error: Invalid port specified (0)."),
            ("-p 65536", "Error: Invalid port specified (65536)."),
            ("-p x", "Error: Invalid port specified (x)."),
            ("-v -p", "Error: -p argument given but no port specified.\n'hikyaku -h' shows the options."),
            ("--x", "Error: Unknown option '--x'.\n'hikyaku -h' shows the options."),
            ("--workers 0", "Error: Invalid number of workers specified (0): it is 1 to 64."),
            (
                "-c Cargo.toml",
                "Error: 'Cargo.toml' is not read: configuration files come with the next release.",
            ),
            ("-d", "Error: -d is not supported: start hikyaku from a service manager, or with '&'."),
        ] {
            assert_eq!(parsed(line), Err(message.to_owned()));
        }
    }

    #[test]
    fn without_ports_it_is_1883_on_loopback_only() {
        let addresses = |run: Run| run.addresses().iter().map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(addresses(Run::default()), ["127.0.0.1:1883", "[::1]:1883"]);
        assert_eq!(addresses(Run { ports: vec![7, 8], ..Run::default() }).len(), 4);
    }
}
