//! From root to someone who may less.
//!
//! On Linux the system calls used here are about one thread. They are made while there is only one; those
//! that are started later inherit what it has.

use hikyaku::User;
use hikyaku::config::{ListenerSettings, Problem, Settings, Severity};
use rustix::process::{Gid, Uid};
use std::path::{Path, PathBuf};

/// Whether there is anything to give up.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What is wrong with the `user` of the settings: that there is none of this name, or that it could not read files
/// again that root can read now.
pub fn check(settings: &Settings, config: Option<&Path>) -> Vec<Problem> {
    let Some(name) = &settings.user else { return Vec::new() };
    let problem = |severity, message| Problem { at: settings.user_at.clone(), severity, message };
    let user = match User::find(name) {
        Ok(user) => user,
        Err(message) if is_root() => return vec![problem(Severity::Error, message)],
        Err(message) => {
            let message = format!("{message} That is an error if root starts the broker; you are not root.");
            return vec![problem(Severity::Warning, message)];
        }
    };
    if !is_root() || user.uid == 0 {
        return Vec::new();
    }
    let obstacles = files(settings, config).into_iter().filter_map(|(option, path)| {
        let obstacle = user.obstacle(&path)?;
        Some(format!(
            "{option} '{}' can be read now, by root, but not by user '{name}', who may not {}: it cannot be read \
             again at SIGHUP or after a change. {}",
            path.display(),
            obstacle.what(),
            obstacle.cure()
        ))
    });
    obstacles.map(|message| problem(Severity::Warning, message)).collect()
}

/// The files that are read again, each once, with what names them.
fn files(settings: &Settings, config: Option<&Path>) -> Vec<(&'static str, PathBuf)> {
    let mut files: Vec<(&'static str, PathBuf)> = Vec::new();
    let mut add = |option, path: Option<&PathBuf>| {
        if let Some(path) = path
            && !files.iter().any(|(_, known)| known == path)
        {
            files.push((option, path.clone()));
        }
    };
    add("the configuration", config.map(PathBuf::from).as_ref());
    for ListenerSettings { security, tls, .. } in &settings.listeners {
        add("password_file", security.password_file.as_ref());
        add("acl_file", security.acl_file.as_ref());
        let Some(tls) = tls else { continue };
        add("certfile", Some(&tls.certfile));
        add("keyfile", Some(&tls.keyfile));
        for (option, path) in [("cafile", &tls.cafile), ("capath", &tls.capath), ("crlfile", &tls.crlfile)] {
            add(option, path.as_ref());
        }
    }
    files
}

/// Becomes this user, for good. Only as root, and before there are other threads.
pub fn become_user(user: &User) -> rustix::io::Result<()> {
    let groups: Vec<_> = user.groups.iter().chain([&user.gid]).map(|&g| Gid::from_raw(g)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_gid(Gid::from_raw(user.gid))?;
    rustix::thread::set_thread_uid(Uid::from_raw(user.uid))
}
