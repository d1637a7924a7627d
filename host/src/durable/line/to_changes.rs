//! From lines to journals that make what they say.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use foldhash::fast::{FixedState, RandomState};

use super::super::change::{Change, Delivery, Identifiers, Messages, Origin, Terms};
use super::super::model::{behind, distance};
use super::{Counts, Delivered, FORMAT, Line, Message, Reason};
use plugin_api::QoS;

/// Journals are cut off at the first line behind so many bytes.
const JOURNAL_BYTES: usize = 256 << 10;

/// What lines come to, one after the other. What is remembered of them is 16 bytes for each session, retained message and value.
#[derive(Debug, Default)]
pub struct Writing {
    journal: Vec<u8>,
    /// Bodies in it.
    bodies: u32,
    session: Option<Session>,
    /// Sessions have the numbers from 1 on.
    sessions: u64,
    /// What there is, by a hash, and in which line.
    seen: HashMap<u64, u64, RandomState>,
    counts: Counts,
    stage: Stage,
}

/// Which lines may come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    First,
    Between,
    Over,
}

/// The session whose lines come.
#[derive(Debug)]
struct Session {
    number: u64,
    client_id: String,
    terms: Terms,
    filters: HashSet<String, RandomState>,
    has_will: bool,
    has_states: bool,
    /// Packet Identifiers of messages that are in flight: the first, and the last.
    in_flight: Option<(u16, u16)>,
    incoming: HashSet<u16, RandomState>,
}

impl Writing {
    /// Adds the line with this number, which counts from 1. What is remembered is given to `take` now and then: a journal.
    ///
    /// # Errors
    /// A sentence: it cannot stand here.
    pub fn add(&mut self, number: u64, line: &Line<'_>, take: &mut dyn FnMut(Vec<u8>)) -> Result<(), String> {
        match (self.stage, line) {
            (Stage::First, Line::Export { format: FORMAT, .. }) => self.stage = Stage::Between,
            (Stage::First, Line::Export { format, host }) => {
                return Err(format!(
                    "host {host} has written it in version {format} of the form, and this host reads version {FORMAT}"
                ));
            }
            (Stage::First, _) => return Err("expected a line of the type \"export\" first".to_owned()),
            (Stage::Between, Line::Export { .. }) => return Err("this line comes first, and only there".to_owned()),
            (Stage::Between, Line::End(counts)) => {
                self.end_session();
                self.cut(take);
                self.stage = Stage::Over;
                return if *counts == self.counts { Ok(()) } else { Err(self.wrong_counts(counts)) };
            }
            (Stage::Between, _) => {
                if self.journal.len() >= JOURNAL_BYTES {
                    self.cut(take);
                }
                self.put(number, line, take)?;
                self.counts.add(line);
            }
            (Stage::Over, _) => return Err("it stands behind the last line".to_owned()),
        }
        Ok(())
    }

    /// What there was, once all lines have been.
    ///
    /// # Errors
    /// A sentence: the last one is missing.
    pub fn counts(&self) -> Result<Counts, String> {
        match self.stage {
            Stage::Over => Ok(self.counts),
            _ => Err("the last line, of the type \"end\", is missing: it is not whole".to_owned()),
        }
    }

    fn wrong_counts(&self, said: &Counts) -> String {
        format!("it says {said}, but there were {}: lines are missing, or are too many", self.counts)
    }

    fn put(&mut self, number: u64, line: &Line<'_>, take: &mut dyn FnMut(Vec<u8>)) -> Result<(), String> {
        match line {
            Line::KeyValue { plugin, key, value } => {
                let length = plugin.len().to_le_bytes();
                self.once(number, "value", &[b"v", &length, plugin.as_bytes(), key])?;
                self.change(&Change::KeyValue { plugin, key, value: Some(value) });
            }
            Line::Retained(message) => {
                self.once(number, "retained message of this topic", &[b"r", message.topic.as_bytes()])?;
                self.change(&Change::Retained { message: message.stored() });
            }
            Line::Session { client_id, terms } => {
                self.once(number, "session", &[b"s", client_id.as_bytes()])?;
                self.end_session();
                self.sessions += 1;
                let session = self.sessions;
                self.change(&Change::Began { session, client_id, terms: *terms });
                self.session = Some(Session::new(session, client_id, *terms));
            }
            Line::OnItsWay { from, to, workers, share, message } => {
                // It has a journal of its own, which is of the worker that it comes from.
                self.end_session();
                self.cut(take);
                Change::Turn { worker: *from, workers: *workers }.encode(&mut self.journal);
                let body = self.body(message);
                self.change(&Change::Transit { from: *from, to: *to, group: share.as_deref(), body });
                self.cut(take);
            }
            Line::Subscription { .. } | Line::Will { .. } | Line::LastStates { .. } => self.put_of_session(line)?,
            Line::InFlight { client_id, packet_id, message } => {
                let session = self.session(client_id)?;
                session.note_in_flight(*packet_id)?;
                let (session, first) = (session.number, *packet_id);
                match message {
                    Some(message) => {
                        self.messages(message, |messages| Change::SentNow { session, first, messages });
                    }
                    None => self.change(&Change::SentNow { session, first, messages: Messages::Gone { count: 1 } }),
                }
            }
            Line::Queued { client_id, message } => {
                let session = self.session(client_id)?.number;
                self.messages(message, |messages| Change::Queued { session, messages });
            }
            Line::Incoming { client_id, packet_id, message } => {
                let session = self.session(client_id)?;
                if !session.incoming.insert(*packet_id) {
                    return Err(format!(
                        "a message from this client is there with Packet Identifier {packet_id} already"
                    ));
                }
                let (session, first) = (session.number, *packet_id);
                let messages = match message {
                    None => Messages::Gone { count: 1 },
                    Some(message) => {
                        let origin = Origin::Subscriptions(Identifiers::List(&[]));
                        let delivery = Delivery { qos: QoS::ExactlyOnce, retain: false, origin };
                        Messages::Bodies { first: self.body(message), count: 1, delivery }
                    }
                };
                self.change(&Change::Incoming { session, first, messages });
            }
            Line::Export { .. } | Line::End(_) => {}
        }
        Ok(())
    }

