//! From a Topic Name to those who get its messages.
//!
//! Each worker has a [`Router`] with the subscriptions of its own sessions. All of them share one [`Interest`], which
//! says what the other workers want and who the members of Shared Subscriptions are, and one [`Retained`].
//!
//! ```text
//! targets(topic) ─ cache, valid by generation ─hit→ Rc<Targets>
//!                     └miss→ trie of this worker → one target per session
//!                            Interest            → bits of other workers, groups
//! ```
//!
//! Topic Names and Topic Filters are valid when they come here (see `plugin_api::topic`), without `$share/…`. They may
//! have 65,535 levels, which costs memory and time in proportion, but no stack.

mod arena;
mod cache;
mod interest;
mod retained;
mod roster;
mod shared;
mod targets;
#[cfg(test)]
pub(crate) mod tests;
mod trie;

use std::num::{NonZeroU32, NonZeroU64};
use std::rc::Rc;
use std::sync::Arc;

pub use crate::codec::SubscribeOptions;
pub use interest::{Interest, WORKERS_MAX};
pub use retained::{EXPIRED_AT_ONCE, Found, Full, Numbered, Retained, RetainedChange};
pub use shared::{Chooser, Group, Left, Member, Presence, Standing};
pub use targets::{Locals, Own, SessionKey, Target, Targets, WentTo};

use cache::Cache;
use targets::{Subscribers, Subscription, merge};
use trie::Trie;

/// The subscriptions of one worker's sessions, and the way to everybody else's.
///
/// When one of the four methods that change a subscription returns, the next [`targets`](Self::targets) of every
/// worker sees the change: so the SUBACK may be sent. A session that ends has to be unsubscribed from everything.
pub struct Router {
    worker: usize,
    interest: Arc<Interest>,
    subscriptions: Trie<Subscribers>,
    cache: Cache,
    /// Nodes that were searched since [`take_searched`](Self::take_searched) was called.
    searched: usize,
    /// Shared by all topics that nobody wants.
    nobody: Rc<Targets>,
}

impl Router {
    /// A router without subscriptions for the worker with this number.
    ///
    /// # Panics
    /// If `interest` was made for fewer workers.
    #[must_use]
    pub fn new(worker: usize, interest: Arc<Interest>) -> Self {
        assert!(
            worker < interest.workers(),
            "worker {worker} of {} cannot exist: they are counted from 0",
            interest.workers()
        );
        Self { worker, interest, subscriptions: Trie::new(), cache: Cache::new(), searched: 0, nobody: Rc::default() }
    }

    /// Adds a subscription that is not shared, and returns whether it replaced one of this session [MQTT-3.8.4-3].
    pub fn subscribe(
        &mut self,
        session: SessionKey,
        filter: &str,
        options: SubscribeOptions,
        identifier: Option<NonZeroU32>,
    ) -> bool {
        let subscription = Subscription { session, options, identifier };
        let place = self.subscriptions.insert(filter);
        let subscribers = self.subscriptions.value_mut(place);
        let is_first = subscribers.is_empty();
        let replaced = subscribers.insert(subscription);
        if replaced == Some(subscription) {
            return true; // Nothing changed, so that nothing has become outdated.
        }
        if is_first {
            self.interest.set_worker(self.worker, filter, true);
        }
        self.interest.generations().bump(filter);
        replaced.is_some()
    }

    /// Removes a subscription that is not shared [MQTT-3.10.4-1], and returns whether there was one.
    pub fn unsubscribe(&mut self, session: SessionKey, filter: &str) -> bool {
        let Some(place) = self.subscriptions.find(filter) else {
            return false;
        };
        let subscribers = self.subscriptions.value_mut(place);
        if subscribers.remove(session).is_none() {
            return false;
        }
        if subscribers.is_empty() {
            self.subscriptions.prune(place);
            self.interest.set_worker(self.worker, filter, false);
        }
        self.interest.generations().bump(filter);
        true
    }

    /// Adds a session to the group `share_name` of `filter`, or replaces its subscription there. Returns
    /// [`Group::number`].
    ///
    /// `presence` says what the session can take, for [`Group::choose`].
    pub fn subscribe_shared(
        &mut self,
        session: SessionKey,
        share_name: &str,
        filter: &str,
        options: SubscribeOptions,
        identifier: Option<NonZeroU32>,
        presence: Arc<Presence>,
    ) -> NonZeroU64 {
        let member = Member { worker: self.worker, session, options, identifier, presence };
        let joined = self.interest.join(share_name, filter, member.clone());
        if joined.replaced.is_none_or(|old| !old.is_same(&member)) {
            self.interest.generations().bump(filter);
        }
        joined.number
    }

    /// Removes a session from the group `share_name` of `filter`. `None` if it was no member.
    pub fn unsubscribe_shared(&mut self, session: SessionKey, share_name: &str, filter: &str) -> Option<Left> {
        let left = self.interest.leave(share_name, filter, self.worker, session);
        if left.is_some() {
            self.interest.generations().bump(filter);
        }
        left
    }

    /// The Topic Name with these bytes, if messages of it were routed before: then it is known to be valid. `place` is what
    /// this has left there when the same client asked for its last one, so that the same again is found at once.
    #[inline]
    pub fn known_topic(&mut self, bytes: &[u8], place: &mut u32) -> Option<Rc<str>> {
        self.cache.topic(bytes, place).map(Rc::clone)
    }

    /// Who the topic at a `place`, see [`known_topic`](Self::known_topic), went to when it was routed last. `None`: to nobody, or
    /// to several.
    #[inline]
    #[must_use]
    pub fn went_to(&self, place: u32) -> Option<WentTo> {
        let targets = self.cache.targets_at(place)?;
        match targets.one() {
            Some(target) => Some(WentTo::Session(target.session)),
            None => targets.one_group().map(|_| WentTo::Group),
        }
    }

    /// Who gets the messages of `topic`.
    #[inline]
    pub fn targets(&mut self, topic: &str) -> Rc<Targets> {
        match self.cache.get(topic, self.interest.generations()) {
            Some(targets) => targets,
            None => self.find_targets(topic),
        }
    }

    /// Nodes of this worker's trie: one for each level of its filters, but what they have in common counts once.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.subscriptions.len()
    }

    /// The nodes of tries that were searched since this was called last: what [`targets`](Self::targets) has cost beyond
    /// its cache. It may be a hundred thousand for a topic that as many filters with wildcards match.
    pub fn take_searched(&mut self) -> usize {
        std::mem::take(&mut self.searched)
    }

    #[cold]
    fn find_targets(&mut self, topic: &str) -> Rc<Targets> {
        let generations = self.interest.generations();
        let watched = generations.watch(topic);
        // Read first: a change that comes while we search makes outdated what we keep.
        let generation = generations.current(watched);
        let mut lists: Vec<&[Subscription]> = Vec::new();
        let searched = self.subscriptions.for_each_match(topic, |subscribers| {
            if !subscribers.is_empty() {
                lists.push(subscribers.as_slice());
            }
        });
        let (remote, groups, also_searched) = self.interest.find(topic, self.worker);
        self.searched += searched + also_searched;
        let targets = Targets { local: merge(&lists), remote, groups, ..Targets::default() };
        let targets = if targets.is_empty() { Rc::clone(&self.nobody) } else { Rc::new(targets) };
        self.cache.put(topic, watched, generation, Rc::clone(&targets));
        targets
    }
}
