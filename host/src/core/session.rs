//! Session State: what outlives a Network Connection.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::rc::Rc;

use plugin_api::QoS;

use super::backlog::Backlog;
use super::budget::{Account, Kept};
use super::connection::NONE;
use super::delayed_wills::Known;
use super::in_flight::{Batch, Unacknowledged, behind, distance};
use super::packets::{Part, Row};
use super::received::Received;
use super::replay::Parked;
use super::shared::SharedPart;
use super::timers::Armed;
use crate::clock::Millis;
use crate::codec::{PacketId, SubscribeOptions};
use crate::limits::Limits;
use crate::plugin::{LastStates, Permissions};
use crate::router::SessionKey;

/// A Session Expiry Interval that means "never", section 3.1.2.11.2.
pub(super) const EXPIRY_NEVER: u32 = u32::MAX;

/// One Session.
pub(super) struct Session {
    pub(super) client_id: Box<str>,
    /// Its number in the store; 0 if nothing of it outlives the server.
    pub(super) number: u64,
    /// Tells this session from an earlier one in the same slot.
    pub(super) serial: u32,
    /// Slot of its Network Connection, [`NONE`] while there is none.
    pub(super) connection: u32,
    /// Session Expiry Interval in seconds; 0 ends the session with its Network Connection.
    pub(super) expiry_secs: u32,
    /// The longest that the client may ask for when it disconnects.
    pub(super) expiry_secs_max: u32,
    /// When it ends; [`Millis::NEVER`] while connected.
    pub(super) expires_at: Millis,
    /// Its entry among the timers.
    pub(super) armed: Armed,
    pub(super) next_packet_id: u16,
    /// Its subscriptions are to be put to the handlers again before anything is sent.
    pub(super) asks_again: bool,
    /// And once more after that, as it is under way.
    pub(super) asks_anew: bool,
    /// On the worker's list of those that wait for memory.
    pub(super) waits_for_memory: bool,
    /// Sent and not acknowledged, oldest first.
    pub(super) in_flight: Unacknowledged,
    /// How many at the end of `in_flight` have not been sent on the present connection.
    pub(super) to_resend: u32,
    /// Bytes of the messages in flight, within [`BYTES_MAX`].
    pub(super) in_flight_bytes: u32,
    /// Accepted and not sent.
    pub(super) queue: Backlog,
    /// QoS 2 messages from the client, accepted and not released.
    pub(super) received: Received,
    /// By Topic Filter as the client wrote it, `$share/…` included. In order, so that they can be gone through in pieces
    /// while they change.
    pub(super) subscriptions: BTreeMap<Box<str>, Subscription>,
    /// For its Shared Subscriptions; few sessions have any.
    pub(super) shared: Option<Box<SharedPart>>,
    /// What waits for its client to come back; few sessions have any.
    pub(super) away: Option<Box<Away>>,
}

/// What a session keeps between two Network Connections.
#[derive(Default)]
pub(super) struct Away {
    /// What handlers exported when its last connection ended, if they want to hear of its expiry.
    pub(super) last_states: Option<LastStates>,
    /// A Will Message that waits for its Will Delay Interval.
    pub(super) will: Option<DelayedWill>,
    /// Retained messages that its subscriptions still have coming.
    pub(super) parked_replays: Parked,
}

/// One Subscription of a Session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) options: SubscribeOptions,
    pub(super) identifier: u32,
}

/// A Will Message on its way.
#[derive(Debug)]
pub(super) struct DelayedWill {
    pub(super) at: Millis,
    pub(super) body: WillBody,
}

/// What is known of it.
#[derive(Debug)]
pub(super) enum WillBody {
    /// The message.
    Accepted(AcceptedWill),
    /// A plugin has not decided yet about the will of the connection with this id.
    Undecided(u64),
}

/// A Will Message that handlers have let pass.
#[derive(Debug)]
pub(super) struct AcceptedWill {
    /// It does not expire: its lifetime begins when it is published.
    pub(super) message: Kept,
    /// Message Expiry Interval in seconds.
    pub(super) expiry_secs: Option<u32>,
    /// [`Chain::permissions`](crate::plugin::Chain::permissions) when they did; `None` if they are to be asked once more.
    pub(super) allowed_at: Option<Permissions>,
    /// With what they are asked then; see [`delayed_wills`](super::delayed_wills).
    pub(super) known: Option<Known>,
}

/// What an outbound QoS 1 or 2 message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaiting {
    Puback,
    Pubrec,
    Pubcomp,
}

/// A message that was sent and not acknowledged completely.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) packet_id: PacketId,
    pub(super) awaiting: Awaiting,
    /// `None` once PUBREC has come, as it is never sent again [MQTT-4.3.3-6]; unless somebody wants to hear that it has been
    /// acknowledged completely.
    pub(super) delivery: Option<Queued>,
}

