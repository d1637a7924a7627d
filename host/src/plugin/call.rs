//! Calling a plugin's functions, and the pairing that makes it sound: a state goes back only to the instance that made it.
#![allow(unsafe_code)] // Foreign functions are called here.

use std::fmt;
use std::sync::Arc;

use plugin_api::abi::{
    Opaque, PluginVtRef, RawAck, RawAuth, RawConnect, RawDisconnect, RawInfo, RawPublish, RawSubscribe, RawUnsubscribe,
    Verdict,
};
use plugin_api::{Callback, Callbacks, ReasonCode};

use super::answer::Answer;
use super::outcome::Failed;
use super::request::{ConnectionInfo, text};
use super::rules;
use super::services::{self, NO_CONNECTION, Panic, PluginServices};
use crate::codec::PacketType;

/// A plugin that is loaded and initialised. Dropping it drops its instance; its library stays mapped.
pub struct Plugin {
    name: String,
    version: String,
    api_version: String,
    callbacks: Callbacks,
    table: PluginVtRef,
    instance: Opaque,
    services: &'static PluginServices,
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

/// The panic that ended a call: the text is in the answer; among the reported ones it is found by that.
fn fatal(panics: Vec<Panic>, answer: &Answer) -> Panic {
    let text = answer.text().map(|(_, text)| text).unwrap_or_default();
    let reported = panics.into_iter().find(|panic| panic.text == text);
    reported.unwrap_or(Panic { text, location: String::new() })
}

impl Plugin {
    /// Makes the instance.
    ///
    /// # Safety
    /// The functions behind `table` must be those of `PluginVt`, keep its contract, and stay mapped until the process
    /// ends.
    pub(super) unsafe fn init(
        table: PluginVtRef,
        api_version: String,
        config: &str,
        services: &services::Services,
    ) -> Result<Self, NotReady> {
        let name = table.name().as_str().to_owned();
        let services = PluginServices::leak(&name, services);
        let mut answer = Answer::default();
        let (instance, panics) = services::inside(NO_CONNECTION, || {
            // SAFETY: the caller's promise; `raw` is valid until the process ends.
            unsafe { table.instance_new()(services.raw(), text(config), answer.sink()) }
        });
        if instance.is_null() {
            services.close();
            let (number, text) = answer.text().unwrap_or_default();
            let panicked = number == u64::from(Verdict::PANICKED.0);
            return Err(if panicked { NotReady::Panicked(fatal(panics, &answer)) } else { NotReady::Refused(text) });
        }
        Ok(Self {
            name,
            version: table.version().as_str().to_owned(),
            api_version,
            callbacks: Callbacks::from_bits(table.callbacks()),
            table,
            instance,
            services,
        })
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

    pub(super) fn set_index(&self, index: usize) {
        self.services.set_index(index);
    }

    /// Calls `handle_session_expired`.
    pub(super) fn session_expired(&self, client_id: &str) {
        self.call(Callback::SessionExpired.name(), client_id, |table, instance, answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.session_expired()(instance, text(client_id), None, answer.sink()) }
        });
    }

