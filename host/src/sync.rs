//! What threads share state with: the standard library's types; those of `loom` where the interleavings are tested; and in
//! all other tests types that note who writes where.

#[cfg(all(test, not(feature = "loom")))]
pub(crate) mod written;

#[cfg(not(test))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};

#[cfg(all(test, feature = "loom"))]
pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};

#[cfg(all(test, not(feature = "loom")))]
pub(crate) use std::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
#[cfg(all(test, not(feature = "loom")))]
pub(crate) use written::{Mutex, RwLock, atomic};

/// Atomics that one thread writes, or whose order does not matter: there is nothing about them for `loom` to find out.
pub(crate) mod simple {
    #[cfg(any(not(test), feature = "loom"))]
    pub(crate) use std::sync::atomic;

    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) use super::written::atomic;
}

/// Runs something in all orders in which its threads are interrupted at most so often.
#[cfg(all(test, feature = "loom"))]
pub(crate) fn interleave(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}
