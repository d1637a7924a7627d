//! Which instance of each plugin decides about which connection, and how one takes another's place while the server runs.
//!
//! The *plan* says it. A swap changes the plan and raises its *epoch*; workers notice that, and each connection
//! [conforms](super::Handlers::conform) to the new plan before its next packet is looked at, or when its worker gets to it.
//! Nothing of the author's runs under the lock of the plan, and nothing of it is dropped on a worker's thread: an instance
//! that has been replaced is stopped and dropped by [`Chain::retire`], once nobody refers to it.

mod keeping;
mod probation;

use std::hash::BuildHasher;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use plugin_api::{Callback, Callbacks};

pub(super) use self::probation::Probation;
use super::chain::Chain;
use super::handlers::{PluginSet, Plugins};
use super::instance::Plugin;
use super::record::Shadow;
use crate::sync::simple::atomic::{AtomicU32, Ordering};

/// All connections, in the unit of [`Trial::per_mille`].
const PER_MILLE: u64 = 1000;

/// Which instances decide. Cloning it is cheap.
#[derive(Clone, Default)]
pub struct Plan {
    epoch: u32,
    /// The one since which the same instances decide: a candidate that is tried beside them has its own plan as well.
    decided: u32,
    base: Arc<Plugins>,
    /// What a share of the connections, per mille, get instead.
    candidate: Option<(Arc<Plugins>, u16)>,
    /// The callbacks of the instances that connections may stay with, or go back to, while there is a trial.
    previous: Callbacks,
    /// Candidates that are tried beside plugins, at most one for each, and decide nothing.
    shadows: Vec<Weak<Shadow>>,
}

impl Plan {
    /// The number of the plan: a later one has a higher number.
    #[must_use]
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The candidates that are tried, and are to hear of each connection.
    #[inline]
    pub(super) fn shadows(&self) -> impl Iterator<Item = Arc<Shadow>> {
        self.shadows.iter().filter_map(Weak::upgrade)
    }

    /// The plugins that decide about all connections but those that a canary takes.
    #[must_use]
    pub fn plugins(&self) -> &[Arc<Plugin>] {
        &self.base.list
    }

    /// The callbacks of all instances that may have to be asked about a connection that conforms to this plan.
    #[must_use]
    pub fn callbacks(&self) -> Callbacks {
        let implemented = Callback::ALL.into_iter().filter(|callback| self.implements(*callback));
        implemented.fold(self.previous, Callbacks::with)
    }

    /// Whether at least one plugin implements a callback.
    #[must_use]
    pub fn implements(&self, callback: Callback) -> bool {
        self.some_implement(callback, PluginSet::ALL)
    }

    /// Whether at least one of these plugins implements a callback.
    pub(super) fn some_implement(&self, callback: Callback, set: PluginSet) -> bool {
        let all = [Some(&self.base), self.candidate.as_ref().map(|(plugins, _)| plugins)];
        all.into_iter().flatten().any(|plugins| plugins.only(set).implementing(callback) != 0)
    }

    /// Whether what a callback is about is refused because none of these plugins decides about it.
    pub(super) fn refuses_undecided(&self, callback: Callback, set: PluginSet) -> bool {
        let all = [Some(&self.base), self.candidate.as_ref().map(|(plugins, _)| plugins)];
        all.into_iter().flatten().any(|plugins| plugins.only(set).refuses_undecided(callback))
    }

    /// The plugins that decide about one connection. The same as long as the plan is the same.
    pub(super) fn plugins_for(&self, connection: u64, set: PluginSet) -> Arc<Plugins> {
        let all = match &self.candidate {
            Some((plugins, share)) if is_drawn(connection, *share) => plugins,
            _ => &self.base,
        };
        all.only(set)
    }
}

fn is_drawn(connection: u64, per_mille: u16) -> bool {
    FixedState::with_seed(0x6361_6e61).hash_one(connection) % PER_MILLE < u64::from(per_mille)
}

/// Which plugins have decided on something, and how often they had been given reason by then to say something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    epoch: u32,
    changes: u32,
}

/// An instance that is new, and the one whose place it takes or is to take.
#[derive(Debug, Clone)]
pub struct Trial {
    index: usize,
    /// The new one.
    pub plugin: Arc<Plugin>,
    /// The one that decides again after a rollback.
    pub previous: Arc<Plugin>,
    /// The share of the connections, per mille, about which the new one decides; `None` once it is all of them.
    pub per_mille: Option<u16>,
    /// When the old one is let go; `None` while there is a share.
    pub until: Option<Instant>,
    /// Its probation, which begins when it has all connections.
    how: Flip,
    /// The callbacks of those before the old one that connections have stayed with, and may stay with once more.
    earlier: Callbacks,
}

