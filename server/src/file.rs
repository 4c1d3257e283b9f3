//! Reading the files a configuration names, whatever is in their place.
//!
//! Who reads them is the thread that waits for signals: a pipe that nobody writes to would stop it for good, and a file
//! without an end would take all memory. So only regular files are read, and none that is longer than it can well be.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// The longest configuration file.
pub(crate) const CONFIG_BYTES_MAX: usize = 4 << 20;
/// The longest file of certificates, keys or revoked certificates.
pub(crate) const PEM_BYTES_MAX: usize = 4 << 20;
/// The longest file of passwords or rights.
pub(crate) const USERS_BYTES_MAX: usize = 64 << 20;

/// Reads a regular file, or `/dev/null`, which is empty.
///
/// # Errors
/// Also if it is something else, or longer than `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut content = Vec::new();
    // Its length may be untrue, as below /proc, and change.
    file.take(bytes_max as u64 + 1).read_to_end(&mut content)?;
    if content.len() > bytes_max {
        return Err(io::Error::other(format!("It is longer than {} MiB", bytes_max >> 20)));
    }
    Ok(content)
}

/// Opens a regular file, or `/dev/null`, to read it.
///
/// # Errors
/// Also if it is something else.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // What a device does when it is opened is its own affair.
    check(&fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits() as i32);
    }
    let file = options.open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

fn check(found: &Metadata) -> io::Result<()> {
    if found.is_file() || is_null(found) {
        return Ok(());
    }
    if found.is_dir() {
        return Err(rustix::io::Errno::ISDIR.into());
    }
    Err(io::Error::other("It is not a regular file, but a pipe, socket or device"))
}

#[cfg(unix)]
fn is_null(found: &Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    found.file_type().is_char_device()
        && fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == found.rdev())
}

#[cfg(not(unix))]
fn is_null(_found: &Metadata) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read_and_no_long_ones() {
        let folder = std::env::temp_dir().join(format!("hikyaku-file-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let error = |path: &Path| read(path, 1 << 20).unwrap_err().to_string();
        let (pipe, long) = (folder.join("pipe"), folder.join("long"));
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(error(&pipe).contains("not a regular file"));
        assert!(error(Path::new("/dev/zero")).contains("not a regular file"));
        assert!(error(&folder).starts_with("Is a directory"));
        assert!(error(&folder.join("none")).contains("No such file"));
        assert_eq!(read(Path::new("/dev/null"), 0).unwrap(), b"");
        fs::write(&long, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read(&long, 1 << 20).unwrap().len(), 1 << 20);
        fs::write(&long, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert_eq!(error(&long), "It is longer than 1 MiB");
        fs::remove_dir_all(&folder).unwrap();
    }
}
