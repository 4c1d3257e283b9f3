//! The two threads of the store.
//!
//! The first takes batches, makes a group of what there is, writes it to the journal and tells the workers. When the journal or what
//! is in memory above the base has grown, it begins a new segment and hands the changes to the second thread, which brings
//! them to the base and removes the old segments. So nobody waits for the base, unless changes come faster than it takes them.
//!
//! If the journal cannot be written, the group stays in memory and is written whole, to a new segment, when that is possible again.
//! A sync that failed is never tried again: what was to be synced is written anew, or brought to the base.

use super::Lock;
use super::base::{BaseError, Meta};
use super::fold::Fold;
use super::journal::{self, Journal};
use super::layer::Layer;
use crate::clock::Clock;
use crate::config::Durability;
use crate::letter::Letter;
use crate::wake::Letterbox;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use hikyaku_proto::broker::ShardId;
use hikyaku_proto::broker::store::StoreOp;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a group may grow to before it is written.
const GROUP_BYTES: usize = 4 << 20;
/// What is held in memory above the base before it is brought there.
const RECENT_BYTES: usize = if cfg!(test) { 32 << 10 } else { 4 << 20 };
/// How long a segment of the journal gets.
const SEGMENT_BYTES: u64 = 32 << 20;
/// What may be held in memory while the base is slow; then the workers wait.
const RECENT_BYTES_MAX: usize = 2 * RECENT_BYTES;
/// How long after a failure to try again.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(2) };
/// Unless each group is synced: how often everything is.
const SYNC: Duration = Duration::from_secs(1);
/// When nothing has come for so long, the base is brought up to date, and its file made smaller.
const IDLE: Duration = Duration::from_secs(5);
/// How often a lasting failure is told at most.
const COMPLAIN: Duration = Duration::from_secs(60);

/// What one turn of one shard has to keep: all of it or nothing.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) shard: ShardId,
    /// What to confirm.
    pub(crate) upto: u64,
    pub(crate) ops: Vec<StoreOp>,
}

/// What the second thread is to do.
enum Job {
    Commit(Arc<Layer>, Meta),
    Sync(Arc<File>),
    Shrink,
}

type Done = Result<(), BaseError>;

/// What comes when its time has come.
enum Task {
    /// To try a commit again.
    Commit,
    /// To bring to the base what a failed sync makes doubtful.
    Renew,
    Sync,
    /// To bring the base up to date while nobody wants anything, and make its file smaller.
    Rest,
}

/// The first thread, before it runs.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// Held as long as the store is open.
    _lock: Lock,
    durability: Durability,
    fold: Fold,
    meta: Meta,
    journal: Journal,
    clock: Clock,
}

struct Keeper {
    store: Store,
    letterboxes: Arc<[Letterbox<Letter>]>,
    jobs: Sender<Job>,
    /// Batches that are not in the group yet; how many changes of the first one are.
    inbox: VecDeque<Batch>,
    applied: usize,
    /// What each shard is told when the group is kept.
    confirm: Vec<Option<u64>>,
    /// The workers to wake, as bits.
    to_ring: u64,
    /// Since when and why nothing is taken.
    failure: Option<Failure>,
    /// When the base is to be tried again, and when that was told last.
    base_retry: Option<Instant>,
    base_told: Option<Instant>,
    /// What the second thread does.
    busy: bool,
    committing: bool,
    syncing: bool,
    unsynced: Option<Instant>,
    /// Whether a sync has failed: what the journal has of the changes above the base may be lost.
    distrusted: bool,
    last_change: Instant,
    shrunk: bool,
}

struct Failure {
    /// Whether it was the base that could not be read.
    reading: bool,
    retry: Instant,
    told: Instant,
}

impl Store {
    pub(super) fn new(
        path: PathBuf,
        lock: Lock,
        durability: Durability,
        fold: Fold,
        meta: Meta,
        journal: Journal,
        clock: Clock,
    ) -> Store {
        Store { path, _lock: lock, durability, fold, meta, journal, clock }
    }

    /// Starts the threads. They end, with everything written, when all senders are gone.
    pub(crate) fn start(
        self,
        letterboxes: Arc<[Letterbox<Letter>]>,
    ) -> io::Result<(Sender<Batch>, JoinHandle<io::Result<()>>)> {
        let (sender, batches) = unbounded();
        let run = move || {
            let _guard = AbortOnPanic;
            self.run(&batches, letterboxes)
        };
        Ok((sender, std::thread::Builder::new().name("store".into()).spawn(run)?))
    }

