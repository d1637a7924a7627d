//! Trains for a Shared Subscription: each of their messages may have another receiver than the one before.
//!
//! Which member that is, is found out for each message, as always. But what a member takes is found out once for a train, and
//! what is the same for all messages as for any other [`train`](super::train). What is out of the ordinary about a member has
//! its message go the way of all messages.

use std::rc::Rc;

use plugin_api::{Callback, QoS};

use super::Core;
use super::packets::{End, Row};
use super::route::Outgoing;
use super::train::{Ahead, Receiver, Train};
use crate::codec::OneAlike;
use crate::message::MessageParts;
use crate::router::{Member, SessionKey, Targets};

/// Who gets the messages of a train.
pub(super) struct Members {
    /// One group, and nobody else.
    targets: Rc<Targets>,
    known: Vec<Known>,
}

/// A member that is sent packets as they are, and how many it was sent.
pub(super) struct Known {
    session: SessionKey,
    to: Receiver,
    sent: u64,
}

/// So many are looked through for a member.
const KNOWN_MAX: usize = 64;

impl Core {
    /// The members that get the messages of a topic, if nobody else gets them.
    pub(super) fn members_of_train(&mut self, topic: &str) -> Option<Members> {
        let targets = self.router.targets(topic);
        targets.one_group()?;
        if self.wants(Callback::Deliver) || self.hears_of_acknowledgements() {
            return None;
        }
        Some(Members { targets, known: std::mem::take(&mut self.known_members) })
    }

    /// Gives a message to one member.
    pub(super) fn give_to_member(&mut self, train: &mut Train<'_>, next: &OneAlike<'_>, parts: &MessageParts<'_>) {
        let Some(mut members) = train.members.take() else { return };
        let targets = Rc::clone(&members.targets);
        if let Some(group) = targets.one_group() {
            let ends = [End::new(next.packet.len(), parts.topic.len() + parts.payload.len())];
            let row = Row::new(next.packet, &ends, train.kind(Some(group.number())));
            let from = train.from;
            self.give_to_one(group, &mut Outgoing::new(*parts), |core, member| {
                core.send_to_known(from, &mut members, member, next, &row)
            });
        }
        train.members = Some(members);
    }

    /// `false`: it has to go the way of all messages.
    fn send_to_known(
        &mut self,
        from: u32,
        members: &mut Members,
        member: &Member,
        next: &OneAlike<'_>,
        row: &Row<'_>,
    ) -> bool {
        let at = match members.known.iter().position(|known| known.session == member.session) {
            Some(at) => at,
            None => {
                let Some(to) = self.receiver_of_member(from, member, row) else { return false };
                if members.known.len() == KNOWN_MAX {
                    self.note_presence_of(&mut members.known);
                }
                members.known.push(Known { session: member.session, to, sent: 0 });
                members.known.len() - 1
            }
        };
        let Known { to, sent, .. } = &mut members.known[at];
        let packet_bytes = next.packet.len();
        let is_at_most_once = row.kind().qos == QoS::AtMostOnce;
        let may = if is_at_most_once {
            let waiting = self.connections[to.connection as usize].waiting_bytes();
            packet_bytes <= to.packet_bytes_max && waiting + next.payload.len() <= self.free_bytes
        } else {
            self.may_be_next(to, *sent, packet_bytes, Ahead::default())
        };
        if !may {
            // What becomes of this one changes what it takes.
            members.known.swap_remove(at);
            return false;
        }
        if is_at_most_once {
            self.write(to.connection, |out| out.extend_from_slice(next.packet));
        } else {
            self.send_row(to.session, row);
        }
        *sent += 1;
        let largest = &mut self.connections[to.connection as usize].out_largest;
        *largest = packet_bytes.max(*largest);
        self.counters().publishes_sent.add(1);
        // It is chosen by what it has left.
        if *sent == to.messages_left || self.chooser.counts_what_is_on_its_way() {
            self.note_presence(to.session);
        }
        true
    }

    /// A member of this worker, if packets are sent to it at once as they are.
    fn receiver_of_member(&self, from: u32, member: &Member, row: &Row<'_>) -> Option<Receiver> {
        let session = self.sessions.get(member.session.slot as usize)?;
        let is_plain = session.serial == member.session.serial
            && session.connection != from
            && member.options.qos >= row.kind().qos
            && member.identifier.is_none();
        if is_plain { self.receiver(member.session.slot, row.kind().is_v5) } else { None }
    }

    /// Tells the group of each what it can take now.
    fn note_presence_of(&mut self, known: &mut Vec<Known>) {
        for known in known.drain(..) {
            self.note_presence(known.to.session);
        }
    }

    /// The train has ended.
    pub(super) fn end_members(&mut self, mut members: Members) {
        self.note_presence_of(&mut members.known);
        self.known_members = members.known;
    }
}
