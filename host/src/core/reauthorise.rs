//! Subscriptions that are there already are put to the handlers again: what one does not allow any more is removed. What waits
//! for the client and no subscription that is left matches is dropped, also if the client has ended its subscription itself:
//! nobody says that it may have that still. Sessions are asked about whenever their client is back, before anything is
//! sent to it: it may be allowed less than it was.

use std::collections::HashMap;
use std::ops::Bound;

use foldhash::fast::RandomState;
use plugin_api::abi::Status;
use plugin_api::topic;
use plugin_api::{DropReason, QoS, ReasonCode};

use super::connection::NONE;
use super::deferred::{Came, Question};
use super::mail::InfoTarget;
use super::poll::{Poll, Reauthorised};
use super::session::{Origin, Session, Subscription};
use super::subscribe::Asked;
use super::{Core, slot_of};
use crate::codec::SubscribeOptions;
use crate::plugin::{Cursor, Handlers, SubscribeItem, SubscribeOutcome};
use crate::router::Left;

/// Subscriptions that handlers are asked about at once.
const ASKED_AT_ONCE: usize = if cfg!(any(test, fuzzing)) { 2 } else { 256 };

/// Passes through all sessions that wait in one worker.
const PASSES_MAX: usize = 256;

/// Work of all passes in one turn, and what places, subscriptions and messages that are looked at take of it.
const UNITS_A_TURN: usize = if cfg!(any(test, fuzzing)) { 8 } else { 8192 };
const SUBSCRIPTION_UNITS: usize = 4;
const MESSAGES_A_UNIT: usize = 4;

/// With more subscriptions than that, the router knows faster whether one of them matches.
const MATCHED_ONE_BY_ONE: usize = 64;

/// A pass through the sessions of a worker.
pub(super) struct Pass {
    /// The next place in the table of sessions.
    place: usize,
    poll: Poll,
    sum: Reauthorised,
}

impl Core {
    pub(super) fn begin_to_reauthorise(&mut self, target: &InfoTarget, poll: Poll) {
        if *target == InfoTarget::All {
            self.shared.chain.note_new_permissions(); // For wills that wait.
            if self.passes.len() >= PASSES_MAX {
                return poll.answer(Err(Status::FULL));
            }
            return self.passes.push_back(Pass { place: 0, poll, sum: Reauthorised::default() });
        }
        match self.session_of_target(target) {
            Some(session_slot) => {
                let part = self.reauthorise(session_slot);
                poll.add(part);
            }
            None => poll.not_here(),
        }
    }

    /// Goes on with passes, the oldest first, as far as the work of a turn goes.
    pub(super) fn continue_passes(&mut self) {
        let mut units_left = UNITS_A_TURN;
        while let Some(mut pass) = self.passes.pop_front() {
            let end = self.sessions.capacity();
            while pass.place < end && units_left > 0 {
                let place = pass.place;
                pass.place += 1;
                let mut units = 1;
                if let Some(session) = self.sessions.get(place) {
                    units += session.subscriptions.len() * SUBSCRIPTION_UNITS;
                    pass.sum.add(self.reauthorise(slot_of(place)));
                }
                units_left = units_left.saturating_sub(units);
                self.spend(units);
            }
            if pass.place < end {
                return self.passes.push_front(pass);
            }
            pass.poll.add(pass.sum);
        }
    }

    /// Asks about the subscriptions of a session now, or notes that it is to be done.
    fn reauthorise(&mut self, session_slot: u32) -> Reauthorised {
        let session = &mut self.sessions[session_slot as usize];
        if let Some(will) = session.away.as_mut().and_then(|away| away.will.as_mut()) {
            will.body.note_to_ask_again();
        }
        let connection = session.connection;
        session.asks_anew = session.asks_again && connection != NONE;
        session.note_to_ask_again();
        self.part_from_lane(connection);
        let mut sum = Reauthorised { sessions: 1, ..Reauthorised::default() };
        if connection != NONE {
            self.ask_again(session_slot, None, &mut sum);
        }
        let is_left = self.sessions.get(session_slot as usize).is_some_and(|session| session.asks_again);
        sum.later += u64::from(is_left);
        sum
    }

