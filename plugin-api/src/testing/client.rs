//! The clients of a test.

use std::fmt;
use std::net::SocketAddr;

use super::TestHost;
use super::connection::{Connection, refused};
use super::effects::{Ended, Refused};
use super::transport::TestTransport;
use super::world::Granted;
use crate::abi::RawDeliver;
use crate::topic::{self, Share};
use crate::{
    Accept, AckKind, AuthVerdict, ConnectionId, DeliverCause, DeliverVerdict, DisconnectKind, Message, Origin,
    PropertiesBuf, Property, PublishVerdict, QoS, ReasonCode, SubscribeVerdict, UnsubscribeVerdict,
};

/// What a client answers to a challenge of an authentication exchange. What it is called with at the end, the last data of the
/// server, it need not answer.
type Reply = Box<dyn FnMut(&[u8]) -> Vec<u8>>;

/// For how long a session is kept without its client, in seconds, where the broker is not told otherwise.
const SESSION_EXPIRY_SECS_MAX: u32 = 7 * 24 * 60 * 60;

/// Section 4.7.2: the broker keeps clients from publishing there.
fn is_of_server(topic: &str) -> bool {
    topic::levels(topic).next() == Some("$SYS")
}

/// A client that is about to connect: MQTT 5.0, Clean Start, without User Name and Password, from 192.0.2.1, unless something
/// else is said.
pub struct Connecting {
    host: TestHost,
    pub(super) client_id: String,
    pub(super) is_assigned: bool,
    pub(super) username: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) protocol_version: u8,
    pub(super) keep_alive_secs: u16,
    pub(super) clean_start: bool,
    pub(super) peer: SocketAddr,
    pub(super) listener: String,
    pub(super) transport: TestTransport,
    pub(super) will: Option<Message>,
    pub(super) properties: PropertiesBuf,
    pub(super) auth: Option<(String, Vec<u8>, Reply)>,
}

impl Connecting {
    pub(super) fn new(host: TestHost, client_id: &str) -> Self {
        Self {
            host,
            client_id: client_id.to_owned(),
            is_assigned: false,
            username: None,
            password: None,
            protocol_version: 5,
            keep_alive_secs: 60,
            clean_start: true,
            peer: SocketAddr::from(([192, 0, 2, 1], 50_000)),
            listener: "tcp://127.0.0.1:1883".to_owned(),
            transport: TestTransport::tcp(),
            will: None,
            properties: PropertiesBuf::new(),
            auth: None,
        }
    }

    /// User Name.
    #[must_use]
    pub fn username(self, username: impl Into<String>) -> Self {
        Self { username: Some(username.into()), ..self }
    }

    /// Password.
    #[must_use]
    pub fn password(self, password: impl Into<Vec<u8>>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// 3 for MQTT 3.1, 4 for 3.1.1, 5 for 5.0.
    #[must_use]
    pub fn protocol_version(self, version: u8) -> Self {
        Self { protocol_version: version, ..self }
    }

    /// Keep Alive in seconds, 0 for none. Nothing here ends a connection that is silent.
    #[must_use]
    pub fn keep_alive_secs(self, secs: u16) -> Self {
        Self { keep_alive_secs: secs, ..self }
    }

    /// Clean Start.
    #[must_use]
    pub fn clean_start(self, clean_start: bool) -> Self {
        Self { clean_start, ..self }
    }

    /// Session Expiry Interval in seconds: how long the session goes on behind the connection. For 3.x clients it is
    /// [`clean_start`](Connecting::clean_start) that says so.
    #[must_use]
    pub fn session_expiry_interval(self, secs: u32) -> Self {
        self.property(Property::SessionExpiryInterval(secs))
    }

    /// The server has chosen the Client Identifier, as the client has sent none.
    #[must_use]
    pub fn client_id_assigned(self) -> Self {
        Self { is_assigned: true, ..self }
    }

    /// The client's address.
    #[must_use]
    pub fn peer(self, peer: SocketAddr) -> Self {
        Self { peer, ..self }
    }

    /// The listener that it comes by.
    #[must_use]
    pub fn listener(self, listener: impl Into<String>) -> Self {
        Self { listener: listener.into(), ..self }
    }

    /// How it comes, and what is known of it by that: its certificate, the headers of its WebSocket.
    #[must_use]
    pub fn transport(self, transport: TestTransport) -> Self {
        Self { transport, ..self }
    }

    /// Will Message. It is asked about when the connection ends otherwise than by [`TestClient::disconnect`].
    #[must_use]
    pub fn will(self, will: Message) -> Self {
        Self { will: Some(will), ..self }
    }

    /// A property of CONNECT. One that cannot be sent is left out; see [`PropertiesBuf::with`].
    #[must_use]
    pub fn property(mut self, property: Property<'_>) -> Self {
        self.properties = self.properties.with(property);
        self
    }

    /// Enhanced authentication: the method, the data in CONNECT, and how the client answers a challenge.
    ///
    /// ```no_run
    /// # use plugin_api::testing::TestHost;
    /// # fn test(host: &TestHost) -> Result<(), plugin_api::testing::Refused> {
    /// let client = host.client("c1").authenticate("DOUBLE", b"1", |challenge| [challenge, challenge].concat()).connect()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn authenticate(
        self,
        method: &str,
        data: impl Into<Vec<u8>>,
        reply: impl FnMut(&[u8]) -> Vec<u8> + 'static,
    ) -> Self {
        let data = data.into();
        let connecting =
            self.property(Property::AuthenticationMethod(method)).property(Property::AuthenticationData(&data));
        Self { auth: Some((method.to_owned(), data, Box::new(reply))), ..connecting }
    }

