//! From a key to a slot of a slab, where what is in the slot knows its key: an index of numbers alone.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Slots by the key of what is in them: five bytes for each, where a map with the keys would take thirty.
///
/// Whoever calls says what is in a slot; only slots that are in the index are asked about.
#[derive(Default)]
pub(super) struct SlotIndex {
    slots: HashTable<u32>,
    hasher: RandomState,
}

impl SlotIndex {
    #[cfg(any(test, fuzzing))]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot with this key; `is_it` says whether it is a slot's key.
    pub(super) fn find(&self, key: impl Hash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.slots.find(self.hasher.hash_one(key), |&slot| is_it(slot)).copied()
    }

    /// Adds a slot, whose key no other has; `key_of` says what key a slot has.
    pub(super) fn insert<K: Hash>(&mut self, key: K, slot: u32, key_of: impl Fn(u32) -> K) {
        let hasher = &self.hasher;
        self.slots.insert_unique(hasher.hash_one(key), slot, |&slot| hasher.hash_one(key_of(slot)));
    }

    /// Removes a slot with its key.
    pub(super) fn remove(&mut self, key: impl Hash, slot: u32) {
        if let Ok(entry) = self.slots.find_entry(self.hasher.hash_one(key), |&other| other == slot) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_by_the_key_of_what_is_in_them() {
        let names: Vec<String> = (0..1000).map(|n| format!("client {n}")).collect();
        let name = |slot: u32| names[slot as usize].as_str();
        let mut index = SlotIndex::default();
        (0..1000).for_each(|slot| index.insert(name(slot), slot, name));
        assert_eq!(index.len(), 1000);
        (0..1000).step_by(2).for_each(|slot| index.remove(name(slot), slot));
        for slot in 0..1000 {
            let expected = (slot % 2 == 1).then_some(slot);
            assert_eq!(index.find(name(slot), |other| name(other) == name(slot)), expected);
        }
        assert_eq!(index.find("nobody", |slot| name(slot) == "nobody"), None);
    }
}
