//! How the answers of several plugins become one: each callback with each kind of answer, in the first place of two and in
//! the second; and the rules of the chain one by one.

use super::*;

/// How a plugin behaves in one callback.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// It does not implement the callback.
    Nothing,
    /// What its script says.
    Answers(&'static str),
    /// It has panicked on this connection before.
    IsPoisoned,
}
use Does::{Answers, IsPoisoned, Nothing};

/// What comes of it, and whether a plugin behind it is asked.
#[derive(Debug, Clone, Copy)]
enum Then {
    Goes(&'static str),
    Ends(&'static str),
}
use Then::{Ends, Goes};

/// Callback, behaviour, outcome. The other plugin of the two has nothing against it.
const TABLE: &[(&str, Does, Then)] = &[
    ("connect", Nothing, Goes("accept")),
    ("connect", Answers(""), Goes("accept")),
    ("connect", Answers("accept x"), Goes("accept x")),
    ("connect", Answers("reject 87"), Ends("reject 87")),
    ("connect", Answers("error"), Ends("reject 80")),
    ("connect", Answers("panic"), Ends("failed")),
    ("connect", Answers("reject 00"), Ends("failed")),
    ("connect", IsPoisoned, Ends("failed")),
    // The other one knows no method: 0x8c is what "no opinion" is here.
    ("auth", Nothing, Goes("reject 8c")),
    ("auth", Answers(""), Goes("reject 8c")),
    ("auth", Answers("ok"), Ends("ok")),
    ("auth", Answers("continue"), Ends("continue")),
    ("auth", Answers("reject 87"), Ends("reject 87")),
    ("auth", Answers("error"), Ends("reject 80")),
    ("auth", Answers("panic"), Ends("failed")),
    ("auth", Answers("reject 00"), Ends("failed")),
    ("auth", IsPoisoned, Ends("failed")),
    ("publish", Nothing, Goes("forward")),
    ("publish", Answers(""), Goes("forward")),
    ("publish", Answers("payload q"), Goes("changed t q")),
    ("publish", Answers("handled"), Ends("handled")),
    ("publish", Answers("reject 87"), Ends("reject 87")),
    ("publish", Answers("disconnect 97"), Ends("disconnect 97")),
    ("publish", Answers("error"), Ends("reject 80")),
    ("publish", Answers("panic"), Ends("failed")),
    ("publish", Answers("topic +"), Ends("reject 80")),
    ("publish", Answers("reject 10"), Ends("failed")),
    ("publish", IsPoisoned, Ends("failed")),
    // Those behind a refusal of some Topic Filters are asked about the others.
    ("subscribe", Nothing, Goes("02,01")),
    ("subscribe", Answers(""), Goes("02,01")),
    ("subscribe", Answers("codes 01,01"), Goes("01,01")),
    ("subscribe", Answers("codes 87,02"), Goes("87,01")),
    ("subscribe", Answers("disconnect 87"), Ends("disconnect 87")),
    ("subscribe", Answers("error"), Goes("80,80")),
    ("subscribe", Answers("panic"), Ends("failed")),
    ("subscribe", Answers("codes 00"), Ends("failed")),
    ("subscribe", IsPoisoned, Ends("failed")),
    ("unsubscribe", Nothing, Goes("00,00")),
    ("unsubscribe", Answers(""), Goes("00,00")),
    ("unsubscribe", Answers("codes 11,87"), Goes("00,87")),
    ("unsubscribe", Answers("disconnect 87"), Ends("disconnect 87")),
    ("unsubscribe", Answers("error"), Goes("80,80")),
    ("unsubscribe", Answers("panic"), Ends("failed")),
    ("unsubscribe", Answers("codes 00"), Ends("failed")),
    ("unsubscribe", IsPoisoned, Ends("failed")),
    ("deliver", Nothing, Goes("send")),
    ("deliver", Answers(""), Goes("send")),
    ("deliver", Answers("payload q"), Goes("changed t q 1")),
    ("deliver", Answers("qos"), Goes("changed t p 1")),
    ("deliver", Answers("drop"), Ends("drop")),
    ("deliver", Answers("error"), Ends("drop")),
    ("deliver", Answers("panic"), Ends("failed")),
    ("deliver", Answers("topic +"), Ends("drop")),
    ("deliver", IsPoisoned, Ends("failed")),
    // Where there is nothing to refuse, the others hear of it all the same.
    ("puback", Nothing, Goes("told")),
    ("puback", Answers(""), Goes("told")),
    ("puback", Answers("panic"), Goes("failed")),
    ("puback", IsPoisoned, Goes("failed")),
    ("connected", Nothing, Goes("told")),
    ("connected", Answers(""), Goes("told")),
    ("connected", Answers("panic"), Goes("failed")),
    ("connected", IsPoisoned, Goes("failed")),
    ("disconnect", Nothing, Goes("told")),
    ("disconnect", Answers(""), Goes("told")),
    ("disconnect", Answers("panic"), Goes("told")),
    ("disconnect", IsPoisoned, Goes("told")),
    ("dropped", Nothing, Goes("told")),
    ("dropped", Answers("panic"), Goes("told")),
    ("acknowledged", Nothing, Goes("told")),
    ("acknowledged", Answers("panic"), Goes("told")),
    ("expired", Nothing, Goes("told")),
    ("expired", Answers("panic"), Goes("told")),
    ("retained", Nothing, Goes("told")),
    ("retained", Answers("panic"), Goes("told")),
    ("session_expired", Nothing, Goes("told")),
    ("session_expired", Answers("panic"), Goes("told")),
];

const MESSAGE: crate::message::MessageParts<'static> = crate::message::MessageParts {
    topic: "t",
    payload: b"p",
    properties: &[],
    qos: QoS::AtLeastOnce,
    retain: false,
    expires_at: crate::clock::Millis::NEVER,
    source: Source::Plugin { index: 1, hops: 1 },
    as_it_came: None,
};

fn notice() -> MessageNotice<'static> {
    MessageNotice { client_id: "me", message: MESSAGE, token: 5, packet_id: None, qos: MESSAGE.qos, retain: false }
}

