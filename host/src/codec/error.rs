//! Why bytes are not an acceptable packet.

use std::fmt;

use plugin_api::{PropertyError, ReasonCode};

use super::PacketType;

/// What the peer did wrong. Every value is the peer's fault; none is ours.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// A Malformed Packet. The text says what was found and what was expected.
    Malformed(&'static str),
    /// The packet ends inside, or before, one of its fields.
    CutOff {
        /// The packet.
        packet: PacketType,
        /// The field, in the words of the specification.
        field: &'static str,
    },
    /// The packet goes on after its last field.
    TrailingBytes {
        /// The packet.
        packet: PacketType,
        /// How many bytes too many there are.
        bytes: usize,
    },
    /// The low half of the packet's first byte is not what it has to be for this packet.
    Flags {
        /// The packet.
        packet: PacketType,
        /// The four bits as received.
        got: u8,
        /// The four bits that are reserved for this packet.
        expected: u8,
    },
    /// A string is not well-formed UTF-8 [MQTT-1.5.4-1].
    NotUtf8 {
        /// The packet.
        packet: PacketType,
        /// The field, in the words of the specification.
        field: &'static str,
    },
    /// A string has U+0000 in it [MQTT-1.5.4-2].
    NullCharacter {
        /// The packet.
        packet: PacketType,
        /// The field, in the words of the specification.
        field: &'static str,
    },
    /// The list of properties is not well-formed, or a value is not in its range.
    Property(PropertyError),
    /// A property that this packet must not have.
    PropertyNotAllowed {
        /// The packet.
        packet: PacketType,
        /// The property's name.
        property: &'static str,
    },
    /// A property that may occur once occurs again.
    DuplicateProperty {
        /// The packet.
        packet: PacketType,
        /// The property's name.
        property: &'static str,
    },
    /// A Reason Code, or a return code of MQTT 3.x, that this packet cannot have.
    ReasonCodeNotAllowed {
        /// The packet.
        packet: PacketType,
        /// The code.
        got: u8,
    },
    /// A Protocol Error. The text says what was found and what was expected.
    Protocol {
        /// What to answer.
        code: ReasonCode,
        /// What is wrong.
        what: &'static str,
    },
    /// The packet declares more bytes than are accepted.
    TooLarge {
        /// The size of the packet, fixed header included, that its Remaining Length declares.
        declared: usize,
        /// The largest size that is accepted.
        max: usize,
    },
    /// A CONNECT for another protocol: its name is neither `MQTT` nor `MQIsdp` [MQTT-3.1.2-1].
    ProtocolName,
    /// A CONNECT for a version of MQTT that is not spoken here [MQTT-3.1.2-2].
    UnsupportedVersion {
        /// The protocol level in CONNECT.
        level: u8,
    },
}

impl DecodeError {
    /// A Protocol Error without a more specific Reason Code.
    pub(super) const fn protocol(what: &'static str) -> DecodeError {
        DecodeError::Protocol { code: ReasonCode::PROTOCOL_ERROR, what }
    }

    /// The Reason Code for the DISCONNECT or CONNACK that answers such a packet.
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            DecodeError::Malformed(_)
            | DecodeError::CutOff { .. }
            | DecodeError::TrailingBytes { .. }
            | DecodeError::Flags { .. }
            | DecodeError::NotUtf8 { .. }
            | DecodeError::NullCharacter { .. }
            // Section 2.2.2.2: an identifier that is not valid for its packet type makes the packet
            // malformed, while one that is repeated is a Protocol Error.
            | DecodeError::PropertyNotAllowed { .. } => ReasonCode::MALFORMED_PACKET,
            DecodeError::DuplicateProperty { .. } | DecodeError::ReasonCodeNotAllowed { .. } => {
                ReasonCode::PROTOCOL_ERROR
            }
            // Topic Alias 0 [MQTT-3.3.2-8] has a Reason Code of its own.
            DecodeError::Property(PropertyError::OutOfRange { id: 0x23, .. }) => {
                ReasonCode::TOPIC_ALIAS_INVALID
            }
            DecodeError::Property(error) => error.reason_code(),
            DecodeError::Protocol { code, .. } => *code,
            DecodeError::TooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            DecodeError::ProtocolName | DecodeError::UnsupportedVersion { .. } => {
                ReasonCode::UNSUPPORTED_PROTOCOL_VERSION
            }
        }
    }
}

impl From<PropertyError> for DecodeError {
    fn from(error: PropertyError) -> DecodeError {
        DecodeError::Property(error)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Malformed(what) => write!(f, "Malformed Packet: {what}"),
            DecodeError::CutOff { packet, field } => {
                write!(f, "Malformed Packet: {packet} ends before the end of its {field}")
            }
            DecodeError::TrailingBytes { packet, bytes } => {
                write!(f, "Malformed Packet: {packet} has {bytes} bytes after its last field")
            }
            DecodeError::Flags { packet, got, expected } => {
                write!(f, "Malformed Packet: the flags of {packet} are {got:04b}, expected {expected:04b}")
            }
            DecodeError::NotUtf8 { packet, field } => {
                write!(f, "Malformed Packet: {field} of {packet} is not well-formed UTF-8")
            }
            DecodeError::NullCharacter { packet, field } => {
                write!(f, "Malformed Packet: {field} of {packet} has U+0000 in it, which strings must not have")
            }
            DecodeError::Property(error) => write!(f, "bad properties: {error}"),
            DecodeError::PropertyNotAllowed { packet, property } => {
                write!(f, "Malformed Packet: {packet} must not have the property {property}")
            }
            DecodeError::DuplicateProperty { packet, property } => {
                write!(f, "Protocol Error: {packet} has the property {property} twice, expected it at most once")
            }
            DecodeError::ReasonCodeNotAllowed { packet, got } => {
                write!(f, "Protocol Error: {} is not a code for {packet}", ReasonCode(*got))
            }
            DecodeError::Protocol { code, what } => write!(f, "{code}: {what}"),
            DecodeError::TooLarge { declared, max } => {
                write!(f, "Packet too large: it declares {declared} bytes, at most {max} are accepted")
            }
            DecodeError::ProtocolName => f.write_str("the protocol name in CONNECT is neither \"MQTT\" nor \"MQIsdp\""),
            DecodeError::UnsupportedVersion { level } => write!(
                f,
                "protocol level {level} is not supported; expected \"MQIsdp\" with 3, or \"MQTT\" with 4 or 5"
            ),
        }
    }
}

impl std::error::Error for DecodeError {}
