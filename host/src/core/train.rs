//! Trains: PUBLISH packets that have come in one read, differ in nothing but Packet Identifier and payload, and go to one
//! receiver.
//!
//! Of what a message costs on its way from one client to another, nearly all is to find out again what was found out for the
//! message before: its topic, who gets it, how, and whether anything speaks against it. So this is found out once for a train,
//! and each of its messages costs what is its own: the handlers are asked. Those that are let pass one behind the other are then
//! appended to what their receiver is sent, and with QoS 1 kept until it acknowledges them, in one piece. With QoS 1 they may as
//! well be put into the queue of a receiver that is away, or has as much in flight as it takes; with QoS 2 they are kept until
//! they are released. Where a Shared Subscription gets them, each has another receiver: see [`members`](super::members).
//!
//! No rule is decided here. A train takes what no rule has anything to say about (see [`Core::receiver_of_train`] and
//! [`Core::has_room_for_next`]), and leaves the packet that is not so, before anybody is asked about it, to the way that all
//! others go: [`Core::publish_packet`]. It ends with the first message about which handlers say more than that it may pass.
//! Nothing else can change while it lasts: what handlers ask for is done when the packets of this read have been handled, and
//! who subscribes or is let in elsewhere meanwhile has come later than these packets.

use std::num::NonZeroU64;
use std::ops::Range;
use std::rc::Rc;

use plugin_api::{Callback, Properties, QoS};

use super::Core;
use super::acks::{PUBACK, PUBREC};
use super::budget::FREE_BYTES;
use super::connection::{NONE, Phase};
use super::in_flight::following;
use super::inbound::Next;
use super::members::Members;
use super::outbound::ANSWERS_BYTES_MAX;
use super::packets::{BYTES_MAX, End, Kind, Row};
use super::route::delivery_units;
use super::session::Session;
use crate::codec::{self, Alike, OneAlike, PacketId, Publish};
use crate::message::MessageParts;
use crate::plugin::PublishOutcome;
use crate::router::WentTo;

/// One that is under way.
pub(super) struct Train<'a> {
    bytes: &'a [u8],
    pub(super) alike: Alike<'a>,
    /// Slot of the connection that it comes from.
    pub(super) from: u32,
    /// Who gets it at once. With QoS 2 nobody: its messages are kept until they are released.
    to: Option<Receiver>,
    /// The members of a Shared Subscription get it at once.
    pub(super) members: Option<Members>,
    /// How far its packets have been handled.
    used: usize,
    /// From where on those that were let pass have not been appended to what is sent or kept.
    appended: usize,
    /// With QoS 1 and 2, the bytes of these messages, and the first Packet Identifier of them and the one behind the last. Where
    /// each packet ends, counted from there, is in [`Core::ends`].
    message_bytes: usize,
    packet_ids: Range<PacketId>,
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

/// What a receiver will be sent before the next packet, and has not been sent yet.
#[derive(Clone, Copy, Default)]
pub(super) struct Ahead {
    /// Of packets, and of their messages.
    pub(super) bytes: usize,
    pub(super) message_bytes: usize,
}

