//! Messages that wait for one session.

use std::collections::VecDeque;

use super::session::Queued;

/// Accepted and not sent, oldest first. Not encoded: it costs a reference each.
///
/// Most sessions have none, and pay one word for it.
#[derive(Default)]
pub(super) struct Backlog(Option<Box<Waiting>>);

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Queued>,
    bytes: usize,
}

/// An emptied queue gives back its memory if it had grown past so many messages; below, keeping it is cheaper.
const KEPT: usize = 64;

impl Backlog {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.messages.len())
    }

    /// Topics, properties and payloads together, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.0.iter().flat_map(|waiting| &waiting.messages)
    }

    pub(super) fn push_back(&mut self, delivery: Queued) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += delivery.message.bytes();
        waiting.messages.push_back(delivery);
    }

    /// Puts back what [`Backlog::pop_front`] gave.
    pub(super) fn push_front(&mut self, delivery: Queued) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += delivery.message.bytes();
        waiting.messages.push_front(delivery);
    }

    pub(super) fn pop_front(&mut self) -> Option<Queued> {
        let waiting = self.0.as_mut()?;
        let delivery = waiting.messages.pop_front()?;
        waiting.bytes -= delivery.message.bytes();
        Some(delivery)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.messages.capacity())
    }

    /// Gives back the memory of a queue that has emptied after a burst.
    pub(super) fn trim(&mut self) {
        self.0.take_if(|waiting| waiting.messages.is_empty() && waiting.messages.capacity() > KEPT);
    }
}

impl IntoIterator for Backlog {
    type Item = Queued;
    type IntoIter = std::collections::vec_deque::IntoIter<Queued>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map(|waiting| waiting.messages).unwrap_or_default().into_iter()
    }
}

impl FromIterator<Queued> for Backlog {
    fn from_iter<I: IntoIterator<Item = Queued>>(messages: I) -> Self {
        let mut backlog = Self::default();
        messages.into_iter().for_each(|delivery| backlog.push_back(delivery));
        backlog
    }
}
