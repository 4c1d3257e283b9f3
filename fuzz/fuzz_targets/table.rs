//! The index and the slab against a map.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku_proto::topic::check::check_index(data));
