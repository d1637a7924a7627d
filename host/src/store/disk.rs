//! The seam below the store: files in one directory. Tests put one there that fails when they want it to.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Only who runs the server may read what its clients have sent.
const FILE_MODE: u32 = 0o600;

/// A directory with files in it. Everything may be called on any thread.
pub trait Disk: Send + Sync {
    /// The names of the files in it, in no order.
    ///
    /// # Errors
    /// The operating system cannot say.
    fn names(&self) -> io::Result<Vec<String>>;

    /// A file of this name with nothing in it, in the place of one that there may be.
    ///
    /// # Errors
    /// The operating system refuses.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// A file that there is.
    ///
    /// # Errors
    /// There is none, or the operating system refuses.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, in the place of one that there may be.
    ///
    /// # Errors
    /// The operating system refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system refuses.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when the names of the files are on disk: what was created, renamed or removed.
    ///
    /// # Errors
    /// They may not be.
    fn sync(&self) -> io::Result<()>;

    /// Where a file of this name is, for people.
    fn path_of(&self, name: &str) -> PathBuf;
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Writes some of these bytes at a place, from the first on, and says how many.
    ///
    /// # Errors
    /// There is no room, or the operating system refuses. Some of them may be written even so.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Reads some bytes from a place on, and says how many; 0 at the end of the file.
    ///
    /// # Errors
    /// The operating system cannot.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How long it is, in bytes.
    ///
    /// # Errors
    /// The operating system cannot say.
    fn length(&self) -> io::Result<u64>;

    /// Cuts off what is behind so many bytes.
    ///
    /// # Errors
    /// The operating system refuses.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Returns when what it contains is on disk. After an error nobody knows what is, and calling it again would not tell.
    ///
    /// # Errors
    /// It may not be.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
}

impl Directory {
    /// Opens a directory, and makes it, with those that it is in, if there is none.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        let handle = File::open(&path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { path, handle })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Disk for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // What is not text is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Box::new(options.open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl DiskFile for File {
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, parts, offset)?)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Writes all of it, in as many steps as it takes.
pub(super) fn write_all_at(file: &dyn DiskFile, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0); // Empty ones at the beginning.
    while !parts.is_empty() {
        match file.write_at(parts, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut parts, written);
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends, and says how many bytes.
pub(super) fn read_full_at(file: &dyn DiskFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
