//! What a handler asks of its host can be looked at, and happens in virtual time.

use std::time::Duration;

use plugin_api::testing::{Sent, Target, TestHost};
use plugin_api::*;

/// Does what events say, which come from `handle_publish`.
struct Busy {
    host: Host,
    count: Counter,
}

#[handler]
impl Handler for Busy {
    type Connection = ConnectionId;

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        let count = host.counter("asked", "Questions")?;
        host.gauge("level", "")?.set(5.0);
        host.send_info_every(InfoTarget::Plugin, "tick", b"", Duration::from_secs(10))?;
        host.store().put("starts", "1")?;
        Ok(Self { host, count })
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) -> ConnectionId {
        info.connection()
    }

    fn handle_publish(&self, id: &mut ConnectionId, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        self.count.increment();
        let (host, id) = (&self.host, *id);
        let message = Message::new("reply", "yes").retain(true);
        match publish.topic() {
            "publish" => host.publish(&message)?,
            "send" => host.send(InfoTarget::Client("c1"), &message)?,
            "wrong" => assert_eq!(host.publish(&Message::new("#", "")), Err(HostError::Invalid)),
            "out" => host.disconnect(id, Disconnect::new(ReasonCode::QUOTA_EXCEEDED))?,
            "later" => drop(host.send_info(InfoTarget::Connection(id), "timer", b"1", Some(Duration::from_secs(3)))?),
            "now" => drop(host.send_info(InfoTarget::All, "now", b"", None)?),
            "cancel" => {
                let timer = host.send_info(InfoTarget::Connection(id), "never", b"", Some(Duration::from_secs(1)))?;
                host.cancel_timer(timer)?;
            }
            "endless" => drop(host.send_info(InfoTarget::Plugin, "endless", b"", None)?),
            "ask" => {
                let log = host.clone();
                assert_eq!(host.connections(Query::all()).wait(), Err(HostError::NotHere));
                host.subscriptions(Query::all().limit(1)).then(move |page| {
                    let page = page.expect("it is answered");
                    log.info(format_args!(
                        "{} {} {}",
                        page.rows[0].client_id,
                        page.rows[0].filter,
                        page.next.is_some()
                    ));
                })?;
            }
            "subscribe" => {
                host.subscribe(InfoTarget::Connection(id), NewSubscription::new("given", QoS::AtLeastOnce)).start()?;
                host.unsubscribe(InfoTarget::Connection(id), "taken").start()?;
            }
            "again" => {
                let log = host.clone();
                host.reauthorise(InfoTarget::All).then(move |done| {
                    let done = done.expect("it is answered");
                    log.info(format_args!("{} of {} sessions", done.removed, done.sessions));
                })?;
            }
            "thread" => {
                let host = host.clone();
                let page = std::thread::spawn(move || host.connections(Query::all()).wait()).join();
                let page = page.map_err(|_| "a panic")?;
                self.host.info(format_args!("{} connections", page?.rows.len()));
            }
            _ => {}
        }
        Ok(PublishVerdict::Forward)
    }

    fn handle_subscribe(&self, _: &mut ConnectionId, subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        let code = |subscription: Subscription<'_>| match subscription.again() && subscription.filter() == "taken" {
            true => ReasonCode::NOT_AUTHORIZED,
            false => subscription.reason_code(),
        };
        Ok(SubscribeVerdict::Codes(subscribe.subscriptions().map(code).collect()))
    }

    fn handle_info(&self, _: &mut ConnectionId, info: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        self.host.info(format_args!("{} {:?}", info.kind(), info.sender()));
        Ok(Vec::new())
    }

    fn handle_event(&self, event: &Info<'_>) {
        if event.kind() == "endless" {
            let _ = self.host.send_info(InfoTarget::Plugin, "endless", b"", None);
            return;
        }
        self.host.log_fields(Level::Debug, "clock", event.kind(), &[("number", &1)]);
    }

    fn handle_retained(&self, retained: &Retained<'_>) {
        self.host.info(format_args!("retained {}", retained.topic()));
    }
}

fn host() -> TestHost {
    TestHost::new::<Busy>("{}").expect("it starts")
}

