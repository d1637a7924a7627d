//! Every callback is reached, and what it says is done.

use std::time::Duration;

use plugin_api::testing::{Delivery, TestHost};
use plugin_api::*;

/// Does what the packets say.
struct Scripted;

#[handler]
impl Handler for Scripted {
    type Connection = ();

    fn init(_: Host, config: &str) -> Result<Self, Error> {
        if config == "wrong" { Err("the configuration is wrong".into()) } else { Ok(Self) }
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, _: &mut (), connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        Ok(match connect.username() {
            Some("nobody") => ConnectVerdict::Reject(Reject::new(ReasonCode::BANNED).reason_string("go away")),
            Some("renamed") => ConnectVerdict::Accept(Accept::new().client_id("new").keep_alive_secs(7)),
            _ => ConnectVerdict::accept(),
        })
    }

    fn handle_auth(&self, _: &mut (), auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        Ok(match (auth.method(), auth.data()) {
            ("DOUBLE", Some(b"11")) => AuthVerdict::OkWith(b"done".to_vec()),
            ("DOUBLE", Some(b"1")) => AuthVerdict::Continue(b"1".to_vec()),
            ("DOUBLE", _) => AuthVerdict::error(ReasonCode::NOT_AUTHORIZED),
            _ => AuthVerdict::error(ReasonCode::BAD_AUTHENTICATION_METHOD),
        })
    }

    fn handle_publish(&self, _: &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        Ok(match publish.topic() {
            "changed" => PublishVerdict::ForwardChanged(Message::from(publish).topic("other").qos(QoS::AtLeastOnce)),
            "handled" => PublishVerdict::Handled,
            "refused" => PublishVerdict::reject(ReasonCode::QUOTA_EXCEEDED),
            "out" => PublishVerdict::disconnect(ReasonCode::ADMINISTRATIVE_ACTION),
            _ => PublishVerdict::Forward,
        })
    }

    fn handle_subscribe(&self, _: &mut (), subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        let code = |subscription: Subscription<'_>| match subscription.filter() {
            "no" => ReasonCode::NOT_AUTHORIZED,
            "less" => ReasonCode::SUCCESS,
            _ => ReasonCode::GRANTED_QOS_2, // Never more than was asked for.
        };
        Ok(SubscribeVerdict::Codes(subscribe.subscriptions().map(code).collect()))
    }

    fn handle_unsubscribe(&self, _: &mut (), unsubscribe: &Unsubscribe<'_>) -> Result<UnsubscribeVerdict, Error> {
        let code = |filter| if filter == "keep" { ReasonCode::NOT_AUTHORIZED } else { ReasonCode::SUCCESS };
        Ok(UnsubscribeVerdict::Codes(unsubscribe.filters().map(code).collect()))
    }

    fn handle_info(&self, _: &mut (), info: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        Ok(match info.kind() {
            "say" => vec![InfoAction::Publish(Message::new("said", info.data()))],
            "out" => vec![InfoAction::Disconnect(ReasonCode::ADMINISTRATIVE_ACTION.into())],
            "stop" => vec![InfoAction::Stop("enough".to_owned())],
            _ => Vec::new(),
        })
    }

    fn handle_deliver(&self, _: &mut (), deliver: &Deliver<'_>) -> Result<DeliverVerdict, Error> {
        Ok(match (deliver.topic(), deliver.origin(), deliver.cause()) {
            ("drop", ..) => DeliverVerdict::Drop,
            (_, Origin::Will, DeliverCause::Queued) => {
                DeliverVerdict::SendChanged(Message::from(deliver).payload("changed").qos(QoS::ExactlyOnce))
            }
            _ => DeliverVerdict::Send,
        })
    }
}

