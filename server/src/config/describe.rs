//! Who may connect where, in a line.

use super::settings::{ListenerSettings, Protocol};

impl ListenerSettings {
    /// Who may connect here, from where, and how: a sentence for the log.
    pub fn describe(&self) -> String {
        let protocol = match self.protocol {
            Some(Protocol::Mqtt) => "MQTT",
            Some(Protocol::Websockets) => "WebSocket",
            None => "MQTT and WebSocket",
        };
        let tls = match &self.tls {
            Some(_) if self.allow_plaintext => ", with and without TLS",
            Some(_) => ", with TLS",
            None => "",
        };
        let from = if self.is_local() { "from this machine" } else { "from anywhere" };
        format!("{}: {protocol}{tls}; {} may connect {from}.", self.endpoint, self.guests())
    }

    fn guests(&self) -> String {
        let passwords = self.security.password_file.as_ref().map(|file| file.display());
        let certificate = self.tls.as_ref().is_some_and(|tls| tls.require_certificate);
        let named =
            self.tls.as_ref().is_some_and(|tls| tls.use_identity_as_username || tls.use_subject_as_username);
        let who = match (self.allows_anonymous(), passwords) {
            _ if named => return "clients named by their certificate".to_owned(),
            (true, None) => "everyone".to_owned(),
            (true, Some(file)) => format!("users of {file}, and everyone without a name,"),
            (false, Some(file)) => format!("users of {file}"),
            (false, None) => return "nobody".to_owned(),
        };
        if certificate { format!("{who} with a certificate") } else { who }
    }
}
