//! From root to someone who may less.
//!
//! On Linux the system calls used here are about one thread. They are made while there is only one; those
//! that are started later inherit what it has.

use rustix::process::{Gid, Uid};
use std::fs;

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

impl User {
    /// Becomes this user, for good. Only as root, and before there are other threads.
    pub fn become_it(&self) -> rustix::io::Result<()> {
        let groups: Vec<_> = self.groups.iter().chain([&self.gid]).map(|&g| Gid::from_raw(g)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_gid(Gid::from_raw(self.gid))?;
        rustix::thread::set_thread_uid(Uid::from_raw(self.uid))
    }
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