    /// It connects, and is let in.
    ///
    /// # Errors
    /// The handler does not let it in. If it could not answer, [`Refused::kind`] says so.
    pub fn connect(mut self) -> Result<TestClient, Refused> {
        let host = self.host.clone();
        if self.will.as_ref().is_some_and(|will| is_of_server(&will.topic)) {
            return Err(refused(ReasonCode::NOT_AUTHORIZED, PropertiesBuf::new()));
        }
        let opened = host.inner.open(&mut self);
        host.settle();
        let (number, overrides) = opened?;
        let accepted = Accept {
            client_id: overrides.client_id,
            keep_alive_secs: overrides.keep_alive,
            session_expiry_secs: overrides.session_expiry,
            properties: overrides.properties,
        };
        Ok(TestClient { host, number, accepted })
    }

    /// Session Expiry Interval, in seconds.
    pub(super) fn session_expiry_secs(&self) -> u32 {
        match (self.protocol_version, self.clean_start) {
            (5, _) => {
                self.properties.as_properties().session_expiry_interval().unwrap_or(0).min(SESSION_EXPIRY_SECS_MAX)
            }
            (_, true) => 0,
            (_, false) => SESSION_EXPIRY_SECS_MAX,
        }
    }
}

impl fmt::Debug for Connecting {
    /// Leaves password and data out, as everything does that shows what clients send.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// A client that has been let in. Dropping it does not end its connection.
///
/// What it does to a connection that has ended panics: look at [`ended`](TestClient::ended) first.
pub struct TestClient {
    host: TestHost,
    number: u64,
    accepted: Accept,
}

impl TestClient {
    /// The Client Identifier that counts.
    #[must_use]
    pub fn client_id(&self) -> String {
        self.connection().client_id
    }

    /// The connection, as the handler knows it.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        ConnectionId(self.number)
    }

    /// What the handler has changed of what the client asked for.
    #[must_use]
    pub fn accepted(&self) -> &Accept {
        &self.accepted
    }

