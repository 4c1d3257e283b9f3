//! Reading: files to lines, lines to options, options into the draft.

use super::draft::Draft;
use super::lines::{self, Line, Value};
use super::options::{self, Repeat, Scope, Spec, Status, Takes};
use super::settings::{Place, Severity};
use super::{number, suggest};
use crate::file::CONFIG_BYTES_MAX;
use crate::user::unreadable;
use std::path::{Path, PathBuf};

/// Reads the main file.
pub(super) fn read_file(draft: &mut Draft, file: &Path) {
    read(draft, file, None);
}

fn read(draft: &mut Draft, file: &Path, included_at: Option<&Place>) {
    let content = match crate::file::read(file, CONFIG_BYTES_MAX) {
        Ok(content) => content,
        Err(e) => {
            let why = unreadable(file, &e);
            let file = file.display();
            let message = match e.kind() {
                std::io::ErrorKind::IsADirectory => format!("Config file '{file}' is a directory."),
                _ => format!("Unable to open config file '{file}'.\n{why}."),
            };
            return draft.say_at(included_at.cloned(), Severity::Error, message);
        }
    };
    read_content(draft, file, &content, included_at);
}

/// Reads what is in a file. Only the main file may include others.
pub(super) fn read_content(draft: &mut Draft, file: &Path, content: &[u8], included_at: Option<&Place>) {
    if let Some(at) = content.iter().position(|&b| b == 0) {
        let line = content[..at].iter().filter(|&&b| b == b'\n').count() as u32 + 1;
        let at = Place { file: file.into(), line, column: 1 };
        return draft.say_at(
            Some(at),
            Severity::Error,
            "This is not a text file: there is a zero byte in it.",
        );
    }
    let outer = std::mem::take(&mut draft.tally);
    for line in lines::lines(file, content) {
        if draft.tally.is_full() {
            break;
        }
        let at = line.at.clone();
        draft.at = at.clone();
        option(draft, line);
        if let Some(directory) = draft.include.take() {
            if included_at.is_some() {
                let message = "The include_dir option is only valid in the main configuration file.";
                draft.say_at(Some(at), Severity::Error, message);
            } else {
                include(draft, &directory, &at);
            }
        }
    }
    let own = std::mem::replace(&mut draft.tally, outer);
    draft.problems.extend(own.rest(file));
}

fn include(draft: &mut Draft, directory: &str, at: &Place) {
    match files_in(Path::new(directory)) {
        Ok(files) => files.iter().for_each(|file| read(draft, file, Some(at))),
        Err(e) => {
            let message = format!(
                "Unable to open include_dir '{directory}'. {}.",
                unreadable(Path::new(directory), &e)
            );
            draft.say_at(Some(at.clone()), Severity::Error, message);
        }
    }
}

fn files_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.as_encoded_bytes()).unwrap_or_default();
        // As in mosquitto, a file of that name alone is none.
        if name.len() > 5 && name.ends_with(b".conf") {
            files.push(path);
        }
    }
    files.sort_by(|a, b| order(a).cmp(order(b)));
    Ok(files)
}

fn order(path: &Path) -> &[u8] {
    path.file_name().map(|n| n.as_encoded_bytes()).unwrap_or_default()
}

fn option(draft: &mut Draft, line: Line) {
    let Line { name, mut value, .. } = line;
    let Some(spec) = options::find(&name) else {
        let mut message = format!("Unknown configuration variable '{}'.", name.escape_debug());
        if let Some((name, value)) = name.split_once('=')
            && options::find(name).is_some()
        {
            message += &format!(" There is a blank between name and value: {name} {}", value.escape_debug());
        } else if let Some(meant) = suggest::closest(&name, options::names()) {
            message += &format!(" Did you mean '{meant}'?");
        }
        return draft.say(Severity::Error, message);
    };
    if let Err(message) = check_place(draft, spec, &name) {
        return draft.say(Severity::Error, message);
    }
    let value_at = value.at().clone();
    let has_sign = value.left_over().is_some_and(|value| value.starts_with('='));
    if let Err(mut message) = take(draft, spec, &name, &mut value) {
        if has_sign {
            message += " There is a blank between name and value, and no '='.";
        }
        return draft.say_at(Some(value_at), Severity::Error, message);
    }
    if let Some(ignored) = value.left_over() {
        let message = format!("'{}' after the value of '{name}' is ignored.", ignored.escape_debug());
        draft.say_at(Some(value.at().clone()), Severity::Warning, message);
    }
    check_repetition(draft, spec, &name);
}