    /// Calls `stop`.
    pub(super) fn stop(&self) {
        self.call(Callback::Stop.name(), "", |table, instance, answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.instance_stop()(instance, answer.sink()) }
        });
    }

    /// Runs a call that has nothing to answer and no connection's state.
    fn call(&self, callback: &str, who: &str, call: impl FnOnce(PluginVtRef, Opaque, &mut Answer) -> Verdict) {
        let mut answer = Answer::default();
        let (verdict, panics) = services::inside(NO_CONNECTION, || call(self.table, self.instance, &mut answer));
        if verdict == Verdict::PANICKED {
            self.log_panic(callback, who, panics, &answer);
        } else {
            self.log_caught(callback, who, &panics);
        }
    }

    #[cold]
    fn log_panic(&self, callback: &str, client_id: &str, panics: Vec<Panic>, answer: &Answer) {
        let Panic { text, location } = fatal(panics, answer);
        tracing::error!(plugin = self.name, callback, client_id, text, location, "a plugin panicked");
    }

    fn log_caught(&self, callback: &str, client_id: &str, panics: &[Panic]) {
        for Panic { text, location } in panics {
            tracing::warn!(plugin = self.name, callback, client_id, text, location, "a plugin panicked and caught it");
        }
    }

    /// The plugin's answer makes no sense.
    #[cold]
    pub(super) fn log_unreadable(&self, callback: Callback, client_id: &str, why: &str) {
        let callback = callback.name();
        tracing::error!(plugin = self.name, callback, client_id, why, "a plugin's answer cannot be used: refused");
    }

    /// See [`rules::fitting`].
    pub(super) fn fitting(
        &self,
        callback: Callback,
        client_id: &str,
        packet: PacketType,
        answered: ReasonCode,
    ) -> ReasonCode {
        rules::fitting(packet, answered, &self.name, callback.name(), client_id)
    }

    /// Bytes that a message from this plugin may have, as the PUBLISH packet that carries it.
    pub(super) fn packet_bytes_max(&self) -> usize {
        self.services.packet_bytes_max()
    }

    /// The callback returned an error.
    #[cold]
    pub(super) fn log_error(&self, callback: Callback, client_id: &str, answer: &Answer) {
        let (_, text) = answer.text().unwrap_or_default();
        let callback = callback.name();
        tracing::warn!(plugin = self.name, callback, client_id, text, "a plugin returned an error: refused");
    }

    fn drop_state(&self, state: &mut State, who: &str) {
        let state = std::mem::replace(&mut state.0, std::ptr::null_mut());
        if !state.is_null() {
            self.call("drop of the connection's state", who, |table, _, answer| {
                // SAFETY: `connection_new` of this table made the state, and it is forgotten here.
                unsafe { table.connection_drop()(state, answer.sink()) }
            });
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.call("drop", "", |table, instance, answer| {
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

/// Plugins in their order, at most 64.
#[derive(Default)]
pub(super) struct Plugins {
    pub(super) list: Box<[Plugin]>,
    /// For each callback the plugins that implement it, as a set of bits.
    implementing: [u64; Callback::ALL.len()],
}

impl Plugins {
    pub(super) fn new(list: Vec<Plugin>) -> Self {
        let implements = |plugin: &Plugin, callback| u64::from(plugin.callbacks.contains(callback));
        let set = |callback| {
            list.iter().enumerate().fold(0, |set, (index, plugin)| set | implements(plugin, callback) << index)
        };
        Self { implementing: Callback::ALL.map(set), list: list.into() }
    }

    /// The plugins that implement a callback, as a set of bits.
    #[inline]
    pub(super) fn implementing(&self, callback: Callback) -> u64 {
        self.implementing[callback as usize]
    }
}

/// What one plugin remembers of one connection; null once it has panicked or the connection has ended.
struct State(Opaque);

// SAFETY: the contract of `PluginVt`: one thread at a time, but not always the same. `Handler::Connection` is `Send`.
unsafe impl Send for State {}

/// One pointer in place for the usual chain of one plugin.
enum States {
    One(State),
    Any(Box<[State]>),
}

/// The states of one connection, one for each plugin of its chain. They belong to one thread at a time; dropping them
/// drops the plugins' states.
pub struct Handlers {
    plugins: Arc<Plugins>,
    connection: u64,
    states: States,
}

impl Handlers {
    /// Makes the states. If one plugin cannot, those that are made already are returned: their plugins have to hear that
    /// the connection ends.
    pub(super) fn new(plugins: &Arc<Plugins>, info: &ConnectionInfo<'_>) -> Result<Self, Self> {
        let mut handlers = Self {
            plugins: Arc::clone(plugins),
            connection: info.connection,
            states: match plugins.list.len() {
                1 => States::One(State(std::ptr::null_mut())),
                count => States::Any((0..count).map(|_| State(std::ptr::null_mut())).collect()),
            },
        };
        for (index, plugin) in plugins.list.iter().enumerate() {
            let (mut answer, raw) = (Answer::default(), info.raw());
            let (new, panics) = services::inside(info.connection, || {
                // SAFETY: the instance lives as long as the plugin.
                unsafe { plugin.table.connection_new()(plugin.instance, &raw, answer.sink()) }
            });
            if new.is_null() {
                plugin.log_panic("new_connection", &info.peer.to_string(), panics, &answer);
                return Err(handlers);
            }
            handlers.states()[index].0 = new;
        }
        Ok(handlers)
    }

    fn states(&mut self) -> &mut [State] {
        match &mut self.states {
            States::One(state) => std::slice::from_mut(state),
            States::Any(states) => states,
        }
    }

    /// The plugins that these states belong to.
    #[inline]
    pub(super) fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// Whether a plugin still has its state.
    pub(super) fn is_sound(&mut self, index: usize) -> bool {
        self.states().get(index).is_some_and(|state| !state.0.is_null())
    }

    /// Drops all states. A callback that comes after this fails.
    pub(super) fn end(&mut self, who: &str) {
        let plugins = Arc::clone(&self.plugins);
        for (plugin, state) in plugins.list.iter().zip(self.states()) {
            plugin.drop_state(state, who);
        }
    }

    /// Calls one plugin with its instance and its state.
    #[inline]
    fn enter(
        &mut self,
        index: usize,
        callback: Callback,
        who: &str,
        answer: &mut Answer,
        call: impl FnOnce(PluginVtRef, Opaque, Opaque, &mut Answer) -> Verdict,
    ) -> Result<Verdict, Failed> {
        let (plugin, connection) = (&self.plugins.list[index], self.connection);
        let state = match &mut self.states {
            States::One(state) => state,
            States::Any(states) => &mut states[index],
        };
        if state.0.is_null() {
            return Err(Failed); // It was logged when it panicked.
        }
        let (verdict, panics) = services::inside(connection, || call(plugin.table, plugin.instance, state.0, answer));
        if matches!(verdict, Verdict::PANICKED | Verdict::POISONED) {
            plugin.log_panic(callback.name(), who, panics, answer);
            plugin.drop_state(state, who);
            return Err(Failed);
        }
        plugin.log_caught(callback.name(), who, &panics);
        Ok(verdict)
    }
}

/// Makes a method of [`Handlers`] for each callback that has a connection's state.
macro_rules! callbacks {
    ($($(#[$inline:meta])? $name:ident($view:ty): $callback:ident;)*) => {
        impl Handlers {
            $(
                $(#[$inline])?
                pub(super) fn $name(
                    &mut self,
                    index: usize,
                    who: &str,
                    answer: &mut Answer,
                    view: &$view,
                ) -> Result<Verdict, Failed> {
                    self.enter(index, Callback::$callback, who, answer, |table, instance, state, answer| {
                        // SAFETY: `enter` passes an instance and a state that it made, both alive; `&mut self` keeps
                        // other threads from the state.
                        unsafe { table.$name()(instance, state, view, answer.sink()) }
                    })
                }
            )*
        }
    };
}

callbacks! {
    connect(RawConnect<'_>): Connect;
    auth(RawAuth<'_>): Auth;
    #[inline] publish(RawPublish<'_>): Publish;
    subscribe(RawSubscribe<'_>): Subscribe;
    unsubscribe(RawUnsubscribe<'_>): Unsubscribe;
    puback(RawAck): Puback;
    info(RawInfo<'_>): Info;
    disconnect(RawDisconnect<'_>): Disconnect;
}

impl Drop for Handlers {
    fn drop(&mut self) {
        self.end("");
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").field("connection", &self.connection).finish_non_exhaustive()
    }
}
