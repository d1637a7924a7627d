//! QoS 2 messages from a client, from PUBLISH to PUBREL.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use plugin_api::{Properties, ReasonCode};

use super::Core;
use super::acks::{PUBCOMP, PUBREC};
use super::budget::{Account, Kept};
use super::in_flight::{behind, distance, following};
use super::inbound::{Next, protocol_error};
use super::packets::{Expected, Part, Row};
use super::route::Outgoing;
use crate::codec::{Ack, DecodeError, Packet, PacketId, Publish};

/// QoS 2 messages from one client, accepted and not released [MQTT-4.3.3-10].
///
/// Most sessions have none, and pay one word for it.
#[derive(Default)]
pub(super) struct Received(Option<Box<Unreleased>>);

/// `None` where a handler took the message: nothing is routed at PUBREL.
type Message = Option<Kept>;

struct Unreleased {
    /// Those with consecutive Packet Identifiers, as clients mostly give them, and release them in the same order.
    run: VecDeque<Message>,
    /// The Packet Identifier of the first of the run.
    first: PacketId,
    /// The same that are kept as they came.
    packets: Packets,
    /// The others.
    others: HashMap<PacketId, Message, RandomState>,
    bytes: usize,
}

/// Messages with consecutive Packet Identifiers that are kept as their packets.
struct Packets {
    parts: VecDeque<Part>,
    first: PacketId,
    len: usize,
}

impl Default for Unreleased {
    fn default() -> Self {
        let first = PacketId::MIN;
        let packets = Packets { parts: VecDeque::new(), first, len: 0 };
        Self { run: VecDeque::new(), first, packets, others: HashMap::default(), bytes: 0 }
    }
}

/// Memory for so many is kept once it is there, as giving it back is dearer.
const KEPT: usize = 64;

impl Packets {
    /// Where a Packet Identifier is, if there are so many.
    #[inline]
    fn place(&self, packet_id: PacketId) -> usize {
        distance(self.first.get(), packet_id.get()) as usize
    }

    /// The message of one of them.
    #[cold]
    fn message(&self, packet_id: PacketId) -> Option<Kept> {
        let mut place = self.place(packet_id);
        let part = self.parts.iter().find(|part| {
            let is_in_it = place < part.len();
            place -= if is_in_it { 0 } else { part.len() };
            is_in_it
        })?;
        Some(part.message(place).message)
    }

    #[inline]
    fn push(&mut self, first: PacketId, row: &Row<'_>, account: &Account) {
        if self.len == 0 {
            self.first = first;
        }
        self.len += row.len();
        if !self.parts.back_mut().is_some_and(|part| part.push(row)) {
            self.parts.push_back(Part::new(row, account, Expected::Soon));
        }
    }

    /// Takes out those with consecutive Packet Identifiers from the first one on, if it is this: `max` at most, and as many as
    /// are kept together.
    fn take(&mut self, first: PacketId, max: usize) -> Option<Part> {
        let part = self.parts.front_mut().filter(|_| self.first == first)?;
        let taken = part.first(max.min(part.len()));
        part.skip(taken.len());
        if part.len() == 0 {
            self.parts.pop_front();
        }
        self.len -= taken.len();
        self.first = behind(first.get(), taken.len() as u64);
        Some(taken)
    }

    /// Takes out all, with their Packet Identifiers.
    fn drain(&mut self) -> impl Iterator<Item = (PacketId, Message)> {
        let packet_ids = (0..self.len as u64).map({
            let first = self.first.get();
            move |number| behind(first, number)
        });
        self.len = 0;
        let parts = self.parts.drain(..);
        packet_ids.zip(parts.flat_map(|part| (0..part.len()).map(move |number| Some(part.message(number).message))))
    }
}

impl Unreleased {
    /// Where a Packet Identifier is in the run, if there are so many.
    fn place(&self, packet_id: PacketId) -> usize {
        distance(self.first.get(), packet_id.get()) as usize
    }

    fn len(&self) -> usize {
        self.run.len() + self.packets.len + self.others.len()
    }

