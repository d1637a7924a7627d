//! What is logged.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// What is logged: a level, or targets with their levels. Known to be well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl LogFilter {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For the subscriber.
    #[must_use]
    pub fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
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
}
