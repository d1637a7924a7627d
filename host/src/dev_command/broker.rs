//! The broker: a child process, which is asked to swap.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use host::SwapRequest;
use host::control::protocol::{Request, Swap};
use host::control::{Place, ask};
use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};

/// The variable by which the broker knows whose child it is: it does not outlive that one.
const VARIABLE: &str = "HOST_DEV_PARENT";

/// How long an answer may take beside what the plugin takes to get ready.
const BESIDES: Duration = Duration::from_secs(30);

/// The broker, running.
#[derive(Debug)]
pub(super) struct Broker(OwnedFd);

impl Broker {
    /// Starts it. To be called on the program's first thread: it ends with the thread that has started it.
    pub(super) fn start(
        library: &Path,
        options: &[OsString],
        place: &Path,
        ended: impl FnOnce(ExitStatus) + Send + 'static,
    ) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--plugin").arg(library).args(options).env(VARIABLE, std::process::id().to_string());
        // The option counts before the environment and a file; where it was typed, that is what it says already.
        if !options.iter().any(|option| option.to_string_lossy().split('=').next() == Some("--control")) {
            command.arg("--control").arg(place);
        }
        // Signals of the terminal come to us, and are handed on once.
        let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        let broker = Self(pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?);
        std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
            if let Ok(status) = child.wait() {
                ended(status);
            }
        })?;
        Ok(broker)
    }

    /// Sends it a signal, if it still runs.
    pub(super) fn signal(&self, signal: Signal) {
        // That it has ended is told by the thread that waits for it.
        let _ = pidfd_send_signal(&self.0, signal);
    }
}

/// Where the broker is to be reached: where its options say, or where every host of this user is, if there is none, or else at
/// a socket of its own.
pub(super) fn place(control: &Place) -> Result<PathBuf, String> {
    let path = control.for_server().map_err(|error| error.to_string())?;
    let path = path.ok_or_else(|| "host dev swaps at the control socket".to_owned())?;
    if *control == Place::Default && UnixStream::connect(&path).is_ok() {
        return Ok(path.with_file_name(format!("host-dev-{}.sock", std::process::id())));
    }
    Ok(path)
}

/// Asks the broker at `place` to put the library into the place of its earlier self. Returns what decides now, or why it has not
/// done it.
pub(super) fn swap(place: &Path, library: &Path, config: &str) -> Result<String, String> {
    let plugin = library.to_str().ok_or_else(|| format!("the path {library:?} is not UTF-8"))?.to_owned();
    // Whoever writes it wants to see its errors, and not the version before.
    let swap = Swap { plugin, config: Some(config.to_owned()), probation: Some(Duration::ZERO), ..Swap::default() };
    let answer = ask(&Place::Path(place.into()), &Request::Swap(swap), SwapRequest::READY_WITHIN + BESIDES);
    match answer {
        Ok(Ok(result)) => {
            let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
            Ok(format!("{} {} (generation {})", text("plugin"), text("version"), result["generation"]))
        }
        Ok(Err(refusal)) => Err(format!("{} (step {})", refusal.reason, refusal.step)),
        Err(error) => Err(error.to_string()),
    }
}

/// Has this process end when the one ends that has started it, if that is `host dev`.
pub(crate) fn end_with_parent() {
    let parent = std::env::var(VARIABLE).ok().and_then(|pid| pid.parse().ok());
    // A process that a plugin starts has the variable as well, and so has one that takes the broker's place.
    if parent.is_some() && getppid().map(|pid| pid.as_raw_nonzero().get()) == parent {
        // Without it, the broker outlives a developer's tool that was killed: nothing to refuse a start for.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
}
