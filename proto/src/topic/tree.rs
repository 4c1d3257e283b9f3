//! Topic names to values, for retained messages, with cursors that survive mutation.
//!
//! An arena of nodes linked to their first child and to both siblings, and one flat edge table keyed by
//! (parent, level). A [cursor](Tree::cursor) walks in depth-first order and always stands on the node
//! that it will visit next. When that node is pruned it has no children, and the cursor moves on as
//! if it had visited it; so what is there all along is shown exactly once, whatever comes and goes meanwhile.

use alloc::boxed::Box;

use super::levels::Levels;
use crate::table::{HashKey, Index, Slab};

/// Values under topic names. A value stands in its node, also where a node is only the prefix of
/// others, so it should be small.
pub struct Tree<T> {
    key: HashKey,
    levels: Levels,
    nodes: Slab<Node<T>>,
    edges: Index,
    cursors: Slab<Cursor>,
    len: usize,
}

/// An open cursor of a [`Tree`]. Not to be used after it was closed: its number may be given out again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CursorId(u32);

/// What one call of [`Tree::next`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<'a, T> {
    /// The next value whose topic matches.
    Item(&'a T),
    /// The budget is used up; call again with a new one.
    Paused,
    /// There is no more; close the cursor.
    Done,
}

impl<T> Tree<T> {
    /// No topics yet.
    pub fn new(key: HashKey) -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(NONE, NONE));
        Tree { key, levels: Levels::new(key), nodes, edges: Index::new(), cursors: Slab::new(), len: 0 }
    }

    /// Sets the value of a valid topic name and returns the one it had; a replaced one keeps its place.
    pub fn insert(&mut self, topic: &str, value: T) -> Option<T> {
        let mut at = ROOT;
        for text in topic.split('/') {
            let known = self.levels.lookup(text.as_bytes()).and_then(|level| find_edge(self, at, level));
            at = known.unwrap_or_else(|| self.make_edge(at, text));
        }
        let old = self.nodes[at].value.replace(value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes a topic and returns its value.
    pub fn remove(&mut self, topic: &str) -> Option<T> {
        let id = self.find(topic)?;
        let value = self.nodes[id].value.take()?;
        self.len -= 1;
        self.prune(id);
        Some(value)
    }

    /// The value of a topic.
    pub fn get(&self, topic: &str) -> Option<&T> {
        self.nodes[self.find(topic)?].value.as_ref()
    }

    /// The value of a topic, to change it.
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut T> {
        let id = self.find(topic)?;
        self.nodes[id].value.as_mut()
    }

    /// Opens a cursor over the topics that a valid filter without `$share/{group}/` matches.
    ///
    /// It costs a little with every removal until it is closed, so bound how many are open. Topics that are
    /// new since then stand behind the others, so it may go on for as long as they keep coming.
    pub fn cursor(&mut self, filter: &str) -> CursorId {
        // Holding on to the levels keeps their ids from being given to other texts meanwhile.
        let filter: Box<[u32]> = filter
            .split('/')
            .map(|text| match text {
                "+" => PLUS,
                "#" => HASH,
                _ => self.levels.intern(text),
            })
            .collect();
        let at = descend(self, &filter, Place { node: ROOT, depth: 0 });
        CursorId(self.cursors.insert(Cursor { at, filter }))
    }

    /// Opens a cursor over all topics, those that begin with `$` as well.
    pub fn cursor_over_all(&mut self) -> CursorId {
        let filter: Box<[u32]> = Box::new([EVERY, HASH]);
        let at = descend(self, &filter, Place { node: ROOT, depth: 0 });
        CursorId(self.cursors.insert(Cursor { at, filter }))
    }

    /// Goes on to the next matching value, in depth-first order, children in the order of their insertion.
    ///
    /// Takes one from `budget` for each node visited. A value that is there from the cursor's opening to its
    /// end is found exactly once, one that comes or goes meanwhile at most once for each time it came.
    pub fn next(&mut self, cursor: CursorId, budget: &mut u32) -> Step<'_, T> {
        let Some(Cursor { at, filter }) = self.cursors.get(cursor.0) else { return Step::Done };
        let mut at = *at;
        let found = loop {
            if at.node == NONE {
                break Ok(Step::Done);
            }
            if *budget == 0 {
                break Ok(Step::Paused);
            }
            *budget -= 1;
            let here = at;
            let node = &self.nodes[here.node];
            let wild = matches!(filter.first(), Some(&PLUS | &HASH));
            // [MQTT-4.7.2-1]
            if here.depth == 1 && wild && self.levels.text(node.level).starts_with('$') {
                at = skip(self, filter, here);
                continue;
            }
            at = descend(self, filter, here);
            if node.value.is_some() && is_end(filter, here.depth) {
                break Err(here.node);
            }
        };
        self.cursors[cursor.0].at = at;
        match found {
            Ok(step) => step,
            Err(node) => self.nodes[node].value.as_ref().map_or(Step::Done, Step::Item),
        }
    }

    /// Closes a cursor.
    pub fn close(&mut self, cursor: CursorId) {
        let Some(Cursor { filter, .. }) = self.cursors.remove(cursor.0) else { return };
        for level in filter.into_iter().filter(|level| *level < EVERY) {
            self.levels.release(level);
        }
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no topics.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many cursors are open.
    pub fn cursors(&self) -> usize {
        self.cursors.len()
    }

    /// How many nodes there are; one when there are no topics.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// How many distinct levels there are, in topics and in open cursors.
    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    /// Bytes of heap held, without what the values hold themselves.
    pub fn memory(&self) -> usize {
        let filters: usize = self.cursors.iter().map(|(_, cursor)| size_of_val(&*cursor.filter)).sum();
        self.levels.memory() + self.nodes.memory() + self.edges.memory() + self.cursors.memory() + filters
    }

    fn find(&self, topic: &str) -> Option<u32> {
        topic.split('/').try_fold(ROOT, |at, text| find_edge(self, at, self.levels.lookup(text.as_bytes())?))
    }

    fn make_edge(&mut self, parent: u32, text: &str) -> u32 {
        let level = self.levels.intern(text);
        let id = self.nodes.insert(Node::new(parent, level));
        match core::mem::replace(&mut self.nodes[parent].last_child, id) {
            NONE => self.nodes[parent].first_child = id,
            last => {
                self.nodes[last].next = id;
                self.nodes[id].prev = last;
            }
        }
        let (key, nodes) = (&self.key, &self.nodes);
        self.edges.insert(edge_hash(key, parent, level), id, |id| {
            edge_hash(key, nodes[id].parent, nodes[id].level)
        });
        id
    }

    /// Removes a node and those above it, as far as they have neither a value nor children.
    fn prune(&mut self, mut id: u32) {
        while id != ROOT && self.nodes[id].value.is_none() && self.nodes[id].first_child == NONE {
            self.move_cursors(id);
            let Node { parent, level, next, prev, .. } = self.nodes[id];
            match prev {
                NONE => self.nodes[parent].first_child = next,
                prev => self.nodes[prev].next = next,
            }
            match next {
                NONE => self.nodes[parent].last_child = prev,
                next => self.nodes[next].prev = prev,
            }
            let (key, nodes) = (&self.key, &self.nodes);
            self.edges.remove(
                edge_hash(key, parent, level),
                |other| other == id,
                |id| edge_hash(key, nodes[id].parent, nodes[id].level),
            );
            self.levels.release(level);
            self.nodes.remove(id);
            id = parent;
        }
    }

    /// Lets the cursors that stand on a node go on from it.
    fn move_cursors(&mut self, id: u32) {
        if self.cursors.is_empty() {
            return;
        }
        let mut cursors = core::mem::take(&mut self.cursors);
        for (_, cursor) in cursors.iter_mut().filter(|(_, cursor)| cursor.at.node == id) {
            cursor.at = skip(self, &cursor.filter, cursor.at);
        }
        self.cursors = cursors;
    }
}

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;
const PLUS: u32 = u32::MAX - 1;
const HASH: u32 = u32::MAX - 2;
/// As `+`, but also what begins with `$`: in no filter of a client.
const EVERY: u32 = u32::MAX - 3;

struct Node<T> {
    parent: u32,
    level: u32,
    first_child: u32,
    last_child: u32,
    prev: u32,
    next: u32,
    value: Option<T>,
}

impl<T> Node<T> {
    fn new(parent: u32, level: u32) -> Self {
        Node { parent, level, first_child: NONE, last_child: NONE, prev: NONE, next: NONE, value: None }
    }
}

/// A node, or `NONE` behind the last one, and how many levels of the filter lead to it.
#[derive(Clone, Copy)]
struct Place {
    node: u32,
    depth: u32,
}

struct Cursor {
    at: Place,
    /// Interned levels, `PLUS` or `HASH`.
    filter: Box<[u32]>,
}

/// The level of the filter that a node at this depth, below the root, has passed.
fn step_at(filter: &[u32], depth: u32) -> u32 {
    filter.get(depth as usize - 1).copied().unwrap_or(HASH)
}

/// Whether a topic that ends at this depth matches, given that the way there does.
fn is_end(filter: &[u32], depth: u32) -> bool {
    let depth = depth as usize;
    // `#` matches the level above it too.
    depth >= filter.len() || filter[depth] == HASH
}

/// The place to visit after this one: its first child that the filter leads to, else what `skip` says.
fn descend<T>(tree: &Tree<T>, filter: &[u32], at: Place) -> Place {
    let open = filter.last() == Some(&HASH);
    let child = match filter.get(at.depth as usize) {
        Some(&(PLUS | HASH | EVERY)) => tree.nodes[at.node].first_child,
        Some(&level) => find_edge(tree, at.node, level).unwrap_or(NONE),
        None if open => tree.nodes[at.node].first_child,
        None => NONE,
    };
    match child {
        NONE => skip(tree, filter, at),
        node => Place { node, depth: at.depth + 1 },
    }
}

/// The place to visit after this one and all that is below it.
fn skip<T>(tree: &Tree<T>, filter: &[u32], mut at: Place) -> Place {
    while at.node != ROOT {
        let node = &tree.nodes[at.node];
        if node.next != NONE && step_at(filter, at.depth) >= EVERY {
            return Place { node: node.next, depth: at.depth };
        }
        at = Place { node: node.parent, depth: at.depth - 1 };
    }
    Place { node: NONE, depth: 0 }
}

fn find_edge<T>(tree: &Tree<T>, parent: u32, level: u32) -> Option<u32> {
    tree.edges.find(edge_hash(&tree.key, parent, level), |id| {
        let node = &tree.nodes[id];
        node.parent == parent && node.level == level
    })
}

#[inline]
fn edge_hash(key: &HashKey, parent: u32, level: u32) -> u64 {
    key.hash_u64(u64::from(parent) << 32 | u64::from(level))
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;

    fn tree_of(topics: &[&'static str]) -> Tree<&'static str> {
        let mut tree = Tree::new(HashKey::new(1));
        for topic in topics {
            assert_eq!(tree.insert(topic, *topic), None);
        }
        tree
    }

    fn rest<T: Copy>(tree: &mut Tree<T>, cursor: CursorId) -> Vec<T> {
        let mut all = Vec::new();
        while let Step::Item(value) = tree.next(cursor, &mut 1_000_000) {
            all.push(*value);
        }
        tree.close(cursor);
        all
    }

    fn found(tree: &mut Tree<&'static str>, filter: &str) -> Vec<&'static str> {
        let cursor = tree.cursor(filter);
        rest(tree, cursor)
    }

    #[test]
    fn filters_find_their_topics_in_order_of_insertion() {
        let mut tree = tree_of(&["a/b", "$x/b", "a", "/b", "c", "a/b/c", "a/d", "$x"]);
        assert_eq!(found(&mut tree, "#"), ["a", "a/b", "a/b/c", "a/d", "/b", "c"]);
        assert_eq!(found(&mut tree, "a/#"), ["a", "a/b", "a/b/c", "a/d"]);
        assert_eq!(found(&mut tree, "+"), ["a", "c"]);
        assert_eq!(found(&mut tree, "+/b"), ["a/b", "/b"]);
        assert_eq!(found(&mut tree, "+/+/#"), ["a/b", "a/b/c", "a/d", "/b"]);
        assert_eq!(found(&mut tree, "a/b"), ["a/b"]);
        assert_eq!(found(&mut tree, "$x/#"), ["$x", "$x/b"]);
        assert_eq!(found(&mut tree, "$x/+"), ["$x/b"]);
        assert_eq!(found(&mut tree, "a/e/#"), [""; 0]);
        let all = tree.cursor_over_all();
        assert_eq!(rest(&mut tree, all), ["a", "a/b", "a/b/c", "a/d", "$x", "$x/b", "/b", "c"]);
        assert_eq!(
            (tree.insert("a", "new"), tree.get("a"), tree.get("a/b/d")),
            (Some("a"), Some(&"new"), None)
        );
        assert_eq!((tree.remove("a"), tree.remove("a"), tree.len()), (Some("new"), None, 7));
        if let Some(value) = tree.get_mut("c") {
            *value = "other";
        }
        assert_eq!(found(&mut tree, "c"), ["other"]);
    }

    #[test]
    fn budget_counts_nodes_also_those_that_do_not_match() {
        let mut tree = tree_of(&["$1", "$2", "$3", "a/b/c"]);
        let cursor = tree.cursor("#");
        let mut budget = 2;
        assert_eq!((tree.next(cursor, &mut budget), budget), (Step::Paused, 0));
        assert_eq!(tree.next(cursor, &mut budget), Step::Paused);
        budget = 10;
        assert_eq!((tree.next(cursor, &mut budget), budget), (Step::Item(&"a/b/c"), 6));
        assert_eq!((tree.next(cursor, &mut budget), budget), (Step::Done, 6));
        tree.close(cursor);
        assert_eq!(tree.next(cursor, &mut budget), Step::Done);
    }

    #[test]
    fn cursor_moves_on_when_its_node_goes() {
        let mut tree = tree_of(&["a/1/x", "a/2/x", "b/1/x", "c/1/x"]);
        let cursor = tree.cursor("#");
        assert_eq!(tree.next(cursor, &mut 9), Step::Item(&"a/1/x"));
        // It stands on `a/2` now, then on `b`, which go with their topics.
        tree.remove("a/2/x");
        tree.remove("b/1/x");
        tree.insert("c/0/x", "c/0/x");
        assert_eq!(rest(&mut tree, cursor), ["c/1/x", "c/0/x"]);
    }

    #[test]
    fn cursor_keeps_the_ids_of_its_levels() {
        let mut tree = tree_of(&["a/b", "a/c"]);
        let cursor = tree.cursor("+/b");
        tree.remove("a/b");
        // Without a hold on `b`, `d` would be given its id.
        tree.insert("a/d", "a/d");
        assert_eq!((rest(&mut tree, cursor), tree.levels()), (Vec::new(), 3));
    }

    #[test]
    fn depth_is_no_danger() {
        let slashes = "/".repeat(65_535);
        let deep = format!("{}a", "a/".repeat(199));
        let mut tree = Tree::new(HashKey::new(1));
        tree.insert(&slashes, 1);
        tree.insert(&deep, 2);
        tree.insert(&slashes[1..], 3);
        for (filter, expected) in [
            ("#", &[3, 1, 2][..]),
            ("/#", &[3, 1]),
            (&slashes, &[1]),
            (&deep, &[2]),
            ("a/+/#", &[2]),
            ("+", &[]),
        ] {
            let cursor = tree.cursor(filter);
            assert_eq!(rest(&mut tree, cursor), expected);
        }
        tree.remove(&slashes);
        tree.remove(&deep);
        tree.remove(&slashes[1..]);
        assert_eq!((tree.len(), tree.nodes(), tree.levels()), (0, 1, 0));
    }

    #[test]
    #[ignore = "prints what a million topics cost"]
    fn million_topics() {
        type Shape = fn(u32) -> String;
        let shapes: [(&str, Shape); 2] = [
            ("site/{1,000}/{250}/{4}", |i| format!("site/{:04}/{:05}/{}", i / 1_000, i % 1_000 / 4, i % 4)),
            ("site/{100}/{1,000,000}/temp", |i| format!("site/{:02}/{i:07}/temp", i % 100)),
        ];
        for (name, shape) in shapes {
            let mut tree: Tree<u32> = Tree::new(HashKey::new(1));
            let start = std::time::Instant::now();
            for i in 0..1_000_000 {
                tree.insert(&shape(i), i);
            }
            let inserted = start.elapsed();
            let bytes = tree.memory() / tree.len();
            let start = std::time::Instant::now();
            let cursor = tree.cursor("#");
            assert_eq!(rest(&mut tree, cursor).len(), 1_000_000);
            std::println!(
                "{name}: {bytes} bytes, {} nodes, {} levels; insert {:?}, walk {:?} each",
                tree.nodes(),
                tree.levels(),
                inserted / 1_000_000,
                start.elapsed() / 1_000_000
            );
        }
    }
}
