//! What a handler is shown: views over the packet in the host's buffer, valid for the length of one call.

use std::fmt;
use std::net::SocketAddr;

use crate::abi::{
    RawAck, RawAuth, RawConnect, RawConnectionInfo, RawDisconnect, RawInfo, RawPublish, RawSubscribe, RawSubscription,
    RawUnsubscribe,
};
use crate::{Properties, QoS, ReasonCode, topic};

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

    /// The Will Message. Whether it may be published is asked again, in `handle_publish`, when it is due.
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

    /// Whether this plugin is asked once more, because a later one has changed the topic. Answering
    /// [`ForwardChanged`](crate::PublishVerdict::ForwardChanged) now refuses the message.
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

/// When a subscription gets the retained messages that match it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    Send = 0,
    /// At a SUBSCRIBE that is not a repetition.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// One entry of a SUBSCRIBE packet.
#[derive(Clone, Copy)]
pub struct Subscription<'a> {
    raw: &'a RawSubscription<'a>,
}

impl<'a> Subscription<'a> {
    const fn flag(&self, flag: u8) -> bool {
        self.raw.flags & flag != 0
    }

    /// Topic Filter, without `$share/{ShareName}/`.
    #[must_use]
    pub fn filter(&self) -> &'a str {
        self.raw.filter.as_str()
    }

    /// The levels of the Topic Filter.
    pub fn levels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        topic::levels(self.filter())
    }

    /// ShareName of a Shared Subscription.
    #[must_use]
    pub fn share_name(&self) -> Option<&'a str> {
        self.flag(RawSubscription::SHARED).then(|| self.raw.share_name.as_str())
    }

    /// Requested QoS.
    #[must_use]
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.raw.qos).unwrap_or(QoS::AtMostOnce)
    }

    /// No Local: the client does not want its own messages back.
    #[must_use]
    pub const fn no_local(&self) -> bool {
        self.flag(RawSubscription::NO_LOCAL)
    }

    /// Retain As Published: messages keep the RETAIN that they were published with.
    #[must_use]
    pub const fn retain_as_published(&self) -> bool {
        self.flag(RawSubscription::RETAIN_AS_PUBLISHED)
    }

    /// Retain Handling.
    #[must_use]
    pub const fn retain_handling(&self) -> RetainHandling {
        match self.raw.retain_handling {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        }
    }

    /// The Reason Code as it stands: the QoS that the server and earlier plugins grant, or the error they refuse with.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        ReasonCode(self.raw.reason_code)
    }
}

impl fmt::Debug for Subscription<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("filter", &self.filter())
            .field("share_name", &self.share_name())
            .field("qos", &self.qos())
            .finish_non_exhaustive()
    }
}

/// A SUBSCRIBE packet.
#[derive(Clone, Copy)]
pub struct Subscribe<'a> {
    raw: &'a RawSubscribe<'a>,
}

impl<'a> Subscribe<'a> {
    pub(crate) const fn new(raw: &'a RawSubscribe<'a>) -> Self {
        Self { raw }
    }

    /// Its entries, in order; at least one.
    pub fn subscriptions(&self) -> impl ExactSizeIterator<Item = Subscription<'a>> + use<'a> {
        self.raw.subscriptions.as_slice().iter().map(|raw| Subscription { raw })
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }
}

impl fmt::Debug for Subscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.subscriptions()).finish()
    }
}

/// An UNSUBSCRIBE packet.
#[derive(Clone, Copy)]
pub struct Unsubscribe<'a> {
    raw: &'a RawUnsubscribe<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) const fn new(raw: &'a RawUnsubscribe<'a>) -> Self {
        Self { raw }
    }

    /// Its Topic Filters, in order, as they were sent ([`topic::split_share`] takes a shared one apart); at least one.
    pub fn filters(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        self.raw.filters.as_slice().iter().map(|filter| filter.as_str())
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }
}

impl fmt::Debug for Unsubscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.filters()).finish()
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

/// A message for `handle_info`.
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
