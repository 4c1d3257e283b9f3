//! What a listener speaks, and how the first byte says which of it a peer speaks.

use super::acceptor::Acceptor;
use crate::config::{ListenerSettings, Problem, Protocol};
use std::path::Path;

/// What a listener lets in. One for all connections of a listener.
#[derive(Debug)]
pub(crate) struct Gate {
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

impl Gate {
    /// Reads the certificate, if there is one to be.
    pub(crate) fn new(settings: &ListenerSettings, keylog: Option<&Path>) -> Result<Self, Problem> {
        let acceptor = settings.tls.as_ref().map(|tls| Acceptor::load(tls, keylog)).transpose()?;
        let needs_tls = match &settings.tls {
            None => false,
            // Who has to show a certificate cannot do so without TLS.
            Some(tls) => !settings.allow_plaintext || Acceptor::wants_certificates(tls),
        };
        Ok(Gate {
            protocol: settings.protocol,
            acceptor,
            needs_tls,
            origins: settings.websockets_origins.clone(),
            local_only: settings.local_only_default,
            head_bytes_max: settings.websockets_headers_size.max(256),
        })
    }

    /// Reads the certificate again, for handshakes from now on; if it is bad, the one in use stays.
    pub(crate) fn reload(&self) -> Result<(), Problem> {
        self.acceptor.as_ref().map_or(Ok(()), Acceptor::reload)
    }

    /// Whether a file of the certificate is not what it was when it was read.
    pub(crate) fn has_changed(&self) -> bool {
        self.acceptor.as_ref().is_some_and(Acceptor::has_changed)
    }

    /// What a connection speaks that begins with `first`.
    pub(crate) fn detect(&self, first: u8) -> Detected {
        match (first, self.acceptor.is_some()) {
            (TLS_HANDSHAKE, true) => Detected::Tls,
            (TLS_HANDSHAKE, false) => Detected::Refused("TLS on a listener without certificate"),
            (b'A'..=b'Z', _) if self.needs_tls => Detected::HttpWithoutTls,
            _ if self.needs_tls => Detected::Refused("no TLS on a listener with a certificate"),
            _ => self.detect_inside(first),
        }
    }

    /// What is spoken inside TLS.
    pub(super) fn detect_inside(&self, first: u8) -> Detected {
        match first {
            // A method. No CONNECT begins like that.
            b'A'..=b'Z' if self.protocol == Some(Protocol::Mqtt) => {
                Detected::Refused("HTTP on a listener with protocol mqtt")
            }
            b'A'..=b'Z' => Detected::Http,
            _ if self.protocol == Some(Protocol::Websockets) => {
                Detected::Refused("no HTTP on a listener with protocol websockets")
            }
            _ => Detected::Mqtt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(protocol: Option<Protocol>) -> Gate {
        Gate::new(&ListenerSettings { protocol, ..ListenerSettings::default() }, None).unwrap()
    }

    #[test]
    fn the_first_byte_decides() {
        let both = gate(None);
        assert_eq!(both.detect(0x10), Detected::Mqtt);
        assert_eq!(both.detect(b'G'), Detected::Http);
        assert!(matches!(both.detect(0x16), Detected::Refused(_)));
        assert!(matches!(gate(Some(Protocol::Mqtt)).detect(b'G'), Detected::Refused(_)));
        assert!(matches!(gate(Some(Protocol::Websockets)).detect(0x10), Detected::Refused(_)));
    }
}
