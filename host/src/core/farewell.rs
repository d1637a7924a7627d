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
use super::delayed_wills::Known;
use super::publish::forwarded;
use super::session::{AcceptedWill, WillBody};
use super::timers::Subject;
use crate::clock::Millis;
use crate::message::{MessageParts, Source};
use crate::plugin::{
    Answered, Cursor, DisconnectReason, Handlers, OwnedMessage, Permissions, PublishFields, PublishOutcome,
    PublishRequest,
};
use crate::router::SessionKey;

/// Time that a plugin has for an answer while the server stops, in milliseconds: there may be two of them, and stopping
/// has a bound.
const STOPPING_MS: u64 = 1_000;

/// A connection that has ended and whose plugins have not all been told.
pub(super) struct Farewell {
    handlers: Handlers,
    who: Box<str>,
    /// What the plugins are told; `None` where they have been told already.
    closing: Option<Closing>,
    will: Option<LastWill>,
    fate: Fate,
    /// Whether it is the will that was asked about.
    asks_will: bool,
    /// The callback that has not answered, and where the chain stands.
    callback: Callback,
    cursor: Option<Box<Cursor>>,
    deadline: Millis,
    counted_bytes: usize,
}

/// The will of a connection that has ended.
pub(super) struct LastWill {
    pub(super) will: Will,
    /// Whose it is, if it waits once plugins have let it pass; see [`delayed_wills`](super::delayed_wills).
    pub(super) known: Vec<u8>,
    /// [`Chain::permissions`](crate::plugin::Chain::permissions) when plugins were asked about it.
    pub(super) asked_at: Permissions,
    /// They have let it pass already, and are asked once more.
    pub(super) again: bool,
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
        let will = self.will.as_ref().map_or(0, |LastWill { will, known, .. }| {
            will.topic.len() + will.payload.len() + will.properties.len() + known.len()
        });
        let cursor = self.cursor.as_ref().map_or(0, |cursor| cursor.bytes());
        let closing = self.closing.as_ref().map_or(0, |closing| closing.properties.as_bytes().len());
        size_of::<Self>() + will + cursor + closing
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
        handlers: Handlers,
        who: Box<str>,
        closing: Closing,
        will: Option<LastWill>,
        waiting: Option<Box<Waiting>>,
    ) -> Option<(u32, WillBody)> {
        let delay = will.as_ref().map(|last| last.will.delay_secs);
        let undecided = delay.map(|delay| (delay, WillBody::Undecided(connection)));
        let (fate, closing) = (Fate::Now, Some(closing));
        if let Some(waiting) = waiting.filter(|waiting| !waiting.withdraw(&self.shared.chain)) {
            let (callback, cursor, came, deadline) = waiting.into_cursor();
            let (asks_will, cursor, counted_bytes) = (false, Some(cursor), 0);
            let farewell =
                Farewell { handlers, who, closing, will, fate, asks_will, callback, cursor, deadline, counted_bytes };
            self.wait_to_part(connection, Box::new(farewell), came);
            return undecided;
        }
        let Some(last) = will else {
            self.part(handlers, &who, closing.as_ref());
            return None;
        };
        match self.put_to_plugins(connection, handlers, who, closing, last) {
            Some(accepted) => delay.zip(accepted.map(WillBody::Accepted)),
            None => undecided,
        }
    }

    /// Asks once more about a will that has waited, with states that are there for that, and publishes it if it may be.
    pub(super) fn ask_about_will(&mut self, connection: u64, handlers: Handlers, who: &str, last: LastWill) {
        if let Some(accepted) = self.put_to_plugins(connection, handlers, who.into(), None, last) {
            self.decide_will(connection, Fate::Now, accepted);
        }
    }

    /// Asks about the will of a connection that has ended, and tells its plugins. `None`: one of them answers later.
    fn put_to_plugins(
        &mut self,
        connection: u64,
        mut handlers: Handlers,
        who: Box<str>,
        closing: Option<Closing>,
        mut last: LastWill,
    ) -> Option<Option<AcceptedWill>> {
        let mut changed = std::mem::take(&mut self.changed);
        let chain = &self.shared.chain;
        last.asked_at = chain.permissions(handlers.epoch());
        let request = request(&last.will);
        let outcome = if last.again {
            chain.publish_again(&mut handlers, &who, &request, &mut changed)
        } else {
            chain.publish(&mut handlers, &who, &request, &mut changed)
        };
        let (mut accepted, cursor) = self.accept_will(&last, outcome, &changed);
        self.changed = changed;
        if let Some(cursor) = cursor {
            let came = self.shared.chain.wait(&handlers, &cursor, self.worker).map(Came::Answer);
            let (asks_will, callback, cursor, fate) = (true, Callback::Publish, Some(cursor), Fate::Now);
            let (deadline, counted_bytes, will) = (self.will_deadline(), 0, Some(last));
            let farewell =
                Farewell { handlers, who, closing, will, fate, asks_will, callback, cursor, deadline, counted_bytes };
            self.wait_to_part(connection, Box::new(farewell), came);
            return None;
        }
        self.keep_known(&mut handlers, &who, &mut last, accepted.as_mut());
        self.part(handlers, &who, closing.as_ref());
        Some(accepted)
    }

    /// Keeps what the plugins know of whose will it is, for when they are asked once more.
    fn keep_known(&self, handlers: &mut Handlers, who: &str, last: &mut LastWill, accepted: Option<&mut AcceptedWill>) {
        if let Some(accepted) = accepted.filter(|_| !last.known.is_empty()) {
            handlers.leave(who, &mut last.known);
            accepted.known = Some(Known::new(&last.known, &self.account));
        }
    }

    fn will_deadline(&self) -> Millis {
        let ms = self.shared.limits.answer_deadline_ms(Callback::Publish);
        self.now + if self.stopping { ms.min(STOPPING_MS) } else { ms }
    }

    fn part(&mut self, mut handlers: Handlers, who: &str, closing: Option<&Closing>) {
        let Some(closing) = closing else { return self.shared.chain.forget(handlers, who) };
        let reason = DisconnectReason { kind: closing.kind, reason_code: closing.reason_code, text: closing.text() };
        self.shared.chain.disconnect(&mut handlers, who, &reason);
    }

    /// What the plugins have decided about a will: the message, or where they stand.
    fn accept_will(
        &self,
        LastWill { will, asked_at, .. }: &LastWill,
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
        let (expiry_secs, allowed_at) = (given.message_expiry_interval(), Some(*asked_at));
        (Some(AcceptedWill { message, expiry_secs, allowed_at, known: None }), None)
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
        let outcome = match (&mut farewell.will, answered) {
            (Some(last), Some((cursor, answered))) if farewell.asks_will => {
                Some(chain.resume_publish(handlers, &who, &request(&last.will), &mut changed, cursor, answered))
            }
            _ if farewell.asks_will => None,
            (will, answered) => {
                if let Some((cursor, answered)) = answered {
                    chain.abandon(handlers, farewell.callback, &who, &cursor, answered);
                }
                let will = will.as_mut().filter(|_| farewell.fate != Fate::Discarded);
                will.map(|last| {
                    last.asked_at = chain.permissions(handlers.epoch());
                    chain.publish(handlers, &who, &request(&last.will), &mut changed)
                })
            }
        };
        let decided =
            farewell.will.as_ref().zip(outcome).map(|(will, outcome)| self.accept_will(will, outcome, &changed));
        self.changed = changed;
        let (mut accepted, cursor) = decided.unwrap_or_default();
        if let Some(cursor) = cursor {
            farewell.deadline = self.will_deadline();
            let came = chain.wait(&farewell.handlers, &cursor, self.worker).map(Came::Answer);
            (farewell.callback, farewell.cursor, farewell.asks_will) = (Callback::Publish, Some(cursor), true);
            return self.wait_to_part(connection, Box::new(farewell), came);
        }
        if let Some(last) = farewell.will.as_mut().filter(|_| matches!(farewell.fate, Fate::Waits(_))) {
            self.keep_known(&mut farewell.handlers, &who, last, accepted.as_mut());
        }
        self.part(farewell.handlers, &who, farewell.closing.as_ref());
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
