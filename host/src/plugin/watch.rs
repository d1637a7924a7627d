//! The watchdog: sees a call that takes too long while it still runs.
//!
//! A worker notes in its [`Seat`] what it calls: a store before the call and one after it. No clock is read on that way: the
//! watchdog's thread looks at the seats at fixed intervals, and a call that it finds again and again has lasted as long as
//! that. What it cannot help it names: plugin, callback, client.

use crate::sync::simple::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence,
};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::stats::{Entry, Kind, Monitor, Policy};
use crate::limits::{Limits, Stuck};

/// How often the watchdog looks: in this part of the budget, within the bounds below.
const LOOKS_A_BUDGET: u32 = 2;
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// Bytes of a Client Identifier that the watchdog knows; the rest is cut off.
const CLIENT_BYTES: usize = 64;

/// Bits of [`Seat::call`] for the callback and the plugin; the rest says how many calls of this callback were counted before
/// it, so that two of them are not taken for one.
const ENTRY_BITS: u32 = 6;
const PLUGIN_BITS: u32 = 24;
/// No call.
const NOTHING: u64 = 0;

thread_local! {
    /// Where this thread notes its calls; `None` if it is no worker.
    static SEAT: Cell<Option<&'static Seat>> = const { Cell::new(None) };
}

/// What one worker does, for the watchdog. Written by the worker only.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct Seat {
    worker: usize,
    /// The thread's number for the operating system.
    thread: AtomicU32,
    /// Which call, plugin and callback; [`NOTHING`] between calls.
    call: AtomicU64,
    /// Whose name is noted.
    connection: AtomicU64,
    /// Its Client Identifier: bytes, eight in each, and how many.
    client: [AtomicU64; CLIENT_BYTES / 8],
    client_bytes: AtomicU64,
}

impl Seat {
    #[inline]
    pub(super) fn worker(&self) -> usize {
        self.worker
    }

    /// A call begins: it is the `nth` one of this callback. `anew`: the name of the connection's client may have changed.
    #[inline]
    pub(super) fn enter(&self, monitor: &Monitor, entry: Entry, nth: u64, connection: u64, who: &str, anew: bool) {
        if anew || self.connection.load(Relaxed) != connection {
            self.note(if anew { 0 } else { connection }, who);
        }
        let what = u64::from(monitor.number()) << ENTRY_BITS | u64::from(entry.number() + 1);
        self.call.store(nth << (ENTRY_BITS + PLUGIN_BITS) | what, Release);
    }

    /// The call has returned.
    #[inline]
    pub(super) fn leave(&self) {
        self.call.store(NOTHING, Relaxed);
    }

    #[cold]
    fn note(&self, connection: u64, who: &str) {
        // Whoever reads what follows sees that the last call is over.
        fence(Release);
        self.connection.store(connection, Relaxed);
        let bytes = &who.as_bytes()[..who.len().min(CLIENT_BYTES)];
        self.client_bytes.store(bytes.len() as u64, Relaxed);
        for (word, part) in self.client.iter().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..part.len()].copy_from_slice(part);
            word.store(u64::from_ne_bytes(eight), Relaxed);
        }
    }

    /// The call that runs, if one does: the whole word, to be compared, and its parts.
    fn running(&self) -> Option<(u64, u32, Entry)> {
        let call = self.call.load(Acquire);
        let entry = call & ((1 << ENTRY_BITS) - 1);
        let plugin = call >> ENTRY_BITS & ((1 << PLUGIN_BITS) - 1);
        (entry != NOTHING).then(|| (call, plugin as u32, Entry::from_number(entry as u8 - 1)))
    }

    /// The client whose call it is, unless the call has ended meanwhile.
    fn client(&self, call: u64) -> Option<String> {
        let words = self.client.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes());
        let bytes: Vec<u8> = words.take(self.client_bytes.load(Relaxed) as usize).collect();
        fence(Acquire);
        let is_same = self.call.load(Relaxed) == call;
        is_same.then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The worker of a seat in the pool.
const NO_WORKER: usize = usize::MAX;

