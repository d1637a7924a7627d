//! The socket itself: made for one user, in the place of one that nobody listens at any more, and reached in bounded time.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::geteuid;

use super::error::ControlError;
use crate::privileges::Owner;
use crate::unix_socket::{self, BindError, PAUSE, UnixSocket, try_connect};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 16;

/// How long the thread that accepts may take to notice that it is to stop for a time.
const HEEDED_WITHIN: Duration = Duration::from_secs(1);

/// The user that may do everything.
const ROOT: u32 = 0;

/// Nobody but its user may connect.
const MODE: u32 = 0o600;

/// A socket that listens. Its name goes when it is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    /// The same one, with its name.
    named: UnixSocket,
    /// How the thread that accepts is told something.
    pub(super) bell: Bell,
}

/// Whether anybody is accepted, for a thread that waits for clients.
#[derive(Debug)]
pub(super) struct Bell {
    ours: UnixStream,
    theirs: UnixStream,
    is_paused: AtomicBool,
    /// The thread has seen that.
    is_heeded: AtomicBool,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        Ok(Self { ours, theirs, is_paused: AtomicBool::default(), is_heeded: AtomicBool::default() })
    }

    /// The thread is to end.
    pub(super) fn end(&self) {
        let _ = self.ours.shutdown(Shutdown::Both);
    }

    /// Nobody is accepted any more when this returns, or again.
    pub(super) fn set_paused(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Release);
        // Where it cannot be written the thread has ended.
        let _ = (&self.ours).write(b"!");
        let deadline = Instant::now() + HEEDED_WITHIN;
        while self.is_heeded.load(Ordering::Acquire) != is_paused && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits for a client of `listener`. `false`: the thread is to end.
    pub(super) fn wait(&self, listener: &UnixListener) -> bool {
        loop {
            let is_paused = self.is_paused.load(Ordering::Acquire);
            self.is_heeded.store(is_paused, Ordering::Release);
            let mut both = [PollFd::new(&self.theirs, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
            let count = if is_paused { 1 } else { 2 };
            // If it fails, accepting says so.
            let _ = poll(&mut both[..count], None);
            if both[0].revents().is_empty() {
                return true;
            }
            if matches!((&self.theirs).read(&mut [0; 16]), Ok(0)) {
                return false;
            }
        }
    }
}

impl Socket {
    /// Makes it, with mode 0600. A socket that nobody listens at is replaced: the host that had it has not ended well.
    pub(super) fn bind(path: &Path) -> Result<Self, ControlError> {
        let refused = |reason: String| ControlError::Bind { path: path.into(), reason };
        let named = UnixSocket::bind(path, MODE, SocketFlags::empty(), BACKLOG).map_err(|error| match error {
            BindError::InUse => ControlError::InUse { path: path.into() },
            BindError::NotASocket => ControlError::NotASocket { path: path.into() },
            BindError::Stale(error) => {
                refused(format!("there is one already, which may be somebody else's and cannot be removed: {error}"))
            }
            BindError::System(error) => refused(error.to_string()),
        })?;
        let listener = named.as_fd().try_clone_to_owned().map_err(|error| refused(error.to_string()))?;
        let bell = Bell::new().map_err(|error| refused(error.to_string()))?;
        Ok(Self { listener: UnixListener::from(listener), named, bell })
    }

    /// One that the process has made whose place this one takes, and whose name stays that one's for now.
    pub(super) fn inherited(fd: OwnedFd, path: &Path) -> io::Result<Self> {
        let listener = UnixListener::from(fd.try_clone()?);
        Ok(Self { listener, named: UnixSocket::inherited(fd, path), bell: Bell::new()? })
    }

    /// Says whether its name goes with it from now on.
    pub(super) fn set_ours(&self, is_ours: bool) {
        self.named.set_ours(is_ours);
    }

    /// Makes it another user's, who may give commands then.
    pub(super) fn give_to(&self, owner: Owner) -> Result<(), ControlError> {
        let refused = |error: io::Error| ControlError::Bind { path: self.path().into(), reason: error.to_string() };
        self.named.give_to(owner).map_err(refused)
    }

    pub(super) fn path(&self) -> &Path {
        self.named.path()
    }
}

/// Connects, at the latest at `deadline`: a server that accepts nobody would keep its clients waiting.
pub(super) fn connect_until(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    loop {
        match try_connect(path) {
            Ok(socket) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Checks who is at the other end. To a server only its own user and root may speak; root may speak to every server.
pub(super) fn check_peer(stream: &UnixStream, is_client: bool) -> Result<(), String> {
    let peer = unix_socket::peer(stream).map_err(|error| format!("who it is cannot be found out: {error}"))?.uid;
    let own = geteuid().as_raw();
    if peer == own || peer == ROOT || (is_client && own == ROOT) {
        return Ok(());
    }
    Err(format!("it belongs to the user with uid {peer}: expected uid {own} or root"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rustix::process::Uid;

    use super::*;
    use crate::control::tests::TempDir;

    #[test]
    fn socket_is_this_users_alone_and_goes_when_it_is_dropped() {
        let dir = TempDir::new("socket-mode");
        let path = dir.path().join("s");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn living_socket_is_left_alone_and_a_stale_one_is_replaced() {
        let dir = TempDir::new("socket-stale");
        let path = dir.path().join("s");
        // The standard library leaves the name behind, as a host does that is killed.
        let first = UnixListener::bind(&path).unwrap();
        assert_eq!(Socket::bind(&path).unwrap_err(), ControlError::InUse { path: path.clone() });
        drop(first);
        let second = Socket::bind(&path).unwrap();
        connect_until(&path, Instant::now()).unwrap();
        assert_eq!(Socket::bind(&path).unwrap_err(), ControlError::InUse { path: path.clone() });
        // Somebody has removed it, and somebody else has made it anew: that one stays.
        std::fs::remove_file(&path).unwrap();
        let third = Socket::bind(&path).unwrap();
        drop(second);
        assert!(path.exists());
        drop(third);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = TempDir::new("socket-file");
        let path = dir.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(Socket::bind(&path).unwrap_err(), ControlError::NotASocket { path: path.clone() });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let error = Socket::bind(&dir.path().join("no/such/s")).unwrap_err().to_string();
        assert!(error.contains("No such file") && error.contains("--control PATH"), "{error}");
    }

    #[test]
    fn of_hosts_that_start_at_once_one_has_the_socket() {
        let dir = TempDir::new("socket-race");
        let path = dir.path().join("s");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let sockets: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Socket::bind(&path))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(sockets.iter().filter(|socket| socket.is_ok()).count(), 1, "{sockets:?}");
            assert!(connect_until(&path, Instant::now()).is_ok());
        }
    }

    #[test]
    fn server_that_accepts_nobody_is_waited_for_until_the_deadline() {
        let dir = TempDir::new("socket-full");
        let path = dir.path().join("s");
        let _socket = Socket::bind(&path).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect_until(&path, Instant::now()) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(Socket::bind(&path).unwrap_err(), ControlError::InUse { path });
    }

    #[test]
    fn other_users_are_strangers() {
        if !geteuid().is_root() {
            eprintln!("NOT RUN: only root can be somebody else");
            return;
        }
        let (ours, theirs) = std::thread::spawn(|| {
            // The identity of this thread alone; a pair of sockets remembers who made it.
            rustix::thread::set_thread_res_uid(None, Some(Uid::from_raw(12345)), None).unwrap();
            UnixStream::pair().unwrap()
        })
        .join()
        .unwrap();
        let error = check_peer(&ours, false).unwrap_err();
        assert!(error.contains("uid 12345"), "{error}");
        assert_eq!(check_peer(&theirs, true), Ok(()), "root may speak to every server");
        std::thread::spawn(move || {
            rustix::thread::set_thread_res_uid(None, Some(Uid::from_raw(54321)), None).unwrap();
            assert!(check_peer(&theirs, true).is_err());
        })
        .join()
        .unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!((check_peer(&ours, false), check_peer(&theirs, true)), (Ok(()), Ok(())));
    }
}
