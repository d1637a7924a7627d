//! The files of a store: how they begin, and the groups of journals in them. All numbers are little-endian.
//!
//! ```text
//! segment = header, zeros up to byte 4096, header once more, group, group, …
//! header  = "MQTTjrnl", version u32, salt u32, number u64, first u64, workers u32, 0 u32, checksum u32, 0 u32
//! group   = "Grp1", checksum u32, length u64, first u64, synced u64, count u32, header's checksum u32, then `length` bytes:
//!           for each journal worker u32 and length u64; then the journals
//! ```
//!
//! The header is there twice, as without it nothing else can be known for what it is; the two are on different pages.
//!
//! `first` is the number of the first journal; those that follow have the numbers that follow.
//!
//! The header of a segment has this form in all versions. A checksum is a CRC-32: that of a group of all that follows it, that of a header of what precedes it (in a group: from the
//! length on). Those of groups begin with the salt of their segment, which nobody outside knows: what a client sends cannot
//! pass for a group, nor can what another segment has left on the disk.

use super::disk::{DiskFile, read_full_at};
use crate::durable::queue::Entry;

/// The version of the format that is written here.
pub const VERSION: u32 = 1;

/// How long the header of a segment is, and where it stands for the second time.
pub(super) const ONE_HEADER_BYTES: usize = 48;
const SECOND_HEADER_AT: usize = 4096;

/// Where its first group begins.
pub const HEADER_BYTES: u64 = (SECOND_HEADER_AT + ONE_HEADER_BYTES) as u64;

/// How long the header of a group is.
pub(super) const GROUP_HEADER_BYTES: usize = 40;

/// How much of the table of a group each journal takes.
const TABLE_ENTRY_BYTES: usize = 12;

const SEGMENT_MAGIC: [u8; 8] = *b"MQTTjrnl";
pub(super) const GROUP_MAGIC: [u8; 4] = *b"Grp1";

/// What the name of a segment ends with.
const SUFFIX: &str = ".journal";

/// The name of a segment's file.
#[must_use]
pub fn name_of(number: u64) -> String {
    format!("{number:010}{SUFFIX}")
}

/// The number of a segment, if a file of this name is one.
#[must_use]
pub fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (name_of(number) == name).then_some(number)
}

/// How a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What the checksums of its groups begin with.
    pub salt: u32,
    /// Its number, as in its name.
    pub number: u64,
    /// The number of the journal that comes first in it. Those from that on in earlier segments do not count: they were not
    /// safe, and were written once more.
    pub first: u64,
    /// How many workers the server had that wrote it.
    pub workers: u32,
}

/// Why a file is not a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// A server that is newer has written it, in this version of the format.
    Newer(u32),
    /// It is damaged, or was not written to its end.
    Damaged(&'static str),
}

