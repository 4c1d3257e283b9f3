//! The documents that are written from the table of options.
//!
//! `UPDATE_DOCS=1 cargo test -p hikyaku docs` rewrites them.

use super::options::{Scope, Spec, Status, TABLES, Takes};
use std::fmt::Write;
use std::path::Path;

const COMPAT_HEAD: &str = "\
# Options of mosquitto, and what becomes of them

hikyaku reads mosquitto.conf. Each option of mosquitto 2.1 is one of:

* **supported**: it does what it does in mosquitto. [configuration.md](configuration.md) has defaults and meanings,
  and says where they differ.
* **no effect**: it is read, and a warning says why it does nothing here. A switch that is set to what is the case anyway
  is not warned about.
* **planned**: it is refused for now, with what to do until then.
* **refused**: with what to use in its place.

`hikyaku --test-config -c FILE` says what would become of a file, all of it at once, as `file:line:column: message`. It
changes nothing, and its exit code is 0, or 3 if there is an error.

What differs from mosquitto in reading a file:

* A comment may follow a value that cannot hold a `#`: numbers, switches, words. Paths, names, topics and passwords can
  hold one: there it is part of the value, which is warned about.
* Blanks may be tabs, lines may be indented, and may end with `\\r\\n`.
* A listener without `protocol` takes MQTT and WebSocket.
* A listener without an address listens on IPv4 and IPv6; a machine without IPv6 gets by with a warning.
* Ports given by `-p` that no listener has are opened beside the file's listeners, for this machine only.
* A name that is not known is an error, as in mosquitto; the one that may have been meant is suggested.
* All problems are told, not only the first.
* Files that are named (passwords, rights, certificates) have to be readable when the configuration is read.
* SIGHUP reads everything again and applies all of it, or, if there is an error, none. Ports, `user`, `pid_file` and
  `workers` stay as they were at the start: for these, restart. Changed certificates, passwords and rights are noticed without it.

