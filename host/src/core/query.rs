//! What plugins ask about connections, sessions, subscriptions and retained messages: pages of rows, a bounded number of
//! places in each turn.
//!
//! A question goes from worker to worker until its page is full. Between two pages nothing is kept here: the cursor says
//! where the next one begins. Connections and sessions keep their place for as long as they are there, subscriptions are in
//! order, and what came after the first page had been begun is left out: so each is listed at most once, and all that are
//! there throughout are listed.

use std::num::NonZeroU32;
use std::ops::Bound;

use plugin_api::abi::{AnswerKey, RawQuery, RawSubscription, Status};
use plugin_api::topic::{self, Share};

use super::connection::{Connection, NONE, Phase};
use super::mail::{InfoTarget, Mail};
use super::session::{Session, Subscription};
use super::{Core, owner_of};
use crate::clock::Millis;
use crate::message::Message;
use crate::plugin::{Asker, Pieces};

/// Rows of one page.
const ROWS_MAX: usize = 1000;

/// A page ends with the row that brings it to so many bytes.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Places that all questions together look at in one turn.
const PLACES_A_TURN: usize = if cfg!(any(test, fuzzing)) { 4 } else { 4096 };

/// Questions that wait in one worker.
const QUERIES_MAX: usize = 256;

/// What the work of looking at a place is.
const PLACES_A_UNIT: usize = 8;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Network Connections whose client was let in.
    Connections,
    /// Sessions.
    Sessions,
    /// Subscriptions.
    Subscriptions,
    /// Retained messages.
    Retained,
}

impl Wanted {
    const fn number(self) -> u8 {
        match self {
            Self::Connections => RawQuery::CONNECTIONS,
            Self::Sessions => RawQuery::SESSIONS,
            Self::Subscriptions => RawQuery::SUBSCRIPTIONS,
            Self::Retained => RawQuery::RETAINED,
        }
    }
}

/// Where a page begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    worker: u32,
    /// Of the table that is gone through.
    place: u32,
    /// Tells what was there when this worker was first asked from what came later; one more than that, 0 before.
    mark: u64,
    /// Within a session: behind this Topic Filter.
    after: Option<Box<str>>,
}

impl Cursor {
    /// What stood at the end of another page. `None` if it is nothing that did.
    #[must_use]
    pub fn read(number: u64, bytes: &[u8]) -> Option<Self> {
        let (worker, place) = (u32::try_from(number >> 32).ok()?, u32::try_from(number & 0xFFFF_FFFF).ok()?);
        let Some((mark, after)) = bytes.split_first_chunk() else {
            return (bytes.is_empty() && number == 0).then(Self::default);
        };
        let after = std::str::from_utf8(after).ok()?;
        let after = Some(after).filter(|after| !after.is_empty()).map(Into::into);
        Some(Self { worker, place, mark: u64::from_le_bytes(*mark), after })
    }

    fn write(&self, page: &mut Pieces) {
        let mut bytes = self.mark.to_le_bytes().to_vec();
        bytes.extend_from_slice(self.after.as_deref().unwrap_or_default().as_bytes());
        page.put(AnswerKey::CURSOR, u64::from(self.worker) << 32 | u64::from(self.place), &bytes);
    }

    fn next_place(&mut self) {
        self.place += 1;
        self.after = None;
    }
}

/// A question of a plugin's, and its page as far as it has been filled.
#[derive(Debug)]
pub struct Query {
    wanted: Wanted,
    target: InfoTarget,
    filter: Box<str>,
    rows_max: usize,
    rows: usize,
    at: Cursor,
    page: Pieces,
    pub(super) asker: Asker,
}

impl Query {
    /// A question. `filter` is empty for all.
    #[must_use]
    pub fn new(wanted: Wanted, target: InfoTarget, filter: &str, rows_max: u32, at: Cursor, asker: Asker) -> Self {
        let rows_max = usize::try_from(rows_max).unwrap_or(ROWS_MAX).clamp(1, ROWS_MAX);
        Self { wanted, target, filter: filter.into(), rows_max, rows: 0, at, page: Pieces::default(), asker }
    }

