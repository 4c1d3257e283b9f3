//! Messages that are done leave their blocks to the next ones of their size: more of them are out at once than an
//! allocator keeps at hand. Worth 5 % of the time of a QoS 1 message.

use crate::message::{Message, Publication, Publisher};
use alloc::vec::Vec;

/// Larger blocks are left to the allocator.
const SIZE_MAX: usize = 512;
/// How much may lie here.
const BYTES_MAX: usize = 128 << 10;
/// What room may be kept from message to message.
const ROOM_MAX: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Room to build a message in.
    room: Vec<u8>,
    /// By size.
    free: Vec<Vec<Message>>,
    bytes: usize,
}

impl Blocks {
    /// A copy of a message that can be kept, with its publisher if there is one to be remembered.
    pub fn keep(&mut self, publication: &Publication<'_>, publisher: Option<Publisher<'_>>) -> Message {
        publication.encode(publisher, &mut self.room);
        let size = self.room.len();
        if let Some(mut message) = self.free.get_mut(size).and_then(Vec::pop) {
            self.bytes -= size;
            if message.replace(&self.room) {
                return message;
            }
        }
        let message = Message::from_block(&self.room);
        if self.room.capacity() > ROOM_MAX {
            self.room = Vec::new();
        }
        message
    }

    /// Takes the block of a message that is done, if nobody else has it.
    pub fn give_back(&mut self, message: Message) {
        let size = message.size();
        if size > SIZE_MAX || !message.is_alone() {
            return;
        }
        if self.free.is_empty() {
            self.free.resize_with(SIZE_MAX + 1, Vec::new);
        }
        if self.bytes + size > BYTES_MAX {
            if !self.free[size].is_empty() {
                return;
            }
            // Full of sizes that are no longer asked for.
            self.free.iter_mut().for_each(Vec::clear);
            self.bytes = 0;
        }
        self.bytes += size;
        self.free[size].push(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(blocks: &mut Blocks, payload: &[u8]) -> Message {
        let message = Message::new("t", payload, crate::codec::QoS::AtLeastOnce, false);
        let kept = blocks.keep(&message.as_publication(), None);
        assert_eq!(kept, message);
        kept
    }

    #[test]
    fn the_next_message_of_a_size_takes_the_block() {
        let mut blocks = Blocks::default();
        let one = keep(&mut blocks, b"one");
        let address = one.address();
        blocks.give_back(one);
        assert_ne!(keep(&mut blocks, b"three").address(), address);
        let two = keep(&mut blocks, b"two");
        assert_eq!((two.address(), blocks.bytes), (address, 0));
        assert_ne!(keep(&mut blocks, b"six").address(), address);
    }

    #[test]
    fn what_somebody_else_has_stays_as_it_is() {
        let mut blocks = Blocks::default();
        let one = keep(&mut blocks, b"one");
        blocks.give_back(one.clone());
        assert_ne!(keep(&mut blocks, b"two").address(), one.address());
        assert_eq!((one.payload(), blocks.bytes), (&b"one"[..], 0));
    }

    #[test]
    fn little_lies_here_and_nothing_for_ever() {
        let mut blocks = Blocks::default();
        let of = |blocks: &mut Blocks, size| {
            let many: Vec<_> = (0..5_000).map(|_| keep(blocks, &[7; 512][..size])).collect();
            many.into_iter().for_each(|message| blocks.give_back(message));
        };
        of(&mut blocks, 50);
        let full = blocks.bytes;
        assert!(full <= BYTES_MAX && full > BYTES_MAX - 100, "{full}");
        of(&mut blocks, 51);
        assert!(blocks.bytes <= BYTES_MAX && blocks.free.iter().filter(|free| !free.is_empty()).count() == 1);
        of(&mut blocks, 512);
        assert!(
            blocks.free.len() == SIZE_MAX + 1 && blocks.bytes > BYTES_MAX - 100,
            "too large, and left alone"
        );
        drop(keep(&mut blocks, &[7; 2 * ROOM_MAX]));
        assert_eq!(blocks.room.capacity(), 0);
    }
}
