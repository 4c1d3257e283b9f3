//! The blocking client against a shard of the broker behind a TCP listener.

mod broker;

use broker::{Broker, SECONDS_10};
use hikyaku_client::{
    Acknowledge, Behavior, By, Client, Connector, Error, Options, Properties, PublishRequest, QoS,
    ReasonCode, Reconnect, SubscribeOptions, Version,
};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn options(version: Version, id: &str) -> Options {
    Options { clean_start: false, session_expiry_s: 100, ..Options::new(version, id) }
}

fn fast() -> Behavior {
    let first = Duration::from_millis(1);
    Behavior { reconnect: Reconnect::After { first, most: first * 10 }, ..Behavior::default() }
}

fn connect_with(addr: SocketAddr, options: Options, behavior: Behavior) -> Result<Client, Error> {
    Connector::new(addr, options)?.behavior(behavior).connect()
}

#[test]
fn messages_go_both_ways_in_all_versions() {
    let broker = Broker::start();
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let client = Client::connect(broker.addr, options(version, "both")).unwrap();
        let all = client.subscribe("a/+", QoS::ExactlyOnce).unwrap();
        for (topic, qos) in [("a/0", QoS::AtMostOnce), ("a/1", QoS::AtLeastOnce), ("a/2", QoS::ExactlyOnce)] {
            let delivery = client.publish(topic, topic.as_bytes(), qos).unwrap();
            assert_eq!(delivery.wait(SECONDS_10).unwrap(), ReasonCode::Success);
            let message = all.recv(SECONDS_10).unwrap().expect("it arrives");
            assert_eq!((message.topic(), message.payload(), message.qos()), (topic, topic.as_bytes(), qos));
        }
        assert!(all.try_recv().unwrap().is_none());
        drop(all);
        client.disconnect(SECONDS_10).unwrap();
    }
}

#[test]
fn mqtt5_4_2_1_over_tcp_the_client_sends_and_gets_large_and_small_messages_in_order() {
    let broker = Broker::start();
    let client = Client::connect(broker.addr, options(Version::V5, "large")).unwrap();
    let all = client.subscribe("#", QoS::AtLeastOnce).unwrap();
    let large = vec![7; 1_000_000];
    client.publish("large", &large, QoS::AtLeastOnce).unwrap();
    for i in 0..3000u32 {
        client.publish("small", &i.to_be_bytes(), QoS::AtLeastOnce).unwrap();
    }
    assert_eq!(all.recv(SECONDS_10).unwrap().unwrap().payload(), large);
    for (i, message) in (0..3000u32).zip(&all) {
        assert_eq!(message.payload(), i.to_be_bytes());
    }
    client.disconnect(SECONDS_10).unwrap();
    assert!(matches!(all.recv(SECONDS_10), Err(Error::Closed)));
}

#[test]
fn a_full_queue_stops_reading_and_loses_nothing() {
    let broker = Broker::start();
    let behavior = Behavior { queue_messages: 4, ..fast() };
    let slow = connect_with(broker.addr, options(Version::V3_1_1, "slow"), behavior).unwrap();
    let all = slow.subscribe("t", QoS::AtLeastOnce).unwrap();
    let client = Client::connect(broker.addr, options(Version::V5, "quick")).unwrap();
    let payload = vec![0; 50_000];
    let sent: Vec<_> = (0..50).map(|_| client.publish("t", &payload, QoS::AtLeastOnce).unwrap()).collect();
    for delivery in sent {
        delivery.wait(SECONDS_10).unwrap();
    }
    assert!(all.len() < 40, "{} wait", all.len());
    assert_eq!(all.into_iter().take(50).count(), 50);
}

#[test]
fn qos_2_survives_broken_connections() {
    let broker = Broker::start();
    let client = connect_with(broker.addr, options(Version::V5, "broken"), fast()).unwrap();
    let all = client.subscribe("t", QoS::ExactlyOnce).unwrap();
    for round in 0..20u32 {
        let sent: Vec<_> = (0..20u32)
            .map(|i| client.publish("t", &(round * 20 + i).to_be_bytes(), QoS::ExactlyOnce).unwrap())
            .collect();
        broker.cut();
        for delivery in sent {
            delivery.wait(SECONDS_10).unwrap();
        }
    }
    for i in 0..400u32 {
        let message = all.recv(SECONDS_10).unwrap().unwrap_or_else(|| panic!("{i} is lost"));
        assert_eq!(message.payload(), i.to_be_bytes());
    }
    assert!(all.try_recv().unwrap().is_none());
}

