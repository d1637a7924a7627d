//! What plugins ask for: messages for `handle_info`, and disconnecting.

use std::sync::Arc;

use plugin_api::{
    ConnectionId, DisconnectKind, DropReason, InfoSender, Properties, PropertiesBuf, Property, QoS, ReasonCode,
};

use super::budget::Kept;
use super::connection::{Closing, NONE, Phase};
use super::deferred::{Came, Question};
use super::deliver::How;
use super::mail::{InfoMail, InfoTarget, Mail, SendTarget};
use super::notices::Meant;
use super::publish::forwarded;
use super::session::{Origin, Queued};
use super::timers::Subject;
use super::{CONNECTION_ID_WORKER_SHIFT, Core, slot_of};
use crate::clock::Millis;
use crate::message::{Message, MessageParts, Source};
use crate::plugin::{Cause, Cursor, InfoAction, InfoOutcome, InfoRequest, OwnedMessage};

/// Requests about connections that may be on their way to a worker, and how long they are kept, in milliseconds. Handing
/// a connection over takes a turn of two workers.
const EARLY_MAILS_MAX: usize = 256;
pub(super) const EARLY_MS: u64 = 1000;

impl Core {
    /// Does what a plugin has asked for.
    pub(super) fn on_request(&mut self, mail: Mail) {
        match mail {
            Mail::Publish(message) => self.publish_from_plugin(&message),
            Mail::Send { ref target, ref message } => self.on_send(target, message),
            Mail::Info(info) => self.on_info(info),
            Mail::Disconnect { connection, .. } if self.slot_of_connection(connection).is_none() => {
                self.keep_early(connection, mail);
            }
            Mail::Disconnect { connection, reason_code, properties } => {
                self.disconnect(connection, reason_code, &properties);
            }
            Mail::CancelTimer { plugin, timer } => self.cancel_timer(plugin, timer),
            Mail::Query(query) => self.begin_query(*query),
            Mail::Subscribe(subscribe) => self.subscribe_for(&subscribe),
            Mail::Reauthorise { target, poll } => self.begin_to_reauthorise(&target, poll),
            Mail::Plan => {} // It has woken the worker, which looks by itself.
            Mail::Answer { connection, ticket, answered } => self.on_answer(connection, ticket, answered),
            Mail::Limits(limits) => self.set_limits(&limits),
            Mail::Stop => self.shutdown(self.now),
        }
    }

    /// Disconnects one Network Connection.
    fn disconnect(&mut self, connection: u64, reason_code: ReasonCode, properties: &[u8]) {
        if let Some(slot) = self.slot_of_connection(connection) {
            let closing = Closing::telling(DisconnectKind::ServerDisconnect, reason_code);
            self.close(slot, closing.with_properties(Properties::from_trusted(properties).into()));
        }
    }

    /// Keeps a request about a connection that is not here: it may be on its way from the worker that accepted it, which
    /// got the same request and may have let it go before.
    fn keep_early(&mut self, connection: u64, mail: Mail) {
        if connection >> CONNECTION_ID_WORKER_SHIFT == self.worker as u64 {
            return; // It was accepted here, and does not come back.
        }
        if self.early.len() >= EARLY_MAILS_MAX {
            self.early.pop_front();
        }
        let until = self.now + EARLY_MS;
        self.early.push_back(EarlyMail { until, connection, mail });
        self.timers.arm(self.now, until, Subject::Early);
    }

    /// Forgets requests about connections that have not come.
    pub(super) fn early_due(&mut self) {
        while self.early.front().is_some_and(|early| early.until <= self.now) {
            self.early.pop_front();
        }
    }

    /// Does what was asked about a connection that has just come.
    pub(super) fn deliver_early(&mut self, connection: u64) {
        for _ in 0..self.early.len() {
            let early = self.early.pop_front().expect("counted before");
            if early.connection == connection {
                self.on_request(early.mail);
            } else {
                self.early.push_back(early);
            }
        }
    }

