//! The tutorial: all that its reader does, done; in both languages the same.
//! `HIKYAKU_TEST_SCREENSHOTS` names a folder for a picture of its page.

use std::fs;
use std::path::{Path, PathBuf};

use hikyaku_tests::desk::Desk;
use hikyaku_tests::document::{Step, steps};

use crate::browser;

/// The ports it uses.
const PORTS: [u16; 4] = [1883, 8883, 9001, 8000];

/// What is not run here, and where else it is tested: in tests/run, after these words, which have to be there; or, in brackets, by what.
const SKIPPED: [(&str, &str); 11] = [
    ("cargo build --release", "part \"broker\" cargo build --release --locked\n"),
    ("export PATH=\"$PWD/target/release:$PATH\"", "(the programs built there are those that run here)"),
    ("sudo apt install mosquitto-clients", "missing+=(mosquitto-clients)"),
    ("cargo install cargo-deb --locked", "cargo install --quiet --locked "),
    ("cargo deb -p hikyaku", "part \"package\" cargo deb -q --locked -p hikyaku\n"),
    ("sudo apt install ./target/debian/hikyaku_*.deb", "--test debian_package"),
    ("systemctl status hikyaku", "--test debian_package"),
    ("sudo hikyaku-passwd -c /etc/hikyaku/passwd ann", "(section 10, in another place)"),
    (
        "sudo chgrp hikyaku /etc/hikyaku/passwd && sudo chmod 640 /etc/hikyaku/passwd",
        "(the tests of files that 'user' cannot read)",
    ),
    ("sudo systemctl restart hikyaku", "--test debian_package"),
    ("sudo systemctl reload hikyaku", "(the tests of SIGHUP)"),
];

#[test]
fn english() {
    follow("tutorial.md");
}

#[test]
fn japanese() {
    follow("tutorial.ja.md");
}

#[test]
fn both_languages_say_to_do_the_same() {
    assert_eq!(read("tutorial.md"), read("tutorial.ja.md"));
}

#[test]
fn what_is_not_run_is_tested_elsewhere() {
    let skipped = |step| match step {
        Step::Skip(command) => Some(command),
        _ => None,
    };
    let skipped: Vec<String> = read("tutorial.md").into_iter().filter_map(skipped).collect();
    assert_eq!(skipped, SKIPPED.map(|(command, _)| command));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("run");
    let script = fs::read_to_string(script).unwrap();
    for (command, tested) in SKIPPED {
        assert!(tested.starts_with('(') || script.contains(tested), "{command}: tests/run has no {tested:?}");
    }
}

fn follow(document: &str) {
    // Where nobody may make a network of their own, both use the same ports, too.
    let _alone = browser::alone();
    Desk::new(&PORTS).run(&read(document));
}

fn read(document: &str) -> Vec<Step> {
    let path = docs().join(document);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    steps(&text).unwrap_or_else(|error| panic!("{document}: {error}"))
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}
