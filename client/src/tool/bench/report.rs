//! What people and programs are told of a run.

use super::super::json::Json;
use super::super::say;
use super::lead::{Ended, Timing};
use super::meter::{Counts, Meter, Times};
use super::run::{Phase, Run};
use super::wanted::Mode;
use super::worker::Outcome;
use crate::{QoS, Version};
use std::time::{Duration, Instant};

/// A line a second on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    quiet: bool,
    began: Instant,
    last: Instant,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        let now = Instant::now();
        Progress { quiet, began: now, last: now }
    }

    /// Shows what was counted since the time before, and how many connections are open.
    pub fn show(&mut self, run: &Run, counted: &Meter, open: u64) {
        let now = Instant::now();
        let elapsed = now.duration_since(self.last);
        // What is left in the end is shown with all the rest.
        if self.quiet || elapsed < Duration::from_millis(500) {
            return;
        }
        self.last = now;
        let counts = &counted.counts;
        let rate = |count: u64| grouped((count as f64 / elapsed.as_secs_f64()).round() as u64);
        let mut line = format!("{:4} s", now.duration_since(self.began).as_secs_f64().round());
        match run.phase() {
            Phase::Subscribe | Phase::Connect => {
                line += &format!("  {} of {} connections", grouped(open), grouped(run.wanted.total() as u64));
            }
            _ => {
                let mode = run.wanted.mode();
                if mode.publishes() {
                    line += &format!("  {}/s sent", rate(counts.sent));
                }
                if mode == Mode::Pub && run.qos != QoS::AtMostOnce {
                    line += &format!("  {}/s acknowledged", rate(counts.acknowledged));
                }
                if mode == Mode::Sub || mode.receives_its_own() {
                    line += &format!("  {}/s received", rate(counts.received));
                }
                if counted.latency.count() > 0 {
                    let latency = |part| shown(counted.latency.quantile(part));
                    line += &format!("  p50 {}  p99 {}", latency(0.5), latency(0.99));
                }
                if mode == Mode::Conn {
                    line += &format!("  {} connections held", grouped(open));
                }
            }
        }
        for (count, what) in [
            (counts.failed, "failed"),
            (counts.broken, "broken"),
            (counts.rejected, "refused"),
            (counts.duplicated, "duplicated"),
            (counts.out_of_order, "out of order"),
        ] {
            if count > 0 {
                line += &format!("  {} {what}", grouped(count));
            }
        }
        say(&line);
    }
}

/// All that came of a run.
#[derive(Debug)]
pub(super) struct Summary<'r> {
    run: &'r Run,
    total: Meter,
    outcome: Outcome,
    timing: Timing,
}

