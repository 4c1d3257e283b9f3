//! The records as all layers together say: what a group changes over what the journal has over what is being brought to the
//! base over the base.

use super::base::{self, Base, BaseError, Reader};
use super::layer::{Key, Layer};
use hikyaku_proto::broker::store::BodyId;
use hikyaku_proto::broker::store::record::{self, Clock, Record};
use hikyaku_proto::message::Message;
use std::cell::{Cell, OnceCell};
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

/// All that is known.
#[derive(Debug)]
pub(super) struct View {
    /// Changes that are not in the journal.
    pub group: Layer,
    /// Changes that are.
    pub recent: Layer,
    /// Changes that are being brought to the base.
    pub frozen: Option<Arc<Layer>>,
    pub base: Arc<Base>,
    reader: OnceCell<Reader>,
}

/// A value, and what the sum behind it says.
pub(super) fn checked<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = value.split_last_chunk()?;
    (checksum(key, value) == u32::from_be_bytes(*sum)).then_some(value)
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// Appends the checksum of a record to its value.
pub(super) fn seal(key: &[u8], mut value: Vec<u8>) -> Box<[u8]> {
    let sum = checksum(key, &value);
    value.extend_from_slice(&sum.to_be_bytes());
    value.into()
}

/// What a record says, if it is whole.
pub(super) fn read(key: &[u8], value: &[u8], clock: Clock) -> Result<Record, String> {
    let value = checked(key, value).ok_or_else(|| "its checksum is wrong".to_owned())?;
    record::read(key, value, clock).map_err(|e| e.to_string())
}

impl View {
    pub fn new(base: Arc<Base>) -> View {
        let (group, recent) = Default::default();
        View { group, recent, frozen: None, base, reader: OnceCell::new() }
    }

    fn reader(&self) -> Result<&Reader, BaseError> {
        if self.reader.get().is_none() {
            let reader = self.base.reader()?;
            return Ok(self.reader.get_or_init(|| reader));
        }
        self.reader.get().ok_or_else(|| BaseError::Corrupt("no reader".into()))
    }

    /// The base has changed, or is about to.
    pub fn forget_reader(&mut self) {
        self.reader = OnceCell::new();
    }

    /// Whether a key is known.
    pub fn contains(&self, key: &[u8]) -> Result<bool, BaseError> {
        Ok(self.get(key)?.is_some())
    }

    /// The value of a key, with its checksum.
    pub fn get(&self, key: &[u8]) -> Result<Option<Box<[u8]>>, BaseError> {
        let layers = [Some(&self.group), Some(&self.recent), self.frozen.as_deref()];
        for layer in layers.into_iter().flatten() {
            if let Some(change) = layer.get(key) {
                return Ok(change.value.clone());
            }
        }
        base::get(self.reader()?, key)
    }

    /// A message, if it is there and whole.
    pub fn body(&self, id: BodyId, clock: Clock) -> Result<Option<Message>, BaseError> {
        let key = record::body_key(id);
        let value = self.get(&key)?;
        Ok(value.and_then(|value| match read(&key, &value, clock) {
            Ok(Record::Body(_, message)) => Some(message),
            _ => None,
        }))
    }

    /// Shows all records of some keys, in their order, until `show` has seen enough.
    pub fn visit(
        &self,
        keys: RangeInclusive<Key>,
        mut show: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        let error = Cell::new(None);
        let of = |layer| changes(layer, keys.clone());
        let below = base::range(self.reader()?, &keys)?.map_while(|item| match item {
            Ok((key, value)) => Some((key, Some(value))),
            Err(e) => {
                error.set(Some(e));
                None
            }
        });
        let frozen = self.frozen.as_deref().into_iter().flat_map(of);
        let all = Merged::new(of(&self.recent), Merged::new(frozen, below));
        for (key, value) in Merged::new(of(&self.group), all) {
            if let Some(value) = value
                && show(&key, &value).is_break()
            {
                break;
            }
        }
        error.take().map_or(Ok(()), Err)
    }
}

fn changes(layer: &Layer, keys: RangeInclusive<Key>) -> impl Iterator<Item = Item> {
    layer.range(keys).map(|(key, change)| (key.clone(), change.value.clone()))
}

type Item = (Key, Option<Box<[u8]>>);

/// Two sequences in order as one; of two items with one key the upper one's.
struct Merged<U: Iterator<Item = Item>, L: Iterator<Item = Item>> {
    upper: std::iter::Peekable<U>,
    lower: std::iter::Peekable<L>,
}

impl<U: Iterator<Item = Item>, L: Iterator<Item = Item>> Merged<U, L> {
    fn new(upper: U, lower: L) -> Self {
        Merged { upper: upper.peekable(), lower: lower.peekable() }
    }
}

impl<U: Iterator<Item = Item>, L: Iterator<Item = Item>> Iterator for Merged<U, L> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let Some((upper, _)) = self.upper.peek() else { return self.lower.next() };
        match self.lower.peek().map(|(lower, _)| upper.cmp(lower)) {
            Some(std::cmp::Ordering::Greater) => self.lower.next(),
            Some(std::cmp::Ordering::Equal) => {
                self.lower.next();
                self.upper.next()
            }
            _ => self.upper.next(),
        }
    }
}
