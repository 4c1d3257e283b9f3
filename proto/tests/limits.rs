//! What is allowed where a client came in, against one bare shard.
#![allow(missing_docs)]

use hikyaku_proto::broker::{
    AcceptedVersions, Config, ConnId, Input, Listener, ListenerLimits, Output, Placement, Shard,
};
use hikyaku_proto::codec::QoS;
use hikyaku_proto::time::Instant;
use std::sync::Arc;

struct Broker {
    shard: Shard,
    conns: u32,
}

impl Broker {
    fn new(limits: ListenerLimits, config: Config) -> Broker {
        let listeners = vec![Listener { limits, ..Listener::default() }];
        let config = Arc::new(Config { listeners, sys_interval_s: 0, ..config });
        let shard = Shard::new(0, 1, 1, config, Arc::new(Placement::new(1, 1)), Instant::ZERO);
        Broker { shard, conns: 0 }
    }

    /// Opens a connection that sends `bytes`; returns it and what it gets.
    fn open(&mut self, bytes: &[u8]) -> (ConnId, Vec<u8>) {
        let conn = ConnId { index: self.conns, generation: 0 };
        self.conns += 1;
        let opened = Input::Opened { conn, listener: 0, peer: None, identity: None, entropy: [7; 16] };
        self.shard.handle(Instant::ZERO, opened);
        let got = self.send(conn, bytes);
        (conn, got)
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<u8> {
        self.shard.handle(Instant::ZERO, Input::Received { conn, bytes });
        self.outputs(conn)
    }

    /// What `conn` gets.
    fn outputs(&mut self, conn: ConnId) -> Vec<u8> {
        let mut got = Vec::new();
        loop {
            match self.shard.poll_output(Instant::ZERO) {
                Output::Transmit(to) => {
                    let sent: Vec<u8> = self.shard.outbox(to).unwrap().chunks().flatten().copied().collect();
                    self.shard.handle(Instant::ZERO, Input::Written { conn: to, bytes: sent.len() });
                    if to == conn {
                        got.extend(sent);
                    }
                }
                Output::Close { conn: to, last } if to == conn => got.extend(last.chunks().flatten()),
                Output::Timeout(Some(Instant::ZERO)) => {
                    self.shard.handle(Instant::ZERO, Input::Timeout);
                }
                Output::Timeout(_) => return got,
                _ => {}
            }
        }
    }
}

fn connect(level: u8, id: &str, will_qos: Option<u8>) -> Vec<u8> {
    let name: &[u8] = if level == 3 { b"MQIsdp" } else { b"MQTT" };
    let mut body = vec![0, name.len() as u8];
    body.extend_from_slice(name);
    body.extend([level, 2 | will_qos.map_or(0, |qos| 4 | qos << 3), 0, 60]);
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    body.extend(properties);
    body.extend([0, id.len() as u8]);
    body.extend(id.bytes());
    if will_qos.is_some() {
        body.extend(properties);
        body.extend([0, 1, b'w', 0, 1, b'x']);
    }
    [vec![0x10, body.len() as u8], body].concat()
}

#[test]
fn versions_that_are_not_accepted_are_refused() {
    let versions = AcceptedVersions { v3_1: false, v3_1_1: true, v5: false };
    let mut broker = Broker::new(ListenerLimits { versions, ..Default::default() }, Config::default());
    assert_eq!(broker.open(&connect(3, "a", None)).1, [0x20, 2, 0, 1]);
    assert_eq!(broker.open(&connect(4, "a", None)).1, [0x20, 2, 0, 0]);
    assert_eq!(broker.open(&connect(5, "b", None)).1[..5], [0x20, 3, 0, 0x84, 0]);
}

#[test]
fn a_keep_alive_that_is_too_long_is_refused_where_it_cannot_be_changed() {
    let mut broker =
        Broker::new(ListenerLimits::default(), Config { max_keepalive_s: 59, ..Config::default() });
    let with_keep_alive = |level, seconds| {
        let mut connect = connect(level, "a", None);
        let at = if level == 3 { 13 } else { 11 };
        connect[at] = seconds;
        connect
    };
    for level in [3, 4] {
        for (seconds, code) in [(60, 2), (59, 0), (0, 0)] {
            assert_eq!(broker.open(&with_keep_alive(level, seconds)).1, [0x20, 2, 0, code]);
        }
    }
    // Server Keep Alive.
    assert_eq!(broker.open(&with_keep_alive(5, 60)).1[5..8], [0x13, 0, 59]);
}

#[test]
fn empty_client_ids_may_be_refused() {
    let limits = ListenerLimits { allow_zero_length_clientid: false, ..Default::default() };
    let mut broker = Broker::new(limits, Config::default());
    assert_eq!(broker.open(&connect(4, "", None)).1, [0x20, 2, 0, 2]);
    assert_eq!(broker.open(&connect(5, "", None)).1[..5], [0x20, 3, 0, 0x85, 0]);
    assert_eq!(broker.open(&connect(4, "a", None)).1, [0x20, 2, 0, 0]);
}

#[test]
fn the_highest_qos_is_told_granted_and_enforced() {
    let limits = ListenerLimits { max_qos: QoS::AtLeastOnce, ..Default::default() };
    let mut broker = Broker::new(limits, Config::default());
    let (conn, connack) = broker.open(&connect(5, "a", None));
    // Topic Alias Maximum, Maximum Packet Size, Receive Maximum, Maximum QoS.
    assert_eq!(connack, [0x20, 16, 0, 0, 13, 0x22, 0, 10, 0x27, 0, 0x1e, 0x84, 0x80, 0x21, 0, 20, 0x24, 1]);
    let suback = broker.send(conn, &[0x82, 7, 0, 1, 0, 0, 1, b't', 2]);
    assert_eq!(suback, [0x90, 4, 0, 1, 0, 1]);
    let puback = broker.send(conn, &[0x32, 6, 0, 1, b'u', 0, 1, 0]);
    assert_eq!(puback[..2], [0x40, 3]);
    let disconnect = broker.send(conn, &[0x34, 6, 0, 1, b'u', 0, 2, 0]);
    assert_eq!(disconnect[..3], [0xe0, disconnect[1], 0x9b]);
    assert_eq!(broker.open(&connect(5, "b", Some(2))).1[..5], [0x20, 3, 0, 0x9b, 0]);
    assert_eq!(broker.open(&connect(5, "b", Some(1))).1[3], 0);
}

#[test]
fn topic_aliases_are_those_of_the_listener() {
    let limits = ListenerLimits { max_topic_alias: Some(1), ..Default::default() };
    let mut broker = Broker::new(limits, Config::default());
    let (conn, connack) = broker.open(&connect(5, "a", None));
    assert_eq!(connack[5..8], [0x22, 0, 1]);
    assert_eq!(broker.send(conn, &[0x30, 7, 0, 1, b't', 3, 0x23, 0, 1]), []);
    let disconnect = broker.send(conn, &[0x30, 7, 0, 1, b't', 3, 0x23, 0, 2]);
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x94));
}

