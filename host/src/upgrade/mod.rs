//! Another process takes the place of one that runs, with its listening sockets and its connections, and no client notices.
//!
//! ```text
//! predecessor                                            successor
//!   starts it, with one end of a pair of Unix sockets ──→  as its standard input
//!                      ←── hello: magic, version ──────────
//!   ─── welcome: clock, plugins, sockets that listen ────→  opens what is new, loads plugins, starts workers
//!                      ←── ready ──────────────────────────
//!   workers stop reading, do what is left to do
//!   ─── state: retained, values, plugins, clients ───────→  workers take in what is theirs
//!   ─── end, with the number of connections ─────────────→
//!                      ←── taken ──────────────────────────
//!   ─── go ──────────────────────────────────────────────→
//!   lets go            ←── begun ──────────────────────────  serves
//!   closes its store ─── closed ─────────────────────────→  can make checkpoints
//! ```
//!
//! **Who serves** is never in doubt: the predecessor, until the successor has said `begun`, which it does only when it was told
//! `go`, and the successor from then on. What goes wrong before that, a step that takes too long or a successor that dies,
//! leaves the predecessor serving with all that it has: nothing that it tells changes it, and the successor sends nothing to
//! anybody, accepts nobody and writes nothing. Where a successor is silent in the end, it is killed first. The error names the
//! [step](UpgradeStep). Whatever a successor has done outside of itself until then, as a plugin's `init` may, stays done.
//!
//! **What goes over**: connections over TCP and Unix sockets, at any point of their lives: what has come of a packet, what
//! has not been sent, Topic Aliases both ways, Keep Alive, wills; sessions, with a connection or without, whatever their expiry:
//! subscriptions, queues, messages in flight both ways with their Packet Identifiers, delayed wills; retained messages; values
//! that plugins keep in the server, their timers; what is counted, rates, and addresses that are turned away; and the plugins' states, as in a [swap](crate::ServerHandle::swap): by
//! `export_state` and `import_state`, else with `new_connection` and `handle_swapped`. Times are moments of the server's clock,
//! which goes on. An image of a client is written by [`core`](crate::core), see there; it is not what is stored on disk, as it
//! has more in it and need not outlive the two processes: they speak the newest [version](VERSION)
//! of this that both know.
//!
//! **A data directory** has one writer at a time. The predecessor has everything written that is to be kept, tells where its files
//! end, and writes nothing from then on; the successor begins a new segment there, with its first journal. So nothing is read
//! for it: the sessions come as they do without a directory, with the numbers by which the store knows them. Both have its lock
//! meanwhile. What checkpoints are made of is read from the files once the predecessor has closed them, while the successor serves.
//!
//! **What does not**: connections with TLS, WebSocket or QUIC, whose state is in libraries that do not give it away. Once the
//! successor is ready they are told 0x8B and closed, and their sessions go over, so that they find them when they connect
//! again: that succeeds at once, even if the upgrade does not. So do connections whose plugin has not answered a question
//! within a bound. Wills that a plugin has not decided about by then are waited for as when the server stops: a second, and another
//! one if the question was about something else before; behind that they are refused, and the log says that the plugin is late.
//! Handshakes under way are cut off. Metrics of plugins begin anew.
//!
//! **What plugins ask for** from threads of their own meanwhile waits, for a second at most, and is refused afterwards: by then their
//! other instances have begun. What was taken before goes over.
//!
//! **What stops**: nothing is read for as long as it takes to tell everything, a bound at most; clients wait in the kernel.
//! Connections that are made meanwhile wait to be accepted, by sockets that are never closed.
//!
//! The successor has the arguments, the environment and the directory of its predecessor, so it reads the configuration anew: it
//! may have other plugins, in another order, bounds, listeners, and another number of workers. What belongs to a plugin, such as a
//! message that it has sent with a token, is its own by its name.

mod channel;
mod letters;
mod predecessor;
mod successor;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

