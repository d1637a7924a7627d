//! Reads what was written, from a mark on, and finds where it ends.
//!
//! The end is the first group that is not whole, if nothing shows that it was on disk once: then it, and what follows, was
//! being written when the machine stopped, and is a *torn tail*. Each group says up to where everything was on disk when it was
//! written. If one that comes later says so of the one that is not whole, the file was damaged afterwards.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::Disk;
use super::scan::{self, Behind, Window};
use super::segment::{
    GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES, NoHeader, SegmentHeader, VERSION, journals_of, name_of, number_of,
};

/// A place between two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The number of the segment.
    pub segment: u64,
    /// How far from the beginning of its file, in bytes.
    pub offset: u64,
    /// The number of the journal that comes next.
    pub next: u64,
}

impl Mark {
    /// Where a store begins that is new.
    pub const START: Self = Self::beginning(1, 1);

    /// Before the first group of a segment.
    pub(super) const fn beginning(segment: u64, next: u64) -> Self {
        Self { segment, offset: HEADER_BYTES, next }
    }
}

/// A journal, where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written<'a> {
    /// Its number.
    pub number: u64,
    /// The worker that has handed it over.
    pub worker: u32,
    /// How many workers there were.
    pub workers: u32,
    /// The segment that it is in.
    pub segment: u64,
    /// Where in the file of that segment its first byte is.
    pub offset: u64,
    /// Its bytes.
    pub journal: &'a [u8],
}

/// Journals that were written at once. Their checksum is right.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    header: GroupHeader,
    segment: SegmentHeader,
    /// Where its bytes behind the header begin, in the file.
    offset: u64,
    body: &'a [u8],
}

impl<'a> Group<'a> {
    /// The journals in it, in order.
    pub fn journals(&self) -> impl Iterator<Item = Written<'a>> + use<'a> {
        let Self { header, segment, offset, body } = *self;
        (header.first..).zip(journals_of(body, header.count)).map(move |(number, (worker, range))| Written {
            number,
            worker,
            workers: segment.workers,
            segment: segment.number,
            offset: offset + range.start as u64,
            journal: &body[range],
        })
    }
}

/// Why what was written cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The operating system cannot read it.
    System {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// A server that is newer has written it.
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        version: u32,
    },
    /// What had been on disk is there no more.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { path, source } => write!(f, "{}: cannot be read: {source}", path.display()),
            Self::Newer { path, version } => write!(
                f,
                "{}: a newer host has written it, in version {version} of the format; this one reads up to version {VERSION}: \
                 use the newer one",
                path.display()
            ),
            Self::Damaged { path, offset, what } => write!(
                f,
                "{}: damaged at byte {offset}: {what}; restore a backup of the directory, or run `host store check --repair` \
                 on it, which goes on with what stands before it and sets aside what follows",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            Self::Newer { .. } | Self::Damaged { .. } => None,
        }
    }
}

/// What stands behind the last whole group, and counts no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The file in which it begins.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: &'static str,
    /// How much it is, in that file and those behind it.
    pub bytes: u64,
    /// Whole groups in it. There are some if the machine has stopped, and the disk has kept the later and not the earlier.
    pub groups: u64,
    /// There may be something in it that somebody wants to look at.
    is_of_worth: bool,
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, offset, what, bytes, groups, .. } = self;
        write!(f, "{}: {bytes} bytes from byte {offset} on, with {groups} whole groups: {what}", path.display())
    }
}

/// What is wrong where a segment should be.
const MISSING: &str = "this file is missing";

/// Reads groups in their order. See the module.
pub struct Reader {
    disk: Arc<dyn Disk>,
    /// Where the group that is read next begins.
    mark: Mark,
    /// Read no further than this; what comes before was written to its end.
    until: Option<Mark>,
    /// The segments from the first mark on that there are, by number.
    numbers: Vec<u64>,
    /// The one that the mark is in.
    open: Option<Open>,
    tail: Option<Tail>,
    is_at_end: bool,
}

