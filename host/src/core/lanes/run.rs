//! One lane: encoded packets that several connections have to send, and how far each of them is.

use std::collections::VecDeque;
use std::rc::Rc;

use plugin_api::QoS;

use crate::codec::{self, Frame, PacketId};
use crate::core::connection::NONE;
use crate::core::in_flight::{Batch, before, behind};
use crate::core::session::Queued;
use crate::core::slot_of;

/// A run is made of chunks that take packets until they are so large. So it stays in the processor's cache while it is sent
/// to many, and what all have sent can be reused. As many as a turn reads of one publisher alone (with half of it, 0.12 µs instead
/// of 0.11 for 1 KiB to each of 100).
const CHUNK_BYTES: usize = if cfg!(any(test, fuzzing)) { 100 } else { 256 << 10 };

/// What makes all packets of two subscribers the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kind {
    pub(super) v5: bool,
    pub(super) qos: QoS,
    pub(super) retain_as_published: bool,
}

/// A run of packets and who sends it.
#[derive(Default)]
pub(super) struct Lane {
    /// The set that it is of.
    pub(super) set: u32,
    pub(super) kind: Kind,
    /// With holes where members have left.
    pub(super) members: Vec<Member>,
    present: usize,
    /// Those of them that get what is appended.
    following: usize,
    chunks: VecDeque<Chunk>,
    /// Number of the first chunk.
    first: u32,
    /// Bytes that have been appended.
    end: u64,
    /// Packets with QoS 1 that have been appended.
    numbered: u64,
    /// What the Packet Identifiers of the next ones are written for; see [`Member::base`].
    base: u16,
    /// The messages with QoS 1 that followers have been given, and of which their sessions do not know yet.
    pub(super) unsettled: Vec<Queued>,
    /// The numbers of their bodies in the journal, if there has been a member whose session is kept.
    pub(super) bodies: Vec<u32>,
    pub(super) has_kept: bool,
    /// The largest packet among them.
    largest: usize,
}

/// One connection in a lane.
pub(super) struct Member {
    /// Its slot, [`NONE`] once it has left.
    pub(super) connection: u32,
    /// Its index among the targets.
    target: u32,
    /// The Packet Identifier that the first packet of the run has for it, or would have had: the others have the following
    /// ones, as its session gives none to anything else before it leaves.
    pub(super) base: u16,
    /// How far it has sent the run.
    at: u64,
    /// How much of the run it gets.
    until: u64,
    /// Number of the chunk that it is a reader of.
    chunk: u32,
    /// It has sent the start of a packet, so that nothing else may come before the rest of it.
    pub(super) is_amid: bool,
}

impl Member {
    /// Whether it gets what is appended.
    pub(super) fn follows(&self) -> bool {
        self.until == u64::MAX
    }
}

/// Whole packets.
struct Chunk {
    bytes: Vec<u8>,
    begin: u64,
    /// Where Packet Identifiers are in it, and which packet of the run the first of them is of.
    packet_ids_at: Vec<u32>,
    first_number: u64,
    /// For whom they have been written last, from the one with this index on.
    base: u16,
    base_from: usize,
    /// Members whose place is in it.
    readers: u32,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    /// Writes the Packet Identifiers of one member, from a place on.
    ///
    /// While members are in lockstep, as they are when they acknowledge everything, there is nothing to write.
    fn write_packet_ids(&mut self, base: u16, from: u64) {
        let from = (from.max(self.begin) - self.begin) as usize;
        // Of one that is sent in part the rest is needed.
        let begin = self.packet_ids_at.partition_point(|at| *at as usize + 2 <= from);
        let end = if base == self.base { self.base_from } else { self.packet_ids_at.len() };
        if begin < end || base != self.base {
            for (index, at) in self.packet_ids_at.iter().enumerate().take(end).skip(begin) {
                let packet_id = behind(base, self.first_number + index as u64);
                self.bytes[*at as usize..*at as usize + 2].copy_from_slice(&packet_id.get().to_be_bytes());
            }
            (self.base, self.base_from) = (base, begin);
        }
    }

    /// The bytes between two places, as far as they are in it.
    fn between(&self, from: u64, to: u64) -> &[u8] {
        let offset = |place: u64| (place.clamp(self.begin, self.end()) - self.begin) as usize;
        &self.bytes[offset(from)..offset(to)]
    }
}

