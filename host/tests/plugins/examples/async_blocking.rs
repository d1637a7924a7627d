//! Some callbacks block, others are `async fn`, and all of them use one state: each adds a letter to it.
//!
//! PUBLISH to `yield/…` (asynchronous, `a`) goes to the runtime and comes back; AUTH is not asked for. Acknowledgements (`p`)
//! and SUBSCRIBE (`s`) block for a millisecond. At the end of the connection (`d`) the letters are published to
//! `gone/<client>`.

use std::sync::Arc;
use std::time::Duration;

use plugin_api::{
    Ack, Connect, ConnectVerdict, ConnectionInfo, DisconnectReason, Error, Handler, Host, Lent, Message,
    PublishVerdict, Subscribe, SubscribeVerdict, handler, owned,
};

struct Mixed {
    host: Host,
}

#[derive(Default)]
struct State {
    client_id: String,
    letters: String,
}

#[handler(blocking)]
impl Handler for Mixed {
    type Connection = State;

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        Ok(Self { host })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> State {
        State::default()
    }

    fn handle_connect(&self, state: &mut State, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        connect.client_id().clone_into(&mut state.client_id);
        Ok(ConnectVerdict::accept())
    }

    async fn handle_publish(
        self: Arc<Self>,
        mut state: Lent<State>,
        publish: owned::Publish,
    ) -> Result<PublishVerdict, Error> {
        if publish.topic().starts_with("yield/") {
            tokio::task::yield_now().await;
            state.letters.push('a');
        }
        Ok(PublishVerdict::Forward)
    }

    fn handle_subscribe(&self, state: &mut State, _: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        std::thread::sleep(Duration::from_millis(1));
        state.letters.push('s');
        Ok(SubscribeVerdict::Grant)
    }

    fn handle_puback(&self, state: &mut State, _: &Ack<'_>) {
        std::thread::sleep(Duration::from_millis(1));
        state.letters.push('p');
    }

    fn handle_disconnect(&self, state: &mut State, _: &DisconnectReason<'_>) {
        state.letters.push('d');
        let message = Message::new(format!("gone/{}", state.client_id), state.letters.as_str());
        if let Err(error) = self.host.publish(&message) {
            self.host.warn(format_args!("nobody hears that {} is gone: {error}", state.client_id));
        }
    }
}

plugin_api::export!(Mixed, "mixed");
