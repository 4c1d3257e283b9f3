//! The base: a redb database with all records but those of the newest changes.

use super::attempts::Attempts;
use super::layer::{Key, Layer};
use super::salvage::with_end;
use hikyaku_proto::broker::store::record::FORMAT;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadableDatabase, StorageBackend, StorageError, Table,
    TableDefinition, WriteTransaction,
};
use std::fmt::Display;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

pub(super) const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// Records that were found damaged, as they were.
const DAMAGED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("damaged");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// How much of the file is kept in memory.
pub(super) const CACHE_BYTES: usize = 12 << 20;

/// What went wrong with the base.
#[derive(Debug)]
pub(super) enum BaseError {
    /// The system refuses.
    Io(io::Error),
    /// What is read makes no sense.
    Corrupt(String),
    /// Another process has it.
    Locked,
    /// It is of a later version.
    Newer(String),
}

/// What is known of the store as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// How often the store was opened.
    pub run: u32,
    /// What names are hashed to slots with.
    pub placement: u64,
    /// How many shards there were in the last run.
    pub shards: u16,
    /// The first segment of the journal whose changes are not in the base.
    pub segment: u64,
}

/// The database. One thread changes it, another may read.
#[derive(Debug)]
pub(super) struct Base {
    path: PathBuf,
    attempts: Attempts,
    db: RwLock<Option<Database>>,
}

/// The records as of some moment; while it is held, their place in the file is not used again.
pub(super) type Reader = ReadOnlyTable<&'static [u8], &'static [u8]>;

type Result<T> = std::result::Result<T, BaseError>;

