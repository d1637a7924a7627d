//! Requests that outlive the call: copies of the views with the same methods, for `async fn` and for threads.
//!
//! Each can be made from its view: `owned::Publish::from(publish)`.

mod transport;

use std::fmt;
use std::net::SocketAddr;

use zeroize::Zeroize;

use crate::{AuthStep, ConnectionId, Message, Properties, PropertiesBuf, QoS, ReasonCode, RetainHandling, topic};

pub use self::transport::{Certificate, HttpRequest, Tls, Transport};

/// A CONNECT packet; see [`Connect`](crate::Connect).
#[derive(Clone)]
pub struct Connect {
    client_id: String,
    is_client_id_assigned: bool,
    username: Option<String>,
    password: Option<Vec<u8>>,
    protocol_version: u8,
    keep_alive_secs: u16,
    clean_start: bool,
    connection: ConnectionId,
    peer: SocketAddr,
    listener: String,
    transport: Transport,
    will: Option<Box<Publish>>,
    properties: PropertiesBuf,
}

impl From<&crate::Connect<'_>> for Connect {
    fn from(connect: &crate::Connect<'_>) -> Self {
        Self {
            client_id: connect.client_id().to_owned(),
            is_client_id_assigned: connect.is_client_id_assigned(),
            username: connect.username().map(str::to_owned),
            password: connect.password().map(<[u8]>::to_vec),
            protocol_version: connect.protocol_version(),
            keep_alive_secs: connect.keep_alive_secs(),
            clean_start: connect.clean_start(),
            connection: connect.connection(),
            peer: connect.peer(),
            listener: connect.listener().to_owned(),
            transport: (&connect.transport()).into(),
            will: connect.will().map(|will| Box::new((&will).into())),
            properties: connect.properties().into(),
        }
    }
}

impl Connect {
    /// See [`Connect::client_id`](crate::Connect::client_id).
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// See [`Connect::is_client_id_assigned`](crate::Connect::is_client_id_assigned).
    #[must_use]
    pub const fn is_client_id_assigned(&self) -> bool {
        self.is_client_id_assigned
    }

    /// User Name. `None` and an empty one are different things.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// Password. `None` and an empty one are different things.
    #[must_use]
    pub fn password(&self) -> Option<&[u8]> {
        self.password.as_deref()
    }

    /// 3 for MQTT 3.1, 4 for 3.1.1, 5 for 5.0.
    #[must_use]
    pub const fn protocol_version(&self) -> u8 {
        self.protocol_version
    }

    /// Keep Alive in seconds, 0 for none.
    #[must_use]
    pub const fn keep_alive_secs(&self) -> u16 {
        self.keep_alive_secs
    }

    /// Clean Start (Clean Session in 3.x).
    #[must_use]
    pub const fn clean_start(&self) -> bool {
        self.clean_start
    }

    /// The connection; see [`ConnectionInfo::connection`](crate::ConnectionInfo::connection).
    #[must_use]
    pub const fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Address and port of the peer.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Name of the listener that accepted the connection.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// How the connection came; see [`Connect::transport`](crate::Connect::transport).
    #[must_use]
    pub const fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The Will Message.
    #[must_use]
    pub fn will(&self) -> Option<&Publish> {
        self.will.as_deref()
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        self.properties.as_properties()
    }
}

/// Nothing of the password is left behind in memory that is given back.
impl Drop for Connect {
    fn drop(&mut self) {
        self.password.zeroize();
        clear(&mut self.properties);
    }
}

/// Clears properties that may contain Authentication Data.
fn clear(properties: &mut PropertiesBuf) {
    std::mem::take(properties).into_bytes().zeroize();
}

/// Leaves the password out, so that nobody logs it by mistake.
impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("has_password", &self.password.is_some())
            .field("protocol_version", &self.protocol_version)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// One step of an authentication exchange; see [`Auth`](crate::Auth).
#[derive(Clone)]
pub struct Auth {
    method: String,
    data: Option<Vec<u8>>,
    step: AuthStep,
    properties: PropertiesBuf,
}

impl From<&crate::Auth<'_>> for Auth {
    fn from(auth: &crate::Auth<'_>) -> Self {
        Self {
            method: auth.method().to_owned(),
            data: auth.data().map(<[u8]>::to_vec),
            step: auth.step(),
            properties: auth.properties().into(),
        }
    }
}

impl Auth {
    /// Authentication Method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Authentication Data. `None` and an empty one are different things.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        self.data.as_deref()
    }

    /// Where in the exchange we are.
    #[must_use]
    pub const fn step(&self) -> AuthStep {
        self.step
    }

    /// Properties of the packet, method and data among them.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        self.properties.as_properties()
    }
}

/// Nothing of the data is left behind in memory that is given back.
impl Drop for Auth {
    fn drop(&mut self) {
        self.data.zeroize();
        clear(&mut self.properties);
    }
}

/// Leaves the data out, so that nobody logs a secret by mistake.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("method", &self.method).field("step", &self.step).finish_non_exhaustive()
    }
}

/// A message that the client publishes, or its Will Message; see [`Publish`](crate::Publish).
#[derive(Clone)]
pub struct Publish {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
    dup: bool,
    packet_id: Option<u16>,
    is_will: bool,
    again: bool,
    properties: PropertiesBuf,
}

