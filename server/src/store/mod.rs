//! What outlives the broker: one directory, one thread that changes it.
//!
//! ```text
//! workers ──batches──▶ store thread: fold into a group ──▶ journal (append, fsync) ──▶ "stored" to the workers
//!                                                              │ now and then
//!                                                              ▼
//!                                              second thread: base (redb, one transaction)
//! ```
//!
//! A group is what has piled up while the one before it was written. What comes and goes within a group is written nowhere, and
//! what comes and goes before the base is brought up to date does not reach the base. A start replays the journal.
//!
//! Files in the directory `hikyaku.store`: `lock`, `base.redb`, `journal-N`, `attempts`. Records are written as
//! [`record`](hikyaku_proto::broker::store::record) says, each value with a CRC-32 of its key and itself behind it.

/// Says what is done to a file to the tests of power failures, and nothing elsewhere.
macro_rules! note {
    ($path:expr, $event:ident $($of:tt)?) => {
        #[cfg(test)]
        super::power::note($path, super::power::Event::$event $($of)?)
    };
}

/// Lets tests have the disk fail.
macro_rules! hinder {
    ($path:expr, $op:ident) => {
        #[cfg(test)]
        super::power::hinder($path, super::power::Op::$op)?;
    };
}

mod attempts;
mod base;
#[doc(hidden)]
pub mod check;
#[cfg(test)]
mod failing;
mod fill;
mod fold;
mod journal;
mod layer;
mod overlay;
mod pages;
#[cfg(test)]
mod power;
mod recover;
mod rescue;
mod salvage;
mod thread;
mod view;

pub use rescue::{Rescued, rescue};
pub(crate) use thread::{Batch, Store};

use crate::clock::Clock;
use crate::config::PersistenceSettings;
use crate::import;
use attempts::Attempts;
use base::{Base, BaseError, Meta};
use fold::Fold;
use hikyaku_proto::broker::{Placement, Shard};
use journal::Journal;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use view::View;

/// The name of the directory in [`PersistenceSettings::location`].
const DIRECTORY: &str = "hikyaku.store";
const BASE: &str = "base.redb";

/// Why the store does not open.
#[derive(Debug)]
pub enum StoreError {
    /// Another broker has it.
    Locked(PathBuf),
    /// It was written by a later version.
    Newer {
        /// The directory.
        path: PathBuf,
        /// What is newer about it.
        what: String,
    },
    /// It cannot be read or written.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's word.
        cause: io::Error,
    },
    /// It is damaged so much that it cannot be read as a whole.
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was noticed.
        what: String,
    },
}

/// A store that is open, and not yet given back to the shards.
#[derive(Debug)]
pub(crate) struct Opened {
    path: PathBuf,
    lock: Lock,
    settings: PersistenceSettings,
    fold: Fold,
    before: Meta,
    /// The segments of the journal that were read.
    segments: Vec<u64>,
}

