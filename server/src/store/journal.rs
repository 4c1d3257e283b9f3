//! The journal: what happened since the base was last brought up to date, in segments, each a file.
//!
//! A group of changes is one frame: appended with one write, and there if its checksum says so. A broken frame does
//! not hide those behind it: reading looks for the next one that is whole.
//!
//! What looks like a frame may be a client's: payloads stand in frames, and a cut frame is looked through. So what a frame begins
//! with, and its checksum, depend on random numbers at the beginning of the segment, which no client knows. They stand there
//! twice.

use super::layer::Layer;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: [u8; 4] = *b"hkJ2";
/// Twice: magic, the salt, a checksum of it.
const HEADER: usize = 2 * (4 + SALT + 4);
const SALT: usize = 8;
/// Half of the salt, length, checksum of all that follows, number.
const HEAD: usize = 4 + 4 + 4 + 8;
/// The length of a value that is none.
const REMOVED: u32 = u32::MAX;

/// The end of the journal, where it is written.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    segment: u64,
    file: Arc<File>,
    salt: Salt,
    /// Without the header.
    len: u64,
    frames: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Begins a segment.
    pub fn begin(dir: &Path, segment: u64) -> io::Result<Journal> {
        let (file, salt) = create(dir, segment)?;
        Ok(Journal { dir: dir.into(), segment, file, salt, len: 0, frames: 0, buffer: Vec::new() })
    }

    /// After an error: goes on where nothing of it can be.
    pub fn evade(&mut self) -> io::Result<()> {
        if self.len > 0 {
            return self.rotate();
        }
        (self.file, self.salt) = create(&self.dir, self.segment)?;
        Ok(())
    }

    /// Goes on in another segment. The last one stays as it is.
    pub fn rotate(&mut self) -> io::Result<()> {
        (self.file, self.salt) = create(&self.dir, self.segment + 1)?;
        self.segment += 1;
        self.len = 0;
        Ok(())
    }

    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// How long the segment is.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Writes a group of changes; they are with the operating system then. After an error the segment has to be left
    /// ([`Journal::evade`]): nobody knows how much of them is in it.
    pub fn append(&mut self, changes: &Layer) -> io::Result<()> {
        self.frames += 1;
        write_frame(changes, self.salt, self.frames, &mut self.buffer)?;
        let buffer = &mut self.buffer;
        note!(&path(&self.dir, self.segment), Write(HEADER as u64 + self.len, buffer.clone()));
        hinder!(&path(&self.dir, self.segment), Write);
        (&*self.file).write_all(buffer)?;
        self.len += buffer.len() as u64;
        // One very large group need not keep its memory.
        buffer.shrink_to(1 << 20);
        Ok(())
    }

    /// Returns when all that was appended is on disk. After an error that is not to be tried again: the system takes what it could
    /// not write for written, and the next sync says so. The segment has to be left.
    pub fn sync(&self) -> io::Result<()> {
        hinder!(&path(&self.dir, self.segment), Sync);
        self.file.sync_data()?;
        note!(&path(&self.dir, self.segment), Sync);
        Ok(())
    }
}

/// The name of a segment's file.
pub(super) fn name(segment: u64) -> String {
    format!("journal-{segment:012}")
}

fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(name(segment))
}

/// What frames of one segment begin with, and begin their checksums with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt {
    start: [u8; 4],
    sum: u32,
}

impl Salt {
    pub fn new(salt: [u8; SALT]) -> Salt {
        let [a, b, c, d, e, f, g, h] = salt;
        Salt { start: [a, b, c, d], sum: u32::from_be_bytes([e, f, g, h]) }
    }

