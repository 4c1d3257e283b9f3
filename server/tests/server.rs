//! A server in this process, and peers that speak to it over TCP.
#![allow(missing_docs)]

mod peer;

use hikyaku::config::{Endpoint, ListenerSettings};
use hikyaku::{Options, Server, StartError};
use hikyaku_proto::broker::Config;
use peer::{Peer, connect, publish, subscribe};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn options(workers: u16, config: Config) -> Options {
    options_at(vec![([127, 0, 0, 1], 0).into()], workers, config)
}

fn options_at(addresses: Vec<SocketAddr>, workers: u16, config: Config) -> Options {
    let endpoint = Endpoint::Tcp { addresses };
    let listeners = vec![ListenerSettings { endpoint, ..Default::default() }];
    Options { listeners, workers, config, ..Options::default() }
}

fn start(workers: u16) -> (Server, SocketAddr) {
    let server = Server::start(options(workers, Config::default())).unwrap();
    let address = server.local_addrs()[0];
    (server, address)
}

/// Ids enough for each of a few workers to be home to some.
fn ids(name: &str) -> impl Iterator<Item = String> {
    (0..12).map(move |i| format!("{name}-{i}"))
}

#[test]
fn everyone_hears_everyone_wherever_they_live() {
    for workers in [1, 2, 3] {
        let (server, address) = start(workers);
        let mut hearers: Vec<Peer> = ids("hearer").map(|id| Peer::connect(address, &id)).collect();
        for hearer in &mut hearers {
            hearer.subscribe("room");
        }
        for id in ids("speaker") {
            let mut speaker = Peer::connect(address, &id);
            speaker.send(&publish("room", id.as_bytes()));
            for hearer in &mut hearers {
                hearer.expect(&publish("room", id.as_bytes()));
            }
        }
        server.shutdown().unwrap();
    }
}

#[test]
fn a_connect_may_come_byte_by_byte() {
    let (_server, address) = start(2);
    for id in ids("slow") {
        let mut peer = Peer::open(address);
        for byte in connect(&id) {
            peer.send(&[byte]);
            std::thread::sleep(Duration::from_micros(300));
        }
        peer.expect(&[0x20, 2, 0, 0]);
        peer.ping();
    }
}

#[test]
fn what_follows_the_connect_at_once_is_handed_over_too() {
    let (_server, address) = start(2);
    for (i, id) in ids("eager").enumerate() {
        let payload = vec![b'x'; [10, 1_000, 100_000, 300_000][i % 4]];
        let topic = format!("topic/{i}");
        let mut all = [connect(&id), subscribe(&topic), publish(&topic, &payload), vec![0xC0, 0]].concat();
        let mut peer = Peer::open(address);
        let rest = all.split_off(if i % 2 == 0 { all.len() } else { 20 });
        peer.send(&all);
        if !rest.is_empty() {
            std::thread::sleep(Duration::from_millis(2));
            peer.send(&rest);
        }
        peer.expect(&[0x20, 2, 0, 0]);
        // The message may overtake both the SUBACK, which waits for all shards, and the PINGRESP.
        let mut got = [peer.packet(), peer.packet(), peer.packet()];
        let mut expected = [vec![0x90, 3, 0, 1, 0], publish(&topic, &payload), vec![0xD0, 0]];
        got.sort();
        expected.sort();
        assert!(got == expected);
    }
}

#[test]
fn who_leaves_at_once_is_forgotten() {
    let (server, address) = start(2);
    for id in ids("gone") {
        drop(Peer::open(address));
        let mut peer = Peer::open(address);
        peer.send(&connect(&id)[..7]);
        drop(peer);
        let mut peer = Peer::open(address);
        peer.send(&[connect(&id), vec![0xE0, 0]].concat());
        peer.expect_end(&[0x20, 2, 0, 0]);
    }
    Peer::connect(address, "stays").ping();
    server.shutdown().unwrap();
}

#[test]
fn a_large_message_reaches_a_reader_that_is_slow() {
    let (_server, address) = start(2);
    let payload: Vec<u8> = (0..1_500_000u32).map(|i| i as u8 ^ (i >> 8) as u8).collect();
    let mut hearers: Vec<Peer> = ids("slow").map(|id| Peer::connect(address, &id)).collect();
    hearers.iter_mut().for_each(|hearer| hearer.subscribe("large"));
    let mut speaker = Peer::connect(address, "speaker");
    speaker.send(&publish("large", &payload));
    speaker.ping();
    std::thread::sleep(Duration::from_millis(50));
    for hearer in &mut hearers {
        hearer.expect(&publish("large", &payload));
        hearer.ping();
    }
}

