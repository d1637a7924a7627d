//! From bytes that came in to packets, and from packets to what they ask for.

use plugin_api::{DisconnectKind, Properties, ReasonCode};

use super::connection::{Closing, Phase};
use super::kept::KeptBytes;
use super::mount::MOUNTED;
use super::{Core, NONE, acks};
use crate::clock::Millis;
use crate::codec::{self, Ack, Connack, DecodeError, Frame, Packet, ProtocolVersion};
use crate::limits::Limits;

/// Packet types, as they stand in the first byte of a packet.
pub(super) const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const DISCONNECT: u8 = 14;
pub(super) const AUTH: u8 = 15;

/// What is to be done with the bytes behind a packet.
pub(super) enum Next {
    /// They are the next packet.
    Go,
    /// They are not looked at: the connection is closing.
    Stop,
    /// They go to another worker with the connection.
    Leave,
    /// They wait: a plugin has not answered yet.
    Wait,
}

impl Core {
    /// Takes in bytes that were read from a connection's socket. All of them are consumed: the start of a packet that has
    /// not come completely is kept. After an error, or once the connection is closing, bytes are ignored.
    pub fn feed(&mut self, slot: u32, bytes: &[u8], now: Millis) {
        self.now = now;
        self.look_at_plan();
        self.mark_journal();
        self.take_in(slot, bytes);
        self.unmark_journal();
    }

