//! What is counted, and what becomes of a plugin that panics again and again.

use std::sync::Arc;

use plugin_api::abi::Verdict;
use plugin_api::{Error, Handler, Host, Publish, PublishVerdict, Subscribe, SubscribeVerdict, handler};

use super::*;
use crate::limits::{Limits, Quarantine};

/// A handler that does what the topic, or the first Topic Filter, says.
struct Told {
    host: Host,
}

fn told(what: &str) -> Result<Option<ReasonCode>, Error> {
    match what {
        "reject" => Ok(Some(ReasonCode::NOT_AUTHORIZED)),
        "unusable" => Ok(Some(ReasonCode::SUCCESS)),
        "error" => Err("as told".into()),
        "panic" => panic!("as told"),
        _ => Ok(None),
    }
}

#[handler]
impl Handler for Told {
    type Connection = ();

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        Ok(Self { host })
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) {}

    fn handle_connect(&self, _: &mut (), _: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        Ok(ConnectVerdict::accept())
    }

    fn handle_auth(&self, _: &mut (), auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        Ok(if auth.method() == "mine" { AuthVerdict::Ok } else { AuthVerdict::error(code("8c")) })
    }

    fn handle_publish(&self, _: &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if publish.topic() == "disconnect" {
            return Ok(PublishVerdict::disconnect(ReasonCode::NOT_AUTHORIZED));
        }
        if publish.topic() == "later" {
            let (ticket, later) = self.host.ticket()?;
            ticket.answer(PublishVerdict::Forward)?;
            return Ok(PublishVerdict::Later(later));
        }
        Ok(told(publish.topic())?.map_or(PublishVerdict::Forward, PublishVerdict::reject))
    }

    fn handle_subscribe(&self, _: &mut (), subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        let first = subscribe.subscriptions().next().map(|item| item.filter().to_owned());
        Ok(told(&first.unwrap_or_default())?
            .map_or(SubscribeVerdict::Grant, |code| SubscribeVerdict::Codes(vec![code])))
    }

    fn handle_unsubscribe(&self, _: &mut (), _: &Unsubscribe<'_>) -> Result<UnsubscribeVerdict, Error> {
        Ok(UnsubscribeVerdict::Allow)
    }

    fn handle_disconnect(&self, _: &mut (), _: &plugin_api::DisconnectReason<'_>) {}

    fn handle_session_expired(&self, _: &str, _: Option<plugin_api::StateView<'_>>) {}
}

fn told_chain(watch: &Arc<Watch>) -> Chain {
    let services = Services::detached().watched_by(Arc::clone(watch), &Limits::default());
    Chain::new(vec![Plugin::from_static::<Told>("told", "1.2.3", "{}", &services).expect("loads")]).expect("a chain")
}

fn publish_request(topic: &str) -> PublishRequest<'_> {
    PublishRequest::new(PublishFields {
        topic,
        payload: b"p",
        properties: &[],
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(1),
        will: false,
    })
}

