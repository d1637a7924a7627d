//! What handlers hear of: clients that have been let in, messages that a client does not get or has, retained messages.
//!
//! Whoever brings it about says so here, and it costs a look at one number if no plugin implements the callback.

use std::borrow::Cow;

use plugin_api::{Callback, DropReason, PropertiesBuf, Property, QoS, ReasonCode, RetainChange};

use super::Core;
use super::connection::NONE;
use super::session::Queued;
use crate::clock::Millis;
use crate::codec::PacketId;
use crate::message::{MessageParts, Source};
use crate::plugin::{ConnectedNotice, Fate, MessageNotice};

/// A message that was meant for one session.
#[derive(Clone, Copy)]
pub(super) struct Meant<'a> {
    /// [`NONE`] where it is not known whose it would have been.
    pub(super) session: u32,
    pub(super) parts: &'a MessageParts<'a>,
    pub(super) token: u64,
    pub(super) packet_id: Option<PacketId>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
}

impl<'a> Meant<'a> {
    /// For whoever would have got it.
    pub(super) fn for_anybody(parts: &'a MessageParts<'a>) -> Self {
        Self { session: NONE, parts, token: 0, packet_id: None, qos: parts.qos, retain: parts.retain }
    }
}

impl Core {
    /// Whether any plugin implements a callback.
    #[inline]
    pub(super) fn wants(&self, callback: Callback) -> bool {
        self.callbacks.contains(callback)
    }

    /// A message was not delivered.
    #[inline]
    pub(super) fn tell_dropped(&self, reason: DropReason, meant: &Meant<'_>) {
        if self.wants(Callback::Dropped) {
            self.tell(Fate::Dropped(reason), meant);
        }
    }

    /// A message that a session kept was not delivered.
    #[inline]
    pub(super) fn tell_queued_dropped(&self, reason: DropReason, session: u32, queued: &Queued) {
        if self.wants(Callback::Dropped) {
            self.tell_queued(Fate::Dropped(reason), session, queued, None);
        }
    }

    /// What has become of a message that a session kept.
    #[cold]
    pub(super) fn tell_queued(&self, fate: Fate, session: u32, queued: &Queued, packet_id: Option<PacketId>) {
        let Queued { message, qos, retain, .. } = queued;
        let (parts, token) = (&message.parts(), message.token());
        self.tell(fate, &Meant { session, parts, token, packet_id, qos: *qos, retain: *retain });
    }

    /// A session is about to end. What goes on to other members of a group is not lost with it; but not what a client may
    /// have, see [`Core::hand_on_all`].
    pub(super) fn tell_what_ends_with(&self, session_slot: u32) {
        if !self.wants(Callback::Dropped) {
            return;
        }
        let session = &self.sessions[session_slot as usize];
        let sent = session.in_flight.iter();
        let sent = sent.filter_map(|sent| Some((Some(sent.packet_id), Cow::Borrowed(sent.unsent()?))));
        let waiting = session.queue.iter().map(|queued| (None, queued));
        for (packet_id, queued) in sent.chain(waiting) {
            let may_be_there = packet_id.is_some() && queued.qos == QoS::ExactlyOnce;
            if queued.origin.group().is_none() || may_be_there {
                self.tell_queued(Fate::Dropped(DropReason::SessionEnded), session_slot, &queued, packet_id);
            }
        }
    }

    /// A message has waited for a client for too long.
    #[inline]
    pub(super) fn tell_expired(&self, meant: &Meant<'_>) {
        if self.wants(Callback::Expired) {
            self.tell(Fate::Expired, meant);
        }
    }

    #[cold]
    fn tell(&self, fate: Fate, meant: &Meant<'_>) {
        let client_id = self.sessions.get(meant.session as usize).map_or("", |session| &*session.client_id);
        self.tell_of(client_id, fate, meant);
    }

    /// A message was for a client that has no session.
    #[cold]
    pub(super) fn tell_no_session(&self, client_id: &str, meant: &Meant<'_>) {
        if self.wants(Callback::Dropped) {
            self.tell_of(client_id, Fate::Dropped(DropReason::SessionEnded), meant);
        }
    }

    fn tell_of(&self, client_id: &str, fate: Fate, meant: &Meant<'_>) {
        let Meant { parts, token, packet_id, qos, retain, .. } = *meant;
        let mut properties = Vec::new();
        let message = MessageParts { properties: complete(parts, self.now, &mut properties), ..*parts };
        let packet_id = packet_id.map(PacketId::get);
        self.plan.tell(fate, &MessageNotice { client_id, message, token, packet_id, qos, retain });
    }

    /// The retained message of a topic was stored or removed.
    #[inline]
    pub(super) fn tell_retained(&self, change: RetainChange, parts: &MessageParts<'_>) {
        if self.wants(Callback::Retained) {
            let mut properties = Vec::new();
            self.plan
                .retained(change, &MessageParts { properties: complete(parts, self.now, &mut properties), ..*parts });
        }
    }

    /// CONNACK is on its way. `false` if a plugin panicked.
    pub(super) fn tell_connected(&mut self, slot: u32, session_present: bool, took_over: bool) -> bool {
        let connection = &mut self.connections[slot as usize];
        let (Some(handlers), Some(session)) =
            (connection.handlers.as_mut(), self.sessions.get(connection.session as usize))
        else {
            return true;
        };
        if !handlers.implements(Callback::Connected) {
            return true;
        }
        let notice = ConnectedNotice {
            connection: connection.id,
            session_expiry: session.expiry_secs,
            keep_alive: connection.keep_alive_secs,
            session_present,
            took_over,
        };
        self.shared.chain.connected(handlers, &session.client_id, &notice).is_ok()
    }

    /// Whose token an acknowledged message has, and which.
    pub(super) fn token_of(queued: Option<&Queued>) -> (Source, u64) {
        queued.map_or((Source::Client, 0), |queued| (queued.message.source(), queued.message.token()))
    }

    /// A client has a message, or has refused it.
    #[inline]
    pub(super) fn tell_acknowledged(
        &self,
        code: ReasonCode,
        session: u32,
        queued: Option<&Queued>,
        packet_id: PacketId,
    ) {
        if let Some(queued) = queued
            && self.wants(Callback::Acknowledged)
        {
            self.tell_queued(Fate::Acknowledged(code), session, queued, Some(packet_id));
        }
    }
}

/// The properties of a message with what is left of its Message Expiry Interval, as handlers see them.
pub(super) fn complete<'a>(parts: &MessageParts<'a>, now: Millis, copy: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(secs) = parts.secs_left(now) else {
        return parts.properties;
    };
    let expiry = PropertiesBuf::new().with(Property::MessageExpiryInterval(secs));
    copy.clear();
    copy.extend_from_slice(parts.properties);
    copy.extend_from_slice(expiry.as_bytes());
    copy
}
