//! The fuzz targets on their corpora, and on some drawn bytes.

mod common;
#[path = "../../fuzz/replay.rs"]
mod replay;

use common::Random;
use hikyaku_proto::{broker, codec, topic};
use replay::replay;

fn trie(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    match which % 4 {
        0 => topic::check::check_trie(data),
        1 => topic::check::check_tree(data),
        2 => topic::check::check_index(data),
        _ => topic::check::check_filters(data),
    }
}

#[test]
fn decode() {
    replay("decode", codec::check::check_decode);
}

#[test]
fn pair() {
    replay("pair", hikyaku_proto::client::check::check_pair);
}

#[test]
fn tries() {
    replay("trie", trie);
}

#[test]
fn shard() {
    replay("shard", broker::check::check_shard);
}

#[test]
fn properties() {
    replay("properties", codec::check::check_properties);
}

#[test]
fn table() {
    replay("table", topic::check::check_index);
}

#[test]
fn stream() {
    replay("stream", broker::check::check_stream);
}

#[test]
fn restore() {
    replay("restore", broker::check::check_restore);
}

#[test]
fn record() {
    replay("record", broker::store::check::check_record);
}

fn with_drawn_bytes(check: fn(&[u8])) {
    for seed in 1..std::env::var("SEEDS").map_or(400, |n| n.parse().unwrap()) {
        let mut random = Random::new(seed);
        let len = 30 + random.below(1500);
        let data: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        println!("seed {seed}");
        check(&data);
    }
}

#[test]
fn shard_with_drawn_bytes() {
    with_drawn_bytes(broker::check::check_shard);
}

#[test]
fn restore_with_drawn_bytes() {
    with_drawn_bytes(broker::check::check_restore);
}

#[test]
fn properties_with_drawn_bytes() {
    with_drawn_bytes(|data| data.chunks(20).for_each(codec::check::check_properties));
}
