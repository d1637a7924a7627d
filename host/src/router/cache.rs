//! `topic → targets`, so that most publishes search no trie.

use std::hash::BuildHasher;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::interest::{Generations, Watched};
use super::targets::Targets;

/// Topics kept by one worker. Past it, those not asked for since the last time are dropped.
const TOPICS_MAX: usize = if cfg!(test) { 16_384 } else { 262_144 };

/// What an entry takes beyond its parts: the counters and the allocator's part of three allocations.
const ENTRY_BYTES: usize = 64;

/// Memory for topics and targets kept by one worker, in bytes. Past it likewise; larger targets are not kept.
const BYTES_MAX: usize = 32 << 20;

/// So many topics are kept when they are published to for the first time, later ones for the second: a topic that is
/// published to once, as those of most retained messages are, would cost more to keep than to look up.
const KEPT_AT_ONCE: usize = if cfg!(test) { 64 } else { 4096 };

/// The targets of topics that were published to, each valid until a generation that it depends on moves.
pub(super) struct Cache {
    entries: Slab<Entry>,
    /// Places in `entries`, by topic.
    places: HashTable<u32>,
    hasher: RandomState,
    bytes: usize,
    seen: Seen,
    /// The place that was found last: who asks for a topic by its bytes asks for its targets next.
    last: u32,
}

struct Entry {
    topic: Rc<str>,
    targets: Rc<Targets>,
    watched: Watched,
    generation: u64,
    /// Asked for again since it came in or since the last time that entries were dropped.
    used: bool,
    /// The place of the topic that a client asked for after this one: who goes through many topics does it in one order, and
    /// they are found without a search, one beside the other in memory.
    next: u32,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + size_of::<Self>() + size_of::<u32>() + self.topic.len() + self.targets.heap_bytes()
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            entries: Slab::new(),
            places: HashTable::new(),
            hasher: RandomState::default(),
            bytes: 0,
            seen: Seen::default(),
            last: u32::MAX,
        }
    }

    /// The topic with these bytes, if it was published to before. `place` is where it was the last time.
    #[inline]
    pub(super) fn topic(&mut self, bytes: &[u8], place: &mut u32) -> Option<&Rc<str>> {
        if !self.is_at(*place, bytes) {
            let next = self.entries.get(*place as usize).map_or(u32::MAX, |entry| entry.next);
            *place = if self.is_at(next, bytes) { next } else { self.find_behind(*place, bytes)? };
        }
        self.last = *place;
        Some(&self.entries[*place as usize].topic)
    }

    /// What was found for the topic at a place, be it outdated.
    #[inline]
    pub(super) fn targets_at(&self, place: u32) -> Option<&Targets> {
        self.entries.get(place as usize).map(|entry| &*entry.targets)
    }

    #[inline]
    fn is_at(&self, place: u32, topic: &[u8]) -> bool {
        self.entries.get(place as usize).is_some_and(|entry| entry.topic.as_bytes() == topic)
    }

    /// Where a topic is that a client asks for after another one, which is to be known from now on.
    fn find_behind(&mut self, before: u32, topic: &[u8]) -> Option<u32> {
        let found = self.find(topic)?;
        if let Some(before) = self.entries.get_mut(before as usize) {
            before.next = found;
        }
        Some(found)
    }

    /// The targets of `topic`, if they are known and still valid.
    #[inline]
    pub(super) fn get(&mut self, topic: &str, generations: &Generations) -> Option<Rc<Targets>> {
        // The very same text, not only the same characters: that takes no look at them.
        let is_last = self.entries.get(self.last as usize).is_some_and(|entry| std::ptr::eq(&*entry.topic, topic));
        if !is_last {
            self.last = self.find(topic.as_bytes())?;
        }
        let entry = &mut self.entries[self.last as usize];
        if generations.current(entry.watched) != entry.generation {
            return None;
        }
        entry.used = true;
        Some(Rc::clone(&entry.targets))
    }

    fn find(&self, topic: &[u8]) -> Option<u32> {
        let is_topic = |place: &u32| self.entries[*place as usize].topic.as_bytes() == topic;
        self.places.find(self.hash(topic), is_topic).copied()
    }

    fn hash(&self, topic: &[u8]) -> u64 {
        self.hasher.hash_one(topic)
    }

    /// Keeps targets that were found after `generation` had been read.
    pub(super) fn put(&mut self, topic: &str, watched: Watched, generation: u64, targets: Rc<Targets>) {
        let hash = self.hash(topic.as_bytes());
        let is_topic = |place: &u32| *self.entries[*place as usize].topic == *topic;
        if let Ok(outdated) = self.places.find_entry(hash, is_topic) {
            let (outdated, _) = outdated.remove();
            self.bytes -= self.entries.remove(outdated as usize).bytes();
        } else if self.entries.len() >= KEPT_AT_ONCE && !self.seen.before(hash) {
            return;
        }
        let entry = Entry { topic: topic.into(), targets, watched, generation, used: false, next: u32::MAX };
        let bytes = entry.bytes();
        if bytes > BYTES_MAX {
            return;
        }
        if self.entries.len() >= TOPICS_MAX || self.bytes + bytes > BYTES_MAX {
            self.make_room(bytes);
        }
        self.bytes += bytes;
        let place = u32::try_from(self.entries.insert(entry)).expect("there are at most TOPICS_MAX");
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.places.insert_unique(hash, place, |place| hasher.hash_one(entries[*place as usize].topic.as_bytes()));
    }

    /// Drops what was not used since the last time, or everything if that leaves more than half.
    fn make_room(&mut self, bytes: usize) {
        let mut kept = 0;
        self.places.retain(|place| {
            let entry = &mut self.entries[*place as usize];
            let keep = std::mem::take(&mut entry.used);
            if keep {
                kept += entry.bytes();
            } else {
                self.entries.remove(*place as usize);
            }
            keep
        });
        self.bytes = kept;
        if self.entries.len() > TOPICS_MAX / 2 || kept + bytes > BYTES_MAX / 2 {
            self.entries.clear();
            self.places.clear();
            self.bytes = 0;
        }
    }
}

