//! What comes after the end of a connection: its will is put to the chain, then `handle_disconnect` is told, once.
//!
//! All of it happens at once where no plugin answers later. Otherwise the states of the plugins outlive the connection, as a
//! farewell: it waits for the question that was open, whose answer is nobody's any more, and asks about the will, which may
//! wait for an answer itself. The session goes its way meanwhile, and says what becomes of the will. A question about who the
//! client is that has no thread of the pool yet is taken back instead.

use plugin_api::{Callback, Properties};

use super::Core;
use super::budget::Kept;
use super::connection::{Closing, Will};
use super::deferred::{Came, Waiting};
use super::publish::forwarded;
use super::session::{AcceptedWill, WillBody};
use super::timers::Subject;
use crate::clock::Millis;
use crate::message::{MessageParts, Source};
use crate::plugin::{
    Answered, Cursor, DisconnectReason, Handlers, OwnedMessage, PublishFields, PublishOutcome, PublishRequest,
};
use crate::router::SessionKey;

/// Time that a plugin has for an answer while the server stops, in milliseconds: there may be two of them, and stopping
/// has a bound.
const STOPPING_MS: u64 = 1_000;

/// A connection that has ended and whose plugins have not all been told.
pub(super) struct Farewell {
    handlers: Handlers,
    who: Box<str>,
    closing: Closing,
    will: Option<Will>,
    fate: Fate,
    /// Whether it is the will that was asked about.
    asks_will: bool,
    /// The callback that has not answered, and where the chain stands.
    callback: Callback,
    cursor: Option<Box<Cursor>>,
    deadline: Millis,
    counted_bytes: usize,
}

/// What becomes of a will, if the plugins let it pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is published as soon as they have.
    Now,
    /// It waits in its session for its Will Delay Interval.
    Waits(SessionKey),
    /// Its client has come back in time [MQTT-3.1.3-9].
    Discarded,
}

impl Farewell {
    fn bytes(&self) -> usize {
        let will = self.will.as_ref();
        let will = will.map_or(0, |will| will.topic.len() + will.payload.len() + will.properties.len());
        let cursor = self.cursor.as_ref().map_or(0, |cursor| cursor.bytes());
        size_of::<Self>() + will + cursor + self.closing.properties.as_bytes().len()
    }
}

impl Core {
    /// Connections that have ended and whose plugins have not all been told, because one of them has not answered yet.
    #[must_use]
    pub fn farewells(&self) -> usize {
        self.farewells.len()
    }

    /// Asks about the will of a connection that has ended and tells its plugins, now or when a question that is open has come
    /// to its end. Returns the will with its delay, if it is published or may still be.
    pub(super) fn bid_farewell(
        &mut self,
        connection: u64,
        mut handlers: Handlers,
        who: Box<str>,
        closing: Closing,
        will: Option<Will>,
        waiting: Option<Box<Waiting>>,
    ) -> Option<(u32, WillBody)> {
        let delay = will.as_ref().map(|will| will.delay_secs);
        let undecided = delay.map(|delay| (delay, WillBody::Undecided(connection)));
        let fate = Fate::Now;
        if let Some(waiting) = waiting.filter(|waiting| !waiting.withdraw(&self.shared.chain)) {
            let (callback, cursor, came, deadline) = waiting.into_cursor();
            let (asks_will, cursor, counted_bytes) = (false, Some(cursor), 0);
            let farewell =
                Farewell { handlers, who, closing, will, fate, asks_will, callback, cursor, deadline, counted_bytes };
            self.wait_to_part(connection, Box::new(farewell), came);
            return undecided;
        }
        let mut accepted = None;
        if let Some(will) = will {
            let mut changed = std::mem::take(&mut self.changed);
            let outcome = self.shared.chain.publish(&mut handlers, &who, &request(&will), &mut changed);
            let (decided, cursor) = self.accept_will(&will, outcome, &changed);
            self.changed = changed;
            if let Some(cursor) = cursor {
                let came = self.shared.chain.wait(&handlers, &cursor, self.worker).map(Came::Answer);
                let (will, asks_will, callback, cursor) = (Some(will), true, Callback::Publish, Some(cursor));
                let (deadline, counted_bytes) = (self.will_deadline(), 0);
                let farewell = Farewell {
                    handlers,
                    who,
                    closing,
                    will,
                    fate,
                    asks_will,
                    callback,
                    cursor,
                    deadline,
                    counted_bytes,
                };
                self.wait_to_part(connection, Box::new(farewell), came);
                return undecided;
            }
            accepted = decided.map(WillBody::Accepted);
        }
        self.part(handlers, &who, &closing);
        delay.zip(accepted)
    }

