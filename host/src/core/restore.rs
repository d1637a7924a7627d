//! What outlived the last server comes back: a worker applies the [`Change`]s of its sessions before anybody is let in.
//!
//! The store gives what its changes have made of the sessions, which is a few kinds of them only; but any journal may be
//! applied. Nothing is sent, published or asked about by that, and nothing is written into the worker's own journal.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use foldhash::fast::RandomState;
use plugin_api::topic::{self, Share};

use super::budget::{Account, Kept, session_bytes};
use super::delayed_wills::Known;
use super::in_flight::behind;
use super::packets::{End, Kind, Row};
use super::route::{Outgoing, Wanted};
use super::session::{
    AcceptedWill, Awaiting, DelayedWill, EXPIRY_NEVER, InFlight, Origin, Queued, Session, Subscription, WillBody,
};
use super::subscribe::Asked;
use super::timers::Subject;
use super::{Core, NONE, owner_of};
use crate::clock::{Millis, WallMillis};
use crate::durable::change::{
    self, Change, ChangeError, Changes, Delivery, Due, Messages, Packets, StoredMessage, Terms,
};
use crate::message::{MessageParts, Places};
use crate::plugin::LastStates;

/// What is known while sessions come back.
pub(super) struct Restoring {
    /// What the wall clock showed when the server's clock showed zero.
    zero: WallMillis,
    /// What the places of plugins in the store are here.
    places: Places,
    /// Slots of sessions by their numbers.
    sessions: HashMap<u64, u32, RandomState>,
    /// Those of the journal that is applied, by their numbers.
    bodies: Vec<Kept>,
    /// How many workers there were where it was written.
    workers: u16,
    /// Sessions, by slot and serial, whose clients the last server had: their intervals begin now, which is to stand in a
    /// journal.
    lost: HashMap<u32, u32, RandomState>,
    /// Messages that were on their way between workers, by these.
    in_transit: HashMap<(u16, u16), VecDeque<InTransit>, RandomState>,
    /// Retained messages for which there was no room.
    not_retained: usize,
    /// Topics whose retained messages have expired while no server ran, which nobody else would ever take out of the store.
    expired: Vec<Box<str>>,
}

/// A message that was on its way.
struct InTransit {
    message: Kept,
    /// The Shared Subscription that it is for.
    group: Option<Box<str>>,
    workers: u16,
}

/// Why a journal cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreError {
    /// It is none.
    Change(ChangeError),
    /// A change, which begins there in the journal, is about something that is not there, or is there already.
    At {
        /// Counted from the start of the journal.
        at: usize,
        /// What that is.
        what: &'static str,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(error) => error.fmt(f),
            Self::At { at, what } => write!(f, "at byte {at}: {what}"),
        }
    }
}

impl std::error::Error for RestoreError {}

const NO_SESSION: &str = "a session that has not begun";
const NO_BODY: &str = "a body that is not in the journal";
const NOT_IN_FLIGHT: &str = "a message that is not in flight";
const NOT_QUEUED: &str = "a message that is not in the queue";

impl Core {
    /// Applies a journal of sessions that are this worker's, or a piece of what was kept: all of its changes are about sessions
    /// that have begun in it, or in one before. `zero` is what the wall clock showed when the server's clock showed zero.
    ///
    /// # Errors
    /// It is no journal, or does not fit to those before. What was applied of it stays.
    pub fn restore(&mut self, journal: &[u8], zero: WallMillis, now: Millis) -> Result<(), RestoreError> {
        self.now = now;
        let places = || self.shared.keeping.as_ref().map(|keeping| keeping.places().clone()).unwrap_or_default();
        let restoring = self.restoring.take().unwrap_or_else(|| Restoring::new(zero, places()));
        let (mut restoring, own) = (restoring, self.journal.take());
        let mut applied = Ok(());
        for change in Changes::new(journal) {
            applied = match change {
                Ok((at, change)) => self.apply(&mut restoring, change).map_err(|what| RestoreError::At { at, what }),
                Err(error) => Err(RestoreError::Change(error)),
            };
            if applied.is_err() {
                break;
            }
        }
        restoring.bodies.clear();
        (self.restoring, self.journal) = (Some(restoring), own);
        applied
    }

