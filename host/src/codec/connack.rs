//! CONNACK (section 3.2): the server's answer to CONNECT.

use plugin_api::{Properties, ReasonCode};

use super::property_rules::Context;
use super::wire::{self, Reader};
use super::{DecodeError, PacketType, ProtocolVersion};

/// CONNACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connack<'a> {
    /// The server goes on with a stored Session. MQTT 3.1 cannot say so.
    pub session_present: bool,
    /// Success or the reason for the refusal. For MQTT 3.x see [`connack_return_code`].
    pub reason_code: ReasonCode,
    /// What the server supports, and what it changed.
    pub properties: Properties<'a>,
}

/// The Reason Codes of CONNACK [MQTT-3.2.2-8].
pub(super) const REASON_CODES: &[u8] = plugin_api::reading::Packet::Connack.reason_codes();

/// The return codes 0 to 5 of MQTT 3.1 and 3.1.1, as the Reason Codes that mean the same.
const RETURN_CODES: [ReasonCode; 6] = [
    ReasonCode::SUCCESS,
    ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
    ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
    ReasonCode::SERVER_UNAVAILABLE,
    ReasonCode::BAD_USER_NAME_OR_PASSWORD,
    ReasonCode::NOT_AUTHORIZED,
];

/// The return code (0 to 5) with which an MQTT 3.x client is told this Reason Code.
///
/// `None` if no return code says anything like it: then the Network Connection is closed without a
/// CONNACK. What is about the state of the server, and a failure that nobody explains, becomes 3
/// (server unavailable), on which clients try again.
pub const fn connack_return_code(code: ReasonCode) -> Option<u8> {
    Some(match code {
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => 1,
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => 2,
        ReasonCode::UNSPECIFIED_ERROR
        | ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
        | ReasonCode::SERVER_UNAVAILABLE
        | ReasonCode::SERVER_BUSY
        | ReasonCode::SERVER_SHUTTING_DOWN
        | ReasonCode::QUOTA_EXCEEDED
        | ReasonCode::USE_ANOTHER_SERVER
        | ReasonCode::SERVER_MOVED
        | ReasonCode::CONNECTION_RATE_EXCEEDED => 3,
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => 4,
        ReasonCode::NOT_AUTHORIZED | ReasonCode::BANNED | ReasonCode::BAD_AUTHENTICATION_METHOD => 5,
        _ if code.is_error() => return None, // [MQTT-3.2.2-6@3.1.1]
        _ => 0,
    })
}

pub(super) fn decode<'a>(version: ProtocolVersion, reader: &mut Reader<'a>) -> Result<Connack<'a>, DecodeError> {
    let flags = reader.byte("Connect Acknowledge Flags")?;
    // Byte 1 was reserved as a whole, and unused, in MQTT 3.1.
    let flags = if version == ProtocolVersion::V3_1 { 0 } else { flags };
    if flags > 1 {
        // [MQTT-3.2.2-1]
        return Err(DecodeError::Malformed("a reserved bit in the Connect Acknowledge Flags is set"));
    }
    let (reason_code, properties) = if version.is_v5() {
        (reader.reason_code(REASON_CODES)?, reader.properties(Context::Connack)?)
    } else {
        let got = reader.byte("Connect Return code")?;
        let code = RETURN_CODES
            .get(usize::from(got))
            .ok_or(DecodeError::ReasonCodeNotAllowed { packet: PacketType::Connack, got })?;
        (*code, Properties::EMPTY)
    };
    let session_present = flags == 1;
    if session_present && reason_code != ReasonCode::SUCCESS {
        // [MQTT-3.2.2-6]
        return Err(DecodeError::protocol("CONNACK refuses the connection, but has Session Present"));
    }
    Ok(Connack { session_present, reason_code, properties })
}

impl Connack<'_> {
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        // [MQTT-3.2.2-6]
        let session_present =
            self.session_present && self.reason_code == ReasonCode::SUCCESS && version >= ProtocolVersion::V3_1_1;
        wire::packet(out, PacketType::Connack, |out| {
            out.push(u8::from(session_present));
            if version.is_v5() {
                out.push(self.reason_code.0);
                wire::put_properties(out, self.properties);
            } else {
                // Nobody sends what has no return code; were it to happen, a refusal has to stay one.
                out.push(connack_return_code(self.reason_code).unwrap_or(3));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_codes_of_reason_codes() {
        for (return_code, reason_code) in (0..).zip(RETURN_CODES) {
            assert_eq!(connack_return_code(reason_code), Some(return_code));
        }
        for value in 0..=255 {
            match connack_return_code(ReasonCode(value)) {
                Some(return_code) => assert_eq!((1..=5).contains(&return_code), ReasonCode(value).is_error()),
                None => assert!(ReasonCode(value).is_error()),
            }
        }
        assert_eq!(connack_return_code(ReasonCode::SERVER_BUSY), Some(3));
        assert_eq!(connack_return_code(ReasonCode::BANNED), Some(5));
        assert_eq!(connack_return_code(ReasonCode::QOS_NOT_SUPPORTED), None);
    }
}