Of mosquitto's topics below `$SYS` there are all but `$SYS/broker/packet/out/…`, and those of bridges and of
`log_dest topic`; [configuration.md](configuration.md#what-it-tells-of-itself) has the list.

## Moving from mosquitto

1. Two brokers cannot have one port. End Debian's: `systemctl disable --now mosquitto`.
2. Put your lines, as they are, into a file like `/etc/hikyaku/conf.d/local.conf`. `/etc/hikyaku/hikyaku.conf` has the place of
   `/etc/mosquitto/mosquitto.conf`: leave it as it is, and leave out of yours what it has already (`include_dir`, `log_dest`, `pid_file`).
3. Check it: `sudo hikyaku --test-config /etc/hikyaku/hikyaku.conf`.
4. The service runs as the user `hikyaku`, not `mosquitto`. Files of passwords, rights and keys have to be readable by its group:
   `chgrp hikyaku FILE && chmod 640 FILE`. They may stay where they are if hikyaku may enter the directory.
5. The unit lets it write to `/var/lib/hikyaku`, `/var/log/hikyaku` and `/run/hikyaku` only, and hides `/home`. So write `log_dest file
   /var/log/hikyaku/hikyaku.log` instead of a path below `/var/log/mosquitto`, and no `pid_file`, which systemd does not need (or one in `/run/hikyaku`). The same goes for
   unix sockets.
6. Take over what mosquitto kept, while neither runs: `systemctl stop hikyaku`, and then
   `sudo hikyaku -c /etc/hikyaku/hikyaku.conf --import-mosquitto-db /var/lib/mosquitto/mosquitto.db`.
7. `systemctl restart hikyaku`, and look whether your clients are there: `journalctl -u hikyaku`.

`--import-mosquitto-db` needs an empty store, and `persistence true`. It takes sessions with their subscriptions, queued messages, messages in
flight with their packet ids, QoS 2 both ways, retained messages, and what is left of expiry intervals, from mosquitto 1.0 to 2.1 (formats 2 to
6 of the file); a QoS 2 message that mosquitto had received and not passed on is delivered at the next start. It says what it took, what it did not
take, and why: what has expired, QoS 0 messages, `$SYS`. All of it is taken in one step, or nothing, and the file is not changed. A damaged one is
refused, with the byte at which it makes no sense; but it has no checksum, and one that was cut between two entries looks whole.

Not in the file, so lost with mosquitto as well: wills, and shared subscriptions of 1.6 and later. A file of 1.6.10 or before does not name
the users that sessions belong to; one of 1.6.11 to 2.0.15 names wrong ones where some clients have no user name, which are left out. Such a session
is for the first client that comes with its id. Sessions of bridges (`local.…`) are taken like others. What the SQLite plugin of mosquitto 2.1 keeps is not read.

This file is written from the table the parser uses; a test keeps it current.
";

const CONFIGURATION_HEAD: &str = "\
# Configuration

hikyaku is configured by a file in the syntax of mosquitto.conf: `hikyaku -c FILE`. A line holds the name of an option
and its value; lines that begin with `#` are comments. Without a file hikyaku listens on port 1883 for this machine only,
and lets everyone in who comes from there.

```
listener 1883                               # MQTT and WebSocket, open to other machines
password_file /etc/hikyaku/passwd
acl_file /etc/hikyaku/acl

listener 8883                               # the same with TLS
certfile /etc/hikyaku/certs/server.crt
keyfile /etc/hikyaku/certs/server.key
```

`hikyaku --test-config -c FILE` checks a file and says everything that is wrong or remarkable with it. At the start a line
of the log says of each listener who may connect there. SIGHUP reads the file again: sessions and connections stay, and
if there is an error in it, the old settings do.

Below all options: [passwords](#users-and-their-passwords), [rights](#rights-by-topic), [certificates](#certificates),
[reloading](#changes-while-it-runs), [`$SYS`](#what-it-tells-of-itself) and [refusals in the log](#what-the-log-says-of-those-who-are-kept-out).

Options marked *listener* are about the `listener` above them; those marked *security* too, if `per_listener_settings` is
true, and about all listeners otherwise. Options marked *own* are not known to mosquitto. What is not listed here is in
[mosquitto-compat.md](mosquitto-compat.md). An introduction step by step is [tutorial.md](tutorial.md).

This file is written from the table the parser uses; a test keeps it current.
";

/// What stands below the options, for people who set users, rights and certificates up.
const CONFIGURATION_TAIL: &str = include_str!("guide.md");

fn names(spec: &Spec) -> String {
    let alias = spec.alias.map_or(String::new(), |alias| format!(", `{alias}`"));
    format!("`{}`{alias}", spec.name)
}

fn compat() -> String {
    let mut text = COMPAT_HEAD.to_owned();
    for (chapter, specs) in TABLES {
        let _ = write!(text, "\n## {chapter}\n\n| option | status | |\n|---|---|---|\n");
        for spec in specs.iter().filter(|s| s.status != Status::Own) {
            let (status, note) = match (spec.status, spec.scope) {
                (Status::Supported | Status::Own, _) => ("supported", ""),
                (Status::NoEffect(why), _) => ("no effect", why),
                (Status::Planned(""), _) => ("planned", "See `connection`."),
                (Status::Planned(instead), _) => ("planned", instead),
                (Status::Refused(""), _) => ("refused", "See `plugin`."),
                (Status::Refused(instead), _) => ("refused", instead),
            };
            let _ = writeln!(text, "| {} | {status} | {note} |", names(spec));
        }
    }
    text
}

fn configuration() -> String {
    let mut text = CONFIGURATION_HEAD.to_owned();
    for (chapter, specs) in TABLES {
        let works = |s: &&Spec| matches!(s.status, Status::Supported | Status::Own);
        let mut specs = specs.iter().filter(works).peekable();
        if specs.peek().is_none() {
            continue;
        }
        let _ = write!(text, "\n## {chapter}\n");
        for spec in specs {
            let mut marks = Vec::new();
            match spec.scope {
                Scope::Listener | Scope::ListenerOrDefault => marks.push("listener"),
                Scope::Security => marks.push("security"),
                _ => {}
            }
            if spec.status == Status::Own {
                marks.push("own");
            }
            let marks = if marks.is_empty() { String::new() } else { format!(" *({})*", marks.join(", ")) };
            let takes = match spec.takes {
                Takes::Bool(_) => "true or false".to_owned(),
                Takes::Number { least, most, .. } => match (least, most) {
                    (i64::MIN, _) => "a number".to_owned(),
                    (least, i64::MAX) => format!("a number from {least}"),
                    (least, most) => format!("{least} to {most}"),
                },
                Takes::Text(_) => "text".to_owned(),
                Takes::Words(_) => "words".to_owned(),
            };
            let _ = write!(
                text,
                "\n### {}{marks}\n\nTakes {takes}. Default: {}.\n\n{}\n",
                names(spec),
                spec.default,
                spec.meaning
            );
        }
    }
    text + CONFIGURATION_TAIL
}

#[test]
fn docs_are_current() {
    for (name, text) in [("mosquitto-compat.md", compat()), ("configuration.md", configuration())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "docs/{name} is not current: UPDATE_DOCS=1 cargo test -p hikyaku docs");
    }
}

#[test]
fn all_options_of_mosquitto_have_a_status() {
    // The names in its manual page and its parser.
    let known = include_str!("mosquitto-options.txt");
    let missing: Vec<_> = known.lines().filter(|name| super::options::find(name).is_none()).collect();
    assert_eq!(missing, Vec::<&str>::new());
    let mut seen = std::collections::HashSet::new();
    for name in super::options::names() {
        assert!(seen.insert(name), "{name} is there twice");
    }
    for spec in super::options::all() {
        if matches!(spec.status, Status::Supported | Status::Own) {
            assert!(!spec.default.is_empty() && !spec.meaning.is_empty(), "{}", spec.name);
        }
    }
}

/// What each limit is, why, and what tests hold it, stands there.
#[test]
fn each_limit_is_in_the_document_about_security() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, specs) = TABLES.iter().find(|(chapter, _)| *chapter == "Limits").unwrap();
    for Spec { name, default, .. } in *specs {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
        let row = row.unwrap_or_else(|| panic!("no row for {name}"));
        let columns: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!((columns.len(), columns[1]), (6, *default), "{row}");
        assert!(columns.iter().all(|column| !column.is_empty()) && columns[5].contains(".rs::"), "{row}");
    }
}
