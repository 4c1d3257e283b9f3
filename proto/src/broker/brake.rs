//! Publishers that wait for slow subscribers, where that is configured: instead of dropping a QoS 0 message for a client that
//! does not read what it is sent, whoever published it is not read until some client has caught up.
//!
//! What is over the soft bound of a connection is taken all the same, up to the hard one; a client that takes nothing at all
//! is closed after a while, so nobody waits for ever. Of a message from another shard, that one is told its number, and
//! knows who published it.

use super::Shard;
use super::conn::Pause;
use super::io::ConnId;
use super::peer::PeerMessage;
use super::publish::Source;
use crate::message::MessageId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// How many messages that went to other shards are remembered.
const RECENT: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Brake {
    /// The message at hand went to a client that is slow.
    pub pressed: bool,
    /// Those that wait.
    waiting: Vec<ConnId>,
    /// The other shards where some wait for clients of this one, as bits.
    told: u64,
    /// The numbers of messages that went to other shards, and who published them.
    recent: VecDeque<(u64, ConnId)>,
}

impl Shard {
    /// A message of a connection goes to other shards.
    #[cold]
    pub(super) fn remember_publisher(&mut self, message: MessageId, id: ConnId) {
        let recent = &mut self.brake.recent;
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back((message.count, id));
    }

    /// A message was delivered: if someone was too slow for it, its publisher has to wait.
    #[inline]
    pub(super) fn after_delivery(&mut self, source: Source, message: MessageId) {
        if self.brake.pressed {
            self.brake.pressed = false;
            self.slow_down(source, message);
        }
    }

    #[cold]
    fn slow_down(&mut self, source: Source, message: MessageId) {
        match source {
            Source::Conn(id) => self.wait_for_slow(id),
            Source::Peer(_) if message.origin == self.id => self.on_slow(message),
            Source::Peer(_) if message.origin < self.shards => {
                self.brake.told |= 1 << message.origin;
                self.send_to_peer(message.origin, PeerMessage::Slow(message));
            }
            Source::Peer(_) | Source::Within => {}
        }
    }

    fn wait_for_slow(&mut self, id: ConnId) {
        if self.conn(id).is_some_and(|conn| conn.paused & Pause::Slow as u16 == 0) {
            self.pause(id, Pause::Slow);
            self.brake.waiting.push(id);
        }
    }

    /// Another shard has clients that are too slow for a message of this one.
    pub(super) fn on_slow(&mut self, message: MessageId) {
        let recent = &self.brake.recent;
        if let Ok(at) = recent.binary_search_by_key(&message.count, |(count, _)| *count) {
            self.wait_for_slow(recent[at].1);
        }
    }

    /// A client has caught up, or is gone: all go on, until the next that is slow.
    pub(super) fn ease(&mut self) {
        let told = core::mem::take(&mut self.brake.told);
        for to in (0..self.shards).filter(|to| told >> to & 1 == 1) {
            self.send_to_peer(to, PeerMessage::Eased);
        }
        self.on_eased();
    }

    pub(super) fn on_eased(&mut self) {
        for id in core::mem::take(&mut self.brake.waiting) {
            self.resume(id, Pause::Slow);
        }
    }

    /// Whether someone waits.
    pub(super) fn is_braked(&self) -> bool {
        !self.brake.waiting.is_empty() || self.brake.told != 0
    }
}