impl Base {
    /// Opens the database. If there is none, one is made under another name first: who loses the power meanwhile has none, and
    /// not a part of one.
    pub fn open_or_make(path: &Path, attempts: Attempts) -> Result<Base> {
        if !path.exists() {
            let fresh = with_end(path, ".new");
            match std::fs::remove_file(&fresh) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                _ => Base::open(&fresh)?.close(),
            }
            note!(&fresh, Rename);
            std::fs::rename(&fresh, path)?;
            if let Some(dir) = path.parent() {
                std::fs::File::open(dir)?.sync_all()?;
            }
            note!(path, SyncNames);
        }
        Base::open_counted(path, attempts)
    }

    /// Opens the database, or makes one, of which no engine has died.
    pub fn open(path: &Path) -> Result<Base> {
        Base::open_counted(path, Attempts::default())
    }

    /// Opens the database, or makes one. What of it may end the process is counted.
    pub fn open_counted(path: &Path, attempts: Attempts) -> Result<Base> {
        let base = Base { path: path.into(), attempts, db: RwLock::new(None) };
        base.reopen()?;
        Ok(base)
    }

    /// Closes the database and opens it again: after an error it serves nobody.
    pub fn reopen(&self) -> Result<()> {
        self.close();
        let mut place = self.db.write().unwrap_or_else(PoisonError::into_inner);
        let opened = self.counted(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES);
            #[cfg(not(test))]
            let db = builder.create(&self.path)?;
            #[cfg(test)]
            let db = builder.create_with_backend(super::power::Recorded::open(&self.path)?)?;
            make_tables(&db)?;
            Ok(db)
        });
        *place = Some(opened?);
        Ok(())
    }

    /// A base that is not in a file, with `tables` or as it is. It cannot be opened again.
    pub fn in_memory(backend: impl StorageBackend, tables: bool) -> Result<Base> {
        let db = guard(|| {
            let db = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
            if tables {
                make_tables(&db)?;
            }
            Ok(db)
        })?;
        let (path, attempts) = Default::default();
        Ok(Base { path, attempts, db: RwLock::new(Some(db)) })
    }

    /// Closes the database; only [`Base::reopen`] may follow.
    pub fn close(&self) {
        let mut place = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = place.take() {
            drop(self.counted(|| {
                drop(db);
                Ok(())
            }));
        }
    }

    /// If the engine may have ended the broker over this file: closes it and opens it again. As it was changed before, that clears
    /// its name. What cannot be opened is for `salvage`.
    pub fn prove(&self, salvage: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        if self.attempts.deaths() == 0 {
            return Ok(());
        }
        match self.reopen() {
            Err(BaseError::Corrupt(why)) => salvage(&why).and_then(|()| self.reopen())?,
            other => other?,
        }
        self.attempts.forgive();
        Ok(())
    }

    /// For what commits.
    fn counted<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.attempts.count(|| guard(work))
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or_else(|| io::Error::other("the store is closed"))?;
        guard(|| work(db))
    }

    /// What was written of the store as a whole; `None` if it is new.
    pub fn meta(&self) -> Result<Option<Meta>> {
        self.with(|db| {
            let table = db.begin_read()?.open_table(META)?;
            let number = |name| Ok::<_, BaseError>(table.get(name)?.map(|n| n.value()));
            let Some(format) = number("format")? else { return Ok(None) };
            known_format(format)?;
            let run = number("run")?.unwrap_or(0) as u32;
            let placement = number("placement")?
                .ok_or_else(|| BaseError::Corrupt("it does not say how names are hashed".into()))?;
            let shards = number("shards")?.unwrap_or(0) as u16;
            Ok(Some(Meta { run, placement, shards, segment: number("segment")?.unwrap_or(0) }))
        })
    }

    /// Makes changes, of which `damaged` is moved aside, and writes down what is known of the whole. Returns when all of it is
    /// on disk.
    pub fn commit(&self, changes: &Layer, damaged: &[Key], meta: Meta) -> Result<()> {
        self.commit_with(meta, |commit| {
            let mut records = commit.open_table(RECORDS)?;
            change(&mut records, changes)?;
            let mut aside = commit.open_table(DAMAGED)?;
            for key in damaged {
                if let Some(value) = records.remove(&key[..])? {
                    aside.insert(&key[..], value.value())?;
                }
            }
            Ok(())
        })
    }

    /// Makes all changes that `say` gives to its argument, layer after layer, in one step: more than memory may hold.
    pub fn commit_layers<T>(
        &self,
        meta: Meta,
        say: impl FnOnce(&mut dyn FnMut(&Layer) -> Result<()>) -> Result<T>,
    ) -> Result<T> {
        self.commit_with(meta, |commit| {
            let mut records = commit.open_table(RECORDS)?;
            say(&mut |layer| change(&mut records, layer))
        })
    }

    fn commit_with<T>(&self, meta: Meta, work: impl FnOnce(&WriteTransaction) -> Result<T>) -> Result<T> {
        let write = |db: &Database| {
            let mut commit = db.begin_write()?;
            // An open after a crash need not walk through everything, nor refuse all of it for one flipped bit.
            commit.set_quick_repair(true);
            let done = work(&commit)?;
            {
                let mut table = commit.open_table(META)?;
                table.insert("format", u64::from(FORMAT))?;
                table.insert("run", u64::from(meta.run))?;
                table.insert("placement", meta.placement)?;
                table.insert("shards", u64::from(meta.shards))?;
                table.insert("segment", meta.segment)?;
            }
            commit.commit()?;
            Ok(done)
        };
        self.attempts.count(|| self.with(write))
    }

    /// The records as they are now.
    pub fn reader(&self) -> Result<Reader> {
        self.with(|db| Ok(db.begin_read()?.open_table(RECORDS)?))
    }

    /// Gives space back to the system, if that is little work and much space. Nobody may be reading.
    pub fn shrink(&self) -> Result<bool> {
        /// What is worth it.
        const FILE_BYTES: u64 = 4 << 20;
        /// How much may have to be moved.
        const LIVE_BYTES: u64 = 32 << 20;
        let mut place = self.db.write().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = place.as_mut() else { return Ok(false) };
        let file = std::fs::metadata(&self.path)?.len();
        self.counted(|| {
            let stats = db.begin_write()?;
            let numbers = stats.stats()?;
            let live = numbers.stored_bytes() + numbers.metadata_bytes();
            stats.abort()?;
            if file < FILE_BYTES || live > LIVE_BYTES || live > file / 2 {
                return Ok(false);
            }
            // A pass moves what it finds behind free space, which the next may find behind some more.
            let mut passes = 0;
            while passes < 8 && db.compact()? {
                passes += 1;
            }
            Ok(passes > 0)
        })
    }
}

impl Drop for Base {
    /// Closing writes, and so may fail as all of it may.
    fn drop(&mut self) {
        self.close();
    }
}

fn change(records: &mut Table<'_, &[u8], &[u8]>, changes: &Layer) -> Result<()> {
    for (key, change) in changes.iter() {
        match &change.value {
            Some(value) => drop(records.insert(&key[..], &value[..])?),
            None => drop(records.remove(&key[..])?),
        }
    }
    Ok(())
}

/// What a later version wrote is not for this one.
pub(super) fn known_format(format: u64) -> Result<()> {
    match format > FORMAT.into() {
        true => Err(BaseError::Newer(format!("its format is {format}, not {FORMAT}"))),
        false => Ok(()),
    }
}