    /// Asks about the subscriptions of a session that has a connection, from behind a Topic Filter on, if that is to be done.
    /// Until it has been, nothing is sent that subscriptions have brought about: plugins may answer later, or have not
    /// answered another question; or the connection ends, and it is done when the client is back.
    pub(super) fn ask_again(&mut self, session_slot: u32, mut after: Option<Box<str>>, sum: &mut Reauthorised) {
        let session = &self.sessions[session_slot as usize];
        let slot = session.connection;
        if !session.asks_again || self.is_waiting(slot) {
            return;
        }
        // By the plugins that decide now.
        self.look_at_plan();
        if !self.conform(slot) {
            return;
        }
        loop {
            let asked = next_subscriptions(&self.sessions[session_slot as usize], after.take());
            let Some((last, _)) = asked.last() else {
                if std::mem::take(&mut self.sessions[session_slot as usize].asks_anew) {
                    continue;
                }
                break;
            };
            let last = last.clone();
            let mut codes: Vec<ReasonCode> =
                asked.iter().map(|(_, subscription)| ReasonCode(subscription.options.qos as u8)).collect();
            let items = items(&asked);
            let connection = &mut self.connections[slot as usize];
            let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
            let Some(handlers) = connection.handlers.as_mut() else { return };
            let outcome = self.shared.chain.subscribe(handlers, who, &items, &[], &mut codes);
            drop(items);
            if let SubscribeOutcome::Deferred(cursor) = outcome {
                return self.wait_for(slot, cursor, Question::Again(Box::new(Again { asked, codes })));
            }
            if !self.is_done(slot, outcome) {
                return;
            }
            self.act_on_codes(session_slot, &asked, &codes, sum);
            after = Some(last);
        }
        // A client that has unsubscribed may be sent what waits for it, and need not be; what is in flight is completed
        // [MQTT-3.10.4-3].
        let handlers = self.connections[slot as usize].handlers.as_ref();
        if handlers.is_some_and(Handlers::decides_on_subscriptions) {
            sum.dropped += self.drop_unmatched(session_slot);
        }
        self.sessions[session_slot as usize].asks_again = false;
    }

    /// Goes on after a plugin has answered later, or not in time.
    pub(super) fn resume_again(&mut self, slot: u32, again: Again, cursor: &Cursor, came: Came) {
        let Again { asked, mut codes } = again;
        let items = items(&asked);
        let connection = &mut self.connections[slot as usize];
        let session_slot = connection.session;
        let who = self.sessions.get(session_slot as usize).map_or("", |session| &session.client_id);
        let outcome = match (came, connection.handlers.as_mut()) {
            (Came::Answer(answered), Some(handlers)) => {
                self.shared.chain.resume_subscribe(handlers, who, &items, &[], &mut codes, cursor, *answered)
            }
            // What is not known is not taken away: the client is asked about once more when it is back.
            (Came::Late, _) | (_, None) => SubscribeOutcome::Failed,
        };
        drop(items);
        if let SubscribeOutcome::Deferred(cursor) = outcome {
            return self.wait_for(slot, cursor, Question::Again(Box::new(Again { asked, codes })));
        }
        if self.is_done(slot, outcome) {
            self.act_on_codes(session_slot, &asked, &codes, &mut Reauthorised::default());
            let last = asked.into_iter().next_back().map(|(filter, _)| filter);
            self.ask_again(session_slot, last, &mut Reauthorised::default());
        }
    }

    /// Does what they have said.
    fn act_on_codes(
        &mut self,
        session_slot: u32,
        asked: &[(Box<str>, Subscription)],
        codes: &[ReasonCode],
        sum: &mut Reauthorised,
    ) {
        let (mut left, mut removed): (Vec<Left>, u64) = (Vec::new(), 0);
        for ((filter, subscription), code) in asked.iter().zip(codes) {
            // One that was ended or replaced since has been decided by that.
            if self.sessions[session_slot as usize].subscriptions.get(filter) != Some(subscription) {
                continue;
            }
            match QoS::from_u8(code.0) {
                None => {
                    self.pay_for(filter);
                    removed += u64::from(self.unsubscribe(session_slot, filter, &mut left));
                }
                Some(qos) if qos < subscription.options.qos => {
                    let options = SubscribeOptions { qos, ..subscription.options };
                    self.lower(session_slot, filter, Subscription { options, ..*subscription });
                }
                Some(_) => {}
            }
        }
        if !left.is_empty() {
            self.hand_on_queued(session_slot, &left);
        }
        sum.removed += removed;
    }