impl SegmentHeader {
    /// The file up to its first group.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut one = [0; ONE_HEADER_BYTES];
        one[..8].copy_from_slice(&SEGMENT_MAGIC);
        one[8..12].copy_from_slice(&VERSION.to_le_bytes());
        one[12..16].copy_from_slice(&self.salt.to_le_bytes());
        one[16..24].copy_from_slice(&self.number.to_le_bytes());
        one[24..32].copy_from_slice(&self.first.to_le_bytes());
        one[32..36].copy_from_slice(&self.workers.to_le_bytes());
        let checksum = crc32fast::hash(&one[..40]);
        one[40..44].copy_from_slice(&checksum.to_le_bytes());
        let mut both = one.to_vec();
        both.resize(SECOND_HEADER_AT, 0);
        both.extend_from_slice(&one);
        both
    }

    /// Reads the header of a file, which says that it is segment `number`.
    pub(super) fn read(file: &dyn DiskFile, number: u64) -> std::io::Result<Result<Self, NoHeader>> {
        let read_one = |at: usize| -> std::io::Result<_> {
            let mut bytes = [0; ONE_HEADER_BYTES];
            let read = read_full_at(file, &mut bytes, at as u64)?;
            Ok(Self::decode(&bytes[..read], number))
        };
        match read_one(0)? {
            // What is wrong with the first one says more.
            Err(NoHeader::Damaged(what)) => Ok(read_one(SECOND_HEADER_AT)?.map_err(|second| match second {
                NoHeader::Damaged(_) => NoHeader::Damaged(what),
                newer @ NoHeader::Newer(_) => newer,
            })),
            found => Ok(found),
        }
    }

    /// The header of a segment of version 0, which has it once. `None` if it is another one, or damaged.
    pub(super) fn read_version_0(file: &dyn DiskFile, number: u64) -> std::io::Result<Option<Self>> {
        let mut bytes = [0; ONE_HEADER_BYTES];
        let is_whole = read_full_at(file, &mut bytes, 0)? == bytes.len();
        let is_one = is_whole
            && bytes[..8] == SEGMENT_MAGIC
            && u32_at(&bytes, 8) == 0
            && u32_at(&bytes, 40) == crc32fast::hash(&bytes[..40]);
        Ok(if is_one { Self::decode_fields(&bytes, number).ok() } else { None })
    }

    fn decode(bytes: &[u8], number: u64) -> Result<Self, NoHeader> {
        if bytes.len() < ONE_HEADER_BYTES {
            return Err(NoHeader::Damaged("it ends within its header"));
        }
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(NoHeader::Damaged("it does not begin like a segment of the journal"));
        }
        let version = u32_at(bytes, 8);
        // It stands here in all versions.
        if u32_at(bytes, 40) != crc32fast::hash(&bytes[..40]) {
            return Err(NoHeader::Damaged("the checksum of its header is wrong"));
        }
        match version {
            VERSION => {}
            0 => return Err(NoHeader::Damaged("it is of an older version, and has not been migrated")),
            newer => return Err(NoHeader::Newer(newer)),
        }
        Self::decode_fields(bytes, number)
    }

    /// What stands in a header whose checksum is right.
    fn decode_fields(bytes: &[u8], number: u64) -> Result<Self, NoHeader> {
        let header = Self {
            salt: u32_at(bytes, 12),
            number: u64_at(bytes, 16),
            first: u64_at(bytes, 24),
            workers: u32_at(bytes, 32),
        };
        if header.number != number {
            return Err(NoHeader::Damaged("its header has the number of another segment"));
        }
        Ok(header)
    }
}

/// Makes the header of a group with its table: what stands before these journals, of which there is at least one. All up to
/// `synced` are on disk.
pub(super) fn encode_group(entries: &[Entry], salt: u32, synced: u64, into: &mut Vec<u8>) {
    let table_bytes = entries.len() * TABLE_ENTRY_BYTES;
    let length = table_bytes + entries.iter().map(|entry| entry.journal.len()).sum::<usize>();
    let count = u32::try_from(entries.len()).expect("a group has few entries");
    into.clear();
    into.extend_from_slice(&GROUP_MAGIC);
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&(length as u64).to_le_bytes());
    into.extend_from_slice(&entries[0].number.to_le_bytes());
    into.extend_from_slice(&synced.to_le_bytes());
    into.extend_from_slice(&count.to_le_bytes());
    let of_header = salted(salt, &into[8..36]).finalize();
    into.extend_from_slice(&of_header.to_le_bytes());
    for entry in entries {
        into.extend_from_slice(&entry.worker.to_le_bytes());
        into.extend_from_slice(&(entry.journal.len() as u64).to_le_bytes());
    }
    let mut checksum = salted(salt, &into[8..]);
    entries.iter().for_each(|entry| checksum.update(&entry.journal));
    into[4..8].copy_from_slice(&checksum.finalize().to_le_bytes());
}

/// The checksum of some bytes of a group, so far.
fn salted(salt: u32, bytes: &[u8]) -> crc32fast::Hasher {
    let mut checksum = crc32fast::Hasher::new_with_initial(salt);
    checksum.update(bytes);
    checksum
}

/// What stands in the header of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHeader {
    checksum: u32,
    /// Of what follows it, in bytes.
    pub(super) length: u64,
    /// The number of its first journal.
    pub(super) first: u64,
    /// All journals up to this one were on disk when it was written.
    pub(super) synced: u64,
    /// How many journals it has.
    pub(super) count: u32,
}

impl GroupHeader {
    /// `None` if none begins here.
    pub(super) fn decode(bytes: &[u8; GROUP_HEADER_BYTES], salt: u32) -> Option<Self> {
        let is_one = bytes[..4] == GROUP_MAGIC && u32_at(bytes, 36) == salted(salt, &bytes[8..36]).finalize();
        is_one.then(|| Self {
            checksum: u32_at(bytes, 4),
            length: u64_at(bytes, 8),
            first: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
            count: u32_at(bytes, 32),
        })
    }

    /// Whether these bytes, header included, are what was written.
    pub(super) fn is_whole(&self, group: &[u8], salt: u32) -> bool {
        // What the table says cannot be wrong where the checksum is right, but for a bug that has written it.
        salted(salt, &group[8..]).finalize() == self.checksum && self.table_is_right(&group[GROUP_HEADER_BYTES..])
    }