    #[inline]
    fn has(&self, packet_id: PacketId) -> bool {
        self.packets.place(packet_id) < self.packets.len
            || self.place(packet_id) < self.run.len()
            || !self.others.is_empty() && self.others.contains_key(&packet_id)
    }

    /// Kept as a message, and not as its packet.
    fn get(&self, packet_id: PacketId) -> Option<&Message> {
        let in_run = self.run.get(self.place(packet_id));
        if in_run.is_some() || self.others.is_empty() { in_run } else { self.others.get(&packet_id) }
    }

    fn insert(&mut self, packet_id: PacketId, message: Message) {
        if self.run.is_empty() {
            self.first = packet_id;
        }
        if self.place(packet_id) == self.run.len() {
            self.run.push_back(message);
        } else {
            self.others.insert(packet_id, message);
        }
    }

    /// Takes out the first of the run, if it has this Packet Identifier.
    #[inline]
    fn remove_first(&mut self, packet_id: PacketId) -> Option<Message> {
        let message = if self.first == packet_id { self.run.pop_front() } else { None };
        if message.is_some() {
            self.first = following(packet_id);
        }
        message
    }

    fn remove(&mut self, packet_id: PacketId) -> Option<Message> {
        let first = self.remove_first(packet_id);
        if first.is_some() {
            return first;
        }
        if self.place(packet_id) < self.run.len() {
            // A hole would make two runs of it. So each message is moved once at most, in whatever order they are released.
            let packet_ids = std::iter::successors(Some(self.first), |packet_id| Some(following(*packet_id)));
            self.others.extend(packet_ids.zip(self.run.drain(..)));
        }
        if let Some(part) = self.packets.take(packet_id, 1) {
            return Some(Some(part.message(0).message));
        }
        if self.packets.place(packet_id) < self.packets.len {
            self.others.extend(self.packets.drain());
        }
        self.others.remove(&packet_id)
    }
}

