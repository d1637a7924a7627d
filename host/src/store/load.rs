//! What was kept is opened, loaded, and kept from then on.
//!
//! Opening reads what the last checkpoint knows of sessions, and the journal behind it. Then the model knows where everything
//! is, and gives it piece by piece: neither messages nor topics are in memory for it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use super::checkpoint::Checkpoint;
use super::disk::{Directory, Disk, DiskFile, read_full_at};
use super::keeper::remove_before;
use super::migrate::{self, Migrated};
use super::reader::{Mark, ReadError, Reader, Tail};
use super::segment::{name_of, number_of};
use super::{Baton, Keeper, Settings, StoreThread, witness};
use crate::durable::ReadJournal;
use crate::durable::image::{ReadCheckpoint, give_all, values};
use crate::durable::model::layout::{self, Head, UpTo};
use crate::durable::model::{Delta, Model, ModelError, Place};
use crate::durable::queue::Wake;
use crate::durable::store::{Load, LoadFailed, Piece, Progress};

/// The directory of the checkpoint, in that of the store.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// Bits of a [`Place`] that say where in a segment it is. A segment has some 64 MiB, and one group more.
const OFFSET_BITS: u32 = 36;

/// Segments that are open at once to be read from. There are hardly more.
const OPEN_MAX: usize = 32;

/// Segments that one checkpoint takes in at most, where more have become full since the last one: what has changed is in memory
/// until it is done, though not what messages contain.
const SEGMENTS_MAX: u64 = 4;

/// Changes that were left out and are said one by one.
const LEFT_OUT_LINES: usize = 10;

/// Why what was kept cannot be opened or loaded. The text says which file, where, and what to do.
#[derive(Debug)]
pub enum OpenError {
    /// The operating system refuses.
    System {
        /// What was to be read or written.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// The journal cannot be read.
    Journal(ReadError),
    /// A change of the journal is none, or cannot be where it stands.
    Change {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        source: ModelError,
    },
    /// The checkpoint is damaged.
    Checkpoint {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A server that is newer has written it.
    Newer {
        /// The directory of the checkpoint.
        path: PathBuf,
        /// The version of its layout.
        version: u32,
    },
}

impl OpenError {
    /// The journal is damaged, so that what stands before that is good.
    fn is_in_journal(&self) -> bool {
        matches!(self, Self::Journal(ReadError::Damaged { .. }) | Self::Change { .. })
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Journal(error) => error.fmt(f),
            Self::Change { path, offset, source } => write!(
                f,
                "{}: damaged at byte {offset}: {source}; restore a backup of the directory, or run `host store check \
                 --repair` on it, which goes on with what stands before it and sets aside what follows",
                path.display()
            ),
            Self::Checkpoint { path, what } => {
                write!(f, "{}: damaged: {what}; restore a backup of the directory", path.display())
            }
            Self::Newer { path, version } => write!(
                f,
                "{}: a newer host has written it, in version {version} of the layout; this one reads up to version {}: use \
                 the newer one",
                path.display(),
                layout::VERSION
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            Self::Journal(error) => Some(error),
            Self::Change { source, .. } => Some(source),
            Self::Checkpoint { .. } | Self::Newer { .. } => None,
        }
    }
}

/// What was kept, and goes on.
pub struct Opened {
    kept: Kept,
    /// Where writing goes on.
    next: Mark,
    /// What was being written when the machine stopped, and was removed.
    tail: Option<Tail>,
    migrated: Option<Migrated>,
}

/// What was kept.
struct Kept {
    disk: Arc<dyn Disk>,
    checkpoint: Checkpoint,
    model: Model,
    /// Up to where the model has the journal.
    applied: Mark,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("next", &self.next).field("tail", &self.tail).finish_non_exhaustive()
    }
}

/// Whether a store is in a directory, whatever its state.
///
/// # Errors
/// The directory cannot be read.
pub fn holds_something(path: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        let is_segment = |name: &str| number_of(name.strip_suffix(".cut").unwrap_or(name)).is_some();
        if name == CHECKPOINT || name == witness::NAME || name.to_str().is_some_and(is_segment) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Opened {
    /// Opens a directory, which is made if there is none. What was being written when the machine stopped is cut off.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::read(path, false)
    }

    /// The same, but where the journal is damaged, goes on with what stands before that. What follows is set aside, in files
    /// whose names end with `.cut`. Says what was damaged as well.
    ///
    /// # Errors
    /// See [`OpenError`]: the checkpoint cannot be repaired.
    pub fn repair(path: &Path) -> Result<(Self, Option<OpenError>), OpenError> {
        let damage = Self::read(path, false).err();
        match damage {
            Some(other) if !other.is_in_journal() => Err(other),
            damage => Self::read(path, true).map(|opened| (opened, damage)),
        }
    }

    fn read(path: &Path, repair: bool) -> Result<Self, OpenError> {
        let disk = Directory::open(path).map_err(|source| OpenError::System { path: path.to_owned(), source })?;
        Self::read_on(Arc::new(disk), path, repair)
    }

    pub(super) fn read_on(disk: Arc<dyn Disk>, path: &Path, repair: bool) -> Result<Self, OpenError> {
        let system = |source| OpenError::System { path: path.to_owned(), source };
        let at = path.join(CHECKPOINT);
        let checkpoint = Checkpoint::open(Arc::clone(&disk), &at).map_err(|error| of_checkpoint(&at, error))?;
        let migrated = migrate(&*disk, &checkpoint, &at)?;
        let (mut model, from) = read(&checkpoint, &at)?;
        heed_witness(&*disk, from, &at)?;
        let mut reader = Reader::open(Arc::clone(&disk), from, None).map_err(OpenError::Journal)?;
        if let Err((good, damage)) = apply(&mut model, &mut reader, &*disk) {
            if !repair || !damage.is_in_journal() {
                return Err(damage);
            }
            // The model may have half of a group.
            (model, reader) = up_to(good, &checkpoint, &at, &disk)?;
        }
        let (applied, tail) = (reader.mark(), reader.tail().cloned());
        let next = reader.cut().map_err(system)?;
        // A checkpoint was made, and the server ended before it came to this.
        remove_before(&*disk, from.segment).map_err(system)?;
        Ok(Self { kept: Kept { disk, checkpoint, model, applied }, next, tail, migrated })
    }

    /// What was of an older version, and is of this one now.
    #[must_use]
    pub fn migrated(&self) -> Option<Migrated> {
        self.migrated
    }

    /// What was being written when the machine stopped, and was cut off: nothing of it was promised.
    #[must_use]
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.kept.model.sessions()
    }

