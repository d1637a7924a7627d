//! Who gets an Application Message: the merged result of a match.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use plugin_api::QoS;

use super::roster::{Keyed, Roster};
use super::shared::Group;
use super::trie::Value;
use crate::codec::SubscribeOptions;

/// Which session: `slot` is its place in its worker's table, and `serial` tells it from others that had the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Index in the worker's table of sessions.
    pub slot: u32,
    /// Differs between sessions that used one slot after another.
    pub serial: u32,
}

/// Who gets the messages of one Topic Name.
#[derive(Debug, Default)]
pub struct Targets {
    /// Sessions of this worker, each once, in the order of their keys if several filters matched.
    pub local: Locals,
    /// One bit for each *other* worker that has at least one matching subscription which is not shared.
    pub remote: u64,
    /// Shared subscriptions: one member of each group gets the message; see [`Group::choose`].
    pub groups: Box<[Arc<Group>]>,
    /// For who delivers to them, to find again what it has made of these targets; 0 at first.
    pub mark: Cell<u64>,
}

impl Targets {
    /// Whether nobody at all has subscribed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote == 0 && self.groups.is_empty()
    }

    /// The one session that gets them, if it is of this worker.
    #[inline]
    #[must_use]
    pub fn one(&self) -> Option<&Target> {
        let [target] = &*self.local else { return None };
        (self.remote == 0 && self.groups.is_empty()).then_some(target)
    }

    /// The Shared Subscription that gets them, if nobody else does.
    #[inline]
    #[must_use]
    pub fn one_group(&self) -> Option<&Group> {
        let [group] = &*self.groups else { return None };
        (self.remote == 0 && self.local.is_empty()).then_some(group)
    }

    /// Memory behind this value, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let own = |target: &Target| match &target.own {
            Own::Other(other) => size_of::<Target>() + size_of_val(&*other.identifiers),
            Own::Same | Own::Nothing => 0,
        };
        let local: usize = self.local.iter().map(|target| size_of_val(&*target.identifiers) + own(target)).sum();
        let slice = if let Locals::Many(targets) = &self.local { size_of_val(&**targets) } else { 0 };
        size_of::<Self>() + local + slice + size_of_val(&*self.groups)
    }
}

/// Who gets the messages of a topic, where that is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WentTo {
    /// This session of this worker.
    Session(SessionKey),
    /// A member of one Shared Subscription.
    Group,
}

/// Some targets. Most topics have one: it is in place, as each place in memory that a message leads to is a miss of the cache
/// where there are many topics.
#[derive(Debug, Default)]
pub enum Locals {
    /// Nobody.
    #[default]
    None,
    /// One session.
    One(Target),
    /// Several.
    Many(Box<[Target]>),
}

impl Deref for Locals {
    type Target = [Target];
    #[inline]
    fn deref(&self) -> &[Target] {
        match self {
            Self::None => &[],
            Self::One(target) => std::slice::from_ref(target),
            Self::Many(targets) => targets,
        }
    }
}

impl FromIterator<Target> for Locals {
    fn from_iter<I: IntoIterator<Item = Target>>(targets: I) -> Self {
        let mut targets = targets.into_iter();
        match (targets.next(), targets.next()) {
            (None, _) => Self::None,
            (Some(first), None) => Self::One(first),
            (Some(first), Some(second)) => {
                let mut all = Vec::with_capacity(2 + targets.size_hint().1.unwrap_or(0));
                all.extend([first, second]);
                all.extend(targets);
                Self::Many(all.into_boxed_slice())
            }
        }
    }
}

/// One session that gets the message, once, whatever number of its subscriptions matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The session.
    pub session: SessionKey,
    /// Highest QoS of the matching subscriptions [MQTT-3.3.4-2].
    pub qos: QoS,
    /// Whether the RETAIN flag is forwarded as published [MQTT-3.3.1-13]: if any matching subscription asks for it.
    pub retain_as_published: bool,
    /// Subscription Identifiers of all matching subscriptions, in ascending order, with repetitions if the client used
    /// one identifier for several of them [MQTT-3.3.4-4]. Empty (no allocation) if there are none.
    pub identifiers: Box<[u32]>,
    /// What the session gets instead if it is the publisher.
    pub own: Own,
}

/// What a session gets of its own messages, as No Local leaves out some of its subscriptions (section
/// 3.8.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// The same as those of others: no matching subscription is No Local.
    Same,
    /// Nothing: each of them is No Local.
    Nothing,
    /// What follows from those that are not No Local. Its own `own` is [`Own::Same`].
    Other(Box<Target>),
}

impl Target {
    /// What applies if `publisher` published the message; `None` if it must not be sent to this session.
    #[inline]
    #[must_use]
    pub fn for_publisher(&self, publisher: Option<SessionKey>) -> Option<&Target> {
        if publisher != Some(self.session) {
            return Some(self);
        }
        match &self.own {
            Own::Same => Some(self),
            Own::Nothing => None,
            Own::Other(other) => Some(other),
        }
    }
}

/// One Subscription as the trie keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) session: SessionKey,
    pub(super) options: SubscribeOptions,
    pub(super) identifier: Option<NonZeroU32>,
}

impl Keyed for Subscription {
    type Key = SessionKey;
    fn key(&self) -> SessionKey {
        self.session
    }
}

/// The subscriptions to one filter: [MQTT-3.8.4-3] at most one for each session.
pub(super) type Subscribers = Roster<Subscription>;

impl Value for Subscribers {
    fn is_vacant(&self) -> bool {
        self.is_empty()
    }
}

/// Merges the subscribers of all matching filters into one target for each session.
pub(super) fn merge(lists: &[&[Subscription]]) -> Locals {
    if let [list] = lists {
        // A session is in a list once: there is nothing to merge.
        return list.iter().map(|subscription| target(std::slice::from_ref(subscription))).collect();
    }
    let mut all = lists.concat();
    all.sort_unstable_by_key(|subscription| subscription.session);
    all.chunk_by(|a, b| a.session == b.session).map(target).collect()
}

/// The target of one session, which has at least one subscription.
fn target(subscriptions: &[Subscription]) -> Target {
    let not_local = |subscription: &&Subscription| !subscription.options.no_local;
    let mut target = merged(subscriptions.iter());
    target.own = match subscriptions.iter().filter(not_local).count() {
        0 => Own::Nothing,
        count if count == subscriptions.len() => Own::Same,
        _ => Own::Other(Box::new(merged(subscriptions.iter().filter(not_local)))),
    };
    target
}

fn merged<'a>(subscriptions: impl Iterator<Item = &'a Subscription> + Clone) -> Target {
    let mut identifiers: Box<[u32]> =
        subscriptions.clone().filter_map(|subscription| subscription.identifier.map(NonZeroU32::get)).collect();
    identifiers.sort_unstable();
    let first = subscriptions.clone().next().expect("the caller has at least one subscription");
    let mut target = Target {
        session: first.session,
        qos: QoS::AtMostOnce,
        retain_as_published: false,
        identifiers,
        own: Own::Same,
    };
    for subscription in subscriptions {
        // [MQTT-3.3.4-2] the highest QoS of all of them.
        target.qos = target.qos.max(subscription.options.qos);
        target.retain_as_published |= subscription.options.retain_as_published;
    }
    target
}
