//! Where connections are until they speak MQTT: what comes before, such as the handshake of TLS, is done here, by threads
//! that give way to the workers.
//!
//! A thread accepts from the listeners whose connections have something to go through ([`Listener::is_direct`]), takes each of
//! these *guests* through its doors, and gives it to a worker ([`Workers::welcome`]). Whatever guests do, workers are not
//! held up by it: there are at most [`handshakes_max`](crate::Limits::handshakes_max) of them, each has
//! [`handshake_timeout`](crate::Limits::handshake_timeout), and while there is no room, who comes waits in the kernel's queue.

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
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::process::setpriority_process;
use slab::Slab;

use self::guest::{Guest, Step};
use super::entrance::Entrance;
use super::listener::{Accepted, Listener};
use super::poller::{Poller, Readiness};
use super::transform::{Buffers, Flow, Transform};
use super::worker::{Workers, stop_all};
use crate::clock::{Clock, Millis};
use crate::core::peer::PeerDetails;
use crate::core::{Counters, Shared};
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
pub(super) const LEAST_STAY_MS: u64 = 1_000;

/// Time that those have in addition of whom something has come that was not looked at, in milliseconds.
const GRACE_MS: u64 = 1_000;

/// Time that a peer has to close its side after it was refused, in milliseconds.
const LEAVE_MS: u64 = 1_000;

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

/// The places for guests, of all threads together, and for how long each is theirs. Both may change.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: AtomicUsize,
    max: AtomicUsize,
    timeout_ms: AtomicU64,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let places = Self::default();
        places.set_bounds(limits);
        Arc::new(places)
    }

    /// Has the bounds that are said here from now on, also for those who have come.
    pub(crate) fn set_bounds(&self, limits: &Limits) {
        let timeout_ms = u64::try_from(limits.handshake_timeout.as_millis()).unwrap_or(u64::MAX);
        self.max.store(limits.handshakes_max, Ordering::Relaxed);
        self.timeout_ms.store(timeout_ms, Ordering::Relaxed);
    }

    /// Time from accepting a connection until it has to be through, in milliseconds.
    pub(super) fn timeout_ms(&self) -> u64 {
        self.timeout_ms.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.max.load(Ordering::Relaxed)
    }

    #[cfg(feature = "quic")]
    pub(super) fn is_half_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.max.load(Ordering::Relaxed) / 2
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
    pub(crate) places: Arc<Places>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Clock,
    /// Called on the thread when it has ended.
    pub(crate) on_end: Box<dyn Fn() + Send>,
}

/// Starts a thread. The result says whether it ended with the workers (`true`) or failed.
pub(crate) fn start(seed: Seed) -> io::Result<JoinHandle<bool>> {
    let epoll = seed.workers.anteroom_epoll(seed.number)?;
    std::thread::Builder::new().name(seed.name.clone()).spawn(move || {
        // It fails where a sandbox forbids it; then handshakes take as much as workers get.
        let _ = setpriority_process(None, NICENESS);
        let anteroom = Anteroom::new(&seed, epoll);
        let outcome = catch_unwind(AssertUnwindSafe(|| anteroom.run()));
        let as_asked = matches!(outcome, Ok(Ok(())));
        if !as_asked {
            let error = outcome.ok().and_then(Result::err).map(tracing::field::display);
            tracing::error!(error, "the thread for handshakes has failed; the server stops");
            stop_all(&seed.shared.mailboxes);
        }
        (seed.on_end)();
        as_asked
    })
}

struct Anteroom {
    poller: Poller,
    entrance: Entrance,
    /// Which exchange of the listeners it knows of.
    listeners_epoch: usize,
    guests: Slab<Guest>,
    /// When each has come, its key and its serial, oldest first. Some have left.
    by_arrival: VecDeque<(Millis, u32, u32)>,
    /// Keys of those who have something to read, or room for what they are sent; each at most once.
    to_serve: VecDeque<u32>,
    /// The same of those who leave, by when they are closed.
    leaving: VecDeque<(Millis, u32, u32)>,
    next_serial: u32,
    places: Arc<Places>,
    /// Its place among the counters of all threads.
    counters: usize,
    clock: Clock,
    scratch: Box<[u8]>,
    buffers: Buffers,
    workers: Arc<Workers>,
    shared: Arc<Shared>,
}

impl Anteroom {
    fn new(seed: &Seed, epoll: OwnedFd) -> Self {
        let shared = Arc::clone(&seed.shared);
        Self {
            poller: Poller::new(epoll),
            entrance: Entrance::new(Vec::new()),
            listeners_epoch: 0,
            guests: Slab::new(),
            by_arrival: VecDeque::new(),
            to_serve: VecDeque::new(),
            leaving: VecDeque::new(),
            next_serial: 0,
            places: Arc::clone(&seed.places),
            // Behind those of the workers.
            counters: shared.counters.len() - 1 - seed.number,
            clock: seed.clock,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            buffers: Buffers::default(),
            workers: Arc::clone(&seed.workers),
            shared,
        }
    }

    /// Takes turns until the workers stop.
    fn run(mut self) -> io::Result<()> {
        while !self.workers.is_stopping() {
            self.exchange_listeners();
            self.turn()?;
        }
        Ok(())
    }

