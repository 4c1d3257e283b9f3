//! MQTT 5.0, 4.7 and 4.8: topic names, topic filters, shared subscriptions.

use crate::common::script::{Script, messages};
use crate::common::{Rig, one, quiet};
use hikyaku_proto::broker::Config;
use hikyaku_proto::client::{Options, OptionsError, SendError, Will};
use hikyaku_proto::codec::{Properties, PropertiesBuf, QoS, SubscribeOptions, Version};

/// Bytes as the hexadecimal numbers of `RAW`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!(" {byte:02x}")).collect()
}

/// Length and bytes of a string.
fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, body.len() as u8], body].concat()
}

/// The broker tells a client that sends this an error, and closes.
fn refused(bytes: &[u8]) {
    let mut rig = one();
    rig.run("a> CONNECT a v5\n a< CONNACK 0");
    rig.send("a", &format!("RAW{}", hex(bytes)));
    let news = rig.news("a");
    assert!(
        ["0x81", "0x82", "0x8f", "0x90"].iter().any(|r| news == format!("DISCONNECT {r}; CLOSED")),
        "{news}"
    );
}

/// No side takes this as a topic name.
fn is_no_topic_name(topic: &str) {
    refused(&packet(0x30, &[&string(topic)[..], &[0]].concat()));
    let mut script = Script::v5();
    assert!(matches!(script.publish(0, topic), Err(SendError::InvalidTopic(_))), "{topic:?}");
    script.receive(&packet(0x30, &[&string(topic)[..], &[0]].concat()));
    assert!(messages(script.events()).is_empty() && script.client.wants_close());
    let will = Will {
        topic: topic.into(),
        payload: vec![],
        qos: QoS::AtMostOnce,
        retain: false,
        properties: PropertiesBuf::default(),
    };
    let options = Options { will: Some(will), ..Options::new(Version::V5, "c") };
    assert_eq!(options.check(), Err(OptionsError::WillTopicInvalid));
    let connect = [&b"\0\x04MQTT\x05\x06\0\0\0\0\x01c\0"[..], &string(topic), &string("x")].concat();
    let mut rig = one();
    rig.send("a", &format!("RAW{}", hex(&packet(0x10, &connect))));
    rig.pipe("a").version = Version::V5;
    let news = rig.news("a");
    assert!(news.starts_with("CONNACK 0x") && news.ends_with("CLOSED"), "{news}");
}

/// No side takes this as a topic filter.
fn is_no_topic_filter(filter: &str) {
    refused(&packet(0x82, &[&[0, 1, 0], &string(filter)[..], &[0]].concat()));
    refused(&packet(0xa2, &[&[0, 1, 0], &string(filter)[..]].concat()));
    let mut script = Script::v5();
    let filters = [(filter, SubscribeOptions::default())];
    let result = script.client.subscribe(script.now, &filters, Properties::EMPTY);
    assert!(matches!(result, Err(SendError::InvalidTopic(_))), "{filter:?}");
    let result = script.client.unsubscribe(script.now, &[filter], Properties::EMPTY);
    assert!(matches!(result, Err(SendError::InvalidTopic(_))), "{filter:?}");
    assert!(script.sent().is_empty());
}

/// A subscription to `filter` gets those of these topics, live and retained, and no others.
fn matches(filter: &str, yes: &[&str], no: &[&str]) {
    let mut rig = one();
    rig.run(&format!("a> CONNECT a v5; SUBSCRIBE id=1 {filter}\n a< CONNACK 0; SUBACK 1 0"));
    rig.run("p> CONNECT p v5\n p< CONNACK 0");
    for topic in yes.iter().chain(no) {
        rig.send("p", &format!("PUBLISH {topic} x r"));
    }
    let expected: Vec<_> = yes.iter().map(|topic| format!("PUBLISH {topic} x")).collect();
    assert_eq!(rig.news("a"), expected.join("; "), "{filter}");
    rig.send("a", &format!("SUBSCRIBE id=2 {filter}"));
    let news = rig.news("a");
    let mut got: Vec<_> = news.split("; ").skip(1).collect();
    let mut expected: Vec<_> = yes.iter().map(|topic| format!("PUBLISH {topic} x r")).collect();
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected, "{filter}");
}

