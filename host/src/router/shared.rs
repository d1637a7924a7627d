//! Shared Subscriptions: groups of sessions, one of which gets each message.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use plugin_api::QoS;

use super::SessionKey;
use super::roster::{Keyed, Roster};
use crate::codec::SubscribeOptions;
use crate::limits::SharedStrategy;
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The members of one Shared Subscription at one time.
#[derive(Debug)]
pub struct Group {
    shared: Arc<SharedSubscription>,
    members: Box<[Member]>,
}

/// What stays the same while the members of a Shared Subscription come and go. It ends with the last one.
#[derive(Debug)]
struct SharedSubscription {
    number: NonZeroU64,
    share_name: Arc<str>,
    filter: Box<str>,
    /// Where the next search among the members begins.
    turn: AtomicUsize,
    /// A place where somebody was found who is connected, or who keeps the messages; only for large and sticky groups.
    found_at: AtomicUsize,
    /// The member that keeps the messages while it is there, as [`Member::number`]; 0 for none. Only for
    /// [`SharedStrategy::Sticky`].
    kept_by: AtomicU64,
}

/// Chooses members by the strategy of the server. One for each worker, so that chance needs no lock.
#[derive(Debug)]
pub struct Chooser {
    strategy: SharedStrategy,
    random: u64,
}

impl Chooser {
    /// The chooser of the worker with this number.
    #[must_use]
    pub fn new(strategy: SharedStrategy, worker: usize) -> Self {
        Self { strategy, random: worker as u64 }
    }

    /// Whether [`Presence::expect`] and [`Presence::arrived`] are to be told what is on its way.
    #[must_use]
    pub fn counts_what_is_on_its_way(&self) -> bool {
        self.strategy == SharedStrategy::LeastInFlight
    }

    /// The next number of SplitMix64: to spread messages it need not be more than evenly distributed.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// What a search has found.
struct Found {
    place: usize,
    /// Where the next search begins.
    next: usize,
}

/// Members that one search looks at.
const SEARCHED_MAX: usize = 1024;

impl Group {
    /// Tells it from all others that there are or were.
    #[must_use]
    pub fn number(&self) -> NonZeroU64 {
        self.shared.number
    }

    /// The ShareName.
    #[must_use]
    pub fn share_name(&self) -> &str {
        &self.shared.share_name
    }

    /// The Topic Filter, without `$share` and ShareName.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.shared.filter
    }

    /// The members, of all workers; never empty.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member that gets the next message, which has this QoS, whichever worker asks.
    ///
    /// Whatever the strategy, those that can send it at once come before those that have to wait for their client's
    /// acknowledgements, those before members without a Network Connection, and last are the ones that have no room.
    /// Only a sticky group stays with a member that has to wait. A search looks at a thousand members at most, so that in a
    /// larger group, if nearly all members are away, a few messages may go to one that is.
    ///
    /// `None` if the sessions of all members have ended, and the group does not know yet.
    #[must_use]
    pub fn choose(&self, chooser: &mut Chooser, qos: QoS) -> Option<&Member> {
        let kept_by = self.shared.kept_by.load(Ordering::Relaxed);
        let found = match chooser.strategy {
            SharedStrategy::Sticky => return self.kept(kept_by, qos).or_else(|| self.keep(kept_by, qos)),
            SharedStrategy::Random => self.search(chooser.random() % self.members.len().max(1) as u64, qos, NO_LOAD),
            SharedStrategy::RoundRobin => self.search(self.turn(), qos, NO_LOAD),
            SharedStrategy::LeastInFlight => self.search(self.turn(), qos, LOAD),
        };
        let found = found?;
        // Two workers that ask at once may get the same answer.
        self.shared.turn.store(found.next, Ordering::Relaxed);
        self.members.get(found.place)
    }

    fn turn(&self) -> u64 {
        self.shared.turn.load(Ordering::Relaxed) as u64
    }

    /// The best member for a message of this QoS; the first of several, from `start` on. `load` has the bits of the load if
    /// it counts.
    fn search(&self, start: u64, qos: QoS, load: u32) -> Option<Found> {
        let count = self.members.len();
        let start = usize::try_from(start).unwrap_or(0).checked_rem(count)?;
        let mut best = (GONE, None);
        for (looked_at, place) in (start..count).chain(0..start).enumerate() {
            if looked_at >= SEARCHED_MAX && best.1.is_some() {
                return self.search_large(start, best, qos, load);
            }
            let rank = self.members[place].rank(qos, load);
            if rank < best.0 {
                best = (rank, Some(place));
            }
            if rank == 0 {
                break;
            }
        }
        if count > SEARCHED_MAX && best.0 < OFFLINE {
            self.shared.found_at.store(best.1?, Ordering::Relaxed);
        }
        // Behind the one that was chosen, so that nobody gets the turns of members that are passed over.
        best.1.map(|place| Found { place, next: place + 1 })
    }

