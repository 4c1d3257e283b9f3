//! How many connections this system lets a program have.

use super::super::Failure;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Files beside those of the connections, and for each thread.
const OTHERS: usize = 16;
const THREAD: usize = 4;

/// Raises the limit of open files as far as it goes: each connection is one.
pub(super) fn raise_open_files(connections: usize, threads: usize) -> Result<(), Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::debug!("The limit of open files cannot be raised: {error}.");
        }
    }
    let needed = connections + threads * THREAD + OTHERS;
    let most = getrlimit(Resource::Nofile).current;
    match most.and_then(|most| usize::try_from(most).ok()) {
        Some(most) if most < needed => Err(Failure::run(
            1,
            format!(
                "Error: {connections} connections need {needed} open files, and {most} are allowed. Raise the hard limit \
                 (ulimit -Hn; LimitNOFILE= of a unit), or share the work among several programs."
            ),
        )),
        _ => Ok(()),
    }
}

/// What helps against an error of the system, if something does.
pub(super) fn advice(error: &std::io::Error) -> &'static str {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    let is = |other: Errno| errno == Some(other.raw_os_error());
    if is(Errno::ADDRNOTAVAIL) {
        ": there are no more ports for this address; give several with -A, or widen net.ipv4.ip_local_port_range"
    } else if is(Errno::MFILE) || is(Errno::NFILE) {
        ": raise the limit of open files (ulimit -n, fs.file-max)"
    } else {
        ""
    }
}
