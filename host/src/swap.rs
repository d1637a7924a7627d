//! Live swap: another instance of a plugin takes the place of the one that runs, while the server serves.

mod prepare;
mod report;
mod status;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::prepare::{Ready, prepare};
pub use self::report::{SwapError, SwapReport, SwapStep};
pub use self::status::{InstanceStatus, PluginStatus, Role, Status};
pub(crate) use self::status::{instances, status};
use crate::plugin::{self, Chain, Configs, DryRun, Flip, Services};

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

/// Loads a library and puts its handler into its place; see [`ServerHandle::swap`](crate::ServerHandle::swap).
pub(crate) fn swap(
    chain: &Chain,
    workers: usize,
    services: &Services,
    request: &SwapRequest,
) -> Result<SwapReport, SwapError> {
    let began = Instant::now();
    let _change = chain.change().map_err(|busy| SwapError::busy(request.name.as_deref(), &busy))?;
    let ready = prepare(chain, services, request)?;
    let flipped = Instant::now();
    let epoch = flip(chain, &ready, &request.flip())?;
    let Ready { running, plugin, .. } = ready;
    let mut report = SwapReport::new(&running, &plugin, flipped - began);
    report.per_mille = request.canary_per_mille.unwrap_or(1000);
    wait(chain, workers, (epoch, flipped), request.wait, &mut report);
    // Nothing else can have replaced it meanwhile, and it is not dropped while it is here.
    report.is_rolled_back = chain.retired().iter().any(|retired| Arc::ptr_eq(retired, &plugin));
    tracing::info!("{report}");
    Ok(report)
}

/// Tries a library beside the plugin that it would replace; see [`ServerHandle::dry_run`](crate::ServerHandle::dry_run).
pub(crate) fn dry_run(
    chain: &Chain,
    services: &Services,
    request: &SwapRequest,
    limits: &DryRun,
    has_left: &dyn Fn() -> bool,
) -> Result<serde_json::Value, SwapError> {
    let (services, captured) = services.captured();
    // Somebody else may swap while it is tried, which then ends.
    let change = chain.change().map_err(|busy| SwapError::busy(request.name.as_deref(), &busy))?;
    let Ready { index, running, plugin } = prepare(chain, &services, request)?;
    drop(change);
    let name = plugin.name().to_owned();
    let configs = if request.config.is_none() { Configs::Same } else { Configs::Own(VecDeque::new()) };
    let tried = plugin::dry_run(chain, index, &running, (plugin, captured), limits, configs, has_left);
    tried.map_err(|busy| SwapError::busy(Some(&name), &busy))
}

/// Has it decide from now on. What was in order when it was begun may not be any more.
fn flip(chain: &Chain, Ready { index, plugin, .. }: &Ready, how: &Flip) -> Result<u32, SwapError> {
    chain.flip(*index, plugin, how).map_err(|busy| {
        // It has been initialised, and may have threads to end.
        plugin.let_go();
        SwapError::busy(Some(plugin.name()), &busy)
    })
}

/// The time is from just before the plan was changed: workers may be done before the thread that has changed it goes on.
fn wait(chain: &Chain, workers: usize, (epoch, flipped): (u32, Instant), patience: Duration, report: &mut SwapReport) {
    if let Some(late) = chain.wait_conformed(workers, epoch, patience) {
        report.migration = Some(flipped.elapsed());
        report.late = late;
    }
}

/// See [`ServerHandle::promote`](crate::ServerHandle::promote).
pub(crate) fn promote(
    chain: &Chain,
    workers: usize,
    name: Option<&str>,
    patience: Duration,
) -> Result<SwapReport, SwapError> {
    let began = Instant::now();
    let busy = |busy| SwapError::busy(name, &busy);
    let _change = chain.change().map_err(busy)?;
    let flipped = Instant::now();
    let (trial, epoch) = chain.promote(name).map_err(busy)?;
    let mut report = SwapReport::new(&trial.previous, &trial.plugin, flipped - began);
    wait(chain, workers, (epoch, flipped), patience, &mut report);
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
    let flipped = Instant::now();
    let (trial, epoch) = chain.roll_back(name).map_err(busy)?;
    let mut report = SwapReport::new(&trial.plugin, &trial.previous, flipped - began);
    wait(chain, workers, (epoch, flipped), patience, &mut report);
    tracing::info!("rolled back: {report}");
    Ok(report)
}

#[cfg(test)]
mod tests {
    use plugin_api::{ConnectionInfo, Error, Handler, Host, handler};

    use super::*;
    use crate::plugin::{Plugin, Services};

    /// Tells when it is stopped, by a file, which is its configuration.
    struct Telling(String);

    #[handler]
    impl Handler for Telling {
        type Connection = ();

        fn init(_: Host, config: &str) -> Result<Self, Error> {
            Ok(Self(config.trim_matches('"').to_owned()))
        }

        fn new_connection(&self, _: &ConnectionInfo<'_>) {}

        fn stop(&self) {
            std::fs::write(&self.0, "").expect("a file can be written");
        }
    }

    /// A canary that has come since the preparation began is in the way; what is ready by then has started its threads.
    #[test]
    fn plugin_that_cannot_have_its_place_after_all_is_stopped() {
        let file = |name| std::env::temp_dir().join(format!("host-swap-{}-{name}", std::process::id()));
        let plugin = |name| {
            let config = format!("{:?}", file(name));
            Plugin::from_static::<Telling>("telling", "1.0.0", &config, &Services::detached()).expect("it starts")
        };
        let chain = Chain::new(vec![plugin("running")]).expect("a chain");
        let running = Arc::clone(&chain.plugins()[0]);
        let how = Flip { per_mille: Some(100), probation: Duration::ZERO, budget: 0 };
        let ready = |name| Ready { index: 0, running: Arc::clone(&running), plugin: Arc::new(plugin(name)) };
        flip(&chain, &ready("canary"), &how).expect("nothing is in its way");
        let error = flip(&chain, &ready("late"), &how).expect_err("the canary is in its way");
        assert!(error.step == SwapStep::Flip && error.reason.contains("canary"), "{error:?}");
        assert_eq!(["running", "canary", "late"].map(|name| file(name).exists()), [false, false, true]);
        std::fs::remove_file(file("late")).expect("it is there");
    }
}
