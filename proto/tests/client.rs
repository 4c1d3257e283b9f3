//! The client against scripts of bytes, in virtual time.

mod common;

use common::script::{Script, messages, options, published};
use hikyaku_proto::client::*;
use hikyaku_proto::codec::*;
use std::time::Duration;

#[test]
fn connect_says_what_the_options_say() {
    let mut v4 = Script::new(Options { clean_start: true, keep_alive_s: 9, ..options(Version::V3_1_1) });
    assert_eq!(v4.sent(), b"\x10\x0d\0\x04MQTT\x04\x02\0\x09\0\x01c");
    let mut v3 = Script::new(Options { username: Some("u".into()), ..options(Version::V3_1) });
    assert_eq!(v3.sent(), b"\x10\x12\0\x06MQIsdp\x03\x80\0\x3c\0\x01c\0\x01u");
    let mut v5 = Script::new(Options { topic_alias_maximum: 0, ..options(Version::V5) });
    assert_eq!(v5.sent(), b"\x10\x13\0\x04MQTT\x05\0\0\x3c\x05\x11\0\0\0\x64\0\x01c");
}

#[test]
fn options_that_make_no_connect_are_told() {
    let mut script = Script::new(Options::new(Version::V3_1, ""));
    assert_eq!(script.disconnected(), By::Options(OptionsError::ClientIdEmpty));
    assert!(script.client.wants_close() && script.client.outbox().is_empty());
    assert_eq!(script.client.poll_timeout(), None);
}

#[test]
fn a_refusal_ends_the_connection() {
    for (version, connack) in [(Version::V3_1_1, &b"\x20\x02\0\x05"[..]), (Version::V5, b"\x20\x03\0\x87\0")]
    {
        let mut script = Script::new(options(version));
        script.receive(connack);
        let events = script.events();
        assert!(matches!(events[..], [Event::Refused { reason: ReasonCode::NotAuthorized, .. }]));
        assert!(script.client.wants_close());
        script.client.transport_down(script.now);
        assert!(script.events().is_empty());
    }
}