impl InFlight {
    /// The message, as long as the client may not have it.
    pub(super) fn unsent(&self) -> Option<&Queued> {
        self.delivery.as_ref().filter(|_| self.awaiting != Awaiting::Pubcomp)
    }

    /// The same, taken out.
    pub(super) fn into_unsent(self) -> Option<Queued> {
        self.delivery.filter(|_| self.awaiting != Awaiting::Pubcomp)
    }
}

/// A message for one session.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub(super) message: Kept,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) origin: Origin,
}

/// The subscriptions by which a session gets a message. Most have no identifier or one, and cost no allocation.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// Subscriptions that are not shared, with at most one Subscription Identifier; 0 for none.
    One(u32),
    /// Overlapping ones with several identifiers [MQTT-3.3.4-3].
    Several(Rc<Identifiers>),
    /// A Shared Subscription, by [`Group::number`](crate::router::Group::number), with its identifier or 0.
    Shared { group: NonZeroU64, identifier: u32 },
    /// The same, where a handler has had the client get another message in the place of the published one.
    Changed(Rc<Changed>),
    /// None: a handler has sent it to this client.
    Sent,
}

/// Behind a thin pointer, so that [`Queued`] stays small. There may be as many as a session has subscriptions.
#[derive(Debug)]
pub(super) struct Identifiers {
    all: Box<[u32]>,
    account: Account,
}

impl Drop for Identifiers {
    fn drop(&mut self) {
        self.account.sub(size_of_val(&*self.all));
    }
}

/// Behind a pointer, as it is rare.
#[derive(Debug)]
pub(super) struct Changed {
    group: NonZeroU64,
    identifier: u32,
    /// What another member gets if the client does not acknowledge what it got: that was meant for it alone.
    published: Kept,
    account: Account,
}

impl Changed {
    /// What was published.
    pub(super) fn published(&self) -> &Kept {
        &self.published
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        self.account.sub(size_of::<Self>());
    }
}

impl Queued {
    /// A message for one subscription, without RETAIN and Subscription Identifier.
    #[inline]
    pub(super) fn plain(message: Kept, qos: QoS) -> Self {
        Self { message, qos, retain: false, origin: Origin::One(0) }
    }

    /// The message for another member of the group.
    pub(super) fn into_published(self) -> Kept {
        match self.origin {
            Origin::Changed(changed) => changed.published.clone(),
            _ => self.message,
        }
    }
}

impl Origin {
    /// A handler has put another message in the place of this one.
    pub(super) fn changed(self, published: Kept, account: &Account) -> Self {
        let Self::Shared { group, identifier } = self else { return self };
        account.add(size_of::<Changed>());
        Self::Changed(Rc::new(Changed { group, identifier, published, account: account.clone() }))
    }

    /// The group is there if it is a Shared Subscription, which has one identifier at most.
    pub(super) fn new(group: Option<NonZeroU64>, identifiers: &[u32], account: &Account) -> Self {
        let first = identifiers.first().copied().unwrap_or(0);
        match group {
            Some(group) => Self::Shared { group, identifier: first },
            None if identifiers.len() < 2 => Self::One(first),
            None => {
                account.add(size_of_val(identifiers));
                Self::Several(Rc::new(Identifiers { all: identifiers.into(), account: account.clone() }))
            }
        }
    }

    /// The Subscription Identifiers of all matching subscriptions.
    pub(super) fn identifiers(&self) -> &[u32] {
        match self {
            Self::One(0) | Self::Shared { identifier: 0, .. } | Self::Sent => &[],
            Self::One(identifier) | Self::Shared { identifier, .. } => std::slice::from_ref(identifier),
            Self::Several(identifiers) => &identifiers.all,
            Self::Changed(changed) if changed.identifier == 0 => &[],
            Self::Changed(changed) => std::slice::from_ref(&changed.identifier),
        }
    }

    /// The group whose member the session was chosen as.
    pub(super) fn group(&self) -> Option<NonZeroU64> {
        match self {
            Self::Shared { group, .. } => Some(*group),
            Self::Changed(changed) => Some(changed.group),
            Self::One(_) | Self::Several(_) | Self::Sent => None,
        }
    }
}

/// Bytes of messages in flight or received that one session may have, whatever it is allowed, and one message more: they
/// are counted in 32 bits.
const BYTES_MAX: usize = 1 << 30;

/// Bytes of the messages that one session may have in flight, and of QoS 2 messages from its client that are not released:
/// as many as may wait for it, in its queue or for its socket.
fn unacknowledged_bytes_max(limits: &Limits) -> usize {
    limits.queue_bytes_max.max(limits.outbound_bytes_max).min(BYTES_MAX)
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a packet is smaller than 256 MiB, and there are as many as have identifiers")
}

