//! A plugin that the operator speaks to while it runs. Its configuration says what it does, and `handle_config` changes it:
//!
//! - `"answer"`: the payload of the message to `answer` that a message to `ask` becomes.
//! - `"refuse"`: the configuration is refused with this text.
//! - `"sick"`: `health` is an error with this text; otherwise it is `answers <answer>`.
//! - `"block"`: `"init"`, `"handle_config"` or `"health"`, which does not return while there is no file with the name
//!   `"until"`.
//! - `"panic"`: `"handle_config"` or `"health"`, which panics.

use std::path::Path;
use std::sync::RwLock;
use std::time::Duration;

use plugin_api::{ConnectionInfo, Error, Handler, Host, Message, Publish, PublishVerdict, handler};
use test_plugins::Config;

struct Operated(RwLock<Config>);

/// Does what a configuration asks for in a callback.
fn misbehave(config: &Config, callback: &str) {
    assert!(config.text("panic") != callback, "operated: {callback}");
    while config.text("block") == callback && !Path::new(config.text("until")).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn check(text: &str) -> Result<Config, Error> {
    let config = Config::parse(text)?;
    match config.text("refuse") {
        "" => Ok(config),
        why => Err(why.into()),
    }
}

#[handler]
impl Handler for Operated {
    type Connection = ();

    fn init(_: Host, config: &str) -> Result<Self, Error> {
        let config = check(config)?;
        misbehave(&config, "init");
        Ok(Self(RwLock::new(config)))
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_publish(&self, (): &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if publish.topic() != "ask" {
            return Ok(PublishVerdict::Forward);
        }
        let answer = self.0.read().expect("nobody panics with it").text("answer").to_owned();
        Ok(PublishVerdict::ForwardChanged(Message::from(publish).topic("answer").payload(answer)))
    }

    fn handle_config(&self, config: &str) -> Result<(), Error> {
        let config = check(config)?;
        misbehave(&config, "handle_config");
        *self.0.write().expect("nobody panics with it") = config;
        Ok(())
    }

    fn health(&self) -> Result<String, Error> {
        let config = Config::clone(&self.0.read().expect("nobody panics with it"));
        misbehave(&config, "health");
        match config.text("sick") {
            "" => Ok(format!("answers {}", config.text("answer"))),
            why => Err(why.into()),
        }
    }
}

plugin_api::export!(Operated, "operated");
