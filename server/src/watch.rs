//! Whether files have changed, found out by looking at them now and then.
//!
//! A file counts as changed once two looks in a row find it the same, and not as it was: who writes it has
//! then finished. Looking costs one system call for each file, and works on every file system, for files
//! that are written over, replaced, or reached through links.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Files that are looked at together, as what is read from one depends on the others.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    /// What they were when it was last known what they say.
    known: Vec<Found>,
    /// What they were at the last look.
    last: Vec<Found>,
}

/// What is at a path: a file, or a directory and the files in it.
type Found = Vec<Seen>;

/// A file at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen(PathBuf, Stamp);

/// What tells versions of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Missing,
    #[cfg(unix)]
    Is {
        device: u64,
        inode: u64,
        modified: (i64, i64),
        bytes: u64,
    },
    #[cfg(not(unix))]
    Is {
        modified: Option<std::time::SystemTime>,
        bytes: u64,
    },
}

/// More files in a directory are not looked at.
const DIRECTORY_MAX: usize = 4096;

impl Watch {
    /// Watches files, and directories with the files in them. To be called before they are read: what changes
    /// meanwhile is then noticed.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Watch {
        let mut paths: Vec<PathBuf> = paths.into_iter().collect();
        paths.sort();
        paths.dedup();
        let known: Vec<Found> = paths.iter().map(|path| look_at(path).unwrap_or_default()).collect();
        Watch { paths, last: known.clone(), known }
    }

    /// The files that are not what they were at the start or when this last named them; none while a file was changed
    /// since the last call.
    pub fn changed(&mut self) -> Vec<PathBuf> {
        let known = self.paths.iter().zip(&self.known);
        // Having given up privileges we may see less than before: that is no change.
        let now = known.map(|(path, known)| look_at(path).unwrap_or_else(|Denied| known.clone())).collect();
        let is_settled = now == self.last;
        self.last = now;
        if !is_settled || self.last == self.known {
            return Vec::new();
        }
        let differ = self.paths.iter().zip(self.known.iter().zip(&self.last));
        let changed =
            differ.filter(|(_, (known, last))| known != last).map(|(path, _)| path.clone()).collect();
        self.known.clone_from(&self.last);
        changed
    }
}

/// It may be there, but we may not look.
struct Denied;

/// Looks at a file, or a directory and what is in it.
fn look_at(path: &Path) -> Result<Found, Denied> {
    let (stamp, is_directory) = stamp(path)?;
    let mut seen = vec![Seen(path.into(), stamp)];
    if is_directory {
        let entries = fs::read_dir(path).map_err(|_| Denied)?;
        let mut files: Vec<PathBuf> = entries.take(DIRECTORY_MAX).flatten().map(|e| e.path()).collect();
        files.sort();
        for file in files {
            let (stamp, _) = self::stamp(&file)?;
            seen.push(Seen(file, stamp));
        }
    }
    Ok(seen)
}

/// What a file is, and whether it is a directory.
fn stamp(path: &Path) -> Result<(Stamp, bool), Denied> {
    match fs::metadata(path) {
        Ok(found) => Ok((Stamp::of(&found), found.is_dir())),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(Denied),
        Err(_) => Ok((Stamp::Missing, false)),
    }
}

impl Stamp {
    #[cfg(unix)]
    fn of(found: &Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        let modified = (found.mtime(), found.mtime_nsec());
        Stamp::Is { device: found.dev(), inode: found.ino(), modified, bytes: found.size() }
    }

    #[cfg(not(unix))]
    fn of(found: &Metadata) -> Stamp {
        Stamp::Is { modified: found.modified().ok(), bytes: found.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("hikyaku-watch-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn write(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The answers of two looks in a row.
    fn twice(watch: &mut Watch) -> [bool; 2] {
        [!watch.changed().is_empty(), !watch.changed().is_empty()]
    }

    #[test]
    fn a_change_is_told_once_when_it_has_settled() {
        let folder = Folder::new("settled");
        let (a, b) = (folder.write("a", "1"), folder.write("b", "1"));
        let mut watch = Watch::new([a.clone(), b.clone(), a.clone()]);
        assert_eq!(twice(&mut watch), [false, false]);
        folder.write("a", "12");
        assert!(watch.changed().is_empty(), "it may be half written");
        folder.write("b", "12");
        assert!(watch.changed().is_empty(), "the other still is");
        assert!(!watch.changed().is_empty());
        assert_eq!(twice(&mut watch), [false, false], "told once");
        // One that comes back as it was is no change.
        let modified = fs::metadata(&a).unwrap().modified().unwrap();
        folder.write("a", "123");
        assert!(watch.changed().is_empty());
        folder.write("a", "12");
        File::options().write(true).open(&a).unwrap().set_modified(modified).unwrap();
        assert_eq!(twice(&mut watch), [false, false]);
    }

    #[test]
    fn a_file_of_the_same_size_and_time_is_another_by_its_inode() {
        let folder = Folder::new("inode");
        let path = folder.write("a", "1");
        let time = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let mut watch = Watch::new([path.clone()]);
        let new = folder.write("new", "2");
        File::options().write(true).open(&new).unwrap().set_modified(time).unwrap();
        fs::rename(new, &path).unwrap();
        assert_eq!(twice(&mut watch), [false, true]);
    }

    #[test]
    fn what_goes_comes_or_is_linked_elsewhere_has_changed() {
        let folder = Folder::new("links");
        let (one, link) = (folder.write("one", "1"), folder.0.join("link"));
        let two = folder.write("two", "1");
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let mut watch = Watch::new([link.clone()]);
        fs::remove_file(&link).unwrap();
        assert_eq!(twice(&mut watch), [false, true]);
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert_eq!(twice(&mut watch), [false, true]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_may_not_be_looked_at_any_more_has_not_changed() {
        use rustix::process::Uid;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = Folder::new("hidden");
        fs::create_dir(folder.0.join("closed")).unwrap();
        let (inside, directory) = (folder.write("closed/a", "1"), folder.0.join("closed"));
        let outside = folder.write("b", "1");
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut watch = Watch::new([inside.clone(), directory, outside]);
        let mut watch = std::thread::spawn(move || {
            // On Linux this is about the thread alone.
            rustix::thread::set_thread_uid(Uid::from_raw(65534)).unwrap();
            assert!(fs::metadata(inside).is_err());
            assert_eq!(twice(&mut watch), [false, false]);
            watch
        })
        .join()
        .unwrap();
        folder.write("b", "12");
        assert_eq!(twice(&mut watch), [false, true]);
    }

    #[test]
    fn files_in_a_directory_count() {
        let folder = Folder::new("directory");
        folder.write("ca.pem", "1");
        let mut watch = Watch::new([folder.0.clone()]);
        folder.write("ca.pem", "12");
        assert_eq!(twice(&mut watch), [false, true]);
        folder.write("other.pem", "1");
        assert_eq!(twice(&mut watch), [false, true]);
        assert_eq!(twice(&mut watch), [false, false]);
    }
}
