//! The attacks of `./tests/overload`, smaller, and the load of `./tests/soak`, shorter: conditions, no timings.
//!
//! Needs the release build of the broker: ./tests/run makes it and sets the feature.
#![cfg(feature = "real-clients")]

use std::time::Duration;

use hikyaku_tests::process::broker_binary;
use hikyaku_tests::{overload, soak};

#[test]
fn small_attacks_are_withstood() {
    let command = format!("{} -c {{conf}}", broker_binary().display());
    let p99_max = Duration::from_secs(30);
    let plan = overload::Plan { command, ours: true, scale: 20, p99_max };
    let mut wrong = Vec::new();
    for (name, _) in overload::SCENARIOS {
        let (line, faults) = overload::run(name, &plan);
        println!("{line}");
        wrong.extend(faults);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_lost_in_ten_seconds_of_mixed_load() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let outcome = soak::run(&soak::Plan {
        seconds: 10,
        seed,
        clients: 200,
        rate: 500,
        pace: 5,
        quiet_every: 3,
        life_max: 12,
        broker: broker_binary(),
        folder: std::env::temp_dir().join(format!("hikyaku-soak-test-{}", std::process::id())),
    });
    assert!(outcome.wrong.is_empty(), "seed {seed}: {outcome:#?}");
    assert!(outcome.acknowledged > 0 && outcome.quiet_phases > 1, "{outcome:#?}");
}
