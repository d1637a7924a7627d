//! From what a line says to its text.

use data_encoding::BASE64;
use plugin_api::{Properties, Property};

use super::super::change::{Due, Terms};
use super::{Counts, Delivered, Line, Message, Reason};
use crate::clock::WallMillis;
use crate::message::Source;

/// What stands for an interval or a moment that never ends or comes.
pub(super) const NEVER: &str = "never";

impl Line<'_> {
    /// Appends the line, with its end. What says the same has the same text.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut json = Json::begin(out);
        json.text("type", self.kind());
        self.write_fields(&mut json);
        json.end();
        out.push(b'\n');
    }

    fn write_fields(&self, json: &mut Json<'_>) {
        match self {
            Self::Export { format, host } => {
                json.number("format", *format);
                json.text("host", host);
            }
            Self::KeyValue { plugin, key, value } => {
                json.text("plugin", plugin);
                json.bytes("key", key);
                json.bytes("value", value);
            }
            Self::Retained(message) => json.message("message", message),
            Self::Session { client_id, terms } => {
                json.text("client_id", client_id);
                json.terms(terms);
            }
            Self::Subscription { client_id, filter, options, identifier } => {
                json.text("client_id", client_id);
                json.text("filter", filter);
                json.number("qos", options.qos as u8);
                json.flag("no_local", options.no_local);
                json.flag("retain_as_published", options.retain_as_published);
                json.number_unless("retain_handling", options.retain_handling as u8, 0);
                json.number_unless("identifier", *identifier, 0_u32);
            }
            Self::Will { client_id, due, expiry_secs, message } => {
                json.text("client_id", client_id);
                match due {
                    Due::AfterSecs(secs) => json.number("delay_secs", *secs),
                    Due::At(at) => json.moment("due_at_ms", *at),
                }
                if let Some(secs) = expiry_secs {
                    json.number("expiry_secs", *secs);
                }
                json.message("message", message);
            }
            Self::LastStates { client_id, states } => {
                json.text("client_id", client_id);
                json.bytes("states", states);
            }
            Self::InFlight { client_id, packet_id, message } => {
                json.text("client_id", client_id);
                json.number("packet_id", *packet_id);
                match message {
                    Some(message) => json.delivered(message),
                    None => json.flag("received", true),
                }
            }
            Self::Queued { client_id, message } => {
                json.text("client_id", client_id);
                json.delivered(message);
            }
            Self::Incoming { client_id, packet_id, message } => {
                json.text("client_id", client_id);
                json.number("packet_id", *packet_id);
                match message {
                    Some(message) => json.message("message", message),
                    None => json.flag("taken", true),
                }
            }
            Self::OnItsWay { from, to, workers, share, message } => {
                json.number("from", *from);
                json.number("to", *to);
                json.number("workers", *workers);
                if let Some(share) = share {
                    json.text("share", share);
                }
                json.message("message", message);
            }
            Self::End(Counts { sessions, subscriptions, messages, retained, key_values }) => {
                json.number("sessions", *sessions);
                json.number("subscriptions", *subscriptions);
                json.number("messages", *messages);
                json.number("retained", *retained);
                json.number("key_values", *key_values);
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Export { .. } => "export",
            Self::KeyValue { .. } => "key_value",
            Self::Retained(_) => "retained",
            Self::Session { .. } => "session",
            Self::Subscription { .. } => "subscription",
            Self::Will { .. } => "will",
            Self::LastStates { .. } => "last_states",
            Self::InFlight { .. } => "in_flight",
            Self::Queued { .. } => "queued",
            Self::Incoming { .. } => "incoming",
            Self::OnItsWay { .. } => "on_its_way",
            Self::End(_) => "end",
        }
    }
}

