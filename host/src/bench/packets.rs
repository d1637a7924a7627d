//! The packets of the load, and where packets that come end.
//!
//! Nothing of the broker's own codec is used: both would be wrong in the same way, and a load generator needs little.

use crate::codec::ProtocolVersion;

/// The kinds of packets, as the upper half of their first byte.
pub(super) mod kind {
    pub(in crate::bench) const CONNACK: u8 = 2;
    pub(in crate::bench) const PUBLISH: u8 = 3;
    pub(in crate::bench) const PUBACK: u8 = 4;
    pub(in crate::bench) const PUBREC: u8 = 5;
    pub(in crate::bench) const PUBREL: u8 = 6;
    pub(in crate::bench) const PUBCOMP: u8 = 7;
    pub(in crate::bench) const SUBACK: u8 = 9;
    pub(in crate::bench) const UNSUBACK: u8 = 11;
    pub(in crate::bench) const PINGRESP: u8 = 13;
    pub(in crate::bench) const DISCONNECT: u8 = 14;
}

/// What is at the start of each payload: when it was meant to be sent, by whom, and its number.
pub(super) const STAMP_BYTES: usize = 16;

/// What a stamp says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Nanoseconds since the load began.
    pub(super) at_ns: u64,
    pub(super) publisher: u32,
    pub(super) sequence: u32,
}

impl Stamp {
    pub(super) fn write(self, payload: &mut [u8]) {
        payload[..8].copy_from_slice(&self.at_ns.to_le_bytes());
        payload[8..12].copy_from_slice(&self.publisher.to_le_bytes());
        payload[12..16].copy_from_slice(&self.sequence.to_le_bytes());
    }

    /// `None` for a payload that is too short to have one.
    #[inline]
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let stamp: &[u8; STAMP_BYTES] = payload.first_chunk()?;
        let word = |at: usize| u32::from_le_bytes([stamp[at], stamp[at + 1], stamp[at + 2], stamp[at + 3]]);
        let at_ns = u64::from(word(0)) | u64::from(word(4)) << 32;
        Some(Self { at_ns, publisher: word(8), sequence: word(12) })
    }
}

/// A packet that has come in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// The first byte: kind and flags.
    pub(super) first: u8,
    /// What follows the length.
    pub(super) body: &'a [u8],
    /// How long the whole packet is.
    pub(super) bytes: usize,
}

impl Frame<'_> {
    pub(super) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The Packet Identifier of an acknowledgement; 0, which is none, where there is not even that.
    pub(super) fn packet_id(&self) -> u16 {
        self.body.first_chunk().map_or(0, |id| u16::from_be_bytes(*id))
    }

    /// The Reason Code of an acknowledgement; Success where there is none.
    pub(super) fn reason(&self) -> u8 {
        self.body.get(2).copied().unwrap_or(0)
    }
}

/// The first packet, if it is there in full. `Err` where its length is none.
#[inline]
pub(super) fn first_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let &[first, length, ref rest @ ..] = bytes else { return Ok(None) };
    if length < 0x80 {
        let length = usize::from(length);
        return Ok(rest.get(..length).map(|body| Frame { first, body, bytes: 2 + length }));
    }
    let Some((length, length_bytes)) = variable_byte_integer(&bytes[1..])? else { return Ok(None) };
    let body = bytes[1 + length_bytes..].get(..length);
    Ok(body.map(|body| Frame { first, body, bytes: 1 + length_bytes + length }))
}

/// A Variable Byte Integer and how many bytes it has; `None` if more bytes are needed.
pub(super) fn variable_byte_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((number, at + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(format!("the broker sent a malformed length: {:02x?}", &bytes[..4])) }
}

/// The payload of a PUBLISH and its Packet Identifier (0 for QoS 0); `None` if it is malformed.
#[inline]
pub(super) fn publish_payload<'a>(frame: &Frame<'a>, version: ProtocolVersion) -> Option<(u16, &'a [u8])> {
    let topic_bytes = usize::from(u16::from_be_bytes(*frame.body.first_chunk()?));
    let mut rest = frame.body.get(2 + topic_bytes..)?;
    let mut packet_id = 0;
    if frame.first & 0x06 != 0 {
        packet_id = u16::from_be_bytes(*rest.first_chunk()?);
        rest = &rest[2..];
    }
    if version.is_v5() {
        let (properties, length_bytes) = variable_byte_integer(rest).ok()??;
        rest = rest.get(length_bytes + properties..)?;
    }
    Some((packet_id, rest))
}

/// What a client says when it connects.
#[derive(Debug, Clone)]
pub(super) struct Connect<'a> {
    pub(super) version: ProtocolVersion,
    pub(super) client_id: &'a str,
    pub(super) username: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    pub(super) clean: bool,
    /// 0: whoever only listens need not send anything.
    pub(super) keep_alive_secs: u16,
}

