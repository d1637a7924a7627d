//! Swaps by the program's commands, and by a signal.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::*;
use crate::harness::{PATIENCE, TempDir, eventually, have, library};
use crate::mqtt::{Client, V5};

#[test]
fn swap_changes_the_answers_and_drops_nobody() {
    for workers in ["1", "3"] {
        let host = Host::start("control-swap", &["--workers", workers, "--plugin", path(&library("v1"))]);
        let mut clients: Vec<_> =
            (0..8).map(|number| Client::connect(host.addr, V5, format!("idle{number}"))).collect();
        let mut client = host.asking("c");
        assert_eq!(ask(&mut client), "v1");
        let v2 = library("v2");
        let result = host.result(&["swap", "--plugin", path(&v2), "--probation", "1h"]);
        assert_eq!(
            [&result["plugin"], &result["generation"], &result["share_per_mille"], &result["path"]],
            [&json!("versioned"), &json!(2), &json!(1000), &json!(v2)],
            "{result}"
        );
        assert_eq!(ask(&mut client), "v2");
        assert_eq!(host.instances(), [("active".to_owned(), 2, 9), ("previous".to_owned(), 1, 0)]);
        let back = host.command(&["swap", "--rollback"]);
        assert_eq!(back.status.code(), Some(0), "{}", stderr(&back));
        assert!(stdout(&back).starts_with("plugin versioned: "), "{}", stdout(&back));
        assert_eq!(ask(&mut client), "v1");
        clients.iter_mut().for_each(Client::ping);
        // Without probation, there is nothing to go back to.
        host.result(&["swap", "--plugin", path(&v2), "--probation", "0s"]);
        assert_eq!(ask(&mut client), "v2");
        let (step, reason) = host.refusal(&["swap", "--rollback"]);
        assert_eq!((step.as_str(), reason.as_str()), ("flip", "no plugin has a canary or is on probation"));
        eventually("the old one is gone", || host.instances() == [("active".to_owned(), 3, 9)]);
        let table = stdout(&host.command(&["plugins"]));
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("PLUGIN     VERSION  GEN  ROLE"), "{table}");
        assert!(lines[1].starts_with("versioned") && lines[1].contains("100%"), "{table}");
        clients.iter_mut().for_each(Client::ping);
        host.process.stop();
    }
}

