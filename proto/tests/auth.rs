//! Enhanced authentication: the statements of sections 3.15 and 4.12 of MQTT 5.0, for a broker and (`…_a_client_…`) for
//! a client, and what follows from them.

mod common;

use common::script::{Script, options};
use common::{Rig, quiet};
use hikyaku_proto::broker::{
    AUTH_ROUNDS_MAX, AuthStep, Authenticate, Authentication, Config, Listener, Verdict,
};
use hikyaku_proto::client::{self, Event, SendError};
use hikyaku_proto::codec::{ReasonCode, Version};

fn asking() -> Rig {
    let listeners = vec![Listener { authentication: Authentication::Ask, ..Listener::default() }];
    Rig::new(1, 0, Config { listeners, ..quiet() })
}

fn go_on(data: &str) -> Verdict {
    Verdict::Continue { data: data.into() }
}

fn success(username: Option<&str>, data: &str) -> Verdict {
    Verdict::Success { username: username.map(Box::from), data: Some(data.into()) }
}

const NO: Verdict = Verdict::Failure(ReasonCode::NotAuthorized);

/// The only question there is.
fn asked(rig: &mut Rig) -> Authenticate {
    assert_eq!(rig.asked.len(), 1);
    rig.asked.remove(0)
}

/// Client `a`, let in as `ann` under method `M`.
fn authenticated() -> Rig {
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 method=M data=1\n a<");
    asked(&mut rig);
    rig.authenticated("a", success(Some("ann"), "2"));
    rig.run("a< CONNACK 0 method=M data=2");
    rig
}

#[test]
fn mqtt5_4_12_0_1_an_unsupported_method_is_refused() {
    let mut rig = Rig::new(1, 0, quiet());
    rig.run("a> CONNECT a clean v5 method=M data=1\n a< CONNACK 0x8c; CLOSED");
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 method=M data=1\n a<");
    rig.authenticated("a", Verdict::Failure(ReasonCode::BadAuthenticationMethod));
    rig.run("a< CONNACK 0x8c; CLOSED");
}

#[test]
fn mqtt5_4_12_0_2_the_server_continues_with_0x18() {
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 method=M data=1 user=u pass=p; AUTH 0x18 method=M data=3\n a<");
    let ask = asked(&mut rig);
    assert_eq!((ask.step, ask.method.as_deref()), (AuthStep::Connect, Some("M")));
    assert_eq!((ask.data.as_deref(), ask.password.as_deref()), (Some(&b"1"[..]), Some(&b"p"[..])));
    assert_eq!((ask.client_id.as_str(), ask.username.as_deref()), ("a", Some("u")));
    rig.authenticated("a", go_on("2"));
    rig.run("a< AUTH 0x18 method=M data=2");
    let ask = asked(&mut rig);
    assert_eq!((ask.step, ask.method.as_deref()), (AuthStep::Continue, Some("M")));
    assert_eq!((ask.data.as_deref(), ask.password), (Some(&b"3"[..]), None));
    assert_eq!((ask.client_id.as_str(), ask.username.as_deref()), ("a", Some("u")));
    rig.authenticated("a", go_on("4"));
    rig.run("a< AUTH 0x18 method=M data=4\n a> AUTH 0x18 method=M; PINGREQ\n a<");
    assert_eq!(asked(&mut rig).data, None);
    rig.authenticated("a", success(None, "6"));
    rig.run("a< CONNACK 0 method=M data=6; PINGRESP");
}

#[test]
fn mqtt5_4_12_0_3_the_client_continues_with_0x18() {
    for wrong in ["0x19", "0"] {
        let mut rig = asking();
        rig.run("a> CONNECT a clean v5 method=M\n a<");
        rig.authenticated("a", go_on("2"));
        rig.run(&format!(
            "a< AUTH 0x18 method=M data=2\n a> AUTH {wrong} method=M data=3\n a< CONNACK 0x82; CLOSED"
        ));
        assert_eq!(rig.asked.len(), 1);
    }
}

