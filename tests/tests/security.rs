//! The tests that `docs/security.md` names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn each_test_the_document_names_exists() {
    let document = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let named: BTreeSet<_> =
        document.split('`').skip(1).step_by(2).filter_map(|c| c.split_once("::")).collect();
    assert!(named.len() > 80, "{} tests", named.len());
    let mut missing = Vec::new();
    for (file, name) in named {
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        // As rustfmt writes it.
        let found = source.split("#[test]\n").skip(1).any(|after| {
            let line = after.lines().map(str::trim_start).find(|line| !line.starts_with('#')).unwrap_or("");
            line.starts_with(&format!("fn {name}("))
        });
        if !found {
            missing.push(format!("{file}::{name}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn each_class_each_limit_and_each_rule_names_a_test() {
    let document = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let (_, classes) = document.split_once("## Classes of broker bugs").unwrap();
    let (classes, rules) = classes.split_once("## Rules").unwrap();
    let is_head = |line: &str| line.starts_with("| class") || line.starts_with("| option");
    let rows = classes.lines().filter(|line| line.starts_with("| ") && !is_head(line));
    for row in rows {
        assert!(row.contains(".rs::"), "no test: {row}");
    }
    for number in 1..=22 {
        let rule = rules.split(&format!("\n{number}. ")).nth(1).unwrap_or_default();
        let rule = rule.split(&format!("\n{}. ", number + 1)).next().unwrap_or_default();
        assert!(rule.contains(".rs::"), "rule {number} has no test");
    }
}
