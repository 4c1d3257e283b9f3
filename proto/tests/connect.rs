//! CONNECT, keep alive, sessions, their takeover and their end.

mod common;

use common::{Rig, both, one, quiet};
use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use hikyaku_proto::broker::{Authentication, Config, ConnId, Input, Listener, Verdict};
use hikyaku_proto::codec::ReasonCode;
use std::sync::Arc;

#[test]
fn connack_bytes() {
    let mut rig = one();
    rig.send("a", "CONNECT a clean v5");
    rig.send("b", "CONNECT b clean");
    rig.settle();
    assert_eq!(rig.pipe("a").down, b"\x20\x0e\0\0\x0b\x22\0\x0a\x27\0\x1e\x84\x80\x21\0\x14");
    assert_eq!(rig.pipe("b").down, b"\x20\x02\0\0");
}

#[test]
fn an_empty_id_is_assigned() {
    let mut rig = one();
    rig.run("a> CONNECT clean v5\n a< CONNACK 0 assigned=41\n b> CONNECT clean\n b< CONNACK 0");
    rig.run("c> CONNECT v5\n c< CONNACK 0 assigned=41");
    assert!(rig.pipe("a").down.windows(5).any(|w| w == b"auto-"));
    assert_eq!(rig.sum(|c| c.clients_connected), 3);
}

#[test]
fn refusals() {
    one().run(
        "a> CONNECT
         a< CONNACK 2; CLOSED
         b> RAW 10 0d 00 04 4d 51 54 54 03 02 00 00 00 01 61
         b< CONNACK 1; CLOSED
         d> RAW c0 00
         d< CLOSED
         e> RAW 10 0c 00 03 4d 51 54 04 02 00 00 00 01 61
         e< CLOSED
         f> RAW 10 0d 00 04 4d 51 54 54 04 03 00 00 00 01 61
         f< CLOSED
         g> CONNECT g v5 clean method=SCRAM
         g< CONNACK 0x8c; CLOSED",
    );
}

#[test]
fn bytes_of_refusals() {
    let mut rig = one();
    for (name, bytes, expected) in [
        ("a", "RAW 10 0d 00 04 4d 51 54 54 03 02 00 00 00 01 61", &b"\x20\x02\0\x01"[..]),
        ("b", "RAW 10 0d 00 04 4d 51 54 54 06 02 00 00 00 01 61", b"\x20\x03\0\x84\0"),
        ("c", "CONNECT", b"\x20\x02\0\x02"),
    ] {
        rig.send(name, bytes);
        rig.pipe(name).version = hikyaku_proto::codec::Version::V3_1_1;
        if name == "b" {
            rig.pipe(name).version = hikyaku_proto::codec::Version::V5;
        }
        rig.settle();
        assert_eq!(rig.pipe(name).down, expected, "{name}");
    }
}

#[test]
fn a_second_connect_and_packets_of_a_server_end_the_connection() {
    both(
        &quiet(),
        "z> CONNECT z clean {5}
         z< CONNACK 0
         a> CONNECT a clean {5}
         a< CONNACK 0
         a> CONNECT a clean {5}
         a< {5:DISCONNECT 0x82; }CLOSED
         b> CONNECT b clean {5}; RAW d0 00
         b< CONNACK 0; {5:DISCONNECT 0x82; }CLOSED
         c> CONNECT c clean {5}; RAW 82 02 00 01
         c< CONNACK 0; {5:DISCONNECT 0x81; }CLOSED
         d> CONNECT d clean {5}; RAW 36 06 00 01 61 00 01 00
         d< CONNACK 0; {5:DISCONNECT 0x81; }CLOSED
         z> PINGREQ
         z< PINGRESP",
    );
}

#[test]
fn a_connect_must_come_in_time() {
    one().run(
        "a> RAW 10
         +9s
         a<
         +2s
         a< CLOSED",
    );
}

#[test]
fn keep_alive_is_one_and_a_half_times() {
    both(
        &quiet(),
        "a> CONNECT a clean {5} ka=10
         a< CONNACK 0
         +14s
         a> PINGREQ
         a< PINGRESP
         +14900ms
         a<
         +200ms
         a< {5:DISCONNECT 0x8d; }CLOSED
         b> CONNECT b clean {5}
         b< CONNACK 0
         +9999s
         b<",
    );
}

