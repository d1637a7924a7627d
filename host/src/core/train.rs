//! Trains: PUBLISH packets that have come in one read, differ in nothing but Packet Identifier and payload, and go to one
//! receiver.
//!
//! Of what a message costs on its way from one client to another, nearly all is to find out again what was found out for the
//! message before: its topic, who gets it, how, and whether anything speaks against it. So this is found out once for a train,
//! and each of its messages costs what is its own: the handlers are asked, and its packet is appended to what its receiver is
//! sent, which with QoS 0 is done once for all that are let pass one behind the other. With QoS 1 it may as well be put into the
//! queue of a receiver that is away, or has as much in flight as it takes; with QoS 2 it is kept until it is released.
//!
//! No rule is decided here. A train takes what no rule has anything to say about (see [`Core::receiver_of_train`] and
//! [`Core::has_room_for_next`]), and leaves the packet that is not so, before anybody is asked about it, to the way that all
//! others go: [`Core::publish_packet`]. It ends with the first message about which handlers say more than that it may pass.
//! Nothing else can change while it lasts: what handlers ask for is done when the packets of this read have been handled, and
//! who subscribes or is let in elsewhere meanwhile has come later than these packets.

use std::rc::Rc;

use plugin_api::{Callback, Properties, QoS};

use super::Core;
use super::acks::{PUBACK, PUBREC};
use super::budget::{FREE_BYTES, Kept};
use super::connection::{NONE, Phase};
use super::inbound::Next;
use super::outbound::ANSWERS_BYTES_MAX;
use super::route::delivery_units;
use super::sent::Packet;
use super::session::{Queued, Session};
use crate::codec::{self, Alike, OneAlike, Publish, patch_packet_id};
use crate::message::MessageParts;
use crate::plugin::PublishOutcome;

/// One that is under way.
struct Train<'a> {
    bytes: &'a [u8],
    alike: Alike<'a>,
    /// Slot of the connection that it comes from.
    from: u32,
    /// Who gets it at once. With QoS 2 nobody: its messages are kept until they are released.
    to: Option<Receiver>,
    /// How far its packets have been handled.
    used: usize,
    /// With QoS 0, from where on they have not been appended to what is sent.
    appended: usize,
    /// Messages that handlers were asked about, those that were let pass, and the largest packet of these.
    received: u64,
    passed: u64,
    largest: usize,
}

/// Who gets it.
#[derive(Clone, Copy)]
pub(super) struct Receiver {
    /// Slots of its session and of its connection.
    pub(super) session: u32,
    pub(super) connection: u32,
    /// The largest packet that it takes.
    pub(super) packet_bytes_max: usize,
    pub(super) is_v5: bool,
    /// With QoS 1 and 2, how many messages more may be in flight. With QoS 1 those behind them wait in the session's queue: all of
    /// them if it has no connection, or if something waits there already.
    pub(super) messages_left: u64,
}

impl Train<'_> {
    /// Whether the next message waits in the session's queue.
    #[inline]
    fn is_for_queue(&self) -> bool {
        let is_over = |to: &Receiver| self.passed >= to.messages_left;
        self.alike.qos() == QoS::AtLeastOnce && self.to.as_ref().is_some_and(is_over)
    }

    /// How many of those that were let pass were sent.
    fn sent_to(&self, to: &Receiver) -> u64 {
        if self.alike.qos() == QoS::AtMostOnce { self.passed } else { self.passed.min(to.messages_left) }
    }
}

impl Core {
    /// Whether it pays to look whether a packet with this first byte begins a train. Who published to many, to nobody or, with
    /// QoS 0, to one who is not connected will mostly do so again.
    #[inline]
    pub(super) fn may_begin_train(&self, slot: u32, first_byte: u8) -> bool {
        match codec::publish_qos(first_byte) {
            Some(QoS::ExactlyOnce) => true,
            Some(QoS::AtLeastOnce) => self.router.went_to(self.connections[slot as usize].topic_place).is_some(),
            Some(QoS::AtMostOnce) => self
                .router
                .went_to(self.connections[slot as usize].topic_place)
                .and_then(|to| self.sessions.get(to.slot as usize))
                .is_some_and(|session| session.connection != NONE),
            None => false,
        }
    }

