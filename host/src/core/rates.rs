//! Bounds on what may come in a second: token buckets that hold a second's worth.

use crate::clock::Millis;
use crate::limits::Limits;
use crate::sync::atomic::{AtomicU64, Ordering};

const SECOND_NS: u64 = 1_000_000_000;

/// A bucket, as the moment in nanoseconds at which it will be full again: it fills by itself, and is full at first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Whether anything is left in it.
    fn has_any(self, now: Millis) -> bool {
        self.full_at_ns < now_ns(now).saturating_add(SECOND_NS)
    }

    /// The bucket without an amount. More may be taken than is left: then it takes longer until something is left again.
    /// Nothing changes where the bound is 0, which means that there is none.
    fn without(self, amount: u64, a_second: u64, now: Millis) -> Self {
        if a_second == 0 {
            return self;
        }
        let cost_ns = (u128::from(amount) * u128::from(SECOND_NS)).div_ceil(u128::from(a_second));
        let cost_ns = u64::try_from(cost_ns).unwrap_or(u64::MAX);
        Self { full_at_ns: self.full_at_ns.max(now_ns(now)).saturating_add(cost_ns) }
    }
}

fn now_ns(now: Millis) -> u64 {
    now.0.saturating_mul(1_000_000)
}

/// What one client has left of its rates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ClientRates {
    messages: Bucket,
    bytes: Bucket,
}

impl ClientRates {
    /// Takes a message of so many bytes. `false` if it comes too early.
    pub(super) fn take(&mut self, bytes: usize, limits: &Limits, now: Millis) -> bool {
        if !self.messages.has_any(now) || !self.bytes.has_any(now) {
            return false;
        }
        self.messages = self.messages.without(1, limits.message_rate_max.into(), now);
        self.bytes = self.bytes.without(bytes as u64, limits.byte_rate_max, now);
        true
    }

    /// What is left, as two numbers.
    pub(super) fn to_numbers(self) -> [u64; 2] {
        [self.messages.full_at_ns, self.bytes.full_at_ns]
    }

    pub(super) fn of_numbers([messages, bytes]: [u64; 2]) -> Self {
        Self { messages: Bucket { full_at_ns: messages }, bytes: Bucket { full_at_ns: bytes } }
    }
}

/// A bucket that all workers take from.
#[derive(Debug, Default)]
pub(super) struct SharedBucket(AtomicU64);

impl SharedBucket {
    /// What is left, as a number.
    pub(super) fn full_at_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// As much is left as in another one.
    pub(super) fn inherit(&self, full_at_ns: u64) {
        self.0.store(full_at_ns, Ordering::Relaxed);
    }

    /// Takes one. `false` if nothing is left. The workers' clocks differ by no more than a turn, which does no harm.
    pub(super) fn take_one(&self, a_second: u64, now: Millis) -> bool {
        let take = |full_at_ns| {
            let bucket = Bucket { full_at_ns };
            bucket.has_any(now).then(|| bucket.without(1, a_second, now).full_at_ns)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_second() {
        for a_second in [1, 2, 3, 7, 1000, 1_000_000] {
            let bucket = SharedBucket::default();
            let taken = |now| (0..2_000_000).take_while(|_| bucket.take_one(a_second, Millis(now))).count() as u64;
            assert_eq!(taken(5000), a_second);
            assert_eq!(taken(5000), 0);
            // What comes in half a second, but for what rounding keeps back.
            let half = taken(5500);
            assert!(half.abs_diff(a_second / 2) <= 1, "{a_second}: {half}");
            assert_eq!(taken(60_000), a_second, "it does not hold more after a long time");
        }
    }

    #[test]
    fn what_is_too_much_is_taken_from_the_time_after_it() {
        let limits = Limits { byte_rate_max: 1000, ..Limits::default() };
        let mut rates = ClientRates::default();
        assert!(rates.take(999, &limits, Millis(0)));
        assert!(rates.take(5001, &limits, Millis(0)), "something is left");
        assert!(!rates.take(1, &limits, Millis(5000)));
        assert!(rates.take(1, &limits, Millis(5001)));
    }

    #[test]
    fn largest_numbers_are_no_problem() {
        let mut limits = Limits { byte_rate_max: u64::MAX, message_rate_max: u32::MAX, ..Limits::default() };
        let mut rates = ClientRates::default();
        assert!(rates.take(usize::MAX, &limits, Millis(0)));
        assert!(!rates.take(1, &limits, Millis(0)));
        limits.byte_rate_max = 1;
        assert!(rates.take(usize::MAX, &limits, Millis(u64::MAX / 1_000_000)));
        assert!(!rates.take(0, &limits, Millis(u64::MAX / 1_000_000)));
    }
}
