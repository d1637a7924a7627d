//! The items of a session in the checkpoint: some messages each, of which some may be needed no more.

use std::collections::VecDeque;

use super::Sense;
use super::runs::{Run, Source};

/// Which items there are, in the order of their numbers.
#[derive(Debug, Default)]
pub(in crate::durable) struct Items {
    pub(super) all: VecDeque<Item>,
    pub(super) next: u32,
    /// Items that the checkpoint has, and that nothing refers to any more.
    pub(super) done: Vec<u32>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) number: u32,
    /// How many of its messages are in the queue, in flight or not released.
    pub(super) left: u32,
    /// Bodies of other sessions' items, too.
    pub(super) shared: Option<Box<[u64]>>,
}

impl Items {
    /// Messages are needed no more. Where an item goes with them, the bodies are added to `unreferred` that it refers to.
    pub(super) fn release(&mut self, run: &Run, unreferred: &mut Vec<u64>) -> Sense {
        let Source::Item(number) = run.source else { return Ok(()) };
        let none = || format!("there is no item {number} with so many messages");
        let place = self.all.binary_search_by_key(&number, |item| item.number).map_err(|_| none())?;
        let item = &mut self.all[place];
        item.left = item.left.checked_sub(run.count).ok_or_else(none)?;
        if item.left == 0 {
            let item = self.all.remove(place).ok_or_else(none)?;
            unreferred.extend(item.shared.iter().flatten());
            self.done.push(number);
        }
        Ok(())
    }

    /// Bodies of other sessions' items that these refer to, once for each item.
    pub(super) fn shared(&self) -> impl Iterator<Item = u64> {
        self.all.iter().flat_map(|item| item.shared.iter().flatten().copied())
    }

    pub(super) fn add(&mut self, left: u32, shared: Vec<u64>) -> u32 {
        let number = self.next;
        self.next += 1;
        let shared = (!shared.is_empty()).then(|| shared.into());
        self.all.push_back(Item { number, left, shared });
        number
    }

    /// One that a checkpoint has, in the order of their numbers.
    pub(super) fn add_stored(&mut self, number: u32, shared: Vec<u64>) -> Option<()> {
        if number >= self.next || self.all.back().is_some_and(|last| last.number >= number) {
            return None;
        }
        let shared = (!shared.is_empty()).then(|| shared.into());
        self.all.push_back(Item { number, left: 0, shared });
        Some(())
    }

    /// So many messages of it are needed.
    pub(super) fn refer(&mut self, number: u32, count: u32) -> Option<()> {
        let place = self.all.binary_search_by_key(&number, |item| item.number).ok()?;
        let item = &mut self.all[place];
        item.left = item.left.checked_add(count)?;
        Some(())
    }
}
