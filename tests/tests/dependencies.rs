//! Nothing gets into the build that nobody has decided about: crates, their licenses and where they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Of each expression one of these has to be enough.
const LICENSES: [&str; 6] = ["MIT", "Apache-2.0", "BSD-3-Clause", "ISC", "Unicode-3.0", "Unlicense"];
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The list of what is allowed: names and licenses.
fn allowed() -> BTreeMap<String, String> {
    let list = read("dependencies.txt");
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(": ").expect(line)).map(|(n, l)| (n.into(), l.into())).collect()
}

#[test]
fn every_crate_is_on_the_list_and_of_the_registry() {
    let lock = read("../Cargo.lock");
    let mut found = BTreeSet::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        let name = value("name").unwrap();
        // Our own have no source.
        let Some(source) = value("source") else {
            assert!(name.starts_with("hikyaku"), "{name} has no source");
            continue;
        };
        assert_eq!(source, REGISTRY, "{name}");
        assert!(value("checksum").is_some(), "{name} has no checksum");
        found.insert(name);
    }
    let listed: BTreeSet<_> = allowed().into_keys().collect();
    let new: Vec<_> = found.difference(&listed).collect();
    assert!(new.is_empty(), "not in tests/dependencies.txt: {new:?}");
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "in tests/dependencies.txt, and nobody uses them: {gone:?}");
}

#[test]
fn licenses_are_those_of_the_list() {
    // What is built here: crates for other systems may not have been fetched.
    let cargo = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--edges", "normal,build,dev", "--all-features", "--prefix", "none"])
        .args(["--format", "{p}|{l}", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let allowed = allowed();
    let mut seen = 0;
    for line in String::from_utf8(cargo.stdout).unwrap().lines() {
        let Some((package, license)) = line.split_once('|') else { continue };
        let name = package.split(' ').next().unwrap();
        if name.starts_with("hikyaku") {
            continue;
        }
        let license = license.trim_end_matches(" (*)");
        assert_eq!(allowed.get(name).map(String::as_str), Some(license), "{name}");
        seen += 1;
    }
    assert!(seen > 50, "{seen} crates");
}

#[test]
fn licenses_are_compatible() {
    for (name, expression) in allowed() {
        let every = expression.split(" AND ").all(|part| {
            let part = part.trim_matches(['(', ')']);
            let mut choices = part.split(" OR ").flat_map(|choice| choice.split('/'));
            choices.any(|license| LICENSES.contains(&license))
        });
        assert!(every, "{name}: {expression}");
    }
}

/// What those check who have the tool, with advisories, is what is checked here.
#[test]
fn the_rules_of_cargo_deny_are_the_same() {
    let rules = read("../deny.toml");
    let start = rules.find("allow = [").unwrap();
    let list = &rules[start..start + rules[start..].find(']').unwrap()];
    let listed: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(listed, LICENSES);
}
