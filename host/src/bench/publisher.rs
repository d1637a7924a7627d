//! One publisher: how many messages it may send now, and what they are. One that sends PINGREQ is paced in the same way.

use std::collections::VecDeque;
use std::sync::Arc;

use super::packets::{PINGREQ, Stamp, Template};
use super::plan::Pace;

/// One connection that publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    /// Its connection, on its thread.
    pub(super) conn: usize,
    /// Its number among all publishers.
    pub(super) id: u32,
    /// Whether it is on the list of those that may have something to send.
    pub(super) is_touched: bool,
    what: What,
    qos: u8,
    next_packet_id: u16,
    sent: u64,
    /// With QoS 1 and 2: sent, and not yet acknowledged in full.
    in_flight: u64,
    /// How many of these the broker takes.
    receive_maximum: u64,
    /// How many subscribers get each message.
    receivers: u64,
    /// Deliveries that are waited for no more: refused, or so late that the load would stand still.
    forgiven: u64,
    /// How many messages it sends, all in all.
    limit: u64,
}

/// What it sends.
#[derive(Debug)]
enum What {
    /// Messages to these topics in turn.
    Messages(Arc<[Template]>),
    /// PINGREQ; and when each was sent that is not answered yet.
    Pings(VecDeque<u64>),
}

impl Publisher {
    /// One that sends to these topics in turn. `receivers`: how many subscribers get each message; with 0, it is acknowledgements
    /// only that make room.
    pub(super) fn new(id: u32, templates: Arc<[Template]>, qos: u8, receive_maximum: u16, receivers: u64) -> Self {
        Self {
            conn: usize::MAX,
            id,
            is_touched: false,
            what: What::Messages(templates),
            qos,
            next_packet_id: 1,
            sent: 0,
            in_flight: 0,
            // One Packet Identifier is never in use, so that the next one is always free.
            receive_maximum: u64::from(receive_maximum.min(u16::MAX - 1)),
            receivers,
            forgiven: 0,
            limit: u64::MAX,
        }
    }

    /// One that sends PINGREQ.
    pub(super) fn pings(id: u32) -> Self {
        let what = What::Pings(VecDeque::new());
        Self { what, receive_maximum: u64::MAX, ..Self::new(id, Arc::new([]), 1, u16::MAX, 0) }
    }

    /// Sends so many and no more.
    pub(super) fn limited(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// How long its next packet is.
    pub(super) fn packet_bytes(&self) -> usize {
        match &self.what {
            What::Messages(templates) => template(templates, self.sent).len(),
            What::Pings(_) => PINGREQ.len(),
        }
    }

    /// Whether it waits for acknowledgements.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.qos > 0
    }

    /// How many messages it may send now, when so many deliveries of its messages have come.
    #[inline]
    pub(super) fn room(&self, pace: &Schedule, delivered: u64, now_ns: u64) -> u64 {
        let room = match pace {
            Schedule::Window(window) if self.receivers == 0 => window.saturating_sub(self.in_flight),
            Schedule::Window(window) => window.saturating_sub(self.outstanding(delivered).div_ceil(self.receivers)),
            Schedule::Rate(rate) => rate.due(self.id, now_ns).saturating_sub(self.sent),
        };
        let room = room.min(self.limit - self.sent);
        if self.qos == 0 { room } else { room.min(self.receive_maximum - self.in_flight) }
    }

    /// Deliveries that are waited for.
    pub(super) fn outstanding(&self, delivered: u64) -> u64 {
        (self.sent * self.receivers).saturating_sub(delivered + self.forgiven)
    }

    /// Appends one message.
    #[inline]
    pub(super) fn push(&mut self, out: &mut Vec<u8>, pace: &Schedule, now_ns: u64) {
        let at_ns = match pace {
            Schedule::Window(_) => now_ns,
            Schedule::Rate(rate) => rate.due_at(self.id, self.sent),
        };
        let stamp = Stamp { at_ns, publisher: self.id, sequence: self.sent as u32 };
        match &mut self.what {
            What::Messages(templates) => {
                template(templates, self.sent).fill(out, self.next_packet_id, stamp);
            }
            What::Pings(sent_at) => {
                out.extend(PINGREQ);
                sent_at.push_back(at_ns);
            }
        }
        self.sent += 1;
        if self.qos > 0 {
            self.in_flight += 1;
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
        }
    }

    /// A message was acknowledged in full. Whether it was refused: then nobody gets it.
    pub(super) fn acknowledged(&mut self, is_refused: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if is_refused {
            self.forgiven += self.receivers;
        }
    }

    /// PINGRESP has come. When its PINGREQ was sent; `None` if none was.
    pub(super) fn ponged(&mut self) -> Option<u64> {
        let What::Pings(sent_at) = &mut self.what else { return None };
        let at_ns = sent_at.pop_front()?;
        self.acknowledged(false);
        Some(at_ns)
    }

    /// Waits no more for what is on its way, so that something moves again. Returns how many deliveries that are.
    pub(super) fn forgive(&mut self, delivered: u64) -> u64 {
        let outstanding = self.outstanding(delivered);
        self.forgiven += outstanding;
        outstanding
    }
}

/// The one for the message of this number.
#[inline]
fn template(templates: &[Template], number: u64) -> &Template {
    match templates {
        [only] => only,
        several => &several[(number % several.len() as u64) as usize],
    }
}

/// When messages are due.
#[derive(Debug, Clone)]
pub(super) enum Schedule {
    /// As soon as fewer than so many are on their way.
    Window(u64),
    /// At fixed times.
    Rate(Rate),
}

