//! `topic → targets`, so that most publishes search no trie.

use std::hash::BuildHasher;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::interest::{Generations, Watched};
use super::targets::Targets;

/// Topics kept by one worker. Past it, those not asked for since the last time are dropped.
const TOPICS_MAX: usize = 65_536;

/// Memory for topics and targets kept by one worker, in bytes. Past it likewise; larger targets are not kept.
const BYTES_MAX: usize = 32 << 20;

/// The targets of topics that were published to, each valid until a generation that it depends on moves.
pub(super) struct Cache {
    entries: HashTable<Entry>,
    hasher: RandomState,
    bytes: usize,
}

struct Entry {
    topic: Box<str>,
    targets: Rc<Targets>,
    watched: Watched,
    generation: u64,
    /// Asked for again since it came in or since the last time that entries were dropped.
    used: bool,
}

impl Entry {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.targets.heap_bytes()
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { entries: HashTable::new(), hasher: RandomState::default(), bytes: 0 }
    }

    /// The targets of `topic`, if they are known and still valid.
    #[inline]
    pub(super) fn get(&mut self, topic: &str, generations: &Generations) -> Option<Rc<Targets>> {
        let hash = self.hasher.hash_one(topic);
        let entry = self.entries.find_mut(hash, |entry| *entry.topic == *topic)?;
        if generations.current(entry.watched) != entry.generation {
            return None;
        }
        entry.used = true;
        Some(Rc::clone(&entry.targets))
    }

    /// Keeps targets that were found after `generation` had been read.
    pub(super) fn put(&mut self, topic: &str, watched: Watched, generation: u64, targets: Rc<Targets>) {
        let hash = self.hasher.hash_one(topic);
        if let Ok(outdated) = self.entries.find_entry(hash, |entry| *entry.topic == *topic) {
            let (outdated, _) = outdated.remove();
            self.bytes -= outdated.bytes();
        }
        let entry = Entry { topic: topic.into(), targets, watched, generation, used: false };
        let bytes = entry.bytes();
        if bytes > BYTES_MAX {
            return;
        }
        if self.entries.len() >= TOPICS_MAX || self.bytes + bytes > BYTES_MAX {
            self.make_room(bytes);
        }
        self.bytes += bytes;
        let hasher = &self.hasher;
        self.entries.insert_unique(hash, entry, |entry| hasher.hash_one(&*entry.topic));
    }

    /// Drops what was not used since the last time, or everything if that leaves more than half.
    fn make_room(&mut self, bytes: usize) {
        let mut kept = 0;
        self.entries.retain(|entry| {
            let keep = std::mem::take(&mut entry.used);
            kept += if keep { entry.bytes() } else { 0 };
            keep
        });
        self.bytes = kept;
        if self.entries.len() > TOPICS_MAX / 2 || kept + bytes > BYTES_MAX / 2 {
            self.entries.clear();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::targets::{Own, SessionKey, Target};

    fn targets(count: u32) -> Rc<Targets> {
        let target = |slot| Target {
            session: SessionKey { slot, serial: 0 },
            qos: plugin_api::QoS::AtMostOnce,
            retain_as_published: false,
            identifiers: Box::new([]),
            own: Own::Same,
        };
        Rc::new(Targets { local: (0..count).map(target).collect(), ..Targets::default() })
    }

    #[test]
    fn is_bounded_in_topics_and_keeps_those_in_use() {
        let generations = Generations::new();
        let (mut cache, targets) = (Cache::new(), targets(1));
        let watched = generations.watch("hot");
        cache.put("hot", watched, generations.current(watched), Rc::clone(&targets));
        for n in 0..200_000 {
            let topic = format!("cold/{n}");
            let watched = generations.watch(&topic);
            cache.put(&topic, watched, generations.current(watched), Rc::clone(&targets));
            assert!(cache.entries.len() <= TOPICS_MAX && cache.bytes <= BYTES_MAX);
            assert!(cache.get("hot", &generations).is_some(), "dropped after {n} other topics");
        }
        assert_eq!(cache.bytes, cache.entries.iter().map(Entry::bytes).sum::<usize>());
    }

    #[test]
    fn is_bounded_in_bytes() {
        let generations = Generations::new();
        let mut cache = Cache::new();
        let watched = generations.watch("t");
        for n in 0..100 {
            cache.put(&format!("t/{n}"), watched, 0, targets(20_000));
            assert!(cache.bytes <= BYTES_MAX);
        }
        cache.put("huge", watched, 0, targets(1_000_000));
        assert!(cache.get("huge", &generations).is_none());
        assert!(cache.bytes <= BYTES_MAX);
    }
}
