//! What comes for a thread of the load.

use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags};

use super::check::Check;
use super::conn::Role;
use super::engine::Engine;
use super::link::Came;
use super::packets::{Frame, Stamp, ack, first_frame, kind, publish_payload};
use super::publisher::Schedule;

impl Engine<'_> {
    /// Reads what has come, once.
    pub(super) fn read(&mut self, index: usize) {
        if self.conns[index].layers.is_some() {
            return self.read_layers(index);
        }
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

    /// The same of a connection with layers.
    fn read_layers(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let Some(layers) = conn.layers.as_mut().filter(|_| !conn.is_closed) else { return };
        let (mut plain, mut answer) = (std::mem::take(&mut self.plain), Vec::new());
        plain.clear();
        plain.append(&mut conn.part);
        let came = layers.receive(&conn.fd, RecvFlags::empty(), &mut self.room, &mut plain, &mut answer);
        if !answer.is_empty() {
            conn.send_wire(&answer);
        }
        // Also what came before an end; and where nothing came, what had come before this thread began.
        match self.take(index, &plain) {
            Ok(used) => self.conns[index].part.extend_from_slice(&plain[used..]),
            Err(why) => self.close(index, why),
        }
        self.plain = plain;
        match came {
            Came::Bytes { is_full: true } | Came::Interrupted => self.unread.push(index),
            Came::Bytes { is_full: false } | Came::Nothing => {}
            Came::End(why) => self.close(index, why),
        }
    }

    /// Takes all whole packets, and answers those that are to be answered. Returns how many bytes they have.
    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<usize, String> {
        let mut run = Run { now_ns: self.shared.now_ns(), ..Run::default() };
        self.acks.clear();
        let used = self.take_packets(index, bytes, &mut run);
        // What came before a packet that is wrong has come all the same.
        self.count(&mut run);
        run.record(&mut self.outcome.latency);
        if !self.acks.is_empty() {
            self.conns[index].send(&self.acks);
        }
        used
    }

    fn take_packets(&mut self, index: usize, bytes: &[u8], run: &mut Run) -> Result<usize, String> {
        let (version, role) = (self.shared.version, self.conns[index].role);
        let mut used = 0;
        while let Some(frame) = first_frame(&bytes[used..])? {
            used += frame.bytes;
            if frame.kind() != kind::PUBLISH {
                self.take_other(role, &frame)?;
                continue;
            }
            let Role::Subscriber(subscriber) = role else {
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
                self.count(run);
                run.publisher = stamp.publisher;
            }
            if run.at_ns != stamp.at_ns {
                run.record(&mut self.outcome.latency);
                run.at_ns = stamp.at_ns;
            }
            run.count += 1;
            run.at_once += 1;
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
    fn take_other(&mut self, role: Role, frame: &Frame<'_>) -> Result<(), String> {
        let packet_id = frame.packet_id();
        let is_refused = frame.reason() >= 0x80;
        match (role, frame.kind()) {
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
