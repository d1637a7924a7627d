//! Calling a plugin's functions, and the pairing that makes it sound: a state goes back only to the instance that made it.
#![allow(unsafe_code)] // Foreign functions are called here.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use plugin_api::abi::{
    Opaque, PluginVtRef, RawAck, RawAuth, RawConnect, RawConnected, RawDeliver, RawDisconnect, RawInfo,
    RawMessageNotice, RawPublish, RawRetained, RawState, RawSubscribe, RawUnsubscribe, Verdict,
};
use plugin_api::{Callback, Callbacks, ReasonCode};

use super::answer::{Answer, unknown};
use super::c::CHost;
use super::cursor::Cursor;
use super::generation::{Plan, Probation};
use super::loader::{Language, Origin};
use super::offload::Question;
use super::outcome::Failed;
use super::owned::{Own, Request};
use super::pool::{Cell, Pool};
use super::request::{ConnectionInfo, text};
use super::rules;
use super::services::{self, Left, NO_CONNECTION, Panic, PluginServices};
use super::stats::{Detour, Entry, Kind, Monitor, PluginStats, Trouble};
use super::tickets::{Answered, NO_TICKET, Tickets};
use super::watch::{Seat, Watch};
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
    /// The file that it was loaded from; `None` if it is linked in.
    origin: Option<Origin>,
    /// Its configuration, for the one that replaces it.
    config: Mutex<String>,
    /// Which instance it is; 0 before it is in a chain.
    generation: AtomicU64,
    /// Connections that it decides about.
    connections: AtomicUsize,
    probation: Probation,
    monitor: Arc<Monitor>,
    pool: Arc<Pool>,
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

/// Why a plugin has not done what the operator has asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unable {
    /// It does not want to, and says why.
    Refused(String),
    /// The callback panicked; with the text.
    Panicked(Callback, String),
    /// Its answer makes no sense.
    Unreadable(Callback, String),
}

impl fmt::Display for Unable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) if text.is_empty() => f.write_str("it refuses, and does not say why"),
            Self::Refused(text) => f.write_str(text),
            Self::Panicked(callback, text) => {
                write!(f, "{} panicked: {text}. This is a fault in the plugin; the log says where", callback.name())
            }
            Self::Unreadable(callback, why) => {
                write!(f, "the answer of {} cannot be used: {why}. This is a fault in the plugin", callback.name())
            }
        }
    }
}

