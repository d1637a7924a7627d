//! QoS 2 messages that are released in a run: PUBREL packets with consecutive Packet Identifiers, in the order in which their
//! messages came.
//!
//! As with the [`train`](super::train) in which such messages come, those of a run mostly go to one receiver, and nothing is to
//! be found out about the next one that is not known of the one before. No rule is decided here either: what is out of the
//! ordinary goes the way of all messages.
//!
//! What a train has brought is kept as [packets](super::packets), and goes on so: they are copied to what their receiver is sent,
//! and those that were kept until they were released are kept until they are acknowledged.

use std::rc::Rc;

use plugin_api::QoS;

use super::Core;
use super::acks::PUBCOMP;
use super::budget::Kept;
use super::connection::NONE;
use super::in_flight::{behind, following};
use super::packets::Part;
use super::route::delivery_units;
use super::session::Queued;
use super::templates::version;
use super::train::{Ahead, Receiver};
use super::work::DELIVERY_BYTES_A_UNIT;
use crate::codec::{self, PacketId, PublishHead};

/// The way that the messages of a topic go.
struct Way {
    topic: Rc<str>,
    to: Receiver,
    /// Messages that have gone it.
    sent: u64,
}

/// Messages that are released in one step, at most: behind it the turn may have no work left.
const RELEASED_AT_ONCE: usize = 64;

impl Core {
    /// PUBREL packets for so many messages, from a Packet Identifier on: releases those that are the next ones in the order in
    /// which they came, as long as the turn has work left. Returns how many it was.
    pub(super) fn release_in_order(&mut self, slot: u32, first: PacketId, count: usize) -> usize {
        let (mut done, mut next, mut way) = (0, first, None);
        while done < count && !self.is_spent() {
            let session_slot = self.connections[slot as usize].session;
            let Some(session) = self.sessions.get_mut(session_slot as usize) else { break };
            if let Some(part) = session.received.release_packets(next, RELEASED_AT_ONCE.min(count - done)) {
                let released = part.len();
                self.journal_released(session_slot, next, released);
                self.pass_on_part(slot, part, &mut way);
                self.acknowledge_all(slot, PUBCOMP, next, released);
                (done, next) = (done + released, behind(next.get(), released as u64));
                continue;
            }
            let Some(message) = session.received.release_first(next) else { break };
            self.journal_released(session_slot, next, 1);
            if let Some(message) = message {
                self.pass_on(slot, message, &mut way);
            }
            self.acknowledge(slot, PUBCOMP, next);
            (done, next) = (done + 1, following(next));
        }
        if let Some(session) = self.sessions.get_mut(self.connections[slot as usize].session as usize) {
            session.received.trim();
        }
        done
    }

    /// Has messages go on, as far as they may on the way of the one before.
    fn pass_on_part(&mut self, slot: u32, mut part: Part, way: &mut Option<Way>) {
        while part.len() > 0 {
            let row = part.all();
            let topic = row.topic_bytes(0);
            if way.as_ref().is_none_or(|way| way.topic.as_bytes() != topic) {
                *way = self.way_of(slot, topic);
            }
            let gone = way.as_mut().map_or(0, |way| self.send_released_part(way, &part));
            part.skip(gone);
            if gone == 0 {
                let message = part.message(0).message;
                part.skip(1);
                self.pass_on(slot, message, way);
            }
        }
    }

    /// Messages at the start of a part that are for a topic are sent to who gets them, or put into its queue. Returns how many
    /// that is.
    fn send_released_part(&mut self, way: &mut Way, part: &Part) -> usize {
        let (row, topic) = (part.all(), way.topic.as_bytes());
        let count = (1..row.len()).take_while(|number| row.topic_bytes(*number) == topic).count() + 1;
        let Receiver { session, connection, .. } = way.to;
        let gone = match connection {
            NONE if self.enqueue_part(session, part.first(count)) => count,
            NONE => 0,
            // Who has sent them may have come back with another version.
            _ if self.hears_of_acknowledgements() || row.kind().is_v5 != way.to.is_v5 => 0,
            _ => self.send_part_now(session, part, count),
        };
        way.sent += gone as u64;
        self.spend(2 * gone + part.message_bytes(0..gone) / DELIVERY_BYTES_A_UNIT);
        gone
    }

    /// Has a message go on, on the way of the one before if it is for the same receiver.
    fn pass_on(&mut self, slot: u32, message: Kept, way: &mut Option<Way>) {
        // Handlers may have made it one with less QoS.
        let is_plain = message.qos() == QoS::ExactlyOnce
            && message.properties().is_empty()
            && !message.retain()
            && message.expires_at().is_none();
        if is_plain && way.as_ref().is_none_or(|way| way.topic.as_bytes() != message.topic_bytes()) {
            *way = self.way_of(slot, message.topic_bytes());
        }
        match way {
            Some(way) if is_plain && self.goes_on(way, &message) => self.send_released(way, message),
            _ => {
                // What it does to its receivers may be more than what has been looked at.
                *way = None;
                self.publish_released(slot, &message);
            }
        }
    }

    fn way_of(&mut self, slot: u32, topic: &[u8]) -> Option<Way> {
        if self.said_full {
            return None;
        }
        let place = &mut self.connections[slot as usize].topic_place;
        let topic = self.router.known_topic(topic, place)?;
        let to = self.receiver_of_train(slot, &topic, QoS::ExactlyOnce)?;
        Some(Way { topic, to, sent: 0 })
    }

    #[inline]
    fn goes_on(&self, way: &Way, message: &Kept) -> bool {
        let (topic_bytes, payload_bytes) = (way.topic.len(), message.payload().len());
        let bytes = codec::publish_packet_bytes(version(way.to.is_v5), QoS::ExactlyOnce, topic_bytes, 0, payload_bytes);
        way.to.connection != NONE && self.may_be_next(&way.to, way.sent, bytes, Ahead::default())
    }

    fn send_released(&mut self, way: &mut Way, message: Kept) {
        let Receiver { session, connection, .. } = way.to;
        way.sent += 1;
        self.spend(1 + delivery_units(message.payload()));
        let session = &mut self.sessions[session as usize];
        let packet_id = session.take_packet_id();
        debug_assert!(packet_id.is_some(), "as many as there are messages left");
        let (qos, dup, retain) = (QoS::ExactlyOnce, false, false);
        let head = PublishHead { dup, qos, retain, packet_id };
        let is_held = self.holds_exactly_once(way.to.session);
        let bytes = self.write_or_owe(connection, is_held, |out| {
            let start = out.len();
            codec::encode_publish(version(way.to.is_v5), out, head, &way.topic, &[], message.payload());
            out.len() - start
        });
        let largest = &mut self.connections[connection as usize].out_largest;
        *largest = bytes.max(*largest);
        self.counters().publishes_sent.add(1);
        if let Some(packet_id) = packet_id {
            let queued = Queued::plain(message, qos);
            if let Some((journal, session)) = self.journal_of(way.to.session) {
                journal.sent_now(session, packet_id, &queued);
            }
            self.sessions[way.to.session as usize].add_in_flight(packet_id, queued);
        }
    }
}