impl From<&crate::Publish<'_>> for Publish {
    fn from(publish: &crate::Publish<'_>) -> Self {
        Self {
            topic: publish.topic().to_owned(),
            payload: publish.payload().to_vec(),
            qos: publish.qos(),
            retain: publish.retain(),
            dup: publish.dup(),
            packet_id: publish.packet_id(),
            is_will: publish.is_will(),
            again: publish.again(),
            properties: publish.properties().into(),
        }
    }
}

impl Publish {
    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The levels of the Topic Name: `a`, an empty one and `b` for `a//b`.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        topic::levels(&self.topic)
    }

    /// Whether the Topic Name matches a Topic Filter.
    #[must_use]
    pub fn matches(&self, filter: &str) -> bool {
        topic::matches(filter, &self.topic)
    }

    /// Application payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// QoS.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// RETAIN.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.retain
    }

    /// DUP; see [`Publish::dup`](crate::Publish::dup).
    #[must_use]
    pub const fn dup(&self) -> bool {
        self.dup
    }

    /// Packet Identifier; `None` for QoS 0 and for a Will Message.
    #[must_use]
    pub const fn packet_id(&self) -> Option<u16> {
        self.packet_id
    }

    /// Whether it is the client's Will Message.
    #[must_use]
    pub const fn is_will(&self) -> bool {
        self.is_will
    }

    /// Whether this plugin is asked once more; see [`Publish::again`](crate::Publish::again).
    #[must_use]
    pub const fn again(&self) -> bool {
        self.again
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        self.properties.as_properties()
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("is_will", &self.is_will)
            .finish_non_exhaustive()
    }
}

/// To change and to forward instead; nothing is copied but the properties.
impl From<Publish> for Message {
    fn from(publish: Publish) -> Self {
        let properties = crate::message::properties_to_forward(publish.properties());
        let Publish { topic, payload, qos, retain, .. } = publish;
        Self { topic, payload, qos, retain, properties, token: 0 }
    }
}

/// One entry of a SUBSCRIBE packet; see [`Subscription`](crate::Subscription).
#[derive(Debug, Clone)]
pub struct Subscription {
    filter: String,
    share_name: Option<String>,
    qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: RetainHandling,
    again: bool,
    reason_code: ReasonCode,
}

impl From<&crate::Subscription<'_>> for Subscription {
    fn from(subscription: &crate::Subscription<'_>) -> Self {
        Self {
            filter: subscription.filter().to_owned(),
            share_name: subscription.share_name().map(str::to_owned),
            qos: subscription.qos(),
            no_local: subscription.no_local(),
            retain_as_published: subscription.retain_as_published(),
            retain_handling: subscription.retain_handling(),
            again: subscription.again(),
            reason_code: subscription.reason_code(),
        }
    }
}

impl Subscription {
    /// Topic Filter, without `$share/{ShareName}/`.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The levels of the Topic Filter.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        topic::levels(&self.filter)
    }

    /// ShareName of a Shared Subscription.
    #[must_use]
    pub fn share_name(&self) -> Option<&str> {
        self.share_name.as_deref()
    }

    /// Requested QoS.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// No Local.
    #[must_use]
    pub const fn no_local(&self) -> bool {
        self.no_local
    }

    /// Retain As Published.
    #[must_use]
    pub const fn retain_as_published(&self) -> bool {
        self.retain_as_published
    }

    /// Retain Handling.
    #[must_use]
    pub const fn retain_handling(&self) -> RetainHandling {
        self.retain_handling
    }

    /// Whether the subscription is there already; see [`Subscription::again`](crate::Subscription::again).
    #[must_use]
    pub const fn again(&self) -> bool {
        self.again
    }

    /// The Reason Code as it stands; see [`Subscription::reason_code`](crate::Subscription::reason_code).
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        self.reason_code
    }
}

/// A SUBSCRIBE packet; see [`Subscribe`](crate::Subscribe).
#[derive(Debug, Clone)]
pub struct Subscribe {
    subscriptions: Vec<Subscription>,
    properties: PropertiesBuf,
}

impl From<&crate::Subscribe<'_>> for Subscribe {
    fn from(subscribe: &crate::Subscribe<'_>) -> Self {
        Self {
            subscriptions: subscribe.subscriptions().map(|subscription| (&subscription).into()).collect(),
            properties: subscribe.properties().into(),
        }
    }
}

impl Subscribe {
    /// Its entries, in order; at least one.
    pub fn subscriptions(&self) -> impl ExactSizeIterator<Item = &Subscription> {
        self.subscriptions.iter()
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        self.properties.as_properties()
    }
}

/// An UNSUBSCRIBE packet; see [`Unsubscribe`](crate::Unsubscribe).
#[derive(Debug, Clone)]
pub struct Unsubscribe {
    filters: Vec<String>,
    properties: PropertiesBuf,
}

impl From<&crate::Unsubscribe<'_>> for Unsubscribe {
    fn from(unsubscribe: &crate::Unsubscribe<'_>) -> Self {
        Self {
            filters: unsubscribe.filters().map(str::to_owned).collect(),
            properties: unsubscribe.properties().into(),
        }
    }
}

impl Unsubscribe {
    /// Its Topic Filters, in order, as they were sent; at least one.
    pub fn filters(&self) -> impl ExactSizeIterator<Item = &str> {
        self.filters.iter().map(String::as_str)
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        self.properties.as_properties()
    }
}
