//! Lanes: what goes to many subscribers is encoded once and kept once.
//!
//! A fan-out would cost a copy of the packet for each subscriber, in a buffer of its own. But most subscribers of a topic get
//! the same bytes. Those of one [target set](Targets) whose packets are the same form a *lane*: one run of bytes that all of
//! them send from, each from its own place in it. So a publish costs one `append`, whatever the number of members, and a
//! member that lags behind costs a place in the run instead of a copy.
//!
//! Nobody but this file and `outbound` knows of it. To everybody else it is as if each packet had been appended to the
//! connection's own buffer at once:
//!
//! - What a connection has in its own buffer is sent first, then its part of the run. Before another PUBLISH is appended to
//!   the buffer, [`Core::leave_lane`] copies that part into it, so that the order is the same. Acknowledgements do not wait.
//! - Who is in a lane is decided when its set is opened: by the first publish of a turn, and again when so much has been
//!   appended that somebody may have come near a bound. Until then each member has room, so that nobody has to be asked. Who
//!   may not be in one is *apart*, and gets each message by itself.
//! - [`Core::close_lanes`] ends the turn; the next publish looks at everybody anew. [`Core::part_from_lane`] does it to one
//!   member for another reason: it sends what it has coming, and gets nothing more.
//! - With QoS 1 a member's own Packet Identifiers are written into the run before it sends, if they are not those of the one
//!   before. Sessions learn of what is in flight all at once, as a range, before anybody looks:
//!   [`Core::settle_in_flight`]. QoS 2 has more than one step for each message, and goes the way of who is apart.

mod run;

use std::rc::Rc;

use plugin_api::{Callback, QoS};
use slab::Slab;

use self::run::{Kind, Lane};
use super::connection::{Connection, NONE, Phase};
#[cfg(any(test, fuzzing))]
use super::in_flight::behind;
use super::route::{Outgoing, Wanted, delivery_units};
use super::session::{Origin, Queued};
use super::templates::{Class, Own, encode};
use super::{Core, slot_of};
use crate::message::MessageParts;
use crate::router::{Own as OwnMessages, SessionKey, Target, Targets};

/// Receivers from which on there are lanes: for fewer the look at each of them costs what is saved.
const RECEIVERS_MIN: usize = if cfg!(any(test, fuzzing)) { 2 } else { 4 };

/// A client with a smaller Maximum Packet Size is apart.
const PACKET_BYTES_MIN: usize = if cfg!(any(test, fuzzing)) { 200 } else { 64 << 10 };

/// What a packet has at most beyond Topic Name, properties and payload.
const HEAD_BYTES_MAX: usize = 32;

/// Who may not be sent so many messages more before it has acknowledged some is apart.
const IN_FLIGHT_MIN: usize = if cfg!(any(test, fuzzing)) { 2 } else { 32 };

/// What is copied for a connection that leaves one lane to join another; with more to send it is apart.
const MOVED_BYTES_MAX: usize = 16 << 10;

/// Sets of which somebody has something to send, at one time.
const SETS_MAX: u64 = 1 << 10;

/// Sets and lanes whose memory is kept for the next ones, and the most members that it may be for.
const SPARE_MAX: usize = 16;
const SPARE_MEMBERS_MAX: usize = 4096;

/// What a delivery by a lane is of the work of one by itself: about as much of the time, most of which is for its socket.
const WORK_DIVISOR: usize = 4;

/// Where a connection is in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    lane: u32,
    member: u32,
}

impl Place {
    /// It is in none.
    pub(super) const NOWHERE: Self = Self { lane: NONE, member: NONE };

    #[inline]
    pub(super) fn is_nowhere(self) -> bool {
        self.lane == NONE
    }
}

/// All lanes of a worker.
#[derive(Default)]
pub(super) struct Lanes {
    sets: Slab<Set>,
    lanes: Slab<Lane>,
    /// Sets that take messages without a look at their members.
    open: Vec<u32>,
    spare_sets: Vec<Set>,
    spare_lanes: Vec<Lane>,
    /// Sets that there have been, so that each has another mark.
    count: u64,
}

