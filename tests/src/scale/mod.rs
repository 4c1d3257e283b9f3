//! What a message costs as there is more and more of something: subscriptions, connections, receivers, retained messages, workers.
//!
//! What counts is CPU time of the broker: [`sockets`] measures the release broker with one worker, [`shard`] a bare shard in
//! this process, where there are no system calls and more sessions than a machine has ports for. All is said as points
//! ([`Point`]), kept in a file, and drawn ([`draw`]).

mod crowd;
mod draw;
mod letters;
mod shard;
mod sockets;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use crate::random::Random;

/// What to measure, and how far.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command that starts the broker; `{conf}` stands for its configuration.
    pub command: String,
    /// All counts are divided by this.
    pub scale: usize,
    /// Of so many runs the median counts.
    pub runs: usize,
}

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The plot it belongs to.
    pub plot: String,
    /// The curve.
    pub series: String,
    /// How many there were.
    pub x: f64,
    /// What it cost.
    pub y: f64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}\t{}\t{:.4}", self.plot, self.series, self.x, self.y)
    }
}

/// A measurement: its name, what it is, and how it is done.
type Measurement = (&'static str, &'static str, fn(&Plan, &mut dyn FnMut(Point)));

/// All measurements.
const MEASUREMENTS: [Measurement; 9] = [
    ("shard-subscriptions", "a bare shard with 1,000 to 1,000,000 filters", shard::subscriptions),
    ("shard-sessions", "a bare shard with 1 to 100,000 connected sessions", shard::sessions),
    ("shard-fanout", "a bare shard, a message to 1 to 100,000 sessions", shard::fanout),
    ("shard-retained", "a bare shard with 1,000 to 1,000,000 retained messages", shard::retained),
    ("letters", "messages between 1 to 64 shards, counted", letters::letters),
    ("subscriptions", "the broker with 1,000 to 1,000,000 filters", sockets::subscriptions),
    ("connections", "the broker with 1 to 19,000 connections", sockets::connections),
    ("fanout", "the broker, a message to 1 to 19,000 sockets", sockets::fanout),
    ("retained", "the broker with 1,000 to 1,000,000 retained messages", sockets::retained),
];

/// The names of all measurements, and what they are.
pub fn measurements() -> impl Iterator<Item = (&'static str, &'static str)> {
    MEASUREMENTS.iter().map(|(name, what, _)| (*name, *what))
}

/// Measures, and hands out each value as it is known.
///
/// # Panics
/// When the broker cannot be started, or does not do what it should.
pub fn measure(name: &str, plan: &Plan, mut each: impl FnMut(Point)) {
    if let Some((_, _, measure)) = MEASUREMENTS.iter().find(|(known, _, _)| *known == name) {
        measure(plan, &mut each);
    }
}

/// Puts new points in the place of those of the same curves in a file, and draws all plots beside it.
///
/// # Errors
/// When the files cannot be read or written.
pub fn record(new: &[Point], file: &Path) -> io::Result<Vec<Point>> {
    let known = match fs::read_to_string(file) {
        Ok(text) => text.lines().skip(1).filter_map(point).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    let is_new = |old: &Point| new.iter().any(|p| (&p.plot, &p.series) == (&old.plot, &old.series));
    let mut points: Vec<Point> = known;
    points.retain(|old| !is_new(old));
    points.extend_from_slice(new);
    points.sort_by(|a, b| (&a.plot, &a.series).cmp(&(&b.plot, &b.series)).then(a.x.total_cmp(&b.x)));
    let lines: Vec<_> = points.iter().map(ToString::to_string).collect();
    fs::write(file, format!("plot\tseries\tx\ty\n{}\n", lines.join("\n")))?;
    for (name, svg) in draw::all(&points) {
        fs::write(file.with_file_name(format!("{name}.svg")), svg)?;
    }
    Ok(points)
}

fn point(line: &str) -> Option<Point> {
    let mut fields = line.split('\t');
    let (plot, series) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    Some(Point { plot, series, x: fields.next()?.parse().ok()?, y: fields.next()?.parse().ok()? })
}

/// 1, 10, 100… from and to these, and the last one itself, divided by the plan's scale.
fn steps(plan: &Plan, from: usize, to: usize) -> Vec<usize> {
    let to = (to / plan.scale).max(from);
    let decades = std::iter::successors(Some(from), |n| n.checked_mul(10)).take_while(|n| *n < to);
    decades.chain([to]).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The forms of filters: one for each number, and the topic that it alone matches.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Exact,
    Plus,
    Hash,
}

impl Shape {
    const ALL: [Shape; 3] = [Shape::Exact, Shape::Plus, Shape::Hash];

    fn name(self) -> &'static str {
        match self {
            Shape::Exact => "exact",
            Shape::Plus => "+",
            Shape::Hash => "#",
        }
    }

    fn filter(self, i: usize) -> String {
        let (site, device) = (i / 1000, i % 1000);
        match self {
            Shape::Exact => format!("site/{site:04}/{device:03}/temp"),
            Shape::Plus => format!("site/{site:04}/+/{device:03}"),
            Shape::Hash => format!("site/{site:04}/{device:03}/#"),
        }
    }

    fn topic(self, i: usize) -> String {
        let (site, device) = (i / 1000, i % 1000);
        match self {
            Shape::Exact | Shape::Hash => format!("site/{site:04}/{device:03}/temp"),
            Shape::Plus => format!("site/{site:04}/room/{device:03}"),
        }
    }
}

/// A topic of 20 bytes.
fn retained_topic(i: usize) -> String {
    format!("room/{:04}/meter/{:04}", i / 10_000, i % 10_000)
}

const PAYLOAD: [u8; 64] = [b'x'; 64];

/// `count` numbers below `n` in no order, so that no message has its predecessor's topic in a cache by chance.
fn draws(n: usize, count: usize) -> Vec<usize> {
    let mut random = Random::new(7);
    (0..count).map(|_| random.below(n as u64) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_where_they_should() {
        let plan = |scale| Plan { command: String::new(), scale, runs: 1 };
        assert_eq!(steps(&plan(1), 1, 19_000), [1, 10, 100, 1000, 10_000, 19_000]);
        assert_eq!(steps(&plan(1), 1000, 100_000), [1000, 10_000, 100_000]);
        assert_eq!(steps(&plan(1000), 1000, 100_000), [1000]);
    }

    #[test]
    fn a_bare_shard_can_be_measured_and_drawn() {
        let plan = Plan { command: String::new(), scale: 1000, runs: 1 };
        let mut points = Vec::new();
        for (name, _) in measurements().filter(|(name, _)| name.starts_with("shard-") || *name == "letters") {
            measure(name, &plan, |point| points.push(point));
        }
        assert!(points.iter().all(|point| point.x >= 1.0 && point.y > 0.0), "{points:?}");
        let folder = std::env::temp_dir().join(format!("hikyaku-scale-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let all = record(&points, &folder.join("data.tsv")).unwrap();
        assert_eq!(all.len(), points.len());
        // The same again, in the place of what was there.
        assert_eq!(record(&points, &folder.join("data.tsv")).unwrap().len(), points.len());
        let svg = fs::read_to_string(folder.join("fanout.svg")).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        fs::remove_dir_all(folder).unwrap();
    }
}
