//! The configuration of a running host is read anew: by SIGHUP, or `host reload`; and another process takes its place, by SIGUSR2
//! or `host upgrade`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use host::ServerHandle;
use host::config::Config;
use host::control::Program;
use host::control::protocol::{Answer, Refusal};
use host::upgrade::{UpgradeError, UpgradeRequest, upgrade};

use crate::{cli, log, notify};

/// How long a command waits for a reload that is under way.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// A server, and the configuration that it goes by.
pub(crate) struct Reloading {
    server: Weak<ServerHandle>,
    /// Where that came from, if it was a file.
    file: Option<PathBuf>,
    /// Locked while a reload is under way.
    current: Mutex<Config>,
}

impl Reloading {
    pub(crate) fn new(server: &Arc<ServerHandle>, current: Config, file: Option<PathBuf>) -> Self {
        Self { server: Arc::downgrade(server), file, current: Mutex::new(current) }
    }

    /// Reads file, environment and command line again, and changes what can be changed. Logs what came of it. Where a reload is
    /// under way, this one comes behind it.
    pub(crate) fn reload(&self) -> Answer {
        self.reload_with(Ok(self.current.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn reload_with(&self, current: Result<MutexGuard<'_, Config>, Refusal>) -> Answer {
        // What is in it is replaced as a whole.
        let answer = current.and_then(|mut current| self.try_reload(&mut current));
        match &answer {
            Ok(report) => tracing::info!("reloaded: {}", report["summary"].as_str().unwrap_or_default()),
            Err(Refusal { step, plugin, reason }) => {
                tracing::error!(plugin, step, "not reloaded, and nothing has changed: {reason}");
            }
        }
        answer
    }

    /// Has another process take the place of this one; with another program, if it is named. What came of it is in the log.
    pub(crate) fn upgrade(&self, binary: Option<String>) -> Answer {
        let server = self.server.upgrade().ok_or_else(|| Refusal::new("host", "the server is ending"))?;
        let request = UpgradeRequest::of_this_process();
        let mut request = request.map_err(|error| {
            Refusal::new("start", format!("it is not known where this program is: {error}. Name it: --binary FILE"))
        })?;
        if let Some(binary) = binary {
            request.binary = binary.into();
        }
        let done = upgrade(&server, &request, |pid| notify::tell(&notify::main_pid(pid)));
        let report = done.map_err(|UpgradeError { step, reason }| Refusal::new(step.name(), reason))?;
        Ok(report.to_json())
    }

    /// The configuration, once no reload is under way any more; who asks does not wait forever for plugins and for disks.
    fn current(&self, patience: Duration) -> Result<MutexGuard<'_, Config>, Refusal> {
        /// How often it is looked.
        const LOOK: Duration = Duration::from_millis(20);
        let deadline = Instant::now() + patience;
        loop {
            match self.current.try_lock() {
                Ok(current) => return Ok(current),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOOK),
                Err(TryLockError::WouldBlock) => {
                    let reason = "a reload is under way: try again when it has ended";
                    return Err(Refusal::new("config", reason));
                }
            }
        }
    }

    fn try_reload(&self, current: &mut Config) -> Answer {
        self.file.as_deref().map_or(Ok(()), check_file).map_err(|reason| Refusal::new("config", reason))?;
        let server = self.server.upgrade().ok_or_else(|| Refusal::new("host", "the server is ending"))?;
        let wanted = match cli::parse(std::env::args_os(), || std::env::vars_os().collect()) {
            Ok(cli::Config::Run(run)) => run.config,
            Ok(_) => return Err(Refusal::new("config", "the command line is not that of a server any more")),
            Err(wrong) => {
                let reason = wrong.to_string();
                return Err(Refusal::new("config", reason.trim_end().trim_start_matches("error: ")));
            }
        };
        let (next, report) = server.reload(current, &wanted)?;
        log::set_level(&next.log.level);
        *current = next;
        Ok(report.to_json())
    }
}

/// A file can be read again. What was read once at the start, such as a pipe, would be waited for or be empty now.
fn check_file(file: &Path) -> Result<(), String> {
    match std::fs::metadata(file) {
        Ok(found) if !found.is_file() => Err(format!(
            "the configuration {} is no file that can be read again, but a pipe, a device or a directory: name a file with \
             --config, and restart the host",
            file.display()
        )),
        // Whoever reads it says what is wrong.
        _ => Ok(()),
    }
}

impl Program for Reloading {
    fn reload(&self) -> Answer {
        self.reload_with(self.current(UNDER_WAY))
    }

    fn upgrade(&self, binary: Option<String>) -> Answer {
        self.upgrade(binary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_does_not_wait_forever_for_a_reload_that_is_under_way() {
        let reloading = Reloading { server: Weak::new(), file: None, current: Mutex::default() };
        let under_way = reloading.current(Duration::ZERO).unwrap();
        let refusal = reloading.current(Duration::from_millis(30)).unwrap_err();
        assert_eq!((refusal.step.as_str(), &refusal.reason[..23]), ("config", "a reload is under way: "));
        drop(under_way);
        assert!(reloading.current(Duration::ZERO).is_ok());
    }
}
