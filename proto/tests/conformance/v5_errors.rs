//! MQTT 5.0, 4.13: malformed packets, protocol errors, and how connections end for them.

use crate::common::script::{Script, options};
use crate::common::{Rig, both, quiet};
use crate::v5_acks::guarded;
use hikyaku_proto::broker::{Config, Listener, ListenerLimits};
use hikyaku_proto::client::By;
use hikyaku_proto::codec::{QoS, ReasonCode, Version};

#[test]
fn mqtt5_4_13_1_1_an_error_with_a_reason_code_closes_the_connection() {
    let limits = ListenerLimits { max_qos: QoS::AtLeastOnce, ..ListenerLimits::default() };
    let mut config =
        Config { max_packet_size: 90, max_inflight_messages: 1, retain_available: false, ..guarded() };
    config.listeners[0] = Listener { limits, ..config.listeners[0].clone() };
    for (packet, reason) in [
        // Malformed Packet: flags, strings, lengths.
        ("RAW 36 06 00 01 74 00 01 00", "0x81"),
        ("RAW 60 02 00 01", "0x81"),
        ("RAW 82 07 00 01 00 00 05 74 00", "0x81"),
        ("RAW 30 05 00 05 74 00 00", "0x81"),
        ("RAW 30 06 00 01 74 7f 00 00", "0x81"),
        // Protocol Error: packets that come too late or from the wrong side, properties twice, what must not be 0.
        ("RAW 10 0e 00 04 4d 51 54 54 05 02 00 00 00 00 01 61", "0x82"),
        ("RAW 20 03 00 00 00", "0x82"),
        ("RAW 30 09 00 01 74 05 01 00 01 00 78", "0x82"),
        ("RAW 32 07 00 01 74 00 00 00 78", "0x82"),
        ("RAW 82 09 00 01 02 0b 00 00 01 74 00", "0x82"),
        ("DISCONNECT expiry=7", "0x82"),
        ("AUTH 0x18", "0x82"),
        // Those with a reason code of their own.
        ("PUBLISH t x alias=11", "0x94"),
        ("PUBLISH t size=90", "0x95"),
        ("PUBLISH t x r", "0x9a"),
        ("PUBLISH t x q2 id=1", "0x9b"),
    ] {
        let mut rig = Rig::new(1, 0, config.clone());
        rig.run("a> CONNECT a v5\n a< CONNACK 0");
        rig.run(&format!("a> {packet}; PINGREQ\n a< DISCONNECT {reason}; CLOSED"));
    }
    // In CONNECT it is CONNACK that tells.
    for (connect, reason) in [
        ("CONNECT a v5 rm=0", "0x82"),
        ("CONNECT a v5 will=t,x,q2", "0x9b"),
        ("CONNECT a v5 will=t,x,r", "0x9a"),
        ("CONNECT a v5 will=closed/t,x", "0x87"),
    ] {
        Rig::new(1, 0, config.clone()).run(&format!("a> {connect}; PINGREQ\n a< CONNACK {reason}; CLOSED"));
    }
    // The client closes for the same reasons.
    for (bytes, reason) in [
        (&b"\x36\x06\0\x01t\0\x01\0"[..], ReasonCode::MalformedPacket),
        (b"\xd1\0", ReasonCode::MalformedPacket),
        (b"\x30\x05\0\x05t\0\0", ReasonCode::MalformedPacket),
        (b"\xc0\0", ReasonCode::ProtocolError),
        (b"\x20\x03\0\0\0", ReasonCode::ProtocolError),
        (b"\x30\x07\0\x01t\x03\x23\0\x0b", ReasonCode::TopicAliasInvalid),
    ] {
        let mut script = Script::v5();
        script.receive(bytes);
        script.assert_failed(reason);
    }
}

#[test]
fn mqtt5_4_13_2_1_an_error_closes_the_connection_whether_or_not_it_can_be_told() {
    // A transport that takes no more bytes.
    let mut rig = Rig::new(1, 0, quiet());
    rig.run("a> CONNECT a v5\n a< CONNACK 0");
    rig.pipe("a").takes = Some(0);
    rig.run("a> RAW c1 00\n a< CLOSED");
    rig.send("b", "CONNECT b v5 rm=0");
    rig.pipe("b").takes = Some(0);
    rig.run("b< CLOSED");
    // A CONNACK that is larger than the client takes.
    rig.run("c> CONNECT c v5 mps=4\n c< CLOSED");
    // 3.1.1 has no DISCONNECT of a server.
    both(&quiet(), "a> CONNECT a {5}; RAW c1 00\n a< CONNACK 0; {5:DISCONNECT 0x81; }CLOSED");
    // The server does not wait for the client to go, nor the client for the server.
    let mut script = Script::v5();
    script.receive(b"\xd1\0");
    let at = script.client.poll_timeout().unwrap();
    script.client.handle_timeout(at);
    assert!(script.client.wants_close() && script.sent().is_empty());
    for (bytes, reason) in
        [(b"\xe0\x01\x8b", ReasonCode::ServerShuttingDown), (b"\xe0\x01\x89", ReasonCode::ServerBusy)]
    {
        let mut script = Script::v5();
        script.receive(bytes);
        assert_eq!(script.disconnected(), By::Peer(reason));
        assert!(script.client.wants_close() && script.sent().is_empty());
    }
    for reason in [0x80, 0x87, 0x8a, 0x9f] {
        let mut script = Script::new(options(Version::V5));
        script.sent();
        script.receive(&[0x20, 3, 0, reason, 0]);
        assert!(script.client.wants_close() && script.sent().is_empty());
    }
}