impl Schedule {
    pub(super) fn new(pace: Pace, publishers: u32) -> Self {
        match pace {
            Pace::Window(window) => Self::Window(u64::from(window)),
            Pace::Rate(per_sec) => Self::Rate(Rate { interval_ns: 1e9 / per_sec, publishers: u64::from(publishers) }),
        }
    }
}

/// Messages in turns of all publishers, one every so often.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    /// From one message to the next one, whoever sends it.
    interval_ns: f64,
    publishers: u64,
}

impl Rate {
    /// How many messages of the whole load are due.
    pub(super) fn due_in_all(&self, now_ns: u64) -> u64 {
        (now_ns as f64 / self.interval_ns) as u64 + 1
    }

    /// How many messages of a publisher are due. Not one more than [`Rate::due_at`] says, whatever is lost in rounding.
    fn due(&self, publisher: u32, now_ns: u64) -> u64 {
        let due = (self.due_in_all(now_ns) + self.publishers - 1 - u64::from(publisher)) / self.publishers;
        if due > 0 && self.due_at(publisher, due - 1) > now_ns { due - 1 } else { due }
    }

    /// When a publisher's message of this number is due.
    fn due_at(&self, publisher: u32, number: u64) -> u64 {
        ((number * self.publishers + u64::from(publisher)) as f64 * self.interval_ns) as u64
    }

    /// When the next message of the whole load is due.
    pub(super) fn next_ns(&self, now_ns: u64) -> u64 {
        (self.due_in_all(now_ns) as f64 * self.interval_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ProtocolVersion;

    fn publisher(qos: u8, receive_maximum: u16, receivers: u64) -> Publisher {
        let template = Template::new(ProtocolVersion::V5, "t", qos, false, 16);
        Publisher::new(1, Arc::new([template]), qos, receive_maximum, receivers)
    }

    fn send(publisher: &mut Publisher, count: u64) {
        (0..count).for_each(|_| publisher.push(&mut Vec::new(), &Schedule::Window(0), 0));
    }

    #[test]
    fn window_opens_when_all_receivers_have_a_message() {
        let pace = Schedule::Window(3);
        let mut publisher = publisher(0, 10, 4);
        assert_eq!(publisher.room(&pace, 0, 0), 3);
        send(&mut publisher, 3);
        for (delivered, room) in [(0, 0), (3, 0), (4, 1), (7, 1), (12, 3), (13, 3)] {
            assert_eq!(publisher.room(&pace, delivered, 0), room, "{delivered} delivered");
        }
        assert_eq!((publisher.forgive(2), publisher.room(&pace, 2, 0)), (10, 3));
    }

    #[test]
    fn receive_maximum_is_kept() {
        let pace = Schedule::Window(100);
        let mut publisher = publisher(1, 2, 1);
        assert_eq!(publisher.room(&pace, 0, 0), 2);
        send(&mut publisher, 2);
        assert_eq!(publisher.room(&pace, 2, 0), 0);
        publisher.acknowledged(false);
        assert_eq!(publisher.room(&pace, 2, 0), 1);
        publisher.acknowledged(true);
        assert_eq!((publisher.in_flight, publisher.outstanding(1)), (0, 0), "nobody gets what was refused");
    }

    #[test]
    fn acknowledgements_alone_make_room_where_nobody_receives() {
        let pace = Schedule::Window(3);
        let mut publisher = publisher(1, 100, 0).limited(5);
        for (sent, room) in [(3, 3), (1, 1), (1, 1)] {
            assert_eq!(publisher.room(&pace, 0, 0), room);
            send(&mut publisher, sent);
            publisher.acknowledged(false);
        }
        (0..5).for_each(|_| publisher.acknowledged(false));
        assert_eq!(publisher.room(&pace, 0, 0), 0, "the limit");
    }

    #[test]
    fn pings_are_answered_in_their_order() {
        let mut publisher = Publisher::pings(0);
        let mut out = Vec::new();
        [10, 20].into_iter().for_each(|now| publisher.push(&mut out, &Schedule::Window(2), now));
        assert_eq!((out, publisher.room(&Schedule::Window(2), 0, 0)), ([PINGREQ, PINGREQ].concat(), 0));
        assert_eq!([publisher.ponged(), publisher.ponged(), publisher.ponged()], [Some(10), Some(20), None]);
        assert_eq!(publisher.room(&Schedule::Window(2), 0, 0), 2);
    }

    #[test]
    fn packet_identifiers_are_never_zero() {
        let mut publisher = publisher(1, u16::MAX, 1);
        send(&mut publisher, 65_535);
        assert_eq!(publisher.next_packet_id, 1);
    }

    #[test]
    fn rate_is_shared_by_publishers_in_turns() {
        let rate = Rate { interval_ns: 100.0, publishers: 3 };
        for (now, expected) in [(0, [1, 0, 0]), (99, [1, 0, 0]), (100, [1, 1, 0]), (250, [1, 1, 1]), (300, [2, 1, 1])] {
            assert_eq!([0, 1, 2].map(|publisher| rate.due(publisher, now)), expected, "at {now}");
        }
        assert_eq!((rate.due_at(1, 0), rate.due_at(1, 2), rate.next_ns(100)), (100, 700, 200));
    }

    #[test]
    fn no_message_is_sent_before_it_is_due() {
        let rate = Rate { interval_ns: 1e9 / 30_011.0, publishers: 7 };
        for now in (0..10_000_000_000_u64).step_by(7_654_321) {
            for publisher in 0..7 {
                let due = rate.due(publisher, now);
                assert!(due == 0 || rate.due_at(publisher, due - 1) <= now, "{publisher} at {now}");
                assert!(rate.due_at(publisher, due + 1) > now, "{publisher} at {now}");
            }
        }
    }
}
