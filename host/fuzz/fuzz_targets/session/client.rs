//! The client's end of a connection: it knows what it has sent, and so what a server may send to it.

use std::collections::HashMap;

use host::codec::{self, Connect, DecodeError, Frame, PACKET_BYTES_MAX, Packet, ProtocolVersion, Publish};
use plugin_api::{QoS, ReasonCode, topic};

/// What of a CONNECT packet binds the server.
struct Asked {
    version: ProtocolVersion,
    packet_bytes_max: usize,
    receive_maximum: usize,
    topic_alias_maximum: u16,
    authentication: bool,
}

/// What an outbound message of the server waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Awaiting {
    Puback,
    Pubrec,
    Pubcomp,
}

#[derive(Default)]
pub(crate) struct Client {
    /// What has been sent and is no whole packet yet. `None` from the first packet on that is an error.
    sending: Option<Vec<u8>>,
    received: Vec<u8>,
    connect_bytes_max: usize,
    asked: Option<Asked>,
    /// The version of the answer to a first packet that is no CONNECT.
    refused_as: Option<ProtocolVersion>,
    connected: bool,
    /// Nothing may follow.
    ended: bool,
    /// From the server, by Packet Identifier.
    in_flight: HashMap<u16, Awaiting>,
    aliases: HashMap<u16, String>,
    /// Answers that are due, by packet type and Packet Identifier, with the number of Reason Codes.
    due: HashMap<(u8, u16), Vec<usize>>,
    pings: usize,
    /// Acknowledgements that a client would send now.
    to_acknowledge: Vec<(u8, u16)>,
}

const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBACK: u8 = 9;
const UNSUBACK: u8 = 11;

impl Client {
    /// A client of a server that reads no CONNECT of more than `connect_bytes_max`.
    pub(crate) fn new(connect_bytes_max: usize) -> Self {
        Self { sending: Some(Vec::new()), connect_bytes_max, ..Self::default() }
    }

    /// The version that it speaks.
    pub(crate) fn version(&self) -> ProtocolVersion {
        self.asked.as_ref().map_or(ProtocolVersion::V5, |asked| asked.version)
    }

    /// Whether a part of a packet was received, and not the rest.
    pub(crate) fn is_inside_a_packet(&self) -> bool {
        !self.received.is_empty()
    }

    /// The acknowledgements that are due, in order, encoded.
    pub(crate) fn take_acknowledgements(&mut self) -> Vec<u8> {
        let short = |(packet, id): (u8, u16)| {
            [packet << 4 | if packet == PUBREL { 2 } else { 0 }, 2, (id >> 8) as u8, id as u8]
        };
        self.to_acknowledge.drain(..).flat_map(short).collect()
    }

    // What it sends.

