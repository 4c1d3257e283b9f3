//! Each limit of the core: what its client is told, what is counted, what is logged, and that others go on.

mod common;

use common::logged::lines;
use common::{Rig, quiet};
use hikyaku_proto::broker::{Config, Dropped, Input, ListenerLimits, Refused};
use hikyaku_proto::codec::QoS;
use std::time::Duration;

/// What `$SYS` counts.
#[derive(Clone, Copy, Debug)]
enum Counted {
    Refused(Refused),
    Dropped(Dropped),
}
use Counted::{Dropped as D, Refused as R};

impl Counted {
    fn of(self, rig: &Rig) -> u64 {
        rig.sum(|c| match self {
            R(what) => c.refused[what as usize],
            D(why) => c.dropped[why as usize],
        })
    }
}

/// One limit, and how a client `p` meets it.
struct Limit {
    option: &'static str,
    config: fn(&mut Config),
    /// What goes before, as a script.
    before: &'static str,
    prepare: fn(&mut Rig),
    /// What is too much: packets of `p`, and what it hears.
    act: (&'static str, &'static str),
    counted: (Counted, u64),
    /// The lines of the log about it.
    logged: &'static [&'static str],
}

/// A client with a session, as most limits want it.
const P: &str = "p> CONNECT p v5 clean\n p< CONNACK 0";

