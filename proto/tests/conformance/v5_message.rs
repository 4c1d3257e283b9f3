//! MQTT 5.0, section 3.3.2: topic names and properties of PUBLISH.

use super::v5_packets::{client_refuses, refused};
use crate::common::script::{Script, messages, options};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::{Config, Listener};
use hikyaku_proto::client::{PublishRequest, SendError};
use hikyaku_proto::codec::*;

/// Whichever way a message goes, these properties come with it as they were: to subscribers that are there, away and
/// yet to come, that share, or that speak 3.1.1; from one shard to another; as a will.
fn travels(properties: &str) {
    for shards in [1, 3] {
        let will = properties.replace(' ', ",");
        Rig::new(shards, 0, quiet()).run(&format!(
            "s> CONNECT s clean v5; SUBSCRIBE id=1 t
             s< CONNACK 0; SUBACK 1 0
             g> CONNECT g clean v5; SUBSCRIBE id=1 $share/g/t:1
             g< CONNACK 0; SUBACK 1 1
             o> CONNECT o v5 expiry=100; SUBSCRIBE id=1 t:1
             o< CONNACK 0; SUBACK 1 1
             o!
             x> CONNECT x clean; SUBSCRIBE id=1 t
             x< CONNACK 0; SUBACK 1 0
             p> CONNECT p clean v5; PUBLISH t/none x r; PUBLISH t x r q1 id=1 {properties}
             p< CONNACK 0; PUBACK 1
             s< PUBLISH t x {properties}
             g< PUBLISH t x q1 id=1 {properties}
             x< PUBLISH t x
             o> CONNECT o v5 expiry=100
             o< CONNACK 0 present; PUBLISH t x q1 id=1 {properties}
             r> CONNECT late clean v5; SUBSCRIBE id=1 t
             r< CONNACK 0; SUBACK 1 0; PUBLISH t x r {properties}
             r> SUBSCRIBE id=2 t/+
             r< SUBACK 2 0; PUBLISH t/none x r
             w> CONNECT w clean v5 will=t,bye,{will}
             w< CONNACK 0
             w!
             s< PUBLISH t bye {properties}
             g< PUBLISH t bye {properties}
             o< PUBLISH t bye {properties}
             r< PUBLISH t bye {properties}
             x< PUBLISH t bye"
        ));
    }
}

/// The properties of a message that the client received, and of what it sends with them.
fn through_the_client(properties: &[Property<'_>]) {
    let mut buf = PropertiesBuf::default();
    buf.extend(properties.iter().copied());
    let raw = buf.as_properties().raw();
    let body = [b"\0\x01t", &[raw.len() as u8][..], raw, b"x"].concat();
    let packet = [&[0x30, body.len() as u8], &body[..]].concat();
    let mut script = Script::v5();
    script.receive(&packet);
    let got = messages(script.events()).remove(0);
    assert_eq!(got.properties().iter().collect::<Vec<_>>(), properties);
    let with = buf.as_properties();
    let request = PublishRequest { topic: "t", payload: b"x", properties: with, ..Default::default() };
    script.client.publish(script.now, &request).unwrap();
    assert_eq!(script.sent(), packet);
}

/// What the client says to a message with these properties that it is to publish.
fn the_client_refuses(property: Property<'_>) {
    let mut script = Script::v5();
    let mut properties = PropertiesBuf::default();
    properties.push(property);
    let request = PublishRequest { topic: "t", properties: properties.as_properties(), ..Default::default() };
    let result = script.client.publish(script.now, &request);
    assert!(matches!(result, Err(SendError::InvalidProperties(_))), "{property:?}: {result:?}");
    assert!(script.sent().is_empty());
}

#[test]
fn mqtt5_3_3_2_1_the_topic_name_is_the_first_field_and_utf8() {
    refused("30 05 00 02 c3 28 00", "0x81");
    refused("30 04 00 05 74 00", "0x81");
    refused("30 01 00", "0x81");
    refused("30 00", "0x81");
    client_refuses(b"\x30\x05\0\x02\xc3\x28\0", ReasonCode::MalformedPacket);
    client_refuses(b"\x30\0", ReasonCode::MalformedPacket);
    one().run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 +/日
         s< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean v5; PUBLISH é/日 x; RAW 30 08 00 05 61 2f e6 97 a5 00
         p< CONNACK 0
         s< PUBLISH é/日 x; PUBLISH a/日",
    );
    let mut script = Script::v5();
    script.publish(0, "é").unwrap();
    assert_eq!(script.sent(), b"\x30\x06\0\x02\xc3\xa9\0x");
}

