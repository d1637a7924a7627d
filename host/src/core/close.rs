//! The end of Network Connections and Sessions, and what it sets off: wills, `handle_disconnect`, expiry.

use plugin_api::{DisconnectKind, ReasonCode};

use super::Core;
use super::budget::session_bytes;
use super::connection::{Closing, NONE, Phase};
use super::deferred::Waiting;
use super::farewell::{Fate, LastWill};
use super::inbound::Next;
use super::route::{Outgoing, expiry};
use super::session::EXPIRY_NEVER;
use super::session::{AcceptedWill, DelayedWill, WillBody};
use super::timers::is_current;
use crate::clock::Millis;
use crate::codec::{Disconnect, Packet};
use crate::message::MessageParts;
use crate::plugin::{Callback, Handlers, LastStates, Permissions};
use crate::router::SessionKey;

impl Core {
    /// DISCONNECT from the client.
    pub(super) fn on_disconnect(&mut self, slot: u32, disconnect: &Disconnect<'_>) -> Next {
        if let Some(secs) = disconnect.properties.session_expiry_interval() {
            let session_slot = self.connections[slot as usize].session;
            let asked_no_expiry = self.connections[slot as usize].asked_no_expiry;
            if let Some(session) = self.sessions.get_mut(session_slot as usize) {
                if asked_no_expiry && secs != 0 {
                    // Section 3.14.2.2.2: it cannot be made to outlive the connection now.
                    self.close(slot, Closing::telling(DisconnectKind::ProtocolError, ReasonCode::PROTOCOL_ERROR));
                    return Next::Stop;
                }
                session.expiry_secs = secs.min(session.expiry_secs_max);
            }
        }
        let kind = if disconnect.reason_code == ReasonCode::NORMAL_DISCONNECTION {
            // [MQTT-3.14.4-3]
            if let Some(extra) = &mut self.connections[slot as usize].extra
                && extra.will.take().is_some_and(|will| will.delay_secs > 0)
            {
                self.journal_will_gone(self.connections[slot as usize].session);
            }
            DisconnectKind::Normal
        } else {
            DisconnectKind::WithWill
        };
        self.connections[slot as usize].has_left = true;
        self.close(slot, Closing::silent(kind, disconnect.reason_code));
        Next::Stop
    }

    /// Ends a Network Connection. What waits for its socket is still sent, with DISCONNECT behind it if the peer is to be
    /// told; then the driver closes it. Does nothing to one that has ended already.
    pub(super) fn close(&mut self, slot: u32, mut closing: Closing) {
        self.leave_lane_at_the_end(slot);
        let connection = &mut self.connections[slot as usize];
        let phase = connection.phase;
        let hangs_up = phase != Phase::Connected && closing.kind == DisconnectKind::Closed;
        match phase {
            // On its way to another worker, it is that one's to end. It notices by itself that the peer has gone, and it
            // gets what plugins ask for as well.
            Phase::Closing | Phase::Leaving => return,
            // Who gives up before CONNACK has not been let in.
            Phase::AwaitingConnect | Phase::Authenticating if closing.is_by_peer() => {
                closing.kind = DisconnectKind::Refused
            }
            Phase::AwaitingConnect | Phase::Authenticating | Phase::Connected => {}
        }
        connection.phase = Phase::Closing;
        connection.is_held = false;
        connection.heard_at = self.now;
        let id = connection.id;
        self.forget_timers_of(id);
        let connection = &mut self.connections[slot as usize];
        let session_slot = std::mem::replace(&mut connection.session, NONE);
        let is_v5 = connection.is_v5();
        drop(self.take_partial(slot));
        if phase == Phase::Connected && closing.tell && is_v5 {
            self.tell_disconnect(slot, &closing);
        }
        self.mark_dirty(slot);
        let waiting = self.take_waiting(slot);
        if hangs_up && waiting.as_ref().is_some_and(|waiting| waiting.is_about_the_client()) {
            self.note_failure(slot);
        }
        let who: Box<str> = match self.sessions.get_mut(session_slot as usize) {
            Some(session) => {
                session.connection = NONE;
                session.in_flight.spread();
                session.client_id.clone()
            }
            None => self.pending_client_id(slot, waiting.as_deref()),
        };
        if session_slot != NONE {
            self.note_presence(session_slot);
        }
        let mut extra = self.take_extra(slot);
        let will = extra.as_mut().and_then(|extra| extra.will.take()).filter(|_| phase == Phase::Connected);
        let has_delayed_will = will.as_ref().is_some_and(|will| will.delay_secs > 0);
        let mut handlers = self.connections[slot as usize].handlers.take();
        let expiry_secs = self.sessions.get(session_slot as usize).map_or(0, |session| session.expiry_secs);
        let will = will.map(|will| {
            let details = extra.as_ref().and_then(|extra| extra.details.as_deref());
            let waits = has_delayed_will && expiry_secs != 0;
            let known = if waits { self.describe_peer(slot, details) } else { Vec::new() };
            LastWill { will, known, asked_at: Permissions::default(), again: false }
        });
        if expiry_secs != 0 && expiry_secs != EXPIRY_NEVER {
            self.keep_last_states(session_slot, handlers.as_mut(), &who);
        }
        // Handlers are asked about the will first: after `handle_disconnect` they are asked nothing more.
        let body = handlers.and_then(|handlers| self.bid_farewell(id, handlers, who, closing, will, waiting));
        if session_slot != NONE {
            if let Some(extra) = extra
                && self.sessions[session_slot as usize].expiry_secs != 0
            {
                self.park_replays(session_slot, extra.replays);
            }
            if has_delayed_will && body.is_none() {
                self.journal_will_gone(session_slot);
            }
            self.detach(session_slot, body);
        }
    }

