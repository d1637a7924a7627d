//! Several plugins, one decision.
//!
//! - A plugin that does not implement a callback has no opinion, and is not called. Where nobody has one, it is allowed, but
//!   for what is left out by plugins that decide on the rest ([`Undecided`](crate::limits::Undecided)).
//! - The plugins are asked in order. The first refusal wins, and those behind it are not asked.
//! - A plugin that cannot answer (a panic, a state that panicked before, an answer that cannot be read) refuses: `Failed`.
//! - Where there is nothing to refuse (`handle_puback`, `handle_disconnect`), one plugin's failure does not keep the others
//!   from hearing of it.
//! - An error that a callback returned is a refusal with 0x80, and is logged.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use plugin_api::abi::RawAck;
use plugin_api::reading::Answer;
use plugin_api::{AckKind, Callback, DisconnectKind, ReasonCode};

use super::cursor::Cursor;
use super::error::LoadError;
use super::generation::{Cell, Plan};
use super::handlers::{Handlers, PluginSet};
use super::instance::Plugin;
use super::outcome::Failed;
use super::request::{ConnectionInfo, DisconnectReason, InfoRequest, NO_EXTENSION};
use super::tickets::Answered;
use crate::message::Source;

/// Plugins that one chain may have.
const PLUGINS_MAX: usize = 64;

/// The plugins of a server, in their order, and the instances of each that follow one another while it runs. Cloning it
/// is cheap; the plugins are dropped with the last clone and the last connection's [`Handlers`].
///
/// For each connection: [`Chain::new_connection`] first; then the callbacks, with what it returned; then
/// [`Chain::disconnect`], after which no callback does anything but fail. `who` in each call is the Client Identifier,
/// for the log. The instances that are asked are those of the handlers: see [`Handlers::conform`].
///
/// A chain without plugins is the embedded default handler: it has no opinion on anything.
#[derive(Clone, Default)]
pub struct Chain(pub(super) Arc<Cell>);

impl Chain {
    /// A chain of these plugins.
    ///
    /// # Errors
    /// Two plugins with one name: commands and logs address them by it. More than 64 plugins.
    pub fn new(plugins: Vec<Plugin>) -> Result<Self, LoadError> {
        if plugins.len() > PLUGINS_MAX {
            return Err(LoadError::TooManyPlugins { count: plugins.len(), max: PLUGINS_MAX });
        }
        let mut names = HashSet::new();
        if let Some(twice) = plugins.iter().find(|plugin| !names.insert(plugin.name())) {
            return Err(LoadError::DuplicateName { name: twice.name().to_owned() });
        }
        Ok(Self(Cell::new(plugins)))
    }

