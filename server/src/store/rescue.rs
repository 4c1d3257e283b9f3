//! By hand, while no broker runs: what can be read of a store goes to a new one, the old files are kept beside it.
//!
//! Each step leaves something a broker can start with: the old files get second names first, then the new base takes the place of
//! the old one, and it says that the journal is behind it.

use super::attempts::{Attempts, DEATHS_MAX};
use super::base::{Base, BaseError, Meta};
use super::fold::Fold;
use super::layer::Key;
use super::recover::{self, Found, kind};
use super::salvage::{self, Copied, Reading, with_end};
use super::view::{View, checked, seal};
use super::{BASE, DIRECTORY, StoreError, journal, lock};
use crate::clock::Clock;
use hikyaku_proto::broker::Placement;
use hikyaku_proto::broker::store::record;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What became of a store that was to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescued {
    /// Nothing was damaged; it was left as it is.
    Whole,
    /// There is a new one, with what could be read.
    Renewed,
}

/// Saves what can be read of the store below `location` (or at it), and tells line by line what that is. Fails, and
/// changes nothing, if a broker runs on it or a later version wrote it.
pub fn rescue(location: &Path, tell: &mut dyn FnMut(String)) -> Result<Rescued, StoreError> {
    let below = location.join(DIRECTORY);
    let is_it = !below.exists() && location.file_name().is_some_and(|name| name == DIRECTORY);
    let path = if is_it { location.to_owned() } else { below };
    let owner = fs::metadata(&path).map_err(|cause| StoreError::Io { path: path.clone(), cause })?;
    let _lock = lock(&path)?;
    // Who calls this has seen a broker die, or this.
    let reading =
        if Attempts::of(&path).deaths() + 1 < DEATHS_MAX { Reading::Engine } else { Reading::Pages };
    Rescue::new(&path, reading, tell).run((owner.uid(), owner.gid())).map_err(|e| StoreError::of(&path, e))
}

/// At a start: if the engine has ended the broker too often, its file is read without it.
pub(super) fn rescue_from_engine(path: &Path, tell: &mut dyn FnMut(String)) -> Result<(), BaseError> {
    if Attempts::of(path).deaths() < DEATHS_MAX {
        return Ok(());
    }
    let owner = fs::metadata(path)?;
    Rescue::new(path, Reading::Pages, tell).run((owner.uid(), owner.gid())).map(drop)
}

struct Rescue<'a> {
    path: &'a Path,
    /// The new base, until it takes its place.
    fresh: PathBuf,
    reading: Reading,
    attempts: Attempts,
    tell: &'a mut dyn FnMut(String),
}

impl<'a> Rescue<'a> {
    fn new(path: &'a Path, reading: Reading, tell: &'a mut dyn FnMut(String)) -> Self {
        let (fresh, attempts) = (path.join(BASE.to_owned() + ".new"), Attempts::of(path));
        Rescue { path, fresh, reading, attempts, tell }
    }

    fn tell(&mut self, line: impl Into<String>) {
        (self.tell)(line.into());
    }

    fn run(mut self, owner: (u32, u32)) -> Result<Rescued, BaseError> {
        let _ = fs::remove_file(&self.fresh);
        let result = self.renew(owner);
        if !matches!(result, Ok(Rescued::Renewed)) {
            let _ = fs::remove_file(&self.fresh);
        }
        result
    }

