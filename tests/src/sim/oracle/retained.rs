//! Retained messages: all that was ever written, and which of it somebody who asks may see.

use super::message::{Handed, Message, Messages};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Retained {
    /// By topic: the numbers of messages, those without payload among them.
    writes: BTreeMap<String, Vec<u32>>,
    /// The step since which nothing moves.
    pub quiet: Option<u64>,
}

impl Retained {
    pub fn write(&mut self, topic: &str, number: u32) {
        let writes = self.writes.entry(topic.into()).or_default();
        if !writes.contains(&number) {
            writes.push(number);
        }
    }

    pub fn unwrite(&mut self, topic: &str, number: u32) {
        if let Some(writes) = self.writes.get_mut(topic) {
            writes.retain(|known| *known != number);
        }
    }

    pub fn clear(&mut self) {
        self.writes.clear();
    }

    pub fn topics(&self) -> Vec<String> {
        self.writes.keys().cloned().collect()
    }

    fn of<'a>(&'a self, topic: &str, messages: &'a Messages) -> impl Iterator<Item = &'a Message> {
        self.writes.get(topic).into_iter().flatten().map(|number| messages.get(*number))
    }

    /// Messages retained for a topic that were promised at a step or later.
    pub fn promised_since(&self, topic: &str, step: u64, messages: &Messages) -> Vec<u32> {
        let of = self.of(topic, messages).filter(|m| m.promised.is_some_and(|promised| promised >= step));
        of.map(|m| m.number).collect()
    }

    /// Whether nothing that may have replaced a message leaves its topic without one, or with one that is too large.
    pub fn lasts(&self, message: &Message, messages: &Messages, size_max: usize) -> bool {
        let mut later = self.of(&message.draft.topic, messages).filter(|other| !before(other, message));
        later.all(|m| m.draft.size > 0 && m.draft.size <= size_max && !m.expires() && !m.maybe)
    }

    /// The step at which a write was certainly done.
    fn settled(&self, message: &Message, crashes: u32) -> Option<u64> {
        let quiet = self.quiet.filter(|_| message.crashes == crashes && !message.maybe);
        message.promised.or(quiet)
    }

    /// Whether somebody who asked at step `asked`, or later, may see a message.
    pub fn visible(&self, message: &Message, asked: u64, messages: &Messages, crashes: u32) -> bool {
        message.first_step().is_some()
            && !self.of(&message.draft.topic, messages).any(|other| {
                other.number != message.number
                    && before(message, other)
                    && self.settled(other, crashes).is_some_and(|step| step < asked)
            })
    }

    /// Whether somebody who asks from step `asked` on certainly sees something, no larger than this.
    pub fn certain(
        &self,
        topic: &str,
        asked: u64,
        messages: &Messages,
        crashes: u32,
        size_max: usize,
    ) -> bool {
        let written = |m: &Message| self.settled(m, crashes).is_some_and(|step| step < asked);
        self.of(topic, messages).any(|m| written(m) && m.draft.size > 0)
            && self
                .of(topic, messages)
                .filter(|m| self.visible(m, asked, messages, crashes))
                .all(|m| m.draft.size > 0 && m.draft.size < size_max && !m.expires() && !m.maybe)
    }
}

/// Whether one write certainly came before another.
pub(super) fn before(one: &Message, other: &Message) -> bool {
    let Some(&Handed { step: first, at, .. }) = other.handed.first() else { return false };
    let landed = one.last_answer.is_some_and(|step| step < first) || one.lands_at.is_some_and(|by| by < at);
    let one_after_the_other = one.publisher == other.publisher && !one.is_will && !other.is_will;
    // What is sent again is written again.
    one.last_step < first && (landed || one_after_the_other)
}