    /// The plugins that decide about most connections, in order: those that new instances are on trial against.
    #[must_use]
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.plan().plugins().to_vec()
    }

    /// Their names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.plan().plugins().iter().map(|plugin| plugin.name().to_owned()).collect()
    }

    /// Whether at least one plugin implements a callback.
    #[must_use]
    pub fn implements(&self, callback: Callback) -> bool {
        self.plan().implements(callback)
    }

    /// Whether at least one of these plugins decides who may connect.
    #[must_use]
    pub fn decides_on_connections(&self, set: PluginSet) -> bool {
        let plan = self.plan();
        plan.some_implement(Callback::Connect, set) || plan.some_implement(Callback::Auth, set)
    }

    /// The plugins with these names.
    ///
    /// # Errors
    /// The first name that none of them has.
    pub fn named<'a>(&self, names: &'a [String]) -> Result<PluginSet, &'a str> {
        let plugins = self.plugins();
        let place = |name: &'a String| plugins.iter().position(|plugin| plugin.name() == name).ok_or(name.as_str());
        names.iter().map(place).collect::<Result<Vec<_>, _>>().map(PluginSet::of)
    }

    /// Whether what a callback is about is refused because none of these plugins decides about it; see
    /// [`Undecided`](crate::limits::Undecided).
    #[must_use]
    pub fn refuses_undecided(&self, callback: Callback, set: PluginSet) -> bool {
        self.plan().refuses_undecided(callback, set)
    }

    /// Makes the states of a connection.
    ///
    /// # Errors
    /// A plugin could not. Those before it have been told with `handle_disconnect` that the connection has ended.
    pub fn new_connection(&self, info: &ConnectionInfo<'_>) -> Result<Handlers, Failed> {
        self.plan().new_connection(PluginSet::ALL, info)
    }

    /// From now on `worker` waits for the answer that a cursor is about, unless it is there already.
    pub fn wait(&self, handlers: &Handlers, cursor: &Cursor, worker: usize) -> Option<Box<Answered>> {
        cursor.asked.tickets().wait(cursor.ticket, worker, handlers.connection())
    }

    /// That answer has not come in time, and nobody waits for it any more: the plugin is told.
    pub fn expire(&self, callback: Callback, who: &str, cursor: &Cursor) {
        cursor.asked.expire(callback, who, cursor.ticket);
    }

    /// Takes back a question that still waits for a thread of the pool, so that the plugin is not asked. `false`: it has been
    /// asked, and its answer is to be waited for.
    pub fn withdraw(&self, cursor: &Cursor) -> bool {
        cursor.asked.tickets().withdraw(cursor.ticket)
    }

    /// Takes in an answer that nobody waits for any more.
    pub fn abandon(&self, handlers: &mut Handlers, callback: Callback, who: &str, cursor: &Cursor, answered: Answered) {
        // What it says does not matter, but a state may come back with it.
        let _ = handlers.take_back(cursor, callback, who, answered);
    }

    /// Tells the plugins of an acknowledgement. The token is for the plugin that sent the message with it.
    ///
    /// # Errors
    /// A plugin panicked; the others have been told all the same.
    pub fn puback(
        &self,
        handlers: &mut Handlers,
        who: &str,
        packet_id: u16,
        kind: AckKind,
        reason_code: ReasonCode,
        (source, token): (Source, u64),
    ) -> Result<(), Failed> {
        let (kind, reason_code) = (kind as u8, reason_code.0);
        let mut result = Ok(());
        for index in implementing(handlers, Callback::Puback) {
            let mut answer = Answer::default();
            let token = if source.is_plugin(index) { token } else { 0 };
            let raw = RawAck { packet_id, kind, reason_code, token, extension: NO_EXTENSION };
            result = handlers.ask(index, who, &mut answer, &raw).map(|_| ()).and(result);
        }
        result
    }

    /// Tells the plugins that the connection has ended, and drops its states: a second call does nothing. Plugins that
    /// have panicked on it are left out.
    pub fn disconnect(&self, handlers: &mut Handlers, who: &str, reason: &DisconnectReason<'_>) {
        tell_end(handlers, who, reason);
    }

    /// Drops the states of a connection whose plugins have been told already that it has ended.
    pub fn forget(&self, mut handlers: Handlers, who: &str) {
        handlers.end(who);
    }
}

impl Plan {
    /// Hands a message to one plugin as a whole.
    pub fn event(&self, plugin: usize, request: &InfoRequest<'_>) {
        if let Some(plugin) = self.plugins().get(plugin)
            && plugin.callbacks().contains(Callback::Event)
        {
            plugin.event(&request.raw());
        }
    }

    /// See [`Chain::new_connection`]: the states of those of the plugins that decide about the connection.
    ///
    /// # Errors
    /// See there.
    pub fn new_connection(&self, set: PluginSet, info: &ConnectionInfo<'_>) -> Result<Handlers, Failed> {
        Handlers::new(self, set, info).map_err(|mut made| {
            let reason = DisconnectReason {
                kind: DisconnectKind::HandlerFailed,
                reason_code: ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
                text: "",
            };
            // Nobody knows the Client Identifier yet.
            tell_end(&mut made, &info.peer.to_string(), &reason);
            Failed
        })
    }
}

/// See [`Chain::disconnect`].
fn tell_end(handlers: &mut Handlers, who: &str, reason: &DisconnectReason<'_>) {
    let raw = reason.raw();
    for index in implementing(handlers, Callback::Disconnect) {
        if handlers.is_sound(index) {
            let mut answer = Answer::default();
            // A panic is logged where it is caught; the connection has ended anyway.
            let _ = handlers.ask(index, who, &mut answer, &raw);
        }
    }
    handlers.end(who);
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.plugins().iter().map(|plugin| plugin.name())).finish()
    }
}

/// The plugins that implement a callback, by their place in the chain.
#[inline]
pub(super) fn implementing(handlers: &Handlers, callback: Callback) -> impl Iterator<Item = usize> + use<> {
    implementing_from(handlers, callback, 0)
}

/// Those of them from a place in the chain on; it may be one behind the last.
#[inline]
pub(super) fn implementing_from(
    handlers: &Handlers,
    callback: Callback,
    from: usize,
) -> impl Iterator<Item = usize> + use<> {
    // A copy of the set, so that the iterator does not borrow the handlers, which each call needs mutably.
    let set = handlers.plugins().implementing(callback);
    let mut set = u32::try_from(from).ok().and_then(|from| u64::MAX.checked_shl(from)).map_or(0, |rest| set & rest);
    std::iter::from_fn(move || {
        let index = set.trailing_zeros();
        (index < 64).then(|| {
            set &= set - 1;
            index as usize
        })
    })
}
