//! A store for tests, which says that something is safe when the test does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Store;

/// Keeps journals in memory.
#[derive(Debug, Default)]
pub(crate) struct FakeStore {
    journals: Mutex<Vec<(usize, Vec<u8>)>>,
    safe: AtomicU64,
    is_failing: AtomicBool,
    is_behind: AtomicBool,
}

impl FakeStore {
    /// What was handed over, in order: by whom, and what. The first has number 1.
    pub(crate) fn journals(&self) -> Vec<(usize, Vec<u8>)> {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many journals were handed over, which is the number of the last one.
    pub(crate) fn last(&self) -> u64 {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// From now on, everything up to `number` is safe.
    pub(crate) fn make_safe(&self, number: u64) {
        self.safe.fetch_max(number, Ordering::Release);
    }

    /// From now on, everything that has been handed over is safe.
    pub(crate) fn make_all_safe(&self) {
        self.make_safe(self.last());
    }

    /// From now on, it fails, or works again.
    pub(crate) fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::Release);
    }

    /// From now on, it is behind, or is not.
    pub(crate) fn set_behind(&self, is_behind: bool) {
        self.is_behind.store(is_behind, Ordering::Release);
    }
}

impl Store for FakeStore {
    fn hand_over(&self, worker: usize, journal: &mut Vec<u8>) -> u64 {
        assert!(!journal.is_empty(), "an empty journal promises nothing");
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.push((worker, std::mem::take(journal)));
        journals.len() as u64
    }

    fn safe_up_to(&self) -> u64 {
        self.safe.load(Ordering::Acquire)
    }

    fn wake_when_safe(&self, _worker: usize, number: u64) -> bool {
        self.safe_up_to() >= number
    }

    fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Acquire)
    }

    fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Acquire)
    }

    fn is_full(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_the_test_says() {
        let store = FakeStore::default();
        let journal = &mut b"changes".to_vec();
        assert_eq!((store.hand_over(1, journal), journal.len()), (1, 0));
        assert_eq!(store.journals(), [(1, b"changes".to_vec())]);
        assert_eq!((store.last(), store.safe_up_to(), store.is_failing(), store.is_behind()), (1, 0, false, false));
        store.make_all_safe();
        store.make_safe(0);
        store.set_failing(true);
        store.set_behind(true);
        assert_eq!((store.safe_up_to(), store.is_failing(), store.is_behind()), (1, true, true));
    }
}
