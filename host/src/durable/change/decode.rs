//! From the bytes of a journal to its changes. They may be anything: they have been on a disk.

use std::fmt;

use plugin_api::QoS;

use super::{
    BODIES, CONNECTED, Change, Delivery, Due, EXPIRES, FROM, FROM_PLUGIN, FROM_SERVER, FROM_WILL, GONE, HAS_GROUP,
    HAS_TOKEN, HEAD_BYTES, INSTEAD, IS_V5, Identifiers, Messages, NO_SECS, ORIGIN, Origin, PACKETS, Packets, QOS,
    RETAIN, SENT_BY_PLUGIN, SHARED, StoredMessage, Terms, kind,
};
use crate::clock::WallMillis;
use crate::codec::{self, Frame, SubscribeOptions};
use crate::message::Source;

/// The changes of a journal, each with the place at which it begins. The first error is the last item.
#[derive(Debug, Clone)]
pub struct Changes<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What is wrong with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeError {
    /// Where it begins, counted from the start of what was decoded.
    pub at: usize,
    /// What was found, and what was expected.
    what: Wrong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// A kind that is none.
    Kind(u8),
    /// There are not so many bytes.
    Cut { kind: u8, got: usize, expected: usize },
    /// A field does not fit into what there is, or is none.
    Field { kind: u8, field: &'static str },
    /// There are bytes behind the last field.
    TooLong { kind: u8, left: usize },
}

impl<'a> Change<'a> {
    /// The change that `bytes` begin with, and how many bytes that is.
    ///
    /// # Errors
    /// A kind that is not known, or a field or length that cannot be.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), ChangeError> {
        decode(bytes).map_err(|what| ChangeError { at: 0, what })
    }
}

impl<'a> Changes<'a> {
    /// Those of a journal, or of several, one behind the other.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where the next one begins.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<(usize, Change<'a>), ChangeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        match decode(rest) {
            Ok((change, bytes)) => {
                self.at += bytes;
                Some(Ok((at, change)))
            }
            Err(what) => {
                self.bytes = &[];
                Some(Err(ChangeError { at, what }))
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Result<(Change<'_>, usize), Wrong> {
    let (&kind, rest) = bytes.split_first().ok_or(Wrong::Cut { kind: 0, got: 0, expected: HEAD_BYTES })?;
    if name(kind).is_none() {
        return Err(Wrong::Kind(kind));
    }
    let cut = |expected| Wrong::Cut { kind, got: bytes.len(), expected };
    let (length, rest) = rest.split_first_chunk().ok_or(cut(HEAD_BYTES))?;
    let length = u32::from_le_bytes(*length) as usize;
    let rest = rest.get(..length).ok_or(cut(HEAD_BYTES.saturating_add(length)))?;
    let mut fields = Fields { kind, rest };
    let change = fields.change()?;
    if fields.rest.is_empty() {
        Ok((change, HEAD_BYTES + length))
    } else {
        Err(Wrong::TooLong { kind, left: fields.rest.len() })
    }
}

/// What is left of the fields of a change.
struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn change(&mut self) -> Result<Change<'a>, Wrong> {
        Ok(match self.kind {
            kind::TURN => Change::Turn { worker: self.short("worker")?, workers: self.short("workers")? },
            kind::BODY => Change::Body { number: self.number("number")?, message: self.message()? },
            kind::BEGAN => {
                let (session, terms) = (self.session()?, self.terms()?);
                Change::Began { session, client_id: self.text_to_end("Client Identifier")?, terms }
            }
            kind::CHANGED => Change::Changed { session: self.session()?, terms: self.terms()? },
            kind::ENDED => Change::Ended { session: self.session()? },
            kind::SUBSCRIBED => {
                let (session, options) = (self.session()?, self.byte("options")?);
                let options = SubscribeOptions::from_byte(options).map_err(|_| self.wrong("options"))?;
                let identifier = self.number("identifier")?;
                Change::Subscribed { session, filter: self.text_to_end("Topic Filter")?, options, identifier }
            }
            kind::UNSUBSCRIBED => {
                Change::Unsubscribed { session: self.session()?, filter: self.text_to_end("Topic Filter")? }
            }
            kind::QUEUED => Change::Queued { session: self.session()?, messages: self.messages()? },
            kind::SENT => {
                let (session, first, count) = self.run()?;
                Change::Sent { session, first, count }
            }
            kind::SENT_NOW => {
                Change::SentNow { session: self.session()?, first: self.packet_id()?, messages: self.messages()? }
            }
            kind::RECEIVED => {
                let (session, first, count) = self.run()?;
                Change::Received { session, first, count }
            }
            kind::ACKNOWLEDGED => {
                let (session, first, count) = self.run()?;
                Change::Acknowledged { session, first, count }
            }
            kind::DROPPED => {
                Change::Dropped { session: self.session()?, place: self.number("place")?, count: self.number("count")? }
            }
            kind::INCOMING => {
                Change::Incoming { session: self.session()?, first: self.packet_id()?, messages: self.messages()? }
            }
            kind::RELEASED => {
                let (session, first, count) = self.run()?;
                Change::Released { session, first, count }
            }
            kind::WILL => self.will()?,
            kind::WILL_GONE => Change::WillGone { session: self.session()? },
            kind::LAST_STATES => Change::LastStates { session: self.session()?, states: self.all() },
            kind::RETAINED => Change::Retained { message: self.message()? },
            kind::RETAINED_GONE => Change::RetainedGone { topic: self.text_to_end("Topic Name")? },
            kind::KEY_VALUE => self.key_value()?,
            kind::TRANSIT => {
                let (from, to) = (self.short("from")?, self.short("to")?);
                let body = self.number("body")?;
                let group = Some(self.text_to_end("group")?).filter(|group| !group.is_empty());
                Change::Transit { from, to, group, body }
            }
            kind::TAKEN => {
                Change::Taken { from: self.short("from")?, to: self.short("to")?, count: self.number("count")? }
            }
            kind => return Err(Wrong::Kind(kind)),
        })
    }

