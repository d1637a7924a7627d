//! The configuration of a running host is read anew: by SIGHUP, or `host reload`; and another process takes its place, by SIGUSR2
//! or `host upgrade`.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use host::ServerHandle;
use host::config::Config;
use host::control::Program;
use host::control::protocol::{Answer, Refusal};
use host::upgrade::{UpgradeError, UpgradeRequest, upgrade};

use crate::{cli, log, notify};

/// A server, and the configuration that it goes by.
pub(crate) struct Reloading {
    server: Weak<ServerHandle>,
    current: Mutex<Config>,
}

impl Reloading {
    pub(crate) fn new(server: &Arc<ServerHandle>, current: Config) -> Self {
        Self { server: Arc::downgrade(server), current: Mutex::new(current) }
    }

    /// Reads file, environment and command line again, and changes what can be changed. Logs what came of it.
    pub(crate) fn reload(&self) -> Answer {
        let answer = self.try_reload();
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

    fn try_reload(&self) -> Answer {
        // What is in it is replaced as a whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let server = self.server.upgrade().ok_or_else(|| Refusal::new("host", "the server is ending"))?;
        let wanted = match cli::parse(std::env::args_os(), || std::env::vars_os().collect()) {
            Ok(cli::Config::Run(run)) => run.config,
            Ok(_) => return Err(Refusal::new("config", "the command line is not that of a server any more")),
            Err(wrong) => {
                let reason = wrong.to_string();
                return Err(Refusal::new("config", reason.trim_end().trim_start_matches("error: ")));
            }
        };
        let (next, report) = server.reload(&current, &wanted)?;
        log::set_level(&next.log.level);
        *current = next;
        Ok(report.to_json())
    }
}

impl Program for Reloading {
    fn reload(&self) -> Answer {
        self.reload()
    }

    fn upgrade(&self, binary: Option<String>) -> Answer {
        self.upgrade(binary)
    }
}
