//! What workers have handed over, on its way to the thread of the store, and how far it is safe: the [`Store`] of a server
//! that has one.
//!
//! The numbers of journals are one order over all workers, and it is the order in which they are written: what is safe is
//! always everything up to a number. The thread takes what waits, all of it at once, writes it, and
//! [says so](Queue::declare_safe). Nothing here waits or does I/O; the lock is held to move a few pointers.

use std::sync::PoisonError;

use super::store::Store;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Bytes that are not safe yet, of all workers together, past which the store [is behind](Store::is_behind).
pub const BEHIND_BYTES: usize = 64 << 20;

/// The same, past which it [is full](Store::is_full). Disks stand still for a second or more now and then, and what clients have
/// on their way is mostly less.
pub const FULL_BYTES: usize = 4 * BEHIND_BYTES;

/// Empty buffers that are kept for the next journals, and what each may hold, in bytes.
const SPARE_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Wakes somebody. May be called on any thread, and does not wait.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// A journal that was handed over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the order of all journals that this store has ever got; the first is 1.
    pub number: u64,
    /// The worker that has handed it over.
    pub worker: u32,
    /// The journal.
    pub journal: Vec<u8>,
}

/// Between the workers and the store's thread. Anybody may hand over; one thread takes, and says what is safe.
pub struct Queue {
    waiting: Mutex<Waiting>,
    /// All journals up to this number are safe; written under the lock.
    safe: AtomicU64,
    /// Bytes of the journals that are not.
    unsafe_bytes: AtomicUsize,
    is_failing: AtomicBool,
    wake_store: Wake,
    wake_workers: Box<[Wake]>,
}

#[derive(Debug)]
struct Waiting {
    /// In the order of their numbers.
    entries: Vec<Entry>,
    /// The number that was given last.
    last: u64,
    /// For each worker the number that it wants to be woken for; 0 if there is none.
    awaited: Box<[u64]>,
    /// Empty, with memory for what comes next.
    spare: Vec<Vec<u8>>,
    /// Behind `entries`, while nothing more is to be taken.
    frozen: Option<Vec<Entry>>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("safe", &self.safe).finish_non_exhaustive()
    }
}

impl Queue {
    /// A queue in which everything up to `safe` is safe already, from earlier runs; 0 if there were none. `wake_store` is
    /// called when something waits where nothing did; `wake_workers`, one for each worker, as [`Store`] says it.
    #[must_use]
    pub fn new(safe: u64, wake_store: Wake, wake_workers: Vec<Wake>) -> Self {
        let awaited = vec![0; wake_workers.len()].into();
        Self {
            waiting: Mutex::new(Waiting { entries: Vec::new(), last: safe, awaited, spare: Vec::new(), frozen: None }),
            safe: AtomicU64::new(safe),
            unsafe_bytes: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
            wake_store,
            wake_workers: wake_workers.into(),
        }
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.wake_workers.len()
    }

    /// Bytes of journals that are not safe yet.
    #[must_use]
    pub fn unsafe_bytes(&self) -> usize {
        self.unsafe_bytes.load(Ordering::Relaxed)
    }

    /// Takes what waits, behind what is in `into`. `false` if there was nothing.
    pub fn take(&self, into: &mut Vec<Entry>) -> bool {
        let mut waiting = self.waiting();
        if waiting.entries.is_empty() {
            return false;
        }
        if into.is_empty() {
            std::mem::swap(&mut waiting.entries, into);
        } else {
            into.append(&mut waiting.entries);
        }
        true
    }

    /// What is handed over from now on is not taken: another process is about to go on with the files. What was handed over before
    /// is.
    pub fn freeze(&self) {
        self.waiting().frozen.get_or_insert_default();
    }

    /// It is, after all.
    pub fn thaw(&self) {
        let mut waiting = self.waiting();
        let mut frozen = waiting.frozen.take().unwrap_or_default();
        let is_first = waiting.entries.is_empty() && !frozen.is_empty();
        waiting.entries.append(&mut frozen);
        drop(waiting);
        if is_first {
            (self.wake_store)();
        }
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.waiting().frozen.is_some()
    }

    /// What was handed over since then, as one journal, for the other process.
    #[must_use]
    pub fn frozen(&self) -> Vec<u8> {
        let waiting = self.waiting();
        waiting.frozen.iter().flatten().flat_map(|entry| entry.journal.iter().copied()).collect()
    }

