//! Runs the simulation: `sim SEED` replays one seed with its event log, `sim --seeds FROM COUNT` runs many,
//! `sim --find FROM COUNT` looks for the first that fails, `sim --bytes FILE` replays an input of the fuzz target.

use hikyaku_tests::sim;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<u64>().ok());
    std::panic::set_hook(Box::new(|_| {}));
    match (args.first().map(String::as_str), number(0), number(1), number(2)) {
        (Some("--seeds"), _, Some(from), Some(count)) => many(from, count),
        (Some("--find"), _, Some(from), Some(count)) => find(from, count),
        (_, Some(seed), None, None) => one(seed),
        (Some("--bytes"), ..) => bytes(args.get(1).map_or("", String::as_str)),
        _ => {
            println!("usage: sim SEED | sim --seeds FROM COUNT | sim --find FROM COUNT | sim --bytes FILE");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64) -> ExitCode {
    tell(&format!("seed {seed}"), sim::run(seed, true))
}

fn bytes(file: &str) -> ExitCode {
    match std::fs::read(file) {
        Ok(data) => tell(file, sim::run_bytes(&data)),
        Err(error) => {
            println!("{file}: {error}");
            ExitCode::from(2)
        }
    }
}

fn tell(name: &str, (result, lines): (Result<sim::Report, sim::Failure>, Vec<String>)) -> ExitCode {
    lines.iter().for_each(|line| println!("{line}"));
    match result {
        Ok(report) => {
            println!("{name}: {}\nhash {:016x}", report.tally, report.hash);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{name} at commit {} fails: {}", sim::commit(), failure.what);
            ExitCode::FAILURE
        }
    }
}

fn many(from: u64, count: u64) -> ExitCode {
    let began = Instant::now();
    let mut sum = sim::Tally::default();
    let mut failed = 0;
    for seed in from..from + count {
        match sim::check(seed) {
            Ok(report) => sum.add(&report.tally),
            Err(failure) => {
                if failed == 0 {
                    sim::last_lines(&failure).iter().for_each(|line| println!("{line}"));
                }
                failed += 1;
                println!("seed {seed} fails: {}", failure.what);
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{sum}\n{seconds:.1} s, {:.1} seeds a second, {failed} failed", count as f64 / seconds);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says how many seeds it takes until one fails.
fn find(from: u64, count: u64) -> ExitCode {
    for seed in from..from + count {
        if let (Err(failure), _) = sim::run(seed, false) {
            let what = failure.what.lines().next().unwrap_or_default();
            println!("{} {}", seed - from + 1, what.chars().take(1000).collect::<String>());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
