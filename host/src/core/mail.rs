//! What one thread sends to a worker: batches of messages from other workers, and requests of plugins.
//!
//! A mailbox is locked once per batch, not once per message, and its worker is woken only when it was empty.

use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError};

use plugin_api::abi::Status;
use plugin_api::{QoS, ReasonCode};

use super::poll::Poll;
use super::query::Query;
use crate::clock::Millis;
use crate::codec::SubscribeOptions;
use crate::message::{Message, MessageParts, Source};
use crate::plugin::Answered;
use crate::router::SessionKey;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// A request to one worker. Rare next to messages between workers, which travel encoded in a [`Batch`].
#[derive(Debug)]
pub enum Mail {
    /// Route a message that a plugin published.
    Publish(Arc<Message>),
    /// Send a message to one connection or client, if this worker has it.
    Send {
        /// Who gets it.
        target: SendTarget,
        /// The message, with its plugin's token.
        message: Arc<Message>,
    },
    /// Hand a message to `handle_info`.
    Info(Box<InfoMail>),
    /// Disconnect one Network Connection, if this worker has it.
    Disconnect {
        /// Connection id, as handlers know it.
        connection: u64,
        /// Reason Code of the DISCONNECT packet.
        reason_code: ReasonCode,
        /// Encoded properties of the DISCONNECT packet.
        properties: Box<[u8]>,
    },
    /// Stop a timer, if it is the plugin's.
    CancelTimer {
        /// Index in the chain of the plugin that set it.
        plugin: usize,
        /// Its number.
        timer: u64,
    },
    /// Look for what a plugin has asked for.
    Query(Box<Query>),
    /// Make or end a subscription for a client.
    Subscribe(Box<SubscribeMail>),
    /// Ask about subscriptions again.
    Reauthorise {
        /// Whose.
        target: InfoTarget,
        /// Who wants to know what became of them.
        poll: Poll,
    },
    /// Look which plugins decide: that has changed.
    Plan,
    /// A plugin answers a question that it was asked before.
    Answer {
        /// The connection that the question is about.
        connection: u64,
        /// The ticket that stands for it.
        ticket: u64,
        /// What it says.
        answered: Box<Answered>,
    },
    /// Leave: tell all clients, close, and end the worker.
    Stop,
}

/// Who gets a message that a plugin sends to one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendTarget {
    /// The connection with this id.
    Connection(u64),
    /// The client with this Client Identifier, connected or not.
    Client(Box<str>),
}

/// A subscription of a client that a plugin makes or ends.
#[derive(Debug)]
pub struct SubscribeMail {
    /// Whose: a connection's or a client's.
    pub target: InfoTarget,
    /// Topic Filter as a client would write it.
    pub filter: Box<str>,
    /// What is asked for, and the Subscription Identifier or 0; `None` to end it.
    pub subscription: Option<(SubscribeOptions, u32)>,
    /// Who waits for the answer.
    pub poll: Poll,
}

/// A message for `handle_info` or `handle_event`.
#[derive(Debug, Clone)]
pub struct InfoMail {
    /// Which connections get it.
    pub target: InfoTarget,
    /// Index in the chain of the plugin that sent it, which is the one that gets it.
    pub plugin: usize,
    /// What kind of message it is, in the plugin's own words.
    pub kind: Box<str>,
    /// Its bytes.
    pub data: Box<[u8]>,
    /// Delay before it is delivered, in milliseconds.
    pub delay_ms: u64,
    /// Distance in which it is delivered again and again, in milliseconds; 0 for once.
    pub interval_ms: u64,
    /// Number of its timer; 0 if it is delivered at once.
    pub timer: u64,
    /// The connection in whose callback it was sent, 0 if it was sent outside of one.
    pub from_connection: u64,
}

/// Which connections a message for `handle_info` goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InfoTarget {
    /// The connection with this id.
    Connection(u64),
    /// The connection of the client with this Client Identifier.
    Client(Box<str>),
    /// Every connection.
    All,
    /// The plugin as a whole.
    Plugin,
}

/// Bytes that one request may keep in a mailbox beyond its own data.
const MAIL_OVERHEAD_BYTES: usize = 64;

/// Requests from plugins that one mailbox holds, in bytes; past it the plugin gets an error.
const REQUEST_BYTES_MAX: usize = 16 << 20;

