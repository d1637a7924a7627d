//! The bytes that a worker holds for its peers, and what it refuses when they become too many.
//!
//! A worker counts what peers can make it keep: messages, once however many sessions wait for one, and each reference to
//! them; outbound buffers and packets that have not come completely; subscriptions with their nodes in the tries;
//! sessions, wills, Topic Aliases, replays. What has a bound of its own for all workers (retained messages, mailboxes,
//! connections) is not counted here. Past [`Limits::worker_bytes_max`](crate::limits::Limits::worker_bytes_max) nothing is
//! accepted that would have to be kept, and everything else goes on: as soon as memory has been released, so does the rest.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::Core;
use super::connection::Extra;
use super::kept::KeptBytes;
use super::packets::{Expected, Packets};
use crate::codec::DecodeError;
use crate::message::{Message, MessageParts};
use plugin_api::ReasonCode;
use plugin_api::topic::{self, Share};

/// What a message takes beyond its topic, properties and payload.
const MESSAGE_BYTES: usize = 128;

/// What a reference to it takes, in a session's queue, in flight or received.
const REFERENCE_BYTES: usize = 64;

/// A session, its entries in the indexes, and what its queues keep when they are empty.
const SESSION_BYTES: usize = 512;

/// A subscription in its session and among the subscribers of its filter, whose text is counted besides.
const SUBSCRIPTION_BYTES: usize = 160;

/// A level of a filter in this worker's trie, and the same again in the index of all workers.
const NODE_BYTES: usize = 192;

/// One of the messages that a replay has found.
const REPLAYED_BYTES: usize = size_of::<u32>();

/// What a connection may have outbound, or of a packet that has not come completely, even where there is no room: enough
/// for who sends and reads little to be served.
pub(super) const FREE_BYTES: usize = 16 << 10;

/// Time between two warnings that the worker is full, in milliseconds.
const FULL_WARNING_MS: u64 = 60_000;

/// How many bytes are held. One worker's own.
#[derive(Debug, Clone, Default)]
pub(super) struct Account(Rc<Held>);

#[derive(Debug, Default)]
struct Held {
    bytes: Cell<usize>,
    /// Messages that nobody keeps any more, for the next ones that are kept: the memory of one is asked of the allocator
    /// once, not twice for each that is published. A quarter of what a QoS 1 message cost was that.
    spare: RefCell<Vec<Rc<Counted>>>,
    /// The same of packets that were kept as they came, and the bytes of all.
    spare_packets: RefCell<(Vec<Rc<Packets>>, usize)>,
}

/// Messages that are kept for the next ones, the size of the largest, and what the next one may leave empty of it beyond a half.
const SPARE_MESSAGES_MAX: usize = 2048;
const SPARE_BYTES_MAX: usize = 1024;
const SPARE_WASTE_BYTES: usize = 64;

/// Bytes of the buffers of packets that are kept for the next ones, of one of them, and of one that few packets get.
const SPARE_PACKETS_BYTES_MAX: usize = 8 << 20;
const SPARE_PART_BYTES_MAX: usize = 32 << 10;
const SPARE_FOR_FEW_BYTES_MAX: usize = 512;

impl Account {
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    #[inline]
    pub(super) fn add(&self, bytes: usize) {
        self.0.bytes.set(self.bytes() + bytes);
    }

    #[inline]
    pub(super) fn sub(&self, bytes: usize) {
        debug_assert!(self.bytes() >= bytes, "more is given back than was taken");
        self.0.bytes.set(self.bytes().wrapping_sub(bytes));
    }

    /// Room for packets, in which there are none.
    #[inline]
    pub(super) fn spare_packets(&self, expected: Expected) -> Option<Rc<Packets>> {
        let (spare, bytes) = &mut *self.0.spare_packets.borrow_mut();
        let is_fine = |rc: &mut Rc<Packets>| expected == Expected::Soon || rc.buffer_bytes() <= SPARE_FOR_FEW_BYTES_MAX;
        let packets = spare.pop_if(is_fine)?;
        *bytes -= packets.buffer_bytes();
        Some(packets)
    }

    /// Keeps it for the next packets, if there is not too much of it.
    #[inline]
    pub(super) fn keep_spare_packets(&self, packets: Rc<Packets>) {
        let (spare, bytes) = &mut *self.0.spare_packets.borrow_mut();
        let bytes_of_it = packets.buffer_bytes();
        if bytes_of_it <= SPARE_PART_BYTES_MAX && *bytes + bytes_of_it <= SPARE_PACKETS_BYTES_MAX {
            *bytes += bytes_of_it;
            spare.push(packets);
        }
    }

    /// Something has grown or shrunk.
    #[inline]
    pub(super) fn change(&self, before: usize, after: usize) {
        if before != after {
            self.add(after);
            self.sub(before);
        }
    }
}

/// A message that sessions of one worker keep. It counts once, and its references as the next power of two of them: so
/// nearly all clones and drops, of which each delivery has one, leave the account alone.
///
/// There is one in it until it is dropped.
#[derive(Debug)]
pub(super) struct Kept(Option<Rc<Counted>>);

