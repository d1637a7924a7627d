//! Whether a server could be started anew with a configuration of which a part counts only then.

use std::path::Path;

use super::{ServerHandle, lock};
use crate::config::Config;
use crate::control::protocol::Refusal;
use crate::error::Error;
use crate::plugin::{Callbacks, Chain, LoadError, Origin, Plugin, Prepared};
use crate::privileges;

/// A library that was looked at for a restart. It stays mapped, and is not mapped again while it is the same.
pub(super) struct LookedAt {
    origin: Origin,
    name: String,
    callbacks: Callbacks,
}

impl ServerHandle {
    /// Looks at what a reload leaves to a restart: the user, the libraries of plugins that are new, and whether the listeners fit
    /// to those and to the bounds.
    ///
    /// # Errors
    /// The restart would fail.
    pub(super) fn check_restart(&self, current: &Config, wanted: &Config, chain: &Chain) -> Result<(), Refusal> {
        self.try_check_restart(current, wanted, chain)
            .map_err(|error| Refusal::new("restart", format!("a restart with this configuration would fail: {error}")))
    }

    fn try_check_restart(&self, current: &Config, wanted: &Config, chain: &Chain) -> Result<(), Error> {
        if let Some(user) = wanted.server.user.as_ref().filter(|_| wanted.server.user != current.server.user) {
            privileges::check_user(user)?;
        }
        let running = chain.plugins();
        let mut plugins: Vec<(String, Callbacks)> = Vec::with_capacity(wanted.plugins.len());
        for config in &wanted.plugins {
            let plugin = self.what_is_in(&config.path, &running)?;
            if plugins.iter().any(|(name, _)| *name == plugin.0) {
                return Err(LoadError::DuplicateName { name: plugin.0 }.into());
            }
            plugins.push(plugin);
        }
        let check = |listener: &crate::ListenerConfig| {
            listener.check_rules(&wanted.limits, wanted.server.allow_anonymous, &plugins)
        };
        wanted.listeners.iter().try_for_each(check)
    }

    /// The name and the callbacks of the plugin in a library.
    fn what_is_in(&self, path: &Path, running: &[std::sync::Arc<Plugin>]) -> Result<(String, Callbacks), LoadError> {
        let is_of =
            |plugin: &Plugin| plugin.origin().is_some_and(|origin| origin.path() == path && !origin.has_changed());
        if let Some(plugin) = running.iter().find(|plugin| is_of(plugin)) {
            return Ok((plugin.name().to_owned(), plugin.callbacks()));
        }
        let mut looked_at = lock(&self.looked_at);
        looked_at.retain(|library| library.origin.path() != path || !library.origin.has_changed());
        if let Some(LookedAt { name, callbacks, .. }) = looked_at.iter().find(|library| library.origin.path() == path) {
            return Ok((name.clone(), *callbacks));
        }
        let prepared = Prepared::read(path)?;
        let (name, callbacks) = (prepared.name().to_owned(), prepared.callbacks());
        looked_at.extend(prepared.origin().map(|origin| LookedAt {
            origin: origin.clone(),
            name: name.clone(),
            callbacks,
        }));
        Ok((name, callbacks))
    }
}
