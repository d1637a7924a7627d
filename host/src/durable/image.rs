//! From a model back to changes: what a server begins with, and what an export shows.

use std::io;
use std::iter::Peekable;

use super::change::Change;
use super::compose::{ItemView, ReadJournal, Wrap, Writer, damaged};
use super::model::{Kept, Model, OnWay, PartOf, Place, Run, Source, behind, layout};
use super::store::{Piece, Progress};
use crate::core::owner_of;

/// A key and a value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Reads a checkpoint.
pub trait ReadCheckpoint {
    /// All entries whose keys begin with this, in their order.
    fn scan(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = io::Result<Entry>> + '_>;

    /// The value of a key.
    ///
    /// # Errors
    /// What the disk says.
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;
}

/// A piece has so many bytes, or one message that has more.
const PIECE_BYTES: usize = 64 << 10;

/// Items of one session that are kept in memory while it is put together. What goes beyond is read once more.
const ITEMS_BYTES_MAX: usize = 4 << 20;

/// Progress is told whenever so many sessions or retained messages have been given.
const PROGRESS_EACH: u64 = 10_000;

/// Gives all that a model has, for so many workers, but for what plugins keep: that is asked for before, by [`values`].
///
/// # Errors
/// What the disk says, and [`io::ErrorKind::InvalidData`] with a sentence about what is damaged.
pub fn give_all(
    model: &Model,
    checkpoint: &dyn ReadCheckpoint,
    journal: &mut dyn ReadJournal,
    workers: usize,
    give: &mut dyn FnMut(Piece),
    progress: &mut dyn FnMut(Progress),
) -> io::Result<()> {
    let workers = workers.max(1);
    let mut giving = Giving { checkpoint, journal, workers, give, progress, done: Progress::default() };
    giving.retained(model)?;
    giving.sessions(model)?;
    giving.transit(model)?;
    (giving.progress)(giving.done);
    Ok(())
}

/// What plugins keep by keys: changes of this kind only.
///
/// # Errors
/// As [`give_all`].
pub fn values(model: &Model, checkpoint: &dyn ReadCheckpoint, journal: &mut dyn ReadJournal) -> io::Result<Vec<u8>> {
    let (mut values, mut changed) = (Vec::new(), model.changed_values().peekable());
    for entry in checkpoint.scan(layout::VALUES) {
        let (key, value) = entry?;
        while let Some((_, place)) = changed.next_if(|(changed, _)| **changed < *key) {
            journal.read(place, &mut values)?;
        }
        if !model.has_changed_value(&key) {
            values.extend(value);
        }
    }
    changed.try_for_each(|(_, place)| journal.read(place, &mut values))?;
    Ok(values)
}

struct Giving<'a> {
    checkpoint: &'a dyn ReadCheckpoint,
    journal: &'a mut dyn ReadJournal,
    workers: usize,
    give: &'a mut dyn FnMut(Piece),
    progress: &'a mut dyn FnMut(Progress),
    done: Progress,
}

/// The details of one session that a checkpoint has.
#[derive(Default)]
struct Details {
    subscriptions: Vec<Vec<u8>>,
    will: Option<Vec<u8>>,
    last_states: Option<Vec<u8>>,
    items: Vec<(u32, Vec<u8>)>,
}

/// What belongs to no session, in pieces.
struct Loose {
    worker: usize,
    changes: Vec<u8>,
}