#[test]
fn subscriptions_are_made_again_when_the_session_is_lost() {
    let broker = Broker::start();
    let clean = Options::new(Version::V3_1_1, "clean");
    let client = connect_with(broker.addr, clean, fast()).unwrap();
    let all = client.subscribe("t", QoS::AtLeastOnce).unwrap();
    broker.cut();
    // Behind the CONNECT, and so behind the new SUBSCRIBE, whenever that is.
    client.publish("t", b"", QoS::AtLeastOnce).unwrap().wait(SECONDS_10).unwrap();
    let deadline = Instant::now() + SECONDS_10;
    while all.recv(Duration::from_millis(50)).unwrap().is_none() {
        assert!(Instant::now() < deadline);
        client.publish("t", b"", QoS::AtLeastOnce).unwrap();
    }
}

#[test]
fn errors_are_told() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = nobody.local_addr().unwrap();
    drop(nobody);
    let refused = Client::connect(addr, options(Version::V5, "x"));
    assert!(matches!(refused, Err(Error::Io(_))), "{refused:?}");

    let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = peer.local_addr().unwrap();
    let answers = [&b"\x20\x02\0\x05"[..], b"HTTP/1.1 400 Bad Request\r\n"];
    let thread = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = peer.accept().unwrap();
            stream.read_exact(&mut [0; 15]).unwrap();
            stream.write_all(answer).unwrap();
        }
        peer
    });
    let connect = || Client::connect(addr, options(Version::V3_1_1, "x"));
    assert!(matches!(connect(), Err(Error::Refused(ReasonCode::NotAuthorized))));
    assert!(matches!(connect(), Err(Error::Disconnected(By::Protocol(_)))));
    let _silent = thread.join();
    let hasty = Options { connect_timeout: Duration::from_millis(50), ..options(Version::V3_1_1, "x") };
    assert!(matches!(Client::connect(addr, hasty), Err(Error::Disconnected(By::Timeout(_)))));
}

#[test]
fn a_client_that_shall_not_reconnect_says_why_it_ended() {
    let broker = Broker::start();
    let behavior = Behavior { reconnect: Reconnect::Never, ..Behavior::default() };
    let client = connect_with(broker.addr, options(Version::V5, "once"), behavior).unwrap();
    let all = client.subscribe("t", QoS::AtMostOnce).unwrap();
    broker.cut();
    assert!(matches!(all.recv(SECONDS_10), Err(Error::Closed)));
    let result = client.publish("t", b"", QoS::AtLeastOnce);
    assert!(matches!(result, Err(Error::Disconnected(By::Transport))), "{result:?}");
}

#[test]
fn a_session_gives_what_it_kept_to_the_subscription_that_comes_with_the_connection() {
    let broker = Broker::start();
    let filters = [("kept/#", SubscribeOptions::new(QoS::AtLeastOnce))];
    let connect = || {
        let options = Options { acknowledge: Acknowledge::Manually, ..options(Version::V5, "keeper") };
        Connector::new(broker.addr, options).unwrap().connect_subscribed(&filters, Properties::EMPTY).unwrap()
    };
    let (keeper, all) = connect();
    let other = Client::connect(broker.addr, options(Version::V5, "other")).unwrap();
    let send = |payload: &[u8]| other.publish("kept/1", payload, QoS::AtLeastOnce).unwrap().wait(SECONDS_10);
    send(b"one").unwrap();
    // Not acknowledged: it comes again.
    assert_eq!(all.recv(SECONDS_10).unwrap().unwrap().payload(), b"one");
    keeper.disconnect(SECONDS_10).unwrap();
    drop(all);
    send(b"two").unwrap();
    for wanted in [&[b"one", b"two"][..], &[b"two"][..]] {
        let (keeper, all) = connect();
        for (i, payload) in wanted.iter().enumerate() {
            let message = all.recv(SECONDS_10).unwrap().unwrap();
            assert_eq!((message.payload(), message.packet_id > 0), (&payload[..], true));
            if i == 0 {
                message.ack();
            }
        }
        keeper.disconnect(SECONDS_10).unwrap();
    }
}

