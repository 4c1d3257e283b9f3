//! Classes of attacks that no other test is about.

mod common;

use common::{Rig, both, quiet};
use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use hikyaku_proto::broker::{Config, ConnId, Input, Listener, Verdict};
use hikyaku_proto::client::{self, Client};
use hikyaku_proto::codec::{
    DecodeError, EncodeError, Frame, Framer, Packet, PropertiesBuf, Property, Version,
};
use hikyaku_proto::table::HashKey;
use hikyaku_proto::time::Instant;
use hikyaku_proto::topic::{TopicFilter, TopicName, Tree, Trie};
use std::sync::Arc;

fn levels(separators: usize) -> String {
    format!("a{}", "/a".repeat(separators))
}

#[test]
fn deep_topics_and_filters_are_refused() {
    let (deepest, deeper) = (levels(200), levels(201));
    assert_eq!(Config::default().max_topic_separators, 200);
    both(
        &quiet(),
        &format!(
            "a> CONNECT a clean {{5}}; SUBSCRIBE id=1 {deepest}; PUBLISH {deepest} x
             a< CONNACK 0; SUBACK 1 0; PUBLISH {deepest} x
             a> PUBLISH {deeper} x
             a< {{5:DISCONNECT 0x81; }}CLOSED
             b> CONNECT b clean {{5}}; SUBSCRIBE id=1 {deeper}
             b< CONNACK 0; {{5:DISCONNECT 0x81; }}CLOSED
             w> CONNECT w clean {{5}} will={deeper},gone
             w< {{5:CONNACK 0x90; }}{{3:CONNACK 3; }}CLOSED"
        ),
    );
}

#[test]
fn an_alias_gives_no_right() {
    let rule = Rule { who: Who::Anonymous, access: Access::Deny, filter: "no/#".into(), line: 1 };
    let all = Rule { who: Who::Anonymous, access: Access::ReadWrite, filter: "#".into(), line: 2 };
    let rights = Rights::Rules(Rules::new(None, [rule, all]));
    let listeners = vec![Listener { rights: Arc::new(rights), ..Listener::default() }];
    Rig::new(2, 0, Config { listeners, ..quiet() }).run(
        "s> CONNECT s clean; SUBSCRIBE id=1 #
         s< CONNACK 0; SUBACK 1 0
         p> CONNECT p v5 clean; PUBLISH no/a 1 q1 id=1 alias=3; PUBLISH - 2 q1 id=2 alias=3; PUBLISH yes 3 q1 id=3 alias=3; PUBLISH - 4 q1 id=4 alias=3
         p< CONNACK 0; PUBACK 1 0x87; PUBACK 2 0x87; PUBACK 3; PUBACK 4
         s< PUBLISH yes 3; PUBLISH yes 4",
    );
}

/// What may be in a packet any number of times, by the standard.
#[test]
fn a_packet_has_as_many_user_properties_as_it_may() {
    let config = Config { max_user_properties: 2, ..quiet() };
    let mut rig = Rig::new(2, 0, config.clone());
    for (name, properties) in [("a", " up=a up=b up=c"), ("w", " will=w,x,up=a,up=b,up=c")] {
        rig.run(&format!("{name}> CONNECT {name} v5 clean{properties}\n {name}< CONNACK 0x97; CLOSED"));
    }
    rig.run("s> CONNECT s clean v5; SUBSCRIBE id=1 up=a up=b #\n s< CONNACK 0; SUBACK 1 0");
    rig.run("a> CONNECT a v5 clean up=a up=b will=w,gone,up=a,up=b\n a< CONNACK 0");
    for packet in ["SUBSCRIBE id=1 t", "UNSUBSCRIBE id=1 t", "DISCONNECT 0"] {
        // The will is sent, as after all that is not accepted.
        rig.run(&format!(
            "a> {packet} up=a up=b up=c\n a< DISCONNECT 0x97; CLOSED\n s< PUBLISH w gone up=a up=b"
        ));
        rig.run("a> CONNECT a v5 clean will=w,gone,up=a,up=b\n a< CONNACK 0");
    }
    // The alias of a message that is refused is known all the same [MQTT-3.3.2-12].
    rig.run(
        "a> PUBLISH t 1 up=a up=b up=c alias=1; PUBLISH - 2 up=a ct=x up=b alias=1; PUBLISH t 3 up=a up=b q2 id=3
         s< PUBLISH t 2 up=a ct=x up=b; PUBLISH t 3 up=a up=b
         a< PUBREC 3",
    );
    // What is known is acknowledged, whatever holds by now.
    rig.configure(Config { max_user_properties: 1, ..config });
    rig.run(
        "a> PUBLISH t 3 up=a up=b q2 id=3 dup; PUBLISH t 4 up=a up=b q2 id=4
         a< PUBREC 3; PUBREC 4 0x97
         a> PUBREL 3
         a< PUBCOMP 3",
    );
    // By default ten thousand.
    let (many, more) = ("up=a ".repeat(10_000), "up=a ".repeat(10_001));
    let mut rig = Rig::new(1, 0, quiet());
    rig.send("a", &format!("CONNECT a v5 clean; PUBLISH t x q1 id=1 {many}; PUBLISH t x q1 id=2 {more}"));
    assert_eq!(rig.news("a"), "CONNACK 0; PUBACK 1 0x10; PUBACK 2 0x97");
}

#[test]
fn half_a_packet_keeps_nobody_alive() {
    both(
        &quiet(),
        "a> CONNECT a clean {5} ka=10
         a< CONNACK 0
         +10s
         a> RAW 30 7f 00
         +4s
         a> RAW 01
         +900ms
         a<
         +200ms
         a< {5:DISCONNECT 0x8d; }CLOSED",
    );
}