impl Giving<'_> {
    fn retained(&mut self, model: &Model) -> io::Result<()> {
        let mut loose = Loose { worker: 0, changes: Vec::new() };
        let mut changed = model.changed_topics().into_iter().peekable();
        for entry in self.checkpoint.scan(layout::RETAINED) {
            let value = entry?.1;
            let Ok((Change::Retained { message }, _)) = Change::decode(&value) else {
                return Err(damaged("a retained message is none"));
            };
            while let Some((_, place)) = changed.next_if(|(topic, _)| layout::compare(topic, message.topic).is_lt()) {
                self.changed_retained(place, &mut loose)?;
            }
            if !model.has_changed_topic(message.topic) {
                loose.add(&value, self.workers, self.give);
                self.count_retained();
            }
        }
        changed.try_for_each(|(_, place)| self.changed_retained(place, &mut loose))?;
        loose.cut(self.workers, self.give);
        Ok(())
    }

    fn changed_retained(&mut self, place: Place, loose: &mut Loose) -> io::Result<()> {
        let mut value = Vec::new();
        self.journal.read(place, &mut value)?;
        loose.add(&value, self.workers, self.give);
        self.count_retained();
        Ok(())
    }

    fn count_retained(&mut self) {
        self.done.retained += 1;
        if self.done.retained.is_multiple_of(PROGRESS_EACH) {
            (self.progress)(self.done);
        }
    }

    fn sessions(&mut self, model: &Model) -> io::Result<()> {
        let checkpoint = self.checkpoint;
        let mut details = checkpoint.scan(layout::DETAILS).peekable();
        for (session, kept) in model.in_order() {
            let found = details_of(session, &mut details)?;
            // One that has ended since may have had the number before, if the clock was set back.
            let details = if kept.is_stored() { found } else { Details::default() };
            self.session(session, kept, &details)
                .map_err(|error| io::Error::new(error.kind(), format!("session {session}: {error}")))?;
            self.done.sessions += 1;
            if self.done.sessions.is_multiple_of(PROGRESS_EACH) {
                (self.progress)(self.done);
            }
        }
        Ok(())
    }

    fn session(&mut self, session: u64, kept: &Kept, details: &Details) -> io::Result<()> {
        let (client_id, terms) = kept.client();
        let turn = Turn { worker: owner_of(client_id, self.workers), workers: self.workers };
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, session);
        turn.begin(&mut writer);
        writer.change(&Change::Began { session, client_id, terms });
        self.subscriptions(kept, details, &turn, &mut writer)?;
        for (part, stored) in kept.parts().into_iter().zip([&details.will, &details.last_states]) {
            match part {
                PartOf::Nothing => {}
                PartOf::Journal(place) => self.changed(place, &turn, &mut writer)?,
                PartOf::Checkpoint => {
                    let value =
                        stored.as_ref().ok_or_else(|| damaged("its will or its handlers' states are missing"))?;
                    turn.put(value, &mut writer, self.give);
                }
            }
        }
        let mut next_packet_id = terms.next_packet_id;
        for (first, run) in kept.in_flight() {
            self.run(run, Wrap::InFlight(first), &turn, &mut writer, session, details)?;
            next_packet_id = behind(first, run.count);
        }
        if next_packet_id != terms.next_packet_id {
            // Those that were sent last have been acknowledged already.
            writer.change(&Change::Changed { session, terms });
        }
        for run in kept.queued() {
            self.run(run, Wrap::Queued, &turn, &mut writer, session, details)?;
        }
        for (first, run) in kept.incoming() {
            self.run(run, Wrap::Incoming(first), &turn, &mut writer, session, details)?;
        }
        turn.end(&mut writer, self.give);
        Ok(())
    }

    fn subscriptions(
        &mut self,
        kept: &Kept,
        details: &Details,
        turn: &Turn,
        writer: &mut Writer<'_>,
    ) -> io::Result<()> {
        let mut changed = kept.changed_subscriptions().peekable();
        for value in &details.subscriptions {
            let Ok((Change::Subscribed { filter, .. }, _)) = Change::decode(value) else {
                return Err(damaged("one of its subscriptions is none"));
            };
            while let Some((_, place)) = changed.next_if(|(changed, _)| layout::compare(changed, filter).is_lt()) {
                self.changed(place, turn, writer)?;
            }
            if !kept.has_changed_subscription(filter) {
                turn.put(value, writer, self.give);
            }
        }
        changed.try_for_each(|(_, place)| self.changed(place, turn, writer))
    }

    /// A change of a session that stands in the journal.
    fn changed(&mut self, place: Place, turn: &Turn, writer: &mut Writer<'_>) -> io::Result<()> {
        let mut value = Vec::new();
        self.journal.read(place, &mut value)?;
        turn.put(&value, writer, self.give);
        Ok(())
    }

    fn run(
        &mut self,
        run: &Run,
        wrap: Wrap,
        turn: &Turn,
        writer: &mut Writer<'_>,
        session: u64,
        details: &Details,
    ) -> io::Result<()> {
        self.done.messages += u64::from(run.count);
        turn.cut(writer, self.give);
        let Source::Item(number) = run.source else {
            return writer.journalled(run, wrap, self.journal, &Default::default());
        };
        let missing = || damaged(format!("its item {number} is missing"));
        let read;
        let bytes = match details.items.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => &details.items[place].1,
            Err(_) => {
                read = self.checkpoint.get(&layout::item_key(session, number))?.ok_or_else(missing)?;
                &read
            }
        };
        let item = ItemView::new(bytes).ok_or_else(|| damaged(format!("its item {number} is none")))?;
        let checkpoint = self.checkpoint;
        let mut shared_body = |number: u64, into: &mut Vec<u8>| {
            let body = checkpoint.get(&layout::body_key(number))?;
            into.extend(body.ok_or_else(|| damaged(format!("the body {number} is missing")))?);
            Ok(())
        };
        item.write(run, wrap, writer, &mut shared_body, &mut |writer| turn.cut(writer, self.give))
    }

    /// Messages on their way go to all workers: whose sessions are now where is for them to say.
    fn transit(&mut self, model: &Model) -> io::Result<()> {
        for ((from, to, number), message) in model.on_their_way() {
            let mut changes = Vec::new();
            match message {
                OnWay::Stored => {
                    let value = self.checkpoint.get(&layout::transit_key(from, to, number))?;
                    let missing = || damaged(format!("a message from worker {from} to worker {to} is missing"));
                    changes.extend(value.ok_or_else(missing)?);
                }
                OnWay::New { change, body, workers } => {
                    super::compose::transit(from, workers, [change, body], self.journal, &mut changes)?;
                }
            }
            for worker in 0..self.workers {
                (self.give)(Piece { worker, changes: changes.clone() });
            }
        }
        Ok(())
    }
}

