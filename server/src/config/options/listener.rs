//! Doors, and what is behind them.

use super::Scope::{Global, Listener, ListenerOrDefault};
use super::{ANY_BOOL, ANY_TEXT, Spec, Takes};
use crate::config::ciphers::{self, List};
use crate::config::draft::{Domain, Draft};
use crate::config::lines::Value;
use crate::config::settings::{Protocol, TlsVersion};
use crate::config::{Severity, number};
use hikyaku_proto::broker::AcceptedVersions;
use hikyaku_proto::topic::TopicName;
use rustls::CipherSuite;

const INSTEAD_OF_ENGINES: &str =
    "TLS keys are read from files here, not from an engine. Use 'certfile' and 'keyfile'.";
const PROXY: &str = "The PROXY protocol is not supported yet: connections would fail. Until then let the proxy pass \
     plain TCP on; clients then have its address.";

fn listener(draft: &mut Draft, value: &mut Value) -> Result<(), String> {
    let port = number("listener port", &value.word())?;
    let port = u16::try_from(port).map_err(|_| format!("Invalid 'port' value ({port})."))?;
    let address = value.path_word();
    let (comment, at) = (value.comment().to_owned(), draft.at.clone());
    let door = draft.add_door(at);
    door.comment = comment;
    door.port = port;
    if port == 0 {
        let path = address.ok_or_else(|| {
            "A listener with port 0 must provide a Unix socket path. Write: listener 0 /run/hikyaku/mqtt.sock"
                .to_owned()
        })?;
        door.unix = Some(path.into());
    } else {
        door.host = address;
    }
    Ok(())
}

fn protocol(draft: &mut Draft, value: &mut Value) -> Result<(), String> {
    let at = value.at().clone();
    let word = value.word().ok_or_else(|| "Empty 'protocol' value in configuration.".to_owned())?;
    let door = draft.door();
    door.protocol_at = Some(at);
    door.settings.protocol = Some(match word.as_str() {
        "mqtt" => Protocol::Mqtt,
        "websockets" => Protocol::Websockets,
        "http_api" => {
            return Err("Invalid 'protocol' value (http_api). There is no HTTP interface here; \
                        subscribe to $SYS/# instead."
                .to_owned());
        }
        _ => {
            return Err(format!(
                "Invalid 'protocol' value ({word}). It can be mqtt or websockets; without it a listener takes both."
            ));
        }
    });
    Ok(())
}

fn accept_protocol_versions(draft: &mut Draft, value: &mut Value) -> Result<(), String> {
    let name = "accept_protocol_versions";
    if !draft.has_door() || draft.is_at_default_door() {
        return Err(format!("The '{name}' option requires a listener to be defined first."));
    }
    let mut accepted = AcceptedVersions { v3_1: false, v3_1_1: false, v5: false };
    let mut is_empty = true;
    while let Some(words) = value.word() {
        for word in words.split(',').filter(|w| !w.is_empty()) {
            is_empty = false;
            match word {
                "3" => accepted.v3_1 = true,
                "4" => accepted.v3_1_1 = true,
                "5" => accepted.v5 = true,
                _ => return Err(format!("Invalid '{name}' value ({word}). It can be 3, 4 and 5.")),
            }
        }
    }
    if is_empty {
        return Err(format!("Empty '{name}' value in configuration."));
    }
    draft.door().core.limits.versions = accepted;
    Ok(())
}

fn tls_version(draft: &mut Draft, value: &mut Value) -> Result<(), String> {
    let word = value.word().ok_or_else(|| "Empty 'tls_version' value in configuration.".to_owned())?;
    draft.door().tls_version = Some(match word.as_str() {
        "tlsv1.2" => TlsVersion::V1_2,
        "tlsv1.3" => TlsVersion::V1_3,
        "tlsv1.1" | "tlsv1" => {
            return Err(format!(
                "Invalid 'tls_version' value ({word}). It is broken; use tlsv1.2 or tlsv1.3."
            ));
        }
        _ => return Err(format!("Invalid 'tls_version' value ({word}). It can be tlsv1.2 or tlsv1.3.")),
    });
    Ok(())
}

