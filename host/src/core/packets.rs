//! PUBLISH packets that are kept as they came, one behind the other.
//!
//! A message that goes to one client only is hardly ever looked at again: it waits until it is released, until its turn comes,
//! and until it is acknowledged, all of them mostly with those that came before and behind it. So it costs a copy of its packet
//! behind theirs, and where that ends; from one of these to the next nothing is copied, as a [`Part`] of the packets goes over.
//! To make a message of each that counts its references, and to give its memory back, took 340 instructions of some 1,100, and
//! 128 bytes for each that waited. Only when something else is done with one is a message made of it.

use std::num::NonZeroU64;
use std::ops::Range;
use std::rc::Rc;

use plugin_api::QoS;

use super::budget::{Account, Kept};
use super::in_flight::following;
use super::session::{Origin, Queued};
use super::templates::version;
use crate::codec::{self, PacketId};
use crate::message::MessageParts;

/// Packets are put behind each other until they are so large. So what is done with is given back soon.
pub(super) const BYTES_MAX: usize = if cfg!(any(test, fuzzing)) { 100 } else { 16 << 10 };

/// What some take beyond their buffers.
const OWN_BYTES: usize = 128;

/// PUBLISH packets with QoS 1 or 2, one behind the other, without DUP, RETAIN and properties, in their shortest form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    /// Their Packet Identifiers may be anybody's.
    bytes: &'a [u8],
    ends: &'a [End],
    /// What is counted in `ends` before the first of them.
    start: u32,
    kind: Kind,
}

/// What is the same for packets that are kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) qos: QoS,
    /// Whether they have a list of properties, which is empty.
    pub(super) is_v5: bool,
    /// The group that has chosen who gets them, by [`Group::number`](crate::router::Group::number).
    pub(super) group: Option<NonZeroU64>,
}

/// One packet of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// Where it ends.
    at: u32,
    /// Bytes of its Topic Name and payload.
    message_bytes: u32,
}

/// Some packets of one kind. Once there are two who keep a part of them, no more are added.
#[derive(Debug)]
pub(super) struct Packets {
    bytes: Vec<u8>,
    ends: Vec<End>,
    kind: Kind,
    /// `None` in what nobody keeps.
    account: Option<Account>,
}

/// Some of these packets, in a row.
#[derive(Debug)]
pub(super) struct Part {
    /// There are some until it is dropped.
    packets: Option<Rc<Packets>>,
    from: u32,
    to: u32,
}

/// For how long packets will be kept, likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Until somebody answers, and soon there will be others.
    Soon,
    /// For as long as somebody is away: they must not take the memory of many if they are few.
    Long,
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a packet is smaller than 256 MiB, and no other is put behind a large one")
}

impl End {
    /// Of a packet that ends there.
    #[inline]
    pub(super) fn new(at: usize, message_bytes: usize) -> Self {
        Self { at: narrow(at), message_bytes: narrow(message_bytes) }
    }
}

impl<'a> Row<'a> {
    /// The packets of `bytes`, of which there is one at least, and the last one ends where these do.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], ends: &'a [End], kind: Kind) -> Self {
        debug_assert_eq!(ends.last().map(|end| end.at as usize), Some(bytes.len()));
        Self { bytes, ends, start: 0, kind }
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// One behind the other.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of Topic Names and payloads.
    #[inline]
    pub(super) fn message_bytes(&self) -> usize {
        self.ends.iter().map(|end| end.message_bytes as usize).sum()
    }

    /// The bytes of each, and those of its Topic Name and payload.
    #[inline]
    pub(super) fn sizes(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut start = self.start;
        self.ends.iter().map(move |end| {
            let bytes = end.at - std::mem::replace(&mut start, end.at);
            (bytes as usize, end.message_bytes as usize)
        })
    }

