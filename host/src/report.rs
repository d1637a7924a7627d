//! What was lost, for the log: now and then while something is, and all of it at the end.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::core::Counters;

/// How often the log may have a line about it, which calls it 10 seconds.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// Makes [`Tally`] from the counters that it has, and the way in which it is logged.
macro_rules! tally {
    ($($name:ident),+ $(,)?) => {
        /// The counters of what somebody did not get, of all workers.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) struct Tally {
            $($name: u64,)+
        }

        impl Tally {
            /// What has been counted so far.
            pub(crate) fn of(counters: &[Counters]) -> Self {
                let sum = |count: fn(&Counters) -> u64| counters.iter().map(count).sum();
                Self { $($name: sum(|counters| counters.$name.get()),)+ }
            }

            /// What has come since then.
            fn since(&self, before: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(before.$name),)+ }
            }

            /// One line, with what is not zero; none if there is nothing to say.
            pub(crate) fn log(&self, when: &'static str) {
                // What has expired was to be dropped, so that it is no reason for a line of its own.
                if (Self { dropped_expired: 0, ..*self }) != Self::default() {
                    tracing::warn!($($name = (self.$name != 0).then_some(self.$name),)+
                        "refused or dropped {when}; host/LIMITS.md says what each number counts");
                }
            }

            #[cfg(test)]
            const NAMES: &[&str] = &[$(stringify!($name)),+];
        }
    };
}

tally! {
    connections_refused,
    connections_turned_away,
    handshakes_failed,
    handshakes_late,
    connects_refused,
    answers_late,
    publishes_refused,
    dropped_slow,
    dropped_queue_full,
    dropped_no_member,
    dropped_rate,
    dropped_not_retained,
    dropped_too_large,
    dropped_unauthorised,
    dropped_outside_mount,
    dropped_expired,
}

/// A thread that says after each period what has come in it, until this is dropped.
pub(crate) struct Reporter {
    /// Nothing is ever sent: that it is gone is the end.
    _until: Sender<()>,
}

impl Reporter {
    /// `told` is left out: it was counted by another process.
    pub(crate) fn start(
        name: String,
        counters: Arc<[Counters]>,
        mut told: Tally,
        period: Duration,
        mut say: impl FnMut(&Tally) + Send + 'static,
    ) -> io::Result<Self> {
        let (until, end) = mpsc::channel::<()>();
        let report = move || {
            while end.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                let now = Tally::of(&counters);
                say(&now.since(&told));
                told = now;
            }
        };
        std::thread::Builder::new().name(name).spawn(report)?;
        Ok(Self { _until: until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_since_the_last_time_is_told() {
        let counters: Arc<[Counters]> = (0..2).map(|_| Counters::default()).collect();
        let (sender, told) = mpsc::channel();
        let say = move |tally: &Tally| sender.send(*tally).unwrap();
        let reporter =
            Reporter::start("test".to_owned(), Arc::clone(&counters), Tally::default(), Duration::from_millis(1), say)
                .unwrap();
        assert_eq!(told.recv(), Ok(Tally::default()));
        for (count, others) in [(7, 4), (1, 0)] {
            counters[0].dropped_rate.add(count - others);
            counters[1].dropped_rate.add(others);
            // It may look between the two.
            let mut told_of = 0;
            while told_of < count {
                let Tally { dropped_rate, .. } = told.recv().unwrap();
                told_of += dropped_rate;
            }
            assert_eq!(told_of, count);
        }
        drop(reporter);
        assert_eq!(told.iter().map(|tally| tally.dropped_rate).sum::<u64>(), 0, "it ends, and has told everything");
    }

    #[test]
    fn every_number_stands_in_the_reference() {
        let reference = include_str!("../LIMITS.md");
        for name in Tally::NAMES {
            assert!(reference.contains(&format!("\n| `{name}` |")), "{name}");
        }
    }
}
