//! Writes a line for each callback to the file that is named in its configuration, `{"file": "/path"}`, and does what
//! clients tell it to:
//!
//! **CONNECT**, by user name: `reject` is refused with 0x86 and the Reason String `bad user`; `error` gets an error;
//! `rename` gets the Client Identifier `renamed-<its own>`, Keep Alive 7 s, Session Expiry Interval 100 s and the User
//! Property `recorder`: `renamed`. Everybody else is let in.
//!
//! **Authentication**, by method: `steps` continues with `challenge`, and accepts the answer `response` with `welcome`
//! (0x87 for any other); `direct` accepts at once; any other is not its method (0x8C).
//!
//! **PUBLISH**, by topic (`PAYLOAD` is the payload as text). Any other topic is forwarded.
//!
//! | topic | what happens |
//! | --- | --- |
//! | `cmd/change` | forwarded to `changed`, payload in upper case, User Property `recorder`: `changed` |
//! | `cmd/handled` | handled: acknowledged, not routed |
//! | `cmd/reject/<hex>` | refused with the Reason Code and the Reason String `rejected` |
//! | `cmd/error` | an error |
//! | `cmd/kick/<hex>` | disconnected with the Reason Code and the Reason String `kicked` |
//! | `cmd/publish/<topic>` | `Host::publish` of the payload to the rest of the topic, with the QoS and RETAIN that it came with; handled |
//! | `cmd/info/me`, `cmd/info/all`, `cmd/info/client/<id>` | `Host::send_info`, PAYLOAD is `<delay ms> <kind> <data>`; handled |
//! | `cmd/send/client/<id>`, `cmd/send/me` | `Host::send` to the client, or to this connection; PAYLOAD is `<qos> <token> <topic> <payload>`; handled |
//! | `cmd/disconnect/<hex>` | `Host::disconnect` of the connection whose number is PAYLOAD (empty: this one), Reason String `service`; handled |
//! | `cmd/connection` | forwarded to `connection`, the payload is the number of this connection |
//!
//! **Deliveries**, by topic: `deliver/drop` is dropped, `deliver/error` gets an error, and `deliver/change` goes on in upper
//! case, with the User Property `recorder`: `delivered`. Everything else is sent as it is.
//!
//! **SUBSCRIBE**, by filter: `deny/…` is refused with 0x87, `cap/…` gets QoS 0, `kick` disconnects with 0x97, `error` is
//! an error, everything else as asked. **UNSUBSCRIBE**: `keep/…` is refused with 0x87, `kick` disconnects with 0x97,
//! `error` is an error.
//!
//! **Info**, by kind: `publish` sends `<topic> <payload>` (its data) to this client with QoS 1; `retain` likewise with
//! RETAIN; `disconnect` disconnects with the Reason Code in its data (hex) and the Reason String `info`; `stop` stops with
//! its data as the reason; any other does nothing.
//!
//! The state of a connection that it exports is the Client Identifier, in version 1.
//!
//! A line is the callback's name and then `key=value`, text and bytes quoted as Rust does; `client` is the Client
//! Identifier of the connection.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

use plugin_api::{
    Accept, Ack, Auth, AuthStep, AuthVerdict, Connect, ConnectVerdict, Connected, ConnectionId, ConnectionInfo,
    Deliver, DeliverVerdict, Disconnect, DisconnectReason, Error, Handler, Host, Info, InfoAction, InfoTarget, Message,
    MessageNotice, Properties, Property, Publish, PublishVerdict, QoS, ReasonCode, Reject, Retained, Subscribe,
    SubscribeVerdict, Unsubscribe, UnsubscribeVerdict, handler,
};
use test_plugins::Config;

struct Recorder {
    host: Host,
    file: File,
}

struct State {
    connection: ConnectionId,
    client_id: String,
}

impl Recorder {
    fn line(&self, line: fmt::Arguments<'_>) {
        // One write for each line: several threads append to the file.
        let written = (&self.file).write_all(format!("{line}\n").as_bytes());
        if let Err(error) = written {
            self.host.error(format_args!("cannot write: {error}"));
        }
    }

