//! The server: listeners, plugins and workers, put together.

mod listeners;
mod reload;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plugin_api::{Callback, ConnectionId, Handler, PropertiesBuf, ReasonCode};

use self::listeners::{CertificateWatch, Live};
pub use self::reload::{Change, ReloadReport};
use crate::clock::Clock;
use crate::control::Calls;
use crate::core::mail::Mail;
use crate::core::mailbox::Mailboxes;
use crate::core::{Counters, Shared};
use crate::error::Error;
use crate::io::listener::Bound;
use crate::io::passed::{PassedSocket, deal_out};
use crate::io::worker::{self, Seed, Workers};
#[cfg(feature = "quic")]
use crate::io::{listener::Listener, quic};
use crate::limits::Limits;
use crate::listener::{Common, ListenerConfig, ListenerUrl, UrlError};
use crate::plugin::{Busy, Chain, LoadError, MetricSample, Plugin, PluginSet, Services, Watch};
use crate::privileges;
use crate::report::{self, Reporter, Tally};
use crate::swap::{self, Role, Status, SwapError, SwapReport, SwapRequest};

/// Time that the workers take at most to stop: their own bound, and some for a callback that is slow.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Time that the plugins take at most afterwards, to write what is to be kept and to end their threads.
const PLUGINS_STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The version of a handler that is linked in: there is no other than that of the program.
const LINKED_VERSION: &str = "linked";

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
        Builder {
            name: "host".to_owned(),
            listeners: Vec::new(),
            passed: Vec::new(),
            workers: None,
            plugins: Vec::new(),
            limits: Limits::default(),
            allow_anonymous: false,
            user: None,
        }
    }
}

/// A server that is not started yet.
#[must_use = "a server runs only after `start`"]
pub struct Builder {
    name: String,
    /// In order; a URL that is none is told at the start.
    listeners: Vec<Result<ListenerConfig, UrlError>>,
    passed: Vec<PassedSocket>,
    workers: Option<usize>,
    plugins: Vec<Source>,
    limits: Limits,
    allow_anonymous: bool,
    user: Option<String>,
}

type Load = Box<dyn FnOnce(&Services) -> Result<Plugin, LoadError> + Send>;

/// Where a plugin comes from.
enum Source {
    File { path: PathBuf, config: String },
    Linked(Load),
}

impl Builder {
    /// A name for the log and for the names of threads. Default: `host`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Listens at a URL, such as `tcp://127.0.0.1:1883`; an address and a port alone are `tcp://`, and port 0 takes a free
    /// one. May be called several times. Default: port 1883 of 127.0.0.1.
    pub fn listen(mut self, url: impl AsRef<str>) -> Self {
        self.listeners.push(url.as_ref().parse().map(ListenerConfig::new));
        self
    }

    /// The same, with settings.
    pub fn listener(mut self, config: ListenerConfig) -> Self {
        self.listeners.push(Ok(config));
        self
    }

    /// Takes a listening socket that was opened before, in place of one that a listener would open; see [`PassedSocket`].
    pub fn socket(mut self, socket: PassedSocket) -> Self {
        self.passed.push(socket);
        self
    }

    /// The number of threads that serve clients, within [`Server::WORKERS`]. Default: one per core.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Adds a plugin from a shared library, with its configuration as JSON (`{}` for none), to the end of the chain.
    pub fn plugin(mut self, path: impl Into<PathBuf>, config: impl Into<String>) -> Self {
        self.plugins.push(Source::File { path: path.into(), config: config.into() });
        self
    }

    /// Adds a handler that is linked in, with its configuration as JSON (`{}` for none), to the end of the chain.
    pub fn handler<H: Handler>(mut self, name: &'static str, config: impl Into<String>) -> Self {
        let config = config.into();
        let load = move |services: &Services| Plugin::from_static::<H>(name, LINKED_VERSION, &config, services);
        self.plugins.push(Source::Linked(Box::new(load)));
        self
    }

    /// Bounds, which [`Builder::start`] checks. Default: [`Limits::default`]. `host/LIMITS.md` of the repository is the
    /// reference.
    ///
    /// ```
    /// let mut limits = host::Limits::default();
    /// limits.packet_bytes_max = 256 << 10;
    /// limits.connections_per_address_max = 200;
    /// let builder = host::Server::builder().limits(limits);
    /// ```
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets everybody connect, from everywhere, where no plugin decides on connections. Default: `false`, which lets only
    /// clients on this machine connect in that case.
    pub fn allow_anonymous(mut self, allow: bool) -> Self {
        self.allow_anonymous = allow;
        self
    }