    /// Handles the PUBLISH packets at the start of `bytes` that are a train, be it of one. Returns how many bytes that is, and
    /// what is to be done with those behind; 0: the packet has to be looked at by itself.
    #[inline(never)] // Others than those who publish do not pay for it.
    pub(super) fn take_train(&mut self, slot: u32, bytes: &[u8], packet_bytes_max: usize) -> (usize, Next) {
        let Some((topic, mut train)) = self.begin_train(slot, bytes) else {
            return (0, Next::Go);
        };
        let qos = train.alike.qos();
        while let Some(next) = train.alike.next(&bytes[train.used..], packet_bytes_max) {
            let &OneAlike { packet, packet_id, payload, .. } = &next;
            let parts = MessageParts::plain(&topic, payload, qos);
            if train.received > 0 && self.is_spent() || !self.has_room_for_next(&mut train, &next, &parts) {
                break;
            }
            let (dup, retain, properties) = (false, false, Properties::EMPTY);
            let publish = Publish { dup, qos, retain, topic: &topic, packet_id, properties, payload };
            let Some(outcome) = self.ask_publish(slot, &publish, &topic) else {
                break;
            };
            // Work as on the usual way: a packet, a message and its delivery. That of the first packet has been counted.
            let delivery = if train.to.is_some() { 1 + delivery_units(payload) } else { 0 };
            self.spend(usize::from(train.received > 0) + delivery);
            train.received += 1;
            train.used += packet.len();
            match outcome {
                PublishOutcome::Forward => {
                    if qos != QoS::AtMostOnce {
                        self.keep_and_answer(&train, &next, &parts);
                    }
                    if !train.is_for_queue() {
                        train.largest = train.largest.max(packet.len());
                    }
                    train.passed += 1;
                }
                other => {
                    self.append_train(&mut train, packet.len());
                    self.end_train(&train);
                    self.settle_publish(slot, &publish, &topic, other);
                    let header_bytes = codec::header_bytes(packet).unwrap_or(0);
                    return (train.used, self.conclude(slot, packet, header_bytes, Ok(self.next(slot))));
                }
            }
        }
        self.append_train(&mut train, 0);
        self.end_train(&train);
        (train.used, Next::Go)
    }

