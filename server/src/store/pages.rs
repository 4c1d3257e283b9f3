//! Records found in the pages of a base by themselves, where the engine does not find its way to them.
//!
//! A leaf of the engine's tree is a page that says so in its first byte, counts its entries in the third and fourth, and then
//! says where each key and each value ends; numbers are little-endian. Pages begin at multiples of 4 KiB, and may be longer. What
//! looks like a record is one if its checksum says so. A page that is not in use any more looks like one that is: what is
//! found may be older than what was there last.

use super::base::{BaseError, Meta, known_format};
use super::view::checked;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;
/// No page is longer than that: no record is.
const PAGE_MAX: usize = 300 << 20;
/// The keys of the table with what is known of the whole, which all have a value of 8 bytes.
const META_KEYS: &[u8] = b"formatplacementrunsegmentshards";
const META_ENTRIES: usize = 5;

/// Shows all records there are in the pages of a file, of some keys more than one. Returns the last that is said of the whole.
pub(super) fn visit(
    file: &File,
    mut show: impl FnMut(&[u8], &[u8]) -> Result<(), BaseError>,
) -> Result<Option<Meta>, BaseError> {
    let len = file.metadata()?.len();
    let mut newest: Option<Meta> = None;
    let mut page = vec![0; PAGE];
    for offset in (0..len).step_by(PAGE) {
        let whole = usize::try_from(len - offset).unwrap_or(usize::MAX);
        page.resize(PAGE.min(whole), 0);
        // What the disk does not give back is not there.
        if file.read_exact_at(&mut page, offset).is_err() || page.first() != Some(&1) {
            continue;
        }
        if let Some((format, meta)) = meta(&page) {
            known_format(format)?;
            let is_newer = |known: Meta| (known.run, known.segment) < (meta.run, meta.segment);
            newest = Some(newest.filter(|known| !is_newer(*known)).unwrap_or(meta));
            continue;
        }
        let Some(end) = end(&page).filter(|end| *end <= whole.min(PAGE_MAX)) else { continue };
        if end > PAGE && read_longer(file, offset, end, &mut page).is_err() {
            continue;
        }
        for entry in 0..count(&page) {
            if let Some((key, value)) = record(&page, entry) {
                show(key, value)?;
            }
        }
    }
    Ok(newest)
}

fn read_longer(file: &File, offset: u64, end: usize, page: &mut Vec<u8>) -> io::Result<()> {
    page.resize(end, 0);
    file.read_exact_at(page, offset)
}

fn number(page: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*page.get(at..)?.first_chunk()?) as usize)
}

fn count(page: &[u8]) -> usize {
    page.get(2..4).and_then(|n| n.first_chunk()).map_or(0, |n| u16::from_le_bytes(*n).into())
}

/// Where the last value ends, if this may be a leaf.
fn end(page: &[u8]) -> Option<usize> {
    let count = count(page);
    let keys = 4 + 8 * count;
    let end = number(page, keys.checked_sub(4).filter(|_| count > 0)?)?;
    (keys <= PAGE && end > keys).then_some(end)
}

fn record(page: &[u8], entry: usize) -> Option<(&[u8], &[u8])> {
    let count = count(page);
    // Ends of keys and ends of values are one sequence: each value begins where the one before it ends, the first with the last key.
    let begin = |at: usize| if at == 0 { Some(4 + 8 * count) } else { number(page, 4 * at) };
    let part = |at: usize| page.get(begin(at)?..number(page, 4 + 4 * at)?);
    let (key, value) = (part(entry)?, part(count + entry)?);
    let known = matches!(key.first(), Some(b'b' | b'f' | b'm' | b'r' | b's'));
    checked(key, value).filter(|_| known).map(|_| (key, value))
}

/// The number of the format, and what is known of the whole.
fn meta(page: &[u8]) -> Option<(u64, Meta)> {
    let keys = 4 + 4 * META_ENTRIES;
    let values = keys + META_KEYS.len();
    if count(page) != META_ENTRIES || page.get(keys..values)? != META_KEYS {
        return None;
    }
    let value = |at: usize| Some(u64::from_le_bytes(*page.get(values + 8 * at..)?.first_chunk()?));
    let (run, shards) = (u32::try_from(value(2)?).ok()?, u16::try_from(value(4)?).ok()?);
    Some((value(0)?, Meta { run, placement: value(1)?, shards, segment: value(3)? }))
}
