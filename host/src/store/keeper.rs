//! Has checkpoints made when segments are full, and removes what they make superfluous, on a thread of its own: writing does
//! not wait for it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::disk::Disk;
use super::reader::Mark;
use super::segment::number_of;
use super::writer::{Settings, Told};

/// Time until a checkpoint that has failed is tried again, unless another segment is full before.
const RETRY: Duration = Duration::from_secs(10);

/// Makes checkpoints.
pub trait Keeper: Send {
    /// Takes in what was written up to a mark, where a segment has ended, or some of it; a [`Reader`](super::Reader) gives it,
    /// from the mark of the last checkpoint on. Returns up to where: all before that is on disk elsewhere, together with this
    /// mark, and the segments before it are removed. It is called again for the rest.
    ///
    /// # Errors
    /// There is no new checkpoint; the last one is still good. It is called again later, then maybe with a later mark.
    fn checkpoint(&mut self, until: Mark) -> Result<Mark, Box<dyn std::error::Error + Send + Sync>>;
}

pub(super) fn start(
    name: String,
    disk: Arc<dyn Disk>,
    settings: Settings,
    synced_before: u64,
    told: Arc<Told>,
    ended: Receiver<Mark>,
    keeper: Box<dyn Keeper>,
) -> io::Result<JoinHandle<()>> {
    let run = Run { disk, settings, told, keeper, synced_before };
    std::thread::Builder::new().name(name).spawn(move || run.run(&ended))
}

struct Run {
    disk: Arc<dyn Disk>,
    settings: Settings,
    told: Arc<Told>,
    keeper: Box<dyn Keeper>,
    /// Segments of this run before this one are on disk.
    synced_before: u64,
}

impl Run {
    fn run(mut self, ended: &Receiver<Mark>) {
        let mut failed = None;
        loop {
            let wait = if failed.is_some() { RETRY } else { Duration::MAX };
            let (first, is_over) = match ended.recv_timeout(wait) {
                Ok(mark) => (Some(mark), false),
                Err(RecvTimeoutError::Timeout) => (None, false),
                Err(RecvTimeoutError::Disconnected) => (None, true),
            };
            // One checkpoint does for all segments that have become full since the last one.
            let last = first.into_iter().chain(ended.try_iter()).last();
            let Some(mark) = last.or(failed) else {
                if is_over {
                    return;
                }
                continue;
            };
            let outcome = self.keep(mark);
            failed = outcome.is_err().then_some(mark);
            if let Err(error) = outcome {
                tracing::error!(
                    %error,
                    "no checkpoint could be made: what was written since the last one stays, and takes room on the disk"
                );
            }
            if is_over {
                return;
            }
        }
    }

    fn keep(&mut self, until: Mark) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if !self.settings.fsync {
            // What the operating system has not written yet is there to be read even so.
            match self.sync(until) {
                Ok(()) => self.told.synced.store(until.next - 1, Ordering::Relaxed),
                Err(error) => tracing::error!(%error, "the disk may not have what was written last"),
            }
        }
        loop {
            let kept = self.keeper.checkpoint(until)?;
            self.told.kept_from.fetch_max(kept.segment, Ordering::Relaxed);
            if let Err(error) = remove_before(&*self.disk, kept.segment) {
                tracing::warn!(%error, "files that are needed no more could not be removed; the next checkpoint tries again");
            }
            if kept.next >= until.next {
                return Ok(());
            }
        }
    }

    /// Has the segments before a mark on disk.
    fn sync(&mut self, until: Mark) -> io::Result<()> {
        // Not twice, whatever comes of it.
        let from = std::mem::replace(&mut self.synced_before, until.segment);
        sync(&*self.disk, from..until.segment)
    }
}

/// Has these segments on disk, and the names of all. Some may not be needed any more, and not be there.
pub(super) fn sync(disk: &dyn Disk, segments: Range<u64>) -> io::Result<()> {
    for name in disk.names()? {
        if number_of(&name).is_some_and(|number| segments.contains(&number)) {
            match disk.open(&name) {
                Ok(file) => file.sync()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    disk.sync()
}

/// Removes the segments before this one: a checkpoint has what is in them.
///
/// # Errors
/// The operating system refuses.
pub fn remove_before(disk: &dyn Disk, segment: u64) -> io::Result<()> {
    for name in disk.names()? {
        if number_of(&name).is_some_and(|number| number < segment) {
            disk.remove(&name)?;
        }
    }
    Ok(())
}