/// The panic that ended a call: the text is in the answer; among the reported ones it is found by that.
fn fatal(left: Left, answer: &Answer) -> Panic {
    let text = answer.text().map(|(_, text)| text).unwrap_or_default();
    let reported = left.into_iter().flat_map(|left| left.panics).find(|panic| panic.text == text);
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
        Ok(Self {
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

    /// A connection's state is its current one from now on, or no more.
    pub(super) fn count_connection(&self, begins: bool) {
        if begins {
            self.connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts a failure: a panic, an error, an answer that cannot be read, a deadline that has passed.
    #[cold]
    pub fn count_failure(&self) {
        self.probation.count_failure(self);
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
        if self.monitor.has_detour(entry) { self.monitor.detour(entry) } else { None }
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

    /// Calls `handle_session_expired`.
    pub(super) fn session_expired(self: &Arc<Self>, client_id: &str, state: Option<&RawState<'_>>) {
        let callback = Callback::SessionExpired;
        let later = || Request::session_expired(client_id, state);
        self.notify(client_id, callback, later, || {
            self.call(Entry::of(callback), client_id, |table, instance, answer| {
                // SAFETY: the instance lives as long as this plugin.
                unsafe { table.session_expired()(instance, text(client_id), state, answer.sink()) }
            });
        });
    }

    /// Calls `handle_message_dropped`, `handle_message_acknowledged` or `handle_message_expired`.
    pub(super) fn message_notice(self: &Arc<Self>, callback: Callback, notice: &RawMessageNotice<'_>) {
        let client_id = notice.client_id.as_str();
        let later = || Request::Message(callback, Box::new(notice.into()));
        self.notify(client_id, callback, later, || {
            self.call(Entry::of(callback), client_id, |table, instance, answer| {
                let tell = match callback {
                    Callback::Acknowledged => table.message_acknowledged(),
                    Callback::Expired => table.message_expired(),
                    _ => table.message_dropped(),
                };
                // SAFETY: the instance lives as long as this plugin.
                unsafe { tell(instance, notice, answer.sink()) }
            });
        });
    }

    /// Calls `handle_retained`.
    pub(super) fn retained(self: &Arc<Self>, notice: &RawRetained<'_>) {
        let callback = Callback::Retained;
        let later = || Request::Retained(notice.into());
        self.notify("", callback, later, || {
            self.call(Entry::of(callback), "", |table, instance, answer| {
                // SAFETY: the instance lives as long as this plugin.
                unsafe { table.retained()(instance, notice, answer.sink()) }
            });
        });
    }

    /// Tells it that it is about to be dropped. To be called once.
    pub fn let_go(&self) {
        if self.callbacks.contains(Callback::Stop) {
            self.stop();
        }
    }

    /// Calls `handle_event`.
    pub(super) fn event(self: &Arc<Self>, info: &RawInfo<'_>) {
        let callback = Callback::Event;
        let later = || Request::Event(info.into());
        self.notify("", callback, later, || {
            self.call(Entry::of(callback), "", |table, instance, answer| {
                // SAFETY: the instance lives as long as this plugin.
                unsafe { table.event()(instance, info, answer.sink()) }
            });
        });
    }

    /// Calls `stop`, even in quarantine: there may be threads to end.
    fn stop(&self) {
        self.call(Entry::of(Callback::Stop), "", |table, instance, answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.instance_stop()(instance, answer.sink()) }
        });
    }

    /// Calls `handle_config`. Where the plugin takes the configuration, the instance that replaces it gets it as well. Not
    /// for a worker's thread.
    pub(crate) fn configure(&self, config: &str) -> Result<(), Unable> {
        self.ask(Callback::Config, |table, instance, answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.config()(instance, text(config), answer.sink()) }
        })?;
        self.set_config(config);
        Ok(())
    }

    /// Calls `health`. Not for a worker's thread.
    pub(crate) fn health(&self) -> Result<String, Unable> {
        self.ask(Callback::Health, |table, instance, answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.health()(instance, answer.sink()) }
        })
    }

    /// Runs a call that answers with a text or an error, and has no connection's state.
    fn ask(
        &self,
        callback: Callback,
        call: impl FnOnce(PluginVtRef, Opaque, &mut Answer) -> Verdict,
    ) -> Result<String, Unable> {
        let (entry, mut answer) = (Entry::of(callback), Answer::default());
        let run = || call(self.table, self.instance, &mut answer);
        let (verdict, panics) = self.run(entry, NO_CONNECTION, "", run);
        let text = answer.text().unwrap_or_default().1;
        match verdict {
            Verdict::OK => {
                self.log_caught(entry, "", panics);
                Ok(text)
            }
            Verdict::ERROR => {
                self.log_caught(entry, "", panics);
                self.count_answer(entry, verdict, &answer);
                Err(Unable::Refused(text))
            }
            Verdict::PANICKED => {
                self.log_panic(entry, "", panics, &answer);
                Err(Unable::Panicked(callback, text))
            }
            other => {
                let why = unknown(other);
                self.log_unreadable(callback, "", &why);
                Err(Unable::Unreadable(callback, why))
            }
        }
    }

    /// Counts that it has not answered the operator in time.
    pub(crate) fn count_late(&self, callback: Callback) {
        self.monitor.count(Entry::of(callback), Trouble::Late);
        self.count_failure();
    }

    /// It has not answered in time: nobody waits any more.
    pub(super) fn expire(&self, callback: Callback, who: &str, ticket: u64) {
        self.log_late(callback, who);
        if self.tickets().cancel(ticket) {
            self.cancelled(ticket);
        }
    }

    /// Tells it that nobody waits for an answer any more.
    fn cancelled(&self, ticket: u64) {
        self.call(Entry::CANCELLED, "", |table, instance, answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.cancelled()(instance, ticket, answer.sink()) }
        });
    }

    /// Runs a call that has nothing to answer and no connection's state.
    pub(super) fn call(&self, entry: Entry, who: &str, call: impl FnOnce(PluginVtRef, Opaque, &mut Answer) -> Verdict) {
        let mut answer = Answer::default();
        let run = || call(self.table, self.instance, &mut answer);
        let (verdict, panics) = self.run(entry, NO_CONNECTION, who, run);
        if verdict == Verdict::PANICKED {
            self.log_panic(entry, who, panics, &answer);
        } else {
            self.log_caught(entry, who, panics);
        }
    }

    /// Makes a call: it is counted, seen by the watchdog, and timed now and then.
    #[inline]
    pub(super) fn run<T>(&self, entry: Entry, connection: u64, who: &str, call: impl FnOnce() -> T) -> (T, Left) {
        let monitor = &*self.monitor;
        // Straight on in the usual case; what is rare is out of line, so that it costs no registers.
        match Watch::seat() {
            Some(seat) if !monitor.begin(seat, entry) => self.run_seen(seat, entry, connection, who, call),
            seat => self.run_timed(seat, entry, connection, who, call),
        }
    }

    #[inline(always)]
    fn run_seen<T>(
        &self,
        seat: &Seat,
        entry: Entry,
        connection: u64,
        who: &str,
        call: impl FnOnce() -> T,
    ) -> (T, Left) {
        // Until a client has been let in, it has no Client Identifier, or another one.
        let is_early = entry == Entry::of(Callback::Connect) || connection == NO_CONNECTION;
        let anew = is_early || entry == Entry::NEW_CONNECTION;
        let number = seat.enter(&self.monitor, entry, connection, who, anew);
        let outcome = services::inside(entry, connection, who, call);
        seat.leave(number);
        outcome
    }

    /// Makes a call that is timed, or is on a thread that is no worker's and is counted here.
    #[cold]
    #[inline(never)]
    fn run_timed<T>(
        &self,
        seat: Option<&Seat>,
        entry: Entry,
        connection: u64,
        who: &str,
        call: impl FnOnce() -> T,
    ) -> (T, Left) {
        let Some(seat) = seat else {
            let begun = self.monitor.begin_elsewhere(entry).then(Instant::now);
            let outcome = services::inside(entry, connection, who, call);
            begun.inspect(|begun| self.monitor.time(entry, begun.elapsed()));
            return outcome;
        };
        let begun = Instant::now();
        let outcome = self.run_seen(seat, entry, connection, who, call);
        self.monitor.time(entry, begun.elapsed());
        outcome
    }

    /// Counts an answer that is no simple consent.
    #[cold]
    fn count_answer(&self, entry: Entry, verdict: Verdict, answer: &Answer) {
        let trouble = match verdict {
            Verdict::REJECT if entry == Entry::of(Callback::Auth) && answer.is_not_my_method() => return,
            Verdict::REJECT | Verdict::DISCONNECT | Verdict::DROP => Trouble::Refusal,
            Verdict::CODES if answer.refuses_one() => Trouble::Refusal,
            Verdict::ERROR => Trouble::Error,
            _ => return,
        };
        self.monitor.count(entry, trouble);
    }

    /// Its functions, and what they get as the instance, which lives as long as this plugin.
    pub(super) fn foreign(&self) -> (PluginVtRef, Opaque) {
        (self.table, self.instance)
    }

    /// The plugin has made no state.
    #[cold]
    pub(super) fn log_not_made(&self, callback: Callback, client_id: &str, left: Left, answer: &Answer) {
        match answer.text() {
            Some((number, _)) if number == u64::from(Verdict::ERROR.0) => {
                self.monitor.count(Entry::of(callback), Trouble::Error);
                self.log_error(callback, client_id, answer);
            }
            _ => self.log_panic(Entry::of(callback), client_id, left, answer),
        }
    }

    #[cold]
    pub(super) fn log_panic(&self, entry: Entry, client_id: &str, left: Left, answer: &Answer) {
        let (Panic { text, location }, callback) = (fatal(left, answer), entry.name());
        tracing::error!(plugin = self.name, callback, client_id, text, location, "a plugin panicked");
        self.monitor.count_panic(entry, Instant::now());
        self.count_failure();
    }

    #[inline]
    pub(super) fn log_caught(&self, entry: Entry, client_id: &str, left: Left) {
        if let Some(left) = left {
            self.log_panics(entry, client_id, &left.panics);
        }
    }

    #[cold]
    fn log_panics(&self, entry: Entry, client_id: &str, panics: &[Panic]) {
        for Panic { text, location } in panics {
            let callback = entry.name();
            tracing::warn!(plugin = self.name, callback, client_id, text, location, "a plugin panicked and caught it");
        }
    }

    /// The plugin's answer makes no sense.
    #[cold]
    pub(super) fn log_unreadable(&self, callback: Callback, client_id: &str, why: &str) {
        self.monitor.count(Entry::of(callback), Trouble::Unusable);
        let callback = callback.name();
        tracing::error!(plugin = self.name, callback, client_id, why, "a plugin's answer cannot be used: refused");
        self.count_failure();
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

    /// It has taken longer for an answer than it may.
    #[cold]
    fn log_late(&self, callback: Callback, client_id: &str) {
        self.count_late(callback);
        let callback = callback.name();
        tracing::warn!(plugin = self.name, callback, client_id, "a plugin has not answered in time: refused");
    }

    /// The callback returned an error.
    #[cold]
    pub(super) fn log_error(&self, callback: Callback, client_id: &str, answer: &Answer) {
        let (_, text) = answer.text().unwrap_or_default();
        let callback = callback.name();
        tracing::warn!(plugin = self.name, callback, client_id, text, "a plugin returned an error: refused");
        self.count_failure();
    }

    /// The callback has taken a ticket: it is good for something if the callback says that it answers later.
    #[cold]
    fn note_ticket(&self, verdict: Verdict, ticket: u64, answer: &mut Answer) {
        if verdict == Verdict::DEFERRED {
            answer.ticket = ticket;
        } else if ticket != NO_TICKET {
            self.services.tickets.cancel(ticket);
        }
    }

    /// The tickets that it has taken.
    pub(super) fn tickets(&self) -> &Tickets {
        &self.services.tickets
    }

    /// Makes the state of a connection. `None`: it panicked, which is logged.
    pub(super) fn new_state(&self, info: &ConnectionInfo<'_>) -> Option<State> {
        let (mut answer, raw) = (Answer::default(), info.raw());
        let entry = Entry::NEW_CONNECTION;
        let (new, panics) = self.run(entry, info.connection, "", || {
            // SAFETY: the instance lives as long as the plugin.
            unsafe { self.table.connection_new()(self.instance, &raw, answer.sink()) }
        });
        if new.is_null() {
            self.log_panic(entry, &info.peer.to_string(), panics, &answer);
            return None;
        }
        self.log_caught(entry, "", panics);
        Some(State::Here(new))
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

/// Plugins in their order, at most 64. It does not change: a swap makes a new one.
#[derive(Default)]
pub(super) struct Plugins {
    pub(super) list: Box<[Arc<Plugin>]>,
    /// For each callback the plugins that implement it, as a set of bits.
    implementing: [u64; Callback::ALL.len()],
}

impl Plugins {
    pub(super) fn new(list: Vec<Arc<Plugin>>) -> Self {
        let implements = |plugin: &Plugin, callback| u64::from(plugin.callbacks.contains(callback));
        let set = |callback| {
            list.iter().enumerate().fold(0, |set, (index, plugin)| set | implements(plugin, callback) << index)
        };
        Self { implementing: Callback::ALL.map(set), list: list.into() }
    }

    /// The same with another plugin in one place.
    pub(super) fn with(&self, index: usize, plugin: &Arc<Plugin>) -> Arc<Self> {
        let mut list = self.list.to_vec();
        list[index] = Arc::clone(plugin);
        Arc::new(Self::new(list))
    }

    /// The plugins that implement a callback, as a set of bits.
    #[inline]
    pub(super) fn implementing(&self, callback: Callback) -> u64 {
        self.implementing[callback as usize]
    }
}

/// What one plugin remembers of one connection.
pub(super) enum State {
    /// Nothing: it has panicked, the connection has ended, or there never was anything.
    None,
    /// What the plugin has made, here.
    Here(Opaque),
    /// The same, or what will be, with the pool.
    Pooled(Arc<Cell>),
}

impl State {
    pub(super) const NONE: Self = Self::None;

    /// Whether there is nothing left of it.
    pub(super) fn is_none(&self) -> bool {
        match self {
            Self::None => true,
            Self::Here(_) => false,
            Self::Pooled(cell) => !cell.is_sound(),
        }
    }

    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::None)
    }
}