impl Trial {
    /// The place in the chain.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The callbacks of all that connections may stay with, or go back to.
    fn before(&self) -> Callbacks {
        self.earlier.union(self.previous.callbacks())
    }
}

/// How an instance takes another's place.
#[derive(Debug, Clone, Copy)]
pub struct Flip {
    /// The share of the connections, per mille, that it gets until it is promoted; `None` for all at once.
    pub per_mille: Option<u16>,
    /// For how long its failures count once it has all connections, and the old one can come back.
    pub probation: Duration,
    /// The failures that it may have meanwhile.
    pub budget: u32,
}

/// Why the plan cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Busy {
    /// The server is stopping, or has stopped.
    Stopping,
    /// Another change is under way.
    Changing,
    /// A candidate is being tried in the place of this plugin, and there can be one at a time.
    DryRun,
    /// There is a canary, of the plugin with this name.
    Canary(String),
    /// There is nothing to promote or to roll back, or of this plugin there is not.
    NoTrial(Option<String>),
    /// There are several, with these names.
    Several(Vec<String>),
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopping => f.write_str("the server is stopping, or has stopped"),
            Self::DryRun => {
                f.write_str(
                    "another candidate is being tried in its place, and there can be one at a time: end that command (Ctrl-C, \
                     which has it print what it has found), or try again when it ends",
                )
            }
            Self::Changing => f.write_str("another swap is under way: try again when it has ended"),
            Self::Canary(name) => {
                write!(
                    f,
                    "there is a canary of plugin {name}, and there can be one at a time: promote it or roll it back"
                )
            }
            Self::NoTrial(None) => f.write_str("no plugin has a canary or is on probation"),
            Self::NoTrial(Some(name)) => write!(f, "plugin {name} has no canary and is not on probation"),
            Self::Several(names) => {
                write!(f, "several plugins are on trial ({}): say the name of one", names.join(", "))
            }
        }
    }
}

impl std::error::Error for Busy {}

/// The plan, and what led to it.
#[derive(Default)]
pub(super) struct Cell {
    /// That of the plan, so that nobody has to lock it to see that it has not changed.
    epoch: AtomicU32,
    /// How often plugins may have begun to say something else, by other means than the plan.
    permissions: AtomicU32,
    state: Mutex<State>,
    /// Notified when the state changes.
    changed: Condvar,
    /// Wakes all workers.
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Held by who prepares a change; `true` once there are to be no more.
    change: Mutex<bool>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    trials: Vec<Trial>,
    /// Replaced, and to be dropped when nobody refers to them any more.
    retired: Vec<Arc<Plugin>>,
    /// Rolled back, and who decides in its place: what the plugin as a whole has learnt is to be handed back.
    handing_back: Vec<(Arc<Plugin>, Arc<Plugin>)>,
    next_generation: u64,
    /// For each worker the plan that all its connections conform to, and how many of them could not yet.
    workers: Vec<(u32, usize)>,
    closed: bool,
}

/// One who changes the plan, and nobody else meanwhile.
pub(crate) struct Change<'a>(#[allow(dead_code, reason = "held for its Drop")] MutexGuard<'a, bool>);

