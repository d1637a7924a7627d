//! What outlives the server, in files: journals are appended to segments, and checkpoints make segments superfluous.
//!
//! ```text
//! workers ─journals→ Queue ─→ thread "store": one group, one write (and one fdatasync) → "safe up to …" → workers
//!                                   │ a segment is full
//!                                   ↓
//!                         thread "store-keeper": Keeper::checkpoint, then the segments before it are removed
//! ```
//!
//! While a group is written, what is handed over meanwhile waits, and becomes the next one: the slower the disk, the larger
//! the groups, and the fewer.
//!
//! When a server starts, [`Reader`] gives what was written behind the last checkpoint, [`Reader::cut`] removes what was being
//! written when the machine stopped, and says where [`StoreThread::start`] goes on.

pub mod checkpoint;
pub mod disk;
mod export;
mod fill;
mod import;
mod keeper;
mod load;
mod migrate;
mod reader;
mod redo;
mod scan;
pub mod segment;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
mod witness;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use self::disk::Disk;
pub use self::export::{ExportError, export};
pub use self::fill::{Fill, FillError};
pub use self::import::{ImportError, import};
pub use self::keeper::{Keeper, remove_before};
pub use self::load::{Learn, OpenError, Opened, TakenOver, holds_something};
pub use self::migrate::Migrated;
pub use self::reader::{Group, Mark, ReadError, Reader, Tail, Written};
use self::writer::Writer;
pub use self::writer::{Baton, Settings};
use crate::durable::queue::{Entry, Queue, Wake};

/// Time between two attempts while nothing can be written, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Time that a store which cannot write goes on trying once it was asked to stop.
const STOP_PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 3_000 });

/// The threads of a store. Dropping it lets them go on; [`StoreThread::stop`] ends them.
#[derive(Debug)]
pub struct StoreThread {
    queue: Arc<Queue>,
    is_stopping: Arc<AtomicBool>,
    asked: Arc<Asked>,
    writer: JoinHandle<Result<(), NotWritten>>,
    keeper: JoinHandle<()>,
}

/// Who wants to know where another process may go on, once everything is written.
type Asked = Mutex<Option<SyncSender<Baton>>>;

/// Has a store write nothing more, as another process goes on with its files; or go on, after all.
#[derive(Debug, Clone)]
pub struct Brake {
    queue: Arc<Queue>,
    asked: Arc<Asked>,
    writer: Thread,
}

impl Brake {
    /// Has what was handed over written; what is handed over from then on waits. Returns where the other process goes on. `None`:
    /// not by `deadline`, and the store goes on.
    #[must_use]
    pub fn stop(&self, deadline: Instant) -> Option<Baton> {
        self.queue.freeze();
        let (sender, answer) = mpsc::sync_channel(1);
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.writer.unpark();
        let baton = answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
        if baton.is_none() {
            self.release();
        }
        baton
    }

    /// What was handed over since it has stopped, as one journal.
    #[must_use]
    pub fn waiting(&self) -> Vec<u8> {
        self.queue.frozen()
    }

    /// Goes on.
    pub fn release(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.queue.thaw();
    }
}

/// A store was stopped that could not write what it had.
#[derive(Debug)]
pub struct NotWritten {
    /// How many journals. None of them was said to be safe.
    pub journals: usize,
    /// Why.
    pub source: io::Error,
}

impl std::fmt::Display for NotWritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { journals, source } = self;
        write!(f, "the last {journals} journals, which were not promised to anybody, could not be written: {source}")
    }
}

impl std::error::Error for NotWritten {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl StoreThread {
    /// Starts to write, at the mark that [`Reader::cut`] has returned, where everything before it is safe. `name` is for the
    /// threads.
    ///
    /// # Errors
    /// Nothing can be written, or the operating system refuses threads.
    pub fn start(
        name: &str,
        disk: Arc<dyn Disk>,
        settings: Settings,
        mark: Mark,
        wake_workers: Vec<Wake>,
        keeper: Box<dyn Keeper>,
    ) -> io::Result<Self> {
        Self::go_on(name, disk, settings, Baton::all_on_disk(mark), wake_workers, keeper, true)
    }

    /// Goes on where another process has stopped. `at_once`: a segment is begun, to find out whether that is possible; otherwise
    /// only when something is handed over.
    ///
    /// # Errors
    /// As [`StoreThread::start`].
    fn go_on(
        name: &str,
        disk: Arc<dyn Disk>,
        settings: Settings,
        baton: Baton,
        wake_workers: Vec<Wake>,
        keeper: Box<dyn Keeper>,
        at_once: bool,
    ) -> io::Result<Self> {
        let (mark, told) = (baton.mark, Arc::new(baton.told()));
        let (below, about) = (Arc::clone(&disk), Arc::clone(&told));
        let files = match at_once {
            true => Writer::new(below, settings, mark, about)?,
            false => Writer::later(below, settings, mark, about),
        };
        let thread = Arc::new(OnceLock::<Thread>::new());
        let woken = Arc::clone(&thread);
        // Before it is known the thread has not begun, and will look.
        let wake_store = move || woken.get().into_iter().for_each(Thread::unpark);
        let queue = Arc::new(Queue::new(mark.next - 1, Box::new(wake_store), wake_workers));
        let is_stopping = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(Asked::default());
        let (ended, segments) = mpsc::channel();
        let synced_before = baton.kept_from;
        let keeper = keeper::start(format!("{name}-keeper"), disk, settings, synced_before, told, segments, keeper)?;
        let run = Run {
            queue: Arc::clone(&queue),
            files,
            ended,
            is_stopping: Arc::clone(&is_stopping),
            asked: Arc::clone(&asked),
            backlog: VecDeque::new(),
            trouble: None,
        };
        let writer = std::thread::Builder::new().name(format!("{name}-store")).spawn(move || {
            let _ = thread.set(std::thread::current());
            run.run()
        })?;
        Ok(Self { queue, is_stopping, asked, writer, keeper })
    }

