//! Time as the core sees it: an argument, never a call.

use std::ops::Add;
use std::time::{Duration, Instant};

/// A moment, in milliseconds since the server started.
///
/// The core receives it with each call, so that a test can let an hour pass in no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` plus a number of seconds, without wrapping.
    #[must_use]
    pub fn plus_secs(self, secs: u32) -> Self {
        self + u64::from(secs) * 1000
    }
}

impl Add<u64> for Millis {
    type Output = Self;

    fn add(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl Add<Duration> for Millis {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self + u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A moment that outlives the server, in milliseconds since 1970 began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMillis(pub u64);

impl WallMillis {
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// What a moment is, where `zero` is the start of the server.
    #[must_use]
    pub fn of(at: Millis, zero: Self) -> Self {
        Self(zero.0.saturating_add(at.0))
    }

    /// The same moment for the server that has started at `zero`: its start if it lies before.
    #[must_use]
    pub fn since(self, zero: Self) -> Millis {
        if self == Self::NEVER { Millis::NEVER } else { Millis(self.0.saturating_sub(zero.0)) }
    }
}

/// Where the shell reads the time. All workers of a server share one, so that their moments compare.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that shows zero now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// A clock that shows `moment` now: that of another process, which goes on.
    #[must_use]
    pub fn showing(moment: Millis) -> Self {
        let now = Instant::now();
        Self(now.checked_sub(Duration::from_millis(moment.0)).unwrap_or(now))
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Millis {
        Millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