    #[inline]
    fn packet(&self, number: usize) -> &'a [u8] {
        let start = number.checked_sub(1).map_or(self.start, |before| self.ends[before].at);
        &self.bytes[(start - self.start) as usize..(self.ends[number].at - self.start) as usize]
    }

    /// The Topic Name of one of them.
    #[inline]
    pub(super) fn topic_bytes(&self, number: usize) -> &'a [u8] {
        let packet = self.packet(number);
        codec::header_bytes(packet).and_then(|header_bytes| codec::topic_bytes(packet, header_bytes)).unwrap_or(&[])
    }

    /// Appends them, with Packet Identifiers from one on.
    #[inline]
    pub(super) fn append_to(&self, out: &mut Vec<u8>, first: PacketId) {
        let (mut at, mut packet_id) = (out.len(), first);
        out.extend_from_slice(self.bytes);
        for (bytes, _) in self.sizes() {
            let packet = &mut out[at..at + bytes];
            at += bytes;
            // Its fixed header is as short as it may be.
            let header_bytes = codec::fixed_header_bytes(bytes);
            let topic_bytes = u16::from_be_bytes([packet[header_bytes], packet[header_bytes + 1]]);
            codec::patch_packet_id(packet, header_bytes + 2 + usize::from(topic_bytes), packet_id);
            packet_id = following(packet_id);
        }
    }

    /// The message of one of them.
    #[cold]
    pub(super) fn message(&self, number: usize, account: &Account) -> Queued {
        let Kind { qos, is_v5, group } = self.kind;
        let packet = self.packet(number);
        let header_bytes = codec::header_bytes(packet).unwrap_or(0);
        // It was valid when it came.
        let topic = codec::topic_bytes(packet, header_bytes).and_then(|topic| std::str::from_utf8(topic).ok());
        let publish = codec::decode_publish(version(is_v5), packet, header_bytes, topic).expect("it came like that");
        let message = Kept::new(&MessageParts::plain(publish.topic, publish.payload, qos), account);
        Queued { message, qos, retain: false, origin: Origin::new(group, &[], account) }
    }
}

impl Packets {
    fn empty() -> Self {
        let kind = Kind { qos: QoS::AtLeastOnce, is_v5: false, group: None };
        Self { bytes: Vec::new(), ends: Vec::new(), kind, account: None }
    }

    /// Bytes of memory behind it.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<End>()
    }

    #[inline]
    fn push(&mut self, row: &Row<'_>) {
        let before = self.buffer_bytes();
        let start = narrow(self.bytes.len());
        self.bytes.extend_from_slice(row.bytes);
        let moved = |end: &End| End { at: end.at - row.start + start, ..*end };
        match row.ends {
            // One alone takes no loop.
            [end] => self.ends.push(moved(end)),
            ends => self.ends.extend(ends.iter().map(moved)),
        }
        let after = self.buffer_bytes();
        if let Some(account) = &self.account {
            account.change(before, after);
        }
    }
}

impl Part {
    /// Some packets, behind which others may be put.
    #[inline]
    pub(super) fn new(row: &Row<'_>, account: &Account, expected: Expected) -> Self {
        let mut rc = account.spare_packets(expected).unwrap_or_else(|| Rc::new(Packets::empty()));
        let packets = Rc::get_mut(&mut rc).expect("nobody keeps it");
        (packets.kind, packets.account) = (row.kind, Some(account.clone()));
        account.add(OWN_BYTES + packets.buffer_bytes());
        packets.push(row);
        Self { packets: Some(rc), from: 0, to: narrow(row.len()) }
    }

    #[inline]
    fn packets(&self) -> &Packets {
        self.packets.as_ref().expect("there are some until it is dropped")
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    #[inline]
    pub(super) fn qos(&self) -> QoS {
        self.packets().kind.qos
    }

    /// Whether as many bytes were put behind each other as are kept together, about.
    pub(super) fn is_large(&self) -> bool {
        self.packets().bytes.len() > BYTES_MAX / 2
    }

    /// Puts others behind them. `false` if these have to begin a part of their own.
    #[inline]
    pub(super) fn push(&mut self, row: &Row<'_>) -> bool {
        let Some(packets) = self.packets.as_mut().and_then(Rc::get_mut) else { return false };
        if packets.ends.len() != self.to as usize
            || packets.kind != row.kind
            || packets.bytes.len() + row.bytes.len() > BYTES_MAX
        {
            return false;
        }
        packets.push(row);
        self.to += narrow(row.len());
        true
    }

    /// The first so many of them, which there are.
    #[inline]
    pub(super) fn first(&self, count: usize) -> Self {
        debug_assert!(count <= self.len());
        Self { packets: self.packets.clone(), from: self.from, to: self.from + narrow(count) }
    }

    /// Goes on without the first so many.
    #[inline]
    pub(super) fn skip(&mut self, count: usize) {
        debug_assert!(count <= self.len());
        self.from += narrow(count);
    }

    /// Some of them.
    #[inline]
    pub(super) fn row(&self, which: Range<usize>) -> Row<'_> {
        let packets = self.packets();
        let which = self.from as usize + which.start..self.from as usize + which.end;
        let end_of = |count: usize| count.checked_sub(1).map_or(0, |before| packets.ends[before].at);
        let (start, end) = (end_of(which.start), end_of(which.end));
        Row {
            bytes: &packets.bytes[start as usize..end as usize],
            ends: &packets.ends[which],
            start,
            kind: packets.kind,
        }
    }

