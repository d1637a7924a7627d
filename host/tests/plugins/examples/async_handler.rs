//! Answers from `async fn`, when it is told to.
//!
//! What waits, says so with a message to `waiting`, and waits for the gate: each message to `gate/open` lets one go on. It
//! is
//!
//! - CONNECT of a client whose identifier begins with `slow`; with `slow-bad` it is refused afterwards,
//! - AUTH with the data `slow`,
//! - PUBLISH to `slow/…`, forwarded afterwards to `count/…` with the number of the connection's messages as its payload;
//!   to `nap/…`, which waits a millisecond instead, and to `yield/…`, which goes to the runtime and answers there,
//! - SUBSCRIBE and UNSUBSCRIBE of a Topic Filter that begins with `slow`.
//!
//! `never/…` waits for ever, `panic/…` panics after the gate, `now/…` is forwarded at once as `slow/…` is. At the end of a
//! connection a message with its number of messages goes to `gone/<client>`.
//!
//! `{"runtime": 1}`: with a tokio runtime of its own instead of the library's.

use std::sync::Arc;
use std::time::Duration;

use plugin_api::{
    AuthVerdict, ConnectVerdict, ConnectionInfo, DisconnectReason, Error, FirstPoll, Handler, Host, Lent, Message,
    PublishVerdict, ReasonCode, SubscribeVerdict, Task, UnsubscribeVerdict, handler, owned,
};
use test_plugins::Config;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

struct Patient {
    host: Host,
    gate: Semaphore,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct State {
    client_id: String,
    messages: u32,
}

impl Patient {
    async fn wait(&self) -> Result<(), Error> {
        self.host.publish(&Message::new("waiting", ""))?;
        self.gate.acquire().await?.forget();
        Ok(())
    }
}

#[handler]
impl Handler for Patient {
    type Connection = State;

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let runtime = match Config::parse(config)?.number("runtime") {
            Some(_) => Some(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?),
            None => None,
        };
        Ok(Self { host, gate: Semaphore::new(0), runtime })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> State {
        State::default()
    }

    async fn handle_connect(
        self: Arc<Self>,
        mut state: Lent<State>,
        connect: owned::Connect,
    ) -> Result<ConnectVerdict, Error> {
        connect.client_id().clone_into(&mut state.client_id);
        if connect.client_id().starts_with("never") {
            std::future::pending::<()>().await;
        }
        if connect.client_id().starts_with("slow") {
            self.wait().await?;
        }
        if connect.client_id().starts_with("slow-bad") {
            return Ok(ConnectVerdict::reject(ReasonCode::BAD_USER_NAME_OR_PASSWORD));
        }
        Ok(ConnectVerdict::accept())
    }

    async fn handle_auth(self: Arc<Self>, _state: Lent<State>, auth: owned::Auth) -> Result<AuthVerdict, Error> {
        if auth.data() == Some(b"slow") {
            self.wait().await?;
        }
        Ok(AuthVerdict::OkWith(b"welcome".to_vec()))
    }

    async fn handle_publish(
        self: Arc<Self>,
        mut state: Lent<State>,
        publish: owned::Publish,
    ) -> Result<PublishVerdict, Error> {
        if publish.topic() == "gate/open" {
            self.gate.add_permits(1);
            return Ok(PublishVerdict::Handled);
        }
        state.messages += 1;
        let Some((what, rest)) = publish.topic().split_once('/') else {
            return Ok(PublishVerdict::Forward);
        };
        let topic = format!("count/{rest}");
        match what {
            "slow" | "panic" => self.wait().await?,
            "yield" => tokio::task::yield_now().await,
            "nap" => tokio::time::sleep(Duration::from_millis(1)).await,
            "never" => std::future::pending().await,
            "now" => {}
            _ => return Ok(PublishVerdict::Forward),
        }
        assert!(what != "panic", "async_handler: as it was told to");
        let count = state.messages.to_string();
        Ok(PublishVerdict::ForwardChanged(Message::from(publish).topic(topic).payload(count)))
    }

    async fn handle_subscribe(
        self: Arc<Self>,
        _state: Lent<State>,
        subscribe: owned::Subscribe,
    ) -> Result<SubscribeVerdict, Error> {
        if subscribe.subscriptions().any(|subscription| subscription.filter().starts_with("slow")) {
            self.wait().await?;
            return Ok(SubscribeVerdict::Codes(vec![ReasonCode::NOT_AUTHORIZED; subscribe.subscriptions().len()]));
        }
        Ok(SubscribeVerdict::Grant)
    }

    async fn handle_unsubscribe(
        self: Arc<Self>,
        _state: Lent<State>,
        unsubscribe: owned::Unsubscribe,
    ) -> Result<UnsubscribeVerdict, Error> {
        if unsubscribe.filters().any(|filter| filter.starts_with("slow")) {
            self.wait().await?;
            return Ok(UnsubscribeVerdict::Codes(vec![ReasonCode::NOT_AUTHORIZED; unsubscribe.filters().len()]));
        }
        Ok(UnsubscribeVerdict::Allow)
    }

    fn handle_disconnect(&self, state: &mut State, _: &DisconnectReason<'_>) {
        let message = Message::new(format!("gone/{}", state.client_id), state.messages.to_string());
        if let Err(error) = self.host.publish(&message) {
            self.host.warn(format_args!("nobody hears that {} is gone: {error}", state.client_id));
        }
    }

    fn spawn(&self, task: Task) {
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(task)),
            None => task.spawn_on_own_runtime(),
        }
    }

    fn first_poll(&self, poll: FirstPoll<'_>) {
        match &self.runtime {
            Some(runtime) => {
                let _context = runtime.enter();
                poll.run();
            }
            None => poll.run_in_own_runtime(),
        }
    }
}

plugin_api::export!(Patient, "async");
