//! What is known of plugins, and what they are told: numbers, quarantine, configuration, health.

use serde_json::{Value, json};

use super::*;
use crate::harness::{eventually, host_output, library};
use crate::mqtt::{Client, Publish, V5};

#[test]
fn calls_are_counted_and_quarantine_is_ended() {
    let config = "{\"panic\":\"handle_publish\",\"times\":2}";
    let unruly = library("unruly");
    let args = ["--plugin", path(&unruly), "--plugin-config", config, "--quarantine-panics", "2"];
    let host = Host::start("control-quarantine", &args);
    let (step, reason) = host.refusal(&["resume", "unruly"]);
    assert_eq!((step.as_str(), reason.as_str()), ("resume", "it is not in quarantine"));
    for number in 0..2 {
        let mut victim = Client::connect(host.addr, V5, format!("victim{number}"));
        victim.send(Publish::new("t", "").qos(1, 1).bytes(V5));
        victim.expect_disconnect(0x83);
    }
    let shown = stdout(&host.command(&["plugins"]));
    assert!(shown.contains("active, IN QUARANTINE"), "{shown}");
    // Who asks how the plugins are wants to know it as well.
    let output = host.command(&["health", "--json"]);
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let health = &answer["result"]["plugins"][0];
    assert_eq!((output.status.code(), &answer["ok"]), (Some(1), &json!(true)), "{answer}");
    assert_eq!([&health["ok"], &health["quarantined"], &health["text"]], [&json!(false), &json!(true), &json!(null)]);
    let shown = stdout(&host.command(&["health", "unruly"]));
    assert!(shown.contains("NOT WELL") && shown.contains("IN QUARANTINE: host resume unruly"), "{shown}");
    let status = host.result(&["plugins"]);
    let callbacks = status["plugins"][0]["instances"][0]["callbacks"].as_array().unwrap();
    let publish = callbacks.iter().find(|one| one["name"] == "handle_publish").expect("it was called");
    assert_eq!((&publish["calls"], &publish["panics"]), (&json!(2), &json!(2)), "{publish}");
    let shown = stdout(&host.command(&["resume", "unruly"]));
    assert!(shown.starts_with("plugin unruly: asked again are ") && shown.contains("(generation 1)"), "{shown}");
    assert_eq!(host.result(&["health"])["plugins"][0]["quarantined"], false);
    let mut victim = Client::connect(host.addr, V5, "victim");
    assert_eq!(victim.publish("t", "", 1), 0x10);
    host.process.stop();
}

#[test]
fn what_plugins_count_and_measure_is_shown_and_outlives_a_swap() {
    let operated = library("operated");
    let host =
        Host::start("control-metrics", &["--plugin", path(&operated), "--plugin-config", "{\"answer\":\"abc\"}"]);
    let mut client = host.asking("c");
    for question in ["", "long", "longer"] {
        assert_eq!(client.publish("ask", question, 1), 0);
        assert_eq!(client.receive().text(), "abc");
    }
    host.result(&["swap", "--plugin", path(&operated), "--plugin-config", "{\"answer\":\"abcdef\"}"]);
    let metrics = host.result(&["metrics"]);
    let find = |name: &str| {
        let found = metrics["metrics"].as_array().unwrap().iter().find(|metric| metric["name"] == name);
        found.unwrap_or_else(|| panic!("{name} in {metrics}"))
    };
    assert_eq!(find("configurations_total")["value"], 2.0);
    assert_eq!((&find("answer_bytes")["value"], &find("answer_bytes")["kind"]), (&json!(6.0), &json!("gauge")));
    let questions = find("question_bytes");
    assert_eq!((&questions["count"], &questions["sum"]), (&json!(3), &json!(10.0)), "{questions}");
    let shown = stdout(&host.command(&["metrics"]));
    assert!(shown.contains("3 values, half up to 4, 99% up to 8"), "{shown}");
    host.process.stop();
}