#[test]
fn mqtt5_3_3_2_2_a_topic_name_has_no_wildcards() {
    for topic in ["2b", "23"] {
        refused(&format!("30 04 00 01 {topic} 00"), "0x81");
        refused(&format!("30 06 00 03 61 2f {topic} 00"), "0x81");
        refused(&format!("30 07 00 01 {topic} 03 23 00 01"), "0x81");
        refused(&format!("32 08 00 03 61 {topic} 62 00 01 00"), "0x81");
    }
    client_refuses(b"\x30\x04\0\x01#\0", ReasonCode::MalformedPacket);
    client_refuses(b"\x30\x06\0\x03a/+\0", ReasonCode::MalformedPacket);
    for topic in ["#", "+", "a/+", "a/#", "a+b"] {
        let mut script = Script::v5();
        assert!(matches!(script.publish(0, topic), Err(SendError::InvalidTopic(_))));
        assert!(matches!(script.publish(1, topic), Err(SendError::InvalidTopic(_))));
        assert!(script.sent().is_empty());
    }
}

#[test]
fn mqtt5_3_3_2_3_the_topic_name_matches_the_filter_of_the_subscription() {
    let topics = ["a", "a/", "/a", "a/b", "a/b/c", "A", "$x", "$x/b", "b/b", "ab"];
    for (filter, matching) in [
        ("a", &["a"][..]),
        ("a/+", &["a/", "a/b"]),
        ("a/#", &["a", "a/", "a/b", "a/b/c"]),
        ("+/b", &["a/b", "b/b"]),
        ("+", &["a", "A", "ab"]),
        ("/+", &["/a"]),
        ("$x/#", &["$x", "$x/b"]),
        ("#", &["a", "a/", "/a", "a/b", "a/b/c", "A", "b/b", "ab"]),
    ] {
        let mut rig = one();
        rig.run(&format!(
            "s> CONNECT s clean v5 tam=2; SUBSCRIBE id=1 {filter}; SUBSCRIBE id=2 {filter}
             s< CONNACK 0; SUBACK 1 0; SUBACK 2 0
             m> CONNECT m clean v5; SUBSCRIBE id=1 $share/g/{filter}
             m< CONNACK 0; SUBACK 1 0"
        ));
        rig.pipe("s").version = Version::V5;
        for topic in topics {
            rig.send("p", if topic == "a" { "CONNECT p clean v5; PUBLISH a x r" } else { "" });
            rig.send("p", &if topic == "a" { String::new() } else { format!("PUBLISH {topic} x r") });
        }
        let expected: Vec<_> = matching.iter().map(|topic| format!("PUBLISH {topic} x")).collect();
        assert_eq!(rig.news("m"), expected.join("; "), "{filter}");
        assert_eq!(rig.news("s").split("; ").count(), matching.len());
        rig.send("r", &format!("CONNECT late clean v5; SUBSCRIBE id=1 {filter}"));
        let mut retained: Vec<_> = rig.news("r").split("; ").skip(2).map(str::to_owned).collect();
        let mut expected: Vec<_> = expected.iter().map(|text| format!("{text} r")).collect();
        retained.sort();
        expected.sort();
        assert_eq!(retained, expected);
    }
    // A mount point is neither in the filter nor in the topic that its client sees.
    let listener = Listener { mount_point: Some("m/".into()), ..Listener::default() };
    Rig::new(1, 0, Config { listeners: vec![listener], ..quiet() }).run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 +/b; SUBSCRIBE id=2 #
         s< CONNACK 0; SUBACK 1 0; SUBACK 2 0
         s> PUBLISH a/b x; PUBLISH y z
         s< PUBLISH a/b x; PUBLISH y z",
    );
}

