//! From a session's messages to the bytes that wait for its socket.

use plugin_api::{Callback, DropReason, Properties, QoS};

use super::budget::FREE_BYTES;
use super::connection::{NONE, Phase};
use super::deliver::{Asked, How};
use super::in_flight::following;
use super::mount::MOUNTED;
use super::notices::Meant;
use super::session::Queued;
use super::templates::{Class, Own, encode};
use super::{Closing, Core};
use crate::codec::{Ack, Packet, PacketId};
use crate::limits::QueueFull;
use crate::message::MessageParts;
use crate::plugin::{Cause, Fate};

/// Bytes of the outbound buffers that the worker keeps, and of one of them. They are for all that have something to send in
/// one turn: to let a buffer grow anew for each would cost more than what is put into it.
const POOL_BYTES_MAX: usize = 8 << 20;
const POOL_BUFFER_BYTES_MAX: usize = 256 << 10;

/// What a new one has room for.
const BUFFER_BYTES_MIN: usize = 512;

/// What the answers to a peer that reads nothing may add to the bound of its outbound bytes.
pub(super) const ANSWERS_BYTES_MAX: usize = 1 << 20;

/// The part of the bound that a connection may have to send and still be sent a message of any size.
pub(super) const NEXT_TO_NOTHING: usize = 64;

impl Core {
    /// Reports that the socket took `bytes`. More may wait afterwards, from the session's queue: look at
    /// [`Core::outbound`] again.
    pub fn sent(&mut self, slot: u32, bytes: usize, now: crate::clock::Millis) {
        self.now = now;
        let connection = &mut self.connections[slot as usize];
        if self.lanes.comes_first(connection) {
            self.advance_in_lane(slot, bytes);
            if self.waiting_bytes(slot) == 0 {
                self.all_sent(slot);
            }
            return;
        }
        connection.out_sent += bytes;
        debug_assert!(connection.out_sent <= connection.out.len());
        if connection.out_sent < connection.out.len() {
            // What was sent is not moved out of the way each time, but before it has become half of the buffer.
            if connection.out_sent > connection.out.len() / 2 {
                connection.out.drain(..connection.out_sent);
                connection.out_sent = 0;
            }
            return;
        }
        self.all_sent(slot);
    }

    /// Nothing is left in a connection's own buffer.
    fn all_sent(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        connection.out_largest = 0;
        let session = connection.session;
        let empty = self.take_out(slot);
        self.recycle(empty);
        if session != NONE {
            self.pump(session);
            self.list_replays(slot);
        }
    }

