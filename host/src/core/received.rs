//! QoS 2 messages from a client, from PUBLISH to PUBREL.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use plugin_api::{Properties, ReasonCode};

use super::Core;
use super::acks::{PUBCOMP, PUBREC};
use super::budget::Kept;
use super::inbound::{Next, protocol_error};
use super::route::Outgoing;
use crate::codec::{Ack, DecodeError, Packet, PacketId, Publish};

/// QoS 2 messages from one client, accepted and not released [MQTT-4.3.3-10].
///
/// Most sessions have none, and pay one word for it.
#[derive(Default)]
pub(super) struct Received(Option<Box<Unreleased>>);

#[derive(Default)]
struct Unreleased {
    /// `None` where a handler took the message: nothing is routed at PUBREL.
    messages: HashMap<PacketId, Option<Kept>, RandomState>,
    bytes: usize,
}

/// Memory for so many is kept once it is there, as giving it back is dearer.
const KEPT: usize = 64;

impl Received {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |received| received.messages.len())
    }

    /// Topics, properties and payloads together, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |received| received.bytes)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn messages(&self) -> impl Iterator<Item = &Kept> {
        self.0.iter().flat_map(|received| received.messages.values().flatten())
    }

    fn get(&self, packet_id: PacketId) -> Option<&Option<Kept>> {
        self.0.as_ref()?.messages.get(&packet_id)
    }

    /// Keeps a message until it is released.
    pub(super) fn insert(&mut self, packet_id: PacketId, message: Option<Kept>) {
        let received = self.0.get_or_insert_default();
        received.bytes += message.as_ref().map_or(0, |message| message.bytes());
        received.messages.insert(packet_id, message);
    }

    /// Takes it out. `None` if there is none with this Packet Identifier.
    pub(super) fn release(&mut self, packet_id: PacketId) -> Option<Option<Kept>> {
        let received = self.0.as_mut()?;
        let message = received.messages.remove(&packet_id)?;
        received.bytes -= message.as_ref().map_or(0, |message| message.bytes());
        Some(message)
    }

    /// Gives back memory after a burst.
    pub(super) fn trim(&mut self) {
        self.0.take_if(|received| received.messages.is_empty() && received.messages.capacity() > KEPT);
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
        session.trim();
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
    fn publish_released(&mut self, slot: u32, message: &Kept) {
        if message.is_expired(self.now) {
            self.counters().dropped_expired.add(1); // [MQTT-4.3.3-13]
            return;
        }
        let mut out = Outgoing::of(message);
        if !self.retain(&mut out) {
            self.not_retained(&out);
        }
        self.route_from(slot, &mut out);
    }
}
