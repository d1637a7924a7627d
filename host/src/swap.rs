//! Live swap: another instance of a plugin takes the place of the one that runs, while the server serves.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::plugin::{
    Busy, CallbackStats, Chain, Flip, LoadError, Plugin, PluginStats, Prepared, Services, Trial, mapped,
};

/// What is to be loaded, in whose place, and how careful that is to be.
///
/// ```no_run
/// # fn f(server: &host::ServerHandle) -> Result<(), host::SwapError> {
/// let report = server.swap(&host::SwapRequest::new("target/release/libmy_handler.so"))?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SwapRequest {
    /// The library.
    pub path: PathBuf,
    /// Its configuration as JSON; `None` for that of the plugin that it replaces.
    pub config: Option<String>,
    /// The plugin that it replaces; `None` for the one that has the library's own name.
    pub name: Option<String>,
    /// The share of the connections that it gets until it is promoted, per mille; `None` for all at once.
    pub canary_per_mille: Option<u16>,
    /// For how long its failures are counted once it has all connections, and the one before is kept.
    pub probation: Duration,
    /// The failures that it may have in this time (and before, as a canary): one more, and it is rolled back.
    pub error_budget: u32,
    /// How long it may take until it is ready: loaded, initialised, and with the state of the plugin as a whole.
    pub ready_within: Duration,
    /// How long to wait for the connections to go over.
    pub wait: Duration,
}

impl SwapRequest {
    /// How long a new plugin is on probation unless it is said otherwise.
    pub const PROBATION: Duration = Duration::from_secs(10);

    /// Its error budget unless it is said otherwise.
    pub const ERROR_BUDGET: u32 = 10;

    /// How long it may take to get ready unless it is said otherwise.
    pub const READY_WITHIN: Duration = Duration::from_secs(30);

    /// How long is waited for the connections unless it is said otherwise.
    pub const WAIT: Duration = Duration::from_secs(5);

    /// Replaces the plugin that has the library's name, for all connections, with its configuration.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            config: None,
            name: None,
            canary_per_mille: None,
            probation: Self::PROBATION,
            error_budget: Self::ERROR_BUDGET,
            ready_within: Self::READY_WITHIN,
            wait: Self::WAIT,
        }
    }

    fn flip(&self) -> Flip {
        Flip { per_mille: self.canary_per_mille, probation: self.probation, budget: self.error_budget }
    }
}

/// What a swap, a promotion or a rollback has done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwapReport {
    /// The plugin's name.
    pub name: String,
    /// Its file; `None` if it is linked in.
    pub path: Option<PathBuf>,
    /// The version that decided before.
    pub from_version: String,
    /// The version that decides now.
    pub version: String,
    /// Which instance of a plugin of this server it is; those that were there at the start have 1.
    pub generation: u64,
    /// The share of the connections that it has, per mille: 1000 for all.
    pub per_mille: u16,
    /// From the beginning to the moment from which packets are the new instance's.
    pub flip: Duration,
    /// From there until the last connection had gone over; `None` if that was not waited for, or took too long.
    pub migration: Option<Duration>,
    /// Connections that stay with the old instance until they have ended an exchange, or got an answer.
    pub late: usize,
    /// It has used up its error budget while the connections went over, and the one before decides again.
    pub is_rolled_back: bool,
}

impl SwapReport {
    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "plugin": self.name,
            "path": self.path,
            "from_version": self.from_version,
            "version": self.version,
            "generation": self.generation,
            "share_per_mille": self.per_mille,
            "flip_ms": milliseconds(self.flip),
            "migration_ms": self.migration.map(milliseconds),
            "late_connections": self.late,
            "rolled_back": self.is_rolled_back,
        })
    }
}

fn milliseconds(time: Duration) -> f64 {
    // To the microsecond: more says nothing.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl fmt::Display for SwapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, from_version, version, generation, per_mille, late, .. } = self;
        write!(f, "plugin {name}: {version} (generation {generation}) in the place of {from_version}")?;
        if *per_mille < 1000 {
            write!(f, " for {} % of the connections", f64::from(*per_mille) / 10.0)?;
        }
        write!(f, ", {} ms to the flip", milliseconds(self.flip))?;
        match self.migration {
            Some(took) => write!(f, ", {} ms to the last connection", milliseconds(took))?,
            None => f.write_str(", some connections have not gone over yet")?,
        }
        if *late > 0 {
            write!(f, " but {late} that wait for something")?;
        }
        if self.is_rolled_back {
            write!(f, "; it has used up its error budget, and {from_version} decides again: the log has its errors")?;
        }
        Ok(())
    }
}

