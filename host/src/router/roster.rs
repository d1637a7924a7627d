//! The subscribers of one Topic Filter, or the members of one group.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Past this many entries a roster is searched through an index: a filter may have a hundred thousand subscribers.
const SCANNED_MAX: usize = 16;

/// What tells the entries of a roster apart.
pub(super) trait Keyed {
    type Key: Copy + Eq + Hash;
    fn key(&self) -> Self::Key;
}

/// Entries with different keys, in no order. One entry, the most frequent case, is stored in place.
#[derive(Default)]
pub(super) enum Roster<T> {
    #[default]
    Empty,
    One(T),
    Many(Box<Many<T>>),
}

pub(super) struct Many<T> {
    entries: Vec<T>,
    /// Positions in `entries`, by the hash of the key. Empty until there are more than [`SCANNED_MAX`].
    index: HashTable<u32>,
}

impl<T: Keyed> Roster<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::Empty => &[],
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(many) => &many.entries,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Adds `entry`, and returns the one that it takes the place of.
    pub(super) fn insert(&mut self, entry: T) -> Option<T> {
        match self {
            Self::Empty => {
                *self = Self::One(entry);
                None
            }
            Self::One(old) if old.key() == entry.key() => Some(std::mem::replace(old, entry)),
            Self::One(_) => {
                let Self::One(first) = std::mem::take(self) else { unreachable!("matched above") };
                *self = Self::Many(Box::new(Many { entries: vec![first, entry], index: HashTable::new() }));
                None
            }
            Self::Many(many) => many.insert(entry),
        }
    }

    pub(super) fn remove(&mut self, key: T::Key) -> Option<T> {
        match self {
            Self::Empty => None,
            Self::One(entry) if entry.key() != key => None,
            Self::One(_) => match std::mem::take(self) {
                Self::One(entry) => Some(entry),
                _ => unreachable!("matched above"),
            },
            Self::Many(many) => {
                let removed = many.remove(key)?;
                if many.entries.len() == 1 {
                    *self = many.entries.pop().map_or(Self::Empty, Self::One);
                }
                Some(removed)
            }
        }
    }
}

impl<T: Keyed> Many<T> {
    fn insert(&mut self, entry: T) -> Option<T> {
        if let Some(position) = self.position(entry.key()) {
            return Some(std::mem::replace(&mut self.entries[position], entry));
        }
        self.entries.push(entry);
        match self.entries.len() - 1 {
            SCANNED_MAX => (0..=SCANNED_MAX).for_each(|position| self.add_to_index(position)),
            position if position > SCANNED_MAX => self.add_to_index(position),
            _ => {}
        }
        None
    }

    fn remove(&mut self, key: T::Key) -> Option<T> {
        let position = self.position(key)?;
        let last = self.entries.len() - 1;
        if !self.index.is_empty() {
            self.remove_from_index(key, position);
            if last != position {
                self.remove_from_index(self.entries[last].key(), last);
            }
        }
        let removed = self.entries.swap_remove(position);
        if last <= SCANNED_MAX {
            self.index = HashTable::new();
        } else if last != position {
            self.add_to_index(position);
        }
        // Halving at a quarter keeps both growing and shrinking cheap per entry.
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
            let entries = &self.entries;
            self.index.shrink_to(entries.len() * 2, |&at| hash(entries[at as usize].key()));
        }
        Some(removed)
    }

    fn position(&self, key: T::Key) -> Option<usize> {
        if self.index.is_empty() {
            return self.entries.iter().position(|entry| entry.key() == key);
        }
        self.index.find(hash(key), |&at| self.entries[at as usize].key() == key).map(|&at| at as usize)
    }

    fn add_to_index(&mut self, position: usize) {
        let entries = &self.entries;
        self.index
            .insert_unique(hash(entries[position].key()), narrow(position), |&at| hash(entries[at as usize].key()));
    }

    fn remove_from_index(&mut self, key: T::Key, position: usize) {
        if let Ok(found) = self.index.find_entry(hash(key), |&at| at == narrow(position)) {
            found.remove();
        }
    }
}

fn narrow(position: usize) -> u32 {
    u32::try_from(position).expect("a session number has 32 bits")
}

/// Not seeded: keys are numbers that the broker gives out.
fn hash(key: impl Hash) -> u64 {
    FixedState::default().hash_one(key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::router::tests::Random;

    impl Keyed for (u32, u64) {
        type Key = u32;
        fn key(&self) -> u32 {
            self.0
        }
    }

    #[test]
    fn behaves_like_a_map_at_every_size() {
        let mut random = Random::new(7);
        // Each range of keys makes the roster cross other sizes: none and one, the index's bound, many.
        for keys in [1, 2, 3, 15, 18, 40, 2000] {
            let (mut roster, mut model) = (Roster::default(), BTreeMap::new());
            for step in 0..10_000_u64 {
                let key = random.below(keys);
                // Phases in which most steps add, and phases in which most remove.
                if (random.below(4) == 0) == ((step / 2500) % 2 == 0) {
                    assert_eq!(roster.remove(key), model.remove(&key).map(|value| (key, value)));
                } else {
                    let old = roster.insert((key, step));
                    assert_eq!(old, model.insert(key, step).map(|value| (key, value)));
                }
                assert_eq!(roster.is_empty(), model.is_empty());
                assert_eq!(roster.as_slice().len(), model.len());
            }
            let mut left = roster.as_slice().to_vec();
            left.sort_unstable();
            assert_eq!(left, model.into_iter().collect::<Vec<_>>());
        }
    }
}