#[test]
fn overlapping_subscriptions_get_what_is_theirs_and_acknowledge_together() {
    let broker = Broker::start();
    let options =
        Options { acknowledge: Acknowledge::Manually, receive_maximum: 1, ..options(Version::V5, "two") };
    let client = Client::connect(broker.addr, options).unwrap();
    let (wide, narrow) =
        (client.subscribe("#", QoS::AtLeastOnce).unwrap(), client.subscribe("a/+", QoS::AtMostOnce).unwrap());
    for payload in [b"1", b"2"] {
        client.publish("a/b", payload, QoS::AtLeastOnce).unwrap().wait(SECONDS_10).unwrap();
        let message = wide.recv(SECONDS_10).unwrap().expect("one place is free");
        assert_eq!(message.payload(), payload);
        message.ack();
        if let Some(message) = narrow.recv(Duration::from_millis(200)).unwrap() {
            assert_eq!(message.payload(), payload);
            message.ack();
        }
    }
}

#[test]
fn several_filters_are_one_subscription() {
    let broker = Broker::start();
    let client = Client::connect(broker.addr, options(Version::V3_1_1, "many")).unwrap();
    let options = SubscribeOptions::new(QoS::AtLeastOnce);
    let all = client.subscribe_all(&[("a", options), ("b/#", options)], Properties::EMPTY).unwrap();
    assert_eq!(all.codes(), [ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS1]);
    for topic in ["a", "c", "b/1"] {
        client.publish(topic, b"", QoS::AtLeastOnce).unwrap();
    }
    assert_eq!(all.recv(SECONDS_10).unwrap().unwrap().topic(), "a");
    assert_eq!(all.recv(SECONDS_10).unwrap().unwrap().topic(), "b/1");
    assert_eq!(client.unsubscribe(&["a", "b/#"], Properties::EMPTY).unwrap(), [ReasonCode::Success; 2]);
}

#[test]
fn what_waits_without_a_connection_is_bounded_and_closing_does_not_wait_for_a_connection() {
    let broker = Broker::start();
    let limits = Options { max_queued_messages: 3, ..options(Version::V5, "offline") };
    let first = Duration::from_secs(100);
    let behavior = Behavior { reconnect: Reconnect::After { first, most: first }, ..Behavior::default() };
    let client = connect_with(broker.addr, limits, behavior).unwrap();
    broker.cut();
    let deadline = Instant::now() + SECONDS_10;
    while client.is_connected() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let request = PublishRequest { topic: "t", qos: QoS::AtLeastOnce, ..PublishRequest::default() };
    let queued = (0..10).take_while(|_| client.publish_with(&request).is_ok()).count();
    assert_eq!(queued, 3);
    let short = Duration::from_millis(50);
    assert!(matches!(client.publish_within(&request, short), Err(Error::Timeout)));
    let begun = Instant::now();
    assert!(matches!(client.disconnect(short), Err(Error::Timeout)));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(matches!(client.publish_with(&request), Err(Error::Closed)));
}

#[test]
fn closing_does_not_wait_for_a_host_that_does_not_answer() {
    let broker = Broker::start();
    let limits = Options { connect_timeout: Duration::from_secs(60), ..options(Version::V5, "stuck") };
    let relay = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = relay.local_addr().unwrap();
    let target = broker.addr;
    let thread = std::thread::spawn(move || {
        // The first connection is a good one until it breaks; the second is accepted and left alone.
        let (mut client, _) = relay.accept().unwrap();
        let mut server = std::net::TcpStream::connect(target).unwrap();
        let mut buffer = [0; 1000];
        let n = client.read(&mut buffer).unwrap();
        server.write_all(&buffer[..n]).unwrap();
        let n = server.read(&mut buffer).unwrap();
        client.write_all(&buffer[..n]).unwrap();
        drop(client);
        relay.accept().unwrap().0
    });
    let client = connect_with(addr, limits, fast()).unwrap();
    let _silent = thread.join().unwrap();
    let begun = Instant::now();
    client.disconnect(SECONDS_10).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
