//! When the engine gives up on its file: what can be read of it goes to a new one, the old one is kept.

use super::attempts::Attempts;
use super::base::{Base, BaseError, CACHE_BYTES, META, Meta, RECORDS, Reader, guard, known_format};
use super::layer::Key;
use super::overlay::Overlay;
use super::pages;
use redb::{
    AccessGuard, Builder, ConcurrencyMode, Database, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError,
};
use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// How many records are written at a time.
const BATCH: usize = 10_000;

/// Records are read kind by kind, by the first byte of their keys.
const KINDS: [u8; 5] = [b'b', b'f', b'm', b'r', b's'];

type Result<T> = std::result::Result<T, BaseError>;

/// What was read of a damaged file, and written to a new one.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// What is known of the whole.
    pub meta: Option<Meta>,
    /// How many records the engine could reach.
    pub records: u64,
    /// How many more were found in pages by themselves.
    pub found: u64,
    /// What the engine said, where it gave up.
    pub trouble: Vec<String>,
}

/// Puts a new file, with all that can be read, in the place of a damaged one. Returns how many records that were, and where
/// the old file is now. What single records are worth is for their checksums to say.
pub(super) fn salvage(path: &Path, attempts: &Attempts) -> Result<(u64, PathBuf)> {
    let fresh = with_end(path, ".new");
    let _ = fs::remove_file(&fresh);
    let (records, meta) = {
        let file = attempts.count(|| Source::open(path))?;
        let meta = file.meta()?;
        let meta = meta.ok_or_else(|| BaseError::Corrupt("it does not say how names are hashed".into()))?;
        let mut copier = Copier::new(&fresh)?;
        copier.copy(&file)?;
        copier.write()?;
        attempts.count(|| file.close());
        (copier.count, meta)
    };
    Base::open(&fresh)?.commit(&Default::default(), &[], meta)?;
    let aside = (1..).map(|n| with_end(path, &format!(".damaged-{n}"))).find(|p| !p.exists());
    let aside = aside.unwrap_or_else(|| with_end(path, ".damaged"));
    fs::rename(path, &aside)?;
    fs::rename(&fresh, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok((records, aside))
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// By the engine and, where that does not find its way, page by page.
    Engine,
    /// Page by page alone.
    Pages,
}

/// Copies to a new file what can be read of a damaged one. What is known of the whole is left for the caller to write.
pub(super) fn copy(path: &Path, fresh: &Path, reading: Reading, attempts: &Attempts) -> Result<Copied> {
    let mut copied = Copied::default();
    let raw = File::open(path)?;
    let mut copier = Copier::new(fresh)?;
    let everything = || vec![Gap { after: Vec::new(), before: vec![u8::MAX] }];
    let gaps = match (reading == Reading::Engine).then(|| attempts.count(|| Source::open(path))) {
        Some(Ok(source)) => {
            copied.meta = source.meta().or_else(|e| copied.give_up(e).map(|()| None))?;
            let gaps = copier.copy(&source)?;
            attempts.count(|| source.close());
            gaps
        }
        Some(Err(e)) => {
            copied.give_up(e)?;
            everything()
        }
        None => everything(),
    };
    copied.trouble.append(&mut copier.trouble);
    copier.write()?;
    copied.records = copier.count;
    if !gaps.is_empty() || copied.meta.is_none() {
        copier.compares = true;
        let found = pages::visit(&raw, |key, value| {
            if gaps.iter().any(|gap| gap.has(key)) { copier.put(key, value) } else { Ok(()) }
        })?;
        copied.meta = copied.meta.or(found);
        copier.write()?;
        copied.found = copier.count - copied.records;
    }
    Ok(copied)
}

impl Copied {
    /// What is damaged is left to other ways of reading; what is none of our business is not.
    fn give_up(&mut self, why: BaseError) -> Result<()> {
        if matches!(why, BaseError::Locked | BaseError::Newer(_)) {
            return Err(why);
        }
        self.trouble.push(why.to_string());
        Ok(())
    }
}

/// A path with more at its end.
pub(super) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// A damaged file, open.
struct Source {
    reading: ReadTransaction,
    records: Reader,
    _file: Box<dyn Any>,
}

impl Source {
    fn open(path: &Path) -> Result<Source> {
        // As at a start, with what the engine repairs then.
        Source::of(|| Ok(engine().create_with_backend(Overlay::open(path)?)?)).or_else(|why| {
            // Who reads what another process may be writing neither repairs nor looks at what space is free.
            let unrepaired = || {
                let file = Overlay::open(path)?;
                file.pretend_closed()?;
                Ok(engine()
                    .set_concurrency_mode(ConcurrencyMode::SingleWriter)
                    .open_read_only_with_backend(file)?)
            };
            Source::of(unrepaired).map_err(|_| why)
        })
    }

    fn of<F: ReadableDatabase + 'static>(open: impl FnOnce() -> Result<F>) -> Result<Source> {
        guard(|| {
            let file = open()?;
            let reading = file.begin_read()?;
            Ok(Source { records: reading.open_table(RECORDS)?, reading, _file: Box::new(file) })
        })
    }

    /// What was repaired is committed once more, to where nobody sees it.
    fn close(self) {
        drop(guard(|| {
            drop(self);
            Ok(())
        }));
    }

    fn meta(&self) -> Result<Option<Meta>> {
        guard(|| {
            let table = self.reading.open_table(META)?;
            let number = |name| Ok::<_, BaseError>(table.get(name)?.map(|n| n.value()));
            let Some(placement) = number("placement")? else { return Ok(None) };
            known_format(number("format")?.unwrap_or(0))?;
            let (run, shards) = (number("run")?.unwrap_or(0) as u32, number("shards")?.unwrap_or(0) as u16);
            Ok(Some(Meta { run, placement, shards, segment: number("segment")?.unwrap_or(0) }))
        })
    }
}