    /// A part of the members was looked at. If none of them is connected, the next search goes on behind them; this one
    /// takes the member that was connected last time, if it still is.
    fn search_large(&self, start: usize, best: (u32, Option<usize>), qos: QoS, load: u32) -> Option<Found> {
        let place = best.1?;
        let found_at = &self.shared.found_at;
        if best.0 < OFFLINE {
            found_at.store(place, Ordering::Relaxed);
            return Some(Found { place, next: place + 1 });
        }
        let last = found_at.load(Ordering::Relaxed);
        let is_better = self.members.get(last).is_some_and(|member| member.rank(qos, load) < best.0);
        Some(Found { place: if is_better { last } else { place }, next: start + SEARCHED_MAX })
    }

    /// The member with a number, if it still is one, is connected, and has room.
    fn kept(&self, number: u64, qos: QoS) -> Option<&Member> {
        // It is where it was found last, unless members have come or gone.
        let likely = self.members.get(self.shared.found_at.load(Ordering::Relaxed));
        let member = likely
            .filter(|member| member.number() == number)
            .or_else(|| self.members.iter().find(|member| member.number() == number))?;
        (member.rank(qos, NO_LOAD) < OFFLINE).then_some(member)
    }

    /// Chooses the member that gets the messages from now on.
    fn keep(&self, before: u64, qos: QoS) -> Option<&Member> {
        let Found { place, next } = self.search(self.turn(), qos, NO_LOAD)?;
        let member = &self.members[place];
        let kept_by = &self.shared.kept_by;
        match kept_by.compare_exchange(before, member.number(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                self.shared.found_at.store(place, Ordering::Relaxed);
                // Where nobody is connected, one of them keeps the messages as well.
                let turn = if self.members.len() > SEARCHED_MAX { next } else { place };
                self.shared.turn.store(turn, Ordering::Relaxed);
                Some(member)
            }
            // Another worker was first.
            Err(theirs) => self.kept(theirs, qos).or(Some(member)),
        }
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
    /// What the session can take; its worker keeps it up to date.
    pub presence: Arc<Presence>,
}

impl Member {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.options == other.options
            && self.identifier == other.identifier
            && Arc::ptr_eq(&self.presence, &other.presence)
    }

    /// The less, the better for a message of this QoS; 0 if there can be nobody better, [`GONE`] or more if it must not be
    /// chosen.
    fn rank(&self, qos: QoS, load: u32) -> u32 {
        let standing = self.presence.standing.load(Ordering::Relaxed);
        let flags = if qos.min(self.options.qos) == QoS::AtMostOnce {
            // It waits for no acknowledgement, is in no queue, and is lost where there is no connection.
            let lost = if standing & OFFLINE == 0 { 0 } else { FULL };
            standing & (GONE | OFFLINE | SLOW) | lost
        } else {
            standing & !LOAD
        };
        if load == NO_LOAD {
            return flags;
        }
        let on_its_way = self.presence.on_its_way.load(Ordering::Relaxed).min(LOAD);
        flags | ((standing & load) + on_its_way).min(LOAD)
    }

    /// Not 0, and not the same for two sessions that live at one time: a worker counts its sessions.
    fn number(&self) -> u64 {
        (self.worker as u64 + 1) << 32 | u64::from(self.session.serial)
    }
}

impl Keyed for Member {
    type Key = (usize, SessionKey);
    fn key(&self) -> Self::Key {
        (self.worker, self.session)
    }
}

/// What a session with Shared Subscriptions can take: written by its worker, read by all workers when they choose.
///
/// It is a hint and nothing is ordered by it: a message that goes to a member which has become unable to take it is dealt
/// with there.
#[derive(Debug)]
pub struct Presence {
    /// The flags below, the worst in the uppermost bit, and the load in the rest.
    standing: AtomicU32,
    /// Messages that other workers have sent towards it; only for [`SharedStrategy::LeastInFlight`].
    on_its_way: AtomicU32,
}

/// The session has ended.
const GONE: u32 = 1 << 31;
/// Its queue is all but full.
const FULL: u32 = 1 << 30;
/// It has no Network Connection.
const OFFLINE: u32 = 1 << 29;
/// Its socket does not keep up.
const SLOW: u32 = 1 << 28;
/// A QoS 1 or 2 message has to wait for an acknowledgement of its client.
const WAITS: u32 = 1 << 27;
const LOAD: u32 = WAITS - 1;
const NO_LOAD: u32 = 0;

