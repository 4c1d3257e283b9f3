//! Any database file of mosquitto.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku::check::check_import(data));
