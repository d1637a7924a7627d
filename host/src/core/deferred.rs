//! Questions that a plugin answers later: the connection that waits for an answer, and how it goes on.
//!
//! A connection has one open question at most. While it has, its further packets wait as those do that are left for the
//! next turn ([`Core::is_held`]), so that nothing is acknowledged out of order, and messages for `handle_info` wait behind
//! it; what is on its way to the client goes on. What is needed to go on is kept with the connection: the packet, and where
//! the chain stands. The answer comes as mail, the deadline as a timer; either is noted, and the connection goes on when
//! packets that have waited do ([`Core::continue_held`]). A question without an answer in time is refused.

use std::collections::VecDeque;

use plugin_api::{AuthStep, Callback, ReasonCode};

use super::Core;
use super::connection::{Connection, PendingConnect, Phase};
use super::inbound::CONNECT;
use super::kept::KeptBytes;
use super::mail::InfoMail;
use super::poll::Reauthorised;
use super::reauthorise::Again;
use crate::clock::Millis;
use crate::codec::{self, DecodeError, Packet};
use crate::limits::Deadline;
use crate::plugin::{Answered, Chain, Cursor};

/// Messages for `handle_info` that wait behind the open question of one connection; further ones are dropped and logged.
const INFOS_MAX: usize = 256;

/// A connection's open question.
pub(super) struct Waiting {
    cursor: Box<Cursor>,
    question: Question,
    /// The packet that it is about; empty if it is about none.
    packet: KeptBytes,
    header_bytes: usize,
    since: Millis,
    deadline: Millis,
    came: Option<Came>,
    /// What has to wait behind it.
    infos: VecDeque<Box<InfoMail>>,
}

/// What was asked.
pub(super) enum Question {
    /// May the client connect?
    Connect(Box<PendingConnect>),
    /// A step of an authentication exchange: the one that decides about CONNECT, if that waits for it.
    Auth { pending: Option<Box<PendingConnect>>, step: AuthStep },
    /// What becomes of a message? With the Topic Name that its Topic Alias stands for.
    Publish { topic: Option<Box<str>> },
    /// May the client subscribe? With the Reason Codes so far.
    Subscribe { codes: Vec<ReasonCode> },
    /// May it unsubscribe?
    Unsubscribe { codes: Vec<ReasonCode> },
    /// May it keep its subscriptions?
    Again(Box<Again>),
    /// `handle_info`.
    Info(Box<InfoMail>),
}

/// What has come of a question.
pub(super) enum Came {
    /// Its answer.
    Answer(Box<Answered>),
    /// Its deadline.
    Late,
}

impl Question {
    fn callback(&self) -> Callback {
        match self {
            Self::Connect(_) => Callback::Connect,
            Self::Auth { .. } => Callback::Auth,
            Self::Publish { .. } => Callback::Publish,
            Self::Subscribe { .. } | Self::Again(_) => Callback::Subscribe,
            Self::Unsubscribe { .. } => Callback::Unsubscribe,
            Self::Info(_) => Callback::Info,
        }
    }

    /// Whether it is about a packet.
    fn has_packet(&self) -> bool {
        !matches!(self, Self::Info(_) | Self::Again(_))
    }
}

impl Waiting {
    /// Memory behind it that peers decide on, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let question = match &self.question {
            Question::Publish { topic } => topic.as_ref().map_or(0, |topic| topic.len()),
            Question::Subscribe { codes } | Question::Unsubscribe { codes } => codes.len(),
            Question::Again(again) => again.bytes(),
            Question::Connect(_) | Question::Auth { .. } | Question::Info(_) => 0,
        };
        let infos: usize =
            self.infos.iter().map(|info| size_of::<InfoMail>() + info.kind.len() + info.data.len()).sum();
        size_of::<Self>() + self.packet.capacity() + self.cursor.bytes() + question + infos
    }

    /// Who has not answered, where the chain stands, what has come of it, and until when it waits.
    pub(super) fn into_cursor(self) -> (Callback, Box<Cursor>, Option<Came>, Millis) {
        (self.question.callback(), self.cursor, self.came, self.deadline)
    }

    /// Whether it is about who the client is, so that a client that has gone has failed to get in.
    pub(super) fn is_about_the_client(&self) -> bool {
        matches!(self.question, Question::Connect(_) | Question::Auth { .. })
    }

    /// Takes it back if the connection has ended before the plugin was asked who the client is: that is dear, and of no use
    /// any more. Other questions are put all the same: a plugin may want to know what a client that has gone has sent.
    pub(super) fn withdraw(&self, chain: &Chain) -> bool {
        self.is_about_the_client() && self.came.is_none() && chain.withdraw(&self.cursor)
    }

    /// Bytes of the packet that it is about.
    #[cfg(test)]
    pub(super) fn packet_bytes(&self) -> usize {
        self.packet.len()
    }

    /// The Client Identifier of a client that has not been let in yet.
    pub(super) fn client_id(&self) -> Option<&str> {
        match &self.question {
            Question::Connect(pending) | Question::Auth { pending: Some(pending), .. } => Some(&pending.client_id),
            _ => None,
        }
    }
}

