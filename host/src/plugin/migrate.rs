//! A connection goes from one instance of a plugin to another.

use std::sync::Arc;

use super::generation::Plan;
use super::handlers::{Handlers, Kept, State};
use super::handover::NotExported;
use super::instance::Plugin;
use super::record::Shadow;
use super::request::SwapRequest;
use plugin_api::Callback;

/// Whether a connection has the plugins that the plan names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conformed {
    /// It has, or what it has instead is to stay until the next plan.
    Yes,
    /// A state is with an asynchronous callback, or with the pool: try again.
    Later,
    /// The connection has to end: the new instance could not make a state for it.
    Failed,
    /// The connection has to end: its state could not be handed over, and the new instance wants that.
    Disconnect,
}

/// What the new instance has for the connection.
enum Taken {
    State(State),
    /// Nothing: the old one goes on until the next plan, as the new one is on probation, and this a failure of it.
    Nothing,
    Not(Conformed),
}

impl Handlers {
    /// Goes over to the plugins that a plan names for this connection. The states of those that stay the same stay; to
    /// another instance of a plugin the state is handed over, or it gets a fresh one.
    ///
    /// While the new instance is on probation, the state of the old one is kept beside it. If the new instance cannot take
    /// the connection on meanwhile, the old one goes on, until the next plan.
    ///
    /// If the connection has to end, its handlers are as they were, in those places that had not gone over.
    pub fn conform(&mut self, plan: &Plan, request: &SwapRequest<'_>) -> Conformed {
        let target = plan.plugins_for(request.info.connection, self.plugins().set());
        if !Arc::ptr_eq(self.plugins(), &target) || self.has_kept() {
            let mut all = true;
            for (index, new) in target.deciding() {
                if Arc::ptr_eq(&self.plugins().list[index], new) {
                    if !new.is_on_probation() {
                        self.drop_kept(index, request.client_id);
                    }
                    continue;
                }
                match self.take_over(index, new, request) {
                    Taken::State(state) => self.go_over(index, new, state, request.client_id),
                    Taken::Nothing => all = false,
                    Taken::Not(why) => return why,
                }
            }
            if all {
                self.share(target);
            }
        }
        for shadow in plan.shadows() {
            if !self.begin_shadow(&shadow, request) {
                return Conformed::Later;
            }
        }
        self.set_epoch(plan.epoch());
        Conformed::Yes
    }

    /// Hands a copy of what is known of the connection to a candidate that is tried. `false`: a state is away.
    #[cold]
    fn begin_shadow(&mut self, shadow: &Shadow, request: &SwapRequest<'_>) -> bool {
        let Some(index) = self.plugins().list.iter().position(|plugin| shadow.is_of(plugin)) else { return true };
        if !self.settle(index) {
            return false;
        }
        let plugin = Arc::clone(&self.plugins().list[index]);
        let state = &self.states()[index];
        if state.is_none() {
            return true;
        }
        let exported = if shadow.imports() {
            match plugin.export(request.info.connection, state, request.client_id) {
                Ok(exported) => Some(exported),
                Err(NotExported::Away) => return false,
                Err(NotExported::NotOffered | NotExported::Failed) => None,
            }
        } else {
            None
        };
        shadow.begin(&plugin, request, exported);
        true
    }

    /// What another instance makes of the connection. The present one still has it.
    fn take_over(&mut self, index: usize, new: &Arc<Plugin>, request: &SwapRequest<'_>) -> Taken {
        let old = Arc::clone(&self.plugins().list[index]);
        let raw = request.raw(old.version(), new.generation() < old.generation());
        let refused = || if new.is_on_probation() { Taken::Nothing } else { Taken::Not(Conformed::Failed) };
        if !self.settle(index) {
            return Taken::Not(Conformed::Later);
        }
        let is_imported = new.callbacks().contains(Callback::ImportState);
        let state = &self.states()[index];
        if is_imported && !state.is_none() {
            match old.export(request.info.connection, state, request.client_id) {
                Ok(exported) => match new.import(&raw, &exported) {
                    Some(state) => {
                        new.note_begin(&request.info);
                        return Taken::State(state);
                    }
                    None if new.is_on_probation() => return Taken::Nothing,
                    None => {}
                },
                Err(NotExported::Away) => return Taken::Not(Conformed::Later),
                Err(NotExported::NotOffered | NotExported::Failed) => {}
            }
        }
        if let Some(state) = self.take_kept_of(index, new) {
            return Taken::State(state);
        }
        if self.states()[index].is_none() && !self.is_skipped(index) {
            return refused(); // Nobody lets a connection go on that a plugin has failed on.
        }
        if new.disconnects_on_swap() {
            return Taken::Not(Conformed::Disconnect);
        }
        if new.begins_on_pool() {
            return new.begin_swapped(request, &raw).map_or_else(refused, Taken::State);
        }
        let Some(mut state) = new.new_state(&request.info) else { return refused() };
        if new.swapped(&raw, &state) {
            return Taken::State(state);
        }
        new.drop_state(&mut state, request.client_id);
        refused()
    }

    fn go_over(&mut self, index: usize, new: &Arc<Plugin>, state: State, who: &str) {
        let old = Arc::clone(&self.plugins().list[index]);
        let mut before = self.put(index, new, state);
        self.drop_kept(index, who);
        if new.is_on_probation() && !before.is_none() {
            self.keep(Kept { index, plugin: old, state: before });
        } else {
            old.drop_state(&mut before, who);
        }
    }

    /// The state that the connection had with an instance before.
    fn take_kept_of(&mut self, index: usize, plugin: &Arc<Plugin>) -> Option<State> {
        let mut kept = self.take_kept(index)?;
        if Arc::ptr_eq(&kept.plugin, plugin) {
            return Some(kept.state.take());
        }
        self.keep(kept);
        None
    }

    fn drop_kept(&mut self, index: usize, who: &str) {
        if let Some(mut kept) = self.take_kept(index) {
            kept.plugin.drop_state(&mut kept.state, who);
        }
    }
}
