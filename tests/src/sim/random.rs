//! The one source of chance: a small generator, seeded, and before it, if there are, a fuzzer's bytes.

/// xorshift64*, with its seed spread by one step of splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
    /// What is drawn first, from the end.
    given: Vec<u8>,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random { state: (z ^ z >> 31) | 1, given: Vec::new() }
    }

    /// Draws from these bytes, and when there are no more goes on from the last eight of them.
    pub fn from_bytes(bytes: &[u8]) -> Random {
        let (given, seed) = bytes.split_at(bytes.len().saturating_sub(8));
        let mut word = [0; 8];
        word[..seed.len()].copy_from_slice(seed);
        Random { given: given.iter().rev().copied().collect(), ..Random::new(u64::from_le_bytes(word)) }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// From 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        let n = n.max(1);
        match self.given.pop() {
            None => self.next() % n,
            Some(byte) if n <= 256 => u64::from(byte) % n,
            // Two bytes: how far up.
            Some(high) => {
                let low = self.given.pop().unwrap_or_default();
                (u64::from(u16::from_be_bytes([high, low])) * n) >> 16
            }
        }
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// From `low` to `high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.index(all.len())]
    }

    /// About `mean`, now and then three times that.
    pub fn around(&mut self, mean: u64) -> u64 {
        let span = if self.chance(100) { 3 * mean } else { 2 * mean };
        self.below(span.max(1))
    }
}

/// FNV-1a over numbers: what tells two runs apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(pub u64);

impl Default for Hash {
    fn default() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    pub fn add(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 ^= self.0 >> 32;
    }

    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
}