    /// What plugins keep by keys: see [`Load::values`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn values(&self) -> Result<Vec<u8>, OpenError> {
        self.kept.values()
    }

    /// Gives all else that was kept: see [`Load::load`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn give(
        &self,
        workers: usize,
        give: &mut dyn FnMut(Piece),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), OpenError> {
        self.kept.give(workers, give, progress)
    }

    /// Goes on: what is handed over is written behind what there is. There is no checkpoint before what was kept has been
    /// loaded, or none at all if it is not.
    ///
    /// # Errors
    /// As [`StoreThread::start`].
    pub fn start(
        self,
        name: &str,
        settings: Settings,
        wake_workers: Vec<Wake>,
    ) -> io::Result<(StoreThread, Box<dyn Load>)> {
        let Self { kept, next, .. } = self;
        let (loaded, from) = mpsc::channel();
        let disk = Arc::clone(&kept.disk);
        let keeping = Keeping { kept: Err(from), at: None, pending: None };
        let threads = StoreThread::start(name, disk, settings, next, wake_workers, Box::new(keeping))?;
        Ok((threads, Box::new(Loading { kept, loaded })))
    }
}

/// The store of a process whose place another one takes goes on there.
pub struct TakenOver {
    /// Its threads. Nothing is written before their [brake](StoreThread::brake) is released.
    pub threads: StoreThread,
    /// What the other process has kept is read for the next checkpoint once it has ended. Dropped without it, or if that fails, the
    /// next checkpoint tries to read it.
    pub learn: Learn,
}

/// Reads what was kept, for checkpoints, on a thread of its own.
pub struct Learn {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    loaded: Sender<Kept>,
}

