//! One thread with its core and its driver.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::anteroom::Arrived;
use super::driver::Driver;
pub(crate) use super::driver::handed_over::{Inheritance, Inherited};
pub(crate) use super::driver::journal::zero_on_the_wall;
use super::listener::Listener;
use super::pause::Pause;
use super::poller::{Doorbell, Poller};
use super::transform::Transform;
use crate::clock::{Clock, WallMillis};
use crate::core::mail::Mail;
use crate::core::mailbox::Mailboxes;
use crate::core::{Core, Handover, RestoreError, Shared};
use crate::durable::store::Store;
use crate::plugin::Watch;

/// Where other threads reach a worker.
#[derive(Debug)]
struct Seat {
    doorbell: Doorbell,
    /// Connections whose client turned out to be this worker's. Locked once for each of them.
    arriving: Mutex<VecDeque<Arriving>>,
    /// Connections that come from the anteroom. Locked once for each of them.
    welcomed: Mutex<VecDeque<Arrived>>,
}

/// A connection on its way to the worker that owns its client.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) fd: OwnedFd,
    pub(super) transform: Option<Box<Transform>>,
    pub(super) handover: Box<Handover>,
}

/// What the workers of one server share besides the core's own [`Shared`].
#[derive(Debug)]
pub(crate) struct Workers {
    seats: Box<[Seat]>,
    /// Of the threads of the anteroom, whether they run or not.
    anterooms: Box<[Doorbell]>,
    /// Of the thread for QUIC.
    #[cfg(feature = "quic")]
    quic: tokio::sync::Notify,
    /// Of all threads. Those that a thread has none of are left out by it.
    listeners: Mutex<Vec<Listener>>,
    /// Counts how often they were exchanged.
    listeners_epoch: AtomicUsize,
    /// Who is welcomed next.
    next: AtomicUsize,
    /// Workers that have told their clients and give away no connection any more.
    stopping: AtomicUsize,
    pause: Pause,
}

impl Workers {
    pub(crate) fn new(count: usize) -> io::Result<Arc<Self>> {
        let seat = || Ok(Seat { doorbell: Doorbell::new()?, arriving: Mutex::default(), welcomed: Mutex::default() });
        Ok(Arc::new(Self {
            seats: (0..count).map(|_| seat()).collect::<io::Result<_>>()?,
            anterooms: (0..anteroom_threads(count)).map(|_| Doorbell::new()).collect::<io::Result<_>>()?,
            #[cfg(feature = "quic")]
            quic: tokio::sync::Notify::new(),
            listeners: Mutex::default(),
            listeners_epoch: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            stopping: AtomicUsize::new(0),
            pause: Pause::default(),
        }))
    }

    /// Functions that wake the workers, for their mailboxes.
    pub(crate) fn wake(&self) -> Vec<Box<dyn Fn() + Send + Sync>> {
        let wake = |seat: &Seat| -> Box<dyn Fn() + Send + Sync> {
            let doorbell = seat.doorbell.clone();
            Box::new(move || doorbell.ring())
        };
        self.seats.iter().map(wake).collect()
    }

    /// An epoll for a worker, which its doorbell wakes.
    pub(super) fn epoll(&self, worker: usize) -> io::Result<OwnedFd> {
        Poller::create(&self.seats[worker].doorbell)
    }

    /// How all workers are stopped for a time.
    pub(crate) fn pause(&self) -> &Pause {
        &self.pause
    }

    /// Has all threads accept from these listeners, and from no other.
    pub(crate) fn set_listeners(&self, listeners: Vec<Listener>) {
        *lock(&self.listeners) = listeners;
        self.listeners_epoch.fetch_add(1, Ordering::Release);
        self.ring_all();
    }

    /// The listeners that `is_mine` chooses, if they have been exchanged since `epoch`, which is brought up to date.
    pub(super) fn new_listeners(&self, epoch: &mut usize, is_mine: fn(&Listener) -> bool) -> Option<Vec<Listener>> {
        let now = self.listeners_epoch.load(Ordering::Acquire);
        if std::mem::replace(epoch, now) == now {
            return None;
        }
        Some(lock(&self.listeners).iter().filter(|listener| is_mine(listener)).cloned().collect())
    }

