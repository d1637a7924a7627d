//! The trait that an author implements.

use crate::{
    Ack, Auth, AuthVerdict, Callbacks, Connect, ConnectVerdict, Connected, ConnectionInfo, Deliver, DeliverVerdict,
    DisconnectReason, Host, Info, InfoAction, MessageNotice, Publish, PublishVerdict, ReasonCode, Reject, Retained,
    StateView, Subscribe, SubscribeVerdict, Swapped, Unsubscribe, UnsubscribeVerdict,
};

#[cfg(feature = "async")]
use {
    crate::{FirstPoll, Lent, Task, owned},
    std::sync::Arc,
};

/// Any error. `?` makes one of whatever implements [`std::error::Error`], and `.into()` of a string.
///
/// A callback that decides and returns an error has refused: the host logs the text and answers the client with
/// [`ReasonCode::UNSPECIFIED_ERROR`]. The client does not see the text.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A state as it goes from one version of a plugin to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The version of its schema, in the plugin's own counting.
    pub version: u32,
    /// Its bytes, in whatever form the plugin likes. At most 1 MiB for a connection, 64 MiB for the plugin as a whole.
    pub bytes: Vec<u8>,
}

impl State {
    /// A state of this schema version.
    #[must_use]
    pub fn new(version: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { version, bytes: bytes.into() }
    }
}

/// What becomes of a connection whose state cannot be handed over at a swap, because the old version does not export it
/// or the new one does not import it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwapRule {
    /// It gets a fresh state from [`new_connection`](Handler::new_connection), and
    /// [`handle_swapped`](Handler::handle_swapped) is called.
    #[default]
    Fresh,
    /// It is disconnected; its client comes back to the new version.
    Disconnect,
}

