//! What is logged.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// What is logged: a level, or targets with their levels. Known to be well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Crates that write checkpoints, and say each step of it.
const OF_FILES: [&str; 2] = ["fjall", "lsm_tree"];

impl LogFilter {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For the subscriber. What others' code says of its files, and a person of ours does not ask for, is said from debug on.
    #[must_use]
    pub fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::new(self.with_quiet_files())
    }

    fn with_quiet_files(&self) -> String {
        let parts: Vec<&str> = self.0.split(',').collect();
        let mut filter = self.0.clone();
        if parts.contains(&"info") {
            for target in OF_FILES.iter().filter(|target| !parts.iter().any(|part| part.starts_with(*target))) {
                filter.push_str(&format!(",{target}=warn"));
            }
        }
        filter
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        for part in typed.split(',') {
            // The subscriber would take a misspelt level for a target, and be silent.
            let level = part.rsplit('=').next().unwrap_or(part);
            if !LEVELS.contains(&level) {
                return Err(format!("`{level}` is not a level: expected off, error, warn, info, debug or trace"));
            }
        }
        EnvFilter::try_new(typed).map_err(|error| error.to_string())?;
        Ok(Self(typed.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_lists_are_taken_and_misspelt_levels_are_not() {
        for good in ["off", "info", "trace", "info,host::plugin=debug", "host=trace"] {
            assert!(LogFilter::from_str(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "host=inof", "info,host", "host::plugin="] {
            assert!(LogFilter::from_str(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_said_of_files_needs_debug() {
        for (typed, filter) in [
            ("info", "info,fjall=warn,lsm_tree=warn"),
            ("info,host::plugin=debug", "info,host::plugin=debug,fjall=warn,lsm_tree=warn"),
            ("info,fjall=info", "info,fjall=info,lsm_tree=warn"),
            ("debug", "debug"),
            ("warn", "warn"),
            ("host=trace", "host=trace"),
        ] {
            assert_eq!(LogFilter::from_str(typed).unwrap().with_quiet_files(), filter);
        }
    }
}
