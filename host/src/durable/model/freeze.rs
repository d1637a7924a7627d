//! From what has changed to what a checkpoint has to do.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;

use foldhash::fast::RandomState;

use super::layout::{self, UpTo};
use super::runs::{InFlight, Run, Source};
use super::session::{Kept, Part};
use super::{Model, OnWay, Place};
use crate::durable::compose::{self, ReadJournal};

/// An item of a checkpoint has so many messages, or so many bytes, or one change that has more.
const ITEM_MESSAGES_MAX: u32 = 64;
const ITEM_BYTES_MAX: u64 = 32 << 10;

/// A body that several sessions have is kept once from so many bytes on. Below, to find it costs more than it takes.
const SHARED_BYTES_MIN: u32 = 256;

/// What a checkpoint has to do, in one atomic step, to have everything up to a place in the journal.
#[derive(Debug)]
pub struct Delta {
    /// The place: the journal from there on is not in it.
    pub up_to: UpTo,
    ops: Vec<Op>,
    /// Most of what there is to do, in some cases: its keys are made when they are asked for.
    retained: HashMap<Box<str>, Option<Place>, RandomState>,
    head: layout::Head,
}

impl Delta {
    /// What is to be done, in this order. The last step is the head, which says that all of it is.
    pub fn ops(&self) -> impl Iterator<Item = Op> {
        let retained = self.retained.iter().map(|(topic, place)| Op::set(layout::retained_key(topic), *place));
        let head = Op::Put(layout::HEAD_KEY.to_vec(), Value(Content::Bytes(self.head.encode())));
        self.ops.iter().cloned().chain(retained).chain([head])
    }
}

/// One step.
#[derive(Debug, Clone)]
pub enum Op {
    /// The key has this value.
    Put(Vec<u8>, Value),
    /// The key has none.
    Remove(Vec<u8>),
    /// No key that begins so has one, of those that the last checkpoint had.
    RemoveAll(Vec<u8>),
}

/// A value, or where in the journal it is.
#[derive(Debug, Clone)]
pub struct Value(Content);

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Change(Place),
    Item { session: u64, runs: Vec<Run>, shared: Vec<(u64, Place)> },
    Transit { from: u16, workers: u16, change: Place, body: Place },
}

impl Value {
    /// Appends the value.
    ///
    /// # Errors
    /// What the journal's reader says, and [`io::ErrorKind::InvalidData`] where there is not what was there.
    pub fn write(&self, journal: &mut dyn ReadJournal, out: &mut Vec<u8>) -> io::Result<()> {
        match &self.0 {
            Content::Bytes(bytes) => out.extend_from_slice(bytes),
            Content::Change(place) => journal.read(*place, out)?,
            Content::Item { session, runs, shared } => compose::item(*session, runs, shared, journal, out)?,
            Content::Transit { from, workers, change, body } => {
                compose::transit(*from, *workers, [*change, *body], journal, out)?;
            }
        }
        Ok(())
    }
}

/// How often bodies in the journal are referred to, and which numbers those have that are kept once.
struct Bodies<'a> {
    references: HashMap<u64, u32, RandomState>,
    numbers: HashMap<u64, u64, RandomState>,
    next: &'a mut u64,
    shared: &'a mut HashMap<u64, u32, RandomState>,
}

impl Model {
    /// What has changed since the last time; nothing of it counts as changed any more. All journals before the place `up_to`
    /// have been applied, and none behind it.
    ///
    /// Until a checkpoint has the delta, it has to be kept and the journal too.
    pub fn freeze(&mut self, up_to: UpTo) -> Delta {
        let mut ops = Vec::new();
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        // First, as after a restart another session may have got the number of one that had ended.
        for session in self.ended.drain(..) {
            ops.push(Op::Remove(layout::session_key(session)));
            ops.push(Op::RemoveAll(layout::details_key(session)));
        }
        let mut bodies = Bodies {
            references: self.count_references(&dirty),
            numbers: HashMap::default(),
            next: &mut self.next_shared,
            shared: &mut self.shared,
        };
        for session in dirty {
            if let Some(kept) = self.sessions.get_mut(&session) {
                kept.freeze(session, &mut bodies, &mut ops);
            }
        }
        for (key, place) in std::mem::take(&mut self.values) {
            ops.push(Op::set(key, place));
        }
        for (from, to, number) in self.taken.drain(..) {
            ops.push(Op::Remove(layout::transit_key(from, to, number)));
        }
        for ((from, to), way) in &mut self.transit {
            for (number, message) in (way.first..).zip(&mut way.messages) {
                if let OnWay::New { change, body, workers } = *message {
                    let value = Value(Content::Transit { from: *from, workers, change, body });
                    ops.push(Op::Put(layout::transit_key(*from, *to, number), value));
                    *message = OnWay::Stored;
                }
            }
        }
        for body in self.unshared.drain(..) {
            ops.push(Op::Remove(layout::body_key(body)));
        }
        let head = layout::Head { up_to, workers: self.workers, next_shared: self.next_shared };
        Delta { up_to, ops, retained: std::mem::take(&mut self.retained), head }
    }

