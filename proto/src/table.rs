//! The few containers the state machines need: a keyed hash, an index of ids and a slab.
//!
//! [`Slab`] holds values under small dense ids. [`Index`] finds an id by a key that is kept with the
//! value, not in the index: a slot is four bytes, of which the low bits are the id and the bits
//! that ids do not need are a piece of the hash, so that a probe seldom looks at a wrong value.
//! Nothing can be iterated in hash order, so that the same inputs give the same outputs whatever the key.

use alloc::vec::Vec;

/// A secret key for hashing names that peers choose.
///
/// A fast folded multiply in the manner of wyhash: good against crowding a table without knowing the
/// key, no good as a cryptographic digest.
#[derive(Clone, Copy)]
pub struct HashKey {
    k0: u64,
    k1: u64,
}

impl HashKey {
    /// Expands a seed to a key of 128 bits.
    pub const fn new(seed: u64) -> Self {
        HashKey { k0: splitmix(seed, 1), k1: splitmix(seed, 2) }
    }

    /// The hash of a string of bytes.
    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut acc = self.k0;
        let (chunks, tail) = bytes.as_chunks::<16>();
        for chunk in chunks {
            acc = fold(read(&chunk[..8]) ^ self.k1, read(&chunk[8..]) ^ acc);
        }
        let n = tail.len();
        let (a, b) = match n {
            0 => (0, 0),
            1..4 => (u64::from(tail[0]) << 16 | u64::from(tail[n / 2]) << 8 | u64::from(tail[n - 1]), 0),
            4..8 => (read(&tail[..4]), read(&tail[n - 4..])),
            _ => (read(&tail[..8]), read(&tail[n - 8..])),
        };
        fold(fold(a ^ self.k1, b ^ acc) ^ self.k0, bytes.len() as u64 ^ MULTIPLIER)
    }

    /// The hash of one number.
    #[inline]
    pub fn hash_u64(&self, a: u64) -> u64 {
        fold(fold(a ^ self.k0, MULTIPLIER) ^ self.k1, MULTIPLIER)
    }
}

impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

/// Finds ids by keys that the caller keeps with its data.
///
/// The caller gives the hash of a key, and closures which compare with, or hash again, the key of an id
/// that is inside. Ids are below `u32::MAX`. An empty index holds no heap.
#[derive(Clone, Debug, Default)]
pub struct Index {
    slots: Vec<u32>,
    len: usize,
    /// The bits of a slot that are the id, a number 2ⁿ − 1 above every id inside; the other bits are of the hash.
    id_mask: u32,
}

impl Index {
    /// An empty index.
    pub const fn new() -> Self {
        Index { slots: Vec::new(), len: 0, id_mask: 0 }
    }

    /// The id under this hash for which `eq` says yes.
    #[inline]
    pub fn find(&self, hash: u64, eq: impl FnMut(u32) -> bool) -> Option<u32> {
        self.position(hash, eq).map(|at| self.slots[at] & self.id_mask)
    }

    /// Adds an id whose key is not yet inside. `rehash` gives the hash of an id already inside.
    pub fn insert(&mut self, hash: u64, id: u32, rehash: impl FnMut(u32) -> u64) {
        assert!(id != EMPTY, "an index holds ids below u32::MAX");
        if (self.len + 1) * 8 > self.slots.len() * 7 {
            self.resize((self.slots.len() * 2).max(SLOTS_MIN), rehash);
        }
        if id >= self.id_mask {
            self.widen(id);
        }
        self.place(hash, id);
        self.len += 1;
    }

    /// Takes out the id under this hash for which `eq` says yes.
    ///
    /// `rehash` gives the hash of an id that stays inside; it is not asked for the removed one.
    pub fn remove(
        &mut self,
        hash: u64,
        eq: impl FnMut(u32) -> bool,
        mut rehash: impl FnMut(u32) -> u64,
    ) -> Option<u32> {
        let at = self.position(hash, eq)?;
        let id = self.slots[at] & self.id_mask;
        let mask = self.slots.len() - 1;
        let mut hole = at;
        let mut next = (at + 1) & mask;
        // Those behind move up as far as their home allows, so that no tombstone is needed.
        while self.slots[next] != EMPTY {
            let home = rehash(self.slots[next] & self.id_mask) as usize & mask;
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
        if self.len == 0 {
            *self = Index::new();
        } else if self.slots.len() > SLOTS_MIN * 4 && self.len * 8 < self.slots.len() {
            self.resize(self.slots.len() / 4, rehash);
        }
        Some(id)
    }

    /// How many ids are inside.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of heap held.
    pub fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
    }

