//! Shared Subscriptions: the member that gets a message, what others may know of it, and what becomes of messages whose
//! member leaves.

use std::collections::{HashMap, VecDeque};
use std::num::{NonZeroU32, NonZeroU64};
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use plugin_api::topic::{self, Share};
use plugin_api::{DropReason, QoS};

use super::Core;
use super::budget::Kept;
use super::connection::Phase;
use super::notices::Meant;
use super::route::{Outgoing, Wanted, delivery_units};
use super::session::{InFlight, Queued, Session};
use crate::clock::Millis;
use crate::codec::SubscribeOptions;
use crate::message::MessageParts;
use crate::router::{Group, Left, Member, Presence, SessionKey, Standing};

/// What a session with Shared Subscriptions has beyond others. It keeps this when it leaves the last of them.
pub(super) struct SharedPart {
    /// What other workers know of it.
    pub(super) presence: Arc<Presence>,
    /// Its Shared Subscriptions, by [`Group::number`].
    memberships: HashMap<NonZeroU64, Membership, RandomState>,
}

impl SharedPart {
    /// The Shared Subscription of a group as the client wrote it, if the session is a member.
    pub(super) fn written(&self, group: NonZeroU64) -> Option<&str> {
        self.memberships.get(&group).map(|membership| &*membership.written)
    }

    /// The group of a Shared Subscription, by how the client wrote it.
    pub(super) fn number(&self, written: &str) -> Option<NonZeroU64> {
        let named = |(_, membership): &(&NonZeroU64, &Membership)| *membership.written == *written;
        self.memberships.iter().find(named).map(|(number, _)| *number)
    }

    /// Whether the session is a member of a group.
    pub(super) fn is_member(&self, group: NonZeroU64) -> bool {
        self.memberships.contains_key(&group)
    }

    /// The subscription to a group, as the client wrote it.
    pub(super) fn filter_of(&self, group: NonZeroU64) -> Option<&str> {
        self.memberships.get(&group).map(|membership| &*membership.written)
    }

    /// The group of a subscription.
    pub(super) fn group_of(&self, written: &str) -> Option<NonZeroU64> {
        self.memberships.iter().find(|(_, membership)| *membership.written == *written).map(|(number, _)| *number)
    }
}

#[derive(Debug, Clone)]
struct Membership {
    /// The Topic Filter as the client wrote it.
    written: Rc<str>,
    options: SubscribeOptions,
    identifier: Option<NonZeroU32>,
}

/// A message that looks for another member of its group.
#[derive(Debug)]
pub(super) struct HandedOn {
    message: Kept,
    group: NonZeroU64,
    /// That it looks for one stands in the journal.
    in_transit: bool,
}

/// Messages of members that have left that are given to others in a turn, and the bytes of them.
const HANDED_ON_A_TURN: usize = 256;
const HANDED_ON_BYTES_A_TURN: usize = 1 << 20;
/// While another worker has to catch up they wait, and are looked at again after so long.
const HANDED_ON_RETRY_MS: u64 = 10;

impl Core {
    /// Makes a session a member of a group, or replaces its subscription there.
    pub(super) fn join_group(
        &mut self,
        session_slot: u32,
        (written, share_name, filter): (&str, &str, &str),
        options: SubscribeOptions,
        identifier: Option<NonZeroU32>,
    ) {
        let session = &mut self.sessions[session_slot as usize];
        let key = session.key(session_slot);
        let shared = session
            .shared
            .get_or_insert_with(|| Box::new(SharedPart { presence: Presence::new(), memberships: HashMap::default() }));
        let presence = Arc::clone(&shared.presence);
        // The group is to find it as it is.
        self.note_presence(session_slot);
        let number = self.router.subscribe_shared(key, share_name, filter, options, identifier, presence);
        if let Some(shared) = &mut self.sessions[session_slot as usize].shared {
            shared.memberships.insert(number, Membership { written: written.into(), options, identifier });
        }
    }