    /// All that was kept has been applied, by the other workers as well. Messages that were on their way between workers go to
    /// the sessions of this one that they were for; from now on there is a journal again, in which that stands. Whoever hands
    /// over these journals of all workers hands them over as one.
    pub fn end_restoring(&mut self, now: Millis) {
        self.now = now;
        let Some(restoring) = self.restoring.take() else { return };
        if restoring.not_retained > 0 {
            tracing::warn!("{} retained messages were not loaded: there is no room for more", restoring.not_retained);
        }
        for topic in &restoring.expired {
            let is_gone = self.shared.retained.matching(topic, now).is_empty();
            if let Some(journal) = self.journal.as_mut().filter(|_| is_gone) {
                journal.put(&Change::RetainedGone { topic });
            }
        }
        for (slot, serial) in restoring.lost {
            let session = self.sessions.get(slot as usize);
            if session.is_some_and(|session| session.serial == serial && session.connection == NONE) {
                self.journal_changed(slot);
                self.journal_delayed_will(slot);
            }
        }
        let mut in_transit: Vec<_> = restoring.in_transit.into_iter().collect();
        in_transit.sort_unstable_by_key(|(way, _)| *way);
        for ((from, to), messages) in in_transit {
            let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
            for message in messages {
                self.end_transit(from, to, &message);
            }
            if self.worker == 0
                && count > 0
                && let Some(journal) = &mut self.journal
            {
                journal.put(&Change::Taken { from, to, count });
            }
        }
    }

    /// A message that was on its way goes to who is here of those that it was for.
    fn end_transit(&mut self, from: u16, to: u16, message: &InTransit) {
        let InTransit { message, group, workers } = message;
        if message.is_expired(self.now) {
            return;
        }
        let mut out = Outgoing::of(message);
        let targets = self.router.targets(message.topic());
        let Some(group) = group else {
            for target in targets.local.iter() {
                let session = self.sessions.get(target.session.slot as usize);
                let was_for = |client_id: &str| owner_of(client_id, usize::from(*workers)) == usize::from(to);
                if session.is_some_and(|session| was_for(&session.client_id)) {
                    self.templates.begin(1);
                    self.deliver(target.session, Wanted::of(target), &mut out);
                }
            }
            return;
        };
        // One of the workers looks for the member.
        if usize::from(from) % self.outbox.len() == self.worker
            && let Share::Group { share_name, filter } = topic::split_share(group)
            && let Some(group) =
                targets.groups.iter().find(|group| group.share_name() == share_name && group.filter() == filter)
        {
            self.deliver_to_group(group, &mut out);
        }
    }

