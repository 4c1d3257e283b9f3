//! The figures that were recorded, and the comparison with them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What is still not a change for the worse, in per cent.
const RISE_MAX: f64 = 5.0;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/instructions.txt");

const HEAD: &str = "\
# Instructions per message, counted by callgrind: UPDATE=1 tests/instructions writes them, tests/instructions compares.
# They belong to this compiler.
";

/// The recorded figures.
pub struct Record {
    /// The compiler that they belong to, and the one there is.
    compiler: [String; 2],
    figures: BTreeMap<String, f64>,
}

impl Record {
    /// Reads the file; an empty one and none at all are the same.
    pub fn read() -> Result<Record, String> {
        let text = if Path::new(FILE).exists() {
            std::fs::read_to_string(FILE).map_err(|e| format!("{FILE}: {e}"))?
        } else {
            String::new()
        };
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let recorded = lines.next().unwrap_or_default().to_owned();
        let mut figures = BTreeMap::new();
        for line in lines {
            let figure = line.rsplit_once(": ").and_then(|(name, figure)| Some((name, figure.parse().ok()?)));
            let (name, figure) = figure.ok_or_else(|| format!("{FILE}: not a figure: {line}"))?;
            figures.insert(name.to_owned(), figure);
        }
        Ok(Record { compiler: [recorded, compiler()], figures })
    }

    /// Refuses another compiler than that of the figures.
    pub fn check_compiler(&self) -> Result<(), String> {
        let [recorded, compiler] = &self.compiler;
        if recorded == compiler || self.figures.is_empty() {
            return Ok(());
        }
        Err(format!("not compared: the figures were recorded with {recorded}, this is {compiler}"))
    }

    /// Writes new figures; those of workloads that were not run stay, unless all were.
    pub fn update(&mut self, figures: &[(&str, f64)], all: bool) {
        let [recorded, compiler] = &self.compiler;
        assert!(all || recorded == compiler, "figures of another compiler: update all of them");
        if all {
            self.figures.clear();
        }
        self.figures.extend(figures.iter().map(|(name, figure)| ((*name).to_owned(), *figure)));
        let mut text = format!("{HEAD}{compiler}\n");
        for (name, figure) in &self.figures {
            let _ = writeln!(text, "{name}: {figure:.1}");
        }
        std::fs::write(FILE, text).expect("the file can be written");
        println!("{} figures recorded", figures.len());
    }

    /// Prints both figures, and fails where one has risen too much.
    pub fn compare(&self, figures: &[(&str, f64)]) -> ExitCode {
        let mut risen = 0;
        println!("{:>10} {:>10} {:>8}", "recorded", "now", "change");
        for (name, now) in figures {
            let Some(recorded) = self.figures.get(*name) else {
                println!("{:>10} {now:>10.1} {:>8}  {name}: UPDATE=1 records it", "-", "");
                continue;
            };
            let change = (now / recorded - 1.0) * 100.0;
            let worse = change > RISE_MAX;
            risen += usize::from(worse);
            println!(
                "{recorded:>10.1} {now:>10.1} {change:>+7.1}%  {name}{}",
                if worse { ": RISEN" } else { "" }
            );
        }
        println!("{risen} of {} have risen by more than {RISE_MAX} %", figures.len());
        if risen == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The compiler's own words, with the kind of machine.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("rustc is there");
    format!("{} {}", String::from_utf8_lossy(&output.stdout).trim(), std::env::consts::ARCH)
}
