//! Options of the broker as a whole.

use super::Scope::Global;
use super::{ANY_BOOL, ANY_NUMBER, ANY_TEXT, Spec, Takes};
use crate::config::draft::Draft;
use crate::config::lines::Value;
use crate::config::settings::{Durability, LogDestination, LogTypes, Severity};
use hikyaku_proto::broker::SHARDS_MAX;

const NO_SNAPSHOTS: &str = "with 'persistence true' each change is kept before it is acknowledged";

fn log_dest(draft: &mut Draft, value: &mut Value) -> Result<(), String> {
    let word = value.word().ok_or_else(|| "Empty 'log_dest' value in configuration.".to_owned())?;
    if !std::mem::replace(&mut draft.has_log_dest, true) {
        draft.log.destinations.clear();
    }
    let destination = match word.as_str() {
        "none" => {
            draft.log.destinations.clear();
            return Ok(());
        }
        "stderr" => LogDestination::Stderr,
        "stdout" => LogDestination::Stdout,
        // The facility may come later.
        "syslog" => LogDestination::Syslog { facility: 0 },
        "topic" => {
            draft.say(Severity::Warning, "'log_dest topic' has no effect yet: log lines are not published.");
            return Ok(());
        }
        "file" => {
            let at = value.at().clone();
            let file = value.text().ok_or_else(|| {
                "Empty \"log_dest file\" value in configuration. Write the file's name behind it.".to_owned()
            })?;
            draft.check_text(at, "log_dest file", &file)?;
            if draft.log.destinations.iter().any(|d| matches!(d, LogDestination::File(_))) {
                return Err("Duplicate \"log_dest file\" value.".to_owned());
            }
            LogDestination::File(file.into())
        }
        "dlt" | "android" => {
            draft.say(
                Severity::Warning,
                format!("'log_dest {word}' has no effect: it needs a library. Use 'log_dest syslog'."),
            );
            return Ok(());
        }
        _ => {
            return Err(format!(
                "Invalid 'log_dest' value ({word}). It can be stderr, stdout, syslog, file FILE, topic or none."
            ));
        }
    };
    if !draft.log.destinations.contains(&destination) {
        draft.log.destinations.push(destination);
    }
    Ok(())
}

fn log_type(draft: &mut Draft, value: &mut Value) -> Result<(), String> {
    const NONE: LogTypes =
        LogTypes { error: false, warning: false, notice: false, information: false, debug: false };
    let word = value.word().ok_or_else(|| "Empty 'log_type' value in configuration.".to_owned())?;
    if !std::mem::replace(&mut draft.has_log_type, true) {
        draft.log.types = NONE;
    }
    let types = &mut draft.log.types;
    match word.as_str() {
        "none" => *types = NONE,
        "error" => types.error = true,
        "warning" => types.warning = true,
        "notice" => types.notice = true,
        "information" => types.information = true,
        // What mosquitto says of single packets is in the debug lines here.
        "debug" | "subscribe" | "unsubscribe" | "websockets" | "internal" => types.debug = true,
        "all" => {
            *types = LogTypes { error: true, warning: true, notice: true, information: true, debug: true }
        }
        _ => {
            return Err(format!(
                "Invalid 'log_type' value ({word}). It can be error, warning, notice, information, debug, \
                 subscribe, unsubscribe, websockets, all or none."
            ));
        }
    }
    Ok(())
}

