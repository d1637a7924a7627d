//! May a client connect? CONNECT is looked at, and put to the limits and the handlers.

use std::hash::BuildHasher;

use plugin_api::{DisconnectKind, PropertiesBuf, Property, ReasonCode};

use super::connection::{Auth, Closing, Connection, PendingConnect, Will};
use super::deferred::{Came, Question};
use super::inbound::Next;
use super::mount::MOUNTED;
use super::profile::Listener;
use super::publish::is_payload_as_indicated;
use super::{Core, failures, server_reference};
use crate::codec::{self, Connack, Connect, Packet, ProtocolVersion};
use crate::limits::Limits;
use crate::plugin::{
    self, AuthStep, ConnackOverrides, ConnectOutcome, ConnectRequest, ConnectionInfo, Cursor, Transport, WillRequest,
};

/// A decision against a client.
pub(super) struct Refusal {
    pub(super) reason_code: ReasonCode,
    pub(super) properties: PropertiesBuf,
    pub(super) kind: DisconnectKind,
}

impl From<ReasonCode> for Refusal {
    fn from(reason_code: ReasonCode) -> Self {
        Self { reason_code, properties: PropertiesBuf::default(), kind: DisconnectKind::Refused }
    }
}

/// A plugin could not answer: nobody gets in.
pub(super) fn handler_failed() -> Refusal {
    Refusal { kind: DisconnectKind::HandlerFailed, ..ReasonCode::UNSPECIFIED_ERROR.into() }
}

impl Core {
    pub(super) fn on_connect(&mut self, slot: u32, connect: &Connect<'_>) -> Next {
        self.note_capabilities(slot, connect);
        let decided = self.check_connect(slot, connect).and_then(|()| self.ask_about(slot, connect));
        self.settle(slot, decided)
    }

    /// Keeps what CONNECT says about the client's receiving side.
    fn note_capabilities(&mut self, slot: u32, connect: &Connect<'_>) {
        let connection = &mut self.connections[slot as usize];
        let limits = &connection.listener.limits;
        let (ours, aliases_max) = (limits.in_flight_max, limits.outbound_topic_aliases_max);
        connection.version = connect.version;
        connection.problem_information = connect.properties.request_problem_information() != Some(0);
        connection.packet_bytes_max = connect.properties.maximum_packet_size().unwrap_or(u32::MAX);
        // [MQTT-3.3.2-11]
        let theirs = connect.properties.topic_alias_maximum().unwrap_or(0);
        if connection.aliases_max != MOUNTED {
            connection.aliases_max = u8::try_from(theirs.min(aliases_max)).unwrap_or(u8::MAX).min(MOUNTED - 1);
        }
        connection.in_flight_max = connect.properties.receive_maximum().map_or(ours, |theirs| theirs.min(ours));
    }

    /// What is refused before handlers are asked, whoever the client is.
    fn check_connect(&self, slot: u32, connect: &Connect<'_>) -> Result<(), Refusal> {
        let connection = &self.connections[slot as usize];
        if connection.listener.profile.username_from.is_some() && username(connection, connect).is_none() {
            return Err(ReasonCode::BAD_USER_NAME_OR_PASSWORD.into());
        }
        let Listener { profile, limits, .. } = &*connection.listener;
        if !self.shared.admission.may_connect(profile, &self.shared.limits, self.now) {
            self.counters().connects_refused.add(1);
            return Err(ReasonCode::CONNECTION_RATE_EXCEEDED.into());
        }
        let Some(will) = &connect.will else {
            return Ok(());
        };
        if will.qos > limits.maximum_qos {
            return Err(ReasonCode::QOS_NOT_SUPPORTED.into()); // [MQTT-3.2.2-12]
        }
        if will.retain && !limits.retain_available {
            return Err(ReasonCode::RETAIN_NOT_SUPPORTED.into()); // [MQTT-3.2.2-13]
        }
        if let Some(reason_code) = self.topic_refusal(will.topic) {
            return Err(reason_code.into());
        }
        if limits.check_payload_format && !is_payload_as_indicated(will.properties, will.payload) {
            return Err(ReasonCode::PAYLOAD_FORMAT_INVALID.into());
        }
        Ok(())
    }

