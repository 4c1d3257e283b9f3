//! A store that may not be written, has no space, or is another's. As root, the broker runs as somebody else.
#![allow(missing_docs)]
#![cfg(unix)]

mod broker;
mod dir;
mod kept;
mod peer;

use broker::{Broker, free_port, hikyaku};
use dir::Dir;
use kept::{Killable, publish, publish1, resume, start, subscribe};
use peer::Peer;
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Gives all files of a store to the user that [`ordinary`] runs as.
fn give_away(dir: &Dir) {
    if is_root() {
        let files = fs::read_dir(dir.store()).into_iter().flatten().map(|file| file.unwrap().path());
        for path in files.chain([dir.store(), dir.0.clone()]).filter(|path| path.exists()) {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}

/// The broker as somebody to whom permissions matter.
fn ordinary(dir: &Dir) -> Command {
    let mut command = hikyaku();
    if is_root() {
        // Where it was built others may have no way to.
        let program = dir.0.join("hikyaku");
        if !program.exists() {
            fs::copy(env!("CARGO_BIN_EXE_hikyaku"), &program).unwrap();
            set_mode(&program, 0o755);
        }
        command = Command::new(program);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn configure(dir: &Dir) -> u16 {
    let port = free_port();
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}\n",
        dir.0.display()
    );
    fs::write(dir.0.join("hikyaku.conf"), text).unwrap();
    port
}

/// It has to end with 1, and these words.
fn refused(dir: &Dir, words: &[&str]) {
    configure(dir);
    let ended = ordinary(dir).arg("-c").arg(dir.0.join("hikyaku.conf")).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    let errors: Vec<_> = told.lines().filter(|line| line.contains("Cannot keep data in ")).collect();
    assert!(!errors.is_empty() && words.iter().all(|word| errors[0].contains(word)), "{words:?}: {told}");
    assert!(!told.contains("panicked"), "{told}");
}

#[test]
fn a_directory_that_may_not_be_written_is_told_with_the_user() {
    let dir = Dir::new("read-only");
    let user = if is_root() { "nobody" } else { "" };
    configure(&dir);
    drop(ordinary(&dir));
    set_mode(&dir.0, 0o555);
    refused_without_change(&dir, &["hikyaku.store: Permission denied", user]);
    set_mode(&dir.0, 0o755);
    give_away(&dir);
    // It is there, and may be read alone.
    start(&dir.0, 1).0.shutdown().unwrap();
    give_away(&dir);
    set_mode(&dir.store(), 0o555);
    fs::remove_file(dir.store().join("lock")).unwrap_or_default();
    refused(&dir, &["Permission denied", user]);
    // It is somebody else's.
    set_mode(&dir.store(), 0o700);
    if is_root() {
        chown(dir.store(), Some(0), Some(0)).unwrap();
        refused(&dir, &["Permission denied", user]);
        give_away(&dir);
    }
    // One file of it may not be written.
    let base = dir.store().join("base.redb");
    set_mode(&base, 0o444);
    refused(&dir, &["Permission denied"]);
    set_mode(&base, 0o644);
    // Nothing of this has done harm.
    let port = configure(&dir);
    let mut broker = Broker::spawn(ordinary(&dir).arg("-c").arg(dir.0.join("hikyaku.conf")), port);
    Peer::connect(broker.address, "c").ping();
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), Some(0));
}

/// As [`refused`], where not even the configuration can be written any more.
fn refused_without_change(dir: &Dir, words: &[&str]) {
    let ended = ordinary(dir).arg("-c").arg(dir.0.join("hikyaku.conf")).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
}

#[test]
fn who_salvages_as_root_leaves_files_that_the_broker_may_write() {
    if !is_root() {
        return;
    }
    let dir = Dir::new("owner");
    start(&dir.0, 1).0.shutdown().unwrap();
    give_away(&dir);
    let base = dir.store().join("base.redb");
    let mut bytes = fs::read(&base).unwrap();
    bytes[..4096].fill(0);
    fs::write(&base, bytes).unwrap();
    let ended = hikyaku().arg("--salvage").arg(&dir.0).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert_eq!(fs::metadata(&base).unwrap().uid(), NOBODY);
    let port = configure(&dir);
    drop(Broker::spawn(ordinary(&dir).arg("-c").arg(dir.0.join("hikyaku.conf")), port));
}

#[test]
fn a_second_broker_and_one_without_space_say_so_and_end() {
    let dir = Dir::new("second");
    let first = Killable::start(&dir, 1);
    let port = free_port();
    let file = dir.0.join("second.conf");
    let text = fs::read_to_string(dir.0.join("hikyaku.conf")).unwrap();
    fs::write(&file, text.replace(&first.0.address.port().to_string(), &port.to_string())).unwrap();
    let ended = hikyaku().arg("-c").arg(&file).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("Another broker keeps its data in ") && told.contains("hikyaku.store"), "{told}");
    drop(first);
    // No file may grow: as if the disk was full.
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 0; exec \"$0\" -c \"$1\"", env!("CARGO_BIN_EXE_hikyaku")]).arg(&file);
    let ended = shell.stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("Cannot keep data in ") && told.contains("File too large"), "{told}");
    drop(Broker::spawn(hikyaku().arg("-c").arg(&file), port));
}

/// A file system of its own, if that may be had.
struct Mounted<'a>(&'a Dir);

impl Mounted<'_> {
    fn new(dir: &Dir) -> Option<Mounted<'_>> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m", "hikyaku-test"]).arg(&dir.0);
        let done = mount.stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success()).then(|| Mounted(dir))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "that it could not run is to be seen")]
fn a_full_disk_is_survived() {
    let dir = Dir::new("full");
    let Some(mounted) = Mounted::new(&dir) else {
        eprintln!(
            "not run: a file system of its own may not be mounted here; a limit on the size of files is tested elsewhere"
        );
        return;
    };
    let mut broker = Killable::start(&dir, 2);
    let (mut subscriber, _) = resume(broker.0.address, "s");
    subscribe(&mut subscriber, "t", 1);
    let filler = dir.0.join("filler");
    let mut size = 24 << 20;
    while size > 1024 {
        let more = fs::metadata(&filler).map_or(0, |m| m.len() as usize) + size;
        // As far as it goes.
        if fs::write(&filler, vec![1; more]).is_err() {
            size /= 2;
        }
    }
    let mut publisher = Peer::connect(broker.0.address, "p");
    let mut clean = Peer::connect(broker.0.address, "clean");
    clean.subscribe("u");
    for _ in 0..20 {
        // It is closed as soon as nothing can be promised.
        let _ = publisher.0.write_all(&publish("t", 1, false, 7, &[7; 60_000]));
    }
    broker.0.await_line("No space left on device");
    // Who keeps nothing is served.
    clean.send(&peer::publish("u", b"x"));
    clean.expect(&peer::publish("u", b"x"));
    fs::remove_file(&filler).unwrap();
    broker.0.await_line("takes changes again");
    publish1(&mut Peer::connect(broker.0.address, "p2"), "t", false, b"after");
    broker = broker.again(&dir, 1);
    let (_, present) = resume(broker.0.address, "s");
    assert!(present);
    broker.0.signal(Signal::TERM);
    assert_eq!(broker.0.exit_code(), Some(0));
    drop(mounted);
}
