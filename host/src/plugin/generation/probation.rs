//! Whether an instance that is new fails too often: then the one before decides again.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::Cell;
use crate::plugin::instance::Plugin;
use crate::sync::simple::atomic::{AtomicBool, AtomicU32, Ordering};

/// How many failures an instance may still have before it is rolled back.
#[derive(Default)]
pub(in crate::plugin) struct Probation {
    /// One more than its budget has left; 0: nobody counts.
    left: AtomicU32,
    chain: OnceLock<Weak<Cell>>,
    previous: Mutex<Weak<Plugin>>,
    /// It has not passed: whoever is in its place decides again.
    is_undone: AtomicBool,
}

impl Probation {
    pub(super) fn begin(&self, chain: &Arc<Cell>, budget: u32, previous: &Arc<Plugin>) {
        let _ = self.chain.set(Arc::downgrade(chain));
        *self.previous.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(previous);
        self.left.store(budget.saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.left.store(0, Ordering::Relaxed);
        *self.previous.lock().unwrap_or_else(PoisonError::into_inner) = Weak::new();
    }

    pub(in crate::plugin) fn is_running(&self) -> bool {
        self.left.load(Ordering::Relaxed) != 0
    }

    pub(in crate::plugin) fn errors_left(&self) -> Option<u32> {
        self.left.load(Ordering::Relaxed).checked_sub(1)
    }

    /// It ends with a rollback.
    pub(super) fn undo(&self) {
        // First, so that there is always one of the two.
        self.is_undone.store(true, Ordering::Relaxed);
        self.end();
    }

    /// The instance that decided before, as long as it can come back; and once it has, the one that decides at this place:
    /// the failure that uses up the budget costs no connection either.
    #[cold]
    pub(in crate::plugin) fn previous(&self, index: usize) -> Option<Arc<Plugin>> {
        let previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if previous.is_some() || !self.is_undone.load(Ordering::Relaxed) {
            return previous;
        }
        self.chain.get()?.upgrade()?.state().plan.plugins().get(index).cloned()
    }

    #[cold]
    pub(in crate::plugin) fn count_failure(&self, plugin: &Plugin) {
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if before == Ok(1)
            && let Some(chain) = self.chain.get().and_then(Weak::upgrade)
        {
            chain.has_failed(plugin);
        }
    }
}
