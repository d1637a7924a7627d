//! What is due without anybody having asked: probations that are over, instances that have been replaced; and the end.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Trial;
use crate::plugin::chain::Chain;
use crate::plugin::instance::Plugin;

impl Chain {
    /// Ends the probations that are over by now. Returns when the next one is.
    fn settle(&self) -> Option<Instant> {
        let now = Instant::now();
        self.settle_if(|trial| trial.until.is_some_and(|until| until <= now))
    }

    /// Ends all probations.
    #[cfg(test)]
    pub(crate) fn settle_all(&self) {
        let _ = self.settle_if(|trial| trial.until.is_some());
    }

    fn settle_if(&self, is_over: impl Fn(&Trial) -> bool) -> Option<Instant> {
        let mut state = self.0.state();
        let mut any = false;
        while let Some(at) = state.trials.iter().position(&is_over) {
            let trial = state.settle(at);
            any = true;
            tracing::info!(
                plugin = trial.plugin.name(),
                version = trial.plugin.version(),
                generation = trial.plugin.generation(),
                "a plugin has passed its probation"
            );
        }
        let next = state.trials.iter().filter_map(|trial| trial.until).min();
        if any {
            self.0.publish(state);
        }
        next
    }

    /// Stops and drops the instances that have been replaced and that nobody refers to any more. `true` if others are
    /// left. Not for a worker's thread: it is the authors' code.
    pub fn retire(&self) -> bool {
        let mut state = self.0.state();
        // Nobody can get at one that is only here, so the count does not rise again.
        let (free, used) =
            std::mem::take(&mut state.retired).into_iter().partition(|plugin| Arc::strong_count(plugin) == 1);
        state.retired = used;
        let is_any_left = !state.retired.is_empty();
        drop(state);
        let free: Vec<Arc<Plugin>> = free;
        for plugin in free {
            let (name, version, generation) =
                (plugin.name().to_owned(), plugin.version().to_owned(), plugin.generation());
            plugin.let_go();
            drop(plugin);
            tracing::info!(plugin = name, version, generation, "a replaced plugin has been dropped");
        }
        is_any_left
    }

    /// Hands back what plugins as a whole have learnt on probation, on a thread of its own: it is the authors' code, of a
    /// version that was perhaps not good.
    fn hand_back(&self) {
        let all = std::mem::take(&mut self.0.state().handing_back);
        if all.is_empty() {
            return;
        }
        let hand_back = move || all.iter().for_each(|(from, to)| from.hand_back_all(to));
        if let Err(error) = std::thread::Builder::new().name("plugin-hand-back".to_owned()).spawn(hand_back) {
            tracing::error!(%error, "no thread for it: a plugin goes on with what it knew before the swap");
        }
    }

    /// Does what is due, until [`Chain::close`]. For a thread of its own.
    pub(crate) fn keep(&self) {
        /// How often it is looked whether an instance that has been replaced is still used.
        const LOOK_MS: u64 = 20;
        loop {
            self.hand_back();
            let next = self.settle();
            let look = self.retire().then(|| Instant::now() + Duration::from_millis(LOOK_MS));
            let state = self.0.state();
            if state.closed {
                return;
            }
            let patience = next.into_iter().chain(look).min().map(|at| at.saturating_duration_since(Instant::now()));
            // What changed between the two locks has notified nobody.
            let patience = patience.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1));
            drop(self.0.changed.wait_timeout(state, patience));
        }
    }

    /// Allows no more changes, and waits for the one that is under way.
    pub(crate) fn close(&self) {
        // First, as the one that is under way may wait for workers that have ended, or for an `init` that does not return.
        self.0.state().closed = true;
        self.0.changed.notify_all();
        *self.0.change.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Whether the server ends.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.state().closed
    }

    /// Tells all instances that they are about to be dropped. To be called once. They are dropped with the last clone of
    /// the chain and the last connection's handlers, so that none is dropped while it is still in use.
    pub fn stop(&self) {
        let state = self.0.state();
        let mut all = state.plan.base.list.to_vec();
        let trials = state.trials.iter().flat_map(|trial| [&trial.plugin, &trial.previous]);
        for plugin in trials.chain(&state.retired) {
            if !all.iter().any(|other| Arc::ptr_eq(other, plugin)) {
                all.push(Arc::clone(plugin));
            }
        }
        drop(state);
        // They share one pool, and are told what there is to tell of their connections before.
        all.first().inspect(|plugin| plugin.pool().drain());
        all.iter().for_each(|plugin| plugin.let_go());
    }
}