#[test]
fn mqtt5_3_3_2_4_the_payload_format_indicator_is_passed_on() {
    travels("pfi=0");
    travels("pfi=1");
    through_the_client(&[Property::PayloadFormatIndicator(1)]);
    refused("30 07 00 01 74 02 01 02 78", "0x82");
    client_refuses(b"\x30\x07\0\x01t\x02\x01\x02x", ReasonCode::ProtocolError);
    the_client_refuses(Property::PayloadFormatIndicator(2));
}

#[test]
fn mqtt5_3_3_2_5_what_expires_before_it_is_delivered_is_deleted() {
    let mut rig = one();
    rig.run(
        "s> CONNECT s v5 expiry=1000 rm=1; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         o> CONNECT o clean v5; SUBSCRIBE id=1 t:1
         o< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t first q1 id=1 exp=10; PUBLISH t gone q1 id=2 exp=10; PUBLISH t stays q1 id=3 exp=100
         p< CONNACK 0; PUBACK 1; PUBACK 2; PUBACK 3
         s< PUBLISH t first q1 id=1 exp=10
         o< PUBLISH t first q1 id=1 exp=10; PUBLISH t gone q1 id=2 exp=10; PUBLISH t stays q1 id=3 exp=100
         +10s
",
    );
    rig.send("s", "PUBACK 1");
    let news = rig.news("s");
    assert!(news.starts_with("PUBLISH t stays q1 id=") && news.ends_with(" exp=90"), "{news}");
    assert_eq!(rig.sum(|c| c.publish_dropped), 1);
    let mut rig = one();
    rig.run(
        "s> CONNECT s v5 expiry=1000 rm=1; SUBSCRIBE id=1 t:2
         s< CONNACK 0; SUBACK 1 2
         s!
         p> CONNECT p clean v5; PUBLISH t away q2 id=4 exp=5; PUBLISH kept x r exp=5
         p< CONNACK 0; PUBREC 4
         +5s
         s> CONNECT s v5 expiry=1000 rm=1; SUBSCRIBE id=2 kept
         s< CONNACK 0 present; SUBACK 2 0",
    );
    assert_eq!(rig.sum(|c| c.publish_dropped), 1);
    // Delivery that has begun goes on.
    one().run(
        "s> CONNECT s v5 expiry=1000; SUBSCRIBE id=1 t:1
         s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t x q1 id=1 exp=5
         p< CONNACK 0; PUBACK 1
         s< PUBLISH t x q1 id=1 exp=5
         s!
         +9s
         s> CONNECT s v5
         s< CONNACK 0 present; PUBLISH t x q1 id=1 dup exp=0",
    );
}

#[test]
fn mqtt5_3_3_2_6_the_message_expiry_interval_counts_down() {
    for shards in [1, 3] {
        Rig::new(shards, 0, quiet()).run(
            "s> CONNECT s v5 expiry=1000; SUBSCRIBE id=1 t:1
             s< CONNACK 0; SUBACK 1 1
             l> CONNECT l clean v5; SUBSCRIBE id=1 t
             l< CONNACK 0; SUBACK 1 0
             s!
             w> CONNECT w v5 expiry=1000 will=t,will,delay20,exp50
             w< CONNACK 0
             p> CONNECT p clean v5; PUBLISH t a q1 id=1 exp=100 r; PUBLISH t b q1 id=2
             p< CONNACK 0; PUBACK 1; PUBACK 2
             l< PUBLISH t a exp=100; PUBLISH t b
             w!
             +30s
             l< PUBLISH t will exp=50
             s> CONNECT s v5 expiry=1000
             s< CONNACK 0 present; PUBLISH t a q1 id=1 exp=70; PUBLISH t b q1 id=2
             r> CONNECT late clean v5; SUBSCRIBE id=1 t
             r< CONNACK 0; SUBACK 1 0; PUBLISH t a r exp=70
             +69s
             r> SUBSCRIBE id=2 t
             r< SUBACK 2 0; PUBLISH t a r exp=1",
        );
    }
}

