//! Retained messages.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError};

use super::arena::{Arena, ROOT};
use super::trie::{levels, split_level};
use crate::clock::Millis;
use crate::message::Message;
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The retained message of each topic, for all workers.
///
/// Behind one lock, which is taken by retained publishes (exclusive), by SUBSCRIBE, and for each few messages of a replay
/// (both shared); other messages do not come here.
pub struct Retained {
    store: RwLock<Store>,
}

/// What has become of the retained message of a topic.
#[derive(Debug, Clone)]
pub enum RetainedChange {
    /// It is this one.
    Set(Arc<Message>),
    /// There is none any more.
    Gone(Box<str>),
}

/// What each level of a message's topic beyond the second takes, if no other topic has it: a node and its edge.
const LEVEL_BYTES: usize = 96;

/// Changes for which memory is kept.
const CHANGES_KEPT: usize = 1024;

/// Messages that [`Retained::remove_expired`] removes at most under one lock.
pub const EXPIRED_AT_ONCE: usize = 256;

impl Retained {
    /// An empty store for at most `messages_max` messages whose topics, properties and payloads have at most
    /// `bytes_max` bytes together. Each level of a topic beyond the second counts for 96 bytes more, as it takes as much.
    #[must_use]
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { store: RwLock::new(Store { messages_max, bytes_max, ..Store::new() }) }
    }

    /// Has other bounds from now on. What is beyond them already stays, and nothing is added to it.
    pub fn set_bounds(&self, messages_max: usize, bytes_max: usize) {
        let mut store = self.write();
        (store.messages_max, store.bytes_max) = (messages_max, bytes_max);
    }

    /// Makes `message` the retained one of its topic [MQTT-3.3.1-5].
    ///
    /// One with an empty payload clears the topic instead [MQTT-3.3.1-7].
    ///
    /// # Errors
    /// [`Full`] if a bound would be exceeded. Then nothing changes: the previous message stays. Messages that expired
    /// count until [`remove_expired`](Self::remove_expired).
    pub fn set(&self, message: Arc<Message>) -> Result<(), Full> {
        if message.payload().is_empty() {
            self.clear(message.topic());
            return Ok(());
        }
        let mut store = self.write();
        self.check(&store, message.topic(), counted_bytes(message.topic(), message.bytes()))?;
        store.note(|| RetainedChange::Set(Arc::clone(&message)));
        store.insert(message);
        Ok(())
    }

    /// The same for a message that outlived the server that it was published to: nothing is noted.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn restore(&self, message: Arc<Message>) -> Result<(), Full> {
        let mut store = self.write();
        self.check(&store, message.topic(), counted_bytes(message.topic(), message.bytes()))?;
        store.insert(message);
        Ok(())
    }

    /// Has changes noted from now on, in their order, for [`with_changes`](Self::with_changes).
    pub fn note_changes(&self) {
        self.write().changes.get_or_insert_default();
    }

    /// Takes out what has changed, and gives it to `take`. Nobody changes anything meanwhile.
    pub fn with_changes<R>(&self, take: impl FnOnce(std::vec::Drain<'_, RetainedChange>) -> R) -> R {
        let mut store = self.write();
        let taken = take(store.changes.get_or_insert_default().drain(..));
        store.changes.get_or_insert_default().shrink_to(CHANGES_KEPT);
        taken
    }

    /// Whether a message of so many bytes could be retained for `topic` now.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn has_room(&self, topic: &str, bytes: usize) -> Result<(), Full> {
        self.check(&self.read(), topic, counted_bytes(topic, bytes))
    }

    fn check(&self, store: &Store, topic: &str, bytes: usize) -> Result<(), Full> {
        let replaced = store.find(topic);
        let (old_messages, old_bytes) = replaced.map_or((0, 0), |old| (1, counted_bytes(topic, old.bytes())));
        if store.messages - old_messages >= store.messages_max {
            return Err(Full::Messages { max: store.messages_max });
        }
        if store.bytes - old_bytes + bytes > store.bytes_max {
            return Err(Full::Bytes { got: bytes, max: store.bytes_max });
        }
        Ok(())
    }

    /// Removes the retained message of `topic` [MQTT-3.3.1-6], and returns whether there was one.
    pub fn clear(&self, topic: &str) -> bool {
        let mut store = self.write();
        let is_cleared = store.remove(topic).is_some();
        if is_cleared {
            store.note(|| RetainedChange::Gone(topic.into()));
        }
        is_cleared
    }

    /// The messages that match `filter` (valid, and without `$share/…`), in no order, as they are at this moment.
    /// Those that expired are left out [MQTT-3.3.2-5].
    #[must_use]
    pub fn matching(&self, filter: &str, now: Millis) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        self.read().for_each_match(filter, |_, leaf| {
            found.extend(leaf.message.as_ref().filter(|message| !message.is_expired(now)).cloned());
        });
        found
    }

    /// Where these messages are, for [`get`](Self::get): without those that were stored after [`mark`](Self::mark) returned
    /// this value, if there is one.
    ///
    /// A place instead of the message itself is half as large, and a message need not be touched before it is sent.
    #[must_use]
    pub fn find(&self, filter: &str, mark: Option<u64>) -> Found {
        let store = self.read();
        let mark = mark.unwrap_or(store.next_number);
        let mut places = Vec::new();
        let searched = store.for_each_match(filter, |place, leaf| {
            if leaf.message.is_some() && leaf.number < mark {
                places.push(place);
            }
        });
        Found { places, mark, searched }
    }

    /// The messages at some of the places that were found with `mark`, in this order: `None` for each that has been replaced
    /// or cleared since, or has expired [MQTT-3.3.2-5].
    pub fn get(&self, places: &[u32], mark: u64, now: Millis, into: &mut Vec<Option<Arc<Message>>>) {
        self.visit(places, mark, now, |message| {
            into.push(message.cloned());
            true
        });
    }

    /// Calls `visit` with each of them until it returns `false`. Who stores a message waits meanwhile, so it does nothing but
    /// copy, and not much.
    pub fn visit(&self, places: &[u32], mark: u64, now: Millis, mut visit: impl FnMut(Option<&Arc<Message>>) -> bool) {
        let store = self.read();
        for &place in places {
            // Another topic may have the place by now: its message has a later number.
            let leaf = store.arena.try_get(place).filter(|leaf| leaf.number < mark);
            let message = leaf.and_then(|leaf| leaf.message.as_ref()).filter(|message| !message.is_expired(now));
            if !visit(message) {
                return;
            }
        }
    }

    /// The messages at some of the places that were found with `mark`, without those that have been replaced or cleared since.
    #[must_use]
    pub fn topics(&self, places: &[u32], mark: u64) -> Vec<Arc<Message>> {
        let store = self.read();
        let leaf = |place: &u32| store.arena.try_get(*place).filter(|leaf| leaf.number < mark);
        places.iter().filter_map(leaf).filter_map(|leaf| leaf.message.clone()).collect()
    }

    /// Where the messages of some topics are, of those that have one.
    #[must_use]
    pub fn places(&self, topics: &[&str]) -> Vec<u32> {
        let store = self.read();
        topics.iter().filter_map(|topic| store.node(topic)).collect()
    }

    /// Messages with their numbers, in the order of their places, from the place `from` on, as many as have so many bytes
    /// together or a few more; and the place to go on from.
    #[must_use]
    pub fn numbered(&self, from: u32, bytes_max: usize) -> (Vec<Numbered>, Option<u32>) {
        let store = self.read();
        let (mut some, mut bytes) = (Vec::new(), 0);
        for place in from..store.arena.end() {
            if bytes >= bytes_max {
                return (some, Some(place));
            }
            let leaf = store.arena.get(place);
            if let Some(message) = &leaf.message {
                bytes += message.bytes();
                some.push(Numbered { message: Arc::clone(message), number: leaf.number, since: leaf.since });
            }
        }
        (some, None)
    }

    /// Takes in a message of another store with the numbers that it has there, whatever the bounds are, and the
    /// [`mark`](Self::mark) of that store: marks that it has given hold here as well, once all of its messages are here.
    pub fn inherit(&self, numbered: Numbered, mark: u64) {
        let mut store = self.write();
        let topic = numbered.message.topic().to_owned();
        store.insert(numbered.message);
        store.next_number = store.next_number.max(mark);
        if let Some(node) = store.node(&topic) {
            let leaf = store.arena.get_mut(node);
            (leaf.number, leaf.since) = (numbered.number, numbered.since);
        }
    }

    /// Messages in the order of their places, from the place `from` on, as far as `places` of them or `rows` messages go.
    /// A topic keeps its place for as long as it has a message. Topics that had none when [`mark`](Self::mark) returned
    /// this value are left out, and those whose message is not `wanted`.
    #[must_use]
    pub fn page(&self, from: u32, mark: u64, places: usize, rows: usize, wanted: impl Fn(&Message) -> bool) -> Page {
        let store = self.read();
        let end = store.arena.end();
        let mut page = Page { messages: Vec::new(), next: None, places: 0 };
        for place in from..end {
            if page.places >= places || page.messages.len() >= rows {
                page.next = Some(place);
                break;
            }
            page.places += 1;
            let leaf = store.arena.get(place);
            if let Some(message) = leaf.message.as_ref().filter(|message| leaf.since < mark && wanted(message)) {
                page.messages.push((place, Arc::clone(message)));
            }
        }
        page
    }

    /// A value by which what is stored now can be told from what is stored later.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.read().next_number
    }

    /// Removes messages whose Message Expiry Interval has passed, and returns them: at most [`EXPIRED_AT_ONCE`], so that
    /// nobody waits for the lock for long. For a timer, which asks [`next_expiry`](Self::next_expiry) whether there are
    /// more.
    pub fn remove_expired(&self, now: Millis) -> Vec<Arc<Message>> {
        // Nearly always there is nothing to do: that much is found out without keeping the readers out.
        if self.read().next_expiry().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let mut store = self.write();
        let mut removed = Vec::new();
        while removed.len() < EXPIRED_AT_ONCE
            && let Some(&(at, node)) = store.expiring.first()
            && at <= now
        {
            removed.extend(store.take(node));
        }
        for message in &removed {
            store.note(|| RetainedChange::Gone(message.topic().into()));
        }
        removed
    }

    /// When the next message expires, if any does.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Millis> {
        self.read().next_expiry()
    }

    /// The number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().messages
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that they count for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.read().bytes
    }

    fn read(&self) -> RwLockReadGuard<'_, Store> {
        // Only a panic of ours could poison it; the messages that are there are better served than refused.
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A retained message with the numbers by which it is told from those that were stored before and after.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// The message.
    pub message: Arc<Message>,
    /// Its own number.
    pub number: u64,
    /// The number of the message from which on its topic has had one throughout.
    pub since: u64,
}

