//! What outlives the server as lines of JSON, for backup and inspection: one object a line.
//!
//! STORE.md describes them for who reads them. A [`Line`] is what one of them says, whether it was
//! made from a [`Change`](super::change::Change) or read from a file. What is wrong with one that was read is said in a sentence.

mod from_changes;
mod parse;
#[cfg(test)]
mod tests;
mod to_changes;
mod write;

use std::borrow::Cow;
use std::fmt;

use plugin_api::QoS;

pub use self::from_changes::{Misfit, Reading};
pub use self::to_changes::Writing;
use super::change::{Due, StoredMessage, Terms};
use crate::clock::WallMillis;
use crate::codec::SubscribeOptions;
use crate::message::Source;

/// The version of the form of these lines.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub enum Line<'a> {
    /// The first one.
    Export {
        /// The version of the form: [`FORMAT`].
        format: u32,
        /// The version of the host that has written it.
        host: Cow<'a, str>,
    },
    /// What a plugin keeps by a key.
    KeyValue {
        /// The plugin's name.
        plugin: Cow<'a, str>,
        /// The key.
        key: Cow<'a, [u8]>,
        /// The value.
        value: Cow<'a, [u8]>,
    },
    /// The retained message of its topic.
    Retained(Message<'a>),
    /// A session. What is its follows, up to the next session.
    Session {
        /// Its Client Identifier.
        client_id: Cow<'a, str>,
        /// What else is kept of it.
        terms: Terms,
    },
    /// A subscription.
    Subscription {
        /// Whose it is.
        client_id: Cow<'a, str>,
        /// Topic Filter as the client wrote it, `$share/…` included.
        filter: Cow<'a, str>,
        /// With the QoS that was granted.
        options: SubscribeOptions,
        /// Subscription Identifier, 0 for none.
        identifier: u32,
    },
    /// The Will Message of a session.
    Will {
        /// Whose it is.
        client_id: Cow<'a, str>,
        /// When it is published.
        due: Due,
        /// Message Expiry Interval in seconds, which begins when it is published.
        expiry_secs: Option<u32>,
        /// What it is.
        message: Message<'a>,
    },
    /// What handlers have exported for the end of a session.
    LastStates {
        /// Whose it is.
        client_id: Cow<'a, str>,
        /// As [`Change::LastStates`](super::change::Change::LastStates) has it.
        states: Cow<'a, [u8]>,
    },
    /// A message that was sent and is not acknowledged, behind those before.
    InFlight {
        /// To whom.
        client_id: Cow<'a, str>,
        /// Its Packet Identifier.
        packet_id: u16,
        /// `None`: PUBREC has come for it.
        message: Option<Delivered<'a>>,
    },
    /// A message that waits, behind those before.
    Queued {
        /// For whom.
        client_id: Cow<'a, str>,
        /// What it is, and how it is delivered.
        message: Delivered<'a>,
    },
    /// A QoS 2 message from a client, accepted and not released.
    Incoming {
        /// From whom.
        client_id: Cow<'a, str>,
        /// Its Packet Identifier.
        packet_id: u16,
        /// `None`: a handler has taken it.
        message: Option<Message<'a>>,
    },
    /// A message on its way from one worker to another when the server ended.
    OnItsWay {
        /// The worker that it comes from.
        from: u16,
        /// The worker whose sessions get it.
        to: u16,
        /// How many there were.
        workers: u16,
        /// The Shared Subscription that it is for.
        share: Option<Cow<'a, str>>,
        /// What it is.
        message: Message<'a>,
    },
    /// The last one.
    End(Counts),
}

/// A message as it was published.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// Topic Name.
    pub topic: Cow<'a, str>,
    /// Application payload.
    pub payload: Cow<'a, [u8]>,
    /// Encoded properties.
    pub properties: Cow<'a, [u8]>,
    /// QoS that it was published with.
    pub qos: QoS,
    /// RETAIN as it was published.
    pub retain: bool,
    /// When it expires.
    pub expires_at: WallMillis,
    /// Who published it.
    pub source: Source,
    /// The token that its plugin sent it with; 0 for none.
    pub token: u64,
}

/// A message, and how one session gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered<'a> {
    /// What it is.
    pub message: Message<'a>,
    /// QoS of the packet: 1 or 2.
    pub qos: QoS,
    /// RETAIN of the packet.
    pub retain: bool,
    /// Why the session gets it.
    pub reason: Reason<'a>,
}

/// Why a session gets a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason<'a> {
    /// Subscriptions that are not shared, with these Subscription Identifiers.
    Subscriptions(Vec<u32>),
    /// A Shared Subscription.
    Shared {
        /// As the client wrote it.
        share: Cow<'a, str>,
        /// Subscription Identifier, 0 for none.
        identifier: u32,
        /// What was published, if a handler has put the message in its place.
        published: Option<Box<Message<'a>>>,
    },
    /// A plugin has sent it to this client.
    Sent,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions.
    pub sessions: u64,
    /// Subscriptions of all of them.
    pub subscriptions: u64,
    /// Messages that wait for sessions, are in flight, not released, or on their way.
    pub messages: u64,
    /// Retained messages.
    pub retained: u64,
    /// What plugins keep by keys.
    pub key_values: u64,
}

impl Counts {
    /// Counts a line.
    pub fn add(&mut self, line: &Line<'_>) {
        match line {
            Line::Session { .. } => self.sessions += 1,
            Line::Subscription { .. } => self.subscriptions += 1,
            Line::InFlight { .. } | Line::Queued { .. } | Line::Incoming { .. } | Line::OnItsWay { .. } => {
                self.messages += 1;
            }
            Line::Retained(_) => self.retained += 1,
            Line::KeyValue { .. } => self.key_values += 1,
            Line::Export { .. } | Line::Will { .. } | Line::LastStates { .. } | Line::End(_) => {}
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, subscriptions, messages, retained, key_values } = self;
        write!(
            f,
            "{sessions} sessions with {subscriptions} subscriptions, {messages} messages for them, {retained} retained \
             messages, {key_values} values of plugins"
        )
    }
}

impl<'a> Message<'a> {
    /// A message as it is kept.
    #[must_use]
    pub fn of(stored: &StoredMessage<'a>) -> Self {
        let &StoredMessage { topic, payload, properties, qos, retain, expires_at, source, token } = stored;
        let (topic, payload, properties) = (topic.into(), payload.into(), properties.into());
        Self { topic, payload, properties, qos, retain, expires_at, source, token }
    }

    /// The same as it is kept.
    #[must_use]
    pub fn stored(&self) -> StoredMessage<'_> {
        let Self { topic, payload, properties, qos, retain, expires_at, source, token } = self;
        StoredMessage {
            topic,
            payload,
            properties,
            qos: *qos,
            retain: *retain,
            expires_at: *expires_at,
            source: *source,
            token: *token,
        }
    }
}