pub(super) const OPTIONS: &[Spec] = &[
    Spec::own(
        "workers",
        Global,
        Takes::Number {
            least: 1,
            most: SHARDS_MAX as i64,
            message: "",
            set: |draft, n| draft.workers = Some(n as u16),
        },
        "one for two cores",
        "How many threads work; sessions are spread over them.",
    ),
    Spec::supported(
        "user",
        Global,
        Takes::Text(|draft, value| {
            draft.user = Some(value);
            Ok(())
        }),
        "none",
        "Whom to become after ports and files are open, if started as root: a name of /etc/passwd, or the number of one \
         there (no other number: `user 99999` is an error if nobody has it). \
         Without it a broker started as root stays root, and warns of it; `user root` does not warn. A user \
         that does not exist is an error. (mosquitto becomes `mosquitto` by default.)",
    ),
    Spec::own(
        "reload_interval",
        Global,
        Takes::Number {
            least: 0,
            most: 65535,
            message: "",
            set: |draft, n| draft.reload_interval_s = n as u16,
        },
        "5",
        "How often the files of certificates, keys, authorities, revoked certificates, passwords and rights are looked \
         at for changes, in seconds; 0 is never. A file that has changed is read when two looks in a row found \
         it the same, as at SIGHUP; if it is bad, that is said once and what was read before stays. The configuration \
         itself is read at SIGHUP only.",
    ),
    Spec::supported(
        "pid_file",
        Global,
        Takes::Text(|draft, value| {
            draft.pid_file = Some(value.into());
            Ok(())
        }),
        "none",
        "Where the process id is written at the start; the file is removed at the end.",
    )
    .once(),
    Spec::supported(
        "include_dir",
        Global,
        Takes::Text(|draft, value| {
            draft.include = Some(value);
            Ok(())
        }),
        "none",
        "A directory whose files that end in `.conf` are read in place of this line, ordered by the bytes of their \
         names (00.conf, A.conf, a.conf). Only in the main file.",
    )
    .adds(),
    Spec::supported(
        "log_dest",
        Global,
        Takes::Words(log_dest),
        "stderr",
        "Where log lines go: `stderr`, `stdout`, `syslog`, `file FILE` or `none`. Several may be given. The file is \
         opened again at SIGHUP. (`topic` comes later.)",
    )
    .adds(),
    Spec::supported(
        "log_facility",
        Global,
        Takes::Number {
            least: 0,
            most: 7,
            message: "Invalid 'log_facility' value ({}). It is the number of local0 to local7.",
            set: |draft, n| draft.log_facility = 16 + n as u8,
        },
        "daemon",
        "For `log_dest syslog`: 0 to 7 for the facilities local0 to local7.",
    ),
    Spec::supported(
        "log_type",
        Global,
        Takes::Words(log_type),
        "error, warning, notice, information",
        "What is logged; may be given several times. `-v` logs all. `notice` is the same as `information` here; \
         `subscribe`, `unsubscribe` and `websockets` are the same as `debug`.",
    )
    .adds(),
    Spec::supported(
        "log_timestamp",
        Global,
        Takes::Bool(|draft, on| draft.log.timestamp = on),
        "true",
        "Whether a log line begins with the time.",
    ),
    Spec::supported(
        "log_timestamp_format",
        Global,
        Takes::Text(|draft, value| {
            if let Err(e) = jiff::fmt::strtime::format(&value, &jiff::ZonedDateTime::now()) {
                return Err(format!(
                    "Invalid 'log_timestamp_format' value ({value}): {e}. An example: %Y-%m-%dT%H:%M:%S"
                ));
            }
            draft.log.timestamp_format = Some(value);
            Ok(())
        }),
        "seconds since 1970",
        "How the time is written, in the language of strftime: `%Y-%m-%dT%H:%M:%S`.",
    )
    .once(),
    Spec::supported(
        "connection_messages",
        Global,
        Takes::Bool(|draft, on| draft.log.connection_messages = on),
        "true",
        "Whether clients that connect and disconnect are logged. Those that are refused always are.",
    ),
    Spec::supported(
        "sys_interval",
        Global,
        Takes::Number {
            least: 0,
            most: 65535,
            message: "",
            set: |draft, n| draft.core.sys_interval_s = n as u16,
        },
        "10",
        "How often `$SYS` is published, in seconds; 0 is never.",
    ),
    Spec::supported(
        "retain_available",
        Global,
        Takes::Bool(|draft, on| draft.core.retain_available = on),
        "true",
        "Whether clients may have messages retained.",
    ),
    Spec::supported(
        "upgrade_outgoing_qos",
        Global,
        Takes::Bool(|draft, on| draft.core.upgrade_outgoing_qos = on),
        "false",
        "Whether a message is delivered with the QoS of the subscription though it was published with a lower one. \
         No standard allows it.",
    ),
    Spec::supported(
        "persistent_client_expiration",
        Global,
        Takes::Words(|draft, value| {
            const INVALID: &str = "Invalid 'persistent_client_expiration' duration in configuration.";
            let word = value
                .word()
                .ok_or_else(|| "Empty 'persistent_client_expiration' value in configuration.".to_owned())?;
            let help = || format!("{INVALID} It is a number and one of s, h, d, w, m, y: 14d is two weeks.");
            let unit = word.chars().next_back().ok_or_else(help)?;
            let seconds = match unit {
                's' => 1,
                'h' => 3600,
                'd' => 86400,
                'w' => 86400 * 7,
                'm' => 86400 * 30,
                'y' => 86400 * 365,
                _ => return Err(help()),
            };
            let number: u32 = word[..word.len() - 1].parse().map_err(|_| help())?;
            if number == 0 {
                return Err(help());
            }
            draft.core.max_session_expiry_s = number.saturating_mul(seconds);
            Ok(())
        }),
        "never",
        "After what time a session without connection ends, whatever its client asked for: a number and one of s, \
         h, d, w (weeks), m (months), y.",
    ),
    Spec::supported(
        "persistence",
        Global,
        Takes::Bool(|draft, on| draft.persistence.enabled = on),
        "false",
        "Whether sessions, their queues, wills and retained messages outlive the broker. See \
         [durability](durability.md).",
    ),
    Spec::supported(
        "persistence_location",
        Global,
        Takes::Text(|draft, value| {
            draft.persistence.location = Some(value.into());
            Ok(())
        }),
        "the working directory",
        "The directory, which has to exist, in which the directory `hikyaku.store` is made.",
    )
    .once(),
    Spec::own(
        "persistence_durability",
        Global,
        Takes::Words(|draft, value| {
            draft.persistence.durability = match value.word().as_deref() {
                Some("disk") => Durability::Disk,
                Some("os") => Durability::Os,
                Some("memory") => Durability::Memory,
                _ => return Err("'persistence_durability' is one of disk, os and memory.".to_owned()),
            };
            Ok(())
        }),
        "disk",
        "When a message counts as kept and is acknowledged: when it is on `disk`, when the operating system has it \
         (`os`), or at once (`memory`).",
    ),
    Spec::supported(
        "retained_persistence",
        Global,
        Takes::Bool(|draft, on| draft.persistence.retained = on),
        "true",
        "Whether retained messages are kept with `persistence true`.",
    ),
    Spec::supported(
        "persistence_file",
        Global,
        Takes::Text(|draft, value| {
            draft.persistence.mosquitto_file = value.into();
            Ok(())
        }),
        "mosquitto.db",
        "The name of mosquitto's database in `persistence_location`, which is read by `--import-mosquitto-db` alone: while \
         nothing is kept yet, a start that finds it says so.",
    )
    .once(),
    Spec::without_effect("autosave_interval", Global, ANY_NUMBER, "", NO_SNAPSHOTS),
    Spec::without_effect("autosave_on_changes", Global, ANY_BOOL, "false", NO_SNAPSHOTS),
    Spec::supported(
        "queue_qos0_messages",
        Global,
        Takes::Bool(|draft, on| draft.core.queue_qos0_messages = on),
        "false",
        "Whether QoS 0 messages wait for clients that are away and whose sessions stay, as those of QoS 1 and 2 do and within \
         the same limits.",
    ),
    Spec::supported(
        "check_retain_source",
        Global,
        Takes::Bool(|draft, on| draft.core.check_retain_source = on),
        "true",
        "Whether a retained message is sent to those who subscribe only while its publisher may publish to its topic. \
         Who that was (client id, user name, listener) is kept with the message.",
    ),
    Spec::without_effect(
        "retain_expiry_interval",
        Global,
        ANY_NUMBER,
        "",
        "retained messages only expire if their publisher says so (Message Expiry Interval of MQTT 5.0)",
    ),
    Spec::without_effect(
        "allow_duplicate_messages",
        Global,
        ANY_BOOL,
        "false",
        "overlapping subscriptions of a client get one copy, with all subscription identifiers",
    ),
    Spec::without_effect(
        "retry_interval",
        Global,
        ANY_TEXT,
        "",
        "messages are sent again when a client reconnects, at no other time; mosquitto has withdrawn it too",
    ),
    Spec::without_effect(
        "enable_control_api",
        Global,
        ANY_BOOL,
        "false",
        "there is no $CONTROL interface; '--test-config' shows what a configuration means",
    ),
    Spec::without_effect(
        "websockets_log_level",
        Global,
        ANY_NUMBER,
        "",
        "it belongs to a library that is not used here; use 'log_type'",
    ),
];
