//! PUBLISH (section 3.3): an Application Message. The packet that has to be fast.

use plugin_api::{Properties, QoS, ReasonCode};

use super::property_rules::Context;
use super::wire::{self, Reader};
use super::{DecodeError, PacketId, PacketType, ProtocolVersion, Sender, frame};

/// PUBLISH.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// This may be a re-delivery of an earlier PUBLISH; never with QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// The QoS.
    pub qos: QoS,
    /// From a client: store it for future subscribers. To a client: it was stored, or that client
    /// wants the flag as it was published.
    pub retain: bool,
    /// The Topic Name; without wildcards. Empty only if the properties have a Topic Alias.
    pub topic: &'a str,
    /// Present exactly with QoS 1 and 2 [MQTT-2.2.1-2].
    pub packet_id: Option<PacketId>,
    /// The properties; empty before MQTT 5.0.
    pub properties: Properties<'a>,
    /// The payload; may be empty.
    pub payload: &'a [u8],
}

const DUP: u8 = 0b1000;
const QOS: u8 = 0b0110;
const QOS_SHIFT: u32 = 1;
const RETAIN: u8 = 0b0001;

/// [`decode`](super::decode) for a packet that is known to be a PUBLISH from a client. `known` is its Topic Name if the
/// caller has found [its bytes](topic_bytes) among those that are known to be valid.
///
/// # Errors
/// As [`decode`](super::decode); another packet is an error, too.
#[inline]
pub fn decode_publish<'a>(
    version: ProtocolVersion,
    packet: &'a [u8],
    header_bytes: usize,
    known: Option<&'a str>,
) -> Result<Publish<'a>, DecodeError> {
    let (Some(&first), Some(body)) = (packet.first(), packet.get(header_bytes..)) else {
        return Err(DecodeError::Malformed("the packet ends inside its fixed header"));
    };
    if first >> 4 != PacketType::Publish as u8 {
        return Err(DecodeError::protocol("the packet is not PUBLISH"));
    }
    frame::check_remaining_length(version, header_bytes, body.len())?;
    decode(Sender::Client, version, first & 0x0F, known, &mut Reader::new(PacketType::Publish, body))
}

/// The QoS of a PUBLISH packet with this first byte, if DUP and RETAIN are not set. `None`: it is none of these.
#[inline]
#[must_use]
pub fn publish_qos(first: u8) -> Option<QoS> {
    if first & !QOS == (PacketType::Publish as u8) << 4 { QoS::from_u8((first & QOS) >> QOS_SHIFT) } else { None }
}

/// The bytes of a PUBLISH packet's Topic Name, whatever they are; `None` if the packet ends before they do.
#[inline]
pub fn topic_bytes(packet: &[u8], header_bytes: usize) -> Option<&[u8]> {
    let (length, rest) = packet.get(header_bytes..)?.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

#[inline]
pub(super) fn decode<'a>(
    sender: Sender,
    version: ProtocolVersion,
    flags: u8,
    known: Option<&'a str>,
    reader: &mut Reader<'a>,
) -> Result<Publish<'a>, DecodeError> {
    let dup = flags & DUP != 0;
    let retain = flags & RETAIN != 0;
    // [MQTT-3.3.1-4]
    let qos =
        QoS::from_u8((flags & QOS) >> QOS_SHIFT).ok_or(DecodeError::Malformed("the QoS is 3, expected 0, 1 or 2"))?;
    if dup && qos == QoS::AtMostOnce {
        // [MQTT-3.3.1-2]
        return Err(DecodeError::Malformed("DUP is set with QoS 0, expected 0"));
    }
    // [MQTT-3.3.2-1] [MQTT-3.3.2-2]
    let topic = match known {
        Some(topic) => {
            let bytes = reader.binary("Topic Name")?;
            debug_assert_eq!(bytes, topic.as_bytes(), "another topic than that of the packet");
            topic
        }
        None => reader.topic_name("Topic Name")?,
    };
    let packet_id = match qos {
        // [MQTT-2.2.1-2]
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
    };
    let properties = match (version, sender) {
        (ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1, _) => Properties::EMPTY,
        (ProtocolVersion::V5, Sender::Client) => reader.properties(Context::PublishFromClient)?,
        (ProtocolVersion::V5, Sender::Server) => reader.properties(Context::PublishFromServer)?,
    };
    if topic.is_empty() {
        check_empty_topic(version, properties)?;
    }
    let payload = reader.take_rest();
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload })
}