    /// Takes a subscription out of the router. Returns the group that a session has left.
    pub(super) fn remove_from_router(&mut self, key: SessionKey, written: &str) -> Option<Left> {
        match topic::split_share(written) {
            Share::Group { share_name, filter } => self.router.unsubscribe_shared(key, share_name, filter),
            Share::None | Share::Malformed => {
                self.router.unsubscribe(key, written);
                None
            }
        }
    }

    /// Tells the groups of a session what it can take now. It costs a look at one field if there are none.
    #[inline]
    pub(super) fn note_presence(&mut self, session_slot: u32) {
        if self.sessions.get(session_slot as usize).is_some_and(|session| session.shared.is_some()) {
            self.tell_presence(session_slot);
        }
    }

    #[inline(never)] // It is asked for with each message, and few sessions have any.
    fn tell_presence(&mut self, session_slot: u32) {
        let session = &self.sessions[session_slot as usize];
        if let Some(shared) = &session.shared {
            shared.presence.set(self.standing(session));
        }
    }

    fn standing(&self, session: &Session) -> Standing {
        let limits = &self.shared.limits;
        let connection = self.connections.get(session.connection as usize);
        let connection = connection.filter(|connection| connection.phase == Phase::Connected);
        let slow = connection.is_some() && self.waiting_bytes(session.connection) > limits.outbound_bytes_max / 2;
        Standing {
            connected: connection.is_some(),
            waits: slow
                || !session.queue.is_empty()
                || session.to_resend > 0
                || connection.is_some_and(|connection| session.in_flight.len() >= connection.in_flight_max.into()),
            slow,
            full: session.queue.len() >= limits.queue_messages_max
                || session.queue.bytes() >= limits.queue_bytes_max - limits.queue_bytes_max / 16,
            // Where nobody asks for it, what other workers read is left alone from message to message.
            load: if self.chooser.counts_what_is_on_its_way() {
                session.in_flight.len() + session.queue.len()
            } else {
                0
            },
        }
    }

    /// Gives a message to one member of a group [MQTT-4.8.2-3].
    pub(super) fn deliver_to_group(&mut self, group: &Group, out: &mut Outgoing<'_>) {
        self.spend(delivery_units(out.parts.payload));
        self.give_to_one(group, out, |_, _| false);
    }

    /// The same. If `send` says that it has sent it to a member of this worker, that is all.
    #[inline]
    pub(super) fn give_to_one(
        &mut self,
        group: &Group,
        out: &mut Outgoing<'_>,
        mut send: impl FnMut(&mut Self, &Member) -> bool,
    ) {
        // A member that turns out to have gone is not chosen again, so this ends.
        while let Some(member) = group.choose(&mut self.chooser, out.parts.qos) {
            if member.worker != self.worker {
                return self.send_to_member(group, member, out);
            }
            if send(self, member) || self.deliver_as_member(group, member, out) {
                return;
            }
            member.presence.set_gone();
        }
        self.no_member(out);
    }

    /// `false`: the session has ended.
    fn deliver_as_member(&mut self, group: &Group, member: &Member, out: &mut Outgoing<'_>) -> bool {
        let identifier = member.identifier.map(NonZeroU32::get);
        let wanted = Wanted {
            qos: member.options.qos,
            retain_as_published: member.options.retain_as_published,
            identifiers: identifier.as_slice(),
            group: Some(group.number()),
        };
        self.templates.begin(1);
        self.deliver(member.session, wanted, out)
    }

    /// A message of a Shared Subscription has nobody to go to.
    fn no_member(&self, out: &Outgoing<'_>) {
        self.counters().dropped_no_member.add(1);
        self.tell_dropped(DropReason::SessionEnded, &Meant::for_anybody(&out.parts));
    }

    fn send_to_member(&mut self, group: &Group, member: &Member, out: &mut Outgoing<'_>) {
        if self.send_to_worker(member.worker, Some((group, member)), out) && self.chooser.counts_what_is_on_its_way() {
            member.presence.expect();
        }
    }

