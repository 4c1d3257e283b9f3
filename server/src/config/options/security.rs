//! Who may come in, and what they may do.

use super::Scope::{Global, Listener, ListenerOrDefault, Security};
use super::{ANY_TEXT, Spec, Takes};
use crate::config::draft::Draft;
use crate::config::settings::Severity;

const PREFIX_MAX: usize = 50;

fn prefix(name: &str, value: String) -> Result<Option<String>, String> {
    if value.len() > PREFIX_MAX {
        return Err(format!("'{name}' length must be <= {PREFIX_MAX}."));
    }
    Ok(Some(value))
}

const PSK: &str = "Keys shared in advance are not supported. Give the listener a certificate ('certfile', \
     'keyfile') and users a password or a certificate of their own.";

fn per_listener_settings(draft: &mut Draft, on: bool) {
    if on && draft.has_security && !draft.per_listener {
        draft.say(
            Severity::Error,
            "per_listener_settings must be set before any other security settings. Move it to the first line.",
        );
    }
    // As in mosquitto it cannot be taken back.
    draft.per_listener |= on;
}

pub(super) const OPTIONS: &[Spec] = &[
    Spec::supported(
        "allow_anonymous",
        Security,
        Takes::Bool(|draft, on| draft.security().settings.allow_anonymous = Some(on)),
        "false; true without any listener",
        "Whether clients without a user name are let in. Without `listener`, `port` or `bind_address` the default \
         is true, and only this machine can connect.",
    ),
    Spec::supported(
        "listener_allow_anonymous",
        Listener,
        Takes::Bool(|draft, on| draft.door().security.settings.allow_anonymous = Some(on)),
        "as allow_anonymous",
        "`allow_anonymous` for this listener alone.",
    ),
    Spec::supported(
        "password_file",
        Security,
        Takes::Text(|draft, value| {
            draft.security().settings.password_file = Some(value.into());
            Ok(())
        }),
        "none",
        "The file of users and hashed passwords, as hikyaku-passwd and mosquitto_passwd write it \
         ([more](#users-and-their-passwords)). Read again at SIGHUP, and when it has changed.",
    ),
    Spec::supported(
        "acl_file",
        Security,
        Takes::Text(|draft, value| {
            draft.security().settings.acl_file = Some(value.into());
            Ok(())
        }),
        "none: everyone may do everything",
        "The file of rights by user and topic ([more](#rights-by-topic)). What it does not allow is denied. Read again at \
         SIGHUP, and when it has changed.",
    ),
    Spec::supported(
        "clientid_prefixes",
        Global,
        Takes::Text(|draft, value| {
            draft.security.settings.clientid_prefixes = Some(value);
            Ok(())
        }),
        "none",
        "Only clients whose id begins with this are let in.",
    ),
    Spec::supported(
        "allow_zero_length_clientid",
        Security,
        Takes::Bool(|draft, on| draft.security().allow_zero_length_clientid = Some(on)),
        "true",
        "Whether a client may leave its id to the broker.",
    ),
    Spec::supported(
        "auto_id_prefix",
        Security,
        Takes::Text(|draft, value| {
            draft.security().settings.auto_id_prefix = prefix("auto_id_prefix", value)?;
            Ok(())
        }),
        "auto-",
        "What an id begins with that the broker has chosen; at most 50 bytes.",
    ),
    Spec::supported(
        "listener_auto_id_prefix",
        Listener,
        Takes::Text(|draft, value| {
            draft.door().security.settings.auto_id_prefix = prefix("listener_auto_id_prefix", value)?;
            Ok(())
        }),
        "as auto_id_prefix",
        "`auto_id_prefix` for this listener alone.",
    ),
    Spec::supported(
        "use_username_as_clientid",
        ListenerOrDefault,
        Takes::Bool(|draft, on| draft.door().settings.use_username_as_clientid = on),
        "false",
        "Whether the user name takes the place of the client id. Clients without one are refused.",
    ),
    Spec::supported(
        "per_listener_settings",
        Global,
        Takes::Bool(per_listener_settings),
        "false",
        "Whether the options of this chapter are about the listener before them. Has to come before them. For \
         `allow_anonymous` alone, `listener_allow_anonymous` is simpler.",
    ),
    Spec::refused("psk_file", Security, ANY_TEXT, PSK),
    Spec::refused("psk_hint", ListenerOrDefault, ANY_TEXT, PSK),
];