#[test]
fn mqtt5_4_12_0_4_the_server_refuses_at_any_point() {
    for rounds in 0..3 {
        let mut rig = asking();
        rig.run("a> CONNECT a clean v5 method=M will=w,x\n a<");
        for _ in 0..rounds {
            rig.authenticated("a", go_on("?"));
            rig.run("a< AUTH 0x18 method=M data=?\n a> AUTH 0x18 method=M data=!");
        }
        rig.authenticated("a", Verdict::Failure(ReasonCode::BadUserNameOrPassword));
        rig.run("a< CONNACK 0x86; CLOSED");
        assert_eq!(rig.sum(|c| c.clients_total), 0);
    }
}

#[test]
fn mqtt5_4_12_0_5_the_method_stays_the_same() {
    for (auth, code) in [("method=N data=3", "0x8c"), ("", "0x82")] {
        let mut rig = asking();
        rig.run("a> CONNECT a clean v5 method=M\n a<");
        rig.authenticated("a", go_on("2"));
        rig.run(&format!("a< AUTH 0x18 method=M data=2\n a> AUTH 0x18 {auth}\n a< CONNACK {code}; CLOSED"));
    }
}

#[test]
fn mqtt5_4_12_0_6_without_a_method_the_server_sends_none() {
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 user=u\n a<\n b> CONNECT b clean v5\n b<");
    rig.authenticated("a", success(Some("ann"), "2"));
    rig.authenticated("b", go_on("2"));
    rig.run("a< CONNACK 0\n b< CONNACK 0x87; CLOSED");
    // Nothing that was not asked is answered.
    rig.authenticated("a", go_on("2"));
    rig.authenticated("a", NO);
    rig.run("a> PINGREQ\n a< PINGRESP");
}

#[test]
fn mqtt5_4_12_0_7_without_a_method_an_auth_is_a_protocol_error() {
    for auth in ["AUTH 0x18", "AUTH 0x19", "AUTH 0x19 method=M data=x", "RAW f0 02 fe 00", "RAW f0 00"] {
        let mut rig = asking();
        rig.run("a> CONNECT a clean v5 user=u\n a<");
        rig.authenticated("a", success(None, ""));
        rig.run(&format!("a< CONNACK 0\n a> {auth}\n a< DISCONNECT 0x82; CLOSED"));
    }
}

#[test]
fn mqtt5_4_12_1_1_reauthentication_begins_with_0x19_and_the_same_method() {
    let mut rig = authenticated();
    rig.run("a> AUTH 0x19 method=M data=3\n a<");
    let ask = asked(&mut rig);
    assert_eq!((ask.step, ask.method.as_deref()), (AuthStep::Reauthenticate, Some("M")));
    assert_eq!((ask.data.as_deref(), ask.username.as_deref()), (Some(&b"3"[..]), Some("ann")));
    assert_eq!((ask.client_id.as_str(), ask.password), ("a", None));
    rig.authenticated("a", go_on("4"));
    // [MQTT-4.12.1-2]: what the client had the right to it does meanwhile.
    rig.run(
        "a< AUTH 0x18 method=M data=4
         a> SUBSCRIBE id=1 t; PUBLISH t x; AUTH 0x18 method=M data=5; PINGREQ
         a< SUBACK 1 0; PUBLISH t x; PINGRESP",
    );
    assert_eq!(asked(&mut rig).step, AuthStep::Continue);
    rig.authenticated("a", success(Some("ann"), "6"));
    rig.run("a< AUTH 0x00 method=M data=6\n a> AUTH 0x19 method=M data=7\n a<");
    assert_eq!(asked(&mut rig).step, AuthStep::Reauthenticate);
    rig.authenticated("a", success(None, "8"));
    rig.run("a< AUTH 0x00 method=M data=8");
    for (auth, code) in [("method=N data=3", "0x8c"), ("", "0x82")] {
        authenticated().run(&format!("a> AUTH 0x19 {auth}\n a< DISCONNECT {code}; CLOSED"));
    }
}

#[test]
fn mqtt5_4_12_1_2_a_failed_reauthentication_ends_the_connection() {
    for (reason, code) in [
        (ReasonCode::NotAuthorized, "0x87"),
        (ReasonCode::BadAuthenticationMethod, "0x8c"),
        // Not one of DISCONNECT.
        (ReasonCode::BadUserNameOrPassword, "0x87"),
    ] {
        let mut rig = authenticated();
        rig.run("a> AUTH 0x19 method=M\n a<");
        rig.authenticated("a", Verdict::Failure(reason));
        rig.run(&format!("a< DISCONNECT {code}; CLOSED"));
        assert_eq!(rig.sum(|c| c.clients_connected), 0);
    }
    let mut rig = authenticated();
    rig.run("a> AUTH 0x19 method=M\n a<");
    rig.authenticated("a", success(Some("bob"), ""));
    rig.run("a< DISCONNECT 0x87; CLOSED");
}