impl Core {
    /// Whether a connection has an open question to a plugin. Do not read from its socket until it has not: it is on the
    /// list of [`Core::take_dirty`] then.
    #[must_use]
    pub fn is_waiting(&self, slot: u32) -> bool {
        self.connections.get(slot as usize).is_some_and(|connection| connection.is_waiting)
    }

    /// Whether nothing is lost if a connection that waits ends now: it has not been let in, and has said nothing more.
    #[must_use]
    pub fn may_give_up(&self, slot: u32) -> bool {
        let gives_up = |connection: &Connection| connection.phase != Phase::Connected && connection.partial.is_none();
        self.is_waiting(slot) && self.connections.get(slot as usize).is_some_and(gives_up)
    }

    /// A plugin answers later: what comes behind this question waits.
    pub(super) fn wait_for(&mut self, slot: u32, cursor: Box<Cursor>, question: Question) {
        let deadline = self.now + self.shared.limits.answer_deadline_ms(question.callback());
        let connection = &mut self.connections[slot as usize];
        let handlers = connection.handlers.as_ref().expect("one of them was asked");
        let came = self.shared.chain.wait(handlers, &cursor, self.worker).map(Came::Answer);
        let is_there = came.is_some();
        let (packet, infos) = (KeptBytes::default(), VecDeque::new());
        let waiting = Waiting { cursor, question, packet, header_bytes: 0, since: self.now, deadline, came, infos };
        connection.is_waiting = true;
        connection.is_held = true;
        connection.extra().waiting = Some(Box::new(waiting));
        let id = connection.id;
        self.count_extra(slot);
        if is_there {
            self.held.push_back((slot, id));
        } else {
            self.arm_connection(slot, deadline);
        }
    }

    /// Keeps the packet that a question is about which is open from now on. A large one for which the worker has no room is
    /// refused, as one that comes in pieces is.
    pub(super) fn keep_new_question(
        &mut self,
        slot: u32,
        packet: &[u8],
        header_bytes: usize,
    ) -> Result<(), DecodeError> {
        if self.waiting(slot).is_some_and(|waiting| waiting.question.has_packet()) {
            self.check_partial(packet.len())?;
        }
        self.keep_question(slot, packet, header_bytes);
        Ok(())
    }

    /// Keeps the packet that the open question is about.
    fn keep_question(&mut self, slot: u32, packet: &[u8], header_bytes: usize) {
        if let Some(waiting) = self.waiting(slot).filter(|waiting| waiting.question.has_packet()) {
            waiting.packet = KeptBytes::new(packet, false);
            waiting.header_bytes = header_bytes;
            self.count_extra(slot);
        }
    }

    fn waiting(&mut self, slot: u32) -> Option<&mut Waiting> {
        self.connections.get_mut(slot as usize)?.extra.as_mut()?.waiting.as_deref_mut()
    }

    /// Takes the open question away from a connection.
    pub(super) fn take_waiting(&mut self, slot: u32) -> Option<Box<Waiting>> {
        let connection = &mut self.connections[slot as usize];
        connection.is_waiting = false;
        let waiting = connection.extra.as_mut()?.waiting.take()?;
        self.count_extra(slot);
        Some(waiting)
    }

    /// Has a message for `handle_info` wait behind the open question. `false` if there is none.
    pub(super) fn keep_info(&mut self, slot: u32, info: &InfoMail) -> bool {
        let Some(waiting) = self.waiting(slot) else {
            return false;
        };
        if waiting.infos.len() >= INFOS_MAX {
            tracing::warn!(
                kind = &*info.kind,
                "a message for handle_info was dropped: {INFOS_MAX} wait behind a question"
            );
            return true;
        }
        waiting.infos.push_back(Box::new(info.clone()));
        self.count_extra(slot);
        true
    }

    /// An answer has come, for a connection or for one that has ended meanwhile. One that nobody waits for is too late.
    pub(super) fn on_answer(&mut self, connection: u64, ticket: u64, answered: Box<Answered>) {
        let slot = self.slot_of_connection(connection);
        let waiting = slot.and_then(|slot| self.waiting(slot));
        match waiting.filter(|waiting| waiting.cursor.ticket() == ticket && waiting.came.is_none()) {
            Some(waiting) => {
                waiting.came = Some(Came::Answer(answered));
                self.held.extend(slot.map(|slot| (slot, connection)));
            }
            None => self.answer_farewell(connection, ticket, answered),
        }
    }

