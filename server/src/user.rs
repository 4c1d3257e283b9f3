//! Users of the system, and what keeps them from files.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
    /// The numbers of other groups.
    pub groups: Vec<u32>,
}

/// What keeps a user from a file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    user: User,
    /// The file, or a directory on the way to it.
    path: PathBuf,
    missing: Missing,
}

/// The bit of a mode that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Read = 4,
    Write = 2,
    Enter = 1,
}

impl User {
    /// Finds a user by name in /etc/passwd, or by number.
    ///
    /// # Errors
    /// If there is none: a sentence for the operator.
    pub fn find(name: &str) -> Result<User, String> {
        let read = |file| fs::read_to_string(file).map_err(|e| format!("Unable to open {file}. {e}."));
        let passwd = read("/etc/passwd")?;
        let group = read("/etc/group").unwrap_or_default();
        find_in(name, &passwd, &group)
            .ok_or_else(|| format!("Invalid user '{name}': it is not in /etc/passwd."))
    }

    /// Who this process runs as.
    pub fn of_process() -> User {
        use rustix::process::{getegid, geteuid, getgroups};
        let groups = getgroups().unwrap_or_default().into_iter().map(|group| group.as_raw()).collect();
        User { uid: geteuid().as_raw(), gid: getegid().as_raw(), groups }
    }

    /// Who a file or directory belongs to, with the group of that; `None` if it is not there.
    pub fn owner_of(path: &Path) -> Option<User> {
        let found = fs::metadata(path).ok()?;
        Some(User { uid: found.uid(), gid: found.gid(), groups: Vec::new() })
    }

    /// The user's name, or number.
    pub fn name(&self) -> String {
        name_of(self.uid, "/etc/passwd")
    }

    /// What keeps the user from reading a file or directory, as far as owners and modes say.
    pub fn obstacle(&self, path: &Path) -> Option<Obstacle> {
        let named = std::path::absolute(path).ok()?;
        // What a link leads to, and the way there.
        let real = named.canonicalize().unwrap_or_else(|_| named.clone());
        if let Some(obstacle) = self.obstacle_to(&named).or_else(|| self.obstacle_to(&real)) {
            return Some(obstacle);
        }
        let found = fs::metadata(&real).ok()?;
        if let Some(obstacle) = self.lacks(Missing::Read, &real) {
            return Some(obstacle);
        }
        if !found.is_dir() {
            return None;
        }
        if let Some(obstacle) = self.lacks(Missing::Enter, &real) {
            return Some(obstacle);
        }
        let inside = fs::read_dir(&real).ok()?.flatten().map(|entry| entry.path());
        inside.filter(|file| file.is_file()).find_map(|file| self.obstacle(&file))
    }

    /// What keeps the user from writing a file, or from making it where there is none yet; from making others in
    /// its directory if that is what `anew` says.
    pub fn obstacle_to_write(&self, path: &Path, anew: bool) -> Option<Obstacle> {
        let path = std::path::absolute(path).ok()?;
        if let Some(obstacle) = self.obstacle_to(&path) {
            return Some(obstacle);
        }
        if !anew && path.exists() {
            return self.lacks(Missing::Write, &path);
        }
        self.lacks(Missing::Write, path.parent()?)
    }

    /// The first directory on the way to `path` that the user may not enter.
    fn obstacle_to(&self, path: &Path) -> Option<Obstacle> {
        let directories: Vec<_> = path.ancestors().skip(1).collect();
        directories.into_iter().rev().find_map(|directory| self.lacks(Missing::Enter, directory))
    }

    fn lacks(&self, missing: Missing, path: &Path) -> Option<Obstacle> {
        let found = fs::metadata(path).ok()?;
        let may = self.uid == 0 || found.mode() >> self.shift(&found) & missing as u32 != 0;
        (!may).then(|| Obstacle { user: self.clone(), path: path.into(), missing })
    }

    /// Which bits of a mode hold for the user.
    fn shift(&self, file: &Metadata) -> u32 {
        match () {
            () if file.uid() == self.uid => 6,
            () if file.gid() == self.gid || self.groups.contains(&file.gid()) => 3,
            () => 0,
        }
    }
}

impl Obstacle {
    /// What the user may not: `read it (/etc/x)`, `enter the directory (/etc)`.
    pub fn what(&self) -> String {
        let path = self.path.display();
        match self.missing {
            Missing::Read => format!("read it ({path})"),
            Missing::Write if self.path.is_dir() => format!("write to the directory ({path})"),
            Missing::Write => format!("write to it ({path})"),
            Missing::Enter => format!("enter the directory ({path})"),
        }
    }

    /// A sentence with the commands that remove it.
    pub fn cure(&self) -> String {
        let bit = match self.missing {
            Missing::Read => 'r',
            Missing::Write => 'w',
            Missing::Enter => 'x',
        };
        let path = self.path.display();
        if ["/", "/home", "/root", "/run/user"].iter().any(|own| self.path == Path::new(own)) {
            return "Put it elsewhere, below /etc/hikyaku for example.".to_owned();
        }
        let shift = fs::metadata(&self.path).map_or(0, |found| self.user.shift(&found));
        let commands = match shift {
            6 => format!("chmod u+{bit} {path}"),
            3 => format!("chmod g+{bit} {path}"),
            // Whoever owns it goes on as before.
            _ => format!("chgrp {} {path} && chmod g+{bit} {path}", name_of(self.user.gid, "/etc/group")),
        };
        format!("'{commands}' ends that.")
    }
}

/// Why a file cannot be written, or made: which directory is missing, which user may not.
pub fn unwritable(path: &Path, error: &io::Error) -> String {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    match error.kind() {
        io::ErrorKind::NotFound if directory.is_some_and(|directory| !directory.exists()) => {
            let directory = directory.unwrap_or(path).display();
            format!("{error}: there is no directory '{directory}'")
        }
        io::ErrorKind::PermissionDenied => {
            let user = User::of_process();
            let obstacle = user
                .obstacle_to_write(path, false)
                .map_or(String::new(), |o| format!(", who may not {}", o.what()));
            format!("{error}: this is done by user '{}'{obstacle}", user.name())
        }
        _ => error.to_string(),
    }
}

/// Why a file cannot be read. For want of permission that names the user, and what to do.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let user = User::of_process();
    match user.obstacle(path) {
        Some(obstacle) => {
            let cure = obstacle.cure();
            let cure = cure.trim_end_matches('.');
            format!("{error}: user '{}', who asks, may not {}. {cure}", user.name(), obstacle.what())
        }
        None => format!("{error}: user '{}', who asks, may not read it", user.name()),
    }
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

/// The name of a number in /etc/passwd or /etc/group, or the number.
fn name_of(number: u32, file: &str) -> String {
    let number = number.to_string();
    let known = fs::read_to_string(file).unwrap_or_default();
    let mut lines = known.lines().map(|line| line.split(':').collect::<Vec<_>>());
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
