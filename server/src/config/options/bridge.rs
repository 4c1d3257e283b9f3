//! Options of bridges, which are planned, and of plugins, which are not.

use super::Scope::{Global, Plugin, Security};
use super::{ANY_BOOL, ANY_NUMBER, ANY_TEXT, Repeat, Scope, Spec, Status, Takes};
use crate::config::draft::Bridge;

const BRIDGES: &str = "Bridges are not supported yet. Until then let a client that subscribes here and publishes \
     there carry the messages.";

const PLUGINS: &str = "Plugins written for mosquitto cannot be loaded: they need mosquitto's own insides. Use \
     'password_file' and 'acl_file'.";

/// An option of a bridge. The `connection` it follows says what there is to say.
const fn bridge(name: &'static str, takes: Takes) -> Spec {
    Spec { repeat: Repeat::Adds, ..Spec::new(name, Scope::Bridge, takes, Status::Planned("")) }
}

/// An option of a plugin.
const fn plugin(name: &'static str, takes: Takes) -> Spec {
    Spec { repeat: Repeat::Adds, ..Spec::new(name, Plugin, takes, Status::Refused("")) }
}

const LOAD: Takes = Takes::Text(|draft, _| {
    draft.has_plugin = true;
    Ok(())
});

pub(super) const OPTIONS: &[Spec] = &[
    Spec::planned(
        "connection",
        Global,
        Takes::Text(|draft, _| {
            let at = draft.at.clone();
            draft.bridges.push(Bridge { at, addresses: 0, topics: 0, has_identity: false, has_psk: false });
            Ok(())
        }),
        BRIDGES,
    )
    .adds(),
    bridge(
        "address",
        Takes::Words(|draft, value| {
            value.word().ok_or_else(|| "Empty address value in configuration.".to_owned())?;
            while value.word().is_some() {}
            if let Some(bridge) = draft.bridges.last_mut() {
                bridge.addresses += 1;
            }
            Ok(())
        }),
    )
    .also("addresses"),
    bridge(
        "topic",
        Takes::Text(|draft, value| {
            if value.starts_with('"') && value.matches('"').count() < 2 {
                let topic = value.trim_start_matches('"').split(' ').next_back().unwrap_or("");
                return Err(format!("Missing closing quote in topic value ({topic})."));
            }
            if let Some(bridge) = draft.bridges.last_mut() {
                bridge.topics += 1;
            }
            Ok(())
        }),
    ),
    bridge("bridge_alpn", ANY_TEXT),
    bridge("bridge_attempt_unsubscribe", ANY_BOOL),
    bridge("bridge_bind_address", ANY_TEXT),
    bridge("bridge_cafile", ANY_TEXT),
    bridge("bridge_capath", ANY_TEXT),
    bridge("bridge_certfile", ANY_TEXT),
    bridge("bridge_ciphers", ANY_TEXT),
    bridge("bridge_ciphers_tls1.3", ANY_TEXT),
    bridge(
        "bridge_identity",
        Takes::Text(|draft, _| {
            if let Some(bridge) = draft.bridges.last_mut() {
                bridge.has_identity = true;
            }
            Ok(())
        }),
    ),
    bridge("bridge_insecure", ANY_BOOL),
    bridge("bridge_keyfile", ANY_TEXT),
    bridge("bridge_max_packet_size", ANY_NUMBER),
    bridge("bridge_max_topic_alias", ANY_NUMBER),
    bridge("bridge_outgoing_retain", ANY_BOOL),
    bridge("bridge_protocol_version", ANY_TEXT),
    bridge(
        "bridge_psk",
        Takes::Text(|draft, _| {
            if let Some(bridge) = draft.bridges.last_mut() {
                bridge.has_psk = true;
            }
            Ok(())
        }),
    ),
    bridge("bridge_receive_maximum", ANY_NUMBER),
    bridge("bridge_reload_type", ANY_TEXT),
    bridge("bridge_require_ocsp", ANY_BOOL),
    bridge("bridge_session_expiry_interval", ANY_NUMBER),
    bridge("bridge_tcp_keepalive", ANY_TEXT),
    bridge("bridge_tcp_user_timeout", ANY_NUMBER),
    bridge("bridge_tls_use_os_certs", ANY_BOOL),
    bridge("bridge_tls_version", ANY_TEXT),
    bridge("cleansession", ANY_BOOL),
    bridge("idle_timeout", ANY_NUMBER),
    bridge("keepalive_interval", ANY_NUMBER),
    bridge("local_cleansession", ANY_BOOL),
    bridge("local_clientid", ANY_TEXT),
    bridge("local_password", ANY_TEXT),
    bridge("local_username", ANY_TEXT),
    bridge("notification_topic", ANY_TEXT),
    bridge("notifications", ANY_BOOL),
    bridge("notifications_local_only", ANY_BOOL),
    bridge("remote_clientid", ANY_TEXT).also("clientid"),
    bridge("remote_password", ANY_TEXT).also("password"),
    bridge("remote_username", ANY_TEXT).also("username"),
    bridge("restart_timeout", ANY_TEXT),
    bridge("round_robin", ANY_BOOL),
    bridge("start_type", ANY_TEXT),
    bridge("threshold", ANY_NUMBER),
    bridge("try_private", ANY_BOOL),
    Spec::refused("plugin", Security, LOAD, PLUGINS).also("auth_plugin").adds(),
    Spec::refused("global_plugin", Global, LOAD, PLUGINS).adds(),
    Spec::refused("plugin_load", Global, LOAD, PLUGINS).adds(),
    Spec::refused("plugin_use", Global, ANY_TEXT, PLUGINS).adds(),
    plugin("plugin_opt_*", ANY_TEXT).also("auth_opt_*"),
    plugin("auth_plugin_deny_special_chars", ANY_BOOL),
];
