//! From root to someone who may less.
//!
//! On Linux the system calls used here are about one thread. They are made while there is only one; those
//! that are started later inherit what it has.

use hikyaku::config::{ListenerSettings, Problem, Settings, Severity};
use rustix::process::{Gid, Uid};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    groups: Vec<u32>,
}

/// Whether there is anything to give up.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds a user by name in /etc/passwd, or by number.
pub fn find(name: &str) -> Result<User, String> {
    let read = |file| fs::read_to_string(file).map_err(|e| format!("Unable to open {file}. {e}."));
    let passwd = read("/etc/passwd")?;
    let group = read("/etc/group").unwrap_or_default();
    find_in(name, &passwd, &group).ok_or_else(|| format!("Invalid user '{name}': it is not in /etc/passwd."))
}

fn find_in(name: &str, passwd: &str, group: &str) -> Option<User> {
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let user = users.find(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name))?;
    let name = user.first()?;
    let groups = group.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let is_member = fields.get(3)?.split(',').any(|member| member == *name);
        is_member.then(|| fields.get(2)?.parse().ok()).flatten()
    });
    Some(User { uid: user.get(2)?.parse().ok()?, gid: user.get(3)?.parse().ok()?, groups: groups.collect() })
}

/// What is wrong with the `user` of the settings: that there is none of this name, or that it could not read files
/// again that root can read now.
pub fn check(settings: &Settings, config: Option<&Path>) -> Vec<Problem> {
    let Some(name) = &settings.user else { return Vec::new() };
    let problem = |severity, message| Problem { at: settings.user_at.clone(), severity, message };
    let user = match find(name) {
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
        let (obstacle, missing) = user.obstacle(&path)?;
        let (path, obstacle_text) = (path.display(), obstacle.display());
        let what = if missing == READ { "it" } else { "the directory" };
        let cure = user.cure(&obstacle, missing)?;
        Some(format!(
            "{option} '{path}' can be read now, by root, but not by user '{name}', who may not {} {what} \
             ({obstacle_text}): it cannot be read again at SIGHUP or after a change. '{cure}' ends that.",
            if missing == READ { "read" } else { "enter" },
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

const READ: u32 = 4;
const ENTER: u32 = 1;

impl User {
    /// What keeps the user from reading a file or directory, as far as owners and modes say, and the bit that is
    /// missing there.
    fn obstacle(&self, path: &Path) -> Option<(PathBuf, u32)> {
        let named = std::path::absolute(path).ok()?;
        // What a link leads to, and the way there.
        let real = named.canonicalize().ok()?;
        for path in [&named, &real] {
            for directory in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                if !self.may(ENTER, &fs::metadata(directory).ok()?) {
                    return Some((directory.into(), ENTER));
                }
            }
        }
        let found = fs::metadata(&real).ok()?;
        if !self.may(READ, &found) {
            return Some((real, READ));
        }
        if !found.is_dir() {
            return None;
        }
        if !self.may(ENTER, &found) {
            return Some((real, ENTER));
        }
        let inside = fs::read_dir(&real).ok()?.flatten().map(|entry| entry.path());
        inside.filter(|file| file.is_file()).find_map(|file| self.obstacle(&file))
    }

    /// Whether one of the bits of `mode` that hold for the user is this.
    fn may(&self, bit: u32, file: &Metadata) -> bool {
        file.mode() >> self.shift(file) & bit != 0
    }

    fn shift(&self, file: &Metadata) -> u32 {
        match () {
            () if file.uid() == self.uid => 6,
            () if file.gid() == self.gid || self.groups.contains(&file.gid()) => 3,
            () => 0,
        }
    }

    /// The commands that remove an obstacle.
    fn cure(&self, path: &Path, missing: u32) -> Option<String> {
        let bit = if missing == READ { "r" } else { "x" };
        let found = fs::metadata(path).ok()?;
        let path = path.display();
        Some(match self.shift(&found) {
            6 => format!("chmod u+{bit} {path}"),
            3 => format!("chmod g+{bit} {path}"),
            // Whoever owns it goes on as before.
            _ => format!("chgrp {} {path} && chmod g+{bit} {path}", group_name(self.gid)),
        })
    }

    /// Becomes this user, for good. Only as root, and before there are other threads.
    pub fn become_it(&self) -> rustix::io::Result<()> {
        let groups: Vec<_> = self.groups.iter().chain([&self.gid]).map(|&g| Gid::from_raw(g)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_gid(Gid::from_raw(self.gid))?;
        rustix::thread::set_thread_uid(Uid::from_raw(self.uid))
    }
}

fn group_name(gid: u32) -> String {
    let number = gid.to_string();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|fields| fields.get(2) == Some(&number.as_str()));
    found.and_then(|fields| fields.first().map(|&name| name.to_owned())).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nhik:x:107:65534::/:/bin/false\nbroken\n";
        let group = "root:x:0:\nssl-cert:x:110:postgres,hik\nother:x:111:hikyaku\n";
        let hik = User { uid: 107, gid: 65534, groups: vec![110] };
        assert_eq!(find_in("hik", passwd, group), Some(hik.clone()));
        assert_eq!(find_in("107", passwd, group), Some(hik));
        assert_eq!(find_in("nobody", passwd, group), None);
        assert_eq!(find_in("broken", passwd, group), None);
    }
}
