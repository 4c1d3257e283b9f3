//! Plots of points as SVG: both axes logarithmic, so that what grows with the number is a slope of one, and what does not is flat.

use std::fmt::Write;

use super::Point;

/// A plot: its name, its title, what is along it, the unit of what is up.
const PLOTS: [(&str, &str, &str, &str); 6] = [
    ("subscriptions", "CPU time per message", "subscriptions", "µs"),
    ("connections", "CPU time per message", "connections, each subscribed to its own topic", "µs"),
    ("fanout", "CPU time per delivery", "receivers of each message", "µs"),
    ("retained", "CPU time per retained message", "retained messages", "µs"),
    ("memory", "resident memory each", "subscriptions or retained messages", "bytes"),
    ("workers", "messages between workers for each PUBLISH", "workers", "number"),
];

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 520.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 366.0;
/// How far apart the names of curves are at least.
const LINE: f64 = 17.0;
/// To be seen on white and on black.
const COLOURS: [&str; 7] = ["#2f81f7", "#d9730d", "#2da44e", "#e5484d", "#9a6ee8", "#808890", "#b8860b"];
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}\
    .page{fill:#fff}.grid{stroke:#d0d7de;stroke-width:1}.fine{stroke:#eaeef2;stroke-width:1}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.grid{stroke:#30363d}.fine{stroke:#1c2128}}";

/// All plots there are points for, by name.
pub(super) fn all(points: &[Point]) -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    for (name, title, along, unit) in PLOTS {
        let points: Vec<_> = points.iter().filter(|point| point.plot == name).collect();
        if !points.is_empty() {
            plots.push((name, plot(title, along, unit, &points)));
        }
    }
    plots
}

/// One axis: where the powers of ten from `low` to `high` lie.
struct Axis {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl Axis {
    /// The powers of ten around these values.
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        let low = least.log10().floor() as i32;
        Self { low, high: (most.log10().ceil() as i32).max(low + 1), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    /// Values to draw a line at, with their label if they have one.
    fn ticks(&self) -> impl Iterator<Item = (f64, Option<String>)> {
        let (low, high) = (self.low, self.high);
        (low..=high).flat_map(move |power| {
            let ten = 10f64.powi(power);
            let fine = (2..10).map(move |n| (ten * f64::from(n), None)).filter(move |_| power < high);
            std::iter::once((ten, Some(number(ten)))).chain(fine)
        })
    }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e3 => format!("{} k", v / 1e3),
        v if v >= 1.0 => format!("{v}"),
        v => format!("{}", (v * 1e6).round() / 1e6),
    }
}

fn plot(title: &str, along: &str, unit: &str, points: &[&Point]) -> String {
    let x = Axis::around(points.iter().map(|point| point.x), LEFT, RIGHT);
    let y = Axis::around(points.iter().map(|point| point.y), BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         role=\"img\"><title>{title} by {along}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"24\">{title}, {unit}</text>\n\
         <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{along}</text>\n",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 42.0
    );
    for (value, label) in x.ticks() {
        let at = x.at(value);
        let class = if label.is_some() { "grid" } else { "fine" };
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{at:.1} {TOP}V{BOTTOM}\"/>");
        if let Some(label) = label {
            let below = BOTTOM + 20.0;
            let _ =
                writeln!(svg, "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{label}</text>");
        }
    }
    for (value, label) in y.ticks() {
        let at = y.at(value);
        let class = if label.is_some() { "grid" } else { "fine" };
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>");
        if let Some(label) = label {
            let (left, base) = (LEFT - 8.0, at + 4.0);
            let _ = writeln!(svg, "<text x=\"{left:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{label}</text>");
        }
    }
    curves(&mut svg, &x, &y, points);
    svg.push_str("</svg>\n");
    svg
}

fn curves(svg: &mut String, x: &Axis, y: &Axis, points: &[&Point]) {
    let mut names: Vec<&str> = points.iter().map(|point| point.series.as_str()).collect();
    names.dedup();
    // Where each ends, and which it is.
    let mut ends = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let own = points.iter().filter(|point| point.series == *name);
        let places: Vec<_> = own.map(|point| (x.at(point.x), y.at(point.y))).collect();
        let line: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let colour = COLOURS[i % COLOURS.len()];
        // What has no sockets is dashed.
        let dashes = if name.starts_with("shard") { " stroke-dasharray=\"6 4\"" } else { "" };
        let _ = writeln!(
            svg,
            "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes} d=\"M{}\"/>",
            line.join("L")
        );
        for (x, y) in &places {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        ends.extend(places.last().map(|(x, y)| (*y, *x, *name, colour)));
    }
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Names that would touch move down, and all of them up if there is no more room.
    let mut free = TOP;
    let mut rows: Vec<f64> = Vec::new();
    for (end, ..) in &ends {
        rows.push(end.max(free));
        free = rows[rows.len() - 1] + LINE;
    }
    let over = (free - LINE - BOTTOM).max(0.0);
    for (row, (end_y, end_x, name, colour)) in rows.iter().zip(&ends) {
        let row = row - over;
        let (near, far, text, base) = (RIGHT + 4.0, RIGHT + 24.0, RIGHT + 30.0, row + 4.0);
        let _ = writeln!(
            svg,
            "<path fill=\"none\" stroke=\"{colour}\" opacity=\".6\" d=\"M{end_x:.1} {end_y:.1}L{near} {row:.1}H{far}\"/>\n\
             <text x=\"{text}\" y=\"{base:.1}\">{name}</text>"
        );
    }
}
