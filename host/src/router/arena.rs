//! The tree of topic levels under every index here: nodes in one array, and one hash table for all the edges.
//!
//! A hash map in each node is a third slower and three to four times larger than one table keyed by
//! `(parent, level)`. The table holds node numbers and half of their hashes; parent and text are read from the node, which the
//! search visits next anyway. Without the hash every node would be visited when the table grows: a sixth of what a SUBSCRIBE
//! cost.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The node that every topic starts from. It is nobody's child, so that its number also serves as "none" in links.
pub(super) const ROOT: u32 = 0;

/// An emptied tree gives back its memory if it had grown past this many nodes; below, keeping it is cheaper.
const NODES_KEPT: usize = 1024;

/// Topic levels in a tree, each with a `T`.
///
/// Removed nodes are reused, so that memory follows the largest number of nodes alive at one time, whatever the churn.
pub(super) struct Arena<T> {
    nodes: Vec<Node<T>>,
    /// Every node but the root, found by the hash of its parent and level.
    edges: HashTable<Edge>,
    free: Vec<u32>,
    hasher: RandomState,
}

/// The way to a node.
struct Edge {
    hash: u32,
    node: u32,
}

impl Edge {
    /// A table takes its place from the lower bits, and from the upper ones what it compares first.
    #[inline]
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

struct Node<T> {
    level: Level,
    parent: u32,
    children: u32,
    data: T,
}

impl<T: Default> Arena<T> {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node { level: Level::new(""), parent: ROOT, children: 0, data: T::default() }],
            edges: HashTable::new(),
            free: Vec::new(),
            hasher: RandomState::default(),
        }
    }

    #[inline]
    pub(super) fn get(&self, node: u32) -> &T {
        &self.nodes[node as usize].data
    }

    /// The same of a number that may be nobody's by now.
    #[inline]
    pub(super) fn try_get(&self, node: u32) -> Option<&T> {
        self.nodes.get(node as usize).map(|node| &node.data)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, node: u32) -> &mut T {
        &mut self.nodes[node as usize].data
    }

    pub(super) fn parent(&self, node: u32) -> u32 {
        self.nodes[node as usize].parent
    }

    /// The text of the level that leads to `node`.
    pub(super) fn level(&self, node: u32) -> &[u8] {
        self.nodes[node as usize].level.as_bytes()
    }

    pub(super) fn has_children(&self, node: u32) -> bool {
        self.nodes[node as usize].children > 0
    }

    /// The node below `parent` at `level`.
    #[inline]
    pub(super) fn child(&self, parent: u32, level: &str) -> Option<u32> {
        let level = level.as_bytes();
        let hash = hash(&self.hasher, parent, level);
        let found = self
            .edges
            .find(Edge::spread(hash), |edge| edge.hash == hash && self.nodes[edge.node as usize].is_at(parent, level));
        found.map(|edge| edge.node)
    }

    /// The node below `parent` at `level`, and whether it is new: it is added if there is none.
    pub(super) fn child_or_new(&mut self, parent: u32, level: &str) -> (u32, bool) {
        let text = level.as_bytes();
        let nodes = &self.nodes;
        let hash = hash(&self.hasher, parent, text);
        let is_it = |edge: &Edge| edge.hash == hash && nodes[edge.node as usize].is_at(parent, text);
        let edge = match self.edges.entry(Edge::spread(hash), is_it, |edge| Edge::spread(edge.hash)) {
            Entry::Occupied(edge) => return (edge.get().node, false),
            Entry::Vacant(edge) => edge,
        };
        let reused = self.free.pop();
        let next = || u32::try_from(nodes.len()).expect("memory ends before four thousand million levels");
        let index = reused.unwrap_or_else(next);
        edge.insert(Edge { hash, node: index });
        let node = Node { level: Level::new(level), parent, children: 0, data: T::default() };
        match reused {
            Some(index) => self.nodes[index as usize] = node,
            None => self.nodes.push(node),
        }
        self.nodes[parent as usize].children += 1;
        (index, true)
    }

    /// Removes a node that has no children and is not the root.
    pub(super) fn remove(&mut self, node: u32) {
        debug_assert!(node != ROOT && !self.has_children(node));
        let removed = &self.nodes[node as usize];
        let parent = removed.parent;
        let hash = hash(&self.hasher, parent, removed.level.as_bytes());
        if let Ok(edge) = self.edges.find_entry(Edge::spread(hash), |edge| edge.node == node) {
            edge.remove();
        }
        let removed = &mut self.nodes[node as usize];
        removed.level = Level::new("");
        removed.data = T::default();
        self.nodes[parent as usize].children -= 1;
        self.free.push(node);
        if self.edges.is_empty() && self.nodes.capacity() > NODES_KEPT {
            self.nodes.truncate(1);
            self.nodes.shrink_to_fit();
            self.free = Vec::new();
            self.edges = HashTable::new();
        }
    }

    /// Nodes allocated, in use or free, without the root.
    #[cfg(any(test, fuzzing))]
    pub(super) fn allocated(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Numbers of nodes are below this, in use or free.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// Nodes in use, without the root.
    pub(super) fn len(&self) -> usize {
        self.edges.len()
    }
}

