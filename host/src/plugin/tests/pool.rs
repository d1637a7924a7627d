//! Callbacks on the pool, through a handler that says that all of them may block.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plugin_api::{Error, Handler, Host, Publish, PublishVerdict, handler};

use super::super::cursor::SoFar;
use super::*;
use crate::limits::Limits;
use crate::message::Source;
use plugin_api::reading::Answer;

/// What the handler was asked, in order, whichever thread it was on; one line for each, with the name in its configuration.
static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Those of these names whose messages to "gate" need not wait any more.
static OPEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn open(gate: &str) {
    OPEN.lock().expect("whole").push(gate.to_owned());
}

/// Waits until something that other threads do has been done.
fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

struct Blocking {
    host: Host,
    name: String,
}

impl Blocking {
    fn note(&self, what: &str) {
        ASKED.lock().expect("whole").push(format!("{} {what}", self.name));
    }
}

#[handler(blocking)]
impl Handler for Blocking {
    type Connection = u32;

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let config: serde_json::Value = serde_json::from_str(config)?;
        Ok(Self { host, name: config["name"].as_str().unwrap_or_default().to_owned() })
    }

    fn new_connection(&self, info: &plugin_api::ConnectionInfo<'_>) -> u32 {
        self.note("new");
        assert_ne!(info.listener(), "panic", "as asked");
        0
    }

    fn handle_connect(&self, count: &mut u32, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        *count += 1;
        self.note(&format!("connect {} {count}", connect.client_id()));
        Ok(ConnectVerdict::accept())
    }

    fn handle_publish(&self, count: &mut u32, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        *count += 1;
        self.note(&format!("publish {} {count}", publish.topic()));
        match publish.topic() {
            "panic" => panic!("as asked"),
            "gate" => {
                until("it is opened", || OPEN.lock().expect("whole").contains(&self.name));
                Ok(PublishVerdict::Forward)
            }
            "again" => {
                self.host.publish(&Message::new("from/the/pool", "x"))?;
                Ok(PublishVerdict::Forward)
            }
            "reject" => Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED)),
            _ => Ok(PublishVerdict::Forward),
        }
    }

    fn handle_puback(&self, count: &mut u32, ack: &Ack<'_>) {
        *count += 1;
        self.note(&format!("puback {} {count}", ack.packet_id()));
    }

    fn handle_disconnect(&self, count: &mut u32, _: &plugin_api::DisconnectReason<'_>) {
        self.note(&format!("disconnect {count}"));
    }

    fn handle_session_expired(&self, client_id: &str, _: Option<plugin_api::StateView<'_>>) {
        self.note(&format!("expired {client_id}"));
    }
}

/// Delivers, and blocks elsewhere.
struct Mixed;

#[handler]
impl Handler for Mixed {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) {}

    #[blocking]
    fn handle_subscribe(&self, _: &mut (), _: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        Ok(SubscribeVerdict::Grant)
    }

    fn handle_deliver(&self, _: &mut (), _: &plugin_api::Deliver<'_>) -> Result<plugin_api::DeliverVerdict, Error> {
        Ok(plugin_api::DeliverVerdict::Send)
    }
}

/// A server's part in it: a mailbox for answers.
struct Desk {
    mailboxes: Mailboxes,
    chain: Chain,
    handlers: Option<Handlers>,
    name: &'static str,
}

impl Desk {
    fn new(name: &'static str, limits: &Limits) -> Self {
        let mailboxes = Mailboxes::new(vec![Box::new(|| {})]);
        let services = Services::new(mailboxes.clone(), Clock::start(), 1000);
        let services = services.watched_by(Watch::new(1, limits), limits);
        let config = format!("{{\"name\": {name:?}}}");
        let plugin = Plugin::from_static::<Blocking>("blocking", "1.0.0", &config, &services).expect("loads");
        let chain = Chain::new(vec![plugin]).expect("a chain");
        let handlers = chain.new_connection(&INFO).ok();
        Self { mailboxes, chain, handlers, name }
    }

    fn handlers(&mut self) -> &mut Handlers {
        self.handlers.as_mut().expect("not taken")
    }

    /// Waits for the answer that a cursor is about.
    fn answer(&self, cursor: &Cursor) -> Box<Answered> {
        let handlers = self.handlers.as_ref().expect("not taken");
        if let Some(answered) = self.chain.wait(handlers, cursor, 0) {
            return answered;
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut batch = Batch::default();
            self.mailboxes.of(0).take(&mut batch);
            for mail in batch.take_mails() {
                if let Mail::Answer { ticket, answered, connection: 7 } = mail {
                    assert_eq!(ticket, cursor.ticket());
                    return answered;
                }
            }
            assert!(Instant::now() < deadline, "no answer");
            std::thread::yield_now();
        }
    }

