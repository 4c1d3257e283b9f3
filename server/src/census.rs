//! How many sessions there are, for `global_max_clients`: each worker writes down its own, and adds up the others'.

use hikyaku_proto::broker::{Input, Shard};
use hikyaku_proto::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The sessions of each worker, as of its last turn.
#[derive(Clone, Debug)]
pub(crate) struct Census(Arc<[AtomicU32]>);

impl Census {
    pub(crate) fn new(workers: u16) -> Census {
        Census((0..workers).map(|_| AtomicU32::new(0)).collect())
    }

    /// Tells the others how many sessions `shard` has.
    pub(crate) fn tell(&self, shard: &Shard) {
        if let Some(own) = self.0.get(usize::from(shard.id())) {
            let sessions = u32::try_from(shard.counters().clients_total).unwrap_or(u32::MAX);
            own.store(sessions, Ordering::Relaxed);
        }
    }

    /// Tells `shard` how many sessions the others have.
    pub(crate) fn hear(&self, now: Instant, shard: &mut Shard) {
        let others = self.0.iter().enumerate().filter(|&(id, _)| id != usize::from(shard.id()));
        let sum = others.map(|(_, n)| n.load(Ordering::Relaxed)).fold(0, u32::saturating_add);
        shard.handle(now, Input::SessionsElsewhere(sum));
    }
}