#[test]
fn who_has_no_keep_alive_is_watched_by_its_transport() {
    let watched = |rig: &mut Rig, packets: &str, answer: &str| {
        rig.run(&format!("a> CONNECT {packets}\n a< {answer}"));
        let seconds = rig.pipe("a").watched_s;
        rig.run("a!");
        seconds
    };
    let mut rig = Rig::new(2, 0, Config { unreachable_s: 40, ..quiet() });
    for version in ["", "v5"] {
        assert_eq!(watched(&mut rig, &format!("a clean {version}"), "CONNACK 0"), 40);
        assert_eq!(watched(&mut rig, &format!("a clean {version} ka=1"), "CONNACK 0"), 0);
    }
    // It counts which one holds.
    rig.configure(Config { unreachable_s: 50, max_keepalive_s: 10, ..quiet() });
    assert_eq!(watched(&mut rig, "a clean v5", "CONNACK 0 ka=10"), 0);
    assert_eq!(watched(&mut rig, "a clean", "CONNACK 0"), 50);
    rig.configure(Config { unreachable_s: 0, ..quiet() });
    assert_eq!(watched(&mut rig, "a clean", "CONNACK 0"), 0);
}

#[test]
fn the_longest_keep_alive_is_told() {
    let config = Config { max_keepalive_s: 60, ..quiet() };
    Rig::new(1, 0, config).run(
        "a> CONNECT a clean v5 ka=120
         a< CONNACK 0 ka=60
         b> CONNECT b clean ka=0
         b< CONNACK 0
         +91s
         a< DISCONNECT 0x8d; CLOSED
         b<",
    );
}

#[test]
fn what_a_client_was_told_holds_for_its_connection() {
    let config = Config { max_inflight_messages: 2, max_topic_alias: 2, max_packet_size: 400, ..quiet() };
    let mut rig = Rig::new(1, 0, config.clone());
    let long = "x".repeat(300);
    rig.run("a> CONNECT a clean v5\n a< CONNACK 0");
    rig.configure(Config { max_inflight_messages: 1, max_topic_alias: 0, max_packet_size: 200, ..config });
    rig.run(&format!(
        "a> PUBLISH t {long} q2 id=1 alias=2; PUBLISH t 2 q2 id=2
         a< PUBREC 1; PUBREC 2
         a> PUBLISH t 3 q1 id=3
         a< DISCONNECT 0x93; CLOSED
         a> CONNECT a clean v5
         a< CONNACK 0"
    ));
}

#[test]
fn a_shorter_session_expiry_is_told() {
    let config = Config { max_session_expiry_s: 60, ..quiet() };
    Rig::new(1, 0, config).run("a> CONNECT a v5 expiry=100\n a< CONNACK 0 expiry=60");
}

#[test]
fn sessions_outlive_their_connection_as_asked() {
    both(
        &quiet(),
        "a> CONNECT a {5} {5:expiry=30}; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         a!
         p> CONNECT p clean {5}; PUBLISH t 1 q1 id=1
         p< CONNACK 0; PUBACK 1
         +29s
         a> CONNECT a {5} {5:expiry=30}
         a< CONNACK 0 present; PUBLISH t 1 q1 id=1
         a> DISCONNECT
         a< CLOSED
         +29s
         a> CONNECT a {5} clean
         a< CONNACK 0
         a> DISCONNECT
         a< CLOSED
         a> CONNECT a {5}
         a< CONNACK 0
         p> PUBLISH t 2 q1 id=2
         p< PUBACK 2{5: 0x10}",
    );
}

#[test]
fn an_expired_session_is_gone() {
    let mut rig = one();
    rig.run(
        "a> CONNECT a v5 expiry=30; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         a!
         +31s
         p> CONNECT p clean v5; PUBLISH t 1 q1 id=1
         p< CONNACK 0; PUBACK 1 0x10
         a> CONNECT a v5 expiry=30
         a< CONNACK 0",
    );
    assert_eq!(rig.sum(|c| c.clients_expired), 1);
    assert_eq!(rig.sum(|c| c.subscriptions), 0);
}

#[test]
fn disconnect_changes_the_expiry() {
    one().run(
        "a> CONNECT a v5 expiry=30; DISCONNECT expiry=0
         a< CONNACK 0; CLOSED
         a> CONNECT a v5 expiry=30; DISCONNECT expiry=1000
         a< CONNACK 0; CLOSED
         +999s
         a> CONNECT a v5
         a< CONNACK 0 present
         a> DISCONNECT expiry=5
         a< DISCONNECT 0x82; CLOSED",
    );
}

#[test]
fn takeover() {
    both(
        &quiet(),
        "a> CONNECT x {5} {5:expiry=30}; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         b> CONNECT x {5} {5:expiry=30}
         b< CONNACK 0 present
         a< {5:DISCONNECT 0x8e; }CLOSED
         b> PUBLISH t 1 q1 id=9
         b< PUBLISH t 1 q1 id=1; PUBACK 9
         c> CONNECT x {5} clean
         c< CONNACK 0
         b< {5:DISCONNECT 0x8e; }CLOSED
         c> PUBLISH t 1 q1 id=9
         c< PUBACK 9{5: 0x10}",
    );
    let mut rig = one();
    rig.run("a> CONNECT x v5\n a< CONNACK 0\n b> CONNECT x v5\n b< CONNACK 0\n a< DISCONNECT 0x8e; CLOSED");
    assert_eq!((rig.sum(|c| c.clients_connected), rig.sum(|c| c.clients_total)), (1, 1));
}

