//! An Application Message as the broker keeps it.

use plugin_api::QoS;

use crate::clock::Millis;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Topic, payload and properties of one Application Message, immutable and shared by every queue that holds it.
#[derive(Debug)]
pub struct Message {
    /// Topic, properties and payload, one after the other: one allocation whatever the message has.
    bytes: Box<[u8]>,
    topic_bytes: u16,
    properties_bytes: u32,
    qos: QoS,
    retain: bool,
    /// [`Millis::NEVER`] for a message that does not expire.
    expires_at: Millis,
    /// Set when a newer retained message of its topic has taken its place, so that a replay under way skips it.
    superseded: AtomicBool,
}

/// The parts of a message, borrowed from a packet, a batch or a [`Message`].
#[derive(Debug, Clone, Copy)]
pub struct MessageParts<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// Application payload.
    pub payload: &'a [u8],
    /// Encoded properties that travel with the message: none that belongs to one Network Connection (Topic Alias) or
    /// changes on the way (Message Expiry Interval).
    pub properties: &'a [u8],
    /// QoS that it was published with.
    pub qos: QoS,
    /// RETAIN as it was published.
    pub retain: bool,
    /// When it expires, [`Millis::NEVER`] if it does not.
    pub expires_at: Millis,
}

impl MessageParts<'_> {
    /// Copies the parts into a message that can be kept.
    #[must_use]
    pub fn to_message(&self) -> Message {
        let mut bytes = Vec::with_capacity(self.topic.len() + self.properties.len() + self.payload.len());
        bytes.extend_from_slice(self.topic.as_bytes());
        bytes.extend_from_slice(self.properties);
        bytes.extend_from_slice(self.payload);
        Message {
            bytes: bytes.into_boxed_slice(),
            topic_bytes: u16::try_from(self.topic.len()).expect("a topic has at most 65,535 bytes"),
            properties_bytes: u32::try_from(self.properties.len())
                .expect("properties are part of a packet, which is smaller than 256 MiB"),
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
            superseded: AtomicBool::new(false),
        }
    }
}

impl Message {
    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.topic_bytes)]).expect("built from a str, and never changed")
    }

    /// Encoded properties; see [`MessageParts::properties`].
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        let start = usize::from(self.topic_bytes);
        &self.bytes[start..start + self.properties_bytes as usize]
    }

    /// Application payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.topic_bytes) + self.properties_bytes as usize..]
    }

    /// QoS that it was published with.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// RETAIN as it was published.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.retain
    }

    /// When it expires; `None` if it does not.
    #[must_use]
    pub fn expires_at(&self) -> Option<Millis> {
        (self.expires_at != Millis::NEVER).then_some(self.expires_at)
    }

    /// Whether its Message Expiry Interval has passed [MQTT-3.3.2-5].
    #[must_use]
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at <= now
    }

    /// Topic, properties and payload together, in bytes: what a queue counts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a newer retained message has taken its place.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }

    /// Says that a newer retained message has taken its place, or that it was cleared.
    pub fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    /// The parts, borrowed.
    #[must_use]
    pub fn parts(&self) -> MessageParts<'_> {
        MessageParts {
            topic: self.topic(),
            payload: self.payload(),
            properties: self.properties(),
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
        }
    }
}
