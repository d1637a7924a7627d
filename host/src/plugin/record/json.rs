//! What stands in the objects of a recording: texts, bytes and properties, in both directions.
//!
//! Bytes that are UTF-8 are a text; others are in base64, and the key says so (`payload_base64`). What is not to be in a
//! recording is `{"redacted": bytes}` in the place of its value.

use data_encoding::BASE64;
use plugin_api::{Properties, PropertiesBuf, Property};
use serde_json::{Map, Value, json};

/// The keys of an object.
pub(super) type Fields = Map<String, Value>;

/// Why a line is none of a recording, in half a sentence.
pub(super) type Unreadable = String;

/// What is left out of a recording, of so many bytes.
pub(super) fn redacted(bytes: usize) -> Value {
    json!({ "redacted": bytes })
}

/// Whether a value was left out.
pub(super) fn is_redacted(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.len() == 1 && fields.contains_key("redacted"))
}

/// Whether something in a value was left out.
pub(super) fn has_redacted(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_redacted),
        Value::Object(fields) => is_redacted(value) || fields.values().any(has_redacted),
        _ => false,
    }
}

/// Whether two values are the same, but for what was left out of the first one.
pub(super) fn are_equal(recorded: &Value, given: &Value) -> bool {
    match (recorded, given) {
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| are_equal(ours, theirs))
        }
        (Value::Object(ours), Value::Object(theirs)) if !is_redacted(recorded) => {
            // One that was left out stands under its plain key, whatever the bytes are.
            let all = |key: &String| match (ours.get(key), theirs.get(key)) {
                (Some(ours), Some(theirs)) => are_equal(ours, theirs),
                (Some(ours), None) => is_redacted(ours) && theirs.contains_key(&in_base64(key)),
                (None, Some(_)) => {
                    key.strip_suffix(BASE64_SUFFIX).is_some_and(|key| ours.get(key).is_some_and(is_redacted))
                }
                (None, None) => true,
            };
            ours.keys().all(all) && theirs.keys().all(all)
        }
        _ => is_redacted(recorded) || recorded == given,
    }
}

/// The memory that a value takes, about.
pub(super) fn size_of_value(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size_of_value).sum(),
            Value::Object(fields) => fields.iter().map(|(key, value)| 32 + key.len() + size_of_value(value)).sum(),
            _ => 0,
        }
}

const BASE64_SUFFIX: &str = "_base64";

fn in_base64(key: &str) -> String {
    format!("{key}{BASE64_SUFFIX}")
}

/// Writes bytes.
pub(super) fn put_bytes(fields: &mut Fields, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => fields.insert(key.to_owned(), text.into()),
        Err(_) => fields.insert(in_base64(key), BASE64.encode(bytes).into()),
    };
}

/// Writes properties as an object; nothing if there are none. Authentication Data only with `secrets`.
pub(super) fn put_properties(fields: &mut Fields, encoded: &[u8], secrets: bool) {
    if encoded.is_empty() {
        return;
    }
    let mut list = Fields::new();
    for property in Properties::from_trusted(encoded).iter() {
        put_property(&mut list, &property, secrets);
    }
    fields.insert("properties".to_owned(), list.into());
}

/// The properties with one value, by their keys.
macro_rules! plain_properties {
    ($(numbers $($number:ident $number_key:literal)*; texts $($text:ident $text_key:literal)*;)*) => {
        fn put_property(list: &mut Fields, property: &Property<'_>, secrets: bool) {
            let mut push = |key: &str, value: Value| match list.entry(key).or_insert_with(|| json!([])) {
                Value::Array(items) => items.push(value),
                _ => {}
            };
            match *property {
                Property::UserProperty(name, value) => push("user_properties", json!([name, value])),
                Property::SubscriptionIdentifier(number) => push("subscription_identifiers", number.into()),
                Property::CorrelationData(bytes) => put_bytes(list, "correlation_data", bytes),
                Property::AuthenticationData(bytes) if secrets => put_bytes(list, "authentication_data", bytes),
                Property::AuthenticationData(bytes) => {
                    list.insert("authentication_data".to_owned(), redacted(bytes.len()));
                }
                $($(Property::$number(number) => { list.insert($number_key.to_owned(), number.into()); })*
                $(Property::$text(text) => { list.insert($text_key.to_owned(), text.into()); })*)*
                ref other => { list.insert(format!("{:#04x}", other.id()), Value::Null); }
            }
        }

        fn push_property(list: &mut PropertiesBuf, fields: &Fields, key: &str, value: &Value) -> Result<(), Unreadable> {
            let wrong = |expected: &str| format!("the property {key:?} is {value}, expected {expected}");
            let mut push = |property: Property<'_>| list.push(property).map_err(|error| error.to_string());
            match key {
                "user_properties" => value.as_array().ok_or_else(|| wrong("an array"))?.iter().try_for_each(|pair| {
                    let text = |at: usize| pair.get(at).and_then(Value::as_str).ok_or_else(|| wrong("pairs of texts"));
                    push(Property::UserProperty(text(0)?, text(1)?))
                }),
                "subscription_identifiers" => value.as_array().ok_or_else(|| wrong("an array"))?.iter().try_for_each(|number| {
                    let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
                    push(Property::SubscriptionIdentifier(number.ok_or_else(|| wrong("numbers"))?))
                }),
                "correlation_data" | "correlation_data_base64" => {
                    push(Property::CorrelationData(&bytes(fields, "correlation_data")?))
                }
                "authentication_data" if is_redacted(value) => Ok(()),
                "authentication_data" | "authentication_data_base64" => {
                    push(Property::AuthenticationData(&bytes(fields, "authentication_data")?))
                }
                $($($number_key => {
                    let number = value.as_u64().and_then(|number| number.try_into().ok());
                    push(Property::$number(number.ok_or_else(|| wrong("a number in its range"))?))
                })*
                $($text_key => push(Property::$text(value.as_str().ok_or_else(|| wrong("a text"))?)),)*)*
                _ => Err(format!("there is no property {key:?}")),
            }
        }
    };
}

