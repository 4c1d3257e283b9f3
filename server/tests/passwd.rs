//! `hikyaku-passwd` and the files it is given.
#![allow(missing_docs)]
#![cfg(unix)]

mod dir;

use dir::Dir;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::process::{Child, Command, Output, Stdio};

impl Dir {
    /// Begins to run the program there. It may not hang.
    fn begin(&self, args: &[&str]) -> Child {
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_hikyaku-passwd")]).args(args).current_dir(&self.0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, args: &[&str]) -> Output {
        self.begin(args).wait_with_output().unwrap()
    }

    /// The users in a file.
    fn users(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.0.join(file)).unwrap();
        text.lines().map(|line| line.split(':').next().unwrap().to_owned()).collect()
    }

    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn what_is_no_regular_file_is_left_alone() {
    let dir = Dir::new("kinds");
    assert!(Command::new("mkfifo").arg(dir.0.join("pipe")).status().unwrap().success());
    fs::create_dir(dir.0.join("folder")).unwrap();
    symlink("pipe", dir.0.join("link")).unwrap();
    symlink("circle", dir.0.join("circle")).unwrap();
    for (file, why) in [
        ("pipe", "It is not a regular file."),
        ("folder", "It is a directory."),
        ("link", "It is not a regular file."),
        ("circle", ""),
    ] {
        for args in [
            &["-b", file, "u", "p"][..],
            &["-c", "-b", file, "u", "p"],
            // Nothing is asked first.
            &[file, "u"],
            &["-c", file, "u"],
            &["-D", file, "u"],
            &["-U", file],
        ] {
            let output = dir.run(args);
            let told = String::from_utf8(output.stderr).unwrap();
            let wanted = format!("Error: Unable to open password file {file}. {why}");
            assert!(told.starts_with(&wanted) && output.status.code() == Some(1), "{args:?}: {told}");
            assert_eq!(output.stdout, b"", "{args:?}");
        }
    }
    assert!(fs::symlink_metadata(dir.0.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(dir.entries(), ["circle", "folder", "link", "pipe"]);
}

#[test]
fn links_stay_and_what_they_lead_to_is_written() {
    let dir = Dir::new("links");
    fs::create_dir(dir.0.join("data")).unwrap();
    symlink("data/link", dir.0.join("users")).unwrap();
    symlink("users", dir.0.join("data/link")).unwrap();
    assert!(!dir.run(&["-b", "users", "ann", "a"]).status.success(), "there is nothing to change");
    assert!(dir.run(&["-c", "-b", "users", "ann", "a"]).status.success());
    let file = dir.0.join("data/users");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(dir.run(&["-b", "users", "bob", "b"]).status.success());
    assert_eq!(dir.users("data/users"), ["ann", "bob"]);
    assert!(dir.run(&["-c", "-b", "users", "cid", "c"]).status.success());
    assert_eq!(dir.users("data/users"), ["cid"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    for link in ["users", "data/link"] {
        assert!(fs::symlink_metadata(dir.0.join(link)).unwrap().is_symlink(), "{link}");
    }
    assert_eq!(fs::read_dir(dir.0.join("data")).unwrap().count(), 2, "nothing else is left there");
}

#[test]
fn users_that_are_set_at_once_are_all_set() {
    let dir = Dir::new("at-once");
    fs::write(dir.0.join("users"), "").unwrap();
    let names: Vec<String> = (10..40).map(|i| format!("u{i}")).collect();
    let running: Vec<Child> = names.iter().map(|name| dir.begin(&["-b", "users", name, "p"])).collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let mut users = dir.users("users");
    users.sort();
    assert_eq!(users, names);
    let running: Vec<Child> = names[1..].iter().map(|name| dir.begin(&["-D", "users", name])).collect();
    for child in running {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(dir.users("users"), names[..1]);
    assert_eq!(dir.entries(), ["users"]);
}
