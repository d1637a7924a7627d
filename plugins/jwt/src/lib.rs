#![doc = include_str!("../README.md")]

mod crypto;
mod keys;
mod policy;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plugin_api::{
    Auth, AuthStep, AuthVerdict, Connect, ConnectVerdict, Connected, ConnectionId, ConnectionInfo, Disconnect, Error,
    Handler, Host, Info, InfoAction, InfoTarget, Publish, PublishVerdict, ReasonCode, Reject, State, StateView,
    Subscribe, SubscribeVerdict, SwapRule, Swapped, handler,
};
use plugin_support::live::Live;
use serde::{Deserialize, Serialize};

use policy::TokenIn;
pub use policy::{Config, Grant, Login, Policy, Refusal};

/// The Authentication Method of clients that show their token by enhanced authentication, and renew it so.
pub const METHOD: &str = "JWT";

/// The version of what is exported: a grant.
const SCHEMA: u32 = 1;

/// The same of a client that may renew its token: a grant, and whose it is.
const SCHEMA_WITH_HOLDER: u32 = 2;

/// What a timer says whose token has expired.
const EXPIRED: &str = "expired";

/// The longest time that a timer is set to: then the time is looked at again.
const TIMER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The handler.
pub struct Jwt {
    host: Host,
    policy: Live<Config, Policy>,
}

/// What is remembered of a connection.
pub struct Connection {
    id: ConnectionId,
    /// What it may do, once it has been let in.
    grant: Option<Grant>,
    /// Of one that shows its token by enhanced authentication.
    holder: Option<Holder>,
}

/// Who has connected: their next token is for the same.
#[derive(Serialize, Deserialize)]
struct Holder {
    username: Option<String>,
    client_id: String,
    is_client_id_assigned: bool,
    /// Looked at with the first token, which comes after CONNECT.
    #[serde(skip)]
    will_topic: Option<String>,
}

impl Holder {
    fn new(connect: &Connect<'_>) -> Self {
        Self {
            username: connect.username().map(str::to_owned),
            client_id: connect.client_id().to_owned(),
            is_client_id_assigned: connect.is_client_id_assigned(),
            will_topic: connect.will().map(|will| will.topic().to_owned()),
        }
    }
}

impl Connection {
    fn may(&self, permits: impl FnOnce(&Grant) -> bool) -> bool {
        self.grant.as_ref().is_some_and(permits)
    }

    /// How long its token still counts: `None` if for ever, nothing if it has expired.
    fn left(&self) -> Option<Duration> {
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(self.grant.as_ref()?.expires?))?;
        Some(expires.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// Tells the timer of one token from that of the next.
    fn expiry(&self) -> [u8; 8] {
        self.grant.as_ref().and_then(|grant| grant.expires).unwrap_or_default().to_be_bytes()
    }

    fn has_expired(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }
}

fn expired() -> Disconnect {
    Disconnect::new(ReasonCode::MAXIMUM_CONNECT_TIME).reason_string("the token has expired")
}

#[handler]
impl Handler for Jwt {
    type Connection = Connection;

    /// A connection of a version that did not hand over what it may do could do nothing any more: it has to sign in again.
    const ON_SWAP: SwapRule = SwapRule::Disconnect;

    fn init(host: Host, config: Config) -> Result<Self, Error> {
        let log = host.clone();
        let policy = Live::start(config, Policy::new, move |done| match done {
            Ok(()) => log.info("the keys have been read again"),
            Err(error) => log.error(format_args!("a file has changed, and the keys stay as they were: {error}")),
        })?;
        Ok(Self { host, policy })
    }

    fn handle_config(&self, config: Config) -> Result<(), Error> {
        self.policy.replace(config)
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) -> Connection {
        Connection { id: info.connection(), grant: None, holder: None }
    }