    /// How the connection has ended; `None` while it has not.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.host.settle();
        self.host.inner.ended(self.number)
    }

    /// The messages that it has been sent since this was called last: by [`Host::send`](crate::Host::send), by
    /// [`InfoAction::Publish`](crate::InfoAction::Publish), and by [`deliver`](TestClient::deliver).
    #[must_use]
    pub fn take_received(&self) -> Vec<Message> {
        self.host.settle();
        let mut world = self.host.inner.services.world();
        world.clients.get_mut(&self.number).map(|client| std::mem::take(&mut client.received)).unwrap_or_default()
    }

    /// `handle_publish`: publishes with QoS 0. The answer is what the broker would do: a refusal after an error, and
    /// a disconnection with 0x83, which has happened then, after a panic.
    #[track_caller]
    pub fn publish(&self, topic: &str, payload: impl AsRef<[u8]>) -> PublishVerdict {
        self.publish_message(&Message::new(topic, payload.as_ref()))
    }

    /// The same with QoS, RETAIN and properties. To `$SYS` no client publishes: the handler is not asked.
    ///
    /// # Panics
    /// The topic is no Topic Name: the broker would not ask anybody. The connection has ended.
    #[track_caller]
    pub fn publish_message(&self, message: &Message) -> PublishVerdict {
        assert!(topic::is_valid_name(&message.topic), "{:?} is not a Topic Name", message.topic);
        self.is_open();
        if is_of_server(&message.topic) {
            return PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED);
        }
        let verdict = self.host.inner.publish(self.number, message);
        self.host.settle();
        verdict
    }

    /// `handle_subscribe`: subscribes to one Topic Filter, with QoS 2.
    #[track_caller]
    pub fn subscribe(&self, filter: &str) -> SubscribeVerdict {
        self.subscribe_all(&[(filter, QoS::ExactlyOnce)])
    }

    /// The same for several, with the QoS that is asked for.
    ///
    /// [`SubscribeVerdict::Grant`]: everything is granted as it was asked for; otherwise there is a Reason Code for each.
    ///
    /// # Panics
    /// One of them is no Topic Filter. The connection has ended.
    #[track_caller]
    pub fn subscribe_all(&self, filters: &[(&str, QoS)]) -> SubscribeVerdict {
        filters.iter().for_each(|(filter, _)| is_filter(filter));
        self.is_open();
        let granted = |qos| Granted { qos, flags: 0, retain_handling: 0, identifier: 0 };
        let wanted: Vec<_> = filters.iter().map(|(filter, qos)| ((*filter).to_owned(), granted(*qos))).collect();
        let verdict = self.host.inner.subscribe(self.number, &wanted);
        self.host.settle();
        verdict
    }

    /// The Topic Filters that it is subscribed to, in their order, with the QoS that was granted.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<(String, QoS)> {
        let client_id = self.client_id();
        self.host.settle();
        let world = self.host.inner.services.world();
        let session = world.sessions.get(&client_id);
        session
            .into_iter()
            .flat_map(|session| &session.subscriptions)
            .map(|(f, granted)| (f.clone(), granted.qos))
            .collect()
    }

    /// `handle_unsubscribe`. [`UnsubscribeVerdict::Allow`]: nothing is refused.
    ///
    /// # Panics
    /// One of them is no Topic Filter. The connection has ended.
    #[track_caller]
    pub fn unsubscribe(&self, filters: &[&str]) -> UnsubscribeVerdict {
        filters.iter().for_each(|filter| is_filter(filter));
        self.is_open();
        let verdict = self.host.inner.unsubscribe(self.number, filters);
        self.host.settle();
        verdict
    }

    /// `handle_deliver`: a message is about to be sent to this client; another client has just published it, or whatever
    /// [`Delivery`] says.
    #[track_caller]
    pub fn deliver(&self, delivery: impl Into<Delivery>) -> DeliverVerdict {
        self.is_open();
        let verdict = self.host.inner.deliver(self.number, &delivery.into());
        self.host.settle();
        verdict
    }

    /// `handle_puback`: it acknowledges a message that it was sent with this token (0 for none) and QoS 1.
    #[track_caller]
    pub fn acknowledge(&self, token: u64) {
        self.acknowledge_with(token, AckKind::Puback, ReasonCode::SUCCESS);
    }

    /// The same for other acknowledgements.
    #[track_caller]
    pub fn acknowledge_with(&self, token: u64, kind: AckKind, reason_code: ReasonCode) {
        self.is_open();
        self.host.inner.acknowledge(self.number, token, kind, reason_code);
        self.host.settle();
    }

    /// `handle_auth`: the client, which has come with [`Connecting::authenticate`], authenticates again. A refusal has ended the
    /// connection.
    #[track_caller]
    pub fn authenticate_again(&self, data: impl Into<Vec<u8>>, mut reply: impl FnMut(&[u8]) -> Vec<u8>) -> AuthVerdict {
        self.is_open();
        let verdict = self.host.inner.authenticate_again(self.number, data.into(), &mut reply);
        self.host.settle();
        verdict
    }

    /// `handle_info`: a message of the handler's own, as if another part of it had sent it.
    #[track_caller]
    pub fn info(&self, kind: &str, data: impl AsRef<[u8]>) {
        self.is_open();
        self.host.inner.hand_info(
            self.number,
            &crate::abi::RawInfo {
                kind: kind.into(),
                data: data.as_ref().into(),
                connection: 0,
                timer: 0,
                sender: crate::abi::RawInfo::SENDER_PLUGIN,
                extension: std::ptr::null(),
            },
        );
        self.host.settle();
    }

    /// It leaves with DISCONNECT: `handle_disconnect`, and its Will Message is forgotten.
    pub fn disconnect(&self) -> Ended {
        self.end(DisconnectKind::Normal, ReasonCode::NORMAL_DISCONNECTION)
    }

    /// It is lost, without DISCONNECT: its Will Message is asked about, then `handle_disconnect`.
    pub fn lose(&self) -> Ended {
        self.end(DisconnectKind::Closed, ReasonCode::UNSPECIFIED_ERROR)
    }

    /// The connection ends in any other way. If it has ended already, nothing happens; the answer says how.
    pub fn end(&self, kind: DisconnectKind, reason_code: ReasonCode) -> Ended {
        self.host.settle();
        self.host.inner.leave(self.number, kind, reason_code);
        self.host.settle();
        self.host.inner.ended(self.number).expect("it has ended now")
    }

    fn connection(&self) -> Connection {
        self.host.inner.connection(self.number)
    }

    #[track_caller]
    fn is_open(&self) {
        if let Some(ended) = self.ended() {
            panic!("the connection of {:?} has ended: {ended:?}", self.client_id());
        }
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient")
            .field("client_id", &self.client_id())
            .field("connection", &self.number)
            .finish_non_exhaustive()
    }
}

