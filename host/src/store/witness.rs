//! How far a checkpoint goes, once more, beside it: who keeps it takes the end of its own journal for torn where that is damaged,
//! and would silently go on with an older one, or with nothing.
//!
//! ```text
//! witness = "MQTTmark", version u32, 0 u32, segment u64, next u64, checksum u32, 0 u32
//! ```
//!
//! It is written when a checkpoint is on disk, and before the segments are removed that this has made superfluous. So the
//! checkpoint goes as far, or farther if the machine has stopped in between.

use std::io::{self, IoSlice};

use super::disk::{Disk, read_full_at, write_all_at};
use super::reader::Mark;

/// Its file, and what that is called while it is not whole.
pub(super) const NAME: &str = "checkpoint.mark";
const UNFINISHED: &str = "checkpoint.mark.new";

const MAGIC: [u8; 8] = *b"MQTTmark";
const VERSION: u32 = 1;
const BYTES: usize = 40;
const CHECKSUM_AT: usize = 32;

/// Says that a checkpoint goes up to a mark. It is on disk when this returns.
///
/// # Errors
/// What the disk says. What was said before stands.
pub(super) fn write(disk: &dyn Disk, mark: Mark) -> io::Result<()> {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&mark.segment.to_le_bytes());
    bytes[24..32].copy_from_slice(&mark.next.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
    bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    let file = disk.create(UNFINISHED)?;
    write_all_at(&*file, &mut [IoSlice::new(&bytes)], 0)?;
    file.sync()?;
    disk.rename(UNFINISHED, NAME)?;
    disk.sync()
}

/// Up to which segment and journal a checkpoint goes at least. `None`: nobody has said so.
///
/// # Errors
/// What the disk says, and [`io::ErrorKind::InvalidData`] if it is damaged.
pub(super) fn read(disk: &dyn Disk) -> io::Result<Option<(u64, u64)>> {
    let file = match disk.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; BYTES];
    let is_whole = read_full_at(&*file, &mut bytes, 0)? == BYTES;
    let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]).to_le_bytes();
    if !is_whole || bytes[..8] != MAGIC || bytes[CHECKSUM_AT..CHECKSUM_AT + 4] != checksum {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not say how far the checkpoint goes"));
    }
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    Ok(Some((number(16), number(24))))
}