impl Opened {
    /// Opens the store, or makes one.
    pub(crate) fn open(settings: &PersistenceSettings) -> Result<Opened, StoreError> {
        let location = settings.location.clone().unwrap_or_else(|| PathBuf::from("."));
        let path = location.join(DIRECTORY);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |cause| StoreError::Io { path, cause }
        };
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => File::open(&location).and_then(|d| d.sync_all()).map_err(io(&location))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io(&path)(e)),
        }
        let lock = lock(&path)?;
        let wrong = |e| StoreError::of(&path, e);
        let file = path.join(BASE);
        rescue::rescue_from_engine(&path, &mut |line| log::error!("{line}")).map_err(wrong)?;
        let attempts = Attempts::of(&path);
        let base = Base::open_or_make(&file, attempts.clone()).or_else(|e| match e {
            BaseError::Corrupt(why) => {
                salvage(&path, &why).and_then(|()| Base::open_counted(&file, attempts))
            }
            other => Err(other),
        });
        let base = base.map_err(wrong)?;
        let before = match base.meta().map_err(wrong)? {
            Some(meta) => meta,
            None => {
                let placement = getrandom::u64().map_err(|e| io(&path)(io::Error::other(e)))?;
                Meta { run: 0, placement, shards: 0, segment: 0 }
            }
        };
        let mut view = View::new(Arc::new(base));
        let mut segments = journal::segments(&path).map_err(io(&path))?;
        for &segment in segments.iter().filter(|&&s| s < before.segment) {
            journal::remove(&path, segment).map_err(io(&path))?;
        }
        segments.retain(|&segment| segment >= before.segment);
        for &segment in &segments {
            let bad = journal::replay(&path, segment, &mut view.recent).map_err(io(&path))?;
            if bad > 0 {
                log::error!(
                    "{bad} bytes in the middle of the journal of {} are damaged: what they said is lost.",
                    path.display()
                );
            }
        }
        let fold = Fold::new(view, before.run + 1, settings.retained);
        Ok(Opened { path, lock, settings: settings.clone(), fold, before, segments })
    }

    /// What names are hashed with, always the same.
    pub(crate) fn placement_key(&self) -> u64 {
        self.before.placement
    }

    /// Gives all that was kept back to shards that have handled nothing, and makes them keep things.
    pub(crate) fn recover(
        self,
        shards: &mut [Shard],
        placement: &Placement,
        clock: Clock,
    ) -> Result<Store, StoreError> {
        let Opened { path, lock, settings, mut fold, before, segments } = self;
        let wrong = |e| StoreError::of(&path, e);
        let io = |cause| StoreError::Io { path: path.clone(), cause };
        let began = Instant::now();
        let run = before.run + 1;
        shards.iter_mut().for_each(|shard| shard.keep_from(run));
        let found = match recover::check(&mut fold, clock, &mut |what| log::error!("{what}")) {
            Err(BaseError::Corrupt(why)) => {
                let View { recent, base, .. } = fold.view;
                base.close();
                salvage(&path, &why).and_then(|()| base.reopen()).map_err(wrong)?;
                let mut view = View::new(base);
                view.recent = recent;
                fold = Fold::new(view, run, settings.retained);
                recover::check(&mut fold, clock, &mut |what| log::error!("{what}"))
            }
            found => found,
        };
        let mut found = found.map_err(wrong)?;
        recover::restore(&mut fold, &mut found, shards, placement, before.shards, clock).map_err(wrong)?;
        let segment = segments.last().map_or(before.segment, |last| last + 1);
        let meta = Meta { run, placement: before.placement, shards: shards.len() as u16, segment };
        let journal = Journal::begin(&path, segment).map_err(io)?;
        // All of it in one step: what was given back, and what came of that.
        let View { group, recent, .. } = &mut fold.view;
        recent.absorb(group);
        let recent = std::mem::take(recent);
        fold.view.forget_reader();
        fold.view.base.commit(&recent, &found.damaged, meta).map_err(wrong)?;
        drop(recent);
        fold.view.base.prove(&mut |why| salvage(&path, why)).map_err(wrong)?;
        for segment in segments {
            journal::remove(&path, segment).map_err(io)?;
        }
        log::info!(
            "{} sessions with {} messages, and {} retained messages, from {} in {} ms.",
            found.sessions,
            found.queued,
            found.retained,
            path.display(),
            began.elapsed().as_millis()
        );
        if found.sessions + found.retained == 0
            && let Some(file) = import::neighbour(&settings)
        {
            let (hikyaku, file) = ("hikyaku -c CONFIG --import-mosquitto-db", file.display());
            log::info!(
                "{file} is of mosquitto and was not read. To take it over, end the broker first: {hikyaku} {file}"
            );
        }
        if !found.damaged.is_empty() {
            let records = found.damaged.len();
            log::error!("{records} records of {} were damaged and are put aside.", path.display());
        }
        Ok(Store::new(path, lock, settings.durability, fold, meta, journal, clock))
    }
}

fn salvage(path: &Path, why: &str) -> Result<(), BaseError> {
    log::error!("What is kept in {} is damaged: {why}. Reading what can be read.", path.display());
    let (records, aside) = salvage::salvage(&path.join(BASE), &Attempts::of(path))?;
    log::error!("{records} records could be read. The damaged file is now {}.", aside.display());
    Ok(())
}

/// Nobody else has the directory.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    /// Closing the file would do, but for a process that was forked meanwhile and has it until it runs another program.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock);
    }
}

fn lock(path: &Path) -> Result<Lock, StoreError> {
    let file = path.join("lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&file);
    let opened = opened.map_err(|cause| StoreError::Io { path: file, cause })?;
    match rustix::fs::flock(&opened, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(opened)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(path.into())),
        Err(e) => Err(StoreError::Io { path: path.into(), cause: e.into() }),
    }
}

impl StoreError {
    fn of(path: &Path, error: BaseError) -> StoreError {
        let path = path.to_owned();
        match error {
            BaseError::Io(cause) => StoreError::Io { path, cause },
            BaseError::Corrupt(what) => StoreError::Damaged { path, what },
            BaseError::Locked => StoreError::Locked(path),
            BaseError::Newer(what) => StoreError::Newer { path, what },
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Locked(path) => write!(
                f,
                "Another broker keeps its data in {}. Give each its own 'persistence_location'.",
                path.display()
            ),
            StoreError::Newer { path, what } => write!(
                f,
                "What is kept in {} is of a later version of hikyaku: {what}. It was left as it is.",
                path.display()
            ),
            StoreError::Io { path, cause } => {
                write!(f, "Cannot keep data in {}: {}.", path.display(), crate::unwritable(path, cause))
            }
            StoreError::Damaged { path, what } => write!(
                f,
                "What is kept in {} cannot be read: {what}. It was left as it is. 'hikyaku --salvage' saves what can be read; \
                 move it away to start without it.",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Io { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_forked_does_not_keep_the_lock() {
        let dir = std::env::temp_dir().join(format!("hikyaku-lock-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let held = lock(&dir).unwrap();
        assert!(matches!(lock(&dir), Err(StoreError::Locked(_))));
        // What a child has between fork and exec.
        let inherited = held.0.try_clone().unwrap();
        drop(held);
        drop(lock(&dir).unwrap());
        drop(inherited);
        fs::remove_dir_all(&dir).unwrap();
    }
}
