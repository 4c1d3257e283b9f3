//! What workers say to each other: the messages between shards, counted, not timed, so that there may be more shards than cores.

use std::collections::VecDeque;
use std::sync::Arc;

use hikyaku_proto::broker::peer::PeerMessage;
use hikyaku_proto::broker::{Config, ConnId, Input, Output, Placement, SHARDS_MAX, Shard, ShardId};
use hikyaku_proto::time::Instant;

use super::{PAYLOAD, Plan, Point};
use crate::overload::packets::{Session, connect, publish, publish_1, subscribe};

const NOW: Instant = Instant::from_secs(1);
const CLIENTS: usize = 100;

/// A whole broker without sockets.
struct Bench {
    shards: Vec<Shard>,
    placement: Arc<Placement>,
    conns: Vec<u32>,
    /// What waits: to whom, from whom, what.
    underway: VecDeque<(ShardId, ShardId, PeerMessage)>,
    /// How many have been sent.
    letters: usize,
}

/// A client: its shard, and its connection there.
type Client = (usize, ConnId);

impl Bench {
    fn new(shards: u16) -> Self {
        let config = Arc::new(Config { sys_interval_s: 0, ..Config::default() });
        let placement = Arc::new(Placement::new(7, shards));
        let make = |id| Shard::new(id, shards, u64::from(id), config.clone(), placement.clone(), NOW);
        Self {
            shards: (0..shards).map(make).collect(),
            placement,
            conns: vec![0; shards.into()],
            underway: VecDeque::new(),
            letters: 0,
        }
    }

    fn client(&mut self, name: &str) -> Client {
        let home = usize::from(self.placement.shard(name.as_bytes()));
        let conn = ConnId { index: self.conns[home], generation: 0 };
        self.conns[home] += 1;
        let input = Input::Opened { conn, listener: 0, peer: None, identity: None, entropy: [0; 16] };
        self.shards[home].handle(NOW, input);
        self.hand_in((home, conn), &connect(name, Session::Clean, None));
        self.settle();
        (home, conn)
    }

    fn hand_in(&mut self, (home, conn): Client, bytes: &[u8]) {
        let used = self.shards[home].handle(NOW, Input::Received { conn, bytes });
        assert_eq!(used, bytes.len(), "the shard is not to be in need of a pause");
    }

    /// Turns of all shards until there is nothing underway.
    fn settle(&mut self) {
        loop {
            for (from, shard) in (0..).zip(&mut self.shards) {
                loop {
                    match shard.poll_output(NOW) {
                        Output::Timeout(Some(at)) if at <= NOW => drop(shard.handle(NOW, Input::Timeout)),
                        Output::Timeout(_) => break,
                        Output::Transmit(conn) => {
                            let bytes = shard.outbox(conn).map_or(0, |outbox| outbox.len());
                            shard.handle(NOW, Input::Written { conn, bytes });
                        }
                        Output::Peer { to, message } => {
                            self.letters += 1;
                            self.underway.push_back((to, from, message));
                        }
                        Output::PauseReads(_) | Output::ResumeReads(_) | Output::Watch { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            if self.underway.is_empty() {
                return;
            }
            for (to, from, message) in std::mem::take(&mut self.underway) {
                self.shards[usize::from(to)].handle(NOW, Input::Peer { from, message });
            }
        }
    }
}

pub(super) fn letters(plan: &Plan, each: &mut dyn FnMut(Point)) {
    let most = (usize::from(SHARDS_MAX) / plan.scale).max(2);
    for shards in std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n <= most) {
        let mut bench = Bench::new(shards as u16);
        let publishers: Vec<_> = (0..CLIENTS).map(|i| bench.client(&format!("publisher-{i}"))).collect();
        for i in 0..CLIENTS {
            let subscriber = bench.client(&format!("subscriber-{i}"));
            bench.hand_in(subscriber, &subscribe(1, [format!("pair/{i}"), "all".into()], 1));
            bench.settle();
        }
        let mut count = |series: &str, batch: usize, message: &dyn Fn(usize, usize) -> Vec<u8>| {
            let mut before = 0;
            // Who was sent something else before is asked about that once, too.
            for _ in 0..2 {
                before = bench.letters;
                for (i, publisher) in publishers.iter().enumerate() {
                    let messages: Vec<_> = (0..batch).flat_map(|n| message(i, n)).collect();
                    bench.hand_in(*publisher, &messages);
                    bench.settle();
                }
            }
            let y = (bench.letters - before) as f64 / (batch * CLIENTS) as f64;
            // There is no place for zero.
            if shards > 1 {
                each(Point { plot: "workers".into(), series: series.into(), x: shards as f64, y });
            } else {
                assert_eq!(bench.letters, before, "one shard has nobody to tell");
            }
        };
        let pair = |i: usize, _: usize| publish(&format!("pair/{i}"), &PAYLOAD);
        let pair_1 = |i: usize, n: usize| publish_1(n as u16 + 1, &format!("pair/{i}"), &PAYLOAD);
        let all = |_: usize, _: usize| publish("all", &PAYLOAD);
        count("pair, QoS 0, one at a time", 1, &pair);
        count("pair, QoS 0, 16 at a time", 16, &pair);
        count("pair, QoS 1, one at a time", 1, &pair_1);
        count("pair, QoS 1, 16 at a time", 16, &pair_1);
        count("to 100 receivers, QoS 0", 16, &all);
    }
}
