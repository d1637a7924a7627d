//! Views of what happens on the way to a client: notices, and deliveries that a handler decides on.

use std::fmt;

use super::ConnectionId;
use crate::abi::{RawConnected, RawDeliver, RawMessageNotice, RawRetained};
use crate::{Properties, QoS, ReasonCode, topic};

/// A client that has got its CONNACK.
#[derive(Clone, Copy)]
pub struct Connected<'a> {
    raw: &'a RawConnected<'a>,
}

impl<'a> Connected<'a> {
    pub(crate) const fn new(raw: &'a RawConnected<'a>) -> Self {
        Self { raw }
    }

    /// Client Identifier, the one that counts: a handler may have given another one than the client sent.
    #[must_use]
    pub fn client_id(&self) -> &'a str {
        self.raw.client_id.as_str()
    }

    /// The connection.
    #[must_use]
    pub const fn connection(&self) -> ConnectionId {
        ConnectionId(self.raw.connection)
    }

    /// Whether the session was there already, and is resumed.
    #[must_use]
    pub const fn session_present(&self) -> bool {
        self.raw.flags & RawConnected::SESSION_PRESENT != 0
    }

    /// Whether another connection of this client was ended for it.
    #[must_use]
    pub const fn took_over(&self) -> bool {
        self.raw.flags & RawConnected::TOOK_OVER != 0
    }

    /// Session Expiry Interval in force, in seconds; `u32::MAX`: it does not expire.
    #[must_use]
    pub const fn session_expiry_secs(&self) -> u32 {
        self.raw.session_expiry
    }

    /// Keep Alive in force, in seconds; 0 for none.
    #[must_use]
    pub const fn keep_alive_secs(&self) -> u16 {
        self.raw.keep_alive
    }
}

impl fmt::Debug for Connected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("client_id", &self.client_id())
            .field("connection", &self.connection())
            .field("session_present", &self.session_present())
            .field("took_over", &self.took_over())
            .finish_non_exhaustive()
    }
}

/// Who published a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin<'a> {
    /// A client.
    Client,
    /// A plugin, by its name.
    Plugin(&'a str),
    /// The server, for a client that was lost: a Will Message.
    Will,
    /// The server itself.
    Server,
}

/// Why a message is delivered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliverCause {
    /// It has just been published.
    Published,
    /// It was retained, and the client has subscribed.
    Retained,
    /// It waited in the session's queue.
    Queued,
    /// A handler sent it to this client, whatever the client has subscribed to.
    Sent,
}

/// A message on its way to one client.
#[derive(Clone, Copy)]
pub struct Deliver<'a> {
    raw: &'a RawDeliver<'a>,
}

impl<'a> Deliver<'a> {
    pub(crate) const fn new(raw: &'a RawDeliver<'a>) -> Self {
        Self { raw }
    }

    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.raw.topic.as_str()
    }

    /// The levels of the Topic Name.
    pub fn levels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        topic::levels(self.raw.topic.as_str())
    }

    /// Application payload.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.raw.payload.as_slice()
    }

    /// Properties that travel with the message.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }

    /// Client Identifier of the receiver.
    #[must_use]
    pub fn client_id(&self) -> &'a str {
        self.raw.client_id.as_str()
    }

    /// The QoS of this delivery.
    #[must_use]
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.raw.qos).unwrap_or(QoS::AtMostOnce)
    }

    /// RETAIN of the packet.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.raw.flags & RawDeliver::RETAIN != 0
    }

    /// Whether a Shared Subscription has chosen this client.
    #[must_use]
    pub const fn shared(&self) -> bool {
        self.raw.flags & RawDeliver::SHARED != 0
    }

    /// Subscription Identifiers of the subscriptions that it matches.
    #[must_use]
    pub fn identifiers(&self) -> &'a [u32] {
        self.raw.identifiers.as_slice()
    }

    /// Who published it.
    #[must_use]
    pub fn origin(&self) -> Origin<'a> {
        match self.raw.origin {
            0 => Origin::Client,
            1 => Origin::Plugin(self.raw.plugin.as_str()),
            2 => Origin::Will,
            _ => Origin::Server,
        }
    }

    /// Why it is delivered now.
    #[must_use]
    pub const fn cause(&self) -> DeliverCause {
        match self.raw.cause {
            0 => DeliverCause::Published,
            1 => DeliverCause::Retained,
            2 => DeliverCause::Queued,
            _ => DeliverCause::Sent,
        }
    }

    /// The token of the message, if a handler sent it with one: see [`Message::token`](crate::Message::token).
    #[must_use]
    pub const fn token(&self) -> Option<u64> {
        if self.raw.token == 0 { None } else { Some(self.raw.token) }
    }
}

