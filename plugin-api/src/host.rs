//! What the host does for a handler.

use std::fmt;
use std::time::Duration;

use crate::abi::{RawHost, RawMessage, RawPublish, Status};
use crate::{ConnectionId, Disconnect, Message};

/// The services of the host. [`Handler::init`](crate::Handler::init) gets them; they can be cloned, kept, and used on any
/// thread.
///
/// What a callback asks for takes effect after it has returned: it never calls back into the handler.
#[derive(Clone)]
pub struct Host {
    raw: RawHost,
}

/// How important a line in the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Somebody has to do something.
    Error = 1,
    /// Something is odd.
    Warn = 2,
    /// What an operator wants to read.
    Info = 3,
    /// What helps to find a fault.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

/// Who gets a message of [`Host::send_info`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InfoTarget<'a> {
    /// One Network Connection.
    Connection(ConnectionId),
    /// The connection of the client with this Client Identifier, if it is connected when the message arrives.
    Client(&'a str),
    /// Every connection.
    All,
}

/// Why the host did not take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostError {
    /// A topic, a property or a Reason Code in it is not valid.
    Invalid,
    /// It is larger than the host takes: data of an info message beyond 64 KiB, a message whose packet would be larger
    /// than the largest that clients may send.
    TooLarge,
    /// A queue is full; the request is dropped. One for a connection, or for all of them, goes to every thread of the
    /// server, each with a queue of its own: some may have taken it, so that it has its effect there all the same, and
    /// has it again if the request is repeated.
    ///
    /// Inside a callback, where requests wait for its end, only a number of them that is too large is reported like this.
    /// One that finds a full queue afterwards is dropped there, and the host logs it.
    Full,
    /// The server does not run: not yet, not any more, or the plugin is only being checked.
    NotRunning,
    /// A reason that this version of `plugin-api` does not know.
    Other(u8),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => {
                f.write_str("the host refused a request: its topic, a property or its reason code is not valid")
            }
            Self::TooLarge => f.write_str("the host refused a request: it is too large"),
            Self::Full => f.write_str("the host dropped a request: its queue is full, try again later"),
            Self::NotRunning => f.write_str("the host refused a request: the server is not running"),
            Self::Other(number) => write!(f, "the host refused a request: status {number}"),
        }
    }
}

impl std::error::Error for HostError {}

impl Host {
    pub(crate) const fn new(raw: RawHost) -> Self {
        Self { raw }
    }

    /// Writes a line to the host's log. Nothing is formatted if the level is turned off.
    ///
    /// ```no_run
    /// # use plugin_api::{Host, Level};
    /// # fn f(host: &Host, count: u32) {
    /// host.info("ready");
    /// host.log(Level::Debug, format_args!("{count} messages so far"));
    /// # }
    /// ```
    #[inline]
    pub fn log(&self, level: Level, text: impl fmt::Display) {
        self.log_to(level, "", text);
    }

    /// As [`log`](Host::log), from a named part of the plugin: what the `log` and `tracing` crates call a target.
    #[inline]
    pub fn log_to(&self, level: Level, target: &str, text: impl fmt::Display) {
        if self.log_enabled(level) {
            self.raw.log(level as u8, target, &text.to_string());
        }
    }

    /// Whether a line of this level would be written.
    #[must_use]
    #[inline]
    pub fn log_enabled(&self, level: Level) -> bool {
        self.raw.log_enabled(level as u8)
    }

    /// Logs at [`Level::Error`].
    pub fn error(&self, text: impl fmt::Display) {
        self.log(Level::Error, text);
    }

    /// Logs at [`Level::Warn`].
    pub fn warn(&self, text: impl fmt::Display) {
        self.log(Level::Warn, text);
    }

    /// Logs at [`Level::Info`].
    pub fn info(&self, text: impl fmt::Display) {
        self.log(Level::Info, text);
    }

    /// Logs at [`Level::Debug`].
    #[inline]
    pub fn debug(&self, text: impl fmt::Display) {
        self.log(Level::Debug, text);
    }

    /// Logs at [`Level::Trace`].
    #[inline]
    pub fn trace(&self, text: impl fmt::Display) {
        self.log(Level::Trace, text);
    }

    /// Publishes a message to whoever has subscribed. It passes no plugin's `handle_publish`, this one's neither.
    ///
    /// # Errors
    /// The topic or a property is not valid, the message is too large, a queue is full, or the server does not run.
    pub fn publish(&self, message: &Message) -> Result<(), HostError> {
        result(self.raw.publish(&RawMessage {
            topic: message.topic.as_bytes().into(),
            payload: message.payload.as_slice().into(),
            properties: message.properties.as_bytes().into(),
            qos: message.qos as u8,
            flags: if message.retain { RawPublish::RETAIN } else { 0 },
            extension: std::ptr::null(),
        }))
    }

    /// Sends a message to [`handle_info`](crate::Handler::handle_info) of this plugin, now or after a delay (with the
    /// precision of the server's timers, milliseconds at best). One for a connection that has ended by then is dropped.
    ///
    /// # Errors
    /// `kind` and `data` have more than 64 KiB, a queue is full, or the server does not run.
    pub fn send_info(
        &self,
        target: InfoTarget<'_>,
        kind: &str,
        data: &[u8],
        delay: Option<Duration>,
    ) -> Result<(), HostError> {
        let target = match target {
            InfoTarget::Connection(connection) => (0, connection.0, ""),
            InfoTarget::Client(client_id) => (1, 0, client_id),
            InfoTarget::All => (2, 0, ""),
        };
        let delay = delay.unwrap_or_default().as_millis();
        let delay_ms = u64::try_from(delay).unwrap_or(u64::MAX);
        result(self.raw.send_info(target, kind, data, delay_ms))
    }

    /// Ends a connection, with a DISCONNECT packet for 5.0 clients. One that has ended already is left alone.
    ///
    /// # Errors
    /// The Reason Code is not 0x00 and below 0x80, a property cannot be sent in DISCONNECT, a queue is full, or the server
    /// does not run. An error that DISCONNECT cannot have, such as 0x86, is sent as 0x80, and logged.
    pub fn disconnect(&self, connection: ConnectionId, disconnect: Disconnect) -> Result<(), HostError> {
        let Disconnect { reason_code, properties } = disconnect;
        result(self.raw.disconnect(connection.0, reason_code.0, properties.as_bytes()))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

const fn result(status: Status) -> Result<(), HostError> {
    match status {
        Status::OK => Ok(()),
        Status::INVALID => Err(HostError::Invalid),
        Status::TOO_LARGE => Err(HostError::TooLarge),
        Status::FULL => Err(HostError::Full),
        Status::NOT_RUNNING => Err(HostError::NotRunning),
        Status(number) => Err(HostError::Other(number)),
    }
}