/// What [`Presence`] says about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// It has a Network Connection.
    pub connected: bool,
    /// A QoS 1 or 2 message could not be sent at once.
    pub waits: bool,
    /// Much waits for its socket, so that a QoS 0 message may be dropped.
    pub slow: bool,
    /// A QoS 1 or 2 message that cannot be sent may be dropped.
    pub full: bool,
    /// Messages that are in flight or queued.
    pub load: usize,
}

impl Presence {
    /// For a session about which nothing is known yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { standing: AtomicU32::new(OFFLINE), on_its_way: AtomicU32::new(0) })
    }

    /// Says how the session stands. Only its worker may call this.
    pub fn set(&self, standing: Standing) {
        let Standing { connected, waits, slow, full, load } = standing;
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        let load = u32::try_from(load).unwrap_or(LOAD).min(LOAD);
        let word = flag(full, FULL) | flag(!connected, OFFLINE) | flag(slow, SLOW) | flag(waits, WAITS) | load;
        // Others read it for each message: their copy of the cache line is left alone where nothing changes.
        if self.standing.load(Ordering::Relaxed) != word {
            self.standing.store(word, Ordering::Relaxed);
        }
    }

    /// The session has ended: it is not chosen again. Only its worker may call this.
    pub fn set_gone(&self) {
        self.standing.store(GONE, Ordering::Relaxed);
    }

    fn is_gone(&self) -> bool {
        self.standing.load(Ordering::Relaxed) & GONE != 0
    }

    /// A message was sent towards it from another worker.
    pub fn expect(&self) {
        self.on_its_way.fetch_add(1, Ordering::Relaxed);
    }

    /// A message that was [`expected`](Self::expect) has come.
    pub fn arrived(&self) {
        self.on_its_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The groups of one Topic Filter, by ShareName. Filters without any, nearly all, pay one word.
#[derive(Default)]
pub(super) struct Groups(Option<Box<HashMap<Arc<str>, Shared, RandomState>>>);

/// A group while its members change.
struct Shared {
    subscription: Arc<SharedSubscription>,
    members: Roster<Member>,
    /// Made when a publish first needs it after a change, so that many members can join at the cost of one each.
    group: OnceLock<Arc<Group>>,
}

/// A session's part in a Shared Subscription has begun.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) number: NonZeroU64,
    /// The subscription that it takes the place of.
    pub(super) replaced: Option<Member>,
}

/// A session's part in a Shared Subscription has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// [`Group::number`].
    pub number: NonZeroU64,
    /// There are members whose session lives.
    pub has_others: bool,
}

impl Groups {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds a member to a group, which has the number `new` if this is the first member.
    pub(super) fn join(&mut self, new: NonZeroU64, share_name: &str, filter: &str, member: Member) -> Joined {
        let groups = self.0.get_or_insert_default();
        if !groups.contains_key(share_name) {
            let share_name: Arc<str> = share_name.into();
            let subscription = Arc::new(SharedSubscription {
                number: new,
                share_name: Arc::clone(&share_name),
                filter: filter.into(),
                turn: AtomicUsize::new(0),
                found_at: AtomicUsize::new(0),
                kept_by: AtomicU64::new(0),
            });
            groups.insert(share_name, Shared { subscription, members: Roster::default(), group: OnceLock::new() });
        }
        let shared = groups.get_mut(share_name).expect("it was there or was inserted");
        shared.group = OnceLock::new();
        Joined { number: shared.subscription.number, replaced: shared.members.insert(member) }
    }

    /// Removes a member. `None` if it was none.
    pub(super) fn leave(&mut self, share_name: &str, worker: usize, session: SessionKey) -> Option<Left> {
        let groups = self.0.as_mut()?;
        let shared = groups.get_mut(share_name)?;
        shared.members.remove((worker, session))?;
        let members = shared.members.as_slice();
        let is_empty = members.is_empty();
        let has_others = members.iter().any(|member| !member.presence.is_gone());
        let number = shared.subscription.number;
        shared.group = OnceLock::new();
        if is_empty {
            groups.remove(share_name);
        }
        if groups.is_empty() {
            self.0 = None;
        }
        Some(Left { number, has_others })
    }

    pub(super) fn append_to(&self, groups: &mut Vec<Arc<Group>>) {
        let Some(by_name) = &self.0 else {
            return;
        };
        groups.extend(by_name.values().map(|shared| {
            let group = shared.group.get_or_init(|| {
                Arc::new(Group { shared: Arc::clone(&shared.subscription), members: shared.members.as_slice().into() })
            });
            Arc::clone(group)
        }));
    }
}
