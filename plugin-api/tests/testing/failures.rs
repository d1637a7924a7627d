//! What cannot answer refuses, as in the broker.

use std::sync::Arc;
use std::time::Duration;

use plugin_api::testing::{LogLine, TestClient, TestHost};
use plugin_api::*;

/// Does what the first level of the topic says.
struct Unruly {
    host: Host,
}

#[handler]
impl Handler for Unruly {
    type Connection = ();

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        assert!(config != "panic", "at the start");
        Ok(Self { host })
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) {
        assert!(!info.listener().contains("panic"), "no state");
    }

    #[blocking]
    fn handle_connect(&self, (): &mut (), connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        match connect.client_id() {
            "error" => Err("nobody knows".into()),
            "panic" => panic!("at connect"),
            "misfit" => Ok(ConnectVerdict::reject(ReasonCode::KEEP_ALIVE_TIMEOUT)),
            "no-error" => Ok(ConnectVerdict::reject(ReasonCode::SUCCESS)),
            "later" => {
                let (ticket, later) = self.host.ticket::<ConnectVerdict>()?;
                std::thread::spawn(move || ticket.answer(ConnectVerdict::reject(ReasonCode::BANNED)));
                Ok(ConnectVerdict::Later(later))
            }
            _ => Ok(ConnectVerdict::accept()),
        }
    }

    async fn handle_subscribe(
        self: Arc<Self>,
        _: Lent<()>,
        subscribe: owned::Subscribe,
    ) -> Result<SubscribeVerdict, Error> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        match subscribe.subscriptions().next().map(|subscription| subscription.filter().to_owned()).as_deref() {
            Some("panic") => panic!("later"),
            Some("never") => std::future::pending().await,
            Some("few") => Ok(SubscribeVerdict::Codes(Vec::new())),
            _ => Ok(SubscribeVerdict::Grant),
        }
    }

    fn handle_publish(&self, (): &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        match publish.topic() {
            "error" => Err("no such number".into()),
            "panic" => panic!("at publish"),
            "misfit" => Ok(PublishVerdict::reject(ReasonCode::MESSAGE_RATE_TOO_HIGH)),
            "no-error" => Ok(PublishVerdict::reject(ReasonCode::SUCCESS)),
            "wildcard" => Ok(PublishVerdict::ForwardChanged(Message::new("a/+", ""))),
            "later" => {
                let (ticket, later) = self.host.ticket::<PublishVerdict>()?;
                std::thread::spawn(move || ticket.answer(PublishVerdict::Handled));
                Ok(PublishVerdict::Later(later))
            }
            "dropped" => Ok(PublishVerdict::Later(self.host.ticket::<PublishVerdict>()?.1)),
            "kept" => {
                let (ticket, later) = self.host.ticket::<PublishVerdict>()?;
                std::mem::forget(ticket);
                Ok(PublishVerdict::Later(later))
            }
            _ => Ok(PublishVerdict::Forward),
        }
    }

    fn handle_deliver(&self, (): &mut (), deliver: &Deliver<'_>) -> Result<DeliverVerdict, Error> {
        match deliver.topic() {
            "error" => Err("not now".into()),
            "panic" => panic!("at deliver"),
            _ => Ok(DeliverVerdict::Send),
        }
    }

    fn handle_info(&self, (): &mut (), info: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        assert!(info.kind() != "panic", "at info");
        Err("never mind".into())
    }

    fn handle_disconnect(&self, (): &mut (), reason: &DisconnectReason<'_>) {
        self.host.info(format_args!("end {:?}", reason.kind()));
    }

    fn health(&self) -> Result<String, Error> {
        panic!("not well")
    }
}

fn host() -> TestHost {
    TestHost::new::<Unruly>("{}").expect("it starts")
}

/// What the host has said of the handler, and what that has logged.
fn texts(host: &TestHost) -> Vec<String> {
    host.take_logs().into_iter().map(|line: LogLine| line.text).collect()
}

#[test]
fn who_cannot_be_decided_about_does_not_come_in() {
    let host = host();
    for (client_id, code, kind, why) in [
        ("error", ReasonCode::UNSPECIFIED_ERROR, DisconnectKind::Refused, "nobody knows"),
        ("panic", ReasonCode::UNSPECIFIED_ERROR, DisconnectKind::HandlerFailed, "handle_connect panicked: at connect"),
        ("misfit", ReasonCode::UNSPECIFIED_ERROR, DisconnectKind::Refused, ""),
        ("no-error", ReasonCode::UNSPECIFIED_ERROR, DisconnectKind::HandlerFailed, "cannot be used"),
        ("later", ReasonCode::BANNED, DisconnectKind::Refused, ""),
    ] {
        let refused = host.connect(client_id).expect_err(client_id);
        assert_eq!((refused.reason_code, refused.kind), (code, kind), "{client_id}");
        assert!(refused.why.contains(why), "{client_id}: {refused:?}");
        // What has panicked is entered no more; everybody else hears that it is over.
        let told = texts(&host).iter().any(|text| text.starts_with("end "));
        assert_eq!(told, client_id != "panic", "{client_id}");
    }
    let refused = host.client("c1").listener("panic").connect().expect_err("no state");
    assert!(refused.why.contains("new_connection panicked: no state"), "{refused}");
    let error = TestHost::new::<Unruly>("panic").expect_err("it does not start");
    assert_eq!(error.to_string(), "init panicked: at the start");
}

