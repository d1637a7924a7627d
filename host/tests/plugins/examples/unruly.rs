//! A plugin that misbehaves. Its configuration says how:
//!
//! - `"panic"`: the name of a callback (`"handle_publish"`, …, `"stop"`), `"init"`, `"new_connection"`,
//!   `"drop_connection"`, `"drop_instance"`, or `"thread"` (a thread of the plugin's own, named `helper`, panics while
//!   `init` runs). The text of the panic is `unruly: <name>`.
//! - `"bomb": 1`: the payload of the panic is a value whose drop panics too (`"panic"` in a callback).
//! - `"times"`: panic that often, then behave. Without it: always.
//! - `"slow_ms"`: `handle_publish` takes that many milliseconds.
//! - `"block"`: `"init"`, `"stop"` or `"drop_instance"`, which does not return.
//! - `"answer"`: `"codes"` (too few Reason Codes for a SUBSCRIBE or UNSUBSCRIBE), `"raise"` (QoS 2 for every filter),
//!   `"topic"` (a changed message with an invalid topic), `"success"` (a refusal with Reason Code 0), `"error"` (every
//!   callback that decides returns an error with the text `unruly error`), `"bad error"` (an error that panics when it is
//!   shown), `"worse error"` (one that panics when it is dropped, which is no unwinding).
//!
//! Callbacks of a connection misbehave only for clients whose Client Identifier begins with `victim`; so do
//! `drop_connection` and `handle_session_expired`. A client that has not been asked about yet has none: `new_connection`
//! panics for every one, see `"times"`.

use std::fmt;
use std::panic::panic_any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plugin_api::{
    Ack, Auth, AuthVerdict, Connect, ConnectVerdict, ConnectionInfo, DisconnectReason, Error, Handler, Host, Info,
    InfoAction, InfoTarget, Message, Publish, PublishVerdict, ReasonCode, Reject, Subscribe, SubscribeVerdict,
    Unsubscribe, UnsubscribeVerdict, handler,
};
use test_plugins::Config;

struct Unruly {
    host: Host,
    panic: String,
    bomb: bool,
    times: AtomicU64,
    slow: Duration,
    block: String,
    answer: String,
}

/// A panic's payload that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("unruly: the payload of a panic");
    }
}

/// An error that panics when it is shown, or else when it is dropped.
#[derive(Debug)]
struct BadError {
    when_shown: bool,
}

impl fmt::Display for BadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.when_shown {
            panic!("unruly: an error is shown");
        }
        f.write_str("unruly error")
    }
}

impl std::error::Error for BadError {}

impl Drop for BadError {
    fn drop(&mut self) {
        if !self.when_shown {
            panic!("unruly: an error is dropped");
        }
    }
}

#[derive(Default)]
struct State {
    is_victim: bool,
    panics_on_drop: bool,
}

impl Drop for State {
    fn drop(&mut self) {
        // A second panic would end the process, which nobody can prevent.
        if self.panics_on_drop && !std::thread::panicking() {
            panic!("unruly: drop_connection");
        }
    }
}

impl Unruly {
    fn panic_in(&self, name: &str) {
        let is_due = || {
            let less = |times: u64| times.checked_sub(1);
            self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
        };
        if self.panic == name && is_due() {
            if self.bomb {
                panic_any(Bomb);
            }
            panic!("unruly: {name}");
        }
    }

    fn block_in(&self, name: &str) {
        if self.block == name {
            loop {
                std::thread::park();
            }
        }
    }

    /// At the beginning of each callback of a connection.
    fn misbehave(&self, state: &State, name: &str) -> Result<(), Error> {
        if !state.is_victim {
            return Ok(());
        }
        self.panic_in(name);
        match self.answer.as_str() {
            "error" => Err("unruly error".into()),
            "bad error" => Err(Box::new(BadError { when_shown: true })),
            "worse error" => Err(Box::new(BadError { when_shown: false })),
            _ => Ok(()),
        }
    }

    fn answers(&self, state: &State, answer: &str) -> bool {
        state.is_victim && self.answer == answer
    }
}