    #[inline]
    fn position(&self, hash: u64, mut eq: impl FnMut(u32) -> bool) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let tag = tag(hash, self.id_mask);
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return None;
            }
            if slot & !self.id_mask == tag && eq(slot & self.id_mask) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    fn place(&mut self, hash: u64, id: u32) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = id | tag(hash, self.id_mask);
    }

    fn resize(&mut self, slots: usize, mut rehash: impl FnMut(u32) -> u64) {
        let old = core::mem::replace(&mut self.slots, alloc::vec![EMPTY; slots]);
        for slot in old.into_iter().filter(|slot| *slot != EMPTY) {
            let id = slot & self.id_mask;
            self.place(rehash(id), id);
        }
    }

    /// Gives ids more bits of each slot, and the hash fewer.
    fn widen(&mut self, id: u32) {
        let wider = u32::MAX >> (id + 1).leading_zeros();
        for slot in self.slots.iter_mut().filter(|slot| **slot != EMPTY) {
            *slot = (*slot & self.id_mask) | (*slot & !wider);
        }
        self.id_mask = wider;
    }
}

/// Values under small ids; a freed id is the next one given out.
///
/// An id may be reused at once: whoever keeps one beyond its value's life adds a generation.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: u32,
    len: usize,
}

#[derive(Clone, Debug)]
enum Entry<T> {
    Free(u32),
    Full(T),
}

impl<T> Slab<T> {
    /// An empty slab.
    pub const fn new() -> Self {
        Slab { entries: Vec::new(), free: EMPTY, len: 0 }
    }

    /// Puts a value in and returns its id.
    pub fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(entry @ &mut Entry::Free(next)) = self.entries.get_mut(self.free as usize) {
            *entry = Entry::Full(value);
            return core::mem::replace(&mut self.free, next);
        }
        let id = self.entries.len();
        assert!(id < EMPTY as usize, "a slab holds fewer than u32::MAX values");
        if id == self.entries.capacity() {
            // Doubling would leave up to half of the largest tables unused.
            self.entries.reserve_exact((id / 4).max(4));
        }
        self.entries.push(Entry::Full(value));
        id as u32
    }

    /// Takes a value out. When the last one goes, ids start from zero again and large memory is given back.
    pub fn remove(&mut self, id: u32) -> Option<T> {
        let entry = self.entries.get_mut(id as usize)?;
        if matches!(entry, Entry::Free(_)) {
            return None;
        }
        let Entry::Full(value) = core::mem::replace(entry, Entry::Free(self.free)) else { return None };
        self.free = id;
        self.len -= 1;
        if self.len == 0 {
            self.entries.clear();
            self.entries.shrink_to(CAPACITY_KEPT);
            self.free = EMPTY;
        }
        Some(value)
    }

    /// The value under an id.
    #[inline]
    pub fn get(&self, id: u32) -> Option<&T> {
        match self.entries.get(id as usize) {
            Some(Entry::Full(value)) => Some(value),
            _ => None,
        }
    }

    /// The value under an id, to change it.
    #[inline]
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        match self.entries.get_mut(id as usize) {
            Some(Entry::Full(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether there is a value under this id.
    pub fn contains(&self, id: u32) -> bool {
        self.get(id).is_some()
    }

    /// How many values are inside.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every id and value, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().enumerate().filter_map(|(id, entry)| match entry {
            Entry::Full(value) => Some((id as u32, value)),
            Entry::Free(_) => None,
        })
    }

    /// Every id and value, in the order of ids, to change the values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(id, entry)| match entry {
            Entry::Full(value) => Some((id as u32, value)),
            Entry::Free(_) => None,
        })
    }

    /// Bytes of heap held, without what the values hold themselves.
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<T>>()
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab::new()
    }
}

/// Panics when there is no value under the id: for ids that the caller's own invariant keeps alive.
impl<T> core::ops::Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, id: u32) -> &T {
        self.get(id).expect("no value under this id")
    }
}

impl<T> core::ops::IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.get_mut(id).expect("no value under this id")
    }
}

const EMPTY: u32 = u32::MAX;
const SLOTS_MIN: usize = 8;
const CAPACITY_KEPT: usize = 16;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

const fn splitmix(seed: u64, step: u64) -> u64 {
    let z = seed.wrapping_add(MULTIPLIER.wrapping_mul(step));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn read(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => 0,
    }
}