// SAFETY: the contract of `PluginVt`: one thread at a time, but not always the same. `Handler::Connection` is `Send`.
unsafe impl Send for State {}

/// One pointer in place for the usual chain of one plugin.
enum States {
    One(State),
    Any(Box<[State]>),
}

/// A state that a connection had with the instance before, while the new one is on probation: what it goes back to.
pub(super) struct Kept {
    pub(super) index: usize,
    pub(super) plugin: Arc<Plugin>,
    pub(super) state: State,
}

/// The states of one connection, one for each plugin of its chain. They belong to one thread at a time; dropping them
/// drops the plugins' states.
pub struct Handlers {
    plugins: Arc<Plugins>,
    connection: u64,
    states: States,
    /// The plan that it last conformed to.
    epoch: u32,
    /// Boxed, as few have any.
    #[allow(clippy::box_collection)] // One word for each connection, rather than three.
    kept: Option<Box<Vec<Kept>>>,
}

impl Handlers {
    /// Makes the states. If one plugin cannot, those that are made already are returned: their plugins have to hear that
    /// the connection ends.
    pub(super) fn new(plan: &Plan, info: &ConnectionInfo<'_>) -> Result<Self, Self> {
        let plugins = plan.plugins_for(info.connection);
        let mut handlers = Self {
            plugins: Arc::clone(plugins),
            connection: info.connection,
            states: match plugins.list.len() {
                1 => States::One(State::NONE),
                count => States::Any((0..count).map(|_| State::NONE).collect()),
            },
            epoch: plan.epoch(),
            kept: None,
        };
        for (index, plugin) in plugins.list.iter().enumerate() {
            match plugin.detour(Entry::NEW_CONNECTION) {
                Some(Detour::Refuse) => return Err(handlers),
                Some(Detour::Skip) => continue,
                Some(Detour::Pool) | None => {}
            }
            if let Some(state) = plugin.begin(info) {
                handlers.states()[index] = state;
                plugin.count_connection(true);
            } else if !handlers.begin_again(index, info) {
                return Err(handlers);
            }
        }
        Ok(handlers)
    }