/// The places of retained messages.
#[derive(Debug)]
pub struct Found {
    /// In no order.
    pub places: Vec<u32>,
    /// Messages stored since are none of these, whatever their place.
    pub mark: u64,
    /// How many nodes were searched.
    pub searched: usize,
}

/// Some retained messages.
#[derive(Debug)]
pub struct Page {
    /// Each with its place.
    pub messages: Vec<(u32, Arc<Message>)>,
    /// The place that was not looked at any more; `None` if there is none behind these.
    pub next: Option<u32>,
    /// How many were looked at.
    pub places: usize,
}

/// What a message of so many bytes counts for.
fn counted_bytes(topic: &str, bytes: usize) -> usize {
    let separators = topic.bytes().filter(|byte| *byte == b'/').count();
    bytes + separators.saturating_sub(1) * LEVEL_BYTES
}

/// Why a message was not retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// There are as many messages as there may be.
    Messages {
        /// The bound.
        max: usize,
    },
    /// Together with the others it would have too many bytes.
    Bytes {
        /// Those of the message.
        got: usize,
        /// The bound for all messages together.
        max: usize,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages { max } => {
                write!(f, "{max} messages are retained, and no more may be: clear some, or raise retained_messages_max")
            }
            Self::Bytes { got, max } => write!(
                f,
                "a message of {got} bytes does not fit into the {max} bytes for retained messages: clear some, or \
                 raise retained_bytes_max"
            ),
        }
    }
}

