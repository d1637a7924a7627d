//! A handler whose versions hand over what they know.

use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::{
    Auth, AuthStep, AuthVerdict, Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, Message, Publish,
    PublishVerdict, ReasonCode, State, StateView, Subscribe, SubscribeVerdict, Swapped, handler,
};

use crate::Config;

/// A handler of which there are two versions, `counting_v1` and `counting_v2`. It counts the messages of each connection
/// and of all, and hands both over. The payload of a message to `count/…` is followed by the connection's count (8 bytes)
/// and the version (1 byte); one to `ask/x` is forwarded to `answer/x` as `v1 mine=2
/// all=3`.
///
/// Its configuration says where it fails: `{"init": "refuse"}` or `panic`, the same for `plugin_state`, `import`,
/// `export` and `publish`; `{"deny": "topic"}` is a topic that nobody may publish to, and `{"stopped": "file"}` a file that
/// `stop` writes.
#[derive(Debug)]
pub struct Counting<const VERSION: u8> {
    all: AtomicU64,
    config: Config,
}

/// The schema of both states: a number.
const SCHEMA: u32 = 1;

impl<const VERSION: u8> Counting<VERSION> {
    fn fail(&self, place: &str) -> Result<(), Error> {
        match self.config.text(place) {
            "panic" => panic!("{place}, as asked"),
            "refuse" => Err(format!("{place}, as asked").into()),
            _ => Ok(()),
        }
    }
}

fn number(state: StateView<'_>) -> Result<u64, Error> {
    match (state.version(), state.bytes().try_into()) {
        (SCHEMA, Ok(bytes)) => Ok(u64::from_le_bytes(bytes)),
        (version, _) => Err(format!("{} bytes of schema {version}", state.bytes().len()).into()),
    }
}

#[handler]
impl<const VERSION: u8> Handler for Counting<VERSION> {
    type Connection = u64;

    fn init(_: Host, config: &str) -> Result<Self, Error> {
        let counting = Self { all: AtomicU64::new(0), config: Config::parse(config)? };
        counting.fail("init")?;
        Ok(counting)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> u64 {
        0
    }

    fn handle_connect(&self, _: &mut u64, _: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        Ok(ConnectVerdict::accept())
    }

    fn handle_auth(&self, _: &mut u64, auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        let version = format!("v{VERSION}").into_bytes();
        Ok(if auth.step() == AuthStep::Continue {
            AuthVerdict::OkWith(version)
        } else {
            AuthVerdict::Continue(version)
        })
    }

    fn handle_subscribe(&self, _: &mut u64, _: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        Ok(SubscribeVerdict::Grant)
    }

    fn handle_publish(&self, count: &mut u64, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        *count += 1;
        let all = self.all.fetch_add(1, Ordering::Relaxed) + 1;
        self.fail("publish")?;
        let topic = publish.topic();
        if topic == self.config.text("deny") {
            return Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED));
        }
        if topic.starts_with("count/") {
            let payload = [publish.payload(), &count.to_be_bytes(), &[VERSION]].concat();
            return Ok(PublishVerdict::ForwardChanged(Message::from(publish).payload(payload)));
        }
        if let Some(whose) = topic.strip_prefix("ask") {
            let answer = format!("answer{whose}");
            let payload = format!("v{VERSION} mine={count} all={all}");
            return Ok(PublishVerdict::ForwardChanged(Message::from(publish).topic(answer).payload(payload)));
        }
        Ok(PublishVerdict::Forward)
    }

    fn export_state(&self, count: &mut u64) -> State {
        self.fail("export").expect("it can only panic");
        State::new(SCHEMA, count.to_le_bytes())
    }

    fn import_state(&self, _: &Swapped<'_>, state: StateView<'_>) -> Result<u64, Error> {
        self.fail("import")?;
        number(state)
    }

    fn stop(&self) {
        let file = self.config.text("stopped");
        if !file.is_empty() {
            std::fs::write(file, "stopped").expect("the file can be written");
        }
    }

    fn export_plugin_state(&self) -> State {
        State::new(SCHEMA, self.all.load(Ordering::Relaxed).to_le_bytes())
    }

    fn import_plugin_state(&self, state: StateView<'_>) -> Result<(), Error> {
        self.fail("plugin_state")?;
        self.all.store(number(state)?, Ordering::Relaxed);
        Ok(())
    }
}