impl Received {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |received| received.len())
    }

    /// Topics, properties and payloads together, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |received| received.bytes)
    }

    /// The same, counted.
    #[cfg(any(test, fuzzing))]
    pub(super) fn counted_bytes(&self) -> usize {
        let messages = |received: &Unreleased| -> usize {
            let messages = received.run.iter().chain(received.others.values()).flatten();
            messages.map(|message| message.bytes()).sum()
        };
        let packets = |received: &Unreleased| -> usize {
            received.packets.parts.iter().map(|part| part.message_bytes(0..part.len())).sum()
        };
        self.0.as_ref().map_or(0, |received| messages(received) + packets(received))
    }

    /// A copy of each, by Packet Identifier.
    #[cfg(test)]
    pub(super) fn shown(&self) -> std::collections::BTreeMap<PacketId, Option<Kept>> {
        let Some(received) = &self.0 else { return Default::default() };
        let in_order = |first: PacketId, count: usize| (0..count as u64).map(move |number| behind(first.get(), number));
        let run = in_order(received.first, received.run.len()).zip(received.run.iter().cloned());
        let packets = in_order(received.packets.first, received.packets.len);
        let packets = packets.map(|packet_id| (packet_id, received.packets.message(packet_id)));
        let others = received.others.iter().map(|(packet_id, message)| (*packet_id, message.clone()));
        run.chain(packets).chain(others).collect()
    }

    /// All of them with their Packet Identifiers, in no order. Those that are kept as packets are made for it.
    pub(super) fn each(&self) -> impl Iterator<Item = (PacketId, Option<Cow<'_, Kept>>)> {
        let received = self.0.iter();
        let in_run = received.clone().flat_map(|received| {
            let packet_ids = (0..).map(|number| behind(received.first.get(), number));
            packet_ids.zip(received.run.iter().map(|message| message.as_ref().map(Cow::Borrowed)))
        });
        let others = received.clone().flat_map(|received| &received.others);
        let others = others.map(|(packet_id, message)| (*packet_id, message.as_ref().map(Cow::Borrowed)));
        let packets = received.flat_map(|received| {
            let parts = &received.packets.parts;
            let each = parts.iter().flat_map(|part| (0..part.len()).map(|number| part.message(number).message));
            let packet_ids = (0..).map(|number| behind(received.packets.first.get(), number));
            packet_ids.zip(each.map(|message| Some(Cow::Owned(message))))
        });
        in_run.chain(others).chain(packets)
    }

    /// The message with this Packet Identifier, if one is kept.
    fn get(&self, packet_id: PacketId) -> Option<Cow<'_, Message>> {
        let received = self.0.as_ref()?;
        match received.get(packet_id) {
            Some(message) => Some(Cow::Borrowed(message)),
            None if received.has(packet_id) => Some(Cow::Owned(received.packets.message(packet_id))),
            None => None,
        }
    }

    /// Whether one with this Packet Identifier is kept.
    #[inline]
    pub(super) fn has(&self, packet_id: PacketId) -> bool {
        self.0.as_ref().is_some_and(|received| received.has(packet_id))
    }

    /// Whether a message with this Packet Identifier may be kept as its packet: it is the one behind those that are.
    #[inline]
    pub(super) fn goes_on_with(&self, packet_id: PacketId) -> bool {
        self.0.as_ref().is_none_or(|received| {
            received.packets.len == 0 || received.packets.place(packet_id) == received.packets.len
        })
    }

    /// Keeps packets until they are released, with consecutive Packet Identifiers from one on. There are none with these, and
    /// they [may be kept so](Self::goes_on_with).
    #[inline]
    pub(super) fn insert_row(&mut self, first: PacketId, row: &Row<'_>, account: &Account) {
        debug_assert!(!self.has(first) && self.goes_on_with(first), "{first} is in use, or not the next one");
        let received = self.0.get_or_insert_default();
        received.bytes += row.message_bytes();
        received.packets.push(first, row, account);
    }

    /// Takes out some that are kept as packets, with consecutive Packet Identifiers from one on: `max` at most. `None` if that
    /// is not the first of these.
    pub(super) fn release_packets(&mut self, first: PacketId, max: usize) -> Option<Part> {
        let received = self.0.as_mut()?;
        let part = received.packets.take(first, max)?;
        received.bytes -= part.message_bytes(0..part.len());
        Some(part)
    }

    /// Keeps a message until it is released. There is none with this Packet Identifier.
    #[inline]
    pub(super) fn insert(&mut self, packet_id: PacketId, message: Option<Kept>) {
        let received = self.0.get_or_insert_default();
        debug_assert!(!received.has(packet_id), "{packet_id} is in use");
        received.bytes += message.as_ref().map_or(0, |message| message.bytes());
        received.insert(packet_id, message);
    }

    /// Takes it out. `None` if there is none with this Packet Identifier.
    pub(super) fn release(&mut self, packet_id: PacketId) -> Option<Option<Kept>> {
        self.take(packet_id, Unreleased::remove)
    }

    /// The same, if it is the first of those that have consecutive Packet Identifiers.
    #[inline]
    pub(super) fn release_first(&mut self, packet_id: PacketId) -> Option<Option<Kept>> {
        self.take(packet_id, Unreleased::remove_first)
    }

    #[inline]
    fn take(
        &mut self,
        packet_id: PacketId,
        from: impl FnOnce(&mut Unreleased, PacketId) -> Option<Message>,
    ) -> Option<Message> {
        let received = self.0.as_mut()?;
        let message = from(received, packet_id)?;
        received.bytes -= message.as_ref().map_or(0, |message| message.bytes());
        Some(message)
    }

    /// Gives back memory after a burst.
    pub(super) fn trim(&mut self) {
        let is_large = |received: &Unreleased| {
            received.run.capacity().max(received.others.capacity()).max(received.packets.parts.capacity()) > KEPT
        };
        self.0.take_if(|received| received.len() == 0 && is_large(received));
    }
}