impl Train<'_> {
    /// Whether the next message waits in the session's queue.
    #[inline]
    fn is_for_queue(&self) -> bool {
        let is_over = |to: &Receiver| self.passed >= to.messages_left;
        self.alike.qos() == QoS::AtLeastOnce && self.to.as_ref().is_some_and(is_over)
    }

    /// What its packets have in common, where they are kept.
    pub(super) fn kind(&self, group: Option<NonZeroU64>) -> Kind {
        Kind { qos: self.alike.qos(), is_v5: self.alike.is_v5(), group }
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
            Some(qos) => match self.router.went_to(self.connections[slot as usize].topic_place) {
                Some(WentTo::Session(to)) if qos == QoS::AtMostOnce => {
                    self.sessions.get(to.slot as usize).is_some_and(|session| session.connection != NONE)
                }
                Some(WentTo::Session(_) | WentTo::Group) => true,
                None => false,
            },
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
            let is_sent = train.to.is_some() || train.members.is_some();
            let delivery = if is_sent { 1 + delivery_units(payload) } else { 0 };
            self.spend(usize::from(train.received > 0) + delivery);
            train.received += 1;
            train.used += packet.len();
            match outcome {
                PublishOutcome::Forward => {
                    if train.members.is_some() {
                        self.give_to_member(&mut train, &next, &parts);
                    }
                    self.answer_and_collect(&mut train, &next);
                    if !train.is_for_queue() {
                        train.largest = train.largest.max(packet.len());
                    }
                    train.passed += 1;
                }
                other => {
                    self.append_train(&mut train, packet.len());
                    self.end_train(&mut train);
                    self.settle_publish(slot, &publish, &topic, other);
                    let header_bytes = codec::header_bytes(packet).unwrap_or(0);
                    return (train.used, self.conclude(slot, packet, header_bytes, Ok(self.next(slot))));
                }
            }
        }
        self.append_train(&mut train, 0);
        self.end_train(&mut train);
        (train.used, Next::Go)
    }

    /// What is the same for all packets of a train that begins with the first of `bytes`: its Topic Name, and the rest.
    #[inline]
    fn begin_train<'a>(&mut self, slot: u32, bytes: &'a [u8]) -> Option<(Rc<str>, Train<'a>)> {
        let connection = &mut self.connections[slot as usize];
        if connection.phase != Phase::Connected || connection.listener.checks_publish || self.held_acks.is_refused {
            return None;
        }
        let alike = Alike::of(connection.version, bytes)?;
        let is_sent_at_once = alike.qos() != QoS::ExactlyOnce;
        if alike.qos() > connection.listener.limits.maximum_qos {
            return None;
        }
        let topic = self.router.known_topic(alike.topic_bytes(), &mut connection.topic_place)?;
        if self.topic_refusal(&topic).is_some() || alike.qos() != QoS::AtMostOnce && !self.may_answer(slot, bytes.len())
        {
            return None;
        }
        let to = if is_sent_at_once { self.receiver_of_train(slot, &topic, alike.qos()) } else { None };
        let members = if is_sent_at_once && to.is_none() { Some(self.members_of_train(&topic)?) } else { None };
        let train = Train {
            bytes,
            alike,
            from: slot,
            to,
            members,
            used: 0,
            appended: 0,
            message_bytes: 0,
            packet_ids: PacketId::MIN..PacketId::MIN,
            received: 0,
            passed: 0,
            largest: 0,
        };
        Some((topic, train))
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
    /// its packets are those of the publisher; or, with QoS 1 and 2, if they go to its queue.
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
        if qos != QoS::AtMostOnce && (session.connection == NONE || !session.queue.is_empty()) {
            let (connection, packet_bytes_max, is_v5, messages_left) = (NONE, 0, false, 0);
            return Some(Receiver { session: session_slot, connection, packet_bytes_max, is_v5, messages_left });
        }
        self.receiver(session_slot, publisher.is_v5())
    }

    /// A session, if packets of a version are sent to it at once as they are.
    #[inline(always)] // Of the two who ask, one does it for each train, be it of one message.
    pub(super) fn receiver(&self, session_slot: u32, is_v5: bool) -> Option<Receiver> {
        let session = &self.sessions[session_slot as usize];
        let connection = self.connections.get(session.connection as usize)?;
        let takes_them = session.takes_at_once() && connection.takes_packets(is_v5) && connection.lane.is_nowhere();
        if !takes_them {
            return None;
        }
        Some(Receiver {
            session: session_slot,
            connection: session.connection,
            packet_bytes_max: connection.packet_bytes_max as usize,
            is_v5,
            messages_left: session.room_in_flight(connection.in_flight_max, &self.shared.limits).0 as u64,
        })
    }

    /// Whether no bound keeps the next packet from going the same way.
    #[inline]
    fn has_room_for_next(&mut self, train: &mut Train<'_>, next: &OneAlike<'_>, parts: &MessageParts<'_>) -> bool {
        if train.alike.qos() != QoS::AtMostOnce {
            return self.has_room_to_keep(train, next, parts);
        }
        let Some(to) = train.to else { return true };
        let waiting = self.connections[to.connection as usize].waiting_bytes() + (train.used - train.appended);
        if next.packet.len() > to.packet_bytes_max {
            return false;
        }
        if waiting + next.payload.len() <= self.free_bytes {
            return true;
        }
        // The bounds are on what has been appended.
        self.append_train(train, 0);
        self.has_room(waiting, next.payload.len())
    }

    /// The same with QoS 1 and 2.
    #[inline]
    fn has_room_to_keep(&mut self, train: &mut Train<'_>, next: &OneAlike<'_>, parts: &MessageParts<'_>) -> bool {
        if train.members.is_some() {
            return true; // Each member has its own bounds.
        }
        let Some(packet_id) = next.packet_id else { return false };
        let is_over = match train.to {
            Some(to) => train.passed == to.messages_left,
            None => packet_id != train.packet_ids.end,
        };
        let waiting = train.used - train.appended;
        if !self.ends.is_empty() && (is_over || waiting + next.packet.len() > BYTES_MAX) {
            self.append_train(train, 0);
        }
        let limits = &self.shared.limits;
        let (messages, message_bytes) = (self.ends.len(), train.message_bytes);
        match &train.to {
            // A queue has its own bounds.
            Some(_) if train.is_for_queue() => true,
            Some(to) => {
                let waiting = train.used - train.appended;
                self.may_be_next(to, train.passed, next.packet.len(), Ahead { bytes: waiting, message_bytes })
            }
            None => {
                let bytes = message_bytes + parts.topic.len() + parts.payload.len();
                let may_be_kept = |session: &Session| {
                    let is_first = session.received.is_empty() && messages == 0;
                    !session.received.has(packet_id) && (is_first || session.can_receive(bytes, limits))
                };
                self.session_of(train.from).is_some_and(may_be_kept) && self.quota_left(train.from) > messages
            }
        }
    }

    /// Whether a packet with QoS 1 or 2 may be sent to a receiver at once that has been sent so many messages already, and will
    /// be sent something more before.
    #[inline]
    pub(super) fn may_be_next(&self, to: &Receiver, sent: u64, packet_bytes: usize, ahead: Ahead) -> bool {
        let waiting = self.connections[to.connection as usize].waiting_bytes() + ahead.bytes;
        let limits = &self.shared.limits;
        sent < to.messages_left
            && packet_bytes <= to.packet_bytes_max.min(FREE_BYTES)
            && self.sessions[to.session as usize].has_room_in_flight_behind(ahead.message_bytes, limits)
            && waiting < limits.outbound_bytes_max
            && (waiting <= FREE_BYTES || !self.is_full())
    }

    /// Acknowledges a message with QoS 1 and 2 when the train ends. It is sent, put into a queue or kept until it is released with
    /// those that come behind it.
    #[inline]
    fn answer_and_collect(&mut self, train: &mut Train<'_>, next: &OneAlike<'_>) {
        let &OneAlike { packet_id: Some(packet_id), payload, .. } = next else { return };
        let [high, low] = packet_id.get().to_be_bytes();
        let first_byte = if train.alike.qos() == QoS::AtLeastOnce { PUBACK } else { PUBREC };
        self.answers.extend_from_slice(&[first_byte, 2, high, low]);
        if train.members.is_some() {
            return;
        }
        if self.ends.is_empty() {
            train.packet_ids.start = packet_id;
        }
        train.packet_ids.end = following(packet_id);
        let message_bytes = train.alike.topic_bytes().len() + payload.len();
        self.ends.push(End::new(train.used - train.appended, message_bytes));
        train.message_bytes += message_bytes;
    }

    /// What has been let pass, which is all but the last `refused` bytes, is sent to the receiver, put into its queue, or kept
    /// until it is released.
    #[inline]
    fn append_train(&mut self, train: &mut Train<'_>, refused: usize) {
        let packets = &train.bytes[train.appended..train.used - refused];
        train.appended = train.used;
        if packets.is_empty() || train.members.is_some() {
            return;
        }
        if train.alike.qos() != QoS::AtMostOnce {
            self.append_row(train, packets);
        } else if let Some(to) = &train.to {
            self.write(to.connection, |out| out.extend_from_slice(packets));
        }
    }

    /// The same with QoS 1 and 2.
    fn append_row(&mut self, train: &mut Train<'_>, packets: &[u8]) {
        let mut ends = std::mem::take(&mut self.ends);
        let row = Row::new(packets, &ends, train.kind(None));
        match &train.to {
            Some(to) if train.passed - row.len() as u64 >= to.messages_left => self.enqueue_row(to.session, &row),
            Some(to) => self.send_row(to.session, &row),
            None => self.receive_row(train.from, train.packet_ids.start, &row),
        }
        ends.clear();
        self.ends = ends;
        train.message_bytes = 0;
    }

    /// Says what has come of a train.
    fn end_train(&mut self, train: &mut Train<'_>) {
        if let Some(members) = train.members.take() {
            self.end_members(members);
        }
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
            let is_held = self.must_owe(train.from);
            self.write_or_owe(train.from, is_held, |out| out.extend_from_slice(&answers));
            answers.clear();
            self.answers = answers;
        }
    }
}
