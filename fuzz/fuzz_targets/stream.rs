//! A connection's bytes, whole and in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku_proto::broker::check::check_stream(data));