    /// Ends the connection of a client about which a plugin could not answer. The chain has logged why.
    pub(super) fn close_failed(&mut self, slot: u32) {
        self.close(slot, Closing::failed());
    }

    /// Keeps what handlers want to know again when the session expires.
    fn keep_last_states(&mut self, session_slot: u32, handlers: Option<&mut Handlers>, who: &str) {
        let wanted = [Callback::ExportState, Callback::SessionExpired];
        let Some(handlers) = handlers.filter(|handlers| wanted.iter().all(|one| handlers.implements(*one))) else {
            return;
        };
        if let Some(states) = self.shared.chain.last_states(handlers, who) {
            if self.is_full() {
                tracing::warn!(client_id = who, "a state is not kept for handle_session_expired: the worker is full");
                return;
            }
            self.account.add(states.bytes());
            if self.sessions[session_slot as usize].number != 0 {
                let encoded = LastStates::encoded(Some(&states), None, self.plan.plugins());
                self.journal_last_states(session_slot, &encoded);
            }
            self.sessions[session_slot as usize].away().last_states = Some(states);
        }
    }

    /// Forgets it: the client is back, or the session ends.
    pub(super) fn take_last_states(&mut self, session_slot: u32) -> Option<LastStates> {
        let states = self.sessions[session_slot as usize].take_away(|away| &mut away.last_states)?;
        self.account.sub(states.bytes());
        Some(states)
    }

    /// The same for a session that goes on, and may have had a will with what plugins know.
    pub(super) fn forget_last_states(&mut self, session_slot: u32, will: Option<&DelayedWill>) {
        let had_known = will.is_some_and(|will| will.body.known().is_some());
        if self.take_last_states(session_slot).is_some() || had_known {
            self.journal_last_states(session_slot, &[]);
        }
    }

    fn pending_client_id(&self, slot: u32, waiting: Option<&Waiting>) -> Box<str> {
        if let Some(client_id) = waiting.and_then(Waiting::client_id) {
            return client_id.into();
        }
        self.connections[slot as usize].pending().map_or_else(|| "".into(), |pending| pending.client_id.as_str().into())
    }

    /// DISCONNECT from us [MQTT-3.14.2-3] [MQTT-3.14.2-4].
    fn tell_disconnect(&mut self, slot: u32, closing: &Closing) {
        let reason_code = closing.reason_code;
        self.say_last(slot, closing.properties.as_properties(), |properties| {
            Packet::Disconnect(Disconnect { reason_code, properties })
        });
    }