    /// The user that the whole process goes on as, once the listeners are open and before plugins are loaded; only root can
    /// become another one. Default: the one that it has. See [`crate::privileges::become_user`].
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.user = Some(name.into());
        self
    }

    /// Opens the listeners, becomes the user if one was named, loads the plugins and starts the workers, in this order. If one of them fails, nothing runs.
    ///
    /// # Errors
    /// An address is wrong or in use, a plugin cannot be loaded, other machines could connect and nobody decides whether
    /// they may, or the operating system refuses threads or descriptors.
    pub fn start(self) -> Result<ServerHandle, Error> {
        let count = self.workers.unwrap_or_else(default_workers);
        if !Server::WORKERS.contains(&count) {
            return Err(Error::Workers { got: count });
        }
        self.limits.check()?;
        let bound = bind_all(self.listeners, self.passed)?;
        if let Some(name) = &self.user {
            privileges::become_user(name)?;
        }
        let workers = Workers::new(count)
            .map_err(|source| Error::System { what: "make the doorbells of the workers", source })?;
        let mailboxes = Mailboxes::new(workers.wake());
        let clock = Clock::start();
        let watch = Watch::new(count, &self.limits);
        let services = Services::new(mailboxes.clone(), clock, self.limits.packet_bytes_max)
            .watched_by(watch.clone(), &self.limits)
            .with_tickets_max(self.limits.tickets_max)
            .bounded_by(&self.limits);
        let chain = load_all(self.plugins, &services)?;
        let common = Common { limits: &self.limits, allow_anonymous: self.allow_anonymous, chain: &chain };
        let listeners = match Live::new(bound, common) {
            Ok(listeners) => listeners,
            Err(error) => {
                // That a plugin does not return is in the log; why there is no server is what counts.
                let _ = let_go(chain, None);
                return Err(error);
            }
        };
        let shared = Arc::new(Shared::new(self.limits, chain.clone(), mailboxes.clone()));
        // From here on, dropping the handle stops what has been started.
        let names = chain.plugins().iter().map(|plugin| plugin.name()).collect::<Vec<_>>().join(", ");
        let threads = Threads { chain: Some(chain), shared: Some(Arc::clone(&shared)), ..Threads::default() };
        let counters = Arc::clone(&shared.counters);
        let threads = Mutex::new(threads);
        let name = self.name.clone();
        let ended = Arc::default();
        let addrs = listeners.urls().iter().filter_map(ListenerUrl::addr).collect();
        let handle = ServerHandle {
            name,
            listeners: Arc::new(listeners),
            addrs,
            mailboxes,
            workers,
            clock,
            services,
            counters,
            watch,
            threads,
            ended,
            reloading: Mutex::default(),
            calls: Arc::default(),
        };
        if !shared.chain.plugins().is_empty() {
            let system = |source| Error::System { what: "start a thread that watches the plugins", source };
            handle.watch.start(&self.name).map_err(system)?;
        }
        for worker in 0..count {
            handle.start_worker(worker, &self.name, &shared)?;
        }
        handle.publish_listeners()?;
        #[cfg(feature = "quic")]
        handle.start_quic(&shared)?;
        handle.start_reporter()?;
        handle.announce(&self.name, &names);
        ServerHandle::say_if_all_is_allowed(&shared.chain);
        Ok(handle)
    }
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(*Server::WORKERS.end())
}

fn default_addr() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, Server::DEFAULT_PORT).into()
}

fn bind_all(
    configs: Vec<Result<ListenerConfig, UrlError>>,
    passed: Vec<PassedSocket>,
) -> Result<Vec<(ListenerConfig, Bound)>, Error> {
    let mut configs = configs.into_iter().collect::<Result<Vec<_>, _>>()?;
    if configs.is_empty() && passed.is_empty() {
        configs.push(ListenerConfig::new(ListenerUrl::tcp(default_addr())));
    }
    let open = |(config, socket)| Bound::open(&config, socket).map(|bound| (config, bound));
    deal_out(configs, passed)?.into_iter().map(open).collect()
}