    fn table_is_right(&self, body: &[u8]) -> bool {
        let Some(table) = body.get(..self.count as usize * TABLE_ENTRY_BYTES) else { return false };
        let lengths = table.chunks_exact(TABLE_ENTRY_BYTES).map(|entry| u64_at(entry, 4));
        let total = lengths.fold(table.len() as u64, u64::saturating_add);
        self.count > 0 && total == body.len() as u64 && self.first.checked_add(u64::from(self.count)).is_some()
    }
}

/// The journals of a group whose bytes are whole: worker, and where in `body`, which follows the header.
pub(super) fn journals_of(body: &[u8], count: u32) -> impl Iterator<Item = (u32, std::ops::Range<usize>)> {
    let (table, journals) = body.split_at(count as usize * TABLE_ENTRY_BYTES);
    let start = table.len();
    let mut at = 0;
    table.chunks_exact(TABLE_ENTRY_BYTES).map(move |entry| {
        let length = usize::try_from(u64_at(entry, 4)).unwrap_or(usize::MAX).min(journals.len() - at);
        let range = start + at..start + at + length;
        at += length;
        (u32_at(entry, 0), range)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_segments_and_nothing_else() {
        for number in [1, 42, 9_999_999_999, 12_345_678_901, u64::MAX] {
            assert_eq!(number_of(&name_of(number)), Some(number));
        }
        for name in ["lock", "1.journal", "+000000001.journal", "0000000001.journal.damaged", "x000000001.journal"] {
            assert_eq!(number_of(name), None, "{name}");
        }
        assert!(name_of(2) < name_of(10));
    }

    #[test]
    fn header_comes_back_and_every_damage_of_it_is_found() {
        let header = SegmentHeader { salt: 0xdead_beef, number: 7, first: 99, workers: 2 };
        let both = header.encode();
        let (bytes, second) = (&both[..ONE_HEADER_BYTES], &both[SECOND_HEADER_AT..]);
        assert_eq!((both.len() as u64, bytes), (HEADER_BYTES, second));
        assert_eq!(SegmentHeader::decode(bytes, 7), Ok(header));
        assert!(matches!(SegmentHeader::decode(bytes, 8), Err(NoHeader::Damaged(_))));
        for length in 0..bytes.len() {
            assert!(matches!(SegmentHeader::decode(&bytes[..length], 7), Err(NoHeader::Damaged(_))));
        }
        for bit in 0..44 * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&damaged, 7).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn segment_of_a_later_version_is_known_for_one() {
        let mut bytes = SegmentHeader { salt: 1, number: 1, first: 1, workers: 1 }.encode();
        bytes[8] = 2;
        assert!(matches!(SegmentHeader::decode(&bytes, 1), Err(NoHeader::Damaged(_))));
        let checksum = crc32fast::hash(&bytes[..40]);
        bytes[40..44].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes, 1), Err(NoHeader::Newer(2)));
    }

    #[test]
    fn group_comes_back_and_every_damage_of_it_is_found() {
        let entry = |number, worker, journal: &[u8]| Entry { number, worker, journal: journal.to_vec() };
        let entries = [entry(5, 1, b"abc"), entry(6, 0, b""), entry(7, 63, b"0123456789")];
        let mut group = Vec::new();
        encode_group(&entries, 77, 4, &mut group);
        entries.iter().for_each(|entry| group.extend_from_slice(&entry.journal));
        let is_whole = |group: &[u8], salt| {
            GroupHeader::decode(group[..GROUP_HEADER_BYTES].try_into().unwrap(), salt)
                .is_some_and(|header| header.is_whole(group, salt))
        };
        assert!(is_whole(&group, 77) && !is_whole(&group, 78));
        let header = GroupHeader::decode(group[..GROUP_HEADER_BYTES].try_into().unwrap(), 77).unwrap();
        assert_eq!((header.first, header.synced, header.count), (5, 4, 3));
        assert_eq!(header.length as usize, group.len() - GROUP_HEADER_BYTES);
        let body = &group[GROUP_HEADER_BYTES..];
        let found: Vec<_> = journals_of(body, header.count).map(|(worker, range)| (worker, &body[range])).collect();
        assert_eq!(found, [(1, &b"abc"[..]), (0, b""), (63, b"0123456789")]);
        for bit in 0..group.len() * 8 {
            let mut damaged = group.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_whole(&damaged, 77), "bit {bit}");
        }
    }
}