/// A message on its way to a client, for [`TestClient::deliver`]: just published by a client, unless something else is said.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub(super) message: Message,
    origin: u8,
    plugin: String,
    cause: u8,
    pub(super) shared: bool,
    pub(super) identifiers: Vec<u32>,
}

impl Delivery {
    /// This message.
    #[must_use]
    pub fn new(message: Message) -> Self {
        let (origin, cause) = (RawDeliver::ORIGIN_CLIENT, RawDeliver::CAUSE_PUBLISHED);
        Self { message, origin, plugin: String::new(), cause, shared: false, identifiers: Vec::new() }
    }

    /// Who has published it.
    #[must_use]
    pub fn published_by(self, origin: Origin<'_>) -> Self {
        let (origin, plugin) = match origin {
            Origin::Client => (RawDeliver::ORIGIN_CLIENT, ""),
            Origin::Plugin(name) => (RawDeliver::ORIGIN_PLUGIN, name),
            Origin::Will => (RawDeliver::ORIGIN_WILL, ""),
            Origin::Server => (RawDeliver::ORIGIN_SERVER, ""),
        };
        Self { origin, plugin: plugin.to_owned(), ..self }
    }

    /// Why it is delivered now.
    #[must_use]
    pub fn because(self, cause: DeliverCause) -> Self {
        let cause = match cause {
            DeliverCause::Published => RawDeliver::CAUSE_PUBLISHED,
            DeliverCause::Retained => RawDeliver::CAUSE_RETAINED,
            DeliverCause::Queued => RawDeliver::CAUSE_QUEUED,
            DeliverCause::Sent => RawDeliver::CAUSE_SENT,
        };
        Self { cause, ..self }
    }

    /// A Shared Subscription has chosen the client.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    /// Subscription Identifiers of the subscriptions that it matches.
    #[must_use]
    pub fn identifiers(self, identifiers: impl Into<Vec<u32>>) -> Self {
        Self { identifiers: identifiers.into(), ..self }
    }

    pub(super) fn origin(&self) -> (u8, &str) {
        (self.origin, &self.plugin)
    }

    pub(super) const fn cause(&self) -> u8 {
        self.cause
    }
}

impl From<Message> for Delivery {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}

#[track_caller]
fn is_filter(written: &str) {
    let plain = match topic::split_share(written) {
        Share::None => Some(written),
        Share::Group { filter, .. } => Some(filter),
        Share::Malformed => None,
    };
    assert!(plain.is_some_and(topic::is_valid_filter), "{written:?} is not a Topic Filter");
}
