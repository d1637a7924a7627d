//! Tickets: what a plugin holds of a question that it answers later.
//!
//! A callback that may defer its answer takes a ticket and returns [`Verdict::DEFERRED`]. The
//! answer comes from any thread, once: while the callback still runs, it is kept here until the core asks for it; later it
//! is mail to the worker that waits for it. What is not known here has been answered, cancelled or never been given.

use std::collections::HashMap;
use std::fmt;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;

use foldhash::fast::RandomState;
use plugin_api::abi::Verdict;

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};
use plugin_api::reading::Answer;

/// Locks among which the tickets of one plugin are spread, so that threads that answer seldom meet.
// loom wants the same of each run, and numbers go on from one to the next.
const SHARDS: usize = if cfg!(all(test, feature = "loom")) { 1 } else { 16 };

/// The next ticket of the whole process: no two plugins, nor two generations of one, have the same.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// No ticket.
pub(super) const NO_TICKET: u64 = Answer::NO_TICKET;

/// The open tickets of one plugin.
pub(super) struct Tickets {
    shards: [Mutex<HashMap<u64, Open, RandomState>>; SHARDS],
    /// How many there are, those included that are just being taken.
    open: AtomicUsize,
    max: usize,
}

/// Where an open ticket stands.
enum Open {
    /// The core does not wait for it yet.
    Taken { is_queued: bool },
    /// It was answered before.
    Answered(Box<Answered>),
    /// A worker waits.
    Awaited { worker: usize, connection: u64, is_queued: bool },
}

impl Open {
    /// Whether its question waits for a thread of the pool, and nobody has been asked.
    fn is_queued(&mut self) -> Option<&mut bool> {
        match self {
            Self::Taken { is_queued } | Self::Awaited { is_queued, .. } => Some(is_queued),
            Self::Answered(_) => None,
        }
    }
}

/// An answer that has come later than its callback returned.
pub struct Answered {
    pub(super) verdict: Verdict,
    pub(super) answer: Answer,
}

impl Answered {
    /// What it takes while it waits, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.answer.bytes()
    }
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").field("verdict", &self.verdict).finish_non_exhaustive()
    }
}

/// What an answer has met.
pub(super) enum Completed {
    /// It is kept until the core asks for it.
    Kept,
    /// It is to be posted to the worker that waits for it.
    Post { worker: usize, connection: u64, answered: Box<Answered> },
    /// There is an answer already.
    Twice,
    /// There never was such a ticket.
    Unknown,
    /// Nobody waits for it any more.
    Gone,
}

