//! Which property may stand where, and how often (section 2.2.2.2).

use plugin_api::{Properties, Property, topic};

use super::{DecodeError, PacketType};

/// Where a list of properties stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Context {
    Connect,
    Will,
    Connack,
    PublishFromClient,
    PublishFromServer,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    Acknowledgement,
    Subscribe,
    Unsubscribe,
    DisconnectFromClient,
    DisconnectFromServer,
    Auth,
}

const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
const USER_PROPERTY: u8 = 0x26;

const fn set(ids: &[u8]) -> u64 {
    let mut set = 0;
    let mut index = 0;
    while index < ids.len() {
        set |= 1 << ids[index];
        index += 1;
    }
    set
}

impl Context {
    /// The identifiers allowed here, as a set of bits.
    pub(super) const fn allowed(self) -> u64 {
        const MESSAGE: u64 = set(&[0x01, 0x02, 0x03, 0x08, 0x09, USER_PROPERTY]);
        const REASON: u64 = set(&[0x1F, USER_PROPERTY]);
        const AUTHENTICATION: u64 = set(&[0x15, 0x16]);
        match self {
            Context::Connect => {
                AUTHENTICATION | set(&[SESSION_EXPIRY_INTERVAL, 0x17, 0x19, 0x21, 0x22, USER_PROPERTY, 0x27])
            }
            Context::Will => MESSAGE | set(&[0x18]),
            Context::Connack => {
                REASON
                    | AUTHENTICATION
                    | set(&[SESSION_EXPIRY_INTERVAL, 0x12, 0x13, 0x1A, 0x1C, 0x21, 0x22])
                    | set(&[0x24, 0x25, 0x27, 0x28, 0x29, 0x2A])
            }
            // In both directions, so that the wrong one gets an error of its own below.
            Context::PublishFromClient | Context::PublishFromServer => MESSAGE | set(&[SUBSCRIPTION_IDENTIFIER, 0x23]),
            Context::Acknowledgement => REASON,
            Context::Subscribe => set(&[SUBSCRIPTION_IDENTIFIER, USER_PROPERTY]),
            Context::Unsubscribe => set(&[USER_PROPERTY]),
            Context::DisconnectFromClient | Context::DisconnectFromServer => {
                REASON | set(&[SESSION_EXPIRY_INTERVAL, 0x1C])
            }
            Context::Auth => REASON | AUTHENTICATION,
        }
    }

    /// The identifiers that may occur more than once here.
    pub(super) const fn repeatable(self) -> u64 {
        match self {
            Context::PublishFromServer => set(&[SUBSCRIPTION_IDENTIFIER, USER_PROPERTY]),
            _ => set(&[USER_PROPERTY]),
        }
    }
}

/// Checks an encoded list in one pass.
pub(super) fn check(packet: PacketType, context: Context, bytes: &[u8]) -> Result<Properties<'_>, DecodeError> {
    let allowed = context.allowed();
    let repeatable = context.repeatable();
    let mut seen = 0_u64;
    let mut rest = bytes;
    while !rest.is_empty() {
        // Identifiers are below 64: no others have a name.
        if let Some(property) = Property::name_of(rest[0])
            && allowed & 1 << rest[0] == 0
        {
            // Before its value, which is of no interest then: a Reason Code for it may not fit into the answer.
            return Err(DecodeError::PropertyNotAllowed { packet, property });
        }
        let (property, after) = Property::decode(rest)?;
        rest = after;
        let bit = 1 << property.id();
        check_value(context, property)?;
        if seen & bit & !repeatable != 0 {
            return Err(DecodeError::DuplicateProperty { packet, property: property.name() });
        }
        seen |= bit;
    }
    check_authentication(context, seen)?;
    Ok(Properties::from_trusted(bytes))
}

/// What a property must not be in this context, although it may be elsewhere.
fn check_value(context: Context, property: Property<'_>) -> Result<(), DecodeError> {
    match (property, context) {
        // [MQTT-3.3.4-6]
        (Property::SubscriptionIdentifier(_), Context::PublishFromClient) => {
            Err(DecodeError::protocol("a client sent a PUBLISH with a Subscription Identifier"))
        }
        // [MQTT-3.14.2-2]
        (Property::SessionExpiryInterval(_), Context::DisconnectFromServer) => {
            Err(DecodeError::protocol("a server sent a DISCONNECT with a Session Expiry Interval"))
        }
        // [MQTT-3.3.2-14]
        (Property::ResponseTopic(name), _) if !topic::is_valid_name(name) => {
            Err(DecodeError::protocol("the Response Topic is empty or has a wildcard character (+ or #)"))
        }
        _ => Ok(()),
    }
}

/// Data without a method cannot be understood, and AUTH is for a method (sections 3.1.2.11.10 and
/// 3.15.2.2.2).
fn check_authentication(context: Context, seen: u64) -> Result<(), DecodeError> {
    let has_method = seen & set(&[0x15]) != 0;
    let has_data = seen & set(&[0x16]) != 0;
    if has_data && !has_method {
        return Err(DecodeError::protocol("Authentication Data without an Authentication Method"));
    }
    if context == Context::Auth && !has_method {
        return Err(DecodeError::protocol("AUTH without an Authentication Method"));
    }
    Ok(())
}
