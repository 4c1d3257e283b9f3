//! `./tests/overload [SCENARIO…]`: see docs/testing.md.

use std::process::ExitCode;
use std::time::Duration;

use hikyaku_tests::overload::{Plan, SCENARIOS, run};
use hikyaku_tests::process::broker_binary;

fn main() -> ExitCode {
    let mut plan =
        Plan { command: String::new(), ours: true, scale: 1, p99_max: Duration::from_millis(1000) };
    let mut chosen = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let known = SCENARIOS.iter().find(|(name, _)| *name == argument);
        let mut number = || arguments.next().and_then(|value| value.parse::<u64>().ok());
        match (argument.as_str(), known) {
            (_, Some((name, _))) => chosen.push(*name),
            ("--scale", _) => match number() {
                Some(scale @ 1..) => plan.scale = scale as usize,
                _ => return help(),
            },
            ("--p99", _) => match number() {
                Some(p99) => plan.p99_max = Duration::from_millis(p99),
                None => return help(),
            },
            ("--broker", _) => match arguments.next() {
                Some(command) => (plan.command, plan.ours) = (command, false),
                None => return help(),
            },
            _ => return help(),
        }
    }
    if plan.ours {
        plan.command = format!("{} -c {{conf}}", broker_binary().display());
    }
    if chosen.is_empty() {
        chosen = SCENARIOS.map(|(name, _)| name).to_vec();
    }
    let mut wrong = Vec::new();
    for name in chosen {
        let (line, faults) = run(name, &plan);
        println!("{line}");
        faults.iter().for_each(|fault| println!("  WRONG: {fault}"));
        wrong.extend(faults);
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn help() -> ExitCode {
    println!(
        "Usage: tests/overload [SCENARIO…] [--scale N] [--p99 MS] [--broker COMMAND]\n\
         Attacks the release broker, prints a line for each scenario, and fails if a bound is broken.\n  \
         --scale N         a so many times smaller attack: 1\n  \
         --p99 MS          how long bystanders may wait, at the 99th percentile: 1000\n  \
         --broker COMMAND  another broker, which is held to nothing; {{conf}} stands for its configuration\nScenarios:"
    );
    SCENARIOS.iter().for_each(|(name, what)| println!("  {name:10} {what}"));
    ExitCode::from(2)
}
