//! AUTH: the exchange that decides about a client before CONNACK, and re-authentication.

use plugin_api::{DisconnectKind, Properties, PropertiesBuf, Property, ReasonCode};

use super::connect::{Refusal, handler_failed};
use super::connection::{Closing, PendingConnect, Phase};
use super::deferred::{Came, Question};
use super::inbound::{Next, protocol_error};
use super::{Core, failures};
use crate::clock::Millis;
use crate::codec::{self, DecodeError, Packet};
use crate::plugin::{Answered, AuthOutcome, AuthRequest, AuthStep, Cursor};

impl Core {
    /// One step of an authentication exchange before CONNACK. `Ok(None)`: the client has to answer, or a plugin does.
    pub(super) fn authenticate(
        &mut self,
        slot: u32,
        pending: Box<PendingConnect>,
        step: AuthStep,
        data: Option<&[u8]>,
        properties: Properties<'_>,
    ) -> Result<Option<Box<PendingConnect>>, Refusal> {
        let outcome = self.ask_auth(slot, &pending.client_id, step, data, properties, None);
        self.decide_auth(slot, pending, step, outcome)
    }

    fn decide_auth(
        &mut self,
        slot: u32,
        mut pending: Box<PendingConnect>,
        step: AuthStep,
        outcome: AuthOutcome,
    ) -> Result<Option<Box<PendingConnect>>, Refusal> {
        match outcome {
            AuthOutcome::Ok { data } => {
                pending.accepted = true;
                pending.auth_data = data;
                Ok(Some(pending))
            }
            AuthOutcome::Continue { data } => {
                self.send_auth(slot, ReasonCode::CONTINUE_AUTHENTICATION, Some(&data)); // [MQTT-4.12.0-2]
                let connection = &mut self.connections[slot as usize];
                connection.phase = Phase::Authenticating;
                connection.extra().pending = Some(pending);
                Ok(None)
            }
            AuthOutcome::Reject { reason_code, properties } => {
                Err(Refusal { reason_code, properties, kind: DisconnectKind::Refused })
            }
            AuthOutcome::Failed => Err(handler_failed()),
            AuthOutcome::Deferred(cursor) => {
                self.wait_for(slot, cursor, Question::Auth { pending: Some(pending), step });
                Ok(None)
            }
        }
    }

    /// Goes on with a step about which a plugin has answered later, or not in time.
    pub(super) fn resume_auth(
        &mut self,
        slot: u32,
        properties: Properties<'_>,
        pending: Option<Box<PendingConnect>>,
        step: AuthStep,
        cursor: &Cursor,
        came: Came,
    ) {
        let session = self.session_of(slot).map(|session| session.client_id.clone());
        let who = pending.as_ref().map(|pending| pending.client_id.as_str()).or(session.as_deref()).unwrap_or_default();
        let outcome = match came {
            Came::Answer(answered) => {
                let data = properties.authentication_data();
                self.ask_auth(slot, who, step, data, properties, Some((cursor, *answered)))
            }
            Came::Late => {
                let reason_code = match pending {
                    Some(_) => ReasonCode::SERVER_UNAVAILABLE,
                    None => ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
                };
                AuthOutcome::Reject { reason_code, properties: PropertiesBuf::default() }
            }
        };
        match pending {
            Some(pending) => {
                let decided = self.decide_auth(slot, pending, step, outcome);
                self.settle(slot, decided);
            }
            None => self.settle_again(slot, step, outcome),
        }
    }

    /// Asks the handlers, or goes on with what one of them has answered.
    fn ask_auth(
        &mut self,
        slot: u32,
        who: &str,
        step: AuthStep,
        data: Option<&[u8]>,
        properties: Properties<'_>,
        answered: Option<(&Cursor, Answered)>,
    ) -> AuthOutcome {
        let connection = &mut self.connections[slot as usize];
        let auth = connection.extra.as_mut().and_then(|extra| extra.auth.as_mut());
        let (Some(auth), Some(handlers)) = (auth, connection.handlers.as_mut()) else {
            return AuthOutcome::Failed;
        };
        let connected = connection.phase == Phase::Connected;
        let request = AuthRequest { method: &auth.method, data, step, properties: properties.as_bytes(), connected };
        match answered {
            None => self.shared.chain.auth(handlers, who, &mut auth.owner, &request),
            Some((cursor, answered)) => {
                self.shared.chain.resume_auth(handlers, who, &mut auth.owner, &request, cursor, answered)
            }
        }
    }

    fn send_auth(&mut self, slot: u32, reason_code: ReasonCode, data: Option<&[u8]>) {
        let method = self.connections[slot as usize].auth().map(|auth| auth.method.clone());
        let mut properties = PropertiesBuf::default();
        if let Some(method) = &method {
            properties = properties.with(Property::AuthenticationMethod(method)); // [MQTT-4.12.0-5]
        }
        if let Some(data) = data {
            properties = properties.with(Property::AuthenticationData(data));
        }
        self.answer(slot, &Packet::Auth(codec::Auth { reason_code, properties: properties.as_properties() }));
    }

