//! What is wrong though each option is right, and what is legal but surely not meant.

use super::draft::{Bridge, Door, Draft};
use super::settings::{Place, Severity};
use crate::user::unreadable;
use std::path::Path;

pub(super) fn check(draft: &mut Draft) {
    check_bridges(draft);
    check_default_door(draft);
    check_files(draft);
    check_limits(draft);
    let local_only = draft.is_local_only();
    let doors = std::mem::take(&mut draft.doors);
    for door in &doors {
        check_tls(draft, door);
        if !local_only {
            check_users(draft, door);
        }
    }
    draft.doors = doors;
}

fn check_bridges(draft: &mut Draft) {
    for bridge in std::mem::take(&mut draft.bridges) {
        let missing = match bridge {
            Bridge { addresses: 0, .. } => "no remote addresses defined",
            Bridge { topics: 0, .. } => "no topics defined",
            Bridge { has_psk: true, has_identity: false, .. } => "missing bridge_identity",
            Bridge { has_psk: false, has_identity: true, .. } => "missing bridge_psk",
            _ => continue,
        };
        let message = format!("Invalid bridge configuration: {missing}.");
        draft.say_at(Some(bridge.at), Severity::Error, message);
    }
}

/// A listener option before any `listener` opens a port that nobody asked for.
fn check_default_door(draft: &mut Draft) {
    if let Some(i) = draft.default
        && !draft.default_is_open
        && draft.doors.len() > 1
    {
        let at = draft.doors[i].at.clone();
        let message = "This option stands before any 'listener': it is about a default listener on port 1883, which \
             is opened, too. Move it below the 'listener' it is meant for.";
        draft.say_at(at, Severity::Warning, message);
    }
}

fn check_files(draft: &mut Draft) {
    let mut files = Vec::new();
    let of_all = [(0, &draft.security.settings)];
    let of_doors = draft.doors.iter().enumerate().map(|(i, d)| (i + 1, &d.security.settings));
    for (door, security) in of_all.into_iter().chain(of_doors) {
        for (name, file) in [("password_file", &security.password_file), ("acl_file", &security.acl_file)] {
            if let Some(file) = file {
                files.push((name, file.clone(), draft.seen_at(name, door)));
            }
        }
    }
    for door in &draft.doors {
        let of_tls = [
            ("certfile", &door.certfile),
            ("keyfile", &door.keyfile),
            ("cafile", &door.cafile),
            ("capath", &door.capath),
            ("crlfile", &door.crlfile),
        ];
        for (name, file) in of_tls {
            if let Some((file, at)) = file {
                files.push((name, file.clone(), Some(at.clone())));
            }
        }
    }
    for (name, file, at) in files {
        if let Err(e) = open(name, &file) {
            let message = format!("Unable to open {name} '{}'. {}.", file.display(), unreadable(&file, &e));
            draft.say_at(at, Severity::Error, message);
        }
    }
}

fn open(name: &str, file: &Path) -> std::io::Result<()> {
    if name == "capath" {
        return std::fs::read_dir(file).map(|_| ());
    }
    match crate::file::open(file) {
        Err(e) if e.kind() == std::io::ErrorKind::IsADirectory => {
            Err(std::io::Error::other("It is a directory"))
        }
        opened => opened.map(drop),
    }
}

fn check_limits(draft: &mut Draft) {
    let core = &draft.core;
    let packet = u64::from(core.max_packet_size);
    let hard = draft.output_hard_bytes.map_or(u64::MAX, |n| n as u64);
    let limits = [
        ("message_size_limit", u64::from(core.message_size_limit), "max_packet_size", packet),
        ("max_connect_size", u64::from(core.connect_bytes_max), "max_packet_size", packet),
        ("max_packet_size", packet, "max_queued_bytes", core.max_queued_bytes),
        ("output_soft_limit", core.output_soft_bytes as u64, "output_hard_limit", hard),
        ("max_packet_size", packet, "output_hard_limit", hard),
    ];
    for (less, a, more, b) in limits {
        // What was not given is adjusted, or does no harm.
        let (at_less, at_more) = (draft.seen_at(less, 0), draft.seen_at(more, 0));
        let defaults_clash = less == "max_packet_size" || less == "output_soft_limit";
        let given = at_less.is_some() || at_more.is_some() && defaults_clash;
        if a > b && given {
            let message = format!("'{less}' ({a}) is above '{more}' ({b}): that much never gets through.");
            draft.say_at(at_less.or(at_more), Severity::Warning, message);
        }
    }
}