    /// These, which are the next ones in order, are safe. Their memory is used again.
    pub fn declare_safe(&self, entries: impl IntoIterator<Item = Entry>) {
        let (mut spare, mut bytes, mut number) = (Vec::new(), 0, 0);
        for Entry { number: of_entry, mut journal, .. } in entries {
            (number, bytes) = (of_entry, bytes + journal.len());
            if spare.len() < SPARE_MAX && journal.capacity() <= SPARE_BYTES_MAX {
                journal.clear();
                spare.push(journal);
            }
        }
        if number == 0 {
            return;
        }
        let was_behind = self.is_behind();
        self.unsafe_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut waiting = self.waiting();
        self.safe.store(number, Ordering::Release);
        let room = SPARE_MAX - waiting.spare.len();
        spare.truncate(room);
        waiting.spare.append(&mut spare);
        let mut due = 0_u64;
        for (worker, awaited) in waiting.awaited.iter_mut().enumerate() {
            if (1..=number).contains(awaited) {
                (*awaited, due) = (0, due | 1 << worker);
            }
        }
        drop(waiting);
        if was_behind && !self.is_behind() {
            return self.wake_all();
        }
        let is_due = |worker: &usize| due & 1 << worker != 0;
        (0..self.workers()).filter(is_due).for_each(|worker| (self.wake_workers[worker])());
    }

