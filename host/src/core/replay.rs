//! Retained messages on their way to new subscriptions: a bounded number in each turn, and one subscription of a
//! connection after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::{Callback, DropReason, QoS};

use super::Core;
use super::budget::Kept;
use super::connection::{NONE, Phase};
use super::deliver::How;
use super::outbound::NEXT_TO_NOTHING;
use super::session::{Origin, Queued};
use crate::codec;
use crate::message::Message;
use crate::packed::{Reader, Unreadable, Write};
use crate::plugin::Cause;
use crate::router::{Found, Retained};

/// The replays of one connection stop for this turn after so many messages, as each turn costs a `send`: with 64 it was half
/// of what a replay takes,
const MESSAGES_A_TURN: usize = if cfg!(any(test, fuzzing)) { 64 } else { 512 };
/// or so many bytes, and do not go on while more than that waits for the socket.
const AHEAD_BYTES: usize = 64 << 10;
/// Looking up the messages of a filter counts as one for each level that is searched, and at most as so many of them.
const LOOKUP_AS_MESSAGES: usize = 64;
/// Messages that all replays together send before others are served.
const ALL_MESSAGES_A_TURN: usize = 4 * MESSAGES_A_TURN;
/// Messages that are taken out of the store at one time: a lock for each would be one for each message.
const BATCH_MESSAGES: usize = 64;

/// The replays of one connection. If its session outlives it, they go on with the next one.
#[derive(Default)]
pub(super) struct Replays {
    current: Option<Current>,
    /// By Topic Filter, so that a filter that is subscribed to again and again is replayed once.
    waiting: Parked,
    /// On the core's list of those that may get ahead.
    is_listed: bool,
}

/// Replays that wait for the client of a session to come back, by Topic Filter.
pub(super) type Parked = BTreeMap<Box<str>, Replay>;

/// How a subscription wants its retained messages.
pub(super) struct Replay {
    pub(super) qos: QoS,
    /// Subscription Identifier, 0 for none.
    pub(super) identifier: u32,
    /// What is stored after this comes as a live message, as the subscription was there before.
    pub(super) mark: u64,
}

/// The replay that is under way: the only one of its connection for which messages have been looked up.
struct Current {
    filter: Box<str>,
    replay: Replay,
    /// Where its messages are, with the mark that this is true for. They may be replaced meanwhile: then they are not there
    /// any more.
    found: Found,
    /// So many of the places have been looked at.
    done: usize,
}

impl Current {
    fn messages_left(&self) -> usize {
        self.found.places.len() - self.done
    }
}

impl Replays {
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    /// Messages that were found and not sent yet.
    pub(super) fn messages_left(&self) -> usize {
        self.current.as_ref().map_or(0, Current::messages_left)
    }

    /// Writes them for another process, where retained messages have the same numbers and other places.
    pub(super) fn write(&self, retained: &Retained, out: &mut Vec<u8>) {
        out.put_option(self.current.as_ref(), |out, current| {
            out.put_text(&current.filter);
            current.replay.write(out);
            let topics = retained.topics(&current.found.places[current.done..], current.found.mark);
            out.put_u64(current.found.mark);
            out.put_count(topics.len());
            topics.iter().for_each(|message| out.put_text(message.topic()));
        });
        out.put_count(self.waiting.len());
        for (filter, replay) in &self.waiting {
            out.put_text(filter);
            replay.write(out);
        }
    }

    /// Reads what was written there, once the retained messages have been taken in.
    pub(super) fn read(retained: &Retained, reader: &mut Reader<'_>) -> Result<Self, Unreadable> {
        let current = reader.option(|reader| {
            let (filter, replay, mark) = (reader.text()?.into(), Replay::read(reader)?, reader.u64()?);
            let places = retained.places(&reader.list(Reader::text)?);
            Ok(Current { filter, replay, found: Found { places, mark, searched: 0 }, done: 0 })
        })?;
        let waiting = reader.list(|reader| Ok((Box::from(reader.text()?), Replay::read(reader)?)))?;
        Ok(Self { current, waiting: waiting.into_iter().collect(), is_listed: false })
    }

    /// Forgets the replay of a filter.
    fn cancel(&mut self, filter: &str) {
        self.waiting.remove(filter);
        self.current.take_if(|current| &*current.filter == filter);
    }
}

