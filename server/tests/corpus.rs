//! The fuzz targets of the server on their corpora.
#![allow(missing_docs)]
#![cfg(unix)]

use hikyaku::check;
use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = fuzz().join("corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("a corpus") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        check(&std::fs::read(&path).expect("a readable file"));
        count += 1;
    }
    assert!(count > 0, "no corpus in {}", folder.display());
}

#[test]
fn config() {
    replay("config", check::check_config);
}

#[test]
fn users() {
    replay("users", check::check_users);
}

#[test]
fn transport() {
    let folder = fuzz().join("certificate");
    let files = check::TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    replay("transport", |data| check::check_transport(data, Some(&files)));
}

#[test]
fn journal() {
    replay("journal", check::check_journal);
}

#[test]
fn recovery() {
    replay("recovery", check::check_recovery);
}

#[test]
fn base() {
    replay("base", check::check_base);
}

#[test]
fn import() {
    replay("import", check::check_import);
}
