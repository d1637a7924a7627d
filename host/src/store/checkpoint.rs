//! Checkpoints: what journals come to, in a store of keys and values, so that they need not be kept.
//!
//! Each is done as a whole or not at all, and says up to where in the journal it goes. One that is small is one transaction; one
//! that is large is written down first (`redo`), and then done in pieces, so that memory is bounded by a piece. The crate behind
//! it is `fjall`; nothing else knows of it. After an error it accepts nothing more, and is opened anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::disk::Disk;
use super::redo::{self, Step};
use crate::durable::ReadJournal;
use crate::durable::image::{Entry, ReadCheckpoint};
use crate::durable::model::Delta;
use crate::durable::model::layout::{HEAD_KEY, Head, UpTo};

/// What it may keep of its files in memory, and of what was written last: a checkpoint is read from its beginning to its end,
/// and once.
const CACHE_BYTES: u64 = 8 << 20;
const MEMTABLE_BYTES: u64 = if cfg!(test) { 256 << 10 } else { 16 << 20 };

/// What was written last and is not in a file of its own yet may take so much memory before the next piece waits, and so long;
/// how often it looks.
const UNFLUSHED_BYTES: u64 = 2 * MEMTABLE_BYTES;
const UNFLUSHED_PATIENCE: Duration = Duration::from_secs(10);
const UNFLUSHED_LOOK: Duration = Duration::from_millis(5);

/// The least that it can be told to take for its own journal, in bytes.
const JOURNAL_BYTES: u64 = 64 << 20;

/// The one set of keys.
const KEYSPACE: &str = "kept";

/// See the module.
pub struct Checkpoint {
    /// Where a large one is written down.
    disk: Arc<dyn Disk>,
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    database: Database,
    entries: Keyspace,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens what is in a directory, and makes it if there is none. What `disk` says that is still to be done is done.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        if !path.try_exists()? {
            make(path)?;
        }
        redo::tidy(&*disk);
        let open = Some(open(&*disk, path)?);
        Ok(Self { disk, path: path.to_owned(), open })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does what a delta says, all of it or nothing. It is on disk when this returns.
    ///
    /// # Errors
    /// What the disk says, and [`io::ErrorKind::InvalidData`] if the journal is not what it was. It may be done even so: whoever
    /// tries again gives the same delta.
    pub fn commit(&mut self, delta: &Delta, journal: &mut dyn ReadJournal) -> io::Result<()> {
        // Where it has failed before, it has to be opened anew.
        let opened = match self.open.take() {
            Some(opened) => opened,
            None => open(&*self.disk, &self.path)?,
        };
        // What was tried before may be done.
        if opened.up_to()? != Some(delta.up_to) {
            opened.commit(delta, journal, &*self.disk)?;
        }
        self.open = Some(opened);
        Ok(())
    }

    /// Has one value replaced. It is on disk when this returns.
    ///
    /// # Errors
    /// What the disk says.
    pub fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.entries()?.insert(key, value).map_err(other)?;
        let open = self.open.as_ref().ok_or_else(|| io::Error::other("the checkpoint could not be written"))?;
        open.database.persist(PersistMode::SyncAll).map_err(other)
    }

    fn entries(&self) -> io::Result<&Keyspace> {
        let open = self.open.as_ref().ok_or_else(|| io::Error::other("the checkpoint could not be written"))?;
        Ok(&open.entries)
    }
}

/// Makes an empty one under another name first: what was begun by a process that was killed amid it cannot be opened, nor
/// told from one that is damaged.
fn make(path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    drop(database(&new)?);
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

fn open(disk: &dyn Disk, path: &Path) -> io::Result<Open> {
    let open = database(path)?;
    if redo::is_there(disk)? {
        tracing::info!("{}: goes on with a checkpoint that was begun", path.display());
        open.redo(disk)?;
    }
    Ok(open)
}

fn database(path: &Path) -> io::Result<Open> {
    let builder = Database::builder(path).worker_threads(1).cache_size(CACHE_BYTES);
    let database = builder.max_journaling_size(JOURNAL_BYTES).open().map_err(other)?;
    let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
    let entries = database.keyspace(KEYSPACE, options).map_err(other)?;
    Ok(Open { database, entries })
}

impl Open {
    /// Up to where the last checkpoint goes that is whole.
    fn up_to(&self) -> io::Result<Option<UpTo>> {
        let head = self.entries.get(HEAD_KEY).map_err(other)?;
        Ok(head.and_then(|head| Head::decode(&head).ok()).map(|head| head.up_to))
    }

    fn commit(&self, delta: &Delta, journal: &mut dyn ReadJournal, disk: &dyn Disk) -> io::Result<()> {
        let (mut ops, mut piece) = (delta.ops().peekable(), Vec::new());
        redo::compose(&mut ops, journal, &mut piece)?;
        if ops.peek().is_none() {
            return self.apply(&piece, Some(PersistMode::SyncAll));
        }
        let mut writing = redo::Writing::begin(disk)?;
        while !piece.is_empty() {
            writing.put(&piece)?;
            piece.clear();
            redo::compose(&mut ops, journal, &mut piece)?;
        }
        writing.finish(disk)?;
        drop(piece);
        self.redo(disk)
    }

    /// Does what was written down.
    fn redo(&self, disk: &dyn Disk) -> io::Result<()> {
        redo::each(disk, |piece| {
            self.apply(piece, None)?;
            self.wait_until_flushed()
        })?;
        self.database.persist(PersistMode::SyncAll).map_err(other)?;
        redo::remove(disk)
    }

    /// Does the steps of a piece, all of them or none.
    fn apply(&self, piece: &[u8], mode: Option<PersistMode>) -> io::Result<()> {
        let mut batch: OwnedWriteBatch = self.database.batch().durability(mode);
        for step in redo::steps(piece) {
            match step? {
                Step::Put(key, value) => batch.insert(&self.entries, key, value),
                Step::Remove(key) => batch.remove(&self.entries, key),
                Step::RemoveAll(prefix) => {
                    for entry in self.entries.prefix(prefix) {
                        batch.remove(&self.entries, entry.key().map_err(other)?);
                    }
                }
            }
        }
        batch.commit().map_err(other)
    }

    /// Pieces come faster than they are written to files, and all that waits for that is in memory. Nobody tells when it is done.
    fn wait_until_flushed(&self) -> io::Result<()> {
        let by = Instant::now() + UNFLUSHED_PATIENCE;
        while self.database.write_buffer_size() > UNFLUSHED_BYTES && Instant::now() < by {
            // Who has failed says so here.
            self.database.persist(PersistMode::Buffer).map_err(other)?;
            std::thread::sleep(UNFLUSHED_LOOK);
        }
        Ok(())
    }
}

impl ReadCheckpoint for Checkpoint {
    fn scan(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = io::Result<Entry>> + '_> {
        let entries = match self.entries() {
            Ok(entries) => entries.prefix(prefix),
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        Box::new(entries.map(|entry| {
            let (key, value) = entry.into_inner().map_err(other)?;
            Ok((key.to_vec(), value.to_vec()))
        }))
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let value = self.entries()?.get(key).map_err(other)?;
        Ok(value.map(|value| value.to_vec()))
    }
}

/// What the operating system has said is told as it is.
fn other(error: fjall::Error) -> io::Error {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => error,
        error @ (fjall::Error::Storage(_)
        | fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidTag(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidVersion(None)
        | fjall::Error::Unrecoverable) => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
        error => io::Error::other(error.to_string()),
    }
}
