//! Arguments, exit codes, start and end of the broker.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use hikyaku_tests::matrix::{V5, V311};
use hikyaku_tests::process::{Broker, free_port, has_ipv6, run_broker};
use hikyaku_tests::wire::{Wire, publish_1, subscribe};

#[test]
fn unknown_option_is_named_and_exits_with_3() {
    let end = run_broker(["--no-such-option"]);
    assert_eq!(end.code, 3, "{end:?}");
    // The first line is mosquitto's, word for word; more may be said on further lines.
    assert_eq!(end.stderr.lines().next(), Some("Error: Unknown option '--no-such-option'."));
    assert!(end.stderr.lines().count() <= 3, "too much to say about an argument:\n{}", end.stderr);
}

#[test]
fn unusable_values_exit_with_3() {
    let cases = [
        (vec!["-p", "0"], "Error: Invalid port specified (0)."),
        (vec!["-p", "65536"], "Error: Invalid port specified (65536)."),
        (vec!["-c", "/no/such/file"], "Error: Unable to open config file '/no/such/file'."),
    ];
    for (args, message) in cases {
        let end = run_broker(&args);
        assert_eq!(end.code, 3, "{args:?}: {end:?}");
        assert!(end.stderr.lines().any(|line| line.ends_with(message)), "{args:?}: {end:?}");
    }
    for args in [vec!["-p"], vec!["-p", "mqtt"], vec!["--workers", "0"], vec!["--workers", "many"]] {
        let end = run_broker(&args);
        assert_eq!(end.code, 3, "{args:?}: {end:?}");
        assert!(end.stderr.starts_with("Error: "), "{args:?}: {end:?}");
    }
}

#[test]
fn help_prints_the_usage() {
    let end = run_broker(["-h"]);
    assert_eq!(end.code, 0, "{end:?}");
    assert!(end.stdout.contains("Usage: hikyaku"), "{end:?}");
    for option in ["-c", "-p", "-v", "--workers"] {
        assert!(end.stdout.contains(option), "{option} is missing in\n{}", end.stdout);
    }
    assert_eq!(end.stderr, "");
}

#[test]
fn port_in_use_is_named_and_exits_with_1() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let end = run_broker(["-p", &port]);
    assert_eq!(end.code, 1, "{end:?}");
    let named = end.stderr.lines().filter(|line| line.contains(&port) && line.contains("in use"));
    assert_eq!(named.count(), 1, "one line says which port is in use:\n{}", end.stderr);
}

#[test]
fn sigterm_disconnects_clients_and_exits_with_0() {
    for workers in ["1", "2"] {
        let broker = Broker::start(["--workers", workers]);
        let mut new: Vec<_> = (0..8).map(|i| Wire::connected(broker.port, V5, &format!("new-{i}"))).collect();
        let mut old: Vec<_> =
            (0..8).map(|i| Wire::connected(broker.port, V311, &format!("old-{i}"))).collect();
        broker.terminate();
        for client in &mut new {
            let packets = client.until_closed();
            assert_eq!(packets.len(), 1, "{packets:02x?}");
            // DISCONNECT, server shutting down
            assert_eq!((packets[0].first, packets[0].body.first()), (0xe0, Some(&0x8b)), "{packets:02x?}");
        }
        for client in &mut old {
            assert_eq!(client.until_closed(), [], "3.1.1 has no DISCONNECT from the server");
        }
        let end = broker.wait();
        assert_eq!(end.code, 0, "{end:?}");
    }
}

#[test]
fn sigterm_before_any_client_exits_with_0() {
    let broker = Broker::start(["--workers", "2"]);
    broker.terminate();
    let end = broker.wait();
    assert_eq!(end.code, 0, "{end:?}");
}

#[test]
fn a_stopped_broker_leaves_its_port() {
    let first = Broker::start::<&str>([]);
    let port = first.port;
    let _client = Wire::connected(port, V311, "client");
    first.terminate();
    assert_eq!(first.wait().code, 0);
    // Connections in TIME_WAIT do not keep the port.
    let second = Broker::start_at(port);
    Wire::connected(second.port, V311, "client");
}

#[test]
fn listens_on_both_loopback_addresses() {
    for workers in ["1", "2"] {
        let mut broker = Broker::start(["--workers", workers]);
        if !has_ipv6() {
            assert!(broker.log().contains("::1"), "no warning about IPv6 in:\n{}", broker.log());
            continue;
        }
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, broker.port));
        broker.wait_accepts(v6);
        let mut subscriber = Wire::open_at(v6);
        subscriber.send(hikyaku_tests::wire::connect(V5, "subscriber", 0));
        subscriber.expect_accepted();
        exchange(&mut subscriber, &mut Wire::connected(broker.port, V5, "publisher"));
    }
}

#[test]
fn two_ports_are_one_broker() {
    let port = free_port();
    let mut broker = Broker::start(["-p", &port.to_string()]);
    broker.wait_accepts(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    assert_ne!(broker.port, port);
    let mut subscriber = Wire::connected(port, V5, "subscriber");
    exchange(&mut subscriber, &mut Wire::connected(broker.port, V5, "publisher"));
}

/// One message from one 5.0 client to another, byte for byte.
fn exchange(subscriber: &mut Wire, publisher: &mut Wire) {
    subscriber.send(subscribe(V5, 1, "x", 1));
    subscriber.expect([0x90, 4, 0, 1, 0, 1]);
    publisher.send(publish_1(V5, 9, "x", b"hi"));
    subscriber.expect(publish_1(V5, 1, "x", b"hi"));
    publisher.expect([0x40, 2, 0, 9]);
}