    /// The worker that it goes to first, of so many.
    #[must_use]
    pub fn worker(&self, workers: usize) -> usize {
        match (self.wanted, &self.target) {
            (Wanted::Retained, _) => 0,
            (_, InfoTarget::Client(client_id)) => owner_of(client_id, workers),
            // One that is not there finds nothing.
            _ => usize::try_from(self.at.worker).unwrap_or(0).min(workers.saturating_sub(1)),
        }
    }

    /// The memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.page.size() + self.filter.len() + size_of::<Self>()
    }

    fn is_full(&self) -> bool {
        self.rows >= self.rows_max || self.page.size() >= PAGE_BYTES_MAX
    }

    fn begin_row(&mut self) -> &mut Pieces {
        self.rows += 1;
        self.page.put(AnswerKey::ROW, self.wanted.number().into(), &[]);
        &mut self.page
    }

    /// Gives the answer. `more`: the cursor says where the next page begins.
    fn finish(mut self, more: bool) {
        if more {
            self.at.write(&mut self.page);
        }
        self.asker.answer(&self.page);
    }
}

/// How far a question has got.
enum Step {
    /// The page is full, and more may follow.
    Full,
    /// This worker has no more.
    End,
    /// The turn's places are used up.
    Later,
}

impl Core {
    /// A plugin asks.
    pub(super) fn begin_query(&mut self, mut query: Query) {
        if self.queries.len() >= QUERIES_MAX {
            return query.asker.refuse(Status::FULL);
        }
        if query.at.mark == 0 {
            query.at.mark = 1 + match query.wanted {
                Wanted::Retained => self.shared.retained.mark(),
                _ => u64::from(self.next_serial),
            };
        }
        self.queries.push_back(query);
    }

    /// Goes on with them: each in its turn, as far as the places of this turn of the worker go.
    pub(super) fn continue_queries(&mut self) {
        let mut places_left = PLACES_A_TURN;
        for _ in 0..self.queries.len() {
            if places_left == 0 {
                return;
            }
            let Some(mut query) = self.queries.pop_front() else { return };
            let before = places_left;
            let step = match (query.wanted, &query.target) {
                (Wanted::Retained, _) => self.list_retained(&mut query, &mut places_left),
                (_, InfoTarget::All | InfoTarget::Plugin) => self.list_all(&mut query, &mut places_left),
                (_, target) => {
                    let session = self.session_of_target(target);
                    session.map_or(Step::End, |slot| self.list_one(&mut query, slot, &mut places_left))
                }
            };
            self.spend((before - places_left).div_ceil(PLACES_A_UNIT));
            match step {
                Step::Full => query.finish(true),
                Step::End => self.ask_next_worker(query),
                Step::Later => self.queries.push_back(query),
            }
        }
    }

    /// This worker has nothing more to say to a question.
    fn ask_next_worker(&mut self, mut query: Query) {
        let next = self.worker + 1;
        let goes_on = query.wanted != Wanted::Retained && !matches!(query.target, InfoTarget::Client(_));
        if !goes_on || next >= self.shared.mailboxes.workers() {
            return query.finish(false);
        }
        query.at = Cursor { worker: u32::try_from(next).unwrap_or(u32::MAX), ..Cursor::default() };
        if let Err(refused) = self.shared.mailboxes.hand_in(next, Mail::Query(Box::new(query)))
            && !refused.closed
            && let Mail::Query(query) = refused.mail
        {
            // What there is so far, and the asker may come back for more.
            query.finish(true);
        }
    }