#[test]
fn mqtt5_3_15_1_1_reserved_bits_are_malformed() {
    let mut rig = authenticated();
    rig.run("a> RAW f1 06 19 04 15 00 01 4d\n a< DISCONNECT 0x81; CLOSED");
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 method=M\n a<");
    rig.authenticated("a", go_on("2"));
    rig.run("a< AUTH 0x18 method=M data=2\n a> RAW f1 06 18 04 15 00 01 4d\n a< CONNACK 0x81; CLOSED");
}

#[test]
fn mqtt5_3_15_2_1_other_reason_codes_are_refused() {
    authenticated().run("a> RAW f0 06 04 04 15 00 01 4d\n a< DISCONNECT 0x82; CLOSED");
    authenticated().run("a> RAW f0 06 fe 04 15 00 01 4d\n a< DISCONNECT 0x82; CLOSED");
    // Success is the server's to say.
    authenticated().run("a> AUTH 0 method=M\n a< DISCONNECT 0x82; CLOSED");
    authenticated().run("a> AUTH\n a< DISCONNECT 0x82; CLOSED");
}

#[test]
fn nothing_but_auth_and_disconnect_comes_before_the_connack() {
    for (packet, answer) in [
        ("PINGREQ", "CONNACK 0x82; CLOSED"),
        ("PUBLISH t x", "CONNACK 0x82; CLOSED"),
        ("SUBSCRIBE id=1 t", "CONNACK 0x82; CLOSED"),
        ("CONNECT a clean v5 method=M", "CONNACK 0x82; CLOSED"),
        ("RAW d0 00", "CONNACK 0x82; CLOSED"),
        ("DISCONNECT", "CLOSED"),
    ] {
        let mut rig = asking();
        rig.run("a> CONNECT a clean v5 method=M will=t,x\n a<\n w> CONNECT w clean\n w<");
        rig.authenticated("w", success(None, ""));
        rig.run("w< CONNACK 0\n w> SUBSCRIBE id=1 t\n w< SUBACK 1 0");
        rig.authenticated("a", go_on("2"));
        rig.run(&format!("a< AUTH 0x18 method=M data=2\n a> {packet}\n a< {answer}"));
        assert_eq!(rig.sum(|c| c.clients_connected), 1);
    }
}

#[test]
fn an_auth_out_of_turn_is_a_protocol_error() {
    // While the driver ponders over a re-authentication.
    let mut rig = authenticated();
    rig.run("a> AUTH 0x19 method=M\n a<\n a> AUTH 0x19 method=M\n a< DISCONNECT 0x82; CLOSED");
    let mut rig = authenticated();
    rig.run("a> AUTH 0x19 method=M\n a<\n a> AUTH 0x18 method=M\n a< DISCONNECT 0x82; CLOSED");
    // Begun anew where an answer is awaited, and an answer to nothing.
    let mut rig = authenticated();
    rig.run("a> AUTH 0x19 method=M\n a<");
    rig.authenticated("a", go_on("4"));
    rig.run("a< AUTH 0x18 method=M data=4\n a> AUTH 0x19 method=M\n a< DISCONNECT 0x82; CLOSED");
    authenticated().run("a> AUTH 0x18 method=M\n a< DISCONNECT 0x82; CLOSED");
    // 3.1.1 has no AUTH.
    let mut rig = Rig::new(1, 0, quiet());
    rig.run("a> CONNECT a clean\n a< CONNACK 0\n a> RAW f0 00\n a< CLOSED");
}

#[test]
fn the_time_for_connect_covers_all_steps() {
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 method=M\n +4s\n a<");
    rig.authenticated("a", go_on("2"));
    rig.run("a< AUTH 0x18 method=M data=2\n +4s\n a> AUTH 0x18 method=M\n a<");
    rig.authenticated("a", go_on("3"));
    rig.run("a< AUTH 0x18 method=M data=3\n +1s\n a<\n +2s\n a< CLOSED");
}

