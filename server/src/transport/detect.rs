//! What a listener speaks, and how the first byte says which of it a peer speaks.

use super::acceptor::{Acceptor, KeyLog};
use crate::config::{ListenerSettings, Problem, Protocol};
use std::path::PathBuf;
use std::sync::Arc;

/// What a listener lets in, from one reading of its files to the next.
#[derive(Debug)]
pub(crate) struct Gate {
    settings: ListenerSettings,
    /// The listener, as log lines call it.
    pub(crate) name: Box<str>,
    pub(super) protocol: Option<Protocol>,
    pub(super) acceptor: Option<Acceptor>,
    /// Nothing is taken outside TLS.
    needs_tls: bool,
    /// The origins an upgrade may name; empty allows all.
    pub(super) origins: Vec<String>,
    /// Upgrades of pages that are not this machine's are refused.
    pub(super) local_only: bool,
    pub(super) head_bytes_max: usize,
}

/// What a first byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// MQTT, or nothing known: the shard says what to do with that.
    Mqtt,
    /// An HTTP request, which may become a WebSocket.
    Http,
    /// An HTTP request without TLS where there has to be TLS: it is told so.
    HttpWithoutTls,
    /// A TLS handshake.
    Tls,
    /// Nothing that is spoken here.
    Refused(&'static str),
}

/// The type of a TLS record that carries a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// The first byte of a CONNECT.
const CONNECT: u8 = 0x10;

const CLOSED: &str = "this listener is not configured any more, it is closed at the next start";
const TLS_WITHOUT_CERTIFICATE: &str = "it begins TLS, and this listener has no certificate; let it connect without \
     TLS (mqtt://), or add certfile and keyfile to the listener";
const MQTT_WITHOUT_TLS: &str = "it speaks MQTT without TLS, and this listener has a certificate; let it connect with \
     TLS (mqtts://), or use a listener without certificate";
const NO_TLS: &str = "what it sends is no TLS, which this listener wants as it has a certificate";
pub(super) const HTTP_WITHOUT_TLS: &str = "it speaks HTTP or WebSocket without TLS, and this listener has a \
     certificate; let it connect with TLS (wss://), or use a listener without certificate";
const HTTP_ON_MQTT: &str = "it speaks HTTP or WebSocket, and this listener has 'protocol mqtt'; without that line it \
     takes both";
const MQTT_ON_WEBSOCKETS: &str = "it speaks MQTT as it is, and this listener has 'protocol websockets'; let it \
     connect with WebSocket (ws://), or leave that line out: then it takes both";

impl Gate {
    /// Reads the certificate, if there is one to be. What is remarkable, or wrong, is added to `problems`.
    pub(super) fn new(
        settings: &ListenerSettings,
        keylog: Option<&Arc<KeyLog>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let acceptor = match &settings.tls {
            Some(tls) => Some(Acceptor::load(tls, keylog, problems)?),
            None => None,
        };
        let needs_tls = match &settings.tls {
            None => false,
            // Who has to show a certificate cannot do so without TLS.
            Some(tls) => !settings.allow_plaintext || Acceptor::wants_certificates(tls),
        };
        Some(Gate {
            name: settings.name().into(),
            protocol: settings.protocol,
            acceptor,
            needs_tls,
            origins: settings.websockets_origins.clone(),
            local_only: settings.local_only_default,
            head_bytes_max: settings.websockets_headers_size.max(256),
            settings: settings.clone(),
        })
    }

    /// Reads the certificate again.
    pub(super) fn again(&self, keylog: Option<&Arc<KeyLog>>, problems: &mut Vec<Problem>) -> Option<Self> {
        Gate::new(&self.settings, keylog, problems)
    }

    /// The files of the certificate that are not what they were when they were read, as
    /// [`Watch::changed`](crate::Watch::changed) names them.
    pub(super) fn changed(&self) -> Vec<PathBuf> {
        self.acceptor.as_ref().map_or_else(Vec::new, Acceptor::changed)
    }

    /// What a connection speaks whose first bytes are `start`; one is enough.
    pub(crate) fn detect(&self, start: &[u8]) -> Detected {
        match (start.first(), self.acceptor.is_some()) {
            _ if self.settings.closed => Detected::Refused(CLOSED),
            (Some(&TLS_HANDSHAKE), true) => Detected::Tls,
            (Some(&TLS_HANDSHAKE), false) => Detected::Refused(TLS_WITHOUT_CERTIFICATE),
            _ if self.needs_tls && is_method(start) => Detected::HttpWithoutTls,
            (Some(&CONNECT), _) if self.needs_tls => Detected::Refused(MQTT_WITHOUT_TLS),
            _ if self.needs_tls => Detected::Refused(NO_TLS),
            _ => self.detect_inside(start),
        }
    }

    /// What is spoken inside TLS.
    pub(super) fn detect_inside(&self, start: &[u8]) -> Detected {
        match (is_method(start), self.protocol) {
            (true, Some(Protocol::Mqtt)) => Detected::Refused(HTTP_ON_MQTT),
            (true, _) => Detected::Http,
            (false, Some(Protocol::Websockets)) => Detected::Refused(MQTT_ON_WEBSOCKETS),
            (false, _) => Detected::Mqtt,
        }
    }
}

/// Whether this is the start of a method of HTTP. No CONNECT begins like that; an acknowledgement may have such a
/// first byte, and then a short length.
fn is_method(start: &[u8]) -> bool {
    !start.is_empty() && start.iter().take(2).all(u8::is_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(protocol: Option<Protocol>) -> Gate {
        let settings = ListenerSettings { protocol, ..ListenerSettings::default() };
        Gate::new(&settings, None, &mut Vec::new()).unwrap()
    }

    #[test]
    fn the_first_bytes_decide() {
        let both = gate(None);
        assert_eq!(both.detect(b"\x10"), Detected::Mqtt);
        assert_eq!(both.detect(b"G"), Detected::Http);
        assert_eq!(both.detect(b"GE"), Detected::Http);
        // A PUBREC, which is no first packet: the shard says so.
        assert_eq!(both.detect(b"P\x02\0\x01"), Detected::Mqtt);
        assert!(matches!(both.detect(b"\x16"), Detected::Refused(_)));
        assert!(matches!(gate(Some(Protocol::Mqtt)).detect(b"G"), Detected::Refused(_)));
        assert!(matches!(gate(Some(Protocol::Websockets)).detect(b"\x10"), Detected::Refused(_)));
        let closed = ListenerSettings { closed: true, ..ListenerSettings::default() };
        let closed = Gate::new(&closed, None, &mut Vec::new()).unwrap();
        assert_eq!(closed.detect(b"\x10"), Detected::Refused(CLOSED));
    }
}
