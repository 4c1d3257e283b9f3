//! A bare shard, in this process: what it costs to decide and to copy, without sockets.

use std::sync::Arc;

use hikyaku_proto::broker::{Config, ConnId, Input, Output, Placement, Shard};
use hikyaku_proto::time::Instant;
use rustix::time::{ClockId, clock_gettime};

use super::{PAYLOAD, Plan, Point, Shape, draws, median, retained_topic, steps};
use crate::overload::packets::{Session, connect, publish, publish_1, publish_retained, subscribe};

/// So many messages are handed in at once, as from one read.
const BATCH: usize = 64;
const NOW: Instant = Instant::from_secs(1);
/// How many subscribers share the filters.
const SUBSCRIBERS: usize = 1000;

/// A shard and a driver that writes everything at once.
struct Bench {
    shard: Shard,
    conns: u32,
    written: usize,
}

impl Bench {
    fn new() -> Self {
        let config = Config { sys_interval_s: 0, max_subscriptions: u32::MAX, ..Config::default() };
        let shard = Shard::new(0, 1, 1, Arc::new(config), Arc::new(Placement::new(1, 1)), NOW);
        Self { shard, conns: 0, written: 0 }
    }

    fn client(&mut self) -> ConnId {
        let conn = ConnId { index: self.conns, generation: 0 };
        self.conns += 1;
        let input = Input::Opened { conn, listener: 0, peer: None, identity: None, entropy: [0; 16] };
        self.shard.handle(NOW, input);
        self.send(conn, &connect(&format!("client-{}", conn.index), Session::Clean, None));
        conn
    }

    fn send(&mut self, conn: ConnId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.shard.handle(NOW, Input::Received { conn, bytes });
            bytes = &bytes[used..];
            let idle = self.drain();
            assert!(used > 0 || !idle, "the shard neither reads nor works");
        }
    }

    /// Does what the shard says until it has nothing to say; true if there was nothing.
    fn drain(&mut self) -> bool {
        let mut idle = true;
        loop {
            match self.shard.poll_output(NOW) {
                Output::Timeout(Some(at)) if at <= NOW => drop(self.shard.handle(NOW, Input::Timeout)),
                Output::Timeout(_) => return idle,
                Output::Transmit(conn) => {
                    let bytes = self.shard.outbox(conn).map_or(0, |outbox| outbox.len());
                    self.written += bytes;
                    self.shard.handle(NOW, Input::Written { conn, bytes });
                }
                Output::PauseReads(_) | Output::ResumeReads(_) | Output::Watch { .. } => {}
                other => panic!("{other:?}"),
            }
            idle = false;
        }
    }

    fn counters_sent(&self) -> u64 {
        self.shard.counters().publish_sent
    }

    fn close(&mut self, conn: ConnId) {
        self.shard.handle(NOW, Input::Closed { conn });
        self.drain();
    }

    /// Sends these batches; µs of CPU time for each of the `count` things they cause, `bytes` of output each.
    fn time(&mut self, conn: ConnId, batches: &[Vec<u8>], count: usize, bytes: usize) -> f64 {
        let (before, begin) = (self.written, cpu_ns());
        for batch in batches {
            self.send(conn, batch);
        }
        let took = cpu_ns() - begin;
        assert_eq!(self.written - before, count * bytes, "not all was delivered");
        took as f64 / 1e3 / count as f64
    }
}

/// CPU time of this thread.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Messages, as they come with reads of [`BATCH`].
fn batches(messages: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let messages: Vec<_> = messages.collect();
    messages.chunks(BATCH).map(|batch| batch.concat()).collect()
}

fn point(plot: &str, series: &str, x: usize, y: f64) -> Point {
    Point { plot: plot.into(), series: series.into(), x: x as f64, y }
}

pub(super) fn subscriptions(plan: &Plan, each: &mut dyn FnMut(Point)) {
    for shape in Shape::ALL {
        for n in steps(plan, 1000, 1_000_000) {
            let mut bench = Bench::new();
            let subscribers: Vec<_> = (0..SUBSCRIBERS.min(n)).map(|_| bench.client()).collect();
            for i in 0..n {
                bench.send(subscribers[i % subscribers.len()], &subscribe(1, [shape.filter(i)], 0));
            }
            let y = to_one_each(plan, &mut bench, n, |i| shape.topic(i));
            each(point("subscriptions", &format!("shard, {}", shape.name()), n, y));
        }
    }
}

pub(super) fn sessions(plan: &Plan, each: &mut dyn FnMut(Point)) {
    for n in steps(plan, 1, 100_000) {
        let mut bench = Bench::new();
        for i in 0..n {
            let conn = bench.client();
            bench.send(conn, &subscribe(1, [Shape::Exact.filter(i)], 0));
        }
        let y = to_one_each(plan, &mut bench, n, |i| Shape::Exact.topic(i));
        each(point("connections", "shard, 64 at a time", n, y));
    }
}

/// Messages to topics in no order, each with one receiver.
fn to_one_each(plan: &Plan, bench: &mut Bench, n: usize, topic: impl Fn(usize) -> String) -> f64 {
    let publisher = bench.client();
    // More than caches hold, where there are as many topics.
    let count = 262_144 / plan.scale.min(256);
    let bytes = publish(&topic(0), &PAYLOAD).len();
    let batches = batches(draws(n, count).into_iter().map(|i| publish(&topic(i), &PAYLOAD)));
    bench.time(publisher, &batches, count, bytes);
    median((0..plan.runs).map(|_| bench.time(publisher, &batches, count, bytes)).collect())
}

