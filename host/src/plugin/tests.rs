//! The folding rules, through handlers that are linked in: what each of them answers is in its configuration.

mod folding;
#[cfg(feature = "loom")]
mod interleavings;
mod later;
mod pool;
mod record;
mod scripted;
mod trouble;
mod undecided;

use plugin_api::{
    Accept, Ack, Auth, AuthVerdict, Connect, ConnectVerdict, ConnectionId, Deliver, DeliverVerdict, Disconnect,
    DisconnectKind, Error, Handler, Host, HostError, Info, InfoSender, InfoTarget, Message, Property, Publish,
    PublishVerdict, QoS, ReasonCode, Reject, Subscribe, SubscribeVerdict, Unsubscribe, UnsubscribeVerdict, handler,
};

use self::scripted::{HOST, Scripted, Silent, asked, code};
use super::*;
use crate::clock::Clock;
use crate::codec::SubscribeOptions;
use crate::core::mail::{Batch, Mail};
use crate::core::mailbox::Mailboxes;
use crate::message::Source;
use crate::plugin::GateState;

const INFO: ConnectionInfo<'_> = ConnectionInfo {
    connection: 7,
    peer: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1),
    listener: "tcp",
    transport: Transport::PLAIN,
};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn load(name: &'static str, script: &str, services: &Services) -> Result<Plugin, LoadError> {
    if script == "silent" {
        return Plugin::from_static::<Silent>(name, "1.0.0", "{}", services);
    }
    let mut config = serde_json::Map::new();
    config.insert("name".into(), name.into());
    for pair in script.split(';').filter(|pair| !pair.is_empty()) {
        let (callback, answer) = pair.split_once(':').expect("callback:answer");
        config.insert(callback.into(), answer.into());
    }
    let config = serde_json::Value::Object(config).to_string();
    Plugin::from_static::<Scripted>(name, "1.0.0", &config, services)
}

/// A chain of plugins a, b, c with these scripts, and a connection; what `new_connection` was asked is forgotten.
fn chain(scripts: &[&str]) -> (Chain, Handlers) {
    let services = Services::detached();
    let plugins = scripts.iter().zip(NAMES).map(|(script, name)| load(name, script, &services).expect("loads"));
    let chain = Chain::new(plugins.collect()).expect("a chain");
    let handlers = chain.new_connection(&INFO).expect("states");
    asked();
    (chain, handlers)
}

fn connect(chain: &Chain, handlers: &mut Handlers) -> ConnectOutcome {
    later::connect(chain, handlers, &connect_request())
}

fn connect_request() -> ConnectRequest<'static> {
    ConnectRequest {
        connection: 7,
        client_id: "me",
        assigned: false,
        username: None,
        password: Some(b""),
        version: 5,
        keep_alive: 60,
        clean_start: true,
        peer: ([127, 0, 0, 1], 1).into(),
        listener: "tcp",
        transport: Transport::PLAIN,
        will: None,
        properties: &[],
    }
}

fn publish(chain: &Chain, handlers: &mut Handlers) -> (PublishOutcome, ChangedMessage) {
    let request = PublishRequest::new(PublishFields {
        topic: "t",
        payload: b"p",
        properties: &[],
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(1),
        will: false,
    });
    let mut changed = ChangedMessage::default();
    (later::publish(chain, handlers, &request, &mut changed), changed)
}

#[test]
fn connecting_is_folded() {
    let rows: [(&[&str], &str, &[&str]); 10] = [
        (&[], "none", &[]),
        (&["silent"], "none", &[]),
        (&["", "silent", ""], "accept", &["a me", "c me"]),
        // The first refusal wins, and the plugins behind it are not asked.
        (&["connect:reject 87", "connect:reject 86"], "reject 87", &["a me"]),
        (&["", "connect:reject 86"], "reject 86", &["a me", "b me"]),
        (&["connect:error", ""], "reject 80", &["a me"]),
        (&["connect:reject 00"], "failed", &["a me"]),
        // [MQTT-3.2.2-8]
        (&["connect:reject 8d", ""], "reject 80", &["a me"]),
        (&["connect:panic", ""], "failed", &["a me"]),
        (&["connect:alias"], "failed", &["a me"]),
    ];
    for (scripts, expected, questions) in rows {
        let (chain, mut handlers) = chain(scripts);
        let got = match connect(&chain, &mut handlers) {
            ConnectOutcome::NoOpinion => "none".to_owned(),
            ConnectOutcome::Accept(_) => "accept".to_owned(),
            ConnectOutcome::Reject { reason_code, .. } => format!("reject {:02x}", reason_code.0),
            ConnectOutcome::Failed => "failed".to_owned(),
            ConnectOutcome::Deferred(_) => "deferred".to_owned(),
        };
        assert_eq!((got.as_str(), asked()), (expected, to_strings(questions)), "{scripts:?}");
    }
}

