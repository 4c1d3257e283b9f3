//! Properties of any packet against the table of the standard.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku_proto::codec::check::check_properties(data));