    /// Says whether what was taken can be written at present.
    pub fn set_failing(&self, is_failing: bool) {
        if self.is_failing.swap(is_failing, Ordering::Relaxed) != is_failing {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        self.wake_workers.iter().for_each(|wake| wake());
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic runs under this lock except allocation, so what waits is still whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Queue {
    fn hand_over(&self, worker: usize, journal: &mut Vec<u8>) -> u64 {
        let mut waiting = self.waiting();
        let empty = waiting.spare.pop().unwrap_or_default();
        let journal = std::mem::replace(journal, empty);
        self.unsafe_bytes.fetch_add(journal.len(), Ordering::Relaxed);
        waiting.last += 1;
        let number = waiting.last;
        let worker = u32::try_from(worker).expect("a server has few workers");
        let entry = Entry { number, worker, journal };
        let is_first = waiting.frozen.is_none() && waiting.entries.is_empty();
        match &mut waiting.frozen {
            Some(frozen) => frozen.push(entry),
            None => waiting.entries.push(entry),
        }
        drop(waiting);
        if is_first {
            (self.wake_store)();
        }
        number
    }

    fn safe_up_to(&self) -> u64 {
        self.safe.load(Ordering::Acquire)
    }

    fn wake_when_safe(&self, worker: usize, number: u64) -> bool {
        if self.safe_up_to() >= number {
            return true;
        }
        let mut waiting = self.waiting();
        let is_safe = self.safe_up_to() >= number;
        waiting.awaited[worker] = if is_safe { 0 } else { number };
        is_safe
    }

    fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    fn is_behind(&self) -> bool {
        self.unsafe_bytes() > BEHIND_BYTES
    }

    fn is_full(&self) -> bool {
        self.unsafe_bytes() > FULL_BYTES
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::sync::Arc;

    use super::*;

    type Rings = Arc<Vec<AtomicUsize>>;

    /// A queue for two workers, with how often the store (the first) and they were woken.
    fn queue() -> (Queue, Rings) {
        let rings: Rings = Arc::new((0..3).map(|_| AtomicUsize::new(0)).collect());
        let bell = |at: usize| -> Wake {
            let rings = Arc::clone(&rings);
            Box::new(move || {
                rings[at].fetch_add(1, Ordering::Relaxed);
            })
        };
        (Queue::new(7, bell(0), vec![bell(1), bell(2)]), Arc::clone(&rings))
    }

    fn rung(rings: &Rings) -> Vec<usize> {
        rings.iter().map(|ring| ring.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn journals_are_numbered_over_all_workers_and_taken_in_order() {
        let (queue, rings) = queue();
        let mut taken = Vec::new();
        assert!(!queue.take(&mut taken));
        assert_eq!((queue.hand_over(1, &mut b"a".to_vec()), queue.hand_over(0, &mut b"bc".to_vec())), (8, 9));
        assert_eq!((queue.safe_up_to(), queue.unsafe_bytes()), (7, 3));
        assert!(queue.take(&mut taken));
        assert_eq!(queue.hand_over(1, &mut b"d".to_vec()), 10);
        assert!(queue.take(&mut taken));
        let entry = |number, worker, journal: &[u8]| Entry { number, worker, journal: journal.to_vec() };
        assert_eq!(taken, [entry(8, 1, b"a"), entry(9, 0, b"bc"), entry(10, 1, b"d")]);
        queue.declare_safe(taken.drain(..2));
        assert_eq!((queue.safe_up_to(), queue.unsafe_bytes()), (9, 1));
        assert_eq!(rung(&rings), [2, 0, 0], "the store where nothing waited, and nobody who did not ask");
    }

    #[test]
    fn what_is_handed_over_to_a_frozen_queue_waits_until_it_is_thawed() {
        let (queue, rings) = queue();
        let mut taken = Vec::new();
        queue.hand_over(0, &mut b"a".to_vec());
        queue.freeze();
        assert_eq!((queue.hand_over(1, &mut b"b".to_vec()), queue.hand_over(0, &mut b"c".to_vec())), (9, 10));
        assert!(queue.take(&mut taken) && taken.len() == 1 && !queue.take(&mut taken));
        assert_eq!((queue.frozen(), rung(&rings)), (b"bc".to_vec(), vec![1, 0, 0]));
        queue.thaw();
        assert!(queue.take(&mut taken) && queue.frozen().is_empty());
        assert_eq!(
            (taken.iter().map(|entry| entry.number).collect::<Vec<_>>(), rung(&rings)),
            (vec![8, 9, 10], vec![2, 0, 0])
        );
        queue.thaw();
        assert_eq!(rung(&rings), [2, 0, 0], "there is nothing new");
    }

    #[test]
    fn worker_is_woken_once_when_what_it_waits_for_is_safe() {
        let (queue, rings) = queue();
        let numbers: Vec<_> = (0..3).map(|worker| queue.hand_over(worker % 2, &mut vec![0])).collect();
        assert!(queue.wake_when_safe(0, 7), "from an earlier run");
        assert!(!queue.wake_when_safe(0, numbers[1]), "another worker's may be what counts");
        assert!(!queue.wake_when_safe(1, numbers[2]));
        let mut taken = Vec::new();
        queue.take(&mut taken);
        queue.declare_safe(taken.drain(..1));
        assert_eq!(rung(&rings), [1, 0, 0]);
        queue.declare_safe(taken.drain(..1));
        assert_eq!(rung(&rings), [1, 1, 0]);
        queue.declare_safe(taken.drain(..));
        assert_eq!(rung(&rings), [1, 1, 1]);
        assert!(queue.wake_when_safe(0, numbers[2]));
        queue.declare_safe(taken.drain(..));
        assert_eq!((queue.safe_up_to(), rung(&rings)), (10, vec![1, 1, 1]));
    }

    #[test]
    fn buffers_come_back_empty_and_large_ones_do_not() {
        let (queue, _) = queue();
        let mut taken = Vec::new();
        for bytes in [10, SPARE_BYTES_MAX + 1] {
            queue.hand_over(0, &mut vec![1; bytes]);
        }
        queue.take(&mut taken);
        queue.declare_safe(taken.drain(..));
        let mut journal = vec![1];
        queue.hand_over(0, &mut journal);
        assert!(journal.is_empty() && (10..=SPARE_BYTES_MAX).contains(&journal.capacity()));
        assert_eq!(queue.waiting().spare.len(), 0);
    }

    #[test]
    fn it_is_full_long_after_it_is_behind() {
        let (queue, _) = queue();
        queue.hand_over(0, &mut vec![0; FULL_BYTES]);
        assert!(queue.is_behind() && !queue.is_full());
        queue.hand_over(1, &mut vec![0]);
        assert!(queue.is_full());
    }

    #[test]
    fn everybody_is_woken_when_the_store_has_caught_up_and_when_it_fails_or_recovers() {
        let (queue, rings) = queue();
        let mut taken = Vec::new();
        queue.hand_over(0, &mut vec![0; BEHIND_BYTES]);
        assert!(!queue.is_behind());
        queue.hand_over(0, &mut vec![0]);
        assert!(queue.is_behind());
        queue.take(&mut taken);
        queue.declare_safe(taken.drain(..1));
        assert!(!queue.is_behind());
        assert_eq!(rung(&rings), [1, 1, 1]);
        for (times, is_failing) in [(2, true), (2, true), (3, false)] {
            queue.set_failing(is_failing);
            assert_eq!((queue.is_failing(), rung(&rings)), (is_failing, vec![1, times, times]));
        }
    }
}
