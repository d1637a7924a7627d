//! One property: its identifier, its value, and the rules for both.

use core::fmt;

use super::Properties;
use crate::ReasonCode;

/// The identifier of User Property, the one property with two values.
const USER_PROPERTY: u8 = 0x26;
const USER_PROPERTY_NAME: &str = "User Property";

/// Makes everything that is the same for all properties with one value from one table (MQTT 5.0,
/// section 2.2.2.2). The `kind` column names the module below that reads and writes the value.
macro_rules! properties {
    ($($id:literal $variant:ident($value:ty) $kind:ident $getter:ident $name:literal, $doc:literal;)*) => {
        /// A property of an MQTT 5.0 packet.
        #[non_exhaustive]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Property<'a> {
            $(#[doc = concat!($name, " (`", stringify!($id), "`): ", $doc)]
            $variant($value),)*
            /// User Property (`0x26`): a name and a value. May occur more than once, and the order
            /// is kept.
            UserProperty(&'a str, &'a str),
        }

        impl<'a> Property<'a> {
            /// The identifier that announces this property on the wire.
            pub const fn id(&self) -> u8 {
                match self {
                    $(Property::$variant(_) => $id,)*
                    Property::UserProperty(..) => USER_PROPERTY,
                }
            }

            /// The name that the specification gives the property with this identifier.
            pub const fn name_of(id: u8) -> Option<&'static str> {
                match id {
                    $($id => Some($name),)*
                    USER_PROPERTY => Some(USER_PROPERTY_NAME),
                    _ => None,
                }
            }

            /// Reads the first property of an encoded list; returns it and the rest of the list.
            ///
            /// # Errors
            /// As [`Properties::parse`]; [`PropertyError::Truncated`] also for an empty list.
            pub fn decode(list: &'a [u8]) -> Result<(Property<'a>, &'a [u8]), PropertyError> {
                // Identifiers are Variable Byte Integers, but all of them are below 128, and the
                // shortest form is the only one allowed [MQTT-1.5.5-1]: one byte is enough.
                let Some((&id, bytes)) = list.split_first() else {
                    return Err(PropertyError::Truncated { id: 0 });
                };
                let mut input = Input { id, bytes };
                let property = match id {
                    $($id => Property::$variant($kind::read(&mut input)?),)*
                    USER_PROPERTY => {
                        Property::UserProperty(string::read(&mut input)?, string::read(&mut input)?)
                    }
                    _ => return Err(PropertyError::UnknownIdentifier { id }),
                };
                Ok((property, input.bytes))
            }

            /// Appends identifier and value. After an error, part of it may have been appended.
            pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), PropertyError> {
                let id = self.id();
                out.push(id);
                match *self {
                    $(Property::$variant(value) => $kind::write(id, value, out),)*
                    Property::UserProperty(name, value) => {
                        string::write(id, name, out)?;
                        string::write(id, value, out)
                    }
                }
            }
        }

        impl<'a> Properties<'a> {
            $(#[doc = concat!($name, " (`", stringify!($id), "`), if present: ", $doc)]
            pub fn $getter(self) -> Option<$value> {
                self.iter().find_map(|property| match property {
                    Property::$variant(value) => Some(value),
                    _ => None,
                })
            })*
        }
    };
}