    fn count_references(&self, dirty: &[u64]) -> HashMap<u64, u32, RandomState> {
        let mut references: HashMap<u64, u32, RandomState> = HashMap::default();
        for kept in dirty.iter().filter_map(|session| self.sessions.get(session)) {
            for run in kept.runs() {
                if let Source::Body { body, .. } = run.source
                    && body.bytes >= SHARED_BYTES_MIN
                {
                    *references.entry(body.at).or_default() += 1;
                }
            }
        }
        references.retain(|_, references| *references > 1);
        references
    }
}

impl Op {
    fn set(key: Vec<u8>, place: Option<Place>) -> Self {
        match place {
            Some(place) => Self::Put(key, Value(Content::Change(place))),
            None => Self::Remove(key),
        }
    }
}

impl Bodies<'_> {
    /// The numbers of those bodies of an item that are kept once, and where they are.
    fn share(&mut self, runs: &[Run], ops: &mut Vec<Op>) -> Vec<(u64, Place)> {
        let mut shared = BTreeSet::new();
        let mut places = Vec::new();
        for run in runs {
            let Source::Body { body, .. } = run.source else { continue };
            if !self.references.contains_key(&body.at) {
                continue;
            }
            let number = *self.numbers.entry(body.at).or_insert_with(|| {
                let number = *self.next;
                *self.next += 1;
                ops.push(Op::Put(layout::body_key(number), Value(Content::Change(body))));
                number
            });
            if shared.insert(number) {
                *self.shared.entry(number).or_default() += 1;
                places.push((number, body));
            }
        }
        places
    }
}

/// An item that is being filled.
#[derive(Default)]
struct Filling {
    runs: Vec<Run>,
    messages: u32,
    bytes: u64,
}

impl Kept {
    fn runs(&self) -> impl Iterator<Item = &Run> {
        let in_flight = self.in_flight.0.iter().map(|sent| &sent.run);
        in_flight.chain(&self.queue).chain(self.incoming.0.values())
    }

    fn freeze(&mut self, session: u64, bodies: &mut Bodies<'_>, ops: &mut Vec<Op>) {
        self.fill_items(session, bodies, ops);
        for number in self.items.done.drain(..) {
            ops.push(Op::Remove(layout::item_key(session, number)));
        }
        for (filter, place) in self.subscriptions.take().into_iter().flatten() {
            ops.push(Op::set(layout::subscription_key(session, &filter), place));
        }
        self.will.freeze(layout::will_key(session), ops);
        self.last_states.freeze(layout::last_states_key(session), ops);
        ops.push(Op::Put(layout::session_key(session), Value(Content::Bytes(layout::encode(session, self)))));
        (self.is_stored, self.is_dirty) = (true, false);
    }

    /// Messages that are in the journal are in items from now on.
    fn fill_items(&mut self, session: u64, bodies: &mut Bodies<'_>, ops: &mut Vec<Op>) {
        let (mut filling, items) = (Filling::default(), &mut self.items);
        let mut close = |filling: &mut Filling, items: &mut super::items::Items| {
            if filling.messages == 0 {
                return;
            }
            let Filling { runs, messages, .. } = std::mem::take(filling);
            let shared = bodies.share(&runs, ops);
            let number = items.add(messages, shared.iter().map(|(number, _)| *number).collect());
            let value = Value(Content::Item { session, runs, shared });
            ops.push(Op::Put(layout::item_key(session, number), value));
        };
        let in_flight = self.in_flight.0.iter_mut().map(|sent| &mut sent.run);
        for run in in_flight.chain(&mut self.queue).chain(self.incoming.0.values_mut()) {
            if filling.add(run, items.next)
                && (filling.messages >= ITEM_MESSAGES_MAX || filling.bytes >= ITEM_BYTES_MAX)
            {
                close(&mut filling, items);
            }
        }
        close(&mut filling, items);
        let mut in_flight = InFlight::default();
        self.in_flight.0.drain(..).for_each(|sent| in_flight.push(sent.first, sent.run));
        self.in_flight = in_flight;
        let mut queue: VecDeque<Run> = VecDeque::new();
        for run in self.queue.drain(..) {
            match queue.back_mut().filter(|last| last.goes_on_with(&run)) {
                Some(last) => last.count += run.count,
                None => queue.push_back(run),
            }
        }
        queue.shrink_to_fit();
        self.queue = queue;
    }
}

impl Filling {
    /// Puts messages into the item, which will have this number. `false` if they are not in the journal.
    fn add(&mut self, run: &mut Run, number: u32) -> bool {
        let bytes = match &run.source {
            Source::Item(_) | Source::Gone => return false,
            Source::Packets(place) => place.bytes,
            Source::Body { body, .. } => body.bytes,
            Source::Instead(places) => places[1].bytes.saturating_add(places[2].bytes),
        };
        self.bytes += u64::from(bytes);
        let item = Run { source: Source::Item(number), from: self.messages, count: run.count };
        self.messages += run.count;
        self.runs.push(std::mem::replace(run, item));
        true
    }
}

impl Part {
    fn freeze(&mut self, key: Vec<u8>, ops: &mut Vec<Op>) {
        match self.changed.take() {
            Some(Some(place)) => {
                ops.push(Op::Put(key, Value(Content::Change(place))));
                self.is_stored = true;
            }
            Some(None) if std::mem::take(&mut self.is_stored) => ops.push(Op::Remove(key)),
            Some(None) | None => {}
        }
    }
}
