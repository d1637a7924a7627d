//! The same for sockets whose bytes are not those of MQTT: what is read is opened first, and what is sent is sealed.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use zeroize::Zeroize;

use super::flush::SENDS_PER_CONNECTION;
use super::{Driver, SCRATCH_BYTES};
use crate::clock::Millis;
use crate::io::sockets::{Queued, Stage, Stream};
use crate::io::transform::{Flow, Transform};

impl Driver {
    /// One `recv`, and what it leads to. Returns the number of bytes: those of MQTT where compressed frames have become more.
    pub(super) fn read_transformed(&mut self, conn: u32, now: Millis) -> usize {
        let Some((socket, transform)) = self.sockets.transformed(conn) else { return 0 };
        if socket.stage != Stage::Open {
            return self.read_to_discard(conn, now);
        }
        let restored = transform.restore(&mut self.scratch);
        let room = (SCRATCH_BYTES - restored).min(transform.read_bytes_max());
        let received = net::recv(&socket.fd, &mut self.scratch[restored..restored + room], RecvFlags::empty());
        let bytes = match received {
            Ok((bytes @ 1.., _)) => bytes,
            other => {
                // What was incomplete stays so.
                transform.put_back(&self.scratch[..restored]);
                return match other {
                    Err(Errno::AGAIN) => {
                        socket.stream = Stream::Open;
                        0
                    }
                    Err(Errno::INTR) => {
                        socket.queued = Queued::Yes;
                        self.to_read.push(conn);
                        0
                    }
                    Ok(_) => {
                        self.end(conn, now);
                        0
                    }
                    Err(_) => {
                        self.lose(conn, now);
                        0
                    }
                };
            }
        };
        let emptied = bytes < room;
        if !emptied || socket.stream == Stream::Ending {
            socket.queued = Queued::Yes;
            self.to_read.push(conn);
        }
        if emptied && socket.stream == Stream::Ending {
            socket.stream = Stream::Ended;
        }
        let opened = transform.open(&mut self.scratch[..restored + bytes], &mut self.buffers);
        if !transform.unsent().is_empty() {
            self.to_flush.push(conn);
        }
        self.count_transform(conn);
        let mut plain = std::mem::take(&mut self.buffers.plain);
        let opened_bytes = plain.len();
        self.take_in(conn, &plain, *opened.as_ref().unwrap_or(&Flow::Open), now);
        if self.core.take_has_read_secrets() {
            plain.zeroize();
            self.buffers.wire.zeroize();
            self.scratch[..restored + bytes].zeroize();
        }
        self.buffers.plain = plain;
        self.buffers.give_back();
        if let Err(broken) = opened {
            tracing::debug!(worker = self.worker, "a connection is closed: {broken}");
            self.break_off(conn, now);
        }
        bytes.max(opened_bytes)
    }

    /// Closes a connection whose peer has sent what makes no sense. It is sent what came of what it has sent before, and told
    /// why; and we wait until it has closed as well, as closing with bytes unread could destroy that.
    pub(super) fn break_off(&mut self, conn: u32, now: Millis) {
        self.send_outbound(conn, now);
        if self.sockets.get(conn).is_some() {
            self.core.lost(conn, now);
            self.to_flush.push(conn);
        }
    }

    /// Hands in what a transform has opened.
    pub(super) fn take_in(&mut self, conn: u32, plain: &[u8], flow: Flow, now: Millis) {
        let Some(socket) = self.sockets.get(conn) else { return };
        if flow == Flow::Ended {
            socket.stream = Stream::Ended;
            if socket.queued == Queued::No {
                socket.queued = Queued::Yes;
                self.to_read.push(conn);
            }
        }
        if !plain.is_empty() {
            self.core.feed(conn, plain, now);
            self.give_away();
        }
    }

