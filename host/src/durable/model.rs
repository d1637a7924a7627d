//! What all journals come to: which messages a session has, and where they are.
//!
//! The [`Model`] applies journals as they are written. It has no message in memory, but the [`Place`] of the change that
//! brought it, or the item of the checkpoint that has it. Now and then it is [frozen](Model::freeze): what has changed since the
//! last time, without what has come and gone meanwhile, is a [`Delta`] for the next checkpoint, and what was in the journal is
//! in items from then on. Retained messages, subscriptions and plugins' values are known to it only as far as they have changed
//! since: nothing else has to be known of them.

mod freeze;
mod items;
pub mod layout;
#[cfg(test)]
pub(crate) mod memory;
mod runs;
mod session;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use foldhash::fast::RandomState;

pub use self::freeze::{Delta, Op, Value};
pub use self::layout::LayoutError;
pub(super) use self::runs::{Run, Source, behind, distance};
pub(super) use self::session::{Kept, PartOf};
use super::change::{Change, ChangeError, Changes, Messages, Origin};

/// Where a change is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Where it begins.
    pub at: u64,
    /// How many bytes it has.
    pub bytes: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Model {
    sessions: HashMap<u64, Kept, RandomState>,
    /// Sessions that have changed since the last checkpoint. Some of them may have ended.
    dirty: Vec<u64>,
    /// Sessions that the last checkpoint has, and that have ended since.
    ended: Vec<u64>,
    /// Retained messages that have changed since, by topic. `None`: there is none any more.
    retained: HashMap<Box<str>, Option<Place>, RandomState>,
    /// What plugins keep, as far as it has changed since, by the keys of the checkpoint.
    values: BTreeMap<Vec<u8>, Option<Place>>,
    /// Messages on their way between workers: from, to.
    transit: BTreeMap<(u16, u16), Way>,
    /// Those that a checkpoint has, and that have come since.
    taken: Vec<TransitKey>,
    /// How many items of checkpoints refer to a body that several have.
    shared: HashMap<u64, u32, RandomState>,
    /// Such bodies to which none does any more.
    unshared: Vec<u64>,
    /// The number of the next body that several items refer to.
    next_shared: u64,
    /// How many workers there were when the last journal was written; 0 before the first one.
    workers: u16,
    /// What stands in the journal that is being applied.
    turn: Turn,
}

/// From, to, and which.
pub(super) type TransitKey = (u16, u16, u64);

/// Messages on their way from one worker to another.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// The number of the first.
    pub(super) first: u64,
    pub(super) messages: VecDeque<OnWay>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnWay {
    New {
        change: Place,
        body: Place,
        workers: u16,
    },
    /// The checkpoint has it.
    Stored,
}

/// The journal that is being applied.
#[derive(Debug, Default)]
struct Turn {
    has_begun: bool,
    bodies: Vec<Place>,
}

