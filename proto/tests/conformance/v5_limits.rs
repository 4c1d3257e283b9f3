//! MQTT 5.0, section 3.1.2.10 and 11: keep alive, and what the properties of a CONNECT ask for.

use super::v5_connect::{connack, properties};
use crate::common::script::{Script, options, published};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::Config;
use hikyaku_proto::client::{Authentication, By, Event, Options, SendError};
use hikyaku_proto::codec::*;
use std::time::Duration;

/// The packets a connection was ever sent.
fn frames(rig: &mut Rig, name: &str) -> Vec<Vec<u8>> {
    rig.settle();
    let mut rest = &rig.pipe(name).down[..];
    let mut all = Vec::new();
    while let Some(frame) = Frame::parse(rest, u32::MAX).unwrap() {
        rest = &rest[frame.raw.len()..];
        all.push(frame.raw.to_vec());
    }
    all
}

/// The aliases in the PUBLISHes a connection was ever sent.
fn aliases(rig: &mut Rig, name: &str) -> Vec<Option<u16>> {
    let alias = |raw: &Vec<u8>| {
        let frame = Frame::parse(raw, u32::MAX).unwrap().unwrap();
        match Packet::decode(Version::V5, frame).unwrap() {
            Packet::Publish(publish) => Some(publish.properties.topic_alias()),
            _ => None,
        }
    };
    frames(rig, name).iter().filter_map(alias).collect()
}

#[test]
fn mqtt5_3_1_2_20_a_silent_client_sends_pingreq_within_the_keep_alive() {
    let mut script =
        Script::connected(Options { keep_alive_s: 10, ..options(Version::V5) }, b"\x20\x03\0\0\0");
    assert_eq!(script.client.poll_timeout(), Some(script.now + Duration::from_secs(10)));
    script.wait(9);
    assert!(script.sent().is_empty());
    script.wait(1);
    assert_eq!(script.sent(), b"\xc0\0");
    script.receive(b"\xd0\0");
    // Another packet will do instead.
    script.wait(6);
    script.publish(0, "t").unwrap();
    script.receive(b"\x30\x05\0\x01t\0x");
    script.sent();
    script.wait(9);
    assert!(script.sent().is_empty());
    script.wait(1);
    assert_eq!(script.sent(), b"\xc0\0");
    let mut never = Script::connected(Options { keep_alive_s: 0, ..options(Version::V5) }, b"\x20\x03\0\0\0");
    assert_eq!(never.client.poll_timeout(), None);
    never.wait(100_000);
    assert!(never.sent().is_empty());
}

#[test]
fn mqtt5_3_1_2_21_the_client_uses_the_server_keep_alive() {
    for ours in [60, 2, 0] {
        let with = Options { keep_alive_s: ours, ..options(Version::V5) };
        let mut script = Script::connected(with, b"\x20\x06\0\0\x03\x13\0\x05");
        script.wait(4);
        assert!(script.sent().is_empty(), "{ours}");
        script.wait(1);
        assert_eq!(script.sent(), b"\xc0\0", "{ours}");
        // It holds for its connection.
        script.reconnect(b"\x20\x03\x01\0\0");
        script.wait(59);
        assert_eq!(script.sent().is_empty(), ours != 2);
    }
}

#[test]
fn mqtt5_3_1_2_22_a_client_silent_for_one_and_a_half_keep_alives_is_closed() {
    one().run(
        "w> CONNECT w clean v5; SUBSCRIBE id=1 will
         w< CONNACK 0; SUBACK 1 0
         a> CONNECT a v5 expiry=100 ka=10 will=will,bye
         a< CONNACK 0
         +14900ms
         a> PINGREQ
         a< PINGRESP
         +14900ms
         a> PUBLISH t x
         a<
         +14900ms
         a> RAW 30
         a<
         +200ms
         a< DISCONNECT 0x8d; CLOSED
         w< PUBLISH will bye
         a> CONNECT a v5 ka=0
         a< CONNACK 0 present
         +99999s
         a> PINGREQ
         a< PINGRESP",
    );
}

