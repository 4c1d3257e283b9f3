//! Moments to come back to, in one heap. An entry is never removed before its time: its owner looks at its own
//! state when it fires, and arms it again if the moment has moved. So a client that comes and goes, or
//! sends, costs no entry each time.

use crate::time::Instant;
use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

/// What a timer is about, with the place it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// CONNECT or keep alive of a connection.
    Alive(u32),
    /// A connection that takes no output.
    Stalled(u32),
    /// The will delay or expiry of a session.
    Session(u32),
    /// The next `$SYS` report.
    Sys,
    /// How many denials were not said.
    Denials,
    /// A connection that has published more than it may.
    Rate(u32),
    /// Retained messages that expire.
    Sweep,
}

/// All timers of a shard.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
}

impl Timers {
    /// Fires `timer` at `at`, or earlier. `armed` is the owner's note of when its entry fires
    /// ([`Instant::NEVER`] for none): an earlier entry serves, as its owner arms again when it fires.
    pub fn arm(&mut self, armed: &mut Instant, at: Instant, timer: Timer) {
        if at < *armed {
            *armed = at;
            self.heap.push(Reverse((at, timer)));
        }
    }

    /// The earliest moment.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// A timer whose moment has come, with that moment: it counts if its owner's note says the same.
    pub fn due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}
