//! What becomes of one connection: the questions about it, and its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Inner;
use super::client::Connecting;
use super::effects::{Ended, Refused};
use super::packets::raw_publish;
use super::plugin::{Failed, LATE};
use super::services::LATE_CODE;
use super::transport::TestTransport;
use super::world::{Client, Session};
use crate::abi::{RawAuth, RawConnect, RawConnected, RawConnectionInfo, RawDisconnect, RawPublish};
use crate::reading::{self, AuthOutcome, ConnackOverrides, ConnectOutcome};
use crate::{AuthStep, AuthVerdict, Callback, Disconnect, DisconnectKind, Message, PropertiesBuf, ReasonCode, Reject};

/// All connections that there have been, by their number.
#[derive(Default)]
pub(super) struct Connections(BTreeMap<u64, Connection>);

/// One connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) client_id: String,
    pub(super) peer: SocketAddr,
    pub(super) listener: String,
    pub(super) transport: TestTransport,
    pub(super) protocol_version: u8,
    pub(super) keep_alive_secs: u16,
    will: Option<Message>,
    method: Option<String>,
    ended: Option<Ended>,
}

/// How the server ends a connection.
pub(super) struct Ending {
    kind: DisconnectKind,
    reason_code: ReasonCode,
    properties: PropertiesBuf,
    text: String,
}

impl Ending {
    fn new(kind: DisconnectKind, reason_code: ReasonCode) -> Self {
        Self { kind, reason_code, properties: PropertiesBuf::new(), text: String::new() }
    }

    /// A handler wants it, and says why.
    pub(super) fn stopped(text: String) -> Self {
        Self { text, ..Self::new(DisconnectKind::Stopped, ReasonCode::ADMINISTRATIVE_ACTION) }
    }

    /// The handler could not answer.
    pub(super) fn failed(Failed(text): Failed) -> Self {
        Self { text, ..Self::new(DisconnectKind::HandlerFailed, LATE_CODE) }
    }
}

/// Ends all connections, as the server stops.
pub(super) fn end_all(inner: &Inner) {
    let open: Vec<u64> = inner.services.world().clients.keys().copied().collect();
    for number in open {
        inner.end(number, Ending::new(DisconnectKind::ServerShutdown, ReasonCode::SERVER_SHUTTING_DOWN));
    }
}

impl Inner {
    /// The connection with a number.
    pub(super) fn connection(&self, number: u64) -> Connection {
        self.connections.borrow().0.get(&number).cloned().expect("a connection that there has been")
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.borrow_mut().0.get_mut(&number) {
            change(connection);
        }
    }

    /// How a connection has ended, if it has.
    pub(super) fn ended(&self, number: u64) -> Option<Ended> {
        self.connections.borrow().0.get(&number).and_then(|connection| connection.ended.clone())
    }

    /// A client connects. Returns the number of its connection.
    pub(super) fn open(&self, asked: &mut Connecting) -> Result<(u64, ConnackOverrides), Refused> {
        let number = self.connections.borrow().0.len() as u64 + 1;
        let Connecting { client_id, peer, listener, transport, protocol_version, keep_alive_secs, will, .. } = &*asked;
        let connection = Connection {
            client_id: client_id.clone(),
            peer: *peer,
            listener: listener.clone(),
            transport: transport.clone(),
            protocol_version: *protocol_version,
            keep_alive_secs: *keep_alive_secs,
            will: will.clone(),
            method: asked.auth.as_ref().map(|(method, ..)| method.clone()),
            ended: None,
        };
        self.connections.borrow_mut().0.insert(number, connection.clone());
        let plugin = self.plugin();
        let decided = connection
            .with_info(number, true, |info| plugin.new_connection(info))
            .map_err(handler_failed)
            .and_then(|()| self.ask_connect(number, asked))
            .and_then(|overrides| self.authenticate(number, asked).map(|()| overrides));
        match decided {
            Ok(overrides) => {
                self.let_in(number, asked, &overrides)?;
                Ok((number, overrides))
            }
            Err(refused) => {
                let Refused { kind, reason_code, properties, why } = refused.clone();
                self.end(number, Ending { kind, reason_code, properties, text: why });
                Err(refused)
            }
        }
    }

