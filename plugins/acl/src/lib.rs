#![doc = include_str!("../README.md")]

mod config;
mod connection;
mod mosquitto;
mod password;
mod permissions;
mod policy;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use plugin_api::{
    Certificate, Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, HostError, Info, InfoTarget, Level,
    Publish, PublishVerdict, ReasonCode, Reject, State, StateView, Subscribe, SubscribeVerdict, SwapRule, Swapped,
    handler,
};
use plugin_support::files::Watch;

pub use config::Config;
pub use connection::Connection;
pub use plugin_support::permissions::Permissions;
pub use policy::{Login, Policy, Refusal};

/// The event that asks about all subscriptions again.
const REAUTHORISE: &str = "reauthorise";

/// When that is tried once more if the host has no room for it.
const AGAIN: Duration = Duration::from_secs(1);

/// The handler: it asks the [`Policy`] and remembers for each connection what it may do.
pub struct Acl {
    rules: Arc<Rules>,
    /// Looks at the files that the configuration names.
    watch: Mutex<Option<Watch>>,
    /// Whether there are connections of a version before, which had other rules perhaps.
    has_taken_over: AtomicBool,
}

/// The rules as they are, and the way to others.
struct Rules {
    host: Host,
    policy: RwLock<Arc<Policy>>,
    /// How many configurations there have been. Changed while `policy` is locked; read without the lock for each message.
    configurations: AtomicU64,
}

fn read(config: &Config, host: &Host) -> Result<Policy, Error> {
    let policy = Policy::new(config)?;
    for warning in policy.warnings() {
        host.warn(format_args!("{warning}"));
    }
    Ok(policy)
}

/// Has subscriptions that the rules no longer allow removed: at once, or as soon as the host has room for the question.
fn reauthorise(host: &Host) {
    let log = host.clone();
    let asked = host.reauthorise(InfoTarget::All).then(move |done| match done {
        Ok(done) => log.info(format_args!("new rules: {} subscriptions were removed", done.removed)),
        Err(error) => reauthorise_later(&log, error),
    });
    if let Err(error) = asked {
        reauthorise_later(host, error);
    }
}

fn reauthorise_later(host: &Host, error: HostError) {
    let is_late = error == HostError::Full && host.send_info(InfoTarget::Plugin, REAUTHORISE, b"", Some(AGAIN)).is_ok();
    if !is_late {
        host.error(format_args!("new rules count, but subscriptions that they do not allow may go on: {error}"));
    }
}

impl Rules {
    fn replace(&self, policy: Policy) {
        {
            let mut current = self.policy.write().unwrap_or_else(PoisonError::into_inner);
            *current = Arc::new(policy);
            self.configurations.fetch_add(1, Ordering::Release);
        }
        reauthorise(&self.host);
    }

    /// A file is another one: the configuration is read once more. With a fault in it, everything stays as it is.
    fn files_have_changed(&self, config: &Config) {
        match read(config, &self.host) {
            Ok(policy) => self.replace(policy),
            Err(error) => {
                self.host.error(format_args!("a file has changed, and the rules stay as they were: {error}"));
            }
        }
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

impl Acl {
    /// Has the files of the configuration watched, and no others.
    fn watch(rules: &Arc<Rules>, config: Config) -> Result<Option<Watch>, Error> {
        let seen = rules.now().0.seen().clone();
        let rules = Arc::clone(rules);
        Ok(Watch::start(seen, move || rules.files_have_changed(&config))?)
    }
}

/// Whether the client has shown a certificate with this name.
fn shows(connect: &Connect<'_>, name: &str) -> bool {
    let has_name = |certificate: Certificate<'_>| {
        let mut others = certificate.alternative_names().map(|(_, other)| other);
        certificate.common_name() == Some(name) || certificate.subject() == name || others.any(|other| other == name)
    };
    !name.is_empty() && connect.transport().certificate().is_some_and(has_name)
}

#[handler]
impl Handler for Acl {
    type Connection = Connection;

    /// A connection of a version that did not hand over who it is could do nothing any more: it has to sign in again.
    const ON_SWAP: SwapRule = SwapRule::Disconnect;

    fn init(host: Host, config: Config) -> Result<Self, Error> {
        let policy = RwLock::new(Arc::new(read(&config, &host)?));
        let rules = Arc::new(Rules { host, policy, configurations: AtomicU64::new(0) });
        let watch = Mutex::new(Self::watch(&rules, config)?);
        Ok(Self { rules, watch, has_taken_over: AtomicBool::new(false) })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> Connection {
        Connection::default()
    }

    fn handle_config(&self, config: Config) -> Result<(), Error> {
        let policy = read(&config, &self.rules.host)?;
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        // First of all: what it does about the old configuration must not come behind the new one.
        *watch = None;
        self.rules.replace(policy);
        *watch = Self::watch(&self.rules, config)?;
        Ok(())
    }

    fn export_state(&self, connection: &mut Connection) -> State {
        connection.export()
    }

    fn import_state(&self, _: &Swapped<'_>, state: StateView<'_>) -> Result<Connection, Error> {
        // Once for all of them, whose subscriptions are those of the rules before.
        if !self.has_taken_over.swap(true, Ordering::Relaxed) {
            reauthorise(&self.rules.host);
        }
        let (policy, configuration) = self.rules.now();
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
            has_method: connect.properties().authentication_method().is_some(),
            has_certificate: connect.username().is_some_and(|name| shows(connect, name)),
        };
        let (policy, configuration) = self.rules.now();
        match connection.sign_in(&login, &policy, configuration) {
            Ok(()) => Ok(ConnectVerdict::accept()),
            Err(refusal) => {
                self.rules.host.info(format_args!(
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

    fn handle_event(&self, event: &Info<'_>) {
        if event.kind() == REAUTHORISE {
            reauthorise(&self.rules.host);
        }
    }

    /// Also asked for the Will Message when its client is lost, long after CONNECT, and once more when it has waited.
    fn handle_publish(&self, connection: &mut Connection, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if self.rules.permissions(connection).is_some_and(|permissions| permissions.may_publish(publish.topic())) {
            return Ok(PublishVerdict::Forward);
        }
        self.rules.host.log(Level::Debug, format_args!("denied publishing to {:?}", publish.topic()));
        Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))
    }

    fn handle_subscribe(
        &self,
        connection: &mut Connection,
        subscribe: &Subscribe<'_>,
    ) -> Result<SubscribeVerdict, Error> {
        let permissions = self.rules.permissions(connection);
        let codes = subscribe.subscriptions().map(|subscription| {
            // What the server or an earlier plugin has refused already stays refused.
            let filter = subscription.filter();
            if subscription.reason_code().is_error()
                || permissions.is_some_and(|permissions| permissions.may_subscribe(filter))
            {
                return subscription.reason_code();
            }
            self.rules.host.log(Level::Debug, format_args!("denied subscribing to {filter:?}"));
            ReasonCode::NOT_AUTHORIZED
        });
        Ok(SubscribeVerdict::Codes(codes.collect()))
    }
}

plugin_api::export!(Acl);
