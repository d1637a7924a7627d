//! What the libraries under `examples/` share.

mod counting;

use plugin_api::{ConnectionInfo, Error, Handler, Host, Message, Publish, PublishVerdict, handler};
use serde_json::Value;

pub use counting::Counting;
pub mod sleeper;

/// A handler of which there are two versions, `v1` and `v2`: a message to `ask` is forwarded to `answer` with the version
/// (`v1` or `v2`) as its payload, everything else as it is.
#[derive(Debug)]
pub struct Versioned<const VERSION: u8>;

#[handler]
impl<const VERSION: u8> Handler for Versioned<VERSION> {
    type Connection = ();

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        host.info(format_args!("version {VERSION} is ready"));
        Ok(Self)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_publish(&self, _: &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if publish.topic() != "ask" {
            return Ok(PublishVerdict::Forward);
        }
        let answer = Message::from(publish).topic("answer").payload(format!("v{VERSION}"));
        Ok(PublishVerdict::ForwardChanged(answer))
    }
}

/// A plugin's configuration: a JSON object.
#[derive(Debug, Clone)]
pub struct Config(Value);

impl Config {
    /// Reads it.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self(serde_json::from_str(text)?))
    }

    /// A text, empty if it is not there.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number, if it is there.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key).and_then(Value::as_u64)
    }
}
