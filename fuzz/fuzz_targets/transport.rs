//! TLS, HTTP and WebSocket at a listener.
#![no_main]

use hikyaku::check::{TlsFiles, check_transport};
use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("certificate");
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    // Where the sources are not, as on fuzzing services, without TLS.
    check_transport(data, Some(&files).filter(|files| files.key.exists()));
});
