//! The server: listeners, plugins and workers, put together.

mod builder;
mod door;
mod ended;
mod handed_over;
mod kept;
mod listeners;
mod plugins;
mod reload;
mod restart;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plugin_api::{Callback, ConnectionId, PropertiesBuf, ReasonCode};

pub use self::builder::Builder;
pub use self::door::Door;
use self::ended::Ended;
pub(crate) use self::handed_over::Heirs;
pub(crate) use self::kept::Claim;
use self::kept::Kept;
use self::listeners::{CertificateWatch, Live};
use self::plugins::let_go;
pub use self::reload::{Change, ReloadReport};
use crate::clock::Clock;
use crate::control::{self, Calls};
use crate::core::mail::Mail;
use crate::core::mailbox::Mailboxes;
use crate::core::{Counters, Shared};
use crate::durable::store::Store;
use crate::error::Error;
use crate::io::anteroom::Places;
use crate::io::worker::{self, Inheritance, Restoring, Seed, Workers};
use crate::listener::ListenerUrl;
use crate::plugin::{Chain, MetricSample, PluginSet, Recorder, Services, Watch};
use crate::report::{self, Reporter, Tally};

/// Time that the workers take at most to stop: their own bound, and some for a callback that is slow.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to begin: [`Server::builder`].
#[derive(Debug)]
pub struct Server(());

impl Server {
    /// The port of MQTT, which is listened on if no listener is given.
    pub const DEFAULT_PORT: u16 = 1883;

    /// How many workers a server may have.
    pub const WORKERS: RangeInclusive<usize> = 1..=64;

    /// A server that is not started yet, with defaults.
    ///
    /// ```
    /// # fn main() -> Result<(), host::Error> {
    /// let server = host::Server::builder().listen("127.0.0.1:0").start()?;
    /// println!("clients may connect to {}", server.local_addr());
    /// server.stop()
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }
}

/// A server that runs. Dropping it stops the server.
pub struct ServerHandle {
    name: String,
    listeners: Arc<Live>,
    /// For those who come by listeners with something to go through before MQTT.
    places: Arc<Places>,
    /// For those who come by QUIC.
    #[cfg(feature = "quic")]
    quic_places: Arc<Places>,
    /// The addresses of those that it was started with.
    addrs: Vec<SocketAddr>,
    mailboxes: Mailboxes,
    workers: Arc<Workers>,
    clock: Clock,
    /// For plugins that are loaded later.
    services: Services,
    /// What the workers have counted.
    counters: Arc<[Counters]>,
    /// Looks after the plugins' calls until it is dropped.
    watch: Arc<Watch>,
    threads: Mutex<Threads>,
    ended: Arc<Ended>,
    /// Held while something of it is given another configuration.
    reloading: Mutex<()>,
    /// Libraries that are to be plugins after a restart.
    looked_at: Mutex<Vec<restart::LookedAt>>,
    /// Calls of plugins' code for the operator.
    pub(crate) calls: Arc<Calls>,
    /// Where commands are taken.
    control: Mutex<control::Shared>,
}

/// The workers' threads, and what has become of them.
#[derive(Default)]
struct Threads {
    running: Vec<JoinHandle<bool>>,
    /// One of them has failed.
    failed: bool,
    /// The plugins, which are told and dropped once the threads have ended.
    chain: Option<Chain>,
    /// For threads that are started later. It has the plugins as well, and goes before them.
    shared: Option<Arc<Shared>>,
    /// Where what outlives the server is, until the workers have ended.
    kept: Option<Kept>,
    /// Closes it where another process goes on with it.
    retiring: Option<JoinHandle<()>>,
    /// Writes down what plugins are asked, to their end.
    recorder: Option<Arc<Recorder>>,
    /// Drops plugins that were replaced; from the first swap on.
    keeper: Option<JoinHandle<()>>,
    /// Says now and then what was lost.
    reporter: Option<Reporter>,
    /// Looks whether certificates have changed; where there are some.
    certificates: Option<CertificateWatch>,
    /// The threads for what comes before MQTT run as well.
    has_anteroom: bool,
    /// So does the one for QUIC.
    #[cfg(feature = "quic")]
    has_quic: bool,
    /// They, or then the plugins, have not ended in time; waiting again would not help.
    given_up: bool,
}