#[derive(Default)]
struct PoolSeats {
    all: Vec<&'static Seat>,
    free: Vec<&'static Seat>,
}

/// The seat of a thread of the pool.
pub(super) struct PoolSeat {
    watch: Arc<Watch>,
    seat: &'static Seat,
}

impl Drop for PoolSeat {
    fn drop(&mut self) {
        SEAT.set(None);
        lock(&self.watch.pool).free.push(self.seat);
    }
}

/// The watchdog of a server, and what it needs to know. Dropping it ends its thread.
pub struct Watch {
    policy: Policy,
    /// Never freed: a thread of a worker that does not return may outlive the server.
    seats: Box<[&'static Seat]>,
    /// Those of the pool's threads; one that is left is taken again.
    pool: Mutex<PoolSeats>,
    monitors: Mutex<HashMap<u32, Weak<Monitor>>>,
    next_monitor: AtomicU32,
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    /// The watchdog for this many workers. It looks at nothing before [`Watch::start`].
    #[must_use]
    pub fn new(workers: usize, limits: &Limits) -> Arc<Self> {
        let seat = |worker| &*Box::leak(Box::new(Seat { worker, ..Seat::default() }));
        Arc::new(Self {
            policy: limits.into(),
            seats: (0..workers).map(seat).collect(),
            pool: Mutex::default(),
            monitors: Mutex::default(),
            next_monitor: AtomicU32::new(1),
            stop: Arc::default(),
            thread: Mutex::default(),
        })
    }

    /// Makes the calling thread that of a worker: its calls are seen, and counted in a slot of its own. Only one thread may
    /// do so for each worker.
    pub fn sit(&self, worker: usize) {
        if let Some(seat) = self.seats.get(worker) {
            seat.thread.store(rustix::thread::gettid().as_raw_pid().unsigned_abs(), Relaxed);
            SEAT.set(Some(seat));
        }
    }

    /// Makes the calling thread one of the pool's, until what is returned is dropped: what does not return there is seen.
    pub(super) fn sit_in_pool(self: &Arc<Self>) -> PoolSeat {
        let mut pool = lock(&self.pool);
        let seat = pool.free.pop().unwrap_or_else(|| {
            let seat = &*Box::leak(Box::new(Seat { worker: NO_WORKER, ..Seat::default() }));
            pool.all.push(seat);
            seat
        });
        SEAT.set(Some(seat));
        PoolSeat { watch: Arc::clone(self), seat }
    }

    /// The seat of the calling thread.
    #[inline]
    pub(super) fn seat() -> Option<&'static Seat> {
        SEAT.get()
    }

    /// A monitor for one more generation of a plugin.
    pub(super) fn monitor(&self, plugin: &str, kind: Kind) -> Arc<Monitor> {
        let number = self.next_monitor.fetch_add(1, Relaxed) % (1 << PLUGIN_BITS);
        let monitor = Arc::new(Monitor::new(number, plugin, kind, self.seats.len(), self.policy.clone()));
        let mut monitors = lock(&self.monitors);
        monitors.retain(|_, monitor| monitor.strong_count() > 0);
        monitors.insert(number, Arc::downgrade(&monitor));
        monitor
    }