#[test]
fn mqtt5_3_1_2_23_session_state_is_kept_for_the_expiry_interval() {
    one().run(
        "a> CONNECT a v5 expiry=30; SUBSCRIBE id=1 t:1
         a< CONNACK 0; SUBACK 1 1
         a!
         p> CONNECT p clean v5; PUBLISH t x q1 id=1
         p< CONNACK 0; PUBACK 1
         +29s
         a> CONNECT a v5 expiry=30
         a< CONNACK 0 present; PUBLISH t x q1 id=1
         a> DISCONNECT
         a< CLOSED
         +31s
         a> CONNECT a v5 expiry=0xffffffff
         a< CONNACK 0
         a!
         +99999999s
         a> CONNECT a v5 expiry=0
         a< CONNACK 0 present
         a!
         a> CONNECT a v5
         a< CONNACK 0",
    );
    // The client keeps what is not finished, and what it has received at QoS 2.
    let mut script = Script::v5();
    let one = script.publish(1, "t").unwrap();
    let two = script.publish(2, "u").unwrap();
    script.sent();
    script.receive(b"\x34\x06\0\x01v\0\x09\0");
    script.receive(b"\x50\x02\0\x02");
    script.events();
    script.reconnect(b"\x20\x03\x01\0\0");
    assert_eq!(script.sent(), b"\x3a\x07\0\x01t\0\x01\0x\x62\x02\0\x02");
    script.receive(b"\x62\x02\0\x09\x40\x02\0\x01\x70\x02\0\x02");
    assert_eq!(script.sent(), b"\x70\x02\0\x09");
    assert_eq!(published(&script.events()), [(one, ReasonCode::Success), (two, ReasonCode::Success)]);
}

#[test]
fn mqtt5_3_1_2_24_no_packet_is_larger_than_the_client_takes() {
    let mut rig = one();
    rig.run(
        "s> CONNECT s clean v5 mps=30 tam=10; SUBSCRIBE id=1 t:1; SUBSCRIBE id=2 sid=300 long
         s< CONNACK 0; SUBACK 1 1; SUBACK 2 0
         p> CONNECT p clean v5; PUBLISH t size=24; PUBLISH t size=25; PUBLISH t size=22 q1 id=1; PUBLISH t size=23 q1 id=2
         p< CONNACK 0; PUBACK 1; PUBACK 2
         s< PUBLISH t xxxxxxxxxxxxxxxxxxxxxxxx; PUBLISH t xxxxxxxxxxxxxxxxxxxxxx q1 id=1
         p> PUBLISH t exp=9 size=19; PUBLISH t exp=9 size=20; PUBLISH t up=k:v size=17; PUBLISH t up=k:v size=18
         s< PUBLISH t xxxxxxxxxxxxxxxxxxx exp=9; PUBLISH t xxxxxxxxxxxxxxxxx up=k:v
         p> PUBLISH long size=15; PUBLISH long size=16; PUBLISH long size=17; PUBLISH long size=18; PUBLISH long size=19
         s< PUBLISH long xxxxxxxxxxxxxxx alias=1 sid=300; PUBLISH long xxxxxxxxxxxxxxxx sid=300; \
            PUBLISH long xxxxxxxxxxxxxxxxx sid=300; PUBLISH long xxxxxxxxxxxxxxxxxx sid=300
         p> PUBLISH kept/a r size=50; PUBLISH kept/b small r
         s> SUBSCRIBE id=3 kept/+
         s< SUBACK 3 0; PUBLISH kept/b small r alias=2",
    );
    assert_eq!(frames(&mut rig, "s").iter().map(Vec::len).max(), Some(30));
    // Answers that would be larger end the connection.
    let filters = " t".repeat(30);
    for packet in [format!("SUBSCRIBE id=1{filters}"), format!("UNSUBSCRIBE id=1{filters}")] {
        one().run(&format!(
            "s> CONNECT s clean v5 mps=30; {packet}
             s< CONNACK 0; DISCONNECT 0x95; CLOSED"
        ));
    }
    // And a CONNACK: the client is not let in, and its will not published.
    for (most, told) in
        [(15, "CONNACK 0x95; CLOSED"), (5, "CONNACK 0x95; CLOSED"), (4, "CLOSED"), (1, "CLOSED")]
    {
        let mut rig = one();
        rig.run(&format!(
            "w> CONNECT w clean v5; SUBSCRIBE id=1 will
             w< CONNACK 0; SUBACK 1 0
             a> CONNECT a clean v5 mps={most} will=will,x; PINGREQ
             a< {told}
             w<"
        ));
        assert_eq!(rig.sum(|c| c.clients_connected), 1);
    }
    one().run("a> CONNECT a clean v5 mps=16\n a< CONNACK 0");
    // The client leaves a server that sends a larger one, as soon as its length is known.
    let with = Options { max_packet_size: 20, ..options(Version::V5) };
    let mut script = Script::new(with);
    assert!(script.sent().windows(5).any(|w| w == b"\x27\0\0\0\x14"));
    script.receive(b"\x20\x03\0\0\0\x30\x12\0\x01t\0xxxxxxxxxxxxxx");
    assert!(script.client.is_connected());
    script.events();
    script.receive(b"\x30\x13");
    script.assert_failed(ReasonCode::PacketTooLarge);
}

