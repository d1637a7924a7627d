//! A store from lines of JSON, as an export has written them: see [`Line`].
//!
//! It is made in a directory within that of the store, read again and compared with what the lines say, and only then moved to
//! where it belongs: what has been interrupted or refused is not there. The checkpoint is moved first, which is whole by itself;
//! how far it goes, which is only said to be compared, follows.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use super::export::{ExportError, Sum, sum};
use super::fill::{Fill, FillError};
use super::load::{CHECKPOINT, OpenError, Opened};
use super::witness;
use crate::durable::line::{Counts, Line, Writing};

/// Where it is made.
const UNFINISHED: &str = "import.new";

/// What may be in a directory that is taken for an empty one.
const NOTHING: [&str; 2] = ["lock", "lost+found"];

/// The longest line, in bytes: the longest payload if each byte of it takes six, and what else there is.
const LINE_BYTES_MAX: u64 = 2 << 30;

/// Why nothing was imported.
#[derive(Debug)]
pub enum ImportError {
    /// There is something in the directory.
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One thing that is there.
        name: String,
    },
    /// A line is not what can stand there.
    Line {
        /// Which one, counted from 1.
        number: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The lines cannot be read.
    Read(io::Error),
    /// The store cannot be made.
    Make(FillError),
    /// It has been made, and something else is in it than the lines say.
    Differs {
        /// What they say.
        said: Counts,
        /// What is there.
        found: Counts,
    },
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmpty { path, name } => write!(
                f,
                "{} is not empty: {name} is there. Expected a directory in which nothing is kept, or none",
                path.display()
            ),
            Self::Line { number, what } => write!(f, "line {number}: {what}"),
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Make(error) => write!(f, "the store cannot be made: {error}"),
            Self::Differs { said, found } => {
                write!(
                    f,
                    "the store was made and read again: it has {found}, expected {said}, and just what the lines say"
                )
            }
        }
    }
}

impl std::error::Error for ImportError {}

impl From<OpenError> for ImportError {
    fn from(error: OpenError) -> Self {
        Self::Make(error.into())
    }
}

impl From<io::Error> for ImportError {
    fn from(error: io::Error) -> Self {
        Self::Make(error.into())
    }
}

impl From<ExportError> for ImportError {
    fn from(error: ExportError) -> Self {
        Self::Make(error.into())
    }
}

/// Makes a store in a directory in which nothing is kept, and which nobody else has, and says how much is in it. What is in
/// memory is a line, and what there is of sessions and names.
///
/// # Errors
/// See [`ImportError`]; then nothing is in the directory.
pub fn import(path: &Path, lines: &mut dyn BufRead) -> Result<Counts, ImportError> {
    let unfinished = path.join(UNFINISHED);
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != UNFINISHED && !NOTHING.contains(&&*name) {
            return Err(ImportError::NotEmpty { path: path.to_owned(), name });
        }
    }
    remove(&unfinished)?;
    let made = make(&unfinished, lines);
    if made.is_ok() {
        // All that counts is in them. Where there was nothing to keep, nobody has said how far that goes.
        for name in [CHECKPOINT, witness::NAME] {
            if unfinished.join(name).try_exists()? {
                fs::rename(unfinished.join(name), path.join(name))?;
            }
        }
        File::open(path)?.sync_all()?;
    }
    remove(&unfinished)?;
    made
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make(path: &Path, lines: &mut dyn BufRead) -> Result<Counts, ImportError> {
    let mut fill = Fill::new(Opened::open(path)?)?;
    let (mut writing, mut said, mut text, mut number) = (Writing::default(), Sum::default(), Vec::new(), 0);
    loop {
        number += 1;
        let at = |what: String| ImportError::Line { number, what };
        text.clear();
        let read = lines.take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut text).map_err(ImportError::Read)?;
        if read == 0 {
            break;
        }
        if read as u64 > LINE_BYTES_MAX {
            return Err(at(format!("it has more than {LINE_BYTES_MAX} bytes")));
        }
        let line = Line::parse(&text).map_err(at)?;
        let mut full = Vec::new();
        writing.add(number, &line, &mut |journal| full.push(journal)).map_err(at)?;
        if !matches!(line, Line::Export { .. } | Line::End(_)) {
            text.clear();
            line.write(&mut text);
            said.add(&text);
        }
        for journal in full {
            fill.put(journal).map_err(ImportError::Make)?;
        }
    }
    let counts = writing.counts().map_err(|what| ImportError::Line { number, what })?;
    fill.end().map_err(ImportError::Make)?;
    let (found, all) = sum(&Opened::open(path)?)?;
    if (found, all) == (counts, said) { Ok(counts) } else { Err(ImportError::Differs { said: counts, found }) }
}
