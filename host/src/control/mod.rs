//! The control socket: how the operator speaks to a server that runs.
//!
//! A Unix socket for one user, at a [`Place`]. [`Control::bind`] takes it before the server starts, [`Control::serve`]
//! answers at it; [`ask`] is the other side. What is said is in [`protocol`].
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use host::control::{Control, Place};
//!
//! # fn main() -> Result<(), host::Error> {
//! let control = Control::bind(&Place::Path("/run/my-broker/control.sock".into()))?;
//! let server = Arc::new(host::Server::builder().start()?);
//! let served = control.serve(&server)?; // `host plugins --control /run/my-broker/control.sock` is answered
//! server.wait()?;
//! drop(served);
//! # Ok(())
//! # }
//! ```
//!
//! It cannot slow the server: it has threads of its own, a bounded number of clients, and a bound in time and length for
//! what each of them sends. A plugin's code that is called for it runs on a thread of its own with a deadline.

mod client;
mod error;
mod lines;
mod operations;
mod place;
pub mod protocol;
mod serve;
mod socket;
mod supervised;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::error::Error;
use crate::privileges;
use crate::server::ServerHandle;
use protocol::{Answer, Refusal, Request};
use serve::{Asker, Serving};
use socket::Socket;

pub(crate) use operations::{Configured, configure};
pub(crate) use supervised::Calls;

pub use client::{ask, ask_until};
pub use error::ControlError;
pub use lines::Interrupt;
pub use place::Place;

/// A control socket at which nobody answers yet. Dropping it removes it.
#[derive(Debug)]
pub struct Control(Option<Socket>);

impl Control {
    /// Takes the socket, before the server starts: who asks meanwhile waits.
    ///
    /// A second host of one user starts without one if no place was given: that the default is taken, or cannot be had, is
    /// a warning in the log, and [`Control::path`] is `None`.
    ///
    /// # Errors
    /// A place was given, and cannot be had.
    pub fn bind(place: &Place) -> Result<Self, Error> {
        let socket = place.for_server().and_then(|path| path.map(|path| Socket::bind(&path)).transpose());
        match socket {
            Ok(socket) => {
                if let Some(socket) = &socket {
                    tracing::info!("commands are taken at {}", socket.path().display());
                }
                Ok(Self(socket))
            }
            Err(error) if *place == Place::Default => {
                tracing::warn!("this host has no control socket: {error}");
                Ok(Self(None))
            }
            Err(error) => Err(Error::Control(error)),
        }
    }

    /// Takes the socket over that the process before had, if it is the one that `place` says; else [binds](Self::bind) one.
    ///
    /// # Errors
    /// As for [`Control::bind`].
    pub fn inherit(place: &Place, inherited: Option<Inherited>) -> Result<Self, Error> {
        let Some(Inherited { fd, path }) = inherited else { return Self::bind(place) };
        if place.for_server().is_ok_and(|wanted| wanted.as_ref() == Some(&path)) {
            let system = |source| Error::System { what: "take the control socket over", source };
            return Ok(Self(Some(Socket::inherited(fd, &path).map_err(system)?)));
        }
        Self::bind(place)
    }

    /// Lets a user give commands as which the server is to go on. Only root gives anything away; for others, this does nothing.
    ///
    /// # Errors
    /// There is no such user, or it is root; the operating system refuses.
    pub fn give_to(&self, user: &str) -> Result<(), Error> {
        match (&self.0, privileges::owner(user)?) {
            (Some(socket), Some(owner)) => socket.give_to(owner).map_err(Error::Control),
            _ => Ok(()),
        }
    }

    /// Where it is, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(Socket::path)
    }

    /// Carries out what is asked for, until the result is dropped. It does not keep the server alive.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn serve(self, server: &Arc<ServerHandle>) -> Result<Served, Error> {
        self.serve_with(server, Part)
    }

    /// The same; `program` carries out what is the program's business, such as where a configuration comes from.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn serve_with(self, server: &Arc<ServerHandle>, program: impl Program) -> Result<Served, Error> {
        let Some(socket) = self.0 else { return Ok(Served(None)) };
        let socket = Arc::new(socket);
        // A server that has taken another's place has its name as well.
        socket.set_ours(true);
        server.set_control(Shared(Arc::downgrade(&socket)));
        let server = Arc::downgrade(server);
        let operator = move |request: Request, asker: &Asker<'_>| -> Answer {
            let ending = || Refusal::new("host", "the server is ending");
            let server = server.upgrade().ok_or_else(ending)?;
            match request {
                Request::Reload => program.reload(),
                Request::Upgrade { binary } => program.upgrade(binary),
                request => operations::carry_out(&server, request, asker),
            }
        };
        let started = Serving::start(socket, Arc::new(operator));
        let serving = started.map_err(|source| Error::System { what: "start the control thread", source })?;
        Ok(Served(Some(serving)))
    }
}

