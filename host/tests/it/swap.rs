//! Plugins are swapped while clients are served.

use std::path::PathBuf;

use host::{ServerHandle, SwapRequest, SwapStep};

use crate::harness::{TempDir, eventually, library, with_configured};
use crate::mqtt::{Client, Connect, V5, field, packet, properties};

/// What the plugin says of its version, on a connection that has been there.
fn ask(client: &mut Client) -> String {
    assert_eq!(client.publish("ask", "", 1), 0);
    client.receive().text().to_owned()
}

/// The same where there are several, each with an answer of its own.
fn ask_as(client: &mut Client, number: usize) -> String {
    assert_eq!(client.publish(&format!("ask/{number}"), "", 1), 0);
    client.receive().text().to_owned()
}

fn several(server: &ServerHandle, count: usize) -> Vec<Client> {
    let connect = |number: usize| {
        let mut client = Client::connect(server.local_addr(), V5, format!("c{number}"));
        client.subscribe(&format!("answer/{number}"), 1);
        client
    };
    (0..count).map(connect).collect()
}

fn asking(server: &ServerHandle, client_id: &str) -> Client {
    let mut client = Client::connect(server.local_addr(), V5, client_id);
    client.subscribe("answer", 1);
    client
}

/// A request whose probation does not end while a test runs, however slow the machine is.
fn on_probation(library: PathBuf) -> SwapRequest {
    SwapRequest { probation: std::time::Duration::from_secs(3600), ..SwapRequest::new(library) }
}

fn instances(server: &ServerHandle) -> Vec<(&'static str, u64, usize)> {
    let status = server.status();
    status.plugins[0].instances.iter().map(|one| (one.role.name(), one.generation, one.connections)).collect()
}

#[test]
fn connections_that_are_there_get_the_new_version() {
    with_configured(
        |builder| builder.plugin(library("v1"), "{}"),
        |server| {
            let mut one = asking(server, "one");
            assert_eq!(ask(&mut one), "v1");
            let request = on_probation(library("v2"));
            let report = server.swap(&request).expect("it fits");
            assert_eq!((report.name.as_str(), report.generation, report.late), ("versioned", 2, 0));
            assert!(report.migration.is_some(), "{report}");
            assert_eq!(instances(server), [("active", 2, 1), ("previous", 1, 0)]);
            assert_eq!(ask(&mut one), "v2");
            let back = server.rollback(None).expect("it is on probation");
            assert_eq!(back.generation, 1);
            assert_eq!(ask(&mut one), "v1");
            eventually("the new one is dropped", || instances(server) == [("active", 1, 1)]);
            let mapped = server.status().mapped_libraries;
            let at_once = SwapRequest { probation: std::time::Duration::ZERO, ..request.clone() };
            server.swap(&at_once).expect("it fits again");
            assert!(server.status().mapped_libraries > mapped);
            assert_eq!(ask(&mut one), "v2");
            eventually("the old one is dropped", || instances(server) == [("active", 3, 1)]);
            one.ping();
        },
    );
}

#[test]
fn file_that_has_changed_is_swapped() {
    let dir = TempDir::new("swap-changed");
    let plugin = dir.path().join("handler.so");
    std::fs::copy(library("v1"), &plugin).unwrap();
    let server = crate::harness::start(2, |builder| builder.plugin(&plugin, "{}"));
    let mut client = asking(&server, "one");
    assert_eq!(server.swap_changed(), []);
    // The same content in another file is no change.
    std::fs::remove_file(&plugin).unwrap();
    std::fs::copy(library("v1"), &plugin).unwrap();
    assert_eq!(server.swap_changed(), []);
    std::fs::copy(library("v2"), &plugin).unwrap();
    assert_eq!(server.swap_changed().into_iter().map(|one| one.unwrap().generation).collect::<Vec<_>>(), [2]);
    assert_eq!(ask(&mut client), "v2");
    server.stop().unwrap();
}

/// A library that is loaded, and what is wrong with it or its configuration.
struct Failing {
    library: PathBuf,
    config: Option<&'static str>,
    step: SwapStep,
    reason: &'static str,
}

