//! An empty store that gets all it is to hold in one step.

use super::base::{BaseError, Meta};
use super::layer::Key;
use super::view::View;
use super::{DIRECTORY, Opened, StoreError, journal};
use crate::config::PersistenceSettings;
use hikyaku_proto::broker::store::StoreOp;
use hikyaku_proto::broker::store::record::Clock;
use std::ops::ControlFlow;
use std::path::PathBuf;

impl Opened {
    /// Where the store is.
    pub(crate) fn directory(settings: &PersistenceSettings) -> PathBuf {
        settings.location.clone().unwrap_or_else(|| PathBuf::from(".")).join(DIRECTORY)
    }

    /// The run that begins: what is made in it is counted from there.
    pub(crate) fn run(&self) -> u32 {
        self.before.run + 1
    }

    /// Whether nothing is kept: neither sessions nor retained messages nor any on their way.
    pub(crate) fn is_empty(&self) -> Result<bool, StoreError> {
        let mut empty = true;
        // Bodies that nobody names are of no use, nor are marks.
        let keys = b"c".as_slice().into()..=[u8::MAX].as_slice().into();
        let found = self.fold.view.visit(keys, |key, _| {
            empty = key.first() == Some(&b'm');
            if empty { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        found.map_err(|e| StoreError::of(&self.path, e))?;
        Ok(empty)
    }

    /// Makes all the changes that `say` says, or none; one shard has made them. They are on disk afterwards, and the store is closed.
    pub(crate) fn fill<T>(
        self,
        clock: Clock,
        say: impl FnOnce(&mut dyn FnMut(StoreOp) -> Result<(), StoreError>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let run = self.run();
        let Opened { path, lock, mut fold, before, segments, .. } = self;
        let wrong = |e: BaseError| StoreError::of(&path, e);
        let mut old: Vec<Key> = Vec::new();
        let everything = [0].as_slice().into()..=[u8::MAX].as_slice().into();
        let found = fold.view.visit(everything, |key, _| {
            old.push(key.into());
            ControlFlow::Continue(())
        });
        found.map_err(wrong)?;
        old.into_iter().for_each(|key| fold.remove(key));
        let said = say(&mut |op| fold.apply(&op, clock).map(drop).map_err(wrong))?;
        let segment = segments.last().map_or(before.segment, |last| last + 1);
        let meta = Meta { run, placement: before.placement, shards: 1, segment };
        let View { group, mut recent, base, .. } = fold.view;
        let mut group = group;
        recent.absorb(&mut group);
        base.commit(&recent, &[], meta).map_err(wrong)?;
        base.close();
        for segment in segments {
            // The next start would do so, too.
            let _ = journal::remove(&path, segment);
        }
        drop(lock);
        Ok(said)
    }
}
