//! What a turn changes of what is kept, as [`Change`]s in the worker's journal.
//!
//! Where there is a store ([`Keeping`] among what workers share), each place that changes a session of which something
//! outlives its Network Connection says so here; others have number 0 as theirs, which is all that is looked at. What many
//! messages have in common is said once: those of a row are one change, and their packets are copied as they are.
//!
//! The driver takes the journal at the end of a turn, before anything goes to other workers: [`Core::hand_over_journal`].

use std::sync::Arc;

use plugin_api::{Callback, Properties, QoS};

use super::budget::Kept;
use super::in_flight::behind;
use super::packets::Row;
use super::publish::forwarded;
use super::route::Outgoing;
use super::session::{self, DelayedWill, Queued, Session, WillBody};
use super::{Core, NONE};
use crate::clock::{Millis, WallMillis};
use crate::codec::PacketId;
use crate::durable::change::{self, Change, Delivery, Due, Identifiers, Messages, Packets, StoredMessage, Terms};
use crate::message::{Message, MessageParts, Places};
use crate::router::{Group, RetainedChange};
use crate::sync::simple::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What the workers of a server that has a store share about it.
#[derive(Debug)]
pub(super) struct Keeping {
    /// What the wall clock would have shown when the server's showed zero, as it was set at the start.
    zero: WallMillis,
    next_session: AtomicU64,
    /// Sessions of each worker that are kept.
    sessions: Box<[Sessions]>,
    /// What the places of plugins in the chain are in the store, and the other way round.
    kept_places: Places,
    places: Places,
    /// How often plugins have put something by a key, or removed it.
    values: Arc<std::sync::atomic::AtomicU64>,
}

/// Numbers of sessions that servers are apart from each other which start in one millisecond and in the next.
const SESSIONS_A_MS: u64 = 1024;

/// In cache lines of its own: its worker writes it, and the others read it.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Sessions(AtomicUsize);

impl Keeping {
    /// For so many workers. `zero` is what the wall clock showed when the server's clock showed zero; `values` counts what plugins
    /// put.
    pub(super) fn new(workers: usize, zero: WallMillis, values: Arc<std::sync::atomic::AtomicU64>) -> Self {
        let sessions = (0..workers).map(|_| Sessions::default()).collect();
        // Not from 1 on: a session that has ended since the last checkpoint is known to nobody who starts, but the checkpoint
        // has what was its. As many as in a JSON number, and fewer than a million a second.
        let first = zero.0.saturating_mul(SESSIONS_A_MS).max(1);
        let (kept_places, places) = (Places::default(), Places::default());
        Self { zero, next_session: AtomicU64::new(first), sessions, kept_places, places, values }
    }

    /// Says what the places of plugins are in the store, and what those in the store are here. They are the same otherwise.
    pub(super) fn set_places(&mut self, kept_places: Places, places: Places) {
        (self.kept_places, self.places) = (kept_places, places);
    }

    /// What the places of plugins in the store are here.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    #[cfg(test)]
    pub(super) fn values(&self) -> Arc<std::sync::atomic::AtomicU64> {
        Arc::clone(&self.values)
    }

    /// A number that no session has had.
    fn number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the next one.
    pub(super) fn next(&self) -> u64 {
        self.next_session.load(Ordering::Relaxed)
    }

