//! Packets that are kept as they came go on: to their receiver, or into its queue.

use plugin_api::{Callback, QoS};

use super::Core;
use super::budget::FREE_BYTES;
use super::in_flight::behind;
use super::packets::{Part, Row};

impl Core {
    /// Sends packets at the start of a part to a session, `max` at most: as many as it may be sent now. They are kept until they
    /// are acknowledged. Returns how many that is. Its connection takes them as they are, and nothing waits for it.
    pub(super) fn send_part(&mut self, session_slot: u32, part: &Part, max: usize) -> usize {
        let limits = &self.shared.limits;
        let session = &self.sessions[session_slot as usize];
        let slot = session.connection;
        let connection = &self.connections[slot as usize];
        let (messages, mut bytes_left) = session.room_in_flight(connection.in_flight_max, limits);
        let packet_bytes_max = (connection.packet_bytes_max as usize).min(FREE_BYTES);
        let mut waiting = self.waiting_bytes(slot);
        let (mut count, mut largest, mut message_bytes) = (0, 0, 0);
        for (bytes, bytes_of_message) in part.row(0..max.min(messages).min(part.len())).sizes() {
            let is_full = waiting > FREE_BYTES && self.is_full();
            if bytes > packet_bytes_max || bytes_left == 0 || waiting >= limits.outbound_bytes_max || is_full {
                break;
            }
            count += 1;
            message_bytes += bytes_of_message;
            bytes_left = bytes_left.saturating_sub(bytes_of_message);
            waiting += bytes;
            largest = largest.max(bytes);
        }
        if count == 0 {
            return 0;
        }
        let first = self.sessions[session_slot as usize].add_part(part.first(count), message_bytes);
        let is_held = part.qos() == QoS::ExactlyOnce && self.holds_exactly_once(session_slot);
        self.write_or_owe(slot, is_held, |out| part.row(0..count).append_to(out, first));
        let out_largest = &mut self.connections[slot as usize].out_largest;
        *out_largest = largest.max(*out_largest);
        self.counters().publishes_sent.add(count as u64);
        count
    }

    /// The same for packets that have not been in its queue.
    pub(super) fn send_part_now(&mut self, session_slot: u32, part: &Part, max: usize) -> usize {
        let first = behind(self.sessions[session_slot as usize].next_packet_id, 0);
        let count = self.send_part(session_slot, part, max);
        if count > 0 {
            self.journal_sent_row(session_slot, &part.row(0..count), first);
        }
        count
    }

    /// Puts packets into a session's queue. `false` if there is no room for all of them.
    pub(super) fn enqueue_part(&mut self, session_slot: u32, part: Part) -> bool {
        let (count, bytes) = (part.len(), part.message_bytes(0..part.len()));
        let may = self.may_enqueue(session_slot, count, bytes);
        if may {
            self.journal_queued_row(session_slot, &part.all());
            self.sessions[session_slot as usize].queue.push_part(part);
            self.note_presence(session_slot);
        }
        may
    }

    /// Sends packets to a session at once, whose connection takes them as they are, and which has room for them.
    #[inline]
    pub(super) fn send_row(&mut self, session_slot: u32, row: &Row<'_>) {
        let hears_of_it = self.hears_of_acknowledgements();
        let session = &mut self.sessions[session_slot as usize];
        let slot = session.connection;
        let first = if hears_of_it {
            let first = behind(session.next_packet_id, 0);
            for number in 0..row.len() {
                let packet_id = session.take_packet_id().expect("there is room for them");
                session.add_in_flight(packet_id, row.message(number, &self.account));
            }
            first
        } else {
            session.add_row(row, &self.account)
        };
        self.journal_sent_row(session_slot, row, first);
        self.write(slot, |out| row.append_to(out, first));
    }

    /// Puts packets into a session's queue. What does not fit is dealt with as any message.
    pub(super) fn enqueue_row(&mut self, session_slot: u32, row: &Row<'_>) {
        if self.may_enqueue(session_slot, row.len(), row.message_bytes()) {
            self.journal_queued_row(session_slot, row);
            self.sessions[session_slot as usize].queue.push_row(row, &self.account);
            return self.note_presence(session_slot);
        }
        for number in 0..row.len() {
            let message = row.message(number, &self.account);
            self.enqueue(session_slot, message);
        }
    }

    /// Whether there is room for some messages with QoS 1 or 2 in a session's queue.
    #[inline]
    fn may_enqueue(&mut self, session_slot: u32, messages: usize, bytes: usize) -> bool {
        // Nothing may overtake them.
        self.part_from_lane(self.sessions[session_slot as usize].connection);
        !self.is_overfull(bytes)
            && self.sessions[session_slot as usize].has_room_in_queue(messages, bytes, &self.shared.limits)
    }

    /// Sends packets at the front of a session's queue, if its connection takes them as they are, and as many as it may be sent
    /// now. `false`: the first message of the queue is to be looked at by itself, if there is one.
    pub(super) fn send_waiting_packets(&mut self, session_slot: u32) -> bool {
        let session = &self.sessions[session_slot as usize];
        let slot = session.connection;
        let Some(connection) = self.connections.get(slot as usize) else { return false };
        let Some(part) = session.queue.first_packets() else { return false };
        let takes_them =
            connection.takes_packets(part.all().kind().is_v5) && !session.asks_again && session.to_resend == 0;
        if !takes_them || self.wants(Callback::Deliver) || self.hears_of_acknowledgements() {
            return false;
        }
        let part = part.first(part.len());
        self.settle_in_flight(slot);
        self.leave_lane(slot);
        let first = behind(self.sessions[session_slot as usize].next_packet_id, 0);
        let count = self.send_part(session_slot, &part, part.len());
        self.sessions[session_slot as usize].queue.skip_packets(count);
        if count > 0 {
            self.journal_sent(session_slot, first, count);
        }
        count > 0
    }
}
