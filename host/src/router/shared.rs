//! Shared Subscriptions: groups of sessions, one of which gets each message.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::SessionKey;
use super::roster::{Keyed, Roster};
use crate::codec::SubscribeOptions;

/// The members of one Shared Subscription at one time.
#[derive(Debug)]
pub struct Group {
    share_name: Arc<str>,
    filter: Arc<str>,
    members: Box<[Member]>,
    /// Goes on counting when members come and go.
    next: Arc<AtomicUsize>,
}

impl Group {
    /// The ShareName.
    #[must_use]
    pub fn share_name(&self) -> &str {
        &self.share_name
    }

    /// The Topic Filter, without `$share` and ShareName.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The members, of all workers; never empty.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member that gets the next message: those that are online in turn, whichever worker asks. If none is online,
    /// one of the others in turn: its session queues the message.
    ///
    /// `None` only for a group without members, which the router does not make.
    #[must_use]
    pub fn choose(&self) -> Option<&Member> {
        let count = self.members.len();
        let start = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count)?;
        let (before, from) = self.members.split_at(start);
        from.iter()
            .chain(before)
            .find(|member| member.online.load(Ordering::Relaxed))
            .or_else(|| self.members.get(start))
    }
}

/// One session's part in a Shared Subscription.
#[derive(Debug, Clone)]
pub struct Member {
    /// The worker that owns the session.
    pub worker: usize,
    /// The session, in that worker's table.
    pub session: SessionKey,
    /// Its subscription's options: the granted QoS among them [MQTT-4.8.2-3].
    pub options: SubscribeOptions,
    /// Its Subscription Identifier, if it has one.
    pub identifier: Option<NonZeroU32>,
    /// Whether the session has a Network Connection; its worker keeps it up to date.
    pub online: Arc<AtomicBool>,
}

impl Member {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.options == other.options && self.identifier == other.identifier && Arc::ptr_eq(&self.online, &other.online)
    }
}

impl Keyed for Member {
    type Key = (usize, SessionKey);
    fn key(&self) -> Self::Key {
        (self.worker, self.session)
    }
}

/// The groups of one Topic Filter, by ShareName. Filters without any, nearly all, pay one word.
#[derive(Default)]
pub(super) struct Groups(Option<Box<HashMap<Arc<str>, Shared, RandomState>>>);

/// A group while its members change.
struct Shared {
    filter: Arc<str>,
    members: Roster<Member>,
    next: Arc<AtomicUsize>,
    /// Made when a publish first needs it after a change, so that many members can join at the cost of one each.
    group: OnceLock<Arc<Group>>,
}

impl Groups {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds a member, and returns the subscription that it takes the place of.
    pub(super) fn join(&mut self, share_name: &str, filter: &str, member: Member) -> Option<Member> {
        let shared = self.0.get_or_insert_default().entry(share_name.into()).or_insert_with(|| Shared {
            filter: filter.into(),
            members: Roster::default(),
            next: Arc::default(),
            group: OnceLock::new(),
        });
        shared.group = OnceLock::new();
        shared.members.insert(member)
    }

    /// Removes a member, and returns whether it was one.
    pub(super) fn leave(&mut self, share_name: &str, worker: usize, session: SessionKey) -> bool {
        let Some(groups) = &mut self.0 else {
            return false;
        };
        let Some(shared) = groups.get_mut(share_name) else {
            return false;
        };
        if shared.members.remove((worker, session)).is_none() {
            return false;
        }
        shared.group = OnceLock::new();
        if shared.members.is_empty() {
            groups.remove(share_name);
        }
        if groups.is_empty() {
            self.0 = None;
        }
        true
    }

    pub(super) fn append_to(&self, groups: &mut Vec<Arc<Group>>) {
        let Some(by_name) = &self.0 else {
            return;
        };
        groups.extend(by_name.iter().map(|(share_name, shared)| {
            let group = shared.group.get_or_init(|| {
                Arc::new(Group {
                    share_name: Arc::clone(share_name),
                    filter: Arc::clone(&shared.filter),
                    members: shared.members.as_slice().into(),
                    next: Arc::clone(&shared.next),
                })
            });
            Arc::clone(group)
        }));
    }
}
