//! Connections whose CONNECT is not there yet: nobody knows which shard they belong to.
//!
//! All of them have the same time to send it, so the oldest is the next to be late. They are bounded in
//! number and in the bytes held for them; beyond that the oldest has to go: who sends a CONNECT at
//! once is in and out within a turn, whatever others do.

use hikyaku_proto::broker::ConnId;
use hikyaku_proto::time::Instant;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What is known of a connection before its CONNECT, and what it has sent.
pub(crate) struct Guest {
    pub(crate) listener: u16,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) identity: Option<Box<str>>,
    pub(crate) entropy: [u8; 16],
    /// Read and not handled. In the lobby an incomplete CONNECT.
    pub(crate) received: Vec<u8>,
    /// When it came.
    pub(crate) since: Instant,
    /// What the lobby counts for it.
    pub(crate) held: usize,
}

impl fmt::Debug for Guest {
    /// Leaves what it has sent out, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Guest { listener, peer, identity, since, received, .. } = self;
        write!(
            f,
            "Guest({peer:?}, {identity:?}, listener {listener}, since {since:?}, {} bytes)",
            received.len()
        )
    }
}

/// The guests in order of arrival.
#[derive(Debug)]
pub(crate) struct Lobby {
    /// May name connections that have left.
    queue: VecDeque<(Instant, ConnId)>,
    guests: usize,
    bytes: usize,
    guests_max: usize,
    timeout: Duration,
}

/// Bytes of incomplete CONNECTs that are held for all guests together.
const BYTES_MAX: usize = 32 << 20;

impl Lobby {
    pub(crate) fn new(guests_max: usize, timeout: Duration) -> Self {
        Lobby { queue: VecDeque::new(), guests: 0, bytes: 0, guests_max, timeout }
    }

    /// A guest enters who came at `since`, perhaps to another worker. `is_guest` says whether someone
    /// still is one.
    pub(crate) fn enter(&mut self, since: Instant, conn: ConnId, is_guest: impl FnMut(ConnId) -> bool) {
        self.forget_gone(is_guest);
        self.guests += 1;
        let deadline = since + self.timeout;
        // Nearly always the last place.
        let later = self.queue.iter().rev().take_while(|&&(other, _)| other > deadline).count();
        self.queue.insert(self.queue.len() - later, (deadline, conn));
    }

    /// For a guest `held` bytes are held, where there were `before`.
    pub(crate) fn hold(&mut self, held: usize, before: usize) {
        self.bytes = (self.bytes + held).saturating_sub(before);
    }

    /// A guest leaves for whom `held` bytes were held.
    pub(crate) fn leave(&mut self, held: usize) {
        self.guests = self.guests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(held);
        if self.guests == 0 {
            self.queue = VecDeque::new();
        }
    }

    /// A guest who has to go now, and whether for being late: otherwise it is the oldest of too many.
    pub(crate) fn overdue(
        &mut self,
        now: Instant,
        is_guest: impl FnMut(ConnId) -> bool,
    ) -> Option<(ConnId, bool)> {
        let (deadline, conn) = self.oldest(is_guest)?;
        let late = deadline <= now;
        (late || self.guests > self.guests_max || self.bytes > BYTES_MAX).then_some((conn, late))
    }

    /// Whether another guest is one too many.
    pub(crate) fn is_full(&self) -> bool {
        self.guests >= self.guests_max
    }

    /// When the next guest will be late.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.front().map(|&(deadline, _)| deadline)
    }

    fn oldest(&mut self, mut is_guest: impl FnMut(ConnId) -> bool) -> Option<(Instant, ConnId)> {
        while let Some(&(deadline, conn)) = self.queue.front() {
            if is_guest(conn) {
                return Some((deadline, conn));
            }
            self.queue.pop_front();
        }
        None
    }

    /// Keeps the queue in proportion to the guests, at a constant cost for each that entered.
    fn forget_gone(&mut self, mut is_guest: impl FnMut(ConnId) -> bool) {
        if self.queue.len() > 2 * self.guests + 64 {
            self.queue.retain(|&(_, conn)| is_guest(conn));
            self.queue.shrink_to(2 * self.guests + 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    #[test]
    fn a_guest_that_is_printed_holds_nothing_it_sent() {
        let received = b"\x10\x20 with a secret".to_vec();
        let (peer, identity, entropy) = (None, None, [7; 16]);
        let guest = Guest { listener: 0, peer, identity, entropy, received, since: Instant::ZERO, held: 16 };
        let printed = format!("{guest:?} {guest:#?}");
        assert!(printed.contains("16 bytes") && !printed.contains("7, 7") && !printed.contains("16, 32"));
    }

    #[test]
    fn the_late_and_the_oldest_of_too_many_go() {
        let at = Instant::from_secs;
        let mut lobby = Lobby::new(2, Duration::from_secs(10));
        for i in 0..3 {
            lobby.enter(at(u64::from(i)), conn(i), |_| true);
        }
        assert_eq!(lobby.overdue(at(2), |_| true), Some((conn(0), false)), "too many");
        lobby.leave(0);
        assert_eq!(lobby.overdue(at(2), |c| c != conn(0)), None);
        assert_eq!(lobby.deadline(), Some(at(11)));
        assert_eq!(lobby.overdue(at(11), |c| c != conn(0)), Some((conn(1), true)), "late");
        lobby.hold(BYTES_MAX + 1, 0);
        assert_eq!(lobby.overdue(at(3), |c| c == conn(2)), Some((conn(2), false)), "too many bytes");
        lobby.leave(BYTES_MAX + 1);
        lobby.leave(0);
        assert_eq!((lobby.deadline(), lobby.bytes), (None, 0));
    }

    #[test]
    fn who_left_is_forgotten_though_the_oldest_stays() {
        let mut lobby = Lobby::new(10, Duration::from_secs(10));
        lobby.enter(Instant::ZERO, conn(0), |_| true);
        for i in 1..10_000 {
            lobby.enter(Instant::ZERO, conn(i), |c| c == conn(0));
            lobby.leave(0);
        }
        assert!(lobby.queue.len() < 100, "{}", lobby.queue.len());
    }
}
