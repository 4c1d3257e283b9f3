//! The mailbox of a worker: a queue that other threads post to, and the bell that wakes the worker.
//!
//! Ringing costs a system call and a wake-up, so it happens at most once per sleep, and not at all while
//! the worker is awake. `asleep` is true from just before the worker waits until someone rings or the
//! worker comes back. Nothing posted is overlooked:
//!
//! * The worker (a) sets `asleep`, (b) fences, (c) looks into the queue, and waits without limit only if
//!   it is empty. A sender (1) pushes, (2) fences, (3) looks at `asleep`, and rings if it is set. Of two
//!   sequentially consistent fences one comes first. If the worker's does, (3) sees what (a) wrote, unless
//!   the flag was cleared since, about which see below: the sender rings. If the sender's does, (c) sees
//!   what (1) pushed: the worker does not wait.
//! * Who clears the flag has taken on the duty to ring: of several senders exactly one does, by the swap
//!   in (3), and that one ring ends the sleep for all of them. What the others pushed is taken by the
//!   drain that follows, or else seen by the next (c): (3) did not see the flag that was set for it.
//! * The worker itself clears the flag when it is awake, before it drains. A sender which then finds it
//!   cleared pushed either before that drain, which takes it, or later, and is seen by the next (c).
//! * A ring that comes late, after the worker woke for another reason, makes the next wait return at
//!   once, once. That is harmless.

use crossbeam_channel::{Receiver, Sender};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Where to post for one worker. Cloned for everyone who may.
pub(crate) struct Letterbox<T> {
    queue: Sender<T>,
    bell: Arc<Bell>,
}

/// The worker's end.
pub(crate) struct Mailbox<T> {
    queue: Receiver<T>,
    bell: Arc<Bell>,
}

struct Bell {
    asleep: AtomicBool,
    waker: mio::Waker,
}

/// Makes a mailbox whose bell wakes the [`mio::Poll`] of `registry` with an event for `token`.
pub(crate) fn mailbox<T>(
    registry: &mio::Registry,
    token: mio::Token,
) -> io::Result<(Letterbox<T>, Mailbox<T>)> {
    let waker = mio::Waker::new(registry, token)?;
    let bell = Arc::new(Bell { asleep: AtomicBool::new(false), waker });
    // Unbounded: two full queues facing each other would lock both workers. What may be underway is
    // bounded by the shards' credit, and by the number of connections.
    let (sender, receiver) = crossbeam_channel::unbounded();
    Ok((Letterbox { queue: sender, bell: Arc::clone(&bell) }, Mailbox { queue: receiver, bell }))
}

impl<T> Clone for Letterbox<T> {
    fn clone(&self) -> Self {
        Letterbox { queue: self.queue.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<T> Letterbox<T> {
    /// Adds to the queue. The worker may not notice before [`Letterbox::ring`]: post what there is, then
    /// ring once. Gives `letter` back if the worker has ended.
    pub(crate) fn post(&self, letter: T) -> Result<(), T> {
        self.queue.send(letter).map_err(|e| e.into_inner())
    }

    /// Wakes the worker, if it sleeps, to what this thread has posted. Says whether it had to.
    pub(crate) fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // The load spares the cache line of a worker that is busy.
        let asleep =
            self.bell.asleep.load(Ordering::Relaxed) && self.bell.asleep.swap(false, Ordering::Relaxed);
        if asleep && let Err(e) = self.bell.waker.wake() {
            log::error!("A worker could not be woken: {e}.");
        }
        asleep
    }
}

impl<T> Mailbox<T> {
    /// To be called before waiting. False if something is in the queue: do not wait then.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.wake_up();
        false
    }

    /// To be called after waiting, before [`Mailbox::take`].
    pub(crate) fn wake_up(&self) {
        self.bell.asleep.store(false, Ordering::Relaxed);
    }

    /// The next letter, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TOKEN: mio::Token = mio::Token(7);

    #[test]
    fn one_ring_per_sleep() {
        let mut poll = mio::Poll::new().unwrap();
        let mut events = mio::Events::with_capacity(8);
        let (letterbox, mailbox) = mailbox(poll.registry(), TOKEN).unwrap();
        letterbox.post(1).unwrap();
        assert!(!letterbox.ring(), "awake: no need");
        assert!(!mailbox.fall_asleep(), "something is there");
        assert!(!letterbox.ring(), "awake again");
        assert_eq!(mailbox.take(), Some(1));
        assert!(mailbox.fall_asleep());
        letterbox.post(2).unwrap();
        letterbox.post(3).unwrap();
        assert!(letterbox.ring());
        assert!(!letterbox.ring(), "rung already");
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(events.iter().map(|e| e.token()).collect::<Vec<_>>(), [TOKEN]);
        mailbox.wake_up();
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(2), Some(3), None));
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty(), "one ring, one event");
    }

    #[test]
    fn the_end_of_the_worker_is_told() {
        let poll = mio::Poll::new().unwrap();
        let (letterbox, mailbox) = mailbox(poll.registry(), TOKEN).unwrap();
        drop(mailbox);
        assert_eq!(letterbox.post("late"), Err("late"));
    }

    /// Each letter is answered before the next is sent, so that a lost wake-up would stop everything.
    #[test]
    fn no_letter_is_overlooked() {
        const LETTERS: u32 = 20_000;
        let poll = [mio::Poll::new().unwrap(), mio::Poll::new().unwrap()];
        let [(to_a, a), (to_b, b)] = [0, 1].map(|i: usize| mailbox(poll[i].registry(), TOKEN).unwrap());
        let [poll_a, poll_b] = poll;
        let player = |mut poll: mio::Poll, mailbox: Mailbox<u32>, other: Letterbox<u32>| {
            move || {
                let mut events = mio::Events::with_capacity(8);
                loop {
                    let asleep = mailbox.fall_asleep();
                    let timeout = if asleep { Duration::from_secs(10) } else { Duration::ZERO };
                    let waited = std::time::Instant::now();
                    poll.poll(&mut events, Some(timeout)).unwrap();
                    assert!(waited.elapsed() < Duration::from_secs(9), "a letter was overlooked");
                    mailbox.wake_up();
                    while let Some(n) = mailbox.take() {
                        // The other may have ended after the last letter.
                        let _ = other.post(n + 1);
                        other.ring();
                        if n >= LETTERS {
                            return;
                        }
                    }
                }
            }
        };
        to_a.post(0).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(player(poll_a, a, to_b));
            scope.spawn(player(poll_b, b, to_a));
        });
    }
}
