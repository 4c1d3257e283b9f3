//! What a start would fail of, found out without changing anything.

use crate::config::{Endpoint, ListenerSettings, LogDestination, Place, Problem, Settings, Severity};
use crate::listener;
use crate::user::{User, unwritable};
use std::io;
use std::path::Path;

/// What would keep a broker with these settings from starting on this machine, as the user who asks: directories that are
/// missing or closed, addresses and devices that are not there. Nothing is written, and no port is taken.
pub fn foresee(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |at: Option<&Place>, severity, message| {
        problems.push(Problem { at: at.cloned(), severity, message });
    };
    let mut files: Vec<(Option<&Place>, &str, &Path, bool)> = Vec::new();
    files.extend(settings.pid_file.as_deref().map(|path| (None, "pid_file", path, false)));
    for destination in &settings.log.destinations {
        if let LogDestination::File(path) = destination {
            files.push((None, "log_dest file", path, false));
        }
    }
    for ListenerSettings { endpoint, at, .. } in &settings.listeners {
        if let Endpoint::Unix(path) = endpoint {
            files.push((at.as_ref(), "listener", path, true));
        }
    }
    for (at, option, path, is_socket) in files {
        if let Some(why) = obstacle(path, is_socket) {
            // The service manager makes it, and takes it away with the service.
            let passing = path.starts_with("/run") || path.starts_with("/var/run");
            let severity = if passing { Severity::Warning } else { Severity::Error };
            say(at, severity, format!("{option} '{}' cannot be made. {why}.", path.display()));
        }
    }
    for settings in &settings.listeners {
        if let Err((address, cause)) = listener::try_addresses(settings) {
            let why = listener::explain(&address, &cause);
            say(settings.at.as_ref(), Severity::Error, format!("Cannot listen on {address}: {cause}.{why}"));
        }
    }
    problems
}

/// What keeps a file from being written, or a socket from being made, which takes a new file.
fn obstacle(path: &Path, is_socket: bool) -> Option<String> {
    if path.is_dir() {
        return Some("It is a directory".to_owned());
    }
    if path.parent().is_some_and(|directory| !directory.as_os_str().is_empty() && !directory.is_dir())
        && let Err(e) = path.parent().unwrap_or(path).metadata()
        && e.kind() == io::ErrorKind::NotFound
    {
        return Some(unwritable(path, &e));
    }
    let user = User::of_process();
    let obstacle = user.obstacle_to_write(path, is_socket)?;
    Some(format!("User '{}', who asks, may not {}", user.name(), obstacle.what()))
}