#[test]
fn payloads_beyond_the_limit_are_not_passed_on() {
    let config = Config { message_size_limit: 2, ..Config::default() };
    let mut broker = Broker::new(ListenerLimits::default(), config);
    let (old, _) = broker.open(&connect(4, "a", None));
    broker.send(old, &[0x82, 6, 0, 1, 0, 1, b't', 0]);
    assert_eq!(broker.send(old, &[0x30, 6, 0, 1, b't', 1, 2, 3]), []);
    assert_eq!(broker.send(old, &[0x32, 8, 0, 1, b't', 0, 9, 1, 2, 3]), [0x40, 2, 0, 9]);
    assert_eq!(broker.send(old, &[0x30, 5, 0, 1, b't', 1, 2]), [0x30, 5, 0, 1, b't', 1, 2]);
    let (new, _) = broker.open(&connect(5, "b", None));
    let puback = broker.send(new, &[0x32, 9, 0, 1, b't', 0, 9, 0, 1, 2, 3]);
    assert_eq!((puback[0], puback[2..5].to_vec()), (0x40, vec![0, 9, 0x83]));
}

#[test]
fn qos_is_upgraded_where_configured() {
    for (upgrade, expected) in
        [(false, &[0x30, 4, 0, 1, b't', 1][..]), (true, &[0x32, 6, 0, 1, b't', 0, 1, 1])]
    {
        let config = Config { upgrade_outgoing_qos: upgrade, ..Config::default() };
        let mut broker = Broker::new(ListenerLimits::default(), config);
        let (conn, _) = broker.open(&connect(4, "a", None));
        broker.send(conn, &[0x82, 6, 0, 1, 0, 1, b't', 1]);
        assert_eq!(broker.send(conn, &[0x30, 4, 0, 1, b't', 1]), expected);
    }
}