    /// Goes on with other listeners, if there are.
    fn exchange_listeners(&mut self) {
        let is_mine = Listener::has_guests;
        if let Some(listeners) = self.workers.new_listeners(&mut self.listeners_epoch, is_mine) {
            self.entrance.exchange(listeners, &self.poller);
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let patience_ms = if self.to_serve.is_empty() { self.patience_ms() } else { Some(0) };
        let more = self.poller.wait(patience_ms)?;
        self.note_events();
        let now = self.clock.now();
        self.close_those_who_leave(now);
        self.turn_out(more, now);
        for _ in 0..SERVED_PER_TURN {
            let Some(key) = self.to_serve.pop_front() else { break };
            self.serve(key, now);
        }
        self.accept(now);
        Ok(())
    }

    /// How long there is nothing to do unless something happens, in milliseconds.
    fn patience_ms(&self) -> Option<u64> {
        let now = self.clock.now();
        let overdue = self.by_arrival.front().map(|(came, ..)| *came + self.places.timeout_ms());
        let leaves = self.leaving.front().map(|(by, ..)| *by);
        overdue.into_iter().chain(leaves).chain(self.entrance.opens_at()).min().map(|at| at.since(now))
    }

    fn note_events(&mut self) {
        for readiness in self.poller.readiness() {
            match readiness {
                // It rings when the workers stop, or the listeners have been exchanged.
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
        if self.workers.pause().is_shut() {
            // Another process takes over, and with it those who come.
            return self.entrance.close_until(&self.poller, now + FULL_MS);
        }
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
        // A proxy is not turned away for those behind it.
        let has_proxy = !accepted.listener.doors().proxies.is_empty();
        if !has_proxy && self.shared.turns_away(accepted.peer.ip(), now) {
            self.counters().connections_turned_away.add(1);
            return;
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
    fn serve(&mut self, key: u32, now: Millis) {
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
            Step::Leaves => {
                self.leaving.push_back((now + LEAVE_MS, key, guest.serial));
                self.count_failure(key, now);
            }
            Step::Gone => {
                self.count_failure(key, now);
                self.guests.remove(key as usize);
            }
        }
    }

    /// Counts that a guest was refused, once: also one that has hung up before it was told.
    fn count_failure(&mut self, key: u32, now: Millis) {
        let guest = &mut self.guests[key as usize];
        if std::mem::take(&mut guest.was_refused) {
            if guest.knows_peer {
                self.shared.note_failure(guest.peer.ip(), now);
            }
            self.counters().handshakes_failed.add(1);
        }
    }

    /// Closes those whose time is over. Unless there are `more` events than were reported, all that has come is known, so that
    /// who is not on the list has not been heard of; otherwise it may have been, and has a little more time.
    fn turn_out(&mut self, more: bool, now: Millis) {
        let stay_ms = if more { self.places.timeout_ms().saturating_add(GRACE_MS) } else { self.places.timeout_ms() };
        while let Some(guest) = self.turn_out_oldest(stay_ms, "has not got through its handshake in time", now) {
            if guest.knows_peer {
                self.shared.note_failure(guest.peer.ip(), now);
            }
        }
    }

    /// Closes those who were refused and have had the time to read why, whatever they still send.
    fn close_those_who_leave(&mut self, now: Millis) {
        while let Some(&(_, key, serial)) = self.leaving.front().filter(|(by, ..)| *by <= now) {
            self.leaving.pop_front();
            if self.guests.get(key as usize).is_some_and(|guest| guest.serial == serial) {
                self.guests.remove(key as usize);
            }
        }
    }

    /// Closes the one who has been here for longest, if that is long enough.
    fn turn_out_one(&mut self, now: Millis) {
        let guest = self.turn_out_oldest(LEAST_STAY_MS, "has not got through its handshake, and others wait", now);
        // Who has said something may be slow, or we may be; who has had that long and said nothing has taken a place for nothing.
        if let Some(guest) = guest.filter(|guest| guest.knows_peer && guest.has_said_nothing()) {
            self.shared.note_failure(guest.peer.ip(), now);
        }
    }

    /// Closes the one who has been here for longest, if that is longer than `stay_ms`. Returns it.
    fn turn_out_oldest(&mut self, stay_ms: u64, why: &str, now: Millis) -> Option<Guest> {
        while let Some(&(came, key, serial)) = self.by_arrival.front() {
            let is_guest = |guest: &&Guest| guest.serial == serial && !guest.is_leaving();
            if let Some(guest) = self.guests.get(key as usize).filter(is_guest) {
                // What it has sent may be all that is missing; but who always sends does not stay for ever.
                let grace_ms = if guest.is_listed { GRACE_MS } else { 0 };
                if now.since(came) < stay_ms.saturating_add(grace_ms) {
                    return None;
                }
                let guest = self.guests.remove(key as usize);
                guest.log_end(why);
                self.by_arrival.pop_front();
                self.counters().handshakes_late.add(1);
                return Some(guest);
            }
            self.by_arrival.pop_front();
        }
        None
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters[self.counters]
    }
}
