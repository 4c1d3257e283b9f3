//! The broker's binary.

mod cli;

use cli::{Command, Run};
use hikyaku::config::{Endpoint, ListenerSettings};
use hikyaku::{Options, Server};
use hikyaku_proto::broker::{Config, SHARDS_MAX};
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// The arguments are wrong.
const USAGE: u8 = 3;
/// It cannot start or go on.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(run)) => serve(&run),
        Ok(Command::Help) => print(&mut std::io::stdout(), cli::HELP, 0),
        Ok(Command::Version) => {
            print(&mut std::io::stdout(), concat!("hikyaku version ", env!("CARGO_PKG_VERSION"), "\n"), 0)
        }
        Err(message) => print(&mut std::io::stderr(), &(message + "\n"), USAGE),
    }
}

fn print(to: &mut impl Write, text: &str, code: u8) -> ExitCode {
    // Nobody is left to be told that nobody reads this.
    let _ = to.write_all(text.as_bytes());
    ExitCode::from(code)
}

fn serve(run: &Run) -> ExitCode {
    start_log(run.verbose);
    raise_open_files();
    log::info!("hikyaku version {} starting", env!("CARGO_PKG_VERSION"));
    // Before anyone can connect: from now on a signal ends it properly.
    let signals = match Signals::new([SIGTERM, SIGINT, SIGHUP]) {
        Ok(signals) => signals,
        Err(e) => return fail(&format!("Signals cannot be watched: {e}.")),
    };
    log::info!("Starting in local only mode. Connections will only be possible from this machine.");
    let server = match Server::start(options(run)) {
        Ok(server) => server,
        Err(e) => return fail(&e.to_string()),
    };
    let remote = server.remote();
    std::thread::spawn(move || watch(signals, &remote));
    log::info!("hikyaku version {} running", env!("CARGO_PKG_VERSION"));
    match server.wait() {
        Ok(()) => {
            log::info!("hikyaku version {} terminating", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::from(FAILURE),
    }
}

fn options(run: &Run) -> Options {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let workers = run.workers.unwrap_or(cores.min(SHARDS_MAX.into()) as u16);
    let endpoint = Endpoint::Tcp { addresses: run.addresses() };
    let listeners = vec![ListenerSettings { endpoint, local_only_default: true, ..Default::default() }];
    Options { listeners, workers, config: Config::default(), tls_keylog: None }
}

/// Ends the server at the first signal, the process at the second.
fn watch(mut signals: Signals, remote: &hikyaku::Remote) {
    let mut asked = false;
    for signal in signals.forever() {
        match signal {
            SIGHUP => log::info!("There is no configuration to reload."),
            _ if asked => std::process::exit(FAILURE.into()),
            _ => {
                asked = true;
                remote.shutdown();
            }
        }
    }
}

fn fail(message: &str) -> ExitCode {
    log::error!("{message}");
    ExitCode::from(FAILURE)
}

/// Logs to stderr in mosquitto's manner: seconds since 1970, a colon, the text.
fn start_log(verbose: bool) {
    let level = if verbose { log::LevelFilter::Debug } else { log::LevelFilter::Info };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).parse_default_env().format(|to, record| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let kind = match record.level() {
            log::Level::Error => "Error: ",
            log::Level::Warn => "Warning: ",
            _ => "",
        };
        writeln!(to, "{now}: {kind}{}", record.args())
    });
    builder.init();
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}

/// Each connection is an open file, and the usual limit of 1,024 is kept low for programs that use select.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            log::warn!("The limit of open files cannot be raised: {e}.");
        }
    }
}