impl Cell {
    pub(super) fn new(plugins: Vec<Plugin>) -> Arc<Self> {
        for (index, plugin) in plugins.iter().enumerate() {
            plugin.join(index, 1);
            plugin.decides();
        }
        let base = Arc::new(Plugins::new(plugins.into_iter().map(Arc::new).collect()));
        let plan = Plan { base, ..Plan::default() };
        Arc::new(Self { state: Mutex::new(State { plan, next_generation: 2, ..State::default() }), ..Self::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a change: the workers hear of it.
    fn publish(&self, mut state: MutexGuard<'_, State>) -> u32 {
        state.plan.epoch += 1;
        let previous = state.trials.iter().map(Trial::before);
        state.plan.previous = previous.fold(Callbacks::NONE, Callbacks::union);
        let epoch = state.plan.epoch;
        self.epoch.store(epoch, Ordering::Release);
        drop(state);
        self.changed.notify_all();
        if let Some(wake) = self.wake.get() {
            wake();
        }
        epoch
    }

    /// A plugin has used up its budget.
    #[cold]
    fn has_failed(&self, plugin: &Plugin) {
        let mut state = self.state();
        let Some(at) = state.trials.iter().position(|trial| std::ptr::eq(&*trial.plugin, plugin)) else {
            return;
        };
        let trial = state.roll_back(at);
        self.publish(state);
        tracing::error!(
            plugin = trial.plugin.name(),
            version = trial.plugin.version(),
            generation = trial.plugin.generation(),
            back_to = trial.previous.version(),
            "a plugin has used up its error budget: it is rolled back"
        );
    }
}

impl State {
    fn may_flip(&self, index: usize, how: &Flip) -> Result<(), Busy> {
        let canary = self.trials.iter().find(|trial| trial.per_mille.is_some());
        match canary.filter(|canary| canary.index == index || how.per_mille.is_some()) {
            Some(canary) => Err(Busy::Canary(canary.plugin.name().to_owned())),
            None => Ok(()),
        }
    }

    fn trial(&self, name: Option<&str>, wanted: impl Fn(&Trial) -> bool) -> Result<usize, Busy> {
        let found: Vec<usize> = (0..self.trials.len())
            .filter(|at| wanted(&self.trials[*at]))
            .filter(|at| name.is_none_or(|name| self.trials[*at].plugin.name() == name))
            .collect();
        match found[..] {
            [] => Err(Busy::NoTrial(name.map(str::to_owned))),
            [at] => Ok(at),
            _ => Err(Busy::Several(found.iter().map(|at| self.trials[*at].plugin.name().to_owned()).collect())),
        }
    }

    /// The one that was on trial goes.
    fn roll_back(&mut self, at: usize) -> Trial {
        let trial = self.trials.remove(at);
        self.note_exchange();
        trial.plugin.probation().undo();
        if trial.per_mille.is_some() {
            self.plan.candidate = None;
        } else {
            self.set_base(trial.index, &trial.previous);
            // With a share only, the one that had the others has gone on learning by itself.
            if trial.plugin.hands_over_all(&trial.previous) {
                self.handing_back.push((Arc::clone(&trial.plugin), Arc::clone(&trial.previous)));
            }
        }
        self.retired.push(Arc::clone(&trial.plugin));
        trial
    }

    /// The one that was on trial stays.
    fn settle(&mut self, at: usize) -> Trial {
        let trial = self.trials.remove(at);
        trial.plugin.probation().end();
        self.retired.push(Arc::clone(&trial.previous));
        trial
    }

    /// Others decide by the plan that is published next.
    fn note_exchange(&mut self) {
        self.plan.decided = self.plan.epoch + 1;
    }

    fn set_base(&mut self, index: usize, plugin: &Arc<Plugin>) {
        self.plan.base = self.plan.base.with(index, plugin);
        // A canary of another plugin goes on beside it.
        if let Some((plugins, _)) = &mut self.plan.candidate {
            *plugins = plugins.with(index, plugin);
        }
    }
}

impl Chain {
    /// The number of the plan that is in force.
    #[must_use]
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// What plugins of the plan with this number say now.
    #[must_use]
    pub fn permissions(&self, epoch: u32) -> Permissions {
        Permissions { epoch, changes: self.0.permissions.load(Ordering::Acquire) }
    }

    /// Whether plugins may be expected to say the same as before: none of them has been exchanged or configured since, or has
    /// asked to reauthorise all clients.
    #[must_use]
    pub fn say_the_same(&self, plan: &Plan, before: Permissions) -> bool {
        let now = self.permissions(before.epoch);
        before == now && before.epoch >= plan.decided
    }

    /// A plugin may say something else from now on about what it has decided on.
    pub fn note_new_permissions(&self) {
        self.0.permissions.fetch_add(1, Ordering::AcqRel);
    }

    /// The plan that is in force.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.0.state().plan.clone()
    }

    /// What is called when the plan has changed, on any thread. Only the first one counts.
    pub fn on_change(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.wake.set(Box::new(wake));
    }

    /// Makes sure that nobody else prepares a change.
    ///
    /// # Errors
    /// Somebody does, or there are to be no more.
    pub(crate) fn change(&self) -> Result<Change<'_>, Busy> {
        let guard = match self.0.change.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Busy::Changing),
        };
        if *guard { Err(Busy::Stopping) } else { Ok(Change(guard)) }
    }

    /// Whether [`Chain::flip`] would be allowed now: asked before anything of the author's runs for it.
    ///
    /// # Errors
    /// There is a canary in the way.
    pub fn may_flip(&self, index: usize, how: &Flip) -> Result<(), Busy> {
        self.0.state().may_flip(index, how)
    }

    /// Puts an instance into the place of the plugin at `index`. What was on trial there before has passed. Returns the
    /// number of the plan.
    ///
    /// # Errors
    /// There is a canary in the way.
    pub fn flip(&self, index: usize, plugin: &Arc<Plugin>, how: &Flip) -> Result<u32, Busy> {
        let mut state = self.0.state();
        state.may_flip(index, how)?;
        let settled = state.trials.iter().position(|trial| trial.index == index).map(|at| state.settle(at));
        let earlier = settled.map_or(Callbacks::NONE, |settled| settled.before());
        plugin.join(index, state.next_generation);
        state.next_generation += 1;
        state.note_exchange();
        let previous = Arc::clone(&state.plan.base.list[index]);
        match how.per_mille {
            Some(share) => state.plan.candidate = Some((state.plan.base.with(index, plugin), share)),
            None => state.set_base(index, plugin),
        }
        if how.per_mille.is_none() && how.probation.is_zero() {
            state.retired.push(previous);
        } else {
            plugin.probation().begin(&self.0, how.budget, &previous);
            let until = how.per_mille.is_none().then(|| Instant::now() + how.probation);
            let plugin = Arc::clone(plugin);
            state.trials.push(Trial { index, plugin, previous, per_mille: how.per_mille, until, how: *how, earlier });
        }
        let epoch = self.0.publish(state);
        plugin.decides();
        Ok(epoch)
    }

    /// Has a candidate that is only tried hear of each connection.
    ///
    /// # Errors
    /// Another one is tried in the place of the same plugin.
    pub(super) fn follow(&self, shadow: &Arc<Shadow>) -> Result<u32, Busy> {
        let mut state = self.0.state();
        if state.plan.shadows().any(|other| other.is_beside_the_same(shadow)) {
            return Err(Busy::DryRun);
        }
        state.plan.shadows.retain(|other| other.strong_count() > 0);
        state.plan.shadows.push(Arc::downgrade(shadow));
        Ok(self.0.publish(state))
    }

    /// Gives all connections to the instance that has a share of them. Its probation begins, as it was asked for.
    ///
    /// # Errors
    /// There is none, or none with this name.
    pub fn promote(&self, name: Option<&str>) -> Result<(Trial, u32), Busy> {
        let mut state = self.0.state();
        let at = state.trial(name, |trial| trial.per_mille.is_some())?;
        let how = state.trials[at].how;
        state.note_exchange();
        state.plan.candidate = None;
        let (index, plugin) = (state.trials[at].index, Arc::clone(&state.trials[at].plugin));
        state.set_base(index, &plugin);
        let trial = if how.probation.is_zero() {
            state.settle(at)
        } else {
            plugin.probation().begin(&self.0, how.budget, &state.trials[at].previous.clone());
            let trial = &mut state.trials[at];
            trial.per_mille = None;
            trial.until = Some(Instant::now() + how.probation);
            trial.clone()
        };
        Ok((trial, self.0.publish(state)))
    }

    /// Gives all connections back to the instance that was there before.
    ///
    /// # Errors
    /// Nothing is on trial, nothing with this name, or several are.
    pub fn roll_back(&self, name: Option<&str>) -> Result<(Trial, u32), Busy> {
        let mut state = self.0.state();
        let at = state.trial(name, |_| true)?;
        let trial = state.roll_back(at);
        Ok((trial, self.0.publish(state)))
    }

    /// The number that the instance got which came last.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.state().next_generation - 1
    }

    /// What is on trial.
    #[must_use]
    pub fn trials(&self) -> Vec<Trial> {
        self.0.state().trials.clone()
    }

    /// Instances that have been replaced and are still referred to, or have not been dropped yet.
    #[must_use]
    pub fn retired(&self) -> Vec<Arc<Plugin>> {
        self.0.state().retired.clone()
    }

    /// A worker says that its connections conform to a plan, but for some that cannot yet.
    pub fn report_conformed(&self, worker: usize, epoch: u32, left: usize) {
        let mut state = self.0.state();
        if state.workers.len() <= worker {
            state.workers.resize(worker + 1, (0, 0));
        }
        state.workers[worker] = (epoch, left);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until all connections conform to a plan or a later one. `None` if that takes longer than `patience`; otherwise
    /// the number of those that cannot yet, as they are in an authentication exchange or wait for an answer.
    #[must_use]
    pub fn wait_conformed(&self, workers: usize, epoch: u32, patience: Duration) -> Option<usize> {
        let deadline = Instant::now() + patience;
        let mut state = self.0.state();
        loop {
            let done = state.workers.iter().filter(|(reached, _)| *reached >= epoch).count();
            if done >= workers {
                return Some(state.workers.iter().map(|(_, left)| left).sum());
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() || state.closed {
                return None;
            }
            state = self.0.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
