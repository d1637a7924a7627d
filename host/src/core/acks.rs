//! PUBACK, PUBREC and PUBCOMP from a client: the end of an outbound message.

use plugin_api::{Properties, ReasonCode};

use super::Core;
use super::inbound::{Next, protocol_error};
use super::session::Awaiting;
use crate::codec::{Ack, DecodeError, Packet, PacketId};
use crate::message::Source;
use crate::plugin::{AckKind, Callback};

/// First bytes of acknowledgements.
pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
pub(super) const PUBREL: u8 = 0x62;

/// PUBACK packets in a row that are a unit of work.
const PUBACKS_A_UNIT: usize = 8;
pub(super) const PUBCOMP: u8 = 0x70;

impl Core {
    pub(super) fn on_puback(&mut self, slot: u32, ack: &Ack<'_>) -> Result<Next, DecodeError> {
        self.complete(slot, ack, Awaiting::Puback, AckKind::Puback)
    }

    pub(super) fn on_pubcomp(&mut self, slot: u32, ack: &Ack<'_>) -> Result<Next, DecodeError> {
        self.complete(slot, ack, Awaiting::Pubcomp, AckKind::Pubcomp)
    }

    /// PUBREC: the client has the message. From now on it is never sent again [MQTT-4.3.3-6].
    pub(super) fn on_pubrec(&mut self, slot: u32, ack: &Ack<'_>) -> Result<Next, DecodeError> {
        if ack.reason_code.is_error() {
            return self.complete(slot, ack, Awaiting::Pubrec, AckKind::Pubrec); // [MQTT-4.4.0-2]
        }
        let session_slot = self.connections[slot as usize].session;
        let Some(session) = self.sessions.get_mut(session_slot as usize) else {
            return Ok(Next::Stop);
        };
        let place = session.find_in_flight(ack.packet_id);
        let known = place.is_some();
        if let Some(place) = place {
            if session.in_flight[place].awaiting == Awaiting::Puback {
                return Err(wrong_acknowledgement());
            }
            let (all, source) =
                (self.callbacks.contains(Callback::Acknowledged), self.callbacks.contains(Callback::Puback));
            // Its token is told with PUBCOMP.
            session.note_received(place, |queued| all || source && queued.message.token() != 0);
        }
        if known || !self.connections[slot as usize].is_v5() {
            self.acknowledge(slot, PUBREL, ack.packet_id);
        } else {
            let pubrel = Ack {
                packet_id: ack.packet_id,
                reason_code: ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
                properties: Properties::EMPTY,
            };
            self.answer(slot, &Packet::Pubrel(pubrel));
        }
        Ok(self.next(slot))
    }

    /// Handles PUBACK packets at the start of `bytes` that acknowledge what was sent by a lane, in its order: without a look at
    /// each by itself, as a fan-out gets one for each delivery. Returns how many bytes that is.
    #[inline]
    pub(super) fn pubacks_in_order(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let connection = &mut self.connections[slot as usize];
        let is_told = self.callbacks.contains(Callback::Acknowledged) || self.callbacks.contains(Callback::Puback);
        let session_slot = connection.session;
        let Some(session) = self.sessions.get_mut(session_slot as usize).filter(|_| !is_told) else {
            return 0;
        };
        let short = |packet: &[u8; 4]| (packet[..2] == [0x40, 2]).then(|| u16::from_be_bytes([packet[2], packet[3]]));
        let (packets, _) = bytes.as_chunks::<4>();
        let in_order = packets.iter().map_while(short).map_while(PacketId::new);
        let count = in_order.take_while(|packet_id| session.acknowledge_first(*packet_id)).count();
        if count > 0 {
            connection.heard_at = self.now;
            self.spend(count / PUBACKS_A_UNIT);
            self.pump(session_slot);
            self.list_replays(slot);
        }
        4 * count
    }

    /// Ends the in-flight state of a message, tells the handlers, and lets the next one go.
    fn complete(&mut self, slot: u32, ack: &Ack<'_>, awaiting: Awaiting, kind: AckKind) -> Result<Next, DecodeError> {
        let session_slot = self.connections[slot as usize].session;
        let Some(session) = self.sessions.get_mut(session_slot as usize) else {
            return Ok(Next::Stop);
        };
        let is_told = self.callbacks.contains(Callback::Acknowledged) || self.callbacks.contains(Callback::Puback);
        if awaiting == Awaiting::Puback && !is_told && session.acknowledge_first(ack.packet_id) {
            self.pump(session_slot);
            self.list_replays(slot);
            return Ok(self.next(slot));
        }
        // An acknowledgement of nothing changes nothing: it may be one that was sent twice.
        let Some(place) = session.find_in_flight(ack.packet_id) else {
            return Ok(self.next(slot));
        };
        if session.in_flight[place].awaiting != awaiting {
            return Err(wrong_acknowledgement());
        }
        let delivery = session.remove_in_flight(place);
        self.tell_acknowledged(ack.reason_code, session_slot, delivery.as_ref(), ack.packet_id);
        if !self.tell_puback(slot, ack.packet_id, kind, ack.reason_code, Self::token_of(delivery.as_ref())) {
            self.close_failed(slot);
            return Ok(Next::Stop);
        }
        self.pump(session_slot);
        self.list_replays(slot);
        Ok(self.next(slot))
    }

    fn tell_puback(
        &mut self,
        slot: u32,
        packet_id: PacketId,
        kind: AckKind,
        reason_code: ReasonCode,
        token: (Source, u64),
    ) -> bool {
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let Some(handlers) = connection.handlers.as_mut() else {
            return true;
        };
        if !handlers.implements(Callback::Puback) {
            return true;
        }
        self.shared.chain.puback(handlers, who, packet_id.get(), kind, reason_code, token).is_ok()
    }
}

fn wrong_acknowledgement() -> DecodeError {
    protocol_error("an acknowledgement that does not fit the QoS or the state of its message")
}
