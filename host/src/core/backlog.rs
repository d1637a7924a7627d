//! Messages that wait for one session.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::budget::Account;
use super::packets::{BYTES_MAX, Expected, Part, Row};
use super::session::Queued;

/// Accepted and not sent, oldest first. Each costs a reference, or a copy of its packet where it is for nobody else.
///
/// Most sessions have none, and pay one word for it.
#[derive(Default)]
pub(super) struct Backlog(Option<Box<Waiting>>);

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    messages: usize,
    bytes: usize,
}

enum Item {
    One(Queued),
    Some(Part),
}

/// An emptied queue gives back its memory if it had grown past so many items; below, keeping it is cheaper.
const KEPT: usize = 64;

impl Item {
    /// The messages of it.
    fn messages(&self) -> impl Iterator<Item = Cow<'_, Queued>> {
        let (one, some) = match self {
            Self::One(queued) => (Some(Cow::Borrowed(queued)), None),
            Self::Some(part) => (None, Some(part)),
        };
        let some = some.into_iter().flat_map(|part| (0..part.len()).map(|number| Cow::Owned(part.message(number))));
        one.into_iter().chain(some)
    }
}

impl Waiting {
    /// Some are not there any more, of so many bytes.
    fn count_out(&mut self, messages: usize, bytes: usize) {
        self.messages -= messages;
        self.bytes -= bytes;
    }
}

impl Backlog {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.messages)
    }

    /// Topics, properties and payloads together, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Each of them. Those that are kept as packets are made for it.
    pub(super) fn iter(&self) -> impl Iterator<Item = Cow<'_, Queued>> {
        self.0.iter().flat_map(|waiting| &waiting.items).flat_map(Item::messages)
    }

    /// What was put in last, if that was a message and not packets.
    pub(super) fn last(&self) -> Option<&Queued> {
        match self.0.as_ref()?.items.back()? {
            Item::One(queued) => Some(queued),
            Item::Some(_) => None,
        }
    }

    /// Each of them, taken out.
    pub(super) fn into_each(mut self) -> impl Iterator<Item = Queued> {
        std::iter::from_fn(move || self.pop_front())
    }

    pub(super) fn push_back(&mut self, delivery: Queued) {
        let waiting = self.0.get_or_insert_default();
        waiting.messages += 1;
        waiting.bytes += delivery.message.bytes();
        waiting.items.push_back(Item::One(delivery));
    }

    /// Puts packets behind the others, which are kept as they are.
    #[inline]
    pub(super) fn push_row(&mut self, row: &Row<'_>, account: &Account) {
        if let Err(expected) = self.push_behind(row) {
            self.push_new(Part::new(row, account, expected));
        }
    }

    /// The same for some that are kept already.
    pub(super) fn push_part(&mut self, part: Part) {
        // Few must not take the memory of many for as long as they wait.
        let is_small = part.message_bytes(0..part.len()) < BYTES_MAX / 16;
        if !is_small || self.push_behind(&part.all()).is_err() {
            self.push_new(part);
        }
    }

    fn push_new(&mut self, part: Part) {
        let waiting = self.0.get_or_insert_default();
        waiting.messages += part.len();
        waiting.bytes += part.message_bytes(0..part.len());
        waiting.items.push_back(Item::Some(part));
    }

    /// Puts packets behind the last ones, if these are kept as packets and there is room. Otherwise says how many there will
    /// be: where there are many, as many more are likely.
    #[inline]
    fn push_behind(&mut self, row: &Row<'_>) -> Result<(), Expected> {
        let Some(waiting) = &mut self.0 else { return Err(Expected::Long) };
        let Some(Item::Some(part)) = waiting.items.back_mut() else { return Err(Expected::Long) };
        if !part.push(row) {
            return Err(if part.is_large() { Expected::Soon } else { Expected::Long });
        }
        waiting.messages += row.len();
        waiting.bytes += row.message_bytes();
        Ok(())
    }

    /// Puts back what [`Backlog::pop_front`] gave.
    pub(super) fn push_front(&mut self, delivery: Queued) {
        let waiting = self.0.get_or_insert_default();
        waiting.messages += 1;
        waiting.bytes += delivery.message.bytes();
        waiting.items.push_front(Item::One(delivery));
    }

    pub(super) fn pop_front(&mut self) -> Option<Queued> {
        let waiting = self.0.as_mut()?;
        let delivery = match waiting.items.front()? {
            Item::Some(part) => {
                let delivery = part.message(0);
                self.skip_packets(1);
                return Some(delivery);
            }
            Item::One(_) => waiting.items.pop_front().and_then(Item::into_one)?,
        };
        waiting.count_out(1, delivery.message.bytes());
        Some(delivery)
    }

    /// Those at the front that are kept as packets.
    #[inline]
    pub(super) fn first_packets(&self) -> Option<&Part> {
        match self.0.as_ref()?.items.front()? {
            Item::Some(part) => Some(part),
            Item::One(_) => None,
        }
    }

    /// Takes out the first so many of these.
    pub(super) fn skip_packets(&mut self, count: usize) {
        let Some(waiting) = &mut self.0 else { return };
        let Some(Item::Some(part)) = waiting.items.front_mut() else { return };
        let bytes = part.message_bytes(0..count);
        part.skip(count);
        if part.len() == 0 {
            waiting.items.pop_front();
        }
        waiting.count_out(count, bytes);
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.items.capacity())
    }

    /// Gives back the memory of a queue that has emptied after a burst.
    pub(super) fn trim(&mut self) {
        self.0.take_if(|waiting| waiting.items.is_empty() && waiting.items.capacity() > KEPT);
    }
}

impl Item {
    fn into_one(self) -> Option<Queued> {
        match self {
            Self::One(delivery) => Some(delivery),
            Self::Some(_) => None,
        }
    }
}

impl FromIterator<Queued> for Backlog {
    fn from_iter<I: IntoIterator<Item = Queued>>(messages: I) -> Self {
        let mut backlog = Self::default();
        messages.into_iter().for_each(|delivery| backlog.push_back(delivery));
        backlog
    }
}