    fn command(&self, state: &State, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        let payload = text(publish.payload());
        let Some(command) = publish.topic().strip_prefix("cmd/") else {
            return Ok(PublishVerdict::Forward);
        };
        let (command, rest) = command.split_once('/').unwrap_or((command, ""));
        match command {
            "change" => {
                return Ok(PublishVerdict::ForwardChanged(
                    Message::from(publish)
                        .topic("changed")
                        .payload(payload.to_uppercase())
                        .property(Property::UserProperty("recorder", "changed")),
                ));
            }
            "connection" => {
                let number = state.connection.to_string();
                return Ok(PublishVerdict::ForwardChanged(Message::from(publish).topic("connection").payload(number)));
            }
            "handled" => {}
            "reject" => {
                return Ok(PublishVerdict::Reject(Reject::new(code(rest)?).reason_string("rejected")));
            }
            "error" => return Err("asked for an error".into()),
            "kick" => {
                return Ok(PublishVerdict::Disconnect(Disconnect::new(code(rest)?).reason_string("kicked")));
            }
            "publish" => {
                let message = Message::from(publish).topic(rest);
                self.host.publish(&message)?;
            }
            "info" => self.send_info(state, rest, &payload)?,
            "send" => self.send(state, rest, &payload)?,
            "disconnect" => {
                let connection = if payload.is_empty() { state.connection } else { ConnectionId(payload.parse()?) };
                let disconnect = Disconnect::new(code(rest)?).reason_string("service");
                self.host.disconnect(connection, disconnect)?;
            }
            _ => return Ok(PublishVerdict::Forward),
        }
        Ok(PublishVerdict::Handled)
    }

    fn send(&self, state: &State, target: &str, payload: &str) -> Result<(), Error> {
        let mut words = payload.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let qos = QoS::from_u8(word().parse()?).ok_or("no QoS")?;
        let (token, topic, payload) = (word().parse()?, word(), word());
        let target = match target.split_once('/') {
            Some((_, id)) => InfoTarget::Client(id),
            None => InfoTarget::Connection(state.connection),
        };
        self.host.send(target, &Message::new(topic, payload).qos(qos).token(token))?;
        Ok(())
    }

    fn notice(&self, callback: &str, message: &MessageNotice<'_>, rest: fmt::Arguments<'_>) {
        self.line(format_args!(
            "{callback} client={:?} topic={:?} payload={:?} qos={} packet_id={:?} token={:?}{rest}",
            message.client_id(),
            message.topic(),
            text(message.payload()),
            message.qos() as u8,
            message.packet_id(),
            message.token(),
        ));
    }

    fn send_info(&self, state: &State, target: &str, payload: &str) -> Result<(), Error> {
        let mut words = payload.splitn(3, ' ');
        let delay_ms: u64 = words.next().unwrap_or_default().parse()?;
        let (kind, data) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let target = match target.split_once('/') {
            Some(("client", id)) => InfoTarget::Client(id),
            _ if target == "me" => InfoTarget::Connection(state.connection),
            _ => InfoTarget::All,
        };
        let delay = (delay_ms > 0).then(|| Duration::from_millis(delay_ms));
        self.host.send_info(target, kind, data.as_bytes(), delay)?;
        Ok(())
    }
}

