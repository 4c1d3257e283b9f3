//! The journal of the store, damaged or made up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku::check::check_journal(data));