/// Where a swap has failed. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwapStep {
    /// Nothing can be swapped now: see the reason.
    Begin,
    /// The file could not be read.
    Copy,
    /// It is not a library that can be loaded.
    Load,
    /// It does not fit this host.
    Abi,
    /// No plugin has the name, or two would have one name.
    Name,
    /// Its configuration is not JSON.
    Config,
    /// Its `init` refused or panicked.
    Init,
    /// The state of the plugin as a whole could not be handed over.
    State,
    /// There is a canary in the way, or nothing on trial.
    Flip,
}

impl SwapStep {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Copy => "copy",
            Self::Load => "load",
            Self::Abi => "abi",
            Self::Name => "name",
            Self::Config => "config",
            Self::Init => "init",
            Self::State => "state",
            Self::Flip => "flip",
        }
    }
}

/// Why a swap did not take place. The plugin that runs has not been touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapError {
    /// How far it got.
    pub step: SwapStep,
    /// The plugin's name, as far as it was known.
    pub plugin: Option<String>,
    /// What was found, what was expected, what to do.
    pub reason: String,
}

impl SwapError {
    fn new(step: SwapStep, plugin: Option<&str>, reason: impl fmt::Display) -> Self {
        Self { step, plugin: plugin.map(str::to_owned), reason: reason.to_string() }
    }

    pub(crate) fn no_thread(plugin: Option<&str>, error: &std::io::Error) -> Self {
        Self::new(SwapStep::Begin, plugin, format_args!("a thread cannot be started: {error}"))
    }

    pub(crate) fn busy(plugin: Option<&str>, busy: &Busy) -> Self {
        let step = match busy {
            Busy::Stopping | Busy::Changing => SwapStep::Begin,
            Busy::Canary(_) | Busy::NoTrial(_) | Busy::Several(_) => SwapStep::Flip,
        };
        Self::new(step, plugin, busy)
    }

    fn load(plugin: Option<&str>, error: &LoadError) -> Self {
        let step = match error {
            LoadError::NotFound { .. } | LoadError::Unreadable { .. } => SwapStep::Copy,
            LoadError::NotALibrary { .. } | LoadError::NoEntrySymbol { .. } => SwapStep::Load,
            LoadError::OtherVersion { .. }
            | LoadError::OtherLayout { .. }
            | LoadError::BadName { .. }
            | LoadError::BlocksDeliveries { .. }
            | LoadError::PanicAbort { .. } => SwapStep::Abi,
            LoadError::BadConfig { .. } => SwapStep::Config,
            LoadError::InitRefused { .. } | LoadError::InitPanicked { .. } => SwapStep::Init,
            LoadError::DuplicateName { .. } | LoadError::TooManyPlugins { .. } => SwapStep::Name,
        };
        Self::new(step, plugin, error)
    }

    /// The error as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "step": self.step.name(), "plugin": self.plugin, "reason": self.reason })
    }
}

impl fmt::Display for SwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing was swapped ({}): {}", self.step.name(), self.reason)
    }
}

impl std::error::Error for SwapError {}

/// A plugin of a server, and its instances.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PluginStatus {
    /// Its name.
    pub name: String,
    /// Its place in the chain, from 0 on.
    pub index: usize,
    /// Its instances: first the one that decides about most connections; then the one that is on trial as a canary, or
    /// the one that a rollback would go back to; then those that have been replaced and are still in use.
    pub instances: Vec<InstanceStatus>,
}

/// An instance of a plugin.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InstanceStatus {
    /// What it is there for.
    pub role: Role,
    /// Its version.
    pub version: String,
    /// The version of plugin-api that it was built with.
    pub api_version: String,
    /// Its file; `None` if it is linked in.
    pub path: Option<PathBuf>,
    /// Which instance of a plugin of this server it is; those that were there at the start have 1.
    pub generation: u64,
    /// The share of the connections that are to be its, per mille.
    pub per_mille: u16,
    /// The connections that it decides about now.
    pub connections: usize,
    /// What is left of its error budget; `None` if nobody counts.
    pub errors_left: Option<u32>,
    /// What is left of its probation; `None` if it is not on probation, or has not begun it.
    pub probation_left: Option<Duration>,
    /// How often its functions were called, and how that ended.
    pub stats: PluginStats,
}

