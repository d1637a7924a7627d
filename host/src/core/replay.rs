//! Retained messages on their way to new subscriptions: a bounded number in each turn, and one subscription of a
//! connection after the other.

use std::collections::BTreeMap;
use std::sync::Weak;

use plugin_api::{DropReason, QoS};

use super::Core;
use super::budget::Kept;
use super::connection::{NONE, Phase};
use super::deliver::How;
use super::outbound::NEXT_TO_NOTHING;
use super::session::{Origin, Queued};
use crate::message::Message;
use crate::plugin::Cause;

/// The replays of one connection stop for this turn after so many messages,
const MESSAGES_A_TURN: usize = 64;
/// or so many bytes, and do not go on while more than that waits for the socket.
const AHEAD_BYTES: usize = 64 << 10;
/// Looking up the messages of a filter counts as one for each level that is searched, and at most as so many of them.
const LOOKUP_AS_MESSAGES: usize = 64;
/// Messages that all replays together send before others are served.
const ALL_MESSAGES_A_TURN: usize = 256;

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
    qos: QoS,
    /// Subscription Identifier, 0 for none.
    identifier: u32,
    /// What is stored after this comes as a live message, as the subscription was there before.
    mark: u64,
}

/// The replay that is under way: the only one of its connection for which messages have been looked up.
struct Current {
    filter: Box<str>,
    replay: Replay,
    /// They may be replaced meanwhile: then nothing of them stays.
    messages: std::vec::IntoIter<Weak<Message>>,
}

impl Replays {
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    /// Messages that were found and not sent yet.
    pub(super) fn messages_left(&self) -> usize {
        self.current.as_ref().map_or(0, |current| current.messages.len())
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
            let (messages, _) = self.look_up(filter, u64::MAX);
            if messages.len() == 0 {
                return;
            }
            let current =
                Current { filter: filter.into(), replay: Replay { qos, identifier, mark: u64::MAX }, messages };
            self.connections[slot as usize].extra().replays.current = Some(current);
        }
        self.count_extra(slot);
        self.list_replays(slot);
    }

    /// The messages of a filter, and how many levels were searched for them.
    fn look_up(&mut self, filter: &str, mark: u64) -> (std::vec::IntoIter<Weak<Message>>, usize) {
        let (found, searched) = self.shared.retained.matching_before(filter, self.now, mark);
        self.spend(searched);
        (found.into_iter(), searched)
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
        let limits = &self.shared.limits;
        let (messages_max, bytes_max) = (limits.queue_messages_max, limits.queue_bytes_max);
        for message in replays.current.into_iter().flat_map(|Current { replay, messages, .. }| {
            let messages = messages.filter_map(|message| message.upgrade());
            messages.map(move |message| (message.qos().min(replay.qos), replay.identifier, message))
        }) {
            let (qos, identifier, message) = message;
            if qos == QoS::AtMostOnce || message.is_superseded() || message.is_expired(self.now) {
                continue;
            }
            let is_overfull = self.is_overfull(message.bytes());
            let message = Kept::new(&message.parts(), &self.account);
            let origin = Origin::new(None, &[identifier], &self.account);
            let delivery = Queued { message, qos, retain: true, origin };
            let left = if is_overfull {
                Err((DropReason::ServerFull, delivery))
            } else {
                let left = self.sessions[session_slot as usize].enqueue(delivery, messages_max, bytes_max);
                left.map_err(|delivery| (DropReason::QueueFull, delivery))
            };
            if let Err((reason, delivery)) = left {
                self.counters().dropped_queue_full.add(1);
                self.tell_queued_dropped(reason, session_slot, &delivery);
                break;
            }
        }
        if !replays.waiting.is_empty() {
            self.sessions[session_slot as usize].away().parked_replays = replays.waiting;
        }
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
        while messages < MESSAGES_A_TURN && bytes < AHEAD_BYTES && *messages_left > 0 {
            if !self.can_replay(slot) {
                return false;
            }
            let Some(current) = &mut replays.current else {
                let Some((filter, replay)) = replays.waiting.pop_first() else {
                    return false;
                };
                let (found, searched) = self.look_up(&filter, replay.mark);
                replays.current = Some(Current { filter, replay, messages: found });
                let counts_as = searched.min(LOOKUP_AS_MESSAGES);
                messages += counts_as;
                *messages_left = messages_left.saturating_sub(counts_as);
                continue;
            };
            let Some(message) = current.messages.next() else {
                replays.current = None;
                continue;
            };
            messages += 1;
            *messages_left -= 1;
            // What has been replaced since is delivered as a live message: an older value never follows a newer one.
            let message = message.upgrade().filter(|message| !message.is_superseded());
            if let Some(message) = message.filter(|message| !message.is_expired(self.now)) {
                bytes += message.bytes();
                self.send_retained(slot, &message, &current.replay);
            }
        }
        !replays.is_empty()
    }

    /// Sends with RETAIN set, as it is sent because a subscription was made.
    fn send_retained(&mut self, slot: u32, message: &Message, replay: &Replay) {
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

    /// Whether a connection is done with what it had to do: a replay never fills a queue.
    fn can_replay(&self, slot: u32) -> bool {
        let connection = &self.connections[slot as usize];
        connection.phase == Phase::Connected
            // No further than a QoS 0 message is sent whatever its size: its turn comes, so it is not dropped.
            && self.waiting_bytes(slot) <= AHEAD_BYTES.min(self.shared.limits.outbound_bytes_max / NEXT_TO_NOTHING)
            && self.sessions.get(connection.session as usize).is_some_and(|session| {
                !session.asks_again && session.queue.is_empty() && session.in_flight.len() < usize::from(connection.in_flight_max)
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