    /// Starts to look. Does nothing where neither a budget nor a bound is set.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(self: &Arc<Self>, name: &str) -> std::io::Result<()> {
        let bounds = [self.policy.budget, self.policy.stuck_after].into_iter().filter(|bound| !bound.is_zero());
        let Some(least) = bounds.min() else { return Ok(()) };
        let every = (least / LOOKS_A_BUDGET).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
        // The thread must not keep the watchdog, which ends it when it is dropped.
        let (watch, stop) = (Arc::downgrade(self), Arc::clone(&self.stop));
        let thread = std::thread::Builder::new().name(format!("{name}-watch")).spawn(move || {
            let mut looks = Vec::new();
            let mut before = Instant::now();
            while !is_stopped_within(&stop, every) {
                let Some(watch) = watch.upgrade() else { return };
                let now = Instant::now();
                // If this thread did not run, who is looked at may not have run either.
                let passed = now.saturating_duration_since(std::mem::replace(&mut before, now)).min(every * 2);
                watch.look(&mut looks, passed);
            }
        })?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// Looks at every seat once. `passed`: the time since it was last done.
    fn look(&self, looks: &mut Vec<Look>, passed: Duration) {
        let seats: Vec<&'static Seat> = self.seats.iter().chain(&lock(&self.pool).all).copied().collect();
        looks.resize_with(seats.len(), Look::default);
        for (seat, look) in seats.into_iter().zip(looks) {
            let running = seat.running();
            if look.call != running.map_or(NOTHING, |(call, ..)| call) {
                look.report_end(seat.worker);
                *look = Look { call: running.map_or(NOTHING, |(call, ..)| call), ..Look::default() };
                look.waited = running.and_then(|_| waited(seat));
                continue;
            }
            let Some((call, plugin, entry)) = running else { continue };
            look.lasted += passed;
            let monitor = lock(&self.monitors).get(&plugin).and_then(Weak::upgrade);
            if let Some(monitor) = monitor {
                self.judge(seat, look, call, &monitor, entry);
            }
        }
    }

    fn judge(&self, seat: &Seat, look: &mut Look, call: u64, monitor: &Monitor, entry: Entry) {
        let Policy { budget, stuck_after, stuck, .. } = &self.policy;
        let (plugin, callback) = (monitor.plugin(), entry.name());
        let is_worker = seat.worker != NO_WORKER;
        if is_worker && look.overstayed.is_none() && !budget.is_zero() && look.lasted >= *budget {
            // A busy machine lets threads wait that would have returned long ago.
            let kept_waiting = waited(seat).zip(look.waited).map(|(now, then)| now.saturating_sub(then));
            if look.lasted.saturating_sub(kept_waiting.unwrap_or_default()) < *budget {
                return;
            }
            let Some(client_id) = seat.client(call) else { return };
            let (worker, ms) = (seat.worker, look.lasted.as_millis());
            let then = if monitor.overstayed(entry) { ". From now on it runs on the pool" } else { "" };
            tracing::warn!(
                plugin,
                callback,
                client_id,
                worker,
                ms,
                "a callback holds up all clients of its worker{then}"
            );
            look.overstayed = Some((plugin.to_owned(), callback));
        }
        if !look.is_stuck && !stuck_after.is_zero() && look.lasted >= *stuck_after {
            let Some(client_id) = seat.client(call) else { return };
            look.is_stuck = true;
            let (worker, secs) = (is_worker.then_some(seat.worker), look.lasted.as_secs());
            tracing::error!(plugin, callback, client_id, worker, secs, "a callback does not return");
            // On the pool it holds up nobody but its own connection.
            if is_worker && *stuck == Stuck::Abort {
                tracing::error!("callback_stuck is abort: the process ends");
                std::process::abort();
            }
        }
    }
}

