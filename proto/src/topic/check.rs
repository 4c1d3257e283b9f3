//! Checks of the containers against naive models, driven by arbitrary bytes: the bodies of fuzz targets.
//!
//! Each panics when the container and its model differ.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{CursorId, Scratch, Step, TopicFilter, TopicName, Tree, Trie, filter_covers, filters_intersect};
use crate::table::{HashKey, Index, Slab};

/// An index and a slab against a map, with hashes that collide as much as the first byte says.
pub fn check_index(data: &[u8]) {
    let mut bytes = Bytes(data);
    let key = HashKey::new(bytes.next().into());
    let shift = bytes.next();
    let hash_mask = if shift & 64 == 0 { u64::MAX >> (shift % 64) } else { u64::MAX << (shift % 64) };
    let hash_of = |name: u16| key.hash_u64(name.into()) & hash_mask;
    let spread = 1 + u16::from(bytes.next());
    let mut index = Index::new();
    let mut names: Slab<u16> = Slab::new();
    let mut model = BTreeMap::new();
    while !bytes.0.is_empty() {
        let op = bytes.next();
        let name = u16::from(bytes.next()) * 7 % spread;
        let hash = hash_of(name);
        let found = index.find(hash, |id| names[id] == name);
        assert_eq!(found, model.get(&name).copied());
        if op % 8 < 5 {
            if found.is_none() {
                let id = names.insert(name);
                assert!(!model.values().any(|other| *other == id));
                index.insert(hash, id, |id| hash_of(names[id]));
                model.insert(name, id);
            }
        } else {
            let removed = index.remove(
                hash,
                |id| names[id] == name,
                |id| {
                    assert_ne!(names[id], name);
                    hash_of(names[id])
                },
            );
            assert_eq!(removed, model.remove(&name));
            assert_eq!(removed.and_then(|id| names.remove(id)), removed.map(|_| name));
        }
        assert_eq!((index.len(), names.len()), (model.len(), model.len()));
    }
    let by_id: BTreeMap<u32, u16> = model.iter().map(|(name, id)| (*id, *name)).collect();
    assert!(names.iter().map(|(id, name)| (id, *name)).eq(by_id));
    for (name, id) in model {
        assert_eq!(index.remove(hash_of(name), |id| names[id] == name, |id| hash_of(names[id])), Some(id));
        assert_eq!(names.remove(id), Some(name));
    }
    assert_eq!((index.memory(), index.len(), names.len()), (0, 0, 0));
}

/// The trie against a list of subscriptions and [`TopicFilter::matches`].
pub fn check_trie(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut trie = Trie::new(HashKey::new(bytes.next().into()));
    let mut scratch = Scratch::default();
    let mut model = Subscriptions(Vec::new());
    let mut value = 0;
    while !bytes.0.is_empty() {
        let op = bytes.next();
        let subscriber = u32::from(bytes.next() % 5);
        let generation = trie.generation();
        let name = bytes.name();
        let Ok(filter) = TopicFilter::parse(&name) else { continue };
        let filter = filter.filter();
        assert_eq!(trie.get(filter, subscriber), model.get(filter, subscriber));
        let changed = match op % 16 {
            0..8 => {
                value += 1;
                assert_eq!(trie.insert(filter, subscriber, value), model.insert(filter, subscriber, value));
                true
            }
            8..13 => {
                let removed = trie.remove(filter, subscriber);
                assert_eq!(removed, model.remove(filter, subscriber));
                removed.is_some()
            }
            13 => {
                let mut removed = Vec::new();
                trie.remove_subscriber(subscriber, |filter, value| removed.push((filter.to_string(), value)));
                // Where a filter stands in the subscriber's list is known from the model's order.
                assert_eq!(removed, model.of(subscriber));
                model.0.retain(|(_, other, _)| *other != subscriber);
                !removed.is_empty()
            }
            _ => false,
        };
        assert_eq!(trie.generation() != generation, changed);
        if TopicName::parse(&name).is_ok() {
            model.check_matches(&trie, &name, &mut scratch);
        }
        model.check_shape(&trie);
        let mut own = Vec::new();
        trie.filters_of(subscriber, |filter, value| own.push((filter.to_string(), value)));
        assert_eq!(own, model.of(subscriber));
        assert_eq!(trie.count_of(subscriber), own.len());
    }
    for (filter, subscriber, value) in model.0 {
        assert_eq!(trie.remove(&filter, subscriber), Some(value));
    }
    assert_eq!((trie.len(), trie.filters(), trie.nodes(), trie.levels()), (0, 0, 1, 0));
}