    /// How many threads the anteroom has.
    pub(crate) fn anterooms(&self) -> usize {
        self.anterooms.len()
    }

    /// An epoll for one of them, which is woken when the workers stop.
    pub(super) fn anteroom_epoll(&self, number: usize) -> io::Result<OwnedFd> {
        Poller::create(&self.anterooms[number])
    }

    /// Wakes the thread for QUIC: when the workers stop, the listeners have been exchanged, or there is an order.
    #[cfg(feature = "quic")]
    pub(super) fn quic_bell(&self) -> &tokio::sync::Notify {
        &self.quic
    }

    /// Says that one more worker gives away no connection any more.
    pub(super) fn enter_stopping(&self) {
        self.stopping.fetch_add(1, Ordering::AcqRel);
        self.ring_all();
    }

    /// Whether a worker has begun to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) > 0
    }

    /// Whether nobody gives away a connection any more.
    pub(super) fn are_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) >= self.seats.len()
    }

    /// Gives a connection to the worker that owns its client.
    pub(super) fn hand_over(&self, worker: usize, arriving: Arriving) {
        lock(&self.seats[worker].arriving).push_back(arriving);
        self.seats[worker].doorbell.ring();
    }

    /// Takes the next connection that was given to a worker.
    pub(super) fn take_arriving(&self, worker: usize) -> Option<Arriving> {
        lock(&self.seats[worker].arriving).pop_front()
    }

    /// Gives a new connection to one of the workers, in turn.
    pub(super) fn welcome(&self, arrived: Arrived) {
        let seat = &self.seats[self.next.fetch_add(1, Ordering::Relaxed) % self.seats.len()];
        lock(&seat.welcomed).push_back(arrived);
        seat.doorbell.ring();
    }

    /// Takes the next new connection.
    pub(super) fn take_welcomed(&self, worker: usize) -> Option<Arrived> {
        lock(&self.seats[worker].welcomed).pop_front()
    }

    /// Whether no connection waits to be adopted by a worker.
    pub(crate) fn nothing_arrives(&self, worker: usize) -> bool {
        lock(&self.seats[worker].arriving).is_empty()
    }

    pub(crate) fn ring_all(&self) {
        self.seats.iter().map(|seat| &seat.doorbell).chain(&self.anterooms).for_each(Doorbell::ring);
        #[cfg(feature = "quic")]
        self.quic.notify_one();
    }
}

/// Nothing but a collection's own methods runs under these locks, so a poisoned one is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Half as many threads as workers: handshakes never take all cores, and after all clients have been thrown out at once, those
/// that want to work are waited for by them.
fn anteroom_threads(workers: usize) -> usize {
    workers.div_ceil(2)
}

/// Asks every worker to stop: it tells its clients, sends what is to be sent, for a bounded time, and ends.
pub(crate) fn stop_all(mailboxes: &Mailboxes) {
    for worker in 0..mailboxes.workers() {
        // A full mailbox takes it as well.
        let _ = mailboxes.post(worker, Mail::Stop);
    }
}

/// Runs when a worker's thread ends, in whatever way.
struct Ending(Box<dyn Fn() + Send>);