properties! {
    0x01 PayloadFormatIndicator(u8) flag payload_format_indicator
        "Payload Format Indicator", "1 if the payload is UTF-8 text, 0 if it is unspecified bytes.";
    0x02 MessageExpiryInterval(u32) four_bytes message_expiry_interval
        "Message Expiry Interval", "the lifetime of the message in seconds.";
    0x03 ContentType(&'a str) string content_type
        "Content Type", "what the payload is; its meaning is between the applications.";
    0x08 ResponseTopic(&'a str) string response_topic
        "Response Topic", "the Topic Name for a response to this request.";
    0x09 CorrelationData(&'a [u8]) binary correlation_data
        "Correlation Data", "tells the requester which request a response belongs to.";
    0x0B SubscriptionIdentifier(u32) non_zero_variable subscription_identifier
        "Subscription Identifier", "1 to 268,435,455; the first one if there are several.";
    0x11 SessionExpiryInterval(u32) four_bytes session_expiry_interval
        "Session Expiry Interval", "seconds that the session outlives the connection; `u32::MAX` means that it does not expire.";
    0x12 AssignedClientIdentifier(&'a str) string assigned_client_identifier
        "Assigned Client Identifier", "chosen by the server, as the client sent none.";
    0x13 ServerKeepAlive(u16) two_bytes server_keep_alive
        "Server Keep Alive", "seconds; replaces the Keep Alive that the client asked for.";
    0x15 AuthenticationMethod(&'a str) string authentication_method
        "Authentication Method", "the name of the method of enhanced authentication.";
    0x16 AuthenticationData(&'a [u8]) binary authentication_data
        "Authentication Data", "its content is defined by the Authentication Method.";
    0x17 RequestProblemInformation(u8) flag request_problem_information
        "Request Problem Information", "0 if Reason Strings and User Properties are not wanted with failures.";
    0x18 WillDelayInterval(u32) four_bytes will_delay_interval
        "Will Delay Interval", "seconds between the loss of the connection and the Will Message.";
    0x19 RequestResponseInformation(u8) flag request_response_information
        "Request Response Information", "1 if Response Information is wanted in CONNACK.";
    0x1A ResponseInformation(&'a str) string response_information
        "Response Information", "a basis for Response Topics.";
    0x1C ServerReference(&'a str) string server_reference
        "Server Reference", "another server to use.";
    0x1F ReasonString(&'a str) string reason_string
        "Reason String", "the reason for people to read; not to be parsed.";
    0x21 ReceiveMaximum(u16) non_zero_two_bytes receive_maximum
        "Receive Maximum", "how many QoS 1 and 2 messages may be in flight towards the sender of this; not 0.";
    0x22 TopicAliasMaximum(u16) two_bytes topic_alias_maximum
        "Topic Alias Maximum", "the highest Topic Alias that the sender of this accepts; 0 for none.";
    0x23 TopicAlias(u16) non_zero_two_bytes topic_alias
        "Topic Alias", "a number that stands for the Topic Name on this connection; not 0.";
    0x24 MaximumQos(u8) flag maximum_qos
        "Maximum QoS", "the highest QoS that the server supports, 0 or 1; absent for 2.";
    0x25 RetainAvailable(u8) flag retain_available
        "Retain Available", "0 if the server keeps no retained messages.";
    0x27 MaximumPacketSize(u32) non_zero_four_bytes maximum_packet_size
        "Maximum Packet Size", "the largest packet, in bytes, that the sender of this accepts; not 0.";
    0x28 WildcardSubscriptionAvailable(u8) flag wildcard_subscription_available
        "Wildcard Subscription Available", "0 if the server does not support wildcards.";
    0x29 SubscriptionIdentifierAvailable(u8) flag subscription_identifier_available
        "Subscription Identifier Available", "0 if the server does not support Subscription Identifiers.";
    0x2A SharedSubscriptionAvailable(u8) flag shared_subscription_available
        "Shared Subscription Available", "0 if the server does not support Shared Subscriptions.";
}

impl Property<'_> {
    /// The name that the specification gives this property.
    pub fn name(&self) -> &'static str {
        Property::name_of(self.id()).unwrap_or("unknown property")
    }
}

/// Why bytes are not a list of properties, or why a property cannot be sent.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PropertyError {
    /// The list ends inside a property.
    Truncated {
        /// The property's identifier; 0 if even that is missing.
        id: u8,
    },
    /// The specification has no property with this identifier.
    UnknownIdentifier {
        /// What was found in the place of an identifier.
        id: u8,
    },
    /// A string is not well-formed UTF-8 [MQTT-1.5.4-1].
    NotUtf8 {
        /// The property's identifier.
        id: u8,
    },
    /// A string has U+0000 in it [MQTT-1.5.4-2].
    NullCharacter {
        /// The property's identifier.
        id: u8,
    },
    /// A number is not in the property's range.
    OutOfRange {
        /// The property's identifier.
        id: u8,
        /// The number.
        value: u32,
    },
    /// A Variable Byte Integer is longer than four bytes, or than necessary [MQTT-1.5.5-1].
    BadVariableByteInteger {
        /// The property's identifier.
        id: u8,
    },
    /// A string or binary data has more than 65,535 bytes, or all properties together have more
    /// than 268,435,455.
    TooLong {
        /// The property's identifier.
        id: u8,
        /// How many bytes it, or the list with it, has.
        bytes: usize,
    },
}

impl PropertyError {
    /// The Reason Code with which a packet with such properties is answered.
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            PropertyError::OutOfRange { .. } => ReasonCode::PROTOCOL_ERROR,
            _ => ReasonCode::MALFORMED_PACKET,
        }
    }

    /// The identifier of the property that is wrong.
    pub const fn id(self) -> u8 {
        match self {
            PropertyError::Truncated { id }
            | PropertyError::UnknownIdentifier { id }
            | PropertyError::NotUtf8 { id }
            | PropertyError::NullCharacter { id }
            | PropertyError::OutOfRange { id, .. }
            | PropertyError::BadVariableByteInteger { id }
            | PropertyError::TooLong { id, .. } => id,
        }
    }
}

impl fmt::Display for PropertyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id();
        let name = Property::name_of(id).unwrap_or("a property");
        match self {
            PropertyError::Truncated { .. } => {
                write!(f, "{name} is cut off: the Property Length ends inside it")
            }
            PropertyError::UnknownIdentifier { .. } => {
                write!(f, "0x{id:02X} is not the identifier of a property")
            }
            PropertyError::NotUtf8 { .. } => write!(f, "{name} is not well-formed UTF-8"),
            PropertyError::NullCharacter { .. } => {
                write!(f, "{name} has U+0000 in it, which strings must not have")
            }
            PropertyError::OutOfRange { value, .. } => {
                write!(f, "{name} is {value}, expected {}", range_of(id))
            }
            PropertyError::BadVariableByteInteger { .. } => {
                write!(f, "{name} is not a Variable Byte Integer in its shortest form (at most 4 bytes)")
            }
            PropertyError::TooLong { bytes, .. } => write!(
                f,
                "{name} cannot be sent: {bytes} bytes are more than 65,535 for a value or 268,435,455 for all properties"
            ),
        }
    }
}

impl core::error::Error for PropertyError {}

/// The numbers allowed for a property whose type allows more.
const fn range_of(id: u8) -> &'static str {
    match id {
        0x0B => "1 to 268,435,455",
        0x21 | 0x23 => "1 to 65,535",
        0x27 => "1 to 4,294,967,295",
        _ => "0 or 1",
    }
}

/// What is left of the list, and the identifier for error messages.
struct Input<'a> {
    id: u8,
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], PropertyError> {
        let (taken, rest) = self.bytes.split_at_checked(bytes).ok_or(PropertyError::Truncated { id: self.id })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], PropertyError> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(PropertyError::Truncated { id: self.id })?;
        self.bytes = rest;
        Ok(*taken)
    }
}

