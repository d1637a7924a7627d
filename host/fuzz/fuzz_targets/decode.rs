//! Any bytes, as a stream of packets: the decoder never panics, and what it accepts means what it says.
//!
//! The first byte of an input chooses version and sender, the rest is the stream.

#![no_main]

use host::codec::{
    self, DecodeError, Frame, PACKET_BYTES_MAX, Packet, PacketType, ProtocolVersion, SubscribeFilters,
    UnsubscribeFilters, publish_packet_bytes,
};
use libfuzzer_sys::fuzz_target;
use plugin_api::{Properties, PropertiesBuf, ReasonCode, topic};

const VERSIONS: [ProtocolVersion; 3] = [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5];

fuzz_target!(|input: &[u8]| {
    let Some((&first, stream)) = input.split_first() else { return };
    let reading = Reading { version: VERSIONS[usize::from(first >> 1) % 3], from_server: first & 1 == 1 };
    let mut rest = stream;
    while let Some((header_bytes, total_bytes)) = frame(rest) {
        let (packet, behind) = rest.split_at(total_bytes);
        reading.check(packet, header_bytes);
        rest = behind;
    }
});

/// The first packet of a stream: the sizes of its header and of itself.
fn frame(stream: &[u8]) -> Option<(usize, usize)> {
    let found = codec::frame(stream, PACKET_BYTES_MAX);
    check_fragments(stream, &found);
    match found {
        Ok(Frame::Complete { header_bytes, total_bytes }) => Some((header_bytes, total_bytes)),
        Ok(Frame::Incomplete { .. }) => None,
        Err(error) => {
            check_error(&error);
            None
        }
    }
}

/// However little of a packet has come, that much is not taken for something else.
fn check_fragments(stream: &[u8], found: &Result<Frame, DecodeError>) {
    let declared = match *found {
        Ok(Frame::Complete { total_bytes, .. }) => Some(total_bytes),
        Ok(Frame::Incomplete { total_bytes }) => total_bytes,
        Err(_) => None,
    };
    for bytes in 0..stream.len().min(6) {
        match codec::frame(&stream[..bytes], PACKET_BYTES_MAX) {
            Ok(Frame::Incomplete { total_bytes: None }) => {}
            Ok(Frame::Incomplete { total_bytes }) => assert_eq!(total_bytes, declared),
            Ok(Frame::Complete { total_bytes, .. }) => assert!(Some(total_bytes) == declared && total_bytes <= bytes),
            Err(error) => assert_eq!(Err(error), *found),
        }
    }
    if let Some(total_bytes) = declared {
        let refused = codec::frame(stream, total_bytes - 1);
        assert_eq!(refused, Err(DecodeError::TooLarge { declared: total_bytes, max: total_bytes - 1 }));
        assert_eq!(codec::frame(stream, total_bytes), *found);
    }
}

fn check_error(error: &DecodeError) {
    assert!(error.reason_code().is_error());
    assert!(!error.to_string().is_empty());
}

/// Whether an answer of the server may have this Reason Code.
fn may_be_sent(answer: PacketType, reason_code: ReasonCode) -> bool {
    codec::reason_codes_from_server(answer).any(|allowed| allowed == reason_code)
}

/// How packets are read.
struct Reading {
    version: ProtocolVersion,
    from_server: bool,
}