fn outcome(result: Result<(), Failed>) -> String {
    if result.is_ok() { "told".into() } else { "failed".into() }
}

fn codes(outcome: &SubscribeOutcome, codes: &[ReasonCode]) -> String {
    match outcome {
        SubscribeOutcome::Done => hex(codes),
        SubscribeOutcome::Disconnect { reason_code, .. } => format!("disconnect {:02x}", reason_code.0),
        SubscribeOutcome::Failed => "failed".into(),
        SubscribeOutcome::Deferred(_) => "deferred".into(),
    }
}

fn deliver(chain: &Chain, handlers: &mut Handlers, source: Source) -> String {
    let request = DeliverRequest {
        topic: "t",
        payload: b"p",
        properties: &[],
        identifiers: &[],
        qos: QoS::AtLeastOnce,
        retain: false,
        shared: false,
        source,
        token: 0,
        cause: Cause::Published,
    };
    let mut changed = ChangedMessage::default();
    match chain.deliver(handlers, "me", &request, &mut changed) {
        DeliverOutcome::Send => "send".into(),
        DeliverOutcome::Changed => {
            let (topic, payload) = (&changed.topic, String::from_utf8_lossy(&changed.payload));
            format!("changed {topic} {payload} {}", changed.qos as u8)
        }
        DeliverOutcome::Drop => "drop".into(),
        DeliverOutcome::Later => "later".into(),
        DeliverOutcome::Failed => "failed".into(),
    }
}

