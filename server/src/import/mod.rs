//! From mosquitto's database to the store.
//!
//! The file is read and checked whole before the store is looked at, and what comes of it is committed in one step: an import is
//! done or has not been.

#[doc(hidden)]
pub mod check;
mod chunk;
mod summary;
mod translate;

pub use summary::Summary;

use crate::clock::Clock;
use crate::config::{Endpoint, PersistenceSettings, Settings};
use crate::store::{Opened, StoreError};
use chunk::Damage;
use hikyaku_proto::broker::Placement;
use hikyaku_proto::broker::store::record;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use translate::{Database, Terms};

/// A database file of mosquitto, in memory.
pub struct MosquittoDb {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// Why nothing was imported.
#[derive(Debug)]
pub enum ImportError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's word.
        cause: io::Error,
    },
    /// The file is damaged, of an unknown version, or something else.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, in bytes from its beginning.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The store holds something already. It was left as it is.
    NotEmpty(PathBuf),
    /// The store cannot be used. It was left as it was.
    Store(StoreError),
}

impl MosquittoDb {
    /// Reads a file into memory, as it is.
    ///
    /// # Errors
    /// If the system refuses, or it is no regular file.
    pub fn read(path: &Path) -> Result<MosquittoDb, ImportError> {
        let unreadable = |cause| ImportError::Unreadable { path: path.into(), cause };
        let mut file = File::open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(unreadable(io::Error::other("it is not a regular file")));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(MosquittoDb { path: path.into(), bytes })
    }

    /// Puts what the file says into the store that a broker with these settings uses, which has to be empty, and used by nobody.
    ///
    /// # Errors
    /// If the file cannot be understood, or the store not be used. Then the store is as it was.
    pub fn import(&self, settings: &Settings) -> Result<Summary, ImportError> {
        self.import_at(settings, Clock::start().of_store())
    }

    fn import_at(&self, settings: &Settings, now: record::Clock) -> Result<Summary, ImportError> {
        let database = Database::read(&self.bytes).map_err(|Damage { at, what }| ImportError::Damaged {
            path: self.path.clone(),
            at: at as u64,
            what,
        })?;
        let path = Opened::directory(&settings.persistence);
        let fresh = !path.exists();
        let result = fill(&database, settings, now);
        if fresh && result.is_err() {
            // It holds nothing.
            let _ = fs::remove_dir_all(&path);
        }
        result
    }
}

fn fill(database: &Database<'_>, settings: &Settings, now: record::Clock) -> Result<Summary, ImportError> {
    let opened = Opened::open(&settings.persistence)?;
    if !opened.is_empty()? {
        return Err(ImportError::NotEmpty(Opened::directory(&settings.persistence)));
    }
    let port = |endpoint: &Endpoint| match endpoint {
        Endpoint::Tcp { addresses } => addresses.first().map(|address| address.port()),
        Endpoint::Unix(_) => None,
    };
    let ports: Vec<_> = settings.listeners.iter().map(|l| port(&l.endpoint)).collect();
    let placement = Placement::new(opened.placement_key(), 1);
    let terms = Terms {
        placement: &placement,
        run: opened.run(),
        clock: now,
        ports: &ports,
        expiry_s_max: settings.core.max_session_expiry_s,
        retained: settings.persistence.retained,
        separators_max: settings.core.max_topic_separators,
    };
    Ok(opened.fill(now, |put| database.translate(&terms, put))?)
}

/// mosquitto's database, if it lies where mosquitto with these settings would have it.
pub(crate) fn neighbour(settings: &PersistenceSettings) -> Option<PathBuf> {
    let location = settings.location.clone().unwrap_or_else(|| PathBuf::from("."));
    Some(location.join(&settings.mosquitto_file)).filter(|file| file.is_file())
}

impl fmt::Debug for MosquittoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MosquittoDb").field("path", &self.path).finish_non_exhaustive()
    }
}

impl From<StoreError> for ImportError {
    fn from(e: StoreError) -> Self {
        ImportError::Store(e)
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Unreadable { path, cause } => {
                write!(f, "{} cannot be read: {cause}.", path.display())
            }
            ImportError::Damaged { path, at, what } => {
                write!(f, "{} is not imported: {}.", path.display(), Damage { at: *at as usize, what })
            }
            ImportError::NotEmpty(path) => write!(
                f,
                "{} holds sessions or messages already, and they are not mixed with others. Import before the first start, or \
                 move that directory away and import then.",
                path.display()
            ),
            ImportError::Store(StoreError::Locked(path)) => {
                write!(f, "A broker runs with {}. End it first.", path.display())
            }
            ImportError::Store(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ImportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ImportError::Unreadable { cause, .. } => Some(cause),
            ImportError::Store(e) => Some(e),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
