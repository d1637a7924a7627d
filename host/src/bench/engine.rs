//! A thread of the load: its sockets, in an epoll of its own.
//!
//! All packets are encoded before; a message costs a copy of its packet, and when it comes back, finding its end, comparing
//! its number with the one that is due, and counting. Per `recv` the clock is read once.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use crate::codec::ProtocolVersion;

use super::check::{AnyOrder, Check, Faults};
use super::packets::{DISCONNECT, Frame, PINGREQ, Stamp, ack, first_frame, kind, publish_payload};
use super::publisher::{Publisher, Schedule};

/// Bytes read at once, at least.
const READ_BYTES: usize = 256 * 1024;
/// Bytes of one publisher that are sent at once, at most; but one message always.
const BURST_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;
/// What a thread's bell is registered as.
const BELL: u64 = u64::MAX;
/// How often a thread looks around, at the least.
const HOUSEKEEPING_NS: u64 = 100_000_000;
/// For how long nothing may come before the window is opened all the same, so that a broker that loses messages goes on
/// being measured.
const STALL_NS: u64 = 1_000_000_000;

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
    threads: Vec<ThreadShared>,
}

/// What one thread tells the others.
#[derive(Debug)]
#[repr(align(128))]
struct ThreadShared {
    /// Deliveries on this thread, by publisher.
    delivered: Vec<AtomicU64>,
    bell: OwnedFd,
    is_asleep: AtomicBool,
    thread_id: AtomicU32,
    /// The last phase that it has heard of and told its numbers in.
    heard: AtomicU8,
    published: AtomicU64,
    received: AtomicU64,
    in_flight: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
    idle_ns: AtomicU64,
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

    fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Ordering::Acquire))
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn ring(&self, thread: usize) {
        // It cannot fail but when it has been rung 2^64 times.
        let _ = rustix::io::write(&self.threads[thread].bell, &1_u64.to_ne_bytes());
    }

    /// Deliveries of a publisher's messages, on all threads.
    #[inline]
    fn delivered(&self, publisher: u32) -> u64 {
        self.threads.iter().map(|thread| thread.delivered[publisher as usize].load(Ordering::Relaxed)).sum()
    }
}

/// What a thread found.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Nanoseconds from the stamp of a message to its arrival, while it was measured.
    pub(super) latency: Histogram<u64>,
    pub(super) faults: Faults,
    /// How often nothing had come for so long that what was on its way was waited for no more.
    pub(super) stalls: u64,
    /// Why connections ended, the first few.
    pub(super) ends: Vec<String>,
}

/// A connection of a load.
#[derive(Debug)]
struct Conn {
    fd: OwnedFd,
    role: Role,
    is_closed: bool,
    /// The start of a packet that has not come in full.
    part: Vec<u8>,
    /// What the socket did not take. While there is something, an event will come when there is room.
    out: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Role {
    /// The number of its state on this thread.
    Publisher(usize),
    Subscriber(usize),
}

/// A thread's part of the load.
pub(super) struct Engine<'a> {
    shared: &'a Shared,
    thread: usize,
    epoll: OwnedFd,
    scratch: Vec<u8>,
    burst: Vec<u8>,
    acks: Vec<u8>,
    conns: Vec<Conn>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Check>,
    /// What the groups of this thread have got, by publisher.
    groups: Vec<Vec<AnyOrder>>,
    /// Publishers that may have room.
    touched: Vec<usize>,
    /// An empty list to go on with while that one is gone through.
    spare: Vec<usize>,
    /// Sockets that may have more to read.
    unread: Vec<usize>,
    /// Threads whose publishers may have room.
    to_ring: Vec<bool>,
    /// With a rate: up to which message of the whole load publishers have been told.
    scheduled: u64,
    phase: Phase,
    published: u64,
    received: u64,
    in_flight: u64,
    refused: u64,
    closed: u64,
    idle_ns: u64,
    moved_at_ns: u64,
    moved: (u64, u64),
    pinged_at_ns: u64,
    outcome: Outcome,
}

