//! Threads that have ended, and those who wait for them.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::lock;

/// Counts the threads that have ended.
#[derive(Default)]
pub(super) struct Ended {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Ended {
    pub(super) fn add_one(&self) {
        *lock(&self.count) += 1;
        self.changed.notify_all();
    }

    /// Waits until `count` threads have ended. `false` if they have not at `deadline`.
    pub(super) fn wait(&self, count: usize, deadline: Option<Instant>) -> bool {
        let mut ended = lock(&self.count);
        while *ended < count {
            let patience = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if patience.is_zero() {
                return false;
            }
            ended = self.changed.wait_timeout(ended, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