impl Mail {
    fn bytes(&self) -> usize {
        MAIL_OVERHEAD_BYTES
            + match self {
                Self::Publish(message) | Self::Send { message, .. } => message.bytes(),
                Self::Info(info) => info.data.len() + info.kind.len(),
                Self::Disconnect { properties, .. } => properties.len(),
                Self::Answer { answered, .. } => answered.bytes(),
                Self::Query(query) => query.bytes(),
                Self::Subscribe(subscribe) => subscribe.filter.len(),
                Self::CancelTimer { .. } | Self::Reauthorise { .. } | Self::Plan | Self::Stop => 0,
            }
    }

    /// The request is not taken, and who asked hears of it at once.
    pub(crate) fn forget_asker(&mut self) {
        match self {
            Self::Query(query) => query.asker.forget(),
            Self::Subscribe(subscribe) => subscribe.poll.forget(),
            Self::Reauthorise { poll, .. } => poll.forget(),
            _ => {}
        }
    }

    /// Says what is told to who waits for an answer, if the request is dropped. `false` if nobody does.
    pub(crate) fn unless_answered(&mut self, why: Status) -> bool {
        match self {
            Self::Query(query) => query.asker.unless_answered(why),
            Self::Subscribe(subscribe) => subscribe.poll.unless_answered(why),
            Self::Reauthorise { poll, .. } => poll.unless_answered(why),
            _ => return false,
        }
        true
    }
}

/// Messages and requests on their way to one worker.
#[derive(Debug, Default)]
pub struct Batch {
    /// Messages, encoded by [`Batch::push`]: no allocation for each of them.
    encoded: Vec<u8>,
    mails: Vec<Mail>,
    mail_bytes: usize,
}

/// Whom a message from another worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Every matching subscription of the receiving worker.
    Matching,
    /// The member that the group of a Shared Subscription has chosen.
    Member {
        /// The chosen session.
        session: SessionKey,
        /// Which group has chosen: [`Group::number`](crate::router::Group::number).
        group: NonZeroU64,
    },
}

const MEMBER: u8 = 0x80;
const RETAIN: u8 = 0x04;
/// Who published a message, in two bits. For a plugin there are two bytes more; a client's message has none.
const FROM_PLUGIN: u8 = 0x08;
const FROM_WILL: u8 = 0x10;
const FROM_SERVER: u8 = 0x18;
const FROM: u8 = 0x18;

impl Batch {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty() && self.mails.is_empty()
    }

    /// Bytes of encoded messages.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Appends a message.
    pub fn push(&mut self, destination: Destination, parts: &MessageParts<'_>) {
        let mut flags = parts.qos as u8 | if parts.retain { RETAIN } else { 0 };
        if let Destination::Member { .. } = destination {
            flags |= MEMBER;
        }
        flags |= match parts.source {
            Source::Client => 0,
            Source::Plugin { .. } => FROM_PLUGIN,
            Source::Will => FROM_WILL,
            Source::Server => FROM_SERVER,
        };
        let out = &mut self.encoded;
        out.push(flags);
        if let Source::Plugin { index, hops } = parts.source {
            out.extend_from_slice(&[index, hops]);
        }
        out.extend_from_slice(&parts.expires_at.0.to_le_bytes());
        for length in [parts.topic.len(), parts.properties.len(), parts.payload.len()] {
            let length = u32::try_from(length).expect("part of a packet, which is smaller than 256 MiB");
            out.extend_from_slice(&length.to_le_bytes());
        }
        if let Destination::Member { session, group } = destination {
            out.extend_from_slice(&group.get().to_le_bytes());
            for number in [session.slot, session.serial] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out.extend_from_slice(parts.topic.as_bytes());
        out.extend_from_slice(parts.properties);
        out.extend_from_slice(parts.payload);
    }

    /// The message at `at`, which is moved behind it; the first one is at 0. `None` at the end.
    pub fn message(&self, at: &mut usize) -> Option<(Destination, MessageParts<'_>)> {
        let mut rest = Reader(&self.encoded[*at..]);
        let message = (!rest.0.is_empty()).then(|| rest.message());
        *at = self.encoded.len() - rest.0.len();
        message
    }

    /// The messages, in the order in which they were pushed.
    pub fn messages(&self) -> impl Iterator<Item = (Destination, MessageParts<'_>)> {
        let mut at = 0;
        std::iter::from_fn(move || self.message(&mut at))
    }

    /// Takes the requests out.
    pub fn take_mails(&mut self) -> Vec<Mail> {
        self.mail_bytes = 0;
        std::mem::take(&mut self.mails)
    }

    /// Appends what is in another one, which is empty then.
    fn append(&mut self, other: &mut Self) {
        self.encoded.extend_from_slice(&other.encoded);
        self.mail_bytes += other.mail_bytes;
        self.mails.append(&mut other.mails);
        other.clear();
    }

    /// Empties it and keeps the memory, up to a bound.
    pub fn clear(&mut self) {
        const KEEP_BYTES: usize = 1 << 20;
        self.encoded.clear();
        self.encoded.shrink_to(KEEP_BYTES);
        self.mails.clear();
        self.mail_bytes = 0;
    }
}