    fn publish(&mut self, topic: &str) -> String {
        let request = PublishRequest::new(PublishFields {
            topic,
            payload: b"p",
            properties: &[],
            qos: QoS::AtLeastOnce,
            retain: false,
            dup: false,
            packet_id: Some(1),
            will: false,
        });
        let (chain, mut changed) = (self.chain.clone(), ChangedMessage::default());
        let outcome = chain.publish(self.handlers(), "me", &request, &mut changed);
        let outcome = match outcome {
            PublishOutcome::Deferred(cursor) => {
                let answered = self.answer(&cursor);
                chain.resume_publish(self.handlers(), "me", &request, &mut changed, *cursor, *answered)
            }
            other => other,
        };
        match outcome {
            PublishOutcome::Reject { reason_code, .. } => format!("reject {:02x}", reason_code.0),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    fn puback(&mut self, packet_id: u16) {
        let chain = self.chain.clone();
        let told =
            chain.puback(self.handlers(), "me", packet_id, AckKind::Puback, ReasonCode::SUCCESS, (Source::Client, 0));
        assert_eq!(told, Ok(()));
    }

    /// What it was asked until all is done.
    fn asked(&self) -> Vec<String> {
        self.chain.plugins()[0].pool().drain();
        let mut asked = ASKED.lock().expect("whole");
        let prefix = format!("{} ", self.name);
        let mine = asked.iter().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect();
        asked.retain(|line| !line.starts_with(&prefix));
        mine
    }
}

#[test]
fn everything_is_done_in_order_and_nothing_on_this_thread() {
    let mut desk = Desk::new("order", &Limits::default());
    for packet_id in 1..=3 {
        desk.puback(packet_id);
    }
    assert_eq!(desk.publish("t"), "forward");
    assert_eq!(desk.publish("reject"), "reject 87");
    desk.puback(4);
    let mut handlers = desk.handlers.take().expect("not taken");
    let reason = DisconnectReason { kind: DisconnectKind::Closed, reason_code: ReasonCode(0), text: "" };
    desk.chain.disconnect(&mut handlers, "me", &reason);
    desk.chain.disconnect(&mut handlers, "me", &reason);
    let expected = [
        "new",
        "puback 1 1",
        "puback 2 2",
        "puback 3 3",
        "publish t 4",
        "publish reject 5",
        "puback 4 6",
        "disconnect 6",
    ];
    assert_eq!(desk.asked(), expected);
    desk.chain.plan().session_expired("me", None);
    assert_eq!(desk.asked(), ["expired me"]);
    let stats = desk.chain.plugins()[0].stats();
    let numbers: Vec<(&str, u64, u64, bool)> =
        stats.callbacks.iter().map(|one| (one.name, one.calls, one.refusals, one.is_pooled)).collect();
    let expected = [
        ("handle_publish", 2, 1, true),
        ("handle_puback", 4, 0, true),
        ("handle_disconnect", 1, 0, true),
        ("handle_session_expired", 1, 0, true),
        ("new_connection", 1, 0, true),
        ("drop of the connection's state", 1, 0, true),
    ];
    assert_eq!(numbers, expected);
}

#[test]
fn state_that_has_panicked_on_the_pool_is_not_entered_again() {
    let mut desk = Desk::new("panics", &Limits::default());
    assert_eq!(desk.publish("panic"), "failed");
    assert_eq!(desk.publish("t"), "failed");
    let mut handlers = desk.handlers.take().expect("not taken");
    let reason = DisconnectReason { kind: DisconnectKind::HandlerFailed, reason_code: ReasonCode(0), text: "" };
    desk.chain.disconnect(&mut handlers, "me", &reason);
    assert_eq!(desk.asked(), ["new", "publish panic 1"]);
    let stats = desk.chain.plugins()[0].stats();
    assert_eq!(stats.callbacks.iter().map(|one| one.panics).sum::<u64>(), 1);
    // So is one that could not be made.
    let info = ConnectionInfo { listener: "panic", ..INFO };
    desk.handlers = desk.chain.new_connection(&info).ok();
    assert_eq!(desk.publish("t"), "failed");
    assert_eq!(desk.asked(), ["new"]);
}

#[test]
fn tickets_are_the_bound_of_questions_and_late_answers_take_nothing_with_them() {
    let mut desk = Desk::new("late", &Limits::default());
    let chain = desk.chain.clone();
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
    let PublishOutcome::Deferred(cursor) = chain.publish(desk.handlers(), "me", &request, &mut changed) else {
        panic!("it answers at once")
    };
    chain.expire(Callback::Publish, "me", &cursor);
    assert_eq!(desk.publish("u"), "forward", "the state is there still");
    let asked = desk.asked();
    // It may have begun before its deadline.
    assert!(asked == ["new", "publish t 1", "publish u 2"] || asked == ["new", "publish u 1"], "{asked:?}");
}

#[test]
fn what_is_under_way_comes_before_what_could_be_done_at_once() {
    let mut desk = Desk::new("settle", &Limits::default());
    // As if `handle_publish` did not block.
    desk.puback(1);
    let settled = desk.handlers().settle(0);
    if !settled {
        desk.chain.plugins()[0].pool().drain();
        assert!(desk.handlers().settle(0));
    }
    assert_eq!(desk.publish("t"), "forward");
    assert_eq!(desk.asked(), ["new", "puback 1 1", "publish t 2"]);
}

#[test]
fn plugins_cannot_block_while_they_are_asked_about_deliveries() {
    let error = Plugin::from_static::<Mixed>("mixed", "1.0.0", "{}", &Services::detached()).expect_err("refused");
    assert_eq!(error, LoadError::BlocksDeliveries { plugin: "mixed".into(), callback: "handle_subscribe" });
    assert!(error.to_string().contains("or make two plugins of it"), "{error}");
}

/// Puts a question about a message to a plugin, on a connection of its own, and does not wait for the answer.
fn ask(chain: &Chain, topic: &str) -> (Handlers, PublishOutcome) {
    let mut handlers = chain.new_connection(&INFO).expect("states");
    let request = PublishRequest::new(PublishFields {
        topic,
        payload: b"p",
        properties: &[],
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(1),
        will: false,
    });
    let outcome = chain.publish(&mut handlers, "me", &request, &mut ChangedMessage::default());
    (handlers, outcome)
}

/// How many questions about this topic have begun.
fn begun(line: &str) -> usize {
    ASKED.lock().expect("whole").iter().filter(|other| *other == line).count()
}

#[test]
fn threads_are_bounded_by_plugin_and_in_all() {
    let limits = Limits { pool_threads_a_plugin_max: 2, pool_threads_max: 3, ..Limits::default() };
    let services = Services::new(Mailboxes::new(vec![Box::new(|| {})]), Clock::start(), 1000);
    let services = services.watched_by(Watch::new(1, &limits), &limits);
    let chains = ["one", "two"].map(|name| {
        let config = format!("{{\"name\": \"bounds-{name}\"}}");
        let plugin = Plugin::from_static::<Blocking>("blocking", "1.0.0", &config, &services).expect("loads");
        Chain::new(vec![plugin]).expect("a chain")
    });
    let pool = Arc::clone(chains[0].plugins()[0].pool());
    let mut all: Vec<_> = (0..2).map(|_| ask(&chains[0], "gate")).collect();
    until("both have begun", || begun("bounds-one publish gate 1") == 2);
    all.extend((0..8).map(|_| ask(&chains[0], "gate")));
    assert_eq!(pool.threads(), 2, "for this plugin");
    all.push(ask(&chains[1], "gate"));
    until("there is a thread for another one", || begun("bounds-two publish gate 1") == 1);
    all.extend((0..8).map(|_| ask(&chains[1], "gate")));
    assert_eq!(pool.threads(), 3, "in all");
    assert_eq!((begun("bounds-one publish gate 1"), begun("bounds-two publish gate 1")), (2, 1));
    assert!(all.iter().all(|(_, outcome)| matches!(outcome, PublishOutcome::Deferred(_))));
    open("bounds-one");
    open("bounds-two");
    pool.drain();
    assert_eq!((begun("bounds-one publish gate 1"), begun("bounds-two publish gate 1")), (10, 9));
}

/// A question whose time has passed while it waited is not put any more.
#[test]
fn what_nobody_waits_for_is_not_asked() {
    let limits = Limits { pool_threads_a_plugin_max: 1, ..Limits::default() };
    let desk = Desk::new("late", &limits);
    let _first = ask(&desk.chain, "gate");
    until("it has begun", || begun("late publish gate 1") == 1);
    let (second, outcome) = ask(&desk.chain, "t");
    let PublishOutcome::Deferred(cursor) = outcome else { panic!("it is on the pool") };
    assert!(desk.chain.wait(&second, &cursor, 0).is_none());
    desk.chain.expire(Callback::Publish, "me", &cursor);
    open("late");
    assert!(!desk.asked().iter().any(|line| line.starts_with("publish t")));
}

/// Of a connection that ends before the plugin was asked, it hears the end, and nothing is left of it.
#[test]
fn what_is_taken_back_is_not_asked() {
    let limits = Limits { pool_threads_a_plugin_max: 1, ..Limits::default() };
    let mut desk = Desk::new("back", &limits);
    let (first, _) = ask(&desk.chain, "gate");
    until("it has begun", || begun("back publish gate 1") == 1);
    let chain = desk.chain.clone();
    let ConnectOutcome::Deferred(cursor) = chain.connect(desk.handlers(), &connect_request()) else {
        panic!("it is on the pool")
    };
    assert!(chain.wait(desk.handlers(), &cursor, 0).is_none());
    assert!(chain.withdraw(&cursor) && !chain.withdraw(&cursor));
    let reason = DisconnectReason { kind: DisconnectKind::Refused, reason_code: ReasonCode(0x80), text: "" };
    chain.disconnect(desk.handlers(), "me", &reason);
    open("back");
    let asked = desk.asked();
    assert_eq!(asked, ["new", "new", "publish gate 1", "disconnect 0"]);
    drop(first);
    chain.plugins()[0].pool().drain();
    let numbers = chain.plugins()[0].stats();
    let calls = |name| numbers.callbacks.iter().find(|one| one.name == name).map_or(0, |one| one.calls);
    assert_eq!((calls("handle_connect"), calls("drop of the connection's state")), (0, 2));
    assert_eq!(chain.plugins()[0].connections(), 0);
}

/// What is published on the pool is as far from its origin as what is published in the same callback on a worker.
#[test]
fn a_message_from_the_pool_counts_where_it_comes_from() {
    let mut desk = Desk::new("hops", &Limits::default());
    let hops = |desk: &Desk| {
        let mut batch = Batch::default();
        desk.mailboxes.of(0).take(&mut batch);
        let mails = batch.take_mails();
        let hops = mails.iter().find_map(|mail| match mail {
            Mail::Publish(message) => Some(message.source().hops()),
            _ => None,
        });
        hops.expect("it was published")
    };
    for distance in [1, 5] {
        let chain = desk.chain.clone();
        let source = Source::Plugin { index: 0, hops: distance };
        desk.handlers().settle(0);
        let asked = services::because_of(source, || ask(&chain, "again"));
        desk.asked();
        assert_eq!(hops(&desk), distance + 1);
        drop(asked);
    }
}

/// Who gets the answer may need the state at once, for what does not run on the pool.
#[test]
fn the_state_is_home_before_the_answer() {
    let mut desk = Desk::new("home", &Limits::default());
    for _ in 0..100 {
        assert_eq!(desk.publish("t"), "forward");
        assert!(desk.handlers().settle(0));
    }
}

/// Of a plugin that does not keep up no more is kept than its bound, whoever waits for it.
#[test]
fn what_waits_has_a_bound_of_bytes() {
    let limits = Limits { pool_threads_a_plugin_max: 1, pool_bytes_max: 3, ..Limits::default() };
    let desk = Desk::new("bytes", &limits);
    let (chain, mut all) = (desk.chain.clone(), Vec::new());
    let mut publish = |topic| {
        let (handlers, outcome) = ask(&chain, topic);
        all.push(handlers);
        outcome
    };
    assert!(matches!(publish("gate"), PublishOutcome::Deferred(_)));
    until("it has begun", || begun("bytes publish gate 1") == 1);
    assert!(matches!(publish("larger than the bound"), PublishOutcome::Deferred(_)), "it waits alone");
    let PublishOutcome::Reject { reason_code, .. } = publish("t") else { panic!("there is no room for it") };
    assert_eq!(reason_code, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
    let full = |one: &CallbackStats| (one.name == "handle_publish").then_some(one.full);
    assert_eq!(chain.plugins()[0].stats().callbacks.iter().find_map(full), Some(1), "it is counted");
    open("bytes");
    chain.plugins()[0].pool().drain();
    assert!(matches!(publish("t"), PublishOutcome::Deferred(_)), "there is room again");
}

/// Connections are counted once, whatever became of their states.
#[test]
fn a_state_that_has_panicked_is_counted_off_once() {
    let mut desk = Desk::new("count", &Limits::default());
    assert_eq!(desk.publish("panic"), "failed");
    let plugin = Arc::clone(&desk.chain.plugins()[0]);
    assert_eq!(plugin.connections(), 0);
    let answer = Answered { verdict: plugin_api::abi::Verdict::POISONED, answer: Answer::default() };
    let cursor = Cursor::new(desk.handlers(), 0, 1, SoFar::Nothing);
    assert!(desk.handlers().take_back(&cursor, Callback::Publish, "me", answer).is_err());
    drop(desk.handlers.take());
    assert_eq!(plugin.connections(), 0);
    let mut handlers = desk.chain.new_connection(&ConnectionInfo { listener: "panic", ..INFO }).expect("pending");
    plugin.pool().drain();
    assert!(handlers.settle(0));
    drop(handlers);
    assert_eq!(plugin.connections(), 0);
}

/// A server that ends does not wait for workers that have ended before it.
#[test]
fn nobody_waits_for_connections_when_the_server_ends() {
    let chain = Chain::default();
    let waiting = chain.clone();
    let waits = std::thread::spawn(move || waiting.wait_conformed(1, 1, Duration::from_secs(600)));
    chain.close();
    assert_eq!(waits.join().expect("no panic"), None);
}