/// What the watchdog knows of one seat.
#[derive(Default)]
struct Look {
    call: u64,
    /// For how long the call has been seen.
    lasted: Duration,
    /// How long its thread had waited for a processor when the call was seen first.
    waited: Option<Duration>,
    /// Who has been told to overstay.
    overstayed: Option<(String, &'static str)>,
    is_stuck: bool,
}

impl Look {
    fn report_end(&self, worker: usize) {
        if let Some((plugin, callback)) = &self.overstayed {
            let ms = self.lasted.as_millis();
            tracing::warn!(plugin, callback, worker, ms, "a callback that had held up its worker has returned");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (stopped, changed) = &*self.stop;
        *lock(stopped) = true;
        changed.notify_all();
        let thread = lock(&self.thread).take();
        // It is this very thread if the watchdog held the last reference.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("seats", &self.seats.len()).finish_non_exhaustive()
    }
}

/// Waits, unless the watchdog is stopped meanwhile.
fn is_stopped_within((stopped, changed): &(Mutex<bool>, Condvar), wait: Duration) -> bool {
    let stopped = lock(stopped);
    *stopped || *changed.wait_timeout(stopped, wait).unwrap_or_else(PoisonError::into_inner).0
}

/// How long a seat's thread has been ready to run without a processor, ever. `None` if the kernel does not say.
fn waited(seat: &Seat) -> Option<Duration> {
    let file = format!("/proc/self/task/{}/schedstat", seat.thread.load(Relaxed));
    let text = std::fs::read_to_string(file).ok()?;
    // Time on a processor, time spent waiting for one, number of turns.
    text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// What is locked here is whole after each statement, so a poisoned lock says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use plugin_api::Callback;

    use super::*;

    const PUBLISH: Entry = Entry::of(Callback::Publish);

    fn overstays(monitor: &Monitor) -> u64 {
        monitor.callbacks().iter().map(|stats| stats.overstays).sum()
    }

    #[test]
    fn a_call_that_is_seen_again_and_again_overstays_once() {
        let limits = Limits { callback_budget: Duration::from_millis(100), ..Limits::default() };
        let watch = Watch::new(2, &limits);
        let (monitor, seat, mut looks) = (watch.monitor("p", Kind::default()), watch.seats[1], Vec::new());
        let mut look = |ms| watch.look(&mut looks, Duration::from_millis(ms));
        let enter = |monitor: &Monitor| {
            let (nth, _) = monitor.count_call(Some(seat), PUBLISH);
            seat.enter(monitor, PUBLISH, nth, 7, "somebody", false);
        };
        look(50);
        // Many calls that return are none that lasts.
        for _ in 0..10 {
            enter(&monitor);
            look(50);
            seat.leave();
        }
        enter(&monitor);
        look(50);
        look(50);
        assert_eq!(overstays(&monitor), 0, "seen first 50 ms ago");
        look(50);
        assert_eq!(overstays(&monitor), 1);
        look(10_000);
        assert_eq!(overstays(&monitor), 1);
        seat.leave();
        look(50);
        look(50);
        enter(&monitor);
        look(50);
        look(100);
        assert_eq!(overstays(&monitor), 2);
        // The plugin may be gone while its call is still there.
        drop(monitor);
        look(100);
    }

    #[test]
    fn no_budget_is_no_bound() {
        let limits = Limits { callback_budget: Duration::ZERO, ..Limits::default() };
        let watch = Watch::new(1, &limits);
        let (monitor, mut looks) = (watch.monitor("p", Kind::default()), Vec::new());
        let (nth, _) = monitor.count_call(Some(watch.seats[0]), PUBLISH);
        watch.seats[0].enter(&monitor, PUBLISH, nth, 7, "somebody", false);
        for _ in 0..3 {
            watch.look(&mut looks, Duration::from_secs(3600));
        }
        assert_eq!(overstays(&monitor), 0);
    }

    #[test]
    fn the_client_of_a_call_is_known_while_it_lasts() {
        let watch = Watch::new(1, &Limits::default());
        let (monitor, seat) = (watch.monitor("p", Kind::default()), watch.seats[0]);
        let long = "x".repeat(100);
        for (connection, who, anew, expected) in [
            (1, "", true, ""),
            (1, "a client", true, "a client"),
            (1, "renamed", false, "renamed"),
            // One connection's client keeps its name, so that it is copied once.
            (1, "not looked at", false, "renamed"),
            (2, "exactly8", false, "exactly8"),
            (3, long.as_str(), false, &long[..CLIENT_BYTES]),
            (4, "naïve", false, "naïve"),
        ] {
            seat.enter(&monitor, PUBLISH, 0, connection, who, anew);
            let (call, plugin, entry) = seat.running().expect("a call");
            assert_eq!((plugin, entry), (monitor.number(), PUBLISH));
            assert_eq!(seat.client(call).as_deref(), Some(expected));
            seat.leave();
            assert_eq!((seat.running(), seat.client(call)), (None, None));
        }
    }

    #[test]
    fn the_thread_ends_with_the_watchdog() {
        let watch = Watch::new(1, &Limits::default());
        watch.start("test").expect("a thread");
        let stop = Arc::clone(&watch.stop);
        drop(watch);
        assert_eq!(Arc::strong_count(&stop), 1, "joined");
    }
}