impl Lane {
    /// Adds a connection, which gets what is appended from now on. Returns its index.
    pub(super) fn join(&mut self, connection: u32, target: u32, next_packet_id: u16) -> u32 {
        if self.chunks.is_empty() {
            self.add_chunk(Vec::new());
        }
        let base = before(next_packet_id, self.numbered).get();
        self.base = base;
        let last = self.chunks.len() - 1;
        self.chunks[last].readers += 1;
        let chunk = self.first.wrapping_add(slot_of(last));
        self.members.push(Member { connection, target, base, at: self.end, until: u64::MAX, chunk, is_amid: false });
        self.present += 1;
        self.following += 1;
        slot_of(self.members.len() - 1)
    }

    pub(super) fn following(&self) -> usize {
        self.following
    }

    /// The largest packet that has been appended, in bytes.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Whether [`Lane::add_chunk`] has to be called before the next packet.
    pub(super) fn needs_chunk(&self) -> bool {
        self.chunks.back().is_none_or(|chunk| chunk.bytes.len() >= CHUNK_BYTES || chunk.bytes.capacity() == 0)
    }

    pub(super) fn add_chunk(&mut self, bytes: Vec<u8>) {
        debug_assert!(bytes.is_empty());
        match self.chunks.back_mut().filter(|chunk| chunk.bytes.capacity() == 0) {
            Some(chunk) => chunk.bytes = bytes,
            None => self.chunks.push_back(Chunk {
                bytes,
                begin: self.end,
                packet_ids_at: Vec::new(),
                first_number: self.numbered,
                base: self.base,
                base_from: 0,
                readers: 0,
            }),
        }
    }

    /// Appends a packet. `encode` gets the Packet Identifier that it would have, and returns where that is, from the start of
    /// the packet. Returns the capacity of its chunk before and after.
    #[inline]
    pub(super) fn append(
        &mut self,
        has_packet_id: bool,
        encode: impl FnOnce(&mut Vec<u8>, Option<PacketId>) -> usize,
    ) -> (usize, usize) {
        let chunk = self.chunks.back_mut().expect("it has been added");
        let (length, capacity) = (chunk.bytes.len(), chunk.bytes.capacity());
        if has_packet_id {
            if chunk.packet_ids_at.is_empty() {
                (chunk.first_number, chunk.base, chunk.base_from) = (self.numbered, self.base, 0);
            }
            let at = length + encode(&mut chunk.bytes, Some(behind(chunk.base, self.numbered)));
            chunk.packet_ids_at.push(slot_of(at));
            self.numbered += 1;
        } else {
            encode(&mut chunk.bytes, None);
        }
        let packet_bytes = chunk.bytes.len() - length;
        self.end += packet_bytes as u64;
        self.largest = self.largest.max(packet_bytes);
        (capacity, chunk.bytes.capacity())
    }

    /// Writes the Packet Identifiers of a member over those of others in what it has to send next, or in all of it.
    #[inline]
    pub(super) fn write_packet_ids(&mut self, member: u32, all: bool) {
        if self.numbered == 0 {
            return;
        }
        let &Member { at, chunk, base, .. } = &self.members[member as usize];
        let first = self.index(chunk);
        let mut chunks = self.chunks.range_mut(first..).filter(|chunk| at < chunk.end());
        if all {
            chunks.for_each(|chunk| chunk.write_packet_ids(base, at));
        } else if let Some(chunk) = chunks.next() {
            chunk.write_packet_ids(base, at);
            self.base = base;
        }
    }

    /// Takes out the messages that sessions do not know of yet, and calls `tell` with the connections that have them.
    pub(super) fn settle(&mut self, mut tell: impl FnMut(u32, &Batch)) {
        let batch = Rc::new(std::mem::take(&mut self.unsettled));
        let followers = self.members.iter().filter(|member| member.connection != NONE && member.follows());
        followers.for_each(|member| tell(member.connection, &batch));
    }

    fn index(&self, chunk: u32) -> usize {
        chunk.wrapping_sub(self.first) as usize
    }

    pub(super) fn waiting_bytes(&self, member: u32) -> usize {
        let member = &self.members[member as usize];
        (self.end.min(member.until) - member.at) as usize
    }

    /// What a member has to send next: not all of it, if that is not in one piece.
    pub(super) fn next_piece(&self, member: u32) -> &[u8] {
        self.pieces(member).find(|piece| !piece.is_empty()).unwrap_or(&[])
    }

    /// All that a member has to send.
    pub(super) fn pieces(&self, member: u32) -> impl Iterator<Item = &[u8]> {
        let &Member { at, until, chunk, .. } = &self.members[member as usize];
        self.chunks.range(self.index(chunk)..).map(move |chunk| chunk.between(at, until))
    }

