//! Changes in memory, above what is on disk.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;

/// A key of the store.
pub(super) type Key = Box<[u8]>;

/// What is said of a key.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Its new value; `None` if it is removed.
    pub value: Option<Box<[u8]>>,
    /// Nothing below knows the key: if it is removed again, nothing needs to be said of it.
    pub fresh: bool,
}

/// Changes by key: the last of each.
#[derive(Debug, Default)]
pub(super) struct Layer {
    map: BTreeMap<Key, Change>,
    bytes: usize,
}

/// What an entry takes beside its key and value, about.
const ENTRY_BYTES: usize = 112;

impl Layer {
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// How much memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it says of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Change> {
        self.map.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Change)> {
        self.map.iter()
    }

    pub fn range(&self, keys: RangeInclusive<Key>) -> impl Iterator<Item = (&Key, &Change)> {
        self.map.range(keys)
    }

    /// `fresh` if no layer below has the key.
    pub fn put(&mut self, key: Key, value: Box<[u8]>, fresh: bool) {
        self.bytes += value.len();
        match self.map.entry(key) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                self.bytes -= known.value.as_ref().map_or(0, |v| v.len());
                known.value = Some(value);
            }
            Entry::Vacant(place) => {
                self.bytes += place.key().len() + ENTRY_BYTES;
                place.insert(Change { value: Some(value), fresh });
            }
        }
    }

    /// Removes a key: leaves no trace of it if nothing below knows it.
    pub fn remove(&mut self, key: Key) {
        match self.map.entry(key) {
            Entry::Occupied(mut known) => {
                self.bytes -= known.get().value.as_ref().map_or(0, |v| v.len());
                if known.get().fresh {
                    self.bytes -= known.key().len() + ENTRY_BYTES;
                    known.remove();
                } else {
                    known.get_mut().value = None;
                }
            }
            Entry::Vacant(place) => {
                self.bytes += place.key().len() + ENTRY_BYTES;
                place.insert(Change { value: None, fresh: false });
            }
        }
    }

    /// Nobody knows what of it is in the journal: what is removed from now on has to be said.
    pub fn may_be_known(&mut self) {
        self.map.values_mut().for_each(|change| change.fresh = false);
    }

    /// Takes over all that `above` says, which is empty afterwards.
    pub fn absorb(&mut self, above: &mut Layer) {
        above.bytes = 0;
        for (key, Change { value, fresh }) in std::mem::take(&mut above.map) {
            match value {
                Some(value) => self.put(key, value, fresh),
                None => self.remove(key),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        name.as_bytes().into()
    }

    #[test]
    fn what_comes_and_goes_leaves_no_trace() {
        let mut layer = Layer::default();
        layer.put(key("new"), key("1"), true);
        layer.put(key("new"), key("22"), false);
        layer.put(key("old"), key("1"), false);
        layer.remove(key("new"));
        layer.remove(key("old"));
        layer.remove(key("elsewhere"));
        let left: Vec<_> = layer.iter().map(|(k, c)| (k.clone(), c.value.is_none())).collect();
        assert_eq!(left, [(key("elsewhere"), true), (key("old"), true)]);
        let mut above = Layer::default();
        std::mem::swap(&mut layer, &mut above);
        layer.put(key("old"), key("x"), true);
        layer.absorb(&mut above);
        assert!(above.is_empty() && above.bytes() == 0);
        assert_eq!(layer.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>(), [key("elsewhere")]);
        assert_eq!(layer.bytes(), ENTRY_BYTES + "elsewhere".len());
    }
}
