#![doc = include_str!("../README.md")]

mod config;
mod connection;
mod password;
mod pattern;
mod permissions;
mod policy;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use plugin_api::{
    Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, InfoTarget, Level, Publish, PublishVerdict,
    ReasonCode, Reject, State, StateView, Subscribe, SubscribeVerdict, SwapRule, Swapped, handler,
};

pub use config::ConfigError;
pub use connection::Connection;
pub use permissions::Permissions;
pub use policy::{Login, Policy, Refusal};

/// The handler: it asks the [`Policy`] and remembers for each connection what it may do.
pub struct Acl {
    host: Host,
    policy: RwLock<Arc<Policy>>,
    /// How many configurations there have been. Changed while `policy` is locked; read without the lock for each message.
    configurations: AtomicU64,
}

impl Acl {
    fn read(config: &str, host: &Host) -> Result<Policy, Error> {
        let policy = Policy::from_json(config)?;
        for warning in policy.warnings() {
            host.warn(format_args!("{warning}"));
        }
        Ok(policy)
    }

    /// The rules as they are now, and the number of their configuration.
    fn now(&self) -> (Arc<Policy>, u64) {
        // Nothing that is done under the lock leaves a policy half changed.
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&policy), self.configurations.load(Ordering::Acquire))
    }

    /// What the connection may do by the rules as they are now.
    fn permissions<'a>(&self, connection: &'a mut Connection) -> Option<&'a Permissions> {
        if !connection.is_of(self.configurations.load(Ordering::Acquire)) {
            let (policy, configuration) = self.now();
            connection.renew(&policy, configuration);
        }
        connection.permissions()
    }
}

#[handler]
impl Handler for Acl {
    type Connection = Connection;

    /// A connection of a version that did not hand over who it is could do nothing any more: it has to sign in again.
    const ON_SWAP: SwapRule = SwapRule::Disconnect;

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let policy = RwLock::new(Arc::new(Self::read(config, &host)?));
        Ok(Self { host, policy, configurations: AtomicU64::new(0) })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> Connection {
        Connection::default()
    }

    fn handle_config(&self, config: &str) -> Result<(), Error> {
        let policy = Arc::new(Self::read(config, &self.host)?);
        {
            let mut current = self.policy.write().unwrap_or_else(PoisonError::into_inner);
            *current = policy;
            self.configurations.fetch_add(1, Ordering::Release);
        }
        let host = self.host.clone();
        self.host.reauthorise(InfoTarget::All).then(move |done| match done {
            Ok(done) => host.info(format_args!("new rules: {} subscriptions were removed", done.removed)),
            Err(error) => host.error(format_args!("subscriptions that are no longer allowed may go on: {error}")),
        })?;
        Ok(())
    }

    fn export_state(&self, connection: &mut Connection) -> State {
        connection.export()
    }

    fn import_state(&self, _: &Swapped<'_>, state: StateView<'_>) -> Result<Connection, Error> {
        let (policy, configuration) = self.now();
        Connection::import(state, &policy, configuration)
    }

    /// On the pool: a password hash takes its time, and nobody else is to wait for it.
    #[blocking]
    fn handle_connect(&self, connection: &mut Connection, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        let login = Login {
            username: connect.username(),
            password: connect.password(),
            client_id: connect.client_id(),
            is_client_id_assigned: connect.is_client_id_assigned(),
            will_topic: connect.will().map(|will| will.topic()),
        };
        let (policy, configuration) = self.now();
        match connection.sign_in(&login, &policy, configuration) {
            Ok(()) => Ok(ConnectVerdict::accept()),
            Err(refusal) => {
                self.host.info(format_args!(
                    "refused {}, client {:?}, user {:?}: {refusal}",
                    connect.peer(),
                    login.client_id,
                    login.username.unwrap_or_default(),
                ));
                let reject = Reject::new(refusal.reason_code());
                Ok(ConnectVerdict::Reject(reject.reason_string(&refusal.to_string())))
            }
        }
    }

    /// Also asked for the Will Message when it is due, long after CONNECT.
    fn handle_publish(&self, connection: &mut Connection, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if self.permissions(connection).is_some_and(|permissions| permissions.may_publish(publish.topic())) {
            return Ok(PublishVerdict::Forward);
        }
        self.host.log(Level::Debug, format_args!("denied publishing to {:?}", publish.topic()));
        Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))
    }

    fn handle_subscribe(
        &self,
        connection: &mut Connection,
        subscribe: &Subscribe<'_>,
    ) -> Result<SubscribeVerdict, Error> {
        let permissions = self.permissions(connection);
        let codes = subscribe.subscriptions().map(|subscription| {
            // What the server or an earlier plugin has refused already stays refused.
            let filter = subscription.filter();
            if subscription.reason_code().is_error()
                || permissions.is_some_and(|permissions| permissions.may_subscribe(filter))
            {
                return subscription.reason_code();
            }
            self.host.log(Level::Debug, format_args!("denied subscribing to {filter:?}"));
            ReasonCode::NOT_AUTHORIZED
        });
        Ok(SubscribeVerdict::Codes(codes.collect()))
    }
}

plugin_api::export!(Acl);
