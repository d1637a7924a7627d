//! What was sent to a client and not acknowledged.
//!
//! What many get at once with QoS 1 (see [`lanes`](super::lanes)) takes no entry for each message here: one range says which
//! Packet Identifiers the messages of a batch have that all receivers share. Nor does what one client gets as it came: a range
//! has the packets (see [`packets`](super::packets)), and with QoS 2 how many of them have been received. The acknowledgement of
//! the first of a range makes it shorter. Any other look at one of its messages makes entries of all ranges first.
//!
//! Packet Identifiers are given in order, and acknowledgements mostly come in this order, many in one read: those of a run end
//! at once what is oldest. Whatever comes in another order is found without a look at all.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut, Index, IndexMut};
use std::rc::Rc;

use plugin_api::QoS;

use super::budget::Account;
use super::packets::{BYTES_MAX, Expected, Part, Row};
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
    entries: Entries,
    /// What was sent behind these.
    ranges: Option<Box<Ranges>>,
}

/// One for each message. Most sessions have none and pay one word for it: an idle connection is 24 bytes smaller.
#[derive(Debug, Default)]
#[allow(clippy::box_collection)] // One word for each session, rather than four.
struct Entries(Option<Box<VecDeque<InFlight>>>);

impl Deref for Entries {
    type Target = VecDeque<InFlight>;

    #[inline]
    fn deref(&self) -> &VecDeque<InFlight> {
        const NONE: &VecDeque<InFlight> = &VecDeque::new();
        self.0.as_deref().unwrap_or(NONE)
    }
}

impl DerefMut for Entries {
    #[inline]
    fn deref_mut(&mut self) -> &mut VecDeque<InFlight> {
        self.0.get_or_insert_default()
    }
}

#[derive(Debug, Default)]
struct Ranges {
    all: VecDeque<Range>,
    messages: usize,
}

#[derive(Debug)]
struct Range {
    messages: Messages,
    /// The Packet Identifier of the first of its messages that is not acknowledged; the others have the following ones.
    first: PacketId,
    /// With QoS 2, for how many of these PUBREC has come. Their packets are there still, as long as others wait for theirs.
    received: usize,
}

/// Messages that are not acknowledged completely.
#[derive(Debug)]
enum Messages {
    /// Those of a batch from a place on, with QoS 1.
    Shared(Batch, usize),
    Own(Part),
    /// So many that wait for PUBCOMP.
    Received(usize),
}

impl Range {
    /// How many messages are not acknowledged completely.
    #[inline]
    fn left(&self) -> usize {
        match &self.messages {
            Messages::Shared(batch, at) => batch.len() - at,
            Messages::Own(part) => part.len(),
            Messages::Received(count) => *count,
        }
    }

    /// How many of the first ones may be acknowledged completely now, by PUBACK or by PUBCOMP.
    #[inline]
    fn may_be_acknowledged(&self, awaiting: Awaiting) -> usize {
        match awaiting {
            Awaiting::Puback if self.awaits_pubrec() => 0,
            Awaiting::Puback => self.left() - self.received,
            Awaiting::Pubrec => 0,
            Awaiting::Pubcomp => self.received,
        }
    }

    /// Whether those that have not been received wait for PUBREC.
    fn awaits_pubrec(&self) -> bool {
        matches!(&self.messages, Messages::Own(part) if part.qos() == QoS::ExactlyOnce)
    }

    /// Bytes of some of its messages, as far as they are counted: until they are received.
    #[inline]
    fn bytes(&self, which: std::ops::Range<usize>) -> usize {
        let which = which.start.max(self.received)..which.end;
        match &self.messages {
            _ if which.is_empty() => 0,
            Messages::Shared(batch, at) => {
                batch[at + which.start..at + which.end].iter().map(|queued| queued.message.bytes()).sum()
            }
            Messages::Own(part) => part.message_bytes(which),
            Messages::Received(_) => 0,
        }
    }

    /// Goes on without the first so many.
    #[inline]
    fn skip(&mut self, count: usize) {
        self.first = behind(self.first.get(), count as u64);
        self.received = self.received.saturating_sub(count);
        match &mut self.messages {
            Messages::Shared(_, at) => *at += count,
            Messages::Own(part) => part.skip(count),
            Messages::Received(left) => *left -= count,
        }
    }

    /// PUBREC has come for so many more.
    fn receive(&mut self, count: usize) {
        self.received += count;
        if self.received == self.left() {
            self.messages = Messages::Received(self.received);
        }
    }

    /// An entry for each message.
    fn entries(&self) -> impl Iterator<Item = InFlight> {
        (0..self.left()).map(|number| {
            let packet_id = behind(self.first.get(), number as u64);
            let (awaiting, delivery) = match &self.messages {
                _ if number < self.received => (Awaiting::Pubcomp, None),
                Messages::Shared(batch, at) => (Awaiting::Puback, Some(batch[at + number].clone())),
                Messages::Own(part) if part.qos() == QoS::ExactlyOnce => (Awaiting::Pubrec, Some(part.message(number))),
                Messages::Own(part) => (Awaiting::Puback, Some(part.message(number))),
                Messages::Received(_) => (Awaiting::Pubcomp, None),
            };
            InFlight { packet_id, awaiting, delivery }
        })
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
        self.add_range(first, Messages::Shared(Rc::clone(batch), 0));
    }