/// What an instance is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It decides.
    Active,
    /// It decides about a share of the connections.
    Canary,
    /// A rollback would go back to it.
    Previous,
    /// It has been replaced, and goes when nothing refers to it any more.
    Retired,
}

impl Role {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Canary => "canary",
            Self::Previous => "previous",
            Self::Retired => "retired",
        }
    }
}

/// The plugins of a server, and what has been mapped for them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The plugins, in the order of the chain.
    pub plugins: Vec<PluginStatus>,
    /// Libraries that the process has mapped: each swap adds one, none is unmapped.
    pub mapped_libraries: usize,
    /// The bytes of their files.
    pub mapped_bytes: u64,
}

impl Status {
    /// The status as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let instance = |instance: &InstanceStatus| {
            json!({
                "role": instance.role.name(),
                "version": instance.version,
                "api_version": instance.api_version,
                "path": instance.path,
                "generation": instance.generation,
                "share_per_mille": instance.per_mille,
                "connections": instance.connections,
                "errors_left": instance.errors_left,
                "probation_left_ms": instance.probation_left.map(milliseconds),
                "quarantined": instance.stats.is_quarantined,
                "callbacks": instance.stats.callbacks.iter().map(CallbackStats::to_json).collect::<Vec<_>>(),
            })
        };
        let plugin = |plugin: &PluginStatus| {
            json!({
                "plugin": plugin.name,
                "index": plugin.index,
                "instances": plugin.instances.iter().map(instance).collect::<Vec<_>>(),
            })
        };
        json!({
            "plugins": self.plugins.iter().map(plugin).collect::<Vec<_>>(),
            "mapped_libraries": self.mapped_libraries,
            "mapped_bytes": self.mapped_bytes,
        })
    }
}

/// Loads a library and puts its handler into its place; see [`ServerHandle::swap`](crate::ServerHandle::swap).
pub(crate) fn swap(
    chain: &Chain,
    workers: usize,
    services: &Services,
    request: &SwapRequest,
) -> Result<SwapReport, SwapError> {
    let began = Instant::now();
    let _change = chain.change().map_err(|busy| SwapError::busy(request.name.as_deref(), &busy))?;
    let Ready { index, running, plugin } = prepare(chain, services, request)?;
    let (name, version, path) = (plugin.name().to_owned(), plugin.version().to_owned(), request.path.clone());
    let epoch = match chain.flip(index, &plugin, &request.flip()) {
        Ok(epoch) => epoch,
        Err(busy) => {
            // It has been initialised, and may have threads to end.
            plugin.let_go();
            return Err(SwapError::busy(Some(&name), &busy));
        }
    };
    let mut report = SwapReport {
        name,
        path: Some(path),
        from_version: running.version().to_owned(),
        version,
        generation: chain.generation(),
        per_mille: request.canary_per_mille.unwrap_or(1000),
        flip: began.elapsed(),
        migration: None,
        late: 0,
        is_rolled_back: false,
    };
    wait(chain, workers, epoch, request.wait, &mut report);
    // Nothing else can have replaced it meanwhile, and it is not dropped while it is here.
    report.is_rolled_back = chain.retired().iter().any(|retired| Arc::ptr_eq(retired, &plugin));
    tracing::info!("{report}");
    Ok(report)
}

/// An instance that can take its place, and the one that has it.
struct Ready {
    index: usize,
    running: Arc<Plugin>,
    plugin: Arc<Plugin>,
}

/// How far a preparation is: the step, and the plugin once it is known.
type Progress = Mutex<(SwapStep, Option<String>)>;

