//! The release broker with one worker, over loopback.

use hikyaku_proto::codec::PacketType;

use super::crowd::Crowd;
use super::{PAYLOAD, Plan, Point, Shape, draws, median, retained_topic, steps};
use crate::overload::packets::{Session, connect, publish, publish_retained, subscribe};
use crate::overload::target::Target;

/// How many messages a publisher has outstanding, where it is not one.
const WINDOW: usize = 64;
/// How many clients share many filters.
const SUBSCRIBERS: usize = 100;
/// How many filters a SUBSCRIBE has.
const FILTERS: usize = 100;
const OPTIONS: &str = "max_subscriptions 4294967295\nmemory_limit 0";

/// A broker, and who talks to it.
struct Bench {
    target: Target,
    crowd: Crowd,
    members: usize,
}

impl Bench {
    fn new(plan: &Plan) -> Self {
        let target = Target::start(&plan.command, OPTIONS, None);
        let crowd = Crowd::new(target.address);
        Self { target, crowd, members: 0 }
    }

    /// Connects one after the other, so that no queue of the system overflows.
    fn clients(&mut self, count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| {
                self.members += 1;
                let id = format!("client-{}", self.members);
                let member = self.crowd.open(&connect(&id, Session::Clean, None));
                if self.members.is_multiple_of(100) {
                    self.crowd.wait(PacketType::ConnAck, self.members);
                }
                member
            })
            .collect()
    }

    /// All that was sent has been answered.
    fn settle(&mut self, subscribes: usize) {
        self.crowd.wait(PacketType::ConnAck, self.members);
        self.crowd.wait(PacketType::SubAck, subscribes);
    }

    /// Sends these messages, at most `window` of them outstanding, of which each comes to `receivers`; µs of the
    /// broker's CPU time for each that is received.
    fn time(&mut self, publisher: usize, messages: &[Vec<u8>], window: usize, receivers: usize) -> f64 {
        let begin = self.target.cpu_ns();
        let came = self.crowd.count(PacketType::Publish);
        let mut sent = 0;
        for batch in messages.chunks(window.div_ceil(4)) {
            // As many are sent at once as a quarter of the window has room for.
            let before = (sent + batch.len()).saturating_sub(window);
            self.crowd.wait(PacketType::Publish, came + before * receivers);
            self.crowd.send(publisher, &batch.concat());
            sent += batch.len();
        }
        self.crowd.wait(PacketType::Publish, came + sent * receivers);
        (self.target.cpu_ns() - begin) as f64 / 1e3 / (sent * receivers) as f64
    }

    fn repeat(
        &mut self,
        plan: &Plan,
        publisher: usize,
        messages: &[Vec<u8>],
        window: usize,
        to: usize,
    ) -> f64 {
        self.time(publisher, messages, window, to);
        median((0..plan.runs).map(|_| self.time(publisher, messages, window, to)).collect())
    }
}

fn point(plot: &str, series: &str, x: usize, y: f64) -> Point {
    Point { plot: plot.into(), series: series.into(), x: x as f64, y }
}

pub(super) fn subscriptions(plan: &Plan, each: &mut dyn FnMut(Point)) {
    for shape in Shape::ALL {
        for n in steps(plan, 1000, 1_000_000) {
            let mut bench = Bench::new(plan);
            let subscribers = bench.clients(SUBSCRIBERS);
            let publisher = bench.clients(1)[0];
            bench.settle(0);
            let before = bench.target.resident();
            let filters: Vec<_> = (0..n).map(|i| shape.filter(i)).collect();
            let mut packets = 0;
            for (i, some) in filters.chunks(FILTERS.min(n.div_ceil(SUBSCRIBERS))).enumerate() {
                bench.crowd.send(subscribers[i % SUBSCRIBERS], &subscribe(1, some, 0));
                packets += 1;
            }
            bench.settle(packets);
            let resident = bench.target.resident().saturating_sub(before);
            // A smaller number says more of the page size than of filters.
            if n >= 10_000 {
                let bytes = resident as f64 * 1024.0 / n as f64;
                each(point("memory", &format!("subscription, {}", shape.name()), n, bytes));
            }
            let count = 262_144 / plan.scale;
            let messages: Vec<_> =
                draws(n, count).into_iter().map(|i| publish(&shape.topic(i), &PAYLOAD)).collect();
            let y = bench.repeat(plan, publisher, &messages, WINDOW, 1);
            each(point("subscriptions", &format!("broker, {}", shape.name()), n, y));
        }
    }
}

