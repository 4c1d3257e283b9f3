//! The containers of topics against naive models. The first byte says which.
#![no_main]

use hikyaku_proto::topic::check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    match which % 4 {
        0 => check::check_trie(data),
        1 => check::check_tree(data),
        2 => check::check_index(data),
        _ => check::check_filters(data),
    }
});
