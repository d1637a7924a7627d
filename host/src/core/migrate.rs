//! Connections go over to the plugins that the plan names: before their next packet, or when the sweep comes to them.

use plugin_api::{DisconnectKind, ReasonCode};

use super::connection::{Closing, Phase};
use super::timers::Subject;
use super::{Core, slot_of};
use crate::plugin::{self, Conformed, ConnectionInfo, Handlers, SwapRequest};

/// Connections that the sweep moves in one turn, and places that it looks at.
const MOVES_A_TURN: usize = if cfg!(any(test, fuzzing)) { 2 } else { 128 };
const PLACES_A_TURN: usize = 32 * MOVES_A_TURN;

/// What a move costs of a turn's work: a microsecond and the author's code.
const MOVE_UNITS: usize = 16;

/// Time until connections that could not move are looked at again, in milliseconds.
const RETRY_MS: u64 = 100;

/// How far a worker has got with its connections.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The place that is looked at next; `None` if all have been.
    at: Option<usize>,
    /// Connections, by slot and id, that could not move when they were looked at.
    late: Vec<(u32, u64)>,
    /// They are looked at again when a timer says so.
    is_armed: bool,
}

impl Core {
    /// Notices that the plan has changed.
    #[inline]
    pub(super) fn look_at_plan(&mut self) {
        if self.shared.chain.epoch() != self.plan.epoch() {
            self.fetch_plan();
        }
    }

    #[cold]
    fn fetch_plan(&mut self) {
        self.plan = self.shared.chain.plan();
        // Until all connections have gone over, the instances before decide about some of them.
        self.callbacks = self.callbacks.union(self.plan.callbacks());
        self.sweep.at = Some(0);
        self.sweep.late.clear();
        self.close_lanes();
    }

    /// Has a connection use the plugins that the plan names for it. `false` if that has ended it.
    #[inline]
    pub(super) fn conform(&mut self, slot: u32) -> bool {
        match &self.connections[slot as usize].handlers {
            Some(handlers) if handlers.epoch() != self.plan.epoch() => self.go_over(slot),
            _ => true,
        }
    }

    #[cold]
    fn go_over(&mut self, slot: u32) -> bool {
        let end = self.move_over(slot);
        let goes_on = end.is_none();
        if let Some(closing) = end {
            self.close(slot, closing);
        }
        goes_on
    }

    /// The same; how the connection has to end is returned.
    pub(super) fn move_over(&mut self, slot: u32) -> Option<Closing> {
        let connection = &mut self.connections[slot as usize];
        if !connection.may_go_over() {
            return None;
        }
        let handlers = connection.handlers.as_mut().filter(|handlers| handlers.epoch() != self.plan.epoch())?;
        let who: Box<str> = self
            .sessions
            .get(connection.session as usize)
            .map_or_else(|| "".into(), |session| session.client_id.clone());
        let details = connection.extra.as_ref().and_then(|extra| extra.details.as_deref());
        let (id, peer, listener) = (connection.id, connection.peer.addr(), &connection.listener.profile.name);
        let conformed = plugin::show(details, |transport| {
            let request = SwapRequest {
                info: ConnectionInfo { connection: id, peer, listener, transport },
                client_id: &who,
                keep_alive: connection.keep_alive_secs,
                version: connection.version as u8,
            };
            handlers.conform(&self.plan, &request)
        });
        match conformed {
            Conformed::Yes | Conformed::Later => None,
            Conformed::Failed => Some(Closing::failed()),
            Conformed::Disconnect => {
                Some(Closing::telling(DisconnectKind::ServerDisconnect, ReasonCode::ADMINISTRATIVE_ACTION))
            }
        }
    }

    /// Goes on with moving connections that say nothing.
    pub(super) fn continue_sweep(&mut self) {
        let Some(begin) = self.sweep.at else { return };
        let (mut moves, mut at) = (0, begin);
        let end = self.connections.capacity();
        while at < end && at < begin + PLACES_A_TURN && moves < MOVES_A_TURN {
            if self.connections.contains(at) {
                moves += usize::from(self.move_or_note(slot_of(at)));
            }
            at += 1;
        }
        self.spend(moves * MOVE_UNITS);
        self.sweep.at = (at < end).then_some(at);
        if at >= end {
            self.end_sweep();
        }
    }

    /// `true` if there was something to do.
    fn move_or_note(&mut self, slot: u32) -> bool {
        if !self.is_behind(slot) {
            return false;
        }
        self.conform(slot);
        if self.is_behind(slot) {
            self.sweep.late.push((slot, self.connections[slot as usize].id));
        }
        true
    }

    /// Whether a connection has other plugins than it is to have.
    fn is_behind(&self, slot: u32) -> bool {
        let connection = &self.connections[slot as usize];
        let is_behind = |handlers: &Handlers| handlers.epoch() != self.plan.epoch();
        !matches!(connection.phase, Phase::Closing | Phase::Leaving)
            && connection.handlers.as_ref().is_some_and(is_behind)
    }

    /// Looks at the plugins of a connection that comes from another worker, which may know an older plan. `true` if they
    /// are others than it is to have: see [`Core::sweep_in`], once it is here.
    pub(super) fn expect_behind(&mut self, handlers: Option<&Handlers>) -> bool {
        self.look_at_plan();
        let behind = handlers.filter(|handlers| handlers.epoch() != self.plan.epoch());
        // Until it has gone over, they decide.
        self.callbacks = behind.map_or(self.callbacks, |handlers| self.callbacks.union(handlers.callbacks()));
        behind.is_some()
    }

    /// Has such a connection go over, or notes that it is to be looked at again.
    pub(super) fn sweep_in(&mut self, slot: u32) {
        self.conform(slot);
        let is_passed = self.sweep.at.is_none_or(|at| (slot as usize) < at);
        if is_passed && self.is_behind(slot) {
            self.sweep.late.push((slot, self.connections[slot as usize].id));
        }
        if !self.is_sweeping() {
            self.end_sweep();
        }
    }

    /// Every place has been looked at.
    fn end_sweep(&mut self) {
        self.shared.chain.report_conformed(self.worker, self.plan.epoch(), self.sweep.late.len());
        if self.sweep.late.is_empty() {
            self.callbacks = self.plan.callbacks();
        } else if !self.sweep.is_armed {
            self.sweep.is_armed = true;
            self.timers.arm(self.now, self.now + RETRY_MS, Subject::Sweep);
        }
    }

    /// Looks again at those that could not move.
    pub(super) fn sweep_due(&mut self) {
        self.sweep.is_armed = false;
        if self.is_sweeping() {
            return; // It gets to them.
        }
        for (slot, id) in std::mem::take(&mut self.sweep.late) {
            if self.connections.get(slot as usize).is_some_and(|connection| connection.id == id) {
                self.move_or_note(slot);
            }
        }
        self.end_sweep();
    }

    /// Whether there are connections that have not been looked at since the plan changed.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweep.at.is_some()
    }
}

impl super::connection::Connection {
    /// Whether its plugins may be exchanged now: not while they owe an answer, or expect one.
    fn may_go_over(&self) -> bool {
        match self.phase {
            Phase::Connected => !self.is_waiting && self.auth().is_none_or(|auth| auth.again_until.is_none()),
            Phase::AwaitingConnect | Phase::Authenticating | Phase::Leaving | Phase::Closing => false,
        }
    }
}
