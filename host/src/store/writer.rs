//! Writes journals, in groups, into segments.
//!
//! After any failure the segment is left alone, cut to what is known to be good of it, and what was not said to be safe is
//! written once more, into a new one: after a failed `fsync` nobody knows what the old one has on disk, and the operating
//! system would not say it a second time.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Disk, DiskFile, write_all_at};
use super::keeper;
use super::reader::Mark;
use super::segment::{HEADER_BYTES, SegmentHeader, encode_group, name_of};
use crate::durable::queue::Entry;

/// What one group has at most, unless a single journal is longer, in bytes. What it has to wait for is written, and perhaps
/// synced, with it.
const GROUP_BYTES: usize = 4 << 20;

/// Journals in a group at most. The operating system takes 1024 parts in a call.
const GROUP_ENTRIES: usize = 512;

/// Segments that may wait for a checkpoint, so that what is not needed any more does not fill the disk.
pub(super) const SEGMENTS_MAX: u64 = 16;

/// How a store writes.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether a journal is safe only when the disk has it; otherwise when the operating system has.
    pub fsync: bool,
    /// How many workers there are.
    pub workers: u32,
    /// A segment is full that has so many bytes behind its header.
    pub segment_bytes: u64,
}

impl Settings {
    /// A segment that is read again within a second or so when the server starts.
    pub const SEGMENT_BYTES: u64 = 64 << 20;
}

/// What the thread for checkpoints tells the one that writes.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Everything up to this number is on disk.
    pub(super) synced: AtomicU64,
    /// Segments before this one are needed no more.
    pub(super) kept_from: AtomicU64,
}

/// Where a store goes on, and what is known of what stands before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baton {
    /// In a new segment.
    pub mark: Mark,
    /// Everything up to this number is on disk; what is behind it, up to the mark, the operating system has.
    pub synced: u64,
    /// Segments before this one are needed no more.
    pub kept_from: u64,
}

impl Baton {
    /// Everything before a mark is on disk, and nothing waits for a checkpoint.
    pub(super) fn all_on_disk(mark: Mark) -> Self {
        Self { mark, synced: mark.next - 1, kept_from: mark.segment }
    }

    pub(super) fn told(self) -> Told {
        Told { synced: self.synced.into(), kept_from: self.kept_from.into() }
    }
}

/// See the module.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    settings: Settings,
    told: Arc<Told>,
    open: Option<Open>,
    /// The number of the segment that is begun next, and of the journal that is written next.
    next_segment: u64,
    next: u64,
    /// What the segments before the first one of this writer have is not on disk, and is to be before something that stands on it is promised.
    owes_sync: bool,
    /// A segment has ended here.
    ended: Option<Mark>,
    /// Reused for what stands before the journals of a group.
    head: Vec<u8>,
}

struct Open {
    file: Box<dyn DiskFile>,
    salt: u32,
    /// Behind its last good group.
    end: u64,
    /// Its name is on disk.
    is_named: bool,
}

impl Writer {
    /// Goes on at a mark, where a segment ends, and everything before is on disk. Begins a new one at once, to find out whether that is possible.
    pub(super) fn new(disk: Arc<dyn Disk>, settings: Settings, mark: Mark, told: Arc<Told>) -> io::Result<Self> {
        told.kept_from.fetch_max(mark.segment, Ordering::Relaxed);
        told.synced.fetch_max(mark.next - 1, Ordering::Relaxed);
        let mut writer = Self::later(disk, settings, mark, told);
        writer.begin()?;
        Ok(writer)
    }

    /// Goes on at a mark, where a segment ends, with what is known of those before. Writes nothing before there is something to write.
    pub(super) fn later(disk: Arc<dyn Disk>, settings: Settings, mark: Mark, told: Arc<Told>) -> Self {
        let owes_sync = settings.fsync && told.synced.load(Ordering::Relaxed) + 1 < mark.next;
        let (next_segment, next) = (mark.segment, mark.next);
        // Those before have ended, and nobody else has a checkpoint made of them.
        let ended = (told.kept_from.load(Ordering::Relaxed) < mark.segment).then_some(mark);
        Self { disk, settings, told, open: None, next_segment, next, owes_sync, ended, head: Vec::new() }
    }