    /// A session has this number.
    pub(super) fn note_number(&self, number: u64) {
        self.next_session.fetch_max(number.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether a worker may have sessions that are kept.
    #[inline]
    pub(super) fn keeps_any(&self, worker: usize) -> bool {
        self.sessions[worker].0.load(Ordering::Relaxed) > 0
    }

    pub(super) fn count_in(&self, worker: usize) {
        self.sessions[worker].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_out(&self, worker: usize) {
        self.sessions[worker].0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The journal of one worker's present turn.
pub(super) struct Journal {
    /// Empty while there is nothing to say.
    bytes: Vec<u8>,
    worker: u16,
    workers: u16,
    keeping: Arc<Keeping>,
    /// What the wall clock would have shown when the server's showed zero, as it is set now.
    pub(super) zero: WallMillis,
    /// How many bodies there are.
    bodies: u32,
    /// The message of the last one, which is mostly the next one's as well.
    last: Option<(Kept, u32)>,
    /// Messages that have come from each worker and are where the journal says.
    taken: Box<[u32]>,
    /// Changes that stand elsewhere, and are put here when the journal is handed over.
    elsewhere: usize,
    /// Among these are retained messages.
    has_retained: bool,
}

impl Journal {
    pub(super) fn new(worker: usize, keeping: Arc<Keeping>) -> Self {
        let workers = keeping.sessions.len();
        Self {
            bytes: Vec::new(),
            worker: short(worker),
            workers: short(workers),
            zero: keeping.zero,
            keeping,
            bodies: 0,
            last: None,
            taken: vec![0; workers].into(),
            elsewhere: 0,
            has_retained: false,
        }
    }

    /// The moment of a message, or of a session's end, on the wall clock.
    fn wall(&self, at: Millis) -> WallMillis {
        if at == Millis::NEVER { WallMillis::NEVER } else { WallMillis::of(at, self.zero) }
    }

    /// What `session` is, as far as messages and subscriptions do not say so.
    fn terms(&self, session: &Session) -> Terms {
        let is_connected = session.connection != NONE;
        Terms {
            expiry_secs: session.expiry_secs,
            expiry_secs_max: session.expiry_secs_max,
            ends_at: (!is_connected).then(|| self.wall(session.expires_at)),
            next_packet_id: session.next_packet_id,
        }
    }

    /// Grows with each change.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.elsewhere
    }

    #[inline]
    pub(super) fn put(&mut self, change: &Change<'_>) {
        if self.bytes.is_empty() {
            self.begin();
        }
        change.encode(&mut self.bytes);
    }

    #[cold]
    fn begin(&mut self) {
        Change::Turn { worker: self.worker, workers: self.workers }.encode(&mut self.bytes);
    }

    /// There is to be one for this turn, whether something has changed or not: what waits for it waits for all before.
    pub(super) fn touch(&mut self) {
        self.elsewhere += 1;
    }

    /// How often plugins have put something by a key, or removed it. Their journals are handed over before that grows.
    #[inline]
    pub(super) fn values(&self) -> u64 {
        self.keeping.values.load(Ordering::Acquire)
    }

    /// A retained message has changed, which the tree has noted.
    pub(super) fn note_retained(&mut self) {
        self.has_retained = true;
        self.elsewhere += 1;
    }

    pub(super) fn put_retained(&mut self, change: &RetainedChange) {
        match change {
            RetainedChange::Set(message) => {
                let message = self.stored_message(message);
                self.put(&Change::Retained { message });
            }
            RetainedChange::Gone(topic) => self.put(&Change::RetainedGone { topic }),
        }
    }

    /// A message has come from another worker that had it on its way there.
    pub(super) fn take_from(&mut self, worker: usize) {
        self.taken[worker] += 1;
        self.elsewhere += 1;
    }

    /// Whether there is something to hand over.
    fn is_due(&self) -> bool {
        self.len() > 0
    }

    /// Puts the last changes of the turn in.
    fn finish(&mut self) {
        if self.bytes.is_empty() {
            self.begin();
        }
        let to = self.worker;
        for from in 0..self.workers {
            let count = std::mem::take(&mut self.taken[usize::from(from)]);
            if count > 0 {
                self.put(&Change::Taken { from, to, count });
            }
        }
        self.last = None;
        (self.bodies, self.elsewhere, self.has_retained) = (0, 0, false);
    }

    /// All of it.
    #[cfg(test)]
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.finish();
        self.bytes
    }

    /// A message in the form in which it outlives the server.
    pub(super) fn stored<'a>(&self, parts: &MessageParts<'a>, token: u64) -> StoredMessage<'a> {
        let &MessageParts { topic, payload, properties, qos, retain, expires_at, source, .. } = parts;
        let (expires_at, source) = (self.wall(expires_at), self.keeping.kept_places.of(source));
        StoredMessage { topic, payload, properties, qos, retain, expires_at, source, token }
    }

    fn stored_message<'a>(&self, message: &'a Message) -> StoredMessage<'a> {
        self.stored(&message.parts(), message.token())
    }

    /// The number of a message's body, which is put here if it is not the last one.
    pub(super) fn body(&mut self, message: &Kept) -> u32 {
        if let Some((last, number)) = &self.last
            && last.is_same(message)
        {
            return *number;
        }
        let number = self.bodies;
        let stored = self.stored_message(message);
        self.put(&Change::Body { number, message: stored });
        self.bodies += 1;
        self.last = Some((message.clone(), number));
        number
    }

    /// Says of a message for a session what `change` makes of it.
    fn put_one(&mut self, session: &Session, queued: &Queued, change: impl for<'a> FnOnce(Messages<'a>) -> Change<'a>) {
        let first = self.body(&queued.message);
        let identifier = queued.origin.identifiers().first().copied().unwrap_or(0);
        let group = queued.origin.group().and_then(|group| session.shared.as_ref()?.written(group));
        let origin = match (&queued.origin, group) {
            (session::Origin::Sent, _) => change::Origin::Sent,
            (session::Origin::Changed(changed), Some(group)) => {
                let published = self.body(changed.published());
                change::Origin::Instead { group, identifier, published }
            }
            (_, Some(group)) => change::Origin::Shared { group, identifier },
            (_, None) => change::Origin::Subscriptions(Identifiers::List(queued.origin.identifiers())),
        };
        let delivery = Delivery { qos: queued.qos, retain: queued.retain, origin };
        self.put(&change(Messages::Bodies { first, count: 1, delivery }));
    }

    /// A message waits in a session's queue.
    pub(super) fn queued(&mut self, session: &Session, queued: &Queued) {
        let number = session.number;
        if queued.qos != QoS::AtMostOnce {
            self.put_one(session, queued, |messages| Change::Queued { session: number, messages });
        }
    }

    /// A message has been sent that was in no queue.
    pub(super) fn sent_now(&mut self, session: &Session, packet_id: PacketId, queued: &Queued) {
        let (number, first) = (session.number, packet_id.get());
        self.put_one(session, queued, |messages| Change::SentNow { session: number, first, messages });
    }

    /// A session has been sent the messages of a batch, from its next Packet Identifier on. They have these bodies.
    pub(super) fn sent_batch(&mut self, session: &Session, batch: &[Queued], bodies: &[u32]) {
        debug_assert_eq!(batch.len(), bodies.len(), "a body for each message");
        let mut start = 0;
        while start < batch.len() {
            let how = |at: usize| (batch[at].qos, batch[at].retain);
            let goes_on = |at: &usize| {
                how(*at) == how(start) && bodies[*at].checked_sub(bodies[start]) == u32::try_from(*at - start).ok()
            };
            let count = (start..batch.len()).take_while(goes_on).count();
            let origin = change::Origin::Subscriptions(Identifiers::List(&[]));
            let delivery = Delivery { qos: batch[start].qos, retain: batch[start].retain, origin };
            let messages = Messages::Bodies { first: bodies[start], count: run(count), delivery };
            let first = behind(session.next_packet_id, start as u64).get();
            self.put(&Change::SentNow { session: session.number, first, messages });
            start += count;
        }
    }

    /// A QoS 2 message was accepted; `None` if a handler has taken it.
    pub(super) fn incoming(&mut self, session: u64, packet_id: PacketId, message: Option<&Kept>) {
        let messages = match message {
            None => Messages::Gone { count: 1 },
            Some(message) => {
                let origin = change::Origin::Subscriptions(Identifiers::List(&[]));
                let delivery = Delivery { qos: QoS::ExactlyOnce, retain: false, origin };
                Messages::Bodies { first: self.body(message), count: 1, delivery }
            }
        };
        self.put(&Change::Incoming { session, first: packet_id.get(), messages });
    }

    /// A session has a Will Message.
    pub(super) fn will(&mut self, session: u64, due: Due, expiry_secs: Option<u32>, parts: &MessageParts<'_>) {
        let message = self.stored(parts, 0);
        self.put(&Change::Will { session, due, expiry_secs, message });
    }
}

