//! What is counted: each worker counts for itself, and is asked once in a while.

use crate::Error;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many kinds of failures are told apart.
const KINDS_MAX: usize = 20;

/// Times in nanoseconds, with an error of a thousandth, up to an hour.
#[derive(Debug)]
pub(super) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Times {
        let histogram = Histogram::new_with_max(3_600_000_000_000, 3);
        Times(histogram.expect("the bounds are in order"))
    }
}

impl Times {
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What that part of all is not above.
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(part))
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    fn add(&mut self, other: &Times) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    fn clear(&mut self) {
        if !self.0.is_empty() {
            self.0.reset();
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Meter {
    /// From due to let in.
    pub connecting: Times,
    /// From due to received, or to acknowledged where nothing is received.
    pub latency: Times,
    pub counts: Counts,
    /// Why connections failed or were lost, and how often.
    pub reasons: BTreeMap<String, u64>,
    /// The first of these.
    pub first_error: Option<Error>,
}

/// Sums, and moments in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub opened: u64,
    pub failed: u64,
    /// Connections that broke later.
    pub broken: u64,
    pub sent: u64,
    /// QoS 1 and 2 messages that the broker took.
    pub acknowledged: u64,
    /// Those that it did not take.
    pub rejected: u64,
    pub received: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    /// Messages that are not of this run.
    pub foreign: u64,
    /// How often a publisher gave up waiting for messages to arrive.
    pub stalls: u64,
    /// Received, or acknowledged where nothing is received, after the warm-up.
    pub measured: u64,
    /// Sent after the warm-up.
    pub measured_sent: u64,
    /// When something was last received or acknowledged.
    pub last: u64,
    /// When something was last sent.
    pub last_sent: u64,
}

impl Meter {
    pub fn fail(&mut self, reason: String, error: Option<Error>) {
        let known = self.reasons.len() < KINDS_MAX || self.reasons.contains_key(&reason);
        let reason = if known { reason } else { String::from("other reasons") };
        *self.reasons.entry(reason).or_default() += 1;
        if self.first_error.is_none() {
            self.first_error = error;
        }
    }

    /// Adds what another has counted, and leaves it empty.
    pub fn take(&mut self, other: &mut Meter) {
        self.connecting.add(&other.connecting);
        self.latency.add(&other.latency);
        self.counts.add(&other.counts);
        for (reason, count) in std::mem::take(&mut other.reasons) {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.first_error = self.first_error.take().or(other.first_error.take());
        other.connecting.clear();
        other.latency.clear();
        other.counts = Counts::default();
    }
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        let Counts { last, last_sent, .. } = *other;
        for (sum, number) in [
            (&mut self.opened, other.opened),
            (&mut self.failed, other.failed),
            (&mut self.broken, other.broken),
            (&mut self.sent, other.sent),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.rejected, other.rejected),
            (&mut self.received, other.received),
            (&mut self.duplicated, other.duplicated),
            (&mut self.out_of_order, other.out_of_order),
            (&mut self.foreign, other.foreign),
            (&mut self.stalls, other.stalls),
            (&mut self.measured, other.measured),
            (&mut self.measured_sent, other.measured_sent),
        ] {
            *sum += number;
        }
        (self.last, self.last_sent) = (self.last.max(last), self.last_sent.max(last_sent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_add_up() {
        let (mut all, mut one) = (Meter::default(), Meter::default());
        for round in 1..=2 {
            for micros in 1..=1000 {
                one.latency.record(micros * 1000);
            }
            one.counts = Counts { received: 1000, last: 7, ..Counts::default() };
            one.fail(String::from("why"), None);
            all.take(&mut one);
            assert_eq!((one.latency.count(), one.counts.received, one.reasons.len()), (0, 0, 0));
            assert_eq!((all.counts.received, all.counts.last, all.reasons["why"]), (1000 * round, 7, round));
        }
        let p99 = all.latency.quantile(0.99).as_nanos() as f64;
        assert!((p99 / 990_000.0 - 1.0).abs() < 0.002, "{p99}");
        assert!(all.latency.max() >= Duration::from_micros(1000));
        for number in 0..100 {
            one.fail(number.to_string(), None);
        }
        assert_eq!((one.reasons.len(), one.reasons["other reasons"]), (KINDS_MAX + 1, 80));
    }
}