/// Loads the plugins in order. If one cannot be loaded, those before it are let go.
fn load_all(sources: Vec<Source>, services: &Services) -> Result<Chain, LoadError> {
    let mut plugins = Vec::with_capacity(sources.len());
    for source in sources {
        let loaded = match source {
            Source::File { path, config } => Plugin::load(&path, &config, services),
            Source::Linked(load) => load(services),
        };
        match loaded {
            Ok(plugin) => plugins.push(plugin),
            Err(error) => {
                // Two of one name would not make a chain; then the first error is told, and they are dropped.
                let _ = Chain::new(plugins).map(|chain| let_go(chain, None));
                return Err(error);
            }
        }
    }
    Chain::new(plugins)
}

/// Tells the plugins that they are dropped, and drops them: on a thread of its own, as it is their code that runs, and
/// may not return. `keeper` is the thread that drops those that are replaced, if there is one.
fn let_go(chain: Chain, keeper: Option<JoinHandle<()>>) -> Result<(), Error> {
    if chain.plugins().is_empty() {
        return Ok(());
    }
    let names = chain.plugins().iter().map(|plugin| plugin.name()).collect::<Vec<_>>().join(", ");
    let (done, wait) = mpsc::channel();
    let thread = std::thread::Builder::new().name("plugins-stop".to_owned()).spawn(move || {
        chain.close();
        // It panics only with a bug of ours, which the panic hook has printed.
        let _ = keeper.map(JoinHandle::join);
        chain.stop();
        // The workers' clones are gone, so that this drops the plugins, before a program that waits for us may exit.
        drop(chain);
        // Nobody listens if it has come too late.
        let _ = done.send(());
    });
    let thread = thread.map_err(|source| Error::System { what: "start a thread to stop the plugins", source })?;
    if wait.recv_timeout(PLUGINS_STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
        tracing::error!(plugins = names, "a plugin does not return from `stop`, or from its `Drop`");
        return Err(Error::StopTimeout { secs: PLUGINS_STOP_TIMEOUT.as_secs() });
    }
    let _ = thread.join();
    Ok(())
}

/// A server that runs. Dropping it stops the server.
pub struct ServerHandle {
    name: String,
    listeners: Arc<Live>,
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
    /// Calls of plugins' code for the operator.
    pub(crate) calls: Arc<Calls>,
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
    /// Drops plugins that were replaced; from the first swap on.
    keeper: Option<JoinHandle<()>>,
    /// Says now and then what was lost.
    reporter: Option<Reporter>,
    /// Looks whether certificates have changed; where there are some.
    certificates: Option<CertificateWatch>,
    /// The threads for what comes before MQTT run as well.
    has_anteroom: bool,
    /// They, or then the plugins, have not ended in time; waiting again would not help.
    given_up: bool,
}

/// Counts the threads that have ended.
#[derive(Default)]
struct Ended {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Ended {
    fn add_one(&self) {
        *lock(&self.count) += 1;
        self.changed.notify_all();
    }

