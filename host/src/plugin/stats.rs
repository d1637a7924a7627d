//! What is known of one generation of a plugin: how often each of its functions was called and how that ended, exactly, how
//! long it took, now and then; and whether it is called as usual.
//!
//! Each worker writes into a slot of its own, so that counting takes no more than a load and a store; threads that are no
//! workers share one more. Two clock readings for each call would cost more than the call: one in [`SAMPLED_EVERY`] is timed.

use crate::sync::simple::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use plugin_api::{Callback, Callbacks};
use serde_json::{Value, json};

use super::watch::{Seat, Watch};
use crate::limits::{Limits, Overstay, Quarantine, Stuck};

/// Of how many calls on one thread one is timed, the first of them included.
const SAMPLED_EVERY: u64 = 256;

#[inline]
fn is_timed(calls_before: u64) -> bool {
    calls_before.is_multiple_of(SAMPLED_EVERY)
}

/// What can be called: the callbacks by their numbers, which stay below 28, and four that are none.
const ENTRIES: usize = 32;

/// Times from 2^0 ns to 2^40 ns, which are 18 minutes; longer ones are counted as the longest.
const TIME_BUCKETS: usize = 41;

/// A function of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u8);

impl Entry {
    /// An answer of the host's that was asked for.
    pub(super) const ANSWER: Self = Self(26);
    /// `init`.
    pub(super) const INIT: Self = Self(27);
    /// `cancelled`: nobody waits for an answer any more.
    pub(super) const CANCELLED: Self = Self(28);
    /// The drop of the instance, which is the last call.
    pub(super) const DROP_INSTANCE: Self = Self(29);
    /// `new_connection`.
    pub(super) const NEW_CONNECTION: Self = Self(30);
    /// The drop of a connection's state.
    pub(super) const DROP_CONNECTION: Self = Self(31);

    #[inline]
    pub(super) const fn of(callback: Callback) -> Self {
        Self(callback as u8)
    }

    /// Whether it may answer later: where there is something to wait with.
    #[inline]
    pub(super) const fn may_defer(self) -> bool {
        const SET: u64 = Entry::of(Callback::Connect).bit()
            | Entry::of(Callback::Auth).bit()
            | Entry::of(Callback::Publish).bit()
            | Entry::of(Callback::Subscribe).bit()
            | Entry::of(Callback::Unsubscribe).bit()
            | Entry::of(Callback::Info).bit();
        SET & self.bit() != 0
    }

    pub(super) const fn from_number(number: u8) -> Self {
        Self(number & 31)
    }

    #[inline]
    pub(super) const fn number(self) -> u8 {
        self.0
    }

    #[inline]
    const fn index(self) -> usize {
        // Says to the compiler that it is within bounds.
        self.0 as usize & (ENTRIES - 1)
    }

    #[inline]
    pub(super) const fn bit(self) -> u64 {
        1 << self.index()
    }

    pub(super) fn callback(self) -> Option<Callback> {
        Callback::ALL.into_iter().find(|callback| Self::of(*callback) == self)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ANSWER => "answer",
            Self::INIT => "init",
            Self::CANCELLED => "cancelled",
            Self::DROP_INSTANCE => "drop",
            Self::NEW_CONNECTION => "new_connection",
            Self::DROP_CONNECTION => "drop of the connection's state",
            _ => self.callback().map_or("unknown", Callback::name),
        }
    }
}

/// How a call ended, if not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Refusal,
    Error,
    Unusable,
    Panic,
    Late,
    Full,
}

/// One thread's numbers for one function. They fill a cache line.
#[derive(Default)]
#[repr(align(64))]
struct Counts {
    calls: AtomicU64,
    troubles: [AtomicU64; 6],
}

/// One thread's numbers.
type Slot = [Counts; ENTRIES];

/// How the host deals with plugins that take long or panic.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// What a call on a worker's thread may take.
    pub(super) budget: Duration,
    overstay: Overstay,
    /// After which time a call is taken for one that never returns.
    pub(super) stuck_after: Duration,
    pub(super) stuck: Stuck,
    quarantine: Quarantine,
    quarantine_panics: usize,
    quarantine_period: Duration,
}