impl Drop for Ending {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// What a worker is made of.
pub(crate) struct Seed {
    pub(crate) worker: usize,
    /// Name of its thread.
    pub(crate) name: String,
    pub(crate) workers: Arc<Workers>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Clock,
    /// Sees what plugins do on the worker's thread.
    pub(crate) watch: Arc<Watch>,
    /// Where what is to be kept goes, if there is a store.
    pub(crate) store: Option<Arc<dyn Store>>,
    /// What was kept, which comes before everything else.
    pub(crate) restoring: Option<Restoring>,
    /// What it begins with, if it takes the place of another process's.
    pub(crate) inheritance: Option<Inheritance>,
    /// Called on the worker's thread when it has ended.
    pub(crate) on_end: Box<dyn Fn() + Send>,
}

/// What was kept, on its way to a worker that starts.
pub(crate) struct Restoring {
    /// Journals. There is no more once the other end is gone.
    pub(crate) pieces: Receiver<Vec<u8>>,
    /// What the wall clock showed when the server's clock showed zero.
    pub(crate) zero: WallMillis,
    /// Told when all of them have been applied; and then with the journal of what that has led to, or why it could not be.
    pub(crate) done: Sender<Result<Vec<u8>, String>>,
    /// Says that all workers have come so far.
    pub(crate) go_on: Receiver<()>,
}

/// Tells that a worker panics, which the others and the server would wait for.
pub(crate) struct Word(Sender<Result<Vec<u8>, String>>);

impl Drop for Word {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what =
                "a worker has panicked while it loaded what was kept, which is a bug of the server; it has said where";
            let _ = self.0.send(Err(what.to_owned()));
        }
    }
}

impl Restoring {
    /// Nobody listens, and nobody says to go on, if the server has given up already.
    fn run(self, core: &mut Core, clock: Clock) {
        let zero = self.zero;
        let Some((word, go_on)) = self.apply(|piece| core.restore(piece, zero, clock.now())) else { return };
        core.end_restoring(clock.now());
        let mut last = Vec::new();
        core.hand_over_journal(|journal| {
            // It is one with those of the others, and nobody waits for it.
            last.append(journal);
            0
        });
        let _ = word.0.send(Ok(last));
        let _ = go_on.recv();
    }

    /// Gives each piece to `restore`, until all workers have theirs. `None` if the server has given up.
    pub(crate) fn apply(self, restore: impl FnMut(&[u8]) -> Result<(), RestoreError>) -> Option<(Word, Receiver<()>)> {
        let Self { pieces, done, go_on, .. } = self;
        let (word, mut restore) = (Word(done), restore);
        let restored = pieces.iter().try_for_each(|piece| restore(&piece));
        // Whoever has more for a worker that takes no more is not to wait for it.
        drop(pieces);
        let _ = word.0.send(restored.map(|()| Vec::new()).map_err(|error| error.to_string()));
        go_on.recv().ok().map(|()| (word, go_on))
    }
}

/// Starts a worker's thread. The result says whether it ended as it was asked to (`true`) or failed.
pub(crate) fn start(seed: Seed) -> io::Result<JoinHandle<bool>> {
    let worker = seed.worker;
    // What can fail is made here, so that it fails before anything has started.
    let epoll = seed.workers.epoll(worker)?;
    std::thread::Builder::new().name(seed.name).spawn(move || {
        let workers = Arc::clone(&seed.workers);
        let mailboxes = seed.shared.mailboxes.clone();
        let _ending = Ending(seed.on_end);
        let run = || {
            seed.watch.sit(worker);
            let mut core = Core::new(worker, seed.shared, seed.clock.now());
            if let Some(restoring) = seed.restoring {
                restoring.run(&mut core, seed.clock);
            }
            let mut driver = Driver::new(worker, core, Poller::new(epoll), workers, seed.clock, seed.store);
            if seed.inheritance.is_some_and(|inheritance| !driver.inherit(inheritance)) {
                return Ok(()); // Another process goes on with all of it.
            }
            driver.run()
        };
        let outcome = catch_unwind(AssertUnwindSafe(run));
        let as_asked = matches!(outcome, Ok(Ok(())));
        // Who waits for an answer hears that there is none.
        mailboxes.of(worker).close();
        if let Ok(Err(error)) = &outcome {
            tracing::error!(worker, %error, "the worker has failed; the server stops");
        } else if outcome.is_err() {
            // The panic itself was printed by the panic hook.
            tracing::error!(worker, "the worker has panicked, which is a bug of the server; the server stops");
        }
        if !as_asked {
            seed.workers.enter_stopping();
            stop_all(&mailboxes);
        }
        as_asked
    })
}