    /// How another process comes to go on with the files.
    #[must_use]
    pub fn brake(&self) -> Brake {
        let (queue, asked) = (Arc::clone(&self.queue), Arc::clone(&self.asked));
        Brake { queue, asked, writer: self.writer.thread().clone() }
    }

    /// Where workers hand their journals over.
    #[must_use]
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Writes what was handed over, makes a checkpoint of it, and ends the threads. Nobody may hand over any more. If another
    /// process goes on, that has what was not written, and makes the checkpoint.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn stop(self) -> Result<(), NotWritten> {
        self.is_stopping.store(true, Ordering::Release);
        self.writer.thread().unpark();
        // They panic only with a bug of ours, which the panic hook has printed.
        let outcome = self.writer.join().unwrap_or(Ok(()));
        let _ = self.keeper.join();
        outcome
    }
}

/// Nothing can be written.
struct Trouble {
    since: Instant,
    retry: Duration,
    /// Workers know it.
    is_told: bool,
}

/// What the thread that writes has.
struct Run {
    queue: Arc<Queue>,
    files: Writer,
    ended: Sender<Mark>,
    is_stopping: Arc<AtomicBool>,
    asked: Arc<Asked>,
    /// What was taken and is not safe.
    backlog: VecDeque<Entry>,
    trouble: Option<Trouble>,
}

/// A thread that writes no more promises nothing.
impl Drop for Run {
    fn drop(&mut self) {
        self.queue.set_failing(true);
    }
}

impl Run {
    fn run(mut self) -> Result<(), NotWritten> {
        let mut taken = Vec::new();
        let mut stop_by = None;
        loop {
            // In this order: nothing is handed over once it is to stop.
            let is_stopping = self.is_stopping.load(Ordering::Acquire);
            let is_asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            self.queue.take(&mut taken);
            self.backlog.extend(taken.drain(..));
            if self.backlog.is_empty() {
                if is_asked {
                    self.answer();
                }
                if is_stopping {
                    if !self.queue.is_frozen() {
                        self.files.end();
                        self.pass_on();
                    }
                    return Ok(());
                }
                std::thread::park();
                continue;
            }
            // What is contiguous is enough: the rest comes next.
            match self.files.write(self.backlog.as_slices().0) {
                Ok(count) => {
                    self.recovered();
                    self.queue.declare_safe(self.backlog.drain(..count));
                }
                Err(source) => {
                    let stop_by = *stop_by.get_or_insert_with(|| Instant::now() + STOP_PATIENCE);
                    if is_stopping && Instant::now() >= stop_by {
                        return Err(NotWritten { journals: self.backlog.len(), source });
                    }
                    self.failed(&source);
                }
            }
            if !is_stopping {
                stop_by = None;
            }
            self.pass_on();
        }
    }

    /// Says where another process may go on, if that is still wanted.
    fn answer(&self) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(asked) = asked {
            // Who does not wait any more has said so.
            let _ = asked.try_send(self.files.baton());
        }
    }

    /// Tells who makes checkpoints that a segment is full.
    fn pass_on(&mut self) {
        if let Some(mark) = self.files.take_ended() {
            // It listens until this thread has ended.
            let _ = self.ended.send(mark);
        }
    }

    /// Waits until it may be worth trying again. For the first time that is at once: a new segment may be all it takes.
    fn failed(&mut self, error: &io::Error) {
        let Some(trouble) = &mut self.trouble else {
            tracing::warn!(%error, "what is to be kept could not be written, and is written once more");
            self.trouble = Some(Trouble { since: Instant::now(), retry: RETRY_FIRST, is_told: false });
            return;
        };
        if !trouble.is_told {
            trouble.is_told = true;
            self.queue.set_failing(true);
            tracing::error!(
                %error,
                "what is to be kept cannot be written: nothing that would have to be kept is accepted until it can"
            );
        }
        let until = Instant::now() + trouble.retry;
        trouble.retry = (trouble.retry * 2).min(RETRY_MAX);
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
    }

    fn recovered(&mut self) {
        let Some(trouble) = self.trouble.take() else { return };
        if trouble.is_told {
            let secs = trouble.since.elapsed().as_secs();
            self.queue.set_failing(false);
            tracing::info!("what is to be kept can be written again, after {secs} s; nothing of it was lost");
        }
    }
}
