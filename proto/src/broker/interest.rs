//! Which shards may have subscribers for a topic: a table that may say yes too often, never no wrongly.
//!
//! A filter is reduced to its *shape* (how many levels, which are `+`, whether it ends in `#`) and the hash
//! of its literal levels. A topic is looked up once per shape in use: a few hashes, whatever the number of
//! subscriptions. Levels beyond the 32nd are cut to `#`. A shard with more than [`SHAPES_MAX`] shapes
//! counts as interested in everything.

use super::io::ShardId;
use crate::table::{HashKey, Index};
use alloc::vec::Vec;

/// How many levels a shape tells apart.
const LEVELS: usize = 32;
/// How many shapes a shard may have before it is sent everything.
pub(super) const SHAPES_MAX: usize = 64;
const TAIL: u64 = 1 << 40;

/// Shape and key of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Bits 0–31: which levels are `+`; bits 32–39: how many levels; bit 40: a `#` follows.
    pub shape: u64,
    pub key: u64,
}

fn combine(hash: HashKey, key: u64, level: u64) -> u64 {
    hash.hash_u64(key ^ level.rotate_left(23))
}

impl Pattern {
    pub fn of(hash: HashKey, filter: &str) -> Pattern {
        let (mut shape, mut count, mut key) = (0, 0, 0);
        for level in filter.split('/') {
            if level == "#" || count == LEVELS {
                shape |= TAIL;
                break;
            }
            if level == "+" {
                shape |= 1 << count;
            } else {
                key = combine(hash, key, hash.hash(level.as_bytes()));
            }
            count += 1;
        }
        Pattern {
            shape: shape | (count as u64) << 32,
            key: hash.hash_u64(key ^ shape ^ (count as u64) << 32),
        }
    }
}

#[derive(Debug)]
struct Own {
    pattern: Pattern,
    count: u32,
}

#[derive(Debug)]
struct Foreign {
    pattern: Pattern,
    shards: u64,
}

#[derive(Debug)]
struct Shape {
    shape: u64,
    patterns: u32,
}

/// A change the other shards must hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Pattern { add: bool, pattern: Pattern },
    All(bool),
}

/// What this shard's subscribers want, and what other shards said theirs do.
#[derive(Debug)]
pub(super) struct Interest {
    hash: HashKey,
    own: crate::table::Slab<Own>,
    own_index: Index,
    own_shapes: Vec<Shape>,
    own_all: bool,
    foreign: crate::table::Slab<Foreign>,
    foreign_index: Index,
    foreign_shapes: Vec<Shape>,
    foreign_all: u64,
    /// The shards that ever said anything.
    heard_of: u64,
    generation: u64,
}

fn count_shape(shapes: &mut Vec<Shape>, shape: u64, add: bool) {
    match shapes.iter().position(|s| s.shape == shape) {
        Some(at) if add => shapes[at].patterns += 1,
        Some(at) => {
            shapes[at].patterns -= 1;
            if shapes[at].patterns == 0 {
                shapes.remove(at);
            }
        }
        None if add => shapes.push(Shape { shape, patterns: 1 }),
        None => {}
    }
}

impl Interest {
    pub fn new(hash: HashKey) -> Self {
        Interest {
            hash,
            own: Default::default(),
            own_index: Index::new(),
            own_shapes: Vec::new(),
            own_all: false,
            foreign: Default::default(),
            foreign_index: Index::new(),
            foreign_shapes: Vec::new(),
            foreign_all: 0,
            heard_of: 0,
            generation: 0,
        }
    }

    /// Changes whenever the answer of [`Interest::shards`] may.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A subscription of this shard came or went: what to tell the others, if they need to know.
    pub fn count(&mut self, filter: &str, add: bool) -> [Option<Change>; 2] {
        let pattern = Pattern::of(self.hash, filter);
        let (own, index) = (&mut self.own, &mut self.own_index);
        let found = index.find(pattern.key, |i| own.get(i).is_some_and(|o| o.pattern == pattern));
        let changed = match (found, add) {
            (Some(at), true) => {
                own[at].count += 1;
                false
            }
            (Some(at), false) => {
                own[at].count -= 1;
                let last = own[at].count == 0;
                if last {
                    index.remove(pattern.key, |i| i == at, |i| own.get(i).map_or(0, |o| o.pattern.key));
                    own.remove(at);
                }
                last
            }
            (None, true) => {
                let at = own.insert(Own { pattern, count: 1 });
                index.insert(pattern.key, at, |i| own.get(i).map_or(0, |o| o.pattern.key));
                true
            }
            (None, false) => false,
        };
        if !changed {
            return [None, None];
        }
        count_shape(&mut self.own_shapes, pattern.shape, add);
        let all = self.own_shapes.len() > SHAPES_MAX;
        let switch = (all != self.own_all).then_some(Change::All(all));
        self.own_all = all;
        // The table is kept up to date meanwhile: when everything is no longer wanted it must be exact.
        [Some(Change::Pattern { add, pattern }), switch]
    }

