//! A host for tests: a handler without a broker, a library and a socket. Feature `testing`.
//!
//! ```
//! use plugin_api::testing::TestHost;
//! use plugin_api::{Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, Publish, PublishVerdict, ReasonCode, handler};
//!
//! struct Quiet { host: Host }
//!
//! #[handler]
//! impl Handler for Quiet {
//!     type Connection = ();
//!
//!     fn init(host: Host, _config: &str) -> Result<Self, Error> {
//!         Ok(Quiet { host })
//!     }
//!     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
//!     fn handle_publish(&self, _: &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
//!         if publish.topic().starts_with("loud/") {
//!             return Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED));
//!         }
//!         self.host.info("quiet enough");
//!         let _number: u32 = std::str::from_utf8(publish.payload())?.parse()?;
//!         Ok(PublishVerdict::Forward)
//!     }
//! }
//!
//! # fn main() -> Result<(), Error> {
//! let host = TestHost::new::<Quiet>("{}")?;
//! let client = host.connect("c1")?;
//! assert_eq!(client.publish("a/b", b"21"), PublishVerdict::Forward);
//! assert_eq!(client.publish("loud/b", b"21"), PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED));
//! // An error refuses, as in the broker, and is in the log.
//! assert_eq!(client.publish("a/b", b"many"), PublishVerdict::reject(ReasonCode::UNSPECIFIED_ERROR));
//! assert!(host.take_logs().iter().any(|line| line.text.contains("invalid digit")));
//! # Ok(()) }
//! ```
//!
//! The handler is called as the broker calls it, through the table of functions that [`export!`](crate::export!) makes, behind
//! the same guard; and its answers are read by the same code, so that what fails closed in the broker fails closed here: an
//! error is a refusal with 0x80, a panic ends the connection, an answer that cannot be sent is refused.
//!
//! # What there is, and what not
//! - One handler, on the thread of the test; callbacks that block are simply called. What is answered later, by a ticket or from
//!   an `async fn`, is waited for: [`TestHost::set_patience`].
//! - Time stands still, but for [`TestHost::advance`], which brings the messages of timers, and ends sessions.
//! - What the handler asks for happens when its callback has returned, and can be looked at: [`TestHost::take_publishes`] and
//!   others. What its own threads ask for is done with the next call of the test; [`TestHost::settle`] is one that does nothing
//!   else.
//! - Nothing is routed, and nothing is queued: to whom a message would be delivered is not this host's to say. A test hands
//!   [`TestClient::deliver`] what is to pass `handle_deliver`.
//! - Clients come by plain TCP, unless [`Connecting::transport`] says how: TLS with a certificate, WebSocket with headers, a Unix
//!   socket, a proxy.
//! - A chain of several handlers is the broker's: here, each is tested alone.

mod client;
mod connection;
mod effects;
mod packets;
mod plugin;
mod services;
mod swap;
mod transport;
mod turn;
mod world;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

pub use self::client::{Connecting, Delivery, TestClient};
use self::connection::Connections;
pub use self::effects::{Disconnection, Ended, LogLine, Recorded, Refused, Sent, Target, Timer};
use self::plugin::Plugin;
use self::services::Services;
pub use self::transport::{TestCertificate, TestTransport};
use crate::abi::{RawMessageNotice, RawPublish, RawState, Verdict};
use crate::reading::Answer;
use crate::{Callback, DropReason, Error, Handler, Message, ReasonCode, State};

/// Bytes of the largest packet, and so of a message of a handler's.
const PACKET_BYTES_MAX: usize = 268_435_460;

/// How long an answer that comes later is waited for, unless [`TestHost::set_patience`] says otherwise: as long as in the broker.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host with one handler. Cloning it gives the same host. When the last one and all its clients are dropped, connections end,
/// the handler is stopped and dropped.
///
/// Its methods panic only if the test has made a mistake, such as asking a connection that has ended.
#[derive(Clone)]
pub struct TestHost {
    inner: Rc<Inner>,
}

struct Inner {
    services: &'static Services,
    plugin: RefCell<Rc<Plugin>>,
    connections: RefCell<Connections>,
}

impl TestHost {
    /// Makes the handler, with a configuration as `--plugin-config` has it: JSON, `"{}"` for none.
    ///
    /// # Errors
    /// What `init` says, or that it has panicked.
    pub fn new<H: Handler>(config: &str) -> Result<Self, Error> {
        let services = Services::leak(PATIENCE);
        let plugin = RefCell::new(Plugin::new::<H>(config, services)?);
        let host = Self { inner: Rc::new(Inner { services, plugin, connections: RefCell::default() }) };
        host.settle();
        Ok(host)
    }

