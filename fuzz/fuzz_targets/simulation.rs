//! A whole broker with clients and faults, as the bytes decide.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku_tests::sim::check_simulation(data));