/// How the receivers of some topic are divided.
#[derive(Default)]
struct Set {
    /// What its targets are marked with.
    mark: u64,
    is_open: bool,
    lanes: Vec<u32>,
    /// Members of all of them.
    members: usize,
    /// Indexes of the targets that get each message by themselves.
    apart: Vec<u32>,
    /// Bytes that each member may be given before it has to be looked at again,
    room: usize,
    /// and the largest packet that all of them take.
    packet_bytes_max: usize,
    /// The same for what has to be acknowledged: messages, and bytes of them.
    room_in_flight: (usize, usize),
}

impl Kind {
    fn of(target: &Target, v5: bool) -> Self {
        Self { v5, qos: target.qos, retain_as_published: target.retain_as_published }
    }

    /// [MQTT-3.3.1-12] [MQTT-3.3.1-13]
    fn class(self, parts: &MessageParts<'_>) -> Class {
        Class { v5: self.v5, qos: parts.qos.min(self.qos), retain: parts.retain && self.retain_as_published }
    }
}

impl Lanes {
    /// What a connection has to send next of its lane.
    #[inline]
    pub(super) fn next_piece(&mut self, place: Place) -> &[u8] {
        let lane = &mut self.lanes[place.lane as usize];
        lane.write_packet_ids(place.member, false);
        lane.next_piece(place.member)
    }

    /// Whether what a connection has to send next is of a run.
    #[inline]
    pub(super) fn comes_first(&self, connection: &Connection) -> bool {
        let Place { lane, member } = connection.lane;
        if connection.lane.is_nowhere() {
            return false;
        }
        connection.waiting_bytes() == 0 || self.lanes[lane as usize].members[member as usize].is_amid
    }

    pub(super) fn waiting_bytes(&self, place: Place) -> usize {
        if place.is_nowhere() { 0 } else { self.lanes[place.lane as usize].waiting_bytes(place.member) }
    }

    /// The set of some targets, if there is one.
    fn set_of(&self, targets: &Targets) -> Option<u32> {
        let mark = targets.mark.get();
        let set = mark % SETS_MAX;
        self.sets.get(set as usize).filter(|known| known.mark == mark).map(|_| set as u32)
    }

    fn add_set(&mut self, targets: &Targets) -> Option<u32> {
        if self.sets.len() as u64 >= SETS_MAX {
            return None;
        }
        let mut set = self.spare_sets.pop().unwrap_or_default();
        self.count += 1;
        let key = self.sets.vacant_key();
        set.mark = self.count * SETS_MAX + key as u64;
        targets.mark.set(set.mark);
        self.sets.insert(set);
        Some(slot_of(key))
    }

    /// The lane of a kind in a set.
    fn lane_of(&mut self, set_key: u32, kind: Kind) -> u32 {
        let set = &mut self.sets[set_key as usize];
        if let Some(&lane) = set.lanes.iter().find(|lane| self.lanes[**lane as usize].kind == kind) {
            return lane;
        }
        let mut lane = self.spare_lanes.pop().unwrap_or_default();
        (lane.set, lane.kind) = (set_key, kind);
        let key = slot_of(self.lanes.insert(lane));
        set.lanes.push(key);
        key
    }

    /// Nobody has anything to send of a set any more.
    fn remove_set(&mut self, set: u32) {
        let mut set = self.sets.remove(set as usize);
        for lane in set.lanes.drain(..) {
            let mut lane = self.lanes.remove(lane as usize);
            if self.spare_lanes.len() < SPARE_MAX && lane.members.capacity() <= SPARE_MEMBERS_MAX {
                lane.clear();
                self.spare_lanes.push(lane);
            }
        }
        if self.spare_sets.len() < SPARE_MAX && set.apart.capacity() <= SPARE_MEMBERS_MAX {
            set.apart.clear();
            self.spare_sets.push(set);
        }
    }
}

/// What holds between two calls.
#[cfg(any(test, fuzzing))]
impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.lanes.is_empty()
    }

    /// All that a connection has to send of a run.
    pub(super) fn unsent(&self, place: Place) -> Vec<u8> {
        if place.is_nowhere() {
            return Vec::new();
        }
        self.lanes[place.lane as usize].pieces(place.member).flatten().copied().collect()
    }
}