impl fmt::Debug for TakenOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakenOver").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl TakenOver {
    /// Goes on in a directory where another process has stopped.
    ///
    /// # Errors
    /// The operating system refuses threads.
    pub fn start(
        directory: Directory,
        name: &str,
        settings: Settings,
        baton: Baton,
        wake_workers: Vec<Wake>,
    ) -> io::Result<Self> {
        let path = directory.path().to_owned();
        let disk: Arc<dyn Disk> = Arc::new(directory);
        let (loaded, from) = mpsc::channel();
        let at = Some((path.clone(), Arc::clone(&disk)));
        let keeping = Box::new(Keeping { kept: Err(from), at, pending: None });
        let threads = StoreThread::go_on(name, Arc::clone(&disk), settings, baton, wake_workers, keeping, false)?;
        threads.queue().freeze();
        Ok(Self { threads, learn: Learn { path, disk, loaded } })
    }
}

impl Learn {
    /// Reads it. The other process makes no checkpoint any more.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn run(self) -> Result<(), OpenError> {
        let Self { path, disk, loaded } = self;
        let kept = Kept::of_checkpoint(&path, disk)?;
        // A store that has ended meanwhile makes no checkpoint any more.
        let _ = loaded.send(kept);
        Ok(())
    }
}

impl Opened {
    /// Who makes checkpoints of what is written behind the mark from now on.
    pub(super) fn into_keeper(self) -> (Arc<dyn Disk>, Mark, Box<dyn Keeper>) {
        let Self { kept, next, .. } = self;
        let disk = Arc::clone(&kept.disk);
        (disk, next, Box::new(Keeping { kept: Ok(kept), at: None, pending: None }))
    }
}

impl Kept {
    /// What the last checkpoint has. What was written behind it comes with the next one.
    fn of_checkpoint(path: &Path, disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let at = path.join(CHECKPOINT);
        let checkpoint = Checkpoint::open(Arc::clone(&disk), &at).map_err(|error| of_checkpoint(&at, error))?;
        let (model, applied) = read(&checkpoint, &at)?;
        heed_witness(&*disk, applied, &at)?;
        Ok(Self { disk, checkpoint, model, applied })
    }

    fn values(&self) -> Result<Vec<u8>, OpenError> {
        let mut segments = Segments::new(Arc::clone(&self.disk));
        values(&self.model, &self.checkpoint, &mut segments)
            .map_err(|error| of_checkpoint(self.checkpoint.path(), error))
    }

    fn give(
        &self,
        workers: usize,
        give: &mut dyn FnMut(Piece),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), OpenError> {
        let mut segments = Segments::new(Arc::clone(&self.disk));
        give_all(&self.model, &self.checkpoint, &mut segments, workers, give, progress)
            .map_err(|error| of_checkpoint(self.checkpoint.path(), error))
    }
}

/// What was kept, while it is loaded. Then it goes to who makes checkpoints of it.
struct Loading {
    kept: Kept,
    loaded: Sender<Kept>,
}

fn load_failed(error: OpenError) -> LoadFailed {
    LoadFailed(error.to_string())
}

impl Load for Loading {
    fn values(&mut self) -> Result<Vec<u8>, LoadFailed> {
        self.kept.values().map_err(load_failed)
    }

    fn load(
        self: Box<Self>,
        workers: usize,
        give: &mut dyn FnMut(Piece),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), LoadFailed> {
        self.kept.give(workers, give, progress).map_err(load_failed)?;
        // A store that has ended meanwhile makes no checkpoint any more.
        let _ = self.loaded.send(self.kept);
        Ok(())
    }
}

fn of_checkpoint(path: &Path, error: io::Error) -> OpenError {
    // What it names is there, and as long as it says, unless somebody else has been at it.
    match error.kind() {
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotFound => OpenError::Checkpoint { path: path.to_owned(), what: error.to_string() },
        _ => OpenError::System { path: path.to_owned(), source: error },
    }
}

/// Refuses a checkpoint that does not go as far as it did.
fn heed_witness(disk: &dyn Disk, from: Mark, checkpoint: &Path) -> Result<(), OpenError> {
    let said = witness::read(disk).map_err(|error| of_checkpoint(&disk.path_of(witness::NAME), error))?;
    match said {
        Some((_, next)) if next > from.next => Err(OpenError::Checkpoint {
            path: checkpoint.to_owned(),
            what: format!("it goes up to journal {}, and went up to {} when it was made", from.next - 1, next - 1),
        }),
        _ => Ok(()),
    }
}

