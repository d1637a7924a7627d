//! What was sent to a client and not acknowledged.
//!
//! What many get at once with QoS 1 (see [`lanes`](super::lanes)) takes no entry for each message here: one range says which
//! Packet Identifiers the messages of a batch have that all receivers share. Nor does what one client gets with QoS 1 as it came:
//! a range has the packets (see [`sent`](super::sent)). The acknowledgement of the first of a range makes it shorter. Any other
//! look at one of its messages makes entries of all ranges first.
//!
//! Packet Identifiers are given in order, and acknowledgements mostly come in this order, many in one read: those of a run end
//! at once what is oldest. Whatever comes in another order is found without a look at all.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};
use std::rc::Rc;

use super::budget::Account;
use super::sent::{Packet, Sent};
use super::session::{Awaiting, InFlight, Queued};
use crate::codec::PacketId;

/// How many Packet Identifiers there are.
const PACKET_IDS: u64 = 65_535;

/// Ranges that one session has at most, as those of batches are not counted among what the worker holds. With more to
/// acknowledge each message has its entry, which is.
const RANGES_MAX: usize = if cfg!(any(test, fuzzing)) { 4 } else { 64 };

/// Messages with QoS 1 that several sessions were sent in this order.
pub(super) type Batch = Rc<Vec<Queued>>;

/// Outbound messages in flight, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    entries: VecDeque<InFlight>,
    /// What was sent behind these.
    ranges: Option<Box<Ranges>>,
}

#[derive(Debug, Default)]
struct Ranges {
    all: VecDeque<Range>,
    messages: usize,
}

#[derive(Debug)]
struct Range {
    messages: Messages,
    /// The first of its messages that is not acknowledged.
    at: usize,
    /// The Packet Identifier of this one; the others have the following ones.
    first: PacketId,
}

#[derive(Debug)]
enum Messages {
    Shared(Batch),
    Own(Sent),
}

impl Messages {
    fn len(&self) -> usize {
        match self {
            Self::Shared(batch) => batch.len(),
            Self::Own(sent) => sent.len(),
        }
    }

    /// The bytes of some of them.
    fn bytes(&self, which: std::ops::Range<usize>) -> usize {
        match self {
            Self::Shared(batch) => batch[which].iter().map(|queued| queued.message.bytes()).sum(),
            Self::Own(sent) => sent.message_bytes(which),
        }
    }

    fn get(&self, number: usize) -> Queued {
        match self {
            Self::Shared(batch) => batch[number].clone(),
            Self::Own(sent) => sent.message(number),
        }
    }
}

impl Range {
    fn left(&self) -> usize {
        self.messages.len() - self.at
    }

    /// Its messages with their Packet Identifiers.
    fn iter(&self) -> impl Iterator<Item = (PacketId, usize)> {
        let packet_ids = (0..).map(|count| behind(self.first.get(), count));
        packet_ids.zip(self.at..self.messages.len())
    }
}

/// The Packet Identifier so many behind another one.
pub(super) fn behind(packet_id: u16, count: u64) -> PacketId {
    let number = (u64::from(packet_id - 1) + count) % PACKET_IDS + 1;
    u16::try_from(number).ok().and_then(PacketId::new).expect("1 to 65,535")
}

/// The Packet Identifier so many before another one.
pub(super) fn before(packet_id: u16, count: u64) -> PacketId {
    behind(packet_id, PACKET_IDS - count % PACKET_IDS)
}

/// How many Packet Identifiers there are from one up to another, without that.
#[inline]
pub(super) fn distance(from: u16, to: u16) -> u64 {
    let (from, to) = (u64::from(from), u64::from(to));
    if to >= from { to - from } else { to + PACKET_IDS - from }
}

/// The next one.
#[inline]
pub(super) fn following(packet_id: PacketId) -> PacketId {
    packet_id.checked_add(1).unwrap_or(PacketId::MIN)
}

