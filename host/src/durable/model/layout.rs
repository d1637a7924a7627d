//! Keys and records of a checkpoint.
//!
//! | key | value |
//! | --- | --- |
//! | `h` | [`Head`]: the version of all this, and the place in the journal up to which it goes |
//! | `s`, session | what is kept of a session: `Began`, which items it has, and which of their messages are where |
//! | `d`, session, `f`, Topic Filter | `Subscribed` |
//! | `d`, session, `i`, item | messages: bodies, and `Queued` wherever they are |
//! | `d`, session, `l` | `LastStates` |
//! | `d`, session, `w` | `Will` |
//! | `b`, number | `Body` that several items refer to |
//! | `r`, Topic Name | `Retained` |
//! | `t`, from, to, number | `Turn`, `Body`, `Transit` |
//! | `v`, length of the plugin's name, name, key | `KeyValue` |
//!
//! Names that are longer than keys may be are 0xFF and a hash there. Numbers in keys are big-endian, so that they stand in their order; in values they are little-endian. Values but for the first
//! two are [changes](crate::durable::change).

use std::fmt;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::runs::{Numbered, Run, Source};
use super::session::Kept;
use super::{Model, OnWay};
use crate::durable::change::Change;

/// The version of the layout. A checkpoint of another one is migrated, or refused.
pub const VERSION: u32 = 1;

/// The key of the [`Head`].
pub const HEAD_KEY: &[u8] = b"h";

/// What keys begin with. These are of sessions.
pub const SESSIONS: &[u8] = b"s";
/// What else there is of sessions.
pub const DETAILS: &[u8] = b"d";
/// Bodies that several items refer to.
pub const BODIES: &[u8] = b"b";
/// Retained messages.
pub const RETAINED: &[u8] = b"r";
/// Messages on their way between workers.
pub const TRANSIT: &[u8] = b"t";
/// What plugins keep.
pub const VALUES: &[u8] = b"v";

/// What stands behind the session's number in the keys of its details.
pub(crate) const FILTER: u8 = b'f';
pub(crate) const ITEM: u8 = b'i';
pub(crate) const LAST_STATES: u8 = b'l';
pub(crate) const WILL: u8 = b'w';

/// A place in the journal between two changes, in the words of who keeps it.
pub type UpTo = [u64; 3];

/// Bytes of a name that is in a key: keys have 65,535 at most.
const NAME_BYTES_MAX: usize = 65_000;

/// What is said of a whole checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The journal from there on is not in it: what its keeper has said to [`freeze`](Model::freeze).
    pub up_to: UpTo,
    /// How many workers there were.
    pub workers: u16,
    /// The number of the next body that several items refer to.
    pub next_shared: u64,
}

impl Head {
    /// The value of [`HEAD_KEY`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { up_to, workers, next_shared } = self;
        let up_to = up_to.map(u64::to_le_bytes).concat();
        [&VERSION.to_le_bytes()[..], &up_to, &workers.to_le_bytes(), &next_shared.to_le_bytes()].concat()
    }

    /// The version that a checkpoint has, whichever it is.
    #[must_use]
    pub fn version(bytes: &[u8]) -> Option<u32> {
        bytes.first_chunk().map(|version| u32::from_le_bytes(*version))
    }

    /// The head of a checkpoint of this [`VERSION`].
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        match Self::version(bytes) {
            Some(VERSION) => Self::decode_fields(bytes),
            _ => Err(LayoutError("another version")),
        }
    }

    /// The head of a checkpoint of this version, or of 0, where the fields are the same.
    ///
    /// # Errors
    /// It is none.
    pub fn decode_fields(bytes: &[u8]) -> Result<Self, LayoutError> {
        let mut fields = Fields { rest: bytes };
        fields.number()?;
        let up_to = [fields.long()?, fields.long()?, fields.long()?];
        let head = Self { up_to, workers: fields.short()?, next_shared: fields.long()? };
        fields.end()?;
        Ok(head)
    }
}

/// Bytes that are no such record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutError(&'static str);

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for LayoutError {}

