//! The plugins of a server, and their instances.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::report::milliseconds;
use crate::plugin::{CallbackStats, Chain, Plugin, PluginStats, Trial, mapped};

/// A plugin of a server, and its instances.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PluginStatus {
    /// Its name.
    pub name: String,
    /// Its place in the chain, from 0 on.
    pub index: usize,
    /// Its instances: first the one that decides about most connections; then the one that is on trial as a canary, or
    /// the one that a rollback would go back to; then those that have been replaced and are still in use.
    pub instances: Vec<InstanceStatus>,
}

/// An instance of a plugin.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InstanceStatus {
    /// What it is there for.
    pub role: Role,
    /// Its version.
    pub version: String,
    /// The version of plugin-api that it was built with.
    pub api_version: String,
    /// Its file; `None` if it is linked in.
    pub path: Option<PathBuf>,
    /// Which instance of a plugin of this server it is; those that were there at the start have 1.
    pub generation: u64,
    /// The share of the connections that are to be its, per mille.
    pub per_mille: u16,
    /// The connections that it decides about now.
    pub connections: usize,
    /// What is left of its error budget; `None` if nobody counts.
    pub errors_left: Option<u32>,
    /// What is left of its probation; `None` if it is not on probation, or has not begun it.
    pub probation_left: Option<Duration>,
    /// How often its functions were called, and how that ended.
    pub stats: PluginStats,
}

/// What an instance is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It decides.
    Active,
    /// It decides about a share of the connections.
    Canary,
    /// A rollback would go back to it.
    Previous,
    /// It has been replaced, and goes when nothing refers to it any more.
    Retired,
}

impl Role {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Canary => "canary",
            Self::Previous => "previous",
            Self::Retired => "retired",
        }
    }
}

/// The plugins of a server, and what has been mapped for them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The plugins, in the order of the chain.
    pub plugins: Vec<PluginStatus>,
    /// Libraries that the process has mapped: each swap adds one, none is unmapped.
    pub mapped_libraries: usize,
    /// The bytes of their files.
    pub mapped_bytes: u64,
}

impl Status {
    /// The status as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let instance = |instance: &InstanceStatus| {
            json!({
                "role": instance.role.name(),
                "version": instance.version,
                "api_version": instance.api_version,
                "path": instance.path,
                "generation": instance.generation,
                "share_per_mille": instance.per_mille,
                "connections": instance.connections,
                "errors_left": instance.errors_left,
                "probation_left_ms": instance.probation_left.map(milliseconds),
                "quarantined": instance.stats.is_quarantined,
                "callbacks": instance.stats.callbacks.iter().map(CallbackStats::to_json).collect::<Vec<_>>(),
            })
        };
        let plugin = |plugin: &PluginStatus| {
            json!({
                "plugin": plugin.name,
                "index": plugin.index,
                "instances": plugin.instances.iter().map(instance).collect::<Vec<_>>(),
            })
        };
        json!({
            "plugins": self.plugins.iter().map(plugin).collect::<Vec<_>>(),
            "mapped_libraries": self.mapped_libraries,
            "mapped_bytes": self.mapped_bytes,
        })
    }
}

/// For each plugin the instance that decides, and the one that is on trial or that a rollback would go back to.
pub(crate) fn instances(chain: &Chain) -> Vec<(Role, Arc<Plugin>)> {
    let trials = chain.trials();
    let mut all = Vec::new();
    for (index, plugin) in chain.plugins().into_iter().enumerate() {
        let trial = trials.iter().find(|trial| trial.index() == index);
        let second = trial.map(|trial| match trial.per_mille {
            Some(_) => (Role::Canary, Arc::clone(&trial.plugin)),
            None => (Role::Previous, Arc::clone(&trial.previous)),
        });
        all.push((Role::Active, plugin));
        all.extend(second);
    }
    all
}

/// Whoever reads it has another working directory.
fn from_root(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// See [`ServerHandle::status`](crate::ServerHandle::status).
pub(crate) fn status(chain: &Chain) -> Status {
    let (trials, retired, now) = (chain.trials(), chain.retired(), Instant::now());
    let instance = |role: Role, plugin: &Plugin, per_mille: u16, trial: Option<&Trial>| InstanceStatus {
        role,
        version: plugin.version().to_owned(),
        api_version: plugin.api_version().to_owned(),
        path: plugin.origin().map(|origin| from_root(origin.path())),
        generation: plugin.generation(),
        per_mille,
        connections: plugin.connections(),
        errors_left: plugin.errors_left(),
        probation_left: trial.and_then(|trial| trial.until).map(|until| until.saturating_duration_since(now)),
        stats: plugin.stats(),
    };
    let active = chain.plugins();
    let plugins = active.iter().enumerate().map(|(index, plugin)| {
        let trial = trials.iter().find(|trial| trial.index() == index);
        let share = trial.and_then(|trial| trial.per_mille).unwrap_or(0);
        let mut instances = vec![instance(Role::Active, plugin, 1000 - share, trial.filter(|_| share == 0))];
        match trial {
            Some(trial) if share > 0 => instances.push(instance(Role::Canary, &trial.plugin, share, None)),
            Some(trial) => instances.push(instance(Role::Previous, &trial.previous, 0, None)),
            None => {}
        }
        let retired = retired.iter().filter(|retired| retired.index() == index);
        instances.extend(retired.map(|plugin| instance(Role::Retired, plugin, 0, None)));
        PluginStatus { name: plugin.name().to_owned(), index, instances }
    });
    let plugins = plugins.collect();
    let (mapped_libraries, mapped_bytes) = mapped();
    Status { plugins, mapped_libraries, mapped_bytes }
}
