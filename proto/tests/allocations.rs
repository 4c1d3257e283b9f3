//! What a packet costs in allocations, once everything is warm.
#![allow(unsafe_code, reason = "a counting allocator is an unsafe trait")]

mod common;

use common::packets::encode;
use common::quiet;
use hikyaku_proto::broker::{Config, ConnId, Input, Output, Placement, Shard};
use hikyaku_proto::codec::Version;
use hikyaku_proto::time::Instant;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: Instant = Instant::from_secs(1);

/// A driver that allocates nothing itself.
struct Bench {
    shard: Shard,
    conns: u32,
}

impl Bench {
    fn new() -> Self {
        let config: Config = quiet();
        let placement = Arc::new(Placement::new(1, 1));
        Bench { shard: Shard::new(0, 1, 1, Arc::new(config), placement, NOW), conns: 0 }
    }

    fn client(&mut self, text: &str) -> ConnId {
        let conn = ConnId { index: self.conns, generation: 0 };
        self.conns += 1;
        let input = Input::Opened { conn, listener: 0, peer: None, identity: None, entropy: [0; 16] };
        self.shard.handle(NOW, input);
        let mut version = Version::V3_1_1;
        for packet in text.split(';') {
            self.send(conn, &encode(packet, &mut version));
        }
        conn
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let mut written = 0;
        assert_eq!(self.shard.handle(NOW, Input::Received { conn, bytes }), bytes.len());
        loop {
            match self.shard.poll_output(NOW) {
                Output::Timeout(_) => return written,
                Output::Watch { .. } => {}
                Output::Transmit(conn) => {
                    let len = self.shard.outbox(conn).map_or(0, |o| o.len());
                    written += len;
                    self.shard.handle(NOW, Input::Written { conn, bytes: len });
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The allocations of `rounds` times the same packets, after some to get warm.
    fn count(&mut self, rounds: u64, packets: &[(ConnId, &[u8])]) -> u64 {
        let mut before = 0;
        for round in 0..100 + rounds {
            if round == 100 {
                before = COUNT.with(Cell::get);
            }
            for (conn, bytes) in packets {
                self.send(*conn, bytes);
            }
        }
        COUNT.with(Cell::get) - before
    }
}

fn bytes(text: &str) -> Vec<u8> {
    encode(text, &mut Version::V3_1_1)
}

#[test]
fn control_packets_cost_none() {
    let mut bench = Bench::new();
    let a = bench.client("CONNECT a clean");
    assert_eq!(bench.count(1000, &[(a, &bytes("PINGREQ"))]), 0);
    assert_eq!(bench.count(1000, &[(a, &bytes("PUBACK 7"))]), 0);
}

#[test]
fn a_publish_for_nobody_costs_none() {
    let mut bench = Bench::new();
    let a = bench.client("CONNECT a clean");
    let s = bench.client("CONNECT s clean;SUBSCRIBE id=1 other/+");
    assert_eq!(bench.count(1000, &[(a, &bytes("PUBLISH t/a payload"))]), 0);
    // Not either where the topic changes each time.
    let (t, u) = (bytes("PUBLISH t/a payload"), bytes("PUBLISH t/b payload"));
    assert_eq!(bench.count(1000, &[(a, &t), (a, &u)]), 0);
    assert_eq!(bench.count(1000, &[(a, &bytes("PUBLISH t/a payload q1 id=3"))]), 0);
    assert_eq!(bench.send(s, &bytes("PINGREQ")), 2);
}

#[test]
fn qos_0_to_local_receivers_costs_none() {
    let mut bench = Bench::new();
    let a = bench.client("CONNECT a clean");
    bench.client("CONNECT s clean;SUBSCRIBE id=1 t/+");
    bench.client("CONNECT u clean;SUBSCRIBE id=1 #");
    let publish = bytes("PUBLISH t/a payload");
    assert_eq!(bench.send(a, &publish), 2 * publish.len());
    assert_eq!(bench.count(1000, &[(a, &publish)]), 0);
}

#[test]
fn qos_0_to_a_receiver_of_5_0_costs_none() {
    let mut bench = Bench::new();
    let a = bench.client("CONNECT a clean");
    bench.client("CONNECT s clean v5;SUBSCRIBE id=1 t/+");
    assert_eq!(bench.count(1000, &[(a, &bytes("PUBLISH t/a payload"))]), 0);
}

#[test]
fn qos_1_to_a_receiver_costs_one_while_it_waits() {
    let mut bench = Bench::new();
    let a = bench.client("CONNECT a clean");
    let s = bench.client("CONNECT s clean;SUBSCRIBE id=1 t/+:1");
    let publish = bytes("PUBLISH t/a payload q1 id=1");
    let mut before = 0;
    for id in 1..=2000u16 {
        if id == 1001 {
            before = COUNT.with(Cell::get);
        }
        let [high, low] = id.to_be_bytes();
        bench.send(a, &publish);
        bench.send(s, &[0x40, 2, high, low]);
    }
    // Each has the block of the one before.
    assert_eq!(COUNT.with(Cell::get) - before, 0);
    let before = COUNT.with(Cell::get);
    for _ in 0..10 {
        bench.send(a, &publish);
    }
    // And room for them in the window.
    assert!((9..=13).contains(&(COUNT.with(Cell::get) - before)));
}