    fn apply(&mut self, restoring: &mut Restoring, change: Change<'_>) -> Result<(), &'static str> {
        match change {
            Change::Turn { workers, .. } => {
                restoring.workers = workers;
                restoring.bodies.clear();
            }
            Change::Body { number, message } => {
                if restoring.bodies.len() != number as usize {
                    return Err("a body that is not the next one");
                }
                restoring.bodies.push(self.keep(restoring, &message));
            }
            Change::Began { session, client_id, terms } => {
                if self.slot_of_client(client_id).is_some() || restoring.sessions.contains_key(&session) {
                    return Err("a session that has begun already");
                }
                let slot = self.new_session(client_id);
                restoring.sessions.insert(session, slot);
                if let Some(keeping) = self.shared.keeping.as_ref().filter(|_| terms.expiry_secs != 0) {
                    self.sessions[slot as usize].number = session;
                    keeping.note_number(session);
                    keeping.count_in(self.worker);
                }
                self.set_terms(restoring, slot, &terms);
            }
            Change::Changed { session, terms } => {
                let slot = restoring.slot(session)?;
                self.set_terms(restoring, slot, &terms);
            }
            Change::Ended { session } => {
                let slot = restoring.slot(session)?;
                restoring.sessions.remove(&session);
                self.forget_session(slot);
            }
            Change::Subscribed { session, filter, options, identifier } => {
                let asked = Asked::new(filter, options);
                self.put_subscription(restoring.slot(session)?, &asked, Subscription { options, identifier });
            }
            Change::Unsubscribed { session, filter } => {
                let (slot, mut left) = (restoring.slot(session)?, Vec::new());
                self.unsubscribe(slot, filter, &mut left);
                left.iter().for_each(|left| self.forget_membership(slot, left));
            }
            Change::Retained { message } => self.restore_retained(restoring, &message),
            Change::RetainedGone { topic } => {
                self.shared.retained.clear(topic);
            }
            Change::Transit { from, to, group, body } => {
                let message = restoring.body(body)?.clone();
                let (group, workers) = (group.map(Into::into), restoring.workers);
                let way = restoring.in_transit.entry((from, to)).or_default();
                way.push_back(InTransit { message, group, workers });
            }
            Change::Taken { from, to, count } => {
                let way = restoring.in_transit.entry((from, to)).or_default();
                if way.len() < count as usize {
                    return Err("a message that is not on its way");
                }
                way.drain(..count as usize);
            }
            // The plugins' own: whoever loads them gives them to these.
            Change::KeyValue { .. } => {}
            of_session => return self.apply_to_messages(restoring, of_session),
        }
        Ok(())
    }

    fn apply_to_messages(&mut self, restoring: &mut Restoring, change: Change<'_>) -> Result<(), &'static str> {
        match change {
            Change::Queued { session, messages } => {
                let slot = restoring.slot(session)?;
                self.restore_queued(restoring, slot, messages)
            }
            Change::Sent { session, first, count } => {
                let session = &mut self.sessions[restoring.slot(session)? as usize];
                for number in 0..count {
                    let queued = session.queue.pop_front().ok_or(NOT_QUEUED)?;
                    session.add_in_flight(behind(first, number.into()), queued);
                }
                session.next_packet_id = behind(first, count.into()).get();
                Ok(())
            }
            Change::SentNow { session, first, messages } => {
                let slot = restoring.slot(session)?;
                self.restore_in_flight(restoring, slot, first, messages)
            }
            Change::Received { session, first, count } => {
                let session = &mut self.sessions[restoring.slot(session)? as usize];
                for number in 0..count {
                    let place = session.find_in_flight(behind(first, number.into())).ok_or(NOT_IN_FLIGHT)?;
                    session.note_received(place, |_| false);
                }
                Ok(())
            }
            Change::Acknowledged { session, first, count } => {
                let session = &mut self.sessions[restoring.slot(session)? as usize];
                for number in 0..count {
                    let place = session.find_in_flight(behind(first, number.into())).ok_or(NOT_IN_FLIGHT)?;
                    session.remove_in_flight(place);
                }
                Ok(())
            }
            Change::Dropped { session, place, count } => {
                let (slot, mut number) = (restoring.slot(session)?, 0);
                let gone = self.take_from_queue(slot, |_, _| {
                    number += 1;
                    (number > place && number - place <= count).then_some(())
                });
                if gone.len() == count as usize { Ok(()) } else { Err(NOT_QUEUED) }
            }
            Change::Incoming { session, first, messages } => {
                let slot = restoring.slot(session)?;
                self.restore_incoming(restoring, slot, first, messages)
            }
            Change::Released { session, first, count } => {
                let session = &mut self.sessions[restoring.slot(session)? as usize];
                for number in 0..count {
                    let released = session.received.release(behind(first, number.into()));
                    released.ok_or("a message that is not to be released")?;
                }
                Ok(())
            }
            Change::Will { session, due, expiry_secs, message } => {
                let slot = restoring.slot(session)?;
                let at = match due {
                    Due::AfterSecs(secs) => self.now.plus_secs(secs),
                    Due::At(at) => at.since(restoring.zero),
                };
                let message = self.keep(restoring, &message);
                let body = WillBody::Accepted(AcceptedWill { message, expiry_secs, allowed_at: None, known: None });
                self.sessions[slot as usize].away().will = Some(DelayedWill { at, body });
                self.arm_session(slot, at);
                Ok(())
            }
            Change::WillGone { session } => {
                drop(self.sessions[restoring.slot(session)? as usize].take_away(|away| &mut away.will));
                Ok(())
            }
            Change::LastStates { session, states } => {
                let slot = restoring.slot(session)?;
                drop(self.take_last_states(slot));
                let session = &mut self.sessions[slot as usize];
                let will = session.away.as_mut().and_then(|away| away.will.as_mut());
                if let Some(WillBody::Accepted(will)) = will.map(|will| &mut will.body) {
                    will.known = LastStates::of_will(states).map(|known| Known::new(known, &self.account));
                }
                if let Some(states) = LastStates::decode(states, self.plan.plugins()) {
                    self.account.add(states.bytes());
                    session.away().last_states = Some(states);
                }
                Ok(())
            }
            _ => Err("a change that is not known here"),
        }
    }

    fn keep(&self, restoring: &Restoring, message: &StoredMessage<'_>) -> Kept {
        Kept::with_token(&restoring.parts(message), message.token, &self.account)
    }

    /// What holds of a session whose client has gone with the last server, if not before.
    fn set_terms(&mut self, restoring: &mut Restoring, slot: u32, terms: &Terms) {
        let lasts =
            if terms.expiry_secs == EXPIRY_NEVER { Millis::NEVER } else { self.now.plus_secs(terms.expiry_secs) };
        let session = &mut self.sessions[slot as usize];
        (session.expiry_secs, session.expiry_secs_max) = (terms.expiry_secs, terms.expiry_secs_max);
        session.next_packet_id = terms.next_packet_id;
        session.expires_at = terms.ends_at.map_or(lasts, |at| at.since(restoring.zero));
        if terms.ends_at.is_none() {
            restoring.lost.insert(slot, session.serial);
        } else {
            restoring.lost.remove(&slot);
        }
        let at = session.expires_at;
        if at != Millis::NEVER {
            self.arm_session(slot, at);
        }
    }

    /// A session is gone, and all that came of that stands elsewhere.
    fn forget_session(&mut self, slot: u32) {
        drop(self.take_last_states(slot));
        let mut session = self.sessions.remove(slot as usize);
        Self::leave_all_groups(&session);
        self.by_client.remove(&*session.client_id, slot);
        self.account.sub(session_bytes(&session.client_id));
        if session.number != 0
            && let Some(keeping) = &self.shared.keeping
        {
            keeping.count_out(self.worker);
        }
        let key = session.key(slot);
        let subscriptions = std::mem::take(&mut session.subscriptions);
        self.remove_subscriptions(key, subscriptions);
    }

    fn restore_queued(&mut self, restoring: &Restoring, slot: u32, messages: Messages<'_>) -> Result<(), &'static str> {
        let account = &self.account;
        let session = &mut self.sessions[slot as usize];
        match messages {
            Messages::Packets(packets) => {
                let group = packets.group.and_then(|group| session.shared.as_ref()?.number(group));
                with_row(&packets, group, |row| session.queue.push_row(row, account))
            }
            Messages::Bodies { first, count, delivery } => (0..count).try_for_each(|number| {
                let queued = restoring.queued(session, first + number, &delivery, account)?;
                session.queue.push_back(queued);
                Ok(())
            }),
            Messages::Gone { .. } => Err(NO_BODY),
        }
    }

    fn restore_in_flight(
        &mut self,
        restoring: &Restoring,
        slot: u32,
        first: u16,
        messages: Messages<'_>,
    ) -> Result<(), &'static str> {
        let account = &self.account;
        let session = &mut self.sessions[slot as usize];
        let packet_id = |number: u32| behind(first, number.into());
        match messages {
            Messages::Packets(packets) => {
                let group = packets.group.and_then(|group| session.shared.as_ref()?.number(group));
                with_row(&packets, group, |row| {
                    for number in 0..packets.count {
                        session.add_in_flight(packet_id(number), row.message(number as usize, account));
                    }
                })?;
            }
            Messages::Bodies { first, count, delivery } => {
                for number in 0..count {
                    let queued = restoring.queued(session, first + number, &delivery, account)?;
                    session.add_in_flight(packet_id(number), queued);
                }
            }
            Messages::Gone { count } => {
                for number in 0..count {
                    let (packet_id, awaiting, delivery) = (packet_id(number), Awaiting::Pubcomp, None);
                    session.in_flight.push_back(InFlight { packet_id, awaiting, delivery });
                }
            }
        }
        session.next_packet_id = packet_id(messages.count()).get();
        Ok(())
    }

    fn restore_incoming(
        &mut self,
        restoring: &Restoring,
        slot: u32,
        first: u16,
        messages: Messages<'_>,
    ) -> Result<(), &'static str> {
        let account = &self.account;
        let received = &mut self.sessions[slot as usize].received;
        let packet_id = |number: u32| behind(first, number.into());
        if (0..messages.count()).any(|number| received.has(packet_id(number))) {
            return Err("a message that is not released");
        }
        match messages {
            Messages::Packets(packets) => with_row(&packets, None, |row| {
                if received.goes_on_with(packet_id(0)) {
                    return received.insert_row(packet_id(0), row, account);
                }
                for number in 0..packets.count {
                    received.insert(packet_id(number), Some(row.message(number as usize, account).message));
                }
            }),
            Messages::Bodies { first, count, .. } => (0..count).try_for_each(|number| {
                received.insert(packet_id(number), Some(restoring.body(first + number)?.clone()));
                Ok(())
            }),
            Messages::Gone { count } => {
                (0..count).for_each(|number| received.insert(packet_id(number), None));
                Ok(())
            }
        }
    }

    fn restore_retained(&mut self, restoring: &mut Restoring, message: &StoredMessage<'_>) {
        let parts = restoring.parts(message);
        if parts.expires_at <= self.now {
            restoring.expired.push(parts.topic.into());
            return; // [MQTT-3.3.2-5]
        }
        if self.shared.retained.restore(Arc::new(parts.to_message())).is_err() {
            restoring.not_retained += 1;
        } else if parts.expires_at != Millis::NEVER {
            self.timers.arm_once(&mut self.retained_armed, self.now, parts.expires_at, Subject::Retained);
        }
    }
}

impl Restoring {
    fn new(zero: WallMillis, places: Places) -> Box<Self> {
        Box::new(Self {
            zero,
            places,
            sessions: HashMap::default(),
            bodies: Vec::new(),
            workers: 1,
            lost: HashMap::default(),
            in_transit: HashMap::default(),
            not_retained: 0,
            expired: Vec::new(),
        })
    }

