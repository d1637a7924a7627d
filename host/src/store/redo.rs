//! What a checkpoint is to do, written down in a file before any of it is done, where it is more than one transaction should
//! have in memory: whoever is stopped in the middle of it goes on with the file at the next start.
//!
//! The file has the steps in pieces: four bytes for the length of a piece, four for its checksum (CRC-32), and the piece; behind
//! the last one is a piece of no length. It gets its name when all of it is on disk, and is removed when all of it is done.
//! A step is a byte for what is done, and the key, and the value where there is one, with four bytes for the length before each.
//! Numbers are little-endian.

use std::io::{self, IoSlice};

use super::disk::{Disk, DiskFile, read_full_at, write_all_at};
use crate::durable::ReadJournal;
use crate::durable::model::Op;

/// The name of the file, and the one that it has before it is whole.
pub(super) const NAME: &str = "checkpoint.redo";
const UNFINISHED: &str = "checkpoint.redo.new";

/// A piece has so many bytes, or one value that has more. It is what one transaction has in memory.
const PIECE_BYTES: usize = if cfg!(test) { 4_000 } else { 4 << 20 };

/// Length and checksum of a piece.
const HEAD_BYTES: usize = 8;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const REMOVE_ALL: u8 = 3;

/// A step of a piece: see [`Op`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Put(&'a [u8], &'a [u8]),
    Remove(&'a [u8]),
    RemoveAll(&'a [u8]),
}

/// Appends steps, from the first of these on, until they are a piece.
///
/// # Errors
/// What the journal's reader says.
pub(super) fn compose(
    ops: &mut impl Iterator<Item = Op>,
    journal: &mut dyn ReadJournal,
    piece: &mut Vec<u8>,
) -> io::Result<()> {
    while piece.len() < PIECE_BYTES {
        match ops.next() {
            None => break,
            Some(Op::Put(key, value)) => {
                put(PUT, &key, piece);
                let length_at = piece.len();
                piece.extend_from_slice(&[0; 4]);
                value.write(journal, piece)?;
                let length = length_of(piece.len() - length_at - 4).to_le_bytes();
                piece[length_at..length_at + 4].copy_from_slice(&length);
            }
            Some(Op::Remove(key)) => put(REMOVE, &key, piece),
            Some(Op::RemoveAll(prefix)) => put(REMOVE_ALL, &prefix, piece),
        }
    }
    Ok(())
}

fn put(kind: u8, key: &[u8], piece: &mut Vec<u8>) {
    piece.push(kind);
    piece.extend_from_slice(&length_of(key.len()).to_le_bytes());
    piece.extend_from_slice(key);
}

/// Packets are bounded far below.
fn length_of(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("less than 4 GiB")
}

/// The steps of a piece.
pub(super) fn steps(mut piece: &[u8]) -> impl Iterator<Item = io::Result<Step<'_>>> {
    std::iter::from_fn(move || {
        if piece.is_empty() {
            return None;
        }
        let step = step(&mut piece);
        if step.is_none() {
            piece = &[];
        }
        Some(step.ok_or_else(|| damaged("a step in it is none")))
    })
}

fn step<'a>(piece: &mut &'a [u8]) -> Option<Step<'a>> {
    let kind = *piece.split_off_first()?;
    let mut bytes = || {
        let (length, rest) = piece.split_first_chunk()?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        *piece = rest;
        Some(bytes)
    };
    Some(match kind {
        PUT => Step::Put(bytes()?, bytes()?),
        REMOVE => Step::Remove(bytes()?),
        REMOVE_ALL => Step::RemoveAll(bytes()?),
        _ => return None,
    })
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{NAME}: {what}"))
}

/// A file that is being written.
pub(super) struct Writing {
    file: Box<dyn DiskFile>,
    length: u64,
}

impl Writing {
    /// Begins one. Whatever is left of one that was not finished goes.
    ///
    /// # Errors
    /// As [`Disk::create`].
    pub(super) fn begin(disk: &dyn Disk) -> io::Result<Self> {
        Ok(Self { file: disk.create(UNFINISHED)?, length: 0 })
    }

    /// Writes a piece.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        let head = [length_of(piece.len()), crc32fast::hash(piece)].map(u32::to_le_bytes);
        let parts = &mut [IoSlice::new(head.as_flattened()), IoSlice::new(piece)];
        write_all_at(&*self.file, parts, self.length)?;
        self.length += (HEAD_BYTES + piece.len()) as u64;
        Ok(())
    }

    /// All of it is written: it is on disk when this returns, under its name.
    ///
    /// # Errors
    /// It may be there or not.
    pub(super) fn finish(mut self, disk: &dyn Disk) -> io::Result<()> {
        self.put(&[])?;
        self.file.sync()?;
        disk.rename(UNFINISHED, NAME)?;
        disk.sync()
    }
}

/// Whether there is something to be done.
///
/// # Errors
/// The operating system cannot say.
pub(super) fn is_there(disk: &dyn Disk) -> io::Result<bool> {
    Ok(disk.names()?.iter().any(|name| name == NAME))
}

/// Gives all pieces in their order.
///
/// # Errors
/// It is damaged ([`io::ErrorKind::InvalidData`]), cannot be read, or what `each` says.
pub(super) fn each(disk: &dyn Disk, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let file = disk.open(NAME)?;
    let (mut piece, mut at, end) = (Vec::new(), 0, file.length()?);
    loop {
        let mut head = [0; HEAD_BYTES];
        let is_whole = read_full_at(&*file, &mut head, at)? == HEAD_BYTES;
        let [length, checksum] = [0, 4].map(|from| head[from..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b)));
        at += HEAD_BYTES as u64;
        if !is_whole || at + u64::from(length) > end {
            return Err(damaged("it is cut off"));
        }
        piece.resize(length as usize, 0);
        read_full_at(&*file, &mut piece, at)?;
        if crc32fast::hash(&piece) != checksum {
            return Err(damaged(&format!("the checksum of what stands at byte {at} is wrong")));
        }
        if piece.is_empty() {
            return Ok(());
        }
        each(&piece)?;
        at += u64::from(length);
    }
}

/// All of it is done, and on disk. Returns when the file is gone for good: it must not come back behind what is done next.
///
/// # Errors
/// It may be there or not.
pub(super) fn remove(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(NAME)?;
    disk.sync()
}

/// Removes what is left of one that was not finished, as far as that is possible.
pub(super) fn tidy(disk: &dyn Disk) {
    let _ = disk.remove(UNFINISHED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_what_was_composed() {
        let mut piece = Vec::new();
        let ops = [Op::Remove(b"a".to_vec()), Op::RemoveAll(b"bc".to_vec())];
        struct None;
        impl ReadJournal for None {
            fn read(&mut self, _: crate::durable::model::Place, _: &mut Vec<u8>) -> io::Result<()> {
                unreachable!()
            }
        }
        compose(&mut ops.into_iter(), &mut None, &mut piece).unwrap();
        let read: Vec<_> = steps(&piece).map(Result::unwrap).collect();
        assert_eq!(read, [Step::Remove(b"a"), Step::RemoveAll(b"bc")]);
        for end in 1..piece.len() {
            let is_wrong = steps(&piece[..end]).any(|step| step.is_err());
            assert_eq!(is_wrong, end != 6, "{end}");
        }
        assert!(steps(&[9, 0, 0, 0, 0]).next().unwrap().is_err());
    }
}
