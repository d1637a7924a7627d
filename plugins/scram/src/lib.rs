#![doc = include_str!("../README.md")]

mod exchange;
mod users;

use std::sync::{Arc, PoisonError, RwLock};

use plugin_api::{
    Auth, AuthStep, AuthVerdict, Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, ReasonCode, Reject,
    State, StateView, SwapRule, Swapped, handler,
};

pub use exchange::{Exchange, METHOD, Refusal, new_nonce};
use users::Others;
pub use users::{Config, Users, Verifier};

/// The version of what is exported; there has been no other.
const SCHEMA: u32 = 1;

/// The handler.
pub struct Scram {
    host: Host,
    users: RwLock<Arc<Users>>,
}

/// What is remembered of a connection.
#[derive(Default)]
pub struct Connection {
    /// The User Name of its CONNECT: nobody else may come in by it.
    named: Option<String>,
    /// Who it has turned out to be.
    user: Option<String>,
    exchange: Option<Exchange>,
}

impl Scram {
    fn users_of(host: &Host, config: Config) -> Result<Arc<Users>, Error> {
        let users = Users::new(config)?;
        if users.is_empty() {
            host.warn("no users: nobody can come in with SCRAM-SHA-256");
        }
        Ok(Arc::new(users))
    }

    fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn step(&self, connection: &mut Connection, auth: &Auth<'_>) -> Result<AuthVerdict, Refusal> {
        let before = connection.exchange.take();
        let message = auth.data().unwrap_or_default();
        if let (Some(exchange), AuthStep::Continue) = (before, auth.step()) {
            let (user, last) = exchange.finish(message)?;
            connection.admit(user)?;
            return Ok(AuthVerdict::OkWith(last));
        }
        // Who has nothing to say at first is asked to.
        if message.is_empty() && auth.step() != AuthStep::Continue {
            return Ok(AuthVerdict::Continue(Vec::new()));
        }
        let Some(nonce) = new_nonce() else {
            self.host.error("the system has no random numbers");
            return Ok(AuthVerdict::error(ReasonCode::SERVER_UNAVAILABLE));
        };
        let (exchange, answer) = Exchange::begin(&self.users(), message, &nonce)?;
        connection.exchange = Some(exchange);
        Ok(AuthVerdict::Continue(answer))
    }
}

impl Connection {
    /// Lets the user in, if it is the one that this connection is of.
    fn admit(&mut self, user: String) -> Result<(), Refusal> {
        if [&self.named, &self.user].into_iter().flatten().any(|expected| *expected != user) {
            return Err(Refusal::OtherUser);
        }
        self.user = Some(user);
        Ok(())
    }
}

#[handler]
impl Handler for Scram {
    type Connection = Connection;

    /// Of a connection that did not come over, nobody would know any more whose it is.
    const ON_SWAP: SwapRule = SwapRule::Disconnect;

    fn init(host: Host, config: Config) -> Result<Self, Error> {
        let users = RwLock::new(Self::users_of(&host, config)?);
        Ok(Self { host, users })
    }

    fn handle_config(&self, config: Config) -> Result<(), Error> {
        let users = Self::users_of(&self.host, config)?;
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users;
        Ok(())
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> Connection {
        Connection::default()
    }

    fn handle_connect(&self, connection: &mut Connection, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        let name = |name| users::prepared(name).map_or_else(|_| name.to_owned(), Into::into);
        connection.named = connect.username().map(name);
        // Whoever names another method gets in if a plugin knows that one.
        if connect.properties().authentication_method().is_some() || self.users().others == Others::Allow {
            return Ok(ConnectVerdict::accept());
        }
        let reject = Reject::new(ReasonCode::NOT_AUTHORIZED);
        Ok(ConnectVerdict::Reject(reject.reason_string("Authentication Method SCRAM-SHA-256 is required")))
    }

    fn handle_auth(&self, connection: &mut Connection, auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        if auth.method() != METHOD {
            return Ok(AuthVerdict::error(ReasonCode::BAD_AUTHENTICATION_METHOD));
        }
        Ok(self.step(connection, auth).unwrap_or_else(|refusal| {
            self.host.info(format_args!("refused: {refusal}"));
            AuthVerdict::Error(Reject::new(ReasonCode::NOT_AUTHORIZED).reason_string(&refusal.to_string()))
        }))
    }

    fn export_state(&self, connection: &mut Connection) -> State {
        State::new(SCHEMA, connection.user.clone().unwrap_or_default())
    }

    fn import_state(&self, _: &Swapped<'_>, state: StateView<'_>) -> Result<Connection, Error> {
        if state.version() != SCHEMA {
            return Err(format!("a state of schema {}, and this version knows {SCHEMA}", state.version()).into());
        }
        // No user has an empty name.
        let user = Some(std::str::from_utf8(state.bytes())?.to_owned()).filter(|user| !user.is_empty());
        Ok(Connection { user, ..Connection::default() })
    }
}

plugin_api::export!(Scram);