fn key(kind: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut key = kind.to_vec();
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// A key that ends with a name. One that is longer than keys may be is not there as it is: nobody asks for it by this.
fn named(mut key: Vec<u8>, name: &[&[u8]]) -> Vec<u8> {
    let start = key.len();
    name.iter().for_each(|part| key.extend_from_slice(part));
    if key.len() - start > NAME_BYTES_MAX {
        let hashes = [1, 2].map(|seed| FixedState::with_seed(seed).hash_one(&key[start..]).to_be_bytes());
        key.truncate(start);
        // No text begins so.
        key.push(0xFF);
        key.extend(hashes.as_flattened());
    }
    key
}

/// In which order the keys of two names stand that begin alike.
pub(crate) fn compare(one: &str, other: &str) -> std::cmp::Ordering {
    if one.len().max(other.len()) <= NAME_BYTES_MAX {
        return one.cmp(other);
    }
    named(Vec::new(), &[one.as_bytes()]).cmp(&named(Vec::new(), &[other.as_bytes()]))
}

pub(super) fn session_key(session: u64) -> Vec<u8> {
    key(SESSIONS, &[&session.to_be_bytes()])
}

pub(crate) fn details_key(session: u64) -> Vec<u8> {
    key(DETAILS, &[&session.to_be_bytes()])
}

pub(super) fn subscription_key(session: u64, filter: &str) -> Vec<u8> {
    named(key(DETAILS, &[&session.to_be_bytes(), &[FILTER]]), &[filter.as_bytes()])
}

pub(crate) fn item_key(session: u64, item: u32) -> Vec<u8> {
    key(DETAILS, &[&session.to_be_bytes(), &[ITEM], &item.to_be_bytes()])
}

pub(super) fn last_states_key(session: u64) -> Vec<u8> {
    key(DETAILS, &[&session.to_be_bytes(), &[LAST_STATES]])
}

pub(super) fn will_key(session: u64) -> Vec<u8> {
    key(DETAILS, &[&session.to_be_bytes(), &[WILL]])
}

pub(crate) fn body_key(number: u64) -> Vec<u8> {
    key(BODIES, &[&number.to_be_bytes()])
}

pub(super) fn retained_key(topic: &str) -> Vec<u8> {
    named(key(RETAINED, &[]), &[topic.as_bytes()])
}

pub(crate) fn value_key(plugin: &str, name: &[u8]) -> Vec<u8> {
    let length = u16::try_from(plugin.len()).unwrap_or(u16::MAX);
    named(key(VALUES, &[]), &[&length.to_be_bytes(), plugin.as_bytes(), name])
}

pub(crate) fn transit_key(from: u16, to: u16, number: u64) -> Vec<u8> {
    key(TRANSIT, &[&from.to_be_bytes(), &to.to_be_bytes(), &number.to_be_bytes()])
}

/// What stands for no item.
const GONE: u32 = u32::MAX;

const HAS_WILL: u8 = 1;
const HAS_LAST_STATES: u8 = 2;

/// The record of a session, all of whose messages are in items.
pub(super) fn encode(session: u64, kept: &Kept) -> Vec<u8> {
    let mut out = Vec::new();
    Change::Began { session, client_id: &kept.client_id, terms: kept.terms }.encode(&mut out);
    let flag = |set: bool, flag| if set { flag } else { 0 };
    out.push(flag(kept.will.is_stored, HAS_WILL) | flag(kept.last_states.is_stored, HAS_LAST_STATES));
    out.extend_from_slice(&kept.items.next.to_le_bytes());
    put_count(&mut out, kept.items.all.len());
    for item in &kept.items.all {
        out.extend_from_slice(&item.number.to_le_bytes());
        let shared = item.shared.as_deref().unwrap_or_default();
        put_count(&mut out, shared.len());
        shared.iter().for_each(|body| out.extend_from_slice(&body.to_le_bytes()));
    }
    put_count(&mut out, kept.in_flight.0.len());
    for Numbered { first, run } in &kept.in_flight.0 {
        out.extend_from_slice(&first.to_le_bytes());
        put_run(&mut out, run);
    }
    put_count(&mut out, kept.queue.len());
    kept.queue.iter().for_each(|run| put_run(&mut out, run));
    put_count(&mut out, kept.incoming.0.len());
    for (first, run) in &kept.incoming.0 {
        out.extend_from_slice(&first.to_le_bytes());
        put_run(&mut out, run);
    }
    out
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_run(out: &mut Vec<u8>, run: &Run) {
    let item = if let Source::Item(item) = run.source { item } else { GONE };
    [item, run.from, run.count].iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

impl Model {
    /// A model that knows what a checkpoint says of the whole. [`add_session`](Self::add_session) and
    /// [`add_transit`](Self::add_transit) follow, and then what the journal has behind it.
    #[must_use]
    pub fn new(head: &Head) -> Self {
        Self { workers: head.workers, next_shared: head.next_shared, ..Self::default() }
    }

    /// Adds a session, as it stands in a checkpoint.
    ///
    /// # Errors
    /// It is none, or there is one with this number.
    pub fn add_session(&mut self, key: &[u8], value: &[u8]) -> Result<(), LayoutError> {
        let (change, bytes) = Change::decode(value).map_err(|_| LayoutError("its first change is none"))?;
        let Change::Began { session, client_id, terms } = change else {
            return Err(LayoutError("its first change is not Began"));
        };
        if key != session_key(session) {
            return Err(LayoutError("it has another number than its key"));
        }
        let mut kept = Kept::new(client_id.into(), terms);
        kept.is_stored = true;
        Fields { rest: &value[bytes..] }.session(&mut kept)?;
        for body in kept.items.shared() {
            *self.shared.entry(body).or_default() += 1;
        }
        match self.sessions.insert(session, kept) {
            None => Ok(()),
            Some(_) => Err(LayoutError("it is there twice")),
        }
    }

    /// Adds a message on its way, as it stands in a checkpoint. They come in the order of their keys.
    ///
    /// # Errors
    /// It is none.
    pub fn add_transit(&mut self, key: &[u8]) -> Result<(), LayoutError> {
        let wrong = LayoutError("its key is none");
        let rest = key.strip_prefix(TRANSIT).ok_or(wrong)?;
        let (from, rest) = rest.split_first_chunk().ok_or(wrong)?;
        let (to, rest) = rest.split_first_chunk().ok_or(wrong)?;
        let number = u64::from_be_bytes(rest.try_into().map_err(|_| wrong)?);
        let way = self.transit.entry((u16::from_be_bytes(*from), u16::from_be_bytes(*to))).or_default();
        if way.messages.is_empty() {
            way.first = number;
        }
        if way.first + way.messages.len() as u64 != number {
            return Err(LayoutError("one before it is missing"));
        }
        way.messages.push_back(OnWay::Stored);
        Ok(())
    }
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn session(&mut self, kept: &mut Kept) -> Result<(), LayoutError> {
        let [flags] = self.chunk()?;
        kept.will.is_stored = flags & HAS_WILL != 0;
        kept.last_states.is_stored = flags & HAS_LAST_STATES != 0;
        kept.items.next = self.number()?;
        for _ in 0..self.number()? {
            let (number, shared) = (self.number()?, self.number()?);
            let shared: Result<Vec<u64>, _> = (0..shared).map(|_| self.long()).collect();
            kept.items.add_stored(number, shared?).ok_or(LayoutError("its items are in no order"))?;
        }
        for _ in 0..self.number()? {
            let (first, run) = (self.short()?, self.run(kept)?);
            kept.in_flight.0.push_back(Numbered { first, run });
        }
        for _ in 0..self.number()? {
            let run = self.run(kept)?;
            kept.queue.push_back(run);
        }
        for _ in 0..self.number()? {
            let (first, run) = (self.short()?, self.run(kept)?);
            kept.incoming.0.insert(first, run);
        }
        if kept.items.all.iter().any(|item| item.left == 0) {
            return Err(LayoutError("it has an item that nothing refers to"));
        }
        self.end()
    }

    fn run(&mut self, kept: &mut Kept) -> Result<Run, LayoutError> {
        let (item, from, count) = (self.number()?, self.number()?, self.number()?);
        if count == 0 || from.checked_add(count).is_none() {
            return Err(LayoutError("it has a run of no messages"));
        }
        let source = if item == GONE { Source::Gone } else { Source::Item(item) };
        if item != GONE {
            kept.items.refer(item, count).ok_or(LayoutError("it has no item that a run refers to"))?;
        }
        Ok(Run { source, from, count })
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], LayoutError> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(LayoutError("it is cut off"))?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn short(&mut self) -> Result<u16, LayoutError> {
        self.chunk().map(u16::from_le_bytes)
    }

    fn number(&mut self) -> Result<u32, LayoutError> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Result<u64, LayoutError> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn end(&self) -> Result<(), LayoutError> {
        if self.rest.is_empty() { Ok(()) } else { Err(LayoutError("there are bytes behind its last field")) }
    }
}
