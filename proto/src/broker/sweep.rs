//! Retained messages that have expired are removed, not only left out: nobody may ever ask for their topics again.
//!
//! One walk over all topics, in slices, removes those whose time has come and finds out when the next one's comes. The more
//! topics there are, the longer it rests between two walks. So a message that expires costs no timer of its own, however
//! often it is replaced.

use super::store::StoreOp;
use super::timer::Timer;
use super::{SLICE, Shard, Work};
use crate::message::Message;
use crate::time::Instant;
use crate::topic::tree::{CursorId, Step};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// How long it rests, and as long again for every so many topics.
const REST: Duration = Duration::from_secs(1);
const REST_TOPICS: usize = 10_000;

/// How far the walk has come.
#[derive(Debug)]
pub(super) struct Sweep {
    /// When the first message expires that it has heard of since the walk began, or earlier.
    earliest: Instant,
    /// Before that it rests.
    rests_until: Instant,
    /// When [`Timer::Sweep`] fires.
    armed: Instant,
    /// Where the walk is.
    cursor: Option<CursorId>,
}

impl Default for Sweep {
    fn default() -> Self {
        let never = Instant::NEVER;
        Sweep { earliest: never, rests_until: Instant::ZERO, armed: never, cursor: None }
    }
}

impl Sweep {
    /// A message is retained that expires then.
    pub fn expects(&mut self, expires_at: Instant) {
        self.earliest = self.earliest.min(expires_at);
    }
}

impl Shard {
    /// Makes sure that the walk begins when a message expires.
    pub(super) fn arm_sweep(&mut self) {
        let Shard { retained, timers, .. } = self;
        let sweep = &mut retained.sweep;
        if sweep.cursor.is_none() && sweep.earliest < sweep.armed {
            timers.arm(&mut sweep.armed, sweep.earliest.max(sweep.rests_until), Timer::Sweep);
        }
    }

    pub(super) fn on_sweep_timer(&mut self, at: Instant) {
        let sweep = &mut self.retained.sweep;
        if sweep.armed != at {
            return;
        }
        sweep.armed = Instant::NEVER;
        sweep.earliest = Instant::NEVER;
        sweep.cursor = Some(self.retained.tree.cursor_over_all());
        self.work.push_back(Work::Sweep);
    }

    pub(super) fn continue_sweep(&mut self) {
        let Shard { retained, now, .. } = self;
        let Some(cursor) = retained.sweep.cursor else { return };
        let mut budget = SLICE as u32;
        let mut expired: Vec<Box<str>> = Vec::new();
        let done = loop {
            match retained.tree.next(cursor, &mut budget) {
                Step::Item(message) if message.expires_at() <= *now => expired.push(message.topic().into()),
                Step::Item(message) => retained.sweep.expects(message.expires_at()),
                Step::Paused => break false,
                Step::Done => break true,
            }
        };
        for topic in expired {
            self.forget_retained(&topic);
        }
        if !done {
            return self.work.push_back(Work::Sweep);
        }
        let retained = &mut self.retained;
        retained.tree.close(cursor);
        retained.sweep.cursor = None;
        let rest = REST * (1 + u32::try_from(retained.len() / REST_TOPICS).unwrap_or(u32::MAX));
        retained.sweep.rests_until = self.now + rest;
        self.arm_sweep();
    }

    /// Removes the message of a topic, from the store too.
    fn forget_retained(&mut self, topic: &str) {
        let Some(message) = self.retained.get(topic) else { return };
        let nothing = Message::new(topic, &[], message.qos(), true);
        if self.keeper.on {
            let slot = self.placement.slot(topic.as_bytes()) as u16;
            self.keeper.put(StoreOp::Forget { slot, topic: topic.into() });
        }
        self.retained.store(nothing);
    }
}