/// Makes an instance on a thread of its own: what runs there is the authors' code, and who waits for it holds up all
/// swaps, and the end of the server.
fn prepare(chain: &Chain, services: &Services, request: &SwapRequest) -> Result<Ready, SwapError> {
    /// How often it is looked whether the server ends meanwhile.
    const LOOK: Duration = Duration::from_millis(50);
    let ending = chain;
    // Who takes it has taken it; otherwise it comes back.
    let (sender, receiver) = mpsc::sync_channel(0);
    let progress = Arc::new(Mutex::new((SwapStep::Copy, request.name.clone())));
    let (chain, services, owned, noted) = (chain.clone(), services.clone(), request.clone(), Arc::clone(&progress));
    let thread = std::thread::Builder::new().name("plugin-load".to_owned()).spawn(move || {
        let ready = load(&chain, &services, &owned, &noted);
        if let Err(SendError(Ok(late))) = sender.send(ready) {
            tracing::warn!(plugin = late.plugin.name(), "a plugin has got ready after its time, and is let go");
            late.plugin.let_go();
        }
    });
    thread.map_err(|error| SwapError::no_thread(request.name.as_deref(), &error))?;
    let deadline = Instant::now() + request.ready_within;
    let ready = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(LOOK)) {
            Err(RecvTimeoutError::Timeout) if ending.is_closed() => {
                return Err(SwapError::busy(request.name.as_deref(), &Busy::Stopping));
            }
            Err(RecvTimeoutError::Timeout) if left > LOOK => {}
            ready => break ready,
        }
    };
    ready.unwrap_or_else(|error| {
        let (step, plugin) = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = match error {
            RecvTimeoutError::Timeout => format!(
                "{} has not got ready within {} s, and is let go as soon as it returns. What does it wait for in `init`, or \
                 in the functions that hand over its state?",
                plugin.as_deref().map_or("the library".to_owned(), |name| format!("plugin {name}")),
                request.ready_within.as_secs_f32()
            ),
            RecvTimeoutError::Disconnected => "a fault in the host: the log says where it panicked".to_owned(),
        };
        Err(SwapError { step, plugin, reason })
    })
}

/// Loads, checks and initialises, and hands over what the plugin as a whole knows.
fn load(chain: &Chain, services: &Services, request: &SwapRequest, progress: &Progress) -> Result<Ready, SwapError> {
    let note = |step, name: Option<&str>| {
        *progress.lock().unwrap_or_else(PoisonError::into_inner) = (step, name.map(str::to_owned));
    };
    let named = request.name.as_deref();
    let prepared = Prepared::read(&request.path).map_err(|error| SwapError::load(named, &error))?;
    let index = place(chain, named, &prepared, &request.path)?;
    let name = prepared.name().to_owned();
    chain.may_flip(index, &request.flip()).map_err(|busy| SwapError::busy(Some(&name), &busy))?;
    let running = Arc::clone(&chain.plugins()[index]);
    let config = request.config.clone().unwrap_or_else(|| running.config());
    note(SwapStep::Init, Some(&name));
    let plugin = prepared.init(&config, services).map_err(|error| SwapError::load(Some(&name), &error))?;
    note(SwapStep::State, Some(&name));
    let plugin = Arc::new(plugin);
    if let Err(error) = hand_over_state(&running, &plugin) {
        plugin.let_go();
        return Err(error);
    }
    Ok(Ready { index, running, plugin })
}

/// Hands over what the plugin as a whole knows.
fn hand_over_state(from: &Plugin, to: &Plugin) -> Result<(), SwapError> {
    let taken = from.hand_over_all(to);
    taken.map_err(|why| SwapError::new(SwapStep::State, Some(to.name()), format_args!("plugin {}: {why}", to.name())))
}

/// The place in the chain that a library is for.
fn place(chain: &Chain, named: Option<&str>, prepared: &Prepared, path: &Path) -> Result<usize, SwapError> {
    let plugins = chain.plugins();
    let find = |name: &str| plugins.iter().position(|plugin| plugin.name() == name);
    let wanted = named.unwrap_or(prepared.name());
    let error = |reason: String| SwapError::new(SwapStep::Name, Some(wanted), reason);
    let Some(index) = find(wanted) else {
        let names = plugins.iter().map(|plugin| plugin.name()).collect::<Vec<_>>().join(", ");
        if names.is_empty() {
            let reason =
                "this server was started without plugins, and one cannot be added while it runs: start it with one";
            return Err(error(reason.to_owned()));
        }
        return Err(error(format!(
            "no plugin of this server is called {wanted:?} (there are: {names}). The name of the library {} says which \
             plugin it replaces, unless the swap names one (--name)",
            path.display()
        )));
    };
    match find(prepared.name()) {
        Some(other) if other != index => Err(error(format!(
            "the library {} is called {:?}, as another plugin of this server is, and two cannot have one name",
            path.display(),
            prepared.name()
        ))),
        _ => Ok(index),
    }
}

fn wait(chain: &Chain, workers: usize, epoch: u32, patience: Duration, report: &mut SwapReport) {
    let began = Instant::now();
    if let Some(late) = chain.wait_conformed(workers, epoch, patience) {
        report.migration = Some(began.elapsed());
        report.late = late;
    }
}