#[test]
fn connections_are_let_in_or_not() {
    let host = TestHost::new::<Scripted>("{}").expect("it starts");
    let plain = host.connect("c1").expect("let in");
    assert_eq!((plain.client_id().as_str(), plain.accepted()), ("c1", &Accept::new()));
    let renamed = host.client("c2").username("renamed").password("secret").connect().expect("let in");
    assert_eq!(renamed.client_id(), "new");
    assert_eq!(renamed.accepted(), &Accept::new().client_id("new").keep_alive_secs(7));
    let refused = host.client("c3").username("nobody").connect().expect_err("banned");
    assert_eq!((refused.reason_code, refused.kind), (ReasonCode::BANNED, DisconnectKind::Refused));
    assert_eq!(refused.properties.as_properties().reason_string(), Some("go away"));
    assert_eq!(refused.to_string(), format!("the client was not let in: {}", ReasonCode::BANNED));
    let error = TestHost::new::<Scripted>("wrong").expect_err("refused").to_string();
    assert_eq!(error, "the configuration is wrong");
}

#[test]
fn clients_authenticate_and_do_so_again() {
    let host = TestHost::new::<Scripted>("{}").expect("it starts");
    let double = |challenge: &[u8]| [challenge, challenge].concat();
    let client = host.client("c1").authenticate("DOUBLE", "1", double).connect().expect("it doubles");
    assert_eq!(client.authenticate_again("1", double), AuthVerdict::OkWith(b"done".to_vec()));
    assert_eq!(client.ended(), None);
    let no = AuthVerdict::error(ReasonCode::NOT_AUTHORIZED);
    assert_eq!(client.authenticate_again("1", |_| b"3".to_vec()), no);
    assert_eq!(client.ended().expect("it has ended").reason_code, ReasonCode::NOT_AUTHORIZED);
    let other = host.client("c2").authenticate("OTHER", "1", double).connect().expect_err("unknown");
    assert_eq!(other.reason_code, ReasonCode::BAD_AUTHENTICATION_METHOD);
}

#[test]
fn messages_are_forwarded_changed_handled_and_refused() {
    let host = TestHost::new::<Scripted>("{}").expect("it starts");
    let client = host.connect("c1").expect("let in");
    assert_eq!(client.publish("a", b"21"), PublishVerdict::Forward);
    let changed = Message::new("other", "21").qos(QoS::AtLeastOnce);
    assert_eq!(client.publish("changed", "21"), PublishVerdict::ForwardChanged(changed));
    assert_eq!(client.publish("handled", "21"), PublishVerdict::Handled);
    assert_eq!(client.publish("refused", "21"), PublishVerdict::reject(ReasonCode::QUOTA_EXCEEDED));
    assert_eq!(client.ended(), None);
    assert_eq!(client.publish("out", ""), PublishVerdict::disconnect(ReasonCode::ADMINISTRATIVE_ACTION));
    let ended = client.ended().expect("it has ended");
    assert_eq!((ended.kind, ended.reason_code), (DisconnectKind::ServerDisconnect, ReasonCode::ADMINISTRATIVE_ACTION));
}

#[test]
fn subscriptions_are_granted_lowered_and_refused() {
    let host = TestHost::new::<Scripted>("{}").expect("it starts");
    let client = host.connect("c1").expect("let in");
    assert_eq!(client.subscribe("a/#"), SubscribeVerdict::Grant);
    let asked = [("b", QoS::AtLeastOnce), ("less", QoS::AtLeastOnce), ("no", QoS::AtMostOnce)];
    let codes = vec![ReasonCode::GRANTED_QOS_1, ReasonCode::SUCCESS, ReasonCode::NOT_AUTHORIZED];
    assert_eq!(client.subscribe_all(&asked), SubscribeVerdict::Codes(codes));
    let has: Vec<(String, QoS)> = client.subscriptions();
    let has: Vec<(&str, QoS)> = has.iter().map(|(filter, qos)| (filter.as_str(), *qos)).collect();
    assert_eq!(has, [("a/#", QoS::ExactlyOnce), ("b", QoS::AtLeastOnce), ("less", QoS::AtMostOnce)]);
    assert_eq!(client.subscribe("keep"), SubscribeVerdict::Grant);
    assert_eq!(client.unsubscribe(&["b", "a/#", "never"]), UnsubscribeVerdict::Allow);
    let codes = vec![ReasonCode::SUCCESS, ReasonCode::NOT_AUTHORIZED];
    assert_eq!(client.unsubscribe(&["less", "keep"]), UnsubscribeVerdict::Codes(codes));
    assert_eq!(client.subscriptions(), [("keep".to_owned(), QoS::ExactlyOnce)]);
}