impl From<&Limits> for Policy {
    fn from(limits: &Limits) -> Self {
        Self {
            budget: limits.callback_budget,
            overstay: limits.callback_overstay,
            stuck_after: limits.callback_stuck_after,
            stuck: limits.callback_stuck,
            quarantine: limits.quarantine,
            quarantine_panics: limits.quarantine_panics,
            quarantine_period: limits.quarantine_period,
        }
    }
}

/// What becomes of a call that is not made as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detour {
    /// Quarantine: the host refuses in the plugin's place.
    Refuse,
    /// Quarantine: as if the plugin had no opinion.
    Skip,
    /// On a thread of the pool, as it may block.
    Pool,
}

/// What the pool can do: whatever a connection or the server as a whole asks or tells, but for what is answered at once
/// (deliveries), what belongs to a swap, and what control asks on its own thread.
const POOLABLE: u64 = Entry::of(Callback::Connect).bit()
    | Entry::of(Callback::Auth).bit()
    | Entry::of(Callback::Publish).bit()
    | Entry::of(Callback::Subscribe).bit()
    | Entry::of(Callback::Unsubscribe).bit()
    | Entry::of(Callback::Puback).bit()
    | Entry::of(Callback::Info).bit()
    | Entry::of(Callback::Disconnect).bit()
    | Entry::of(Callback::SessionExpired).bit()
    | Entry::of(Callback::Connected).bit()
    | Entry::of(Callback::Dropped).bit()
    | Entry::of(Callback::Acknowledged).bit()
    | Entry::of(Callback::Expired).bit()
    | Entry::of(Callback::Retained).bit()
    | Entry::of(Callback::Event).bit()
    | Entry::NEW_CONNECTION.bit()
    | Entry::DROP_CONNECTION.bit();

/// What a plugin says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kind {
    pub(super) implements: Callbacks,
    pub(super) may_block: Callbacks,
}

/// Watches one generation of a plugin.
pub(super) struct Monitor {
    /// Its number among those of the server.
    number: u32,
    plugin: String,
    policy: Policy,
    /// The functions that are not called as usual, as a set of bits. Zero is the fast path.
    detours: AtomicU64,
    /// Those of them that run on the pool.
    pooled: AtomicU64,
    /// Whether it has a callback that cannot wait for a state that a thread of the pool has.
    is_fixed: bool,
    is_quarantined: AtomicBool,
    /// Whether somebody listens to all calls: then none is simply made.
    is_tapped: AtomicBool,
    /// One for each worker, and the last for all other threads.
    slots: Box<[Slot]>,
    /// Calls that took longer than their budget on a worker; written by the watchdog.
    overstays: [AtomicU64; ENTRIES],
    times: Box<[[AtomicU64; TIME_BUCKETS]]>,
    /// When it panicked last, oldest first; as many as quarantine asks for.
    panics: Mutex<VecDeque<Instant>>,
}

impl Monitor {
    /// `may_block`: the callbacks that the plugin says may.
    pub(super) fn new(number: u32, plugin: &str, kind: Kind, workers: usize, policy: Policy) -> Self {
        let Kind { implements, may_block } = kind;
        // What is made for a connection and what is left of it have no bits of their own: they may block if anything may.
        let ends = Entry::NEW_CONNECTION.bit() | Entry::DROP_CONNECTION.bit();
        let pooled = (may_block.bits() | if may_block == Callbacks::NONE { 0 } else { ends }) & POOLABLE;
        Self {
            number,
            plugin: plugin.to_owned(),
            policy,
            detours: AtomicU64::new(pooled),
            pooled: AtomicU64::new(pooled),
            is_fixed: implements.contains(Callback::Deliver),
            is_quarantined: AtomicBool::new(false),
            is_tapped: AtomicBool::new(false),
            slots: (0..=workers).map(|_| Slot::default()).collect(),
            overstays: Default::default(),
            times: (0..ENTRIES).map(|_| [const { AtomicU64::new(0) }; TIME_BUCKETS]).collect(),
            panics: Mutex::default(),
        }
    }