/// The tree against a map, with cursors open while topics come and go.
pub fn check_tree(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut tree: Tree<u32> = Tree::new(HashKey::new(bytes.next().into()));
    let mut model: BTreeMap<String, u32> = BTreeMap::new();
    let mut walks: Vec<Walk> = Vec::new();
    let mut born = 0;
    while !bytes.0.is_empty() {
        let op = bytes.next();
        let name = bytes.name();
        match op % 16 {
            0..6 if TopicName::parse(&name).is_ok() => {
                // The value says which life of the topic this is, and stays when it is written again.
                born += 1;
                let value = *model.entry(name.clone()).or_insert(born);
                assert_eq!(tree.insert(&name, value), (value != born).then_some(value));
            }
            6..11 if TopicName::parse(&name).is_ok() => {
                let value = model.remove(&name);
                assert_eq!(tree.remove(&name), value);
                for walk in &mut walks {
                    walk.expected.retain(|expected| Some(*expected) != value);
                }
            }
            11..13 if walks.len() < 4 => {
                if let Ok(filter) = TopicFilter::parse(&name) {
                    let filter = filter.filter();
                    walks.push(Walk::new(&mut tree, &model, filter));
                }
            }
            13 => {
                if let Some(walk) = walks.pop() {
                    tree.close(walk.cursor);
                }
            }
            _ => {
                let mut budget = u32::from(op / 16 % 4);
                walks.retain_mut(|walk| walk.go(&mut tree, &model, &mut budget));
            }
        }
        assert_eq!(tree.get(&name), model.get(&name));
        assert_eq!((tree.len(), tree.cursors()), (model.len(), walks.len()));
        let prefixes: BTreeSet<&str> = model.keys().flat_map(|topic| prefixes(topic)).collect();
        assert_eq!(tree.nodes(), prefixes.len() + 1);
    }
    while !walks.is_empty() {
        let mut budget = 3;
        walks.retain_mut(|walk| walk.go(&mut tree, &model, &mut budget));
    }
    for (topic, value) in model {
        assert_eq!(tree.remove(&topic), Some(value));
    }
    assert_eq!((tree.len(), tree.nodes(), tree.levels(), tree.cursors()), (0, 1, 0, 0));
}

/// Parsing never panics, and what holds between two filters holds for a topic.
pub fn check_filters(data: &[u8]) {
    let mut bytes = Bytes(data);
    let _ = core::str::from_utf8(data).map(|text| (TopicName::parse(text), TopicFilter::parse(text)));
    while !bytes.0.is_empty() {
        let (a, b, topic) = (bytes.name(), bytes.name(), bytes.name());
        let (Ok(a), Ok(b), Ok(topic)) =
            (TopicFilter::parse(&a), TopicFilter::parse(&b), TopicName::parse(&topic))
        else {
            continue;
        };
        let (in_a, in_b) = (a.matches(topic.as_str()), b.matches(topic.as_str()));
        assert!(!(in_a && in_b) || filters_intersect(a.filter(), b.filter()));
        assert!(!filter_covers(a.filter(), b.filter()) || in_a || !in_b);
        assert!(filter_covers(a.filter(), a.filter()) && filters_intersect(b.filter(), b.filter()));
    }
}

const LEVELS: [&str; 8] = ["", "a", "b", "$x", "+", "#", "a level that is longer than eighteen bytes", "+"];

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A name or filter out of few levels, often valid.
    fn name(&mut self) -> String {
        let shape = self.next();
        let names_only = shape & 8 != 0;
        let depth = if shape >= 244 { 200 } else { 1 + shape % 5 };
        let mut name = String::new();
        for i in 0..depth {
            if i > 0 {
                name.push('/');
            }
            // A deep one repeats one level.
            let choice = if depth > 5 { shape } else { self.next() };
            let level = LEVELS[usize::from(choice) % LEVELS.len()];
            let literal = if names_only && matches!(level, "+" | "#") { "a" } else { level };
            name.push_str(if literal == "#" && i + 1 < depth { "b" } else { literal });
        }
        name
    }
}

fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at]).chain(Some(name))
}

/// In the order of their first insert.
struct Subscriptions(Vec<(String, u32, u32)>);

impl Subscriptions {
    fn position(&self, filter: &str, subscriber: u32) -> Option<usize> {
        self.0.iter().position(|(f, s, _)| f == filter && *s == subscriber)
    }

    fn get(&self, filter: &str, subscriber: u32) -> Option<u32> {
        self.position(filter, subscriber).map(|at| self.0[at].2)
    }

    fn insert(&mut self, filter: &str, subscriber: u32, value: u32) -> Option<u32> {
        match self.position(filter, subscriber) {
            Some(at) => Some(core::mem::replace(&mut self.0[at].2, value)),
            None => {
                self.0.push((filter.to_string(), subscriber, value));
                None
            }
        }
    }

