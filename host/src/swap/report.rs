//! What a swap has done, or why it did not take place.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::plugin::{Busy, LoadError, Plugin};

/// What a swap, a promotion or a rollback has done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwapReport {
    /// The plugin's name.
    pub name: String,
    /// Its file; `None` if it is linked in.
    pub path: Option<PathBuf>,
    /// The name of the one that decided before: another one, where the swap has said whom it replaces.
    pub from_name: String,
    /// The version that decided before.
    pub from_version: String,
    /// The version that decides now.
    pub version: String,
    /// Which instance of a plugin of this server it is; those that were there at the start have 1.
    pub generation: u64,
    /// The share of the connections that it has, per mille: 1000 for all.
    pub per_mille: u16,
    /// From the beginning to the moment from which packets are the new instance's.
    pub flip: Duration,
    /// From there until the last connection had gone over; `None` if that was not waited for, or took too long.
    pub migration: Option<Duration>,
    /// Connections that stay with the old instance until they have ended an exchange, or got an answer.
    pub late: usize,
    /// It has used up its error budget while the connections went over, and the one before decides again.
    pub is_rolled_back: bool,
}

impl SwapReport {
    /// One instance has taken another's place for all connections, which took so long until then, and they go over.
    pub(super) fn new(from: &Plugin, to: &Plugin, flip: Duration) -> Self {
        Self {
            name: to.name().to_owned(),
            path: to.origin().map(|origin| origin.path().to_owned()),
            from_name: from.name().to_owned(),
            from_version: from.version().to_owned(),
            version: to.version().to_owned(),
            generation: to.generation(),
            per_mille: 1000,
            flip,
            migration: None,
            late: 0,
            is_rolled_back: false,
        }
    }

    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "plugin": self.name,
            "path": self.path,
            "from_plugin": self.from_name,
            "from_version": self.from_version,
            "version": self.version,
            "generation": self.generation,
            "share_per_mille": self.per_mille,
            "flip_ms": milliseconds(self.flip),
            "migration_ms": self.migration.map(milliseconds),
            "late_connections": self.late,
            "rolled_back": self.is_rolled_back,
        })
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    // To the microsecond: more says nothing.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl fmt::Display for SwapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, from_name, from_version, version, generation, per_mille, late, .. } = self;
        let from = if from_name == name { from_version } else { &format!("{from_name} {from_version}") };
        write!(f, "plugin {name}: {version} (generation {generation}) in the place of {from}")?;
        if *per_mille < 1000 {
            write!(f, " for {} % of the connections", f64::from(*per_mille) / 10.0)?;
        }
        write!(f, ", {} ms to the flip", milliseconds(self.flip))?;
        match self.migration {
            Some(took) => write!(f, ", {} ms to the last connection", milliseconds(took))?,
            None => f.write_str(", some connections have not gone over yet")?,
        }
        if *late > 0 {
            write!(f, " but {late} that wait for something")?;
        }
        if self.is_rolled_back {
            write!(f, "; it has used up its error budget, and {from} decides again: the log has its errors")?;
        }
        Ok(())
    }
}

/// Where a swap has failed. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwapStep {
    /// Nothing can be swapped now: see the reason.
    Begin,
    /// The file could not be read.
    Copy,
    /// It is not a library that can be loaded.
    Load,
    /// It does not fit this host.
    Abi,
    /// No plugin has the name, or two would have one name.
    Name,
    /// Its configuration is not JSON.
    Config,
    /// Its `init` refused or panicked.
    Init,
    /// The state of the plugin as a whole could not be handed over.
    State,
    /// There is a canary in the way, or nothing on trial.
    Flip,
}

impl SwapStep {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Copy => "copy",
            Self::Load => "load",
            Self::Abi => "abi",
            Self::Name => "name",
            Self::Config => "config",
            Self::Init => "init",
            Self::State => "state",
            Self::Flip => "flip",
        }
    }
}

/// Why a swap did not take place. The plugin that runs has not been touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapError {
    /// How far it got.
    pub step: SwapStep,
    /// The plugin's name, as far as it was known.
    pub plugin: Option<String>,
    /// What was found, what was expected, what to do.
    pub reason: String,
}

impl SwapError {
    pub(super) fn new(step: SwapStep, plugin: Option<&str>, reason: impl fmt::Display) -> Self {
        Self { step, plugin: plugin.map(str::to_owned), reason: reason.to_string() }
    }

    pub(crate) fn no_thread(plugin: Option<&str>, error: &std::io::Error) -> Self {
        Self::new(SwapStep::Begin, plugin, format_args!("a thread cannot be started: {error}"))
    }

    pub(crate) fn busy(plugin: Option<&str>, busy: &Busy) -> Self {
        let step = match busy {
            Busy::Stopping | Busy::Changing | Busy::DryRun => SwapStep::Begin,
            Busy::Canary(_) | Busy::NoTrial(_) | Busy::Several(_) => SwapStep::Flip,
        };
        Self::new(step, plugin, busy)
    }

    pub(super) fn load(plugin: Option<&str>, error: &LoadError) -> Self {
        let step = match error {
            LoadError::NotFound { .. } | LoadError::Unreadable { .. } => SwapStep::Copy,
            LoadError::NotALibrary { .. } | LoadError::NoEntrySymbol { .. } => SwapStep::Load,
            LoadError::OtherVersion { .. }
            | LoadError::OtherLayout { .. }
            | LoadError::BadName { .. }
            | LoadError::BlocksDeliveries { .. }
            | LoadError::PanicAbort { .. } => SwapStep::Abi,
            LoadError::BadConfig { .. } | LoadError::ConfigRefused { .. } | LoadError::NoSchema { .. } => {
                SwapStep::Config
            }
            LoadError::InitRefused { .. } | LoadError::InitPanicked { .. } => SwapStep::Init,
            LoadError::DuplicateName { .. } | LoadError::TooManyPlugins { .. } => SwapStep::Name,
        };
        Self::new(step, plugin, error)
    }

    /// The error as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "step": self.step.name(), "plugin": self.plugin, "reason": self.reason })
    }
}

impl fmt::Display for SwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing was swapped ({}): {}", self.step.name(), self.reason)
    }
}

impl std::error::Error for SwapError {}