    /// There is no room for a client here: another server may have some.
    pub(super) fn no_room(&self, slot: u32, otherwise: ReasonCode) -> Refusal {
        match server_reference(&self.connections[slot as usize].listener.limits) {
            Some(properties) => Refusal { properties, ..ReasonCode::USE_ANOTHER_SERVER.into() },
            None => otherwise.into(),
        }
    }

    /// Asks whether a client may connect. `Ok(None)`: an authentication exchange has begun, or a plugin answers later.
    fn ask_about(&mut self, slot: u32, connect: &Connect<'_>) -> Result<Option<Box<PendingConnect>>, Refusal> {
        let pending = self.pending(slot, connect)?;
        let connection = &mut self.connections[slot as usize];
        let (chain, plan) = (&self.shared.chain, &self.plan);
        let (id, peer, profile) = (connection.id, connection.peer.addr(), &connection.listener.profile);
        let (handlers, outcome) = plugin::show(connection.details(), |transport| {
            let info = ConnectionInfo { connection: id, peer, listener: &profile.name, transport };
            let mut handlers = plan.new_connection(profile.plugins, &info).map_err(|_| handler_failed())?;
            let outcome = chain.connect(&mut handlers, &request(connection, &pending, connect, transport));
            Ok::<_, Refusal>((handlers, outcome))
        })?;
        connection.handlers = Some(handlers);
        self.decide_connect(slot, pending, connect, outcome)
    }

    /// Goes on with a CONNECT about which a plugin has answered later, or not in time.
    pub(super) fn resume_connect(
        &mut self,
        slot: u32,
        connect: &Connect<'_>,
        pending: Box<PendingConnect>,
        cursor: Cursor,
        came: Came,
    ) {
        let connection = &mut self.connections[slot as usize];
        let outcome = match (came, connection.handlers.take()) {
            (Came::Answer(answered), Some(mut handlers)) => {
                let outcome = plugin::show(connection.details(), |transport| {
                    let request = request(connection, &pending, connect, transport);
                    self.shared.chain.resume_connect(&mut handlers, &request, cursor, *answered)
                });
                connection.handlers = Some(handlers);
                outcome
            }
            (Came::Late, handlers) => {
                connection.handlers = handlers;
                let (reason_code, properties) = (ReasonCode::SERVER_UNAVAILABLE, PropertiesBuf::default());
                ConnectOutcome::Reject { reason_code, properties }
            }
            (_, None) => ConnectOutcome::Failed,
        };
        let decided = self.decide_connect(slot, pending, connect, outcome);
        self.settle(slot, decided);
    }

    /// Takes over what the handlers have decided. `Ok(None)`: an authentication exchange has begun, or a plugin answers later.
    fn decide_connect(
        &mut self,
        slot: u32,
        mut pending: Box<PendingConnect>,
        connect: &Connect<'_>,
        outcome: ConnectOutcome,
    ) -> Result<Option<Box<PendingConnect>>, Refusal> {
        match outcome {
            ConnectOutcome::NoOpinion => {}
            ConnectOutcome::Accept(overrides) => pending.apply(overrides),
            ConnectOutcome::Reject { reason_code, properties } => {
                return Err(Refusal { reason_code, properties, kind: DisconnectKind::Refused });
            }
            ConnectOutcome::Failed => return Err(handler_failed()),
            ConnectOutcome::Deferred(cursor) => {
                self.wait_for(slot, cursor, Question::Connect(pending));
                return Ok(None);
            }
        }
        let connection = &mut self.connections[slot as usize];
        if let Some(will) = &connect.will {
            connection.extra().will = Some(Will::new(will));
        }
        let Some(method) = connect.properties.authentication_method() else {
            return Ok(Some(pending));
        };
        connection.extra().auth = Some(Auth { method: method.into(), owner: None, again_until: None });
        let data = connect.properties.authentication_data().map(<[u8]>::to_vec);
        self.authenticate(slot, pending, AuthStep::Start, data.as_deref(), connect.properties)
    }