/// What a plugin decides, and what it wants to hear of.
///
/// Write `#[handler]` in front of the `impl` block, and [`export!`](crate::export!) after it.
///
/// # Who calls what, and when
/// - [`init`](Handler::init) once, when the host loads the plugin. The value it returns is shared by all connections,
///   which are spread over several threads: `&self`, and whatever changes in it needs a lock or an atomic.
/// - [`new_connection`](Handler::new_connection) for each Network Connection that asks to be let in, before anything
///   else is asked. What it returns belongs to that connection: each callback gets it as `&mut`, one at a time.
/// - Then `handle_connect`; `handle_auth` if the client named an Authentication Method; `handle_publish`,
///   `handle_subscribe` and the others as packets arrive; and, exactly once, `handle_disconnect`, after which the state
///   is dropped.
/// - [`stop`](Handler::stop) once, when the host lets the plugin go; after it the value is dropped.
///
/// # No opinion
/// All callbacks but the first two have defaults, and a callback that is left out is never called. If no plugin has an
/// opinion, publishing and subscribing are allowed; who may connect is then up to the host's configuration.
///
/// With one exception: plugins that decide who may connect (`handle_connect`, `handle_auth`) and on one of publishing
/// (`handle_publish`) and subscribing (`handle_subscribe`, or `handle_deliver`), are taken for those that decide what clients
/// may do. The other of the two is then refused with 0x87 at listeners that other machines reach, unless the host is told
/// otherwise (`--undecided allow`): implement it as well, if only to agree.
///
/// # Time
/// A callback runs on the thread that serves its connection and many others: while it runs, they wait. What takes long is
/// answered later, by a ticket ([`Host::ticket`]) or from an `async fn`; what can only block says so with `#[blocking]`. See
/// "Answering later", "async fn" and "Callbacks that block" in the crate's documentation.
///
/// # Panics
/// A panic is caught. The connection that it happened in is closed, its state is dropped without another callback (not
/// even `handle_disconnect`), the host logs it with the plugin's name, the callback and the Client Identifier, and serves
/// everybody else. What cannot be contained is documented under "Panics" in the crate's documentation.
pub trait Handler: Send + Sync + Sized + 'static {
    /// What the plugin remembers of one connection. `()` if nothing.
    type Connection: Send + 'static;

    /// The callbacks that this handler implements.
    ///
    /// **`#[handler]` in front of the `impl` block writes this.** If the compiler says that it is missing, the attribute
    /// is.
    const CALLBACKS: Callbacks;

    /// What becomes of connections at a swap to this version whose state cannot be handed over.
    const ON_SWAP: SwapRule = SwapRule::Fresh;

    /// Those of the callbacks that may block: the host calls them on threads of a pool.
    const BLOCKING: Callbacks = Callbacks::NONE;

    /// Those of the callbacks that are `async fn`. `#[handler]` writes it.
    #[cfg(feature = "async")]
    #[doc(hidden)]
    const ASYNC: Callbacks = Callbacks::NONE;

    /// Makes the handler, from the services of the host and the text of `--plugin-config`, which is JSON (`{}` if there
    /// was none).
    ///
    /// With the feature `config` the second argument may have a type of the author's: `fn init(host: Host, config: Config)`;
    /// see "Configuration" in the crate's documentation.
    ///
    /// # Errors
    /// An error stops the host from starting, and is shown to whoever starts it: say what is wrong with the
    /// configuration and what to do.
    fn init(host: Host, config: &str) -> Result<Self, Error>;

    /// Looks at a configuration before there is an instance. `#[handler]` writes it for an `init` with a typed configuration.
    #[doc(hidden)]
    fn check_config(config: &str) -> Result<(), Error> {
        let _ = config;
        Ok(())
    }

    /// The JSON Schema of the configuration. `#[handler]` writes it for an `init` with a typed configuration.
    #[doc(hidden)]
    fn config_schema() -> Option<String> {
        None
    }

    /// Makes the state of a connection that has just been accepted.
    fn new_connection(&self, info: &ConnectionInfo<'_>) -> Self::Connection;

    /// May this client connect? Asked for each CONNECT packet.
    ///
    /// A plugin that implements this or [`handle_auth`](Handler::handle_auth) decides on connections: with it the host
    /// listens on public addresses without `--allow-anonymous`.
    ///
    /// # Errors
    /// See [`Error`].
    fn handle_connect(
        &self,
        connection: &mut Self::Connection,
        connect: &Connect<'_>,
    ) -> Result<ConnectVerdict, Error> {
        let _ = (connection, connect);
        Ok(ConnectVerdict::accept())
    }

    /// One step of enhanced authentication: after `handle_connect` accepted a client that names an Authentication
    /// Method, for each AUTH packet of the exchange, and for a re-authentication later.
    ///
    /// The plugins are asked in order whether they know the method; one that answers
    /// [`ReasonCode::BAD_AUTHENTICATION_METHOD`] does not, and the one that accepts it gets the rest of the exchange.
    ///
    /// # Errors
    /// See [`Error`].
    fn handle_auth(&self, connection: &mut Self::Connection, auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        let _ = (connection, auth);
        Ok(AuthVerdict::Error(Reject::new(ReasonCode::BAD_AUTHENTICATION_METHOD)))
    }

    /// What becomes of this message? Asked once for each message that the client publishes, before it is retained or
    /// delivered, and for its Will Message when it is lost. A Will Message that has waited is asked about
    /// [`again`](crate::Publish::again) when it is due, if a plugin was swapped or configured or has called
    /// [`Host::reauthorise`] meanwhile, or the host was started anew: with a state made for that as at a swap, which is
    /// dropped then.
    ///
    /// # Errors
    /// See [`Error`]. A 3.x client cannot be told: it is acknowledged, or closed, as the host is configured.
    fn handle_publish(
        &self,
        connection: &mut Self::Connection,
        publish: &Publish<'_>,
    ) -> Result<PublishVerdict, Error> {
        let _ = (connection, publish);
        Ok(PublishVerdict::Forward)
    }

    /// What may the client subscribe to? Asked for each SUBSCRIBE packet, and [`again`](crate::Subscription::again) about
    /// subscriptions that are there: when the client is back to its session, before anything is sent to it, and when
    /// [`Host::reauthorise`] asks for it.
    ///
    /// # Errors
    /// See [`Error`]; every Topic Filter is then refused.
    fn handle_subscribe(
        &self,
        connection: &mut Self::Connection,
        subscribe: &Subscribe<'_>,
    ) -> Result<SubscribeVerdict, Error> {
        let _ = (connection, subscribe);
        Ok(SubscribeVerdict::Grant)
    }

    /// May the client unsubscribe?
    ///
    /// # Errors
    /// See [`Error`]; every Topic Filter is then kept.
    fn handle_unsubscribe(
        &self,
        connection: &mut Self::Connection,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<UnsubscribeVerdict, Error> {
        let _ = (connection, unsubscribe);
        Ok(UnsubscribeVerdict::Allow)
    }

    /// The client has acknowledged a message that was sent to it (PUBACK, PUBCOMP), or refused it (PUBREC with an error).
    fn handle_puback(&self, connection: &mut Self::Connection, ack: &Ack<'_>) {
        let _ = (connection, ack);
    }

    /// A message from this plugin itself, sent by [`Host::send_info`]: from another connection, another thread, or a
    /// timer. The answer says what to do, in order; an empty list is nothing, and allocates nothing.
    ///
    /// # Errors
    /// Logged; nothing is done.
    fn handle_info(&self, connection: &mut Self::Connection, info: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        let _ = (connection, info);
        Ok(Vec::new())
    }

    /// The connection has ended. Called exactly once, after the Will Message (if any) has been asked about; the state is
    /// dropped next. A state that is made to ask about a Will Message once more is dropped without it.
    fn handle_disconnect(&self, connection: &mut Self::Connection, reason: &DisconnectReason<'_>) {
        let _ = (connection, reason);
    }

    /// The session of this client has expired: its subscriptions and queued messages are gone. There is no connection.
    /// `state` is what [`export_state`](Handler::export_state) gave when its last connection ended, if the handler
    /// implements it.
    fn handle_session_expired(&self, client_id: &str, state: Option<StateView<'_>>) {
        let _ = (client_id, state);
    }

    /// The client has been let in: its CONNACK is on its way. Says whether a session was resumed, and whether another
    /// connection of the client was ended for this one.
    fn handle_connected(&self, connection: &mut Self::Connection, connected: &Connected<'_>) {
        let _ = (connection, connected);
    }

    /// May this client get this message? Asked for each delivery to each client, whatever brings it about; it cannot be
    /// answered later. A handler that implements it pays for it with each message that is delivered; one that does not
    /// pays nothing.
    ///
    /// It is asked when the message is about to be sent for the first time, for one that waits in the session's queue when its
    /// turn comes; what is sent again is what was sent before. A changed message goes with at most the QoS that it had, and
    /// is dropped if it is larger than the client takes. A message that this plugin has published or sent itself is not asked
    /// about. One that is dropped for the client that a Shared Subscription has chosen goes to no other one.
    ///
    /// A panic drops the message and ends the connection, at the end of the host's turn.
    ///
    /// # Errors
    /// See [`Error`]; the message is then dropped for this client.
    fn handle_deliver(
        &self,
        connection: &mut Self::Connection,
        deliver: &Deliver<'_>,
    ) -> Result<DeliverVerdict, Error> {
        let _ = (connection, deliver);
        Ok(DeliverVerdict::Send)
    }

    /// A message was not delivered to a client that should have got it, or may not have been: one that was sent and not
    /// acknowledged when its session ended has a Packet Identifier. Not called for messages of which no client was to get
    /// one.
    fn handle_message_dropped(&self, message: &MessageNotice<'_>) {
        let _ = message;
    }

    /// A client has acknowledged a message completely (PUBACK, PUBCOMP), or refused it (PUBREC with an error), whoever
    /// published it.
    fn handle_message_acknowledged(&self, message: &MessageNotice<'_>) {
        let _ = message;
    }

    /// A message waited for a client for longer than its Message Expiry Interval.
    fn handle_message_expired(&self, message: &MessageNotice<'_>) {
        let _ = message;
    }

    /// The retained message of a topic was stored or removed. Several clients that publish to one topic at the same time may
    /// be told of in another order than that in which their messages were stored.
    fn handle_retained(&self, retained: &Retained<'_>) {
        let _ = retained;
    }

    /// A message from this plugin itself to the plugin as a whole: [`Host::send_info`] with
    /// [`InfoTarget::Plugin`](crate::InfoTarget::Plugin). The way to do something again and again, or later.
    fn handle_event(&self, event: &Info<'_>) {
        let _ = event;
    }

    /// The operator gives the plugin another configuration while it runs; JSON, as in [`init`](Handler::init).
    ///
    /// # Errors
    /// The configuration is refused, and the plugin goes on with the one that it has.
    fn handle_config(&self, config: &str) -> Result<(), Error> {
        let _ = config;
        Err("this plugin takes its configuration only when it is loaded".into())
    }

    /// How is the plugin? Asked by the operator, on a thread of its own.
    ///
    /// # Errors
    /// It cannot do its work; the text says why.
    fn health(&self) -> Result<String, Error> {
        Ok(String::new())
    }

    /// The connection has come over from another version of the plugin, whose state for it could not be handed over: it
    /// has a fresh one.
    fn handle_swapped(&self, connection: &mut Self::Connection, swapped: &Swapped<'_>) {
        let _ = (connection, swapped);
    }

    /// The state of a connection, for the next version of the plugin. The state stays where it is: the swap may be undone.
    /// Also called when the connection ends, if there is a Will Message that waits, or somebody to hear of the session's end.
    fn export_state(&self, connection: &mut Self::Connection) -> State {
        let _ = connection;
        State::default()
    }

    /// The state of a connection, made from what another version of the plugin has exported: an older one, or, when a
    /// swap is undone, a newer one.
    ///
    /// # Errors
    /// The connection stays with the other version; the swap is undone if this happens too often.
    fn import_state(&self, swapped: &Swapped<'_>, state: StateView<'_>) -> Result<Self::Connection, Error> {
        let _ = state;
        Ok(self.new_connection(&swapped.info()))
    }

    /// What the plugin as a whole knows, for its next version, or for the one before when a swap is undone.
    fn export_plugin_state(&self) -> State {
        State::default()
    }

    /// Takes over what another version has exported, after [`init`](Handler::init) and before the first connection; and once
    /// more from the version that was to replace this one, when that swap is undone, while connections are served.
    ///
    /// # Errors
    /// The swap is refused. Where it is undone, it stays so, and this version goes on with what it knows.
    fn import_plugin_state(&self, state: StateView<'_>) -> Result<(), Error> {
        let _ = state;
        Ok(())
    }

    /// The host lets the plugin go: end threads, write what is to be kept. Called once; no connection has to have ended.
    fn stop(&self) {}

    /// Gives what is left to do of an asynchronous callback to a runtime. By default that is the library's own small one;
    /// a handler that has a runtime overrides this (and [`first_poll`](Handler::first_poll)):
    ///
    /// ```
    /// # struct Mine { runtime: tokio::runtime::Runtime }
    /// # impl Mine {
    /// fn spawn(&self, task: plugin_api::Task) {
    ///     self.runtime.spawn(task);
    /// }
    /// fn first_poll(&self, poll: plugin_api::FirstPoll<'_>) {
    ///     let _context = self.runtime.enter();
    ///     poll.run();
    /// }
    /// # }
    /// ```
    #[cfg(feature = "async")]
    fn spawn(&self, task: Task) {
        task.spawn_on_own_runtime();
    }

    /// Has an asynchronous callback polled for the first time: on the host's thread, as most are ready at once. By
    /// default that happens in the context of the library's own runtime.
    #[cfg(feature = "async")]
    fn first_poll(&self, poll: FirstPoll<'_>) {
        poll.run_in_own_runtime();
    }

    /// What `#[handler]` makes of an `async fn handle_connect`.
    #[cfg(feature = "async")]
    #[doc(hidden)]
    fn handle_connect_async(
        self: Arc<Self>,
        connection: Lent<Self::Connection>,
        connect: owned::Connect,
    ) -> impl Future<Output = Result<ConnectVerdict, Error>> + Send + 'static {
        let _ = (connection, connect);
        std::future::ready(Ok(ConnectVerdict::accept()))
    }

    /// What `#[handler]` makes of an `async fn handle_auth`.
    #[cfg(feature = "async")]
    #[doc(hidden)]
    fn handle_auth_async(
        self: Arc<Self>,
        connection: Lent<Self::Connection>,
        auth: owned::Auth,
    ) -> impl Future<Output = Result<AuthVerdict, Error>> + Send + 'static {
        let _ = (connection, auth);
        std::future::ready(Ok(AuthVerdict::error(ReasonCode::BAD_AUTHENTICATION_METHOD)))
    }

    /// What `#[handler]` makes of an `async fn handle_publish`.
    #[cfg(feature = "async")]
    #[doc(hidden)]
    fn handle_publish_async(
        self: Arc<Self>,
        connection: Lent<Self::Connection>,
        publish: owned::Publish,
    ) -> impl Future<Output = Result<PublishVerdict, Error>> + Send + 'static {
        let _ = (connection, publish);
        std::future::ready(Ok(PublishVerdict::Forward))
    }

    /// What `#[handler]` makes of an `async fn handle_subscribe`.
    #[cfg(feature = "async")]
    #[doc(hidden)]
    fn handle_subscribe_async(
        self: Arc<Self>,
        connection: Lent<Self::Connection>,
        subscribe: owned::Subscribe,
    ) -> impl Future<Output = Result<SubscribeVerdict, Error>> + Send + 'static {
        let _ = (connection, subscribe);
        std::future::ready(Ok(SubscribeVerdict::Grant))
    }

    /// What `#[handler]` makes of an `async fn handle_unsubscribe`.
    #[cfg(feature = "async")]
    #[doc(hidden)]
    fn handle_unsubscribe_async(
        self: Arc<Self>,
        connection: Lent<Self::Connection>,
        unsubscribe: owned::Unsubscribe,
    ) -> impl Future<Output = Result<UnsubscribeVerdict, Error>> + Send + 'static {
        let _ = (connection, unsubscribe);
        std::future::ready(Ok(UnsubscribeVerdict::Allow))
    }
}
