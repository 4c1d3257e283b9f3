//! Any bytes as packets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku_proto::codec::check::check_decode(data));