impl fmt::Debug for Deliver<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliver")
            .field("client_id", &self.client_id())
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .field("qos", &self.qos())
            .field("retain", &self.retain())
            .field("origin", &self.origin())
            .field("cause", &self.cause())
            .finish_non_exhaustive()
    }
}

/// Why a message was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum DropReason {
    /// A reason that this version of `plugin-api` does not know.
    Other = 0,
    /// The session's queue was full.
    QueueFull = 1,
    /// The client does not read as fast as messages come (QoS 0).
    Slow = 2,
    /// It is larger than the client takes.
    TooLarge = 3,
    /// A handler has dropped it.
    Handler = 4,
    /// The session has ended.
    SessionEnded = 5,
    /// The client may not have it any more.
    NotAuthorised = 6,
    /// The server holds as much as it may.
    ServerFull = 7,
    /// Its topic is not below the mount point of the client's listener.
    OutsideMount = 8,
}

/// What has become of a message that was meant for one client.
#[derive(Clone, Copy)]
pub struct MessageNotice<'a> {
    raw: &'a RawMessageNotice<'a>,
}

impl<'a> MessageNotice<'a> {
    pub(crate) const fn new(raw: &'a RawMessageNotice<'a>) -> Self {
        Self { raw }
    }

    /// Client Identifier of the receiver. Empty where it is not known whose it would have been: messages for clients of
    /// another thread of the server, or for the members of a group that has none left.
    #[must_use]
    pub fn client_id(&self) -> &'a str {
        self.raw.client_id.as_str()
    }

    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.raw.topic.as_str()
    }

    /// Application payload.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.raw.payload.as_slice()
    }

    /// Properties that travel with the message.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }

    /// The QoS of the delivery.
    #[must_use]
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.raw.qos).unwrap_or(QoS::AtMostOnce)
    }

    /// RETAIN of the packet.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.raw.flags & RawDeliver::RETAIN != 0
    }

    /// Packet Identifier, if it had one already.
    #[must_use]
    pub const fn packet_id(&self) -> Option<u16> {
        if self.raw.packet_id == 0 { None } else { Some(self.raw.packet_id) }
    }

    /// Why it was dropped, in [`handle_message_dropped`](crate::Handler::handle_message_dropped).
    #[must_use]
    pub const fn drop_reason(&self) -> DropReason {
        match self.raw.reason {
            1 => DropReason::QueueFull,
            2 => DropReason::Slow,
            3 => DropReason::TooLarge,
            4 => DropReason::Handler,
            5 => DropReason::SessionEnded,
            6 => DropReason::NotAuthorised,
            7 => DropReason::ServerFull,
            8 => DropReason::OutsideMount,
            _ => DropReason::Other,
        }
    }

    /// The Reason Code, in [`handle_message_acknowledged`](crate::Handler::handle_message_acknowledged).
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

impl fmt::Debug for MessageNotice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageNotice")
            .field("client_id", &self.client_id())
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .field("qos", &self.qos())
            .field("drop_reason", &self.drop_reason())
            .field("reason_code", &self.reason_code())
            .finish_non_exhaustive()
    }
}

/// What has happened to the retained message of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetainChange {
    /// It was stored, in the place of another one or none.
    Set,
    /// It was removed by a message without payload.
    Cleared,
    /// Its Message Expiry Interval has passed.
    Expired,
}

/// A retained message that was stored or removed.
#[derive(Clone, Copy)]
pub struct Retained<'a> {
    raw: &'a RawRetained<'a>,
}

impl<'a> Retained<'a> {
    pub(crate) const fn new(raw: &'a RawRetained<'a>) -> Self {
        Self { raw }
    }

    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.raw.topic.as_str()
    }

    /// Application payload.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.raw.payload.as_slice()
    }

    /// Properties that travel with the message.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }

    /// The QoS that it was published with.
    #[must_use]
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.raw.qos).unwrap_or(QoS::AtMostOnce)
    }

    /// What has happened.
    #[must_use]
    pub const fn change(&self) -> RetainChange {
        match self.raw.change {
            0 => RetainChange::Set,
            1 => RetainChange::Cleared,
            _ => RetainChange::Expired,
        }
    }
}

impl fmt::Debug for Retained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retained")
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .field("change", &self.change())
            .finish_non_exhaustive()
    }
}
