//! A worker's own epoll, and the doorbell that other threads ring.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime of this thread watch a descriptor for something to read.
pub(super) fn watch(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // Deprecated for an `unsafe` function, because a type may lie about its descriptor. `OwnedFd` does not.
    #[allow(deprecated)]
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Events taken from the kernel at once. More of them make longer batches, and longer turns.
const EVENTS_MAX: usize = 1024;

/// What the doorbell is registered as; connections are registered as their slot, which has 32 bits.
const DOORBELL: u64 = u64::MAX;

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
            Err(_) => Self::Doorbell,
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
/// Everything is registered edge-triggered, once, for both directions: afterwards no message costs an `epoll_ctl`, a
/// blocked socket neither, and the doorbell need not be read. Whoever handles an event therefore remembers what it has
/// left undone.
pub(super) struct Poller {
    epoll: Arc<OwnedFd>,
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
        Self { epoll: Arc::new(epoll), events: Vec::with_capacity(EVENTS_MAX) }
    }

    /// The epoll itself, which is readable while it has events.
    pub(super) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }

    /// Registers a connection's socket. What is possible on it already is reported as well. Closing the socket ends it.
    pub(super) fn add(&self, socket: impl AsFd, conn: u32) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&*self.epoll, socket, EventData::new_u64(u64::from(conn)), flags)?)
    }

    /// Ends the registration of a socket that stays open, on its way to another worker.
    pub(super) fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&*self.epoll, socket)?)
    }

    /// Takes what has happened, without waiting. `true` if there may be more.
    pub(super) fn take_events(&mut self) -> bool {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.events.clear();
        // An interrupted call has taken nothing: there may be more.
        let taken = epoll::wait(&*self.epoll, spare_capacity(&mut self.events), Some(&AT_ONCE));
        taken.map_or(true, |count| count == EVENTS_MAX)
    }

    /// What [`Poller::take_events`] took.
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
            assert!(!poller.take_events());
            assert_eq!(poller.readiness().collect::<Vec<_>>(), [Readiness::Doorbell]);
            poller.take_events();
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
            poller.take_events();
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