/// Has all in this version.
fn migrate(disk: &dyn Disk, checkpoint: &Checkpoint, path: &Path) -> Result<Option<Migrated>, OpenError> {
    let segments = migrate::segments(disk).map_err(|source| OpenError::System { path: disk.path_of(""), source })?;
    let system = |error| of_checkpoint(path, error);
    let head = match checkpoint.get(layout::HEAD_KEY).map_err(system)? {
        Some(head) => migrate::head(&head)
            .map_err(|error| OpenError::Checkpoint { path: path.to_owned(), what: format!("its head: {error}") })?,
        None => None,
    };
    if let Some(head) = head {
        checkpoint.put(layout::HEAD_KEY, &head.encode()).map_err(system)?;
    }
    let migrated = Migrated { from: 0, segments, checkpoint: head.is_some() };
    Ok(Some(migrated).filter(|migrated| migrated.checkpoint || migrated.segments > 0))
}

/// What a checkpoint knows, and from where on the journal has more.
fn read(checkpoint: &Checkpoint, path: &Path) -> Result<(Model, Mark), OpenError> {
    let system = |error| of_checkpoint(path, error);
    let wrong = |what: String| OpenError::Checkpoint { path: path.to_owned(), what };
    let Some(head) = checkpoint.get(layout::HEAD_KEY).map_err(system)? else {
        return Ok((Model::default(), Mark::START));
    };
    match Head::version(&head) {
        Some(version) if version > layout::VERSION => {
            return Err(OpenError::Newer { path: path.to_owned(), version });
        }
        _ => {}
    }
    let head = Head::decode(&head).map_err(|error| wrong(format!("its head: {error}")))?;
    let mut model = Model::new(&head);
    for entry in checkpoint.scan(layout::SESSIONS) {
        let (key, value) = entry.map_err(system)?;
        model.add_session(&key, &value).map_err(|error| wrong(format!("session {key:02x?}: {error}")))?;
    }
    for entry in checkpoint.scan(layout::TRANSIT) {
        let (key, _) = entry.map_err(system)?;
        model.add_transit(&key).map_err(|error| wrong(format!("message between workers {key:02x?}: {error}")))?;
    }
    Ok((model, mark_of(head.up_to)))
}

fn mark_of([segment, offset, next]: UpTo) -> Mark {
    Mark { segment, offset, next }
}

/// Applies what a reader gives.
///
/// # Errors
/// With the place before the group that is to blame.
fn apply(model: &mut Model, reader: &mut Reader, disk: &dyn Disk) -> Result<(), (Mark, OpenError)> {
    loop {
        let before = reader.mark();
        if !apply_group(model, reader, disk, &mut None).map_err(|error| (before, error))? {
            return Ok(());
        }
    }
}

/// The same of one group. `false` if there is none any more. What cannot be is told to `left_out`, if there is one to tell, and
/// the rest is applied.
fn apply_group(
    model: &mut Model,
    reader: &mut Reader,
    disk: &dyn Disk,
    left_out: &mut Option<&mut dyn FnMut(OpenError)>,
) -> Result<bool, OpenError> {
    let Some(group) = reader.next().map_err(OpenError::Journal)? else { return Ok(false) };
    for written in group.journals() {
        let place = |source: ModelError| OpenError::Change {
            path: disk.path_of(&name_of(written.segment)),
            offset: source.at & ((1 << OFFSET_BITS) - 1),
            source,
        };
        let at = written.segment << OFFSET_BITS | written.offset;
        match left_out {
            None => model.apply(written.journal, at).map_err(place)?,
            Some(tell) => model.apply_what_can_be(written.journal, at, &mut |error| tell(place(error))),
        }
    }
    Ok(true)
}

/// What there is before a damage of the journal, and a reader that stands there.
fn up_to(good: Mark, checkpoint: &Checkpoint, path: &Path, disk: &Arc<dyn Disk>) -> Result<(Model, Reader), OpenError> {
    let (mut model, from) = read(checkpoint, path)?;
    let mut reader = Reader::open(Arc::clone(disk), from, None).map_err(OpenError::Journal)?;
    while reader.mark().next < good.next && apply_group(&mut model, &mut reader, &**disk, &mut None)? {}
    Ok((model, reader))
}

/// Reads changes where they stand in segments.
struct Segments {
    disk: Arc<dyn Disk>,
    open: HashMap<u64, Box<dyn DiskFile>>,
}

