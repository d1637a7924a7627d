//! Many clients with traffic: each publishes to a topic of its own, which the next one has subscribed to, and checks that
//! what it gets is all there, once, in order, and counted by the plugin `counting` without a gap.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::harness::PATIENCE;
use crate::mqtt::{Client, V3_1_1, field, packet};

/// Messages of one client that are on their way at the same time.
const WINDOW: u64 = 4;

const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

/// One client, and what it knows.
struct Conn {
    socket: TcpStream,
    qos: u8,
    topic: Vec<u8>,
    read: Vec<u8>,
    out: Vec<u8>,
    /// Messages that it has sent, and those that were acknowledged.
    sent: u64,
    acked: u64,
    /// Messages of the one before it that have come.
    got: u64,
}

/// Clients that one thread cares for.
pub(crate) struct Pump {
    conns: Vec<Conn>,
    began: Instant,
    /// Messages that have come, by the version of the plugin that has seen them.
    pub(crate) by_version: [u64; 3],
    /// Messages that have come, for others to look at while it runs.
    pub(crate) progress: Arc<AtomicU64>,
    /// For each message that came when it was sent, in nanoseconds since the beginning, and how long it took.
    pub(crate) latencies: Vec<(u64, u64)>,
}

impl Pump {
    /// Connects so many clients, with QoS 0, 1 and 2 in turns.
    pub(crate) fn connect(addr: SocketAddr, name: &str, count: usize, began: Instant) -> Self {
        let topic = |number: usize| format!("count/{name}/{number}");
        let connect = |number: usize| {
            let mut client = Client::connect(addr, V3_1_1, format!("{name}-{number}"));
            // The one before it has the QoS that it subscribes with.
            let before = (number + count - 1) % count;
            client.subscribe(&topic(before), (before % 3) as u8);
            let socket = client.into_socket();
            socket.set_nonblocking(true).unwrap();
            let (qos, topic) = ((number % 3) as u8, field(topic(number)));
            Conn { socket, qos, topic, read: Vec::new(), out: Vec::new(), sent: 0, acked: 0, got: 0 }
        };
        let (conns, progress) = ((0..count).map(connect).collect(), Arc::default());
        Self { conns, began, by_version: [0; 3], progress, latencies: Vec::new() }
    }

    /// Sends as fast as it goes until it is to end, and then waits for what is on its way.
    pub(crate) fn run(&mut self, end: &AtomicBool) {
        while !end.load(Ordering::Relaxed) {
            for at in 0..self.conns.len() {
                while self.has_room(at) {
                    self.publish(at);
                }
            }
            self.exchange(Duration::from_millis(10));
        }
        self.drain();
    }

    /// Sends so many messages in a second until it is to end, one after the other from each client.
    pub(crate) fn run_steadily(&mut self, each_second: u64, end: &AtomicBool) {
        let begin = Instant::now();
        let mut messages = 0;
        while !end.load(Ordering::Relaxed) {
            let due = begin.elapsed().as_nanos() as u64 * each_second / 1_000_000_000;
            while messages < due {
                self.publish(messages as usize % self.conns.len());
                messages += 1;
            }
            self.exchange(Duration::from_micros(100));
        }
        self.drain();
    }

    /// One message from each client, and what it sets off.
    pub(crate) fn once(&mut self) {
        (0..self.conns.len()).for_each(|at| self.publish(at));
        self.drain();
    }

    /// Messages that have come.
    pub(crate) fn received(&self) -> u64 {
        self.by_version.iter().sum()
    }

    fn has_room(&self, at: usize) -> bool {
        let (conn, next) = (&self.conns[at], &self.conns[(at + 1) % self.conns.len()]);
        conn.sent - next.got < WINDOW && conn.sent - conn.acked < WINDOW
    }

    fn publish(&mut self, at: usize) {
        let now = self.began.elapsed().as_nanos() as u64;
        let conn = &mut self.conns[at];
        conn.sent += 1;
        let mut body = conn.topic.clone();
        if conn.qos > 0 {
            body.extend(identifier(conn.sent).to_be_bytes());
        } else {
            conn.acked += 1;
        }
        body.extend(conn.sent.to_be_bytes());
        body.extend(now.to_be_bytes());
        conn.out.extend(packet(0x30 | conn.qos << 1, &body));
    }

