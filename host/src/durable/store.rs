//! The seam between the workers and what keeps their journals.
//!
//! At the end of a turn a worker hands the journal of it over with [`Store::hand_over`], *before* its batches for other
//! workers, so that in the order of all journals a cause stands before its effect. It gets a number for it. What promises
//! something that stands in a journal is not sent before [`Store::safe_up_to`] has come to its number.
//!
//! When a server starts, [`Load::load`] brings back what was kept, before anybody is let in.

#[cfg(test)]
pub(crate) mod fake;

use std::fmt;

/// When a journal is safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing is written.
    None,
    /// When the operating system has it: the end of the process cannot lose it.
    #[default]
    Buffered,
    /// When the disk has it: the end of the machine cannot lose it.
    Fsync,
}

/// Keeps journals. Workers share one; none of its methods waits for a disk, or for long for anything else.
///
/// Whoever makes one gives it a function for each worker that wakes it. It is called on a thread of the store's when what the
/// worker [waits for](Store::wake_when_safe) is safe, after each change of [`Store::is_failing`], and when
/// [`Store::is_behind`] has ended.
pub trait Store: Send + Sync + fmt::Debug {
    /// Takes the journal of a worker's turn, as [`change`](super::change) has it. Leaves something empty in its place, with
    /// memory for the next one where there is some.
    ///
    /// Returns its number. Numbers begin with 1, in the life of a store's files, and grow over all workers, in the order in
    /// which journals will be applied; of two calls, the one that returns before the other begins has the smaller one. It may be called while the tree of retained
    /// messages is locked.
    fn hand_over(&self, worker: usize, journal: &mut Vec<u8>) -> u64;

    /// All journals up to this number are safe: at the beginning all those of earlier runs, 0 if there were none. It never goes
    /// back.
    fn safe_up_to(&self) -> u64;

    /// Has the worker woken once everything up to `number` is safe, whoever has handed it over. `true` if it is safe already:
    /// then it is not woken. Of several calls the last one counts.
    #[must_use]
    fn wake_when_safe(&self, worker: usize, number: u64) -> bool;

    /// Whether what was handed over last could not be kept, as the disk is full or fails: nothing new is to be accepted that
    /// would have to be kept. What was handed over is tried again until it succeeds.
    fn is_failing(&self) -> bool;

    /// Whether more waits to be written than there should: no client is to be read from for now.
    fn is_behind(&self) -> bool;

    /// Whether so much waits that nothing new is to be accepted that would have to be kept.
    fn is_full(&self) -> bool;
}

/// What was kept when the last server ended, in whatever way.
pub trait Load: Send {
    /// A journal with what plugins keep by keys, which they may ask for as soon as they are loaded: it comes before everything
    /// else, and [`Load::load`] leaves it out.
    ///
    /// # Errors
    /// As with [`Load::load`].
    fn values(&mut self) -> Result<Vec<u8>, LoadFailed>;

    /// Gives what was kept, in pieces of bounded size: each is a journal for one worker, in which stands what its changes refer
    /// to. Sessions go to the worker that owns their Client Identifier
    /// ([`owner_of`](crate::core::owner_of)), whatever workers there were. `progress` is told now and then how far it has
    /// come; `give` may wait until a worker has room.
    ///
    /// # Errors
    /// What was kept cannot be read. The text names the file, the place and what to do.
    fn load(
        self: Box<Self>,
        workers: usize,
        give: &mut dyn FnMut(Piece),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), LoadFailed>;
}

/// Changes for a worker.
#[derive(Debug)]
pub struct Piece {
    /// Who is to apply them.
    pub worker: usize,
    /// A journal, as [`change`](super::change) has it.
    pub changes: Vec<u8>,
}

/// How far loading has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sessions that have been given.
    pub sessions: u64,
    /// Messages that wait for sessions, or are in flight.
    pub messages: u64,
    /// Retained messages.
    pub retained: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, messages, retained } = self;
        write!(f, "{sessions} sessions, {messages} messages for them, {retained} retained messages")
    }
}

/// Why what was kept could not be loaded: the file, the place, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadFailed(pub String);

impl fmt::Display for LoadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadFailed {}
