//! What is said of those who are turned away before the core knows them: one line a second of each kind, and then
//! how many were not said.

use hikyaku_proto::time::Instant;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

/// Why someone is turned away.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// It does not speak what the listener takes.
    Speech,
    /// TLS could not be agreed on, or a certificate names nobody.
    Tls,
    /// There are as many as may be.
    Full,
    /// Its page may not connect, or comes without TLS.
    Web,
    /// It has not said who it is.
    Late,
}

const KINDS: usize = Refusal::Late as usize + 1;
/// Many of each kind.
const MANY: [&str; KINDS] = [
    "Clients of another protocol",
    "Failures of TLS",
    "Connections beyond the limits",
    "Refused web pages",
    "Connections without CONNECT in time",
];
const EVERY: Duration = Duration::from_secs(1);

/// When each kind may be said again, and how often it was not.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    kinds: [Option<(Instant, u64)>; KINDS],
    turned_away: u64,
}

impl Refusals {
    /// Says that someone is turned away, and why, unless another was a moment ago.
    pub(crate) fn say(
        &mut self,
        now: Instant,
        kind: Refusal,
        peer: Option<SocketAddr>,
        listener: Option<&str>,
        why: &dyn Display,
    ) {
        if matches!(kind, Refusal::Full | Refusal::Late) {
            self.turned_away += 1;
        }
        match &mut self.kinds[kind as usize] {
            Some((again, kept_quiet)) if *again > now => *kept_quiet += 1,
            place => {
                let others = place.replace((now + EVERY, 0)).map_or(0, |(_, kept_quiet)| kept_quiet);
                let listener = listener.unwrap_or("a listener");
                match peer {
                    Some(peer) => log::info!("A client from {peer} refused at {listener}: {why}."),
                    None => log::info!("A client refused at {listener}: {why}."),
                }
                say_others(others, kind as usize);
            }
        }
    }

    /// How many were turned away for a limit since the last time.
    pub(crate) fn take_turned_away(&mut self) -> u64 {
        std::mem::take(&mut self.turned_away)
    }

    /// When to call [`Refusals::on_time`], as far as there is something to say then.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.kinds.iter().flatten().filter(|(_, kept_quiet)| *kept_quiet > 0).map(|(again, _)| *again).min()
    }

    /// Says how many were not said.
    pub(crate) fn on_time(&mut self, now: Instant) {
        for (kind, place) in self.kinds.iter_mut().enumerate() {
            if let Some((again, kept_quiet)) = place
                && *kept_quiet > 0
                && *again <= now
            {
                say_others(*kept_quiet, kind);
                *place = Some((now + EVERY, 0));
            }
        }
    }
}

fn say_others(others: u64, kind: usize) {
    if others > 0 {
        log::info!("{} that were not logged: {others}.", MANY[kind]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_said_is_counted_until_it_may_be() {
        let mut refusals = Refusals::default();
        let say = |refusals: &mut Refusals, at| {
            refusals.say(Instant::from_secs(at), Refusal::Tls, None, None, &"why");
        };
        say(&mut refusals, 10);
        assert_eq!(refusals.deadline(), None);
        say(&mut refusals, 10);
        say(&mut refusals, 10);
        assert_eq!(refusals.deadline(), Some(Instant::from_secs(11)));
        refusals.on_time(Instant::from_secs(10));
        assert_eq!(refusals.kinds[1], Some((Instant::from_secs(11), 2)));
        refusals.on_time(Instant::from_secs(11));
        assert_eq!((refusals.deadline(), refusals.kinds[1]), (None, Some((Instant::from_secs(12), 0))));
        say(&mut refusals, 11);
        assert_eq!(refusals.deadline(), Some(Instant::from_secs(12)));
        say(&mut refusals, 12);
        assert_eq!(refusals.deadline(), None);
    }
}