    /// Replaces a subscription by one with a lower QoS.
    fn lower(&mut self, session_slot: u32, filter: &str, lowered: Subscription) {
        self.pay_for(filter);
        self.put_subscription(session_slot, &Asked::new(filter, lowered.options), lowered);
    }

    /// Drops what waits in the queue of a session and came by subscriptions that are gone. What is in flight stays, and what
    /// was sent to this very client.
    fn drop_unmatched(&mut self, session_slot: u32) -> u64 {
        let session = &self.sessions[session_slot as usize];
        if !session.queue.iter().any(|waiting| may_be_dropped(&waiting)) {
            return 0;
        }
        let messages = session.queue.len();
        self.spend(messages.div_ceil(MESSAGES_A_UNIT));
        let mut known: HashMap<Box<str>, bool, RandomState> = HashMap::default();
        let dropped = self.take_from_queue(session_slot, |core, waiting| {
            let stays = match &waiting.origin {
                Origin::Sent => true,
                Origin::Shared { .. } | Origin::Changed(_) => {
                    let group = waiting.origin.group();
                    let shared = core.sessions[session_slot as usize].shared.as_ref().zip(group);
                    shared.is_some_and(|(shared, group)| shared.is_member(group))
                }
                Origin::One(_) | Origin::Several(_) => {
                    let topic = waiting.message.topic();
                    match known.get(topic) {
                        Some(known) => *known,
                        None => {
                            let is_matched = core.is_matched(session_slot, topic);
                            known.insert(topic.into(), is_matched);
                            is_matched
                        }
                    }
                }
            };
            (!stays).then_some(())
        });
        for (waiting, ()) in &dropped {
            self.tell_queued_dropped(DropReason::NotAuthorised, session_slot, waiting);
        }
        let dropped = dropped.len() as u64;
        self.counters().dropped_unauthorised.add(dropped);
        dropped
    }

    /// Whether a subscription of the session, and not a shared one, matches a topic.
    fn is_matched(&mut self, session_slot: u32, topic: &str) -> bool {
        let session = &self.sessions[session_slot as usize];
        if session.subscriptions.len() <= MATCHED_ONE_BY_ONE {
            let plain =
                |written: &str| Asked::new(written, SubscribeOptions::new(QoS::AtMostOnce)).share_name.is_none();
            return session.subscriptions.keys().any(|filter| plain(filter) && topic::matches(filter, topic));
        }
        let key = session.key(session_slot);
        let targets = self.router.targets(topic);
        let searched = self.router.take_searched();
        self.spend(searched);
        targets.local.iter().any(|target| target.session == key)
    }
}

impl Reauthorised {
    pub(super) fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.later += other.later;
        self.removed += other.removed;
        self.dropped += other.dropped;
    }
}

impl Session {
    /// Handlers are asked again, if there is something to ask about.
    pub(super) fn note_to_ask_again(&mut self) {
        self.asks_again |= !self.subscriptions.is_empty() || self.queue.iter().any(|waiting| may_be_dropped(&waiting));
    }
}

/// Subscriptions that a plugin has been asked about again and has not answered.
pub(super) struct Again {
    asked: Vec<(Box<str>, Subscription)>,
    codes: Vec<ReasonCode>,
}

impl Again {
    /// The memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.asked.iter().map(|(filter, _)| filter.len() + size_of::<(Box<str>, Subscription)>() + 1).sum()
    }
}

fn items(asked: &[(Box<str>, Subscription)]) -> Vec<SubscribeItem<'_>> {
    asked
        .iter()
        .map(|(filter, subscription)| SubscribeItem { again: true, ..Asked::new(filter, subscription.options).item() })
        .collect()
}

/// Whether a message waits because of a subscription.
fn may_be_dropped(waiting: &super::session::Queued) -> bool {
    !matches!(waiting.origin, Origin::Sent)
}

/// The next subscriptions, behind a Topic Filter.
fn next_subscriptions(session: &Session, after: Option<Box<str>>) -> Vec<(Box<str>, Subscription)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let next = session.subscriptions.range((from, Bound::Unbounded)).take(ASKED_AT_ONCE);
    next.map(|(filter, subscription)| (filter.clone(), *subscription)).collect()
}