/// What is locked here is whole after each statement, so a poisoned lock says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServerHandle {
    /// The address of the first listener that it was started with and that has one, with the port that it really has; port 0 of 127.0.0.1 where there are
    /// only Unix sockets.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addrs.first().copied().unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// The addresses of all listeners that it was started with and that have one, in the order in which they were given.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Where it listens now, in the order in which it was said, with the ports that it really has.
    #[must_use]
    pub fn local_urls(&self) -> Vec<ListenerUrl> {
        self.listeners.urls()
    }

    /// The counters, gauges and histograms of all plugins that have some, plugin by plugin in the order of their names.
    #[must_use]
    pub fn metrics(&self) -> Vec<MetricSample> {
        self.services.metrics()
    }

    /// Ends a connection, with a DISCONNECT packet for 5.0 clients. One that has ended already is left alone.
    ///
    /// Handlers learn the id of a connection in `new_connection` and `handle_connect`. It is not the Client Identifier:
    /// that could be somebody else's by now.
    ///
    /// `false` if a worker has so much to do that it takes no more requests; if the connection is another worker's, it is
    /// ended all the same. Try again later.
    pub fn disconnect(&self, connection: ConnectionId, reason_code: ReasonCode, properties: &PropertiesBuf) -> bool {
        let post = |worker| {
            let properties = properties.as_bytes().into();
            self.mailboxes.post(worker, Mail::Disconnect { connection: connection.0, reason_code, properties })
        };
        // Which of them has it is not known here, so that none is left out.
        (0..self.mailboxes.workers()).filter(|worker| !post(*worker)).count() == 0
    }

    /// Stops the server: accepts nobody, tells 5.0 clients 0x8B, sends what is to be sent, calls `handle_disconnect` for
    /// each connection and `stop` for each plugin, and waits until all threads have ended. Takes about 5 s at most for
    /// the clients, and 3 s for the plugins. Stopping again does nothing.
    ///
    /// # Errors
    /// A worker has failed before, or it or a plugin does not end in time.
    pub fn stop(&self) -> Result<(), Error> {
        worker::stop_all(&self.mailboxes);
        self.close_listeners();
        self.finish(Some(Instant::now() + STOP_TIMEOUT))
    }

    /// Waits until the server has stopped: because [`ServerHandle::stop`] was called on another thread, or because a
    /// worker has failed.
    ///
    /// # Errors
    /// A worker has failed, or a plugin does not end in time.
    pub fn wait(&self) -> Result<(), Error> {
        self.finish(None)
    }

    fn start_worker(
        &self,
        worker: usize,
        shared: &Arc<Shared>,
        store: Option<Arc<dyn Store>>,
        restoring: Option<Restoring>,
        inheritance: Option<Inheritance>,
    ) -> Result<(), Error> {
        let ended = Arc::clone(&self.ended);
        let seed = Seed {
            worker,
            name: format!("{}-{worker}", self.name),
            workers: Arc::clone(&self.workers),
            shared: Arc::clone(shared),
            clock: self.clock,
            watch: Arc::clone(&self.watch),
            store,
            restoring,
            inheritance,
            on_end: Box::new(move || ended.add_one()),
        };
        let thread = worker::start(seed).map_err(|source| Error::System { what: "start a worker", source })?;
        lock(&self.threads).running.push(thread);
        Ok(())
    }

    fn start_reporter(&self) -> Result<(), Error> {
        let (name, counters) = (format!("{}-report", self.name), Arc::clone(&self.counters));
        let say = |tally: &Tally| tally.log("in the last 10 seconds");
        let shared = lock(&self.threads).shared.clone();
        let told = shared.map_or_else(Tally::default, |shared| Tally::of(std::slice::from_ref(shared.inherited())));
        let reporter = Reporter::start(name, counters, told, report::PERIOD, say);
        let reporter = reporter.map_err(|source| Error::System { what: "start a thread that reports", source })?;
        lock(&self.threads).reporter = Some(reporter);
        Ok(())
    }

    fn announce(&self, name: &str, plugins: &str) {
        for at in self.listeners.places() {
            tracing::info!(server = name, workers = self.mailboxes.workers(), plugins, "listening on {at}");
        }
    }

    /// Says what follows from what plugins leave out, as it may not be what their author thought of.
    fn say_if_all_is_allowed(chain: &Chain) {
        if chain.decides_on_connections(PluginSet::ALL)
            && !chain.implements(Callback::Publish)
            && !chain.implements(Callback::Subscribe)
        {
            tracing::info!("who is let in may publish and subscribe to everything: no plugin decides about it");
        }
    }

    fn announce_end(&self) {
        let sum = |count: fn(&Counters) -> u64| self.counters.iter().map(count).sum::<u64>();
        tracing::info!(
            connections = sum(|counters| counters.connections_accepted.get()),
            publishes_received = sum(|counters| counters.publishes_received.get()),
            publishes_sent = sum(|counters| counters.publishes_sent.get()),
            "stopped"
        );
    }

    /// Waits for the threads, then lets the plugins go.
    fn finish(&self, deadline: Option<Instant>) -> Result<(), Error> {
        let running = lock(&self.threads).running.len();
        if !self.ended.wait(running, deadline) {
            lock(&self.threads).given_up = true;
            return Err(Error::StopTimeout { secs: STOP_TIMEOUT.as_secs() });
        }
        self.close_listeners();
        let mut threads = lock(&self.threads);
        for thread in std::mem::take(&mut threads.running) {
            threads.failed |= !thread.join().unwrap_or(false);
        }
        if let Some(chain) = threads.chain.take() {
            threads.given_up = true;
            threads.reporter = None;
            threads.shared = None;
            let keeper = threads.keeper.take();
            let let_go = let_go(chain, keeper);
            // Plugins may have kept something at their end.
            let closed = threads.kept.take().map_or(Ok(()), Kept::close);
            // It panics only with a bug of ours, which the panic hook has printed.
            let _ = threads.retiring.take().map(JoinHandle::join);
            if let Some(recorder) = threads.recorder.take() {
                recorder.finish();
            }
            let_go?;
            threads.given_up = false;
            Tally::of(&self.counters).log("since the start");
            self.announce_end();
            closed?;
        } else if threads.given_up {
            return Err(Error::StopTimeout { secs: plugins::STOP_TIMEOUT.as_secs() });
        }
        if threads.failed { Err(Error::WorkerFailed) } else { Ok(()) }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        let threads = lock(&self.threads);
        let over = threads.chain.is_none() || threads.given_up;
        drop(threads);
        if over {
            return;
        }
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the server was dropped");
        }
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("urls", &self.local_urls()).finish_non_exhaustive()
    }
}
