//! A [`Change`] of what is kept: one step of a state machine, and its form in a journal.
//!
//! A *journal* is what one worker has changed in one turn: [`Change::Turn`], then the changes in their order, one behind the
//! other. It is applied as a whole or not at all. Journals of one store have one total order, in which a cause stands before
//! its effect, so that each prefix of them is a state that there could have been.
//!
//! Messages are not named: who applies all changes knows by itself what is at the front of a session's queue, or in flight
//! with a Packet Identifier. What is written once for many is a [`Change::Body`], which counts for the journal that it is in.
//! Messages with QoS 0 are not kept, and are in no queue here.
//!
//! A change is one byte for its kind, four for the length of what follows, and that. Numbers are little-endian.

mod decode;
#[cfg(test)]
mod tests;

use plugin_api::QoS;

pub use self::decode::{ChangeError, Changes, Packet};
use crate::clock::WallMillis;
use crate::codec::SubscribeOptions;
use crate::message::Source;

/// One step. Sessions have numbers that no two of one store ever have; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change<'a> {
    /// A journal begins: one worker's changes of one turn. Numbers of bodies begin anew.
    Turn {
        /// The worker, and how many there are.
        worker: u16,
        /// See [`owner_of`](crate::core::owner_of): what was whose follows from it.
        workers: u16,
    },
    /// A message that changes of this journal refer to.
    Body {
        /// Its number: bodies are numbered from 0 on.
        number: u32,
        /// What it is.
        message: StoredMessage<'a>,
    },
    /// A session begins, and has nothing yet. There is no other of this client.
    Began {
        /// The session.
        session: u64,
        /// Its Client Identifier.
        client_id: &'a str,
        /// What else is kept of it.
        terms: Terms,
    },
    /// A session's client has come or gone.
    Changed {
        /// The session.
        session: u64,
        /// What is kept of it from now on.
        terms: Terms,
    },
    /// A session has ended, and all that is its.
    Ended {
        /// The session.
        session: u64,
    },
    /// A subscription was made, or has replaced the one of the same filter.
    Subscribed {
        /// The session.
        session: u64,
        /// Topic Filter as the client wrote it, `$share/…` included.
        filter: &'a str,
        /// With the QoS that was granted.
        options: SubscribeOptions,
        /// Subscription Identifier, 0 for none.
        identifier: u32,
    },
    /// A subscription has ended.
    Unsubscribed {
        /// The session.
        session: u64,
        /// Topic Filter as the client wrote it.
        filter: &'a str,
    },
    /// Messages wait in a session's queue, behind all others.
    Queued {
        /// The session.
        session: u64,
        /// The messages.
        messages: Messages<'a>,
    },
    /// The first messages of a session's queue are in flight, behind all others, and in the queue no more.
    Sent {
        /// The session.
        session: u64,
        /// Packet Identifier of the first; the others have the following ones.
        first: u16,
        /// How many.
        count: u32,
    },
    /// Messages are in flight, behind all others, that have not been in the queue.
    SentNow {
        /// The session.
        session: u64,
        /// Packet Identifier of the first.
        first: u16,
        /// The messages. [`Messages::Gone`]: PUBREC has come for them.
        messages: Messages<'a>,
    },
    /// PUBREC has come: messages in flight wait for PUBCOMP, and are not sent again.
    Received {
        /// The session.
        session: u64,
        /// Packet Identifier of the first.
        first: u16,
        /// How many.
        count: u32,
    },
    /// Messages in flight are acknowledged completely, or are not to be sent again for another reason.
    Acknowledged {
        /// The session.
        session: u64,
        /// Packet Identifier of the first.
        first: u16,
        /// How many.
        count: u32,
    },
    /// Messages are in a session's queue no more, and are sent to nobody.
    Dropped {
        /// The session.
        session: u64,
        /// How many messages are before them in the queue.
        place: u32,
        /// How many.
        count: u32,
    },
    /// QoS 2 messages of a session's client were accepted and are not released. Bodies are of QoS 2, or of less where a
    /// handler has made them so; how they are delivered says nothing here.
    Incoming {
        /// The session.
        session: u64,
        /// Packet Identifier of the first.
        first: u16,
        /// The messages. [`Messages::Gone`]: a handler has taken them.
        messages: Messages<'a>,
    },
    /// PUBREL has come for such messages, or they have gone on for another reason.
    Released {
        /// The session.
        session: u64,
        /// Packet Identifier of the first.
        first: u16,
        /// How many.
        count: u32,
    },
    /// A session has a Will Message that may still be published; it takes the place of one that was there.
    Will {
        /// The session.
        session: u64,
        /// When it is published.
        due: Due,
        /// Message Expiry Interval in seconds, which begins when it is published.
        expiry_secs: Option<u32>,
        /// What it is. It does not expire before it is published.
        message: StoredMessage<'a>,
    },
    /// A session has no Will Message any more.
    WillGone {
        /// The session.
        session: u64,
    },
    /// What handlers have exported for the end of a session, whose client has gone, and for its will. Empty: nothing, or no more.
    LastStates {
        /// The session.
        session: u64,
        /// See [`LastStates`](crate::plugin::LastStates).
        states: &'a [u8],
    },
    /// The retained message of its topic.
    Retained {
        /// What it is.
        message: StoredMessage<'a>,
    },
    /// A topic has no retained message any more.
    RetainedGone {
        /// The topic.
        topic: &'a str,
    },
    /// What a plugin keeps by a key.
    KeyValue {
        /// The plugin's name.
        plugin: &'a str,
        /// The key.
        key: &'a [u8],
        /// `None`: nothing any more.
        value: Option<&'a [u8]>,
    },
    /// A message is on its way from one worker to the sessions of another one, behind those that are already.
    Transit {
        /// The worker that it comes from.
        from: u16,
        /// The worker whose sessions get it: see [`owner_of`](crate::core::owner_of). It may be `from` itself, where the member
        /// of a Shared Subscription that had it is gone.
        to: u16,
        /// The Shared Subscription that it is for, `$share/…` included: one member gets it. `None`: all other subscriptions.
        group: Option<&'a str>,
        /// The number of its body.
        body: u32,
    },
    /// The first messages on this way have come to where the changes of this journal say.
    Taken {
        /// The worker that they come from.
        from: u16,
        /// The worker that they have come to.
        to: u16,
        /// How many.
        count: u32,
    },
}