impl<'a> Row<'a> {
    /// The packets in the form in which they outlive the server.
    fn stored(&self, session: &'a Session) -> Messages<'a> {
        let kind = self.kind();
        let group = kind.group.and_then(|group| session.shared.as_ref()?.written(group));
        let count = u32::try_from(self.len()).expect("as many as one read has brought");
        Messages::Packets(Packets { qos: kind.qos, is_v5: kind.is_v5, group, count, bytes: self.bytes() })
    }
}

fn short(worker: usize) -> u16 {
    u16::try_from(worker).expect("there are at most 64 workers")
}

/// A run of messages, from a Packet Identifier on.
fn run(count: usize) -> u32 {
    u32::try_from(count).expect("as many as there are Packet Identifiers, or as one read has brought")
}

impl Core {
    /// The journal, if a session is kept, and the session.
    #[inline]
    pub(super) fn journal_of(&mut self, session_slot: u32) -> Option<(&mut Journal, &Session)> {
        // A connection that is not let in yet has none.
        let session = self.sessions.get(session_slot as usize).filter(|session| session.number != 0)?;
        self.journal.as_deref_mut().map(|journal| (journal, session))
    }

    /// A session has a client, which wants it to outlive the Network Connection or not.
    pub(super) fn journal_attached(&mut self, session_slot: u32, is_new: bool) {
        let (worker, Some(journal)) = (self.worker, &mut self.journal) else { return };
        let session = &mut self.sessions[session_slot as usize];
        match (session.number, session.expiry_secs) {
            (0, 0) => {}
            (0, _) => {
                debug_assert!(is_new, "a session that is not kept ends with its connection");
                session.number = journal.keeping.number();
                journal.keeping.count_in(worker);
                let terms = journal.terms(session);
                journal.put(&Change::Began { session: session.number, client_id: &session.client_id, terms });
            }
            (_, 0) => self.journal_ended(session_slot),
            (number, _) => {
                let terms = journal.terms(session);
                journal.put(&Change::Changed { session: number, terms });
            }
        }
    }

