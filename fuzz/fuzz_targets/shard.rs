//! One or two shards under arbitrary bytes, packets and time jumps.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikyaku_proto::broker::check::check_shard(data));