    /// Has the instance that decided before decide about a connection that has just begun, as the new one has panicked
    /// while it is on probation. `false` if that is not so.
    #[cold]
    fn begin_again(&mut self, index: usize, info: &ConnectionInfo<'_>) -> bool {
        let Some(previous) = self.plugins.list[index].probation.previous() else { return false };
        let Some(state) = previous.begin(info) else { return false };
        self.put(index, &previous, state);
        true
    }

    /// The plan that it last conformed to; see [`Handlers::conform`].
    #[must_use]
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn set_epoch(&mut self, epoch: u32) {
        self.epoch = epoch;
    }

    pub(super) fn states(&mut self) -> &mut [State] {
        match &mut self.states {
            States::One(state) => std::slice::from_mut(state),
            States::Any(states) => states,
        }
    }

    /// The plugins that these states belong to.
    #[inline]
    pub(super) fn plugins(&self) -> &Arc<Plugins> {
        &self.plugins
    }

    /// Whether any plugin implements a callback.
    #[must_use]
    #[inline]
    pub fn implements(&self, callback: Callback) -> bool {
        self.plugins.implementing(callback) != 0
    }

    /// The callbacks of all instances that have a state of the connection: those that it goes back to are among them.
    #[must_use]
    pub fn callbacks(&self) -> Callbacks {
        let kept = self.kept.iter().flat_map(|kept| &**kept).map(|kept| &kept.plugin);
        self.plugins.list.iter().chain(kept).fold(Callbacks::NONE, |all, plugin| all.union(plugin.callbacks))
    }

