//! What promises something is not said before what it promises is safe.
//!
//! Where there is a store, what a turn changes of what is kept stands in its journal, and the driver hands that over at the end
//! of the turn ([`Core::hand_over_journal`]). An acknowledgement that is caused by it is *held* meanwhile: it is not put into its
//! connection's out-buffer, but kept here with the number of the journal, and goes out when the store says that this number
//! is safe ([`Core::journals_are_safe`]). Each connection gets what it is owed in the order in which it came about; what promises
//! nothing, above all what is delivered with QoS 0 and 1, does not wait for it.
//!
//! - Held are PUBACK, PUBREC, PUBCOMP, SUBACK and UNSUBACK; PUBREL, because a message that a client has released it has forgotten; and
//!   PUBLISH with QoS 2 to a session that is kept: after a crash its Packet Identifier must not stand for another
//!   message, which the client would take for the same one.
//! - CONNACK stands in the out-buffer, and that is *shut* until the session is safe, as nothing may be sent before it; or, where
//!   the session is not kept, until the end of the one that the client had before is.
//! - What answers a packet that has changed nothing waits only where something before it on its connection does, so that it
//!   does not get ahead. Where the journal is empty, nothing is held, and nothing is copied. But who is told that something is not
//!   there, a retained message or a subscription, waits as well: what has ended it need not be safe.
//! - What a plugin has put by a key when it was asked about a packet stands in a journal of its own; the answer waits for that.
//! - DISCONNECT waits as well, for a connection that is closed by us: what the client was promised before goes out before it. A
//!   connection whose peer has gone is owed nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::{FixedState, RandomState};
use plugin_api::QoS;
use slab::Slab;

use super::budget::Account;
use super::connection::NONE;
use super::outbound::ANSWERS_BYTES_MAX;
use super::{Closing, Core, slot_of};
use crate::message::{MessageParts, Source};
use crate::router::Target;

/// In the place of a journal's number: it has none yet, as the turn is not over.
const THIS_TURN: u64 = u64::MAX;

/// Buffers that are kept for the next ones, and the largest of them.
const SPARE_MAX: usize = 256;
const SPARE_BYTES_MAX: usize = 4 << 10;

/// A client, in as many bits as it takes to wait for hardly any other.
fn hash_of(client_id: &str) -> u64 {
    FixedState::default().hash_one(client_id)
}

/// What a worker holds.
#[derive(Default)]
pub(super) struct HeldAcks {
    /// Places in `owed` by the slots of connections; [`NONE`] for those that are owed nothing.
    by_slot: Vec<u32>,
    owed: Slab<Owed>,
    /// Turns whose journals are not known to be safe, oldest first, with the slots of connections that are owed something of them.
    turns: VecDeque<(u64, Vec<u32>)>,
    /// The same of this turn.
    this_turn: Vec<u32>,
    spare: Vec<Owed>,
    /// The number of the last journal that was handed over, and of the last one that is safe.
    last: u64,
    safe: u64,
    /// What has to be kept is refused.
    pub(super) is_refused: bool,
    /// Connections that have got no acknowledgement for that: their ids, by slot.
    withheld: BTreeMap<u32, u64>,
    /// Clients whose kept sessions have ended in journals that are not known to be safe, by a hash, with the numbers of these.
    ended: HashMap<u64, u64, RandomState>,
    /// The same in order, but for this turn's.
    ended_in_order: VecDeque<(u64, u64)>,
    ended_this_turn: Vec<u64>,
    /// Bytes of the journal when the packets that are being looked at began: what is behind them is their doing. And how often
    /// plugins had put something by then.
    mark: usize,
    values: u64,
}

/// What one connection is owed.
#[derive(Default)]
struct Owed {
    /// Encoded packets, those before `gone` have been sent.
    bytes: Vec<u8>,
    gone: usize,
    /// Numbers of journals, and where in `bytes` what waits for them ends. Both grow.
    ends: VecDeque<(u64, usize)>,
    /// CONNACK is the first packet of the out-buffer, and waits for this number; 0 if it does not.
    shut_until: u64,
}

impl HeldAcks {
    fn of(&mut self, slot: u32) -> Option<&mut Owed> {
        let place = *self.by_slot.get(slot as usize)?;
        self.owed.get_mut(place as usize)
    }

    /// What a connection is owed, which is listed for this turn.
    fn list(&mut self, slot: u32, account: &Account) -> &mut Owed {
        let index = slot as usize;
        if self.by_slot.len() <= index {
            self.by_slot.resize(index + 1, NONE);
        }
        if self.by_slot[index] == NONE {
            let owed = self.spare.pop().unwrap_or_default();
            account.add(owed.bytes.capacity());
            self.by_slot[index] = slot_of(self.owed.insert(owed));
        }
        let owed = &mut self.owed[self.by_slot[index] as usize];
        let is_listed =
            owed.shut_until == THIS_TURN || owed.ends.back().is_some_and(|(number, _)| *number == THIS_TURN);
        if !is_listed {
            self.this_turn.push(slot);
        }
        owed
    }