fn failing(dir: &TempDir) -> Vec<Failing> {
    let ours = || library("counting_v2");
    let row = |library: PathBuf, config, step, reason| Failing { library, config, step, reason };
    vec![
        row(dir.path().join("none.so"), None, SwapStep::Copy, "there is no such file"),
        row(dir.path().into(), None, SwapStep::Copy, "it is a directory"),
        row(dir.file("text.so", "no library"), None, SwapStep::Load, "not a shared library"),
        row(library("no_symbol"), None, SwapStep::Load, "it has no entry symbol"),
        row(library("other_major"), None, SwapStep::Abi, "it was built with plugin-api"),
        row(library("other_layout"), None, SwapStep::Abi, "its interface is not this host's"),
        row(library("v2"), None, SwapStep::Name, "no plugin of this server is called \"versioned\""),
        row(ours(), Some("{nonsense"), SwapStep::Config, "its configuration is not JSON"),
        row(ours(), Some(r#"{"init": "refuse"}"#), SwapStep::Init, "it refuses to start: init, as asked"),
        row(ours(), Some(r#"{"init": "panic"}"#), SwapStep::Init, "it panicked while it was starting: init, as asked"),
        row(
            ours(),
            Some(r#"{"plugin_state": "refuse"}"#),
            SwapStep::State,
            "returned an error: plugin_state, as asked",
        ),
        row(ours(), Some(r#"{"plugin_state": "panic"}"#), SwapStep::State, "panicked: plugin_state, as asked"),
    ]
}

#[test]
fn failure_at_any_step_leaves_the_running_version_untouched_and_says_why() {
    let dir = TempDir::new("swap-fails");
    with_configured(
        |builder| builder.plugin(library("counting_v1"), r#"{"deny": "secret"}"#),
        |server| {
            let mut client = asking(server, "one");
            for (number, Failing { library, config, step, reason }) in failing(&dir).into_iter().enumerate() {
                let config = config.map(str::to_owned);
                let error = server.swap(&SwapRequest { config, ..SwapRequest::new(&library) }).expect_err(reason);
                assert!(error.step == step && error.reason.contains(reason), "{reason:?}: {error:?}");
                let json = error.to_json();
                assert!(json["reason"].as_str().is_some_and(|text| text.contains(reason)), "{json}");
                assert_eq!(json["step"], step.name());
                let count = 2 * number + 1;
                assert_eq!(ask(&mut client), format!("v1 mine={count} all={count}"));
                assert_eq!(client.publish("secret", "", 1), 0x87, "what it refuses is refused");
                assert_eq!(instances(server), [("active", 1, 1)]);
            }
            // After all of that, what is right is taken, with the configuration that was there.
            server.swap(&SwapRequest::new(library("counting_v2"))).expect("it fits");
            assert_eq!(ask(&mut client), "v2 mine=25 all=25");
            assert_eq!(client.publish("secret", "", 1), 0x87);
        },
    );
}

/// It has been initialised, and may have threads to end: a failure behind that is not the last that it hears.
#[test]
fn version_that_is_not_taken_after_all_is_stopped() {
    with_configured(
        |builder| builder.plugin(library("counting_v1"), "{}"),
        |server| {
            let dir = TempDir::new("swap-stops");
            let is_stopped = |state: &str, step| {
                let file = dir.path().join(format!("stopped-{state}"));
                let config = format!(r#"{{"plugin_state": "{state}", "stopped": {file:?}}}"#);
                let request = SwapRequest { config: Some(config), ..SwapRequest::new(library("counting_v2")) };
                assert_eq!(server.swap(&request).expect_err("it is not taken").step, step);
                file.exists()
            };
            assert!(is_stopped("refuse", SwapStep::State));
            assert!(is_stopped("panic", SwapStep::State));
            // Where another one is on trial, it is not even begun.
            let canary = SwapRequest { canary_per_mille: Some(500), ..SwapRequest::new(library("counting_v2")) };
            server.swap(&canary).expect("it fits");
            assert!(!is_stopped("fine", SwapStep::Flip));
        },
    );
}

#[test]
fn plugin_that_would_have_the_name_of_another_one_is_refused() {
    let builder = |builder: host::Builder| builder.plugin(library("counting_v1"), "{}").plugin(library("v1"), "{}");
    with_configured(builder, |server| {
        let request = SwapRequest { name: Some("versioned".into()), ..SwapRequest::new(library("counting_v2")) };
        let error = server.swap(&request).expect_err("two would have one name");
        assert!(error.step == SwapStep::Name && error.reason.contains("two cannot have one name"), "{error:?}");
        assert_eq!(instances(server), [("active", 1, 0)]);
    });
}

#[test]
fn version_that_cannot_take_the_connections_is_rolled_back_and_costs_none() {
    for config in [r#"{"import": "refuse"}"#, r#"{"import": "panic"}"#, r#"{"publish": "panic"}"#] {
        with_configured(
            |builder| builder.plugin(library("counting_v1"), "{}"),
            |server| {
                let mut clients = several(server, 10);
                let request = SwapRequest {
                    config: Some(config.to_owned()),
                    error_budget: 4,
                    ..on_probation(library("counting_v2"))
                };
                let report = server.swap(&request).expect("it is loaded");
                if config.contains("import") {
                    // On a machine that is very slow, nobody has waited for the last connection.
                    assert!(report.is_rolled_back || report.migration.is_none(), "{config}: {report}");
                }
                for (number, client) in clients.iter_mut().enumerate() {
                    let answer = ask_as(client, number);
                    assert!(answer.starts_with("v1 mine=1 "), "{config}: {answer}");
                }
                eventually("it is rolled back", || instances(server) == [("active", 1, 10)]);
                for (number, client) in clients.iter_mut().enumerate() {
                    let answer = ask_as(client, number);
                    assert!(answer.starts_with("v1 mine=2 "), "{config}: {answer}");
                }
            },
        );
    }
}

#[test]
fn exchange_of_authentication_that_is_under_way_ends_with_the_version_that_began_it() {
    with_configured(
        |builder| builder.plugin(library("counting_v1"), "{}"),
        |server| {
            let method = [&[0x15][..], &field("m")].concat();
            let mut client = Client::open(server.local_addr(), V5);
            let mut connect = Connect::new(V5, "one");
            connect.properties = method.clone();
            client.send(connect.bytes());
            let data = |data: &str| [method.clone(), vec![0x16], field(data)].concat();
            let auth = |code: u8, text: &str| packet(0xF0, &[vec![code], properties(V5, &data(text))].concat());
            client.expect(&auth(0x18, "v1"));
            let report = server.swap(&SwapRequest::new(library("counting_v2"))).expect("it fits");
            assert_eq!(report.late, 1, "{report}");
            client.send(auth(0x18, "x"));
            let connack = client.connack();
            assert_eq!(connack.code, 0);
            assert!(connack.properties.ends_with(&data("v1")), "{:?}", connack.properties);
            client.subscribe("answer", 1);
            assert_eq!(ask(&mut client), "v2 mine=1 all=1");
        },
    );
}

#[test]
fn share_of_the_connections_gets_a_canary() {
    with_configured(
        |builder| builder.plugin(library("counting_v1"), "{}"),
        |server| {
            let mut clients = several(server, 60);
            let mut versions = |count: u32| {
                let v2 = clients.iter_mut().enumerate().filter_map(|(number, client)| {
                    let answer = ask_as(client, number);
                    assert!(answer.contains(&format!(" mine={count} ")), "{answer}");
                    answer.starts_with("v2").then_some(())
                });
                v2.count()
            };
            let canary = SwapRequest { canary_per_mille: Some(300), ..SwapRequest::new(library("counting_v2")) };
            server.swap(&canary).expect("it fits");
            let share = versions(1);
            assert!((5..35).contains(&share), "{share} of 60 at 30 %");
            assert_eq!(server.swap(&canary).expect_err("there is one").step, SwapStep::Flip);
            server.rollback(Some("counting")).expect("there is a canary");
            assert_eq!(versions(2), 0);
            assert_eq!(server.promote(None).expect_err("there is none").step, SwapStep::Flip);
            server.swap(&canary).expect("it fits");
            server.promote(None).expect("there is a canary");
            assert_eq!(versions(3), 60);
            assert_eq!(instances(server)[0], ("active", 3, 60));
        },
    );
}

#[test]
fn what_the_plugin_as_a_whole_has_learnt_is_handed_back_by_a_rollback() {
    // Who has had a share of the connections only knows less than the one that had the others.
    for (canary_per_mille, all) in [(None, 5), (Some(1000), 3)] {
        with_configured(
            |builder| builder.plugin(library("counting_v1"), "{}"),
            |server| {
                let mut client = asking(server, "one");
                let mut expect = |answer: &str| assert_eq!(ask(&mut client), answer, "{canary_per_mille:?}");
                (1..=3).for_each(|count| expect(&format!("v1 mine={count} all={count}")));
                let request = SwapRequest { canary_per_mille, ..on_probation(library("counting_v2")) };
                server.swap(&request).expect("it fits");
                (4..=5).for_each(|count| expect(&format!("v2 mine={count} all={count}")));
                server.rollback(None).expect("it is on trial");
                // It is needed until then.
                eventually("the new one is dropped", || instances(server) == [("active", 1, 1)]);
                expect(&format!("v1 mine=6 all={}", all + 1));
            },
        );
    }
}

#[test]
fn probation_of_a_canary_is_the_one_that_was_asked_for() {
    with_configured(
        |builder| builder.plugin(library("counting_v1"), "{}"),
        |server| {
            let request = SwapRequest {
                canary_per_mille: Some(1),
                probation: std::time::Duration::from_secs(3600),
                error_budget: 7,
                ..SwapRequest::new(library("counting_v2"))
            };
            server.swap(&request).expect("it fits");
            server.promote(None).expect("there is a canary");
            let promoted = server.status().plugins.remove(0).instances.remove(0);
            assert_eq!((promoted.generation, promoted.errors_left), (2, Some(7)));
            assert!(promoted.probation_left > Some(std::time::Duration::from_secs(1800)), "{promoted:?}");
        },
    );
}

#[test]
fn report_of_a_swap_names_both_plugins_where_they_have_different_names() {
    with_configured(
        |builder| builder.plugin(library("counting_v1"), "{}"),
        |server| {
            let request = SwapRequest { name: Some("counting".to_owned()), ..on_probation(library("v2")) };
            let report = server.swap(&request).expect("it fits");
            let there = "plugin versioned: 1.0.0 (generation 2) in the place of counting 1.0.0, ";
            assert!(report.to_string().starts_with(there), "{report}");
            assert_eq!(report.to_json()["from_plugin"], "counting");
            let back = server.rollback(None).expect("it is on probation");
            let here = "plugin counting: 1.0.0 (generation 1) in the place of versioned 1.0.0, ";
            assert!(back.to_string().starts_with(here), "{back}");
        },
    );
}