#[test]
fn deliveries_are_sent_changed_and_dropped() {
    let host = TestHost::new::<Scripted>("{}").expect("it starts");
    let client = host.connect("c1").expect("let in");
    let message = Message::new("a", "as it came").qos(QoS::AtLeastOnce);
    assert_eq!(client.deliver(message.clone()), DeliverVerdict::Send);
    assert_eq!(client.deliver(Message::new("drop", "")), DeliverVerdict::Drop);
    let delivery = Delivery::new(message.clone()).published_by(Origin::Will).because(DeliverCause::Queued);
    // It goes with at most the QoS that it had.
    let changed = Message::new("a", "changed").qos(QoS::AtLeastOnce);
    assert_eq!(client.deliver(delivery), DeliverVerdict::SendChanged(changed.clone()));
    assert_eq!(client.take_received(), [message, changed]);
    assert_eq!(client.take_received(), []);
}

#[test]
fn what_the_handler_says_to_a_connection_is_done() {
    let host = TestHost::new::<Scripted>("{}").expect("it starts");
    let connect = |client_id| host.connect(client_id).expect("let in");
    let client = connect("c1");
    client.info("say", "hello");
    assert_eq!(client.take_received(), [Message::new("said", "hello")]);
    client.acknowledge(5);
    client.info("out", "");
    assert_eq!(client.ended().expect("out").kind, DisconnectKind::ServerDisconnect);
    let stopped = connect("c2");
    stopped.info("stop", "");
    let ended = stopped.ended().expect("stopped");
    assert_eq!((ended.kind, ended.text.as_str()), (DisconnectKind::Stopped, "enough"));
}

#[test]
fn connections_end_once_and_sessions_after_them() {
    let host = TestHost::new::<Scripted>("{}").expect("it starts");
    let will = Message::new("changed", "gone");
    let client = host.client("c1").will(will.clone()).session_expiry_interval(10).connect().expect("let in");
    assert_eq!(client.subscribe("a"), SubscribeVerdict::Grant);
    let ended = client.lose();
    let changed = PublishVerdict::ForwardChanged(will.topic("other").qos(QoS::AtLeastOnce));
    assert_eq!((ended.kind, ended.will), (DisconnectKind::Closed, Some(changed)));
    assert_eq!(client.disconnect().kind, DisconnectKind::Closed, "it has ended before");

    host.advance(Duration::from_secs(9));
    let client = host.client("c1").clean_start(false).session_expiry_interval(10).connect().expect("let in");
    assert_eq!(client.subscriptions().len(), 1);
    let next = host.client("c1").clean_start(false).will(Message::new("a", "")).connect().expect("let in");
    assert_eq!(client.ended().expect("taken over").kind, DisconnectKind::TakenOver);
    assert_eq!(next.disconnect().will, None);
    let fresh = host.connect("c1").expect("let in");
    assert_eq!(fresh.subscriptions().len(), 0);
}

/// As in the broker, where it is not told otherwise.
#[test]
fn sessions_are_kept_for_a_week_at_most() {
    let host = TestHost::new::<Echo>("{}").expect("it starts");
    const WEEK: u32 = 7 * 24 * 60 * 60;
    for client in
        [host.client("c1").protocol_version(4).clean_start(false), host.client("c1").session_expiry_interval(u32::MAX)]
    {
        client.connect().expect("let in").disconnect();
        drop(host.take_logs());
        host.advance(Duration::from_secs(u64::from(WEEK) - 1));
        assert!(!host.take_logs().iter().any(|line| line.text.starts_with("session c1")));
        host.advance(Duration::from_secs(1));
        assert!(host.take_logs().iter().any(|line| line.text.starts_with("session c1")));
    }
}

