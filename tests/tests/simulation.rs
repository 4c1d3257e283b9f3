//! A whole broker with faults, from seeds. `SEED=n ./tests/sim` shows what happens in one; docs/testing.md says more.

#[path = "../../fuzz/replay.rs"]
mod replay;

use hikyaku_tests::sim;
use replay::replay;

/// How many seeds a run of all tests takes.
const SEEDS: u64 = 300;

#[test]
fn nothing_goes_wrong_whatever_goes_wrong() {
    let mut sum = sim::Tally::default();
    for seed in 1..=SEEDS {
        match sim::check(seed) {
            Ok(report) => {
                let tally = &report.tally;
                assert!(tally.operations >= 500 && tally.simulated_s >= 60, "seed {seed} is too short");
                sum.add(&report.tally);
            }
            Err(failure) => {
                sim::last_lines(&failure).iter().for_each(|line| println!("{line}"));
                panic!("SEED={seed} ./tests/sim at commit {}: {}", sim::commit(), failure.what);
            }
        }
    }
    println!("{sum}");
    assert!(sum.faults.iter().all(|&n| n > 0), "some fault never happened: {:?}", sum.faults);
    assert!(sum.published.iter().all(|&n| n > 0) && sum.wills > 0 && sum.redelivered > 0 && sum.retained > 0);
}

#[test]
fn the_corpus_of_the_fuzz_target() {
    replay("simulation", sim::check_simulation);
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in [3, 1 << 40] {
        let (first, lines) = sim::run(seed, true);
        let (second, same_lines) = sim::run(seed, true);
        let quiet = sim::run(seed, false).0;
        assert!(lines == same_lines, "seed {seed} has two event logs");
        let hash =
            |result: Result<sim::Report, sim::Failure>| result.map(|report| report.hash).map_err(|f| f.what);
        let first = hash(first);
        assert_eq!(first, hash(second));
        assert_eq!(first, hash(quiet), "the log changes what happens");
    }
    let hash = |seed| sim::run(seed, false).0.map(|report| report.hash).map_err(|f| f.what);
    assert_ne!(hash(3), hash(4));
}