    fn will(&mut self) -> Result<Change<'a>, Wrong> {
        let (session, is_moment, due) = (self.session()?, self.byte("due")?, self.long("due")?);
        let due = match is_moment {
            0 => Due::AfterSecs(u32::try_from(due).map_err(|_| self.wrong("due"))?),
            1 => Due::At(WallMillis(due)),
            _ => return Err(self.wrong("due")),
        };
        let expiry_secs = match self.long("Message Expiry Interval")? {
            NO_SECS => None,
            secs => Some(u32::try_from(secs).map_err(|_| self.wrong("Message Expiry Interval"))?),
        };
        Ok(Change::Will { session, due, expiry_secs, message: self.message()? })
    }

    fn key_value(&mut self) -> Result<Change<'a>, Wrong> {
        let (plugin, key) = (self.short_text("plugin")?, self.short_bytes("key")?);
        let value = match (self.byte("value")?, self.all()) {
            (0, []) => None,
            (1, value) => Some(value),
            _ => return Err(self.wrong("value")),
        };
        Ok(Change::KeyValue { plugin, key, value })
    }

    fn terms(&mut self) -> Result<Terms, Wrong> {
        let (expiry_secs, expiry_secs_max) = (self.number("expiry")?, self.number("longest expiry")?);
        let ends_at = Some(self.long("end")?).filter(|at| *at != CONNECTED).map(WallMillis);
        Ok(Terms { expiry_secs, expiry_secs_max, ends_at, next_packet_id: self.packet_id()? })
    }

    fn message(&mut self) -> Result<StoredMessage<'a>, Wrong> {
        let flags = self.byte("flags")?;
        if flags & !(QOS | RETAIN | FROM | EXPIRES | HAS_TOKEN) != 0 {
            return Err(self.wrong("flags"));
        }
        let source = match flags & FROM {
            FROM_PLUGIN => Source::Plugin { index: self.byte("source")?, hops: self.byte("source")? },
            FROM_WILL => Source::Will,
            FROM_SERVER => Source::Server,
            _ => Source::Client,
        };
        let expires_at = if flags & EXPIRES == 0 { WallMillis::NEVER } else { WallMillis(self.long("expiry")?) };
        let token = if flags & HAS_TOKEN == 0 { 0 } else { self.long("token")? };
        let topic = self.short_text("Topic Name")?;
        let property_bytes = self.number("properties")? as usize;
        let properties = self.take(property_bytes, "properties")?;
        let (qos, retain) = (self.qos(flags)?, flags & RETAIN != 0);
        Ok(StoredMessage { topic, payload: self.all(), properties, qos, retain, expires_at, source, token })
    }

    fn messages(&mut self) -> Result<Messages<'a>, Wrong> {
        match self.byte("messages")? {
            BODIES => {
                let (first, count) = (self.number("body")?, self.count()?);
                first.checked_add(count).ok_or(self.wrong("count"))?;
                Ok(Messages::Bodies { first, count, delivery: self.delivery()? })
            }
            PACKETS => {
                let (flags, count) = (self.byte("flags")?, self.count()?);
                if flags & !(QOS | IS_V5 | HAS_GROUP) != 0 {
                    return Err(self.wrong("flags"));
                }
                let group = if flags & HAS_GROUP == 0 { None } else { Some(self.short_text("group")?) };
                let (qos, is_v5) = (self.qos(flags)?, flags & IS_V5 != 0);
                Ok(Messages::Packets(Packets { qos, is_v5, group, count, bytes: self.all() }))
            }
            GONE => Ok(Messages::Gone { count: self.count()? }),
            _ => Err(self.wrong("messages")),
        }
    }

    fn delivery(&mut self) -> Result<Delivery<'a>, Wrong> {
        let flags = self.byte("flags")?;
        if flags & !(QOS | RETAIN | ORIGIN) != 0 {
            return Err(self.wrong("flags"));
        }
        let origin = match flags & ORIGIN {
            SHARED => Origin::Shared { identifier: self.number("identifier")?, group: self.text_to_end("group")? },
            INSTEAD => {
                let (identifier, published) = (self.number("identifier")?, self.number("body")?);
                Origin::Instead { group: self.text_to_end("group")?, identifier, published }
            }
            SENT_BY_PLUGIN => Origin::Sent,
            _ => {
                let (identifiers, rest) = self.all().as_chunks();
                if !rest.is_empty() {
                    return Err(self.wrong("identifiers"));
                }
                Origin::Subscriptions(Identifiers::Encoded(identifiers))
            }
        };
        Ok(Delivery { qos: self.qos(flags)?, retain: flags & RETAIN != 0, origin })
    }

    fn run(&mut self) -> Result<(u64, u16, u32), Wrong> {
        Ok((self.session()?, self.packet_id()?, self.count()?))
    }

    fn session(&mut self) -> Result<u64, Wrong> {
        self.long("session").and_then(|session| if session == 0 { Err(self.wrong("session")) } else { Ok(session) })
    }

    fn packet_id(&mut self) -> Result<u16, Wrong> {
        let field = "Packet Identifier";
        self.short(field).and_then(|packet_id| if packet_id == 0 { Err(self.wrong(field)) } else { Ok(packet_id) })
    }

    fn count(&mut self) -> Result<u32, Wrong> {
        self.number("count").and_then(|count| if count == 0 { Err(self.wrong("count")) } else { Ok(count) })
    }

    fn qos(&self, flags: u8) -> Result<QoS, Wrong> {
        QoS::from_u8(flags & QOS).ok_or(self.wrong("QoS"))
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, Wrong> {
        self.chunk(field).map(|[byte]| byte)
    }

    fn short(&mut self, field: &'static str) -> Result<u16, Wrong> {
        self.chunk(field).map(u16::from_le_bytes)
    }

    fn number(&mut self, field: &'static str) -> Result<u32, Wrong> {
        self.chunk(field).map(u32::from_le_bytes)
    }

    fn long(&mut self, field: &'static str) -> Result<u64, Wrong> {
        self.chunk(field).map(u64::from_le_bytes)
    }

    fn short_bytes(&mut self, field: &'static str) -> Result<&'a [u8], Wrong> {
        let bytes = usize::from(self.short(field)?);
        self.take(bytes, field)
    }

    fn short_text(&mut self, field: &'static str) -> Result<&'a str, Wrong> {
        let bytes = self.short_bytes(field)?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong(field))
    }

    fn text_to_end(&mut self, field: &'static str) -> Result<&'a str, Wrong> {
        std::str::from_utf8(self.all()).map_err(|_| self.wrong(field))
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn chunk<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Wrong> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(self.wrong(field))?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn take(&mut self, bytes: usize, field: &'static str) -> Result<&'a [u8], Wrong> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(self.wrong(field))?;
        self.rest = rest;
        Ok(taken)
    }

    fn wrong(&self, field: &'static str) -> Wrong {
        Wrong::Field { kind: self.kind, field }
    }
}

/// One of some [`Packets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The whole packet.
    pub bytes: &'a [u8],
    /// Its Topic Name.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> Packets<'a> {
    /// Each of them. `None`, behind which nothing comes, in the place of the first that is no such packet, and behind the last
    /// if there are more bytes.
    pub fn each(&self) -> impl Iterator<Item = Option<Packet<'a>>> {
        let (packets, mut rest, mut left) = (*self, self.bytes, self.count);
        std::iter::from_fn(move || {
            if left == 0 && rest.is_empty() {
                return None;
            }
            let packet = if left > 0 { packets.first(rest) } else { None };
            left = packet.map_or(0, |_| left - 1);
            rest = packet.map_or(&[], |packet| &rest[packet.bytes.len()..]);
            Some(packet)
        })
    }

    /// The packet that `bytes` begin with.
    fn first(&self, bytes: &'a [u8]) -> Option<Packet<'a>> {
        let frame = codec::frame(bytes, codec::PACKET_BYTES_MAX).ok()?;
        let Frame::Complete { header_bytes, total_bytes } = frame else { return None };
        let bytes = &bytes[..total_bytes];
        let version = if self.is_v5 { codec::ProtocolVersion::V5 } else { codec::ProtocolVersion::V3_1_1 };
        let publish = codec::decode_publish(version, bytes, header_bytes, None).ok()?;
        let is_plain = publish.qos == self.qos && !publish.dup && !publish.retain && publish.properties.is_empty();
        is_plain.then_some(Packet { bytes, topic: publish.topic, payload: publish.payload })
    }
}

/// The name of a kind.
fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        kind::TURN => "Turn",
        kind::BODY => "Body",
        kind::BEGAN => "Began",
        kind::CHANGED => "Changed",
        kind::ENDED => "Ended",
        kind::SUBSCRIBED => "Subscribed",
        kind::UNSUBSCRIBED => "Unsubscribed",
        kind::QUEUED => "Queued",
        kind::SENT => "Sent",
        kind::SENT_NOW => "SentNow",
        kind::RECEIVED => "Received",
        kind::ACKNOWLEDGED => "Acknowledged",
        kind::DROPPED => "Dropped",
        kind::INCOMING => "Incoming",
        kind::RELEASED => "Released",
        kind::WILL => "Will",
        kind::WILL_GONE => "WillGone",
        kind::LAST_STATES => "LastStates",
        kind::RETAINED => "Retained",
        kind::RETAINED_GONE => "RetainedGone",
        kind::KEY_VALUE => "KeyValue",
        kind::TRANSIT => "Transit",
        kind::TAKEN => "Taken",
        _ => return None,
    })
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |kind| name(kind).unwrap_or("change");
        write!(f, "at byte {}: ", self.at)?;
        match self.what {
            Wrong::Kind(kind) => write!(f, "the kind of change {kind} is not known, expected 1 to {}", kind::TAKEN),
            Wrong::Cut { kind, got, expected } => {
                write!(f, "{} of {expected} bytes is cut off: there are {got} bytes", of(kind))
            }
            Wrong::Field { kind, field } => write!(f, "the {field} of {} is not what it can be", of(kind)),
            Wrong::TooLong { kind, left } => write!(f, "{left} bytes too many are in {}", of(kind)),
        }
    }
}

impl std::error::Error for ChangeError {}