#[test]
fn clients_of_others_lose_nothing_while_plugins_are_swapped() {
    let there = "command -v mosquitto_pub && command -v mosquitto_sub";
    if !have("sh", &["-c", there], "host/tests/it/clients/install.sh") {
        return;
    }
    let host = Host::start("control-mosquitto", &["--workers", "2", "--plugin", path(&library("v1"))]);
    let port = host.addr.port().to_string();
    let mosquitto = |program: &str, args: &[&str]| {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-p", &port, "-V", "5", "-q", "1"]).args(args);
        command
    };
    let mut subscriber = mosquitto("mosquitto_sub", &["-t", "t"]).stdout(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    let out = BufReader::new(subscriber.stdout.take().unwrap());
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut raw = Client::connect(host.addr, V5, "raw");
    eventually("mosquitto_sub has subscribed", || {
        raw.publish("t", "ready", 1);
        lines.recv_timeout(Duration::from_millis(20)).is_ok()
    });
    let mut publisher = mosquitto("mosquitto_pub", &["-t", "t", "-l"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = publisher.stdin.take().unwrap();
    let mut expected = Vec::new();
    for version in ["v2", "v1", "v2", "v1"] {
        for _ in 0..50 {
            expected.push(expected.len().to_string());
            writeln!(stdin, "{}", expected.len() - 1).unwrap();
        }
        host.result(&["swap", "--plugin", path(&library(version))]);
    }
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
    let mut received = Vec::new();
    while received.len() < expected.len() {
        let line = lines.recv_timeout(PATIENCE).expect("all of them come");
        received.extend(Some(line).filter(|line| line != "ready"));
    }
    assert_eq!(received, expected);
    subscriber.kill().unwrap();
    subscriber.wait().unwrap();
    host.process.stop();
}

#[test]
fn swap_that_fails_changes_nothing_and_says_where() {
    let host = Host::start("control-fails", &["--plugin", path(&library("v1"))]);
    let mut client = host.asking("c");
    let no_library = host.dir.file("no-library.so", "text");
    let empty = host.dir.file("empty.so", "");
    let (v2, unruly) = (library("v2"), library("unruly"));
    let table: &[(&Path, &[&str], &str, &[&str])] = &[
        (Path::new("/no/such.so"), &[], "copy", &["/no/such.so", "there is no such file"]),
        (Path::new("/"), &[], "copy", &["cannot be read"]),
        (&no_library, &[], "load", &["not a shared library"]),
        (&empty, &[], "load", &["not a shared library"]),
        (&library("no_symbol"), &[], "load", &["no entry symbol", "plugin_api::export!"]),
        (&library("other_major"), &[], "abi", &["was built with plugin-api 2.0.0"]),
        (&library("other_layout"), &[], "abi", &["expected", "found"]),
        (&unruly, &[], "name", &["\"unruly\"", "there are: versioned"]),
        (&v2, &["--name", "nobody"], "name", &["\"nobody\"", "there are: versioned"]),
        (&v2, &["--plugin-config", "{"], "config", &["configuration is not JSON"]),
        (&library("refuses_init"), &["--name", "versioned"], "init", &["refuses to start"]),
        (
            &unruly,
            &["--name", "versioned", "--plugin-config", "{\"panic\":\"init\"}"],
            "init",
            &["panicked", "unruly: init"],
        ),
    ];
    for (plugin, args, expected_step, parts) in table {
        let (step, reason) = host.refusal(&[&["swap", "--plugin", path(plugin)], *args].concat());
        assert_eq!(step, *expected_step, "{}: {reason}", plugin.display());
        for part in *parts {
            assert!(reason.contains(part), "{}: `{part}` in {reason}", plugin.display());
        }
        assert_eq!(ask(&mut client), "v1");
    }
    assert_eq!(host.instances(), [("active".to_owned(), 1, 1)]);
    host.process.stop();
    let without = Host::start("control-fails-without", &[]);
    assert!(stdout(&without.command(&["plugins"])).starts_with("no plugins"));
    let (step, reason) = without.refusal(&["swap", "--plugin", path(&v2)]);
    assert!(step == "name" && reason.contains("was started without plugins"), "{step}: {reason}");
    without.process.stop();
}

#[test]
fn plugin_that_does_not_get_ready_holds_up_nobody() {
    let operated = library("operated");
    let host = Host::start("control-ready", &["--plugin", path(&operated), "--plugin-config", "{\"answer\":\"a\"}"]);
    let until = host.dir.path().join("until");
    let config = json!({"answer": "b", "block": "init", "until": until}).to_string();
    let swap = ["swap", "--plugin", path(&operated), "--ready-within", "2s", "--plugin-config", &config];
    let (step, reason) = host.refusal(&swap);
    assert!(step == "init" && reason.contains("has not got ready within 2 s"), "{step}: {reason}");
    let mut client = host.asking("c");
    assert_eq!(ask(&mut client), "a");
    host.result(&["swap", "--plugin", path(&operated), "--plugin-config", "{\"answer\":\"c\"}"]);
    assert_eq!(ask(&mut client), "c");
    std::fs::write(until, "").unwrap();
    host.process.wait_log("a plugin has got ready after its time");
    assert_eq!(ask(&mut client), "c");
    host.process.stop();
}

#[test]
fn swap_that_is_rolled_back_before_it_has_ended_is_a_failure() {
    let host = Host::start("control-at-once", &["--plugin", path(&library("counting_v1"))]);
    let mut client = host.asking("c");
    let new = library("counting_v2");
    let swap = ["swap", "--plugin", path(&new), "--plugin-config", "{\"import\":\"refuse\"}", "--error-budget", "0"];
    let (step, reason) = host.refusal(&swap);
    assert_eq!(step, "probation");
    assert!(reason.contains("has used up its error budget") && reason.contains("decides again"), "{reason}");
    assert!(ask(&mut client).starts_with("v1 "));
    let (step, reason) = host.refusal(&["swap", "--rollback"]);
    assert_eq!((step.as_str(), reason.as_str()), ("flip", "no plugin has a canary or is on probation"));
    host.process.stop();
}

#[test]
fn canary_is_promoted_or_rolled_back() {
    let host = Host::start("control-canary", &["--plugin", path(&library("v1"))]);
    let mut clients: Vec<_> = (0..40).map(|number| Client::connect(host.addr, V5, format!("c{number}"))).collect();
    let v2 = library("v2");
    let shown = host.command(&["swap", "--plugin", path(&v2), "--canary", "50%"]);
    assert!(stdout(&shown).contains("`host swap --promote versioned`"), "{}", stdout(&shown));
    let share = || {
        let instances = host.instances();
        assert_eq!((instances[0].0.as_str(), instances[1].0.as_str()), ("active", "canary"));
        assert_eq!(instances[0].2 + instances[1].2, 40, "{instances:?}");
        instances[1].2
    };
    assert!((1..40).contains(&share()), "{}", share());
    let (step, reason) = host.refusal(&["swap", "--plugin", path(&v2)]);
    assert!(step == "flip" && reason.contains("there is a canary of plugin versioned"), "{step}: {reason}");
    // Its `init` is not called for nothing: this one would panic.
    let unruly = library("unruly");
    let swap = ["swap", "--name", "versioned", "--plugin", path(&unruly), "--plugin-config", "{\"panic\":\"init\"}"];
    assert_eq!(host.refusal(&swap).0, "flip");
    let (step, reason) = host.refusal(&["swap", "--promote", "other"]);
    assert!(step == "flip" && reason.contains("other has no canary"), "{step}: {reason}");
    host.result(&["swap", "--rollback", "versioned"]);
    eventually("the canary is gone", || host.instances() == [("active".to_owned(), 1, 40)]);
    host.result(&["swap", "--plugin", path(&v2), "--canary", "0.1%"]);
    let promoted = host.result(&["swap", "--promote"]);
    assert_eq!(promoted["generation"], 3, "{promoted}");
    assert_eq!(host.instances(), [("active".to_owned(), 3, 40), ("previous".to_owned(), 1, 0)]);
    clients.iter_mut().for_each(Client::ping);
    host.process.stop();
}

#[test]
fn signal_swaps_what_has_changed() {
    let dir = TempDir::new("control-signal-files");
    let plugin = dir.path().join("handler.so");
    std::fs::copy(library("v1"), &plugin).unwrap();
    let host = Host::start("control-signal", &["--plugin", path(&plugin), "--plugin", path(&library("operated"))]);
    let mut client = host.asking("c");
    host.process.signal(Signal::HUP);
    host.process.wait_log("reloaded: nothing has changed");
    assert_eq!(ask(&mut client), "v1");
    std::fs::write(&plugin, "rubbish").unwrap();
    host.process.signal(Signal::HUP);
    host.process.wait_log_of(&["not reloaded, and nothing has changed:", "load"]);
    assert_eq!(ask(&mut client), "v1");
    std::fs::copy(library("v2"), &plugin).unwrap();
    host.process.signal(Signal::HUP);
    eventually("the new one answers", || ask(&mut client) == "v2");
    client.ping();
    host.process.stop();
}
