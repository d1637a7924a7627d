//! Moves bytes between the sockets of one worker and its core: when, and in. `flush` moves them out.

mod flush;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{self, RecvFlags};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use super::listener::Accepted;
use super::poller::{Poller, Readiness, watch};
use super::sockets::{Queued, Sockets, Stage};
use super::worker::Workers;
use crate::clock::{Clock, Millis};
use crate::core::{Core, Handover};

/// Bytes taken from one socket in a turn. All sockets share this one buffer.
const SCRATCH_BYTES: usize = 64 << 10;

/// Bytes taken from all sockets in a turn; who is left is first in the next one.
const READ_BYTES_PER_TURN: usize = if cfg!(test) { 64 << 10 } else { 4 << 20 };

/// Time until a worker that another one cannot follow looks again whether it may read, in milliseconds.
const CONGESTED_MS: u64 = 2;

/// Sockets taken from the listeners in a turn.
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
/// It works in turns: take what has happened, read from each socket that has something, once; let the core work; then
/// send, once to each connection that has something outbound. So everything that one turn causes for one peer leaves in
/// one `send`, however many messages it is.
pub(super) struct Driver {
    worker: usize,
    core: Core,
    poller: Poller,
    sockets: Sockets,
    accepted: mpsc::Receiver<Accepted>,
    workers: Arc<Workers>,
    clock: Clock,
    accepting: Vec<JoinHandle<()>>,
    /// When the worker ends at the latest, once it was asked to.
    stop_by: Option<Millis>,
    /// Since when the core's timers are due and are put off.
    put_off_since: Option<Millis>,
    scratch: Box<[u8]>,
    /// A socket that [`Driver::poll_wait`] took out of `accepted`.
    next_accepted: Option<Accepted>,
    /// Sockets to read, each at most once; first those that waited longest.
    to_read: Vec<u32>,
    /// Connections to look at after the core has worked. One may be on it twice.
    to_flush: Vec<u32>,
    handovers: Vec<(u32, usize, Box<Handover>)>,
}

impl Driver {
    pub(super) fn new(
        worker: usize,
        core: Core,
        poller: Poller,
        accepted: mpsc::Receiver<Accepted>,
        workers: Arc<Workers>,
        clock: Clock,
        accepting: Vec<JoinHandle<()>>,
    ) -> Self {
        Self {
            worker,
            core,
            poller,
            sockets: Sockets::default(),
            accepted,
            workers,
            clock,
            accepting,
            stop_by: None,
            put_off_since: None,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            next_accepted: None,
            to_read: Vec::new(),
            to_flush: Vec::new(),
            handovers: Vec::new(),
        }
    }

