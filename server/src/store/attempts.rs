//! How often in a row the broker died while the engine wrote to its file.
//!
//! Where the list of free pages is damaged, the engine panics in a destructor while another panic unwinds: that ends the
//! process, and no caller can catch it. It happens where the engine commits: when a file is opened, changed, or closed. So whoever
//! calls that counts it first, and takes it back when it has returned. What is counted when the broker starts are calls that
//! nobody has returned from; after [`DEATHS_MAX`] the file is read without the engine.
//!
//! A broker that is killed, or loses its power, within such a call looks the same, so one death says nothing, and a start that
//! opens, changes and closes the file clears its name. Calls that may last, those that read, are not counted.
//!
//! The count is the length of a file: no write can be torn, and no space is needed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

/// After so many deaths a start does without the engine.
pub(super) const DEATHS_MAX: u64 = 3;
const NAME: &str = "attempts";

/// The count of one store.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(Option<PathBuf>);

impl Attempts {
    /// That of the store in a directory. The default is none: nothing is counted.
    pub fn of(dir: &Path) -> Attempts {
        Attempts(Some(dir.join(NAME)))
    }

    /// How many calls have not returned.
    pub fn deaths(&self) -> u64 {
        self.0.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |known| known.len())
    }

    /// Counts a call for as long as it lasts.
    pub fn count<T>(&self, call: impl FnOnce() -> T) -> T {
        let deaths = self.deaths();
        self.set(deaths + 1);
        let result = call();
        self.set(deaths);
        result
    }

    /// The file is in order, or is another.
    pub fn forgive(&self) {
        if self.deaths() > 0 {
            self.set(0);
        }
    }

    /// Who cannot even count goes on: this is for the next start, and nothing hangs on it now.
    fn set(&self, count: u64) {
        if let Some(path) = &self.0
            && let Err(e) = write(path, count)
        {
            log::debug!("{}: {e}.", path.display());
        }
    }
}

fn write(path: &Path, count: u64) -> io::Result<()> {
    let is_new = !path.exists();
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if is_new {
        note!(path, Create);
        if let Some(dir) = path.parent() {
            // Who salvages may be root, and who runs the broker not.
            let owner = dir.metadata()?;
            let _ = chown(path, Some(owner.uid()), Some(owner.gid()));
            File::open(dir)?.sync_all()?;
        }
        note!(path, SyncNames);
    }
    let known = file.metadata()?.len();
    note!(path, SetLen(count));
    file.set_len(count)?;
    // A call that returned and counts again after a power failure does no harm; two could.
    if count > 0 || known > 1 {
        file.sync_data()?;
        note!(path, Sync);
    }
    Ok(())
}