    /// AUTH from the client: the next step of the exchange at CONNECT, or a re-authentication.
    pub(super) fn on_auth(&mut self, slot: u32, auth: &codec::Auth<'_>) -> Result<Next, DecodeError> {
        self.has_read_secrets = true;
        let connection = &mut self.connections[slot as usize];
        let known = connection.auth().map(|auth| (auth.method.clone(), auth.again_until.is_some()));
        let Some((method, again)) = known else {
            // [MQTT-4.12.0-7]
            return Err(protocol_error("AUTH, but CONNECT named no Authentication Method"));
        };
        if auth.properties.authentication_method() != Some(&*method) {
            // [MQTT-4.12.0-5] [MQTT-4.12.1-1]
            return Err(protocol_error("AUTH with another Authentication Method than CONNECT's"));
        }
        let data = auth.properties.authentication_data();
        if connection.phase == Phase::Authenticating {
            if auth.reason_code != ReasonCode::CONTINUE_AUTHENTICATION {
                return Err(protocol_error("before CONNACK, AUTH has to be 0x18 (Continue authentication)"));
            }
            let pending = connection.extra().pending.take().expect("kept while the exchange goes on");
            let decided = self.authenticate(slot, pending, AuthStep::Continue, data, auth.properties);
            return Ok(self.settle(slot, decided));
        }
        let step = match (auth.reason_code, again) {
            (ReasonCode::RE_AUTHENTICATE, false) => AuthStep::ReAuthenticate,
            (ReasonCode::CONTINUE_AUTHENTICATION, true) => AuthStep::Continue,
            _ => {
                return Err(protocol_error(
                    "AUTH has to be 0x19 (Re-authenticate) to begin and 0x18 (Continue authentication) to go on",
                ));
            }
        };
        if step == AuthStep::ReAuthenticate {
            // During an exchange a connection keeps its plugins. Who begins the next one behind the end of this one, in what
            // is read at once, would keep them for ever.
            self.look_at_plan();
            if !self.conform(slot) {
                return Ok(Next::Stop);
            }
        }
        self.re_authenticate(slot, step, data, auth.properties);
        Ok(self.next(slot))
    }

    fn re_authenticate(&mut self, slot: u32, step: AuthStep, data: Option<&[u8]>, properties: Properties<'_>) {
        let who = self.session_of(slot).map(|session| session.client_id.clone()).expect("connected");
        let outcome = self.ask_auth(slot, &who, step, data, properties, None);
        self.settle_again(slot, step, outcome);
    }

    /// Gives a client that was not listened to more time for a re-authentication, if one is under way.
    pub(super) fn prolong_again(&mut self, slot: u32, later: impl FnOnce(Millis) -> Millis) {
        let auth = self.connections[slot as usize].extra.as_mut().and_then(|extra| extra.auth.as_mut());
        if let Some(until) = auth.and_then(|auth| auth.again_until.as_mut()) {
            *until = later(*until);
        }
    }

    /// Ends a connection whose re-authentication has taken too long. `false` if it has time, or none is under way.
    pub(super) fn is_overdue_again(&mut self, slot: u32) -> bool {
        let until = self.connections[slot as usize].auth().and_then(|auth| auth.again_until);
        let is_overdue = until.is_some_and(|until| until <= self.now);
        if is_overdue {
            // [MQTT-4.12.1-2]
            self.close(slot, Closing::telling(DisconnectKind::ServerDisconnect, ReasonCode::NOT_AUTHORIZED));
        }
        is_overdue
    }

    fn settle_again(&mut self, slot: u32, step: AuthStep, outcome: AuthOutcome) {
        // The whole of it has the time that CONNECT has: who does not end it would keep the plugins that began it.
        let until = self.now + self.connections[slot as usize].listener.limits.connect_timeout;
        if let Some(auth) = &mut self.connections[slot as usize].extra().auth {
            match &outcome {
                AuthOutcome::Continue { .. } => auth.again_until = auth.again_until.or(Some(until)),
                AuthOutcome::Deferred(_) => {} // It goes on, or not.
                AuthOutcome::Ok { .. } | AuthOutcome::Reject { .. } | AuthOutcome::Failed => auth.again_until = None,
            }
        }
        match outcome {
            AuthOutcome::Ok { data } => self.send_auth(slot, ReasonCode::SUCCESS, data.as_deref()),
            AuthOutcome::Continue { data } => {
                self.send_auth(slot, ReasonCode::CONTINUE_AUTHENTICATION, Some(&data));
                self.arm_connection(slot, until);
            }
            // [MQTT-4.12.1-2]
            AuthOutcome::Reject { reason_code, properties } => {
                if failures::is_failure(reason_code) {
                    self.note_failure(slot);
                }
                let closing = Closing::telling(DisconnectKind::ServerDisconnect, reason_code);
                self.close(slot, closing.with_properties(properties));
            }
            AuthOutcome::Failed => self.close_failed(slot),
            AuthOutcome::Deferred(cursor) => self.wait_for(slot, cursor, Question::Auth { pending: None, step }),
        }
    }
}