    fn run(self, batches: &Receiver<Batch>, letterboxes: Arc<[Letterbox<Letter>]>) -> io::Result<()> {
        let (jobs, todo) = bounded(1);
        let (done, dones) = bounded::<Done>(1);
        let (base, path) = (Arc::clone(&self.fold.view.base), self.path.clone());
        let second = std::thread::Builder::new().name("store base".into()).spawn(move || {
            let _guard = AbortOnPanic;
            for job in todo {
                let result = match job {
                    Job::Commit(layer, meta) => base.commit(&layer, &[], meta).and_then(|()| {
                        let old = journal::segments(&path)?.into_iter().filter(|s| *s < meta.segment);
                        old.into_iter().try_for_each(|s| journal::remove(&path, s))?;
                        Ok(())
                    }),
                    Job::Sync(file) => file.sync_data().map_err(BaseError::Io),
                    Job::Shrink => base.shrink().map(|_| ()),
                };
                if result.is_err() {
                    // After an error the engine serves nobody before it is opened again.
                    if let Err(e) = base.reopen() {
                        log::debug!("The base does not open: {e}.");
                    }
                }
                if done.send(result).is_err() {
                    return;
                }
            }
        })?;
        let shards = letterboxes.len();
        let mut keeper = Keeper {
            store: self,
            letterboxes,
            jobs,
            inbox: VecDeque::new(),
            applied: 0,
            confirm: vec![None; shards],
            to_ring: 0,
            failure: None,
            base_retry: None,
            base_told: None,
            busy: false,
            committing: false,
            syncing: false,
            unsynced: None,
            distrusted: false,
            last_change: Instant::now(),
            shrunk: true,
        };
        keeper.work(batches, &dones);
        let result = keeper.close(&dones);
        drop(keeper);
        let _ = second.join();
        result
    }
}

impl Keeper {
    fn work(&mut self, batches: &Receiver<Batch>, dones: &Receiver<Done>) {
        loop {
            // While the base is behind, nothing is taken.
            let full = self.store.fold.view.recent.bytes() > RECENT_BYTES_MAX && self.committing;
            let wait = self.wait();
            if full {
                match dones.recv_timeout(wait) {
                    Ok(done) => self.on_done(done),
                    Err(_) => self.on_time(),
                }
                self.ring();
                continue;
            }
            select! {
                recv(batches) -> batch => match batch {
                    Ok(batch) => self.take(batch),
                    Err(_) => return,
                },
                recv(dones) -> done => self.on_done(done.unwrap_or(Ok(()))),
                default(wait) => {}
            }
            self.apply();
            while self.inbox.is_empty()
                && self.store.fold.view.group.bytes() < GROUP_BYTES
                && let Ok(batch) = batches.try_recv()
            {
                self.take(batch);
                self.apply();
            }
            self.on_time();
            self.keep();
            self.ring();
        }
    }

    /// How long nothing has to be done.
    fn wait(&self) -> Duration {
        let now = Instant::now();
        if self.store.fold.has_remains() && self.failure.is_none() {
            return Duration::ZERO;
        }
        let retry = self.failure.as_ref().map(|f| f.retry);
        let next = self.due().map(|(at, _)| at).into_iter().chain(retry).min();
        next.map_or(Duration::from_secs(60), |at| at.saturating_duration_since(now))
    }