fn make_tables(db: &Database) -> Result<()> {
    let mut change = db.begin_write()?;
    change.set_quick_repair(true);
    change.open_table(RECORDS)?;
    change.open_table(DAMAGED)?;
    change.open_table(META)?;
    change.commit()?;
    Ok(())
}

/// The value of a key.
pub(super) fn get(reader: &Reader, key: &[u8]) -> Result<Option<Box<[u8]>>> {
    guard(|| Ok(reader.get(key)?.map(|value| value.value().into())))
}

/// What stands at keys, in their order.
pub(super) fn range(
    reader: &Reader,
    keys: &RangeInclusive<Key>,
) -> Result<impl Iterator<Item = Result<(Key, Box<[u8]>)>> + use<>> {
    let mut range = guard(|| Ok(reader.range::<&[u8]>(&keys.start()[..]..=&keys.end()[..])?))?;
    Ok(std::iter::from_fn(move || {
        let next = guard(|| match range.next() {
            Some(Ok((key, value))) => Ok(Some((key.value().into(), value.value().into()))),
            Some(Err(e)) => Err(e.into()),
            None => Ok(None),
        });
        next.transpose()
    }))
}

/// Where a file is damaged the engine may panic instead of returning an error.
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|why| {
        let text = why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied());
        Err(BaseError::Corrupt(text.unwrap_or("the engine gave up").into()))
    })
}

impl Display for BaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BaseError::Io(e) => e.fmt(f),
            BaseError::Corrupt(what) => write!(f, "it is damaged: {what}"),
            BaseError::Locked => f.write_str("another process has it"),
            BaseError::Newer(what) => f.write_str(what),
        }
    }
}

impl From<io::Error> for BaseError {
    fn from(e: io::Error) -> Self {
        BaseError::Io(e)
    }
}

impl From<StorageError> for BaseError {
    fn from(e: StorageError) -> Self {
        match e {
            // Not the system's words, but the engine's: of a file that is no database, or is too short for one.
            StorageError::Io(e)
                if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                BaseError::Corrupt(e.to_string())
            }
            StorageError::Io(e) => BaseError::Io(e),
            StorageError::Corrupted(what) => BaseError::Corrupt(what),
            other => BaseError::Io(io::Error::other(other.to_string())),
        }
    }
}

impl From<DatabaseError> for BaseError {
    fn from(e: DatabaseError) -> Self {
        match e {
            DatabaseError::Storage(e) => e.into(),
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => BaseError::Locked,
            DatabaseError::RepairAborted => BaseError::Corrupt("it cannot be repaired".into()),
            DatabaseError::UpgradeRequired(n) => BaseError::Newer(format!("its file format is {n}")),
            other => BaseError::Io(io::Error::other(other.to_string())),
        }
    }
}

macro_rules! from {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for BaseError {
            fn from(e: redb::$error) -> Self {
                match e {
                    redb::$error::Storage(e) => e.into(),
                    other => BaseError::Io(io::Error::other(other.to_string())),
                }
            }
        }
    )*};
}

from!(TransactionError, TableError, CommitError, CompactionError);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_the_engine_may_have_died_of_is_closed_and_opened_before_it_is_trusted() {
        let dir = std::env::temp_dir().join(format!("hikyaku-prove-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let (path, attempts) = (dir.join("base.redb"), Attempts::of(&dir));
        let base = Base::open_or_make(&path, attempts.clone()).unwrap();
        base.close();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [7; 8192]).unwrap();
        // If none died it costs nothing: not even a bad file is noticed.
        base.prove(&mut |_| unreachable!()).unwrap();
        let died = || fs::write(dir.join("attempts"), [0]).unwrap();
        died();
        assert!(matches!(base.prove(&mut |_| Ok(())), Err(BaseError::Corrupt(_))));
        assert_eq!(attempts.deaths(), 1, "what cannot be opened has not cleared its name");
        let mut mended = 0;
        base.prove(&mut |_| {
            mended += 1;
            Ok(fs::write(&path, &whole)?)
        })
        .unwrap();
        assert_eq!((mended, attempts.deaths()), (1, 0));
        died();
        base.prove(&mut |_| unreachable!()).unwrap();
        assert_eq!(attempts.deaths(), 0);
        base.reader().unwrap();
        drop(base);
        fs::remove_dir_all(&dir).unwrap();
    }
}