#[test]
fn what_is_printed_holds_no_secrets() {
    let connect = b"\x10\x30\0\x04MQTT\x05\xc6\0\0\x0d\x15\0\x01M\x16\0\x06hidden\0\x01c\0\0\x01t\0\x06secret\0\x01u\0\x04word";
    let frame = Frame::parse(connect, 100).ok().flatten().unwrap();
    let Ok(packet @ Packet::Connect(_)) = Packet::decode(Version::V5, frame) else { panic!("no CONNECT") };
    let Packet::Connect(read) = packet else { return };
    assert_eq!(read.password, Some(&b"word"[..]));
    // Neither what it came in, nor what it is sent in.
    let conn = ConnId { index: 0, generation: 0 };
    let received = Input::Received { conn, bytes: connect };
    let mut framer = Framer::default();
    framer.next(&connect[..connect.len() - 1], 100).unwrap();
    let data = b"hidden".to_vec();
    let verdicts =
        [Verdict::Success { username: None, data: Some(data.clone()) }, Verdict::Continue { data }];
    let mut options = client::Options::new(Version::V5, "c");
    (options.username, options.password) = (Some("u".into()), Some(b"word".to_vec()));
    let mut client = Client::new(options);
    client.transport_up(Instant::ZERO);
    assert!(client.outbox().len() > 20);
    let mut buf = PropertiesBuf::default();
    buf.push(Property::AuthenticationData(b"hidden"));
    let iterated = read.properties.iter();
    let printed = format!(
        "{packet:?} {packet:#?} {frame:?} {received:?} {framer:?} {verdicts:?} {client:?} {:?} {buf:?} {iterated:?}",
        client.outbox()
    );
    assert!(printed.contains("\"u\"") && printed.contains("AuthenticationMethod(\"M\")"), "{printed}");
    for secret in ["word", "hidden", "secret"] {
        let bytes = format!("{:?}", secret.as_bytes());
        assert!(!printed.contains(&bytes) && !printed.contains(&format!("\"{secret}\"")), "{printed}");
    }
}

#[test]
fn errors_say_what_and_where_and_quote_nobody() {
    let bad = |text: &str| TopicFilter::parse(text).unwrap_err().to_string();
    assert_eq!(bad(""), "a topic has at least one character");
    assert_eq!(bad(&"x".repeat(70_000)), "a topic has at most 65535 bytes, this one has 70000");
    assert_eq!(bad("a\0b"), "the character U+0000 at byte 1");
    assert_eq!(bad("ab\x1b[31m"), "a control character, or what is no character, at byte 2");
    assert_eq!(bad("a/b#"), "'#' at byte 3 is not alone in its level");
    assert_eq!(bad("#/a"), "'#' at byte 0 is not in the last level");
    assert_eq!(bad("a+"), "'+' at byte 1 is not alone in its level");
    assert_eq!(bad("$share//a"), "the share name at byte 7 is empty");
    assert_eq!(bad("$share/a+/b"), "a wildcard in the share name at byte 8");
    assert_eq!(bad("$share/g/"), "no filter behind the share name at byte 9; write $share/NAME/FILTER");
    let name = TopicName::parse("a/+").unwrap_err().to_string();
    assert_eq!(name, "a wildcard at byte 2, where only filters may have one");
    // Not a byte of what was sent is in what is logged of it.
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let frame = Frame::parse(b"\x30\x08\0\x06ev\x1bil\n", 100).ok().flatten().unwrap();
        let error: DecodeError = Packet::decode(version, frame).unwrap_err();
        let printed = error.to_string();
        assert!(!printed.contains("ev") && !printed.chars().any(char::is_control), "{printed}");
    }
    for error in [
        EncodeError::StringTooLong,
        EncodeError::StringHasNul,
        EncodeError::StringHasControl,
        EncodeError::PacketTooLarge,
        EncodeError::PacketIdZero,
        EncodeError::ValueOutOfRange,
        EncodeError::NotInVersion,
        EncodeError::Empty,
    ] {
        assert!(!error.to_string().is_empty());
    }
}

/// Who subscribes, retains and leaves, again and again, makes nothing grow.
#[test]
fn what_comes_and_goes_makes_nothing_grow() {
    let mut subscriptions: Trie<u32> = Trie::new(HashKey::new(1));
    let mut retained: Tree<u32> = Tree::new(HashKey::new(1));
    let memory = |s: &Trie<u32>, r: &Tree<u32>| s.memory() + r.memory();
    let mut after_first = None;
    assert!(subscriptions.is_empty() && retained.is_empty());
    for round in 0..3 {
        for n in 0..2000u32 {
            let topic = format!("level-{}/of-{n}/some-length-{round}", n % 50);
            subscriptions.insert(&format!("{topic}/+"), n % 7, n);
            retained.insert(&topic, n);
        }
        let cursor = retained.cursor("#");
        let full = memory(&subscriptions, &retained);
        assert!(full > 100_000, "{full}");
        retained.close(cursor);
        (0..7).for_each(|subscriber| subscriptions.remove_subscriber(subscriber, |_, _| {}));
        for n in 0..2000u32 {
            retained.remove(&format!("level-{}/of-{n}/some-length-{round}", n % 50));
        }
        assert!(subscriptions.is_empty() && retained.is_empty());
        // Places for nodes stay, for the next who come.
        let after = memory(&subscriptions, &retained);
        assert!(after < full && after <= *after_first.get_or_insert(after), "{full} {after}");
    }
}
