//! How much there is of what is limited for all workers together: each writes down its own, and adds up the others'.

use hikyaku_proto::broker::{Config, Holdings, Input, Shard};
use hikyaku_proto::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What each worker had, as of its last turn.
#[derive(Clone, Debug)]
pub(crate) struct Census(Arc<[Page]>);

/// What one worker has.
#[derive(Debug, Default)]
struct Page {
    sessions: AtomicU64,
    retained: AtomicU64,
    retained_bytes: AtomicU64,
}

impl Census {
    pub(crate) fn new(workers: u16) -> Census {
        Census((0..workers).map(|_| Page::default()).collect())
    }

    /// Whether anyone wants to know.
    pub(crate) fn is_needed(config: &Config) -> bool {
        config.max_sessions != u32::MAX
            || config.max_retained_messages != u64::MAX
            || config.max_retained_bytes != u64::MAX
    }

    /// Tells the others what `shard` has.
    pub(crate) fn tell(&self, shard: &Shard) {
        if let Some(own) = self.0.get(usize::from(shard.id())) {
            let Holdings { sessions, retained, retained_bytes } = shard.holdings();
            own.sessions.store(sessions, Ordering::Relaxed);
            own.retained.store(retained, Ordering::Relaxed);
            own.retained_bytes.store(retained_bytes, Ordering::Relaxed);
        }
    }

    /// Tells `shard` what the others have.
    pub(crate) fn hear(&self, now: Instant, shard: &mut Shard) {
        let mut sum = Holdings::default();
        for (_, page) in self.0.iter().enumerate().filter(|&(id, _)| id != usize::from(shard.id())) {
            sum.sessions += page.sessions.load(Ordering::Relaxed);
            sum.retained += page.retained.load(Ordering::Relaxed);
            sum.retained_bytes += page.retained_bytes.load(Ordering::Relaxed);
        }
        shard.handle(now, Input::Elsewhere(sum));
    }
}