    fn remove(&mut self, filter: &str, subscriber: u32) -> Option<u32> {
        self.position(filter, subscriber).map(|at| self.0.remove(at).2)
    }

    fn of(&self, subscriber: u32) -> Vec<(String, u32)> {
        self.0.iter().filter(|(_, s, _)| *s == subscriber).map(|(f, _, v)| (f.clone(), *v)).collect()
    }

    fn check_matches(&self, trie: &Trie<u32>, topic: &str, scratch: &mut Scratch) {
        // Values are unique, so they name the subscription; a filter's subscribers keep their order.
        let mut last_of: BTreeMap<&str, usize> = BTreeMap::new();
        let mut visited = 0;
        trie.matches(topic, scratch, |subscriber, value| {
            let at = self.0.iter().position(|(_, _, v)| *v == value).expect("visited what is not there");
            let (filter, of, _) = &self.0[at];
            assert_eq!(*of, subscriber);
            assert!(TopicFilter::parse(filter).is_ok_and(|filter| filter.matches(topic)));
            assert!(last_of.insert(filter, at).is_none_or(|last| last < at));
            visited += 1;
        });
        let matching = |filter: &str| TopicFilter::parse(filter).is_ok_and(|filter| filter.matches(topic));
        assert_eq!(visited, self.0.iter().filter(|(filter, _, _)| matching(filter)).count());
    }

    fn check_shape(&self, trie: &Trie<u32>) {
        let filters: BTreeSet<&str> = self.0.iter().map(|(filter, _, _)| &**filter).collect();
        let nodes: BTreeSet<&str> = filters.iter().flat_map(|filter| prefixes(filter)).collect();
        let levels: BTreeSet<&str> = filters.iter().flat_map(|filter| filter.split('/')).collect();
        let literal = levels.iter().filter(|level| !matches!(**level, "+" | "#")).count();
        assert_eq!((trie.len(), trie.filters()), (self.0.len(), filters.len()));
        assert_eq!((trie.nodes(), trie.levels()), (nodes.len() + 1, literal));
    }
}

/// A cursor with what it must still show.
struct Walk {
    cursor: CursorId,
    filter: String,
    /// Matched when the cursor was opened and there ever since.
    expected: Vec<u32>,
    seen: BTreeSet<u32>,
}

impl Walk {
    fn new(tree: &mut Tree<u32>, model: &BTreeMap<String, u32>, filter: &str) -> Self {
        let cursor = tree.cursor(filter);
        let mut walk =
            Walk { cursor, filter: filter.to_string(), expected: Vec::new(), seen: BTreeSet::new() };
        walk.expected =
            model.iter().filter(|(topic, _)| walk.wants(topic)).map(|(_, value)| *value).collect();
        walk
    }

    fn wants(&self, topic: &str) -> bool {
        // What looks like a share was taken off already, and the rest may look like one again.
        TopicFilter { whole: &self.filter, share: None, filter: &self.filter }.matches(topic)
    }

    /// Goes on; false and closed when done.
    fn go(&mut self, tree: &mut Tree<u32>, model: &BTreeMap<String, u32>, budget: &mut u32) -> bool {
        loop {
            let before = *budget;
            match tree.next(self.cursor, budget) {
                Step::Item(value) => {
                    let (topic, _) =
                        model.iter().find(|(_, v)| *v == value).expect("found what is not there");
                    assert!(self.wants(topic) && *budget < before);
                    assert!(self.seen.insert(*value), "found twice");
                }
                Step::Paused => {
                    assert_eq!(*budget, 0);
                    return true;
                }
                Step::Done => {
                    assert!(self.expected.iter().all(|value| self.seen.contains(value)), "left one out");
                    tree.close(self.cursor);
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a check on bytes from a seed, in pieces of several lengths.
    fn run(check: fn(&[u8]), rounds: u64, length: usize) {
        for seed in 0..rounds {
            let key = HashKey::new(seed);
            let data: Vec<u8> = (0..length as u64 / 8).flat_map(|i| key.hash_u64(i).to_le_bytes()).collect();
            check(&data[..length >> (seed % 8)]);
        }
    }

    #[test]
    fn index_and_slab_agree_with_a_map() {
        run(check_index, 1_000, 4_096);
    }

    #[test]
    fn trie_agrees_with_a_list_of_filters() {
        run(check_trie, 100, 8_192);
    }

    #[test]
    fn tree_agrees_with_a_map_while_cursors_are_open() {
        run(check_tree, 100, 8_192);
    }

    #[test]
    fn filters_agree_with_topics() {
        run(check_filters, 200, 8_192);
    }
}
