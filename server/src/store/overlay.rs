//! A file for the engine that is never changed: what it writes is kept in memory, for as long as it is open.
//!
//! So it may repair what it finds as it would at a start, and a damaged file stays what it was.

use redb::{BackendError, StorageBackend};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const BLOCK: u64 = 4096;
/// The byte of the engine's header that says that a file was not closed, and these bits of it.
const GOD_BYTE: u64 = 9;
const UNCLEAN: u8 = 2 | 8;

/// The file and what was written above it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blocks: HashMap<u64, Vec<u8>>,
    len: u64,
}

impl Overlay {
    pub fn open(path: &Path) -> io::Result<Overlay> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Overlay { file, state: Mutex::new(State { len, ..State::default() }) })
    }

    /// Makes a file that was not closed look as if it was: the engine reads it without a repair then.
    pub fn pretend_closed(&self) -> io::Result<()> {
        let mut byte = [0];
        self.read(GOD_BYTE, &mut byte)?;
        self.write(GOD_BYTE, &[byte[0] & !UNCLEAN])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file itself says of a block; what is behind its end is empty.
    fn below(&self, block: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; BLOCK as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], block * BLOCK + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(bytes)
    }
}

/// The parts of a range of bytes by block: which, from where in it, and where in the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let place = offset + at as u64;
        let from = (place % BLOCK) as usize;
        let end = len.min(at + BLOCK as usize - from);
        let part = at..end;
        at = end;
        (!part.is_empty()).then_some((place / BLOCK, from, part))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if state.blocks.is_empty() {
            return self.file.read_exact_at(out, offset);
        }
        for (block, from, part) in parts(offset, out.len()) {
            match state.blocks.get(&block) {
                Some(bytes) => out[part.clone()].copy_from_slice(&bytes[from..from + part.len()]),
                None => out[part.clone()].copy_from_slice(&self.below(block)?[from..from + part.len()]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if len < state.len {
            // What comes there again is empty.
            for block in len / BLOCK..state.len.div_ceil(BLOCK) {
                let mut bytes = match state.blocks.remove(&block) {
                    Some(bytes) => bytes,
                    None => self.below(block)?,
                };
                bytes[len.saturating_sub(block * BLOCK).min(BLOCK) as usize..].fill(0);
                state.blocks.insert(block, bytes);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        for (block, from, part) in parts(offset, data.len()) {
            let mut bytes = match state.blocks.remove(&block) {
                Some(bytes) => bytes,
                None => self.below(block)?,
            };
            bytes[from..from + part.len()].copy_from_slice(&data[part]);
            state.blocks.insert(block, bytes);
        }
        Ok(())
    }

    // Nobody else has it: the store has a lock of its own.

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}
