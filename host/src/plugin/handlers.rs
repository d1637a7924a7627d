//! The states of one connection, and the plugins that they belong to: a state goes back only to the instance that made it.
#![allow(unsafe_code)] // A state goes from thread to thread.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::abi::{Opaque, Verdict};
use plugin_api::{Callback, Callbacks};

use super::cursor::Cursor;
use super::generation::Plan;
use super::instance::Plugin;
use super::outcome::Failed;
use super::pool::Cell;
use super::request::ConnectionInfo;
use super::stats::{Detour, Entry};
use super::tickets::Answered;
use plugin_api::reading::Answer;

/// Some plugins of a chain, by their places in it, and what becomes of what they leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginSet {
    places: u64,
    refuses_undecided: bool,
}

impl PluginSet {
    /// All that there are.
    pub const ALL: Self = Self { places: u64::MAX, refuses_undecided: false };

    /// Those at these places, which are less than 64.
    pub(super) fn of(places: impl IntoIterator<Item = usize>) -> Self {
        Self { places: places.into_iter().fold(0, |set, place| set | 1 << place), ..Self::ALL }
    }

    /// The same; what none of them decides about, though they decide on the rest, is refused or not; see
    /// [`Undecided`](crate::limits::Undecided).
    #[must_use]
    pub fn refusing_undecided(self, refuses_undecided: bool) -> Self {
        Self { refuses_undecided, ..self }
    }

    pub(super) fn contains(self, place: usize) -> bool {
        self.places & 1 << place != 0
    }

    pub(super) fn refuses_undecided(self) -> bool {
        self.refuses_undecided
    }
}

impl Default for PluginSet {
    fn default() -> Self {
        Self::ALL
    }
}

/// Plugins in their order, at most 64. It does not change: a swap makes a new one.
#[derive(Default)]
pub(super) struct Plugins {
    pub(super) list: Box<[Arc<Plugin>]>,
    /// Those of them that decide.
    set: PluginSet,
    /// For each callback those of them that implement it, as a set of bits.
    implementing: [u64; Callback::ALL.len()],
    /// The same where only some of them decide, for the listeners that want that.
    parts: Mutex<Vec<Arc<Self>>>,
}

impl Plugins {
    pub(super) fn new(list: Vec<Arc<Plugin>>) -> Self {
        Self::part(list, PluginSet::ALL)
    }

    fn part(list: Vec<Arc<Plugin>>, deciding: PluginSet) -> Self {
        let implements = |plugin: &Plugin, callback| u64::from(plugin.callbacks.contains(callback));
        let set = |callback| {
            let all =
                list.iter().enumerate().fold(0, |set, (index, plugin)| set | implements(plugin, callback) << index);
            all & deciding.places
        };
        Self { implementing: Callback::ALL.map(set), list: list.into(), set: deciding, parts: Mutex::default() }
    }

    /// The same with some of them only. There are as many of these as listeners that want other ones.
    pub(super) fn only(self: &Arc<Self>, set: PluginSet) -> Arc<Self> {
        if set.refuses_undecided == self.set.refuses_undecided && (0..self.list.len()).all(|place| set.contains(place))
        {
            return Arc::clone(self);
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.iter().find(|part| part.set == set) {
            return Arc::clone(part);
        }
        let part = Arc::new(Self::part(self.list.to_vec(), set));
        parts.push(Arc::clone(&part));
        part
    }

    /// Those of them that decide.
    pub(super) fn set(&self) -> PluginSet {
        self.set
    }

    /// Those of them that decide, with their places.
    pub(super) fn deciding(&self) -> impl Iterator<Item = (usize, &Arc<Plugin>)> {
        self.list.iter().enumerate().filter(|(place, _)| self.set.contains(*place))
    }

    /// The same with another plugin in one place.
    pub(super) fn with(&self, index: usize, plugin: &Arc<Plugin>) -> Arc<Self> {
        let mut list = self.list.to_vec();
        list[index] = Arc::clone(plugin);
        Arc::new(Self::part(list, self.set))
    }

    /// Whether nobody decides about a callback, which is `handle_publish` or `handle_subscribe`, and what it is about is
    /// refused for that: where plugins decide who comes in and on the other of the two, they decide what clients may do, and
    /// what they have left out is not allowed. Who decides on each delivery decides on what is received as well.
    #[cold]
    pub(super) fn refuses_undecided(&self, callback: Callback) -> bool {
        let decides = |callbacks: &[Callback]| callbacks.iter().any(|callback| self.implementing(*callback) != 0);
        let (decided, other) = match callback {
            Callback::Publish => (decides(&[Callback::Publish]), decides(&[Callback::Subscribe])),
            _ => (decides(&[Callback::Subscribe, Callback::Deliver]), decides(&[Callback::Publish])),
        };
        self.set.refuses_undecided && !decided && other && decides(&[Callback::Connect, Callback::Auth])
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
pub(super) enum States {
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
    pub(super) plugins: Arc<Plugins>,
    pub(super) connection: u64,
    pub(super) states: States,
    /// The plan that it last conformed to.
    epoch: u32,
    /// Boxed, as few have any.
    #[allow(clippy::box_collection)] // One word for each connection, rather than three.
    kept: Option<Box<Vec<Kept>>>,
}

impl Handlers {
    /// Makes the states. If one plugin cannot, those that are made already are returned: their plugins have to hear that
    /// the connection ends.
    pub(super) fn new(plan: &Plan, set: PluginSet, info: &ConnectionInfo<'_>) -> Result<Self, Self> {
        let mut handlers = Self::empty(plan, set, info.connection);
        let plugins = Arc::clone(&handlers.plugins);
        for (index, plugin) in plugins.deciding() {
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

    /// Without any state.
    pub(super) fn empty(plan: &Plan, set: PluginSet, connection: u64) -> Self {
        let plugins = plan.plugins_for(connection, set);
        let states = match plugins.list.len() {
            1 => States::One(State::NONE),
            count => States::Any((0..count).map(|_| State::NONE).collect()),
        };
        Self { plugins, connection, states, epoch: plan.epoch(), kept: None }
    }

    /// Has the instance that decided before decide about a connection that has just begun, as the new one has panicked
    /// while it is on probation, or has used that up. `false` if that is not so.
    #[cold]
    pub(super) fn begin_again(&mut self, index: usize, info: &ConnectionInfo<'_>) -> bool {
        let Some(previous) = self.plugins.list[index].probation.previous(index) else { return false };
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

    /// Whether [`Chain::subscribe`](super::Chain::subscribe) may refuse anything.
    pub fn decides_on_subscriptions(&self) -> bool {
        self.implements(Callback::Subscribe) || self.plugins().refuses_undecided(Callback::Subscribe)
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
        self.plugins
            .deciding()
            .map(|(_, plugin)| plugin)
            .chain(kept)
            .fold(Callbacks::NONE, |all, plugin| all.union(plugin.callbacks))
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
    pub(super) fn share(&mut self, plugins: Arc<Plugins>) {
        self.plugins = plugins;
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
        asked.note_later(self.connection, who, cursor.ticket, Some((verdict, &answer)));
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
        let (plugins, connection) = (Arc::clone(&self.plugins), self.connection);
        for (plugin, state) in plugins.list.iter().zip(self.states()) {
            if !matches!(state, State::None) {
                plugin.count_connection(false);
                // What is with the pool ends there, when all before it is done.
                if let State::Here(_) = state {
                    plugin.note_end(connection, who);
                }
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