impl Session {
    pub(super) fn new(client_id: Box<str>, serial: u32) -> Self {
        Self {
            client_id,
            number: 0,
            serial,
            connection: NONE,
            expiry_secs: 0,
            expiry_secs_max: 0,
            expires_at: Millis::NEVER,
            armed: Millis::NEVER,
            next_packet_id: 1,
            asks_again: false,
            asks_anew: false,
            waits_for_memory: false,
            in_flight: Unacknowledged::default(),
            to_resend: 0,
            in_flight_bytes: 0,
            queue: Backlog::default(),
            received: Received::default(),
            subscriptions: BTreeMap::new(),
            shared: None,
            away: None,
        }
    }

    pub(super) fn away(&mut self) -> &mut Away {
        self.away.get_or_insert_default()
    }

    /// Takes a part of it out, and frees it if nothing else is in it.
    pub(super) fn take_away<T: Default>(&mut self, part: impl FnOnce(&mut Away) -> &mut T) -> T {
        let taken = self.away.as_mut().map(|away| std::mem::take(part(away))).unwrap_or_default();
        self.drop_empty_away();
        taken
    }

    pub(super) fn drop_empty_away(&mut self) {
        self.away.take_if(|away| away.last_states.is_none() && away.will.is_none() && away.parked_replays.is_empty());
    }

    /// When its Will Message is due, if one waits.
    pub(super) fn will_at(&self) -> Option<Millis> {
        self.away.as_ref()?.will.as_ref().map(|will| will.at)
    }

    pub(super) fn key(&self, slot: u32) -> SessionKey {
        SessionKey { slot, serial: self.serial }
    }

    /// Whether what is for it is sent at once, as far as its connection takes it.
    pub(super) fn takes_at_once(&self) -> bool {
        self.queue.is_empty() && self.to_resend == 0 && !self.asks_again
    }

    /// Whether there is a Packet Identifier for one more message: the next one is not in use. Identifiers are given in
    /// order, so that this would be the oldest message in flight, and sending goes on when it is acknowledged.
    pub(super) fn has_packet_id(&self) -> bool {
        self.in_flight.oldest().is_none_or(|oldest| oldest.get() != self.next_packet_id)
    }

    /// A Packet Identifier that is not in use [MQTT-2.2.1-4].
    pub(super) fn take_packet_id(&mut self) -> Option<PacketId> {
        if !self.has_packet_id() {
            return None;
        }
        let next = PacketId::new(self.next_packet_id).expect("starts at 1 and skips 0");
        self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
        Some(next)
    }

    /// The place in flight of a Packet Identifier.
    pub(super) fn find_in_flight(&mut self, packet_id: PacketId) -> Option<usize> {
        self.in_flight.find(packet_id)
    }

    /// How many messages more may be in flight, and how many bytes of them.
    pub(super) fn room_in_flight(&self, in_flight_max: u16, limits: &Limits) -> (usize, usize) {
        let ids = self.in_flight.oldest().map_or(65_535, |oldest| distance(self.next_packet_id, oldest.get()));
        let messages = usize::from(in_flight_max).saturating_sub(self.in_flight.len()).min(ids as usize);
        (messages, unacknowledged_bytes_max(limits).saturating_sub(self.in_flight_bytes as usize))
    }

    /// Messages of so many bytes have been sent with the next Packet Identifiers. There was room for them.
    pub(super) fn add_batch(&mut self, batch: &Batch, bytes: usize) {
        let first = self.take_packet_ids(batch.len());
        self.in_flight_bytes += narrow(bytes);
        self.in_flight.add_batch(first, batch);
    }

    /// PUBACK or PUBCOMP packets have come for `count` messages, from a Packet Identifier on. Ends the in-flight state of those
    /// that are the oldest and wait for just that. Returns how many they are; the others are to be looked at one by one.
    #[inline]
    pub(super) fn acknowledge_oldest(&mut self, first: PacketId, count: usize, awaiting: Awaiting) -> usize {
        if self.to_resend > 0 {
            return 0; // One that is to be sent again may be among them.
        }
        let (done, bytes) = self.in_flight.acknowledge_oldest(first, count, awaiting);
        self.in_flight_bytes -= narrow(bytes);
        self.in_flight.trim();
        done
    }

    /// PUBREC packets have come for `count` messages, from a Packet Identifier on: they are never sent again
    /// [MQTT-4.3.3-6], and nobody wants to hear of them. Returns for how many that was what they waited for.
    #[inline]
    pub(super) fn note_all_received(&mut self, first: PacketId, count: usize) -> usize {
        let (done, bytes) = self.in_flight.note_received(first, count);
        self.in_flight_bytes -= narrow(bytes);
        done
    }