    /// Something of it has changed.
    pub(super) fn journal_changed(&mut self, session_slot: u32) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            let terms = journal.terms(session);
            journal.put(&Change::Changed { session: session.number, terms });
        }
    }

    /// A client that has just been let in may have a Will Message that waits after it is lost. Where plugins decide on what is
    /// published it is kept only once they have decided: nobody could ask them after a restart.
    pub(super) fn journal_will_of(&mut self, slot: u32, session_slot: u32) {
        let session = self.sessions[session_slot as usize].number;
        let will = self.connections[slot as usize].extra.as_ref().and_then(|extra| extra.will.as_ref());
        let Some(will) = will.filter(|will| session != 0 && will.delay_secs > 0) else { return };
        if self.wants(Callback::Publish) {
            return;
        }
        let mut properties = Vec::new();
        let given = Properties::from_trusted(&will.properties);
        forwarded(given, &mut properties, self.now);
        let parts = will.parts(&properties);
        if let Some(journal) = &mut self.journal {
            let due = Due::AfterSecs(will.delay_secs);
            journal.will(session, due, given.message_expiry_interval(), &parts);
        }
    }

    /// A Will Message waits in a session, unless plugins have not decided about it.
    pub(super) fn journal_delayed_will(&mut self, session_slot: u32) {
        if let Some((journal, session)) = self.journal_of(session_slot)
            && let Some(DelayedWill { at, body: WillBody::Accepted(will) }) =
                session.away.as_ref().and_then(|away| away.will.as_ref())
        {
            let due = Due::At(journal.wall(*at));
            journal.will(session.number, due, will.expiry_secs, &will.message.parts());
        }
        self.journal_known(session_slot);
    }

    /// A session has no Will Message any more.
    pub(super) fn journal_will_gone(&mut self, session_slot: u32) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            journal.put(&Change::WillGone { session: session.number });
        }
    }

    /// A session is not kept any more.
    pub(super) fn journal_ended(&mut self, session_slot: u32) {
        let number = std::mem::take(&mut self.sessions[session_slot as usize].number);
        if number != 0
            && let Some(journal) = &mut self.journal
        {
            journal.keeping.count_out(self.worker);
            journal.put(&Change::Ended { session: number });
            self.note_ended(session_slot);
        }
    }

    /// A message waits in its queue, behind all others.
    #[inline]
    pub(super) fn journal_queued(&mut self, session_slot: u32) {
        if let Some((journal, session)) = self.journal_of(session_slot)
            && let Some(queued) = session.queue.last()
        {
            journal.queued(session, queued);
        }
    }

    /// A message has been sent, which was the first of its queue or in none.
    #[inline]
    pub(super) fn journal_sent_one(
        &mut self,
        session_slot: u32,
        packet_id: PacketId,
        queued: &Queued,
        was_queued: bool,
    ) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            if was_queued {
                journal.put(&Change::Sent { session: session.number, first: packet_id.get(), count: 1 });
            } else {
                journal.sent_now(session, packet_id, queued);
            }
        }
    }

    /// Packets wait in its queue, behind all others.
    #[inline]
    pub(super) fn journal_queued_row(&mut self, session_slot: u32, row: &Row<'_>) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            journal.put(&Change::Queued { session: session.number, messages: row.stored(session) });
        }
    }

    /// Packets have been sent from its next Packet Identifier on, and were in no queue.
    #[inline]
    pub(super) fn journal_sent_row(&mut self, session_slot: u32, row: &Row<'_>, first: PacketId) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            let (number, messages) = (session.number, row.stored(session));
            journal.put(&Change::SentNow { session: number, first: first.get(), messages });
        }
    }

    /// Packets have been accepted with QoS 2, from a Packet Identifier on.
    #[inline]
    pub(super) fn journal_incoming_row(&mut self, session_slot: u32, row: &Row<'_>, first: PacketId) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            let (number, messages) = (session.number, row.stored(session));
            journal.put(&Change::Incoming { session: number, first: first.get(), messages });
        }
    }

    /// The first messages of its queue have been sent.
    #[inline]
    pub(super) fn journal_sent(&mut self, session_slot: u32, first: PacketId, count: usize) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            journal.put(&Change::Sent { session: session.number, first: first.get(), count: run(count) });
        }
    }

    /// PUBREC has come for messages of a session.
    #[inline]
    pub(super) fn journal_received(&mut self, session_slot: u32, first: PacketId, count: usize) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            journal.put(&Change::Received { session: session.number, first: first.get(), count: run(count) });
        }
    }

    /// Messages of a session are in flight no more.
    #[inline]
    pub(super) fn journal_acknowledged(&mut self, session_slot: u32, first: PacketId, count: usize) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            journal.put(&Change::Acknowledged { session: session.number, first: first.get(), count: run(count) });
        }
    }

    /// QoS 2 messages from its client have gone on.
    #[inline]
    pub(super) fn journal_released(&mut self, session_slot: u32, first: PacketId, count: usize) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            journal.put(&Change::Released { session: session.number, first: first.get(), count: run(count) });
        }
    }

    /// Messages are in its queue no more, with so many others with QoS 1 and 2 before them.
    pub(super) fn journal_dropped(&mut self, session_slot: u32, place: usize, count: usize) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            journal.put(&Change::Dropped { session: session.number, place: run(place), count: run(count) });
        }
    }

    /// What handlers have exported for the end of a session; nothing, if it is empty.
    pub(super) fn journal_last_states(&mut self, session_slot: u32, states: &[u8]) {
        if let Some((journal, session)) = self.journal_of(session_slot) {
            journal.put(&Change::LastStates { session: session.number, states });
        }
    }

    /// A retained message has changed.
    pub(super) fn journal_retained(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.note_retained();
        }
    }

    /// A message is on its way to another worker, to all subscriptions or to a group. Returns this worker, if that stands in
    /// the journal now: who has sessions that are kept is to say when it has come.
    #[inline]
    pub(super) fn journal_transit(&mut self, to: usize, group: Option<&Group>, out: &mut Outgoing<'_>) -> Option<u8> {
        let is_refused = self.is_refused_to_plugins(&out.parts);
        let journal = self.journal.as_deref_mut()?;
        if out.parts.qos == QoS::AtMostOnce || is_refused || !journal.keeping.keeps_any(to) {
            return None;
        }
        let written = group.map(|group| format!("$share/{}/{}", group.share_name(), group.filter()));
        let body = journal.body(&out.keep(&self.account));
        let (from, to, group) = (journal.worker, short(to), written.as_deref());
        journal.put(&Change::Transit { from, to, group, body });
        u8::try_from(from).ok()
    }

    /// A message looks for another member of a group. `true` if that stands in the journal.
    pub(super) fn journal_hand_on(&mut self, message: &Kept, written: &str) -> bool {
        let Some(journal) = &mut self.journal else { return false };
        let (body, own) = (journal.body(message), journal.worker);
        journal.put(&Change::Transit { from: own, to: own, group: Some(written), body });
        true
    }

    /// The next message from a worker whose way stands in a journal has come to where it goes.
    pub(super) fn journal_taken(&mut self, from: usize) {
        if let Some(journal) = &mut self.journal {
            journal.take_from(from);
        }
    }

    /// Whether something is in the journal that was not handed over.
    pub(crate) fn has_journal(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_due())
    }

    /// Hands this turn's journal over, if there is one, with `hand_over`, which returns its number. To be called before
    /// [`Core::flush_mail`]. The tree of retained messages is locked meanwhile if some of them have changed: so their order in
    /// all journals is that in the tree.
    pub fn hand_over_journal(&mut self, hand_over: impl FnOnce(&mut Vec<u8>) -> u64) {
        if self.journal.is_some() {
            self.close_lanes();
            let number = self.hand_over_if_due(hand_over);
            self.journal_handed_over(number);
        }
    }

    fn hand_over_if_due(&mut self, hand_over: impl FnOnce(&mut Vec<u8>) -> u64) -> Option<u64> {
        let journal = self.journal.as_deref_mut().filter(|journal| journal.is_due())?;
        let has_retained = journal.has_retained;
        journal.finish();
        let number = if has_retained {
            self.shared.retained.with_changes(|changes| {
                changes.for_each(|change| journal.put_retained(&change));
                hand_over(&mut journal.bytes)
            })
        } else {
            hand_over(&mut journal.bytes)
        };
        journal.bytes.clear();
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its number may be that of details in a checkpoint, though the session has ended.
    #[test]
    fn session_has_a_number_that_none_had_before_the_server_started() {
        let new = |zero| Keeping::new(1, WallMillis(zero), Arc::default());
        let before = new(1_700_000_000_000);
        let ended = before.number();
        let after = new(1_700_000_000_001);
        assert!(after.number() > ended && after.number() < 1 << 53);
        after.note_number(u64::MAX - 2);
        assert_eq!(after.number(), u64::MAX - 1);
    }
}