#[test]
fn overrides_of_later_plugins_win() {
    let (chain, mut handlers) = chain(&["connect:accept x", "connect:keep 5", "connect:accept y"]);
    let ConnectOutcome::Accept(overrides) = connect(&chain, &mut handlers) else { panic!("not accepted") };
    assert_eq!(asked(), ["a me", "b x", "c x"]);
    assert_eq!(overrides.client_id.as_deref(), Some("y"));
    assert_eq!(overrides.keep_alive, Some(5));
    let properties = overrides.properties.as_properties();
    assert_eq!(properties.reason_string(), Some("y"));
    assert!(properties.user_properties().eq([("by", "x"), ("by", "y")]));
    assert_eq!(properties.iter().count(), 3);
}

#[test]
fn publishing_is_folded() {
    let rows: [(&[&str], &str, &[&str]); 22] = [
        (&[], "forward", &[]),
        (&["silent", ""], "forward", &["b t"]),
        (&["", ""], "forward", &["a t", "b t"]),
        (&["publish:handled", ""], "handled", &["a t"]),
        (&["publish:reject 87", ""], "reject 87", &["a t"]),
        (&["publish:why full"], "reject 97 full", &["a t"]),
        (&["", "publish:disconnect 97", ""], "disconnect 97", &["a t", "b t"]),
        (&["publish:error", ""], "reject 80", &["a t"]),
        (&["publish:panic", ""], "failed", &["a t"]),
        (&["publish:caught"], "forward", &["a t"]),
        (&["publish:reject 10"], "failed", &["a t"]),
        // [MQTT-3.4.2-1] [MQTT-3.14.2-1]
        (&["publish:reject 96", ""], "reject 80", &["a t"]),
        (&["publish:disconnect 86", ""], "disconnect 80", &["a t"]),
        // Each plugin sees the previous one's message.
        (&["publish:topic x", ""], "changed x p", &["a t", "b x"]),
        (&["publish:payload q", "publish:topic x"], "changed x q", &["a t", "b t", "a x again"]),
        // A message that cannot be published is refused.
        (&["publish:topic x/+", ""], "reject 80", &["a t"]),
        (&["publish:alias"], "reject 80", &["a t"]),
        // A changed topic is shown to the plugins before, which may only agree or refuse.
        (&["", "publish:topic x", ""], "changed x p", &["a t", "b t", "a x again", "c x"]),
        (&["publish:reject-again 87", "publish:topic x", ""], "reject 87", &["a t", "b t", "a x again"]),
        (&["publish:topic y", "publish:topic x", ""], "reject 80", &["a t", "b y", "a x again"]),
        // The same topic is not a changed one.
        (&["", "publish:topic t", ""], "changed t p", &["a t", "b t", "c t"]),
        (&["", "publish:payload q"], "changed t q", &["a t", "b t"]),
    ];
    for (scripts, expected, questions) in rows {
        let (chain, mut handlers) = chain(scripts);
        let (outcome, changed) = publish(&chain, &mut handlers);
        let got = match outcome {
            PublishOutcome::Forward => "forward".to_owned(),
            PublishOutcome::Changed => {
                assert_eq!(changed.qos, QoS::AtLeastOnce);
                format!("changed {} {}", changed.topic, String::from_utf8_lossy(&changed.payload))
            }
            PublishOutcome::Handled => "handled".to_owned(),
            PublishOutcome::Reject { reason_code, properties } => {
                let why = properties.as_properties().reason_string().unwrap_or_default().to_owned();
                format!("reject {:02x} {why}", reason_code.0).trim().to_owned()
            }
            PublishOutcome::Disconnect { reason_code, .. } => format!("disconnect {:02x}", reason_code.0),
            PublishOutcome::Failed => "failed".to_owned(),
            PublishOutcome::Deferred(_) => "deferred".to_owned(),
        };
        assert_eq!((got.as_str(), asked()), (expected, to_strings(questions)), "{scripts:?}");
    }
}