    /// All of them.
    #[inline]
    pub(super) fn all(&self) -> Row<'_> {
        self.row(0..self.len())
    }

    /// Bytes of Topic Names and payloads of some of them.
    #[inline]
    pub(super) fn message_bytes(&self, which: Range<usize>) -> usize {
        let from = self.from as usize;
        let ends = &self.packets().ends[from + which.start..from + which.end];
        ends.iter().map(|end| end.message_bytes as usize).sum()
    }

    /// The message of one of them.
    pub(super) fn message(&self, number: usize) -> Queued {
        self.row(number..number + 1).message(0, self.packets().account.as_ref().expect("somebody keeps it"))
    }
}

impl Drop for Part {
    #[inline]
    fn drop(&mut self) {
        let Some(mut rc) = self.packets.take() else { return };
        let Some(packets) = Rc::get_mut(&mut rc) else { return };
        let Some(account) = packets.account.take() else { return };
        account.sub(OWN_BYTES + packets.buffer_bytes());
        packets.bytes.clear();
        packets.ends.clear();
        account.keep_spare_packets(rc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Source;

    fn packet(first: u8, is_v5: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, (5 + usize::from(is_v5) + payload.len()) as u8, 0, 1, b't', 0x12, 0x34];
        bytes.extend(is_v5.then_some(0));
        bytes.extend_from_slice(payload);
        bytes
    }

    fn check(first: u8, kind: Kind) {
        let account = Account::default();
        let payloads = ["", "1", "a longer one", "2", "3"].map(str::as_bytes);
        let packets = payloads.map(|payload| packet(first, kind.is_v5, payload));
        let (mut at, mut ends) = (0, Vec::new());
        for (packet, payload) in packets.iter().zip(payloads) {
            at += packet.len();
            ends.push(End::new(at, 1 + payload.len()));
        }
        let all = packets.concat();
        let row = Row::new(&all, &ends, kind);
        let mut part = Part::new(&row, &account, Expected::Long);
        assert_eq!((part.len(), part.message_bytes(1..3), row.message_bytes()), (5, 2 + 13, 1 + 2 + 13 + 2 + 2));
        for (number, payload) in payloads.into_iter().enumerate() {
            let Queued { message, qos, retain, origin } = part.message(number);
            assert_eq!((message.topic(), message.payload(), message.properties()), ("t", payload, &[][..]));
            assert_eq!((qos, message.qos(), retain, message.retain()), (kind.qos, kind.qos, false, false));
            assert_eq!((message.source(), message.expires_at()), (Source::Client, None));
            assert!(origin.identifiers().is_empty() && origin.group() == kind.group);
        }
        let held = account.bytes();
        let first = part.first(2);
        part.skip(2);
        assert_eq!((first.len(), part.len(), part.message_bytes(0..1)), (2, 3, 13));
        assert_eq!((part.all().topic_bytes(1), part.all().packet(0)), (&b"t"[..], &packets[2][..]));
        let mut out = b"before".to_vec();
        part.row(0..2).append_to(&mut out, PacketId::MAX);
        let mut expected = [b"before", &packets[2][..], &packets[3][..]].concat();
        expected[6 + 5..6 + 7].copy_from_slice(&[0xFF, 0xFF]);
        expected[6 + packets[2].len() + 5..6 + packets[2].len() + 7].copy_from_slice(&[0, 1]);
        assert_eq!(out, expected);
        // They are kept once, and nothing is put behind what two keep a part of, or is of another kind.
        let again = Part::new(&part.row(1..2), &account, Expected::Soon);
        assert!(!part.push(&again.all()));
        drop(first);
        let other = Kind { is_v5: !kind.is_v5, ..kind };
        assert!(!part.push(&Row::new(&packets[3], &[End::new(packets[3].len(), 2)], other)));
        assert!(part.push(&again.all()));
        assert_eq!(part.all().packet(3), packets[3]);
        drop(again);
        assert!(account.bytes() >= held);
        drop(part);
        assert_eq!(account.bytes(), 0);
    }

    #[test]
    fn a_message_is_what_was_in_its_packet() {
        for is_v5 in [false, true] {
            for group in [None, NonZeroU64::new(7)] {
                check(0x32, Kind { qos: QoS::AtLeastOnce, is_v5, group });
                check(0x34, Kind { qos: QoS::ExactlyOnce, is_v5, group });
            }
        }
    }
}
