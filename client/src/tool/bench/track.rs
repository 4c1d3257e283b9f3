//! The messages of one publisher as one subscriber sees them: which are missing, came twice, or late.

use std::collections::BTreeMap;

/// How many separate gaps are remembered; what fills an older one counts as doubled, and the gap as lost.
const GAPS_MAX: usize = 100_000;

/// What a message is to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is later than all before; how far the row advances: 1 where none is missing.
    Next(u64),
    /// It came after a later one.
    Late,
    /// It came before.
    Again,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// The first number not seen or passed over.
    next: u64,
    /// What was passed over: beginnings and ends.
    gaps: BTreeMap<u64, u64>,
    /// How many different messages came.
    pub received: u64,
}

impl Track {
    /// Of a row whose beginning may have gone by unseen.
    pub fn starting_at(number: u64) -> Track {
        Track { next: number, ..Track::default() }
    }

    pub fn arrive(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            let by = (number - self.next).saturating_add(1);
            if by > 1 {
                self.keep(self.next, number);
            }
            self.next = number.saturating_add(1);
            self.received += 1;
            return Arrival::Next(by);
        }
        let gap = self.gaps.range(..=number).next_back().map(|(from, to)| (*from, *to));
        let Some((from, to)) = gap.filter(|(_, to)| number < *to) else { return Arrival::Again };
        self.gaps.remove(&from);
        if from < number {
            self.keep(from, number);
        }
        if number + 1 < to {
            self.keep(number + 1, to);
        }
        self.received += 1;
        Arrival::Late
    }

    fn keep(&mut self, from: u64, to: u64) {
        self.gaps.insert(from, to);
        if self.gaps.len() > GAPS_MAX {
            self.gaps.pop_first();
        }
    }

    /// How many are missing between those that came.
    pub fn missing(&self) -> u64 {
        self.gaps.iter().map(|(from, to)| to - from).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Arrival::{Again, Late, Next};

    #[test]
    fn losses_doubles_and_swaps_are_told_apart() {
        let mut track = Track::default();
        let arrivals: Vec<Arrival> = [0, 1, 1, 5, 3, 3, 2, 6, 9].map(|n| track.arrive(n)).into();
        assert_eq!(arrivals, [Next(1), Next(1), Again, Next(4), Late, Again, Late, Next(1), Next(3)]);
        // 4, 7 and 8.
        assert_eq!((track.received, track.missing()), (7, 3));
        assert_eq!(
            (track.arrive(7), track.arrive(8), track.arrive(4), track.arrive(4)),
            (Late, Late, Late, Again)
        );
        assert_eq!((track.received, track.missing()), (10, 0));
    }

    #[test]
    fn what_anyone_may_write_does_no_harm() {
        let mut track = Track::starting_at(5);
        assert_eq!(track.arrive(u64::MAX), Next(u64::MAX - 4));
        assert_eq!(track.arrive(4), Again);
        assert_eq!(track.arrive(u64::MAX - 1), Late);
        for number in 0..GAPS_MAX as u64 * 4 {
            track.arrive(number * 2);
        }
        assert!(track.gaps.len() <= GAPS_MAX);
    }
}