impl Core {
    /// A QoS 2 message that was received before is acknowledged again and nothing else [MQTT-4.3.3-10].
    pub(super) fn check_received(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Result<Option<Next>, DecodeError> {
        let packet_id = publish.packet_id.ok_or(protocol_error("a QoS 2 PUBLISH without a Packet Identifier"))?;
        let connection = &self.connections[slot as usize];
        let Some(session) = self.sessions.get_mut(connection.session as usize) else {
            return Ok(Some(Next::Stop));
        };
        if let Some(message) = session.received.get(packet_id) {
            // A client that has lost its state uses the identifier anew: what it had sent before goes on now, as it would
            // never release it, and it has been ours since PUBREC.
            let is_another = !publish.dup
                && message
                    .as_ref()
                    .as_ref()
                    .is_some_and(|kept| kept.topic() != topic || kept.payload() != publish.payload);
            if !is_another {
                self.acknowledge(slot, PUBREC, packet_id);
                return Ok(Some(self.next(slot)));
            }
            let session_slot = connection.session;
            let message = session.received.release(packet_id).flatten();
            self.journal_released(session_slot, packet_id, 1);
            if let Some(message) = message {
                self.publish_released(slot, &message);
            }
        }
        Ok(None)
    }

    /// Keeps a QoS 2 message until it is released, and says so [MQTT-4.3.3-8].
    pub(super) fn receive(&mut self, slot: u32, packet_id: PacketId, message: Option<Kept>) {
        let session_slot = self.connections[slot as usize].session;
        if let Some((journal, session)) = self.journal_of(session_slot) {
            journal.incoming(session.number, packet_id, message.as_ref());
        }
        self.sessions[session_slot as usize].received.insert(packet_id, message);
        // Whether anybody has subscribed is known when it is released, and PUBCOMP cannot say it.
        self.acknowledge(slot, PUBREC, packet_id);
    }

    /// Keeps QoS 2 messages that have come as packets, with consecutive Packet Identifiers from one on.
    pub(super) fn receive_row(&mut self, slot: u32, first: PacketId, row: &Row<'_>) {
        let session_slot = self.connections[slot as usize].session;
        self.journal_incoming_row(session_slot, row, first);
        let received = &mut self.sessions[session_slot as usize].received;
        if received.goes_on_with(first) {
            return received.insert_row(first, row, &self.account);
        }
        for number in 0..row.len() {
            let packet_id = behind(first.get(), number as u64);
            received.insert(packet_id, Some(row.message(number, &self.account).message));
        }
    }

    /// PUBREL: the message is released, and its identifier is free [MQTT-4.3.3-11] [MQTT-4.3.3-12].
    pub(super) fn on_pubrel(&mut self, slot: u32, ack: &Ack<'_>) -> Result<Next, DecodeError> {
        let session_slot = self.connections[slot as usize].session;
        let Some(session) = self.sessions.get_mut(session_slot as usize) else {
            return Ok(Next::Stop);
        };
        let received = session.received.release(ack.packet_id);
        let known = received.is_some();
        session.received.trim();
        if known {
            self.journal_released(session_slot, ack.packet_id, 1);
        }
        if let Some(message) = received.flatten() {
            self.publish_released(slot, &message);
        }
        if known || !self.connections[slot as usize].is_v5() {
            self.acknowledge(slot, PUBCOMP, ack.packet_id);
        } else {
            let pubcomp = Ack {
                packet_id: ack.packet_id,
                reason_code: ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
                properties: Properties::EMPTY,
            };
            self.answer(slot, &Packet::Pubcomp(pubcomp));
        }
        Ok(self.next(slot))
    }

    /// A QoS 2 message goes on. It has been ours since PUBREC: it is not lost even if there is no room to retain it now.
    pub(super) fn publish_released(&mut self, slot: u32, message: &Kept) {
        if message.is_expired(self.now) {
            self.counters().dropped_expired.add(1); // [MQTT-4.3.3-13]
            return;
        }
        let known = self.router.known_topic(message.topic_bytes(), &mut self.connections[slot as usize].topic_place);
        let parts = known.as_deref().map_or_else(|| message.parts(), |topic| message.parts_with(topic));
        let mut out = Outgoing { parts, kept: Some(message.clone()) };
        if !self.retain(&mut out) {
            self.not_retained(&out);
        }
        self.route_from(slot, &mut out);
    }
}