    fn renew(&mut self, owner: (u32, u32)) -> Result<Rescued, BaseError> {
        let file = self.path.join(BASE);
        let clock = Clock::start();
        let copied = self.read_base(&file)?;
        let base = Arc::new(Base::open(&self.fresh)?);
        let mut view = View::new(Arc::clone(&base));
        let segments = journal::segments(self.path)?;
        let journal_is_whole = self.read_journal(&segments, copied.meta, &mut view)?;
        let run = newest_run(&view)?.max(copied.meta.map_or(0, |meta| meta.run));
        let mut fold = Fold::new(view, run.saturating_add(1), true);
        let known = copied.meta.map_or_else(|| begin_anew(&mut fold), Ok)?;
        let mut lines = Vec::new();
        let mut found = recover::check(&mut fold, clock, &mut |line| lines.push(line))?;
        recover::take_stock(&fold, &mut found, clock, &mut |line| lines.push(line))?;
        let is_whole = self.reading == Reading::Engine
            && copied.meta.is_some()
            && copied.trouble.is_empty()
            && journal_is_whole
            && found.damaged.is_empty()
            && self.opens(&file);
        lines.into_iter().for_each(|line| self.tell(line));
        self.sum_up(&found, if is_whole { 0 } else { fold.remains() });
        if is_whole {
            fold.view.forget_reader();
            base.close();
            self.tell("Nothing is damaged. It was left as it is.");
            return Ok(Rescued::Whole);
        }
        let segment = segments.last().map_or(known.segment, |last| last + 1);
        let View { group, recent, .. } = &mut fold.view;
        recent.absorb(group);
        let changes = std::mem::take(recent);
        fold.view.forget_reader();
        base.commit(&changes, &found.damaged, Meta { run, segment, ..known })?;
        base.close();
        // Who runs this may be root, and who runs the broker not.
        for file in [&self.fresh, &self.path.join("lock")] {
            let _ = chown(file, Some(owner.0), Some(owner.1));
        }
        self.put_in_place(&file, &segments)?;
        self.attempts.forgive();
        Ok(Rescued::Renewed)
    }

    fn read_base(&mut self, file: &Path) -> Result<Copied, BaseError> {
        if !file.exists() {
            self.tell(format!("{} is not there.", file.display()));
            return Ok(Copied::default());
        }
        match self.reading {
            Reading::Engine => self.tell(format!("Reading {}.", file.display())),
            Reading::Pages => self.tell(format!(
                "The database engine has ended the broker {} times in a row over {}: it is damaged, and read without the engine.",
                self.attempts.deaths(),
                file.display()
            )),
        }
        let copied = salvage::copy(file, &self.fresh, self.reading, &self.attempts)?;
        for why in &copied.trouble {
            self.tell(format!("The engine cannot read all of {BASE}: {why}."));
        }
        if self.reading == Reading::Engine {
            self.tell(format!("{} records were read from {BASE}.", copied.records));
        }
        if copied.found > 0 {
            self.tell(format!(
                "{} records were found in single pages. Some may be older than what was there last: \
                 messages that were delivered already may come again.",
                copied.found
            ));
        }
        if copied.meta.is_none() {
            self.tell(format!(
                "{BASE} does not say how names are hashed: messages between workers are lost."
            ));
        }
        Ok(copied)
    }

    /// Adds what the journal says to the view. Says whether all of it could be read.
    fn read_journal(
        &mut self,
        segments: &[u64],
        meta: Option<Meta>,
        view: &mut View,
    ) -> Result<bool, BaseError> {
        let mut whole = true;
        let first = meta.map_or(0, |meta| meta.segment);
        for &segment in segments.iter().filter(|&&segment| segment >= first) {
            let name = journal::name(segment);
            match journal::replay(self.path, segment, &mut view.recent) {
                Ok(0) => self.tell(format!("{name} was read.")),
                Ok(bad) => {
                    self.tell(format!(
                        "{bad} bytes in the middle of {name} are damaged: what they said is lost."
                    ));
                    whole = false;
                }
                Err(e) => {
                    self.tell(format!("The rest of {name} cannot be read: {e}."));
                    whole = false;
                }
            }
        }
        Ok(whole)
    }

    /// Whether a broker could open it.
    fn opens(&mut self, file: &Path) -> bool {
        match Base::open_counted(file, self.attempts.clone()) {
            Ok(base) => {
                base.close();
                true
            }
            Err(e) => {
                self.tell(format!("The engine does not open {BASE}: {e}."));
                false
            }
        }
    }

