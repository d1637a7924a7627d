//! AUTH (section 3.15): a step of enhanced authentication.

use plugin_api::{Properties, ReasonCode};

use super::property_rules::Context;
use super::wire::{self, Reader};
use super::{DecodeError, PacketType, ProtocolVersion};

/// AUTH; MQTT 5.0 only.
///
/// Everything but the short form for success, which has no properties, has an Authentication Method:
/// the core compares it with the one in CONNECT [MQTT-4.12.0-5].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// Success (server only), Continue authentication, or Re-authenticate (client only).
    pub reason_code: ReasonCode,
    /// Authentication Method and Data, Reason String and User Properties.
    pub properties: Properties<'a>,
}

/// The Reason Codes of AUTH [MQTT-3.15.2-1].
pub(super) const REASON_CODES: &[u8] = &[0x00, 0x18, 0x19];

pub(super) fn decode<'a>(version: ProtocolVersion, reader: &mut Reader<'a>) -> Result<Auth<'a>, DecodeError> {
    if !version.is_v5() {
        return Err(DecodeError::Malformed("packet type 15 (AUTH) does not exist before MQTT 5.0"));
    }
    if reader.is_empty() {
        return Ok(Auth { reason_code: ReasonCode::SUCCESS, properties: Properties::EMPTY });
    }
    let reason_code = reader.reason_code(REASON_CODES)?;
    let properties = reader.properties(Context::Auth)?;
    if properties.is_empty() {
        return Err(DecodeError::protocol("AUTH without an Authentication Method"));
    }
    Ok(Auth { reason_code, properties })
}

impl Auth<'_> {
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        debug_assert!(version.is_v5(), "AUTH does not exist before MQTT 5.0");
        if !version.is_v5() {
            return;
        }
        wire::packet(out, PacketType::Auth, |out| {
            if self.reason_code.0 != 0 || !self.properties.is_empty() {
                out.push(self.reason_code.0);
                wire::put_properties(out, self.properties);
            }
        });
    }
}