impl Core {
    /// Has the retained messages of a new subscription sent. One of the same filter that has not ended begins anew.
    ///
    /// They are looked up at once, as long as there is time for it in this turn and no other replay of the connection is
    /// under way: most filters match none, and are done with. The others wait for their turn. What is published later
    /// comes as a live message only.
    ///
    /// Without a connection they wait for the client to come back.
    pub(super) fn start_replay(&mut self, session_slot: u32, filter: &str, qos: QoS, identifier: u32) {
        let session = &mut self.sessions[session_slot as usize];
        let slot = session.connection;
        if slot == NONE {
            let replay = Replay { qos, identifier, mark: self.shared.retained.mark() };
            session.away().parked_replays.insert(filter.into(), replay);
            return;
        }
        let has_others = self.connections[slot as usize].extra.as_ref().is_some_and(|extra| !extra.replays.is_empty());
        if self.is_spent() || has_others {
            let replay = Replay { qos, identifier, mark: self.shared.retained.mark() };
            let replays = &mut self.connections[slot as usize].extra().replays;
            replays.cancel(filter);
            replays.waiting.insert(filter.into(), replay);
        } else {
            let found = self.look_up(filter, None);
            if found.places.is_empty() {
                return;
            }
            let replay = Replay { qos, identifier, mark: found.mark };
            let current = Current { filter: filter.into(), replay, found, done: 0 };
            self.connections[slot as usize].extra().replays.current = Some(current);
        }
        self.count_extra(slot);
        self.list_replays(slot);
    }

    /// Where the messages of a filter are.
    fn look_up(&mut self, filter: &str, mark: Option<u64>) -> Found {
        let found = self.shared.retained.find(filter, mark);
        self.spend(found.searched);
        found
    }

    /// The subscription has ended [MQTT-3.10.4-2].
    pub(super) fn cancel_replay(&mut self, session_slot: u32, filter: &str) {
        let session = &mut self.sessions[session_slot as usize];
        let slot = session.connection;
        if let Some(away) = &mut session.away {
            away.parked_replays.remove(filter);
            session.drop_empty_away();
        }
        if let Some(extra) = self.connections.get_mut(slot as usize).and_then(|connection| connection.extra.as_mut()) {
            extra.replays.cancel(filter);
            self.count_extra(slot);
        }
    }

    /// A connection has ended, but not its session: what its subscriptions still have coming waits there. Messages that have
    /// been looked up wait in the queue, as any others do; the rest is looked up when the client is back.
    pub(super) fn park_replays(&mut self, session_slot: u32, replays: Replays) {
        if let Some(current) = replays.current.filter(|current| current.replay.qos != QoS::AtMostOnce) {
            let mut batches = current.found.places[current.done..].chunks(BATCH_MESSAGES);
            while let Some(places) = batches.next()
                && self.park_batch(session_slot, places, &current)
            {}
        }
        if !replays.waiting.is_empty() {
            self.sessions[session_slot as usize].away().parked_replays = replays.waiting;
        }
    }

    /// Puts what is at some places into the queue. `false` if there is no room for more.
    fn park_batch(&mut self, session_slot: u32, places: &[u32], Current { replay, found, .. }: &Current) -> bool {
        let limits = &self.shared.limits;
        let (messages_max, bytes_max) = (limits.queue_messages_max, limits.queue_bytes_max);
        let mut messages = Vec::new();
        self.shared.retained.get(places, found.mark, self.now, &mut messages);
        for message in messages.into_iter().flatten() {
            let qos = message.qos().min(replay.qos);
            if qos == QoS::AtMostOnce {
                continue;
            }
            let is_overfull = self.is_overfull(message.bytes());
            let message = Kept::new(&message.parts(), &self.account);
            let origin = Origin::new(None, &[replay.identifier], &self.account);
            let delivery = Queued { message, qos, retain: true, origin };
            let left = if is_overfull {
                Err((DropReason::ServerFull, delivery))
            } else {
                let left = self.sessions[session_slot as usize].enqueue(delivery, messages_max, bytes_max);
                left.map_err(|delivery| (DropReason::QueueFull, delivery))
            };
            if left.is_ok() {
                self.journal_queued(session_slot);
            }
            if let Err((reason, delivery)) = left {
                self.counters().dropped_queue_full.add(1);
                self.tell_queued_dropped(reason, session_slot, &delivery);
                return false;
            }
        }
        true
    }

