//! `./tests/scale [MEASUREMENT…]`: see docs/performance.md.

use std::path::PathBuf;
use std::process::ExitCode;

use hikyaku_tests::process::broker_binary;
use hikyaku_tests::scale::{Plan, measure, measurements, record};

fn main() -> ExitCode {
    let mut plan = Plan { command: String::new(), scale: 1, runs: 3 };
    let mut chosen = Vec::new();
    let mut file = PathBuf::from("docs/scaling/data.tsv");
    let mut draw_only = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let known = measurements().find(|(name, _)| *name == argument);
        let mut number = || arguments.next().and_then(|value| value.parse::<usize>().ok()).filter(|n| *n > 0);
        match (argument.as_str(), known) {
            (_, Some((name, _))) => chosen.push(name),
            ("--scale", _) => match number() {
                Some(scale) => plan.scale = scale,
                None => return help(),
            },
            ("--runs", _) => match number() {
                Some(runs) => plan.runs = runs,
                None => return help(),
            },
            ("--file", _) => match arguments.next() {
                Some(path) => file = path.into(),
                None => return help(),
            },
            ("--draw", _) => draw_only = true,
            _ => return help(),
        }
    }
    if chosen.is_empty() && !draw_only {
        chosen = measurements().map(|(name, _)| name).collect();
    }
    plan.command = format!("{} -c {{conf}} --workers 1", broker_binary().display());
    let mut points = Vec::new();
    for name in chosen {
        measure(name, &plan, |point| {
            println!("{point}");
            points.push(point);
        });
    }
    match record(&points, &file) {
        Ok(_) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{}: {e}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn help() -> ExitCode {
    println!(
        "Usage: tests/scale [MEASUREMENT…] [--scale N] [--runs N] [--file FILE] [--draw]\n\
         Measures what a message costs as there is more of something, and draws it.\n  \
         --scale N    so many times less: 1\n  \
         --runs N     of so many runs the median counts: 3\n  \
         --file FILE  where values are kept, with the plots beside it: docs/scaling/data.tsv\n  \
         --draw       only draw what the file has\nMeasurements:"
    );
    measurements().for_each(|(name, what)| println!("  {name:20} {what}"));
    ExitCode::from(2)
}
