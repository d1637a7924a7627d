//! What plugins are asked is put to a candidate; its answers are compared, and what it asks for is not done.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::plugin::record::{Configs, dry_run};

/// What happens while a candidate is tried.
type Play = fn(&Chain, &mut Handlers);

/// Tries a candidate beside a plugin while one connection does something `times` times. It begins before that if it is
/// `there_already`.
fn tried(running: &str, candidate: &str, calls: u64, there_already: bool, play: Play) -> Value {
    let services = Services::new(Mailboxes::new(vec![Box::new(|| {})]), Clock::start(), 1000);
    let chain = Chain::new(vec![load("a", running, &services).expect("loads")]).expect("a chain");
    let (captured_services, captured) = services.captured();
    let candidate = Arc::new(load("a", candidate, &captured_services).expect("loads"));
    let first = there_already.then(|| chain.new_connection(&INFO).expect("states"));
    let plugin = Arc::clone(&chain.plugins()[0]);
    std::thread::scope(|scope| {
        let limits = DryRun { time: Duration::from_secs(3600), calls: Some(calls) };
        let (chain, plugin) = (&chain, &plugin);
        let tried = scope.spawn(move || {
            dry_run(chain, 0, plugin, (candidate, captured), &limits, Configs::Same, &|| false).expect("nobody else is")
        });
        while chain.plan().shadows().next().is_none() {
            std::thread::yield_now();
        }
        let mut handlers = first.unwrap_or_else(|| chain.new_connection(&INFO).expect("states"));
        let request = SwapRequest { info: INFO, client_id: "me", keep_alive: 60, version: 5 };
        assert_eq!(handlers.conform(&chain.plan(), &request), Conformed::Yes);
        play(chain, &mut handlers);
        tried.join().expect("no panic")
    })
}

fn publishes(chain: &Chain, handlers: &mut Handlers) {
    for _ in 0..3 {
        let _ = publish(chain, handlers);
    }
}

fn counts(report: &Value) -> [u64; 4] {
    ["calls", "same", "different", "left_out"].map(|key| report[key].as_u64().expect("a number"))
}

#[test]
fn candidate_that_answers_the_same_differs_in_nothing() {
    for (script, there_already) in
        [("", false), ("publish:topic u", true), ("publish:error", false), ("publish:ask-host", true)]
    {
        let report = tried(script, script, 3, there_already, publishes);
        assert_eq!(counts(&report), [3, 3, 0, 0], "{script}: {report:#}");
        assert_eq!(report["differences"], json!([]));
    }
}

#[test]
fn differences_are_counted_once_for_each_way_in_which_they_differ() {
    let report = tried("publish:topic u", "publish:reject 87", 3, false, publishes);
    assert_eq!(counts(&report), [3, 0, 3, 0], "{report:#}");
    let expected = json!([{
        "callback": "handle_publish",
        "count": 3,
        "first": {"number": 1, "at": report["differences"][0]["first"]["at"], "connection": 7, "client": "me", "about": "t"},
        "recorded": {
            "answer": {"change": {"topic": "u", "payload": "p", "qos": 1, "retain": false}}, "effects": [],
        },
        "candidate": {"answer": {"reject": {"reason_code": 0x87}}, "effects": []},
    }]);
    assert_eq!(report["differences"], expected);
}

/// The scripted handlers are asked on the thread of the candidate, too: what it has asked for is in the report alone.
#[test]
fn what_a_candidate_asks_of_the_host_is_compared() {
    let report = tried("", "publish:ask-host", 3, false, publishes);
    assert_eq!(counts(&report), [3, 0, 3, 0], "{report:#}");
    let effects = &report["differences"][0]["candidate"]["effects"];
    assert_eq!(effects[0], json!({"publish": {"topic": "from/plugin", "payload": "x", "qos": 0, "retain": false}}));
    assert_eq!(effects[1], json!({"send_info": {"connection": 7, "kind": "k", "data": "d"}}));
    assert_eq!(effects[2], json!({"disconnect": {"connection": 7, "reason_code": 0x80}}));
}