impl Connect<'_> {
    /// The packet. A session that is to outlive its connection is kept for an hour.
    pub(super) fn packet(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        put_field(&mut body, if self.version == ProtocolVersion::V3_1 { b"MQIsdp" } else { b"MQTT" });
        let has = |there: bool, flag: u8| if there { flag } else { 0 };
        let flags = has(self.clean, 0x02) | has(self.username.is_some(), 0x80) | has(self.password.is_some(), 0x40);
        body.extend([self.version as u8, flags]);
        body.extend(self.keep_alive_secs.to_be_bytes());
        if self.version.is_v5() {
            let expiry: &[u8] = if self.clean { &[0] } else { &[5, 0x11, 0, 0, 0x0e, 0x10] };
            body.extend_from_slice(expiry);
        }
        put_field(&mut body, self.client_id.as_bytes());
        for text in [self.username, self.password].into_iter().flatten() {
            put_field(&mut body, text.as_bytes());
        }
        packet(0x10, &body)
    }
}

/// SUBSCRIBE for these filters, all with one QoS.
pub(super) fn subscribe<'a>(
    version: ProtocolVersion,
    packet_id: u16,
    filters: impl IntoIterator<Item = &'a str>,
    qos: u8,
) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version.is_v5() {
        body.push(0);
    }
    for filter in filters {
        put_field(&mut body, filter.as_bytes());
        body.push(qos);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE for these filters.
pub(super) fn unsubscribe<'a>(
    version: ProtocolVersion,
    packet_id: u16,
    filters: impl IntoIterator<Item = &'a str>,
) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version.is_v5() {
        body.push(0);
    }
    filters.into_iter().for_each(|filter| put_field(&mut body, filter.as_bytes()));
    packet(0xa2, &body)
}

/// PUBLISH with RETAIN and no payload, QoS 0: the topic's retained message is deleted.
pub(super) fn clear_retained(version: ProtocolVersion, topic: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + 3);
    put_field(&mut body, topic.as_bytes());
    if version.is_v5() {
        body.push(0);
    }
    packet(0x31, &body)
}

/// PUBLISH without Packet Identifier and stamp, which are written over [`Template::fill`].
#[derive(Debug, Clone)]
pub(super) struct Template {
    bytes: Vec<u8>,
    /// Where the Packet Identifier is; 0 for QoS 0, which has none.
    packet_id_at: usize,
    payload_at: usize,
}

impl Template {
    /// `payload_bytes` is at least [`STAMP_BYTES`].
    pub(super) fn new(version: ProtocolVersion, topic: &str, qos: u8, retain: bool, payload_bytes: usize) -> Self {
        assert!(payload_bytes >= STAMP_BYTES, "a payload has a stamp");
        let mut body = Vec::with_capacity(topic.len() + payload_bytes + 8);
        put_field(&mut body, topic.as_bytes());
        let packet_id_at = body.len();
        if qos > 0 {
            body.extend([0, 0]);
        }
        if version.is_v5() {
            body.push(0);
        }
        let payload_at = body.len();
        body.resize(payload_at + payload_bytes, b'x');
        let bytes = packet(0x30 | qos << 1 | u8::from(retain), &body);
        let before = bytes.len() - body.len();
        let packet_id_at = if qos > 0 { before + packet_id_at } else { 0 };
        Self { bytes, packet_id_at, payload_at: before + payload_at }
    }

