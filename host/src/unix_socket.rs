//! Listening Unix sockets: made with a mode, in the place of one that nobody listens at any more. Their names go with them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::fs::{FlockOperation, Mode, chmod, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::core::peer::UnixCredentials;
use crate::privileges::Owner;

/// How long another host that is starting in the same directory is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two looks at what cannot be waited for.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// Why there is no such socket.
#[derive(Debug)]
pub(crate) enum BindError {
    /// Somebody listens there already.
    InUse,
    /// There is something else than a socket, which is left alone.
    NotASocket,
    /// Nobody listens at the one that is there, as far as can be seen, but it cannot be removed.
    Stale(io::Error),
    /// The operating system refuses it.
    System(io::Error),
}

/// A socket that listens. Its name goes when it is dropped, if it is still this one's.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and number of the name, by which it is known whether it is still this one.
    name: Option<(u64, u64)>,
    /// Whether the name goes with it: another process may have the socket as well.
    is_ours: AtomicBool,
}

impl UnixSocket {
    /// Makes it, with these permissions. A socket that nobody listens at is replaced: the host that had it has not ended well.
    pub(crate) fn bind(path: &Path, mode: u32, flags: SocketFlags, backlog: i32) -> Result<Self, BindError> {
        let listening = || listening(path, mode, flags, backlog);
        // Two hosts that start at the same time would both find the old one, and each remove what the other has made.
        let lock = lock_directory(path);
        let bound = match listening() {
            Err(Errno::ADDRINUSE) => {
                make_room(path)?;
                listening()
            }
            other => other,
        };
        drop(lock);
        match bound {
            Ok(fd) => Ok(Self { fd, path: path.into(), name: name_of(path), is_ours: AtomicBool::new(true) }),
            Err(Errno::ADDRINUSE) => Err(BindError::InUse),
            Err(error) => Err(BindError::System(error.into())),
        }
    }

    /// One that another process has made, and whose name stays that one's for now.
    pub(crate) fn inherited(fd: OwnedFd, path: &Path) -> Self {
        Self { fd, path: path.into(), name: name_of(path), is_ours: AtomicBool::new(false) }
    }

    /// Says whether the name goes with it from now on.
    pub(crate) fn set_ours(&self, is_ours: bool) {
        self.is_ours.store(is_ours, Ordering::Relaxed);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it other permissions, if its name is still this one's.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        if self.has_its_name() {
            chmod(&self.path, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }

    /// Makes the name another user's, if it is still this one's.
    pub(crate) fn give_to(&self, owner: Owner) -> io::Result<()> {
        if self.has_its_name() {
            lchown(&self.path, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(())
    }

    fn has_its_name(&self) -> bool {
        self.name.is_some() && name_of(&self.path) == self.name
    }
}

/// Who is at the other end of a connection; a process that is in another namespace has the number 0.
pub(crate) fn peer(socket: &impl AsFd) -> io::Result<UnixCredentials> {
    let found = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?;
    Ok(UnixCredentials { uid: found.uid(), gid: found.gid(), pid: found.pid().unsigned_abs() })
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if *self.is_ours.get_mut() && self.has_its_name() {
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

fn listening(path: &Path, mode: u32, flags: SocketFlags, backlog: i32) -> Result<OwnedFd, Errno> {
    let socket = unix_socket(flags)?;
    // Linux makes the name with these permissions, or fewer: to take some away from the name afterwards would leave a gap.
    fchmod(&socket, Mode::from_raw_mode(mode))?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // The process's mask has taken some away; nobody may connect yet.
    chmod(path, Mode::from_raw_mode(mode))?;
    listen(&socket, backlog)?;
    Ok(socket)
}

/// Removes a socket at which nobody listens. Whatever else is there stays.
fn make_room(path: &Path) -> Result<(), BindError> {
    let is_socket = std::fs::symlink_metadata(path).map(|found| found.file_type().is_socket());
    if is_socket.is_ok_and(|is_socket| !is_socket) {
        return Err(BindError::NotASocket);
    }
    match try_connect(path) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        // It belongs to somebody else: whether it listens is not to be found out.
        Err(error @ Errno::ACCESS) => return Err(BindError::Stale(error.into())),
        // It listens, or is too busy to say.
        _ => return Err(BindError::InUse),
    }
    std::fs::remove_file(path).map_err(BindError::Stale)
}

/// Connects, or fails at once with `WOULDBLOCK` where the server is too busy to accept anybody.
pub(crate) fn try_connect(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = unix_socket(SocketFlags::NONBLOCK)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn unix_socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)
}