    fn handle_connect(&self, connection: &mut Connection, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        if connect.properties().authentication_method() == Some(METHOD) {
            // Until its token has been looked at, which is next, it may do nothing.
            connection.holder = Some(Holder::new(connect));
            return Ok(ConnectVerdict::accept());
        }
        let policy = self.policy.get();
        let password = connect.password().and_then(|password| std::str::from_utf8(password).ok());
        let (token, username) = match policy.token_in {
            TokenIn::Password => (password, connect.username()),
            TokenIn::Username => (connect.username(), None),
        };
        let login = Login {
            token,
            username,
            client_id: connect.client_id(),
            is_client_id_assigned: connect.is_client_id_assigned(),
            will_topic: connect.will().map(|will| will.topic()),
        };
        match policy.connect(&login) {
            Ok(grant) => {
                connection.grant = Some(grant);
                Ok(ConnectVerdict::accept())
            }
            Err(refusal) => {
                self.host.info(format_args!("refused {}, client {:?}: {refusal}", connect.peer(), login.client_id));
                let reject = Reject::new(refusal.reason_code());
                Ok(ConnectVerdict::Reject(reject.reason_string(&refusal.to_string())))
            }
        }
    }

    fn handle_auth(&self, connection: &mut Connection, auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        let Some(holder) = connection.holder.as_mut().filter(|_| auth.method() == METHOD) else {
            return Ok(AuthVerdict::error(ReasonCode::BAD_AUTHENTICATION_METHOD));
        };
        let is_first = auth.step() == AuthStep::Start;
        let will_topic = holder.will_topic.take();
        let login = Login {
            token: auth.data().and_then(|token| std::str::from_utf8(token).ok()),
            username: holder.username.as_deref(),
            client_id: &holder.client_id,
            is_client_id_assigned: holder.is_client_id_assigned,
            will_topic: will_topic.as_deref(),
        };
        let user = |grant: &Option<Grant>| grant.as_ref().map(|grant| grant.user.clone());
        let granted = self.policy.get().connect(&login).and_then(|grant| match is_first {
            false if user(&connection.grant) != Some(grant.user.clone()) => Err(Refusal::OtherBearer),
            _ => Ok(grant),
        });
        match granted {
            Ok(grant) if is_first => {
                connection.grant = Some(grant);
                Ok(AuthVerdict::Ok)
            }
            Ok(grant) => self.renew(connection, grant),
            Err(refusal) => {
                self.host.info(format_args!("refused client {:?}: {refusal}", login.client_id));
                // DISCONNECT has no more to say.
                let code = if is_first { refusal.reason_code() } else { ReasonCode::NOT_AUTHORIZED };
                Ok(AuthVerdict::Error(Reject::new(code).reason_string(&refusal.to_string())))
            }
        }
    }

    fn handle_connected(&self, connection: &mut Connection, _: &Connected<'_>) {
        if let Some(left) = connection.left()
            && let Err(error) = self.when_expired(connection, left)
        {
            self.host.error(format_args!("nobody would disconnect the client when its token expires: {error}"));
            self.disconnect(connection, Disconnect::new(ReasonCode::SERVER_BUSY));
        }
    }

    fn handle_info(&self, connection: &mut Connection, info: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        // One of an earlier version has no data, and one of an earlier token has another time in it.
        if info.kind() == EXPIRED
            && (info.data().is_empty() || info.data() == connection.expiry())
            && let Some(left) = connection.left()
        {
            if left.is_zero() {
                return Ok(vec![InfoAction::Disconnect(expired())]);
            }
            // The timer was set to its longest time, or the clock that says what time it is was set back.
            if let Err(error) = self.when_expired(connection, left) {
                self.host.error(format_args!("nobody would disconnect the client when its token expires: {error}"));
                return Ok(vec![InfoAction::Disconnect(Disconnect::new(ReasonCode::SERVER_BUSY))]);
            }
        }
        Ok(Vec::new())
    }

