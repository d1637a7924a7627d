//! From an accepted message to the sessions that get it.

use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use plugin_api::{DropReason, QoS, RetainChange};

use super::Core;
use super::budget::{Account, Kept};
use super::connection::NONE;
use super::deliver::How;
use super::mail::Destination;
use super::notices::Meant;
use super::session::{Origin, Queued};
use super::timers::{Subject, is_current};
use super::work::DELIVERY_BYTES_A_UNIT;
use crate::clock::Millis;
use crate::message::{Message, MessageParts};
use crate::plugin::Cause;
use crate::router::{Group, Member, SessionKey, Target, Targets};

/// A message that is being routed. It is copied at most once, when the first session has to keep it.
pub(super) struct Outgoing<'a> {
    pub(super) parts: MessageParts<'a>,
    pub(super) kept: Option<Kept>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(parts: MessageParts<'a>) -> Self {
        Self { parts, kept: None }
    }

    pub(super) fn of(message: &'a Kept) -> Self {
        Self { parts: message.parts(), kept: Some(message.clone()) }
    }

    /// The message in a form that can be kept.
    pub(super) fn keep(&mut self, account: &Account) -> Kept {
        self.kept.get_or_insert_with(|| Kept::new(&self.parts, account)).clone()
    }
}

/// How one subscription, or several of one session together, want a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) qos: QoS,
    pub(super) retain_as_published: bool,
    pub(super) identifiers: &'a [u32],
    /// The group that has chosen the session.
    pub(super) group: Option<NonZeroU64>,
}

impl Core {
    /// Delivers a message to all matching subscriptions, here and at other workers. `publisher` is the session it came
    /// from, for No Local. `false`: nobody has subscribed.
    pub(super) fn route(&mut self, out: &mut Outgoing<'_>, publisher: Option<SessionKey>) -> bool {
        let targets = self.router.targets(out.parts.topic);
        let searched = self.router.take_searched();
        self.spend(searched);
        self.deliver_to(&targets, out, publisher);
        for worker in workers_in(targets.remote) {
            self.send_to_worker(worker, None, out);
        }
        for group in &targets.groups {
            self.deliver_to_group(group, out);
        }
        !targets.is_empty()
    }

    /// Stores or clears the retained message of its topic, if it has RETAIN set. `false`: there is no room for it.
    ///
    /// This comes before routing: whoever subscribes meanwhile gets the message by one way or the other.
    pub(super) fn retain(&mut self, out: &mut Outgoing<'_>) -> bool {
        if !out.parts.retain || !self.shared.limits.retain_available {
            return true; // [MQTT-3.3.1-8]
        }
        if out.parts.payload.is_empty() {
            // [MQTT-3.3.1-6] [MQTT-3.3.1-7]
            let is_cleared = self.shared.retained.clear(out.parts.topic);
            // Who clears what another one has cleared is told that there is none: that is to be safe, too, and need not be yet.
            if is_cleared || out.parts.qos != QoS::AtMostOnce {
                self.journal_retained();
            }
            if is_cleared {
                self.tell_retained(RetainChange::Cleared, &out.parts);
            }
            return true;
        }
        let kept = self.shared.retained.set(Arc::new(out.parts.to_message())).is_ok(); // [MQTT-3.3.1-5]
        if kept && out.parts.expires_at != Millis::NEVER {
            self.timers.arm_once(&mut self.retained_armed, self.now, out.parts.expires_at, Subject::Retained);
        }
        if kept {
            self.journal_retained();
            self.tell_retained(RetainChange::Set, &out.parts);
        }
        kept
    }

    /// Whether [`Core::retain`] would find room.
    pub(super) fn has_room_to_retain(&self, parts: &MessageParts<'_>) -> bool {
        let bytes = parts.topic.len() + parts.properties.len() + parts.payload.len();
        !parts.retain || parts.payload.is_empty() || self.shared.retained.has_room(parts.topic, bytes).is_ok()
    }

