//! Connections by address: how many there are, and how fast they come.

use super::Full;
use hikyaku_proto::time::Instant;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Who counts as one: an IPv4 address, or an IPv6 network of 64 bits, of which each customer of a provider has one or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    V4(u32),
    V6(u64),
}

/// The connections of all addresses, as far as there is a limit.
#[derive(Debug)]
pub(super) struct Addresses {
    most: AtomicU32,
    rate: AtomicU32,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    by_address: HashMap<Address, Place>,
    /// With so many, those that say nothing any more are looked for.
    prune_at: usize,
}

#[derive(Debug)]
struct Place {
    open: u32,
    /// When those that have come would have come, had they come at the rate that is allowed.
    even: Instant,
}

impl Default for Addresses {
    fn default() -> Self {
        let (most, rate) = (AtomicU32::new(u32::MAX), AtomicU32::new(u32::MAX));
        Addresses { most, rate, places: Mutex::default() }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Address::V4(address.to_bits()),
            IpAddr::V6(address) => Address::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl Addresses {
    /// How many connections each may have, and how many a second, from now on. Those that came while there was no limit
    /// are not counted.
    pub(super) fn limit(&self, most: Option<u32>, rate: Option<u32>) {
        self.most.store(most.unwrap_or(u32::MAX), Ordering::Relaxed);
        self.rate.store(rate.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Counts one more, if it may be. `None` if it need not be counted.
    pub(super) fn enter(&self, now: Instant, address: IpAddr) -> Result<Option<Address>, Full> {
        let (most, rate) = (self.most.load(Ordering::Relaxed), self.rate.load(Ordering::Relaxed));
        if (most, rate) == (u32::MAX, u32::MAX) {
            return Ok(None);
        }
        let address = Address::from(address);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.prune(now);
        let place = places.by_address.entry(address).or_insert(Place { open: 0, even: now });
        if place.open >= most {
            return Err(Full::Address("max_connections_per_address", most));
        }
        if rate != u32::MAX {
            // A second's worth may come at once.
            let (even, each) = (place.even.max(now), Duration::from_secs(1) / rate.max(1));
            if even + each > now + Duration::from_secs(1) {
                return Err(Full::Rate("max_connection_rate", rate));
            }
            place.even = even + each;
        }
        place.open += 1;
        Ok(Some(address))
    }

    /// One has gone.
    pub(super) fn leave(&self, address: Address) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.by_address.get_mut(&address) {
            place.open = place.open.saturating_sub(1);
        }
    }
}

impl Places {
    /// Forgets those that make no difference, at a constant cost for each that enters.
    fn prune(&mut self, now: Instant) {
        if self.by_address.len() >= self.prune_at {
            self.by_address.retain(|_, place| place.open > 0 || place.even > now);
            self.by_address.shrink_to(2 * self.by_address.len() + 64);
            self.prune_at = 2 * self.by_address.len() + 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_worth_comes_at_once_and_then_evenly() {
        let addresses = Addresses::default();
        addresses.limit(None, Some(4));
        let enter = |ms: u64, address: u8| {
            addresses.enter(Instant::from_micros(ms * 1000), IpAddr::from([192, 0, 2, address]))
        };
        let full = Full::Rate("max_connection_rate", 4);
        for _ in 0..4 {
            assert!(enter(0, 1).is_ok());
        }
        assert_eq!(enter(0, 1), Err(full));
        assert!(enter(0, 2).is_ok());
        assert_eq!(enter(249, 1), Err(full));
        assert!(enter(250, 1).is_ok() && enter(250, 1).is_err() && enter(500, 1).is_ok());
        for _ in 0..4 {
            assert!(enter(5000, 1).is_ok());
        }
        assert!(enter(5000, 1).is_err());
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let addresses = Addresses::default();
        addresses.limit(Some(1), Some(10));
        for i in 0..100_000u32 {
            let now = Instant::from_micros(u64::from(i) * 1000);
            let address = addresses.enter(now, IpAddr::V4(i.into())).unwrap().unwrap();
            addresses.leave(address);
        }
        assert!(addresses.places.lock().unwrap().by_address.len() < 1000);
    }
}
