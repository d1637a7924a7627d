//! PUBACK, PUBREC and PUBCOMP from a client: the end of an outbound message.

use plugin_api::{Properties, ReasonCode};

use super::Core;
use super::inbound::Next;
use super::session::Awaiting;
use crate::codec::{Ack, DecodeError, Packet, PacketId};
use crate::plugin::{AckKind, Callback};

const PUBREL: u8 = 0x62;

impl Core {
    pub(super) fn on_puback(&mut self, slot: u32, ack: &Ack<'_>) -> Result<Next, DecodeError> {
        self.complete(slot, ack, Awaiting::Puback, AckKind::Puback);
        Ok(self.next(slot))
    }

    pub(super) fn on_pubcomp(&mut self, slot: u32, ack: &Ack<'_>) -> Result<Next, DecodeError> {
        self.complete(slot, ack, Awaiting::Pubcomp, AckKind::Pubcomp);
        Ok(self.next(slot))
    }

    /// PUBREC: the client has the message. From now on it is never sent again [MQTT-4.3.3-6].
    pub(super) fn on_pubrec(&mut self, slot: u32, ack: &Ack<'_>) -> Result<Next, DecodeError> {
        if ack.reason_code.is_error() {
            self.complete(slot, ack, Awaiting::Pubrec, AckKind::Pubrec); // [MQTT-4.4.0-2]
            return Ok(self.next(slot));
        }
        let session_slot = self.connections[slot as usize].session;
        let Some(session) = self.sessions.get_mut(session_slot as usize) else {
            return Ok(Next::Stop);
        };
        let sent = session.find_in_flight(ack.packet_id).map(|place| &mut session.in_flight[place]);
        let sent = sent.filter(|sent| sent.awaiting != Awaiting::Puback);
        let known = sent.is_some();
        if let Some(sent) = sent {
            sent.delivery = None;
            sent.awaiting = Awaiting::Pubcomp;
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

    /// Ends the in-flight state of a message, tells the handlers, and lets the next one go.
    fn complete(&mut self, slot: u32, ack: &Ack<'_>, awaiting: Awaiting, kind: AckKind) {
        let session_slot = self.connections[slot as usize].session;
        let Some(session) = self.sessions.get_mut(session_slot as usize) else {
            return;
        };
        // An acknowledgement of nothing, or at the wrong moment, changes nothing.
        let place =
            session.find_in_flight(ack.packet_id).filter(|place| session.in_flight[*place].awaiting == awaiting);
        let Some(place) = place else {
            return;
        };
        session.remove_in_flight(place);
        if self.shared.chain.implements(Callback::Puback)
            && !self.tell_puback(slot, ack.packet_id, kind, ack.reason_code)
        {
            return self.close_failed(slot);
        }
        self.pump(session_slot);
        self.list_replays(slot);
    }

    fn tell_puback(&mut self, slot: u32, packet_id: PacketId, kind: AckKind, reason_code: ReasonCode) -> bool {
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let Some(handlers) = connection.handlers.as_mut() else {
            return true;
        };
        self.shared.chain.puback(handlers, who, packet_id.get(), kind, reason_code).is_ok()
    }
}
