//! A mutex between the threads of the caller and the network thread, which never lets go of it for long.
//!
//! The mutex of the standard library goes to whoever asks first after an unlock: the thread that just had it. So a
//! flooded network thread would keep it for seconds. Here it stands back when a caller waits; callers need not stand
//! back, so one that publishes in a loop fills a buffer before the network thread writes it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Shared<T> {
    value: Mutex<T>,
    /// Held by whom `value` goes to next. The network thread always asks for it, a caller when `value` is taken.
    next: Mutex<()>,
    /// How many turns the network thread has had. The condition has a mutex of its own, because a condition's wait ends
    /// with a plain lock, which would be stood back for by nobody.
    turns: Mutex<u64>,
    turned: Condvar,
}

impl<T> Shared<T> {
    pub fn new(value: T) -> Shared<T> {
        Shared {
            value: Mutex::new(value),
            next: Mutex::new(()),
            turns: Mutex::new(0),
            turned: Condvar::new(),
        }
    }

    /// For a thread of the caller: after one turn of the network thread at the latest.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => self.lock_for_turn(),
        }
    }

    /// For the network thread: after the caller that waits.
    pub fn lock_for_turn(&self) -> MutexGuard<'_, T> {
        let _next = held(&self.next);
        held(&self.value)
    }

    /// Tells callers that the network thread had a turn.
    pub fn notify(&self) {
        *held(&self.turns) += 1;
        self.turned.notify_all();
    }

    /// How many turns there have been, for [`Shared::wait_since`].
    pub fn turns(&self) -> u64 {
        *held(&self.turns)
    }

    /// Waits for a turn after so many; for ever without a deadline. False when `deadline` has passed, turn or not.
    pub fn wait_since(&self, turns: u64, deadline: Option<Instant>) -> bool {
        let mut now = held(&self.turns);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            if *now != turns {
                return true;
            }
            now = match left {
                None => self.turned.wait(now).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.turned.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Lets go of the value until there has been a turn; `None` when `deadline` has passed.
    pub fn wait<'a>(
        &'a self,
        value: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'a, T>> {
        // Counted while the value is held: what the next turn changes is not yet in it.
        let turns = self.turns();
        drop(value);
        self.wait_since(turns, deadline).then(|| self.lock())
    }
}

/// A panic under a lock leaves nothing half done here.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    fn until(what: impl Fn() -> bool) {
        let begun = Instant::now();
        while !what() {
            assert!(begun.elapsed() < LONG);
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_network_thread_stands_back_for_a_caller() {
        let shared = Shared::new(0);
        std::thread::scope(|scope| {
            let turn = shared.lock_for_turn();
            scope.spawn(|| *shared.lock() += 1);
            until(|| shared.next.try_lock().is_err());
            drop(turn);
            assert_eq!(*shared.lock_for_turn(), 1);
        });
    }

    #[test]
    fn it_stands_back_for_a_caller_that_waited_for_a_turn() {
        let shared = &Shared::new(0);
        std::thread::scope(|scope| {
            let caller = shared.lock();
            let turns = shared.turns();
            scope.spawn(move || {
                assert!(shared.wait_since(turns, Some(Instant::now() + LONG)));
                *shared.lock() += 1;
            });
            drop(caller);
            let turn = shared.lock_for_turn();
            shared.notify();
            until(|| shared.next.try_lock().is_err());
            drop(turn);
            assert_eq!(*shared.lock_for_turn(), 1);
        });
    }

    #[test]
    fn a_wait_ends_with_a_turn_or_its_deadline() {
        let shared = Shared::new(());
        let past = Some(Instant::now());
        assert!(shared.wait(shared.lock(), past).is_none());
        let turns = shared.turns();
        shared.notify();
        assert!(!shared.wait_since(turns, past));
        assert!(shared.wait_since(turns, None));
        std::thread::scope(|scope| {
            let caller = shared.lock();
            scope.spawn(|| {
                // The caller waits, or it would hold the value.
                drop(shared.lock_for_turn());
                shared.notify();
            });
            assert!(shared.wait(caller, Some(Instant::now() + LONG)).is_some());
        });
    }
}
