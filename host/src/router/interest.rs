//! What the workers know of each other's subscriptions: which worker a message goes to, which groups share it, and
//! when what a worker remembers has become outdated.

use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError};

use foldhash::fast::RandomState;

use super::SessionKey;
use super::shared::{Group, Groups, Joined, Left, Member};
use super::trie::{Trie, Value, levels};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Most workers of one server: they are bits of a `u64`.
pub const WORKERS_MAX: usize = 64;

/// The subscriptions of all workers, as far as the others must know them: Topic Filter → workers, and the members of
/// every Shared Subscription.
///
/// It is the one structure of the router that workers share, behind one lock. A publish whose targets are cached only
/// reads four counters; the lock is taken when they are not cached (shared), when a worker's first subscription to a
/// filter comes or its last one goes, and when a Shared Subscription comes, changes or goes (exclusive).
///
/// Order: a change is visible in the index before the generations move, and a worker reads the generations before it
/// searches the index. So whatever a worker keeps, it finds outdated if it missed a change.
pub struct Interest {
    workers: usize,
    index: RwLock<Trie<Place>>,
    generations: Generations,
    /// Numbers for groups.
    next_group: AtomicU64,
}

/// Who wants the messages of one Topic Filter.
#[derive(Default)]
struct Place {
    workers: u64,
    groups: Groups,
}

impl Value for Place {
    fn is_vacant(&self) -> bool {
        self.workers == 0 && self.groups.is_empty()
    }
}

impl Interest {
    /// An index for a server of `workers` workers.
    ///
    /// # Panics
    /// If `workers` is 0 or greater than [`WORKERS_MAX`].
    #[must_use]
    pub fn new(workers: usize) -> Self {
        assert!((1..=WORKERS_MAX).contains(&workers), "a server has 1 to {WORKERS_MAX} workers, not {workers}");
        Self {
            workers,
            index: RwLock::new(Trie::new()),
            generations: Generations::new(),
            next_group: AtomicU64::new(1),
        }
    }

    /// The number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    pub(super) fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Says whether `worker` has any plain subscription to `filter`. Does not move the generations.
    pub(super) fn set_worker(&self, worker: usize, filter: &str, wants: bool) {
        if self.workers == 1 {
            return; // There is nobody who could ask.
        }
        let mut index = self.write();
        if wants {
            let place = index.insert(filter);
            index.value_mut(place).workers |= 1 << worker;
        } else if let Some(place) = index.find(filter) {
            index.value_mut(place).workers &= !(1 << worker);
            index.prune(place);
        }
    }

    /// Adds a member to a group.
    pub(super) fn join(&self, share_name: &str, filter: &str, member: Member) -> Joined {
        let new = NonZeroU64::new(self.next_group.fetch_add(1, Ordering::Relaxed)).expect("starts at 1");
        let mut index = self.write();
        let place = index.insert(filter);
        index.value_mut(place).groups.join(new, share_name, filter, member)
    }

    /// Removes a member from a group. `None` if it was none.
    pub(super) fn leave(&self, share_name: &str, filter: &str, worker: usize, session: SessionKey) -> Option<Left> {
        let mut index = self.write();
        let place = index.find(filter)?;
        let left = index.value_mut(place).groups.leave(share_name, worker, session);
        index.prune(place);
        left
    }

    /// The other workers that want the messages of `topic`, the groups that share them, and how many places of the index
    /// and groups were found on the way.
    pub(super) fn find(&self, topic: &str, own_worker: usize) -> (u64, Box<[Arc<Group>]>, usize) {
        let mut workers = 0;
        let mut groups = Vec::new();
        let searched = self.read().for_each_match(topic, |place| {
            workers |= place.workers;
            place.groups.append_to(&mut groups);
        });
        let searched = searched + groups.len();
        (workers & !(1 << own_worker), groups.into_boxed_slice(), searched)
    }

    fn read(&self) -> RwLockReadGuard<'_, Trie<Place>> {
        // Only a panic of ours in the trie could poison it; the other workers are better served than stopped.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Trie<Place>> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn nodes(&self) -> (usize, usize) {
        self.read().nodes()
    }
}

/// Counters that only grow. A filter moves one of them, and a topic depends on the four that filters matching it move:
/// those of its first three levels, of the first two and of the first, and that of filters which start with a wildcard.
///
/// With more levels than one, a subscription does not make everything outdated where all topics start alike: those to
/// `site/7/…` come and go while messages of `site/8/…` find what they had found.
pub(super) struct Generations {
    any: AtomicU64,
    first: Box<[AtomicU64; FIRST_LEVELS]>,
    second: Box<[AtomicU64; LEVELS]>,
    third: Box<[AtomicU64; LEVELS]>,
    hasher: RandomState,
}

// Which one a topic has depends on a random key, and loom wants the same from each run.
const FIRST_LEVELS: usize = if cfg!(all(test, feature = "loom")) { 1 } else { 256 };
const LEVELS: usize = if cfg!(all(test, feature = "loom")) { 1 } else { 1024 };

