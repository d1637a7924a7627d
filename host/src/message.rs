//! An Application Message as the broker keeps it.

use std::sync::Arc;

use plugin_api::QoS;

use crate::clock::Millis;

/// Who published a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// A client.
    #[default]
    Client,
    /// A plugin.
    Plugin {
        /// Its place in the chain, which no swap changes; [`Source::NO_PLACE`] before it has one, or if it is not there any more.
        index: u8,
        /// How many publishes of plugins, each one made because of the one before, have led to it: 1 or more.
        hops: u8,
    },
    /// The server, for a client that was lost: a Will Message.
    Will,
    /// The server itself.
    Server,
}

impl Source {
    /// The place of a plugin that publishes while it is being initialised.
    pub const NO_PLACE: u8 = u8::MAX;

    /// How many publishes of plugins have led to it.
    #[must_use]
    pub fn hops(self) -> u8 {
        match self {
            Self::Plugin { hops, .. } => hops,
            Self::Client | Self::Will | Self::Server => 0,
        }
    }

    /// Whether this plugin published it.
    #[must_use]
    pub fn is_plugin(self, place: usize) -> bool {
        matches!(self, Self::Plugin { index, .. } if usize::from(index) == place)
    }
}

/// What the places of plugins in one list are in another one, by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Option<Arc<[u8]>>);

impl Places {
    /// From one list to another. Without, they are the same.
    pub(crate) fn between(from: &[String], to: &[String]) -> Self {
        let place = |name| to.iter().position(|other| other == name).and_then(|place| u8::try_from(place).ok());
        Self(Some(from.iter().map(|name| place(name).unwrap_or(Source::NO_PLACE)).collect()))
    }

    /// Who published a message. A plugin that is not in the other list has no place there.
    pub(crate) fn of(&self, source: Source) -> Source {
        match (source, &self.0) {
            (Source::Plugin { index, hops }, Some(places)) => {
                Source::Plugin { index: places.get(usize::from(index)).copied().unwrap_or(Source::NO_PLACE), hops }
            }
            _ => source,
        }
    }
}

/// Topic, payload and properties of one Application Message, immutable and shared by every queue that holds it.
#[derive(Debug)]
pub struct Message {
    /// Topic, properties, payload and, if there is one, the token, one after the other: one allocation whatever the message
    /// has.
    bytes: Vec<u8>,
    topic_bytes: u16,
    properties_bytes: u32,
    qos: QoS,
    retain: bool,
    has_token: bool,
    source: Source,
    /// [`Millis::NEVER`] for a message that does not expire.
    expires_at: Millis,
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
    /// Who published it.
    pub source: Source,
    /// The packet that it came in, if it is sent on just so.
    pub as_it_came: Option<AsItCame<'a>>,
}

/// A PUBLISH packet from a client, with nothing in it that belongs to one Network Connection but its Packet Identifier: whoever
/// gets the message with the same QoS and version is sent the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct AsItCame<'a> {
    /// The whole packet. Its Remaining Length is in its shortest form.
    pub packet: &'a [u8],
    /// It has a list of properties, which is empty.
    pub is_v5: bool,
}

impl<'a> MessageParts<'a> {
    /// A client's message without RETAIN and properties.
    #[inline]
    pub(crate) fn plain(topic: &'a str, payload: &'a [u8], qos: QoS) -> Self {
        let (properties, expires_at, source) = (&[][..], Millis::NEVER, Source::Client);
        Self { topic, payload, properties, qos, retain: false, expires_at, source, as_it_came: None }
    }

