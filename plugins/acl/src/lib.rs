#![doc = include_str!("../README.md")]

mod config;
mod password;
mod pattern;
mod permissions;
mod policy;

use std::sync::Arc;

use plugin_api::{
    Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, Level, Publish, PublishVerdict, ReasonCode, Reject,
    Subscribe, SubscribeVerdict, handler,
};

pub use config::ConfigError;
pub use permissions::Permissions;
pub use policy::{Login, Policy, Refusal};

/// The handler: it asks the [`Policy`] and remembers for each connection what it may do.
pub struct Acl {
    host: Host,
    policy: Policy,
}

/// What a connection may do; nothing until it has been let in.
#[derive(Default)]
pub struct Connection {
    permissions: Option<Arc<Permissions>>,
}

#[handler]
impl Handler for Acl {
    type Connection = Connection;

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let policy = Policy::from_json(config)?;
        for warning in policy.warnings() {
            host.warn(format_args!("{warning}"));
        }
        Ok(Self { host, policy })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> Connection {
        Connection::default()
    }

    fn handle_connect(&self, connection: &mut Connection, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        let login = Login {
            username: connect.username(),
            password: connect.password(),
            client_id: connect.client_id(),
            is_client_id_assigned: connect.is_client_id_assigned(),
            will_topic: connect.will().map(|will| will.topic()),
        };
        match self.policy.connect(&login) {
            Ok(permissions) => {
                connection.permissions = Some(permissions);
                Ok(ConnectVerdict::accept())
            }
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
        let permissions = connection.permissions.as_ref();
        if permissions.is_some_and(|permissions| permissions.may_publish(publish.topic())) {
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
        let permissions = connection.permissions.as_ref();
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
