//! Two clients and a broker over transports that fail.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku_proto::client::check::check_pair(data));