    /// How long the packet is.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the packet.
    #[inline]
    pub(super) fn fill(&self, out: &mut Vec<u8>, packet_id: u16, stamp: Stamp) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let packet = &mut out[start..];
        if self.packet_id_at > 0 {
            packet[self.packet_id_at..self.packet_id_at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        stamp.write(&mut packet[self.payload_at..]);
    }
}

/// An acknowledgement of four bytes, which means Success in every version.
pub(super) fn ack(kind: u8, packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    // PUBREL has a reserved flag that is set.
    let flags = if kind == kind::PUBREL { 0x02 } else { 0 };
    [kind << 4 | flags, 2, high, low]
}

/// PINGREQ.
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
/// DISCONNECT, with which a client leaves as it should, in every version.
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(5 + body.len());
    packet.push(first);
    let mut length = body.len();
    loop {
        let more = if length >= 0x80 { 0x80 } else { 0 };
        packet.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn put_field(body: &mut Vec<u8>, field: &[u8]) {
    let length = u16::try_from(field.len()).expect("a plan has checked its names");
    body.extend(length.to_be_bytes());
    body.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{self, Packet};
    use ProtocolVersion::{V3_1, V3_1_1, V5};

    /// The broker's own decoder is the judge of what we send.
    fn decoded(bytes: &[u8], version: ProtocolVersion) -> Packet<'_> {
        let header_bytes = header_bytes(bytes);
        codec::decode(version, bytes, header_bytes).unwrap()
    }

    fn header_bytes(bytes: &[u8]) -> usize {
        let frame = codec::frame(bytes, usize::MAX).unwrap();
        let codec::Frame::Complete { header_bytes, total_bytes } = frame else { panic!("{frame:?}") };
        assert_eq!(total_bytes, bytes.len());
        header_bytes
    }

    #[test]
    fn publish_is_what_the_template_was_filled_with() {
        for version in [V3_1_1, V5] {
            for qos in 0..=2 {
                for payload_bytes in [STAMP_BYTES, 100, 130, 20_000] {
                    let template = Template::new(version, "a/b", qos, qos == 1, payload_bytes);
                    let stamp = Stamp { at_ns: u64::MAX - 7, publisher: 77, sequence: 1_000_000 };
                    let mut out = vec![1, 2, 3];
                    template.fill(&mut out, 513, stamp);
                    let Packet::Publish(publish) = decoded(&out[3..], version) else { panic!("a PUBLISH") };
                    assert_eq!(publish.topic, "a/b");
                    assert_eq!(
                        (publish.qos as u8, publish.retain, publish.payload.len()),
                        (qos, qos == 1, payload_bytes)
                    );
                    let frame = first_frame(&out[3..]).unwrap().unwrap();
                    assert_eq!((frame.bytes, frame.bytes), (out.len() - 3, template.len()));
                    let (packet_id, payload) = publish_payload(&frame, version).unwrap();
                    assert_eq!(packet_id, if qos > 0 { 513 } else { 0 });
                    assert_eq!(Stamp::read(payload), Some(stamp));
                }
            }
        }
    }

    #[test]
    fn connect_and_filters_are_understood() {
        for version in [V3_1, V3_1_1, V5] {
            for clean in [true, false] {
                let (username, password) = (Some("u"), Some("p"));
                let connect = Connect { version, client_id: "c", username, password, clean, keep_alive_secs: 300 };
                let bytes = connect.packet();
                let packet = codec::decode_connect(&bytes, header_bytes(&bytes)).unwrap();
                assert_eq!((packet.version, packet.client_id, packet.clean_start), (version, "c", clean));
                assert_eq!((packet.username, packet.keep_alive), (Some("u"), 300));
            }
            let bytes = subscribe(version, 9, ["a/#", "b"], 2);
            let Packet::Subscribe(packet) = decoded(&bytes, version) else { panic!("a SUBSCRIBE") };
            let filters: Vec<_> = packet.filters.iter().map(|filter| filter.filter).collect();
            assert_eq!((packet.packet_id.get(), filters), (9, vec!["a/#", "b"]));
            let bytes = unsubscribe(version, 10, ["a/#", "b"]);
            let Packet::Unsubscribe(packet) = decoded(&bytes, version) else { panic!("an UNSUBSCRIBE") };
            assert_eq!((packet.packet_id.get(), packet.filters.iter().collect::<Vec<_>>()), (10, vec!["a/#", "b"]));
        }
    }

    #[test]
    fn retained_message_is_deleted() {
        for version in [V3_1_1, V5] {
            let bytes = clear_retained(version, "a/b");
            let Packet::Publish(publish) = decoded(&bytes, version) else { panic!("a PUBLISH") };
            assert_eq!((publish.topic, publish.payload, publish.retain), ("a/b", &b""[..], true));
        }
    }

    #[test]
    fn frames_end_where_their_length_says() {
        let table: &[(&[u8], Option<usize>)] = &[
            (&[], None),
            (&[0x30], None),
            (&[0x30, 2, 0], None),
            (&[0x30, 2, 0, 0], Some(4)),
            (&[0x30, 2, 0, 0, 0x30], Some(4)),
            (&[0x30, 0x80], None),
            (&[0x30, 0x81, 0x00, 7], Some(4)),
            (&[0xd0, 0], Some(2)),
        ];
        for (bytes, expected) in table {
            assert_eq!(first_frame(bytes).unwrap().map(|frame| frame.bytes), *expected, "{bytes:?}");
        }
        assert!(first_frame(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
        assert_eq!(Stamp::read(&[0; 15]), None);
        let malformed = Frame { first: 0x30, body: &[0, 9, b'a'], bytes: 5 };
        assert_eq!(publish_payload(&malformed, V5), None);
    }

    #[test]
    fn acknowledgements_have_four_bytes() {
        assert_eq!(ack(kind::PUBACK, 0x0102), [0x40, 2, 1, 2]);
        assert_eq!(ack(kind::PUBREL, 7), [0x62, 2, 0, 7]);
    }
}