    /// The session that a request is about, if it is here.
    pub(super) fn session_of_target(&self, target: &InfoTarget) -> Option<u32> {
        match target {
            InfoTarget::Client(client_id) => self.slot_of_client(client_id),
            InfoTarget::Connection(id) => {
                let connection = &self.connections[self.slot_of_connection(*id)? as usize];
                Some(connection.session).filter(|session| *session != NONE && connection.phase == Phase::Connected)
            }
            InfoTarget::All | InfoTarget::Plugin => None,
        }
    }

    fn list_all(&self, query: &mut Query, places_left: &mut usize) -> Step {
        let end = match query.wanted {
            Wanted::Connections => self.connections.capacity(),
            _ => self.sessions.capacity(),
        };
        while (query.at.place as usize) < end {
            if query.is_full() {
                return Step::Full;
            }
            if *places_left == 0 {
                return Step::Later;
            }
            let place = query.at.place;
            let step = match query.wanted {
                Wanted::Connections => {
                    *places_left -= 1;
                    self.list_connection(query, place)
                }
                _ => self.list_session(query, place, places_left),
            };
            if !matches!(step, Step::End) {
                return step;
            }
            query.at.next_place();
        }
        Step::End
    }

    /// Lists what there is of one session, whenever it began.
    fn list_one(&self, query: &mut Query, session: u32, places_left: &mut usize) -> Step {
        query.at.mark = u64::MAX;
        match query.wanted {
            Wanted::Connections => {
                *places_left -= 1;
                self.list_connection(query, self.sessions[session as usize].connection)
            }
            _ => self.list_session(query, session, places_left),
        }
    }

    fn list_connection(&self, query: &mut Query, slot: u32) -> Step {
        if let Some(connection) = self.connections.get(slot as usize)
            && connection.phase == Phase::Connected
            && let Some(session) = self.sessions.get(connection.session as usize)
        {
            connection_row(query.begin_row(), connection, session);
        }
        Step::End
    }

    fn list_session(&self, query: &mut Query, place: u32, places_left: &mut usize) -> Step {
        *places_left -= 1;
        let Some(session) = self.sessions.get(place as usize) else { return Step::End };
        if !is_older(session.serial, query.at.mark) {
            return Step::End;
        }
        if query.wanted == Wanted::Subscriptions {
            return list_subscriptions(query, session, places_left);
        }
        let connection = self.connections.get(session.connection as usize);
        session_row(query.begin_row(), session, connection.map(|connection| connection.id), self.now);
        Step::End
    }

    fn list_retained(&self, query: &mut Query, places_left: &mut usize) -> Step {
        let (at, mark) = (query.at.place, query.at.mark - 1);
        if !query.filter.is_empty() && !query.filter.contains(['+', '#']) {
            *places_left -= 1;
            for message in self.shared.retained.matching(&query.filter, self.now) {
                retained_row(query.begin_row(), &message, self.now);
            }
            return Step::End;
        }
        // So many rows at once that what is found fits into the page, or is too much by one.
        let rows = (query.rows_max - query.rows).min(*places_left);
        let found = self.shared.retained.page(at, mark, *places_left, rows, |message| {
            !message.is_expired(self.now) && (query.filter.is_empty() || topic::matches(&query.filter, message.topic()))
        });
        *places_left = places_left.saturating_sub(found.places.max(1));
        for (place, message) in found.messages {
            if query.is_full() {
                query.at.place = place;
                return Step::Full;
            }
            retained_row(query.begin_row(), &message, self.now);
        }
        match found.next {
            None => Step::End,
            Some(next) => {
                query.at.place = next;
                if query.is_full() { Step::Full } else { Step::Later }
            }
        }
    }
}

/// Whether a session was there when its worker was asked first. Serials are given in order, and may begin anew.
fn is_older(serial: u32, mark: u64) -> bool {
    let Ok(next) = u32::try_from(mark - 1) else { return true };
    next.wrapping_sub(serial).wrapping_sub(1) < u32::MAX / 2
}

