//! What is logged.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// What is logged: a level, or targets with their levels. Known to be well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Others' crates that say more than a person wants to know, the level that they get, and at which levels of the log: those that
/// write checkpoints say each step of it, and with what TLS warns of, whoever connects could fill the log.
const QUIET: [(&str, &str, &[&str]); 3] =
    [("fjall", "warn", &["info"]), ("lsm_tree", "warn", &["info"]), ("rustls", "error", &["info", "warn"])];

impl LogFilter {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For the subscriber. What others' code says, and a person of ours does not ask for, is said from debug on.
    #[must_use]
    pub fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::new(self.with_quiet_crates())
    }

    fn with_quiet_crates(&self) -> String {
        let parts: Vec<&str> = self.0.split(',').collect();
        let mut filter = self.0.clone();
        for (target, level, at) in QUIET {
            let is_loud = parts.iter().any(|part| at.contains(part));
            if is_loud && !parts.iter().any(|part| part.starts_with(target)) {
                filter.push_str(&format!(",{target}={level}"));
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
    fn what_others_say_needs_debug() {
        for (typed, filter) in [
            ("info", "info,fjall=warn,lsm_tree=warn,rustls=error"),
            ("info,host::plugin=debug", "info,host::plugin=debug,fjall=warn,lsm_tree=warn,rustls=error"),
            ("info,fjall=info", "info,fjall=info,lsm_tree=warn,rustls=error"),
            ("info,rustls=warn", "info,rustls=warn,fjall=warn,lsm_tree=warn"),
            ("debug", "debug"),
            ("warn", "warn,rustls=error"),
            ("host=trace", "host=trace"),
        ] {
            assert_eq!(LogFilter::from_str(typed).unwrap().with_quiet_crates(), filter);
        }
    }
}
