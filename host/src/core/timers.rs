//! What is due when. Entries are never taken out early: whoever is called looks whether it is still true.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Millis;
use crate::router::SessionKey;

/// No entry lies further ahead than this, in milliseconds: an entry whose subject is gone leaves within a minute, so the
/// heap stays in proportion to what exists, however fast connections come and go.
pub(super) const HORIZON_MS: u64 = 60_000;

/// Whom a timer concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Connect timeout, Keep Alive or lingering close of a connection.
    Connection { slot: u32, id: u64 },
    /// Delayed will or Session Expiry Interval.
    Session { slot: u32, serial: u32 },
    /// A delayed message for `handle_info`, by its number.
    Info(u64),
    /// Retained messages that expire.
    Retained,
    /// Requests about connections that have not come.
    Early,
    /// Connections that could not go over to another plugin.
    Sweep,
    /// The deadline of a question about a connection that has ended, by its id.
    Farewell(u64),
}

impl From<SessionKey> for Subject {
    fn from(key: SessionKey) -> Self {
        Self::Session { slot: key.slot, serial: key.serial }
    }
}

/// The entry that a subject has among the timers: the moment, or [`Millis::NEVER`]. With it a subject has one entry, how
/// often soever it is armed anew.
pub(super) type Armed = Millis;

/// A heap of moments.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Millis, Subject)>>);

impl Timers {
    /// Arms a timer for `at`, or for the horizon if that is earlier.
    pub(super) fn arm(&mut self, now: Millis, at: Millis, subject: Subject) {
        self.0.push(Reverse((at.min(now + HORIZON_MS), subject)));
    }

    /// The same for a subject that keeps its entry in mind. Nothing is done if it has one that comes early enough: it is
    /// to look then, and to arm again.
    pub(super) fn arm_once(&mut self, armed: &mut Armed, now: Millis, at: Millis, subject: Subject) {
        let at = at.min(now + HORIZON_MS);
        if *armed > at {
            *armed = at;
            self.arm(now, at, subject);
        }
    }

    /// The next moment at which something may be due.
    pub(super) fn next(&self) -> Option<Millis> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the next subject that is due, with the moment that it was armed for.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<(Millis, Subject)> {
        let due = self.next().is_some_and(|at| at <= now);
        due.then(|| self.0.pop()).flatten().map(|Reverse(entry)| entry)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Whether an entry that is due is the one that its subject has in mind, which has none from now on. Those that an earlier
/// one has replaced are left alone.
pub(super) fn is_current(armed: &mut Armed, at: Millis) -> bool {
    let current = *armed == at;
    if current {
        *armed = Millis::NEVER;
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_subjects_come_in_order_and_none_beyond_the_horizon() {
        let mut timers = Timers::default();
        timers.arm(Millis(0), Millis(20), Subject::Info(2));
        timers.arm(Millis(0), Millis(10), Subject::Info(1));
        timers.arm(Millis(0), Millis(u64::MAX), Subject::Info(3));
        assert_eq!(timers.next(), Some(Millis(10)));
        assert_eq!(timers.pop_due(Millis(9)), None);
        assert_eq!(timers.pop_due(Millis(30)), Some((Millis(10), Subject::Info(1))));
        assert_eq!(timers.pop_due(Millis(30)), Some((Millis(20), Subject::Info(2))));
        assert_eq!(timers.pop_due(Millis(30)), None);
        assert_eq!(timers.next(), Some(Millis(HORIZON_MS)));
    }

    #[test]
    fn a_subject_that_is_armed_again_and_again_has_one_entry() {
        let (mut timers, mut armed) = (Timers::default(), Millis::NEVER);
        for at in [500, 700, 300, 900] {
            timers.arm_once(&mut armed, Millis(0), Millis(at), Subject::Info(1));
        }
        assert_eq!(timers.len(), 2); // the one for 500, and the one for 300 that replaces it
        let due = std::iter::from_fn(|| timers.pop_due(Millis(1000)));
        let current: Vec<Millis> = due.map(|(at, _)| at).filter(|at| is_current(&mut armed, *at)).collect();
        assert_eq!(current, [Millis(300)]);
    }
}