#[cfg(any(test, fuzzing))]
impl Core {
    /// Asserts that connections, lanes and sets agree with each other.
    pub(super) fn assert_lanes(&self) {
        let mut members = 0;
        for (slot, connection) in self.connections.iter().filter(|(_, connection)| !connection.lane.is_nowhere()) {
            members += 1;
            let Place { lane, member } = connection.lane;
            let lane = &self.lanes.lanes[lane as usize];
            assert_eq!(lane.members[member as usize].connection as usize, slot, "a member that is another one");
            assert_eq!(connection.phase, Phase::Connected, "a member that is not connected");
            let waiting_bytes = self.waiting_bytes(slot_of(slot));
            assert!(self.lanes.sets[lane.set as usize].is_open || lane.waiting_bytes(member) > 0, "an idle member");
            assert!(connection.dirty || waiting_bytes > 0, "a member that nobody looks at");
            let session = &self.sessions[connection.session as usize];
            if !lane.members[member as usize].follows() {
                continue;
            }
            assert!(session.takes_at_once(), "a member that may not be one");
            let (numbered, waits) = (lane.numbered(), lane.unsettled.len());
            let next = behind(lane.members[member as usize].base, numbered - waits as u64);
            assert_eq!(session.next_packet_id, next.get(), "the next Packet Identifier of a member");
            let in_flight = session.in_flight.len() + waits;
            assert!(waits == 0 || in_flight <= connection.in_flight_max.into(), "more than the Receive Maximum");
        }
        assert_eq!(members, self.lanes.sets.iter().map(|(_, set)| set.members).sum::<usize>(), "members");
        for (key, set) in &self.lanes.sets {
            assert_eq!(set.is_open, self.lanes.open.contains(&slot_of(key)), "the list of open sets");
            assert!(set.is_open || set.members > 0, "a set that nobody needs");
            assert!(set.lanes.iter().all(|lane| self.lanes.lanes[*lane as usize].set as usize == key), "a lane's set");
            set.lanes.iter().for_each(|lane| self.lanes.lanes[*lane as usize].assert_sound());
        }
    }
}

impl Core {
    /// Delivers a message by the lanes of its targets. One with QoS 2 is each session's own: it has more than one step. `false`:
    /// each target has to be looked at.
    #[inline]
    pub(super) fn deliver_by_lanes(
        &mut self,
        targets: &Rc<Targets>,
        out: &mut Outgoing<'_>,
        publisher: Option<SessionKey>,
    ) -> bool {
        targets.local.len() >= RECEIVERS_MIN
            && out.parts.qos != QoS::ExactlyOnce
            && !self.wants(Callback::Deliver)
            && !self.is_full()
            && !self.is_refused_to_plugins(&out.parts)
            && self.deliver_to_set(targets, out, publisher)
    }

    fn deliver_to_set(&mut self, targets: &Rc<Targets>, out: &mut Outgoing<'_>, publisher: Option<SessionKey>) -> bool {
        let parts = &out.parts;
        let bytes = parts.topic.len() + parts.properties.len() + parts.payload.len() + HEAD_BYTES_MAX;
        let is_acknowledged = parts.qos != QoS::AtMostOnce;
        let Some(key) = self.open_set(targets, bytes, is_acknowledged) else {
            return false;
        };
        let set = &mut self.lanes.sets[key as usize];
        set.room -= bytes;
        if is_acknowledged {
            set.room_in_flight = (set.room_in_flight.0 - 1, set.room_in_flight.1 - bytes);
        }
        let (members, apart) = (set.members, std::mem::take(&mut set.apart));
        let units = delivery_units(parts.payload);
        self.spend(1 + members * units / WORK_DIVISOR + apart.len() * units);
        self.append_to_lanes(key, out);
        self.templates.begin(apart.len());
        for &target in &apart {
            // No Local, section 3.8.3.1: only who is apart has such subscriptions.
            if let Some(target) = targets.local[target as usize].for_publisher(publisher) {
                self.deliver(target.session, Wanted::of(target), out);
            }
        }
        let mut parted = std::mem::replace(&mut self.lanes.sets[key as usize].apart, apart);
        self.lanes.sets[key as usize].apart.append(&mut parted);
        true
    }