/// Whether the option may stand here.
fn check_place(draft: &mut Draft, spec: &Spec, name: &str) -> Result<(), String> {
    let requires = |what: &str| Err(format!("The '{name}' option requires {what} to be defined first."));
    match spec.scope {
        Scope::Listener if !draft.has_door() => requires("a listener"),
        Scope::Security if draft.per_listener && !draft.has_door() => requires("a listener"),
        Scope::Bridge if draft.bridges.is_empty() => requires("a bridge"),
        Scope::Plugin if !draft.has_plugin => requires("plugin/global_plugin/plugin_load"),
        Scope::Plugin if name.ends_with("_opt_") => Err("Invalid 'plugin_opt_' config option.".to_owned()),
        _ => Ok(()),
    }
}

/// Reads the value, and says what becomes of the option.
fn take(draft: &mut Draft, spec: &Spec, name: &str, value: &mut Value) -> Result<(), String> {
    let mut is_default = false;
    match spec.takes {
        Takes::Bool(set) => {
            let on = match value.word().as_deref() {
                Some("true" | "1") => true,
                Some("false" | "0") => false,
                Some(other) => {
                    let other = other.escape_debug();
                    return Err(format!("Invalid '{name}' value ({other}). It can be true or false."));
                }
                None => return Err(empty(name)),
            };
            is_default = spec.default == if on { "true" } else { "false" };
            set(draft, on);
        }
        Takes::Number { least, most, message, set } => {
            let n = number(name, &value.word())?;
            if !(least..=most).contains(&n) {
                return Err(match message {
                    "" => format!("Invalid '{name}' value ({n}). It can be {least} to {most}."),
                    _ => message.replace("{}", &n.to_string()),
                });
            }
            set(draft, n);
        }
        Takes::Text(set) => {
            let at = value.at().clone();
            let text = value.text().ok_or_else(|| empty(name))?;
            draft.check_text(at, name, &text)?;
            set(draft, text)?;
        }
        Takes::Words(set) => set(draft, value)?,
    }
    match spec.status {
        Status::Supported | Status::Own => {}
        Status::NoEffect(why) if !is_default => {
            draft.say(Severity::Warning, format!("'{name}' has no effect: {why}."));
        }
        Status::Planned(instead) | Status::Refused(instead) if !instead.is_empty() => {
            return Err(format!("'{name}' is not supported. {instead}"));
        }
        Status::NoEffect(_) | Status::Planned(_) | Status::Refused(_) => {}
    }
    Ok(())
}

fn empty(name: &str) -> String {
    for prefix in ["plugin_opt_", "auth_opt_"] {
        if let Some(key) = name.strip_prefix(prefix) {
            return format!("Empty '{key}' value in configuration.");
        }
    }
    format!("Empty '{name}' value in configuration.")
}

fn check_repetition(draft: &mut Draft, spec: &Spec, name: &str) {
    if spec.repeat == Repeat::Adds {
        return;
    }
    let of_door = match spec.scope {
        Scope::Listener | Scope::ListenerOrDefault => true,
        Scope::Security => draft.per_listener,
        _ => false,
    };
    let Some(before) = draft.see(spec.name, of_door) else { return };
    match spec.repeat {
        Repeat::Never => draft.say(
            Severity::Error,
            format!("Duplicate '{name}' value in configuration. The first is at {before}."),
        ),
        _ => draft.say(Severity::Warning, format!("'{name}' replaces the value given at {before}.")),
    }
}