const LIMITS: &[Limit] = &[
    Limit {
        option: "max_packet_size",
        config: |c| c.max_packet_size = 2000,
        before: P,
        prepare: |_| (),
        act: ("PUBLISH t size=3000", "DISCONNECT 0x95; CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &[
            "INFO Client p closed: the packet is larger than the maximum packet size (Packet too large).",
        ],
    },
    Limit {
        option: "message_size_limit",
        config: |c| c.message_size_limit = 2,
        before: P,
        prepare: |_| (),
        act: ("PUBLISH t 123; PUBLISH t 123 q1 id=1; PUBLISH t 123 q2 id=2", "PUBACK 1 0x83; PUBREC 2 0x83"),
        counted: (R(Refused::Publish), 3),
        logged: &[
            "INFO Client p: a message is dropped, its payload is larger than 'message_size_limit' allows.",
            "INFO Packets beyond limits that were not logged: 2.",
        ],
    },
    Limit {
        option: "max_inflight_messages",
        config: |c| c.max_inflight_messages = 1,
        before: P,
        prepare: |_| (),
        act: ("PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2", "PUBREC 1; DISCONNECT 0x93; CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &[
            "INFO Client p closed: more messages in flight than 'max_inflight_messages' allows (Receive Maximum exceeded).",
        ],
    },
    Limit {
        option: "max_queued_messages",
        config: |c| c.max_queued_messages = 1,
        before: "s> CONNECT s v5 expiry=9; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1\n s!\n p> CONNECT p v5 clean\n p< CONNACK 0",
        prepare: |_| (),
        act: (
            "PUBLISH t 1 q1 id=1; PUBLISH t 2 q1 id=2; PUBLISH t 3 q1 id=3; PUBLISH t 4 q2 id=4",
            "PUBACK 1; PUBACK 2; PUBACK 3; PUBREC 4",
        ),
        counted: (D(Dropped::QueueFull), 3),
        logged: &[
            "INFO Client s: messages are dropped, as many wait for it as 'max_queued_messages' or 'max_queued_bytes' allows.",
            "INFO Messages dropped from full queues that were not logged: 2.",
        ],
    },
    Limit {
        option: "max_queued_bytes",
        config: |c| c.max_queued_bytes = 100,
        before: "s> CONNECT s v5 expiry=9; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1\n s!\n p> CONNECT p v5 clean\n p< CONNACK 0",
        prepare: |_| (),
        act: ("PUBLISH t size=90 q1 id=1; PUBLISH t size=90 q1 id=2", "PUBACK 1; PUBACK 2"),
        counted: (D(Dropped::QueueFull), 1),
        logged: &[
            "INFO Client s: messages are dropped, as many wait for it as 'max_queued_messages' or 'max_queued_bytes' allows.",
        ],
    },
    Limit {
        option: "max_keepalive",
        config: |c| c.max_keepalive_s = 9,
        before: "",
        prepare: |_| (),
        act: ("CONNECT p clean ka=10", "CONNACK 2; CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &[
            "INFO Client p refused: the keep alive is longer than allowed (Client Identifier not valid).",
        ],
    },
    Limit {
        option: "global_max_clients",
        config: |c| c.max_sessions = 1,
        before: "",
        prepare: |_| (),
        act: ("CONNECT p v5 clean", "CONNACK 0x89; CLOSED"),
        counted: (R(Refused::Session), 1),
        logged: &["INFO Client p refused: there are as many sessions as may be (Server busy)."],
    },
    Limit {
        option: "max_qos",
        config: |c| c.listeners[0].limits = ListenerLimits { max_qos: QoS::AtMostOnce, ..Default::default() },
        before: P,
        prepare: |_| (),
        act: ("PUBLISH t 1 q1 id=1", "DISCONNECT 0x9b; CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &["INFO Client p closed: a QoS above the highest allowed (QoS not supported)."],
    },
    Limit {
        option: "max_topic_alias",
        config: |c| c.max_topic_alias = 1,
        before: P,
        prepare: |_| (),
        act: ("PUBLISH t 1 alias=1; PUBLISH t 1 alias=2", "DISCONNECT 0x94; CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &["INFO Client p closed: a topic alias above 'max_topic_alias' (Topic Alias invalid)."],
    },
    Limit {
        option: "max_topic_separators",
        config: |c| c.max_topic_separators = 1,
        before: P,
        prepare: |_| (),
        act: ("SUBSCRIBE id=1 a/b; PUBLISH a/b/c 1", "SUBACK 1 0; DISCONNECT 0x81; CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &[
            "INFO Client p closed: the topic has more levels than 'max_topic_separators' allows (Malformed Packet).",
        ],
    },
    Limit {
        option: "max_topic_separators",
        config: |c| c.max_topic_separators = 1,
        before: "",
        prepare: |_| (),
        act: ("CONNECT p clean v5 will=a/b/c,x", "CONNACK 0x90; CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &[
            "INFO Client p refused: the will's topic has more levels than 'max_topic_separators' allows (Topic Name invalid).",
        ],
    },
    Limit {
        option: "message_size_limit",
        config: |c| c.message_size_limit = 2,
        before: "",
        prepare: |_| (),
        act: ("CONNECT p clean v5 will=w,xyz", "CONNACK 0x95; CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &[
            "INFO Client p refused: the will is larger than 'message_size_limit' allows (Packet too large).",
        ],
    },
    Limit {
        option: "max_user_properties",
        config: |c| c.max_user_properties = 1,
        before: P,
        prepare: |_| (),
        act: (
            "PUBLISH t 0 up=a q1 id=1; PUBLISH t 1 up=a up=a; PUBLISH t 2 up=a up=b q1 id=2; PUBLISH t 3 up=a up=b q2 id=3",
            "PUBACK 1 0x10; PUBACK 2 0x97; PUBREC 3 0x97",
        ),
        counted: (R(Refused::Publish), 3),
        logged: &[
            "INFO Client p: it has more user properties than 'max_user_properties' allows.",
            "INFO Packets beyond limits that were not logged: 2.",
        ],
    },
    Limit {
        option: "max_subscriptions",
        config: |c| c.max_subscriptions = 1,
        before: P,
        prepare: |_| (),
        act: (
            "SUBSCRIBE id=1 a b; SUBSCRIBE id=2 c; SUBSCRIBE id=3 a",
            "SUBACK 1 0 0x97; SUBACK 2 0x97; SUBACK 3 0",
        ),
        counted: (R(Refused::Subscription), 2),
        logged: &[
            "INFO Client p: a subscription is refused, it has as many as 'max_subscriptions' allows.",
            "INFO Denials to subscribe that were not logged: 1.",
        ],
    },
    Limit {
        option: "connect_timeout",
        config: |c| c.connect_timeout_s = 1,
        before: "",
        prepare: |_| (),
        act: ("RAW 10 20", "CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &[
            "INFO A client refused: there is no CONNECT in time ('connect_timeout') (Maximum connect time).",
        ],
    },
    Limit {
        option: "max_connect_size",
        config: |c| c.connect_bytes_max = 100,
        before: "",
        prepare: |_| (),
        act: ("RAW 10 7f 00", "CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &[
            "INFO A client refused: the packet is larger than the maximum packet size (Packet too large).",
        ],
    },
    Limit {
        option: "max_retained_messages",
        config: |c| c.max_retained_messages = 1,
        before: P,
        prepare: |_| (),
        act: ("PUBLISH a 1 r; PUBLISH b 1 r; PUBLISH c 1 r q1 id=1", "PUBACK 1 0x10"),
        counted: (R(Refused::Retain), 2),
        logged: &[
            "INFO A limit is met: a message is not retained, there are as many retained messages as 'max_retained_messages' allows.",
            "INFO Messages not retained that were not logged: 1.",
        ],
    },
    Limit {
        option: "max_retained_bytes",
        config: |c| c.max_retained_bytes = 1000,
        before: P,
        prepare: |_| (),
        act: ("PUBLISH a 1 r; PUBLISH b size=2000 r", ""),
        counted: (R(Refused::Retain), 1),
        logged: &[
            "INFO A limit is met: a message is not retained, retained messages have as many bytes as 'max_retained_bytes' allows.",
        ],
    },
    Limit {
        option: "memory_limit",
        config: |_| (),
        before: "p> CONNECT p v5 clean; SUBSCRIBE id=1 t\n p< CONNACK 0; SUBACK 1 0",
        prepare: |rig| {
            rig.shards[0].handle(rig.now, Input::Memory(0));
        },
        act: (
            "PUBLISH t 1 q1 id=1; PUBLISH t 1 q2 id=2; SUBSCRIBE id=3 u",
            "PUBACK 1 0x97; PUBREC 2 0x97; SUBACK 3 0x97",
        ),
        counted: (R(Refused::Publish), 2),
        logged: &[
            "WARN Client p: a message is refused, memory is short ('memory_limit').",
            "WARN Refusals while memory is short that were not logged: 2.",
        ],
    },
    Limit {
        option: "max_publish_rate",
        config: |c| c.max_publish_rate = 1,
        before: P,
        prepare: |_| (),
        act: ("3*PUBLISH t 1; PINGREQ", ""),
        counted: (R(Refused::Rate), 2),
        logged: &[
            "INFO Client p: it publishes more than 'max_publish_rate' allows, and has to wait.",
            "INFO Client p: it publishes more than 'max_publish_rate' allows, and has to wait.",
        ],
    },
    Limit {
        option: "output_soft_limit",
        config: |c| c.output_soft_bytes = 10_000,
        before: "p> CONNECT p v5 clean; SUBSCRIBE id=1 t\n p< CONNACK 0; SUBACK 1 0",
        prepare: |rig| rig.pipe("p").takes = Some(0),
        act: ("14*PUBLISH t size=1000", ""),
        counted: (D(Dropped::Slow), 4),
        logged: &[
            "INFO Client p: messages of QoS 0 are dropped, it does not read what it is sent.",
            "INFO Messages dropped for slow clients that were not logged: 3.",
        ],
    },
    Limit {
        option: "output_hard_limit",
        config: |c| (c.output_hard_bytes, c.max_packet_size) = (1000, 500),
        before: P,
        prepare: |rig| rig.pipe("p").takes = Some(0),
        act: ("600*PINGREQ", ""),
        counted: (R(Refused::Output), 1),
        logged: &[
            "INFO Client p: it is not read, as it does not read what it is sent ('output_hard_limit').",
        ],
    },
    Limit {
        option: "output_stall_timeout",
        config: |c| c.output_stall_s = 1,
        before: P,
        prepare: |rig| rig.pipe("p").takes = Some(0),
        act: ("PINGREQ", "CLOSED"),
        counted: (R(Refused::Connection), 1),
        logged: &[
            "INFO Client p closed: the client took nothing for as long as 'output_stall_timeout' (Quota exceeded).",
        ],
    },
];

#[test]
fn each_limit_is_answered_counted_and_logged_and_others_go_on() {
    lines();
    let mut wrong = Vec::new();
    for limit in LIMITS {
        let mut config = quiet();
        (limit.config)(&mut config);
        let mut rig = Rig::new(1, 0, config);
        // Someone who is there already: nothing of it is its business.
        let id = if ["max_qos", "memory_limit"].contains(&limit.option) { "" } else { " q1 id=9" };
        rig.run("by> CONNECT by clean v5 ka=9; SUBSCRIBE id=1 by\n by< CONNACK 0; SUBACK 1 0");
        rig.run(limit.before);
        (limit.prepare)(&mut rig);
        let before = limit.counted.0.of(&rig);
        lines();
        for packet in limit.act.0.split("; ") {
            let (times, packet) = packet.split_once('*').unwrap_or(("1", packet));
            for _ in 0..times.parse().unwrap() {
                rig.send("p", packet);
                rig.settle();
            }
        }
        rig.advance(Duration::from_secs(1));
        let told = (rig.news("p"), limit.counted.0.of(&rig) - before);
        let answer = if id.is_empty() { "" } else { "PUBACK 9; " };
        rig.send("by", &format!("PUBLISH by x{id}"));
        rig.send("by", "PINGREQ");
        let heard = rig.news("by");
        assert!(
            heard.contains("PUBLISH by x") && heard.contains(answer) && heard.ends_with("PINGRESP"),
            "{heard}"
        );
        rig.advance(Duration::from_secs(2));
        let said: Vec<_> =
            lines().into_iter().filter(|line| !line.contains("New client connected")).collect();
        if told != (limit.act.1.into(), limit.counted.1) || said != limit.logged {
            wrong.push(format!("{}: {told:?} {said:#?}", limit.option));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