    fn on_info(&mut self, info: Box<InfoMail>) {
        if info.delay_ms == 0 {
            return match info.target {
                InfoTarget::Connection(id) if self.slot_of_connection(id).is_none() => {
                    self.keep_early(id, Mail::Info(info));
                }
                _ => self.deliver_info(&info),
            };
        }
        self.begin_timer(info);
    }

    pub(super) fn deliver_info(&mut self, info: &InfoMail) {
        match &info.target {
            InfoTarget::Connection(id) => {
                if let Some(slot) = self.slot_of_connection(*id) {
                    self.info_to(slot, info);
                }
            }
            InfoTarget::Client(client_id) => {
                let session = self.slot_of_client(client_id).map(|slot| &self.sessions[slot as usize]);
                if let Some(slot) = session.map(|session| session.connection).filter(|slot| *slot != NONE) {
                    self.info_to(slot, info);
                }
            }
            InfoTarget::All => {
                let slots: Vec<u32> = self.connections.iter().map(|(slot, _)| slot_of(slot)).collect();
                for slot in slots {
                    self.info_to(slot, info);
                }
            }
            InfoTarget::Plugin => {
                // It may be from an instance that this worker does not know of yet.
                self.look_at_plan();
                self.plan.event(info.plugin, &request(info));
            }
        }
    }

    pub(super) fn info_to(&mut self, slot: u32, info: &InfoMail) {
        if self.keep_info(slot, info) {
            return;
        }
        // It may be from an instance that the connection has not gone over to yet.
        self.look_at_plan();
        if !self.conform(slot) {
            return;
        }
        let connection = &mut self.connections[slot as usize];
        if connection.phase != Phase::Connected {
            return;
        }
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let Some(handlers) = connection.handlers.as_mut() else {
            return;
        };
        match self.shared.chain.info(handlers, who, Some(info.plugin), &request(info)) {
            InfoOutcome::Actions(actions) => self.act(slot, info.plugin, actions),
            InfoOutcome::Failed => self.close_failed(slot),
            InfoOutcome::Deferred(cursor) => self.wait_for(slot, cursor, Question::Info(Box::new(info.clone()))),
        }
    }

    /// Goes on with a message about which a plugin has answered later, or not in time.
    pub(super) fn resume_info(&mut self, slot: u32, info: Box<InfoMail>, cursor: Cursor, came: Came) {
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let (Came::Answer(answered), Some(handlers)) = (came, connection.handlers.as_mut()) else {
            return; // There is nothing to refuse.
        };
        let plugin = Some(info.plugin);
        match self.shared.chain.resume_info(handlers, who, plugin, &request(&info), cursor, *answered) {
            InfoOutcome::Actions(actions) => self.act(slot, info.plugin, actions),
            InfoOutcome::Failed => self.close_failed(slot),
            InfoOutcome::Deferred(cursor) => self.wait_for(slot, cursor, Question::Info(info)),
        }
    }

    /// Does what `handle_info` has answered, in order, until the connection ends.
    fn act(&mut self, slot: u32, plugin: usize, actions: Vec<InfoAction>) {
        for action in actions {
            match action {
                InfoAction::Publish(message) => self.publish_to_client(slot, plugin, &message),
                InfoAction::Disconnect { reason_code, properties } => {
                    let closing = Closing::telling(DisconnectKind::ServerDisconnect, reason_code);
                    return self.close(slot, closing.with_properties(properties));
                }
                InfoAction::Stop { reason } => {
                    let mut properties = PropertiesBuf::default();
                    // Without a DISCONNECT packet; the text is for `handle_disconnect`, and cut to what a string may have.
                    let _ = properties.push(Property::ReasonString(&reason));
                    let closing = Closing::silent(DisconnectKind::Stopped, ReasonCode::ADMINISTRATIVE_ACTION);
                    return self.close(slot, closing.with_properties(properties));
                }
            }
        }
    }

