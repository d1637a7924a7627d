//! From what a server is asked to be to one that runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use plugin_api::Handler;

use super::door::Door;
use super::handed_over::Heirs;
use super::kept::{Kept, Loading, OnProgress, Where};
use super::listeners::Live;
use super::plugins::{let_go, load_all};
use super::{Server, ServerHandle, Threads};
use crate::clock::Clock;
use crate::core::Shared;
use crate::core::mailbox::Mailboxes;
use crate::durable::store::{Durability, Progress};
use crate::error::Error;
use crate::io::anteroom::Places;
use crate::io::listener::Bound;
use crate::io::passed::{PassedSocket, deal_out, deal_out_inherited};
use crate::io::worker::{Workers, zero_on_the_wall};
use crate::limits::Limits;
use crate::listener::{Common, ListenerConfig, ListenerUrl, UrlError};
use crate::plugin::{LoadError, Plugin, Recorder, Recording, Services, Watch};
use crate::privileges;
use crate::upgrade::Successor;

/// The version of a handler that is linked in: there is no other than that of the program.
const LINKED_VERSION: &str = "linked";

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
    kept: Where,
    on_progress: Option<OnProgress>,
    recording: Option<Recording>,
    door: Door,
    successor: Option<Successor>,
}

pub(super) type Load = Box<dyn FnOnce(&Services) -> Result<Plugin, LoadError> + Send>;

