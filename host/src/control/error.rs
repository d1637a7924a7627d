//! Why there is no control socket, or why nobody answered at it.

use std::fmt;
use std::path::PathBuf;

/// Why there is no control socket, or why nobody answered at it. The text says what was found, what was expected and what
/// to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// The path does not fit into the address of a socket.
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        bytes: usize,
        /// How many there may be.
        max: usize,
    },
    /// The directory of the default socket cannot be made or trusted.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Somebody listens there already.
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// There is something else than a socket.
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refuses the socket.
    Bind {
        /// The path.
        path: PathBuf,
        /// What it says.
        reason: String,
    },
    /// No host can be reached, at none of these paths.
    Unreachable {
        /// Each path, and what happened there.
        tried: Vec<(PathBuf, String)>,
    },
    /// Somebody listens there who is not to be told anything, or is no host.
    Stranger {
        /// The path.
        path: PathBuf,
        /// What is strange.
        reason: String,
    },
    /// The host there speaks another version of the protocol.
    OtherVersion {
        /// The path.
        path: PathBuf,
        /// The program's version there.
        host: String,
        /// The version of the protocol there.
        found: u64,
        /// The version of this program.
        expected: u64,
    },
    /// The request was sent, and there was no answer in time, or none that could be read. What it asked for may happen.
    NoAnswer {
        /// The path.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

impl ControlError {
    /// Whether the request may have been carried out: it was sent, and what became of it is not known.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        matches!(self, Self::NoAnswer { .. })
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { path, bytes, max } => write!(
                f,
                "the path of the control socket {} has {bytes} bytes, and a socket's may have at most {max}: take a shorter \
                 one with --control PATH, or --control none",
                path.display()
            ),
            Self::Directory { path, reason } => write!(
                f,
                "the directory of the control socket {} cannot be used: {reason}. Remove it, say where the socket is to be \
                 with --control PATH, or do without it: --control none",
                path.display()
            ),
            Self::InUse { path } => write!(
                f,
                "another host has the control socket {}. Give each host its own with --control PATH, and the same one to \
                 the commands for that host",
                path.display()
            ),
            Self::NotASocket { path } => write!(
                f,
                "the control socket cannot be made at {}: there is something else, which is left alone. Take another path \
                 with --control PATH, or remove what is there",
                path.display()
            ),
            Self::Bind { path, reason } => write!(
                f,
                "cannot make the control socket {}: {reason}. Expected a path in a directory that is there and that this \
                 user may write to: --control PATH, or --control none",
                path.display()
            ),
            Self::Unreachable { tried } => {
                f.write_str("no host can be reached: ")?;
                for (place, (path, reason)) in tried.iter().enumerate() {
                    write!(f, "{}{}: {reason}", if place == 0 { "" } else { "; " }, path.display())?;
                }
                f.write_str(
                    ". Is it running, as this user, and with a control socket (its log says which)? Where it is not the \
                     default: --control PATH",
                )
            }
            Self::Stranger { path, reason } => write!(
                f,
                "nothing was asked at {}: {reason}. Expected the control socket of a host: give its path with --control",
                path.display()
            ),
            Self::OtherVersion { path, host, found, expected } => write!(
                f,
                "the host at {} is version {host} and speaks version {found} of the control protocol, and this program \
                 version {expected}: use the program that the host was started with",
                path.display()
            ),
            Self::NoAnswer { path, reason } => write!(
                f,
                "the host at {} was asked, but {reason}. It may have done it, or do it yet: `host plugins` shows how things \
                 are; --timeout waits longer",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ControlError {}
