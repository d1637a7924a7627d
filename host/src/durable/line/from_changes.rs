//! From what a server begins with to lines.

use std::collections::HashMap;

use super::super::change::{Change, ChangeError, Changes, Messages, Origin, StoredMessage};
use super::super::model::behind;
use super::{Delivered, Line, Message, Reason};
use crate::clock::WallMillis;
use crate::message::MessageParts;

/// A sentence about changes that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit(pub String);

impl Misfit {
    fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl From<ChangeError> for Misfit {
    fn from(error: ChangeError) -> Self {
        Self(error.to_string())
    }
}

/// Reads pieces of what a server begins with, for one worker, in their order.
#[derive(Debug, Default)]
pub struct Reading {
    /// The session that the last change was about, and its Client Identifier.
    client: (u64, String),
    /// How many workers there were where the last turn was.
    workers: u16,
}

/// Takes lines.
type Put<'p, E> = &'p mut dyn FnMut(&Line<'_>) -> Result<(), E>;

/// The bodies of one turn, by their numbers.
type Bodies<'a> = HashMap<u32, StoredMessage<'a>>;

impl Reading {
    /// Gives what a piece says to `put`.
    ///
    /// # Errors
    /// What `put` says, and [`Misfit`].
    pub fn read<E: From<Misfit>>(&mut self, piece: &[u8], put: Put<'_, E>) -> Result<(), E> {
        let mut bodies = Bodies::new();
        for change in Changes::new(piece) {
            let (_, change) = change.map_err(Misfit::from)?;
            match change {
                Change::Turn { workers, .. } => {
                    self.workers = workers;
                    bodies.clear();
                }
                Change::Body { number, message } => drop(bodies.insert(number, message)),
                Change::Began { session, client_id, terms } => {
                    self.client = (session, client_id.to_owned());
                    put(&Line::Session { client_id: client_id.into(), terms })?;
                }
                // It says the same again, behind messages with other Packet Identifiers than the next one.
                Change::Changed { .. } => {}
                Change::Retained { message } => put(&Line::Retained(Message::of(&message)))?,
                Change::KeyValue { plugin, key, value } => {
                    let value = value.unwrap_or_default().into();
                    put(&Line::KeyValue { plugin: plugin.into(), key: key.into(), value })?;
                }
                Change::Transit { from, to, group, body } => {
                    let (message, share) = (message_of(&bodies, body)?, group.map(Into::into));
                    put(&Line::OnItsWay { from, to, workers: self.workers, share, message })?;
                }
                of_session => self.read_of_session(&of_session, &bodies, put)?,
            }
        }
        Ok(())
    }

    fn read_of_session<E: From<Misfit>>(
        &self,
        change: &Change<'_>,
        bodies: &Bodies<'_>,
        put: Put<'_, E>,
    ) -> Result<(), E> {
        let client_id = |session: u64| match &self.client {
            (number, client_id) if *number == session => Ok(client_id.as_str().into()),
            _ => Err(Misfit(format!("session {session} has not begun"))),
        };
        match *change {
            Change::Subscribed { session, filter, options, identifier } => {
                let (client_id, filter) = (client_id(session)?, filter.into());
                put(&Line::Subscription { client_id, filter, options, identifier })
            }
            Change::Will { session, due, expiry_secs, ref message } => {
                let (client_id, message) = (client_id(session)?, Message::of(message));
                put(&Line::Will { client_id, due, expiry_secs, message })
            }
            Change::LastStates { session, states } => {
                put(&Line::LastStates { client_id: client_id(session)?, states: states.into() })
            }
            Change::Queued { session, ref messages } => each(messages, bodies, &mut |_, message| {
                let message = message.ok_or_else(|| Misfit::new("a message that waits is nowhere"))?;
                put(&Line::Queued { client_id: client_id(session)?, message })
            }),
            Change::SentNow { session, first, ref messages } => each(messages, bodies, &mut |number, message| {
                let packet_id = behind(first, number);
                put(&Line::InFlight { client_id: client_id(session)?, packet_id, message })
            }),
            Change::Incoming { session, first, ref messages } => each(messages, bodies, &mut |number, message| {
                let packet_id = behind(first, number);
                let message = message.map(|delivered| delivered.message);
                put(&Line::Incoming { client_id: client_id(session)?, packet_id, message })
            }),
            ref other => Err(Misfit(format!("{other:?} is not what a server begins with")).into()),
        }
    }
}

fn message_of<'a>(bodies: &Bodies<'a>, number: u32) -> Result<Message<'a>, Misfit> {
    bodies.get(&number).map(Message::of).ok_or_else(|| Misfit(format!("there is no body {number}")))
}

/// Each message, with its number among them. `None`: nothing has to be known of it any more.
fn each<'a, E: From<Misfit>>(
    messages: &Messages<'a>,
    bodies: &Bodies<'a>,
    take: &mut dyn FnMut(u32, Option<Delivered<'a>>) -> Result<(), E>,
) -> Result<(), E> {
    match messages {
        Messages::Gone { count } => (0..*count).try_for_each(|number| take(number, None)),
        Messages::Packets(packets) => (0..).zip(packets.each()).try_for_each(|(number, packet)| {
            let packet = packet.ok_or_else(|| Misfit::new("a packet is none"))?;
            let MessageParts { topic, payload, properties, qos, retain, source, .. } =
                MessageParts::plain(packet.topic, packet.payload, packets.qos);
            let expires_at = WallMillis::NEVER;
            let stored = StoredMessage { topic, payload, properties, qos, retain, expires_at, source, token: 0 };
            let reason = match packets.group {
                Some(share) => Reason::Shared { share: share.into(), identifier: 0, published: None },
                None => Reason::Subscriptions(Vec::new()),
            };
            take(number, Some(Delivered { message: Message::of(&stored), qos, retain: false, reason }))
        }),
        Messages::Bodies { first, count, delivery } => (0..*count).try_for_each(|number| {
            let message = message_of(bodies, first + number)?;
            let reason = match delivery.origin {
                Origin::Subscriptions(identifiers) => Reason::Subscriptions(identifiers.iter().collect()),
                Origin::Shared { group, identifier } => {
                    Reason::Shared { share: group.into(), identifier, published: None }
                }
                Origin::Instead { group, identifier, published } => {
                    let published = Some(Box::new(message_of(bodies, published)?));
                    Reason::Shared { share: group.into(), identifier, published }
                }
                Origin::Sent => Reason::Sent,
            };
            take(number, Some(Delivered { message, qos: delivery.qos, retain: delivery.retain, reason }))
        }),
    }
}