    /// A client connects, and is let in: MQTT 5.0, Clean Start, without User Name and Password.
    ///
    /// # Errors
    /// The handler does not let it in.
    pub fn connect(&self, client_id: &str) -> Result<TestClient, Refused> {
        self.client(client_id).connect()
    }

    /// A client that is about to connect, with whatever it says in CONNECT.
    #[must_use]
    pub fn client(&self, client_id: &str) -> Connecting {
        Connecting::new(self.clone(), client_id)
    }

    /// Time passes: what the handler has sent to itself by timers arrives, each at its time, and sessions end.
    ///
    /// # Panics
    /// The handler's timers do not come to an end: more than 100,000 messages have come.
    pub fn advance(&self, by: Duration) {
        let now_ms = self.inner.world().now_ms;
        let until_ms = now_ms.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
        self.inner.run_until(until_ms);
    }

    /// Does what the handler's threads have asked for meanwhile. All other methods do so as well.
    pub fn settle(&self) {
        let now_ms = self.inner.world().now_ms;
        self.inner.run_until(now_ms);
    }

    /// Time that has passed by [`advance`](TestHost::advance).
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.inner.world().now_ms)
    }

    /// How long an answer that comes later is waited for, in real time: 5 seconds, as in the broker, if this is not said. Then
    /// it is refused, as there. Zero is for tests of that: what is not there when the callback returns comes too late.
    pub fn set_patience(&self, patience: Duration) {
        self.inner.services.set_patience(patience);
    }

    /// The lines of the log since this was called last: the handler's, of all levels, and the host's about it.
    #[must_use]
    pub fn take_logs(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.inner.world().logs)
    }

    /// The messages that the handler has published since this was called last: [`Host::publish`](crate::Host::publish).
    #[must_use]
    pub fn take_publishes(&self) -> Vec<Message> {
        self.settle();
        std::mem::take(&mut self.inner.world().publishes)
    }

    /// The messages that the handler has sent to single clients since this was called last: [`Host::send`](crate::Host::send).
    /// Who is connected has them in [`TestClient::take_received`] too.
    #[must_use]
    pub fn take_sends(&self) -> Vec<Sent> {
        self.settle();
        std::mem::take(&mut self.inner.world().sends)
    }

    /// The connections that the handler has ended since this was called last:
    /// [`Host::disconnect`](crate::Host::disconnect).
    #[must_use]
    pub fn take_disconnects(&self) -> Vec<Disconnection> {
        self.settle();
        std::mem::take(&mut self.inner.world().disconnects)
    }

    /// Has the next `requests` of the handler refused with [`HostError::Full`](crate::HostError::Full), as by a host that has
    /// too much to do: what it publishes, sends, asks for and ends. (What it stores is not among them.)
    pub fn refuse_requests(&self, requests: u32) {
        self.inner.world().refused = requests;
    }

    /// The timers that run, in the order in which they are due.
    #[must_use]
    pub fn timers(&self) -> Vec<Timer> {
        self.settle();
        self.inner.world().timers()
    }

    /// The value of a metric of the handler's; `None` if there is none with this name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<Recorded> {
        self.inner.services.recorded(name)
    }

    /// What the handler keeps by a key in its [`Store`](crate::Store).
    #[must_use]
    pub fn stored(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.inner.world().store.get(key.as_ref()).cloned()
    }

    /// Puts a value into the handler's [`Store`](crate::Store), as if it had been there before.
    ///
    /// # Panics
    /// The key is empty or has more than 1,024 bytes, the value more than 1 MiB, or there is no room.
    pub fn store(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let put = self.inner.world().put(key.as_ref(), value.as_ref());
        assert!(put.is_ok(), "this key and value cannot be stored: {put:?}");
    }

    /// `handle_config`: the operator gives it another configuration.
    ///
    /// # Errors
    /// What it says against it.
    pub fn configure(&self, config: &str) -> Result<(), Error> {
        let plugin = self.inner.plugin();
        if !plugin.implements(Callback::Config) {
            return Err("the handler does not implement handle_config".into());
        }
        plugin.check_config(config)?;
        self.operate(Callback::Config, plugin.config(config.into())).map(|_| ())
    }

    /// `health`: how it is.
    ///
    /// # Errors
    /// It is not well; what it says.
    pub fn health(&self) -> Result<String, Error> {
        let plugin = self.inner.plugin();
        if !plugin.implements(Callback::Health) {
            return Ok(String::new());
        }
        self.operate(Callback::Health, plugin.health())
    }

    /// What the operator gets of an answer.
    fn operate(&self, callback: Callback, (verdict, answer): (Verdict, Answer)) -> Result<String, Error> {
        self.settle();
        let text = answer.text().unwrap_or_default().1;
        match verdict {
            Verdict::OK => Ok(text),
            Verdict::ERROR => Err(text.into()),
            Verdict::PANICKED => Err(format!("{} panicked: {text}", callback.name()).into()),
            other => Err(plugin::unknown(callback, other).into()),
        }
    }

    /// `export_plugin_state`: what it would hand over to the version that replaces it.
    ///
    /// # Errors
    /// It fails, or does not implement it.
    pub fn export_plugin_state(&self) -> Result<State, Error> {
        let plugin = self.inner.plugin();
        if !plugin.implements(Callback::ExportPlugin) {
            return Err("the handler does not implement export_plugin_state".into());
        }
        let (verdict, answer) = plugin.export_all();
        self.settle();
        swap::state_of(Callback::ExportPlugin, verdict, &answer)
    }

    /// `import_plugin_state`.
    ///
    /// # Errors
    /// It fails, or does not implement it.
    pub fn import_plugin_state(&self, state: &State) -> Result<(), Error> {
        let plugin = self.inner.plugin();
        if !plugin.implements(Callback::ImportPlugin) {
            return Err("the handler does not implement import_plugin_state".into());
        }
        self.operate(Callback::ImportPlugin, plugin.import_all(&raw_state(state))).map(|_| ())
    }

    /// The session of a client ends now, connected or not: `handle_session_expired`.
    ///
    /// # Panics
    /// There is no such session, or its client is connected.
    #[track_caller]
    pub fn expire_session(&self, client_id: &str) {
        let session = self.inner.world().sessions.get(client_id).map(|session| session.connection);
        assert_eq!(session, Some(None), "{client_id} has a session without a connection");
        self.inner.end_session(client_id);
        self.settle();
    }

    /// A message for a client was lost: `handle_message_dropped`.
    pub fn message_dropped(&self, client_id: &str, message: &Message, reason: DropReason) {
        self.tell(Callback::Dropped, client_id, message, reason, ReasonCode::SUCCESS);
    }

    /// A client has acknowledged a message, or has refused it: `handle_message_acknowledged`.
    pub fn message_acknowledged(&self, client_id: &str, message: &Message, reason_code: ReasonCode) {
        self.tell(Callback::Acknowledged, client_id, message, DropReason::Other, reason_code);
    }

    /// A message for a client has waited for too long: `handle_message_expired`.
    pub fn message_expired(&self, client_id: &str, message: &Message) {
        self.tell(Callback::Expired, client_id, message, DropReason::Other, ReasonCode::SUCCESS);
    }

    fn tell(&self, callback: Callback, client_id: &str, message: &Message, reason: DropReason, code: ReasonCode) {
        let notice = RawMessageNotice {
            client_id: client_id.into(),
            topic: message.topic.as_str().into(),
            payload: message.payload.as_slice().into(),
            properties: message.properties.as_bytes().into(),
            token: message.token,
            packet_id: 0,
            qos: message.qos as u8,
            flags: if message.retain { RawPublish::RETAIN } else { 0 },
            reason: reason as u8,
            reason_code: code.0,
            extension: std::ptr::null(),
        };
        let plugin = self.inner.plugin();
        if plugin.implements(callback) {
            match callback {
                Callback::Acknowledged => plugin.acknowledged(&notice),
                Callback::Expired => plugin.expired(&notice),
                _ => plugin.dropped(&notice),
            };
        }
        self.settle();
    }

    /// A retained message is stored or, if its payload is empty, removed: `handle_retained`. What clients publish with RETAIN
    /// and the handler forwards, and what the handler publishes with it, is retained without this.
    pub fn retain(&self, message: &Message) {
        self.inner.set_retained(message);
        self.settle();
    }

    /// The host stops: connections end, and the handler is told by `stop`. Nothing else may be done with the host then.
    pub fn stop(&self) {
        self.inner.stop();
    }
}

/// A state as the handler is shown it.
fn raw_state(state: &State) -> RawState<'_> {
    RawState { bytes: state.bytes.as_slice().into(), version: state.version, extension: std::ptr::null() }
}

impl Inner {
    fn stop(&self) {
        if self.services.world().is_closed {
            return;
        }
        connection::end_all(self);
        let plugin = Rc::clone(&self.plugin.borrow());
        if plugin.implements(Callback::Stop) {
            plugin.stop();
        }
        self.services.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for TestHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestHost").field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}
