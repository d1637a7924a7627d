//! A plugin whose configuration has a type: it is checked before the plugin is made. `init` and `handle_config` say in the log
//! that they have got one.

use std::sync::atomic::{AtomicU32, Ordering};

use plugin_api::{ConnectionInfo, Error, Handler, Host, Message, Publish, PublishVerdict, handler};

/// How the plugin answers.
#[plugin_api::config]
struct Config {
    /// What a question is answered with.
    answer: u32,
    /// Other topics than `ask` that are asked about.
    #[serde(default)]
    topics: Vec<Topic>,
}

#[plugin_api::config]
struct Topic {
    name: String,
}

struct Typed {
    host: Host,
    answer: AtomicU32,
    topics: Vec<Topic>,
}

#[handler]
impl Handler for Typed {
    type Connection = ();

    fn init(host: Host, Config { answer, topics }: Config) -> Result<Self, Error> {
        host.info("typed: init");
        Ok(Self { host, answer: AtomicU32::new(answer), topics })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_publish(&self, (): &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        let is_asked = publish.topic() == "ask" || self.topics.iter().any(|topic| topic.name == publish.topic());
        if !is_asked {
            return Ok(PublishVerdict::Forward);
        }
        let answer = self.answer.load(Ordering::Relaxed).to_string();
        Ok(PublishVerdict::ForwardChanged(Message::from(publish).topic("answer").payload(answer)))
    }

    fn handle_config(&self, config: Config) -> Result<(), Error> {
        self.host.info("typed: config");
        self.answer.store(config.answer, Ordering::Relaxed);
        Ok(())
    }
}

plugin_api::export!(Typed, "typed");
