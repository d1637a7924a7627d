//! The socket itself: made for one user, in the place of one that nobody listens at any more, and reached in bounded time.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use rustix::process::geteuid;

use super::error::ControlError;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 16;

/// How long another host that is starting in the same directory is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two looks at what cannot be waited for.
const PAUSE: Duration = Duration::from_millis(5);

/// A socket that listens. Its name goes when it is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and number of the name, by which it is known whether it is still this one.
    name: Option<(u64, u64)>,
}

impl Socket {
    /// Makes it, with mode 0600. A socket that nobody listens at is replaced: the host that had it has not ended well.
    pub(super) fn bind(path: &Path) -> Result<Self, ControlError> {
        // Two hosts that start at the same time would both find the old one, and each remove what the other has made.
        let lock = lock_directory(path);
        let bound = match listening(path) {
            Err(Errno::ADDRINUSE) => {
                make_room(path)?;
                listening(path)
            }
            other => other,
        };
        drop(lock);
        let listener = bound.map_err(|error| match error {
            Errno::ADDRINUSE => ControlError::InUse { path: path.into() },
            error => ControlError::Bind { path: path.into(), reason: io::Error::from(error).to_string() },
        })?;
        Ok(Self { listener, path: path.into(), name: name_of(path) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.name.is_some() && name_of(&self.path) == self.name {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn name_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Holds the lock of the directory, while the result lives. Without one (a directory that cannot be read), nothing is lost
/// but the order of hosts that start at the same time.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(directory).ok()?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    while flock(&directory, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
    Some(directory)
}

fn listening(path: &Path) -> Result<UnixListener, Errno> {
    let socket = unix_socket(SocketFlags::empty())?;
    // Linux makes the name with these permissions; to change those of the name afterwards would leave a gap.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Removes a socket at which nobody listens. Whatever else is there stays.
fn make_room(path: &Path) -> Result<(), ControlError> {
    let is_socket = std::fs::symlink_metadata(path).map(|found| found.file_type().is_socket());
    if is_socket.is_ok_and(|is_socket| !is_socket) {
        return Err(ControlError::NotASocket { path: path.into() });
    }
    match try_connect(path) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        // It listens, or belongs to somebody else, or is too busy to say.
        _ => return Err(ControlError::InUse { path: path.into() }),
    }
    std::fs::remove_file(path).map_err(|error| ControlError::Bind {
        path: path.into(),
        reason: format!("nobody listens at the one that is there, but it cannot be removed: {error}"),
    })
}

/// Connects, at the latest at `deadline`: a server that accepts nobody would keep its clients waiting.
pub(super) fn connect_until(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    loop {
        match try_connect(path) {
            Ok(stream) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn try_connect(path: &Path) -> Result<UnixStream, Errno> {
    let socket = unix_socket(SocketFlags::NONBLOCK)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

fn unix_socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)
}

/// Checks who is at the other end. To a server only its own user and root may speak; root may speak to every server.
pub(super) fn check_peer(stream: &UnixStream, is_client: bool) -> Result<(), String> {
    let peer = socket_peercred(stream).map_err(|error| format!("who it is cannot be found out: {error}"))?.uid;
    let own = geteuid();
    if peer == own || peer.is_root() || (is_client && own.is_root()) {
        return Ok(());
    }
    Err(format!("it belongs to the user with uid {}: expected uid {} or root", peer.as_raw(), own.as_raw()))
}

#[cfg(test)]
mod tests {
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