#[test]
fn candidate_that_panics_goes_on_as_a_plugin_does_whose_state_is_gone() {
    let report = tried("", "publish:panic", 3, false, publishes);
    assert_eq!(counts(&report), [3, 0, 3, 0], "{report:#}");
    assert_eq!(report["differences"][0]["count"], 2);
    assert_eq!(report["differences"][1]["candidate"]["answer"], json!({"panic": "as asked"}));
}

#[test]
fn what_follows_on_a_connection_that_the_candidate_does_not_let_in_is_left_out() {
    let play: Play = |chain, handlers| {
        connect(chain, handlers);
        publishes(chain, handlers);
    };
    let report = tried("", "connect:reject 87;publish:reject 87", 4, false, play);
    assert_eq!(counts(&report), [4, 0, 1, 3], "{report:#}");
    assert!(report["notes"][0].as_str().expect("a note").contains("what followed on 1 connections"), "{report:#}");
}

#[test]
fn candidate_without_an_opinion_agrees_but_does_not_let_anybody_in() {
    let play: Play = |chain, handlers| {
        publishes(chain, handlers);
        connect(chain, handlers);
    };
    let report = tried("", "silent", 4, false, play);
    assert_eq!(counts(&report), [4, 3, 1, 0], "{report:#}");
    assert_eq!(report["differences"][0]["candidate"]["answer"], json!({"no_opinion": {}}));
}

#[test]
fn what_is_refused_to_be_asked_of_several_is_one_dry_run_at_a_time() {
    let services = Services::new(Mailboxes::new(vec![Box::new(|| {})]), Clock::start(), 1000);
    let chain = Chain::new(vec![load("a", "", &services).expect("loads")]).expect("a chain");
    let plugin = Arc::clone(&chain.plugins()[0]);
    let candidate = || {
        let (services, captured) = services.captured();
        (Arc::new(load("a", "", &services).expect("loads")), captured)
    };
    let (first, long) = (candidate(), DryRun { time: Duration::from_secs(3600), calls: Some(1) });
    std::thread::scope(|scope| {
        let running = scope.spawn(|| dry_run(&chain, 0, &plugin, first, &long, Configs::Same, &|| false));
        while chain.plan().shadows().next().is_none() {
            std::thread::yield_now();
        }
        let short = DryRun { time: Duration::from_millis(1), calls: None };
        assert_eq!(
            dry_run(&chain, 0, &plugin, candidate(), &short, Configs::Same, &|| false).err(),
            Some(Busy::DryRun)
        );
        let mut handlers = chain.new_connection(&INFO).expect("states");
        let _ = publish(&chain, &mut handlers);
        assert_eq!(counts(&running.join().expect("no panic").expect("nobody else is")), [1, 1, 0, 0]);
        assert!(!plugin.is_tapped());
        // Then there may be another one, in which nothing happens.
        assert_eq!(
            counts(&dry_run(&chain, 0, &plugin, candidate(), &short, Configs::Same, &|| false).expect("it is over")),
            [0; 4]
        );
    });
}

/// Each beside its own, and asked what that one is asked in its place: the second one gets what the first one has made.
#[test]
fn candidates_of_two_plugins_are_tried_at_the_same_time() {
    let services = Services::new(Mailboxes::new(vec![Box::new(|| {})]), Clock::start(), 1000);
    let load = |name, script| load(name, script, &services).expect("loads");
    let chain = Chain::new(vec![load("a", "publish:topic u"), load("b", "")]).expect("a chain");
    let plugins = chain.plugins().to_vec();
    let candidate = |name, script| {
        let (services, captured) = services.captured();
        (Arc::new(super::load(name, script, &services).expect("loads")), captured)
    };
    let limits = DryRun { time: Duration::from_secs(3600), calls: Some(1) };
    std::thread::scope(|scope| {
        let (chain, plugins, limits) = (&chain, &plugins, &limits);
        let tried = [("a", "publish:topic u"), ("b", "publish:reject 87")].map(|(name, script)| {
            let index = usize::from(name == "b");
            let candidate = candidate(name, script);
            scope.spawn(move || {
                dry_run(chain, index, &plugins[index], candidate, limits, Configs::Same, &|| false)
                    .expect("its own place")
            })
        });
        while chain.plan().shadows().count() < 2 {
            std::thread::yield_now();
        }
        let mut handlers = chain.new_connection(&INFO).expect("states");
        let _ = publish(chain, &mut handlers);
        let [one, two] = tried.map(|tried| tried.join().expect("no panic"));
        assert_eq!((counts(&one), counts(&two)), ([1, 1, 0, 0], [1, 0, 1, 0]), "{one:#} {two:#}");
        assert_eq!(two["differences"][0]["first"]["about"], "u");
    });
}

