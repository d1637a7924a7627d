//! The trait that an author implements.

use crate::{
    Ack, Auth, AuthVerdict, Callbacks, Connect, ConnectVerdict, ConnectionInfo, DisconnectReason, Host, Info,
    InfoAction, Publish, PublishVerdict, ReasonCode, Reject, Subscribe, SubscribeVerdict, Unsubscribe,
    UnsubscribeVerdict,
};

/// Any error. `?` makes one of whatever implements [`std::error::Error`], and `.into()` of a string.
///
/// A callback that decides and returns an error has refused: the host logs the text and answers the client with
/// [`ReasonCode::UNSPECIFIED_ERROR`]. The client does not see the text.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

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
/// # Time
/// A callback runs on the thread that serves its connection and many others: while it runs, they wait. It must not block.
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

    /// Makes the handler, from the services of the host and the text of `--plugin-config`, which is JSON (`{}` if there
    /// was none).
    ///
    /// # Errors
    /// An error stops the host from starting, and is shown to whoever starts it: say what is wrong with the
    /// configuration and what to do.
    fn init(host: Host, config: &str) -> Result<Self, Error>;

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
    /// delivered, and for its Will Message.
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

    /// What may the client subscribe to?
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
    /// dropped next.
    fn handle_disconnect(&self, connection: &mut Self::Connection, reason: &DisconnectReason<'_>) {
        let _ = (connection, reason);
    }

    /// The session of this client has expired: its subscriptions and queued messages are gone. There is no connection.
    fn handle_session_expired(&self, client_id: &str) {
        let _ = client_id;
    }

    /// The host lets the plugin go: end threads, write what is to be kept. Called once; no connection has to have ended.
    fn stop(&self) {}
}