/// Which counters a topic depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watched {
    first: u8,
    second: u16,
    third: u16,
}

impl Generations {
    pub(super) fn new() -> Self {
        Self {
            any: AtomicU64::new(0),
            first: Box::new(std::array::from_fn(|_| AtomicU64::new(0))),
            second: Box::new(std::array::from_fn(|_| AtomicU64::new(0))),
            third: Box::new(std::array::from_fn(|_| AtomicU64::new(0))),
            hasher: RandomState::default(),
        }
    }

    /// The counters that `topic` depends on.
    pub(super) fn watch(&self, topic: &str) -> Watched {
        let mut levels = levels(topic);
        self.bucket(std::array::from_fn(|_| levels.next().unwrap_or_default()))
    }

    /// The sum of the counters of `watched`: as each only grows, it stays the same only if none of them moves.
    #[inline]
    pub(super) fn current(&self, watched: Watched) -> u64 {
        self.any.load(Ordering::Acquire)
            + self.first[usize::from(watched.first)].load(Ordering::Acquire)
            + self.second[usize::from(watched.second)].load(Ordering::Acquire)
            + self.third[usize::from(watched.third)].load(Ordering::Acquire)
    }

    /// Makes outdated what was found for topics that `filter` may match.
    pub(super) fn bump(&self, filter: &str) {
        // Up to its first wildcard every topic that it matches has these levels, and `a/#` matches `a` as well.
        let mut literal = levels(filter).take_while(|level| !matches!(*level, "+" | "#"));
        let literal: [Option<&str>; 3] = std::array::from_fn(|_| literal.next());
        let counters = self.bucket(literal.map(Option::unwrap_or_default));
        let counter = match literal {
            [None, ..] => &self.any,
            [_, None, _] => &self.first[usize::from(counters.first)],
            [_, _, None] => &self.second[usize::from(counters.second)],
            [_, _, Some(_)] => &self.third[usize::from(counters.third)],
        };
        counter.fetch_add(1, Ordering::Release);
    }

    fn bucket(&self, levels: [&str; 3]) -> Watched {
        let mut hasher = self.hasher.build_hasher();
        let [first, second, third] = levels.map(|level| {
            hasher.write(level.as_bytes());
            hasher.finish()
        });
        Watched {
            first: (first % FIRST_LEVELS as u64) as u8,
            second: (second % LEVELS as u64) as u16,
            third: (third % LEVELS as u64) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_moves_what_it_may_match_and_little_else() {
        let generations = Generations::new();
        let check = |filter: &str, matched: &[&str], left_alone: &[&str]| {
            let read = |topics: &[&str]| -> Vec<u64> {
                topics.iter().map(|topic| generations.current(generations.watch(topic))).collect()
            };
            let (before_matched, before_alone) = (read(matched), read(left_alone));
            generations.bump(filter);
            for (before, after) in before_matched.iter().zip(read(matched)) {
                assert!(*before < after, "{filter} {matched:?}");
            }
            assert_eq!(before_alone, read(left_alone), "{filter} {left_alone:?}");
        };
        // Which topics share a counter depends on a random key: the ones left alone are tried until they do not.
        let apart = |topic: &str, prefix: &str| -> String {
            (0..)
                .map(|n| format!("{prefix}{n}"))
                .find(|other| {
                    let (a, b) = (generations.watch(topic), generations.watch(other));
                    let levels = prefix.matches('/').count();
                    a.third != b.third && (levels == 2 || a.second != b.second) && (levels > 0 || a.first != b.first)
                })
                .expect("there are more names than counters")
        };
        let (cousin, sibling, stranger) = (apart("a/b/c", "a/b/x"), apart("a/b/c", "a/x"), apart("a/b/c", "x"));
        check("a/b/c", &["a/b/c"], &[&cousin, &sibling, &stranger]);
        check("a/b/c/+", &["a/b/c/d"], &[&cousin, &sibling, &stranger]);
        check("a/b/c/#", &["a/b/c", "a/b/c/d/e"], &[&cousin, &sibling, &stranger]);
        check("a/b", &["a/b"], &[&sibling, &stranger]);
        check("a/b/#", &["a/b", "a/b/c", &cousin], &[&sibling, &stranger]);
        check("a/b/+/d", &["a/b/c/d"], &[&sibling, &stranger]);
        check("a/#", &["a", "a/b", "a/b/c", &sibling], &[&stranger]);
        check("a/+", &["a/b", &sibling], &[&stranger]);
        check("a/+/c", &["a/b/c", &sibling], &[&stranger]);
        check("a", &["a"], &[&stranger]);
        for filter in ["#", "+", "+/b", "+/+/#"] {
            check(filter, &["a", "a/b", "a/b/c", &sibling, &stranger], &[]);
        }
    }

    #[test]
    #[should_panic(expected = "a server has 1 to 64 workers, not 65")]
    fn more_workers_than_bits_are_refused() {
        let _ = Interest::new(65);
    }
}