fn check_tls(draft: &mut Draft, door: &Door) {
    let mut error = |at: &Place, message: &str| draft.say_at(Some(at.clone()), Severity::Error, message);
    match (&door.certfile, &door.keyfile) {
        (Some((_, at)), None) => {
            error(
                at,
                "Both certfile and keyfile must be provided to enable a TLS listener: 'keyfile' is missing.",
            );
        }
        (None, Some((_, at))) => {
            error(
                at,
                "Both certfile and keyfile must be provided to enable a TLS listener: 'certfile' is missing.",
            );
        }
        (Some(_), Some(_)) => {
            if let Some(at) = &door.require_certificate
                && door.cafile.is_none()
                && door.capath.is_none()
            {
                error(at, "'require_certificate' needs 'cafile' or 'capath': whose certificates are good?");
            }
        }
        (None, None) => {
            let names = [
                ("cafile", door.cafile.as_ref().map(|(_, at)| at)),
                ("capath", door.capath.as_ref().map(|(_, at)| at)),
                ("crlfile", door.crlfile.as_ref().map(|(_, at)| at)),
                ("require_certificate", door.require_certificate.as_ref()),
                ("use_identity_as_username", door.use_identity_as_username.as_ref()),
                ("use_subject_as_username", door.use_subject_as_username.as_ref()),
            ];
            for (name, at) in names {
                if let Some(at) = at {
                    error(at, &format!("{name} specified without certfile and keyfile."));
                }
            }
            if door.sounds_like_tls() {
                advise_certificate(draft, door);
            }
        }
    }
}

/// A door that is named for TLS has no certificate.
fn advise_certificate(draft: &mut Draft, door: &Door) {
    let (port, what) = (door.port, if door.is_websockets() { "WebSocket" } else { "MQTT" });
    let mut message = format!(
        "Port {port} is meant for TLS, but has no certificate: as it stands it takes {what} unencrypted. Add below it:\n    \
         certfile /etc/hikyaku/certs/server.crt\n    keyfile /etc/hikyaku/certs/server.key"
    );
    if let (true, Some(at)) = (door.is_websockets(), &door.protocol_at) {
        message += &format!(
            "\n'protocol websockets' (line {}) is about this listener, the one above it. A listener without \
             'protocol' takes both MQTT and WebSocket: leave the line out if WebSocket was meant for another port.",
            at.line
        );
    }
    draft.say_at(door.at.clone(), Severity::Warning, message);
}

/// Nobody can come in, or everybody.
fn check_users(draft: &mut Draft, door: &Door) {
    let security = draft.security_of(door);
    let by_certificate = door.use_identity_as_username.is_some() || door.use_subject_as_username.is_some();
    if security.settings.allow_anonymous == Some(true) {
        if door.is_open_to_others() && door.require_certificate.is_none() {
            let message = if security.settings.acl_file.is_some() {
                "Anyone who reaches this listener may connect without a name ('allow_anonymous true')."
            } else {
                "Anyone who reaches this listener may connect, and read and write everything ('allow_anonymous \
                 true', no 'acl_file')."
            };
            draft.say_at(door.at.clone(), Severity::Warning, message);
        }
    } else if security.settings.password_file.is_none() && !by_certificate {
        let message = "Nobody can connect here: there is no 'password_file', and 'allow_anonymous' is false, as it is \
             by default where a listener is configured. Add one of:\n    password_file /etc/hikyaku/passwd\n    \
             allow_anonymous true";
        draft.say_at(door.at.clone(), Severity::Warning, message);
    }
}
