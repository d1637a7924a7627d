//! Work in bounded pieces: what one peer sets off keeps the worker from the others for a short time only.
//!
//! A worker has so much [work](UNITS_A_TURN) for a turn. When it is used up, what is left waits for the next turn, and
//! sockets are served in between: packets that were read and not handled yet, subscriptions of sessions that have ended,
//! messages of other workers, timers, replays of retained messages. One packet is handled as a whole, so that each has a
//! bound of its own.

use std::collections::{BTreeMap, btree_map};

use super::Core;
use super::budget::subscription_bytes;
use super::session::Subscription;
use crate::router::SessionKey;

/// Work of a turn, in units that take some ten nanoseconds to a few hundred each: a packet handled, a delivery of up to a
/// KiB, one level of a filter that is subscribed to or one node of a trie that is searched.
pub(super) const UNITS_A_TURN: usize = if cfg!(fuzzing) {
    32
} else if cfg!(test) {
    256
} else {
    65_536
};

/// Bytes of a message that are copied for one receiver in a unit of work.
pub(super) const DELIVERY_BYTES_A_UNIT: usize = 1024;

/// What is left to mail and to timers of a turn if reading has used everything up.
const UNITS_FOR_OTHERS: usize = UNITS_A_TURN / 4;

/// Of these, what a timer takes.
pub(super) const TIMER_UNITS: usize = 8;

/// The part of a turn's work in which the subscriptions of sessions that have ended are removed.
pub(super) const UNITS_FOR_REMAINS: usize = UNITS_A_TURN / 16;

/// The subscriptions of a session that has ended, as far as they are still in the router. Nothing is delivered by them:
/// the session's serial is given to no other.
pub(super) struct Remains {
    key: SessionKey,
    filters: btree_map::IntoKeys<Box<str>, Subscription>,
}

impl Core {
    /// A turn ends, and the next one begins.
    pub(super) fn begin_work(&mut self) {
        self.work_left = UNITS_A_TURN;
    }

    /// Some work has been done.
    #[inline]
    pub(super) fn spend(&mut self, units: usize) {
        self.work_left = self.work_left.saturating_sub(units);
    }

    /// Whether the work of this turn is used up, so that no more should be read. Packets that are handed in nevertheless
    /// wait for the next turn.
    #[inline]
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.work_left == 0
    }

    /// What is not caused by reading gets its share, however much was read.
    pub(super) fn leave_work_for_others(&mut self) {
        self.work_left = self.work_left.max(UNITS_FOR_OTHERS);
    }

    /// Whether the connection has packets that wait for the next turn: do not read more from its socket until then.
    #[must_use]
    pub fn is_held(&self, slot: u32) -> bool {
        self.connections.get(slot as usize).is_some_and(|connection| connection.is_held)
    }

    /// Has the rest of what a connection has sent handled in the next turn.
    pub(super) fn hold(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        connection.is_held = true;
        self.held.push_back((slot, connection.id));
    }

    /// Handles packets that have waited.
    pub(super) fn continue_held(&mut self) {
        for _ in 0..self.held.len() {
            if self.is_spent() {
                return;
            }
            let Some((slot, id)) = self.held.pop_front() else {
                return;
            };
            let connection = self.connections.get_mut(slot as usize).filter(|connection| connection.id == id);
            let Some(connection) = connection.filter(|connection| connection.is_held) else {
                continue; // It has ended.
            };
            if connection.is_waiting {
                self.resume(slot);
            }
            let connection = &mut self.connections[slot as usize];
            if connection.is_waiting || !connection.is_held {
                continue;
            }
            connection.is_held = false;
            let bytes = self.take_partial(slot);
            self.take_in(slot, &bytes);
        }
    }

    /// Takes the subscriptions of a session that has ended out of the router, now as far as that is little, and the rest
    /// in later turns.
    pub(super) fn remove_subscriptions(&mut self, key: SessionKey, subscriptions: BTreeMap<Box<str>, Subscription>) {
        if !subscriptions.is_empty() {
            self.remains.push_back(Remains { key, filters: subscriptions.into_keys() });
            self.remove_remains(self.work_left.min(UNITS_FOR_REMAINS));
        }
    }

    /// Goes on with it.
    pub(super) fn continue_removing(&mut self) {
        if !self.remains.is_empty() {
            self.remove_remains(UNITS_FOR_REMAINS);
        }
    }

    /// Who subscribes helps to clear away, and more than it brings: so what remains does not grow, however fast sessions
    /// come and go.
    pub(super) fn pay_for(&mut self, filter: &str) {
        let units = filter_units(filter);
        self.spend(units);
        if !self.remains.is_empty() {
            self.remove_remains(2 * units);
        }
    }

    fn remove_remains(&mut self, mut units: usize) {
        while units > 0
            && let Some(remains) = self.remains.front_mut()
        {
            let key = remains.key;
            let Some(written) = remains.filters.next() else {
                self.remains.pop_front();
                continue;
            };
            let cost = filter_units(&written);
            units = units.saturating_sub(cost);
            self.spend(cost);
            self.account.sub(subscription_bytes(&written));
            self.remove_from_router(key, &written);
        }
    }
}

/// The work of adding or removing a filter: each level is looked up or made in up to two tries.
fn filter_units(filter: &str) -> usize {
    2 + 2 * levels_in(filter)
}

/// How many levels a filter has.
pub(super) fn levels_in(filter: &str) -> usize {
    1 + filter.bytes().filter(|byte| *byte == b'/').count()
}
