//! Moves bytes between the sockets of one worker and its core: when, and in. `flush` moves them out.

mod flush;
pub(super) mod handed_over;
pub(super) mod journal;
#[cfg(test)]
mod tests;
mod transformed;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags};
use zeroize::Zeroize;

use self::journal::Desk;
use super::anteroom::Arrived;
use super::entrance::Entrance;
use super::listener::{Accepted, Listener};
use super::poller::{Poller, Readiness};
use super::sockets::{Queued, Sockets, Stage, Stream};
use super::transform::{Buffers, Flow, PeerEnd, Transform};
use super::worker::{Arriving, Workers};
use crate::clock::{Clock, Millis};
use crate::core::{Arrival, Core, Handover};
use crate::durable::store::Store;

/// Bytes taken from one socket at once. All sockets share this one buffer.
const SCRATCH_BYTES: usize = 64 << 10;

/// While a turn has read less from all sockets, who has more is read again: one publisher alone costs its subscribers a `send`
/// for each turn. With 1 KiB for 100 and a window of 200 it is 0.12 µs instead of 0.15 for each delivery.
const READ_ON_BYTES: usize = if cfg!(test) { SCRATCH_BYTES + 1 } else { 256 << 10 };

/// Bytes taken from all sockets in a turn; who is left is first in the next one.
const READ_BYTES_PER_TURN: usize = if cfg!(test) { 64 << 10 } else { 4 << 20 };

/// Time until a worker that another one cannot follow looks again whether it may read, in milliseconds.
const CONGESTED_MS: u64 = 2;

/// Connections accepted in a turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Time that a stopping worker takes at most once its handlers know, in milliseconds. They take theirs before: who waits
/// for the worker has a bound for both together.
const STOP_MS_MAX: u64 = if cfg!(test) { 200 } else { 3_000 };

/// A turn that has read for longer than this, in milliseconds, does not know any more who has been silent.
const SLOW_MS: u64 = 100;

/// Time for which timers are put off at most, in milliseconds, because there are bytes that have not been read. They may
/// be what a timer waits for.
const PUT_OFF_MS_MAX: u64 = 1_000;

/// Drives one core.
///
/// It works in turns: wait until something has happened, read from each socket that has something, once; let the core work; then
/// send, once to each connection that has something outbound. So everything that one turn causes for one peer leaves in
/// one `send`, however many messages it is.
pub(super) struct Driver {
    worker: usize,
    core: Core,
    poller: Poller,
    entrance: Entrance,
    /// Which exchange of the listeners it knows of.
    listeners_epoch: usize,
    sockets: Sockets,
    workers: Arc<Workers>,
    clock: Clock,
    /// When the worker ends at the latest, once it was asked to.
    stop_by: Option<Millis>,
    /// Since when the core's timers are due and are put off.
    put_off_since: Option<Millis>,
    scratch: Box<[u8]>,
    /// For what transforms open and seal.
    buffers: Buffers,
    /// Sockets to read, each at most once; first those that waited longest.
    to_read: Vec<u32>,
    /// Connections to look at after the core has worked. One may be on it twice.
    to_flush: Vec<u32>,
    /// How many of these, at its beginning, are of earlier turns.
    left_over: usize,
    handovers: Vec<(u32, usize, Box<Handover>)>,
    /// Where the core's journals go, if there is a store.
    store: Option<Desk>,
    /// The number of the last order of [`pause`](crate::io::pause) that it has carried out.
    last_order: u64,
}

impl Driver {
    pub(super) fn new(
        worker: usize,
        core: Core,
        poller: Poller,
        workers: Arc<Workers>,
        clock: Clock,
        store: Option<Arc<dyn Store>>,
    ) -> Self {
        Self {
            worker,
            core,
            poller,
            entrance: Entrance::new(Vec::new()),
            listeners_epoch: 0,
            sockets: Sockets::default(),
            workers,
            clock,
            stop_by: None,
            put_off_since: None,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            buffers: Buffers::default(),
            to_read: Vec::new(),
            to_flush: Vec::new(),
            left_over: 0,
            handovers: Vec::new(),
            store: store.map(Desk::new),
            last_order: 0,
        }
    }

