//! Workers that cannot follow the others: they hold up who publishes for a short time, and then only what goes to them.

use super::Core;
use crate::clock::Millis;
use crate::router::Targets;

/// How long a worker does not read, so that another one can catch up.
const PATIENCE_MS: u64 = 1000;

/// Past so many times its bound a mailbox takes nothing more from other workers: there are messages that nobody can be
/// refused for any more, such as wills.
const OVERFULL: usize = 4;

/// What a worker knows of the mailboxes of the others, from when it last put something in or looked. One bit for each
/// worker in the masks.
pub(super) struct Congestion {
    /// Those that are past their bound,
    behind: u64,
    /// and since when.
    since: Box<[Millis]>,
    /// Those that are past it several times.
    overfull: u64,
    /// Those that hold as much as they may.
    pub(super) full: u64,
}

impl Congestion {
    pub(super) fn new(workers: usize) -> Self {
        Self { behind: 0, since: vec![Millis::NEVER; workers].into(), overfull: 0, full: 0 }
    }

    /// Whether any worker is behind.
    pub(super) fn is_any_behind(&self) -> bool {
        self.behind != 0
    }

    fn is_behind(&self, worker: usize) -> bool {
        self.behind & 1 << worker != 0
    }

    fn note(&mut self, worker: usize, waiting_bytes: usize, bytes_max: usize, now: Millis) {
        let bit = 1 << worker;
        if waiting_bytes <= bytes_max {
            self.behind &= !bit;
        } else if self.behind & bit == 0 {
            self.behind |= bit;
            self.since[worker] = now;
        }
        self.overfull &= !bit;
        if waiting_bytes > bytes_max.saturating_mul(OVERFULL) {
            self.overfull |= bit;
        }
    }

    /// Those that have been behind for too long.
    fn overdue(&self, now: Millis) -> u64 {
        if self.behind == 0 {
            return 0;
        }
        let is_overdue = |worker: &usize| self.is_behind(*worker) && now.since(self.since[*worker]) >= PATIENCE_MS;
        (0..self.since.len()).filter(is_overdue).fold(0, |mask, worker| mask | 1 << worker)
    }
}

impl Core {
    /// Whether another worker has fallen behind, so that no publisher should be read for now. A publisher that is not read
    /// cannot acknowledge either, so this does not last: then what goes to that worker is refused instead.
    #[must_use]
    pub fn is_congested(&self, now: Millis) -> bool {
        self.congestion.behind != self.congestion.overdue(now)
    }

    /// Whether a message for these would have to wait for a worker that has been behind for too long, or be kept by one that
    /// is full. It is refused then, before anybody gets it.
    pub(super) fn is_held_up(&self, targets: &Targets) -> bool {
        let closed = self.congestion.overdue(self.now) | self.congestion.full;
        let may_go_there = |worker: usize| closed & 1 << worker != 0;
        targets.remote & closed != 0
            || targets.groups.iter().any(|group| group.members().iter().any(|member| may_go_there(member.worker)))
    }

    /// Whether there is reason to ask [`Core::is_held_up`].
    #[inline]
    pub(super) fn may_be_held_up(&self) -> bool {
        self.congestion.behind | self.congestion.full != 0
    }

    /// Whether what goes to a worker and cannot be refused any more is dropped: QoS 0 at once, anything else only where
    /// its mailbox has grown past all bounds.
    pub(super) fn is_shed(&self, worker: usize, is_at_most_once: bool) -> bool {
        let bit = 1 << worker;
        let shed = if is_at_most_once { self.congestion.overdue(self.now) } else { 0 };
        (shed | self.congestion.overfull) & bit != 0
    }

    /// Ends a turn: hands the messages for other workers over, one lock for each of them.
    pub fn flush_mail(&mut self) {
        self.begin_work();
        self.exchange_fullness();
        let bytes_max = self.shared.limits.mailbox_bytes_max;
        for (worker, batch) in self.outbox.iter_mut().enumerate() {
            let mailbox = self.shared.mailboxes.of(worker);
            let waiting = if !batch.is_empty() {
                mailbox.put(batch)
            } else if self.congestion.is_behind(worker) {
                mailbox.waiting_bytes()
            } else {
                continue;
            };
            self.congestion.note(worker, waiting, bytes_max, self.now);
        }
    }
}
