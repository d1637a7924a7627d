//! How long a connection may say nothing, and what happens then.

use plugin_api::{Callback, DisconnectKind, ReasonCode};

use super::Core;
use super::connection::{Closing, Phase};
use super::timers::{Subject, is_current};
use crate::clock::Millis;

/// Time until a connection is looked at again whose time is over, but that has sent what could not be looked at, in
/// milliseconds.
const HELD_MS: u64 = 100;

impl Core {
    /// Whether nothing is read from any connection, as everything is about to go over to another process. Who is not heard for
    /// that is not silent.
    pub fn set_deaf(&mut self, is_deaf: bool) {
        self.is_deaf = is_deaf;
    }

    /// Has [`Core::connection_due`] look at a connection.
    pub(super) fn arm_connection(&mut self, slot: u32, at: Millis) {
        let connection = &mut self.connections[slot as usize];
        let subject = Subject::Connection { slot, id: connection.id };
        self.timers.arm_once(&mut connection.armed, self.now, at, subject);
    }

    /// How long a connection may say nothing, in milliseconds: connect timeout, or the earlier of Keep Alive and idle
    /// time. `None`: for ever.
    pub(super) fn patience(&self, slot: u32) -> Option<u64> {
        let ms = |bound: std::time::Duration| u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        let connection = &self.connections[slot as usize];
        let limits = &connection.listener.limits;
        match connection.phase {
            Phase::AwaitingConnect | Phase::Authenticating => Some(ms(limits.connect_timeout)),
            Phase::Connected => {
                let idle = Some(ms(limits.idle_max)).filter(|idle| *idle != 0);
                connection.keep_alive_ms().into_iter().chain(idle).min()
            }
            Phase::Leaving | Phase::Closing => None,
        }
    }

    /// When a connection has to have said something, or has to have ended a re-authentication. `None`: never.
    pub(super) fn due_at(&self, slot: u32) -> Option<Millis> {
        let connection = &self.connections[slot as usize];
        let silent_until = self.patience(slot).map(|patience| connection.heard_at + patience);
        let again_until = connection.auth().and_then(|auth| auth.again_until);
        silent_until.into_iter().chain(again_until).min()
    }

    /// Its patience with a connection may have come to its end.
    pub(super) fn connection_due(&mut self, slot: u32, id: u64, at: Millis) {
        let Some(connection) = self.connections.get_mut(slot as usize).filter(|connection| connection.id == id) else {
            return;
        };
        if !is_current(&mut connection.armed, at) {
            return;
        }
        if connection.is_waiting && self.deadline_due(slot) {
            return;
        }
        let session_slot = self.connections[slot as usize].session;
        if self.wants(Callback::Deliver) && self.sessions.contains(session_slot as usize) {
            // Deliveries may wait for a plugin that could not say whether it lets them pass.
            self.pump(session_slot);
            self.list_replays(slot);
        }
        let connection = &mut self.connections[slot as usize];
        if connection.is_held || self.is_deaf {
            // What it has sent has not been looked at.
            connection.heard_at = self.now;
            let later = self.now + HELD_MS;
            self.prolong_again(slot, |until| until.max(later));
        }
        let Some(due_at) = self.due_at(slot) else {
            return;
        };
        if self.now < due_at {
            return self.arm_connection(slot, due_at);
        }
        if self.is_overdue_again(slot) {
            return;
        }
        if matches!(self.connections[slot as usize].phase, Phase::AwaitingConnect | Phase::Authenticating) {
            self.note_failure(slot);
        }
        // [MQTT-3.1.2-22], and the same for a peer that does not get to its CONNECT.
        self.close(slot, Closing::telling(DisconnectKind::KeepAliveTimeout, ReasonCode::KEEP_ALIVE_TIMEOUT));
    }
}
