//! Any configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku::check::check_config(data));