pub(super) fn fanout(plan: &Plan, each: &mut dyn FnMut(Point)) {
    for n in steps(plan, 1, 100_000) {
        let mut bench = Bench::new();
        for _ in 0..n {
            let conn = bench.client();
            bench.send(conn, &subscribe(1, ["fan/out"], 0));
        }
        let publisher = bench.client();
        let message = publish("fan/out", &PAYLOAD);
        for (series, batch) in [("shard, one at a time", 1), ("shard, 16 at a time", 16)] {
            let rounds = (2_000_000 / plan.scale.min(256) / n / batch).max(2);
            let batches = vec![message.repeat(batch); rounds];
            let run = |bench: &mut Bench| bench.time(publisher, &batches, rounds * batch * n, message.len());
            run(&mut bench);
            each(point("fanout", series, n, median((0..plan.runs).map(|_| run(&mut bench)).collect())));
        }
        let y = acknowledged_fanout(plan, n);
        each(point("fanout", "shard, QoS 1, 16 at a time", n, y));
    }
}

/// As [`fanout`], but each receiver acknowledges each message.
fn acknowledged_fanout(plan: &Plan, n: usize) -> f64 {
    const AT_A_TIME: u16 = 16;
    let mut bench = Bench::new();
    let receivers: Vec<_> = (0..n).map(|_| bench.client()).collect();
    receivers.iter().for_each(|conn| bench.send(*conn, &subscribe(1, ["fan/out"], 1)));
    let publisher = bench.client();
    let messages: Vec<_> = (1..=AT_A_TIME).flat_map(|id| publish_1(id, "fan/out", &PAYLOAD)).collect();
    let rounds = (1_000_000 / plan.scale.min(256) / n / usize::from(AT_A_TIME)).max(2);
    // Packet ids ascend, for all the same.
    let mut id = 0;
    let mut run = |bench: &mut Bench| {
        let (before, begin) = (bench.counters_sent(), cpu_ns());
        for _ in 0..rounds {
            bench.send(publisher, &messages);
            let acks: Vec<_> = (0..AT_A_TIME).flat_map(|_| puback(&mut id)).collect();
            receivers.iter().for_each(|conn| bench.send(*conn, &acks));
        }
        let took = cpu_ns() - begin;
        let count = rounds * n * usize::from(AT_A_TIME);
        assert_eq!(bench.counters_sent() - before, count as u64, "not all was delivered");
        took as f64 / 1e3 / count as f64
    };
    run(&mut bench);
    median((0..plan.runs).map(|_| run(&mut bench)).collect())
}

fn puback(last: &mut u16) -> [u8; 4] {
    *last = last.checked_add(1).unwrap_or(1);
    let [high, low] = last.to_be_bytes();
    [0x40, 2, high, low]
}

pub(super) fn retained(plan: &Plan, each: &mut dyn FnMut(Point)) {
    for n in steps(plan, 1000, 1_000_000) {
        let mut bench = Bench::new();
        let publisher = bench.client();
        let message = |i| publish_retained(&retained_topic(i), &PAYLOAD);
        let store = batches((0..n).map(message));
        let first = cpu_ns();
        for batch in &store {
            bench.send(publisher, batch);
        }
        each(point("retained", "shard, store new", n, (cpu_ns() - first) as f64 / 1e3 / n as f64));
        let count = 262_144 / plan.scale.min(256);
        let replace = batches(draws(n, count).into_iter().map(message));
        let run = |bench: &mut Bench| {
            let begin = cpu_ns();
            for batch in &replace {
                bench.send(publisher, batch);
            }
            (cpu_ns() - begin) as f64 / 1e3 / count as f64
        };
        run(&mut bench);
        let y = median((0..plan.runs).map(|_| run(&mut bench)).collect());
        each(point("retained", "shard, replace", n, y));
        let rounds = (300_000 / plan.scale.min(256) / n).max(1);
        let replay = |bench: &mut Bench| {
            let mut took = 0;
            for _ in 0..rounds {
                let (conn, before, begin) = (bench.client(), bench.written, cpu_ns());
                bench.send(conn, &subscribe(1, ["#"], 0));
                took += cpu_ns() - begin;
                assert_eq!(bench.written - before, 5 + n * message(0).len(), "not all was replayed");
                bench.close(conn);
            }
            took as f64 / 1e3 / (rounds * n) as f64
        };
        let y = median((0..plan.runs).map(|_| replay(&mut bench)).collect());
        each(point("retained", "shard, replay of #", n, y));
        // Subscribing to one topic that has a retained message, and not any more.
        let conn = bench.client();
        let count = 65_536 / plan.scale.min(64);
        let begin = cpu_ns();
        for i in draws(n, count) {
            bench.send(conn, &subscribe(1, [retained_topic(i)], 0));
        }
        each(point(
            "retained",
            "shard, subscribe to one topic",
            n,
            (cpu_ns() - begin) as f64 / 1e3 / count as f64,
        ));
    }
}