impl Segments {
    fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, open: HashMap::new() }
    }
}

impl ReadJournal for Segments {
    fn read(&mut self, place: Place, into: &mut Vec<u8>) -> io::Result<()> {
        let (segment, offset) = (place.at >> OFFSET_BITS, place.at & ((1 << OFFSET_BITS) - 1));
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        let file = match self.open.entry(segment) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => vacant.insert(self.disk.open(&name_of(segment))?),
        };
        let start = into.len();
        into.resize(start + place.bytes as usize, 0);
        if read_full_at(&**file, &mut into[start..], offset)? < place.bytes as usize {
            let what = format!("{} ends before byte {offset}", self.disk.path_of(&name_of(segment)).display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}

/// Makes checkpoints of what is written.
pub(super) struct Keeping {
    /// Or from where it comes once it has been loaded.
    kept: Result<Kept, Receiver<Kept>>,
    /// Where it can be read if nobody gives it.
    at: Option<(PathBuf, Arc<dyn Disk>)>,
    /// A delta that could not be committed. What the model says since is behind it.
    pending: Option<Delta>,
}

#[cfg(all(test, not(feature = "loom")))]
impl Keeping {
    /// Without threads, and up to where there is something to make a checkpoint of.
    pub(super) fn of(opened: Opened) -> (Self, Mark) {
        (Self { kept: Ok(opened.kept), at: None, pending: None }, opened.next)
    }
}

impl Keeper for Keeping {
    fn checkpoint(&mut self, until: Mark) -> Result<Mark, Box<dyn std::error::Error + Send + Sync>> {
        if let Err(from) = &self.kept {
            self.kept = Ok(match (from.recv(), &self.at) {
                (Ok(kept), _) => kept,
                // Who was to give it could not read it. What was in the way may be over; if not, the next checkpoint tries again.
                (Err(_), Some((path, disk))) => Kept::of_checkpoint(path, Arc::clone(disk))?,
                (Err(_), None) => return Err("what was kept has not been loaded".into()),
            });
        }
        let Ok(kept) = &mut self.kept else { return Ok(until) };
        let mut segments = Segments::new(Arc::clone(&kept.disk));
        if let Some(delta) = &self.pending {
            kept.checkpoint.commit(delta, &mut segments)?;
            witness::write(&*kept.disk, mark_of(delta.up_to))?;
            self.pending = None;
        }
        kept.follow(until)?;
        let mark = kept.applied;
        let delta = kept.model.freeze([mark.segment, mark.offset, mark.next]);
        let outcome = kept.checkpoint.commit(&delta, &mut segments);
        if outcome.is_err() {
            self.pending = Some(delta);
        }
        outcome?;
        witness::write(&*kept.disk, mark)?;
        Ok(mark)
    }
}

impl Kept {
    /// Applies what was written up to a mark, or some of it. The last checkpoint has all that was applied before.
    fn follow(&mut self, until: Mark) -> Result<(), OpenError> {
        let error = match self.apply(until, None) {
            Err(error @ OpenError::Change { .. }) => error,
            outcome => return outcome,
        };
        // The server has what its clients were promised, and goes on: what is wrong is here, or in a journal that it has made.
        tracing::error!("what was written does not fit to what was known, and is looked at once more: {error}");
        self.model = Model::default();
        (self.model, self.applied) = read(&self.checkpoint, self.checkpoint.path())?;
        let mut count = 0;
        let mut leave_out = |error| {
            count += 1;
            if count <= LEFT_OUT_LINES {
                tracing::error!("left out: {error}");
            }
        };
        self.apply(until, Some(&mut leave_out))?;
        tracing::warn!("the checkpoint goes on; {count} changes were left out of it");
        Ok(())
    }

    fn apply(&mut self, until: Mark, mut left_out: Option<&mut dyn FnMut(OpenError)>) -> Result<(), OpenError> {
        let enough = self.applied.segment + SEGMENTS_MAX;
        let mut reader = Reader::open(Arc::clone(&self.disk), self.applied, Some(until)).map_err(OpenError::Journal)?;
        while self.applied.segment < enough && apply_group(&mut self.model, &mut reader, &*self.disk, &mut left_out)? {
            self.applied = reader.mark();
        }
        // At the end of a segment it stands at the beginning of the next one.
        self.applied = reader.mark();
        Ok(())
    }
}