#[test]
fn mqtt5_3_3_2_7_topic_aliases_end_with_their_connection() {
    one().run(
        "p> CONNECT p v5 expiry=100; PUBLISH t/a 1 alias=3; PUBLISH - 2 alias=3
         p< CONNACK 0
         p!
         p> CONNECT p v5 expiry=100; PUBLISH - 3 alias=3
         p< CONNACK 0 present; DISCONNECT 0x82; CLOSED
         q> CONNECT q v5; PUBLISH - 3 alias=3
         q< CONNACK 0; DISCONNECT 0x82; CLOSED",
    );
    one().run(
        "s> CONNECT s v5 expiry=100 tam=2; SUBSCRIBE id=1 #:1
         s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t/a 1 q1 id=1; PUBLISH t/a 2
         p< CONNACK 0; PUBACK 1
         s< PUBLISH t/a 1 q1 id=1 alias=1; PUBLISH - 2 alias=1
         s!
         s> CONNECT s v5 expiry=100 tam=2
         s< CONNACK 0 present; PUBLISH t/a 1 q1 id=1 dup alias=1
         p> PUBLISH t/a 3
         s< PUBLISH - 3 alias=1
         s!
         s> CONNECT s v5
         s< CONNACK 0 present; PUBLISH t/a 1 q1 id=1 dup",
    );
    let connack = b"\x20\x06\0\0\x03\x22\0\x02";
    let mut script = Script::connected(options(Version::V5), connack);
    script.publish(0, "abc").unwrap();
    assert_eq!(script.sent(), b"\x30\x0a\0\x03abc\x03\x23\0\x01x");
    script.receive(b"\x30\x08\0\x01t\x03\x23\0\x03x\x30\x07\0\0\x03\x23\0\x03x");
    assert_eq!(messages(script.events())[1].topic(), "t");
    script.reconnect(b"\x20\x06\x01\0\x03\x22\0\x02");
    script.publish(0, "abc").unwrap();
    assert_eq!(script.sent(), b"\x30\x0a\0\x03abc\x03\x23\0\x01x");
    script.events();
    script.receive(b"\x30\x07\0\0\x03\x23\0\x03x");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn mqtt5_3_3_2_8_topic_alias_0_is_refused_and_never_sent() {
    refused("30 07 00 01 74 03 23 00 00", "0x94");
    refused("30 06 00 00 03 23 00 00", "0x94");
    client_refuses(b"\x30\x07\0\x01t\x03\x23\0\0", ReasonCode::TopicAliasInvalid);
    the_client_refuses(Property::TopicAlias(0));
    // The first alias of both sides is 1: see [MQTT-3.3.2-7].
}

#[test]
fn mqtt5_3_3_2_9_the_client_keeps_to_the_topic_alias_maximum_of_the_broker() {
    let mut script = Script::connected(options(Version::V5), b"\x20\x06\0\0\x03\x22\0\x02");
    for topic in ["abc", "def", "ghi", "abc", "ghi"] {
        script.publish(0, topic).unwrap();
    }
    assert_eq!(
        script.sent(),
        b"\x30\x0a\0\x03abc\x03\x23\0\x01x\x30\x0a\0\x03def\x03\x23\0\x02x\x30\x07\0\x03ghi\0x\
          \x30\x07\0\0\x03\x23\0\x01x\x30\x07\0\x03ghi\0x"
    );
    the_client_refuses(Property::TopicAlias(1));
    one().run("a> CONNECT a v5; PUBLISH t x alias=11\n a< CONNACK 0; DISCONNECT 0x94; CLOSED");
    Rig::new(1, 0, Config { max_topic_alias: 0, ..quiet() })
        .run("a> CONNECT a v5; PUBLISH t x alias=1\n a< CONNACK 0; DISCONNECT 0x94; CLOSED");
}

#[test]
fn mqtt5_3_3_2_10_the_client_takes_all_aliases_up_to_its_maximum() {
    let mut script = Script::v5();
    let most = script.client.options().topic_alias_maximum as u8;
    assert_eq!(most, 10);
    for alias in (1..=most).rev() {
        script.receive(&[0x30, 7, 0, 1, b'a' + alias, 3, 0x23, 0, alias]);
    }
    for alias in 1..=most {
        script.receive(&[0x30, 6, 0, 0, 3, 0x23, 0, alias]);
    }
    script.receive(b"\x30\x07\0\x01z\x03\x23\0\x01\x30\x06\0\0\x03\x23\0\x01");
    let topics: String = messages(script.events()).iter().map(|m| m.topic().to_owned()).collect();
    assert_eq!(topics, "kjihgfedcbbcdefghijkzz");
    script.receive(b"\x30\x07\0\x01t\x03\x23\0\x0b");
    script.assert_failed(ReasonCode::TopicAliasInvalid);
}

#[test]
fn mqtt5_3_3_2_11_the_broker_keeps_to_the_topic_alias_maximum_of_the_client() {
    one().run(
        "s> CONNECT s v5 expiry=100 tam=2; SUBSCRIBE id=1 #:1
         s< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t/a 1; PUBLISH t/b 2 r; PUBLISH t/c 3 q1 id=1; PUBLISH t/b 4; PUBLISH t/c 5
         p< CONNACK 0; PUBACK 1
         s< PUBLISH t/a 1 alias=1; PUBLISH t/b 2 alias=2; PUBLISH t/c 3 q1 id=1; PUBLISH - 4 alias=2; PUBLISH t/c 5
         s> SUBSCRIBE id=2 t/b
         s< SUBACK 2 0; PUBLISH - 2 r alias=2
         s> PUBACK 1
         s!
         s> CONNECT s v5 tam=1
         s< CONNACK 0 present
         p> PUBLISH t/b 6; PUBLISH t/a 7
         s< PUBLISH t/b 6 alias=1; PUBLISH t/a 7",
    );
}

#[test]
fn mqtt5_3_3_2_12_the_broker_takes_all_aliases_up_to_its_maximum() {
    let mut rig = one();
    rig.run("s> CONNECT s clean v5; SUBSCRIBE id=1 #\n s< CONNACK 0; SUBACK 1 0\n p> CONNECT p clean v5\n p< CONNACK 0");
    let range = 1..=10;
    range.clone().rev().for_each(|n| rig.send("p", &format!("PUBLISH t/{n} set alias={n}")));
    range.clone().for_each(|n| rig.send("p", &format!("PUBLISH - used alias={n}")));
    let set = range.clone().rev().map(|n| format!("PUBLISH t/{n} set"));
    let used = range.map(|n| format!("PUBLISH t/{n} used"));
    assert_eq!(rig.news("s"), set.chain(used).collect::<Vec<_>>().join("; "));
    rig.run(
        "p> PUBLISH t/new set alias=3; PUBLISH - used alias=3 q1 id=1
         s< PUBLISH t/new set; PUBLISH t/new used
         p< PUBACK 1
         p> PUBLISH t x alias=11
         p< DISCONNECT 0x94; CLOSED",
    );
}

#[test]
fn mqtt5_3_3_2_13_a_response_topic_that_is_no_utf8_is_malformed() {
    for topic in ["ff", "c3 28", "ed a0 80", "61 00"] {
        let length = topic.len().div_ceil(3);
        refused(
            &format!("30 {:02x} 00 01 74 {:02x} 08 00 {length:02x} {topic}", 7 + length, 3 + length),
            "0x81",
        );
    }
    client_refuses(b"\x30\x08\0\x01t\x04\x08\0\x01\xff", ReasonCode::MalformedPacket);
    let mut properties = PropertiesBuf::default();
    assert!(properties.try_push(Property::ResponseTopic("a\0")).is_err());
    travels("rt=é/日");
}

#[test]
fn mqtt5_3_3_2_14_a_response_topic_has_no_wildcards() {
    for topic in ["2b 61 61", "61 2f 23", "61 2b 61"] {
        refused(&format!("30 0a 00 01 74 06 08 00 03 {topic}"), "0x82");
    }
    one().run("a> CONNECT a v5 will=w,x,rt=a/+\n a< CONNACK 0x82; CLOSED");
    client_refuses(b"\x30\x08\0\x01t\x04\x08\0\x01#", ReasonCode::ProtocolError);
    the_client_refuses(Property::ResponseTopic("a/#"));
    the_client_refuses(Property::ResponseTopic("+"));
}

#[test]
fn mqtt5_3_3_2_15_the_response_topic_is_passed_on() {
    travels("rt=answers/to/me");
    through_the_client(&[Property::ResponseTopic("answers/to/me")]);
    // Also where topics have a mount point.
    let listener = Listener { mount_point: Some("m/".into()), ..Listener::default() };
    Rig::new(1, 0, Config { listeners: vec![listener], ..quiet() }).run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 t
         s< CONNACK 0; SUBACK 1 0
         s> PUBLISH t x rt=answers/to/me
         s< PUBLISH t x rt=answers/to/me",
    );
}

