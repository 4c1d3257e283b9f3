//! A store, damaged, recovered twice.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku::check::check_recovery(data));
