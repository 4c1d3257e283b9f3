//! The one clock of a broker.

use hikyaku_proto::broker::store::record;
use hikyaku_proto::time::Instant;
use std::time::UNIX_EPOCH;

/// Reads the time since an origin that all workers share: instants travel inside messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock { origin: std::time::Instant::now() }
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The time by this clock and by the wall's, as records need it.
    pub(crate) fn of_store(self) -> record::Clock {
        let wall = UNIX_EPOCH.elapsed().unwrap_or_default();
        record::Clock { now: self.now(), wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX) }
    }
}