/// Puts one callback to a chain.
fn put(callback: &str, chain: &Chain, handlers: &mut Handlers) -> String {
    match callback {
        "connect" => match connect(chain, handlers) {
            ConnectOutcome::NoOpinion => "none".into(),
            ConnectOutcome::Accept(overrides) => {
                overrides.client_id.map_or_else(|| "accept".to_owned(), |id| format!("accept {id}"))
            }
            ConnectOutcome::Reject { reason_code, .. } => format!("reject {:02x}", reason_code.0),
            ConnectOutcome::Failed => "failed".into(),
            ConnectOutcome::Deferred(_) => "deferred".into(),
        },
        "auth" => {
            let (data, step) = (None, AuthStep::Start);
            let request = AuthRequest { method: "m", data, step, properties: &[], connected: false };
            match later::auth(chain, handlers, &mut None, &request) {
                AuthOutcome::Ok { .. } => "ok".into(),
                AuthOutcome::Continue { .. } => "continue".into(),
                AuthOutcome::Reject { reason_code, .. } => format!("reject {:02x}", reason_code.0),
                AuthOutcome::Failed => "failed".into(),
                AuthOutcome::Deferred(_) => "deferred".into(),
            }
        }
        "publish" => match publish(chain, handlers) {
            (PublishOutcome::Forward, _) => "forward".into(),
            (PublishOutcome::Changed, message) => {
                format!("changed {} {}", message.topic, String::from_utf8_lossy(&message.payload))
            }
            (PublishOutcome::Handled, _) => "handled".into(),
            (PublishOutcome::Reject { reason_code, .. }, _) => format!("reject {:02x}", reason_code.0),
            (PublishOutcome::Disconnect { reason_code, .. }, _) => format!("disconnect {:02x}", reason_code.0),
            (PublishOutcome::Failed, _) => "failed".into(),
            (PublishOutcome::Deferred(_), _) => "deferred".into(),
        },
        "subscribe" => {
            let options = SubscribeOptions::new(QoS::ExactlyOnce);
            let items = ["x", "y"].map(|filter| SubscribeItem { filter, share_name: None, options, again: false });
            let mut granted = [ReasonCode(2), ReasonCode(1)];
            let outcome = later::subscribe(chain, handlers, &items, &mut granted);
            codes(&outcome, &granted)
        }
        "unsubscribe" => {
            let mut all = [ReasonCode::SUCCESS; 2];
            let outcome = later::unsubscribe(chain, handlers, &["x", "y"], &mut all);
            codes(&outcome, &all)
        }
        "deliver" => deliver(chain, handlers, Source::Client),
        "puback" => outcome(chain.puback(handlers, "me", 1, AckKind::Puback, ReasonCode::SUCCESS, (Source::Client, 0))),
        "connected" => {
            let (session_present, took_over) = (false, false);
            let notice =
                ConnectedNotice { connection: 7, session_expiry: 0, keep_alive: 0, session_present, took_over };
            outcome(chain.connected(handlers, "me", &notice))
        }
        "disconnect" => {
            let (kind, reason_code) = (DisconnectKind::Closed, ReasonCode::SUCCESS);
            chain.disconnect(handlers, "me", &DisconnectReason { kind, reason_code, text: "" });
            "told".into()
        }
        told => {
            let plan = chain.plan();
            match told {
                "dropped" => plan.tell(Fate::Dropped(plugin_api::DropReason::Slow), &notice()),
                "acknowledged" => plan.tell(Fate::Acknowledged(ReasonCode::SUCCESS), &notice()),
                "expired" => plan.tell(Fate::Expired, &notice()),
                "retained" => plan.retained(plugin_api::RetainChange::Set, &MESSAGE),
                _ => plan.session_expired("me", None),
            }
            "told".into()
        }
    }
}

#[test]
pub(super) fn every_kind_of_answer_is_folded_in_either_place() {
    for &(callback, does, then) in TABLE {
        for place in 0..2 {
            // A callback that poisons the state, other than the one that is looked at.
            let poison = if callback == "puback" { "connected" } else { "puback" };
            let script = match does {
                Nothing => "silent".to_owned(),
                Answers(answer) => format!("{callback}:{answer}"),
                IsPoisoned => format!("{poison}:panic"),
            };
            let mut scripts = ["", ""];
            scripts[place] = &script;
            let (chain, mut handlers) = chain(&scripts);
            if matches!(does, IsPoisoned) {
                assert_eq!(put(poison, &chain, &mut handlers), "failed");
                asked();
            }
            let got = put(callback, &chain, &mut handlers);
            let (expected, goes_on) = match then {
                Goes(outcome) => (outcome, true),
                Ends(outcome) => (outcome, false),
            };
            assert_eq!(got, expected, "{callback} {does:?} in place {place}");
            let who: String = asked().iter().map(|line| line[..1].to_owned()).collect();
            let itself = if matches!(does, Answers(_)) { NAMES[place] } else { "" };
            let expected = match place {
                0 => format!("{itself}{}", if goes_on { "b" } else { "" }),
                _ => format!("a{itself}"),
            };
            assert_eq!(who, expected, "who was asked: {callback} {does:?} in place {place}");
        }
    }
}