    /// What a connection is owed.
    #[cfg(test)]
    pub(super) fn unpaid(&self, slot: u32) -> &[u8] {
        let owed = self.by_slot.get(slot as usize).and_then(|place| self.owed.get(*place as usize));
        owed.map_or(&[], |owed| &owed.bytes[owed.gone..])
    }

    /// Takes what a connection is owed away.
    fn remove(&mut self, slot: u32) -> Option<Owed> {
        let place = std::mem::replace(self.by_slot.get_mut(slot as usize)?, NONE);
        self.owed.try_remove(place as usize)
    }

    fn keep_spare(&mut self, mut owed: Owed) {
        if self.spare.len() < SPARE_MAX && owed.bytes.capacity() <= SPARE_BYTES_MAX {
            owed.bytes.clear();
            owed.ends.clear();
            (owed.gone, owed.shut_until) = (0, 0);
            self.spare.push(owed);
        }
    }
}

#[cfg(any(test, fuzzing))]
impl HeldAcks {
    pub(super) fn has(&self, slot: u32) -> bool {
        self.by_slot.get(slot as usize).is_some_and(|place| *place != NONE)
    }

    pub(super) fn assert_nothing_left(&self) {
        assert_eq!(self.owed.len(), 0, "connections that are owed something");
    }
}

impl Core {
    /// Whether an answer to a connection waits: its packet has changed what is kept, or something before it waits.
    #[inline]
    pub(super) fn must_owe(&mut self, slot: u32) -> bool {
        self.journal.is_some() && self.has_to_owe(slot)
    }

    #[inline(never)]
    fn has_to_owe(&mut self, slot: u32) -> bool {
        let Some(journal) = &mut self.journal else { return false };
        if journal.values() != self.held_acks.values {
            // What plugins put stands in journals that were handed over at once: this turn's comes behind them.
            journal.touch();
        }
        journal.len() > self.held_acks.mark || self.connections[slot as usize].is_owed
    }

