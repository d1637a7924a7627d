//! From CONNECT to CONNACK: limits, handlers, the session's owner, takeover and resumption.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;

use plugin_api::{DisconnectKind, PropertiesBuf, Property, QoS, ReasonCode};

use super::budget::session_bytes;
use super::connection::{Auth, Closing, Connection, Extra, NONE, PendingConnect, Phase, Will};
use super::deferred::{Came, Question};
use super::farewell::Fate;
use super::inbound::Next;
use super::mail::InfoMail;
use super::poll::Reauthorised;
use super::publish::is_payload_as_indicated;
use super::session::Session;
use super::{Core, owner_of, slot_of};
use crate::clock::Millis;
use crate::codec::{self, Connack, Connect, Packet, ProtocolVersion};
use crate::limits::Limits;
use crate::plugin::{
    AuthStep, ConnackOverrides, ConnectOutcome, ConnectRequest, ConnectionInfo, Cursor, Handlers, WillRequest,
};

/// A connection that handlers have let in, on its way to the worker that owns its session.
pub struct Handover {
    id: u64,
    peer: SocketAddr,
    listener: Arc<str>,
    version: ProtocolVersion,
    problem_information: bool,
    aliases_max: u8,
    packet_bytes_max: u32,
    in_flight_max: u16,
    handlers: Option<Handlers>,
    extra: Box<Extra>,
    /// What was read behind its CONNECT packet.
    pub(super) unread: Vec<u8>,
    /// What has not been sent yet.
    unsent: Vec<u8>,
    /// Messages for `handle_info` that have waited for its plugins.
    pub(super) infos: VecDeque<Box<InfoMail>>,
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}

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
        let decided = self.check_connect(connect).and_then(|()| self.ask_about(slot, connect));
        self.settle(slot, decided)
    }

    /// Keeps what CONNECT says about the client's receiving side.
    fn note_capabilities(&mut self, slot: u32, connect: &Connect<'_>) {
        let ours = self.shared.limits.in_flight_max;
        let aliases_max = self.shared.limits.outbound_topic_aliases_max;
        let connection = &mut self.connections[slot as usize];
        connection.version = connect.version;
        connection.problem_information = connect.properties.request_problem_information() != Some(0);
        connection.packet_bytes_max = connect.properties.maximum_packet_size().unwrap_or(u32::MAX);
        // [MQTT-3.3.2-11]
        let theirs = connect.properties.topic_alias_maximum().unwrap_or(0);
        connection.aliases_max = u8::try_from(theirs.min(aliases_max)).unwrap_or(u8::MAX);
        connection.in_flight_max = connect.properties.receive_maximum().map_or(ours, |theirs| theirs.min(ours));
    }

    /// What is refused before handlers are asked, whoever the client is.
    fn check_connect(&self, connect: &Connect<'_>) -> Result<(), Refusal> {
        let limits = &self.shared.limits;
        if !self.shared.admission.may_connect(limits, self.now) {
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
    fn no_room(&self, otherwise: ReasonCode) -> Refusal {
        match self.shared.server_reference() {
            Some(properties) => Refusal { properties, ..ReasonCode::USE_ANOTHER_SERVER.into() },
            None => otherwise.into(),
        }
    }

    /// Asks whether a client may connect. `Ok(None)`: an authentication exchange has begun, or a plugin answers later.
    fn ask_about(&mut self, slot: u32, connect: &Connect<'_>) -> Result<Option<Box<PendingConnect>>, Refusal> {
        let pending = self.pending(slot, connect)?;
        let connection = &mut self.connections[slot as usize];
        let info =
            ConnectionInfo { connection: connection.id, peer: connection.peer.addr(), listener: &connection.listener };
        let mut handlers = self.plan.new_connection(&info).map_err(|_| handler_failed())?;
        let outcome = self.shared.chain.connect(&mut handlers, &request(connection, &pending, connect));
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
                let request = request(connection, &pending, connect);
                let outcome = self.shared.chain.resume_connect(&mut handlers, &request, cursor, *answered);
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
        let limits = &self.shared.limits;
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

    /// Where no plugin has an opinion, clients of this machine are welcome, others only if the operator says so.
    fn check_anonymous(&self, slot: u32, pending: &PendingConnect) -> Result<(), Refusal> {
        let peer = self.connections[slot as usize].peer.addr().ip().to_canonical();
        if pending.accepted || self.shared.allow_anonymous || peer.is_loopback() {
            Ok(())
        } else {
            Err(ReasonCode::NOT_AUTHORIZED.into())
        }
    }

    fn refuse(&mut self, slot: u32, refusal: &Refusal) {
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
        self.close(slot, Closing::silent(refusal.kind, reason_code)); // [MQTT-3.2.2-7]
    }

    /// Lets a client in.
    fn admit(&mut self, slot: u32, pending: Box<PendingConnect>) -> Next {
        let owner = owner_of(&pending.client_id, self.outbox.len());
        if owner == self.worker {
            self.attach(slot, *pending);
            return self.next(slot);
        }
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Leaving;
        connection.extra().pending = Some(pending);
        let out_sent = connection.out_sent;
        let unsent = self.take_out(slot).split_off(out_sent);
        let extra = self.take_extra(slot).expect("it holds what is pending");
        let connection = &mut self.connections[slot as usize];
        let handover = Handover {
            id: connection.id,
            peer: connection.peer.addr(),
            listener: Arc::clone(&connection.listener),
            version: connection.version,
            problem_information: connection.problem_information,
            aliases_max: connection.aliases_max,
            packet_bytes_max: connection.packet_bytes_max,
            in_flight_max: connection.in_flight_max,
            handlers: connection.handlers.take(),
            extra,
            unread: Vec::new(),
            unsent,
            infos: VecDeque::new(),
        };
        self.handovers.push((slot, owner, Box::new(handover)));
        Next::Leave
    }

    /// Messages for `handle_info` that have waited go with a connection to another worker.
    pub(super) fn leave_infos(&mut self, slot: u32, infos: VecDeque<Box<InfoMail>>) {
        if let Some((_, _, handover)) = self.handovers.iter_mut().find(|(leaving, ..)| *leaving == slot) {
            handover.infos = infos;
        }
    }

    /// Takes on a connection from another worker. Register the socket under the slot; bytes that were read already are
    /// handled at once.
    pub fn adopt(&mut self, handover: Handover, now: Millis) -> u32 {
        self.now = now;
        let Handover {
            id,
            peer,
            listener,
            version,
            problem_information,
            aliases_max,
            packet_bytes_max,
            in_flight_max,
            handlers,
            mut extra,
            unread,
            unsent,
            infos,
        } = handover;
        let pending = extra.pending.take().expect("a handover comes with what CONNECT asked for");
        let is_behind = self.expect_behind(handlers.as_ref());
        let listener = self.known_listener(&listener);
        let slot = self.insert_connection(Connection {
            version,
            problem_information,
            aliases_max,
            packet_bytes_max,
            in_flight_max,
            handlers,
            extra: Some(extra),
            ..Connection::new(id, peer, listener, &self.shared.limits, now)
        });
        if !unsent.is_empty() {
            self.write(slot, |out| out.extend_from_slice(&unsent));
        }
        if self.stopping {
            // 0x8B is for DISCONNECT alone [MQTT-3.2.2-8].
            self.refuse(slot, &self.no_room(ReasonCode::SERVER_UNAVAILABLE));
            return slot;
        }
        self.attach(slot, *pending);
        if is_behind {
            self.sweep_in(slot);
        }
        self.release_infos(slot, infos);
        self.deliver_early(id);
        self.feed(slot, &unread, now);
        slot
    }

    /// Joins a connection and its session, and acknowledges.
    fn attach(&mut self, slot: u32, pending: PendingConnect) {
        let Some(connack) = self.connack_properties(slot, &pending) else {
            return self.refuse(slot, &ReasonCode::PACKET_TOO_LARGE.into());
        };
        let existing = self.slot_of_client(&pending.client_id);
        let mut took_over = false;
        if let Some(session_slot) = existing {
            let before = self.sessions[session_slot as usize].connection;
            took_over = before != NONE;
            if before != NONE {
                // [MQTT-3.1.4-3]
                self.close(before, Closing::telling(DisconnectKind::TakenOver, ReasonCode::SESSION_TAKEN_OVER));
            }
            if pending.clean_start && self.slot_of_client(&pending.client_id) == Some(session_slot) {
                self.end_session(session_slot); // [MQTT-3.1.2-4]
            }
        }
        let resumed = self.slot_of_client(&pending.client_id);
        let session_slot = match resumed {
            Some(session_slot) => session_slot, // [MQTT-3.1.2-5]
            None if self.is_full() || self.sessions.len() >= self.shared.limits.sessions_max => {
                return self.refuse(slot, &self.no_room(ReasonCode::QUOTA_EXCEEDED));
            }
            None => self.new_session(&pending.client_id),
        };
        let session = &mut self.sessions[session_slot as usize];
        session.connection = slot;
        session.expiry_secs = pending.expiry_secs;
        session.expiry_secs_max = pending.expiry_secs_max;
        session.expires_at = Millis::NEVER;
        let will = session.will.take(); // [MQTT-3.1.3-9]
        session.resend_all();
        if let Some(will) = will {
            self.settle_will(&will.body, Fate::Discarded);
        }
        drop(self.take_last_states(session_slot));
        let session = &mut self.sessions[session_slot as usize];
        let connection = &mut self.connections[slot as usize];
        connection.session = session_slot;
        connection.phase = Phase::Connected;
        connection.keep_alive_secs = pending.keep_alive_secs;
        connection.asked_no_expiry = pending.expiry_asked == 0;
        connection.received_before = u16::try_from(session.received.len()).unwrap_or(u16::MAX);
        connection.heard_at = self.now;
        self.count_extra(slot);
        self.connections[slot as usize].drop_empty_extra();
        if let Some(patience) = self.patience(slot) {
            self.arm_connection(slot, self.now + patience);
        }
        // [MQTT-3.1.4-5]
        let properties = connack.as_properties();
        let connack = Connack { session_present: resumed.is_some(), reason_code: ReasonCode::SUCCESS, properties };
        self.write(slot, |out| Packet::Connack(connack).encode(pending.version, out));
        if !self.tell_connected(slot, resumed.is_some(), took_over) {
            return self.close_failed(slot);
        }
        if self.sessions[session_slot as usize].asks_again {
            self.ask_again(session_slot, None, &mut Reauthorised::default());
            if self.connections[slot as usize].phase != Phase::Connected {
                return;
            }
        }
        self.pump(session_slot);
        self.resume_replays(slot, session_slot);
    }

    fn new_session(&mut self, client_id: &str) -> u32 {
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1);
        self.account.add(session_bytes(client_id));
        let slot = slot_of(self.sessions.insert(Session::new(client_id.into(), serial)));
        let sessions = &self.sessions;
        self.by_client.insert(client_id, slot, |slot| &*sessions[slot as usize].client_id);
        slot
    }

    /// The properties of CONNACK: ours, and those that handlers have added if the client has room for them
    /// [MQTT-3.2.2-19] [MQTT-3.2.2-20]. `None` if not even ours fit [MQTT-3.1.2-24].
    fn connack_properties(&self, slot: u32, pending: &PendingConnect) -> Option<PropertiesBuf> {
        let connection = &self.connections[slot as usize];
        if !connection.is_v5() {
            return Some(PropertiesBuf::default());
        }
        let fits = |properties: &PropertiesBuf| {
            // Type, flags and Reason Code, and two lengths of at most four bytes.
            let bytes_max = properties.as_bytes().len() + 11;
            bytes_max <= connection.packet_bytes_max as usize || {
                let mut bytes = Vec::new();
                let properties = properties.as_properties();
                let connack = Connack { session_present: false, reason_code: ReasonCode::SUCCESS, properties };
                Packet::Connack(connack).encode(ProtocolVersion::V5, &mut bytes);
                bytes.len() <= connection.packet_bytes_max as usize
            }
        };
        let own = self.own_connack_properties(slot, pending);
        if pending.connack.is_empty() {
            return Some(own).filter(fits);
        }
        let mut all = own.clone();
        for property in pending.connack.as_properties().iter() {
            // A handler's property is left out where the server has set its own, and where the client did not ask for it
            // [MQTT-3.1.2-28].
            let asked_for = pending.response_information || !matches!(property, Property::ResponseInformation(_));
            if asked_for && properties_allow(&all, &property) {
                let _ = all.push(property);
            }
        }
        [all, own].into_iter().find(fits)
    }

    /// What differs from what the client asked for and from the specification's defaults.
    fn own_connack_properties(&self, slot: u32, pending: &PendingConnect) -> PropertiesBuf {
        let limits = &self.shared.limits;
        let mut properties = PropertiesBuf::default();
        let mut add = |property| properties.push(property).expect("our own values are in range");
        if pending.expiry_secs != pending.expiry_asked {
            add(Property::SessionExpiryInterval(pending.expiry_secs));
        }
        if limits.receive_maximum != u16::MAX {
            add(Property::ReceiveMaximum(limits.receive_maximum));
        }
        if limits.maximum_qos != QoS::ExactlyOnce {
            add(Property::MaximumQos(limits.maximum_qos as u8));
        }
        if !limits.retain_available {
            add(Property::RetainAvailable(0));
        }
        add(Property::MaximumPacketSize(u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX)));
        if pending.assigned {
            add(Property::AssignedClientIdentifier(&pending.client_id));
        }
        if limits.topic_alias_max != 0 {
            add(Property::TopicAliasMaximum(limits.topic_alias_max));
        }
        if !limits.wildcard_subscriptions_available {
            add(Property::WildcardSubscriptionAvailable(0));
        }
        if !limits.subscription_identifiers_available {
            add(Property::SubscriptionIdentifierAvailable(0));
        }
        if !limits.shared_subscriptions_available {
            add(Property::SharedSubscriptionAvailable(0));
        }
        if pending.keep_alive_secs != pending.keep_alive_asked {
            add(Property::ServerKeepAlive(pending.keep_alive_secs)); // [MQTT-3.1.2-21]
        }
        if let Some(auth) = self.connections[slot as usize].auth() {
            add(Property::AuthenticationMethod(&auth.method)); // [MQTT-4.12.0-5]
            if let Some(data) = &pending.auth_data {
                add(Property::AuthenticationData(data));
            }
        }
        properties
    }
}

/// What handlers are shown of a CONNECT packet.
fn request<'a>(
    connection: &'a Connection,
    pending: &'a PendingConnect,
    connect: &'a Connect<'a>,
) -> ConnectRequest<'a> {
    ConnectRequest {
        connection: connection.id,
        client_id: &pending.client_id,
        assigned: pending.assigned,
        username: connect.username,
        password: connect.password,
        version: connect.version as u8,
        keep_alive: connect.keep_alive,
        clean_start: connect.clean_start,
        peer: connection.peer.addr(),
        listener: &connection.listener,
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

/// Whether CONNACK may have a property besides those that it has.
fn properties_allow(present: &PropertiesBuf, property: &Property<'_>) -> bool {
    matches!(property, Property::UserProperty(..))
        || !present.as_properties().iter().any(|other| other.id() == property.id())
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