/// What is kept of a session besides its messages and subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Session Expiry Interval in seconds, [`u32::MAX`] for ever.
    pub expiry_secs: u32,
    /// The longest that the client may ask for when it disconnects.
    pub expiry_secs_max: u32,
    /// When it ends; `None` while the client is connected, after which the interval begins.
    pub ends_at: Option<WallMillis>,
    /// The next Packet Identifier. Later on it is the one behind those that were sent.
    pub next_packet_id: u16,
}

/// When a Will Message is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// So many seconds after the client is lost: it is connected.
    AfterSecs(u32),
    /// Then.
    At(WallMillis),
}

/// A message as it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredMessage<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// Application payload.
    pub payload: &'a [u8],
    /// Encoded properties, see [`MessageParts::properties`](crate::message::MessageParts::properties).
    pub properties: &'a [u8],
    /// QoS that it was published with.
    pub qos: QoS,
    /// RETAIN as it was published.
    pub retain: bool,
    /// When it expires, [`WallMillis::NEVER`] if it does not.
    pub expires_at: WallMillis,
    /// Who published it.
    pub source: Source,
    /// The token that its plugin sent it with; 0 for none.
    pub token: u64,
}

/// Messages for one session, in their order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Messages<'a> {
    /// Those with these bodies of the journal.
    Bodies {
        /// The number of the first.
        first: u32,
        /// How many.
        count: u32,
        /// How all of them are delivered.
        delivery: Delivery<'a>,
    },
    /// Those of some packets.
    Packets(Packets<'a>),
    /// So many of which nothing has to be known any more.
    Gone {
        /// How many.
        count: u32,
    },
}

/// How a message is delivered to a session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delivery<'a> {
    /// QoS of the packet: 1 or 2.
    pub qos: QoS,
    /// RETAIN of the packet.
    pub retain: bool,
    /// Why the session gets it.
    pub origin: Origin<'a>,
}