/// See [`ServerHandle::promote`](crate::ServerHandle::promote).
pub(crate) fn promote(
    chain: &Chain,
    workers: usize,
    name: Option<&str>,
    request: &Flip,
    patience: Duration,
) -> Result<SwapReport, SwapError> {
    let began = Instant::now();
    let busy = |busy| SwapError::busy(name, &busy);
    let _change = chain.change().map_err(busy)?;
    let (trial, epoch) = chain.promote(name, request).map_err(busy)?;
    let mut report = report_of(&trial.previous, &trial.plugin, began);
    wait(chain, workers, epoch, patience, &mut report);
    tracing::info!("promoted: {report}");
    Ok(report)
}

/// See [`ServerHandle::rollback`](crate::ServerHandle::rollback).
pub(crate) fn rollback(
    chain: &Chain,
    workers: usize,
    name: Option<&str>,
    patience: Duration,
) -> Result<SwapReport, SwapError> {
    let began = Instant::now();
    let busy = |busy| SwapError::busy(name, &busy);
    let _change = chain.change().map_err(busy)?;
    let (trial, epoch) = chain.roll_back(name).map_err(busy)?;
    let mut report = report_of(&trial.plugin, &trial.previous, began);
    wait(chain, workers, epoch, patience, &mut report);
    tracing::info!("rolled back: {report}");
    Ok(report)
}

fn report_of(from: &Plugin, to: &Plugin, began: Instant) -> SwapReport {
    SwapReport {
        name: to.name().to_owned(),
        path: to.origin().map(|origin| origin.path().to_owned()),
        from_version: from.version().to_owned(),
        version: to.version().to_owned(),
        generation: to.generation(),
        per_mille: 1000,
        flip: began.elapsed(),
        migration: None,
        late: 0,
        is_rolled_back: false,
    }
}

/// For each plugin the instance that decides, and the one that is on trial or that a rollback would go back to.
pub(crate) fn instances(chain: &Chain) -> Vec<(Role, Arc<Plugin>)> {
    let trials = chain.trials();
    let mut all = Vec::new();
    for (index, plugin) in chain.plugins().into_iter().enumerate() {
        let trial = trials.iter().find(|trial| trial.index() == index);
        let second = trial.map(|trial| match trial.per_mille {
            Some(_) => (Role::Canary, Arc::clone(&trial.plugin)),
            None => (Role::Previous, Arc::clone(&trial.previous)),
        });
        all.push((Role::Active, plugin));
        all.extend(second);
    }
    all
}

/// Whoever reads it has another working directory.
fn from_root(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// See [`ServerHandle::status`](crate::ServerHandle::status).
pub(crate) fn status(chain: &Chain) -> Status {
    let (trials, retired, now) = (chain.trials(), chain.retired(), Instant::now());
    let instance = |role: Role, plugin: &Plugin, per_mille: u16, trial: Option<&Trial>| InstanceStatus {
        role,
        version: plugin.version().to_owned(),
        api_version: plugin.api_version().to_owned(),
        path: plugin.origin().map(|origin| from_root(origin.path())),
        generation: plugin.generation(),
        per_mille,
        connections: plugin.connections(),
        errors_left: plugin.errors_left(),
        probation_left: trial.and_then(|trial| trial.until).map(|until| until.saturating_duration_since(now)),
        stats: plugin.stats(),
    };
    let active = chain.plugins();
    let plugins = active.iter().enumerate().map(|(index, plugin)| {
        let trial = trials.iter().find(|trial| trial.index() == index);
        let share = trial.and_then(|trial| trial.per_mille).unwrap_or(0);
        let mut instances = vec![instance(Role::Active, plugin, 1000 - share, trial.filter(|_| share == 0))];
        match trial {
            Some(trial) if share > 0 => instances.push(instance(Role::Canary, &trial.plugin, share, None)),
            Some(trial) => instances.push(instance(Role::Previous, &trial.previous, 0, None)),
            None => {}
        }
        let retired = retired.iter().filter(|retired| retired.index() == index);
        instances.extend(retired.map(|plugin| instance(Role::Retired, plugin, 0, None)));
        PluginStatus { name: plugin.name().to_owned(), index, instances }
    });
    let plugins = plugins.collect();
    let (mapped_libraries, mapped_bytes) = mapped();
    Status { plugins, mapped_libraries, mapped_bytes }
}