#[test]
fn mqtt5_3_3_2_16_correlation_data_is_passed_on() {
    travels("cd=data");
    through_the_client(&[Property::CorrelationData(b"\0\xff\0\x80")]);
    through_the_client(&[Property::CorrelationData(b"")]);
    // Any bytes.
    let mut rig = one();
    rig.run("s> CONNECT s clean v5; SUBSCRIBE id=1 t\n s< CONNACK 0; SUBACK 1 0");
    rig.pipe("s").down.clear();
    rig.send("s", "RAW 30 0c 00 01 74 07 09 00 04 00 ff 00 80 78");
    rig.news("s");
    assert_eq!(rig.pipe("s").down, b"\x30\x0c\0\x01t\x07\x09\0\x04\0\xff\0\x80x");
}

#[test]
fn mqtt5_3_3_2_17_user_properties_are_passed_on() {
    travels("up=k:v");
    travels("up=a:1 up=b:2 up=c:3 up=é:日");
    through_the_client(&[Property::UserProperty("k", "v"), Property::UserProperty("", "")]);
    one().run(
        "s> CONNECT s clean v5 rpi=0; SUBSCRIBE id=1 t
         s< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean v5; PUBLISH t x up=k:v
         p< CONNACK 0
         s< PUBLISH t x up=k:v",
    );
}

