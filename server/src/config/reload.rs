//! A configuration that was read again, fitted to the broker that runs.

use super::settings::{ListenerSettings, Settings};
use hikyaku_proto::broker::{Authentication, Listener};

impl Settings {
    /// Fits settings that were read again to those a broker `runs` with: its listeners stay, in their order,
    /// for ports are opened at the start only. Returns what therefore does not apply, as sentences.
    pub fn fit_to(&mut self, runs: &Settings) -> Vec<String> {
        let mut remarks = Vec::new();
        let read = std::mem::take(&mut self.listeners);
        let mut read: Vec<_> = read.into_iter().zip(std::mem::take(&mut self.core.listeners)).collect();
        for (old, old_core) in runs.listeners.iter().zip(&runs.core.listeners) {
            let (new, core) = match read.iter().position(|(new, _)| new.endpoint == old.endpoint) {
                Some(i) => read.remove(i),
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
        for (new, _) in read {
            remarks.push(format!("{} is opened at the next start.", new.endpoint));
        }
        let fixed = [
            ("user", self.user != runs.user),
            ("pid_file", self.pid_file != runs.pid_file),
            ("workers", self.workers != runs.workers),
        ];
        for (name, differs) in fixed {
            if differs {
                remarks.push(format!("'{name}' changes at the next start."));
            }
        }
        self.pid_file.clone_from(&runs.pid_file);
        self.user.clone_from(&runs.user);
        self.workers = runs.workers;
        remarks
    }
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