impl Tickets {
    pub(super) fn new(max: usize) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), open: AtomicUsize::new(0), max }
    }

    /// Gives out a ticket. `None`: as many are open as may be.
    pub(super) fn take(&self) -> Option<u64> {
        self.take_as(false)
    }

    /// The same for a question that waits for a thread of the pool, which says with [`Tickets::begin`] that it is put.
    pub(super) fn take_queued(&self) -> Option<u64> {
        self.take_as(true)
    }

    fn take_as(&self, is_queued: bool) -> Option<u64> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let ticket = NEXT.fetch_add(1, Ordering::Relaxed);
        self.shard(ticket).insert(ticket, Open::Taken { is_queued });
        Some(ticket)
    }

    /// A question that has waited is put now. `false`: nobody wants to know any more.
    pub(super) fn begin(&self, ticket: u64) -> bool {
        let mut shard = self.shard(ticket);
        let open = shard.get_mut(&ticket);
        let is_there = open.is_some();
        if let Some(is_queued) = open.and_then(Open::is_queued) {
            *is_queued = false;
        }
        is_there
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// An answer. Who gets [`Completed::Post`] posts it; nobody else will.
    pub(super) fn complete(&self, ticket: u64, answered: Box<Answered>) -> Completed {
        let mut shard = self.shard(ticket);
        match shard.get_mut(&ticket) {
            Some(open @ Open::Taken { .. }) => {
                *open = Open::Answered(answered);
                Completed::Kept
            }
            Some(Open::Answered(_)) => Completed::Twice,
            Some(&mut Open::Awaited { worker, connection, .. }) => {
                shard.remove(&ticket);
                drop(shard);
                self.open.fetch_sub(1, Ordering::Relaxed);
                Completed::Post { worker, connection, answered }
            }
            None if ticket == NO_TICKET || ticket >= NEXT.load(Ordering::Relaxed) => Completed::Unknown,
            None => Completed::Gone,
        }
    }

    /// From now on a worker waits for the answer; unless there is one, which is returned.
    pub(super) fn wait(&self, ticket: u64, worker: usize, connection: u64) -> Option<Box<Answered>> {
        let mut shard = self.shard(ticket);
        let open = shard.get_mut(&ticket)?;
        if let Open::Taken { is_queued } = *open {
            *open = Open::Awaited { worker, connection, is_queued };
            return None;
        }
        drop(shard);
        match self.forget(ticket) {
            Some(Open::Answered(answered)) => Some(answered),
            _ => None,
        }
    }

    /// Nobody waits for an answer any more. `false` if there was one, or never such a ticket.
    pub(super) fn cancel(&self, ticket: u64) -> bool {
        self.forget(ticket).is_some_and(|open| !matches!(open, Open::Answered(_)))
    }

    /// Takes back a question that waits for a thread of the pool. `false`: it has been put already, or there is none.
    pub(super) fn withdraw(&self, ticket: u64) -> bool {
        let mut shard = self.shard(ticket);
        let is_queued = shard.get_mut(&ticket).and_then(Open::is_queued).is_some_and(|is_queued| *is_queued);
        if is_queued {
            shard.remove(&ticket);
            drop(shard);
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        is_queued
    }

    fn forget(&self, ticket: u64) -> Option<Open> {
        let open = self.shard(ticket).remove(&ticket)?;
        self.open.fetch_sub(1, Ordering::Relaxed);
        Some(open)
    }

    fn shard(&self, ticket: u64) -> MutexGuard<'_, HashMap<u64, Open, RandomState>> {
        let shard = &self.shards[usize::try_from(ticket % SHARDS as u64).expect("less than SHARDS")];
        // Nothing but the map's own methods runs under this lock, so a poisoned one is still whole.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(verdict: Verdict) -> Box<Answered> {
        Box::new(Answered { verdict, answer: Answer::default() })
    }

    fn check(completed: &Completed, expected: &str) {
        let got = match completed {
            Completed::Kept => "kept".to_owned(),
            Completed::Post { worker, connection, answered } => {
                format!("post {worker} {connection} {}", answered.verdict.0)
            }
            Completed::Twice => "twice".to_owned(),
            Completed::Unknown => "unknown".to_owned(),
            Completed::Gone => "gone".to_owned(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn a_ticket_is_answered_once() {
        let tickets = Tickets::new(2);
        let ticket = tickets.take().expect("there is room");
        assert!(tickets.wait(ticket, 3, 7).is_none());
        check(&tickets.complete(ticket, answered(Verdict::HANDLED)), "post 3 7 2");
        check(&tickets.complete(ticket, answered(Verdict::OK)), "gone");
        assert_eq!(tickets.open(), 0);
    }

    #[test]
    fn an_answer_that_comes_before_its_callback_has_returned_is_kept() {
        let tickets = Tickets::new(2);
        let ticket = tickets.take().expect("there is room");
        check(&tickets.complete(ticket, answered(Verdict::HANDLED)), "kept");
        check(&tickets.complete(ticket, answered(Verdict::OK)), "twice");
        let kept = tickets.wait(ticket, 0, 7).expect("it was kept");
        assert_eq!((kept.verdict, tickets.open()), (Verdict::HANDLED, 0));
        check(&tickets.complete(ticket, answered(Verdict::OK)), "gone");
    }

    #[test]
    fn nobody_waits_for_what_was_cancelled_or_never_given() {
        let tickets = Tickets::new(2);
        let ticket = tickets.take().expect("there is room");
        assert!(tickets.wait(ticket, 0, 7).is_none());
        assert!(tickets.cancel(ticket) && !tickets.cancel(ticket));
        check(&tickets.complete(ticket, answered(Verdict::OK)), "gone");
        check(&tickets.complete(NO_TICKET, answered(Verdict::OK)), "unknown");
        check(&tickets.complete(u64::MAX, answered(Verdict::OK)), "unknown");
    }

    #[test]
    fn a_question_is_taken_back_until_it_is_put() {
        let tickets = Tickets::new(4);
        for awaited in [false, true] {
            let queued = || {
                let ticket = tickets.take_queued().expect("there is room");
                assert!(!awaited || tickets.wait(ticket, 3, 7).is_none());
                ticket
            };
            let (put, withdrawn) = (queued(), queued());
            assert!(tickets.begin(put) && !tickets.withdraw(put));
            assert!(tickets.withdraw(withdrawn) && !tickets.withdraw(withdrawn) && !tickets.begin(withdrawn));
            check(&tickets.complete(put, answered(Verdict::OK)), if awaited { "post 3 7 0" } else { "kept" });
            assert!(!tickets.withdraw(put));
            let _ = tickets.wait(put, 3, 7);
            assert_eq!(tickets.open(), 0);
        }
        let plain = tickets.take().expect("there is room");
        assert!(!tickets.withdraw(plain) && tickets.cancel(plain), "the plugin has it");
    }

    #[test]
    fn no_more_are_open_than_may_be() {
        let tickets = Tickets::new(2);
        let first = tickets.take().expect("there is room");
        assert!(tickets.take().is_some() && tickets.take().is_none());
        assert!(tickets.cancel(first));
        assert!(tickets.take().is_some() && tickets.take().is_none());
    }
}
