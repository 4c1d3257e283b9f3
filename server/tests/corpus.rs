//! The fuzz targets of the server on their corpora.
#![allow(missing_docs)]
#![cfg(unix)]

#[path = "../../fuzz/replay.rs"]
mod replay;

use hikyaku::check;
use replay::replay;
use std::path::Path;

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/certificate");
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