    /// A session has lost its connection: it ends, or waits for the client to come back.
    fn detach(&mut self, session_slot: u32, will: Option<(u32, WillBody)>) {
        let session = &mut self.sessions[session_slot as usize];
        let expiry_secs = session.expiry_secs;
        // Section 3.1.3.2.2: after the Will Delay Interval or at the end of the session, whichever comes first.
        match will {
            Some((delay, body)) if delay == 0 || expiry_secs == 0 => self.settle_will(&body, Fate::Now),
            Some((delay, body)) => {
                let at = self.now.plus_secs(delay);
                if let WillBody::Undecided(connection) = body {
                    let key = session.key(session_slot);
                    self.decide_later(connection, key);
                }
                let session = &mut self.sessions[session_slot as usize];
                session.away().will = Some(DelayedWill { at, body });
                self.journal_delayed_will(session_slot);
                self.arm_session(session_slot, at);
            }
            None => {}
        }
        if expiry_secs == 0 {
            return self.end_session(session_slot); // [MQTT-4.1.0-2]
        }
        if expiry_secs != EXPIRY_NEVER {
            let at = self.now.plus_secs(expiry_secs);
            self.sessions[session_slot as usize].expires_at = at; // [MQTT-3.1.2-23]
            self.arm_session(session_slot, at);
        }
        self.journal_changed(session_slot);
    }

    pub(super) fn publish_will(&mut self, will: &AcceptedWill) {
        let parts = MessageParts { expires_at: expiry(self.now, will.expiry_secs), ..will.message.parts() };
        if !self.retain_and_route(&mut Outgoing::new(parts)) {
            tracing::warn!(topic = will.message.topic(), "a will was not retained: there is no room for more");
        }
    }

    /// Discards a session. It has no connection, and its will, if it waits, is published now.
    pub(super) fn end_session(&mut self, session_slot: u32) {
        self.tell_what_ends_with(session_slot);
        drop(self.take_last_states(session_slot));
        let was_kept = self.sessions[session_slot as usize].number != 0;
        self.journal_ended(session_slot);
        let mut session = self.sessions.remove(session_slot as usize);
        debug_assert_eq!(session.connection, NONE);
        Self::leave_all_groups(&session);
        self.by_client.remove(&*session.client_id, session_slot);
        self.account.sub(session_bytes(&session.client_id));
        let key = session.key(session_slot);
        self.hand_on_all(&mut session, was_kept);
        let will = session.take_away(|away| &mut away.will);
        self.remove_subscriptions(key, session.subscriptions);
        if let Some(delayed) = will {
            self.will_is_due(&session.client_id, delayed.body);
        }
    }

    /// Has [`Core::session_due`] look at a session.
    pub(super) fn arm_session(&mut self, session_slot: u32, at: Millis) {
        let session = &mut self.sessions[session_slot as usize];
        let subject = session.key(session_slot).into();
        self.timers.arm_once(&mut session.armed, self.now, at, subject);
    }

    /// A delayed will or an expiry may be due.
    pub(super) fn session_due(&mut self, key: SessionKey, at: Millis) {
        let session = self.sessions.get_mut(key.slot as usize).filter(|session| session.serial == key.serial);
        if session.is_some_and(|session| is_current(&mut session.armed, at)) {
            self.settle_session(key.slot);
        }
    }

    /// Publishes the will of a session, or ends the session, if its time has come [MQTT-4.1.0-2].
    pub(super) fn settle_session(&mut self, session_slot: u32) {
        let now = self.now;
        let session = &mut self.sessions[session_slot as usize];
        if session.expires_at <= now {
            let client_id = session.client_id.clone();
            let states = self.take_last_states(session_slot);
            self.end_session(session_slot);
            return self.plan.session_expired(&client_id, states.as_ref());
        }
        let is_due = session.will_at().is_some_and(|at| at <= now);
        let due_will = if is_due { session.take_away(|away| &mut away.will) } else { None };
        let next = session.will_at().unwrap_or(Millis::NEVER).min(session.expires_at);
        if next != Millis::NEVER {
            self.arm_session(session_slot, next);
        }
        if let Some(delayed) = due_will {
            self.journal_will_gone(session_slot);
            if delayed.body.known().is_some() {
                self.journal_states(session_slot);
            }
            let who = self.sessions[session_slot as usize].client_id.clone();
            self.will_is_due(&who, delayed.body);
        }
    }
}

impl Closing {
    /// Whether the peer has ended it, by what it did or what it did not do.
    fn is_by_peer(&self) -> bool {
        use DisconnectKind::{Closed, KeepAliveTimeout, Normal, WithWill};
        matches!(self.kind, Closed | KeepAliveTimeout | Normal | WithWill)
    }

    /// What there is to say beyond kind and Reason Code.
    pub(super) fn text(&self) -> &str {
        self.properties.as_properties().reason_string().unwrap_or("")
    }
}
