//! Deliveries that handlers decide on: each is asked about once, when it is about to be sent for the first time.
//!
//! Where no plugin implements `handle_deliver`, nothing of this runs. A message that waits in a queue is asked about when
//! its turn comes, as there may be no connection before; one that is sent again is what was sent before.

use plugin_api::{Callback, DropReason, Properties, QoS};

use super::Core;
use super::budget::Kept;
use super::connection::Closing;
use super::notices::{Meant, complete};
use super::publish::forwarded;
use super::session::Queued;
use super::templates::Class;
use crate::clock::Millis;
use crate::message::MessageParts;
use crate::plugin::{Cause, ChangedMessage, DeliverOutcome, DeliverRequest};

/// Time until a plugin is asked again that could not say, as a thread of the pool has the state, in milliseconds.
const RETRY_MS: u64 = 20;

/// How a message goes to a client, beyond its QoS.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// RETAIN of the packet.
    pub(super) retain: bool,
    /// A Shared Subscription has chosen the client.
    pub(super) shared: bool,
    /// Why now.
    pub(super) cause: Cause,
}

/// What handlers have made of a message that a session keeps.
pub(super) enum Asked {
    /// It may be sent.
    Send(Queued),
    /// It may be sent, and is another one than others get.
    Changed(Queued),
    /// It was dropped.
    Dropped,
    /// It has to wait: nobody can be asked now.
    Later(Queued),
}

impl Core {
    /// Sends a QoS 0 message if the handlers of its receiver let it pass.
    #[cold]
    #[inline(never)]
    pub(super) fn send_if_allowed(&mut self, slot: u32, how: How, identifiers: &[u32], parts: &MessageParts<'_>) {
        match self.ask_about_delivery(slot, how, identifiers, parts, (QoS::AtMostOnce, 0)) {
            DeliverOutcome::Send => self.send_now(slot, how, identifiers, parts),
            DeliverOutcome::Changed => {
                let delivered = std::mem::take(&mut self.delivered);
                let mut properties = Vec::new();
                let changed = changed_parts(&delivered, parts, self.now, &mut properties);
                let receivers = self.templates.alone();
                self.send_now(slot, How { retain: changed.retain, ..how }, identifiers, &changed);
                self.templates.together(receivers);
                self.delivered = delivered;
            }
            // There is no queue for what has to wait: who cannot be asked has not agreed.
            DeliverOutcome::Drop | DeliverOutcome::Later | DeliverOutcome::Failed => {
                let (session, qos) = (self.connections[slot as usize].session, QoS::AtMostOnce);
                self.dropped_by_handler(&Meant { session, parts, token: 0, packet_id: None, qos, retain: how.retain });
            }
        }
    }

    fn send_now(&mut self, slot: u32, how: How, identifiers: &[u32], parts: &MessageParts<'_>) {
        let class = Class { v5: self.connections[slot as usize].is_v5(), qos: QoS::AtMostOnce, retain: how.retain };
        self.append_at_most_once(slot, class, parts, identifiers);
    }

    /// Asks the handlers of a session's connection about a message that the session keeps. A changed one takes its place,
    /// so that it is the one that is sent again.
    #[cold]
    #[inline(never)]
    pub(super) fn ask_about_queued(&mut self, session_slot: u32, delivery: Queued, cause: Cause) -> Asked {
        let slot = self.sessions[session_slot as usize].connection;
        let parts = delivery.message.parts();
        let how = How { retain: delivery.retain, shared: delivery.origin.group().is_some(), cause };
        let (qos, token) = (delivery.qos, delivery.message.token());
        match self.ask_about_delivery(slot, how, delivery.origin.identifiers(), &parts, (qos, token)) {
            DeliverOutcome::Send => Asked::Send(delivery),
            DeliverOutcome::Changed => {
                let delivered = std::mem::take(&mut self.delivered);
                let mut properties = Vec::new();
                let changed = changed_parts(&delivered, &parts, self.now, &mut properties);
                let message = Kept::with_token(&changed, token, &self.account);
                let (qos, retain) = (delivered.qos, delivered.retain);
                let origin = delivery.origin.changed(delivery.message, &self.account);
                self.delivered = delivered;
                Asked::Changed(Queued { message, qos, retain, origin })
            }
            DeliverOutcome::Drop | DeliverOutcome::Failed => {
                let (session, retain) = (session_slot, delivery.retain);
                self.dropped_by_handler(&Meant { session, parts: &parts, token, packet_id: None, qos, retain });
                Asked::Dropped
            }
            DeliverOutcome::Later => Asked::Later(delivery),
        }
    }

