//! How many connections there are, and how many there may be: in all, at each listener, from each address.
//!
//! Whoever is let in gets a [`Ticket`], which goes where its socket goes, from worker to worker and into
//! layers, and is given back when it is dropped with the socket. So a connection counts until it is
//! closed, whatever way that comes about.

mod addresses;

use self::addresses::{Address, Addresses};
use crate::config::Limits;
use hikyaku_proto::time::Instant;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The connections of a listener, or of the whole broker.
#[derive(Debug)]
pub(crate) struct Count {
    open: AtomicU32,
    max: AtomicU32,
    /// The count of the whole, if this is a part.
    whole: Option<Arc<Count>>,
    addresses: Arc<Addresses>,
    /// Whose connection it is, if this is the count of one alone.
    address: Option<Address>,
}

/// One connection's place in a listener's count, and in that of its address. A pointer, as there are many: one that counts
/// for its address has a count of its own.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Count>);

/// Why there is no ticket: the option that says so, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are as many connections.
    All(&'static str, u32),
    /// There are as many from this address.
    Address(&'static str, u32),
    /// As many have come from this address within a second.
    Rate(&'static str, u32),
}

/// All counts of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    whole: Arc<Count>,
    listeners: Arc<[Arc<Count>]>,
}

impl Count {
    fn new(whole: Option<Arc<Count>>, addresses: &Arc<Addresses>) -> Arc<Count> {
        let addresses = Arc::clone(addresses);
        let (open, max) = (AtomicU32::new(0), AtomicU32::new(u32::MAX));
        Arc::new(Count { open, max, whole, addresses, address: None })
    }

    /// Counts one more, if it may be.
    pub(crate) fn enter(self: &Arc<Count>, now: Instant, peer: Option<SocketAddr>) -> Result<Ticket, Full> {
        if let Some(whole) = &self.whole {
            whole.add("global_max_connections")?;
        }
        if let Err(full) = self.add("max_connections") {
            self.whole.iter().for_each(|whole| whole.remove());
            return Err(full);
        }
        match peer.map_or(Ok(None), |peer| self.addresses.enter(now, peer.ip())) {
            Ok(None) => Ok(Ticket(Arc::clone(self))),
            Ok(address) => {
                let (open, max, whole) = (AtomicU32::new(1), AtomicU32::new(1), Some(Arc::clone(self)));
                let addresses = Arc::clone(&self.addresses);
                Ok(Ticket(Arc::new(Count { open, max, whole, addresses, address })))
            }
            Err(full) => {
                self.leave();
                Err(full)
            }
        }
    }

    /// Takes one out of this count and those it is a part of.
    fn leave(&self) {
        let mut count = Some(self);
        while let Some(part) = count {
            part.remove();
            count = part.whole.as_deref();
        }
    }

    // Nothing else is read by these numbers, so no order is needed but their own.
    fn add(&self, option: &'static str) -> Result<(), Full> {
        let max = self.max.load(Ordering::Relaxed);
        let more = |open: u32| (open < max).then(|| open + 1);
        let added = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        added.map(|_| ()).map_err(|_| Full::All(option, max))
    }

    fn remove(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (option, max, what) = match self {
            Full::All(option, max) => (option, max, "connections, and there are as many"),
            Full::Address(option, max) => {
                (option, max, "connections from one address, and there are as many")
            }
            Full::Rate(option, max) => (option, max, "connections a second from one address"),
        };
        write!(f, "'{option}' allows {max} {what}")
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.leave();
        if let Some(address) = self.0.address {
            self.0.addresses.leave(address);
        }
    }
}

impl Counts {
    /// Counts for so many listeners, without limits.
    pub(crate) fn new(listeners: usize) -> Counts {
        let addresses = Arc::new(Addresses::default());
        let whole = Count::new(None, &addresses);
        let listeners = (0..listeners).map(|_| Count::new(Some(Arc::clone(&whole)), &addresses)).collect();
        Counts { whole, listeners }
    }

    /// The limits from now on: of the whole, and of each listener in order. Who is in stays.
    pub(crate) fn limit(
        &self,
        whole: Option<u32>,
        limits: &Limits,
        listeners: impl IntoIterator<Item = Option<u32>>,
    ) {
        self.whole.addresses.limit(limits.connections_per_address, limits.connection_rate);
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

    const NOW: Instant = Instant::ZERO;

    #[test]
    fn whoever_leaves_makes_room() {
        let counts = Counts::new(2);
        let (a, b) = (counts.of(0), counts.of(1));
        let limit = |whole, listeners| counts.limit(whole, &Limits::default(), listeners);
        limit(Some(3), [Some(2), None]);
        let first = a.enter(NOW, None).unwrap();
        let second = a.enter(NOW, None).unwrap();
        assert_eq!(a.enter(NOW, None).unwrap_err(), Full::All("max_connections", 2));
        let third = b.enter(NOW, None).unwrap();
        assert_eq!(b.enter(NOW, None).unwrap_err(), Full::All("global_max_connections", 3));
        drop(first);
        let fourth = b.enter(NOW, None).unwrap();
        drop((second, third));
        limit(Some(1), [Some(2), None]);
        assert_eq!(a.enter(NOW, None).unwrap_err(), Full::All("global_max_connections", 1));
        limit(None, [None, None]);
        assert!(a.enter(NOW, None).is_ok());
        drop(fourth);
        assert_eq!((counts.whole.open.load(Ordering::Relaxed), a.open.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn an_address_has_its_part() {
        let counts = Counts::new(1);
        let count = counts.of(0);
        let limits = Limits { connections_per_address: Some(2), ..Limits::default() };
        counts.limit(None, &limits, [None]);
        let peer = |text: &str| Some(format!("{text}:1").parse().unwrap());
        let first = count.enter(NOW, peer("192.0.2.1")).unwrap();
        // The same in the form a socket of both families tells it.
        let _second = count.enter(NOW, peer("[::ffff:192.0.2.1]")).unwrap();
        let full = Full::Address("max_connections_per_address", 2);
        assert_eq!(count.enter(NOW, peer("192.0.2.1")).unwrap_err(), full);
        let _other = count.enter(NOW, peer("192.0.2.2")).unwrap();
        let _unix = [count.enter(NOW, None).unwrap(), count.enter(NOW, None).unwrap()];
        drop(first);
        let _third = count.enter(NOW, peer("192.0.2.1")).unwrap();
        // Of IPv6 a whole network of 64 bits is one.
        let _network = ["[2001:db8::1]", "[2001:db8::2:1]"].map(|at| count.enter(NOW, peer(at)).unwrap());
        assert_eq!(count.enter(NOW, peer("[2001:db8::3]")).unwrap_err(), full);
        assert!(count.enter(NOW, peer("[2001:db8:0:1::3]")).is_ok());
        assert_eq!(count.open.load(Ordering::Relaxed), 7);
    }
}