    /// Retained messages may have expired [MQTT-3.3.2-5].
    pub(super) fn retained_due(&mut self, at: Millis) {
        if !is_current(&mut self.retained_armed, at) {
            return;
        }
        let removed = self.shared.retained.remove_expired(self.now);
        self.spend(removed.len() * RETAINED_UNITS);
        if !removed.is_empty() {
            self.journal_retained();
        }
        for message in &removed {
            self.tell_retained(RetainChange::Expired, &message.parts());
        }
        self.watch_retained();
    }

    /// Looks again when the next retained message expires. Another worker may have stored it; looking at it twice does no harm.
    pub(super) fn watch_retained(&mut self) {
        if let Some(next) = self.shared.retained.next_expiry() {
            self.timers.arm_once(&mut self.retained_armed, self.now, next, Subject::Retained);
        }
    }

    fn deliver_to(&mut self, targets: &Rc<Targets>, out: &mut Outgoing<'_>, publisher: Option<SessionKey>) {
        if self.deliver_by_lanes(targets, out, publisher) {
            return;
        }
        let targets = &targets.local;
        self.templates.begin(targets.len());
        self.spend(1 + targets.len() * delivery_units(out.parts.payload));
        for target in targets.iter() {
            // No Local, section 3.8.3.1.
            if let Some(target) = target.for_publisher(publisher) {
                self.deliver(target.session, Wanted::of(target), out);
            }
        }
    }

    /// Puts a message on its way to another worker: to all subscriptions there, or to the member of a group. `false` if it was
    /// dropped.
    pub(super) fn send_to_worker(
        &mut self,
        worker: usize,
        member: Option<(&Group, &Member)>,
        out: &mut Outgoing<'_>,
    ) -> bool {
        if self.is_shed(worker, out.parts.qos == QoS::AtMostOnce) {
            self.counters().dropped_slow.add(1);
            self.tell_dropped(DropReason::Slow, &Meant::for_anybody(&out.parts));
            return false;
        }
        let destination = member.map_or(Destination::Matching, |(group, member)| Destination::Member {
            session: member.session,
            group: group.number(),
        });
        match self.journal_transit(worker, member.map(|(group, _)| group), out) {
            Some(from) => self.outbox[worker].push_in_transit(from, destination, &out.parts),
            None => self.outbox[worker].push(destination, &out.parts),
        }
        true
    }

    /// Puts a message on its way to one session. `false` if there is no such session any more.
    pub(super) fn deliver(&mut self, key: SessionKey, wanted: Wanted<'_>, out: &mut Outgoing<'_>) -> bool {
        let Some(session) = self.sessions.get(key.slot as usize).filter(|session| session.serial == key.serial) else {
            return false;
        };
        let qos = out.parts.qos.min(wanted.qos);
        // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
        let retain = out.parts.retain && wanted.retain_as_published;
        if qos == QoS::AtMostOnce {
            let slot = session.connection;
            let is_withheld = session.asks_again && slot != NONE;
            if is_withheld || self.shared.limits.queue_qos0 && (slot == NONE || !session.queue.is_empty()) {
                // Behind what waits, as it must not overtake QoS 0 messages among them [MQTT-4.6.0-6].
                let origin = Origin::new(wanted.group, wanted.identifiers, &self.account);
                self.enqueue(key.slot, Queued { message: out.keep(&self.account), qos, retain, origin });
            } else if slot != NONE {
                let how = How { retain, shared: wanted.group.is_some(), cause: Cause::Published };
                self.send_at_most_once(slot, how, wanted.identifiers, &out.parts);
            }
        } else {
            let origin = Origin::new(wanted.group, wanted.identifiers, &self.account);
            let delivery = Queued { message: out.keep(&self.account), qos, retain, origin };
            self.send_or_queue(key.slot, delivery, &out.parts, Cause::Published);
        }
        true
    }