    fn checksum(self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.sum);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// The header of a segment.
pub(super) fn header(salt: [u8; SALT]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    for copy in header.chunks_exact_mut(HEADER / 2) {
        copy[..4].copy_from_slice(&MAGIC);
        copy[4..4 + SALT].copy_from_slice(&salt);
        copy[4 + SALT..].copy_from_slice(&crc32fast::hash(&salt).to_be_bytes());
    }
    header
}

/// The salt in the header of a segment, from the copy that is whole.
fn salt(header: &[u8]) -> Option<Salt> {
    header.get(..HEADER)?.chunks_exact(HEADER / 2).find_map(|copy| {
        let (salt, sum) = copy.strip_prefix(&MAGIC)?.split_first_chunk::<SALT>()?;
        (sum == crc32fast::hash(salt).to_be_bytes()).then(|| Salt::new(*salt))
    })
}

/// Makes `buffer` the frame of a group of changes.
pub(super) fn write_frame(changes: &Layer, salt: Salt, number: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    buffer.resize(HEAD, 0);
    for (key, change) in changes.iter() {
        buffer.extend_from_slice(&(key.len() as u32).to_be_bytes());
        match &change.value {
            Some(value) => {
                buffer.extend_from_slice(&(value.len() as u32).to_be_bytes());
                buffer.extend_from_slice(key);
                buffer.extend_from_slice(value);
            }
            None => {
                buffer.extend_from_slice(&REMOVED.to_be_bytes());
                buffer.extend_from_slice(key);
            }
        }
    }
    let len = u32::try_from(buffer.len() - HEAD)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a group of changes is too large"))?;
    buffer[12..HEAD].copy_from_slice(&number.to_be_bytes());
    buffer[..4].copy_from_slice(&salt.start);
    buffer[4..8].copy_from_slice(&len.to_be_bytes());
    let sum = salt.checksum(&buffer[12..]);
    buffer[8..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

fn create(dir: &Path, segment: u64) -> io::Result<(Arc<File>, Salt)> {
    // A segment that an earlier attempt has left behind holds nothing that was confirmed.
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path(dir, segment))?;
    note!(&path(dir, segment), Create);
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    // It is on disk with the first frame.
    file.write_all(&header(salt))?;
    note!(&path(dir, segment), Write(0, header(salt).to_vec()));
    File::open(dir)?.sync_all()?;
    note!(&path(dir, segment), SyncNames);
    Ok((Arc::new(file), Salt::new(salt)))
}

/// The segments there are, in their order.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("journal-"));
        found.extend(number.and_then(|n| n.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes a segment that is no longer needed.
pub(super) fn remove(dir: &Path, segment: u64) -> io::Result<()> {
    note!(&path(dir, segment), Remove);
    fs::remove_file(path(dir, segment))
}

/// Adds the changes of a segment to `layer`. Returns how many bytes in it belong to no whole frame though others follow
/// them.
pub(super) fn replay(dir: &Path, segment: u64, layer: &mut Layer) -> io::Result<u64> {
    read(&fs::read(path(dir, segment))?, layer)
}

/// [`replay`] of a segment's bytes.
pub(super) fn read(bytes: &[u8], layer: &mut Layer) -> io::Result<u64> {
    let Some(salt) = salt(bytes) else {
        // A header that is cut is of a segment that was just begun.
        return Ok(if bytes.len() <= HEADER { 0 } else { bytes.len() as u64 });
    };
    let (mut at, mut bad, mut skipped) = (HEADER, 0, 0);
    while at + HEAD <= bytes.len() {
        let Some(payload) = frame(&bytes[at..], salt) else {
            at += 1;
            skipped += 1;
            continue;
        };
        bad += std::mem::take(&mut skipped);
        apply(payload, layer).ok_or_else(|| io::Error::other("the journal has a frame of another form"))?;
        at += HEAD + payload.len();
    }
    Ok(bad)
}

/// The payload of the frame that stands at the beginning, if there is one.
fn frame(bytes: &[u8], salt: Salt) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(&salt.start)?;
    let (len, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let covered = rest.get(..8usize.checked_add(u32::from_be_bytes(*len) as usize)?)?;
    (salt.checksum(covered) == u32::from_be_bytes(*sum)).then(|| &covered[8..])
}

fn apply(mut payload: &[u8], layer: &mut Layer) -> Option<()> {
    while !payload.is_empty() {
        let (key_len, rest) = payload.split_first_chunk()?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*key_len) as usize)?;
        payload = match u32::from_be_bytes(*value_len) {
            REMOVED => {
                layer.remove(key.into());
                rest
            }
            len => {
                let (value, rest) = rest.split_at_checked(len as usize)?;
                layer.put(key.into(), value.into(), false);
                rest
            }
        };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, Option<&str>)]) -> Layer {
        let mut layer = Layer::default();
        for (key, value) in entries {
            match value {
                Some(value) => layer.put(key.as_bytes().into(), value.as_bytes().into(), false),
                None => layer.remove(key.as_bytes().into()),
            }
        }
        layer
    }