    /// Takes turns until the worker was asked to stop and has done so.
    ///
    /// The runtime learns of new events through an edge on the epoll's own descriptor. Its readiness is cleared only after
    /// a turn that left nothing undone; otherwise other tasks of the worker run, and the next turn follows.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let events = watch(self.poller.fd())?;
        let mut alarm = Alarm { sleep: Box::pin(tokio::time::sleep_until(Instant::now())), at: None };
        let mut more = false;
        loop {
            let mut guard = poll_fn(|cx| self.poll_wait(cx, &events, &mut alarm, more)).await?;
            more = self.turn();
            if self.has_stopped() {
                self.flush_rest();
                return Ok(());
            }
            if more {
                tokio::task::yield_now().await;
            } else if let Some(guard) = &mut guard {
                guard.clear_ready();
            }
        }
    }

    /// Ready when there is something to do: at once if the last turn left something. The guard tells that it is events.
    fn poll_wait<'e>(
        &mut self,
        cx: &mut Context<'_>,
        events: &'e AsyncFd<Arc<OwnedFd>>,
        alarm: &mut Alarm,
        more: bool,
    ) -> Poll<io::Result<Option<AsyncFdReadyGuard<'e, Arc<OwnedFd>>>>> {
        if let Poll::Ready(guard) = events.poll_read_ready(cx) {
            return Poll::Ready(guard.map(Some));
        }
        if more {
            return Poll::Ready(Ok(None));
        }
        if let Poll::Ready(Some(accepted)) = self.accepted.poll_recv(cx) {
            self.next_accepted = Some(accepted);
            return Poll::Ready(Ok(None));
        }
        let now = self.clock.now();
        let congested = self.core.is_congested(now).then(|| now + CONGESTED_MS);
        if congested.is_none() && !self.to_read.is_empty() {
            // Time has passed since the turn, which left them because of a worker that was behind: it is waited for no more.
            return Poll::Ready(Ok(None));
        }
        // What is put off is looked at again together with the sockets that it waits for.
        let tick = self.core.next_tick().filter(|_| congested.is_none() || self.put_off_since.is_none());
        let deadlines = [tick, self.sockets.next_overdue(), self.stop_by, congested];
        ready!(alarm.poll(cx, deadlines.into_iter().flatten().min(), self.clock));
        Poll::Ready(Ok(None))
    }

    /// Does what there is to do, each part of it bounded. `true` if something is left.
    fn turn(&mut self) -> bool {
        let began = self.clock.now();
        let accepted_all = self.take_accepted(began);
        let mut more = self.poller.take_events();
        let rung = self.note_events();
        let has_read = if self.core.is_congested(began) { self.to_read.is_empty() } else { self.read_sockets() };
        if rung {
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
        self.core.flush_mail();
        self.flush(now);
        self.close_overdue(now);
        self.core.flush_mail();
        let congested = self.core.is_congested(now);
        let tick_waits = congested && self.put_off_since.is_some();
        more |= !accepted_all || !congested && !self.to_read.is_empty();
        more |= !self.to_flush.is_empty() || self.core.has_dirty();
        more || !tick_waits && self.core.next_tick().is_some_and(|at| at <= now)
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

    fn take_accepted(&mut self, now: Millis) -> bool {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(accepted) = self.next_accepted.take().or_else(|| self.accepted.try_recv().ok()) else {
                return true;
            };
            if self.stop_by.is_some() {
                continue;
            }
            if let Some(conn) = self.core.accept(accepted.peer, &accepted.listener, now) {
                self.add_socket(conn, accepted.fd, now);
            }
        }
        false
    }

    fn add_socket(&mut self, conn: u32, fd: OwnedFd, now: Millis) {
        let registered = self.poller.add(&fd, conn);
        self.sockets.insert(conn, fd);
        if let Err(error) = registered {
            tracing::warn!(worker = self.worker, %error, "a connection cannot be watched and is closed");
            self.lose(conn, now);
        }
    }

    /// Notes what has become possible on each socket. `true` if the doorbell was rung.
    fn note_events(&mut self) -> bool {
        let mut rung = false;
        for readiness in self.poller.readiness() {
            let Readiness::Socket { conn, readable, ending, writable } = readiness else {
                rung = true;
                continue;
            };
            let Some(socket) = self.sockets.get(conn) else { continue };
            socket.ending |= ending;
            if readable && socket.queued == Queued::No {
                socket.queued = Queued::Yes;
                self.to_read.push(conn);
            }
            if writable && socket.blocked {
                socket.blocked = false;
                self.to_flush.push(conn);
            }
        }
        rung
    }

    /// Reads once from each socket that has something, until the turn's bytes or the core's work for it are used up. `true` if each has had its turn.
    fn read_sockets(&mut self) -> bool {
        let (mut bytes, mut since_flush) = (0, 0);
        let mut done = 0;
        // Who has more goes to the end of the list, past the ones of this turn.
        let listed = self.to_read.len();
        while done < listed && bytes < READ_BYTES_PER_TURN && !self.core.is_spent() {
            let conn = self.to_read[done];
            done += 1;
            // Anew for each: a handler may have been slow, and what comes now has not come before.
            let now = self.clock.now();
            let read = self.read_socket(conn, now);
            bytes += read;
            since_flush += read;
            if since_flush >= flush::EARLY_READ_BYTES {
                // No connection gets much more to send than was read, so this is soon enough.
                since_flush = 0;
                self.flush_early(now);
            }
        }
        self.to_read.drain(..done);
        done == listed
    }

    /// One `recv`. Returns the number of bytes.
    fn read_socket(&mut self, conn: u32, now: Millis) -> usize {
        let Some(socket) = self.sockets.get(conn) else { return 0 };
        if self.core.is_waiting(conn) {
            socket.queued = Queued::Waits;
            let has_gone = socket.ending && self.core.may_give_up(conn) && has_ended(&socket.fd);
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
        match net::recv(&socket.fd, &mut self.scratch[..], RecvFlags::empty()) {
            Ok((0, _)) => {
                self.end(conn, now);
                0
            }
            Ok((bytes, _)) => {
                // A short read has emptied the socket: what comes next is announced by an event, but for the end of the
                // stream, if that was announced already.
                if bytes == SCRATCH_BYTES || socket.ending {
                    socket.queued = Queued::Yes;
                    self.to_read.push(conn);
                }
                if socket.stage == Stage::Open {
                    self.core.feed(conn, &self.scratch[..bytes], now);
                    // At once: what handlers have asked for is on its way, and the other worker keeps it for a short time.
                    self.give_away();
                } else {
                    self.discard(conn, bytes);
                }
                bytes
            }
            Err(Errno::AGAIN) => {
                socket.ending = false;
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
        self.core.take_handovers(&mut self.handovers);
        for (conn, worker, handover) in self.handovers.drain(..) {
            let Some(socket) = self.sockets.remove(conn) else { continue };
            // If it fails, the socket was not registered, which is what is wanted.
            let _ = self.poller.remove(&socket.fd);
            self.workers.hand_over(worker, socket.fd, handover);
        }
    }

    fn adopt_arriving(&mut self, now: Millis) {
        while let Some((fd, handover)) = self.workers.take_arriving(self.worker) {
            let conn = self.core.adopt(*handover, now);
            self.add_socket(conn, fd, now);
        }
    }

    /// The core was asked to stop, by mail, and has told its clients.
    fn begin_stopping(&mut self) {
        if self.stop_by.is_none() && self.core.is_stopping() {
            // From now on: all handlers have been told, which may have taken long.
            self.stop_by = Some(self.clock.now() + STOP_MS_MAX);
            self.accepting.drain(..).for_each(|task| task.abort());
            self.workers.enter_stopping();
        }
    }

    /// Whether the worker was asked to stop and nothing is left to wait for.
    fn has_stopped(&self) -> bool {
        let over = |stop_by| self.clock.now() >= stop_by;
        // In this order: who gives away a connection does so before it is stopping.
        let nothing_comes = || self.workers.are_stopping() && self.workers.nothing_arrives(self.worker);
        let nothing_left = || self.sockets.len() == 0 && self.core.farewells() == 0 && nothing_comes();
        self.stop_by.is_some_and(|stop_by| nothing_left() || over(stop_by))
    }
}

/// Whether a peer has sent nothing more, and will not. What it has sent stays where it is.
fn has_ended(fd: &OwnedFd) -> bool {
    !matches!(net::recv(fd, &mut [0][..], RecvFlags::PEEK), Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR))
}

/// The one timer of a worker. It is set anew only when the next deadline is another one.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Option<Millis>,
}

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>, at: Option<Millis>, clock: Clock) -> Poll<()> {
        let Some(deadline) = at else {
            self.at = None;
            return Poll::Pending;
        };
        if self.at != at {
            self.at = at;
            self.sleep.as_mut().reset(Instant::from_std(clock.instant(deadline)));
        }
        ready!(self.sleep.as_mut().poll(cx));
        // It has fired: it has to be set again, even for the same moment.
        self.at = None;
        Poll::Ready(())
    }
}