    /// Whether a plugin still has its state.
    pub(super) fn is_sound(&mut self, index: usize) -> bool {
        self.states().get(index).is_some_and(|state| !state.is_none())
    }

    /// Gives one place another instance and its state. The state that it had with the one before is returned.
    pub(super) fn put(&mut self, index: usize, plugin: &Arc<Plugin>, state: State) -> State {
        let before = std::mem::replace(&mut self.states()[index], state);
        if !matches!(before, State::None) {
            self.plugins.list[index].count_connection(false);
        }
        plugin.count_connection(true);
        self.plugins = self.plugins.with(index, plugin);
        before
    }

    /// Uses the shared list of the plan instead of an equal one of its own.
    pub(super) fn share(&mut self, plugins: &Arc<Plugins>) {
        self.plugins = Arc::clone(plugins);
    }

    /// The kept state of a place is taken out, if there is one.
    pub(super) fn take_kept(&mut self, index: usize) -> Option<Kept> {
        let kept = self.kept.as_mut()?;
        let at = kept.iter().position(|kept| kept.index == index)?;
        let found = kept.swap_remove(at);
        if kept.is_empty() {
            self.kept = None;
        }
        Some(found)
    }

    /// Keeps a state. There is at most one for each place.
    pub(super) fn keep(&mut self, kept: Kept) {
        self.kept.get_or_insert_default().push(kept);
    }