    /// Whether the client of a session was there to the end.
    #[cfg(test)]
    pub(super) fn was_connected(&self, serial: u32) -> bool {
        self.lost.values().any(|lost| *lost == serial)
    }

    /// Journals of the messages that are on their way.
    #[cfg(test)]
    pub(super) fn in_transit(&self) -> Vec<Vec<u8>> {
        let mut journals = Vec::new();
        for (&(from, to), way) in &self.in_transit {
            for InTransit { message, group, workers } in way {
                let keeping = super::journal::Keeping::new((*workers).into(), self.zero, Arc::default());
                let mut journal = super::journal::Journal::new(0, Arc::new(keeping));
                let body = journal.body(message);
                journal.put(&Change::Transit { from, to, group: group.as_deref(), body });
                journals.push(journal.into_bytes());
            }
        }
        journals
    }

    fn slot(&self, session: u64) -> Result<u32, &'static str> {
        self.sessions.get(&session).copied().ok_or(NO_SESSION)
    }

    fn body(&self, number: u32) -> Result<&Kept, &'static str> {
        self.bodies.get(number as usize).ok_or(NO_BODY)
    }

    fn parts<'a>(&self, message: &StoredMessage<'a>) -> MessageParts<'a> {
        let &StoredMessage { topic, payload, properties, qos, retain, expires_at, source, token: _ } = message;
        let (expires_at, source) = (expires_at.since(self.zero), self.places.of(source));
        MessageParts { topic, payload, properties, qos, retain, expires_at, source, as_it_came: None }
    }

    /// A message for a session. If this is not a member of its group any more, nobody else gets the message either.
    fn queued(
        &self,
        session: &Session,
        body: u32,
        delivery: &Delivery<'_>,
        account: &Account,
    ) -> Result<Queued, &'static str> {
        let shared = |group: &str, identifier| {
            let number = session.shared.as_ref().and_then(|shared| shared.number(group));
            number.map_or(Origin::One(identifier), |group| Origin::Shared { group, identifier })
        };
        let origin = match delivery.origin {
            change::Origin::Subscriptions(identifiers) => {
                Origin::new(None, &identifiers.iter().collect::<Vec<u32>>(), account)
            }
            change::Origin::Shared { group, identifier } => shared(group, identifier),
            change::Origin::Instead { group, identifier, published } => {
                shared(group, identifier).changed(self.body(published)?.clone(), account)
            }
            change::Origin::Sent => Origin::Sent,
        };
        let message = self.body(body)?.clone();
        Ok(Queued { message, qos: delivery.qos, retain: delivery.retain, origin })
    }
}

/// Gives packets to `take` in the form in which they are kept.
fn with_row(packets: &Packets<'_>, group: Option<NonZeroU64>, take: impl FnOnce(&Row<'_>)) -> Result<(), &'static str> {
    let (mut at, mut ends) = (0, Vec::new());
    for packet in packets.each() {
        let packet = packet.ok_or("packets that are not what they can be")?;
        at += packet.bytes.len();
        ends.push(End::new(at, packet.topic.len() + packet.payload.len()));
    }
    let kind = Kind { qos: packets.qos, is_v5: packets.is_v5, group };
    take(&Row::new(packets.bytes, &ends, kind));
    Ok(())
}
