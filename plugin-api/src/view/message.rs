//! Messages, from and to the client and between handlers.

use std::fmt;

use super::ConnectionId;
use crate::abi::{RawAck, RawInfo, RawPublish};
use crate::{Properties, QoS, ReasonCode, topic};

/// A message that the client publishes, or its Will Message.
#[derive(Clone, Copy)]
pub struct Publish<'a> {
    raw: &'a RawPublish<'a>,
}

impl<'a> Publish<'a> {
    #[inline]
    pub(crate) const fn new(raw: &'a RawPublish<'a>) -> Self {
        Self { raw }
    }

    const fn flag(&self, flag: u8) -> bool {
        self.raw.flags & flag != 0
    }

    /// Topic Name.
    #[must_use]
    #[inline]
    pub fn topic(&self) -> &'a str {
        self.raw.topic.as_str()
    }

    /// The levels of the Topic Name: `a`, an empty one and `b` for `a//b`.
    pub fn levels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        topic::levels(self.topic())
    }

    /// Whether the Topic Name matches a Topic Filter.
    ///
    /// ```no_run
    /// # fn f(publish: &plugin_api::Publish<'_>) {
    /// if publish.matches("plant/+/alarm/#") { /* … */ }
    /// # }
    /// ```
    #[must_use]
    pub fn matches(&self, filter: &str) -> bool {
        topic::matches(filter, self.topic())
    }

    /// Application payload.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.raw.payload.as_slice()
    }

    /// QoS.
    #[must_use]
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.raw.qos).unwrap_or(QoS::AtMostOnce)
    }

    /// RETAIN.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.flag(RawPublish::RETAIN)
    }

    /// DUP: the client may have sent it before. (A QoS 2 message is asked about once, whatever the client repeats.)
    #[must_use]
    pub const fn dup(&self) -> bool {
        self.flag(RawPublish::DUP)
    }

    /// Packet Identifier; `None` for QoS 0 and for a Will Message.
    #[must_use]
    pub fn packet_id(&self) -> Option<u16> {
        (self.raw.packet_id != 0).then_some(self.raw.packet_id)
    }

    /// Whether it is the client's Will Message.
    #[must_use]
    pub const fn is_will(&self) -> bool {
        self.flag(RawPublish::WILL)
    }

    /// Whether this plugin is asked once more, because a later one has changed the topic, or because a Will Message that it has
    /// let pass has waited, and may not be allowed any more. Answering
    /// [`ForwardChanged`](crate::PublishVerdict::ForwardChanged) with anything else than what is there now refuses the message.
    #[must_use]
    pub const fn again(&self) -> bool {
        self.flag(RawPublish::AGAIN)
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .field("qos", &self.qos())
            .field("retain", &self.retain())
            .field("is_will", &self.is_will())
            .finish_non_exhaustive()
    }
}

/// Which packet acknowledged a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AckKind {
    /// PUBACK: the end of QoS 1.
    Puback = 0,
    /// PUBREC with an error: the client refused a QoS 2 message.
    Pubrec = 1,
    /// PUBCOMP: the end of QoS 2.
    Pubcomp = 2,
}

/// An acknowledgement from the client.
#[derive(Clone, Copy)]
pub struct Ack<'a> {
    raw: &'a RawAck,
}

impl<'a> Ack<'a> {
    pub(crate) const fn new(raw: &'a RawAck) -> Self {
        Self { raw }
    }

    /// Packet Identifier of the message.
    #[must_use]
    pub const fn packet_id(&self) -> u16 {
        self.raw.packet_id
    }

    /// Which packet it was.
    #[must_use]
    pub const fn kind(&self) -> AckKind {
        match self.raw.kind {
            0 => AckKind::Puback,
            1 => AckKind::Pubrec,
            _ => AckKind::Pubcomp,
        }
    }

    /// Its Reason Code; [`ReasonCode::SUCCESS`] for 3.x.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        ReasonCode(self.raw.reason_code)
    }

    /// The token of the message, if this plugin sent it with one: see [`Message::token`](crate::Message::token).
    #[must_use]
    pub const fn token(&self) -> Option<u64> {
        if self.raw.token == 0 { None } else { Some(self.raw.token) }
    }
}

impl fmt::Debug for Ack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ack")
            .field("kind", &self.kind())
            .field("packet_id", &self.packet_id())
            .field("reason_code", &self.reason_code())
            .finish()
    }
}

/// A timer of the plugin's, as [`Host::send_info`](crate::Host::send_info) made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId(pub u64);

/// Who sent a message to `handle_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InfoSender {
    /// The plugin, outside of any connection's callback.
    Plugin,
    /// A callback of this connection.
    Connection(ConnectionId),
    /// The plugin or a connection, with a delay that has now passed.
    Timer,
}

/// A message for [`handle_info`](crate::Handler::handle_info) or [`handle_event`](crate::Handler::handle_event).
#[derive(Clone, Copy)]
pub struct Info<'a> {
    raw: &'a RawInfo<'a>,
}

impl<'a> Info<'a> {
    pub(crate) const fn new(raw: &'a RawInfo<'a>) -> Self {
        Self { raw }
    }

    /// What it is, in the plugin's own words.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.raw.kind.as_str()
    }

    /// Its bytes.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.raw.data.as_slice()
    }

    /// Who sent it.
    #[must_use]
    pub const fn sender(&self) -> InfoSender {
        match self.raw.sender {
            1 => InfoSender::Connection(ConnectionId(self.raw.connection)),
            2 => InfoSender::Timer,
            _ => InfoSender::Plugin,
        }
    }

    /// The timer that has brought it.
    #[must_use]
    pub const fn timer(&self) -> Option<TimerId> {
        if self.raw.timer == 0 { None } else { Some(TimerId(self.raw.timer)) }
    }
}

impl fmt::Debug for Info<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("kind", &self.kind())
            .field("data_bytes", &self.data().len())
            .field("sender", &self.sender())
            .finish()
    }
}
