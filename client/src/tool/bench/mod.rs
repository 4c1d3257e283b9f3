//! `hikyaku-bench`: a broker under load, and what it does.
//!
//! Workers drive many connections each, on a poll; the main thread leads them through the phases of a [`Run`] and shows what
//! they count. A message carries its number and the moment it was due; subscribers keep book of what came.

mod connection;
mod lead;
mod limits;
mod meter;
mod payload;
mod report;
mod run;
mod track;
mod wanted;
mod worker;

pub(super) use wanted::Wanted;

use super::Failure;
use super::config::Config;
use super::session::{self, local_address, no_answer};
use crate::{Acknowledge, Error, Options, Scheme};
use lead::lead;
use report::{Progress, Summary};
use run::Run;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) fn run(config: Config) -> Result<u8, Failure> {
    let failed = |error: io::Error| Failure::run(1, format!("Error: {}", session::plain(&error)));
    limits::raise_open_files(config.bench.total(), config.bench.threads)?;
    let bind = config.bench.bind.iter().map(|bind| local_address(bind)).collect::<Result<Vec<_>, _>>()?;
    let (route, options) = session::route(&config)?;
    let options = Options {
        acknowledge: Acknowledge::Automatically,
        receive_maximum: u16::MAX,
        max_inflight: u16::MAX,
        max_topic_aliases: 0,
        topic_alias_maximum: 0,
        ..options
    };
    let stopped = Arc::new(AtomicBool::new(false));
    on_signals(stopped.clone()).map_err(failed)?;
    let tag = RandomState::new().build_hasher().finish() as u16;
    let mut run = Run::new(&config, (route, options), bind, tag);
    run.addr = find(&config, &run, &stopped)?;
    let ended = lead(&mut run, Progress::new(config.quiet), &stopped).map_err(failed)?;
    let summary = Summary::new(&run, ended);
    let text = if config.bench.json { summary.json() } else { summary.table() };
    io::stdout().write_all(&text).map_err(failed)?;
    Ok(u8::from(!summary.is_good()))
}

/// The first signal ends the run early, with its result; the second one ends the program.
fn on_signals(stopped: Arc<AtomicBool>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let watch = move || {
        for signal in signals.forever() {
            if stopped.swap(true, Ordering::AcqRel) {
                std::process::exit(128 + signal);
            }
        }
    };
    std::thread::Builder::new().name(String::from("signals")).spawn(watch).map(drop)
}

/// Which of the host's addresses has a server that lets us in: a first connection finds out, so that what is wrong is
/// told as `hikyaku-pub` tells it, and not by thousands.
fn find(config: &Config, run: &Run, stopped: &AtomicBool) -> Result<Option<SocketAddr>, Failure> {
    let no_answer = |error: &Error| match no_answer(error, config) {
        Failure::Run { text, .. } => Failure::Run { code: 1, text },
        other => other,
    };
    let mut last = Error::Io(io::Error::new(ErrorKind::NotFound, "the name has no address"));
    for addr in addresses(run).map_err(|error| no_answer(&Error::Io(error)))? {
        let mut one = run.with_one_connection(addr);
        let ended = lead(&mut one, Progress::new(true), stopped);
        let ended = ended.map_err(|error| no_answer(&Error::Io(error)))?;
        match ended.total.first_error {
            _ if ended.total.counts.opened > 0 => return Ok(addr),
            Some(error @ (Error::Io(_) | Error::Timeout)) => last = error,
            Some(error) => return Err(no_answer(&error)),
            // A signal came.
            None => return Err(Failure::Exit(1)),
        }
    }
    Err(no_answer(&last))
}

/// Nothing in the place of an address for a unix socket.
fn addresses(run: &Run) -> io::Result<Vec<Option<SocketAddr>>> {
    let address = &run.route.address;
    if address.scheme == Scheme::Unix {
        return Ok(vec![None]);
    }
    let fits = |addr: &SocketAddr| run.bind.iter().all(|bind: &IpAddr| bind.is_ipv4() == addr.is_ipv4());
    Ok((address.host.as_str(), address.port).to_socket_addrs()?.filter(fits).map(Some).collect())
}