    /// Waits until nothing is on its way any more.
    fn drain(&mut self) {
        let deadline = Instant::now() + 3 * PATIENCE;
        while !(0..self.conns.len()).all(|at| self.is_done(at)) {
            assert!(Instant::now() < deadline, "messages or acknowledgements are missing: {:?}", self.missing());
            self.exchange(Duration::from_millis(10));
        }
    }

    fn is_done(&self, at: usize) -> bool {
        let (conn, next) = (&self.conns[at], &self.conns[(at + 1) % self.conns.len()]);
        conn.sent == conn.acked && conn.sent == next.got && conn.out.is_empty()
    }

    fn missing(&self) -> Vec<(usize, u64, u64, u64)> {
        let missing = (0..self.conns.len()).filter(|at| !self.is_done(*at));
        let next = |at: usize| &self.conns[(at + 1) % self.conns.len()];
        missing.map(|at| (at, self.conns[at].sent, self.conns[at].acked, next(at).got)).take(10).collect()
    }

    /// Writes what is to be written, waits for something to read, and reads it.
    fn exchange(&mut self, patience: Duration) {
        self.conns.iter_mut().for_each(Conn::write);
        let interest = |conn: &Conn| if conn.out.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds: Vec<PollFd<'_>> =
            self.conns.iter().map(|conn| PollFd::new(&conn.socket, interest(conn))).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: patience.as_nanos() as _ };
        let _ = poll(&mut fds, Some(&timeout));
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        for at in (0..ready.len()).filter(|at| ready[*at]) {
            self.read(at);
        }
    }

    fn read(&mut self, at: usize) {
        let mut buffer = [0; 1 << 14];
        loop {
            let conn = &mut self.conns[at];
            match conn.socket.read(&mut buffer) {
                Ok(0) => panic!("the server has closed connection {at}"),
                Ok(count) => conn.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("connection {at}: {error}"),
            }
        }
        let bytes = std::mem::take(&mut self.conns[at].read);
        let mut rest = &bytes[..];
        // Everything here is shorter than 128 bytes, so that the length has one.
        while rest.len() >= 2 && rest.len() >= 2 + usize::from(rest[1]) {
            let (packet, behind) = rest.split_at(2 + usize::from(rest[1]));
            self.handle(at, packet);
            rest = behind;
        }
        self.conns[at].read = rest.to_vec();
    }

    fn handle(&mut self, at: usize, packet: &[u8]) {
        if packet[0] >> 4 == 3 {
            return self.receive(at, packet);
        }
        let conn = &mut self.conns[at];
        let id = &packet[2..4];
        match packet[0] {
            0x40 | PUBCOMP => {
                conn.acked += 1;
                assert_eq!(id, identifier(conn.acked).to_be_bytes(), "connection {at}");
            }
            PUBREC => conn.out.extend([PUBREL, 2, id[0], id[1]]),
            PUBREL => conn.out.extend([PUBCOMP, 2, id[0], id[1]]),
            other => panic!("connection {at} got a packet {other:02X}"),
        }
    }

    fn receive(&mut self, at: usize, packet: &[u8]) {
        let now = self.began.elapsed().as_nanos() as u64;
        let before = (at + self.conns.len() - 1) % self.conns.len();
        let qos = packet[0] >> 1 & 3;
        assert_eq!((qos, packet[0] & 9), (self.conns[before].qos, 0), "connection {at}: QoS, DUP and RETAIN");
        let body = &packet[2 + self.conns[before].topic.len()..];
        let (id, payload) = body.split_at(if qos > 0 { 2 } else { 0 });
        let number = |part: usize| u64::from_be_bytes(payload[8 * part..8 * part + 8].try_into().unwrap());
        let (sequence, sent_at, count, version) = (number(0), number(1), number(2), payload[24]);
        let conn = &mut self.conns[at];
        conn.got += 1;
        assert_eq!(sequence, conn.got, "connection {at}: a message is missing, twice, or in another order");
        assert_eq!(count, sequence, "connection {at}: the plugin's state has jumped, with version {version}");
        match qos {
            1 => conn.out.extend([0x40, 2, id[0], id[1]]),
            2 => conn.out.extend([PUBREC, 2, id[0], id[1]]),
            _ => {}
        }
        self.by_version[usize::from(version)] += 1;
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.latencies.push((sent_at, now - sent_at));
    }
}

impl Conn {
    fn write(&mut self) {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the server has closed a connection: {error}"),
            }
        }
    }
}

/// The Packet Identifier of a client's message.
fn identifier(sequence: u64) -> u16 {
    (sequence % 0xFFFF) as u16 + 1
}
