#![doc = include_str!("../README.md")]

mod config;
mod event;
mod queue;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plugin_api::{
    Connected, ConnectionInfo, Disconnect, DisconnectReason, Error, Handler, Host, Publish, PublishVerdict, QoS,
    ReasonCode, Reject, StateView, Swapped, handler,
};

pub use config::Config;
use config::{Kind, OnFull, Settings};
use event::Event;
use queue::{Queue, Unkept};

/// How long stopping takes at most: less than the host waits for it.
const STOP: Duration = Duration::from_millis(2500);

/// The handler.
pub struct Webhook {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is remembered of a connection.
pub struct Connection {
    peer: String,
    listener: String,
    /// `None` before it is let in.
    client_id: Option<String>,
}

#[handler]
impl Handler for Webhook {
    type Connection = Connection;

    fn init(host: Host, config: Config) -> Result<Self, Error> {
        let queue = Arc::new(Queue::new(&host, Settings::new(config)?)?);
        let telling = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("tell-http".into()).spawn(move || telling.tell())?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    fn handle_config(&self, config: Config) -> Result<(), Error> {
        self.queue.set_settings(Settings::new(config)?);
        Ok(())
    }

    fn health(&self) -> Result<String, Error> {
        let waiting = self.queue.waiting();
        if self.queue.is_failing() {
            return Err(format!("the server does not take events: {waiting} wait").into());
        }
        Ok(format!("{waiting} events wait"))
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) -> Connection {
        Connection { peer: info.peer().to_string(), listener: info.listener().to_owned(), client_id: None }
    }

    fn handle_connected(&self, connection: &mut Connection, connected: &Connected<'_>) {
        connection.client_id = Some(connected.client_id().to_owned());
        if self.queue.settings().tells(Kind::Connected) {
            let _ = self.queue.put(&Event::Connected {
                client_id: connected.client_id(),
                peer: &connection.peer,
                listener: &connection.listener,
                session_present: connected.session_present(),
            });
        }
    }

    fn handle_publish(&self, connection: &mut Connection, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        let settings = self.queue.settings();
        // It was told of when this plugin was asked for the first time.
        if publish.again() || !settings.tells_of(publish.topic()) {
            return Ok(PublishVerdict::Forward);
        }
        let client_id = connection.client_id.as_deref().unwrap_or_default();
        let put = self.queue.put(&Event::published(client_id, publish));
        Ok(match put {
            Err(Unkept::Full) if settings.on_full == OnFull::Refuse => {
                let (code, reason) = (ReasonCode::QUOTA_EXCEEDED, "too much waits already, send it again later");
                match publish.qos() == QoS::AtMostOnce || publish.is_will() {
                    true => PublishVerdict::Reject(Reject::new(code).reason_string(reason)),
                    // What is not acknowledged stays with its client, which sends it again on its next connection [MQTT-4.4.0-1].
                    // After an acknowledgement, whatever it says, it would not.
                    false => PublishVerdict::Disconnect(Disconnect::new(code).reason_string(reason)),
                }
            }
            Err(Unkept::TooLarge) if settings.on_full == OnFull::Refuse => {
                let reject = Reject::new(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
                PublishVerdict::Reject(reject.reason_string("it is too large to be told of, do not send it again"))
            }
            Ok(()) | Err(_) => PublishVerdict::Forward,
        })
    }

    fn handle_disconnect(&self, connection: &mut Connection, reason: &DisconnectReason<'_>) {
        if let Some(client_id) = &connection.client_id
            && self.queue.settings().tells(Kind::Disconnected)
        {
            let _ = self.queue.put(&Event::Disconnected {
                client_id,
                kind: format!("{:?}", reason.kind()),
                reason_code: reason.reason_code().0,
                text: reason.text(),
            });
        }
    }

    fn handle_session_expired(&self, client_id: &str, _: Option<StateView<'_>>) {
        if self.queue.settings().tells(Kind::SessionExpired) {
            let _ = self.queue.put(&Event::SessionExpired { client_id });
        }
    }

    fn handle_swapped(&self, connection: &mut Connection, swapped: &Swapped<'_>) {
        connection.client_id = Some(swapped.client_id().to_owned());
    }

    /// What waits is told for some seconds more.
    fn stop(&self) {
        self.queue.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let start = Instant::now();
        while !thread.is_finished() {
            // It waits for a server that does not answer. What it tells stays, and is told again.
            if start.elapsed() > STOP {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // A panic in it has been logged by the library's hook.
        let _ = thread.join();
    }
}

plugin_api::export!(Webhook);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use plugin_api::Message;
    use plugin_api::testing::TestHost;

    use super::*;

    #[test]
    fn what_cannot_be_told_now_stays_with_its_client() -> Result<(), Error> {
        // Nobody listens there.
        let config = |more: &str| format!(r#"{{"url": "http://127.0.0.1:1/", "events": ["published"], {more}}}"#);
        let (code, reason) = (ReasonCode::QUOTA_EXCEEDED, "too much waits already, send it again later");
        let rejected = PublishVerdict::Reject(Reject::new(code).reason_string(reason));
        for version in [4, 5] {
            let host = TestHost::new::<Webhook>(&config(r#""queue_max": 1"#))?;
            let client =
                |name| host.client(name).protocol_version(version).connect().expect("it says nothing about that");
            let message = |qos| Message::new("t", "x").qos(qos);
            let first = client("first");
            assert_eq!(first.publish_message(&message(QoS::AtLeastOnce)), PublishVerdict::Forward);
            for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                // Anything else is acknowledged, and not sent again.
                let expected = PublishVerdict::Disconnect(Disconnect::new(code).reason_string(reason));
                assert_eq!(client("next").publish_message(&message(qos)), expected);
            }
            // These are lost all the same.
            assert_eq!(first.publish_message(&message(QoS::AtMostOnce)), rejected);
            let will = message(QoS::AtLeastOnce);
            let with_will = host.client("b").protocol_version(version).will(will).connect();
            assert_eq!(with_will.expect("it says nothing about that").lose().will, Some(rejected.clone()));
            // What will never have room is not sent again for that.
            let large = Message::new("t", vec![b'x'; 1 << 20]).qos(QoS::AtLeastOnce);
            host.configure(&config(r#""queue_max": 10"#))?;
            assert!(matches!(first.publish_message(&large), PublishVerdict::Reject(_)));
        }
        Ok(())
    }

    #[test]
    fn a_server_that_does_not_answer_keeps_nobody_from_stopping() -> Result<(), Error> {
        let server = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", server.local_addr()?);
        let config = format!(r#"{{"url": "{url}", "events": ["connected"], "linger_ms": 0, "timeout_ms": 60000}}"#);
        let host = TestHost::new::<Webhook>(&config)?;
        let _client = host.connect("a").expect("it says nothing about that");
        let _asked = server.accept()?;
        let start = Instant::now();
        host.stop();
        assert!(start.elapsed() < Duration::from_secs(50), "it has waited for the answer");
        assert_eq!(host.health()?, "1 events wait");
        Ok(())
    }
}