    /// Another shard said what it wants.
    pub fn on_change(&mut self, from: ShardId, change: Change) {
        self.generation += 1;
        let bit = 1u64 << from;
        self.heard_of |= bit;
        let (add, pattern) = match change {
            Change::All(true) => return self.foreign_all |= bit,
            Change::All(false) => return self.foreign_all &= !bit,
            Change::Pattern { add, pattern } => (add, pattern),
        };
        let (foreign, index) = (&mut self.foreign, &mut self.foreign_index);
        let found = index.find(pattern.key, |i| foreign.get(i).is_some_and(|f| f.pattern == pattern));
        match (found, add) {
            (Some(at), true) => foreign[at].shards |= bit,
            (Some(at), false) => {
                foreign[at].shards &= !bit;
                if foreign[at].shards == 0 {
                    index.remove(pattern.key, |i| i == at, |i| foreign.get(i).map_or(0, |f| f.pattern.key));
                    foreign.remove(at);
                    count_shape(&mut self.foreign_shapes, pattern.shape, false);
                }
            }
            (None, true) => {
                let at = foreign.insert(Foreign { pattern, shards: bit });
                index.insert(pattern.key, at, |i| foreign.get(i).map_or(0, |f| f.pattern.key));
                count_shape(&mut self.foreign_shapes, pattern.shape, true);
            }
            (None, false) => {}
        }
    }

    /// The set of other shards that may have subscribers for a topic.
    pub fn shards(&self, topic: &str) -> u64 {
        let mut shards = self.foreign_all;
        if self.foreign_shapes.is_empty() || shards == self.heard_of {
            return shards;
        }
        let mut levels = [0u64; LEVELS];
        let mut count = 0;
        for level in topic.as_bytes().split(|&byte| byte == b'/') {
            if count < LEVELS {
                levels[count] = self.hash.hash(level);
            }
            count += 1;
        }
        for shape in &self.foreign_shapes {
            let wanted = (shape.shape >> 32 & 0xff) as usize;
            let fits = if shape.shape & TAIL != 0 { count >= wanted } else { count == wanted };
            if !fits {
                continue;
            }
            let mut key = 0;
            for (i, &level) in levels.iter().enumerate().take(wanted) {
                if shape.shape >> i & 1 == 0 {
                    key = combine(self.hash, key, level);
                }
            }
            let pattern = Pattern { shape: shape.shape, key: self.hash.hash_u64(key ^ shape.shape) };
            let found = self
                .foreign_index
                .find(pattern.key, |i| self.foreign.get(i).is_some_and(|f| f.pattern == pattern));
            if let Some(at) = found {
                shards |= self.foreign[at].shards;
                if shards == self.heard_of {
                    break;
                }
            }
        }
        shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicFilter;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;

    #[test]
    fn every_topic_a_filter_matches_is_found_until_the_filter_goes() {
        let hash = HashKey::new(7);
        let words = ["a", "b", "", "$x", "+", "#"];
        let mut filters: Vec<String> = vec![];
        for i in words {
            filters.push(i.into());
            for j in words {
                filters.push(format!("{i}/{j}"));
                words.iter().for_each(|k| filters.push(format!("{i}/{j}/{k}")));
            }
        }
        let deep = vec!["d"; 40].join("/");
        filters.extend([format!("{deep}/+/x"), format!("{deep}/#"), deep.clone()]);
        filters.retain(|f| TopicFilter::parse(f).is_ok());
        let mut topics: Vec<String> = filters.iter().filter(|f| !f.contains(['+', '#'])).cloned().collect();
        topics.push(format!("{deep}/y/x"));
        for filter in &filters {
            let (mut mine, mut theirs) = (Interest::new(hash), Interest::new(hash));
            for change in mine.count(filter, true).into_iter().flatten() {
                theirs.on_change(5, change);
            }
            assert_eq!(mine.count(filter, true), [None, None]);
            for topic in &topics {
                if TopicFilter::parse(filter).is_ok_and(|f| f.matches(topic)) {
                    assert_eq!(theirs.shards(topic), 1 << 5, "{filter} {topic}");
                }
            }
            assert_eq!(theirs.shards("never/such/a/topic/z") & !(1 << 5), 0);
            assert_eq!(mine.count(filter, false), [None, None]);
            for change in mine.count(filter, false).into_iter().flatten() {
                theirs.on_change(5, change);
            }
            assert!(topics.iter().all(|t| theirs.shards(t) == 0));
            assert!(theirs.foreign_shapes.is_empty() && theirs.foreign.is_empty() && mine.own.is_empty());
        }
    }

    #[test]
    fn too_many_shapes_mean_everything_and_back() {
        let hash = HashKey::new(7);
        let (mut mine, mut theirs) = (Interest::new(hash), Interest::new(hash));
        let filters: Vec<String> =
            (0..70u32).map(|i| (0..8).map(|b| if i >> b & 1 == 1 { "+/" } else { "x/" }).collect()).collect();
        for filter in &filters {
            mine.count(filter, true).into_iter().flatten().for_each(|c| theirs.on_change(1, c));
        }
        assert_eq!(theirs.shards("anything"), 2);
        for filter in &filters[8..] {
            mine.count(filter, false).into_iter().flatten().for_each(|c| theirs.on_change(1, c));
        }
        assert_eq!(theirs.shards("anything"), 0);
        assert_eq!(theirs.shards("x/x/x/x/x/x/x/x/"), 2);
    }
}