/// The broker stops reading from a client that does not read its answers, and loses nothing of what it
/// read when the client begins to.
#[test]
fn who_reads_no_answers_is_not_read_and_goes_on_where_it_stopped() {
    const MOST: usize = 256 << 20;
    let (_server, address) = start(2);
    let mut bystander = Peer::connect(address, "bystander");
    let mut deaf = Peer::connect(address, "deaf");
    deaf.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let pings = [0xC0, 0].repeat(1 << 16);
    let mut sent = 0;
    while let Ok(n) = deaf.0.write(&pings[sent % 2..]) {
        sent += n;
        assert!(sent < MOST, "it reads on and on");
    }
    bystander.ping();
    deaf.0.set_write_timeout(None).unwrap();
    let mut writer = deaf.0.try_clone().unwrap();
    // The last ping may have been cut.
    let rest = pings[sent % 2..1000].to_vec();
    let all = sent + rest.len();
    let writer = std::thread::spawn(move || writer.write_all(&rest).unwrap());
    let mut answers = vec![0; 1 << 20];
    let mut got = 0;
    while got < all {
        let n = deaf.0.read(&mut answers).unwrap();
        assert!(n > 0, "{got} of {all}");
        got += n;
    }
    assert_eq!(got, all);
    writer.join().unwrap();
    deaf.ping();
}

#[test]
fn mqtt5_4_2_1_over_tcp_the_broker_gets_many_small_messages_to_their_reader_in_order() {
    let (_server, address) = start(2);
    for id in ids("order").take(4) {
        let mut hearer = Peer::connect(address, &id);
        hearer.subscribe(&id);
        let mut speaker = Peer::connect(address, &format!("{id}-speaker"));
        let message = |i: u32| publish(&id, &i.to_be_bytes());
        // Less than a slow reader may have outstanding, so that none is dropped.
        for burst in (0..20_000).step_by(2_000) {
            let all: Vec<u8> = (burst..burst + 2_000).flat_map(message).collect();
            speaker.send(&all);
            hearer.expect(&all);
        }
    }
}

#[test]
fn who_sends_no_connect_is_closed_in_time() {
    let config = Config { connect_timeout_s: 1, ..Config::default() };
    let server = Server::start(options(2, config)).unwrap();
    let begin = Instant::now();
    let mut silent = Peer::open(server.local_addrs()[0]);
    let mut half = Peer::open(server.local_addrs()[0]);
    half.send(&connect("half")[..9]);
    silent.expect_end(&[]);
    half.expect_end(&[]);
    let waited = begin.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
}

#[test]
fn a_connect_that_does_not_end_is_cut_off() {
    let (_server, address) = start(2);
    let mut peer = Peer::open(address);
    peer.send(&[0x10, 0xFF, 0xFF, 0x7F]);
    // As soon as the broker has seen how much is promised it may close, and what is sent then fails.
    let _ = peer.0.write_all(&vec![b'x'; 100_990]);
    let mut rest = Vec::new();
    let _ = peer.0.read_to_end(&mut rest);
    assert_eq!(rest, []);
}

#[test]
fn a_first_packet_that_is_no_connect_is_cut_off_at_its_first_byte() {
    let (_server, address) = start(2);
    let mut peer = Peer::open(address);
    peer.send(&[0xC0]); // A capital letter might begin an HTTP request.
    peer.expect_end(&[]);
}

#[test]
fn an_address_in_use_is_named() {
    let (_server, address) = start(1);
    let error = Server::start(options_at(vec![address], 1, Config::default())).unwrap_err();
    assert!(matches!(&error, StartError::Listen { address: a, .. } if *a == address.to_string()));
    assert!(error.to_string().starts_with(&format!("Cannot listen on {address}: Address already in use")));
}

#[test]
fn an_address_the_machine_lacks_is_an_error_only_if_it_is_asked_for() {
    // Reserved for documentation: no machine has it [RFC 5737].
    let absent = ([192, 0, 2, 1], 1883).into();
    let here = ([127, 0, 0, 1], 0).into();
    let server = Server::start(options_at(vec![here, absent], 1, Config::default())).unwrap();
    assert_eq!(server.local_addrs().len(), 1);
    let start = |addresses| Server::start(options_at(addresses, 1, Config::default()));
    assert!(matches!(start(vec![absent, here]), Err(StartError::Listen { .. })));
    assert!(matches!(start(vec![]), Err(StartError::NoEndpoint)));
}

#[test]
fn a_server_that_ended_leaves_its_port() {
    let (server, address) = start(2);
    let mut peer = Peer::connect(address, "one");
    server.remote().shutdown();
    server.wait().unwrap();
    let mut end = [0; 16];
    assert!(matches!(peer.0.read(&mut end), Ok(_) | Err(_)));
    let server = Server::start(options_at(vec![address], 2, Config::default())).unwrap();
    Peer::connect(address, "two").ping();
    server.shutdown().unwrap();
}
