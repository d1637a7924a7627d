//! A turn of a worker: what has become due, what is spread over turns, and which connections the driver has to look at then.

use super::Core;
use super::timers::Subject;
use super::work::TIMER_UNITS;
use crate::clock::Millis;
use crate::router::SessionKey;

impl Core {
    /// Does what has become due, as far as the turn's work allows. `true` if something is left.
    pub fn on_tick(&mut self, now: Millis) -> bool {
        self.now = now;
        if self.has_mail_left() {
            self.on_mail(now);
        }
        self.leave_work_for_others();
        while !self.is_spent() {
            let Some((at, subject)) = self.timers.pop_due(now) else {
                return false;
            };
            self.spend(TIMER_UNITS);
            match subject {
                Subject::Connection { slot, id } => self.connection_due(slot, id, at),
                Subject::Session { slot, serial } => self.session_due(SessionKey { slot, serial }, at),
                Subject::Info(number) => self.info_due(number),
                Subject::Retained => self.retained_due(at),
                Subject::Early => self.early_due(),
                Subject::Sweep => self.sweep_due(),
                Subject::Farewell(connection) => self.farewell_due(connection),
            }
        }
        self.timers.next().is_some_and(|at| at <= now)
    }

    /// When [`Core::on_tick`] should be called next, at the latest. It may lie in the past: at once, then.
    #[must_use]
    pub fn next_tick(&self) -> Option<Millis> {
        let has_more = self.has_mail_left() || !self.listed_replays.is_empty();
        if has_more
            || self.is_sweeping()
            || self.is_rewriting()
            || !self.queries.is_empty()
            || !self.passes.is_empty()
            || self.has_memory_again()
            || !self.remains.is_empty()
            || !self.held.is_empty()
            || !self.partings.is_empty()
        {
            return Some(self.now);
        }
        self.timers.next().into_iter().chain(self.next_hand_on()).min()
    }

    /// Goes on with what is spread over turns, and moves to `into` the connections that have something to send or are to
    /// be closed. Call it once a turn, after everything that was received has been handed in.
    pub fn take_dirty(&mut self, into: &mut Vec<u32>) {
        self.continue_replays();
        self.continue_to_hand_on();
        self.continue_removing();
        self.continue_held();
        self.continue_parting();
        self.continue_waiting();
        self.continue_sweep();
        self.close_late();
        self.continue_queries();
        self.continue_passes();
        self.continue_rewriting();
        self.close_lanes();
        let listed = into.len();
        into.append(&mut self.dirty);
        for &slot in &into[listed..] {
            if let Some(connection) = self.connections.get_mut(slot as usize) {
                connection.dirty = false;
            }
        }
    }

    /// Whether [`Core::take_dirty`] has something to say already, so that there is to be another turn: a connection that is lost
    /// while it is sent to leaves a will, and a handler may fail when it is asked about what is sent next.
    #[must_use]
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.closing_soon.is_empty()
    }
}
