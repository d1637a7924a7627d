//! From the text of a line to what it says. It may be anything: somebody may have written it by hand.

use std::borrow::Cow;
use std::fmt::Display;

use data_encoding::BASE64;
use plugin_api::{Properties, PropertiesBuf, Property, QoS, topic};
use serde_json::{Map, Value};

use super::super::change::{Due, Terms};
use super::write::NEVER;
use super::{Counts, Delivered, Line, Message, Reason};
use crate::clock::WallMillis;
use crate::codec::{RetainHandling, SubscribeOptions};
use crate::message::Source;

/// The longest text of the protocol, in bytes; names and keys of plugins are bounded by it as well.
const TEXT_BYTES_MAX: usize = 65_535;

/// The longest payload, in bytes: a packet is not longer.
const PAYLOAD_BYTES_MAX: usize = 268_435_455;

/// Moments from here on mean something else where they are kept.
const MOMENT_MAX: u64 = 1 << 62;

/// The largest Subscription Identifier.
const IDENTIFIER_MAX: u32 = 268_435_455;

/// Workers that a server has at most.
const WORKERS_MAX: u16 = 64;

const KINDS: &str = "export, key_value, retained, session, subscription, will, last_states, in_flight, queued, incoming, \
                     on_its_way or end";

impl Line<'static> {
    /// Reads a line.
    ///
    /// # Errors
    /// A sentence: what was got, and what was expected.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(line).map_err(|error| format!("it is no JSON: {error}"))?;
        let mut fields = Fields::new("", value)?;
        let kind = fields.text("type")?;
        let line = fields.line(&kind)?;
        fields.end()?;
        Ok(line)
    }
}

/// What is left of an object.
struct Fields {
    /// What the names of its keys begin with where they are told.
    within: &'static str,
    left: Map<String, Value>,
    /// Keys that it may have.
    known: Vec<&'static str>,
}