/// A byte that is 0 or 1.
mod flag {
    use super::{Input, PropertyError};

    pub(super) fn read(input: &mut Input<'_>) -> Result<u8, PropertyError> {
        let [value] = input.take_array()?;
        check(input.id, value)
    }

    pub(super) fn write(id: u8, value: u8, out: &mut Vec<u8>) -> Result<(), PropertyError> {
        out.push(check(id, value)?);
        Ok(())
    }

    fn check(id: u8, value: u8) -> Result<u8, PropertyError> {
        match value {
            0 | 1 => Ok(value),
            _ => Err(PropertyError::OutOfRange { id, value: value.into() }),
        }
    }
}

/// Big-endian integers, with and without zero.
macro_rules! integers {
    ($($any:ident $non_zero:ident $integer:ty;)*) => {$(
        mod $any {
            use super::{Input, PropertyError};

            pub(super) fn read(input: &mut Input<'_>) -> Result<$integer, PropertyError> {
                Ok(<$integer>::from_be_bytes(input.take_array()?))
            }

            pub(super) fn write(_id: u8, value: $integer, out: &mut Vec<u8>) -> Result<(), PropertyError> {
                out.extend_from_slice(&value.to_be_bytes());
                Ok(())
            }
        }

        mod $non_zero {
            use super::{Input, PropertyError};

            pub(super) fn read(input: &mut Input<'_>) -> Result<$integer, PropertyError> {
                let value = super::$any::read(input)?;
                check(input.id, value)
            }

            pub(super) fn write(id: u8, value: $integer, out: &mut Vec<u8>) -> Result<(), PropertyError> {
                super::$any::write(id, check(id, value)?, out)
            }

            fn check(id: u8, value: $integer) -> Result<$integer, PropertyError> {
                if value == 0 { Err(PropertyError::OutOfRange { id, value: 0 }) } else { Ok(value) }
            }
        }
    )*};
}