/// What the program decides on that a server is part of.
pub trait Program: Send + Sync + 'static {
    /// Carries out [`Request::Reload`].
    fn reload(&self) -> Answer;

    /// Carries out [`Request::Upgrade`], with the program to start, if it was named.
    fn upgrade(&self, binary: Option<String>) -> Answer;
}

impl<P: Program> Program for Arc<P> {
    fn reload(&self) -> Answer {
        (**self).reload()
    }

    fn upgrade(&self, binary: Option<String>) -> Answer {
        (**self).upgrade(binary)
    }
}

/// A server that is part of another program, of which nothing is known.
struct Part;

impl Program for Part {
    fn reload(&self) -> Answer {
        let reason = "this server is part of another program, which has not said where its configuration is";
        Err(Refusal::new("config", reason))
    }

    fn upgrade(&self, _: Option<String>) -> Answer {
        let reason = "this server is part of another program, which has not said how it is started";
        Err(Refusal::new("start", reason))
    }
}

/// A control socket of the process before.
#[derive(Debug)]
pub struct Inherited {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
}

/// A control socket that is served, for the process that takes it over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Weak<Socket>);

impl Shared {
    /// Calls `with` with the socket and its path, if there is one.
    pub(crate) fn show<T>(&self, with: impl FnOnce(Option<(BorrowedFd<'_>, &Path)>) -> T) -> T {
        let socket = self.0.upgrade();
        with(socket.as_ref().map(|socket| (socket.listener.as_fd(), socket.path())))
    }

    /// Says whether its name goes with it from now on, and whether clients are accepted here.
    pub(crate) fn set_ours(&self, is_ours: bool) {
        if let Some(socket) = self.0.upgrade() {
            socket.set_ours(is_ours);
            socket.bell.set_paused(!is_ours);
        }
    }
}

/// A control socket at which commands are taken. Dropping it removes it; commands that have come are carried out.
#[derive(Debug)]
#[must_use = "commands are taken only as long as this lives"]
pub struct Served(Option<Serving>);

impl Served {
    /// Waits until what has come is answered, for `patience` at most.
    pub fn finish(&self, patience: Duration) {
        if let Some(serving) = &self.0 {
            serving.finish(patience);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use super::*;

    /// A directory for one test, removed when this is dropped.
    pub(crate) struct TempDir(PathBuf);

    impl TempDir {
        pub(crate) fn new(name: &str) -> Self {
            let thread = std::thread::current().id();
            let path = std::env::temp_dir().join(format!("host-control-{}-{name}-{thread:?}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory can be made");
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Waits until `condition` holds.
    #[track_caller]
    pub(super) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "not within 20 s: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn server_answers_and_the_socket_does_not_keep_it_alive() {
        let dir = TempDir::new("server");
        let place = Place::Path(dir.path().join("s"));
        let control = Control::bind(&place).unwrap();
        assert_eq!(control.path(), Some(dir.path().join("s").as_path()));
        assert!(matches!(Control::bind(&place), Err(Error::Control(ControlError::InUse { .. }))));
        let server = Arc::new(crate::Server::builder().listen("127.0.0.1:0").workers(1).start().unwrap());
        let served = control.serve(&server).unwrap();
        let ask = || ask(&place, &Request::Version, Duration::from_secs(20));
        assert_eq!(ask().unwrap().unwrap()["pid"], std::process::id());
        Arc::try_unwrap(server).unwrap().stop().unwrap();
        assert_eq!(ask().unwrap().unwrap_err().reason, "the server is ending");
        drop(served);
        assert!(matches!(ask(), Err(ControlError::Unreachable { .. })));
    }

    #[test]
    fn there_may_be_none() {
        assert_eq!(Control::bind(&Place::None).unwrap().path(), None);
    }
}
