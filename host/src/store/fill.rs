//! Journals that are put into a new store, one after the other, without threads: what goes wrong is said to who puts them there.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::Disk;
use super::keeper::{Keeper, remove_before};
use super::load::Opened;
use super::reader::Mark;
use super::writer::{Settings, Told, Writer};
use crate::durable::queue::Entry;

/// What may go wrong: the disk, or a journal that does not fit to those before.
pub type FillError = Box<dyn Error + Send + Sync>;

/// A store that is being filled.
pub struct Fill {
    disk: Arc<dyn Disk>,
    keeper: Box<dyn Keeper>,
    writer: Writer,
    told: Arc<Told>,
    next: u64,
}

impl Fill {
    /// Goes on behind what there is.
    ///
    /// # Errors
    /// Nothing can be written.
    pub fn new(opened: Opened) -> io::Result<Self> {
        let (disk, mark, keeper) = opened.into_keeper();
        let (settings, told) =
            (Settings { fsync: false, workers: 1, segment_bytes: Settings::SEGMENT_BYTES }, Arc::default());
        let writer = Writer::new(Arc::clone(&disk), settings, mark, Arc::clone(&told))?;
        Ok(Self { disk, keeper, writer, told, next: mark.next })
    }

    /// Puts a journal behind the others.
    ///
    /// # Errors
    /// See [`FillError`]: nothing more is to be put there then.
    pub fn put(&mut self, journal: Vec<u8>) -> Result<(), FillError> {
        self.writer.write(&[Entry { number: self.next, worker: 0, journal }])?;
        self.next += 1;
        self.writer.take_ended().map_or(Ok(()), |mark| self.keep(mark))
    }

    /// Has all of it in the checkpoint, and on disk.
    ///
    /// # Errors
    /// See [`FillError`].
    pub fn end(mut self) -> Result<(), FillError> {
        self.writer.end();
        self.writer.take_ended().map_or(Ok(()), |mark| self.keep(mark))
    }

    fn keep(&mut self, until: Mark) -> Result<(), FillError> {
        loop {
            let kept = self.keeper.checkpoint(until)?;
            self.told.kept_from.fetch_max(kept.segment, Ordering::Relaxed);
            remove_before(&*self.disk, kept.segment)?;
            if kept.next >= until.next {
                return Ok(());
            }
        }
    }
}