    /// Waits until `count` threads have ended. `false` if they have not at `deadline`.
    fn wait(&self, count: usize, deadline: Option<Instant>) -> bool {
        let mut ended = lock(&self.count);
        while *ended < count {
            let patience = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if patience.is_zero() {
                return false;
            }
            ended = self.changed.wait_timeout(ended, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
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

    /// Puts another version of a plugin into the place of the one that runs, while the server serves: copies the library,
    /// loads and checks it, initialises its handler beside the running one, and then flips: from that moment on the new
    /// instance decides about every packet that is looked at. Each connection goes over before its next packet, and those
    /// that say nothing in a sweep, which is waited for.
    ///
    /// For [`SwapRequest::probation`] the failures of the new one are counted: with more than
    /// [`SwapRequest::error_budget`] of them, all connections go back to the old one, by themselves.
    ///
    /// This waits for the authors' code, for [`SwapRequest::ready_within`] at most.
    ///
    /// # Errors
    /// See [`SwapStep`](crate::SwapStep). Nothing has changed then.
    pub fn swap(&self, request: &SwapRequest) -> Result<SwapReport, SwapError> {
        let chain = self.chain_to_change(request.name.as_deref())?;
        swap::swap(&chain, self.mailboxes.workers(), &self.services, request)
    }

    /// Gives all connections to a plugin that has a share of them; its probation begins, as long and with the budget that its
    /// [`SwapRequest`] has named. `name` may be left out, as there is only one.
    ///
    /// # Errors
    /// There is no canary, or not of this name.
    pub fn promote(&self, name: Option<&str>) -> Result<SwapReport, SwapError> {
        let chain = self.chain_to_change(name)?;
        swap::promote(&chain, self.mailboxes.workers(), name, SwapRequest::WAIT)
    }

    /// Gives all connections back to the instance that a plugin has replaced, whether it has a share of the connections or
    /// is on probation with all of them. `name` may be left out if only one is on trial.
    ///
    /// # Errors
    /// Nothing is on trial, nothing of this name, or several plugins are.
    pub fn rollback(&self, name: Option<&str>) -> Result<SwapReport, SwapError> {
        let chain = self.chain_to_change(name)?;
        swap::rollback(&chain, self.mailboxes.workers(), name, SwapRequest::WAIT)
    }

    /// Swaps each plugin whose file has changed since it was loaded, one after the other, each with its configuration.
    /// The result has a line for each of them.
    pub fn swap_changed(&self) -> Vec<Result<SwapReport, SwapError>> {
        let plugins = lock(&self.threads).chain.as_ref().map(Chain::plugins).unwrap_or_default();
        let changed = |plugin: &Arc<Plugin>| {
            let origin = plugin.origin().filter(|origin| origin.has_changed())?;
            Some((plugin.name().to_owned(), origin.path().to_owned()))
        };
        let changed: Vec<_> = plugins.iter().filter_map(changed).collect();
        drop(plugins);
        let swap = |(name, path)| self.swap(&SwapRequest { name: Some(name), ..SwapRequest::new(path) });
        changed.into_iter().map(swap).collect()
    }

    /// The plugins, their instances, and how many connections each decides about.
    #[must_use]
    pub fn status(&self) -> Status {
        swap::status(&lock(&self.threads).chain.clone().unwrap_or_default())
    }

    /// The instances that connections have or can get back, in the order of the chain, those that decide first.
    pub(crate) fn instances(&self) -> Vec<(Role, Arc<Plugin>)> {
        swap::instances(&lock(&self.threads).chain.clone().unwrap_or_default())
    }

    /// The chain, and a thread that cares for it while it changes.
    fn chain_to_change(&self, plugin: Option<&str>) -> Result<Chain, SwapError> {
        let mut threads = lock(&self.threads);
        let Some(chain) = threads.chain.clone() else {
            return Err(SwapError::busy(plugin, &Busy::Stopping));
        };
        if threads.keeper.is_none() {
            let (kept, name) = (chain.clone(), format!("{}-plugins", self.name));
            let keeper = std::thread::Builder::new().name(name).spawn(move || kept.keep());
            threads.keeper = Some(keeper.map_err(|error| SwapError::no_thread(plugin, &error))?);
        }
        Ok(chain)
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

    fn start_worker(&self, worker: usize, name: &str, shared: &Arc<Shared>) -> Result<(), Error> {
        let ended = Arc::clone(&self.ended);
        let seed = Seed {
            worker,
            name: format!("{name}-{worker}"),
            workers: Arc::clone(&self.workers),
            shared: Arc::clone(shared),
            clock: self.clock,
            watch: Arc::clone(&self.watch),
            on_end: Box::new(move || ended.add_one()),
        };
        let thread = worker::start(seed).map_err(|source| Error::System { what: "start a worker", source })?;
        lock(&self.threads).running.push(thread);
        Ok(())
    }

    /// Starts the thread for QUIC, if a listener needs it.
    #[cfg(feature = "quic")]
    fn start_quic(&self, shared: &Shared) -> Result<(), Error> {
        let listeners = self.listeners.listeners();
        if !listeners.iter().any(Listener::is_quic) {
            return Ok(());
        }
        let ended = Arc::clone(&self.ended);
        let seed = quic::Seed {
            name: format!("{}-quic", self.name),
            workers: Arc::clone(&self.workers),
            listeners,
            limits: shared.limits.clone(),
            mailboxes: self.mailboxes.clone(),
            on_end: Box::new(move || ended.add_one()),
        };
        let thread = quic::start(seed).map_err(|source| Error::System { what: "start a thread for QUIC", source })?;
        lock(&self.threads).running.push(thread);
        Ok(())
    }

    fn start_reporter(&self) -> Result<(), Error> {
        let (name, counters) = (format!("{}-report", self.name), Arc::clone(&self.counters));
        let say = |tally: &Tally| tally.log("in the last 10 seconds");
        let reporter = Reporter::start(name, counters, report::PERIOD, say);
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
            let_go(chain, keeper)?;
            threads.given_up = false;
            Tally::of(&self.counters).log("since the start");
            self.announce_end();
        } else if threads.given_up {
            return Err(Error::StopTimeout { secs: PLUGINS_STOP_TIMEOUT.as_secs() });
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