#[derive(Debug)]
pub(super) struct Counted {
    message: Message,
    /// `None` in one that nobody keeps.
    account: Option<Account>,
}

impl Kept {
    pub(super) fn new(parts: &MessageParts<'_>, account: &Account) -> Self {
        Self::with_token(parts, 0, account)
    }

    /// A message to one client, with the token of the plugin that sent it; 0 for none.
    pub(super) fn with_token(parts: &MessageParts<'_>, token: u64, account: &Account) -> Self {
        let bytes = parts.topic.len() + parts.properties.len() + parts.payload.len();
        // A short message that is kept for long must not take the room of a long one.
        let fits = |spare: &mut Rc<Counted>| spare.message.buffer_bytes() <= 2 * bytes + SPARE_WASTE_BYTES;
        let counted = match account.0.spare.borrow_mut().pop_if(fits) {
            Some(mut spare) => {
                let counted = Rc::get_mut(&mut spare).expect("nobody keeps it");
                counted.message = parts.copy_into(counted.message.take_buffer(), token);
                counted.account = Some(account.clone());
                spare
            }
            None => Rc::new(Counted { message: parts.to_message_with_token(token), account: Some(account.clone()) }),
        };
        account.add(MESSAGE_BYTES + REFERENCE_BYTES + counted.message.buffer_bytes());
        Self(Some(counted))
    }

    /// Whether both are one message, which is kept once.
    #[inline]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(self.counted(), other.counted())
    }

    pub(super) fn counted(&self) -> &Rc<Counted> {
        self.0.as_ref().expect("there is one until it is dropped")
    }
}

impl Deref for Kept {
    type Target = Message;
    #[inline]
    fn deref(&self) -> &Message {
        &self.counted().message
    }
}

impl Clone for Kept {
    #[inline]
    fn clone(&self) -> Self {
        let counted = self.counted();
        let references = Rc::strong_count(counted);
        if references.is_power_of_two()
            && let Some(account) = &counted.account
        {
            account.add(references * REFERENCE_BYTES);
        }
        Self(Some(Rc::clone(counted)))
    }
}

impl Drop for Kept {
    #[inline]
    fn drop(&mut self) {
        let Some(mut counted) = self.0.take() else { return };
        if let Some(last) = Rc::get_mut(&mut counted) {
            let bytes = last.message.buffer_bytes();
            if let Some(account) = last.account.take() {
                account.sub(MESSAGE_BYTES + REFERENCE_BYTES + bytes);
                let mut spare = account.0.spare.borrow_mut();
                if bytes <= SPARE_BYTES_MAX && spare.len() < SPARE_MESSAGES_MAX {
                    spare.push(counted);
                }
            }
            return;
        }
        let others = Rc::strong_count(&counted) - 1;
        if others.is_power_of_two()
            && let Some(account) = &counted.account
        {
            account.sub(others * REFERENCE_BYTES);
        }
    }
}

/// What a session counts for, without what is in it.
pub(super) fn session_bytes(client_id: &str) -> usize {
    SESSION_BYTES + client_id.len()
}

/// What a subscription counts for, without its nodes in this worker's trie. Shared ones are in the index of all workers only,
/// and each counts for all of its levels there, as if no other had them.
pub(super) fn subscription_bytes(written: &str) -> usize {
    let levels = match topic::split_share(written) {
        Share::Group { filter, .. } => topic::levels(filter).count(),
        Share::None | Share::Malformed => 0,
    };
    SUBSCRIPTION_BYTES + 2 * written.len() + levels * NODE_BYTES / 2
}

