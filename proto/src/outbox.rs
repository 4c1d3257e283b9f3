//! What is to be written to one transport: copied bytes, with large payloads shared in between.
//!
//! An empty outbox holds no heap: its buffer goes back to the [`Pool`] of whoever owns the connections.

use crate::message::Message;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Payloads from this size on are shared instead of copied: copying costs less below it
/// (the measured crossing lies between half a KiB and one).
pub const SHARE_FROM: usize = 1024;

#[derive(Debug)]
struct Shared {
    /// It goes out when `bytes[..at]` has.
    at: usize,
    message: Message,
    /// The first byte of the message's block that is still to be written.
    from: usize,
}

#[derive(Debug, Default)]
struct AllShared {
    pieces: VecDeque<Shared>,
    bytes: usize,
}

/// Bytes waiting for a transport.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    head: usize,
    /// Boxed: most outboxes have none.
    shared: Option<Box<AllShared>>,
}

impl core::fmt::Debug for Outbox {
    /// Leaves the bytes out: a client's may be those of a password.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Outbox({} bytes)", self.len())
    }
}

impl Outbox {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.head + self.shared.as_ref().map_or(0, |shared| shared.bytes)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The waiting bytes in order, in pieces fit for a vectored write.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = self.head;
        let pieces = self.shared.iter().flat_map(|shared| &shared.pieces);
        let inner = pieces.flat_map(move |s| {
            let copied = &self.bytes[at..s.at];
            at = s.at;
            [copied, &s.message.bytes()[s.from..]]
        });
        let last = self.shared.as_ref().and_then(|s| s.pieces.back()).map_or(self.head, |s| s.at);
        inner.chain(core::iter::once(&self.bytes[last..])).filter(|c| !c.is_empty())
    }

    /// Forgets the first `n` bytes: they have been written. More than [`Outbox::len`] empties it.
    pub fn advance(&mut self, mut n: usize) {
        loop {
            let first = self.shared.as_ref().and_then(|shared| shared.pieces.front());
            let copied = first.map_or(self.bytes.len(), |s| s.at) - self.head;
            let step = n.min(copied);
            self.head += step;
            n -= step;
            let Some(shared) = &mut self.shared else { return };
            let Some(front) = shared.pieces.front_mut() else { return };
            if step < copied || n == 0 {
                return;
            }
            let left = front.message.size() - front.from;
            let step = n.min(left);
            front.from += step;
            shared.bytes -= step;
            n -= step;
            if step < left {
                return;
            }
            shared.pieces.pop_front();
        }
    }

    /// The buffer to append copied bytes to.
    pub fn writer(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        } else if self.head > 0 && self.head * 2 >= self.bytes.capacity() {
            self.drop_written();
        }
        &mut self.bytes
    }

    /// Moves what waits to the front of the buffer, so that a slow reader's buffer does not creep.
    fn drop_written(&mut self) {
        self.bytes.drain(..self.head);
        for s in self.shared.iter_mut().flat_map(|shared| &mut shared.pieces) {
            s.at -= self.head;
        }
        self.head = 0;
    }

    /// Appends the payload of `message`, shared.
    pub fn share_payload(&mut self, message: &Message) {
        let from = message.payload_at();
        let len = message.size() - from;
        if len > 0 {
            let shared = self.shared.get_or_insert_default();
            shared.bytes += len;
            shared.pieces.push_back(Shared { at: self.bytes.len(), message: message.clone(), from });
        }
    }

    /// Gives the buffer back if nothing waits.
    pub fn recycle(&mut self, pool: &mut Pool) {
        if self.is_empty() && self.bytes.capacity() > 0 {
            pool.give(core::mem::take(&mut self.bytes));
            self.head = 0;
            self.shared = None;
        }
    }
}

/// Buffers that no outbox uses at the moment: at most as many as were in use at once, none too large.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Vec<u8>>,
    free_bytes: usize,
    /// How many packets were put into the outboxes that use it.
    pub packets: u64,
}

/// What a pool keeps at the most.
const POOL_BYTES: usize = 4 << 20;

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        match self.free.pop() {
            Some(buffer) => {
                self.free_bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(256),
        }
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        if self.free_bytes + buffer.capacity() <= POOL_BYTES {
            buffer.clear();
            self.free_bytes += buffer.capacity();
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::QoS;
    use alloc::vec;

    #[test]
    fn bytes_leave_in_order_however_they_are_cut() {
        let message = Message::new("t", &[7; 2000], QoS::AtMostOnce, false);
        let mut expected = vec![];
        for cut in [1, 3, 100, 1999, 2000, 2001, 5000] {
            let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
            expected.clear();
            for i in 0..5u8 {
                outbox.writer(&mut pool).extend_from_slice(&[i; 11]);
                expected.extend_from_slice(&[i; 11]);
                if i != 2 {
                    outbox.share_payload(&message);
                    expected.extend_from_slice(&[7; 2000]);
                }
            }
            let mut got = vec![];
            while !outbox.is_empty() {
                let before = outbox.len();
                let all: Vec<u8> = outbox.chunks().flatten().copied().collect();
                assert_eq!(all.len(), before);
                let n = cut.min(before);
                got.extend_from_slice(&all[..n]);
                outbox.advance(n);
                outbox.recycle(&mut pool);
            }
            assert_eq!(got, expected);
            assert_eq!(outbox.bytes.capacity(), 0, "an empty outbox holds no heap");
        }
    }

    #[test]
    fn a_buffer_that_is_never_empty_does_not_grow_without_end() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.writer(&mut pool).extend_from_slice(&[0; 100]);
        for _ in 0..10_000 {
            outbox.writer(&mut pool).extend_from_slice(&[1; 100]);
            outbox.advance(100);
        }
        assert_eq!(outbox.len(), 100);
        assert!(outbox.bytes.capacity() < 2048, "{}", outbox.bytes.capacity());
    }
}
