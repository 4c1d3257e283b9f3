//! How many connections there are, and how many there may be.
//!
//! Whoever is let in gets a [`Ticket`], which goes where its socket goes, from worker to worker and into
//! layers, and is given back when it is dropped with the socket. So a connection counts until it is
//! closed, whatever way that comes about.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The connections of a listener, or of the whole broker.
#[derive(Debug)]
pub(crate) struct Count {
    open: AtomicU32,
    max: AtomicU32,
    /// The count of the whole, if this is a part.
    whole: Option<Arc<Count>>,
}

/// One connection's place in a listener's count.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Count>);

/// Why there is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// The option that says so.
    pub(crate) option: &'static str,
    /// Its value.
    pub(crate) max: u32,
}

/// All counts of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    whole: Arc<Count>,
    listeners: Arc<[Arc<Count>]>,
}

impl Count {
    fn new(whole: Option<Arc<Count>>) -> Arc<Count> {
        Arc::new(Count { open: AtomicU32::new(0), max: AtomicU32::new(u32::MAX), whole })
    }

    /// Counts one more, if it may be.
    pub(crate) fn enter(self: &Arc<Count>) -> Result<Ticket, Full> {
        if let Some(whole) = &self.whole {
            whole.add("global_max_connections")?;
        }
        match self.add("max_connections") {
            Ok(()) => Ok(Ticket(Arc::clone(self))),
            Err(full) => {
                self.whole.iter().for_each(|whole| whole.remove());
                Err(full)
            }
        }
    }

    // Nothing else is read by these numbers, so no order is needed but their own.
    fn add(&self, option: &'static str) -> Result<(), Full> {
        let max = self.max.load(Ordering::Relaxed);
        let more = |open: u32| (open < max).then(|| open + 1);
        let added = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        added.map(|_| ()).map_err(|_| Full { option, max })
    }

    fn remove(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' allows {} connections, and there are as many", self.option, self.max)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.remove();
        self.0.whole.iter().for_each(|whole| whole.remove());
    }
}

impl Counts {
    /// Counts for so many listeners, without limits.
    pub(crate) fn new(listeners: usize) -> Counts {
        let whole = Count::new(None);
        let listeners = (0..listeners).map(|_| Count::new(Some(Arc::clone(&whole)))).collect();
        Counts { whole, listeners }
    }

    /// The limits from now on: of the whole, and of each listener in order. Who is in stays.
    pub(crate) fn limit(&self, whole: Option<u32>, listeners: impl IntoIterator<Item = Option<u32>>) {
        let set = |count: &Count, max: Option<u32>| {
            count.max.store(max.unwrap_or(u32::MAX), Ordering::Relaxed);
        };
        set(&self.whole, whole);
        self.listeners.iter().zip(listeners).for_each(|(count, max)| set(count, max));
    }

    /// The count of a listener.
    pub(crate) fn of(&self, listener: u16) -> Arc<Count> {
        self.listeners.get(usize::from(listener)).unwrap_or(&self.whole).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_makes_room() {
        let counts = Counts::new(2);
        let (a, b) = (counts.of(0), counts.of(1));
        counts.limit(Some(3), [Some(2), None]);
        let first = a.enter().unwrap();
        let second = a.enter().unwrap();
        assert_eq!(a.enter().unwrap_err(), Full { option: "max_connections", max: 2 });
        let third = b.enter().unwrap();
        assert_eq!(b.enter().unwrap_err(), Full { option: "global_max_connections", max: 3 });
        drop(first);
        let fourth = b.enter().unwrap();
        drop((second, third));
        counts.limit(Some(1), [Some(2), None]);
        assert_eq!(a.enter().unwrap_err(), Full { option: "global_max_connections", max: 1 });
        counts.limit(None, [None, None]);
        assert!(a.enter().is_ok());
        drop(fourth);
        assert_eq!((counts.whole.open.load(Ordering::Relaxed), a.open.load(Ordering::Relaxed)), (0, 0));
    }
}
