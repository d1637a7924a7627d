//! Moves bytes out, and sockets to their end.

use std::ops::Range;

use rustix::io::Errno;
use rustix::net::{self, SendFlags, Shutdown};

use super::Driver;
use crate::clock::Millis;
use crate::io::sockets::{Queued, Stage, Stream};

/// Calls of `send` in a turn, before readiness is asked for again.
const SENDS_PER_TURN: usize = if cfg!(test) { 16 } else { 512 };

/// The same for connections that are left over from earlier turns. Few, so that others need not wait for long: a message for
/// 10,000 made the 99th percentile of others' latency 117 ms when these came first, 7 ms with 512 behind the others.
const LEFT_OVER_SENDS_PER_TURN: usize = SENDS_PER_TURN / 4;

/// Calls of `send` for one connection in a turn, while the core goes on filling its buffer.
pub(super) const SENDS_PER_CONNECTION: usize = 4;

/// When so many bytes have been read in a turn, those are sent to that have much outbound, though the turn is not over: what
/// is sent soon is still in the processor's cache, and so is the buffer for the next one.
pub(super) const EARLY_READ_BYTES: usize = 256 << 10;

/// What is much then. Whoever has less gets more until the end of the turn: a call of `send` costs as much as some ten small
/// messages.
const EARLY_BYTES: usize = 8 << 10;

/// Time to send what a closing connection still has outbound, in milliseconds.
const FLUSH_MS_MAX: u64 = 5_000;

/// Time that a peer gets to close its side after we have closed ours, in milliseconds. Closing at once could destroy
/// the last packets on their way, if the peer has sent something that we did not read.
const DRAIN_MS_MAX: u64 = 1_000;

/// The same while the server stops.
const DRAIN_STOPPING_MS_MAX: u64 = 200;

/// Bytes that are discarded of one closing connection before it is closed for good.
const DISCARD_BYTES_MAX: u32 = 1 << 20;

impl Driver {
    /// Sends to the connections that have much outbound, though the turn is not over.
    pub(super) fn flush_early(&mut self, now: Millis) {
        self.take_dirty();
        for at in 0..self.to_flush.len() {
            let conn = self.to_flush[at];
            if self.sockets.get(conn).is_some() && self.core.outbound_bytes(conn) > EARLY_BYTES {
                self.send_outbound(conn, now);
            }
        }
    }

    /// Sends to each connection that the core has filled, closes those that it has done with.
    pub(super) fn flush(&mut self, now: Millis) {
        self.take_dirty();
        let (left_over, listed) = (self.left_over.min(self.to_flush.len()), self.to_flush.len());
        // Those of this turn are not to wait until all have been served to whom an earlier message goes, which may be many
        // thousands; nor are these to wait for ever.
        let new_done = self.flush_some(left_over..listed, SENDS_PER_TURN, now);
        let old_done = self.flush_some(0..left_over, LEFT_OVER_SENDS_PER_TURN, now);
        self.to_flush.drain(left_over..new_done);
        self.to_flush.drain(..old_done);
        self.forget_repeated();
        self.left_over = self.to_flush.len();
    }

    /// Who was filled again before its turn has come is listed again. While more is to be sent in each turn than there is time
    /// for, the list would grow without end.
    fn forget_repeated(&mut self) {
        if self.to_flush.len() <= 2 * self.sockets.len() {
            return;
        }
        let slots = self.to_flush.iter().max().map_or(0, |conn| *conn as usize + 1);
        let mut is_listed = vec![false; slots];
        self.to_flush.retain(|conn| !std::mem::replace(&mut is_listed[*conn as usize], true));
    }

    /// Sends to these of the list, until there were so many calls of `send`. Returns where it has stopped.
    fn flush_some(&mut self, listed: Range<usize>, sends_max: usize, now: Millis) -> usize {
        let (mut at, mut sends) = (listed.start, 0);
        while at < listed.end && sends < sends_max {
            let conn = self.to_flush[at];
            at += 1;
            sends += self.send_outbound(conn, now);
            self.read_on(conn);
            self.close_if_done(conn, now);
        }
        at
    }

    /// A plugin has answered about a connection, or not in time: its socket is read again.
    fn read_on(&mut self, conn: u32) {
        let waits = self.core.is_waiting(conn);
        if let Some(socket) = self.sockets.get(conn).filter(|socket| socket.queued == Queued::Waits && !waits) {
            socket.queued = Queued::Yes;
            self.to_read.push(conn);
        }
    }

    /// Takes in who has something outbound. Packets that have waited are handled then: they may let a client in that
    /// belongs to another worker.
    fn take_dirty(&mut self) {
        self.core.take_dirty(&mut self.to_flush);
        self.give_away();
    }

