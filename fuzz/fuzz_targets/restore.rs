//! What a store gives back, and a broker that goes on with it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku_proto::broker::check::check_restore(data));
