//! A worker's own epoll, and the doorbell that other threads ring.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

/// Events taken from the kernel at once. More of them make longer batches, and longer turns.
const EVENTS_MAX: usize = 1024;

/// What the doorbell is registered as; connections are registered as their slot, which has 32 bits.
const DOORBELL: u64 = u64::MAX;

/// What the first listener is registered as; the others follow.
const LISTENERS: u64 = 1 << 32;

/// The longest time to wait, in milliseconds: what the kernel takes has a bound, and looking once an hour costs nothing.
const WAIT_MS_MAX: u64 = 3_600_000;

/// Wakes one worker from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Doorbell(Arc<OwnedFd>);

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Wakes the worker. Never blocks.
    pub(crate) fn ring(&self) {
        // It fails only when the counter is about to overflow, after 2^64 rings that nobody reads.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// What has become possible on a socket, or who has rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Another thread has something for this worker.
    Doorbell,
    /// Somebody waits to be accepted by the listener of this number.
    Listener(usize),
    /// A socket of this worker.
    Socket {
        /// The connection's slot.
        conn: u32,
        /// There are bytes, the end of the stream or an error to read.
        readable: bool,
        /// The peer will send nothing more: read until the end.
        ending: bool,
        /// There is room in the socket's send buffer.
        writable: bool,
    },
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        let (data, flags) = (event.data.u64(), event.flags);
        match u32::try_from(data) {
            Err(_) if data == DOORBELL => Self::Doorbell,
            // It has the number of a place in a list.
            Err(_) => Self::Listener(usize::try_from(data - LISTENERS).unwrap_or(usize::MAX)),
            Ok(conn) => {
                let ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                let readable = ending || flags.contains(EventFlags::IN);
                Self::Socket { conn, readable, ending, writable: flags.contains(EventFlags::OUT) }
            }
        }
    }
}

/// An epoll of one worker.
///
/// Sockets are registered edge-triggered, once, for both directions: afterwards no message costs an `epoll_ctl`, a
/// blocked socket neither, and the doorbell need not be read. Whoever handles an event therefore remembers what it has
/// left undone. Listeners are reported for as long as somebody waits there, to one worker of those that wait.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    /// The kernel's part, which can be made on another thread.
    pub(super) fn create(doorbell: &Doorbell) -> io::Result<OwnedFd> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*doorbell.0, EventData::new_u64(DOORBELL), EventFlags::IN | EventFlags::ET)?;
        Ok(epoll)
    }

    pub(super) fn new(epoll: OwnedFd) -> Self {
        Self { epoll, events: Vec::with_capacity(EVENTS_MAX) }
    }

    /// Registers a connection's socket. What is possible on it already is reported as well. Closing the socket ends it.
    pub(super) fn add(&self, socket: impl AsFd, conn: u32) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(u64::from(conn)), flags)?)
    }

    /// Registers a listener of all workers.
    pub(super) fn add_listener(&self, socket: impl AsFd, number: usize) -> io::Result<()> {
        let data = EventData::new_u64(LISTENERS + number as u64);
        Ok(epoll::add(&self.epoll, socket, data, EventFlags::IN | EventFlags::EXCLUSIVE)?)
    }

    /// Ends the registration of a socket that stays open, on its way to another worker, or of a listener.
    pub(super) fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits until something has happened, for `patience_ms` milliseconds at most if there is such a bound, and takes it.
    /// `true` if there may be more.
    ///
    /// # Errors
    /// The epoll is of no use, which only a bug makes it.
    pub(super) fn wait(&mut self, patience_ms: Option<u64>) -> io::Result<bool> {
        let timeout = patience_ms.map(|millis| Timespec {
            tv_sec: i64::try_from(millis.min(WAIT_MS_MAX) / 1000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(millis.min(WAIT_MS_MAX) % 1000 * 1_000_000).unwrap_or(0),
        });
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(count) => Ok(count == EVENTS_MAX),
            // It was interrupted, and has taken nothing: there may be something.
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// What [`Poller::wait`] took.
    pub(super) fn readiness(&self) -> impl Iterator<Item = Readiness> {
        self.events.iter().map(Readiness::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ring_is_reported_once_though_nobody_reads_the_doorbell() {
        let doorbell = Doorbell::new().unwrap();
        let mut poller = Poller::new(Poller::create(&doorbell).unwrap());
        for _ in 0..3 {
            doorbell.ring();
            assert!(!poller.wait(None).unwrap());
            assert_eq!(poller.readiness().collect::<Vec<_>>(), [Readiness::Doorbell]);
            poller.wait(Some(0)).unwrap();
            assert_eq!(poller.readiness().count(), 0);
        }
    }

    #[test]
    fn socket_is_reported_with_what_is_possible_on_it() {
        use std::io::Write;
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut poller = Poller::new(Poller::create(&Doorbell::new().unwrap()).unwrap());
        poller.add(&theirs, 7).unwrap();
        let mut expect = |readable, ending| {
            poller.wait(Some(0)).unwrap();
            let socket = Readiness::Socket { conn: 7, readable, ending, writable: true };
            assert_eq!(poller.readiness().collect::<Vec<_>>(), [socket]);
        };
        expect(false, false);
        ours.write_all(b"x").unwrap();
        expect(true, false);
        drop(ours);
        expect(true, true);
    }
}
