//! Interned topic levels: each distinct text is kept once and counted.

use alloc::boxed::Box;

use crate::table::{HashKey, Index, Slab};

/// The texts of topic levels under small ids, each kept as long as it is used.
pub struct Levels {
    key: HashKey,
    index: Index,
    texts: Slab<Text>,
    /// Bytes of the texts that do not fit in their entry.
    boxed_bytes: usize,
}

/// Most levels are short: up to 18 bytes stand in the entry, which is 24 bytes in either form.
enum Text {
    Inline { refs: u32, len: u8, bytes: [u8; INLINE_MAX] },
    Boxed { refs: u32, text: Box<str> },
}

impl Levels {
    /// No levels yet.
    pub const fn new(key: HashKey) -> Self {
        Levels { key, index: Index::new(), texts: Slab::new(), boxed_bytes: 0 }
    }

    /// The id of a text, which is kept until it has been released as often as it was interned.
    pub fn intern(&mut self, text: &str) -> u32 {
        if let Some(id) = self.lookup(text.as_bytes()) {
            *self.texts[id].refs() += 1;
            return id;
        }
        if text.len() > INLINE_MAX {
            self.boxed_bytes += text.len();
        }
        let id = self.texts.insert(Text::new(text));
        let (key, texts) = (&self.key, &self.texts);
        self.index.insert(key.hash(text.as_bytes()), id, |id| key.hash(texts[id].bytes()));
        id
    }

    /// Gives back one use of an id.
    pub fn release(&mut self, id: u32) {
        let refs = self.texts[id].refs();
        *refs -= 1;
        if *refs > 0 {
            return;
        }
        let (key, texts) = (&self.key, &self.texts);
        let bytes = texts[id].bytes();
        if bytes.len() > INLINE_MAX {
            self.boxed_bytes -= bytes.len();
        }
        self.index.remove(key.hash(bytes), |other| other == id, |id| key.hash(texts[id].bytes()));
        self.texts.remove(id);
    }

    /// The id of a text, if it is in use.
    #[inline]
    pub fn lookup(&self, text: &[u8]) -> Option<u32> {
        self.index.find(self.key.hash(text), |id| self.texts[id].bytes() == text)
    }

    /// The text of an id that is in use.
    pub fn text(&self, id: u32) -> &str {
        match &self.texts[id] {
            // It was a whole `str` when it came in.
            text @ Text::Inline { .. } => core::str::from_utf8(text.bytes()).unwrap_or_default(),
            Text::Boxed { text, .. } => text,
        }
    }

    /// How many distinct texts are in use.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether no text is in use.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Bytes of heap held.
    pub fn memory(&self) -> usize {
        self.index.memory() + self.texts.memory() + self.boxed_bytes
    }
}

const INLINE_MAX: usize = 18;

impl Text {
    fn new(text: &str) -> Self {
        let mut bytes = [0; INLINE_MAX];
        match bytes.get_mut(..text.len()) {
            Some(part) => {
                part.copy_from_slice(text.as_bytes());
                Text::Inline { refs: 1, len: text.len() as u8, bytes }
            }
            None => Text::Boxed { refs: 1, text: text.into() },
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Text::Inline { len, bytes, .. } => &bytes[..usize::from(*len)],
            Text::Boxed { text, .. } => text.as_bytes(),
        }
    }

    fn refs(&mut self) -> &mut u32 {
        match self {
            Text::Inline { refs, .. } | Text::Boxed { refs, .. } => refs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_stays_small() {
        assert_eq!(size_of::<Text>(), 24);
    }

    #[test]
    fn text_lives_as_long_as_it_is_used() {
        let mut levels = Levels::new(HashKey::new(1));
        let texts = ["", "a", "exactly 18 bytes !", "nineteen bytes long", "日本語のトピック", "\u{7f}"];
        let ids = texts.map(|text| levels.intern(text));
        for (text, id) in texts.into_iter().zip(ids) {
            assert_eq!(levels.intern(text), id);
            assert_eq!((levels.text(id), levels.lookup(text.as_bytes())), (text, Some(id)));
        }
        assert_eq!((levels.len(), levels.lookup(b"b")), (6, None));
        for (text, id) in texts.into_iter().zip(ids) {
            levels.release(id);
            assert_eq!(levels.lookup(text.as_bytes()), Some(id));
            levels.release(id);
            assert_eq!(levels.lookup(text.as_bytes()), None);
        }
        assert!(levels.is_empty() && levels.boxed_bytes == 0 && levels.index.memory() == 0);
    }
}
