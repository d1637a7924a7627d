//! QoS 2 messages from a client, from PUBLISH to PUBREL.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use plugin_api::{Properties, ReasonCode};

use super::Core;
use super::acks::{PUBCOMP, PUBREC};
use super::budget::Kept;
use super::in_flight::{distance, following};
use super::inbound::{Next, protocol_error};
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
    /// The others.
    others: HashMap<PacketId, Message, RandomState>,
    bytes: usize,
}

impl Default for Unreleased {
    fn default() -> Self {
        Self { run: VecDeque::new(), first: PacketId::MIN, others: HashMap::default(), bytes: 0 }
    }
}

/// Memory for so many is kept once it is there, as giving it back is dearer.
const KEPT: usize = 64;

impl Unreleased {
    /// Where a Packet Identifier is in the run, if there are so many.
    fn place(&self, packet_id: PacketId) -> usize {
        distance(self.first.get(), packet_id.get()) as usize
    }

    fn len(&self) -> usize {
        self.run.len() + self.others.len()
    }

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

    #[cfg(any(test, fuzzing))]
    pub(super) fn messages(&self) -> impl Iterator<Item = &Kept> {
        self.0.iter().flat_map(|received| received.run.iter().chain(received.others.values()).flatten())
    }

    fn get(&self, packet_id: PacketId) -> Option<&Message> {
        self.0.as_ref()?.get(packet_id)
    }

    /// Whether one with this Packet Identifier is kept.
    #[inline]
    pub(super) fn has(&self, packet_id: PacketId) -> bool {
        self.get(packet_id).is_some()
    }

    /// Keeps a message until it is released. There is none with this Packet Identifier.
    #[inline]
    pub(super) fn insert(&mut self, packet_id: PacketId, message: Option<Kept>) {
        let received = self.0.get_or_insert_default();
        debug_assert!(received.get(packet_id).is_none(), "{packet_id} is in use");
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
        let is_large = |received: &Unreleased| received.run.capacity().max(received.others.capacity()) > KEPT;
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
                && message.as_ref().is_some_and(|kept| kept.topic() != topic || kept.payload() != publish.payload);
            if !is_another {
                self.acknowledge(slot, PUBREC, packet_id);
                return Ok(Some(self.next(slot)));
            }
            if let Some(message) = session.received.release(packet_id).flatten() {
                self.publish_released(slot, &message);
            }
        }
        Ok(None)
    }

    /// Keeps a QoS 2 message until it is released, and says so [MQTT-4.3.3-8].
    pub(super) fn receive(&mut self, slot: u32, packet_id: PacketId, message: Option<Kept>) {
        let session_slot = self.connections[slot as usize].session;
        self.sessions[session_slot as usize].received.insert(packet_id, message);
        // Whether anybody has subscribed is known when it is released, and PUBCOMP cannot say it.
        self.acknowledge(slot, PUBREC, packet_id);
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
