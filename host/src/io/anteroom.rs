//! Where connections are until they speak MQTT: what comes before, such as the handshake of TLS, is done here, by threads
//! that give way to the workers.
//!
//! A thread accepts from the listeners whose connections have something to go through ([`Listener::is_direct`]), takes each of
//! these *guests* through its doors, and gives it to a worker ([`Workers::welcome`]). Whatever guests do, workers are not
//! held up by it: there are at most [`handshakes_max`](Limits::handshakes_max) of them, each has
//! [`handshake_timeout`](Limits::handshake_timeout), and while there is no room, who comes waits in the kernel's queue.

mod guest;
mod proxied;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::process::setpriority_process;
use slab::Slab;

use self::guest::{Guest, Step};
use super::listener::{Accepted, Entrance, Listener};
use super::poller::{Poller, Readiness};
use super::transform::{Buffers, Flow, Transform};
use super::worker::{Workers, stop_all};
use crate::clock::{Clock, Millis};
use crate::core::mailbox::Mailboxes;
use crate::core::peer::PeerDetails;
use crate::limits::Limits;

/// How far the threads stand back behind others: with this niceness, a thread gets a tenth of what a worker gets that wants
/// the same core. A handshake takes some hundred microseconds of it, in one piece.
const NICENESS: i32 = 10;

/// Bytes taken from one guest at once.
const SCRATCH_BYTES: usize = 16 << 10;

/// Guests that are served before those who wait outside are looked at.
const SERVED_PER_TURN: usize = 32;

/// Connections accepted in a turn.
const ACCEPTS_PER_TURN: usize = 32;

/// Time until it is looked again whether there is room, in milliseconds.
const FULL_MS: u64 = 10;

/// Time that everybody has, even where others wait for the place, in milliseconds.
const LEAST_STAY_MS: u64 = 1_000;

/// Time that those have in addition of whom something has come that was not looked at, in milliseconds.
const GRACE_MS: u64 = 1_000;

/// A connection that speaks MQTT from here on.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(super) fd: OwnedFd,
    pub(super) peer: SocketAddr,
    pub(super) listener: Listener,
    pub(super) details: Option<Box<PeerDetails>>,
    pub(super) transform: Option<Box<Transform>>,
    /// What was read of it.
    pub(super) unread: Vec<u8>,
    /// Whether there will be more.
    pub(super) flow: Flow,
    /// Its place, as it is a guest until a worker has taken it.
    _place: Place,
}

impl Arrived {
    /// One of which nothing was read, and with nothing between its bytes and those of MQTT.
    #[cfg(feature = "quic")]
    pub(super) fn new(fd: OwnedFd, peer: SocketAddr, listener: Listener, details: PeerDetails, place: Place) -> Self {
        let (details, unread) = (Some(Box::new(details)), Vec::new());
        Self { fd, peer, listener, details, transform: None, unread, flow: Flow::Open, _place: place }
    }
}

/// The places for guests, of all threads together.
#[derive(Debug)]
pub(crate) struct Places {
    taken: AtomicUsize,
    max: usize,
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max })
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.max
    }

    #[cfg(feature = "quic")]
    pub(super) fn is_half_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.max / 2
    }

    pub(super) fn take(self: &Arc<Self>) -> Place {
        // Two threads may each take the last one: there are few threads.
        self.taken.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(self))
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a thread is made of.
pub(crate) struct Seed {
    /// Which of the threads it is.
    pub(crate) number: usize,
    /// Its name.
    pub(crate) name: String,
    pub(crate) workers: Arc<Workers>,
    /// All of the server's; it takes those that are not direct.
    pub(crate) listeners: Vec<Listener>,
    pub(crate) places: Arc<Places>,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    /// To stop the workers, should the thread fail.
    pub(crate) mailboxes: Mailboxes,
    /// Called on the thread when it has ended.
    pub(crate) on_end: Box<dyn Fn() + Send>,
}

/// Starts a thread. The result says whether it ended with the workers (`true`) or failed.
pub(crate) fn start(seed: Seed) -> io::Result<JoinHandle<bool>> {
    let epoll = seed.workers.anteroom_epoll(seed.number)?;
    std::thread::Builder::new().name(seed.name.clone()).spawn(move || {
        let Seed { workers, mailboxes, on_end, .. } = seed;
        // It fails where a sandbox forbids it; then handshakes take as much as workers get.
        let _ = setpriority_process(None, NICENESS);
        let listeners =
            seed.listeners.into_iter().filter(|listener| !listener.is_direct() && !listener.is_quic()).collect();
        let anteroom = Anteroom {
            poller: Poller::new(epoll),
            entrance: Entrance::new(listeners),
            guests: Slab::new(),
            by_arrival: VecDeque::new(),
            to_serve: VecDeque::new(),
            next_serial: 0,
            places: seed.places,
            timeout_ms: u64::try_from(seed.limits.handshake_timeout.as_millis()).unwrap_or(u64::MAX),
            clock: seed.clock,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            buffers: Buffers::default(),
            workers: Arc::clone(&workers),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| anteroom.run()));
        let as_asked = matches!(outcome, Ok(Ok(())));
        if !as_asked {
            let error = outcome.ok().and_then(Result::err).map(tracing::field::display);
            tracing::error!(error, "the thread for handshakes has failed; the server stops");
            stop_all(&mailboxes);
        }
        on_end();
        as_asked
    })
}

