//! What happens between two calls of the test: what the handler has asked for, and what is due.

use std::rc::Rc;
use std::sync::MutexGuard;

use super::effects::{Disconnection, Target};
use super::plugin::Plugin;
use super::services::give;
use super::world::{Mail, OwnPieces, Session, World};
use super::{Inner, raw_state};
use crate::abi::{AnswerKey, RawInfo, RawRetained, Status};
use crate::{Callback, Message, State};

/// Messages of the handler to itself that one call of the test brings about at most.
const MAIL_MAX: usize = 100_000;

impl Inner {
    pub(super) fn plugin(&self) -> Rc<Plugin> {
        Rc::clone(&self.plugin.borrow())
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.services.world()
    }

    /// Does what is to be done until a time, one thing after the other.
    pub(super) fn run_until(&self, until_ms: u64) {
        for _ in 0..MAIL_MAX {
            if self.do_requests() {
                continue;
            }
            let (mail, session) = {
                let mut world = self.world();
                let ends = |session: &Session| session.ends_at_ms.filter(|at| *at <= until_ms);
                let session =
                    world.sessions.iter().filter_map(|(id, session)| Some((ends(session)?, id.clone()))).min();
                let until = session.as_ref().map_or(until_ms, |(at, _)| *at);
                let mail = world.due(until);
                let at = mail.as_ref().map(|mail| mail.at_ms).or(session.as_ref().map(|(at, _)| *at));
                world.now_ms = at.unwrap_or(until_ms).max(world.now_ms);
                (mail, session)
            };
            match (mail, session) {
                (Some(mail), _) => self.bring(&mail),
                (None, Some((_, client_id))) => self.end_session(&client_id),
                (None, None) => return,
            }
        }
        panic!(
            "the handler sends messages to itself without end: {MAIL_MAX} have come, now it is {} ms",
            self.world().now_ms
        );
    }

    /// Does one of the things that the handler has asked for, if there is one.
    pub(super) fn do_requests(&self) -> bool {
        let (end, retain) = {
            let mut world = self.world();
            (world.to_end.pop_front(), world.to_retain.pop_front())
        };
        if let Some(Disconnection { connection, reason_code, properties }) = &end {
            self.end_by_server(connection.0, *reason_code, properties.clone());
        }
        if let Some(message) = &retain {
            self.set_retained(message);
        }
        let reauthorise = self.services.answer_requests();
        let has_request = reauthorise.is_some();
        if let Some((target, reply)) = reauthorise {
            give(reply, self.reauthorise(&target));
        }
        end.is_some() || retain.is_some() || has_request
    }

    /// Brings a message of the handler to itself.
    pub(super) fn bring(&self, mail: &Mail) {
        let (sender, connection) = mail.sender();
        let info = RawInfo {
            kind: mail.kind.as_str().into(),
            data: mail.data.as_slice().into(),
            connection,
            timer: mail.timer,
            sender,
            extension: std::ptr::null(),
        };
        let plugin = self.plugin();
        if mail.target == Target::Plugin {
            if plugin.implements(Callback::Event) {
                plugin.event(&info);
            }
            return;
        }
        let connections = self.world().connections_of(&mail.target);
        if let (Target::Connection(_), []) = (&mail.target, &connections[..]) {
            // A timer of a connection ends with it.
            self.world().mail.retain(|other| other.timer == 0 || other.timer != mail.timer);
        }
        for connection in connections {
            self.hand_info(connection, &info);
        }
    }

    /// Has the subscriptions of sessions asked about again. Those without a connection are asked about by nobody here.
    pub(super) fn reauthorise(&self, target: &Target) -> Result<OwnPieces, Status> {
        let sessions = self.world().sessions_of(target)?;
        let (mut removed, mut later) = (0, 0);
        for client_id in &sessions {
            let connection = self.world().sessions.get(client_id).and_then(|session| session.connection);
            match connection {
                Some(connection) => removed += self.ask_again(connection),
                None => later += 1,
            }
        }
        Ok(vec![
            (AnswerKey::COUNT, sessions.len() as u64, Vec::new()),
            (AnswerKey::IN_FLIGHT, later, Vec::new()),
            (AnswerKey::SUBSCRIPTIONS, removed, Vec::new()),
        ])
    }

    /// Ends a session.
    pub(super) fn end_session(&self, client_id: &str) {
        let Some(session) = self.world().sessions.remove(client_id) else { return };
        let plugin = self.plugin();
        if plugin.implements(Callback::SessionExpired) {
            let state = session.last_state.map(|(version, bytes)| State { version, bytes });
            plugin.session_expired(client_id.into(), state.as_ref().map(raw_state).as_ref());
        }
    }
    pub(super) fn set_retained(&self, message: &Message) {
        let change = if message.payload.is_empty() {
            if self.world().retained.remove(&message.topic).is_none() {
                return;
            }
            RawRetained::CLEARED
        } else {
            self.world().retained.insert(message.topic.clone(), message.clone());
            RawRetained::SET
        };
        let plugin = self.plugin();
        if plugin.implements(Callback::Retained) {
            plugin.retained(&RawRetained {
                topic: message.topic.as_str().into(),
                payload: message.payload.as_slice().into(),
                properties: message.properties.as_bytes().into(),
                qos: message.qos as u8,
                change,
                extension: std::ptr::null(),
            });
        }
    }
}