    /// The client is back.
    pub(super) fn resume_replays(&mut self, slot: u32, session_slot: u32) {
        let parked = self.sessions[session_slot as usize].take_away(|away| &mut away.parked_replays);
        if !parked.is_empty() {
            self.connections[slot as usize].extra().replays.waiting = parked;
            self.list_replays(slot);
        }
    }

    /// The connection may have become able to take more.
    pub(super) fn list_replays(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let id = connection.id;
        if let Some(extra) = &mut connection.extra
            && !extra.replays.is_listed
            && !extra.replays.is_empty()
        {
            extra.replays.is_listed = true;
            self.listed_replays.push_back((slot, id));
        }
    }

    /// Lets the listed replays get ahead.
    pub(super) fn continue_replays(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        let mut messages_left = ALL_MESSAGES_A_TURN;
        for _ in 0..self.listed_replays.len() {
            if messages_left == 0 {
                return;
            }
            let Some((slot, id)) = self.listed_replays.pop_front() else {
                return;
            };
            let connection = self.connections.get_mut(slot as usize).filter(|connection| connection.id == id);
            let Some(extra) = connection.and_then(|connection| connection.extra.as_mut()) else {
                continue; // The connection has ended.
            };
            let mut replays = std::mem::take(&mut extra.replays);
            replays.is_listed = self.continue_replay(slot, &mut replays, &mut messages_left);
            if replays.is_listed {
                self.listed_replays.push_back((slot, id));
            }
            self.connections[slot as usize].extra().replays = replays;
            self.count_extra(slot);
            self.connections[slot as usize].drop_empty_extra();
        }
    }

    /// Sends some messages. `false` if the connection cannot take more for now, or everything has been sent.
    fn continue_replay(&mut self, slot: u32, replays: &mut Replays, messages_left: &mut usize) -> bool {
        let (mut messages, mut bytes) = (0, 0);
        // What it was sent by a lane in this turn is in flight as well.
        self.settle_in_flight(slot);
        while messages < MESSAGES_A_TURN && bytes < AHEAD_BYTES && *messages_left > 0 {
            if !self.can_replay(slot) {
                return false;
            }
            let Some(current) = &mut replays.current else {
                let Some((filter, replay)) = replays.waiting.pop_first() else {
                    return false;
                };
                let found = self.look_up(&filter, Some(replay.mark));
                let counts_as = found.searched.min(LOOKUP_AS_MESSAGES);
                replays.current = Some(Current { filter, replay, found, done: 0 });
                messages += counts_as;
                *messages_left = messages_left.saturating_sub(counts_as);
                continue;
            };
            let count = BATCH_MESSAGES.min(current.messages_left()).min(MESSAGES_A_TURN - messages).min(*messages_left);
            if count == 0 {
                replays.current = None;
                continue;
            }
            let (done, sent_bytes) = match self.replay_plain(slot, current, count, AHEAD_BYTES - bytes) {
                (0, _) => self.replay_batch(slot, current, count, AHEAD_BYTES - bytes),
                copied => copied,
            };
            messages += done;
            *messages_left -= done;
            bytes += sent_bytes;
        }
        !replays.is_empty()
    }

