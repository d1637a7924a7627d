//! The log: to stderr, for people or for programs.

mod lossy;

use std::io::{IsTerminal, Stderr, Write, stderr};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use lossy::Lossy;

/// How long the program waits at its end for whoever reads the log.
const FINISH: Duration = Duration::from_secs(1);

/// Standard error. Nobody who logs waits for its reader.
static OUTPUT: LazyLock<Lossy<Stderr>> = LazyLock::new(|| Lossy::new(stderr()));

/// What is logged: a level, or targets with their levels. Known to be well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFilter(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

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

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging. Call it once.
///
/// # Errors
/// There is no thread for it.
pub(crate) fn start(filter: &LogFilter, format: LogFormat) -> std::io::Result<()> {
    let filter = EnvFilter::new(&filter.0);
    // What goes wrong with the log must not be reported to the log.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Lines).log_internal_errors(false);
    match format {
        LogFormat::Human => lines.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    let tell =
        |lost| tracing::warn!(lines = lost, "lines of the log are missing here: it is not read as fast as it grows");
    std::thread::Builder::new().name("log".to_owned()).spawn(move || OUTPUT.run(tell))?;
    Ok(())
}

/// Waits a moment for what is still to be written. For the end of the program.
pub(crate) fn finish() {
    OUTPUT.finish(FINISH);
}

/// One event after the other, each as a whole.
struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        OUTPUT.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
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