    /// Does what the mailbox holds: messages from other workers, requests of plugins. Of messages no more than a bounded
    /// number of bytes, so that they are sent before more are added, and what the turn's work allows; [`Core::on_tick`]
    /// goes on, and is due at once.
    pub fn on_mail(&mut self, now: Millis) {
        self.now = now;
        self.look_at_plan();
        self.leave_work_for_others();
        let mut bytes_left = INBOX_BYTES_A_TURN;
        if self.inbox_at > 0 {
            self.work_off_inbox(&mut bytes_left);
        }
        if self.inbox_at == 0 && self.shared.mailboxes.of(self.worker).take(&mut self.inbox) {
            self.work_off_inbox(&mut bytes_left);
        }
    }

    /// Whether [`Core::on_mail`] has left something for the next turn.
    pub(super) fn has_mail_left(&self) -> bool {
        self.inbox_at > 0
    }

    fn work_off_inbox(&mut self, bytes_left: &mut usize) {
        let mut inbox = std::mem::take(&mut self.inbox);
        loop {
            let before = self.inbox_at;
            let in_transit = inbox.in_transit_from(self.inbox_at);
            let Some((destination, parts)) = inbox.message(&mut self.inbox_at) else {
                // What a plugin asks for meanwhile waits for the next turn: it may go on asking for ever.
                for mail in inbox.take_mails() {
                    self.on_request(mail);
                }
                inbox.clear();
                self.inbox_at = 0;
                break;
            };
            if let Some(from) = in_transit {
                self.journal_taken(from);
            }
            self.deliver_from_worker(destination, parts);
            *bytes_left = bytes_left.saturating_sub(self.inbox_at - before);
            // Who is to stop comes to it at once.
            if (*bytes_left == 0 || self.is_spent()) && !self.shared.mailboxes.of(self.worker).is_last() {
                break;
            }
        }
        self.inbox = inbox;
    }

    fn deliver_from_worker(&mut self, destination: Destination, parts: MessageParts<'_>) {
        match destination {
            Destination::Matching if parts.expires_at <= self.now => {
                self.counters().dropped_expired.add(1); // [MQTT-3.3.2-5]
                self.tell_expired(&Meant::for_anybody(&parts));
            }
            Destination::Matching => {
                // The other worker has served the rest of the world; here only our own subscriptions are looked at.
                let targets = self.router.targets(parts.topic);
                let searched = self.router.take_searched();
                self.spend(searched);
                self.deliver_to(&targets, &mut Outgoing::new(parts), None);
            }
            Destination::Member { session, group } => self.deliver_to_member(session, group, parts),
        }
    }

    /// Routes what a plugin published. It is asked about by nobody: it comes from the operator's own code.
    pub(super) fn publish_from_plugin(&mut self, message: &Arc<Message>) {
        if !self.retain_and_route(&mut Outgoing::new(message.parts())) {
            tracing::warn!(
                topic = message.topic(),
                "a retained message of a plugin was not kept: there is no room for more"
            );
        }
    }

    /// Stores, if it is retained, and routes a message of the server's own. `false`: there was no room to retain it.
    pub(super) fn retain_and_route(&mut self, out: &mut Outgoing<'_>) -> bool {
        let kept = !self.cannot_retain(&out.parts) && self.retain(out);
        self.route(out, None);
        kept
    }
}

/// Work of removing a retained message.
const RETAINED_UNITS: usize = 8;

/// Bytes of messages from other workers that are handled in a turn.
const INBOX_BYTES_A_TURN: usize = 1 << 20;

impl<'a> Wanted<'a> {
    pub(super) fn of(target: &'a Target) -> Self {
        Self {
            qos: target.qos,
            retain_as_published: target.retain_as_published,
            identifiers: &target.identifiers,
            group: None,
        }
    }
}

/// The work of a delivery.
pub(super) fn delivery_units(payload: &[u8]) -> usize {
    1 + payload.len() / DELIVERY_BYTES_A_UNIT
}

/// The workers whose bit is set.
fn workers_in(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let worker = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            worker
        })
    })
}

/// A time in the future, in seconds from now, as a property has it.
pub(super) fn expiry(now: Millis, secs: Option<u32>) -> Millis {
    secs.map_or(Millis::NEVER, |secs| now.plus_secs(secs))
}
