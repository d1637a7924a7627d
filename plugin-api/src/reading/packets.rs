//! What packets may have that a server sends: the codec has its tables from here.

use std::fmt;

use crate::{QoS, ReasonCode};

/// The packets that tell a client of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// Answer to CONNECT.
    Connack,
    /// Answer to PUBLISH with QoS 1; PUBREC has the same Reason Codes.
    Puback,
    /// Answer to SUBSCRIBE.
    Suback,
    /// Answer to UNSUBSCRIBE.
    Unsuback,
    /// The end of the connection.
    Disconnect,
}

impl Packet {
    /// Its Reason Codes, whoever sends it.
    #[must_use]
    pub const fn reason_codes(self) -> &'static [u8] {
        match self {
            Self::Connack => CONNACK_REASON_CODES,
            Self::Puback => PUBLISH_REASON_CODES,
            Self::Suback => SUBACK_REASON_CODES,
            Self::Unsuback => UNSUBACK_REASON_CODES,
            Self::Disconnect => DISCONNECT_REASON_CODES,
        }
    }

    /// Whether a server may put a Reason Code into it.
    ///
    /// [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.9.3-2] [MQTT-3.11.3-2] [MQTT-3.14.2-1]
    #[must_use]
    pub fn may_have(self, code: ReasonCode) -> bool {
        let is_clients = self == Self::Disconnect && code == ReasonCode::DISCONNECT_WITH_WILL;
        !is_clients && self.reason_codes().contains(&code.0)
    }

    /// What is sent in the place of a Reason Code that it cannot have: 0x80, which all of them have room for.
    pub const INSTEAD: ReasonCode = ReasonCode::UNSPECIFIED_ERROR;

    /// What there is to say of a plugin that has answered a Reason Code that it cannot have.
    #[must_use]
    pub fn misfit(self, answered: ReasonCode) -> String {
        let allowed = self.reason_codes().iter().map(|code| ReasonCode(*code)).filter(|code| code.is_error());
        let allowed: Vec<String> = allowed.map(|code| format!("{:#04x}", code.0)).collect();
        let (instead, allowed) = (Self::INSTEAD, allowed.join(" "));
        format!(
            "{self} cannot have the reason code {answered} that a plugin gave: {instead} is sent. Refusals there are {allowed}"
        )
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connack => "CONNACK",
            Self::Puback => "PUBACK",
            Self::Suback => "SUBACK",
            Self::Unsuback => "UNSUBACK",
            Self::Disconnect => "DISCONNECT",
        })
    }
}

/// The Reason Codes of CONNACK [MQTT-3.2.2-8].
const CONNACK_REASON_CODES: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B,
    0x9C, 0x9D, 0x9F,
];
/// The Reason Codes of PUBACK [MQTT-3.4.2-1] and PUBREC [MQTT-3.5.2-1].
const PUBLISH_REASON_CODES: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// The Reason Codes of SUBACK [MQTT-3.9.3-2].
const SUBACK_REASON_CODES: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
/// The Reason Codes of UNSUBACK [MQTT-3.11.3-2].
const UNSUBACK_REASON_CODES: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
/// The Reason Codes of DISCONNECT, of both ends [MQTT-3.14.2-1]. 0x8C is from section 2.4.
const DISCONNECT_REASON_CODES: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
    0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

/// How many bytes the shortest form of a Variable Byte Integer has.
#[inline]
#[must_use]
pub const fn variable_byte_integer_bytes(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// The Remaining Length of a PUBLISH with a Topic Name, properties (`is_v5`; not counted before MQTT 5.0) and a payload with
/// these numbers of bytes.
#[inline]
#[must_use]
pub const fn publish_remaining_length(
    is_v5: bool,
    qos: QoS,
    topic_bytes: usize,
    property_bytes: usize,
    payload_bytes: usize,
) -> usize {
    let packet_id_bytes = if matches!(qos, QoS::AtMostOnce) { 0 } else { 2 };
    let properties_with_length_bytes =
        if is_v5 { variable_byte_integer_bytes(property_bytes) + property_bytes } else { 0 };
    2 + topic_bytes + packet_id_bytes + properties_with_length_bytes + payload_bytes
}