    fn will_deadline(&self) -> Millis {
        let ms = self.shared.limits.answer_deadline_ms(Callback::Publish);
        self.now + if self.stopping { ms.min(STOPPING_MS) } else { ms }
    }

    fn part(&mut self, mut handlers: Handlers, who: &str, closing: &Closing) {
        let reason = DisconnectReason { kind: closing.kind, reason_code: closing.reason_code, text: closing.text() };
        self.shared.chain.disconnect(&mut handlers, who, &reason);
    }

    /// What the plugins have decided about a will: the message, or where they stand.
    fn accept_will(
        &self,
        will: &Will,
        outcome: PublishOutcome,
        changed: &OwnedMessage,
    ) -> (Option<AcceptedWill>, Option<Box<Cursor>>) {
        let (topic, payload, properties, qos, retain) = match outcome {
            // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
            PublishOutcome::Forward => (&*will.topic, &*will.payload, &*will.properties, will.qos, will.retain),
            PublishOutcome::Changed => {
                (&*changed.topic, &*changed.payload, &*changed.properties, changed.qos, changed.retain)
            }
            PublishOutcome::Deferred(cursor) => return (None, Some(cursor)),
            PublishOutcome::Handled
            | PublishOutcome::Reject { .. }
            | PublishOutcome::Disconnect { .. }
            | PublishOutcome::Failed => return (None, None),
        };
        let given = Properties::from_trusted(properties);
        let mut properties = Vec::new();
        forwarded(given, &mut properties, self.now);
        let (expires_at, source) = (Millis::NEVER, Source::Will);
        let properties = &properties[..];
        let parts = MessageParts { topic, payload, properties, qos, retain, expires_at, source, as_it_came: None };
        let message = Kept::new(&parts, &self.account);
        (Some(AcceptedWill { message, expiry_secs: given.message_expiry_interval() }), None)
    }

    /// Keeps a farewell until its question has come to its end, or goes on if it has.
    fn wait_to_part(&mut self, connection: u64, mut farewell: Box<Farewell>, came: Option<Came>) {
        if self.stopping {
            farewell.deadline = farewell.deadline.min(self.now + STOPPING_MS);
        }
        let deadline = farewell.deadline;
        farewell.counted_bytes = farewell.bytes();
        self.account.add(farewell.counted_bytes);
        self.farewells.insert(connection, farewell);
        match came {
            // In the next turn: its session has to say first what becomes of the will.
            Some(came) => self.partings.push_back((connection, came)),
            None => self.timers.arm(self.now, deadline, Subject::Farewell(connection)),
        }
    }

    /// An answer has come that no connection waits for.
    pub(super) fn answer_farewell(&mut self, connection: u64, ticket: u64, answered: Box<Answered>) {
        let cursor = self.farewells.get(&connection).and_then(|farewell| farewell.cursor.as_ref());
        if cursor.is_some_and(|cursor| cursor.ticket() == ticket) {
            self.partings.push_back((connection, Came::Answer(answered)));
        }
    }

    /// A farewell has waited for long enough, perhaps.
    pub(super) fn farewell_due(&mut self, connection: u64) {
        let Some(farewell) = self.farewells.get_mut(&connection) else {
            return;
        };
        if self.now < farewell.deadline {
            return self.timers.arm(self.now, farewell.deadline, Subject::Farewell(connection));
        }
        if self.partings.iter().any(|(other, _)| *other == connection) {
            return;
        }
        let Farewell { callback, who, cursor, .. } = &**farewell;
        if let Some(cursor) = cursor {
            self.shared.chain.expire(*callback, who, cursor);
        }
        self.counters().answers_late.add(1);
        self.partings.push_back((connection, Came::Late));
    }

    /// Goes on with the farewells that can.
    pub(super) fn continue_parting(&mut self) {
        for _ in 0..self.partings.len() {
            if let Some((connection, came)) = self.partings.pop_front()
                && let Some(farewell) = self.farewells.remove(&connection)
            {
                self.spend(1);
                self.account.sub(farewell.counted_bytes);
                self.go_on_parting(connection, *farewell, came);
            }
        }
    }