    /// Reads once from a connection that is being closed.
    fn read_to_discard(&mut self, conn: u32, now: Millis) -> usize {
        let Some(socket) = self.sockets.get(conn) else { return 0 };
        match net::recv(&socket.fd, &mut self.scratch[..], RecvFlags::empty()) {
            Ok((0, _)) => self.end(conn, now),
            Ok((bytes, _)) => {
                socket.queued = Queued::Yes;
                self.to_read.push(conn);
                self.discard(conn, bytes);
                return bytes;
            }
            Err(Errno::AGAIN) => socket.stream = Stream::Open,
            Err(Errno::INTR) => {
                socket.queued = Queued::Yes;
                self.to_read.push(conn);
            }
            Err(_) => self.lose(conn, now),
        }
        0
    }

    /// Sends what is sealed, and seals more, as far as the socket takes it. Returns the number of calls of `send`.
    pub(super) fn send_transformed(&mut self, conn: u32, now: Millis) -> usize {
        for sends in 0..SENDS_PER_CONNECTION {
            let Some((_, transform)) = self.sockets.transformed(conn) else { return sends };
            let is_left = !transform.unsent().is_empty();
            if !is_left {
                let plain = self.core.outbound(conn);
                if plain.is_empty() {
                    return sends;
                }
                let Ok(sealed) = transform.seal(plain, &mut self.buffers) else {
                    self.lose(conn, now);
                    return sends;
                };
                self.core.sent(conn, sealed, now);
            }
            let Some((socket, transform)) = self.sockets.transformed(conn) else { return sends };
            let wire = if is_left { transform.unsent() } else { &self.buffers.wire[..] };
            let sent = match send(&socket.fd, wire) {
                Ok(sent) => sent,
                // As with a plain socket: reading comes to the error.
                Err(_) if self.core.is_held(conn) => 0,
                Err(_) => {
                    self.lose(conn, now);
                    return sends + 1;
                }
            };
            let is_short = sent < wire.len();
            socket.set_blocked(is_short);
            if is_left {
                transform.note_sent(sent);
            } else if is_short {
                transform.keep_unsent(&self.buffers.wire[sent..]);
            }
            if is_left || is_short {
                self.count_transform(conn);
            }
            if is_short {
                return sends + 1;
            }
        }
        if !self.core.outbound(conn).is_empty() {
            self.to_flush.push(conn);
        }
        SENDS_PER_CONNECTION
    }

    /// Tells the peer that nothing more comes. `false` if the socket has not taken all of it, or of what went before.
    pub(super) fn close_transformed(&mut self, conn: u32) -> bool {
        let Some((socket, transform)) = self.sockets.transformed(conn) else { return true };
        transform.close(self.stop_by.is_some());
        if socket.is_blocked() {
            return false;
        }
        let unsent = transform.unsent();
        if unsent.is_empty() {
            return true;
        }
        // If that fails, its peer has gone, and the read that follows finds out.
        let sent = send(&socket.fd, unsent).unwrap_or(unsent.len());
        let is_short = sent < unsent.len();
        transform.note_sent(sent);
        socket.set_blocked(is_short);
        self.count_transform(conn);
        !is_short
    }

    /// Has the account of the worker know what a transform keeps.
    pub(super) fn count_transform(&mut self, conn: u32) {
        if let Some((_, transform)) = self.sockets.transformed(conn) {
            count(&self.core, transform, transform.held_bytes());
        }
    }

    /// The same before it leaves the worker.
    pub(super) fn uncount_transform(&mut self, conn: u32) {
        if let Some((_, transform)) = self.sockets.transformed(conn) {
            count(&self.core, transform, 0);
        }
    }
}

/// Sends as much as the socket takes.
fn send(fd: &OwnedFd, wire: &[u8]) -> Result<usize, Errno> {
    loop {
        match net::send(fd, wire, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            other => return other,
        }
    }
}

fn count(core: &crate::core::Core, transform: &mut Transform, held: usize) {
    core.count_held(transform.counted_bytes, held);
    transform.counted_bytes = held;
}
