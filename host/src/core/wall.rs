//! What is kept has moments of the wall clock, and the server's clock goes its own way: when somebody sets the wall clock, or the
//! machine has slept, the two are not as far apart any more as they were.
//!
//! What a session without a connection waits for, its end and its will, is written once more then, in pieces of bounded size. What was
//! written of when messages expire stays as it is.

use super::{Core, NONE, slot_of};
use crate::clock::WallMillis;

/// What the clocks may be apart, in milliseconds, without that anything is written. Small steps do not add up.
const APART_MS_MAX: u64 = 2_000;

/// Sessions that are written in one turn, places that are looked at for that, and bytes behind which no more are written.
const SESSIONS_A_TURN: usize = if cfg!(any(test, fuzzing)) { 2 } else { 256 };
const PLACES_A_TURN: usize = 32 * SESSIONS_A_TURN;
const BYTES_A_TURN: usize = 256 << 10;

/// The work of writing one of them.
const SESSION_UNITS: usize = 2;

impl Core {
    /// Says what the wall clock would have shown when the server's clock showed zero, as it is set now.
    pub fn note_zero_on_the_wall(&mut self, zero: WallMillis) {
        let Some(journal) = self.journal.as_mut().filter(|one| one.zero.0.abs_diff(zero.0) > APART_MS_MAX) else {
            return;
        };
        if self.worker == 0 {
            let (before, after) = (journal.zero.0, zero.0);
            let direction = if after > before { "forward" } else { "back" };
            tracing::info!(
                "the wall clock was set {direction} by {} s, or the machine has slept: sessions that wait are written once more",
                before.abs_diff(after) / 1000
            );
        }
        journal.zero = zero;
        self.rewritten = Some(0);
    }

    /// Whether there are sessions to be written once more, and they may be.
    #[must_use]
    pub fn is_rewriting(&self) -> bool {
        // What is to be written would grow, while nothing can be, each time that the clock is set.
        self.rewritten.is_some() && !self.held_acks.is_refused
    }

    /// Goes on with that.
    pub(super) fn continue_rewriting(&mut self) {
        let Some(begin) = self.rewritten.filter(|_| self.is_rewriting()) else { return };
        let (mut at, mut count) = (begin, 0);
        let end = self.sessions.capacity();
        let has_room = |core: &Self| core.journal.as_ref().is_some_and(|journal| journal.len() < BYTES_A_TURN);
        while at < end && at < begin + PLACES_A_TURN && count < SESSIONS_A_TURN && has_room(self) {
            if self.sessions.get(at).is_some_and(|session| session.number != 0 && session.connection == NONE) {
                self.journal_changed(slot_of(at));
                self.journal_delayed_will(slot_of(at));
                count += 1;
            }
            at += 1;
        }
        self.spend(count * SESSION_UNITS);
        self.rewritten = (at < end).then_some(at);
    }
}
