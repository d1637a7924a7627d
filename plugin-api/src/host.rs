//! What the host does for a handler.

use std::fmt;
use std::time::Duration;

use crate::abi::{RawField, RawHost, RawInfoRequest, RawMessage, RawPublish, RawTarget, Status};
use crate::ticket::{self, Deferrable, Later, Ticket};
use crate::{ConnectionId, Disconnect, Message, TimerId};

/// The services of the host. [`Handler::init`](crate::Handler::init) gets them; they can be cloned, kept, and used on any
/// thread.
///
/// What a callback asks for takes effect after it has returned: it never calls back into the handler.
#[derive(Clone)]
pub struct Host {
    pub(crate) raw: RawHost,
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
    /// The plugin as a whole: [`handle_event`](crate::Handler::handle_event).
    Plugin,
}

impl InfoTarget<'_> {
    pub(crate) fn raw(&self) -> RawTarget<'_> {
        let (kind, connection, client_id) = match *self {
            Self::Connection(connection) => (0, connection.0, ""),
            Self::Client(client_id) => (1, 0, client_id),
            Self::All => (2, 0, ""),
            Self::Plugin => (3, 0, ""),
        };
        RawTarget { client_id: client_id.as_bytes().into(), connection, kind, extension: std::ptr::null() }
    }
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
    ///
    /// A timer is refused like this, too, where those of the plugin take as much as the host's `plugin_timer_bytes_max` says.
    Full,
    /// The server does not run: not yet, not any more, or the plugin is only being checked.
    NotRunning,
    /// There is no such client, connection, ticket, timer, key or subscription.
    NotFound,
    /// Nobody waits for this answer any more: its deadline has passed, or its connection has ended.
    Gone,
    /// This cannot be asked for here.
    NotHere,
    /// This host does not have the service.
    NotSupported,
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
            Self::NotFound => f.write_str("the host did not find what a request was about"),
            Self::Gone => f.write_str("the host does not wait for this answer any more"),
            Self::NotHere => f.write_str("the host refused a request: it cannot be made here"),
            Self::NotSupported => f.write_str("this host does not have the service"),
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
        self.log_fields(level, target, text, &[]);
    }

    /// As [`log_to`](Host::log_to), with fields: names and values, which the host writes beside the text. The line also
    /// says which connection's callback it came from.
    ///
    /// ```no_run
    /// # use plugin_api::{Host, Level};
    /// # fn f(host: &Host) {
    /// host.log_fields(Level::Info, "quota", "used up", &[("tenant", &"acme"), ("messages", &100)]);
    /// # }
    /// ```
    pub fn log_fields(
        &self,
        level: Level,
        target: &str,
        text: impl fmt::Display,
        fields: &[(&str, &dyn fmt::Display)],
    ) {
        if !self.log_enabled(level) {
            return;
        }
        let values: Vec<String> = fields.iter().map(|(_, value)| value.to_string()).collect();
        let fields: Vec<RawField<'_>> = fields
            .iter()
            .zip(&values)
            .map(|((name, _), value)| RawField { name: name.as_bytes().into(), value: value.as_bytes().into() })
            .collect();
        self.raw.log(level as u8, target, &text.to_string(), &fields);
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

    /// Publishes a message to whoever has subscribed. It passes no plugin's `handle_publish`, this one's neither, and does
    /// not come back to this plugin's `handle_deliver`.
    ///
    /// # Errors
    /// The topic or a property is not valid, the message is too large, a queue is full, or the server does not run.
    /// [`HostError::NotHere`]: in a callback about a message that eight publishes of plugins, each because of the one before,
    /// have led to.
    pub fn publish(&self, message: &Message) -> Result<(), HostError> {
        result(self.raw.publish(&raw_message(message)))
    }

    /// Sends a message to one connection, or to one client whether it is connected or not, whatever it has subscribed to.
    /// With QoS 1 or 2 it waits in the session's queue until the client takes it. It passes no plugin's `handle_publish`, and
    /// comes to the `handle_deliver` of all other plugins.
    ///
    /// # Errors
    /// As [`publish`](Host::publish), or the target is neither a connection nor a client ([`HostError::Invalid`]).
    /// [`HostError::NotFound`] only for a [`ConnectionId`] that the host has never given out: whether a connection has ended,
    /// or a client has a session, another thread knows. A message for a client without a session is dropped, and
    /// `handle_message_dropped` says so.
    pub fn send(&self, target: InfoTarget<'_>, message: &Message) -> Result<(), HostError> {
        result(self.raw.send(&target.raw(), &raw_message(message)))
    }

    /// Sends a message to [`handle_info`](crate::Handler::handle_info) of this plugin (to
    /// [`handle_event`](crate::Handler::handle_event) for [`InfoTarget::Plugin`]), now or after a delay (with the precision
    /// of the server's timers, milliseconds at best). One for a connection ends with it, and takes no room any more.
    ///
    /// What is sent in `init` comes once the plugin decides, and not at all if it does not come to that. A delayed or repeated one
    /// then takes the place of one with the same target, kind and data that the version before has left, so that a swap
    /// leads to no second one.
    ///
    /// The number that is returned is that of its timer, for [`cancel_timer`](Host::cancel_timer).
    ///
    /// # Errors
    /// `kind` and `data` have more than 64 KiB, a queue is full, there is no room for another timer (`plugin_timer_bytes_max`), or
    /// the server does not run.
    pub fn send_info(
        &self,
        target: InfoTarget<'_>,
        kind: &str,
        data: &[u8],
        delay: Option<Duration>,
    ) -> Result<TimerId, HostError> {
        self.start_timer(target, kind, data, delay.unwrap_or_default(), Duration::ZERO)
    }

    /// As [`send_info`](Host::send_info), again and again: first after `interval`, which is at least a millisecond; times that a
    /// server with much to do has missed are left out. It goes on until it is cancelled or, if it is for a connection, until
    /// that has ended; and over a swap, as it is the plugin's and not an instance's.
    ///
    /// # Errors
    /// As there.
    pub fn send_info_every(
        &self,
        target: InfoTarget<'_>,
        kind: &str,
        data: &[u8],
        interval: Duration,
    ) -> Result<TimerId, HostError> {
        let interval = interval.max(Duration::from_millis(1));
        self.start_timer(target, kind, data, interval, interval)
    }

    fn start_timer(
        &self,
        target: InfoTarget<'_>,
        kind: &str,
        data: &[u8],
        delay: Duration,
        interval: Duration,
    ) -> Result<TimerId, HostError> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let request = RawInfoRequest {
            target: target.raw(),
            kind: kind.as_bytes().into(),
            data: data.into(),
            delay_ms: ms(delay),
            interval_ms: ms(interval),
            extension: std::ptr::null(),
        };
        let mut timer = 0;
        result(self.raw.send_info(&request, &mut timer)).map(|()| TimerId(timer))
    }

    /// Stops a timer of this plugin's. What it has brought about already stays.
    ///
    /// # Errors
    /// The server does not run, or a queue is full. A timer that has ended already is no error.
    pub fn cancel_timer(&self, timer: TimerId) -> Result<(), HostError> {
        result(self.raw.cancel_timer(timer.0))
    }

    /// Takes a ticket, to answer the callback that runs on this thread later, on any thread: the callback returns the
    /// verdict's `Later`, and the [`Ticket`] waits for the answer. See "Answering later" in the crate's documentation.
    ///
    /// ```
    /// # use plugin_api::{Connect, ConnectVerdict, Error, Host};
    /// # fn lookup(_: &str) -> bool { true }
    /// fn handle_connect(host: &Host, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
    ///     let client_id = connect.client_id().to_owned();
    ///     let (ticket, later) = host.ticket::<ConnectVerdict>()?;
    ///     std::thread::spawn(move || match lookup(&client_id) {
    ///         true => ticket.answer(ConnectVerdict::accept()),
    ///         false => ticket.fail("nobody knows it"),
    ///     });
    ///     Ok(ConnectVerdict::Later(later))
    /// }
    /// ```
    ///
    /// A ticket that is taken from the `Host` of another instance (another plugin's, or another version's) is void: a callback
    /// that answers with it is refused.
    ///
    /// # Errors
    /// - [`HostError::NotHere`]: no callback of this instance that can be answered later runs on this thread.
    /// - [`HostError::Invalid`]: the callback has taken its ticket already.
    /// - [`HostError::Full`]: too many of this plugin's tickets are open.
    pub fn ticket<A: Deferrable>(&self) -> Result<(Ticket<A>, Later<A>), HostError> {
        ticket::take(self.raw)
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

fn raw_message(message: &Message) -> RawMessage<'_> {
    RawMessage {
        topic: message.topic.as_bytes().into(),
        payload: message.payload.as_slice().into(),
        properties: message.properties.as_bytes().into(),
        token: message.token,
        qos: message.qos as u8,
        flags: if message.retain { RawPublish::RETAIN } else { 0 },
        extension: std::ptr::null(),
    }
}

pub(crate) const fn result(status: Status) -> Result<(), HostError> {
    match status {
        Status::OK => Ok(()),
        Status::INVALID => Err(HostError::Invalid),
        Status::TOO_LARGE => Err(HostError::TooLarge),
        Status::FULL => Err(HostError::Full),
        Status::NOT_RUNNING => Err(HostError::NotRunning),
        Status::NOT_FOUND => Err(HostError::NotFound),
        Status::GONE => Err(HostError::Gone),
        Status::NOT_HERE => Err(HostError::NotHere),
        Status::NOT_SUPPORTED => Err(HostError::NotSupported),
        Status(number) => Err(HostError::Other(number)),
    }
}