integers! {
    two_bytes non_zero_two_bytes u16;
    four_bytes non_zero_four_bytes u32;
}

/// A Variable Byte Integer that is not 0 (section 1.5.5).
mod non_zero_variable {
    use super::{Input, PropertyError};

    const MAX: u32 = 268_435_455;

    pub(super) fn read(input: &mut Input<'_>) -> Result<u32, PropertyError> {
        let id = input.id;
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let [byte] = input.take_array()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return match (byte, value) {
                    // A zero after other bytes adds nothing [MQTT-1.5.5-1].
                    (0, _) if shift > 0 => Err(PropertyError::BadVariableByteInteger { id }),
                    (_, 0) => Err(PropertyError::OutOfRange { id, value }),
                    _ => Ok(value),
                };
            }
        }
        Err(PropertyError::BadVariableByteInteger { id })
    }

    pub(super) fn write(id: u8, value: u32, out: &mut Vec<u8>) -> Result<(), PropertyError> {
        if !(1..=MAX).contains(&value) {
            return Err(PropertyError::OutOfRange { id, value });
        }
        let mut rest = value;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
        Ok(())
    }
}

/// Up to 65,535 bytes after their length.
mod binary {
    use super::{Input, PropertyError};

    pub(super) fn read<'a>(input: &mut Input<'a>) -> Result<&'a [u8], PropertyError> {
        let length = u16::from_be_bytes(input.take_array()?);
        input.take(length.into())
    }

    pub(super) fn write(id: u8, value: &[u8], out: &mut Vec<u8>) -> Result<(), PropertyError> {
        let length = u16::try_from(value.len()).map_err(|_| PropertyError::TooLong { id, bytes: value.len() })?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(value);
        Ok(())
    }
}

/// UTF-8 [MQTT-1.5.4-1] without U+0000 [MQTT-1.5.4-2], after its length.
mod string {
    use super::{Input, PropertyError};

    pub(super) fn read<'a>(input: &mut Input<'a>) -> Result<&'a str, PropertyError> {
        let id = input.id;
        let bytes = super::binary::read(input)?;
        let text = core::str::from_utf8(bytes).map_err(|_| PropertyError::NotUtf8 { id })?;
        check(id, text)
    }

    pub(super) fn write(id: u8, value: &str, out: &mut Vec<u8>) -> Result<(), PropertyError> {
        super::binary::write(id, check(id, value)?.as_bytes(), out)
    }

    fn check(id: u8, text: &str) -> Result<&str, PropertyError> {
        if text.as_bytes().contains(&0) {
            return Err(PropertyError::NullCharacter { id });
        }
        Ok(text)
    }
}
