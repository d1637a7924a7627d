//! A thread of the load: its sockets, in an epoll of its own.
//!
//! All packets are encoded before; a message costs a copy of its packet, and when it comes back, finding its end, comparing
//! its number with the one that is due, and counting. Per `recv` the clock is read once.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::check::{AnyOrder, Check, Faults};
use super::conn::{Conn, Role};
use super::link::{Link, Room};
use super::packets::{DISCONNECT, PINGREQ};
use super::publisher::{Publisher, Schedule};
use super::shared::{Phase, Shared};
use super::usage::this_thread;

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

/// A thread's part of the load.
pub(super) struct Engine<'a> {
    pub(super) shared: &'a Shared,
    pub(super) thread: usize,
    epoll: OwnedFd,
    pub(super) scratch: Vec<u8>,
    burst: Vec<u8>,
    pub(super) acks: Vec<u8>,
    /// Of connections with layers: what goes through them, and what comes out.
    pub(super) room: Room,
    pub(super) plain: Vec<u8>,
    pub(super) conns: Vec<Conn>,
    pub(super) publishers: Vec<Publisher>,
    pub(super) subscribers: Vec<Check>,
    /// What the groups of this thread have got, by publisher.
    pub(super) groups: Vec<Vec<AnyOrder>>,
    /// Publishers that may have room.
    touched: Vec<usize>,
    /// An empty list to go on with while that one is gone through.
    spare: Vec<usize>,
    /// Sockets that may have more to read.
    pub(super) unread: Vec<usize>,
    /// Threads whose publishers may have room.
    to_ring: Vec<bool>,
    /// With a rate: up to which message of the whole load publishers have been told.
    scheduled: u64,
    phase: Phase,
    published: u64,
    pub(super) received: u64,
    pub(super) in_flight: u64,
    pub(super) refused: u64,
    closed: u64,
    idle_ns: u64,
    moved_at_ns: u64,
    moved: (u64, u64),
    pinged_at_ns: u64,
    pub(super) outcome: Outcome,
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
            room: Room::new(READ_BYTES),
            plain: Vec::new(),
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
    pub(super) fn add_subscriber(&mut self, link: Link, check: Check) -> io::Result<()> {
        if let Check::Group(group) = check
            && group >= self.groups.len()
        {
            let publishers = self.shared.threads[self.thread].delivered.len();
            self.groups.resize_with(group + 1, || (0..publishers).map(|_| AnyOrder::default()).collect());
        }
        self.subscribers.push(check);
        self.add(link, Role::Subscriber(self.subscribers.len() - 1))
    }

    /// Takes a connection that is to publish. It has to be the next one of this thread: a thread has every publisher whose
    /// number has the same remainder as its own, in their order.
    pub(super) fn add_publisher(&mut self, link: Link, mut publisher: Publisher) -> io::Result<()> {
        publisher.conn = self.conns.len();
        let threads = self.shared.threads.len();
        assert_eq!(publisher.id as usize, self.publishers.len() * threads + self.thread, "publishers come in order");
        self.publishers.push(publisher);
        self.touch(self.publishers.len() - 1);
        self.add(link, Role::Publisher(self.publishers.len() - 1))
    }

    fn add(&mut self, link: Link, role: Role) -> io::Result<()> {
        let (flags, index) = (EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET, self.conns.len());
        let conn = Conn::new(link, role);
        epoll::add(&self.epoll, &conn.fd, EventData::new_u64(index as u64), flags)?;
        // Of what has come already, no event tells.
        if !conn.part.is_empty() {
            self.unread.push(index);
        }
        self.conns.push(conn);
        Ok(())
    }

    /// Runs until the load ends.
    pub(super) fn run(mut self) -> Outcome {
        // Sleep as short as was asked for: 50 µs more would be seen in latencies at a fixed rate.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        self.shared.threads[self.thread].thread_id.store(this_thread(), Ordering::Release);
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

    pub(super) fn touch(&mut self, local: usize) {
        // What comes may be of publishers that have gone long ago.
        let Some(publisher) = self.publishers.get_mut(local) else { return };
        if !std::mem::replace(&mut publisher.is_touched, true) {
            self.touched.push(local);
        }
    }

    /// The same by the number among all publishers, which may be another thread's.
    pub(super) fn touch_publisher(&mut self, publisher: u32) {
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
        conn.send_wire(&out);
        if let (true, Role::Publisher(local)) = (conn.out.is_empty(), conn.role) {
            self.touch(local);
        }
    }

    pub(super) fn close(&mut self, index: usize, why: String) {
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
