#![doc = include_str!("../README.md")]

mod rules;
mod unique;

use plugin_api::{
    ConnectionInfo, Counter, Disconnect, Error, Handler, Host, Level, Publish, PublishVerdict, ReasonCode, Reject,
    handler,
};
use plugin_support::live::Live;

pub use rules::{Config, Finding, OnInvalid, Rules};

/// The handler.
pub struct Validate {
    host: Host,
    rules: Live<Config, Rules>,
    invalid: Counter,
}

#[handler]
impl Handler for Validate {
    type Connection = ();

    fn init(host: Host, config: Config) -> Result<Self, Error> {
        let log = host.clone();
        let rules = Live::start(config, Rules::new, move |done| match done {
            Ok(()) => log.info("a schema has changed"),
            Err(error) => log.error(format_args!("a file has changed, and the rules stay as they were: {error}")),
        })?;
        let invalid = host.counter("invalid_total", "Messages whose payload was not what the schema says.")?;
        Ok(Self { host, rules, invalid })
    }

    fn handle_config(&self, config: Config) -> Result<(), Error> {
        self.rules.replace(config)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_publish(&self, (): &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        let (problem, on_invalid) = match self.rules.get().find(publish.topic(), publish.payload()) {
            Finding::Valid => return Ok(PublishVerdict::Forward),
            Finding::Other => return Ok(PublishVerdict::reject(ReasonCode::TOPIC_NAME_INVALID)),
            Finding::Invalid(problem, on_invalid) => (problem, on_invalid),
        };
        self.invalid.increment();
        let level = if on_invalid == OnInvalid::Log { Level::Warn } else { Level::Debug };
        self.host.log_fields(level, "", &problem, &[("topic", &publish.topic())]);
        let code = ReasonCode::PAYLOAD_FORMAT_INVALID;
        Ok(match on_invalid {
            OnInvalid::Reject => PublishVerdict::Reject(Reject::new(code).reason_string(&problem)),
            OnInvalid::Drop => PublishVerdict::Handled,
            OnInvalid::Disconnect => PublishVerdict::Disconnect(Disconnect::new(code).reason_string(&problem)),
            OnInvalid::Log => PublishVerdict::Forward,
        })
    }
}

plugin_api::export!(Validate);