#[inline]
fn tag(hash: u64, id_mask: u32) -> u32 {
    (hash >> 32) as u32 & !id_mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_every_byte_the_length_and_the_seed() {
        let key = HashKey::new(7);
        let mut seen = alloc::collections::BTreeSet::new();
        for length in 0..70 {
            let mut bytes = alloc::vec![0; length];
            assert!(seen.insert(key.hash(&bytes)));
            assert_ne!(key.hash(&bytes), HashKey::new(8).hash(&bytes));
            for at in 0..length {
                bytes[at] = 1;
                assert!(seen.insert(key.hash(&bytes)));
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn hashes_of_neighbours_spread_over_both_ends() {
        for seed in 0..8 {
            let key = HashKey::new(seed);
            let (mut low, mut high) = ([0_u32; 64], [0_u32; 64]);
            for i in 0..64_000 {
                let hash = if i % 2 == 0 { key.hash_u64(i << 32) } else { key.hash(&i.to_le_bytes()) };
                low[hash as usize % 64] += 1;
                high[(hash >> 58) as usize] += 1;
            }
            assert!(low.iter().chain(&high).all(|count| (800..1_200).contains(count)), "{low:?} {high:?}");
        }
    }

    #[test]
    fn index_fills_to_seven_eighths_and_shrinks_again() {
        let key = HashKey::new(1);
        let hash = |id: u32| key.hash_u64(id.into());
        let mut index = Index::new();
        assert_eq!(index.memory(), 0);
        for id in 0..7_000 {
            index.insert(hash(id), id, hash);
        }
        assert_eq!(index.memory(), 8_192 * 4);
        for id in 0..7_000 {
            assert_eq!(index.find(hash(id), |other| other == id), Some(id));
        }
        for id in 100..7_000 {
            assert_eq!(index.remove(hash(id), |other| other == id, hash), Some(id));
            assert_eq!(index.remove(hash(id), |other| other == id, hash), None);
        }
        assert!(index.memory() <= 1_024 * 4);
        for id in 0..100 {
            assert_eq!(index.remove(hash(id), |other| other == id, hash), Some(id));
        }
        assert_eq!((index.len(), index.memory()), (0, 0));
    }

    #[test]
    fn index_holds_the_largest_ids() {
        let key = HashKey::new(2);
        let hash = |id: u32| key.hash_u64(id.into());
        let mut index = Index::new();
        let ids = [0, 1, 2, 3, 6, 7, 8, 0x7fff_fffe, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1];
        for (i, &id) in ids.iter().enumerate() {
            index.insert(hash(id), id, hash);
            for &id in &ids[..=i] {
                assert_eq!(index.find(hash(id), |other| other == id), Some(id));
            }
        }
        for id in ids {
            assert_eq!(index.remove(hash(id), |other| other == id, hash), Some(id));
        }
    }

    #[test]
    fn index_seldom_asks_about_a_wrong_id() {
        let key = HashKey::new(3);
        let hash = |id: u32| key.hash_u64(id.into());
        let mut index = Index::new();
        for id in 0..57_000 {
            index.insert(hash(id), id, hash);
        }
        let mut asked = 0;
        for id in 57_000..157_000 {
            index.find(hash(id), |_| {
                asked += 1;
                false
            });
        }
        assert!(asked < 100_000, "asked {asked} times for 100,000 absent ids");
    }

    #[test]
    fn slab_reuses_the_last_freed_id_first() {
        let mut slab = Slab::new();
        assert_eq!([slab.insert('a'), slab.insert('b'), slab.insert('c')], [0, 1, 2]);
        assert_eq!(slab.remove(0), Some('a'));
        assert_eq!(slab.remove(1), Some('b'));
        assert_eq!((slab.remove(1), slab.remove(9), slab.get(0), slab.contains(2)), (None, None, None, true));
        assert_eq!([slab.insert('d'), slab.insert('e'), slab.insert('f')], [1, 0, 3]);
        slab[3] = 'g';
        assert!(slab.iter().eq([(0, &'e'), (1, &'d'), (2, &'c'), (3, &'g')]));
        slab.iter_mut().for_each(|(_, value)| value.make_ascii_uppercase());
        assert_eq!((slab.get(2), slab.len()), (Some(&'C'), 4));
    }

    #[test]
    fn slab_gives_memory_back_when_empty() {
        let mut slab = Slab::new();
        for i in 0..1_000 {
            slab.insert(i);
        }
        for id in 0..1_000 {
            slab.remove(id);
        }
        assert!(slab.is_empty() && slab.memory() <= CAPACITY_KEPT * 8);
        assert_eq!(slab.insert(5), 0);
    }
}
