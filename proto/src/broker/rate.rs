//! How many messages a second a client may publish. A second's worth may come at once; who sends more is not read until what
//! it has sent is even with that rate: nothing is lost, and its transport slows it down.

use super::Shard;
use super::conn::{Pause, conn_at};
use super::denial::Denial;
use super::io::ConnId;
use super::sys::Refused;
use super::timer::Timer;
use core::time::Duration;

const BURST: Duration = Duration::from_secs(1);

impl Shard {
    /// A client publishes a message.
    #[cold]
    pub(super) fn meter(&mut self, id: ConnId) {
        let Shard { conns, timers, config, now, .. } = self;
        let Some(conn) = conn_at(conns, id) else { return };
        conn.even = conn.even.max(*now) + Duration::from_secs(1) / config.max_publish_rate.max(1);
        if conn.even <= *now + BURST {
            return;
        }
        timers.arm(&mut conn.rate_armed, conn.even - BURST, Timer::Rate(id.index));
        let session = conn.session;
        self.pause(id, Pause::Rate);
        self.counters.refuse(Refused::Rate);
        self.log_limit(
            Denial::Rate,
            session,
            "it publishes more than 'max_publish_rate' allows, and has to wait",
        );
    }

    pub(super) fn on_rate_timer(&mut self, at: crate::time::Instant, index: u32) {
        let Shard { conns, timers, now, .. } = self;
        let Some(conn) = conns.get_mut(index as usize).and_then(Option::as_mut) else { return };
        if conn.rate_armed != at {
            return;
        }
        conn.rate_armed = crate::time::Instant::NEVER;
        if conn.even > *now + BURST {
            return timers.arm(&mut conn.rate_armed, conn.even - BURST, Timer::Rate(index));
        }
        let id = conn.id(index);
        self.resume(id, Pause::Rate);
    }
}