    pub(super) fn has_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The number of the connection that they belong to.
    pub(super) fn connection(&self) -> u64 {
        self.connection
    }

    /// Takes in an answer that has come later than its callback returned.
    pub(super) fn take_back(
        &mut self,
        cursor: &Cursor,
        callback: Callback,
        who: &str,
        answered: Answered,
    ) -> Result<(Verdict, Answer), Failed> {
        let (Answered { verdict, answer }, Cursor { asked, index, .. }) = (answered, cursor);
        if matches!(verdict, Verdict::PANICKED | Verdict::POISONED) {
            if verdict == Verdict::PANICKED {
                asked.log_panic(Entry::of(callback), who, None, &answer);
            }
            // Another callback may have panicked meanwhile: then it is gone already, or there is one of another instance.
            if self.is_with(cursor) && !matches!(self.states()[*index], State::None) {
                asked.count_connection(false);
                asked.drop_state(&mut self.states()[*index], who);
            }
            return Err(Failed);
        }
        if verdict != Verdict::OK {
            asked.count_answer(Entry::of(callback), verdict, &answer);
        }
        Ok((verdict, answer))
    }

    /// Whether the connection still has the instance that was asked.
    fn is_with(&self, cursor: &Cursor) -> bool {
        Arc::ptr_eq(&self.plugins.list[cursor.index], &cursor.asked)
    }

    /// Whether another instance is there to be asked, as one on probation has panicked after its callback returned. See
    /// `fall_back`; `info` is for a connection that has just begun.
    pub(super) fn may_ask_again(
        &mut self,
        cursor: &Cursor,
        callback: Callback,
        info: Option<&ConnectionInfo<'_>>,
    ) -> bool {
        let index = cursor.index;
        let is_back =
            !self.is_with(cursor) || self.fall_back(index) || info.is_some_and(|info| self.begin_again(index, info));
        // Where it has no opinion on who may connect, nobody has let the client in.
        let decides = matches!(callback, Callback::Auth | Callback::Connect);
        is_back && (!decides || self.plugins.list[index].callbacks.contains(callback))
    }

    /// Drops all states. A callback that comes after this fails.
    pub(super) fn end(&mut self, who: &str) {
        let plugins = Arc::clone(&self.plugins);
        for (plugin, state) in plugins.list.iter().zip(self.states()) {
            if !matches!(state, State::None) {
                plugin.count_connection(false);
                plugin.drop_state(state, who);
            }
        }
        for mut kept in self.kept.take().into_iter().flat_map(|kept| *kept) {
            kept.plugin.drop_state(&mut kept.state, who);
        }
    }

    /// Whether a plugin is in quarantine and left out: it has no opinion, whatever it implements.
    pub(super) fn is_skipped(&self, index: usize) -> bool {
        self.plugins.list[index].detour(Entry::of(Callback::Connect)) == Some(Detour::Skip)
    }

