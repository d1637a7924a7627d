//! The plugins of a server: loaded at its start, exchanged while it runs, let go at its end.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::builder::Source;
use super::{ServerHandle, lock};
use crate::error::Error;
use crate::plugin::{Busy, Chain, DryRun, LoadError, Plugin, Services};
use crate::swap::{self, Role, Status, SwapError, SwapReport, SwapRequest};

/// Time that the plugins take at most afterwards, to write what is to be kept and to end their threads.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Loads the plugins in order. If one cannot be loaded, those before it are let go.
pub(super) fn load_all(sources: Vec<Source>, services: &Services) -> Result<Chain, LoadError> {
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
pub(super) fn let_go(chain: Chain, keeper: Option<JoinHandle<()>>) -> Result<(), Error> {
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
    if wait.recv_timeout(STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
        tracing::error!(plugins = names, "a plugin does not return from `stop`, or from its `Drop`");
        return Err(Error::StopTimeout { secs: STOP_TIMEOUT.as_secs() });
    }
    let _ = thread.join();
    Ok(())
}

impl ServerHandle {
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

    /// Tries another version of a plugin beside the one that runs, and swaps nothing: the library is loaded, checked and
    /// initialised as for a [`swap`](ServerHandle::swap), and then asked, on a thread of its own, what the running instance
    /// is asked. What it asks of the server is not done, and what it asks about is answered with
    /// [`NotRunning`](plugin_api::HostError::NotRunning). Returns when the time is over, or soon
    /// after `has_left` says that nobody waits for more, with what it has answered otherwise, as JSON. Candidates of several
    /// plugins can be tried at the same time, each beside its own.
    ///
    /// # Errors
    /// See [`SwapStep`](crate::SwapStep).
    pub fn dry_run(
        &self,
        request: &SwapRequest,
        dry_run: &DryRun,
        has_left: &dyn Fn() -> bool,
    ) -> Result<serde_json::Value, SwapError> {
        let chain = self.chain_to_change(request.name.as_deref())?;
        swap::dry_run(&chain, &self.services, request, dry_run, has_left)
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
}