    /// What a session has at most once, or under a name.
    fn put_of_session(&mut self, line: &Line<'_>) -> Result<(), String> {
        match line {
            Line::Subscription { client_id, filter, options, identifier } => {
                let session = self.session(client_id)?;
                if !session.filters.insert(filter.clone().into_owned()) {
                    return Err(format!("a subscription of this client to {filter:?} is there already"));
                }
                let (session, options, identifier) = (session.number, *options, *identifier);
                self.change(&Change::Subscribed { session, filter, options, identifier });
            }
            Line::Will { client_id, due, expiry_secs, message } => {
                let session = self.session(client_id)?;
                if std::mem::replace(&mut session.has_will, true) {
                    return Err("a will of this client is there already".to_owned());
                }
                let (session, due, expiry_secs) = (session.number, *due, *expiry_secs);
                self.change(&Change::Will { session, due, expiry_secs, message: message.stored() });
            }
            Line::LastStates { client_id, states } => {
                let session = self.session(client_id)?;
                if std::mem::replace(&mut session.has_states, true) {
                    return Err("last states of this client are there already".to_owned());
                }
                let session = session.number;
                self.change(&Change::LastStates { session, states });
            }
            _ => {}
        }
        Ok(())
    }

    /// The session whose lines come, if it is this client's.
    fn session(&mut self, client_id: &str) -> Result<&mut Session, String> {
        let Some(session) = &mut self.session else {
            return Err(format!("it is of client {client_id:?}, expected behind the line of its session"));
        };
        if session.client_id == client_id {
            return Ok(session);
        }
        Err(format!(
            "it is of client {client_id:?}, but stands behind the session of {:?}, expected behind that of its own client",
            session.client_id
        ))
    }

    /// There is only one of these.
    fn once(&mut self, number: u64, what: &str, parts: &[&[u8]]) -> Result<(), String> {
        match self.seen.insert(FixedState::with_seed(0).hash_one(parts), number) {
            None => Ok(()),
            Some(first) => Err(format!("the same {what} is there already, in line {first}")),
        }
    }

    /// A session has all that it gets.
    fn end_session(&mut self) {
        let Some(Session { number: session, terms, in_flight, .. }) = self.session.take() else { return };
        // What was sent last may have been acknowledged already.
        if in_flight.is_some_and(|(_, last)| behind(last, 1) != terms.next_packet_id) {
            self.change(&Change::Changed { session, terms });
        }
    }

    fn messages(&mut self, delivered: &Delivered<'_>, change: impl for<'m> FnOnce(Messages<'m>) -> Change<'m>) {
        let first = self.body(&delivered.message);
        let identifiers;
        let origin = match &delivered.reason {
            Reason::Subscriptions(list) => {
                identifiers = Identifiers::List(list);
                Origin::Subscriptions(identifiers)
            }
            Reason::Shared { share: group, identifier, published: None } => {
                Origin::Shared { group, identifier: *identifier }
            }
            Reason::Shared { share: group, identifier, published: Some(published) } => {
                Origin::Instead { group, identifier: *identifier, published: self.body(published) }
            }
            Reason::Sent => Origin::Sent,
        };
        let delivery = Delivery { qos: delivered.qos, retain: delivered.retain, origin };
        self.change(&change(Messages::Bodies { first, count: 1, delivery }));
    }

    fn body(&mut self, message: &Message<'_>) -> u32 {
        let number = self.bodies;
        self.change(&Change::Body { number, message: message.stored() });
        self.bodies += 1;
        number
    }

    fn change(&mut self, change: &Change<'_>) {
        if self.journal.is_empty() {
            Change::Turn { worker: 0, workers: 1 }.encode(&mut self.journal);
        }
        change.encode(&mut self.journal);
    }

    fn cut(&mut self, take: &mut dyn FnMut(Vec<u8>)) {
        self.bodies = 0;
        if !self.journal.is_empty() {
            take(std::mem::take(&mut self.journal));
        }
    }
}

impl Session {
    fn new(number: u64, client_id: &str, terms: Terms) -> Self {
        Self {
            number,
            client_id: client_id.to_owned(),
            terms,
            filters: HashSet::default(),
            has_will: false,
            has_states: false,
            in_flight: None,
            incoming: HashSet::default(),
        }
    }

    /// Packet Identifiers grow, up to the first one again.
    fn note_in_flight(&mut self, packet_id: u16) -> Result<(), String> {
        match &mut self.in_flight {
            Some((first, last)) if distance(*first, packet_id) <= distance(*first, *last) => Err(format!(
                "Packet Identifier {packet_id} comes behind {last}, where {first} was the first: expected one that grows"
            )),
            Some((_, last)) => {
                *last = packet_id;
                Ok(())
            }
            none => {
                *none = Some((packet_id, packet_id));
                Ok(())
            }
        }
    }
}