plain_properties! {
    numbers
        PayloadFormatIndicator "payload_format_indicator"
        MessageExpiryInterval "message_expiry_interval"
        SessionExpiryInterval "session_expiry_interval"
        ServerKeepAlive "server_keep_alive"
        RequestProblemInformation "request_problem_information"
        WillDelayInterval "will_delay_interval"
        RequestResponseInformation "request_response_information"
        ReceiveMaximum "receive_maximum"
        TopicAliasMaximum "topic_alias_maximum"
        TopicAlias "topic_alias"
        MaximumQos "maximum_qos"
        RetainAvailable "retain_available"
        MaximumPacketSize "maximum_packet_size"
        WildcardSubscriptionAvailable "wildcard_subscription_available"
        SubscriptionIdentifierAvailable "subscription_identifier_available"
        SharedSubscriptionAvailable "shared_subscription_available";
    texts
        ContentType "content_type"
        ResponseTopic "response_topic"
        AssignedClientIdentifier "assigned_client_identifier"
        AuthenticationMethod "authentication_method"
        ResponseInformation "response_information"
        ServerReference "server_reference"
        ReasonString "reason_string";
}

/// A value that has to be there.
pub(super) fn required<'a>(fields: &'a Fields, key: &str) -> Result<&'a Value, Unreadable> {
    fields.get(key).ok_or_else(|| format!("{key:?} is missing"))
}

/// A text; empty if it is not there.
pub(super) fn text<'a>(fields: &'a Fields, key: &str) -> Result<&'a str, Unreadable> {
    match fields.get(key) {
        None => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| format!("{key:?} is {value}, expected a text")),
    }
}

/// Bytes; none if they are not there, or were left out.
pub(super) fn bytes(fields: &Fields, key: &str) -> Result<Vec<u8>, Unreadable> {
    match (fields.get(key), fields.get(&in_base64(key))) {
        (None, None) => Ok(Vec::new()),
        (Some(value), _) if is_redacted(value) => Ok(Vec::new()),
        (Some(_), _) => Ok(text(fields, key)?.as_bytes().to_vec()),
        (None, Some(_)) => {
            let key = in_base64(key);
            BASE64.decode(text(fields, &key)?.as_bytes()).map_err(|error| format!("{key:?}: {error}"))
        }
    }
}

/// Whether there are bytes, or were some before they were left out.
pub(super) fn has_bytes(fields: &Fields, key: &str) -> bool {
    fields.contains_key(key) || fields.contains_key(&in_base64(key))
}

/// A number in its type's range; 0 if it is not there.
pub(super) fn number<T: TryFrom<u64> + Default>(fields: &Fields, key: &str) -> Result<T, Unreadable> {
    match fields.get(key) {
        None => Ok(T::default()),
        Some(value) => {
            let number = value.as_u64().and_then(|number| T::try_from(number).ok());
            number.ok_or_else(|| format!("{key:?} is {value}, expected a number in its range"))
        }
    }
}

/// A flag; not set if it is not there.
pub(super) fn flag(fields: &Fields, key: &str) -> Result<bool, Unreadable> {
    match fields.get(key) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| format!("{key:?} is {value}, expected true or false")),
    }
}

/// An object.
pub(super) fn object<'a>(fields: &'a Fields, key: &str) -> Result<Option<&'a Fields>, Unreadable> {
    let expected =
        |value: &'a Value| value.as_object().ok_or_else(|| format!("{key:?} is {value}, expected an object"));
    fields.get(key).map(expected).transpose()
}

/// An array; empty if it is not there.
pub(super) fn array<'a>(fields: &'a Fields, key: &str) -> Result<&'a [Value], Unreadable> {
    match fields.get(key) {
        None => Ok(&[]),
        Some(value) => {
            value.as_array().map(Vec::as_slice).ok_or_else(|| format!("{key:?} is {value}, expected an array"))
        }
    }
}

/// Properties, encoded.
pub(super) fn properties(fields: &Fields) -> Result<Vec<u8>, Unreadable> {
    let mut list = PropertiesBuf::new();
    for (key, value) in object(fields, "properties")?.into_iter().flatten() {
        let fields = object(fields, "properties")?.expect("it is there");
        push_property(&mut list, fields, key, value)?;
    }
    Ok(list.as_bytes().to_vec())
}