#[test]
fn authentication_belongs_to_the_plugin_that_accepts_the_method() {
    type Row<'a> = (&'a [&'a str], &'a str, Option<usize>, &'a [&'a str]);
    let rows: [Row<'_>; 8] = [
        (&["silent"], "reject 8c", None, &[]),
        (&["", ""], "reject 8c", None, &["a Start", "b Start"]),
        (&["", "auth:continue", "auth:ok"], "continue", Some(1), &["a Start", "b Start"]),
        (&["auth:ok"], "ok", Some(0), &["a Start"]),
        (&["auth:reject 87", "auth:ok"], "reject 87", Some(0), &["a Start"]),
        (&["auth:error", "auth:ok"], "reject 80", Some(0), &["a Start"]),
        (&["auth:reject 8d", "auth:ok"], "reject 80", Some(0), &["a Start"]),
        (&["auth:panic", "auth:ok"], "failed", None, &["a Start"]),
    ];
    for (scripts, expected, expected_owner, questions) in rows {
        let (chain, mut handlers) = chain(scripts);
        let mut owner = None;
        let mut step = |step, owner: &mut Option<usize>| {
            let request = AuthRequest { method: "m", data: None, step, properties: &[], connected: false };
            match later::auth(&chain, &mut handlers, owner, &request) {
                AuthOutcome::Ok { data } => {
                    assert_eq!(data.as_deref(), Some(&b"done"[..]));
                    "ok".to_owned()
                }
                AuthOutcome::Continue { data } => {
                    assert_eq!(data, b"more");
                    "continue".to_owned()
                }
                AuthOutcome::Reject { reason_code, .. } => format!("reject {:02x}", reason_code.0),
                AuthOutcome::Failed => "failed".to_owned(),
                AuthOutcome::Deferred(_) => "deferred".to_owned(),
            }
        };
        let got = step(AuthStep::Start, &mut owner);
        assert_eq!((got.as_str(), owner, asked()), (expected, expected_owner, to_strings(questions)), "{scripts:?}");
        if got == "continue" {
            assert_eq!(step(AuthStep::Continue, &mut owner), "continue");
            assert_eq!(asked(), ["b Continue"]);
        }
    }
}

#[test]
fn refused_authentication_has_a_reason_code_of_the_packet_that_tells() {
    for (connected, expected) in [(false, 0x86), (true, 0x80)] {
        let (chain, mut handlers) = chain(&["auth:reject 86"]);
        let request = AuthRequest { method: "m", data: None, step: AuthStep::Continue, properties: &[], connected };
        let outcome = later::auth(&chain, &mut handlers, &mut Some(0), &request);
        assert!(
            matches!(outcome, AuthOutcome::Reject { reason_code, .. } if reason_code.0 == expected),
            "connected: {connected}: {outcome:?}"
        );
    }
}

#[test]
fn codes_are_only_lowered() {
    let rows: [(&[&str], &str, &[&str]); 10] = [
        (&["silent"], "done 02,01,8f", &[]),
        (&["", ""], "done 02,01,8f", &["a x=02,y=01,z=8f", "b x=02,y=01,z=8f"]),
        (&["subscribe:codes 01,02,00", ""], "done 01,01,8f", &["a x=02,y=01,z=8f", "b x=01,y=01,z=8f"]),
        (
            &["subscribe:codes 87,01,00", "subscribe:codes 00,80,97"],
            "done 87,80,8f",
            &["a x=02,y=01,z=8f", "b x=87,y=01,z=8f"],
        ),
        (&["subscribe:error"], "done 80,80,8f", &["a x=02,y=01,z=8f"]),
        (&["subscribe:codes 00"], "failed", &["a x=02,y=01,z=8f"]),
        // [MQTT-3.9.3-2]
        (&["subscribe:codes 96,01,96"], "done 80,01,8f", &["a x=02,y=01,z=8f"]),
        (&["subscribe:codes 00,00,03", ""], "failed", &["a x=02,y=01,z=8f"]),
        (&["subscribe:disconnect 87", ""], "disconnect 87", &["a x=02,y=01,z=8f"]),
        (&["subscribe:panic", ""], "failed", &["a x=02,y=01,z=8f"]),
    ];
    for (scripts, expected, questions) in rows {
        let (chain, mut handlers) = chain(scripts);
        let item = |filter| SubscribeItem {
            filter,
            share_name: None,
            options: SubscribeOptions::new(QoS::ExactlyOnce),
            again: false,
        };
        let items = ["x", "y", "z"].map(item);
        let mut codes = [ReasonCode(2), ReasonCode(1), ReasonCode(0x8f)];
        let got = match later::subscribe(&chain, &mut handlers, &items, &mut codes) {
            SubscribeOutcome::Done => format!("done {}", hex(&codes)),
            SubscribeOutcome::Disconnect { reason_code, .. } => format!("disconnect {:02x}", reason_code.0),
            SubscribeOutcome::Failed => "failed".to_owned(),
            SubscribeOutcome::Deferred(_) => "deferred".to_owned(),
        };
        assert_eq!((got.as_str(), asked()), (expected, to_strings(questions)), "{scripts:?}");
    }
}