    /// Bytes go to the server.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let Some(mut sending) = self.sending.take() else { return };
        sending.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match codec::frame(&sending[at..], PACKET_BYTES_MAX) {
                Ok(Frame::Incomplete { total_bytes }) => {
                    if let Some(declared) = total_bytes.filter(|_| self.asked.is_none()) {
                        self.note_declared(&sending, declared);
                    }
                    break;
                }
                Ok(Frame::Complete { header_bytes, total_bytes }) => {
                    if self.note_sent(&sending[at..at + total_bytes], header_bytes).is_err() {
                        return;
                    }
                    at += total_bytes;
                }
                Err(_) => return,
            }
        }
        sending.drain(..at);
        self.sending = Some(sending);
    }

    /// The start of a CONNECT that is refused on its declared length, in its own version if that has come.
    fn note_declared(&mut self, start: &[u8], declared: usize) {
        let max = self.connect_bytes_max;
        let header_bytes = codec::header_bytes(start).unwrap_or_default();
        if declared > max {
            let refusal = codec::connect_refusal(start, header_bytes, &DecodeError::TooLarge { declared, max });
            self.refused_as = refusal.map(|(version, _)| version);
        }
    }

    fn note_sent(&mut self, packet: &[u8], header_bytes: usize) -> Result<(), DecodeError> {
        let Some(asked) = &self.asked else {
            match codec::decode_connect(packet, header_bytes) {
                Ok(connect) => {
                    let mut asked = Asked::new(&connect);
                    if packet.len() > self.connect_bytes_max {
                        // It is refused on its declared length: nobody knows what it asks for.
                        asked.packet_bytes_max = usize::MAX;
                    }
                    self.asked = Some(asked);
                }
                Err(error) => {
                    self.refused_as = codec::connect_refusal(packet, header_bytes, &error).map(|(version, _)| version);
                    return Err(error);
                }
            }
            return Ok(());
        };
        match codec::decode(asked.version, packet, header_bytes)? {
            Packet::Publish(publish) => match (publish.packet_id, publish.qos) {
                (Some(id), QoS::AtLeastOnce) => self.expect(PUBACK, id.get(), 0),
                (Some(id), _) => self.expect(PUBREC, id.get(), 0),
                (None, _) => {}
            },
            Packet::Puback(ack) => self.forget(ack.packet_id.get(), Awaiting::Puback),
            Packet::Pubrec(ack) if ack.reason_code.is_error() => self.forget(ack.packet_id.get(), Awaiting::Pubrec),
            Packet::Pubrec(ack) => {
                self.expect(PUBREL, ack.packet_id.get(), 0);
                if let Some(awaiting @ Awaiting::Pubrec) = self.in_flight.get_mut(&ack.packet_id.get()) {
                    *awaiting = Awaiting::Pubcomp;
                }
            }
            Packet::Pubrel(ack) => self.expect(PUBCOMP, ack.packet_id.get(), 0),
            Packet::Pubcomp(ack) => self.forget(ack.packet_id.get(), Awaiting::Pubcomp),
            Packet::Subscribe(packet) => self.expect(SUBACK, packet.packet_id.get(), packet.filters.iter().count()),
            Packet::Unsubscribe(packet) => self.expect(UNSUBACK, packet.packet_id.get(), packet.filters.iter().count()),
            Packet::Pingreq => self.pings += 1,
            _ => {}
        }
        Ok(())
    }

    fn expect(&mut self, answer: u8, id: u16, codes: usize) {
        self.due.entry((answer, id)).or_default().push(codes);
    }

    fn forget(&mut self, id: u16, awaiting: Awaiting) {
        if self.in_flight.get(&id) == Some(&awaiting) {
            self.in_flight.remove(&id);
        }
    }

    // What it receives.

    /// Bytes came from the server.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        let mut received = std::mem::take(&mut self.received);
        received.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match codec::frame(&received[at..], PACKET_BYTES_MAX) {
                Ok(Frame::Incomplete { .. }) => break,
                Ok(Frame::Complete { header_bytes, total_bytes }) => {
                    self.take(&received[at..at + total_bytes], header_bytes);
                    at += total_bytes;
                }
                Err(error) => panic!("the server sent {:02X?}: {error}", &received[at..]),
            }
        }
        received.drain(..at);
        self.received = received;
    }

    fn take(&mut self, bytes: &[u8], header_bytes: usize) {
        let version = self.asked.as_ref().map(|asked| asked.version).or(self.refused_as);
        let version = version.unwrap_or_else(|| panic!("{bytes:02X?} for one that has not said its version"));
        let packet = codec::decode_from_server(version, bytes, header_bytes)
            .unwrap_or_else(|error| panic!("the server sent {bytes:02X?}: {error}"));
        assert!(!self.ended, "after the end: {packet:?}");
        if let Some(asked) = &self.asked {
            assert!(bytes.len() <= asked.packet_bytes_max, "larger than the Maximum Packet Size: {packet:?}"); // [MQTT-3.1.2-24]
        }
        let may_come_before_connack = matches!(packet, Packet::Connack(_) | Packet::Auth(_));
        assert!(self.connected || may_come_before_connack, "before CONNACK: {packet:?}");
        match packet {
            Packet::Connack(connack) => {
                assert!(!self.connected, "a second CONNACK");
                self.connected = connack.reason_code == ReasonCode::SUCCESS;
                self.ended = !self.connected;
                assert!(self.asked.is_some() || self.ended, "let in without CONNECT");
            }
            Packet::Publish(publish) => self.take_publish(&publish),
            Packet::Puback(ack) => self.take_answer(PUBACK, ack.packet_id.get(), 0),
            Packet::Pubrec(ack) => {
                self.take_answer(PUBREC, ack.packet_id.get(), 0);
                if !ack.reason_code.is_error() {
                    self.to_acknowledge.push((PUBREL, ack.packet_id.get()));
                }
            }
            Packet::Pubrel(ack) => {
                // One that was not asked for goes on with a message of an earlier connection.
                if !self.answered(PUBREL, ack.packet_id.get(), 0) {
                    let before = self.in_flight.insert(ack.packet_id.get(), Awaiting::Pubcomp);
                    assert_eq!(before, None, "PUBREL before PUBREC");
                }
                self.to_acknowledge.push((PUBCOMP, ack.packet_id.get()));
            }
            Packet::Pubcomp(ack) => self.take_answer(PUBCOMP, ack.packet_id.get(), 0),
            Packet::Suback(suback) => self.take_answer(SUBACK, suback.packet_id.get(), suback.reason_codes.len()),
            Packet::Unsuback(unsuback) if version.is_v5() => {
                self.take_answer(UNSUBACK, unsuback.packet_id.get(), unsuback.reason_codes.len());
            }
            Packet::Unsuback(unsuback) => {
                let due = self.due.get_mut(&(UNSUBACK, unsuback.packet_id.get())).and_then(Vec::pop);
                assert!(due.is_some(), "an UNSUBACK for nothing");
            }
            Packet::Pingresp => {
                self.pings = self.pings.checked_sub(1).expect("a PINGRESP for each PINGREQ");
            }
            Packet::Disconnect(_) => {
                assert!(version.is_v5(), "DISCONNECT to a 3.x client");
                self.ended = true;
            }
            Packet::Auth(_) => {
                let asked = self.asked.as_ref().is_some_and(|asked| asked.authentication);
                assert!(asked, "AUTH without an Authentication Method in CONNECT");
            }
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Pingreq => {
                panic!("only a client sends {packet:?}")
            }
        }
    }

    fn take_publish(&mut self, publish: &Publish<'_>) {
        let asked = self.asked.as_ref().expect("it is connected");
        if let Some(alias) = publish.properties.topic_alias() {
            assert!(alias <= asked.topic_alias_maximum, "Topic Alias {alias}"); // [MQTT-3.3.2-9]
            if !publish.topic.is_empty() {
                self.aliases.insert(alias, publish.topic.to_owned());
            }
            assert!(self.aliases.contains_key(&alias), "Topic Alias {alias} stands for nothing");
        }
        assert!(publish.topic.is_empty() || topic::is_valid_name(publish.topic));
        let Some(id) = publish.packet_id else { return };
        let (awaiting, answer) = match publish.qos {
            QoS::ExactlyOnce => (Awaiting::Pubrec, PUBREC),
            _ => (Awaiting::Puback, PUBACK),
        };
        let before = self.in_flight.insert(id.get(), awaiting);
        assert_eq!(before, None, "the Packet Identifier is in use: {publish:?}"); // [MQTT-2.2.1-4]
        assert!(self.in_flight.len() <= asked.receive_maximum, "past the Receive Maximum: {publish:?}"); // [MQTT-3.3.4-9]
        self.to_acknowledge.push((answer, id.get()));
    }

    fn answered(&mut self, answer: u8, id: u16, codes: usize) -> bool {
        let Some(due) = self.due.get_mut(&(answer, id)) else { return false };
        let place = due.iter().position(|due| *due == codes);
        place.map(|place| due.remove(place)).is_some()
    }

    fn take_answer(&mut self, answer: u8, id: u16, codes: usize) {
        assert!(self.answered(answer, id, codes), "packet type {answer} for {id} with {codes} codes answers nothing");
    }
}

impl Asked {
    fn new(connect: &Connect<'_>) -> Self {
        let properties = connect.properties;
        Self {
            version: connect.version,
            packet_bytes_max: properties.maximum_packet_size().map_or(usize::MAX, |bytes| bytes as usize),
            receive_maximum: properties.receive_maximum().unwrap_or(u16::MAX).into(),
            topic_alias_maximum: properties.topic_alias_maximum().unwrap_or(0),
            authentication: properties.authentication_method().is_some(),
        }
    }
}