#[handler]
impl Handler for Recorder {
    type Connection = State;

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let config = Config::parse(config)?;
        let path = config.text("file");
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|error| format!("cannot open {path:?}: {error}"))?;
        let recorder = Self { host, file };
        recorder.line(format_args!("init"));
        Ok(recorder)
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) -> State {
        let (connection, peer) = (info.connection(), info.peer().ip());
        self.line(format_args!("new_connection connection={connection} peer={peer} listener={:?}", info.listener()));
        State { connection, client_id: String::new() }
    }

    fn handle_connect(&self, state: &mut State, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        state.client_id = connect.client_id().to_owned();
        self.line(format_args!(
            "handle_connect client={:?} assigned={} username={:?} password={:?} version={} keep_alive={} \
             clean_start={} connection={} peer={} listener={:?} will={:?} properties={}",
            connect.client_id(),
            connect.is_client_id_assigned(),
            connect.username(),
            connect.password().map(text),
            connect.protocol_version(),
            connect.keep_alive_secs(),
            connect.clean_start(),
            connect.connection(),
            connect.peer().ip(),
            connect.listener(),
            connect.will().map(|will| will.topic().to_owned()),
            list(connect.properties()),
        ));
        Ok(match connect.username() {
            Some("reject") => {
                ConnectVerdict::Reject(Reject::new(ReasonCode::BAD_USER_NAME_OR_PASSWORD).reason_string("bad user"))
            }
            Some("error") => return Err("asked for an error".into()),
            Some("rename") => {
                state.client_id = format!("renamed-{}", connect.client_id());
                ConnectVerdict::Accept(
                    Accept::new()
                        .client_id(state.client_id.clone())
                        .keep_alive_secs(7)
                        .session_expiry_secs(100)
                        .user_property("recorder", "renamed"),
                )
            }
            _ => ConnectVerdict::accept(),
        })
    }

    fn handle_auth(&self, state: &mut State, auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        self.line(format_args!(
            "handle_auth client={:?} method={:?} data={:?} step={:?}",
            state.client_id,
            auth.method(),
            auth.data().map(text),
            auth.step(),
        ));
        Ok(match (auth.method(), auth.step(), auth.data()) {
            ("steps", AuthStep::Start | AuthStep::ReAuthenticate, _) => AuthVerdict::Continue(b"challenge".to_vec()),
            ("steps", AuthStep::Continue, Some(b"response")) => AuthVerdict::OkWith(b"welcome".to_vec()),
            ("steps", ..) => AuthVerdict::error(ReasonCode::NOT_AUTHORIZED),
            ("direct", ..) => AuthVerdict::Ok,
            _ => AuthVerdict::error(ReasonCode::BAD_AUTHENTICATION_METHOD),
        })
    }

    fn handle_publish(&self, state: &mut State, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        self.line(format_args!(
            "handle_publish client={:?} topic={:?} payload={:?} qos={} retain={} dup={} packet_id={:?} will={} again={} \
             properties={}",
            state.client_id,
            publish.topic(),
            text(publish.payload()),
            publish.qos() as u8,
            publish.retain(),
            publish.dup(),
            publish.packet_id(),
            publish.is_will(),
            publish.again(),
            list(publish.properties()),
        ));
        self.command(state, publish)
    }

    fn handle_subscribe(&self, state: &mut State, subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        let mut codes = Vec::new();
        for item in subscribe.subscriptions() {
            self.line(format_args!(
                "handle_subscribe client={:?} filter={:?} share_name={:?} qos={} no_local={} retain_as_published={} \
                 retain_handling={} reason_code={:02x}",
                state.client_id,
                item.filter(),
                item.share_name(),
                item.qos() as u8,
                item.no_local(),
                item.retain_as_published(),
                item.retain_handling() as u8,
                item.reason_code().0,
            ));
            codes.push(match item.levels().next() {
                Some("deny") => ReasonCode::NOT_AUTHORIZED,
                Some("cap") => ReasonCode::GRANTED_QOS_0,
                Some("kick") => return Ok(SubscribeVerdict::Disconnect(ReasonCode::QUOTA_EXCEEDED.into())),
                Some("error") => return Err("asked for an error".into()),
                _ => ReasonCode(item.qos() as u8),
            });
        }
        Ok(SubscribeVerdict::Codes(codes))
    }

    fn handle_unsubscribe(
        &self,
        state: &mut State,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<UnsubscribeVerdict, Error> {
        let mut codes = Vec::new();
        for filter in unsubscribe.filters() {
            self.line(format_args!("handle_unsubscribe client={:?} filter={filter:?}", state.client_id));
            codes.push(match filter.split('/').next() {
                Some("keep") => ReasonCode::NOT_AUTHORIZED,
                Some("kick") => return Ok(UnsubscribeVerdict::Disconnect(ReasonCode::QUOTA_EXCEEDED.into())),
                Some("error") => return Err("asked for an error".into()),
                _ => ReasonCode::SUCCESS,
            });
        }
        Ok(UnsubscribeVerdict::Codes(codes))
    }

    fn handle_puback(&self, state: &mut State, ack: &Ack<'_>) {
        self.line(format_args!(
            "handle_puback client={:?} kind={:?} packet_id={} reason_code={:02x} token={:?}",
            state.client_id,
            ack.kind(),
            ack.packet_id(),
            ack.reason_code().0,
            ack.token(),
        ));
    }

    fn handle_connected(&self, state: &mut State, connected: &Connected<'_>) {
        self.line(format_args!(
            "handle_connected client={:?} session_present={} took_over={}",
            state.client_id,
            connected.session_present(),
            connected.took_over(),
        ));
    }

    fn handle_deliver(&self, state: &mut State, deliver: &Deliver<'_>) -> Result<DeliverVerdict, Error> {
        self.line(format_args!(
            "handle_deliver client={:?} topic={:?} payload={:?} qos={} retain={} shared={} origin={:?} cause={:?}",
            state.client_id,
            deliver.topic(),
            text(deliver.payload()),
            deliver.qos() as u8,
            deliver.retain(),
            deliver.shared(),
            deliver.origin(),
            deliver.cause(),
        ));
        Ok(match deliver.topic() {
            "deliver/drop" => DeliverVerdict::Drop,
            "deliver/error" => return Err("asked for an error".into()),
            "deliver/change" => DeliverVerdict::SendChanged(
                Message::from(deliver)
                    .payload(text(deliver.payload()).to_uppercase())
                    .property(Property::UserProperty("recorder", "delivered")),
            ),
            _ => DeliverVerdict::Send,
        })
    }

    fn handle_message_dropped(&self, message: &MessageNotice<'_>) {
        self.notice("handle_message_dropped", message, format_args!(" reason={:?}", message.drop_reason()));
    }

    fn handle_message_acknowledged(&self, message: &MessageNotice<'_>) {
        let reason_code = message.reason_code().0;
        self.notice("handle_message_acknowledged", message, format_args!(" reason_code={reason_code:02x}"));
    }

    fn handle_message_expired(&self, message: &MessageNotice<'_>) {
        self.notice("handle_message_expired", message, format_args!(""));
    }

    fn handle_retained(&self, retained: &Retained<'_>) {
        let payload = text(retained.payload());
        self.line(format_args!(
            "handle_retained topic={:?} payload={payload:?} change={:?}",
            retained.topic(),
            retained.change()
        ));
    }

    fn export_state(&self, state: &mut State) -> plugin_api::State {
        plugin_api::State::new(1, state.client_id.clone())
    }

    fn handle_info(&self, state: &mut State, info: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        let data = text(info.data());
        self.line(format_args!(
            "handle_info client={:?} kind={:?} data={data:?} sender={:?}",
            state.client_id,
            info.kind(),
            info.sender(),
        ));
        let message = || {
            let (topic, payload) = data.split_once(' ').unwrap_or((&data, ""));
            Message::new(topic, payload).qos(QoS::AtLeastOnce)
        };
        Ok(match info.kind() {
            "publish" => vec![InfoAction::Publish(message())],
            "retain" => vec![InfoAction::Publish(message().retain(true))],
            "disconnect" => {
                vec![InfoAction::Disconnect(Disconnect::new(code(&data)?).reason_string("info"))]
            }
            "stop" => vec![InfoAction::Stop(data)],
            _ => vec![],
        })
    }

    fn handle_disconnect(&self, state: &mut State, reason: &DisconnectReason<'_>) {
        self.line(format_args!(
            "handle_disconnect client={:?} kind={:?} reason_code={:02x} text={:?}",
            state.client_id,
            reason.kind(),
            reason.reason_code().0,
            reason.text(),
        ));
    }

    fn handle_session_expired(&self, client_id: &str, state: Option<plugin_api::StateView<'_>>) {
        let state = state.map(|state| (state.version(), text(state.bytes())));
        self.line(format_args!("handle_session_expired client={client_id:?} state={state:?}"));
    }

    fn stop(&self) {
        self.line(format_args!("stop"));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.line(format_args!("drop"));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn list(properties: Properties<'_>) -> String {
    format!("{:?}", properties.iter().collect::<Vec<_>>())
}

fn code(hex: &str) -> Result<ReasonCode, Error> {
    Ok(ReasonCode(u8::from_str_radix(hex, 16)?))
}

plugin_api::export!(Recorder, "recorder");