    /// What is to be done next by the second thread, and when. What is waited for is what is done then, or the thread would never rest.
    fn due(&self) -> Option<(Instant, Task)> {
        if self.busy {
            return None;
        }
        let retry = self.base_retry.map(|at| (at, Task::Commit));
        let sync = self.unsynced.map(|at| (at + SYNC, Task::Sync));
        let works = self.failure.is_none() && !self.committing;
        let distrust = (works && self.distrusted).then_some((self.last_change, Task::Renew));
        let is_behind = !self.store.fold.view.recent.is_empty() || !self.shrunk;
        let idle = (works && is_behind).then(|| (self.last_change + IDLE, Task::Rest));
        [retry, distrust, sync, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn take(&mut self, batch: Batch) {
        if self.store.durability == Durability::Memory {
            self.post(batch.shard, Letter::Stored { upto: batch.upto });
        }
        self.inbox.push_back(batch);
    }

    /// Makes what came part of the group.
    fn apply(&mut self) {
        if self.failure.as_ref().is_some_and(|f| f.retry > Instant::now()) && !self.inbox.is_empty() {
            return;
        }
        if self.failure.as_ref().is_some_and(|f| f.reading) && !self.busy {
            let view = &mut self.store.fold.view;
            view.forget_reader();
            if let Err(e) = view.base.reopen() {
                return self.fail("read", &e);
            }
        }
        let at = self.store.clock.of_store();
        while let Some(batch) = self.inbox.pop_front() {
            while let Some(op) = batch.ops.get(self.applied) {
                match self.store.fold.apply(op, at) {
                    Ok(None) => {}
                    Ok(Some(loaded)) => self.post(batch.shard, Letter::Loaded(Box::new(loaded))),
                    Err(e) => {
                        self.inbox.push_front(batch);
                        return self.fail("read", &e);
                    }
                }
                self.applied += 1;
            }
            self.applied = 0;
            if let Some(upto) = self.confirm.get_mut(usize::from(batch.shard)) {
                *upto = Some(batch.upto);
            }
        }
        if self.store.fold.has_remains()
            && self.failure.is_none()
            && let Err(e) = self.store.fold.clear_remains(at)
        {
            self.fail("read", &e);
        }
    }

    /// Writes the group, and says so.
    fn keep(&mut self) {
        if self.failure.as_ref().is_some_and(|f| f.retry > Instant::now()) || self.applied > 0 {
            return;
        }
        if self.failure.is_some()
            && let Err(e) = self.store.journal.evade()
        {
            // Nobody knows what the last segment ends with.
            return self.fail("written", &e);
        }
        if !self.store.fold.view.group.is_empty() {
            if let Err(e) = self.write() {
                return self.fail("written", &e);
            }
            self.last_change = Instant::now();
            self.shrunk = false;
            let view = &mut self.store.fold.view;
            view.recent.absorb(&mut view.group);
        }
        if self.failure.is_some() && !self.inbox.is_empty() {
            return;
        }
        if self.failure.take().is_some() {
            self.post_all(|| Letter::StoreFailed(false));
            self.ring();
            log::warn!("{} takes changes again.", self.store.path.display());
        }
        for shard in 0..self.confirm.len() {
            if let Some(upto) = self.confirm[shard].take()
                && self.store.durability != Durability::Memory
            {
                self.post(shard as ShardId, Letter::Stored { upto });
            }
        }
        let view = &self.store.fold.view;
        if view.recent.bytes() > RECENT_BYTES || self.store.journal.len() > SEGMENT_BYTES {
            self.freeze();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Store { journal, fold, .. } = &mut self.store;
        journal.append(&fold.view.group)?;
        match self.store.durability {
            Durability::Disk => self.store.journal.sync()?,
            _ => drop(self.unsynced.get_or_insert_with(Instant::now)),
        }
        Ok(())
    }

    /// Hands what is above the base to the second thread, if that has time.
    fn freeze(&mut self) {
        if self.busy || self.committing || self.base_retry.is_some() || self.store.fold.view.recent.is_empty()
        {
            return;
        }
        if let Err(e) = self.store.journal.rotate() {
            return self.fail("written", &e);
        }
        let view = &mut self.store.fold.view;
        view.frozen = Some(Arc::new(std::mem::take(&mut view.recent)));
        self.committing = true;
        self.unsynced = None;
        self.distrusted = false;
        self.store.meta.segment = self.store.journal.segment();
        self.commit();
    }

    fn commit(&mut self) {
        self.base_retry = None;
        if let Some(frozen) = &self.store.fold.view.frozen {
            let job = Job::Commit(Arc::clone(frozen), self.store.meta);
            self.store.fold.view.forget_reader();
            self.give(job);
        }
    }

    fn give(&mut self, job: Job) {
        self.busy = true;
        // It takes one job at a time, and lives as long as this thread.
        let _ = self.jobs.send(job);
    }

    fn on_done(&mut self, done: Done) {
        self.busy = false;
        // What was read is of the base as it was.
        self.store.fold.view.forget_reader();
        match done {
            Ok(()) if self.committing => {
                self.committing = false;
                self.base_told = None;
                self.store.fold.view.frozen = None;
            }
            Ok(()) => {}
            Err(e) if self.committing => {
                self.base_retry = Some(Instant::now() + RETRY);
                if self.store.fold.view.recent.bytes() > RECENT_BYTES {
                    self.fail("written", &e);
                } else if self.base_told.is_none_or(|told| told.elapsed() >= COMPLAIN) {
                    self.base_told = Some(Instant::now());
                    log::error!("{} cannot be brought up to date: {e}.", self.store.path.display());
                }
            }
            Err(e) if self.syncing => {
                self.distrusted = true;
                log::error!("{} cannot be synced: {e}. It is written anew.", self.store.path.display());
            }
            Err(e) => log::error!("{}: {e}.", self.store.path.display()),
        }
        self.syncing = false;
    }

    fn on_time(&mut self) {
        let Some((_, task)) = self.due().filter(|(at, _)| *at <= Instant::now()) else { return };
        match task {
            Task::Commit => self.commit(),
            Task::Renew => {
                self.distrusted = !self.store.fold.view.recent.is_empty();
                self.freeze();
            }
            Task::Sync => {
                self.unsynced = None;
                let file = Arc::clone(self.store.journal.file());
                self.syncing = true;
                self.give(Job::Sync(file));
            }
            Task::Rest if !self.store.fold.view.recent.is_empty() => self.freeze(),
            Task::Rest => {
                self.shrunk = true;
                self.store.fold.view.forget_reader();
                self.give(Job::Shrink);
            }
        }
    }

    /// From now on nothing is promised.
    fn fail(&mut self, what: &str, why: &dyn std::fmt::Display) {
        let now = Instant::now();
        self.store.fold.view.forget_reader();
        if what == "written" {
            self.store.fold.view.group.may_be_known();
        }
        let told = self.failure.as_ref().map(|f| f.told);
        if told.is_none() {
            self.post_all(|| Letter::StoreFailed(true));
            self.ring();
        }
        if told.is_none_or(|told| told + COMPLAIN <= now) {
            log::error!(
                "{} cannot be {what}: {why}. QoS 1 and 2 are refused until it can.",
                self.store.path.display()
            );
        }
        let told = told.filter(|told| *told + COMPLAIN > now).unwrap_or(now);
        let reading = what == "read";
        self.failure = Some(Failure { reading, retry: now + RETRY, told });
    }

    fn post(&mut self, shard: ShardId, letter: Letter) {
        #[cfg(test)]
        if let Letter::Stored { upto } = letter {
            super::power::note(&self.store.path.join("-"), super::power::Event::Stored(upto));
        }
        // A worker that has ended waits for nothing.
        if let Some(letterbox) = self.letterboxes.get(usize::from(shard))
            && letterbox.post(letter).is_ok()
        {
            self.to_ring |= 1 << shard;
        }
    }

    fn post_all(&mut self, letter: impl Fn() -> Letter) {
        (0..self.letterboxes.len()).for_each(|shard| self.post(shard as ShardId, letter()));
    }

    fn ring(&mut self) {
        let mut to_ring = std::mem::take(&mut self.to_ring);
        while to_ring != 0 {
            self.letterboxes[to_ring.trailing_zeros() as usize].ring();
            to_ring &= to_ring - 1;
        }
    }

    /// Everything to the disk. What cannot be brought to the base stays in the journal.
    fn close(&mut self, dones: &Receiver<Done>) -> io::Result<()> {
        self.failure.iter_mut().for_each(|f| f.retry = Instant::now());
        self.apply();
        self.keep();
        let kept = self.failure.is_none() && self.inbox.is_empty();
        let synced = self.store.journal.sync();
        if self.busy
            && let Ok(done) = dones.recv()
        {
            self.on_done(done);
        }
        if self.base_retry.is_none() && self.store.fold.view.frozen.is_none() {
            self.freeze();
            if self.busy
                && let Ok(done) = dones.recv()
            {
                self.on_done(done);
            }
        }
        self.store.fold.view.forget_reader();
        self.store.fold.view.base.close();
        synced?;
        match kept && !self.distrusted {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} could not be written", self.store.path.display()))),
        }
    }
}

/// Half-changed state is worse than none.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("The store panicked; this is a bug. The broker ends.");
            std::process::abort();
        }
    }
}