#[test]
fn mqtt5_3_1_2_25_a_message_too_large_counts_as_sent() {
    let mut rig = one();
    rig.run(
        "s> CONNECT s v5 expiry=100 mps=40 rm=1; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         o> CONNECT o clean v5; SUBSCRIBE id=1 t
         o< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean v5; PUBLISH t size=50 q1 id=1; PUBLISH t size=50 q2 id=2; PUBLISH t size=50; PUBLISH t 1 q1 id=3
         p< CONNACK 0; PUBACK 1; PUBREC 2; PUBACK 3
         o< PUBLISH t size=50; PUBLISH t size=50; PUBLISH t size=50; PUBLISH t 1
         s< PUBLISH t 1 q1 id=3
         s!
         p> PUBLISH t size=50 q2 id=4; PUBLISH t 2 q1 id=5
         p< PUBREC 4; PUBACK 5
         o< PUBLISH t size=50; PUBLISH t 2
         s> CONNECT s v5 expiry=100 mps=40 rm=1
         s< CONNACK 0 present; PUBLISH t 1 q1 id=3 dup
         s> PUBACK 3
         s< PUBLISH t 2 q1 id=5
         s> PUBACK 5
         s!
         s> CONNECT s v5
         s< CONNACK 0 present
         p> PUBLISH t size=50 q1 id=6
         p< PUBACK 6
         s< PUBLISH t size=50 q1 id=6
         o< PUBLISH t size=50",
    );
    assert_eq!(rig.sum(|c| c.publish_dropped), 4);
}

#[test]
fn mqtt5_3_1_2_26_no_alias_is_above_the_maximum_of_the_client() {
    for (most, expected) in
        [(1, vec![1, 0, 0, 0, 1]), (2, vec![1, 2, 0, 0, 1]), (65_535, vec![1, 2, 3, 4, 1])]
    {
        let mut rig = one();
        rig.run(&format!("s> CONNECT s clean v5 tam={most}; SUBSCRIBE id=1 #\n s< CONNACK 0; SUBACK 1 0"));
        rig.send("p", "CONNECT p clean v5; PUBLISH t/a; PUBLISH t/b; PUBLISH t/c; PUBLISH t/d; PUBLISH t/a");
        rig.settle();
        let got: Vec<_> = aliases(&mut rig, "s").into_iter().map(Option::unwrap_or_default).collect();
        assert_eq!(got, expected);
    }
    // The client leaves a server that uses a higher one.
    for most in [0, 1, 9] {
        let with = Options { topic_alias_maximum: most, ..options(Version::V5) };
        let mut script = Script::connected(with, b"\x20\x03\0\0\0");
        script.receive(&[0x30, 7, 0, 1, b't', 3, 0x23, 0, most as u8 + 1]);
        script.assert_failed(ReasonCode::TopicAliasInvalid);
    }
}

#[test]
fn mqtt5_3_1_2_27_a_client_that_takes_no_aliases_gets_none() {
    for asks in ["", "tam=0"] {
        let mut rig = one();
        rig.run(&format!("s> CONNECT s clean v5 {asks}; SUBSCRIBE id=1 #\n s< CONNACK 0; SUBACK 1 0"));
        rig.send(
            "p",
            "CONNECT p clean v5; PUBLISH t/a 1 alias=1; PUBLISH - 2 alias=1; PUBLISH t/a 3 q1 id=1",
        );
        rig.settle();
        assert_eq!(aliases(&mut rig, "s"), [None; 3]);
        rig.run("s< PUBLISH t/a 1; PUBLISH t/a 2; PUBLISH t/a 3\n p< CONNACK 0; PUBACK 1");
    }
}

#[test]
fn mqtt5_3_1_2_28_response_information_is_not_returned_unasked() {
    for asks in ["", "rri=0"] {
        let mut rig = one();
        rig.run(&format!("a> CONNECT a clean v5 {asks}\n a< CONNACK 0"));
        let connack = connack(&mut rig, "a");
        assert_eq!(properties(&connack).response_information(), None);
    }
    let asks = |on| Options { request_response_information: on, ..options(Version::V5) };
    let wants = |sent: Vec<u8>| sent.windows(2).any(|w| w == b"\x19\x01");
    assert!(wants(Script::new(asks(true)).sent()) && !wants(Script::new(asks(false)).sent()));
}