impl std::error::Error for Full {}

/// A tree of topic levels. Unlike in the trie of filters it is the searched-for that has wildcards: so the children of
/// a node are also linked to each other.
struct Store {
    arena: Arena<Leaf>,
    messages: usize,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
    /// The nodes whose message expires, by when.
    expiring: BTreeSet<(Millis, u32)>,
    /// Messages are numbered as they are stored.
    next_number: u64,
    /// What has changed and was not taken out, if somebody wants to know.
    changes: Option<Vec<RetainedChange>>,
}

/// Links are [`ROOT`] for none.
#[derive(Default)]
struct Leaf {
    message: Option<Arc<Message>>,
    number: u64,
    /// The number of the message from which on the topic has had one throughout.
    since: u64,
    first_child: u32,
    next: u32,
    previous: u32,
}

impl Store {
    fn new() -> Self {
        Self {
            arena: Arena::new(),
            messages: 0,
            bytes: 0,
            messages_max: usize::MAX,
            bytes_max: usize::MAX,
            expiring: BTreeSet::new(),
            next_number: 0,
            changes: None,
        }
    }

    fn note(&mut self, change: impl FnOnce() -> RetainedChange) {
        if let Some(changes) = &mut self.changes {
            changes.push(change());
        }
    }

    fn node(&self, topic: &str) -> Option<u32> {
        levels(topic).try_fold(ROOT, |parent, level| self.arena.child(parent, level))
    }

    fn find(&self, topic: &str) -> Option<&Message> {
        self.arena.get(self.node(topic)?).message.as_deref()
    }

    fn next_expiry(&self) -> Option<Millis> {
        self.expiring.first().map(|&(at, _)| at)
    }