#[test]
fn a_reauthentication_has_to_end_in_time() {
    for pondered in [false, true] {
        let mut rig = authenticated();
        rig.run("+100s\n a> AUTH 0x19 method=M\n a<");
        if !pondered {
            rig.authenticated("a", go_on("4"));
            rig.run("a< AUTH 0x18 method=M data=4");
        }
        rig.run("+9s\n a> PINGREQ\n a< PINGRESP\n +2s\n a< DISCONNECT 0x87; CLOSED");
        rig.authenticated("a", success(None, ""));
    }
    // One that has is not remembered.
    let mut rig = authenticated();
    rig.run("a> AUTH 0x19 method=M\n a<");
    rig.authenticated("a", success(None, ""));
    rig.run("a< AUTH 0x00 method=M data=\n +100s\n a> PINGREQ\n a< PINGRESP");
}

#[test]
fn steps_are_counted() {
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 method=M\n a<");
    for _ in 0..AUTH_ROUNDS_MAX {
        rig.authenticated("a", go_on("?"));
        rig.run("a< AUTH 0x18 method=M data=?\n a> AUTH 0x18 method=M");
    }
    rig.authenticated("a", go_on("?"));
    rig.run("a< CONNACK 0x87; CLOSED");
    // Each re-authentication counts its own.
    let mut rig = authenticated();
    for _ in 0..AUTH_ROUNDS_MAX {
        rig.run("a> AUTH 0x19 method=M\n a<");
        rig.authenticated("a", go_on("?"));
        rig.run("a< AUTH 0x18 method=M data=?\n a> AUTH 0x18 method=M\n a<");
        rig.authenticated("a", success(None, "."));
        rig.run("a< AUTH 0x00 method=M data=.");
    }
}

/// The bytes of an AUTH of the broker, to a client with this limit and this Request Problem Information: method and data.
fn method_and_data_alone(most: u32, rpi: u8) {
    let mut rig = asking();
    rig.run(&format!("a> CONNECT a clean v5 method=M mps={most} rpi={rpi}\n a<"));
    rig.authenticated("a", go_on("2"));
    assert_eq!(rig.pipe("a").down, b"\xf0\x0a\x18\x08\x15\0\x01M\x16\0\x012");
}

#[test]
fn mqtt5_3_15_2_2_the_broker_sends_no_reason_string_whatever_fits() {
    for most in [12, 40, 1_000_000] {
        method_and_data_alone(most, 1);
    }
}

#[test]
fn mqtt5_3_15_2_3_the_broker_sends_no_user_properties_whatever_fits() {
    for rpi in [0, 1] {
        method_and_data_alone(1_000_000, rpi);
    }
    // Nor does the client.
    let mut script = Script::new(with_method());
    script.sent();
    script.receive(b"\xf0\x0a\x18\x08\x15\0\x01M\x16\0\x01s");
    let now = script.now;
    script.client.authenticate(now, b"2").unwrap();
    assert_eq!(script.sent(), b"\xf0\x0a\x18\x08\x15\0\x01M\x16\0\x012");
}

#[test]
fn a_step_larger_than_the_client_takes_ends_it() {
    let long = "x".repeat(100);
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 method=M mps=60\n a<");
    rig.authenticated("a", go_on(&long));
    rig.run("a< CONNACK 0x95; CLOSED");
    let mut rig = asking();
    rig.run("a> CONNECT a clean v5 method=M mps=60\n a<");
    rig.authenticated("a", success(None, "1"));
    rig.run("a< CONNACK 0 method=M data=1\n a> AUTH 0x19 method=M\n a<");
    rig.authenticated("a", go_on(&long));
    rig.run("a< DISCONNECT 0x95; CLOSED");
}