fn texts(host: &TestHost) -> Vec<String> {
    host.take_logs().into_iter().map(|line| line.text).collect()
}

#[test]
fn messages_and_disconnections_are_there_to_look_at() {
    let host = host();
    let client = host.connect("c1").expect("let in");
    for topic in ["publish", "send", "wrong"] {
        assert_eq!(client.publish(topic, ""), PublishVerdict::Forward, "{topic}");
    }
    let message = Message::new("reply", "yes").retain(true);
    assert_eq!(host.take_publishes(), std::slice::from_ref(&message));
    assert_eq!(texts(&host), ["retained reply"]);
    let sends: Vec<(Target, Message)> =
        host.take_sends().into_iter().map(|Sent { target, message, .. }| (target, message)).collect();
    assert_eq!(sends, [(Target::Client("c1".to_owned()), message.clone())]);
    assert_eq!(client.take_received(), [message]);
    assert!(host.take_publishes().is_empty() && host.take_sends().is_empty());

    assert_eq!(client.publish("out", ""), PublishVerdict::Forward, "it ends when the callback has returned");
    let ended = client.ended().expect("it has ended");
    assert_eq!((ended.kind, ended.reason_code), (DisconnectKind::ServerDisconnect, ReasonCode::QUOTA_EXCEEDED));
    let disconnects = host.take_disconnects();
    assert_eq!((disconnects.len(), disconnects[0].connection), (1, client.id()));
    assert_eq!(host.metric("asked").expect("a counter").value, 4.0);
    assert_eq!(host.metric("level").expect("a gauge").value, 5.0);
    assert_eq!((host.metric("other"), host.stored("starts")), (None, Some(b"1".to_vec())));
}

#[test]
fn timers_come_in_virtual_time() {
    let host = host();
    let client = host.connect("c1").expect("let in");
    for topic in ["later", "cancel", "now"] {
        client.publish(topic, "");
    }
    assert_eq!(texts(&host), [format!("now Connection({:?})", client.id())]);
    let timers: Vec<(String, Duration, Option<Duration>)> =
        host.timers().into_iter().map(|timer| (timer.kind, timer.due_in, timer.interval)).collect();
    let secs = Duration::from_secs;
    assert_eq!(timers, [("timer".to_owned(), secs(3), None), ("tick".to_owned(), secs(10), Some(secs(10)))]);
    host.advance(secs(2));
    assert_eq!(texts(&host), [""; 0]);
    host.advance(secs(1));
    assert_eq!(texts(&host), ["timer Timer"]);
    host.advance(secs(27));
    assert_eq!(host.elapsed(), secs(30));
    let lines = host.take_logs();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!((lines[0].target.as_str(), lines[0].text.as_str(), lines[0].level), ("clock", "tick", Level::Debug));
    assert_eq!(lines[0].fields, [("number".to_owned(), "1".to_owned())]);
    // One for a connection that has ended is dropped.
    client.publish("later", "");
    client.disconnect();
    host.advance(secs(5));
    assert_eq!(texts(&host), [""; 0]);
}

#[test]
fn questions_are_answered_when_the_callback_has_returned() {
    let host = host();
    let client = host.connect("c1").expect("let in");
    assert_eq!(client.subscribe_all(&[("a", QoS::AtMostOnce), ("taken", QoS::AtLeastOnce)]), SubscribeVerdict::Grant);
    for (topic, expected) in [("ask", "c1 a true"), ("again", "1 of 1 sessions"), ("thread", "1 connections")] {
        client.publish(topic, "");
        assert_eq!(texts(&host), [expected]);
    }
    assert_eq!(client.subscriptions(), [("a".to_owned(), QoS::AtMostOnce)]);
    client.publish("subscribe", "");
    let given = ("given".to_owned(), QoS::AtLeastOnce);
    assert_eq!(client.subscriptions(), [("a".to_owned(), QoS::AtMostOnce), given]);
}

#[test]
#[should_panic(expected = "sends messages to itself without end")]
fn a_handler_that_never_comes_to_an_end_is_found_out() {
    host().connect("c1").expect("let in").publish("endless", "");
}
