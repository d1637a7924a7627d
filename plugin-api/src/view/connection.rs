//! A connection: its beginning, who it is, its end.

use std::fmt;
use std::net::SocketAddr;

use super::{Publish, Transport};
use crate::abi::{RawAuth, RawConnect, RawConnectionInfo, RawDisconnect};
use crate::{Properties, ReasonCode};

/// The number of a Network Connection, unique while the server runs.
///
/// It addresses this connection and no successor: the same client that connects again has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Network Connection that has just been accepted.
#[derive(Clone, Copy)]
pub struct ConnectionInfo<'a> {
    raw: &'a RawConnectionInfo<'a>,
}

impl<'a> ConnectionInfo<'a> {
    pub(crate) const fn new(raw: &'a RawConnectionInfo<'a>) -> Self {
        Self { raw }
    }

    /// The connection, for [`Host::disconnect`](crate::Host::disconnect) and [`Host::send_info`](crate::Host::send_info).
    #[must_use]
    pub const fn connection(&self) -> ConnectionId {
        ConnectionId(self.raw.connection)
    }

    /// Address and port of the peer.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.raw.peer.into()
    }

    /// Name of the listener that accepted it.
    #[must_use]
    pub fn listener(&self) -> &'a str {
        self.raw.listener.as_str()
    }

    /// How the connection comes, and what is known of the peer besides its address: TLS, the request of a WebSocket, Unix
    /// credentials.
    #[must_use]
    pub fn transport(&self) -> Transport<'a> {
        Transport::new(self.raw.transport())
    }
}

impl fmt::Debug for ConnectionInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionInfo")
            .field("connection", &self.connection())
            .field("peer", &self.peer())
            .field("listener", &self.listener())
            .finish()
    }
}

/// A CONNECT packet, and where it came from.
#[derive(Clone, Copy)]
pub struct Connect<'a> {
    raw: &'a RawConnect<'a>,
}

impl<'a> Connect<'a> {
    pub(crate) const fn new(raw: &'a RawConnect<'a>) -> Self {
        Self { raw }
    }

    const fn flag(&self, flag: u8) -> bool {
        self.raw.flags & flag != 0
    }

    /// The Client Identifier that the client sent, or that the server or an earlier plugin gave it. It is empty if the
    /// client sent none and the server has not chosen one yet.
    #[must_use]
    pub fn client_id(&self) -> &'a str {
        self.raw.client_id.as_str()
    }

    /// Whether the client left the choice of [`client_id`](Connect::client_id) to the server.
    #[must_use]
    pub const fn is_client_id_assigned(&self) -> bool {
        self.flag(RawConnect::CLIENT_ID_ASSIGNED)
    }

    /// User Name. `None` and an empty one are different things.
    #[must_use]
    pub fn username(&self) -> Option<&'a str> {
        self.flag(RawConnect::HAS_USERNAME).then(|| self.raw.username.as_str())
    }

    /// Password. `None` and an empty one are different things.
    #[must_use]
    pub fn password(&self) -> Option<&'a [u8]> {
        self.flag(RawConnect::HAS_PASSWORD).then(|| self.raw.password.as_slice())
    }

    /// 3 for MQTT 3.1, 4 for 3.1.1, 5 for 5.0.
    #[must_use]
    pub const fn protocol_version(&self) -> u8 {
        self.raw.protocol_version
    }

    /// Keep Alive in seconds, 0 for none.
    #[must_use]
    pub const fn keep_alive_secs(&self) -> u16 {
        self.raw.keep_alive
    }

    /// Clean Start (Clean Session in 3.x).
    #[must_use]
    pub const fn clean_start(&self) -> bool {
        self.flag(RawConnect::CLEAN_START)
    }

    /// The connection; see [`ConnectionInfo::connection`].
    #[must_use]
    pub const fn connection(&self) -> ConnectionId {
        ConnectionId(self.raw.connection)
    }

    /// Address and port of the peer.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.raw.peer.into()
    }

    /// Name of the listener that accepted the connection.
    #[must_use]
    pub fn listener(&self) -> &'a str {
        self.raw.listener.as_str()
    }

    /// How the connection comes, and what is known of the peer besides its address: TLS, the request of a WebSocket, Unix
    /// credentials. With hosts before 1.1 it is plain TCP, whatever it is.
    #[must_use]
    pub fn transport(&self) -> Transport<'a> {
        Transport::new(self.raw.transport())
    }

    /// The Will Message. Whether it may be published is asked in `handle_publish`, when the client is lost.
    #[must_use]
    pub fn will(&self) -> Option<Publish<'a>> {
        self.raw.will.map(Publish::new)
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }
}