    /// Sends a message to the client of a connection, whatever it has subscribed to.
    fn publish_to_client(&mut self, slot: u32, plugin: usize, message: &OwnedMessage) {
        let mut properties = Vec::new();
        let expires_at = forwarded(Properties::from_trusted(&message.properties), &mut properties, self.now);
        let parts = MessageParts {
            topic: &message.topic,
            payload: &message.payload,
            properties: &properties,
            qos: message.qos,
            retain: message.retain,
            expires_at,
            source: Source::Plugin { index: u8::try_from(plugin).unwrap_or(Source::NO_PLACE), hops: 1 },
            as_it_came: None,
        };
        self.send_to_session(self.connections[slot as usize].session, &parts, message.token);
    }

    /// Sends a message that a plugin has for one connection or client. One for a client whose session is not here is
    /// dropped: it has none.
    fn on_send(&mut self, target: &SendTarget, message: &Arc<Message>) {
        let session = match target {
            SendTarget::Connection(id) => match self.slot_of_connection(*id) {
                Some(slot) => Some(self.connections[slot as usize].session).filter(|session| *session != NONE),
                None => {
                    let mail = Mail::Send { target: target.clone(), message: Arc::clone(message) };
                    return self.keep_early(*id, mail);
                }
            },
            SendTarget::Client(client_id) => self.slot_of_client(client_id),
        };
        let (parts, token) = (message.parts(), message.token());
        match session {
            _ if message.is_expired(self.now) => {
                self.counters().dropped_expired.add(1); // [MQTT-3.3.2-5]
                let session = session.unwrap_or(NONE);
                self.tell_expired(&Meant { session, token, ..Meant::for_anybody(&parts) });
            }
            Some(session) => self.send_to_session(session, &parts, token),
            None => {
                let client_id = if let SendTarget::Client(client_id) = target { client_id } else { "" };
                self.tell_no_session(client_id, &Meant { token, ..Meant::for_anybody(&parts) });
            }
        }
    }

    /// Sends a message to one session, at once or when its client is there. With QoS 0 it does not wait for a client,
    /// unless the server keeps such messages.
    fn send_to_session(&mut self, session_slot: u32, parts: &MessageParts<'_>, token: u64) {
        let session = &self.sessions[session_slot as usize];
        let slot = session.connection;
        let waits = self.shared.limits.queue_qos0 && (slot == NONE || !session.queue.is_empty());
        self.templates.begin(1);
        if parts.qos == QoS::AtMostOnce && !waits {
            if slot == NONE {
                let meant = Meant { session: session_slot, token, ..Meant::for_anybody(parts) };
                return self.tell_dropped(DropReason::SessionEnded, &meant);
            }
            let how = How { retain: parts.retain, shared: false, cause: Cause::Sent };
            return self.send_at_most_once(slot, how, &[], parts);
        }
        let delivery = Queued {
            message: Kept::with_token(parts, token, &self.account),
            qos: parts.qos,
            retain: parts.retain,
            origin: Origin::Sent,
        };
        if parts.qos == QoS::AtMostOnce {
            self.enqueue(session_slot, delivery);
        } else {
            self.send_or_queue(session_slot, delivery, parts, Cause::Sent);
        }
    }
}

/// What a handler is shown of a message for `handle_info`.
fn request(info: &InfoMail) -> InfoRequest<'_> {
    // What was delayed comes from a timer, whoever set it.
    let sender = match (info.delay_ms, info.from_connection) {
        (0, 0) => InfoSender::Plugin,
        (0, connection) => InfoSender::Connection(ConnectionId(connection)),
        _ => InfoSender::Timer,
    };
    InfoRequest { kind: &info.kind, data: &info.data, sender, timer: info.timer }
}

/// A request about a connection that may be on its way to this worker.
pub(super) struct EarlyMail {
    until: Millis,
    connection: u64,
    mail: Mail,
}