#[test]
fn dry_run_ends_when_nobody_waits_for_it() {
    let services = Services::new(Mailboxes::new(vec![Box::new(|| {})]), Clock::start(), 1000);
    let chain = Chain::new(vec![load("a", "", &services).expect("loads")]).expect("a chain");
    let (captured_services, captured) = services.captured();
    let candidate = Arc::new(load("a", "", &captured_services).expect("loads"));
    let plugin = Arc::clone(&chain.plugins()[0]);
    let limits = DryRun { time: Duration::from_secs(3600), calls: None };
    let report = dry_run(&chain, 0, &plugin, (candidate, captured), &limits, Configs::Same, &|| true);
    let report = report.expect("nobody else is");
    assert!(report["notes"].to_string().contains("interrupted"), "{report:#}");
    assert!(!plugin.is_tapped() && chain.plan().shadows().next().is_none());
}

thread_local! {
    /// How many states of connections this thread has had exported.
    static EXPORTED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Hands its states over, and takes none.
struct Exporting;

#[handler]
impl Handler for Exporting {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) {}

    fn handle_publish(&self, (): &mut (), _: &Publish<'_>) -> Result<PublishVerdict, Error> {
        Ok(PublishVerdict::Forward)
    }

    fn export_state(&self, (): &mut ()) -> plugin_api::State {
        EXPORTED.set(EXPORTED.get() + 1);
        plugin_api::State::new(1, "mine")
    }
}

/// Hands over nothing, and takes states.
struct Importing;

#[handler]
impl Handler for Importing {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) {}

    fn handle_publish(&self, (): &mut (), _: &Publish<'_>) -> Result<PublishVerdict, Error> {
        Ok(PublishVerdict::Forward)
    }

    fn import_state(&self, _: &plugin_api::Swapped<'_>, state: plugin_api::StateView<'_>) -> Result<(), Error> {
        if state.bytes() == b"mine" { Ok(()) } else { Err("something else".into()) }
    }
}

/// As in a swap: nothing of the running plugin is called for a candidate that takes no states.
#[test]
fn states_are_exported_for_a_candidate_that_takes_them() {
    for imports in [false, true] {
        let services = Services::new(Mailboxes::new(vec![Box::new(|| {})]), Clock::start(), 1000);
        let (captured_services, captured) = services.captured();
        let plugin = Plugin::from_static::<Exporting>("a", "1.0.0", "{}", &services).expect("it starts");
        let candidate = if imports {
            Plugin::from_static::<Importing>("a", "2.0.0", "{}", &captured_services)
        } else {
            Plugin::from_static::<Exporting>("a", "2.0.0", "{}", &captured_services)
        };
        let candidate = Arc::new(candidate.expect("it starts"));
        let chain = Chain::new(vec![plugin]).expect("a chain");
        let plugin = Arc::clone(&chain.plugins()[0]);
        let mut handlers = chain.new_connection(&INFO).expect("states");
        EXPORTED.set(0);
        let report = std::thread::scope(|scope| {
            let limits = DryRun { time: Duration::from_secs(3600), calls: Some(1) };
            let (chain, plugin) = (&chain, &plugin);
            let tried = scope
                .spawn(move || dry_run(chain, 0, plugin, (candidate, captured), &limits, Configs::Same, &|| false));
            while chain.plan().shadows().next().is_none() {
                std::thread::yield_now();
            }
            let request = SwapRequest { info: INFO, client_id: "me", keep_alive: 60, version: 5 };
            assert_eq!(handlers.conform(&chain.plan(), &request), Conformed::Yes);
            let _ = publish(chain, &mut handlers);
            tried.join().expect("no panic").expect("nobody else is")
        });
        assert_eq!((counts(&report), EXPORTED.get()), ([1, 1, 0, 0], imports.into()), "{report:#}");
    }
}