    #[inline]
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Whether a call is not to be made as usual; then [`Monitor::detour`] says what else.
    #[inline]
    pub(super) fn has_detour(&self, entry: Entry) -> bool {
        self.detours.load(Relaxed) & entry.bit() != 0
    }

    #[cold]
    pub(super) fn detour(&self, entry: Entry) -> Option<Detour> {
        if self.is_quarantined.load(Relaxed) {
            let skips = self.policy.quarantine == Quarantine::Skip;
            return Some(if skips { Detour::Skip } else { Detour::Refuse });
        }
        self.is_pooled(entry).then_some(Detour::Pool)
    }

    /// Whether it runs on the pool.
    pub(super) fn is_pooled(&self, entry: Entry) -> bool {
        self.pooled.load(Relaxed) & entry.bit() != 0
    }

    /// Counts a call on a worker's thread: how many there were before it. `None`, and it is not counted: it is to be timed,
    /// or the seat is not a worker's.
    #[inline]
    pub(super) fn count_plain_call(&self, seat: &Seat, entry: Entry) -> Option<u64> {
        // There is one writer, so a load and a store do.
        let calls = &self.slots.get(seat.worker())?[entry.index()].calls;
        let before = calls.load(Relaxed);
        if is_timed(before) {
            return None;
        }
        calls.store(before + 1, Relaxed);
        Some(before)
    }

    /// Counts a call on any thread: how many there were before it, and whether it is to be timed.
    pub(super) fn count_call(&self, seat: Option<&Seat>, entry: Entry) -> (u64, bool) {
        let before = match seat.and_then(|seat| self.slots.get(seat.worker())) {
            Some(slot) => {
                let calls = &slot[entry.index()].calls;
                let before = calls.load(Relaxed);
                calls.store(before + 1, Relaxed);
                before
            }
            None => self.shared(entry).calls.fetch_add(1, Relaxed),
        };
        (before, is_timed(before))
    }

    /// The numbers of threads that are no workers.
    fn shared(&self, entry: Entry) -> &Counts {
        &self.slots[self.slots.len() - 1][entry.index()]
    }

    /// Notes how long a call has taken.
    #[cold]
    pub(super) fn time(&self, entry: Entry, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let bucket = (ns.ilog2() as usize).min(TIME_BUCKETS - 1);
        self.times[entry.index()][bucket].fetch_add(1, Relaxed);
    }

    /// Counts what has gone wrong.
    #[cold]
    pub(super) fn count(&self, entry: Entry, trouble: Trouble) {
        let seat = Watch::seat();
        match seat.and_then(|seat| self.slots.get(seat.worker())) {
            Some(slot) => {
                let count = &slot[entry.index()].troubles[trouble as usize];
                count.store(count.load(Relaxed) + 1, Relaxed);
            }
            None => _ = self.shared(entry).troubles[trouble as usize].fetch_add(1, Relaxed),
        }
    }

    /// A call takes longer than its budget on a worker's thread. `true` if the next ones run on the pool.
    pub(super) fn overstayed(&self, entry: Entry) -> bool {
        self.overstays[entry.index()].fetch_add(1, Relaxed);
        if self.policy.overstay == Overstay::Log || self.is_fixed || POOLABLE & entry.bit() == 0 {
            return false;
        }
        self.pooled.fetch_or(entry.bit(), Relaxed);
        self.set_detours();
        true
    }

    /// Counts what the plugin was not asked or told, and says so now and then.
    pub(super) fn count_full(&self, entry: Entry) {
        self.count(entry, Trouble::Full);
        let times = self.sum(entry, Trouble::Full);
        if times.is_power_of_two() {
            let (plugin, callback) = (&*self.plugin, entry.name());
            tracing::warn!(
                plugin,
                callback,
                times,
                "a plugin has so much to do that it is not asked: refused, or not told"
            );
        }
    }

    fn sum(&self, entry: Entry, trouble: Trouble) -> u64 {
        self.slots.iter().map(|slot| slot[entry.index()].troubles[trouble as usize].load(Relaxed)).sum()
    }