#[test]
fn mqtt5_4_7_0_1_no_topic_name_has_wildcards() {
    for topic in ["+", "#", "a/+", "a/#", "+/a", "a+b", "a#", "a/b#c/d"] {
        is_no_topic_name(topic);
    }
}

#[test]
fn mqtt5_4_7_1_1_the_multi_level_wildcard_is_alone_in_the_last_level() {
    for filter in
        ["a#", "#a", "##", "#/a", "a/#/b", "a/b#", "a/#b", "+#", "a/##", "$share/g/a#", "$share/g/#/a"]
    {
        is_no_topic_filter(filter);
    }
    matches("#", &["a", "a/b", "/", "a/b/c"], &[]);
    matches("a/#", &["a", "a/", "a/b", "a/b/c"], &["ab", "b/a", "/a"]);
    matches("/#", &["/", "/a", "/a/b"], &["a", "a/b"]);
}

#[test]
fn mqtt5_4_7_1_2_the_single_level_wildcard_is_alone_in_its_level_whichever_that_is() {
    for filter in ["a+", "+a", "++", "a/+b", "a/b+/c", "+/a+", "$share/g/a+"] {
        is_no_topic_filter(filter);
    }
    matches("+", &["a", "b"], &["a/b", "/a", "/"]);
    matches("+/b", &["a/b", "/b"], &["b", "a/b/c", "a/a"]);
    matches("a/+/c", &["a/b/c", "a//c"], &["a/c", "a/b/b/c", "a/b"]);
    matches("a/+", &["a/b", "a/"], &["a", "a/b/c"]);
    matches("+/+/#", &["a/b", "/", "a/b/c/d"], &["a"]);
}

#[test]
fn mqtt5_4_7_2_1_a_leading_wildcard_does_not_match_a_leading_dollar() {
    let topics = ["$x", "$x/a", "$SYSTEM/a/b"];
    for filter in ["#", "+/a", "+/#", "+", "+/+"] {
        matches(filter, &[], &topics);
    }
    matches("$x/#", &["$x", "$x/a"], &["x/a", "$y"]);
    matches("$x/+", &["$x/a"], &["$x", "a/$x"]);
    matches("a/+", &["a/$x"], &[]);
    // The filter of a shared subscription begins behind its name.
    one().run(
        "a> CONNECT a v5; SUBSCRIBE id=1 $share/g/# $share/h/+/a $share/i/$x/#
         a< CONNACK 0; SUBACK 1 0 0 0
         p> CONNECT p v5; PUBLISH $x/a 1; PUBLISH $x 2; PUBLISH y/b 3
         p< CONNACK 0
         a< PUBLISH $x/a 1; PUBLISH $x 2; PUBLISH y/b 3",
    );
}

#[test]
fn mqtt5_4_7_3_1_topic_names_and_filters_are_not_empty() {
    is_no_topic_name("");
    is_no_topic_filter("");
    is_no_topic_filter("$share/g/");
    // A separator is a character.
    matches("/", &["/"], &["a", "//"]);
}

#[test]
fn mqtt5_4_7_3_2_topic_names_and_filters_have_no_null_character() {
    for text in ["\0", "a\0", "\0a/b", "a/\0/b"] {
        is_no_topic_name(text);
        is_no_topic_filter(text);
        is_no_topic_filter(&format!("$share/g/{text}"));
    }
    is_no_topic_filter("$share/\0/a");
}

