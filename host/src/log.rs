//! The log: to stderr, for people or for programs.

mod lossy;

use std::borrow::Cow;
use std::io::{IsTerminal, Stderr, Write, stderr};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use host::config::{LogFilter, LogFormat, LogKeys};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use lossy::Lossy;

/// How long the program waits at its end for whoever reads the log.
const FINISH: Duration = Duration::from_secs(1);

/// Standard error. Nobody who logs waits for its reader.
static OUTPUT: LazyLock<Lossy<Stderr>> = LazyLock::new(|| Lossy::new(stderr()));

/// Changes what is logged, once there is a log.
static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();

type SetLevel = Box<dyn Fn(&LogFilter) + Send + Sync>;

/// Starts logging. Call it once.
///
/// # Errors
/// There is no thread for it.
pub(crate) fn start(keys: &LogKeys) -> std::io::Result<()> {
    let filter = keys.level.to_env_filter();
    // What goes wrong with the log must not be reported to the log.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Lines).log_internal_errors(false);
    match keys.format {
        LogFormat::Human => {
            let lines = lines.with_writer(|| OneLine).with_ansi(stderr().is_terminal()).with_filter_reloading();
            keep(lines.reload_handle());
            lines.init();
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            keep(lines.reload_handle());
            lines.init();
        }
    }
    let tell =
        |lost| tracing::warn!(lines = lost, "lines of the log are missing here: it is not read as fast as it grows");
    std::thread::Builder::new().name("log".to_owned()).spawn(move || OUTPUT.run(tell))?;
    Ok(())
}

fn keep<S: 'static>(handle: Handle<EnvFilter, S>) {
    // It fails where there is a log already, of which `init` complains.
    let _ = SET_LEVEL.set(Box::new(move |level| {
        // It fails when the program ends.
        let _ = handle.reload(level.to_env_filter());
    }));
}

/// Logs something else from now on.
pub(crate) fn set_level(level: &LogFilter) {
    if let Some(set) = SET_LEVEL.get() {
        set(level);
    }
}

/// For people, with this level.
pub(crate) fn keys_with(level: &LogFilter) -> LogKeys {
    let mut keys = LogKeys::default();
    keys.level.clone_from(level);
    keys
}

/// Waits a moment for what is still to be written. For the end of the program.
pub(crate) fn finish() {
    OUTPUT.finish(FINISH);
}

/// One event after the other, each as a whole.
struct Lines;

/// The same, and each is one line, whatever plugins and clients make it say: nobody writes lines in another's name.
struct OneLine;

impl Write for OneLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        OUTPUT.put(&in_one_line(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An event with the line breaks that stand in it as `\n` and `\r`, but for the one at its end.
fn in_one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let line = event.strip_suffix(b"\n").unwrap_or(event);
    if !line.iter().any(|byte| b"\n\r".contains(byte)) {
        return Cow::Borrowed(event);
    }
    let mut escaped = Vec::with_capacity(event.len() + 16);
    for byte in line {
        match byte {
            b'\n' => escaped.extend(b"\\n"),
            b'\r' => escaped.extend(b"\\r"),
            other => escaped.push(*other),
        }
    }
    escaped.extend(&event[line.len()..]);
    Cow::Owned(escaped)
}

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
    fn an_event_is_one_line() {
        let check = |event: &str, line: &str| assert_eq!(in_one_line(event.as_bytes()), line.as_bytes());
        check("INFO hello\n", "INFO hello\n");
        check("INFO hello, c\nWARN all is lost\r\n\n", "INFO hello, c\\nWARN all is lost\\r\\n\n");
        check("", "");
    }
}
