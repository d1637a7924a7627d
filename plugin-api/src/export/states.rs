//! What the opaque pointers of an instance and of a connection's state point to.
#![allow(unsafe_code)] // A state is shared with a future that outlives the call, and has one user at a time.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::abi::{RawHost, Verdict};

#[cfg(feature = "async")]
use {
    super::futures::Futures,
    std::fmt,
    std::marker::PhantomData,
    std::ops::{Deref, DerefMut},
    std::sync::Arc,
};

/// What an opaque instance pointer points to.
pub(super) struct Instance<H> {
    #[cfg(not(feature = "async"))]
    pub(super) handler: H,
    /// Futures keep it for as long as they run, which may be longer than the instance.
    #[cfg(feature = "async")]
    pub(super) handler: Arc<H>,
    #[cfg(feature = "async")]
    pub(super) futures: Arc<Futures>,
}

impl<H> Instance<H> {
    #[cfg(not(feature = "async"))]
    pub(super) fn new(handler: H, _: RawHost) -> Self {
        Self { handler }
    }

    #[cfg(feature = "async")]
    pub(super) fn new(handler: H, host: RawHost) -> Self {
        Self { handler: Arc::new(handler), futures: Arc::new(Futures::new(host)) }
    }
}

#[cfg(feature = "async")]
impl<H> Drop for Instance<H> {
    fn drop(&mut self) {
        self.futures.end();
    }
}

/// What an opaque connection pointer points to: always in an `Arc`, since a future may still have the state when the
/// host lets the connection go.
pub(crate) struct Connection<T> {
    whose: AtomicU8,
    state: UnsafeCell<T>,
}

/// The host's: the next call may enter it.
const HOME: u8 = 0;
/// A future's, through its `Lent`.
const AWAY: u8 = 1;
/// Nobody's: it panicked, and nothing of the author's runs on it any more except its `Drop`.
const POISONED: u8 = 2;

// SAFETY: the state is touched by one thread at a time: by a call of the host, which makes one at a time, if it is HOME;
// by the one `Lent` if it is AWAY; and when the last `Arc` is dropped. So `T: Send` is enough.
unsafe impl<T: Send> Sync for Connection<T> {}

impl<T> Connection<T> {
    pub(super) const fn new(state: T) -> Self {
        Self { whose: AtomicU8::new(HOME), state: UnsafeCell::new(state) }
    }

    /// The state, for one call; or the verdict if it cannot be entered.
    ///
    /// # Safety
    /// For as long as the reference is used nobody else calls this, `lend` or the drop.
    #[allow(clippy::mut_from_ref)] // The caller's promise makes it the only reference.
    #[inline]
    pub(super) unsafe fn enter(&self) -> Result<&mut T, Verdict> {
        // Acquire: what a future did with the state came before it gave it back.
        match self.whose.load(Ordering::Acquire) {
            // SAFETY: it is at home, so that no `Lent` exists, and the caller keeps other calls away.
            HOME => Ok(unsafe { &mut *self.state.get() }),
            AWAY => Err(Verdict::AWAY),
            _ => Err(Verdict::POISONED),
        }
    }

    #[cold]
    pub(super) fn poison(&self) {
        self.whose.store(POISONED, Ordering::Release);
    }
}

/// The state of a connection, lent to an asynchronous callback: it is used like `&mut`, and goes back when this is
/// dropped. Until then no other callback of the connection can run.
///
/// Dropping it early is allowed, if what is left to do does not need the state; keeping it for longer than the callback
/// is not worth it: the callbacks that follow are refused.
#[cfg(feature = "async")]
pub struct Lent<T> {
    connection: Arc<Connection<T>>,
    /// It can be shared between threads only if the state can.
    _state: PhantomData<T>,
}

#[cfg(feature = "async")]
impl<T> Lent<T> {
    /// Lends the state out, or says why it cannot be entered.
    pub(super) fn new(connection: Arc<Connection<T>>) -> Result<Self, Verdict> {
        match connection.whose.compare_exchange(HOME, AWAY, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Self { connection, _state: PhantomData }),
            Err(AWAY) => Err(Verdict::AWAY),
            Err(_) => Err(Verdict::POISONED),
        }
    }
}

#[cfg(feature = "async")]
impl<T> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the state is AWAY, and this is the one `Lent`; `&self` and `&mut self` do the rest.
        unsafe { &*self.connection.state.get() }
    }
}

#[cfg(feature = "async")]
impl<T> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: see `deref`.
        unsafe { &mut *self.connection.state.get() }
    }
}

#[cfg(feature = "async")]
impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        // A panic goes through whoever had it: nobody knows what state it is in.
        let whose = if std::thread::panicking() { POISONED } else { HOME };
        // It may have been poisoned already, by the panic of the future that it was taken out of.
        let _ = self.connection.whose.compare_exchange(AWAY, whose, Ordering::Release, Ordering::Relaxed);
    }
}

#[cfg(feature = "async")]
impl<T: fmt::Debug> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&**self).finish()
    }
}
