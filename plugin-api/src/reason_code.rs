//! Reason Codes: how a packet says what became of an operation.

use core::fmt;

/// A Reason Code of MQTT 5.0 (section 2.4).
///
/// Codes below `0x80` report success, all others failure. Any byte can be held, since newer peers
/// may send codes that this list does not know; whether a code may stand in a given packet is
/// checked where that packet is decoded.
///
/// MQTT 3.x has only a handful of return codes. They are derived from these when a packet for such
/// a client is encoded.
///
/// ```
/// use plugin_api::ReasonCode;
/// assert_eq!(ReasonCode::NOT_AUTHORIZED.to_string(), "0x87 (Not authorized)");
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReasonCode(pub u8);

macro_rules! reason_codes {
    ($($constant:ident = $value:literal $name:literal, $doc:literal;)*) => {
        impl ReasonCode {
            $(#[doc = concat!("`", stringify!($value), "` ", $name, ": ", $doc)]
            pub const $constant: ReasonCode = ReasonCode($value);)*

            /// The name that the specification gives this code; `None` if it does not define it.
            ///
            /// `0x00` has three names, one for each use; this is `Success` for all of them.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

reason_codes! {
    SUCCESS = 0x00 "Success", "the operation was carried out.";
    GRANTED_QOS_1 = 0x01 "Granted QoS 1", "the subscription is accepted with at most QoS 1.";
    GRANTED_QOS_2 = 0x02 "Granted QoS 2", "the subscription is accepted with at most QoS 2.";
    DISCONNECT_WITH_WILL = 0x04 "Disconnect with Will Message", "the client leaves and wants its Will Message published.";
    NO_MATCHING_SUBSCRIBERS = 0x10 "No matching subscribers", "the message is accepted, but nobody subscribed to it.";
    NO_SUBSCRIPTION_EXISTED = 0x11 "No subscription existed", "there was nothing to unsubscribe from.";
    CONTINUE_AUTHENTICATION = 0x18 "Continue authentication", "the exchange goes on with another step.";
    RE_AUTHENTICATE = 0x19 "Re-authenticate", "the client starts a new exchange on a live connection.";
    UNSPECIFIED_ERROR = 0x80 "Unspecified error", "refused, without saying why.";
    MALFORMED_PACKET = 0x81 "Malformed Packet", "the packet cannot be parsed.";
    PROTOCOL_ERROR = 0x82 "Protocol Error", "the packet can be parsed, but must not be sent like this or now.";
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83 "Implementation specific error", "valid, but not accepted by this receiver.";
    UNSUPPORTED_PROTOCOL_VERSION = 0x84 "Unsupported Protocol Version", "the server does not speak the requested version.";
    CLIENT_IDENTIFIER_NOT_VALID = 0x85 "Client Identifier not valid", "well-formed, but not allowed by the server.";
    BAD_USER_NAME_OR_PASSWORD = 0x86 "Bad User Name or Password", "the credentials are not accepted.";
    NOT_AUTHORIZED = 0x87 "Not authorized", "the client may not do this.";
    SERVER_UNAVAILABLE = 0x88 "Server unavailable", "the server cannot serve now.";
    SERVER_BUSY = 0x89 "Server busy", "try again later.";
    BANNED = 0x8A "Banned", "the client was banned by an administrator.";
    SERVER_SHUTTING_DOWN = 0x8B "Server shutting down", "the server is about to stop.";
    BAD_AUTHENTICATION_METHOD = 0x8C "Bad authentication method", "not supported, or not the one that was used before.";
    KEEP_ALIVE_TIMEOUT = 0x8D "Keep Alive timeout", "nothing was received for 1.5 times the Keep Alive.";
    SESSION_TAKEN_OVER = 0x8E "Session taken over", "another connection uses the same Client Identifier.";
    TOPIC_FILTER_INVALID = 0x8F "Topic Filter invalid", "well-formed, but not accepted.";
    TOPIC_NAME_INVALID = 0x90 "Topic Name invalid", "well-formed, but not accepted.";
    PACKET_IDENTIFIER_IN_USE = 0x91 "Packet Identifier in use", "the two ends disagree about the session's state.";
    PACKET_IDENTIFIER_NOT_FOUND = 0x92 "Packet Identifier not found", "unknown here; not an error during recovery.";
    RECEIVE_MAXIMUM_EXCEEDED = 0x93 "Receive Maximum exceeded", "more unacknowledged messages than were allowed.";
    TOPIC_ALIAS_INVALID = 0x94 "Topic Alias invalid", "zero, above the maximum, or never set.";
    PACKET_TOO_LARGE = 0x95 "Packet too large", "larger than the receiver's Maximum Packet Size.";
    MESSAGE_RATE_TOO_HIGH = 0x96 "Message rate too high", "messages arrive faster than allowed.";
    QUOTA_EXCEEDED = 0x97 "Quota exceeded", "a limit of the implementation or an administrator was reached.";
    ADMINISTRATIVE_ACTION = 0x98 "Administrative action", "closed by an administrator.";
    PAYLOAD_FORMAT_INVALID = 0x99 "Payload format invalid", "the payload is not what its format indicator says.";
    RETAIN_NOT_SUPPORTED = 0x9A "Retain not supported", "the server keeps no retained messages.";
    QOS_NOT_SUPPORTED = 0x9B "QoS not supported", "higher than the server's Maximum QoS.";
    USE_ANOTHER_SERVER = 0x9C "Use another server", "for now; see Server Reference.";
    SERVER_MOVED = 0x9D "Server moved", "for good; see Server Reference.";
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E "Shared Subscriptions not supported", "not for this client.";
    CONNECTION_RATE_EXCEEDED = 0x9F "Connection rate exceeded", "too many connections in too short a time.";
    MAXIMUM_CONNECT_TIME = 0xA0 "Maximum connect time", "the time allowed for this connection is over.";
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1 "Subscription Identifiers not supported", "the subscription is refused.";
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2 "Wildcard Subscriptions not supported", "the subscription is refused.";
}

impl ReasonCode {
    /// `0x00` in DISCONNECT: the client leaves and its Will Message is discarded.
    pub const NORMAL_DISCONNECTION: ReasonCode = ReasonCode(0x00);
    /// `0x00` in SUBACK: the subscription is accepted with QoS 0.
    pub const GRANTED_QOS_0: ReasonCode = ReasonCode(0x00);

    /// True if this code reports failure (`0x80` and above).
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }
}

impl From<u8> for ReasonCode {
    fn from(value: u8) -> Self {
        ReasonCode(value)
    }
}

impl From<ReasonCode> for u8 {
    fn from(code: ReasonCode) -> Self {
        code.0
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "0x{:02X} ({name})", self.0),
            None => write!(f, "0x{:02X}", self.0),
        }
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_number_and_name() {
        assert_eq!(ReasonCode::NOT_AUTHORIZED.to_string(), "0x87 (Not authorized)");
        assert_eq!(format!("{:?}", ReasonCode(0x55)), "0x55");
    }

    #[test]
    fn errors_start_at_0x80() {
        assert!(!ReasonCode::RE_AUTHENTICATE.is_error());
        assert!(!ReasonCode(0x7F).is_error());
        assert!(ReasonCode::UNSPECIFIED_ERROR.is_error());
        assert!(ReasonCode(0xFF).is_error());
    }

    #[test]
    fn forty_three_values_have_a_name() {
        // Section 2.4 lists 43 different values.
        assert_eq!((0..=255).filter(|&value| ReasonCode(value).name().is_some()).count(), 43);
    }
}