impl Unacknowledged {
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.ranges.as_ref().map_or(0, |ranges| ranges.messages)
    }

    /// The Packet Identifier of the oldest one.
    pub(super) fn oldest(&self) -> Option<PacketId> {
        let in_range = || Some(self.ranges.as_ref()?.all.front()?.first);
        self.entries.front().map(|sent| sent.packet_id).or_else(in_range)
    }

    /// Adds a message behind all others, with the Packet Identifier behind theirs.
    #[inline]
    pub(super) fn push_back(&mut self, sent: InFlight) {
        if self.ranges.is_some() {
            self.spread();
        }
        self.entries.push_back(sent);
    }

    /// Adds the messages of a batch behind all others.
    pub(super) fn add_batch(&mut self, first: PacketId, batch: &Batch) {
        self.add_range(first, Messages::Shared(Rc::clone(batch)));
    }

    fn add_range(&mut self, first: PacketId, messages: Messages) {
        if self.ranges.as_ref().is_some_and(|ranges| ranges.all.len() == RANGES_MAX) {
            self.spread();
        }
        let ranges = self.ranges.get_or_insert_default();
        ranges.messages += messages.len();
        ranges.all.push_back(Range { messages, at: 0, first });
    }

    /// Adds a message behind all others that is kept as its packet.
    #[inline]
    pub(super) fn add_sent(&mut self, packet_id: PacketId, packet: &Packet<'_>, account: &Account) {
        if let Some(ranges) = &mut self.ranges
            && let Some(last) = ranges.all.back_mut()
            && behind(last.first.get(), last.left() as u64) == packet_id
            && let Messages::Own(sent) = &mut last.messages
            && sent.has_room_for(packet)
        {
            sent.push(packet);
            ranges.messages += 1;
        } else {
            self.add_range(packet_id, Messages::Own(Sent::new(packet, account)));
        }
    }

    /// Ends the in-flight state of the oldest messages, if they are those that have been acknowledged: `count` of them, from
    /// a Packet Identifier on. Stops at what is another message or waits for another step. Returns how many it was, and the
    /// bytes of them that were kept.
    #[inline]
    pub(super) fn acknowledge_oldest(&mut self, first: PacketId, count: usize, awaiting: Awaiting) -> (usize, usize) {
        let (mut done, mut bytes, mut next) = (0, 0, first);
        let is_next = |sent: &InFlight, next| sent.packet_id == next && sent.awaiting == awaiting;
        while done < count
            && self.entries.front().is_some_and(|sent| is_next(sent, next))
            && let Some(sent) = self.entries.pop_front()
        {
            (done, next) = (done + 1, following(next));
            bytes += sent.delivery.map_or(0, |delivery| delivery.message.bytes());
        }
        if done < count && awaiting == Awaiting::Puback && self.entries.is_empty() && self.ranges.is_some() {
            let (in_ranges, bytes_in_ranges) = self.acknowledge_in_ranges(next, count - done);
            return (done + in_ranges, bytes + bytes_in_ranges);
        }
        (done, bytes)
    }

    /// The same for messages in ranges.
    fn acknowledge_in_ranges(&mut self, first: PacketId, count: usize) -> (usize, usize) {
        let (mut done, mut bytes, mut next) = (0, 0, first);
        let Some(ranges) = &mut self.ranges else { return (0, 0) };
        while done < count
            && let Some(range) = ranges.all.front_mut().filter(|range| range.first == next)
        {
            let of_it = (count - done).min(range.left());
            bytes += range.messages.bytes(range.at..range.at + of_it);
            next = behind(next.get(), of_it as u64);
            done += of_it;
            (range.at, range.first) = (range.at + of_it, next);
            if range.left() == 0 {
                ranges.all.pop_front();
            }
        }
        ranges.messages -= done;
        (done, bytes)
    }

    /// PUBREC has come for `count` messages, from a Packet Identifier on: they wait for PUBCOMP, and are not kept any more.
    /// Stops at what is another message or waits for another step. Returns how many it was, and the bytes of them.
    #[inline]
    pub(super) fn note_received(&mut self, first: PacketId, count: usize) -> (usize, usize) {
        let Some(place) = self.place_of(first) else { return (0, 0) };
        let (mut done, mut bytes, mut next) = (0, 0, first);
        for sent in self.entries.range_mut(place..).take(count) {
            if sent.packet_id != next || sent.awaiting != Awaiting::Pubrec {
                break;
            }
            sent.awaiting = Awaiting::Pubcomp;
            bytes += sent.delivery.take().map_or(0, |delivery| delivery.message.bytes());
            (done, next) = (done + 1, following(next));
        }
        (done, bytes)
    }

    /// The place of a Packet Identifier.
    pub(super) fn find(&mut self, packet_id: PacketId) -> Option<usize> {
        let place = self.place_of(packet_id);
        if place.is_some() || self.ranges.as_ref().is_none_or(|ranges| ranges.messages == 0) {
            return place;
        }
        self.spread();
        self.place_of(packet_id)
    }

    /// The same, if it is not in a range. Packet Identifiers are given in order, so that the one that is so many behind the
    /// oldest is at most so many places behind it, and just there while none between them has gone.
    #[inline]
    fn place_of(&self, packet_id: PacketId) -> Option<usize> {
        let oldest = self.entries.front()?.packet_id.get();
        let place = distance(oldest, packet_id.get()) as usize;
        if self.entries.get(place).is_some_and(|sent| sent.packet_id == packet_id) {
            return Some(place);
        }
        self.entries.binary_search_by_key(&place, |sent| distance(oldest, sent.packet_id.get()) as usize).ok()
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<InFlight> {
        self.entries.remove(place)
    }

    /// Makes entries of the messages in ranges.
    #[inline(never)]
    pub(super) fn spread(&mut self) {
        for range in self.ranges.take().into_iter().flat_map(|ranges| ranges.all) {
            self.entries.extend(range.iter().map(|(packet_id, number)| InFlight {
                packet_id,
                awaiting: Awaiting::Puback,
                delivery: Some(range.messages.get(number)),
            }));
        }
    }

    /// All of them. There are no ranges: it has no connection.
    pub(super) fn iter(&self) -> impl Iterator<Item = &InFlight> {
        debug_assert!(self.ranges.is_none(), "what has been sent by a lane is looked at");
        self.entries.iter()
    }

    /// Takes all out.
    pub(super) fn take(&mut self) -> VecDeque<InFlight> {
        self.spread();
        std::mem::take(&mut self.entries)
    }

    /// Gives back memory if it has emptied after a burst.
    pub(super) fn trim(&mut self) {
        const KEEP: usize = 64;
        if self.entries.is_empty() && self.entries.capacity() > KEEP {
            self.entries = VecDeque::new();
        }
        if self.ranges.as_ref().is_some_and(|ranges| ranges.all.is_empty() && ranges.all.capacity() > KEEP) {
            self.ranges = None;
        }
    }
}

