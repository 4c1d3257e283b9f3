//! Any record of a store.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku_proto::broker::store::check::check_record(data));
