//! A connection goes from one instance of a plugin to another.

use std::sync::Arc;

use super::call::{Handlers, Kept, Plugin};
use super::generation::Plan;
use super::request::ConnectionInfo;

/// Why a connection cannot go on with the plugins that the plan names. It still has those that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotMove {
    /// The new instance could not make a state for it.
    Failed,
}

/// What has become of one place.
enum Moved {
    /// The new instance decides from now on.
    Yes,
    /// The old one goes on: the new one is on probation, and has failed.
    No,
}

impl Handlers {
    /// Goes over to the plugins that a plan names for this connection. The states of those that stay the same stay; another
    /// instance of a plugin gets a new state. `who` is the Client Identifier, for the log.
    ///
    /// While the new instance is on probation, the state of the old one is kept beside it. If the new instance cannot take
    /// the connection on meanwhile, the old one goes on, until the next plan.
    ///
    /// # Errors
    /// The connection has to end. Its handlers are as they were, for those places that had not moved.
    pub fn conform(&mut self, plan: &Plan, info: &ConnectionInfo<'_>, who: &str) -> Result<(), CannotMove> {
        self.set_epoch(plan.epoch());
        let target = plan.plugins_for(info.connection);
        if Arc::ptr_eq(self.plugins(), target) && !self.has_kept() {
            return Ok(());
        }
        let mut all = true;
        for (index, new) in target.list.iter().enumerate() {
            if !Arc::ptr_eq(&self.plugins().list[index], new) {
                all &= matches!(self.go_over(index, new, info, who)?, Moved::Yes);
            } else if !new.is_on_probation() {
                self.drop_kept(index, who);
            }
        }
        if all {
            self.share(target);
        }
        Ok(())
    }

    fn go_over(
        &mut self,
        index: usize,
        new: &Arc<Plugin>,
        info: &ConnectionInfo<'_>,
        who: &str,
    ) -> Result<Moved, CannotMove> {
        let old = Arc::clone(&self.plugins().list[index]);
        let kept = self.take_kept(index);
        let state = match kept {
            Some(mut kept) if Arc::ptr_eq(&kept.plugin, new) => Some(kept.state.take()),
            other => {
                if let Some(mut kept) = other {
                    kept.plugin.drop_state(&mut kept.state, who);
                }
                new.new_state(info)
            }
        };
        let Some(state) = state else {
            return if new.is_on_probation() { Ok(Moved::No) } else { Err(CannotMove::Failed) };
        };
        let mut before = self.put(index, new, state);
        if new.is_on_probation() && !before.is_none() {
            self.keep(Kept { index, plugin: old, state: before });
        } else {
            old.drop_state(&mut before, who);
        }
        Ok(Moved::Yes)
    }

    fn drop_kept(&mut self, index: usize, who: &str) {
        if let Some(mut kept) = self.take_kept(index) {
            kept.plugin.drop_state(&mut kept.state, who);
        }
    }
}