    fn ask_connect(&self, number: u64, asked: &Connecting) -> Result<ConnackOverrides, Refused> {
        let (plugin, mut overrides) = (self.plugin(), ConnackOverrides::default());
        if !plugin.implements(Callback::Connect) {
            return Ok(overrides);
        }
        let will = asked.will.as_ref().map(|will| raw_publish(will, RawPublish::WILL, 0));
        let flags = [
            (asked.username.is_some(), RawConnect::HAS_USERNAME),
            (asked.password.is_some(), RawConnect::HAS_PASSWORD),
            (asked.clean_start, RawConnect::CLEAN_START),
            (asked.is_assigned, RawConnect::CLIENT_ID_ASSIGNED),
        ];
        let raw = |extension| RawConnect {
            client_id: asked.client_id.as_str().into(),
            username: asked.username.as_deref().unwrap_or_default().into(),
            password: asked.password.as_deref().unwrap_or_default().into(),
            properties: asked.properties.as_bytes().into(),
            will: will.as_ref(),
            listener: asked.listener.as_str().into(),
            connection: number,
            peer: asked.peer.into(),
            keep_alive: asked.keep_alive_secs,
            protocol_version: asked.protocol_version,
            flags: flags.iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, flag)| flags | flag),
            extension,
        };
        let asked_of = asked.transport.show(true, |extension| plugin.connect(number, &raw(extension)));
        let (verdict, answer) = asked_of.map_err(handler_failed)?;
        if verdict == LATE {
            return Err(refused(ReasonCode::SERVER_UNAVAILABLE, PropertiesBuf::new()));
        }
        match reading::fold_connect::<()>(&*plugin, &asked.client_id, verdict, &answer, &mut overrides) {
            None => Ok(overrides),
            Some(ConnectOutcome::Reject { reason_code, properties }) => {
                let why = answer.text().unwrap_or_default().1;
                Err(Refused { why, ..refused(reason_code, properties) })
            }
            Some(_) => Err(handler_failed(Failed("the answer of handle_connect cannot be used".to_owned()))),
        }
    }

    /// The exchange that CONNECT begins, if it does.
    fn authenticate(&self, number: u64, asked: &mut Connecting) -> Result<(), Refused> {
        let Some((_, data, reply)) = &mut asked.auth else { return Ok(()) };
        let (mut data, mut step) = (data.clone(), AuthStep::Start);
        loop {
            match self.ask_auth(number, step, &data, step != AuthStep::Start, false) {
                Ok(AuthVerdict::Ok) => return Ok(()),
                Ok(AuthVerdict::OkWith(last)) => {
                    reply(&last);
                    return Ok(());
                }
                Ok(AuthVerdict::Continue(challenge)) => data = reply(&challenge),
                Ok(AuthVerdict::Error(Reject { reason_code, properties })) => {
                    return Err(refused(reason_code, properties));
                }
                Ok(AuthVerdict::Later(_)) => return Err(refused(ReasonCode::SERVER_UNAVAILABLE, PropertiesBuf::new())),
                Err(failed) => return Err(handler_failed(failed)),
            }
            step = AuthStep::Continue;
        }
    }

    /// A client authenticates again.
    pub(super) fn authenticate_again(
        &self,
        number: u64,
        mut data: Vec<u8>,
        reply: &mut dyn FnMut(&[u8]) -> Vec<u8>,
    ) -> AuthVerdict {
        let mut step = AuthStep::ReAuthenticate;
        loop {
            let verdict = match self.ask_auth(number, step, &data, true, true) {
                Ok(AuthVerdict::Continue(challenge)) => {
                    (data, step) = (reply(&challenge), AuthStep::Continue);
                    continue;
                }
                Ok(verdict) => verdict,
                Err(failed) => {
                    self.end(number, Ending::failed(failed));
                    return AuthVerdict::error(LATE_CODE);
                }
            };
            if let AuthVerdict::Error(Reject { reason_code, properties }) = &verdict {
                let (reason_code, properties) = (*reason_code, properties.clone());
                let ending = Ending::new(DisconnectKind::ServerDisconnect, reason_code);
                self.end(number, Ending { properties, ..ending });
            }
            return verdict;
        }
    }

    fn ask_auth(
        &self,
        number: u64,
        step: AuthStep,
        data: &[u8],
        is_owner: bool,
        connected: bool,
    ) -> Result<AuthVerdict, Failed> {
        let (plugin, connection) = (self.plugin(), self.connection(number));
        let not_mine = AuthVerdict::error(ReasonCode::BAD_AUTHENTICATION_METHOD);
        if !plugin.implements(Callback::Auth) {
            return Ok(not_mine);
        }
        let method = connection.method.as_deref().unwrap_or_default();
        let properties = PropertiesBuf::new()
            .with(crate::Property::AuthenticationMethod(method))
            .with(crate::Property::AuthenticationData(data));
        let raw = RawAuth {
            method: method.into(),
            data: data.into(),
            properties: properties.as_bytes().into(),
            step: step as u8,
            flags: RawAuth::HAS_DATA,
            extension: std::ptr::null(),
        };
        let (verdict, answer) = plugin.auth(number, &raw)?;
        if verdict == LATE {
            let code = if connected { LATE_CODE } else { ReasonCode::SERVER_UNAVAILABLE };
            return Ok(AuthVerdict::error(code));
        }
        let who = &connection.client_id;
        match reading::fold_auth::<()>(&*plugin, who, (is_owner, connected), verdict, &answer) {
            None => Ok(not_mine),
            Some(AuthOutcome::Ok { data }) => Ok(data.map_or(AuthVerdict::Ok, AuthVerdict::OkWith)),
            Some(AuthOutcome::Continue { data }) => Ok(AuthVerdict::Continue(data)),
            Some(AuthOutcome::Reject { reason_code, properties }) => {
                Ok(AuthVerdict::Error(Reject { reason_code, properties }))
            }
            Some(AuthOutcome::Failed | AuthOutcome::Deferred(())) => Err(unusable(Callback::Auth)),
        }
    }

    /// A client that nobody objects to: it takes its session over, and gets CONNACK.
    fn let_in(&self, number: u64, asked: &Connecting, overrides: &ConnackOverrides) -> Result<(), Refused> {
        let client_id = overrides.client_id.clone().unwrap_or_else(|| asked.client_id.clone());
        let keep_alive_secs = overrides.keep_alive.unwrap_or(asked.keep_alive_secs);
        let expiry_secs = overrides.session_expiry.unwrap_or_else(|| asked.session_expiry_secs());
        self.change(number, |connection| {
            connection.client_id.clone_from(&client_id);
            connection.keep_alive_secs = keep_alive_secs;
        });
        let before = self.services.world().sessions.get(&client_id).and_then(|session| session.connection);
        if let Some(before) = before {
            self.end(before, Ending::new(DisconnectKind::TakenOver, ReasonCode::SESSION_TAKEN_OVER));
        }
        let session_present = {
            let mut world = self.services.world();
            let kept = world.sessions.remove(&client_id).filter(|_| !asked.clean_start);
            let session_present = kept.is_some();
            let session = Session {
                connection: Some(number),
                expiry_secs,
                ends_at_ms: None,
                last_state: None,
                ..kept.unwrap_or_default()
            };
            world.sessions.insert(client_id.clone(), session);
            let client = Client {
                client_id: client_id.clone(),
                peer: asked.peer,
                listener: asked.listener.clone(),
                protocol_version: asked.protocol_version,
                keep_alive_secs,
                received: Vec::new(),
            };
            world.clients.insert(number, client);
            session_present
        };
        if self.plugin().implements(Callback::Connected) {
            self.tell_connected(number, &client_id, (expiry_secs, keep_alive_secs), session_present, before.is_some())?;
        }
        if session_present {
            self.ask_again(number);
        }
        Ok(())
    }

    fn tell_connected(
        &self,
        number: u64,
        client_id: &str,
        (session_expiry, keep_alive): (u32, u16),
        session_present: bool,
        took_over: bool,
    ) -> Result<(), Refused> {
        let (present, took_over) = (u8::from(session_present), u8::from(took_over));
        let plugin = self.plugin();
        let connected = plugin.connected(
            number,
            &RawConnected {
                client_id: client_id.into(),
                connection: number,
                session_expiry,
                keep_alive,
                flags: (present * RawConnected::SESSION_PRESENT) | (took_over * RawConnected::TOOK_OVER),
                extension: std::ptr::null(),
            },
        );
        connected.map(|_| ()).map_err(|Failed(why)| {
            self.end(number, Ending::failed(Failed(why.clone())));
            Refused { why, ..refused(LATE_CODE, PropertiesBuf::new()) }
        })
    }

    /// The server ends a connection, and tells its client.
    pub(super) fn end_by_server(&self, number: u64, reason_code: ReasonCode, properties: PropertiesBuf) {
        self.end_by(number, Disconnect { reason_code, properties });
    }

    pub(super) fn end_by(&self, number: u64, Disconnect { reason_code, properties }: Disconnect) {
        self.end(number, Ending { properties, ..Ending::new(DisconnectKind::ServerDisconnect, reason_code) });
    }

    /// A client leaves, or is lost.
    pub(super) fn leave(&self, number: u64, kind: DisconnectKind, reason_code: ReasonCode) {
        self.end(number, Ending::new(kind, reason_code));
    }

    /// The state of a connection cannot be handed over to another version, which wants it to end then; or it has made none.
    pub(super) fn end_in_swap(&self, number: u64, why: Option<Failed>) {
        match why {
            Some(failed) => self.end(number, Ending::failed(failed)),
            None => {
                self.end(number, Ending::new(DisconnectKind::ServerDisconnect, ReasonCode::ADMINISTRATIVE_ACTION));
            }
        }
    }

    /// The end of a connection: its will is asked about, then the handler is told, once, and its state is dropped.
    pub(super) fn end(&self, number: u64, ending: Ending) {
        let connection = self.connection(number);
        if connection.ended.is_some() {
            return;
        }
        let Ending { kind, reason_code, properties, text } = ending;
        let ended = Ended { kind, reason_code, properties, text, will: None };
        self.change(number, |connection| connection.ended = Some(ended.clone()));
        let (plugin, was_in) = (self.plugin(), self.services.world().clients.contains_key(&number));
        if was_in && kind != DisconnectKind::Normal && plugin.is_sound(number) {
            let will =
                connection.will.as_ref().and_then(|will| self.ask_publish(number, will, RawPublish::WILL, 0).ok());
            self.change(number, |connection| {
                connection.ended.iter_mut().for_each(|ended| ended.will.clone_from(&will))
            });
        }
        let last_state = self.last_state(number);
        if plugin.implements(Callback::Disconnect) && plugin.is_sound(number) {
            let raw = RawDisconnect {
                text: ended.text.as_str().into(),
                kind: kind as u8,
                reason_code: reason_code.0,
                extension: std::ptr::null(),
            };
            // A panic is in the log; the connection has ended anyway.
            let _ = plugin.disconnect(number, &raw);
        }
        plugin.drop_state(number);
        if was_in {
            self.leave_session(number, &connection.client_id, last_state);
        }
    }

    /// What is exported of a connection that ends, for `handle_session_expired`.
    fn last_state(&self, number: u64) -> Option<(u32, Vec<u8>)> {
        let plugin = self.plugin();
        let is_wanted = plugin.implements(Callback::ExportState) && plugin.implements(Callback::SessionExpired);
        if !is_wanted || !plugin.is_sound(number) {
            return None;
        }
        let (verdict, answer) = plugin.export(number).ok()?;
        let state = super::swap::state_of(Callback::ExportState, verdict, &answer).ok()?;
        Some((state.version, state.bytes))
    }

    /// The session of a connection that has ended goes on without it, for as long as it may.
    fn leave_session(&self, number: u64, client_id: &str, last_state: Option<(u32, Vec<u8>)>) {
        let mut world = self.services.world();
        world.clients.remove(&number);
        let now_ms = world.now_ms;
        let Some(session) = world.sessions.get_mut(client_id).filter(|session| session.connection == Some(number))
        else {
            return;
        };
        session.connection = None;
        session.last_state = last_state;
        // [MQTT-3.1.2-23]
        if session.expiry_secs != u32::MAX {
            session.ends_at_ms = Some(now_ms + u64::from(session.expiry_secs) * 1000);
        }
    }
}

impl Connection {
    /// Has shown what is known of it. The request of a WebSocket is there until CONNECT has been answered.
    pub(super) fn with_info<T>(
        &self,
        number: u64,
        with_http: bool,
        see: impl FnOnce(&RawConnectionInfo<'_>) -> T,
    ) -> T {
        let (listener, peer) = (self.listener.as_str().into(), self.peer.into());
        self.transport
            .show(with_http, |extension| see(&RawConnectionInfo { listener, connection: number, peer, extension }))
    }
}

pub(super) fn refused(reason_code: ReasonCode, properties: PropertiesBuf) -> Refused {
    Refused { reason_code, properties, kind: DisconnectKind::Refused, why: String::new() }
}

/// Nobody gets in where the handler could not answer.
fn handler_failed(Failed(why): Failed) -> Refused {
    let refused = refused(ReasonCode::UNSPECIFIED_ERROR, PropertiesBuf::new());
    Refused { kind: DisconnectKind::HandlerFailed, why, ..refused }
}

pub(super) fn unusable(callback: Callback) -> Failed {
    Failed(format!("the answer of {} cannot be used", callback.name()))
}