    /// Where another process goes on, if this one writes nothing more.
    pub(super) fn baton(&self) -> Baton {
        // One that was begun belongs to who has begun it.
        let segment = self.next_segment + u64::from(self.open.is_some());
        Baton {
            mark: Mark::beginning(segment, self.next),
            synced: self.told.synced.load(Ordering::Relaxed),
            kept_from: self.told.kept_from.load(Ordering::Relaxed),
        }
    }

    /// Writes as many of these as make one group, of which there is at least one; then they are safe. Returns how many.
    ///
    /// # Errors
    /// None of them is. They are to be given once more.
    pub(super) fn write(&mut self, entries: &[Entry]) -> io::Result<usize> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.journal.len();
            bytes <= GROUP_BYTES
        };
        let count = entries.iter().take(GROUP_ENTRIES).take_while(fits).count().max(1);
        let group = &entries[..count];
        debug_assert_eq!(group[0].number, self.next);
        let written = self.write_group(group);
        if let Err(error) = written {
            self.abandon();
            return Err(error);
        }
        self.next = group[count - 1].number + 1;
        if self.settings.fsync {
            self.told.synced.store(self.next - 1, Ordering::Relaxed);
        }
        if self.open.as_ref().is_some_and(|open| open.end - HEADER_BYTES >= self.settings.segment_bytes) {
            self.end();
        }
        Ok(count)
    }

    /// Ends the segment, if there is something in it.
    pub(super) fn end(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.end > HEADER_BYTES) {
            self.open = None;
            self.next_segment += 1;
            self.ended = Some(Mark::beginning(self.next_segment, self.next));
        }
    }

    /// Where a segment has ended since this was asked last.
    pub(super) fn take_ended(&mut self) -> Option<Mark> {
        self.ended.take()
    }

    /// Begins a segment.
    fn begin(&mut self) -> io::Result<()> {
        if self.owes_sync {
            keeper::sync(&*self.disk, 0..self.next_segment)?;
            self.told.synced.store(self.next - 1, Ordering::Relaxed);
            self.owes_sync = false;
        }
        let waiting = self.next_segment.saturating_sub(self.told.kept_from.load(Ordering::Relaxed));
        if waiting >= SEGMENTS_MAX {
            let why = format!("{waiting} segments wait for a checkpoint, which does not get done");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
        }
        // It takes its keys from the operating system's random numbers.
        let salt = RandomState::new().hash_one(self.next_segment);
        let salt = u32::try_from(salt >> 32).expect("half of it");
        let (number, first, workers) = (self.next_segment, self.next, self.settings.workers);
        let file = self.disk.create(&name_of(number))?;
        let header = SegmentHeader { salt, number, first, workers }.encode();
        write_all_at(&*file, &mut [IoSlice::new(&header)], 0)?;
        self.open = Some(Open { file, salt, end: HEADER_BYTES, is_named: false });
        Ok(())
    }

    fn write_group(&mut self, group: &[Entry]) -> io::Result<()> {
        if self.open.is_none() {
            self.begin()?;
        }
        let open = self.open.as_mut().expect("it was begun");
        encode_group(group, open.salt, self.told.synced.load(Ordering::Relaxed), &mut self.head);
        let head = std::iter::once(IoSlice::new(&self.head));
        let mut parts: Vec<_> = head.chain(group.iter().map(|entry| IoSlice::new(&entry.journal))).collect();
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        write_all_at(&*open.file, &mut parts, open.end)?;
        if self.settings.fsync {
            open.file.sync()?;
            if !open.is_named {
                self.disk.sync()?;
                open.is_named = true;
            }
        }
        open.end += bytes as u64;
        Ok(())
    }

    /// Leaves the segment after a failure.
    fn abandon(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.end > HEADER_BYTES {
            // It may give room back. Whoever reads knows without it what counts.
            let _ = open.file.truncate(open.end);
            self.next_segment += 1;
            self.ended = Some(Mark::beginning(self.next_segment, self.next));
        }
    }
}