    /// Takes turns until the worker was asked to stop and has done so.
    ///
    /// # Errors
    /// Nothing can be waited for, which only a bug brings about.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut more = false;
        self.exchange_listeners();
        loop {
            if self.workers.pause().is_on() {
                self.pause()?;
                more = true;
            }
            let patience_ms = if more { Some(0) } else { self.patience_ms() };
            more = self.turn(patience_ms)?;
            if self.has_stopped() {
                self.flush_rest();
                self.hand_over_journal();
                return Ok(());
            }
        }
    }

    /// How long there is nothing to do unless something happens, in milliseconds. `None` if there is no end to it.
    fn patience_ms(&self) -> Option<u64> {
        let now = self.clock.now();
        let congested = self.is_held_up(now).then(|| now + CONGESTED_MS);
        if congested.is_none() && !self.to_read.is_empty() {
            // Time has passed since the turn, which left them because of a worker that was behind: it is waited for no more.
            return Some(0);
        }
        // What is put off is looked at again together with the sockets that it waits for.
        let tick = self.core.next_tick().filter(|_| congested.is_none() || self.put_off_since.is_none());
        let deadlines = [tick, self.sockets.next_overdue(), self.stop_by, congested, self.entrance.opens_at()];
        deadlines.into_iter().flatten().min().map(|at| at.since(now))
    }

    /// Waits until something has happened, for so long at most, and does what there is to do, each part of it bounded. `true`
    /// if something is left.
    fn turn(&mut self, patience_ms: Option<u64>) -> io::Result<bool> {
        let mut more = self.poller.wait(patience_ms)?;
        let began = self.clock.now();
        let rung = self.note_events();
        self.learn_what_is_safe(began);
        self.accept(began);
        let has_read = if self.is_held_up(began) { self.to_read.is_empty() } else { self.read_sockets() };
        if rung {
            self.exchange_listeners();
            self.welcome(self.clock.now());
            // Requests about the connections that arrive may be in the mail.
            self.adopt_arriving(self.clock.now());
            self.core.on_mail(self.clock.now());
        }
        // Handlers may have taken long.
        let now = self.clock.now();
        self.tick(more || !has_read || now.since(began) > SLOW_MS, now);
        // Mail is worked off there as well: the bell may have rung for it in an earlier turn.
        self.begin_stopping();
        // The other workers begin with theirs while this one sends.
        self.end_of_work();
        self.flush(now);
        self.close_overdue(now);
        self.end_of_work();
        self.ask_to_be_woken();
        let congested = self.is_held_up(now);
        let tick_waits = congested && self.put_off_since.is_some();
        more |= !congested && !self.to_read.is_empty();
        more |= !self.to_flush.is_empty() || self.core.has_dirty();
        Ok(more || !tick_waits && self.core.next_tick().is_some_and(|at| at <= now))
    }

    /// Lets the core do what is due; not yet, for a bounded time, if `unread` bytes may be from those whose Keep Alive is
    /// over [MQTT-3.1.2-22].
    fn tick(&mut self, unread: bool, now: Millis) {
        if self.core.next_tick().is_none_or(|at| at > now) {
            self.put_off_since = None;
            return;
        }
        let since = *self.put_off_since.get_or_insert(now);
        if unread && now.since(since) < PUT_OFF_MS_MAX {
            // What other workers have sent is due as well, and does not wait.
            self.core.on_mail(now);
            return;
        }
        // The core forgets requests about connections that have not come in time: here are those that have.
        self.adopt_arriving(now);
        // What it did not get to in its share of this turn is not put off once more.
        let has_more = self.core.on_tick(now);
        self.put_off_since = has_more.then_some(since);
    }

    /// Lets in some of those who wait at the listeners. Who is left is announced again.
    fn accept(&mut self, now: Millis) {
        self.entrance.open(&self.poller, now);
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(accepted) = self.entrance.accept(&self.poller, now) else { return };
            self.admit(accepted, now);
        }
    }

    fn admit(&mut self, Accepted { fd, peer, listener }: Accepted, now: Millis) {
        let arrival = Arrival { peer, profile: listener.profile(), details: None };
        if let Some(conn) = self.core.accept(arrival, now) {
            self.add_socket(conn, fd, None, now);
        }
    }

    /// Goes on with other listeners, if there are.
    fn exchange_listeners(&mut self) {
        let is_mine = Listener::is_direct;
        if let Some(listeners) = self.workers.new_listeners(&mut self.listeners_epoch, is_mine)
            && self.stop_by.is_none()
        {
            self.entrance.exchange(listeners, &self.poller);
        }
    }

    /// Lets in those who come from the anteroom.
    fn welcome(&mut self, now: Millis) {
        while let Some(arrived) = self.workers.take_welcomed(self.worker) {
            let Arrived { fd, peer, listener, details, transform, mut unread, flow, .. } = arrived;
            let arrival = Arrival { peer, profile: listener.profile(), details };
            let Some(conn) = self.core.accept(arrival, now) else { continue };
            self.add_socket(conn, fd, transform, now);
            self.take_in(conn, &unread, flow, now);
            // Most come with their CONNECT.
            self.core.take_has_read_secrets();
            unread.zeroize();
        }
    }

    fn add_socket(&mut self, conn: u32, fd: OwnedFd, transform: Option<Box<Transform>>, now: Millis) {
        let registered = self.poller.add(&fd, conn);
        self.sockets.insert(conn, fd);
        let mut end = None;
        if let Some(transform) = transform {
            end = transform.end();
            self.sockets.insert_transform(conn, transform);
            self.count_transform(conn);
            // It may have come with something that was not sent.
            self.to_flush.push(conn);
        }
        if let Err(error) = registered {
            tracing::warn!(worker = self.worker, %error, "a connection cannot be watched and is closed");
            return self.lose(conn, now);
        }
        // It has come from another worker, and with what brought it here came the end.
        match end {
            None => {}
            Some(PeerEnd::Said) => self.take_in(conn, &[], Flow::Ended, now),
            Some(PeerEnd::Broken) => self.break_off(conn, now),
        }
    }

    /// Notes what has become possible on each socket. `true` if the doorbell was rung.
    fn note_events(&mut self) -> bool {
        let mut rung = false;
        for readiness in self.poller.readiness() {
            let (conn, readable, ending, writable) = match readiness {
                Readiness::Socket { conn, readable, ending, writable } => (conn, readable, ending, writable),
                Readiness::Listener(number) => {
                    self.entrance.knock(number);
                    continue;
                }
                Readiness::Doorbell => {
                    rung = true;
                    continue;
                }
            };
            let Some(socket) = self.sockets.get(conn) else { continue };
            if ending && socket.stream == Stream::Open {
                socket.stream = Stream::Ending;
            }
            if readable && socket.queued == Queued::No {
                socket.queued = Queued::Yes;
                self.to_read.push(conn);
            }
            if writable && socket.is_blocked() {
                socket.set_blocked(false);
                self.to_flush.push(conn);
            }
        }
        rung
    }

    /// Reads from each socket that has something, until the turn's bytes or the core's work for it are used up: once, and again
    /// where there was little. `true` if each has had its turn.
    fn read_sockets(&mut self) -> bool {
        let (mut bytes, mut since_flush) = (0, 0);
        let mut done = 0;
        // Who has more goes to the end of the list, past the ones of this turn.
        let listed = self.to_read.len();
        while done < self.to_read.len() && !self.core.is_spent() {
            let is_again = done >= listed;
            if bytes >= if is_again { READ_ON_BYTES } else { READ_BYTES_PER_TURN } {
                break;
            }
            let conn = self.to_read[done];
            done += 1;
            // Anew for each: a handler may have been slow, and what comes now has not come before.
            let now = self.clock.now();
            let read = self.read_socket(conn, now);
            if is_again && read == 0 {
                break; // Who is held would come again and again.
            }
            bytes += read;
            since_flush += read;
            if since_flush >= flush::EARLY_READ_BYTES {
                // No connection gets much more to send than was read, so this is soon enough.
                since_flush = 0;
                self.flush_early(now);
            }
        }
        self.to_read.drain(..done);
        done >= listed
    }

    /// One `recv`. Returns the number of bytes.
    fn read_socket(&mut self, conn: u32, now: Millis) -> usize {
        let Some(socket) = self.sockets.get(conn) else { return 0 };
        if self.core.is_waiting(conn) {
            socket.queued = Queued::Waits;
            let has_gone = socket.stream != Stream::Open && self.core.may_give_up(conn) && has_ended(&socket.fd);
            if has_gone {
                self.lose(conn, now);
            }
            return 0;
        }
        if self.core.is_held(conn) {
            self.to_read.push(conn); // The core has not come to what it got in an earlier turn.
            return 0;
        }
        socket.queued = Queued::No;
        if socket.stream == Stream::Ended {
            self.end(conn, now);
            return 0;
        }
        if socket.is_transformed() {
            return self.read_transformed(conn, now);
        }
        match net::recv(&socket.fd, &mut self.scratch[..], RecvFlags::empty()) {
            Ok((0, _)) => {
                self.end(conn, now);
                0
            }
            Ok((bytes, _)) => {
                // A short read has emptied the socket: what comes next is announced by an event, but for the end of the
                // stream, if that was announced already.
                let emptied = bytes < SCRATCH_BYTES;
                if !emptied || socket.stream == Stream::Ending {
                    socket.queued = Queued::Yes;
                    self.to_read.push(conn);
                }
                if emptied && socket.stream == Stream::Ending {
                    socket.stream = Stream::Ended;
                }
                if socket.stage == Stage::Open {
                    self.core.feed(conn, &self.scratch[..bytes], now);
                    if self.core.take_has_read_secrets() {
                        self.scratch[..bytes].zeroize();
                    }
                    // At once: what handlers have asked for is on its way, and the other worker keeps it for a short time.
                    self.give_away();
                } else {
                    self.discard(conn, bytes);
                }
                bytes
            }
            Err(Errno::AGAIN) => {
                socket.stream = Stream::Open;
                0
            }
            Err(Errno::INTR) => {
                socket.queued = Queued::Yes;
                self.to_read.push(conn);
                0
            }
            Err(_) => {
                self.lose(conn, now);
                0
            }
        }
    }

    /// Gives connections to the workers that own their clients.
    fn give_away(&mut self) {
        let mut handovers = std::mem::take(&mut self.handovers);
        self.core.take_handovers(&mut handovers);
        for (conn, worker, handover) in handovers.drain(..) {
            self.uncount_transform(conn);
            let Some((socket, transform)) = self.sockets.remove(conn) else { continue };
            // If it fails, the socket was not registered, which is what is wanted.
            let _ = self.poller.remove(&socket.fd);
            self.workers.hand_over(worker, Arriving { fd: socket.fd, transform, handover });
        }
        self.handovers = handovers;
    }

    fn adopt_arriving(&mut self, now: Millis) {
        while let Some(Arriving { fd, transform, handover }) = self.workers.take_arriving(self.worker) {
            let conn = self.core.adopt(*handover, now);
            self.add_socket(conn, fd, transform, now);
        }
    }

    /// The core was asked to stop, by mail, and has told its clients.
    fn begin_stopping(&mut self) {
        if self.stop_by.is_none() && self.core.is_stopping() {
            // From now on: all handlers have been told, which may have taken long.
            self.stop_by = Some(self.clock.now() + STOP_MS_MAX);
            self.entrance.close(&self.poller);
            self.workers.enter_stopping();
        }
    }

    /// Whether the worker was asked to stop and nothing is left to wait for.
    fn has_stopped(&self) -> bool {
        let over = |stop_by| self.clock.now() >= stop_by;
        // In this order: who gives away a connection does so before it is stopping.
        let nothing_comes = || self.workers.are_stopping() && self.workers.nothing_arrives(self.worker);
        let nothing_waits = || self.core.farewells() == 0 && !self.core.is_rewriting();
        let nothing_left = || self.sockets.len() == 0 && nothing_waits() && nothing_comes();
        self.stop_by.is_some_and(|stop_by| nothing_left() || over(stop_by))
    }
}

/// Whether a peer has sent nothing more, and will not. What it has sent stays where it is.
fn has_ended(fd: &OwnedFd) -> bool {
    !matches!(net::recv(fd, &mut [0][..], RecvFlags::PEEK), Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR))
}
