//! What one thread sends to a worker: batches of messages from other workers, and requests of plugins. They wait in its
//! [mailbox](super::mailbox).

use std::num::NonZeroU64;
use std::sync::Arc;

use plugin_api::abi::Status;
use plugin_api::{QoS, ReasonCode};

use super::poll::Poll;
use super::query::Query;
use crate::clock::Millis;
use crate::codec::SubscribeOptions;
use crate::limits::Limits;
use crate::message::{Message, MessageParts, Source};
use crate::plugin::{Answered, TimerRoom};
use crate::router::SessionKey;

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
    /// Other bounds hold from now on.
    Limits(Arc<Limits>),
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
    /// What its timer takes of the plugin's room; `None` if it is delivered at once.
    pub room: Option<Arc<TimerRoom>>,
    /// The generation of the plugin if it was sent before that began to decide, in `init`; else 0.
    pub begins: u64,
}

impl InfoMail {
    /// Bytes of kind and data.
    pub(crate) fn data_bytes(&self) -> usize {
        self.kind.len() + self.data.len()
    }

    /// Whether another one that waits is not needed beside this one, with which a version of the plugin begins: an earlier
    /// version has sent the same.
    pub(super) fn replaces(&self, waiting: &Self) -> bool {
        self.begins != 0
            && self.begins != waiting.begins
            && (self.plugin, &self.target, &self.kind, &self.data)
                == (waiting.plugin, &waiting.target, &waiting.kind, &waiting.data)
    }
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

impl Mail {
    pub(super) fn bytes(&self) -> usize {
        MAIL_OVERHEAD_BYTES
            + match self {
                Self::Publish(message) | Self::Send { message, .. } => message.bytes(),
                Self::Info(info) => info.data_bytes(),
                Self::Disconnect { properties, .. } => properties.len(),
                Self::Answer { answered, .. } => answered.bytes(),
                Self::Query(query) => query.bytes(),
                Self::Subscribe(subscribe) => subscribe.filter.len(),
                Self::CancelTimer { .. } | Self::Reauthorise { .. } | Self::Plan | Self::Limits(_) | Self::Stop => 0,
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
/// Its way stands in a journal. The worker that it comes from is in one byte more.
const IN_TRANSIT: u8 = 0x20;

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

    /// Bytes of memory for encoded messages.
    pub(super) fn capacity(&self) -> usize {
        self.encoded.capacity()
    }

    /// Bytes of requests.
    pub(super) fn mail_bytes(&self) -> usize {
        self.mail_bytes
    }

    /// Appends a message.
    pub fn push(&mut self, destination: Destination, parts: &MessageParts<'_>) {
        self.put(destination, parts, None);
    }

    /// The same for one whose way stands in the journal of the worker `from`.
    pub(super) fn push_in_transit(&mut self, from: u8, destination: Destination, parts: &MessageParts<'_>) {
        self.put(destination, parts, Some(from));
    }

    fn put(&mut self, destination: Destination, parts: &MessageParts<'_>, in_transit: Option<u8>) {
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
        flags |= in_transit.map_or(0, |_| IN_TRANSIT);
        let out = &mut self.encoded;
        out.push(flags);
        out.extend(in_transit);
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

    /// The worker that the message at `at` comes from, if there is one and its way stands in the journal of that.
    #[inline]
    pub(super) fn in_transit_from(&self, at: usize) -> Option<usize> {
        let is_in_transit = self.encoded.get(at)? & IN_TRANSIT != 0;
        if is_in_transit { self.encoded.get(at + 1).map(|from| usize::from(*from)) } else { None }
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

    /// Appends a request.
    pub(super) fn push_mail(&mut self, mail: Mail) {
        self.mail_bytes += mail.bytes();
        self.mails.push(mail);
    }

    /// Appends what is in another one, which is empty then.
    pub(super) fn append(&mut self, other: &mut Self) {
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
        self.take(usize::from(flags & IN_TRANSIT != 0));
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::core) fn parts<'a>(topic: &'a str, payload: &'a [u8]) -> MessageParts<'a> {
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
}