#[test]
fn mqtt5_3_3_2_18_user_properties_keep_their_order() {
    travels("up=b:1 up=a:2 up=b:1 up=a:1 up=b:0");
    travels("up=b:1 ct=text up=a:2 pfi=1 up=b:0");
    let up = Property::UserProperty;
    through_the_client(&[up("b", "1"), up("a", "2"), up("b", "1"), up("a", "1")]);
}

#[test]
fn mqtt5_3_3_2_19_a_content_type_that_is_no_utf8_is_malformed() {
    for text in ["ff", "c3 28", "ed a0 80", "61 00"] {
        let length = text.len().div_ceil(3);
        refused(
            &format!("30 {:02x} 00 01 74 {:02x} 03 00 {length:02x} {text}", 7 + length, 3 + length),
            "0x81",
        );
    }
    client_refuses(b"\x30\x08\0\x01t\x04\x03\0\x01\xff", ReasonCode::MalformedPacket);
    let mut properties = PropertiesBuf::default();
    assert!(properties.try_push(Property::ContentType("a\0")).is_err());
    travels("ct=é/日");
}

#[test]
fn mqtt5_3_3_2_20_the_content_type_is_passed_on() {
    travels("ct=text/plain");
    travels("ct=a+#/x pfi=1 rt=r cd=c up=k:v");
    through_the_client(&[Property::ContentType("text/plain; charset=utf-8")]);
}