/// An empty Topic Name stands for the one that its Topic Alias was set to earlier [MQTT-4.7.3-1].
fn check_empty_topic(version: ProtocolVersion, properties: Properties<'_>) -> Result<(), DecodeError> {
    if !version.is_v5() {
        return Err(DecodeError::Protocol {
            code: ReasonCode::TOPIC_NAME_INVALID,
            what: "the Topic Name is empty, expected 1 character at least",
        });
    }
    if properties.topic_alias().is_none() {
        return Err(DecodeError::protocol("the Topic Name is empty, and there is no Topic Alias"));
    }
    Ok(())
}

/// What PUBLISH packets of one client have in common that differ in nothing but Packet Identifier and payload: the first
/// byte, without DUP and RETAIN, and the Topic Name. They have no properties.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alike<'a> {
    qos: QoS,
    first: u8,
    has_property_length: bool,
    /// The Topic Name behind its length.
    topic: &'a [u8],
}

/// One of these packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OneAlike<'a> {
    /// All of it. Its Remaining Length is in its shortest form.
    pub packet: &'a [u8],
    /// The Packet Identifier, and where it stands in `packet`.
    pub packet_id: Option<PacketId>,
    /// See there; unused for QoS 0.
    pub packet_id_at: usize,
    /// The payload; may be empty.
    pub payload: &'a [u8],
}

impl<'a> Alike<'a> {
    /// What those have in common that are like the one at the start of `bytes`. `None`: it is no such packet. Whether the rest
    /// of it is there and valid is for [`Alike::next`] to say, and whether its Topic Name is valid for the caller.
    #[inline]
    #[must_use]
    pub fn of(version: ProtocolVersion, bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let qos = publish_qos(first)?;
        let length_at = frame::header_bytes(bytes)?;
        let topic = topic_bytes(bytes, length_at)?;
        let topic = &bytes[length_at..length_at + 2 + topic.len()];
        Some(Self { qos, first, has_property_length: version.is_v5(), topic })
    }

    /// Their QoS.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// Whether they have a list of properties, which is empty.
    #[must_use]
    pub fn is_v5(&self) -> bool {
        self.has_property_length
    }

    /// The bytes of their Topic Name, whatever they are.
    #[must_use]
    pub fn topic_bytes(&self) -> &'a [u8] {
        &self.topic[2..]
    }

    /// The packet that `bytes` start with, if it is one of these, whole, and in nothing out of the ordinary.
    #[inline]
    #[must_use]
    pub fn next<'b>(&self, bytes: &'b [u8], packet_bytes_max: usize) -> Option<OneAlike<'b>> {
        if bytes.first() != Some(&self.first) {
            return None;
        }
        let Ok(frame::Frame::Complete { header_bytes, total_bytes }) = frame::frame(bytes, packet_bytes_max) else {
            return None;
        };
        let (packet, packet_id_at) = (&bytes[..total_bytes], header_bytes + self.topic.len());
        let (head, rest) = packet.split_at_checked(packet_id_at)?;
        let is_shortest = header_bytes == 2 || head[header_bytes - 1] != 0;
        if !is_shortest || head[header_bytes..] != *self.topic {
            return None;
        }
        let (packet_id, rest) = match self.qos {
            QoS::AtMostOnce => (None, rest),
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                let (packet_id, rest) = rest.split_first_chunk()?;
                (Some(PacketId::new(u16::from_be_bytes(*packet_id))?), rest)
            }
        };
        let payload = if self.has_property_length { rest.strip_prefix(&[0])? } else { rest };
        Some(OneAlike { packet, packet_id, packet_id_at, payload })
    }
}

/// The part of a PUBLISH that may differ between two subscribers of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublishHead {
    /// A re-delivery. Not sent with QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// The QoS.
    pub qos: QoS,
    /// The RETAIN flag.
    pub retain: bool,
    /// The Packet Identifier; not sent with QoS 0 [MQTT-2.2.1-2]. With QoS 1 and 2, `None` leaves two
    /// zero bytes in its place, for [`patch_packet_id`] to fill in before the packet is sent.
    pub packet_id: Option<PacketId>,
}