pub(super) fn connections(plan: &Plan, each: &mut dyn FnMut(Point)) {
    for n in steps(plan, 1, 19_000) {
        let mut bench = Bench::new(plan);
        let publisher = bench.clients(1)[0];
        for (i, member) in bench.clients(n).into_iter().enumerate() {
            bench.crowd.send(member, &subscribe(1, [Shape::Exact.filter(i)], 0));
        }
        bench.settle(n);
        let to = |among: usize, count: usize| -> Vec<_> {
            let draws = draws(among, count / plan.scale.min(256)).into_iter();
            draws.map(|i| publish(&Shape::Exact.topic(i), &PAYLOAD)).collect()
        };
        let y = bench.repeat(plan, publisher, &to(n, 40_000), 1, 1);
        each(point("connections", "broker, one at a time", n, y));
        let y = bench.repeat(plan, publisher, &to(n, 131_072), WINDOW, 1);
        each(point("connections", "broker, 64 outstanding", n, y));
        let y = bench.repeat(plan, publisher, &to(n.min(100), 131_072), WINDOW, 1);
        each(point("connections", "broker, 64 outstanding, 100 active", n, y));
    }
}

pub(super) fn fanout(plan: &Plan, each: &mut dyn FnMut(Point)) {
    for n in steps(plan, 1, 19_000) {
        let mut bench = Bench::new(plan);
        let publisher = bench.clients(1)[0];
        for member in bench.clients(n) {
            bench.crowd.send(member, &subscribe(1, ["fan/out"], 0));
        }
        bench.settle(n);
        for (series, window) in [("broker, one at a time", 1), ("broker, 16 outstanding", 16)] {
            let count = (300_000 * window.min(8) / plan.scale.min(256) / n / 8 * 8).clamp(16, 65_536);
            let messages = vec![publish("fan/out", &PAYLOAD); count];
            each(point("fanout", series, n, bench.repeat(plan, publisher, &messages, window, n)));
        }
    }
}

pub(super) fn retained(plan: &Plan, each: &mut dyn FnMut(Point)) {
    for n in steps(plan, 1000, 1_000_000) {
        let mut bench = Bench::new(plan);
        let publisher = bench.clients(1)[0];
        bench.settle(0);
        let (resident, begin) = (bench.target.resident(), bench.target.cpu_ns());
        let messages: Vec<_> = (0..n).map(|i| publish_retained(&retained_topic(i), &PAYLOAD)).collect();
        for some in messages.chunks(WINDOW) {
            bench.crowd.send(publisher, &some.concat());
        }
        // What is behind them has been read: so have they.
        bench.crowd.send(publisher, &subscribe(1, ["nothing"], 0));
        bench.settle(1);
        let took = bench.target.cpu_ns() - begin;
        each(point("retained", "broker, store new", n, took as f64 / 1e3 / n as f64));
        let resident = bench.target.resident().saturating_sub(resident);
        if n >= 10_000 {
            each(point("memory", "retained message", n, resident as f64 * 1024.0 / n as f64));
        }
        let rounds = (300_000 / plan.scale.min(256) / n).clamp(1, 30);
        let mut replay = || {
            let begin = bench.target.cpu_ns();
            for _ in 0..rounds {
                let member = bench.clients(1)[0];
                let came = bench.crowd.count(PacketType::Publish);
                bench.crowd.send(member, &subscribe(1, ["#"], 0));
                bench.crowd.wait(PacketType::Publish, came + n);
                bench.crowd.close(member);
            }
            (bench.target.cpu_ns() - begin) as f64 / 1e3 / (rounds * n) as f64
        };
        replay();
        each(point("retained", "broker, replay of #", n, median((0..plan.runs).map(|_| replay()).collect())));
    }
}
