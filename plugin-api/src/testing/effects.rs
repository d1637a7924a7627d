//! What a handler has had done, as a test sees it.

use std::time::Duration;

use crate::{
    Callback, ConnectionId, DisconnectKind, Level, Message, PropertiesBuf, PublishVerdict, ReasonCode, TimerId,
};

/// A line in the log: of the handler's own, or of the host's about the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// How important it is.
    pub level: Level,
    /// The part of the handler that it comes from, as [`Host::log_to`](crate::Host::log_to) names it; `"host"` if the host says
    /// it about the handler: a panic, an error, an answer that cannot be used.
    pub target: String,
    /// What it says.
    pub text: String,
    /// Its fields, as [`Host::log_fields`](crate::Host::log_fields) has them.
    pub fields: Vec<(String, String)>,
    /// The callback that it comes from; `None` outside of one.
    pub callback: Option<Callback>,
    /// The connection that the callback is about, if there is one.
    pub connection: Option<ConnectionId>,
}

/// To whom a handler sends something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// One Network Connection.
    Connection(ConnectionId),
    /// One client, by its Client Identifier.
    Client(String),
    /// Every connection.
    All,
    /// The plugin as a whole.
    Plugin,
}

/// A message that a handler has sent to one client: [`Host::send`](crate::Host::send).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// To whom.
    pub target: Target,
    /// The message.
    pub message: Message,
}

/// A connection that a handler has ended by [`Host::disconnect`](crate::Host::disconnect).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnection {
    /// The connection.
    pub connection: ConnectionId,
    /// The Reason Code that its client gets.
    pub reason_code: ReasonCode,
    /// The properties that it gets.
    pub properties: PropertiesBuf,
}

/// A message of a handler to itself that waits for its time: [`Host::send_info`](crate::Host::send_info) with a delay, and
/// [`Host::send_info_every`](crate::Host::send_info_every).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timer {
    /// Its number.
    pub id: TimerId,
    /// Who gets it.
    pub target: Target,
    /// What it is.
    pub kind: String,
    /// Its bytes.
    pub data: Vec<u8>,
    /// How long it still takes.
    pub due_in: Duration,
    /// How long after that it comes again; `None` if it comes once.
    pub interval: Option<Duration>,
}

/// How a connection has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// How.
    pub kind: DisconnectKind,
    /// The Reason Code that the client has sent or was sent, or that describes the end best.
    pub reason_code: ReasonCode,
    /// The properties that the client got.
    pub properties: PropertiesBuf,
    /// What there is to say beyond that: why a panic happened, what [`InfoAction::Stop`](crate::InfoAction::Stop) says.
    pub text: String,
    /// What the handler has said about the Will Message, if there was one and its client has not taken it back.
    pub will: Option<PublishVerdict>,
}

/// A client that was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The Reason Code of CONNACK.
    pub reason_code: ReasonCode,
    /// Its properties.
    pub properties: PropertiesBuf,
    /// [`DisconnectKind::Refused`], or [`DisconnectKind::HandlerFailed`] if the handler could not answer.
    pub kind: DisconnectKind,
    /// The last line that the host has logged about it: what the error or the panic says. Empty if it was simply refused.
    pub why: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the client was not let in: {}", self.reason_code)?;
        if self.why.is_empty() { Ok(()) } else { write!(f, " ({})", self.why) }
    }
}

impl std::error::Error for Refused {}

/// A value of a counter, gauge or histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Recorded {
    /// How often something was added, set or put in.
    pub count: u64,
    /// The sum of what was added or put in; of a gauge, what it was set to last.
    pub value: f64,
}