#[handler]
impl Handler for Unruly {
    type Connection = State;

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let config = Config::parse(config)?;
        let unruly = Self {
            host,
            panic: config.text("panic").to_owned(),
            bomb: config.number("bomb") == Some(1),
            times: AtomicU64::new(config.number("times").unwrap_or(u64::MAX)),
            slow: Duration::from_millis(config.number("slow_ms").unwrap_or(0)),
            block: config.text("block").to_owned(),
            answer: config.text("answer").to_owned(),
        };
        unruly.host.warn("unruly is here");
        unruly.panic_in("init");
        unruly.block_in("init");
        if unruly.panic == "thread" {
            let thread = std::thread::Builder::new().name("helper".to_owned());
            // Waited for, so that the panic is in the log before anything else happens.
            let _ = thread.spawn(|| panic!("unruly: thread"))?.join();
        }
        Ok(unruly)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> State {
        self.panic_in("new_connection");
        State::default()
    }

    fn handle_connect(&self, state: &mut State, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        state.is_victim = connect.client_id().starts_with("victim");
        state.panics_on_drop = state.is_victim && self.panic == "drop_connection";
        self.misbehave(state, "handle_connect")?;
        if self.answers(state, "success") {
            return Ok(ConnectVerdict::reject(ReasonCode::SUCCESS));
        }
        Ok(ConnectVerdict::accept())
    }

    fn handle_auth(&self, state: &mut State, _: &Auth<'_>) -> Result<AuthVerdict, Error> {
        self.misbehave(state, "handle_auth")?;
        Ok(AuthVerdict::Ok)
    }

    fn handle_publish(&self, state: &mut State, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        self.misbehave(state, "handle_publish")?;
        if state.is_victim && publish.topic() == "info" {
            // So that `handle_info` has something to misbehave on.
            self.host.send_info(InfoTarget::All, "info", b"", None)?;
        }
        std::thread::sleep(self.slow);
        Ok(if self.answers(state, "topic") {
            PublishVerdict::ForwardChanged(Message::from(publish).topic("not/+/valid"))
        } else if self.answers(state, "success") {
            PublishVerdict::Reject(Reject::new(ReasonCode::SUCCESS))
        } else {
            PublishVerdict::Forward
        })
    }

    fn handle_subscribe(&self, state: &mut State, subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        self.misbehave(state, "handle_subscribe")?;
        let count = subscribe.subscriptions().len();
        Ok(if self.answers(state, "codes") {
            SubscribeVerdict::Codes(vec![ReasonCode::GRANTED_QOS_0; count - 1])
        } else if self.answers(state, "raise") {
            SubscribeVerdict::Codes(vec![ReasonCode::GRANTED_QOS_2; count])
        } else {
            SubscribeVerdict::Grant
        })
    }

    fn handle_unsubscribe(
        &self,
        state: &mut State,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<UnsubscribeVerdict, Error> {
        self.misbehave(state, "handle_unsubscribe")?;
        Ok(if self.answers(state, "codes") {
            UnsubscribeVerdict::Codes(vec![ReasonCode::SUCCESS; unsubscribe.filters().len() - 1])
        } else {
            UnsubscribeVerdict::Allow
        })
    }

    fn handle_puback(&self, state: &mut State, _: &Ack<'_>) {
        // There is no answer, so that an error cannot be returned.
        let _ = self.misbehave(state, "handle_puback");
    }

    fn handle_info(&self, state: &mut State, _: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        self.misbehave(state, "handle_info")?;
        Ok(if self.answers(state, "topic") {
            vec![InfoAction::Publish(Message::new("not/+/valid", ""))]
        } else {
            vec![]
        })
    }

    fn handle_disconnect(&self, state: &mut State, _: &DisconnectReason<'_>) {
        let _ = self.misbehave(state, "handle_disconnect");
    }

    fn handle_session_expired(&self, client_id: &str, _state: Option<plugin_api::StateView<'_>>) {
        if client_id.starts_with("victim") {
            self.panic_in("handle_session_expired");
        }
    }

    fn stop(&self) {
        self.panic_in("stop");
        self.block_in("stop");
    }
}

impl Drop for Unruly {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.panic_in("drop_instance");
            self.block_in("drop_instance");
        }
    }
}

plugin_api::export!(Unruly, "unruly");