    /// What is left of its Message Expiry Interval, in seconds; `None` if it does not expire [MQTT-3.3.2-6].
    #[must_use]
    pub fn secs_left(&self, now: Millis) -> Option<u32> {
        (self.expires_at != Millis::NEVER)
            .then(|| u32::try_from(self.expires_at.since(now).div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// Copies the parts into a message that can be kept.
    #[must_use]
    pub fn to_message(&self) -> Message {
        self.to_message_with_token(0)
    }

    /// The same with a token of the plugin that sends it to one client; 0 for none.
    #[must_use]
    pub fn to_message_with_token(&self, token: u64) -> Message {
        self.copy_into(Vec::new(), token)
    }

    /// The same, in a buffer that was another message's.
    #[inline]
    pub(crate) fn copy_into(&self, mut bytes: Vec<u8>, token: u64) -> Message {
        let token = (token != 0).then(|| token.to_le_bytes());
        let token_bytes = token.as_ref().map_or(&[][..], |token| &token[..]);
        bytes.clear();
        bytes.reserve_exact(self.topic.len() + self.properties.len() + self.payload.len() + token_bytes.len());
        bytes.extend_from_slice(self.topic.as_bytes());
        bytes.extend_from_slice(self.properties);
        bytes.extend_from_slice(self.payload);
        bytes.extend_from_slice(token_bytes);
        Message {
            bytes,
            topic_bytes: u16::try_from(self.topic.len()).expect("a topic has at most 65,535 bytes"),
            properties_bytes: u32::try_from(self.properties.len())
                .expect("properties are part of a packet, which is smaller than 256 MiB"),
            qos: self.qos,
            retain: self.retain,
            has_token: token.is_some(),
            source: self.source,
            expires_at: self.expires_at,
        }
    }
}

impl Message {
    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.topic_bytes)]).expect("built from a str, and never changed")
    }

    /// The same as bytes, which takes no look at its characters.
    #[must_use]
    pub fn topic_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.topic_bytes)]
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
        &self.bytes[usize::from(self.topic_bytes) + self.properties_bytes as usize..self.payload_end()]
    }

    fn payload_end(&self) -> usize {
        self.bytes.len() - if self.has_token { size_of::<u64>() } else { 0 }
    }

    /// The token that its plugin sent it with; 0 for none.
    #[must_use]
    pub fn token(&self) -> u64 {
        // There are no bytes where there is no token.
        <[u8; 8]>::try_from(&self.bytes[self.payload_end()..]).map_or(0, u64::from_le_bytes)
    }

    /// Who published it.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
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

    /// Topic, properties, payload and token together, in bytes: what a queue counts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Topic Name and payload, one after the other, and how many bytes of them are the Topic Name: all that there is of most
    /// messages. `None` if it has more, or expires.
    #[inline]
    pub(crate) fn plain(&self) -> Option<(&[u8], usize)> {
        let is_plain = self.properties_bytes == 0 && !self.has_token && self.expires_at == Millis::NEVER;
        is_plain.then_some((&self.bytes[..], usize::from(self.topic_bytes)))
    }

    /// Memory for them, in bytes: as much, or more if it was another message's.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Its buffer, for another message.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The parts, borrowed.
    #[must_use]
    pub fn parts(&self) -> MessageParts<'_> {
        self.parts_with(self.topic())
    }

    /// The parts where its Topic Name is at hand as text.
    #[must_use]
    pub fn parts_with<'a>(&'a self, topic: &'a str) -> MessageParts<'a> {
        debug_assert_eq!(topic.as_bytes(), self.topic_bytes());
        MessageParts {
            topic,
            payload: self.payload(),
            properties: self.properties(),
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
            source: self.source,
            as_it_came: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_is_found_by_its_name_or_not_at_all() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let places = Places::between(&list(&["a", "b", "c"]), &list(&["c", "a"]));
        let of = |index| match places.of(Source::Plugin { index, hops: 2 }) {
            Source::Plugin { index, hops: 2 } => index,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            [0, 1, 2, 3, Source::NO_PLACE].map(of),
            [1, Source::NO_PLACE, 0, Source::NO_PLACE, Source::NO_PLACE]
        );
        assert_eq!(places.of(Source::Will), Source::Will);
    }

    #[test]
    fn a_token_takes_room_only_where_there_is_one() {
        let source = Source::Plugin { index: 3, hops: 1 };
        let parts = MessageParts {
            topic: "t",
            payload: b"abc",
            properties: b"\x01\x01",
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at: Millis::NEVER,
            source,
            as_it_came: None,
        };
        assert_eq!(size_of::<Message>(), 48);
        for (token, bytes) in [(0, 6), (u64::MAX, 14)] {
            let message = parts.to_message_with_token(token);
            assert_eq!((message.token(), message.bytes(), message.source()), (token, bytes, source));
            assert_eq!(
                (message.topic(), message.properties(), message.payload()),
                ("t", &b"\x01\x01"[..], &b"abc"[..])
            );
        }
    }
}
