//! A plugin that the operator speaks to while it runs. Its configuration says what it does, and `handle_config` changes it:
//!
//! - `"answer"`: the payload of the message to `answer` that a message to `ask` becomes.
//! - `"refuse"`: the configuration is refused with this text.
//! - `"unless"`: `handle_config` refuses it while this is the answer.
//! - `"sick"`: `health` is an error with this text; otherwise it is `answers <answer>`.
//! - `"block"`: `"init"`, `"handle_config"` or `"health"`, which does not return while there is no file with the name
//!   `"until"`.
//! - `"panic"`: `"handle_config"` or `"health"`, which panics.
//!
//! It counts the configurations, and measures the answer and the questions.

use std::path::Path;
use std::sync::RwLock;
use std::time::Duration;

use plugin_api::{
    ConnectionInfo, Counter, Error, Gauge, Handler, Histogram, Host, Message, Publish, PublishVerdict, handler,
};
use test_plugins::Config;

struct Operated {
    config: RwLock<Config>,
    configurations: Counter,
    answer_bytes: Gauge,
    question_bytes: Histogram,
}

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

impl Operated {
    /// Counts and measures a configuration that was taken.
    fn note(&self) {
        self.configurations.add(1.0);
        self.answer_bytes.set(self.config.read().expect("nobody panics with it").text("answer").len() as f64);
    }
}

#[handler]
impl Handler for Operated {
    type Connection = ();

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let config = check(config)?;
        misbehave(&config, "init");
        let operated = Self {
            configurations: host.counter("configurations_total", "Configurations that were taken.")?,
            answer_bytes: host.gauge("answer_bytes", "Bytes of the answer.")?,
            question_bytes: host.histogram("question_bytes", "Bytes of the questions.")?,
            config: RwLock::new(config),
        };
        operated.note();
        Ok(operated)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_publish(&self, (): &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if publish.topic() != "ask" {
            return Ok(PublishVerdict::Forward);
        }
        let answer = self.config.read().expect("nobody panics with it").text("answer").to_owned();
        self.question_bytes.record(publish.payload().len() as f64);
        Ok(PublishVerdict::ForwardChanged(Message::from(publish).topic("answer").payload(answer)))
    }

    fn handle_config(&self, config: &str) -> Result<(), Error> {
        let config = check(config)?;
        misbehave(&config, "handle_config");
        let answer = self.config.read().expect("nobody panics with it").text("answer").to_owned();
        if !answer.is_empty() && config.text("unless") == answer {
            return Err(format!("it answers {answer}").into());
        }
        *self.config.write().expect("nobody panics with it") = config;
        self.note();
        Ok(())
    }

    fn health(&self) -> Result<String, Error> {
        let config = Config::clone(&self.config.read().expect("nobody panics with it"));
        misbehave(&config, "health");
        match config.text("sick") {
            "" => Ok(format!("answers {}", config.text("answer"))),
            why => Err(why.into()),
        }
    }
}

plugin_api::export!(Operated, "operated");