/// The subscriptions by which a session gets a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Origin<'a> {
    /// Those that are not shared.
    Subscriptions(Identifiers<'a>),
    /// A Shared Subscription.
    Shared {
        /// As the client wrote it.
        group: &'a str,
        /// Subscription Identifier, 0 for none.
        identifier: u32,
    },
    /// The same, where a handler has put another message in the place of the one that was published.
    Instead {
        /// As the client wrote it.
        group: &'a str,
        /// Subscription Identifier, 0 for none.
        identifier: u32,
        /// The body of what was published, which goes to another member if this one does not acknowledge.
        published: u32,
    },
    /// None: a plugin has sent it to this client.
    Sent,
}

/// Subscription Identifiers.
#[derive(Debug, Clone, Copy)]
pub enum Identifiers<'a> {
    /// To be encoded.
    List(&'a [u32]),
    /// As they were encoded, four bytes each.
    Encoded(&'a [[u8; 4]]),
}

/// PUBLISH packets with QoS 1 or 2, one behind the other, without DUP, RETAIN and properties, in their shortest form, as
/// clients have sent them. They are delivered with just this QoS, without a Subscription Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packets<'a> {
    /// QoS of each.
    pub qos: QoS,
    /// Whether they have a list of properties, which is empty.
    pub is_v5: bool,
    /// The Shared Subscription by which the session gets them, as its client wrote it.
    pub group: Option<&'a str>,
    /// How many.
    pub count: u32,
    /// The packets. Their Packet Identifiers say nothing.
    pub bytes: &'a [u8],
}

/// The numbers of the kinds. They never change their meaning; new ones are added behind the last.
mod kind {
    pub(super) const TURN: u8 = 1;
    pub(super) const BODY: u8 = 2;
    pub(super) const BEGAN: u8 = 3;
    pub(super) const CHANGED: u8 = 4;
    pub(super) const ENDED: u8 = 5;
    pub(super) const SUBSCRIBED: u8 = 6;
    pub(super) const UNSUBSCRIBED: u8 = 7;
    pub(super) const QUEUED: u8 = 8;
    pub(super) const SENT: u8 = 9;
    pub(super) const SENT_NOW: u8 = 10;
    pub(super) const RECEIVED: u8 = 11;
    pub(super) const ACKNOWLEDGED: u8 = 12;
    pub(super) const DROPPED: u8 = 13;
    pub(super) const INCOMING: u8 = 14;
    pub(super) const RELEASED: u8 = 15;
    pub(super) const WILL: u8 = 16;
    pub(super) const WILL_GONE: u8 = 17;
    pub(super) const LAST_STATES: u8 = 18;
    pub(super) const RETAINED: u8 = 19;
    pub(super) const RETAINED_GONE: u8 = 20;
    pub(super) const KEY_VALUE: u8 = 21;
    pub(super) const TRANSIT: u8 = 22;
    pub(super) const TAKEN: u8 = 23;
}

/// Which [`Messages`] there are.
const BODIES: u8 = 0;
const PACKETS: u8 = 1;
const GONE: u8 = 2;

/// Flags of [`Packets`] and of [`Delivery`]. The QoS is in the two lowest bits.
const QOS: u8 = 0x03;
const IS_V5: u8 = 0x04;
const HAS_GROUP: u8 = 0x08;
const RETAIN: u8 = 0x04;
const SHARED: u8 = 0x08;
const INSTEAD: u8 = 0x10;
const SENT_BY_PLUGIN: u8 = 0x18;
const ORIGIN: u8 = 0x18;

/// Flags of a [`StoredMessage`], besides its QoS and [`RETAIN`].
const FROM_PLUGIN: u8 = 0x08;
const FROM_WILL: u8 = 0x10;
const FROM_SERVER: u8 = 0x18;
const FROM: u8 = 0x18;
const EXPIRES: u8 = 0x20;
const HAS_TOKEN: u8 = 0x40;

/// What stands for no Message Expiry Interval, and for a moment that has no number.
const NO_SECS: u64 = u64::MAX;
const CONNECTED: u64 = u64::MAX - 1;