    /// Counts a panic, and puts the plugin into quarantine if there have been too many.
    #[cold]
    pub(super) fn count_panic(&self, entry: Entry, now: Instant) {
        self.count(entry, Trouble::Panic);
        let Policy { quarantine, quarantine_panics: most, quarantine_period: period, .. } = self.policy;
        if quarantine == Quarantine::Off || self.is_quarantined.load(Relaxed) {
            return;
        }
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        panics.push_back(now);
        if panics.len() < most {
            return;
        }
        let oldest = panics.pop_front();
        if oldest.is_none_or(|oldest| now.saturating_duration_since(oldest) > period) {
            return;
        }
        panics.clear();
        drop(panics);
        self.is_quarantined.store(true, Relaxed);
        self.set_detours();
        let what = match quarantine {
            Quarantine::Skip => "asked no more, as if it had no opinion",
            _ => "asked no more, and refuses everything that it would have to allow",
        };
        let secs = period.as_secs();
        tracing::error!(
            plugin = self.plugin,
            "quarantine: {most} panics in {secs} s. The plugin is {what}, until it is swapped or the quarantine is ended"
        );
    }

    /// Ends the quarantine. `false` if there was none.
    pub(super) fn end_quarantine(&self) -> bool {
        let was = self.is_quarantined.swap(false, Relaxed);
        if was {
            self.set_detours();
            tracing::warn!(plugin = self.plugin, "the quarantine is ended: the plugin is asked again");
        }
        was
    }

    /// Whether somebody listens to the calls.
    #[inline]
    pub(super) fn is_tapped(&self) -> bool {
        self.is_tapped.load(Relaxed)
    }

    /// From now on somebody listens to the calls, or nobody.
    pub(super) fn set_tapped(&self, is_tapped: bool) {
        self.is_tapped.store(is_tapped, Relaxed);
        self.set_detours();
    }

    fn set_detours(&self) {
        // Under a lock, so that what was changed last is in what is stored last.
        let _changing = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        let all = if self.is_quarantined.load(Relaxed) || self.is_tapped() { u64::MAX } else { 0 };
        self.detours.store(all | self.pooled.load(Relaxed), Relaxed);
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.is_quarantined.load(Relaxed)
    }

    /// The functions that have been called, with their numbers.
    pub(super) fn callbacks(&self) -> Vec<CallbackStats> {
        let sum = |count: &dyn Fn(&Slot) -> u64| self.slots.iter().map(count).sum::<u64>();
        let entry = |entry: Entry| {
            let index = entry.index();
            let trouble = |trouble| self.sum(entry, trouble);
            let times = self.times[index].iter().map(|count| count.load(Relaxed)).enumerate();
            CallbackStats {
                name: entry.name(),
                is_pooled: self.is_pooled(entry),
                calls: sum(&|slot| slot[index].calls.load(Relaxed)),
                refusals: trouble(Trouble::Refusal),
                errors: trouble(Trouble::Error),
                unusable: trouble(Trouble::Unusable),
                panics: trouble(Trouble::Panic),
                late: trouble(Trouble::Late),
                full: trouble(Trouble::Full),
                overstays: self.overstays[index].load(Relaxed),
                times: times.filter(|(_, count)| *count != 0).map(|(log2, count)| (1 << log2, count)).collect(),
            }
        };
        let known = Callback::ALL.into_iter().map(Entry::of).chain([Entry::NEW_CONNECTION, Entry::DROP_CONNECTION]);
        known.map(entry).filter(|stats| stats.calls != 0).collect()
    }
}

/// What is known of one generation of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginStats {
    /// The plugin's name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// The version of `plugin-api` that it was built with.
    pub api_version: String,
    /// Whether it is not called any more because it panicked too often.
    pub is_quarantined: bool,
    /// Those of its functions that have been called, in the order of [`Callback::ALL`]; then `new_connection` and the drop
    /// of the states.
    pub callbacks: Vec<CallbackStats>,
}