    /// An answer is about to say that something is not there. That it is gone may not be safe yet, and is before the answer is.
    pub(super) fn answer_behind_journals(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.touch();
        }
    }

    /// Packets of a connection are looked at from now on.
    #[inline]
    pub(super) fn mark_journal(&mut self) {
        if let Some(journal) = &self.journal {
            (self.held_acks.mark, self.held_acks.values) = (journal.len(), journal.values());
        }
    }

    /// They have been; whose doing it is that the journal grows, or that plugins have put something, is not known any more.
    #[inline]
    pub(super) fn unmark_journal(&mut self) {
        (self.held_acks.mark, self.held_acks.values) = (0, 0);
    }

    /// Whether a message with QoS 2 to a session waits until it is safe under which Packet Identifier it was sent.
    #[inline]
    pub(super) fn holds_exactly_once(&self, session_slot: u32) -> bool {
        self.journal.is_some() && self.is_kept(session_slot)
    }

    /// Has `write` append packets to the out-buffer of a connection, or holds them.
    #[inline]
    pub(super) fn write_or_owe<R>(&mut self, slot: u32, is_held: bool, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if is_held { self.owe(slot, write) } else { self.write(slot, write) }
    }

    /// Holds packets that `write` appends.
    pub(super) fn owe<R>(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.connections[slot as usize].is_owed = true;
        let owed = self.held_acks.list(slot, &self.account);
        let before = owed.bytes.capacity();
        let written = write(&mut owed.bytes);
        let (bytes, end) = (owed.bytes.len() - owed.gone, owed.bytes.len());
        match owed.ends.back_mut() {
            Some((THIS_TURN, last)) => *last = end,
            _ => owed.ends.push_back((THIS_TURN, end)),
        }
        let after = owed.bytes.capacity();
        self.account.change(before, after);
        let limits = &self.shared.limits;
        // What is in flight has bounds of its own, and one message may be past them.
        let in_flight_max = limits.queue_bytes_max.max(limits.outbound_bytes_max) + limits.packet_bytes_max;
        if bytes > in_flight_max + ANSWERS_BYTES_MAX {
            self.close_soon_who_is_owed_too_much(slot);
        }
        written
    }

    /// Holds what has been appended to the out-buffer of a connection from `start` on.
    pub(super) fn owe_from(&mut self, slot: u32, start: usize) {
        let mut out = std::mem::take(&mut self.connections[slot as usize].out);
        self.owe(slot, |held| held.extend_from_slice(&out[start..]));
        out.truncate(start);
        let connection = &mut self.connections[slot as usize];
        connection.out = out;
        if start == 0 {
            // Nobody will report that it has been sent.
            let empty = self.take_out(slot);
            self.recycle(empty);
        }
    }

    /// Nothing of the out-buffer of a connection, which begins with CONNACK, goes out before this turn's journal is safe: the
    /// session is to be there whatever happens, or one that has ended is not to come back.
    pub(super) fn shut_if_kept(&mut self, slot: u32, session_slot: u32) {
        let waits =
            |core: &mut Self| core.is_kept(session_slot) || core.must_owe(slot) || core.may_come_back(session_slot);
        if self.journal.is_none() || !waits(self) {
            return;
        }
        let connection = &mut self.connections[slot as usize];
        (connection.is_owed, connection.is_shut) = (true, true);
        self.held_acks.list(slot, &self.account).shut_until = THIS_TURN;
    }

    /// Whether a session of this client has ended that would be there again after a crash.
    fn may_come_back(&self, session_slot: u32) -> bool {
        let (ended, session) = (&self.held_acks.ended, self.sessions.get(session_slot as usize));
        session.is_some_and(|session| !ended.is_empty() && ended.contains_key(&hash_of(&session.client_id)))
    }

    /// A session that was kept has ended, which stands in the journal.
    pub(super) fn note_ended(&mut self, session_slot: u32) {
        let hash = hash_of(&self.sessions[session_slot as usize].client_id);
        self.held_acks.ended.insert(hash, THIS_TURN);
        self.held_acks.ended_this_turn.push(hash);
    }

    /// It is owed nothing any more: its peer has gone.
    pub(super) fn forget_owed(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize).filter(|connection| connection.is_owed) else {
            return;
        };
        (connection.is_owed, connection.is_shut) = (false, false);
        if let Some(owed) = self.held_acks.remove(slot) {
            self.account.sub(owed.bytes.capacity());
            self.held_acks.keep_spare(owed);
        }
    }

    /// Whether what has to be kept is refused from now on, as the store fails.
    pub fn refuse_what_is_kept(&mut self, is_refused: bool) {
        if std::mem::replace(&mut self.held_acks.is_refused, is_refused) && !is_refused {
            // They send again what they have no acknowledgement for.
            let kind = plugin_api::DisconnectKind::LimitExceeded;
            for (slot, id) in std::mem::take(&mut self.held_acks.withheld) {
                let closing = Closing::silent(kind, plugin_api::ReasonCode::QUOTA_EXCEEDED);
                self.closing_soon.push((slot, id, closing));
            }
        }
    }

    /// An acknowledgement is not given to a connection, as nothing can be kept now.
    pub(super) fn withhold(&mut self, slot: u32) {
        self.held_acks.withheld.insert(slot, self.connections[slot as usize].id);
    }

    /// Whether a message is to be retained that nobody may be told to send again, and nothing can be kept: what is to be written
    /// would grow as long as that lasts.
    pub(super) fn cannot_retain(&self, parts: &MessageParts<'_>) -> bool {
        self.held_acks.is_refused && parts.retain && !parts.payload.is_empty()
    }

    /// Whether nothing can be kept, and a plugin has published this, who cannot be told to send it again: what is to be written
    /// would grow as long as that lasts. What a client was promised is kept even so.
    #[inline]
    pub(super) fn is_refused_to_plugins(&self, parts: &MessageParts<'_>) -> bool {
        self.held_acks.is_refused && matches!(parts.source, Source::Plugin { .. })
    }

    /// The same of a message for one session that is kept.
    #[inline]
    pub(super) fn cannot_keep(&self, session_slot: u32, parts: &MessageParts<'_>) -> bool {
        self.is_refused_to_plugins(parts) && self.is_kept(session_slot)
    }

    /// Whether the will of a connection may have to be kept, with or without its session: who comes and goes without end, while
    /// nothing can be kept, would have what is to be written grow without one.
    pub(super) fn may_leave_something(&self, slot: u32) -> bool {
        let will = self.connections[slot as usize].extra.as_ref().and_then(|extra| extra.will.as_ref());
        will.is_some_and(|will| will.qos != QoS::AtMostOnce || will.retain)
    }

    /// Whether a session outlives its connection.
    pub(super) fn is_kept(&self, session_slot: u32) -> bool {
        self.sessions.get(session_slot as usize).is_some_and(|session| session.expiry_secs != 0)
    }

    /// Whether a message with QoS 1 or 2 would have to be kept; or might, where another worker or a member of a Shared Subscription
    /// gets it.
    pub(super) fn would_be_kept(&mut self, slot: u32, qos: QoS, parts: &MessageParts<'_>) -> bool {
        if parts.retain || qos == QoS::ExactlyOnce && self.is_kept(self.connections[slot as usize].session) {
            return true;
        }
        let targets = self.router.targets(parts.topic);
        let is_kept = |target: &Target| target.qos != QoS::AtMostOnce && self.is_kept(target.session.slot);
        targets.remote != 0 || !targets.groups.is_empty() || targets.local.iter().any(is_kept)
    }

    /// Says which number the journal has got that was taken, or that there was none in this turn.
    pub(super) fn journal_handed_over(&mut self, number: Option<u64>) {
        let held = &mut self.held_acks;
        held.last = number.unwrap_or(held.last);
        held.mark = 0;
        let last = held.last;
        for hash in held.ended_this_turn.drain(..) {
            held.ended.insert(hash, last);
            held.ended_in_order.push_back((last, hash));
        }
        if held.this_turn.is_empty() {
            return;
        }
        let slots = std::mem::take(&mut held.this_turn);
        for slot in &slots {
            let last = held.last;
            let Some(owed) = held.of(*slot) else { continue };
            if let Some((number, _)) = owed.ends.back_mut()
                && *number == THIS_TURN
            {
                *number = last;
            }
            if owed.shut_until == THIS_TURN {
                owed.shut_until = last;
            }
        }
        held.turns.push_back((held.last, slots));
        // It may have waited for what is safe already.
        self.journals_are_safe(self.held_acks.safe);
    }

    /// The number up to which journals have to be safe for something to go out. `None`: nothing is held.
    #[must_use]
    pub fn waits_for(&self) -> Option<u64> {
        self.held_acks.turns.front().map(|(number, _)| *number)
    }

    /// Whether it is to be told what is safe, be it that nothing is held.
    #[must_use]
    pub fn follows_journals(&self) -> bool {
        !self.held_acks.turns.is_empty() || !self.held_acks.ended.is_empty()
    }

    /// All journals up to `number` are safe: what waits for them goes out.
    pub fn journals_are_safe(&mut self, number: u64) {
        self.held_acks.safe = number;
        let held = &mut self.held_acks;
        while let Some((last, hash)) = held.ended_in_order.front().copied().filter(|(last, _)| *last <= number) {
            held.ended_in_order.pop_front();
            if held.ended.get(&hash) == Some(&last) {
                held.ended.remove(&hash);
            }
        }
        while self.held_acks.turns.front().is_some_and(|(turn, _)| *turn <= number) {
            let (_, mut slots) = self.held_acks.turns.pop_front().unwrap_or_default();
            for slot in slots.drain(..) {
                self.pay(slot, number);
            }
            if self.held_acks.this_turn.capacity() == 0 {
                self.held_acks.this_turn = slots;
            }
        }
    }

    /// Moves what a connection is owed up to a number into its out-buffer.
    fn pay(&mut self, slot: u32, number: u64) {
        let Some(owed) = self.held_acks.of(slot) else { return };
        let is_shut = owed.shut_until > number;
        if is_shut {
            return;
        }
        let was_shut = std::mem::take(&mut owed.shut_until) != 0;
        let mut end = owed.gone;
        while let Some((turn, safe)) = owed.ends.front().copied()
            && turn <= number
        {
            owed.ends.pop_front();
            end = safe;
        }
        let (is_all, bytes) = (owed.ends.is_empty(), std::mem::take(&mut owed.bytes));
        let start = std::mem::replace(&mut owed.gone, end);
        if start < end {
            self.write(slot, |out| out.extend_from_slice(&bytes[start..end]));
        }
        if was_shut {
            self.connections[slot as usize].is_shut = false;
            self.mark_dirty(slot);
        }
        if let Some(owed) = self.held_acks.of(slot) {
            owed.bytes = bytes;
            if owed.gone > owed.bytes.len() / 2 {
                owed.bytes.drain(..owed.gone);
                owed.ends.iter_mut().for_each(|(_, end)| *end -= owed.gone);
                owed.gone = 0;
            }
        }
        if is_all {
            self.forget_owed(slot);
        }
    }

    /// Whether a connection has something to send that waits for a journal: its socket is not to be closed yet.
    #[must_use]
    pub fn is_owed(&self, slot: u32) -> bool {
        self.connections.get(slot as usize).is_some_and(|connection| connection.is_owed)
    }

    /// Whoever sends without end, while nothing becomes safe, is closed.
    #[cold]
    fn close_soon_who_is_owed_too_much(&mut self, slot: u32) {
        let (kind, reason_code) = (plugin_api::DisconnectKind::LimitExceeded, plugin_api::ReasonCode::QUOTA_EXCEEDED);
        let id = self.connections[slot as usize].id;
        self.closing_soon.push((slot, id, Closing::silent(kind, reason_code)));
    }
}