    /// Does what [`replay_batch`](Self::replay_batch) does, up to the first message that needs more than to be copied. Those
    /// of QoS 0 rarely do; so copied, they take a third of the instructions.
    fn replay_plain(&mut self, slot: u32, current: &mut Current, count: usize, bytes_max: usize) -> (usize, usize) {
        let (connection, Current { replay, found, done, .. }) = (&self.connections[slot as usize], &mut *current);
        if replay.identifier != 0 || connection.aliases_max > 0 || self.wants(Callback::Deliver) || self.is_full() {
            return (0, 0);
        }
        self.leave_lane(slot);
        self.out(slot);
        // What may wait for the socket, as `can_replay` has it.
        let room = self.replayed_bytes_max().saturating_sub(self.waiting_bytes(slot));
        let connection = &mut self.connections[slot as usize];
        let (capacity, version, largest) = (connection.out.capacity(), connection.version, connection.packet_bytes_max);
        let (start, out) = (connection.out.len(), &mut connection.out);
        let (mut sent, mut passed, mut bytes) = (0, 0, 0);
        self.shared.retained.visit(&found.places[*done..][..count], found.mark, self.now, |message| {
            let Some(message) = message else {
                passed += 1;
                return true;
            };
            let is_at_most_once = message.qos().min(replay.qos) == QoS::AtMostOnce;
            let Some((content, topic_bytes)) = message.plain().filter(|_| is_at_most_once) else { return false };
            let packet_bytes = codec::publish_packet_bytes(version, QoS::AtMostOnce, content.len(), 0, 0);
            if bytes >= bytes_max || out.len() - start > room || packet_bytes > largest as usize {
                return false;
            }
            codec::encode_plain_publish(version, out, true, content, topic_bytes);
            connection.out_largest = connection.out_largest.max(packet_bytes);
            (sent, bytes) = (sent + 1, bytes + content.len());
            true
        });
        let (is_empty, grown) = (connection.out.is_empty(), connection.out.capacity());
        self.account.change(capacity, grown);
        if is_empty {
            let unused = self.take_out(slot);
            self.recycle(unused);
        }
        self.counters().publishes_sent.add(sent);
        *done += sent as usize + passed;
        (sent as usize + passed, bytes)
    }

    /// Sends the next `count` messages of a replay, or as many of them as the connection can take and have `bytes_max`.
    /// Returns how many of them are done with, and the bytes that they have.
    fn replay_batch(&mut self, slot: u32, current: &mut Current, count: usize, bytes_max: usize) -> (usize, usize) {
        let mut batch = std::mem::take(&mut self.replayed);
        let places = &current.found.places[current.done..][..count];
        self.shared.retained.get(places, current.found.mark, self.now, &mut batch);
        let (mut done, mut bytes) = (0, 0);
        // What has been replaced since is delivered as a live message: an older value never follows a newer one.
        for message in &batch {
            if bytes >= bytes_max || !self.can_replay(slot) {
                break;
            }
            done += 1;
            if let Some(message) = message {
                bytes += message.bytes();
                self.send_retained(slot, message, &current.replay);
            }
        }
        batch.clear();
        self.replayed = batch;
        current.done += done;
        (done, bytes)
    }

    /// Sends with RETAIN set, as it is sent because a subscription was made.
    fn send_retained(&mut self, slot: u32, message: &Arc<Message>, replay: &Replay) {
        self.templates.begin(1);
        let qos = message.qos().min(replay.qos);
        let origin = Origin::new(None, &[replay.identifier], &self.account);
        let parts = message.parts();
        if qos == QoS::AtMostOnce {
            let how = How { retain: true, shared: false, cause: Cause::Retained };
            self.send_at_most_once(slot, how, origin.identifiers(), &parts);
        } else {
            let message = Kept::new(&parts, &self.account);
            let delivery = Queued { message, qos, retain: true, origin };
            self.send_or_queue(self.connections[slot as usize].session, delivery, &parts, Cause::Retained);
        }
    }

    /// What may wait for the socket of a connection that goes on with a replay: no more than a QoS 0 message is sent with
    /// whatever its size. Its turn comes, so it is not dropped.
    fn replayed_bytes_max(&self) -> usize {
        AHEAD_BYTES.min(self.shared.limits.outbound_bytes_max / NEXT_TO_NOTHING)
    }

    /// Whether a connection is done with what it had to do: a replay never fills a queue.
    fn can_replay(&self, slot: u32) -> bool {
        let connection = &self.connections[slot as usize];
        connection.phase == Phase::Connected
            && self.waiting_bytes(slot) <= self.replayed_bytes_max()
            && self.sessions.get(connection.session as usize).is_some_and(|session| {
                !session.asks_again
                    && session.queue.is_empty()
                    && session.in_flight.len() < usize::from(connection.in_flight_max)
            })
    }

    /// Connections that have something to replay.
    #[cfg(any(test, fuzzing))]
    pub(super) fn replaying(&self) -> usize {
        let has_replays =
            |connection: &super::Connection| connection.extra.as_ref().is_some_and(|extra| !extra.replays.is_empty());
        self.connections.iter().filter(|(_, connection)| has_replays(connection)).count()
    }
}
