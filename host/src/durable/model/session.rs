//! What the model has of one session.

use std::collections::{BTreeMap, VecDeque};

use super::items::Items;
use super::runs::{InFlight, Incoming, Run, behind, take_at, take_front};
use super::{Place, Sense};
use crate::durable::change::Terms;

/// One session.
#[derive(Debug)]
pub(in crate::durable) struct Kept {
    pub(super) client_id: Box<str>,
    pub(super) terms: Terms,
    pub(super) queue: VecDeque<Run>,
    pub(super) in_flight: InFlight,
    pub(super) incoming: Incoming,
    pub(super) items: Items,
    pub(super) will: Part,
    pub(super) last_states: Part,
    /// Those that have changed since the last checkpoint. `None`: it is there no more.
    pub(super) subscriptions: Option<BTreeMap<Box<str>, Option<Place>>>,
    /// The last checkpoint has it.
    pub(super) is_stored: bool,
    pub(super) is_dirty: bool,
    /// Bodies that items have referred to that are gone.
    pub(super) unreferred: Vec<u64>,
}

/// Something that a session has once, or not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// What has become of it since the last checkpoint.
    pub(super) changed: Option<Option<Place>>,
    /// The last checkpoint has it.
    pub(super) is_stored: bool,
}

/// Where such a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::durable) enum PartOf {
    Nothing,
    Journal(Place),
    Checkpoint,
}

impl Part {
    pub(super) fn set(&mut self, to: Option<Place>) {
        self.changed = Some(to);
    }

    fn whereabouts(self) -> PartOf {
        match self.changed {
            Some(Some(place)) => PartOf::Journal(place),
            None if self.is_stored => PartOf::Checkpoint,
            Some(None) | None => PartOf::Nothing,
        }
    }
}

impl Kept {
    pub(super) fn new(client_id: Box<str>, terms: Terms) -> Self {
        Self {
            client_id,
            terms,
            queue: VecDeque::new(),
            in_flight: InFlight::default(),
            incoming: Incoming::default(),
            items: Items::default(),
            will: Part::default(),
            last_states: Part::default(),
            subscriptions: None,
            is_stored: false,
            is_dirty: false,
            unreferred: Vec::new(),
        }
    }

    pub(super) fn subscriptions(&mut self) -> &mut BTreeMap<Box<str>, Option<Place>> {
        self.subscriptions.get_or_insert_default()
    }

    pub(in crate::durable) fn client(&self) -> (&str, Terms) {
        (&self.client_id, self.terms)
    }

    /// Whether the last checkpoint has it.
    pub(in crate::durable) fn is_stored(&self) -> bool {
        self.is_stored
    }

    pub(in crate::durable) fn in_flight(&self) -> impl Iterator<Item = (u16, &Run)> {
        self.in_flight.0.iter().map(|sent| (sent.first, &sent.run))
    }

    pub(in crate::durable) fn queued(&self) -> impl Iterator<Item = &Run> {
        self.queue.iter()
    }

    pub(in crate::durable) fn incoming(&self) -> impl Iterator<Item = (u16, &Run)> {
        self.incoming.0.iter().map(|(first, run)| (*first, run))
    }

    /// Whether a subscription has changed since the last checkpoint.
    pub(in crate::durable) fn has_changed_subscription(&self, filter: &str) -> bool {
        self.subscriptions.as_ref().is_some_and(|changed| changed.contains_key(filter))
    }

    /// Those that have changed and are there, and where, in the order of their filters.
    pub(in crate::durable) fn changed_subscriptions(&self) -> impl Iterator<Item = (&str, Place)> {
        let changed = self.subscriptions.iter().flatten();
        changed.filter_map(|(filter, place)| Some((&**filter, (*place)?)))
    }

    /// Where its will is, and its handlers' states.
    pub(in crate::durable) fn parts(&self) -> [PartOf; 2] {
        [self.will, self.last_states].map(Part::whereabouts)
    }

    /// The bodies of items that are gone.
    pub(super) fn take_unreferred(&mut self) -> Option<Vec<u64>> {
        (!self.unreferred.is_empty()).then(|| std::mem::take(&mut self.unreferred))
    }

    /// The first messages of the queue go in flight.
    pub(super) fn send(&mut self, first: u16, count: u32) -> Sense {
        self.terms.next_packet_id = behind(first, count);
        let (in_flight, mut packet_id) = (&mut self.in_flight, first);
        take_front(&mut self.queue, count, |run| {
            let next = behind(packet_id, run.count);
            in_flight.push(std::mem::replace(&mut packet_id, next), run);
        })
    }

    /// Messages go in flight that have not been in the queue.
    pub(super) fn send_now(&mut self, mut first: u16, runs: impl Iterator<Item = Run>) {
        for run in runs {
            let next = behind(first, run.count);
            self.in_flight.push(std::mem::replace(&mut first, next), run);
        }
        self.terms.next_packet_id = first;
    }

    pub(super) fn receive(&mut self, first: u16, count: u32) -> Sense {
        let (items, unreferred) = (&mut self.items, &mut self.unreferred);
        let mut released = Ok(());
        self.in_flight.take(first, count, true, |run| note(&mut released, items.release(&run, unreferred)))?;
        released
    }

    pub(super) fn acknowledge(&mut self, first: u16, count: u32) -> Sense {
        let (items, unreferred) = (&mut self.items, &mut self.unreferred);
        let mut released = Ok(());
        self.in_flight.take(first, count, false, |run| note(&mut released, items.release(&run, unreferred)))?;
        released
    }

    pub(super) fn drop_queued(&mut self, place: u32, count: u32) -> Sense {
        let (items, unreferred) = (&mut self.items, &mut self.unreferred);
        let mut released = Ok(());
        take_at(&mut self.queue, place, count, |run| note(&mut released, items.release(&run, unreferred)))?;
        released
    }

    /// The client has sent messages with QoS 2.
    pub(super) fn accept(&mut self, mut first: u16, runs: impl Iterator<Item = Run>) -> Sense {
        for run in runs {
            let next = behind(first, run.count);
            self.incoming.insert(std::mem::replace(&mut first, next), run)?;
        }
        Ok(())
    }

    pub(super) fn release(&mut self, first: u16, count: u32) -> Sense {
        let (items, unreferred) = (&mut self.items, &mut self.unreferred);
        let mut released = Ok(());
        self.incoming.take(first, count, |run| note(&mut released, items.release(&run, unreferred)))?;
        released
    }
}

/// The first error counts.
fn note(outcome: &mut Sense, next: Sense) {
    if outcome.is_ok() {
        *outcome = next;
    }
}