#[test]
fn a_session_nobody_asked_for_is_an_error() {
    let mut script = Script::new(Options { clean_start: true, ..options(Version::V5) });
    script.receive(b"\x20\x03\x01\0\0");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn what_a_server_must_not_send_closes() {
    let two_with_alias_3 = b"\x30\x08\0\x01t\x03\x23\0\x03x";
    let cases: [(&[u8], ReasonCode); 10] = [
        (b"\x20\x03\0\0\0", ReasonCode::ProtocolError),
        (b"\xc0\0", ReasonCode::ProtocolError),
        (b"\x82\x07\0\x01\0\0\x01t\0", ReasonCode::ProtocolError),
        (b"\xf0\0", ReasonCode::ProtocolError),
        (b"\x36\x03\0\x01t", ReasonCode::MalformedPacket),
        (b"\x40\xff\xff\xff\xff\x01", ReasonCode::MalformedPacket),
        (b"\x30\x08\0\x01t\x03\x23\0\x0bx", ReasonCode::TopicAliasInvalid),
        (b"\x30\x06\0\0\x03\x23\0\x04", ReasonCode::ProtocolError),
        (b"\x31\x03\0\x01#", ReasonCode::MalformedPacket),
        (b"\0\0", ReasonCode::ProtocolError),
    ];
    for (bytes, reason) in cases {
        for cut in 0..bytes.len() {
            let mut script = Script::v5();
            script.receive(two_with_alias_3);
            script.events();
            script.receive(&bytes[..cut]);
            script.receive(&bytes[cut..]);
            script.assert_failed(reason);
        }
    }
    let mut script = Script::v4();
    script.receive(b"\xe0\0");
    script.assert_failed(ReasonCode::ProtocolError);
    let mut script = Script::new(options(Version::V5));
    script.sent();
    script.receive(b"\x30\x04\0\x01t\0");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn a_packet_above_our_maximum_is_refused_before_it_has_come() {
    let options = Options { max_packet_size: 20, ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x03\0\0\0");
    script.receive(b"\x30\x13");
    script.assert_failed(ReasonCode::PacketTooLarge);
}

#[test]
fn a_server_that_disconnects_says_why() {
    let mut script = Script::v5();
    script.receive(b"\xe0\x01\x8b");
    assert_eq!(script.disconnected(), By::Peer(ReasonCode::ServerShuttingDown));
    assert!(script.client.wants_close() && script.sent().is_empty());
}

#[test]
fn qos_1_and_2_to_the_server() {
    let mut script = Script::v4();
    let one = script.publish(1, "t").unwrap();
    let two = script.publish(2, "t").unwrap();
    script.publish(0, "t").unwrap();
    assert_eq!(script.sent(), b"\x32\x06\0\x01t\0\x01x\x34\x06\0\x01t\0\x02x\x30\x04\0\x01tx");
    script.receive(b"\x40\x02\0\x01\x50\x02\0\x02");
    assert_eq!(published(&script.events()), [(one, ReasonCode::Success)]);
    assert_eq!(script.sent(), b"\x62\x02\0\x02");
    script.receive(b"\x70\x02\0\x02\x70\x02\0\x02\x40\x02\0\x01");
    assert_eq!(published(&script.events()), [(two, ReasonCode::Success)]);
    assert_eq!(script.client.unfinished(), 0);
}

#[test]
fn errors_of_the_server_end_a_message() {
    let mut script = Script::v5();
    let one = script.publish(1, "t").unwrap();
    let two = script.publish(2, "t").unwrap();
    let three = script.publish(2, "t").unwrap();
    script.sent();
    script.receive(b"\x40\x03\0\x01\x97\x50\x03\0\x02\x87\x50\x03\0\x03\x10\x50\x03\0\x09\0");
    assert_eq!(
        published(&script.events()),
        [(one, ReasonCode::QuotaExceeded), (two, ReasonCode::NotAuthorized)]
    );
    assert_eq!(script.sent(), b"\x62\x02\0\x03\x62\x03\0\x09\x92");
    script.receive(b"\x70\x02\0\x03");
    assert_eq!(published(&script.events()), [(three, ReasonCode::NoMatchingSubscribers)]);
}

#[test]
fn resend_on_resume_keeps_order_ids_and_stage_and_nothing_else_is_resent() {
    let mut script = Script::v4();
    script.publish(1, "a").unwrap();
    let two = script.publish(2, "b").unwrap();
    script.publish(2, "c").unwrap();
    script.sent();
    script.receive(b"\x50\x02\0\x02");
    script.sent();
    script.wait(50);
    assert!(script.sent().is_empty(), "no resend while connected [MQTT-4.4.0-1]");
    script.events();
    script.client.transport_down(script.now);
    let queued = script.publish(1, "d").unwrap();
    assert_eq!(script.publish(0, "e"), Err(SendError::NotConnected));
    script.reconnect(b"\x20\x02\x01\0");
    assert_eq!(
        script.sent(),
        b"\x3a\x06\0\x01a\0\x01x\x62\x02\0\x02\x3c\x06\0\x01c\0\x03x\x32\x06\0\x01d\0\x04x"
    );
    script.receive(b"\x70\x02\0\x02\x40\x02\0\x04");
    let done = published(&script.events());
    assert_eq!(done, [(two, ReasonCode::Success), (queued, ReasonCode::Success)]);
}

#[test]
fn a_lost_session_sends_qos_1_as_new_and_gives_qos_2_back() {
    let mut script = Script::v4();
    script.publish(1, "a").unwrap();
    let two = script.publish(2, "b").unwrap();
    let three = script.publish(2, "c").unwrap();
    script.sent();
    script.receive(b"\x50\x02\0\x02");
    script.receive(b"\x34\x05\0\x01r\0\x07");
    script.events();
    script.reconnect(b"\x20\x02\0\0");
    assert_eq!(script.sent(), b"\x32\x06\0\x01a\0\x01x", "a new message, without DUP");
    let events = script.events();
    assert_eq!(published(&events), [(two, ReasonCode::Success)]);
    assert!(events.iter().any(|e| matches!(
        e,
        Event::Dropped { ticket, why: Dropped::SessionLost } if *ticket == three
    )));
    assert!(matches!(events[events.len() - 2..], [Event::SessionLost, Event::Connected(_)]));
    script.receive(b"\x34\x05\0\x01r\0\x07");
    assert_eq!(messages(script.events()).len(), 1, "an id of the lost session is new");
}

#[test]
fn a_session_of_5_0_is_begun_clean_only_once() {
    let options = Options { clean_start: true, ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x03\0\0\0");
    script.client.transport_down(script.now);
    script.client.transport_up(script.now);
    let connect = script.sent();
    assert_eq!(connect[9], 0, "Clean Start is off");
    script.receive(b"\x20\x03\x01\0\0");
    assert!(script.client.is_connected());
}

#[test]
fn the_limits_of_the_server_hold() {
    // Receive maximum 1, maximum QoS 1, no retain, 30 bytes, no wildcards, no ids, no sharing.
    let connack = b"\x20\x15\0\0\x12\x21\0\x01\x24\x01\x25\0\x27\0\0\0\x1e\x28\0\x29\0\x2a\0";
    let mut script = Script::connected(options(Version::V5), connack);
    assert_eq!(script.publish(2, "t"), Err(SendError::QoSNotSupported));
    assert_eq!(script.publish(0, &"t".repeat(25)), Err(SendError::TooLarge));
    assert!(script.publish(0, &"t".repeat(24)).is_ok());
    assert_eq!(script.sent().len(), 30);
    let now = script.now;
    let request = PublishRequest { topic: "t", retain: true, ..Default::default() };
    assert_eq!(script.client.publish(now, &request), Err(SendError::RetainNotSupported));
    let filter = |filter| [(filter, SubscribeOptions::default())];
    let subscribe = |script: &mut Script, name, properties| {
        script.client.subscribe(now, &filter(name), properties).map(|_| ())
    };
    let none = Properties::EMPTY;
    assert_eq!(subscribe(&mut script, "a/+", none), Err(SendError::WildcardsNotSupported));
    assert_eq!(subscribe(&mut script, "$share/g/a", none), Err(SendError::SharedNotSupported));
    let mut id = PropertiesBuf::default();
    id.push(Property::SubscriptionIdentifier(1));
    let result = subscribe(&mut script, "a", id.as_properties());
    assert_eq!(result, Err(SendError::SubscriptionIdsNotSupported));
    assert_eq!(subscribe(&mut script, &"a".repeat(30), none), Err(SendError::TooLarge));
    script.publish(1, "t").unwrap();
    script.publish(1, "u").unwrap();
    assert_eq!(script.sent(), b"\x32\x07\0\x01t\0\x02\0x", "one at a time");
    script.receive(b"\x40\x02\0\x02");
    assert_eq!(script.sent(), b"\x32\x07\0\x01u\0\x03\0x");
}

#[test]
fn what_waits_for_a_server_that_does_not_take_it_is_given_back() {
    let mut script = Script::v5();
    script.client.transport_down(script.now);
    let two = script.publish(2, "t").unwrap();
    let one = script.publish(1, "t").unwrap();
    script.events();
    script.reconnect(b"\x20\x05\x01\0\x02\x24\x01");
    assert!(script.events().iter().any(|e| matches!(
        e,
        Event::Dropped { ticket, why: Dropped::Refused(SendError::QoSNotSupported) } if *ticket == two
    )));
    assert_eq!(script.sent(), b"\x32\x07\0\x01t\0\x02\0x");
    script.receive(b"\x40\x02\0\x02");
    assert_eq!(published(&script.events()), [(one, ReasonCode::Success)]);
}

#[test]
fn the_queue_is_bounded_and_messages_in_it_expire() {
    let options = Options { max_queued_messages: 2, ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x03\0\0\0");
    script.client.transport_down(script.now);
    script.events();
    let mut expiry = PropertiesBuf::default();
    expiry.push(Property::MessageExpiryInterval(5));
    let request = PublishRequest {
        topic: "t",
        qos: QoS::AtLeastOnce,
        properties: expiry.as_properties(),
        ..Default::default()
    };
    let expires = script.client.publish(script.now, &request).unwrap();
    script.wait(2);
    script.client.publish(script.now, &request).unwrap();
    assert_eq!(script.publish(1, "t"), Err(SendError::QueueFull));
    script.wait(3);
    script.reconnect(b"\x20\x03\x01\0\0");
    let events = script.events();
    assert!(events.iter().any(|e| matches!(
        e,
        Event::Dropped { ticket, why: Dropped::Expired } if *ticket == expires
    )));
    assert_eq!(script.sent(), b"\x32\x0b\0\x01t\0\x02\x05\x02\0\0\0\x02", "what is left of it is sent");
}

#[test]
fn what_the_application_gets_wrong_is_told() {
    let mut script = Script::v5();
    assert!(matches!(script.publish(0, "a/#"), Err(SendError::InvalidTopic(_))));
    assert!(matches!(script.publish(0, ""), Err(SendError::InvalidTopic(_))));
    for property in [Property::TopicAlias(1), Property::SubscriptionIdentifier(1), Property::MaximumQoS(1)] {
        let mut properties = PropertiesBuf::default();
        properties.push(property);
        let request =
            PublishRequest { topic: "t", properties: properties.as_properties(), ..Default::default() };
        let result = script.client.publish(script.now, &request);
        assert!(matches!(result, Err(SendError::InvalidProperties(_))), "{property:?}");
    }
    let no_local = SubscribeOptions { no_local: true, ..Default::default() };
    let result = script.client.subscribe(script.now, &[("$share/g/t", no_local)], Properties::EMPTY);
    assert_eq!(result, Err(SendError::NoLocalOnShared));
    let result = script.client.subscribe(script.now, &[], Properties::EMPTY);
    assert_eq!(result, Err(SendError::Encode(EncodeError::Empty)));
    assert_eq!(script.client.authenticate(script.now, b""), Err(SendError::NotAuthenticating));
    assert_eq!(script.client.reauthenticate(script.now, b""), Err(SendError::NotAuthenticating));
    assert!(script.sent().is_empty());
}

#[test]
fn subscribe_and_unsubscribe_use_ids_no_message_has() {
    let mut script = Script::v5();
    script.publish(1, "t").unwrap();
    let options = SubscribeOptions::new(QoS::AtLeastOnce);
    let now = script.now;
    let filters = [("a/+", options), ("b", options)];
    let subscribed = script.client.subscribe(now, &filters, Properties::EMPTY).unwrap();
    script.publish(1, "t").unwrap();
    let unsubscribed = script.client.unsubscribe(now, &["c"], Properties::EMPTY).unwrap();
    assert_eq!(
        script.sent(),
        b"\x32\x07\0\x01t\0\x01\0x\x82\x0d\0\x02\0\0\x03a/+\x01\0\x01b\x01\x32\x07\0\x01t\0\x03\0x\xa2\x06\0\x04\0\0\x01c"
    );
    script.receive(b"\xb0\x04\0\x04\0\x11\x90\x05\0\x02\0\x01\x87");
    let events = script.events();
    assert!(matches!(&events[0], Event::Unsubscribed { ticket, codes, .. }
        if *ticket == unsubscribed && *codes == [ReasonCode::NoSubscriptionExisted]));
    assert!(matches!(&events[1], Event::Subscribed { ticket, codes, .. }
        if *ticket == subscribed && *codes == [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized]));
    let dropped = script.client.subscribe(now, &[("d", options)], Properties::EMPTY).unwrap();
    script.client.transport_down(now);
    assert!(script.events().iter().any(|e| matches!(
        e,
        Event::Dropped { ticket, why: Dropped::ConnectionLost } if *ticket == dropped
    )));
}

#[test]
fn an_answer_must_have_one_code_per_filter() {
    let mut script = Script::v5();
    let now = script.now;
    script.client.subscribe(now, &[("a", SubscribeOptions::default())], Properties::EMPTY).unwrap();
    script.sent();
    script.receive(b"\x90\x05\0\x01\0\x01\x01");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn received_messages_are_acknowledged_and_qos_2_ones_handed_out_once() {
    let mut script = Script::v4();
    script.receive(b"\x32\x06\0\x01a\0\x05x\x34\x06\0\x01b\0\x06y\x30\x04\0\x01cz");
    let got = messages(script.events());
    let got: Vec<_> = got.iter().map(|m| (m.topic(), m.payload(), m.qos() as u8)).collect();
    assert_eq!(got, [("a", &b"x"[..], 1), ("b", b"y", 2), ("c", b"z", 0)]);
    assert_eq!(script.sent(), b"\x40\x02\0\x05\x50\x02\0\x06");
    script.reconnect(b"\x20\x02\x01\0");
    script.events();
    script.receive(b"\x3c\x06\0\x01b\0\x06y\x62\x02\0\x06\x62\x02\0\x06");
    assert!(messages(script.events()).is_empty());
    assert_eq!(script.sent(), b"\x50\x02\0\x06\x70\x02\0\x06\x70\x02\0\x06");
    script.receive(b"\x34\x06\0\x01b\0\x06y");
    assert_eq!(messages(script.events()).len(), 1, "a released id names a new message");
}

#[test]
fn manual_acknowledgements_leave_in_the_order_of_the_messages() {
    let options = Options { acknowledge: Acknowledge::Manually, ..options(Version::V3_1_1) };
    let mut script = Script::connected(options, b"\x20\x02\0\0");
    script.receive(b"\x32\x05\0\x01a\0\x01\x34\x05\0\x01a\0\x02\x32\x05\0\x01a\0\x03\x30\x03\0\x01a");
    let got = messages(script.events());
    assert!(script.sent().is_empty() && got[3].token.is_none());
    let token = |at: usize| got[at].token.unwrap();
    script.client.acknowledge(script.now, token(2));
    script.client.acknowledge(script.now, token(1));
    assert!(script.sent().is_empty());
    script.client.acknowledge(script.now, token(0));
    script.client.acknowledge(script.now, token(0));
    assert_eq!(script.sent(), b"\x40\x02\0\x01\x50\x02\0\x02\x40\x02\0\x03");
}

#[test]
fn a_qos_2_message_keeps_its_token_over_connections() {
    let options = Options { acknowledge: Acknowledge::Manually, ..options(Version::V3_1_1) };
    let mut script = Script::connected(options, b"\x20\x02\0\0");
    script.receive(b"\x32\x05\0\x01a\0\x01\x34\x05\0\x01b\0\x02\x34\x05\0\x01c\0\x03");
    let old = messages(script.events());
    script.client.transport_down(script.now);
    script.client.acknowledge(script.now, old[2].token.unwrap());
    script.reconnect(b"\x20\x02\x01\0");
    script.events();
    script.receive(b"\x3a\x05\0\x01a\0\x01\x3c\x05\0\x01b\0\x02\x3c\x05\0\x01c\0\x03");
    let new = messages(script.events());
    assert_eq!(new.len(), 1, "only QoS 1 comes again");
    assert!(new[0].dup && new[0].token != old[0].token);
    script.client.acknowledge(script.now, old[0].token.unwrap());
    script.client.acknowledge(script.now, old[1].token.unwrap());
    assert!(script.sent().is_empty(), "the old token of QoS 1 is void");
    script.client.acknowledge(script.now, new[0].token.unwrap());
    assert_eq!(script.sent(), b"\x40\x02\0\x01\x50\x02\0\x02\x50\x02\0\x03");
}

#[test]
fn our_receive_maximum_holds() {
    let options = Options { acknowledge: Acknowledge::Manually, receive_maximum: 2, ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x03\0\0\0");
    script.receive(b"\x32\x06\0\x01a\0\x01\0\x34\x06\0\x01a\0\x02\0");
    assert_eq!(messages(script.events()).len(), 2);
    script.receive(b"\x32\x06\0\x01a\0\x03\0");
    script.assert_failed(ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn topic_aliases_both_ways() {
    let mut script = Script::connected(options(Version::V5), b"\x20\x06\0\0\x03\x22\0\x01");
    for topic in ["abc", "abc", "def"] {
        script.publish(0, topic).unwrap();
    }
    assert_eq!(
        script.sent(),
        b"\x30\x0a\0\x03abc\x03\x23\0\x01x\x30\x07\0\0\x03\x23\0\x01x\x30\x07\0\x03def\0x"
    );
    script.receive(b"\x30\x0a\0\x03ghi\x03\x23\0\x01x\x30\x07\0\0\x03\x23\0\x01y");
    let got = messages(script.events());
    assert_eq!((got[1].topic(), got[1].payload()), ("ghi", &b"y"[..]));
    assert!(got[1].properties().is_empty(), "the alias is not the application's business");
}

#[test]
fn properties_of_a_message_reach_the_application() {
    let mut script = Script::v5();
    script.receive(b"\x30\x15\0\x01t\x10\x02\0\0\0\x05\x0b\x03\x26\0\x01k\0\x01v\x0b\x04x");
    let got = messages(script.events()).remove(0);
    assert_eq!(got.subscription_ids.as_slice(), [3, 4]);
    assert_eq!(got.expires_at(), script.now + Duration::from_secs(5));
    assert_eq!(got.properties().user_properties().collect::<Vec<_>>(), [("k", "v")]);
}

#[test]
fn keep_alive_pings_and_silence_ends_the_connection() {
    let mut script = Script::v4();
    assert_eq!(script.client.poll_timeout(), Some(script.now + Duration::from_secs(60)));
    script.wait(59);
    assert!(script.sent().is_empty());
    script.wait(1);
    assert_eq!(script.sent(), b"\xc0\0");
    script.receive(b"\xd0\0");
    script.wait(60);
    assert_eq!(script.sent(), b"\xc0\0");
    assert_eq!(script.client.poll_timeout(), Some(script.now + Duration::from_secs(20)));
    script.wait(20);
    assert_eq!(script.disconnected(), By::Timeout("PINGRESP"));
    assert!(script.client.wants_close());
}

#[test]
fn a_server_that_is_only_sent_to_is_pinged_too() {
    let mut script = Script::v4();
    for _ in 0..6 {
        script.wait(10);
        script.publish(0, "t").unwrap();
    }
    assert!(script.sent().ends_with(b"\xc0\0\x30\x04\0\x01tx"));
}

#[test]
fn the_server_keep_alive_goes_before_ours() {
    let mut script = Script::connected(options(Version::V5), b"\x20\x06\0\0\x03\x13\0\x05");
    assert_eq!(script.client.poll_timeout(), Some(script.now + Duration::from_secs(5)));
    script.wait(5);
    assert_eq!(script.sent(), b"\xc0\0");
}

#[test]
fn a_server_that_does_not_answer_connect_is_left() {
    let mut script = Script::new(options(Version::V5));
    script.wait(30);
    assert_eq!(script.disconnected(), By::Timeout("answer to CONNECT"));
    assert!(script.client.wants_close() && script.client.outbox().is_empty());
}

#[test]
fn disconnect_is_the_last_packet() {
    let mut script = Script::v5();
    let mut properties = PropertiesBuf::default();
    properties.push(Property::SessionExpiryInterval(0));
    script.client.disconnect(script.now, ReasonCode::Success, properties.as_properties()).unwrap();
    assert_eq!(script.disconnected(), By::Us);
    assert_eq!(script.publish(0, "t"), Err(SendError::NotConnected));
    script.publish(1, "t").unwrap();
    script.receive(b"\x32\x06\0\x01a\0\x01\0");
    script.wait(1);
    assert_eq!(script.sent(), b"\xe0\x07\0\x05\x11\0\0\0\0");
    assert!(script.client.wants_close());
    let mut blocked = Script::v4();
    blocked.client.disconnect(blocked.now, ReasonCode::Success, Properties::EMPTY).unwrap();
    blocked.wait(5);
    assert!(blocked.client.outbox().is_empty(), "a transport that takes nothing is not waited for");
    let options = Options { session_expiry_s: 0, ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x03\0\0\0");
    properties.clear();
    properties.push(Property::SessionExpiryInterval(1));
    let result = script.client.disconnect(script.now, ReasonCode::Success, properties.as_properties());
    assert!(matches!(result, Err(SendError::InvalidProperties(_))));
}

#[test]
fn authentication_in_steps_and_anew() {
    let authentication = Authentication { method: "M".into(), data: Some(b"1".to_vec()) };
    let with = Options { authentication: Some(authentication), ..options(Version::V5) };
    let mut script = Script::new(with.clone());
    script.sent();
    script.receive(b"\xf0\x0a\x18\x08\x15\0\x01M\x16\0\x01s");
    assert!(matches!(script.events()[..], [Event::Auth { reason: ReasonCode::ContinueAuthentication, .. }]));
    script.client.authenticate(script.now, b"2").unwrap();
    assert_eq!(script.sent(), b"\xf0\x0a\x18\x08\x15\0\x01M\x16\0\x012");
    script.receive(b"\x20\x07\0\0\x04\x15\0\x01M");
    assert!(script.client.is_connected());
    script.client.reauthenticate(script.now, b"3").unwrap();
    assert_eq!(script.sent(), b"\xf0\x0a\x19\x08\x15\0\x01M\x16\0\x013");
    script.events();
    script.receive(b"\xf0\x06\0\x04\x15\0\x01M");
    assert!(matches!(script.events()[..], [Event::Auth { reason: ReasonCode::Success, .. }]));
    script.receive(b"\xf0\x06\x18\x04\x15\0\x01M");
    script.assert_failed(ReasonCode::ProtocolError);
    let mut other = Script::new(with);
    other.receive(b"\x20\x07\0\0\x04\x15\0\x01N");
    other.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn an_assigned_client_id_is_kept() {
    let options = Options { client_id: String::new(), ..options(Version::V5) };
    let mut script = Script::connected(options, b"\x20\x09\0\0\x06\x12\0\x03srv");
    script.client.transport_down(script.now);
    script.client.transport_up(script.now);
    assert!(script.sent().ends_with(b"\0\x03srv"));
}

#[test]
fn any_bytes_in_any_pieces_do_no_harm() {
    let mut state = 1u32;
    for round in 0..3000 {
        let mut script = match round % 3 {
            0 => Script::v4(),
            1 => Script::v5(),
            _ => Script::new(options(Version::V5)),
        };
        for _ in 0..40 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let first = [0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0, 0xe0, 0xf0, 0x20];
            let bytes = [first[(state >> 8) as usize % first.len()], (state >> 20) as u8 & 7];
            script.receive(&bytes);
            script.receive(&state.to_be_bytes()[..usize::from(bytes[1]).min(4)]);
            script.publish(state as u8 >> 3 & 1, "t").ok();
            script.events();
        }
    }
}

#[test]
fn a_driver_that_does_not_read_takes_no_silence_for_death() {
    let mut script = Script::v4();
    script.wait(60);
    for _ in 0..10 {
        script.now = script.now + Duration::from_secs(30);
        script.client.not_reading(script.now);
        script.client.handle_timeout(script.now);
    }
    assert!(script.client.is_connected());
    assert_eq!(script.sent(), b"\xc0\0".repeat(6), "the server is told all the while that we are there");
    script.wait(20);
    assert_eq!(script.disconnected(), By::Timeout("PINGRESP"));
}
