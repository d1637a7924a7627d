//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7): four packets with one shape.

use plugin_api::{Properties, ReasonCode};

use super::property_rules::Context;
use super::wire::{self, Reader};
use super::{DecodeError, PacketId, PacketType, ProtocolVersion};

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// The Packet Identifier of the PUBLISH [MQTT-2.2.1-5].
    pub packet_id: PacketId,
    /// The outcome; MQTT 3.x only knows [`ReasonCode::SUCCESS`].
    pub reason_code: ReasonCode,
    /// Reason String and User Properties.
    pub properties: Properties<'a>,
}

impl Ack<'static> {
    /// The usual acknowledgement: success, without properties.
    #[inline]
    pub const fn success(packet_id: PacketId) -> Ack<'static> {
        Ack { packet_id, reason_code: ReasonCode::SUCCESS, properties: Properties::EMPTY }
    }
}

/// The Reason Codes of PUBACK [MQTT-3.4.2-1] and PUBREC [MQTT-3.5.2-1].
pub(super) const PUBLISH_REASON_CODES: &[u8] = plugin_api::reading::Packet::Puback.reason_codes();
/// The Reason Codes of PUBREL [MQTT-3.6.2-1] and PUBCOMP [MQTT-3.7.2-1].
pub(super) const RELEASE_REASON_CODES: &[u8] = &[0x00, 0x92];

/// The Packet Identifier of an acknowledgement without Reason Code and properties: success, the same four bytes in all
/// versions. `None`: decode it.
#[inline]
pub fn short_ack(packet: &[u8]) -> Option<PacketId> {
    match *packet {
        [_, 2, high, low] => PacketId::new(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

#[inline]
pub(super) fn decode<'a>(version: ProtocolVersion, reader: &mut Reader<'a>) -> Result<Ack<'a>, DecodeError> {
    let mut ack = Ack::success(reader.packet_id()?);
    // Before 5.0 there is nothing more, and in 5.0 success without properties looks the same.
    if !version.is_v5() || reader.is_empty() {
        return Ok(ack);
    }
    ack.reason_code = reader.reason_code(match reader.packet() {
        PacketType::Pubrel | PacketType::Pubcomp => RELEASE_REASON_CODES,
        _ => PUBLISH_REASON_CODES,
    })?;
    if !reader.is_empty() {
        ack.properties = reader.properties(Context::Acknowledgement)?;
    }
    Ok(ack)
}

impl Ack<'_> {
    #[inline]
    pub(super) fn encode(&self, packet: PacketType, version: ProtocolVersion, out: &mut Vec<u8>) {
        let [high, low] = self.packet_id.get().to_be_bytes();
        if !version.is_v5() || (self.reason_code.0 == 0 && self.properties.is_empty()) {
            out.extend_from_slice(&[(packet as u8) << 4 | packet.reserved_flags(), 2, high, low]);
            return;
        }
        wire::packet(out, packet, |out| {
            out.extend_from_slice(&[high, low, self.reason_code.0]);
            if !self.properties.is_empty() {
                wire::put_properties(out, self.properties);
            }
        });
    }
}