/// Leaves the password out, so that nobody logs it by mistake.
impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("client_id", &self.client_id())
            .field("username", &self.username())
            .field("has_password", &self.password().is_some())
            .field("protocol_version", &self.protocol_version())
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}

/// Where in an authentication exchange we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AuthStep {
    /// The CONNECT packet named the method.
    Start = 0,
    /// The client answers [`AuthVerdict::Continue`](crate::AuthVerdict::Continue).
    Continue = 1,
    /// A client that is connected begins anew, with the same method.
    ReAuthenticate = 2,
}

/// One step of an authentication exchange.
#[derive(Clone, Copy)]
pub struct Auth<'a> {
    raw: &'a RawAuth<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) const fn new(raw: &'a RawAuth<'a>) -> Self {
        Self { raw }
    }

    /// Authentication Method.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.raw.method.as_str()
    }

    /// Authentication Data. `None` and an empty one are different things.
    #[must_use]
    pub fn data(&self) -> Option<&'a [u8]> {
        (self.raw.flags & RawAuth::HAS_DATA != 0).then(|| self.raw.data.as_slice())
    }

    /// Where in the exchange we are.
    #[must_use]
    pub const fn step(&self) -> AuthStep {
        match self.raw.step {
            0 => AuthStep::Start,
            2 => AuthStep::ReAuthenticate,
            _ => AuthStep::Continue,
        }
    }

    /// Properties of the packet, method and data among them.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }
}

/// Leaves the data out, so that nobody logs a secret by mistake.
impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("method", &self.method()).field("step", &self.step()).finish_non_exhaustive()
    }
}

/// Makes [`DisconnectKind`] and the way back from its number.
macro_rules! disconnect_kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal),* $(,)?) => {
        /// How a connection ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum DisconnectKind {
            $($(#[$doc])* $name = $number),*
        }

        impl DisconnectKind {
            const fn from_number(number: u8) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

disconnect_kinds! {
    /// A way that this version of `plugin-api` does not know.
    Other = 0,
    /// The client sent DISCONNECT; its Reason Code is given.
    Normal = 1,
    /// The client sent DISCONNECT and wants its Will Message published.
    WithWill = 2,
    /// The client, or the network, closed the connection without DISCONNECT.
    Closed = 3,
    /// Nothing arrived for one and a half times the Keep Alive.
    KeepAliveTimeout = 4,
    /// Another connection has taken over the session.
    TakenOver = 5,
    /// The server ended it: by a verdict, by [`Host::disconnect`](crate::Host::disconnect), or by its operator.
    ServerDisconnect = 6,
    /// The server shuts down.
    ServerShutdown = 7,
    /// The client broke the protocol.
    ProtocolError = 8,
    /// The client was not let in: a plugin or the server refused, or the client gave up before.
    Refused = 9,
    /// A plugin could not answer, by a panic for example.
    HandlerFailed = 10,
    /// A plugin answered [`InfoAction::Stop`](crate::InfoAction::Stop).
    Stopped = 11,
    /// A bound of the server was exceeded.
    LimitExceeded = 12,
}

/// Why a connection ended.
#[derive(Clone, Copy)]
pub struct DisconnectReason<'a> {
    raw: &'a RawDisconnect<'a>,
}

impl<'a> DisconnectReason<'a> {
    pub(crate) const fn new(raw: &'a RawDisconnect<'a>) -> Self {
        Self { raw }
    }

    /// How it ended.
    #[must_use]
    pub const fn kind(&self) -> DisconnectKind {
        DisconnectKind::from_number(self.raw.kind)
    }

    /// The Reason Code that the client sent or was sent, or that describes the end best.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        ReasonCode(self.raw.reason_code)
    }

    /// What there is to say beyond that, for people; empty if nothing. For
    /// [`DisconnectKind::Stopped`] it is the text that the plugin gave.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.raw.text.as_str()
    }
}

impl fmt::Debug for DisconnectReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DisconnectReason")
            .field("kind", &self.kind())
            .field("reason_code", &self.reason_code())
            .field("text", &self.text())
            .finish()
    }
}