    /// Ends the in-flight state of the message at a place, and returns it if it was kept so long.
    pub(super) fn remove_in_flight(&mut self, place: usize) -> Option<Queued> {
        // A client may acknowledge what it was sent on an earlier connection before it is sent again.
        if place >= self.first_to_resend() {
            self.to_resend -= 1;
        }
        let delivery = self.in_flight.remove(place)?.delivery;
        self.in_flight.trim();
        let delivery = delivery?;
        self.in_flight_bytes -= narrow(delivery.message.bytes());
        Some(delivery)
    }

    /// A message of so many bytes is in flight from before.
    pub(super) fn count_in_flight(&mut self, bytes: usize) {
        self.in_flight_bytes += narrow(bytes);
    }

    /// The place in flight of the first message that is to be sent again.
    pub(super) fn first_to_resend(&self) -> usize {
        self.in_flight.len() - self.to_resend as usize
    }

    /// Everything in flight is to be sent again.
    pub(super) fn resend_all(&mut self) {
        self.to_resend = narrow(self.in_flight.len());
    }

    /// A message has been sent.
    #[inline]
    pub(super) fn add_in_flight(&mut self, packet_id: PacketId, delivery: Queued) {
        let awaiting = if delivery.qos == QoS::AtLeastOnce { Awaiting::Puback } else { Awaiting::Pubrec };
        self.in_flight_bytes += narrow(delivery.message.bytes());
        self.in_flight.push_back(InFlight { packet_id, awaiting, delivery: Some(delivery) });
    }

    /// Packets have been sent, of so many bytes. There was room for them. Returns the first of their Packet Identifiers.
    pub(super) fn add_part(&mut self, part: Part, bytes: usize) -> PacketId {
        let first = self.take_packet_ids(part.len());
        self.in_flight_bytes += narrow(bytes);
        self.in_flight.add_part(first, part);
        first
    }

    /// The same for some that are to be kept.
    #[inline]
    pub(super) fn add_row(&mut self, row: &Row<'_>, account: &Account) -> PacketId {
        let first = self.take_packet_ids(row.len());
        self.in_flight_bytes += narrow(row.message_bytes());
        self.in_flight.add_row(first, row, account);
        first
    }

    /// So many Packet Identifiers that are not in use.
    #[inline]
    fn take_packet_ids(&mut self, count: usize) -> PacketId {
        let first = behind(self.next_packet_id, 0);
        self.next_packet_id = behind(self.next_packet_id, count as u64).get();
        first
    }

    /// The client has the message at a place in flight, so that it is never sent again [MQTT-4.3.3-6]. It is kept until
    /// PUBCOMP if somebody wants it.
    pub(super) fn note_received(&mut self, place: usize, is_wanted: impl Fn(&Queued) -> bool) {
        let sent = &mut self.in_flight[place];
        sent.awaiting = Awaiting::Pubcomp;
        if sent.delivery.as_ref().is_some_and(is_wanted) {
            return;
        }
        if let Some(delivery) = sent.delivery.take() {
            self.in_flight_bytes -= narrow(delivery.message.bytes());
        }
    }

    /// Whether what is in flight leaves room for more.
    pub(super) fn has_room_in_flight(&self, limits: &Limits) -> bool {
        self.has_room_in_flight_behind(0, limits)
    }

    /// The same when so many bytes more are in flight.
    #[inline]
    pub(super) fn has_room_in_flight_behind(&self, bytes: usize, limits: &Limits) -> bool {
        self.in_flight_bytes as usize + bytes < unacknowledged_bytes_max(limits)
    }

    /// Whether there is room for so many bytes more of QoS 2 messages of the client.
    #[inline]
    pub(super) fn can_receive(&self, bytes: usize, limits: &Limits) -> bool {
        self.received.bytes() + bytes <= unacknowledged_bytes_max(limits)
    }

    /// Puts a message into the queue. Gives it back if there is no room for it.
    pub(super) fn enqueue(&mut self, delivery: Queued, messages_max: usize, bytes_max: usize) -> Result<(), Queued> {
        let bytes = delivery.message.bytes();
        if self.queue.len() >= messages_max || self.queue.bytes() + bytes > bytes_max {
            return Err(delivery);
        }
        self.queue.push_back(delivery);
        Ok(())
    }

    /// Whether there is room in the queue for so many messages more.
    pub(super) fn has_room_in_queue(&self, messages: usize, bytes: usize, limits: &Limits) -> bool {
        self.queue.len() + messages <= limits.queue_messages_max && self.queue.bytes() + bytes <= limits.queue_bytes_max
    }
}