    /// Whether the deadline of a connection's question has something to say: it does before the connection's own times.
    pub(super) fn deadline_due(&mut self, slot: u32) -> bool {
        let now = self.now;
        let Some(waiting) = self.waiting(slot) else {
            return false;
        };
        let deadline = waiting.deadline;
        if waiting.came.is_none() && now < deadline {
            self.arm_connection(slot, deadline);
        } else if waiting.came.is_none() {
            waiting.came = Some(Came::Late);
            let connection = &self.connections[slot as usize];
            let id = connection.id;
            if let Some(waiting) = connection.extra.as_ref().and_then(|extra| extra.waiting.as_deref()) {
                let session = self.sessions.get(connection.session as usize);
                let who = waiting.client_id().unwrap_or_else(|| session.map_or("", |session| &session.client_id));
                self.shared.chain.expire(waiting.question.callback(), who, &waiting.cursor);
            }
            self.counters().answers_late.add(1);
            self.held.push_back((slot, id));
        }
        true
    }

    /// Goes on with a connection whose question has come to its end. `false` if that is still open.
    pub(super) fn resume(&mut self, slot: u32) -> bool {
        if self.waiting(slot).is_none_or(|waiting| waiting.came.is_none()) {
            return false;
        }
        let Some(waiting) = self.take_waiting(slot) else {
            return false;
        };
        self.spend(1);
        let Waiting { cursor, question, packet, header_bytes, since, came, infos, .. } = *waiting;
        let connection = &mut self.connections[slot as usize];
        // The client was not listened to.
        connection.heard_at = match connection.phase {
            Phase::Connected => self.now,
            _ => connection.heard_at + self.now.since(since),
        };
        let is_connected = connection.phase == Phase::Connected;
        let waited_ms = self.now.since(since);
        self.prolong_again(slot, |until| until + waited_ms);
        let came = came.expect("looked at before");
        if matches!(came, Came::Late) && is_connected && self.shared.limits.deadline == Deadline::Disconnect {
            self.close_failed(slot);
        } else if self.go_on(slot, *cursor, question, &packet, header_bytes, came).is_err() {
            self.close_failed(slot); // It was whole before.
        }
        self.keep_question(slot, &packet, header_bytes);
        self.release_infos(slot, infos);
        // What plugins could not be asked about meanwhile, as the state was with the one that answers.
        let session_slot = self.connections[slot as usize].session;
        if self.sessions.get(session_slot as usize).is_some_and(|session| session.asks_again) {
            self.ask_again(session_slot, None, &mut Reauthorised::default());
        }
        let session_slot = self.connections[slot as usize].session;
        if self.sessions.contains(session_slot as usize) {
            self.pump(session_slot);
            self.list_replays(slot);
        }
        if !self.is_waiting(slot)
            && let Some(due_at) = self.due_at(slot)
        {
            self.arm_connection(slot, due_at);
        }
        self.mark_dirty(slot);
        true
    }

    /// Acts on what has come of a question.
    fn go_on(
        &mut self,
        slot: u32,
        cursor: Cursor,
        question: Question,
        packet: &[u8],
        header_bytes: usize,
        came: Came,
    ) -> Result<(), DecodeError> {
        let version = self.connections[slot as usize].version;
        let decode = || codec::decode(version, packet, header_bytes);
        match question {
            Question::Connect(pending) => {
                let connect = codec::decode_connect(packet, header_bytes)?;
                self.resume_connect(slot, &connect, pending, cursor, came);
            }
            Question::Auth { pending, step } if packet[0] >> 4 == CONNECT => {
                let connect = codec::decode_connect(packet, header_bytes)?;
                self.resume_auth(slot, connect.properties, pending, step, &cursor, came);
            }
            Question::Auth { pending, step } => {
                if let Packet::Auth(auth) = decode()? {
                    self.resume_auth(slot, auth.properties, pending, step, &cursor, came);
                }
            }
            Question::Publish { topic } => {
                if let Packet::Publish(publish) = decode()? {
                    self.resume_publish(slot, &publish, topic.as_deref().unwrap_or(publish.topic), cursor, came);
                }
            }
            Question::Subscribe { codes } => {
                if let Packet::Subscribe(subscribe) = decode()? {
                    self.resume_subscribe(slot, &subscribe, codes, &cursor, came);
                }
            }
            Question::Unsubscribe { codes } => {
                if let Packet::Unsubscribe(unsubscribe) = decode()? {
                    self.resume_unsubscribe(slot, &unsubscribe, codes, &cursor, came);
                }
            }
            Question::Again(again) => self.resume_again(slot, *again, &cursor, came),
            Question::Info(info) => self.resume_info(slot, info, cursor, came),
        }
        Ok(())
    }

    /// Hands over what has waited behind a question, until the next one is open.
    pub(super) fn release_infos(&mut self, slot: u32, mut infos: VecDeque<Box<InfoMail>>) {
        if self.connections[slot as usize].phase == Phase::Leaving {
            return self.leave_infos(slot, infos);
        }
        while let Some(info) = infos.pop_front() {
            if let Some(waiting) = self.waiting(slot) {
                infos.push_front(info);
                waiting.infos = infos;
                return self.count_extra(slot);
            }
            self.info_to(slot, &info);
        }
    }
}
