//! What the core's turns change of what is kept goes to the store, and what is safe comes back.

use std::sync::Arc;
use std::time::SystemTime;

use super::Driver;
use crate::clock::{Clock, Millis, WallMillis};
use crate::durable::store::Store;

/// How long a worker does not read because the store is behind, in milliseconds. A client that is not read cannot acknowledge
/// either, and would be taken for one that is silent. So it is read again then, until the store is full.
const PATIENCE_MS: u64 = 1_000;

/// How long the wall clock is not looked at again, in milliseconds. No worker wakes for that alone.
const WALL_MS: u64 = 1_000;

/// Where journals are handed over.
pub(super) struct Desk {
    store: Arc<dyn Store>,
    /// Since when it is behind.
    behind_since: Option<Millis>,
    /// The number that the worker has asked to be woken for.
    asked: u64,
    /// When the wall clock was looked at.
    wall_seen_at: Millis,
}

impl Desk {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, behind_since: None, asked: 0, wall_seen_at: Millis(0) }
    }

    fn has_patience(&self, now: Millis) -> bool {
        self.behind_since.is_some_and(|since| now.since(since) < PATIENCE_MS)
    }
}

/// What the wall clock would have shown when a server's clock showed zero, as it is set now.
pub(crate) fn zero_on_the_wall(clock: Clock) -> WallMillis {
    // Before 1970 it is of no use, and any other moment is as good.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallMillis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(clock.now().0))
}

impl Driver {
    /// Looks what has become safe since the last turn, how the store is, and how late it is.
    pub(super) fn learn_what_is_safe(&mut self, now: Millis) {
        let Some(desk) = &mut self.store else { return };
        if now.since(desk.wall_seen_at) >= WALL_MS {
            desk.wall_seen_at = now;
            self.core.note_zero_on_the_wall(zero_on_the_wall(self.clock));
        }
        desk.behind_since = desk.store.is_behind().then(|| desk.behind_since.unwrap_or(now));
        self.core.refuse_what_is_kept(desk.store.is_failing() || desk.store.is_full());
        if self.core.follows_journals() {
            self.core.journals_are_safe(desk.store.safe_up_to());
        }
    }

    /// Has the worker woken when something that is held may go. It may by now.
    pub(super) fn ask_to_be_woken(&mut self) {
        let Some(desk) = &mut self.store else { return };
        while let Some(number) = self.core.waits_for() {
            if desk.asked == number || !desk.store.wake_when_safe(self.worker, number) {
                desk.asked = number;
                return;
            }
            self.core.journals_are_safe(desk.store.safe_up_to());
        }
    }

    /// Whether no client is to be read from for now, as another worker or the store cannot follow.
    pub(super) fn is_held_up(&self, now: Millis) -> bool {
        self.core.is_congested(now) || self.store.as_ref().is_some_and(|desk| desk.has_patience(now))
    }

    /// Hands over what there is for the store and for other workers, in this order: what they do about it stands behind it in the
    /// order of all journals.
    pub(super) fn end_of_work(&mut self) {
        self.hand_over_journal();
        self.core.flush_mail();
    }

    /// Hands the turn's journal over.
    pub(super) fn hand_over_journal(&mut self) {
        let Some(desk) = &self.store else { return };
        self.core.hand_over_journal(|journal| desk.store.hand_over(self.worker, journal));
    }
}