pub(super) const OPTIONS: &[Spec] = &[
    Spec::supported(
        "listener",
        Global,
        Takes::Words(listener),
        "1883, for this machine only",
        "`listener PORT [ADDRESS]` opens a port, on all addresses (v4 and v6) or on one; `listener 0 PATH` opens a \
         unix socket. Options that are about a listener follow it. Who may write to the file of a unix socket may \
         connect: its mode is 0777 without the bits of the umask, its owner whoever opens it (root, if `user` is given; \
         with the package's unit, which has the umask 0027, `hikyaku`, and nobody else connects until the unit says \
         `UMask=0007` and they are in its group).",
    )
    .adds(),
    Spec::supported(
        "port",
        Global,
        Takes::Number {
            least: 1,
            most: 65535,
            message: "",
            set: |draft, n| draft.open_default_door().port = n as u16,
        },
        "1883",
        "The port of the default listener, which it opens to other machines. Better use `listener`.",
    ),
    Spec::supported(
        "bind_address",
        Global,
        Takes::Words(|draft, value| {
            let host = value
                .word()
                .ok_or_else(|| "Empty 'default listener bind_address' value in configuration.".to_owned())?;
            draft.open_default_door().host = Some(host);
            Ok(())
        }),
        "all addresses",
        "The address of the default listener. Better use `listener`.",
    ),
    Spec::supported(
        "protocol",
        ListenerOrDefault,
        Takes::Words(protocol),
        "both",
        "`mqtt` or `websockets`; without it the first bytes of a connection decide. (mosquitto: mqtt.)",
    ),
    Spec::supported(
        "socket_domain",
        ListenerOrDefault,
        Takes::Words(|draft, value| {
            let word = value.word().ok_or_else(|| "Empty 'socket_domain' value in configuration.".to_owned())?;
            draft.door().domain = Some(match word.as_str() {
                "ipv4" => Domain::Ipv4,
                "ipv6" => Domain::Ipv6,
                _ => return Err(format!("Invalid 'socket_domain' value '{word}' in configuration. It can be ipv4 or ipv6.")),
            });
            Ok(())
        }),
        "both",
        "`ipv4` or `ipv6`: the only kind of address to listen on.",
    ),
    Spec::supported(
        "bind_interface",
        ListenerOrDefault,
        Takes::Text(|draft, value| {
            draft.door().settings.bind_interface = Some(value);
            Ok(())
        }),
        "any",
        "The network device to listen on (Linux; needs root or CAP_NET_RAW).",
    )
    .once(),
    Spec::supported(
        "accept_protocol_versions",
        Listener,
        Takes::Words(accept_protocol_versions),
        "3, 4, 5",
        "Which versions of MQTT clients may speak: 3 is 3.1, 4 is 3.1.1, 5 is 5.0. Several with commas.",
    ),
    Spec::supported(
        "mount_point",
        Listener,
        Takes::Text(|draft, value| {
            if TopicName::parse(&value).is_err() {
                return Err(format!(
                    "Invalid 'mount_point' value ({value}). Does it contain a wildcard character?"
                ));
            }
            if !value.ends_with('/') {
                draft.say(
                    Severity::Warning,
                    format!(
                        "'mount_point {value}' does not end with '/': what a client calls 't' is '{value}t' to others. \
                         Was '{value}/' meant?"
                    ),
                );
            }
            draft.door().settings.mount_point = Some(value);
            Ok(())
        }),
        "none",
        "What is put before the topics of this listener's clients, who do not see it and see nothing else.",
    ),
    Spec::supported(
        "set_tcp_nodelay",
        Global,
        Takes::Bool(|draft, on| draft.tcp_nodelay = on),
        "true (mosquitto: false)",
        "Whether small packets leave at once. Without it they wait for acknowledgements of those before.",
    ),
    Spec::supported(
        "websockets_headers_size",
        Global,
        Takes::Number {
            least: 0,
            most: 65535,
            message: "Packet buffer size must be between 0 and 65535 inclusive.",
            set: |draft, n| draft.websockets_headers_size = n as usize,
        },
        "8192",
        "The longest head of an HTTP request, in bytes.",
    )
    .also("packet_buffer_size"),
    Spec::supported(
        "websockets_origin",
        Listener,
        Takes::Text(|draft, value| {
            draft.door().settings.websockets_origins.push(value);
            Ok(())
        }),
        "any",
        "An origin of web pages that may connect here. May be given several times.",
    )
    .adds(),
    Spec::supported(
        "certfile",
        ListenerOrDefault,
        Takes::Text(|draft, value| {
            draft.door().certfile = Some((value.into(), draft.at.clone()));
            Ok(())
        }),
        "none",
        "The certificate with its chain, PEM. With it the listener speaks TLS, and nothing else.",
    ),
    Spec::supported(
        "keyfile",
        ListenerOrDefault,
        Takes::Text(|draft, value| {
            draft.door().keyfile = Some((value.into(), draft.at.clone()));
            Ok(())
        }),
        "none",
        "The certificate's private key, PEM, without a passphrase.",
    ),
    Spec::supported(
        "cafile",
        Listener,
        Takes::Text(|draft, value| {
            draft.door().cafile = Some((value.into(), draft.at.clone()));
            Ok(())
        }),
        "none",
        "The authorities whose client certificates are taken, PEM.",
    ),
    Spec::supported(
        "capath",
        ListenerOrDefault,
        Takes::Text(|draft, value| {
            draft.door().capath = Some((value.into(), draft.at.clone()));
            Ok(())
        }),
        "none",
        "A directory of files like `cafile`.",
    ),
    Spec::supported(
        "crlfile",
        ListenerOrDefault,
        Takes::Text(|draft, value| {
            draft.door().crlfile = Some((value.into(), draft.at.clone()));
            Ok(())
        }),
        "none",
        "The client certificates that were revoked, PEM.",
    ),
    Spec::supported(
        "require_certificate",
        ListenerOrDefault,
        Takes::Bool(|draft, on| draft.door().require_certificate = on.then(|| draft.at.clone())),
        "false",
        "Whether clients have to show a certificate of the authorities in `cafile` or `capath`.",
    ),
    Spec::supported(
        "disable_client_cert_date_checks",
        Listener,
        Takes::Bool(|draft, on| draft.door().disable_client_cert_date_checks = on),
        "false",
        "Whether clients get in with a certificate that is not valid any more, or not yet. Revoked ones never do.",
    ),
    Spec::supported(
        "use_identity_as_username",
        ListenerOrDefault,
        Takes::Bool(|draft, on| draft.door().use_identity_as_username = on.then(|| draft.at.clone())),
        "false",
        "Whether the common name of the client's certificate is its user name; passwords are not looked at.",
    ),
    Spec::supported(
        "use_subject_as_username",
        ListenerOrDefault,
        Takes::Bool(|draft, on| draft.door().use_subject_as_username = on.then(|| draft.at.clone())),
        "false",
        "Whether the whole subject of the client's certificate is its user name.",
    ),
    Spec::supported(
        "tls_version",
        ListenerOrDefault,
        Takes::Words(tls_version),
        "tlsv1.2",
        "The oldest version of TLS spoken: `tlsv1.2` or `tlsv1.3`. (mosquitto: the only one.)",
    ),
    Spec::own(
        "allow_plaintext",
        Listener,
        Takes::Bool(|draft, on| draft.door().settings.allow_plaintext = on),
        "false",
        "Whether a listener with a certificate also takes connections without TLS.",
    ),
    Spec::supported(
        "tls_keyform",
        ListenerOrDefault,
        Takes::Words(|_, value| match value.word().as_deref() {
            Some("pem") => Ok(()),
            Some("engine") => Err(INSTEAD_OF_ENGINES.to_owned()),
            Some(other) => Err(format!("Invalid 'tls_keyform' value ({other}). It can be pem.")),
            None => Err("Empty 'tls_keyform' value in configuration.".to_owned()),
        }),
        "pem",
        "How the private key is kept: `pem`.",
    ),
    Spec::supported(
        "ciphers",
        ListenerOrDefault,
        Takes::Text(|draft, list| {
            draft.door().ciphers = narrow(draft, &list, ciphers::TLS_1_2)?;
            Ok(())
        }),
        "all",
        "The ciphers of TLS 1.2 to offer, by OpenSSL's names, `:` between them. All there are have forward secrecy \
         and authentication, so a list of kinds like `HIGH:!aNULL` has no effect.",
    ),
    Spec::supported(
        "ciphers_tls1.3",
        ListenerOrDefault,
        Takes::Text(|draft, list| {
            draft.door().ciphers_tls13 = narrow(draft, &list, ciphers::TLS_1_3)?;
            Ok(())
        }),
        "all",
        "The ciphers of TLS 1.3 to offer, `:` between them.",
    ),
    Spec::without_effect(
        "dhparamfile",
        Global,
        ANY_TEXT,
        "",
        "keys are agreed upon over elliptic curves; mosquitto has withdrawn it too",
    ),
    Spec::without_effect(
        "http_dir",
        Listener,
        ANY_TEXT,
        "",
        "no files are served; leave that to a web server, and name its pages by 'websockets_origin'",
    ),
    Spec::planned(
        "enable_proxy_protocol",
        Listener,
        Takes::Number { least: 1, most: 2, message: "enable_proxy_protocol must be 1 or 2.", set: |_, _| () },
        PROXY,
    ),
    Spec::planned("proxy_protocol_v2_require_tls", Listener, ANY_BOOL, PROXY),
    Spec::refused("tls_engine", ListenerOrDefault, ANY_TEXT, INSTEAD_OF_ENGINES),
    Spec::refused("tls_engine_kpass_sha1", ListenerOrDefault, ANY_TEXT, INSTEAD_OF_ENGINES),
];

/// The ciphers that a list leaves; none if it leaves all.
fn narrow(
    draft: &mut Draft,
    list: &str,
    known: &[(&str, &str, CipherSuite)],
) -> Result<Vec<CipherSuite>, String> {
    match ciphers::parse(list, known)? {
        List::Named { suites, absent } => {
            if !absent.is_empty() {
                let absent = absent.join(", ");
                draft.say(Severity::Warning, format!("There is no {absent} here; the others are offered."));
            }
            Ok(suites)
        }
        List::Kinds(kind) => {
            let message = format!(
                "The list has no effect: kinds of ciphers ('{kind}') are not resolved. What is offered has forward \
                 secrecy and authentication (ECDHE with AES-GCM or ChaCha20); name those of them that are wanted."
            );
            draft.say(Severity::Warning, message);
            Ok(Vec::new())
        }
    }
}