const PARTS: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl<'r> Summary<'r> {
    pub fn new(run: &'r Run, ended: Ended) -> Summary<'r> {
        let Ended { total, outcome, timing } = ended;
        Summary { run, total, outcome, timing }
    }

    /// Whether all is as it should be.
    pub fn is_good(&self) -> bool {
        let Counts { opened, failed, broken, rejected, duplicated, out_of_order, .. } = self.total.counts;
        // At QoS 1 a message may come twice.
        let duplicated = if self.run.qos == QoS::AtLeastOnce { 0 } else { duplicated };
        opened > 0 && failed + broken + rejected + duplicated + out_of_order + self.outcome.lost == 0
    }

    fn connects_per_s(&self) -> f64 {
        per_s(self.total.counts.opened, self.timing.connecting)
    }

    fn sent_per_s(&self) -> f64 {
        per_s(self.total.counts.measured_sent, self.window(self.total.counts.last_sent))
    }

    /// Received, or acknowledged.
    fn done_per_s(&self) -> f64 {
        per_s(self.total.counts.measured, self.window(self.total.counts.last))
    }

    /// From the end of the warm-up to the end, or until the last message if that came later.
    fn window(&self, last: u64) -> Duration {
        Duration::from_nanos(self.timing.to.max(last).saturating_sub(self.timing.from))
    }

    fn cpu_us(&self) -> f64 {
        let counts = &self.total.counts;
        let messages = counts.received.max(counts.sent).max(1);
        self.timing.cpu.as_secs_f64() * 1e6 / messages as f64
    }

    pub fn table(&self) -> Vec<u8> {
        let wanted = &self.run.wanted;
        let mode = wanted.mode();
        let counts = &self.total.counts;
        let mut text = format!("hikyaku-bench {}: MQTT {}", mode.name(), version(self.run.version()));
        if mode != Mode::Conn {
            text += &format!(", QoS {}", self.run.qos as u8);
        }
        if mode.publishes() {
            text += &format!(", {} bytes", grouped(wanted.size as u64));
            text += &match wanted.rate {
                Some(rate) => format!(", {}/s wanted", grouped(rate.round() as u64)),
                // Nothing is waited for.
                None if mode == Mode::Pub && self.run.qos == QoS::AtMostOnce => String::new(),
                None => format!(", window {}", grouped(wanted.window().into())),
            };
        }
        let mut row = |name: &str, what: String| {
            text += format!("\n{name:14}{what}").trim_end_matches(' ');
        };
        row("", String::new());
        let failed = format!("{} failed, {} broken", grouped(counts.failed), grouped(counts.broken));
        let (opened, per_s) = (grouped(counts.opened), grouped(self.connects_per_s() as u64));
        let took = shown(self.timing.connecting);
        row("connections", format!("{opened} opened in {took} ({per_s}/s), {failed}"));
        if mode != Mode::Conn {
            row("messages", self.messages().join(", "));
            let mut rates = Vec::new();
            if mode.publishes() {
                rates.push(format!("{}/s sent", grouped(self.sent_per_s().round() as u64)));
            }
            if counts.measured > 0 {
                let done = if mode == Mode::Pub { "acknowledged" } else { "received" };
                rates.push(format!("{}/s {done}", grouped(self.done_per_s().round() as u64)));
            }
            if !rates.is_empty() {
                row("throughput", rates.join(", "));
                let cpu = self.timing.cpu.as_secs_f64();
                row("own CPU", format!("{cpu:.2} s, {:.2} µs a message", self.cpu_us()));
            }
        }
        let names = PARTS.iter().map(|part| part.0).chain(["max"]);
        row("", String::new());
        row("", names.map(|name| format!("{name:>10}")).collect());
        let mut times = |name: &str, times: &Times| {
            if times.count() > 0 {
                let parts = PARTS.iter().map(|part| times.quantile(part.1)).chain([times.max()]);
                row(name, parts.map(|time| format!("{:>10}", shown(time))).collect());
            }
        };
        times("connecting", &self.total.connecting);
        times(if mode == Mode::Pub { "acknowledging" } else { "latency" }, &self.total.latency);
        text.push('\n');
        for note in self.notes() {
            text += &format!("{note}\n");
        }
        text.into_bytes()
    }

    fn messages(&self) -> Vec<String> {
        let counts = &self.total.counts;
        let mode = self.run.wanted.mode();
        let mut parts = Vec::new();
        let mut part = |count: u64, what: &str| parts.push(format!("{} {what}", grouped(count)));
        if mode.publishes() {
            part(counts.sent, "sent");
        }
        if mode == Mode::Pub {
            if self.run.qos != QoS::AtMostOnce {
                part(counts.acknowledged, "acknowledged");
                part(self.outcome.lost, "lost");
            }
        } else {
            part(counts.received, "received");
            part(self.outcome.lost, "lost");
            part(counts.duplicated, "duplicated");
            part(counts.out_of_order, "out of order");
        }
        parts
    }

    /// What is worth a line only when there is something of it.
    fn notes(&self) -> Vec<String> {
        let counts = &self.total.counts;
        let mut notes = Vec::new();
        for (count, what) in [
            (counts.rejected, "messages were refused by the server."),
            (counts.foreign, "messages came that are not of this run."),
            (
                self.outcome.unsent,
                "messages were due and could not be sent: the server, or this program, is too slow.",
            ),
            (counts.stalls, "times a publisher waited a second in vain for its messages to arrive."),
        ] {
            if count > 0 {
                notes.push(format!("{} {what}", grouped(count)));
            }
        }
        let reasons = self.total.reasons.iter();
        notes.extend(reasons.map(|(reason, count)| format!("{} × {reason}.", grouped(*count))));
        notes
    }

    pub fn json(&self) -> Vec<u8> {
        let wanted = &self.run.wanted;
        let (counts, timing) = (&self.total.counts, &self.timing);
        let mut members: Vec<(Vec<u8>, Json)> = Vec::new();
        let mut member = |name: &str, value: Json| members.push((name.into(), value));
        let null = || Json::Plain(String::from("null"));
        let float = |number: f64| Json::number(format_args!("{number:.3}"));
        member("mode", Json::text(wanted.mode().name()));
        member("topic", self.run.topic.as_ref().map_or_else(null, Json::text));
        member("mqtt", Json::text(version(self.run.version())));
        member("qos", Json::number(self.run.qos as u8));
        member("size", Json::number(wanted.size));
        member("publishers", Json::number(wanted.publishers()));
        member("subscribers", Json::number(wanted.subscribers()));
        member("threads", Json::number(wanted.threads));
        member("rate", wanted.rate.map_or_else(null, float));
        member("window", Json::number(wanted.window()));
        member("duration_s", float(self.window(0).as_secs_f64()));
        for (name, count) in [
            ("connections_opened", counts.opened),
            ("connections_failed", counts.failed),
            ("connections_broken", counts.broken),
            ("sent", counts.sent),
            ("acknowledged", counts.acknowledged),
            ("refused", counts.rejected),
            ("received", counts.received),
            ("lost", self.outcome.lost),
            ("duplicated", counts.duplicated),
            ("out_of_order", counts.out_of_order),
            ("foreign", counts.foreign),
            ("unsent", self.outcome.unsent),
            ("stalls", counts.stalls),
        ] {
            member(name, Json::number(count));
        }
        member("connects_per_s", float(self.connects_per_s()));
        member("sent_per_s", float(self.sent_per_s()));
        member("done_per_s", float(self.done_per_s()));
        member("own_cpu_s", float(timing.cpu.as_secs_f64()));
        member("own_cpu_us_per_message", float(self.cpu_us()));
        for (name, times) in [("connecting", &self.total.connecting), ("latency", &self.total.latency)] {
            let parts = PARTS.iter().map(|part| (part.0.replace('.', "_"), times.quantile(part.1)));
            for (part, time) in parts.chain([(String::from("max"), times.max())]) {
                let time = if times.count() == 0 { null() } else { float(time.as_secs_f64() * 1e6) };
                member(&format!("{name}_{part}_us"), time);
            }
        }
        let reasons = self.total.reasons.iter();
        let reasons = reasons.map(|(reason, count)| (reason.clone().into_bytes(), Json::number(count)));
        member("reasons", Json::Object(reasons.collect()));
        let mut text = Vec::new();
        Json::Object(members).write(false, &mut text);
        text.push(b'\n');
        text
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::V3_1 => "3.1",
        Version::V3_1_1 => "3.1.1",
        Version::V5 => "5.0",
    }
}

fn per_s(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time with three digits that count.
fn shown(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    let (value, unit) = match nanos {
        ..1e6 => (nanos / 1e3, "µs"),
        ..1e9 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::super::super::config::Config;
    use super::super::super::{Tool, session};
    use super::*;

    #[test]
    fn any_text_makes_good_json() {
        let args = ["p2p", "-t", "a\"\\ü/%i", "--rate", "2.5", "--json"].map(Into::into);
        let config = Config::read(Tool::Bench, args.into()).unwrap();
        let run = Run::new(&config, session::route(&config).unwrap(), Vec::new(), 1);
        let mut total = Meter::default();
        total.fail(String::from("it said \"no\"\n\u{7}"), None);
        total.latency.record(1_000_000);
        let ended = Ended { total, outcome: Outcome::default(), timing: Timing::default() };
        let summary = Summary::new(&run, ended);
        assert!(!summary.is_good(), "nobody was let in");
        let text = summary.json();
        let Some(Json::Object(members)) = Json::parse(&text) else {
            panic!("{}", String::from_utf8_lossy(&text))
        };
        let member = |name: &str| &members.iter().find(|(key, _)| key == name.as_bytes()).expect(name).1;
        assert_eq!(*member("topic"), Json::text("a\"\\ü/%i"));
        assert_eq!(*member("rate"), Json::Plain(String::from("2.5")));
        assert_eq!(*member("connecting_p50_us"), Json::Plain(String::from("null")));
        let reason = (b"it said \"no\"\n\x07".to_vec(), Json::number(1));
        assert_eq!(*member("reasons"), Json::Object(vec![reason]));
        assert!(summary.table().ends_with(b"1 \xc3\x97 it said \"no\"\n\x07.\n"));
    }

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let times = [900, 12_345, 123_456, 1_234_567, 99_900_000, 2_500_000_000].map(Duration::from_nanos);
        assert_eq!(times.map(shown), ["0.90 µs", "12.3 µs", "123 µs", "1.23 ms", "99.9 ms", "2.50 s"]);
    }
}