/// The next details, if they are of this session; those of sessions before, which have ended, are left out.
fn details_of(session: u64, entries: &mut Peekable<impl Iterator<Item = io::Result<Entry>>>) -> io::Result<Details> {
    let prefix = layout::details_key(session);
    let mut details = Details::default();
    let mut item_bytes = 0;
    while let Some(entry) =
        entries.next_if(|entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix) || *key < prefix))
    {
        let (key, value) = entry?;
        let Some((kind, rest)) = key.strip_prefix(&prefix[..]).and_then(|rest| rest.split_first()) else { continue };
        match *kind {
            layout::FILTER => details.subscriptions.push(value),
            layout::WILL => details.will = Some(value),
            layout::LAST_STATES => details.last_states = Some(value),
            layout::ITEM => {
                let number = rest.try_into().map(u32::from_be_bytes);
                let number = number.map_err(|_| damaged(format!("an item of session {session} has no number")))?;
                item_bytes += value.len();
                if item_bytes <= ITEMS_BYTES_MAX {
                    details.items.push((number, value));
                }
            }
            _ => return Err(damaged(format!("session {session} has something of no known kind"))),
        }
    }
    Ok(details)
}

/// Each piece begins with this.
struct Turn {
    worker: usize,
    workers: usize,
}

impl Turn {
    fn change(&self) -> Change<'static> {
        let narrow = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        Change::Turn { worker: narrow(self.worker), workers: narrow(self.workers) }
    }

    fn begin(&self, writer: &mut Writer<'_>) {
        writer.change(&self.change());
    }

    /// Gives what there is, if that is much.
    fn cut(&self, writer: &mut Writer<'_>, give: &mut dyn FnMut(Piece)) {
        if writer.bytes() >= PIECE_BYTES {
            self.end(writer, give);
            self.begin(writer);
        }
    }

    /// A change as it stands in a checkpoint or a journal.
    fn put(&self, bytes: &[u8], writer: &mut Writer<'_>, give: &mut dyn FnMut(Piece)) {
        self.cut(writer, give);
        writer.put(bytes);
    }

    fn end(&self, writer: &mut Writer<'_>, give: &mut dyn FnMut(Piece)) {
        give(Piece { worker: self.worker, changes: writer.take() });
    }
}

impl Loose {
    fn add(&mut self, change: &[u8], workers: usize, give: &mut dyn FnMut(Piece)) {
        if self.changes.is_empty() {
            Turn { worker: self.worker, workers }.change().encode(&mut self.changes);
        }
        self.changes.extend_from_slice(change);
        if self.changes.len() >= PIECE_BYTES {
            self.cut(workers, give);
        }
    }

    fn cut(&mut self, workers: usize, give: &mut dyn FnMut(Piece)) {
        if !self.changes.is_empty() {
            give(Piece { worker: self.worker, changes: std::mem::take(&mut self.changes) });
            self.worker = (self.worker + 1) % workers;
        }
    }
}

impl Model {
    /// Its sessions, in the order of their numbers.
    fn in_order(&self) -> impl Iterator<Item = (u64, &Kept)> {
        let mut sessions: Vec<_> = self.all_sessions().collect();
        sessions.sort_unstable_by_key(|(session, _)| *session);
        sessions.into_iter()
    }
}