    /// The set of some targets, whose members have room for a packet of so many bytes. `None`: there are too many sets.
    #[inline]
    fn open_set(&mut self, targets: &Rc<Targets>, packet_bytes: usize, is_acknowledged: bool) -> Option<u32> {
        let known = self.lanes.set_of(targets);
        if let Some(key) = known {
            let set = &self.lanes.sets[key as usize];
            let may_be_in_flight = !is_acknowledged || set.room_in_flight.0 > 0 && packet_bytes <= set.room_in_flight.1;
            if set.is_open && packet_bytes <= set.room.min(set.packet_bytes_max) && may_be_in_flight {
                return known;
            }
        }
        self.open_anew(targets, packet_bytes, known)
    }

    /// Looks who can be in a lane.
    #[inline(never)]
    fn open_anew(&mut self, targets: &Rc<Targets>, packet_bytes: usize, known: Option<u32>) -> Option<u32> {
        let key = known.or_else(|| self.lanes.add_set(targets))?;
        self.spend(1 + targets.local.len() / WORK_DIVISOR);
        self.settle_set(key);
        let set = &mut self.lanes.sets[key as usize];
        if !std::mem::replace(&mut set.is_open, true) {
            self.lanes.open.push(key);
        }
        (set.room, set.packet_bytes_max) = (usize::MAX, usize::MAX);
        set.room_in_flight = (usize::MAX, usize::MAX);
        set.apart.clear();
        for &lane in &set.lanes {
            let moved = |connection: u32, member| self.connections[connection as usize].lane = Place { lane, member };
            self.lanes.lanes[lane as usize].close_holes(moved);
        }
        for (index, target) in targets.local.iter().enumerate() {
            if !self.join_or_stay(key, slot_of(index), target, packet_bytes) {
                self.lanes.sets[key as usize].apart.push(slot_of(index));
            }
        }
        Some(key)
    }

    /// Whether a target follows one of the lanes of a set from now on.
    fn join_or_stay(&mut self, key: u32, index: u32, target: &Target, packet_bytes: usize) -> bool {
        let session = self.sessions.get(target.session.slot as usize);
        let Some(session) = session.filter(|session| session.serial == target.session.serial) else {
            return false;
        };
        let slot = session.connection;
        self.settle_in_flight(slot); // What it has been given by another lane leaves less room.
        let session = &self.sessions[target.session.slot as usize];
        let Some(connection) = self.connections.get(slot as usize) else {
            return false;
        };
        let place = connection.lane;
        let is_here = !place.is_nowhere() && self.lanes.lanes[place.lane as usize].set == key;
        let waiting_in_lane = self.lanes.waiting_bytes(place);
        let waiting_bytes = connection.waiting_bytes() + waiting_in_lane;
        let outbound_bytes_max = self.shared.limits.outbound_bytes_max;
        let takes_packets = connection.packet_bytes_max as usize;
        let room_in_flight = session.room_in_flight(connection.in_flight_max, &self.shared.limits);
        let may_follow = session.takes_at_once()
            && connection.phase == Phase::Connected
            && connection.aliases_max == 0
            && target.identifiers.is_empty()
            && target.own == OwnMessages::Same
            && takes_packets >= packet_bytes.max(PACKET_BYTES_MIN)
            // So everybody has room for at least as much again before all have to be looked at again.
            && waiting_bytes <= outbound_bytes_max / 2
            && waiting_bytes + packet_bytes <= outbound_bytes_max
            && (target.qos == QoS::AtMostOnce
                || room_in_flight.0 >= IN_FLIGHT_MIN && packet_bytes <= room_in_flight.1 && session.shared.is_none());
        if is_here {
            let lane = &mut self.lanes.lanes[place.lane as usize];
            if !may_follow {
                lane.stop(place.member);
            }
            if !may_follow || !lane.follow_again(place.member) {
                return false;
            }
        } else {
            if !may_follow || waiting_in_lane > MOVED_BYTES_MAX {
                return false;
            }
            let kind = Kind::of(target, connection.is_v5());
            self.leave_lane(slot);
            self.join_lane(key, kind, slot, index);
        }
        let set = &mut self.lanes.sets[key as usize];
        set.room = set.room.min(outbound_bytes_max - waiting_bytes);
        set.packet_bytes_max = set.packet_bytes_max.min(takes_packets);
        if target.qos != QoS::AtMostOnce {
            let (messages, bytes) = set.room_in_flight;
            set.room_in_flight = (messages.min(room_in_flight.0), bytes.min(room_in_flight.1));
        }
        true
    }