/// How often a function of a plugin was called, and how that ended. All numbers but the times are exact.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallbackStats {
    /// The name of the method.
    pub name: &'static str,
    /// Whether it runs on the pool: because the plugin says that it may block, or because it has overstayed.
    pub is_pooled: bool,
    /// Calls, those that still run included.
    pub calls: u64,
    /// Answers that refused something, or ended the connection of who asked.
    pub refusals: u64,
    /// Errors that were returned; each is a refusal too, and not counted there.
    pub errors: u64,
    /// Answers that could not be used; one that was meant to refuse counts as a refusal too.
    pub unusable: u64,
    /// Panics that ended a call.
    pub panics: u64,
    /// Deferred answers that did not come in time, and what the operator asked for and got no answer to in time.
    pub late: u64,
    /// Calls that were not made, as the plugin had too much to do on the pool: refused, or not told.
    pub full: u64,
    /// Calls that took longer than their budget on a thread that serves clients.
    pub overstays: u64,
    /// How long calls took, by the powers of two: the least time of the range, in nanoseconds, and how many there were. One
    /// call in 256 is timed.
    pub times: Vec<(u64, u64)>,
}

impl CallbackStats {
    /// The numbers as JSON, `times` as pairs of the least time of a range, in nanoseconds, and a count.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "pooled": self.is_pooled,
            "calls": self.calls,
            "refusals": self.refusals,
            "errors": self.errors,
            "unusable": self.unusable,
            "panics": self.panics,
            "late": self.late,
            "full": self.full,
            "overstays": self.overstays,
            "times_ns": self.times,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_that_are_long_ago_do_not_count() {
        let limits = Limits { quarantine_panics: 3, quarantine_period: Duration::from_secs(10), ..Limits::default() };
        let (begin, entry) = (Instant::now(), Entry::of(Callback::Publish));
        let monitor = Monitor::new(1, "p", Kind::default(), 0, Policy::from(&limits));
        for (secs, quarantined) in [(0, false), (5, false), (11, false), (16, false), (21, true)] {
            monitor.count_panic(entry, begin + Duration::from_secs(secs));
            assert_eq!(monitor.is_quarantined(), quarantined, "{secs}");
        }
        assert!(monitor.end_quarantine());
        // It begins anew.
        for (secs, quarantined) in [(22, false), (23, false), (24, true)] {
            monitor.count_panic(entry, begin + Duration::from_secs(secs));
            assert_eq!(monitor.is_quarantined(), quarantined, "{secs}");
        }
    }

    /// Deliveries are decided on at once, so that the state has to stay where they are.
    #[test]
    fn a_plugin_that_decides_on_deliveries_is_not_moved_to_the_pool() {
        let entry = Entry::of(Callback::Publish);
        for (implements, moved) in [(Callbacks::NONE, true), (Callbacks::NONE.with(Callback::Deliver), false)] {
            let kind = Kind { implements: implements.with(Callback::Publish), ..Kind::default() };
            let monitor = Monitor::new(1, "p", kind, 0, Policy::from(&Limits::default()));
            assert_eq!((monitor.overstayed(entry), monitor.is_pooled(entry)), (moved, moved));
            assert_eq!(monitor.has_detour(entry), moved);
        }
    }

    #[test]
    fn times_are_counted_by_powers_of_two() {
        let monitor = Monitor::new(1, "p", Kind::default(), 0, Policy::from(&Limits::default()));
        let entry = Entry::of(Callback::Publish);
        monitor.count_call(None, entry);
        for ns in [0, 1, 2, 3, 1023, 1024, 1 << 39, u64::MAX] {
            monitor.time(entry, Duration::from_nanos(ns));
        }
        let expected = vec![(1, 2), (2, 2), (512, 1), (1024, 1), (1 << 39, 1), (1 << 40, 1)];
        assert_eq!(monitor.callbacks()[0].times, expected);
    }

    #[test]
    fn callbacks_have_numbers_below_those_of_the_rest() {
        for callback in Callback::ALL {
            let entry = Entry::of(callback);
            assert_eq!((entry.callback(), Entry::from_number(entry.number())), (Some(callback), entry));
            assert!(entry.number() < Entry::CANCELLED.number());
        }
    }
}