    /// Calls one plugin with its instance and its state. `instead` answers in its place if it is not to be called.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn enter(
        &mut self,
        index: usize,
        callback: Callback,
        who: &str,
        answer: &mut Answer,
        view: &impl Own,
        call: impl FnOnce(PluginVtRef, Opaque, Opaque, &mut Answer) -> Verdict + Copy,
        instead: impl FnOnce(Detour, &mut Answer) -> Verdict + Copy,
    ) -> Result<Verdict, Failed> {
        match self.enter_once(index, callback, who, answer, view, call, instead) {
            Err(Failed) => self.enter_other(index, callback, who, answer, view, call, instead),
            outcome => outcome,
        }
    }

    /// Asks the instance that decided before, if there is one to go back to.
    #[cold]
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn enter_other(
        &mut self,
        index: usize,
        callback: Callback,
        who: &str,
        answer: &mut Answer,
        view: &impl Own,
        call: impl FnOnce(PluginVtRef, Opaque, Opaque, &mut Answer) -> Verdict,
        instead: impl FnOnce(Detour, &mut Answer) -> Verdict,
    ) -> Result<Verdict, Failed> {
        if !self.fall_back(index) {
            return Err(Failed);
        }
        *answer = Answer::default();
        if self.plugins.list[index].callbacks.contains(callback) {
            self.enter_once(index, callback, who, answer, view, call, instead)
        } else if matches!(callback, Callback::Auth | Callback::Connect) {
            Err(Failed) // It has no opinion on who may connect: nobody has let the client in.
        } else {
            Ok(Verdict::OK)
        }
    }

    /// Goes back to the instance that decided before, with the state that it had, as the new one has panicked while it is
    /// on probation. `false` if there is no such state.
    #[cold]
    fn fall_back(&mut self, index: usize) -> bool {
        let Some(Kept { plugin, state, .. }) = self.take_kept(index) else { return false };
        tracing::warn!(
            plugin = plugin.name,
            version = plugin.version,
            connection = self.connection,
            "a connection goes back to the version that decided before"
        );
        self.put(index, &plugin, state);
        true
    }

    /// What is to be done where a plugin is not simply called.
    #[cold]
    fn look_aside(&mut self, index: usize, detour: Option<Detour>) -> Aside {
        match detour {
            Some(Detour::Pool) => return Aside::Pool,
            Some(detour) => return Aside::Instead(detour),
            None => {}
        }
        // What is under way there comes first.
        if !self.settle(index) {
            return Aside::Pool;
        }
        match self.states()[index] {
            State::Here(raw) => Aside::Here(raw),
            State::None | State::Pooled(_) => Aside::Failed,
        }
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "a question, and all that can become of it")]
    fn enter_once(
        &mut self,
        index: usize,
        callback: Callback,
        who: &str,
        answer: &mut Answer,
        view: &impl Own,
        call: impl FnOnce(PluginVtRef, Opaque, Opaque, &mut Answer) -> Verdict,
        instead: impl FnOnce(Detour, &mut Answer) -> Verdict,
    ) -> Result<Verdict, Failed> {
        let (plugin, connection, entry) = (&self.plugins.list[index], self.connection, Entry::of(callback));
        let detour = plugin.detour(entry);
        let state = match &mut self.states {
            States::One(state) => state,
            States::Any(states) => &mut states[index],
        };
        let raw = match (&*state, detour) {
            (State::Here(raw), None) => *raw,
            _ => match self.go_aside(index, detour, entry, who, answer, view, instead) {
                ControlFlow::Continue(raw) => raw,
                ControlFlow::Break(end) => return end,
            },
        };
        let plugin = &self.plugins.list[index];
        let run = || call(plugin.table, plugin.instance, raw, answer);
        match plugin.run(entry, connection, who, run) {
            (Verdict::OK, None) => Ok(Verdict::OK),
            (verdict, left) => self.look_at_answer(index, entry, who, answer, verdict, left),
        }
    }

    /// What there is instead of a simple call, or the state that has turned up for it.
    #[cold]
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn go_aside(
        &mut self,
        index: usize,
        detour: Option<Detour>,
        entry: Entry,
        who: &str,
        answer: &mut Answer,
        view: &impl Own,
        instead: impl FnOnce(Detour, &mut Answer) -> Verdict,
    ) -> ControlFlow<Result<Verdict, Failed>, Opaque> {
        ControlFlow::Break(match self.look_aside(index, detour) {
            Aside::Here(raw) => return ControlFlow::Continue(raw),
            Aside::Instead(detour) => Ok(instead(detour, answer)),
            Aside::Pool => match view.own() {
                Some(request) => {
                    let question = Question { entry, who, request };
                    self.offload(index, question, answer, |answer| instead(Detour::Pool, answer))
                }
                None => Ok(Verdict::AWAY), // A delivery waits until the state is back.
            },
            Aside::Failed => Err(Failed), // It was logged when it panicked.
        })
    }

    /// Sees to what is not simple consent.
    #[cold]
    #[inline(never)]
    fn look_at_answer(
        &mut self,
        index: usize,
        entry: Entry,
        who: &str,
        answer: &mut Answer,
        verdict: Verdict,
        left: Left,
    ) -> Result<Verdict, Failed> {
        let plugin = &self.plugins.list[index];
        if let Some(left) = &left {
            plugin.note_ticket(verdict, left.ticket, answer);
        }
        if matches!(verdict, Verdict::PANICKED | Verdict::POISONED) {
            plugin.log_panic(entry, who, left, answer);
            plugin.count_connection(false);
            let plugin = Arc::clone(plugin);
            plugin.drop_state(&mut self.states()[index], who);
            return Err(Failed);
        }
        if verdict != Verdict::OK {
            plugin.count_answer(entry, verdict, answer);
        }
        plugin.log_caught(entry, who, left);
        Ok(verdict)
    }
}