/// Appends a PUBLISH. Returns where its Packet Identifier is (or, with QoS 0, would be), counted
/// from the first byte of the packet.
///
/// `property_parts` are encoded properties, sent one after the other; they are left out before MQTT
/// 5.0. Nothing is checked: the parts come from a message that is known to be valid, and the whole
/// packet ([`publish_packet_bytes`]) has at most [`PACKET_BYTES_MAX`](super::PACKET_BYTES_MAX) bytes.
#[inline]
pub fn encode_publish(
    version: ProtocolVersion,
    out: &mut Vec<u8>,
    head: PublishHead,
    topic: &str,
    property_parts: &[&[u8]],
    payload: &[u8],
) -> usize {
    let has_packet_id = head.qos != QoS::AtMostOnce;
    let property_bytes = property_parts.iter().map(|part| part.len()).sum();
    let remaining_length = remaining_length(version, head.qos, topic.len(), property_bytes, payload.len());
    // One reservation for the whole packet: what follows does not grow the buffer again.
    out.reserve(1 + 4 + remaining_length);
    let packet_start = out.len();
    let first = first_byte(head);
    if remaining_length < 0x80 {
        // Most packets: their fixed header is one write.
        out.extend_from_slice(&[first, remaining_length as u8]);
    } else {
        out.push(first);
        wire::put_variable_byte_integer(out, remaining_length);
    }
    wire::put_string(out, topic);
    let packet_id_offset = out.len() - packet_start;
    if has_packet_id {
        let packet_id = head.packet_id.map_or(0, PacketId::get);
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version.is_v5() {
        wire::put_variable_byte_integer(out, property_bytes);
        for part in property_parts {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(payload);
    packet_id_offset
}

/// Appends a PUBLISH with QoS 0 and without properties. Topic Name and payload stand one after the other, as a
/// [`Message`](crate::message::Message) keeps them: before MQTT 5.0 they are one copy.
#[inline]
pub fn encode_plain_publish(
    version: ProtocolVersion,
    out: &mut Vec<u8>,
    retain: bool,
    topic_and_payload: &[u8],
    topic_bytes: usize,
) {
    let head = PublishHead { dup: false, qos: QoS::AtMostOnce, retain, packet_id: None };
    let remaining_length = 2 + usize::from(version.is_v5()) + topic_and_payload.len();
    out.reserve(1 + 4 + remaining_length);
    out.push(first_byte(head));
    wire::put_variable_byte_integer(out, remaining_length);
    // A Topic Name has at most 65,535 bytes.
    out.extend_from_slice(&(topic_bytes as u16).to_be_bytes());
    if version.is_v5() {
        out.extend_from_slice(&topic_and_payload[..topic_bytes]);
        out.push(0); // Property Length.
        out.extend_from_slice(&topic_and_payload[topic_bytes..]);
    } else {
        out.extend_from_slice(topic_and_payload);
    }
}

/// Appends a PUBLISH that is `packet` but for its head. Its QoS is that of `packet`, whose Packet Identifier is at
/// `packet_id_offset`; DUP is not set.
#[inline]
pub fn copy_publish(out: &mut Vec<u8>, packet: &[u8], head: PublishHead, packet_id_offset: usize) {
    let start = out.len();
    out.extend_from_slice(packet);
    let copy = &mut out[start..];
    copy[0] = first_byte(head);
    if let Some(packet_id) = head.packet_id {
        patch_packet_id(copy, packet_id_offset, packet_id);
    }
}

#[inline]
fn first_byte(head: PublishHead) -> u8 {
    let dup = if head.dup && head.qos != QoS::AtMostOnce { DUP } else { 0 };
    let retain = if head.retain { RETAIN } else { 0 };
    (PacketType::Publish as u8) << 4 | dup | (head.qos as u8) << QOS_SHIFT | retain
}

/// The size, in bytes and with its fixed header, of the PUBLISH that [`encode_publish`] makes of a
/// Topic Name, properties (all parts together; not counted before MQTT 5.0) and a payload with these
/// numbers of bytes.
#[inline]
pub const fn publish_packet_bytes(
    version: ProtocolVersion,
    qos: QoS,
    topic_bytes: usize,
    property_bytes: usize,
    payload_bytes: usize,
) -> usize {
    let remaining_length = remaining_length(version, qos, topic_bytes, property_bytes, payload_bytes);
    1 + wire::variable_byte_integer_bytes(remaining_length) + remaining_length
}

/// The size, in bytes, of the fixed header of a packet that has so many bytes, if its Remaining Length is in its shortest form.
#[inline]
pub const fn fixed_header_bytes(packet_bytes: usize) -> usize {
    match packet_bytes {
        0..=0x81 => 2,
        0x82..=0x4002 => 3,
        0x4003..=0x20_0003 => 4,
        _ => 5,
    }
}

/// Writes the Packet Identifier into an encoded PUBLISH with QoS 1 or 2. `packet_id_offset` is what
/// [`encode_publish`] returned, counted from the start of `packet`.
///
/// # Panics
/// If the packet ends before the Packet Identifier does: the offset is of another packet.
#[inline]
pub fn patch_packet_id(packet: &mut [u8], packet_id_offset: usize, packet_id: PacketId) {
    packet[packet_id_offset..packet_id_offset + 2].copy_from_slice(&packet_id.get().to_be_bytes());
}

#[inline]
const fn remaining_length(
    version: ProtocolVersion,
    qos: QoS,
    topic_bytes: usize,
    property_bytes: usize,
    payload_bytes: usize,
) -> usize {
    plugin_api::reading::publish_remaining_length(version.is_v5(), qos, topic_bytes, property_bytes, payload_bytes)
}

impl Publish<'_> {
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let &Publish { dup, qos, retain, packet_id, .. } = self;
        let head = PublishHead { dup, qos, retain, packet_id };
        encode_publish(version, out, head, self.topic, &[self.properties.as_bytes()], self.payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payloads around those with which a fixed header becomes longer, whatever else is in the packet.
    const FIXED_HEADERS: std::ops::Range<usize> = 16_360..16_390;

    #[test]
    fn size_and_place_of_the_packet_identifier_are_as_announced() {
        for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                for payload_bytes in
                    [0, 1, 100, 120, 127, 128, 16_300, 16_384, 2_097_152].into_iter().chain(FIXED_HEADERS)
                {
                    let payload = vec![b'x'; payload_bytes];
                    let parts: &[&[u8]] = &[b"\x01\x01", b"", b"\x02\x00\x00\x00\x09"];
                    let head = PublishHead { dup: true, qos, retain: true, packet_id: None };
                    // The offset is relative to the packet, whatever is in front of it.
                    let mut out = b"before".to_vec();
                    let offset = encode_publish(version, &mut out, head, "a/b", parts, &payload);
                    let whole = out[6..].to_vec();
                    let packet = &mut out[6..];
                    assert_eq!(packet.len(), publish_packet_bytes(version, qos, 3, 7, payload_bytes));
                    let packet_id = PacketId::new(0x1234);
                    if let Some(packet_id) = packet_id.filter(|_| qos != QoS::AtMostOnce) {
                        patch_packet_id(packet, offset, packet_id);
                    }
                    let mut copied = b"before".to_vec();
                    let head = PublishHead { packet_id: packet_id.filter(|_| qos != QoS::AtMostOnce), ..head };
                    copy_publish(&mut copied, &whole, head, offset);
                    assert_eq!(copied[6..], *packet);
                    let Ok(frame::Frame::Complete { header_bytes, total_bytes }) =
                        frame::frame(packet, super::super::PACKET_BYTES_MAX)
                    else {
                        panic!("not a whole packet");
                    };
                    assert_eq!(total_bytes, packet.len());
                    assert_eq!(fixed_header_bytes(packet.len()), header_bytes);
                    let publish = decode_publish(version, packet, header_bytes, None).unwrap();
                    assert_eq!(topic_bytes(packet, header_bytes), Some(&b"a/b"[..]));
                    assert_eq!(decode_publish(version, packet, header_bytes, Some("a/b")), Ok(publish));
                    assert_eq!(publish.topic, "a/b");
                    assert_eq!(publish.packet_id, packet_id.filter(|_| qos != QoS::AtMostOnce));
                    assert_eq!(publish.dup, qos != QoS::AtMostOnce);
                    assert_eq!(publish.payload, payload);
                    let expiry = publish.properties.message_expiry_interval();
                    assert_eq!(expiry, version.is_v5().then_some(9));
                }
            }
        }
    }
}