/// Reads what [`Batch::push`] wrote.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        head
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes were taken"))
    }

    fn long_number(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes were taken"))
    }

    fn message(&mut self) -> (Destination, MessageParts<'a>) {
        let flags = self.take(1)[0];
        let source = match flags & FROM {
            0 => Source::Client,
            FROM_PLUGIN => {
                let numbers = self.take(2);
                Source::Plugin { index: numbers[0], hops: numbers[1] }
            }
            FROM_WILL => Source::Will,
            _ => Source::Server,
        };
        let expires_at = Millis(self.long_number());
        let (topic, properties, payload) = (self.number(), self.number(), self.number());
        let destination = if flags & MEMBER == 0 {
            Destination::Matching
        } else {
            Destination::Member {
                group: NonZeroU64::new(self.long_number()).expect("pushed as not zero"),
                session: SessionKey { slot: self.number(), serial: self.number() },
            }
        };
        let topic = std::str::from_utf8(self.take(topic as usize)).expect("pushed as a str");
        let parts = MessageParts {
            topic,
            properties: self.take(properties as usize),
            payload: self.take(payload as usize),
            qos: qos(flags),
            retain: flags & RETAIN != 0,
            expires_at,
            source,
            as_it_came: None,
        };
        (destination, parts)
    }
}

fn qos(bits: u8) -> QoS {
    QoS::from_u8(bits & 3).expect("pushed as a QoS")
}

/// One worker's mailbox. Anybody may put something in; only its worker empties it. It has cache lines of its own: others put
/// something into the next one meanwhile.
#[repr(align(128))]
pub struct Mailbox {
    waiting: Mutex<Waiting>,
    /// There is, or was, a [`Mail::Stop`] in it.
    is_last: AtomicBool,
    /// Its worker has ended. Written and read under the lock.
    is_closed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// What waits in a mailbox. Little is copied while its lock is held, however many put something in: with many workers they
/// would wait for each other.
#[derive(Debug, Default)]
struct Waiting {
    /// What came first.
    first: Batch,
    /// What came behind it, in order, before the worker has looked.
    behind: Vec<Batch>,
    /// Empty batches, whose memory is used for what comes next.
    spare: Vec<Batch>,
    /// Bytes of all these.
    encoded_bytes: usize,
    mail_bytes: usize,
}

/// How many batches wait behind the first one, and how many empty ones are kept.
const BEHIND_MAX: usize = 64;
const SPARE_MAX: usize = 8;
/// Up to so many bytes it is no more work to copy them than to hand their memory over.
const COPIED_BYTES_MAX: usize = 1024;

impl Waiting {
    fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Puts `full` behind what there is, and leaves something empty in its place.
    fn push(&mut self, full: &mut Batch) {
        let (bytes, capacity) = (full.encoded.len(), full.encoded.capacity());
        self.encoded_bytes += bytes;
        self.mail_bytes += full.mail_bytes;
        // Memory that is hardly used is not to pile up here.
        let is_copied = bytes <= COPIED_BYTES_MAX || bytes < capacity / 4 || self.behind.len() >= BEHIND_MAX;
        if self.first.is_empty() {
            std::mem::swap(&mut self.first, full);
        } else if is_copied {
            self.last().append(full);
        } else {
            self.behind.push(std::mem::replace(full, self.spare.pop().unwrap_or_default()));
        }
    }

    /// The batch that came last.
    fn last(&mut self) -> &mut Batch {
        self.behind.last_mut().unwrap_or(&mut self.first)
    }
}

impl Mailbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic runs under this lock except allocation, so what waits is still whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request in. `false` if the mailbox is full; answers are always taken, there is one for each open ticket.
    #[must_use]
    pub fn post(&self, mail: Mail) -> bool {
        self.hand_in(mail).is_ok()
    }