    /// What CONNECT asks for, within the bounds.
    fn pending(&self, slot: u32, connect: &Connect<'_>) -> Result<Box<PendingConnect>, Refusal> {
        let limits = &self.connections[slot as usize].listener.limits;
        if connect.client_id.len() > limits.client_id_bytes_max {
            return Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID.into());
        }
        let assigned = connect.client_id.is_empty();
        let may_assign = match connect.version {
            ProtocolVersion::V3_1 => false,
            ProtocolVersion::V3_1_1 => connect.clean_start,
            ProtocolVersion::V5 => true,
        };
        if assigned && !may_assign {
            return Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID.into()); // [MQTT-3.1.3-8]
        }
        let client_id = if assigned {
            // [MQTT-3.1.3-6] [MQTT-3.2.2-16]
            let id = self.connections[slot as usize].id;
            format!("host-{:016x}-{id:x}", self.shared.assigned_keys.hash_one(id))
        } else {
            connect.client_id.to_owned()
        };
        let (expiry_asked, expiry_secs_max) = match connect.version {
            ProtocolVersion::V5 => {
                (connect.properties.session_expiry_interval().unwrap_or(0), limits.session_expiry_secs_max)
            }
            _ if connect.clean_start => (0, 0),
            _ => (limits.persistent_expiry_3x_secs, limits.persistent_expiry_3x_secs),
        };
        Ok(Box::new(PendingConnect {
            client_id,
            assigned,
            version: connect.version,
            clean_start: connect.clean_start,
            keep_alive_asked: connect.keep_alive,
            keep_alive_secs: granted_keep_alive(connect, limits),
            expiry_asked,
            expiry_secs: expiry_asked.min(expiry_secs_max),
            expiry_secs_max,
            response_information: connect.properties.request_response_information() == Some(1),
            connack: PropertiesBuf::default(),
            auth_data: None,
            accepted: false,
        }))
    }

    /// Ends the asking: lets the client in, here or at the worker that owns its session, or refuses it.
    pub(super) fn settle(&mut self, slot: u32, decided: Result<Option<Box<PendingConnect>>, Refusal>) -> Next {
        let refusal = match decided {
            Ok(None) => return self.next(slot),
            Ok(Some(pending)) => match self.check_anonymous(slot, &pending) {
                Ok(()) => return self.admit(slot, pending),
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        self.refuse(slot, &refusal);
        Next::Stop
    }

    /// Where no plugin has an opinion, clients of this machine are welcome, and those with a certificate of the authority that
    /// the operator has chosen; others only if the operator says so. A page of another machine in a browser of this one is none
    /// of this machine: whoever looks at it has not asked for that.
    fn check_anonymous(&self, slot: u32, pending: &PendingConnect) -> Result<(), Refusal> {
        let connection = &self.connections[slot as usize];
        let (profile, details) = (&connection.listener.profile, connection.details());
        let is_known = details.is_some_and(|details| details.certificate().is_some());
        let is_foreign_page =
            || details.and_then(|details| details.http.as_ref()).is_some_and(|http| http.is_of_foreign_page());
        let is_of_this_machine = !profile.has_proxy
            && connection.peer.addr().ip().to_canonical().is_loopback()
            && (profile.origins_are_named || !is_foreign_page());
        if pending.accepted || is_known || profile.allow_anonymous || is_of_this_machine {
            Ok(())
        } else {
            Err(ReasonCode::NOT_AUTHORIZED.into())
        }
    }

    pub(super) fn refuse(&mut self, slot: u32, refusal: &Refusal) {
        // Success cannot be a refusal, whatever a handler says.
        let reason_code =
            if refusal.reason_code.is_error() { refusal.reason_code } else { ReasonCode::UNSPECIFIED_ERROR };
        // [MQTT-3.2.2-6@3.1.1]
        if self.connections[slot as usize].is_v5() || codec::connack_return_code(reason_code).is_some() {
            // [MQTT-3.2.2-6] [MQTT-3.2.2-19] [MQTT-3.2.2-20]
            self.say_last(slot, refusal.properties.as_properties(), |properties| {
                Packet::Connack(Connack { session_present: false, reason_code, properties })
            });
        }
        if refusal.kind == DisconnectKind::Refused && failures::is_failure(reason_code) {
            self.note_failure(slot);
        }
        self.close(slot, Closing::silent(refusal.kind, reason_code)); // [MQTT-3.2.2-7]
    }
}

/// What handlers are shown of a CONNECT packet.
fn request<'a>(
    connection: &'a Connection,
    pending: &'a PendingConnect,
    connect: &'a Connect<'a>,
    transport: Transport<'a>,
) -> ConnectRequest<'a> {
    ConnectRequest {
        connection: connection.id,
        client_id: &pending.client_id,
        assigned: pending.assigned,
        username: username(connection, connect),
        password: connect.password,
        version: connect.version as u8,
        keep_alive: connect.keep_alive,
        clean_start: connect.clean_start,
        peer: connection.peer.addr(),
        listener: &connection.listener.profile.name,
        transport,
        will: connect.will.as_ref().map(|will| WillRequest {
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will.properties.as_bytes(),
        }),
        properties: connect.properties.as_bytes(),
    }
}

