//! SUBACK (section 3.9) and UNSUBACK (section 3.11): one Reason Code for each Topic Filter.

use plugin_api::{Properties, ReasonCode};

use super::property_rules::Context;
use super::wire::{self, Reader};
use super::{DecodeError, PacketId, PacketType, ProtocolVersion};

/// SUBACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suback<'a> {
    /// The Packet Identifier of the SUBSCRIBE [MQTT-3.8.4-2].
    pub packet_id: PacketId,
    /// Reason String and User Properties.
    pub properties: Properties<'a>,
    /// A [`ReasonCode`] for each filter, in their order [MQTT-3.9.3-1]. For MQTT 3.x every failure is
    /// encoded as 0x80.
    pub reason_codes: &'a [u8],
}

/// UNSUBACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsuback<'a> {
    /// The Packet Identifier of the UNSUBSCRIBE [MQTT-3.10.4-5].
    pub packet_id: PacketId,
    /// Reason String and User Properties.
    pub properties: Properties<'a>,
    /// A [`ReasonCode`] for each filter, in their order [MQTT-3.11.3-1]. MQTT 3.x has none.
    pub reason_codes: &'a [u8],
}

/// The Reason Codes of SUBACK [MQTT-3.9.3-2].
pub(super) const SUBACK_REASON_CODES: &[u8] = plugin_api::reading::Packet::Suback.reason_codes();
/// The return codes of SUBACK before MQTT 5.0.
const SUBACK_RETURN_CODES: &[u8] = &[0x00, 0x01, 0x02, 0x80];
/// The Reason Codes of UNSUBACK [MQTT-3.11.3-2].
pub(super) const UNSUBACK_REASON_CODES: &[u8] = plugin_api::reading::Packet::Unsuback.reason_codes();

pub(super) fn decode_suback<'a>(version: ProtocolVersion, reader: &mut Reader<'a>) -> Result<Suback<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let (properties, allowed) = if version.is_v5() {
        (reader.properties(Context::Acknowledgement)?, SUBACK_REASON_CODES)
    } else {
        (Properties::EMPTY, SUBACK_RETURN_CODES)
    };
    let reason_codes = read_reason_codes(reader, allowed)?;
    Ok(Suback { packet_id, properties, reason_codes })
}

pub(super) fn decode_unsuback<'a>(
    version: ProtocolVersion,
    reader: &mut Reader<'a>,
) -> Result<Unsuback<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    if !version.is_v5() {
        return Ok(Unsuback { packet_id, properties: Properties::EMPTY, reason_codes: &[] });
    }
    let properties = reader.properties(Context::Acknowledgement)?;
    let reason_codes = read_reason_codes(reader, UNSUBACK_REASON_CODES)?;
    Ok(Unsuback { packet_id, properties, reason_codes })
}

/// One Reason Code at least, since what is answered has one filter at least.
fn read_reason_codes<'a>(reader: &mut Reader<'a>, allowed: &[u8]) -> Result<&'a [u8], DecodeError> {
    let packet = reader.packet();
    let codes = reader.take_rest();
    if codes.is_empty() {
        return Err(DecodeError::CutOff { packet, field: "Reason Codes" });
    }
    match codes.iter().find(|code| !allowed.contains(code)) {
        Some(&got) => Err(DecodeError::ReasonCodeNotAllowed { packet, got }),
        None => Ok(codes),
    }
}

impl Suback<'_> {
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        wire::packet(out, PacketType::Suback, |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            if version.is_v5() {
                wire::put_properties(out, self.properties);
                out.extend_from_slice(self.reason_codes);
            } else {
                const FAILURE: u8 = ReasonCode::UNSPECIFIED_ERROR.0;
                out.extend(self.reason_codes.iter().map(|&code| code.min(FAILURE)));
            }
        });
    }
}

impl Unsuback<'_> {
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        wire::packet(out, PacketType::Unsuback, |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            if version.is_v5() {
                wire::put_properties(out, self.properties);
                out.extend_from_slice(self.reason_codes);
            }
        });
    }
}