    /// The same, for a request that somebody waits for.
    ///
    /// # Errors
    /// The mailbox is full, or its worker has ended.
    pub fn hand_in(&self, mail: Mail) -> Result<(), Refused> {
        let mut waiting = self.waiting();
        let (was_empty, bytes) = (waiting.is_empty(), mail.bytes());
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Refused { mail, closed: true });
        }
        if waiting.mail_bytes + bytes > REQUEST_BYTES_MAX && !matches!(mail, Mail::Stop | Mail::Answer { .. }) {
            return Err(Refused { mail, closed: false });
        }
        self.is_last.fetch_or(matches!(mail, Mail::Stop), Ordering::Relaxed);
        waiting.mail_bytes += bytes;
        let last = waiting.last();
        last.mail_bytes += bytes;
        last.mails.push(mail);
        drop(waiting);
        if was_empty {
            (self.wake)();
        }
        Ok(())
    }

    /// The worker has ended: requests that wait are dropped, and so answered, and no more are taken.
    pub fn close(&self) {
        let mut waiting = self.waiting();
        self.is_closed.store(true, Ordering::Relaxed);
        let left = std::mem::take(&mut *waiting);
        // Not under the lock: who waits may ask for more.
        drop(waiting);
        drop(left);
    }

    /// Swaps `full` in, behind what waits already. Returns the bytes that wait there.
    pub fn put(&self, full: &mut Batch) -> usize {
        let mut waiting = self.waiting();
        let was_empty = waiting.is_empty();
        waiting.push(full);
        let bytes = waiting.encoded_bytes;
        drop(waiting);
        full.clear();
        if was_empty {
            (self.wake)();
        }
        bytes
    }

    /// Bytes of messages that wait in it.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting().encoded_bytes
    }

    /// Whether the worker is to stop when it comes to it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_last.load(Ordering::Relaxed)
    }

    /// Swaps everything into `empty`, whose memory is used for what comes next. `false` if there was nothing.
    pub fn take(&self, empty: &mut Batch) -> bool {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            return false;
        }
        std::mem::swap(&mut waiting.first, empty);
        (waiting.encoded_bytes, waiting.mail_bytes) = (0, 0);
        let mut behind = std::mem::take(&mut waiting.behind);
        drop(waiting);
        if behind.is_empty() {
            return true;
        }
        behind.iter_mut().for_each(|batch| empty.append(batch));
        behind.truncate(SPARE_MAX);
        let mut waiting = self.waiting();
        if waiting.spare.is_empty() {
            std::mem::swap(&mut waiting.spare, &mut behind);
        }
        drop(waiting);
        true
    }
}

/// A request that a mailbox did not take.
#[derive(Debug)]
pub struct Refused {
    /// The request.
    pub mail: Mail,
    /// The worker has ended; otherwise its mailbox is full.
    pub closed: bool,
}

/// The mailboxes of all workers, by worker.
#[derive(Clone)]
pub struct Mailboxes(Arc<[Mailbox]>);

impl std::fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mailboxes({})", self.0.len())
    }
}

impl Mailboxes {
    /// One mailbox for each of the wake functions, which are called when it ceases to be empty, on any thread.
    #[must_use]
    pub fn new(wake: Vec<Box<dyn Fn() + Send + Sync>>) -> Self {
        Self(
            wake.into_iter()
                .map(|wake| Mailbox {
                    waiting: Mutex::default(),
                    is_last: AtomicBool::new(false),
                    is_closed: AtomicBool::new(false),
                    wake,
                })
                .collect(),
        )
    }

