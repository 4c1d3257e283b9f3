//! Every numbered normative statement of MQTT 5.0 and 3.1.1 is proven by a test of its name, or marked as one that
//! cannot be broken here, with the reason. `docs/conformance.md` is the list of both.
//!
//! `UPDATE_DOCS=1 cargo test -p hikyaku-tests --test conformance` rewrites it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const STATEMENTS: &str = include_str!("statements.txt");

const HEAD: &str = "\
# Conformance

The numbered normative statements of the [MQTT 5.0](https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html) and
[MQTT 3.1.1](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html) standards, and the test of hikyaku that proves each.
Most are scripts of bytes against a broker or a client in virtual time; `cargo test mqtt5_3_1_2_22` runs those of
`[MQTT-3.1.2-22]`. A statement without a test says why it has none.

This file is written from the tests; a test keeps it current.
";

/// A statement: of which standard (`mqtt5`, `mqtt3`), its id, and why no test is named by it.
struct Statement {
    standard: &'static str,
    id: &'static str,
    reason: &'static str,
}

impl Statement {
    /// `mqtt5_3_1_2_22_`
    fn prefix(&self) -> String {
        format!("{}_{}_", self.standard, self.id.replace(['.', '-'], "_"))
    }
}

fn statements() -> Vec<Statement> {
    let mut standard = "";
    let mut all = Vec::new();
    for line in STATEMENTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once(' ').unwrap_or((line, "")) {
            (name @ ("mqtt5" | "mqtt3"), "") => standard = name,
            (id, reason) => all.push(Statement { standard, id, reason: reason.trim() }),
        }
    }
    all
}

/// The tests named by a statement, by name, with the files they are in.
fn tests() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["proto", "server", "client", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    let mut found = BTreeMap::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let place = file.strip_prefix(&root).unwrap().display().to_string();
        let mut attribute = "";
        for line in source.lines().map(str::trim) {
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')).map(|(name, _)| name);
            if let Some(name) = name.filter(|name| name.starts_with("mqtt5_") || name.starts_with("mqtt3_")) {
                assert_eq!(attribute, "#[test]", "{name} in {place} is not a test");
                let twice = found.insert(name.to_owned(), place.clone());
                assert_eq!(twice, None, "{name} is there twice");
            }
            attribute = line;
        }
    }
    found
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn each_statement_is_proven_or_has_its_reason() {
    let (tests, statements) = (tests(), statements());
    let mut wrong = String::new();
    for statement in &statements {
        let proven = tests.keys().any(|name| name.starts_with(&statement.prefix()));
        let name = format!("{} {}", statement.standard, statement.id);
        match (proven, statement.reason) {
            (false, "") => writeln!(wrong, "{name}: no test `{}…`", statement.prefix()).unwrap(),
            (true, reason) if !reason.is_empty() => {
                writeln!(wrong, "{name}: has a test and a reason to have none: {reason}").unwrap();
            }
            _ => {}
        }
    }
    for (name, place) in &tests {
        if !statements.iter().any(|statement| name.starts_with(&statement.prefix())) {
            writeln!(wrong, "{name} in {place} names no statement").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let text = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "not current: UPDATE_DOCS=1 cargo test -p hikyaku-tests --test conformance");
}

fn document() -> String {
    let (tests, statements) = (tests(), statements());
    let mut text = HEAD.to_owned();
    for (standard, title) in [("mqtt5", "MQTT 5.0"), ("mqtt3", "MQTT 3.1.1")] {
        let of_standard = || statements.iter().filter(|statement| statement.standard == standard);
        let count = of_standard().count();
        let without = of_standard().filter(|statement| !statement.reason.is_empty()).count();
        let proven = count - without;
        write!(
            text,
            "\n## {title}\n\n{count} statements: {proven} proven by tests, {without} without a test.\n\n"
        )
        .unwrap();
        text += "| statement | what the tests show | where |\n|---|---|---|\n";
        for statement in of_standard() {
            let prefix = statement.prefix();
            let mine: Vec<_> = tests.iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
            let mut places: Vec<&str> = mine.iter().map(|(_, place)| place.as_str()).collect();
            places.dedup();
            let shown = match statement.reason {
                "" => mine
                    .iter()
                    .map(|(name, _)| name[prefix.len()..].replace('_', " "))
                    .collect::<Vec<_>>()
                    .join("; "),
                reason => format!("*no test: {reason}*"),
            };
            writeln!(text, "| MQTT-{} | {shown} | {} |", statement.id, places.join(", ")).unwrap();
        }
    }
    text
}