#[test]
fn messages_that_cannot_be_decided_about_are_refused() {
    let host = host();
    let client = host.connect("c1").expect("let in");
    let error = PublishVerdict::reject(ReasonCode::UNSPECIFIED_ERROR);
    for (topic, expected, line) in [
        ("error", &error, "handle_publish returned an error: no such number"),
        ("misfit", &error, "PUBACK cannot have the reason code"),
        ("wildcard", &error, "is not a Topic Name"),
        ("dropped", &error, "a ticket was dropped without an answer"),
        ("later", &PublishVerdict::Handled, ""),
        ("fine", &PublishVerdict::Forward, ""),
    ] {
        assert_eq!(client.publish(topic, ""), *expected, "{topic}");
        let texts = texts(&host);
        assert!(
            texts.iter().any(|text| text.contains(line)) || line.is_empty() && texts.is_empty(),
            "{topic} {texts:?}"
        );
    }
    host.set_patience(Duration::ZERO);
    let late = PublishVerdict::reject(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
    assert_eq!(client.publish("kept", ""), late);
    assert_eq!(texts(&host), ["handle_publish has not answered in time: refused"]);
    assert_eq!(client.ended(), None);

    // An answer that makes no sense at all ends the connection; its state is fine, and hears of it.
    let failed = PublishVerdict::disconnect(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
    assert_eq!(client.publish("no-error", ""), failed);
    assert_eq!(client.ended().expect("it has ended").kind, DisconnectKind::HandlerFailed);
    assert_eq!(texts(&host).last().map(String::as_str), Some("end HandlerFailed"));
}

#[test]
fn a_panic_ends_its_connection_and_no_other() {
    let host = host();
    let other = host.connect("other").expect("let in");
    type Act = fn(&TestClient);
    let acts: [(&str, Act); 4] = [
        ("at publish", |client| {
            let failed = PublishVerdict::disconnect(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
            assert_eq!(client.publish("panic", ""), failed);
        }),
        ("later", |client| {
            let failed = Disconnect::new(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
            assert_eq!(client.subscribe("panic"), SubscribeVerdict::Disconnect(failed));
        }),
        ("at deliver", |client| assert_eq!(client.deliver(Message::new("panic", "")), DeliverVerdict::Drop)),
        ("at info", |client| client.info("panic", "")),
    ];
    for (what, act) in acts {
        let client = host.client("c1").will(Message::new("fine", "")).connect().expect("let in");
        act(&client);
        let ended = client.ended().expect(what);
        assert_eq!((ended.kind, ended.will), (DisconnectKind::HandlerFailed, None), "{what}");
        assert!(ended.text.contains(what), "{what}: {}", ended.text);
        // Not even `handle_disconnect` enters the state again.
        let lines = host.take_logs();
        assert!(lines.iter().any(|line| line.level == Level::Error && line.text.contains(what)), "{lines:?}");
        assert!(lines.iter().all(|line| !line.text.starts_with("end ")), "{lines:?}");
    }
    assert_eq!(other.publish("fine", ""), PublishVerdict::Forward);
    let error = host.health().expect_err("it panics");
    assert_eq!(error.to_string(), "health panicked: not well");
}

#[test]
fn subscriptions_are_waited_for_and_refused_if_they_do_not_come() {
    let host = host();
    let client = host.connect("c1").expect("let in");
    assert_eq!(client.subscribe("fine"), SubscribeVerdict::Grant);
    host.set_patience(Duration::from_millis(20));
    let late = vec![ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR];
    assert_eq!(client.subscribe("never"), SubscribeVerdict::Codes(late));
    assert_eq!(client.ended(), None, "its state is back: the future was dropped");
    assert_eq!(client.publish("fine", ""), PublishVerdict::Forward);
    host.set_patience(Duration::from_secs(60));
    let failed = Disconnect::new(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
    assert_eq!(client.subscribe("few"), SubscribeVerdict::Disconnect(failed));
}

#[test]
fn an_error_about_a_delivery_drops_it_and_one_about_an_info_does_nothing() {
    let host = host();
    let client = host.connect("c1").expect("let in");
    assert_eq!(client.deliver(Message::new("error", "")), DeliverVerdict::Drop);
    client.info("error", "");
    assert_eq!((client.ended(), client.take_received()), (None, Vec::new()));
    let lines: Vec<(Option<Callback>, String)> =
        host.take_logs().into_iter().map(|line| (line.callback, line.text)).collect();
    assert_eq!(
        lines,
        [
            (Some(Callback::Deliver), "handle_deliver returned an error: not now".to_owned()),
            (Some(Callback::Info), "handle_info returned an error: never mind".to_owned()),
        ]
    );
}

#[test]
#[should_panic(expected = "the connection of \"c1\" has ended")]
fn a_connection_that_has_ended_can_do_nothing() {
    let client = host().connect("c1").expect("let in");
    client.disconnect();
    let _ = client.publish("fine", "");
}

#[test]
#[should_panic(expected = "\"a/#\" is not a Topic Name")]
fn what_the_broker_would_not_ask_about_is_a_mistake_of_the_test() {
    let _ = host().connect("c1").expect("let in").publish("a/#", "");
}