impl<T> Node<T> {
    #[inline]
    fn is_at(&self, parent: u32, level: &[u8]) -> bool {
        self.parent == parent && self.level.as_bytes() == level
    }
}

#[inline]
fn hash(hasher: &RandomState, parent: u32, level: &[u8]) -> u32 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u32(parent);
    hasher.write(level);
    hasher.finish() as u32
}

/// The text of one level in 16 bytes: most are short, and reading those needs no second access to memory.
enum Level {
    Short { len: u8, bytes: [u8; SHORT_BYTES] },
    Long(Box<Long>),
}

/// Behind one more pointer, as a wide one would make every [`Level`] half as large again.
struct Long(Box<[u8]>);

const SHORT_BYTES: usize = 14;

impl Level {
    fn new(text: &str) -> Self {
        let text = text.as_bytes();
        match u8::try_from(text.len()) {
            Ok(len) if text.len() <= SHORT_BYTES => {
                let mut bytes = [0; SHORT_BYTES];
                bytes[..text.len()].copy_from_slice(text);
                Self::Short { len, bytes }
            }
            _ => Self::Long(Box::new(Long(text.into()))),
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(long) => &long.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_keeps_its_text_and_takes_16_bytes() {
        assert_eq!(size_of::<Level>(), 16);
        for len in [0, 1, 13, 14, 15, 255, 256, 65_535] {
            let text = "x".repeat(len);
            assert_eq!(Level::new(&text).as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn nodes_are_found_reused_and_given_back() {
        let mut arena: Arena<u8> = Arena::new();
        let a = arena.child_or_new(ROOT, "a").0;
        let b = arena.child_or_new(a, "").0;
        assert_eq!(arena.child_or_new(ROOT, "a"), (a, false));
        assert_eq!(arena.child(ROOT, "a"), Some(a));
        assert_eq!(arena.child(a, ""), Some(b));
        assert_eq!(arena.child(ROOT, ""), None);
        assert_eq!((arena.level(b), arena.parent(b)), (&b""[..], a));
        arena.remove(b);
        assert_eq!(arena.child(a, ""), None);
        assert!(!arena.has_children(a));
        assert_eq!(arena.child_or_new(a, "a level that is not stored inline"), (b, true));

        let many: Vec<u32> = (0..5000).map(|n| arena.child_or_new(ROOT, &n.to_string()).0).collect();
        assert_eq!(arena.allocated(), 5002);
        many.into_iter().chain([b, a]).for_each(|node| arena.remove(node));
        assert_eq!((arena.len(), arena.allocated()), (0, 0));
        assert_eq!(arena.nodes.capacity(), 1);
    }
}