    fn handle_publish(&self, connection: &mut Connection, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        // The Will Message belongs to a connection that has ended, for this reason perhaps.
        if !publish.is_will() && connection.has_expired() {
            return Ok(PublishVerdict::Disconnect(expired()));
        }
        if connection.may(|grant| grant.permissions.may_publish(publish.topic())) {
            return Ok(PublishVerdict::Forward);
        }
        Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))
    }

    fn handle_subscribe(
        &self,
        connection: &mut Connection,
        subscribe: &Subscribe<'_>,
    ) -> Result<SubscribeVerdict, Error> {
        if connection.has_expired() {
            return Ok(SubscribeVerdict::Disconnect(expired()));
        }
        let codes = subscribe.subscriptions().map(|subscription| {
            // What the server or an earlier plugin has refused already stays refused.
            let is_refused = subscription.reason_code().is_error();
            if is_refused || connection.may(|grant| grant.permissions.may_subscribe(subscription.filter())) {
                subscription.reason_code()
            } else {
                ReasonCode::NOT_AUTHORIZED
            }
        });
        Ok(SubscribeVerdict::Codes(codes.collect()))
    }

    fn export_state(&self, connection: &mut Connection) -> State {
        // Texts and numbers can always be written as JSON.
        let (schema, json) = match &connection.holder {
            None => (SCHEMA, serde_json::to_vec(&connection.grant)),
            holder => (SCHEMA_WITH_HOLDER, serde_json::to_vec(&(&connection.grant, holder))),
        };
        State::new(schema, json.unwrap_or_default())
    }

    fn import_state(&self, swapped: &Swapped<'_>, state: StateView<'_>) -> Result<Connection, Error> {
        let (grant, holder) = match state.version() {
            SCHEMA => (serde_json::from_slice(state.bytes())?, None),
            SCHEMA_WITH_HOLDER => serde_json::from_slice(state.bytes())?,
            other => {
                let known = format!("{SCHEMA} and {SCHEMA_WITH_HOLDER}");
                return Err(format!("a state of schema {other}, and this version knows {known}").into());
            }
        };
        Ok(Connection { id: swapped.info().connection(), grant, holder })
    }
}

impl Jwt {
    /// Has `handle_info` called when the token has expired. Timers are the plugin's, so a swap does not stop them.
    fn when_expired(&self, connection: &Connection, left: Duration) -> Result<(), Error> {
        // Not before: the clock that says so has whole milliseconds.
        let left = left.saturating_add(Duration::from_millis(1)).min(TIMER_MAX);
        self.host.send_info(InfoTarget::Connection(connection.id), EXPIRED, &connection.expiry(), Some(left))?;
        Ok(())
    }

    /// Puts another token in the place of the one that a connected client has.
    fn renew(&self, connection: &mut Connection, grant: Grant) -> Result<AuthVerdict, Error> {
        let before = connection.grant.replace(grant);
        let is_another =
            before.and_then(|before| before.expires) != connection.grant.as_ref().and_then(|now| now.expires);
        let timer = match connection.left().filter(|_| is_another) {
            Some(left) => self.when_expired(connection, left),
            None => Ok(()),
        };
        // The subscriptions that are there are those of the token before.
        let asked = self.host.reauthorise(InfoTarget::Connection(connection.id)).start();
        if let Err(error) = timer.and_then(|()| Ok(asked?)) {
            self.host.error(format_args!("a token cannot be renewed: {error}"));
            return Ok(AuthVerdict::error(ReasonCode::SERVER_BUSY));
        }
        Ok(AuthVerdict::Ok)
    }

    fn disconnect(&self, connection: &Connection, disconnect: Disconnect) {
        if let Err(error) = self.host.disconnect(connection.id, disconnect) {
            // Whatever it does once its token has expired is refused all the same.
            self.host.error(format_args!("the client stays: {error}"));
        }
    }
}

plugin_api::export!(Jwt);