#[test]
fn unsubscribing_can_only_be_refused() {
    let rows: [(&[&str], &str); 8] = [
        (&["", ""], "done 00,11"),
        (&["unsubscribe:codes 11,00", ""], "done 00,11"),
        (&["unsubscribe:codes 87,00", "unsubscribe:codes 80,00"], "done 87,11"),
        (&["unsubscribe:error"], "done 80,80"),
        // [MQTT-3.11.3-2]
        (&["unsubscribe:codes 97,00"], "done 80,11"),
        (&["unsubscribe:codes 00"], "failed"),
        (&["unsubscribe:codes 00,02"], "failed"),
        (&["unsubscribe:disconnect 00"], "disconnect 00"),
    ];
    for (scripts, expected) in rows {
        let (chain, mut handlers) = chain(scripts);
        let mut codes = [ReasonCode::SUCCESS, ReasonCode::NO_SUBSCRIPTION_EXISTED];
        let filters = ["x", "$share/g/y"];
        let got = match later::unsubscribe(&chain, &mut handlers, &filters, &mut codes) {
            SubscribeOutcome::Done => format!("done {}", hex(&codes)),
            SubscribeOutcome::Disconnect { reason_code, .. } => format!("disconnect {:02x}", reason_code.0),
            SubscribeOutcome::Failed => "failed".to_owned(),
            SubscribeOutcome::Deferred(_) => "deferred".to_owned(),
        };
        assert_eq!(got, expected, "{scripts:?}");
        assert_eq!(asked()[0], "a x,$share/g/y");
    }
}

#[test]
fn info_goes_to_its_plugin_and_every_action_comes_back() {
    let (chain, mut handlers) = chain(&["", "info:all", "info:bad"]);
    let request = InfoRequest { kind: "k", data: b"d", sender: InfoSender::Plugin, timer: 0 };
    let InfoOutcome::Actions(actions) = later::info(&chain, &mut handlers, Some(1), &request) else { panic!("failed") };
    assert_eq!(asked(), ["b k"]);
    let [InfoAction::Publish(message), InfoAction::Disconnect { reason_code, .. }, InfoAction::Stop { reason }] =
        &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((message.topic.as_str(), &message.payload[..], message.qos), ("to/you", &b"hi"[..], QoS::AtLeastOnce));
    assert_eq!((*reason_code, reason.as_str()), (ReasonCode::ADMINISTRATIVE_ACTION, "enough"));
    assert_eq!(later::info(&chain, &mut handlers, Some(0), &request), InfoOutcome::Actions(vec![]));
    assert_eq!(later::info(&chain, &mut handlers, Some(2), &request), InfoOutcome::Failed);
    assert_eq!(later::info(&chain, &mut handlers, None, &request), InfoOutcome::Failed);
}

#[test]
fn info_disconnects_with_a_reason_code_of_disconnect() {
    // [MQTT-3.14.2-1]
    let (chain, mut handlers) = chain(&["info:disconnect 86"]);
    let request = InfoRequest { kind: "k", data: b"d", sender: InfoSender::Plugin, timer: 0 };
    let outcome = later::info(&chain, &mut handlers, None, &request);
    let InfoOutcome::Actions(actions) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(actions[..], [InfoAction::Disconnect { reason_code: ReasonCode(0x80), .. }]), "{actions:?}");
}