    fn join_lane(&mut self, set: u32, kind: Kind, slot: u32, target: u32) {
        let lane = self.lanes.lane_of(set, kind);
        let session = &self.sessions[self.connections[slot as usize].session as usize];
        if session.number != 0 && !self.lanes.lanes[lane as usize].has_kept {
            // From now on there is a body for each message.
            self.settle_lane(lane);
            self.lanes.lanes[lane as usize].has_kept = true;
        }
        let session = &self.sessions[self.connections[slot as usize].session as usize];
        let member = self.lanes.lanes[lane as usize].join(slot, target, session.next_packet_id);
        self.lanes.sets[set as usize].members += 1;
        self.connections[slot as usize].lane = Place { lane, member };
        self.mark_dirty(slot);
    }

    /// Appends a packet to each lane of a set.
    #[inline]
    fn append_to_lanes(&mut self, set: u32, out: &mut Outgoing<'_>) {
        let (mut sent, now, parts) = (0, self.now, out.parts);
        for nth in 0..self.lanes.sets[set as usize].lanes.len() {
            let lane = self.lanes.sets[set as usize].lanes[nth];
            let lane = &mut self.lanes.lanes[lane as usize];
            if lane.following() == 0 {
                continue;
            }
            sent += lane.following();
            let class = lane.kind.class(&parts);
            if lane.needs_chunk() {
                let buffer = self.pool.pop().unwrap_or_default();
                self.pool_bytes -= buffer.capacity();
                self.account.add(buffer.capacity());
                lane.add_chunk(buffer);
            }
            let is_acknowledged = class.qos != QoS::AtMostOnce;
            if is_acknowledged {
                let message = out.keep(&self.account);
                if lane.has_kept
                    && let Some(journal) = &mut self.journal
                {
                    lane.bodies.push(journal.body(&message));
                }
                lane.unsettled.push(Queued { message, qos: class.qos, retain: class.retain, origin: Origin::One(0) });
            }
            let (before, after) = lane.append(is_acknowledged, |run, packet_id| {
                encode(run, class, &parts, &Own { packet_id, ..Own::default() }, now)
            });
            self.account.change(before, after);
        }
        self.counters().publishes_sent.add(sent as u64);
    }

    /// What waits for the socket of a connection, its part of a run included, in bytes.
    #[inline]
    pub(super) fn waiting_bytes(&self, slot: u32) -> usize {
        let connection = &self.connections[slot as usize];
        connection.waiting_bytes() + self.lanes.waiting_bytes(connection.lane)
    }

    /// The connection has sent so many bytes of its next piece.
    pub(super) fn advance_in_lane(&mut self, slot: u32, bytes: usize) {
        let Place { lane, member } = self.connections[slot as usize].lane;
        let lane_at = lane as usize;
        self.settle_lane(lane); // What is sent may be acknowledged.
        self.lanes.lanes[lane_at].advance(member, bytes);
        if self.lanes.lanes[lane_at].waiting_bytes(member) == 0 {
            self.forget_lane(slot);
        } else {
            self.recycle_run(lane);
        }
    }

    /// Copies what a connection has to send of a run into its own buffer, so that something can be appended to it.
    #[inline]
    pub(super) fn leave_lane(&mut self, slot: u32) {
        if !self.connections[slot as usize].lane.is_nowhere() {
            self.copy_and_leave(slot);
        }
    }

    /// The same where it may be left undone: for an answer that may overtake what was published before, and of which peers may
    /// ask for many. What lanes have kept once is not copied for each of them when the worker is full.
    pub(super) fn leave_lane_if_there_is_room(&mut self, slot: u32) {
        if self.lanes.waiting_bytes(self.connections[slot as usize].lane) <= MOVED_BYTES_MAX || !self.is_full() {
            self.leave_lane(slot);
        }
    }

    /// The same for a connection that is being closed. Where the worker is full all but the packet that it is amid is lost with
    /// it, as it is with one whose peer has gone.
    pub(super) fn leave_lane_at_the_end(&mut self, slot: u32) {
        let Place { lane, member } = self.connections[slot as usize].lane;
        if lane != NONE && self.lanes.lanes[lane as usize].waiting_bytes(member) > MOVED_BYTES_MAX && self.is_full() {
            self.part_from_lane(slot);
            self.lanes.lanes[lane as usize].cut(member);
        }
        self.leave_lane(slot);
    }

