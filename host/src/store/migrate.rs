//! What hosts before have written in older versions becomes what this one writes, before anything else is read.
//!
//! Version 0, of segments and of checkpoints: the header of a segment stands once, and its groups follow right behind it. All
//! else is as it is now.
//!
//! One file after the other is replaced by one that is whole, so that it can go on where it has been interrupted: the head of
//! the checkpoint comes last, and is what says that all is done.

use std::fmt;
use std::io::{self, IoSlice};

use super::disk::{Disk, write_all_at};
use super::scan;
use super::segment::{HEADER_BYTES, ONE_HEADER_BYTES, SegmentHeader, VERSION, name_of, number_of};
use crate::durable::model::layout::{self, Head};

/// What the name of a file ends with that is not whole yet.
const UNFINISHED: &str = ".new";

/// What was migrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// From this version.
    pub from: u32,
    /// Segments of it.
    pub segments: u64,
    /// A checkpoint of it.
    pub checkpoint: bool,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, segments, checkpoint } = self;
        let checkpoint = if *checkpoint { " and the checkpoint" } else { "" };
        write!(f, "from version {from} to {VERSION}: {segments} segments of the journal{checkpoint}")
    }
}

/// Has all segments in this version, and says how many were not.
///
/// # Errors
/// What the disk says.
pub(super) fn segments(disk: &dyn Disk) -> io::Result<u64> {
    let mut migrated = 0;
    for name in disk.names()? {
        if name.strip_suffix(UNFINISHED).and_then(number_of).is_some() {
            disk.remove(&name)?;
        }
        let Some(number) = number_of(&name) else { continue };
        let file = disk.open(&name)?;
        let Some(header) = SegmentHeader::read_version_0(&*file, number)? else { continue };
        let unfinished = format!("{name}{UNFINISHED}");
        let new = disk.create(&unfinished)?;
        write_all_at(&*new, &mut [IoSlice::new(&header.encode())], 0)?;
        scan::copy(&*file, ONE_HEADER_BYTES as u64, &*new, HEADER_BYTES)?;
        disk.rename(&unfinished, &name_of(number))?;
        migrated += 1;
    }
    if migrated > 0 {
        disk.sync()?;
    }
    Ok(migrated)
}

/// The head of a checkpoint in this version, if it is of an older one.
///
/// # Errors
/// It is none.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, layout::LayoutError> {
    if Head::version(bytes) != Some(0) {
        return Ok(None);
    }
    let mut head = Head::decode_fields(bytes)?;
    // Groups stand further behind in segments now, all by as much.
    head.up_to[1] = head.up_to[1].saturating_add(HEADER_BYTES - ONE_HEADER_BYTES as u64);
    Ok(Some(head))
}