struct Anteroom {
    poller: Poller,
    entrance: Entrance,
    guests: Slab<Guest>,
    /// When each has come, its key and its serial, oldest first. Some have left.
    by_arrival: VecDeque<(Millis, u32, u32)>,
    /// Keys of those who have something to read, or room for what they are sent; each at most once.
    to_serve: VecDeque<u32>,
    next_serial: u32,
    places: Arc<Places>,
    timeout_ms: u64,
    clock: Clock,
    scratch: Box<[u8]>,
    buffers: Buffers,
    workers: Arc<Workers>,
}

impl Anteroom {
    /// Takes turns until the workers stop.
    fn run(mut self) -> io::Result<()> {
        while !self.workers.is_stopping() {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let patience_ms = if self.to_serve.is_empty() { self.patience_ms() } else { Some(0) };
        let more = self.poller.wait(patience_ms)?;
        self.note_events();
        let now = self.clock.now();
        if !more {
            // All that has come is known, so who is not on the list has not been heard of.
            self.turn_out(now);
        }
        for _ in 0..SERVED_PER_TURN {
            let Some(key) = self.to_serve.pop_front() else { break };
            self.serve(key);
        }
        self.accept(now);
        Ok(())
    }

    /// How long there is nothing to do unless something happens, in milliseconds.
    fn patience_ms(&self) -> Option<u64> {
        let now = self.clock.now();
        let overdue = self.by_arrival.front().map(|(came, ..)| *came + self.timeout_ms);
        overdue.into_iter().chain(self.entrance.opens_at()).min().map(|at| at.since(now))
    }

    fn note_events(&mut self) {
        for readiness in self.poller.readiness() {
            match readiness {
                // It rings when the workers stop.
                Readiness::Doorbell => {}
                Readiness::Listener(number) => self.entrance.knock(number),
                Readiness::Socket { conn, .. } => {
                    if let Some(guest) = self.guests.get_mut(conn as usize)
                        && !std::mem::replace(&mut guest.is_listed, true)
                    {
                        self.to_serve.push_back(conn);
                    }
                }
            }
        }
    }

    fn accept(&mut self, now: Millis) {
        if self.places.is_full() {
            // Who has been here for a while and is still not through makes room for one who waits.
            self.turn_out_one(now);
        }
        self.entrance.open(&self.poller, now);
        for _ in 0..ACCEPTS_PER_TURN {
            if self.places.is_full() {
                self.entrance.close_until(&self.poller, now + FULL_MS);
                return;
            }
            let Some(accepted) = self.entrance.accept(&self.poller, now) else { return };
            self.take_in(accepted, now);
        }
    }

    fn take_in(&mut self, accepted: Accepted, now: Millis) {
        if !accepted.may_say_who_it_is() {
            let Accepted { peer, listener, .. } = accepted;
            return tracing::debug!(listener = listener.name(), %peer, "a connection is refused: it is not in proxy_from");
        }
        let mut guest = match Guest::new(accepted, self.places.take()) {
            Ok(guest) => guest,
            Err(error) => return tracing::warn!(%error, "a connection was not accepted"),
        };
        if guest.is_through() {
            return self.workers.welcome(guest.into_arrived());
        }
        self.next_serial = self.next_serial.wrapping_add(1);
        (guest.serial, guest.is_listed) = (self.next_serial, true);
        let serial = guest.serial;
        let key = u32::try_from(self.guests.insert(guest)).expect("bounded by handshakes_max");
        if let Err(error) = self.poller.add(&self.guests[key as usize].fd, key) {
            tracing::warn!(%error, "a connection cannot be watched and is closed");
            self.guests.remove(key as usize);
            return;
        }
        self.by_arrival.push_back((now, key, serial));
        // Most have sent something already.
        self.to_serve.push_back(key);
    }

    /// Goes on with one guest, as far as it has sent something.
    fn serve(&mut self, key: u32) {
        let Some(guest) = self.guests.get_mut(key as usize) else { return };
        guest.is_listed = false;
        match guest.step(&mut self.scratch, &mut self.buffers) {
            Step::Waits => {}
            Step::Again => {
                guest.is_listed = true;
                self.to_serve.push_back(key);
            }
            Step::Through => {
                let guest = self.guests.remove(key as usize);
                // If it fails, the worker cannot watch it either, and closes it.
                let _ = self.poller.remove(&guest.fd);
                self.workers.welcome(guest.into_arrived());
            }
            Step::Gone => drop(self.guests.remove(key as usize)),
        }
    }

    /// Closes those whose time is over.
    fn turn_out(&mut self, now: Millis) {
        while self.turn_out_oldest(self.timeout_ms, "has not got through its handshake in time", now) {}
    }

    /// Closes the one who has been here for longest, if that is long enough.
    fn turn_out_one(&mut self, now: Millis) {
        self.turn_out_oldest(LEAST_STAY_MS, "has not got through its handshake, and others wait", now);
    }

    /// Closes the one who has been here for longest, if that is longer than `stay_ms`. `false` if it is not, or nobody is here.
    fn turn_out_oldest(&mut self, stay_ms: u64, why: &str, now: Millis) -> bool {
        while let Some(&(came, key, serial)) = self.by_arrival.front() {
            if let Some(guest) = self.guests.get(key as usize).filter(|guest| guest.serial == serial) {
                // What it has sent may be all that is missing; but who always sends does not stay for ever.
                let grace_ms = if guest.is_listed { GRACE_MS } else { 0 };
                if now.since(came) < stay_ms.saturating_add(grace_ms) {
                    return false;
                }
                self.guests.remove(key as usize).log_end(why);
                self.by_arrival.pop_front();
                return true;
            }
            self.by_arrival.pop_front();
        }
        false
    }
}