    /// Delivers what another worker has sent to one of our sessions as a member of a group; to another member if it is
    /// none any more [MQTT-3.10.4-2].
    pub(super) fn deliver_to_member(&mut self, key: SessionKey, number: NonZeroU64, parts: MessageParts<'_>) {
        let mut out = Outgoing::new(parts);
        let session = self.sessions.get(key.slot as usize).filter(|session| session.serial == key.serial);
        let shared = session.and_then(|session| session.shared.as_ref());
        if let Some(shared) = shared.filter(|_| self.chooser.counts_what_is_on_its_way()) {
            shared.presence.arrived();
        }
        if out.parts.expires_at <= self.now {
            self.counters().dropped_expired.add(1); // [MQTT-3.3.2-5]
            return self.tell_expired(&Meant { session: key.slot, ..Meant::for_anybody(&out.parts) });
        }
        // As it is now: the subscription may have been replaced since.
        let Some(&Membership { options, identifier, .. }) = shared.and_then(|shared| shared.memberships.get(&number))
        else {
            return self.choose_again(number, &mut out);
        };
        let identifier = identifier.map(NonZeroU32::get);
        let wanted = Wanted {
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            identifiers: identifier.as_slice(),
            group: Some(number),
        };
        self.spend(delivery_units(out.parts.payload));
        self.templates.begin(1);
        self.deliver(key, wanted, &mut out);
    }

    /// The member that was chosen for a message has left: another one gets it.
    fn choose_again(&mut self, number: NonZeroU64, out: &mut Outgoing<'_>) {
        let targets = self.router.targets(out.parts.topic);
        match targets.groups.iter().find(|group| group.number() == number) {
            Some(group) => self.deliver_to_group(group, out),
            None => self.no_member(out),
        }
    }

    /// A session has ended, and its groups are to choose others from now on.
    pub(super) fn leave_all_groups(session: &Session) {
        if let Some(shared) = &session.shared {
            shared.presence.set_gone();
        }
    }

    /// A session has ended: what it had as a member of groups and what its client has not acknowledged goes on to other
    /// members, in its order. But not a QoS 2 message that was sent already: the client may have it [MQTT-4.8.2-5].
    /// `was_kept`: it is not to be lost with the server either.
    pub(super) fn hand_on_all(&mut self, session: &mut Session, was_kept: bool) {
        if session.shared.is_none() {
            return;
        }
        let shared = session.shared.as_deref().filter(|_| was_kept);
        let written = |group| shared.and_then(|shared| shared.written(group));
        let unacknowledged = session.in_flight.take().into_iter().filter_map(InFlight::into_unsent);
        for sent in unacknowledged {
            match sent.origin.group() {
                Some(_) if sent.qos == QoS::ExactlyOnce => self.counters().dropped_no_member.add(1),
                Some(group) => self.hand_on(sent.into_published(), group, written(group)),
                None => {}
            }
        }
        for waiting in std::mem::take(&mut session.queue).into_each() {
            if let Some(group) = waiting.origin.group() {
                self.hand_on(waiting.into_published(), group, written(group));
            }
        }
    }

    /// A session is no member of a group any more.
    pub(super) fn forget_membership(&mut self, session_slot: u32, left: &Left) {
        if let Some(shared) = &mut self.sessions[session_slot as usize].shared {
            shared.memberships.remove(&left.number);
        }
    }

    /// A session has left groups that have other members: they get what it has in its queue for them. What is in flight
    /// is completed [MQTT-3.10.4-3]. If it was the last member it keeps what it has.
    pub(super) fn hand_on_queued(&mut self, session_slot: u32, left: &[Left]) {
        let session = &mut self.sessions[session_slot as usize];
        let Some(shared) = &mut session.shared else {
            return;
        };
        let is_kept = session.number != 0;
        let mut groups: HashMap<NonZeroU64, Option<Rc<str>>, RandomState> = HashMap::default();
        for group in left {
            let membership = shared.memberships.remove(&group.number);
            if group.has_others {
                groups.insert(group.number, membership.filter(|_| is_kept).map(|membership| membership.written));
            }
        }
        let group_of = |waiting: &Queued| waiting.origin.group().filter(|group| groups.contains_key(group));
        if !session.queue.iter().any(|waiting| group_of(&waiting).is_some()) {
            return;
        }
        for (waiting, group) in self.take_from_queue(session_slot, |_, waiting| group_of(waiting)) {
            let written = groups.get(&group).and_then(Option::as_deref);
            self.hand_on(waiting.into_published(), group, written);
        }
    }