struct Open {
    bytes: Window,
    header: SegmentHeader,
    /// Journals from this number on are in a later segment.
    superseded_from: u64,
}

/// What was found at a mark.
enum Step {
    Group(GroupHeader),
    /// Nothing more in this segment.
    Over,
    /// This is wrong with what stands there.
    NotWhole(&'static str),
}

impl Reader {
    /// Reads from a mark on: [`Mark::START`], or one that a checkpoint goes up to. Up to another one if it is given, where a
    /// store is writing behind that.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open(disk: Arc<dyn Disk>, from: Mark, until: Option<Mark>) -> Result<Self, ReadError> {
        let names = disk.names().map_err(|source| ReadError::System { path: disk.path_of(""), source })?;
        let wanted = from.segment..=until.map_or(u64::MAX, |until| until.segment);
        let mut numbers: Vec<_> =
            names.iter().filter_map(|name| number_of(name)).filter(|number| wanted.contains(number)).collect();
        numbers.sort_unstable();
        Ok(Self { disk, mark: from, until, numbers, open: None, tail: None, is_at_end: false })
    }

    /// The next group; `None` at the end.
    ///
    /// # Errors
    /// What was written is damaged, or cannot be read. [`Reader::mark`] stands before it.
    #[expect(clippy::should_implement_trait, reason = "the group is lent, which an iterator cannot do")]
    pub fn next(&mut self) -> Result<Option<Group<'_>>, ReadError> {
        let header = loop {
            if let Some(until) = self.until.filter(|until| self.mark.next >= until.next) {
                (self.mark, self.is_at_end) = (until, true);
            }
            if self.is_at_end {
                return Ok(None);
            }
            if self.open.is_none() && !self.enter()? {
                continue;
            }
            match self.read_group()? {
                Step::Group(header) => break header,
                Step::Over => self.leave(),
                Step::NotWhole(what) => self.stop_at(what)?,
            }
        };
        let (begin, open) = (self.mark.offset, self.open.as_mut().expect("it was read from"));
        let offset = begin + GROUP_HEADER_BYTES as u64;
        self.mark.offset = offset + header.length;
        self.mark.next = header.first + u64::from(header.count);
        let body = &open.bytes.held(begin, self.mark.offset)[GROUP_HEADER_BYTES..];
        Ok(Some(Group { header, segment: open.header, offset, body }))
    }

    /// Behind the group that was read last.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// What stands behind the end and counts no more, once the end has been read.
    #[must_use]
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    /// Sets aside what stands behind the mark, in files whose names end with `.cut`, or removes it if there is nothing in it.
    /// Returns where to go on writing: in a new segment. Everything before is on disk then.
    ///
    /// To be called once everything has been read; or after [`ReadError::Damaged`], to go on with what stands before it.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn cut(self) -> io::Result<Mark> {
        let Self { disk, mark, numbers, tail, is_at_end, .. } = self;
        let is_worthless = is_at_end && !tail.is_some_and(|tail| tail.is_of_worth);
        let mut next = Mark::beginning(mark.segment, mark.next);
        for number in numbers {
            let name = name_of(number);
            let cut = format!("{name}.cut");
            if number > mark.segment || number == mark.segment && mark.offset <= HEADER_BYTES {
                // Nothing in it counts.
                if is_worthless {
                    disk.remove(&name)?
                } else {
                    disk.rename(&name, &cut)?
                }
                continue;
            }
            next.segment = number + 1;
            let file = disk.open(&name)?;
            if number == mark.segment && file.length()? > mark.offset {
                if !is_worthless {
                    scan::copy(&*file, mark.offset, &*disk.create(&cut)?, 0)?;
                }
                file.truncate(mark.offset)?;
            }
            // It may have been written just before the last server was killed. What is promised from now on stands on it.
            file.sync()?;
        }
        disk.sync()?;
        Ok(next)
    }

    /// Opens the segment that the mark is in. `false` if it cannot be read from.
    fn enter(&mut self) -> Result<bool, ReadError> {
        let number = self.mark.segment;
        let later = self.numbers.partition_point(|found| *found < number);
        if self.numbers.get(later) != Some(&number) {
            if later == self.numbers.len() && self.until.is_none() {
                // Nothing has been written behind the mark.
                self.is_at_end = true;
            } else {
                self.stop_at(MISSING)?;
            }
            return Ok(false);
        }
        let file = self.disk.open(&name_of(number)).map_err(|source| self.system(source))?;
        let header = match SegmentHeader::read(&*file, number).map_err(|source| self.system(source))? {
            Ok(header) => header,
            Err(NoHeader::Newer(version)) => return Err(ReadError::Newer { path: self.path(), version }),
            Err(NoHeader::Damaged(what)) => {
                self.stop_at(what)?;
                return Ok(false);
            }
        };
        if header.first > self.mark.next {
            self.stop_at("what should stand before its first group is missing")?;
            return Ok(false);
        }
        let length = file.length().map_err(|source| self.system(source))?;
        let superseded_from = self.later_first()?.map_or(u64::MAX, |(_, first)| first);
        self.open = Some(Open { bytes: Window::new(file, length), header, superseded_from });
        Ok(true)
    }

    /// The segment behind that of the mark, and the number of its first journal, if it says one.
    fn later_first(&self) -> Result<Option<(u64, u64)>, ReadError> {
        let later = self.numbers.partition_point(|found| *found <= self.mark.segment);
        let Some(&number) = self.numbers.get(later) else { return Ok(None) };
        let name = name_of(number);
        let read = self.disk.open(&name).and_then(|file| SegmentHeader::read(&*file, number));
        let header = read.map_err(|source| ReadError::System { path: self.disk.path_of(&name), source })?;
        // Whatever is wrong with it is told when it is its turn.
        Ok(header.ok().map(|header| (number, header.first)))
    }

    fn read_group(&mut self) -> Result<Step, ReadError> {
        let Mark { offset, next, .. } = self.mark;
        let Some(open) = &mut self.open else { return Ok(Step::Over) };
        if next >= open.superseded_from || offset == open.bytes.length {
            return Ok(Step::Over);
        }
        let read = open.bytes.read_group(offset, open.header.salt);
        Ok(match read.map_err(|source| self.system(source))? {
            Err(what) => Step::NotWhole(what),
            Ok(header) if header.first != next => Step::NotWhole("a group has other numbers than it should"),
            Ok(header) => Step::Group(header),
        })
    }

    /// Goes on with the next segment, if there is one or should be.
    fn leave(&mut self) {
        if self.until.is_none() && self.numbers.last().is_none_or(|last| *last <= self.mark.segment) {
            self.is_at_end = true;
            return;
        }
        self.open = None;
        self.mark = Mark::beginning(self.mark.segment + 1, self.mark.next);
    }

    /// What stands at the mark is not whole. Either it does not count, or it is the end, or it was damaged.
    fn stop_at(&mut self, what: &'static str) -> Result<(), ReadError> {
        if let Some((segment, first)) = self.later_first()?
            && first <= self.mark.next
        {
            self.open = None;
            self.mark = Mark::beginning(segment, self.mark.next);
            return Ok(());
        }
        let (path, offset) = (self.path(), self.mark.offset);
        let behind = Behind::find(&*self.disk, &self.numbers, self.mark).map_err(|source| self.system(source))?;
        if self.until.is_some() || behind.synced >= self.mark.next {
            return Err(ReadError::Damaged { path, offset, what });
        }
        let Behind { bytes, groups, is_obscure, .. } = behind;
        self.tail = Some(Tail { path, offset, what, bytes, groups, is_of_worth: groups > 0 || is_obscure });
        self.is_at_end = true;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.disk.path_of(&name_of(self.mark.segment))
    }

    fn system(&self, source: io::Error) -> ReadError {
        ReadError::System { path: self.path(), source }
    }
}
