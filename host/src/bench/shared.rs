//! What the threads of a load share: phases, pace, and numbers, each of which one thread writes.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::codec::ProtocolVersion;

use super::publisher::Schedule;

/// What the load is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(super) enum Phase {
    WarmUp,
    Measure,
    /// Nothing is sent any more; what is on its way may still come.
    Drain,
    End,
}

impl Phase {
    fn from_u8(number: u8) -> Self {
        [Self::WarmUp, Self::Measure, Self::Drain, Self::End][usize::from(number.min(3))]
    }
}

/// What all threads of a load share. Each number is written by one thread.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) schedule: Schedule,
    pub(super) version: ProtocolVersion,
    pub(super) spin: bool,
    /// Send PINGREQ this often, for brokers that want to hear something; `None` if they do not.
    pub(super) ping_every: Option<Duration>,
    began: Instant,
    phase: AtomicU8,
    pub(super) threads: Vec<ThreadShared>,
}

/// What one thread tells the others.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct ThreadShared {
    /// Deliveries on this thread, by publisher.
    pub(super) delivered: Vec<AtomicU64>,
    pub(super) bell: OwnedFd,
    pub(super) is_asleep: AtomicBool,
    pub(super) thread_id: AtomicU32,
    /// The last phase that it has heard of and told its numbers in.
    pub(super) heard: AtomicU8,
    pub(super) published: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) idle_ns: AtomicU64,
}

/// How far a load has come, all threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) published: u64,
    pub(super) received: u64,
    pub(super) in_flight: u64,
    pub(super) refused: u64,
    /// Connections that the broker has closed.
    pub(super) closed: u64,
    /// Time in which threads asked for events, and there were none.
    pub(super) idle_ns: u64,
}

impl Shared {
    pub(super) fn new(
        threads: usize,
        publishers: u32,
        schedule: Schedule,
        version: ProtocolVersion,
        spin: bool,
        ping_every: Option<Duration>,
    ) -> io::Result<Self> {
        let thread = |_| {
            Ok(ThreadShared {
                delivered: (0..publishers).map(|_| AtomicU64::new(0)).collect(),
                bell: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
                is_asleep: AtomicBool::new(false),
                thread_id: AtomicU32::new(0),
                heard: AtomicU8::new(0),
                published: AtomicU64::new(0),
                received: AtomicU64::new(0),
                in_flight: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                closed: AtomicU64::new(0),
                idle_ns: AtomicU64::new(0),
            })
        };
        let threads = (0..threads).map(thread).collect::<io::Result<_>>()?;
        let phase = AtomicU8::new(Phase::WarmUp as u8);
        Ok(Self { schedule, version, spin, ping_every, began: Instant::now(), phase, threads })
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        (0..self.threads.len()).for_each(|thread| self.ring(thread));
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for thread in &self.threads {
            // First, as it is told last: what is in flight belongs to what has been published, or to more.
            totals.published += thread.published.load(Ordering::Acquire);
            totals.received += thread.received.load(Ordering::Relaxed);
            totals.in_flight += thread.in_flight.load(Ordering::Relaxed);
            totals.refused += thread.refused.load(Ordering::Relaxed);
            totals.closed += thread.closed.load(Ordering::Relaxed);
            totals.idle_ns += thread.idle_ns.load(Ordering::Relaxed);
        }
        totals
    }

    /// Whether all threads have heard of the phase. With [`Phase::Drain`], nothing is published after that.
    pub(super) fn have_heard(&self, phase: Phase) -> bool {
        self.threads.iter().all(|thread| Phase::from_u8(thread.heard.load(Ordering::Acquire)) >= phase)
    }

    /// The system's numbers of the threads that have started.
    pub(super) fn thread_ids(&self) -> Vec<u32> {
        let ids = self.threads.iter().map(|thread| thread.thread_id.load(Ordering::Acquire));
        ids.filter(|id| *id != 0).collect()
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Ordering::Acquire))
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    pub(super) fn ring(&self, thread: usize) {
        // It cannot fail but when it has been rung 2^64 times.
        let _ = rustix::io::write(&self.threads[thread].bell, &1_u64.to_ne_bytes());
    }

    /// Deliveries of a publisher's messages, on all threads.
    #[inline]
    pub(super) fn delivered(&self, publisher: u32) -> u64 {
        self.threads.iter().map(|thread| thread.delivered[publisher as usize].load(Ordering::Relaxed)).sum()
    }
}