/// Where a plugin comes from.
pub(super) enum Source {
    File { path: PathBuf, config: String },
    Linked(Load),
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            name: "host".to_owned(),
            listeners: Vec::new(),
            passed: Vec::new(),
            workers: None,
            plugins: Vec::new(),
            limits: Limits::default(),
            allow_anonymous: false,
            user: None,
            kept: Where { data_dir: None, durability: Durability::default(), segment_bytes: 0 },
            on_progress: None,
            recording: None,
            door: Door::default(),
            successor: None,
        }
    }

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

    /// The directory where sessions, their messages and retained messages are kept, so that they outlive the server. It is
    /// made if it is not there. Default: none, and nothing is written.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.kept.data_dir = Some(path.into());
        self
    }

    /// When something is safe, so that a client is told so. Default: [`Durability::Buffered`]. Says nothing without
    /// [`Builder::data_dir`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.kept.durability = durability;
        self
    }

    /// Has somebody told about once in a second how far loading has come of what was kept.
    pub fn on_progress(mut self, tell: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Box::new(tell));
        self
    }

    /// Writes down what plugins are asked and what they answer. Default: not.
    pub fn record(mut self, recording: Recording) -> Self {
        self.recording = Some(recording);
        self
    }

    /// Lets clients in by this door, so that whoever has it may leave the start before. For one start.
    pub fn door(mut self, door: &Door) -> Self {
        self.door = door.clone();
        self
    }

    /// Takes the place of another process: see [`crate::upgrade`].
    pub fn succeed(mut self, successor: Successor) -> Self {
        self.successor = Some(successor);
        self
    }

    /// Opens the listeners, becomes the user if one was named, opens the recording and what was kept, loads the plugins, starts the workers and
    /// gives them what was kept, in this order; then clients are let in, who have waited meanwhile. If one of these fails,
    /// nothing runs.
    ///
    /// # Errors
    /// An address is wrong or in use, a plugin cannot be loaded, what was kept cannot be read or is another host's, other
    /// machines could connect and nobody decides whether they may, or the operating system refuses threads or descriptors.
    pub fn start(mut self) -> Result<ServerHandle, Error> {
        let mut successor = self.successor.take();
        let started = self.start_as(&mut successor);
        if let (Err(error), Some(successor)) = (&started, &successor) {
            successor.fail(&error.to_string());
        }
        started
    }

    fn start_as(self, successor: &mut Option<Successor>) -> Result<ServerHandle, Error> {
        let count = self.workers.unwrap_or_else(default_workers);
        if !Server::WORKERS.contains(&count) {
            return Err(Error::Workers { got: count });
        }
        self.limits.check()?;
        let bound = bind_all(self.listeners, self.passed, successor)?;
        if let Some(name) = &self.user {
            if let Some(owner) = privileges::owner(name)? {
                bound.iter().try_for_each(|(_, bound)| bound.give_to(owner))?;
            }
            privileges::become_user(name)?;
        }
        let recorder = self.recording.map(|recording| start_recorder(&recording, successor.is_some())).transpose()?;
        let workers = Workers::new(count)
            .map_err(|source| Error::System { what: "make the doorbells of the workers", source })?;
        let mailboxes = Mailboxes::new(workers.wake());
        let clock = successor.as_ref().map_or_else(Clock::start, Successor::clock);
        let watch = Watch::new(count, &self.limits);
        let services = Services::new(mailboxes.clone(), clock, self.limits.packet_bytes_max)
            .watched_by(watch.clone(), &self.limits)
            .with_tickets_max(self.limits.tickets_max)
            .bounded_by(&self.limits);
        let services = match &recorder {
            Some(recorder) => services.recorded_by(Arc::clone(recorder)),
            None => services,
        };
        if let Some(successor) = successor {
            successor.furnish(&services)?;
        }
        let kept_in = Where { segment_bytes: self.limits.store_segment_bytes as u64, ..self.kept };
        let (mut kept, mut load) = (None, None);
        let mut claim = None;
        match successor {
            Some(successor) => claim = kept_in.claim(&self.name, workers.wake(), successor.data_dir_lock())?,
            None => (kept, load) = kept_in.open(&self.name, workers.wake())?.unzip(),
        }
        if let (Some(kept), Some(load)) = (&kept, &mut load) {
            kept.give_values(load.as_mut(), &services, count)?;
        }
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
        let shared = Shared::new(self.limits, chain.clone(), mailboxes.clone());
        let zero = zero_on_the_wall(clock);
        let is_kept = kept.is_some() || claim.is_some();
        let shared = match is_kept {
            true => shared
                .with_store(zero, services.values())
                .with_plugins_kept_as(&services.number_plugins(&chain.names())),
            false => shared,
        };
        let shared = Arc::new(match successor.as_ref() {
            Some(successor) => shared.behind(successor.plugins_before()),
            None => shared,
        });
        // From here on, dropping the handle stops what has been started.
        let names = chain.plugins().iter().map(|plugin| plugin.name()).collect::<Vec<_>>().join(", ");
        let store = kept.as_ref().map(Kept::store);
        let threads =
            Threads { chain: Some(chain), shared: Some(Arc::clone(&shared)), kept, recorder, ..Threads::default() };
        let counters = Arc::clone(&shared.counters);
        let threads = Mutex::new(threads);
        let name = self.name.clone();
        let ended = Arc::default();
        let addrs = listeners.urls().iter().filter_map(ListenerUrl::addr).collect();
        let handle = ServerHandle {
            name,
            listeners: Arc::new(listeners),
            places: Places::new(&shared.limits),
            #[cfg(feature = "quic")]
            quic_places: Places::new(&shared.limits),
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
            looked_at: Mutex::default(),
            calls: Arc::default(),
            control: Mutex::default(),
        };
        if !shared.chain.plugins().is_empty() {
            let system = |source| Error::System { what: "start a thread that watches the plugins", source };
            handle.watch.start(&self.name).map_err(system)?;
        }
        let (loading, restoring) = Loading::new(if load.is_some() { count } else { 0 }, zero);
        let mut restoring = restoring.into_iter();
        let (heirs, inheritances) = Heirs::new(count, &handle.listeners.listeners());
        for (worker, inheritance) in inheritances.into_iter().enumerate() {
            let inheritance = successor.as_ref().map(|_| inheritance);
            handle.start_worker(worker, &shared, store.clone(), restoring.next(), inheritance)?;
        }
        if let (Some(load), Some(store)) = (load, store) {
            loading.run(load, &*store, self.on_progress.as_ref())?;
        }
        if !self.door.open() {
            return Err(Error::Interrupted);
        }
        if let Some(successor) = successor {
            successor.take_over(&handle, &heirs, claim)?;
        }
        drop(heirs);
        handle.publish_listeners()?;
        handle.start_reporter()?;
        handle.announce(&self.name, &names);
        ServerHandle::say_if_all_is_allowed(&shared.chain);
        Ok(handle)
    }
}

fn start_recorder(recording: &Recording, continues: bool) -> Result<Arc<Recorder>, Error> {
    Recorder::start(recording, continues).map_err(|source| Error::Recording { path: recording.path.clone(), source })
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(*Server::WORKERS.end())
}

pub(super) fn default_addr() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, Server::DEFAULT_PORT).into()
}

fn bind_all(
    configs: Vec<Result<ListenerConfig, UrlError>>,
    passed: Vec<PassedSocket>,
    successor: &mut Option<Successor>,
) -> Result<Vec<(ListenerConfig, Bound)>, Error> {
    let mut configs = configs.into_iter().collect::<Result<Vec<_>, _>>()?;
    let open = |(config, socket)| Bound::open(&config, socket).map(|bound| (config, bound));
    if let Some(successor) = successor {
        let sockets = successor.sockets();
        if configs.is_empty() {
            configs = sockets.iter().map(PassedSocket::listener).collect();
        }
        return deal_out_inherited(configs, sockets).into_iter().map(open).collect();
    }
    if configs.is_empty() && passed.is_empty() {
        configs.push(ListenerConfig::new(ListenerUrl::tcp(default_addr())));
    }
    deal_out(configs, passed)?.into_iter().map(open).collect()
}
