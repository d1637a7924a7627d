//! What a plugin may put into a packet.

use super::packets::{publish_remaining_length, variable_byte_integer_bytes};
use crate::{Properties, PropertiesBuf, Property, PropertyError, QoS, ReasonCode, topic};

/// Where properties from a plugin go. The host's own (Receive Maximum, Topic Alias, …) are not theirs to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// CONNACK that lets a client in.
    Accept,
    /// CONNACK that does not, or DISCONNECT.
    Farewell,
    /// PUBACK or PUBREC with an error.
    Acknowledgement,
    /// PUBLISH.
    Message,
}

impl Place {
    fn allows(self, property: &Property<'_>) -> bool {
        match property {
            Property::UserProperty(..) => true,
            Property::ReasonString(_) => self != Self::Message,
            Property::ResponseInformation(_) => self == Self::Accept,
            Property::ServerReference(_) => self == Self::Farewell,
            Property::PayloadFormatIndicator(_)
            | Property::MessageExpiryInterval(_)
            | Property::ContentType(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_) => self == Self::Message,
            _ => false,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Accept => "CONNACK",
            Self::Farewell => "CONNACK with an error or DISCONNECT",
            Self::Acknowledgement => "PUBACK or PUBREC",
            Self::Message => "PUBLISH",
        }
    }
}

/// Checks properties from a plugin: well-formed, allowed where they go, and none twice that may stand once.
///
/// # Errors
/// What is wrong, in a half sentence.
pub fn properties(place: Place, bytes: &[u8]) -> Result<Properties<'_>, String> {
    let list = Properties::parse(bytes).map_err(|error: PropertyError| error.to_string())?;
    let mut seen = 0_u64;
    for property in list.iter() {
        if !place.allows(&property) {
            return Err(format!("{} is not a plugin's to set in {}", property.name(), place.name()));
        }
        let bit = 1 << property.id(); // Identifiers are below 64.
        if seen & bit != 0 && !matches!(property, Property::UserProperty(..)) {
            return Err(format!("{} stands twice in {}", property.name(), place.name()));
        }
        seen |= bit;
        if let Property::ResponseTopic(name) = property {
            // [MQTT-3.3.2-14]
            if !topic::is_valid_name(name) {
                return Err(format!("the Response Topic {name:?} is not a Topic Name"));
            }
        }
    }
    Ok(list)
}

/// Two plugins' properties of CONNACK: the later one's take the place of the earlier one's, User Properties add up.
pub(super) fn merge(earlier: &PropertiesBuf, later: &PropertiesBuf) -> PropertiesBuf {
    let replaced = |property: &Property<'_>| {
        !matches!(property, Property::UserProperty(..))
            && later.as_properties().iter().any(|other| other.id() == property.id())
    };
    let kept = earlier.as_properties().iter().filter(|property| !replaced(property));
    let later = later.as_properties();
    kept.chain(later.iter()).fold(PropertiesBuf::new(), PropertiesBuf::with)
}

/// Checks the Reason Code of a refusal.
///
/// # Errors
/// What is wrong, in a half sentence.
pub(super) fn refusal(number: u64) -> Result<ReasonCode, String> {
    match u8::try_from(number).map(ReasonCode) {
        Ok(code) if code.is_error() => Ok(code),
        _ => Err(format!("a refusal has a reason code from 0x80 to 0xff, not {number:#04x}")),
    }
}

/// Checks the Reason Code of a disconnection.
///
/// # Errors
/// What is wrong, in a half sentence.
pub fn disconnection(number: u64) -> Result<ReasonCode, String> {
    match u8::try_from(number).map(ReasonCode) {
        Ok(code) if code.is_error() || code == ReasonCode::NORMAL_DISCONNECTION => Ok(code),
        _ => Err(format!("a disconnection has reason code 0x00 or one from 0x80 to 0xff, not {number:#04x}")),
    }
}

/// Checks the size of a message: that of the smallest PUBLISH packet in which a client could have sent it.
///
/// # Errors
/// What is wrong, in a half sentence.
pub(super) fn message_size(
    topic: &[u8],
    payload: &[u8],
    properties: &[u8],
    qos: QoS,
    packet_bytes_max: usize,
) -> Result<(), String> {
    let is_v5 = !properties.is_empty();
    let rest = publish_remaining_length(is_v5, qos, topic.len(), properties.len(), payload.len());
    let bytes = 1 + variable_byte_integer_bytes(rest) + rest;
    if bytes <= packet_bytes_max {
        return Ok(());
    }
    Err(format!(
        "its message makes a packet of {bytes} bytes, and the server takes {packet_bytes_max} (packet_bytes_max)"
    ))
}

/// Checks a Topic Name.
///
/// # Errors
/// What is wrong, in a half sentence.
pub(super) fn topic_name(bytes: &[u8]) -> Result<&str, String> {
    let name = std::str::from_utf8(bytes).map_err(|error| format!("the topic is not UTF-8: {error}"))?;
    if topic::is_valid_name(name) {
        Ok(name)
    } else {
        let shown: String = name.chars().take(100).collect();
        Err(format!("{shown:?} ({} bytes) is not a Topic Name: 1 to 65,535 bytes without +, # and U+0000", name.len()))
    }
}