impl Change<'_> {
    /// Appends the change to a journal.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        self.encode_fields(out);
        let length = length(out.len() - start - HEAD_BYTES);
        out[start + 1..start + HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Turn { .. } => kind::TURN,
            Self::Body { .. } => kind::BODY,
            Self::Began { .. } => kind::BEGAN,
            Self::Changed { .. } => kind::CHANGED,
            Self::Ended { .. } => kind::ENDED,
            Self::Subscribed { .. } => kind::SUBSCRIBED,
            Self::Unsubscribed { .. } => kind::UNSUBSCRIBED,
            Self::Queued { .. } => kind::QUEUED,
            Self::Sent { .. } => kind::SENT,
            Self::SentNow { .. } => kind::SENT_NOW,
            Self::Received { .. } => kind::RECEIVED,
            Self::Acknowledged { .. } => kind::ACKNOWLEDGED,
            Self::Dropped { .. } => kind::DROPPED,
            Self::Incoming { .. } => kind::INCOMING,
            Self::Released { .. } => kind::RELEASED,
            Self::Will { .. } => kind::WILL,
            Self::WillGone { .. } => kind::WILL_GONE,
            Self::LastStates { .. } => kind::LAST_STATES,
            Self::Retained { .. } => kind::RETAINED,
            Self::RetainedGone { .. } => kind::RETAINED_GONE,
            Self::KeyValue { .. } => kind::KEY_VALUE,
            Self::Transit { .. } => kind::TRANSIT,
            Self::Taken { .. } => kind::TAKEN,
        }
    }

    #[inline]
    fn encode_fields(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Turn { worker, workers } => put(out, &[&worker.to_le_bytes(), &workers.to_le_bytes()]),
            Self::Body { number, ref message } => {
                put(out, &[&number.to_le_bytes()]);
                message.encode(out);
            }
            Self::Began { session, client_id, ref terms } => {
                put(out, &[&session.to_le_bytes()]);
                terms.encode(out);
                put(out, &[client_id.as_bytes()]);
            }
            Self::Changed { session, ref terms } => {
                put(out, &[&session.to_le_bytes()]);
                terms.encode(out);
            }
            Self::Ended { session } | Self::WillGone { session } => put(out, &[&session.to_le_bytes()]),
            Self::Subscribed { session, filter, options, identifier } => {
                let options = [options.to_byte()];
                put(out, &[&session.to_le_bytes(), &options, &identifier.to_le_bytes(), filter.as_bytes()]);
            }
            Self::Unsubscribed { session, filter } => put(out, &[&session.to_le_bytes(), filter.as_bytes()]),
            Self::Queued { session, ref messages } => {
                put(out, &[&session.to_le_bytes()]);
                messages.encode(out);
            }
            Self::SentNow { session, first, ref messages } | Self::Incoming { session, first, ref messages } => {
                put(out, &[&session.to_le_bytes(), &first.to_le_bytes()]);
                messages.encode(out);
            }
            Self::Sent { session, first, count }
            | Self::Received { session, first, count }
            | Self::Acknowledged { session, first, count }
            | Self::Released { session, first, count } => {
                put(out, &[&session.to_le_bytes(), &first.to_le_bytes(), &count.to_le_bytes()]);
            }
            Self::Dropped { session, place, count } => {
                put(out, &[&session.to_le_bytes(), &place.to_le_bytes(), &count.to_le_bytes()]);
            }
            Self::Will { session, due, expiry_secs, ref message } => {
                let (is_moment, due) = match due {
                    Due::AfterSecs(secs) => (0, u64::from(secs)),
                    Due::At(at) => (1, at.0),
                };
                let expiry_secs = expiry_secs.map_or(NO_SECS, u64::from);
                put(out, &[&session.to_le_bytes(), &[is_moment], &due.to_le_bytes(), &expiry_secs.to_le_bytes()]);
                message.encode(out);
            }
            Self::LastStates { session, states } => put(out, &[&session.to_le_bytes(), states]),
            Self::Retained { ref message } => message.encode(out),
            Self::RetainedGone { topic } => put(out, &[topic.as_bytes()]),
            Self::KeyValue { plugin, key, value } => {
                put_short(out, plugin.as_bytes());
                put_short(out, key);
                put(out, &[&[u8::from(value.is_some())], value.unwrap_or_default()]);
            }
            Self::Transit { from, to, group, body } => {
                put(out, &[&from.to_le_bytes(), &to.to_le_bytes(), &body.to_le_bytes()]);
                put(out, &[group.unwrap_or_default().as_bytes()]);
            }
            Self::Taken { from, to, count } => {
                put(out, &[&from.to_le_bytes(), &to.to_le_bytes(), &count.to_le_bytes()]);
            }
        }
    }
}