    /// Adds packets behind all others, the first of which has this Packet Identifier. Few of them are put behind those that are
    /// there: there would be as many ranges as messages.
    pub(super) fn add_part(&mut self, first: PacketId, part: Part) {
        let is_small = part.message_bytes(0..part.len()) < BYTES_MAX / 16;
        if !is_small || !self.push_row(first, &part.all()) {
            self.add_range(first, Messages::Own(part));
        }
    }

    fn add_range(&mut self, first: PacketId, messages: Messages) {
        if self.ranges.as_ref().is_some_and(|ranges| ranges.all.len() == RANGES_MAX) {
            self.spread();
        }
        let ranges = self.ranges.get_or_insert_default();
        let range = Range { messages, first, received: 0 };
        ranges.messages += range.left();
        ranges.all.push_back(range);
    }

    /// The same for those that are to be kept.
    #[inline]
    pub(super) fn add_row(&mut self, first: PacketId, row: &Row<'_>, account: &Account) {
        if !self.push_row(first, row) {
            self.add_range(first, Messages::Own(Part::new(row, account, Expected::Soon)));
        }
    }

    /// `false` if they cannot be put behind others that are kept so.
    #[inline]
    fn push_row(&mut self, first: PacketId, row: &Row<'_>) -> bool {
        if let Some(ranges) = &mut self.ranges
            && let Some(last) = ranges.all.back_mut()
            && let Messages::Own(part) = &mut last.messages
            && behind(last.first.get(), part.len() as u64) == first
            && part.push(row)
        {
            ranges.messages += row.len();
            return true;
        }
        false
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
        if done < count && self.entries.is_empty() && self.ranges.is_some() {
            let (in_ranges, bytes_in_ranges) = self.acknowledge_in_ranges(next, count - done, awaiting);
            return (done + in_ranges, bytes + bytes_in_ranges);
        }
        (done, bytes)
    }

    /// The same for messages in ranges.
    fn acknowledge_in_ranges(&mut self, first: PacketId, count: usize, awaiting: Awaiting) -> (usize, usize) {
        let (mut done, mut bytes, mut next) = (0, 0, first);
        let Some(ranges) = &mut self.ranges else { return (0, 0) };
        while done < count
            && let Some(range) = ranges.all.front_mut().filter(|range| range.first == next)
            && let of_it = range.may_be_acknowledged(awaiting).min(count - done)
            && of_it > 0
        {
            bytes += range.bytes(0..of_it);
            (done, next) = (done + of_it, behind(next.get(), of_it as u64));
            if of_it == range.left() {
                ranges.all.pop_front();
            } else {
                range.skip(of_it);
            }
        }
        ranges.messages -= done;
        (done, bytes)
    }

    /// PUBREC has come for `count` messages, from a Packet Identifier on: they wait for PUBCOMP, and are not kept any more.
    /// Stops at what is another message or waits for another step. Returns how many it was, and the bytes of them.
    #[inline]
    pub(super) fn note_received(&mut self, first: PacketId, count: usize) -> (usize, usize) {
        let Some(place) = self.place_of(first) else { return self.note_received_in_ranges(first, count) };
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

    /// The same for messages in ranges.
    fn note_received_in_ranges(&mut self, first: PacketId, count: usize) -> (usize, usize) {
        let (mut done, mut bytes, mut next) = (0, 0, first);
        let ranges = self.ranges.iter_mut().flat_map(|ranges| &mut ranges.all);
        for range in ranges.skip_while(|range| distance(range.first.get(), first.get()) >= range.left() as u64) {
            let is_next = distance(range.first.get(), next.get()) == range.received as u64;
            if done == count || !is_next || !range.awaits_pubrec() {
                break;
            }
            let of_it = (range.left() - range.received).min(count - done);
            bytes += range.bytes(range.received..range.received + of_it);
            range.receive(of_it);
            (done, next) = (done + of_it, behind(next.get(), of_it as u64));
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
            self.entries.extend(range.entries());
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
        self.entries.0.take().map_or_else(VecDeque::new, |entries| *entries)
    }

    /// Gives back memory if it has emptied after a burst.
    pub(super) fn trim(&mut self) {
        const KEEP: usize = 64;
        if self.entries.is_empty() && self.entries.capacity() > KEEP {
            self.entries = Entries::default();
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

#[cfg(test)]
impl Unacknowledged {
    /// A copy of each.
    pub(super) fn shown(&self) -> Vec<InFlight> {
        let copy = |sent: &InFlight| InFlight { delivery: sent.delivery.clone(), ..*sent };
        let ranges = self.ranges.iter().flat_map(|ranges| &ranges.all).flat_map(Range::entries);
        self.entries.iter().map(copy).chain(ranges).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    pub(super) fn has_ranges(&self) -> bool {
        self.ranges.as_ref().is_some_and(|ranges| ranges.messages > 0)
    }
}

#[cfg(any(test, fuzzing))]
impl Unacknowledged {
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
            (0..range.left()).map(|number| (behind(range.first.get(), number as u64), range.bytes(number..number + 1)))
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