    /// How many workers there are. Zero where a plugin is only looked at (`host check`).
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.len()
    }

    /// The mailbox of a worker.
    #[must_use]
    pub fn of(&self, worker: usize) -> &Mailbox {
        &self.0[worker]
    }

    /// See [`Mailbox::hand_in`].
    ///
    /// # Errors
    /// See there.
    pub fn hand_in(&self, worker: usize, mail: Mail) -> Result<(), Refused> {
        self.0[worker].hand_in(mail)
    }

    /// Puts a request into one worker's mailbox. `false` if it is full.
    #[must_use]
    pub fn post(&self, worker: usize, mail: Mail) -> bool {
        self.0[worker].post(mail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn parts<'a>(topic: &'a str, payload: &'a [u8]) -> MessageParts<'a> {
        MessageParts {
            topic,
            payload,
            properties: b"\x01\x01",
            qos: QoS::AtLeastOnce,
            retain: true,
            expires_at: Millis(77),
            source: Source::Client,
            as_it_came: None,
        }
    }

    #[test]
    fn messages_keep_who_published_them() {
        let sources = [Source::Client, Source::Plugin { index: 63, hops: 7 }, Source::Will, Source::Server];
        let mut batch = Batch::default();
        for source in sources {
            batch.push(Destination::Matching, &MessageParts { source, ..parts("t", b"x") });
        }
        assert!(
            batch
                .messages()
                .map(|(_, parts)| (parts.source, parts.payload))
                .eq(sources.map(|source| (source, &b"x"[..])))
        );
    }

    #[test]
    fn batch_gives_back_what_was_pushed_in_order() {
        let member = Destination::Member {
            session: SessionKey { slot: 3, serial: 9 },
            group: NonZeroU64::new(0x0123_4567_89AB_CDEF).unwrap(),
        };
        let mut batch = Batch::default();
        batch.push(Destination::Matching, &parts("a/b", b"one"));
        batch.push(member, &parts("ä", b""));
        let read: Vec<_> = batch
            .messages()
            .map(|(to, p)| {
                (to, p.topic.to_owned(), p.payload.to_vec(), p.properties.to_vec(), p.qos, p.retain, p.expires_at)
            })
            .collect();
        let rest = (b"\x01\x01".to_vec(), QoS::AtLeastOnce, true, Millis(77));
        assert_eq!(
            read,
            [
                (Destination::Matching, "a/b".into(), b"one".to_vec(), rest.0.clone(), rest.1, rest.2, rest.3),
                (member, "ä".into(), vec![], rest.0, rest.1, rest.2, rest.3),
            ]
        );
    }

    #[test]
    fn worker_is_woken_only_when_the_mailbox_was_empty() {
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        let boxes = Mailboxes::new(vec![Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })]);
        let mut batch = Batch::default();
        for _ in 0..3 {
            batch.push(Destination::Matching, &parts("t", b"x"));
            boxes.of(0).put(&mut batch);
            assert!(batch.is_empty());
        }
        assert!(boxes.post(0, Mail::Stop));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert!(boxes.of(0).take(&mut batch));
        assert_eq!(batch.messages().count(), 3);
        assert_eq!(batch.take_mails().len(), 1);
        assert!(!boxes.of(0).take(&mut Batch::default()));
    }

    /// However long batches are, and whether there is room for them in each other.
    #[test]
    fn batches_that_pile_up_come_in_order() {
        let boxes = Mailboxes::new(vec![Box::new(|| {})]);
        let (mut batch, mut taken) = (Batch::default(), Batch::default());
        for round in 0..3 {
            let payload = [b'x'; 5000];
            let lengths = (0..400_usize).map(|number| [0, 10, 1100, 5000][number * 7 % 4]);
            for (number, length) in lengths.clone().enumerate() {
                batch.push(Destination::Matching, &parts(&format!("{number}"), &payload[..length]));
                boxes.of(0).put(&mut batch);
                assert!(batch.is_empty());
            }
            assert!(boxes.of(0).post(Mail::Stop));
            let (waiting, most) = (boxes.of(0).waiting_bytes(), lengths.clone().sum::<usize>() + 400 * 32);
            assert!(boxes.of(0).take(&mut taken), "round {round}");
            assert_eq!((boxes.of(0).waiting_bytes(), waiting, taken.take_mails().len()), (0, taken.encoded_bytes(), 1));
            assert!(waiting < most, "{waiting} bytes");
            let found: Vec<_> =
                taken.messages().map(|(_, parts)| (parts.topic.to_owned(), parts.payload.len())).collect();
            let expected: Vec<_> = lengths.enumerate().map(|(number, length)| (number.to_string(), length)).collect();
            assert_eq!(found, expected);
            taken.clear();
            let waiting = boxes.of(0).waiting();
            assert!(waiting.spare.len() <= SPARE_MAX && waiting.mail_bytes == 0);
            let kept: usize = waiting.spare.iter().map(|batch| batch.encoded.capacity()).sum();
            assert!(kept <= SPARE_MAX << 20, "{kept} bytes");
        }
    }

    #[test]
    fn full_mailbox_refuses_requests_but_takes_stop() {
        let boxes = Mailboxes::new(vec![Box::new(|| {})]);
        let info = |bytes| {
            Mail::Info(Box::new(InfoMail {
                target: InfoTarget::All,
                plugin: 0,
                kind: "k".into(),
                data: vec![0; bytes].into(),
                delay_ms: 0,
                interval_ms: 0,
                timer: 0,
                from_connection: 0,
            }))
        };
        assert!(boxes.post(0, info(REQUEST_BYTES_MAX - 200)));
        assert!(!boxes.post(0, info(1000)));
        assert!(boxes.post(0, Mail::Stop));
    }
}