/// What stands before the fields of a change.
const HEAD_BYTES: usize = 5;

impl Terms {
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, &[&self.expiry_secs.to_le_bytes(), &self.expiry_secs_max.to_le_bytes()]);
        let ends_at = self.ends_at.map_or(CONNECTED, |at| at.0);
        put(out, &[&ends_at.to_le_bytes(), &self.next_packet_id.to_le_bytes()]);
    }
}

impl StoredMessage<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag| if set { flag } else { 0 };
        let from = match self.source {
            Source::Client => 0,
            Source::Plugin { .. } => FROM_PLUGIN,
            Source::Will => FROM_WILL,
            Source::Server => FROM_SERVER,
        };
        let expires = self.expires_at != WallMillis::NEVER;
        let flags = self.qos as u8
            | flag(self.retain, RETAIN)
            | from
            | flag(expires, EXPIRES)
            | flag(self.token != 0, HAS_TOKEN);
        out.push(flags);
        if let Source::Plugin { index, hops } = self.source {
            out.extend_from_slice(&[index, hops]);
        }
        if expires {
            out.extend_from_slice(&self.expires_at.0.to_le_bytes());
        }
        if self.token != 0 {
            out.extend_from_slice(&self.token.to_le_bytes());
        }
        put_short(out, self.topic.as_bytes());
        put(out, &[&length(self.properties.len()).to_le_bytes(), self.properties, self.payload]);
    }
}

impl Messages<'_> {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Self::Bodies { count, .. } | Self::Packets(Packets { count, .. }) | Self::Gone { count } => *count,
        }
    }

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bodies { first, count, delivery } => {
                put(out, &[&[BODIES], &first.to_le_bytes(), &count.to_le_bytes()]);
                delivery.encode(out);
            }
            Self::Packets(packets) => {
                let group = packets.group.map_or(0, |_| HAS_GROUP);
                let flags = packets.qos as u8 | if packets.is_v5 { IS_V5 } else { 0 } | group;
                put(out, &[&[PACKETS, flags], &packets.count.to_le_bytes()]);
                if let Some(group) = packets.group {
                    put_short(out, group.as_bytes());
                }
                out.extend_from_slice(packets.bytes);
            }
            Self::Gone { count } => put(out, &[&[GONE], &count.to_le_bytes()]),
        }
    }
}

impl Delivery<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let flags = self.qos as u8 | if self.retain { RETAIN } else { 0 };
        match self.origin {
            Origin::Subscriptions(identifiers) => {
                out.push(flags);
                identifiers.iter().for_each(|identifier| out.extend_from_slice(&identifier.to_le_bytes()));
            }
            Origin::Shared { group, identifier } => {
                put(out, &[&[flags | SHARED], &identifier.to_le_bytes(), group.as_bytes()]);
            }
            Origin::Instead { group, identifier, published } => {
                let numbers = [identifier.to_le_bytes(), published.to_le_bytes()];
                put(out, &[&[flags | INSTEAD], &numbers.concat(), group.as_bytes()]);
            }
            Origin::Sent => out.push(flags | SENT_BY_PLUGIN),
        }
    }
}

impl Identifiers<'_> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let (list, encoded): (&[u32], &[[u8; 4]]) = match self {
            Self::List(list) => (list, &[]),
            Self::Encoded(encoded) => (&[], encoded),
        };
        list.iter().copied().chain(encoded.iter().map(|bytes| u32::from_le_bytes(*bytes)))
    }
}

impl PartialEq for Identifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[inline]
fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Text that has at most 65,535 bytes, as its length goes before it.
fn put_short(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).expect("a string of the protocol, or a name or key of a plugin");
    put(out, &[&length.to_le_bytes(), text]);
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what one packet, or the packets of one read, have brought")
}
