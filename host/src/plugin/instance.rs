//! One instance of a plugin: what it is, and how it is made and dropped.
#![allow(unsafe_code)] // Foreign functions are called here.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::abi::{Opaque, PluginVtRef, Verdict};
use plugin_api::{Callback, Callbacks};

use super::c::CHost;
use super::faults::fatal;
use super::generation::Probation;
use super::loader::{Language, Origin};
use super::pool::Pool;
use super::record::Taps;
use super::request::text;
use super::services::{self, NO_CONNECTION, Panic, PluginServices};
use super::stats::{Detour, Entry, Kind, Monitor, PluginStats};
use super::tickets::Tickets;
use plugin_api::reading::Answer;

/// A plugin that is loaded and initialised. Dropping it drops its instance; its library stays mapped.
pub struct Plugin {
    pub(super) name: String,
    pub(super) version: String,
    api_version: String,
    pub(super) callbacks: Callbacks,
    pub(super) table: PluginVtRef,
    pub(super) instance: Opaque,
    pub(super) services: &'static PluginServices,
    /// The file that it was loaded from; `None` if it is linked in.
    origin: Option<Origin>,
    /// Its configuration, for the one that replaces it.
    config: Mutex<String>,
    /// Which instance it is; 0 before it is in a chain.
    generation: AtomicU64,
    /// Connections that it decides about.
    connections: AtomicUsize,
    pub(super) probation: Probation,
    pub(super) monitor: Arc<Monitor>,
    pool: Arc<Pool>,
    taps: Taps,
}

// SAFETY: the contract of `PluginVt`: functions that take no connection's state may be called by several threads at once,
// and the instance is a `Handler`, which is `Send` and `Sync`.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

/// Why a plugin has no instance: the text, and where it panicked if that is what it did.
pub(super) enum NotReady {
    Refused(String),
    Panicked(Panic),
}
impl Plugin {
    /// Makes the instance.
    ///
    /// # Safety
    /// The functions behind `table` must be those of `PluginVt`, keep its contract, and stay mapped until the process
    /// ends.
    pub(super) unsafe fn init(
        table: PluginVtRef,
        language: Language,
        api_version: String,
        origin: Option<Origin>,
        config: &str,
        services: &services::Services,
    ) -> Result<Self, NotReady> {
        let name = table.name().as_str().to_owned();
        let callbacks = Callbacks::from_bits(table.callbacks());
        let kind = Kind { implements: callbacks, may_block: Callbacks::from_bits(table.blocking()) };
        let (monitor, pool) = (services.watch().monitor(&name, kind), Arc::clone(services.pool()));
        let (recorder, taps) = (services.recorder().cloned(), Taps::new(&name));
        let services = PluginServices::leak(&name, services);
        let mut answer = Answer::default();
        let (instance, left) = services::inside(Entry::INIT, NO_CONNECTION, "", || {
            match language {
                // SAFETY: the caller's promise; `raw` is valid until the process ends.
                Language::Rust => unsafe { table.instance_new()(services.raw(), text(config), answer.sink()) },
                // SAFETY: as above.
                Language::C(new) => unsafe { new(CHost::new(services.context()), text(config), answer.sink()) },
            }
        });
        if instance.is_null() {
            services.close();
            let (number, text) = answer.text().unwrap_or_default();
            let panicked = number == u64::from(Verdict::PANICKED.0);
            return Err(if panicked { NotReady::Panicked(fatal(left, &answer)) } else { NotReady::Refused(text) });
        }
        let plugin = Self {
            name,
            version: table.version().as_str().to_owned(),
            api_version,
            callbacks,
            table,
            instance,
            services,
            origin,
            config: Mutex::new(config.to_owned()),
            generation: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            probation: Probation::default(),
            monitor,
            pool,
            taps,
        };
        if let Some(recorder) = recorder {
            recorder.attach(&plugin);
        }
        Ok(plugin)
    }

    /// Its name, by which logs and commands address it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The version of `plugin-api` that it was built with.
    #[must_use]
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// The callbacks that it implements.
    #[must_use]
    pub fn callbacks(&self) -> Callbacks {
        self.callbacks
    }

    /// The same plugin without one of its callbacks.
    #[cfg(test)]
    pub(crate) fn without(mut self, callback: Callback) -> Self {
        self.callbacks = Callbacks::from_bits(self.callbacks.bits() & !Callbacks::default().with(callback).bits());
        self
    }