#[test]
fn mqtt5_3_1_2_29_without_request_problem_information_there_is_none() {
    // Every answer that says that something is wrong: scripts show all properties of answers.
    let config = Config { max_subscriptions: 1, ..quiet() };
    Rig::new(1, 0, config).run(
        "a> CONNECT a clean v5 rpi=0 up=k:v; SUBSCRIBE id=1 t:2 u; UNSUBSCRIBE id=2 x
         a< CONNACK 0; SUBACK 1 2 0x97; UNSUBACK 2 0x11
         a> PUBLISH n x q1 id=1; PUBLISH $SYS/x x q1 id=3; PUBLISH $SYS/x x q2 id=4
         a< PUBACK 1 0x10; PUBACK 3 0x87; PUBREC 4 0x87
         a> PUBLISH t x up=k:v
         a< PUBLISH t x up=k:v
         a> RAW c1 00
         a< DISCONNECT 0x81; CLOSED
         b> CONNECT b v5 rpi=0 method=M
         b< CONNACK 0x8c; CLOSED",
    );
    // A client that asks for none leaves a server that sends some, but on PUBLISH, CONNACK and DISCONNECT.
    let with = Options { request_problem_information: false, ..options(Version::V5) };
    for (packet, fails) in [
        (&b"\x40\x08\0\x01\0\x04\x1f\0\x01x"[..], true),
        (b"\x50\x0b\0\x01\0\x07\x26\0\x01k\0\x01v", true),
        (b"\x62\x08\0\x01\0\x04\x1f\0\x01x", true),
        (b"\x70\x08\0\x01\0\x04\x1f\0\x01x", true),
        (b"\x90\x08\0\x01\x04\x1f\0\x01x\0", true),
        (b"\xb0\x08\0\x01\x04\x1f\0\x01x\0", true),
        (b"\x30\x0b\0\x01t\x07\x26\0\x01k\0\x01v", false),
    ] {
        let mut script = Script::new(with.clone());
        assert!(script.sent().windows(2).any(|w| w == b"\x17\0"));
        script.receive(b"\x20\x0a\0\0\x07\x26\0\x01k\0\x01v");
        assert!(script.client.is_connected());
        script.events();
        script.receive(packet);
        if fails {
            script.assert_failed(ReasonCode::ProtocolError);
        } else {
            script.receive(b"\xe0\x06\x8b\x04\x1f\0\x01x");
            assert_eq!(script.disconnected(), By::Peer(ReasonCode::ServerShuttingDown));
        }
        let mut asks = Script::v5();
        asks.receive(packet);
        assert!(asks.client.is_connected());
    }
}

#[test]
fn mqtt5_3_1_2_30_during_authentication_the_client_sends_auth_and_disconnect_only() {
    let authentication = Authentication { method: "M".into(), data: None };
    let with = Options { authentication: Some(authentication), keep_alive_s: 1, ..options(Version::V5) };
    let mut script = Script::new(with.clone());
    assert_eq!(script.sent()[0], 0x10);
    let tries = |script: &mut Script| {
        script.publish(1, "t").unwrap();
        assert_eq!(script.publish(0, "t"), Err(SendError::NotConnected));
        let filter = [("t", SubscribeOptions::default())];
        let none = Properties::EMPTY;
        assert_eq!(script.client.subscribe(script.now, &filter, none), Err(SendError::NotConnected));
        assert_eq!(script.client.unsubscribe(script.now, &["t"], none), Err(SendError::NotConnected));
        script.wait(5);
        assert!(script.sent().is_empty());
    };
    tries(&mut script);
    assert_eq!(script.client.authenticate(script.now, b"2"), Err(SendError::NotAuthenticating));
    script.receive(b"\xf0\x06\x18\x04\x15\0\x01M");
    assert!(matches!(script.events()[..], [Event::Auth { reason: ReasonCode::ContinueAuthentication, .. }]));
    tries(&mut script);
    script.client.authenticate(script.now, b"2").unwrap();
    assert_eq!(script.sent(), b"\xf0\x0a\x18\x08\x15\0\x01M\x16\0\x012");
    tries(&mut script);
    script.receive(b"\x20\x07\0\0\x04\x15\0\x01M");
    assert_eq!(script.sent(), b"\x32\x07\0\x01t\0\x01\0x\x32\x07\0\x01t\0\x02\0x\x32\x07\0\x01t\0\x03\0x");
    let mut leaves = Script::new(with);
    leaves.sent();
    leaves.client.disconnect(leaves.now, ReasonCode::Success, Properties::EMPTY).unwrap();
    assert_eq!(leaves.sent(), b"\xe0\0");
}