fn list_subscriptions(query: &mut Query, session: &Session, places_left: &mut usize) -> Step {
    if !query.filter.is_empty() {
        if let Some(subscription) = session.subscriptions.get(&query.filter) {
            let filter = query.filter.clone();
            subscription_row(query.begin_row(), session, &filter, subscription);
        }
        return Step::End;
    }
    let from = match query.at.after.clone() {
        Some(after) => Bound::Excluded(after),
        None => Bound::Unbounded,
    };
    for (filter, subscription) in session.subscriptions.range((from, Bound::Unbounded)) {
        if query.is_full() {
            return Step::Full;
        }
        if *places_left == 0 {
            return Step::Later;
        }
        *places_left -= 1;
        query.at.after = Some(filter.clone());
        subscription_row(query.begin_row(), session, filter, subscription);
    }
    Step::End
}

fn connection_row(row: &mut Pieces, connection: &Connection, session: &Session) {
    row.put(AnswerKey::CONNECTION, connection.id, &[]);
    row.put(AnswerKey::CLIENT_ID, 0, session.client_id.as_bytes());
    row.put(AnswerKey::PEER, 0, connection.peer.addr().to_string().as_bytes());
    row.put(AnswerKey::LISTENER, 0, connection.listener.profile.name.as_bytes());
    row.put(AnswerKey::PROTOCOL_VERSION, connection.version as u64, &[]);
    row.put(AnswerKey::KEEP_ALIVE, connection.keep_alive_secs.into(), &[]);
}

fn session_row(row: &mut Pieces, session: &Session, connection: Option<u64>, now: Millis) {
    row.put(AnswerKey::CLIENT_ID, 0, session.client_id.as_bytes());
    if let Some(connection) = connection {
        row.put(AnswerKey::CONNECTION, connection, &[]);
    } else if session.expires_at != Millis::NEVER {
        row.put(AnswerKey::MILLISECONDS, session.expires_at.0.saturating_sub(now.0), &[]);
    }
    row.put(AnswerKey::SESSION_EXPIRY, session.expiry_secs.into(), &[]);
    row.put(AnswerKey::SUBSCRIPTIONS, session.subscriptions.len() as u64, &[]);
    row.put(AnswerKey::QUEUED, session.queue.len() as u64, &[]);
    row.put(AnswerKey::IN_FLIGHT, session.in_flight.len() as u64, &[]);
}

fn subscription_row(row: &mut Pieces, session: &Session, written: &str, subscription: &Subscription) {
    let options = &subscription.options;
    let mut flags = u64::from(options.retain_handling as u8) << 8;
    for (set, flag) in [
        (options.no_local, RawSubscription::NO_LOCAL),
        (options.retain_as_published, RawSubscription::RETAIN_AS_PUBLISHED),
    ] {
        flags |= if set { u64::from(flag) } else { 0 };
    }
    row.put(AnswerKey::CLIENT_ID, 0, session.client_id.as_bytes());
    row.put(AnswerKey::FILTER, 0, written.as_bytes());
    if let Share::Group { share_name, .. } = topic::split_share(written) {
        flags |= u64::from(RawSubscription::SHARED);
        row.put(AnswerKey::SHARE_NAME, 0, share_name.as_bytes());
    }
    row.put(AnswerKey::QOS, options.qos as u64, &[]);
    row.put(AnswerKey::FLAGS, flags, &[]);
    if let Some(identifier) = NonZeroU32::new(subscription.identifier) {
        row.put(AnswerKey::IDENTIFIER, identifier.get().into(), &[]);
    }
}

fn retained_row(row: &mut Pieces, message: &Message, now: Millis) {
    row.put(AnswerKey::TOPIC, 0, message.topic().as_bytes());
    row.put(AnswerKey::PAYLOAD, 0, message.payload());
    row.put(AnswerKey::PROPERTIES, 0, message.parts().properties);
    row.put(AnswerKey::QOS, message.qos() as u64, &[]);
    if let Some(at) = message.expires_at() {
        row.put(AnswerKey::MILLISECONDS, at.0.saturating_sub(now.0), &[]);
    }
}
