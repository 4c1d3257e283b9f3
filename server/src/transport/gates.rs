//! What all listeners let in, and how that is exchanged while connections come.

use super::acceptor::KeyLog;
use super::detect::Gate;
use crate::config::{ListenerSettings, Problem, Severity};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// What each listener speaks, with its certificate files, which were read and checked.
#[derive(Clone)]
pub struct Certificates {
    gates: Vec<Arc<Gate>>,
    keylog: Option<Arc<KeyLog>>,
}

/// What holds for new connections.
#[derive(Debug)]
pub(crate) struct Gates(RwLock<Certificates>);

impl Certificates {
    /// Reads the certificate files of `listeners`. To `keylog` the secrets of TLS connections are appended, for
    /// debugging: whoever has them reads along. The second value is what is remarkable about the files.
    ///
    /// # Errors
    /// All problems there are, if one of them is an error.
    pub fn load(
        listeners: &[ListenerSettings],
        keylog: Option<&Path>,
    ) -> Result<(Certificates, Vec<Problem>), Vec<Problem>> {
        let mut problems = Vec::new();
        let keylog =
            keylog.filter(|_| listeners.iter().any(|l| l.tls.is_some())).map(KeyLog::open).transpose();
        let keylog = keylog.map_err(|problem| vec![problem])?.map(|(keylog, remark)| {
            problems.push(remark);
            Arc::new(keylog)
        });
        read(listeners, keylog, problems)
    }
}

fn read(
    listeners: &[ListenerSettings],
    keylog: Option<Arc<KeyLog>>,
    mut problems: Vec<Problem>,
) -> Result<(Certificates, Vec<Problem>), Vec<Problem>> {
    let read = listeners.iter().map(|settings| Gate::new(settings, keylog.as_ref(), &mut problems));
    let gates: Vec<_> = read.collect::<Vec<_>>().into_iter().flatten().map(Arc::new).collect();
    match problems.iter().any(|p| p.severity == Severity::Error) {
        true => Err(problems),
        false => Ok((Certificates { gates, keylog }, problems)),
    }
}

impl Gates {
    pub(crate) fn new(certificates: Certificates) -> Gates {
        Gates(RwLock::new(certificates))
    }

    /// What a listener lets in now.
    pub(crate) fn at(&self, listener: u16) -> Option<Arc<Gate>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.gates.get(usize::from(listener)).cloned()
    }

    /// Reads the files of `listeners`, and changes nothing yet.
    pub(crate) fn load(
        &self,
        listeners: &[ListenerSettings],
    ) -> Result<(Certificates, Vec<Problem>), Vec<Problem>> {
        read(listeners, self.current().keylog, Vec::new())
    }

    pub(crate) fn replace(&self, certificates: Certificates) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificates;
    }

    /// Reads the files of those listeners again that `which` picks. One whose files are bad keeps what it has.
    /// Returns what is wrong or remarkable, or `None` if none was picked.
    pub(crate) fn reload(&self, mut which: impl FnMut(&Gate) -> bool) -> Option<Vec<Problem>> {
        let mut new = self.current();
        let mut problems = None;
        for gate in &mut new.gates {
            if which(gate)
                && let Some(again) = gate.again(new.keylog.as_ref(), problems.get_or_insert_default())
            {
                *gate = Arc::new(again);
            }
        }
        if problems.is_some() {
            self.replace(new);
        }
        problems
    }

    /// As [`Gates::reload`], of those whose files have changed, and which files that are.
    pub(crate) fn reload_changed(&self) -> Option<(Vec<PathBuf>, Vec<Problem>)> {
        let mut changed = BTreeSet::new();
        let problems = self.reload(|gate| {
            let files = gate.changed();
            let any = !files.is_empty();
            changed.extend(files);
            any
        })?;
        Some((changed.into_iter().collect(), problems))
    }

    fn current(&self) -> Certificates {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.gates.len()).finish()
    }
}
