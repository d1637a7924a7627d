//! QoS 2 messages that are released in a run: PUBREL packets with consecutive Packet Identifiers, in the order in which their
//! messages came.
//!
//! As with the [`train`](super::train) in which such messages come, those of a run mostly go to one receiver, and nothing is to
//! be found out about the next one that is not known of the one before. No rule is decided here either: what is out of the
//! ordinary goes the way of all messages.

use std::rc::Rc;

use plugin_api::QoS;

use super::Core;
use super::acks::PUBCOMP;
use super::budget::Kept;
use super::in_flight::following;
use super::route::delivery_units;
use super::session::Queued;
use super::templates::version;
use super::train::Receiver;
use crate::codec::{self, PacketId, PublishHead};

/// The way that the messages of a topic go.
struct Way {
    topic: Rc<str>,
    to: Receiver,
    /// Messages that have gone it.
    sent: u64,
}

impl Core {
    /// PUBREL packets for so many messages, from a Packet Identifier on: releases those that are the next ones in the order in
    /// which they came, as long as the turn has work left. Returns how many it was.
    pub(super) fn release_in_order(&mut self, slot: u32, first: PacketId, count: usize) -> usize {
        let (mut done, mut next, mut way) = (0, first, None);
        while done < count && !self.is_spent() {
            let session = self.sessions.get_mut(self.connections[slot as usize].session as usize);
            let Some(message) = session.and_then(|session| session.received.release_first(next)) else {
                break;
            };
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

    /// Has a message go on, on the way of the one before if it is for the same receiver.
    fn pass_on(&mut self, slot: u32, message: Kept, way: &mut Option<Way>) {
        // Handlers may have made it one with less QoS.
        let is_plain = message.qos() == QoS::ExactlyOnce
            && message.properties().is_empty()
            && !message.retain()
            && message.expires_at().is_none();
        if is_plain && way.as_ref().is_none_or(|way| way.topic.as_bytes() != message.topic_bytes()) {
            *way = self.way_of(slot, &message);
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

    fn way_of(&mut self, slot: u32, message: &Kept) -> Option<Way> {
        if self.said_full {
            return None;
        }
        let place = &mut self.connections[slot as usize].topic_place;
        let topic = self.router.known_topic(message.topic_bytes(), place)?;
        let to = self.receiver_of_train(slot, &topic, QoS::ExactlyOnce)?;
        Some(Way { topic, to, sent: 0 })
    }

    #[inline]
    fn goes_on(&self, way: &Way, message: &Kept) -> bool {
        let (topic_bytes, payload_bytes) = (way.topic.len(), message.payload().len());
        let bytes = codec::publish_packet_bytes(version(way.to.is_v5), QoS::ExactlyOnce, topic_bytes, 0, payload_bytes);
        self.may_be_next(&way.to, way.sent, bytes)
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
        let bytes = self.write(connection, |out| {
            let start = out.len();
            codec::encode_publish(version(way.to.is_v5), out, head, &way.topic, &[], message.payload());
            out.len() - start
        });
        let largest = &mut self.connections[connection as usize].out_largest;
        *largest = bytes.max(*largest);
        self.counters().publishes_sent.add(1);
        if let Some(packet_id) = packet_id {
            self.sessions[way.to.session as usize].add_in_flight(packet_id, Queued::plain(message, qos));
        }
    }
}
