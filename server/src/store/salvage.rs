//! When the engine gives up on its file: what can be read of it goes to a new one, the old one is kept.

use super::base::{BaseError, META, RECORDS, guard};
use redb::{AccessGuard, Builder, ConcurrencyMode, Database, ReadableDatabase, ReadableTable, StorageError};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// How many records are written at a time.
const BATCH: usize = 10_000;

type Result<T> = std::result::Result<T, BaseError>;

/// Puts a new file, with all that can be read, in the place of a damaged one. Returns how many records that were, and where
/// the old file is now. What single records are worth is for their checksums to say.
pub(super) fn salvage(path: &Path) -> Result<(u64, PathBuf)> {
    let fresh = with_end(path, ".new");
    let _ = fs::remove_file(&fresh);
    let count = guard(|| copy(path, &fresh))?;
    let aside = (1..).map(|n| with_end(path, &format!(".damaged-{n}"))).find(|p| !p.exists());
    let aside = aside.unwrap_or_else(|| with_end(path, ".damaged"));
    fs::rename(path, &aside)?;
    fs::rename(&fresh, path)?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok((count, aside))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn copy(path: &Path, fresh: &Path) -> Result<u64> {
    // Who reads what another process may be writing neither repairs nor looks at what space is free.
    let old = Builder::new().set_concurrency_mode(ConcurrencyMode::SingleWriter).open_read_only(path)?;
    let reading = old.begin_read()?;
    let new = Database::create(fresh)?;
    let writing = new.begin_write()?;
    {
        let mut meta = writing.open_table(META)?;
        for name in ["format", "run", "placement", "shards", "segment"] {
            if let Some(value) = reading.open_table(META)?.get(name)? {
                meta.insert(name, value.value())?;
            }
        }
        if meta.get("placement")?.is_none() {
            return Err(BaseError::Corrupt("it does not say how names are hashed".into()));
        }
    }
    writing.commit()?;
    let records = reading.open_table(RECORDS)?;
    let mut copier = Copier { new, batch: Vec::new(), count: 0 };
    // What cannot be read hides what is behind it, so each kind of record is read from both ends.
    for kind in [b'b', b'f', b'm', b'r', b's'] {
        let keys = || records.range::<&[u8]>(&[kind][..]..&[kind + 1][..]);
        let forward = guard(|| keys()?.try_for_each(|item| copier.take(item)));
        if forward.is_err() {
            drop(guard(|| keys()?.rev().try_for_each(|item| copier.take(item))));
        }
    }
    copier.write()?;
    Ok(copier.count)
}

struct Copier {
    new: Database,
    batch: Vec<(Vec<u8>, Vec<u8>)>,
    count: u64,
}

type Bytes<'a> = AccessGuard<'a, &'static [u8]>;

impl Copier {
    fn take(&mut self, item: std::result::Result<(Bytes<'_>, Bytes<'_>), StorageError>) -> Result<()> {
        let (key, value) = item?;
        self.batch.push((key.value().into(), value.value().into()));
        if self.batch.len() >= BATCH {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let writing = self.new.begin_write()?;
        {
            let mut records = writing.open_table(RECORDS)?;
            for (key, value) in &self.batch {
                let known = records.insert(&key[..], &value[..])?.is_some();
                self.count += u64::from(!known);
            }
        }
        writing.commit()?;
        self.batch.clear();
        Ok(())
    }
}