/// An object that is being written, with its keys in the order in which they come.
struct Json<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Json<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    fn end(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        self.string(key);
        self.out.push(b':');
    }

    fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut *self.out, text).expect("memory takes every text");
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.string(text);
    }

    /// As text if they are UTF-8, in Base64 otherwise, which the key says.
    fn bytes(&mut self, key: &str, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text(key, text),
            Err(_) => self.base64(key, bytes),
        }
    }

    fn base64(&mut self, key: &str, bytes: &[u8]) {
        self.text(&format!("{key}_base64"), &BASE64.encode(bytes));
    }

    fn number(&mut self, key: &str, number: impl Into<u64>) {
        self.key(key);
        self.out.extend_from_slice(number.into().to_string().as_bytes());
    }

    fn number_unless<T: Into<u64> + PartialEq>(&mut self, key: &str, number: T, usual: T) {
        if number != usual {
            self.number(key, number);
        }
    }

    fn flag(&mut self, key: &str, is_set: bool) {
        if is_set {
            self.key(key);
            self.out.extend_from_slice(b"true");
        }
    }

    fn moment(&mut self, key: &str, at: WallMillis) {
        if at == WallMillis::NEVER { self.text(key, NEVER) } else { self.number(key, at.0) }
    }

    fn terms(&mut self, terms: &Terms) {
        for (key, secs) in [("expiry_secs", terms.expiry_secs), ("expiry_secs_max", terms.expiry_secs_max)] {
            if secs == u32::MAX { self.text(key, NEVER) } else { self.number(key, secs) }
        }
        match terms.ends_at {
            Some(at) => self.moment("ends_at_ms", at),
            None => self.flag("connected", true),
        }
        self.number("next_packet_id", terms.next_packet_id);
    }

    fn object(&mut self, key: &str, write: impl FnOnce(&mut Json<'_>)) {
        self.key(key);
        let mut inner = Json::begin(self.out);
        write(&mut inner);
        inner.end();
    }

    fn array<T>(&mut self, key: &str, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.key(key);
        self.out.push(b'[');
        for (number, item) in items.into_iter().enumerate() {
            if number > 0 {
                self.out.push(b',');
            }
            write(self, item);
        }
        self.out.push(b']');
    }

    fn message(&mut self, key: &str, message: &Message<'_>) {
        self.object(key, |json| {
            json.text("topic", &message.topic);
            json.bytes("payload", &message.payload);
            json.number("qos", message.qos as u8);
            json.flag("retain", message.retain);
            if message.expires_at != WallMillis::NEVER {
                json.number("expires_at_ms", message.expires_at.0);
            }
            json.properties(&message.properties);
            match message.source {
                Source::Client => {}
                Source::Will => json.text("source", "will"),
                Source::Server => json.text("source", "server"),
                Source::Plugin { index, hops } => json.object("plugin", |json| {
                    json.number("index", index);
                    json.number("hops", hops);
                }),
            }
            json.number_unless("token", message.token, 0);
        });
    }

    /// By their names; or all of them as bytes, if there is one that no message has, or one twice.
    fn properties(&mut self, encoded: &[u8]) {
        if encoded.is_empty() {
            return;
        }
        let list = Properties::from_trusted(encoded);
        if !are_plain(encoded) {
            return self.base64("properties", encoded);
        }
        self.object("properties", |json| {
            if let Some(flag) = list.payload_format_indicator() {
                json.number("payload_format_indicator", flag);
            }
            if let Some(text) = list.content_type() {
                json.text("content_type", text);
            }
            if let Some(text) = list.response_topic() {
                json.text("response_topic", text);
            }
            if let Some(bytes) = list.correlation_data() {
                json.bytes("correlation_data", bytes);
            }
            let mut pairs = list.user_properties().peekable();
            if pairs.peek().is_some() {
                json.array("user_properties", pairs, |json, (name, value)| {
                    json.out.push(b'[');
                    json.string(name);
                    json.out.push(b',');
                    json.string(value);
                    json.out.push(b']');
                });
            }
        });
    }

    fn delivered(&mut self, Delivered { message, qos, retain, reason }: &Delivered<'_>) {
        self.number("qos", *qos as u8);
        self.flag("retain", *retain);
        match reason {
            Reason::Subscriptions(identifiers) if identifiers.is_empty() => {}
            Reason::Subscriptions(identifiers) => self.array("identifiers", identifiers, |json, identifier| {
                json.out.extend_from_slice(identifier.to_string().as_bytes());
            }),
            Reason::Shared { share, identifier, published } => {
                self.text("share", share);
                self.number_unless("identifier", *identifier, 0);
                if let Some(published) = published {
                    self.message("published", published);
                }
            }
            Reason::Sent => self.flag("sent_by_plugin", true),
        }
        self.message("message", message);
    }
}

/// Whether these are properties that a message has, each once, but for User Properties.
fn are_plain(encoded: &[u8]) -> bool {
    let Ok(list) = Properties::parse(encoded) else { return false };
    let mut seen = 0_u32;
    list.iter().all(|property| match property {
        Property::UserProperty(..) => true,
        Property::PayloadFormatIndicator(_)
        | Property::ContentType(_)
        | Property::ResponseTopic(_)
        | Property::CorrelationData(_) => {
            let bit = 1 << property.id();
            let is_first = seen & bit == 0;
            seen |= bit;
            is_first
        }
        _ => false,
    })
}