    fn read(dir: &Path) -> (Vec<(String, Option<String>)>, u64) {
        let mut layer = Layer::default();
        let mut bad = 0;
        for segment in segments(dir).unwrap() {
            bad += replay(dir, segment, &mut layer).unwrap();
        }
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        (layer.iter().map(|(k, c)| (text(k), c.value.as_deref().map(text))).collect(), bad)
    }

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("hikyaku-journal-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_prefix_of_frames_survives_any_cut() {
        let dir = Dir::new("cut");
        let mut journal = Journal::begin(&dir.0, 7).unwrap();
        journal.append(&layer(&[("a", Some("1")), ("b", Some(""))])).unwrap();
        let first = journal.len();
        journal.append(&layer(&[("a", None), ("c", Some("3"))])).unwrap();
        let whole = fs::read(path(&dir.0, 7)).unwrap();
        assert_eq!(whole.len() as u64, HEADER as u64 + journal.len());
        for cut in 0..=whole.len() {
            fs::write(path(&dir.0, 7), &whole[..cut]).unwrap();
            let (entries, bad) = read(&dir.0);
            let expected = match cut.saturating_sub(HEADER) as u64 {
                n if n < first => 0,
                n if n < journal.len() => 2,
                _ => 3,
            };
            assert_eq!((entries.len(), bad), (expected, 0), "cut at {cut}");
        }
    }

    #[test]
    fn a_broken_frame_does_not_hide_the_next() {
        let dir = Dir::new("broken");
        let mut journal = Journal::begin(&dir.0, 1).unwrap();
        journal.append(&layer(&[("a", Some("1"))])).unwrap();
        let first = journal.len() as usize;
        journal.append(&layer(&[("b", Some("2"))])).unwrap();
        journal.rotate().unwrap();
        journal.append(&layer(&[("c", Some("3"))])).unwrap();
        let whole = fs::read(path(&dir.0, 1)).unwrap();
        for at in HEADER..HEADER + first {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(path(&dir.0, 1), &bytes).unwrap();
            let (entries, bad) = read(&dir.0);
            let keys: Vec<_> = entries.iter().map(|(k, _)| k.as_str()).collect();
            assert_eq!(keys, ["b", "c"], "flipped at {at}");
            assert_eq!(bad, first as u64);
        }
        for at in 0..HEADER {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(path(&dir.0, 1), &bytes).unwrap();
            assert_eq!((read(&dir.0).0.len(), read(&dir.0).1), (3, 0), "flipped at {at}");
        }
    }

    #[test]
    fn a_frame_in_a_payload_is_none() {
        let dir = Dir::new("forged");
        // Whoever publishes it knows what frames look like, but not the salt of the segment.
        let mut forged = Vec::new();
        write_frame(&layer(&[("forged", Some("1"))]), Salt::new([7; SALT]), 1, &mut forged).unwrap();
        let mut changes = Layer::default();
        changes.put(b"message"[..].into(), [&header([7; SALT])[..], &forged].concat().into(), false);
        let mut journal = Journal::begin(&dir.0, 1).unwrap();
        journal.append(&changes).unwrap();
        let whole = fs::read(path(&dir.0, 1)).unwrap();
        for cut in HEADER..whole.len() {
            fs::write(path(&dir.0, 1), &whole[..cut]).unwrap();
            assert_eq!(read(&dir.0).0.len(), 0, "cut at {cut}");
        }
    }
}
