//! Why a server did not start, or did not end well.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::control::ControlError;
use crate::limits::LimitError;
use crate::listener::{ListenerUrl, UrlError};
use crate::plugin::LoadError;
use crate::privileges::PrivilegesError;

/// Why a server did not start, or did not end well. The text says what was found, what was expected and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// What a listener's URL should be is none.
    Url(UrlError),
    /// The settings of a listener do not fit together, or a file that they name is of no use.
    Listener {
        /// Its name.
        name: String,
        /// What was got, what is expected, and what to do.
        what: String,
    },
    /// A listener could not be opened.
    Listen {
        /// Its address.
        addr: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// A listener would be reached from other machines, and nobody decides who may connect.
    NobodyDecides {
        /// The listener's name.
        name: String,
        /// Where it listens. If only this machine reaches that, a proxy on it passes others on.
        url: ListenerUrl,
    },
    /// The server cannot go on as the user that was named.
    Privileges(PrivilegesError),
    /// The number of workers is out of bounds.
    Workers {
        /// What was given.
        got: usize,
    },
    /// A bound is out of its range.
    Limits(LimitError),
    /// A plugin could not be loaded.
    Plugin(LoadError),
    /// The control socket cannot be had.
    Control(ControlError),
    /// What outlives the server cannot be kept, or what was kept cannot be had.
    Store {
        /// What was found, what was expected and what to do.
        what: String,
    },
    /// What plugins are asked cannot be written down.
    Recording {
        /// The file.
        path: std::path::PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The operating system refused what a worker needs.
    System {
        /// What was to be done.
        what: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server has stopped, and not all that is to outlive it could be kept.
    NotKept {
        /// What was found, and what to do.
        what: String,
    },
    /// It was to take another process's place, and has not: that one goes on. Says why.
    Upgrade(String),
    /// The start was left, by its [`Door`](crate::Door).
    Interrupted,
    /// A worker failed; the log says how. The server has stopped.
    WorkerFailed,
    /// The workers or the plugins did not stop in time, most probably because a plugin does not return from a callback,
    /// `stop` or its `Drop`. Their threads are left to themselves.
    StopTimeout {
        /// How long they were waited for, in seconds.
        secs: u64,
    },
}

impl Error {
    /// Whether the server never started: what was asked for is at fault, rather than the server.
    #[must_use]
    pub fn is_not_started(&self) -> bool {
        !matches!(self, Self::WorkerFailed | Self::StopTimeout { .. } | Self::NotKept { .. })
    }
}

impl From<LimitError> for Error {
    fn from(error: LimitError) -> Self {
        Self::Limits(error)
    }
}

impl From<UrlError> for Error {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

impl From<PrivilegesError> for Error {
    fn from(error: PrivilegesError) -> Self {
        Self::Privileges(error)
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        Self::Plugin(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::Listener { name, what } => write!(f, "cannot listen at {name}: {what}"),
            Self::Listen { addr, source } => {
                write!(f, "cannot listen on {addr}: {source}. {}", listen_hint(*addr, source))
            }
            Self::NobodyDecides { name, url } => nobody_decides(f, name, url),
            Self::Privileges(error) => write!(f, "cannot go on as another user: {error}"),
            Self::Workers { got } => {
                let range = crate::Server::WORKERS;
                write!(f, "{got} workers are not possible: expected {} to {}", range.start(), range.end())
            }
            Self::Limits(error) => error.fmt(f),
            Self::Plugin(error) => error.fmt(f),
            Self::Control(error) => error.fmt(f),
            Self::Store { what } => write!(f, "cannot keep what is to outlive the server: {what}"),
            Self::NotKept { what } => write!(f, "not all that is to outlive the server could be kept: {what}"),
            Self::Recording { path, source } => write!(f, "cannot record into {}: {source}", path.display()),
            Self::System { what, source } => write!(f, "cannot {what}: {source}"),
            Self::Upgrade(why) => write!(f, "this process does not take the other one's place, which goes on: {why}"),
            Self::Interrupted => f.write_str("the start was interrupted"),
            Self::WorkerFailed => f.write_str("a worker has failed, and the server has stopped; the log says how"),
            Self::StopTimeout { secs } => write!(
                f,
                "the server has not stopped within {secs} s, most probably because a plugin does not return from a callback, \
                 `stop` or its `Drop`"
            ),
        }
    }
}

fn nobody_decides(f: &mut fmt::Formatter<'_>, name: &str, url: &ListenerUrl) -> fmt::Result {
    const LOAD: &str = "and no plugin decides who may connect. Load a plugin with handle_connect or handle_auth";
    match url.addr().filter(|_| !url.is_local()) {
        Some(addr) => write!(
            f,
            "will not listen at {name}: other machines can reach it, {LOAD}, listen on 127.0.0.1:{port} or [::1]:{port}, or \
             allow everybody with --allow-anonymous",
            port = addr.port()
        ),
        None => write!(
            f,
            "will not listen at {name}: other machines can reach it through the proxies of its proxy_from, {LOAD}, or allow \
             everybody with --allow-anonymous"
        ),
    }
}

fn listen_hint(addr: SocketAddr, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "Another program (or another host) listens there: stop it, or take another port; `ss -ltnp 'sport = :{}'` shows it",
            addr.port()
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "Ports below 1024 need the capability CAP_NET_BIND_SERVICE, which the user with uid {} does not have here: take \
                 a higher one, such as 1883, or start host as root with --user NAME. If it was started so, it opens such a \
                 port only when it is started anew",
                rustix::process::geteuid().as_raw()
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            "This machine does not have that address: `ip address` shows those it has".to_owned()
        }
        _ => "Expected an address of this machine and a free port".to_owned(),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::System { source, .. } | Self::Recording { source, .. } => Some(source),
            _ => None,
        }
    }
}
