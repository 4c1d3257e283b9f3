//! A store in memory: what is written, and how much of that would survive.

use hikyaku_proto::broker::store::model::Records;
use hikyaku_proto::broker::store::record::Clock;
use hikyaku_proto::broker::store::{Loaded, StoreOp};
use hikyaku_proto::broker::{Placement, ShardId};
use hikyaku_proto::message::Message;
use hikyaku_proto::time::Instant;
use std::collections::VecDeque;

/// One turn of a shard, which is kept whole or not at all.
struct Batch {
    shard: ShardId,
    upto: u64,
    ops: Vec<StoreOp>,
    clock: Clock,
}

#[derive(Default)]
pub struct Disk {
    /// What would survive.
    records: Records,
    /// What was written since.
    unsynced: VecDeque<Batch>,
    /// How many changes were ever made.
    pub writes: u64,
}

/// What a sync tells the shards.
pub enum Told {
    Stored(ShardId, u64),
    Loaded(ShardId, Loaded),
}

/// Wall time in a test is the monotonic one, from some day on.
pub fn clock(now: Instant) -> Clock {
    Clock { now, wall_us: 1_000_000_000_000 + now.micros() }
}

impl Disk {
    pub fn take(&mut self, shard: ShardId, upto: u64, ops: Vec<StoreOp>, now: Instant) {
        self.writes += ops.len() as u64;
        self.unsynced.push_back(Batch { shard, upto, ops, clock: clock(now) });
    }

    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
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

    /// The power fails: the first batches survive.
    pub fn crash(&mut self, batches: usize) {
        self.sync(batches);
        self.unsynced.clear();
    }

    /// How many records there are, bodies among them.
    pub fn len(&self) -> (usize, usize) {
        self.records.len()
    }

    pub fn take_forwards(&mut self, now: Instant) -> Vec<(u16, Message, Option<Box<str>>)> {
        self.records.take_forwards(clock(now))
    }

    pub fn restore(&self, placement: &Placement, now: Instant) -> Vec<(ShardId, StoreOp)> {
        self.records.restore(placement, clock(now))
    }
}