pub use self::predecessor::upgrade;
pub use self::successor::Successor;

/// The newest version of what two processes tell each other that this one speaks. They speak the newest that both do.
pub const VERSION: u16 = 2;

/// The oldest version that this one speaks.
pub const OLDEST: u16 = 2;

/// The variable by which a process knows that it is to take another one's place: the number (`st_ino`) of the socket that is its
/// standard input then. Programs that are started by it or by plugins may have the variable as well, but not the socket.
pub const VARIABLE: &str = "HOST_UPGRADE_FROM";

/// What is to be started, and how long it may take.
#[derive(Debug, Clone)]
pub struct UpgradeRequest {
    /// The program.
    pub binary: PathBuf,
    /// Its arguments, without its name.
    pub args: Vec<OsString>,
    /// How long it may take until it is ready: with its plugins loaded and initialised.
    pub ready_within: Duration,
    /// How long nothing is read at most.
    pub paused_at_most: Duration,
}

impl UpgradeRequest {
    /// How long a successor may take to get ready unless it is said otherwise.
    pub const READY_WITHIN: Duration = Duration::from_secs(60);

    /// How long nothing is read at most unless it is said otherwise.
    pub const PAUSED_AT_MOST: Duration = Duration::from_secs(30);

    /// This process's own program, as it is in the file system now, with its own arguments.
    ///
    /// # Errors
    /// The system does not say where it is.
    pub fn of_this_process() -> io::Result<Self> {
        let running = std::env::current_exe()?;
        // Where the file was replaced, the system says that the one that runs has gone; the new one is there.
        let binary = match running.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
            Some(path) => PathBuf::from(path),
            None => running,
        };
        Ok(Self {
            binary,
            args: std::env::args_os().skip(1).collect(),
            ready_within: Self::READY_WITHIN,
            paused_at_most: Self::PAUSED_AT_MOST,
        })
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeReport {
    /// The successor's process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Connections that have gone over.
    pub connections: usize,
    /// Connections that could not, and have been told to come again.
    pub closed: usize,
    /// For how long nothing was read.
    pub paused: Duration,
    /// How long it took in all.
    pub took: Duration,
}

impl UpgradeReport {
    /// As it stands in an answer.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        json!({
            "pid": self.pid,
            "host": self.version,
            "connections": self.connections,
            "closed": self.closed,
            "paused_ms": milliseconds(self.paused),
            "took_ms": milliseconds(self.took),
            "summary": self.to_string(),
        })
    }
}

impl fmt::Display for UpgradeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, version, connections, closed, paused, took } = self;
        write!(
            f,
            "process {pid} (host {version}) serves {connections} connections now; {closed} had to connect again; nothing was \
             read for {paused:.1?}, and it took {took:.1?}"
        )
    }
}

/// The steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeStep {
    /// The successor is started.
    Start,
    /// It says which version it speaks.
    Hello,
    /// It gets what listens, reads its configuration, and loads its plugins.
    Ready,
    /// The workers stop reading.
    Settle,
    /// Everything is told.
    State,
    /// The successor has taken it in.
    Taken,
    /// It begins to serve.
    Go,
}

impl UpgradeStep {
    /// Its name in answers and in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Hello => "hello",
            Self::Ready => "ready",
            Self::Settle => "settle",
            Self::State => "state",
            Self::Taken => "taken",
            Self::Go => "go",
        }
    }
}

/// Why there was no upgrade. Whoever served goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeError {
    /// Where it failed.
    pub step: UpgradeStep,
    /// What was got, what was expected, and what to do.
    pub reason: String,
}

impl UpgradeError {
    fn new(step: UpgradeStep, reason: impl Into<String>) -> Self {
        Self { step, reason: reason.into() }
    }
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not upgraded, at the step `{}`: {}", self.step.name(), self.reason)
    }
}

impl std::error::Error for UpgradeError {}
