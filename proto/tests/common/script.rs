//! The client against scripts of bytes, in virtual time.

use hikyaku_proto::client::*;
use hikyaku_proto::codec::*;
use hikyaku_proto::time::Instant;
use std::time::Duration;

/// A client whose transport is the test.
pub struct Script {
    pub client: Client,
    pub now: Instant,
}

pub fn options(version: Version) -> Options {
    Options { clean_start: false, session_expiry_s: 100, ..Options::new(version, "c") }
}

impl Script {
    pub fn new(options: Options) -> Script {
        let mut script = Script { client: Client::new(options), now: Instant::from_secs(10) };
        script.client.transport_up(script.now);
        script
    }

    /// Connected, with these bytes as CONNACK; what was sent and said until then is dropped.
    pub fn connected(options: Options, connack: &[u8]) -> Script {
        let mut script = Script::new(options);
        script.sent();
        script.receive(connack);
        assert!(script.client.is_connected(), "{:?}", script.events());
        script.events();
        script
    }

    pub fn v4() -> Script {
        Script::connected(options(Version::V3_1_1), b"\x20\x02\0\0")
    }

    pub fn v5() -> Script {
        Script::connected(options(Version::V5), b"\x20\x03\0\0\0")
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.client.handle_bytes(self.now, bytes);
    }

    /// Takes out what the client wants to send.
    pub fn sent(&mut self) -> Vec<u8> {
        let bytes: Vec<u8> = self.client.outbox().chunks().flatten().copied().collect();
        self.client.written(bytes.len());
        bytes
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    pub fn reconnect(&mut self, connack: &[u8]) {
        self.client.transport_down(self.now);
        self.client.transport_up(self.now);
        self.sent();
        self.receive(connack);
    }

    pub fn publish(&mut self, qos: u8, topic: &str) -> Result<Ticket, SendError> {
        let qos = QoS::from_u8(qos).unwrap();
        self.client.publish(self.now, &PublishRequest { topic, payload: b"x", qos, ..Default::default() })
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.client.handle_timeout(self.now);
    }

    /// The client must have closed for this reason, and say so to a 5.0 server.
    pub fn assert_failed(&mut self, reason: ReasonCode) {
        let by = self.disconnected();
        assert!(matches!(by, By::Protocol(error) if error.reason == reason), "{by:?}");
        assert!(self.client.wants_close());
        let sent = self.sent();
        match self.client.options().version {
            Version::V5 => assert!(sent.ends_with(&[0xe0, 1, reason as u8]), "{sent:x?}"),
            _ => assert!(!sent.contains(&0xe0), "a DISCONNECT would delete the will"),
        }
        self.receive(b"\x30\x03\0\x01t");
        self.client.transport_down(self.now);
        let again = self.events().into_iter().any(|e| matches!(e, Event::Disconnected { .. }));
        assert!(!again, "one event per connection");
    }

    pub fn disconnected(&mut self) -> By {
        let events = self.events();
        match events.iter().find(|e| matches!(e, Event::Disconnected { .. })) {
            Some(Event::Disconnected { by, .. }) => *by,
            _ => panic!("not disconnected: {events:?}"),
        }
    }
}

pub fn published(events: &[Event]) -> Vec<(Ticket, ReasonCode)> {
    let done = |event: &Event| match event {
        Event::Published { ticket, reason } => Some((*ticket, *reason)),
        _ => None,
    };
    events.iter().filter_map(done).collect()
}

pub fn messages(events: Vec<Event>) -> Vec<Received> {
    let message = |event| match event {
        Event::Message(received) => Some(received),
        _ => None,
    };
    events.into_iter().filter_map(message).collect()
}