    /// Gives a buffer back to the pool.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if (1..=POOL_BUFFER_BYTES_MAX).contains(&bytes) && self.pool_bytes + bytes <= POOL_BYTES_MAX {
            self.pool_bytes += bytes;
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// The outbound buffer of a connection, which is put on the list for the driver.
    pub(super) fn out(&mut self, slot: u32) -> &mut Vec<u8> {
        let connection = &mut self.connections[slot as usize];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(slot);
        }
        if connection.out.capacity() == 0 {
            connection.out = self.pool.pop().map_or_else(
                || Vec::with_capacity(BUFFER_BYTES_MIN),
                |buffer| {
                    self.pool_bytes -= buffer.capacity();
                    buffer
                },
            );
            self.account.add(connection.out.capacity());
        }
        &mut connection.out
    }

    /// Sends a packet that answers one of the peer's, unless it is larger than the peer takes [MQTT-3.1.2-24]. A peer that
    /// asks and does not read is closed at some point.
    pub(super) fn answer(&mut self, slot: u32, packet: &Packet<'_>) {
        if !self.put(slot, packet) {
            self.counters().dropped_too_large.add(1);
        }
        self.bound_answers(slot);
    }

    /// Sends a packet with properties that explain, or without them if the client did not ask for them [MQTT-3.1.2-29]
    /// or has no room for them.
    pub(super) fn answer_with_properties<'a>(
        &mut self,
        slot: u32,
        properties: Properties<'a>,
        packet: impl Fn(Properties<'a>) -> Packet<'a>,
    ) {
        let explain = self.connections[slot as usize].problem_information;
        if explain && self.put(slot, &packet(properties)) {
            self.bound_answers(slot);
        } else {
            self.answer(slot, &packet(Properties::EMPTY));
        }
    }

    /// Sends the packet behind which the connection is closed, with properties if the client has room for
    /// them, and not at all if it has none for the packet itself [MQTT-3.1.2-24].
    pub(super) fn say_last<'a>(
        &mut self,
        slot: u32,
        properties: Properties<'a>,
        packet: impl Fn(Properties<'a>) -> Packet<'a>,
    ) {
        if !self.put(slot, &packet(properties)) {
            self.put(slot, &packet(Properties::EMPTY));
        }
    }

    /// Appends a packet. `false` if it is larger than the peer takes.
    fn put(&mut self, slot: u32, packet: &Packet<'_>) -> bool {
        let connection = &self.connections[slot as usize];
        let (version, bytes_max) = (connection.version, connection.packet_bytes_max as usize);
        let mut start = 0;
        let fits = self.write(slot, |out| {
            start = out.len();
            packet.encode(version, out);
            out.len() - start <= bytes_max
        });
        if !fits {
            self.take_back(slot, start);
        } else if self.keeps_its_place(slot, packet) {
            self.owe_from(slot, start);
        }
        fits
    }

    /// Whether a packet that has been appended is held with what the connection is owed.
    fn keeps_its_place(&mut self, slot: u32, packet: &Packet<'_>) -> bool {
        match packet {
            // They promise nothing.
            Packet::Pingresp | Packet::Auth(_) | Packet::Connack(_) => false,
            // Nothing comes behind it.
            Packet::Disconnect(_) => self.is_owed(slot),
            _ => self.must_owe(slot),
        }
    }

    /// Takes a packet that must not be sent out of the buffer again, whose end was at `start`. One that is empty now will
    /// never be reported as sent, so it goes back to the pool here.
    fn take_back(&mut self, slot: u32, start: usize) {
        let connection = &mut self.connections[slot as usize];
        connection.out.truncate(start);
        if start == 0 {
            let empty = self.take_out(slot);
            self.recycle(empty);
        }
    }

    /// The short acknowledgement, the same four bytes in all versions.
    #[inline]
    pub(super) fn acknowledge(&mut self, slot: u32, first_byte: u8, packet_id: PacketId) {
        let packet = short_ack(first_byte, packet_id);
        if self.must_owe(slot) {
            return self.owe(slot, |held| held.extend_from_slice(&packet));
        }
        let connection = &mut self.connections[slot as usize];
        let room = connection.out.capacity() - connection.out.len();
        if connection.dirty && room >= packet.len() {
            connection.out.extend_from_slice(&packet);
        } else {
            self.write(slot, |out| out.extend_from_slice(&packet));
        }
        self.bound_answers(slot);
    }

    /// The same for so many Packet Identifiers, from one on.
    pub(super) fn acknowledge_all(&mut self, slot: u32, first_byte: u8, first: PacketId, count: usize) {
        let is_held = self.must_owe(slot);
        self.write_or_owe(slot, is_held, |out| {
            let (start, mut next) = (out.len(), first);
            out.resize(start + 4 * count, 0);
            for packet in out[start..].as_chunks_mut::<4>().0 {
                *packet = short_ack(first_byte, next);
                next = following(next);
            }
        });
        self.bound_answers(slot);
    }

    /// Looked at behind each answer, of which there are as many as messages: mostly it is clear that there are not too many.
    #[inline]
    fn bound_answers(&mut self, slot: u32) {
        let connection = &self.connections[slot as usize];
        if connection.out.len() > ANSWERS_BYTES_MAX || !connection.lane.is_nowhere() {
            self.close_if_it_reads_nothing(slot);
        }
    }

    #[inline(never)]
    fn close_if_it_reads_nothing(&mut self, slot: u32) {
        let connection = &self.connections[slot as usize];
        let bytes_max = self.shared.limits.outbound_bytes_max + connection.out_largest + ANSWERS_BYTES_MAX;
        if self.waiting_bytes(slot) > bytes_max && connection.phase != Phase::Closing {
            self.forget_lane(slot);
            self.connections[slot as usize].out.clear();
            self.connections[slot as usize].out_sent = 0;
            self.forget_owed(slot);
            self.close(
                slot,
                Closing::silent(plugin_api::DisconnectKind::LimitExceeded, plugin_api::ReasonCode::QUOTA_EXCEEDED),
            );
        }
    }

    /// Sends a QoS 0 message, or drops it if its receiver does not keep up.
    pub(super) fn send_at_most_once(&mut self, slot: u32, how: How, identifiers: &[u32], parts: &MessageParts<'_>) {
        let connection = &self.connections[slot as usize];
        let waiting = self.waiting_bytes(slot);
        if waiting + parts.payload.len() > self.free_bytes && !self.has_room(waiting, parts.payload.len()) {
            return self.drop_slow(slot, how.retain, parts);
        }
        if self.wants(Callback::Deliver) {
            return self.send_if_allowed(slot, how, identifiers, parts);
        }
        let class = Class { v5: connection.is_v5(), qos: QoS::AtMostOnce, retain: how.retain };
        self.append_at_most_once(slot, class, parts, identifiers);
    }

    #[inline]
    pub(super) fn append_at_most_once(
        &mut self,
        slot: u32,
        class: Class,
        parts: &MessageParts<'_>,
        identifiers: &[u32],
    ) {
        if let Err(why) = self.append(slot, class, parts, identifiers, None, false) {
            self.tell_dropped(why, &self.meant_for(slot, class.retain, parts));
        }
    }

    /// A receiver does not keep up, or there is no memory for what it has not read.
    #[cold]
    fn drop_slow(&mut self, slot: u32, retain: bool, parts: &MessageParts<'_>) {
        self.counters().dropped_slow.add(1);
        let waiting = self.waiting_bytes(slot) + parts.payload.len();
        let is_slow = waiting > self.shared.limits.outbound_bytes_max;
        let reason = if is_slow { DropReason::Slow } else { DropReason::ServerFull };
        self.tell_dropped(reason, &self.meant_for(slot, retain, parts));
        self.note_presence(self.connections[slot as usize].session);
    }

    /// A QoS 0 message for a connection.
    fn meant_for<'a>(&self, slot: u32, retain: bool, parts: &'a MessageParts<'a>) -> Meant<'a> {
        let (session, qos) = (self.connections[slot as usize].session, QoS::AtMostOnce);
        Meant { session, parts, token: 0, packet_id: None, qos, retain }
    }

    /// Whether there is room for a message with QoS 0 behind what waits for a socket.
    #[cold]
    pub(super) fn has_room(&self, waiting_bytes: usize, payload_bytes: usize) -> bool {
        let bytes_max = self.shared.limits.outbound_bytes_max;
        // Anything may be sent to a connection that has next to nothing to send, whatever its size.
        let keeps_up = waiting_bytes <= next_to_nothing(bytes_max) || waiting_bytes + payload_bytes <= bytes_max;
        keeps_up && (waiting_bytes + payload_bytes <= FREE_BYTES || !self.is_full())
    }

    /// Sends a QoS 1 or 2 message if its turn has come, or puts it into the session's queue.
    /// `parts` are those of the message, as they are at hand.
    pub(super) fn send_or_queue(
        &mut self,
        session_slot: u32,
        delivery: Queued,
        parts: &MessageParts<'_>,
        cause: Cause,
    ) {
        let bytes = delivery.message.bytes();
        self.settle_in_flight(self.sessions[session_slot as usize].connection);
        if self.is_overfull(bytes) || self.cannot_keep(session_slot, parts) {
            self.counters().dropped_queue_full.add(1);
            return self.tell_queued_dropped(DropReason::ServerFull, session_slot, &delivery);
        }
        let session = &self.sessions[session_slot as usize];
        let at_once = session.queue.is_empty() && self.may_send(session_slot) && !self.has_to_wait(session_slot, bytes);
        let left = if at_once { self.send(session_slot, delivery, Some(parts), cause).err() } else { Some(delivery) };
        let Some(delivery) = left else {
            return self.note_presence(session_slot);
        };
        self.enqueue(session_slot, delivery);
    }

    /// Puts a message into a session's queue. What does not fit is dropped, and counted: the message, or those that have
    /// waited longest.
    pub(super) fn enqueue(&mut self, session_slot: u32, mut delivery: Queued) {
        // Nothing may overtake it.
        self.part_from_lane(self.sessions[session_slot as usize].connection);
        let is_at_most_once = delivery.qos == QoS::AtMostOnce;
        if self.is_overfull(delivery.message.bytes()) || is_at_most_once && self.is_full() {
            self.counters().dropped_queue_full.add(1);
            return self.tell_queued_dropped(DropReason::ServerFull, session_slot, &delivery);
        }
        let limits = &self.shared.limits;
        let (messages_max, bytes_max, full) = (limits.queue_messages_max, limits.queue_bytes_max, limits.queue_full);
        loop {
            let session = &mut self.sessions[session_slot as usize];
            let Err(refused) = session.enqueue(delivery, messages_max, bytes_max) else {
                self.journal_queued(session_slot);
                break;
            };
            // Nothing makes room for what is larger than the whole queue.
            let may_make_room = full == QueueFull::DropOldest && refused.message.bytes() <= bytes_max;
            let oldest = if may_make_room { session.queue.pop_front() } else { None };
            if oldest.as_ref().is_some_and(|oldest| oldest.qos != QoS::AtMostOnce) {
                self.journal_dropped(session_slot, 0, 1);
            }
            let dropped = oldest.as_ref().unwrap_or(&refused);
            tracing::debug!(topic = dropped.message.topic(), "a message was dropped: its session's queue is full");
            self.counters().dropped_queue_full.add(1);
            self.tell_queued_dropped(DropReason::QueueFull, session_slot, dropped);
            if oldest.is_none() {
                break;
            }
            delivery = refused;
        }
        self.note_presence(session_slot);
    }

    /// Whether a session has a connection that can take another QoS 1 or 2 message [MQTT-4.9.0-2].
    fn may_send(&self, session_slot: u32) -> bool {
        let session = &self.sessions[session_slot as usize];
        self.connections.get(session.connection as usize).is_some_and(|connection| {
            connection.phase == Phase::Connected
                && !session.asks_again
                && session.to_resend == 0
                && session.in_flight.len() < usize::from(connection.in_flight_max)
                && session.has_room_in_flight(&self.shared.limits)
                && self.waiting_bytes(session.connection) < self.shared.limits.outbound_bytes_max
                && (self.waiting_bytes(session.connection) <= FREE_BYTES || !self.is_full())
        })
    }

    /// Sends a message that could wait. Gives it back if there is no Packet Identifier for it now.
    fn send(
        &mut self,
        session_slot: u32,
        delivery: Queued,
        parts: Option<&MessageParts<'_>>,
        cause: Cause,
    ) -> Result<(), Queued> {
        self.settle_in_flight(self.sessions[session_slot as usize].connection);
        if delivery.qos != QoS::AtMostOnce && !self.sessions[session_slot as usize].has_packet_id() {
            return Err(delivery);
        }
        let was_queued = cause == Cause::Queued && delivery.qos != QoS::AtMostOnce;
        if !self.wants(Callback::Deliver) {
            self.send_kept(session_slot, delivery, parts, was_queued);
            return Ok(());
        }
        match self.ask_about_queued(session_slot, delivery, cause) {
            Asked::Send(delivery) => self.send_kept(session_slot, delivery, parts, was_queued),
            Asked::Changed(delivery) => {
                if was_queued {
                    self.journal_dropped(session_slot, 0, 1);
                }
                let receivers = self.templates.alone();
                self.send_kept(session_slot, delivery, None, false);
                self.templates.together(receivers);
            }
            Asked::Dropped if was_queued => self.journal_dropped(session_slot, 0, 1),
            Asked::Dropped => {}
            Asked::Later(delivery) => return Err(delivery),
        }
        Ok(())
    }

    /// Sends a message that a session keeps. There is a Packet Identifier for it. What is too large is dropped as if it had
    /// been sent.
    #[inline]
    fn send_kept(&mut self, session_slot: u32, delivery: Queued, parts: Option<&MessageParts<'_>>, was_queued: bool) {
        let session = &mut self.sessions[session_slot as usize];
        let slot = session.connection;
        let packet_id = if delivery.qos == QoS::AtMostOnce { None } else { session.take_packet_id() };
        let class = Class { v5: self.connections[slot as usize].is_v5(), qos: delivery.qos, retain: delivery.retain };
        let parts = parts.copied().unwrap_or_else(|| delivery.message.parts());
        let sent = self.append(slot, class, &parts, delivery.origin.identifiers(), packet_id, false);
        match (sent, packet_id) {
            (Err(why), _) => {
                if was_queued {
                    self.journal_dropped(session_slot, 0, 1);
                }
                self.tell_queued_dropped(why, session_slot, &delivery);
            }
            (Ok(()), Some(packet_id)) => {
                self.journal_sent_one(session_slot, packet_id, &delivery, was_queued);
                self.sessions[session_slot as usize].add_in_flight(packet_id, delivery);
            }
            (Ok(()), None) => {}
        }
    }

    /// Appends a PUBLISH packet. `Err`: it is larger than the client takes, or nothing that the client sees, and is dropped as
    /// if it had been sent [MQTT-3.1.2-24] [MQTT-3.1.2-25].
    fn append(
        &mut self,
        slot: u32,
        class: Class,
        parts: &MessageParts<'_>,
        identifiers: &[u32],
        packet_id: Option<PacketId>,
        dup: bool,
    ) -> Result<(), DropReason> {
        let now = self.now;
        self.leave_lane(slot);
        self.out(slot);
        let is_held =
            !dup && class.qos == QoS::ExactlyOnce && self.holds_exactly_once(self.connections[slot as usize].session);
        let connection = &mut self.connections[slot as usize];
        let (start, capacity) = (connection.out.len(), connection.out.capacity());
        let mut has_new_alias = false;
        // Who takes Topic Aliases wants short packets, however many others get the message.
        if identifiers.is_empty() && !dup && connection.aliases_max == 0 && self.templates.pay_off() {
            self.templates.of(class, parts, now).append_to(&mut connection.out, packet_id);
        } else {
            let own = Own { packet_id, dup, identifiers, alias: None };
            if connection.aliases_max == 0 {
                encode(&mut connection.out, class, parts, &own, now);
            } else if connection.aliases_max == MOUNTED {
                if let Err(outside) = connection.append_below(class, parts, &own, now) {
                    self.take_back(slot, start);
                    self.counters().dropped_outside_mount.add(1);
                    return Err(outside);
                }
            } else if is_held {
                // What is sent before it does not know an alias that it would set.
                encode(&mut connection.out, class, parts, &own, now);
            } else {
                has_new_alias = connection.append_with_alias(class, parts, own, now);
            }
        }
        self.account.change(capacity, connection.out.capacity());
        if connection.out.len() - start > connection.packet_bytes_max as usize {
            self.take_back(slot, start);
            self.counters().dropped_too_large.add(1);
            return Err(DropReason::TooLarge);
        }
        connection.out_largest = connection.out_largest.max(connection.out.len() - start);
        if has_new_alias {
            self.count_extra(slot);
        }
        if is_held {
            self.owe_from(slot, start);
        }
        self.counters().publishes_sent.add(1);
        Ok(())
    }

    /// Sends what a session has to send, as far as its turn has come: first again what was in flight when the last
    /// connection ended, then what waits in the queue.
    #[inline]
    pub(super) fn pump(&mut self, session_slot: u32) {
        let session = &self.sessions[session_slot as usize];
        if session.to_resend > 0 || !session.queue.is_empty() {
            self.send_what_waits(session_slot);
            self.sessions[session_slot as usize].queue.trim();
        }
        self.note_presence(session_slot);
    }

    fn send_what_waits(&mut self, session_slot: u32) {
        self.resend(session_slot);
        while !self.sessions[session_slot as usize].queue.is_empty() && self.may_send(session_slot) {
            if self.send_waiting_packets(session_slot) {
                continue;
            }
            let delivery = self.sessions[session_slot as usize].queue.pop_front().expect("it is not empty");
            // [MQTT-3.3.2-5]
            if delivery.message.is_expired(self.now) {
                if delivery.qos != QoS::AtMostOnce {
                    self.journal_dropped(session_slot, 0, 1);
                }
                self.counters().dropped_expired.add(1);
                if self.wants(Callback::Expired) {
                    self.tell_queued(Fate::Expired, session_slot, &delivery, None);
                }
                continue;
            }
            self.templates.begin(1);
            let left = if self.has_to_wait(session_slot, delivery.message.bytes()) {
                Some(delivery)
            } else {
                self.send(session_slot, delivery, None, Cause::Queued).err()
            };
            if let Some(delivery) = left {
                self.sessions[session_slot as usize].queue.push_front(delivery);
                return;
            }
        }
    }

    /// Sends again, in the original order and within the client's Receive Maximum, what was in flight when the session's
    /// last connection ended [MQTT-4.4.0-1].
    fn resend(&mut self, session_slot: u32) {
        loop {
            let session = &self.sessions[session_slot as usize];
            let Some(connection) = self.connections.get(session.connection as usize) else {
                return;
            };
            let place = session.first_to_resend();
            if session.to_resend == 0
                || session.asks_again
                || place >= usize::from(connection.in_flight_max)
                || self.waiting_bytes(session.connection) >= self.shared.limits.outbound_bytes_max
            {
                return;
            }
            let (slot, version) = (session.connection, connection.version);
            let waiting_bytes = self.waiting_bytes(slot);
            let sent = &session.in_flight[place];
            let bytes = sent.unsent().map_or(0, |delivery| delivery.message.bytes());
            if waiting_bytes > FREE_BYTES && self.is_full() || self.has_to_wait(session_slot, bytes) {
                return;
            }
            let session = &self.sessions[session_slot as usize];
            let (connection, sent) = (&self.connections[slot as usize], &session.in_flight[place]);
            let packet_id = sent.packet_id;
            let fits = match sent.unsent().cloned() {
                Some(delivery) => {
                    let class = Class { v5: connection.is_v5(), qos: delivery.qos, retain: delivery.retain };
                    let parts = delivery.message.parts();
                    // [MQTT-3.3.1-1]
                    let sent = self.append(slot, class, &parts, delivery.origin.identifiers(), Some(packet_id), true);
                    if let Err(why) = sent {
                        let (session, token) = (session_slot, delivery.message.token());
                        let (parts, packet_id, qos, retain) = (&parts, Some(packet_id), delivery.qos, delivery.retain);
                        let meant = Meant { session, parts, token, packet_id, qos, retain };
                        self.tell_dropped(why, &meant);
                    }
                    sent.is_ok()
                }
                None => {
                    self.write(slot, |out| Packet::Pubrel(Ack::success(packet_id)).encode(version, out));
                    true
                }
            };
            let session = &mut self.sessions[session_slot as usize];
            if fits {
                session.to_resend -= 1;
            } else {
                session.remove_in_flight(place);
                self.journal_acknowledged(session_slot, packet_id, 1);
            }
        }
    }
}

fn short_ack(first_byte: u8, packet_id: PacketId) -> [u8; 4] {
    let [high, low] = packet_id.get().to_be_bytes();
    [first_byte, 2, high, low]
}

/// What is sent to anybody without a closer look: next to nothing, and little enough for a worker that is full.
pub(super) fn free_bytes(outbound_bytes_max: usize) -> usize {
    next_to_nothing(outbound_bytes_max).min(FREE_BYTES)
}

fn next_to_nothing(outbound_bytes_max: usize) -> usize {
    outbound_bytes_max / NEXT_TO_NOTHING
}
