//! The directory where what outlives the server is kept: one process has it at a time.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::unix_socket::PAUSE;

/// How long another process is waited for that has the directory: it may be about to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The file that is locked. It has the number of the process.
const LOCK: &str = "lock";

/// Why a data directory cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process has it.
    InUse {
        /// The directory.
        path: PathBuf,
        /// The number of the process, if it could be read.
        process: Option<u32>,
    },
    /// It is not the one that the process has whose place this one takes.
    Other {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refuses it.
    System {
        /// The directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

impl fmt::Display for DataDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { path, process } => {
                let who = process.map_or_else(|| "another process".to_owned(), |process| format!("process {process}"));
                write!(
                    f,
                    "{} is in use: {who} has it. Expected a directory of this host alone: stop the other one, or name \
                     another one with --data-dir",
                    path.display()
                )
            }
            Self::Other { path } => write!(
                f,
                "{} is not the data directory of the process before, whose sessions this one would take over: expected the \
                 same --data-dir; stop the host and start it again instead to have another one",
                path.display()
            ),
            Self::System { path, source } => write!(
                f,
                "{} cannot be used: {source}. Expected a directory that this user may make, read and write: name one with \
                 --data-dir",
                path.display()
            ),
        }
    }
}

impl std::error::Error for DataDirError {}

/// A data directory that is this process's until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Locked. Whoever gets its descriptor goes on having the directory.
    lock: File,
}

impl DataDir {
    /// Takes the directory, which is made if it is not there, for this user alone. Waits for 2 s for a process that has it and
    /// may be about to end.
    ///
    /// # Errors
    /// Another process has it, or it cannot be made or written.
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        let system = |source| DataDirError::System { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(system)?;
        let file = path.join(LOCK);
        let mut options = OpenOptions::new();
        let mut lock =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(file).map_err(system)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    // If it cannot be read, it is not told.
                    let _ = lock.read_to_string(&mut text);
                    return Err(DataDirError::InUse { path: path.to_owned(), process: text.trim().parse().ok() });
                }
                Err(error) => return Err(system(error.into())),
            }
        }
        let mut taken = Self { path: path.to_owned(), lock };
        taken.sign().map_err(system)?;
        Ok(taken)
    }

    /// Has a directory together with another process, which has given this one its lock, and is about to let go of it.
    ///
    /// # Errors
    /// `path` is another directory.
    pub fn inherit(path: &Path, lock: OwnedFd) -> Result<Self, DataDirError> {
        let system = |source| DataDirError::System { path: path.to_owned(), source };
        let lock = File::from(lock);
        let theirs = lock.metadata().map_err(system)?;
        match std::fs::metadata(path.join(LOCK)) {
            Ok(ours) if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) => {
                Ok(Self { path: path.to_owned(), lock })
            }
            _ => Err(DataDirError::Other { path: path.to_owned() }),
        }
    }

    /// What has to be given to a process that is to have the directory as well.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Says that it is this process that has it now. Only people read that.
    pub fn sign_anew(&mut self) {
        if let Err(error) = self.sign() {
            tracing::warn!(%error, "{} does not say which process has it", self.path.join(LOCK).display());
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes who has it.
    fn sign(&mut self) -> io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        writeln!(self.lock, "{}", std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_it_and_the_other_is_told_who() {
        let path = std::env::temp_dir().join(format!("host-data-dir-{}", std::process::id()));
        let inner = path.join("made/as/well");
        let first = DataDir::take(&inner).unwrap();
        assert_eq!(first.path(), inner);
        // Whoever gets the lock has the directory as well, and no other.
        let given = || first.lock().try_clone_to_owned().unwrap();
        let refused = DataDir::inherit(&path, given()).unwrap_err().to_string();
        assert!(refused.contains("expected the same --data-dir"), "{refused}");
        let mut heir = DataDir::inherit(&inner, given()).unwrap();
        drop(first);
        heir.sign_anew();
        // A lock of this process keeps another descriptor of the same file out as well.
        let refused = DataDir::take(&inner).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {} has it", std::process::id())), "{refused}");
        drop(heir);
        drop(DataDir::take(&inner).unwrap());
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        let refused = DataDir::take(&inner).unwrap_err().to_string();
        assert!(refused.contains("cannot be used") && refused.contains("--data-dir"), "{refused}");
        std::fs::remove_file(&path).unwrap();
    }
}
