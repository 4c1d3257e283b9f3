//! `./tests/soak SECONDS`: see docs/testing.md.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use hikyaku_tests::process::broker_binary;
use hikyaku_tests::soak::{Plan, run};

fn main() -> ExitCode {
    let mut plan = Plan {
        seconds: 60,
        seed: SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()),
        clients: 2000,
        rate: 1000,
        pace: 1,
        quiet_every: 20,
        life_max: 600,
        broker: broker_binary(),
        folder: std::env::temp_dir().join(format!("hikyaku-soak-{}", std::process::id())),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let (name, value) = match argument.strip_prefix("--") {
            Some(name) => (name.to_owned(), arguments.next()),
            None => ("seconds".to_owned(), Some(argument)),
        };
        let Some(number) = value.as_deref().and_then(|value| value.parse::<u64>().ok()) else {
            println!("{HELP}");
            return ExitCode::from(2);
        };
        match name.as_str() {
            "seconds" => plan.seconds = number,
            "seed" => plan.seed = number,
            "clients" => plan.clients = (number as usize).max(20),
            "rate" => plan.rate = number,
            "pace" => plan.pace = number.max(1),
            "quiet-every" => plan.quiet_every = number,
            "life-max" => plan.life_max = number,
            _ => {
                println!("{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    println!("seed {}: {plan:?}", plan.seed);
    let outcome = run(&plan);
    println!("{outcome:#?}");
    if outcome.wrong.is_empty() {
        println!("soak: all went well (seed {})", plan.seed);
        return ExitCode::SUCCESS;
    }
    println!(
        "soak: {} things went wrong (seed {}); see {}",
        outcome.wrong.len(),
        plan.seed,
        plan.folder.display()
    );
    ExitCode::FAILURE
}

const HELP: &str = "\
Usage: tests/soak SECONDS [--seed N] [--clients N] [--rate N] [--pace N] [--quiet-every S] [--life-max S]
Holds a mixed load on the release broker and checks what comes of it.
  --seed N          what chance follows; a new one each time
  --clients N       2000
  --rate N          messages published a second: 1000
  --pace N          clients come and go so many times faster: 1
  --quiet-every S   seconds of load between quiet phases: 20
  --life-max S      seconds the broker lives at the most, 0 for the whole time: 600";