    pub(super) fn take_in(&mut self, slot: u32, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let connection = &mut self.connections[slot as usize];
            match connection.phase {
                Phase::Closing => return,
                Phase::Leaving => return self.feed_leaving(slot, rest),
                Phase::AwaitingConnect | Phase::Authenticating | Phase::Connected => {}
            }
            if connection.is_held {
                let mut partial = self.take_partial(slot);
                partial.extend(rest, 2 * partial.capacity());
                return self.keep_partial(slot, partial);
            }
            if connection.partial.is_none() {
                let used = self.packets(slot, rest);
                rest = &rest[used..];
                if self.connections[slot as usize].phase == Phase::Leaving {
                    return self.feed_leaving(slot, rest);
                }
                if !rest.is_empty() {
                    self.keep_partial(slot, KeptBytes::new(rest, self.may_send_secrets(slot)));
                }
                return;
            }
            // Only what its packet lacks is added to a partial one; the packets behind it need not be copied.
            let mut partial = self.take_partial(slot);
            let packet_bytes_max = self.packet_bytes_max(slot);
            let total_bytes = match codec::frame(&partial, packet_bytes_max) {
                Ok(Frame::Incomplete { total_bytes: Some(total) }) => total,
                _ => partial.len() + 1,
            };
            let (more, behind) = rest.split_at((total_bytes - partial.len()).min(rest.len()));
            // Twice as much room as there is, so that it is seldom moved, but never more than it will need.
            partial.extend(more, total_bytes.min(2 * partial.capacity()));
            rest = behind;
            if self.packets(slot, &partial) == 0 {
                self.keep_partial(slot, partial);
            }
        }
    }

    /// Bytes for a connection that goes to another worker go with it.
    fn feed_leaving(&mut self, slot: u32, bytes: &[u8]) {
        let leaving = self.handovers.iter_mut().find(|(leaving, ..)| *leaving == slot);
        let (_, _, handover) = leaving.expect("it is on the list until its slot is free");
        handover.unread.extend_from_slice(bytes);
    }

    /// Whether a connection's packets may have passwords or Authentication Data.
    fn may_send_secrets(&self, slot: u32) -> bool {
        let connection = &self.connections[slot as usize];
        connection.phase != Phase::Connected || connection.auth().is_some()
    }

    /// Whether there were passwords or Authentication Data among the bytes that were fed since the last time: clear them.
    pub fn take_has_read_secrets(&mut self) -> bool {
        std::mem::take(&mut self.has_read_secrets)
    }

    /// Handles the whole packets at the start of `bytes`. Returns how many bytes are done with.
    #[inline]
    fn packets(&mut self, slot: u32, bytes: &[u8]) -> usize {
        if self.connections[slot as usize].aliases_max == MOUNTED {
            self.packets_of::<true>(slot, bytes)
        } else {
            self.packets_of::<false>(slot, bytes)
        }
    }

    fn packets_of<const MOUNTED: bool>(&mut self, slot: u32, bytes: &[u8]) -> usize {
        if !self.conform(slot) {
            return bytes.len();
        }
        let packet_bytes_max = self.packet_bytes_max(slot);
        let mut used = 0;
        while used < bytes.len() {
            if self.is_spent() {
                self.hold(slot);
                return used;
            }
            self.spend(1);
            let rest = &bytes[used..];
            if acks::may_be_run(rest[0]) {
                let acknowledged = self.acknowledgements_in_order(slot, rest);
                used += acknowledged;
                if acknowledged > 0 {
                    continue;
                }
            }
            if !MOUNTED && self.may_begin_train(slot, rest[0]) {
                let (in_train, next) = self.take_train(slot, rest, packet_bytes_max);
                used += in_train;
                match next {
                    Next::Go if in_train > 0 => continue,
                    Next::Go => {}
                    Next::Stop => return bytes.len(),
                    Next::Leave | Next::Wait => return used,
                }
            }
            let next = match codec::frame(rest, packet_bytes_max) {
                Ok(Frame::Incomplete { .. }) => {
                    if let Err(error) = self.check_start(slot, rest).and_then(|()| self.check_partial(rest.len())) {
                        self.refuse_packet(slot, rest, 0, &error);
                        return bytes.len();
                    }
                    return used;
                }
                Ok(Frame::Complete { header_bytes, total_bytes }) => {
                    used += total_bytes;
                    let packet = &rest[..total_bytes];
                    if MOUNTED {
                        self.packet_below(slot, packet, header_bytes)
                    } else {
                        let next = self.packet(slot, packet, header_bytes);
                        self.conclude(slot, packet, header_bytes, next)
                    }
                }
                Err(error) => {
                    // Of a CONNECT that is too large, its version may have come: it is answered in that.
                    let header_bytes = codec::header_bytes(rest).unwrap_or(0);
                    self.refuse_packet(slot, rest, header_bytes, &error);
                    Next::Stop
                }
            };
            match next {
                Next::Go => {}
                Next::Stop => return bytes.len(),
                Next::Leave | Next::Wait => return used,
            }
        }
        used
    }

    /// What is to be done behind a packet that has been handled.
    #[inline]
    pub(super) fn conclude(
        &mut self,
        slot: u32,
        packet: &[u8],
        header_bytes: usize,
        handled: Result<Next, DecodeError>,
    ) -> Next {
        let kept = match handled {
            Ok(Next::Wait) => self.keep_new_question(slot, packet, header_bytes).map(|()| Next::Wait),
            other => other,
        };
        kept.unwrap_or_else(|error| {
            self.refuse_packet(slot, packet, header_bytes, &error);
            Next::Stop
        })
    }

    /// The largest packet that is accepted now. Nobody who has not been let in gets much memory.
    fn packet_bytes_max(&self, slot: u32) -> usize {
        let connection = &self.connections[slot as usize];
        let limits = &connection.listener.limits;
        match connection.phase {
            Phase::AwaitingConnect | Phase::Authenticating => limits.connect_bytes_max.min(limits.packet_bytes_max),
            Phase::Leaving | Phase::Connected | Phase::Closing => limits.packet_bytes_max,
        }
    }

    /// Whether a packet that has not come completely may go on: before CONNECT nobody gets memory for anything else.
    fn check_start(&self, slot: u32, start: &[u8]) -> Result<(), DecodeError> {
        // Its flags are looked at with its version: 3.1 does not use them.
        if self.connections[slot as usize].phase == Phase::AwaitingConnect && start[0] >> 4 != CONNECT {
            return Err(not_connect());
        }
        Ok(())
    }

    pub(super) fn packet(&mut self, slot: u32, packet: &[u8], header_bytes: usize) -> Result<Next, DecodeError> {
        let connection = &self.connections[slot as usize];
        match connection.phase {
            Phase::Connected => {
                let packet_type = packet[0] >> 4;
                if packet_type == CONNECT {
                    // [MQTT-3.1.0-2] Whatever is in it: what is wrong with a CONNECT may have a Reason Code that
                    // DISCONNECT does not have.
                    return Err(protocol_error("a second CONNECT on one Network Connection"));
                }
                let version = connection.version;
                // [MQTT-3.1.2-22] counts packets. Before CONNACK time runs from the start, whatever comes.
                self.connections[slot as usize].heard_at = self.now;
                if packet_type == PUBLISH {
                    return self.publish_packet(slot, version, packet, header_bytes);
                }
                if let Some(packet_id) = codec::short_ack(packet) {
                    let ack = Ack::success(packet_id);
                    match packet[0] {
                        acks::PUBACK => return self.on_puback(slot, &ack),
                        acks::PUBREC => return self.on_pubrec(slot, &ack),
                        acks::PUBREL => return self.on_pubrel(slot, &ack),
                        acks::PUBCOMP => return self.on_pubcomp(slot, &ack),
                        _ => {}
                    }
                }
                let packet = codec::decode(version, packet, header_bytes)?;
                self.connected_packet(slot, packet)
            }
            Phase::AwaitingConnect => {
                if packet[0] >> 4 != CONNECT {
                    return Err(not_connect()); // [MQTT-3.1.0-1]
                }
                self.has_read_secrets = true;
                let connect = codec::decode_connect(packet, header_bytes)?;
                Ok(self.on_connect(slot, &connect))
            }
            // Whatever is in other packets: see above, for CONNACK.
            Phase::Authenticating if !matches!(packet[0] >> 4, AUTH | DISCONNECT) => Err(not_in_an_exchange()),
            Phase::Authenticating => match codec::decode(connection.version, packet, header_bytes)? {
                Packet::Auth(auth) => self.on_auth(slot, &auth),
                Packet::Disconnect(disconnect) => Ok(self.on_disconnect(slot, &disconnect)),
                _ => Err(not_in_an_exchange()),
            },
            Phase::Closing | Phase::Leaving => Ok(Next::Stop),
        }
    }

    fn connected_packet(&mut self, slot: u32, packet: Packet<'_>) -> Result<Next, DecodeError> {
        match packet {
            Packet::Puback(ack) => self.on_puback(slot, &ack),
            Packet::Pubrec(ack) => self.on_pubrec(slot, &ack),
            Packet::Pubrel(ack) => self.on_pubrel(slot, &ack),
            Packet::Pubcomp(ack) => self.on_pubcomp(slot, &ack),
            Packet::Subscribe(subscribe) => self.on_subscribe(slot, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(slot, &unsubscribe),
            Packet::Pingreq => {
                self.answer(slot, &Packet::Pingresp); // [MQTT-3.12.4-1]
                Ok(self.next(slot))
            }
            Packet::Disconnect(disconnect) => Ok(self.on_disconnect(slot, &disconnect)),
            Packet::Auth(auth) => self.on_auth(slot, &auth),
            // PUBLISH and a second CONNECT have not come as far as here.
            Packet::Publish(_)
            | Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => Err(protocol_error("a packet that only a server sends")),
        }
    }

    /// Whether the bytes behind a packet are looked at.
    pub(super) fn next(&self, slot: u32) -> Next {
        match self.connections.get(slot as usize) {
            Some(connection) if connection.phase == Phase::Closing => Next::Stop,
            Some(connection) if connection.is_waiting => Next::Wait,
            _ => Next::Go,
        }
    }

    /// Ends a connection whose peer has sent what it may not send [MQTT-4.13.1-1].
    fn refuse_packet(&mut self, slot: u32, packet: &[u8], header_bytes: usize, error: &DecodeError) {
        let connection = &self.connections[slot as usize];
        tracing::debug!(
            peer = %connection.peer.addr(),
            client_id = self.session_of(slot).map(|session| &*session.client_id),
            "closing the connection: {error}"
        );
        let reason_code = error.reason_code();
        if matches!(connection.phase, Phase::AwaitingConnect | Phase::Authenticating) {
            self.note_failure(slot);
        }
        match self.connections[slot as usize].phase {
            Phase::AwaitingConnect => {
                if let Some((version, reason_code)) = codec::connect_refusal(packet, header_bytes, error) {
                    self.refuse_connect(slot, version, reason_code);
                }
                self.close(slot, Closing::silent(DisconnectKind::ProtocolError, reason_code));
            }
            // [MQTT-3.14.0-1] No DISCONNECT before CONNACK.
            Phase::Authenticating => {
                self.refuse_connect(slot, ProtocolVersion::V5, reason_code);
                self.close(slot, Closing::silent(DisconnectKind::ProtocolError, reason_code));
            }
            Phase::Connected | Phase::Closing | Phase::Leaving => {
                self.close(slot, Closing::telling(DisconnectKind::ProtocolError, reason_code));
            }
        }
    }

    /// Answers CONNECT with an error [MQTT-3.2.2-6] [MQTT-3.2.2-7]. The caller closes the connection.
    fn refuse_connect(&mut self, slot: u32, version: ProtocolVersion, reason_code: ReasonCode) {
        debug_assert_eq!(self.connections[slot as usize].session, NONE);
        self.connections[slot as usize].version = version;
        self.say_last(slot, Properties::EMPTY, |properties| {
            Packet::Connack(Connack { session_present: false, reason_code, properties })
        });
    }

    /// Whether a Topic Name or Topic Filter is longer, or has more levels, than is allowed. Most are too short for that.
    pub(super) fn is_too_long(&self, topic: &str) -> bool {
        let limits = &self.shared.limits;
        let levels_max = limits.topic_levels_max;
        topic.len() > limits.topic_bytes_max
            || topic.len() >= levels_max && plugin_api::topic::levels(topic).count() > levels_max
    }

    /// Why a client may not publish to a Topic Name, as a will or at once. `None`: the handlers decide.
    #[inline]
    pub(super) fn topic_refusal(&self, topic: &str) -> Option<ReasonCode> {
        let limits = &self.shared.limits;
        let is_harmless = topic.len() < limits.topic_levels_max.min(limits.topic_bytes_max);
        if is_harmless && topic.as_bytes().first() != Some(&b'$') { None } else { self.unusual_topic_refusal(topic) }
    }

    fn unusual_topic_refusal(&self, topic: &str) -> Option<ReasonCode> {
        // Section 4.7.2: topics that begin with $ are the server's, so that it can say to keep clients from using them.
        // Others than these two are left to those who agree on them.
        if topic.starts_with('$') {
            match plugin_api::topic::levels(topic).next() {
                Some("$SYS") => return Some(ReasonCode::NOT_AUTHORIZED),
                Some("$share") => return Some(ReasonCode::TOPIC_NAME_INVALID), // No filter could match it.
                _ => {}
            }
        }
        self.is_too_long(topic).then_some(ReasonCode::TOPIC_NAME_INVALID)
    }

    /// The bounds of a session's client: those of the listener that it has come through, or the server's while it is away.
    pub(super) fn limits_of(&self, session_slot: u32) -> &Limits {
        let connection = self.sessions.get(session_slot as usize).map_or(NONE, |session| session.connection);
        self.connections.get(connection as usize).map_or(&self.shared.limits, |connection| &connection.listener.limits)
    }
}

/// A Protocol Error without a more specific Reason Code.
pub(super) fn protocol_error(what: &'static str) -> DecodeError {
    DecodeError::Protocol { code: ReasonCode::PROTOCOL_ERROR, what }
}

fn not_in_an_exchange() -> DecodeError {
    protocol_error("during an authentication exchange only AUTH and DISCONNECT are allowed")
}

fn not_connect() -> DecodeError {
    protocol_error("the first packet is not CONNECT")
}