/// Topics that were not kept, as one byte of their hash each: enough to know most of those that come again soon.
#[derive(Default)]
struct Seen(Box<[u8]>);

const SEEN_TOPICS: usize = 1 << 17;

impl Seen {
    /// Whether a topic with this hash was here not long ago; from now on it was.
    fn before(&mut self, hash: u64) -> bool {
        if self.0.is_empty() {
            self.0 = vec![0; SEEN_TOPICS].into_boxed_slice();
        }
        let [tag, place @ ..] = hash.to_be_bytes();
        let place = u32::from_be_bytes([place[0], place[1], place[2], place[3]]) as usize % SEEN_TOPICS;
        // 0 is nobody's.
        std::mem::replace(&mut self.0[place], tag | 1) == tag | 1
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
            for _ in 0..2 {
                cache.put(&topic, watched, generations.current(watched), Rc::clone(&targets));
            }
            assert!(cache.entries.len() <= TOPICS_MAX && cache.bytes <= BYTES_MAX);
            assert!(cache.get("hot", &generations).is_some(), "dropped after {n} other topics");
        }
        assert_eq!(cache.bytes, cache.entries.iter().map(|(_, entry)| entry.bytes()).sum::<usize>());
        assert_eq!(cache.entries.len(), cache.places.len());
    }

    #[test]
    fn topics_that_are_published_to_once_are_not_kept() {
        let generations = Generations::new();
        let (mut cache, targets) = (Cache::new(), targets(1));
        let mut put = |topic: &str| {
            cache.put(topic, generations.watch(topic), 0, Rc::clone(&targets));
            cache.entries.len()
        };
        (0..100_000).for_each(|n| {
            put(&format!("once/{n}"));
        });
        // One byte tells most topics apart, and which ones it does not is a matter of chance.
        let before = put("once/0");
        assert!(before < KEPT_AT_ONCE + 100_000 / 50, "{before}");
        let mut put_all = || (0..100).map(|n| put(&format!("twice/{n}"))).last().unwrap_or(0);
        let once = put_all();
        assert!(once < before + 20, "{before} and then {once}");
        // Of two that share a byte, each makes the other one be forgotten.
        let twice = put_all();
        assert!((before + 80..=before + 100).contains(&twice), "{before} and then {twice}");
    }

    #[test]
    fn a_topic_is_found_by_its_bytes_wherever_it_was_before() {
        let generations = Generations::new();
        let mut cache = Cache::new();
        let (mut first, mut second) = (u32::MAX, 7);
        assert_eq!(cache.topic(b"a", &mut first), None);
        for topic in ["a", "b"] {
            let watched = generations.watch(topic);
            cache.put(topic, watched, generations.current(watched), targets(topic.len() as u32));
        }
        assert_eq!(cache.topic(b"a", &mut first).map(|topic| &**topic), Some("a"));
        assert_eq!(cache.topic(b"b", &mut second).map(|topic| &**topic), Some("b"));
        assert_ne!(first, second);
        // Somebody else's place, and the place of a topic that is gone.
        assert_eq!(cache.topic(b"b", &mut first).map(|topic| &**topic), Some("b"));
        assert_eq!(first, second);
        // What comes after what is a hint, whatever becomes of it.
        let [a, b] = [b"a", b"b"].map(|topic| cache.find(topic).unwrap());
        let mut place = a;
        assert_eq!(cache.topic(b"b", &mut place).map(|topic| &**topic), Some("b"));
        assert_eq!((place, cache.entries[a as usize].next), (b, b));
        cache.entries[a as usize].next = a;
        assert_eq!(cache.topic(b"b", &mut { a }).map(|topic| &**topic), Some("b"));
        assert_eq!(cache.topic(b"c", &mut first), None);
        let known = Rc::clone(cache.topic(b"a", &mut first).unwrap());
        assert!(cache.get(&known, &generations).is_some());
        assert!(cache.get("b", &generations).is_some(), "not that of the topic that was asked for last");
        generations.bump("a");
        assert!(cache.get(&known, &generations).is_none());
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