#[test]
fn a_state_that_panicked_is_not_entered_again_and_others_hear_of_the_end() {
    let (chain, mut handlers) = chain(&["publish:panic", "", "puback:panic"]);
    assert_eq!(publish(&chain, &mut handlers).0, PublishOutcome::Failed);
    assert_eq!(publish(&chain, &mut handlers).0, PublishOutcome::Failed);
    assert_eq!(asked(), ["a t"]);
    // Where there is nothing to refuse, the others are told all the same.
    let ack = chain.puback(&mut handlers, "me", 5, AckKind::Puback, ReasonCode::SUCCESS, (Source::Client, 0));
    assert_eq!((ack, asked()), (Err(Failed), to_strings(&["b 5", "c 5"])));
    let reason = DisconnectReason { kind: DisconnectKind::HandlerFailed, reason_code: ReasonCode::SUCCESS, text: "x" };
    chain.disconnect(&mut handlers, "me", &reason);
    assert_eq!(asked(), ["b HandlerFailed x"]);
    chain.disconnect(&mut handlers, "me", &reason);
    assert_eq!(asked(), [""; 0], "exactly once");
    assert_eq!(publish(&chain, &mut handlers).0, PublishOutcome::Failed);
}

#[test]
fn panics_where_nothing_is_answered_are_contained() {
    let (chain, handlers) = chain(&["session_expired:panic;stop:panic;new:drop", "new:drop"]);
    drop(handlers);
    chain.plan().session_expired("me", None);
    chain.stop();
    assert_eq!(asked(), ["a me", "b me", "a stop", "b stop"]);
    let services = Services::detached();
    let plugins = vec![load("a", "", &services).expect("loads"), load("b", "new:panic", &services).expect("loads")];
    let chain = Chain::new(plugins).expect("a chain");
    assert_eq!(chain.new_connection(&INFO).map(|_| ()), Err(Failed));
}

#[test]
fn plugins_that_do_not_start_say_why() {
    let services = Services::detached();
    let reason = |script| load("a", script, &services).expect_err("does not load").to_string();
    assert!(reason("init:refuse").contains("plugin a: it refuses to start: not today"), "{}", reason("init:refuse"));
    assert!(reason("init:panic").contains("it panicked while it was starting: no start"));
    let bad = Plugin::from_static::<Silent>("a", "1.0.0", "{\n  nonsense", &services).expect_err("not JSON");
    assert!(bad.to_string().contains("line 2 column 3"), "{bad}");
    let twice = vec![load("a", "", &services).expect("loads"), load("a", "silent", &services).expect("loads")];
    assert_eq!(Chain::new(twice).map(|_| ()), Err(LoadError::DuplicateName { name: "a".into() }));
}

#[test]
fn requests_to_the_host_are_posted_when_the_callback_has_returned() {
    let mailboxes = Mailboxes::new(vec![Box::new(|| {}), Box::new(|| {})]);
    let services = Services::new(mailboxes.clone(), Clock::start(), 1000);
    let plugin = load("a", "publish:ask-host", &services).expect("loads");
    let chain = Chain::new(vec![plugin]).expect("a chain");
    let mut handlers = chain.new_connection(&INFO).expect("states");
    assert_eq!(publish(&chain, &mut handlers).0, PublishOutcome::Forward);
    let mut mails = Vec::new();
    for worker in 0..2 {
        let mut batch = Batch::default();
        mailboxes.of(worker).take(&mut batch);
        mails.append(&mut batch.take_mails());
    }
    let count = |test: fn(&Mail) -> bool| mails.iter().filter(|mail| test(mail)).count();
    assert_eq!(count(|mail| matches!(mail, Mail::Publish(message) if message.topic() == "from/plugin")), 1);
    // In a callback about a connection that has been let in it is known who has it; but only where it is of use.
    assert_eq!(count(|mail| matches!(mail, Mail::Info(info) if info.plugin == 0 && info.from_connection == 7)), 1);
    let disconnects =
        |mail: &Mail| matches!(mail, Mail::Disconnect { connection: 7, reason_code: ReasonCode(0x80), .. });
    assert_eq!(count(disconnects), 2);
    assert_eq!(mails.len(), 4);
}

