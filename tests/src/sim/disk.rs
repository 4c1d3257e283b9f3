//! A model of the disk: what is durable, what was written since, and how much of that a crash leaves.
//!
//! A turn of a shard is one batch, kept whole or not at all: a batch that was written in part has a wrong sum and is cut
//! off. Batches of all shards stand in one journal in the order they were written.

use hikyaku_proto::broker::store::model::Records;
use hikyaku_proto::broker::store::record::{self, Clock};
use hikyaku_proto::broker::store::{Loaded, StoreOp};
use hikyaku_proto::broker::{Placement, ShardId};
use hikyaku_proto::message::Message;
use std::collections::VecDeque;

struct Batch {
    shard: ShardId,
    upto: u64,
    ops: Vec<StoreOp>,
    clock: Clock,
    /// The oracle's step at which it was written.
    step: u64,
}

#[derive(Default)]
pub(crate) struct Disk {
    records: Records,
    unsynced: VecDeque<Batch>,
    pub torn: u64,
}

/// What a sync tells the shards.
pub(crate) enum Told {
    Stored(ShardId, u64),
    Loaded(ShardId, Loaded),
}

impl Disk {
    pub fn take(&mut self, shard: ShardId, upto: u64, ops: Vec<StoreOp>, clock: Clock, step: u64) {
        self.unsynced.push_back(Batch { shard, upto, ops, clock, step });
    }

    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The step before which everything is durable.
    pub fn durable_step(&self) -> u64 {
        self.unsynced.front().map_or(u64::MAX, |batch| batch.step)
    }

    /// The power fails after so much of a thousand of what was not synced: whole batches survive.
    pub fn crash(&mut self, per_mille: u64) -> usize {
        let weight = |batch: &Batch| 20 + 50 * batch.ops.len() as u64;
        let mut left = self.unsynced.iter().map(weight).sum::<u64>() * per_mille / 1000;
        let mut whole = 0;
        for batch in &self.unsynced {
            if weight(batch) > left {
                self.torn += u64::from(left > 0);
                break;
            }
            left -= weight(batch);
            whole += 1;
        }
        self.sync(whole);
        self.unsynced.clear();
        whole
    }

    /// What is kept besides retained messages, in short; nothing if there is nothing.
    pub fn leftovers(&self, clock: Clock) -> Option<String> {
        let other = self.records.iter().find(|(key, _)| !matches!(key[0], b'b' | b'r' | b'm'));
        if let Some((key, value)) = other {
            return Some(format!("{:?}", record::read(key, value, clock)));
        }
        let count = |kind| self.records.iter().filter(|(key, _)| key[0] == kind).count();
        let (retained, bodies) = (count(b'r'), count(b'b'));
        (retained != bodies).then(|| format!("{retained} retained messages, {bodies} bodies"))
    }

    /// Makes the first batches durable.
    pub fn sync(&mut self, batches: usize) -> Vec<Told> {
        let mut told = Vec::new();
        for batch in self.unsynced.drain(..batches).collect::<Vec<_>>() {
            for op in batch.ops {
                if let Some(loaded) = self.records.apply(op, batch.clock) {
                    told.push(Told::Loaded(batch.shard, loaded));
                }
            }
            told.push(Told::Stored(batch.shard, batch.upto));
        }
        told
    }

    /// What was on its way between shards; forgets all of it.
    pub fn take_forwards(&mut self, clock: Clock) -> Vec<(ShardId, Message, Option<Box<str>>)> {
        self.records.take_forwards(clock)
    }

    /// Everything, as a restart hands it in.
    pub fn restore(&self, placement: &Placement, clock: Clock) -> Vec<(ShardId, StoreOp)> {
        self.records.restore(placement, clock)
    }
}
