//! The standard library's types, noting which cache lines a thread writes while it is watched.
//!
//! A line that several cores write goes from one to the other each time, so what is on the way of every message must not
//! write one. Taking a lock is a write, to read as well.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::{LockResult, MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// Bytes that processors keep together.
const LINE_BYTES: usize = 64;

/// How often each line was written, and where from, last.
pub(crate) type Lines = BTreeMap<usize, (u64, &'static Location<'static>)>;

thread_local! {
    static LINES: RefCell<Option<Lines>> = const { RefCell::new(None) };
}

/// The lines that this thread writes while it runs something.
pub(crate) fn lines_of(run: impl FnOnce()) -> Lines {
    LINES.set(Some(Lines::new()));
    run();
    LINES.take().expect("nothing else takes them")
}

#[track_caller]
fn note<T>(place: &T) {
    let here = Location::caller();
    LINES.with_borrow_mut(|lines| {
        let Some(lines) = lines else { return };
        let line = std::ptr::from_ref(place).addr() / LINE_BYTES;
        lines.entry(line).or_insert((0, here)).0 += 1;
    });
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        note(self);
        self.0.lock()
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }

    #[track_caller]
    pub(crate) fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        note(self);
        self.0.read()
    }

    #[track_caller]
    pub(crate) fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        note(self);
        self.0.write()
    }
}

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::Ordering;
    pub(crate) use std::sync::atomic::fence;

    use super::note;

    macro_rules! atomics {
        ($($name:ident: $value:ty { $($method:ident)* })*) => {$(
            #[derive(Debug, Default)]
            pub(crate) struct $name(std::sync::atomic::$name);

            #[allow(dead_code, reason = "the standard library has them, whether anybody needs them now or not")]
            impl $name {
                pub(crate) const fn new(value: $value) -> Self {
                    Self(std::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.0.load(order)
                }

                #[track_caller]
                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    note(self);
                    self.0.store(value, order);
                }

                $(
                    #[track_caller]
                    pub(crate) fn $method(&self, value: $value, order: Ordering) -> $value {
                        note(self);
                        self.0.$method(value, order)
                    }
                )*

                #[track_caller]
                pub(crate) fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    note(self);
                    self.0.compare_exchange(current, new, success, failure)
                }

                #[track_caller]
                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    update: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    note(self);
                    self.0.fetch_update(set, fetch, update)
                }
            }
        )*};
    }

    atomics! {
        AtomicBool: bool { swap fetch_or fetch_and }
        AtomicU32: u32 { swap fetch_add fetch_sub fetch_or fetch_and }
        AtomicU64: u64 { swap fetch_add fetch_sub fetch_or fetch_and fetch_max }
        AtomicUsize: usize { swap fetch_add fetch_sub }
    }
}

#[cfg(test)]
mod tests {
    use super::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
    use super::*;

    #[test]
    fn what_is_written_is_noted_and_what_is_read_is_not() {
        #[repr(align(64))]
        #[derive(Default)]
        struct Line<T>(T);
        let (one, other, lock) =
            (Line::<AtomicU64>::default(), Line::<AtomicU32>::default(), Line::<RwLock<()>>::default());
        let count = |run: &dyn Fn()| lines_of(run).values().map(|(count, _)| *count).collect::<Vec<_>>();
        assert_eq!(count(&|| _ = one.0.load(Relaxed)), Vec::<u64>::new());
        assert_eq!(count(&|| _ = one.0.fetch_add(1, Relaxed) + one.0.swap(2, Relaxed)), [2]);
        assert_eq!(count(&|| other.0.store(one.0.load(Relaxed) as u32, Relaxed)), [1]);
        assert_eq!(count(&|| drop(lock.0.read())), [1]);
        one.0.store(3, Relaxed);
        assert_eq!((one.0.load(Relaxed), other.0.load(Relaxed)), (3, 2), "nobody watches");
    }
}
