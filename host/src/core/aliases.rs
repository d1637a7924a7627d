//! Topic Aliases towards one client (section 3.3.2.3.4): what a topic that comes again and again costs on the wire.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::connection::Connection;
use super::templates::{Class, Own, encode};
use crate::clock::Millis;
use crate::message::MessageParts;

/// Shorter Topic Names gain nothing: an alias takes three bytes of each PUBLISH, so that the first one is paid for by the
/// second one from this length on.
const TOPIC_BYTES_MIN: usize = 6;
/// Longer ones are sent as they are, so that what is kept for a client stays small.
const TOPIC_BYTES_MAX: usize = 1024;
/// An alias goes to another topic when it was not used while this many times as many packets were sent as there are aliases.
/// Who gets ever new topics wastes three bytes in so many packets, and who goes over to other topics soon has them.
const IDLE_FACTOR: u32 = 16;

/// The Topic Aliases of one Network Connection. They cost nothing before the first of them is sent.
#[derive(Debug, Default)]
pub(super) struct OutboundAliases {
    /// By alias minus one.
    entries: Vec<Entry>,
    topic_bytes: usize,
    /// The place that is looked at next for an alias that is not used any more.
    hand: usize,
    /// Counts packets.
    clock: u32,
}

#[derive(Debug)]
struct Entry {
    hash: u32,
    used_at: u32,
    /// Empty if its packet was not sent.
    topic: Box<str>,
}

/// The alias of a packet that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alias {
    pub(super) number: u16,
    /// The client has been told its topic, which is left out.
    pub(super) is_known: bool,
}

impl Connection {
    /// Appends a PUBLISH packet for a client that takes Topic Aliases. One that is too large for the client sets no alias:
    /// it is left to the caller, who drops it. `true`: another topic than before has an alias.
    pub(super) fn append_with_alias(
        &mut self,
        class: Class,
        parts: &MessageParts<'_>,
        mut own: Own<'_>,
        now: Millis,
    ) -> bool {
        let (start, max) = (self.out.len(), self.aliases_max);
        if !OutboundAliases::suit(parts.topic) {
            encode(&mut self.out, class, parts, &own, now);
            return false;
        }
        own.alias = self.extra().outbound_aliases.get_or_insert_default().of(parts.topic, max);
        encode(&mut self.out, class, parts, &own, now);
        let has_changed = own.alias.is_some_and(|alias| !alias.is_known);
        let is_too_large = self.out.len() - start > self.packet_bytes_max as usize;
        // What sets an alias is longer than what does without.
        if let Some(alias) = own.alias.take_if(|alias| is_too_large && !alias.is_known) {
            self.extra().outbound_aliases.get_or_insert_default().forget(alias);
            self.out.truncate(start);
            encode(&mut self.out, class, parts, &own, now);
        }
        has_changed
    }
}

impl OutboundAliases {
    /// Memory behind it, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.entries.capacity() * size_of::<Entry>() + self.topic_bytes
    }

    /// The topics by alias; empty where it stands for none.
    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.topic)
    }

    /// The aliases of a client that has been told these topics.
    pub(super) fn of_topics(topics: Vec<&str>) -> Self {
        let hash = |topic: &str| FixedState::default().hash_one(topic) as u32;
        let topic_bytes = topics.iter().map(|topic| topic.len()).sum();
        let entries = topics.into_iter().map(|topic| Entry { hash: hash(topic), used_at: 0, topic: topic.into() });
        Self { entries: entries.collect(), topic_bytes, hand: 0, clock: 0 }
    }

    /// Whether a topic is worth an alias.
    pub(super) fn suit(topic: &str) -> bool {
        (TOPIC_BYTES_MIN..=TOPIC_BYTES_MAX).contains(&topic.len())
    }

    /// The alias of a topic that is worth it, of at most `max`; it is known from now on. `None` if the topic is to be sent as it is.
    pub(super) fn of(&mut self, topic: &str, max: u8) -> Option<Alias> {
        self.clock = self.clock.wrapping_add(1);
        let hash = FixedState::default().hash_one(topic) as u32;
        if let Some(place) = self.entries.iter().position(|entry| entry.hash == hash && *entry.topic == *topic) {
            self.entries[place].used_at = self.clock;
            return Some(Alias { number: number(place), is_known: true });
        }
        let place = self.free(usize::from(max))?;
        self.put(place, Entry { hash, used_at: self.clock, topic: topic.into() });
        Some(Alias { number: number(place), is_known: false })
    }

    /// The place of an alias that may stand for another topic.
    fn free(&mut self, max: usize) -> Option<usize> {
        if self.entries.len() < max {
            self.entries.push(Entry { hash: 0, used_at: 0, topic: Box::default() });
            return Some(self.entries.len() - 1);
        }
        let place = self.hand;
        self.hand = (place + 1).checked_rem(max)?;
        let entry = &self.entries[place];
        let idle = self.clock.wrapping_sub(entry.used_at) > self.entries.len() as u32 * IDLE_FACTOR;
        (idle || entry.topic.is_empty()).then_some(place)
    }

    /// The packet that would have set an alias was not sent.
    pub(super) fn forget(&mut self, alias: Alias) {
        self.put(usize::from(alias.number) - 1, Entry { hash: 0, used_at: 0, topic: Box::default() });
    }

    fn put(&mut self, place: usize, entry: Entry) {
        self.topic_bytes += entry.topic.len();
        let before = std::mem::replace(&mut self.entries[place], entry);
        self.topic_bytes -= before.topic.len();
    }
}

fn number(place: usize) -> u16 {
    u16::try_from(place + 1).expect("there are at most 255")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(number: u16) -> Option<Alias> {
        Some(Alias { number, is_known: true })
    }

    fn new(number: u16) -> Option<Alias> {
        Some(Alias { number, is_known: false })
    }

    #[test]
    fn first_topics_get_the_aliases() {
        let mut aliases = OutboundAliases::default();
        assert_eq!(aliases.of("topic/1", 2), new(1));
        assert_eq!(aliases.of("topic/2", 2), new(2));
        assert_eq!(aliases.of("topic/3", 2), None);
        assert_eq!(aliases.of("topic/1", 2), known(1));
        assert_eq!(aliases.of("topic/3", 3), new(3));
        for (bytes, suits) in [(0, false), (5, false), (6, true), (1024, true), (1025, false)] {
            assert_eq!(OutboundAliases::suit(&"x".repeat(bytes)), suits, "{bytes}");
        }
    }

    #[test]
    fn unused_aliases_go_to_other_topics() {
        let mut aliases = OutboundAliases::default();
        aliases.of("topic/1", 2);
        aliases.of("topic/2", 2);
        let mut set = 0;
        for number in 0..1000 {
            assert_eq!(aliases.of("topic/1", 2), known(1));
            match aliases.of(&format!("once/{number}"), 2) {
                None => {}
                Some(alias) => {
                    assert_eq!(alias, Alias { number: 2, is_known: false });
                    set += 1;
                }
            }
        }
        assert!((1..=1000 / 16).contains(&set), "{set} of 1000");
        assert!((0..100).any(|_| aliases.of("topic/3", 2) == new(2)));
        assert_eq!(aliases.of("topic/3", 2), known(2));
    }

    #[test]
    fn alias_that_was_not_sent_is_set_again() {
        let mut aliases = OutboundAliases::default();
        let alias = aliases.of("topic/1", 1).unwrap();
        aliases.forget(alias);
        assert_eq!(aliases.of("topic/2", 1), new(1));
        assert_eq!(aliases.of("topic/1", 1), None);
    }
}
