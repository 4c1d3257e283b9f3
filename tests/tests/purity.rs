//! The protocol core does no IO because it cannot: it depends on `log` alone and has no `std`.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn proto_depends_on_log_alone() {
    let cargo = Command::new(env!("CARGO"))
        .args(["tree", "--package", "hikyaku-proto", "--edges", "normal,build", "--all-features"])
        .args(["--target", "all", "--prefix", "none", "--format", "{lib}", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let tree = String::from_utf8(cargo.stdout).unwrap();
    assert_eq!(tree.lines().collect::<Vec<_>>(), ["hikyaku_proto", "log"]);
}

#[test]
fn proto_has_neither_std_nor_unsafe_code() {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/src/lib.rs");
    let source = fs::read_to_string(lib).unwrap();
    for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        assert!(source.lines().any(|line| line == attribute), "{attribute} is missing");
    }
}
