//! A configuration that was read again, fitted to the broker that runs.

use super::settings::{Endpoint, ListenerSettings, Problem, Settings, Severity};
use hikyaku_proto::broker::{Authentication, Listener};
use std::net::SocketAddr;

impl Settings {
    /// Fits settings that were read again to those a broker `runs` with: its listeners stay, in their order,
    /// for ports are opened at the start only. One that is gone goes on under the settings of a new one at its port, where that opens
    /// it to nobody else. Returns what therefore does not apply, as sentences.
    ///
    /// # Errors
    /// If nobody could connect any more.
    pub fn fit_to(&mut self, runs: &Settings) -> Result<Vec<String>, Problem> {
        let mut remarks = Vec::new();
        let read = std::mem::take(&mut self.listeners);
        let mut read: Vec<_> =
            read.into_iter().zip(std::mem::take(&mut self.core.listeners)).map(Some).collect();
        let mut take = |which: &dyn Fn(&ListenerSettings) -> bool| {
            read.iter_mut().find(|place| place.as_ref().is_some_and(|(new, _)| which(new)))?.take()
        };
        let same: Vec<_> =
            runs.listeners.iter().map(|old| take(&|new| new.endpoint == old.endpoint)).collect();
        for (old, (old_core, same)) in runs.listeners.iter().zip(runs.core.listeners.iter().zip(same)) {
            let (new, core) = match same
                .or_else(|| Some(move_back(take(&|new| replaces(new, old))?, old, &mut remarks)))
            {
                Some(new) => new,
                None => {
                    if !old.closed {
                        remarks.push(format!(
                            "{} is not configured any more: its clients are closed and nobody gets in. The port is \
                             free after the next start.",
                            old.endpoint
                        ));
                    }
                    close(old, old_core)
                }
            };
            if socket(&new) != socket(old) {
                let names = "'bind_interface' and 'set_tcp_nodelay'";
                remarks.push(format!("{names} of {} change at the next start.", old.endpoint));
            }
            self.listeners.push(new);
            self.core.listeners.push(core);
        }
        let unopened: Vec<_> = read.into_iter().flatten().map(|(new, _)| new).collect();
        if self.listeners.iter().all(|listener| listener.closed) {
            let places: Vec<_> = unopened.iter().map(|new| new.endpoint.to_string()).collect();
            let message = format!(
                "Nobody could connect any more: none of the listeners configured now is open, and {} can be opened \
                 by a restart only.",
                places.join(", ")
            );
            return Err(Problem { at: None, severity: Severity::Error, message });
        }
        remarks.extend(unopened.iter().map(|new| format!("{} is opened at the next start.", new.endpoint)));
        let fixed = [
            ("user", self.user != runs.user),
            ("pid_file", self.pid_file != runs.pid_file),
            ("workers", self.workers != runs.workers),
            ("persistence", self.persistence != runs.persistence),
        ];
        for (name, differs) in fixed {
            if differs {
                remarks.push(format!("'{name}' changes at the next start."));
            }
        }
        self.pid_file.clone_from(&runs.pid_file);
        self.user.clone_from(&runs.user);
        self.workers = runs.workers;
        self.persistence.clone_from(&runs.persistence);
        Ok(remarks)
    }
}

/// Whether an open listener can go on as `new`, at the same port of another address: nobody can reach it who could not reach `new`.
fn replaces(new: &ListenerSettings, old: &ListenerSettings) -> bool {
    let (Endpoint::Tcp { addresses: new_at }, Endpoint::Tcp { addresses: old_at }) =
        (&new.endpoint, &old.endpoint)
    else {
        return false;
    };
    let port = |at: &[SocketAddr]| at.first().map(|address| address.port());
    let covers = |old: &SocketAddr| {
        let any = |new: &SocketAddr| new.ip().is_unspecified() && new.is_ipv4() == old.is_ipv4();
        new_at.iter().any(|new| new == old || any(new))
    };
    port(new_at) == port(old_at)
        && (old.is_local() || old_at.iter().all(covers))
        && (new.bind_interface.is_none() || new.bind_interface == old.bind_interface)
}

/// A listener that was read, where `old` is open.
fn move_back(
    (mut new, core): (ListenerSettings, Listener),
    old: &ListenerSettings,
    remarks: &mut Vec<String>,
) -> (ListenerSettings, Listener) {
    remarks.push(format!(
        "{0} stays open in place of {1}, with all that is configured for {1}; the address changes at the next start.",
        old.endpoint, new.endpoint
    ));
    new.endpoint.clone_from(&old.endpoint);
    (new, core)
}

/// What of a listener is decided when it is opened.
fn socket(listener: &ListenerSettings) -> impl PartialEq {
    (&listener.bind_interface, listener.tcp_nodelay)
}

/// The same listener, with nobody to be let in.
fn close(listener: &ListenerSettings, core: &Listener) -> (ListenerSettings, Listener) {
    let mut closed = ListenerSettings { closed: true, tls: None, ..listener.clone() };
    closed.security.allow_anonymous = Some(false);
    closed.security.password_file = None;
    let mut core = core.clone();
    core.authentication = Authentication::Ask;
    (closed, core)
}