    /// Whether a callback runs on the pool: the plugin says that it may block, or it has taken too long.
    #[must_use]
    pub fn is_pooled(&self, callback: Callback) -> bool {
        self.monitor.is_pooled(Entry::of(callback))
    }

    /// Its configuration: what `init` got, or what it was given since.
    #[must_use]
    pub fn config(&self) -> String {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a configuration that it has taken over; the instance that replaces it gets it as well.
    pub fn set_config(&self, config: &str) {
        config.clone_into(&mut self.config.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The file that it was loaded from; `None` if it is linked in.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Its place in the chain.
    #[must_use]
    pub fn index(&self) -> usize {
        self.services.index()
    }

    /// Which instance of a plugin it is, among all of the server: 1 for those that were there at the start.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Connections that it decides about at the moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether its failures count against an error budget.
    #[must_use]
    pub fn is_on_probation(&self) -> bool {
        self.probation.is_running()
    }

    /// The errors that it may still make; `None` if nobody counts them.
    #[must_use]
    pub fn errors_left(&self) -> Option<u32> {
        self.probation.errors_left()
    }

    pub(super) fn probation(&self) -> &Probation {
        &self.probation
    }

    /// Gives it its place in the chain.
    pub(super) fn join(&self, index: usize, generation: u64) {
        self.services.set_index(index);
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// It decides from now on.
    pub(super) fn decides(&self) {
        self.services.decides(self.generation());
    }

    /// A connection's state is its current one from now on, or no more.
    pub(super) fn count_connection(&self, begins: bool) {
        if begins {
            self.connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
    /// What is known of it.
    #[must_use]
    pub fn stats(&self) -> PluginStats {
        PluginStats {
            name: self.name.clone(),
            version: self.version.clone(),
            api_version: self.api_version.clone(),
            is_quarantined: self.monitor.is_quarantined(),
            callbacks: self.monitor.callbacks(),
        }
    }

    /// What is to be done instead of calling it, if it is not to be called.
    #[inline]
    pub(super) fn detour(&self, entry: Entry) -> Option<Detour> {
        if self.has_detour(entry) { self.monitor.detour(entry) } else { None }
    }

    /// Whether there is something else to be done.
    #[inline]
    pub(super) fn has_detour(&self, entry: Entry) -> bool {
        self.monitor.has_detour(entry)
    }

    /// Whether the states of connections are made on the pool.
    pub(super) fn begins_on_pool(&self) -> bool {
        self.detour(Entry::NEW_CONNECTION) == Some(Detour::Pool)
    }

    /// Which one it is among all that the server has had.
    pub(super) fn number(&self) -> u32 {
        self.monitor.number()
    }

    /// Counts what it was not asked or told, as it has too much to do already.
    #[cold]
    pub(super) fn count_full(&self, entry: Entry) {
        self.monitor.count_full(entry);
    }

    /// Who listens to its calls.
    pub(super) fn taps(&self) -> &Taps {
        &self.taps
    }

    /// Whether somebody does.
    #[inline]
    pub(super) fn is_tapped(&self) -> bool {
        self.monitor.is_tapped()
    }

    /// Somebody does from now on, or nobody.
    pub(super) fn set_tapped(&self, is_tapped: bool) {
        self.monitor.set_tapped(is_tapped);
    }

    /// The threads for what may block.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Waits until all is done that the pool has been given.
    #[cfg(test)]
    pub(crate) fn drain_pool(&self) {
        self.pool.drain();
    }

    /// What it may ask of the host.
    pub(super) fn services(&self) -> &'static PluginServices {
        self.services
    }

    /// Has it asked again though it has panicked too often. `false` if it is not in quarantine.
    pub fn end_quarantine(&self) -> bool {
        self.monitor.end_quarantine()
    }

    /// Its functions, and what they get as the instance, which lives as long as this plugin.
    pub(super) fn foreign(&self) -> (PluginVtRef, Opaque) {
        (self.table, self.instance)
    }

    /// The tickets that it has taken.
    pub(super) fn tickets(&self) -> &'static Tickets {
        &self.services.tickets
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.call(Entry::DROP_INSTANCE, "", |table, instance, answer| {
            // SAFETY: this is the last call: `Handlers`, which hold the states, keep the plugin alive.
            unsafe { table.instance_drop()(instance, answer.sink()) }
        });
        self.services.close();
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("api_version", &self.api_version)
            .field("callbacks", &self.callbacks)
            .finish_non_exhaustive()
    }
}