#[test]
fn configuration_with_a_type_is_checked_before_anybody_gets_it() {
    let typed = library("typed");
    let schema = host_output(["check", "--schema", path(&typed)]);
    let schema: Value = serde_json::from_slice(&schema.stdout).expect("nothing but JSON");
    assert_eq!((&schema["description"], &schema["required"]), (&json!("How the plugin answers."), &json!(["answer"])));
    assert_eq!(
        (&schema["properties"]["answer"]["type"], &schema["additionalProperties"]),
        (&json!("integer"), &json!(false))
    );
    let none = host_output(["check", "--schema", path(&library("operated"))]);
    let text = String::from_utf8_lossy(&none.stderr);
    assert!(none.status.code() == Some(2) && text.contains("no schema of its configuration"), "{text}");

    let wrong = r#"{"answer": 1, "topics": [{"name": 5}]}"#;
    let refused = host_output(["check", path(&typed), "--plugin-config", wrong, "--log", "info"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(
        text.contains("`topics[0].name`: invalid type: integer `5`, expected a string") && text.contains("--schema"),
        "{text}"
    );
    assert!(!text.contains("typed: init"), "{text}");

    let host = Host::start("control-typed", &["--plugin", path(&typed), "--plugin-config", r#"{"answer": 1}"#]);
    let mut client = host.asking("c");
    assert_eq!(ask(&mut client), "1");
    let unknown = "`answr`: unknown field `answr`, expected `answer` or `topics`";
    let (step, reason) = host.refusal(&["configure", "typed", r#"{"answr": 2}"#]);
    assert!(step == "config" && reason.contains(unknown), "{step}: {reason}");
    let (step, reason) = host.refusal(&["swap", "--plugin", path(&typed), "--plugin-config", r#"{"answr": 2}"#]);
    assert!(step == "config" && reason.contains(unknown), "{step}: {reason}");
    assert_eq!(ask(&mut client), "1");
    host.result(&["configure", "typed", r#"{"answer": 2}"#]);
    assert_eq!(ask(&mut client), "2");
    host.process.wait_log("typed: config");
    let log = host.process.log();
    let says = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!((says("typed: init"), says("typed: config")), (1, 1), "{log:#?}");
    host.process.stop();
}

#[test]
fn configuration_is_given_to_the_plugin_that_runs_and_to_its_successors() {
    let operated = library("operated");
    let v1 = library("v1");
    let args = ["--plugin", path(&operated), "--plugin-config", "{\"answer\":\"a\"}", "--plugin", path(&v1)];
    let host = Host::start("control-configure", &args);
    let mut client = host.asking("c");
    assert_eq!(ask(&mut client), "a");
    let file = host.dir.file("b.json", "{\"answer\": \"b\"}");
    let result = host.result(&["configure", "operated", &format!("@{}", path(&file))]);
    assert_eq!(result["instances"][0]["generation"], 1, "{result}");
    assert_eq!(ask(&mut client), "b");
    let table = [
        (["operated", "{\"refuse\":\"not today\"}"], "config", "not today"),
        (["operated", "{"], "config", "the configuration is not JSON: EOF"),
        (["operated", "{\"panic\":\"handle_config\"}"], "config", "handle_config panicked: operated: handle_config"),
        (["versioned", "{}"], "config", "has no handle_config"),
        (["nobody", "{}"], "name", "no plugin of this server is called \"nobody\" (there are: operated, versioned)"),
    ];
    for (args, expected_step, expected) in table {
        let (step, reason) = host.refusal(&[&["configure"], &args[..]].concat());
        assert_eq!(step, expected_step, "{args:?}: {reason}");
        assert!(reason.contains(expected), "{args:?}: {reason}");
        assert_eq!(ask(&mut client), "b");
    }
    // A swap takes over what was taken last, and the old one hears of what comes while it may return.
    host.result(&["swap", "--plugin", path(&operated), "--probation", "1h"]);
    assert_eq!(ask(&mut client), "b");
    let shown = stdout(&host.command(&["configure", "operated", "{\"answer\":\"c\"}"]));
    assert!(shown.contains("was taken by 1.0.0 (generation 2), 1.0.0 (generation 1)"), "{shown}");
    assert_eq!(ask(&mut client), "c");
    host.result(&["swap", "--rollback"]);
    assert_eq!(ask(&mut client), "c");
    host.process.stop();
}

#[test]
fn configuration_that_one_instance_refuses_no_instance_has() {
    let operated = library("operated");
    let host = Host::start("control-refused", &["--plugin", path(&operated), "--plugin-config", r#"{"answer":"a"}"#]);
    let mut client = host.asking("c");
    let swap = ["swap", "--plugin", path(&operated), "--plugin-config", r#"{"answer":"b"}"#, "--probation", "1h"];
    host.result(&swap);
    let (step, reason) = host.refusal(&["configure", "operated", r#"{"answer":"c","unless":"a"}"#]);
    assert_eq!(step, "config");
    assert!(reason.contains("it answers a (generation 2 had taken it, and has back what it had)"), "{reason}");
    assert_eq!(ask(&mut client), "b");
    host.result(&["swap", "--rollback"]);
    assert_eq!(ask(&mut client), "a");
    host.process.stop();
}

#[test]
fn health_is_asked_and_a_plugin_that_does_not_return_holds_up_nobody_else() {
    let operated = library("operated");
    let v1 = library("v1");
    let host = Host::start("control-health", &["--plugin", path(&operated), "--plugin", path(&v1)]);
    let configure = |config: &Value| host.result(&["configure", "operated", &config.to_string()]);
    configure(&json!({"answer": "a"}));
    let health = host.result(&["health"]);
    let plugin = |index: usize| {
        [&health["plugins"][index]["plugin"], &health["plugins"][index]["ok"], &health["plugins"][index]["text"]]
    };
    assert_eq!(plugin(0), [&json!("operated"), &json!(true), &json!("answers a")]);
    assert_eq!(plugin(1), [&json!("versioned"), &json!(true), &json!(null)]);
    for (config, expected) in
        [(json!({"sick": "no database"}), "no database"), (json!({"panic": "health"}), "health panicked")]
    {
        configure(&config);
        let output = host.command(&["health"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains("NOT WELL") && stdout(&output).contains(expected), "{}", stdout(&output));
    }
    assert_eq!(host.command(&["health", "versioned"]).status.code(), Some(0));
    let until = host.dir.path().join("until");
    configure(&json!({"answer": "a", "block": "health", "until": until}));
    let mut client = host.asking("c");
    let output = host.command(&["health"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("health of generation 1 has not returned within 5 s"), "{}", stdout(&output));
    host.process.wait_log("a plugin does not return");
    assert_eq!(ask(&mut client), "a");
    assert_eq!(host.command(&["health", "versioned"]).status.code(), Some(0));
    let (step, reason) = host.refusal(&["configure", "operated", "{}"]);
    assert!(step == "deadline" && reason.contains("health of generation 1 was called"), "{step}: {reason}");
    std::fs::write(until, "").unwrap();
    eventually("it has returned", || host.command(&["health"]).status.code() == Some(0));
    host.process.stop();
}
