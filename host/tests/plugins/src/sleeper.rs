//! A plugin that takes its time. Its configuration says where:
//!
//! - `"callback"`: the name of a callback, `"new_connection"` or `"drop_connection"`.
//! - `"gate"`: a path. The callback writes a line to `<gate>.entered`, waits until there is a file at that path, and writes
//!   a line to `<gate>.left`.
//! - `"sleep_ms"`: it takes that many milliseconds.
//! - `"panic": 1`: then it panics.
//!
//! Only clients whose Client Identifier begins with `victim` are kept waiting; in `new_connection`, where there is none yet,
//! everybody is who comes when there is a file `<gate>.armed`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use plugin_api::Error;

use crate::Config;

/// What the configuration says.
#[derive(Debug, Clone, Default)]
pub struct Sleeper {
    callback: String,
    gate: Option<PathBuf>,
    sleep: Duration,
    panics: bool,
}

/// A connection's state.
#[derive(Debug, Default)]
pub struct State {
    /// Whether the client is one that is kept waiting.
    pub is_victim: bool,
    sleeper: Sleeper,
}

impl Sleeper {
    /// Reads the configuration.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn new(config: &str) -> Result<Self, Error> {
        let config = Config::parse(config)?;
        let gate = Some(config.text("gate")).filter(|path| !path.is_empty()).map(PathBuf::from);
        let sleep = Duration::from_millis(config.number("sleep_ms").unwrap_or(0));
        let panics = config.number("panic") == Some(1);
        Ok(Self { callback: config.text("callback").to_owned(), gate, sleep, panics })
    }

    /// The state of a connection.
    #[must_use]
    pub fn state(&self) -> State {
        let is_armed = || self.gate.as_ref().is_none_or(|gate| gate.with_extension("armed").exists());
        if self.callback == "new_connection" && is_armed() {
            self.wait("new_connection");
        }
        State { sleeper: self.clone(), ..State::default() }
    }

    /// Takes its time, if it is this callback that does.
    pub fn wait(&self, callback: &str) {
        if self.callback != callback {
            return;
        }
        std::thread::sleep(self.sleep);
        if let Some(gate) = &self.gate {
            self.note("entered");
            while !gate.exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.note("left");
        }
        assert!(!self.panics, "sleeper: {callback}");
    }

    /// The same, for a victim.
    pub fn wait_for(&self, state: &State, callback: &str) {
        if state.is_victim {
            self.wait(callback);
        }
    }

    fn note(&self, what: &str) {
        let path = self.gate.as_ref().map(|gate| gate.with_extension(what)).unwrap_or_default();
        let file: Result<File, _> = fs::OpenOptions::new().create(true).append(true).open(path);
        // The test that waits for the line fails without it.
        let _ = file.and_then(|mut file| writeln!(file, "{}", self.callback));
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.is_victim {
            self.sleeper.wait("drop_connection");
        }
    }
}

/// Writes the handler: `sleeper!()`, or `sleeper!((blocking))` for one that says that it may block.
#[macro_export]
macro_rules! sleeper {
    ($($argument:tt)?) => {
        use plugin_api::{
            Ack, Auth, AuthVerdict, Connect, ConnectVerdict, Connected, ConnectionInfo, DisconnectReason, Error, Handler,
            Host, Info, InfoAction, InfoTarget, MessageNotice, Publish, PublishVerdict, Retained, StateView, Subscribe,
            SubscribeVerdict, Unsubscribe, UnsubscribeVerdict, handler,
        };
        use $crate::sleeper::{Sleeper, State};

        struct Slow {
            host: Host,
            sleeper: Sleeper,
        }

        #[handler $($argument)?]
        impl Handler for Slow {
            type Connection = State;

            fn init(host: Host, config: &str) -> Result<Self, Error> {
                Ok(Self { host, sleeper: Sleeper::new(config)? })
            }

            fn new_connection(&self, _: &ConnectionInfo<'_>) -> State {
                self.sleeper.state()
            }

            fn handle_connect(&self, state: &mut State, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
                state.is_victim = connect.client_id().starts_with("victim");
                self.sleeper.wait_for(state, "handle_connect");
                Ok(ConnectVerdict::accept())
            }

            fn handle_auth(&self, state: &mut State, _: &Auth<'_>) -> Result<AuthVerdict, Error> {
                self.sleeper.wait_for(state, "handle_auth");
                Ok(AuthVerdict::Ok)
            }

            fn handle_publish(&self, state: &mut State, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
                if state.is_victim && publish.topic() == "info" {
                    self.host.send_info(InfoTarget::Client("victim"), "info", b"", None)?;
                }
                self.sleeper.wait_for(state, "handle_publish");
                Ok(PublishVerdict::Forward)
            }

            fn handle_subscribe(&self, state: &mut State, _: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
                self.sleeper.wait_for(state, "handle_subscribe");
                Ok(SubscribeVerdict::Grant)
            }

            fn handle_unsubscribe(&self, state: &mut State, _: &Unsubscribe<'_>) -> Result<UnsubscribeVerdict, Error> {
                self.sleeper.wait_for(state, "handle_unsubscribe");
                Ok(UnsubscribeVerdict::Allow)
            }

            fn handle_puback(&self, state: &mut State, _: &Ack<'_>) {
                self.sleeper.wait_for(state, "handle_puback");
            }

            fn handle_info(&self, state: &mut State, _: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
                self.sleeper.wait_for(state, "handle_info");
                Ok(vec![])
            }

            fn handle_connected(&self, state: &mut State, _: &Connected<'_>) {
                self.sleeper.wait_for(state, "handle_connected");
            }

            fn handle_disconnect(&self, state: &mut State, _: &DisconnectReason<'_>) {
                self.sleeper.wait_for(state, "handle_disconnect");
            }

            fn handle_session_expired(&self, client_id: &str, _: Option<StateView<'_>>) {
                if client_id.starts_with("victim") {
                    self.sleeper.wait("handle_session_expired");
                }
            }

            fn handle_message_acknowledged(&self, notice: &MessageNotice<'_>) {
                if notice.client_id().starts_with("victim") {
                    self.sleeper.wait("handle_message_acknowledged");
                }
            }

            fn handle_retained(&self, retained: &Retained<'_>) {
                if retained.topic() == "victim" {
                    self.sleeper.wait("handle_retained");
                }
            }
        }

        plugin_api::export!(Slow, "sleeper");
    };
}