fn engine() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Keys between which nothing can be read, or not all.
struct Gap {
    /// The last that was read before it.
    after: Vec<u8>,
    /// The first that was read behind it.
    before: Vec<u8>,
}

impl Gap {
    fn has(&self, key: &[u8]) -> bool {
        &self.after[..] < key && key < &self.before[..]
    }
}

/// Writes records to a new file.
struct Copier {
    new: Database,
    batch: Vec<(Key, Vec<u8>)>,
    count: u64,
    /// What could not be read.
    trouble: Vec<String>,
    /// What could not be written.
    failed: Option<BaseError>,
    /// Whether a key may come again with an older value.
    compares: bool,
}

type Bytes<'a> = AccessGuard<'a, &'static [u8]>;

impl Copier {
    fn new(path: &Path) -> Result<Copier> {
        Ok(Copier {
            new: Database::create(path)?,
            batch: Vec::new(),
            count: 0,
            trouble: Vec::new(),
            failed: None,
            compares: false,
        })
    }

    /// What the engine can reach. What cannot be read hides what is behind it, so each kind of record is read from
    /// both ends; what is left in between is returned.
    fn copy(&mut self, source: &Source) -> Result<Vec<Gap>> {
        let mut gaps = Vec::new();
        for kind in KINDS {
            let keys = || source.records.range::<&[u8]>(&[kind][..]..&[kind + 1][..]);
            let (mut after, mut before) = (vec![kind], vec![kind + 1]);
            let forward = guard(|| keys()?.try_for_each(|item| self.take(item, &mut after)));
            if let Err(why) = forward {
                self.trouble.push(why.to_string());
                // However far it comes.
                let _ = guard(|| keys()?.rev().try_for_each(|item| self.take(item, &mut before)));
                gaps.push(Gap { after, before });
            }
            self.failed.take().map_or(Ok(()), Err)?;
        }
        Ok(gaps)
    }

    fn take(
        &mut self,
        item: std::result::Result<(Bytes<'_>, Bytes<'_>), StorageError>,
        last: &mut Vec<u8>,
    ) -> Result<()> {
        let (key, value) = item?;
        last.clear();
        last.extend_from_slice(key.value());
        self.put(key.value(), value.value()).map_err(|e| {
            let what = e.to_string();
            self.failed = Some(e);
            BaseError::Io(std::io::Error::other(what))
        })
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.batch.push((key.into(), value.into()));
        if self.batch.len() >= BATCH { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let writing = self.new.begin_write()?;
        {
            let mut records = writing.open_table(RECORDS)?;
            for (key, value) in &self.batch {
                let is_newer = |known: Bytes<'_>| age(key, value) < age(key, known.value());
                if self.compares && records.get(&key[..])?.is_some_and(is_newer) {
                    continue;
                }
                let known = records.insert(&key[..], &value[..])?.is_some();
                self.count += u64::from(!known);
            }
        }
        writing.commit()?;
        self.batch.clear();
        Ok(())
    }
}

/// What is larger in the newer one of two values of a key, where that can be told: the name of a retained message, the time at which a
/// session was written, the number of the last message between workers.
fn age(key: &[u8], value: &[u8]) -> u64 {
    let at = match (key.first(), key.get(13)) {
        (Some(b'r'), _) => 2,
        (Some(b's'), Some(0)) => 16,
        (Some(b'm'), _) => 0,
        _ => return 0,
    };
    value.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u64::from_be_bytes(*n))
}

#[cfg(test)]
mod tests {
    use super::super::base;
    use super::super::view::seal;
    use super::*;
    use hikyaku_proto::broker::store::{BodyId, record};

    #[test]
    fn of_what_is_in_several_pages_the_newest_is_taken() {
        let fresh = std::env::temp_dir().join(format!("hikyaku-salvage-{}", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let mut copier = Copier::new(&fresh).unwrap();
        copier.compares = true;
        let key = record::retained_key(0, "t");
        let retained = |count| {
            let mut value = Vec::new();
            record::put_retained(BodyId { origin: 9 - count as u16, count }, &mut value);
            seal(&key, value)
        };
        for (count, ends) in [(2, false), (3, false), (1, true), (2, true)] {
            copier.put(&key, &retained(count)).unwrap();
            if ends {
                copier.write().unwrap();
            }
        }
        assert_eq!(copier.count, 1);
        drop(copier);
        let base = Base::open(&fresh).unwrap();
        assert_eq!(base::get(&base.reader().unwrap(), &key).unwrap(), Some(retained(3)));
        drop(base);
        fs::remove_file(&fresh).unwrap();
    }
}