/// The rules of a chain, with what shows each of them.
#[test]
pub(super) fn the_rules_of_a_chain() {
    // The rule, the scripts, the callback that is put to them, what comes of it, and what the plugins were asked.
    type Row<'a> = (&'a str, &'a [&'a str], &'a str, &'a str, &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        // What nobody implements costs nothing, and is allowed; whether anybody may connect is the host's to say.
        ("nobody has an opinion", &["silent", "silent"], "publish", "forward", &[]),
        ("nobody has an opinion", &["silent", "silent"], "connect", "none", &[]),
        ("nobody has an opinion", &["silent", "silent"], "deliver", "send", &[]),
        // In order; the first refusal wins.
        ("the first refusal wins", &["connect:reject 87", "connect:reject 86"], "connect", "reject 87", &["a me"]),
        ("the first refusal wins", &["publish:reject 87", "publish:reject 99"], "publish", "reject 87", &["a t"]),
        ("the first drop wins", &["", "deliver:drop", "deliver:payload q"], "deliver", "drop", &["a t p", "b t p"]),
        // Implemented but unable to answer is a refusal, whatever the others say.
        ("unable is refuse", &["", "publish:panic", ""], "publish", "failed", &["a t", "b t"]),
        ("unable is refuse", &["", "deliver:panic", ""], "deliver", "failed", &["a t p", "b t p"]),
        // Each sees the previous one's message.
        (
            "the previous one's",
            &["publish:payload q", "publish:topic x"],
            "publish",
            "changed x q",
            &["a t", "b t", "a x again"],
        ),
        (
            "the previous one's",
            &["deliver:payload q", "deliver:topic x", ""],
            "deliver",
            "changed x q 1",
            &["a t p", "b t q", "c x q"],
        ),
        // A changed topic is put to those before; a second change in that round refuses.
        (
            "a topic is asked about again",
            &["", "publish:topic x"],
            "publish",
            "changed x p",
            &["a t", "b t", "a x again"],
        ),
        (
            "but changed once only",
            &["publish:topic y", "publish:topic x"],
            "publish",
            "reject 80",
            &["a t", "b y", "a x again"],
        ),
        ("not so for deliveries", &["", "deliver:topic x"], "deliver", "changed x p 1", &["a t p", "b t p"]),
        // What a client may have is lowered by each, and raised by none.
        (
            "codes are lowered",
            &["subscribe:codes 01,00", "subscribe:codes 02,02"],
            "subscribe",
            "01,00",
            &["a x=02,y=01", "b x=01,y=00"],
        ),
    ];
    for &(rule, scripts, callback, expected, questions) in rows {
        let (chain, mut handlers) = chain(scripts);
        assert_eq!(put(callback, &chain, &mut handlers), expected, "{rule}");
        assert_eq!(asked(), to_strings(questions), "{rule}");
    }
}

/// A plugin's own publishes do not come to its own `handle_deliver`, and its tokens are its own.
#[test]
fn a_plugin_is_not_asked_about_what_it_has_published() {
    let (chain, mut handlers) = chain(&["deliver:drop", "deliver:payload q"]);
    assert_eq!(deliver(&chain, &mut handlers, Source::Plugin { index: 0, hops: 1 }), "changed t q 1");
    assert_eq!(asked(), ["b t p"]);
    assert_eq!(deliver(&chain, &mut handlers, Source::Plugin { index: 1, hops: 1 }), "drop");
    assert_eq!(asked(), ["a t p"]);
    chain.plan().tell(Fate::Dropped(plugin_api::DropReason::Slow), &notice());
    assert_eq!(asked(), ["a t None", "b t Some(5)"]);
}

/// Each plugin of a chain has its own configuration.
#[test]
fn each_plugin_has_its_own_configuration() {
    let (chain, mut handlers) = chain(&["connect:accept x", "connect:keep 5"]);
    let configs: Vec<String> = chain.plugins().iter().map(|plugin| plugin.config()).collect();
    assert_eq!(configs, [r#"{"connect":"accept x","name":"a"}"#, r#"{"connect":"keep 5","name":"b"}"#]);
    let ConnectOutcome::Accept(overrides) = connect(&chain, &mut handlers) else { panic!("not accepted") };
    assert_eq!((overrides.client_id.as_deref(), overrides.keep_alive), (Some("x"), Some(5)));
}