fn publish_to(chain: &Chain, handlers: &mut Handlers, topic: &str) -> String {
    match chain.publish(handlers, "me", &publish_request(topic), &mut ChangedMessage::default()) {
        PublishOutcome::Reject { reason_code, .. } => format!("reject {:02x}", reason_code.0),
        PublishOutcome::Disconnect { reason_code, .. } => format!("disconnect {:02x}", reason_code.0),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn subscribe_to(chain: &Chain, handlers: &mut Handlers, filter: &str) -> String {
    let options = SubscribeOptions::new(QoS::AtLeastOnce);
    let items = [SubscribeItem { filter, share_name: None, options, again: false }];
    let mut codes = [ReasonCode(1)];
    match chain.subscribe(handlers, "me", &items, &[], &mut codes) {
        SubscribeOutcome::Done => hex(&codes),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Name, calls, refusals, errors, unusable answers, panics, timed calls.
type Row = (&'static str, u64, u64, u64, u64, u64, u64);

fn rows(chain: &Chain) -> Vec<Row> {
    let stats = chain.plugins()[0].stats();
    assert_eq!((stats.name.as_str(), stats.version.as_str()), ("told", "1.2.3"));
    let timed = |stats: &CallbackStats| stats.times.iter().map(|(_, count)| count).sum();
    let row = |stats: &CallbackStats| {
        (stats.name, stats.calls, stats.refusals, stats.errors, stats.unusable, stats.panics, timed(stats))
    };
    stats.callbacks.iter().map(row).collect()
}

#[test]
fn every_call_and_how_it_ended_is_counted() {
    // On a worker's thread, which has its own numbers, and on any other.
    for worker in [Some(0), None] {
        let run = move || {
            let watch = Watch::new(2, &Limits::default());
            if let Some(worker) = worker {
                watch.sit(worker);
            }
            let chain = told_chain(&watch);
            let mut handlers = chain.new_connection(&INFO).expect("states");
            assert!(matches!(connect(&chain, &mut handlers), ConnectOutcome::Accept(_)));
            for (topic, times, expected) in [
                ("t", 600, "forward"),
                ("reject", 3, "reject 87"),
                ("error", 2, "reject 80"),
                ("disconnect", 1, "disconnect 87"),
                ("unusable", 4, "failed"),
            ] {
                for _ in 0..times {
                    assert_eq!(publish_to(&chain, &mut handlers, topic), expected);
                }
            }
            for (filter, expected) in [("t", "01"), ("reject", "87"), ("error", "80"), ("reject", "87")] {
                assert_eq!(subscribe_to(&chain, &mut handlers, filter), expected);
            }
            for method in ["mine", "other"] {
                let request =
                    AuthRequest { method, data: None, step: AuthStep::Start, properties: &[], connected: false };
                let _ = chain.auth(&mut handlers, "me", &mut None, &request);
            }
            for _ in 0..2 {
                let mut other = chain.new_connection(&INFO).expect("states");
                assert_eq!(publish_to(&chain, &mut other, "panic"), "failed");
                // The state is gone, so that nothing is called, and nothing counted.
                assert_eq!(publish_to(&chain, &mut other, "t"), "failed");
            }
            let reason = DisconnectReason { kind: DisconnectKind::Closed, reason_code: ReasonCode(0), text: "" };
            chain.disconnect(&mut handlers, "me", &reason);
            chain.plan().session_expired("me", None);
            let expected: [Row; 8] = [
                ("handle_connect", 1, 0, 0, 0, 0, 1),
                ("handle_auth", 2, 0, 0, 0, 0, 1),
                // Calls 1, 257 and 513 of 612 are timed. An unusable refusal is both.
                ("handle_publish", 612, 8, 2, 4, 2, 3),
                ("handle_subscribe", 4, 2, 1, 0, 0, 1),
                ("handle_disconnect", 1, 0, 0, 0, 0, 1),
                ("handle_session_expired", 1, 0, 0, 0, 0, 1),
                ("new_connection", 3, 0, 0, 0, 0, 1),
                ("drop of the connection's state", 3, 0, 0, 0, 0, 1),
            ];
            assert_eq!(rows(&chain), expected, "{worker:?}");
        };
        std::thread::spawn(run).join().expect("as expected");
    }
}

#[test]
fn numbers_of_several_threads_add_up() {
    let watch = Watch::new(2, &Limits::default());
    let chain = told_chain(&watch);
    std::thread::scope(|scope| {
        // Two workers, and two threads that are none.
        for thread in 0..4 {
            let (watch, chain) = (&watch, chain.clone());
            scope.spawn(move || {
                watch.sit(thread);
                let mut handlers = chain.new_connection(&INFO).expect("states");
                for _ in 0..1000 {
                    publish_to(&chain, &mut handlers, "reject");
                }
            });
        }
    });
    let publish = rows(&chain).into_iter().find(|row| row.0 == "handle_publish").expect("it was called");
    assert_eq!((publish.1, publish.2), (4000, 4000));
}

/// As of a future that panics when its callback has returned long ago.
#[test]
fn panics_of_later_answers_are_counted_as_others_are() {
    let limits = Limits { quarantine_panics: 3, ..Limits::default() };
    let chain = told_chain(&Watch::new(1, &limits));
    for panics in 1..=3 {
        assert!(!chain.plugins()[0].stats().is_quarantined, "{panics}");
        let (mut handlers, request) = (chain.new_connection(&INFO).expect("states"), publish_request("later"));
        let outcome = chain.publish(&mut handlers, "me", &request, &mut ChangedMessage::default());
        let PublishOutcome::Deferred(cursor) = outcome else { panic!("{outcome:?}") };
        let mut answered = chain.wait(&handlers, &cursor, 0).expect("it was given at once");
        answered.verdict = Verdict::PANICKED;
        let changed = &mut ChangedMessage::default();
        let outcome = chain.resume_publish(&mut handlers, "me", &request, changed, *cursor, *answered);
        assert!(matches!(outcome, PublishOutcome::Failed), "{outcome:?}");
        let publish = rows(&chain).into_iter().find(|row| row.0 == "handle_publish").expect("it was called");
        assert_eq!((publish.1, publish.5), (panics, panics));
    }
    assert!(chain.plugins()[0].stats().is_quarantined);
}

/// What a plugin is asked and answers, in quarantine and when it is over.
#[test]
fn quarantine_refuses_or_skips_until_it_is_ended() {
    for (quarantine, expected) in [
        (Quarantine::Refuse, ["reject 83", "83", "Reject 0x88", "Reject 0x83", "no state"]),
        (Quarantine::Skip, ["forward", "01", "NoOpinion", "Reject 0x8c", "a state"]),
        (Quarantine::Off, ["forward", "01", "Accept", "Ok", "a state"]),
    ] {
        let limits = Limits { quarantine, quarantine_panics: 3, ..Limits::default() };
        let chain = told_chain(&Watch::new(1, &limits));
        let mut handlers = chain.new_connection(&INFO).expect("states");
        for panics in 1..=3 {
            assert!(!chain.plugins()[0].stats().is_quarantined, "{panics}");
            let mut other = chain.new_connection(&INFO).expect("states");
            assert_eq!(publish_to(&chain, &mut other, "panic"), "failed");
        }
        assert_eq!(chain.plugins()[0].stats().is_quarantined, quarantine != Quarantine::Off);
        let calls = |chain: &Chain| rows(chain).iter().map(|row| row.1).sum::<u64>();
        let before = calls(&chain);
        let request =
            AuthRequest { method: "mine", data: None, step: AuthStep::Start, properties: &[], connected: false };
        let got = [
            publish_to(&chain, &mut handlers, "t"),
            subscribe_to(&chain, &mut handlers, "t"),
            match connect(&chain, &mut handlers) {
                ConnectOutcome::Reject { reason_code, .. } => format!("Reject {:#04x}", reason_code.0),
                ConnectOutcome::Accept(_) => "Accept".to_owned(),
                other => format!("{other:?}"),
            },
            match chain.auth(&mut handlers, "me", &mut None, &request) {
                AuthOutcome::Reject { reason_code, .. } => format!("Reject {:#04x}", reason_code.0),
                AuthOutcome::Ok { .. } => "Ok".to_owned(),
                other => format!("{other:?}"),
            },
            chain.new_connection(&INFO).map_or("no state", |_| "a state").to_owned(),
        ];
        assert_eq!(got, expected, "{quarantine:?}");
        assert_eq!(calls(&chain) == before, quarantine != Quarantine::Off, "{quarantine:?}: it is not called");
        assert_eq!(chain.plugins()[0].end_quarantine(), quarantine != Quarantine::Off);
        assert_eq!(publish_to(&chain, &mut handlers, "t"), "forward");
        assert_eq!(publish_to(&chain, &mut handlers, "reject"), "reject 87");
        assert!(!chain.plugins()[0].end_quarantine());
    }
}

/// Hands over what it knows as a whole, or panics.
struct Whole(bool);

#[handler]
impl Handler for Whole {
    type Connection = ();

    fn init(_: Host, config: &str) -> Result<Self, Error> {
        Ok(Self(config == "\"panic\""))
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) {}

    fn export_plugin_state(&self) -> plugin_api::State {
        assert!(!self.0, "as asked");
        plugin_api::State::new(1, "all")
    }

    fn import_plugin_state(&self, state: plugin_api::StateView<'_>) -> Result<(), Error> {
        if state.bytes() == b"all" { Ok(()) } else { Err("something else".into()) }
    }
}

/// A version that cannot say what it knows is not replaced by one that would begin without it.
#[test]
fn what_a_plugin_knows_as_a_whole_is_handed_over_or_the_swap_fails() {
    let services = Services::detached();
    let [sound, panics] = ["{}", "\"panic\""]
        .map(|config| Plugin::from_static::<Whole>("whole", "1.0.0", config, &services).expect("it starts"));
    assert_eq!(sound.hand_over_all(&panics), Ok(()));
    let why = panics.hand_over_all(&sound).expect_err("it panics");
    assert!(why.contains("export_plugin_state of version 1.0.0 failed"), "{why}");
}