/// What is done where a plugin is not simply called.
enum Aside {
    /// It is, with this state.
    Here(Opaque),
    /// The host answers in its place.
    Instead(Detour),
    /// It is called on the pool.
    Pool,
    /// It has failed on this connection before.
    Failed,
}

/// Makes a method of [`Handlers`] for each callback that has a connection's state.
macro_rules! callbacks {
    ($($(#[$inline:meta])? $name:ident($view:ty): $callback:ident, $instead:expr;)*) => {
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
                    let call = |table: PluginVtRef, instance, state, answer: &mut Answer| {
                        // SAFETY: `enter` passes an instance and a state that it made, both alive; `&mut self` keeps
                        // other threads from the state.
                        unsafe { table.$name()(instance, state, view, answer.sink()) }
                    };
                    let instead: fn(&$view, Detour, &mut Answer) -> Verdict = $instead;
                    self.enter(index, Callback::$callback, who, answer, view, call, |detour, answer| {
                        instead(view, detour, answer)
                    })
                }
            )*
        }
    };
}

callbacks! {
    auth(RawAuth<'_>): Auth, |_, detour, answer| match detour {
        // Not its method: the next plugin is asked, and if it was this one's, nobody lets the client in.
        Detour::Skip => answer.refuse(ReasonCode::BAD_AUTHENTICATION_METHOD),
        Detour::Refuse | Detour::Pool => answer.refuse(REFUSED_IN_PLACE),
    };
    #[inline] publish(RawPublish<'_>): Publish, |_, detour, answer| refuse_in_place(detour, REFUSED_IN_PLACE, answer);
    subscribe(RawSubscribe<'_>): Subscribe, |view, detour, answer| match detour {
        Detour::Skip => Verdict::OK,
        Detour::Refuse | Detour::Pool => answer.refuse_each(view.subscriptions.len(), REFUSED_IN_PLACE),
    };
    unsubscribe(RawUnsubscribe<'_>): Unsubscribe, |view, detour, answer| match detour {
        Detour::Skip => Verdict::OK,
        Detour::Refuse | Detour::Pool => answer.refuse_each(view.filters.len(), REFUSED_IN_PLACE),
    };
    puback(RawAck): Puback, |_, _, _| Verdict::OK;
    info(RawInfo<'_>): Info, |_, _, _| Verdict::OK;
    disconnect(RawDisconnect<'_>): Disconnect, |_, _, _| Verdict::OK;
    connected(RawConnected<'_>): Connected, |_, _, _| Verdict::OK;
    #[inline] deliver(RawDeliver<'_>): Deliver, |_, detour, _| match detour {
        Detour::Skip => Verdict::OK,
        Detour::Refuse | Detour::Pool => Verdict::DROP,
    };
}

impl Handlers {
    /// `handle_connect`: the first thing that a plugin is asked about a connection, so that another instance can be asked
    /// from the beginning.
    pub(super) fn connect(
        &mut self,
        index: usize,
        who: &str,
        answer: &mut Answer,
        view: &RawConnect<'_>,
    ) -> Result<Verdict, Failed> {
        let ask = |table: PluginVtRef, instance, state, answer: &mut Answer| {
            // SAFETY: as for the callbacks above.
            unsafe { table.connect()(instance, state, view, answer.sink()) }
        };
        let instead = |detour, answer: &mut Answer| refuse_in_place(detour, ReasonCode::SERVER_UNAVAILABLE, answer);
        let outcome = self.enter(index, Callback::Connect, who, answer, view, ask, instead);
        let (peer, listener) = (view.peer.into(), view.listener.as_str());
        let info = ConnectionInfo { connection: view.connection, peer, listener };
        if outcome.is_ok() || !self.begin_again(index, &info) {
            return outcome;
        }
        *answer = Answer::default();
        if !self.plugins.list[index].callbacks.contains(Callback::Connect) {
            return Err(Failed); // It has no opinion: nobody has let the client in.
        }
        self.enter_once(index, Callback::Connect, who, answer, view, ask, instead)
    }
}

/// What clients are told where the host refuses in a plugin's place, and a client is in already.
const REFUSED_IN_PLACE: ReasonCode = ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR;

#[cold]
fn refuse_in_place(detour: Detour, reason_code: ReasonCode, answer: &mut Answer) -> Verdict {
    match detour {
        Detour::Skip => Verdict::OK,
        Detour::Refuse | Detour::Pool => answer.refuse(reason_code),
    }
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