impl Index<usize> for Unacknowledged {
    type Output = InFlight;
    fn index(&self, place: usize) -> &InFlight {
        &self.entries[place]
    }
}

impl IndexMut<usize> for Unacknowledged {
    fn index_mut(&mut self, place: usize) -> &mut InFlight {
        &mut self.entries[place]
    }
}

#[cfg(any(test, fuzzing))]
impl Unacknowledged {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    pub(super) fn has_ranges(&self) -> bool {
        self.ranges.as_ref().is_some_and(|ranges| ranges.messages > 0)
    }

    /// Asserts that identifiers are in order, that these are all bytes of them, and that nobody has more ranges than are
    /// allowed.
    pub(super) fn assert_sound(&self, bytes: usize) {
        let oldest = self.oldest().map_or(1, PacketId::get);
        let (mut next, mut count, mut counted) = (0, 0, 0);
        for (packet_id, bytes) in self.counted() {
            let place = distance(oldest, packet_id.get());
            assert!(place >= next, "Packet Identifiers in order, each once [MQTT-2.2.1-4]");
            (next, count, counted) = (place + 1, count + 1, counted + bytes);
        }
        assert_eq!((count, counted), (self.len(), bytes), "messages in flight and their bytes, counted");
        assert!(self.ranges.as_ref().is_none_or(|ranges| ranges.all.len() <= RANGES_MAX), "ranges in flight");
    }

    /// Packet Identifier of each, and the bytes that it is counted with.
    fn counted(&self) -> impl Iterator<Item = (PacketId, usize)> {
        let bytes = |sent: &InFlight| sent.delivery.as_ref().map_or(0, |delivery| delivery.message.bytes());
        let entries = self.entries.iter().map(move |sent| (sent.packet_id, bytes(sent)));
        let ranges = self.ranges.iter().flat_map(|ranges| &ranges.all).flat_map(|range| {
            range.iter().map(|(packet_id, number)| (packet_id, range.messages.bytes(number..number + 1)))
        });
        entries.chain(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT-2.2.1-3] No Packet Identifier is 0.
    #[test]
    fn packet_identifiers_go_round() {
        for (from, count, to) in [(1, 0, 1), (1, 65_534, 65_535), (65_535, 1, 1), (65_530, 10, 5), (7, 65_535, 7)] {
            assert_eq!(behind(from, count).get(), to);
            assert_eq!(before(to, count).get(), from);
            assert_eq!(distance(from, to), count % PACKET_IDS);
            assert_eq!(following(behind(from, 0)), behind(from, 1));
        }
    }
}
