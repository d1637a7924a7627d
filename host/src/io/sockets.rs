//! The sockets of one worker, by the slot of their connection.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;

use super::transform::Transform;
use crate::clock::Millis;

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Bytes go both ways.
    Open,
    /// What is outbound is still sent; what comes is discarded.
    Flushing,
    /// Everything was sent, and the peer was told so; what comes is discarded until it closes as well.
    Draining,
}

/// Whether there is something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    /// An event will say so.
    No,
    /// It is on the list of sockets to read.
    Yes,
    /// It goes back to that list when a plugin has answered about its connection, or not in time.
    Waits,
}

/// How much a peer may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// There is no end to be seen.
    Open,
    /// Nothing more than what is there, which has to be read to the end: no further event announces it.
    Ending,
    /// Everything was read.
    Ended,
}

/// One socket. Small: it is paid for by every idle connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    /// Tells this socket from an earlier one in the same slot.
    serial: u32,
    /// Bytes discarded since the connection began to close.
    pub(super) discarded_bytes: u32,
    pub(super) stage: Stage,
    /// See [`Socket::is_blocked`] and [`Socket::is_transformed`]: both in one byte.
    flags: u8,
    pub(super) queued: Queued,
    pub(super) stream: Stream,
}

const BLOCKED: u8 = 1;
const TRANSFORMED: u8 = 2;

impl Socket {
    /// The send buffer is full; an event will say when it is not.
    pub(super) fn is_blocked(&self) -> bool {
        self.flags & BLOCKED != 0
    }

    pub(super) fn set_blocked(&mut self, is_blocked: bool) {
        self.flags = if is_blocked { self.flags | BLOCKED } else { self.flags & !BLOCKED };
    }

    /// Whether there is a [`Transform`] between its bytes and those of its connection.
    pub(super) fn is_transformed(&self) -> bool {
        self.flags & TRANSFORMED != 0
    }
}

/// The sockets of one worker.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    by_conn: Vec<Option<Socket>>,
    /// What stands between the bytes of a socket and those of its connection, by the same place. Most sockets have none, and
    /// where no one has, this is empty.
    transforms: Vec<Option<Box<Transform>>>,
    len: usize,
    next_serial: u32,
    /// When a closing socket is closed at the latest.
    close_by: BinaryHeap<Reverse<(Millis, u32, u32)>>,
}

impl Sockets {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts a socket into the slot of its connection, which is free.
    pub(super) fn insert(&mut self, conn: u32, fd: OwnedFd) {
        let at = conn as usize;
        if at >= self.by_conn.len() {
            self.by_conn.resize_with(at + 1, || None);
        }
        debug_assert!(self.by_conn[at].is_none(), "the core gives a slot to one connection at a time");
        self.next_serial = self.next_serial.wrapping_add(1);
        self.len += 1;
        self.by_conn[at] = Some(Socket {
            fd,
            serial: self.next_serial,
            discarded_bytes: 0,
            stage: Stage::Open,
            flags: 0,
            queued: Queued::No,
            stream: Stream::Open,
        });
    }

    /// The socket in a slot. `None` where an event or a list is older than the slot's last change.
    pub(super) fn get(&mut self, conn: u32) -> Option<&mut Socket> {
        self.by_conn.get_mut(conn as usize)?.as_mut()
    }

    /// The descriptor in a slot.
    pub(super) fn fd(&self, conn: u32) -> Option<&OwnedFd> {
        self.by_conn.get(conn as usize)?.as_ref().map(|socket| &socket.fd)
    }

    /// Puts a transform between a socket and its connection.
    pub(super) fn insert_transform(&mut self, conn: u32, transform: Box<Transform>) {
        let at = conn as usize;
        let Some(socket) = self.by_conn.get_mut(at).and_then(Option::as_mut) else { return };
        socket.flags |= TRANSFORMED;
        if at >= self.transforms.len() {
            self.transforms.resize_with(at + 1, || None);
        }
        self.transforms[at] = Some(transform);
    }

    /// A socket with what stands between it and its connection, if anything does.
    pub(super) fn transformed(&mut self, conn: u32) -> Option<(&mut Socket, &mut Transform)> {
        let transform = self.transforms.get_mut(conn as usize)?.as_deref_mut()?;
        Some((self.by_conn.get_mut(conn as usize)?.as_mut()?, transform))
    }

    /// Takes the socket out of its slot, and what stands before it.
    pub(super) fn remove(&mut self, conn: u32) -> Option<(Socket, Option<Box<Transform>>)> {
        let socket = self.by_conn.get_mut(conn as usize)?.take()?;
        self.len -= 1;
        let transform = if socket.is_transformed() { self.transforms[conn as usize].take() } else { None };
        Some((socket, transform))
    }

    /// Sees to it that a closing socket is closed at `at`, whatever its peer does.
    pub(super) fn close_by(&mut self, conn: u32, at: Millis) {
        if let Some(serial) = self.get(conn).map(|socket| socket.serial) {
            self.close_by.push(Reverse((at, conn, serial)));
        }
    }

    /// When the next closing socket has to be closed.
    pub(super) fn next_overdue(&self) -> Option<Millis> {
        self.close_by.peek().map(|Reverse((at, ..))| *at)
    }

    /// A connection whose time to close has passed.
    pub(super) fn pop_overdue(&mut self, now: Millis) -> Option<u32> {
        while self.next_overdue().is_some_and(|at| at <= now) {
            let Reverse((_, conn, serial)) = self.close_by.pop()?;
            if self.get(conn).is_some_and(|socket| socket.serial == serial) {
                return Some(conn);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn socket_in_a_reused_slot_is_not_closed_for_its_predecessor() {
        let mut sockets = Sockets::default();
        sockets.insert(3, fd());
        sockets.close_by(3, Millis(10));
        sockets.remove(3).unwrap();
        sockets.insert(3, fd());
        assert_eq!(sockets.pop_overdue(Millis(20)), None);
        sockets.close_by(3, Millis(30));
        assert_eq!((sockets.next_overdue(), sockets.pop_overdue(Millis(29))), (Some(Millis(30)), None));
        assert_eq!(sockets.pop_overdue(Millis(30)), Some(3));
        assert_eq!(sockets.len(), 1);
    }

    #[test]
    fn socket_costs_an_idle_connection_few_bytes() {
        assert!(size_of::<Option<Socket>>() <= 16, "{}", size_of::<Option<Socket>>());
    }
}