#[test]
fn mqtt5_4_7_3_3_topic_names_and_filters_have_up_to_65535_bytes() {
    // More than that the length of a string cannot say; the client is not cut short to it.
    let longest = "x".repeat(65_535);
    matches(&longest, &[&longest], &[&longest[1..]]);
    one().run(&format!("a> CONNECT a v5; UNSUBSCRIBE id=1 {longest}\n a< CONNACK 0; UNSUBACK 1 0x11"));
    let mut script = Script::v5();
    assert!(script.publish(0, &longest).is_ok());
    let too_long = "x".repeat(65_536);
    assert!(matches!(script.publish(0, &too_long), Err(SendError::InvalidTopic(_))));
    let filters = [(&too_long[..], SubscribeOptions::default())];
    let result = script.client.subscribe(script.now, &filters, Properties::EMPTY);
    assert!(matches!(result, Err(SendError::InvalidTopic(_))));
}

#[test]
fn mqtt5_4_7_3_4_topics_are_compared_as_they_are() {
    let all = [
        "a/b",
        "A/b",
        "a/B",
        "a//b",
        "/a/b",
        "a/b/",
        "a/./b",
        "a/../a/b",
        "a%2Fb",
        "\u{feff}a/b",
        "a/b\u{200b}",
        "a\\b",
        "caf\u{e9}",
        "cafe\u{301}",
        "CAF\u{c9}",
        "\u{1d11e}",
        "\u{fffd}",
        "\u{e000}",
        "\u{10fffd}",
        "%",
        "?",
    ];
    for filter in all {
        let others: Vec<_> = all.into_iter().filter(|other| *other != filter).collect();
        matches(filter, &[filter], &others);
    }
    // Neither when a subscription ends.
    one().run(
        "a> CONNECT a v5; SUBSCRIBE id=1 caf\u{e9}/+; UNSUBSCRIBE id=2 cafe\u{301}/+ Caf\u{e9}/+ /caf\u{e9}/+ caf\u{e9}/+
         a< CONNACK 0; SUBACK 1 0; UNSUBACK 2 0x11 0x11 0x11 0",
    );
}

#[test]
fn mqtt5_4_8_2_1_a_shared_subscription_has_a_share_name() {
    for filter in ["$share/", "$share//", "$share//t", "$share///t"] {
        is_no_topic_filter(filter);
    }
    let mut rig = one();
    rig.run(
        "a> CONNECT a v5; SUBSCRIBE id=1 $share/g/t $share $SHARE/g/t $shared/g/t share/g/t
         a< CONNACK 0; SUBACK 1 0 0 0 0 0
         b> CONNECT b v5; SUBSCRIBE id=1 $share/g/t
         b< CONNACK 0; SUBACK 1 0
         p> CONNECT p v5; PUBLISH t 1; PUBLISH t 2
         p< CONNACK 0
         a< PUBLISH t 1
         b< PUBLISH t 2",
    );
    // What does not begin with `$share/` is like any other filter.
    assert_eq!(rig.sum(|c| c.shared_subscriptions), 2);
    rig.run(
        "p> PUBLISH $share 1; PUBLISH $SHARE/g/t 2; PUBLISH $shared/g/t 3; PUBLISH share/g/t 4
         a< PUBLISH $share 1; PUBLISH $SHARE/g/t 2; PUBLISH $shared/g/t 3; PUBLISH share/g/t 4",
    );
}

#[test]
fn mqtt5_4_8_2_2_a_share_name_has_no_wildcards_and_is_followed_by_a_topic_filter() {
    for filter in [
        "$share/+/t",
        "$share/#/t",
        "$share/g+/t",
        "$share/#g/t",
        "$share/#",
        "$share/+",
        "$share/g",
        "$share/g/",
        "$share/g/t#",
        "$share/g/t+/u",
    ] {
        is_no_topic_filter(filter);
    }
    // The separator ends the name: what follows is the filter, whatever it is.
    one().run(
        "a> CONNECT a v5; SUBSCRIBE id=1 $share/g/h/t $share/g//t $share/\u{e9}$/+/#
         a< CONNACK 0; SUBACK 1 0 0 0
         p> CONNECT p v5; PUBLISH h/t 1; PUBLISH /t 2; PUBLISH t 3
         p< CONNACK 0
         a< PUBLISH h/t 1; PUBLISH h/t 1; PUBLISH /t 2; PUBLISH /t 2; PUBLISH t 3",
    );
}