impl Fields {
    fn new(within: &'static str, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(left) => Ok(Self { within, left, known: Vec::new() }),
            other => Err(format!("{} is {}, expected an object", within_or_line(within), shown(&other))),
        }
    }

    fn line(&mut self, kind: &str) -> Result<Line<'static>, String> {
        Ok(match kind {
            "export" => Line::Export { format: self.number("format")?, host: self.text("host")?.into() },
            "key_value" => Line::KeyValue {
                plugin: self.short_text("plugin")?.into(),
                key: self.bytes("key", TEXT_BYTES_MAX)?.into(),
                value: self.bytes("value", PAYLOAD_BYTES_MAX)?.into(),
            },
            "retained" => Line::Retained(self.message("message")?),
            "session" => Line::Session { client_id: self.client_id()?, terms: self.terms()? },
            "subscription" => Line::Subscription {
                client_id: self.client_id()?,
                filter: self.filter("filter")?,
                options: SubscribeOptions {
                    qos: self.qos("qos")?,
                    no_local: self.flag("no_local")?,
                    retain_as_published: self.flag("retain_as_published")?,
                    retain_handling: self.retain_handling()?,
                },
                identifier: self.identifier()?,
            },
            "will" => Line::Will {
                client_id: self.client_id()?,
                due: self.due()?,
                expiry_secs: self.optional_number("expiry_secs")?,
                message: self.message("message")?,
            },
            "last_states" => {
                let (client_id, states) = (self.client_id()?, self.bytes("states", PAYLOAD_BYTES_MAX)?);
                if states.is_empty() {
                    return Err("\"states\" is empty, expected bytes, or no such line".to_owned());
                }
                Line::LastStates { client_id, states: states.into() }
            }
            "in_flight" => {
                let (client_id, packet_id) = (self.client_id()?, self.packet_id("packet_id")?);
                let message = if self.flag("received")? { None } else { Some(self.delivered()?) };
                Line::InFlight { client_id, packet_id, message }
            }
            "queued" => Line::Queued { client_id: self.client_id()?, message: self.delivered()? },
            "incoming" => {
                let (client_id, packet_id) = (self.client_id()?, self.packet_id("packet_id")?);
                let message = if self.flag("taken")? { None } else { Some(self.message("message")?) };
                Line::Incoming { client_id, packet_id, message }
            }
            "on_its_way" => self.on_its_way()?,
            "end" => Line::End(Counts {
                sessions: self.number("sessions")?,
                subscriptions: self.number("subscriptions")?,
                messages: self.number("messages")?,
                retained: self.number("retained")?,
                key_values: self.number("key_values")?,
            }),
            other => return Err(format!("\"type\" is {other:?}, expected {KINDS}")),
        })
    }

    fn on_its_way(&mut self) -> Result<Line<'static>, String> {
        let (from, to, workers) = (self.number("from")?, self.number("to")?, self.number("workers")?);
        if !(1..=WORKERS_MAX).contains(&workers) || from >= workers || to >= workers {
            return Err(format!(
                "it goes from worker {from} to worker {to} of {workers}, expected numbers below that, which is {WORKERS_MAX} \
                 at most"
            ));
        }
        let share = if self.has("share") { Some(self.share()?) } else { None };
        Ok(Line::OnItsWay { from, to, workers, share, message: self.message("message")? })
    }

    fn terms(&mut self) -> Result<Terms, String> {
        let [expiry_secs, expiry_secs_max] = [self.interval("expiry_secs")?, self.interval("expiry_secs_max")?];
        if expiry_secs == 0 {
            return Err("\"expiry_secs\" is 0, expected 1 or more: other sessions are not kept".to_owned());
        }
        let ends_at = if self.flag("connected")? { None } else { Some(self.moment("ends_at_ms")?) };
        Ok(Terms { expiry_secs, expiry_secs_max, ends_at, next_packet_id: self.packet_id("next_packet_id")? })
    }

    fn due(&mut self) -> Result<Due, String> {
        match self.optional_number("delay_secs")? {
            Some(secs) => Ok(Due::AfterSecs(secs)),
            None => self.moment("due_at_ms").map(Due::At),
        }
    }

    fn delivered(&mut self) -> Result<Delivered<'static>, String> {
        let qos = self.qos("qos")?;
        if qos == QoS::AtMostOnce {
            return Err("\"qos\" is 0, expected 1 or 2: other messages are not kept".to_owned());
        }
        let reason = if self.flag("sent_by_plugin")? {
            Reason::Sent
        } else if self.has("share") {
            let (share, identifier) = (self.share()?, self.identifier()?);
            let published = if self.has("published") { Some(Box::new(self.message("published")?)) } else { None };
            Reason::Shared { share, identifier, published }
        } else {
            Reason::Subscriptions(self.identifiers()?)
        };
        Ok(Delivered { qos, retain: self.flag("retain")?, reason, message: self.message("message")? })
    }

    fn message(&mut self, key: &'static str) -> Result<Message<'static>, String> {
        let mut fields = Self::new(key, self.take(key)?)?;
        let topic = fields.short_text("topic")?;
        if !topic::is_valid_name(&topic) {
            return Err(fields.not("topic", &format!("{topic:?}"), "a Topic Name, without wildcards"));
        }
        let expires_at = if fields.has("expires_at_ms") { fields.moment("expires_at_ms")? } else { WallMillis::NEVER };
        let message = Message {
            topic: topic.into(),
            payload: fields.bytes("payload", PAYLOAD_BYTES_MAX)?.into(),
            qos: fields.qos("qos")?,
            retain: fields.flag("retain")?,
            expires_at,
            properties: fields.properties()?.into(),
            source: fields.source()?,
            token: fields.optional_number("token")?.unwrap_or(0),
        };
        fields.end()?;
        let bytes = message.topic.len() + message.properties.len() + message.payload.len();
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(format!("its message has {bytes} bytes, expected {PAYLOAD_BYTES_MAX} at most"));
        }
        Ok(message)
    }

    fn source(&mut self) -> Result<Source, String> {
        if self.has("plugin") {
            let mut fields = Self::new("plugin", self.take("plugin")?)?;
            let source = Source::Plugin { index: fields.number("index")?, hops: fields.number("hops")? };
            fields.end()?;
            return Ok(source);
        }
        if !self.has("source") {
            return Ok(Source::Client);
        }
        match &*self.text("source")? {
            "will" => Ok(Source::Will),
            "server" => Ok(Source::Server),
            other => Err(self.not("source", &format!("{other:?}"), "\"will\" or \"server\"")),
        }
    }

    fn properties(&mut self) -> Result<Vec<u8>, String> {
        if self.has("properties_base64") {
            let encoded = self.bytes("properties", PAYLOAD_BYTES_MAX)?;
            Properties::parse(&encoded).map_err(|error| format!("\"properties_base64\": {error}"))?;
            return Ok(encoded);
        }
        if !self.has("properties") {
            return Ok(Vec::new());
        }
        let mut fields = Self::new("properties", self.take("properties")?)?;
        let mut list = PropertiesBuf::new();
        let mut push = |property: Property<'_>| list.push(property).map_err(|error| format!("\"properties\": {error}"));
        if let Some(flag) = fields.optional_number("payload_format_indicator")? {
            push(Property::PayloadFormatIndicator(flag))?;
        }
        if fields.has("content_type") {
            push(Property::ContentType(&fields.text("content_type")?))?;
        }
        if fields.has("response_topic") {
            push(Property::ResponseTopic(&fields.text("response_topic")?))?;
        }
        if fields.has("correlation_data") || fields.has("correlation_data_base64") {
            push(Property::CorrelationData(&fields.bytes("correlation_data", TEXT_BYTES_MAX)?))?;
        }
        for (name, value) in fields.pairs("user_properties")? {
            push(Property::UserProperty(&name, &value))?;
        }
        fields.end()?;
        Ok(list.into_bytes())
    }

    fn pairs(&mut self, key: &'static str) -> Result<Vec<(String, String)>, String> {
        if !self.has(key) {
            return Ok(Vec::new());
        }
        let wrong =
            |value: &Value| format!("\"{key}\" has {}, expected a name and a value: [\"…\", \"…\"]", shown(value));
        let Value::Array(items) = self.take(key)? else { return Err(format!("\"{key}\" is no array")) };
        let pair = |item| match item {
            Value::Array(pair) => match <[Value; 2]>::try_from(pair) {
                Ok([Value::String(name), Value::String(value)]) => Ok((name, value)),
                Ok(other) => Err(wrong(&Value::from(other.to_vec()))),
                Err(other) => Err(wrong(&Value::from(other))),
            },
            other => Err(wrong(&other)),
        };
        items.into_iter().map(pair).collect()
    }

    fn identifiers(&mut self) -> Result<Vec<u32>, String> {
        if !self.has("identifiers") {
            return Ok(Vec::new());
        }
        let value = self.take("identifiers")?;
        let number = |value: &Value| {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number.filter(|number| *number <= IDENTIFIER_MAX)
        };
        let list = value.as_array().and_then(|list| list.iter().map(number).collect());
        list.ok_or_else(|| self.not("identifiers", &shown(&value), "an array of Subscription Identifiers"))
    }

    fn identifier(&mut self) -> Result<u32, String> {
        match self.optional_number("identifier")?.unwrap_or(0) {
            number if number <= IDENTIFIER_MAX => Ok(number),
            number => Err(self.not("identifier", &number.to_string(), "a Subscription Identifier, 268435455 at most")),
        }
    }

    fn client_id(&mut self) -> Result<Cow<'static, str>, String> {
        match self.short_text("client_id")? {
            text if text.is_empty() || text.contains('\0') => {
                Err(self.not("client_id", &format!("{text:?}"), "a Client Identifier, which has no U+0000 in it"))
            }
            text => Ok(text.into()),
        }
    }

    fn filter(&mut self, key: &'static str) -> Result<Cow<'static, str>, String> {
        let filter = self.short_text(key)?;
        let is_valid = match topic::split_share(&filter) {
            topic::Share::None => topic::is_valid_filter(&filter),
            topic::Share::Group { filter, .. } => topic::is_valid_filter(filter),
            topic::Share::Malformed => false,
        };
        if is_valid { Ok(filter.into()) } else { Err(self.not(key, &format!("{filter:?}"), "a Topic Filter")) }
    }

    fn share(&mut self) -> Result<Cow<'static, str>, String> {
        let share = self.filter("share")?;
        match topic::split_share(&share) {
            topic::Share::Group { .. } => Ok(share),
            _ => Err(self.not("share", &format!("{share:?}"), "a Topic Filter of the form $share/GROUP/FILTER")),
        }
    }

    fn retain_handling(&mut self) -> Result<RetainHandling, String> {
        let number = self.optional_number("retain_handling")?.unwrap_or(0);
        RetainHandling::from_u8(number).ok_or_else(|| self.not("retain_handling", &number.to_string(), "0, 1 or 2"))
    }

    fn qos(&mut self, key: &'static str) -> Result<QoS, String> {
        let number: u8 = self.number(key)?;
        QoS::from_u8(number).ok_or_else(|| self.not(key, &number.to_string(), "0, 1 or 2"))
    }

    fn packet_id(&mut self, key: &'static str) -> Result<u16, String> {
        match self.number(key)? {
            0 => Err(self.not(key, "0", "a Packet Identifier, from 1 to 65535")),
            number => Ok(number),
        }
    }

    /// Seconds, or "never".
    fn interval(&mut self, key: &'static str) -> Result<u32, String> {
        if self.is_never(key) { Ok(u32::MAX) } else { self.number(key) }
    }

    /// A moment, or "never".
    fn moment(&mut self, key: &'static str) -> Result<WallMillis, String> {
        if self.is_never(key) {
            return Ok(WallMillis::NEVER);
        }
        match self.number::<u64>(key)? {
            number if number < MOMENT_MAX => Ok(WallMillis(number)),
            number => Err(self.not(key, &number.to_string(), "milliseconds since 1970, or \"never\"")),
        }
    }

    fn is_never(&mut self, key: &'static str) -> bool {
        let is_never = self.left.get(key).is_some_and(|value| value == NEVER);
        if is_never {
            self.known.push(key);
            self.left.remove(key);
        }
        is_never
    }

    /// A key that may be missing.
    fn has(&mut self, key: &'static str) -> bool {
        self.known.push(key);
        self.left.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Result<Value, String> {
        self.known.push(key);
        self.left
            .remove(key)
            .ok_or_else(|| format!("{} is missing in {}", name(self.within, key), within_or_line(self.within)))
    }

    fn text(&mut self, key: &'static str) -> Result<String, String> {
        match self.take(key)? {
            Value::String(text) => Ok(text),
            other => Err(self.not(key, &shown(&other), "a string")),
        }
    }

    fn short_text(&mut self, key: &'static str) -> Result<String, String> {
        match self.text(key)? {
            text if text.len() <= TEXT_BYTES_MAX => Ok(text),
            text => Err(self.not(key, &format!("{} bytes", text.len()), "65535 at most")),
        }
    }

    /// Text, or Base64 under a key that says so.
    fn bytes(&mut self, key: &'static str, bytes_max: usize) -> Result<Vec<u8>, String> {
        let in_base64 = match key {
            "key" => "key_base64",
            "value" => "value_base64",
            "payload" => "payload_base64",
            "states" => "states_base64",
            "properties" => "properties_base64",
            _ => "correlation_data_base64",
        };
        let bytes = if self.has(in_base64) {
            let text = self.text(in_base64)?;
            BASE64.decode(text.as_bytes()).map_err(|error| format!("{}: {error}", name(self.within, in_base64)))?
        } else {
            self.text(key)?.into_bytes()
        };
        if bytes.len() > bytes_max {
            return Err(self.not(key, &format!("{} bytes", bytes.len()), format!("{bytes_max} at most")));
        }
        Ok(bytes)
    }

    fn flag(&mut self, key: &'static str) -> Result<bool, String> {
        if !self.has(key) {
            return Ok(false);
        }
        match self.take(key)? {
            Value::Bool(flag) => Ok(flag),
            other => Err(self.not(key, &shown(&other), "true or false")),
        }
    }

    fn optional_number<T: TryFrom<u64>>(&mut self, key: &'static str) -> Result<Option<T>, String> {
        if self.has(key) { self.number(key).map(Some) } else { Ok(None) }
    }

    fn number<T: TryFrom<u64>>(&mut self, key: &'static str) -> Result<T, String> {
        let value = self.take(key)?;
        let number = value.as_u64().and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| {
            let max = u64::MAX >> (64 - 8 * size_of::<T>().min(8));
            self.not(key, &shown(&value), format!("a number from 0 to {max}"))
        })
    }

    /// There is nothing else.
    fn end(self) -> Result<(), String> {
        let Some(key) = self.left.keys().next() else { return Ok(()) };
        let mut known: Vec<_> = self.known.iter().map(|key| format!("{key:?}")).collect();
        known.dedup();
        let whose = within_or_line(self.within);
        Err(format!("{} is not known in {whose}, expected only {}", name(self.within, key), known.join(", ")))
    }

    fn not(&self, key: &str, got: &str, expected: impl Display) -> String {
        format!("{} is {got}, expected {expected}", name(self.within, key))
    }
}

fn name(within: &str, key: &str) -> String {
    if within.is_empty() { format!("{key:?}") } else { format!("\"{within}.{key}\"") }
}

fn within_or_line(within: &str) -> String {
    if within.is_empty() { "the line".to_owned() } else { format!("{within:?}") }
}

/// So much of a value as fits into a sentence.
fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
