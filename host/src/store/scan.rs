//! Bytes of segments: some of a file at a time, and what is left in files behind a place where something is wrong.

use std::io::{self, IoSlice};

use super::disk::{Disk, DiskFile, read_full_at, write_all_at};
use super::reader::Mark;
use super::segment::{GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader, HEADER_BYTES, SegmentHeader, name_of};

/// What is read of a file at once, in bytes, unless a group is longer.
const WINDOW_BYTES: usize = 256 << 10;

/// A part of a file in memory, which moves on with what is read.
pub(super) struct Window {
    file: Box<dyn DiskFile>,
    /// Of the file, in bytes.
    pub(super) length: u64,
    /// Where in the file the part begins.
    from: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn new(file: Box<dyn DiskFile>, length: u64) -> Self {
        Self { file, length, from: 0, bytes: Vec::new() }
    }

    /// Bytes of the file that have been read, and are still here.
    pub(super) fn held(&self, from: u64, to: u64) -> &[u8] {
        let at = |place: u64| usize::try_from(place - self.from).expect("it is in memory");
        &self.bytes[at(from)..at(to)]
    }

    /// Reads so that these bytes are here.
    fn hold(&mut self, from: u64, to: u64) -> io::Result<()> {
        if self.from <= from && to <= self.from + self.bytes.len() as u64 {
            return Ok(());
        }
        let wanted = (to - from).max(WINDOW_BYTES as u64).min(self.length - from);
        let wanted = usize::try_from(wanted).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.from = from;
        self.bytes.resize(wanted, 0);
        let read = read_full_at(&*self.file, &mut self.bytes, from);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        if read? < wanted { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Reads the group that begins at this place, and checks it; or says what is wrong with it. Then it is [`Window::held`].
    pub(super) fn read_group(&mut self, at: u64, salt: u32) -> io::Result<Result<GroupHeader, &'static str>> {
        let left = self.length.saturating_sub(at);
        if left < GROUP_HEADER_BYTES as u64 {
            return Ok(Err("the file ends within the header of a group"));
        }
        let behind_header = at + GROUP_HEADER_BYTES as u64;
        self.hold(at, behind_header)?;
        let header = self.held(at, behind_header).try_into().expect("as long as a header");
        let Some(header) = GroupHeader::decode(header, salt) else {
            return Ok(Err("no group begins here"));
        };
        if header.length > self.length - behind_header {
            return Ok(Err("the file ends within a group"));
        }
        self.hold(at, behind_header + header.length)?;
        let is_whole = header.is_whole(self.held(at, behind_header + header.length), salt);
        Ok(if is_whole { Ok(header) } else { Err("the checksum of a group is wrong") })
    }
}

/// What stands behind a place where something is wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    /// How much it is, in bytes.
    pub(super) bytes: u64,
    /// Groups in it that are whole.
    pub(super) groups: u64,
    /// There is a file in it that has no header, and more than that.
    pub(super) is_obscure: bool,
    /// Up to this number everything had been on disk when they were written.
    pub(super) synced: u64,
}

impl Behind {
    /// Looks into these segments, of which those before the mark are left out.
    pub(super) fn find(disk: &dyn Disk, numbers: &[u64], mark: Mark) -> io::Result<Self> {
        let mut behind = Self::default();
        for &number in numbers.iter().filter(|number| **number >= mark.segment) {
            let from = if number == mark.segment { mark.offset } else { HEADER_BYTES };
            let file = disk.open(&name_of(number))?;
            let length = file.length()?;
            behind.bytes += length.saturating_sub(from);
            // Without its salt nothing in it can be known for a group.
            match SegmentHeader::read(&*file, number)? {
                Ok(header) => behind.look_into(file, from, length, header.salt)?,
                Err(_) => behind.is_obscure |= length > HEADER_BYTES,
            }
        }
        Ok(behind)
    }

    fn look_into(&mut self, file: Box<dyn DiskFile>, from: u64, length: u64, salt: u32) -> io::Result<()> {
        let mut window = Window::new(file, length);
        let mut at = from;
        while at + (GROUP_HEADER_BYTES as u64) < length {
            if let Ok(header) = window.read_group(at, salt)? {
                self.groups += 1;
                self.synced = self.synced.max(header.synced);
                at += GROUP_HEADER_BYTES as u64 + header.length;
                continue;
            }
            let to = (at + WINDOW_BYTES as u64).min(length);
            window.hold(at, to)?;
            let next = window.held(at + 1, to).windows(GROUP_MAGIC.len()).position(|bytes| bytes == GROUP_MAGIC);
            at = match next {
                Some(distance) => at + 1 + distance as u64,
                None if to == length => return Ok(()),
                None => to - GROUP_MAGIC.len() as u64 + 1,
            };
        }
        Ok(())
    }
}

/// Copies what stands in one file from a place on to a place of another one, which is on disk then.
pub(super) fn copy(from: &dyn DiskFile, mut offset: u64, to: &dyn DiskFile, mut written: u64) -> io::Result<()> {
    let mut bytes = vec![0; WINDOW_BYTES];
    loop {
        let read = read_full_at(from, &mut bytes, offset)?;
        if read == 0 {
            return to.sync();
        }
        write_all_at(to, &mut [IoSlice::new(&bytes[..read])], written)?;
        (offset, written) = (offset + read as u64, written + read as u64);
    }
}