impl Core {
    /// The bytes that this worker holds for its peers, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.account.bytes() + self.router.nodes() * NODE_BYTES
    }

    /// Whether nothing more is accepted that would have to be kept.
    pub(super) fn is_full(&self) -> bool {
        self.held_bytes() >= self.shared.limits.worker_bytes_max
    }

    /// Whether there is no room even for a message that was accepted elsewhere, or before: messages from other workers that
    /// were on their way, wills, QoS 2 messages that are released. It is dropped then. One that takes little can be kept
    /// for as long as this turn lasts.
    #[inline]
    pub(super) fn is_overfull(&self, message_bytes: usize) -> bool {
        (self.said_full || message_bytes > FREE_BYTES) && self.has_more_by(4)
    }

    /// Whether there is no room even to send a session what it is kept, which takes a copy: then it waits until there is.
    /// There is room for this where nothing new is accepted any more, so that something can be sent, and less than for what
    /// has to be kept, which is not lost because it is copied.
    pub(super) fn has_to_wait(&mut self, session_slot: u32, message_bytes: usize) -> bool {
        let has_to_wait = message_bytes > FREE_BYTES && self.has_more_by(8);
        let session = &mut self.sessions[session_slot as usize];
        if has_to_wait && !session.waits_for_memory {
            session.waits_for_memory = true;
            self.waiting_for_memory.push_back(session.key(session_slot));
        }
        has_to_wait
    }

    /// Whether some sessions wait for memory, and there is some.
    pub(super) fn has_memory_again(&self) -> bool {
        !self.waiting_for_memory.is_empty() && !self.has_more_by(8)
    }

    /// Sends to those that have waited for it.
    pub(super) fn continue_waiting(&mut self) {
        for _ in 0..self.waiting_for_memory.len() {
            if !self.has_memory_again() {
                return;
            }
            let key = self.waiting_for_memory.pop_front().expect("it is not empty");
            let session = self.sessions.get_mut(key.slot as usize).filter(|session| session.serial == key.serial);
            if let Some(session) = session {
                session.waits_for_memory = false;
                self.pump(key.slot);
            }
        }
    }

    /// Whether it holds more than it may, by a part of the bound.
    fn has_more_by(&self, part: usize) -> bool {
        let max = self.shared.limits.worker_bytes_max;
        self.held_bytes() >= max.saturating_add(max / part)
    }

    /// Tells the other workers whether this one is full, and learns which of them are.
    pub(super) fn exchange_fullness(&mut self) {
        let (is_full, own) = (self.is_full(), 1 << self.worker);
        if is_full != self.said_full {
            self.said_full = is_full;
            if is_full {
                self.warn_full();
                self.shared.full_workers.fetch_or(own, Ordering::Relaxed);
            } else {
                self.shared.full_workers.fetch_and(!own, Ordering::Relaxed);
            }
        }
        self.congestion.full = self.shared.full_workers.load(Ordering::Relaxed) & !own;
    }

    /// Once in a while: it may become full again and again.
    fn warn_full(&mut self) {
        if self.now >= self.full_warning_at {
            self.full_warning_at = self.now + FULL_WARNING_MS;
            let bytes = self.held_bytes();
            tracing::warn!(worker = self.worker, bytes, "the worker holds as much as worker_bytes_max allows");
        }
    }

    /// Writes to the outbound buffer of a connection.
    #[inline]
    pub(super) fn write<R>(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let out = self.out(slot);
        let before = out.capacity();
        let written = write(out);
        let after = out.capacity();
        self.account.change(before, after);
        written
    }

    /// Takes the outbound buffer away from a connection.
    pub(super) fn take_out(&mut self, slot: u32) -> Vec<u8> {
        let connection = &mut self.connections[slot as usize];
        connection.out_sent = 0;
        let out = std::mem::take(&mut connection.out);
        self.account.sub(out.capacity());
        out
    }

    /// Keeps the start of a packet, or packets that wait for the next turn.
    pub(super) fn keep_partial(&mut self, slot: u32, partial: KeptBytes) {
        if partial.is_empty() {
            return;
        }
        self.has_read_secrets |= partial.has_secrets();
        self.account.add(partial.capacity());
        self.connections[slot as usize].partial = Some(Box::new(partial));
    }

    /// Takes them away again.
    pub(super) fn take_partial(&mut self, slot: u32) -> KeptBytes {
        let partial = self.connections[slot as usize].partial.take().map(|partial| *partial).unwrap_or_default();
        self.account.sub(partial.capacity());
        partial
    }

    /// Whether a packet that has not come completely may grow so far.
    pub(super) fn check_partial(&self, bytes: usize) -> Result<(), DecodeError> {
        if bytes > FREE_BYTES && self.is_full() { Err(no_room()) } else { Ok(()) }
    }

    /// Something in a connection's extra state has changed.
    pub(super) fn count_extra(&mut self, slot: u32) {
        if let Some(extra) = &mut self.connections[slot as usize].extra {
            let bytes = extra.bytes();
            self.account.change(extra.counted_bytes, bytes);
            extra.counted_bytes = bytes;
        }
    }

    /// Takes the extra state away from a connection.
    pub(super) fn take_extra(&mut self, slot: u32) -> Option<Box<Extra>> {
        let mut extra = self.connections[slot as usize].extra.take()?;
        self.account.sub(std::mem::take(&mut extra.counted_bytes));
        Some(extra)
    }
}

impl Extra {
    /// Memory behind it that peers decide on, in bytes.
    fn bytes(&self) -> usize {
        let will = self.will.as_ref();
        let will = will.map_or(0, |will| will.topic.len() + will.payload.len() + will.properties.len());
        let aliases = self.alias_bytes + self.aliases.capacity() * size_of::<Option<Box<str>>>();
        let outbound_aliases = self.outbound_aliases.as_ref().map_or(0, |aliases| aliases.bytes());
        let method = self.auth.as_ref().map_or(0, |auth| auth.method.len());
        let waiting = self.waiting.as_ref().map_or(0, |waiting| waiting.bytes());
        let details = self.details.as_ref().map_or(0, |details| details.bytes());
        details + waiting + will + aliases + outbound_aliases + method + self.replays.messages_left() * REPLAYED_BYTES
    }
}

/// The worker holds as much as it may.
pub(super) fn no_room() -> DecodeError {
    DecodeError::Protocol { code: ReasonCode::QUOTA_EXCEEDED, what: "the server has no memory left for this" }
}