    /// Sends to all that have something outbound, once more, before their sockets are closed whatever is left.
    pub(super) fn flush_rest(&mut self) {
        let now = self.clock.now();
        self.take_dirty();
        self.left_over = 0;
        for conn in std::mem::take(&mut self.to_flush) {
            self.send_outbound(conn, now);
        }
    }

    /// Sends what is outbound, as far as the socket takes it. Returns the number of calls of `send`.
    pub(super) fn send_outbound(&mut self, conn: u32, now: Millis) -> usize {
        let Some(socket) = self.sockets.get(conn) else { return 0 };
        if socket.is_blocked() {
            return 0;
        }
        if socket.is_transformed() {
            return self.send_transformed(conn, now);
        }
        for sends in 0..SENDS_PER_CONNECTION {
            let bytes = self.core.outbound(conn);
            let length = bytes.len();
            if length == 0 {
                return sends;
            }
            let sent = match net::send(&socket.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => 0,
                Err(Errno::INTR) => continue,
                // Packets of it wait for their turn, and DISCONNECT may be one of them: reading comes to the error after them.
                Err(_) if self.core.is_held(conn) => 0,
                Err(_) => {
                    self.lose(conn, now);
                    return sends + 1;
                }
            };
            // A short `send` has filled the socket's buffer; an event follows when there is room again.
            socket.set_blocked(sent < length);
            if sent > 0 {
                self.core.sent(conn, sent, now);
            }
            if sent < length {
                return sends + 1;
            }
        }
        if !self.core.outbound(conn).is_empty() {
            self.to_flush.push(conn);
        }
        SENDS_PER_CONNECTION
    }

    /// Takes a connection that the core has done with one step further towards its end.
    pub(super) fn close_if_done(&mut self, conn: u32, now: Millis) {
        let Some(socket) = self.sockets.get(conn) else { return };
        if socket.stage == Stage::Draining || !self.core.is_closing(conn) {
            return;
        }
        let is_transformed = socket.is_transformed();
        let has_more = !self.core.outbound(conn).is_empty() || self.core.is_owed(conn);
        if has_more || is_transformed && !self.close_transformed(conn) {
            let Some(socket) = self.sockets.get(conn) else { return };
            if socket.stage == Stage::Open {
                socket.stage = Stage::Flushing;
                self.sockets.close_by(conn, now + FLUSH_MS_MAX);
            }
            return;
        }
        let Some(socket) = self.sockets.get(conn) else { return };
        let is_emptied = socket.queued == Queued::No;
        if socket.stream == Stream::Ended || is_emptied && self.core.has_left(conn) {
            // Nothing comes any more that could destroy what is on its way.
            self.release(conn);
            return;
        }
        socket.stage = Stage::Draining;
        // Its peer has gone if this fails, and the read that follows finds out.
        let _ = net::shutdown(&socket.fd, Shutdown::Write);
        let patience = if self.stop_by.is_some() { DRAIN_STOPPING_MS_MAX } else { DRAIN_MS_MAX };
        self.sockets.close_by(conn, now + patience);
    }

    /// Closes connections that have taken too long to end.
    pub(super) fn close_overdue(&mut self, now: Millis) {
        while let Some(conn) = self.sockets.pop_overdue(now) {
            self.release(conn);
        }
    }

    /// Bytes came for a connection that is being closed.
    pub(super) fn discard(&mut self, conn: u32, bytes: usize) {
        let Some(socket) = self.sockets.get(conn) else { return };
        socket.discarded_bytes = socket.discarded_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if socket.discarded_bytes > DISCARD_BYTES_MAX {
            self.release(conn);
        }
    }

    /// The peer has sent everything. It may still be reading: the answers to its last packets are worth one `send`.
    pub(super) fn end(&mut self, conn: u32, now: Millis) {
        self.send_outbound(conn, now);
        if self.sockets.get(conn).is_some_and(|socket| socket.is_transformed()) {
            self.core.lost(conn, now);
            self.close_transformed(conn);
        }
        self.lose(conn, now);
    }

    /// The socket is of no more use.
    pub(super) fn lose(&mut self, conn: u32, now: Millis) {
        if self.sockets.get(conn).is_some() {
            self.core.lost(conn, now);
            self.release(conn);
        }
    }

    /// Closes the socket and frees the connection's slot.
    pub(super) fn release(&mut self, conn: u32) {
        self.uncount_transform(conn);
        if self.sockets.remove(conn).is_some() {
            self.core.release(conn);
        }
    }
}