#[test]
fn what_is_the_servers_is_put_to_nobody() {
    let host = TestHost::new::<Echo>("{}").expect("it starts");
    let refused = host.client("c1").will(Message::new("$SYS/x", "")).connect().expect_err("not let in");
    assert_eq!(refused.reason_code, ReasonCode::NOT_AUTHORIZED);
    let client = host.connect("c1").expect("let in");
    drop(host.take_logs());
    assert_eq!(client.publish("$SYS/x", ""), PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED));
    assert_eq!(host.take_logs().len(), 0);
}

#[test]
fn the_handler_hears_of_everything_in_order() {
    let host = TestHost::new::<Echo>("{}").expect("it starts");
    let client = host.client("c1").session_expiry_interval(5).connect().expect("let in");
    let message = Message::new("a", "1");
    client.acknowledge(9);
    host.message_dropped("c1", &message, DropReason::QueueFull);
    host.message_acknowledged("c1", &message, ReasonCode::SUCCESS);
    host.message_expired("c1", &message);
    assert_eq!(client.publish_message(&message.clone().retain(true)), PublishVerdict::Forward);
    host.retain(&Message::new("a", ""));
    client.disconnect();
    host.advance(Duration::from_secs(5));
    assert!(host.configure("[]").is_err_and(|error| error.to_string() == "only {}"));
    host.configure("{}").expect("it is taken");
    assert_eq!(host.health().expect("it is well"), "well");
    host.stop();
    let lines: Vec<String> = host.take_logs().into_iter().map(|line| line.text).collect();
    let expected = [
        "connected false false",
        "puback Some(9)",
        "dropped a QueueFull",
        "acknowledged a",
        "expired a",
        "publish a",
        "retained a Set",
        "retained a Cleared",
        "disconnect Normal",
        "session c1 Some(7)",
        "config [] refused",
        "config {} taken",
        "stop",
    ];
    assert_eq!(lines, expected);
}

/// Logs what it hears.
struct Echo(Host);

#[handler]
impl Handler for Echo {
    type Connection = u8;

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        Ok(Self(host))
    }
    fn new_connection(&self, _: &ConnectionInfo<'_>) -> u8 {
        7
    }
    fn handle_connected(&self, _: &mut u8, connected: &Connected<'_>) {
        self.0.info(format_args!("connected {} {}", connected.session_present(), connected.took_over()));
    }
    fn handle_publish(&self, _: &mut u8, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        self.0.info(format_args!("publish {}", publish.topic()));
        Ok(PublishVerdict::Forward)
    }
    fn handle_puback(&self, _: &mut u8, ack: &Ack<'_>) {
        self.0.info(format_args!("puback {:?}", ack.token()));
    }
    fn handle_message_dropped(&self, message: &MessageNotice<'_>) {
        self.0.info(format_args!("dropped {} {:?}", message.topic(), message.drop_reason()));
    }
    fn handle_message_acknowledged(&self, message: &MessageNotice<'_>) {
        self.0.info(format_args!("acknowledged {}", message.topic()));
    }
    fn handle_message_expired(&self, message: &MessageNotice<'_>) {
        self.0.info(format_args!("expired {}", message.topic()));
    }
    fn handle_retained(&self, retained: &Retained<'_>) {
        self.0.info(format_args!("retained {} {:?}", retained.topic(), retained.change()));
    }
    fn handle_disconnect(&self, _: &mut u8, reason: &DisconnectReason<'_>) {
        self.0.info(format_args!("disconnect {:?}", reason.kind()));
    }
    fn handle_session_expired(&self, client_id: &str, state: Option<StateView<'_>>) {
        self.0.info(format_args!("session {client_id} {:?}", state.and_then(|state| state.bytes().first().copied())));
    }
    fn export_state(&self, state: &mut u8) -> State {
        State::new(1, [*state])
    }
    fn handle_config(&self, config: &str) -> Result<(), Error> {
        let taken = config == "{}";
        self.0.info(format_args!("config {config} {}", if taken { "taken" } else { "refused" }));
        if taken { Ok(()) } else { Err("only {}".into()) }
    }
    fn health(&self) -> Result<String, Error> {
        Ok("well".to_owned())
    }
    fn stop(&self) {
        self.0.info("stop");
    }
}