impl<'a> Engine<'a> {
    pub(super) fn new(shared: &'a Shared, thread: usize, packet_bytes_max: usize) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = &shared.threads[thread].bell;
        epoll::add(&epoll, bell, EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
        let latency = super::latencies();
        Ok(Self {
            shared,
            thread,
            epoll,
            scratch: vec![0; READ_BYTES.max(2 * packet_bytes_max)],
            burst: Vec::new(),
            acks: Vec::new(),
            conns: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            groups: Vec::new(),
            touched: Vec::new(),
            spare: Vec::new(),
            unread: Vec::new(),
            to_ring: vec![false; shared.threads.len()],
            scheduled: 0,
            phase: Phase::WarmUp,
            published: 0,
            received: 0,
            in_flight: 0,
            refused: 0,
            closed: 0,
            idle_ns: 0,
            moved_at_ns: 0,
            moved: (0, 0),
            pinged_at_ns: 0,
            outcome: Outcome { latency, faults: Faults::default(), stalls: 0, ends: Vec::new() },
        })
    }

    /// Takes a connection that has subscribed.
    pub(super) fn add_subscriber(&mut self, fd: OwnedFd, check: Check) -> io::Result<()> {
        if let Check::Group(group) = check
            && group >= self.groups.len()
        {
            let publishers = self.shared.threads[self.thread].delivered.len();
            self.groups.resize_with(group + 1, || (0..publishers).map(|_| AnyOrder::default()).collect());
        }
        self.subscribers.push(check);
        self.add(fd, Role::Subscriber(self.subscribers.len() - 1))
    }

    /// Takes a connection that is to publish. It has to be the next one of this thread: a thread has every publisher whose
    /// number has the same remainder as its own, in their order.
    pub(super) fn add_publisher(&mut self, fd: OwnedFd, mut publisher: Publisher) -> io::Result<()> {
        publisher.conn = self.conns.len();
        let threads = self.shared.threads.len();
        assert_eq!(publisher.id as usize, self.publishers.len() * threads + self.thread, "publishers come in order");
        self.publishers.push(publisher);
        self.touch(self.publishers.len() - 1);
        self.add(fd, Role::Publisher(self.publishers.len() - 1))
    }

    fn add(&mut self, fd: OwnedFd, role: Role) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &fd, EventData::new_u64(self.conns.len() as u64), flags)?;
        self.conns.push(Conn { fd, role, is_closed: false, part: Vec::new(), out: Vec::new() });
        Ok(())
    }

    /// Runs until the load ends.
    pub(super) fn run(mut self) -> Outcome {
        // Sleep as short as was asked for: 50 µs more would be seen in latencies at a fixed rate.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let id = rustix::thread::gettid().as_raw_nonzero().get();
        self.shared.threads[self.thread].thread_id.store(id.unsigned_abs(), Ordering::Release);
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut turn_ns = self.shared.now_ns();
        let mut looked_around_ns = turn_ns;
        loop {
            let phase = self.shared.phase();
            if phase != self.phase {
                self.phase = phase;
                if phase == Phase::Measure {
                    self.outcome.latency.reset();
                }
            }
            if phase == Phase::End {
                break;
            }
            let worked = phase < Phase::Drain && self.publish(turn_ns);
            self.wait(&mut events, turn_ns);
            self.handle(&events);
            self.tell();
            let now = self.shared.now_ns();
            if !worked && events.is_empty() && self.shared.spin {
                self.idle_ns += now - turn_ns;
            }
            turn_ns = now;
            if now - looked_around_ns > HOUSEKEEPING_NS {
                looked_around_ns = now;
                self.look_around(now);
            }
        }
        for conn in self.conns.iter_mut().filter(|conn| !conn.is_closed) {
            conn.send(&DISCONNECT);
        }
        self.outcome
    }

    /// Sends what may be sent. `true` if there was something.
    fn publish(&mut self, now_ns: u64) -> bool {
        self.touch_due(now_ns);
        if self.touched.is_empty() {
            return false;
        }
        let before = self.published;
        let spare = std::mem::take(&mut self.spare);
        let mut touched = std::mem::replace(&mut self.touched, spare);
        for local in touched.drain(..) {
            self.publishers[local].is_touched = false;
            self.publish_from(local, now_ns);
        }
        self.spare = touched;
        self.published > before
    }

    fn publish_from(&mut self, local: usize, now_ns: u64) {
        let schedule = &self.shared.schedule;
        let publisher = &mut self.publishers[local];
        let conn = &mut self.conns[publisher.conn];
        if conn.is_closed || !conn.out.is_empty() {
            return; // It is touched again when its socket has taken what there is.
        }
        let room = publisher.room(schedule, self.shared.delivered(publisher.id), now_ns);
        let count = room.min((BURST_BYTES / publisher.packet_bytes()).max(1) as u64);
        if count == 0 {
            return;
        }
        self.burst.clear();
        for _ in 0..count {
            publisher.push(&mut self.burst, schedule, now_ns);
        }
        self.published += count;
        self.in_flight += if publisher.is_acknowledged() { count } else { 0 };
        conn.send(&self.burst);
        if count < room {
            self.touch(local);
        }
    }

    /// With a rate: touches those publishers that have something due.
    fn touch_due(&mut self, now_ns: u64) {
        let Schedule::Rate(rate) = &self.shared.schedule else { return };
        let due = rate.due_in_all(now_ns);
        let (threads, own) = (self.shared.threads.len(), self.publishers.len());
        if due - self.scheduled >= (threads * own) as u64 {
            (0..own).for_each(|local| self.touch(local));
        } else if own > 0 {
            // Not all of them: message n is of the publisher n modulo their number.
            let publishers = self.shared.threads[0].delivered.len() as u64;
            for message in self.scheduled..due {
                self.touch_publisher((message % publishers) as u32);
            }
        }
        self.scheduled = due;
    }

    /// Takes events. Waits for them if there is nothing else to do.
    fn wait(&mut self, events: &mut Vec<Event>, now_ns: u64) {
        let is_waiting = !self.shared.spin && self.touched.is_empty() && self.unread.is_empty();
        let mut timeout_ns = if is_waiting { HOUSEKEEPING_NS } else { 0 };
        if let Schedule::Rate(rate) = &self.shared.schedule
            && self.phase < Phase::Drain
        {
            timeout_ns = timeout_ns.min(rate.next_ns(now_ns).saturating_sub(now_ns));
        }
        let several = timeout_ns > 0 && self.shared.threads.len() > 1;
        if several {
            // Whoever counts a delivery looks at this after it has counted; so one of both sees the other.
            self.shared.threads[self.thread].is_asleep.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.phase < Phase::Drain && self.has_room(now_ns) {
                timeout_ns = 0;
            }
        }
        events.clear();
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout_ns as _ };
        // What is wrong with a socket shows when it is used; an interrupted call has taken nothing.
        let _ = epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout));
        if several {
            self.shared.threads[self.thread].is_asleep.store(false, Ordering::Relaxed);
        }
    }

    /// Touches publishers that have room because of deliveries on other threads.
    fn has_room(&mut self, now_ns: u64) -> bool {
        for local in 0..self.publishers.len() {
            let publisher = &self.publishers[local];
            let is_blocked = !self.conns[publisher.conn].out.is_empty() || self.conns[publisher.conn].is_closed;
            let delivered = self.shared.delivered(publisher.id);
            if !is_blocked && publisher.room(&self.shared.schedule, delivered, now_ns) > 0 {
                self.touch(local);
            }
        }
        !self.touched.is_empty()
    }

    fn handle(&mut self, events: &[Event]) {
        let unread = std::mem::take(&mut self.unread);
        for event in events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == BELL {
                if self.phase < Phase::Drain && !matches!(self.shared.schedule, Schedule::Rate(_)) {
                    (0..self.publishers.len()).for_each(|local| self.touch(local));
                }
                continue;
            }
            let index = data as usize;
            if flags.contains(EventFlags::OUT) && !self.conns[index].out.is_empty() {
                self.flush(index);
            }
            if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                self.read(index);
            }
        }
        for index in unread {
            self.read(index);
        }
    }

    /// Tells the others what has come of this turn.
    fn tell(&mut self) {
        let own = &self.shared.threads[self.thread];
        own.received.store(self.received, Ordering::Relaxed);
        own.in_flight.store(self.in_flight, Ordering::Relaxed);
        own.refused.store(self.refused, Ordering::Relaxed);
        own.closed.store(self.closed, Ordering::Relaxed);
        own.idle_ns.store(self.idle_ns, Ordering::Relaxed);
        own.published.store(self.published, Ordering::Release);
        own.heard.store(self.phase as u8, Ordering::Release);
        if self.to_ring.len() > 1 {
            fence(Ordering::SeqCst);
            for (thread, ring) in self.to_ring.iter_mut().enumerate() {
                if std::mem::take(ring) && self.shared.threads[thread].is_asleep.swap(false, Ordering::Relaxed) {
                    self.shared.ring(thread);
                }
            }
        }
    }

    /// Reads what has come, once.
    fn read(&mut self, index: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let conn = &mut self.conns[index];
        let kept = conn.part.len();
        if kept == scratch.len() {
            scratch.resize(2 * kept, 0);
        }
        scratch[..kept].copy_from_slice(&conn.part);
        conn.part.clear();
        match net::recv(&conn.fd, &mut scratch[kept..], RecvFlags::empty()) {
            _ if conn.is_closed => {}
            Ok((0, _)) => self.close(index, "the broker closed it".to_owned()),
            Ok((bytes, _)) => {
                let whole = kept + bytes;
                if whole == scratch.len() {
                    self.unread.push(index);
                }
                match self.take(index, &scratch[..whole]) {
                    Ok(used) => self.conns[index].part.extend_from_slice(&scratch[used..whole]),
                    Err(why) => self.close(index, why),
                }
            }
            Err(Errno::AGAIN) => conn.part.extend_from_slice(&scratch[..kept]),
            Err(Errno::INTR) => {
                conn.part.extend_from_slice(&scratch[..kept]);
                self.unread.push(index);
            }
            Err(errno) => self.close(index, format!("its socket failed: {errno}")),
        }
        self.scratch = scratch;
    }

    /// Takes all whole packets. Returns how many bytes they have.
    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<usize, String> {
        let now_ns = self.shared.now_ns();
        let version = self.shared.version;
        let mut run = Run { now_ns, ..Run::default() };
        let mut used = 0;
        self.acks.clear();
        while let Some(frame) = first_frame(&bytes[used..])? {
            used += frame.bytes;
            if frame.kind() != kind::PUBLISH {
                self.take_other(index, &frame)?;
                continue;
            }
            let Role::Subscriber(subscriber) = self.conns[index].role else {
                return Err("the broker sent a PUBLISH to a connection without a subscription".to_owned());
            };
            let Some((packet_id, payload)) = publish_payload(&frame, version) else {
                return Err("the broker sent a malformed PUBLISH".to_owned());
            };
            match frame.first >> 1 & 3 {
                0 => {}
                1 => self.acks.extend(ack(kind::PUBACK, packet_id)),
                _ => self.acks.extend(ack(kind::PUBREC, packet_id)),
            }
            let Some(stamp) = Stamp::read(payload) else {
                self.outcome.faults.foreign += 1;
                continue;
            };
            if !self.is_delivery(subscriber, stamp) {
                continue;
            }
            if run.publisher != stamp.publisher {
                self.count(&mut run);
                run.publisher = stamp.publisher;
            }
            if run.at_ns != stamp.at_ns {
                run.record(&mut self.outcome.latency);
                run.at_ns = stamp.at_ns;
            }
            run.count += 1;
            run.at_once += 1;
        }
        self.count(&mut run);
        run.record(&mut self.outcome.latency);
        if !self.acks.is_empty() {
            self.conns[index].send(&self.acks);
        }
        Ok(used)
    }

    /// Checks a message. `true` if it is ours, and came for the first time.
    #[inline]
    fn is_delivery(&mut self, subscriber: usize, stamp: Stamp) -> bool {
        let faults = &mut self.outcome.faults;
        match &mut self.subscribers[subscriber] {
            Check::InOrder(check) => {
                check.is_next(stamp.publisher, stamp.sequence)
                    || check.take_other(stamp.publisher, stamp.sequence, faults)
            }
            Check::Group(group) => match self.groups[*group].get_mut(stamp.publisher as usize) {
                Some(seen) => seen.take(stamp.sequence, faults),
                None => {
                    faults.foreign += 1;
                    false
                }
            },
        }
    }

    /// Counts deliveries of one publisher.
    fn count(&mut self, run: &mut Run) {
        let count = std::mem::take(&mut run.count);
        if count == 0 {
            return;
        }
        self.received += count;
        // This thread is the only one that writes it.
        let delivered = &self.shared.threads[self.thread].delivered[run.publisher as usize];
        delivered.store(delivered.load(Ordering::Relaxed) + count, Ordering::Relaxed);
        if matches!(self.shared.schedule, Schedule::Window(_)) {
            self.touch_publisher(run.publisher);
        }
    }

    /// Takes a packet that is no PUBLISH.
    fn take_other(&mut self, index: usize, frame: &Frame<'_>) -> Result<(), String> {
        let packet_id = frame.packet_id();
        let is_refused = frame.reason() >= 0x80;
        match (self.conns[index].role, frame.kind()) {
            (Role::Publisher(local), kind::PUBACK | kind::PUBCOMP) => self.acknowledged(local, is_refused),
            (Role::Publisher(local), kind::PUBREC) if is_refused => self.acknowledged(local, true),
            (Role::Publisher(_), kind::PUBREC) => self.acks.extend(ack(kind::PUBREL, packet_id)),
            (Role::Subscriber(_), kind::PUBREL) => self.acks.extend(ack(kind::PUBCOMP, packet_id)),
            (Role::Publisher(local), kind::PINGRESP) => {
                if let Some(at_ns) = self.publishers[local].ponged() {
                    self.in_flight = self.in_flight.saturating_sub(1);
                    self.received += 1;
                    self.outcome.latency.saturating_record(self.shared.now_ns().saturating_sub(at_ns));
                    self.touch(local);
                }
            }
            (Role::Subscriber(_), kind::PINGRESP) => {}
            // Whoever hands a connection over before it has one looks for it.
            (Role::Subscriber(_), kind::SUBACK) => match frame.body.last() {
                Some(code) if *code < 0x80 => {}
                code => return Err(format!("the broker refused a subscription with {code:02x?}")),
            },
            (_, kind::DISCONNECT) => {
                let reason = frame.body.first().copied().unwrap_or(0);
                return Err(format!("the broker sent DISCONNECT with {reason:#04x}"));
            }
            (_, kind) => return Err(format!("the broker sent a packet of type {kind}, which was not due")),
        }
        Ok(())
    }

    fn acknowledged(&mut self, local: usize, is_refused: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.publishers[local].acknowledged(is_refused);
        self.refused += u64::from(is_refused);
        self.touch(local);
    }

    fn touch(&mut self, local: usize) {
        // What comes may be of publishers that have gone long ago.
        let Some(publisher) = self.publishers.get_mut(local) else { return };
        if !std::mem::replace(&mut publisher.is_touched, true) {
            self.touched.push(local);
        }
    }

    /// The same by the number among all publishers, which may be another thread's.
    fn touch_publisher(&mut self, publisher: u32) {
        let (at, threads) = (publisher as usize, self.shared.threads.len());
        if at % threads == self.thread {
            self.touch(at / threads);
        } else {
            self.to_ring[at % threads] = true;
        }
    }

    fn flush(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let out = std::mem::take(&mut conn.out);
        conn.send(&out);
        if let (true, Role::Publisher(local)) = (conn.out.is_empty(), conn.role) {
            self.touch(local);
        }
    }

    fn close(&mut self, index: usize, why: String) {
        let conn = &mut self.conns[index];
        if std::mem::replace(&mut conn.is_closed, true) || self.phase == Phase::End {
            return;
        }
        (conn.part, conn.out) = (Vec::new(), Vec::new());
        // Events of it are of no more use; its descriptor is kept until the end.
        let _ = epoll::delete(&self.epoll, &conn.fd);
        self.closed += 1;
        if self.outcome.ends.len() < 3 {
            self.outcome.ends.push(why);
        }
    }

    /// What is done now and then.
    fn look_around(&mut self, now_ns: u64) {
        if let Some(every) = self.shared.ping_every
            && u128::from(now_ns - self.pinged_at_ns) > every.as_nanos()
        {
            self.pinged_at_ns = now_ns;
            self.conns.iter_mut().filter(|conn| !conn.is_closed).for_each(|conn| conn.send(&PINGREQ));
        }
        let all = self.shared.totals();
        let moved = (all.published, all.received);
        if moved != self.moved || self.phase >= Phase::Drain {
            (self.moved, self.moved_at_ns) = (moved, now_ns);
        } else if now_ns - self.moved_at_ns > STALL_NS && matches!(self.shared.schedule, Schedule::Window(_)) {
            self.moved_at_ns = now_ns;
            self.open_windows();
        }
    }

    /// Nothing moves: what is on its way is not waited for any more.
    fn open_windows(&mut self) {
        let mut forgiven = 0;
        for local in 0..self.publishers.len() {
            let delivered = self.shared.delivered(self.publishers[local].id);
            forgiven += self.publishers[local].forgive(delivered);
            self.touch(local);
        }
        self.outcome.stalls += u64::from(forgiven > 0);
    }
}

impl Conn {
    /// Sends, or keeps what the socket does not take.
    fn send(&mut self, bytes: &[u8]) {
        if self.is_closed {
            return;
        }
        let mut sent = 0;
        while self.out.is_empty() && sent < bytes.len() {
            match net::send(&self.fd, &bytes[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The read that follows finds out why.
                Err(_) => return,
            }
        }
        self.out.extend_from_slice(&bytes[sent..]);
    }
}

/// Deliveries of one read that have something in common.
#[derive(Default)]
struct Run {
    now_ns: u64,
    publisher: u32,
    /// Deliveries of that publisher that are not counted yet.
    count: u64,
    at_ns: u64,
    /// Deliveries with that stamp that are not recorded yet.
    at_once: u64,
}

impl Run {
    #[inline]
    fn record(&mut self, latency: &mut Histogram<u64>) {
        let count = std::mem::take(&mut self.at_once);
        if count > 0 {
            latency.saturating_record_n(self.now_ns.saturating_sub(self.at_ns), count);
        }
    }
}