    #[cold]
    #[inline(never)]
    fn copy_and_leave(&mut self, slot: u32) {
        self.out(slot);
        let connection = &mut self.connections[slot as usize];
        let Place { lane, member } = connection.lane;
        let lane = &mut self.lanes.lanes[lane as usize];
        lane.write_packet_ids(member, true);
        let capacity = connection.out.capacity();
        let mut behind = Vec::new();
        if lane.members[member as usize].is_amid {
            behind = connection.out.split_off(connection.out_sent);
            connection.out.clear();
            connection.out_sent = 0;
        }
        connection.out.reserve(lane.waiting_bytes(member) + behind.len());
        lane.pieces(member).for_each(|piece| connection.out.extend_from_slice(piece));
        connection.out.append(&mut behind);
        connection.out_largest = connection.out_largest.max(lane.largest());
        self.account.change(capacity, connection.out.capacity());
        self.forget_lane(slot);
    }

    /// Takes a connection out of its lane, whatever it has to send of it.
    pub(super) fn forget_lane(&mut self, slot: u32) {
        self.settle_in_flight(slot);
        let place = std::mem::replace(&mut self.connections[slot as usize].lane, Place::NOWHERE);
        if place.is_nowhere() {
            return;
        }
        let lane = &mut self.lanes.lanes[place.lane as usize];
        let followed = lane.leave(place.member);
        let key = lane.set;
        self.recycle_run(place.lane);
        let set = &mut self.lanes.sets[key as usize];
        set.members -= 1;
        if set.is_open {
            set.apart.extend(followed);
        } else if set.members == 0 {
            self.lanes.remove_set(key);
        }
    }

    /// A connection gets nothing more by its lane, and sends what it has coming.
    pub(super) fn part_from_lane(&mut self, slot: u32) {
        let Some(Place { lane, member }) = self.connections.get(slot as usize).map(|connection| connection.lane) else {
            return;
        };
        if lane == NONE {
            return;
        }
        self.settle_lane(lane);
        let lane = &mut self.lanes.lanes[lane as usize];
        let set = &mut self.lanes.sets[lane.set as usize];
        if let Some(target) = lane.stop(member)
            && set.is_open
        {
            set.apart.push(target);
        }
    }

    /// The next publish looks at everybody anew.
    #[inline]
    pub(super) fn close_lanes(&mut self) {
        while let Some(key) = self.lanes.open.pop() {
            self.settle_set(key);
            let set = &mut self.lanes.sets[key as usize];
            set.is_open = false;
            if set.members == 0 {
                self.lanes.remove_set(key);
            }
        }
    }

    /// Tells a session what its connection has been given by a lane, so that it knows what is in flight.
    #[inline]
    pub(super) fn settle_in_flight(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get(slot as usize)
            && !connection.lane.is_nowhere()
        {
            self.settle_lane(connection.lane.lane);
        }
    }

    fn settle_set(&mut self, key: u32) {
        for nth in 0..self.lanes.sets[key as usize].lanes.len() {
            self.settle_lane(self.lanes.sets[key as usize].lanes[nth]);
        }
    }

    /// Tells it to the sessions of all members: it costs each of them as much as one message.
    #[inline]
    fn settle_lane(&mut self, lane: u32) {
        let lane = &mut self.lanes.lanes[lane as usize];
        if lane.unsettled.is_empty() {
            return;
        }
        let bytes = lane.unsettled.iter().map(|queued| queued.message.bytes()).sum();
        let bodies = std::mem::take(&mut lane.bodies);
        lane.settle(|connection, batch| {
            let session = self.connections[connection as usize].session;
            let session = &mut self.sessions[session as usize];
            if session.number != 0
                && let Some(journal) = &mut self.journal
            {
                journal.sent_batch(session, batch, &bodies);
            }
            session.add_batch(batch, bytes);
        });
    }

    /// Gives back the buffers that nobody sends from any more.
    fn recycle_run(&mut self, lane: u32) {
        while let Some(buffer) = self.lanes.lanes[lane as usize].take_done() {
            self.account.sub(buffer.capacity());
            self.recycle(buffer);
        }
    }
}
