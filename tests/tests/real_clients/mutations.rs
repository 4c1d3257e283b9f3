//! `tests/mutate` takes too long to run each time, but what it changes has to be there.

use std::process::Command;

#[test]
fn each_mutation_fits_the_source() {
    let ran = Command::new("python3").args(["mutate", "--fits"]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