    fn insert(&mut self, message: Arc<Message>) {
        let node = levels(message.topic()).fold(ROOT, |parent, level| {
            let (child, is_new) = self.arena.child_or_new(parent, level);
            if is_new {
                self.link(parent, child);
            }
            child
        });
        let replaced = self.take_out(node);
        self.messages += 1;
        self.bytes += counted_bytes(message.topic(), message.bytes());
        if let Some(at) = message.expires_at() {
            self.expiring.insert((at, node));
        }
        let leaf = self.arena.get_mut(node);
        leaf.message = Some(message);
        leaf.number = self.next_number;
        if replaced.is_none() {
            leaf.since = self.next_number;
        }
        self.next_number += 1;
    }

    fn remove(&mut self, topic: &str) -> Option<Arc<Message>> {
        self.node(topic).and_then(|node| self.take(node))
    }

    /// Removes the message of `node`, and the nodes that this leaves empty.
    fn take(&mut self, mut node: u32) -> Option<Arc<Message>> {
        let removed = self.take_out(node);
        while node != ROOT && !self.arena.has_children(node) && self.arena.get(node).message.is_none() {
            let parent = self.arena.parent(node);
            self.remove_child(parent, node);
            node = parent;
        }
        removed
    }

    /// Takes the message of `node` out, if it has one.
    fn take_out(&mut self, node: u32) -> Option<Arc<Message>> {
        let old = self.arena.get_mut(node).message.take()?;
        self.messages -= 1;
        self.bytes -= counted_bytes(old.topic(), old.bytes());
        if let Some(at) = old.expires_at() {
            self.expiring.remove(&(at, node));
        }
        Some(old)
    }

    fn link(&mut self, parent: u32, child: u32) {
        let second = std::mem::replace(&mut self.arena.get_mut(parent).first_child, child);
        self.arena.get_mut(child).next = second;
        if second != ROOT {
            self.arena.get_mut(second).previous = child;
        }
    }

    fn remove_child(&mut self, parent: u32, child: u32) {
        let &Leaf { next, previous, .. } = self.arena.get(child);
        if previous == ROOT {
            self.arena.get_mut(parent).first_child = next;
        } else {
            self.arena.get_mut(previous).next = next;
        }
        if next != ROOT {
            self.arena.get_mut(next).previous = previous;
        }
        self.arena.remove(child);
    }

    /// The children of `node` that a wildcard matches.
    fn children(&self, node: u32) -> impl Iterator<Item = u32> {
        let link = |node: u32| (node != ROOT).then_some(node);
        std::iter::successors(link(self.arena.get(node).first_child), move |&child| link(self.arena.get(child).next))
            // [MQTT-4.7.2-1] a filter that starts with a wildcard does not match a topic that starts with `$`.
            .filter(move |&child| node != ROOT || !self.arena.level(child).starts_with(b"$"))
    }

    /// Calls `visit` with what matches `filter`. Returns how many nodes were searched.
    fn for_each_match(&self, filter: &str, mut visit: impl FnMut(u32, &Leaf)) -> usize {
        // Nodes that match so far, with the levels still to match. No allocation until a wildcard in the middle has several.
        let mut open = Vec::new();
        let mut next = Some((ROOT, Some(filter)));
        let mut searched = 0;
        while let Some((node, rest)) = next.take().or_else(|| open.pop()) {
            searched += 1;
            let Some(rest) = rest else {
                visit(node, self.arena.get(node));
                continue;
            };
            match split_level(rest) {
                ("#", _) => {
                    // This level and all below: `a/#` matches `a` as well.
                    visit(node, self.arena.get(node));
                    searched += self.for_each_below(node, &mut visit);
                }
                // The last level: what is there is visited at once.
                ("+", None) => {
                    for child in self.children(node) {
                        searched += 1;
                        visit(child, self.arena.get(child));
                    }
                }
                ("+", rest) => open.extend(self.children(node).map(|child| (child, rest))),
                (level, rest) => next = self.arena.child(node, level).map(|child| (child, rest)),
            }
        }
        searched
    }

    /// Calls `visit` with all nodes below `top` that a wildcard matches, each of which is read once: the links lead from one
    /// to the next, however many there are and however deep. Returns how many.
    fn for_each_below(&self, top: u32, visit: &mut impl FnMut(u32, &Leaf)) -> usize {
        let mut visited = 0;
        for child in self.children(top) {
            let mut node = child;
            'below: loop {
                visited += 1;
                let leaf = self.arena.get(node);
                visit(node, leaf);
                let mut next = leaf.first_child;
                while next == ROOT {
                    if node == child {
                        break 'below;
                    }
                    next = self.arena.get(node).next;
                    if next == ROOT {
                        node = self.arena.parent(node);
                    }
                }
                node = next;
            }
        }
        visited
    }
}