    fn go_on_parting(&mut self, connection: u64, mut farewell: Farewell, came: Came) {
        let (chain, who) = (self.shared.chain.clone(), farewell.who.clone());
        let mut changed = std::mem::take(&mut self.changed);
        let (handlers, cursor) = (&mut farewell.handlers, farewell.cursor.take());
        let answered = match came {
            Came::Answer(answered) => cursor.map(|cursor| (*cursor, *answered)),
            Came::Late => None,
        };
        let outcome = match (&farewell.will, answered) {
            (Some(will), Some((cursor, answered))) if farewell.asks_will => {
                Some(chain.resume_publish(handlers, &who, &request(will), &mut changed, cursor, answered))
            }
            _ if farewell.asks_will => None,
            (will, answered) => {
                if let Some((cursor, answered)) = answered {
                    chain.abandon(handlers, farewell.callback, &who, &cursor, answered);
                }
                let will = will.as_ref().filter(|_| farewell.fate != Fate::Discarded);
                will.map(|will| chain.publish(handlers, &who, &request(will), &mut changed))
            }
        };
        let decided =
            farewell.will.as_ref().zip(outcome).map(|(will, outcome)| self.accept_will(will, outcome, &changed));
        self.changed = changed;
        let (accepted, cursor) = decided.unwrap_or_default();
        if let Some(cursor) = cursor {
            farewell.deadline = self.will_deadline();
            let came = chain.wait(&farewell.handlers, &cursor, self.worker).map(Came::Answer);
            (farewell.callback, farewell.cursor, farewell.asks_will) = (Callback::Publish, Some(cursor), true);
            return self.wait_to_part(connection, Box::new(farewell), came);
        }
        self.part(farewell.handlers, &who, &farewell.closing);
        self.decide_will(connection, farewell.fate, accepted);
    }

    /// The plugins have decided about a will.
    fn decide_will(&mut self, connection: u64, fate: Fate, accepted: Option<AcceptedWill>) {
        match (fate, accepted) {
            (Fate::Discarded, _) | (Fate::Now, None) => {}
            (Fate::Now, Some(will)) => self.publish_will(&will),
            (Fate::Waits(key), accepted) => {
                let session = self.sessions.get_mut(key.slot as usize).filter(|session| session.serial == key.serial);
                let waits = |body: &WillBody| matches!(body, WillBody::Undecided(of) if *of == connection);
                let Some(session) = session else { return };
                let will = session.away.as_mut().and_then(|away| away.will.as_mut());
                let Some(will) = will.filter(|will| waits(&will.body)) else { return };
                match accepted {
                    Some(accepted) => {
                        will.body = WillBody::Accepted(accepted);
                        self.journal_delayed_will(key.slot);
                    }
                    None => {
                        drop(session.take_away(|away| &mut away.will));
                        self.journal_will_gone(key.slot);
                    }
                }
            }
        }
    }

    /// The will of a connection that plugins have not decided about waits in a session, once they have.
    pub(super) fn decide_later(&mut self, connection: u64, session: SessionKey) {
        if let Some(farewell) = self.farewells.get_mut(&connection) {
            farewell.fate = Fate::Waits(session);
        }
    }

    /// Says what becomes of a will that has left its session, or has never waited there.
    pub(super) fn settle_will(&mut self, body: &WillBody, fate: Fate) {
        match body {
            WillBody::Accepted(will) if fate == Fate::Now => self.publish_will(will),
            WillBody::Accepted(_) => {}
            WillBody::Undecided(connection) => {
                if let Some(farewell) = self.farewells.get_mut(connection) {
                    farewell.fate = fate;
                }
            }
        }
    }

    /// Whether plugins have not decided yet about a will that is published if they let it pass.
    pub(crate) fn has_undecided_wills(&self) -> bool {
        self.farewells.values().any(|farewell| farewell.will.is_some() && farewell.fate != Fate::Discarded)
    }

    /// The server stops, or another process takes over: no plugin is waited for any longer than that allows.
    pub(super) fn hasten_farewells(&mut self) {
        let at = self.now + STOPPING_MS;
        for (connection, farewell) in &mut self.farewells {
            if farewell.deadline > at {
                farewell.deadline = at;
                self.timers.arm(self.now, at, Subject::Farewell(*connection));
            }
        }
    }
}

/// What handlers are shown of a will.
fn request(will: &Will) -> PublishRequest<'_> {
    PublishRequest::new(PublishFields {
        topic: &will.topic,
        payload: &will.payload,
        properties: &will.properties,
        qos: will.qos,
        retain: will.retain,
        dup: false,
        packet_id: None,
        will: true,
    })
}
