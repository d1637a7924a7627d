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
pub(super) const PUBCOMP: u8 = 0x70;

/// Acknowledgements in a row that are a unit of work.
const ACKNOWLEDGEMENTS_A_UNIT: usize = 8;

/// Whether a packet with this first byte may begin a run of acknowledgements.
#[inline]
pub(super) fn may_be_run(first_byte: u8) -> bool {
    matches!(first_byte, PUBACK | PUBREC | PUBREL | PUBCOMP)
}

/// The first Packet Identifier of the run that `bytes` start with, and how many packets it has: short acknowledgements of one
/// type, each with the next Packet Identifier. One ends with 65,535, which 1 follows.
#[inline]
fn run_of(bytes: &[u8]) -> Option<(PacketId, usize)> {
    let (packets, _) = bytes.as_chunks::<4>();
    let start = u32::from_be_bytes(*packets.first()?);
    let first = PacketId::new(start as u16).filter(|_| bytes[1] == 2)?;
    let expected = start..=start | u32::from(u16::MAX);
    let is_next = |(packet, expected): &(&[u8; 4], u32)| u32::from_be_bytes(**packet) == *expected;
    Some((first, packets.iter().zip(expected).take_while(is_next).count()))
}

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
            let is_first = session.in_flight[place].awaiting == Awaiting::Pubrec;
            session.note_received(place, |queued| all || source && queued.message.token() != 0);
            if is_first {
                self.journal_received(session_slot, ack.packet_id, 1);
            }
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

    /// Handles acknowledgements at the start of `bytes` that are a run and come in the order in which their messages were sent:
    /// all at once, and without a look at each by itself. There are as many of them as of messages, and one read brings many.
    /// Returns how many bytes that is; what is behind them goes the way of all packets.
    #[inline]
    pub(super) fn acknowledgements_in_order(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let Some((first, count)) = run_of(bytes) else {
            return 0;
        };
        let session_slot = self.connections[slot as usize].session;
        let done = match bytes[0] {
            PUBREL => self.release_in_order(slot, first, count),
            _ if self.hears_of_acknowledgements() => 0, // Handlers are told each.
            PUBREC => self.received_in_order(slot, first, count),
            PUBACK => self.complete_in_order(session_slot, first, count, Awaiting::Puback),
            PUBCOMP => self.complete_in_order(session_slot, first, count, Awaiting::Pubcomp),
            _ => 0,
        };
        if done > 0 {
            self.connections[slot as usize].heard_at = self.now;
            self.spend(done / ACKNOWLEDGEMENTS_A_UNIT);
            self.list_replays(slot);
        }
        4 * done
    }

    /// Whether some plugin is told what has been acknowledged.
    #[inline]
    pub(super) fn hears_of_acknowledgements(&self) -> bool {
        self.wants(Callback::Acknowledged) || self.wants(Callback::Puback)
    }

    /// PUBACK or PUBCOMP for some messages: ends them, and lets as many others go.
    fn complete_in_order(&mut self, session_slot: u32, first: PacketId, count: usize, awaiting: Awaiting) -> usize {
        let session = self.sessions.get_mut(session_slot as usize);
        let done = session.map_or(0, |session| session.acknowledge_oldest(first, count, awaiting));
        if done > 0 {
            self.journal_acknowledged(session_slot, first, done);
            self.pump(session_slot);
        }
        done
    }

    /// PUBREC for some messages, which are released.
    fn received_in_order(&mut self, slot: u32, first: PacketId, count: usize) -> usize {
        let session_slot = self.connections[slot as usize].session;
        let session = self.sessions.get_mut(session_slot as usize);
        let done = session.map_or(0, |session| session.note_all_received(first, count));
        if done > 0 {
            self.journal_received(session_slot, first, done);
            self.acknowledge_all(slot, PUBREL, first, done);
        }
        done
    }

    /// Ends the in-flight state of a message, tells the handlers, and lets the next one go.
    fn complete(&mut self, slot: u32, ack: &Ack<'_>, awaiting: Awaiting, kind: AckKind) -> Result<Next, DecodeError> {
        let is_told = self.hears_of_acknowledgements();
        let session_slot = self.connections[slot as usize].session;
        let Some(session) = self.sessions.get_mut(session_slot as usize) else {
            return Ok(Next::Stop);
        };
        if !is_told && session.acknowledge_oldest(ack.packet_id, 1, awaiting) == 1 {
            self.journal_acknowledged(session_slot, ack.packet_id, 1);
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
        self.journal_acknowledged(session_slot, ack.packet_id, 1);
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