    /// A changed message is in `delivered` afterwards.
    fn ask_about_delivery(
        &mut self,
        slot: u32,
        how: How,
        identifiers: &[u32],
        parts: &MessageParts<'_>,
        (qos, token): (QoS, u64),
    ) -> DeliverOutcome {
        // The plugins that the plan names decide, not those that they have replaced.
        if let Some(closing) = self.move_over(slot) {
            self.close_soon(slot, closing);
            return DeliverOutcome::Later;
        }
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let Some(handlers) = connection.handlers.as_mut() else {
            return DeliverOutcome::Failed;
        };
        if !handlers.implements(Callback::Deliver) {
            return DeliverOutcome::Send;
        }
        let mut properties = Vec::new();
        let request = DeliverRequest {
            topic: parts.topic,
            payload: parts.payload,
            properties: complete(parts, self.now, &mut properties),
            identifiers,
            qos,
            retain: how.retain,
            shared: how.shared,
            source: parts.source,
            token,
            cause: how.cause,
        };
        let outcome = self.shared.chain.deliver(handlers, who, &request, &mut self.delivered);
        match outcome {
            DeliverOutcome::Failed => self.close_soon(slot, Closing::failed()),
            // A question that is open comes to its end, and has it looked at then; for anything else there is no mail.
            DeliverOutcome::Later if !self.connections[slot as usize].is_waiting => {
                self.arm_connection(slot, self.now + RETRY_MS);
            }
            DeliverOutcome::Later | DeliverOutcome::Send | DeliverOutcome::Changed | DeliverOutcome::Drop => {}
        }
        outcome
    }

    fn dropped_by_handler(&self, meant: &Meant<'_>) {
        self.counters().dropped_by_handler.add(1);
        self.tell_dropped(DropReason::Handler, meant);
    }

    /// Has a connection closed at the end of the turn: here somebody is in the middle of delivering, and a connection that
    /// ends publishes a will. Until then it is sent nothing that could wait.
    fn close_soon(&mut self, slot: u32, closing: Closing) {
        let connection = &mut self.connections[slot as usize];
        // No Receive Maximum is 0, so this says that it is on the list as well.
        if std::mem::replace(&mut connection.in_flight_max, 0) != 0 {
            let id = connection.id;
            self.closing_soon.push((slot, id, closing));
        }
    }

    /// Closes those connections.
    pub(super) fn close_late(&mut self) {
        while let Some((slot, id, closing)) = self.closing_soon.pop() {
            if self.connections.get(slot as usize).is_some_and(|connection| connection.id == id) {
                self.close(slot, closing);
            }
        }
    }
}

/// What handlers have made of a message. `properties` keeps those that go on.
fn changed_parts<'a>(
    changed: &'a ChangedMessage,
    before: &MessageParts<'_>,
    now: Millis,
    properties: &'a mut Vec<u8>,
) -> MessageParts<'a> {
    let given = Properties::from_trusted(&changed.properties);
    let mut expires_at = forwarded(given, properties, now);
    // They were shown whole seconds; who leaves them as they are does not prolong its life.
    if given.message_expiry_interval() == before.secs_left(now) {
        expires_at = before.expires_at;
    }
    MessageParts {
        topic: &changed.topic,
        payload: &changed.payload,
        properties,
        qos: changed.qos,
        retain: changed.retain,
        expires_at,
        source: before.source,
        as_it_came: None,
    }
}