#[test]
fn stale_connections_are_ignored() {
    let mut rig = one();
    rig.run("a> CONNECT a clean\n a< CONNACK 0\n b> CONNECT b clean\n b< CONNACK 0");
    let old = rig.pipe("a").id;
    rig.cut("a");
    rig.run("c> CONNECT c clean\n c< CONNACK 0");
    assert_eq!(rig.pipe("c").id.index, old.index);
    let now = rig.now;
    let shard = &mut rig.shards[0];
    for conn in [old, ConnId { index: 99, generation: 0 }] {
        assert_eq!(shard.handle(now, Input::Received { conn, bytes: b"\xc0\0" }), 2);
        shard.handle(now, Input::Written { conn, bytes: 10 });
        shard.handle(now, Input::Closed { conn });
        shard
            .handle(now, Input::Authenticated { conn, verdict: Verdict::Failure(ReasonCode::NotAuthorized) });
        assert!(shard.outbox(conn).is_none());
    }
    rig.run("c> PINGREQ\n c< PINGRESP");
}

#[test]
fn shutdown_says_goodbye() {
    let mut rig = one();
    rig.run("a> CONNECT a clean v5 will=w,x\n a< CONNACK 0\n b> CONNECT b; SUBSCRIBE id=1 w\n b< CONNACK 0; SUBACK 1 0");
    rig.shut_down();
    rig.run("a< DISCONNECT 0x8b; CLOSED\n b< CLOSED");
    assert_eq!(rig.sum(|c| c.clients_connected), 0);
}

fn asking() -> Rig {
    Rig::new(
        1,
        0,
        Config {
            listeners: vec![Listener { authentication: Authentication::Ask, ..Listener::default() }],
            ..quiet()
        },
    )
}

#[test]
fn authentication_keeps_what_was_sent_behind_the_connect() {
    for v in ["", "v5"] {
        let mut rig = asking();
        rig.run(&format!("a> CONNECT a clean {v} user=u pass=p; PINGREQ; SUBSCRIBE id=1 t\n a<"));
        let ask = rig.asked.pop().unwrap();
        assert_eq!((ask.client_id.as_str(), ask.username.as_deref()), ("a", Some("u")));
        assert_eq!(ask.password.as_deref(), Some(&b"p"[..]));
        assert!(!format!("{ask:?}").contains("112"), "no password in a log");
        rig.authenticated("a", Verdict::Success { username: None, data: None });
        rig.run("a< CONNACK 0; PINGRESP; SUBACK 1 0");
    }
}

#[test]
fn authentication_fails_or_takes_too_long() {
    let mut rig = asking();
    rig.run("a> CONNECT a clean; PINGREQ\n a<\n b> CONNECT b clean v5\n b<\n c> CONNECT c clean\n c<");
    rig.authenticated("a", Verdict::Failure(ReasonCode::NotAuthorized));
    rig.authenticated("b", Verdict::Failure(ReasonCode::NotAuthorized));
    rig.run("a< CONNACK 5; CLOSED\n b< CONNACK 0x87; CLOSED\n +11s\n c< CLOSED");
    rig.authenticated("c", Verdict::Success { username: None, data: None });
    assert_eq!(rig.sum(|c| c.clients_total), 0);
}

#[test]
fn the_name_that_authentication_gives_counts_for_the_will() {
    let rule = Rule { who: Who::User("ann".into()), access: Access::Write, filter: "w".into(), line: 0 };
    let rights = Arc::new(Rights::Rules(Rules::new(None, [rule])));
    let authentication = Authentication::Ask;
    let mut rig = Rig::new(
        1,
        0,
        Config { listeners: vec![Listener { authentication, rights, ..Listener::default() }], ..quiet() },
    );
    rig.run("a> CONNECT a clean v5 user=cert will=w,x\n a<\n b> CONNECT b clean v5 user=ann will=w,x\n b<");
    rig.authenticated("a", Verdict::Success { username: Some("ann".into()), data: None });
    rig.authenticated("b", Verdict::Success { username: Some("bob".into()), data: None });
    rig.run("a< CONNACK 0\n b< CONNACK 0x87; CLOSED");
}

#[test]
fn a_session_belongs_to_its_user() {
    one().run(
        "a> CONNECT a v5 expiry=100 user=ann
         a< CONNACK 0
         b> CONNECT a v5 expiry=100 user=bob
         b< CONNACK 0x87; CLOSED
         a> PINGREQ
         a< PINGRESP",
    );
}