#[test]
fn a_request_that_some_workers_have_no_room_for_is_full_and_reaches_the_others() {
    let mailboxes = Mailboxes::new(vec![Box::new(|| {}), Box::new(|| {})]);
    let services = Services::new(mailboxes.clone(), Clock::start(), 1000);
    let _plugin = load("a", "init:keep-host", &services).expect("loads");
    let host = HOST.take().expect("it was kept");
    let disconnect = || Disconnect::new(ReasonCode::SERVER_BUSY).reason_string(&"x".repeat(60_000));
    let mail =
        || Mail::Disconnect { connection: 1, reason_code: ReasonCode::BANNED, properties: vec![0; 60_000].into() };
    while mailboxes.post(1, mail()) {}
    assert_eq!(host.disconnect(ConnectionId(7), disconnect()), Err(HostError::Full));
    let mut batch = Batch::default();
    mailboxes.of(0).take(&mut batch);
    assert!(matches!(batch.take_mails()[..], [Mail::Disconnect { connection: 7, .. }]));
}

/// While everything goes over to another process, what a thread of a plugin's own does to its values waits, or is refused: who is
/// told that it is done finds it there afterwards.
#[test]
fn values_do_not_change_behind_a_gate_that_is_shut() {
    let services = Services::new(Mailboxes::new(vec![Box::new(|| {})]), Clock::start(), 1000);
    let _plugin = load("a", "init:keep-host", &services).expect("loads");
    let host = HOST.take().expect("it was kept");
    assert_eq!(host.store().put("k", "1"), Ok(()));
    for (state, error) in [(GateState::Shut, HostError::Full), (GateState::Closed, HostError::NotRunning)] {
        services.set_gate(state);
        assert_eq!(host.store().put("k", "2"), Err(error));
        assert_eq!(host.store().delete("k"), Err(error));
        assert_eq!(host.store().get("k"), Ok(Some(b"1".to_vec())));
    }
    services.set_gate(GateState::Open);
    assert_eq!(host.store().delete("k"), Ok(true));
}

#[test]
fn messages_from_plugins_have_the_bound_of_those_from_clients() {
    let services = Services::new(Mailboxes::new(vec![Box::new(|| {})]), Clock::start(), 1000);
    let plugin = load("a", "publish:large;info:large", &services).expect("loads");
    let chain = Chain::new(vec![plugin]).expect("a chain");
    let mut handlers = chain.new_connection(&INFO).expect("states");
    let (outcome, _) = publish(&chain, &mut handlers);
    assert!(matches!(outcome, PublishOutcome::Reject { reason_code: ReasonCode(0x80), .. }), "{outcome:?}");
    let request = InfoRequest { kind: "k", data: b"d", sender: InfoSender::Plugin, timer: 0 };
    assert_eq!(later::info(&chain, &mut handlers, None, &request), InfoOutcome::Failed);
    // Which may change while the server runs.
    services.set_packet_bytes_max(1 << 20);
    assert_eq!(publish(&chain, &mut handlers).0, PublishOutcome::Changed);
}

#[test]
fn plugins_hear_that_a_connection_ends_though_a_later_one_made_no_state() {
    let services = Services::detached();
    let scripts = ["", "new:panic", ""];
    let plugins = scripts.iter().zip(NAMES).map(|(script, name)| load(name, script, &services).expect("loads"));
    let chain = Chain::new(plugins.collect()).expect("a chain");
    assert_eq!(chain.new_connection(&INFO).map(|_| ()), Err(Failed));
    assert_eq!(asked(), ["a new", "b new", "a HandlerFailed "]);
}

#[test]
fn a_chain_is_small_for_one_plugin() {
    assert_eq!(size_of::<Handlers>(), 7 * size_of::<usize>());
    assert_eq!(size_of::<Option<Handlers>>(), 7 * size_of::<usize>());
}

fn hex(codes: &[ReasonCode]) -> String {
    codes.iter().map(|code| format!("{:02x}", code.0)).collect::<Vec<_>>().join(",")
}

fn to_strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[test]
fn names_are_checked() {
    let services = Services::detached();
    let long: &'static str = Box::leak("x".repeat(129).into_boxed_str());
    for (name, why) in [("", "has 0 bytes"), (long, "has 129 bytes"), ("a\nb", "control characters")] {
        let error = Plugin::from_static::<Scripted>(name, "1.0.0", "{}", &services).expect_err(why).to_string();
        assert!(error.contains("its name") && error.contains(why), "{error}");
    }
    let error = Plugin::from_static::<Scripted>("a", long, "{}", &services).expect_err("too long").to_string();
    assert!(error.contains("its version has 129 bytes"), "{error}");
    assert!(Plugin::from_static::<Scripted>("größer", "", "{}", &services).is_ok());
}