#[test]
fn who_does_not_read_its_answers_is_not_read() {
    let listeners = vec![Listener { authentication: Authentication::Ask, ..Listener::default() }];
    let config =
        Config { listeners, output_hard_bytes: 500, output_soft_bytes: 100, max_packet_size: 300, ..quiet() };
    let mut rig = Rig::new(1, 0, config);
    rig.run("a> CONNECT a clean v5 method=M\n a<");
    rig.authenticated("a", success(None, "1"));
    rig.run("a< CONNACK 0 method=M data=1");
    rig.asked.clear();
    rig.take_more("a", Some(0));
    let mut rounds = 0;
    while !rig.pipe("a").paused {
        rig.run("a> AUTH 0x19 method=M");
        if rig.asked.pop().is_some() {
            rig.authenticated("a", success(None, &"y".repeat(100)));
        }
        rounds += 1;
        assert!(rounds < 20, "it takes AUTHs without end");
    }
}

/// Options of a client with method `M` and `1` to begin with.
fn with_method() -> client::Options {
    let authentication = client::Authentication { method: "M".into(), data: Some(b"1".to_vec()) };
    client::Options { authentication: Some(authentication), ..options(Version::V5) }
}

/// A CONNACK under method `M`.
const CONNACK: &[u8] = b"\x20\x07\0\0\x04\x15\0\x01M";

#[test]
fn mqtt5_4_12_0_3_a_client_continues_with_0x18() {
    let mut script = Script::new(with_method());
    assert_eq!(script.client.authenticate(script.now, b"2"), Err(SendError::NotAuthenticating), "too early");
    let connect = script.sent();
    assert!(connect.windows(8).any(|w| w == b"\x15\0\x01M\x16\0\x011"));
    script.receive(b"\xf0\x0a\x18\x08\x15\0\x01M\x16\0\x01s");
    let events = script.events();
    let [Event::Auth { reason: ReasonCode::ContinueAuthentication, properties }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(properties.as_properties().authentication_data(), Some(&b"s"[..]));
    script.client.authenticate(script.now, b"2").unwrap();
    assert_eq!(script.sent(), b"\xf0\x0a\x18\x08\x15\0\x01M\x16\0\x012");
    assert_eq!(script.client.authenticate(script.now, b"2"), Err(SendError::NotAuthenticating), "once");
}

#[test]
fn mqtt5_4_12_0_5_a_client_insists_on_its_method() {
    for bytes in [
        &b"\xf0\x06\x18\x04\x15\0\x01N"[..],
        b"\xf0\x02\x18\0",
        b"\x20\x07\0\0\x04\x15\0\x01N",
        b"\x20\x03\0\0\0",
    ] {
        let mut script = Script::new(with_method());
        script.receive(bytes);
        script.assert_failed(ReasonCode::ProtocolError);
    }
}

#[test]
fn mqtt5_4_12_0_6_a_client_without_a_method_takes_none() {
    for bytes in [&b"\xf0\x06\x18\x04\x15\0\x01M"[..], CONNACK] {
        let mut script = Script::new(options(Version::V5));
        script.receive(bytes);
        script.assert_failed(ReasonCode::ProtocolError);
    }
    let mut script = Script::v5();
    script.receive(b"\xf0\x06\x18\x04\x15\0\x01M");
    script.assert_failed(ReasonCode::ProtocolError);
}

#[test]
fn mqtt5_4_12_0_7_a_client_without_a_method_sends_no_auth() {
    for mut script in [Script::v5(), Script::v4()] {
        assert_eq!(script.client.authenticate(script.now, b""), Err(SendError::NotAuthenticating));
        assert_eq!(script.client.reauthenticate(script.now, b""), Err(SendError::NotAuthenticating));
        assert!(script.sent().is_empty());
    }
}

#[test]
fn mqtt5_4_12_1_1_a_client_authenticates_anew_after_the_connack() {
    let mut script = Script::new(with_method());
    assert_eq!(script.client.reauthenticate(script.now, b"2"), Err(SendError::NotConnected));
    script.sent();
    script.receive(CONNACK);
    script.client.reauthenticate(script.now, b"3").unwrap();
    assert_eq!(script.sent(), b"\xf0\x0a\x19\x08\x15\0\x01M\x16\0\x013");
}

#[test]
fn mqtt5_4_12_1_2_a_client_ends_where_the_server_refuses_it_anew() {
    let mut script = Script::connected(with_method(), CONNACK);
    script.client.reauthenticate(script.now, b"2").unwrap();
    script.receive(b"\xe0\x02\x87\0");
    assert_eq!(script.disconnected(), client::By::Peer(ReasonCode::NotAuthorized));
    assert!(script.client.wants_close());
}
