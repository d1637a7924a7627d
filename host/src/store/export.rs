//! What was kept as lines of JSON: see [`Line`]. One line is in memory at a time, and one piece of what is read.

use std::fmt;
use std::hash::BuildHasher;
use std::io::{self, Write};

use foldhash::fast::FixedState;

use super::load::{OpenError, Opened};
use crate::durable::line::{Counts, FORMAT, Line, Misfit, Reading};

/// Why there is no export.
#[derive(Debug)]
pub enum ExportError {
    /// What was kept cannot be read.
    Open(OpenError),
    /// What was read does not fit together.
    Misfit(Misfit),
    /// It cannot be written.
    Write(io::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Misfit(Misfit(what)) => write!(f, "what is kept does not fit together: {what}"),
            Self::Write(error) => write!(f, "the export cannot be written: {error}"),
        }
    }
}

impl std::error::Error for ExportError {}

impl From<Misfit> for ExportError {
    fn from(error: Misfit) -> Self {
        Self::Misfit(error)
    }
}

/// What lines say, whatever their order: two stores with the same sum have the same in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum(u64, u64);

impl Sum {
    /// Adds the text of a line.
    pub(super) fn add(&mut self, line: &[u8]) {
        let hash = |seed| FixedState::with_seed(seed).hash_one(line);
        *self = Self(self.0.wrapping_add(hash(1)), self.1.wrapping_add(hash(2)));
    }
}

/// Writes all that was kept, one JSON object a line, and says how much that is. `out` had better be buffered.
///
/// # Errors
/// See [`ExportError`]. What was written up to then has no last line, which who reads it is told.
pub fn export(opened: &Opened, out: &mut dyn Write) -> Result<Counts, ExportError> {
    let mut lines = Lines { out, buffer: Vec::new(), counts: Counts::default(), sum: Sum::default() };
    lines.put(&Line::Export { format: FORMAT, host: env!("CARGO_PKG_VERSION").into() })?;
    lines.give(opened)?;
    let counts = lines.counts;
    lines.put(&Line::End(counts))?;
    lines.out.flush().map_err(ExportError::Write)?;
    Ok(counts)
}

/// How much an export would say, and what, without its first line and its last.
pub(super) fn sum(opened: &Opened) -> Result<(Counts, Sum), ExportError> {
    let mut lines = Lines { out: &mut io::sink(), buffer: Vec::new(), counts: Counts::default(), sum: Sum::default() };
    lines.give(opened)?;
    Ok((lines.counts, lines.sum))
}

struct Lines<'a> {
    out: &'a mut dyn Write,
    /// The text of one.
    buffer: Vec<u8>,
    counts: Counts,
    sum: Sum,
}

impl Lines<'_> {
    fn give(&mut self, opened: &Opened) -> Result<(), ExportError> {
        let mut reading = Reading::default();
        let values = opened.values().map_err(ExportError::Open)?;
        reading.read(&values, &mut |line| self.put(line))?;
        let mut outcome = Ok(());
        let mut give = |changes: &[u8]| {
            if outcome.is_ok() {
                outcome = reading.read(changes, &mut |line| self.put(line));
            }
        };
        opened.give(1, &mut |piece| give(&piece.changes), &mut |_| {}).map_err(ExportError::Open)?;
        outcome
    }

    fn put(&mut self, line: &Line<'_>) -> Result<(), ExportError> {
        self.buffer.clear();
        line.write(&mut self.buffer);
        self.counts.add(line);
        self.sum.add(&self.buffer);
        self.out.write_all(&self.buffer).map_err(ExportError::Write)
    }
}