/// The User Name of a client: what it says, or what its certificate says where that takes its place.
fn username<'a>(connection: &'a Connection, connect: &Connect<'a>) -> Option<&'a str> {
    match connection.listener.profile.username_from {
        None => connect.username,
        Some(from) => from.find(connection.details()?.certificate()?),
    }
}

/// The Keep Alive that a client gets, in seconds; 0 if none.
fn granted_keep_alive(connect: &Connect<'_>, limits: &Limits) -> u16 {
    let (asked, least, most) = (connect.keep_alive, limits.keep_alive_secs_min, limits.keep_alive_secs_max);
    match (asked, most) {
        // A 3.x client cannot be told.
        _ if connect.version != ProtocolVersion::V5 => asked,
        (0, most) => most,
        (asked, 0) => asked.max(least),
        (asked, most) => asked.max(least).min(most),
    }
}

impl PendingConnect {
    /// Takes over what handlers decided.
    fn apply(&mut self, overrides: ConnackOverrides) {
        self.accepted = true;
        if let Some(client_id) = overrides.client_id {
            // The client has to know the name that its session has.
            self.assigned = self.assigned || client_id != self.client_id;
            self.client_id = client_id;
        }
        if self.version == ProtocolVersion::V5 {
            // A 3.x client cannot be told.
            self.keep_alive_secs = overrides.keep_alive.unwrap_or(self.keep_alive_secs);
        }
        if let Some(secs) = overrides.session_expiry {
            self.expiry_secs = secs;
            self.expiry_secs_max = secs;
        }
        self.connack = overrides.properties;
    }
}

impl Will {
    fn new(will: &codec::Will<'_>) -> Self {
        let mut properties = PropertiesBuf::default();
        for property in will.properties.iter() {
            if !matches!(property, Property::WillDelayInterval(_)) {
                properties.push(property).expect("it was in range in the packet");
            }
        }
        Self {
            topic: will.topic.into(),
            payload: will.payload.into(),
            properties: properties.into_bytes().into(),
            qos: will.qos,
            retain: will.retain,
            delay_secs: will.properties.will_delay_interval().unwrap_or(0),
        }
    }
}
