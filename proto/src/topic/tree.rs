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
            let known = self.levels.lookup(text).and_then(|level| find_edge(self, at, level));
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
    /// It costs a little with every removal until it is closed, so bound how many are open.
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
        for level in filter.into_iter().filter(|level| !matches!(*level, PLUS | HASH)) {
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
        topic.split('/').try_fold(ROOT, |at, text| find_edge(self, at, self.levels.lookup(text)?))
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
        Some(&(PLUS | HASH)) => tree.nodes[at.node].first_child,
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
        if node.next != NONE && matches!(step_at(filter, at.depth), PLUS | HASH) {
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