#[test]
fn mqtt5_4_8_2_3_each_member_gets_messages_with_the_qos_it_was_granted() {
    for shards in [1, 3] {
        let mut rig = Rig::new(shards, 0, quiet());
        for qos in 0..3 {
            rig.run(&format!("m{qos}> CONNECT m{qos} v5; SUBSCRIBE id=1 $share/g/t:{qos}\n m{qos}< CONNACK 0; SUBACK 1 {qos}"));
        }
        rig.run(
            "p> CONNECT p v5; PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q2 id=3
             p< CONNACK 0; PUBREC 1; PUBREC 2; PUBREC 3
             m0< PUBLISH t 1
             m1< PUBLISH t 2 q1 id=1
             m2< PUBLISH t 3 q2 id=1
             p> PUBLISH t 4 q1 id=4; PUBLISH t 5 q1 id=4; PUBLISH t 6 q1 id=4
             p< PUBACK 4; PUBACK 4; PUBACK 4
             m0< PUBLISH t 4
             m1< PUBLISH t 5 q1 id=2
             m2< PUBLISH t 6 q1 id=2",
        );
    }
}

/// Three members; `a` has a QoS 2 message that it did not answer, one that it took, and one of QoS 1.
fn shared(shards: u16) -> Rig {
    let mut rig = Rig::new(shards, 0, Config { max_inflight_messages: 20, ..quiet() });
    rig.run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 $share/g/t:2
         a< CONNACK 0; SUBACK 1 2
         p> CONNECT p v5; PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q1 id=3
         p< CONNACK 0; PUBREC 1; PUBREC 2; PUBACK 3
         a< PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q1 id=3
         a> PUBREC 2
         a< PUBREL 2
         b> CONNECT b v5; SUBSCRIBE id=1 $share/g/t:2
         b< CONNACK 0; SUBACK 1 2
         c> CONNECT c v5 expiry=1000; SUBSCRIBE id=1 $share/g/t:2
         c< CONNACK 0; SUBACK 1 2
         c!",
    );
    rig
}

#[test]
fn mqtt5_4_8_2_4_a_member_that_returns_gets_the_rest_of_its_delivery() {
    for shards in [1, 3] {
        shared(shards).run(
            "a!
             +99s
             b<
             a> CONNECT a v5 expiry=100
             a< CONNACK 0 present; PUBLISH t 1 q2 id=1 dup; PUBREL 2; PUBLISH t 3 q1 id=3 dup
             a> PUBREC 1; PUBCOMP 2; PUBACK 3
             a< PUBREL 1
             a> PUBCOMP 1
             a!
             b<",
        );
    }
}

#[test]
fn mqtt5_4_8_2_5_what_was_sent_with_qos_2_goes_to_no_other_member_when_the_session_ends() {
    // A QoS 1 message may go to another one, and does.
    for shards in [1, 3] {
        for end in [
            "a!\n +101s",
            "a> DISCONNECT expiry=0\n a< CLOSED",
            "a!\n a> CONNECT a v5 clean\n a< CONNACK 0",
            "a!\n +10s\n a> CONNECT a v5 expiry=100\n a< CONNACK 0 present; PUBLISH t 1 q2 id=1 dup; PUBREL 2; PUBLISH t 3 q1 id=3 dup\n a> DISCONNECT expiry=0\n a< CLOSED",
        ] {
            let mut rig = shared(shards);
            rig.run(&format!(
                "{end}
                 b< PUBLISH t 3 q1 id=1
                 b> PUBACK 1; DISCONNECT
                 b< CLOSED
                 c> CONNECT c v5 expiry=1000
                 c< CONNACK 0 present"
            ));
        }
    }
}

#[test]
fn mqtt5_4_8_2_6_what_a_member_refuses_goes_to_no_other() {
    for shards in [1, 3] {
        shared(shards).run(
            "a> PUBREC 1 0x83; PUBACK 3 0x97; PUBCOMP 2
             b<
             a!
             +200s
             b<
             b!
             c> CONNECT c v5 expiry=1000
             c< CONNACK 0 present",
        );
    }
}
