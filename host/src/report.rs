//! What was lost, for the log: now and then while something is, and all of it at the end.

use std::sync::Arc;
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
    dropped_expired,
}

/// Says after each period what has come in it. Never returns.
pub(crate) async fn run(counters: Arc<[Counters]>, period: Duration, mut say: impl FnMut(&Tally)) {
    let mut told = Tally::default();
    loop {
        tokio::time::sleep(period).await;
        let now = Tally::of(&counters);
        say(&now.since(&told));
        told = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_since_the_last_time_is_told() {
        let counters: Arc<[Counters]> = (0..2).map(|_| Counters::default()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (sender, told) = std::sync::mpsc::channel();
        let shared = Arc::clone(&counters);
        runtime.spawn(run(shared, Duration::from_millis(1), move |tally| sender.send(*tally).unwrap()));
        let next = || {
            runtime.block_on(async {
                loop {
                    match told.try_recv() {
                        Ok(tally) => return tally,
                        Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                }
            })
        };
        assert_eq!(next(), Tally::default());
        counters[0].dropped_rate.add(3);
        counters[1].dropped_rate.add(4);
        let first_that_says_something = || loop {
            let tally = next();
            if tally != Tally::default() {
                return tally;
            }
        };
        assert_eq!(first_that_says_something(), Tally { dropped_rate: 7, ..Tally::default() });
        counters[1].dropped_rate.add(1);
        assert_eq!(first_that_says_something(), Tally { dropped_rate: 1, ..Tally::default() });
    }

    #[test]
    fn every_number_stands_in_the_reference() {
        let reference = include_str!("../LIMITS.md");
        for name in Tally::NAMES {
            assert!(reference.contains(&format!("\n| `{name}` |")), "{name}");
        }
    }
}