    /// Takes those messages out of a session's queue of which `why` has something to say.
    pub(super) fn take_from_queue<T>(
        &mut self,
        session_slot: u32,
        mut why: impl FnMut(&mut Self, &Queued) -> Option<T>,
    ) -> Vec<(Queued, T)> {
        let mut taken = Vec::new();
        // Of those that are kept in the store: how many stay, and how many are taken behind these.
        let (mut place, mut count) = (0, 0);
        for waiting in std::mem::take(&mut self.sessions[session_slot as usize].queue).into_each() {
            let is_stored = waiting.qos != QoS::AtMostOnce;
            if let Some(why) = why(self, &waiting) {
                count += usize::from(is_stored);
                taken.push((waiting, why));
                continue;
            }
            if is_stored && count > 0 {
                self.journal_dropped(session_slot, place, count);
                count = 0;
            }
            place += usize::from(is_stored);
            self.sessions[session_slot as usize].queue.push_back(waiting);
        }
        if count > 0 {
            self.journal_dropped(session_slot, place, count);
        }
        self.note_presence(session_slot);
        taken
    }

    /// Puts a message on the list of those that look for another member. `written` is the Shared Subscription as a client
    /// wrote it, if the message is not to be lost with the server.
    fn hand_on(&mut self, message: Kept, group: NonZeroU64, written: Option<&str>) {
        let bytes = message.bytes();
        if self.handed_on_bytes + bytes > self.shared.limits.queue_bytes_max {
            self.counters().dropped_queue_full.add(1);
            return self.tell_dropped(DropReason::QueueFull, &Meant::for_anybody(&message.parts()));
        }
        self.handed_on_bytes += bytes;
        let in_transit = written.is_some_and(|written| self.journal_hand_on(&message, written));
        self.handed_on.push_back(HandedOn { message, group, in_transit });
    }

    /// When the list is to be looked at again.
    pub(super) fn next_hand_on(&self) -> Option<Millis> {
        let wait = if self.congestion.is_any_behind() { HANDED_ON_RETRY_MS } else { 0 };
        (!self.handed_on.is_empty()).then(|| self.now + wait)
    }

    /// Gives messages of members that have left to others: some in each turn, and none while another worker has to
    /// catch up, as that may be the one that gets them.
    pub(super) fn continue_to_hand_on(&mut self) {
        // Looked at in each turn, and hardly ever is there something.
        if !self.handed_on.is_empty() {
            self.hand_on_some();
        } else if self.handed_on.capacity() > 2 * HANDED_ON_A_TURN {
            self.handed_on = VecDeque::new(); // Its memory was for a burst.
        }
    }

    fn hand_on_some(&mut self) {
        let (mut messages, mut bytes) = (0, 0);
        while messages < HANDED_ON_A_TURN && bytes < HANDED_ON_BYTES_A_TURN && !self.congestion.is_any_behind() {
            let Some(HandedOn { message, group, in_transit }) = self.handed_on.pop_front() else {
                return;
            };
            if in_transit {
                self.journal_taken(self.worker);
            }
            messages += 1;
            bytes += message.bytes();
            self.handed_on_bytes -= message.bytes();
            if message.is_expired(self.now) {
                self.counters().dropped_expired.add(1); // [MQTT-3.3.2-5]
                self.tell_expired(&Meant::for_anybody(&message.parts()));
            } else {
                self.choose_again(group, &mut Outgoing::of(&message));
            }
        }
    }
}