/// What is wrong with a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelError {
    /// Where the change begins.
    pub at: u64,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Form(ChangeError),
    Sense(String),
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Form(error) => error.fmt(f),
            What::Sense(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ModelError {}

/// A sentence about a change that cannot be, as nothing of that kind is there.
type Sense<T = ()> = Result<T, String>;

impl Model {
    /// Applies journals, which stand one behind the other in `bytes`, the first of them at the place `at`.
    ///
    /// # Errors
    /// Something is no change, or one that cannot be where it stands. The model is of no use any more.
    pub fn apply(&mut self, bytes: &[u8], at: u64) -> Result<(), ModelError> {
        let mut changes = Changes::new(bytes);
        while let Some(outcome) = self.apply_next(&mut changes, at) {
            outcome?;
        }
        Ok(())
    }

    /// The same, but a change that cannot be is told to `left_out`, and those behind it are applied.
    pub fn apply_what_can_be(&mut self, bytes: &[u8], at: u64, left_out: &mut dyn FnMut(ModelError)) {
        let mut changes = Changes::new(bytes);
        while let Some(outcome) = self.apply_next(&mut changes, at) {
            outcome.unwrap_or_else(&mut *left_out);
        }
    }

    fn apply_next(&mut self, changes: &mut Changes<'_>, at: u64) -> Option<Result<(), ModelError>> {
        let (start, change) = match changes.next()? {
            Ok(next) => next,
            Err(error) => return Some(Err(ModelError { at: at + error.at as u64, what: What::Form(error) })),
        };
        let at = at + start as u64;
        // A journal has less than 4 GiB, as what waits to be written is bounded.
        let bytes = u32::try_from(changes.at() - start).unwrap_or(u32::MAX);
        let outcome = self.apply_one(&change, Place { at, bytes });
        Some(outcome.map_err(|what| ModelError { at, what: What::Sense(what) }))
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many workers there were when the last journal was written; 0 if there was none.
    #[must_use]
    pub fn workers(&self) -> u16 {
        self.workers
    }

    pub(super) fn all_sessions(&self) -> impl Iterator<Item = (u64, &Kept)> {
        self.sessions.iter().map(|(session, kept)| (*session, kept))
    }

    /// Whether a topic's retained message has changed since the last checkpoint.
    pub(super) fn has_changed_topic(&self, topic: &str) -> bool {
        self.retained.contains_key(topic)
    }

    /// Those that have one now, in the order of their keys.
    pub(super) fn changed_topics(&self) -> Vec<(&str, Place)> {
        let changed = self.retained.iter().filter_map(|(topic, place)| Some((&**topic, (*place)?)));
        let mut changed: Vec<_> = changed.collect();
        changed.sort_unstable_by(|one, other| layout::compare(one.0, other.0));
        changed
    }

    /// The same of what a plugin keeps, by the key of the checkpoint.
    pub(super) fn has_changed_value(&self, key: &[u8]) -> bool {
        self.values.contains_key(key)
    }

    /// Those that there are now, in the order of their keys.
    pub(super) fn changed_values(&self) -> impl Iterator<Item = (&[u8], Place)> {
        self.values.iter().filter_map(|(key, place)| Some((&**key, (*place)?)))
    }

    /// Messages between workers that have not come.
    pub(super) fn on_their_way(&self) -> impl Iterator<Item = (TransitKey, OnWay)> {
        self.transit.iter().flat_map(|((from, to), way)| {
            (way.first..).zip(&way.messages).map(|(number, message)| ((*from, *to, number), *message))
        })
    }

    fn apply_one(&mut self, change: &Change<'_>, place: Place) -> Sense {
        if !self.turn.has_begun && !matches!(change, Change::Turn { .. }) {
            return Err("a change stands before the first Turn".to_owned());
        }
        match *change {
            Change::Turn { workers, .. } => {
                self.workers = workers;
                self.turn.has_begun = true;
                self.turn.bodies.clear();
            }
            Change::Body { number, .. } => {
                if number as usize != self.turn.bodies.len() {
                    return Err(format!("body {number} stands where {} was expected", self.turn.bodies.len()));
                }
                self.turn.bodies.push(place);
            }
            Change::Began { session, client_id, terms } => {
                if self.sessions.contains_key(&session) {
                    return Err(format!("session {session} begins, but is there"));
                }
                self.sessions.insert(session, Kept::new(client_id.into(), terms));
                self.touch(session)?;
            }
            Change::Ended { session } => self.end(session)?,
            Change::Changed { session, terms } => self.touch(session)?.terms = terms,
            Change::Subscribed { session, filter, .. } => {
                self.touch(session)?.subscriptions().insert(filter.into(), Some(place));
            }
            Change::Unsubscribed { session, filter } => {
                self.touch(session)?.subscriptions().insert(filter.into(), None);
            }
            Change::Queued { session, ref messages } => {
                let runs = self.runs(messages, place)?;
                let kept = self.touch(session)?;
                runs.for_each(|run| kept.queue.push_back(run));
            }
            Change::Sent { session, first, count } => self.touch(session)?.send(first, count)?,
            Change::SentNow { session, first, ref messages } => {
                let runs = self.runs(messages, place)?;
                let kept = self.touch(session)?;
                kept.send_now(first, runs);
            }
            Change::Received { session, first, count } => {
                self.in_session(session, |kept| kept.receive(first, count))?
            }
            Change::Acknowledged { session, first, count } => {
                self.in_session(session, |kept| kept.acknowledge(first, count))?;
            }
            Change::Dropped { session, place, count } => {
                self.in_session(session, |kept| kept.drop_queued(place, count))?;
            }
            Change::Incoming { session, first, ref messages } => {
                let runs = self.runs(messages, place)?;
                let kept = self.touch(session)?;
                kept.accept(first, runs)?;
            }
            Change::Released { session, first, count } => {
                self.in_session(session, |kept| kept.release(first, count))?
            }
            Change::Will { session, .. } => self.touch(session)?.will.set(Some(place)),
            Change::WillGone { session } => self.touch(session)?.will.set(None),
            Change::LastStates { session, states } => {
                self.touch(session)?.last_states.set(Some(place).filter(|_| !states.is_empty()));
            }
            Change::Retained { ref message } => set(&mut self.retained, message.topic, Some(place)),
            Change::RetainedGone { topic } => set(&mut self.retained, topic, None),
            Change::KeyValue { plugin, key, value } => {
                self.values.insert(layout::value_key(plugin, key), value.map(|_| place));
            }
            Change::Transit { from, to, body, .. } => {
                let (body, workers) = (self.turn.body(body)?, self.workers);
                let way = self.transit.entry((from, to)).or_default();
                way.messages.push_back(OnWay::New { change: place, body, workers });
            }
            Change::Taken { from, to, count } => self.take(from, to, count)?,
        }
        Ok(())
    }

    /// A session that is about to change.
    fn touch(&mut self, session: u64) -> Sense<&mut Kept> {
        let kept = self.sessions.get_mut(&session).ok_or_else(|| format!("there is no session {session}"))?;
        if !kept.is_dirty {
            kept.is_dirty = true;
            self.dirty.push(session);
        }
        Ok(kept)
    }

    /// The same where messages may go that are in items.
    fn in_session(&mut self, session: u64, step: impl FnOnce(&mut Kept) -> Sense) -> Sense {
        let kept = self.touch(session)?;
        step(kept).map_err(|what| format!("session {session}: {what}"))?;
        if let Some(unreferred) = kept.take_unreferred() {
            self.unshare(&unreferred);
        }
        Ok(())
    }

    fn end(&mut self, session: u64) -> Sense {
        let kept = self.sessions.remove(&session).ok_or_else(|| format!("there is no session {session}"))?;
        if kept.is_stored {
            self.ended.push(session);
        }
        let shared: Vec<u64> = kept.items.shared().collect();
        self.unshare(&shared);
        Ok(())
    }

    /// An item is gone that has referred to these bodies.
    fn unshare(&mut self, bodies: &[u64]) {
        for body in bodies {
            if let Some(references) = self.shared.get_mut(body) {
                *references -= 1;
                if *references == 0 {
                    self.shared.remove(body);
                    self.unshared.push(*body);
                }
            }
        }
    }

    fn take(&mut self, from: u16, to: u16, count: u32) -> Sense {
        let way = self.transit.entry((from, to)).or_default();
        for _ in 0..count {
            let message = way.messages.pop_front();
            let message = message.ok_or_else(|| format!("nothing is on its way from worker {from} to worker {to}"))?;
            if message == OnWay::Stored {
                self.taken.push((from, to, way.first));
            }
            way.first += 1;
        }
        Ok(())
    }

    /// The runs of messages that a change at a place brings.
    fn runs(&self, messages: &Messages<'_>, change: Place) -> Sense<impl Iterator<Item = Run> + use<>> {
        let mut bodies = Vec::new();
        let mut whole = None;
        match messages {
            Messages::Packets(packets) => {
                whole = Some(Run { source: Source::Packets(change), from: 0, count: packets.count });
            }
            Messages::Gone { count } => whole = Some(Run { source: Source::Gone, from: 0, count: *count }),
            Messages::Bodies { first, count, delivery } => {
                // Of what is not there the first one is found at once.
                for number in *first..first.saturating_add(*count) {
                    let body = self.turn.body(number)?;
                    let source = match delivery.origin {
                        Origin::Instead { published, .. } => {
                            Source::Instead(Box::new([change, body, self.turn.body(published)?]))
                        }
                        _ => Source::Body { change, body },
                    };
                    bodies.push(Run { source, from: 0, count: 1 });
                }
            }
        }
        Ok(whole.into_iter().chain(bodies))
    }
}

impl Turn {
    fn body(&self, number: u32) -> Sense<Place> {
        self.bodies.get(number as usize).copied().ok_or_else(|| format!("there is no body {number} in this journal"))
    }
}

/// Most topics are there already, and then no text is copied.
fn set(map: &mut HashMap<Box<str>, Option<Place>, RandomState>, topic: &str, to: Option<Place>) {
    match map.get_mut(topic) {
        Some(place) => *place = to,
        None => drop(map.insert(topic.into(), to)),
    }
}