    /// A member has sent so many bytes of its next piece.
    pub(super) fn advance(&mut self, member: u32, bytes: usize) {
        let member = &mut self.members[member as usize];
        member.at += bytes as u64;
        debug_assert!(member.at <= self.end.min(member.until), "more was sent than there is");
        let mut index = member.chunk.wrapping_sub(self.first) as usize;
        while member.at >= self.chunks[index].end() && index + 1 < self.chunks.len() {
            self.chunks[index].readers -= 1;
            index += 1;
            self.chunks[index].readers += 1;
            member.chunk = member.chunk.wrapping_add(1);
        }
        // What is in a chunk ends with a packet.
        member.is_amid = member.at > self.chunks[index].begin && member.at < self.chunks[index].end();
    }

    /// A member gets nothing more of what is appended. Returns the index of its target if it did.
    pub(super) fn stop(&mut self, member: u32) -> Option<u32> {
        let member = &mut self.members[member as usize];
        if !member.follows() {
            return None;
        }
        member.until = self.end;
        self.following -= 1;
        Some(member.target)
    }

    /// A member that gets nothing more gives up what it has to send, but for the rest of the packet that it has sent the start
    /// of.
    pub(super) fn cut(&mut self, member: u32) {
        let member = &mut self.members[member as usize];
        debug_assert!(!member.follows());
        let chunk = &self.chunks[member.chunk.wrapping_sub(self.first) as usize];
        let (sent, mut end) = ((member.at - chunk.begin) as usize, 0);
        while end < sent
            && let Ok(Frame::Complete { total_bytes, .. }) = codec::frame(&chunk.bytes[end..], usize::MAX)
        {
            end += total_bytes;
        }
        member.until = chunk.begin + end.max(sent) as u64;
    }

    /// Takes that back if it has missed nothing. Returns whether it gets what is appended.
    pub(super) fn follow_again(&mut self, member: u32) -> bool {
        let member = &mut self.members[member as usize];
        if member.until == self.end {
            member.until = u64::MAX;
            self.following += 1;
        }
        member.follows()
    }

    /// Takes a member out. Returns the index of its target if it followed.
    pub(super) fn leave(&mut self, member: u32) -> Option<u32> {
        let target = self.stop(member);
        let member = &mut self.members[member as usize];
        member.connection = NONE;
        self.chunks[member.chunk.wrapping_sub(self.first) as usize].readers -= 1;
        self.present -= 1;
        if self.present == 0 {
            self.members.clear();
        }
        target
    }

    /// Closes the holes that members have left, and says for each connection which index it has now.
    pub(super) fn close_holes(&mut self, mut moved: impl FnMut(u32, u32)) {
        if self.present < self.members.len() {
            self.members.retain(|member| member.connection != NONE);
            for (index, member) in self.members.iter().enumerate() {
                moved(member.connection, slot_of(index));
            }
        }
    }

    /// A buffer that nobody has anything of to send any more.
    pub(super) fn take_done(&mut self) -> Option<Vec<u8>> {
        let is_done = self.chunks.front().is_some_and(|chunk| chunk.readers == 0);
        if !is_done || self.present > 0 && self.chunks.len() == 1 {
            return None;
        }
        self.first = self.first.wrapping_add(1);
        self.chunks.pop_front().map(|chunk| chunk.bytes)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn numbered(&self) -> u64 {
        self.numbered
    }

    /// Asserts that the counts are right.
    #[cfg(any(test, fuzzing))]
    pub(super) fn assert_sound(&self) {
        let members = || self.members.iter().filter(|member| member.connection != NONE);
        assert_eq!(
            (members().count(), members().filter(|member| member.follows()).count()),
            (self.present, self.following)
        );
        let mut begin = self.chunks.front().map_or(self.end, |chunk| chunk.begin);
        for (index, chunk) in self.chunks.iter().enumerate() {
            assert_eq!(chunk.begin, begin, "a gap between chunks");
            begin = chunk.end();
            let readers = members().filter(|member| self.index(member.chunk) == index);
            assert_eq!(readers.clone().count(), chunk.readers as usize, "readers of a chunk");
            readers
                .for_each(|member| assert!(chunk.begin <= member.at && member.at <= chunk.end(), "a reader elsewhere"));
        }
        assert_eq!(begin, self.end, "the end of the last chunk");
    }

    /// Makes a lane without members ready for others.
    pub(super) fn clear(&mut self) {
        debug_assert!(self.present == 0 && self.chunks.is_empty() && self.unsettled.is_empty());
        self.members.clear();
        self.bodies.clear();
        (self.end, self.numbered, self.largest, self.has_kept) = (0, 0, 0, false);
    }
}