    /// What is the same for all packets of a train that begins with the first of `bytes`: its Topic Name, and the rest.
    #[inline]
    fn begin_train<'a>(&mut self, slot: u32, bytes: &'a [u8]) -> Option<(Rc<str>, Train<'a>)> {
        let connection = &mut self.connections[slot as usize];
        if connection.phase != Phase::Connected || self.shared.checks_publish {
            return None;
        }
        let alike = Alike::of(connection.version, bytes)?;
        let is_sent_at_once = alike.qos() != QoS::ExactlyOnce;
        if alike.qos() > self.shared.limits.maximum_qos {
            return None;
        }
        let topic = self.router.known_topic(alike.topic_bytes(), &mut connection.topic_place)?;
        if self.topic_refusal(&topic).is_some() || alike.qos() != QoS::AtMostOnce && !self.may_answer(slot, bytes.len())
        {
            return None;
        }
        let to = if is_sent_at_once { Some(self.receiver_of_train(slot, &topic, alike.qos())?) } else { None };
        let (from, used, appended) = (slot, 0, 0);
        Some((topic, Train { bytes, alike, from, to, used, appended, received: 0, passed: 0, largest: 0 }))
    }

    /// Whether nothing speaks against taking and acknowledging what so many bytes bring: an acknowledgement is shorter than
    /// what it is for.
    fn may_answer(&self, slot: u32, bytes: usize) -> bool {
        !self.said_full
            && !self.may_be_held_up()
            && self.check_quota(slot).is_ok()
            && self.waiting_bytes(slot) + bytes <= self.shared.limits.outbound_bytes_max + ANSWERS_BYTES_MAX
    }

    /// The one session that gets the messages of a topic, if they go to it as they come: it is here, nothing waits for it, and
    /// its packets are those of the publisher; or, with QoS 1, if they go to its queue.
    pub(super) fn receiver_of_train(&mut self, from: u32, topic: &str, qos: QoS) -> Option<Receiver> {
        let targets = self.router.targets(topic);
        let target = targets.one()?;
        let publisher = &self.connections[from as usize];
        let session = self.sessions.get(target.session.slot as usize)?;
        let is_plain = target.qos >= qos
            && target.identifiers.is_empty()
            && session.serial == target.session.serial
            && (qos == QoS::AtMostOnce || session.shared.is_none())
            && session.connection != from;
        if !is_plain || self.wants(Callback::Deliver) {
            return None;
        }
        let session_slot = target.session.slot;
        if qos == QoS::AtLeastOnce && (session.connection == NONE || !session.queue.is_empty()) {
            let (connection, packet_bytes_max, is_v5, messages_left) = (NONE, 0, false, 0);
            return Some(Receiver { session: session_slot, connection, packet_bytes_max, is_v5, messages_left });
        }
        let connection = self.connections.get(session.connection as usize)?;
        let takes_them = session.takes_at_once()
            && connection.phase == Phase::Connected
            && connection.is_v5() == publisher.is_v5()
            && connection.aliases_max == 0
            && connection.lane.is_nowhere();
        if !takes_them {
            return None;
        }
        Some(Receiver {
            session: session_slot,
            connection: session.connection,
            packet_bytes_max: connection.packet_bytes_max as usize,
            is_v5: connection.is_v5(),
            messages_left: session.room_in_flight(connection.in_flight_max, &self.shared.limits).0 as u64,
        })
    }

    /// Whether no bound keeps the next packet from going the same way.
    #[inline]
    fn has_room_for_next(&mut self, train: &mut Train<'_>, next: &OneAlike<'_>, parts: &MessageParts<'_>) -> bool {
        let limits = &self.shared.limits;
        let Some(to) = &train.to else {
            let is_new = |session: &Session| next.packet_id.is_some_and(|packet_id| !session.received.has(packet_id));
            let session = self.session_of(train.from).filter(|session| is_new(session));
            return session.is_some_and(|session| session.can_receive(parts, limits))
                && self.check_quota(train.from).is_ok();
        };
        if train.alike.qos() == QoS::AtMostOnce {
            let waiting = self.connections[to.connection as usize].waiting_bytes() + (train.used - train.appended);
            if next.packet.len() > to.packet_bytes_max {
                return false;
            }
            if waiting + next.payload.len() <= self.free_bytes {
                return true;
            }
            // The bounds are on what has been appended.
            self.append_train(train, 0);
            return self.has_room(waiting, next.payload.len());
        }
        // A queue has its own bounds.
        train.is_for_queue() || self.may_be_next(to, train.passed, next.packet.len())
    }

    /// Whether a packet with QoS 1 or 2 may be sent to a receiver at once that has been sent so many messages already.
    #[inline]
    pub(super) fn may_be_next(&self, to: &Receiver, sent: u64, packet_bytes: usize) -> bool {
        let waiting = self.connections[to.connection as usize].waiting_bytes();
        let limits = &self.shared.limits;
        sent < to.messages_left
            && packet_bytes <= to.packet_bytes_max.min(FREE_BYTES)
            && self.sessions[to.session as usize].has_room_in_flight(limits)
            && waiting < limits.outbound_bytes_max
            && (waiting <= FREE_BYTES || !self.is_full())
    }

    /// Keeps a message with QoS 1, which is sent to its receiver or waits for its turn, until that acknowledges it, and one with
    /// QoS 2 until it is released. It is acknowledged when the train ends.
    #[inline]
    fn keep_and_answer(&mut self, train: &Train<'_>, next: &OneAlike<'_>, parts: &MessageParts<'_>) {
        let &OneAlike { packet, packet_id: Some(answered), packet_id_at, .. } = next else { return };
        let [high, low] = answered.get().to_be_bytes();
        let Some(to) = &train.to else {
            let session = self.connections[train.from as usize].session;
            let message = Kept::new(parts, &self.account);
            self.sessions[session as usize].received.insert(answered, Some(message));
            return self.answers.extend_from_slice(&[PUBREC, 2, high, low]);
        };
        self.answers.extend_from_slice(&[PUBACK, 2, high, low]);
        if train.is_for_queue() {
            let message = Kept::new(parts, &self.account);
            return self.enqueue(to.session, Queued::plain(message, parts.qos));
        }
        let hears_of_it = self.hears_of_acknowledgements();
        let session = &mut self.sessions[to.session as usize];
        let packet_id = session.take_packet_id().expect("as many as there are messages left");
        if hears_of_it {
            let message = Kept::new(parts, &self.account);
            session.add_in_flight(packet_id, Queued::plain(message, parts.qos));
        } else {
            let message_bytes = parts.topic.len() + parts.payload.len();
            session.add_sent(packet_id, &Packet { bytes: packet, message_bytes, is_v5: to.is_v5 }, &self.account);
        }
        self.write(to.connection, |out| {
            let start = out.len();
            out.extend_from_slice(packet);
            patch_packet_id(&mut out[start..], packet_id_at, packet_id);
        });
    }

    /// With QoS 0 appends what has been let pass, which is all but the last `refused` bytes, to what the receiver is sent.
    fn append_train(&mut self, train: &mut Train<'_>, refused: usize) {
        let packets = &train.bytes[train.appended..train.used - refused];
        train.appended = train.used;
        if let Some(to) = &train.to
            && train.alike.qos() == QoS::AtMostOnce
            && !packets.is_empty()
        {
            self.write(to.connection, |out| out.extend_from_slice(packets));
        }
    }

    /// Says what has come of a train.
    fn end_train(&mut self, train: &Train<'_>) {
        if train.received == 0 {
            return;
        }
        self.connections[train.from as usize].heard_at = self.now;
        self.counters().publishes_received.add(train.received);
        if let Some(to) = &train.to
            && let sent = train.sent_to(to)
            && sent > 0
        {
            self.counters().publishes_sent.add(sent);
            let receiver = &mut self.connections[to.connection as usize];
            receiver.out_largest = receiver.out_largest.max(train.largest);
        }
        if !self.answers.is_empty() {
            let mut answers = std::mem::take(&mut self.answers);
            self.write(train.from, |out| out.extend_from_slice(&answers));
            answers.clear();
            self.answers = answers;
        }
    }
}
