//! An empty store that gets all it is to hold in one step.

use super::base::{BaseError, Meta};
use super::layer::{Key, Layer};
use super::{DIRECTORY, Opened, StoreError, journal};
use crate::config::PersistenceSettings;
use hikyaku_proto::broker::store::StoreOp;
use hikyaku_proto::broker::store::record::Clock;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

/// What is held in memory of the changes.
const GROUP_BYTES: usize = 4 << 20;

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
        say: impl FnOnce(&mut dyn FnMut(StoreOp) -> Result<(), FillError>) -> Result<T, FillError>,
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
        fold.view.recent = Layer::default();
        old.into_iter().for_each(|key| fold.remove(key));
        fold.view.forget_reader();
        let segment = segments.last().map_or(before.segment, |last| last + 1);
        let meta = Meta { run, placement: before.placement, shards: 1, segment };
        let base = Arc::clone(&fold.view.base);
        // What has left the group is not seen any more: of a message that is named again the body is written again.
        let said = base.commit_layers(meta, |commit| {
            let mut apply = |op| {
                fold.apply(&op, clock).map_err(FillError)?;
                if fold.view.group.bytes() > GROUP_BYTES {
                    commit(&std::mem::take(&mut fold.view.group)).map_err(FillError)?;
                }
                Ok(())
            };
            let said = say(&mut apply).map_err(|FillError(e)| e)?;
            commit(&fold.view.group)?;
            Ok(said)
        });
        let said = said.map_err(wrong)?;
        fold.view.forget_reader();
        base.close();
        for segment in segments {
            // The next start would do so, too.
            let _ = journal::remove(&path, segment);
        }
        drop(lock);
        Ok(said)
    }
}

/// Why a change cannot be made; to be handed back.
#[derive(Debug)]
pub(crate) struct FillError(BaseError);
