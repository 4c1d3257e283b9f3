//! Files of rights and passwords, and SCRAM. The first byte says which.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku::check::check_users(data));