    fn sum_up(&mut self, found: &Found, remains: usize) {
        self.tell(format!(
            "Saved: {} sessions with {} messages, and {} retained messages.",
            found.sessions, found.queued, found.retained
        ));
        let mut kinds = BTreeMap::new();
        found.damaged.iter().for_each(|key| *kinds.entry(kind(key)).or_insert(0u64) += 1);
        if !kinds.is_empty() {
            let count =
                |((one, many), n): (&(&str, &str), &u64)| format!("{n} {}", if *n == 1 { one } else { many });
            let kinds: Vec<_> = kinds.iter().map(count).collect();
            self.tell(format!("Put aside, in the table 'damaged': {}.", kinds.join(", ")));
        }
        if remains > 0 {
            self.tell(format!("{remains} sessions are left out: only parts of them are there."));
        }
    }

    fn put_in_place(&mut self, file: &Path, segments: &[u64]) -> Result<(), BaseError> {
        let journals: Vec<PathBuf> = segments.iter().map(|s| self.path.join(journal::name(*s))).collect();
        let mut old = journals.clone();
        old.extend(file.exists().then(|| file.to_owned()));
        let is_free = |end: &String| !old.iter().any(|file| with_end(file, end).exists());
        let end = (1..).map(|n| format!(".damaged-{n}")).find(is_free).unwrap_or_default();
        for file in &old {
            let aside = with_end(file, &end);
            // Where a file has one name only, a copy does.
            fs::hard_link(file, &aside).or_else(|_| fs::copy(file, &aside).map(|_| ()))?;
        }
        sync(self.path)?;
        fs::rename(&self.fresh, file)?;
        sync(self.path)?;
        for journal in &journals {
            fs::remove_file(journal)?;
        }
        sync(self.path)?;
        let names: Vec<_> = old
            .iter()
            .filter_map(|f| Some(with_end(f, &end).file_name()?.to_string_lossy().into_owned()))
            .collect();
        self.tell(format!(
            "The old files are beside the new one in {}: {}.",
            self.path.display(),
            names.join(", ")
        ));
        Ok(())
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The last run that named a message or a session: names must not be given twice.
fn newest_run(view: &View) -> Result<u32, BaseError> {
    let mut newest = 0;
    view.visit([0].into()..=[u8::MAX].into(), |key, _| {
        let at = match key.first() {
            Some(b'b') => 3,
            Some(b's') => 5,
            _ => return ControlFlow::Continue(()),
        };
        let run =
            key.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u64::from_be_bytes(*n) >> 40);
        newest = newest.max(run as u32);
        ControlFlow::Continue(())
    })?;
    Ok(newest)
}

/// Nobody knows how names were hashed to slots: they are hashed anew. What names workers means nothing then.
fn begin_anew(fold: &mut Fold) -> Result<Meta, BaseError> {
    let placement = getrandom::u64().map_err(io::Error::other)?;
    let slots = Placement::new(placement, 1);
    let (mut gone, mut put) = (Vec::<Key>::new(), Vec::new());
    fold.view.visit(b"f".as_slice().into()..=b"s".as_slice().into(), |key, value| {
        let topic = key.strip_prefix(b"r").and_then(|key| std::str::from_utf8(key.get(2..)?).ok());
        let again = topic.zip(checked(key, value)).map(|(topic, value)| {
            let key = record::retained_key(slots.slot(topic.as_bytes()) as u16, topic);
            let value = seal(&key, value.to_vec());
            (Key::from(key), value)
        });
        // One that is damaged stays, to be put aside.
        if again.is_some() || key.first() != Some(&b'r') {
            gone.push(key.into());
            put.extend(again);
        }
        ControlFlow::Continue(())
    })?;
    gone.into_iter().for_each(|key| fold.remove(key));
    put.into_iter().for_each(|(key, value)| fold.view.group.put(key, value, false));
    Ok(Meta { run: 0, placement, shards: 0, segment: 0 })
}