impl Reading {
    fn decode<'a>(&self, packet: &'a [u8], header_bytes: usize) -> Result<Packet<'a>, DecodeError> {
        if self.from_server {
            codec::decode_from_server(self.version, packet, header_bytes)
        } else {
            codec::decode(self.version, packet, header_bytes)
        }
    }

    fn check(&self, bytes: &[u8], header_bytes: usize) {
        let decoded = self.decode(bytes, header_bytes);
        if !self.from_server && bytes[0] >> 4 == 3 {
            assert_eq!(codec::decode_publish(self.version, bytes, header_bytes, None).map(Packet::Publish), decoded);
        }
        if let Ok(connect) = codec::decode_connect(bytes, header_bytes) {
            assert_eq!(decoded, Ok(Packet::Connect(connect)));
        }
        match decoded {
            Ok(packet) => {
                self.check_round_trip(&packet, bytes);
                check_parts(self.version, &packet);
            }
            Err(error) => {
                check_error(&error);
                if let Some((_, reason_code)) = codec::connect_refusal(bytes, header_bytes, &error) {
                    assert!(may_be_sent(PacketType::Connack, reason_code), "CONNACK with {reason_code}");
                } else if bytes[0] >> 4 != PacketType::Connect as u8 {
                    let reason_code = error.reason_code();
                    assert!(may_be_sent(PacketType::Disconnect, reason_code), "DISCONNECT with {reason_code}");
                }
            }
        }
    }

    /// Encoding gives the same packet again, in its one canonical form.
    fn check_round_trip(&self, packet: &Packet<'_>, bytes: &[u8]) {
        let mut canonical = b"before".to_vec();
        packet.encode(self.version, &mut canonical);
        let canonical = &canonical[6..];
        let Ok(Frame::Complete { header_bytes, total_bytes }) = codec::frame(canonical, PACKET_BYTES_MAX) else {
            panic!("{packet:?} was encoded to {canonical:02X?}");
        };
        assert_eq!(total_bytes, canonical.len());
        assert!(total_bytes <= bytes.len(), "the canonical form is the shortest one");
        let again = self.decode(canonical, header_bytes);
        assert_eq!(again, Ok(*packet), "{bytes:02X?} was encoded to {canonical:02X?}");
        let mut twice = Vec::new();
        packet.encode(self.version, &mut twice);
        assert_eq!(twice, canonical);
    }
}

/// What the parts of an accepted packet promise.
fn check_parts(version: ProtocolVersion, packet: &Packet<'_>) {
    match packet {
        Packet::Connect(connect) => {
            check_properties(connect.properties);
            assert!(!connect.client_id.contains('\0'));
            if let Some(will) = &connect.will {
                assert!(topic::is_valid_name(will.topic));
                check_properties(will.properties);
            }
        }
        Packet::Publish(publish) => {
            check_properties(publish.properties);
            let by_alias = publish.topic.is_empty() && publish.properties.topic_alias().is_some();
            assert!(by_alias || topic::is_valid_name(publish.topic));
            let property_bytes = publish.properties.as_bytes().len();
            let mut encoded = Vec::new();
            packet.encode(version, &mut encoded);
            let (topic, payload) = (publish.topic.len(), publish.payload.len());
            assert_eq!(encoded.len(), publish_packet_bytes(version, publish.qos, topic, property_bytes, payload));
        }
        Packet::Subscribe(subscribe) => {
            check_properties(subscribe.properties);
            let mut payload = Vec::new();
            for one in subscribe.filters.iter() {
                SubscribeFilters::put(&mut payload, one.filter, one.options);
            }
            assert!(!payload.is_empty());
            assert_eq!(SubscribeFilters::from_trusted(&payload), subscribe.filters);
        }
        Packet::Unsubscribe(unsubscribe) => {
            check_properties(unsubscribe.properties);
            let mut payload = Vec::new();
            unsubscribe.filters.iter().for_each(|filter| UnsubscribeFilters::put(&mut payload, filter));
            assert!(!payload.is_empty());
            assert_eq!(UnsubscribeFilters::from_trusted(&payload), unsubscribe.filters);
        }
        Packet::Connack(connack) => check_properties(connack.properties),
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            check_properties(ack.properties);
        }
        Packet::Suback(suback) => check_properties(suback.properties),
        Packet::Unsuback(unsuback) => check_properties(unsuback.properties),
        Packet::Disconnect(disconnect) => check_properties(disconnect.properties),
        Packet::Auth(auth) => check_properties(auth.properties),
        Packet::Pingreq | Packet::Pingresp => {}
    }
}

/// A list is the same however it is read, and can be put together again from its parts.
fn check_properties(properties: Properties<'_>) {
    assert_eq!(Properties::parse(properties.as_bytes()), Ok(properties));
    let mut again = PropertiesBuf::new();
    for property in properties.iter() {
        assert_eq!(again.push(property), Ok(()));
    }
    assert_eq!(again.as_bytes(), properties.as_bytes());
}
